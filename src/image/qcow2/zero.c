/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Changes of L2 entries without data: zero clusters, discard, and clusters that are to be nothing
 * again.
 *
 * Each works on one slice at a time, with no allocation in flight in its range, and changes its
 * entries at one moment; the clusters that they named go to the pending list.
 *
 * Spec      qcow2, "Standard Cluster Descriptor", "Extended L2 Entries".
 * Thread    The node's home thread.
 */
#include "image/qcow2/internal.h"

#include <errno.h>

enum { PENDING_MAX = 4096 };

struct entry {
    uint64_t entry, bitmap;
};

/* What becomes of an entry whose subclusters [first, last) are in the range. -ENOTSUP: it must be
 * written. */
typedef int change_fn(struct qcow2 *s, const struct entry *old, unsigned first, unsigned last,
                      unsigned flags, struct entry *ret);

static unsigned grains(const struct qcow2 *s)
{
    return s->extended_l2 ? QCOW2_SUBCLUSTERS : 1;
}

/* The slice of [off, end), ours, with nothing in flight there. */
static int writable_and_quiet(struct qcow2 *s, uint64_t off, uint64_t end, struct qcow2_table **ret,
                              unsigned *ret_index)
{
    for (;;) {
        int r = qcow2_l2_writable(s, off, ret, ret_index);
        if (r)
            return r;
        if (!qcow2_alloc_wait(s, off, end - off))
            return 0;
    }
}

/* All entries of [off, end), in one slice. */
static int change_slice(struct qcow2 *s, uint64_t off, uint64_t end, change_fn *fn, unsigned flags,
                        enum qcow2_discard how)
{
    struct qcow2_table *t;
    unsigned index;
    uint64_t base = align_down(off, s->cluster_bytes);
    int r = writable_and_quiet(s, base, end, &t, &index);
    if (!r)
        r = qcow2_cache_change(&s->l2_cache, t);
    for (uint64_t at = base; !r && at < end; at += s->cluster_bytes, index++) {
        struct entry old = {qcow2_l2_entry(s, t, index), qcow2_l2_bitmap(s, t, index)}, new = old;
        uint64_t from = max_u64(at, off) - at, to = min_u64(at + s->cluster_bytes, end) - at;
        unsigned first = (unsigned)(from >> s->subcluster_bits);
        unsigned last = (unsigned)(align_up(to, s->subcluster_bytes) >> s->subcluster_bits);
        r = fn(s, &old, first, last, flags, &new);
        if (r || (new.entry == old.entry &&new.bitmap == old.bitmap))
            continue;
        qcow2_l2_set(s, t, index, new.entry, new.bitmap);
        if ((old.entry & QCOW2_COMPRESSED) || ((old.entry ^ new.entry) & QCOW2_OFFSET_MASK))
            qcow2_l2_release(s, old.entry, how);
    }
    return r;
}

/* Range by range; what `skip` says needs no change is passed over without making tables. */
static int change_range(struct qcow2 *s, uint64_t off, uint64_t end,
                        bool (*skip)(const struct qcow2 *s, const struct qcow2_mapping *m),
                        change_fn *fn, unsigned flags, enum qcow2_discard how)
{
    while (off < end) {
        struct qcow2_mapping m;
        if (qcow2_alloc_wait(s, off, min_u64(end, qcow2_slice_end(s, off)) - off))
            continue;
        int r = qcow2_lookup(s, off, end - off, &m);
        if (r)
            return r;
        if (skip(s, &m)) {
            off += m.len;
            continue;
        }
        uint64_t stop = min_u64(end, qcow2_slice_end(s, off));
        r = change_slice(s, off, stop, fn, flags, how);
        if (!r && qcow2_pending_count(s) > PENDING_MAX)
            r = qcow2_commit_and_free(s);
        if (r)
            return r;
        off = stop;
    }
    return 0;
}

/* ---- zero ---- */

static bool already_zero(const struct qcow2 *s, const struct qcow2_mapping *m)
{
    return m->kind == QCOW2_ZERO_PLAIN || (m->kind == QCOW2_UNALLOCATED && !qcow2_backing(s));
}

static bool keeps_place(const struct qcow2 *s, uint64_t entry, unsigned flags)
{
    bool place = (entry & QCOW2_OFFSET_MASK) || s->data_external;
    return place && (entry & QCOW2_COPIED) && !(entry & QCOW2_COMPRESSED) &&
           !(flags & NODE_MAY_UNMAP);
}

/* Only some subclusters: their bits, the place stays. */
static int zero_subclusters(const struct entry *old, unsigned first, unsigned last,
                            struct entry *ret)
{
    if (old->entry & QCOW2_COMPRESSED)
        return -ENOTSUP;
    uint64_t bits = ((1ULL << last) - 1) & ~((1ULL << first) - 1);
    ret->entry = old->entry;
    ret->bitmap = (old->bitmap & ~bits) | bits << QCOW2_SUBCLUSTERS;
    return 0;
}

static int zero_entry(struct qcow2 *s, const struct entry *old, unsigned first, unsigned last,
                      unsigned flags, struct entry *ret)
{
    if (last - first < grains(s))
        return zero_subclusters(old, first, last, ret);
    bool keep = keeps_place(s, old->entry, flags);
    ret->entry = keep ? old->entry : 0;
    ret->bitmap = s->extended_l2 ? QCOW2_BITMAP_ALL_ZERO : 0;
    if (s->header.version >= 3 && !s->extended_l2)
        ret->entry |= QCOW2_ZERO;
    return 0;
}

/* Version 2 knows no zero clusters: nothing at all reads as zero where no backing file is. */
static bool zero_possible(const struct qcow2 *s)
{
    return s->header.version >= 3 || !qcow2_backing(s);
}

/* Whole grains only; the node sees to the ends. The last grain may reach past the size. */
static bool aligned(const struct qcow2 *s, uint64_t off, uint64_t end)
{
    return !(off & (s->subcluster_bytes - 1)) &&
           (!(end & (s->subcluster_bytes - 1)) || end == s->node.size_bytes);
}

int qcow2_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags)
{
    struct qcow2 *s = qcow2_of(n);
    if (!zero_possible(s) || !aligned(s, off, off + len))
        return -ENOTSUP;
    int r = qcow2_mark_dirty(s);
    if (!r && s->data_raw)
        r = node_zero(qcow2_data(s), off, len, flags & (NODE_MAY_UNMAP | NODE_NO_FALLBACK));
    if (r)
        return r;
    if (s->header.version < 3)
        flags |= NODE_MAY_UNMAP;
    return change_range(s, off, off + len, already_zero, zero_entry, flags, QCOW2_DISCARD_REQUEST);
}

int qcow2_zero_range(struct qcow2 *s, uint64_t begin, uint64_t end)
{
    return change_range(s, begin, end, already_zero, zero_entry, NODE_MAY_UNMAP,
                        QCOW2_DISCARD_OTHER);
}

/* ---- discard ---- */

/* What was never allocated has nothing to give up, unless the backing file shows through. */
static int discard_entry(struct qcow2 *s, const struct entry *old, unsigned first, unsigned last,
                         unsigned flags, struct entry *ret)
{
    *ret = *old;
    if (last - first < grains(s))
        return 0;
    if (s->data_external) /* the place is given by the guest's offset; its contents are gone */
        return zero_entry(s, old, first, last, 0, ret);
    return zero_entry(s, old, first, last, NODE_MAY_UNMAP, ret);
}

int qcow2_discard(struct node *n, uint64_t off, uint64_t len)
{
    struct qcow2 *s = qcow2_of(n);
    uint64_t end = off + len;
    if (!zero_possible(s))
        return 0;
    off = align_up(off, s->cluster_bytes);
    if (end != n->size_bytes)
        end = align_down(end, s->cluster_bytes);
    if (off >= end)
        return 0;
    int r = qcow2_mark_dirty(s);
    if (!r && s->data_raw)
        return 0; /* it must read as the L2 tables say */
    if (!r)
        r = change_range(s, off, end, already_zero, discard_entry, 0, QCOW2_DISCARD_REQUEST);
    if (!r && s->data_external && s->opt.pass_discard_request)
        r = node_discard(qcow2_data(s), off, min_u64(end, node_size(qcow2_data(s))) - off);
    return r;
}

/* ---- nothing at all ---- */

static bool already_nothing(const struct qcow2 *s, const struct qcow2_mapping *m)
{
    return m->kind == QCOW2_UNALLOCATED;
}

static int drop_entry(struct qcow2 *s, const struct entry *old, unsigned first, unsigned last,
                      unsigned flags, struct entry *ret)
{
    *ret = (struct entry){0};
    return 0;
}

int qcow2_drop_range(struct qcow2 *s, uint64_t off, uint64_t len, enum qcow2_discard how)
{
    int r = qcow2_mark_dirty(s);
    uint64_t most = (uint64_t)s->header.l1_count << (s->l2_bits + s->cluster_bits);
    uint64_t end = min_u64(align_up(off + len, s->cluster_bytes), most);
    return r || off >= end ? r : change_range(s, off, end, already_nothing, drop_entry, 0, how);
}

/* Gives up L2 tables that say nothing any more. */
static int drop_tables(struct qcow2 *s)
{
    for (uint64_t i = 0; i < s->header.l1_count; i++) {
        uint64_t l2 = s->l1[i] & QCOW2_OFFSET_MASK;
        if (!l2)
            continue;
        qcow2_cache_forget(&s->l2_cache, l2, s->cluster_bytes);
        qcow2_places_remove(s, l2);
        qcow2_l1_set(s, i, 0);
        qcow2_free_later(s, l2, s->cluster_bytes, QCOW2_DISCARD_OTHER);
    }
    return qcow2_commit_and_free(s);
}

int qcow2_make_empty(struct node *n)
{
    struct qcow2 *s = qcow2_of(n);
    node_drain_begin(n);
    uint64_t all = (uint64_t)s->header.l1_count << (s->l2_bits + s->cluster_bits);
    int r = qcow2_drop_range(s, 0, all, QCOW2_DISCARD_SNAPSHOT);
    if (!r)
        r = qcow2_commit_and_free(s); /* entries are gone on disk before their tables */
    if (!r)
        r = drop_tables(s);
    node_drain_end(n);
    return r;
}
