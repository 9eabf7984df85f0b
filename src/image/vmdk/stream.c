/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compressed extents: grains behind one another, each with a marker that says which one it is. In a
 * stream-optimized extent the directory and a footer stand at the end.
 *
 * Spec      "Virtual Disk Format 5.0", Stream-Optimized Compressed Sparse Extents.
 * Fiber     All of it; (de)compression on threads of the pool.
 * Trust     Markers are hostile: sizes are checked against the file, grains against what was asked
 * for. Order     Writes are put down in the order in which they arrived, while others are still
 * being compressed. The first one cuts off directory, footer and end mark; a flush puts them back.
 * In between, markers tell it all.
 */
#include "image/vmdk/vmdk.h"

#include "base/cursor.h"
#include "image/compress.h"

#include <errno.h>
#include <string.h>

enum { MARKER_BYTES = 12, READ_GRAINS_MAX = 64, FOOTER_SECTORS = 3, INLINE_BYTES = 16 * 1024 };

/* What a grain takes at most, with its marker; worse can only be broken. */
static uint64_t record_bytes_max(const struct vmdk_extent *e)
{
    return align_up(MARKER_BYTES + e->grain_bytes + e->grain_bytes / 64 + 128, VMDK_SECTOR);
}

static uint64_t record_bytes(uint32_t size)
{
    return align_up(MARKER_BYTES + (uint64_t)size, VMDK_SECTOR);
}

/* Bytes of a grain that are inside the disk. */
static uint64_t grain_valid(const struct vmdk_extent *e, uint64_t grain)
{
    return min_u64(e->grain_bytes, e->size - grain * e->grain_bytes);
}

size_t vmdk_stream_buffer_bytes(const struct vmdk_extent *e)
{
    return e->grain_bytes + max_u64(VMDK_CHUNK_BYTES / e->grain_bytes, 1) * record_bytes_max(e);
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

static int inflate_record(const struct vmdk_extent *e, uint64_t grain, const uint8_t *record,
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
        int r = inflate_record(j->e, j->grain + i, j->packed + j->at[i], j->packed_bytes - j->at[i],
                               j->flat);
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
    uint64_t most = record_bytes_max(j->e), room = j->e->image->buffer_bytes - j->e->grain_bytes;
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
    ssize_t n = room < record_bytes_max(e)
                    ? -ENOSPC
                    : compress_buffer(COMPRESS_ZLIB, 0, flat, e->grain_bytes, record + MARKER_BYTES,
                                      room - MARKER_BYTES);
    if (n < 0)
        return (int)n;
    uint64_t sector = grain * (e->grain_bytes / VMDK_SECTOR);
    uint32_t size = (uint32_t)n;
    memcpy(record, &sector, sizeof(sector));
    memcpy(record + sizeof(sector), &size, sizeof(size));
    uint64_t bytes = record_bytes(size);
    memset(record + MARKER_BYTES + n, 0, bytes - MARKER_BYTES - (uint64_t)n);
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

/* Cuts off what finish() wrote; grow_lock is held. The cut is durable before anything new stands
 * there. */
static int reopen_stream(struct vmdk_extent *e)
{
    uint64_t size = align_down(node_size(e->file), VMDK_SECTOR);
    uint64_t footer = size - FOOTER_SECTORS * VMDK_SECTOR;
    uint64_t directory = align_up((uint64_t)e->directory_count * sizeof(uint32_t), VMDK_SECTOR);
    bool in_front =
        e->directory_offset + directory == footer && e->directory_offset > e->data_begin;
    uint64_t end = in_front ? e->directory_offset - VMDK_SECTOR : footer;
    g_autoptr(GError) error = NULL;
    if (e->finished && !node_resize(e->file, end, PREALLOC_OFF, &error)) {
        g_message("%s: cannot cut off the footer: %s", e->filename, error->message);
        return -EIO;
    }
    if (e->finished) {
        e->end = end;
        e->finished = false;
        e->cut = true;
    }
    int r = node_flush(e->file);
    e->cut = r < 0;
    return r;
}

/* Puts records behind the end. The position is taken before the write, since tables are put there
 * meanwhile. */
static int append(struct vmdk_extent *e, const void *bytes, uint64_t len, uint64_t *ret_at)
{
    uint64_t at = e->end;
    if ((at + len) / VMDK_SECTOR > UINT32_MAX)
        return -EFBIG;
    if (e->broken)
        return -EIO;
    e->end += len;
    int r = node_pwrite(e->file, at, bytes, len, 0);
    if (r < 0 && e->end == at + len)
        e->end = at;
    else if (r < 0)
        e->broken = true;
    *ret_at = at;
    return r;
}

static int put_down(struct vmdk_extent *e, const struct deflate_job *j)
{
    uint64_t at = 0;
    fiber_mutex_lock(&e->grow_lock);
    int r = e->at_end && (e->finished || e->cut) ? reopen_stream(e) : 0;
    if (r >= 0 && j->packed_bytes)
        r = append(e, j->packed, j->packed_bytes, &at);
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
    uint64_t most = min_u64(room / record_bytes_max(e), READ_GRAINS_MAX) * gb;
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

/* ---- the end of a stream ---- */

static void put_marker(uint8_t *sector, uint64_t sectors, enum vmdk_marker type)
{
    uint32_t word = type;
    memset(sector, 0, VMDK_SECTOR);
    memcpy(sector, &sectors, sizeof(sectors));
    memcpy(sector + MARKER_BYTES, &word, sizeof(word));
}

int vmdk_stream_store_table(struct vmdk_extent *e, uint32_t index, const uint32_t *entries)
{
    uint64_t bytes = align_up(e->table_entries * sizeof(uint32_t), VMDK_SECTOR), at;
    g_autofree uint8_t *record = g_try_malloc0(VMDK_SECTOR + bytes);
    if (!record)
        return -ENOMEM;
    put_marker(record, bytes / VMDK_SECTOR, VMDK_MARKER_GT);
    memcpy(record + VMDK_SECTOR, entries, e->table_entries * sizeof(uint32_t));
    int r = append(e, record, VMDK_SECTOR + bytes, &at);
    if (r >= 0)
        e->directory[index] = (uint32_t)(at / VMDK_SECTOR) + 1;
    return r;
}

uint8_t *vmdk_stream_tail(const struct vmdk_extent *e, uint64_t *ret_len)
{
    uint64_t count_bytes = (uint64_t)e->directory_count * sizeof(uint32_t);
    uint64_t bytes = align_up(count_bytes, VMDK_SECTOR);
    struct vmdk_header h = {
        .version = e->version,
        .flags = e->flags,
        .capacity = e->capacity_sectors,
        .grain_sectors = e->grain_bytes / VMDK_SECTOR,
        .desc_offset = e->descriptor_offset / VMDK_SECTOR,
        .desc_sectors = e->descriptor_bytes / VMDK_SECTOR,
        .table_entries = e->table_entries,
        .directory_offset = e->end / VMDK_SECTOR + 1,
        .overhead = e->data_begin / VMDK_SECTOR,
        .compression = 1,
    };
    *ret_len = bytes + (1 + FOOTER_SECTORS) * VMDK_SECTOR;
    uint8_t *tail = g_try_malloc0(*ret_len);
    if (!tail)
        return NULL;
    put_marker(tail, bytes / VMDK_SECTOR, VMDK_MARKER_GD);
    memcpy(tail + VMDK_SECTOR, e->directory, count_bytes);
    put_marker(tail + VMDK_SECTOR + bytes, 1, VMDK_MARKER_FOOTER);
    vmdk_header_build(&h, tail + 2 * VMDK_SECTOR + bytes);
    return tail;
}

/* Everything that the footer refers to is durable before the footer is written. */
static int write_tail(struct vmdk_extent *e)
{
    uint64_t len, at = e->end, footer = FOOTER_SECTORS * VMDK_SECTOR;
    g_autofree uint8_t *tail = vmdk_stream_tail(e, &len);
    int r = tail ? append(e, tail, len - footer, &at) : -ENOMEM;
    if (r >= 0)
        r = node_flush(e->file);
    if (r >= 0)
        r = append(e, tail + len - footer, footer, &(uint64_t){0});
    g_autoptr(GError) error = NULL;
    if (r >= 0 && node_size(e->file) > e->end &&
        !node_resize(e->file, e->end, PREALLOC_OFF, &error)) {
        g_message("%s: cannot cut off what is behind the end mark: %s", e->filename,
                  error->message);
        r = -EIO;
    }
    if (r < 0)
        e->end = at;
    e->directory_offset = r < 0 ? 0 : at + VMDK_SECTOR;
    e->finished = r >= 0;
    return r;
}

int vmdk_stream_finish(struct vmdk_extent *e)
{
    fiber_mutex_lock(&e->grow_lock);
    int r = 0;
    if (!e->finished) {
        r = map_cache_flush(&e->image->tables);
        if (r >= 0)
            r = write_tail(e);
    }
    fiber_mutex_unlock(&e->grow_lock);
    return r;
}

/* ---- recovery ---- */

struct record {
    uint64_t value;
    uint32_t size, type;
};

/* A grain is taken when it is whole and inflates. */
static int recover_grain(struct vmdk_extent *e, uint64_t at, const struct record *m,
                         uint8_t *buffer)
{
    uint64_t sectors = e->grain_bytes / VMDK_SECTOR, bytes = record_bytes(m->size);
    uint64_t grain = m->value / sectors;
    if (m->value % sectors || grain >= e->grain_count || bytes > record_bytes_max(e) ||
        !range_fits(at, bytes, node_size(e->file)))
        return 0;
    struct iovec iov;
    struct inflate_job j = {.e = e,
                            .grain = grain,
                            .off = grain * e->grain_bytes,
                            .v = vec_flat(&iov, NULL, 0),
                            .count = 1,
                            .flat = buffer,
                            .packed = buffer + e->grain_bytes,
                            .packed_bytes = (uint32_t)bytes};
    int r = node_pread(e->file, at, j.packed, bytes);
    if (r < 0)
        return r;
    r = inflate_record(e, grain, j.packed, bytes, j.flat);
    if (r >= 0)
        r = vmdk_set_entries(e, grain, 1, (uint32_t)(at / VMDK_SECTOR), 0);
    return r == -EIO ? 0 : r < 0 ? r : 1;
}

static int recover(struct vmdk_extent *e, uint8_t *buffer)
{
    uint64_t at = e->data_begin, size = node_size(e->file);
    int r = 1;
    while (r > 0 && range_fits(at, VMDK_SECTOR, size) && at / VMDK_SECTOR <= UINT32_MAX) {
        uint8_t sector[16];
        r = node_pread(e->file, at, sector, sizeof(sector));
        struct cur c = cur_of(sector, sizeof(sector));
        struct record m = {.value = cur_le64(&c)};
        m.size = cur_le32(&c);
        m.type = cur_le32(&c);
        uint64_t table = align_up(e->table_entries * sizeof(uint32_t), VMDK_SECTOR);
        if (r >= 0 && m.size)
            r = recover_grain(e, at, &m, buffer);
        else if (r >= 0)
            r = m.type == VMDK_MARKER_GT && m.value == table / VMDK_SECTOR;
        if (r > 0)
            at += m.size ? record_bytes(m.size) : VMDK_SECTOR + table;
    }
    e->end = at;
    return r;
}

bool vmdk_stream_recover(struct vmdk_extent *e, GError **error)
{
    uint8_t *buffer = vmdk_buffer_get(e->image);
    int r = buffer ? recover(e, buffer) : -ENOMEM;
    if (buffer)
        vmdk_buffer_put(e->image, buffer);
    return r >= 0 ||
           ruche_error_errno(error, -r, "%s: cannot read the grains by their markers", e->filename);
}
