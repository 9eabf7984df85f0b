/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Format "raw": the guest's bytes as they are, or a part of a file.
 *
 * Fiber     All operations.
 * Trust     offset and size are checked against the file.
 * Note      A file whose length is no multiple of 512 gets zeroes behind its end; a write there makes it longer.
 */
#include "image/driver.h"

#include <errno.h>
#include <string.h>

struct raw_node {
    struct node n;
    uint64_t offset, size;
    bool part; /* offset or size was given */
};

static const struct image_option raw_options[] = {
    OPT_SIZE("offset", struct raw_node, offset, 0, 0, 0, "Where the guest's first byte is in the file"),
    OPT_SIZE("size", struct raw_node, size, 0, 0, 0, "How many bytes the guest sees"),
    { 0 },
};

struct raw_create {
    int preallocation;
    bool nocow;
};
static const char *const raw_prealloc_words[] = { "off", "falloc", "full", NULL };
static const enum image_prealloc raw_prealloc[] = { PREALLOC_OFF, PREALLOC_FALLOC, PREALLOC_FULL };

static const struct image_option raw_create_options[] = {
    OPT_WORD("preallocation", struct raw_create, preallocation, raw_prealloc_words, 0,
             "Preallocation mode (allowed values: off, falloc, full)"),
    OPT_BOOL("nocow", struct raw_create, nocow, false, "Turn off copy-on-write (valid only on btrfs)"),
    { 0 },
};

static bool raw_set_size(struct raw_node *r, GError **error)
{
    const struct node *file = node_file(&r->n);
    if (!r->part) {
        r->n.size_bytes = align_up(file->size_bytes, 512);
        return true;
    }
    if (r->offset > file->size_bytes)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "image '%s': offset=%" G_GUINT64_FORMAT " is past its end at %" G_GUINT64_FORMAT, r->n.filename,
                           r->offset, file->size_bytes);
    if (r->size > file->size_bytes - r->offset)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "image '%s': size=%" G_GUINT64_FORMAT " reaches past its end at %" G_GUINT64_FORMAT, r->n.filename,
                           r->size, file->size_bytes);
    if (!json_object_has_member(r->n.options, "size"))
        r->size = align_down(file->size_bytes - r->offset, 512);
    r->n.size_bytes = r->size;
    return true;
}

static bool raw_open(struct node *n, GError **error)
{
    struct raw_node *r = container_of(n, struct raw_node, n);
    const struct node *file = node_file(n);
    r->part = json_object_has_member(n->options, "offset") || json_object_has_member(n->options, "size");
    n->block_bytes = file->block_bytes;
    n->physical_block_bytes = file->physical_block_bytes;
    n->discard_align = file->discard_align;
    n->zero_align = file->zero_align;
    n->write_flags = NODE_FUA | NODE_FRESH;
    n->zero_flags = NODE_FUA | NODE_MAY_UNMAP | NODE_NO_FALLBACK;
    n->zero_init = file->zero_init;
    return raw_set_size(r, error);
}

static int raw_read(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    struct raw_node *r = container_of(n, struct raw_node, n);
    struct node *file = n->children[0]->node;
    uint64_t at = off + r->offset;
    if (unlikely(at + v.len > file->size_bytes) && !file->grows) { /* the end of a cut last sector */
        size_t inside = at < file->size_bytes ? file->size_bytes - at : 0;
        vec_fill(vec_slice(v, inside, v.len - inside), 0);
        v = vec_slice(v, 0, inside);
    }
    return node_read(file, at, v, flags);
}

static int raw_write(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    struct raw_node *r = container_of(n, struct raw_node, n);
    return node_write(n->children[0]->node, off + r->offset, v, flags);
}

static int raw_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags)
{
    struct raw_node *r = container_of(n, struct raw_node, n);
    return node_zero(n->children[0]->node, off + r->offset, len, flags | NODE_NO_FALLBACK);
}

static int raw_copy_range(struct node *n, uint64_t off, struct node *from, uint64_t from_off, uint64_t len,
                          bool share_only)
{
    struct raw_node *r = container_of(n, struct raw_node, n);
    return node_copy_range(from, from_off, n->children[0]->node, off + r->offset, len, share_only);
}

static int raw_discard(struct node *n, uint64_t off, uint64_t len)
{
    struct raw_node *r = container_of(n, struct raw_node, n);
    struct node *file = n->children[0]->node;
    uint64_t at = off + r->offset;
    return at >= file->size_bytes ? 0 : node_discard(file, at, min_u64(len, file->size_bytes - at));
}

static int raw_map(struct node *n, uint64_t off, uint64_t len, struct image_extent *ret)
{
    struct raw_node *r = container_of(n, struct raw_node, n);
    struct node *file = n->children[0]->node;
    uint64_t at = off + r->offset;
    if (at >= file->size_bytes) {
        ret->flags = EXTENT_ZERO | EXTENT_ALLOCATED;
        return 0;
    }
    int err = node_map(file, at, len, ret);
    ret->flags |= EXTENT_ALLOCATED;
    if (!err && at + ret->len == file->size_bytes && !r->part)
        ret->len = min_u64(len, align_up(at + ret->len, 512) - at); /* the cut last sector, whole */
    return err;
}

static bool raw_resize(struct node *n, uint64_t size, enum image_prealloc p, GError **error)
{
    struct raw_node *r = container_of(n, struct raw_node, n);
    if (r->part)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "image '%s' is a part of a file (offset=, size=): its size is fixed",
                           n->filename);
    return node_resize(node_file(n), size, p, error);
}

static bool raw_create(struct image_create *c, GError **error)
{
    const struct raw_create *o = c->options;
    if (c->backing_file)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "'%s': format raw has no backing files", c->filename);
    c->only_holes = raw_prealloc[o->preallocation] == PREALLOC_OFF;
    return node_resize(c->file, c->size_bytes, raw_prealloc[o->preallocation], error);
}

static bool raw_measure(const void *options, uint64_t size, struct node *source, struct image_measure *ret,
                        GError **error)
{
    uint64_t bytes = source ? node_size(source) : size;
    *ret = (struct image_measure){ .required = bytes, .fully_allocated = bytes, .bitmaps = UINT64_MAX };
    return true;
}

/* Anything is a raw image; every magic is surer. */
static int raw_probe(const uint8_t *head, size_t len, const char *filename)
{
    return 1;
}

static const struct image_driver raw_driver = {
    .name = "raw",
    .summary = "The guest's bytes as they are",
    .spec = "none",
    .kind = DRIVER_FORMAT,
    .flags = DRIVER_SWAP_FILE,
    .size = sizeof(struct raw_node),
    .open_options = raw_options,
    .create_options = raw_create_options,
    .create_size = sizeof(struct raw_create),
    .probe = raw_probe,
    .open = raw_open,
    .read = raw_read,
    .write = raw_write,
    .zero = raw_zero,
    .copy_range = raw_copy_range,
    .discard = raw_discard,
    .map = raw_map,
    .resize = raw_resize,
    .create = raw_create,
    .measure = raw_measure,
};
IMAGE_DRIVER(raw_driver);
