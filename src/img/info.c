/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-img info: what an image is, for people or as JSON (QEMU's ImageInfo).
 *
 * Trust     Everything shown comes out of a hostile image; a chain is bounded and must not loop.
 */
#include "img/img.h"

#include <stdio.h>
#include <string.h>

struct info_options {
    struct img_common common;
    bool chain;
};

static JsonArray *snapshots_json(const struct snapshot_info *list, unsigned count)
{
    JsonArray *a = json_array_new();
    for (unsigned i = 0; i < count; i++) {
        JsonObject *o = json_object_new();
        if (list[i].icount != UINT64_MAX)
            json_object_set_int_member(o, "icount", (int64_t)list[i].icount);
        json_object_set_int_member(o, "vm-clock-nsec", (int64_t)(list[i].vm_clock_ns % NS_PER_SEC));
        json_object_set_string_member(o, "name", list[i].name);
        json_object_set_int_member(o, "date-sec", (int64_t)list[i].date_sec);
        json_object_set_int_member(o, "date-nsec", list[i].date_nsec);
        json_object_set_int_member(o, "vm-clock-sec", (int64_t)(list[i].vm_clock_ns / NS_PER_SEC));
        json_object_set_string_member(o, "id", list[i].id);
        json_object_set_int_member(o, "vm-state-size", (int64_t)list[i].vm_state_bytes);
        json_array_add_object_element(a, o);
    }
    return a;
}

/* Rounded up to sectors, as guests see it. */
static uint64_t virtual_size(struct node *n)
{
    return align_up(node_size(n), 512);
}

static const char *shown_name(struct node *n, const char *asked)
{
    return *node_filename(n) ? node_filename(n) : asked;
}

static JsonObject *specific(struct node *n)
{
    return n->driver->describe ? n->driver->describe(n) : NULL;
}

static void add_backing_json(JsonObject *o, struct node *n)
{
    if (!n->backing_file)
        return;
    g_autofree char *full = node_resolve_name(n, n->backing_file);
    json_object_set_string_member(o, "backing-filename", n->backing_file);
    if (full)
        json_object_set_string_member(o, "full-backing-filename", full);
    if (n->backing_format)
        json_object_set_string_member(o, "backing-filename-format", n->backing_format);
}

static JsonObject *info_json(struct node *n, const char *asked, const struct snapshot_info *list,
                             unsigned count)
{
    JsonObject *o = json_object_new();
    if (count)
        json_object_set_array_member(o, "snapshots", snapshots_json(list, count));
    json_object_set_int_member(o, "virtual-size", (int64_t)virtual_size(n));
    json_object_set_string_member(o, "filename", shown_name(n, asked));
    if (n->cluster_bytes)
        json_object_set_int_member(o, "cluster-size", n->cluster_bytes);
    json_object_set_string_member(o, "format", node_format(n));
    int64_t allocated = node_allocated_bytes(n);
    if (allocated >= 0)
        json_object_set_int_member(o, "actual-size", allocated);
    if (n->encrypted)
        json_object_set_boolean_member(o, "encrypted", true);
    JsonObject *data = specific(n);
    if (data) {
        JsonObject *s = json_object_new();
        json_object_set_string_member(s, "type", node_format(n));
        json_object_set_object_member(s, "data", data);
        json_object_set_object_member(o, "format-specific", s);
    }
    add_backing_json(o, n);
    json_object_set_boolean_member(o, "dirty-flag", n->unclean);
    return o;
}

static void print_backing(struct node *n)
{
    if (!n->backing_file)
        return;
    g_autofree char *full = node_resolve_name(n, n->backing_file);
    printf("backing file: %s", n->backing_file);
    if (!full)
        printf(" (cannot determine actual path)");
    else if (strcmp(full, n->backing_file))
        printf(" (actual path: %s)", full);
    puts("");
    if (n->backing_format)
        printf("backing file format: %s\n", n->backing_format);
}

static void info_human(struct node *n, const char *asked, const struct snapshot_info *list,
                       unsigned count)
{
    uint64_t size = virtual_size(n);
    int64_t allocated = node_allocated_bytes(n);
    printf("image: %s\nfile format: %s\n", shown_name(n, asked), node_format(n));
    printf("virtual size: %s (%" PRIu64 " bytes)\n", img_size_text(size), size);
    printf("disk size: %s\n", allocated >= 0 ? img_size_text((uint64_t)allocated) : "unavailable");
    if (n->encrypted)
        puts("encrypted: yes");
    if (n->cluster_bytes)
        printf("cluster_size: %u\n", n->cluster_bytes);
    if (n->unclean)
        puts("cleanly shut down: no");
    print_backing(n);
    img_print_snapshots(list, count);
    g_autoptr(JsonObject) data = specific(n);
    if (data && json_object_get_size(data)) {
        puts("Format specific information:");
        img_print_members(data, 1);
    }
}

/* One image: printed, or added to `all`. */
static void show(struct node *n, const char *asked, bool first, JsonArray *all)
{
    struct snapshot_info *list = NULL;
    unsigned count = 0;
    if (n->driver->snapshot_list && n->driver->snapshot_list(n, &list, &count) < 0)
        count = 0;
    if (all) {
        json_array_add_object_element(all, info_json(n, asked, list, count));
    } else {
        if (!first)
            puts("");
        info_human(n, asked, list, count);
    }
    img_free_snapshots(list, count);
}

/* Follows the names of backing files from `filename` on. */
static bool show_chain(struct img *img, const struct info_options *o, const char *filename,
                       JsonArray *all, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autofree char *name = g_strdup(filename);
    g_autofree char *format = g_strdup(o->common.format);
    bool image_opts = o->common.image_opts;
    for (unsigned depth = 0; name; depth++) {
        if (depth > IMAGE_CHAIN_MAX)
            return ruche_error(error, RUCHE_ERR_INVALID, "'%s' has more than %d backing files",
                               filename, IMAGE_CHAIN_MAX);
        if (!g_hash_table_add(seen, g_strdup(name)))
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "the backing files of '%s' loop: '%s' comes again", filename, name);
        struct node *n = img_open_as(img, name, image_opts, format, NULL, o->common.share,
                                     NODE_NO_BACKING | NODE_NO_IO, error);
        if (!n)
            return false;
        show(n, name, depth == 0, all);
        g_free(g_steal_pointer(&name));
        g_free(g_steal_pointer(&format));
        if (o->chain && n->backing_file) {
            name = node_resolve_name(n, n->backing_file);
            format = g_strdup(n->backing_format);
        }
        image_opts = false;
        node_unref(n);
    }
    return true;
}

static int info_run(struct img *img, void *options, char **operands, unsigned count)
{
    const struct info_options *o = options;
    GError *error = NULL;
    bool json = o->common.output == OUTPUT_JSON;
    g_autoptr(JsonArray) all = json ? json_array_new() : NULL;
    if (!show_chain(img, o, operands[0], all, &error))
        return img_fail(error, 1);
    if (json && o->chain)
        img_print_json(json_node_init_array(json_node_alloc(), all));
    else if (json)
        img_print_json(json_node_copy(json_array_get_element(all, 0)));
    return 0;
}

static const struct arg info_args[] = {
    ARG_FORMAT,
    ARG_OUTPUT,
    ARG_SHARE,
    ARG_IMAGE_OPTS,
    ARG_OBJECT,
    ARG_ROW(0, "backing-chain", NULL, ARG_FLAG, struct info_options, chain,
            "Also show every backing file"),
    {0},
};

static const struct verb info_verb = {
    .name = "info",
    .summary = "Show what an image is",
    .operands = "FILE",
    .args = info_args,
    .size = sizeof(struct info_options),
    .min_operands = 1,
    .max_operands = 1,
    .run = info_run,
};
IMG_VERB(info_verb);
