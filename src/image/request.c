/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests to nodes: ranges checked, cut to what the driver takes, aligned by reading and writing
 * around the edges, held up where they overlap a serialising one, tracked until they end.
 *
 * Fiber     All of it, on the node's context.
 * Trust     Offsets and lengths may be the guest's: checked against the node's size.
 * Errors    0 or negative errno.
 */
#include "image/dirty.h"
#include "image/graph.h"
#include "image/request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BOUNCE_BYTES MIB     /* at a time, for memory that the driver cannot use */
#define ZERO_BYTES (64 * KIB)
#define ZERO_IOVS 16

/* never written: all one zero page */
static const uint8_t zeroes[ZERO_BYTES] __attribute__((aligned(4096)));
#define Z { (void *)zeroes, ZERO_BYTES }
static const struct iovec zero_iov[ZERO_IOVS] = { Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z };
#undef Z

/* ---- tracking ---- */

static bool overlaps(const struct node_request *a, const struct node_request *b)
{
    return a->begin < b->end && b->begin < a->end;
}

/* Waits for what came before us and overlaps, where one of the two is serialising. Requests wait only for
 * earlier ones: nobody waits in a circle. */
static void wait_for_earlier(struct node_request *r)
{
again:
    for (struct node_request *o = r->next; o; o = o->next) { /* newest first: behind us are the earlier */
        if ((o->serialising || r->serialising) && overlaps(o, r)) {
            fiber_queue_wait(&o->waiters);
            goto again;
        }
    }
}

void request_begin(struct node *n, struct node_request *r, uint64_t off, uint64_t len, bool write,
                   bool serialising)
{
    *r = (struct node_request){ .begin = off, .end = off + len, .is_write = write,
                                .serialising = serialising, .next = n->requests };
    if (n->requests)
        n->requests->prev = r;
    n->requests = r;
    n->in_flight++;
    n->serialising += serialising;
    if (unlikely(n->serialising))
        wait_for_earlier(r);
}

void request_end(struct node *n, struct node_request *r)
{
    if (r->prev)
        r->prev->next = r->next;
    else
        n->requests = r->next;
    if (r->next)
        r->next->prev = r->prev;
    n->serialising -= r->serialising;
    if (r->waiters.head)
        fiber_queue_wake_all(&r->waiters);
    if (--n->in_flight == 0 && n->idle_waiters.head)
        fiber_queue_wake_all(&n->idle_waiters);
}

/* ---- statistics ---- */

/* When it began; 0: nobody wants to know. */
static int64_t begin_ns(const struct node *n)
{
    return unlikely(__atomic_load_n(&n->graph->timed, __ATOMIC_RELAXED)) ? loop_now_ns() : 0;
}

/* A request has ended, with `err`, which it returns. */
static int count(struct node *n, enum image_op op, uint64_t off, uint64_t len, int64_t began, int err)
{
    struct image_stats *s = &n->stats;
    if (unlikely(err)) {
        s->failed[op]++;
        return err;
    }
    stats_count(s, op, off, len);
    if (unlikely(began))
        s->total_ns[op] += (uint64_t)(loop_now_ns() - began);
    return 0;
}

/* One that is not made, with `err`, which it returns. */
static int refuse(struct node *n, enum image_op op, int err)
{
    n->stats.invalid[op] += err != 0;
    return err;
}

/* ---- checks ---- */

static int check_range(const struct node *n, uint64_t off, uint64_t len)
{
    if (n->grows)
        return range_fits(off, len, IMAGE_SIZE_MAX) ? 0 : -EFBIG;
    return range_fits(off, len, n->size_bytes) ? 0 : -EINVAL;
}

static int check_write(const struct node *n, uint64_t off, uint64_t len)
{
    if (n->read_only)
        return n->corrupt ? -EIO : -EROFS;
    return check_range(n, off, len);
}

static bool is_aligned(const struct node *n, uint64_t off, uint64_t len)
{
    return ((off | len) & (n->request_align - 1)) == 0;
}

/* ---- buffers that a driver can use ---- */

static void *alloc_for(const struct node *n, size_t len)
{
    void *p;
    size_t align = n->mem_align < sizeof(void *) ? sizeof(void *) : n->mem_align;
    return posix_memalign(&p, align, align_up(len ? len : 1, align)) ? NULL : p;
}

static bool usable(const struct node *n, struct vec v)
{
    return n->mem_align <= 1 || vec_is_aligned(v, n->mem_align, n->request_align);
}

typedef int transfer_fn(struct node *n, uint64_t off, struct vec v, unsigned flags);

/* Through a buffer of ours, a piece at a time. */
static int bounced(struct node *n, uint64_t off, struct vec v, unsigned flags, bool write)
{
    uint8_t *p = alloc_for(n, min_u64(v.len, BOUNCE_BYTES));
    int err = p ? 0 : -ENOMEM;
    for (size_t done = 0; !err && done < v.len;) {
        struct iovec iov;
        struct vec piece = vec_slice(v, done, min_u64(v.len - done, BOUNCE_BYTES));
        struct vec flat = vec_flat(&iov, p, piece.len);
        if (write)
            vec_read(piece, p);
        err = (write ? n->driver->write : n->driver->read)(n, off + done, flat, flags);
        if (!err && !write)
            vec_write(piece, p);
        done += piece.len;
    }
    free(p);
    return err;
}

/* Aligned ranges, any memory, any length. */
static int transfer(struct node *n, uint64_t off, struct vec v, unsigned flags, bool write)
{
    if (!usable(n, v))
        return bounced(n, off, v, flags, write);
    transfer_fn *fn = write ? n->driver->write : n->driver->read;
    if (likely(v.len <= IMAGE_REQUEST_MAX))
        return fn(n, off, v, flags);
    int err = 0;
    for (size_t done = 0; !err && done < v.len; done += IMAGE_REQUEST_MAX) {
        size_t len = min_u64(v.len - done, IMAGE_REQUEST_MAX);
        err = fn(n, off + done, vec_slice(v, done, len), flags);
    }
    return err;
}

/* ---- reading ---- */

/* The aligned range around [off, off + v.len), through a buffer. */
static int read_around(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    uint64_t align = n->request_align;
    size_t piece_max = max_u64(BOUNCE_BYTES, align);
    uint8_t *p = alloc_for(n, min_u64(align_up(v.len + align, align), piece_max + align));
    int err = p ? 0 : -ENOMEM;
    for (size_t done = 0; !err && done < v.len;) {
        uint64_t at = off + done, begin = align_down(at, align);
        size_t len = min_u64(v.len - done, piece_max - (at - begin));
        struct iovec iov;
        struct vec flat = vec_flat(&iov, p, align_up(at + len, align) - begin);
        err = n->driver->read(n, begin, flat, flags);
        if (!err)
            vec_write(vec_slice(v, done, len), p + (at - begin));
        done += len;
    }
    free(p);
    return err;
}

int node_read(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    int err = check_range(n, off, v.len);
    if (err || !v.len)
        return refuse(n, IMAGE_READ, err);
    int64_t began = begin_ns(n);
    if (n->grows && off + v.len > align_up(n->size_bytes, n->request_align)) {
        size_t inside = off < n->size_bytes ? n->size_bytes - off : 0;
        vec_fill(vec_slice(v, inside, v.len - inside), 0);
        if (!inside)
            return count(n, IMAGE_READ, off, v.len, began, 0);
        v = vec_slice(v, 0, inside);
    }
    struct node_request r;
    uint64_t round = max_u64(n->request_align, n->serialise_align);
    uint64_t begin = align_down(off, round), end = align_up(off + v.len, round);
    request_begin(n, &r, begin, end - begin, false, n->serialise_align || flags & NODE_SERIALISE);
    if (likely(is_aligned(n, off, v.len)))
        err = transfer(n, off, v, flags & ~NODE_SERIALISE, false);
    else
        err = read_around(n, off, v, flags & ~NODE_SERIALISE);
    request_end(n, &r);
    return count(n, IMAGE_READ, off, v.len, began, err);
}

int node_pread(struct node *n, uint64_t off, void *buf, size_t len)
{
    struct iovec iov;
    return node_read(n, off, vec_flat(&iov, buf, len), 0);
}

/* ---- writing ---- */

/* One alignment unit, of which v replaces [at, at + v.len). */
static int write_edge(struct node *n, uint64_t unit, size_t at, struct vec v, unsigned flags)
{
    uint32_t align = n->request_align;
    uint8_t *p = alloc_for(n, align);
    if (!p)
        return -ENOMEM;
    struct iovec iov;
    struct vec flat = vec_flat(&iov, p, align);
    int err = n->driver->read(n, unit, flat, 0);
    if (!err) {
        vec_read(v, p + at);
        err = n->driver->write(n, unit, flat, flags);
    }
    free(p);
    return err;
}

/* Head, middle and tail; the caller holds the whole range serialised. */
static int write_around(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    uint64_t align = n->request_align, head = off & (align - 1);
    size_t done = 0;
    int err = 0;
    if (head) {
        done = min_u64(v.len, align - head);
        err = write_edge(n, off - head, head, vec_slice(v, 0, done), flags);
    }
    size_t middle = align_down(v.len - done, align);
    if (!err && middle)
        err = transfer(n, off + done, vec_slice(v, done, middle), flags, true);
    done += middle;
    if (!err && done < v.len)
        err = write_edge(n, off + done, 0, vec_slice(v, done, v.len - done), flags);
    return err;
}

static void (*threshold_hook)(struct node *n, uint64_t exceeded_by);

void node_on_write_threshold(void (*fn)(struct node *n, uint64_t exceeded_by))
{
    threshold_hook = fn;
}

static void check_threshold(struct node *n, uint64_t end)
{
    uint64_t threshold = __atomic_load_n(&n->write_threshold, __ATOMIC_RELAXED);
    if (!threshold || end <= threshold)
        return;
    if (threshold_hook)
        threshold_hook(n, end - threshold);
    __atomic_store_n(&n->write_threshold, 0, __ATOMIC_RELAXED);
}

static void wrote(struct node *n, uint64_t off, uint64_t len, unsigned flags)
{
    n->writes++;
    check_threshold(n, off + len);
    if (n->grows && off + len > n->size_bytes)
        n->size_bytes = off + len;
    if (unlikely(n->bitmaps != NULL) && !(flags & NODE_UNCHANGED))
        dirty_record(n, off, len);
}

static int after_write(struct node *n, int err, unsigned flags)
{
    if (!err && flags & NODE_FUA && !(n->write_flags & NODE_FUA))
        err = node_flush(n);
    return err;
}

static bool write_as_zero(const struct node *n, struct vec v, unsigned flags)
{
    return n->detect_zeroes && !(flags & NODE_COMPRESSED) && n->driver->zero && vec_is_zero(v);
}

int node_write(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    int err = check_write(n, off, v.len);
    if (err || !v.len)
        return refuse(n, IMAGE_WRITE, err);
    if (unlikely(n->detect_zeroes) && write_as_zero(n, v, flags))
        return node_zero(n, off, v.len, (flags & NODE_FUA) | (n->detect_zeroes == 2 ? NODE_MAY_UNMAP : 0));
    bool aligned = is_aligned(n, off, v.len) ||
                   (flags & NODE_COMPRESSED && off + v.len == n->size_bytes);
    uint64_t align = n->request_align;
    uint64_t begin = aligned ? off : align_down(off, align);
    uint64_t end = aligned ? off + v.len : align_up(off + v.len, align);
    unsigned down = flags & (n->write_flags | NODE_COMPRESSED);
    int64_t began = begin_ns(n);
    struct node_request r;
    request_begin(n, &r, begin, end - begin, true, !aligned || flags & NODE_SERIALISE);
    err = aligned ? transfer(n, off, v, down, true) : write_around(n, off, v, down);
    wrote(n, off, v.len, flags);
    request_end(n, &r);
    return count(n, IMAGE_WRITE, off, v.len, began, after_write(n, err, flags));
}

int node_pwrite(struct node *n, uint64_t off, const void *buf, size_t len, unsigned flags)
{
    struct iovec iov;
    return node_write(n, off, vec_flat(&iov, buf, len), flags);
}

/* ---- zeroes ---- */

static int write_zeroes_plain(struct node *n, uint64_t off, uint64_t len, unsigned flags)
{
    int err = 0;
    for (uint64_t done = 0; !err && done < len;) {
        size_t piece = min_u64(len - done, ZERO_BYTES * ZERO_IOVS);
        struct vec v = vec_slice(vec_of(zero_iov, ZERO_IOVS), 0, piece);
        err = is_aligned(n, off + done, piece) ? transfer(n, off + done, v, flags, true)
                                              : write_around(n, off + done, v, flags);
        done += piece;
    }
    return err;
}

/* Aligned to zero_align; falls back to writing. */
static int zero_aligned(struct node *n, uint64_t off, uint64_t len, unsigned flags)
{
    int err = 0;
    unsigned down = flags & n->zero_flags;
    for (uint64_t done = 0; !err && done < len;) {
        uint64_t piece = min_u64(len - done, IMAGE_REQUEST_MAX);
        err = n->driver->zero ? n->driver->zero(n, off + done, piece, down) : -ENOTSUP;
        if (err == -ENOTSUP && !(flags & NODE_NO_FALLBACK))
            err = write_zeroes_plain(n, off + done, piece, flags & n->write_flags & NODE_FUA);
        done += piece;
    }
    return err;
}

static int zero_range(struct node *n, uint64_t off, uint64_t len, unsigned flags)
{
    uint64_t align = n->zero_align ? n->zero_align : n->request_align;
    uint64_t begin = align_up(off, align), end = align_down(off + len, align);
    unsigned plain = flags & n->write_flags & NODE_FUA;
    if (off + len == n->size_bytes && begin < off + len)
        end = off + len; /* a cut last unit is whole */
    if (begin >= end)
        return flags & NODE_NO_FALLBACK ? -ENOTSUP : write_zeroes_plain(n, off, len, plain);
    if (flags & NODE_NO_FALLBACK && (begin != off || end != off + len))
        return -ENOTSUP;
    int err = begin > off ? write_zeroes_plain(n, off, begin - off, plain) : 0;
    if (!err)
        err = zero_aligned(n, begin, end - begin, flags);
    if (!err && end < off + len)
        err = write_zeroes_plain(n, end, off + len - end, plain);
    return err;
}

int node_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags)
{
    int err = check_write(n, off, len);
    if (err || !len)
        return refuse(n, IMAGE_WRITE_ZEROES, err);
    if (!n->discard)
        flags &= ~NODE_MAY_UNMAP;
    uint64_t align = n->request_align;
    uint64_t begin = align_down(off, align), end = align_up(off + len, align);
    int64_t began = begin_ns(n);
    struct node_request r;
    request_begin(n, &r, begin, end - begin, true, !is_aligned(n, off, len) || flags & NODE_SERIALISE);
    err = zero_range(n, off, len, flags);
    if (err != -ENOTSUP)
        wrote(n, off, len, flags);
    request_end(n, &r);
    if (!err && flags & NODE_FUA && !(n->zero_flags & NODE_FUA))
        err = node_flush(n);
    return err == -ENOTSUP ? err : count(n, IMAGE_WRITE_ZEROES, off, len, began, err);
}

/* ---- copies that the host makes ---- */

int node_copy_range(struct node *from, uint64_t from_off, struct node *to, uint64_t off, uint64_t len,
                    bool share_only)
{
    int err = check_write(to, off, len);
    if (!err)
        err = check_range(from, from_off, len);
    if (err || !len)
        return err;
    if (!to->driver->copy_range || !is_aligned(to, off, len) || from->ctx != to->ctx)
        return -ENOTSUP;
    struct node_request r, s;
    request_begin(from, &s, from_off, len, false, false);
    request_begin(to, &r, off, len, true, false);
    err = to->driver->copy_range(to, off, from, from_off, len, share_only);
    wrote(to, off, len, 0);
    request_end(to, &r);
    request_end(from, &s);
    if (!err) {
        stats_count(&from->stats, IMAGE_READ, from_off, len);
        stats_count(&to->stats, IMAGE_WRITE, off, len);
    }
    return err;
}

/* ---- discard, flush ---- */

int node_discard(struct node *n, uint64_t off, uint64_t len)
{
    int err = check_write(n, off, len);
    if (err || !len || !n->discard || !n->driver->discard)
        return refuse(n, IMAGE_DISCARD, err);
    uint64_t align = n->discard_align ? n->discard_align : n->request_align;
    uint64_t begin = align_up(off, align), end = align_down(off + len, align);
    if (off + len == n->size_bytes)
        end = off + len;
    if (begin >= end)
        return 0;
    int64_t began = begin_ns(n);
    struct node_request r;
    request_begin(n, &r, begin, end - begin, true, false);
    for (uint64_t at = begin; !err && at < end;) {
        uint64_t piece = min_u64(end - at, IMAGE_REQUEST_MAX);
        err = n->driver->discard(n, at, piece);
        at += piece;
    }
    n->writes++;
    if (n->bitmaps)
        dirty_record(n, begin, end - begin);
    request_end(n, &r);
    return err == -ENOTSUP ? 0 : count(n, IMAGE_DISCARD, begin, end - begin, began, err);
}

static int flush_children(struct node *n)
{
    int err = 0;
    for (unsigned k = 0; k < n->child_count; k++) {
        int e = n->children[k]->role == CHILD_BACKING ? 0 : node_flush(n->children[k]->node);
        err = err ? err : e;
    }
    return err;
}

int node_flush(struct node *n)
{
    if (n->read_only && n->driver->kind == DRIVER_PROTOCOL)
        return 0;
    int64_t began = begin_ns(n);
    fiber_mutex_lock(&n->flush_lock);
    int err = 0;
    uint64_t generation = n->writes;
    if (n->driver->kind != DRIVER_PROTOCOL || n->flushed != generation) {
        n->in_flight++;
        err = n->driver->flush ? n->driver->flush(n) : flush_children(n);
        if (!err)
            n->flushed = generation;
        if (--n->in_flight == 0)
            fiber_queue_wake_all(&n->idle_waiters);
    }
    fiber_mutex_unlock(&n->flush_lock);
    return count(n, IMAGE_FLUSH, 0, 0, began, err);
}
