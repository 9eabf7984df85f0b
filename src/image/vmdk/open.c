/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The driver "vmdk": VMware's disks. Opening, closing, and what they say of themselves.
 *
 * Spec      "Virtual Disk Format 5.0".
 * Fiber     All but describe and probe.
 * Trust     The image is hostile; extents and parents that it names are asked for by the graph's
 * policy.
 */
#include "image/vmdk/vmdk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define CACHE_BYTES (4 * MIB) /* tables of 64 GiB with the usual grains */

/* ---- descriptor ---- */

static char *read_text(struct vmdk *v, GError **error)
{
    const char *name = v->node.filename;
    char *text = g_try_malloc(v->descriptor_bytes + 1);
    if (!text) {
        ruche_error(error, RUCHE_ERR_NO_SPACE, "%s: no memory for the descriptor", name);
        return NULL;
    }
    int r = node_pread(v->descriptor_file, v->descriptor_offset, text, v->descriptor_bytes);
    if (r < 0) {
        ruche_error_errno(error, -r, "%s: cannot read the descriptor", name);
        g_free(text);
        return NULL;
    }
    text[v->descriptor_bytes] = 0;
    return text;
}

char *vmdk_descriptor_load(struct vmdk *v, GError **error)
{
    if (!v->descriptor_bytes) {
        ruche_error(error, RUCHE_ERR_UNSUPPORTED, "%s: it has no descriptor", v->node.filename);
        return NULL;
    }
    return read_text(v, error);
}

bool vmdk_content_id(struct graph *g, const char *filename, uint32_t *ret, GError **error)
{
    struct node *n = node_open_name(g, filename, "vmdk", NULL,
                                    NODE_NO_BACKING | NODE_NO_LOCK | NODE_CHECK, error);
    if (!n)
        return false;
    *ret = vmdk_of(n)->desc.cid;
    node_unref(n);
    return true;
}

static int write_new_cid(struct vmdk *v)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = vmdk_descriptor_load(v, &error);
    char value[16];
    uint32_t cid = g_random_int();
    cid -= cid == VMDK_NO_PARENT || cid == v->desc.cid;
    snprintf(value, sizeof(value), "%08x", cid);
    g_autofree char *changed = text ? vmdk_descriptor_set(text, "CID", value) : NULL;
    if (!changed || !vmdk_descriptor_store(v, changed, &error)) {
        g_message("%s", error->message);
        return -EIO;
    }
    v->desc.cid = cid;
    return 0;
}

int vmdk_touch(struct vmdk *v)
{
    if (likely(v->cid_written))
        return 0;
    fiber_mutex_lock(&v->cid_lock);
    int r = v->cid_written || !v->descriptor_bytes ? 0 : write_new_cid(v);
    v->cid_written = r >= 0;
    fiber_mutex_unlock(&v->cid_lock);
    return r;
}

/* ---- extents ---- */

static bool alloc_extents(struct vmdk *v, unsigned count, GError **error)
{
    v->extents = g_try_new0(struct vmdk_extent, count);
    if (!v->extents)
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "%s: no memory", v->node.filename);
    for (unsigned i = 0; i < count; i++)
        v->extents[i] = (struct vmdk_extent){.image = v, .index = i};
    v->extent_count = count;
    return true;
}

/* One file with everything in it. */
static bool open_single(struct vmdk *v, GError **error)
{
    if (!alloc_extents(v, 1, error))
        return false;
    struct vmdk_extent *e = &v->extents[0];
    e->kind = VMDK_SPARSE;
    e->writable = true;
    e->file = v->descriptor_file;
    e->filename = g_strdup(v->node.filename);
    e->type = g_strdup("");
    if (!vmdk_sparse_open(e, 0, error))
        return false;
    v->descriptor_offset = e->descriptor_offset;
    v->descriptor_bytes = e->descriptor_bytes;
    if (!range_fits(v->descriptor_offset, v->descriptor_bytes, node_size(e->file)))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the descriptor at %" PRIu64 " is not inside the file",
                           v->node.filename, v->descriptor_offset);
    g_autofree char *text = v->descriptor_bytes ? read_text(v, error) : NULL;
    if (v->descriptor_bytes && !text)
        return false;
    if (text && text[0])
        return vmdk_descriptor_parse(text, strlen(text), v->node.filename, &v->desc, error);
    v->descriptor_bytes = 0;
    v->desc.parent_cid = VMDK_NO_PARENT;
    v->desc.create_type = g_strdup("");
    return true;
}

static bool open_extent(struct vmdk *v, struct vmdk_extent *e, const struct vmdk_extent_line *l,
                        GError **error)
{
    e->kind = l->kind;
    e->writable = l->writable;
    e->size = l->sectors * VMDK_SECTOR;
    e->flat_offset = l->offset_sectors * VMDK_SECTOR;
    e->type = g_strdup(l->type);
    e->filename = g_strdup(l->filename);
    if (e->kind == VMDK_ZERO)
        return true;
    g_autofree char *name = g_strdup_printf("extents.%u", e->index);
    e->file = node_open_named_child(&v->node, name, CHILD_DATA, l->filename, NULL, error);
    if (!e->file)
        return false;
    g_free(e->filename);
    e->filename = g_strdup(node_filename(e->file));
    if (e->kind != VMDK_FLAT)
        return vmdk_sparse_open(e, l->sectors, error);
    if (!range_fits(e->flat_offset, e->size, node_size(e->file)))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the extent of %" PRIu64 " bytes at %" PRIu64
                           " is not inside the file of %" PRIu64 " bytes",
                           e->filename, e->size, e->flat_offset, node_size(e->file));
    return true;
}

/* A text that names the files. */
static bool open_described(struct vmdk *v, GError **error)
{
    v->descriptor_is_file = true;
    v->descriptor_bytes = node_size(v->descriptor_file);
    if (v->descriptor_bytes > VMDK_DESCRIPTOR_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: it is no sparse VMDK, and too large for a descriptor: %" PRIu64
                           " of %" PRIu64 " bytes",
                           v->node.filename, v->descriptor_bytes, (uint64_t)VMDK_DESCRIPTOR_MAX);
    g_autofree char *text = read_text(v, error);
    if (!text || !vmdk_descriptor_parse(text, strlen(text), v->node.filename, &v->desc, error))
        return false;
    if (!v->desc.extents->len)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: the descriptor names no extent",
                           v->node.filename);
    if (!alloc_extents(v, v->desc.extents->len, error))
        return false;
    for (unsigned i = 0; i < v->extent_count; i++)
        if (!open_extent(v, &v->extents[i],
                         &g_array_index(v->desc.extents, struct vmdk_extent_line, i), error))
            return false;
    return true;
}

static bool is_sparse(const struct vmdk_extent *e)
{
    return e->kind == VMDK_SPARSE || e->kind == VMDK_COWD;
}

/* ---- the node ---- */

/* Places, limits, and how much memory tables and buffers take. */
static bool set_up(struct vmdk *v, GError **error)
{
    struct node *n = &v->node;
    unsigned entries = 0;
    uint64_t recovered = 0, tables = 0;
    n->zero_init = true;
    for (unsigned i = 0; i < v->extent_count; i++) {
        struct vmdk_extent *e = &v->extents[i];
        e->begin = n->size_bytes;
        n->size_bytes += e->size;
        n->zero_init = n->zero_init && (!e->file || e->file->zero_init || is_sparse(e));
        if (!e->writable && n->wanted_rw)
            return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                               "%s: this extent can only be read; use read-only=on",
                               e->filename ? e->filename : n->filename);
        if (!is_sparse(e))
            continue;
        entries = MAX(entries, e->table_entries);
        tables += e->directory_count;
        n->cluster_bytes = n->cluster_bytes ? n->cluster_bytes : (uint32_t)e->grain_bytes;
        n->zero_align = e->zero_grains ? (uint32_t)e->grain_bytes : n->zero_align;
        v->buffer_bytes =
            max_u64(v->buffer_bytes, e->compressed ? vmdk_stream_buffer_bytes(e) : e->grain_bytes);
        if (e->at_end && !e->finished)
            recovered += (uint64_t)(e->directory_count + 1) * e->table_entries * sizeof(uint32_t);
    }
    n->zero_flags = NODE_MAY_UNMAP | NODE_NO_FALLBACK;
    if (recovered > VMDK_RECOVER_BYTES_MAX)
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "%s: its footer is missing, and the disk is too large to be read without", n->filename);
    uint64_t all = tables * entries * sizeof(uint32_t);
    uint64_t bytes = max_u64(min_u64(v->cache_bytes, all), recovered);
    int r = entries ? map_cache_init(&v->tables, &vmdk_map_ops, v, entries, bytes) : 0;
    return r >= 0 || ruche_error_errno(error, -r, "%s: no memory for grain tables", n->filename);
}

static bool recover_streams(struct vmdk *v, GError **error)
{
    for (unsigned i = 0; i < v->extent_count; i++) {
        struct vmdk_extent *e = &v->extents[i];
        if (e->at_end && !e->finished && !vmdk_stream_recover(e, error))
            return false;
    }
    return true;
}

static bool check_parent(struct vmdk *v, struct node *backing, GError **error)
{
    const struct node *b = node_skip_filters(backing);
    if (b->driver != v->node.driver || v->node.open_flags & NODE_CHECK)
        return true;
    uint32_t cid = container_of(b, struct vmdk, node)->desc.cid;
    return cid == v->desc.parent_cid ||
           ruche_error(
               error, RUCHE_ERR_INVALID,
               "%s: its parent '%s' was changed after it was made: content id %08x where %08x was",
               v->node.filename, b->filename, cid, v->desc.parent_cid);
}

static bool open_backing(struct vmdk *v, GError **error)
{
    struct node *n = &v->node;
    JsonNode *given = n->options ? json_object_get_member(n->options, "backing") : NULL;
    const char *hint = v->desc.parent_hint;
    if (v->desc.parent_cid != VMDK_NO_PARENT && hint && *hint) {
        n->backing_file = g_strdup(hint);
        n->backing_format = g_strdup("vmdk");
    }
    n->backing_overridden = given != NULL;
    if (n->open_flags & NODE_NO_BACKING || (given && JSON_NODE_HOLDS_NULL(given)) ||
        (!given && !n->backing_file))
        return true;
    struct node *b =
        given ? node_open_child(n, "backing", CHILD_BACKING, true, error)
              : node_open_named_child(n, "backing", CHILD_BACKING, n->backing_file, "vmdk", error);
    return b && (given || check_parent(v, b, error));
}

bool vmdk_open(struct node *n, GError **error)
{
    struct vmdk *v = vmdk_of(n);
    char magic[4] = "";
    v->descriptor_file = node_file(n);
    int r = node_size(v->descriptor_file) < sizeof(magic)
                ? -EINVAL
                : node_pread(v->descriptor_file, 0, magic, sizeof(magic));
    if (r < 0)
        return ruche_error_errno(error, -r, "%s: cannot read the VMDK header", n->filename);
    bool sparse = memcmp(magic, "KDMV", 4) == 0 || memcmp(magic, "COWD", 4) == 0;
    if (!(sparse ? open_single(v, error) : open_described(v, error)) || !set_up(v, error) ||
        !recover_streams(v, error) || !open_backing(v, error))
        return false;
    n->zero_init = n->zero_init && !vmdk_has_backing(v);
    v->opened = true;
    return true;
}

/* Writers of new grains may have left the last one short. */
static void round_end(struct vmdk_extent *e)
{
    g_autoptr(GError) error = NULL;
    if (e->grown && !e->compressed && node_size(e->file) < e->end &&
        !node_resize(e->file, e->end, PREALLOC_OFF, &error))
        g_message("%s: %s", e->filename, error->message);
}

void vmdk_close(struct node *n)
{
    struct vmdk *v = vmdk_of(n);
    int r = v->opened && !n->read_only ? vmdk_flush(n) : 0;
    if (r < 0)
        g_message("%s: cannot be flushed: %s", n->filename, g_strerror(-r));
    for (unsigned i = 0; i < v->extent_count; i++) {
        struct vmdk_extent *e = &v->extents[i];
        if (v->opened && !n->read_only)
            round_end(e);
        g_free(e->type);
        g_free(e->filename);
        g_free(e->directory);
        g_free(e->redundant);
    }
    while (v->buffer_count)
        g_free(v->buffers[--v->buffer_count]);
    g_free(v->inflated);
    g_free(v->extents);
    v->extent_count = 0;
    map_cache_done(&v->tables);
    vmdk_descriptor_clear(&v->desc);
}

bool vmdk_set_read_only(struct node *n, bool read_only, GError **error)
{
    struct vmdk *v = vmdk_of(n);
    for (unsigned i = 0; !read_only && i < v->extent_count; i++)
        if (!v->extents[i].writable)
            return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "%s: extent %u can only be read",
                               n->filename, i);
    return true;
}

JsonObject *vmdk_describe(struct node *n)
{
    struct vmdk *v = vmdk_of(n);
    JsonObject *o = json_object_new();
    json_object_set_int_member(o, "cid", v->desc.cid);
    json_object_set_int_member(o, "parent-cid", v->desc.parent_cid);
    json_object_set_string_member(o, "create-type", v->desc.create_type);
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < v->extent_count; i++) {
        const struct vmdk_extent *e = &v->extents[i];
        JsonObject *x = json_object_new();
        if (e->compressed)
            json_object_set_boolean_member(x, "compressed", TRUE);
        json_object_set_int_member(x, "virtual-size", (gint64)e->size);
        json_object_set_string_member(x, "filename", e->filename ? e->filename : "");
        if (is_sparse(e))
            json_object_set_int_member(x, "cluster-size", (gint64)e->grain_bytes);
        json_object_set_string_member(x, "format", e->type);
        json_array_add_object_element(list, x);
    }
    json_object_set_array_member(o, "extents", list);
    return o;
}

static int probe(const uint8_t *head, size_t len, const char *filename)
{
    if (len >= 4 && (memcmp(head, "KDMV", 4) == 0 || memcmp(head, "COWD", 4) == 0))
        return 100;
    return vmdk_descriptor_probe(head, len) ? 100 : 0;
}

static const struct image_option open_options[] = {
    OPT_SIZE("l2-cache-size", struct vmdk, cache_bytes, CACHE_BYTES, 64 * KIB, 256 * MIB,
             "Memory for grain tables"),
    {0},
};

static const struct image_driver vmdk_driver = {
    .name = "vmdk",
    .summary = "VMware's disks",
    .spec = "Virtual Disk Format 5.0",
    .kind = DRIVER_FORMAT,
    .flags = DRIVER_MULTIFILE | DRIVER_COMPRESS | DRIVER_BACKING,
    .size = sizeof(struct vmdk),
    .open_options = open_options,
    .create_options = vmdk_create_options,
    .create_size = sizeof(struct vmdk_create_options),
    .probe = probe,
    .open = vmdk_open,
    .close = vmdk_close,
    .read = vmdk_read,
    .write = vmdk_write,
    .zero = vmdk_zero,
    .discard = vmdk_discard,
    .flush = vmdk_flush,
    .map = vmdk_map,
    .resize = vmdk_resize,
    .allocated_bytes = vmdk_allocated_bytes,
    .create = vmdk_create,
    .measure = vmdk_measure,
    .check = vmdk_check,
    .change_backing = vmdk_change_backing,
    .make_empty = vmdk_make_empty,
    .describe = vmdk_describe,
    .set_read_only = vmdk_set_read_only,
};
IMAGE_DRIVER(vmdk_driver);
