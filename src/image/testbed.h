/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ground for tests of whole images: a context, a graph, files in memory, and the formats to try.
 *
 * Owner     bed_new() ... bed_free().
 * Fiber     What is marked (f): run it by bed_run().
 */
#pragma once

#include "image/driver.h"
#include "image/memory.h"

struct bed {
    struct context *ctx;
    struct graph *graph;
};

/* Takes the test's own options out of the command line, before g_test_init() sees it (and its own --seed). */
void bed_options(int *argc, char ***argv, const GOptionEntry *entries);

struct bed *bed_new(void);
void bed_free(struct bed *b); /* every node is closed; NULL is fine */
int bed_run(struct bed *b, int (*fn)(void *opaque), void *opaque);

/* A format with the options of its creation, and what may be tried on it. */
enum bed_flags {
    BED_BACKING = 1 << 0, /* a raw image of random bytes below */
    BED_SNAPSHOTS = 1 << 1,
    BED_BITMAPS = 1 << 2,
    BED_COMPRESS = 1 << 3,
    BED_RESIZE = 1 << 4,
    BED_LAZY = 1 << 5,  /* refcounts are only right once it is closed, or opened again */
    BED_ORDERED = 1 << 6, /* keeps metadata of its own in order */
    BED_QUICK = 1 << 7,   /* also in short runs */
};
struct bed_format {
    const char *label, *driver, *options; /* JSON, of creation */
    uint64_t size_bytes;
    uint32_t cluster_bytes; /* about: sizes of requests follow it */
    unsigned flags;
};
/* NULL-terminated (label). Those whose driver is not there are left out by bed_format_next(). */
extern const struct bed_format bed_formats[];
/* The next one with all of `flags`; NULL begins, and ends. `only`: labels that start so, or NULL.
 */
const struct bed_format *bed_format_next(const struct bed_format *after, unsigned flags,
                                         const char *only);

/* Makes the image in the file `name`, over the backing file memory://`backing` (NULL: none). Aborts
 * when it cannot. (f) */
void bed_create(struct bed *b, const struct bed_format *f, const char *name, const char *backing);
/* Opens it; `above`: JSON of a filter with %s where the file's options belong, or NULL. NULL with
 * *error. (f) */
struct node *bed_open(struct bed *b, const struct bed_format *f, const char *name,
                      const char *above, unsigned flags, GError **error);
/* The same; aborts when it cannot. (f) */
struct node *bed_must_open(struct bed *b, const struct bed_format *f, const char *name,
                           unsigned flags);
/* Opens, checks, closes. What it found is printed when there is more than `allowed` allows. (f) */
enum bed_allowed { BED_ALLOW_LEAKS = 1 };
bool bed_check(struct bed *b, const struct bed_format *f, const char *name, unsigned allowed);
