/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The copying itself: fibers take pieces in turn (under a lock, as the map of the source may have
 * to be read), read them together, and start writing in order.
 *
 * Fiber     All of it.
 */
#include "img/copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES (512 * KIB) /* fits, times the usual 8 in flight, a processor's cache */
#define PIECE_MAX   (2 * MIB)
#define HOST_BYTES  (16 * MIB) /* of a piece that the file system copies */
#define MAP_STEP    (1 * GIB)
#define SECTOR      512

enum kind { KIND_DATA, KIND_ZERO, KIND_ABSENT };

struct run {
    const struct copy *c;
    struct fiber_mutex taking;
    uint64_t next;      /* first byte that nobody has taken */
    uint64_t known_end; /* `kind` is true of [next, known_end) */
    enum kind kind;
    unsigned source; /* that `next` lies in */
    uint64_t piece_bytes, unit;
    uint64_t done;          /* bytes, for progress */
    bool by_host;           /* so far, the file system copies what it is asked to */
    bool host_can;          /* and has done so */
    uint64_t tickets, turn; /* order of writes */
    struct fiber_queue turns;
    int64_t begin_ns; /* for the rate */
    GError *error;    /* the first; set: everybody ends */
};

struct piece {
    uint64_t off, len, ticket;
    unsigned source; /* that it begins in */
    enum kind kind;
};

static void fail(struct run *r, const struct piece *p, int err, const char *what)
{
    if (!r->error)
        ruche_error_errno(&r->error, err, "%s %" PRIu64 " bytes at byte %" PRIu64, what, p->len,
                          p->off);
    fiber_queue_wake_all(&r->turns);
}

/* ---- what comes next ---- */

static int map_layers(const struct copy_source *s, uint64_t at, uint64_t len,
                      struct image_extent *e)
{
    unsigned depth;
    struct node *base = s->base ? s->base : node_backing(node_skip_filters(s->node));
    int r = base ? node_map_chain(s->node, base, at, len, e, &depth)
                 : node_map(node_skip_filters(s->node), at, len, e);
    return r;
}

static enum kind kind_of(const struct run *r, unsigned flags)
{
    bool known = flags & (EXTENT_DATA | EXTENT_ZERO | EXTENT_ALLOCATED);
    if (r->c->layer && !(flags & EXTENT_ALLOCATED) && !(known && !(flags & EXTENT_ZERO)))
        return KIND_ABSENT;
    return flags & EXTENT_ZERO || !known ? KIND_ZERO : KIND_DATA;
}

/* Looks at the map of the source that r->next lies in. */
static int look(struct run *r)
{
    const struct copy *c = r->c;
    while (r->next >= c->sources[r->source].start + c->sources[r->source].len)
        r->source++;
    const struct copy_source *s = &c->sources[r->source];
    uint64_t at = s->offset + (r->next - s->start), left = s->start + s->len - r->next,
             size = node_size(s->node);
    struct image_extent e = {.len = left, .flags = EXTENT_ZERO};
    unsigned depth;
    int err = 0;
    if (at < size && !c->min_sparse && !c->layer)
        e = (struct image_extent){.len = min_u64(left, size - at), .flags = EXTENT_DATA};
    else if (at < size && c->layer)
        err = map_layers(s, at, min_u64(min_u64(left, size - at), MAP_STEP), &e);
    else if (at < size)
        err = node_map_chain(s->node, NULL, at, min_u64(min_u64(left, size - at), MAP_STEP), &e,
                             &depth);
    if (err < 0)
        return err;
    r->kind = kind_of(r, e.flags);
    if (!c->min_sparse && r->kind == KIND_ZERO)
        r->kind = KIND_DATA;
    r->known_end = r->next + e.len;
    return 0;
}

/* Compressed and cluster-wise writes take whole units: a unit that has data is data to its end. */
static void round_to_unit(struct run *r)
{
    uint64_t size = r->c->size_bytes, whole = align_down(r->known_end, r->unit);
    if (r->known_end == size || r->known_end == whole)
        return;
    if (r->kind != KIND_DATA && whole > r->next)
        r->known_end = whole;
    else if (r->kind != KIND_DATA && r->c->layer)
        return; /* what is absent must not be written */
    else {
        r->kind = KIND_DATA;
        r->known_end = min_u64(align_up(r->known_end, r->unit), size);
    }
}

static void advance(struct run *r, uint64_t bytes)
{
    r->done += bytes;
    progress_set(r->done, r->c->size_bytes);
}

/* How far both backing files are known to be zero from r->next on; 0: not known. */
static uint64_t zero_in_both(const struct run *r)
{
    struct node *const both[] = {r->c->old_backing, r->c->new_backing};
    uint64_t len = r->known_end - r->next;
    for (unsigned i = 0; i < ARRAY_COUNT(both); i++) {
        struct image_extent e;
        unsigned depth;
        uint64_t size = both[i] ? node_size(both[i]) : 0;
        if (r->next >= size)
            continue;
        if (node_map_chain(both[i], NULL, r->next, min_u64(len, size - r->next), &e, &depth) < 0 ||
            !(e.flags & EXTENT_ZERO))
            return 0;
        len = min_u64(len, e.len);
    }
    return len;
}

/* Bytes from r->next on that need no work. */
static uint64_t idle_bytes(const struct run *r)
{
    if (r->kind == KIND_ABSENT && r->c->rebase)
        return zero_in_both(r);
    bool idle = r->kind == KIND_ABSENT || (r->kind == KIND_ZERO && r->c->reads_zero);
    return idle ? r->known_end - r->next : 0;
}

static uint64_t piece_limit(const struct run *r)
{
    if (r->kind == KIND_ZERO)
        return MAP_STEP;
    uint64_t step = r->kind == KIND_DATA && r->by_host && r->host_can ? HOST_BYTES : r->piece_bytes;
    return step - r->next % step;
}

/* The next piece that needs work; false: none is left, or the run has failed. */
static bool take(struct run *r, struct piece *p)
{
    fiber_mutex_lock(&r->taking);
    while (!r->error && r->next < r->c->size_bytes) {
        if (r->next >= r->known_end) {
            int err = look(r);
            *p = (struct piece){.off = r->next, .len = r->c->size_bytes - r->next};
            if (err < 0) {
                fail(r, p, -err, "reading the map of");
                break;
            }
            if (!r->c->layer || r->c->compress)
                round_to_unit(r);
        }
        uint64_t limit = piece_limit(r);
        uint64_t idle = idle_bytes(r), len = idle ? idle : min_u64(r->known_end - r->next, limit);
        *p = (struct piece){.off = r->next, .len = len, .source = r->source, .kind = r->kind};
        r->next += len;
        if (!idle) {
            p->ticket = r->tickets++;
            fiber_mutex_unlock(&r->taking);
            return true;
        }
        advance(r, len);
    }
    fiber_mutex_unlock(&r->taking);
    return false;
}

/* ---- reading ---- */

static int read_node(struct node *n, uint64_t at, uint8_t *to, uint64_t len)
{
    uint64_t size = node_size(n), have = at < size ? min_u64(len, size - at) : 0;
    memset(to + have, 0, len - have);
    return have ? node_pread(n, at, to, have) : 0;
}

/* Sector by sector; what cannot be read is zero. */
static void read_salvaging(struct node *n, uint64_t at, uint8_t *to, uint64_t len)
{
    for (uint64_t i = 0; i < len; i += SECTOR) {
        uint64_t part = min_u64(SECTOR, len - i);
        if (read_node(n, at + i, to + i, part) >= 0)
            continue;
        img_warn("'%s': the sector at byte %" PRIu64 " cannot be read and is taken for zero",
                 node_filename(n), at + i);
        memset(to + i, 0, part);
    }
}

/* Across the ends of sources. */
static int read_piece(const struct run *r, const struct piece *p, uint8_t *buf)
{
    const struct copy *c = r->c;
    uint64_t done = 0;
    for (unsigned i = 0; i < c->source_count && done < p->len; i++) {
        const struct copy_source *s = &c->sources[i];
        uint64_t off = p->off + done;
        if (off >= s->start + s->len)
            continue;
        uint64_t part = min_u64(p->len - done, s->start + s->len - off),
                 at = s->offset + (off - s->start);
        int err = read_node(s->node, at, buf + done, part);
        if (err < 0 && !c->salvage)
            return err;
        if (err < 0)
            read_salvaging(s->node, at, buf + done, part);
        done += part;
    }
    return 0;
}

/* ---- writing ---- */

static void wait_turn(struct run *r, uint64_t ticket)
{
    while (r->turn != ticket && !r->error)
        fiber_queue_wait(&r->turns);
}

/* The next one may start; it runs when this fiber first waits, so writes start in order. */
static void pass_turn(struct run *r)
{
    r->turn++;
    fiber_queue_wake_all(&r->turns);
}

static int write_run(const struct run *r, uint64_t off, uint8_t *buf, uint64_t len, bool zero)
{
    const struct copy *c = r->c;
    struct iovec iov;
    if (zero && c->reads_zero)
        return 0;
    if (zero)
        return node_zero(c->target, off, len, c->write_flags | NODE_MAY_UNMAP);
    unsigned flags = c->write_flags | (c->compress ? NODE_COMPRESSED : 0) |
                     (c->reads_zero ? NODE_FRESH : 0);
    return node_write(c->target, off, vec_flat(&iov, buf, len), flags);
}

/* Data and zeroes in turns, seen in steps that begin at multiples of the step. */
static int write_pieces(const struct run *r, const struct piece *p, uint8_t *buf)
{
    if (!r->c->min_sparse)
        return write_run(r, p->off, buf, p->len, false);
    uint64_t step = max_u64(r->unit, r->c->min_sparse), begin = 0, at = 0;
    bool was_zero = false;
    while (at < p->len) {
        uint64_t len = min_u64(step - (p->off + at) % step, p->len - at);
        bool zero = bytes_are_zero(buf + at, len);
        if (zero != was_zero && at > begin) {
            int err = write_run(r, p->off + begin, buf + begin, at - begin, was_zero);
            if (err < 0)
                return err;
            begin = at;
        }
        was_zero = zero;
        at += len;
    }
    return write_run(r, p->off + begin, buf + begin, at - begin, was_zero);
}

/* ---- rebase: does the other backing file say the same? ---- */

static int read_backing(struct node *n, const struct piece *p, uint8_t *to)
{
    if (n)
        return read_node(n, p->off, to, p->len);
    memset(to, 0, p->len);
    return 0;
}

/* Writes what reads differently through the new backing file; zeroes too, as plain data: what marks
 * them could depend on the backing file. buf has room for two pieces. */
static int write_differences(const struct run *r, const struct piece *p, uint8_t *buf)
{
    uint8_t *other = buf + r->piece_bytes;
    struct iovec iov;
    int err = read_backing(r->c->old_backing, p, buf);
    if (err >= 0)
        err = read_backing(r->c->new_backing, p, other);
    for (uint64_t at = 0, len; err >= 0 && at < p->len; at += len) {
        len = min_u64(r->unit - (p->off + at) % r->unit, p->len - at);
        if (memcmp(buf + at, other + at, len))
            err = node_write(r->c->target, p->off + at, vec_flat(&iov, buf + at, len),
                             r->c->write_flags);
    }
    return err;
}

/* ---- one piece after the other ---- */

static void keep_rate(const struct run *r)
{
    if (!r->c->rate)
        return;
    int64_t due_ns = (int64_t)((double)r->done / (double)r->c->rate * NS_PER_SEC);
    int64_t ahead_ns = due_ns - (loop_now_ns() - r->begin_ns);
    if (ahead_ns > 0)
        context_sleep_ns(node_context(r->c->target), ahead_ns);
}

/* The file system copies or shares the whole piece. -ENOTSUP: it cannot, nothing is lost. */
static int copy_by_host(struct run *r, const struct piece *p)
{
    const struct copy *c = r->c;
    const struct copy_source *s = &c->sources[p->source];
    int err = 0;
    for (uint64_t done = 0; !err && done < p->len;) {
        struct image_extent e = {0};
        unsigned depth;
        uint64_t at = s->offset + (p->off + done - s->start), left = p->len - done;
        if (p->off + p->len > s->start + s->len || !range_fits(at, left, node_size(s->node)))
            return -ENOTSUP;
        err = node_map_chain(s->node, NULL, at, left, &e, &depth);
        bool plain =
            e.flags & EXTENT_OFFSET && !(e.flags & (EXTENT_ZERO | EXTENT_COMPRESSED)) && e.host;
        if (!err)
            err = plain ? node_copy_range(e.host, e.host_offset, c->target, p->off + done, e.len,
                                          !c->offload)
                        : -ENOTSUP;
        done += e.len;
    }
    r->by_host = r->by_host && err != -ENOTSUP;
    r->host_can = r->host_can || !err;
    return err;
}

/* Through memory, a buffer at a time; the first one may have been read already. */
static int copy_data(struct run *r, const struct piece *p, uint8_t *buf, bool have_first)
{
    int err = 0;
    for (uint64_t done = 0; !err && done < p->len; done += r->piece_bytes, have_first = false) {
        struct piece part = *p;
        part.off += done;
        part.len = min_u64(p->len - done, r->piece_bytes);
        err = have_first ? 0 : read_piece(r, &part, buf);
        if (!err)
            err = write_pieces(r, &part, buf);
    }
    return err;
}

static int do_piece(struct run *r, const struct piece *p, uint8_t *buf, bool by_host)
{
    if (p->kind == KIND_ZERO)
        return write_run(r, p->off, NULL, p->len, true);
    if (p->kind == KIND_ABSENT)
        return write_differences(r, p, buf);
    int err = by_host ? copy_by_host(r, p) : -ENOTSUP;
    return err == -ENOTSUP ? copy_data(r, p, buf, !by_host) : err;
}

static void copy_piece(struct run *r, const struct piece *p, uint8_t *buf)
{
    /* What was taken to be copied by the host, and is not, is larger than the buffer. */
    bool by_host = r->by_host || p->len > r->piece_bytes;
    int err = p->kind == KIND_DATA && !by_host ? read_piece(r, p, buf) : 0;
    if (err < 0) {
        fail(r, p, -err, "reading");
        return;
    }
    if (!r->c->any_order)
        wait_turn(r, p->ticket);
    if (r->error)
        return;
    if (!r->c->one_by_one)
        pass_turn(r);
    err = do_piece(r, p, buf, by_host);
    if (err < 0)
        fail(r, p, -err, by_host ? "copying" : "writing");
    if (r->c->one_by_one)
        pass_turn(r);
    advance(r, p->len);
    keep_rate(r);
}

static void worker(void *opaque)
{
    struct run *r = opaque;
    struct piece p;
    uint8_t *buf;
    if (posix_memalign((void **)&buf, 4096, r->piece_bytes * (r->c->rebase ? 2 : 1))) {
        fail(r, &(struct piece){.len = r->piece_bytes}, ENOMEM, "memory for");
        return;
    }
    while (take(r, &p))
        copy_piece(r, &p, buf);
    free(buf);
}

/* Zeroes are looked for, and data written, in units of the target's clusters, unless a part of one
 * takes less space. */
static void choose_sizes(struct run *r)
{
    const struct copy *c = r->c;
    uint32_t cluster =
        c->target->driver->flags & DRIVER_SPARSE_BLOCKS ? 0 : c->target->cluster_bytes;
    r->unit = cluster && is_power_of_2(cluster) && cluster <= PIECE_MAX ? cluster : 4096;
    r->piece_bytes = c->piece_bytes ? c->piece_bytes : PIECE_BYTES;
    if (c->compress)
        r->piece_bytes = cluster;
    r->piece_bytes = align_up(max_u64(r->piece_bytes, r->unit), r->unit);
}

bool copy_run(const struct copy *c, GError **error)
{
    struct run r = {.c = c, .begin_ns = loop_now_ns()};
    if (!c->size_bytes)
        return true;
    choose_sizes(&r);
    r.by_host = (c->share || c->offload) && !c->rate && !c->layer && !c->compress &&
                c->target->driver->copy_range;
    img_parallel(c->workers ? c->workers : 8, worker, &r);
    if (r.error)
        g_propagate_error(error, r.error);
    return !r.error;
}
