/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Changes of an open node (writable or not, its thread, its size), and maps of what it holds.
 *
 * Thread    The home thread of the node's context.
 * Errors    Sentences; negative errno for maps.
 */
#include "image/dirty.h"
#include "image/graph.h"
#include "image/request.h"

#include <errno.h>
#include <string.h>

/* ---- writing or not ---- */

static bool children_read_only(struct node *n, bool read_only, GError **error)
{
    for (unsigned k = 0; k < n->child_count; k++) {
        struct node_child *c = n->children[k];
        if (c->role != CHILD_BACKING && c->node->read_only != read_only &&
            !node_set_read_only(c->node, read_only, error))
            return false;
    }
    return true;
}

static void renew_perms(struct node *n)
{
    for (unsigned k = 0; k < n->child_count; k++)
        n->children[k]->perms = node_child_perms(n, n->children[k]->role, &n->children[k]->shared);
}

bool node_set_read_only(struct node *n, bool read_only, GError **error)
{
    if (n->read_only == read_only)
        return true;
    if (!read_only && n->corrupt)
        return ruche_error(error, RUCHE_ERR_STATE, "image '%s' is corrupt and stays read-only", n->filename);
    if (!read_only && !children_read_only(n, false, error))
        return false;
    if (read_only) {
        int err = node_flush(n);
        if (err)
            return ruche_error_errno(error, -err, "image '%s' cannot be flushed", n->filename);
    }
    if (n->driver->set_read_only && !n->driver->set_read_only(n, read_only, error))
        return false;
    n->read_only = read_only;
    n->wanted_rw = !read_only;
    renew_perms(n);
    return !read_only || children_read_only(n, true, error);
}

/* ---- another file ---- */

static unsigned link_count(const struct node *n)
{
    unsigned count = 0;
    for (const struct node *p = n->graph->first; p; p = p->next) {
        for (unsigned k = 0; k < p->child_count; k++)
            count += p->children[k]->node == n;
    }
    for (const struct node_user *u = n->users; u; u = u->next)
        count++;
    return count;
}

/* A filter that was put over a node which somebody else writes to was opened as a reader (link_child()): it writes
 * as long as it stands in that one's way. */
static void filter_rest(struct node *f, bool rest)
{
    if (f->driver->kind != DRIVER_FILTER || !f->wanted_rw || f->read_only == rest)
        return;
    f->read_only = rest;
    renew_perms(f);
}

/* What grew below them while they rested. */
static void refresh_size(struct node *f)
{
    struct node *below = f->driver->kind == DRIVER_FILTER ? node_file(f) : NULL;
    if (!below)
        return;
    refresh_size(below);
    f->size_bytes = below->size_bytes;
}

static bool check_file(const struct node *n, struct node *old, struct node *file, GError **error)
{
    bool same = node_skip_filters(old) == node_skip_filters(file);
    if (file->ctx != n->ctx)
        return ruche_error(error, RUCHE_ERR_BUSY, "file: node '%s' runs on another I/O thread", file->name);
    if (node_reaches(file, n))
        return ruche_error(error, RUCHE_ERR_INVALID, "file: node '%s' stands above '%s'", file->name, n->name);
    if (!same && file->size_bytes != old->size_bytes)
        return ruche_error(error, RUCHE_ERR_INVALID, "file: node '%s' has %" G_GUINT64_FORMAT " bytes, not %"
                           G_GUINT64_FORMAT " as '%s'", file->name, file->size_bytes, old->size_bytes, old->name);
    if (!(n->driver->flags & DRIVER_SWAP_FILE))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "node '%s': what lies below driver %s cannot change while "
                           "it is open", n->name, n->driver->name);
    if (n->driver->kind == DRIVER_FORMAT && strcmp(n->driver->name, "raw") && !same)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "node '%s': format %s remembers what its file holds: only a "
                           "filter over '%s', or what such a filter is over, can take the place of it", n->name,
                           n->driver->name, node_skip_filters(old)->name);
    return true;
}

bool node_set_file(struct node *n, struct node *file, GError **error)
{
    struct node_child *c = NULL;
    for (unsigned k = 0; k < n->child_count && !c; k++)
        c = n->children[k]->role == CHILD_FILE ? n->children[k] : NULL;
    if (!c)
        return ruche_error(error, RUCHE_ERR_INVALID, "node '%s' has no file", n->name);
    struct node *old = c->node;
    if (old == file)
        return true;
    if (!check_file(n, old, file, error))
        return false;
    int err = n->read_only ? 0 : node_flush(n);
    if (err)
        return ruche_error_errno(error, -err, "node '%s' cannot be flushed", n->name);
    unsigned perms = c->perms;
    bool rested = file->read_only;
    c->perms = PERM_READ; /* our own writes are not in the new one's way */
    if (link_count(old) == 1)
        filter_rest(old, true);
    if (perms & PERM_WRITE)
        filter_rest(file, false);
    bool ok = node_perms_fit(file, perms, c->shared, n->name, c, NULL, error);
    if (ok && perms & PERM_WRITE && file->read_only)
        ok = ruche_error(error, RUCHE_ERR_INVALID, "file: node '%s' is read-only, and '%s' writes", file->name, n->name);
    c->perms = perms;
    if (!ok) {
        if (rested)
            filter_rest(file, true);
        filter_rest(old, false);
        return false;
    }
    refresh_size(file);
    c->node = node_ref(file);
    node_unref(old);
    g_free(n->filename);
    n->filename = g_strdup(file->filename);
    return true;
}

/* ---- another thread ---- */

static bool movable(const struct node *n, const struct context *from)
{
    if (n->ctx != from || n->in_flight)
        return false;
    for (unsigned k = 0; k < n->child_count; k++) {
        if (!movable(n->children[k]->node, from))
            return false;
    }
    return true;
}

const struct node_user *node_kept_by(const struct node *n)
{
    for (struct node_user *u = n->users; u; u = u->next) {
        if (!u->move || !u->move(u, NULL))
            return u;
    }
    for (unsigned k = 0; k < n->child_count; k++) {
        const struct node_user *u = node_kept_by(n->children[k]->node);
        if (u)
            return u;
    }
    return NULL;
}

/* Drained sections are of contexts: n and its users leave those of one and enter those of another. */
static void change_drained(struct node *n, bool begin, unsigned times)
{
    for (; times; times--) {
        for (struct node_user *u = n->users; u; u = u->next) {
            if (u->drained)
                u->drained(u, begin);
        }
        if (n->driver->drain)
            n->driver->drain(n, begin);
    }
}

static void move(struct node *n, struct context *c)
{
    change_drained(n, false, graph_drain_depth(n->graph, n->ctx));
    if (n->driver->detach)
        n->driver->detach(n);
    n->ctx = c;
    for (struct node_user *u = n->users; u; u = u->next)
        u->move(u, c);
    for (unsigned k = 0; k < n->child_count; k++)
        move(n->children[k]->node, c);
    if (n->driver->attach)
        n->driver->attach(n);
    change_drained(n, true, graph_drain_depth(n->graph, c));
}

/* Somebody outside of the tree below `top` holds one of its nodes. */
static bool shared_outside(const struct node *top, const struct node *n)
{
    for (const struct node *p = n->graph->first; p; p = p->next) {
        for (unsigned k = 0; k < p->child_count; k++) {
            if (p->children[k]->node == n && !node_reaches(top, p))
                return true;
        }
    }
    for (unsigned k = 0; k < n->child_count; k++) {
        if (shared_outside(top, n->children[k]->node))
            return true;
    }
    return false;
}

int node_set_context(struct node *n, struct context *c)
{
    if (n->ctx == c)
        return 0;
    if (!movable(n, n->ctx) || shared_outside(n, n) || node_kept_by(n))
        return -EBUSY;
    move(n, c);
    return 0;
}

/* ---- size ---- */

bool node_resize(struct node *n, uint64_t size, enum image_prealloc p, GError **error)
{
    uint64_t old = n->size_bytes;
    if (n->read_only)
        return ruche_error(error, RUCHE_ERR_STATE, "image '%s' is read-only", n->filename);
    if (size > IMAGE_SIZE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "image '%s': %" G_GUINT64_FORMAT " bytes is over the limit of %llu",
                           n->filename, size, IMAGE_SIZE_MAX);
    if (!n->driver->resize)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "image '%s': driver %s cannot change its size", n->filename,
                           n->driver->name);
    struct node_request r;
    request_begin(n, &r, min_u64(old, size), IMAGE_SIZE_MAX - min_u64(old, size), true, true);
    bool ok = n->driver->resize(n, size, p, error);
    if (ok)
        n->size_bytes = size;
    for (struct dirty_bitmap *b = n->bitmaps; ok && b; b = b->next) {
        if (!dirty_resize(b, size))
            ok = ruche_error(error, RUCHE_ERR_NO_SPACE, "no memory for the larger bitmap '%s'", b->name ? b->name : "");
    }
    n->writes++;
    request_end(n, &r);
    struct node *backing = node_backing(n);
    if (ok && backing && size > old && backing->size_bytes > old) {
        int err = node_zero(n, old, min_u64(size, backing->size_bytes) - old, 0);
        if (err)
            ok = ruche_error_errno(error, -err, "image '%s': the new part cannot be zeroed", n->filename);
    }
    for (struct node_user *u = n->users; ok && u; u = u->next) {
        if (u->resized)
            u->resized(u);
    }
    return ok;
}

/* ---- maps ---- */

/* Drivers see whole units of their alignment; the answer is cut to what was asked. */
static int map_by_driver(struct node *n, uint64_t off, uint64_t len, struct image_extent *ret)
{
    uint64_t begin = align_down(off, n->request_align), before = off - begin;
    uint64_t end = min_u64(align_up(off + len, n->request_align), n->size_bytes);
    struct node_request r;
    ret->len = end - begin;
    request_begin(n, &r, begin, end - begin, false, false);
    int err = n->driver->map(n, begin, end - begin, ret);
    request_end(n, &r);
    if (!err && (ret->len <= before || ret->len > end - begin))
        return -EIO;
    ret->len = min_u64(ret->len - before, len);
    ret->host_offset += before;
    return err;
}

/* Allocated by the format, but the file has a hole there: it reads as zero. */
static int look_for_holes(struct image_extent *e)
{
    struct image_extent below;
    uint64_t size = e->host->size_bytes, left = e->host_offset < size ? size - e->host_offset : 0;
    e->flags &= ~EXTENT_HOLES;
    if (!left) /* past the end of the file */
        return 0;
    int err = node_map(e->host, e->host_offset, min_u64(e->len, left), &below);
    if (err)
        return err;
    e->len = below.len;
    e->flags |= below.flags & EXTENT_ZERO;
    return 0;
}

int node_map(struct node *n, uint64_t off, uint64_t len, struct image_extent *ret)
{
    if (off >= n->size_bytes || !len)
        return -EINVAL;
    len = min_u64(len, n->size_bytes - off);
    struct node *file = node_file(n);
    *ret = (struct image_extent){ .len = len };
    int err = 0;
    if (n->driver->map) {
        err = map_by_driver(n, off, len, ret);
    } else if (n->driver->kind == DRIVER_FILTER && file) {
        err = node_map(file, off, len, ret);
    } else {
        ret->flags = EXTENT_DATA | EXTENT_ALLOCATED | (n->driver->kind == DRIVER_PROTOCOL ? EXTENT_OFFSET : 0);
        ret->host = n;
        ret->host_offset = off;
    }
    if (!err && ret->flags & EXTENT_HOLES)
        err = look_for_holes(ret);
    if (!err && off + ret->len == n->size_bytes)
        ret->flags |= EXTENT_EOF;
    return err;
}

int node_map_chain(struct node *n, struct node *base, uint64_t off, uint64_t len,
                   struct image_extent *ret, unsigned *ret_depth)
{
    unsigned depth = 0;
    uint64_t top_size = n->size_bytes;
    struct image_extent e = { .len = min_u64(len, top_size - off) };
    base = node_skip_filters(base);
    for (struct node *at = node_skip_filters(n); at && at != base;
         at = node_skip_filters(node_backing(at)), depth++) {
        if (off >= at->size_bytes) { /* a short one below: nothing there, zeroes above its end */
            e.flags = EXTENT_ZERO | EXTENT_ALLOCATED;
            e.host = NULL;
            break;
        }
        struct image_extent one;
        int err = node_map(at, off, e.len, &one);
        if (err)
            return err;
        e = one;
        if (e.flags & EXTENT_ALLOCATED)
            break;
    }
    if (!(e.flags & EXTENT_ALLOCATED))
        e.flags |= EXTENT_ZERO;
    e.flags &= ~EXTENT_EOF;
    if (off + e.len == top_size)
        e.flags |= EXTENT_EOF;
    *ret = e;
    if (ret_depth)
        *ret_depth = depth;
    return 0;
}
