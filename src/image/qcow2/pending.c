/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Clusters that have lost a reference in memory: their counts fall when the loss is durable and
 * nobody uses the old mapping any more. Before a count reaches zero the file below may drop the
 * bytes, as the options say.
 *
 * Thread    The node's home thread.
 */
#include "image/qcow2/internal.h"

#include <errno.h>

struct range {
    uint64_t off, len; /* whole clusters */
    enum qcow2_discard how;
};

struct qcow2_pending {
    struct range *ranges;
    size_t count, room;
};

uint64_t qcow2_pending_count(const struct qcow2 *s)
{
    return s->pending ? s->pending->count : 0;
}

static bool make_room(struct qcow2_pending *p)
{
    if (p->count < p->room)
        return true;
    size_t room = p->room ? 2 * p->room : 64;
    struct range *r = g_try_renew(struct range, p->ranges, room);
    if (!r)
        return false;
    p->ranges = r;
    p->room = room;
    return true;
}

static void add(struct qcow2 *s, uint64_t off, uint64_t len, enum qcow2_discard how)
{
    if (!s->pending)
        s->pending = g_try_new0(struct qcow2_pending, 1);
    struct qcow2_pending *p = s->pending;
    if (!p)
        return;
    struct range *last = p->count ? &p->ranges[p->count - 1] : NULL;
    if (last && last->how == how && last->off + last->len == off)
        last->len += len;
    else if (make_room(p))
        p->ranges[p->count++] = (struct range){.off = off, .len = len, .how = how};
}

void qcow2_free_later(struct qcow2 *s, uint64_t off, uint64_t len, enum qcow2_discard how)
{
    if (!len)
        return;
    uint64_t begin = align_down(off, s->cluster_bytes);
    add(s, begin, align_up(off + len, s->cluster_bytes) - begin, how);
}

struct qcow2_pending *qcow2_pending_take(struct qcow2 *s)
{
    return g_steal_pointer(&s->pending);
}

void qcow2_pending_give_back(struct qcow2 *s, struct qcow2_pending *p)
{
    for (size_t i = 0; p && i < p->count; i++)
        add(s, p->ranges[i].off, p->ranges[i].len, p->ranges[i].how);
    qcow2_pending_free(p);
}

void qcow2_pending_free(struct qcow2_pending *p)
{
    if (p)
        g_free(p->ranges);
    g_free(p);
}

static bool passes_discard(const struct qcow2 *s, enum qcow2_discard how)
{
    const bool on[] = {
        [QCOW2_DISCARD_NEVER] = false,
        [QCOW2_DISCARD_REQUEST] = s->opt.pass_discard_request,
        [QCOW2_DISCARD_SNAPSHOT] = s->opt.pass_discard_snapshot,
        [QCOW2_DISCARD_OTHER] = s->opt.pass_discard_other,
    };
    return on[how];
}

/* The file drops the bytes of those clusters whose last reference this is. While they still count
 * as used. */
static int discard_last(struct qcow2 *s, const struct range *r)
{
    uint64_t end = r->off + r->len, run = 0;
    for (uint64_t at = r->off; at < end; at += s->cluster_bytes) {
        uint64_t count;
        int err = qcow2_refcount_get(s, at >> s->cluster_bits, &count);
        if (err)
            return err;
        if (count == 1) {
            run += s->cluster_bytes;
            if (s->packed_offset && align_down(s->packed_offset - 1, s->cluster_bytes) == at)
                s->packed_offset = 0; /* nothing more goes in there */
        }
        bool stop = count != 1 || at + s->cluster_bytes >= end;
        if (stop && run) {
            uint64_t run_end = count == 1 ? at + s->cluster_bytes : at;
            uint64_t size = node_size(qcow2_file(s));
            if (run_end - run < size)
                node_discard(qcow2_file(s), run_end - run, min_u64(run, size - (run_end - run)));
            run = 0;
        }
    }
    return 0;
}

int qcow2_pending_apply(struct qcow2 *s, struct qcow2_pending *p)
{
    int r = 0;
    for (size_t i = 0; p && i < p->count && !r; i++) {
        const struct range *range = &p->ranges[i];
        if (passes_discard(s, range->how))
            r = discard_last(s, range);
        if (!r)
            r = qcow2_refcount_add(s, range->off, range->len, -1);
    }
    qcow2_pending_free(p);
    return r;
}
