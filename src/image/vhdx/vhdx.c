/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The driver "vhdx": opening, closing and describing.
 *
 * Spec      [MS-VHDX] revision 7.0.
 * Crash     A writer replays the log on opening; a reader sees what it would have done. On
 *           closing, the header forgets the log when everything is in place.
 * Trust     See vhdx.h. Nothing that open() allocates grows with what the file says, but the log,
 *           which is bounded.
 */
#include "image/vhdx/vhdx.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_MIN_BYTES (1 * MIB)
#define BLOCK_MIN       VHDX_MIB
#define BLOCK_MAX       (256 * VHDX_MIB)

static const struct image_option open_options[] = {
    OPT_SIZE("metadata-cache-size", struct vhdx, cache_bytes, 4 * MIB, CACHE_MIN_BYTES, 1 * GIB,
             "Memory for block table and bitmaps"),
    {0},
};

static int probe(const uint8_t *head, size_t len, const char *filename)
{
    return len >= sizeof(vhdx_signature) && !memcmp(head, vhdx_signature, sizeof(vhdx_signature))
               ? 100
               : 0;
}

static bool read_bytes(struct vhdx *v, uint64_t off, void *buf, size_t len, GError **error)
{
    int r = node_pread(node_file(&v->n), off, buf, len);
    return !r ||
           ruche_error_errno(error, -r, "image '%s': cannot read at %" PRIu64, v->n.filename, off);
}

static bool check_log_place(const struct vhdx *v, const char *what, GError **error)
{
    const struct vhdx_header *h = &v->header;
    if (h->log_offset % VHDX_MIB || h->log_offset < VHDX_MIB || h->log_offset > VHDX_FILE_MAX ||
        h->log_bytes % VHDX_MIB || !h->log_bytes)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the VHDX log cannot be %u bytes at %" PRIu64, what, h->log_bytes,
                           h->log_offset);
    return true;
}

/* The newer of the two headers that are valid. */
static bool load_header(struct vhdx *v, const char *what, GError **error)
{
    g_autofree uint8_t *bytes = g_malloc(VHDX_HEADER_BYTES);
    bool found = false;
    if (node_size(node_file(&v->n)) < VHDX_MIB)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: %" PRIu64 " bytes are too few for a VHDX file", what,
                           node_size(node_file(&v->n)));
    if (!read_bytes(v, 0, bytes, sizeof(vhdx_signature), error))
        return false;
    if (memcmp(bytes, vhdx_signature, sizeof(vhdx_signature)))
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: it is no VHDX file", what);
    for (unsigned i = 0; i < 2; i++) {
        struct vhdx_header h;
        if (!read_bytes(v, VHDX_HEADER_AT(i), bytes, VHDX_HEADER_BYTES, error))
            return false;
        if (!vhdx_header_load(bytes, &h) || (found && h.sequence <= v->header.sequence))
            continue;
        v->header = h;
        v->slot = i;
        found = true;
    }
    if (!found)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: neither VHDX header is valid", what);
    return check_log_place(v, what, error);
}

static void new_pages(struct vhdx *v)
{
    unsigned max = (unsigned)(v->cache_bytes / VHDX_PAGE);
    struct pages_config c = {.page_bytes = VHDX_PAGE,
                             .max_pages = max,
                             .max_dirty = MIN(VHDX_DIRTY_PAGES, max / 2),
                             .log = vhdx_log_write,
                             .overlay = vhdx_log_overlay,
                             .opaque = v};
    pages_free(v->pages);
    v->pages = pages_new(node_file(&v->n), &c);
}

static bool pages_bytes(struct vhdx *v, uint64_t off, void *buf, size_t len, GError **error)
{
    int r = pages_read(v->pages, off, buf, len);
    return !r ||
           ruche_error_errno(error, -r, "image '%s': cannot read at %" PRIu64, v->n.filename, off);
}

/* Both copies are the same; the second serves where the first is broken. */
static bool load_regions(struct vhdx *v, const char *what, GError **error)
{
    g_autofree uint8_t *bytes = g_malloc(VHDX_TABLE_BYTES);
    if (!pages_bytes(v, VHDX_REGIONS_AT(0), bytes, VHDX_TABLE_BYTES, error))
        return false;
    if (vhdx_regions_load(bytes, what, &v->bat, &v->metadata_region, NULL))
        return true;
    return pages_bytes(v, VHDX_REGIONS_AT(1), bytes, VHDX_TABLE_BYTES, error) &&
           vhdx_regions_load(bytes, what, &v->bat, &v->metadata_region, error);
}

static bool check_metadata(const struct vhdx_metadata *m, const char *what, GError **error)
{
    if (!is_power_of_2(m->block_bytes) || m->block_bytes < BLOCK_MIN || m->block_bytes > BLOCK_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: VHDX block size %u is no power of two between 1 MiB and 256 MiB",
                           what, m->block_bytes);
    if (m->sector_bytes != 512 && m->sector_bytes != 4096)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: VHDX sectors of %u bytes are neither 512 nor 4096", what,
                           m->sector_bytes);
    if (m->physical_bytes != 512 && m->physical_bytes != 4096)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: VHDX physical sectors of %u bytes are neither 512 nor 4096", what,
                           m->physical_bytes);
    if (!m->disk_bytes || m->disk_bytes % m->sector_bytes || m->disk_bytes > VHDX_SIZE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: VHDX disk size %" PRIu64 " is no multiple of %u up to 64 TiB", what,
                           m->disk_bytes, m->sector_bytes);
    if (m->has_parent && !m->items[VHDX_PARENT_LOCATOR].len)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: it is a differencing VHDX without a parent locator", what);
    return true;
}

uint32_t vhdx_chunk_ratio(const struct vhdx_metadata *m)
{
    return (uint32_t)(VHDX_CHUNK_SECTORS * m->sector_bytes / m->block_bytes);
}

bool vhdx_load_metadata(struct vhdx *v, const char *what, GError **error)
{
    struct vhdx_metadata m;
    g_autofree uint8_t *bytes = g_malloc(VHDX_TABLE_BYTES);
    uint32_t parameters[2], logical, physical;
    uint64_t size;
    if (!pages_bytes(v, v->metadata_region.off, bytes, VHDX_TABLE_BYTES, error) ||
        !vhdx_metadata_table_load(bytes, v->metadata_region, what, &m, error) ||
        !pages_bytes(v, m.items[VHDX_FILE_PARAMETERS].off, parameters, 8, error) ||
        !pages_bytes(v, m.items[VHDX_DISK_SIZE].off, &size, 8, error) ||
        !pages_bytes(v, m.items[VHDX_LOGICAL_SECTOR].off, &logical, 4, error) ||
        !pages_bytes(v, m.items[VHDX_PHYSICAL_SECTOR].off, &physical, 4, error))
        return false;
    m.block_bytes = GUINT32_FROM_LE(parameters[0]);
    m.leave_allocated = GUINT32_FROM_LE(parameters[1]) & 1;
    m.has_parent = GUINT32_FROM_LE(parameters[1]) & 2;
    m.disk_bytes = GUINT64_FROM_LE(size);
    m.sector_bytes = GUINT32_FROM_LE(logical);
    m.physical_bytes = GUINT32_FROM_LE(physical);
    if (!check_metadata(&m, what, error))
        return false;
    v->m = m;
    v->chunk_ratio = vhdx_chunk_ratio(&m);
    uint64_t entries = vhdx_bat_entries(vhdx_payload_blocks(v), v->chunk_ratio, m.has_parent);
    if (entries * 8 > v->bat.len)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the VHDX block table has room for %" PRIu64 " entries, and %" PRIu64
                           " are needed",
                           what, v->bat.len / 8, entries);
    return true;
}

/* The log, replayed or laid over. */
static bool settle_log(struct vhdx *v, GError **error)
{
    struct vhdx_log *log;
    if (!vhdx_log_find(v, &log, error))
        return false;
    bool dirty = !bytes_are_zero(v->header.log_guid, VHDX_GUID);
    if (dirty && !v->n.read_only) {
        bool ok = vhdx_log_replay(v, log, error);
        vhdx_log_free(log);
        return ok;
    }
    v->overlay = log;
    v->n.unclean = log;
    return true;
}

static bool vhdx_open(struct node *n, GError **error)
{
    struct vhdx *v = vhdx_of(n);
    g_autofree char *what = g_strdup_printf("image '%s'", n->filename);
    v->keep_data_guid = n->read_only;
    if (!load_header(v, what, error) || !settle_log(v, error))
        return false;
    new_pages(v);
    if (!load_regions(v, what, error) || !vhdx_load_metadata(v, what, error))
        return false;
    n->size_bytes = v->m.disk_bytes;
    n->request_align = v->m.sector_bytes;
    n->block_bytes = v->m.sector_bytes;
    n->physical_block_bytes = v->m.physical_bytes;
    n->cluster_bytes = v->m.block_bytes;
    n->zero_init = !v->m.has_parent;
    return !v->m.has_parent || vhdx_open_parent(v, error);
}

/* What a writer leaves behind: all in place, the header without a log, the file without reserves.
 */
static int finish(struct vhdx *v)
{
    int r = pages_commit(v->pages);
    if (!r && v->logging) {
        memset(v->header.log_guid, 0, VHDX_GUID);
        r = vhdx_write_header(v);
        v->logging = r != 0;
    }
    if (!r && v->space_known && v->reserved_end > v->next_free)
        r = vhdx_tighten(v);
    return r;
}

static void vhdx_close(struct node *n)
{
    struct vhdx *v = vhdx_of(n);
    int r = v->pages && v->writing && !n->read_only && !n->corrupt ? finish(v) : 0;
    if (r)
        log_warn("image '%s': the VHDX log is left to be replayed: %s", n->filename,
                 g_strerror(-r));
    pages_free(v->pages);
    v->pages = NULL;
    vhdx_log_free(v->overlay);
    v->overlay = NULL;
    g_clear_pointer(&v->parent_linkage, g_free);
    free(v->log_buffer);
    v->log_buffer = NULL;
}

static bool set_read_only(struct node *n, bool read_only, GError **error)
{
    struct vhdx *v = vhdx_of(n);
    if (read_only) {
        int r = v->writing ? finish(v) : 0;
        v->writing &= r != 0;
        return !r ||
               ruche_error_errno(error, -r, "image '%s': cannot finish its VHDX log", n->filename);
    }
    if (bytes_are_zero(v->header.log_guid, VHDX_GUID))
        return true;
    if (!vhdx_log_replay(v, v->overlay, error))
        return false;
    g_clear_pointer(&v->overlay, vhdx_log_free);
    n->unclean = false;
    return true;
}

static JsonObject *describe(struct node *n)
{
    const struct vhdx *v = vhdx_of(n);
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "subformat",
                                  v->m.has_parent        ? "differencing"
                                  : v->m.leave_allocated ? "fixed"
                                                         : "dynamic");
    json_object_set_int_member(o, "block-size", v->m.block_bytes);
    json_object_set_int_member(o, "log-size", v->header.log_bytes);
    json_object_set_int_member(o, "logical-sector-size", v->m.sector_bytes);
    json_object_set_int_member(o, "physical-sector-size", v->m.physical_bytes);
    return o;
}

static const struct image_driver vhdx_driver = {
    .name = "vhdx",
    .summary = "Virtual hard disk (VHDX) of Hyper-V",
    .spec = "[MS-VHDX] 7.0",
    .kind = DRIVER_FORMAT,
    .flags = DRIVER_BACKING | DRIVER_SPARSE_BLOCKS,
    .size = sizeof(struct vhdx),
    .open_options = open_options,
    .create_options = vhdx_create_options,
    .create_size = sizeof(struct vhdx_create),
    .probe = probe,
    .open = vhdx_open,
    .close = vhdx_close,
    .read = vhdx_read,
    .write = vhdx_write,
    .zero = vhdx_zero,
    .discard = vhdx_discard,
    .flush = vhdx_flush,
    .map = vhdx_map,
    .resize = vhdx_resize,
    .create = vhdx_create,
    .measure = vhdx_measure,
    .check = vhdx_check,
    .change_backing = vhdx_change_backing,
    .make_empty = vhdx_make_empty,
    .describe = describe,
    .set_read_only = set_read_only,
};
IMAGE_DRIVER(vhdx_driver);
