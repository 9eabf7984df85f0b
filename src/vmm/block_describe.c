/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Nodes as query-block and query-named-block-nodes show them.
 *
 * Spec      QAPI's ImageInfo, BlockDeviceInfo, BlockDirtyInfo.
 */
#include "vmm/block.h"

#include "image/dirty.h"
#include "image/driver.h"

#include <string.h>

static void set_string(JsonObject *o, const char *name, const char *value)
{
    if (value && *value)
        json_object_set_string_member(o, name, value);
}

/* ---- images ---- */

struct describe_call {
    struct node *node;
    int64_t allocated;
    struct snapshot_info *snapshots;
    unsigned snapshot_count;
    JsonObject *specific;
};

static int ask_node(void *opaque)
{
    struct describe_call *c = opaque;
    c->allocated = node_allocated_bytes(c->node);
    if (c->node->driver->snapshot_list &&
        c->node->driver->snapshot_list(c->node, &c->snapshots, &c->snapshot_count) < 0)
        c->snapshot_count = 0;
    return 0;
}

static JsonObject *describe_snapshot(const struct snapshot_info *s)
{
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "id", s->id);
    json_object_set_string_member(o, "name", s->name);
    json_object_set_int_member(o, "vm-state-size", s->vm_state_bytes);
    json_object_set_int_member(o, "date-sec", s->date_sec);
    json_object_set_int_member(o, "date-nsec", s->date_nsec);
    json_object_set_int_member(o, "vm-clock-sec", s->vm_clock_ns / NS_PER_SEC);
    json_object_set_int_member(o, "vm-clock-nsec", s->vm_clock_ns % NS_PER_SEC);
    return o;
}

static void add_snapshots(JsonObject *o, struct describe_call *c)
{
    JsonArray *list = c->snapshot_count ? json_array_new() : NULL;
    for (unsigned i = 0; i < c->snapshot_count; i++) {
        json_array_add_object_element(list, describe_snapshot(&c->snapshots[i]));
        g_free(c->snapshots[i].id);
        g_free(c->snapshots[i].name);
    }
    g_free(c->snapshots);
    if (list)
        json_object_set_array_member(o, "snapshots", list);
}

static void add_specific(JsonObject *o, struct node *n)
{
    JsonObject *data = n->driver->describe ? n->driver->describe(n) : NULL;
    if (!data)
        return;
    JsonObject *specific = json_object_new();
    json_object_set_string_member(specific, "type", node_format(n));
    json_object_set_object_member(specific, "data", data);
    json_object_set_object_member(o, "format-specific", specific);
}

JsonObject *describe_image(struct node *n, unsigned depth)
{
    n = node_skip_filters(n);
    JsonObject *o = json_object_new();
    struct describe_call c = { .node = n };
    block_run(n, ask_node, &c);
    json_object_set_string_member(o, "filename", node_filename(n));
    json_object_set_string_member(o, "format", node_format(n));
    json_object_set_int_member(o, "virtual-size", node_size(n));
    if (c.allocated >= 0)
        json_object_set_int_member(o, "actual-size", c.allocated);
    json_object_set_boolean_member(o, "dirty-flag", n->unclean);
    if (n->encrypted)
        json_object_set_boolean_member(o, "encrypted", TRUE);
    if (n->cluster_bytes)
        json_object_set_int_member(o, "cluster-size", n->cluster_bytes);
    set_string(o, "backing-filename", n->backing_file);
    set_string(o, "backing-filename-format", n->backing_format);
    if (n->backing_file && node_backing(n))
        set_string(o, "full-backing-filename", node_filename(node_backing(n)));
    add_snapshots(o, &c);
    add_specific(o, n);
    if (depth && node_backing(n))
        json_object_set_object_member(o, "backing-image",
                                      describe_image(node_backing(n), depth - 1));
    return o;
}

/* ---- bitmaps ---- */

JsonArray *describe_bitmaps(struct node *n)
{
    JsonArray *list = json_array_new();
    for (const struct dirty_bitmap *b = n->bitmaps; b; b = b->next) {
        JsonObject *o = json_object_new();
        set_string(o, "name", b->name);
        json_object_set_int_member(o, "count", dirty_bytes(b));
        json_object_set_int_member(o, "granularity", b->granularity);
        json_object_set_boolean_member(o, "recording",
                                       b->enabled && !b->read_only && !b->inconsistent);
        json_object_set_boolean_member(o, "busy", b->busy);
        json_object_set_boolean_member(o, "persistent", b->persistent);
        if (b->inconsistent)
            json_object_set_boolean_member(o, "inconsistent", TRUE);
        json_array_add_object_element(list, o);
    }
    return list;
}

/* ---- nodes ---- */

static void add_limits(JsonObject *o, const struct vm_drive *d)
{
    struct throttle_limits l = { 0 };
    const char *group = NULL;
    bool limited = d && image_get_throttle(d->image, &group, &l);
    for (const struct throttle_name *t = throttle_names; t->qmp; t++) {
        g_autofree char *max = g_strdup_printf("%s_max", t->qmp),
                        *length = g_strdup_printf("%s_max_length", t->qmp);
        json_object_set_int_member(o, t->qmp, l.of[t->kind].avg);
        if (l.of[t->kind].max) {
            json_object_set_int_member(o, max, l.of[t->kind].max);
            json_object_set_int_member(o, length, l.of[t->kind].length);
        }
    }
    if (l.op_size)
        json_object_set_int_member(o, "iops_size", l.op_size);
    if (limited)
        set_string(o, "group", group ? group : d->id);
}

static unsigned chain_depth(struct node *n)
{
    unsigned depth = 0;
    for (struct node *b = node_backing(n); b; b = node_backing(b))
        depth++;
    return depth;
}

JsonObject *describe_node(struct vmm *v, struct node *n, bool flat)
{
    static const char *const detect_words[] = { "off", "on", "unmap" };
    JsonObject *o = json_object_new(), *cache = json_object_new();
    struct vm_drive *d = block_drive_of(v, n);
    bool is_top = d && block_shown_node(d) == n;
    json_object_set_boolean_member(cache, "writeback", !is_top || !image_is_writethrough(d->image));
    json_object_set_boolean_member(cache, "direct", n->direct);
    json_object_set_boolean_member(cache, "no-flush", n->no_flush);
    json_object_set_string_member(o, "file", node_filename(n));
    json_object_set_string_member(o, "node-name", node_name(n));
    json_object_set_boolean_member(o, "ro", node_is_read_only(n));
    json_object_set_string_member(o, "drv", node_format(n));
    json_object_set_boolean_member(o, "encrypted", n->encrypted);
    json_object_set_string_member(o, "detect_zeroes", detect_words[MIN(n->detect_zeroes, 2)]);
    json_object_set_int_member(o, "backing_file_depth", chain_depth(n));
    json_object_set_int_member(o, "write_threshold", block_write_threshold(n));
    set_string(o, "backing_file", n->backing_file);
    add_limits(o, is_top ? d : NULL);
    json_object_set_object_member(o, "cache", cache);
    json_object_set_object_member(o, "image", describe_image(n, flat ? 0 : IMAGE_CHAIN_MAX));
    if (n->bitmaps)
        json_object_set_array_member(o, "dirty-bitmaps", describe_bitmaps(n));
    return o;
}
