/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A context's threads for calls that block or compute.
 *
 * Owner     The context. Threads start as calls queue up, pool_threads() at most, and end with the pool.
 * Thread    pool_submit() and `done`: the loop's home. fn: a thread of the pool; nobody else touches what
 *           the call names meanwhile.
 */
#pragma once

#include "base/fiber.h"
#include "base/loop.h"

struct pool;

/* Calls that would only wait for one another, on a lock of the kernel, or copy memory: one at a time,
 * in order, and `done` may come a call or a millisecond late. All zeroes is an empty lane; it stays as
 * long as the pool. */
struct pool_lane {
    bool busy;                      /* private, all */
    unsigned waiting;
    struct pool_call *head, *tail;
};

/* Embedded by the caller until `done`. */
struct pool_call {
    int (*fn)(void *opaque);
    void *opaque;
    struct pool_lane *lane;     /* or NULL */
    void (*done)(struct pool_call *c);
    struct fiber *opaque_fiber; /* the caller's, for `done` */
    int result;
    struct pool_call *next;     /* private */
};

struct pool *pool_new(struct loop *l); /* NULL: errno is set */
void pool_free(struct pool *p);        /* nothing in flight; NULL is fine */
int pool_submit(struct pool *p, struct pool_call *c); /* 0, or -EAGAIN: no thread can be had */
unsigned pool_threads(const struct pool *p);
unsigned pool_processors(const struct pool *p); /* of the machine, 1 at least */
/* As many calls wait or run as there are processors. */
bool pool_is_busy(const struct pool *p);
