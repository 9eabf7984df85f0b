/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For tests of jobs: the format "layer", an overlay in memory that can fail and dawdle, and a guest
 * that writes.
 *
 * Thread    One; everything on the context of the graph.
 */
#pragma once

#include "image/job.h"

#define LAYER_CLUSTER (64 * KIB)

struct layer; /* borrowed: the node's */
struct layer *layer_of(struct node *n);
/* A node of the user: size bytes, backing by node-name or NULL; writable or not. */
struct node *layer_new(struct graph *g, const char *name, uint64_t size, const char *backing,
                       bool writable);
bool layer_holds(struct node *n, uint64_t off); /* the cluster is its own */
const char *layer_header(struct node *n); /* the backing file's name as "stored"; NULL: none */
/* The next `count` writes from now fail with err. */
void layer_fail_writes(struct node *n, unsigned count, int err);
void layer_fail_reads(struct node *n, unsigned count, int err);
void layer_keep_header(struct node *n);        /* changes of its backing file fail from now on */
void layer_dawdle(struct node *n, int64_t ns); /* each write, also of its header, takes that long */
unsigned layer_flushes(struct node *n);

/* Fills [off, off + len) with a pattern made of `seed`. (f) */
void layer_fill(struct node *n, uint64_t off, uint64_t len, uint8_t seed);
/* Both hold the same bytes; says where not. (f) */
bool layer_equal(struct node *a, struct node *b);
