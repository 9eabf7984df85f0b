/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: snapshots: an overlay over a disk (external), or within its image (internal).
 *
 * Crash     The overlay's header names the former image before it takes its place; from then on the
 *           former one is only read. Undone, the disk has its former image back, and an overlay
 *           that was made here is removed.
 */
#include "vmm/block.h"

#include "base/log.h"
#include "image/driver.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* ---- external ---- */

struct overlay_action {
    struct block_action action;
    struct node *below, *overlay; /* referenced */
    char *created;                /* file to remove when undone */
    bool in_place;
};

static struct overlay_action *overlay_of(struct block_action *a)
{
    return container_of(a, struct overlay_action, action);
}

struct overlay_call {
    struct overlay_action *o;
    GError **error;
};

static int put_over(void *opaque)
{
    struct overlay_call *c = opaque;
    struct overlay_action *o = c->o;
    node_drain_begin(o->below);
    o->in_place = node_set_backing(o->overlay, o->below, c->error) &&
                  node_replace(o->below, o->overlay, c->error);
    if (!o->in_place)
        node_set_backing(o->overlay, NULL, NULL);
    node_drain_end(o->below);
    return o->in_place ? 0 : -EBUSY;
}

static int take_away(void *opaque)
{
    struct overlay_action *o = opaque;
    node_drain_begin(o->overlay);
    node_replace(o->overlay, o->below, NULL);
    node_set_backing(o->overlay, NULL, NULL);
    node_drain_end(o->overlay);
    return 0;
}

static int make_read_only(void *opaque)
{
    struct overlay_action *o = opaque;
    g_autoptr(GError) error = NULL;
    if (!node_set_read_only(node_skip_filters(o->below), true, &error))
        log_warn("snapshot: %s", error->message);
    return 0;
}

static bool check_below(struct node *n, GError **error)
{
    const char *why = node_blocked_by(node_skip_filters(n));
    return !why || ruche_error(error, RUCHE_ERR_BUSY, "node '%s' is busy: %s", node_name(n), why);
}

static bool install(struct overlay_action *o, GError **error)
{
    struct overlay_call c = { .o = o, .error = error };
    if (node_size(o->overlay) < node_size(o->below))
        return ruche_error(error, RUCHE_ERR_INVALID, "overlay '%s' is smaller than '%s'",
                           node_name(o->overlay), node_name(o->below));
    return block_run(o->below, put_over, &c) >= 0;
}

static void commit_overlay(struct block_action *a)
{
    struct overlay_action *o = overlay_of(a);
    block_run(o->below, make_read_only, o);
}

static void abort_overlay(struct block_action *a)
{
    struct overlay_action *o = overlay_of(a);
    if (o->in_place)
        block_run(o->below, take_away, o);
    if (o->created)
        unlink(o->created);
}

static void clean_overlay(struct block_action *a)
{
    struct overlay_action *o = overlay_of(a);
    node_unref(o->overlay);
    node_unref(o->below);
    g_free(o->created);
}

/* blockdev-snapshot: the overlay is a node that is there. */
static bool prepare_snapshot(struct block_action *a, JsonObject *data, GError **error)
{
    struct overlay_action *o = overlay_of(a);
    struct node *n = block_node(a->vmm, arg_string(data, "node"), NULL, error);
    struct node *overlay = n ? block_node(a->vmm, NULL, arg_string(data, "overlay"), error) : NULL;
    if (!overlay)
        return false;
    o->below = node_ref(n);
    o->overlay = node_ref(overlay);
    if (!check_below(n, error))
        return false;
    if (overlay->users)
        return ruche_error(error, RUCHE_ERR_BUSY, "overlay '%s' is used by %s", node_name(overlay),
                           overlay->users->who);
    if (node_backing(overlay))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "overlay '%s' has a backing file: open it with \"backing\": null",
                           node_name(overlay));
    return node_move(overlay, node_context(n), error) && install(o, error);
}

static const char *const snapshot_modes[] = { "absolute-paths", "existing", NULL };

/* blockdev-snapshot-sync: the overlay is a file. */
static bool prepare_snapshot_sync(struct block_action *a, JsonObject *data, GError **error)
{
    struct overlay_action *o = overlay_of(a);
    const char *file = arg_string(data, "snapshot-file"), *format = arg_string(data, "format");
    int mode = 0;
    struct node *n =
        block_node(a->vmm, arg_string(data, "device"), arg_string(data, "node-name"), error);
    if (!n || !arg_word(data, "mode", snapshot_modes, &mode, error))
        return false;
    o->below = node_ref(n);
    if (!check_below(n, error))
        return false;
    if (!format)
        format = "qcow2";
    if (mode == 0 && !block_create_file(a->vmm, file, format, n, n, error))
        return false;
    o->created = mode == 0 ? g_strdup(file) : NULL;
    o->overlay = block_open_file(a->vmm, file, format, arg_string(data, "snapshot-node-name"),
                                 node_skip_filters(n), NULL, error);
    return o->overlay && install(o, error);
}

static const struct qmp_arg snapshot_args[] = {
    { "node", QMP_STRING, false, "The disk or node to keep" },
    { "overlay", QMP_STRING, false, "The node that takes its place" },
    { 0 },
};
static const struct qmp_arg snapshot_sync_args[] = {
    { "device", QMP_STRING, true, "The disk" },
    { "node-name", QMP_STRING, true, "Or the node" },
    { "snapshot-file", QMP_STRING, false, "File of the overlay" },
    { "snapshot-node-name", QMP_STRING, true, "Node-name of the overlay" },
    { "format", QMP_STRING, true, "qcow2 by default" },
    { "mode", QMP_STRING, true, "absolute-paths: made anew; existing" },
    { 0 },
};

#define OVERLAY_ACTION(symbol, command, help)                                                      \
    static const struct block_action_type symbol##_action = {                                      \
        .name = command,                                                                           \
        .size = sizeof(struct overlay_action),                                                     \
        .args = symbol##_args,                                                                     \
        .prepare = prepare_##symbol,                                                               \
        .commit = commit_overlay,                                                                  \
        .abort = abort_overlay,                                                                    \
        .clean = clean_overlay,                                                                    \
    };                                                                                             \
    BLOCK_ACTION(symbol##_action);                                                                 \
    static JsonNode *symbol(void *opaque, JsonObject *args, GError **error)                        \
    {                                                                                              \
        return block_action_run(opaque, &symbol##_action, args, error);                            \
    }                                                                                              \
    static const struct qmp_command symbol##_cmd = {                                               \
        .name = command, .summary = help, .args = symbol##_args, .call = symbol                    \
    };                                                                                             \
    QMP_COMMAND(symbol##_cmd)

OVERLAY_ACTION(snapshot, "blockdev-snapshot", "Put a node over a disk");
OVERLAY_ACTION(snapshot_sync, "blockdev-snapshot-sync", "Put a file over a disk");

/* ---- internal ---- */

struct internal_action {
    struct block_action action;
    struct node *node; /* referenced */
    char *name;
    bool made;
};

struct internal_call {
    struct node *node;
    const char *id, *name;
    struct snapshot_info found; /* strings are the caller's to free */
    GError **error;
};

static int create_internal(void *opaque)
{
    struct internal_call *c = opaque;
    gint64 now = g_get_real_time();
    const struct snapshot_info s = { .id = (char *)"",
                                     .name = (char *)c->name,
                                     .size_bytes = node_size(c->node),
                                     .date_sec = now / G_USEC_PER_SEC,
                                     .date_nsec = now % G_USEC_PER_SEC * 1000 };
    node_drain_begin(c->node);
    bool ok =
        node_flush(c->node) >= 0 ||
        ruche_error(c->error, RUCHE_ERR_IO, "node '%s' cannot be flushed", node_name(c->node));
    ok = ok && c->node->driver->snapshot_create(c->node, &s, c->error);
    node_drain_end(c->node);
    return ok ? 0 : -EIO;
}

static bool fits(const struct internal_call *c, const struct snapshot_info *s)
{
    return (!c->id || !strcmp(c->id, s->id)) && (!c->name || !strcmp(c->name, s->name));
}

/* The snapshot of that id and name; found.id NULL: none. */
static int find_internal(void *opaque)
{
    struct internal_call *c = opaque;
    struct snapshot_info *list = NULL;
    unsigned count = 0;
    int err = c->node->driver->snapshot_list(c->node, &list, &count);
    for (unsigned i = 0; err >= 0 && i < count; i++) {
        if (!c->found.id && fits(c, &list[i])) {
            c->found = list[i];
            continue;
        }
        g_free(list[i].id);
        g_free(list[i].name);
    }
    g_free(list);
    return err;
}

static int delete_internal(void *opaque)
{
    struct internal_call *c = opaque;
    node_drain_begin(c->node);
    bool ok = c->node->driver->snapshot_delete(c->node, c->id, c->error);
    node_drain_end(c->node);
    return ok ? 0 : -EIO;
}

static struct node *node_with_snapshots(struct vmm *v, const char *device, GError **error)
{
    struct node *n = block_node(v, device, NULL, error);
    if (!n)
        return NULL;
    n = node_skip_filters(n);
    if (n->driver->snapshot_create && n->driver->snapshot_list && n->driver->snapshot_delete)
        return n;
    ruche_error(error, RUCHE_ERR_UNSUPPORTED, "disk '%s': format '%s' has no internal snapshots",
                device, node_format(n));
    return NULL;
}

static bool prepare_internal(struct block_action *a, JsonObject *data, GError **error)
{
    struct internal_action *s = container_of(a, struct internal_action, action);
    const char *name = arg_string(data, "name");
    struct node *n = node_with_snapshots(a->vmm, arg_string(data, "device"), error);
    if (!n || !check_below(n, error))
        return false;
    s->node = node_ref(n);
    s->name = g_strdup(name);
    struct internal_call c = { .node = n, .name = name, .error = error };
    if (!*name)
        return ruche_error(error, RUCHE_ERR_INVALID, "a snapshot needs a name");
    if (node_is_read_only(n))
        return ruche_error(error, RUCHE_ERR_STATE, "node '%s' is read-only", node_name(n));
    block_run(n, find_internal, &c);
    if (c.found.id) {
        g_free(c.found.id);
        g_free(c.found.name);
        return ruche_error(error, RUCHE_ERR_EXISTS, "disk '%s' has a snapshot '%s' already",
                           arg_string(data, "device"), name);
    }
    s->made = block_run(n, create_internal, &c) >= 0;
    return s->made;
}

static void abort_internal(struct block_action *a)
{
    struct internal_action *s = container_of(a, struct internal_action, action);
    g_autoptr(GError) error = NULL;
    struct internal_call c = { .node = s->node, .id = s->name, .error = &error };
    if (s->made && block_run(s->node, delete_internal, &c) < 0)
        log_warn("transaction: snapshot '%s' is left behind: %s", s->name, error->message);
}

static void clean_internal(struct block_action *a)
{
    struct internal_action *s = container_of(a, struct internal_action, action);
    node_unref(s->node);
    g_free(s->name);
}

static const struct qmp_arg internal_args[] = {
    { "device", QMP_STRING, false, "The disk" },
    { "name", QMP_STRING, false, "The snapshot's name" },
    { 0 },
};
static const struct block_action_type internal_action = {
    .name = "blockdev-snapshot-internal-sync",
    .size = sizeof(struct internal_action),
    .args = internal_args,
    .prepare = prepare_internal,
    .abort = abort_internal,
    .clean = clean_internal,
};
BLOCK_ACTION(internal_action);
static JsonNode *snapshot_internal(void *opaque, JsonObject *args, GError **error)
{
    return block_action_run(opaque, &internal_action, args, error);
}
static const struct qmp_command snapshot_internal_cmd = {
    .name = "blockdev-snapshot-internal-sync",
    .summary = "Keep this moment within the disk's image",
    .args = internal_args,
    .call = snapshot_internal,
};
QMP_COMMAND(snapshot_internal_cmd);

static JsonNode *describe_deleted(const struct snapshot_info *s)
{
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "id", s->id);
    json_object_set_string_member(o, "name", s->name);
    json_object_set_int_member(o, "vm-state-size", s->vm_state_bytes);
    json_object_set_int_member(o, "date-sec", s->date_sec);
    json_object_set_int_member(o, "date-nsec", s->date_nsec);
    json_object_set_int_member(o, "vm-clock-sec", s->vm_clock_ns / NS_PER_SEC);
    json_object_set_int_member(o, "vm-clock-nsec", s->vm_clock_ns % NS_PER_SEC);
    return qmp_object(o);
}

static JsonNode *snapshot_delete(void *opaque, JsonObject *args, GError **error)
{
    const char *device = arg_string(args, "device");
    struct node *n = node_with_snapshots(opaque, device, error);
    struct internal_call c = {
        .node = n, .id = arg_string(args, "id"), .name = arg_string(args, "name"), .error = error
    };
    JsonNode *result = NULL;
    if (!n || !check_below(n, error))
        return NULL;
    if (!c.id && !c.name) {
        ruche_error(error, RUCHE_ERR_INVALID, "'id' or 'name' is missing");
        return NULL;
    }
    block_run(n, find_internal, &c);
    if (!c.found.id) {
        ruche_error(error, RUCHE_ERR_STATE, "disk '%s' has no snapshot '%s'", device,
                    c.name ? c.name : c.id);
        return NULL;
    }
    c.id = c.found.id;
    if (block_run(n, delete_internal, &c) >= 0)
        result = describe_deleted(&c.found);
    g_free(c.found.id);
    g_free(c.found.name);
    return result;
}
static const struct qmp_arg snapshot_delete_args[] = {
    { "device", QMP_STRING, false, "The disk" },
    { "id", QMP_STRING, true, "The snapshot's id" },
    { "name", QMP_STRING, true, "The snapshot's name" },
    { 0 },
};
static const struct qmp_command snapshot_delete_cmd = {
    .name = "blockdev-snapshot-delete-internal-sync",
    .summary = "Drop a snapshot of the disk's image",
    .args = snapshot_delete_args,
    .call = snapshot_delete,
};
QMP_COMMAND(snapshot_delete_cmd);
