/* SPDX-License-Identifier: GPL-2.0-or-later */
/* New refcount structures from counted references: for a damaged image, or for another width.
 *
 * Fiber     A fiber of the node's context.
 * Order     Blocks and table go behind everything and are synced; then one sector of the header
 *           points to them, with the new width; synced. Before that the old ones are valid as they
 *           were.
 */
#include "image/qcow2/check.h"

#include <errno.h>
#include <inttypes.h>

struct rebuild {
    struct check *c;
    unsigned order;
    uint64_t per_block; /* entries */
    uint64_t first;     /* cluster of the first new block */
    uint64_t block_count, table_clusters, table_entries;
};

/* The old table and blocks are no longer referred to. */
static void forget_old(struct check *c)
{
    struct qcow2 *s = c->s;
    uint64_t table = s->header.reftable_offset >> s->cluster_bits;
    for (uint64_t i = 0; c->reftable_count && i < s->header.reftable_clusters; i++) {
        if (tally_get(&c->t, table + i) == 1)
            tally_clear_cell(&c->t, table + i);
    }
    for (uint64_t i = 0; i < c->blocks.count; i++) {
        uint64_t block = c->blocks.refs[i].offset >> s->cluster_bits;
        if (tally_get(&c->t, block) == 1)
            tally_clear_cell(&c->t, block);
    }
}

/* How many blocks have something to count. */
static uint64_t count_blocks(const struct rebuild *b, uint64_t *ret_last)
{
    const struct tally *t = &b->c->t;
    uint64_t n = 0;
    for (uint64_t i = tally_next(t, 0, t->clusters); i < t->clusters; n++) {
        *ret_last = i / b->per_block;
        i = tally_next(t, (*ret_last + 1) * b->per_block, t->clusters);
    }
    return n;
}

/* Finds the sizes: the structures count themselves. */
static int plan(struct rebuild *b)
{
    struct check *c = b->c;
    uint64_t have = 0, entries = c->s->cluster_bytes / 8;
    for (;;) {
        uint64_t last = 0;
        b->block_count = count_blocks(b, &last);
        b->table_clusters = last / entries + 1;
        b->table_entries = last + 1;
        uint64_t need = b->block_count + b->table_clusters;
        if (need <= have) {
            b->table_clusters += have - need; /* zero entries at its end */
            break;
        }
        for (; have < need; have++) {
            int r = tally_add(&c->t, b->first + have, 1, TALLY_META);
            if (r < 0)
                return r;
        }
    }
    return b->table_clusters << c->s->cluster_bits > QCOW2_REFTABLE_BYTES_MAX ? -EFBIG : 0;
}

static int fill_block(const struct rebuild *b, uint64_t first, uint8_t *block)
{
    const struct tally *t = &b->c->t;
    uint64_t end = min_u64(first + b->per_block, t->clusters),
             max = ~0ULL >> (64 - (1u << b->order));
    for (uint64_t i = tally_next(t, first, end); i < end; i = tally_next(t, i + 1, end)) {
        uint64_t count = tally_get(t, i);
        if (count > max) {
            check_found(b->c, FOUND_ERROR,
                        "cluster %" PRIu64 " has %" PRIu64
                        " references; refcounts of %u bits end at %" PRIu64,
                        i, count, 1u << b->order, max);
            return -EINVAL;
        }
        qcow2_refcount_write(block, b->order, i - first, count);
    }
    return 0;
}

/* Blocks one behind the other, then the table. */
static int write_all(const struct rebuild *b, uint64_t *table)
{
    struct check *c = b->c;
    struct qcow2 *s = c->s;
    g_autofree uint8_t *block = g_try_malloc(s->cluster_bytes);
    uint64_t at = b->first << s->cluster_bits;
    int r = block ? 0 : -ENOMEM;
    for (uint64_t i = tally_next(&c->t, 0, c->t.clusters); r == 0 && i < c->t.clusters;) {
        uint64_t index = i / b->per_block;
        memset(block, 0, s->cluster_bytes);
        r = fill_block(b, index * b->per_block, block);
        if (r == 0)
            r = node_pwrite(qcow2_file(s), at, block, s->cluster_bytes, 0);
        table[index] = __builtin_bswap64(at);
        at += s->cluster_bytes;
        i = tally_next(&c->t, (index + 1) * b->per_block, c->t.clusters);
    }
    if (r == 0)
        r = node_pwrite(qcow2_file(s), at, table, b->table_clusters << s->cluster_bits, 0);
    return r < 0 ? r : node_flush(qcow2_file(s));
}

static int switch_over(const struct rebuild *b)
{
    struct qcow2 *s = b->c->s;
    struct qcow2_header before = s->header;
    s->header.reftable_offset = (b->first + b->block_count) << s->cluster_bits;
    s->header.reftable_clusters = (uint32_t)b->table_clusters;
    s->header.refcount_order = b->order;
    int r = qcow2_header_write_fields(s);
    if (r == 0)
        r = node_flush(qcow2_file(s));
    if (r < 0) {
        s->header = before;
        return r;
    }
    s->refcount_order = b->order;
    s->refblock_bits = s->cluster_bits + 3 - b->order;
    s->refcount_max = ~0ULL >> (64 - (1u << b->order));
    return 0;
}

int check_rebuild(struct check *c, unsigned order)
{
    struct rebuild b = {.c = c,
                        .order = order,
                        .per_block = 8ULL << c->s->cluster_bits >> order,
                        .first = c->end_cluster};
    forget_old(c);
    int r = plan(&b);
    if (r < 0)
        return r;
    g_autofree uint64_t *table = g_try_malloc0(b.table_clusters << c->s->cluster_bits);
    r = table ? write_all(&b, table) : -ENOMEM;
    if (r == 0)
        r = switch_over(&b);
    if (r == 0)
        c->highest = max_u64(c->highest, b.first + b.block_count + b.table_clusters - 1);
    return r;
}
