/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What memory.c, which makes the map, and memory_access.c, which looks things up in it, share.
 *
 * Two locks. `change` serialises everybody who edits the map (recursive, so that begin/end nest and a listener may
 * look at the map). `view_lock` guards the published array: readers hold it for a binary search, writers for a
 * pointer swap. A reader that found a device counts itself in region->users before it lets go, which is what
 * mem_region_remove() waits for.
 */
#pragma once

#include "machine/memory.h"

struct mem_space {
    const char *name;
    uint64_t limit;
    pthread_mutex_t change;
    unsigned depth;              /* of begin/end */
    bool dirty;
    struct mem_region *regions;  /* latest first: equal priorities resolve to the later one */
    size_t region_count;
    struct mem_listener *listeners;
    pthread_rwlock_t view_lock;
    struct mem_range *view;      /* sorted, no overlaps, adjacent pieces of one region merged */
    size_t view_count;
};
