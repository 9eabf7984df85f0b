/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copying a range of a node into another: what reads as zero is zeroed there, holes are not read.
 *
 * Fiber     In the job's fibers, or a filter's requests.
 */
#include "image/job/internal.h"

#include "base/error.h"

#define GRAINS_MAX      (1ULL << 24) /* 2 MiB of bitmap */
#define GRAIN_BYTES_MAX (1ULL << 31)

static int copy_data(const struct copy_how *h, uint64_t off, uint64_t len, void *buf,
                     size_t buf_bytes, bool *ret_write)
{
    while (len) {
        struct iovec iov;
        size_t n = min_u64(len, buf_bytes);
        struct vec v = vec_flat(&iov, buf, n);
        *ret_write = false;
        int err = node_read(h->from, off, v, 0);
        if (err < 0)
            return err;
        *ret_write = true;
        err = node_write(h->to, off, v, h->write_flags);
        if (err < 0)
            return err;
        off += n;
        len -= n;
    }
    return 0;
}

static int copy_extent(const struct copy_how *h, const struct image_extent *e, uint64_t off,
                       void *buf, size_t buf_bytes, bool *ret_write)
{
    if (h->skip_unallocated && !(e->flags & EXTENT_ALLOCATED))
        return 0;
    if (!(e->flags & EXTENT_ZERO))
        return copy_data(h, off, e->len, buf, buf_bytes, ret_write);
    *ret_write = true;
    return h->skip_zero ? 0 : node_zero(h->to, off, e->len, h->unmap ? NODE_MAY_UNMAP : 0);
}

int copy_range(const struct copy_how *h, uint64_t off, uint64_t len, void *buf, size_t buf_bytes,
               bool *ret_write)
{
    while (len) {
        struct image_extent e;
        unsigned depth;
        *ret_write = false;
        int err = node_map_chain(h->from, h->base, off, len, &e, &depth);
        if (err >= 0)
            err = copy_extent(h, &e, off, buf, buf_bytes, ret_write);
        if (err < 0)
            return err;
        off += e.len;
        len -= e.len;
    }
    return 0;
}

uint32_t copy_granularity(const struct node *from, const struct node *to)
{
    uint64_t g = max_u64(DIRTY_GRANULARITY_DEFAULT, to->cluster_bytes);
    while (g < GRAIN_BYTES_MAX && node_size(from) / g > GRAINS_MAX)
        g *= 2;
    return (uint32_t)g;
}

bool copy_make_room(struct node *from, struct node *to, GError **error)
{
    if (node_size(to) >= node_size(from))
        return true;
    g_autofree char *prefix =
        g_strdup_printf("'%s' is smaller than '%s': ", node_name(to), node_name(from));
    if (node_resize(to, node_size(from), PREALLOC_OFF, error))
        return true;
    g_prefix_error(error, "%s", prefix);
    return false;
}
