/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The event loop: epoll for descriptors, a binary heap of timers whose earliest deadline is in a timerfd, and a
 * lock-protected list of posted tasks announced by an eventfd. The timerfd lets the whole loop be one descriptor
 * (the epoll's own) inside a GMainContext.
 */
#include "base/loop.h"
#include "base/fd.h"

#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>

struct loop {
    char name[16];            /* thread name */
    int epoll_fd, timer_fd, wake_fd;
    pthread_mutex_t lock;     /* guards the heap, the tasks and `stop` */
    struct loop_timer **heap; /* earliest first */
    int32_t heap_count, heap_room;
    int32_t timer_count;      /* initialised timers: heap_room never falls below it */
    int64_t armed_ns;         /* what timer_fd is set to; INT64_MAX: nothing */
    struct loop_task *tasks, **tasks_tail;
    bool stop;
    _Atomic bool has_home;
    pthread_t home;           /* written before has_home becomes true */
    pthread_cond_t at_home;   /* has_home became true */
    pthread_t thread;         /* of loop_thread_start() */
    bool has_thread;
    uint64_t next_seq;
    GSource *source;          /* of loop_attach() */
    void *source_tag;
};

int64_t loop_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NS_PER_SEC + t.tv_nsec;
}

static int watch_own(struct loop *l, int fd, void *mark)
{
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = mark };
    return epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &e);
}

struct loop *loop_new(const char *name)
{
    struct loop *l = calloc(1, sizeof(*l));
    if (!l)
        return NULL;
    strncpy(l->name, name, sizeof(l->name) - 1);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->at_home, NULL);
    l->armed_ns = INT64_MAX;
    l->tasks_tail = &l->tasks;
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    l->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (l->epoll_fd < 0 || l->timer_fd < 0 || l->wake_fd < 0 ||
        watch_own(l, l->timer_fd, &l->timer_fd) < 0 || watch_own(l, l->wake_fd, &l->wake_fd) < 0) {
        int saved = errno;
        loop_free(l);
        errno = saved;
        return NULL;
    }
    return l;
}

void loop_free(struct loop *l)
{
    if (!l)
        return;
    loop_thread_join(l);
    loop_detach(l);
    fd_close_keep_errno(l->epoll_fd);
    fd_close_keep_errno(l->timer_fd);
    fd_close_keep_errno(l->wake_fd);
    pthread_cond_destroy(&l->at_home);
    pthread_mutex_destroy(&l->lock);
    free(l->heap);
    free(l);
}

bool loop_is_home(const struct loop *l)
{
    return l->has_home && pthread_equal(l->home, pthread_self());
}

bool loop_has_home(const struct loop *l)
{
    return l->has_home;
}

int loop_descriptor(const struct loop *l)
{
    return l->epoll_fd;
}

/* --- descriptors --- */

int loop_fd_add(struct loop *l, struct loop_fd *w, int fd, uint32_t events,
                void (*fn)(void *opaque, uint32_t events), void *opaque)
{
    *w = (struct loop_fd){ .fn = fn, .opaque = opaque, .loop = l, .fd = fd, .events = events };
    struct epoll_event e = { .events = events, .data.ptr = w };
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0) {
        w->loop = NULL;
        return -errno;
    }
    return 0;
}

void loop_fd_modify(struct loop_fd *w, uint32_t events)
{
    if (!w->loop || w->events == events)
        return;
    struct epoll_event e = { .events = events, .data.ptr = w };
    w->events = events;
    epoll_ctl(w->loop->epoll_fd, EPOLL_CTL_MOD, w->fd, &e);
}

void loop_fd_remove(struct loop_fd *w)
{
    struct loop *l = w->loop;
    if (!l)
        return;
    epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
    w->loop = NULL;
    l->next_seq++; /* tells a round in progress to look again: see dispatch_round() */
}

/* --- timers --- */

static bool earlier(const struct loop *l, int32_t a, int32_t b)
{
    return l->heap[a]->deadline_ns < l->heap[b]->deadline_ns;
}

static void heap_swap(struct loop *l, int32_t a, int32_t b)
{
    struct loop_timer *t = l->heap[a];
    l->heap[a] = l->heap[b];
    l->heap[b] = t;
    l->heap[a]->slot = a;
    l->heap[b]->slot = b;
}

static void heap_up(struct loop *l, int32_t i)
{
    for (; i > 0 && earlier(l, i, (i - 1) / 2); i = (i - 1) / 2)
        heap_swap(l, i, (i - 1) / 2);
}

static void heap_down(struct loop *l, int32_t i)
{
    for (;;) {
        int32_t child = 2 * i + 1;
        if (child >= l->heap_count)
            return;
        if (child + 1 < l->heap_count && earlier(l, child + 1, child))
            child++;
        if (!earlier(l, child, i))
            return;
        heap_swap(l, i, child);
        i = child;
    }
}

static void heap_remove(struct loop *l, struct loop_timer *t)
{
    int32_t i = t->slot;
    if (i < 0)
        return;
    l->heap_count--;
    if (i != l->heap_count) {
        struct loop_timer *last = l->heap[l->heap_count];
        l->heap[i] = last;
        last->slot = i;
        heap_up(l, i);
        heap_down(l, last->slot);
    }
    t->slot = -1;
}

/* Keeps timer_fd at the earliest deadline. It may stand earlier than needed: that round finds nothing. */
static void timer_fd_update(struct loop *l)
{
    if (!l->heap_count)
        return;
    int64_t first = l->heap[0]->deadline_ns;
    if (first >= l->armed_ns)
        return;
    l->armed_ns = first;
    int64_t at = first > 0 ? first : 1; /* 0 would disarm */
    struct itimerspec it = { .it_value = { .tv_sec = at / NS_PER_SEC, .tv_nsec = at % NS_PER_SEC } };
    timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &it, NULL);
}

void loop_timer_init(struct loop *l, struct loop_timer *t, void (*fn)(void *opaque), void *opaque)
{
    *t = (struct loop_timer){ .fn = fn, .opaque = opaque, .loop = l, .slot = -1 };
    pthread_mutex_lock(&l->lock);
    if (++l->timer_count > l->heap_room) {
        l->heap_room = l->timer_count + 16;
        l->heap = g_realloc_n(l->heap, (gsize)l->heap_room, sizeof(l->heap[0]));
    }
    pthread_mutex_unlock(&l->lock);
}

void loop_timer_arm(struct loop_timer *t, int64_t deadline_ns)
{
    struct loop *l = t->loop;
    pthread_mutex_lock(&l->lock);
    t->deadline_ns = deadline_ns;
    if (t->slot < 0) {
        t->slot = l->heap_count++;
        l->heap[t->slot] = t;
    }
    heap_up(l, t->slot);
    heap_down(l, t->slot);
    timer_fd_update(l);
    pthread_mutex_unlock(&l->lock);
}

void loop_timer_cancel(struct loop_timer *t)
{
    if (!t->loop)
        return;
    pthread_mutex_lock(&t->loop->lock);
    heap_remove(t->loop, t);
    pthread_mutex_unlock(&t->loop->lock);
}

void loop_timer_done(struct loop_timer *t)
{
    if (!t->loop)
        return;
    pthread_mutex_lock(&t->loop->lock);
    heap_remove(t->loop, t);
    t->loop->timer_count--;
    pthread_mutex_unlock(&t->loop->lock);
    t->loop = NULL;
}

/* Fires what is due now; a timer armed by a callback for the past waits for the next round, so that no
 * callback can keep the loop for itself. */
static void run_timers(struct loop *l)
{
    eventfd_drain(l->timer_fd);
    int64_t now = loop_now_ns();
    pthread_mutex_lock(&l->lock);
    l->armed_ns = INT64_MAX;
    for (int32_t budget = l->heap_count; budget > 0; budget--) {
        if (!l->heap_count || l->heap[0]->deadline_ns > now)
            break;
        struct loop_timer *t = l->heap[0];
        heap_remove(l, t);
        pthread_mutex_unlock(&l->lock);
        t->fn(t->opaque);
        pthread_mutex_lock(&l->lock);
    }
    timer_fd_update(l);
    pthread_mutex_unlock(&l->lock);
}

/* --- tasks --- */

void loop_post(struct loop *l, struct loop_task *t)
{
    pthread_mutex_lock(&l->lock);
    bool first = !l->tasks;
    if (!t->pending) {
        t->pending = 1;
        t->next = NULL;
        *l->tasks_tail = t;
        l->tasks_tail = &t->next;
    }
    pthread_mutex_unlock(&l->lock);
    if (first)
        eventfd_signal(l->wake_fd);
}

void loop_unpost(struct loop *l, struct loop_task *t)
{
    pthread_mutex_lock(&l->lock);
    for (struct loop_task **at = &l->tasks; *at; at = &(*at)->next) {
        if (*at != t)
            continue;
        *at = t->next;
        if (!*at)
            l->tasks_tail = at;
        t->pending = 0;
        break;
    }
    pthread_mutex_unlock(&l->lock);
}

/* Runs what is posted now; a task that posts itself again waits for the next round. */
static void run_tasks(struct loop *l)
{
    eventfd_drain(l->wake_fd);
    pthread_mutex_lock(&l->lock);
    unsigned budget = 0;
    for (const struct loop_task *t = l->tasks; t; t = t->next)
        budget++;
    while (l->tasks && budget--) {
        struct loop_task *t = l->tasks;
        l->tasks = t->next;
        if (!l->tasks)
            l->tasks_tail = &l->tasks;
        t->pending = 0;
        void (*fn)(void *) = t->fn;
        void *opaque = t->opaque;
        pthread_mutex_unlock(&l->lock);
        fn(opaque);
        pthread_mutex_lock(&l->lock);
    }
    bool more = l->tasks;
    pthread_mutex_unlock(&l->lock);
    if (more)
        eventfd_signal(l->wake_fd);
}

struct call {
    struct loop_task task;
    void (*fn)(void *opaque);
    void *opaque;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
};

static void run_call(void *opaque)
{
    struct call *c = opaque;
    c->fn(c->opaque);
    pthread_mutex_lock(&c->lock);
    c->done = true;
    pthread_cond_signal(&c->cond);
    pthread_mutex_unlock(&c->lock);
}

void loop_call(struct loop *l, void (*fn)(void *opaque), void *opaque)
{
    if (!l->has_home || loop_is_home(l)) {
        fn(opaque);
        return;
    }
    struct call c = { .fn = fn, .opaque = opaque };
    pthread_mutex_init(&c.lock, NULL);
    pthread_cond_init(&c.cond, NULL);
    c.task = (struct loop_task){ .fn = run_call, .opaque = &c };
    loop_post(l, &c.task);
    pthread_mutex_lock(&c.lock);
    while (!c.done)
        pthread_cond_wait(&c.cond, &c.lock);
    pthread_mutex_unlock(&c.lock);
    pthread_cond_destroy(&c.cond);
    pthread_mutex_destroy(&c.lock);
}

/* --- running --- */

static void set_home(struct loop *l)
{
    pthread_mutex_lock(&l->lock);
    if (!l->has_home || !pthread_equal(l->home, pthread_self())) {
        l->home = pthread_self();
        l->has_home = true;
        pthread_cond_broadcast(&l->at_home);
    }
    pthread_mutex_unlock(&l->lock);
}

static bool dispatch_round(struct loop *l, int timeout_ms)
{
    struct epoll_event e[32];
    int n = epoll_wait(l->epoll_fd, e, ARRAY_COUNT(e), timeout_ms);
    uint64_t seq = l->next_seq;
    for (int i = 0; i < n; i++) {
        if (e[i].data.ptr == &l->timer_fd) {
            run_timers(l);
        } else if (e[i].data.ptr == &l->wake_fd) {
            run_tasks(l);
        } else if (l->next_seq == seq) {
            struct loop_fd *w = e[i].data.ptr;
            w->fn(w->opaque, e[i].events);
        }
        /* Once a watch was removed, what is left of this batch may point at freed memory: level-triggered
         * events come again in the next round. */
    }
    return n > 0;
}

void loop_once(struct loop *l, int timeout_ms)
{
    set_home(l);
    dispatch_round(l, timeout_ms);
}

static void run_until_stop(struct loop *l)
{
    set_home(l);
    for (;;) {
        pthread_mutex_lock(&l->lock);
        bool stop = l->stop;
        l->stop = false;
        pthread_mutex_unlock(&l->lock);
        if (stop)
            break;
        dispatch_round(l, -1);
    }
}

void loop_run(struct loop *l)
{
    run_until_stop(l);
    l->has_home = false;
}

void loop_stop(struct loop *l)
{
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_mutex_unlock(&l->lock);
    eventfd_signal(l->wake_fd);
}

/* The home stays until the join: the starter waits for it even when a stop came first. */
static void *thread_main(void *opaque)
{
    run_until_stop(opaque);
    return NULL;
}

int loop_thread_start(struct loop *l)
{
    l->has_home = false;
    int err = pthread_create(&l->thread, NULL, thread_main, l);
    if (err)
        return -err;
    l->has_thread = true;
    pthread_mutex_lock(&l->lock); /* loop_call() is to find a home at once */
    while (!l->has_home)
        pthread_cond_wait(&l->at_home, &l->lock);
    pthread_mutex_unlock(&l->lock);
    pthread_setname_np(l->thread, l->name);
    return 0;
}

void loop_thread_join(struct loop *l)
{
    if (!l->has_thread)
        return;
    loop_stop(l);
    pthread_join(l->thread, NULL);
    l->has_thread = false;
    l->has_home = false;
}

/* --- inside a GMainContext --- */

struct loop_source {
    GSource source;
    struct loop *loop;
};

static gboolean source_dispatch(GSource *source, GSourceFunc fn G_GNUC_UNUSED, gpointer data G_GNUC_UNUSED)
{
    struct loop *l = ((struct loop_source *)source)->loop;
    for (int rounds = 0; rounds < 4 && dispatch_round(l, 0); rounds++)
        ;
    return G_SOURCE_CONTINUE;
}

static gboolean source_check(GSource *source)
{
    struct loop *l = ((struct loop_source *)source)->loop;
    return g_source_query_unix_fd(source, l->source_tag) != 0;
}

void loop_attach(struct loop *l)
{
    static GSourceFuncs funcs = { .check = source_check, .dispatch = source_dispatch };
    l->source = g_source_new(&funcs, sizeof(struct loop_source));
    ((struct loop_source *)l->source)->loop = l;
    l->source_tag = g_source_add_unix_fd(l->source, l->epoll_fd, G_IO_IN);
    g_source_attach(l->source, NULL);
    set_home(l);
}

void loop_detach(struct loop *l)
{
    if (!l->source)
        return;
    g_source_destroy(l->source);
    g_source_unref(l->source);
    l->source = NULL;
    l->has_home = false;
}
