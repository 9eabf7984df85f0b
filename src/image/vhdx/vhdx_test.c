/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VHDX files: logs, differencing, resizing, broken images; and the tests of every format. */
#include "image/vhd/testing.h"
#include "image/vhdx/vhdx.h"

#include <errno.h>
#include <string.h>

static const struct format_case dynamic = {"vhdx", "{\"block_size\": \"1M\"}",
                                           "{\"metadata-cache-size\": \"1M\"}", 10 * MIB + 2048,
                                           false};
static const struct format_case fixed = {
    "vhdx", "{\"subformat\": \"fixed\", \"block_size\": \"1M\"}", NULL, 4 * MIB, false};
static const struct format_case differencing = {"vhdx", "{\"block_size\": \"1M\"}", NULL,
                                                10 * MIB + 2048, true};
static const struct format_case *const cases[] = {&dynamic, &fixed, &differencing};

static void test_model(void)
{
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++)
        format_test_model(cases[i], 31 + i, g_test_slow() ? 100000 : 5000);
}

static void test_parallel(void)
{
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++)
        format_test_parallel(cases[i], 5 + i);
}

static void test_power_cut(void)
{
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++)
        format_test_power_cut(cases[i], 3 + i, g_test_slow() ? 200 : 40);
}

static void put_crc(struct memory_file *f, uint64_t off, size_t len)
{
    g_autofree uint8_t *bytes = g_malloc(len);
    memory_file_read(f, off, bytes, len);
    uint32_t sum = GUINT32_TO_LE(vhdx_checksum(bytes, len, 4));
    memory_file_write(f, off + 4, &sum, 4);
}

#define META  (2 * MIB) /* of an image with a log of 1 MiB */
#define ITEMS (META + 64 * KIB)
/* Each field, wrong: a sentence that names it. */
static void test_broken(void)
{
    static const struct {
        uint64_t at;
        unsigned len;
        const char *bytes, *says;
    } bad[] = {
        {0, 1, "X", "no VHDX file"},
        {64 * KIB, 4, "XXXX", NULL}, /* the other header serves */
        {128 * KIB + 68, 4, "\1\0\0\0", "log cannot be 1 bytes"},
        {128 * KIB + 72, 8, "\0\0\0\0\0\0\0\0", "log cannot be"},
        {192 * KIB, 4, "XXXX", NULL}, /* the other table serves */
        {META, 4, "XXXX", "metadata table is broken"},
        {META + 32, 4, "XXXX", "unknown kind"},
        {META + 32 + 16, 4, "\xff\xff\xff\xff", "file parameters cannot be"},
        {META + 32 + 20, 4, "\7\0\0\0", "file parameters cannot be 7 bytes"},
        {ITEMS, 4, "\0\0\x30\0", "block size"},
        {ITEMS + 4, 4, "\2\0\0\0", "without a parent locator"},
        {ITEMS + 64, 8, "\1\0\0\0\0\0\0\0", "disk size 1 "},
        {ITEMS + 64, 8, "\0\0\0\0\0\x40\0\0", "room for"},
        {ITEMS + 192, 4, "\0\4\0\0", "sectors of 1024 bytes"},
    };
    struct format_bench b;
    bench_init(&b, &dynamic);
    struct memory_file *good = memory_file_new("good", 0);
    memory_file_assign(good, b.disk);
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        g_autoptr(GError) error = NULL;
        memory_file_write(b.disk, bad[i].at, bad[i].bytes, bad[i].len);
        if (bad[i].at >= 128 * KIB && bad[i].at < 132 * KIB)
            put_crc(b.disk, 128 * KIB, VHDX_HEADER_BYTES);
        struct node *n = bench_open(&b, 0, &error);
        g_assert_true(!n == (bad[i].says != NULL));
        if (error && !strstr(error->message, bad[i].says))
            g_error("'%s' does not say '%s'", error->message, bad[i].says);
        node_unref(n);
        memory_file_assign(b.disk, good);
    }
    memory_file_free(good);
    bench_done(&b);
}

/* A table entry that leads into the metadata: reads fail, the image is read-only, check says so and
 * mends it. */
static int read_first(void *opaque)
{
    char c;
    return node_pread(opaque, 0, &c, 1);
}

static int mend(void *opaque)
{
    struct node *n = opaque;
    struct image_check k = {0};
    g_assert_true(n->driver->check(n, CHECK_FIX_ERRORS, &k, NULL));
    return (int)k.corruptions_fixed;
}

static void test_wild_entry(void)
{
    struct format_bench b;
    bench_init(&b, &dynamic);
    uint64_t entry = GUINT64_TO_LE(META | VHDX_FULL);
    memory_file_write(b.disk, 3 * MIB, &entry, sizeof(entry));
    struct node *n = bench_open(&b, NODE_RW, NULL);
    g_assert_cmpint(bench_run(&b, read_first, n), ==, -EIO);
    g_assert_true(node_is_read_only(n));
    node_unref(n);
    n = bench_open(&b, NODE_RW | NODE_CHECK, NULL);
    g_assert_cmpint(bench_run(&b, mend, n), ==, 1);
    node_unref(n);
    bench_check(&b);
    bench_done(&b);
}

/* A parent that was written to by itself is another one. */
static int write_first(void *opaque)
{
    return node_pwrite(opaque, 0, "x", 1, 0);
}

static void test_changed_parent(void)
{
    struct format_bench b;
    g_autoptr(GError) error = NULL;
    bench_init(&b, &differencing);
    node_unref(bench_open(&b, 0, NULL));
    struct node *n = node_open_name(b.graph, "memory://parent", "vhdx", NULL, NODE_RW, NULL);
    g_assert_cmpint(bench_run(&b, write_first, n), ==, 0);
    node_unref(n);
    g_assert_null(bench_open(&b, 0, &error));
    g_assert_nonnull(strstr(error->message, "the parent was written to"));
    bench_done(&b);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vhdx/broken", test_broken);
    g_test_add_func("/vhdx/wild-entry", test_wild_entry);
    g_test_add_func("/vhdx/changed-parent", test_changed_parent);
    g_test_add_func("/vhdx/model", test_model);
    g_test_add_func("/vhdx/parallel", test_parallel);
    g_test_add_func("/vhdx/power-cut", test_power_cut);
    return g_test_run();
}
