/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: what the disks and nodes are, and what they did. */
#include "vmm/block.h"

#include "image/driver.h"

static void set_backend_names(JsonObject *o, const struct vm_drive *d)
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
        struct node *n = image_node(d->image);
        JsonObject *o = json_object_new();
        set_backend_names(o, d);
        json_object_set_string_member(o, "type", "unknown");
        json_object_set_boolean_member(o, "locked", FALSE);
        json_object_set_boolean_member(o, "removable", FALSE);
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

/* ---- statistics ---- */

/* QEMU's word for each kind of request; NULL: it has no member of that family. */
static const struct {
    enum image_op op;
    const char *bytes, *operations, *time, *failed, *invalid;
} families[] = {
    { IMAGE_READ, "rd_bytes", "rd_operations", "rd_total_time_ns", "failed_rd_operations",
      "invalid_rd_operations" },
    { IMAGE_WRITE, "wr_bytes", "wr_operations", "wr_total_time_ns", "failed_wr_operations",
      "invalid_wr_operations" },
    { IMAGE_FLUSH, NULL, "flush_operations", "flush_total_time_ns", "failed_flush_operations",
      "invalid_flush_operations" },
    { IMAGE_DISCARD, "unmap_bytes", "unmap_operations", "unmap_total_time_ns",
      "failed_unmap_operations", "invalid_unmap_operations" },
    { IMAGE_WRITE_ZEROES, "x_ruche_zero_bytes", "x_ruche_zero_operations",
      "x_ruche_zero_total_time_ns", "x_ruche_failed_zero_operations",
      "x_ruche_invalid_zero_operations" },
};

static JsonObject *describe_stats(const struct image_stats *s)
{
    JsonObject *o = json_object_new();
    for (size_t i = 0; i < G_N_ELEMENTS(families); i++) {
        enum image_op op = families[i].op;
        if (families[i].bytes)
            json_object_set_int_member(o, families[i].bytes, s->bytes[op]);
        json_object_set_int_member(o, families[i].operations, s->ops[op]);
        json_object_set_int_member(o, families[i].time, s->total_ns[op]);
        json_object_set_int_member(o, families[i].failed, s->failed[op]);
        json_object_set_int_member(o, families[i].invalid, s->invalid[op]);
    }
    json_object_set_int_member(o, "rd_merged", 0);
    json_object_set_int_member(o, "wr_merged", 0);
    json_object_set_int_member(o, "unmap_merged", 0);
    json_object_set_int_member(o, "wr_highest_offset", s->wr_highest_offset);
    if (s->idle_since_ns)
        json_object_set_int_member(o, "idle_time_ns", loop_now_ns() - s->idle_since_ns);
    json_object_set_boolean_member(o, "account_invalid", TRUE);
    json_object_set_boolean_member(o, "account_failed", TRUE);
    json_object_set_array_member(o, "timed_stats", json_array_new());
    return o;
}

/* Nodes are not counted one by one: what a disk did is its top's; below there is the shape
 * alone. */
static JsonObject *node_stats(struct node *n)
{
    static const struct image_stats none;
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "node-name", node_name(n));
    json_object_set_object_member(o, "stats", describe_stats(&none));
    if (node_file(n))
        json_object_set_object_member(o, "parent", node_stats(node_file(n)));
    return o;
}

static JsonNode *query_blockstats(void *opaque, JsonObject *args, GError **error)
{
    const struct vmm *v = opaque;
    JsonArray *list = json_array_new();
    if (arg_bool(args, "query-nodes", false)) {
        for (struct node *n = NULL; (n = graph_next(v->graph, n));)
            json_array_add_object_element(list, node_stats(n));
        return qmp_array(list);
    }
    for (guint i = 0; i < v->drives->len; i++) {
        const struct vm_drive *d = g_ptr_array_index(v->drives, i);
        struct node *n = image_node(d->image);
        JsonObject *o = n ? node_stats(n) : json_object_new();
        set_backend_names(o, d);
        json_object_set_object_member(o, "stats", describe_stats(image_get_stats(d->image)));
        if (n && node_backing(n))
            json_object_set_object_member(o, "backing", node_stats(node_backing(n)));
        json_array_add_object_element(list, o);
    }
    return qmp_array(list);
}
static const struct qmp_arg blockstats_args[] = {
    { "query-nodes", QMP_BOOL, true, "Every node, rather than every disk" },
    { 0 },
};
static const struct qmp_command query_blockstats_cmd = {
    .name = "query-blockstats",
    .summary = "What the disks did",
    .args = blockstats_args,
    .call = query_blockstats,
};
QMP_COMMAND(query_blockstats_cmd);
