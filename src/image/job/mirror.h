/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside job/: mirror, and commit of the active layer, which is a mirror to a node of the own
 * chain. */
#pragma once

#include "image/job/internal.h"

struct mirror_plan {
    struct node *source, *target;
    enum sync_mode sync;
    struct node *base;    /* SYNC_TOP: only what nodes above it hold */
    const char *replaces; /* node-name; NULL: the source */
    bool is_commit;       /* the target is in the source's chain */
    bool write_blocking, unmap, target_is_new_zero;
    uint32_t granularity;
    uint64_t buf_bytes;
    const char *filter_name; /* node-name of the filter; NULL: made up */
};
struct job *mirror_new(struct job_set *set, const struct job_common *c, const struct mirror_plan *p,
                       GError **error);
/* The node gets written while it is a backing file: its overlays' links allow it or not. */
void backing_allow_write(struct node *top, struct node *below, bool allow);
