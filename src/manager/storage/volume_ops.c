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
#include <string.h>

enum { DELETE_ZEROED = 1, DELETE_WITH_SNAPSHOTS = 2 };             /* virStorageVolDeleteFlags */
enum { RESIZE_ALLOCATE = 1, RESIZE_DELTA = 2, RESIZE_SHRINK = 4 }; /* virStorageVolResizeFlags */

/* An operation on the pool that says which volume it was about, in the audit log too. */
static bool on_volume(const struct caller *who, struct pool *p, enum right right, const char *verb,
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

struct volume *volume_find_path(const char *path, struct pool **ret_pool, GError **error)
{
    g_autofree char *clean = g_canonicalize_filename(path, "/");
    g_autofree char *dir = g_path_get_dirname(clean), *name = g_path_get_basename(clean);
    g_autoptr(GPtrArray) all = pool_all();
    for (unsigned i = 0; path[0] == '/' && i < all->len; i++) {
        struct pool *p = all->pdata[i];
        struct volume *v = p->state == POOL_INACTIVE || strcmp(p->target, dir) != 0
                               ? NULL
                               : g_hash_table_lookup(p->volumes, name);
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

/* The volume, nobody else's at the moment. */
static struct volume *find_idle(struct pool *p, const char *name, GError **error)
{
    struct volume *v = volume_find(p, name, error);
    if (v && v->building)
        ruche_error(error, RUCHE_ERR_STATE, "volume '%s' is still being made", v->name);
    else if (v && v->in_use)
        ruche_error(error, RUCHE_ERR_STATE, "volume '%s' is still in use", v->name);
    return v && !v->building && !v->in_use ? v : NULL;
}

/* ---- what workers do ---- */

struct file_work {
    const char *target, *name;
    unsigned algorithm;
    bool wipe, remove, is_dir, ok;
    GError *error;
};

static bool wipe_in(struct file_work *w, int dir)
{
    autofd fd = pool_fs_open(dir, w->name, O_RDWR);
    if (fd < 0)
        return ruche_error_errno(&w->error, errno, "cannot open volume '%s'", w->name);
    if (pool_fs_image_busy(fd))
        return ruche_error(&w->error, RUCHE_ERR_BUSY, "volume '%s' is in use by another program",
                           w->name);
    return wipe_file(fd, w->algorithm, &w->error);
}

static void work_on_file(void *opaque)
{
    struct file_work *w = opaque;
    autofd dir = pool_fs_open_dir(w->target, &w->error);
    w->ok = dir >= 0 && (!w->wipe || wipe_in(w, dir));
    if (!w->ok || !w->remove)
        return;
    w->ok = unlinkat(dir, w->name, w->is_dir ? AT_REMOVEDIR : 0) == 0 ||
            ruche_error_errno(&w->error, errno, "cannot delete volume '%s'", w->name);
    fsync(dir);
}

/* The pool is unlocked meanwhile: the volume is kept by its use count. */
static bool run_on_file(struct pool *p, struct volume *v, struct file_work *w, GError **error)
{
    g_autofree char *target = g_strdup(p->target), *name = g_strdup(v->name);
    w->target = target;
    w->name = name;
    w->is_dir = v->type == 2;
    v->in_use++;
    fiber_mutex_unlock(&p->lock);
    task_work_long(work_on_file, w);
    fiber_mutex_lock(&p->lock);
    v = g_hash_table_lookup(p->volumes, name);
    if (v && v->in_use)
        v->in_use--;
    if (w->error)
        g_propagate_error(error, g_steal_pointer(&w->error));
    pool_scan_figures(p, NULL);
    return w->ok;
}

/* ---- delete, wipe, resize ---- */

struct change {
    const char *name;
    uint64_t bytes;
    unsigned flags;
};

static bool do_delete(struct pool *p, void *opaque, GError **error)
{
    const struct change *c = opaque;
    struct volume *v = find_idle(p, c->name, error);
    if (!v)
        return false;
    struct file_work w = {.wipe = c->flags & DELETE_ZEROED && v->type == 0, .remove = true};
    if (!run_on_file(p, v, &w, error))
        return false;
    g_hash_table_remove(p->volumes, c->name);
    return true;
}

bool volume_delete(const struct caller *who, struct pool *p, const char *name, unsigned flags,
                   GError **error)
{
    g_autofree char *own = g_strdup(name);
    struct change c = {.name = own, .flags = flags};
    return flags_check("delete storage volume", flags, DELETE_ZEROED, error) &&
           on_volume(who, p, RIGHT_WRITE, "delete", do_delete, &c, own, error);
}

static bool do_wipe(struct pool *p, void *opaque, GError **error)
{
    const struct change *c = opaque;
    struct volume *v = find_idle(p, c->name, error);
    if (!v)
        return false;
    if (v->type != 0)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "volume '%s' is a folder and cannot be wiped", v->name);
    struct file_work w = {.wipe = true, .algorithm = c->flags};
    return run_on_file(p, v, &w, error) && volume_scan(p, c->name, error);
}

bool volume_wipe(const struct caller *who, struct pool *p, const char *name, unsigned algorithm,
                 GError **error)
{
    g_autofree char *own = g_strdup(name);
    struct change c = {.name = own, .flags = algorithm};
    if (!wipe_known(algorithm))
        return ruche_error(error, MANAGER_ERR_ARGUMENT,
                           "wipe storage volume: algorithm %u is not known", algorithm);
    return on_volume(who, p, RIGHT_WRITE, "wipe", do_wipe, &c, own, error);
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
    if (size > v->capacity && size - v->capacity > p->available)
        return ruche_error(error, RUCHE_ERR_NO_SPACE,
                           "volume '%s': %" PRIu64
                           " more bytes do not fit into storage pool '%s', which has %" PRIu64,
                           v->name, size - v->capacity, p->name, p->available);
    *ret = size;
    return true;
}

static bool do_resize(struct pool *p, void *opaque, GError **error)
{
    const struct change *c = opaque;
    struct volume *v = find_idle(p, c->name, error);
    uint64_t size = 0;
    if (!v || !pool_scan_figures(p, error))
        return false;
    v = find_idle(p, c->name, error);
    if (!v || !new_size(p, v, c, &size, error))
        return false;
    if (v->type != 0)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "volume '%s' is a folder and has no size",
                           v->name);
    g_autofree char *text = g_strdup_printf("%" PRIu64, size), *path = g_strdup(v->path);
    g_autofree char *format = g_strdup(!strcmp(v->format, "iso") ? "raw" : v->format);
    const char *argv[10] = {manager.img, "resize", "-q", "-f", format};
    unsigned n = 5;
    if (size < v->capacity)
        argv[n++] = "--shrink";
    if (c->flags & RESIZE_ALLOCATE && size > v->capacity)
        argv[n++] = "--preallocation=falloc";
    argv[n++] = path;
    argv[n++] = text;
    return task_run_program(argv, NULL, IMG_ANSWER_MAX, -1, NULL, error) &&
           pool_scan_figures(p, error) && volume_scan(p, c->name, error);
}

bool volume_resize(const struct caller *who, struct pool *p, const char *name, uint64_t bytes,
                   unsigned flags, GError **error)
{
    g_autofree char *own = g_strdup(name);
    struct change c = {.name = own, .bytes = bytes, .flags = flags};
    return flags_check("resize storage volume", flags,
                       RESIZE_ALLOCATE | RESIZE_DELTA | RESIZE_SHRINK, error) &&
           on_volume(who, p, RIGHT_WRITE, "resize", do_resize, &c, own, error);
}

/* ---- streams ---- */

struct open_work {
    const char *target, *name;
    uint64_t offset;
    bool write, busy;
    int fd, err;
    struct stat st;
};

static void open_file(void *opaque)
{
    struct open_work *w = opaque;
    autofd dir = pool_fs_open_dir(w->target, NULL);
    w->fd = dir < 0 ? -1 : pool_fs_open(dir, w->name, w->write ? O_WRONLY : O_RDONLY);
    w->err = errno;
    if (w->fd < 0)
        return;
    if (fstat(w->fd, &w->st) < 0 || !S_ISREG(w->st.st_mode) ||
        lseek(w->fd, (off_t)w->offset, SEEK_SET) < 0) {
        w->err = errno;
        close(fd_steal(&w->fd));
        return;
    }
    fcntl(w->fd, F_SETFL, 0); /* O_NONBLOCK was for opening */
    w->busy = w->write && pool_fs_image_busy(w->fd);
}

struct open_call {
    const char *name;
    bool write;
    uint64_t offset, length, passes;
    int fd;
};

static bool check_range(const struct open_call *c, const struct open_work *w, GError **error)
{
    uint64_t size = (uint64_t)w->st.st_size;
    if (w->busy)
        return ruche_error(error, RUCHE_ERR_BUSY, "volume '%s' is in use by another program",
                           c->name);
    if (c->offset > size)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "volume '%s': offset %" PRIu64 " is behind its end at %" PRIu64, c->name,
                           c->offset, size);
    return c->write || c->length <= size - c->offset ||
           ruche_error(error, RUCHE_ERR_INVALID,
                       "volume '%s': %" PRIu64 " bytes from %" PRIu64 " are more than its %" PRIu64,
                       c->name, c->length, c->offset, size);
}

static bool do_open(struct pool *p, void *opaque, GError **error)
{
    struct open_call *c = opaque;
    struct volume *v = c->write ? find_idle(p, c->name, error) : volume_find(p, c->name, error);
    if (!v)
        return false;
    if (v->building || v->type != 0)
        return ruche_error(error, RUCHE_ERR_STATE, "volume '%s' is no file that could be read now",
                           v->name);
    g_autofree char *target = g_strdup(p->target);
    struct open_work w = {
        .target = target, .name = c->name, .offset = c->offset, .write = c->write, .fd = -1};
    task_work(open_file, &w);
    if (w.fd < 0)
        return ruche_error_errno(error, w.err, "cannot open volume '%s'", c->name);
    v = g_hash_table_lookup(p->volumes, c->name);
    if (!v || !check_range(c, &w, error)) {
        close(w.fd);
        return false;
    }
    v->in_use++;
    c->fd = w.fd;
    c->passes = c->length || c->write ? c->length : (uint64_t)w.st.st_size - c->offset;
    return true;
}

int volume_open(const struct caller *who, struct pool *p, const char *name, bool write,
                uint64_t offset, uint64_t length, uint64_t *ret_length, GError **error)
{
    g_autofree char *own = g_strdup(name);
    struct open_call c = {
        .name = own, .write = write, .offset = offset, .length = length, .fd = -1};
    if (offset > INT64_MAX || length > INT64_MAX) {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "volume '%s': offset %" PRIu64 " and length %" PRIu64 " are too large", name,
                    offset, length);
        return -1;
    }
    if (!on_volume(who, p, write ? RIGHT_WRITE : RIGHT_CONTROL,
                   write ? "upload to" : "download from", do_open, &c, own, error))
        return -1;
    *ret_length = c.passes;
    return c.fd;
}

struct closing {
    struct pool *pool;
    char *name;
    int fd;
    bool written;
};

static void close_file(void *opaque)
{
    struct closing *c = opaque;
    if (c->written)
        fsync(c->fd);
    close(c->fd);
}

static void close_task(void *opaque)
{
    struct closing *c = opaque;
    task_work(close_file, c);
    if (c->written && c->pool->state != POOL_INACTIVE && volume_scan(c->pool, c->name, NULL))
        pool_scan_figures(c->pool, NULL);
    struct volume *v = g_hash_table_lookup(c->pool->volumes, c->name);
    if (v && v->in_use)
        v->in_use--;
    if (c->written)
        pool_emit(c->pool, 1, 0);
    pool_unref(c->pool);
    g_free(c->name);
    g_free(c);
}

void volume_close(struct pool *p, const char *name, int fd, bool written)
{
    struct closing *c = g_new(struct closing, 1);
    *c =
        (struct closing){.pool = pool_ref(p), .name = g_strdup(name), .fd = fd, .written = written};
    if (fiber_self())
        close_task(c);
    else
        task_start(close_task, c);
}
