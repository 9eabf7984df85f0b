/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tasks on top of fibers and GLib's main loop; workers that post their ends back to it.
 *
 * Thread    The loop thread; workers touch only their own struct work and the list of finished
 *           ones.
 * Note      A fiber may be woken from within a GLib callback and then runs on its own stack inside
 *           of it: callbacks here clear what names them (timer ids) first and wake last.
 */
#include "manager/task.h"

#include <gio/gio.h>
#include <glib-unix.h>

#define WORKERS_MAX 16

static unsigned tasks;

struct task {
    void (*fn)(void *opaque);
    void *opaque;
};

static void task_main(void *opaque)
{
    struct task t = *(struct task *)opaque; /* the starter's stack is there until we first wait */
    tasks++;
    t.fn(t.opaque);
    tasks--;
}

void task_start(void (*fn)(void *opaque), void *opaque)
{
    struct task t = {.fn = fn, .opaque = opaque};
    fiber_start(task_main, &t);
}

unsigned task_count(void)
{
    return tasks;
}

static gboolean wake(gpointer opaque)
{
    fiber_wake(opaque);
    return G_SOURCE_REMOVE;
}

void task_sleep_ms(unsigned ms)
{
    g_timeout_add(ms, wake, fiber_self());
    fiber_wait();
}

void task_yield(void)
{
    g_idle_add_full(G_PRIORITY_DEFAULT, wake, fiber_self(), NULL);
    fiber_wait();
}

/* ---- events ---- */

static gboolean event_late(gpointer opaque)
{
    struct task_event *e = opaque;
    struct fiber *waiter = g_steal_pointer(&e->waiter);
    e->timer = 0;
    e->timed_out = true;
    fiber_wake(waiter);
    return G_SOURCE_REMOVE;
}

bool task_event_wait(struct task_event *e, int timeout_ms)
{
    if (e->happened)
        return true;
    e->timed_out = false;
    e->waiter = fiber_self();
    if (timeout_ms >= 0)
        e->timer = g_timeout_add(timeout_ms, event_late, e);
    fiber_wait();
    return e->happened;
}

void task_event_happen(struct task_event *e)
{
    if (e->happened)
        return;
    e->happened = true;
    struct fiber *waiter = g_steal_pointer(&e->waiter);
    if (e->timer)
        g_source_remove(e->timer);
    e->timer = 0;
    if (waiter)
        fiber_wake(waiter);
}

static gboolean fd_ready(gint fd, GIOCondition condition, gpointer opaque)
{
    task_event_happen(opaque);
    return G_SOURCE_CONTINUE; /* its waiter, who has run by now or runs next, takes the source away
                               */
}

bool task_wait_fd(int fd, GIOCondition events, int timeout_ms)
{
    struct task_event ready = {0};
    g_autoptr(GSource) source = g_unix_fd_source_new(fd, events);
    g_source_set_callback(source, G_SOURCE_FUNC(fd_ready), &ready, NULL);
    g_source_attach(source, NULL);
    bool yes = task_event_wait(&ready, timeout_ms);
    g_source_destroy(source);
    return yes;
}

/* ---- workers ---- */

struct work {
    void (*fn)(void *opaque);
    void *opaque;
    struct fiber *fiber;
    struct work *next;
};

/* A source that is ready while there are finished works. */
struct finish_source {
    GSource source;
    GMutex lock;
    struct work *head, *tail;
};

static struct finish_source *finished;
static GThreadPool *pool, *program_pool;

static bool finish_pending(struct finish_source *s)
{
    g_mutex_lock(&s->lock);
    bool some = s->head;
    g_mutex_unlock(&s->lock);
    return some;
}

static gboolean finish_prepare(GSource *source, gint *timeout)
{
    *timeout = -1;
    return finish_pending((struct finish_source *)source);
}

static gboolean finish_check(GSource *source)
{
    return finish_pending((struct finish_source *)source);
}

static gboolean finish_dispatch(GSource *source, GSourceFunc fn, gpointer opaque)
{
    struct finish_source *s = (struct finish_source *)source;
    g_mutex_lock(&s->lock);
    struct work *w = g_steal_pointer(&s->head);
    s->tail = NULL;
    g_mutex_unlock(&s->lock);
    while (w) {
        struct work *next = w->next; /* it is gone with its fiber's frame */
        fiber_wake(w->fiber);
        w = next;
    }
    return G_SOURCE_CONTINUE;
}

static GSourceFuncs finish_funcs = {finish_prepare, finish_check, finish_dispatch,
                                    NULL,           NULL,         NULL};

static void worker(gpointer data, gpointer opaque)
{
    struct work *w = data;
    w->fn(w->opaque);
    g_mutex_lock(&finished->lock);
    bool first = !finished->head;
    if (first)
        finished->head = w;
    else
        finished->tail->next = w;
    finished->tail = w;
    g_mutex_unlock(&finished->lock);
    if (first)
        g_main_context_wakeup(NULL);
}

static void workers_start(void)
{
    finished = (struct finish_source *)g_source_new(&finish_funcs, sizeof(*finished));
    g_mutex_init(&finished->lock);
    g_source_set_name(&finished->source, "workers");
    g_source_attach(&finished->source, NULL);
    pool = g_thread_pool_new(worker, NULL, WORKERS_MAX, false, NULL);
    program_pool = g_thread_pool_new(worker, NULL, -1, false, NULL);
}

static void work_in(GThreadPool **where, void (*fn)(void *opaque), void *opaque)
{
    if (!finished)
        workers_start();
    struct work w = {.fn = fn, .opaque = opaque, .fiber = fiber_self()};
    g_thread_pool_push(*where, &w, NULL);
    fiber_wait();
}

void task_work(void (*fn)(void *opaque), void *opaque)
{
    work_in(&pool, fn, opaque);
}

void task_work_long(void (*fn)(void *opaque), void *opaque)
{
    work_in(&program_pool, fn, opaque);
}
