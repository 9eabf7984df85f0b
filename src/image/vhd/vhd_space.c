/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where blocks are, and room for new ones.
 *
 * Spec      Virtual Hard Disk Image Format Specification 1.0: block allocation table.
 * Fiber     Allocation is serial (alloc_lock), data is not: an allocated block is in the table, in
 *           memory, before its data is written, and reads as it did before.
 * Crash     The footer at the end is in the way of new blocks. So the file grows by many blocks at
 *           once, and the footer is durable at the new end before the first block overwrites the
 *           old one. A block's bitmap is written when it is allocated, and its table entry at the
 *           next commit, behind a sync: an entry on disk refers to a block that is there. What was
 *           reserved and not used is given back on closing, or by the next writer, who cannot know
 *           whether it is still zeroes.
 * Trust     Table entries are hostile: see check_entry().
 */
#include "image/vhd/vhd.h"

#include <errno.h>
#include <inttypes.h>

#define RESERVE_MIN_BLOCKS 4
#define RESERVE_MAX_BYTES  (64 * MIB)
#define SCAN_ENTRIES       16384

uint32_t vhd_blocks(const struct vhd *v)
{
    return (uint32_t)((v->n.size_bytes + v->header.block_bytes - 1) / v->header.block_bytes);
}

static uint64_t block_end(const struct vhd *v, uint64_t off)
{
    return off + v->bitmap_bytes + v->header.block_bytes;
}

static uint64_t table_end(const struct vhd *v)
{
    return v->header.table_offset + align_up(4ULL * v->header.entries, VHD_SECTOR);
}

bool vhd_is_wild(struct vhd *v, uint64_t off)
{
    uint64_t header = v->footer.data_offset, end = block_end(v, off);
    bool in_header = off < header + VHD_HEADER_BYTES && end > header;
    bool in_table = off < table_end(v) && end > v->header.table_offset;
    return off < VHD_FOOTER_BYTES || in_header || in_table || off >= node_size(node_file(&v->n));
}

int vhd_lookup(struct vhd *v, uint32_t block, uint64_t *ret_off)
{
    uint32_t be;
    int r = pages_read(v->pages, v->header.table_offset + 4ULL * block, &be, sizeof(be));
    if (r)
        return r;
    uint32_t entry = GUINT32_FROM_BE(be);
    uint64_t off = entry == VHD_UNUSED ? 0 : (uint64_t)entry * VHD_SECTOR;
    if (entry != VHD_UNUSED && vhd_is_wild(v, off))
        return node_corrupt(&v->n, true, (int64_t)off, v->header.block_bytes,
                            "VHD block %u cannot be at offset %" PRIu64, block, off);
    *ret_off = off;
    return 0;
}

int vhd_write_end_footer(struct vhd *v, uint64_t at)
{
    uint8_t bytes[VHD_FOOTER_BYTES];
    vhd_footer_store(&v->footer, bytes);
    return node_pwrite(node_file(&v->n), at, bytes, sizeof(bytes), 0);
}

int vhd_switch(struct vhd *v, const struct vhd_footer *f, const struct vhd_header *h)
{
    struct node *file = node_file(&v->n);
    uint8_t bytes[VHD_HEADER_BYTES];
    int r = 0;
    if (h) {
        vhd_header_store(h, bytes);
        r = node_pwrite(file, f->data_offset, bytes, VHD_HEADER_BYTES, 0);
    }
    if (!r)
        r = node_flush(file);
    vhd_footer_store(f, bytes);
    if (!r)
        r = node_pwrite(file, 0, bytes, VHD_FOOTER_BYTES, 0);
    if (!r)
        r = node_flush(file);
    if (r)
        return r;
    v->footer = *f;
    if (h)
        v->header = *h;
    return vhd_write_end_footer(v, node_size(file) - VHD_FOOTER_BYTES);
}

/* The table's part that the file has; a short file's rest is unused. */
int vhd_find_end(struct vhd *v, uint64_t *ret)
{
    g_autofree uint32_t *part = g_try_new(uint32_t, SCAN_ENTRIES);
    uint64_t end = max_u64(v->footer.data_offset + VHD_HEADER_BYTES, table_end(v));
    for (unsigned i = 0; i < VHD_LOCATORS; i++)
        if (v->header.locators[i].code[0] && v->header.locators[i].off <= VHD_FILE_MAX)
            end = max_u64(end, v->header.locators[i].off +
                                   align_up(v->header.locators[i].len, VHD_SECTOR));
    uint32_t count = vhd_blocks(v); /* entries behind the disk mean nothing */
    for (uint32_t i = 0, n; i < count; i += n) {
        n = MIN(count - i, SCAN_ENTRIES);
        int r = part ? pages_read(v->pages, v->header.table_offset + 4ULL * i, part, 4ULL * n)
                     : -ENOMEM;
        if (r)
            return r;
        for (uint32_t k = 0; k < n; k++) {
            uint64_t off = (uint64_t)GUINT32_FROM_BE(part[k]) * VHD_SECTOR;
            if (part[k] != VHD_UNUSED)
                end = max_u64(end, block_end(v, off));
        }
    }
    *ret = end;
    return 0;
}

int vhd_tighten(struct vhd *v)
{
    struct node *file = node_file(&v->n);
    uint64_t end;
    int r = vhd_find_end(v, &end);
    if (r)
        return r;
    v->space_known = false;
    /* Wild entries are for check to mend; until then nothing is allocated behind them. */
    if (end > VHD_FILE_MAX || end > node_size(file) + v->header.block_bytes + 2 * MIB)
        return -EIO;
    if (end + VHD_FOOTER_BYTES > node_size(file) &&
        !node_resize(file, end + VHD_FOOTER_BYTES, PREALLOC_OFF, NULL))
        return -ENOSPC;
    r = vhd_write_end_footer(v, end);
    if (!r)
        r = node_flush(file);
    if (!r && node_size(file) > end + VHD_FOOTER_BYTES &&
        !node_resize(file, end + VHD_FOOTER_BYTES, PREALLOC_OFF, NULL))
        r = -EIO;
    if (!r) {
        v->space_known = true;
        v->next_free = vhd_place(end, v->header.block_bytes);
        v->reserved_end = end;
    }
    return r;
}

/* Makes room behind reserved_end, for `need` bytes at least. */
static int reserve(struct vhd *v, uint64_t need)
{
    struct node *file = node_file(&v->n);
    uint64_t stride = vhd_stride(v->header.block_bytes);
    need = (need + stride - 1) / stride * stride;
    uint64_t bytes = CLAMP(v->reserved_end / 8, RESERVE_MIN_BLOCKS * stride, RESERVE_MAX_BYTES);
    bytes = max_u64(bytes / stride * stride, need);
    if (v->reserved_end + bytes > VHD_FILE_MAX)
        return -EFBIG;
    uint64_t end = v->reserved_end + bytes;
    if (!node_resize(file, end + VHD_FOOTER_BYTES, PREALLOC_OFF, NULL)) {
        end = v->reserved_end + need; /* there may be room for as much */
        if (!node_resize(file, end + VHD_FOOTER_BYTES, PREALLOC_OFF, NULL))
            return -ENOSPC;
    }
    int r = vhd_write_end_footer(v, end);
    if (!r)
        r = node_flush(file);
    if (!r) /* the old one may come to lie inside a block */
        r = node_zero(file, v->reserved_end, VHD_FOOTER_BYTES, 0);
    if (!r)
        v->reserved_end = end;
    return r;
}

int vhd_take_space(struct vhd *v, uint64_t bytes, uint64_t *ret_off)
{
    int r = v->space_known ? 0 : vhd_tighten(v);
    if (!r && v->next_free + bytes > v->reserved_end)
        r = reserve(v, v->next_free + bytes - v->reserved_end);
    if (r)
        return r;
    *ret_off = v->next_free;
    v->next_free = vhd_place(v->next_free + bytes, v->header.block_bytes);
    return 0;
}

static int place_block(struct vhd *v, uint32_t block, uint64_t *ret_off)
{
    uint64_t off;
    int r = vhd_take_space(v, vhd_stride(v->header.block_bytes), &off);
    if (r)
        return r;
    g_autofree uint8_t *bitmap = g_try_malloc(v->bitmap_bytes);
    if (!bitmap)
        return -ENOMEM;
    memset(bitmap, node_backing(&v->n) ? 0 : 0xff, v->bitmap_bytes);
    r = node_pwrite(node_file(&v->n), off, bitmap, v->bitmap_bytes, 0);
    if (r)
        return r;
    pages_forget(v->pages, off, v->bitmap_bytes);
    uint32_t be = GUINT32_TO_BE((uint32_t)(off / VHD_SECTOR));
    r = pages_write(v->pages, v->header.table_offset + 4ULL * block, &be, sizeof(be));
    if (r)
        return r;
    *ret_off = off;
    return 0;
}

int vhd_allocate(struct vhd *v, uint32_t block, uint64_t *ret_off)
{
    int r = vhd_lookup(v, block, ret_off);
    if (r || *ret_off)
        return r;
    fiber_mutex_lock(&v->alloc_lock);
    r = vhd_lookup(v, block, ret_off); /* somebody else may have */
    if (!r && !*ret_off)
        r = place_block(v, block, ret_off);
    fiber_mutex_unlock(&v->alloc_lock);
    return r;
}
