/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compressed extents: grains behind one another, each with a marker that says which one it is. In a
 * stream-optimized extent the directory and a footer stand at the end.
 *
 * Spec      "Virtual Disk Format 5.0", Stream-Optimized Compressed Sparse Extents.
 * Fiber     All of it; (de)compression on threads of the pool.
 * Trust     Markers are hostile: sizes are checked against the file, grains against what was asked
 *           for.
 * Order     Writes are put down in the order in which they arrived, while others are still being
 *           compressed. The first one cuts off directory, footer and end mark; a flush puts them
 *           back. In between, markers tell it all.
 */
#include "image/vmdk/vmdk.h"

#include "base/cursor.h"
#include "image/compress.h"

#include <errno.h>
#include <string.h>

enum { READ_GRAINS_MAX = 64, INLINE_BYTES = 16 * 1024 };

/* What a grain takes at most, with its marker; worse can only be broken. */
uint64_t vmdk_record_bytes_max(const struct vmdk_extent *e)
{
    return align_up(VMDK_MARKER_BYTES + e->grain_bytes + e->grain_bytes / 64 + 128, VMDK_SECTOR);
}

uint64_t vmdk_record_bytes(uint32_t size)
{
    return align_up(VMDK_MARKER_BYTES + (uint64_t)size, VMDK_SECTOR);
}

/* Bytes of a grain that are inside the disk. */
static uint64_t grain_valid(const struct vmdk_extent *e, uint64_t grain)
{
    return min_u64(e->grain_bytes, e->size - grain * e->grain_bytes);
}

size_t vmdk_stream_buffer_bytes(const struct vmdk_extent *e)
{
    return e->grain_bytes +
           max_u64(VMDK_CHUNK_BYTES / e->grain_bytes, 1) * vmdk_record_bytes_max(e);
}

/* What takes less than changing threads is done at once. */
static int on_a_thread(struct vmdk_extent *e, int (*fn)(void *opaque), void *job, uint64_t bytes)
{
    return bytes <= INLINE_BYTES ? fn(job)
                                 : context_offload(node_context(&e->image->node), fn, job);
}

/* ---- reading ---- */

/* Grains of one request whose records lie behind one another in one buffer. */
struct inflate_job {
    struct vmdk_extent *e; /* constants of it */
    uint64_t grain, off;   /* of the first grain; of v in the extent */
    struct vec v;
    unsigned count;
    uint32_t at[READ_GRAINS_MAX]; /* of each record in `packed` */
    uint32_t packed_bytes;
    uint8_t *packed, *flat; /* flat: one grain */
};

int vmdk_record_inflate(const struct vmdk_extent *e, uint64_t grain, const uint8_t *record,
                        size_t len, uint8_t *to)
{
    struct cur c = cur_of(record, len);
    size_t size = len;
    if (e->markers) {
        uint64_t sector = cur_le64(&c);
        size = cur_le32(&c);
        if (sector != grain * (e->grain_bytes / VMDK_SECTOR))
            return -EIO;
    }
    const uint8_t *from = cur_take(&c, size);
    if (!from)
        return -EIO;
    int r = decompress_buffer(COMPRESS_ZLIB, from, size, to, e->grain_bytes);
    uint64_t valid = grain_valid(e, grain);
    if (r == -EIO &&
        valid < e->grain_bytes) /* writers may leave out what is behind the disk's end */
        r = decompress_buffer(COMPRESS_ZLIB, from, size, to, valid);
    return r;
}

static int inflate_grains(void *opaque)
{
    struct inflate_job *j = opaque;
    uint64_t gb = j->e->grain_bytes;
    for (unsigned i = 0; i < j->count; i++) {
        uint64_t begin = max_u64((j->grain + i) * gb, j->off);
        uint64_t end = min_u64((j->grain + i + 1) * gb, j->off + j->v.len);
        int r = vmdk_record_inflate(j->e, j->grain + i, j->packed + j->at[i],
                                    j->packed_bytes - j->at[i], j->flat);
        if (r < 0)
            return r;
        vec_write(vec_slice(j->v, begin - j->off, end - begin),
                  j->flat + (begin - (j->grain + i) * gb));
    }
    return 0;
}

/* The records of as many grains as lie behind one another in the file; where they end. */
static uint64_t gather(struct inflate_job *j, const uint32_t *entries, unsigned count)
{
    uint64_t most = vmdk_record_bytes_max(j->e),
             room = j->e->image->buffer_bytes - j->e->grain_bytes;
    uint64_t first = (uint64_t)entries[0] * VMDK_SECTOR;
    j->count = 0;
    for (unsigned i = 0; i < count; i++) {
        uint64_t at = (uint64_t)entries[i] * VMDK_SECTOR;
        if (at < first || at - first + most > room || (i && entries[i] <= entries[i - 1]))
            break;
        j->at[j->count++] = (uint32_t)(at - first);
    }
    uint64_t end = first + j->at[j->count - 1] + most;
    return min_u64(end, align_up(node_size(j->e->file), VMDK_SECTOR));
}

static bool from_inflated(struct vmdk_extent *e, uint64_t grain, uint32_t entry, uint64_t off,
                          struct vec v)
{
    struct vmdk *m = e->image;
    if (!m->inflated || m->inflated_extent != e || m->inflated_grain != grain ||
        m->inflated_entry != entry)
        return false;
    vec_write(v, m->inflated + off % e->grain_bytes);
    return true;
}

/* Small reads of one grain come again: it is kept. */
static void keep_inflated(struct vmdk_extent *e, uint64_t grain, uint32_t entry,
                          const uint8_t *flat)
{
    struct vmdk *m = e->image;
    if (m->inflated && m->inflated_extent->grain_bytes != e->grain_bytes) {
        g_free(m->inflated);
        m->inflated = NULL;
    }
    if (!m->inflated)
        m->inflated = g_try_malloc(e->grain_bytes);
    if (!m->inflated)
        return;
    memcpy(m->inflated, flat, e->grain_bytes);
    m->inflated_extent = e;
    m->inflated_grain = grain;
    m->inflated_entry = entry;
}

/* Reads the head of v that one batch gives; its bytes in *ret_len. */
static int read_batch(struct vmdk_extent *e, uint64_t off, struct vec v, const uint32_t *entries,
                      unsigned count, uint64_t *ret_len)
{
    uint8_t *buffer = vmdk_buffer_get(e->image);
    if (!buffer)
        return -ENOMEM;
    uint64_t gb = e->grain_bytes;
    struct inflate_job j = {
        .e = e, .grain = off / gb, .off = off, .flat = buffer, .packed = buffer + gb};
    uint64_t first = (uint64_t)entries[0] * VMDK_SECTOR, end = gather(&j, entries, count);
    *ret_len = min_u64(v.len, j.count * gb - off % gb);
    j.v = vec_slice(v, 0, *ret_len);
    int r = -EIO;
    if (first < end) {
        uint64_t inside = min_u64(end, node_size(e->file)) - first;
        j.packed_bytes = (uint32_t)inside;
        r = node_pread(e->file, first, j.packed, inside);
        if (r >= 0)
            r = on_a_thread(e, inflate_grains, &j, j.count * gb);
    }
    if (r >= 0 && j.count == 1 && *ret_len < gb)
        keep_inflated(e, j.grain, entries[0], j.flat);
    vmdk_buffer_put(e->image, buffer);
    if (r == -EIO)
        node_corrupt(&e->image->node, false, (int64_t)first, end - first,
                     "extent %u: the compressed grain at sector %u is broken", e->index,
                     entries[0]);
    return r;
}

int vmdk_stream_read(struct vmdk_extent *e, uint64_t off, struct vec v)
{
    while (v.len) {
        uint64_t grain = off / e->grain_bytes, index = grain % e->table_entries;
        uint64_t last = (off + v.len - 1) / e->grain_bytes;
        unsigned count = (unsigned)min_u64(last - grain + 1, READ_GRAINS_MAX);
        uint32_t *t, entries[READ_GRAINS_MAX];
        int r = map_cache_get(&e->image->tables, vmdk_table_key(e, grain / e->table_entries), &t);
        if (r < 0)
            return r;
        memcpy(entries, t + index, count * sizeof(*t));
        uint64_t n = min_u64(v.len, e->grain_bytes - off % e->grain_bytes);
        if (!from_inflated(e, grain, entries[0], off, vec_slice(v, 0, n)))
            r = read_batch(e, off, v, entries, count, &n);
        if (r < 0)
            return r;
        off += n;
        v = vec_slice(v, n, v.len - n);
    }
    return 0;
}

/* ---- writing ---- */

/* Grains of one request, packed into records behind one another. */
struct deflate_job {
    const struct vmdk_extent *e;
    uint64_t grain;
    struct vec v; /* whole grains, but the disk's last one */
    unsigned count;
    uint8_t *flat, *packed;
    uint64_t room, packed_bytes;
    uint32_t size[READ_GRAINS_MAX]; /* of each record; 0: all zeroes, left out */
    bool keep_zeroes;
};

static int deflate_record(const struct vmdk_extent *e, uint64_t grain, const uint8_t *flat,
                          uint8_t *record, uint64_t room)
{
    ssize_t n = room < vmdk_record_bytes_max(e)
                    ? -ENOSPC
                    : compress_buffer(COMPRESS_ZLIB, 0, flat, e->grain_bytes,
                                      record + VMDK_MARKER_BYTES, room - VMDK_MARKER_BYTES);
    if (n < 0)
        return (int)n;
    uint64_t sector = grain * (e->grain_bytes / VMDK_SECTOR);
    uint32_t size = (uint32_t)n;
    memcpy(record, &sector, sizeof(sector));
    memcpy(record + sizeof(sector), &size, sizeof(size));
    uint64_t bytes = vmdk_record_bytes(size);
    memset(record + VMDK_MARKER_BYTES + n, 0, bytes - VMDK_MARKER_BYTES - (uint64_t)n);
    return (int)bytes;
}

static int deflate_grains(void *opaque)
{
    struct deflate_job *j = opaque;
    uint64_t gb = j->e->grain_bytes;
    for (unsigned i = 0; i < j->count; i++) {
        uint64_t n = min_u64(gb, j->v.len - i * gb);
        vec_read(vec_slice(j->v, i * gb, n), j->flat);
        memset(j->flat + n, 0, gb - n);
        j->size[i] = 0;
        if (!j->keep_zeroes && bytes_are_zero(j->flat, gb))
            continue;
        int r = deflate_record(j->e, j->grain + i, j->flat, j->packed + j->packed_bytes,
                               j->room - j->packed_bytes);
        if (r < 0)
            return r;
        j->size[i] = (uint32_t)r;
        j->packed_bytes += (uint64_t)r;
    }
    return 0;
}

static int put_down(struct vmdk_extent *e, const struct deflate_job *j)
{
    uint64_t at = 0;
    fiber_mutex_lock(&e->grow_lock);
    int r = e->at_end && (e->finished || e->cut) ? vmdk_stream_reopen(e) : 0;
    if (r >= 0 && j->packed_bytes)
        r = vmdk_stream_append(e, j->packed, j->packed_bytes, &at);
    for (unsigned i = 0; r >= 0 && i < j->count; i++) {
        if (j->size[i])
            r = vmdk_set_entries(e, j->grain + i, 1, (uint32_t)(at / VMDK_SECTOR), 0);
        at += j->size[i];
    }
    fiber_mutex_unlock(&e->grow_lock);
    return r;
}

static void wait_turn(struct vmdk_extent *e, uint64_t ticket)
{
    while (e->ticket_now != ticket)
        fiber_queue_wait(&e->ticket_waiters);
}

/* Zeroes may be left out where nothing else shows. */
static int may_skip_zeroes(struct vmdk_extent *e, uint64_t off, uint64_t len)
{
    struct vmdk_run run = {.state = VMDK_RUN_UNALLOCATED};
    for (uint64_t at = 0; at < len; at += run.len) {
        int r = vmdk_lookup(e, off + at, len - at, &run);
        if (r < 0)
            return r;
        if (run.state == VMDK_RUN_COMPRESSED ||
            (run.state == VMDK_RUN_UNALLOCATED && vmdk_has_backing(e->image)))
            return 0;
    }
    return 1;
}

/* Whole grains, from v's head: compressed at once, written when it is our turn. */
static int write_whole(struct vmdk_extent *e, uint64_t off, struct vec v, uint64_t ticket,
                       uint8_t *buffer, uint64_t *ret_len)
{
    uint64_t gb = e->grain_bytes, room = e->image->buffer_bytes - gb;
    uint64_t most = min_u64(room / vmdk_record_bytes_max(e), READ_GRAINS_MAX) * gb;
    *ret_len = min_u64(v.len, most);
    struct deflate_job j = {
        .e = e,
        .grain = off / gb,
        .v = vec_slice(v, 0, *ret_len),
        .count = (unsigned)((*ret_len + gb - 1) / gb),
        .flat = buffer,
        .packed = buffer + gb,
        .room = room,
    };
    int skip = may_skip_zeroes(e, off, *ret_len);
    j.keep_zeroes = skip == 0;
    int r = skip < 0 ? skip : on_a_thread(e, deflate_grains, &j, *ret_len);
    wait_turn(e, ticket);
    return r < 0 ? r : put_down(e, &j);
}

/* Part of one grain: read, changed and written anew, in our turn. */
static int write_part(struct vmdk_extent *e, uint64_t off, struct vec v, uint64_t ticket,
                      uint8_t *buffer)
{
    uint64_t gb = e->grain_bytes, begin = off / gb * gb, valid = grain_valid(e, off / gb), len;
    g_autofree uint8_t *whole = g_try_malloc(gb);
    wait_turn(e, ticket);
    if (!whole)
        return -ENOMEM;
    struct iovec iov;
    struct vec flat = vec_flat(&iov, whole, valid);
    int r = vmdk_sparse_read(e, begin, flat);
    if (r < 0)
        return r;
    vec_read(v, whole + (off - begin));
    return write_whole(e, begin, flat, ticket, buffer, &len);
}

int vmdk_stream_write(struct vmdk_extent *e, uint64_t off, struct vec v)
{
    uint64_t ticket = e->ticket_next++, gb = e->grain_bytes;
    uint8_t *buffer = vmdk_buffer_get(e->image);
    int r = buffer ? 0 : -ENOMEM;
    while (r >= 0 && v.len) {
        uint64_t n = min_u64(gb - off % gb, v.len);
        if (n == grain_valid(e, off / gb)) {
            uint64_t end = off + v.len;
            uint64_t whole = end == e->size ? v.len : align_down(v.len, gb);
            r = write_whole(e, off, vec_slice(v, 0, whole), ticket, buffer, &n);
        } else {
            r = write_part(e, off, vec_slice(v, 0, n), ticket, buffer);
        }
        off += n;
        v = vec_slice(v, n, v.len - n);
    }
    wait_turn(e, ticket);
    e->ticket_now++;
    fiber_queue_wake_all(&e->ticket_waiters);
    if (buffer)
        vmdk_buffer_put(e->image, buffer);
    return r;
}
