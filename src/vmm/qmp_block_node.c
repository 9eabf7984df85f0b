/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: nodes and disks as objects: add, delete, reopen, create, amend, resize, limit. */
#include "vmm/block.h"

#include "image/driver.h"

#include <errno.h>
#include <string.h>

/* ---- add, delete ---- */

static JsonNode *blockdev_add(void *opaque, JsonObject *args, GError **error)
{
    block_add_node(opaque, args, error);
    return NULL;
}
static const struct qmp_arg blockdev_add_args[] = {
    { "driver", QMP_STRING, false, "Format, protocol or filter" },
    { "node-name", QMP_STRING, true, "Its name, which it must have" },
    { "read-only", QMP_BOOL, true, "Never write" },
    { "auto-read-only", QMP_BOOL, true, "Only read where writing is not allowed" },
    { "force-share", QMP_BOOL, true, "Read although others may write" },
    { "discard", QMP_STRING, true, "ignore, unmap" },
    { "detect-zeroes", QMP_STRING, true, "off, on, unmap" },
    { "cache", QMP_OBJECT, true, "direct, no-flush" },
    { "*", QMP_ANY, true, "Its options and children" },
    { 0 },
};
static const struct qmp_command blockdev_add_cmd = { .name = "blockdev-add",
                                                     .summary = "Open an image as a node",
                                                     .args = blockdev_add_args,
                                                     .call = blockdev_add };
QMP_COMMAND(blockdev_add_cmd);

static const char *user_of(struct vmm *v, struct node *n)
{
    if (n->users)
        return n->users->who;
    for (struct node *p = NULL; (p = graph_next(v->graph, p));)
        for (unsigned i = 0; i < p->child_count; i++)
            if (p->children[i]->node == n)
                return node_name(p);
    return node_blocked_by(n);
}

/* A disk that a device once had, and that nobody has any more, goes with its node. */
static void drop_idle_drive(struct vmm *v, const char *name)
{
    struct vm_drive *d = vmm_find_drive(v, name);
    if (d && !d->is_drive && !image_attached_to(d->image))
        g_ptr_array_remove(v->drives, d);
}

static JsonNode *blockdev_del(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    const char *name = arg_string(args, "node-name");
    drop_idle_drive(v, name);
    struct node *n = graph_find(v->graph, name);
    if (!n) {
        ruche_error(error, RUCHE_ERR_STATE, "there is no node '%s'", name);
    } else if (!n->user_ref) {
        ruche_error(error, RUCHE_ERR_STATE,
                    "node '%s' was not made by blockdev-add: it goes with its owner", name);
    } else if (n->refs > 1) {
        const char *who = user_of(v, n);
        ruche_error(error, RUCHE_ERR_BUSY, "node '%s' is in use by %s", name, who ? who : "a job");
    } else {
        n->user_ref = false;
        node_unref(n);
    }
    return NULL;
}
static const struct qmp_arg blockdev_del_args[] = {
    { "node-name", QMP_STRING, false, "The node" },
    { 0 },
};
static const struct qmp_command blockdev_del_cmd = { .name = "blockdev-del",
                                                     .summary = "Close a node",
                                                     .args = blockdev_del_args,
                                                     .call = blockdev_del };
QMP_COMMAND(blockdev_del_cmd);

/* ---- create, amend ---- */

static JsonNode *blockdev_create(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    const struct job_common c = { .id = arg_string(args, "job-id"), .auto_finalize = true };
    job_create(v->jobs, &c, v->graph, json_object_get_object_member(args, "options"), error);
    return NULL;
}
static const struct qmp_arg blockdev_create_args[] = {
    { "job-id", QMP_STRING, false, "The job's name" },
    { "options", QMP_OBJECT, false, "driver, file or filename, size, and the format's" },
    { 0 },
};
static const struct qmp_command blockdev_create_cmd = {
    .name = "blockdev-create",
    .summary = "Make an image",
    .args = blockdev_create_args,
    .call = blockdev_create,
};
QMP_COMMAND(blockdev_create_cmd);

static JsonNode *blockdev_amend(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    const struct job_common c = { .id = arg_string(args, "job-id"), .auto_finalize = true };
    struct node *n = block_node(v, NULL, arg_string(args, "node-name"), error);
    if (n)
        job_amend(v->jobs, &c, n, json_object_get_object_member(args, "options"),
                  arg_bool(args, "force", false), error);
    return NULL;
}
static const struct qmp_arg blockdev_amend_args[] = {
    { "job-id", QMP_STRING, false, "The job's name" },
    { "node-name", QMP_STRING, false, "The node" },
    { "options", QMP_OBJECT, false, "driver, and what is to change" },
    { "force", QMP_BOOL, true, "Also what may lock its owner out" },
    { 0 },
};
static const struct qmp_command blockdev_amend_cmd = {
    .name = "x-blockdev-amend",
    .summary = "Change a format's options",
    .args = blockdev_amend_args,
    .call = blockdev_amend,
};
QMP_COMMAND(blockdev_amend_cmd);

/* ---- I/O threads ---- */

struct context *block_iothread(struct vmm *v, const char *id, GError **error)
{
    for (guint i = 0; i < v->iothreads->len; i++) {
        const struct vm_iothread *t = g_ptr_array_index(v->iothreads, i);
        if (!strcmp(t->id, id))
            return t->images;
    }
    ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no I/O thread '%s'", id);
    return NULL;
}

static JsonNode *set_iothread(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    struct node *n = block_node(v, NULL, arg_string(args, "node-name"), error);
    const char *id = arg_string(args, "iothread");
    struct context *c = !n ? NULL : id ? block_iothread(v, id, error) : v->image_context;
    if (c)
        node_move(n, c, error);
    return NULL;
}
static const struct qmp_arg set_iothread_args[] = {
    { "node-name", QMP_STRING, false, "The node, which no device uses" },
    { "iothread", QMP_ANY, false, "Its I/O thread from now on; null: the main loop" },
    { "force", QMP_BOOL, true, "Accepted; a device's node stays with it all the same" },
    { 0 },
};
static const struct qmp_command set_iothread_cmd = { .name = "x-blockdev-set-iothread",
                                                     .summary = "Move a node to an I/O thread",
                                                     .args = set_iothread_args,
                                                     .call = set_iothread };
QMP_COMMAND(set_iothread_cmd);

/* ---- size ---- */

struct resize_call {
    struct node *node;
    uint64_t size;
    GError **error;
};

static int resize(void *opaque)
{
    struct resize_call *c = opaque;
    node_drain_begin(c->node);
    bool ok = node_resize(c->node, c->size, PREALLOC_OFF, c->error);
    node_drain_end(c->node);
    return ok ? 0 : -EINVAL;
}

static JsonNode *block_resize(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    struct resize_call c = { .error = error };
    c.node = block_node(v, arg_string(args, "device"), arg_string(args, "node-name"), error);
    if (!c.node || !arg_u64(args, "size", IMAGE_SIZE_MAX, &c.size, error))
        return NULL;
    const char *why = node_blocked_by(node_skip_filters(c.node));
    if (why)
        ruche_error(error, RUCHE_ERR_BUSY, "node '%s' is busy: %s", node_name(c.node), why);
    else
        block_run(c.node, resize, &c);
    return NULL;
}
static const struct qmp_arg block_resize_args[] = {
    { "device", QMP_STRING, true, "The disk" },
    { "node-name", QMP_STRING, true, "Or the node" },
    { "size", QMP_INT, false, "Bytes" },
    { 0 },
};
static const struct qmp_command block_resize_cmd = { .name = "block_resize",
                                                     .summary = "Grow or shrink a disk",
                                                     .args = block_resize_args,
                                                     .call = block_resize };
QMP_COMMAND(block_resize_cmd);

/* ---- limits ---- */

static bool take_limits(JsonObject *args, struct throttle_limits *l, GError **error)
{
    for (const struct throttle_name *t = throttle_names; t->qmp; t++) {
        g_autofree char *max = g_strdup_printf("%s_max", t->qmp),
                        *length = g_strdup_printf("%s_max_length", t->qmp);
        l->of[t->kind].length = 1;
        if (!arg_u64(args, t->qmp, THROTTLE_VALUE_MAX, &l->of[t->kind].avg, error) ||
            !arg_u64(args, max, THROTTLE_VALUE_MAX, &l->of[t->kind].max, error) ||
            !arg_u64(args, length, THROTTLE_VALUE_MAX, &l->of[t->kind].length, error))
            return false;
    }
    return arg_u64(args, "iops_size", THROTTLE_VALUE_MAX, &l->op_size, error) &&
           throttle_check(l, error);
}

struct throttle_call {
    struct image *image;
    const char *group;
    const struct throttle_limits *limits;
};

/* Requests that wait for the old limits go first. */
static int change_group(void *opaque)
{
    struct throttle_call *c = opaque;
    struct node *n = image_node(c->image);
    node_drain_begin(n);
    context_sleep_ns(node_context(n), 0);
    image_set_throttle(c->image, c->group, c->limits);
    node_drain_end(n);
    return 0;
}

static JsonNode *set_throttle(void *opaque, JsonObject *args, GError **error)
{
    struct throttle_limits limits = { 0 }, former;
    const char *id = arg_string(args, "id") ? arg_string(args, "id") : arg_string(args, "device"),
               *group = NULL;
    if (!id) {
        ruche_error(error, RUCHE_ERR_INVALID, "'device' or 'id' is missing");
        return NULL;
    }
    struct vm_drive *d = block_drive(opaque, id, error);
    if (!d || !take_limits(args, &limits, error))
        return NULL;
    bool limited = image_get_throttle(d->image, &group, &former);
    const char *wanted = arg_string(args, "group") ? arg_string(args, "group")
                         : limited                 ? group
                                                   : d->id;
    struct throttle_group *g =
        limited && !g_strcmp0(wanted, group) ? throttle_group_find(group) : NULL;
    struct throttle_call c = { .image = d->image, .group = wanted, .limits = &limits };
    if (g)
        throttle_group_set(g, &limits);
    else if (image_node(d->image))
        block_run(image_node(d->image), change_group, &c);
    throttle_group_put(g);
    return NULL;
}
#define LIMIT(name)                                                                                \
    {                                                                                              \
        name, QMP_INT, false, "A second; 0: no limit"                                              \
    }
#define BURST(name)                                                                                \
    { name "_max", QMP_INT, true, "In a burst" },                                                  \
    {                                                                                              \
        name "_max_length", QMP_INT, true, "Seconds of a burst"                                    \
    }
static const struct qmp_arg set_throttle_args[] = {
    { "device", QMP_STRING, true, "The disk" },
    { "id", QMP_STRING, true, "Or its device" },
    LIMIT("bps"),
    LIMIT("bps_rd"),
    LIMIT("bps_wr"),
    LIMIT("iops"),
    LIMIT("iops_rd"),
    LIMIT("iops_wr"),
    BURST("bps"),
    BURST("bps_rd"),
    BURST("bps_wr"),
    BURST("iops"),
    BURST("iops_rd"),
    BURST("iops_wr"),
    { "iops_size", QMP_INT, true, "Bytes that count as one operation" },
    { "group", QMP_STRING, true, "Disks of a group share the limits" },
    { 0 },
};
static const struct qmp_command set_throttle_cmd = {
    .name = "block_set_io_throttle",
    .summary = "Limit a disk",
    .args = set_throttle_args,
    .call = set_throttle,
};
QMP_COMMAND(set_throttle_cmd);

/* ---- threshold ---- */

uint64_t block_write_threshold(struct node *n)
{
    return __atomic_load_n(&n->write_threshold, __ATOMIC_RELAXED);
}

static JsonNode *set_threshold(void *opaque, JsonObject *args, GError **error)
{
    struct node *n = block_node(opaque, NULL, arg_string(args, "node-name"), error);
    uint64_t threshold = 0;
    if (n && arg_u64(args, "write-threshold", INT64_MAX, &threshold, error))
        __atomic_store_n(&n->write_threshold, threshold, __ATOMIC_RELAXED);
    return NULL;
}
static const struct qmp_arg set_threshold_args[] = {
    { "node-name", QMP_STRING, false, "The node" },
    { "write-threshold", QMP_INT, false, "Bytes; 0: none" },
    { 0 },
};
static const struct qmp_command set_threshold_cmd = {
    .name = "block-set-write-threshold",
    .summary = "Tell when a node is written past here",
    .args = set_threshold_args,
    .call = set_threshold,
};
QMP_COMMAND(set_threshold_cmd);

/* ---- backing file ---- */

struct backing_call {
    struct node *node;
    const char *file;
    GError **error;
};

static int change_backing(void *opaque)
{
    struct backing_call *c = opaque;
    struct node *b = node_backing(c->node);
    bool was_read_only = node_is_read_only(c->node);
    node_drain_begin(c->node);
    bool ok = !was_read_only || node_set_read_only(c->node, false, c->error);
    ok = ok && node_change_backing(c->node, *c->file ? c->file : NULL,
                                   b ? node_format(node_skip_filters(b)) : NULL, c->error);
    if (was_read_only)
        node_set_read_only(c->node, true, NULL);
    node_drain_end(c->node);
    return ok ? 0 : -EINVAL;
}

static JsonNode *change_backing_file(void *opaque, JsonObject *args, GError **error)
{
    struct backing_call c = { .file = arg_string(args, "backing-file"), .error = error };
    struct node *top = block_node(opaque, arg_string(args, "device"), NULL, error);
    c.node = top ? block_node(opaque, NULL, arg_string(args, "image-node-name"), error) : NULL;
    if (c.node)
        block_run(c.node, change_backing, &c);
    return NULL;
}
static const struct qmp_arg change_backing_args[] = {
    { "device", QMP_STRING, false, "The disk" },
    { "image-node-name", QMP_STRING, false, "The node of its chain whose header changes" },
    { "backing-file", QMP_STRING, false, "What it shall name" },
    { 0 },
};
static const struct qmp_command change_backing_cmd = {
    .name = "change-backing-file",
    .summary = "Change the backing file that a header names",
    .args = change_backing_args,
    .call = change_backing_file,
};
QMP_COMMAND(change_backing_cmd);
