/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The pool's threads: lanes keep order and never overlap, and do not hold up one another. */
#include "image/pool.h"

#include <glib.h>
#include <pthread.h>

enum { LANES = 3, CALLS = 3000 };

struct call {
    struct pool_call base;
    unsigned lane, number;
};

struct run {
    struct loop *loop;
    struct pool *pool;
    struct pool_lane lanes[LANES];
    unsigned inside[LANES], ran[LANES]; /* by the pool's threads; inside: atomic */
    unsigned finished;
    struct call calls[CALLS];
    pthread_barrier_t meeting;
};

static struct run *run_new(void)
{
    struct run *t = g_new0(struct run, 1);
    t->loop = loop_new("test");
    t->pool = pool_new(t->loop);
    g_assert_nonnull(t->pool);
    return t;
}

static void run_free(struct run *t)
{
    pool_free(t->pool);
    loop_free(t->loop);
    g_free(t);
}

static struct run *current;

static void finished(struct pool_call *c)
{
    current->finished++;
}

static void finish_all(struct run *t, unsigned count)
{
    while (t->finished < count)
        loop_once(t->loop, -1);
    g_assert_false(pool_is_busy(t->pool));
}

/* ---- one at a time, in order ---- */

static int in_lane(void *opaque)
{
    const struct call *c = opaque;
    g_assert_cmpuint(__atomic_fetch_add(&current->inside[c->lane], 1, __ATOMIC_SEQ_CST), ==, 0);
    g_assert_cmpuint(current->ran[c->lane]++, ==, c->number);
    if (c->number % 64 == 0)
        g_usleep(50);
    __atomic_fetch_sub(&current->inside[c->lane], 1, __ATOMIC_SEQ_CST);
    return (int)c->number;
}

static void test_order(void)
{
    struct run *t = current = run_new();
    for (unsigned i = 0; i < CALLS; i++) {
        struct call *c = &t->calls[i];
        *c = (struct call){ .lane = i % LANES, .number = i / LANES };
        c->base = (struct pool_call){
            .fn = in_lane, .opaque = c, .lane = &t->lanes[c->lane], .done = finished
        };
        g_assert_cmpint(pool_submit(t->pool, &c->base), ==, 0);
        if (i % 97 == 0)
            loop_once(t->loop, 0);
    }
    finish_all(t, CALLS);
    for (unsigned i = 0; i < CALLS; i++)
        g_assert_cmpint(t->calls[i].base.result, ==, (int)t->calls[i].number);
    run_free(t);
}

/* ---- beside one another ---- */

static int meet(void *opaque)
{
    pthread_barrier_wait(opaque);
    return 0;
}

/* Each waits for the others: the test ends only when all lanes, and a call without any, run at the
 * same time. */
static void test_side_by_side(void)
{
    struct run *t = current = run_new();
    pthread_barrier_init(&t->meeting, NULL, LANES + 1);
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i <= LANES; i++) {
            t->calls[i].base = (struct pool_call){
                .fn = meet, .opaque = &t->meeting, .done = finished, .lane = i < LANES ? &t->lanes[i] : NULL
            };
            g_assert_cmpint(pool_submit(t->pool, &t->calls[i].base), ==, 0);
        }
        finish_all(t, (round + 1) * (LANES + 1));
    }
    pthread_barrier_destroy(&t->meeting);
    run_free(t);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pool/order", test_order);
    g_test_add_func("/pool/side-by-side", test_side_by_side);
    return g_test_run();
}
