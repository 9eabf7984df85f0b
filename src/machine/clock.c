/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The virtual clock: CLOCK_MONOTONIC plus an offset while running. Each timer owns a host timer, which is armed only
 * while the clock runs; the clock's lock orders arming against start and stop.
 */
#include "machine/clock.h"

void clock_init(struct clock *c)
{
    *c = (struct clock){ .running = false };
    pthread_mutex_init(&c->lock, NULL);
}

void clock_done(struct clock *c)
{
    pthread_mutex_destroy(&c->lock);
}

static int64_t now_locked(const struct clock *c)
{
    return c->running ? loop_now_ns() + c->offset_ns : c->stopped_ns;
}

int64_t clock_now_ns(struct clock *c)
{
    pthread_mutex_lock(&c->lock);
    int64_t now = now_locked(c);
    pthread_mutex_unlock(&c->lock);
    return now;
}

static void arm_host_locked(struct clock_timer *t)
{
    struct clock *c = t->clock;
    if (c->running && t->deadline_ns != INT64_MAX)
        loop_timer_arm(&t->host, t->deadline_ns - c->offset_ns);
    else
        loop_timer_cancel(&t->host);
}

void clock_start(struct clock *c)
{
    pthread_mutex_lock(&c->lock);
    if (!c->running) {
        c->offset_ns = c->stopped_ns - loop_now_ns();
        c->running = true;
        for (struct clock_timer *t = c->timers; t; t = t->next)
            arm_host_locked(t);
    }
    pthread_mutex_unlock(&c->lock);
}

void clock_stop(struct clock *c)
{
    pthread_mutex_lock(&c->lock);
    if (c->running) {
        c->stopped_ns = now_locked(c);
        c->running = false;
        for (struct clock_timer *t = c->timers; t; t = t->next)
            arm_host_locked(t);
    }
    pthread_mutex_unlock(&c->lock);
}

void clock_set_stopped_ns(struct clock *c, int64_t now_ns)
{
    pthread_mutex_lock(&c->lock);
    c->stopped_ns = now_ns;
    pthread_mutex_unlock(&c->lock);
}

/* The host timer went off. The clock may have stopped, or the timer moved, since. */
static void host_fired(void *opaque)
{
    struct clock_timer *t = opaque;
    struct clock *c = t->clock;
    pthread_mutex_lock(&c->lock);
    bool due = c->running && t->deadline_ns <= now_locked(c);
    if (due)
        t->deadline_ns = INT64_MAX;
    else
        arm_host_locked(t);
    pthread_mutex_unlock(&c->lock);
    if (due)
        t->fn(t->opaque);
}

void clock_timer_init(struct clock *c, struct loop *l, struct clock_timer *t, void (*fn)(void *opaque),
                      void *opaque)
{
    *t = (struct clock_timer){ .clock = c, .fn = fn, .opaque = opaque, .deadline_ns = INT64_MAX };
    loop_timer_init(l, &t->host, host_fired, t);
    pthread_mutex_lock(&c->lock);
    t->next = c->timers;
    if (t->next)
        t->next->prev = t;
    c->timers = t;
    pthread_mutex_unlock(&c->lock);
}

void clock_timer_arm(struct clock_timer *t, int64_t deadline_ns)
{
    pthread_mutex_lock(&t->clock->lock);
    t->deadline_ns = deadline_ns;
    arm_host_locked(t);
    pthread_mutex_unlock(&t->clock->lock);
}

void clock_timer_loaded(struct clock_timer *t)
{
    bool never = t->deadline_ns == INT64_MAX, possible = t->deadline_ns >= 0 && t->deadline_ns <= 2 * CLOCK_MAX_NS;
    clock_timer_arm(t, never ? INT64_MAX : possible ? t->deadline_ns : 0);
}

void clock_timer_cancel(struct clock_timer *t)
{
    if (t->clock)
        clock_timer_arm(t, INT64_MAX);
}

void clock_timer_done(struct clock_timer *t)
{
    struct clock *c = t->clock;
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    if (t->prev)
        t->prev->next = t->next;
    else
        c->timers = t->next;
    if (t->next)
        t->next->prev = t->prev;
    pthread_mutex_unlock(&c->lock);
    loop_timer_done(&t->host);
    t->clock = NULL;
}
