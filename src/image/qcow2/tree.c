/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whole mapping trees: L1 tables with all their L2 tables, read in parallel and counted.
 *
 * Fiber     Everything here. A walk starts several fibers; each takes the next run of neighbouring
 *           tables, reads it with one request and hands out its tables one by one.
 * Trust     Entries are hostile: what is no offset inside the file is refused.
 */
#include "base/error.h"
#include "image/qcow2/tally.h"

#include <errno.h>

enum {
    WORKERS_MIN = 4,
    WORKERS_MAX = 16,
    RUN_BYTES = 1 << 20,
    IN_FLIGHT_BYTES = 256 << 10,
};

struct walk {
    struct qcow2 *s;
    const struct table_list *list;
    table_fn *fn;
    void *opaque;
    uint64_t next;    /* of the list, for the next worker */
    unsigned running; /* workers */
    int error;        /* the first */
    bool holes;       /* the file has some: what lies in one is not read */
    struct fiber_queue done;
};

/* Takes [*ret_first, returned) of the list: neighbours in the file, RUN_BYTES at most, one at
 * least. */
static uint64_t take_run(struct walk *w, uint64_t *ret_first)
{
    const struct table_ref *refs = w->list->refs;
    uint64_t cluster = w->s->cluster_bytes, first = w->next, end = first + 1;
    while (end < w->list->count && refs[end].offset == refs[end - 1].offset + cluster &&
           (end - first + 1) * cluster <= RUN_BYTES)
        end++;
    w->next = end;
    *ret_first = first;
    return end;
}

/* Tables that the file has no bytes for: nothing is in them. */
static bool in_hole(const struct walk *w, uint64_t off, uint64_t len)
{
    struct node *file = qcow2_file(w->s);
    struct image_extent e;
    return w->holes && range_fits(off, len, node_size(file)) && node_map(file, off, len, &e) == 0 &&
           e.len == len && (e.flags & EXTENT_ZERO);
}

static int walk_run(struct walk *w, uint8_t *buf, uint64_t first, uint64_t end)
{
    const struct table_ref *refs = w->list->refs;
    uint64_t cluster = w->s->cluster_bytes;
    if (in_hole(w, refs[first].offset, (end - first) * cluster))
        return 0;
    int r = qcow2_meta_read(w->s, refs[first].offset, buf, (end - first) * cluster);
    for (uint64_t i = first; r == 0 && !w->error && i < end; i++) {
        uint8_t *table = buf + (i - first) * cluster;
        r = w->fn(w->opaque, &refs[i], table);
        if (r > 0)
            r = node_pwrite(qcow2_file(w->s), refs[i].offset, table, cluster, 0);
    }
    return r;
}

static void worker(void *opaque)
{
    struct walk *w = opaque;
    size_t bytes = max_u64(RUN_BYTES, w->s->cluster_bytes);
    uint8_t *buf = g_try_malloc(bytes);
    if (!buf && !w->error)
        w->error = -ENOMEM;
    while (!w->error && w->next < w->list->count) {
        uint64_t first, end = take_run(w, &first);
        int r = walk_run(w, buf, first, end);
        if (r < 0 && !w->error)
            w->error = r;
    }
    g_free(buf);
    if (--w->running == 0)
        fiber_queue_wake_all(&w->done);
}

/* A hostile file is a large hole that all tables lie in. An honest one has bytes for each. */
static bool has_holes(struct qcow2 *s, const struct table_list *l)
{
    int64_t allocated = node_allocated_bytes(qcow2_file(s));
    return allocated >= 0 && (uint64_t)allocated >> s->cluster_bits < l->count;
}

int tables_walk(struct qcow2 *s, const struct table_list *l, unsigned flags, table_fn *fn,
                void *opaque)
{
    struct walk w = {.s = s, .list = l, .fn = fn, .opaque = opaque};
    w.holes = (flags & WALK_SKIP_HOLES) && has_holes(s, l);
    /* Small tables need many requests to keep a disk busy, large ones memory. */
    uint64_t workers =
        min_u64(max_u64(IN_FLIGHT_BYTES / s->cluster_bytes, WORKERS_MIN), WORKERS_MAX);
    context_plug(s->node.ctx);
    w.running = 1; /* us, until all are started */
    for (unsigned i = 0; i < workers && w.next < l->count; i++) {
        w.running++;
        fiber_start(worker, &w);
    }
    context_unplug(s->node.ctx);
    if (--w.running)
        fiber_queue_wait(&w.done);
    return w.error;
}

int tree_tables(struct qcow2 *s, const uint64_t *l1, uint64_t l1_count, struct table_list *ret)
{
    for (uint64_t i = 0; i < l1_count; i++) {
        struct table_ref ref = {.offset = l1[i] & QCOW2_OFFSET_MASK, .uses = 1};
        if (!ref.offset || ref.offset % s->cluster_bytes)
            continue;
        int r = table_list_add(ret, &ref);
        if (r < 0)
            return r;
    }
    table_list_merge(ret);
    return 0;
}

struct counting {
    struct qcow2 *s;
    struct tally *t;
};

static int count_range(struct counting *c, uint64_t off, uint64_t len, uint32_t uses)
{
    int r = 0;
    uint64_t last = (off + len - 1) >> c->s->cluster_bits;
    for (uint64_t i = off >> c->s->cluster_bits; r == 0 && i <= last; i++)
        r = tally_add(c->t, i, uses, 0);
    return r == -ERANGE ? -EIO : r;
}

static int count_table(void *opaque, const struct table_ref *ref, uint8_t *table)
{
    struct counting *c = opaque;
    struct qcow2 *s = c->s;
    unsigned step = s->l2_entry_bytes / 8;
    int r = 0;
    for (uint64_t i = 0; r == 0 && i < s->cluster_bytes / 8; i += step) {
        uint64_t entry = table_entry(table, i), off = entry & QCOW2_OFFSET_MASK;
        if (entry & QCOW2_COMPRESSED) {
            uint32_t len;
            qcow2_packed_place(s, entry, &off, &len);
            r = count_range(c, off, len, ref->uses);
        } else if (off) {
            r = off % s->cluster_bytes ? -EIO : count_range(c, off, s->cluster_bytes, ref->uses);
        }
    }
    return r;
}

int tree_tally(struct qcow2 *s, const uint64_t *l1, uint64_t l1_count, struct tally *t)
{
    struct table_list tables = {0};
    struct counting c = {s, t};
    int r = tree_tables(s, l1, l1_count, &tables);
    for (uint64_t i = 0; r == 0 && i < tables.count; i++)
        r = count_range(&c, tables.refs[i].offset, s->cluster_bytes, tables.refs[i].uses);
    if (r == 0 && !s->data_external)
        r = tables_walk(s, &tables, WALK_SKIP_HOLES, count_table, &c);
    table_list_done(&tables);
    return r;
}

/* The run of clusters with the same count that begins at `first`. */
static uint64_t run_end(const struct tally *t, uint64_t first)
{
    uint64_t count = tally_get(t, first), end = first + 1;
    while (end < t->clusters && tally_get(t, end) == count)
        end++;
    return end;
}

int tree_raise(struct qcow2 *s, const struct tally *t)
{
    uint64_t bits = s->cluster_bits, i = tally_next(t, 0, t->clusters), end;
    int r = 0;
    while (i < t->clusters) {
        uint64_t count = tally_get(t, i);
        end = run_end(t, i);
        r = count > INT32_MAX ? -EINVAL
                              : qcow2_refcount_add(s, i << bits, (end - i) << bits, (int)count);
        if (r < 0)
            break;
        i = tally_next(t, end, t->clusters);
    }
    for (uint64_t u = r < 0 ? tally_next(t, 0, i) : i; u < i; u = tally_next(t, end, i)) {
        end = run_end(t, u);
        qcow2_refcount_add(s, u << bits, (end - u) << bits, -(int)tally_get(t, u));
    }
    return r;
}

void tree_lower(struct qcow2 *s, const struct tally *t)
{
    uint64_t bits = s->cluster_bits;
    for (uint64_t i = tally_next(t, 0, t->clusters), end; i < t->clusters;
         i = tally_next(t, end, t->clusters)) {
        end = run_end(t, i);
        uint64_t more = tally_get(t, i) - 1;
        if (more && more <= INT32_MAX)
            qcow2_refcount_add(s, i << bits, (end - i) << bits, -(int)more);
        qcow2_free_later(s, i << bits, (end - i) << bits, QCOW2_DISCARD_SNAPSHOT);
    }
}

uint64_t *tree_read_l1(struct qcow2 *s, uint64_t offset, uint64_t count, GError **error)
{
    uint64_t bytes = count * 8;
    uint64_t *l1 = bytes > QCOW2_L1_BYTES_MAX ? NULL : g_try_malloc(bytes + 8);
    if (!l1) {
        ruche_error(error, RUCHE_ERR_NO_SPACE,
                    "'%s': an L1 table of %" G_GUINT64_FORMAT
                    " entries is too large; the limit is %llu",
                    node_name(&s->node), count, QCOW2_L1_BYTES_MAX / 8);
        return NULL;
    }
    int r = qcow2_meta_read(s, offset, l1, bytes);
    if (r < 0) {
        ruche_error_errno(error, -r, "'%s': cannot read the L1 table at %" G_GUINT64_FORMAT,
                          node_name(&s->node), offset);
        g_free(l1);
        return NULL;
    }
    for (uint64_t i = 0; i < count; i++)
        l1[i] = __builtin_bswap64(l1[i]);
    return l1;
}
