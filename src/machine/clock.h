/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The machine's clock: nanoseconds that stop while the machine is stopped, and timers on it.
 *
 * Owner     struct machine embeds one. Timers are embedded in devices: init in realize, done in unrealize.
 * Thread    clock_now_ns(), arm, cancel: any. Callbacks: the timer's loop, with no lock held: take the
 *           device's lock, and expect that a cancel from another thread came a moment too late.
 */
#pragma once

#include "base/loop.h"

#include <pthread.h>

struct clock_timer {
    struct clock *clock;
    struct loop_timer host;
    void (*fn)(void *opaque);
    void *opaque;
    int64_t deadline_ns; /* virtual; INT64_MAX: not armed */
    struct clock_timer *next, *prev;
};

struct clock {
    pthread_mutex_t lock;
    int64_t offset_ns;  /* virtual = monotonic + offset while running */
    int64_t stopped_ns; /* virtual time while stopped */
    bool running;
    struct clock_timer *timers; /* all that are initialised */
};

void clock_init(struct clock *c); /* stopped, at 0 */
void clock_done(struct clock *c);
void clock_start(struct clock *c);
void clock_stop(struct clock *c);
int64_t clock_now_ns(struct clock *c);
/* A saved state can hold no later time: sums of two do not overflow. */
#define CLOCK_MAX_NS (1LL << 60)
void clock_set_stopped_ns(struct clock *c, int64_t now_ns); /* stopped; 0 to CLOCK_MAX_NS */

void clock_timer_init(struct clock *c, struct loop *l, struct clock_timer *t, void (*fn)(void *opaque),
                      void *opaque);
void clock_timer_arm(struct clock_timer *t, int64_t deadline_ns);
/* deadline_ns was loaded from a saved state: armed, as near as may be when it is no moment at all. */
void clock_timer_loaded(struct clock_timer *t);
void clock_timer_cancel(struct clock_timer *t);
void clock_timer_done(struct clock_timer *t); /* the loop's thread, or the loop does not run */
