/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Cached pages of the tables by which a sparse image finds its data, of 32-bit little-endian
 * entries: grain tables, block maps. Changes stay in memory until a flush stores them behind the
 * data that they point at.
 *
 * Owner     The driver's struct embeds it: map_cache_init(), then map_cache_done(); done twice is
 *           fine.
 * Fiber     get and flush wait; an entries pointer is valid until the caller waits the next time.
 * Order     A flush takes a copy of the changed pages, calls barrier() (what they point at becomes
 *           durable), then store(). Entries may so be changed at any time, once what they point at
 *           is written.
 * Errors    0 or negative errno. Pages that could not be stored stay changed.
 */
#pragma once

#include "base/fiber.h"

struct map_ops {
    /* Fills a page. (f) */
    int (*load)(void *opaque, uint64_t key, uint32_t *entries);
    /* What all entries point at becomes durable. (f) */
    int (*barrier)(void *opaque);
    /* Writes `count` pages that lie behind one another in memory, keys ascending. (f) */
    int (*store)(void *opaque, const uint64_t *keys, const uint32_t *pages, unsigned count);
};

struct map_page {
    uint64_t key;
    uint32_t *entries; /* borrowed from the cache's memory */
    uint64_t used;     /* clock of the last use */
    uint64_t changed;  /* clock of the first change that is not stored; 0: none */
    bool valid, loading, storing;
    struct map_page *hash_next;
};

struct map_cache {
    const struct map_ops *ops;
    void *opaque;
    unsigned page_entries, page_count, changed_count;
    unsigned fresh, hand;      /* pages used so far; where the search for a victim goes on */
    uint64_t clock;
    struct map_page *pages, **hash;
    uint32_t *memory;         /* of all pages */
    uint32_t *copy;           /* of the pages being stored */
    struct map_page **stored; /* which they are */
    uint64_t *keys;
    unsigned copy_count; /* pages that `copy` has room for */
    struct fiber_mutex flush_lock;
    struct fiber_queue waiters; /* for a page to be loaded, or to become free */
};

/* Memory for about `bytes`, MAP_CACHE_PAGES_MIN pages at least. */
#define MAP_CACHE_PAGES_MIN 16
int map_cache_init(struct map_cache *c, const struct map_ops *ops, void *opaque,
                   unsigned page_entries, uint64_t bytes);
void map_cache_done(struct map_cache *c);
int map_cache_get(struct map_cache *c, uint64_t key, uint32_t **ret_entries);
/* The page of this key, got since the last wait, was changed. */
void map_cache_changed(struct map_cache *c, uint64_t key);
bool map_cache_is_changed(const struct map_cache *c);
/* Stores every change made before the call; the caller syncs. */
int map_cache_flush(struct map_cache *c);
/* Forgets everything, changes too; nobody uses it. */
void map_cache_drop(struct map_cache *c);
