/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ground for tests of whole images. See the header. */
#include "image/testbed.h"

#include "image/secret.h"

#include <stdlib.h>
#include <string.h>

#define QCOW2_ALL (BED_SNAPSHOTS | BED_BITMAPS | BED_COMPRESS | BED_RESIZE | BED_ORDERED)

const struct bed_format bed_formats[] = {
    {"raw", "raw", "{}", 4 * MIB, 4096, BED_RESIZE | BED_QUICK},
    {"qcow2-64k", "qcow2", "{}", 8 * MIB, 65536, QCOW2_ALL | BED_QUICK},
    {"qcow2-64k-backing", "qcow2", "{}", 8 * MIB, 65536, QCOW2_ALL | BED_BACKING | BED_QUICK},
    {"qcow2-64k-subclusters", "qcow2", "{\"extended_l2\": true}", 8 * MIB, 65536,
     QCOW2_ALL | BED_BACKING | BED_QUICK},
    {"qcow2-64k-lazy", "qcow2", "{\"lazy_refcounts\": true}", 8 * MIB, 65536,
     QCOW2_ALL | BED_LAZY | BED_QUICK},
    {"qcow2-512", "qcow2", "{\"cluster_size\": 512}", 256 * KIB, 512, QCOW2_ALL | BED_QUICK},
    {"qcow2-512-lazy", "qcow2", "{\"cluster_size\": 512, \"lazy_refcounts\": true}", 256 * KIB, 512,
     QCOW2_ALL | BED_BACKING | BED_LAZY},
    {"qcow2-512-width1", "qcow2", "{\"cluster_size\": 512, \"refcount_bits\": 1}", 256 * KIB, 512,
     QCOW2_ALL & ~BED_SNAPSHOTS & ~BED_COMPRESS},
    {"qcow2-1k-width64", "qcow2", "{\"cluster_size\": 1024, \"refcount_bits\": 64}", MIB, 1024,
     QCOW2_ALL | BED_BACKING},
    {"qcow2-4k", "qcow2", "{\"cluster_size\": 4096}", 2 * MIB, 4096, QCOW2_ALL},
    {"qcow2-4k-v2", "qcow2", "{\"cluster_size\": 4096, \"compat\": \"0.10\"}", 2 * MIB, 4096,
     (QCOW2_ALL & ~BED_BITMAPS) | BED_BACKING | BED_QUICK},
    {"qcow2-4k-zstd", "qcow2", "{\"cluster_size\": 4096, \"compression_type\": \"zstd\"}", 2 * MIB,
     4096, QCOW2_ALL},
    {"qcow2-16k-subclusters-lazy", "qcow2",
     "{\"cluster_size\": 16384, \"extended_l2\": true, \"lazy_refcounts\": true}", 4 * MIB, 16384,
     QCOW2_ALL | BED_LAZY},
    {"qcow2-64k-metadata", "qcow2", "{\"preallocation\": \"metadata\"}", 4 * MIB, 65536, QCOW2_ALL},
    {"qcow2-2m", "qcow2", "{\"cluster_size\": 2097152}", 32 * MIB, 2097152,
     QCOW2_ALL | BED_BACKING},
    {"qcow2-4k-luks", "qcow2",
     "{\"cluster_size\": 4096, \"encrypt.format\": \"luks\", \"encrypt.key-secret\": \"bed\", "
     "\"encrypt.iter-time\": 10}",
     2 * MIB, 4096, QCOW2_ALL & ~BED_COMPRESS},
    {"vmdk", "vmdk", "{}", 8 * MIB, 65536, BED_ORDERED | BED_QUICK},
    {"vmdk-zeroed", "vmdk", "{\"zeroed_grain\": true}", 8 * MIB, 65536, BED_ORDERED},
    {"vmdk-stream", "vmdk", "{\"subformat\": \"streamOptimized\"}", 8 * MIB, 65536,
     BED_ORDERED | BED_COMPRESS | BED_QUICK},
    {"vdi", "vdi", "{}", 16 * MIB, 1048576, BED_ORDERED | BED_QUICK},
    {"vpc", "vpc", "{}", 16 * MIB, 2097152, BED_ORDERED | BED_QUICK},
    {"vpc-fixed", "vpc", "{\"subformat\": \"fixed\"}", 4 * MIB, 4096, 0},
    {"vhdx", "vhdx", "{\"block_size\": 1048576, \"log_size\": 1048576}", 16 * MIB, 1048576,
     BED_ORDERED | BED_QUICK},
    {0},
};

const struct bed_format *bed_format_next(const struct bed_format *after, unsigned flags,
                                         const char *only)
{
    for (const struct bed_format *f = after ? after + 1 : bed_formats; f->label; f++) {
        bool wanted = (f->flags & flags) == flags && (!only || g_str_has_prefix(f->label, only));
        const struct image_driver *d = wanted ? driver_find(f->driver, NULL) : NULL;
        if (d && d->create)
            return f;
    }
    return NULL;
}

void bed_options(int *argc, char ***argv, const GOptionEntry *entries)
{
    g_autoptr(GError) error = NULL;
    GOptionContext *c = g_option_context_new(NULL);
    g_option_context_add_main_entries(c, entries, NULL);
    g_option_context_set_ignore_unknown_options(c, TRUE);
    if (!g_option_context_parse(c, argc, argv, &error)) {
        g_printerr("%s\n", error->message);
        exit(2);
    }
    g_option_context_free(c);
}

static JsonObject *json(const char *text)
{
    GError *error = NULL;
    g_autoptr(JsonNode) node = json_from_string(text, &error);
    g_assert_no_error(error);
    return json_object_ref(json_node_get_object(node));
}

struct bed *bed_new(void)
{
    GError *error = NULL;
    struct bed *b = g_new0(struct bed, 1);
    b->ctx = context_new(&error);
    g_assert_no_error(error);
    b->graph = graph_new(b->ctx);
    g_autoptr(JsonObject) secret = json("{\"data\": \"buckwheat\"}");
    if (!secret_exists("bed"))
        secret_add("bed", secret, NULL);
    return b;
}

void bed_free(struct bed *b)
{
    if (!b)
        return;
    graph_free(b->graph);
    context_free(b->ctx);
    g_free(b);
}

int bed_run(struct bed *b, int (*fn)(void *opaque), void *opaque)
{
    return context_run(b->ctx, fn, opaque);
}

void bed_create(struct bed *b, const struct bed_format *f, const char *name, const char *backing)
{
    GError *error = NULL;
    const struct image_driver *d = driver_find(f->driver, &error);
    g_assert_no_error(error);
    g_autoptr(JsonObject) options = json(f->options);
    g_autofree char *filename = g_strconcat("memory://", name, NULL);
    g_autofree char *below = backing ? g_strconcat("memory://", backing, NULL) : NULL;
    image_create(b->graph, d, filename, f->size_bytes, below, below ? "raw" : NULL, options,
                 &error);
    g_assert_no_error(error);
}

struct node *bed_open(struct bed *b, const struct bed_format *f, const char *name,
                      const char *above, unsigned flags, GError **error)
{
    g_autofree char *file =
        g_strdup_printf("{\"driver\": \"memory\", \"name\": \"%s\", \"discard\": \"unmap\"}", name);
    g_autoptr(GString) filtered = g_string_new(above ? above : "%s");
    g_string_replace(filtered, "%s", file, 0);
    const char *key = strstr(f->options ? f->options : "", "encrypt.")
                          ? ", \"encrypt\": {\"key-secret\": \"bed\"}"
                          : "";
    g_autofree char *text =
        g_strdup_printf("{\"driver\": \"%s\", \"discard\": \"unmap\", \"file\": %s%s}", f->driver,
                        filtered->str, key);
    g_autoptr(JsonObject) options = json(text);
    return node_open(b->graph, options, flags, error);
}

struct node *bed_must_open(struct bed *b, const struct bed_format *f, const char *name,
                           unsigned flags)
{
    GError *error = NULL;
    struct node *n = bed_open(b, f, name, NULL, flags, &error);
    g_assert_no_error(error);
    return n;
}

static void keep_finding(const char *sentence, void *opaque)
{
    GString *all = opaque;
    if (all->len < 4000)
        g_string_append_printf(all, "# %s\n", sentence);
}

bool bed_check(struct bed *b, const struct bed_format *f, const char *name, unsigned allowed)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GString) found = g_string_new(NULL);
    struct image_check c = {.report = keep_finding, .opaque = found};
    struct node *n = bed_open(b, f, name, NULL, NODE_CHECK, &error);
    if (!n || (n->driver->check && !n->driver->check(n, 0, &c, &error))) {
        g_test_message("%s: check: %s", f->label, error->message);
        node_unref(n);
        return false;
    }
    node_unref(n);
    if (c.check_errors || c.corruptions || (c.leaks && !(allowed & BED_ALLOW_LEAKS))) {
        g_printerr("# %s: check found %" G_GUINT64_FORMAT " errors, %" G_GUINT64_FORMAT
                   " corruptions, %" G_GUINT64_FORMAT " leaks:\n%s",
                   f->label, c.check_errors, c.corruptions, c.leaks, found->str);
        return false;
    }
    return true;
}
