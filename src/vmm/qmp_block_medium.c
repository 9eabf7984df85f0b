/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: media: eject, and the blockdev-*-tray and -medium commands.
 *
 * No device here has a tray or a medium that can be taken out: they answer that it is not removable. A -drive that no
 * device uses is a drive without a tray: its medium can be taken out, put in and changed.
 */
#include "vmm/block.h"

#include "image/driver.h"

#include <errno.h>

/* ---- who may ---- */

static struct vm_drive *removable_drive(struct vmm *v, JsonObject *args, GError **error)
{
    const char *id = arg_string(args, "id") ? arg_string(args, "id") : arg_string(args, "device");
    if (!id) {
        ruche_error(error, RUCHE_ERR_INVALID, "'device' or 'id' is missing");
        return NULL;
    }
    struct vm_drive *d = block_drive(v, id, error);
    if (d && image_attached_to(d->image)) {
        ruche_error(error, RUCHE_ERR_STATE, "device '%s' is not removable", id);
        return NULL;
    }
    return d;
}

/* ---- changes ---- */

struct medium_call {
    struct image *image;
    struct node *node; /* NULL: none */
    GError **error;
};

static int set_medium(void *opaque)
{
    struct medium_call *c = opaque;
    return image_set_node(c->image, c->node, c->error) ? 0 : -EBUSY;
}

static bool take_out(struct vm_drive *d, GError **error)
{
    struct node *n = image_node(d->image);
    const char *why = n ? node_blocked_by(node_skip_filters(n)) : NULL;
    struct medium_call c = { .image = d->image, .error = error };
    if (!n)
        return true;
    if (why)
        return ruche_error(error, RUCHE_ERR_BUSY, "node '%s' is busy: %s", node_name(n), why);
    node_ref(n);
    bool ok = block_run(n, set_medium, &c) >= 0;
    node_unref(n);
    return ok;
}

static bool put_in(struct vmm *v, struct vm_drive *d, struct node *n, GError **error)
{
    struct medium_call c = { .image = d->image, .node = n, .error = error };
    if (image_node(d->image))
        return ruche_error(error, RUCHE_ERR_STATE, "device '%s' has a medium already", d->id);
    if (n->users)
        return ruche_error(error, RUCHE_ERR_BUSY, "node '%s' is in use by %s", node_name(n),
                           n->users->who);
    return node_move(n, v->image_context, error) && block_run(n, set_medium, &c) >= 0;
}

/* ---- commands ---- */

static JsonNode *move_tray(void *opaque, JsonObject *args, GError **error)
{
    removable_drive(opaque, args, error);
    return NULL;
}

static JsonNode *eject(void *opaque, JsonObject *args, GError **error)
{
    struct vm_drive *d = removable_drive(opaque, args, error);
    if (d)
        take_out(d, error);
    return NULL;
}

static JsonNode *insert_medium(void *opaque, JsonObject *args, GError **error)
{
    struct vm_drive *d = removable_drive(opaque, args, error);
    struct node *n = d ? block_node(opaque, NULL, arg_string(args, "node-name"), error) : NULL;
    if (n)
        put_in(opaque, d, n, error);
    return NULL;
}

/* A format is guessed only for what nobody writes to; as for -drive. */
static struct node *open_medium(struct vmm *v, JsonObject *args, bool read_only, GError **error)
{
    const char *file = arg_string(args, "filename"), *format = arg_string(args, "format");
    g_autoptr(JsonObject) more = json_object_new();
    if (!format && !read_only) {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "'format' is missing: it is not guessed for a medium that can be written to");
        return NULL;
    }
    if (read_only)
        json_object_set_boolean_member(more, "read-only", TRUE);
    return node_open_name(v->graph, file, format, more,
                          (read_only ? 0 : NODE_RW) | (format ? 0 : NODE_PROBE), error);
}

static JsonNode *change_medium(void *opaque, JsonObject *args, GError **error)
{
    static const char *const modes[] = { "retain", "read-only", "read-write", NULL };
    struct vmm *v = opaque;
    int mode = 0;
    struct vm_drive *d = removable_drive(v, args, error);
    if (!d || !arg_word(args, "read-only-mode", modes, &mode, error))
        return NULL;
    const struct node *former = image_node(d->image);
    bool read_only = mode == 1 || (mode == 0 && former && node_is_read_only(former));
    struct node *n = open_medium(v, args, read_only, error);
    if (n && take_out(d, error))
        put_in(v, d, n, error);
    node_unref(n);
    return NULL;
}

#define DRIVE_ARGS                                                                                 \
    { "device", QMP_STRING, true, "The disk" }, { "id", QMP_STRING, true, "Or its device" }
#define FORCE { "force", QMP_BOOL, true, "Accepted: no tray is locked" }

static const struct qmp_arg force_args[] = { DRIVE_ARGS, FORCE, { 0 } };
static const struct qmp_arg drive_args[] = { DRIVE_ARGS, { 0 } };
static const struct qmp_arg remove_args[] = { { "id", QMP_STRING, false, "The disk" }, { 0 } };
static const struct qmp_arg insert_args[] = { { "id", QMP_STRING, false, "The disk" },
                                              { "node-name", QMP_STRING, false, "The medium" },
                                              { 0 } };
static const struct qmp_arg change_args[] = {
    DRIVE_ARGS,
    { "filename", QMP_STRING, false, "The new medium" },
    { "format", QMP_STRING, true, "Its format; guessed if it is read-only" },
    FORCE,
    { "read-only-mode", QMP_STRING, true, "retain, read-only, read-write" },
    { 0 },
};

#define COMMAND(symbol, name_, summary_, args_, call_)                                             \
    static const struct qmp_command symbol = {                                                     \
        .name = name_, .summary = summary_, .args = args_, .call = call_                           \
    };                                                                                             \
    QMP_COMMAND(symbol)

COMMAND(eject_cmd, "eject", "Take a medium out", force_args, eject);
COMMAND(open_tray_cmd, "blockdev-open-tray", "Open a tray", force_args, move_tray);
COMMAND(close_tray_cmd, "blockdev-close-tray", "Close a tray", drive_args, move_tray);
COMMAND(remove_medium_cmd, "blockdev-remove-medium", "Take a medium out", remove_args, eject);
COMMAND(insert_medium_cmd, "blockdev-insert-medium", "Put a node in as medium", insert_args, insert_medium);
COMMAND(change_medium_cmd, "blockdev-change-medium", "Put a file in as medium", change_args, change_medium);
