/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: the jobs that copy: mirror and backup to a node or to a file by name, stream and commit
 * within a chain. Backups are actions of `transaction`, too.
 */
#include "vmm/block.h"

#include "image/dirty.h"
#include "image/driver.h"

#include <errno.h>
#include <string.h>

/* ---- targets by file name ---- */

struct create_call {
    struct vmm *vmm;
    const char *filename, *format, *backing_file, *backing_format;
    uint64_t size;
    GError **error;
};

static int create_image(void *opaque)
{
    struct create_call *c = opaque;
    const struct image_driver *d = driver_find(c->format, c->error);
    return d && image_create(c->vmm->graph, d, c->filename, c->size, c->backing_file,
                             c->backing_format, NULL, c->error)
               ? 0
               : -EIO;
}

bool block_create_file(struct vmm *v, const char *filename, const char *format, struct node *like,
                       struct node *backing, GError **error)
{
    struct create_call c = {
        .vmm = v, .filename = filename, .format = format, .size = node_size(like), .error = error
    };
    if (backing) {
        backing = node_skip_filters(backing);
        c.backing_file = node_filename(backing);
        c.backing_format = node_format(backing);
    }
    return context_run(v->image_context, create_image, &c) >= 0;
}

struct open_call {
    struct vmm *vmm;
    struct context *ctx;
    JsonObject *options;
    GError **error;
    struct node *ret;
};

static int open_there(void *opaque)
{
    struct open_call *c = opaque;
    struct context *former = graph_set_context(c->vmm->graph, c->ctx);
    c->ret = node_open(c->vmm->graph, c->options, NODE_RW, c->error);
    graph_set_context(c->vmm->graph, former);
    return 0;
}

struct node *block_open_file(struct vmm *v, const char *filename, const char *format,
                             const char *node_name_, struct node *like, struct node *backing,
                             GError **error)
{
    g_autoptr(JsonObject) o = json_object_new();
    JsonObject *file = json_object_new(), *cache = json_object_new();
    const struct image_driver *d = driver_find(format, error);
    if (!d) {
        json_object_unref(file);
        json_object_unref(cache);
        return NULL;
    }
    json_object_set_string_member(o, "driver", format);
    json_object_set_string_member(file, "driver", "file");
    json_object_set_string_member(file, "filename", filename);
    json_object_set_object_member(o, "file", file);
    json_object_set_boolean_member(cache, "direct", like->direct);
    json_object_set_boolean_member(cache, "no-flush", like->no_flush);
    json_object_set_object_member(o, "cache", cache);
    json_object_set_string_member(o, "discard", like->discard ? "unmap" : "ignore");
    if (node_name_)
        json_object_set_string_member(o, "node-name", node_name_);
    if (backing)
        json_object_set_string_member(o, "backing", node_name(backing));
    else if (d->flags & DRIVER_BACKING)
        json_object_set_null_member(o, "backing");
    struct open_call c = { .vmm = v, .ctx = node_context(like), .options = o, .error = error };
    block_run(like, open_there, &c);
    return c.ret;
}

static const char *const sync_words[] = { "full", "top", "none", "incremental", "bitmap", NULL };
static const char *const mode_words[] = { "absolute-paths", "existing", NULL };

/* The target of drive-mirror and drive-backup. A reference. */
static struct node *open_target(struct vmm *v, JsonObject *args, struct node *source,
                                enum sync_mode sync, bool *ret_new_zero, GError **error)
{
    const char *filename = arg_string(args, "target"), *format = arg_string(args, "format");
    struct node *image = node_skip_filters(source);
    struct node *below = sync == SYNC_TOP ? node_backing(image) : NULL;
    int mode = 0;
    if (!format)
        format = node_format(image);
    if (!arg_word(args, "mode", mode_words, &mode, error))
        return NULL;
    if (mode == 0 &&
        !block_create_file(v, filename, format, image, sync == SYNC_NONE ? image : below, error))
        return NULL;
    struct node *n =
        block_open_file(v, filename, format, arg_string(args, "node-name"), image, below, error);
    *ret_new_zero = n && mode == 0 && n->zero_init && !below;
    return n;
}

/* ---- mirror ---- */

static bool take_mirror(JsonObject *args, struct job_copy *w, GError **error)
{
    static const char *const copy_modes[] = { "background", "write-blocking", NULL };
    int copy_mode = 0, sync = SYNC_FULL;
    uint64_t granularity = 0;
    if (!arg_word(args, "sync", sync_words, &sync, error) ||
        !arg_word(args, "copy-mode", copy_modes, &copy_mode, error) ||
        !arg_u64(args, "granularity", 64 * MIB, &granularity, error) ||
        !arg_u64(args, "buf-size", INT64_MAX, &w->buf_bytes, error))
        return false;
    w->sync = (enum sync_mode)sync;
    w->write_blocking = copy_mode == 1;
    w->granularity = (uint32_t)granularity;
    w->replaces = arg_string(args, "replaces");
    w->filter_name = arg_string(args, "filter-node-name");
    w->unmap = arg_bool(args, "unmap", true);
    return true;
}

static JsonNode *blockdev_mirror(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    struct job_common c;
    struct job_copy w = { .source = block_node(v, arg_string(args, "device"), NULL, error) };
    if (w.source)
        w.target = block_node(v, NULL, arg_string(args, "target"), error);
    if (w.target && block_job_common(v, args, w.source, &c, error) && take_mirror(args, &w, error))
        job_mirror(v->jobs, &c, &w, error);
    return NULL;
}

static JsonNode *drive_mirror(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    struct job_common c;
    struct job_copy w = { .source = block_node(v, arg_string(args, "device"), NULL, error) };
    if (!w.source || !block_job_common(v, args, w.source, &c, error) ||
        !take_mirror(args, &w, error))
        return NULL;
    w.target = open_target(v, args, w.source, w.sync, &w.target_is_new_zero, error);
    if (w.target)
        job_mirror(v->jobs, &c, &w, error);
    node_unref(w.target);
    return NULL;
}

#define JOB_ARGS                                                                                   \
    { "job-id", QMP_STRING, true, "The job's name; the disk's by default" },                       \
        { "speed", QMP_INT, true, "Bytes a second; 0: no limit" },                                 \
        { "auto-finalize", QMP_BOOL, true, "Change the graph without being asked" },               \
    {                                                                                              \
        "auto-dismiss", QMP_BOOL, true, "Vanish at the end"                                        \
    }
#define COPY_ARGS                                                                                  \
    { "device", QMP_STRING, false, "Disk or node to copy" },                                       \
        { "target", QMP_STRING, false, "Where to" },                                               \
        { "sync", QMP_STRING, false, "full, top, none; backups also incremental, bitmap" },        \
        { "on-source-error", QMP_STRING, true, "report, ignore, stop, enospc" },                   \
        { "on-target-error", QMP_STRING, true, "report, ignore, stop, enospc" },                   \
    {                                                                                              \
        "filter-node-name", QMP_STRING, true, "Name of the filter over the source"                 \
    }
#define MIRROR_ARGS                                                                                \
    { "replaces", QMP_STRING, true, "The node whose place the target takes" },                     \
        { "granularity", QMP_INT, true, "Bytes that are copied at least, a power of two" },        \
        { "buf-size", QMP_INT, true, "Bytes in flight" },                                          \
        { "unmap", QMP_BOOL, true, "Holes may stay holes" },                                       \
    {                                                                                              \
        "copy-mode", QMP_STRING, true, "background, write-blocking"                                \
    }
#define FILE_ARGS                                                                                  \
    { "format", QMP_STRING, true, "The target's; the source's by default" },                       \
    {                                                                                              \
        "mode", QMP_STRING, true, "absolute-paths: made anew; existing"                            \
    }

static const struct qmp_arg blockdev_mirror_args[] = { JOB_ARGS, COPY_ARGS, MIRROR_ARGS, { 0 } };
static const struct qmp_command blockdev_mirror_cmd = { .name = "blockdev-mirror",
                                                        .summary = "Mirror a disk to a node",
                                                        .args = blockdev_mirror_args,
                                                        .call = blockdev_mirror };
QMP_COMMAND(blockdev_mirror_cmd);

static const struct qmp_arg drive_mirror_args[] = { JOB_ARGS,
                                                    COPY_ARGS,
                                                    MIRROR_ARGS,
                                                    FILE_ARGS,
                                                    { "node-name", QMP_STRING, true,
                                                      "Name of the target's node" },
                                                    { 0 } };
static const struct qmp_command drive_mirror_cmd = { .name = "drive-mirror",
                                                     .summary = "Mirror a disk to a file",
                                                     .args = drive_mirror_args,
                                                     .call = drive_mirror };
QMP_COMMAND(drive_mirror_cmd);

/* ---- backup ---- */

struct backup_action {
    struct block_action action;
    struct job *job;
};

static bool take_backup(JsonObject *args, struct job_copy *w, GError **error)
{
    static const char *const bitmap_modes[] = { "on-success", "never", "always", NULL };
    int sync = SYNC_FULL, mode = BITMAP_ON_SUCCESS;
    const char *bitmap = arg_string(args, "bitmap");
    if (!arg_word(args, "sync", sync_words, &sync, error) ||
        !arg_word(args, "bitmap-mode", bitmap_modes, &mode, error))
        return false;
    if (sync == SYNC_BITMAP && !json_object_has_member(args, "bitmap-mode"))
        return ruche_error(error, RUCHE_ERR_INVALID, "sync=bitmap needs 'bitmap-mode'");
    w->sync = (enum sync_mode)sync;
    w->bitmap_mode = (enum bitmap_mode)mode;
    w->compress = arg_bool(args, "compress", false);
    w->filter_name = arg_string(args, "filter-node-name");
    if (bitmap)
        w->bitmap = dirty_find(node_skip_filters(w->source), bitmap);
    if (bitmap && !w->bitmap)
        return ruche_error(error, RUCHE_ERR_NOT_FOUND, "node '%s' has no bitmap '%s'",
                           node_name(node_skip_filters(w->source)), bitmap);
    JsonNode *perf = json_object_get_member(args, "x-perf");
    uint64_t workers = 0;
    if (perf && JSON_NODE_HOLDS_OBJECT(perf)) {
        if (!arg_u64(json_node_get_object(perf), "max-workers", 64, &workers, error) ||
            !arg_u64(json_node_get_object(perf), "max-chunk", INT64_MAX, &w->max_chunk, error))
            return false;
    }
    w->max_workers = (unsigned)workers;
    return true;
}

static bool start_backup(struct backup_action *b, JsonObject *args, bool by_name, GError **error)
{
    struct vmm *v = b->action.vmm;
    struct job_common c;
    struct job_copy w = { .source = block_node(v, arg_string(args, "device"), NULL, error) };
    if (!w.source || !block_job_common(v, args, w.source, &c, error) ||
        !take_backup(args, &w, error))
        return false;
    w.target = by_name ? open_target(v, args, w.source, w.sync, &w.target_is_new_zero, error)
                       : block_node(v, NULL, arg_string(args, "target"), error);
    c.txn = b->action.txn;
    c.hold = b->action.hold;
    b->job = w.target ? job_backup(v->jobs, &c, &w, error) : NULL;
    if (by_name)
        node_unref(w.target);
    return b->job != NULL;
}

static bool prepare_blockdev_backup(struct block_action *a, JsonObject *data, GError **error)
{
    return start_backup(container_of(a, struct backup_action, action), data, false, error);
}

static bool prepare_drive_backup(struct block_action *a, JsonObject *data, GError **error)
{
    return start_backup(container_of(a, struct backup_action, action), data, true, error);
}

static void commit_backup(struct block_action *a)
{
    if (a->hold)
        job_start(container_of(a, struct backup_action, action)->job);
}

static void abort_backup(struct block_action *a)
{
    struct backup_action *b = container_of(a, struct backup_action, action);
    if (b->job)
        job_drop(b->job);
}

#define BACKUP_ARGS                                                                                \
    { "bitmap", QMP_STRING, true, "Of the source: what changed" },                                 \
        { "bitmap-mode", QMP_STRING, true, "on-success, never, always" },                          \
        { "compress", QMP_BOOL, true, "Store compressed" },                                        \
    {                                                                                              \
        "x-perf", QMP_OBJECT, true, "max-workers, max-chunk"                                       \
    }

static const struct qmp_arg blockdev_backup_args[] = { JOB_ARGS, COPY_ARGS, BACKUP_ARGS, { 0 } };
static const struct block_action_type blockdev_backup_action = {
    .name = "blockdev-backup",
    .size = sizeof(struct backup_action),
    .args = blockdev_backup_args,
    .prepare = prepare_blockdev_backup,
    .commit = commit_backup,
    .abort = abort_backup,
};
BLOCK_ACTION(blockdev_backup_action);
static JsonNode *blockdev_backup(void *opaque, JsonObject *args, GError **error)
{
    return block_action_run(opaque, &blockdev_backup_action, args, error);
}
static const struct qmp_command blockdev_backup_cmd = {
    .name = "blockdev-backup",
    .summary = "Copy a disk's contents of this moment to a node",
    .args = blockdev_backup_args,
    .call = blockdev_backup,
};
QMP_COMMAND(blockdev_backup_cmd);

static const struct qmp_arg drive_backup_args[] = {
    JOB_ARGS, COPY_ARGS, BACKUP_ARGS, FILE_ARGS, { 0 }
};
static const struct block_action_type drive_backup_action = {
    .name = "drive-backup",
    .size = sizeof(struct backup_action),
    .args = drive_backup_args,
    .prepare = prepare_drive_backup,
    .commit = commit_backup,
    .abort = abort_backup,
};
BLOCK_ACTION(drive_backup_action);
static JsonNode *drive_backup(void *opaque, JsonObject *args, GError **error)
{
    return block_action_run(opaque, &drive_backup_action, args, error);
}
static const struct qmp_command drive_backup_cmd = {
    .name = "drive-backup",
    .summary = "Copy a disk's contents of this moment to a file",
    .args = drive_backup_args,
    .call = drive_backup,
};
QMP_COMMAND(drive_backup_cmd);

/* ---- within a chain ---- */

/* A node of n's chain by node-name or by file name. True with *ret NULL when neither is given. */
static bool chain_node(struct vmm *v, struct node *n, const char *name, const char *filename,
                       const char *what, struct node **ret, GError **error)
{
    *ret = NULL;
    if (name && filename)
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' and '%s-node' exclude each other", what,
                           what);
    if (name)
        return (*ret = block_node(v, NULL, name, error)) != NULL;
    if (!filename)
        return true;
    for (struct node *b = node_skip_filters(n); b; b = node_skip_filters(node_backing(b)))
        if (!strcmp(node_filename(b), filename)) {
            *ret = b;
            return true;
        }
    return ruche_error(error, RUCHE_ERR_NOT_FOUND, "%s '%s' is not in the backing chain of '%s'",
                       what, filename, node_name(n));
}

static JsonNode *block_stream(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    struct job_common c;
    struct node *base, *bottom, *n = block_node(v, arg_string(args, "device"), NULL, error);
    if (n && block_job_common(v, args, n, &c, error) &&
        chain_node(v, n, arg_string(args, "base-node"), arg_string(args, "base"), "base", &base,
                   error) &&
        chain_node(v, n, arg_string(args, "bottom"), NULL, "bottom", &bottom, error))
        job_stream(v->jobs, &c, n, base, bottom, arg_string(args, "backing-file"),
                   arg_string(args, "filter-node-name"), error);
    return NULL;
}
static const struct qmp_arg block_stream_args[] = {
    JOB_ARGS,
    { "device", QMP_STRING, false, "Disk or node to copy into" },
    { "base", QMP_STRING, true, "File name of the node below what is copied" },
    { "base-node", QMP_STRING, true, "The same, by node-name" },
    { "bottom", QMP_STRING, true, "The last node that is copied" },
    { "backing-file", QMP_STRING, true, "Backing file to write into the header" },
    { "on-error", QMP_STRING, true, "report, ignore, stop, enospc" },
    { "filter-node-name", QMP_STRING, true, "Name of the filter over the disk" },
    { 0 },
};
static const struct qmp_command block_stream_cmd = {
    .name = "block-stream",
    .summary = "Copy backing files into the image above",
    .args = block_stream_args,
    .call = block_stream,
};
QMP_COMMAND(block_stream_cmd);

static struct node *lowest(struct node *n)
{
    struct node *b = NULL;
    for (struct node *at = node_backing(n); at; at = node_backing(at))
        b = at;
    return b;
}

static JsonNode *block_commit(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    struct job_common c;
    struct node *base, *top, *n = block_node(v, arg_string(args, "device"), NULL, error);
    if (!n || !block_job_common(v, args, n, &c, error) ||
        !chain_node(v, n, arg_string(args, "base-node"), arg_string(args, "base"), "base", &base,
                    error) ||
        !chain_node(v, n, arg_string(args, "top-node"), arg_string(args, "top"), "top", &top,
                    error))
        return NULL;
    job_commit(v->jobs, &c, n, top, base ? base : lowest(n), arg_string(args, "backing-file"),
               arg_string(args, "filter-node-name"), error);
    return NULL;
}
static const struct qmp_arg block_commit_args[] = {
    JOB_ARGS,
    { "device", QMP_STRING, false, "The disk" },
    { "base", QMP_STRING, true, "File name of the node to copy into; the lowest by default" },
    { "base-node", QMP_STRING, true, "The same, by node-name" },
    { "top", QMP_STRING, true,
      "File name of the topmost node that is copied; the active one by default" },
    { "top-node", QMP_STRING, true, "The same, by node-name" },
    { "backing-file", QMP_STRING, true, "Backing file to write into the header above" },
    { "on-error", QMP_STRING, true, "report, ignore, stop, enospc" },
    { "filter-node-name", QMP_STRING, true, "Name of the filter over the topmost image" },
    { 0 },
};
static const struct qmp_command block_commit_cmd = {
    .name = "block-commit",
    .summary = "Copy images into one below them",
    .args = block_commit_args,
    .call = block_commit,
};
QMP_COMMAND(block_commit_cmd);
