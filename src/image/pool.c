/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Worker threads that make an image's blocking calls: where io_uring is refused (containers often
 * do), and for what it lacks.
 *
 * Owner     The image; started when first needed, stopped with it.
 * Thread    Workers take a request from `todo`, run its step and put it into `done`; the home loop
 *           is told by an eventfd. Nobody else touches a request while a worker has it.
 */
#include "image/internal.h"

#include "base/fd.h"

#include <signal.h>

static void *worker(void *opaque)
{
    struct image *i = opaque;
    struct image_pool *p = i->pool;
    pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        struct image_request *r = request_list_pop(&p->todo);
        if (!r) {
            pthread_cond_wait(&p->wake, &p->lock);
            continue;
        }
        pthread_mutex_unlock(&p->lock);
        struct image_step s = image_step_of(i, r);
        r->result = image_step_run(i, &s);
        pthread_mutex_lock(&p->lock);
        request_list_push(&p->done, r);
        eventfd_signal(p->eventfd);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void pool_ready(void *opaque, uint32_t events)
{
    image_pool_reap(opaque);
}

static int watch(struct image *i)
{
    struct image_pool *p = i->pool;
    if (!i->loop || p->watch.loop)
        return 0;
    return loop_fd_add(i->loop, &p->watch, p->eventfd, EPOLLIN, pool_ready, i);
}

static int start_threads(struct image *i)
{
    struct image_pool *p = i->pool;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    unsigned want = i->has_ring ? 1 : IMAGE_POOL_THREADS;
    while (p->thread_count < want &&
           pthread_create(&p->threads[p->thread_count], NULL, worker, i) == 0)
        p->thread_count++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return p->thread_count ? 0 : -EAGAIN;
}

int image_pool_start(struct image *i)
{
    if (i->pool)
        return watch(i);
    struct image_pool *p = g_new0(struct image_pool, 1);
    p->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->eventfd < 0) {
        int err = -errno;
        g_free(p);
        return err;
    }
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    i->pool = p;
    int err = start_threads(i);
    if (!err)
        err = watch(i);
    if (err < 0)
        image_pool_stop(i);
    return err;
}

void image_pool_stop(struct image *i)
{
    struct image_pool *p = i->pool;
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (unsigned t = 0; t < p->thread_count; t++)
        pthread_join(p->threads[t], NULL);
    loop_fd_remove(&p->watch);
    close(p->eventfd);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    g_free(p);
    i->pool = NULL;
}

void image_pool_push(struct image *i, struct image_request *r)
{
    struct image_pool *p = i->pool;
    p->in_flight++;
    pthread_mutex_lock(&p->lock);
    request_list_push(&p->todo, r);
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
}
