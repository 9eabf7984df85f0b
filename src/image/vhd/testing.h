/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What every format of disk must stand, on files in memory: random work against a shadow, many
 * writers at a time, and power cuts at every instant.
 *
 * Thread    One; each function makes its own context and graph.
 */
#pragma once

#include "image/driver.h"
#include "image/memory.h"

struct format_case {
    const char *driver;
    const char *create; /* create options, JSON */
    const char *open;   /* open options, JSON; NULL: none */
    uint64_t size;      /* of the disk */
    bool parent;        /* on a parent of the same format, filled with 0x5a, a quarter shorter */
};

/* A place for a test: files in memory go by "memory://disk" and "memory://parent". */
struct format_bench {
    struct context *ctx;
    struct graph *graph;
    const struct format_case *c;
    struct memory_file *disk, *parent;
};
void bench_init(struct format_bench *b, const struct format_case *c);
void bench_done(struct format_bench *b);
/* Opens "memory://disk"; a failure ends the test, unless error is given. */
struct node *bench_open(struct format_bench *b, unsigned flags, GError **error);
/* In a fiber of the bench. */
int bench_run(struct format_bench *b, int (*fn)(void *opaque), void *opaque);
/* Opens with NODE_CHECK, checks, asserts that nothing is wrong. */
void bench_check(struct format_bench *b);

void format_test_model(const struct format_case *c, guint32 seed, unsigned ops);
void format_test_parallel(const struct format_case *c, guint32 seed);
void format_test_power_cut(const struct format_case *c, guint32 seed, unsigned ops);
