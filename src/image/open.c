/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Opening the file or block device behind a raw image: checks, geometry, alignment of direct I/O.
 *
 * Spec      open(2), statx(2), Linux block device ioctls.
 * Thread    Main thread.
 * Trust     The file's kind, size and first bytes are checked; a known format is never taken for a
 *           raw disk.
 * Errors    A sentence that names the file.
 */
#include "image/internal.h"

#include "base/fd.h"
#include "base/units.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x2000U
#endif

static const struct {
    const char *format, *magic;
    unsigned offset, len;
} known_formats[] = {
    { "qcow2", "QFI\xfb", 0, 4 },           { "vmdk", "KDMV", 0, 4 },
    { "vhdx", "vhdxfile", 0, 8 },           { "qed", "QED\0", 0, 4 },
    { "vdi", "\x7f\x10\xda\xbe", 0x40, 4 }, { "vpc", "conectix", 0, 8 },
    { "luks", "LUKS\xba\xbe", 0, 6 },
};

static int open_descriptor(const struct image_options *o, const char *name, bool *read_only,
                           GError **error)
{
    if (o->fd >= 0) {
        int flags = fcntl(o->fd, F_GETFL);
        int fd = flags < 0 ? -1 : fcntl(o->fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0) {
            ruche_error_errno(error, errno, "image '%s': descriptor %d cannot be used", name,
                              o->fd);
            return -1;
        }
        if (!*read_only && (flags & O_ACCMODE) == O_RDONLY) {
            if (!o->auto_read_only) {
                close(fd);
                ruche_error(error, RUCHE_ERR_INVALID,
                            "image '%s': descriptor %d was opened read-only; add read-only=on",
                            name, o->fd);
                return -1;
            }
            *read_only = true;
        }
        if (o->direct && fcntl(fd, F_SETFL, flags | O_DIRECT) < 0) {
            ruche_error_errno(error, errno, "image '%s': cache.direct=on is not possible", name);
            close(fd);
            return -1;
        }
        return fd;
    }
    int flags = O_CLOEXEC | O_NOCTTY | (o->direct ? O_DIRECT : 0);
    int fd = open(name, flags | (*read_only ? O_RDONLY : O_RDWR));
    if (fd < 0 && !*read_only && o->auto_read_only &&
        (errno == EACCES || errno == EROFS || errno == EPERM)) {
        *read_only = true;
        fd = open(name, flags | O_RDONLY);
    }
    if (fd >= 0)
        return fd;
    int err = errno;
    if (err == ENOENT)
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "image '%s' does not exist", name);
    else if (err == EISDIR)
        ruche_error(error, RUCHE_ERR_INVALID, "image '%s' is a directory", name);
    else if (err == EINVAL && o->direct)
        ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                    "image '%s': its file system has no direct I/O; use cache=writeback", name);
    else
        ruche_error_errno(error, err, "image '%s' cannot be opened for %s", name,
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

static bool block_device_geometry(struct image *i, const struct stat *st, GError **error)
{
    uint64_t size = 0;
    int logical = 512;
    unsigned physical = 512;
    if (ioctl(i->fd, BLKGETSIZE64, &size) < 0)
        return ruche_error_errno(error, errno, "image '%s': the device's size cannot be read",
                                 i->filename);
    if (ioctl(i->fd, BLKSSZGET, &logical) == 0 && logical >= 512 && logical <= 4096)
        i->info.block_bytes = logical;
    if (ioctl(i->fd, BLKPBSZGET, &physical) == 0 && physical >= 512 && physical <= 65536)
        i->info.physical_block_bytes = physical;
    i->info.size_bytes = size;
    i->block_device = true;
    i->info.discard_granularity = sysfs_queue_number(st->st_rdev, "discard_granularity");
    return true;
}

/* What memory and offset alignment O_DIRECT wants. */
static void direct_alignment(struct image *i)
{
    struct statx sx = { 0 };
    i->mem_align = i->offset_align = 512;
    if (statx(i->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 &&
        (sx.stx_mask & STATX_DIOALIGN)) {
        /* Two 32-bit fields right behind stx_mnt_id, which older headers lack. */
        uint32_t align[2];
        memcpy(align, (const char *)&sx + 0x98, sizeof(align));
        if (is_power_of_2(align[0]) && is_power_of_2(align[1]) && align[1] <= 4096) {
            i->mem_align = align[0];
            i->offset_align = align[1];
            return;
        }
    }
    static uint8_t page[8192] __attribute__((aligned(4096)));
    if (pread(i->fd, page + 512, 512, 0) < 0)
        i->mem_align = i->offset_align = 4096;
}

static bool geometry(struct image *i, GError **error)
{
    struct stat st;
    const char *name = i->filename;
    if (fstat(i->fd, &st) < 0)
        return ruche_error_errno(error, errno, "image '%s' cannot be examined", name);
    i->info.block_bytes = 512;
    i->info.physical_block_bytes = 512;
    i->mem_align = i->offset_align = 1;
    if (S_ISDIR(st.st_mode))
        return ruche_error(error, RUCHE_ERR_INVALID, "image '%s' is a directory", name);
    if (S_ISBLK(st.st_mode)) {
        if (!block_device_geometry(i, &st, error))
            return false;
    } else if (S_ISREG(st.st_mode)) {
        i->info.size_bytes = st.st_size;
        i->info.discard_granularity = st.st_blksize;
    } else {
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "image '%s' is neither a file nor a block device", name);
    }
    if (!i->info.size_bytes)
        return ruche_error(error, RUCHE_ERR_INVALID, "image '%s' is empty", name);
    if (i->direct) {
        direct_alignment(i);
        if (i->offset_align > i->info.block_bytes)
            i->info.block_bytes = i->offset_align;
    }
    if (i->info.physical_block_bytes < i->info.block_bytes)
        i->info.physical_block_bytes = i->info.block_bytes;
    if (!is_power_of_2(i->info.discard_granularity) ||
        i->info.discard_granularity < i->info.block_bytes)
        i->info.discard_granularity = i->info.block_bytes;
    if (i->info.size_bytes > (uint64_t)INT64_MAX - i->info.block_bytes)
        return ruche_error(error, RUCHE_ERR_INVALID, "image '%s' is larger than 8 EiB", name);
    /* The last block of a file may be cut: its rest reads as zeroes. */
    i->info.size_bytes = align_up(i->info.size_bytes, i->info.block_bytes);
    return true;
}

static bool refuse_known_formats(struct image *i, GError **error)
{
    static uint8_t head[4096] __attribute__((aligned(4096)));
    ssize_t n = pread(i->fd, head, sizeof(head), 0);
    if (n < 0)
        return ruche_error_errno(error, errno, "image '%s' cannot be read", i->filename);
    for (size_t k = 0; k < ARRAY_COUNT(known_formats); k++) {
        if (known_formats[k].offset + known_formats[k].len <= (size_t)n &&
            !memcmp(head + known_formats[k].offset, known_formats[k].magic, known_formats[k].len))
            return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                               "image '%s' is in format %s, and only raw is known; convert it, or "
                               "say format=raw to "
                               "show its bytes to the guest as they are",
                               i->filename, known_formats[k].format);
    }
    return true;
}

int image_file_open(struct image *i, const struct image_options *o, GError **error)
{
    bool read_only = o->read_only;
    i->fd = open_descriptor(o, i->filename, &read_only, error);
    if (i->fd < 0)
        return -1;
    i->info.read_only = read_only;
    if (!geometry(i, error) || (!o->format && !refuse_known_formats(i, error)))
        return -1;
    if (o->locking && !image_lock(i->fd, i->filename, !read_only, o->force_share, error))
        return -1;
    i->can_punch = i->can_zero_range = true;
    i->info.can_discard = o->discard && !read_only;
    i->info.can_write_zeroes = !read_only;
    return 0;
}
