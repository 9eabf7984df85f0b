/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writing: in place where the guest's clusters are ours alone, else into new ones, with what the
 * request leaves of them copied from where it was.
 *
 * A piece of a request that needs new clusters: registers its guest clusters (later writers to them
 * wait), takes a contiguous run, reads what is to be copied, writes head, data and tail in one
 * call, then links: L2 entries change in memory, and the clusters that they named before go to the
 * pending list. Nothing is copied, and the head and tail are not even written, where the old
 * contents are zeroes and the new clusters lie where the file was never written.
 *
 * Spec      qcow2, "Cluster mapping".
 * Thread    The node's home thread.
 */
#include "image/qcow2/internal.h"

#include <errno.h>
#include <string.h>

enum {
    IOV_MAX_JOINED = 64, /* of head, data and tail in one call; longer requests take three */
    PENDING_MAX = 4096,  /* ranges that wait for a commit */
};

/* One piece of a request in flight. */
struct place {
    struct qcow2 *s;
    struct qcow2_mapping old;
    struct qcow2_alloc alloc;
    uint64_t off; /* guest */
    struct vec v;
    uint64_t begin, end;         /* guest clusters that get the place */
    uint64_t host;               /* of `begin` */
    bool keep;                   /* the place was there: only its status changes */
    bool fresh;                  /* it reads as zero */
    bool whole;                  /* everything of the clusters becomes data (no subcluster stays) */
    uint64_t cow_begin, cow_end; /* guest: what becomes data */
    uint8_t *cow; /* contents of [cow_begin, cow_end) around the request; NULL: zeroes */
};

/* ---- contents around the request ---- */

static bool old_is_zero(const struct place *p)
{
    switch (p->old.kind) {
    case QCOW2_ZERO_PLAIN:
    case QCOW2_ZERO_PLACE:
        return true;
    case QCOW2_UNALLOCATED:
    case QCOW2_UNALLOCATED_PLACE: {
        struct node *backing = qcow2_backing(p->s);
        return !backing || p->cow_begin >= node_size(backing);
    }
    default:
        return false;
    }
}

static int cow_part(struct place *p, uint64_t begin, uint64_t end)
{
    struct iovec iov;
    if (begin == end)
        return 0;
    return qcow2_read_any(p->s, begin,
                          vec_flat(&iov, p->cow + (begin - p->cow_begin), end - begin));
}

/* Reads head and tail, as the guest sees them now; what proves to be zero is dropped again. */
static int cow_read(struct place *p)
{
    uint64_t head = p->off - p->cow_begin, tail = p->cow_end - (p->off + p->v.len);
    if ((!head && !tail) || (old_is_zero(p) && !p->whole))
        return 0;
    p->cow = g_try_malloc(p->cow_end - p->cow_begin);
    if (!p->cow)
        return -ENOMEM;
    int r = cow_part(p, p->cow_begin, p->off);
    if (!r)
        r = cow_part(p, p->off + p->v.len, p->cow_end);
    if (!r && bytes_are_zero(p->cow, head) &&
        bytes_are_zero(p->cow + (p->cow_end - p->cow_begin - tail), tail))
        g_clear_pointer(&p->cow, g_free);
    return r;
}

/* ---- the bytes ---- */

static int write_host(struct qcow2 *s, uint64_t host, struct vec v, unsigned flags)
{
    if (!v.len)
        return 0;
    int r = s->data_external ? 0 : qcow2_check_overlap(s, 0, host, v.len);
    if (unlikely(r))
        return r;
    return unlikely(s->luks) ? qcow2_crypt_write(s, host, v)
                             : node_write(qcow2_data(s), host, v, flags);
}

static uint8_t zeroes[64 * KIB]; /* never written */

/* Zeroes in several calls, for clusters beyond the one buffer. */
static int zero_host(struct qcow2 *s, uint64_t host, uint64_t len)
{
    struct iovec iov;
    for (uint64_t at = 0; at < len;) {
        uint64_t n = min_u64(len - at, sizeof(zeroes));
        int r = write_host(s, host + at, vec_flat(&iov, zeroes, n), 0);
        if (r)
            return r;
        at += n;
    }
    return 0;
}

/* Too many vectors, or too much, for one call. */
static int write_apart(struct place *p, uint64_t head, uint64_t tail)
{
    struct qcow2 *s = p->s;
    struct iovec iov;
    uint64_t host = p->host + (p->cow_begin - p->begin), behind = host + head + p->v.len;
    uint8_t *tail_bytes = p->cow ? p->cow + (p->cow_end - p->cow_begin - tail) : NULL;
    int r = p->cow ? write_host(s, host, vec_flat(&iov, p->cow, head), 0)
                   : zero_host(s, host, head);
    if (!r)
        r = write_host(s, host + head, p->v, 0);
    if (!r)
        r = p->cow ? write_host(s, behind, vec_flat(&iov, tail_bytes, tail), 0)
                   : zero_host(s, behind, tail);
    return r;
}

static int write_joined(struct place *p, uint64_t head, uint64_t tail)
{
    struct iovec iov[IOV_MAX_JOINED];
    size_t len;
    unsigned n = 0;
    const uint8_t *tail_bytes = p->cow ? p->cow + (p->cow_end - p->cow_begin - tail) : zeroes;
    if (head)
        iov[n++] = (struct iovec){.iov_base = (void *)(p->cow ? p->cow : zeroes), .iov_len = head};
    n += vec_to_iov(p->v, iov + n, IOV_MAX_JOINED - 2, &len);
    if (len < p->v.len)
        return write_apart(p, head, tail);
    if (tail)
        iov[n++] = (struct iovec){.iov_base = (void *)tail_bytes, .iov_len = tail};
    return write_host(p->s, p->host + (p->cow_begin - p->begin), vec_of(iov, n),
                      p->fresh ? NODE_FRESH : 0);
}

static int write_bytes(struct place *p)
{
    uint64_t head = p->off - p->cow_begin, tail = p->cow_end - (p->off + p->v.len);
    if ((!head && !tail) || (!p->cow && p->fresh && !p->s->luks))
        return write_host(p->s, p->host + (p->off - p->begin), p->v,
                          p->fresh ? NODE_FRESH : 0);
    if (!p->cow && (head > sizeof(zeroes) || tail > sizeof(zeroes)))
        return write_apart(p, head, tail);
    return write_joined(p, head, tail);
}

/* ---- linking ---- */

/* Bits of the subclusters of the cluster at guest offset `at` that [cow_begin, cow_end) covers. */
static uint64_t covered_bits(const struct place *p, uint64_t at)
{
    const struct qcow2 *s = p->s;
    uint64_t begin = max_u64(at, p->cow_begin) - at;
    uint64_t end = min_u64(at + s->cluster_bytes, p->cow_end) - at;
    uint64_t low = begin >> s->subcluster_bits, high = end >> s->subcluster_bits;
    return ((1ULL << high) - 1) & ~((1ULL << low) - 1);
}

static uint64_t linked_bitmap(const struct place *p, uint64_t at, uint64_t old)
{
    if (!p->s->extended_l2)
        return 0;
    uint64_t bits = covered_bits(p, at);
    return p->whole ? QCOW2_BITMAP_ALL_ALLOCATED : (old | bits) & ~(bits << QCOW2_SUBCLUSTERS);
}

/* Never waits once it has the slice: all entries change at one moment. */
static int link_entries(struct place *p)
{
    struct qcow2 *s = p->s;
    struct qcow2_table *t;
    unsigned index;
    int r = qcow2_l2_writable(s, p->begin, &t, &index);
    if (!r)
        r = qcow2_cache_change(&s->l2_cache, t);
    if (r)
        return r;
    for (uint64_t at = p->begin; at < p->end; at += s->cluster_bytes, index++) {
        uint64_t old = qcow2_l2_entry(s, t, index), bitmap = qcow2_l2_bitmap(s, t, index);
        uint64_t host = p->host + (at - p->begin);
        qcow2_l2_set(s, t, index, host | QCOW2_COPIED, linked_bitmap(p, at, bitmap));
        if (!p->keep)
            qcow2_l2_release(s, old, QCOW2_DISCARD_OTHER);
    }
    return 0;
}

/* ---- a piece ---- */

static bool has_own_place(const struct qcow2_mapping *m)
{
    return m->copied && (m->kind == QCOW2_ZERO_PLACE || m->kind == QCOW2_UNALLOCATED_PLACE);
}

/* Data of the old cluster, other than what the request covers, must come along. */
static bool takes_whole(const struct place *p)
{
    const struct qcow2 *s = p->s;
    return !p->keep && s->extended_l2 &&
           ((p->old.entry & QCOW2_OFFSET_MASK) || p->old.kind == QCOW2_PACKED);
}

static void plan_cow(struct place *p)
{
    const struct qcow2 *s = p->s;
    uint64_t grain = p->whole ? s->cluster_bytes : s->subcluster_bytes;
    p->cow_begin = align_down(p->off, grain);
    p->cow_end = align_up(p->off + p->v.len, grain);
}

/* Host clusters for [begin, end), which shrinks to what there is in a row. */
static int take_clusters(struct place *p)
{
    struct qcow2 *s = p->s;
    uint64_t count = (p->end - p->begin) >> s->cluster_bits;
    if (p->keep) {
        p->host = p->old.host - (p->off - p->begin);
        return 0;
    }
    if (s->data_external) {
        p->host = p->begin;
        return 0;
    }
    int r = qcow2_alloc_run(s, count, &p->host, &count, &p->fresh);
    if (r)
        return r;
    p->end = p->begin + (count << s->cluster_bits);
    if (p->off + p->v.len > p->end)
        p->v = vec_slice(p->v, 0, p->end - p->off);
    return 0;
}

static int place_run(struct place *p)
{
    struct qcow2 *s = p->s;
    int r = qcow2_mark_dirty(s);
    if (!r)
        r = take_clusters(p);
    if (r)
        return r;
    plan_cow(p);
    r = cow_read(p);
    if (!r)
        r = write_bytes(p);
    if (!r)
        r = link_entries(p);
    g_free(p->cow);
    if (r && !p->keep && !s->data_external)
        qcow2_free_now(s, p->host, p->end - p->begin);
    return r;
}

/* The run that `m` found at off needs a place: *ret_done bytes were written, or 0: look up again.
 */
static int write_placed(struct qcow2 *s, const struct qcow2_mapping *m, uint64_t off, struct vec v,
                        size_t *ret_done)
{
    uint64_t len = min_u64(m->len, qcow2_slice_end(s, off) - off);
    struct place p = {.s = s, .old = *m, .off = off, .v = vec_slice(v, 0, len)};
    p.begin = align_down(off, s->cluster_bytes);
    p.end = align_up(off + len, s->cluster_bytes);
    *ret_done = 0;
    struct qcow2_alloc *other = qcow2_alloc_find(s, p.begin, p.end);
    if (other && other->begin <= p.begin) {
        fiber_queue_wait(&other->waiters);
        return 0;
    }
    if (other) {
        p.end = other->begin;
        p.v = vec_slice(v, 0, min_u64(len, p.end - off));
    }
    p.keep = has_own_place(m);
    p.whole = takes_whole(&p);
    qcow2_alloc_begin(s, &p.alloc, p.begin, p.end);
    int r = place_run(&p);
    qcow2_alloc_end(s, &p.alloc);
    if (!r)
        *ret_done = p.v.len;
    return r;
}

static int write_in_place(struct qcow2 *s, uint64_t host, struct vec v)
{
    unsigned e = qcow2_enter(s);
    int r = write_host(s, host, v, 0);
    qcow2_leave(s, e);
    return r;
}

int qcow2_write_any(struct qcow2 *s, uint64_t off, struct vec v)
{
    while (v.len) {
        struct qcow2_mapping m;
        size_t done;
        int r = qcow2_lookup(s, off, v.len, &m);
        if (unlikely(r))
            return r;
        if (likely(m.kind == QCOW2_NORMAL && m.copied)) {
            done = m.len;
            r = write_in_place(s, m.host, done == v.len ? v : vec_slice(v, 0, done));
            if (done == v.len)
                return r;
        } else {
            r = write_placed(s, &m, off, v, &done);
        }
        if (r)
            return r;
        off += done;
        v = vec_slice(v, done, v.len - done);
    }
    return 0;
}

int qcow2_write(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    struct qcow2 *s = qcow2_of(n);
    if (unlikely(qcow2_pending_count(s) > PENDING_MAX)) {
        int r = qcow2_commit_and_free(s);
        if (r)
            return r;
    }
    return unlikely(flags & NODE_COMPRESSED) ? qcow2_packed_write(s, off, v)
                                             : qcow2_write_any(s, off, v);
}
