/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What follows from header and options: the sizes of tables, slices and caches.
 *
 * Thread    The node's home thread, at open.
 * Errors    Sentences with option, value and limit.
 */
#include "image/qcow2/internal.h"

#include <errno.h>

#define L2_CACHE_BYTES_MAX   (32 * MIB) /* unless options say more */
#define REFCOUNT_CACHE_BYTES (256 * KIB)

enum { SLICE_BYTES = 4096, SLICE_BYTES_MIN = 512 };

void qcow2_geometry(struct qcow2 *s)
{
    const struct qcow2_header *h = &s->header;
    s->cluster_bits = h->cluster_bits;
    s->cluster_bytes = 1U << h->cluster_bits;
    s->extended_l2 = h->incompatible & QCOW2_INCOMPAT_EXTL2;
    s->subcluster_bits = s->cluster_bits - (s->extended_l2 ? 5 : 0);
    s->subcluster_bytes = 1U << s->subcluster_bits;
    s->l2_entry_bytes = s->extended_l2 ? 16 : 8;
    s->l2_bits = s->cluster_bits - (s->extended_l2 ? 4 : 3);
    s->refcount_order = h->refcount_order;
    s->refblock_bits = s->cluster_bits + 3 - h->refcount_order;
    s->refcount_max = h->refcount_order == 6 ? INT64_MAX : (1ULL << (1U << h->refcount_order)) - 1;
}

/* Enough for every L2 entry of the disk. */
static uint64_t l2_need(const struct qcow2 *s)
{
    uint64_t clusters = (s->header.size_bytes >> s->cluster_bits) + 1;
    return align_up(clusters * s->l2_entry_bytes, s->cluster_bytes);
}

static bool check_sizes(const struct qcow2 *s, GError **error)
{
    uint64_t all = s->opt.cache_bytes, l2 = s->opt.l2_cache_bytes,
             ref = s->opt.refcount_cache_bytes;
    if (all && l2 && ref)
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time");
    if (all && (l2 > all || ref > all))
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "%s of %" G_GUINT64_FORMAT " bytes may not exceed cache-size of %" G_GUINT64_FORMAT,
            l2 > all ? "l2-cache-size" : "refcount-cache-size", l2 > all ? l2 : ref, all);
    return true;
}

static void choose_sizes(const struct qcow2 *s, uint64_t *ret_l2, uint64_t *ret_ref)
{
    uint64_t all = s->opt.cache_bytes, l2 = s->opt.l2_cache_bytes,
             ref = s->opt.refcount_cache_bytes;
    if (all && !l2 && !ref)
        ref = min_u64(all / 4, REFCOUNT_CACHE_BYTES);
    if (all && !l2)
        l2 = all - ref;
    if (all && !ref)
        ref = all - l2;
    *ret_l2 = l2 ? l2 : L2_CACHE_BYTES_MAX;
    *ret_l2 = min_u64(*ret_l2, l2_need(s));
    *ret_ref = ref ? ref : REFCOUNT_CACHE_BYTES;
}

bool qcow2_caches_open(struct qcow2 *s, GError **error)
{
    uint64_t slice = s->opt.l2_entry_bytes, l2, ref;
    if (!slice)
        slice = min_u64(s->cluster_bytes, SLICE_BYTES);
    if (!is_power_of_2(slice) || slice < SLICE_BYTES_MIN || slice > s->cluster_bytes)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "l2-cache-entry-size=%" G_GUINT64_FORMAT
                           " is not a power of two between %d and the cluster size (%u)",
                           slice, SLICE_BYTES_MIN, s->cluster_bytes);
    if (!check_sizes(s, error))
        return false;
    choose_sizes(s, &l2, &ref);
    s->slice_bits = (unsigned)__builtin_ctzll(slice / s->l2_entry_bytes);
    uint32_t ref_slice = (uint32_t)min_u64(s->cluster_bytes, SLICE_BYTES);
    if (!qcow2_cache_init(&s->l2_cache, s, (uint32_t)slice, l2) ||
        !qcow2_cache_init(&s->refcount_cache, s, ref_slice, ref))
        return ruche_error_errno(error, ENOMEM, "no memory for metadata caches");
    return true;
}
