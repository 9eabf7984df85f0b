/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Work on whole VMDK images: another size, another parent, emptying.
 *
 * Fiber     All of it.
 * Order     A larger sparse extent gets directories and tables behind its end, synced before the
 * header refers to them. Emptying zeroes the tables, syncs, and then cuts the grains off.
 */
#include "image/vmdk/vmdk.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* ---- size ---- */

/* Both arrays, as long as the larger directory. */
static bool enlarge_arrays(struct vmdk_extent *e, uint32_t count, GError **error)
{
    uint32_t **arrays[] = {&e->directory, &e->redundant};
    for (unsigned i = 0; i < ARRAY_COUNT(arrays); i++) {
        if (!*arrays[i])
            continue;
        uint32_t *larger = g_try_realloc_n(*arrays[i], count + 1, sizeof(uint32_t));
        if (!larger)
            return ruche_error(error, RUCHE_ERR_NO_SPACE, "%s: no memory for the grain directory",
                               e->filename);
        *arrays[i] = larger;
    }
    return true;
}

/* Directory and new tables at *at, which moves behind them. */
static int write_copy(struct vmdk_extent *e, uint32_t *directory, uint32_t count, uint64_t *at)
{
    uint64_t table = align_up(e->table_entries * sizeof(uint32_t), VMDK_SECTOR);
    uint64_t bytes = (uint64_t)count * sizeof(uint32_t),
             tables = *at + align_up(bytes, VMDK_SECTOR);
    for (uint32_t i = e->directory_count; i < count; i++)
        directory[i] = (uint32_t)((tables + (i - e->directory_count) * table) / VMDK_SECTOR);
    int r = node_pwrite(e->file, *at, directory, bytes, 0);
    *at = tables + (count - e->directory_count) * table;
    return r;
}

static int write_header(struct vmdk_extent *e, uint64_t sectors, uint64_t directory,
                        uint64_t redundant)
{
    uint8_t sector[VMDK_SECTOR];
    struct vmdk_header h;
    int r = node_flush(e->file);
    if (r >= 0)
        r = node_pread(e->file, 0, sector, sizeof(sector));
    if (r < 0 || !vmdk_header_parse(sector, &h))
        return r < 0 ? r : -EIO;
    h.capacity = sectors;
    h.directory_offset = directory / VMDK_SECTOR;
    h.redundant_offset = redundant / VMDK_SECTOR;
    vmdk_header_build(&h, sector);
    r = node_pwrite(e->file, 0, sector, sizeof(sector), 0);
    return r < 0 ? r : node_flush(e->file);
}

static bool grow_sparse(struct vmdk_extent *e, uint64_t size, GError **error)
{
    uint64_t cover = e->grain_bytes * e->table_entries, count = (size + cover - 1) / cover;
    uint64_t directory = e->directory_offset, redundant = e->redundant_offset, at = e->end;
    if (count > VMDK_DIRECTORY_BYTES_MAX / 2 / sizeof(uint32_t))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: %" PRIu64 " bytes are too large for a sparse vmdk image",
                           e->filename, size);
    int r = 0;
    if (count > e->directory_count) {
        if (!enlarge_arrays(e, (uint32_t)count, error))
            return false;
        if (e->redundant) {
            redundant = at;
            r = write_copy(e, e->redundant, (uint32_t)count, &at);
        }
        directory = at;
        if (r >= 0)
            r = write_copy(e, e->directory, (uint32_t)count, &at);
        e->end = align_up(at, e->grain_bytes);
        if (r >= 0 && !node_resize(e->file, e->end, PREALLOC_OFF, error))
            return false;
    }
    if (r >= 0)
        r = write_header(e, size / VMDK_SECTOR, directory, redundant);
    if (r < 0)
        return ruche_error_errno(error, -r, "%s: the larger directory cannot be written",
                                 e->filename);
    e->directory_offset = directory;
    e->redundant_offset = redundant;
    e->directory_count = (uint32_t)count;
    e->capacity_sectors = size / VMDK_SECTOR;
    e->grain_count = (size + e->grain_bytes - 1) / e->grain_bytes;
    return true;
}

static bool store_size(struct vmdk *v, uint64_t size, GError **error)
{
    if (!v->descriptor_bytes)
        return true;
    g_autofree char *text = vmdk_descriptor_load(v, error);
    g_autofree char *changed =
        text ? vmdk_descriptor_set_extent(text, 0, size / VMDK_SECTOR) : NULL;
    if (!changed || !vmdk_descriptor_store(v, changed, error))
        return false;
    int r = node_flush(v->descriptor_file);
    return r >= 0 ||
           ruche_error_errno(error, -r, "%s: the descriptor cannot be synced", v->node.filename);
}

static bool resize_flat(struct vmdk *v, struct vmdk_extent *e, uint64_t size, enum image_prealloc p,
                        GError **error)
{
    if (size < e->size)
        return store_size(v, size, error) &&
               node_resize(e->file, e->flat_offset + size, PREALLOC_OFF, error);
    if (!node_resize(e->file, e->flat_offset + size, p, error))
        return false;
    int r = node_flush(e->file);
    if (r < 0)
        return ruche_error_errno(error, -r, "%s: cannot be synced", e->filename);
    return store_size(v, size, error);
}

bool vmdk_resize(struct node *n, uint64_t size, enum image_prealloc p, GError **error)
{
    struct vmdk *v = vmdk_of(n);
    struct vmdk_extent *e = &v->extents[0];
    bool flat = e->kind == VMDK_FLAT;
    if (v->extent_count != 1 || e->compressed || !(flat || e->kind == VMDK_SPARSE))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "image '%s': a vmdk image of type %s keeps its size", n->filename,
                           v->desc.create_type);
    if (size % VMDK_SECTOR)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "image '%s': a size of %" PRIu64 " bytes is no multiple of %u",
                           n->filename, size, VMDK_SECTOR);
    if (!flat && size < e->size)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "image '%s': a sparse vmdk image cannot shrink", n->filename);
    if (!flat && p != PREALLOC_OFF)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "image '%s': a sparse vmdk image has no preallocation", n->filename);
    int r = vmdk_flush(n);
    if (r < 0)
        return ruche_error_errno(error, -r, "image '%s' cannot be flushed", n->filename);
    if (flat ? !resize_flat(v, e, size, p, error)
             : !grow_sparse(e, size, error) || !store_size(v, size, error))
        return false;
    e->size = size;
    return true;
}

/* ---- parent ---- */

bool vmdk_change_backing(struct node *n, const char *file, const char *format, GError **error)
{
    struct vmdk *v = vmdk_of(n);
    uint32_t cid = VMDK_NO_PARENT;
    g_autofree char *path = file ? node_resolve_name(n, file) : NULL;
    if (file && (strpbrk(file, "\"\r\n") || (format && strcmp(format, "vmdk") != 0) || !path))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "image '%s': '%s' of format %s cannot be its backing file", n->filename,
                           file, format ? format : "vmdk");
    for (unsigned i = 0; file && i < v->extent_count; i++)
        if (v->extents[i].kind != VMDK_SPARSE)
            return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                               "image '%s': flat extents have no backing file", n->filename);
    if (path && !vmdk_content_id(n->graph, path, &cid, error))
        return false;
    g_autofree char *text = vmdk_descriptor_load(v, error);
    if (!text)
        return false;
    char id[16];
    g_snprintf(id, sizeof(id), "%08x", cid);
    g_autofree char *quoted = file ? g_strdup_printf("\"%s\"", file) : NULL;
    g_autofree char *with_id = vmdk_descriptor_set(text, "parentCID", id);
    g_autofree char *changed = vmdk_descriptor_set(with_id, "parentFileNameHint", quoted);
    int r = vmdk_flush(n);
    if (r < 0)
        return ruche_error_errno(error, -r, "image '%s' cannot be flushed", n->filename);
    if (!vmdk_descriptor_store(v, changed, error))
        return false;
    r = node_flush(v->descriptor_file);
    if (r < 0)
        return ruche_error_errno(error, -r, "image '%s' cannot be synced", n->filename);
    v->desc.parent_cid = cid;
    g_free(v->desc.parent_hint);
    v->desc.parent_hint = g_strdup(file);
    return true;
}

/* ---- emptying ---- */

static int empty_extent(struct vmdk_extent *e)
{
    uint64_t bytes = e->table_entries * sizeof(uint32_t), top = e->data_begin;
    const uint32_t *copies[] = {e->redundant, e->directory};
    int r = 0;
    for (unsigned k = 0; k < ARRAY_COUNT(copies); k++) {
        for (uint32_t i = 0; copies[k] && r >= 0 && i < e->directory_count; i++) {
            uint64_t at = (uint64_t)copies[k][i] * VMDK_SECTOR;
            if (at && !range_fits(at, bytes, node_size(e->file)))
                return -EIO;
            if (at)
                r = node_zero(e->file, at, bytes, 0);
            top = max_u64(top, at + bytes);
        }
    }
    if (r >= 0)
        r = node_flush(e->file);
    top = max_u64(top, e->directory_offset + e->directory_count * sizeof(uint32_t));
    top = max_u64(top, e->redundant_offset + e->directory_count * sizeof(uint32_t));
    top = align_up(top, e->grain_bytes);
    if (r < 0 || !e->file->grows || node_size(e->file) <= top)
        return r;
    g_autoptr(GError) error = NULL;
    if (!node_resize(e->file, top, PREALLOC_OFF, &error)) {
        g_message("%s: the space of the grains stays taken: %s", e->filename, error->message);
        return 0;
    }
    e->end = top;
    return 0;
}

/* The parent took over what was here, and has a new content id. */
static int adopt_parent(struct vmdk *v)
{
    struct node *b = node_backing(&v->node);
    if (!b || b->driver != v->node.driver || vmdk_of(b)->desc.cid == v->desc.parent_cid ||
        !v->descriptor_bytes)
        return 0;
    char id[16];
    uint32_t cid = vmdk_of(b)->desc.cid;
    g_snprintf(id, sizeof(id), "%08x", cid);
    g_autofree char *text = vmdk_descriptor_load(v, NULL);
    g_autofree char *changed = text ? vmdk_descriptor_set(text, "parentCID", id) : NULL;
    if (!changed || !vmdk_descriptor_store(v, changed, NULL))
        return -EIO;
    v->desc.parent_cid = cid;
    return 0;
}

int vmdk_make_empty(struct node *n)
{
    struct vmdk *v = vmdk_of(n);
    for (unsigned i = 0; i < v->extent_count; i++)
        if (v->extents[i].kind != VMDK_SPARSE || v->extents[i].compressed)
            return -ENOTSUP;
    map_cache_drop(&v->tables);
    int r = 0;
    for (unsigned i = 0; r >= 0 && i < v->extent_count; i++)
        r = empty_extent(&v->extents[i]);
    return r < 0 ? r : adopt_parent(v);
}
