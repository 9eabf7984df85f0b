/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Growing and shrinking virtual hard disks.
 *
 * Spec      Virtual Hard Disk Image Format Specification 1.0.
 * Crash     Dynamic: new table entries, or a whole new table with a new header, are durable before
 * the footer at the front, one sector, makes them count. Fixed: the file grows, then the new footer
 * is written at its end, then the old one is wiped; shrinking writes the footer first and cuts the
 * file behind it. What is cut off may be gone before the size says so.
 */
#include "image/vhd/vhd.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define PART_BYTES (64 * KIB)

static bool refuse(struct vhd *v, int r, GError **error)
{
    return ruche_error_errno(error, -r, "image '%s': cannot resize", node_filename(&v->n));
}

/* From now on the exact size counts, whoever made the image. */
static struct vhd_footer resized(const struct vhd *v, uint64_t size)
{
    struct vhd_footer f = v->footer;
    f.current_bytes = size;
    vhd_geometry(size / VHD_SECTOR, &f);
    memcpy(f.creator, "qem2", 4);
    return f;
}

static bool resize_fixed(struct vhd *v, uint64_t size, enum image_prealloc p, GError **error)
{
    struct node *file = node_file(&v->n);
    uint64_t was = node_size(file) - VHD_FOOTER_BYTES;
    bool grow = size > was;
    if (grow && !node_resize(file, size + VHD_FOOTER_BYTES, p, error))
        return false;
    v->footer = resized(v, size);
    int r = vhd_write_end_footer(v, size);
    if (!r)
        r = node_flush(file);
    if (!r && grow)
        r = node_zero(file, was, MIN(VHD_FOOTER_BYTES, size - was), 0);
    if (r)
        return refuse(v, r, error);
    return grow || node_resize(file, size + VHD_FOOTER_BYTES, PREALLOC_OFF, error);
}

/* Table entries [from, to) are unused from now on. */
static int clear_entries(struct vhd *v, uint64_t from, uint64_t to)
{
    uint8_t unused[VHD_SECTOR];
    memset(unused, 0xff, sizeof(unused));
    int r = 0;
    for (uint64_t n; from < to && !r; from += n) {
        n = min_u64(to - from, sizeof(unused) / 4);
        r = pages_write(v->pages, v->header.table_offset + 4 * from, unused, 4 * n);
    }
    return r ? r : pages_commit(v->pages);
}

static int copy_table(struct vhd *v, uint64_t used, uint64_t to, uint64_t bytes)
{
    g_autofree uint8_t *part = g_try_malloc(PART_BYTES);
    int r = part ? 0 : -ENOMEM;
    for (uint64_t at = 0, n; at < bytes && !r; at += n) {
        n = min_u64(bytes - at, PART_BYTES);
        memset(part, 0xff, n);
        if (at < used)
            r = pages_read(v->pages, v->header.table_offset + at, part, min_u64(used - at, n));
        if (!r)
            r = node_pwrite(node_file(&v->n), to + at, part, n, 0);
    }
    return r;
}

/* A table for `entries`, and some more, at a new place; then the header, then the footer. */
static int move_table(struct vhd *v, uint64_t entries, struct vhd_footer *f)
{
    struct vhd_header h = v->header;
    uint64_t at, used = 4ULL * vhd_blocks(v);
    h.entries = (uint32_t)min_u64(entries + entries / 4, VHD_ENTRIES_MAX);
    uint64_t bytes = align_up(4ULL * h.entries, VHD_SECTOR);
    int r = pages_commit(v->pages);
    if (!r)
        r = vhd_take_space(v, VHD_HEADER_BYTES + bytes, &at);
    if (r)
        return r;
    f->data_offset = at;
    h.table_offset = at + VHD_HEADER_BYTES;
    r = copy_table(v, used, h.table_offset, bytes);
    if (r)
        return r;
    pages_forget(v->pages, at, VHD_HEADER_BYTES + bytes);
    return vhd_switch(v, f, &h);
}

/* A grown disk reads as zeroes behind its old end, whatever its last block has there. */
static int clear_tail(struct vhd *v, uint64_t from, uint64_t to)
{
    uint64_t end = min_u64(align_up(from, v->header.block_bytes), to);
    return end > from ? vhd_zero(&v->n, from, end - from, NODE_MAY_UNMAP) : 0;
}

static bool grow_dynamic(struct vhd *v, uint64_t size, GError **error)
{
    uint64_t was = v->n.size_bytes, have = vhd_blocks(v);
    uint64_t need = (size + v->header.block_bytes - 1) / v->header.block_bytes;
    struct vhd_footer f = resized(v, size);
    if (need > VHD_ENTRIES_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "image '%s': %" PRIu64 " VHD blocks of %u bytes; the limit is %u",
                           node_filename(&v->n), need, v->header.block_bytes, VHD_ENTRIES_MAX);
    int r;
    if (need > v->header.entries) {
        r = move_table(v, need, &f);
    } else {
        r = clear_entries(v, have, need);
        if (!r)
            r = vhd_switch(v, &f, NULL);
    }
    if (!r) {
        v->n.size_bytes = size;
        r = clear_tail(v, was, size);
    }
    return !r || refuse(v, r, error);
}

static bool shrink_dynamic(struct vhd *v, uint64_t size, GError **error)
{
    uint64_t have = vhd_blocks(v);
    uint64_t need = (size + v->header.block_bytes - 1) / v->header.block_bytes;
    struct vhd_footer f = resized(v, size);
    int r = clear_entries(v, need, have);
    if (!r)
        r = vhd_switch(v, &f, NULL);
    if (r)
        return refuse(v, r, error);
    v->n.size_bytes = size;
    v->space_known = false;
    return true;
}

bool vhd_resize(struct node *n, uint64_t size, enum image_prealloc p, GError **error)
{
    struct vhd *v = vhd_of(n);
    size = align_up(size, VHD_SECTOR);
    if (size > VHD_SIZE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "image '%s': a VHD of %" PRIu64 " bytes cannot be; the limit is %llu",
                           node_filename(n), size, (unsigned long long)VHD_SIZE_MAX);
    if (v->pages && p != PREALLOC_OFF)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "image '%s': a dynamic VHD cannot be preallocated", node_filename(n));
    if (!v->pages) {
        if (!resize_fixed(v, size, p, error))
            return false;
        n->size_bytes = size;
        return true;
    }
    return size < n->size_bytes ? shrink_dynamic(v, size, error) : grow_dynamic(v, size, error);
}
