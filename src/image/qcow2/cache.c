/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pieces of metadata tables in memory, bounded, found by host offset. The clock takes back what was
 * not used lately and is clean; when nothing is clean, what changed is written first: refcount
 * blocks at once, L2 slices by a commit.
 *
 * Owner     qcow2_cache_init() ... qcow2_cache_done(), in struct qcow2.
 * Thread    The node's home thread. A table is valid until the next wait.
 */
#include "image/qcow2/cache.h"

#include <errno.h>

enum { HASH_MIN = 64, TABLES_MIN = 4, BUFFER_ALIGN = 64, AHEAD_MAX = 16 };

/* Aligned as the file wants it and no further: a page's alignment costs malloc another page. */
static uint8_t *buffer_new(const struct qcow2_cache *c)
{
    size_t align = max_u64(BUFFER_ALIGN, qcow2_file(c->image)->mem_align);
    return aligned_alloc(align, align_up(c->entry_bytes, align));
}

bool qcow2_cache_init(struct qcow2_cache *c, struct qcow2 *s, uint32_t entry_bytes, uint64_t bytes)
{
    *c = (struct qcow2_cache){.image = s, .entry_bytes = entry_bytes};
    uint64_t limit = bytes / entry_bytes;
    c->limit = (uint32_t)min_u64(limit < TABLES_MIN ? TABLES_MIN : limit, 1U << 24);
    uint32_t hash = HASH_MIN;
    while (hash < c->limit)
        hash *= 2;
    c->hash_mask = hash - 1;
    c->tables = g_try_new0(struct qcow2_table *, c->limit);
    c->hash = g_try_new0(struct qcow2_table *, hash);
    return c->tables && c->hash;
}

static void table_free(struct qcow2_table *t)
{
    free(t->data);
    free(t->writing_data);
    g_free(t);
}

void qcow2_cache_done(struct qcow2_cache *c)
{
    for (uint32_t i = 0; c->tables && i < c->count; i++)
        table_free(c->tables[i]);
    g_free(c->tables);
    g_free(c->hash);
    memset(c, 0, sizeof(*c));
}

static struct qcow2_table **hash_slot(const struct qcow2_cache *c, uint64_t off)
{
    uint64_t key = (off / c->entry_bytes) * 0x9e3779b97f4a7c15ULL;
    return &c->hash[(key >> 32) & c->hash_mask];
}

static struct qcow2_table *find(const struct qcow2_cache *c, uint64_t off)
{
    struct qcow2_table *t = *hash_slot(c, off);
    while (t && t->offset != off)
        t = t->hash_next;
    return t;
}

static void insert(struct qcow2_cache *c, struct qcow2_table *t, uint64_t off)
{
    struct qcow2_table **slot = hash_slot(c, off);
    t->offset = off;
    t->hash_next = *slot;
    *slot = t;
}

/* The memory is free for another piece, once nothing loads into it. */
static void forget(struct qcow2_cache *c, struct qcow2_table *t)
{
    struct qcow2_table **p = hash_slot(c, t->offset);
    while (*p != t)
        p = &(*p)->hash_next;
    *p = t->hash_next;
    t->hash_next = NULL;
    t->offset = 0;
    t->used = t->cut = false;
    if (t->dirty)
        c->dirty_count--;
    t->dirty = false;
    if (!t->writing) {
        free(t->writing_data);
        t->writing_data = NULL;
    }
}

struct qcow2_table *qcow2_cache_peek(struct qcow2_cache *c, uint64_t off)
{
    struct qcow2_table *t = find(c, off);
    return t && !t->loading ? t : NULL;
}

/* A table with memory and no place yet, by growing; NULL: at the limit, or no memory. */
static struct qcow2_table *grow(struct qcow2_cache *c)
{
    if (c->count == c->limit)
        return NULL;
    struct qcow2_table *t = g_try_new0(struct qcow2_table, 1);
    if (!t)
        return NULL;
    t->data = buffer_new(c);
    if (!t->data) {
        g_free(t);
        return NULL;
    }
    c->tables[c->count++] = t;
    return t;
}

/* A clean one that was not used since the hand last passed; NULL: all are changed or busy. */
static struct qcow2_table *sweep(struct qcow2_cache *c)
{
    for (uint32_t i = 0; i < 2 * c->count; i++) {
        struct qcow2_table *t = c->tables[c->hand];
        c->hand = c->hand + 1 == c->count ? 0 : c->hand + 1;
        if (t->loading || t->writing || t->dirty || t->cut)
            continue;
        if (!t->offset)
            return t;
        if (!t->used) {
            forget(c, t);
            return t;
        }
        t->used = false;
    }
    return NULL;
}

/* Makes clean tables; waits. */
static int make_room(struct qcow2_cache *c)
{
    if (c == &c->image->refcount_cache)
        return c->dirty_count ? qcow2_cache_write_changed(c) : qcow2_cache_wait_busy(c);
    return c->dirty_count ? qcow2_commit(c->image, false) : qcow2_cache_wait_busy(c);
}

int qcow2_cache_wait_busy(struct qcow2_cache *c)
{
    for (uint32_t i = 0; i < c->count; i++) {
        struct qcow2_table *t = c->tables[i];
        if (t->loading || t->writing || t->cut) {
            fiber_queue_wait(&t->waiters);
            return 0;
        }
    }
    return c->count ? 0 : -ENOMEM;
}

static void begin_load(struct qcow2_cache *c, struct qcow2_table *t, uint64_t off)
{
    insert(c, t, off);
    t->loading = true;
}

static void end_load(struct qcow2_cache *c, struct qcow2_table *t, bool failed)
{
    t->loading = false;
    if (failed && t->offset)
        forget(c, t);
    fiber_queue_wake_all(&t->waiters);
}

static struct qcow2_table *unused(struct qcow2_cache *c)
{
    struct qcow2_table *t = grow(c);
    return t ? t : sweep(c);
}

/* Whoever walks through tables in order (map, convert) will want the rest of this cluster too: how
 * many pieces from `off` on. */
static unsigned pieces_ahead(const struct qcow2_cache *c, uint64_t off)
{
    uint64_t in_cluster = c->image->cluster_bytes - 1, size = node_size(qcow2_file(c->image));
    bool next_table = c->in_order && !(c->next & in_cluster) && !(off & in_cluster);
    if ((off != c->next && !next_table) || off >= size)
        return 1;
    uint64_t end = min_u64(align_up(off + 1, in_cluster + 1), size);
    return (unsigned)max_u64(1, min_u64((end - off) / c->entry_bytes, AHEAD_MAX));
}

/* Fills t, and those behind it that are likely to be asked for next; nobody else may use them
 * meanwhile. */
static int load_in_order(struct qcow2_cache *c, struct qcow2_table *t, uint64_t off, unsigned most)
{
    struct qcow2_table *tables[AHEAD_MAX];
    struct iovec iov[AHEAD_MAX];
    unsigned n = 0;
    do {
        begin_load(c, t, off + (uint64_t)n * c->entry_bytes);
        iov[n] = (struct iovec){.iov_base = t->data, .iov_len = c->entry_bytes};
        tables[n++] = t;
    } while (n < most && !find(c, off + (uint64_t)n * c->entry_bytes) && (t = unused(c)));
    c->next = off + (uint64_t)n * c->entry_bytes;
    int r = n == 1 ? qcow2_meta_read(c->image, off, tables[0]->data, c->entry_bytes)
                   : node_read(qcow2_file(c->image), off, vec_of(iov, n), 0);
    for (unsigned i = 0; i < n; i++)
        end_load(c, tables[i], r);
    return r ? r : tables[0]->offset == off ? 0 : -EAGAIN; /* forgotten while it was read */
}

static int load(struct qcow2_cache *c, struct qcow2_table *t, uint64_t off)
{
    unsigned most = pieces_ahead(c, off);
    c->in_order = most > 1 || off == c->next;
    int r = load_in_order(c, t, off, most);
    if (r && r != -EAGAIN && most > 1) { /* perhaps not this one cannot be read */
        c->in_order = false;
        c->next = 0;
        return -EAGAIN;
    }
    return r;
}

int qcow2_cache_get(struct qcow2_cache *c, uint64_t off, struct qcow2_table **ret)
{
    for (;;) {
        struct qcow2_table *t = find(c, off);
        if (likely(t && !t->loading)) {
            t->used = true;
            c->hits++;
            *ret = t;
            return 0;
        }
        if (t) {
            fiber_queue_wait(&t->waiters);
            continue;
        }
        t = unused(c);
        if (!t) {
            int r = make_room(c);
            if (r)
                return r;
            continue;
        }
        c->misses++;
        int r = load(c, t, off);
        if (r == -EAGAIN)
            continue;
        if (r)
            return r;
    }
}

int qcow2_cache_change(struct qcow2_cache *c, struct qcow2_table *t)
{
    if (unlikely((t->cut || t->writing) && !t->writing_data)) {
        uint8_t *copy = buffer_new(c);
        if (!copy)
            return -ENOMEM;
        memcpy(copy, t->data, c->entry_bytes);
        t->writing_data = t->data;
        t->data = copy;
    }
    if (!t->dirty) {
        t->dirty = true;
        c->dirty_count++;
    }
    return 0;
}

void qcow2_cache_forget(struct qcow2_cache *c, uint64_t off, uint64_t len)
{
    for (uint64_t at = align_down(off, c->entry_bytes); at < off + len; at += c->entry_bytes) {
        struct qcow2_table *t = find(c, at);
        if (t)
            forget(c, t);
    }
}

void qcow2_cache_forget_all(struct qcow2_cache *c)
{
    for (uint32_t i = 0; i < c->count; i++)
        if (c->tables[i]->offset)
            forget(c, c->tables[i]);
}

void qcow2_cache_trim(struct qcow2_cache *c)
{
    uint32_t kept = 0;
    if (c->image->commit_lock.locked)
        return; /* it knows tables by address */
    for (uint32_t i = 0; i < c->count; i++) {
        struct qcow2_table *t = c->tables[i];
        if (t->used || t->dirty || t->loading || t->writing || t->cut || t->waiters.head) {
            t->used = false;
            c->tables[kept++] = t;
            continue;
        }
        if (t->offset)
            forget(c, t);
        table_free(t);
    }
    c->count = kept;
    c->hand = 0;
}

/* ---- writing ---- */

static int write_one(struct qcow2_cache *c, struct qcow2_table *t)
{
    unsigned mine = c == &c->image->refcount_cache
                        ? QCOW2_SECTION_REFBLOCK
                        : QCOW2_SECTION_ACTIVE_L2 | QCOW2_SECTION_INACTIVE_L2;
    t->writing = true;
    int r = qcow2_meta_write(c->image, mine, t->offset, t->writing_data ? t->writing_data : t->data,
                             c->entry_bytes);
    t->writing = false;
    free(t->writing_data);
    t->writing_data = NULL;
    return r;
}

int qcow2_cache_write_cut(struct qcow2_cache *c, struct qcow2_table *t)
{
    int r = t->cut && t->offset ? write_one(c, t) : 0;
    bool gone = !t->cut; /* forgotten */
    t->cut = false;
    if (r && !gone && !t->dirty) {
        t->dirty = true;
        c->dirty_count++;
    }
    fiber_queue_wake_all(&t->waiters);
    return r;
}

/* Blocks change while others are written: one round takes what was changed when it began. */
int qcow2_cache_write_changed(struct qcow2_cache *c)
{
    int r = 0;
    uint32_t count = c->count;
    for (uint32_t i = 0; i < count && i < c->count && !r; i++) {
        struct qcow2_table *t = c->tables[i];
        while (t->writing)
            fiber_queue_wait(&t->waiters);
        if (!t->dirty || t->loading)
            continue;
        t->dirty = false;
        c->dirty_count--;
        r = write_one(c, t);
        if (r && t->offset && !t->dirty) {
            t->dirty = true;
            c->dirty_count++;
        }
        fiber_queue_wake_all(&t->waiters);
    }
    return r;
}
