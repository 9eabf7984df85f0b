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
#include "image/context_priv.h"

#include "base/error.h"
#include "base/fd.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>

#define POLLS_MAX (RING_ENTRIES / 2) /* then waits go to the loop: idle sockets must not hold up files */

static pthread_mutex_t shared_lock = PTHREAD_MUTEX_INITIALIZER;
static struct context *shared; /* under shared_lock */

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
    struct io_uring_sqe *e = ring_need(c) && c->in_flight < POLLS_MAX ? ring_slot(c) : NULL;
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

int context_offload_in(struct context *c, struct pool_lane *lane, int (*fn)(void *opaque),
                       void *opaque)
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
    return context_offload_in(c, NULL, fn, opaque);
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
        ring_submit(c);
}

static void ring_ready(void *opaque, uint32_t events)
{
    ring_reap(opaque);
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
        ring_reap(c);
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

static void retry_submit(void *opaque)
{
    ring_submit(opaque);
}

void context_set_patient(struct context *c, bool on)
{
    c->patient = on;
}

bool context_is_patient(const struct context *c)
{
    return c->patient;
}

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
    if (!err && ring_need(c))
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
