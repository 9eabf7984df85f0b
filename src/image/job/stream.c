/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stream: what lies in the backing files of a node, down to a base, is copied into it; then the
 * base is its backing file.
 *
 * The copying is that of the copy-on-read filter, which is put over the node meanwhile. Until the
 * last step nothing reads differently: a job that ends early leaves a node that holds more than
 * before.
 */
#include "image/job/internal.h"

#include "base/error.h"

#include <errno.h>

#define WORKERS     4
#define CHUNK_BYTES MIB

struct stream {
    struct job job;
    struct node *node, *base; /* referenced; base may be NULL */
    struct node *filter;
    char *backing_file; /* as the header shall say; NULL: the base's name */
    bool was_read_only, blocked;
    struct node_user user;
    struct backing_change change;
};

static int copy_chunk(struct sweep *s, uint64_t off, uint64_t len, void *buf, bool *ret_write)
{
    struct stream *t = s->opaque;
    return copy_on_read_populate(t->filter, off, len, buf, s->chunk, ret_write);
}

static int stream_run(struct job *j)
{
    struct stream *t = container_of(j, struct stream, job);
    uint32_t granularity = copy_granularity(t->node, t->node);
    struct sweep s = { .job = j,
                       .node = t->node,
                       .workers = WORKERS,
                       .chunk = max_u64(CHUNK_BYTES, granularity),
                       .copy = copy_chunk,
                       .opaque = t };
    int err = -ENOMEM;
    s.todo = dirty_new(NULL, node_size(t->node), NULL, granularity, NULL);
    if (s.todo && sweep_init(&s)) {
        dirty_set(s.todo, 0, node_size(t->node));
        job_set_total(j, node_size(t->node));
        err = sweep_run(&s);
    }
    sweep_done(&s);
    dirty_free(s.todo);
    return err;
}

static bool stream_prepare(struct job *j, GError **error)
{
    struct stream *t = container_of(j, struct stream, job);
    const char *name = t->backing_file ? t->backing_file : t->base ? node_filename(t->base) : NULL;
    if (!t->base && !node_backing(t->node) && !t->node->backing_file)
        return true; /* nothing was below it: a format without backing files has no such name */
    return backing_change(&t->change, t->node, t->base, t->base ? name : NULL, error);
}

static void stream_abort(struct job *j)
{
    backing_restore(&container_of(j, struct stream, job)->change);
}

static void stream_clean(struct job *j)
{
    struct stream *t = container_of(j, struct stream, job);
    backing_settle(&t->change);
    filter_remove(t->filter);
    if (t->user.node)
        node_leave(&t->user);
    if (t->blocked)
        node_block(t->node, NULL, NULL);
    if (t->was_read_only)
        node_set_read_only(t->node, true, NULL);
    node_unref(t->base);
    node_unref(t->node);
    g_clear_pointer(&t->backing_file, g_free);
}

static const struct job_type stream_type = {
    .kind = JOB_STREAM,
    .block = true,
    .size = sizeof(struct stream),
    .run = stream_run,
    .prepare = stream_prepare,
    .abort = stream_abort,
    .clean = stream_clean,
};

struct stream_setup {
    struct stream *t;
    const char *filter_name;
    GError **error;
};

static int set_up(void *opaque)
{
    struct stream_setup *s = opaque;
    struct stream *t = s->t;
    t->blocked = node_block(t->node, t->job.who, s->error);
    if (!t->blocked)
        return -EBUSY;
    if (node_is_read_only(t->node)) {
        t->was_read_only = node_set_read_only(t->node, false, s->error);
        if (!t->was_read_only)
            return -EROFS;
    }
    t->filter = filter_insert(t->node, "copy-on-read", s->filter_name, NULL, s->error);
    if (!t->filter)
        return -EINVAL;
    copy_on_read_set_bottom(t->filter, t->base);
    return job_use_node(&t->job, &t->user, t->node, PERM_READ, PERM_ALL & ~PERM_RESIZE, s->error)
               ? 0
               : -EBUSY;
}

static bool check(struct node *n, struct node *base, struct node *bottom, GError **error)
{
    if (base && bottom)
        return ruche_error(error, RUCHE_ERR_INVALID, "'base' and 'bottom' exclude each other");
    if (base && !node_is_below(n, base))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "base '%s' is not in the backing chain of '%s'", node_name(base),
                           node_name(n));
    if (bottom && !node_is_below(n, bottom))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "bottom '%s' is not in the backing chain of '%s'", node_name(bottom),
                           node_name(n));
    return true;
}

struct job *job_stream(struct job_set *set, const struct job_common *c, struct node *n,
                       struct node *base, struct node *bottom, const char *backing_file,
                       const char *filter_name, GError **error)
{
    n = node_skip_filters(n);
    if (!check(n, base, bottom, error))
        return NULL;
    struct job *j = job_new(set, &stream_type, c, n, node_context(n), error);
    if (!j)
        return NULL;
    struct stream *t = container_of(j, struct stream, job);
    t->node = node_ref(n);
    t->base = bottom ? node_backing(bottom) : base;
    if (t->base)
        node_ref(t->base);
    t->backing_file = g_strdup(backing_file);
    struct stream_setup s = { .t = t, .filter_name = filter_name, .error = error };
    if (context_run(j->ctx, set_up, &s) < 0) {
        job_call(j, stream_clean);
        job_free_new(j);
        return NULL;
    }
    job_born(j, c);
    return j;
}
