/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading, and the map.
 *
 * The hot path: slice in memory, the request inside one contiguous run of plain clusters: a look-up
 * and one call of the child. Requests of several runs are read by several fibers at a time.
 *
 * Thread    The node's home thread.
 */
#include "image/qcow2/internal.h"

#include <errno.h>

enum {
    READERS = 8,
    STACK_LEVELS = 16, /* of a chain of backing files that share a fiber's stack */
};

/* Plain bytes of the data file; past its end there are zeroes (the last cluster may be cut short).
 */
static int read_host(struct qcow2 *s, uint64_t host, struct vec v)
{
    struct node *data = qcow2_data(s);
    uint64_t size = node_size(data);
    if (likely(range_fits(host, v.len, size)))
        return node_read(data, host, v, 0);
    uint64_t there = host < size ? size - host : 0;
    vec_fill(vec_slice(v, there, v.len - there), 0);
    return there ? node_read(data, host, vec_slice(v, 0, there), 0) : 0;
}

static int read_normal(struct qcow2 *s, uint64_t off, uint64_t host, struct vec v)
{
    return unlikely(s->node.encrypted) ? qcow2_crypt_read(s, off, host, v) : read_host(s, host, v);
}

int qcow2_read_host(struct qcow2 *s, uint64_t host, struct vec v)
{
    return read_host(s, host, v);
}

struct below {
    struct node *node;
    uint64_t off;
    struct vec v;
};

static int read_below(void *opaque)
{
    const struct below *b = opaque;
    return node_read(b->node, b->off, b->v, 0);
}

int qcow2_read_backing(struct qcow2 *s, uint64_t off, struct vec v)
{
    struct node *backing = qcow2_backing(s);
    uint64_t size = backing ? node_size(backing) : 0;
    uint64_t there = off < size ? min_u64(v.len, size - off) : 0;
    if (there < v.len)
        vec_fill(vec_slice(v, there, v.len - there), 0);
    if (!there)
        return 0;
    struct below b = {.node = backing, .off = off, .v = vec_slice(v, 0, there)};
    if (unlikely(s->depth % STACK_LEVELS == STACK_LEVELS - 1))
        return qcow2_on_new_stack(read_below, &b);
    return read_below(&b);
}

/* One run, while its epoch is held. */
static int read_run(struct qcow2 *s, const struct qcow2_mapping *m, uint64_t off, struct vec v)
{
    switch (m->kind) {
    case QCOW2_NORMAL:
        return read_normal(s, off, m->host, v);
    case QCOW2_PACKED:
        return qcow2_packed_read(s, m->entry, (uint32_t)(off & (s->cluster_bytes - 1)), v);
    case QCOW2_UNALLOCATED:
    case QCOW2_UNALLOCATED_PLACE:
        return qcow2_read_backing(s, off, v);
    default:
        vec_fill(v, 0);
        return 0;
    }
}

struct piece {
    struct qcow2_task task;
    struct qcow2 *s;
    struct qcow2_mapping map;
    uint64_t off;
    struct vec v;
    unsigned epoch;
};

static int read_piece(struct qcow2_task *task)
{
    struct piece *p = (struct piece *)task;
    int r = read_run(p->s, &p->map, p->off, p->v);
    qcow2_leave(p->s, p->epoch);
    return r;
}

static struct piece *free_piece(struct qcow2_fan *f, struct piece *pieces)
{
    for (;;) {
        for (unsigned i = 0; i < READERS; i++)
            if (!pieces[i].task.busy)
                return &pieces[i];
        qcow2_fan_wait(f);
    }
}

static int read_pieces(struct qcow2 *s, uint64_t off, struct vec v)
{
    struct piece pieces[READERS] = {0};
    struct qcow2_fan fan = {0};
    int r = 0;
    while (v.len && !r && !fan.error) {
        struct piece *p = free_piece(&fan, pieces);
        r = qcow2_lookup(s, off, v.len, &p->map);
        if (r)
            break;
        p->s = s;
        p->off = off;
        p->v = vec_slice(v, 0, p->map.len);
        p->epoch = qcow2_enter(s);
        off += p->map.len;
        v = vec_slice(v, p->map.len, v.len - p->map.len);
        qcow2_fan_start(&fan, &p->task, read_piece);
    }
    int joined = qcow2_fan_join(&fan);
    return r ? r : joined;
}

int qcow2_read_any(struct qcow2 *s, uint64_t off, struct vec v)
{
    struct qcow2_mapping m;
    int r = qcow2_lookup(s, off, v.len, &m);
    if (unlikely(r))
        return r;
    if (unlikely(m.len < v.len))
        return read_pieces(s, off, v);
    unsigned e = qcow2_enter(s);
    r = read_run(s, &m, off, v);
    qcow2_leave(s, e);
    return r;
}

int qcow2_read(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    return flags & NODE_PREFETCH ? 0 : qcow2_read_any(qcow2_of(n), off, v);
}

/* ---- map ---- */

/* Preallocated without data: most clusters are holes of the file, and read as zero. One look at its size tells. An
 * external data file is as long as the disk anyway: its holes tell nothing. */
static bool has_holes(struct qcow2 *s)
{
    if (s->data_external)
        return false;
    if (!s->has_holes) {
        struct node *file = qcow2_data(s);
        int64_t bytes = node_allocated_bytes(file);
        uint64_t real = bytes < 0 ? UINT64_MAX / 16 : (uint64_t)bytes / s->cluster_bytes;
        bool holes = node_size(file) / s->cluster_bytes >= max_u64(2 * real, real + 64);
        s->has_holes = holes ? 1 : -1;
    }
    return s->has_holes > 0;
}

int qcow2_map(struct node *n, uint64_t off, uint64_t len, struct image_extent *ret)
{
    static const unsigned flags_of[] = {
        [QCOW2_UNALLOCATED] = 0,
        [QCOW2_UNALLOCATED_PLACE] = EXTENT_OFFSET,
        [QCOW2_ZERO_PLAIN] = EXTENT_ZERO | EXTENT_ALLOCATED,
        [QCOW2_ZERO_PLACE] = EXTENT_ZERO | EXTENT_ALLOCATED | EXTENT_OFFSET,
        [QCOW2_NORMAL] = EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_OFFSET,
        [QCOW2_PACKED] = EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_COMPRESSED,
    };
    struct qcow2 *s = qcow2_of(n);
    struct qcow2_mapping m, more;
    int r = qcow2_lookup(s, off, len, &m);
    if (r)
        return r;
    unsigned flags = flags_of[m.kind];
    if (n->encrypted)
        flags &= ~EXTENT_OFFSET;
    uint64_t total = m.len;
    while (total < len && !qcow2_lookup(s, off + total, len - total, &more)) {
        if (more.kind != m.kind || ((flags & EXTENT_OFFSET) && more.host != m.host + total))
            break;
        total += more.len;
    }
    *ret = (struct image_extent){.len = total, .flags = flags};
    if (flags & EXTENT_OFFSET) {
        ret->host = qcow2_data(s);
        ret->host_offset = m.host;
        if (flags & EXTENT_DATA && has_holes(s))
            ret->flags |= EXTENT_HOLES;
    }
    if (off + total == n->size_bytes)
        ret->flags |= EXTENT_EOF;
    return 0;
}
