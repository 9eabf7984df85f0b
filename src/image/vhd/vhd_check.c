/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checking virtual hard disks, and mending what can be.
 *
 * Spec      Virtual Hard Disk Image Format Specification 1.0.
 * Memory    Four bytes a block: 64 MiB at most.
 * Trust     The table is hostile. Wild entries can be dropped (their data is nowhere); of two
 * blocks at one place, which is right nobody knows.
 */
#include "image/vhd/vhd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct check {
    struct vhd *v;
    struct image_check *ret;
    unsigned fix, reports;
    uint32_t *used; /* sectors where blocks begin */
    uint32_t used_count;
};

static void G_GNUC_PRINTF(2, 3) report(struct check *k, const char *format, ...)
{
    va_list args;
    if (!k->ret->report || k->reports++ >= CHECK_REPORT_MAX)
        return;
    va_start(args, format);
    g_autofree char *sentence = g_strdup_vprintf(format, args);
    va_end(args);
    k->ret->report(sentence, k->ret->opaque);
}

static void found(struct check *k, bool fixed)
{
    if (fixed)
        k->ret->corruptions_fixed++;
    else
        k->ret->corruptions++;
}

static int check_entry(struct check *k, uint32_t block, uint32_t entry)
{
    struct vhd *v = k->v;
    uint64_t off = (uint64_t)entry * VHD_SECTOR;
    int r = 0;
    if (entry == VHD_UNUSED)
        return 0;
    k->ret->allocated_clusters++;
    if (!vhd_is_wild(v, off)) {
        k->used[k->used_count++] = entry;
        k->ret->image_end_offset =
            max_u64(k->ret->image_end_offset, off + v->bitmap_bytes + v->header.block_bytes);
        return 0;
    }
    bool fix = k->fix & CHECK_FIX_ERRORS;
    if (fix) {
        uint32_t unused = VHD_UNUSED;
        r = pages_write(v->pages, v->header.table_offset + 4ULL * block, &unused, sizeof(unused));
    }
    report(k, "Block %u cannot be at offset %" PRIu64 "%s", block, off,
           fix ? "; it is dropped" : "");
    found(k, fix && !r);
    return r;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void check_overlaps(struct check *k)
{
    uint32_t sectors = (k->v->bitmap_bytes + k->v->header.block_bytes) / VHD_SECTOR;
    qsort(k->used, k->used_count, sizeof(k->used[0]), by_value);
    for (uint32_t i = 1; i < k->used_count; i++)
        if (k->used[i] - k->used[i - 1] < sectors) {
            report(k, "Blocks at offsets %" PRIu64 " and %" PRIu64 " overlap",
                   (uint64_t)k->used[i - 1] * VHD_SECTOR, (uint64_t)k->used[i] * VHD_SECTOR);
            found(k, false);
        }
}

static int check_table(struct check *k)
{
    uint32_t blocks = vhd_blocks(k->v), be;
    k->ret->total_clusters = blocks;
    for (uint32_t i = 0; i < blocks; i++) {
        int r = pages_read(k->v->pages, k->v->header.table_offset + 4ULL * i, &be, sizeof(be));
        if (!r)
            r = check_entry(k, i, GUINT32_FROM_BE(be));
        if (r)
            return r;
    }
    check_overlaps(k);
    return pages_are_dirty(k->v->pages) ? pages_commit(k->v->pages) : 0;
}

/* The footer at the end is for readers that look only there, and was on its way when the image was
 * left open: worth a word. */
static int check_end(struct check *k)
{
    struct vhd *v = k->v;
    if (!v->n.unclean)
        return 0;
    bool fix = k->fix & CHECK_FIX_ERRORS;
    int r = fix ? vhd_tighten(v) : 0;
    report(k, "There is no footer at the end; the one at the front is good%s",
           fix && !r ? ", and written there" : "");
    k->ret->corruptions_fixed += fix && !r;
    v->n.unclean = !fix || r;
    return r;
}

static void check_parent(struct check *k)
{
    struct vhd *v = k->v;
    struct node *parent = node_backing(&v->n);
    if (v->footer.type != VHD_DIFFERENCING || !parent || strcmp(node_format(parent), "vpc"))
        return;
    if (memcmp(vhd_of(parent)->footer.uuid, v->header.parent_uuid, 16)) {
        report(k, "The parent '%s' is not the image that this one was made from",
               node_filename(parent));
        found(k, false);
    }
    /* Copying a file changes its time, so that this is worth a word and no more. */
    uint32_t time = vhd_parent_time(parent);
    if (time && v->header.parent_timestamp && time != v->header.parent_timestamp)
        report(k, "The parent '%s' was changed, or copied, after this image was made",
               node_filename(parent));
}

bool vhd_check(struct node *n, unsigned fix, struct image_check *ret, GError **error)
{
    struct vhd *v = vhd_of(n);
    if (!v->pages) {
        ret->image_end_offset = node_size(node_file(n));
        return true;
    }
    struct check k = {.v = v, .ret = ret, .fix = n->read_only ? 0 : fix};
    k.used = g_try_new(uint32_t, max_u64(vhd_blocks(v), 1));
    int r = k.used ? check_table(&k) : -ENOMEM;
    if (!r)
        r = check_end(&k);
    check_parent(&k);
    g_free(k.used);
    return !r || ruche_error_errno(error, -r, "image '%s': cannot check", node_filename(n));
}
