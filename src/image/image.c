/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A device's image: requests become fibers on the node; results come back in batches on the loop.
 *
 * Thread    The image's home loop; open and close the main thread. image_resume() any.
 * Trust     Offsets and lengths are the guest's: checked against the size.
 * Errors    0 or negative errno to `done`, after the error policy had its say.
 */
#include "image/image.h"

#include "image/context.h"
#include "image/driver.h"
#include "image/throttle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct request_list {
    struct image_request *head, *tail;
};

struct image {
    char *name;
    struct node_user user;            /* user.node NULL: no medium */
    struct context *ctx;              /* the node's; referenced when of a loop */
    bool ctx_shared;                  /* got by context_get() */
    struct loop *loop;
    bool moving; /* image_set_loop() is at it */
    struct image_stats stats;
    struct latency_histogram *histograms[IMAGE_OPS]; /* owned; NULL: not counted */
    char *attached_to;
    bool writethrough;
    enum image_on_error on_read_error, on_write_error;
    unsigned in_flight;               /* accepted, `done` not yet called, not held */
    unsigned drained;                 /* depth: new requests wait */
    struct request_list waiting;      /* while drained */
    struct request_list held;         /* failed, until image_resume() */
    struct request_list finished;     /* `done` is to be called from the loop */
    struct loop_task finish_task, resume_task;
    bool progress;                    /* something ended: image_drain() */
    void (*batch_end)(void *opaque);
    void *batch_opaque;
    struct image_events events;
    struct throttle_member throttle;
    bool throttled;
};

static image_error_fn *error_event;

static void list_push(struct request_list *l, struct image_request *r)
{
    r->next = NULL;
    if (l->head)
        l->tail->next = r;
    else
        l->head = r;
    l->tail = r;
}

static struct image_request *list_pop(struct request_list *l)
{
    struct image_request *r = l->head;
    if (r)
        l->head = r->next;
    return r;
}

/* ---- the end of requests ---- */

static void account(struct image *i, const struct image_request *r)
{
    struct image_stats *s = &i->stats;
    unsigned op = (unsigned)r->op > IMAGE_WRITE_ZEROES ? IMAGE_READ : r->op;
    int64_t now = loop_now_ns();
    s->idle_since_ns = now;
    if (r->result < 0) {
        s->failed[op]++;
        return;
    }
    stats_count(s, op, r->offset, r->op == IMAGE_FLUSH ? 0 : r->len);
    s->total_ns[op] += (uint64_t)(now - r->begin_ns);
    if (unlikely(i->histograms[op]))
        histogram_count(i->histograms[op], (uint64_t)(now - r->begin_ns));
}

/* Calls `done` of what has ended; a callback may submit more, which ends in a later round. */
static void run_finished(struct image *i)
{
    struct request_list list = i->finished;
    bool any = list.head;
    i->finished.head = NULL;
    for (struct image_request *r; (r = list_pop(&list));) {
        account(i, r);
        i->in_flight--;
        r->done(r, r->result);
    }
    if (any && i->batch_end)
        i->batch_end(i->batch_opaque);
}

static void finish_task(void *opaque)
{
    struct image *i = opaque;
    context_plug(i->ctx);
    run_finished(i);
    context_unplug(i->ctx);
}

static void finish(struct image *i, struct image_request *r, int result)
{
    r->result = result;
    i->progress = true;
    list_push(&i->finished, r);
    if (i->loop)
        loop_post(i->loop, &i->finish_task);
}

/* The policy for this error. */
static enum image_on_error policy(const struct image *i, const struct image_request *r, int err)
{
    enum image_on_error p = r->op == IMAGE_READ ? i->on_read_error : i->on_write_error;
    if (p == IMAGE_ERROR_ENOSPC)
        return err == -ENOSPC ? IMAGE_ERROR_STOP : IMAGE_ERROR_REPORT;
    return p;
}

/* A request that the device should not have made is its own fault, not the medium's. */
static bool is_medium_error(int err)
{
    return err < 0 && err != -EINVAL && err != -EROFS && err != -ENOMEDIUM;
}

static void ended(struct image *i, struct image_request *r, int err)
{
    if (is_medium_error(err)) {
        enum image_on_error p = policy(i, r, err);
        if (error_event)
            error_event(i, r->op != IMAGE_READ, p, p == IMAGE_ERROR_STOP, err);
        if (p == IMAGE_ERROR_STOP && error_event) {
            i->in_flight--;
            i->progress = true;
            list_push(&i->held, r);
            return;
        }
        if (p == IMAGE_ERROR_IGNORE) {
            if (r->op == IMAGE_READ)
                vec_fill(vec_of(r->iov, r->iov_count), 0);
            err = 0;
        }
    }
    finish(i, r, err);
}

/* ---- the work ---- */

static int work(struct node *n, const struct image *i, struct image_request *r)
{
    unsigned fua = r->fua || i->writethrough ? NODE_FUA : 0;
    switch (r->op) {
    case IMAGE_READ:
        return node_read(n, r->offset, vec_of(r->iov, r->iov_count), 0);
    case IMAGE_WRITE:
        return node_write(n, r->offset, vec_of(r->iov, r->iov_count), fua);
    case IMAGE_FLUSH:
        return node_flush(n);
    case IMAGE_DISCARD:
        return node_discard(n, r->offset, r->len);
    case IMAGE_WRITE_ZEROES:
        return node_zero(n, r->offset, r->len, fua | (r->may_unmap ? NODE_MAY_UNMAP : 0));
    }
    return -EINVAL;
}

static void request_main(void *opaque)
{
    struct image_request *r = opaque;
    struct image *i = r->image;
    if (unlikely(i->throttled) && r->op != IMAGE_FLUSH)
        throttle_pass(&i->throttle, r->op != IMAGE_READ, r->len);
    ended(i, r, work(i->user.node, i, r));
}

static uint32_t block_bytes(const struct node *n)
{
    return n->block_bytes ? n->block_bytes : 512;
}

static int check(const struct image *i, const struct image_request *r)
{
    const struct node *n = i->user.node;
    if (!n)
        return -ENOMEDIUM;
    if (r->op == IMAGE_FLUSH)
        return 0;
    uint32_t block = block_bytes(n);
    if ((unsigned)r->op > IMAGE_WRITE_ZEROES || (r->offset | r->len) & (block - 1) ||
        !range_fits(r->offset, r->len, align_down(n->size_bytes, block)))
        return -EINVAL;
    return r->op != IMAGE_READ && n->read_only ? -EROFS : 0;
}

static void start(struct image *i, struct image_request *r)
{
    if (unlikely(i->drained)) {
        list_push(&i->waiting, r);
        return;
    }
    fiber_start(request_main, r);
}

void image_submit(struct image *i, struct image_request *r)
{
    i->in_flight++;
    r->image = i;
    r->begin_ns = loop_now_ns();
    int err = check(i, r);
    if (err < 0 && (unsigned)r->op <= IMAGE_WRITE_ZEROES)
        i->stats.invalid[r->op]++;
    if (err < 0 || (!r->len && r->op != IMAGE_FLUSH))
        finish(i, r, err);
    else
        start(i, r);
}

void image_plug(struct image *i)
{
    if (i->ctx)
        context_plug(i->ctx);
}

void image_unplug(struct image *i)
{
    if (i->ctx)
        context_unplug(i->ctx);
}

void image_drain(struct image *i)
{
    if (i->throttled)
        throttle_open(&i->throttle, true);
    while (i->in_flight) {
        if (i->finished.head) {
            finish_task(i);
        } else {
            i->progress = false;
            context_wait(i->ctx, &i->progress);
        }
    }
    if (i->throttled)
        throttle_open(&i->throttle, false);
}

/* ---- what the graph tells us ---- */

static void on_drained(struct node_user *u, bool begin)
{
    struct image *i = u->opaque;
    if (begin) {
        if (i->drained++ == 0 && i->throttled)
            throttle_open(&i->throttle, true);
        return;
    }
    if (--i->drained)
        return;
    if (i->throttled)
        throttle_open(&i->throttle, false);
    struct request_list list = i->waiting;
    i->waiting.head = NULL;
    for (struct image_request *r; (r = list_pop(&list));)
        start(i, r);
}

static void on_resized(struct node_user *u)
{
    struct image *i = u->opaque;
    if (i->events.resized)
        i->events.resized(i->events.opaque);
}

void image_look_again(struct image *i)
{
    on_resized(&i->user);
}

/* By image_set_loop(); or somebody else moves a node that no device uses. */
static bool on_move(struct node_user *u, struct context *to)
{
    struct image *i = u->opaque;
    if (i->moving)
        return true;
    if (to)
        i->ctx = to;
    return !i->ctx_shared && !i->in_flight && !i->throttled;
}

void image_on_event(struct image *i, const struct image_events *e)
{
    i->events = e ? *e : (struct image_events){ 0 };
}

void image_on_error_event(image_error_fn *fn)
{
    error_event = fn;
}

static void resume_task(void *opaque)
{
    struct image *i = opaque;
    struct request_list list = i->held;
    i->held.head = NULL;
    for (struct image_request *r; (r = list_pop(&list));) {
        i->in_flight++;
        start(i, r);
    }
}

void image_resume(struct image *i)
{
    if (i->loop)
        loop_post(i->loop, &i->resume_task);
    else
        resume_task(i);
}

void image_foreach_held(const struct image *i, void (*fn)(struct image_request *r, void *opaque), void *opaque)
{
    for (struct image_request *r = i->held.head; r; r = r->next)
        fn(r, opaque);
}

struct image_request *image_take_held(struct image *i)
{
    return list_pop(&i->held);
}

/* ---- life ---- */

static void leave_context(struct image *i)
{
    if (i->ctx_shared)
        context_put(i->ctx);
    i->ctx_shared = false;
}

bool image_set_node(struct image *i, struct node *n, GError **error)
{
    node_leave(&i->user);
    if (!n)
        return true;
    i->user.who = i->name;
    i->user.perms = PERM_READ | (node_is_read_only(n) ? 0 : PERM_WRITE);
    i->user.shared = PERM_READ | PERM_RESIZE;
    i->user.opaque = i;
    i->user.drained = on_drained;
    i->user.resized = on_resized;
    i->user.move = on_move;
    if (!node_use(n, &i->user, error))
        return false;
    if (!i->ctx_shared)
        i->ctx = node_context(n);
    return true;
}

struct image *image_new(const char *name, struct node *n, GError **error)
{
    struct image *i = g_new0(struct image, 1);
    i->name = g_strdup(name);
    i->on_write_error = IMAGE_ERROR_ENOSPC;
    i->finish_task = (struct loop_task){ .fn = finish_task, .opaque = i };
    i->resume_task = (struct loop_task){ .fn = resume_task, .opaque = i };
    i->stats.idle_since_ns = loop_now_ns();
    if (n && !image_set_node(i, n, error)) {
        image_close(i);
        return NULL;
    }
    return i;
}

static void end_throttle(struct image *i)
{
    if (!i->throttled)
        return;
    struct throttle_group *g = i->throttle.group;
    throttle_leave(&i->throttle);
    throttle_group_put(g);
    i->throttled = false;
}

void image_close(struct image *i)
{
    if (!i)
        return;
    if (i->ctx)
        image_drain(i);
    image_set_loop(i, NULL);
    end_throttle(i);
    node_leave(&i->user);
    for (unsigned op = 0; op < IMAGE_OPS; op++)
        histogram_free(i->histograms[op]);
    g_free(i->name);
    g_free(i->attached_to);
    g_free(i);
}

const char *image_name(const struct image *i)
{
    return i->name;
}

struct node *image_node(const struct image *i)
{
    return i->user.node;
}

void image_set_writethrough(struct image *i, bool on)
{
    i->writethrough = on;
}

bool image_is_writethrough(const struct image *i)
{
    return i->writethrough;
}

void image_set_on_error(struct image *i, enum image_on_error read, enum image_on_error write)
{
    i->on_read_error = read;
    i->on_write_error = write;
}

void image_get_on_error(const struct image *i, enum image_on_error *ret_read,
                        enum image_on_error *ret_write)
{
    *ret_read = i->on_read_error;
    *ret_write = i->on_write_error;
}

void image_set_throttle(struct image *i, const char *group, const struct throttle_limits *l)
{
    end_throttle(i);
    if (!group && !throttle_is_limited(l))
        return;
    struct throttle_group *g = throttle_group_get(group);
    throttle_group_set(g, l);
    throttle_join(&i->throttle, g, i->ctx);
    i->throttled = true;
    if (i->drained)
        throttle_open(&i->throttle, true);
}

bool image_get_throttle(const struct image *i, const char **ret_group, struct throttle_limits *ret)
{
    if (!i->throttled)
        return false;
    *ret_group = throttle_group_name(i->throttle.group);
    throttle_group_limits(i->throttle.group, ret);
    return true;
}

bool image_attach(struct image *i, const char *user, GError **error)
{
    if (i->attached_to)
        return ruche_error(error, RUCHE_ERR_BUSY, "image '%s' is already used by %s", i->name,
                           i->attached_to);
    i->attached_to = g_strdup(user);
    return true;
}

void image_detach(struct image *i)
{
    g_clear_pointer(&i->attached_to, g_free);
}

const char *image_attached_to(const struct image *i)
{
    return i->attached_to;
}

static void leave_loop(struct image *i)
{
    if (i->loop) {
        loop_unpost(i->loop, &i->finish_task);
        loop_unpost(i->loop, &i->resume_task);
    }
    i->loop = NULL;
}

/* The node goes with its image to the loop's context, and back to the graph's when the loop lets go. */
int image_set_loop(struct image *i, struct loop *l)
{
    struct node *n = i->user.node;
    if (i->in_flight)
        return -EBUSY;
    leave_loop(i);
    struct context *to = l ? context_get(l) : n ? graph_context(node_graph(n)) : NULL;
    if (l && !to)
        return -ENOMEM;
    i->moving = true;
    int err = n ? node_set_context(n, to) : 0;
    i->moving = false;
    if (err) {
        if (l)
            context_put(to);
        return err;
    }
    if (i->throttled && to)
        throttle_move(&i->throttle, to);
    leave_context(i);
    i->ctx = to;
    i->ctx_shared = l != NULL;
    i->loop = l;
    return 0;
}

struct loop *image_loop(const struct image *i)
{
    return i->loop;
}

void image_on_batch(struct image *i, void (*fn)(void *opaque), void *opaque)
{
    i->batch_end = fn;
    i->batch_opaque = opaque;
}

void image_get_info(const struct image *i, struct image_info *ret)
{
    const struct node *n = i->user.node;
    *ret = (struct image_info){ .block_bytes = 512, .physical_block_bytes = 512, .discard_granularity = 512,
                                .format = "", .filename = "", .node_name = "" };
    if (!n)
        return;
    ret->block_bytes = block_bytes(n);
    ret->physical_block_bytes = (uint32_t)max_u64(ret->block_bytes, n->physical_block_bytes);
    ret->discard_granularity = (uint32_t)max_u64(ret->block_bytes, max_u64(n->discard_align, n->cluster_bytes));
    ret->size_bytes = align_down(n->size_bytes, ret->block_bytes);
    ret->read_only = n->read_only && !n->inactive;
    ret->can_discard = n->discard && !ret->read_only;
    ret->can_write_zeroes = !ret->read_only;
    ret->format = n->driver->name;
    ret->filename = n->filename;
    ret->node_name = n->name;
}

const struct image_stats *image_get_stats(const struct image *i)
{
    return &i->stats;
}

void image_set_histogram(struct image *i, enum image_op op, struct latency_histogram *h)
{
    histogram_free(i->histograms[op]);
    i->histograms[op] = h;
}

const struct latency_histogram *image_get_histogram(const struct image *i, enum image_op op)
{
    return i->histograms[op];
}

static void sync_done(struct image_request *r, int result)
{
    *(int *)r->opaque = result;
}

int image_read_sync(struct image *i, uint64_t offset, void *buf, uint64_t len)
{
    int result = 0;
    struct iovec iov = { .iov_base = buf, .iov_len = len };
    struct image_request r = { .op = IMAGE_READ, .offset = offset, .len = len, .iov = &iov, .iov_count = 1,
                               .done = sync_done, .opaque = &result };
    image_submit(i, &r);
    image_drain(i);
    return result;
}
