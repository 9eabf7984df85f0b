/* SPDX-License-Identifier: GPL-2.0-or-later */
/* L2 entries: what they say, and runs of entries that say the same.
 *
 * Spec      qcow2, "Cluster mapping" and "Extended L2 Entries".
 * Thread    The node's home thread. The hot path is qcow2_lookup() with the slice in memory: it
 *           never waits and looks at no more entries than the request covers.
 * Trust     Entries are hostile: what cannot be is QCOW2_INVALID, and ends in node_corrupt().
 */
#include "image/qcow2/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { PACKED_SECTOR_BYTES = 512 };

static uint64_t load_be64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return __builtin_bswap64(v);
}

static void store_be64(uint8_t *p, uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(p, &v, sizeof(v));
}

uint64_t qcow2_l2_entry(const struct qcow2 *s, const struct qcow2_table *t, unsigned index)
{
    return load_be64(t->data + (size_t)index * s->l2_entry_bytes);
}

uint64_t qcow2_l2_bitmap(const struct qcow2 *s, const struct qcow2_table *t, unsigned index)
{
    return s->extended_l2 ? load_be64(t->data + (size_t)index * 16 + 8) : 0;
}

void qcow2_l2_set(struct qcow2 *s, struct qcow2_table *t, unsigned index, uint64_t entry,
                  uint64_t bitmap)
{
    uint8_t *p = t->data + (size_t)index * s->l2_entry_bytes;
    store_be64(p, entry);
    if (s->extended_l2)
        store_be64(p + 8, bitmap);
}

/* The entry names a place. In an external data file the first cluster is at offset 0. */
static bool has_place(const struct qcow2 *s, uint64_t entry)
{
    return (entry & QCOW2_OFFSET_MASK) || (s->data_external && (entry & QCOW2_COPIED));
}

static enum qcow2_kind subcluster_kind(uint64_t bitmap, unsigned sub, bool place)
{
    bool allocated = bitmap & QCOW2_BITMAP_ALLOCATED(sub), zero = bitmap & QCOW2_BITMAP_ZERO(sub);
    if (allocated)
        return zero || !place ? QCOW2_INVALID : QCOW2_NORMAL;
    if (zero)
        return place ? QCOW2_ZERO_PLACE : QCOW2_ZERO_PLAIN;
    return place ? QCOW2_UNALLOCATED_PLACE : QCOW2_UNALLOCATED;
}

enum qcow2_kind qcow2_kind_of(const struct qcow2 *s, uint64_t entry, uint64_t bitmap, unsigned sub)
{
    if (unlikely(entry & QCOW2_COMPRESSED))
        return bitmap || s->data_external ? QCOW2_INVALID : QCOW2_PACKED;
    bool place = has_place(s, entry);
    if (place && (entry & QCOW2_OFFSET_MASK & (s->cluster_bytes - 1)))
        return QCOW2_INVALID;
    if (s->extended_l2)
        return subcluster_kind(bitmap, sub, place);
    if (unlikely(entry & QCOW2_ZERO)) {
        if (s->header.version < 3)
            return QCOW2_INVALID;
        return place ? QCOW2_ZERO_PLACE : QCOW2_ZERO_PLAIN;
    }
    return place ? QCOW2_NORMAL : QCOW2_UNALLOCATED;
}

void qcow2_packed_place(const struct qcow2 *s, uint64_t entry, uint64_t *ret_off, uint32_t *ret_len)
{
    unsigned bits = 62 - (s->cluster_bits - 8);
    uint64_t off = entry & ((1ULL << bits) - 1);
    uint64_t sectors = (entry >> bits) & ((1ULL << (62 - bits)) - 1);
    *ret_off = off;
    *ret_len = (uint32_t)((sectors + 1) * PACKED_SECTOR_BYTES - (off & (PACKED_SECTOR_BYTES - 1)));
}

void qcow2_l2_release(struct qcow2 *s, uint64_t entry, enum qcow2_discard how)
{
    uint64_t off = entry & QCOW2_OFFSET_MASK;
    if (s->data_external)
        return;
    if (entry & QCOW2_COMPRESSED) {
        uint32_t len;
        qcow2_packed_place(s, entry, &off, &len);
        qcow2_free_later(s, off, len, how);
    } else if (off && !(off & (s->cluster_bytes - 1))) {
        qcow2_free_later(s, off, s->cluster_bytes, how);
    }
}

/* ---- look-up ---- */

int qcow2_l2_find(struct qcow2 *s, uint64_t off, struct qcow2_table **ret, unsigned *ret_index)
{
    uint64_t l1_index = off >> (s->cluster_bits + s->l2_bits);
    uint64_t l2 = l1_index < s->header.l1_count ? s->l1[l1_index] & QCOW2_OFFSET_MASK : 0;
    *ret = NULL;
    if (!l2)
        return 0;
    if (unlikely(l2 & (s->cluster_bytes - 1)))
        return qcow2_corrupt(s, true, -1, 0,
                             "L1 entry %" PRIu64 " has the unaligned offset 0x%" PRIx64, l1_index,
                             l2);
    uint64_t index = (off >> s->cluster_bits) & ((1ULL << s->l2_bits) - 1);
    uint64_t slice = index >> s->slice_bits;
    *ret_index = index & ((1U << s->slice_bits) - 1);
    return qcow2_cache_get(&s->l2_cache, l2 + slice * s->l2_cache.entry_bytes, ret);
}

/* Without an L2 table: as far as the next L1 entry that has one. */
static void lookup_empty(const struct qcow2 *s, uint64_t off, uint64_t len,
                         struct qcow2_mapping *ret)
{
    unsigned bits = s->cluster_bits + s->l2_bits;
    uint64_t index = off >> bits, end = off + len, at = (index + 1) << bits;
    while (at < end && ++index < s->header.l1_count && !(s->l1[index] & QCOW2_OFFSET_MASK))
        at += 1ULL << bits;
    if (index >= s->header.l1_count)
        at = end;
    *ret = (struct qcow2_mapping){.kind = QCOW2_UNALLOCATED, .len = min_u64(at, end) - off};
}

/* How many subclusters from `sub` on are of that kind. */
static unsigned sub_run(const struct qcow2 *s, uint64_t entry, uint64_t bitmap, unsigned sub,
                        enum qcow2_kind kind)
{
    unsigned n = 1;
    while (sub + n < QCOW2_SUBCLUSTERS && qcow2_kind_of(s, entry, bitmap, sub + n) == kind)
        n++;
    return n;
}

static bool follows(const struct qcow2 *s, const struct qcow2_mapping *m, uint64_t entry,
                    uint64_t host)
{
    switch (m->kind) {
    case QCOW2_NORMAL:
    case QCOW2_ZERO_PLACE:
    case QCOW2_UNALLOCATED_PLACE:
        return (entry & QCOW2_OFFSET_MASK) == host && !((entry ^ m->entry) & QCOW2_COPIED);
    default:
        return m->kind != QCOW2_PACKED;
    }
}

/* How many of the `most` entries behind p are the same but for the next place, or the same without
 * one: the bulk of most images, at a glance. */
static unsigned same_behind(const struct qcow2 *s, const uint8_t *p, uint64_t entry, unsigned most)
{
    uint64_t step = entry & QCOW2_OFFSET_MASK ? s->cluster_bytes : 0, want = entry + step;
    unsigned n = 0;
    if (s->extended_l2 || s->data_external || (entry & QCOW2_COMPRESSED))
        return 0;
    while (n < most && load_be64(p + (n + 1) * sizeof(uint64_t)) == want &&
           !((want ^ entry) & ~QCOW2_OFFSET_MASK)) {
        want += step;
        n++;
    }
    return n;
}

/* ret is set for its first cluster; takes in those behind that go on like it, up to `len`. */
static void extend(const struct qcow2 *s, const struct qcow2_table *t, unsigned index, uint64_t len,
                   struct qcow2_mapping *ret)
{
    unsigned count = 1U << s->slice_bits;
    unsigned most = (unsigned)min_u64(count - 1 - index, (len - ret->len) >> s->cluster_bits);
    unsigned same = same_behind(s, t->data + (size_t)index * s->l2_entry_bytes, ret->entry, most);
    uint64_t host = (ret->entry & QCOW2_OFFSET_MASK) + (uint64_t)(same + 1) * s->cluster_bytes;
    index += same;
    ret->len += (uint64_t)same * s->cluster_bytes;
    while (ret->len < len && ++index < count) {
        uint64_t entry = qcow2_l2_entry(s, t, index), bitmap = qcow2_l2_bitmap(s, t, index);
        if (qcow2_kind_of(s, entry, bitmap, 0) != ret->kind || !follows(s, ret, entry, host))
            break;
        host += s->cluster_bytes;
        unsigned n = s->extended_l2 ? sub_run(s, entry, bitmap, 0, ret->kind) : QCOW2_SUBCLUSTERS;
        if (n < QCOW2_SUBCLUSTERS) {
            ret->len += (uint64_t)n << s->subcluster_bits;
            break;
        }
        ret->len += s->cluster_bytes;
    }
    ret->len = min_u64(ret->len, len);
}

static int lookup_invalid(struct qcow2 *s, uint64_t off, uint64_t entry)
{
    return qcow2_corrupt(s, true, (int64_t)(entry & QCOW2_OFFSET_MASK), s->cluster_bytes,
                         "the L2 entry 0x%016" PRIx64 " of guest offset 0x%" PRIx64 " is invalid",
                         entry, off);
}

int qcow2_lookup(struct qcow2 *s, uint64_t off, uint64_t len, struct qcow2_mapping *ret)
{
    struct qcow2_table *t;
    unsigned index;
    int r = qcow2_l2_find(s, off, &t, &index);
    if (unlikely(r))
        return r;
    if (unlikely(!t)) {
        lookup_empty(s, off, len, ret);
        return 0;
    }
    uint64_t in_cluster = off & (s->cluster_bytes - 1);
    unsigned sub = s->extended_l2 ? (unsigned)(in_cluster >> s->subcluster_bits) : 0;
    uint64_t entry = qcow2_l2_entry(s, t, index), bitmap = qcow2_l2_bitmap(s, t, index);
    enum qcow2_kind kind = qcow2_kind_of(s, entry, bitmap, sub);
    if (unlikely(kind == QCOW2_INVALID))
        return lookup_invalid(s, off, entry);
    unsigned n = s->extended_l2 && kind != QCOW2_PACKED ? sub_run(s, entry, bitmap, sub, kind) : 0;
    uint64_t end = n ? (uint64_t)(sub + n) << s->subcluster_bits : s->cluster_bytes;
    bool place =
        kind == QCOW2_NORMAL || kind == QCOW2_ZERO_PLACE || kind == QCOW2_UNALLOCATED_PLACE;
    *ret = (struct qcow2_mapping){
        .kind = kind,
        .copied = entry & QCOW2_COPIED,
        .len = end - in_cluster,
        .host = place ? (entry & QCOW2_OFFSET_MASK) + in_cluster : 0,
        .entry = entry,
    };
    if (ret->len >= len || end < s->cluster_bytes) {
        ret->len = min_u64(ret->len, len);
        return 0;
    }
    extend(s, t, index, len, ret);
    return 0;
}
