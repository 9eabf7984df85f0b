/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What context.c (fibers, waits, life) and context_io.c (the ring, operations on files) share. */
#pragma once

#include "image/context.h"
#include "image/pool.h"

#include <liburing.h>

#define RING_ENTRIES 256 /* operations that the kernel has at a time */
#define LANES 16 /* files that share one only wait for each other */
#define RETRY_NS (2 * NS_PER_MS)

/* One wait of one fiber, on its stack. */
struct ring_op {
    struct fiber *fiber;
    int result;
};

struct context {
    struct loop *inner;           /* drivers' sockets and timers, the pool */
    struct loop *home;
    struct loop_fd inner_watch, ring_watch; /* at home */
    struct io_uring ring;
    bool has_ring, asked_for_ring; /* made when it is first needed: many commands never do */
    bool polls_inner;             /* the ring watches `inner`: context_wait() */
    bool patient;
    unsigned in_a_row;            /* reads made at once since the loop was last served */
    unsigned plugged, in_flight;  /* in_flight: ring entries in use */
    struct fiber_queue slots;     /* who waits for a ring entry */
    struct loop_timer retry;      /* the kernel had no memory for a submission; of inner */
    struct pool *pool;
    struct pool_lane lanes[LANES], read_lanes[LANES]; /* lanes: by descriptor */
    unsigned turn;                /* of read_lanes */
    /* of context_get() */
    unsigned refs;
    struct context *next;
};

/* Hands what is queued to the kernel; tried again a little later when it has no memory for it. */
void ring_submit(struct context *c);
/* Gives results to their fibers. */
void ring_reap(struct context *c);
/* Makes the ring if nobody has asked for it yet. False: the kernel refuses one. */
bool ring_need(struct context *c);
/* A free entry; the fiber waits for one. NULL: the kernel has not taken those before it. */
struct io_uring_sqe *ring_slot(struct context *c);
/* Hands `e` over and waits; its result. */
int ring_wait(struct context *c, struct io_uring_sqe *e);
/* Runs `fn` on a thread of the pool, after those before it in the lane (NULL: none). The fiber waits.
 * Negative errno: it could not be queued. */
int context_offload_in(struct context *c, struct pool_lane *lane, int (*fn)(void *opaque),
                       void *opaque);
