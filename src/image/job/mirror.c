/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Mirror: a copy of a node that guests write to, kept in step until somebody completes the job (the
 * copy takes the node's place) or ends it (the copy is of that moment).
 *
 * A filter over the source notes what is written; the job copies what is dirty, round after round.
 * Once no more than its buffers hold is left after a round, it is ready. To complete, the filter
 * turns active: what is written goes to both from then on, so that what is left to copy only
 * shrinks, whatever the guest does. When nothing is left and the target is flushed, both hold the
 * same at every moment, for as long as the transaction waits for others.
 *
 * Crash     The source is never changed. The target counts only after the job has completed.
 */
#include "image/job/mirror.h"

#include "base/error.h"

#include <errno.h>

#define BUF_BYTES       (16 * MIB)
#define BUF_BYTES_MAX   (GIB)
#define CHUNK_BYTES     MIB
#define WORKERS_MAX     16
#define SCAN_BYTES      GIB
#define SCAN_ROUNDS     64 /* steps of the scan between which others run */
#define GRANULARITY_MAX (64 * MIB)

struct mirror {
    struct job job;
    struct node *source, *target, *filter, *base; /* referenced; base may be NULL */
    struct node *replaced;                        /* referenced: whose place the target has taken */
    enum sync_mode sync;
    char *replaces;
    bool is_commit, unmap, write_blocking, target_is_new_zero;
    bool blocked_source, blocked_target, target_was_read_only;
    uint32_t granularity;
    uint64_t buf_bytes;
    struct dirty_bitmap *dirty;
    struct node_user source_user, target_user;
    struct sweep sweep;
};

static struct mirror *of(struct job *j)
{
    return container_of(j, struct mirror, job);
}

/* ---- the work ---- */

static bool is_wanted(const struct mirror *m, const struct image_extent *e)
{
    if (m->sync == SYNC_TOP)
        return e->flags & EXTENT_ALLOCATED;
    return !(m->target_is_new_zero && (e->flags & EXTENT_ZERO));
}

/* Marks what is to be copied at first. Guests mark theirs meanwhile. */
static int scan(struct mirror *m)
{
    uint64_t size = node_size(m->source), off = 0;
    if (m->sync == SYNC_NONE)
        return 0;
    if (m->sync == SYNC_FULL && !m->target_is_new_zero) {
        dirty_set(m->dirty, 0, size);
        return 0;
    }
    for (unsigned round = 1; off < size && !job_is_cancelled(&m->job); round++) {
        struct image_extent e;
        unsigned depth;
        int err =
            node_map_chain(m->source, m->base, off, min_u64(size - off, SCAN_BYTES), &e, &depth);
        if (err < 0)
            err = job_io_failed(&m->job, false, err);
        else if (is_wanted(m, &e))
            dirty_set(m->dirty, off, e.len);
        if (err < 0)
            return err;
        off += e.len;
        if (round % SCAN_ROUNDS == 0) {
            job_pause_point(&m->job);
            context_sleep_ns(m->job.ctx, 0);
        }
    }
    return 0;
}

static int copy_chunk(struct sweep *s, uint64_t off, uint64_t len, void *buf, bool *ret_write)
{
    struct mirror *m = s->opaque;
    const struct copy_how how = { .from = m->source, .to = m->target, .unmap = m->unmap };
    job_set_total(s->job, s->job->done + len * s->running + dirty_bytes(s->todo));
    return copy_range(&how, off, len, buf, s->chunk, ret_write);
}

static int become_ready(struct mirror *m)
{
    struct job *j = &m->job;
    int err = node_flush(m->target);
    if (err < 0)
        return job_io_failed(j, true, err);
    job_set_total(j, j->done + dirty_bytes(m->dirty));
    j->ready = true;
    job_tell(j, JOB_SAYS_READY, false, JOB_ERROR_REPORT);
    return 0;
}

/* 1: both hold the same from now on, and the target does so durably. */
static int settle(struct mirror *m)
{
    struct mirror_top *top = mirror_top_of(m->filter);
    top->active = true;
    if (top->passive || dirty_bytes(m->dirty))
        return 0;
    int err = node_flush(m->target);
    return err < 0 ? job_io_failed(&m->job, true, err) : !dirty_bytes(m->dirty);
}

/* Little or nothing is dirty. 1: the job is done. */
static int round_ended(struct mirror *m)
{
    struct job *j = &m->job;
    int ret = j->ready ? 0 : become_ready(m);
    job_pause_point(j);
    if (!ret && (j->completing || j->stopped))
        ret = settle(m);
    if (!ret && !dirty_bytes(m->dirty) && !j->pauses && !job_is_cancelled(j))
        job_sleep(j, 0); /* a write, or a command, wakes us */
    return ret;
}

static int mirror_run(struct job *j)
{
    struct mirror *m = of(j);
    int ret = scan(m);
    job_set_total(j, dirty_bytes(m->dirty));
    while (!ret && !job_is_cancelled(j)) {
        ret = sweep_run(&m->sweep);
        if (!ret && !job_is_cancelled(j))
            ret = round_ended(m);
    }
    return ret < 0 ? ret : 0;
}

/* ---- its end ---- */

static struct node *node_to_replace(struct mirror *m, GError **error)
{
    if (!m->replaces)
        return m->filter;
    struct node *n = graph_find(node_graph(m->source), m->replaces);
    if (!n)
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "replaces: there is no node '%s'", m->replaces);
    return n == m->source ? m->filter : n;
}

/* The target takes the place. Guests' requests wait meanwhile. */
static bool pivot(struct mirror *m, GError **error)
{
    struct node *old = node_to_replace(m, error);
    if (!old)
        return false;
    node_drain_begin(old);
    node_drain_begin(m->target);
    bool ok = !dirty_bytes(m->dirty);
    if (!ok)
        ruche_error(error, RUCHE_ERR_IO, "the target '%s' failed after it was in step",
                    node_name(m->target));
    if (ok) {
        node_leave(&m->target_user);
        ok = node_replace(old, m->target, error);
    }
    if (ok)
        m->replaced = node_ref(old);
    node_drain_end(m->target);
    node_drain_end(old);
    return ok;
}

static bool mirror_prepare(struct job *j, GError **error)
{
    struct mirror *m = of(j);
    if (j->stopped)
        return true;
    if (m->blocked_target)
        node_block(m->target, NULL, NULL);
    m->blocked_target = false;
    return pivot(m, error);
}

/* Another job of the transaction could not be prepared. */
static void mirror_abort(struct job *j)
{
    struct mirror *m = of(j);
    if (!m->replaced)
        return;
    node_drain_begin(m->target);
    if (node_replace(m->target, m->replaced, NULL)) /* who had it before fits still */
        g_clear_pointer(&m->replaced, node_unref);
    node_drain_end(m->target);
}

static void quiet_filter(struct mirror *m)
{
    if (!m->filter)
        return;
    node_drain_begin(m->filter);
    struct mirror_top *top = mirror_top_of(m->filter);
    top->target = NULL;
    top->dirty = NULL;
    top->active = false;
    node_drain_end(m->filter);
}

static void unlink_filter(struct mirror *m)
{
    quiet_filter(m);
    if (m->replaced == m->filter)
        node_unref(m->filter);
    else
        filter_remove(m->filter);
    m->filter = NULL;
}

static void mirror_clean(struct job *j)
{
    struct mirror *m = of(j);
    if (m->source_user.node)
        node_leave(&m->source_user);
    if (m->target_user.node)
        node_leave(&m->target_user);
    unlink_filter(m);
    if (m->blocked_source)
        node_block(m->source, NULL, NULL);
    if (m->blocked_target)
        node_block(m->target, NULL, NULL);
    if (m->is_commit)
        backing_allow_write(m->source, m->target, false);
    if (m->target_was_read_only && !m->replaced)
        node_set_read_only(m->target, true, NULL);
    sweep_done(&m->sweep);
    dirty_free(m->dirty);
    node_unref(m->source);
    node_unref(m->base);
    node_unref(m->target);
    node_unref(m->replaced);
    g_clear_pointer(&m->replaces, g_free);
}

static const struct job_type mirror_type = {
    .kind = JOB_MIRROR,
    .block = true,
    .size = sizeof(struct mirror),
    .run = mirror_run,
    .prepare = mirror_prepare,
    .abort = mirror_abort,
    .clean = mirror_clean,
    .can_complete = true,
};
static const struct job_type active_commit_type = {
    .kind = JOB_COMMIT,
    .block = true,
    .size = sizeof(struct mirror),
    .run = mirror_run,
    .prepare = mirror_prepare,
    .abort = mirror_abort,
    .clean = mirror_clean,
    .can_complete = true,
};

/* ---- its beginning ---- */

static bool make_bitmap(struct mirror *m, GError **error)
{
    uint32_t granularity = m->granularity ? m->granularity : copy_granularity(m->source, m->target);
    uint64_t chunk = max_u64(CHUNK_BYTES, granularity);
    m->dirty = dirty_new(NULL, node_size(m->source), NULL, granularity, error);
    if (!m->dirty)
        return false;
    m->sweep = (struct sweep){
        .job = &m->job,
        .node = m->source,
        .todo = m->dirty,
        .areas = &mirror_top_of(m->filter)->areas,
        .workers = (unsigned)CLAMP(m->buf_bytes / chunk, 1, WORKERS_MAX),
        .chunk = chunk,
        .enough = m->buf_bytes,
        .copy = copy_chunk,
        .opaque = m,
    };
    return sweep_init(&m->sweep) ||
           ruche_error(error, RUCHE_ERR_NO_SPACE, "no memory for the buffers of %s", m->job.who);
}

static bool prepare_target(struct mirror *m, GError **error)
{
    if (m->is_commit)
        backing_allow_write(m->source, m->target, true);
    if (node_is_read_only(m->target)) {
        m->target_was_read_only = node_set_read_only(m->target, false, error);
        if (!m->target_was_read_only)
            return false;
    }
    if (m->is_commit)
        return copy_make_room(m->source, m->target, error);
    return node_size(m->target) == node_size(m->source) ||
           ruche_error(error, RUCHE_ERR_INVALID,
                       "the target '%s' has %" G_GUINT64_FORMAT
                       " bytes, but the source '%s' has %" G_GUINT64_FORMAT,
                       node_name(m->target), node_size(m->target), node_name(m->source),
                       node_size(m->source));
}

static bool take_nodes(struct mirror *m, GError **error)
{
    m->blocked_source = node_block(m->source, m->job.who, error);
    if (!m->blocked_source)
        return false;
    m->blocked_target = node_block(m->target, m->job.who, error);
    return m->blocked_target && prepare_target(m, error) &&
           job_use_node(&m->job, &m->target_user, m->target, PERM_WRITE,
                        m->is_commit ? PERM_READ | PERM_WRITE : PERM_READ, error);
}

struct setup {
    struct mirror *m;
    const char *filter_name;
    GError **error;
};

static int set_up(void *opaque)
{
    struct setup *s = opaque;
    struct mirror *m = s->m;
    if (!take_nodes(m, s->error))
        return -EBUSY;
    m->filter = filter_insert(m->source, "mirror_top", s->filter_name, NULL, s->error);
    if (!m->filter || !make_bitmap(m, s->error) ||
        !job_use_node(&m->job, &m->source_user, m->source, PERM_READ, PERM_READ | PERM_WRITE,
                      s->error))
        return -EINVAL;
    struct mirror_top *top = mirror_top_of(m->filter);
    node_drain_begin(m->filter);
    top->dirty = m->dirty;
    top->target = m->target;
    top->job = &m->job;
    top->active = m->write_blocking;
    node_drain_end(m->filter);
    return 0;
}

static bool check(const struct mirror_plan *p, GError **error)
{
    if (p->source == p->target)
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' cannot be mirrored to itself",
                           node_name(p->source));
    if (!p->is_commit &&
        (node_is_below(p->source, p->target) || node_is_below(p->target, p->source)))
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' and '%s' are of one backing chain",
                           node_name(p->source), node_name(p->target));
    if (p->granularity && (!is_power_of_2(p->granularity) || p->granularity < 512 ||
                           p->granularity > GRANULARITY_MAX))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "granularity %u is not a power of two from 512 to %llu", p->granularity,
                           GRANULARITY_MAX);
    if (p->buf_bytes > BUF_BYTES_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "buf-size is above the limit of %llu bytes",
                           BUF_BYTES_MAX);
    return true;
}

struct job *mirror_new(struct job_set *set, const struct job_common *c, const struct mirror_plan *p,
                       GError **error)
{
    struct context *ctx = node_context(p->source);
    if (!check(p, error) || !node_move(p->target, ctx, error))
        return NULL;
    struct job *j =
        job_new(set, p->is_commit ? &active_commit_type : &mirror_type, c, p->source, ctx, error);
    if (!j)
        return NULL;
    struct mirror *m = of(j);
    m->source = node_ref(p->source);
    m->target = node_ref(p->target);
    m->base = p->base ? node_ref(p->base) : NULL;
    m->sync = p->sync;
    m->replaces = g_strdup(p->replaces);
    m->is_commit = p->is_commit;
    m->unmap = p->unmap;
    m->write_blocking = p->write_blocking;
    m->target_is_new_zero = p->target_is_new_zero;
    m->granularity = p->granularity;
    m->buf_bytes = p->buf_bytes ? p->buf_bytes : BUF_BYTES;
    struct setup s = { .m = m, .filter_name = p->filter_name, .error = error };
    if (context_run(ctx, set_up, &s) < 0) {
        job_call(j, mirror_clean);
        job_free_new(j);
        return NULL;
    }
    job_born(j, c);
    return j;
}

struct job *job_mirror(struct job_set *set, const struct job_common *c, const struct job_copy *w,
                       GError **error)
{
    struct node *source = node_skip_filters(w->source);
    const struct mirror_plan p = {
        .source = source,
        .target = w->target,
        .sync = w->sync,
        .base = w->sync == SYNC_TOP ? node_backing(source) : NULL,
        .replaces = w->replaces,
        .write_blocking = w->write_blocking,
        .unmap = w->unmap,
        .target_is_new_zero = w->target_is_new_zero,
        .granularity = w->granularity,
        .buf_bytes = w->buf_bytes,
        .filter_name = w->filter_name,
    };
    if (w->sync > SYNC_NONE) {
        ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                    "mirror takes sync=full, top or none; bitmaps are for backups");
        return NULL;
    }
    return mirror_new(set, c, &p, error);
}
