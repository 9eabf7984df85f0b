/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading and writing virtual hard disks.
 *
 * Spec      Virtual Hard Disk Image Format Specification 1.0: sector bitmaps.
 * Fiber     Every request runs on its own; only allocation is serial.
 * Crash     A sector's bit is set, in memory, when its data is written, and reaches the disk
 *           behind a sync: until then the sector reads as before, from the parent or as zero.
 * Trust     Bitmaps are hostile, and may say what they like: both answers are safe.
 */
#include "image/vhd/bits.h"
#include "image/vhd/vhd.h"

#include <errno.h>
#include <string.h>

#define MAP_BLOCKS 1024 /* that one map() walks over */

/* The run of sectors like the first in an allocated block; *len is shortened. */
static int bitmap_run(struct vhd *v, uint64_t block_off, uint32_t first, uint64_t *len,
                      bool *present)
{
    uint32_t count;
    int r = bits_run(v->pages, block_off, first, (uint32_t)(*len / VHD_SECTOR), BITS_HIGH_FIRST,
                     present, &count);
    if (!r)
        *len = (uint64_t)count * VHD_SECTOR;
    return r;
}

int vhd_run_at(struct vhd *v, uint64_t off, uint64_t len, struct vhd_run *ret)
{
    uint32_t block = (uint32_t)(off / v->header.block_bytes),
             in = (uint32_t)(off % v->header.block_bytes);
    uint64_t at;
    *ret = (struct vhd_run){.len = min_u64(len, v->header.block_bytes - in)};
    int r = vhd_lookup(v, block, &at);
    if (r || !at)
        return r;
    r = bitmap_run(v, at, in / VHD_SECTOR, &ret->len, &ret->present);
    ret->host = at + v->bitmap_bytes + in;
    return r;
}

/* What this image does not have: the parent's, as far as it goes, or zeroes. */
static int read_below(struct vhd *v, uint64_t off, struct vec vec, unsigned flags)
{
    struct node *parent = node_backing(&v->n);
    uint64_t size = parent ? node_size(parent) : 0;
    size_t have = off >= size ? 0 : (size_t)min_u64(size - off, vec.len);
    int r = have ? node_read(parent, off, vec_slice(vec, 0, have), flags) : 0;
    if (have < vec.len && !(flags & NODE_PREFETCH))
        vec_fill(vec_slice(vec, have, vec.len - have), 0);
    return r;
}

/* Blocks of others may be cut off by the file's end. */
static int read_host(struct vhd *v, uint64_t host, struct vec vec, unsigned flags)
{
    struct node *file = node_file(&v->n);
    uint64_t size = node_size(file);
    size_t have = host >= size ? 0 : (size_t)min_u64(size - host, vec.len);
    int r = have ? node_read(file, host, vec_slice(vec, 0, have), flags) : 0;
    if (have < vec.len && !(flags & NODE_PREFETCH))
        vec_fill(vec_slice(vec, have, vec.len - have), 0);
    return r;
}

int vhd_read(struct node *n, uint64_t off, struct vec vec, unsigned flags)
{
    struct vhd *v = vhd_of(n);
    if (!v->pages)
        return node_read(node_file(n), off, vec, flags);
    int r = 0;
    struct vhd_run run;
    for (size_t at = 0; at < vec.len && !r; at += run.len) {
        r = vhd_run_at(v, off + at, vec.len - at, &run);
        if (r)
            break;
        struct vec part = vec_slice(vec, at, run.len);
        r = run.present ? read_host(v, run.host, part, flags)
                        : read_below(v, off + at, part, flags);
    }
    return r;
}

/* The block's place for writing: allocated, and whole in the file. */
static int writable_block(struct vhd *v, uint32_t block, uint64_t *ret_off)
{
    int r = vhd_allocate(v, block, ret_off);
    if (!r && *ret_off + v->bitmap_bytes + v->header.block_bytes > node_size(node_file(&v->n))) {
        fiber_mutex_lock(&v->alloc_lock);
        r = vhd_tighten(v);
        fiber_mutex_unlock(&v->alloc_lock);
    }
    return r;
}

int vhd_write(struct node *n, uint64_t off, struct vec vec, unsigned flags)
{
    struct vhd *v = vhd_of(n);
    if (!v->pages)
        return node_write(node_file(n), off, vec, flags);
    int r = 0;
    for (size_t at = 0, part; at < vec.len && !r; at += part) {
        uint32_t block = (uint32_t)((off + at) / v->header.block_bytes);
        uint32_t in = (uint32_t)((off + at) % v->header.block_bytes);
        uint64_t block_off;
        part = (size_t)min_u64(vec.len - at, v->header.block_bytes - in);
        r = writable_block(v, block, &block_off);
        if (!r)
            r = node_write(node_file(n), block_off + v->bitmap_bytes + in, vec_slice(vec, at, part),
                           0);
        if (!r)
            r = bits_set(v->pages, block_off, in / VHD_SECTOR, (uint32_t)(part / VHD_SECTOR),
                         BITS_HIGH_FIRST);
    }
    return r;
}

/* Zeroes over what a parent would show: allocated, and marked. */
static int zero_over_parent(struct vhd *v, uint64_t off, uint64_t len, unsigned flags)
{
    uint32_t in = (uint32_t)(off % v->header.block_bytes);
    uint64_t block_off;
    int r = writable_block(v, (uint32_t)(off / v->header.block_bytes), &block_off);
    if (!r)
        r = node_zero(node_file(&v->n), block_off + v->bitmap_bytes + in, len, flags);
    return r ? r
             : bits_set(v->pages, block_off, in / VHD_SECTOR, (uint32_t)(len / VHD_SECTOR),
                        BITS_HIGH_FIRST);
}

int vhd_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags)
{
    struct vhd *v = vhd_of(n);
    if (!v->pages)
        return node_zero(node_file(n), off, len, flags);
    int r = 0;
    struct vhd_run run;
    for (uint64_t at = 0; at < len && !r; at += run.len) {
        r = vhd_run_at(v, off + at, len - at, &run);
        if (r)
            break;
        if (node_backing(n))
            r = zero_over_parent(v, off + at, run.len, flags);
        else if (run.present)
            r = node_zero(node_file(n), run.host, run.len, flags);
    }
    return r;
}

int vhd_discard(struct node *n, uint64_t off, uint64_t len)
{
    struct vhd *v = vhd_of(n);
    if (!v->pages)
        return node_discard(node_file(n), off, len);
    int r = 0;
    struct vhd_run run;
    for (uint64_t at = 0; at < len && !r; at += run.len) {
        r = vhd_run_at(v, off + at, len - at, &run);
        if (!r && run.present)
            r = node_zero(node_file(n), run.host, run.len, NODE_MAY_UNMAP | NODE_NO_FALLBACK);
    }
    return r == -ENOTSUP ? 0 : r;
}

int vhd_map(struct node *n, uint64_t off, uint64_t len, struct image_extent *ret)
{
    struct vhd *v = vhd_of(n);
    if (!v->pages) {
        *ret = (struct image_extent){.len = len, .host = node_file(n), .host_offset = off};
        ret->flags = EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_OFFSET | EXTENT_HOLES;
        return 0;
    }
    struct vhd_run run;
    int r = vhd_run_at(v, off, len, &run);
    if (r)
        return r;
    *ret = (struct image_extent){.len = run.len};
    if (run.present) {
        ret->flags = EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_OFFSET;
        ret->host = node_file(n);
        ret->host_offset = run.host;
        return 0;
    }
    ret->flags = node_backing(n) || n->backing_file ? 0 : EXTENT_ZERO | EXTENT_ALLOCATED;
    for (unsigned i = 0; i < MAP_BLOCKS && ret->len < len; i++) {
        r = vhd_run_at(v, off + ret->len, len - ret->len, &run);
        if (r || run.present)
            break;
        ret->len += run.len;
    }
    return 0;
}

int vhd_flush(struct node *n)
{
    struct vhd *v = vhd_of(n);
    return v->pages ? pages_commit(v->pages) : node_flush(node_file(n));
}

/* The table first, then the space: a crash in between leaves an empty image with a long file. */
int vhd_make_empty(struct node *n)
{
    struct vhd *v = vhd_of(n);
    uint8_t unused[VHD_SECTOR];
    if (!v->pages)
        return -ENOTSUP;
    memset(unused, 0xff, sizeof(unused));
    uint64_t bytes = 4ULL * vhd_blocks(v);
    int r = 0;
    for (uint64_t at = 0, part; at < bytes && !r; at += part) {
        part = min_u64(bytes - at, sizeof(unused));
        r = pages_write(v->pages, v->header.table_offset + at, unused, part);
    }
    if (!r)
        r = pages_commit(v->pages);
    return r ? r : vhd_tighten(v);
}
