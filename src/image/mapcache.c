/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Cached pages of allocation tables, written back in order. See the header for the order of writes.
 */
#include "image/mapcache.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

enum { COPY_PAGES_MAX = 256 };

static struct map_page **bucket(const struct map_cache *c, uint64_t key)
{
    return &c->hash[(key * 0x9e3779b97f4a7c15ULL >> 32) % c->page_count];
}

static struct map_page *find_page(const struct map_cache *c, uint64_t key)
{
    struct map_page *p = *bucket(c, key);
    while (p && p->key != key)
        p = p->hash_next;
    return p;
}

static void forget_page(struct map_cache *c, struct map_page *p)
{
    struct map_page **at = bucket(c, p->key);
    while (*at != p)
        at = &(*at)->hash_next;
    *at = p->hash_next;
    p->valid = false;
}

int map_cache_init(struct map_cache *c, const struct map_ops *ops, void *opaque,
                   unsigned page_entries, uint64_t bytes)
{
    uint64_t page_bytes = page_entries * sizeof(uint32_t);
    unsigned count = (unsigned)MIN(MAX(bytes / page_bytes, MAP_CACHE_PAGES_MIN), 1u << 20);
    *c = (struct map_cache){
        .ops = ops,
        .opaque = opaque,
        .page_entries = page_entries,
        .page_count = count,
        .copy_count = MIN(count, COPY_PAGES_MAX),
        .pages = g_try_new0(struct map_page, count),
        .hash = g_try_new0(struct map_page *, count),
        .memory = g_try_malloc_n(count, page_bytes),
    };
    c->copy = g_try_malloc_n(c->copy_count, page_bytes);
    c->stored = g_try_new(struct map_page *, count);
    c->keys = g_try_new(uint64_t, c->copy_count);
    if (!c->pages || !c->hash || !c->memory || !c->copy || !c->stored || !c->keys) {
        map_cache_done(c);
        return -ENOMEM;
    }
    for (unsigned i = 0; i < count; i++)
        c->pages[i].entries = c->memory + (size_t)i * page_entries;
    return 0;
}

void map_cache_done(struct map_cache *c)
{
    g_free(c->pages);
    g_free(c->hash);
    g_free(c->memory);
    g_free(c->copy);
    g_free(c->stored);
    g_free(c->keys);
    *c = (struct map_cache){0};
}

#define VICTIM_SAMPLE 16

/* A page to be given up: one never used yet, else the one of a sample that was not used for longest; all are looked at
 * only while none of the sample will do. NULL: all are being changed, loaded or stored. */
static struct map_page *find_victim(struct map_cache *c)
{
    struct map_page *best = NULL;
    if (c->fresh < c->page_count)
        return &c->pages[c->fresh++];
    for (unsigned i = 0; i < c->page_count && !(best && i >= VICTIM_SAMPLE); i++) {
        struct map_page *p = &c->pages[c->hand];
        c->hand = c->hand + 1 == c->page_count ? 0 : c->hand + 1;
        if (!p->valid)
            return p;
        if (!p->loading && !p->storing && !p->changed && (!best || p->used < best->used))
            best = p;
    }
    return best;
}

static int load_page(struct map_cache *c, struct map_page *p, uint64_t key)
{
    if (p->valid)
        forget_page(c, p);
    struct map_page **head = bucket(c, key);
    *p = (struct map_page){
        .key = key, .entries = p->entries, .valid = true, .loading = true, .hash_next = *head};
    *head = p;
    int r = c->ops->load(c->opaque, key, p->entries);
    p->loading = false;
    if (r < 0)
        forget_page(c, p);
    fiber_queue_wake_all(&c->waiters);
    return r;
}

int map_cache_get(struct map_cache *c, uint64_t key, uint32_t **ret_entries)
{
    for (;;) {
        struct map_page *p = find_page(c, key);
        if (p && !p->loading) {
            p->used = ++c->clock;
            *ret_entries = p->entries;
            return 0;
        }
        int r = 0;
        if (p) {
            fiber_queue_wait(&c->waiters);
        } else if ((p = find_victim(c))) {
            r = load_page(c, p, key);
        } else if (c->changed_count) {
            r = map_cache_flush(c);
        } else {
            fiber_queue_wait(&c->waiters);
        }
        if (r < 0)
            return r;
    }
}

void map_cache_changed(struct map_cache *c, uint64_t key)
{
    struct map_page *p = find_page(c, key);
    g_assert(p && !p->loading);
    if (!p->changed) {
        p->changed = ++c->clock;
        c->changed_count++;
    }
}

bool map_cache_is_changed(const struct map_cache *c)
{
    return c->changed_count > 0;
}

static int by_key(const void *a, const void *b)
{
    const struct map_page *const *x = a, *const *y = b;
    return (*x)->key < (*y)->key ? -1 : (*x)->key > (*y)->key;
}

/* The changed pages with the lowest keys, copied and marked as stored. */
static unsigned take_changed(struct map_cache *c, uint64_t until)
{
    unsigned n = 0;
    for (unsigned i = 0; i < c->page_count; i++)
        if (c->pages[i].changed && c->pages[i].changed <= until)
            c->stored[n++] = &c->pages[i];
    qsort(c->stored, n, sizeof(*c->stored), by_key);
    n = MIN(n, c->copy_count);
    for (unsigned i = 0; i < n; i++) {
        struct map_page *p = c->stored[i];
        c->keys[i] = p->key;
        memcpy(c->copy + (size_t)i * c->page_entries, p->entries,
               c->page_entries * sizeof(uint32_t));
        p->changed = 0;
        p->storing = true;
    }
    c->changed_count -= n;
    return n;
}

static void release_stored(struct map_cache *c, unsigned n, bool failed)
{
    for (unsigned i = 0; i < n; i++) {
        struct map_page *p = c->stored[i];
        p->storing = false;
        if (failed && !p->changed) {
            p->changed = ++c->clock;
            c->changed_count++;
        }
    }
    fiber_queue_wake_all(&c->waiters);
}

int map_cache_flush(struct map_cache *c)
{
    uint64_t until = c->clock;
    int r = 0;
    fiber_mutex_lock(&c->flush_lock);
    while (r >= 0 && c->changed_count) {
        unsigned n = take_changed(c, until);
        if (!n)
            break;
        r = c->ops->barrier(c->opaque);
        if (r >= 0)
            r = c->ops->store(c->opaque, c->keys, c->copy, n);
        release_stored(c, n, r < 0);
    }
    fiber_mutex_unlock(&c->flush_lock);
    return r < 0 ? r : 0;
}

void map_cache_drop(struct map_cache *c)
{
    for (unsigned i = 0; i < c->page_count; i++)
        if (c->pages[i].valid)
            forget_page(c, &c->pages[i]);
    for (unsigned i = 0; i < c->page_count; i++)
        c->pages[i].changed = 0;
    c->changed_count = 0;
}
