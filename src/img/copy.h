/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copying the contents of images: what convert, dd, commit and rebase have in common.
 *
 * Several fibers each take the next piece, read it, find its zeroes and write the rest; pieces are
 * written in order of their place unless told otherwise, so that the target's layout is the same at
 * each run.
 *
 * Owner     The caller: one struct copy per run, all pointers borrowed.
 * Thread    Fiber.
 * Units     Bytes; offsets are the target's.
 */
#pragma once

#include "img/img.h"

struct copy_source {
    struct node *node;
    struct node *base;   /* with copy.layer: what lies in base or below counts as absent; NULL: the
                            next backing file */
    uint64_t offset;     /* first byte of it that is copied */
    uint64_t start, len; /* place in the target; bytes past the end of the node are zero */
};

struct copy {
    const struct copy_source *sources; /* without gaps, from 0 on */
    unsigned source_count;
    struct node *target;
    uint64_t size_bytes;
    /* Absent parts are written where the backing files read differently; NULL: one that reads as
     * zero. */
    bool rebase;
    struct node *old_backing, *new_backing;
    bool layer;      /* only what the source's layers above `base` say; the rest stays as it is */
    bool reads_zero; /* zeroes need not be written: the target reads as zero where nothing was
                        written */
    bool compress, salvage;
    bool any_order;  /* writes in any order */
    bool one_by_one; /* each write ends before the next begins: the target grows at its end only */
    bool share;      /* ask the file system to share blocks; zeroes inside stay what they are */
    bool offload;    /* ask it to copy them, too */
    uint64_t min_sparse;  /* zeroes of that many bytes are not written as data; 0: everything is */
    unsigned workers;     /* pieces in flight */
    unsigned write_flags; /* NODE_FUA */
    uint64_t rate;        /* bytes a second, 0: no limit */
    uint64_t piece_bytes; /* 0: chosen */
};

/* False: *error names the place. */
bool copy_run(const struct copy *c, GError **error);
