/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Making VMDK images.
 *
 * Spec      "Virtual Disk Format 5.0"; options as QEMU names them.
 * Fiber     All of it.
 * Order     Every file is written under a temporary name; the one with the descriptor gets its
 *           final name last (image_files).
 */
#include "image/vmdk/vmdk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SPLIT_BYTES             (2 * GIB)
#define DESCRIPTOR_SECTORS      20
#define STREAM_OVERHEAD_SECTORS 128
#define SPARSE_TABLES_MAX       (1u << 21) /* 64 TiB */

static const char *const subformat_words[] = {"monolithicSparse",     "monolithicFlat",
                                              "twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
                                              "streamOptimized",      NULL};
static const char *const adapter_words[] = {"ide", "lsilogic", "buslogic", "legacyESX", NULL};
static const char *const prealloc_words[] = {"off", "falloc", "full", NULL};
static const enum image_prealloc prealloc_of[] = {PREALLOC_OFF, PREALLOC_FALLOC, PREALLOC_FULL};

#define MEMBER(kind, name, member, ...)                                                            \
    OPT_##kind(name, struct vmdk_create_options, member, __VA_ARGS__)
const struct image_option vmdk_create_options[] = {
    MEMBER(WORD, "adapter_type", adapter_type, adapter_words, 0,
           "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX"),
    MEMBER(BOOL, "compat6", compat6, false, "VMDK version 6 image"),
    MEMBER(SIZE, "extent_size_hint", extent_size_hint, 0, 0, 0,
           "Extent size hint for the image file, 0 to disable"),
    MEMBER(STRING, "hwversion", hwversion, "VMDK hardware version"),
    MEMBER(BOOL, "nocow", nocow, false, "Turn off copy-on-write (valid only on btrfs)"),
    MEMBER(WORD, "preallocation", prealloc, prealloc_words, 0,
           "Preallocation mode of flat extents (allowed values: off, falloc, full)"),
    MEMBER(WORD, "subformat", subformat, subformat_words, 0,
           "VMDK flat extent format, can be one of {monolithicSparse (default) | monolithicFlat | "
           "twoGbMaxExtentSparse | twoGbMaxExtentFlat | streamOptimized}"),
    MEMBER(STRING, "toolsversion", toolsversion, "VMware guest tools version"),
    MEMBER(BOOL, "zeroed_grain", zeroed_grain, false,
           "Enable efficient zero writes using the zeroed-grain GTE feature"),
    {0},
};

static bool is_flat(const struct vmdk_create_options *o)
{
    return o->subformat == VMDK_MONOLITHIC_FLAT || o->subformat == VMDK_2GB_FLAT;
}

static bool is_split(const struct vmdk_create_options *o)
{
    return o->subformat == VMDK_2GB_FLAT || o->subformat == VMDK_2GB_SPARSE;
}

static bool has_hwversion(const struct vmdk_create_options *o)
{
    return o->hwversion && strcmp(o->hwversion, "undefined") != 0;
}

/* What goes between quotes in the descriptor. */
static bool is_plain(const char *text)
{
    return !text || !strpbrk(text, "\"\r\n");
}

static bool check_options(const struct image_create *c, GError **error)
{
    const struct vmdk_create_options *o = c->options;
    const char *name = c->filename, *word = subformat_words[o->subformat];
    if (o->compat6 && has_hwversion(o))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s': compat6 and hwversion exclude each other", name);
    if (is_flat(o) && o->zeroed_grain)
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s': subformat %s has no zeroed grains",
                           name, word);
    if (is_flat(o) && c->backing_file)
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s': subformat %s has no backing file", name,
                           word);
    if (!is_flat(o) && o->prealloc)
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "'%s': subformat %s has no preallocation; monolithicFlat and twoGbMaxExtentFlat have",
            name, word);
    if (c->backing_format && strcmp(c->backing_format, "vmdk") != 0)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s': the backing file of a vmdk image must be a vmdk image, not %s",
                           name, c->backing_format);
    if (!is_plain(c->backing_file) || !is_plain(name) || !is_plain(o->hwversion) ||
        !is_plain(o->toolsversion))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s': names in a vmdk descriptor have no quotes or line ends", name);
    uint64_t parts = c->size_bytes / SPLIT_BYTES + 1;
    if (is_split(o) && parts > VMDK_EXTENTS_MAX)
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "'%s': %" PRIu64
            " bytes are over %u extents of 2 GiB; use subformat monolithicSparse or monolithicFlat",
            name, c->size_bytes, (unsigned)VMDK_EXTENTS_MAX);
    if (!is_flat(o) && c->size_bytes / (VMDK_GRAIN_BYTES * VMDK_TABLE_ENTRIES) >= SPARSE_TABLES_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s': %" PRIu64 " bytes are over the 64 TiB of a sparse vmdk image",
                           name, c->size_bytes);
    return true;
}

/* ---- sparse extents ---- */

static uint64_t sectors_of(uint64_t bytes)
{
    return bytes / VMDK_SECTOR + (bytes % VMDK_SECTOR != 0);
}

struct layout {
    uint32_t tables;
    uint64_t descriptor_sectors, directory_sectors, table_sectors;
    struct vmdk_header header;
};

/* Header, descriptor, redundant directory and tables, directory and tables, grains. */
static struct layout plan(uint64_t size, const struct vmdk_create_options *o, size_t descriptor_len)
{
    uint64_t cover = VMDK_GRAIN_BYTES * VMDK_TABLE_ENTRIES;
    struct layout l = {.tables = (uint32_t)((size + cover - 1) / cover)};
    l.descriptor_sectors =
        descriptor_len ? max_u64(DESCRIPTOR_SECTORS, sectors_of(descriptor_len)) : 0;
    l.directory_sectors = sectors_of(l.tables * sizeof(uint32_t));
    l.table_sectors = VMDK_TABLE_ENTRIES * sizeof(uint32_t) / VMDK_SECTOR;
    uint64_t copy = l.directory_sectors + l.tables * l.table_sectors;
    uint64_t begin = 1 + l.descriptor_sectors;
    bool stream = o->subformat == VMDK_STREAM_OPTIMIZED;
    l.header = (struct vmdk_header){
        .version = stream            ? 3
                   : o->zeroed_grain ? 2
                                     : 1,
        .flags = VMDK_FLAG_NEWLINES | (o->zeroed_grain ? VMDK_FLAG_ZERO_GRAINS : 0) |
                 (stream ? VMDK_FLAG_COMPRESSED | VMDK_FLAG_MARKERS : VMDK_FLAG_REDUNDANT),
        .capacity = size / VMDK_SECTOR,
        .grain_sectors = VMDK_GRAIN_BYTES / VMDK_SECTOR,
        .desc_offset = descriptor_len ? 1 : 0,
        .desc_sectors = l.descriptor_sectors,
        .table_entries = VMDK_TABLE_ENTRIES,
        .redundant_offset = stream ? 0 : begin,
        .directory_offset = stream ? VMDK_GD_AT_END : begin + copy,
        .overhead = align_up(stream ? begin : begin + 2 * copy, VMDK_GRAIN_BYTES / VMDK_SECTOR),
        .compression = stream,
    };
    return l;
}

/* The sectors of tables that lie behind their directory. */
static int write_directory(struct node *file, const struct layout *l, uint64_t at)
{
    g_autofree uint32_t *directory = g_try_malloc0(l->directory_sectors * VMDK_SECTOR + 1);
    if (!directory)
        return -ENOMEM;
    for (uint32_t i = 0; i < l->tables; i++)
        directory[i] = (uint32_t)(at + l->directory_sectors + i * l->table_sectors);
    return node_pwrite(file, at * VMDK_SECTOR, directory, l->directory_sectors * VMDK_SECTOR, 0);
}

/* An empty stream: a directory without tables, a footer, the end mark. */
static int write_empty_tail(struct node *file, const struct layout *l)
{
    struct vmdk_extent e = {
        .version = l->header.version,
        .flags = l->header.flags,
        .capacity_sectors = l->header.capacity,
        .grain_bytes = VMDK_GRAIN_BYTES,
        .table_entries = VMDK_TABLE_ENTRIES,
        .data_begin = l->header.overhead * VMDK_SECTOR,
        .descriptor_offset = l->header.desc_offset * VMDK_SECTOR,
        .descriptor_bytes = l->header.desc_sectors * VMDK_SECTOR,
        .directory_count = l->tables,
        .end = l->header.overhead * VMDK_SECTOR,
    };
    g_autofree uint32_t *empty = g_try_new0(uint32_t, l->tables + 1);
    e.directory = empty;
    uint64_t len;
    g_autofree uint8_t *tail = empty ? vmdk_stream_tail(&e, &len) : NULL;
    return tail ? node_pwrite(file, e.end, tail, len, 0) : -ENOMEM;
}

bool vmdk_sparse_create(struct node *file, uint64_t size_bytes, const struct vmdk_create_options *o,
                        const char *descriptor, GError **error)
{
    size_t len = descriptor ? strlen(descriptor) : 0;
    struct layout l = plan(size_bytes, o, len);
    uint8_t sector[VMDK_SECTOR];
    vmdk_header_build(&l.header, sector);
    if (!node_resize(file, l.header.overhead * VMDK_SECTOR, PREALLOC_OFF, error))
        return false;
    int r = len ? node_pwrite(file, VMDK_SECTOR, descriptor, len, 0) : 0;
    if (r >= 0 && o->subformat == VMDK_STREAM_OPTIMIZED) {
        r = write_empty_tail(file, &l);
    } else {
        if (r >= 0)
            r = write_directory(file, &l, l.header.redundant_offset);
        if (r >= 0)
            r = write_directory(file, &l, l.header.directory_offset);
    }
    if (r >= 0)
        r = node_pwrite(file, 0, sector, sizeof(sector), 0);
    if (r >= 0)
        r = node_flush(file);
    return r >= 0 || ruche_error_errno(error, -r, "'%s' cannot be written", node_filename(file));
}

/* ---- descriptor ---- */

static bool backing_id(const struct image_create *c, uint32_t *ret, GError **error)
{
    bool as_is = g_path_is_absolute(c->backing_file) ||
                 g_str_has_prefix(c->backing_file, "json:") || driver_has_scheme(c->backing_file);
    g_autofree char *folder = g_path_get_dirname(c->filename);
    g_autofree char *path =
        as_is ? g_strdup(c->backing_file) : g_build_filename(folder, c->backing_file, NULL);
    return vmdk_content_id(c->graph, path, ret, error);
}

/* Everything but the extents' lines, which are in `lines`. */
static char *build_descriptor(const struct image_create *c, uint32_t parent_cid, const char *lines)
{
    const struct vmdk_create_options *o = c->options;
    unsigned heads = o->adapter_type == 0 ? 16 : 255;
    const char *hardware = o->compat6 ? "6" : has_hwversion(o) ? o->hwversion : "4";
    GString *s = g_string_new("# Disk DescriptorFile\nversion=1\n");
    g_string_append_printf(s, "CID=%08x\nparentCID=%08x\ncreateType=\"%s\"\n",
                           g_random_int_range(1, G_MAXINT32), parent_cid,
                           subformat_words[o->subformat]);
    if (c->backing_file)
        g_string_append_printf(s, "parentFileNameHint=\"%s\"\n", c->backing_file);
    g_string_append_printf(s, "\n# Extent description\n%s\n# The Disk Data Base\n#DDB\n\n", lines);
    g_string_append_printf(s, "ddb.virtualHWVersion = \"%s\"\n", hardware);
    g_string_append_printf(s, "ddb.geometry.cylinders = \"%" PRIu64 "\"\n",
                           c->size_bytes / VMDK_SECTOR / (63 * heads));
    g_string_append_printf(s, "ddb.geometry.heads = \"%u\"\nddb.geometry.sectors = \"63\"\n",
                           heads);
    g_string_append_printf(s, "ddb.adapterType = \"%s\"\n", adapter_words[o->adapter_type]);
    g_string_append_printf(s, "ddb.toolsVersion = \"%s\"\n",
                           o->toolsversion && *o->toolsversion ? o->toolsversion : "2147483647");
    return g_string_free(s, FALSE);
}

/* ---- files ---- */

/* Where the name's ending begins: "disk" and ".vmdk". */
static size_t stem_length(const char *name)
{
    const char *slash = strrchr(name, '/'), *dot = strrchr(name, '.');
    return dot && dot > (slash ? slash + 1 : name) ? (size_t)(dot - name) : strlen(name);
}

/* "disk-s001.vmdk", "disk-f001.vmdk", "disk-flat.vmdk" */
static char *extent_name(const struct image_create *c, unsigned index)
{
    const struct vmdk_create_options *o = c->options;
    size_t stem = stem_length(c->filename);
    const char *ending = c->filename + stem;
    if (!is_split(o))
        return g_strdup_printf("%.*s-flat%s", (int)stem, c->filename, ending);
    return g_strdup_printf("%.*s-%c%03u%s", (int)stem, c->filename, is_flat(o) ? 'f' : 's',
                           index + 1, ending);
}

/* One extent, complete, at `path`. */
static bool write_extent(const struct image_create *c, const char *path, uint64_t size,
                         GError **error)
{
    const struct vmdk_create_options *o = c->options;
    struct node *file = image_create_file(c->graph, path, 0, error);
    if (!file)
        return false;
    bool ok = is_flat(o) ? node_resize(file, size, prealloc_of[o->prealloc], error)
                         : vmdk_sparse_create(file, size, o, NULL, error);
    int r = ok ? node_flush(file) : 0;
    node_unref(file);
    return r < 0 ? ruche_error_errno(error, -r, "'%s' cannot be synced", c->filename) : ok;
}

/* All extents of an image that has them in files of their own; their lines are added. */
static bool write_extents(const struct image_create *c, GString *lines, GError **error)
{
    const struct vmdk_create_options *o = c->options;
    uint64_t part = is_split(o) ? SPLIT_BYTES : c->size_bytes, left = c->size_bytes;
    for (unsigned i = 0; left || !i; i++) {
        uint64_t size = min_u64(left, part);
        g_autofree char *name = extent_name(c, i), *base = g_path_get_basename(name);
        const char *path = image_files_add(c->files, name, error);
        if (!path || !write_extent(c, path, size, error))
            return false;
        g_string_append_printf(lines, "RW %" PRIu64 " %s \"%s\"%s\n", size / VMDK_SECTOR,
                               is_flat(o) ? "FLAT" : "SPARSE", base, is_flat(o) ? " 0" : "");
        left -= size;
    }
    return true;
}

/* The file that goes by the image's name. */
static bool write_main(const struct image_create *c, const char *path, uint32_t parent_cid,
                       GString *lines, GError **error)
{
    const struct vmdk_create_options *o = c->options;
    bool single = !is_split(o) && !is_flat(o);
    g_autofree char *base = g_path_get_basename(c->filename);
    if (single)
        g_string_append_printf(lines, "RW %" PRIu64 " SPARSE \"%s\"\n", c->size_bytes / VMDK_SECTOR,
                               base);
    g_autofree char *text = build_descriptor(c, parent_cid, lines->str);
    struct node *file = image_create_file(c->graph, path, 0, error);
    if (!file)
        return false;
    bool ok = true;
    if (single) {
        ok = vmdk_sparse_create(file, c->size_bytes, o, text, error);
    } else {
        int r = node_pwrite(file, 0, text, strlen(text), 0);
        r = r < 0 ? r : node_flush(file);
        ok = r >= 0 || ruche_error_errno(error, -r, "'%s' cannot be written", c->filename);
    }
    node_unref(file);
    return ok;
}

bool vmdk_create(struct image_create *c, GError **error)
{
    const struct vmdk_create_options *o = c->options;
    uint32_t parent_cid = VMDK_NO_PARENT;
    if (!check_options(c, error))
        return false;
    c->size_bytes = sectors_of(c->size_bytes) * VMDK_SECTOR;
    if (c->backing_file && !backing_id(c, &parent_cid, error))
        return false;
    const char *path = image_files_add(c->files, c->filename, error);
    if (!path)
        return false;
    GString *lines = g_string_new(NULL);
    bool ok = ((!is_split(o) && !is_flat(o)) || write_extents(c, lines, error)) &&
              write_main(c, path, parent_cid, lines, error);
    g_string_free(lines, TRUE);
    return ok;
}

/* Bytes of source that are not known to be zero, in whole grains. */
static bool count_data(struct node *source, uint64_t *ret, GError **error)
{
    uint64_t counted_to = 0, data = 0, size = node_size(source);
    struct image_extent x;
    for (uint64_t off = 0; off < size; off += x.len) {
        unsigned depth;
        int r = node_map_chain(source, NULL, off, size - off, &x, &depth);
        if (r < 0)
            return ruche_error_errno(error, -r, "'%s' cannot be mapped", node_filename(source));
        if (x.flags & EXTENT_ZERO)
            continue;
        uint64_t begin = max_u64(align_down(off, VMDK_GRAIN_BYTES), counted_to);
        uint64_t end = align_up(off + x.len, VMDK_GRAIN_BYTES);
        data += end > begin ? end - begin : 0;
        counted_to = max_u64(counted_to, end);
    }
    *ret = data;
    return true;
}

bool vmdk_measure(const void *create_options, uint64_t size_bytes, struct node *source,
                  struct image_measure *ret, GError **error)
{
    static const struct vmdk_create_options defaults;
    const struct vmdk_create_options *o = create_options ? create_options : &defaults;
    uint64_t size = source ? node_size(source) : size_bytes, data = 0;
    if (source && !is_flat(o) && !count_data(source, &data, error))
        return false;
    uint64_t part = is_split(o) ? SPLIT_BYTES : size, overhead = 0;
    for (uint64_t left = size; !is_flat(o) && left; left -= min_u64(left, part))
        overhead += plan(min_u64(left, part), o, is_split(o) ? 0 : 1).header.overhead * VMDK_SECTOR;
    uint64_t whole = is_flat(o) ? size : align_up(size, VMDK_GRAIN_BYTES);
    *ret = (struct image_measure){
        .required = is_flat(o) ? size : overhead + data,
        .fully_allocated = overhead + whole,
        .bitmaps = UINT64_MAX,
    };
    return true;
}
