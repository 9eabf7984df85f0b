/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Threads that make blocking calls and compress, where io_uring does not or may not.
 *
 * Thread    The lists are under the lock; the loop is told of finished calls by an eventfd.
 */
#include "image/pool.h"

#include "base/fd.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#define POOL_MAX 16
#define LANE_LOW 2 /* calls that keep a lane going until the home thread has woken up */
#define TELL_NS NS_PER_MS
#define POOL_MIN 4 /* calls that wait for disks are more than the processors */

struct pool {
    struct loop_fd watch;
    int eventfd;
    unsigned processors, max, count;
    pthread_t threads[POOL_MAX];
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct pool_lane todo, done; /* under lock */
    unsigned load;               /* changed under lock: calls that wait or run */
    unsigned idle;               /* under lock */
    bool told;                   /* under lock: of `done` */
    int64_t done_ns;             /* under lock: since when there is any */
    bool stop;                   /* under lock */
};

static void push(struct pool_lane *l, struct pool_call *c)
{
    c->next = NULL;
    if (l->head)
        l->tail->next = c;
    else
        l->head = c;
    l->tail = c;
    l->waiting++;
}

static struct pool_call *pop(struct pool_lane *l)
{
    struct pool_call *c = l->head;
    if (c)
        l->head = c->next;
    l->waiting -= c != NULL;
    return c;
}

/* Under the lock: is the home thread to be woken now? Waking it takes as long as writing 100 KiB:
 * while a lane has enough to go on with, several calls are told together, for a millisecond at most. */
static bool must_tell(struct pool *p, const struct pool_lane *lane)
{
    if (p->told)
        return false;
    if (lane && lane->waiting >= LANE_LOW) {
        int64_t now = loop_now_ns();
        p->done_ns = p->done_ns ? p->done_ns : now;
        if (now - p->done_ns < TELL_NS)
            return false;
    }
    return p->told = true;
}

/* Runs c, without the lock; what this thread does next: the next one of the lane, if any. */
static struct pool_call *run(struct pool *p, struct pool_call *c)
{
    struct pool_lane *lane = c->lane;
    c->result = c->fn(c->opaque);
    pthread_mutex_lock(&p->lock);
    struct pool_call *next = lane ? pop(lane) : NULL;
    if (lane)
        lane->busy = next != NULL;
    push(&p->done, c);
    bool tell = must_tell(p, lane);
    __atomic_store_n(&p->load, p->load - 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&p->lock);
    if (tell)
        eventfd_signal(p->eventfd);
    return next;
}

static void *worker(void *opaque)
{
    struct pool *p = opaque;
    pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        struct pool_call *c = pop(&p->todo);
        if (!c) {
            p->idle++;
            pthread_cond_wait(&p->wake, &p->lock);
            p->idle--;
            continue;
        }
        pthread_mutex_unlock(&p->lock);
        while (c)
            c = run(p, c);
        pthread_mutex_lock(&p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void calls_done(void *opaque, uint32_t events)
{
    struct pool *p = opaque;
    eventfd_drain(p->eventfd);
    pthread_mutex_lock(&p->lock);
    struct pool_lane all = p->done;
    p->done = (struct pool_lane){ 0 };
    p->told = false;
    p->done_ns = 0;
    pthread_mutex_unlock(&p->lock);
    for (struct pool_call *c; (c = pop(&all));)
        c->done(c);
}

struct pool *pool_new(struct loop *l)
{
    struct pool *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->eventfd < 0 || loop_fd_add(l, &p->watch, p->eventfd, EPOLLIN, calls_done, p) < 0) {
        fd_close_keep_errno(p->eventfd);
        free(p);
        return NULL;
    }
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    p->processors = cpus < 1 ? 1 : (unsigned)cpus;
    p->max = cpus < POOL_MIN ? POOL_MIN : cpus > POOL_MAX ? POOL_MAX : (unsigned)cpus;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    return p;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (unsigned t = 0; t < p->count; t++)
        pthread_join(p->threads[t], NULL);
    loop_fd_remove(&p->watch);
    close(p->eventfd);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static void add_thread(struct pool *p)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (pthread_create(&p->threads[p->count], NULL, worker, p) == 0)
        p->count++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* Under the lock: whether c may run now, or waits for the others of its lane. */
static bool enter_lane(struct pool_call *c)
{
    bool free = !c->lane || !c->lane->busy;
    if (c->lane)
        c->lane->busy = true;
    return free;
}

/* There is no thread at all: nobody has seen c. */
static int take_back(struct pool *p, struct pool_call *c)
{
    p->todo = (struct pool_lane){ 0 };
    p->load = 0;
    if (c->lane)
        *c->lane = (struct pool_lane){ 0 };
    return -EAGAIN;
}

int pool_submit(struct pool *p, struct pool_call *c)
{
    pthread_mutex_lock(&p->lock);
    bool now = enter_lane(c);
    bool grow = now && (!p->idle || p->todo.head) && p->count < p->max;
    push(now ? &p->todo : c->lane, c);
    __atomic_store_n(&p->load, p->load + 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&p->lock);
    if (grow)
        add_thread(p);
    if (now)
        pthread_cond_signal(&p->wake);
    return p->count ? 0 : take_back(p, c);
}

unsigned pool_threads(const struct pool *p)
{
    return p->max;
}

unsigned pool_processors(const struct pool *p)
{
    return p->processors;
}

bool pool_is_busy(const struct pool *p)
{
    return __atomic_load_n(&p->load, __ATOMIC_RELAXED) >= p->processors;
}
