/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Peer to peer: all phases driven from here, the other side's by the migration peer.
 *
 * One side  The peer is told to finish only when the status file says so. An answer that is lost
 * after that is asked for again: first what is left of the migration there is called off, which a
 * guest that went on there survives; then whether it runs there. Thread: the loop thread.
 */
#include "manager/domain/domain_migrate_priv.h"

#include "base/log.h"

#include <string.h>

#define ASK_ROUNDS 60
#define ASK_MS     1000

static const struct migrate_peer_ops *peers;

void domain_migrate_set_peer(const struct migrate_peer_ops *ops)
{
    peers = ops;
}

/* The name that finish is to know it by; the rest of the parameters as they were. */
static void dest_params(const struct domain *d, const struct migrate_params *p, const char *xml,
                        const char *uri, struct param_list *ret)
{
    struct migrate_params q = *p;
    q.dest_xml = xml;
    q.uri = uri;
    q.persist_xml = NULL; /* goes in the cookie of finish */
    q.dest_name = p->dest_name ? p->dest_name : d->name;
    migrate_params_write(&q, ret);
}

/* Flags that are the source's own business stay here. */
static unsigned dest_flags(unsigned flags)
{
    return flags & ~(unsigned)(MIGRATE_ABORT_ON_ERROR | MIGRATE_AUTO_CONVERGE);
}

/* ---- after a finish whose answer was lost ---- */

static enum migrate_answer ask_once(struct domain *d, const char *uri, GError **error)
{
    struct param_list params = {0};
    const char *other = d->migration->other_name;
    struct migrate_peer *peer = peers->open(uri, error);
    if (!peer)
        return MIGRATE_LOST;
    param_string(&params, "destination_name", other ? other : d->name);
    enum migrate_answer a = peers->finish(peer, &params, "", 0, true, NULL);
    if (a != MIGRATE_LOST)
        a = peers->is_active(peer, d->uuid, error);
    param_list_done(&params);
    peers->close(peer);
    return a;
}

bool migrate_ask_peer(struct domain *d, const char *uri, bool *ret_moved, GError **error)
{
    for (int i = 0; peers && i < ASK_ROUNDS; i++) {
        g_autoptr(GError) why = NULL;
        enum migrate_answer a = ask_once(d, uri, &why);
        if (a != MIGRATE_LOST) {
            *ret_moved = a == MIGRATE_YES;
            return a == MIGRATE_YES ||
                   !ruche_error(error, MANAGER_ERR_MACHINE,
                                "domain '%s' did not come to run at '%s'", d->name, uri);
        }
        if (i == 0)
            log_warn("domain '%s' was sent to '%s', which does not answer: %s", d->name, uri,
                     why ? why->message : "it ended the connection");
        task_sleep_ms(ASK_MS);
    }
    return ruche_error(error, MANAGER_ERR_TIMEOUT,
                       "domain '%s' was sent to '%s', which does not answer: it stands here, and "
                       "whether it runs there is not known",
                       d->name, uri);
}

/* ---- the phases ---- */

/* A peer that is gone before it was told to finish is no use any more. */
static bool is_there(struct domain *d, GError **error)
{
    return peers->is_alive(d->migration->link) ||
           ruche_error(error, RUCHE_ERR_IO, "migration of domain '%s': '%s' ended the connection",
                       d->name, d->migration->peer);
}

/* What is to be done when it is settled, with the lock. */
enum outcome { STAYS, LEAVES, UNKNOWN };

static enum outcome finish(struct domain *d, const struct param_list *params,
                           struct domain_def *stays, GError **error)
{
    struct domain_migration *m = d->migration;
    bool moved = false;
    g_autoptr(GError) why = NULL;
    g_autofree char *cookie = migrate_cookie_write(d->name, d->uuid, stays);
    migrate_write(d, PHASE_FINISH);
    switch (peers->finish(m->link, params, cookie, dest_flags(m->flags), false, &why)) {
    case MIGRATE_YES:
        return LEAVES;
    case MIGRATE_NO:
        g_propagate_error(error, g_steal_pointer(&why));
        return STAYS;
    default:
        break;
    }
    log_warn("migration of domain '%s': %s", d->name, why ? why->message : "no answer");
    if (!migrate_ask_peer(d, m->peer, &moved, error))
        return UNKNOWN;
    return moved ? LEAVES : STAYS;
}

static bool send_and_watch(struct domain *d, const struct migrate_params *p, const char *uri,
                           struct job *shown, GError **error)
{
    if (d->migration->flags & MIGRATE_OFFLINE)
        return true;
    if (!uri)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s' does not say where the machine's state is to go",
                           d->migration->peer);
    return migrate_send(d, p, uri, shown, error) && is_there(d, error);
}

static enum outcome move(struct domain *d, const struct migrate_params *p, struct job *shown,
                         GError **error)
{
    struct domain_migration *m = d->migration;
    struct param_list params = {0};
    struct migrate_cookie cookie = {0};
    enum outcome outcome = STAYS;
    auto_domain_def *stays = NULL;
    if (!migrate_persistent(d, p, m->flags, &stays, error))
        return STAYS;
    g_autofree char *xml = migrate_source_xml(d, p, m->flags, error), *answer = NULL, *uri = NULL;
    if (!xml)
        return STAYS;
    g_autofree char *ours = migrate_cookie_write(d->name, d->uuid, NULL);
    dest_params(d, p, xml, p->uri, &params);
    if (peers->prepare(m->link, &params, ours, dest_flags(m->flags), &answer, &uri, error) ==
        MIGRATE_YES) {
        const struct migrate_cookie_in in = {answer, answer ? strlen(answer) : 0};
        bool sent = migrate_cookie_read(&in, d->name, d->uuid, &cookie, error) &&
                    send_and_watch(d, p, uri ? uri : p->uri, shown, error);
        if (sent)
            outcome = finish(d, &params, stays, error);
        else
            peers->finish(m->link, &params, ours, dest_flags(m->flags), true, NULL);
    }
    migrate_cookie_done(&cookie);
    param_list_done(&params);
    return outcome;
}

static bool run(struct domain *d, const struct migrate_params *p, struct job *shown, GError **error)
{
    g_autoptr(GError) why = NULL;
    struct domain_migration *m = d->migration;
    struct migrate_peer *link = peers->open(m->peer, &why);
    enum outcome outcome = STAYS;
    m->link = link;
    if (link)
        outcome = move(d, p, shown, &why);
    if (link)
        peers->close(link); /* whatever is not finished there is over */
    m->link = NULL;
    if (outcome == LEAVES)
        migrate_leave(d);
    else if (outcome == UNKNOWN)
        migrate_unknown(d);
    else
        migrate_stay(d, &why);
    if (outcome != LEAVES)
        g_propagate_error(error, g_steal_pointer(&why));
    return outcome == LEAVES;
}

bool migrate_by_peer(const struct migrate_call *c, struct domain *d, const char *peer,
                     struct job *shown, GError **error)
{
    struct migrate_params p;
    if (!peers || !peer)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "migration of domain '%s': where to is not said", d->name);
    if (!migrate_params_read(c->params, &p, error) || !domain_lock(d, "migrate", error))
        return false;
    struct domain_migration *m = migrate_new(d, false, PHASE_BEGUN, c);
    m->who = NULL; /* we drive it: the client may go */
    m->busy = true;
    m->peer = g_strdup(peer);
    m->other_name = g_strdup(p.dest_name);
    if (d->state == DOMAIN_PAUSED)
        m->flags |= MIGRATE_PAUSED;
    if (migrate_may_leave(d, c->flags, error))
        return run(d, &p, shown, error);
    migrate_over(d);
    return false;
}
