/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Virtual hard disks: geometry, sizes, differencing, resizing, broken images; and the tests of
 * every format. */
#include "image/vhd/testing.h"
#include "image/vhd/vhd.h"

#include <string.h>

static const struct format_case dynamic = {
    "vpc", "{\"block_size\": \"512K\", \"force_size\": true}", "{\"metadata-cache-size\": 65536}",
    6 * MIB + 2048, false};
static const struct format_case fixed = {"vpc", "{\"subformat\": \"fixed\"}", NULL, 2 * MIB, false};
static const struct format_case differencing = {
    "vpc", "{\"block_size\": \"512K\", \"force_size\": true}", NULL, 6 * MIB + 2048, true};
static const struct format_case *const cases[] = {&dynamic, &fixed, &differencing};

static void test_model(void)
{
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++)
        format_test_model(cases[i], 11 + i, g_test_slow() ? 100000 : 6000);
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

/* Pairs from the specification's rule. */
static void test_geometry(void)
{
    static const struct {
        uint64_t sectors;
        uint16_t cylinders;
        uint8_t heads, per_track;
    } known[] = {
        {1, 1, 4, 17},
        {68, 1, 4, 17},
        {20480, 302, 4, 17},
        {1032192, 1024, 16, 63},
        {65535ULL * 16 * 255, 65535, 16, 255},
        {1ULL << 40, 65535, 16, 255},
    };
    for (unsigned i = 0; i < ARRAY_COUNT(known); i++) {
        struct vhd_footer f = {0};
        vhd_geometry(known[i].sectors, &f);
        g_assert_cmpuint(f.cylinders, ==, known[i].cylinders);
        g_assert_cmpuint(f.heads, ==, known[i].heads);
        g_assert_cmpuint(f.sectors, ==, known[i].per_track);
    }
}

/* Whose size counts: the geometry's, or the exact one. */
static void test_creators(void)
{
    struct vhd_footer f = {.current_bytes = 5 * MIB, .cylinders = 10, .heads = 4, .sectors = 17};
    static const char exact[][5] = {"win ", "qem2", "d2v ", "tap", "CTXS", "vbox"};
    for (unsigned i = 0; i < ARRAY_COUNT(exact); i++) {
        memcpy(f.creator, exact[i], 4);
        g_assert_cmpuint(vhd_disk_bytes(&f, VHD_SIZE_BY_CREATOR), ==, 5 * MIB);
        g_assert_cmpuint(vhd_disk_bytes(&f, VHD_SIZE_CHS), ==, 10 * 4 * 17 * 512);
    }
    memcpy(f.creator, "qemu", 4);
    g_assert_cmpuint(vhd_disk_bytes(&f, VHD_SIZE_BY_CREATOR), ==, 10 * 4 * 17 * 512);
    g_assert_cmpuint(vhd_disk_bytes(&f, VHD_SIZE_CURRENT), ==, 5 * MIB);
}

static void put_sum(struct memory_file *f, uint64_t off, size_t len, size_t at)
{
    uint8_t bytes[1024];
    uint32_t sum = 0;
    memory_file_read(f, off, bytes, len);
    for (size_t i = 0; i < len; i++)
        sum += i < at || i >= at + 4 ? bytes[i] : 0;
    sum = GUINT32_TO_BE(~sum);
    memory_file_write(f, off + at, &sum, 4);
}

/* Each field, wrong: a sentence that names it. */
static void test_broken(void)
{
    static const struct {
        unsigned at, len;
        const char *bytes, *says;
        bool sums;
    } bad[] = {
        {12, 2, "\0\2", "version 2.0", true},
        {60, 4, "\0\0\0\7", "disk type 7", true},
        {16, 8, "\0\0\0\0\x7f\0\0\0", "header cannot be at", false},
        {512, 1, "X", "no VHD header", true},
        {512 + 24, 2, "\0\7", "version 7.0", true},
        {512 + 16, 8, "\0\0\0\0\0\0\0\1", "table cannot be at 1", true},
        {512 + 16, 8, "\0\0\0\0\x40\0\0\0", "does not fit", true},
        {512 + 28, 4, "\0\0\0\1", "1 entries", true},
        {512 + 32, 4, "\0\0\0\3", "block size 3", true},
        {512 + 36, 4, "\0\0\0\0", "checksum", false},
    };
    struct format_bench b;
    bench_init(&b, &dynamic);
    struct memory_file *good = memory_file_new("good", 0);
    memory_file_assign(good, b.disk);
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        g_autoptr(GError) error = NULL;
        memory_file_write(b.disk, bad[i].at, bad[i].bytes, bad[i].len);
        if (bad[i].sums)
            put_sum(b.disk, 512, 1024, 36);
        put_sum(b.disk, 0, 512, 64);
        memory_file_write(b.disk, memory_file_size(b.disk) - 512, "X", 1); /* the front counts */
        g_assert_null(bench_open(&b, 0, &error));
        if (!strstr(error->message, bad[i].says))
            g_error("'%s' does not say '%s'", error->message, bad[i].says);
        memory_file_assign(b.disk, good);
    }
    memory_file_free(good);
    bench_done(&b);
}

/* A guest that writes a header into its first sectors does not change what its disk is. */
static int write_header(void *opaque)
{
    uint8_t bytes[512];
    memory_file_read(memory_file_find("other"), 0, bytes, sizeof(bytes));
    return node_pwrite(opaque, 0, bytes, sizeof(bytes), 0);
}

static void test_confusion(void)
{
    struct format_bench b;
    bench_init(&b, &dynamic);
    struct memory_file *other = memory_file_new("other", 0);
    memory_file_assign(other, b.disk);
    bench_done(&b);
    bench_init(&b, &fixed);
    struct node *n = bench_open(&b, NODE_RW, NULL);
    uint64_t size = node_size(n);
    g_assert_cmpint(bench_run(&b, write_header, n), ==, 0);
    node_unref(n);
    n = bench_open(&b, 0, NULL);
    g_assert_cmpuint(node_size(n), ==, size);
    g_autoptr(JsonObject) o = n->driver->describe(n);
    g_assert_cmpstr(json_object_get_string_member(o, "subformat"), ==, "fixed");
    node_unref(n);
    memory_file_free(other);
    bench_done(&b);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vhd/geometry", test_geometry);
    g_test_add_func("/vhd/creators", test_creators);
    g_test_add_func("/vhd/broken", test_broken);
    g_test_add_func("/vhd/confusion", test_confusion);
    g_test_add_func("/vhd/model", test_model);
    g_test_add_func("/vhd/parallel", test_parallel);
    g_test_add_func("/vhd/power-cut", test_power_cut);
    return g_test_run();
}
