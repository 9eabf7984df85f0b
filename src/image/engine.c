/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Runs the steps of requests: through io_uring, whose descriptor the home loop watches, or on
 * pool.c's threads.
 *
 * Spec      io_uring(7).
 * Thread    The image's home loop.
 * Errors    Step results go to image_step_done(); a submission for which the kernel lacks memory is
 *           tried again.
 */
#include "image/internal.h"

#include "base/fd.h"

#include <poll.h>

#define RETRY_NS (2 * NS_PER_MS)

static void account(struct image *i, struct image_request *r, int result)
{
    struct image_stats *s = &i->stats;
    unsigned op = (unsigned)r->op > IMAGE_WRITE_ZEROES ? IMAGE_READ : r->op;
    int64_t now = loop_now_ns();
    s->idle_since_ns = now;
    if (result < 0) {
        s->failed[op]++;
        return;
    }
    s->ops[op]++;
    s->bytes[op] += r->op == IMAGE_FLUSH ? 0 : r->len;
    s->total_ns[op] += now - r->begin_ns;
    if (r->op == IMAGE_WRITE || r->op == IMAGE_WRITE_ZEROES)
        s->wr_highest_offset = max_u64(s->wr_highest_offset, r->offset + r->len);
}

/* Calls `done` of what has ended; a callback may submit more, which ends in a later round. */
static void run_finished(struct image *i)
{
    struct request_list list = i->finished;
    bool any = list.head;
    i->finished.head = NULL;
    for (struct image_request *r; (r = request_list_pop(&list));) {
        int result = r->result;
        account(i, r, result);
        i->in_flight--;
        r->done(r, result);
    }
    if (any && i->batch_end)
        i->batch_end(i->batch_opaque);
}

static void finish_task(void *opaque)
{
    struct image *i = opaque;
    i->plugged++;
    run_finished(i);
    image_unplug(i);
}

void image_engine_finish(struct image *i, struct image_request *r, int result)
{
    r->result = result;
    request_list_push(&i->finished, r);
    if (i->loop)
        loop_post(i->loop, &i->finish_task);
}

static void issue_ring(struct image *i, struct image_request *r, const struct image_step *s)
{
    struct io_uring_sqe *e = io_uring_get_sqe(&i->ring);
    if (!e) { /* cannot be: fewer in flight than the ring has entries */
        image_engine_finish(i, r, -EAGAIN);
        return;
    }
    switch (s->kind) {
    case STEP_READ:
        if (s->iov_count == 1)
            io_uring_prep_read(e, i->fd, s->iov->iov_base, min_u64(s->iov->iov_len, 1u << 30),
                               s->offset);
        else
            io_uring_prep_readv(e, i->fd, s->iov, s->iov_count, s->offset);
        break;
    case STEP_WRITE:
        if (s->iov_count == 1)
            io_uring_prep_write(e, i->fd, s->iov->iov_base, min_u64(s->iov->iov_len, 1u << 30),
                                s->offset);
        else
            io_uring_prep_writev(e, i->fd, s->iov, s->iov_count, s->offset);
        e->rw_flags = s->flags;
        break;
    case STEP_FALLOCATE:
        io_uring_prep_fallocate(e, i->fd, s->flags, s->offset, s->len);
        break;
    case STEP_SYNC:
        io_uring_prep_fsync(e, i->fd, IORING_FSYNC_DATASYNC);
        break;
    case STEP_BLOCK_DISCARD:
    case STEP_NOTHING:
        io_uring_prep_nop(e);
        break;
    }
    io_uring_sqe_set_data(e, r);
    i->ring_in_flight++;
}

/* Hands the request's next step to an engine, or puts it into the line for one. */
static void issue(struct image *i, struct image_request *r)
{
    if (i->has_ring && i->ring_in_flight >= IMAGE_RING_ENTRIES) {
        request_list_push(&i->waiting, r);
        return;
    }
    struct image_step s = image_step_of(i, r);
    if (i->has_ring && s.kind != STEP_BLOCK_DISCARD) {
        issue_ring(i, r, &s);
        return;
    }
    int err = image_pool_start(i);
    if (err < 0)
        image_engine_finish(i, r, err);
    else
        image_pool_push(i, r);
}

/* The bounce buffer serves one request at a time. */
static bool take_bounce(struct image *i, struct image_request *r)
{
    if (i->bounce_user) {
        request_list_push(&i->bounce_waiting, r);
        return false;
    }
    if (!i->bounce) {
        void *p;
        if (posix_memalign(&p, 4096, IMAGE_BOUNCE_BYTES)) {
            image_engine_finish(i, r, -ENOMEM);
            return false;
        }
        i->bounce = p;
    }
    i->bounce_user = r;
    return true;
}

void image_engine_start(struct image *i, struct image_request *r)
{
    if (!r->bounced || take_bounce(i, r))
        issue(i, r);
}

static void step_ended(struct image *i, struct image_request *r, int result)
{
    if (!image_step_done(i, r, result)) {
        issue(i, r);
        return;
    }
    if (r->bounced) {
        i->bounce_user = NULL;
        struct image_request *next = request_list_pop(&i->bounce_waiting);
        if (next)
            image_engine_start(i, next);
    }
    request_list_push(&i->finished, r);
}

static void start_waiting(struct image *i)
{
    while (i->waiting.head && i->ring_in_flight < IMAGE_RING_ENTRIES)
        issue(i, request_list_pop(&i->waiting));
}

static void reap_ring(struct image *i)
{
    struct io_uring_cqe *cqe;
    for (unsigned n = 0; n < 2 * IMAGE_RING_ENTRIES && io_uring_peek_cqe(&i->ring, &cqe) == 0;
         n++) {
        struct image_request *r = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&i->ring, cqe);
        i->ring_in_flight--;
        step_ended(i, r, result);
    }
    start_waiting(i);
}

static void reap(struct image *i)
{
    i->plugged++;
    if (i->has_ring)
        reap_ring(i);
    if (i->pool) {
        struct request_list list;
        eventfd_drain(i->pool->eventfd);
        pthread_mutex_lock(&i->pool->lock);
        list = i->pool->done;
        i->pool->done.head = NULL;
        pthread_mutex_unlock(&i->pool->lock);
        for (struct image_request *r; (r = request_list_pop(&list));) {
            i->pool->in_flight--;
            step_ended(i, r, r->result);
        }
    }
    run_finished(i);
    image_unplug(i);
}

static void ring_ready(void *opaque, uint32_t events)
{
    reap(opaque);
}

void image_pool_reap(struct image *i)
{
    reap(i);
}

static void retry(void *opaque)
{
    image_engine_flush(opaque);
}

void image_engine_flush(struct image *i)
{
    if (!i->has_ring || !io_uring_sq_ready(&i->ring))
        return;
    int n;
    do
        n = io_uring_submit(&i->ring);
    while (n == -EINTR);
    if (n < 0 && i->loop)
        loop_timer_arm(&i->retry, loop_now_ns() + RETRY_NS);
}

void image_engine_wait(struct image *i)
{
    image_engine_flush(i);
    if (i->finished.head) {
        finish_task(i);
        return;
    }
    struct pollfd fds[2];
    unsigned n = 0;
    if (i->has_ring)
        fds[n++] = (struct pollfd){ .fd = i->ring.ring_fd, .events = POLLIN };
    if (i->pool)
        fds[n++] = (struct pollfd){ .fd = i->pool->eventfd, .events = POLLIN };
    poll(fds, n, RETRY_NS / NS_PER_MS * 50);
    reap(i);
}

int image_engine_init(struct image *i)
{
    i->finish_task = (struct loop_task){ .fn = finish_task, .opaque = i };
    /* The file is not registered with the ring: the kernel lets go of a ring some time after its
     * process has died, and until then the image would stay locked. */
    i->has_ring = io_uring_queue_init(IMAGE_RING_ENTRIES, &i->ring, 0) == 0;
    return i->has_ring ? 0 : image_pool_start(i);
}

static void leave_loop(struct image *i)
{
    if (!i->loop)
        return;
    loop_fd_remove(&i->ring_watch);
    if (i->pool)
        loop_fd_remove(&i->pool->watch);
    loop_timer_done(&i->retry);
    loop_unpost(i->loop, &i->finish_task);
    i->loop = NULL;
}

int image_engine_set_loop(struct image *i, struct loop *l)
{
    leave_loop(i);
    if (!l)
        return 0;
    int err = 0;
    if (i->has_ring)
        err = loop_fd_add(l, &i->ring_watch, i->ring.ring_fd, EPOLLIN, ring_ready, i);
    loop_timer_init(l, &i->retry, retry, i);
    i->loop = l;
    if (!err && i->pool) {
        image_pool_stop(i);
        err = image_pool_start(i);
    }
    if (err < 0)
        leave_loop(i);
    return err;
}

void image_engine_done(struct image *i)
{
    leave_loop(i);
    image_pool_stop(i);
    if (i->has_ring)
        io_uring_queue_exit(&i->ring);
    i->has_ring = false;
}
