/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bringing changed metadata to disk in the order that internal.h describes: refcounts, sync,
 * references, sync; then the end of what lost its references.
 *
 * Thread    The node's home thread; one commit at a time (commit_lock). While one waits, tables
 * change on: it writes what it cut when it began, changes go to copies.
 */
#include "image/qcow2/cache.h"

#include <errno.h>

enum { WRITERS = 8, L1_SECTOR_ENTRIES = 64, L1_SECTOR_BYTES = 512 };

/* L2 slices and sectors of L1 as they were at one moment. */
struct cut {
    struct qcow2_table **tables;
    uint32_t table_count;
    uint32_t *sectors;     /* numbers of L1 sectors */
    uint8_t *sector_bytes; /* their contents */
    uint32_t sector_count;
};

static uint32_t l1_sectors(const struct qcow2 *s)
{
    return (s->header.l1_count + L1_SECTOR_ENTRIES - 1) / L1_SECTOR_ENTRIES;
}

static void l1_sector_store(const struct qcow2 *s, uint32_t sector, uint8_t *to)
{
    uint64_t be[L1_SECTOR_ENTRIES] = {0};
    uint32_t first = sector * L1_SECTOR_ENTRIES;
    for (uint32_t i = 0; i < L1_SECTOR_ENTRIES && first + i < s->header.l1_count; i++)
        be[i] = __builtin_bswap64(s->l1[first + i]);
    memcpy(to, be, sizeof(be));
}

static int cut_l1(struct qcow2 *s, struct cut *c)
{
    uint32_t count = 0, sectors = l1_sectors(s);
    for (uint32_t i = 0; s->l1_any_dirty && i < sectors; i++)
        count += s->l1_dirty[i];
    if (!count)
        return 0;
    c->sectors = g_try_new(uint32_t, count);
    c->sector_bytes = g_try_malloc((size_t)count * L1_SECTOR_BYTES);
    if (!c->sectors || !c->sector_bytes)
        return -ENOMEM;
    for (uint32_t i = 0; i < sectors; i++) {
        if (!s->l1_dirty[i])
            continue;
        l1_sector_store(s, i, c->sector_bytes + (size_t)c->sector_count * L1_SECTOR_BYTES);
        c->sectors[c->sector_count++] = i;
        s->l1_dirty[i] = 0;
    }
    s->l1_any_dirty = false;
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    uint64_t x = (*(struct qcow2_table *const *)a)->offset;
    uint64_t y = (*(struct qcow2_table *const *)b)->offset;
    return x < y ? -1 : x > y;
}

/* Never waits: all of one moment. On failure nothing was cut. */
static int cut_take(struct qcow2 *s, struct cut *c)
{
    struct qcow2_cache *l2 = &s->l2_cache;
    if (l2->dirty_count) {
        c->tables = g_try_new(struct qcow2_table *, l2->dirty_count);
        if (!c->tables)
            return -ENOMEM;
    }
    int r = cut_l1(s, c);
    if (r)
        return r;
    for (uint32_t i = 0; i < l2->count && l2->dirty_count; i++) {
        struct qcow2_table *t = l2->tables[i];
        if (!t->dirty)
            continue;
        t->dirty = false;
        t->cut = true;
        l2->dirty_count--;
        c->tables[c->table_count++] = t;
    }
    if (c->table_count)
        qsort(c->tables, c->table_count, sizeof(*c->tables), by_offset);
    return 0;
}

static void cut_clear(struct cut *c)
{
    g_free(c->tables);
    g_free(c->sectors);
    g_free(c->sector_bytes);
}

/* What was cut and not written is changed again. */
static void cut_undo(struct qcow2 *s, struct cut *c)
{
    for (uint32_t i = 0; i < c->table_count; i++) {
        struct qcow2_table *t = c->tables[i];
        if (!t->cut)
            continue;
        t->cut = false;
        free(t->writing_data);
        t->writing_data = NULL;
        if (!t->dirty) {
            t->dirty = true;
            s->l2_cache.dirty_count++;
        }
        fiber_queue_wake_all(&t->waiters);
    }
    for (uint32_t i = 0; i < c->sector_count; i++)
        s->l1_dirty[c->sectors[i]] = 1;
    s->l1_any_dirty |= c->sector_count > 0;
}

struct writer {
    struct qcow2_task task;
    struct qcow2 *s;
    struct cut *cut;
    uint32_t *next; /* shared by the writers of one cut */
};

static int run_writer(struct qcow2_task *task)
{
    struct writer *w = (struct writer *)task;
    int r = 0;
    while (!r && *w->next < w->cut->table_count)
        r = qcow2_cache_write_cut(&w->s->l2_cache, w->cut->tables[(*w->next)++]);
    return r;
}

static int write_tables(struct qcow2 *s, struct cut *c)
{
    struct writer writers[WRITERS];
    struct qcow2_fan fan = {0};
    uint32_t next = 0;
    if (c->table_count == 1)
        return qcow2_cache_write_cut(&s->l2_cache, c->tables[0]);
    for (unsigned i = 0; i < WRITERS && i < c->table_count; i++) {
        writers[i] = (struct writer){.s = s, .cut = c, .next = &next};
        qcow2_fan_start(&fan, &writers[i].task, run_writer);
    }
    return qcow2_fan_join(&fan);
}

static int write_l1(struct qcow2 *s, struct cut *c)
{
    int r = 0;
    uint32_t i = 0;
    while (i < c->sector_count && !r) {
        uint32_t n = 1;
        while (i + n < c->sector_count && c->sectors[i + n] == c->sectors[i] + n)
            n++;
        r = qcow2_meta_write(s, QCOW2_SECTION_ACTIVE_L1,
                             s->header.l1_offset + (uint64_t)c->sectors[i] * L1_SECTOR_BYTES,
                             c->sector_bytes + (size_t)i * L1_SECTOR_BYTES,
                             (size_t)n * L1_SECTOR_BYTES);
        i += n;
    }
    return r;
}

static int sync_files(struct qcow2 *s)
{
    int r = s->data_external ? node_flush(qcow2_data(s)) : 0;
    return r ? r : qcow2_meta_sync(s);
}

static int write_refcounts(struct qcow2 *s)
{
    if (s->dirty_marked && !s->closing)
        return 0; /* lazy: whoever opens it after a crash counts again */
    return qcow2_cache_write_changed(&s->refcount_cache);
}

static int commit_locked(struct qcow2 *s, bool durable)
{
    struct cut c = {0};
    int r = cut_take(s, &c);
    bool references = c.table_count || c.sector_count;
    if (!r)
        r = write_refcounts(s);
    if (!r && (references || durable))
        r = sync_files(s);
    if (!r && references) {
        r = write_tables(s, &c);
        if (!r)
            r = write_l1(s, &c);
        if (!r && durable)
            r = qcow2_meta_sync(s);
    }
    if (r)
        cut_undo(s, &c);
    cut_clear(&c);
    return r;
}

int qcow2_commit(struct qcow2 *s, bool durable)
{
    fiber_mutex_lock(&s->commit_lock);
    int r = commit_locked(s, durable);
    fiber_mutex_unlock(&s->commit_lock);
    return r;
}

/* New requests count for the other epoch; the old ones are waited for. Under grace_lock. */
void qcow2_wait_grace(struct qcow2 *s)
{
    fiber_mutex_lock(&s->grace_lock);
    unsigned old = s->epoch & 1;
    s->epoch++;
    while (s->inside[old])
        fiber_queue_wait(&s->grace);
    fiber_mutex_unlock(&s->grace_lock);
}

int qcow2_commit_and_free(struct qcow2 *s)
{
    if (!qcow2_pending_count(s))
        return qcow2_commit(s, true);
    struct qcow2_pending *removed = qcow2_pending_take(s);
    int r = qcow2_commit(s, true);
    if (r) {
        qcow2_pending_give_back(s, removed);
        return r;
    }
    qcow2_wait_grace(s);
    return qcow2_pending_apply(s, removed);
}
