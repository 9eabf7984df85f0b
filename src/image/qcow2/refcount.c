/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reference counts: reading, changing, and finding clusters that nobody uses.
 *
 * Spec      qcow2, "Host cluster management".
 * Thread    The node's home thread; changes under alloc_lock, which is held over the making and
 *           loading of blocks.
 * Trust     Offsets of blocks are checked when they are used; counts are only believed as far as
 *           the overlap check protects metadata from them.
 */
#include "image/qcow2/refcount.h"

#include <errno.h>
#include <string.h>

#define CLUSTER_INDEX_MAX(s) (QCOW2_OFFSET_MASK >> (s)->cluster_bits)

uint64_t qcow2_refcount_read(const void *block, unsigned order, uint64_t index)
{
    const uint8_t *b = block;
    if (order < 3) {
        unsigned per = 8U >> order, bits = 1U << order;
        return b[index / per] >> (index % per * bits) & ((1U << bits) - 1);
    }
    unsigned bytes = 1U << (order - 3);
    uint64_t v = 0;
    memcpy((uint8_t *)&v + 8 - bytes, b + index * bytes, bytes);
    return __builtin_bswap64(v);
}

void qcow2_refcount_write(void *block, unsigned order, uint64_t index, uint64_t value)
{
    uint8_t *b = block;
    if (order < 3) {
        unsigned per = 8U >> order, bits = 1U << order, shift = index % per * bits;
        uint8_t mask = (uint8_t)(((1U << bits) - 1) << shift);
        b[index / per] = (uint8_t)((b[index / per] & ~mask) | (value << shift & mask));
        return;
    }
    unsigned bytes = 1U << (order - 3);
    value = __builtin_bswap64(value);
    memcpy(b + index * bytes, (uint8_t *)&value + 8 - bytes, bytes);
}

static uint64_t slice_entries(const struct qcow2 *s)
{
    return ((uint64_t)s->refcount_cache.entry_bytes * 8) >> s->refcount_order;
}

int qcow2_refcount_slice(struct qcow2 *s, uint64_t index, struct qcow2_table **ret,
                         uint64_t *ret_entry)
{
    uint64_t ti = index >> s->refblock_bits;
    uint64_t block = ti < s->reftable_count ? s->reftable[ti] & QCOW2_REFTABLE_MASK : 0;
    *ret = NULL;
    if (!block)
        return 0;
    if (block & (s->cluster_bytes - 1))
        return qcow2_corrupt(s, true, -1, 0,
                             "refcount table entry %" G_GUINT64_FORMAT
                             " has the unaligned offset 0x%" G_GINT64_MODIFIER "x",
                             ti, block);
    uint64_t in_block = index & ((1ULL << s->refblock_bits) - 1);
    uint64_t per = slice_entries(s);
    *ret_entry = in_block % per;
    return qcow2_cache_get(&s->refcount_cache,
                           block + in_block / per * s->refcount_cache.entry_bytes, ret);
}

int qcow2_refcount_get(struct qcow2 *s, uint64_t index, uint64_t *ret)
{
    struct qcow2_table *t;
    uint64_t entry;
    int r = qcow2_refcount_slice(s, index, &t, &entry);
    if (!r)
        *ret = t ? qcow2_refcount_read(t->data, s->refcount_order, entry) : 0;
    return r;
}

/* A cluster's count fell to nothing. */
static void cluster_freed(struct qcow2 *s, uint64_t index)
{
    if (index < s->free_index)
        s->free_index = index;
    if (s->packed_offset && (s->packed_offset - 1) >> s->cluster_bits == index)
        s->packed_offset = 0;
}

/* A slice whose counts are to be raised; a block is made where there is none. One that counts nothing yet may be a
 * hole of the file: it is written as it is first, so that a full disk cannot keep its counts from it later. */
static int slice_to_raise(struct qcow2 *s, uint64_t index, struct qcow2_table **ret,
                          uint64_t *ret_entry)
{
    int r = qcow2_refcount_slice(s, index, ret, ret_entry);
    if (!r && !*ret) {
        r = qcow2_refblock_make(s, index >> s->refblock_bits);
        return r ? r : qcow2_refcount_slice(s, index, ret, ret_entry);
    }
    if (r || (*ret)->dirty || (*ret)->writing || !bytes_are_zero((*ret)->data, s->refcount_cache.entry_bytes))
        return r;
    g_autofree uint8_t *zeroes = g_try_malloc0(s->refcount_cache.entry_bytes);
    r = !zeroes ? -ENOMEM
                : qcow2_meta_write(s, QCOW2_SECTION_REFBLOCK, (*ret)->offset, zeroes,
                                   s->refcount_cache.entry_bytes);
    return r ? r : qcow2_refcount_slice(s, index, ret, ret_entry);
}

/* One slice's part of a change: *ret_done clusters. */
static int add_in_slice(struct qcow2 *s, uint64_t index, uint64_t count, int addend,
                        uint64_t *ret_done)
{
    struct qcow2_table *t;
    uint64_t entry;
    int r = addend > 0 ? slice_to_raise(s, index, &t, &entry)
                       : qcow2_refcount_slice(s, index, &t, &entry);
    if (!r && !t)
        r = qcow2_corrupt(s, true, (int64_t)(index << s->cluster_bits), s->cluster_bytes,
                          "a cluster in use has no refcount block");
    if (!r)
        r = qcow2_cache_change(&s->refcount_cache, t);
    if (r)
        return r;
    uint64_t n = min_u64(count, slice_entries(s) - entry);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t v = qcow2_refcount_read(t->data, s->refcount_order, entry + i);
        if (addend < 0 ? v < (uint64_t)-addend : v > s->refcount_max - (uint64_t)addend) {
            *ret_done = i;
            return addend > 0 ? -EINVAL
                              : qcow2_corrupt(s, true, (int64_t)((index + i) << s->cluster_bits),
                                              s->cluster_bytes, "a refcount would fall below zero");
        }
        qcow2_refcount_write(t->data, s->refcount_order, entry + i, v + (uint64_t)(int64_t)addend);
        if (v + (uint64_t)(int64_t)addend == 0)
            cluster_freed(s, index + i);
    }
    *ret_done = n;
    return 0;
}

int qcow2_refcount_add_locked(struct qcow2 *s, uint64_t index, uint64_t count, int addend)
{
    uint64_t done = 0;
    int r = 0;
    while (done < count && !r) {
        uint64_t n = 0;
        r = add_in_slice(s, index + done, count - done, addend, &n);
        done += n;
    }
    if (r == -EINVAL) {
        uint64_t back = 0, n;
        while (back < done && !add_in_slice(s, index + back, done - back, -addend, &n))
            back += n;
    }
    return r;
}

int qcow2_refcount_add(struct qcow2 *s, uint64_t off, uint64_t len, int addend)
{
    if (!len)
        return 0;
    uint64_t first = off >> s->cluster_bits, last = (off + len - 1) >> s->cluster_bits;
    fiber_mutex_lock(&s->alloc_lock);
    int r = qcow2_refcount_add_locked(s, first, last - first + 1, addend);
    fiber_mutex_unlock(&s->alloc_lock);
    return r;
}

/* ---- finding free clusters ---- */

/* From *index on: the slice that holds it; a block is made where there is none. */
static int slice_for_search(struct qcow2 *s, uint64_t index, struct qcow2_table **ret,
                            uint64_t *ret_entry)
{
    if (index > CLUSTER_INDEX_MAX(s))
        return -EFBIG;
    return slice_to_raise(s, index, ret, ret_entry);
}

static uint64_t count_free(const struct qcow2 *s, const struct qcow2_table *t, uint64_t entry,
                           uint64_t most)
{
    uint64_t n = 0, left = slice_entries(s) - entry;
    while (n < most && n < left && !qcow2_refcount_read(t->data, s->refcount_order, entry + n))
        n++;
    return n;
}

static void take_fresh(struct qcow2 *s, uint64_t index, uint64_t count, bool *ret_fresh)
{
    uint64_t off = index << s->cluster_bits, end = (index + count) << s->cluster_bits;
    *ret_fresh = off >= s->fresh_offset;
    if (end > s->fresh_offset)
        s->fresh_offset = end;
}

/* The first free run of 1 to `want` clusters, taken. */
static int take_run(struct qcow2 *s, uint64_t want, uint64_t *ret_index, uint64_t *ret_count)
{
    uint64_t index = s->free_index,
             low = index; /* a growing refcount table may free its old place below */
    for (;;) {
        struct qcow2_table *t;
        uint64_t entry;
        int r = slice_for_search(s, index, &t, &entry);
        if (r)
            return r;
        uint64_t per = slice_entries(s);
        while (entry < per && qcow2_refcount_read(t->data, s->refcount_order, entry)) {
            entry++;
            index++;
        }
        if (s->free_index == low)
            s->free_index = low = index;
        if (entry == per)
            continue;
        uint64_t n = count_free(s, t, entry, want);
        r = qcow2_cache_change(&s->refcount_cache, t);
        if (r)
            return r;
        for (uint64_t i = 0; i < n; i++)
            qcow2_refcount_write(t->data, s->refcount_order, entry + i, 1);
        if (s->free_index == low)
            s->free_index = index + n;
        *ret_index = index;
        *ret_count = n;
        return 0;
    }
}

int qcow2_alloc_run(struct qcow2 *s, uint64_t want, uint64_t *ret_offset, uint64_t *ret_count,
                    bool *ret_fresh)
{
    uint64_t index;
    fiber_mutex_lock(&s->alloc_lock);
    int r = take_run(s, want, &index, ret_count);
    if (!r) {
        take_fresh(s, index, *ret_count, ret_fresh);
        *ret_offset = index << s->cluster_bits;
    }
    fiber_mutex_unlock(&s->alloc_lock);
    return r ? r : qcow2_check_overlap(s, 0, *ret_offset, *ret_count << s->cluster_bits);
}

/* The first `count` free clusters in a row; making blocks on the way may take some of them: then it
 * goes on behind. */
static int find_exact(struct qcow2 *s, uint64_t count, uint64_t *ret_index)
{
    uint64_t start = s->free_index, have = 0;
    while (have < count) {
        struct qcow2_table *t;
        uint64_t entry;
        int r = slice_for_search(s, start + have, &t, &entry);
        if (r)
            return r;
        uint64_t left = slice_entries(s) - entry, most = min_u64(left, count - have);
        uint64_t n = count_free(s, t, entry, most);
        have += n;
        if (n == most)
            continue;
        start += have + 1; /* behind the one in use */
        have = 0;
    }
    *ret_index = start;
    return 0;
}

int qcow2_alloc_bytes(struct qcow2 *s, uint64_t bytes, uint64_t *ret_offset)
{
    uint64_t count = (bytes + s->cluster_bytes - 1) >> s->cluster_bits, index, low;
    bool fresh;
    fiber_mutex_lock(&s->alloc_lock);
    int r = find_exact(s, count, &index);
    low = s->free_index;
    if (!r)
        r = qcow2_refcount_add_locked(s, index, count, 1);
    if (!r) {
        take_fresh(s, index, count, &fresh);
        if (low == index)
            s->free_index = index + count;
        *ret_offset = index << s->cluster_bits;
    }
    fiber_mutex_unlock(&s->alloc_lock);
    return r ? r : qcow2_check_overlap(s, 0, *ret_offset, bytes);
}

/* ---- compressed data: bytes packed one behind the other ---- */

/* A further item in the cluster that was begun: false when it can count no more. */
static bool share_begun(struct qcow2 *s)
{
    uint64_t index = (s->packed_offset - 1) >> s->cluster_bits;
    return !qcow2_refcount_add_locked(s, index, 1, 1);
}

static int alloc_packed_locked(struct qcow2 *s, uint32_t bytes, uint64_t *ret_offset)
{
    uint64_t begun = s->packed_offset;
    uint64_t room = begun ? align_up(begun, s->cluster_bytes) - begun : 0;
    if (room >= bytes && share_begun(s)) {
        *ret_offset = begun;
        s->packed_offset = begun + bytes;
        return 0;
    }
    uint64_t index, count;
    bool fresh;
    int r = take_run(s, 1, &index, &count);
    if (r)
        return r;
    take_fresh(s, index, 1, &fresh);
    uint64_t off = index << s->cluster_bits;
    /* Over the border, when the new cluster follows the one begun. */
    bool follows = room && begun == s->packed_offset && begun + room == off && share_begun(s);
    *ret_offset = follows ? begun : off;
    s->packed_offset = *ret_offset + bytes;
    return 0;
}

int qcow2_alloc_packed(struct qcow2 *s, uint32_t bytes, uint64_t *ret_offset)
{
    fiber_mutex_lock(&s->alloc_lock);
    int r = alloc_packed_locked(s, bytes, ret_offset);
    fiber_mutex_unlock(&s->alloc_lock);
    return r;
}

void qcow2_free_now(struct qcow2 *s, uint64_t off, uint64_t len)
{
    if (qcow2_refcount_add(s, off, len, -1))
        g_debug("'%s': clusters at 0x%" G_GINT64_MODIFIER "x leak", node_name(&s->node), off);
}
