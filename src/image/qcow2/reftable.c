/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The refcount table: loading, new refcount blocks, and a larger table when it is full.
 *
 * A block is put at the first cluster that it counts, so that making one needs no other. It is on
 * disk and synced before the table names it; nothing refers to the clusters that it counts before
 * the next commit, which syncs the table. A larger table, with the blocks that count it, is put
 * behind everything that the old one can count; the header changes in one sector when all of that
 * is durable.
 *
 * Spec      qcow2, "Host cluster management".
 * Thread    The node's home thread, under alloc_lock (the node is being opened: without).
 */
#include "image/qcow2/refcount.h"

#include <errno.h>
#include <string.h>

static int write_entry(struct qcow2 *s, uint64_t ti)
{
    uint64_t be = __builtin_bswap64(s->reftable[ti]);
    return qcow2_meta_write(s, QCOW2_SECTION_REFTABLE, s->header.reftable_offset + ti * 8, &be,
                            sizeof(be));
}

/* Puts a block that counts its first `used` clusters once at `off`. */
static int write_block(struct qcow2 *s, uint64_t off, uint64_t used)
{
    int r = qcow2_check_overlap(s, 0, off, s->cluster_bytes);
    if (r)
        return r;
    uint8_t *block = g_try_malloc0(s->cluster_bytes);
    if (!block)
        return -ENOMEM;
    for (uint64_t i = 0; i < used; i++)
        qcow2_refcount_write(block, s->refcount_order, i, 1);
    r = node_pwrite(qcow2_file(s), off, block, s->cluster_bytes, 0);
    g_free(block);
    return r;
}

static void note_used(struct qcow2 *s, uint64_t off, uint64_t len)
{
    s->fresh_offset = max_u64(s->fresh_offset, off + len);
}

/* ---- a larger table ---- */

struct growth {
    uint64_t base;     /* first cluster that the old table cannot count */
    uint64_t blocks;   /* new ones, at base */
    uint64_t clusters; /* of the new table, behind them */
    uint64_t *table;   /* host order */
};

static void growth_plan(const struct qcow2 *s, uint64_t count, struct growth *g)
{
    uint64_t per_block = 1ULL << s->refblock_bits, per_cluster = s->cluster_bytes / 8;
    g->base = (uint64_t)s->reftable_count << s->refblock_bits;
    for (g->blocks = 1;; g->blocks++) {
        uint64_t entries = max_u64(count, s->reftable_count + g->blocks);
        g->clusters = (entries + per_cluster - 1) / per_cluster;
        if (g->blocks + g->clusters <= g->blocks * per_block)
            return;
    }
}

static int growth_write(struct qcow2 *s, const struct growth *g)
{
    uint64_t off = g->base << s->cluster_bits, left = g->blocks + g->clusters;
    uint64_t per_block = 1ULL << s->refblock_bits;
    uint64_t table_bytes = g->clusters << s->cluster_bits;
    for (uint64_t i = 0; i < g->blocks; i++, left -= min_u64(left, per_block)) {
        int r = write_block(s, off + (i << s->cluster_bits), min_u64(left, per_block));
        if (r)
            return r;
    }
    uint64_t *be = g_try_malloc(table_bytes);
    if (!be)
        return -ENOMEM;
    for (uint64_t i = 0; i < table_bytes / 8; i++)
        be[i] = __builtin_bswap64(g->table[i]);
    int r = qcow2_meta_write(s, 0, off + (g->blocks << s->cluster_bits), be, table_bytes);
    g_free(be);
    return r ? r : qcow2_meta_sync(s);
}

/* The header names the new table; then the old one's clusters are free. */
static int growth_switch(struct qcow2 *s, struct growth *g)
{
    struct qcow2_header *h = &s->header;
    uint64_t old_off = h->reftable_offset, old_clusters = h->reftable_clusters;
    h->reftable_offset = (g->base + g->blocks) << s->cluster_bits;
    h->reftable_clusters = (uint32_t)g->clusters;
    int r = qcow2_header_write_fields(s);
    if (!r)
        r = qcow2_meta_sync(s);
    if (r) {
        h->reftable_offset = old_off;
        h->reftable_clusters = (uint32_t)old_clusters;
        return r;
    }
    g_free(s->reftable);
    s->reftable = g_steal_pointer(&g->table);
    s->reftable_count = (uint32_t)((g->clusters << s->cluster_bits) / 8);
    for (uint64_t i = 0; i < g->blocks; i++)
        qcow2_places_add(s, QCOW2_SECTION_REFBLOCK, (g->base + i) << s->cluster_bits);
    note_used(s, g->base << s->cluster_bits, (g->blocks + g->clusters) << s->cluster_bits);
    return qcow2_refcount_add_locked(s, old_off >> s->cluster_bits, old_clusters, -1);
}

static int grow(struct qcow2 *s, uint64_t count)
{
    struct growth g = {0};
    growth_plan(s, max_u64(count, s->reftable_count + s->reftable_count / 2), &g);
    if (g.clusters << s->cluster_bits > QCOW2_REFTABLE_BYTES_MAX ||
        g.base + g.blocks + g.clusters > QCOW2_OFFSET_MASK >> s->cluster_bits)
        return -EFBIG;
    g.table = g_try_malloc0(g.clusters << s->cluster_bits);
    if (!g.table)
        return -ENOMEM;
    memcpy(g.table, s->reftable, (size_t)s->reftable_count * 8);
    for (uint64_t i = 0; i < g.blocks; i++)
        g.table[s->reftable_count + i] = (g.base + i) << s->cluster_bits;
    int r = growth_write(s, &g);
    if (!r)
        r = growth_switch(s, &g);
    g_free(g.table);
    return r;
}

/* ---- blocks ---- */

int qcow2_refblock_make(struct qcow2 *s, uint64_t ti)
{
    if (ti >= s->reftable_count) {
        int r = grow(s, ti + 1);
        if (r || s->reftable[ti])
            return r;
    }
    uint64_t off = (ti << s->refblock_bits) << s->cluster_bits;
    int r = off ? write_block(s, off, 1)
                : qcow2_corrupt(s, true, 0, 0, "the first refcount block is missing");
    if (!r)
        r = qcow2_meta_sync(s);
    if (r)
        return r;
    s->reftable[ti] = off;
    r = write_entry(s, ti);
    if (r) {
        s->reftable[ti] = 0;
        return r;
    }
    qcow2_places_add(s, QCOW2_SECTION_REFBLOCK, off);
    note_used(s, off, s->cluster_bytes);
    return 0;
}

bool qcow2_reftable_load(struct qcow2 *s, GError **error)
{
    const char *name = node_filename(&s->node);
    size_t bytes = (size_t)s->header.reftable_clusters << s->cluster_bits;
    uint64_t *table = g_try_malloc(bytes ? bytes : 8);
    if (!table)
        return ruche_error_errno(error, ENOMEM, "'%s': refcount table of %zu bytes", name, bytes);
    int r = qcow2_meta_read(s, s->header.reftable_offset, table, bytes);
    if (r) {
        g_free(table);
        return ruche_error_errno(error, -r, "cannot read the refcount table of '%s'", name);
    }
    for (size_t i = 0; i < bytes / 8; i++)
        table[i] = __builtin_bswap64(table[i]);
    g_free(s->reftable);
    s->reftable = table;
    s->reftable_count = (uint32_t)(bytes / 8);
    qcow2_cache_forget_all(&s->refcount_cache);
    s->free_index = 0;
    s->packed_offset = 0;
    return true;
}
