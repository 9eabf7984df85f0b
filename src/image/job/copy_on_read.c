/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `copy-on-read`: a filter that puts what is read from the backing chain into the image above it.
 *
 * A cluster is copied under a lock of its range, which writes of that range take too: neither
 * overtakes the other. Bitmaps do not see the copies: nothing reads differently.
 *
 * Fiber     Requests, and the stream job's copy_on_read_populate().
 */
#include "image/job/internal.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BOUNCE_BYTES MIB

struct copy_on_read {
    struct node n;
    char *bottom_name; /* option: the last node of the chain that is copied from; NULL: all */
    struct node *base; /* borrowed from the chain: the first one that is not; NULL: none */
    uint64_t cluster;
    struct area_set areas;
};

static struct copy_on_read *of(struct node *n)
{
    return container_of(n, struct copy_on_read, n);
}

static const struct image_option cor_options[] = {
    OPT_STRING("bottom", struct copy_on_read, bottom_name,
               "Node of the backing chain, the last one that is copied from"),
    { 0 },
};

static bool cor_open(struct node *n, GError **error)
{
    struct copy_on_read *s = of(n);
    struct node *child = node_file(n);
    filter_inherit(n);
    s->cluster = max_u64(child->cluster_bytes, 4096);
    if (!s->bottom_name)
        return true;
    struct node *bottom = graph_find(node_graph(n), s->bottom_name);
    if (!bottom || !node_is_below(child, bottom))
        return ruche_error(error, RUCHE_ERR_NOT_FOUND,
                           "bottom: '%s' is not in the backing chain of '%s'", s->bottom_name,
                           node_name(child));
    s->base = node_backing(bottom);
    return true;
}

void copy_on_read_set_bottom(struct node *filter, struct node *base)
{
    of(filter)->base = base;
}

/* How far from off on the answer to "does it have to be copied?" is the same. 1, 0 or negative
 * errno. */
static int needs_copy(struct copy_on_read *s, uint64_t off, uint64_t len, uint64_t *ret_len)
{
    struct image_extent e;
    unsigned depth = 0;
    int err = node_map_chain(node_file(&s->n), s->base, off, len, &e, &depth);
    if (err < 0)
        return err;
    *ret_len = e.len;
    return depth > 0 && (e.flags & EXTENT_ALLOCATED);
}

/* One run below the filter, all of it to be copied. With the lock. */
static int copy_run(struct copy_on_read *s, uint64_t off, uint64_t len, void *buf, bool *ret_write)
{
    struct node *child = node_file(&s->n);
    struct iovec iov;
    struct vec v = vec_flat(&iov, buf, len);
    *ret_write = false;
    int err = node_read(child, off, v, 0);
    if (err < 0)
        return err;
    *ret_write = true;
    if (vec_is_zero(v))
        return node_zero(child, off, len, NODE_UNCHANGED);
    return node_write(child, off, v, NODE_UNCHANGED);
}

static int populate_locked(struct copy_on_read *s, uint64_t off, uint64_t end, void *buf,
                           size_t buf_bytes, bool *ret_write)
{
    while (off < end) {
        uint64_t run;
        *ret_write = false;
        int need = needs_copy(s, off, min_u64(end - off, buf_bytes), &run);
        if (need < 0)
            return need;
        int err = need ? copy_run(s, off, run, buf, ret_write) : 0;
        if (err < 0)
            return err;
        off += run;
    }
    return 0;
}

int copy_on_read_populate(struct node *filter, uint64_t off, uint64_t len, void *buf,
                          size_t buf_bytes, bool *ret_write)
{
    struct copy_on_read *s = of(filter);
    uint64_t begin = off / s->cluster * s->cluster;
    uint64_t end =
        min_u64((off + len + s->cluster - 1) / s->cluster * s->cluster, filter->size_bytes);
    struct area area;
    area_lock(&s->areas, &area, begin, end - begin);
    int err = populate_locked(s, begin, end, buf, buf_bytes, ret_write);
    area_unlock(&s->areas, &area);
    return err;
}

/* Is any of it to be copied? Guests read most of what they read again. */
static int any_needs_copy(struct copy_on_read *s, uint64_t off, uint64_t len)
{
    int need = 0;
    for (uint64_t run; len && !need; off += run, len -= run) {
        need = needs_copy(s, off, len, &run);
        if (need < 0)
            return need;
    }
    return need;
}

static int cor_read(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    struct copy_on_read *s = of(n);
    int need = n->read_only ? 0 : any_needs_copy(s, off, v.len);
    if (need < 0)
        return need;
    if (need) {
        bool write;
        void *buf = NULL;
        size_t bytes =
            min_u64(align_up(v.len, 4096) + 2 * s->cluster, max_u64(BOUNCE_BYTES, s->cluster));
        if (posix_memalign(&buf, 4096, bytes))
            return -ENOMEM;
        int err = copy_on_read_populate(n, off, v.len, buf, bytes, &write);
        free(buf);
        if (err < 0 && !write) /* what could not be stored can still be read */
            return err;
    }
    return flags & NODE_PREFETCH ? 0 : node_read(node_file(n), off, v, flags);
}

static int cor_write(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    struct area area;
    area_lock(&of(n)->areas, &area, off, v.len);
    int err = node_write(node_file(n), off, v, flags);
    area_unlock(&of(n)->areas, &area);
    return err;
}

static int cor_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags)
{
    struct area area;
    area_lock(&of(n)->areas, &area, off, len);
    int err = node_zero(node_file(n), off, len, flags);
    area_unlock(&of(n)->areas, &area);
    return err;
}

static int cor_discard(struct node *n, uint64_t off, uint64_t len)
{
    struct area area;
    area_lock(&of(n)->areas, &area, off, len);
    int err = node_discard(node_file(n), off, len);
    area_unlock(&of(n)->areas, &area);
    return err;
}

static bool cor_resize(struct node *n, uint64_t size, enum image_prealloc p, GError **error)
{
    if (!node_resize(node_file(n), size, p, error))
        return false;
    n->size_bytes = size;
    return true;
}

static const struct image_driver copy_on_read = {
    .name = "copy-on-read",
    .summary = "Keeps what is read from the backing chain",
    .kind = DRIVER_FILTER,
    .size = sizeof(struct copy_on_read),
    .open_options = cor_options,
    .open = cor_open,
    .read = cor_read,
    .write = cor_write,
    .zero = cor_zero,
    .discard = cor_discard,
    .resize = cor_resize,
};
IMAGE_DRIVER(copy_on_read);
