/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Migrations whose driver is gone: a client's connection, or the daemon that we come after.
 *
 * Stored    In the status file: phase, flags, the peer. Thread: the loop thread.
 */
#include "manager/domain/domain_migrate_priv.h"

#include "base/log.h"

#include <string.h>

static const char *const phase_words[MIGRATE_PHASES] = {
    [PHASE_BEGUN] = "begun",         [PHASE_PREPARED] = "prepared", [PHASE_PERFORM] = "perform",
    [PHASE_PERFORMED] = "performed", [PHASE_FAILED] = "failed",     [PHASE_FINISH] = "finish",
    [PHASE_CONFIRM] = "confirm",
};

void domain_migrate_status(const struct domain *d, struct xml_node *status)
{
    const struct domain_migration *m = d->migration;
    if (!m)
        return;
    xml_set(status, "migration@phase", phase_words[m->phase]);
    xml_set(status, "migration@way", m->incoming ? "in" : "out");
    xml_set_f(status, "migration@flags", "%u", m->flags);
    if (m->ran)
        xml_set(status, "migration@ran", "yes");
    if (m->peer)
        xml_set(status, "migration@peer", m->peer);
    if (m->other_name)
        xml_set(status, "migration@name", m->other_name);
}

/* ---- a client is gone ---- */

static void stay_task(void *opaque)
{
    auto_domain *d = opaque;
    g_autoptr(GError) why = NULL;
    ruche_error(&why, MANAGER_ERR_ABORTED,
                "migration of domain '%s': the connection that drove it is over", d->name);
    if (d->migration->incoming)
        migrate_in_drop(d);
    else
        migrate_stay(d, &why);
}

static void forget_one(struct domain *d)
{
    struct domain_migration *m = d->migration;
    m->who = NULL;
    if (m->busy) {
        m->abandoned = true;
        return;
    }
    if (m->phase == PHASE_PERFORMED) {
        migrate_unknown(d);
        return;
    }
    m->busy = true;
    task_start(stay_task, domain_ref(d));
}

void domain_migrate_forget(const struct caller *who)
{
    g_autoptr(GPtrArray) list = NULL;
    const GPtrArray *all = domain_table();
    for (unsigned i = 0; i < all->len; i++) {
        struct domain *d = all->pdata[i];
        if (!d->migration || d->migration->who != who)
            continue;
        if (!list)
            list = g_ptr_array_new();
        g_ptr_array_add(list, domain_ref(d));
    }
    for (unsigned i = 0; list && i < list->len; i++) { /* which may change the table */
        struct domain *d = list->pdata[i];
        if (d->migration && d->migration->who == who)
            forget_one(d);
        domain_unref(d);
    }
}

/* ---- the daemon was gone ---- */

static bool read_phase(const struct xml_node *status, enum migrate_phase *ret)
{
    const char *word = xml_get(status, "migration@phase");
    for (unsigned i = 0; word && i < MIGRATE_PHASES; i++)
        if (!strcmp(word, phase_words[i])) {
            *ret = (enum migrate_phase)i;
            return true;
        }
    return false;
}

static void recover_in(struct domain *d)
{
    struct domain_migration *m = d->migration;
    if (d->vm && m->phase == PHASE_FINISH && !g_strcmp0(vm_run_state(d->vm), "running")) {
        d->state = DOMAIN_RUNNING;
        d->reason = RUNNING_MIGRATED;
        migrate_over(d);
        return;
    }
    migrate_in_drop(d);
}

/* The guest was told to go on at the peer: there it is, or here. */
static void recover_finish(struct domain *d)
{
    g_autoptr(GError) error = NULL;
    bool moved = false;
    if (!d->migration->peer || !migrate_ask_peer(d, d->migration->peer, &moved, &error))
        migrate_unknown(d);
    else if (moved)
        migrate_leave(d);
    else
        migrate_stay(d, &error);
}

static void recover_out(struct domain *d)
{
    g_autoptr(GError) why = NULL;
    ruche_error(&why, MANAGER_ERR_ABORTED, "migration of domain '%s': the manager was restarted",
                d->name);
    switch (d->migration->phase) {
    case PHASE_CONFIRM:
        migrate_leave(d);
        break;
    case PHASE_FINISH:
        recover_finish(d);
        break;
    case PHASE_PERFORMED:
        if (!d->migration->peer) {
            migrate_unknown(d);
            break;
        }
        migrate_stay(d, &why); /* the peer was not told to finish */
        break;
    default:
        migrate_stay(d, &why);
        break;
    }
}

bool domain_migrate_recover(struct domain *d, const struct xml_node *status)
{
    enum migrate_phase phase;
    if (!read_phase(status, &phase))
        return false;
    const struct migrate_call call = {.flags = (unsigned)xml_get_u64(status, "migration@flags", 0)};
    bool incoming = xml_is(status, "migration@way", "in");
    if (!d->vm && !incoming && phase != PHASE_CONFIRM)
        return false;
    struct domain_migration *m = migrate_new(d, incoming, phase, &call);
    m->ran = xml_is(status, "migration@ran", "yes");
    m->peer = g_strdup(xml_get(status, "migration@peer"));
    m->other_name = g_strdup(xml_get(status, "migration@name"));
    m->busy = true;
    if (incoming)
        recover_in(d);
    else
        recover_out(d);
    return true;
}
