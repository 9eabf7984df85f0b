/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The data plane's event loop: descriptors, timers, posted tasks; one per thread.
 *
 * Owner     loop_new() ... loop_free(), after everything was removed from it.
 * Thread    One thread runs the loop (its home). loop_post(), loop_timer_arm(), loop_timer_cancel() and
 *           loop_stop() may be called from any thread; the rest from home, or while nothing runs it.
 * Memory    Watches, timers and tasks are embedded in their owners: no allocation after loop_new() but for
 *           the timer heap, which grows at loop_timer_init().
 * Main      The main thread runs a GMainContext; loop_attach() puts a loop inside it.
 */
#pragma once

#include "base/util.h"

#include <sys/epoll.h>

struct loop;

struct loop *loop_new(const char *name); /* NULL: errno is set */
void loop_free(struct loop *l);
/* Runs until loop_stop(). */
void loop_run(struct loop *l);
/* One round: waits up to timeout_ms (-1: for ever) and handles what is ready. */
void loop_once(struct loop *l, int timeout_ms);
void loop_stop(struct loop *l);
bool loop_is_home(const struct loop *l); /* the calling thread runs it */
bool loop_has_home(const struct loop *l); /* some thread does */
/* The whole loop as one descriptor, readable when loop_once(l, 0) has something to do: for another
 * loop to watch. Borrowed. */
int loop_descriptor(const struct loop *l);
/* Starts and joins a thread that does loop_run(). 0 or -errno. */
int loop_thread_start(struct loop *l);
void loop_thread_join(struct loop *l); /* stops it first */
/* Dispatches `l` from the default GMainContext's thread, which becomes its home. */
void loop_attach(struct loop *l);
void loop_detach(struct loop *l);

/* A watched descriptor (borrowed; not closed). Level-triggered EPOLLIN/EPOLLOUT/... */
struct loop_fd {
    void (*fn)(void *opaque, uint32_t events);
    void *opaque;
    struct loop *loop; /* NULL: not watched */
    int fd;
    uint32_t events;
    uint64_t seq;      /* private: guards against use after removal in the same round */
};
int loop_fd_add(struct loop *l, struct loop_fd *w, int fd, uint32_t events,
                void (*fn)(void *opaque, uint32_t events), void *opaque); /* 0 or -errno */
void loop_fd_modify(struct loop_fd *w, uint32_t events); /* 0: stays added, silent */
/* After it returns, fn is not called again. Removing twice is fine. */
void loop_fd_remove(struct loop_fd *w);

/* A one-shot timer on CLOCK_MONOTONIC. */
struct loop_timer {
    void (*fn)(void *opaque);
    void *opaque;
    struct loop *loop;
    int64_t deadline_ns; /* private */
    int32_t slot;        /* private: place in the heap, -1: not armed */
};
void loop_timer_init(struct loop *l, struct loop_timer *t, void (*fn)(void *opaque), void *opaque);
/* Moves it if armed. A deadline in the past fires at the next round. */
void loop_timer_arm(struct loop_timer *t, int64_t deadline_ns);
/* From another thread: a callback that has begun may still be running. */
void loop_timer_cancel(struct loop_timer *t);
void loop_timer_done(struct loop_timer *t); /* home thread; cancels and forgets */

/* A bottom half: posting it while it is pending is one run. */
struct loop_task {
    void (*fn)(void *opaque);
    void *opaque;
    struct loop_task *next; /* private */
    int pending;            /* private */
};
void loop_post(struct loop *l, struct loop_task *t);
/* Takes a posted task back, so that its owner may die. Home thread, or nothing runs the loop. */
void loop_unpost(struct loop *l, struct loop_task *t);
/* Runs fn(opaque) on the home thread and waits for it; at home, calls it directly. */
void loop_call(struct loop *l, void (*fn)(void *opaque), void *opaque);

int64_t loop_now_ns(void); /* CLOCK_MONOTONIC */
