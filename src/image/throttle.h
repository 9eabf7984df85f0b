/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Limits on operations and bytes a second, by leaky buckets; members of a group share one set.
 *
 * Owner     A group lives while it has a member or the user holds it (object-add throttle-group).
 * Thread    Any: members may be served by different threads; the group has a lock.
 * Fiber     throttle_pass() waits in a fiber of the member's context.
 * Units     Operations or bytes a second; bursts last `length` seconds; 0: no limit.
 */
#pragma once

#include "image/context.h"

#include <glib.h>

enum throttle_kind {
    THROTTLE_BPS_TOTAL, THROTTLE_BPS_READ, THROTTLE_BPS_WRITE,
    THROTTLE_OPS_TOTAL, THROTTLE_OPS_READ, THROTTLE_OPS_WRITE,
    THROTTLE_KINDS
};
struct throttle_limits {
    struct {
        uint64_t avg, max;   /* the rate, and the rate of a burst (0: avg / 10 above the bucket) */
        uint64_t length;     /* seconds that a burst of `max` may last, 1 at least */
    } of[THROTTLE_KINDS];
    uint64_t op_size;        /* bytes that count as one operation; 0: every request is one */
};
#define THROTTLE_VALUE_MAX 1000000000000000ULL

bool throttle_check(const struct throttle_limits *l, GError **error);
bool throttle_is_limited(const struct throttle_limits *l);

struct throttle_group;
/* A reference to the group of that name, made when there is none. NULL name: one for this member alone. */
struct throttle_group *throttle_group_get(const char *name);
struct throttle_group *throttle_group_find(const char *name); /* the same; NULL when there is none */
void throttle_group_put(struct throttle_group *g);
const char *throttle_group_name(const struct throttle_group *g);
void throttle_group_set(struct throttle_group *g, const struct throttle_limits *l);
void throttle_group_limits(struct throttle_group *g, struct throttle_limits *ret);

struct throttle_member {
    struct throttle_group *group;
    struct context *ctx;
    bool open;               /* passes everything: while draining */
    struct fiber_queue waiting[2]; /* reads, writes */
    unsigned pending[2];     /* how many of them; under the group's lock */
    struct loop_timer timer[2];
    struct throttle_member *next; /* round robin of the group */
};
/* Takes a reference of its own to g. Home thread of c, or nothing runs it; so are leave and move. */
void throttle_join(struct throttle_member *m, struct throttle_group *g, struct context *c);
void throttle_leave(struct throttle_member *m); /* nobody waits */
void throttle_move(struct throttle_member *m, struct context *c); /* nobody waits */
/* Waits until the request may go, in order. */
void throttle_pass(struct throttle_member *m, bool write, uint64_t bytes);
/* While open, waiting requests go at once. */
void throttle_open(struct throttle_member *m, bool open);
