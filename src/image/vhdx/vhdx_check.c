/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checking VHDX files, and mending what can be.
 *
 * Spec      [MS-VHDX] 2.2, 2.5.
 * Memory    One bit a MiB of the file: 16 MiB at most.
 * Trust     The table is hostile. Wild entries can be dropped (their data is nowhere); of two
 * blocks at one place, which is right nobody knows.
 */
#include "image/vhdx/vhdx.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define STATE_MASK  7u
#define OFFSET_MASK (~(uint64_t)(VHDX_MIB - 1))

struct check {
    struct vhdx *v;
    struct image_check *ret;
    bool fix;
    unsigned reports;
    uint8_t *used; /* a bit a MiB */
    uint64_t units;
};

static void G_GNUC_PRINTF(3, 4) found(struct check *k, bool fixed, const char *format, ...)
{
    if (fixed)
        k->ret->corruptions_fixed++;
    else
        k->ret->corruptions++;
    if (!k->ret->report || k->reports++ >= CHECK_REPORT_MAX)
        return;
    va_list args;
    va_start(args, format);
    g_autofree char *sentence = g_strdup_vprintf(format, args);
    va_end(args);
    k->ret->report(sentence, k->ret->opaque);
}

/* True when somebody else has a part of it. */
static bool take(struct check *k, uint64_t off, uint64_t len)
{
    bool taken = false;
    for (uint64_t u = off / VHDX_MIB; u < (off + len) / VHDX_MIB && u < k->units; u++) {
        taken |= k->used[u / 8] & (1u << u % 8);
        k->used[u / 8] |= (uint8_t)(1u << u % 8);
    }
    k->ret->image_end_offset = max_u64(k->ret->image_end_offset, off + len);
    return taken;
}

static int drop(struct check *k, uint64_t index)
{
    return k->fix ? vhdx_entry_write(k->v, index, 0) : 0;
}

static int check_bitmap_entry(struct check *k, uint64_t index, uint64_t entry)
{
    struct vhdx *v = k->v;
    uint64_t off = entry & OFFSET_MASK, chunk = index / (v->chunk_ratio + 1ULL);
    unsigned state = entry & STATE_MASK;
    if (!state || !v->m.has_parent)
        return 0;
    if (state != VHDX_BITMAP_PRESENT || vhdx_is_wild(v, off, VHDX_BITMAP_BYTES)) {
        found(k, k->fix, "Bitmap %" PRIu64 " in state %u cannot be at offset %" PRIu64, chunk,
              state, off);
        return drop(k, index);
    }
    if (take(k, off, VHDX_BITMAP_BYTES))
        found(k, false, "Bitmap %" PRIu64 " at offset %" PRIu64 " overlaps another block", chunk,
              off);
    return 0;
}

static int check_block(struct check *k, uint64_t block, uint64_t index, uint64_t entry)
{
    struct vhdx *v = k->v;
    uint64_t off = entry & OFFSET_MASK, bitmap = 0;
    unsigned state = entry & STATE_MASK;
    bool present = state == VHDX_FULL || state == VHDX_PARTIAL;
    if (state <= VHDX_UNMAPPED)
        return 0;
    if (!present || (state == VHDX_PARTIAL && !v->m.has_parent) ||
        vhdx_is_wild(v, off, v->m.block_bytes)) {
        found(k, k->fix, "Block %" PRIu64 " in state %u cannot be at offset %" PRIu64, block, state,
              off);
        return drop(k, index);
    }
    k->ret->allocated_clusters++;
    if (take(k, off, v->m.block_bytes))
        found(k, false, "Block %" PRIu64 " at offset %" PRIu64 " overlaps another", block, off);
    int r = state == VHDX_PARTIAL
                ? vhdx_entry_read(v, vhdx_bitmap_index(v, block / v->chunk_ratio), &bitmap)
                : 0;
    if (!r && state == VHDX_PARTIAL && (bitmap & STATE_MASK) != VHDX_BITMAP_PRESENT)
        found(k, false,
              "Block %" PRIu64 " is there in part, and there is no bitmap that says which", block);
    return r;
}

static int check_table(struct check *k)
{
    struct vhdx *v = k->v;
    uint64_t blocks = vhdx_payload_blocks(v), entry;
    uint64_t count = vhdx_bat_entries(blocks, v->chunk_ratio, v->m.has_parent);
    k->ret->total_clusters = blocks;
    int r = 0;
    for (uint64_t i = 0; i < count && !r; i++) {
        r = vhdx_entry_read(v, i, &entry);
        uint64_t chunk = i / (v->chunk_ratio + 1ULL), in = i % (v->chunk_ratio + 1ULL);
        uint64_t block = chunk * v->chunk_ratio + in;
        if (!r && in == v->chunk_ratio)
            r = check_bitmap_entry(k, i, entry);
        else if (!r && block < blocks)
            r = check_block(k, block, i, entry);
    }
    return r;
}

static void check_regions(struct check *k)
{
    const struct vhdx *v = k->v;
    bool taken = take(k, 0, VHDX_MIB);
    taken |= take(k, v->header.log_offset, v->header.log_bytes);
    taken |= take(k, v->metadata_region.off, v->metadata_region.len);
    taken |= take(k, v->bat.off, v->bat.len);
    if (taken)
        found(k, false, "Log, metadata and block table overlap");
}

/* The second table serves when the first one breaks. */
static int check_tables(struct check *k)
{
    struct vhdx *v = k->v;
    struct vhdx_range bat, metadata;
    g_autofree uint8_t *bytes = g_malloc(VHDX_TABLE_BYTES);
    for (unsigned i = 0; i < 2; i++) {
        int r = pages_read(v->pages, VHDX_REGIONS_AT(i), bytes, VHDX_TABLE_BYTES);
        if (r)
            return r;
        if (vhdx_regions_load(bytes, "", &bat, &metadata, NULL) && bat.off == v->bat.off)
            continue;
        found(k, k->fix, "Region table %u is broken%s", i + 1,
              k->fix ? "; it is written again" : "");
        vhdx_regions_store(v->bat, v->metadata_region, bytes);
        if (k->fix && (r = pages_write(v->pages, VHDX_REGIONS_AT(i), bytes, VHDX_TABLE_BYTES)))
            return r;
    }
    return 0;
}

bool vhdx_check(struct node *n, unsigned fix, struct image_check *ret, GError **error)
{
    struct vhdx *v = vhdx_of(n);
    uint64_t size = node_size(node_file(n));
    struct check k = {.v = v, .ret = ret, .fix = fix & CHECK_FIX_ERRORS && !n->read_only};
    k.units = min_u64(size, VHDX_FILE_MAX) / VHDX_MIB + 1;
    k.used = g_try_malloc0(k.units / 8 + 1);
    int r = k.used ? 0 : -ENOMEM;
    if (!r && k.fix)
        r = vhdx_begin_write(v);
    if (!r)
        r = check_tables(&k);
    if (!r) {
        check_regions(&k);
        r = check_table(&k);
    }
    if (!r && pages_are_dirty(v->pages))
        r = pages_commit(v->pages);
    g_free(k.used);
    return !r || ruche_error_errno(error, -r, "image '%s': cannot check", n->filename);
}
