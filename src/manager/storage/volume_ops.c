/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is done to volumes that are there.
 *
 * Spec      libvirt's virStorageVol* at 9.0.0.
 * Thread    The loop thread, in a task; files on workers.
 */
#include "base/fd.h"
#include "manager/storage/storage_priv.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

enum { DELETE_ZEROED = 1, DELETE_WITH_SNAPSHOTS = 2 };             /* virStorageVolDeleteFlags */
enum { RESIZE_ALLOCATE = 1, RESIZE_DELTA = 2, RESIZE_SHRINK = 4 }; /* virStorageVolResizeFlags */

bool volume_operation(const struct caller *who, struct pool *p, enum right right, const char *verb,
                      bool (*fn)(struct pool *p, void *opaque, GError **error), void *opaque,
                      const char *name, GError **error)
{
    g_autofree char *operation = g_strdup_printf("%s volume '%s' in", verb, name);
    return pool_operation(who, p, right, operation, fn, opaque, error);
}

struct volume *volume_find(struct pool *p, const char *name, GError **error)
{
    if (!pool_check_active(p, error))
        return NULL;
    struct volume *v = g_hash_table_lookup(p->volumes, name);
    if (!v)
        ruche_error(error, MANAGER_ERR_NO_VOLUME,
                    "no storage vol with matching name '%s' in pool '%s'", name, p->name);
    return v;
}

/* Files by the name that the path ends with, others by what each says of itself. */
static struct volume *by_path(struct pool *p, const char *path, const char *dir, const char *name)
{
    GHashTableIter it;
    struct volume *v;
    if (p->backend->can & POOL_FILES)
        return path[0] == '/' && !strcmp(p->def->target, dir)
                   ? g_hash_table_lookup(p->volumes, name)
                   : NULL;
    g_hash_table_iter_init(&it, p->volumes);
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&v))
        if (!strcmp(v->path, path) || !g_strcmp0(v->key, path))
            return v;
    return NULL;
}

struct volume *volume_find_path(const char *path, struct pool **ret_pool, GError **error)
{
    g_autofree char *clean = g_canonicalize_filename(path, "/");
    g_autofree char *dir = g_path_get_dirname(clean), *name = g_path_get_basename(clean);
    g_autoptr(GPtrArray) all = pool_all();
    for (unsigned i = 0; i < all->len; i++) {
        struct pool *p = all->pdata[i];
        struct volume *v = pool_runs(p) ? by_path(p, path, dir, name) : NULL;
        if (!v)
            continue;
        if (ret_pool)
            *ret_pool = pool_ref(p);
        return v;
    }
    ruche_error(error, MANAGER_ERR_NO_VOLUME, "no storage vol with matching path '%s'", path);
    return NULL;
}

struct volume *volume_update(struct pool *p, const char *name, GError **error)
{
    struct volume *v = volume_find(p, name, error);
    if (!v || v->building)
        return v;
    return volume_scan(p, name, error) ? volume_find(p, name, error) : NULL;
}

char *volume_xml(const struct caller *who, struct pool *p, const char *name, GError **error)
{
    if (!access_check(who, RIGHT_READ, "read a storage volume's description", error))
        return NULL;
    g_autofree char *own = g_strdup(name);
    struct volume *v = volume_update(p, own, error);
    return v ? volume_format(v) : NULL;
}

struct volume *volume_find_idle(struct pool *p, const char *name, GError **error)
{
    struct volume *v = volume_find(p, name, error);
    if (v && v->building)
        ruche_error(error, RUCHE_ERR_STATE, "volume '%s' is still being made", v->name);
    else if (v && v->in_use)
        ruche_error(error, RUCHE_ERR_STATE, "volume '%s' is still in use", v->name);
    return v && !v->building && !v->in_use ? v : NULL;
}

struct volume *volume_find_own(struct pool *p, const char *name, GError **error)
{
    struct volume *v = volume_find_idle(p, name, error);
    if (!v || !p->backend->volume_check)
        return v;
    return p->backend->volume_check(p, name, error) ? volume_find_idle(p, name, error) : NULL;
}

/* ---- what workers do ---- */

struct file_work {
    const char *target, *name; /* target NULL: name is a device's path */
    struct volume_extent extent;
    unsigned algorithm;
    struct job *job; /* may be NULL */
    bool wipe, remove, spare_used, is_dir, ok;
    struct look look;
    GError *error;
};

int volume_open_at(int dir, const char *name, int flags)
{
    return dir >= 0 ? pool_fs_open(dir, name, flags)
                    : open(name, flags | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
}

static bool refuse_busy(struct file_work *w, int fd)
{
    return !pool_fs_image_busy(fd) ||
           ruche_error(&w->error, RUCHE_ERR_BUSY, "volume '%s' is in use by another program",
                       w->name);
}

static bool wipe_in(struct file_work *w, int dir)
{
    const struct hold h = {.what = "volume", .name = w->name, .dir = dir, .extent = w->extent};
    autofd fd = volume_hold(&h, &w->error);
    return fd >= 0 && wipe_file(fd, w->algorithm, w->job, &w->error);
}

/* What cannot be opened has no lock that could be seen. */
static bool may_remove(struct file_work *w, int dir)
{
    autofd fd = w->spare_used && !w->is_dir ? volume_open_at(dir, w->name, O_RDONLY) : -1;
    return fd < 0 || refuse_busy(w, fd);
}

static void work_on_file(void *opaque)
{
    struct file_work *w = opaque;
    autofd dir = w->target ? pool_fs_open_dir(w->target, &w->error) : -1;
    w->ok = (dir >= 0 || !w->target) && (!w->wipe || wipe_in(w, dir)) &&
            (!w->remove || may_remove(w, dir));
    if (!w->ok || !w->remove)
        return;
    w->ok = unlinkat(dir, w->name, w->is_dir ? AT_REMOVEDIR : 0) == 0 ||
            ruche_error_errno(&w->error, errno, "cannot delete volume '%s'", w->name);
    look_at_folder(&w->look, dir);
}

/* The pool is unlocked meanwhile: the volume is kept by its use count. */
static bool run_on_file(struct pool *p, struct volume *v, struct file_work *w, GError **error)
{
    bool files = p->backend->can & POOL_FILES;
    g_autofree char *target = files ? g_strdup(p->def->target) : NULL, *name = g_strdup(v->name),
                    *path = g_strdup(v->path);
    w->target = target;
    w->name = files ? name : path;
    w->is_dir = v->type == VOLUME_DIR;
    w->extent = v->extent;
    v->in_use++;
    fiber_mutex_unlock(&p->lock);
    task_work_long(work_on_file, w);
    fiber_mutex_lock(&p->lock);
    v = g_hash_table_lookup(p->volumes, name);
    if (v && v->in_use)
        v->in_use--;
    if (w->error)
        g_propagate_error(error, g_steal_pointer(&w->error));
    if (!look_take_figures(&w->look, p))
        pool_scan_figures(p, NULL);
    return w->ok;
}

/* ---- delete, wipe, resize ---- */

struct change {
    const char *name;
    uint64_t bytes;
    unsigned flags;
    bool spare_used;
    struct job *job;
};

static bool check_users(struct pool *p, const struct volume *v, const struct change *c,
                        const char *what, GError **error)
{
    return !c->spare_used || volume_refuse_used(p, v, VOLUME_USER_ANY, what, error);
}

bool volume_refuse_remote(const struct pool *p, const struct volume *v, const char *what,
                          GError **error)
{
    return !(p->backend->can & POOL_REMOTE) ||
           ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                       "volume '%s' of a pool of type '%s' is not on this host and cannot be %s",
                       v->name, p->backend->type, what);
}

/* Who uses a volume under its name would have another one in its place. */
static bool check_renamed(struct pool *p, const struct volume *v, const struct change *c,
                          GError **error)
{
    g_autoptr(GPtrArray) names =
        p->backend->volume_renames ? p->backend->volume_renames(p, v) : NULL;
    for (unsigned i = 0; names && i < names->len; i++) {
        const struct volume *other = volume_find_idle(p, names->pdata[i], error);
        if (!other || !check_users(p, other, c, "renamed", error))
            return false;
    }
    return true;
}

/* By its type's own way, wiped before if that is asked for. What the others are called then is looked at anew. */
static bool delete_device(struct pool *p, struct volume *v, const struct change *c, GError **error)
{
    struct file_work w = {.wipe = true};
    bool wipe = c->flags & DELETE_ZEROED;
    if (!p->backend->volume_delete)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "volume '%s': volumes of a pool of type '%s' cannot be deleted: %s",
                           v->name, p->backend->type, p->backend->summary);
    if (!check_renamed(p, v, c, error))
        return false;
    g_autofree char *name = g_strdup(v->name), *path = g_strdup(v->path);
    if (wipe && (!volume_refuse_remote(p, v, "wiped", error) || !run_on_file(p, v, &w, error)))
        return false;
    return p->backend->volume_delete(p, name, path, error) && pool_scan(p, error);
}

static bool do_delete(struct pool *p, void *opaque, GError **error)
{
    const struct change *c = opaque;
    struct volume *v = volume_find_own(p, c->name, error);
    if (!v || !check_users(p, v, c, "deleted", error))
        return false;
    if (!(p->backend->can & POOL_FILES))
        return delete_device(p, v, c, error);
    struct file_work w = {.wipe = c->flags & DELETE_ZEROED && v->type == VOLUME_FILE,
                          .remove = true,
                          .spare_used = c->spare_used};
    if (!run_on_file(p, v, &w, error))
        return false;
    g_hash_table_remove(p->volumes, c->name);
    return true;
}

bool volume_delete(const struct caller *who, struct pool *p, const char *name, unsigned flags,
                   bool spare_used, GError **error)
{
    g_autofree char *own = g_strdup(name);
    struct change c = {.name = own, .flags = flags, .spare_used = spare_used};
    return flags_check("delete storage volume", flags, DELETE_ZEROED, error) &&
           volume_operation(who, p, RIGHT_WRITE, "delete", do_delete, &c, own, error);
}

static bool do_wipe(struct pool *p, void *opaque, GError **error)
{
    const struct change *c = opaque;
    struct volume *v = volume_find_own(p, c->name, error);
    if (!v || !check_users(p, v, c, "wiped", error))
        return false;
    if (v->type == VOLUME_DIR)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "volume '%s' is a folder and cannot be wiped", v->name);
    if (!volume_refuse_remote(p, v, "wiped", error))
        return false;
    struct file_work w = {.wipe = true, .algorithm = c->flags, .job = c->job};
    return run_on_file(p, v, &w, error) && volume_scan(p, c->name, error);
}

struct wipe_call {
    struct pool *pool;
    struct caller who;
    char *name;
    unsigned algorithm;
    bool spare_used;
};

static bool wipe_job(struct job *j, void *opaque, char **ret_result, GError **error)
{
    struct wipe_call *w = opaque;
    struct change c = {
        .name = w->name, .flags = w->algorithm, .spare_used = w->spare_used, .job = j};
    job_step(j, "wiping volume '%s'", w->name);
    bool ok = volume_operation(&w->who, w->pool, RIGHT_WRITE, "wipe", do_wipe, &c, w->name, error);
    if (ok)
        *ret_result = g_strdup(w->name);
    pool_unref(w->pool);
    g_free(w->who.name);
    g_free(w->name);
    g_free(w);
    return ok;
}

struct job *volume_wipe_job(const struct caller *who, struct pool *p, const char *name,
                            unsigned algorithm, bool spare_used, GError **error)
{
    if (!wipe_known(algorithm)) {
        ruche_error(error, MANAGER_ERR_ARGUMENT, "wipe storage volume: algorithm %u is not known",
                    algorithm);
        return NULL;
    }
    if (!access_check(who, RIGHT_WRITE, "wipe a storage volume", error))
        return NULL;
    struct wipe_call *w = g_new(struct wipe_call, 1);
    *w = (struct wipe_call){pool_ref(p), *who, g_strdup(name), algorithm, spare_used};
    w->who.name = g_strdup(who->name);
    g_autofree char *object = g_strdup_printf("volume '%s'", name);
    return job_start(who, "wipe", object, wipe_job, w);
}

bool storage_wait(struct job *j, char **ret_result, GError **error)
{
    if (!j)
        return false;
    job_wait(j, -1);
    bool ok = j->state == JOB_DONE;
    if (ok && ret_result)
        *ret_result = g_strdup(j->result);
    if (!ok && error)
        *error = j->error ? g_error_copy(j->error) : NULL;
    job_unref(j);
    return ok;
}

bool volume_wipe(const struct caller *who, struct pool *p, const char *name, unsigned algorithm,
                 GError **error)
{
    return storage_wait(volume_wipe_job(who, p, name, algorithm, false, error), NULL, error);
}

/* The size in bytes that a change means; a multiple of 512. */
static bool new_size(const struct pool *p, const struct volume *v, const struct change *c,
                     uint64_t *ret, GError **error)
{
    uint64_t size = c->bytes;
    if (c->flags & RESIZE_DELTA && c->flags & RESIZE_SHRINK)
        size = v->capacity > size ? v->capacity - size : 0;
    else if (c->flags & RESIZE_DELTA && __builtin_add_overflow(v->capacity, size, &size))
        size = UINT64_MAX;
    if (size > INT64_MAX - 512)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "volume '%s': a size of %" PRIu64 " bytes is too large", v->name, size);
    size = align_up(size, 512);
    if (size < v->capacity && !(c->flags & RESIZE_SHRINK))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "volume '%s': cannot shrink from %" PRIu64 " to %" PRIu64
                           " bytes unless that is asked for",
                           v->name, v->capacity, size);
    if (p->capacity && size > v->capacity && size - v->capacity > p->available)
        return ruche_error(error, RUCHE_ERR_NO_SPACE,
                           "volume '%s': %" PRIu64
                           " more bytes do not fit into storage pool '%s', which has %" PRIu64,
                           v->name, size - v->capacity, p->name, p->available);
    *ret = size;
    return true;
}

static bool resize_device(struct pool *p, const struct volume *v, uint64_t size, GError **error)
{
    g_autofree char *name = g_strdup(v->name), *path = g_strdup(v->path);
    const struct volume_extent extent = v->extent;
    if (v->encrypted && v->physical > v->capacity) /* the header's room */
        size = align_up(size + v->physical - v->capacity, 512);
    bool shrinks = size < MAX(v->physical, v->capacity) && !(p->backend->can & POOL_REMOTE);
    return (!shrinks || device_check_free(p, "volume", path, &extent, error)) &&
           p->backend->volume_resize(p, name, path, size, error) && volume_scan(p, name, error);
}

static bool do_resize(struct pool *p, void *opaque, GError **error)
{
    const struct change *c = opaque;
    struct volume *v = volume_find_idle(p, c->name, error);
    uint64_t size = 0;
    if (!v || !pool_scan_figures(p, error))
        return false;
    v = volume_find_own(p, c->name, error);
    if (!v || !new_size(p, v, c, &size, error) ||
        (size < v->capacity && !check_users(p, v, c, "shrunk", error)))
        return false;
    if (v->type == VOLUME_DIR || !(p->backend->can & POOL_CAN_RESIZE))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "volume '%s' of a pool of type '%s' cannot be resized", v->name,
                           p->backend->type);
    if (!(p->backend->can & POOL_FILES))
        return resize_device(p, v, size, error);
    g_autofree char *text = g_strdup_printf("%" PRIu64, size), *path = g_strdup(v->path);
    g_autofree char *format = g_strdup(!strcmp(v->format, "iso") ? "raw" : v->format);
    auto_secret_file key = SECRET_FILE_NONE;
    g_autofree char *locked = NULL, *object = NULL;
    if (v->encrypted) {
        g_autoptr(GBytes) value = volume_key(v, error);
        if (!value || !secret_file_open(&key, value, error))
            return false;
        locked = encrypted_name(path, format, "key");
        object = secret_object("key", &key);
    }
    const char *argv[12] = {manager.img, "resize", "-q", object ? "--object" : "-f",
                            object ? object : format};
    unsigned n = 5;
    if (size < v->capacity)
        argv[n++] = "--shrink";
    if (c->flags & RESIZE_ALLOCATE && size > v->capacity)
        argv[n++] = "--preallocation=falloc";
    argv[n++] = locked ? locked : path;
    argv[n++] = text;
    return task_run_program(argv, NULL, IMG_ANSWER_MAX, -1, NULL, error) &&
           pool_scan_figures(p, error) && volume_scan(p, c->name, error);
}

bool volume_resize(const struct caller *who, struct pool *p, const char *name, uint64_t bytes,
                   unsigned flags, bool spare_used, GError **error)
{
    g_autofree char *own = g_strdup(name);
    struct change c = {.name = own, .bytes = bytes, .flags = flags, .spare_used = spare_used};
    return flags_check("resize storage volume", flags,
                       RESIZE_ALLOCATE | RESIZE_DELTA | RESIZE_SHRINK, error) &&
           volume_operation(who, p, RIGHT_WRITE, "resize", do_resize, &c, own, error);
}
