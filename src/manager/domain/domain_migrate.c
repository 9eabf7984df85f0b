/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The side that a machine leaves; see domain_migrate.h. Thread: the loop thread. */
#include "manager/domain/domain_migrate_priv.h"

#include "base/fd.h"
#include "base/log.h"
#include "manager/job.h"

#include <string.h>

#define STAY_ROUNDS 150 /* the disks' locks may be the other side's a while longer */
#define STAY_MS     200
#define SOON_ROUNDS 100
#define SOON_MS     10

/* ---- what a migration is ---- */

struct domain_migration *migrate_new(struct domain *d, bool incoming, enum migrate_phase phase,
                                     const struct migrate_call *c)
{
    struct domain_migration *m = g_new0(struct domain_migration, 1);
    *m = (struct domain_migration){.incoming = incoming,
                                   .phase = phase,
                                   .flags = c->flags,
                                   .who = c->who,
                                   .listener = -1,
                                   .stream = -1};
    return d->migration = m;
}

void migrate_over(struct domain *d)
{
    struct domain_migration *m = d->migration;
    d->migration = NULL;
    if (m->listen_source)
        g_source_remove(m->listen_source);
    fd_close_keep_errno(m->listener);
    fd_close_keep_errno(m->stream);
    if (m->socket_path)
        unlink(m->socket_path);
    domain_def_unref(m->offline);
    g_free(m->socket_path);
    g_free(m->other_name);
    g_free(m->peer);
    g_free(m);
    if (d->vm)
        domain_set_state(d, d->state, d->reason); /* without it */
    domain_unlock(d);
}

void migrate_write(struct domain *d, enum migrate_phase phase)
{
    d->migration->phase = phase;
    domain_set_state(d, d->state, d->reason);
}

/* ---- may it go? ---- */

static bool may_be_moved(struct domain *d, GError **error)
{
    const struct xml_node *devices = xml_find(domain_def_tree(d->live), "devices");
    bool ok = !xml_find(devices, "hostdev");
    domain_def_shrink(d->live);
    if (!ok)
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "cannot migrate domain '%s': it has a device of this host (<hostdev>)",
                           d->name);
    g_autoptr(GArray) jobs = vm_block_jobs(d->vm, error);
    if (!jobs)
        return false;
    return !jobs->len ||
           ruche_error(error, RUCHE_ERR_STATE,
                       "cannot migrate domain '%s': a block job is active on disk '%s'", d->name,
                       g_array_index(jobs, struct vm_block_job, 0).target);
}

static bool may_be_moved_off(const struct domain *d, unsigned flags, GError **error)
{
    if (domain_is_active(d))
        return ruche_error(error, RUCHE_ERR_STATE, "cannot migrate '%s' offline: domain is running",
                           d->name);
    if (!(flags & MIGRATE_PERSIST_DEST))
        return ruche_error(error, RUCHE_ERR_STATE,
                           "offline migration must be specified with the persistent flag set");
    return !d->managed_save ||
           ruche_error(error, RUCHE_ERR_STATE,
                       "cannot migrate '%s' offline: it has a managed save, which stays here",
                       d->name);
}

bool migrate_may_leave(struct domain *d, unsigned flags, GError **error)
{
    if (flags & MIGRATE_OFFLINE)
        return may_be_moved_off(d, flags, error);
    if (!domain_may(d, OP_MIGRATE, error) || !domain_machine(d, error) || !may_be_moved(d, error))
        return false;
    return (flags & MIGRATE_UNSAFE) || migrate_is_safe(d->live, error);
}

bool migrate_persistent(const struct domain *d, const struct migrate_params *p, unsigned flags,
                        struct domain_def **ret, GError **error)
{
    bool stays = flags & MIGRATE_PERSIST_DEST;
    if (!p->persist_xml) {
        *ret = stays && d->def ? domain_def_ref(d->def) : NULL;
        return true;
    }
    if (!stays)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "migration of domain '%s': 'persistent_xml' needs 'persistent'",
                           d->name);
    auto_domain_def *def = domain_def_parse(p->persist_xml, strlen(p->persist_xml), 0, error);
    if (!def)
        return false;
    if (memcmp(def->s.uuid, d->uuid, sizeof(d->uuid)) || strcmp(def->s.name, d->name))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "migration of domain '%s': 'persistent_xml' describes domain '%s', or "
                           "has another UUID",
                           d->name, def->s.name);
    *ret = g_steal_pointer(&def);
    return true;
}

char *migrate_source_xml(struct domain *d, const struct migrate_params *p, unsigned flags,
                         GError **error)
{
    if (!(flags & MIGRATE_OFFLINE))
        return domain_state_xml(d, p->dest_xml, error);
    if (p->dest_xml) {
        ruche_error(error, MANAGER_ERR_ARGUMENT,
                    "offline migration of '%s': another description is not possible", d->name);
        return NULL;
    }
    auto_domain_def *stays = NULL; /* all that goes there */
    if (!migrate_persistent(d, p, flags, &stays, error))
        return NULL;
    return domain_def_format(stays, DEF_FORMAT_SECURE | DEF_FORMAT_INACTIVE | DEF_FORMAT_MIGRATABLE,
                             -1);
}

/* ---- begin ---- */

static bool begin(const struct migrate_call *c, struct domain *d, char **ret_cookie, char **ret_xml,
                  GError **error)
{
    struct migrate_params p;
    auto_domain_def *stays __attribute__((unused)) = NULL;
    if (!migrate_params_read(c->params, &p, error) || !migrate_may_leave(d, c->flags, error) ||
        !migrate_persistent(d, &p, c->flags, &stays, error))
        return false;
    *ret_xml = migrate_source_xml(d, &p, c->flags, error);
    if (*ret_xml)
        *ret_cookie = migrate_cookie_write(d->name, d->uuid, NULL);
    return *ret_xml != NULL;
}

bool domain_migrate_begin(const struct migrate_call *c, struct domain *d, char **ret_cookie,
                          char **ret_xml, GError **error)
{
    if (!migrate_flags_check(c->flags, error) ||
        !domain_allowed(c->who, d, RIGHT_WRITE, "migrate", error) ||
        (!(c->flags & MIGRATE_OFFLINE) && !domain_may(d, OP_MIGRATE, error)) ||
        !domain_lock(d, "migrate", error))
        return false;
    bool ok = begin(c, d, ret_cookie, ret_xml, error);
    if (ok && (c->flags & MIGRATE_CHANGE_PROTECTION))
        migrate_new(d, false, PHASE_BEGUN, c);
    else
        domain_unlock(d);
    return ok;
}

/* ---- the state goes ---- */

static bool watch(struct domain *d, GError **error)
{
    const struct domain_migration *m = d->migration;
    if (d->state != DOMAIN_RUNNING && d->state != DOMAIN_PAUSED)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "domain '%s' went off while it was being migrated", d->name);
    if ((m->flags & MIGRATE_ABORT_ON_ERROR) && d->state == DOMAIN_PAUSED &&
        d->reason == PAUSED_IOERROR)
        return ruche_error(error, MANAGER_ERR_ABORTED,
                           "migration of domain '%s': an error of a disk ended it", d->name);
    return !m->abandoned ||
           ruche_error(error, MANAGER_ERR_ABORTED,
                       "migration of domain '%s': the connection that drove it is over", d->name);
}

static bool send_to(struct domain *d, const struct migrate_params *p, const char *uri,
                    GError **error)
{
    const unsigned flags = d->migration->flags;
    const unsigned more = (flags & MIGRATE_COMPRESSED ? VM_MIGRATE_COMPRESSED : 0) |
                          (flags & MIGRATE_AUTO_CONVERGE ? VM_MIGRATE_AUTO_CONVERGE : 0);
    uint64_t speed = p->bandwidth_mib && p->bandwidth_mib < INT64_MAX >> 20 ? p->bandwidth_mib << 20
                                                                            : domain_job_speed(d);
    if (!vm_migrate_prepare(d->vm, more, error))
        return false;
    autofd fd = vm_migrate_connect(uri, error);
    return fd >= 0 && vm_state_send(d->vm, fd, speed, error) && domain_job_stream(d, NULL, error);
}

bool migrate_send(struct domain *d, const struct migrate_params *p, const char *uri,
                  struct job *shown, GError **error)
{
    struct domain_migration *m = d->migration;
    struct domain_job *j = domain_job_begin(d, DOMAIN_JOB_MIGRATION_OUT, shown);
    j->watch = watch;
    m->ran = d->state == DOMAIN_RUNNING;
    m->busy = true;
    migrate_write(d, PHASE_PERFORM);
    bool ok = (m->flags & MIGRATE_LIVE) || domain_stand(d, PAUSED_MIGRATION, error);
    d->pause_reason = PAUSED_MIGRATION;
    ok = ok && send_to(d, p, uri, error);
    if (ok && d->state == DOMAIN_RUNNING) /* its event is still to come */
        domain_vm_event(d, VM_EV_STOPPED, 0, NULL, 0);
    d->pause_reason = PAUSED_UNKNOWN;
    m->busy = false;
    j->finishing = ok;
    migrate_write(d, ok ? PHASE_PERFORMED : PHASE_FAILED);
    return ok;
}

/* ---- perform, driven by a client ---- */

/* With the lock: of begin, or (clients that do not protect) taken now. */
static bool take_up(const struct migrate_call *c, struct domain *d, GError **error)
{
    struct domain_migration *m = d->migration;
    if (c->flags & MIGRATE_CHANGE_PROTECTION)
        return (m && !m->incoming && m->phase == PHASE_BEGUN && !m->busy && m->who == c->who) ||
               ruche_error(error, RUCHE_ERR_STATE, "migration of domain '%s' was not begun",
                           d->name);
    if (!domain_lock(d, "migrate", error))
        return false;
    migrate_new(d, false, PHASE_BEGUN, c);
    if (migrate_may_leave(d, c->flags, error))
        return true;
    migrate_over(d);
    return false;
}

struct stay {
    struct domain *d;
    GError *why;
};

static void stay_task(void *opaque)
{
    struct stay s = *(struct stay *)opaque;
    g_free(opaque);
    migrate_stay(s.d, &s.why);
    domain_unref(s.d);
    g_error_free(s.why);
}

/* No client confirms a perform that failed. The disks may still be the other side's, until it hears
 * of the failure, which it does after our answer: that waits only a while. */
static void stay_soon(struct domain *d, const GError *why)
{
    const struct domain_migration *m = d->migration;
    struct stay *s = g_new(struct stay, 1);
    *s = (struct stay){.d = domain_ref(d), .why = g_error_copy(why)};
    d->migration->busy = true;
    task_start(stay_task, s);
    for (int i = 0; i < SOON_ROUNDS && d->migration == m; i++)
        task_sleep_ms(SOON_MS);
}

static bool perform(const struct migrate_call *c, struct domain *d, struct job *shown,
                    char **ret_cookie, GError **error)
{
    struct domain_migration *m = d->migration;
    struct migrate_cookie cookie = {0};
    struct migrate_params p;
    auto_domain_def *stays = NULL;
    g_autoptr(GError) why = NULL;
    m->flags |= c->flags;
    if (!migrate_params_read(c->params, &p, &why) || !domain_may(d, OP_MIGRATE, &why) ||
        !migrate_persistent(d, &p, m->flags, &stays, &why))
        ;
    else if (!p.uri)
        ruche_error(&why, RUCHE_ERR_INVALID, "migration of '%s': 'migrate_uri' is missing",
                    d->name);
    else if (migrate_cookie_read(&c->cookie, d->name, d->uuid, &cookie, &why))
        migrate_send(d, &p, p.uri, shown, &why);
    migrate_cookie_done(&cookie);
    if (!why)
        *ret_cookie = migrate_cookie_write(d->name, d->uuid, stays);
    bool ok = !why;
    if (m->abandoned && ok)
        migrate_unknown(d);
    else if (!ok)
        stay_soon(d, why);
    if (why)
        g_propagate_error(error, g_steal_pointer(&why));
    return ok;
}

bool domain_migrate_perform(const struct migrate_call *c, struct domain *d, const char *peer,
                            struct job *shown, char **ret_cookie, GError **error)
{
    g_autofree char *name = g_strdup(d->name);
    if (!migrate_flags_check(c->flags, error) ||
        !domain_allowed(c->who, d, RIGHT_WRITE, "migrate", error))
        return false;
    bool ok = c->flags & MIGRATE_PEER2PEER
                  ? migrate_by_peer(c, d, peer, shown, error)
                  : take_up(c, d, error) && perform(c, d, shown, ret_cookie, error);
    domain_audit(c->who, "migrate", name, ok, error);
    return ok;
}

/* ---- how it ended ---- */

/* The machine is told to go on until it can. */
static bool go_on(struct domain *d, GError **error)
{
    for (int i = 0;; i++) {
        g_autoptr(GError) why = NULL;
        if (domain_go_on(d, RUNNING_MIGRATION_CANCELED, &why))
            return true;
        if (i == STAY_ROUNDS || !d->vm || d->state != DOMAIN_PAUSED) {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        task_sleep_ms(STAY_MS);
    }
}

void migrate_stay(struct domain *d, GError *const *why)
{
    struct domain_migration *m = d->migration;
    g_autoptr(GError) error = NULL;
    m->busy = true;
    if (d->job)
        d->job->finishing = false;
    if (d->vm && m->phase != PHASE_BEGUN) {
        bool stands = d->state == DOMAIN_PAUSED && d->reason == PAUSED_MIGRATION;
        if (!vm_state_settle(d->vm, &error) ||
            (m->ran && (stands || d->state == DOMAIN_RUNNING) && !go_on(d, &error)))
            log_warn("domain '%s' was not migrated, and does not go on: %s", d->name,
                     error->message);
    }
    if (d->job)
        domain_job_end(d, false, why);
    migrate_over(d);
}

static void forget_stored(struct domain *d)
{
    g_autoptr(GError) error = NULL;
    if (!domain_forget_def(d->name, &error)) {
        log_warn("domain '%s' was migrated, and stays defined: %s", d->name, error->message);
        return;
    }
    d->persistent = d->autostart = false;
}

void migrate_leave(struct domain *d)
{
    struct domain_migration *m = d->migration;
    bool forget = d->persistent && (m->flags & MIGRATE_UNDEFINE_SOURCE), active = d->vm != NULL;
    m->busy = true;
    if (active)
        migrate_write(d, PHASE_CONFIRM);
    if (forget)
        forget_stored(d);
    if (domain_is_active(d))
        domain_over(d, SHUTOFF_MIGRATED, STOPPED_MIGRATED);
    else if (!d->persistent)
        domain_table_remove(d);
    if (d->job) /* libvirt's clients hear of it after the machine's end */
        domain_job_end(d, true, NULL);
    if (forget && !d->persistent)
        domain_emit(d, LIFE_UNDEFINED, UNDEFINED_REMOVED);
    migrate_over(d);
}

void migrate_unknown(struct domain *d)
{
    g_autoptr(GError) why = NULL;
    ruche_error(&why, RUCHE_ERR_STATE,
                "domain '%s' was sent to another host, and whether it runs there is not known: it "
                "stands here; resume it only if it does not",
                d->name);
    log_warn("%s", why->message);
    if (d->job)
        domain_job_end(d, false, &why);
    migrate_over(d);
}

bool domain_migrate_confirm(const struct migrate_call *c, struct domain *d, bool cancelled,
                            GError **error)
{
    struct domain_migration *m = d->migration;
    g_autoptr(GError) why = NULL;
    if (!domain_allowed(c->who, d, RIGHT_WRITE, "migrate", error))
        return false;
    if (!m || m->incoming || m->busy || m->who != c->who)
        return cancelled ||
               ruche_error(error, RUCHE_ERR_STATE, "domain '%s' is not being migrated", d->name);
    bool moved =
        m->phase == PHASE_PERFORMED || (m->phase == PHASE_BEGUN && (m->flags & MIGRATE_OFFLINE));
    if (cancelled || !moved) {
        ruche_error(&why, MANAGER_ERR_ABORTED, "migration of domain '%s' did not come about",
                    d->name);
        migrate_stay(d, &why);
        return cancelled ||
               ruche_error(error, RUCHE_ERR_STATE, "domain '%s' was not sent anywhere", d->name);
    }
    m->flags |= c->flags;
    migrate_leave(d);
    return true;
}

/* ---- limits ---- */

#define DOWNTIME_MAX_MS 2000000

/* What a machine is asked without its lock. */
static struct vm_use *ask(const struct caller *who, struct domain *d, enum right right,
                          const char *operation, GError **error)
{
    return domain_allowed(who, d, right, operation, error) ? domain_use(d, error) : NULL;
}

bool domain_migrate_set_downtime(const struct caller *who, struct domain *d, uint64_t ms,
                                 GError **error)
{
    if (ms > DOWNTIME_MAX_MS)
        return ruche_error(error, MANAGER_ERR_OVERFLOW,
                           "domain '%s': %" G_GUINT64_FORMAT
                           " ms is too much; a guest may stand for %d ms",
                           d->name, ms, DOWNTIME_MAX_MS);
    struct vm_use *u = ask(who, d, RIGHT_CONTROL, "set the downtime of", error);
    bool ok = u && vm_migrate_set_downtime(u->vm, ms, error);
    if (u)
        domain_use_end(u);
    return ok;
}

bool domain_migrate_get_downtime(const struct caller *who, struct domain *d, uint64_t *ret,
                                 GError **error)
{
    struct vm_use *u = ask(who, d, RIGHT_READ, "read the downtime of", error);
    bool ok = u && vm_migrate_get_downtime(u->vm, ret, error);
    if (u)
        domain_use_end(u);
    return ok;
}

bool domain_migrate_set_cache(const struct caller *who, struct domain *d, uint64_t bytes,
                              GError **error)
{
    if (bytes > INT64_MAX)
        return ruche_error(error, MANAGER_ERR_OVERFLOW,
                           "domain '%s': a cache of %" G_GUINT64_FORMAT " bytes is too large",
                           d->name, bytes);
    struct vm_use *u = ask(who, d, RIGHT_CONTROL, "set the compression cache of", error);
    bool ok = u && vm_migrate_set_cache(u->vm, bytes, error);
    if (u)
        domain_use_end(u);
    return ok;
}

bool domain_migrate_get_cache(const struct caller *who, struct domain *d, uint64_t *ret,
                              GError **error)
{
    struct vm_use *u = ask(who, d, RIGHT_READ, "read the compression cache of", error);
    bool ok = u && vm_migrate_get_cache(u->vm, ret, error);
    if (u)
        domain_use_end(u);
    return ok;
}
