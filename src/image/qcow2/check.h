/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the check share: findings, and the references counted so far.
 *
 * Owner     check_begin() ... check_done(), on the stack of a check or an amendment.
 * Fiber     A fiber of the node's context; the image is drained and committed, so that disk and memory agree.
 * Trust     The image is hostile in every field; findings are capped by CHECK_REPORT_MAX.
 */
#pragma once

#include "image/qcow2/tally.h"

struct check {
    struct qcow2 *s;
    unsigned fix;                  /* enum check_fix */
    struct image_check *r;
    unsigned reports;              /* made */
    uint64_t file_clusters;        /* what lies beyond is a finding */
    uint64_t end_cluster;          /* where repairs put new clusters */
    struct tally t;                /* room beyond the file for them */
    uint64_t *reftable;            /* as on disk, host order. Owned */
    uint64_t reftable_count;
    struct table_list blocks, l2s;
    bool rebuild;                  /* refcount table or blocks are damaged: all anew */
    bool applying;                 /* comparing again, to write right counts */
    bool flags_wrong;              /* some cells keep TALLY_COPIED or TALLY_PLAIN: their entries are wrong */
    bool mend_flags;               /* and are put right */
    uint64_t leaks, low;           /* counts too high, too low */
    uint64_t highest;              /* cluster in use */
};

enum found { FOUND_ERROR, FOUND_CORRUPTION, FOUND_LEAK, FOUND_FIXED };
/* Counts it and reports the sentence. */
void check_found(struct check *c, enum found what, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* After tables were written past the caches: memory is to say what the disk says. (f) */
bool check_reload(struct qcow2 *s, GError **error);
/* `fix` and `r` of c are set; the rest is zero. */
bool check_begin(struct check *c, GError **error);
void check_done(struct check *c);
/* check_scan.c: counts every reference of the image. 0, or negative errno: it could not be read. (f) */
int check_scan(struct check *c);
/* check_refs.c: compares with the refcounts and mends what c->fix allows. (f) */
int check_refs(struct check *c);
/* check_rebuild.c: new refcount structures of 1 << order bits behind everything, from the tally; the header then
 * points to them. -EINVAL: a count does not fit. The image must reload. (f) */
int check_rebuild(struct check *c, unsigned order);
