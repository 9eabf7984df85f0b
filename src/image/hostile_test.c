/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names and chains that somebody has thought up: deep JSON, long chains, chains that bite their
 * tail. */
#include "image/testbed.h"

#include <string.h>

/* ---- names ---- */

static int names_in_fiber(void *opaque)
{
    struct bed *b = opaque;
    static const char *const levels[] = {"[",
                                         "{\"a\":", "{\"driver\":\"raw\",\"file\":", "/*\"*/["};
    for (unsigned i = 0; i < ARRAY_COUNT(levels); i++) {
        for (unsigned depth = 16; depth <= 65536; depth *= 8) {
            g_autoptr(GString) name = g_string_new("json:");
            g_autoptr(GError) error = NULL;
            for (unsigned k = 0; k < depth; k++)
                g_string_append(name, levels[i]);
            g_assert_null(node_open_name(b->graph, name->str, NULL, NULL, NODE_PROBE, &error));
            g_assert_nonnull(error);
            g_assert_true(g_str_has_prefix(error->message, "json:"));
        }
    }
    return 0;
}

static void test_names(void)
{
    struct bed *b = bed_new();
    bed_run(b, names_in_fiber, b);
    bed_free(b);
}

/* ---- chains ---- */

static const struct bed_format overlay = {"qcow2", "qcow2", "{}", MIB, 65536, BED_BACKING};

static void make_image(struct bed *b, const char *name, const char *backing)
{
    GError *error = NULL;
    g_autofree char *filename = g_strconcat("memory://", name, NULL);
    g_autofree char *below = backing ? g_strconcat("memory://", backing, NULL) : NULL;
    image_create(b->graph, driver_find("qcow2", NULL), filename, MIB, below,
                 backing ? "qcow2" : NULL, NULL, &error);
    g_assert_no_error(error);
}

/* "0" is the lowest; each of the others has the one before below it. */
static void make_chain(struct bed *b, unsigned images, struct memory_file **files)
{
    for (unsigned i = 0; i < images; i++) {
        char name[16], below[16];
        g_snprintf(name, sizeof(name), "%u", i);
        g_snprintf(below, sizeof(below), "%u", i - 1);
        files[i] = memory_file_new(name, 0);
        make_image(b, name, i ? below : NULL);
    }
}

/* The longest chain that is allowed: opened, read through, written on top, closed. */
static int long_in_fiber(void *opaque)
{
    struct bed *b = opaque;
    struct memory_file *files[IMAGE_CHAIN_MAX + 2];
    uint8_t buf[512], text[512];
    memset(text, 'x', sizeof(text));
    make_chain(b, IMAGE_CHAIN_MAX + 2, files);
    struct node *n = bed_must_open(b, &overlay, "0", NODE_RW);
    g_assert_cmpint(node_pwrite(n, 1000, text, sizeof(text), 0), ==, 0);
    node_unref(n);
    g_autofree char *top = g_strdup_printf("%d", IMAGE_CHAIN_MAX);
    n = bed_must_open(b, &overlay, top, NODE_RW);
    g_assert_cmpint(node_pread(n, 1000, buf, sizeof(buf)), ==, 0);
    g_assert_cmpmem(buf, sizeof(buf), text, sizeof(text));
    g_assert_cmpint(node_pwrite(n, 700, buf, sizeof(buf), 0), ==, 0); /* copies what is below */
    g_assert_cmpint(node_pread(n, 1000, buf, sizeof(buf)), ==, 0);
    g_assert_cmpmem(buf, sizeof(buf), text, sizeof(text));
    struct image_extent e;
    unsigned depth;
    g_assert_cmpint(node_map_chain(n, NULL, 2 * 65536, 65536, &e, &depth), ==, 0);
    node_unref(n);
    g_autofree char *too_high = g_strdup_printf("%d", IMAGE_CHAIN_MAX + 1);
    g_autoptr(GError) error = NULL;
    g_assert_null(bed_open(b, &overlay, too_high, NULL, 0, &error));
    g_assert_nonnull(strstr(error->message, "more than 200 images below one another"));
    for (unsigned i = 0; i < IMAGE_CHAIN_MAX + 2; i++)
        memory_file_free(files[i]);
    return 0;
}

static int loop_in_fiber(void *opaque)
{
    struct bed *b = opaque;
    struct memory_file *files[3];
    make_chain(b, 3, files);
    /* The lowest gets the highest below it. */
    struct node *n = bed_must_open(b, &overlay, "0", NODE_RW);
    g_autoptr(GError) error = NULL;
    g_assert_true(node_change_backing(n, "memory://2", "qcow2", &error));
    node_unref(n);
    g_assert_null(bed_open(b, &overlay, "1", NULL, 0, &error));
    g_assert_nonnull(strstr(error->message, "more than 200 images below one another"));
    n = bed_must_open(b, &overlay, "1", NODE_NO_BACKING);
    node_unref(n);
    for (unsigned i = 0; i < 3; i++)
        memory_file_free(files[i]);
    return 0;
}

static void test_chain(gconstpointer fn)
{
    struct bed *b = bed_new();
    bed_run(b, (int (*)(void *))fn, b);
    bed_free(b);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/hostile/names", test_names);
    const struct image_driver *qcow2 = driver_find("qcow2", NULL);
    if (qcow2 && qcow2->create) {
        g_test_add_data_func("/hostile/long-chain", (gconstpointer)long_in_fiber, test_chain);
        g_test_add_data_func("/hostile/loop", (gconstpointer)loop_in_fiber, test_chain);
    }
    return g_test_run();
}
