/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Creating, measuring and amending qcow2 images. Files are in memory. */
#include "image/qcow2/manage_bed.h"

#include "base/error.h"

#include <string.h>

static JsonObject *json(const char *text)
{
    GError *error = NULL;
    g_autoptr(JsonNode) node = json_from_string(text, &error);
    g_assert_no_error(error);
    return json_object_ref(json_node_get_object(node));
}

/* ---- create ---- */

static const char *const creations[] = {
    "{}",
    "{\"compat\": \"0.10\"}",
    "{\"cluster_size\": 512}",
    "{\"cluster_size\": 2097152}",
    "{\"cluster_size\": 16384, \"extended_l2\": true}",
    "{\"refcount_bits\": 1}",
    "{\"refcount_bits\": 64, \"cluster_size\": 4096}",
    "{\"lazy_refcounts\": true}",
    "{\"compression_type\": \"zstd\"}",
    "{\"preallocation\": \"metadata\"}",
    "{\"preallocation\": \"metadata\", \"cluster_size\": 512, \"refcount_bits\": 2}",
    "{\"preallocation\": \"full\", \"compat\": \"0.10\"}",
    "{\"preallocation\": \"falloc\", \"extended_l2\": true}",
};

static void one_creation(const void *options)
{
    struct memory_file *f = memory_file_new("new", 0);
    create("new", DISK, options);
    check_clean("new");
    struct node *n = open_image("new", NODE_RW);
    g_assert_cmpuint(node_size(n), ==, DISK);
    expect(n, 0, DISK, 0);
    fill(n, 1000, 3 * 65536, 7);
    fill(n, DISK - 513, 513, 9);
    node_unref(n);
    check_clean("new");
    n = open_image("new", 0);
    expect(n, 1000, 3 * 65536, 7);
    expect(n, DISK - 513, 513, 9);
    expect(n, 0, 1000, 0);
    node_unref(n);
    memory_file_free(f);
}

static void test_create(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(creations); i++)
        in_fiber(one_creation, creations[i]);
}

static void body_sizes(const void *arg)
{
    static const struct {
        uint64_t asked, size;
    } sizes[] = {{0, 0},     {1, 512},       {511, 512},
                 {512, 512}, {65537, 66048}, {1ULL << 50, 1ULL << 50}};
    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        struct memory_file *f = memory_file_new("new", 0);
        create("new", sizes[i].asked, "{}");
        check_clean("new");
        struct node *n = open_image("new", 0);
        g_assert_cmpuint(node_size(n), ==, sizes[i].size);
        node_unref(n);
        memory_file_free(f);
    }
}

static void test_sizes(void)
{
    in_fiber(body_sizes, NULL);
}

static void body_create_refusals(const void *arg)
{
    static const struct {
        const char *options, *backing, *sentence;
        uint64_t size;
    } bad[] = {
        {"{\"cluster_size\": 65535}", NULL,
         "cluster_size: 65535 is not a power of two between 512 and 2M", DISK},
        {"{\"refcount_bits\": 7}", NULL, "refcount_bits: 7 is not a power of two between 1 and 64",
         DISK},
        {"{\"refcount_bits\": 8, \"compat\": \"0.10\"}", NULL,
         "compat=0.10 has no refcount_bits other than 16; use compat=1.1", DISK},
        {"{\"lazy_refcounts\": true, \"compat\": \"v2\"}", NULL,
         "compat=0.10 has no lazy_refcounts; use compat=1.1", DISK},
        {"{\"extended_l2\": true, \"cluster_size\": 8192}", NULL,
         "extended_l2: clusters of 8192 bytes are too small for 32 subclusters; use "
         "cluster_size=16k or more",
         DISK},
        {"{\"preallocation\": \"metadata\"}", "base",
         "preallocation: clusters with a place hide the backing file; use extended_l2=on for both",
         DISK},
        {"{\"backing_fmt\": \"raw\"}", NULL, "backing_fmt: there is no backing_file", DISK},
        {"{\"data_file_raw\": true}", NULL, "data_file_raw: there is no data_file", DISK},
        {"{\"encryption\": true}", NULL,
         "encryption: qcow2's own AES protects nothing and is only read; use encrypt.format=luks",
         DISK},
        {"{\"encrypt.format\": \"luks\"}", NULL, "encrypt.format=luks needs encrypt.key-secret",
         DISK},
        {"{\"cluster_size\": 512}", NULL,
         "size: 1099511627776 bytes are too much for clusters of 512: the limit is 137438953472; "
         "use a larger "
         "cluster_size",
         1ULL << 40},
    };
    struct memory_file *base = memory_file_new("base", DISK), *f = memory_file_new("new", 0);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_false(try_create("new", bad[i].size, bad[i].options, bad[i].backing, &error));
        g_assert_cmpstr(error->message, ==, bad[i].sentence);
        g_assert_cmpuint(memory_file_size(f), ==, 0);
    }
    memory_file_free(f);
    memory_file_free(base);
}

static void test_create_refusals(void)
{
    in_fiber(body_create_refusals, NULL);
}

/* ---- measure ---- */

struct measured {
    const char *options;
    uint64_t size, required, fully;
};

/* What qemu-img 7.2 says. */
static const struct measured measures[] = {
    {"{}", 0ULL, 196608ULL, 196608ULL},
    {"{}", 512ULL, 327680ULL, 393216ULL},
    {"{}", 65536ULL, 327680ULL, 393216ULL},
    {"{}", 4194304ULL, 327680ULL, 4521984ULL},
    {"{}", 1073741824ULL, 393216ULL, 1074135040ULL},
    {"{}", 10737418752ULL, 1966080ULL, 10739449856ULL},
    {"{}", 1099511627776ULL, 168034304ULL, 1099679662080ULL},
    {"{\"cluster_size\": 512}", 1048576ULL, 22528ULL, 1071104ULL},
    {"{\"cluster_size\": 512}", 1073741824ULL, 21385216ULL, 1095127040ULL},
    {"{\"cluster_size\": 512}", 8589934592ULL, 171073536ULL, 8761008128ULL},
    {"{\"cluster_size\": 2097152}", 1073741824ULL, 10485760ULL, 1084227584ULL},
    {"{\"cluster_size\": 2097152}", 17592186044416ULL, 92274688ULL, 17592278319104ULL},
    {"{\"cluster_size\": 16384, \"extended_l2\": true}", 1073741824ULL, 1245184ULL, 1074987008ULL},
    {"{\"cluster_size\": 16384, \"extended_l2\": true}", 3227546112ULL, 3620864ULL, 3231170560ULL},
    {"{\"refcount_bits\": 1}", 1099511627776ULL, 136577024ULL, 1099648204800ULL},
    {"{\"refcount_bits\": 64, \"cluster_size\": 4096}", 17179869184ULL, 67383296ULL,
     17247252480ULL},
    {"{\"compat\": \"0.10\"}", 1073741824ULL, 393216ULL, 1074135040ULL},
    {"{\"preallocation\": \"metadata\"}", 1073741824ULL, 393216ULL, 1074135040ULL},
    {"{\"preallocation\": \"full\"}", 1073741824ULL, 1074135040ULL, 1074135040ULL},
    {"{\"preallocation\": \"falloc\", \"cluster_size\": 4096}", 5368709120ULL, 5381857280ULL,
     5381857280ULL},
};

static void test_measure(void)
{
    const struct image_driver *d = driver_find("qcow2", NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(measures); i++) {
        GError *error = NULL;
        struct qcow2_create_options o;
        struct image_measure m;
        g_autoptr(JsonObject) from = json(measures[i].options);
        option_parse(d->create_options, from, "-o", &o, &error);
        g_assert_no_error(error);
        d->measure(&o, measures[i].size, NULL, &m, &error);
        g_assert_no_error(error);
        g_assert_cmpuint(m.required, ==, measures[i].required);
        g_assert_cmpuint(m.fully_allocated, ==, measures[i].fully);
        g_assert_cmpuint(m.bitmaps, ==, UINT64_MAX);
        option_clear(d->create_options, &o);
    }
}

/* ---- amend ---- */

static void body_amend_width(const void *arg)
{
    struct memory_file *f = memory_file_new("am", 0);
    create("am", DISK, "{\"cluster_size\": 1024}");
    struct node *n = open_image("am", NODE_RW);
    fill(n, 0, MIB, 1);
    static const unsigned widths[] = {64, 1, 32, 2, 8, 4, 16};
    for (size_t i = 0; i < G_N_ELEMENTS(widths); i++) {
        g_autofree char *o = g_strdup_printf("{\"refcount_bits\": %u}", widths[i]);
        amend(n, o);
        fill(n, MIB + i * 65536, 65536, 2);
        expect(n, 0, MIB, 1);
        node_unref(n);
        check_clean("am");
        n = open_image("am", NODE_RW);
        g_assert_cmpuint(1u << qcow2_of(n)->refcount_order, ==, widths[i]);
        expect(n, MIB + i * 65536, 65536, 2);
    }
    snapshot(n, "s", 0);
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonObject) o = json("{\"refcount_bits\": 1}");
    g_assert_false(n->driver->amend(n, o, NULL, &error));
    g_assert_true(strstr(error->message, "more references than refcounts of 1 bits"));
    node_unref(n);
    check_clean("am");
    memory_file_free(f);
}

/* Counts that are only in memory get to the disk before an amendment relies on them, or ends their being lazy. */
static void body_amend_lazy(const void *option)
{
    struct memory_file *f = memory_file_new("am", 0), *crashed = memory_file_new("crashed", 0);
    create("am", DISK, "{\"lazy_refcounts\": true}");
    struct node *n = open_image("am", NODE_RW);
    fill(n, 0, MIB, 1);
    g_assert_cmpint(node_flush(n), ==, 0);
    amend(n, option);
    memory_file_assign(crashed, f);
    check_clean("crashed");
    fill(n, MIB, MIB, 2);
    node_unref(n);
    check_clean("am");
    n = open_image("crashed", 0);
    expect(n, 0, MIB, 1);
    node_unref(n);
    memory_file_free(f);
    memory_file_free(crashed);
}

static void test_amend_lazy(void)
{
    in_fiber(body_amend_lazy, "{\"lazy_refcounts\": false}");
    in_fiber(body_amend_lazy, "{\"refcount_bits\": 64}");
    in_fiber(body_amend_lazy, "{\"compat\": \"0.10\"}");
}

static void test_amend_width(void)
{
    in_fiber(body_amend_width, NULL);
}

static void body_amend_version(const void *arg)
{
    struct memory_file *f = memory_file_new("am", 0);
    create("am", DISK, "{\"compat\": \"0.10\"}");
    struct node *n = open_image("am", NODE_RW);
    fill(n, 0, MIB, 1);
    amend(n, "{\"compat\": \"1.1\", \"lazy_refcounts\": true}");
    g_assert_cmpint(node_zero(n, 65536, 65536, 0), ==, 0);
    node_unref(n);
    check_clean("am");
    n = open_image("am", NODE_RW);
    g_assert_true(qcow2_of(n)->opt.lazy_refcounts);
    fill(n, 2 * MIB, MIB, 3);
    expect(n, 65536, 65536, 0);
    amend(n, "{\"compat\": \"v2\", \"size\": \"8M\"}");
    expect(n, 65536, 65536, 0);
    expect(n, 0, 65536, 1);
    node_unref(n);
    check_clean("am");
    n = open_image("am", NODE_RW);
    g_assert_cmpuint(qcow2_of(n)->header.version, ==, 2);
    g_assert_cmpuint(node_size(n), ==, 8 * MIB);
    expect(n, 65536, 65536, 0);
    expect(n, 2 * MIB, MIB, 3);
    node_unref(n);
    memory_file_free(f);
}

static void test_amend_version(void)
{
    in_fiber(body_amend_version, NULL);
}

static void body_amend_refusals(const void *arg)
{
    static const struct {
        const char *options, *part;
    } bad[] = {
        {"{\"cluster_size\": 4096}", "the cluster size cannot change"},
        {"{\"compression_type\": \"zstd\"}", "the compression type cannot change"},
        {"{\"refcount_bits\": 3}", "refcount_bits: 3 is not a power of two"},
        {"{\"data_file\": \"x\"}", "data_file can only change where there is"},
        {"{\"encrypt.state\": \"active\"}", "it has no key slots"},
        {"{\"cluster_sise\": 1}", "did you mean 'cluster_size'"},
        {"{\"compat\": \"0.10\", \"refcount_bits\": 64}", "no refcounts of other than 16 bits"},
        {"{\"compat\": \"0.10\", \"lazy_refcounts\": true}", "no lazy refcounts"},
    };
    struct memory_file *f = memory_file_new("am", 0);
    create("am", DISK, "{}");
    struct node *n = open_image("am", NODE_RW);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(JsonObject) o = json(bad[i].options);
        g_assert_false(n->driver->amend(n, o, NULL, &error));
        if (!strstr(error->message, bad[i].part))
            g_error("'%s' instead of '%s'", error->message, bad[i].part);
    }
    node_unref(n);
    check_clean("am");
    memory_file_free(f);
}

static void test_amend_refusals(void)
{
    in_fiber(body_amend_refusals, NULL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-create/create", test_create);
    g_test_add_func("/qcow2-create/sizes", test_sizes);
    g_test_add_func("/qcow2-create/create-refusals", test_create_refusals);
    g_test_add_func("/qcow2-create/measure", test_measure);
    g_test_add_func("/qcow2-create/amend-width", test_amend_width);
    g_test_add_func("/qcow2-create/amend-lazy", test_amend_lazy);
    g_test_add_func("/qcow2-create/amend-version", test_amend_version);
    g_test_add_func("/qcow2-create/amend-refusals", test_amend_refusals);
    return g_test_run();
}
