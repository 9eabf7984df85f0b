/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Headers and directories of sparse extents: hosted ("KDMV") and ESX Server's ("COWD").
 *
 * Spec      "Virtual Disk Format 5.0", Hosted Sparse Extent Header; 1.1, ESX Server Sparse Extents.
 * Fiber     As vmdk.h says.
 * Trust     All fields are hostile. Directories are capped by VMDK_DIRECTORY_BYTES_MAX for all
 * extents together; entries are checked when a table is loaded.
 */
#include "image/vmdk/vmdk.h"

#include "base/cursor.h"

#include <inttypes.h>
#include <string.h>

enum { HEADER_VERSION_MAX = 3, COWD_HEADER_SECTORS = 4, ALGORITHM_DEFLATE = 1 };

bool vmdk_header_parse(const uint8_t *sector, struct vmdk_header *ret)
{
    struct cur c = cur_of(sector, VMDK_SECTOR);
    const uint8_t *magic = cur_take(&c, 4);
    if (memcmp(magic, "KDMV", 4) != 0)
        return false;
    ret->version = cur_le32(&c);
    ret->flags = cur_le32(&c);
    ret->capacity = cur_le64(&c);
    ret->grain_sectors = cur_le64(&c);
    ret->desc_offset = cur_le64(&c);
    ret->desc_sectors = cur_le64(&c);
    ret->table_entries = cur_le32(&c);
    ret->redundant_offset = cur_le64(&c);
    ret->directory_offset = cur_le64(&c);
    ret->overhead = cur_le64(&c);
    ret->unclean = cur_u8(&c);
    cur_take(&c, 4); /* line ends, which show transfers as text */
    ret->compression = cur_le16(&c);
    return true;
}

static void put(uint8_t **at, uint64_t value, unsigned bytes)
{
    memcpy(*at, &value, bytes);
    *at += bytes;
}

void vmdk_header_build(const struct vmdk_header *h, uint8_t *ret_sector)
{
    uint8_t *p = ret_sector;
    memset(p, 0, VMDK_SECTOR);
    memcpy(p, "KDMV", 4);
    p += 4;
    put(&p, h->version, 4);
    put(&p, h->flags, 4);
    put(&p, h->capacity, 8);
    put(&p, h->grain_sectors, 8);
    put(&p, h->desc_offset, 8);
    put(&p, h->desc_sectors, 8);
    put(&p, h->table_entries, 4);
    put(&p, h->redundant_offset, 8);
    put(&p, h->directory_offset, 8);
    put(&p, h->overhead, 8);
    put(&p, h->unclean, 1);
    memcpy(p, "\n \r\n", 4);
    p += 4;
    put(&p, h->compression, 2);
}

/* The header that stands in front of the end mark, of an extent whose first header says so. */
static bool read_footer(struct vmdk_extent *e, struct vmdk_header *ret)
{
    uint8_t tail[3 * VMDK_SECTOR];
    uint64_t size = align_down(node_size(e->file), VMDK_SECTOR);
    if (size < 4 * VMDK_SECTOR || node_pread(e->file, size - sizeof(tail), tail, sizeof(tail)) < 0)
        return false;
    struct cur marker = cur_of(tail, 16), eos = cur_of(tail + 2 * VMDK_SECTOR, 16);
    cur_le64(&marker);
    uint32_t marker_size = cur_le32(&marker), marker_type = cur_le32(&marker);
    return marker_size == 0 && marker_type == VMDK_MARKER_FOOTER && !cur_le64(&eos) &&
           !cur_le64(&eos) && vmdk_header_parse(tail + VMDK_SECTOR, ret) &&
           ret->directory_offset != VMDK_GD_AT_END;
}

static bool check_header(struct vmdk_extent *e, const struct vmdk_header *h, GError **error)
{
    const char *name = e->filename;
    if (h->version > HEADER_VERSION_MAX)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "%s: VMDK version %u is not supported; the newest known is %d", name,
                           h->version, HEADER_VERSION_MAX);
    if (h->compression > ALGORITHM_DEFLATE)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "%s: compression algorithm %u is unknown",
                           name, h->compression);
    if (!is_power_of_2(h->grain_sectors) || h->grain_sectors > VMDK_GRAIN_BYTES_MAX / VMDK_SECTOR)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: a grain size of %" PRIu64 " sectors is not a power of two up to %u",
                           name, h->grain_sectors, (unsigned)(VMDK_GRAIN_BYTES_MAX / VMDK_SECTOR));
    if (!h->table_entries || h->table_entries > VMDK_COWD_TABLE_ENTRIES)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: grain tables of %u entries are not supported; 1 to %u are", name,
                           h->table_entries, VMDK_COWD_TABLE_ENTRIES);
    if (h->capacity > IMAGE_SIZE_MAX / VMDK_SECTOR)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: a capacity of %" PRIu64 " sectors is too large", name, h->capacity);
    return true;
}

/* Offset and size of a directory; 0 bytes: as many entries as the disk needs fit nowhere. */
static bool read_directory(struct vmdk_extent *e, uint64_t sector, const char *which,
                           uint32_t **ret, GError **error)
{
    uint64_t bytes = (uint64_t)e->directory_count * sizeof(uint32_t);
    uint64_t off = sector * VMDK_SECTOR;
    e->image->directory_bytes += bytes;
    if (e->image->directory_bytes > VMDK_DIRECTORY_BYTES_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the grain directories of the disk take over %" PRIu64 " bytes",
                           e->filename, (uint64_t)VMDK_DIRECTORY_BYTES_MAX);
    if (!sector || sector > UINT64_MAX / VMDK_SECTOR || !range_fits(off, bytes, node_size(e->file)))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the %s of %" PRIu64 " bytes at sector %" PRIu64
                           " is not inside the file of %" PRIu64 " bytes",
                           e->filename, which, bytes, sector, node_size(e->file));
    *ret = g_try_malloc(bytes + sizeof(uint32_t));
    if (!*ret)
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "%s: no memory for the %s", e->filename,
                           which);
    int r = node_pread(e->file, off, *ret, bytes);
    return r >= 0 || ruche_error_errno(error, -r, "%s: cannot read the %s", e->filename, which);
}

static bool set_geometry(struct vmdk_extent *e, uint64_t capacity, uint64_t sectors, GError **error)
{
    if (sectors && sectors > capacity)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the descriptor says %" PRIu64 " sectors, the header %" PRIu64,
                           e->filename, sectors, capacity);
    e->size = (sectors ? sectors : capacity) * VMDK_SECTOR;
    e->grain_count = e->size / e->grain_bytes + (e->size % e->grain_bytes != 0);
    uint64_t tables = e->grain_count / e->table_entries + (e->grain_count % e->table_entries != 0);
    if (tables > VMDK_DIRECTORY_BYTES_MAX / sizeof(uint32_t))
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "%s: %" PRIu64 " grain tables are too many; up to %" PRIu64 " are supported",
            e->filename, tables, (uint64_t)(VMDK_DIRECTORY_BYTES_MAX / sizeof(uint32_t)));
    e->directory_count = (uint32_t)tables;
    return true;
}

static void take_header(struct vmdk_extent *e, const struct vmdk_header *h)
{
    e->version = h->version;
    e->flags = h->flags;
    e->capacity_sectors = h->capacity;
    e->grain_bytes = h->grain_sectors * VMDK_SECTOR;
    e->table_entries = h->table_entries;
    e->data_begin = min_u64(h->overhead, node_size(e->file) / VMDK_SECTOR) * VMDK_SECTOR;
    e->zero_grains = h->flags & VMDK_FLAG_ZERO_GRAINS;
    e->compressed = h->flags & VMDK_FLAG_COMPRESSED;
    e->markers = h->flags & VMDK_FLAG_MARKERS;
    if (h->desc_offset && h->desc_offset < UINT32_MAX && h->desc_sectors) {
        e->descriptor_offset = h->desc_offset * VMDK_SECTOR;
        e->descriptor_bytes = min_u64(h->desc_sectors * VMDK_SECTOR, VMDK_DESCRIPTOR_MAX);
    }
}

/* Hosted sparse. */
static bool open_hosted(struct vmdk_extent *e, struct vmdk_header *h, uint64_t sectors,
                        GError **error)
{
    if (!check_header(e, h, error))
        return false;
    take_header(e, h);
    bool footer = true;
    if (h->directory_offset == VMDK_GD_AT_END) {
        e->at_end = true;
        struct vmdk_header f;
        footer = read_footer(e, &f);
        if (footer && (f.capacity != h->capacity || f.grain_sectors != h->grain_sectors ||
                       f.table_entries != h->table_entries))
            return ruche_error(error, RUCHE_ERR_INVALID, "%s: the footer contradicts the header",
                               e->filename);
        if (footer)
            *h = f;
    }
    if (e->at_end && !(e->compressed && e->markers))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the header has neither a grain directory nor grain markers",
                           e->filename);
    if (!set_geometry(e, h->capacity, sectors, error))
        return false;
    e->end = align_up(node_size(e->file), e->compressed ? VMDK_SECTOR : e->grain_bytes);
    if (!footer) {
        e->directory = g_try_new0(uint32_t, e->directory_count + 1);
        return e->directory || ruche_error(error, RUCHE_ERR_NO_SPACE, "%s: no memory", e->filename);
    }
    e->finished = e->at_end;
    e->directory_offset = h->directory_offset * VMDK_SECTOR;
    if (!read_directory(e, h->directory_offset, "grain directory", &e->directory, error))
        return false;
    if (!(h->flags & VMDK_FLAG_REDUNDANT) || e->at_end || !h->redundant_offset)
        return true;
    e->redundant_offset = h->redundant_offset * VMDK_SECTOR;
    return read_directory(e, h->redundant_offset, "redundant grain directory", &e->redundant,
                          error);
}

static bool open_cowd(struct vmdk_extent *e, const uint8_t *sector, uint64_t sectors,
                      GError **error)
{
    struct cur c = cur_of(sector, VMDK_SECTOR);
    cur_take(&c, 4);
    struct vmdk_header h = {.version = cur_le32(&c)};
    cur_le32(&c); /* flags */
    h.capacity = cur_le32(&c);
    h.grain_sectors = cur_le32(&c);
    h.directory_offset = cur_le32(&c);
    uint32_t count = cur_le32(&c);
    h.overhead = COWD_HEADER_SECTORS;
    h.table_entries = VMDK_COWD_TABLE_ENTRIES;
    if (!check_header(e, &h, error))
        return false;
    take_header(e, &h);
    if (!set_geometry(e, h.capacity, sectors, error))
        return false;
    if (count < e->directory_count)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the grain directory has %u entries; %u are needed", e->filename,
                           count, e->directory_count);
    e->kind = VMDK_COWD;
    e->writable = false;
    return read_directory(e, h.directory_offset, "grain directory", &e->directory, error);
}

bool vmdk_sparse_open(struct vmdk_extent *e, uint64_t sectors, GError **error)
{
    uint8_t sector[VMDK_SECTOR];
    int r =
        node_size(e->file) < sizeof(sector) ? -EIO : node_pread(e->file, 0, sector, sizeof(sector));
    if (r < 0)
        return ruche_error_errno(error, -r, "%s: cannot read the VMDK header", e->filename);
    struct vmdk_header h;
    if (vmdk_header_parse(sector, &h))
        return open_hosted(e, &h, sectors, error);
    if (memcmp(sector, "COWD", 4) == 0)
        return open_cowd(e, sector, sectors, error);
    return ruche_error(error, RUCHE_ERR_INVALID, "%s: there is no sparse VMDK extent in it",
                       e->filename);
}
