/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Making virtual hard disks, and saying how large they will be.
 *
 * Spec      Virtual Hard Disk Image Format Specification 1.0; QEMU's rule for sizes: without
 * force_size a disk is rounded up to whole cylinders, and its creator says that the geometry counts
 * ("qemu"); with it, or where no geometry reaches, the size is exact ("qem2").
 */
#include "image/vhd/pages.h"
#include "image/crypto.h"
#include "image/vhd/vhd.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define PART_BYTES (64 * KIB) /* of the table, written at a time */

static const char *const subformat_words[] = {"dynamic", "fixed", NULL};
const struct image_option vhd_create_options[] = {
    OPT_WORD("subformat", struct vhd_create, subformat, subformat_words, VHD_SUB_DYNAMIC,
             "dynamic or fixed"),
    OPT_BOOL("force_size", struct vhd_create, force_size, false,
             "Exactly the size asked for, rather than whole cylinders"),
    OPT_SIZE("block_size", struct vhd_create, block_size, VHD_BLOCK_DEFAULT, 512 * KIB, 256 * MIB,
             "Allocation unit of dynamic images"),
    {0},
};

/* Size, geometry and creator. */
static bool plan_size(uint64_t bytes, bool exact, struct vhd_footer *f, GError **error)
{
    uint64_t sectors = bytes / VHD_SECTOR + (bytes % VHD_SECTOR != 0);
    vhd_geometry(sectors, f);
    bool whole = vhd_chs_bytes(f) != VHD_CHS_SECTORS_MAX * VHD_SECTOR;
    if (!exact && whole)
        sectors = vhd_chs_bytes(f) / VHD_SECTOR;
    if (sectors * VHD_SECTOR > VHD_SIZE_MAX || bytes > VHD_SIZE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "A VHD of %" PRIu64 " bytes cannot be; the limit is %llu", bytes,
                           (unsigned long long)VHD_SIZE_MAX);
    memcpy(f->creator, exact ? "qem2" : "qemu", 4);
    f->original_bytes = f->current_bytes = sectors * VHD_SECTOR;
    return true;
}

static bool plan_footer(const struct image_create *c, struct vhd_footer *f, GError **error)
{
    const struct vhd_create *o = c->options;
    *f = (struct vhd_footer){.timestamp = vhd_now(), .data_offset = UINT64_MAX, .type = VHD_FIXED};
    if (o->subformat != VHD_SUB_FIXED) {
        f->type = c->backing_file ? VHD_DIFFERENCING : VHD_DYNAMIC;
        f->data_offset = VHD_FOOTER_BYTES;
    }
    if (crypto_random(f->uuid, sizeof(f->uuid)))
        return ruche_error(error, RUCHE_ERR_INTERNAL,
                           "There are no random bytes for a VHD's identifier");
    f->uuid[6] = (uint8_t)(0x40 | (f->uuid[6] & 0x0f));
    f->uuid[8] = (uint8_t)(0x80 | (f->uuid[8] & 0x3f));
    /* A child has its parent's size, to the byte. */
    return plan_size(c->size_bytes, o->force_size || c->backing_file, f, error);
}

static bool refuse_io(const struct image_create *c, int r, GError **error)
{
    return ruche_error_errno(error, -r, "'%s': cannot write", c->filename);
}

static bool create_fixed(const struct image_create *c, const struct vhd_footer *f, GError **error)
{
    uint8_t bytes[VHD_FOOTER_BYTES];
    if (!node_resize(c->file, f->current_bytes + sizeof(bytes), PREALLOC_OFF, error))
        return false;
    vhd_footer_store(f, bytes);
    int r = node_pwrite(c->file, f->current_bytes, bytes, sizeof(bytes), 0);
    return !r || refuse_io(c, r, error);
}

static int write_table(struct node *file, uint64_t at, uint64_t len)
{
    g_autofree uint8_t *part = g_try_malloc(PART_BYTES);
    int r = part ? 0 : -ENOMEM;
    if (part)
        memset(part, 0xff, PART_BYTES);
    for (uint64_t n; len && !r; at += n, len -= n) {
        n = min_u64(len, PART_BYTES);
        r = node_pwrite(file, at, part, n, 0);
    }
    return r;
}

/* Header and, when there is a parent, its names behind it; *at is left behind them. */
static bool plan_header(const struct image_create *c, struct vhd_header *h, uint8_t *area,
                        uint64_t *at, GError **error)
{
    *at = VHD_FOOTER_BYTES + VHD_HEADER_BYTES;
    if (!c->backing_file)
        return true;
    if (c->backing_format && strcmp(c->backing_format, "vpc"))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "'%s': the parent of a VHD must be a VHD ('vpc'), not '%s'", c->filename,
                           c->backing_format);
    struct vhd *parent = vhd_look_at_parent(c->file, c->backing_file, error);
    if (!parent)
        return false;
    bool ok = vhd_name_parent(h, c->backing_file, parent, area, *at, error);
    node_unref(&parent->n);
    *at += VHD_LOCATOR_BYTES;
    return ok;
}

static bool create_dynamic(const struct image_create *c, const struct vhd_footer *f, GError **error)
{
    const struct vhd_create *o = c->options;
    if (!is_power_of_2(o->block_size))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s': block_size %" PRIu64 " is no power of two", c->filename,
                           o->block_size);
    uint64_t entries = (f->current_bytes + o->block_size - 1) / o->block_size;
    struct vhd_header h = {.entries = (uint32_t)max_u64(entries, 1),
                           .block_bytes = (uint32_t)o->block_size};
    g_autofree uint8_t *area = g_malloc0(VHD_LOCATOR_BYTES);
    if (!plan_header(c, &h, area, &h.table_offset, error))
        return false;
    uint64_t table_bytes = align_up(4ULL * h.entries, VHD_SECTOR);
    uint64_t end = h.table_offset + table_bytes;
    uint8_t footer[VHD_FOOTER_BYTES], header[VHD_HEADER_BYTES];
    vhd_footer_store(f, footer);
    vhd_header_store(&h, header);
    if (!node_resize(c->file, end + sizeof(footer), PREALLOC_OFF, error))
        return false;
    int r = node_pwrite(c->file, 0, footer, sizeof(footer), 0);
    if (!r)
        r = node_pwrite(c->file, f->data_offset, header, sizeof(header), 0);
    if (!r && c->backing_file)
        r = node_pwrite(c->file, f->data_offset + sizeof(header), area, VHD_LOCATOR_BYTES, 0);
    if (!r)
        r = write_table(c->file, h.table_offset, table_bytes);
    if (!r)
        r = node_pwrite(c->file, end, footer, sizeof(footer), 0);
    return !r || refuse_io(c, r, error);
}

bool vhd_create(struct image_create *c, GError **error)
{
    struct vhd_footer f;
    if (!plan_footer(c, &f, error))
        return false;
    if (f.type == VHD_FIXED && c->backing_file)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "'%s': a fixed VHD cannot have a parent",
                           c->filename);
    return f.type == VHD_FIXED ? create_fixed(c, &f, error) : create_dynamic(c, &f, error);
}

bool vhd_measure(const void *create_options, uint64_t size_bytes, struct node *source,
                 struct image_measure *ret, GError **error)
{
    const struct vhd_create *o = create_options;
    struct vhd_footer f = {0};
    if (!plan_size(source ? node_size(source) : size_bytes, o->force_size, &f, error))
        return false;
    if (o->subformat == VHD_SUB_FIXED) {
        ret->required = ret->fully_allocated = f.current_bytes + VHD_FOOTER_BYTES;
        ret->bitmaps = UINT64_MAX;
        return true;
    }
    uint64_t blocks = (f.current_bytes + o->block_size - 1) / o->block_size, used = 0;
    uint64_t front =
        VHD_FOOTER_BYTES + VHD_HEADER_BYTES + align_up(4 * max_u64(blocks, 1), VHD_SECTOR);
    uint64_t start = front + 4096 + VHD_FOOTER_BYTES; /* the first block is aligned */
    if (source && !pages_count_blocks(source, o->block_size, &used, error))
        return false;
    uint64_t stride = vhd_stride((uint32_t)o->block_size);
    *ret = (struct image_measure){start + used * stride, start + blocks * stride, UINT64_MAX};
    return true;
}
