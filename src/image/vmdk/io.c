/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests of a VMDK disk: to which extent they go, and what all extents share.
 *
 * Fiber     All of it.
 */
#include "image/vmdk/vmdk.h"

#include <errno.h>

struct vmdk_extent *vmdk_extent_at(struct vmdk *v, uint64_t off)
{
    unsigned low = 0, high = v->extent_count - 1;
    while (low < high) {
        unsigned middle = (low + high + 1) / 2;
        if (v->extents[middle].begin <= off)
            low = middle;
        else
            high = middle - 1;
    }
    return &v->extents[low];
}

/* Big buffers are not hoarded. */
static unsigned buffers_kept(const struct vmdk *v)
{
    return v->buffer_bytes > 2 * VMDK_CHUNK_BYTES ? 1 : VMDK_BUFFERS_KEPT;
}

void *vmdk_buffer_get(struct vmdk *v)
{
    return v->buffer_count ? v->buffers[--v->buffer_count] : g_try_malloc(v->buffer_bytes);
}

void vmdk_buffer_put(struct vmdk *v, void *buffer)
{
    if (v->buffer_count < buffers_kept(v))
        v->buffers[v->buffer_count++] = buffer;
    else
        g_free(buffer);
}

/* Also when it is not open now: what it holds must not show through later. */
bool vmdk_has_backing(const struct vmdk *v)
{
    return v->node.backing_file || node_backing(&v->node);
}

int vmdk_read_backing(struct vmdk *v, uint64_t off, struct vec to)
{
    struct node *b = node_backing(&v->node);
    uint64_t size = b ? node_size(b) : 0;
    uint64_t n = off < size ? min_u64(to.len, size - off) : 0;
    vec_fill(vec_slice(to, n, to.len - n), 0);
    return n ? node_read(b, off, vec_slice(to, 0, n), 0) : 0;
}

/* The part of [off, off + len) that one extent holds; its offset there in *ret_off. */
static struct vmdk_extent *part_of(struct vmdk *v, uint64_t off, uint64_t len, uint64_t *ret_off,
                                   uint64_t *ret_len)
{
    struct vmdk_extent *e = vmdk_extent_at(v, off);
    *ret_off = off - e->begin;
    *ret_len = min_u64(len, e->size - *ret_off);
    return e;
}

int vmdk_read(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    struct vmdk *m = vmdk_of(n);
    int r = 0;
    while (r >= 0 && v.len) {
        uint64_t at, len;
        struct vmdk_extent *e = part_of(m, off, v.len, &at, &len);
        struct vec part = vec_slice(v, 0, len);
        if (e->kind == VMDK_ZERO)
            vec_fill(part, 0);
        else if (e->kind == VMDK_FLAT)
            r = node_read(e->file, e->flat_offset + at, part, 0);
        else
            r = vmdk_sparse_read(e, at, part);
        off += len;
        v = vec_slice(v, len, v.len - len);
    }
    return r;
}

static int write_part(struct vmdk_extent *e, uint64_t at, struct vec part, unsigned flags)
{
    if (flags & NODE_COMPRESSED && !e->compressed)
        return -ENOTSUP;
    if (!e->writable)
        return -EROFS;
    if (e->kind == VMDK_ZERO)
        return vec_is_zero(part) ? 0 : -EIO;
    if (e->kind == VMDK_FLAT)
        return node_write(e->file, e->flat_offset + at, part, 0);
    return vmdk_sparse_write(e, at, part);
}

int vmdk_write(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    struct vmdk *m = vmdk_of(n);
    int r = vmdk_touch(m);
    while (r >= 0 && v.len) {
        uint64_t at, len;
        struct vmdk_extent *e = part_of(m, off, v.len, &at, &len);
        r = write_part(e, at, vec_slice(v, 0, len), flags);
        off += len;
        v = vec_slice(v, len, v.len - len);
    }
    return r;
}

static int zero_part(struct vmdk_extent *e, uint64_t at, uint64_t len, unsigned flags)
{
    if (!e->writable)
        return -EROFS;
    if (e->kind == VMDK_ZERO)
        return 0;
    if (e->kind == VMDK_FLAT)
        return node_zero(e->file, e->flat_offset + at, len,
                         flags & (NODE_MAY_UNMAP | NODE_NO_FALLBACK));
    return vmdk_sparse_zero(e, at, len, flags);
}

int vmdk_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags)
{
    struct vmdk *m = vmdk_of(n);
    int r = vmdk_touch(m);
    while (r >= 0 && len) {
        uint64_t at, part;
        struct vmdk_extent *e = part_of(m, off, len, &at, &part);
        r = zero_part(e, at, part, flags);
        off += part;
        len -= part;
    }
    return r;
}

int vmdk_discard(struct node *n, uint64_t off, uint64_t len)
{
    struct vmdk *m = vmdk_of(n);
    int r = vmdk_touch(m);
    while (r >= 0 && len) {
        uint64_t at, part;
        struct vmdk_extent *e = part_of(m, off, len, &at, &part);
        if (e->writable && e->kind == VMDK_FLAT)
            r = node_discard(e->file, e->flat_offset + at, part);
        else if (e->writable && e->kind == VMDK_SPARSE)
            r = vmdk_sparse_discard(e, at, part);
        off += part;
        len -= part;
    }
    return r;
}

int vmdk_flush(struct node *n)
{
    struct vmdk *m = vmdk_of(n);
    if (n->read_only)
        return 0;
    int r = m->tables.ops ? map_cache_flush(&m->tables) : 0;
    for (unsigned i = 0; r >= 0 && i < m->extent_count; i++) {
        struct vmdk_extent *e = &m->extents[i];
        if (e->at_end && !e->finished)
            r = vmdk_stream_finish(e);
        if (r >= 0 && e->file)
            r = node_flush(e->file);
    }
    return r < 0 ? r : node_flush(m->descriptor_file);
}

static int map_sparse(struct vmdk_extent *e, uint64_t at, uint64_t len, struct image_extent *ret)
{
    static const unsigned flags[] = {
        [VMDK_RUN_UNALLOCATED] = 0,
        [VMDK_RUN_ZERO] = EXTENT_ZERO | EXTENT_ALLOCATED,
        [VMDK_RUN_DATA] = EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_OFFSET,
        [VMDK_RUN_COMPRESSED] = EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_COMPRESSED,
    };
    struct vmdk_run run;
    int r = vmdk_lookup(e, at, len, &run);
    if (r < 0)
        return r;
    ret->len = run.len;
    ret->flags = flags[run.state];
    ret->host_offset = run.host;
    return 0;
}

/* Plain bytes that are holes of the file read as zeroes. */
static int map_file(struct vmdk_extent *e, struct image_extent *ret)
{
    struct image_extent below;
    ret->host = e->file;
    if (ret->host_offset >= node_size(e->file))
        return 0;
    int r = node_map(e->file, ret->host_offset, ret->len, &below);
    if (r < 0)
        return r;
    ret->len = below.len;
    ret->flags |= below.flags & EXTENT_ZERO;
    return 0;
}

int vmdk_map(struct node *n, uint64_t off, uint64_t len, struct image_extent *ret)
{
    uint64_t at, part;
    struct vmdk_extent *e = part_of(vmdk_of(n), off, len, &at, &part);
    int r = 0;
    ret->len = part;
    ret->flags = EXTENT_ZERO | EXTENT_ALLOCATED;
    ret->host_offset = e->flat_offset + at;
    if (e->kind == VMDK_FLAT)
        ret->flags = EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_OFFSET;
    else if (e->kind != VMDK_ZERO)
        r = map_sparse(e, at, part, ret);
    return r < 0 || !(ret->flags & EXTENT_OFFSET) ? r : map_file(e, ret);
}

int64_t vmdk_allocated_bytes(struct node *n)
{
    struct vmdk *m = vmdk_of(n);
    int64_t sum = node_allocated_bytes(m->descriptor_file);
    for (unsigned i = 0; sum >= 0 && i < m->extent_count; i++) {
        struct node *file = m->extents[i].file;
        int64_t bytes = file && file != m->descriptor_file ? node_allocated_bytes(file) : 0;
        sum = bytes < 0 ? bytes : sum + bytes;
    }
    return sum;
}
