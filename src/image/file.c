/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Drivers "file" and "host_device": a file or a block device of the host.
 *
 * Spec      open(2), preadv2(2), fallocate(2), lseek(2), statx(2), Linux block device ioctls.
 * Fiber     I/O; open and close by calls that may block for a moment.
 * Errors    A sentence that names the file. A full disk, quota or file size limit is -ENOSPC.
 */
#include "image/driver.h"
#include "image/file.h"
#include "base/image_lock.h"

#include "base/fd.h"
#include "base/fdset.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x2000U
#endif

#define RESERVE_MIN (256 * KIB) /* shorter writes gain nothing */
#define RESERVE_STEP (16 * MIB) /* behind the end of the file */
#define FILE_IOVS 64 /* of one system call, on the fiber's stack */

struct file_node {
    struct node n;
    char *filename;
    int locking, aio;
    int fd;                      /* -1 before it is open */
    bool opened;
    bool block_device;
    bool no_punch, no_zero_range, no_allocate; /* the file system said so */
    bool reserves;               /* room for fresh data is better asked for before */
    uint64_t reserved_begin, reserved_end; /* what was asked for last */
};

static const char *const locking_words[] = { "off", "on", "auto", NULL };
static const char *const aio_words[] = { "threads", "native", "io_uring", NULL };

static const struct image_option file_options[] = {
    OPT_STRING("filename", struct file_node, filename, "Path"),
    OPT_WORD("locking", struct file_node, locking, locking_words, 2, "Lock the file against other users"),
    OPT_WORD("aio", struct file_node, aio, aio_words, 2, "Accepted as QEMU's; io_uring is used where there is one"),
    { 0 },
};

/* ---- opening ---- */

static int open_path(struct file_node *f, const char *path, bool *read_only, bool auto_read_only,
                     GError **error)
{
    int flags = O_CLOEXEC | O_NOCTTY | (f->n.direct ? O_DIRECT : 0);
    int fd = fdset_open(path, flags | (*read_only ? O_RDONLY : O_RDWR), 0);
    if (fd < 0 && !*read_only && auto_read_only &&
        (errno == EACCES || errno == EROFS || errno == EPERM)) {
        *read_only = true;
        fd = fdset_open(path, flags | O_RDONLY, 0);
    }
    if (fd >= 0)
        return fd;
    int err = errno;
    if (err == ENOENT)
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "image '%s' does not exist", f->filename);
    else if (err == EISDIR)
        ruche_error(error, RUCHE_ERR_INVALID, "image '%s' is a directory", f->filename);
    else if (err == EINVAL && f->n.direct)
        ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                    "image '%s': its file system has no direct I/O; use cache=writeback", f->filename);
    else
        ruche_error_errno(error, err, "image '%s' cannot be opened for %s", f->filename,
                          *read_only ? "reading" : "reading and writing");
    return -1;
}

static uint32_t sysfs_queue_number(dev_t dev, const char *what)
{
    char path[128];
    unsigned long v = 0;
    /* A partition's queue is its parent's. */
    for (int up = 0; up < 2 && !v; up++) {
        snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%squeue/%s", major(dev), minor(dev),
                 up ? "../" : "", what);
        FILE *f = fopen(path, "re");
        if (f) {
            if (fscanf(f, "%lu", &v) != 1)
                v = 0;
            fclose(f);
        }
    }
    return v > UINT32_MAX ? 0 : v;
}

static bool device_geometry(struct file_node *f, const struct stat *st, GError **error)
{
    uint64_t size = 0;
    int logical = 512;
    unsigned physical = 512;
    if (ioctl(f->fd, BLKGETSIZE64, &size) < 0)
        return ruche_error_errno(error, errno, "image '%s': the device's size cannot be read", f->filename);
    if (ioctl(f->fd, BLKSSZGET, &logical) == 0 && logical >= 512 && logical <= 4096)
        f->n.block_bytes = (uint32_t)logical;
    if (ioctl(f->fd, BLKPBSZGET, &physical) == 0 && physical >= 512 && physical <= 65536)
        f->n.physical_block_bytes = physical;
    uint32_t discard = sysfs_queue_number(st->st_rdev, "discard_granularity");
    f->n.discard_align = is_power_of_2(discard) && discard >= 512 ? discard : f->n.block_bytes;
    f->n.zero_align = f->n.block_bytes;
    f->n.size_bytes = size;
    f->block_device = true;
    return true;
}

/* What memory and offset alignment O_DIRECT wants. */
static void direct_alignment(struct file_node *f)
{
    struct statx sx = { 0 };
    uint32_t mem = 512, off = 512;
    if (statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 && (sx.stx_mask & STATX_DIOALIGN)) {
        /* Two 32-bit fields right behind stx_mnt_id, which older headers lack. */
        uint32_t align[2];
        memcpy(align, (const char *)&sx + 0x98, sizeof(align));
        if (is_power_of_2(align[0]) && is_power_of_2(align[1]) && align[1] <= 4096) {
            f->n.mem_align = align[0];
            f->n.request_align = align[1];
            return;
        }
    }
    static uint8_t page[8192] __attribute__((aligned(4096)));
    if (pread(f->fd, page + 512, 512, 0) < 0)
        mem = off = 4096;
    f->n.mem_align = mem;
    f->n.request_align = off;
}

static bool geometry(struct file_node *f, GError **error)
{
    struct stat st;
    if (fstat(f->fd, &st) < 0)
        return ruche_error_errno(error, errno, "image '%s' cannot be examined", f->filename);
    if (S_ISDIR(st.st_mode))
        return ruche_error(error, RUCHE_ERR_INVALID, "image '%s' is a directory", f->filename);
    if (S_ISBLK(st.st_mode)) {
        if (!device_geometry(f, &st, error))
            return false;
    } else if (S_ISREG(st.st_mode)) {
        f->n.size_bytes = (uint64_t)st.st_size;
        f->n.grows = true;
    } else {
        return ruche_error(error, RUCHE_ERR_INVALID, "image '%s' is neither a file nor a block device",
                           f->filename);
    }
    if (f->n.direct)
        direct_alignment(f);
    return true;
}

static bool lock(struct file_node *f, bool read_only, GError **error)
{
    return f->locking == 0 ||
           image_lock(f->fd, f->filename, !read_only, f->n.force_share, error);
}

/* Of files that nobody else makes longer meanwhile. */
static bool reserves(const struct file_node *f)
{
    struct statfs s;
    return !f->block_device && f->locking && !f->n.force_share && !f->n.direct &&
           fstatfs(f->fd, &s) == 0 && s.f_type == EXT4_SUPER_MAGIC;
}

static bool file_open(struct node *n, GError **error)
{
    struct file_node *f = container_of(n, struct file_node, n);
    bool read_only = !n->wanted_rw;
    f->fd = -1;
    f->opened = true;
    if (!f->filename || !*f->filename)
        return ruche_error(error, RUCHE_ERR_INVALID, "driver %s needs 'filename'", n->driver->name);
    g_free(n->filename);
    n->filename = g_strdup(f->filename);
    f->fd = open_path(f, graph_place(n->graph, f->filename), &read_only, n->auto_read_only, error);
    if (f->fd < 0 || !geometry(f, error) || !lock(f, read_only, error))
        return false;
    n->read_only = read_only;
    n->write_flags = n->zero_flags = NODE_FUA;
    n->write_flags |= NODE_FRESH;
    f->reserves = reserves(f);
    n->zero_flags |= NODE_MAY_UNMAP | NODE_NO_FALLBACK;
    n->zero_init = !f->block_device;
    return true;
}

/* To its own length: what was reserved behind it goes. */
static void give_back(struct file_node *f)
{
    struct stat st;
    if (f->reserved_end && fstat(f->fd, &st) == 0 && (uint64_t)st.st_size < f->reserved_end &&
        ftruncate(f->fd, st.st_size) < 0)
        g_warning("'%s' keeps the room that was reserved behind its end", f->filename);
    f->reserved_begin = f->reserved_end = 0;
}

/* A passed descriptor outlives its copy here, and with it its open file, whose locks would keep others off. */
static void give_back_locks(struct file_node *f)
{
    if (!f->locking || !fdset_is_path(f->filename))
        return;
    for (struct node *other = NULL; (other = graph_next(f->n.graph, other));)
        if (other != &f->n && other->driver == f->n.driver && !strcmp(other->filename, f->filename))
            return; /* it stands on the same one */
    image_unlock(f->fd);
}

static void file_close(struct node *n)
{
    struct file_node *f = container_of(n, struct file_node, n);
    if (!f->opened)
        return;
    give_back(f);
    if (f->fd >= 0)
        give_back_locks(f);
    fd_close_keep_errno(f->fd);
}

/* Who passed the file may have passed it for this, too: the user we run as need not have a right to it.
 * Else through /proc, so that a renamed or deleted file is the same one. */
static int open_again(struct file_node *f, bool read_only, GError **error)
{
    g_autofree char *own = g_strdup_printf("/proc/self/fd/%d", f->fd);
    bool now = read_only;
    int fd = fdset_is_path(f->filename) ? open_path(f, f->filename, &now, false, NULL) : -1;
    return fd >= 0 ? fd : open_path(f, own, &now, false, error);
}

/* Locks belong to the open file: the old one's would be in our way. */
static bool file_set_read_only(struct node *n, bool read_only, GError **error)
{
    struct file_node *f = container_of(n, struct file_node, n);
    autofd fd = open_again(f, read_only, error);
    if (fd < 0)
        return false;
    int old = f->fd;
    give_back(f);
    image_unlock(old);
    f->fd = fd;
    if (!lock(f, read_only, error)) {
        f->fd = old;
        lock(f, n->read_only, NULL);
        return false;
    }
    fd_steal(&fd);
    close(old);
    return true;
}

/* ---- I/O ---- */

static int no_space(int err)
{
    return err == -EDQUOT || err == -EFBIG ? -ENOSPC : err;
}

static int file_read(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    struct file_node *f = container_of(n, struct file_node, n);
    struct iovec iov[FILE_IOVS];
    for (size_t done = 0; done < v.len;) {
        size_t want;
        struct vec rest = vec_slice(v, done, v.len - done);
        unsigned count = vec_to_iov(rest, iov, FILE_IOVS, &want);
        ssize_t got = n->direct ? context_preadv(n->ctx, f->fd, iov, count, off + done)
                                : context_preadv_cached(n->ctx, f->fd, iov, count, off + done);
        if (got < 0)
            return (int)got;
        done += (size_t)got;
        /* The end of the file: nothing more comes, the rest is zeroes. A direct read that stopped off
         * alignment also met the end. */
        if (got == 0 || (n->direct && (size_t)got & (n->request_align - 1))) {
            vec_fill(vec_slice(v, done, v.len - done), 0);
            return 0;
        }
    }
    return 0;
}

/* ext4 enters each block of a file that grows in its books of delayed blocks, one by one, but not
 * those that fallocate() got in one piece: a third of the time of a write. Inside of the file exactly
 * what is written, for what stays a hole shall take no room; at its end in steps, and file_close()
 * gives back the rest. */
static uint64_t room_for(struct file_node *f, uint64_t off, size_t len, unsigned flags)
{
    uint64_t end = off + len;
    if (!(flags & NODE_FRESH) || !f->reserves || len < RESERVE_MIN ||
        !context_is_patient(f->n.ctx))
        return 0;
    if (off >= f->reserved_begin && end <= f->reserved_end)
        return 0;
    f->reserved_begin = off;
    f->reserved_end = off < f->n.size_bytes ? end : off + align_up(len, RESERVE_STEP);
    return f->reserved_end - off;
}

static int file_write(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    struct file_node *f = container_of(n, struct file_node, n);
    struct iovec iov[FILE_IOVS];
    int rw = flags & NODE_FUA && !n->no_flush ? RWF_DSYNC : 0;
    uint64_t reserve = room_for(f, off, v.len, flags);
    for (size_t done = 0; done < v.len;) {
        size_t want;
        struct vec rest = vec_slice(v, done, v.len - done);
        unsigned count = vec_to_iov(rest, iov, FILE_IOVS, &want);
        ssize_t put = n->direct ? context_pwritev(n->ctx, f->fd, iov, count, off + done, rw)
                                : context_pwritev_cached(n->ctx, f->fd, iov, count, off + done, rw,
                                                         reserve);
        if (put <= 0) /* nothing taken and no reason given: do not turn for ever */
            return put ? no_space((int)put) : -EIO;
        done += (size_t)put;
        reserve = 0;
    }
    return 0;
}

static int file_flush(struct node *n)
{
    struct file_node *f = container_of(n, struct file_node, n);
    return n->no_flush ? 0 : context_fdatasync(n->ctx, f->fd);
}

/* What a kernel or a file system says when it does not know an operation. */
static bool not_supported(int err)
{
    return err == -EOPNOTSUPP || err == -ENOSYS || err == -EINVAL || err == -ENODEV || err == -ENOTTY;
}

/* 0, -ENOTSUP (and remembered in *never), or another error. */
static int try_allocate(struct file_node *f, bool *never, int mode, uint64_t off, uint64_t len)
{
    if (*never)
        return -ENOTSUP;
    int err = context_fallocate(f->n.ctx, f->fd, mode, off, len);
    if (!not_supported(err))
        return no_space(err);
    *never = true;
    return -ENOTSUP;
}

struct truncation {
    int fd;
    uint64_t size;
};

static int truncate_call(void *opaque)
{
    const struct truncation *t = opaque;
    return ftruncate(t->fd, (off_t)t->size) < 0 ? no_space(-errno) : 0;
}

/* Longer takes no time; shorter may have a great deal to free. */
static int set_length(struct file_node *f, uint64_t size)
{
    struct truncation t = { .fd = f->fd, .size = size };
    if (size >= f->n.size_bytes && context_is_patient(f->n.ctx))
        return truncate_call(&t);
    return context_offload(f->n.ctx, truncate_call, &t);
}

/* Holes where that is welcome; else zeroed and kept; else a hole that is allocated again. */
static int zero(struct file_node *f, uint64_t off, uint64_t len, bool unmap)
{
    const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    int err = -ENOTSUP;
    if (unmap)
        err = try_allocate(f, &f->no_punch, punch, off, len);
    if (err == -ENOTSUP)
        err = try_allocate(f, &f->no_zero_range, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, off, len);
    if (err == -ENOTSUP && !f->block_device) {
        err = try_allocate(f, &f->no_punch, punch, off, len);
        if (!err)
            err = try_allocate(f, &f->no_allocate, FALLOC_FL_KEEP_SIZE, off, len);
    }
    return err;
}

static int file_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags)
{
    struct file_node *f = container_of(n, struct file_node, n);
    int err = zero(f, off, len, flags & NODE_MAY_UNMAP);
    /* Longer by allocating the last byte: a truncate could cut what another request wrote meanwhile. */
    if (!err && n->grows && off + len > n->size_bytes)
        err = try_allocate(f, &f->no_allocate, 0, off + len - 1, 1);
    if (!err && flags & NODE_FUA && !n->no_flush)
        err = context_fdatasync(n->ctx, f->fd);
    return err;
}

struct file_copy {
    int from, to;
    uint64_t from_off, off, len;
    bool share_only;
};

static int copy_call(void *opaque)
{
    struct file_copy *c = opaque;
    struct file_clone_range share = { .src_fd = c->from, .src_offset = c->from_off, .src_length = c->len,
                                      .dest_offset = c->off };
    if (ioctl(c->to, FICLONERANGE, &share) == 0)
        return 0;
    if (c->share_only)
        return errno == ENOSPC ? -ENOSPC : -ENOTSUP;
    off_t from = (off_t)c->from_off, to = (off_t)c->off;
    for (uint64_t left = c->len; left;) {
        ssize_t done = copy_file_range(c->from, &from, c->to, &to, left, 0);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) /* nothing: the source ends early */
            return done && (errno == ENOSPC || errno == EIO || errno == EDQUOT) ? no_space(-errno) : -ENOTSUP;
        left -= (uint64_t)done;
    }
    return 0;
}

static int file_copy_range(struct node *n, uint64_t off, struct node *from, uint64_t from_off, uint64_t len,
                           bool share_only)
{
    struct file_copy c = { .from = file_descriptor(from), .to = file_descriptor(n), .from_off = from_off, .off = off,
                           .len = len, .share_only = share_only };
    return c.from < 0 ? -ENOTSUP : context_offload(n->ctx, copy_call, &c);
}

struct block_range {
    int fd;
    uint64_t range[2];
};

static int block_discard_call(void *opaque)
{
    struct block_range *b = opaque;
    return ioctl(b->fd, BLKDISCARD, b->range) < 0 ? -errno : 0;
}

static int file_discard(struct node *n, uint64_t off, uint64_t len)
{
    struct file_node *f = container_of(n, struct file_node, n);
    if (!f->block_device)
        return try_allocate(f, &f->no_punch, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);
    if (f->no_punch)
        return -ENOTSUP;
    struct block_range b = { .fd = f->fd, .range = { off, len } };
    int err = context_offload(n->ctx, block_discard_call, &b);
    f->no_punch = not_supported(err);
    return f->no_punch ? -ENOTSUP : err;
}

static int file_map(struct node *n, uint64_t off, uint64_t len, struct image_extent *ret)
{
    struct file_node *f = container_of(n, struct file_node, n);
    ret->host = n;
    ret->host_offset = off;
    ret->flags = EXTENT_ALLOCATED | EXTENT_OFFSET | EXTENT_DATA;
    if (f->block_device)
        return 0;
    off_t data = lseek(f->fd, (off_t)off, SEEK_DATA);
    if (data < 0 && errno != ENXIO)
        return 0; /* the file system cannot say */
    if (data < 0 || (uint64_t)data > off) {
        ret->flags = EXTENT_ALLOCATED | EXTENT_OFFSET | EXTENT_ZERO;
        if (data >= 0)
            ret->len = min_u64(len, (uint64_t)data - off);
        return 0;
    }
    off_t hole = lseek(f->fd, (off_t)off, SEEK_HOLE);
    if (hole > (off_t)off)
        ret->len = min_u64(len, (uint64_t)hole - off);
    return 0;
}

static int64_t file_allocated_bytes(struct node *n)
{
    struct file_node *f = container_of(n, struct file_node, n);
    struct stat st;
    if (fstat(f->fd, &st) < 0)
        return -errno;
    return f->block_device ? (int64_t)n->size_bytes : (int64_t)st.st_blocks * 512;
}

/* ---- size ---- */

static int write_all_zero(struct node *n, uint64_t off, uint64_t end)
{
    const size_t piece = MIB;
    void *p = NULL;
    if (posix_memalign(&p, 4096, piece))
        return -ENOMEM;
    memset(p, 0, piece);
    int err = 0;
    for (struct iovec iov; !err && off < end; off += piece) {
        size_t len = min_u64(piece, end - off);
        if (n->request_align > 1)
            len = align_up(len, n->request_align);
        err = file_write(n, off, vec_flat(&iov, p, len), 0);
    }
    free(p);
    return err;
}

static bool file_resize(struct node *n, uint64_t size, enum image_prealloc p, GError **error)
{
    struct file_node *f = container_of(n, struct file_node, n);
    uint64_t old = n->size_bytes;
    int err = 0;
    if (f->block_device && size <= n->size_bytes)
        return true;
    if (f->block_device)
        return ruche_error(error, RUCHE_ERR_NO_SPACE,
                           "device '%s' has %" G_GUINT64_FORMAT " bytes, and %" G_GUINT64_FORMAT " are wanted",
                           f->filename, n->size_bytes, size);
    if (p == PREALLOC_FALLOC && size > old)
        err = context_fallocate(n->ctx, f->fd, 0, old, size - old);
    else
        err = set_length(f, size);
    if (!err && p == PREALLOC_FULL && size > old)
        err = write_all_zero(n, old, size);
    if (err && size > old)
        set_length(f, old);
    if (err)
        return ruche_error_errno(error, -no_space(err), "image '%s' cannot be made %" G_GUINT64_FORMAT " bytes long",
                                 f->filename, size);
    return true;
}

int file_descriptor(const struct node *n)
{
    return n->driver->read == file_read ? container_of(n, const struct file_node, n)->fd : -1;
}

#define FILE_DRIVER(id, word, text)                                                                \
    static const struct image_driver id = {                                                        \
        .name = word,                                                                              \
        .summary = text,                                                                           \
        .spec = "preadv2(2), fallocate(2)",                                                        \
        .kind = DRIVER_PROTOCOL,                                                                   \
        .size = sizeof(struct file_node),                                                          \
        .open_options = file_options,                                                              \
        .open = file_open,                                                                         \
        .close = file_close,                                                                       \
        .read = file_read,                                                                         \
        .write = file_write,                                                                       \
        .zero = file_zero,                                                                         \
        .copy_range = file_copy_range,                                                             \
        .discard = file_discard,                                                                   \
        .flush = file_flush,                                                                       \
        .map = file_map,                                                                           \
        .resize = file_resize,                                                                     \
        .allocated_bytes = file_allocated_bytes,                                                   \
        .set_read_only = file_set_read_only,                                                       \
    };                                                                                             \
    IMAGE_DRIVER(id)

FILE_DRIVER(file_driver, "file", "A file of the host");
FILE_DRIVER(host_device_driver, "host_device", "A block device of the host");
