/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commit: what the nodes from top down to a base (exclusive) hold is copied into the base, and they
 * leave the chain. Below the active layer nobody writes: it is copied once. The active layer is
 * mirrored into the base, which then takes its place.
 *
 * Crash     What is written into the base is hidden by the nodes above until they leave the chain,
 * which is one write of the overlay's header, after the base was flushed.
 */
#include "image/job/mirror.h"

#include "base/error.h"

#include <errno.h>

#define WORKERS     4
#define CHUNK_BYTES MIB

struct commit {
    struct job job;
    struct node *overlay, *top, *base; /* referenced; the overlay's backing file is top */
    char *backing_file; /* as the overlay's header shall say; NULL: the base's name */
    bool blocked_top, blocked_base, base_was_read_only, overlay_was_read_only;
    struct node *filter; /* over top, when the user gave it a name; NULL: none */
    struct node_user top_user, base_user;
    struct backing_change change;
};

static struct commit *of(struct job *j)
{
    return container_of(j, struct commit, job);
}

static int copy_chunk(struct sweep *s, uint64_t off, uint64_t len, void *buf, bool *ret_write)
{
    struct commit *c = s->opaque;
    const struct copy_how how = {
        .from = c->top, .to = c->base, .base = c->base, .skip_unallocated = true
    };
    return copy_range(&how, off, len, buf, s->chunk, ret_write);
}

static int commit_run(struct job *j)
{
    struct commit *c = of(j);
    uint32_t granularity = copy_granularity(c->top, c->base);
    struct sweep s = { .job = j,
                       .node = c->top,
                       .workers = WORKERS,
                       .chunk = max_u64(CHUNK_BYTES, granularity),
                       .copy = copy_chunk,
                       .opaque = c };
    int err = -ENOMEM;
    s.todo = dirty_new(NULL, node_size(c->top), NULL, granularity, NULL);
    if (s.todo && sweep_init(&s)) {
        dirty_set(s.todo, 0, node_size(c->top));
        job_set_total(j, node_size(c->top));
        err = sweep_run(&s);
    }
    while (!err && !job_is_cancelled(j) && (err = node_flush(c->base)) < 0) {
        err = job_io_failed(j, true, err);
        job_pause_point(j);
    }
    sweep_done(&s);
    dirty_free(s.todo);
    return err;
}

static bool commit_prepare(struct job *j, GError **error)
{
    struct commit *c = of(j);
    const char *name = c->backing_file ? c->backing_file : node_filename(c->base);
    return backing_change(&c->change, c->overlay, c->base, name, error);
}

static void commit_abort(struct job *j)
{
    backing_restore(&of(j)->change);
}

static void commit_clean(struct job *j)
{
    struct commit *c = of(j);
    backing_settle(&c->change);
    filter_remove(c->filter);
    if (c->base_user.node)
        node_leave(&c->base_user);
    if (c->top_user.node)
        node_leave(&c->top_user);
    if (c->blocked_base)
        node_block(c->base, NULL, NULL);
    if (c->blocked_top)
        node_block(c->top, NULL, NULL);
    backing_allow_write(c->top, c->base, false);
    if (c->base_was_read_only)
        node_set_read_only(c->base, true, NULL);
    if (c->overlay_was_read_only)
        node_set_read_only(c->overlay, true, NULL);
    node_unref(c->top);
    node_unref(c->base);
    node_unref(c->overlay);
    g_clear_pointer(&c->backing_file, g_free);
}

static const struct job_type commit_type = {
    .kind = JOB_COMMIT,
    .block = true,
    .size = sizeof(struct commit),
    .run = commit_run,
    .prepare = commit_prepare,
    .abort = commit_abort,
    .clean = commit_clean,
};

/* ---- commit_top: what has the name that the user gave ---- */

static bool top_open(struct node *n, GError **error)
{
    filter_inherit(n);
    return true;
}

static int top_read(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    return node_read(node_file(n), off, v, flags);
}

static const struct image_driver commit_top = {
    .name = "commit_top",
    .summary = "Over the topmost image of a commit job",
    .kind = DRIVER_FILTER,
    .flags = DRIVER_HIDDEN,
    .size = sizeof(struct node),
    .open = top_open,
    .read = top_read,
};
IMAGE_DRIVER(commit_top);

/* ---- its beginning ---- */

struct setup {
    struct commit *c;
    const char *filter_name;
    GError **error;
};

static bool make_writable(struct node *n, bool *ret_was_read_only, GError **error)
{
    if (!node_is_read_only(n))
        return true;
    *ret_was_read_only = node_set_read_only(n, false, error);
    return *ret_was_read_only;
}

static int set_up(void *opaque)
{
    struct setup *s = opaque;
    struct commit *c = s->c;
    c->blocked_top = node_block(c->top, c->job.who, s->error);
    c->blocked_base = c->blocked_top && node_block(c->base, c->job.who, s->error);
    if (!c->blocked_base)
        return -EBUSY;
    backing_allow_write(c->top, c->base, true);
    /* What is under the guest's image was opened for reading; the overlay gets another header. */
    if (!make_writable(c->base, &c->base_was_read_only, s->error) ||
        !make_writable(c->overlay, &c->overlay_was_read_only, s->error))
        return -EROFS;
    if (s->filter_name) {
        c->filter = filter_insert(c->top, "commit_top", s->filter_name, NULL, s->error);
        if (!c->filter)
            return -EINVAL;
    }
    bool ok = copy_make_room(c->top, c->base, s->error) &&
              job_use_node(&c->job, &c->base_user, c->base, PERM_WRITE, PERM_READ, s->error) &&
              job_use_node(&c->job, &c->top_user, c->top, PERM_READ, PERM_READ, s->error);
    return ok ? 0 : -EBUSY;
}

static bool check(struct node *n, struct node *top, struct node *base, GError **error)
{
    if (!base)
        return ruche_error(error, RUCHE_ERR_NOT_FOUND, "'%s' has no backing file to commit into",
                           node_name(top));
    if (!node_is_below(top, base))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "base '%s' is not in the backing chain of '%s'", node_name(base),
                           node_name(top));
    if (top != n && !node_is_below(n, top))
        return ruche_error(error, RUCHE_ERR_INVALID, "top '%s' is not in the backing chain of '%s'",
                           node_name(top), node_name(n));
    return true;
}

struct job *job_commit(struct job_set *set, const struct job_common *common, struct node *n,
                       struct node *top, struct node *base, const char *backing_file,
                       const char *filter_name, GError **error)
{
    n = node_skip_filters(n);
    top = top ? node_skip_filters(top) : n;
    base = base ? node_skip_filters(base) : NULL;
    if (!check(n, top, base, error))
        return NULL;
    if (top == n) {
        const struct mirror_plan p = { .source = n,
                                       .target = base,
                                       .sync = SYNC_TOP,
                                       .base = base,
                                       .is_commit = true,
                                       .filter_name = filter_name,
                                       .unmap = true };
        return mirror_new(set, common, &p, error);
    }
    struct job *j = job_new(set, &commit_type, common, n, node_context(n), error);
    if (!j)
        return NULL;
    struct commit *c = of(j);
    c->overlay = node_ref(node_overlay_of(n, top));
    c->top = node_ref(top);
    c->base = node_ref(base);
    c->backing_file = g_strdup(backing_file);
    struct setup s = { .c = c, .filter_name = filter_name, .error = error };
    if (context_run(j->ctx, set_up, &s) < 0) {
        job_call(j, commit_clean);
        job_free_new(j);
        return NULL;
    }
    job_born(j, common);
    return j;
}
