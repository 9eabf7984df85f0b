/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Footer, header and geometry of virtual hard disks.
 *
 * Spec      Virtual Hard Disk Image Format Specification 1.0: hard disk footer, dynamic disk
 *           header, appendix "CHS calculation".
 * Trust     Hostile bytes, through a cursor; what is returned is inside its limits.
 */
#include "image/vhd/vhd.h"

#include "base/cursor.h"
#include "image/vhd/put.h"

#include <inttypes.h>
#include <time.h>

#define FOOTER_COOKIE      "conectix"
#define HEADER_COOKIE      "cxsparse"
#define FOOTER_CHECKSUM_AT 64
#define HEADER_CHECKSUM_AT 36
#define VERSION            0x00010000u
#define FEATURES           2u /* a bit that is always set */
#define CREATOR_VERSION    0x00050003u
#define SECTORS_PER_4K     8

/* One's complement of the sum of all bytes but the checksum's own. */
static uint32_t checksum(const uint8_t *p, size_t len, size_t skip)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < len; i++)
        if (i < skip || i >= skip + 4)
            sum += p[i];
    return ~sum;
}

bool vhd_footer_load(const uint8_t *bytes, const char *what, struct vhd_footer *ret, GError **error)
{
    struct vhd_footer f = {0};
    struct cur c = cur_of(bytes, VHD_FOOTER_BYTES);
    if (memcmp(cur_take(&c, 8), FOOTER_COOKIE, 8))
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: there is no VHD footer", what);
    cur_be32(&c); /* features */
    uint32_t version = cur_be32(&c);
    f.data_offset = cur_be64(&c);
    f.timestamp = cur_be32(&c);
    cur_copy(&c, f.creator, sizeof(f.creator));
    cur_take(&c, 8); /* creator's version and system */
    f.original_bytes = cur_be64(&c);
    f.current_bytes = cur_be64(&c);
    f.cylinders = cur_be16(&c);
    f.heads = cur_u8(&c);
    f.sectors = cur_u8(&c);
    uint32_t type = cur_be32(&c), sum = cur_be32(&c);
    cur_copy(&c, f.uuid, sizeof(f.uuid));
    f.saved_state = cur_u8(&c);
    if (sum != checksum(bytes, VHD_FOOTER_BYTES, FOOTER_CHECKSUM_AT))
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: the VHD footer's checksum %#x is wrong",
                           what, sum);
    if (version >> 16 != VERSION >> 16)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "%s: VHD version %u.%u is not supported; 1.0 is", what, version >> 16,
                           version & 0xffff);
    if (type < VHD_FIXED || type > VHD_DIFFERENCING)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "%s: VHD disk type %u is not supported",
                           what, type);
    f.type = (enum vhd_type)type;
    *ret = f;
    return true;
}

static void set_checksum(uint8_t *bytes, size_t len, size_t at)
{
    struct put w = put_to(bytes + at, 4);
    put_be32(&w, checksum(bytes, len, at));
}

void vhd_footer_store(const struct vhd_footer *f, uint8_t *bytes)
{
    struct put w = put_to(bytes, VHD_FOOTER_BYTES);
    put_bytes(&w, FOOTER_COOKIE, 8);
    put_be32(&w, FEATURES);
    put_be32(&w, VERSION);
    put_be64(&w, f->data_offset);
    put_be32(&w, f->timestamp);
    put_bytes(&w, f->creator, sizeof(f->creator));
    put_be32(&w, CREATOR_VERSION);
    put_bytes(&w, "Wi2k", 4);
    put_be64(&w, f->original_bytes);
    put_be64(&w, f->current_bytes);
    put_be16(&w, f->cylinders);
    put_u8(&w, f->heads);
    put_u8(&w, f->sectors);
    put_be32(&w, f->type);
    put_be32(&w, 0);
    put_bytes(&w, f->uuid, sizeof(f->uuid));
    put_u8(&w, f->saved_state);
    put_zeroes(&w, (size_t)(w.end - w.p));
    set_checksum(bytes, VHD_FOOTER_BYTES, FOOTER_CHECKSUM_AT);
}

static bool check_header(const struct vhd_header *h, const char *what, GError **error)
{
    if (!is_power_of_2(h->block_bytes) || h->block_bytes < 4 * KIB || h->block_bytes > 256 * MIB)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: VHD block size %u is no power of two between 4 KiB and 256 MiB",
                           what, h->block_bytes);
    if (h->table_offset % VHD_SECTOR || h->table_offset < VHD_FOOTER_BYTES ||
        h->table_offset > VHD_FILE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the VHD block table cannot be at %" PRIu64, what, h->table_offset);
    return true;
}

bool vhd_header_load(const uint8_t *bytes, const char *what, struct vhd_header *ret, GError **error)
{
    struct vhd_header h = {0};
    struct cur c = cur_of(bytes, VHD_HEADER_BYTES);
    if (memcmp(cur_take(&c, 8), HEADER_COOKIE, 8))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: there is no VHD header where the footer says", what);
    cur_be64(&c); /* of a next structure: none is defined */
    h.table_offset = cur_be64(&c);
    uint32_t version = cur_be32(&c);
    h.entries = cur_be32(&c);
    h.block_bytes = cur_be32(&c);
    uint32_t sum = cur_be32(&c);
    cur_copy(&c, h.parent_uuid, sizeof(h.parent_uuid));
    h.parent_timestamp = cur_be32(&c);
    cur_be32(&c);
    cur_copy(&c, h.parent_name, sizeof(h.parent_name));
    for (unsigned i = 0; i < VHD_LOCATORS; i++) {
        struct vhd_locator *l = &h.locators[i];
        cur_copy(&c, l->code, sizeof(l->code));
        l->space = cur_be32(&c);
        l->len = cur_be32(&c);
        cur_be32(&c);
        l->off = cur_be64(&c);
    }
    if (sum != checksum(bytes, VHD_HEADER_BYTES, HEADER_CHECKSUM_AT))
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: the VHD header's checksum %#x is wrong",
                           what, sum);
    if (version >> 16 != VERSION >> 16)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "%s: VHD header version %u.%u is not supported; 1.0 is", what,
                           version >> 16, version & 0xffff);
    if (!check_header(&h, what, error))
        return false;
    *ret = h;
    return true;
}

void vhd_header_store(const struct vhd_header *h, uint8_t *bytes)
{
    struct put w = put_to(bytes, VHD_HEADER_BYTES);
    put_bytes(&w, HEADER_COOKIE, 8);
    put_be64(&w, UINT64_MAX);
    put_be64(&w, h->table_offset);
    put_be32(&w, VERSION);
    put_be32(&w, h->entries);
    put_be32(&w, h->block_bytes);
    put_be32(&w, 0);
    put_bytes(&w, h->parent_uuid, sizeof(h->parent_uuid));
    put_be32(&w, h->parent_timestamp);
    put_be32(&w, 0);
    put_bytes(&w, h->parent_name, sizeof(h->parent_name));
    for (unsigned i = 0; i < VHD_LOCATORS; i++) {
        const struct vhd_locator *l = &h->locators[i];
        put_bytes(&w, l->code, sizeof(l->code));
        put_be32(&w, l->space);
        put_be32(&w, l->len);
        put_be32(&w, 0);
        put_be64(&w, l->off);
    }
    put_zeroes(&w, (size_t)(w.end - w.p));
    set_checksum(bytes, VHD_HEADER_BYTES, HEADER_CHECKSUM_AT);
}

/* The specification's calculation; cylinders are rounded down. */
static void calculate(uint64_t sectors, struct vhd_footer *f)
{
    uint64_t tracks;
    uint32_t heads = 16, per_track;
    if (sectors > VHD_CHS_SECTORS_MAX)
        sectors = VHD_CHS_SECTORS_MAX;
    if (sectors >= 65535ULL * 16 * 63) {
        per_track = 255;
        tracks = sectors / per_track;
    } else {
        per_track = 17;
        tracks = sectors / per_track;
        heads = (uint32_t)max_u64((tracks + 1023) / 1024, 4);
        if (tracks >= heads * 1024ULL || heads > 16) {
            per_track = 31;
            heads = 16;
            tracks = sectors / per_track;
        }
        if (tracks >= heads * 1024ULL) {
            per_track = 63;
            heads = 16;
            tracks = sectors / per_track;
        }
    }
    f->cylinders = (uint16_t)(tracks / heads);
    f->heads = (uint8_t)heads;
    f->sectors = (uint8_t)per_track;
}

uint64_t vhd_chs_bytes(const struct vhd_footer *f)
{
    return (uint64_t)f->cylinders * f->heads * f->sectors * VHD_SECTOR;
}

void vhd_geometry(uint64_t sectors, struct vhd_footer *f)
{
    sectors = min_u64(sectors, VHD_CHS_SECTORS_MAX);
    /* Rounding loses less than a cylinder, so that this ends within 255 * 16 steps. */
    for (uint64_t more = 0;; more++) {
        calculate(sectors + more, f);
        if (vhd_chs_bytes(f) >= sectors * VHD_SECTOR)
            return;
    }
}

uint64_t vhd_disk_bytes(const struct vhd_footer *f, int size_rule)
{
    /* Programs that mean the size they wrote; all others let the guest see the geometry. */
    static const char exact[][4] = {{'w', 'i', 'n', ' '}, {'q', 'e', 'm', '2'},
                                    {'d', '2', 'v', ' '}, {'t', 'a', 'p', 0},
                                    {'C', 'T', 'X', 'S'}, {'v', 'b', 'o', 'x'}};
    bool chs = size_rule != VHD_SIZE_CURRENT;
    for (unsigned i = 0; size_rule == VHD_SIZE_BY_CREATOR && i < ARRAY_COUNT(exact); i++)
        chs &= memcmp(f->creator, exact[i], 4) != 0;
    uint64_t bytes = vhd_chs_bytes(f);
    if (!chs || !bytes || bytes == VHD_CHS_SECTORS_MAX * VHD_SECTOR)
        bytes = align_down(f->current_bytes, VHD_SECTOR);
    return bytes;
}

uint32_t vhd_now(void)
{
    return (uint32_t)(time(NULL) - VHD_EPOCH_SEC);
}

uint32_t vhd_bitmap_bytes(uint32_t block_bytes)
{
    return (uint32_t)align_up(block_bytes / VHD_SECTOR / 8, VHD_SECTOR);
}

uint64_t vhd_stride(uint32_t block_bytes)
{
    return align_up((uint64_t)vhd_bitmap_bytes(block_bytes) + block_bytes,
                    SECTORS_PER_4K * VHD_SECTOR);
}

uint64_t vhd_place(uint64_t end, uint32_t block_bytes)
{
    uint32_t bitmap = vhd_bitmap_bytes(block_bytes);
    return align_up(end + bitmap, SECTORS_PER_4K * VHD_SECTOR) - bitmap;
}
