/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The filter "blklogwrites": passes everything on to "file", and writes down on "log" what was
 * changed, so that any moment of it can be replayed.
 *
 * Spec      The log of the kernel's dm-log-writes target
 * (Documentation/admin-guide/device-mapper/log-writes.rst), version 1, little-endian. In sectors of
 * log-sector-size: the head of the log, then entry after entry, each its own head, filled up to a
 * sector, and its data: head   u64 magic, version, number of entries; u32 bytes of a sector entry
 * u64 first sector, sectors, flags, bytes of data behind it in a mark Fiber     Everything. An
 * entry is written when what it tells has happened; so a flush comes after all writes that it made
 * durable. The log's lock keeps entries in one row. Trust     An appended log was ours once; its
 * entries are walked within its size. Errors    Requests fail when the log does.
 */
#include "image/driver.h"

#include "base/cursor.h"

#include <endian.h>
#include <errno.h>

#define LOG_MAGIC   0x6a736677736872ULL
#define LOG_VERSION 1
#define ENTRY_BYTES 32
enum log_flags { LOG_FLUSH = 1, LOG_FUA = 2, LOG_DISCARD = 4 };

struct logwrites {
    struct node node;
    uint64_t sector_bytes;    /* "log-sector-size" */
    uint64_t update_interval; /* entries between two updates of the head */
    bool append;
    struct node *log;        /* our child */
    struct fiber_mutex lock; /* what follows, and the order of entries */
    uint64_t next_sector, entry_count;
    uint8_t *sector; /* one, for heads */
};

static const struct image_option open_options[] = {
    OPT_SIZE("log-sector-size", struct logwrites, sector_bytes, 512, 512, 8 * MIB,
             "Unit of the log"),
    OPT_BOOL("log-append", struct logwrites, append, false, "Go on with the log that is there"),
    OPT_U64("log-super-update-interval", struct logwrites, update_interval, 4096, 1, 0,
            "Entries between two updates of the log's head"),
    {0},
};

static int write_head(struct logwrites *l)
{
    uint64_t head[] = {htole64(LOG_MAGIC), htole64(LOG_VERSION), htole64(l->entry_count),
                       htole64(l->sector_bytes)};
    memset(l->sector, 0, l->sector_bytes);
    memcpy(l->sector, head, sizeof(head));
    int err = node_pwrite(l->log, 0, l->sector, l->sector_bytes, 0);
    return err ? err : node_flush(l->log);
}

/* One entry; data: what was written, or NULL: sectors of zeroes for a write, nothing else
 * otherwise. */
static int append_entry(struct logwrites *l, uint64_t off, uint64_t len, unsigned flags,
                        const struct vec *data)
{
    uint64_t entry[] = {htole64(off / l->sector_bytes), htole64(len / l->sector_bytes),
                        htole64(flags), 0};
    fiber_mutex_lock(&l->lock);
    memset(l->sector, 0, l->sector_bytes);
    memcpy(l->sector, entry, sizeof(entry));
    uint64_t at = l->next_sector * l->sector_bytes;
    int err = node_pwrite(l->log, at, l->sector, l->sector_bytes, 0);
    at += l->sector_bytes;
    if (!err && data)
        err = node_write(l->log, at, *data, 0);
    else if (!err && !(flags & LOG_DISCARD))
        err = node_zero(l->log, at, len, 0);
    if (!err) {
        l->next_sector += 1 + (flags & LOG_DISCARD ? 0 : len / l->sector_bytes);
        l->entry_count++;
        if (flags & LOG_FLUSH || l->entry_count % l->update_interval == 0)
            err = write_head(l);
    }
    fiber_mutex_unlock(&l->lock);
    return err;
}

/* Walks the log that is there, to its end. */
static bool find_end(struct logwrites *l, GError **error)
{
    uint8_t head[ENTRY_BYTES];
    int err = node_pread(l->log, 0, head, sizeof(head));
    struct cur c = cur_of(head, sizeof(head));
    uint64_t magic = cur_le64(&c), version = cur_le64(&c), count = cur_le64(&c),
             sector = cur_le32(&c);
    if (err)
        return ruche_error_errno(error, -err, "'%s': cannot read the log", node_filename(l->log));
    if (magic != LOG_MAGIC || version != LOG_VERSION || sector != l->sector_bytes)
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "'%s' is not a log of writes, version 1, with sectors of %" G_GUINT64_FORMAT " bytes",
            node_filename(l->log), l->sector_bytes);
    uint64_t sectors = node_size(l->log) / l->sector_bytes;
    for (l->entry_count = 0; l->entry_count < count; l->entry_count++) {
        if (l->next_sector >= sectors)
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "'%s': the log ends before its entry %" G_GUINT64_FORMAT
                               " of %" G_GUINT64_FORMAT,
                               node_filename(l->log), l->entry_count, count);
        err = node_pread(l->log, l->next_sector * l->sector_bytes, head, sizeof(head));
        if (err)
            return ruche_error_errno(error, -err, "'%s': cannot read the log",
                                     node_filename(l->log));
        c = cur_of(head, sizeof(head));
        cur_le64(&c);
        uint64_t data = cur_le64(&c), flags = cur_le64(&c);
        l->next_sector += 1 + (flags & LOG_DISCARD ? 0 : min_u64(data, sectors));
    }
    return true;
}

static bool logwrites_open(struct node *n, GError **error)
{
    struct logwrites *l = (struct logwrites *)n;
    struct node *file = node_file(n);
    if (l->sector_bytes & (l->sector_bytes - 1))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "blklogwrites: log-sector-size=%" G_GUINT64_FORMAT
                           " is not a power of two",
                           l->sector_bytes);
    l->log = node_open_child(n, "log", CHILD_OTHER, true, error);
    if (!l->log)
        return false;
    l->sector = g_malloc(l->sector_bytes);
    l->next_sector = 1;
    n->size_bytes = node_size(file);
    n->grows = file->grows;
    n->request_align = (uint32_t)l->sector_bytes;
    n->write_flags = NODE_FUA;
    n->zero_flags = NODE_FUA | NODE_MAY_UNMAP | NODE_NO_FALLBACK;
    n->zero_init = file->zero_init;
    n->cluster_bytes = file->cluster_bytes;
    n->block_bytes = file->block_bytes;
    if (l->append)
        return find_end(l, error);
    int err = write_head(l);
    return !err ||
           ruche_error_errno(error, -err, "'%s': cannot write the log", node_filename(l->log));
}

static void logwrites_close(struct node *n)
{
    struct logwrites *l = (struct logwrites *)n;
    if (l->log && l->sector && !n->read_only)
        write_head(l);
    g_free(l->sector);
}

static int logwrites_read(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    return node_read(node_file(n), off, v, flags);
}

static int logwrites_write(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    int err = node_write(node_file(n), off, v, flags);
    unsigned log_flags = flags & NODE_FUA ? LOG_FUA : 0;
    return err ? err : append_entry((struct logwrites *)n, off, v.len, log_flags, &v);
}

static int logwrites_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags)
{
    int err = node_zero(node_file(n), off, len, flags);
    unsigned log_flags = flags & NODE_FUA ? LOG_FUA : 0;
    return err ? err : append_entry((struct logwrites *)n, off, len, log_flags, NULL);
}

static int logwrites_discard(struct node *n, uint64_t off, uint64_t len)
{
    int err = node_discard(node_file(n), off, len);
    return err ? err : append_entry((struct logwrites *)n, off, len, LOG_DISCARD, NULL);
}

static int logwrites_flush(struct node *n)
{
    int err = node_flush(node_file(n));
    return err ? err : append_entry((struct logwrites *)n, 0, 0, LOG_FLUSH, NULL);
}

static bool logwrites_resize(struct node *n, uint64_t size, enum image_prealloc p, GError **error)
{
    if (!node_resize(node_file(n), size, p, error))
        return false;
    n->size_bytes = node_size(node_file(n));
    return true;
}

static const struct image_driver logwrites_driver = {
    .name = "blklogwrites",
    .summary = "Writes down every change, in dm-log-writes' format",
    .spec = "Linux, Documentation/admin-guide/device-mapper/log-writes.rst",
    .kind = DRIVER_FILTER,
    .size = sizeof(struct logwrites),
    .open_options = open_options,
    .open = logwrites_open,
    .close = logwrites_close,
    .read = logwrites_read,
    .write = logwrites_write,
    .zero = logwrites_zero,
    .discard = logwrites_discard,
    .flush = logwrites_flush,
    .resize = logwrites_resize,
};
IMAGE_DRIVER(logwrites_driver);
