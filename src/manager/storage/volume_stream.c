/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Volumes as streams: what is opened for an upload or a download, how much may pass, and what follows their end.
 *
 * Spec      libvirt's virStorageVolUpload, virStorageVolDownload at 9.0.0.
 * Thread    The loop thread, in a task; files on workers.
 */
#include "base/fd.h"
#include "manager/storage/storage_priv.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

/* The thread's own: it may outlast who waits for it. */
typedef struct open_work open_work;
struct open_work {
    char *target, *name; /* target NULL: name is a device's path */
    struct volume_extent extent;
    uint64_t offset, size;
    bool write;
    int fd;
    GError *error;
};

static bool look_at_opened(struct open_work *w)
{
    struct stat st;
    if (fstat(w->fd, &st) < 0)
        return false;
    if (S_ISBLK(st.st_mode) && !w->target) {
        if (ioctl(w->fd, BLKGETSIZE64, &w->size) < 0)
            return false;
    } else if (!S_ISREG(st.st_mode)) {
        errno = EINVAL;
        return false;
    } else {
        w->size = (uint64_t)st.st_size;
    }
    return lseek(w->fd, (off_t)w->offset, SEEK_SET) >= 0;
}

static int open_to_read(struct open_work *w, int dir)
{
    int fd = volume_open_at(dir, w->name, O_RDONLY);
    if (fd < 0)
        ruche_error_errno(&w->error, errno, "cannot open volume '%s'", w->name);
    else if (!volume_check_extent(fd, w->name, &w->extent, &w->error))
        close(fd_steal(&fd));
    return fd;
}

static void open_file(void *opaque)
{
    struct open_work *w = opaque;
    autofd dir = w->target ? pool_fs_open_dir(w->target, &w->error) : -1;
    if (w->target && dir < 0)
        return;
    const struct hold h = {.what = "volume", .name = w->name, .dir = dir, .extent = w->extent};
    w->fd = w->write ? volume_hold(&h, &w->error) : open_to_read(w, dir);
    if (w->fd >= 0 && !look_at_opened(w)) {
        ruche_error_errno(&w->error, errno, "cannot open volume '%s'", w->name);
        close(fd_steal(&w->fd));
    } else if (w->fd >= 0) {
        fcntl(w->fd, F_SETFL, 0); /* O_NONBLOCK was for opening */
    }
}

static void open_work_free(void *opaque)
{
    struct open_work *w = opaque;
    fd_close_keep_errno(w->fd);
    g_clear_error(&w->error);
    g_free(w->target);
    g_free(w->name);
    g_free(w);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(open_work, open_work_free)

/* NULL with *error: a server that does not answer costs REACH_MS. */
static struct open_work *run_open(struct pool *p, const struct volume *v, uint64_t offset,
                                  bool write, GError **error)
{
    bool files = p->backend->can & POOL_FILES;
    struct open_work *w = g_new(struct open_work, 1);
    *w = (struct open_work){.target = files ? g_strdup(p->def->target) : NULL,
                            .name = g_strdup(files ? v->name : v->path),
                            .extent = v->extent,
                            .offset = offset,
                            .write = write,
                            .fd = -1};
    g_autofree char *what = g_strdup_printf("volume '%s' of storage pool '%s'", v->name, p->name);
    if (!storage_work(p, open_file, w, open_work_free, REACH_MS, what, error))
        return NULL;
    if (w->fd >= 0)
        return w;
    g_propagate_error(error, g_steal_pointer(&w->error));
    open_work_free(w);
    return NULL;
}

struct open_call {
    const char *name;
    bool write, spare_used;
    uint64_t offset, length, passes;
    int fd;
};

/* Raw volumes and devices end at their capacity; the file of another format grows with what is in
 * it. */
static bool check_range(struct open_call *c, const struct volume *v, const struct open_work *w,
                        GError **error)
{
    bool grows = c->write && v->type == VOLUME_FILE && strcmp(v->format, "raw") != 0 &&
                 strcmp(v->format, "iso") != 0;
    uint64_t left = grows ? INT64_MAX - c->offset : w->size - MIN(c->offset, w->size);
    if (c->offset > w->size || (c->write && !left))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "volume '%s': offset %" PRIu64 " is behind its end at %" PRIu64, c->name,
                           c->offset, w->size);
    if (c->length > left)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "volume '%s': %" PRIu64 " bytes from %" PRIu64
                           " are more than its %" PRIu64,
                           c->name, c->length, c->offset, w->size);
    c->passes = c->length ? c->length : left;
    return true;
}

static bool do_open(struct pool *p, void *opaque, GError **error)
{
    struct open_call *c = opaque;
    struct volume *v =
        c->write ? volume_find_own(p, c->name, error) : volume_find(p, c->name, error);
    if (!v || !volume_refuse_remote(p, v, c->write ? "uploaded to" : "downloaded", error))
        return false;
    if (c->spare_used && !volume_refuse_used(p, v, VOLUME_USER_ABOVE, "written", error))
        return false;
    if (v->building || v->type == VOLUME_DIR)
        return ruche_error(error, RUCHE_ERR_STATE, "volume '%s' is no file that could be read now",
                           v->name);
    g_autoptr(open_work) w = run_open(p, v, c->offset, c->write, error);
    if (!w)
        return false;
    v = volume_find(p, c->name, error);
    if (!v || !check_range(c, v, w, error))
        return false;
    v->in_use++;
    c->fd = fd_steal(&w->fd);
    return true;
}

int volume_open(const struct caller *who, struct pool *p, const char *name,
                enum volume_access access, uint64_t offset, uint64_t length, uint64_t *ret_length,
                GError **error)
{
    g_autofree char *own = g_strdup(name);
    bool write = access != VOLUME_READ;
    struct open_call c = {.name = own,
                          .write = write,
                          .spare_used = access == VOLUME_WRITE_UNUSED,
                          .offset = offset,
                          .length = length,
                          .fd = -1};
    if (offset > INT64_MAX || length > INT64_MAX) {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "volume '%s': offset %" PRIu64 " and length %" PRIu64 " are too large", name,
                    offset, length);
        return -1;
    }
    if (!volume_operation(who, p, write ? RIGHT_WRITE : RIGHT_CONTROL,
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

/* On NFS the close waits for the server. What was written is not synced: libvirt promises no more,
 * and a sync that is only begun already waits for the disk's queue. */
static void close_file(void *opaque)
{
    struct closing *c = opaque;
    close(c->fd);
}

static void close_task(void *opaque)
{
    struct closing *c = opaque;
    task_work_long(close_file, c);
    if (c->written && pool_runs(c->pool) && volume_scan(c->pool, c->name, NULL))
        pool_scan_figures(c->pool, NULL);
    struct volume *v = g_hash_table_lookup(c->pool->volumes, c->name);
    if (v && v->in_use)
        v->in_use--;
    if (c->written)
        pool_emit(c->pool, POOL_EVENT_REFRESH, 0);
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
