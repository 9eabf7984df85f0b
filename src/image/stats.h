/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What was asked of an image or a node, counted.
 *
 * Thread    Counted on the home thread of whoever counts.
 * Units     Bytes, nanoseconds.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum image_op { IMAGE_READ, IMAGE_WRITE, IMAGE_FLUSH, IMAGE_DISCARD, IMAGE_WRITE_ZEROES };
#define IMAGE_OPS 5

/* Cumulative, for query-blockstats. Of a node: from when it was opened, times from graph_time_requests(). */
struct image_stats {
    uint64_t bytes[IMAGE_OPS], ops[IMAGE_OPS], failed[IMAGE_OPS];
    uint64_t total_ns[IMAGE_OPS];
    uint64_t invalid[IMAGE_OPS]; /* refused before submission */
    uint64_t wr_highest_offset;
    int64_t idle_since_ns;       /* of images */
};

static inline bool image_op_writes(enum image_op op)
{
    return op == IMAGE_WRITE || op == IMAGE_WRITE_ZEROES;
}

/* One that has ended well. */
static inline void stats_count(struct image_stats *s, enum image_op op, uint64_t off, uint64_t len)
{
    s->ops[op]++;
    s->bytes[op] += len;
    if (image_op_writes(op) && s->wr_highest_offset < off + len)
        s->wr_highest_offset = off + len;
}

/* How many requests took how long: bin i has those below bound i, and not below the one before it. */
#define HISTOGRAM_BOUNDS_MAX 1024
struct latency_histogram {
    unsigned bound_count;
    uint64_t *bounds; /* rising, ns */
    uint64_t *bins;   /* bound_count + 1; the last has what reached every bound */
};
/* Copies the bounds. NULL: they do not rise, are none or too many, or there is no memory. */
struct latency_histogram *histogram_new(const uint64_t *bounds, unsigned count);
void histogram_free(struct latency_histogram *h);
void histogram_count(struct latency_histogram *h, uint64_t ns);
