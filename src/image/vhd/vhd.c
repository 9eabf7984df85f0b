/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The driver "vpc": opening, closing and describing virtual hard disks.
 *
 * Spec      Virtual Hard Disk Image Format Specification 1.0 (2006).
 * Trust     A guest can write what looks like a header into the first sectors of a fixed image: so
 *           the footer at the end says first what an image is, and the copy at the front counts
 *           only for the other two types.
 * Crash     See vhd_space.c and vhd_io.c. An image that was left open has unused room before its
 *           last footer; no reader minds, and the next writer gives it back.
 */
#include "image/vhd/vhd.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>

#define PAGE_BYTES      512 /* table and bitmaps begin at sectors, beside data */
#define CACHE_MIN_BYTES (64 * KIB)
#define DIRTY_PAGES     1024

static const char *const size_rule_words[] = {"", "chs", "current_size", NULL};
static const struct image_option open_options[] = {
    OPT_SIZE("metadata-cache-size", struct vhd, cache_bytes, 4 * MIB, CACHE_MIN_BYTES, 1 * GIB,
             "Memory for table and bitmaps"),
    OPT_WORD("force_size_calc", struct vhd, size_rule, size_rule_words, VHD_SIZE_BY_CREATOR,
             "Size for the guest: chs or current_size, rather than as the creator means it"),
    {0},
};

static int probe(const uint8_t *head, size_t len, const char *filename)
{
    return len >= VHD_FOOTER_BYTES && !memcmp(head, "conectix", 8) ? 100 : 0;
}

static bool read_bytes(struct node *n, uint64_t off, void *buf, size_t len, const char *what,
                       GError **error)
{
    int r = node_pread(node_file(n), off, buf, len);
    return !r || ruche_error_errno(error, -r, "%s: cannot read at %" PRIu64, what, off);
}

/* The footer that counts, of the two. */
static bool load_footer(struct vhd *v, const char *what, GError **error)
{
    uint8_t bytes[VHD_FOOTER_BYTES];
    uint64_t size = node_size(node_file(&v->n));
    struct vhd_footer front;
    if (size < VHD_FOOTER_BYTES)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: %" PRIu64 " bytes are too few for a VHD footer", what, size);
    if (!read_bytes(&v->n, size - VHD_FOOTER_BYTES, bytes, sizeof(bytes), what, error))
        return false;
    bool end_good = vhd_footer_load(bytes, what, &v->footer, NULL);
    if (end_good && v->footer.type == VHD_FIXED)
        return true;
    v->n.unclean = !end_good;
    if (!read_bytes(&v->n, 0, bytes, sizeof(bytes), what, error))
        return false;
    if (vhd_footer_load(bytes, what, &front, end_good ? NULL : error) && front.type != VHD_FIXED)
        v->footer = front;
    else if (!end_good)
        return error && *error
                   ? false
                   : ruche_error(error, RUCHE_ERR_INVALID,
                                 "%s: the footer of a fixed VHD is not at its end", what);
    return true;
}

static bool load_header(struct vhd *v, const char *what, GError **error)
{
    uint8_t bytes[VHD_HEADER_BYTES];
    uint64_t size = node_size(node_file(&v->n));
    if (!range_fits(v->footer.data_offset, VHD_HEADER_BYTES, size) ||
        v->footer.data_offset < VHD_FOOTER_BYTES)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: the VHD header cannot be at %" PRIu64,
                           what, v->footer.data_offset);
    if (!read_bytes(&v->n, v->footer.data_offset, bytes, sizeof(bytes), what, error) ||
        !vhd_header_load(bytes, what, &v->header, error))
        return false;
    uint32_t need = vhd_blocks(v);
    if (need > VHD_ENTRIES_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: %u VHD blocks of %u bytes; the limit is %u", what, need,
                           v->header.block_bytes, VHD_ENTRIES_MAX);
    if (v->header.entries < need)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the VHD block table has %u entries, and %u are needed", what,
                           v->header.entries, need);
    if (!range_fits(v->header.table_offset, 4ULL * need, size))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the VHD block table at %" PRIu64 " does not fit the file (%" PRIu64
                           ")",
                           what, v->header.table_offset, size);
    v->bitmap_bytes = vhd_bitmap_bytes(v->header.block_bytes);
    return true;
}

static bool open_dynamic(struct vhd *v, const char *what, GError **error)
{
    struct node *n = &v->n;
    if (!load_header(v, what, error))
        return false;
    unsigned max = (unsigned)(v->cache_bytes / PAGE_BYTES);
    struct pages_config c = {
        .page_bytes = PAGE_BYTES, .max_pages = max, .max_dirty = MIN(max / 2, DIRTY_PAGES)};
    v->pages = pages_new(node_file(n), &c);
    n->cluster_bytes = v->header.block_bytes;
    n->zero_init = v->footer.type == VHD_DYNAMIC;
    return v->footer.type != VHD_DIFFERENCING || vhd_open_parent(v, error);
}

static bool open_fixed(struct vhd *v, const char *what, GError **error)
{
    uint64_t room = node_size(node_file(&v->n)) - VHD_FOOTER_BYTES;
    if (v->n.size_bytes > room)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: a fixed VHD of %" PRIu64 " bytes has room for only %" PRIu64, what,
                           v->n.size_bytes, room);
    v->n.write_flags = NODE_FUA;
    v->n.zero_flags = NODE_FUA | NODE_MAY_UNMAP | NODE_NO_FALLBACK;
    v->n.zero_init = true;
    return true;
}

static bool vhd_open(struct node *n, GError **error)
{
    struct vhd *v = vhd_of(n);
    g_autofree char *what = g_strdup_printf("image '%s'", n->filename);
    if (!load_footer(v, what, error))
        return false;
    n->size_bytes = vhd_disk_bytes(&v->footer, v->size_rule);
    if (n->size_bytes > VHD_SIZE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: VHD disk size %" PRIu64 " is over the limit of %llu", what,
                           n->size_bytes, (unsigned long long)VHD_SIZE_MAX);
    n->request_align = VHD_SECTOR;
    return v->footer.type == VHD_FIXED ? open_fixed(v, what, error) : open_dynamic(v, what, error);
}

static void vhd_close(struct node *n)
{
    struct vhd *v = vhd_of(n);
    int r = 0;
    if (v->pages && !n->read_only && !n->corrupt) {
        r = pages_commit(v->pages);
        if (!r && v->space_known)
            r = vhd_tighten(v);
    }
    if (r)
        log_warn("image '%s': cannot finish the VHD's table and footer: %s", node_filename(n),
                 g_strerror(-r));
    pages_free(v->pages);
    v->pages = NULL;
}

static JsonObject *describe(struct node *n)
{
    static const char *const types[] = {
        [VHD_FIXED] = "fixed", [VHD_DYNAMIC] = "dynamic", [VHD_DIFFERENCING] = "differencing"};
    const struct vhd *v = vhd_of(n);
    JsonObject *o = json_object_new();
    g_autofree char *creator = g_strndup(v->footer.creator, sizeof(v->footer.creator));
    g_autofree char *shown = g_utf8_make_valid(creator, -1);
    json_object_set_string_member(o, "subformat", types[v->footer.type]);
    json_object_set_string_member(o, "creator-app", shown);
    if (v->pages)
        json_object_set_int_member(o, "block-size", v->header.block_bytes);
    return o;
}

static const struct image_driver vpc_driver = {
    .name = "vpc",
    .summary = "Virtual hard disk (VHD) of Virtual PC, Hyper-V and Azure",
    .spec = "Virtual Hard Disk Image Format Specification 1.0",
    .kind = DRIVER_FORMAT,
    .flags = DRIVER_BACKING | DRIVER_SPARSE_BLOCKS,
    .size = sizeof(struct vhd),
    .open_options = open_options,
    .create_options = vhd_create_options,
    .create_size = sizeof(struct vhd_create),
    .probe = probe,
    .open = vhd_open,
    .close = vhd_close,
    .read = vhd_read,
    .write = vhd_write,
    .zero = vhd_zero,
    .discard = vhd_discard,
    .flush = vhd_flush,
    .map = vhd_map,
    .resize = vhd_resize,
    .create = vhd_create,
    .measure = vhd_measure,
    .check = vhd_check,
    .change_backing = vhd_change_backing,
    .make_empty = vhd_make_empty,
    .describe = describe,
};
IMAGE_DRIVER(vpc_driver);
