/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A changed descriptor takes the old one's place, so that a crash leaves one of both.
 *
 * Fiber     All of it.
 * Order     What differs in one sector goes out as one sector. Otherwise:
 *           inside a sparse extent, the new text is written behind the old one, into the room that
 *           descriptors have; then the header says where it is; then it is written to the front of
 *           the room, and the header says that. A sync stands between each two. A room that does
 *           not hold both is written over.
 *           A file of its own is replaced by a new one (image_files), unless it is no plain file or
 *           somebody else's node; then it is written over.
 */
#include "image/vmdk/vmdk.h"

#include "image/graph.h"

#include <errno.h>
#include <string.h>

static bool cannot_write(const struct vmdk *v, int r, GError **error)
{
    return ruche_error_errno(error, -r, "%s: cannot write the descriptor", v->node.filename);
}

/* ---- inside a sparse extent ---- */

/* What a text takes with the zero that ends it. */
static size_t room_of(const char *text)
{
    return align_up(strlen(text) + 1, VMDK_SECTOR);
}

/* The only sector in which two areas differ; `len`: none; -1: there are more. */
static ssize_t only_change(const char *a, const char *b, size_t len)
{
    ssize_t found = (ssize_t)len;
    for (size_t at = 0; at < len; at += VMDK_SECTOR) {
        if (!memcmp(a + at, b + at, VMDK_SECTOR))
            continue;
        if (found != (ssize_t)len)
            return -1;
        found = (ssize_t)at;
    }
    return found;
}

/* Text and zeroes, synced. */
static int put_text(struct vmdk *v, uint64_t off, const char *text, size_t room)
{
    g_autofree char *padded = g_try_malloc0(room);
    if (!padded)
        return -ENOMEM;
    memcpy(padded, text, strlen(text));
    int r = node_pwrite(v->descriptor_file, off, padded, room, 0);
    return r < 0 ? r : node_flush(v->descriptor_file);
}

/* The header's sector says where the descriptor is. */
static int point_at(struct vmdk *v, uint64_t off, uint64_t bytes)
{
    uint8_t sector[VMDK_SECTOR];
    struct vmdk_header h;
    int r = node_pread(v->descriptor_file, 0, sector, sizeof(sector));
    if (r < 0 || !vmdk_header_parse(sector, &h))
        return r < 0 ? r : -EIO;
    h.desc_offset = off / VMDK_SECTOR;
    h.desc_sectors = bytes / VMDK_SECTOR;
    vmdk_header_build(&h, sector);
    r = node_pwrite(v->descriptor_file, 0, sector, sizeof(sector), 0);
    if (r >= 0)
        r = node_flush(v->descriptor_file);
    if (r < 0)
        return r;
    v->descriptor_offset = v->extents[0].descriptor_offset = off;
    v->descriptor_bytes = v->extents[0].descriptor_bytes = bytes;
    return 0;
}

/* Where the room for descriptors begins: behind the header, unless tables are there. A change that
 * was cut short has left the text further behind. */
static uint64_t room_begin(const struct vmdk *v)
{
    const struct vmdk_extent *e = &v->extents[0];
    bool tables = e->directory_offset && e->directory_offset < v->descriptor_offset;
    bool more = e->redundant_offset && e->redundant_offset < v->descriptor_offset;
    return tables || more ? v->descriptor_offset : VMDK_SECTOR;
}

static int switch_over(struct vmdk *v, const char *old, const char *text)
{
    uint64_t home = room_begin(v), at = v->descriptor_offset, end = at + v->descriptor_bytes;
    size_t need = room_of(text);
    if (at == home) {
        at += MAX(need, room_of(old));
        if (at + need > end)
            return put_text(v, home, text, end - home);
        int r = put_text(v, at, text, end - at);
        if (r >= 0)
            r = point_at(v, at, end - at);
        if (r < 0)
            return r;
    } else if (home + need > at) {
        return put_text(v, at, text, end - at);
    }
    int r = put_text(v, home, text, at - home);
    return r < 0 ? r : point_at(v, home, end - home);
}

static bool store_inside(struct vmdk *v, const char *old, const char *text, GError **error)
{
    size_t room = v->descriptor_bytes;
    if (room_of(text) > room)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the descriptor of %zu bytes does not fit into its %zu bytes",
                           v->node.filename, strlen(text), room);
    g_autofree char *before = g_malloc0(room), *after = g_malloc0(room);
    memcpy(before, old, MIN(strlen(old), room));
    memcpy(after, text, strlen(text));
    ssize_t at = only_change(before, after, room);
    int r = 0;
    if (at < 0)
        r = switch_over(v, old, text);
    else if (at < (ssize_t)room)
        r = node_pwrite(v->descriptor_file, v->descriptor_offset + (size_t)at, after + at,
                        VMDK_SECTOR, 0);
    return r >= 0 || cannot_write(v, r, error);
}

/* ---- a file of its own ---- */

/* The link to a file that may give way to a new one; NULL: it may not. */
static struct node_child *replaceable(struct vmdk *v)
{
    const struct node *file = v->descriptor_file;
    if (strcmp(file->driver->name, "file") || file->name[0] != '#' || file->refs != 1 ||
        graph_context(v->node.graph) != v->node.ctx)
        return NULL;
    for (unsigned i = 0; i < v->node.child_count; i++)
        if (v->node.children[i]->node == file)
            return v->node.children[i];
    return NULL;
}

static bool write_new(struct vmdk *v, const char *path, const char *text, GError **error)
{
    struct node *file = image_create_file(v->node.graph, path, 0, error);
    if (!file)
        return false;
    int r = node_pwrite(file, 0, text, strlen(text), 0);
    if (r >= 0)
        r = node_flush(file);
    node_unref(file);
    return r >= 0 || cannot_write(v, r, error);
}

/* The new file is opened as the old one was. */
static bool replace_file(struct vmdk *v, struct node_child *link, const char *text, GError **error)
{
    struct image_files *files = image_files_new();
    const char *path = image_files_replace(files, link->node->filename, error);
    if (!path || !write_new(v, path, text, error)) {
        image_files_abort(files);
        return false;
    }
    if (!image_files_commit(files, true, error))
        return false;
    struct node *file =
        node_open(v->node.graph, link->node->options, link->node->open_flags, error);
    if (!file)
        return false;
    node_unref(link->node);
    link->node = v->descriptor_file = file;
    return true;
}

/* Line ends at its end hide what is cut off after it. */
static bool write_over(struct vmdk *v, const char *text, GError **error)
{
    size_t len = strlen(text), room = MAX(len, v->descriptor_bytes);
    g_autofree char *padded = g_malloc(room);
    memset(padded, '\n', room);
    memcpy(padded, text, len);
    int r = node_pwrite(v->descriptor_file, 0, padded, room, 0);
    if (r < 0)
        return cannot_write(v, r, error);
    return room == len || node_resize(v->descriptor_file, len, PREALLOC_OFF, error);
}

static bool store_file(struct vmdk *v, const char *old, const char *text, GError **error)
{
    size_t room = align_up(MAX(strlen(old), strlen(text)), VMDK_SECTOR);
    g_autofree char *before = g_malloc0(room), *after = g_malloc0(room);
    memcpy(before, old, strlen(old));
    memcpy(after, text, strlen(text));
    bool torn = room > VMDK_SECTOR && only_change(before, after, room) < 0;
    struct node_child *link = torn ? replaceable(v) : NULL;
    if (!(link ? replace_file(v, link, text, error) : write_over(v, text, error)))
        return false;
    v->descriptor_bytes = strlen(text);
    return true;
}

bool vmdk_descriptor_store(struct vmdk *v, const char *text, GError **error)
{
    g_autofree char *old = vmdk_descriptor_load(v, error);
    if (!old)
        return false;
    return v->descriptor_is_file ? store_file(v, old, text, error)
                                 : store_inside(v, old, text, error);
}
