/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is done to pools. Each operation holds the pool's lock; what touches files runs on a worker.
 *
 * Spec      libvirt's virStoragePool* at 9.0.0.
 * Thread    The loop thread, in a task.
 */
#include "base/log.h"
#include "manager/markup.h"
#include "manager/storage/storage_priv.h"
#include "manager/uuid.h"

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

enum { DEFINE_VALIDATE = 1 };
enum { CREATE_BUILD = 1, CREATE_BUILD_OVERWRITE = 2, CREATE_BUILD_NO_OVERWRITE = 4 };
enum { EVENT_DEFINED, EVENT_UNDEFINED, EVENT_STARTED, EVENT_STOPPED, EVENT_CREATED, EVENT_DELETED };
enum { EVENT_LIFECYCLE, EVENT_REFRESH };

/* What a worker does to a folder; it sees nothing else of the pool. */
struct folder_work {
    const char *target;
    struct file_perms perms;
    GError *error;
    bool ok;
};

static void build_folder(void *opaque)
{
    struct folder_work *w = opaque;
    w->ok = pool_fs_build(w->target, &w->perms, &w->error);
}

static void remove_folder(void *opaque)
{
    struct folder_work *w = opaque;
    w->ok = rmdir(w->target) == 0 ||
            ruche_error_errno(&w->error, errno, "cannot remove folder '%s'", w->target);
}

static bool on_folder(const struct pool *p, void (*fn)(void *opaque), GError **error)
{
    g_autofree char *target = g_strdup(p->target);
    struct folder_work w = {.target = target, .perms = p->perms};
    task_work(fn, &w);
    if (w.error)
        g_propagate_error(error, w.error);
    return w.ok;
}

static bool no_options(const char *operation, unsigned flags, GError **error)
{
    return !flags ||
           ruche_error(error, MANAGER_ERR_ARGUMENT,
                       "%s: flags 0x%x are not for pools of type 'dir', which need no formatting",
                       operation, flags);
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
        if (!name && !strcmp(p->target, d->target))
            return ruche_error(error, RUCHE_ERR_EXISTS,
                               "folder '%s' is already that of storage pool '%s'", d->target,
                               p->name);
        if (name)
            *ret_same = p;
    }
    return true;
}

static void take_description(struct pool *p, const struct pool_def *d)
{
    g_free(p->target);
    p->target = g_strdup(d->target);
    p->perms = d->perms;
    g_free(p->text);
    p->text = pool_format(p, false, true);
}

struct redefine {
    const struct pool_def *d;
    bool start;
};

static bool do_redefine(struct pool *p, void *opaque, GError **error)
{
    const struct redefine *r = opaque;
    if (r->start && p->state != POOL_INACTIVE)
        return ruche_error(error, RUCHE_ERR_STATE, "storage pool '%s' is already active", p->name);
    if (p->state != POOL_INACTIVE && strcmp(p->target, r->d->target) != 0)
        return ruche_error(
            error, RUCHE_ERR_STATE,
            "storage pool '%s' is active: its folder cannot change from '%s' to '%s'", p->name,
            p->target, r->d->target);
    bool was = p->persistent;
    take_description(p, r->d);
    if (r->start)
        return true; /* runs by this description, stored is the one before */
    p->persistent = true;
    if (!pool_save(p, error)) {
        p->persistent = was;
        return false;
    }
    pool_emit(p, EVENT_LIFECYCLE, EVENT_DEFINED);
    return true;
}

/* The pool that the description is of: a known one, which takes it, or a new one in the table. */
static struct pool *define(const struct caller *who, const struct pool_def *d, bool start,
                           GError **error)
{
    struct pool *same = NULL;
    struct redefine r = {d, start};
    if (!check_clash(d, &same, error))
        return NULL;
    struct pool *p = same ? pool_ref(same) : pool_new(d);
    if (!same)
        pool_insert(p);
    if (pool_operation(who, p, RIGHT_HOST, start ? "create" : "define", do_redefine, &r, error))
        return p;
    if (!same)
        pool_remove(p);
    pool_unref(p);
    return NULL;
}

struct pool *pool_define(const struct caller *who, const char *xml, unsigned flags, GError **error)
{
    struct pool_def d;
    if (!access_check(who, RIGHT_HOST, "define a storage pool", error) ||
        !flags_check("define storage pool", flags, DEFINE_VALIDATE, error) ||
        !pool_def_parse(&d, xml, flags & DEFINE_VALIDATE, error))
        return NULL;
    struct pool *p = define(who, &d, false, error);
    pool_def_done(&d);
    return p;
}

/* ---- life ---- */

static bool do_start(struct pool *p, void *opaque, GError **error)
{
    unsigned flags = *(unsigned *)opaque;
    if (p->state != POOL_INACTIVE)
        return ruche_error(error, RUCHE_ERR_STATE, "storage pool '%s' is already active", p->name);
    if (flags & CREATE_BUILD && !on_folder(p, build_folder, error))
        return false;
    if (!pool_scan(p, error))
        return false;
    p->state = POOL_RUNNING;
    if (!pool_save_state(p, error)) {
        p->state = POOL_INACTIVE;
        return false;
    }
    pool_emit(p, EVENT_LIFECYCLE, EVENT_STARTED);
    return true;
}

static bool check_create_flags(unsigned flags, GError **error)
{
    return flags_check("start storage pool", flags,
                       CREATE_BUILD | CREATE_BUILD_OVERWRITE | CREATE_BUILD_NO_OVERWRITE, error) &&
           no_options("start storage pool", flags & ~(unsigned)CREATE_BUILD, error);
}

bool pool_start(const struct caller *who, struct pool *p, unsigned flags, GError **error)
{
    return check_create_flags(flags, error) &&
           pool_operation(who, p, RIGHT_HOST, "start", do_start, &flags, error);
}

struct pool *pool_create_xml(const struct caller *who, const char *xml, unsigned flags,
                             GError **error)
{
    struct pool_def d;
    if (!access_check(who, RIGHT_HOST, "create a storage pool", error) ||
        !check_create_flags(flags, error) || !pool_def_parse(&d, xml, false, error))
        return NULL;
    struct pool *p = define(who, &d, true, error);
    pool_def_done(&d);
    if (!p || pool_start(who, p, flags, error))
        return p;
    if (!p->persistent)
        pool_remove(p);
    pool_unref(p);
    return NULL;
}

static bool do_build(struct pool *p, void *opaque, GError **error)
{
    if (p->state != POOL_INACTIVE)
        return ruche_error(error, RUCHE_ERR_STATE, "storage pool '%s' is active", p->name);
    p->state = POOL_BUILDING;
    bool ok = on_folder(p, build_folder, error);
    p->state = POOL_INACTIVE;
    if (ok)
        pool_emit(p, EVENT_LIFECYCLE, EVENT_CREATED);
    return ok;
}

bool pool_build(const struct caller *who, struct pool *p, unsigned flags, GError **error)
{
    return no_options("build storage pool", flags, error) &&
           pool_operation(who, p, RIGHT_HOST, "build", do_build, NULL, error);
}

/* It runs no longer; a transient one is gone. */
static void set_stopped(struct pool *p)
{
    p->state = POOL_INACTIVE;
    p->capacity = p->allocation = p->available = 0;
    p->real_perms = NO_PERMS;
    g_hash_table_remove_all(p->volumes);
    g_autoptr(GError) ignored = NULL;
    if (!pool_save_state(p, &ignored))
        log_warn("storage pool '%s': %s", p->name, ignored->message);
    pool_emit(p, EVENT_LIFECYCLE, EVENT_STOPPED);
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

/* A folder that is no longer there ends the pool, as with libvirt. */
static bool do_refresh(struct pool *p, void *opaque, GError **error)
{
    if (!pool_check_active(p, error) || !check_idle(p, error))
        return false;
    if (!pool_scan(p, error)) {
        set_stopped(p);
        return false;
    }
    pool_emit(p, EVENT_REFRESH, 0);
    return true;
}

bool pool_refresh(const struct caller *who, struct pool *p, unsigned flags, GError **error)
{
    return flags_check("refresh storage pool", flags, 0, error) &&
           pool_operation(who, p, RIGHT_CONTROL, "refresh", do_refresh, NULL, error);
}

static bool do_destroy(struct pool *p, void *opaque, GError **error)
{
    if (!pool_check_active(p, error) || !check_idle(p, error))
        return false;
    set_stopped(p);
    return true;
}

bool pool_destroy(const struct caller *who, struct pool *p, GError **error)
{
    return pool_operation(who, p, RIGHT_HOST, "destroy", do_destroy, NULL, error);
}

static bool check_inactive(struct pool *p, GError **error)
{
    return p->state == POOL_INACTIVE ||
           ruche_error(error, RUCHE_ERR_STATE, "storage pool '%s' is still active", p->name);
}

static bool do_delete(struct pool *p, void *opaque, GError **error)
{
    if (!check_inactive(p, error) || !on_folder(p, remove_folder, error))
        return false;
    pool_emit(p, EVENT_LIFECYCLE, EVENT_DELETED);
    return true;
}

bool pool_delete(const struct caller *who, struct pool *p, unsigned flags, GError **error)
{
    return no_options("delete storage pool", flags, error) &&
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
    pool_emit(p, EVENT_LIFECYCLE, EVENT_UNDEFINED);
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

/* ---- documents ---- */

char *pool_xml(const struct caller *who, struct pool *p, unsigned flags, GError **error)
{
    enum { INACTIVE = 1 };
    if (!access_check(who, RIGHT_READ, "read a storage pool's description", error) ||
        !flags_check("describe storage pool", flags, INACTIVE, error))
        return NULL;
    return pool_format(p, true, flags & INACTIVE);
}

char *pool_capabilities(const struct caller *who, GError **error)
{
    static const char *const types[] = {"fs",      "netfs", "logical", "iscsi", "iscsi-direct",
                                        "scsi",    "mpath", "disk",    "rbd",   "sheepdog",
                                        "gluster", "zfs",   "vstorage"};
    static const char *const formats[] = {"raw", "dir",  "iso",   "vpc",
                                          "vdi", "vmdk", "qcow2", "vhdx"};
    if (!access_check(who, RIGHT_READ, "read storage pool capabilities", error))
        return NULL;
    GString *b = g_string_new(
        "<storagepoolCapabilities>\n  <pool type='dir' supported='yes'>\n    <volOptions>\n"
        "      <defaultFormat type='raw'/>\n      <enum name='targetFormatType'>\n");
    for (unsigned i = 0; i < ARRAY_COUNT(formats); i++)
        markup_add(b, "        <value>%s</value>\n", formats[i]);
    g_string_append(b, "      </enum>\n    </volOptions>\n  </pool>\n");
    for (unsigned i = 0; i < ARRAY_COUNT(types); i++)
        markup_add(b, "  <pool type='%s' supported='no'>\n  </pool>\n", types[i]);
    g_string_append(b, "</storagepoolCapabilities>\n");
    return g_string_free(b, FALSE);
}

/* ---- start and end of the manager ---- */

static bool do_resume(struct pool *p, void *opaque, GError **error)
{
    if (pool_scan(p, error))
        return true;
    set_stopped(p);
    return false;
}

static void resume_task(void *opaque)
{
    struct pool *p = opaque;
    g_autoptr(GError) error = NULL;
    if (!pool_operation(&caller_self, p, RIGHT_HOST, "resume", do_resume, NULL, &error))
        log_warn("storage pool '%s' does not run any more: %s", p->name, error->message);
    pool_unref(p);
}

void pool_resume(struct pool *p)
{
    task_start(resume_task, pool_ref(p));
}

void pools_autostart(void)
{
    g_autoptr(GPtrArray) all = pool_all();
    for (unsigned i = 0; i < all->len; i++) {
        struct pool *p = all->pdata[i];
        g_autoptr(GError) error = NULL;
        unsigned flags = 0;
        if (p->autostart && p->state == POOL_INACTIVE &&
            !pool_operation(&caller_self, p, RIGHT_HOST, "autostart", do_start, &flags, &error))
            log_warn("storage pool '%s' is not started: %s", p->name, error->message);
    }
}

void pools_stop(void)
{
    g_autoptr(GPtrArray) all = pool_all();
    for (unsigned i = 0; i < all->len; i++)
        pool_remove(all->pdata[i]);
}
