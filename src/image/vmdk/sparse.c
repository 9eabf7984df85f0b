/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sparse extents: looking up grains, reading, and giving out new grains.
 *
 * Spec      "Virtual Disk Format 5.0", Hosted Sparse Extents.
 * Fiber     All of it.
 * Trust     Grain table entries are checked before use: inside the file, and not over the metadata
 *           when written.
 * Order     See vmdk.h. Two writes into one new grain: the second waits for the first (struct
 *           vmdk_allocation).
 */
#include "image/vmdk/vmdk.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static enum vmdk_state state_of(const struct vmdk_extent *e, uint32_t entry)
{
    if (entry == VMDK_GTE_UNALLOCATED)
        return VMDK_RUN_UNALLOCATED;
    if (entry == VMDK_GTE_ZERO && e->zero_grains)
        return VMDK_RUN_ZERO;
    return e->compressed ? VMDK_RUN_COMPRESSED : VMDK_RUN_DATA;
}

/* How many of the `count` entries at `t` go on as the first one does. */
static uint64_t run_length(const struct vmdk_extent *e, const uint32_t *t, uint64_t count)
{
    enum vmdk_state state = state_of(e, t[0]);
    uint32_t step = state == VMDK_RUN_DATA ? (uint32_t)(e->grain_bytes / VMDK_SECTOR) : 0;
    uint64_t n = 1;
    if (state == VMDK_RUN_COMPRESSED)
        while (n < count && state_of(e, t[n]) == state)
            n++;
    else
        while (n < count && t[n] == (uint32_t)(t[0] + n * step))
            n++;
    return n;
}

int vmdk_lookup(struct vmdk_extent *e, uint64_t off, uint64_t len, struct vmdk_run *ret)
{
    uint64_t grain = off / e->grain_bytes, inside = off % e->grain_bytes;
    uint64_t table = grain / e->table_entries, index = grain % e->table_entries;
    uint32_t *t;
    int r = map_cache_get(&e->image->tables, vmdk_table_key(e, table), &t);
    if (r < 0)
        return r;
    uint64_t count =
        min_u64((inside + len + e->grain_bytes - 1) / e->grain_bytes, e->table_entries - index);
    uint64_t n = run_length(e, t + index, count);
    ret->state = state_of(e, t[index]);
    ret->len = min_u64(len, n * e->grain_bytes - inside);
    ret->host = (uint64_t)t[index] * VMDK_SECTOR + (ret->state == VMDK_RUN_DATA ? inside : 0);
    return 0;
}

/* A table for grains that have none yet, zeroed on disk before the directories refer to it. */
static int make_table(struct vmdk_extent *e, uint64_t table)
{
    uint32_t bytes = (uint32_t)align_up(e->table_entries * sizeof(uint32_t), VMDK_SECTOR);
    uint64_t at = e->end, room = align_up(2 * bytes, e->compressed ? VMDK_SECTOR : e->grain_bytes);
    g_autofree uint8_t *zeroes = g_try_malloc0(2 * bytes);
    if (!zeroes)
        return -ENOMEM;
    if ((at + room) / VMDK_SECTOR > UINT32_MAX)
        return -EFBIG;
    e->end += room;
    int r = node_pwrite(e->file, at, zeroes, 2 * bytes, 0);
    if (r >= 0)
        r = node_flush(e->file);
    uint32_t first = (uint32_t)(at / VMDK_SECTOR), second = first + bytes / VMDK_SECTOR;
    uint64_t slot = table * sizeof(uint32_t);
    if (r >= 0 && e->redundant) {
        r = node_pwrite(e->file, e->redundant_offset + slot, &second, sizeof(second), 0);
        e->redundant[table] = r >= 0 ? second : 0;
    }
    if (r >= 0)
        r = node_pwrite(e->file, e->directory_offset + slot, &first, sizeof(first), 0);
    if (r >= 0)
        e->directory[table] = first;
    return r;
}

static int need_table(struct vmdk_extent *e, uint64_t table)
{
    if (e->directory[table] || e->at_end)
        return 0;
    fiber_mutex_lock(&e->grow_lock);
    int r = e->directory[table] ? 0 : make_table(e, table);
    fiber_mutex_unlock(&e->grow_lock);
    return r;
}

int vmdk_set_entries(struct vmdk_extent *e, uint64_t grain, uint64_t count, uint32_t first,
                     uint32_t step)
{
    uint64_t table = grain / e->table_entries, index = grain % e->table_entries;
    uint64_t key = vmdk_table_key(e, table);
    uint32_t *t;
    int r = need_table(e, table);
    if (r >= 0)
        r = map_cache_get(&e->image->tables, key, &t);
    if (r < 0)
        return r;
    for (uint64_t i = 0; i < count; i++)
        t[index + i] = first + (uint32_t)i * step;
    map_cache_changed(&e->image->tables, key);
    return 0;
}

/* ---- reading ---- */

/* The run's first grain must begin inside the file; the last one may be cut short. */
static int read_data(struct vmdk_extent *e, uint64_t off, uint64_t host, struct vec v)
{
    uint64_t size = node_size(e->file);
    if (host - off % e->grain_bytes >= size)
        return node_corrupt(&e->image->node, false, (int64_t)host, v.len,
                            "extent %u: a grain at %" PRIu64
                            " lies behind the end of the file, %" PRIu64,
                            e->index, host, size);
    uint64_t n = host < size ? min_u64(v.len, size - host) : 0;
    vec_fill(vec_slice(v, n, v.len - n), 0);
    return n ? node_read(e->file, host, vec_slice(v, 0, n), 0) : 0;
}

int vmdk_sparse_read(struct vmdk_extent *e, uint64_t off, struct vec v)
{
    while (v.len) {
        struct vmdk_run run;
        int r = vmdk_lookup(e, off, v.len, &run);
        if (r < 0)
            return r;
        struct vec part = vec_slice(v, 0, run.len);
        if (run.state == VMDK_RUN_DATA)
            r = read_data(e, off, run.host, part);
        else if (run.state == VMDK_RUN_COMPRESSED)
            r = vmdk_stream_read(e, off, part);
        else if (run.state == VMDK_RUN_UNALLOCATED)
            r = vmdk_read_backing(e->image, e->begin + off, part);
        else
            vec_fill(part, 0);
        if (r < 0)
            return r;
        off += run.len;
        v = vec_slice(v, run.len, v.len - run.len);
    }
    return 0;
}

/* ---- writing ---- */

/* Waits while somebody allocates the first of these grains (true: look up again), and leaves out
 * what others are allocating behind it. */
static bool wait_allocation(struct vmdk_extent *e, uint64_t grain, uint64_t *count)
{
    for (struct vmdk_allocation *a = e->allocations; a; a = a->next) {
        if (a->first >= grain + *count || a->first + a->count <= grain)
            continue;
        if (a->first <= grain) {
            fiber_queue_wait(&e->allocation_waiters);
            return true;
        }
        *count = a->first - grain;
    }
    return false;
}

static void allocation_begin(struct vmdk_extent *e, struct vmdk_allocation *a)
{
    a->next = e->allocations;
    e->allocations = a;
}

static void allocation_end(struct vmdk_extent *e, struct vmdk_allocation *a)
{
    struct vmdk_allocation **at = &e->allocations;
    while (*at != a)
        at = &(*at)->next;
    *at = a->next;
    fiber_queue_wake_all(&e->allocation_waiters);
}

/* Part of one new grain: the rest comes from the backing file. */
static int write_copied(struct vmdk_extent *e, uint64_t off, struct vec v, uint64_t host)
{
    uint64_t inside = off % e->grain_bytes, begin = off - inside, behind = inside + v.len;
    uint64_t bytes = min_u64(e->grain_bytes, e->size - begin);
    uint8_t *buffer = vmdk_buffer_get(e->image);
    if (!buffer)
        return -ENOMEM;
    struct iovec iov;
    int r = vmdk_read_backing(e->image, e->begin + begin, vec_flat(&iov, buffer, inside));
    if (r >= 0)
        r = vmdk_read_backing(e->image, e->begin + begin + behind,
                              vec_flat(&iov, buffer + behind, bytes - behind));
    if (r >= 0) {
        vec_read(v, buffer + inside);
        r = node_pwrite(e->file, host, buffer, bytes, 0);
    }
    vmdk_buffer_put(e->image, buffer);
    return r;
}

/* Into new grains whose first lies at `host`. */
static int write_grains(struct vmdk_extent *e, uint64_t off, struct vec v, uint64_t host, bool copy)
{
    if (!copy)
        return node_write(e->file, host + off % e->grain_bytes, v, 0);
    while (v.len) {
        uint64_t inside = off % e->grain_bytes, n = min_u64(e->grain_bytes - inside, v.len);
        bool whole = n == e->grain_bytes;
        if (whole)
            n = align_down(v.len, e->grain_bytes);
        struct vec part = vec_slice(v, 0, n);
        int r = whole ? node_write(e->file, host, part, 0) : write_copied(e, off, part, host);
        if (r < 0)
            return r;
        off += n;
        host += inside + n;
        v = vec_slice(v, n, v.len - n);
    }
    return 0;
}

/* The new grains lie where the file has not been yet, and where it reads as zeroes. */
static int write_new(struct vmdk_extent *e, uint64_t off, struct vec v, uint64_t count,
                     enum vmdk_state state)
{
    uint64_t host = e->end, first = off / e->grain_bytes;
    if ((host + count * e->grain_bytes) / VMDK_SECTOR > UINT32_MAX)
        return -EFBIG;
    if (!e->file->grows && host + count * e->grain_bytes > node_size(e->file))
        return -ENOSPC;
    e->end += count * e->grain_bytes;
    e->grown = true;
    struct vmdk_allocation a = {.first = first, .count = count};
    allocation_begin(e, &a);
    bool copy = state == VMDK_RUN_UNALLOCATED && vmdk_has_backing(e->image);
    int r = write_grains(e, off, v, host, copy);
    if (r >= 0)
        r = vmdk_set_entries(e, first, count, (uint32_t)(host / VMDK_SECTOR),
                             (uint32_t)(e->grain_bytes / VMDK_SECTOR));
    allocation_end(e, &a);
    return r;
}

/* Grains that exist may be written unless they lie over the metadata, or nowhere. */
static int check_host(struct vmdk_extent *e, uint64_t off, const struct vmdk_run *run)
{
    uint64_t directory = e->directory_count * sizeof(uint32_t);
    uint64_t host = run->host, end = host + run->len;
    bool inside =
        host >= e->data_begin && host - off % e->grain_bytes < node_size(e->file) &&
        (host >= e->directory_offset + directory || end <= e->directory_offset) &&
        (!e->redundant || host >= e->redundant_offset + directory || end <= e->redundant_offset);
    if (inside)
        return 0;
    return node_corrupt(&e->image->node, true, (int64_t)host, run->len,
                        "extent %u: a grain at %" PRIu64
                        " lies over the metadata or behind the end of the file",
                        e->index, host);
}

/* Bytes of the run that the file has; the rest reads as zeroes. */
static uint64_t inside_file(const struct vmdk_extent *e, const struct vmdk_run *run)
{
    uint64_t size = node_size(e->file);
    return run->host < size ? min_u64(run->len, size - run->host) : 0;
}

int vmdk_sparse_write(struct vmdk_extent *e, uint64_t off, struct vec v)
{
    if (e->compressed)
        return vmdk_stream_write(e, off, v);
    while (v.len) {
        struct vmdk_run run;
        int r = vmdk_lookup(e, off, v.len, &run);
        if (r < 0)
            return r;
        uint64_t inside = off % e->grain_bytes;
        uint64_t count = (inside + run.len + e->grain_bytes - 1) / e->grain_bytes;
        if (run.state == VMDK_RUN_DATA) {
            r = check_host(e, off, &run);
            if (r >= 0)
                r = node_write(e->file, run.host, vec_slice(v, 0, run.len), 0);
        } else {
            if (wait_allocation(e, off / e->grain_bytes, &count))
                continue;
            run.len = min_u64(run.len, count * e->grain_bytes - inside);
            r = write_new(e, off, vec_slice(v, 0, run.len), count, run.state);
        }
        if (r < 0)
            return r;
        off += run.len;
        v = vec_slice(v, run.len, v.len - run.len);
    }
    return 0;
}

/* ---- zeroes ---- */

/* Grains without data: marked as zero where the format can, left alone where they read as zero. */
static int zero_unallocated(struct vmdk_extent *e, uint64_t off, uint64_t len)
{
    uint64_t end = off + len;
    bool whole = off % e->grain_bytes == 0 && (end % e->grain_bytes == 0 || end == e->size);
    if (!e->zero_grains || !whole)
        return vmdk_has_backing(e->image) ? -ENOTSUP : 0;
    struct vmdk_allocation a = {.first = off / e->grain_bytes,
                                .count = (len + e->grain_bytes - 1) / e->grain_bytes};
    allocation_begin(e, &a);
    int r = vmdk_set_entries(e, a.first, a.count, VMDK_GTE_ZERO, 0);
    allocation_end(e, &a);
    return r;
}

int vmdk_sparse_zero(struct vmdk_extent *e, uint64_t off, uint64_t len, unsigned flags)
{
    while (len) {
        struct vmdk_run run;
        int r = vmdk_lookup(e, off, len, &run);
        if (r < 0)
            return r;
        if (run.state == VMDK_RUN_COMPRESSED) {
            r = -ENOTSUP;
        } else if (run.state == VMDK_RUN_DATA) {
            r = check_host(e, off, &run);
            if (r >= 0)
                r = node_zero(e->file, run.host, inside_file(e, &run),
                              flags & (NODE_MAY_UNMAP | NODE_NO_FALLBACK));
        } else if (run.state == VMDK_RUN_UNALLOCATED) {
            uint64_t count = (off % e->grain_bytes + run.len + e->grain_bytes - 1) / e->grain_bytes;
            if (wait_allocation(e, off / e->grain_bytes, &count))
                continue;
            run.len = min_u64(run.len, count * e->grain_bytes - off % e->grain_bytes);
            r = zero_unallocated(e, off, run.len);
        }
        if (r < 0)
            return r;
        off += run.len;
        len -= run.len;
    }
    return 0;
}

/* Grains keep their place, so that nothing leaks; their space goes back to the file system. */
int vmdk_sparse_discard(struct vmdk_extent *e, uint64_t off, uint64_t len)
{
    while (len) {
        struct vmdk_run run;
        int r = vmdk_lookup(e, off, len, &run);
        if (r >= 0 && run.state == VMDK_RUN_DATA) {
            r = check_host(e, off, &run);
            if (r >= 0)
                r = node_discard(e->file, run.host, inside_file(e, &run));
        }
        if (r < 0)
            return r;
        off += run.len;
        len -= run.len;
    }
    return 0;
}
