/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: what the disks and nodes did, and how long it took.
 *
 * Spec      QAPI's BlockStats, BlockDeviceStats, BlockLatencyHistogramInfo.
 */
#include "vmm/block.h"

#include "image/driver.h"

#include <string.h>

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

static void add_stats(JsonObject *o, const struct image_stats *s)
{
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
}

/* ---- nodes ---- */

/* What the host's file system made of discards. */
static void add_file_stats(JsonObject *o, const struct node *n, const struct image_stats *s)
{
    if (strcmp(node_format(n), "file") && strcmp(node_format(n), "host_device"))
        return;
    JsonObject *f = json_object_new();
    json_object_set_string_member(f, "driver", node_format(n));
    json_object_set_int_member(f, "discard-nb-ok", s->ops[IMAGE_DISCARD]);
    json_object_set_int_member(f, "discard-nb-failed", s->failed[IMAGE_DISCARD]);
    json_object_set_int_member(f, "discard-bytes-ok", s->bytes[IMAGE_DISCARD]);
    json_object_set_object_member(o, "driver-specific", f);
}

/* With what it reads and writes through ("parent", as QEMU calls it), and for disks what lies behind. */
static JsonObject *node_stats(struct node *n, bool backing)
{
    const struct image_stats *s = node_get_stats(n);
    JsonObject *o = json_object_new(), *stats = json_object_new();
    add_stats(stats, s);
    json_object_set_string_member(o, "node-name", node_name(n));
    json_object_set_object_member(o, "stats", stats);
    add_file_stats(o, n, s);
    for (unsigned k = 0; k < n->child_count; k++) {
        const struct node_child *c = n->children[k];
        if (c->role == CHILD_FILE)
            json_object_set_object_member(o, "parent", node_stats(c->node, backing));
        if (c->role == CHILD_BACKING && backing)
            json_object_set_object_member(o, "backing", node_stats(c->node, backing));
    }
    return o;
}

/* ---- disks ---- */

static const struct {
    enum image_op op;
    const char *shown, *argument;
} histograms[] = {
    { IMAGE_READ, "rd_latency_histogram", "boundaries-read" },
    { IMAGE_WRITE, "wr_latency_histogram", "boundaries-write" },
    { IMAGE_FLUSH, "flush_latency_histogram", "boundaries-flush" },
};

static JsonArray *numbers(const uint64_t *values, unsigned count)
{
    JsonArray *a = json_array_new();
    for (unsigned i = 0; i < count; i++)
        json_array_add_int_element(a, (gint64)values[i]);
    return a;
}

static void add_histograms(JsonObject *o, const struct image *image)
{
    for (size_t i = 0; i < G_N_ELEMENTS(histograms); i++) {
        const struct latency_histogram *h = image_get_histogram(image, histograms[i].op);
        if (!h)
            continue;
        JsonObject *shown = json_object_new();
        json_object_set_array_member(shown, "boundaries", numbers(h->bounds, h->bound_count));
        json_object_set_array_member(shown, "bins", numbers(h->bins, h->bound_count + 1));
        json_object_set_object_member(o, histograms[i].shown, shown);
    }
}

static void add_drive_stats(JsonObject *o, const struct vm_drive *d)
{
    JsonObject *stats = json_object_new();
    block_set_backend_names(o, d);
    add_stats(stats, image_get_stats(d->image));
    add_histograms(stats, d->image);
    json_object_set_object_member(o, "stats", stats);
}

struct stats_call {
    struct node *node;
    const struct vm_drive *drive; /* whose node it is; NULL: only the node is asked about */
    JsonObject *ret;
};

/* Where they are counted. */
static int ask(void *opaque)
{
    struct stats_call *c = opaque;
    c->ret = c->node ? node_stats(c->node, c->drive != NULL) : json_object_new();
    if (c->drive)
        add_drive_stats(c->ret, c->drive);
    return 0;
}

static JsonObject *stats_of(struct node *n, const struct vm_drive *d)
{
    struct stats_call c = { .node = n, .drive = d };
    if (n)
        block_run(n, ask, &c);
    else
        ask(&c);
    return c.ret;
}

static JsonNode *query_blockstats(void *opaque, JsonObject *args, GError **error)
{
    const struct vmm *v = opaque;
    JsonArray *list = json_array_new();
    graph_time_requests(v->graph); /* who asks once, asks again */
    if (arg_bool(args, "query-nodes", false)) {
        for (struct node *n = NULL; (n = graph_next(v->graph, n));)
            json_array_add_object_element(list, stats_of(n, NULL));
        return qmp_array(list);
    }
    for (guint i = 0; i < v->drives->len; i++) {
        const struct vm_drive *d = g_ptr_array_index(v->drives, i);
        json_array_add_object_element(list, stats_of(block_shown_node(d), d));
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

/* ---- block-latency-histogram-set ---- */

struct histogram_call {
    struct image *image;
    struct latency_histogram *of[G_N_ELEMENTS(histograms)];
    bool given[G_N_ELEMENTS(histograms)];
};

static bool take_bounds(JsonArray *list, const char *name, struct latency_histogram **ret,
                        GError **error)
{
    uint64_t bounds[HISTOGRAM_BOUNDS_MAX];
    guint count = MIN(json_array_get_length(list), HISTOGRAM_BOUNDS_MAX + 1);
    for (guint i = 0; i < count && i < HISTOGRAM_BOUNDS_MAX; i++) {
        JsonNode *v = json_array_get_element(list, i);
        gint64 value = JSON_NODE_HOLDS_VALUE(v) ? json_node_get_int(v) : 0;
        bounds[i] = value > 0 ? (uint64_t)value : 0; /* 0 is refused as not rising */
    }
    *ret = histogram_new(bounds, count);
    return *ret || ruche_error(error, RUCHE_ERR_INVALID,
                               "'%s' is not a list of 1 to %d rising numbers of nanoseconds", name,
                               HISTOGRAM_BOUNDS_MAX);
}

/* "boundaries" is for all kinds that have none of their own; nothing at all: no histograms. */
static bool take_histograms(JsonObject *args, struct histogram_call *c, GError **error)
{
    bool all = true;
    for (size_t i = 0; i < G_N_ELEMENTS(histograms); i++)
        all &= !json_object_has_member(args, histograms[i].argument);
    for (size_t i = 0; i < G_N_ELEMENTS(histograms); i++) {
        const char *name = histograms[i].argument;
        if (!json_object_has_member(args, name))
            name = "boundaries";
        bool has = json_object_has_member(args, name);
        c->given[i] = has || all;
        if (has &&
            !take_bounds(json_object_get_array_member(args, name), name, &c->of[i], error))
            return false;
    }
    return true;
}

static int set_histograms(void *opaque)
{
    struct histogram_call *c = opaque;
    for (size_t i = 0; i < G_N_ELEMENTS(histograms); i++)
        if (c->given[i])
            image_set_histogram(c->image, histograms[i].op, g_steal_pointer(&c->of[i]));
    return 0;
}

static JsonNode *histogram_set(void *opaque, JsonObject *args, GError **error)
{
    struct histogram_call c = { 0 };
    struct vm_drive *d = block_drive(opaque, arg_string(args, "id"), error);
    struct node *n = d ? image_node(d->image) : NULL;
    if (d && take_histograms(args, &c, error)) {
        c.image = d->image;
        if (n)
            block_run(n, set_histograms, &c);
        else
            set_histograms(&c);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(histograms); i++)
        histogram_free(c.of[i]);
    return NULL;
}
static const struct qmp_arg histogram_set_args[] = {
    { "id", QMP_STRING, false, "The disk or its device" },
    { "boundaries", QMP_ARRAY, true, "Nanoseconds, rising; none of these four: count no more" },
    { "boundaries-read", QMP_ARRAY, true, "For reads alone" },
    { "boundaries-write", QMP_ARRAY, true, "For writes alone" },
    { "boundaries-flush", QMP_ARRAY, true, "For flushes alone" },
    { 0 },
};
static const struct qmp_command histogram_set_cmd = {
    .name = "block-latency-histogram-set",
    .summary = "Count how many requests take how long",
    .args = histogram_set_args,
    .call = histogram_set,
};
QMP_COMMAND(histogram_set_cmd);
