/* SPDX-License-Identifier: GPL-2.0-or-later */
/* I/O contexts: fibers in front of an io_uring and of a pool of threads.
 *
 * Spec      io_uring(7), io_uring_setup(2).
 * Thread    Home, but for the pool's threads, which touch only the operation that they were given, and
 *           context_run() from elsewhere, which posts.
 * Note      Without io_uring (containers often refuse it) the pool makes the calls.
 *           Descriptors are not registered with the ring: the kernel lets go of a ring some time after its
 *           process has died, and until then the image would stay locked.
 */
#include "image/context.h"

#include "base/error.h"
#include "base/fd.h"
#include "image/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/uio.h>

#define RING_ENTRIES 256 /* operations that the kernel has at a time */
#define IN_A_ROW 64 /* short reads */
#define LANES 16 /* files that share one only wait for each other */
#define POLLS_MAX (RING_ENTRIES / 2) /* then waits go to the loop: idle sockets must not hold up files */
#define RETRY_NS (2 * NS_PER_MS)

/* One wait of one fiber, on its stack. */
struct ring_op {
    struct fiber *fiber;
    int result;
};

struct context {
    struct loop *inner;           /* drivers' sockets and timers, the pool */
    struct loop *home;
    struct loop_fd inner_watch, ring_watch; /* at home */
    struct io_uring ring;
    bool has_ring, asked_for_ring; /* made when it is first needed: many commands never do */
    bool polls_inner;             /* the ring watches `inner`: context_wait() */
    bool patient;
    unsigned in_a_row;            /* reads made at once since the loop was last served */
    unsigned plugged, in_flight;  /* in_flight: ring entries in use */
    struct fiber_queue slots;     /* who waits for a ring entry */
    struct loop_timer retry;      /* the kernel had no memory for a submission; of inner */
    struct pool *pool;
    struct pool_lane lanes[LANES], read_lanes[LANES]; /* lanes: by descriptor */
    unsigned turn;                /* of read_lanes */
    /* of context_get() */
    unsigned refs;
    struct context *next;
};

static pthread_mutex_t shared_lock = PTHREAD_MUTEX_INITIALIZER;
static struct context *shared; /* under shared_lock */

/* ---- the ring ---- */

static void submit(struct context *c)
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

static void retry_submit(void *opaque)
{
    submit(opaque);
}

/* Hands results to their fibers, which may submit more: those go together. */
static void reap(struct context *c)
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

static bool need_ring(struct context *c)
{
    if (unlikely(!c->asked_for_ring)) {
        c->asked_for_ring = true;
        c->has_ring = ring_init(c);
    }
    return c->has_ring;
}

static struct io_uring_sqe *ring_slot(struct context *c)
{
    while (c->in_flight >= RING_ENTRIES)
        fiber_queue_wait(&c->slots);
    struct io_uring_sqe *e = io_uring_get_sqe(&c->ring);
    if (!e) { /* queued but not yet handed over */
        submit(c);
        e = io_uring_get_sqe(&c->ring);
    }
    return e;
}

static int ring_wait(struct context *c, struct io_uring_sqe *e)
{
    struct ring_op op = { .fiber = fiber_self() };
    io_uring_sqe_set_data(e, &op);
    c->in_flight++;
    if (!c->plugged)
        submit(c);
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
        struct io_uring_sqe *e = need_ring(c) ? ring_slot(c) : NULL;
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

void context_set_patient(struct context *c, bool on)
{
    c->patient = on;
}

bool context_is_patient(const struct context *c)
{
    return c->patient;
}

static size_t bytes_of(const struct iovec *iov, unsigned count)
{
    size_t len = 0;
    for (unsigned i = 0; i < count && len <= AT_ONCE_BYTES; i++)
        len += iov[i].iov_len;
    return len;
}

static int offload(struct context *c, struct pool_lane *lane, int (*fn)(void *opaque),
                   void *opaque);

/* What is in the cache, by the processors beside one another: a lane for each of the others, and
 * this thread when they have enough to do. -EAGAIN: it is not there. */
static ssize_t read_from_cache(struct context *c, struct transfer *t)
{
    t->flags = RWF_NOWAIT;
    if (pool_is_busy(c->pool))
        return transfer_call(t);
    unsigned others = pool_processors(c->pool) - 1;
    c->turn = c->turn + 1 < min_u64(others, LANES) ? c->turn + 1 : 0;
    return offload(c, &c->read_lanes[c->turn], transfer_call, t);
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
        result = at_once ? transfer_call(&t) : offload(c, lane, transfer_call, &t);
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
        struct io_uring_sqe *e = need_ring(c) ? ring_slot(c) : NULL;
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
        struct io_uring_sqe *e = need_ring(c) ? ring_slot(c) : NULL;
        if (e) {
            io_uring_prep_fsync(e, fd, IORING_FSYNC_DATASYNC);
            result = ring_wait(c, e);
        } else {
            result = context_offload(c, fdatasync_call, &fd);
        }
    } while (again(result, &tries));
    return result;
}

/* ---- descriptors, time, threads ---- */

struct fd_wait {
    struct loop_fd watch;
    struct fiber *fiber;
    int fd, result;
};

static void fd_ready(void *opaque, uint32_t events)
{
    struct fd_wait *w = opaque;
    w->result = (int)events;
    loop_fd_remove(&w->watch);
    fiber_wake(w->fiber);
}

/* Each waiter watches a duplicate: an epoll set holds a descriptor once. */
static int wait_fd_by_loop(struct context *c, int fd, unsigned events)
{
    struct fd_wait w = { .fiber = fiber_self(), .fd = fcntl(fd, F_DUPFD_CLOEXEC, 0) };
    if (w.fd < 0)
        return -errno;
    int err = loop_fd_add(c->inner, &w.watch, w.fd, events, fd_ready, &w);
    if (!err)
        fiber_wait();
    close(w.fd);
    return err ? err : w.result;
}

int context_wait_fd(struct context *c, int fd, unsigned events)
{
    struct io_uring_sqe *e = need_ring(c) && c->in_flight < POLLS_MAX ? ring_slot(c) : NULL;
    if (!e)
        return wait_fd_by_loop(c, fd, events);
    io_uring_prep_poll_add(e, fd, events);
    return ring_wait(c, e);
}

struct sleeper {
    struct loop_timer timer;
    struct fiber *fiber;
};

static void slept(void *opaque)
{
    fiber_wake(((struct sleeper *)opaque)->fiber);
}

void context_sleep_ns(struct context *c, int64_t ns)
{
    struct sleeper s = { .fiber = fiber_self() };
    loop_timer_init(c->inner, &s.timer, slept, &s);
    loop_timer_arm(&s.timer, loop_now_ns() + ns);
    fiber_wait();
    loop_timer_done(&s.timer);
}

static void offloaded(struct pool_call *call)
{
    fiber_wake(call->opaque_fiber);
}

static int offload(struct context *c, struct pool_lane *lane, int (*fn)(void *opaque), void *opaque)
{
    struct pool_call call = { .fn = fn, .opaque = opaque, .lane = lane, .done = offloaded,
                              .opaque_fiber = fiber_self() };
    int err = pool_submit(c->pool, &call);
    if (err < 0)
        return err;
    fiber_wait();
    return call.result;
}

int context_offload(struct context *c, int (*fn)(void *opaque), void *opaque)
{
    return offload(c, NULL, fn, opaque);
}

unsigned context_threads(const struct context *c)
{
    return pool_threads(c->pool);
}

/* ---- plugging, serving ---- */

void context_plug(struct context *c)
{
    c->plugged++;
}

void context_unplug(struct context *c)
{
    if (!--c->plugged)
        submit(c);
}

static void ring_ready(void *opaque, uint32_t events)
{
    reap(opaque);
}

static void serve_inner(struct context *c, int timeout_ms)
{
    c->plugged++;
    loop_once(c->inner, timeout_ms);
    context_unplug(c);
}

static void inner_ready(void *opaque, uint32_t events)
{
    serve_inner(opaque, 0);
}

/* Sleeps in the kernel until the ring or the inner loop has something: one call for submitting and both. */
static void wait_by_ring(struct context *c)
{
    if (!c->polls_inner && c->in_flight < RING_ENTRIES) {
        struct io_uring_sqe *e = io_uring_get_sqe(&c->ring);
        if (e) {
            io_uring_prep_poll_add(e, loop_descriptor(c->inner), POLLIN);
            io_uring_sqe_set_data(e, NULL);
            c->in_flight++;
            c->polls_inner = true;
        }
    }
    int n = io_uring_submit_and_wait(&c->ring, 1);
    if (n < 0 && n != -EINTR)
        poll(NULL, 0, RETRY_NS / NS_PER_MS);
}

void context_wait(struct context *c, const bool *done)
{
    while (!*done) {
        struct io_uring_cqe *cqe;
        if (!c->has_ring) {
            serve_inner(c, -1);
            continue;
        }
        if (!c->polls_inner)
            serve_inner(c, 0);
        if (*done)
            break;
        if (io_uring_peek_cqe(&c->ring, &cqe) != 0)
            wait_by_ring(c);
        reap(c);
    }
}

struct run {
    int (*fn)(void *opaque);
    void *opaque;
    int result;
    bool done;
    /* from another thread */
    struct loop_task task;
    pthread_mutex_t lock;
    pthread_cond_t cond;
};

static void run_main(void *opaque)
{
    struct run *r = opaque;
    r->result = r->fn(r->opaque);
    r->done = true;
}

static void run_remote_main(void *opaque)
{
    struct run *r = opaque;
    int result = r->fn(r->opaque);
    pthread_mutex_lock(&r->lock);
    r->result = result;
    r->done = true;
    pthread_cond_signal(&r->cond);
    pthread_mutex_unlock(&r->lock);
}

static void run_remote_start(void *opaque)
{
    fiber_start(run_remote_main, opaque);
}

static int run_remote(struct context *c, struct run *r)
{
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->cond, NULL);
    r->task = (struct loop_task){ .fn = run_remote_start, .opaque = r };
    loop_post(c->home, &r->task);
    pthread_mutex_lock(&r->lock);
    while (!r->done)
        pthread_cond_wait(&r->cond, &r->lock);
    pthread_mutex_unlock(&r->lock);
    pthread_cond_destroy(&r->cond);
    pthread_mutex_destroy(&r->lock);
    return r->result;
}

int context_run(struct context *c, int (*fn)(void *opaque), void *opaque)
{
    struct run r = { .fn = fn, .opaque = opaque };
    if (fiber_self())
        return fn(opaque);
    if (c->home && loop_has_home(c->home) && !loop_is_home(c->home))
        return run_remote(c, &r);
    fiber_start(run_main, &r);
    context_wait(c, &r.done);
    return r.result;
}

/* ---- life ---- */

struct context *context_new(GError **error)
{
    struct context *c = g_new0(struct context, 1);
    c->inner = loop_new("image");
    c->pool = c->inner ? pool_new(c->inner) : NULL;
    if (!c->pool) {
        ruche_error_errno(error, errno, "images: an I/O context cannot be made");
        context_free(c);
        return NULL;
    }
    loop_timer_init(c->inner, &c->retry, retry_submit, c);
    return c;
}

void context_free(struct context *c)
{
    if (!c)
        return;
    context_set_home(c, NULL);
    pool_free(c->pool);
    if (c->has_ring)
        io_uring_queue_exit(&c->ring);
    if (c->inner)
        loop_timer_done(&c->retry);
    loop_free(c->inner);
    g_free(c);
}

int context_set_home(struct context *c, struct loop *home)
{
    loop_fd_remove(&c->inner_watch);
    loop_fd_remove(&c->ring_watch);
    c->home = home;
    if (!home)
        return 0;
    int err = loop_fd_add(home, &c->inner_watch, loop_descriptor(c->inner), EPOLLIN, inner_ready, c);
    if (!err && need_ring(c))
        err = loop_fd_add(home, &c->ring_watch, c->ring.ring_fd, EPOLLIN, ring_ready, c);
    if (err)
        context_set_home(c, NULL);
    return err;
}

struct loop *context_home(const struct context *c)
{
    return c->home;
}

struct loop *context_loop(struct context *c)
{
    return c->inner;
}

struct context *context_get(struct loop *home)
{
    pthread_mutex_lock(&shared_lock);
    struct context *c = shared;
    while (c && c->home != home)
        c = c->next;
    if (!c && (c = context_new(NULL))) {
        if (context_set_home(c, home) < 0) {
            context_free(c);
            c = NULL;
        } else {
            c->next = shared;
            shared = c;
        }
    }
    if (c)
        c->refs++;
    pthread_mutex_unlock(&shared_lock);
    return c;
}

void context_put(struct context *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&shared_lock);
    bool last = --c->refs == 0;
    for (struct context **at = &shared; last && *at; at = &(*at)->next) {
        if (*at == c) {
            *at = c->next;
            break;
        }
    }
    pthread_mutex_unlock(&shared_lock);
    if (last)
        context_free(c);
}
