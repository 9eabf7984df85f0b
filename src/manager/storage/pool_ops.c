/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is done to pools. Each operation holds the pool's lock; what is done differently by types is
 * their backend's.
 *
 * Spec      libvirt's virStoragePool* at 9.0.0.
 * Thread    The loop thread, in a task.
 */
#include "base/log.h"
#include "manager/storage/storage_priv.h"
#include "manager/uuid.h"

#include <inttypes.h>
#include <string.h>

enum { DEFINE_VALIDATE = 1 };
enum { CREATE_BUILD = 1, CREATE_BUILD_OVERWRITE = 2, CREATE_BUILD_NO_OVERWRITE = 4 };
enum { BUILD_REPAIR = 1, BUILD_RESIZE = 2, BUILD_NO_OVERWRITE = 4, BUILD_OVERWRITE = 8 };
enum { DELETE_ZEROED = 1 };
enum { EVENT_DEFINED, EVENT_UNDEFINED, EVENT_STARTED, EVENT_STOPPED, EVENT_CREATED, EVENT_DELETED };

static bool cannot(const struct pool *p, const char *what, GError **error)
{
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                       "storage pool '%s' of type '%s' cannot be %s: %s", p->name, p->backend->type,
                       what, p->backend->summary);
}

/* ---- define ---- */

/* Is there a pool that the description would clash with? *ret_same: the one that it describes. */
static bool check_clash(const struct pool_def *d, struct pool **ret_same, GError **error)
{
    g_autoptr(GPtrArray) all = pool_all();
    char text[UUID_TEXT_BYTES];
    for (unsigned i = 0; i < all->len; i++) {
        struct pool *p = all->pdata[i];
        bool name = !strcmp(p->name, d->name), uuid = !memcmp(p->uuid, d->uuid, sizeof(p->uuid));
        uuid_format(p->uuid, text);
        if (name && !uuid && d->has_uuid)
            return ruche_error(error, RUCHE_ERR_EXISTS,
                               "storage pool '%s' is already defined with UUID %s", p->name, text);
        if (!name && uuid)
            return ruche_error(error, RUCHE_ERR_EXISTS, "storage pool '%s' already has UUID %s",
                               p->name, text);
        if (name && p->backend != d->backend)
            return ruche_error(error, RUCHE_ERR_EXISTS,
                               "storage pool '%s' is already defined with type '%s'", p->name,
                               p->backend->type);
        g_autofree char *clash = name ? NULL : pool_def_clash(p->def, d);
        if (clash)
            return ruche_error(error, RUCHE_ERR_EXISTS, "%s is already that of storage pool '%s'",
                               clash, p->name);
        if (name)
            *ret_same = p;
    }
    return true;
}

/* A description without a UUID is of the pool that is there. */
static struct pool_def *with_uuid(const struct pool_def *d, const uint8_t *uuid, GError **error)
{
    char text[UUID_TEXT_BYTES];
    uuid_format(uuid, text);
    auto_xml *copy = xml_copy(d->doc);
    xml_set(copy, "uuid", text);
    g_autofree char *xml = xml_format(copy, 0);
    return pool_def_new(xml, false, error);
}

struct redefine {
    struct pool_def *d; /* taken */
    unsigned flags;     /* of a start */
};

static bool do_define(struct pool *p, void *opaque, GError **error)
{
    struct redefine *r = opaque;
    if (p->state != POOL_INACTIVE && g_strcmp0(p->def->target, r->d->target) != 0)
        return ruche_error(
            error, RUCHE_ERR_STATE,
            "storage pool '%s' is active: its folder cannot change from '%s' to '%s'", p->name,
            p->def->target, r->d->target);
    bool was = p->persistent;
    struct pool_def **place = p->state == POOL_INACTIVE ? &p->def : &p->stored, *old = *place;
    *place = g_steal_pointer(&r->d);
    p->persistent = true;
    if (!pool_save(p, error)) {
        p->persistent = was;
        pool_def_free(*place);
        *place = old;
        return false;
    }
    pool_def_free(old);
    pool_emit(p, POOL_EVENT_LIFECYCLE, EVENT_DEFINED);
    return true;
}

static bool start(struct pool *p, unsigned flags, GError **error);

/* It runs by this description; the stored one comes back when it stops, or at once if it does not
 * start. */
static bool do_create(struct pool *p, void *opaque, GError **error)
{
    struct redefine *r = opaque;
    if (p->state != POOL_INACTIVE)
        return ruche_error(error, RUCHE_ERR_STATE, "storage pool '%s' is already active", p->name);
    if (r->d) {
        p->stored = p->def;
        p->def = g_steal_pointer(&r->d);
    }
    if (start(p, r->flags, error))
        return true;
    if (p->stored) {
        pool_def_free(p->def);
        p->def = g_steal_pointer(&p->stored);
    }
    return false;
}

/* The pool that the description is of, after fn: a known one, or a new one in the table. Takes the
 * description. */
static struct pool *apply(const struct caller *who, struct pool_def *d, unsigned flags,
                          const char *operation,
                          bool (*fn)(struct pool *p, void *opaque, GError **error), GError **error)
{
    struct pool *same = NULL, *p;
    struct redefine r = {NULL, flags};
    bool ok = check_clash(d, &same, error);
    if (ok && same) {
        p = pool_ref(same);
        r.d = with_uuid(d, p->uuid, error);
        ok = r.d && pool_operation(who, p, RIGHT_HOST, operation, fn, &r, error);
        pool_def_free(d);
    } else if (ok) {
        r.d = fn == do_define ? with_uuid(d, d->uuid, error) : NULL;
        p = pool_new(d);
        pool_insert(p);
        ok = pool_operation(who, p, RIGHT_HOST, operation, fn, &r, error);
        if (!ok && !p->persistent)
            pool_remove(p);
    } else {
        pool_def_free(d);
        return NULL;
    }
    pool_def_free(r.d);
    if (!ok)
        pool_unref(p);
    return ok ? p : NULL;
}

struct pool *pool_define(const struct caller *who, const char *xml, unsigned flags, GError **error)
{
    if (!access_check(who, RIGHT_HOST, "define a storage pool", error) ||
        !flags_check("define storage pool", flags, DEFINE_VALIDATE, error))
        return NULL;
    struct pool_def *d = pool_def_new(xml, flags & DEFINE_VALIDATE, error);
    return d ? apply(who, d, 0, "define", do_define, error) : NULL;
}

/* ---- life ---- */

/* What it is made of loses its contents: nobody may use it. A folder alone loses nothing. */
static bool check_sources(struct pool *p, unsigned flags, GError **error)
{
    g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);
    bool overwrites =
        p->backend->can & POOL_CAN_OVERWRITE && (flags || !(p->backend->can & POOL_FILES));
    for (const struct xml_node *n = xml_find(pool_root(p), "source/device"); n; n = xml_next(n))
        if (overwrites && xml_get(n, "@path"))
            g_ptr_array_add(paths, g_strdup(xml_get(n, "@path")));
    for (unsigned i = 0; i < paths->len; i++)
        if (!device_check_free(p, "device", paths->pdata[i], NULL, error))
            return false;
    return true;
}

static bool build(struct pool *p, unsigned flags, GError **error)
{
    enum pool_state was = p->state;
    if (!(p->backend->can & POOL_CAN_BUILD))
        return cannot(p, "built", error);
    if (flags && !(p->backend->can & POOL_CAN_OVERWRITE))
        return ruche_error(error, MANAGER_ERR_ARGUMENT,
                           "build storage pool '%s': flags 0x%x are not for pools of type '%s', "
                           "which need no formatting",
                           p->name, flags, p->backend->type);
    if (flags == (POOL_BUILD_NO_OVERWRITE | POOL_BUILD_OVERWRITE))
        return ruche_error(
            error, MANAGER_ERR_ARGUMENT,
            "build storage pool '%s': 'overwrite' and 'no overwrite' exclude each other", p->name);
    p->state = POOL_BUILDING;
    bool ok = storage_programs(p->backend->programs, error) && check_sources(p, flags, error) &&
              p->backend->build(p, flags, error);
    p->state = was;
    return ok;
}

static bool start(struct pool *p, unsigned flags, GError **error)
{
    unsigned how = (flags & CREATE_BUILD_OVERWRITE ? POOL_BUILD_OVERWRITE : 0) |
                   (flags & CREATE_BUILD_NO_OVERWRITE ? POOL_BUILD_NO_OVERWRITE : 0);
    storage_work_anew(p);
    if (flags && !build(p, how, error))
        return false;
    if (!storage_programs(p->backend->programs, error) ||
        (p->backend->start && !p->backend->start(p, error)))
        return false;
    g_clear_pointer(&p->waited_for, g_hash_table_unref);
    if (pool_scan(p, error)) {
        p->state = POOL_RUNNING;
        if (pool_save_state(p, error)) {
            pool_emit(p, POOL_EVENT_LIFECYCLE, EVENT_STARTED);
            pool_watch(p);
            return true;
        }
        p->state = POOL_INACTIVE;
    }
    if (p->backend->stop)
        p->backend->stop(p, NULL);
    return false;
}

static bool do_start(struct pool *p, void *opaque, GError **error)
{
    struct redefine r = {NULL, *(unsigned *)opaque};
    return do_create(p, &r, error);
}

static bool check_create_flags(unsigned flags, GError **error)
{
    return flags_check("start storage pool", flags,
                       CREATE_BUILD | CREATE_BUILD_OVERWRITE | CREATE_BUILD_NO_OVERWRITE, error);
}

bool pool_start(const struct caller *who, struct pool *p, unsigned flags, GError **error)
{
    return check_create_flags(flags, error) &&
           pool_operation(who, p, RIGHT_HOST, "start", do_start, &flags, error);
}

struct pool *pool_create_xml(const struct caller *who, const char *xml, unsigned flags,
                             GError **error)
{
    if (!access_check(who, RIGHT_HOST, "create a storage pool", error) ||
        !check_create_flags(flags, error))
        return NULL;
    struct pool_def *d = pool_def_new(xml, false, error);
    return d ? apply(who, d, flags, "create", do_create, error) : NULL;
}

static bool do_build(struct pool *p, void *opaque, GError **error)
{
    unsigned flags = *(unsigned *)opaque;
    if (p->state != POOL_INACTIVE)
        return ruche_error(error, RUCHE_ERR_STATE, "storage pool '%s' is active", p->name);
    if (!build(p, flags, error))
        return false;
    pool_emit(p, POOL_EVENT_LIFECYCLE, EVENT_CREATED);
    return true;
}

bool pool_build(const struct caller *who, struct pool *p, unsigned flags, GError **error)
{
    return flags_check("build storage pool", flags, BUILD_NO_OVERWRITE | BUILD_OVERWRITE, error) &&
           pool_operation(who, p, RIGHT_HOST, "build", do_build, &flags, error);
}

/* It runs no longer; a transient one is gone. */
static void set_stopped(struct pool *p)
{
    storage_work_anew(p);
    p->state = POOL_INACTIVE;
    p->capacity = p->allocation = p->available = 0;
    p->real_perms = NO_PERMS;
    p->warned = false;
    g_hash_table_remove_all(p->volumes);
    if (p->stored) {
        pool_def_free(p->def);
        p->def = g_steal_pointer(&p->stored);
    }
    g_autoptr(GError) ignored = NULL;
    if (!pool_save_state(p, &ignored))
        log_warn("storage pool '%s': %s", p->name, ignored->message);
    pool_emit(p, POOL_EVENT_LIFECYCLE, EVENT_STOPPED);
    if (!p->persistent)
        pool_remove(p);
}

static bool check_idle(struct pool *p, GError **error)
{
    GHashTableIter it;
    struct volume *v;
    g_hash_table_iter_init(&it, p->volumes);
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&v))
        if (v->in_use || v->building)
            return ruche_error(error, RUCHE_ERR_STATE, "volume '%s' of storage pool '%s' is in use",
                               v->name, p->name);
    return true;
}

/* A source that is gone ends the pool, as with libvirt; one that does not answer may come back. */
static bool look_again(struct pool *p, GError **error)
{
    GError *why = NULL;
    if (pool_scan(p, &why)) {
        p->state = POOL_RUNNING;
        return true;
    }
    if (g_error_matches(why, RUCHE_ERROR, MANAGER_ERR_TIMEOUT))
        p->state = POOL_INACCESSIBLE;
    else
        set_stopped(p);
    g_propagate_error(error, why);
    return false;
}

static bool do_refresh(struct pool *p, void *opaque, GError **error)
{
    if (!pool_check_active(p, error) || !check_idle(p, error) || !look_again(p, error))
        return false;
    pool_emit(p, POOL_EVENT_REFRESH, 0);
    return true;
}

bool pool_refresh(const struct caller *who, struct pool *p, unsigned flags, GError **error)
{
    return flags_check("refresh storage pool", flags, 0, error) &&
           pool_operation(who, p, RIGHT_CONTROL, "refresh", do_refresh, NULL, error);
}

static bool do_destroy(struct pool *p, void *opaque, GError **error)
{
    if (!pool_check_active(p, error) || !check_idle(p, error) ||
        (p->backend->stop && !p->backend->stop(p, error)))
        return false;
    set_stopped(p);
    return true;
}

bool pool_destroy(const struct caller *who, struct pool *p, GError **error)
{
    return pool_operation(who, p, RIGHT_HOST, "destroy", do_destroy, NULL, error);
}

static bool check_inactive(const struct pool *p, GError **error)
{
    return p->state == POOL_INACTIVE ||
           ruche_error(error, RUCHE_ERR_STATE, "storage pool '%s' is still active", p->name);
}

static bool do_delete(struct pool *p, void *opaque, GError **error)
{
    if (!check_inactive(p, error))
        return false;
    if (!(p->backend->can & POOL_CAN_DELETE))
        return cannot(p, "deleted", error);
    if (!storage_programs(p->backend->programs, error) || !p->backend->remove(p, error))
        return false;
    pool_emit(p, POOL_EVENT_LIFECYCLE, EVENT_DELETED);
    return true;
}

bool pool_delete(const struct caller *who, struct pool *p, unsigned flags, GError **error)
{
    return flags_check("delete storage pool", flags, 0, error) &&
           pool_operation(who, p, RIGHT_HOST, "delete", do_delete, NULL, error);
}

static bool do_undefine(struct pool *p, void *opaque, GError **error)
{
    if (!check_inactive(p, error))
        return false;
    bool autostart = p->autostart;
    p->persistent = p->autostart = false;
    if (!pool_save(p, error)) {
        p->persistent = true;
        p->autostart = autostart;
        return false;
    }
    pool_save_settings(p, NULL);
    pool_emit(p, POOL_EVENT_LIFECYCLE, EVENT_UNDEFINED);
    pool_remove(p);
    return true;
}

bool pool_undefine(const struct caller *who, struct pool *p, GError **error)
{
    return pool_operation(who, p, RIGHT_HOST, "undefine", do_undefine, NULL, error);
}

static bool do_autostart(struct pool *p, void *opaque, GError **error)
{
    bool on = *(bool *)opaque, was = p->autostart;
    if (!p->persistent)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "storage pool '%s' is transient and cannot start by itself", p->name);
    p->autostart = on;
    if (on == was || pool_save(p, error))
        return true;
    p->autostart = was;
    return false;
}

bool pool_set_autostart(const struct caller *who, struct pool *p, bool on, GError **error)
{
    return pool_operation(who, p, RIGHT_HOST, "autostart", do_autostart, &on, error);
}

/* ---- start and end of the manager ---- */

static bool do_resume(struct pool *p, void *opaque, GError **error)
{
    return look_again(p, error);
}

static void resume_task(void *opaque)
{
    struct pool *p = opaque;
    g_autoptr(GError) error = NULL;
    if (!pool_operation(&caller_self, p, RIGHT_HOST, "resume", do_resume, NULL, &error))
        log_warn("storage pool '%s' %s: %s", p->name,
                 pool_runs(p) ? "does not answer" : "does not run any more", error->message);
    pool_unref(p);
}

void pool_resume(struct pool *p)
{
    task_start(resume_task, pool_ref(p));
}

struct starting {
    struct pool *pool;
    unsigned *left;
    struct task_event *done;
};

static void autostart_task(void *opaque)
{
    struct starting s = *(struct starting *)opaque;
    g_autoptr(GError) error = NULL;
    unsigned flags = 0;
    if (!pool_operation(&caller_self, s.pool, RIGHT_HOST, "autostart", do_start, &flags, &error))
        log_warn("storage pool '%s' is not started: %s", s.pool->name, error->message);
    if (!--*s.left)
        task_event_happen(s.done);
}

/* Beside each other: a server that does not answer holds up nobody else. Machines start after this.
 */
void pools_autostart(void)
{
    g_autoptr(GPtrArray) all = pool_all();
    struct task_event done = {0};
    unsigned left = 1;
    for (unsigned i = 0; i < all->len; i++) {
        struct pool *p = all->pdata[i];
        struct starting s = {p, &left, &done};
        if (!p->autostart || p->state != POOL_INACTIVE)
            continue;
        left++;
        task_start(autostart_task, &s);
    }
    if (--left)
        task_event_wait(&done, -1);
}

void pools_stop(void)
{
    g_autoptr(GPtrArray) all = pool_all();
    for (unsigned i = 0; i < all->len; i++)
        pool_remove(all->pdata[i]);
}
