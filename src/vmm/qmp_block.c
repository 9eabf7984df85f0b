/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: what the disks and nodes are. */
#include "vmm/block.h"

#include "image/driver.h"

void block_set_backend_names(JsonObject *o, const struct vm_drive *d)
{
    const char *user = image_attached_to(d->image);
    json_object_set_string_member(o, "device", d->is_drive ? d->id : "");
    if (user)
        json_object_set_string_member(o, "qdev", user);
}

static JsonNode *query_block(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    JsonArray *list = json_array_new();
    for (guint i = 0; i < v->drives->len; i++) {
        struct vm_drive *d = g_ptr_array_index(v->drives, i);
        struct node *n = block_shown_node(d);
        JsonObject *o = json_object_new();
        block_set_backend_names(o, d);
        json_object_set_string_member(o, "type", "unknown");
        json_object_set_boolean_member(o, "locked", FALSE);
        json_object_set_boolean_member(o, "removable", !image_attached_to(d->image));
        json_object_set_string_member(o, "io-status",
                                      v->machine->state == RUN_IO_ERROR ? "failed" : "ok");
        if (n) {
            JsonObject *inserted = describe_node(v, n, false);
            struct node *image = node_skip_filters(n);
            if (image->bitmaps)
                json_object_set_array_member(inserted, "dirty-bitmaps", describe_bitmaps(image));
            json_object_set_object_member(o, "inserted", inserted);
        }
        json_array_add_object_element(list, o);
    }
    return qmp_array(list);
}
static const struct qmp_command query_block_cmd = { .name = "query-block",
                                                    .summary = "Disks",
                                                    .call = query_block };
QMP_COMMAND(query_block_cmd);

static JsonNode *query_nodes(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    JsonArray *list = json_array_new();
    for (struct node *n = NULL; (n = graph_next(v->graph, n));)
        json_array_add_object_element(list, describe_node(v, n, arg_bool(args, "flat", false)));
    return qmp_array(list);
}
static const struct qmp_arg query_nodes_args[] = {
    { "flat", QMP_BOOL, true, "Without the images below" },
    { 0 },
};
static const struct qmp_command query_nodes_cmd = {
    .name = "query-named-block-nodes",
    .summary = "Nodes: files, formats, filters",
    .args = query_nodes_args,
    .call = query_nodes,
};
QMP_COMMAND(query_nodes_cmd);
