/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading and writing VHDX files.
 *
 * Spec      [MS-VHDX] 2.5.1 (states of blocks), 2.4 (sector bitmaps, lowest bit first).
 * Fiber     Every request runs on its own; only allocation is serial.
 * Crash     A sector's bit is set, in memory, when its data is written, and reaches the disk
 *           behind a sync.
 * Trust     Bitmaps may say what they like: both answers are safe.
 */
#include "image/vhd/bits.h"
#include "image/vhdx/vhdx.h"

#include <errno.h>
#include <string.h>

#define MAP_BLOCKS 1024 /* that one map() walks over */

enum place { PLACE_HERE, PLACE_ZERO, PLACE_BELOW };
struct run {
    uint64_t len, host;
    enum place place;
};

/* The run of sectors like the first in a PARTIAL block. */
static int bitmap_run(struct vhdx *v, uint64_t block, uint32_t in, struct run *run)
{
    uint32_t first = in / v->m.sector_bytes, count = (uint32_t)(run->len / v->m.sector_bytes);
    uint64_t off = 0;
    bool here;
    int r = vhdx_bitmap(v, block, &off);
    if (!r)
        r = bits_run(v->pages, off, first, count, BITS_LOW_FIRST, &here, &count);
    if (r)
        return r;
    run->len = (uint64_t)count * v->m.sector_bytes;
    run->place = here ? PLACE_HERE : PLACE_BELOW;
    return 0;
}

/* What is at [off, off + len): the longest run of one kind inside a block. */
static int run_at(struct vhdx *v, uint64_t off, uint64_t len, struct run *run)
{
    uint64_t block = off / v->m.block_bytes, host;
    uint32_t in = (uint32_t)(off % v->m.block_bytes);
    enum vhdx_state state;
    int r = vhdx_payload(v, block, &state, &host);
    *run = (struct run){.len = min_u64(len, v->m.block_bytes - in)};
    if (r)
        return r;
    run->host = host + in;
    if (state == VHDX_PARTIAL)
        return bitmap_run(v, block, in, run);
    if (state == VHDX_FULL)
        run->place = PLACE_HERE;
    else
        run->place = state == VHDX_NOT_PRESENT && v->m.has_parent ? PLACE_BELOW : PLACE_ZERO;
    return 0;
}

/* As far as `from` goes, then zeroes: a parent may be shorter, a file cut off. */
static int read_from(struct node *from, uint64_t off, struct vec vec, unsigned flags)
{
    uint64_t size = from ? node_size(from) : 0;
    size_t have = off >= size ? 0 : (size_t)min_u64(size - off, vec.len);
    int r = have ? node_read(from, off, vec_slice(vec, 0, have), flags) : 0;
    if (have < vec.len && !(flags & NODE_PREFETCH))
        vec_fill(vec_slice(vec, have, vec.len - have), 0);
    return r;
}

int vhdx_read(struct node *n, uint64_t off, struct vec vec, unsigned flags)
{
    struct vhdx *v = vhdx_of(n);
    struct run run;
    int r = 0;
    for (size_t at = 0; at < vec.len && !r; at += run.len) {
        r = run_at(v, off + at, vec.len - at, &run);
        if (r)
            break;
        struct vec part = vec_slice(vec, at, run.len);
        if (run.place == PLACE_HERE)
            r = read_from(node_file(n), run.host, part, flags);
        else
            r = read_from(run.place == PLACE_BELOW ? node_backing(n) : NULL, off + at, part, flags);
    }
    return r;
}

/* Sets the bits of sectors that are written now. */
static int mark_present(struct vhdx *v, uint64_t block, uint32_t in, uint32_t len)
{
    uint64_t off;
    int r = vhdx_bitmap(v, block, &off);
    return r ? r
             : bits_set(v->pages, off, in / v->m.sector_bytes, len / v->m.sector_bytes,
                        BITS_LOW_FIRST);
}

/* The block's place for writing: allocated, and whole in the file. */
static int writable_block(struct vhdx *v, uint64_t block, enum vhdx_state *state, uint64_t *off)
{
    int r = vhdx_begin_write(v);
    if (!r)
        r = vhdx_allocate(v, block, state, off);
    if (!r && *off + v->m.block_bytes > node_size(node_file(&v->n))) {
        fiber_mutex_lock(&v->alloc_lock);
        r = vhdx_tighten(v);
        fiber_mutex_unlock(&v->alloc_lock);
    }
    return r;
}

int vhdx_write(struct node *n, uint64_t off, struct vec vec, unsigned flags)
{
    struct vhdx *v = vhdx_of(n);
    int r = 0;
    for (size_t at = 0, part; at < vec.len && !r; at += part) {
        uint64_t block = (off + at) / v->m.block_bytes, host;
        uint32_t in = (uint32_t)((off + at) % v->m.block_bytes);
        enum vhdx_state state;
        part = (size_t)min_u64(vec.len - at, v->m.block_bytes - in);
        r = writable_block(v, block, &state, &host);
        if (!r)
            r = node_write(node_file(n), host + in, vec_slice(vec, at, part), 0);
        if (!r && state == VHDX_PARTIAL)
            r = mark_present(v, block, in, (uint32_t)part);
    }
    return r;
}

/* Zeroes over what a parent would show. A whole block needs no room for that. */
static int zero_over_parent(struct vhdx *v, uint64_t off, uint64_t len, unsigned flags)
{
    uint64_t block = off / v->m.block_bytes, host;
    uint32_t in = (uint32_t)(off % v->m.block_bytes);
    enum vhdx_state state;
    int r = vhdx_payload(v, block, &state, &host);
    if (!r && state == VHDX_NOT_PRESENT && len == v->m.block_bytes) {
        fiber_mutex_lock(&v->alloc_lock); /* nobody allocates it meanwhile */
        r = vhdx_payload(v, block, &state, &host);
        if (!r && state == VHDX_NOT_PRESENT)
            r = vhdx_set_payload(v, block, VHDX_ZERO, 0);
        fiber_mutex_unlock(&v->alloc_lock);
        if (r || state == VHDX_NOT_PRESENT)
            return r;
    }
    if (!r)
        r = writable_block(v, block, &state, &host);
    if (!r)
        r = node_zero(node_file(&v->n), host + in, len, flags);
    return r || state != VHDX_PARTIAL ? r : mark_present(v, block, in, (uint32_t)len);
}

int vhdx_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags)
{
    struct vhdx *v = vhdx_of(n);
    struct run run;
    int r = vhdx_begin_write(v);
    for (uint64_t at = 0; at < len && !r; at += run.len) {
        r = run_at(v, off + at, len - at, &run);
        if (r)
            break;
        if (run.place == PLACE_BELOW)
            r = zero_over_parent(v, off + at, run.len, flags);
        else if (run.place == PLACE_HERE)
            r = node_zero(node_file(n), run.host, run.len, flags);
    }
    return r;
}

int vhdx_discard(struct node *n, uint64_t off, uint64_t len)
{
    struct vhdx *v = vhdx_of(n);
    struct run run;
    int r = vhdx_begin_write(v);
    for (uint64_t at = 0; at < len && !r; at += run.len) {
        r = run_at(v, off + at, len - at, &run);
        if (!r && run.place == PLACE_HERE)
            r = node_zero(node_file(n), run.host, run.len, NODE_MAY_UNMAP | NODE_NO_FALLBACK);
    }
    return r == -ENOTSUP ? 0 : r;
}

int vhdx_map(struct node *n, uint64_t off, uint64_t len, struct image_extent *ret)
{
    struct vhdx *v = vhdx_of(n);
    struct run run, more;
    int r = run_at(v, off, len, &run);
    if (r)
        return r;
    *ret = (struct image_extent){.len = run.len};
    if (run.place == PLACE_HERE) {
        ret->flags = EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_OFFSET;
        ret->host = node_file(n);
        ret->host_offset = run.host;
    } else if (run.place == PLACE_ZERO) {
        ret->flags = EXTENT_ZERO | (v->m.has_parent ? EXTENT_ALLOCATED : 0);
    }
    for (unsigned i = 0; i < MAP_BLOCKS && ret->len < len; i++) {
        if (run_at(v, off + ret->len, len - ret->len, &more) || more.place != run.place ||
            (run.place == PLACE_HERE && more.host != run.host + ret->len))
            break;
        ret->len += more.len;
    }
    return 0;
}

int vhdx_flush(struct node *n)
{
    return pages_commit(vhdx_of(n)->pages);
}

/* The table first, then the space: a crash in between leaves an empty image with a long file. */
int vhdx_make_empty(struct node *n)
{
    struct vhdx *v = vhdx_of(n);
    static const uint8_t zeroes[VHDX_PAGE];
    uint64_t bytes = 8 * vhdx_bat_entries(vhdx_payload_blocks(v), v->chunk_ratio, v->m.has_parent);
    if (v->m.leave_allocated)
        return -ENOTSUP;
    int r = vhdx_begin_write(v);
    for (uint64_t at = 0, part; at < bytes && !r; at += part) {
        part = min_u64(bytes - at, sizeof(zeroes));
        r = pages_write(v->pages, v->bat.off + at, zeroes, part);
    }
    if (!r)
        r = pages_commit(v->pages);
    return r ? r : vhdx_tighten(v);
}

int vhdx_complete_block(struct vhdx *v, uint64_t block)
{
    uint64_t off = block * v->m.block_bytes, len = v->m.block_bytes, host;
    enum vhdx_state state;
    int r = vhdx_payload(v, block, &state, &host);
    if (r || state != VHDX_PARTIAL)
        return r;
    struct run run;
    for (uint64_t at = 0; at < len && !r; at += run.len) {
        r = run_at(v, off + at, len - at, &run);
        if (!r && run.place == PLACE_BELOW)
            r = node_zero(node_file(&v->n), run.host, run.len, NODE_MAY_UNMAP);
    }
    return r ? r : vhdx_set_payload(v, block, VHDX_FULL, host);
}
