/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The side that a machine comes to: a process that waits for another's state; see domain_migrate.h.
 *
 * Thread    The loop thread.
 * Trust     Description and cookie are the other side's. Whoever connects to the port first is
 * taken for it; what it sends is read by the machine, which ends if it cannot be.
 */
#include "manager/domain/domain_migrate_priv.h"

#include "base/fd.h"
#include "base/log.h"

#include <errno.h>
#include <glib-unix.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ARRIVAL_MS 30000 /* the source has sent all: it was connected long ago */
#define TURN_MS    20

/* ---- the connection ---- */

struct arrival {
    struct domain *d;
    struct vm_use *use;
};

/* The machine reads from now on; how it goes is asked in finish. */
static void arrive_task(void *opaque)
{
    struct arrival a = *(struct arrival *)opaque;
    struct domain_migration *m = a.d->migration;
    g_free(opaque);
    if (m && a.d->use == a.use && m->stream >= 0) {
        g_autoptr(GError) error = NULL;
        autofd fd = fd_steal(&m->stream);
        if (!vm_state_receive(a.use->vm, fd, &error))
            log_warn("domain '%s': %s", a.d->name, error->message);
        m = a.d->migration;
        if (m && a.d->use == a.use && m->arrival)
            task_event_happen(m->arrival);
    }
    domain_use_end(a.use);
    domain_unref(a.d);
}

static gboolean on_connect(int listener, GIOCondition condition, gpointer opaque)
{
    struct domain *d = opaque;
    struct domain_migration *m = d->migration;
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
        return G_SOURCE_CONTINUE;
    m->listen_source = 0;
    fd_close_keep_errno(fd_steal(&m->listener));
    if (fd < 0) {
        log_warn("domain '%s': %s", d->name, g_strerror(errno));
        return G_SOURCE_REMOVE;
    }
    m->stream = fd;
    struct arrival *a = g_new(struct arrival, 1);
    *a = (struct arrival){.d = domain_ref(d), .use = domain_use(d, NULL)};
    if (a->use) {
        task_start(arrive_task, a);
    } else {
        domain_unref(d);
        g_free(a);
    }
    return G_SOURCE_REMOVE;
}

/* ---- prepare ---- */

/* What comes, under the name that it is to have here. */
static struct domain_def *read_def(const struct migrate_params *p, char **ret_old_name,
                                   GError **error)
{
    if (!p->dest_xml) {
        ruche_error(error, RUCHE_ERR_INVALID, "migration: the description is missing");
        return NULL;
    }
    auto_domain_def *def = domain_def_for_us(p->dest_xml, false, error);
    if (!def)
        return NULL;
    *ret_old_name = g_strdup(def->s.name);
    if (!p->dest_name || !strcmp(p->dest_name, def->s.name))
        return g_steal_pointer(&def);
    return store_name_check("domain", p->dest_name, error)
               ? domain_def_rename(def, p->dest_name, NULL, error)
               : NULL;
}

static bool open_door(struct domain *d, const struct migrate_params *p, char **ret_uri,
                      GError **error)
{
    struct domain_migration *m = d->migration;
    unsigned more = m->flags & MIGRATE_COMPRESSED ? VM_MIGRATE_COMPRESSED : 0;
    if (!vm_migrate_prepare(d->vm, more, error))
        return false;
    m->listener = vm_migrate_listen(p->uri, p->listen, ret_uri, &m->socket_path, error);
    if (m->listener < 0)
        return false;
    m->listen_source = g_unix_fd_add(m->listener, G_IO_IN, on_connect, d);
    return true;
}

static bool start(struct domain *d, struct domain_def *def, const struct migrate_params *p,
                  char **ret_uri, GError **error)
{
    struct domain_migration *m = d->migration;
    domain_job_begin(d, DOMAIN_JOB_MIGRATION_IN, NULL);
    m->busy = true;
    bool runs = domain_run_incoming(d, def, error);
    if (runs)
        domain_emit(d, LIFE_STARTED, STARTED_MIGRATED);
    bool ok = runs && open_door(d, p, ret_uri, error);
    m->busy = false;
    if (ok && m->abandoned)
        ok = ruche_error(error, MANAGER_ERR_ABORTED, "migration of domain '%s': nobody waits",
                         d->name);
    if (!ok && !runs) {
        domain_job_end(d, false, error);
        d->unborn = !d->persistent;
    }
    return ok;
}

/* With the lock, which stays if all is well. */
static bool prepare(const struct migrate_call *c, struct domain *d, struct domain_def *def,
                    const struct migrate_params *p, char **ret_uri, GError **error)
{
    if (domain_is_active(d)) {
        domain_release(d);
        return ruche_error(error, RUCHE_ERR_STATE, "domain is already active as '%s'", d->name);
    }
    struct domain_migration *m = migrate_new(d, true, PHASE_PREPARED, c);
    if (c->flags & MIGRATE_OFFLINE) {
        m->offline = domain_def_ref(def);
        *ret_uri = g_strdup(p->uri ? p->uri : "tcp:offline"); /* clients want one */
        return true;
    }
    d->unborn = false; /* it can be seen, as one that comes */
    if (start(d, def, p, ret_uri, error))
        return true;
    migrate_in_drop(d);
    return false;
}

bool domain_migrate_prepare(const struct migrate_call *c, char **ret_cookie, char **ret_uri,
                            GError **error)
{
    struct migrate_params p = {0};
    struct migrate_cookie cookie = {0};
    g_autofree char *old_name = NULL;
    g_autoptr(GError) why = NULL;
    auto_domain *d = NULL;
    auto_domain_def *def = NULL;
    if (!migrate_flags_check(c->flags, error) ||
        !access_check(c->who, RIGHT_WRITE, "take a domain from another host", error))
        return false;
    if (migrate_params_read(c->params, &p, &why))
        def = read_def(&p, &old_name, &why);
    if (def && migrate_cookie_read(&c->cookie, old_name, def->s.uuid, &cookie, &why))
        d = domain_claim(def, "migrate", &why);
    migrate_cookie_done(&cookie);
    bool ok = d && prepare(c, d, def, &p, ret_uri, &why);
    if (ok) {
        *ret_cookie = migrate_cookie_write(old_name, d->uuid, NULL); /* as the source knows it */
        d->migration->other_name = g_steal_pointer(&old_name);
    }
    domain_audit(c->who, "migrate in", def ? def->s.name : "?", ok, &why);
    if (!ok)
        g_propagate_error(error, g_steal_pointer(&why));
    return ok;
}

/* ---- all of it away ---- */

void migrate_in_drop(struct domain *d)
{
    g_autoptr(GError) why = NULL;
    d->migration->busy = true;
    ruche_error(&why, MANAGER_ERR_ABORTED, "migration of domain '%s' was cancelled", d->name);
    if (d->job)
        domain_job_end(d, false, &why);
    if (domain_is_active(d))
        domain_over(d, SHUTOFF_FAILED, STOPPED_FAILED);
    if (d->unborn)
        domain_table_remove(d);
    migrate_over(d);
}

/* ---- finish ---- */

static bool arrived(struct domain *d, GError **error)
{
    struct domain_migration *m = d->migration;
    struct task_event event = {0};
    bool came = true;
    if (m->listener >= 0 || m->stream >= 0) {
        m->arrival = &event;
        came = task_event_wait(&event, ARRIVAL_MS);
        m->arrival = NULL;
    }
    if (!came)
        return ruche_error(error, MANAGER_ERR_TIMEOUT, "domain '%s': nobody has brought its state",
                           d->name);
    return domain_job_stream(d, NULL, error);
}

/* The description that stays: the source's own, or that of what runs. */
static bool persist(struct domain *d, const struct migrate_cookie *cookie, GError **error)
{
    g_autofree char *own =
        cookie->persistent || !d->live
            ? NULL
            : domain_def_format(d->live, DEF_FORMAT_SECURE | DEF_FORMAT_INACTIVE, -1);
    const char *text = cookie->persistent ? cookie->persistent : own;
    auto_domain_def *def =
        text ? domain_def_for_us(text, false, error) : domain_def_ref(d->migration->offline);
    if (!def)
        return false;
    if (strcmp(def->s.name, d->name)) {
        struct domain_def *named = domain_def_rename(def, d->name, NULL, error);
        domain_def_unref(def);
        def = named;
    }
    if (def && memcmp(def->s.uuid, d->uuid, sizeof(d->uuid)))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "domain '%s': the description that comes with it is another's", d->name);
    return def && domain_store_locked(d, def, error);
}

static void unpersist(struct domain *d)
{
    if (!domain_forget_def(d->name, NULL))
        return;
    d->persistent = false;
    g_clear_pointer(&d->def, domain_def_unref);
    domain_emit(d, LIFE_UNDEFINED, UNDEFINED_REMOVED);
}

static bool finish_running(struct domain *d, const struct migrate_cookie *cookie, GError **error)
{
    bool stays = d->migration->flags & MIGRATE_PERSIST_DEST, was = d->persistent;
    if (!arrived(d, error))
        return false;
    migrate_write(d, PHASE_FINISH);
    bool ok = !stays || persist(d, cookie, error);
    if (ok && (d->migration->flags & MIGRATE_PAUSED)) {
        domain_set_state(d, DOMAIN_PAUSED, PAUSED_USER);
        domain_emit(d, LIFE_SUSPENDED, SUSPENDED_PAUSED);
    } else if (ok) {
        ok = domain_go_on(d, RUNNING_MIGRATED, error);
    }
    if (!ok && d->persistent && !was)
        unpersist(d);
    return ok;
}

/* With the lock, which it gives back. */
static bool finish(struct domain *d, const struct migrate_cookie *cookie, GError **error)
{
    struct domain_migration *m = d->migration;
    bool ok = m->offline ? persist(d, cookie, error) : finish_running(d, cookie, error);
    if (!ok) {
        migrate_in_drop(d);
        return false;
    }
    if (d->job)
        domain_job_end(d, true, NULL);
    migrate_over(d);
    return true;
}

/* The domain that comes, when nobody else is at it. */
static struct domain *find_coming(const char *name, GError **error)
{
    struct domain *d;
    while ((d = domain_peek_name(name)) && d->migration && d->migration->incoming &&
           d->migration->busy)
        task_sleep_ms(TURN_MS);
    if (d && d->migration && d->migration->incoming)
        return domain_ref(d);
    ruche_error(error, d ? RUCHE_ERR_STATE : MANAGER_ERR_NO_DOMAIN,
                d ? "domain '%s' is not being migrated to here"
                  : "no domain with matching name '%s'",
                name);
    return NULL;
}

struct domain *domain_migrate_finish(const struct migrate_call *c, bool cancelled,
                                     char **ret_cookie, GError **error)
{
    struct migrate_params p;
    struct migrate_cookie cookie = {0};
    g_autoptr(GError) why = NULL;
    if (!access_check(c->who, RIGHT_WRITE, "take a domain from another host", error) ||
        !migrate_params_read(c->params, &p, error))
        return NULL;
    if (!p.dest_name) {
        ruche_error(error, RUCHE_ERR_INVALID, "migration: the domain's name is missing");
        return NULL;
    }
    auto_domain *d = find_coming(p.dest_name, error);
    if (!d)
        return NULL;
    d->migration->busy = true;
    d->migration->flags |= c->flags;
    bool ok = false;
    if (cancelled) {
        migrate_in_drop(d);
        ruche_error(&why, MANAGER_ERR_ABORTED, "migration of domain '%s' was called off", d->name);
    } else if (!migrate_cookie_read(&c->cookie, NULL, d->uuid, &cookie, &why)) {
        migrate_in_drop(d);
    } else {
        ok = finish(d, &cookie, &why);
    }
    migrate_cookie_done(&cookie);
    if (ok)
        *ret_cookie = migrate_cookie_write(d->name, d->uuid, NULL);
    else
        g_propagate_error(error, g_steal_pointer(&why));
    return ok ? g_steal_pointer(&d) : NULL;
}
