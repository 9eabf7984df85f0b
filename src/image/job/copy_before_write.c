/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `copy-before-write`: a filter over a node whose contents of one moment are to be kept: what is
 * about to be overwritten is copied to the target first.
 *
 * A grain is copied once, under a lock of its range: by the write that comes first, or by the
 * backup job. The write goes on when the grain is safe; nobody reads it for the snapshot any more.
 * When the target fails, either the guest's write fails or the snapshot is given up, by the option
 * on-cbw-error.
 *
 * Fiber     Requests of guests, and the job's copies.
 */
#include "image/job/internal.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>

#define BOUNCE_BYTES MIB

static const char *const cbw_error_words[] = { "break-guest-write", "break-snapshot", NULL };

static const struct image_option cbw_options[] = {
    OPT_STRING("bitmap.node", struct copy_before_write, bitmap_node, "Node that has the bitmap"),
    OPT_STRING("bitmap.name", struct copy_before_write, bitmap_name,
               "Bitmap: only what is dirty in it is kept"),
    OPT_WORD("on-cbw-error", struct copy_before_write, on_error, cbw_error_words,
             CBW_BREAK_GUEST_WRITE, "What happens when the target fails"),
    { 0 },
};

struct copy_before_write *copy_before_write_of(struct node *filter)
{
    return container_of(filter, struct copy_before_write, n);
}

static bool fill_todo(struct copy_before_write *s, GError **error)
{
    struct node *child = node_file(&s->n);
    uint32_t granularity = copy_granularity(child, s->target);
    s->cluster = granularity;
    s->todo = dirty_new(NULL, child->size_bytes, NULL, granularity, error);
    if (!s->todo)
        return false;
    if (!s->bitmap_name) {
        dirty_set(s->todo, 0, child->size_bytes);
        return true;
    }
    struct node *owner = s->bitmap_node ? graph_find(node_graph(child), s->bitmap_node) : child;
    struct dirty_bitmap *b = owner ? dirty_find(owner, s->bitmap_name) : NULL;
    if (!b)
        return ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no bitmap '%s' of node '%s'",
                           s->bitmap_name, owner ? node_name(owner) : s->bitmap_node);
    return dirty_usable(b, DIRTY_NEED_CONSISTENT, error) && dirty_merge(s->todo, b, error);
}

static bool cbw_open(struct node *n, GError **error)
{
    struct copy_before_write *s = copy_before_write_of(n);
    s->target = node_open_child(n, "target", CHILD_OTHER, true, error);
    if (!s->target)
        return false;
    struct node *child = node_file(n);
    filter_inherit(n);
    if (node_size(s->target) < child->size_bytes)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "the target '%s' has %" G_GUINT64_FORMAT
                           " bytes, fewer than the %" G_GUINT64_FORMAT " of '%s'",
                           node_name(s->target), node_size(s->target), child->size_bytes,
                           node_name(child));
    s->how = (struct copy_how){ .from = child, .to = s->target };
    return fill_todo(s, error);
}

static void cbw_close(struct node *n)
{
    dirty_free(copy_before_write_of(n)->todo);
}

static void give_up(struct copy_before_write *s, int err)
{
    s->error = err;
    if (s->job)
        fiber_queue_wake_all(&s->job->wake);
}

/* What is dirty in [off, end), all of it locked. */
static int copy_dirty(struct copy_before_write *s, uint64_t off, uint64_t end, void *buf)
{
    uint64_t at, len;
    while (!s->error && dirty_next(s->todo, off, end, BOUNCE_BYTES, &at, &len)) {
        bool write;
        int err = copy_range(&s->how, at, len, buf, BOUNCE_BYTES, &write);
        if (err < 0)
            return err;
        dirty_reset(s->todo, at, len);
        if (s->job)
            job_add_done(s->job, len);
        off = at + len;
    }
    return 0;
}

static int copy_first(struct copy_before_write *s, uint64_t off, uint64_t len)
{
    uint64_t begin = align_down(off, s->cluster);
    uint64_t end = min_u64(align_up(off + len, s->cluster), s->n.size_bytes), at, n;
    struct area area;
    void *buf = NULL;
    if (s->error || !s->todo)
        return 0;
    if (!dirty_next(s->todo, begin, end, 0, &at, &n) &&
        !area_is_locked(&s->areas, begin, end - begin))
        return 0;
    area_lock(&s->areas, &area, begin, end - begin);
    int err = 0;
    if (dirty_next(s->todo, begin, end, 0, &at, &n))
        err = posix_memalign(&buf, 4096, BOUNCE_BYTES) ? -ENOMEM : copy_dirty(s, begin, end, buf);
    free(buf);
    area_unlock(&s->areas, &area);
    if (err < 0 && s->on_error == CBW_BREAK_SNAPSHOT) {
        give_up(s, err);
        err = 0;
    }
    return err;
}

static int pass(struct node *n, const struct filter_op *o)
{
    int err = copy_first(copy_before_write_of(n), o->off, o->len);
    return err < 0 ? err : filter_forward(node_file(n), o);
}

static int cbw_read(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    return node_read(node_file(n), off, v, flags);
}

static int cbw_write(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    return pass(n, &(struct filter_op){
                       .kind = FILTER_WRITE, .off = off, .len = v.len, .v = v, .flags = flags });
}

static int cbw_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags)
{
    return pass(n,
                &(struct filter_op){ .kind = FILTER_ZERO, .off = off, .len = len, .flags = flags });
}

static int cbw_discard(struct node *n, uint64_t off, uint64_t len)
{
    return pass(n, &(struct filter_op){ .kind = FILTER_DISCARD, .off = off, .len = len });
}

static int cbw_flush(struct node *n)
{
    return node_flush(node_file(n));
}

static const struct image_driver copy_before_write = {
    .name = "copy-before-write",
    .summary = "Keeps the contents of one moment on a target",
    .kind = DRIVER_FILTER,
    .size = sizeof(struct copy_before_write),
    .open_options = cbw_options,
    .open = cbw_open,
    .close = cbw_close,
    .read = cbw_read,
    .write = cbw_write,
    .zero = cbw_zero,
    .discard = cbw_discard,
    .flush = cbw_flush,
};
IMAGE_DRIVER(copy_before_write);
