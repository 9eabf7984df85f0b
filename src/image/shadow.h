/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a guest may expect of its disk when things go wrong: every sector as it was when the last
 * flush ended, or as one of the writes since left it. For tests.
 *
 * Owner     shadow_init() ... shadow_done().
 * Units     Sectors of 512 bytes; each holds one number, over and over: its stamp. Moments are the
 * caller's count of what happens, and never fall.
 */
#pragma once

#include "image/testbed.h"

enum { SHADOW_SECTOR = 512 };

enum guest_op { GUEST_WRITE, GUEST_COMPRESSED, GUEST_ZERO, GUEST_DISCARD, GUEST_FLUSH };

struct guest_event {
    enum guest_op op;
    uint32_t first, count; /* sectors */
    uint32_t stamp;        /* what they hold from now on; zeroes: 0 */
    unsigned begin, end;   /* moments; UINT32_MAX: not ended */
    int err;               /* how it ended: 0 or negative errno */
};

struct shadow {
    const struct bed_format *f;
    uint32_t sectors, next_stamp;
    GRand *r;          /* its own */
    GArray *events;    /* struct guest_event, by begin */
    uint32_t *durable; /* stamps, as of durable_events */
    uint8_t *loose;    /* may differ from `durable`: see the .c */
    unsigned durable_events;
};

void shadow_init(struct shadow *s, const struct bed_format *f, guint32 seed);
void shadow_done(struct shadow *s);
/* Fills the image's backing file, and expects its bytes. */
void shadow_fill_base(struct shadow *s, struct memory_file *base);

/* Some write, zeroing or discard inside part `part` of `parts` of the disk. */
struct guest_event shadow_pick(struct shadow *s, unsigned part, unsigned parts);
struct guest_event shadow_pick_flush(struct shadow *s);
/* Notes that it begins now; its index. */
unsigned shadow_begin(struct shadow *s, struct guest_event e, unsigned moment);
void shadow_end(struct shadow *s, unsigned index, unsigned moment, int err);
/* Does it: 0 or negative errno. (f) */
int shadow_do(const struct guest_event *e, struct node *n);

/* Everything that was flushed before `moment` is durable from now on. */
void shadow_advance(struct shadow *s, unsigned moment);
/* Compares the whole disk; aborts with a sentence. (f) */
void shadow_check(struct shadow *s, unsigned moment, struct node *n);
/* Writes that the shadow does not know, here and there, and a flush: 0 or negative errno. (f) */
int shadow_scribble(struct shadow *s, struct node *n);
