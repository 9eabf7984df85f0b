/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Growing, shrinking and preallocation.
 *
 * Growing makes what lies behind the old end read as zero first, then writes the new size.
 * Shrinking writes the new size first, then gives up what lies behind: a crash in between leaves
 * clusters there, which the next growth drops.
 *
 * Thread    The node's home thread; no request is in flight at the node.
 * Errors    Sentences with file and sizes.
 */
#include "image/qcow2/internal.h"

#include <errno.h>
#include <inttypes.h>

#define ZERO_PIECE (64 * KIB)

/* ---- preallocation ---- */

static bool wants_place(const struct qcow2_mapping *m)
{
    return m->kind == QCOW2_UNALLOCATED || m->kind == QCOW2_ZERO_PLAIN;
}

static int take_run(struct qcow2 *s, uint64_t off, uint64_t want, uint64_t *ret_host,
                    uint64_t *ret_count, bool *ret_fresh)
{
    if (!s->data_external)
        return qcow2_alloc_run(s, want, ret_host, ret_count, ret_fresh);
    *ret_host = off;
    *ret_count = want;
    *ret_fresh = true;
    return 0;
}

/* Blocks for a run, at once: a table that is put behind it makes the file longer than its end. */
static int give_blocks(struct node *data, uint64_t host, uint64_t len, enum image_prealloc p)
{
    uint64_t size = node_size(data), end = host + len;
    int r = host < size ? node_zero(data, host, min_u64(size, end) - host, 0) : 0;
    if (r || end <= size)
        return r;
    return node_resize(data, end, p, NULL) ? 0 : -ENOSPC;
}

/* Clusters [off, off + len) of one slice, none of which has a place. *ret_done of them have one
 * now. */
static int place_run(struct qcow2 *s, uint64_t off, uint64_t len, enum image_prealloc p,
                     uint64_t *ret_done, uint64_t *end)
{
    struct qcow2_table *t;
    unsigned index;
    uint64_t host, count = len >> s->cluster_bits;
    bool fresh;
    int r = take_run(s, off, count, &host, &count, &fresh);
    if (r)
        return r;
    *ret_done = count << s->cluster_bits;
    if (p == PREALLOC_FALLOC || p == PREALLOC_FULL)
        r = give_blocks(qcow2_data(s), host, *ret_done, p);
    if (!r && s->header.version < 3 && !fresh)
        r = node_zero(qcow2_file(s), host, *ret_done, 0); /* no zero clusters to say it with */
    if (!r)
        r = qcow2_l2_writable(s, off, &t, &index);
    if (!r)
        r = qcow2_cache_change(&s->l2_cache, t);
    if (r)
        return r;
    /* A subcluster's bitmap says the same as before: zero, or the backing file. */
    bool says_zero = !fresh && s->header.version >= 3 && !s->extended_l2;
    for (uint64_t i = 0; i < count; i++)
        qcow2_l2_set(s, t, index + i,
                     (host + (i << s->cluster_bits)) | QCOW2_COPIED | (says_zero ? QCOW2_ZERO : 0),
                     qcow2_l2_bitmap(s, t, index + i));
    *end = max_u64(*end, host + *ret_done);
    return 0;
}

bool qcow2_preallocate(struct qcow2 *s, uint64_t off, uint64_t len, enum image_prealloc p,
                       GError **error)
{
    uint64_t stop = align_up(off + len, s->cluster_bytes), host_end = 0;
    int r = p == PREALLOC_OFF ? 0 : qcow2_mark_dirty(s);
    for (uint64_t at = align_down(off, s->cluster_bytes); p != PREALLOC_OFF && !r && at < stop;) {
        struct qcow2_mapping m;
        uint64_t done = 0;
        r = qcow2_lookup(s, at, min_u64(stop, qcow2_slice_end(s, at)) - at, &m);
        if (r)
            break;
        m.len = align_up(m.len, s->cluster_bytes);
        if (wants_place(&m))
            r = place_run(s, at, m.len, p, &done, &host_end);
        else
            done = m.len;
        at += done;
    }
    if (r)
        return ruche_error_errno(error, -r, "'%s': clusters cannot be preallocated",
                                 s->node.filename);
    struct node *data = qcow2_data(s);
    enum image_prealloc below = p == PREALLOC_METADATA ? PREALLOC_OFF : p;
    return host_end <= node_size(data) || node_resize(data, host_end, below, error);
}

/* ---- growing ---- */

static int write_zeroes(struct qcow2 *s, uint64_t begin, uint64_t end)
{
    uint8_t *zeroes = g_try_malloc0(ZERO_PIECE);
    struct iovec iov;
    int r = zeroes ? 0 : -ENOMEM;
    for (uint64_t at = begin; !r && at < end;) {
        uint64_t n = min_u64(end - at, ZERO_PIECE);
        r = qcow2_write_any(s, at, vec_flat(&iov, zeroes, n));
        at += n;
    }
    g_free(zeroes);
    return r;
}

/* The rest of the cluster that the old end cuts. */
static int zero_cut_cluster(struct qcow2 *s, uint64_t old, uint64_t end)
{
    struct qcow2_mapping m;
    struct node *backing = qcow2_backing(s);
    for (uint64_t at = old; at < end; at += m.len) {
        int r = qcow2_lookup(s, at, end - at, &m);
        bool nothing = m.kind == QCOW2_UNALLOCATED || m.kind == QCOW2_UNALLOCATED_PLACE;
        if (!r && (m.kind == QCOW2_NORMAL || m.kind == QCOW2_PACKED ||
                   (nothing && backing && at < node_size(backing))))
            r = write_zeroes(s, at, at + m.len);
        if (r)
            return r;
    }
    return 0;
}

/* Everything behind the old end reads as zero once the size says that it is there. */
static int clear_behind(struct qcow2 *s, uint64_t old, uint64_t size)
{
    struct node *backing = qcow2_backing(s);
    uint64_t whole = align_up(old, s->cluster_bytes);
    int r = zero_cut_cluster(s, old, min_u64(whole, align_up(size, 512)));
    if (!r && whole < size)
        r = qcow2_drop_range(s, whole, size - whole, QCOW2_DISCARD_OTHER);
    uint64_t shows = backing ? min_u64(size, node_size(backing)) : 0;
    if (!r && whole < shows)
        r = s->header.version >= 3 ? qcow2_zero_range(s, whole, align_up(shows, s->cluster_bytes))
                                   : write_zeroes(s, whole, shows);
    return r;
}

static int write_size(struct qcow2 *s, uint64_t size)
{
    uint64_t old = s->header.size_bytes;
    s->header.size_bytes = size;
    int r = qcow2_header_write_fields(s);
    if (!r)
        r = qcow2_meta_sync(s);
    if (r) {
        s->header.size_bytes = old;
        return r;
    }
    s->node.size_bytes = size;
    return 0;
}

static bool grow(struct qcow2 *s, uint64_t size, enum image_prealloc p, GError **error)
{
    uint64_t old = s->header.size_bytes, per_l1 = (uint64_t)s->cluster_bytes << s->l2_bits;
    uint64_t l1 = size / per_l1 + !!(size % per_l1);
    if (l1 > QCOW2_L1_BYTES_MAX / 8)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s': %" PRIu64 " bytes are too much for clusters of %u bytes; %" PRIu64
                           " is the most",
                           s->node.filename, size, s->cluster_bytes,
                           (uint64_t)(QCOW2_L1_BYTES_MAX / 8 * per_l1));
    if (s->data_external && node_size(qcow2_data(s)) < size &&
        !node_resize(qcow2_data(s), size, p == PREALLOC_METADATA ? PREALLOC_OFF : p, error))
        return false;
    int r = qcow2_l1_grow(s, l1);
    if (!r)
        r = clear_behind(s, old, size);
    if (!r)
        r = qcow2_commit(s, true);
    if (!r)
        r = write_size(s, size);
    if (r)
        return ruche_error_errno(error, -r, "'%s' cannot grow to %" PRIu64 " bytes",
                                 s->node.filename, size);
    return qcow2_preallocate(s, old, size - old, p, error);
}

/* ---- shrinking ---- */

/* The file ends with the last cluster in use. */
static int cut_file(struct qcow2 *s)
{
    uint64_t size = node_size(qcow2_file(s)), count;
    uint64_t clusters = align_up(size, s->cluster_bytes) >> s->cluster_bits, used = clusters;
    for (; used; used--) {
        int r = qcow2_refcount_get(s, used - 1, &count);
        if (r)
            return r;
        if (count)
            break;
    }
    if (used && used < clusters) /* a device keeps its size: no error */
        node_resize(qcow2_file(s), used << s->cluster_bits, PREALLOC_OFF, NULL);
    return 0;
}

static bool shrink(struct qcow2 *s, uint64_t size, GError **error)
{
    uint64_t all = (uint64_t)s->header.l1_count << (s->l2_bits + s->cluster_bits);
    uint64_t begin = align_up(size, s->cluster_bytes);
    int r = qcow2_commit(s, true);
    if (!r)
        r = write_size(s, size);
    if (!r && begin < all)
        r = qcow2_drop_range(s, begin, all - begin, QCOW2_DISCARD_OTHER);
    if (!r)
        r = qcow2_commit_and_free(s);
    if (!r && s->data_raw && !node_resize(qcow2_data(s), size, PREALLOC_OFF, error))
        return false;
    if (!r)
        r = cut_file(s);
    return !r || ruche_error_errno(error, -r, "'%s' cannot shrink to %" PRIu64 " bytes",
                                   s->node.filename, size);
}

bool qcow2_resize(struct node *n, uint64_t size, enum image_prealloc p, GError **error)
{
    struct qcow2 *s = qcow2_of(n);
    if (size % 512)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s': the new size of %" PRIu64 " bytes is not a multiple of 512",
                           n->filename, size);
    if (s->header.snapshot_count && s->header.version < 3)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "'%s' is of version 2 and has snapshots, which do not know their size: "
                           "it cannot be resized",
                           n->filename);
    if (size < n->size_bytes && p != PREALLOC_OFF)
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s': shrinking takes no preallocation",
                           n->filename);
    if (p != PREALLOC_OFF && qcow2_backing(s) && !s->extended_l2 &&
        node_size(qcow2_backing(s)) > n->size_bytes)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "'%s': preallocation would hide its backing file; it needs extended_l2",
                           n->filename);
    if (!qcow2_bitmaps_fit(s, size, error))
        return false;
    if (size > n->size_bytes)
        return grow(s, size, p, error);
    return size == n->size_bytes || shrink(s, size, error);
}
