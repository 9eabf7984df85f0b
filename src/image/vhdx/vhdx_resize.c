/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Growing and shrinking VHDX files.
 *
 * Spec      [MS-VHDX] 2.6.2.2 (virtual disk size), 2.2.3 (region tables).
 * Crash     The new size is one log entry, behind the table entries that it needs. A table that is
 * too small is copied to the file's end, and both region tables and the size change in one entry.
 * What is cut off may be gone before the size says so.
 */
#include "image/vhdx/vhdx.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define PART_BYTES (64 * KIB)

static bool refuse(struct vhdx *v, int r, GError **error)
{
    return ruche_error_errno(error, -r, "image '%s': cannot resize", v->n.filename);
}

static int write_size(struct vhdx *v, uint64_t size)
{
    uint64_t le = GUINT64_TO_LE(size);
    int r = pages_write(v->pages, v->m.items[VHDX_DISK_SIZE].off, &le, sizeof(le));
    return r ? r : pages_commit(v->pages);
}

/* Entries [from, to) say nothing from now on. */
static int clear_entries(struct vhdx *v, uint64_t from, uint64_t to)
{
    static const uint8_t zeroes[VHDX_PAGE];
    int r = 0;
    for (uint64_t n; from < to && !r; from += n) {
        n = min_u64(to - from, sizeof(zeroes) / 8);
        r = pages_write(v->pages, v->bat.off + 8 * from, zeroes, 8 * n);
    }
    return r ? r : pages_commit(v->pages);
}

/* The table at a new, larger place; the region tables are left for the commit. */
static int move_table(struct vhdx *v, uint64_t used_bytes, uint64_t need_bytes)
{
    struct vhdx_range bat = {.len = align_up(need_bytes + need_bytes / 4, VHDX_MIB)};
    g_autofree uint8_t *part = g_try_malloc(VHDX_TABLE_BYTES);
    int r = part ? pages_commit(v->pages) : -ENOMEM;
    if (!r)
        r = vhdx_take_space(v, bat.len, &bat.off);
    for (uint64_t at = 0, n; at < used_bytes && !r; at += n) {
        n = min_u64(used_bytes - at, PART_BYTES);
        r = pages_read(v->pages, v->bat.off + at, part, n);
        if (!r)
            r = node_pwrite(node_file(&v->n), bat.off + at, part, n, 0);
    }
    if (r)
        return r;
    vhdx_regions_store(bat, v->metadata_region, part);
    for (unsigned i = 0; i < 2 && !r; i++)
        r = pages_write(v->pages, VHDX_REGIONS_AT(i), part, VHDX_TABLE_BYTES);
    if (!r)
        v->bat = bat;
    return r;
}

/* A fixed file has all its blocks. */
static int fill_fixed(struct vhdx *v, uint64_t from)
{
    int r = 0;
    enum vhdx_state state;
    uint64_t off;
    for (uint64_t i = from; v->m.leave_allocated && i < vhdx_payload_blocks(v) && !r; i++)
        r = vhdx_allocate(v, i, &state, &off);
    return r ? r : pages_commit(v->pages);
}

static int grow(struct vhdx *v, uint64_t size)
{
    uint64_t was = v->n.size_bytes, was_blocks = vhdx_payload_blocks(v);
    uint64_t blocks = (size + v->m.block_bytes - 1) / v->m.block_bytes;
    uint64_t have = vhdx_bat_entries(was_blocks, v->chunk_ratio, v->m.has_parent);
    uint64_t need = vhdx_bat_entries(blocks, v->chunk_ratio, v->m.has_parent);
    int r;
    if (need * 8 > v->bat.len)
        r = move_table(v, have * 8, need * 8);
    else
        r = clear_entries(v, have, need);
    if (!r)
        r = write_size(v, size);
    if (r)
        return r;
    v->n.size_bytes = v->m.disk_bytes = size;
    uint64_t end = min_u64(align_up(was, v->m.block_bytes), size);
    r = end > was ? vhdx_zero(&v->n, was, end - was, NODE_MAY_UNMAP) : 0;
    return r ? r : fill_fixed(v, was_blocks);
}

static int shrink(struct vhdx *v, uint64_t size)
{
    uint64_t blocks = (size + v->m.block_bytes - 1) / v->m.block_bytes,
             was = vhdx_payload_blocks(v);
    uint64_t chunks = (blocks + v->chunk_ratio - 1) / v->chunk_ratio;
    int r = 0;
    for (uint64_t i = blocks; i < was && !r; i++)
        r = vhdx_entry_write(v, vhdx_payload_index(v, i), 0);
    for (uint64_t i = chunks; v->m.has_parent && i * v->chunk_ratio < was && !r; i++)
        r = vhdx_entry_write(v, vhdx_bitmap_index(v, i), 0);
    if (!r)
        r = write_size(v, size);
    if (!r) {
        v->n.size_bytes = v->m.disk_bytes = size;
        v->space_known = false;
    }
    return r;
}

bool vhdx_resize(struct node *n, uint64_t size, enum image_prealloc p, GError **error)
{
    struct vhdx *v = vhdx_of(n);
    size = align_up(size, v->m.sector_bytes);
    if (!size || size > VHDX_SIZE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "image '%s': a VHDX of %" PRIu64 " bytes cannot be; the limit is 64 TiB",
                           n->filename, size);
    if (p != PREALLOC_OFF)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "image '%s': a VHDX cannot be preallocated", n->filename);
    int r = vhdx_begin_write(v);
    if (!r)
        r = size < n->size_bytes ? shrink(v, size) : grow(v, size);
    return !r || refuse(v, r, error);
}
