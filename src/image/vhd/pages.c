/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The cache of metadata pages.
 *
 * Fiber     One thread; what waits (loading, committing) leaves every page in a state that others
 *           may meet: a page that is being loaded has waiters, one that is being written in place
 *           cannot be evicted, as the file does not have it yet.
 * Crash     See pages.h: sync, log, write in place. Without a log a second sync ends a commit, and
 *           what is written in place in one commit has no order: formats see to it that none is
 *           needed.
 */
#include "image/vhd/pages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RUN_PAGES 64 /* of an in-place write, at most */

struct page {
    uint64_t off;
    struct page *hash_next;
    struct page *prev, *next; /* of the list by age; the youngest first */
    bool loading, dirty, staged;
    uint8_t *data;
};

struct pages {
    struct node *file;
    struct pages_config c;
    struct page *slots; /* max_pages */
    unsigned used;      /* of them, with memory */
    struct page **hash;
    unsigned hash_mask;
    struct page age; /* the list's head */
    unsigned dirty;
    struct page_copy *copies; /* max_dirty, of the commit that runs */
    struct page **staged;     /* whose copies they are */
    unsigned copy_buffers;    /* of copies with memory */
    struct fiber_mutex commit_lock;
    struct fiber_queue loaded;
};

static unsigned hash_of(const struct pages *p, uint64_t off)
{
    return (unsigned)((off / p->c.page_bytes * 0x9e3779b97f4a7c15ULL) >> 40) & p->hash_mask;
}

struct pages *pages_new(struct node *file, const struct pages_config *c)
{
    struct pages *p = g_new0(struct pages, 1);
    unsigned buckets = 16;
    while (buckets < c->max_pages)
        buckets *= 2;
    p->file = file;
    p->c = *c;
    p->slots = g_new0(struct page, c->max_pages);
    p->hash = g_new0(struct page *, buckets);
    p->hash_mask = buckets - 1;
    p->copies = g_new0(struct page_copy, c->max_dirty);
    p->staged = g_new0(struct page *, c->max_dirty);
    p->age.prev = p->age.next = &p->age;
    return p;
}

void pages_free(struct pages *p)
{
    if (!p)
        return;
    for (unsigned i = 0; i < p->used; i++)
        free(p->slots[i].data);
    for (unsigned i = 0; i < p->copy_buffers; i++)
        free(p->copies[i].data);
    g_free(p->slots);
    g_free(p->hash);
    g_free(p->copies);
    g_free(p->staged);
    g_free(p);
}

static void age_remove(struct page *g)
{
    g->prev->next = g->next;
    g->next->prev = g->prev;
}

static void age_touch(struct pages *p, struct page *g)
{
    g->next = p->age.next;
    g->prev = &p->age;
    g->next->prev = g;
    p->age.next = g;
}

static struct page *find(const struct pages *p, uint64_t off)
{
    struct page *g = p->hash[hash_of(p, off)];
    while (g && g->off != off)
        g = g->hash_next;
    return g;
}

static void unhash(struct pages *p, struct page *g)
{
    struct page **at = &p->hash[hash_of(p, g->off)];
    while (*at != g)
        at = &(*at)->hash_next;
    *at = g->hash_next;
    age_remove(g);
}

/* A page that is in nobody's use and in no list; NULL: all are dirty or busy. */
static struct page *take_page(struct pages *p)
{
    if (p->used < p->c.max_pages) {
        struct page *g = &p->slots[p->used];
        g->data = aligned_alloc(p->c.page_bytes < 4096 ? p->c.page_bytes : 4096, p->c.page_bytes);
        if (g->data) {
            p->used++;
            return g;
        }
    }
    for (struct page *g = p->age.prev; g != &p->age; g = g->prev)
        if (!g->dirty && !g->loading && !g->staged) {
            unhash(p, g);
            return g;
        }
    return NULL;
}

static void drop_page(struct pages *p, struct page *g)
{
    /* Under an offset that nothing asks for, as the oldest. */
    unhash(p, g);
    g->off = UINT64_MAX - (uint64_t)(g - p->slots);
    g->hash_next = p->hash[hash_of(p, g->off)];
    p->hash[hash_of(p, g->off)] = g;
    g->prev = p->age.prev;
    g->next = &p->age;
    g->prev->next = g;
    p->age.prev = g;
}

static int load(struct pages *p, struct page *g, uint64_t off)
{
    g->off = off;
    g->loading = true;
    g->hash_next = p->hash[hash_of(p, off)];
    p->hash[hash_of(p, off)] = g;
    age_touch(p, g);
    uint64_t size = node_size(p->file);
    size_t have = off >= size ? 0 : (size_t)min_u64(size - off, p->c.page_bytes);
    memset(g->data + have, 0, p->c.page_bytes - have);
    int r = have ? node_pread(p->file, off, g->data, have) : 0;
    if (!r && p->c.overlay)
        p->c.overlay(p->c.opaque, off, g->data, p->c.page_bytes);
    g->loading = false;
    if (r)
        drop_page(p, g);
    fiber_queue_wake_all(&p->loaded);
    return r;
}

/* The page at `off`, loaded; valid until the caller next waits. */
static int get(struct pages *p, uint64_t off, struct page **ret)
{
    for (;;) {
        struct page *g = find(p, off);
        if (g && g->loading) {
            fiber_queue_wait(&p->loaded);
            continue;
        }
        if (g) {
            age_remove(g);
            age_touch(p, g);
            *ret = g;
            return 0;
        }
        g = take_page(p);
        int r = g ? load(p, g, off) : p->used < 16 ? -ENOMEM : pages_commit(p);
        if (r)
            return r;
    }
}

int pages_read(struct pages *p, uint64_t off, void *buf, size_t len)
{
    for (size_t at = 0, n; at < len; at += n) {
        uint64_t page = align_down(off + at, p->c.page_bytes);
        size_t skip = (size_t)(off + at - page);
        n = MIN(len - at, p->c.page_bytes - skip);
        struct page *g;
        int r = get(p, page, &g);
        if (r)
            return r;
        memcpy((uint8_t *)buf + at, g->data + skip, n);
    }
    return 0;
}

int pages_write(struct pages *p, uint64_t off, const void *buf, size_t len)
{
    for (size_t at = 0, n; at < len; at += n) {
        uint64_t page = align_down(off + at, p->c.page_bytes);
        size_t skip = (size_t)(off + at - page);
        n = MIN(len - at, p->c.page_bytes - skip);
        struct page *g;
        int r = get(p, page, &g);
        /* A commit may wait, and somebody else use up what it freed. */
        while (!r && !g->dirty && p->dirty >= p->c.max_dirty) {
            r = pages_commit(p);
            if (!r)
                r = get(p, page, &g);
        }
        if (r)
            return r;
        memcpy(g->data + skip, (const uint8_t *)buf + at, n);
        p->dirty += !g->dirty;
        g->dirty = true;
    }
    return 0;
}

void pages_forget(struct pages *p, uint64_t off, size_t len)
{
    for (uint64_t page = align_down(off, p->c.page_bytes); page < off + len;
         page += p->c.page_bytes) {
        struct page *g = find(p, page);
        if (!g || g->loading)
            continue;
        p->dirty -= g->dirty;
        g->dirty = false;
        if (!g->staged)
            drop_page(p, g);
    }
}

bool pages_are_dirty(const struct pages *p)
{
    return p->dirty;
}

static int by_offset(const void *a, const void *b)
{
    const struct page *x = *(struct page *const *)a, *y = *(struct page *const *)b;
    return x->off < y->off ? -1 : x->off > y->off;
}

/* Copies what is dirty; from now on it is clean, and kept. */
static int stage(struct pages *p, unsigned *ret_count)
{
    unsigned n = 0;
    for (unsigned i = 0; i < p->used && n < p->c.max_dirty; i++)
        if (p->slots[i].dirty)
            p->staged[n++] = &p->slots[i];
    for (; p->copy_buffers < n; p->copy_buffers++) {
        struct page_copy *c = &p->copies[p->copy_buffers];
        c->data = aligned_alloc(p->c.page_bytes < 4096 ? p->c.page_bytes : 4096, p->c.page_bytes);
        if (!c->data)
            return -ENOMEM;
    }
    qsort(p->staged, n, sizeof(p->staged[0]), by_offset);
    for (unsigned i = 0; i < n; i++) {
        struct page *g = p->staged[i];
        p->copies[i].off = g->off;
        memcpy(p->copies[i].data, g->data, p->c.page_bytes);
        g->dirty = false;
        g->staged = true;
    }
    p->dirty -= n;
    *ret_count = n;
    return 0;
}

static void unstage(struct pages *p, unsigned count, bool failed)
{
    for (unsigned i = 0; i < count; i++) {
        struct page *g = p->staged[i];
        g->staged = false;
        p->dirty += failed && !g->dirty;
        g->dirty |= failed;
    }
}

/* Neighbours go in one write. */
static int write_in_place(struct pages *p, unsigned count)
{
    struct iovec iov[RUN_PAGES];
    for (unsigned i = 0, n; i < count; i += n) {
        for (n = 0; i + n < count && n < RUN_PAGES; n++) {
            if (p->copies[i + n].off != p->copies[i].off + (uint64_t)n * p->c.page_bytes)
                break;
            iov[n] = (struct iovec){p->copies[i + n].data, p->c.page_bytes};
        }
        int r = node_write(p->file, p->copies[i].off, vec_of(iov, n), 0);
        if (r)
            return r;
    }
    return 0;
}

static int commit_locked(struct pages *p)
{
    unsigned n;
    int r = stage(p, &n);
    if (r)
        return r;
    r = node_flush(p->file);
    if (!r && n && p->c.log)
        r = p->c.log(p->c.opaque, p->copies, n);
    if (!r && n)
        r = write_in_place(p, n);
    if (!r && n && !p->c.log)
        r = node_flush(p->file);
    unstage(p, n, r != 0);
    return r;
}

int pages_commit(struct pages *p)
{
    fiber_mutex_lock(&p->commit_lock);
    int r = commit_locked(p);
    fiber_mutex_unlock(&p->commit_lock);
    fiber_queue_wake_all(&p->loaded);
    return r;
}

/* ---- measuring ---- */

bool pages_count_blocks(struct node *source, uint64_t block_bytes, uint64_t *ret, GError **error)
{
    uint64_t size = node_size(source), count = 0, counted_to = 0;
    struct image_extent e;
    for (uint64_t off = 0; off < size; off += e.len) {
        unsigned depth;
        int r = node_map_chain(source, NULL, off, size - off, &e, &depth);
        if (r)
            return ruche_error_errno(error, -r, "image '%s': cannot map", node_filename(source));
        if (e.flags & EXTENT_ZERO)
            continue;
        uint64_t first = max_u64(off / block_bytes, counted_to);
        uint64_t end = (off + e.len + block_bytes - 1) / block_bytes;
        count += end > first ? end - first : 0;
        counted_to = max_u64(counted_to, end);
    }
    *ret = count;
    return true;
}
