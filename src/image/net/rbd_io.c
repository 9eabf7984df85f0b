/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The driver "rbd": requests, and where the data is.
 *
 * Thread    librbd answers on threads of its own, which post to the node's loop.
 * Fiber     All of it.
 */
#include "image/net/rbd.h"

#include <errno.h>

#define IOVS_MAX 64

/* One request in flight, on its fiber's stack. */
struct rbd_call {
    struct rbd_node *n;
    struct loop_task task;
    struct fiber *fiber;
    rbd_completion_t completion;
    bool done;
};

/* --- requests --- */

static void at_home(void *opaque)
{
    struct rbd_call *c = opaque;
    c->done = true;
    if (c->fiber)
        fiber_wake(c->fiber);
}

/* A thread of librbd. */
static void completed(rbd_completion_t completion, void *opaque)
{
    struct rbd_call *c = opaque;
    loop_post(context_loop(c->n->node.ctx), &c->task);
}

static int begin(struct rbd_node *n, struct rbd_call *c)
{
    *c = (struct rbd_call){.n = n, .task = {.fn = at_home, .opaque = c}};
    return rbd_aio_create_completion(c, completed, &c->completion);
}

/* `rc` is what starting it gave. */
static ssize_t finish(struct rbd_call *c, int rc)
{
    ssize_t result = rc;
    if (rc >= 0) {
        while (!c->done) {
            c->fiber = fiber_self();
            fiber_wait();
        }
        result = rbd_aio_get_return_value(c->completion);
        c->n->gave_up = c->n->gave_up || result == -ETIMEDOUT;
    }
    rbd_aio_release(c->completion);
    return result;
}

static int transfer(struct rbd_node *n, uint64_t off, struct vec v, bool write)
{
    for (size_t done = 0; done < v.len;) {
        struct iovec iov[IOVS_MAX];
        struct rbd_call c;
        size_t len;
        int count = (int)vec_to_iov(vec_slice(v, done, v.len - done), iov, IOVS_MAX, &len);
        int rc = begin(n, &c);
        if (rc < 0)
            return rc;
        ssize_t got =
            finish(&c, write ? rbd_aio_writev(n->handle, iov, count, off + done, c.completion)
                             : rbd_aio_readv(n->handle, iov, count, off + done, c.completion));
        if (got < 0)
            return (int)got;
        if (!write && (size_t)got < len) /* the image has become shorter */
            vec_fill(vec_slice(v, done + (size_t)got, len - (size_t)got), 0);
        done += len;
    }
    return 0;
}

/* --- size --- */

struct new_size {
    struct rbd_node *n;
    uint64_t bytes;
};

static int resize_call(void *opaque)
{
    struct new_size *s = opaque;
    return rbd_resize(s->n->handle, s->bytes);
}

int rbd_node_set_size(struct rbd_node *n, uint64_t size)
{
    struct new_size s = {n, size};
    int rc = context_offload(n->node.ctx, resize_call, &s);
    if (rc >= 0)
        n->image_bytes = size;
    return rc;
}

/* Writes past the end make the image longer. */
static int make_room(struct rbd_node *n, uint64_t end)
{
    if (likely(end <= n->image_bytes))
        return 0;
    fiber_mutex_lock(&n->grow_lock);
    int rc = end <= n->image_bytes ? 0 : rbd_node_set_size(n, end);
    fiber_mutex_unlock(&n->grow_lock);
    return rc;
}

/* --- reads, writes --- */

int rbd_node_read(struct node *node, uint64_t off, struct vec v, unsigned flags)
{
    return transfer(rbd_of(node), off, v, false);
}

int rbd_node_write(struct node *node, uint64_t off, struct vec v, unsigned flags)
{
    int rc = make_room(rbd_of(node), off + v.len);
    return rc < 0 ? rc : transfer(rbd_of(node), off, v, true);
}

int rbd_node_flush(struct node *node)
{
    struct rbd_node *n = rbd_of(node);
    struct rbd_call c;
    int rc = begin(n, &c);
    return rc < 0 ? rc : (int)finish(&c, rbd_aio_flush(n->handle, c.completion));
}

int rbd_node_discard(struct node *node, uint64_t off, uint64_t len)
{
    struct rbd_node *n = rbd_of(node);
    struct rbd_call c;
    int rc = begin(n, &c);
    return rc < 0 ? rc : (int)finish(&c, rbd_aio_discard(n->handle, off, len, c.completion));
}

int rbd_node_zero(struct node *node, uint64_t off, uint64_t len, unsigned flags)
{
    struct rbd_node *n = rbd_of(node);
    struct rbd_call c;
    int how = flags & NODE_MAY_UNMAP ? 0 : RBD_WRITE_ZEROES_FLAG_THICK_PROVISION;
    int rc = make_room(n, off + len);
    if (rc >= 0)
        rc = begin(n, &c);
    return rc < 0
               ? rc
               : (int)finish(&c, rbd_aio_write_zeroes(n->handle, off, len, c.completion, how, 0));
}

/* --- the map --- */

/* The first run of objects that are there, or are not. */
struct run {
    struct rbd_node *n;
    uint64_t off, end; /* what is looked at, from the beginning of an object */
    uint64_t at;       /* what was asked about */
    bool found, there;
    uint64_t run_end;
};
enum { ENOUGH = -ECANCELED };

/* Of an extent that is there, in ascending order; those that are not may be left out. */
static int on_extent(uint64_t off, size_t len, int exists, void *opaque)
{
    struct run *r = opaque;
    uint64_t end = off + len;
    if (!exists || end <= r->at)
        return 0;
    if (!r->found && off > r->at) {
        r->found = true;
        r->run_end = off;
        return ENOUGH;
    }
    if (r->found && off > r->run_end)
        return ENOUGH;
    r->found = r->there = true;
    r->run_end = end;
    return 0;
}

static int map_call(void *opaque)
{
    struct run *r = opaque;
    int rc =
        rbd_diff_iterate2(r->n->handle, NULL, r->off, r->end - r->off, true, true, on_extent, r);
    return rc == ENOUGH ? 0 : rc;
}

/* librbd before 2022 counts wrong when it is asked from inside an object. */
int rbd_node_map(struct node *node, uint64_t off, uint64_t len, struct image_extent *ret)
{
    struct rbd_node *n = rbd_of(node);
    struct run r = {.n = n, .at = off, .end = off + len};
    *ret = (struct image_extent){
        .len = len,
        .flags = EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_OFFSET,
        .host = node,
        .host_offset = off,
    };
    if (!n->fast_diff)
        return 0;
    r.off = align_down(off, node->cluster_bytes);
    int rc = context_offload(node->ctx, map_call, &r);
    if (rc < 0)
        return rc;
    if (!r.there)
        ret->flags = EXTENT_ZERO | EXTENT_ALLOCATED | EXTENT_OFFSET;
    if (r.found && r.run_end < off + len)
        ret->len = r.run_end - off;
    return 0;
}
