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
#define POOL_MIN 4 /* calls that wait for disks are more than the processors */

struct call_list {
    struct pool_call *head, *tail;
};

struct pool {
    struct loop_fd watch;
    int eventfd;
    unsigned max, count;
    pthread_t threads[POOL_MAX];
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct call_list todo, done; /* under lock */
    unsigned idle;               /* under lock */
    bool stop;                   /* under lock */
};

static void push(struct call_list *l, struct pool_call *c)
{
    c->next = NULL;
    if (l->head)
        l->tail->next = c;
    else
        l->head = c;
    l->tail = c;
}

static struct pool_call *pop(struct call_list *l)
{
    struct pool_call *c = l->head;
    if (c)
        l->head = c->next;
    return c;
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
        c->result = c->fn(c->opaque);
        pthread_mutex_lock(&p->lock);
        if (!p->done.head)
            eventfd_signal(p->eventfd);
        push(&p->done, c);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void calls_done(void *opaque, uint32_t events)
{
    struct pool *p = opaque;
    eventfd_drain(p->eventfd);
    pthread_mutex_lock(&p->lock);
    struct call_list all = p->done;
    p->done.head = NULL;
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

int pool_submit(struct pool *p, struct pool_call *c)
{
    pthread_mutex_lock(&p->lock);
    bool grow = (!p->idle || p->todo.head) && p->count < p->max;
    pthread_mutex_unlock(&p->lock);
    if (grow)
        add_thread(p);
    if (!p->count)
        return -EAGAIN;
    pthread_mutex_lock(&p->lock);
    push(&p->todo, c);
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
    return 0;
}

unsigned pool_threads(const struct pool *p)
{
    return p->max;
}
