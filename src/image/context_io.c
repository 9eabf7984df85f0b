/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations on files: by the ring, or as calls of the pool. See context.h.
 *
 * Spec      io_uring(7), io_uring_setup(2).
 * Thread    Home, but for the pool's threads, which touch only the operation that they were given.
 */
#include "image/context_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>

#define IN_A_ROW 64 /* short reads */

/* ---- the ring ---- */

void ring_submit(struct context *c)
{
    if (!c->has_ring || !io_uring_sq_ready(&c->ring))
        return;
    int n;
    do
        n = io_uring_submit(&c->ring);
    while (n == -EINTR);
    if (n < 0)
        loop_timer_arm(&c->retry, loop_now_ns() + RETRY_NS);
}

/* The fibers may submit more: those go together. */
void ring_reap(struct context *c)
{
    struct io_uring_cqe *cqe;
    c->plugged++;
    for (unsigned n = 0; n < 2 * RING_ENTRIES && io_uring_peek_cqe(&c->ring, &cqe) == 0; n++) {
        struct ring_op *op = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&c->ring, cqe);
        c->in_flight--;
        if (!op) {
            c->polls_inner = false;
            continue;
        }
        op->result = result;
        fiber_queue_wake_one(&c->slots);
        fiber_wake(op->fiber);
    }
    context_unplug(c);
}

static bool ring_init(struct context *c)
{
    return io_uring_queue_init(RING_ENTRIES, &c->ring, IORING_SETUP_COOP_TASKRUN) == 0 ||
           io_uring_queue_init(RING_ENTRIES, &c->ring, 0) == 0;
}

bool ring_need(struct context *c)
{
    if (unlikely(!c->asked_for_ring)) {
        c->asked_for_ring = true;
        c->has_ring = ring_init(c);
    }
    return c->has_ring;
}

struct io_uring_sqe *ring_slot(struct context *c)
{
    while (c->in_flight >= RING_ENTRIES)
        fiber_queue_wait(&c->slots);
    struct io_uring_sqe *e = io_uring_get_sqe(&c->ring);
    if (!e) { /* queued but not yet handed over */
        ring_submit(c);
        e = io_uring_get_sqe(&c->ring);
    }
    return e;
}

int ring_wait(struct context *c, struct io_uring_sqe *e)
{
    struct ring_op op = { .fiber = fiber_self() };
    io_uring_sqe_set_data(e, &op);
    c->in_flight++;
    if (!c->plugged)
        ring_submit(c);
    fiber_wait();
    return op.result;
}

/* The kernel asks for some operations to be repeated; for ever would be too often. */
static bool again(int result, unsigned *tries)
{
    return (result == -EAGAIN || result == -EINTR) && ++*tries < 1000;
}

/* ---- operations: by the ring, or as calls of the pool ---- */

struct transfer {
    int fd, flags;
    bool write;
    const struct iovec *iov;
    unsigned count;
    uint64_t off, reserve; /* reserve: bytes from off on that are allocated before */
};

static int transfer_call(void *opaque)
{
    const struct transfer *t = opaque;
    if (t->reserve)
        fallocate(t->fd, FALLOC_FL_KEEP_SIZE, (off_t)t->off, (off_t)t->reserve);
    ssize_t n = t->write ? pwritev2(t->fd, t->iov, (int)t->count, (off_t)t->off, t->flags)
                         : preadv2(t->fd, t->iov, (int)t->count, (off_t)t->off, t->flags);
    return n < 0 ? -errno : (int)n;
}

static void transfer_prepare(struct io_uring_sqe *e, const struct transfer *t)
{
    unsigned len = (unsigned)min_u64(t->iov->iov_len, 1u << 30);
    if (t->count == 1 && t->write)
        io_uring_prep_write(e, t->fd, t->iov->iov_base, len, t->off);
    else if (t->count == 1)
        io_uring_prep_read(e, t->fd, t->iov->iov_base, len, t->off);
    else if (t->write)
        io_uring_prep_writev(e, t->fd, t->iov, t->count, t->off);
    else
        io_uring_prep_readv(e, t->fd, t->iov, t->count, t->off);
    e->rw_flags = t->flags;
}

static ssize_t transfer(struct context *c, struct transfer *t)
{
    int result;
    unsigned tries = 0;
    do {
        struct io_uring_sqe *e = ring_need(c) ? ring_slot(c) : NULL;
        if (e) {
            transfer_prepare(e, t);
            result = ring_wait(c, e);
        } else {
            result = context_offload(c, transfer_call, t);
        }
    } while (again(result, &tries));
    return result;
}

ssize_t context_preadv(struct context *c, int fd, const struct iovec *iov, unsigned count,
                       uint64_t off)
{
    return transfer(c, &(struct transfer){ .fd = fd, .iov = iov, .count = count, .off = off });
}

ssize_t context_pwritev(struct context *c, int fd, const struct iovec *iov, unsigned count,
                        uint64_t off, int flags)
{
    return transfer(c, &(struct transfer){ .fd = fd, .iov = iov, .count = count, .off = off,
                                           .flags = flags, .write = true });
}

#define AT_ONCE_BYTES (64 * KIB) /* longer copies are worth a thread of their own */

static size_t bytes_of(const struct iovec *iov, unsigned count)
{
    size_t len = 0;
    for (unsigned i = 0; i < count && len <= AT_ONCE_BYTES; i++)
        len += iov[i].iov_len;
    return len;
}

/* What is in the cache, by the processors beside one another: a lane for each of the others, and
 * this thread when they have enough to do. -EAGAIN: it is not there. */
static ssize_t read_from_cache(struct context *c, struct transfer *t)
{
    t->flags = RWF_NOWAIT;
    if (pool_is_busy(c->pool))
        return transfer_call(t);
    unsigned others = pool_processors(c->pool) - 1;
    c->turn = c->turn + 1 < min_u64(others, LANES) ? c->turn + 1 : 0;
    return context_offload_in(c, &c->read_lanes[c->turn], transfer_call, t);
}

/* What is in the cache takes no longer than telling the ring of it. Now and then the loop
 * must see signals. */
static ssize_t read_short(struct context *c, struct transfer *t)
{
    t->flags = RWF_NOWAIT;
    int n = ++c->in_a_row % IN_A_ROW ? transfer_call(t) : -EAGAIN;
    t->flags = 0;
    return n > 0 ? n : transfer(c, t);
}

/* The ring copies what is in the cache on this thread, one after the other: long reads share the
 * work. */
ssize_t context_preadv_cached(struct context *c, int fd, const struct iovec *iov, unsigned count,
                              uint64_t off)
{
    struct transfer t = { .fd = fd, .iov = iov, .count = count, .off = off };
    if (!c->patient)
        return transfer(c, &t);
    if (bytes_of(iov, count) <= AT_ONCE_BYTES)
        return read_short(c, &t);
    ssize_t result = read_from_cache(c, &t);
    t.flags = 0;
    while (result == -EAGAIN || result == -EINTR || result == -EOPNOTSUPP)
        result = context_offload(c, transfer_call, &t);
    return result;
}

/* The ring would hand each of them to a thread and back: for a few KiB that takes longer than the
 * write. Long ones of a file go one by one: the kernel lets in one at a time, and who waits spins. */
ssize_t context_pwritev_cached(struct context *c, int fd, const struct iovec *iov, unsigned count,
                               uint64_t off, int flags, uint64_t reserve)
{
    struct transfer t = { .fd = fd, .iov = iov, .count = count, .off = off, .flags = flags, .write = true };
    if (!c->patient || flags)
        return transfer(c, &t);
    bool at_once = bytes_of(iov, count) <= AT_ONCE_BYTES;
    struct pool_lane *lane = &c->lanes[(unsigned)fd % LANES];
    t.reserve = reserve;
    int result;
    do
        result = at_once ? transfer_call(&t) : context_offload_in(c, lane, transfer_call, &t);
    while (result == -EINTR);
    return result;
}

struct allocation {
    int fd, flags;
    uint64_t off, len;
};

static int fallocate_call(void *opaque)
{
    const struct allocation *a = opaque;
    return fallocate(a->fd, a->flags, (off_t)a->off, (off_t)a->len) < 0 ? -errno : 0;
}

int context_fallocate(struct context *c, int fd, int flags, uint64_t off, uint64_t len)
{
    struct allocation a = { .fd = fd, .flags = flags, .off = off, .len = len };
    int result;
    unsigned tries = 0;
    do {
        struct io_uring_sqe *e = ring_need(c) ? ring_slot(c) : NULL;
        if (e) {
            io_uring_prep_fallocate(e, fd, flags, (off_t)off, (off_t)len);
            result = ring_wait(c, e);
        } else {
            result = context_offload(c, fallocate_call, &a);
        }
    } while (again(result, &tries));
    return result;
}

static int fdatasync_call(void *opaque)
{
    return fdatasync(*(int *)opaque) < 0 ? -errno : 0;
}

int context_fdatasync(struct context *c, int fd)
{
    int result;
    unsigned tries = 0;
    do {
        struct io_uring_sqe *e = ring_need(c) ? ring_slot(c) : NULL;
        if (e) {
            io_uring_prep_fsync(e, fd, IORING_FSYNC_DATASYNC);
            result = ring_wait(c, e);
        } else {
            result = context_offload(c, fdatasync_call, &fd);
        }
    } while (again(result, &tries));
    return result;
}
