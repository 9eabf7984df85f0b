/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The block table of VHDX files, room for new blocks, and the header while the file is written.
 *
 * Spec      [MS-VHDX] 2.5 (BAT), 2.2.2 (headers).
 * Fiber     Allocation is serial (alloc_lock), data is not: a new block is in the table, in
 *           memory, before its data is written, and reads as it did before: zeroes, or the parent
 *           through a clear bitmap.
 * Crash     Table and bitmaps change in the page cache, and reach the file through the log, behind
 *           the data. The file grows by many blocks at once; what is behind the last block in use
 *           is given back on closing, or by the next writer, who cannot know whether it is zeroes.
 *           The header that does not count is written.
 * Trust     Table entries are hostile: they may not lie over anything that is not a block.
 */
#include "image/vhdx/vhdx.h"

#include "base/cursor.h"
#include "image/crypto.h"

#include <errno.h>
#include <inttypes.h>

#define STATE_MASK        7u
#define OFFSET_MASK       (~(uint64_t)(VHDX_MIB - 1))
#define RESERVE_MAX_BYTES (64 * MIB)
#define SCAN_ENTRIES      8192

uint64_t vhdx_payload_blocks(const struct vhdx *v)
{
    return (v->m.disk_bytes + v->m.block_bytes - 1) / v->m.block_bytes;
}

uint64_t vhdx_bat_entries(uint64_t blocks, uint32_t chunk_ratio, bool has_parent)
{
    if (has_parent)
        return (blocks + chunk_ratio - 1) / chunk_ratio * (chunk_ratio + 1ULL);
    return blocks ? blocks + (blocks - 1) / chunk_ratio : 0;
}

uint64_t vhdx_payload_index(const struct vhdx *v, uint64_t block)
{
    return block + block / v->chunk_ratio;
}

uint64_t vhdx_bitmap_index(const struct vhdx *v, uint64_t chunk)
{
    return chunk * (v->chunk_ratio + 1ULL) + v->chunk_ratio;
}

/* ---- the header ---- */

int vhdx_write_header(struct vhdx *v)
{
    struct node *file = node_file(&v->n);
    g_autofree uint8_t *bytes = g_malloc(VHDX_HEADER_BYTES);
    struct vhdx_header h = v->header;
    h.sequence++;
    vhdx_header_store(&h, bytes);
    int r = node_flush(file);
    if (!r)
        r = node_pwrite(file, VHDX_HEADER_AT(!v->slot), bytes, VHDX_HEADER_BYTES, 0);
    if (!r)
        r = node_flush(file);
    if (!r) {
        v->header = h;
        v->slot = !v->slot;
    }
    return r;
}

int vhdx_begin_write(struct vhdx *v)
{
    if (likely(v->writing))
        return 0;
    fiber_mutex_lock(&v->begin_lock);
    int r = v->writing ? 0 : crypto_random(v->header.file_guid, VHDX_GUID);
    /* A child knows its parent by the data's identifier. What is merged into a parent that was
     * opened as such leaves the children's view as it was. */
    if (!r && !v->writing && !v->keep_data_guid)
        r = crypto_random(v->header.data_guid, VHDX_GUID);
    if (!r && !v->writing)
        r = vhdx_write_header(v);
    v->writing |= !r;
    fiber_mutex_unlock(&v->begin_lock);
    return r;
}

/* ---- entries ---- */

int vhdx_entry_read(struct vhdx *v, uint64_t index, uint64_t *ret)
{
    uint64_t le;
    int r = pages_read(v->pages, v->bat.off + 8 * index, &le, sizeof(le));
    *ret = GUINT64_FROM_LE(le);
    return r;
}

int vhdx_entry_write(struct vhdx *v, uint64_t index, uint64_t entry)
{
    uint64_t le = GUINT64_TO_LE(entry);
    return pages_write(v->pages, v->bat.off + 8 * index, &le, sizeof(le));
}

static bool overlap(uint64_t off, uint64_t len, uint64_t at, uint64_t size)
{
    return off < at + size && at < off + len;
}

bool vhdx_is_wild(struct vhdx *v, uint64_t off, uint64_t len)
{
    return off < VHDX_MIB || off >= node_size(node_file(&v->n)) ||
           overlap(off, len, v->header.log_offset, v->header.log_bytes) ||
           overlap(off, len, v->bat.off, v->bat.len) ||
           overlap(off, len, v->metadata_region.off, v->metadata_region.len);
}

int vhdx_payload(struct vhdx *v, uint64_t block, enum vhdx_state *ret_state, uint64_t *ret_off)
{
    uint64_t entry;
    int r = vhdx_entry_read(v, vhdx_payload_index(v, block), &entry);
    if (r)
        return r;
    unsigned state = entry & STATE_MASK;
    uint64_t off = entry & OFFSET_MASK;
    bool present = state == VHDX_FULL || state == VHDX_PARTIAL;
    if ((state > VHDX_UNMAPPED && !present) || (state == VHDX_PARTIAL && !v->m.has_parent))
        return node_corrupt(&v->n, true, -1, 0, "VHDX block %" PRIu64 " is in state %u", block,
                            state);
    if (present && vhdx_is_wild(v, off, v->m.block_bytes))
        return node_corrupt(&v->n, true, (int64_t)off, v->m.block_bytes,
                            "VHDX block %" PRIu64 " cannot be at offset %" PRIu64, block, off);
    *ret_state = (enum vhdx_state)state;
    *ret_off = present ? off : 0;
    return 0;
}

int vhdx_set_payload(struct vhdx *v, uint64_t block, enum vhdx_state state, uint64_t off)
{
    return vhdx_entry_write(v, vhdx_payload_index(v, block), off | state);
}

int vhdx_bitmap(struct vhdx *v, uint64_t block, uint64_t *ret_off)
{
    uint64_t entry, chunk = block / v->chunk_ratio;
    int r = vhdx_entry_read(v, vhdx_bitmap_index(v, chunk), &entry);
    if (r)
        return r;
    uint64_t off = entry & OFFSET_MASK;
    if ((entry & STATE_MASK) != VHDX_BITMAP_PRESENT || vhdx_is_wild(v, off, VHDX_BITMAP_BYTES))
        return node_corrupt(&v->n, true, (int64_t)off, VHDX_BITMAP_BYTES,
                            "The VHDX bitmap of block %" PRIu64
                            " is missing, or cannot be at offset %" PRIu64,
                            block, off);
    *ret_off = off + block % v->chunk_ratio * (v->m.block_bytes / v->m.sector_bytes / 8);
    return 0;
}

/* ---- space ---- */

/* Behind everything that the tables refer to, in whatever state. */
static int find_end(struct vhdx *v, uint64_t *ret)
{
    uint64_t count = vhdx_bat_entries(vhdx_payload_blocks(v), v->chunk_ratio, v->m.has_parent);
    uint64_t end =
        max_u64(v->bat.off + v->bat.len, v->metadata_region.off + v->metadata_region.len);
    end = max_u64(end, v->header.log_offset + v->header.log_bytes);
    g_autofree uint64_t *part = g_try_new(uint64_t, SCAN_ENTRIES);
    for (uint64_t i = 0, n; i < count; i += n) {
        n = min_u64(count - i, SCAN_ENTRIES);
        int r = part ? pages_read(v->pages, v->bat.off + 8 * i, part, 8 * n) : -ENOMEM;
        if (r)
            return r;
        for (uint64_t k = 0; k < n; k++) {
            uint64_t off = GUINT64_FROM_LE(part[k]) & OFFSET_MASK;
            bool bitmap = (i + k) % (v->chunk_ratio + 1ULL) == v->chunk_ratio;
            if (off)
                end = max_u64(end, off + (bitmap ? VHDX_BITMAP_BYTES : v->m.block_bytes));
        }
    }
    *ret = end;
    return 0;
}

int vhdx_tighten(struct vhdx *v)
{
    struct node *file = node_file(&v->n);
    uint64_t end = 0;
    int r = find_end(v, &end);
    v->space_known = false;
    if (r)
        return r;
    /* Wild entries are for check to mend; until then nothing is allocated behind them. */
    if (end > VHDX_FILE_MAX || end > align_up(node_size(file), VHDX_MIB) + v->m.block_bytes)
        return -EIO;
    if (node_size(file) != end && !node_resize(file, end, PREALLOC_OFF, NULL))
        return -ENOSPC;
    v->space_known = true;
    v->next_free = v->reserved_end = end;
    return 0;
}

int vhdx_take_space(struct vhdx *v, uint64_t bytes, uint64_t *ret_off)
{
    struct node *file = node_file(&v->n);
    int r = v->space_known ? 0 : vhdx_tighten(v);
    if (r)
        return r;
    uint64_t end = v->next_free + bytes;
    if (end > v->reserved_end) {
        uint64_t more = align_up(min_u64(v->reserved_end / 8, RESERVE_MAX_BYTES), VHDX_MIB);
        if (end + more > VHDX_FILE_MAX)
            return -EFBIG;
        if (!node_resize(file, end + more, PREALLOC_OFF, NULL)) {
            more = 0;
            if (!node_resize(file, end, PREALLOC_OFF, NULL))
                return -ENOSPC;
        }
        v->reserved_end = end + more;
    }
    *ret_off = v->next_free;
    v->next_free = end;
    return 0;
}

/* The chunk's bitmap is there, and the block's part of it clear. */
static int clear_bitmap(struct vhdx *v, uint64_t block)
{
    static const uint8_t zeroes[VHDX_PAGE];
    uint64_t index = vhdx_bitmap_index(v, block / v->chunk_ratio), entry, off;
    int r = vhdx_entry_read(v, index, &entry);
    if (!r && (entry & STATE_MASK) != VHDX_BITMAP_PRESENT) {
        r = vhdx_take_space(v, VHDX_BITMAP_BYTES, &off);
        return r ? r : vhdx_entry_write(v, index, off | VHDX_BITMAP_PRESENT);
    }
    if (!r)
        r = vhdx_bitmap(v, block, &off);
    uint64_t len = v->m.block_bytes / v->m.sector_bytes / 8;
    for (uint64_t at = 0, n; at < len && !r; at += n) {
        n = min_u64(len - at, sizeof(zeroes));
        r = pages_write(v->pages, off + at, zeroes, n);
    }
    return r;
}

static int place_block(struct vhdx *v, uint64_t block, enum vhdx_state *state, uint64_t *off)
{
    bool over_parent = *state == VHDX_NOT_PRESENT && v->m.has_parent;
    int r = vhdx_take_space(v, v->m.block_bytes, off);
    if (!r && over_parent)
        r = clear_bitmap(v, block);
    *state = over_parent ? VHDX_PARTIAL : VHDX_FULL;
    return r ? r : vhdx_set_payload(v, block, *state, *off);
}

int vhdx_allocate(struct vhdx *v, uint64_t block, enum vhdx_state *ret_state, uint64_t *ret_off)
{
    int r = vhdx_payload(v, block, ret_state, ret_off);
    if (r || *ret_off)
        return r;
    fiber_mutex_lock(&v->alloc_lock);
    r = vhdx_payload(v, block, ret_state, ret_off); /* somebody else may have */
    if (!r && !*ret_off)
        r = place_block(v, block, ret_state, ret_off);
    fiber_mutex_unlock(&v->alloc_lock);
    return r;
}
