/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The filter over the source of a mirror: it notes what guests write, or writes it to both.
 *
 * Passive: a write goes to the source, and when it has ended its range is dirty, for the job to
 * copy (again). It is noted at the end, whatever came of it: a copy made meanwhile may have seen
 * half of it. Active: a write goes to the source and then to the target, under a lock of its range
 * that the job's copies take too. What was in step stays so; a grain that is written as a whole is
 * in step from then on. What the target refuses is dirty, and the guest does not hear of it.
 */
#include "image/job/internal.h"

#include <errno.h>

struct mirror_top *mirror_top_of(struct node *filter)
{
    return container_of(filter, struct mirror_top, n);
}

static bool top_open(struct node *n, GError **error)
{
    filter_inherit(n);
    return true;
}

static void note(struct mirror_top *m, uint64_t off, uint64_t len)
{
    if (!m->dirty)
        return;
    dirty_set(m->dirty, off, len);
    fiber_queue_wake_all(&m->job->wake);
}

static int write_passive(struct mirror_top *m, const struct filter_op *o)
{
    m->passive++;
    int err = filter_forward(node_file(&m->n), o);
    m->passive--;
    note(m, o->off, o->len);
    return err;
}

/* What a discarded range reads as is each image's own affair: it is copied. */
static int forward_to_target(struct mirror_top *m, const struct filter_op *o)
{
    struct filter_op t = *o;
    t.flags &= ~(unsigned)(NODE_FUA | NODE_NO_FALLBACK);
    return o->kind == FILTER_DISCARD ? -ENOTSUP : filter_forward(m->target, &t);
}

static int write_active(struct mirror_top *m, const struct filter_op *o)
{
    struct area area;
    uint64_t grain = m->dirty->granularity;
    uint64_t begin = align_down(o->off, grain), end = align_up(o->off + o->len, grain);
    area_lock(&m->areas, &area, begin, end - begin);
    int err = filter_forward(node_file(&m->n), o);
    int target_err = !m->target ? 0 : err < 0 ? err : forward_to_target(m, o);
    if (target_err < 0)
        note(m, o->off, o->len);
    else if (m->dirty)
        dirty_reset(m->dirty, o->off, o->len);
    area_unlock(&m->areas, &area);
    return err;
}

static int pass(struct node *n, const struct filter_op *o)
{
    struct mirror_top *m = mirror_top_of(n);
    if (!m->target)
        return filter_forward(node_file(n), o);
    return m->active ? write_active(m, o) : write_passive(m, o);
}

static int top_read(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    return node_read(node_file(n), off, v, flags);
}

static int top_write(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    return pass(n, &(struct filter_op){
                       .kind = FILTER_WRITE, .off = off, .len = v.len, .v = v, .flags = flags });
}

static int top_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags)
{
    return pass(n,
                &(struct filter_op){ .kind = FILTER_ZERO, .off = off, .len = len, .flags = flags });
}

static int top_discard(struct node *n, uint64_t off, uint64_t len)
{
    return pass(n, &(struct filter_op){ .kind = FILTER_DISCARD, .off = off, .len = len });
}

static int top_flush(struct node *n)
{
    return node_flush(node_file(n));
}

static const struct image_driver mirror_top = {
    .name = "mirror_top",
    .summary = "Over the source of a mirror job",
    .kind = DRIVER_FILTER,
    .flags = DRIVER_HIDDEN,
    .size = sizeof(struct mirror_top),
    .open = top_open,
    .read = top_read,
    .write = top_write,
    .zero = top_zero,
    .discard = top_discard,
    .flush = top_flush,
};
IMAGE_DRIVER(mirror_top);
