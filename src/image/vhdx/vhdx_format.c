/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Headers, region tables and the metadata table of VHDX files.
 *
 * Spec      [MS-VHDX] 2.2 (header section), 2.6 (metadata region).
 * Trust     Hostile bytes, through a cursor; counts are bounded by the tables' 64 KiB.
 */
#include "image/vhdx/vhdx.h"

#include "base/cursor.h"
#include "image/vhd/put.h"

#include <inttypes.h>
#include <nmmintrin.h>

#define HEADER_SIGNATURE     0x64616568u           /* "head" */
#define REGIONS_SIGNATURE    0x69676572u           /* "regi" */
#define METADATA_SIGNATURE   0x617461646174656dULL /* "metadata" */
#define CHECKSUM_AT          4
#define REGIONS_MAX          2047
#define METADATA_ENTRIES_MAX 2047
#define REQUIRED             1u
#define ITEM_IS_USER         1u
#define ITEM_IS_DISK         2u
#define ITEM_IS_REQUIRED     4u

const uint8_t vhdx_signature[8] = {'v', 'h', 'd', 'x', 'f', 'i', 'l', 'e'};

/* GUIDs as they are stored: the first three parts little-endian. */
static const uint8_t bat_guid[VHDX_GUID] = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
                                            0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};
static const uint8_t metadata_guid[VHDX_GUID] = {0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
                                                 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e};
static const struct {
    uint8_t guid[VHDX_GUID];
    uint32_t flags, len; /* len 0: any */
    const char *name;
} items[VHDX_ITEMS] = {
    [VHDX_FILE_PARAMETERS] = {{0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33,
                               0xf0, 0xaa, 0x44, 0xe7, 0x6b},
                              ITEM_IS_REQUIRED,
                              8,
                              "file parameters"},
    [VHDX_DISK_SIZE] = {{0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe,
                         0xd8, 0x3b, 0xf4, 0xb8},
                        ITEM_IS_REQUIRED | ITEM_IS_DISK,
                        8,
                        "virtual disk size"},
    [VHDX_PAGE83] = {{0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0,
                      0x00, 0xc7, 0x46},
                     ITEM_IS_REQUIRED | ITEM_IS_DISK,
                     16,
                     "virtual disk identifier"},
    [VHDX_LOGICAL_SECTOR] = {{0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2,
                              0x33, 0xa8, 0xfa, 0xab, 0x5f},
                             ITEM_IS_REQUIRED | ITEM_IS_DISK,
                             4,
                             "logical sector size"},
    [VHDX_PHYSICAL_SECTOR] = {{0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9,
                               0x88, 0x52, 0x51, 0xc5, 0x56},
                              ITEM_IS_REQUIRED | ITEM_IS_DISK,
                              4,
                              "physical sector size"},
    [VHDX_PARENT_LOCATOR] = {{0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3,
                              0xd8, 0x48, 0x34, 0xab, 0x0c},
                             ITEM_IS_REQUIRED,
                             0,
                             "parent locator"},
};

/* ---- CRC32C ---- */

static uint32_t crc_table[256];

static void __attribute__((constructor)) make_crc_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (unsigned k = 0; k < 8; k++)
            c = c >> 1 ^ (c & 1 ? 0x82f63b78u : 0);
        crc_table[i] = c;
    }
}

__attribute__((target("sse4.2"))) static uint32_t crc_sse42(uint32_t crc, const uint8_t *p,
                                                            size_t len)
{
    uint64_t c = crc, v;
    for (; len >= 8; p += 8, len -= 8) {
        memcpy(&v, p, 8);
        c = _mm_crc32_u64(c, v);
    }
    for (; len; p++, len--)
        c = _mm_crc32_u8((uint32_t)c, *p);
    return (uint32_t)c;
}

uint32_t vhdx_crc32c(uint32_t crc, const void *data, size_t len)
{
    const uint8_t *p = data;
    crc = ~crc;
    if (__builtin_cpu_supports("sse4.2"))
        return ~crc_sse42(crc, p, len);
    while (len--)
        crc = crc >> 8 ^ crc_table[(crc ^ *p++) & 0xff];
    return ~crc;
}

uint32_t vhdx_checksum(const uint8_t *p, size_t len, size_t skip)
{
    static const uint8_t zeroes[4];
    uint32_t crc = vhdx_crc32c(0, p, skip);
    crc = vhdx_crc32c(crc, zeroes, sizeof(zeroes));
    return vhdx_crc32c(crc, p + skip + 4, len - skip - 4);
}

static void set_checksum(uint8_t *bytes, size_t len)
{
    struct put w = put_to(bytes + CHECKSUM_AT, 4);
    put_le32(&w, vhdx_checksum(bytes, len, CHECKSUM_AT));
}

/* ---- headers ---- */

bool vhdx_header_load(const uint8_t *bytes, struct vhdx_header *ret)
{
    struct vhdx_header h = {0};
    struct cur c = cur_of(bytes, VHDX_HEADER_BYTES);
    uint32_t signature = cur_le32(&c), checksum = cur_le32(&c);
    h.sequence = cur_le64(&c);
    cur_copy(&c, h.file_guid, VHDX_GUID);
    cur_copy(&c, h.data_guid, VHDX_GUID);
    cur_copy(&c, h.log_guid, VHDX_GUID);
    uint16_t log_version = cur_le16(&c), version = cur_le16(&c);
    h.log_bytes = cur_le32(&c);
    h.log_offset = cur_le64(&c);
    if (signature != HEADER_SIGNATURE || version != 1 || log_version != 0 ||
        checksum != vhdx_checksum(bytes, VHDX_HEADER_BYTES, CHECKSUM_AT))
        return false;
    *ret = h;
    return true;
}

void vhdx_header_store(const struct vhdx_header *h, uint8_t *bytes)
{
    struct put w = put_to(bytes, VHDX_HEADER_BYTES);
    put_le32(&w, HEADER_SIGNATURE);
    put_le32(&w, 0);
    put_le64(&w, h->sequence);
    put_bytes(&w, h->file_guid, VHDX_GUID);
    put_bytes(&w, h->data_guid, VHDX_GUID);
    put_bytes(&w, h->log_guid, VHDX_GUID);
    put_le16(&w, 0);
    put_le16(&w, 1);
    put_le32(&w, h->log_bytes);
    put_le64(&w, h->log_offset);
    put_zeroes(&w, (size_t)(w.end - w.p));
    set_checksum(bytes, VHDX_HEADER_BYTES);
}

/* ---- regions ---- */

static bool region_is_good(struct vhdx_range r)
{
    return r.off >= VHDX_MIB && r.off % VHDX_MIB == 0 && r.len >= VHDX_MIB &&
           r.len % VHDX_MIB == 0 && r.off <= VHDX_FILE_MAX;
}

static bool load_region(struct cur *c, unsigned index, const char *what, struct vhdx_range *bat,
                        struct vhdx_range *metadata, GError **error)
{
    uint8_t guid[VHDX_GUID];
    struct vhdx_range r, *known = NULL;
    cur_copy(c, guid, sizeof(guid));
    r.off = cur_le64(c);
    r.len = cur_le32(c);
    uint32_t flags = cur_le32(c);
    if (!memcmp(guid, bat_guid, VHDX_GUID))
        known = bat;
    else if (!memcmp(guid, metadata_guid, VHDX_GUID))
        known = metadata;
    else if (flags & REQUIRED)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "%s: VHDX region %u is of an unknown kind",
                           what, index);
    if (known && (known->len || !region_is_good(r)))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: VHDX region %u cannot be %" PRIu64 " bytes at %" PRIu64, what,
                           index, r.len, r.off);
    if (known)
        *known = r;
    return true;
}

bool vhdx_regions_load(const uint8_t *bytes, const char *what, struct vhdx_range *bat,
                       struct vhdx_range *metadata, GError **error)
{
    struct cur c = cur_of(bytes, VHDX_TABLE_BYTES);
    uint32_t signature = cur_le32(&c), checksum = cur_le32(&c), count = cur_le32(&c);
    cur_le32(&c);
    *bat = *metadata = (struct vhdx_range){0};
    if (signature != REGIONS_SIGNATURE || count > REGIONS_MAX ||
        checksum != vhdx_checksum(bytes, VHDX_TABLE_BYTES, CHECKSUM_AT))
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: the VHDX region table is broken", what);
    for (uint32_t i = 0; i < count; i++)
        if (!load_region(&c, i, what, bat, metadata, error))
            return false;
    if (!bat->len || !metadata->len)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: the VHDX file has no %s region", what,
                           bat->len ? "metadata" : "BAT");
    return true;
}

static void put_region(struct put *w, const uint8_t *guid, struct vhdx_range r)
{
    put_bytes(w, guid, VHDX_GUID);
    put_le64(w, r.off);
    put_le32(w, (uint32_t)r.len);
    put_le32(w, REQUIRED);
}

void vhdx_regions_store(struct vhdx_range bat, struct vhdx_range metadata, uint8_t *bytes)
{
    struct put w = put_to(bytes, VHDX_TABLE_BYTES);
    put_le32(&w, REGIONS_SIGNATURE);
    put_le32(&w, 0);
    put_le32(&w, 2);
    put_le32(&w, 0);
    put_region(&w, bat_guid, bat);
    put_region(&w, metadata_guid, metadata);
    put_zeroes(&w, (size_t)(w.end - w.p));
    set_checksum(bytes, VHDX_TABLE_BYTES);
}

/* ---- the metadata table ---- */

static int find_item(const uint8_t *guid)
{
    for (int i = 0; i < VHDX_ITEMS; i++)
        if (!memcmp(items[i].guid, guid, VHDX_GUID))
            return i;
    return -1;
}

static bool load_entry(struct cur *c, unsigned index, struct vhdx_range region, const char *what,
                       struct vhdx_metadata *m, GError **error)
{
    uint8_t guid[VHDX_GUID];
    cur_copy(c, guid, sizeof(guid));
    uint32_t offset = cur_le32(c), len = cur_le32(c), flags = cur_le32(c);
    cur_le32(c);
    if (flags & ITEM_IS_USER)
        return true;
    int item = find_item(guid);
    if (item < 0)
        return !(flags & ITEM_IS_REQUIRED) ||
               ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "%s: VHDX metadata item %u is of an unknown kind", what, index);
    bool len_good = items[item].len ? len == items[item].len : len >= 20 && len <= VHDX_MIB;
    if (m->items[item].len || !len_good || offset < VHDX_TABLE_BYTES ||
        !range_fits(offset, len, region.len))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the VHDX %s cannot be %u bytes at %u of the metadata", what,
                           items[item].name, len, offset);
    m->items[item] = (struct vhdx_range){region.off + offset, len};
    m->entry_of[item] = index;
    return true;
}

bool vhdx_metadata_table_load(const uint8_t *bytes, struct vhdx_range region, const char *what,
                              struct vhdx_metadata *ret, GError **error)
{
    struct vhdx_metadata m = {0};
    struct cur c = cur_of(bytes, VHDX_TABLE_BYTES);
    uint64_t signature = cur_le64(&c);
    cur_le16(&c);
    m.entry_count = cur_le16(&c);
    cur_take(&c, 20);
    if (signature != METADATA_SIGNATURE || m.entry_count > METADATA_ENTRIES_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: the VHDX metadata table is broken", what);
    for (unsigned i = 0; i < m.entry_count; i++)
        if (!load_entry(&c, i, region, what, &m, error))
            return false;
    for (int i = 0; i < VHDX_PARENT_LOCATOR; i++)
        if (!m.items[i].len && i != VHDX_PAGE83)
            return ruche_error(error, RUCHE_ERR_INVALID, "%s: the VHDX file has no %s", what,
                               items[i].name);
    *ret = m;
    return true;
}

void vhdx_metadata_entry_store(enum vhdx_item item, uint32_t offset, uint32_t len, uint8_t *bytes)
{
    struct put w = put_to(bytes, VHDX_ENTRY_BYTES);
    put_bytes(&w, items[item].guid, VHDX_GUID);
    put_le32(&w, offset);
    put_le32(&w, len);
    put_le32(&w, items[item].flags);
    put_le32(&w, 0);
}

void vhdx_metadata_head_store(unsigned count, uint8_t *bytes)
{
    struct put w = put_to(bytes, VHDX_ENTRY_BYTES);
    put_le64(&w, METADATA_SIGNATURE);
    put_le16(&w, 0);
    put_le16(&w, (uint16_t)count);
    put_zeroes(&w, 20);
}

void vhdx_guid_text(const uint8_t *g, char *ret)
{
    static const uint8_t order[VHDX_GUID] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    char *at = ret;
    *at++ = '{';
    for (unsigned i = 0; i < VHDX_GUID; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *at++ = '-';
        at += g_snprintf(at, 3, "%02x", g[order[i]]);
    }
    *at++ = '}';
    *at = 0;
}
