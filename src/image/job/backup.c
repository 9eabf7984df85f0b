/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Backup: the contents of a node at one moment, copied to a target while guests write on.
 *
 * A copy-before-write filter over the source keeps what guests overwrite; the job copies the rest.
 * Both take from one bitmap of what is left. A user's bitmap, when there is one, begins anew at the
 * moment of the backup; should that fail, what it held is put back.
 *
 * Crash     The source is never changed. A backup that did not end is no backup; a persistent
 * bitmap that was in use is marked so in the image.
 */
#include "image/job/internal.h"

#include "base/error.h"

#include <errno.h>

#define CHUNK_BYTES MIB
#define WORKERS     8
#define WORKERS_MAX 64

struct backup {
    struct job job;
    struct node *source, *target, *filter; /* referenced */
    enum sync_mode sync;
    enum bitmap_mode bitmap_mode;
    struct dirty_bitmap *bitmap; /* the user's, busy meanwhile; NULL: none */
    struct dirty_bitmap *frozen; /* what it held; NULL: it goes on as if nothing happened */
    bool compress, blocked_source, blocked_target;
    unsigned workers;
    uint64_t max_chunk;
    struct sweep sweep;
};

static struct backup *of(struct job *j)
{
    return container_of(j, struct backup, job);
}

/* ---- the work ---- */

static struct copy_before_write *filter_of(struct backup *b)
{
    return copy_before_write_of(b->filter);
}

static int copy_chunk(struct sweep *s, uint64_t off, uint64_t len, void *buf, bool *ret_write)
{
    struct backup *b = s->opaque;
    return copy_range(&filter_of(b)->how, off, len, buf, s->chunk, ret_write);
}

/* sync=top: what the source itself does not hold is not copied. */
static int skip_unallocated(struct backup *b)
{
    struct copy_before_write *f = filter_of(b);
    uint64_t size = node_size(b->source), off = 0;
    struct node *base = node_backing(b->source);
    for (unsigned round = 1; off < size && !job_is_cancelled(&b->job) && !f->error; round++) {
        struct image_extent e;
        unsigned depth;
        int err = node_map_chain(b->source, base, off, min_u64(size - off, GIB), &e, &depth);
        if (err < 0)
            err = job_io_failed(&b->job, false, err);
        else if (!(e.flags & EXTENT_ALLOCATED))
            dirty_reset(f->todo, off, e.len);
        if (err < 0)
            return err;
        off += e.len;
        if (round % 64 == 0) {
            job_pause_point(&b->job);
            context_sleep_ns(b->job.ctx, 0);
        }
    }
    return 0;
}

static int keep_only(struct backup *b)
{
    while (!job_is_cancelled(&b->job) && !filter_of(b)->error) {
        job_pause_point(&b->job);
        job_sleep(&b->job, 0);
    }
    return 0;
}

static int flush_target(struct backup *b)
{
    int err = 0;
    while (!job_is_cancelled(&b->job) && (err = node_flush(b->target)) < 0) {
        err = job_io_failed(&b->job, true, err);
        if (err < 0)
            break;
        job_pause_point(&b->job);
    }
    return err;
}

static int copy_all(struct backup *b)
{
    int err = b->sync == SYNC_TOP ? skip_unallocated(b) : 0;
    job_set_total(&b->job, b->job.done + dirty_bytes(filter_of(b)->todo));
    if (!err)
        err = sweep_run(&b->sweep);
    return err ? err : flush_target(b);
}

static int backup_run(struct job *j)
{
    struct backup *b = of(j);
    int err = b->sync == SYNC_NONE ? keep_only(b) : copy_all(b);
    int broken = filter_of(b)->error;
    if (err || !broken)
        return err;
    return job_fail(j, broken,
                    "the target '%s' could not take what the guest was about to overwrite: %s",
                    node_name(b->target), g_strerror(-broken));
}

/* ---- its end ---- */

static void backup_abort(struct job *j)
{
    struct backup *b = of(j);
    if (!b->frozen)
        return;
    /* "always": what was copied is in the target, and need not be again */
    const struct dirty_bitmap *left =
        b->bitmap_mode == BITMAP_ALWAYS ? filter_of(b)->todo : b->frozen;
    dirty_merge(b->bitmap, left, NULL); /* sizes and granularities are known to fit */
}

static void backup_clean(struct job *j)
{
    struct backup *b = of(j);
    filter_remove(b->filter);
    if (b->bitmap)
        b->bitmap->busy = false;
    dirty_free(b->frozen);
    sweep_done(&b->sweep);
    if (b->blocked_source)
        node_block(b->source, NULL, NULL);
    if (b->blocked_target)
        node_block(b->target, NULL, NULL);
    node_unref(b->source);
    node_unref(b->target);
}

static const struct job_type backup_type = {
    .kind = JOB_BACKUP,
    .block = true,
    .size = sizeof(struct backup),
    .run = backup_run,
    .abort = backup_abort,
    .clean = backup_clean,
};

/* ---- its beginning ---- */

/* The user's bitmap begins anew; nobody writes meanwhile. */
static bool freeze_bitmap(struct backup *b, GError **error)
{
    if (!b->bitmap || b->bitmap_mode == BITMAP_NEVER)
        return true;
    b->frozen = dirty_new(NULL, b->bitmap->size_bytes, NULL, b->bitmap->granularity, error);
    if (!b->frozen || !dirty_merge(b->frozen, b->bitmap, error))
        return false;
    dirty_clear(b->bitmap);
    return true;
}

static bool begin_moment(struct backup *b, GError **error)
{
    struct copy_before_write *f = filter_of(b);
    node_drain_begin(b->filter);
    bool ok = true;
    if (b->bitmap && (b->sync == SYNC_INCREMENTAL || b->sync == SYNC_BITMAP)) {
        dirty_clear(f->todo);
        ok = dirty_merge(f->todo, b->bitmap, error);
    }
    ok = ok && freeze_bitmap(b, error);
    if (b->bitmap)
        b->bitmap->busy = true;
    f->how.write_flags = b->compress ? NODE_COMPRESSED : 0;
    f->job = &b->job;
    node_drain_end(b->filter);
    return ok;
}

static bool make_sweep(struct backup *b, GError **error)
{
    struct copy_before_write *f = filter_of(b);
    uint64_t chunk = max_u64(CHUNK_BYTES, f->cluster);
    if (b->max_chunk)
        chunk = max_u64(align_down(min_u64(b->max_chunk, 64 * MIB), f->cluster), f->cluster);
    b->sweep = (struct sweep){
        .job = &b->job,
        .node = b->source,
        .todo = f->todo,
        .areas = &f->areas,
        .workers = b->workers,
        .chunk = chunk,
        .copy = copy_chunk,
        .opaque = b,
    };
    return sweep_init(&b->sweep) ||
           ruche_error(error, RUCHE_ERR_NO_SPACE, "no memory for the buffers of %s", b->job.who);
}

struct setup {
    struct backup *b;
    const char *filter_name;
    GError **error;
};

static int set_up(void *opaque)
{
    struct setup *s = opaque;
    struct backup *b = s->b;
    b->blocked_source = node_block(b->source, b->job.who, s->error);
    b->blocked_target = b->blocked_source && node_block(b->target, b->job.who, s->error);
    if (!b->blocked_target)
        return -EBUSY;
    g_autoptr(JsonObject) more = json_object_new();
    json_object_set_string_member(more, "target", node_name(b->target));
    json_object_set_string_member(more, "on-cbw-error", "break-snapshot");
    b->filter = filter_insert(b->source, "copy-before-write", s->filter_name, more, s->error);
    return b->filter && begin_moment(b, s->error) && make_sweep(b, s->error) ? 0 : -EINVAL;
}

static bool check_bitmap(const struct job_copy *w, GError **error)
{
    bool wants = w->sync == SYNC_INCREMENTAL || w->sync == SYNC_BITMAP;
    if (wants && !w->bitmap)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "sync=incremental and sync=bitmap need a bitmap");
    if (!w->bitmap)
        return true;
    if (w->sync == SYNC_NONE)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "sync=none takes no bitmap: it copies nothing by itself");
    if (w->sync == SYNC_INCREMENTAL && w->bitmap_mode != BITMAP_ON_SUCCESS)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "sync=incremental means bitmap-mode=on-success");
    if (!wants && w->bitmap_mode == BITMAP_NEVER)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "bitmap-mode=never makes no use of the bitmap");
    unsigned need = DIRTY_NEED_IDLE | DIRTY_NEED_CONSISTENT;
    return dirty_usable(w->bitmap,
                        w->bitmap_mode == BITMAP_NEVER ? need : need | DIRTY_NEED_WRITABLE, error);
}

static bool check(const struct job_copy *w, GError **error)
{
    struct node *source = node_skip_filters(w->source);
    if (source == w->target)
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' cannot be backed up to itself",
                           node_name(source));
    if (node_is_below(source, w->target))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "the target '%s' is in the backing chain of '%s'", node_name(w->target),
                           node_name(source));
    if (w->compress && !(node_skip_filters(w->target)->driver->flags & DRIVER_COMPRESS))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "compress: format '%s' of '%s' holds no compressed data",
                           node_format(w->target), node_name(w->target));
    if (w->max_workers > WORKERS_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "max-workers=%u is above the limit of %d",
                           w->max_workers, WORKERS_MAX);
    if (w->max_chunk && w->max_chunk < copy_granularity(source, w->target))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "max-chunk=%" G_GUINT64_FORMAT
                           " is below the %u bytes that are copied at a time",
                           w->max_chunk, copy_granularity(source, w->target));
    return check_bitmap(w, error);
}

struct job *job_backup(struct job_set *set, const struct job_common *c, const struct job_copy *w,
                       GError **error)
{
    struct node *source = node_skip_filters(w->source);
    struct context *ctx = node_context(source);
    if (!check(w, error) || !node_move(w->target, ctx, error))
        return NULL;
    struct job *j = job_new(set, &backup_type, c, source, ctx, error);
    if (!j)
        return NULL;
    struct backup *b = of(j);
    b->source = node_ref(source);
    b->target = node_ref(w->target);
    b->sync = w->sync;
    b->bitmap = w->bitmap;
    b->bitmap_mode = w->bitmap_mode;
    b->compress = w->compress;
    b->workers = w->max_workers ? w->max_workers : WORKERS;
    b->max_chunk = w->max_chunk;
    struct setup s = { .b = b, .filter_name = w->filter_name, .error = error };
    if (context_run(ctx, set_up, &s) < 0) {
        if (b->filter)
            job_call(j, backup_abort);
        job_call(j, backup_clean);
        job_free_new(j);
        return NULL;
    }
    job_born(j, c);
    return j;
}
