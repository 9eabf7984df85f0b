/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Managing qcow2 images: creation, check and repair, snapshots, bitmaps, amendments. Files are in memory. */
#include "image/dirty.h"
#include "image/qcow2/internal.h"
#include "image/testbed.h"

#include "base/error.h"

#include <string.h>

enum { DISK = 4 * 1024 * 1024 };

/* ---- ground ---- */

static struct bed *bed;

struct body {
    void (*fn)(const void *arg);
    const void *arg;
};

static int body_run(void *opaque)
{
    const struct body *b = opaque;
    b->fn(b->arg);
    return 0;
}

static void in_fiber(void (*fn)(const void *arg), const void *arg)
{
    struct body b = {fn, arg};
    bed = bed_new();
    bed_run(bed, body_run, &b);
    bed_free(bed);
}

static JsonObject *json(const char *text)
{
    GError *error = NULL;
    g_autoptr(JsonNode) node = json_from_string(text, &error);
    g_assert_no_error(error);
    return json_object_ref(json_node_get_object(node));
}

static bool try_create(const char *name, uint64_t size, const char *options, const char *backing,
                       GError **error)
{
    g_autoptr(JsonObject) o = json(options);
    g_autofree char *filename = g_strconcat("memory://", name, NULL);
    g_autofree char *below = backing ? g_strconcat("memory://", backing, NULL) : NULL;
    return image_create(bed->graph, driver_find("qcow2", NULL), filename, size, below,
                        below ? "raw" : NULL, o, error);
}

static void create(const char *name, uint64_t size, const char *options)
{
    GError *error = NULL;
    try_create(name, size, options, NULL, &error);
    g_assert_no_error(error);
}

static const struct bed_format qcow2_format = {"qcow2", "qcow2", "{}", DISK, 65536, 0};

static struct node *open_image(const char *name, unsigned flags)
{
    return bed_must_open(bed, &qcow2_format, name, flags);
}

static void check_clean(const char *name)
{
    g_assert_true(bed_check(bed, &qcow2_format, name, 0));
}

static void fill(struct node *n, uint64_t off, uint64_t len, uint8_t byte)
{
    g_autofree uint8_t *buf = g_malloc(len);
    memset(buf, byte, len);
    g_assert_cmpint(node_pwrite(n, off, buf, len, 0), ==, 0);
}

static void expect(struct node *n, uint64_t off, uint64_t len, uint8_t byte)
{
    g_autofree uint8_t *buf = g_malloc(len);
    g_assert_cmpint(node_pread(n, off, buf, len), ==, 0);
    for (uint64_t i = 0; i < len; i++)
        if (buf[i] != byte)
            g_error("byte %" G_GUINT64_FORMAT " is 0x%02x, not 0x%02x", off + i, buf[i], byte);
}

static struct image_check check(const char *name, unsigned fix)
{
    GError *error = NULL;
    struct image_check c = {0};
    struct node *n = open_image(name, NODE_CHECK | (fix ? NODE_RW : 0));
    n->driver->check(n, fix, &c, &error);
    g_assert_no_error(error);
    node_unref(n);
    return c;
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

/* ---- check and repair ---- */

static uint64_t get64(struct memory_file *f, uint64_t off)
{
    uint64_t v;
    memory_file_read(f, off, &v, 8);
    return GUINT64_FROM_BE(v);
}

static void set64(struct memory_file *f, uint64_t off, uint64_t v)
{
    v = GUINT64_TO_BE(v);
    memory_file_write(f, off, &v, 8);
}

static void set16(struct memory_file *f, uint64_t off, uint16_t v)
{
    v = GUINT16_TO_BE(v);
    memory_file_write(f, off, &v, 2);
}

/* An image of 64 KiB clusters with data everywhere in its first MiB; where its tables are. */
struct sick {
    struct memory_file *f;
    uint64_t reftable, block, l1, l2;
};

static struct sick sick_image(void)
{
    struct sick k = {.f = memory_file_new("sick", 0)};
    create("sick", DISK, "{}");
    struct node *n = open_image("sick", NODE_RW);
    for (unsigned i = 0; i < 16; i++)
        fill(n, i * 65536, 65536, (uint8_t)(i + 1));
    node_unref(n);
    k.reftable = get64(k.f, 48);
    k.block = get64(k.f, k.reftable);
    k.l1 = get64(k.f, 40);
    k.l2 = get64(k.f, k.l1) & QCOW2_OFFSET_MASK;
    return k;
}

static uint64_t place_of(const struct sick *k, unsigned cluster)
{
    return get64(k->f, k->l2 + cluster * 8) & QCOW2_OFFSET_MASK;
}

static void sick_count_low(const struct sick *k)
{
    set16(k->f, k->block + place_of(k, 3) / 65536 * 2, 0);
}

static void sick_leak(const struct sick *k)
{
    set16(k->f, k->block + place_of(k, 3) / 65536 * 2, 5);
    set64(k->f, k->l2 + 4 * 8, 0);
}

static void sick_flag(const struct sick *k)
{
    set64(k->f, k->l2 + 5 * 8, place_of(k, 5));
    set64(k->f, k->l1, k->l2);
}

static void sick_shared(const struct sick *k)
{
    set64(k->f, k->l2 + 6 * 8, place_of(k, 7) | QCOW2_COPIED);
}

static void sick_no_block(const struct sick *k)
{
    set64(k->f, k->reftable, 0);
}

static void sick_block_unaligned(const struct sick *k)
{
    set64(k->f, k->reftable, k->block + 512);
}

static void sick_block_outside(const struct sick *k)
{
    set64(k->f, k->reftable, 1ULL << 40);
}

static void sick_reftable_outside(const struct sick *k)
{
    set64(k->f, 48, 1ULL << 40);
}

static void sick_on_metadata(const struct sick *k)
{
    set64(k->f, k->l2 + 8 * 8, k->l1 | QCOW2_COPIED);
}

static void sick_on_block(const struct sick *k)
{
    set64(k->f, k->l2 + 8 * 8, k->block | QCOW2_COPIED);
}

static void sick_marks(const struct sick *k)
{
    set64(k->f, 72, QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT);
}

static void sick_beyond_end(const struct sick *k)
{
    set64(k->f, k->l2 + 9 * 8, (1ULL << 40) | QCOW2_COPIED);
}

static void sick_l1_unaligned(const struct sick *k)
{
    set64(k->f, k->l1, (k->l2 + 512) | QCOW2_COPIED);
}

static void sick_l1_is_l2(const struct sick *k)
{
    set64(k->f, k->l1, k->l1 | QCOW2_COPIED);
}

static const struct {
    const char *what;
    void (*hurt)(const struct sick *k);
    uint64_t corruptions, leaks; /* found; 99: some */
    bool mends;                  /* -r all leaves nothing */
    uint32_t lost;               /* bit i: cluster i no longer has what was written */
} sicknesses[] = {
    {"count low", sick_count_low, 2, 0, true, 0},
    {"leaks", sick_leak, 0, 2, true, 1 << 4},
    {"copied flags", sick_flag, 2, 0, true, 0},
    {"shared cluster", sick_shared, 99, 1, true, 1 << 6},
    {"no block", sick_no_block, 99, 0, true, 0},
    {"unaligned block", sick_block_unaligned, 99, 0, true, 0},
    {"block outside", sick_block_outside, 99, 0, true, 0},
    {"table outside", sick_reftable_outside, 99, 0, true, 0},
    {"data on L1", sick_on_metadata, 99, 1, true, 1 << 8},
    {"data on refcounts", sick_on_block, 99, 1, true, 1 << 8},
    {"marks", sick_marks, 0, 0, true, 0},
    {"beyond the end", sick_beyond_end, 1, 1, false, 0},
    {"L1 unaligned", sick_l1_unaligned, 1, 99, false, 0},
    {"L1 points at itself", sick_l1_is_l2, 99, 99, false, 0},
};

static void compare_count(const char *what, uint64_t have, uint64_t want)
{
    if (want == 99 ? !have : have != want)
        g_error("%s: %" G_GUINT64_FORMAT " found, not %" G_GUINT64_FORMAT, what, have, want);
}

static void body_repair(const void *arg)
{
    for (size_t i = 0; i < G_N_ELEMENTS(sicknesses); i++) {
        struct sick k = sick_image();
        sicknesses[i].hurt(&k);
        g_test_message("%s", sicknesses[i].what);
        struct image_check c = check("sick", 0);
        compare_count(sicknesses[i].what, c.corruptions, sicknesses[i].corruptions);
        compare_count(sicknesses[i].what, c.leaks, sicknesses[i].leaks);
        c = check("sick", CHECK_FIX_LEAKS | CHECK_FIX_ERRORS);
        struct image_check again = check("sick", 0);
        if (sicknesses[i].mends) {
            g_assert_cmpuint(c.corruptions + c.leaks + c.check_errors, ==, 0);
            g_assert_cmpuint(again.corruptions + again.leaks + again.check_errors, ==, 0);
            g_assert_cmpuint(get64(k.f, 72), ==, 0);
            struct node *n = open_image("sick", NODE_RW);
            for (unsigned j = 0; j < 16; j++)
                if (!(sicknesses[i].lost & (1u << j)))
                    expect(n, j * 65536, 65536, (uint8_t)(j + 1));
            fill(n, 0, DISK, 0x55);
            expect(n, 0, DISK, 0x55);
            node_unref(n);
            check_clean("sick");
        } else {
            g_assert_cmpuint(again.corruptions, >, 0);
        }
        memory_file_free(k.f);
    }
}

static void test_repair(void)
{
    in_fiber(body_repair, NULL);
}

static void body_statistics(const void *arg)
{
    struct sick k = sick_image();
    struct image_check c = check("sick", 0);
    g_assert_cmpuint(c.total_clusters, ==, 64);
    g_assert_cmpuint(c.allocated_clusters, ==, 16);
    uint64_t before = c.fragmented_clusters;
    g_assert_cmpuint(c.image_end_offset, ==, memory_file_size(k.f));
    uint64_t a = get64(k.f, k.l2 + 16), b = get64(k.f, k.l2 + 72);
    set64(k.f, k.l2 + 16, b);
    set64(k.f, k.l2 + 72, a);
    c = check("sick", 0);
    g_assert_cmpuint(c.fragmented_clusters, ==, before + 4);
    memory_file_free(k.f);
}

static void test_statistics(void)
{
    in_fiber(body_statistics, NULL);
}

/* ---- snapshots ---- */

static void snapshot(struct node *n, const char *name, uint64_t vm_state)
{
    GError *error = NULL;
    struct snapshot_info s = {.name = (char *)name, .vm_state_bytes = vm_state, .icount = 77};
    n->driver->snapshot_create(n, &s, &error);
    g_assert_no_error(error);
}

static void snapshot_do(bool (*fn)(struct node *n, const char *name, GError **error),
                        struct node *n, const char *name)
{
    GError *error = NULL;
    fn(n, name, &error);
    g_assert_no_error(error);
}

static void body_snapshots(const void *options)
{
    struct memory_file *f = memory_file_new("snap", 0);
    create("snap", DISK, options);
    struct node *n = open_image("snap", NODE_RW);
    fill(n, 0, MIB, 1);
    snapshot(n, "one", 0);
    fill(n, 65536, 100, 2);
    fill(n, 2 * MIB, 65536, 2);
    snapshot(n, "two", 0);
    fill(n, 0, 512, 3);
    node_unref(n);
    check_clean("snap");

    n = open_image("snap", 0);
    snapshot_do(n->driver->snapshot_show, n, "one");
    expect(n, 0, MIB, 1);
    expect(n, 2 * MIB, 65536, 0);
    node_unref(n);

    n = open_image("snap", NODE_RW);
    expect(n, 0, 512, 3);
    snapshot_do(n->driver->snapshot_apply, n, "one");
    expect(n, 0, MIB, 1);
    expect(n, 2 * MIB, 65536, 0);
    fill(n, 3 * MIB, 65536, 4);
    fill(n, 0, 65536, 5);
    node_unref(n);
    check_clean("snap");

    n = open_image("snap", NODE_RW);
    snapshot_do(n->driver->snapshot_delete, n, "one");
    expect(n, 65536, MIB - 65536, 1);
    fill(n, 65536, 65536, 6);
    snapshot_do(n->driver->snapshot_apply, n, "two");
    expect(n, 65536, 100, 2);
    expect(n, 65636, 65436, 1);
    expect(n, 2 * MIB, 65536, 2);
    expect(n, 3 * MIB, 65536, 0);
    snapshot_do(n->driver->snapshot_delete, n, "2");
    node_unref(n);
    check_clean("snap");
    n = open_image("snap", NODE_RW);
    struct snapshot_info *list;
    unsigned count;
    g_assert_cmpint(n->driver->snapshot_list(n, &list, &count), ==, 0);
    g_assert_cmpuint(count, ==, 0);
    g_free(list);
    expect(n, 65536, 100, 2);
    g_autoptr(GError) error = NULL;
    g_assert_false(n->driver->snapshot_delete(n, "two", &error));
    g_assert_true(strstr(error->message, "has no snapshot with the id or name 'two'"));
    node_unref(n);
    memory_file_free(f);
}

static void test_snapshots(void)
{
    static const char *const options[] = {"{}",
                                          "{\"compat\": \"0.10\", \"cluster_size\": 4096}",
                                          "{\"extended_l2\": true}",
                                          "{\"cluster_size\": 512, \"refcount_bits\": 2}",
                                          "{\"lazy_refcounts\": true}",
                                          "{\"preallocation\": \"metadata\"}"};
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++)
        in_fiber(body_snapshots, options[i]);
}

static void body_snapshot_sizes(const void *arg)
{
    GError *error = NULL;
    struct memory_file *f = memory_file_new("snap", 0);
    create("snap", MIB, "{\"cluster_size\": 4096}");
    struct node *n = open_image("snap", NODE_RW);
    fill(n, 0, MIB, 1);
    snapshot(n, "small", 0);
    node_resize(n, 64 * MIB, PREALLOC_OFF, &error);
    g_assert_no_error(error);
    fill(n, 63 * MIB, MIB, 2);
    snapshot(n, "large", 0);
    snapshot_do(n->driver->snapshot_apply, n, "small");
    g_assert_cmpuint(node_size(n), ==, MIB);
    expect(n, 0, MIB, 1);
    snapshot_do(n->driver->snapshot_apply, n, "large");
    g_assert_cmpuint(node_size(n), ==, 64 * MIB);
    expect(n, 63 * MIB, MIB, 2);
    struct snapshot_info *list;
    unsigned count;
    n->driver->snapshot_list(n, &list, &count);
    g_assert_cmpuint(count, ==, 2);
    g_assert_cmpstr(list[0].id, ==, "1");
    g_assert_cmpuint(list[0].size_bytes, ==, MIB);
    g_assert_cmpuint(list[0].icount, ==, 77);
    g_assert_cmpuint(list[1].size_bytes, ==, 64 * MIB);
    for (unsigned i = 0; i < count; i++) {
        g_free(list[i].id);
        g_free(list[i].name);
    }
    g_free(list);
    node_unref(n);
    check_clean("snap");
    memory_file_free(f);
}

static void test_snapshot_sizes(void)
{
    in_fiber(body_snapshot_sizes, NULL);
}

static void body_vmstate(const void *arg)
{
    struct memory_file *f = memory_file_new("snap", 0);
    create("snap", MIB, "{\"cluster_size\": 4096}");
    struct node *n = open_image("snap", NODE_RW);
    g_autofree uint8_t *buf = g_malloc(300000), *back = g_malloc(300000);
    for (unsigned i = 0; i < 300000; i++)
        buf[i] = (uint8_t)(i * 7 + i / 251);
    struct iovec iov;
    for (unsigned off = 0; off < 300000; off += 100000)
        g_assert_cmpint(n->driver->vmstate_write(n, off, vec_flat(&iov, buf + off, 100000)), ==, 0);
    snapshot(n, "vm", 300000);
    fill(n, 0, MIB, 9);
    snapshot_do(n->driver->snapshot_apply, n, "vm");
    g_assert_cmpint(n->driver->vmstate_read(n, 0, vec_flat(&iov, back, 300000)), ==, 0);
    g_assert_cmpmem(buf, 300000, back, 300000);
    expect(n, 0, MIB, 0);
    node_unref(n);
    check_clean("snap");
    memory_file_free(f);
}

static void test_vmstate(void)
{
    in_fiber(body_vmstate, NULL);
}

static void body_width_one(const void *arg)
{
    g_autoptr(GError) error = NULL;
    struct memory_file *f = memory_file_new("snap", 0);
    create("snap", MIB, "{\"refcount_bits\": 1}");
    struct node *n = open_image("snap", NODE_RW);
    fill(n, 0, MIB, 1);
    struct snapshot_info s = {.name = (char *)"x"};
    g_assert_false(n->driver->snapshot_create(n, &s, &error));
    g_assert_true(strstr(error->message, "refcounts of 1 bits cannot count one more snapshot"));
    expect(n, 0, MIB, 1);
    node_unref(n);
    check_clean("snap");
    memory_file_free(f);
}

static void test_width_one(void)
{
    in_fiber(body_width_one, NULL);
}

/* ---- bitmaps ---- */

static struct dirty_bitmap *new_bitmap(struct node *n, const char *name, uint32_t granularity)
{
    GError *error = NULL;
    n->driver->bitmap_can_store(n, name, granularity, &error);
    g_assert_no_error(error);
    struct dirty_bitmap *b = dirty_new(n, 0, name, granularity, &error);
    g_assert_no_error(error);
    b->persistent = true;
    return b;
}

static void body_bitmaps(const void *options)
{
    GError *error = NULL;
    struct memory_file *f = memory_file_new("map", 0);
    create("map", DISK, options);
    struct node *n = open_image("map", NODE_RW);
    new_bitmap(n, "fine", 512);
    new_bitmap(n, "coarse", 65536);
    struct dirty_bitmap *off = new_bitmap(n, "off", 4096);
    fill(n, 1000, 5000, 1);
    off->enabled = false;
    dirty_set(dirty_find(n, "coarse"), 0, DISK);
    node_unref(n);
    check_clean("map");

    n = open_image("map", NODE_RW);
    struct dirty_bitmap *b = dirty_find(n, "fine");
    g_assert_nonnull(b);
    g_assert_true(b->enabled && b->persistent && !b->inconsistent && !b->read_only);
    g_assert_cmpuint(dirty_bytes(b), ==, 11 * 512);
    g_assert_cmpuint(dirty_bytes(dirty_find(n, "coarse")), ==, DISK);
    g_assert_false(dirty_find(n, "off")->enabled);
    g_assert_cmpuint(dirty_bytes(dirty_find(n, "off")), ==, 8192);
    fill(n, MIB, 512, 2);
    struct memory_file *crashed = memory_file_new("crashed", 0);
    memory_file_assign(crashed, f);
    n->driver->bitmap_forget(n, "off", &error);
    g_assert_no_error(error);
    dirty_free(dirty_find(n, "off"));
    node_resize(n, 2 * DISK, PREALLOC_OFF, &error);
    g_assert_no_error(error);
    node_unref(n);
    check_clean("map");

    n = open_image("map", 0);
    g_assert_null(dirty_find(n, "off"));
    g_assert_true(dirty_find(n, "fine")->read_only);
    g_assert_cmpuint(dirty_bytes(dirty_find(n, "fine")), ==, 12 * 512);
    g_assert_cmpuint(dirty_find(n, "fine")->size_bytes, ==, 2 * DISK);
    node_unref(n);

    n = open_image("crashed", NODE_RW);
    b = dirty_find(n, "fine");
    g_assert_true(b->inconsistent && !b->enabled);
    node_unref(n);
    n = open_image("crashed", NODE_RW);
    g_assert_true(dirty_find(n, "coarse")->inconsistent);
    n->driver->bitmap_forget(n, "coarse", &error);
    g_assert_no_error(error);
    dirty_free(dirty_find(n, "coarse"));
    node_unref(n);
    check_clean("crashed");
    memory_file_free(f);
    memory_file_free(crashed);
}

/* An image that is opened to be read, and then written: its bitmaps follow. */
static void body_bitmap_reopen(const void *arg)
{
    GError *error = NULL;
    struct memory_file *f = memory_file_new("map", 0), *crashed = memory_file_new("crashed", 0);
    create("map", DISK, "{}");
    struct node *n = open_image("map", NODE_RW);
    new_bitmap(n, "b", 65536);
    node_unref(n);
    n = open_image("map", 0);
    struct dirty_bitmap *b = dirty_find(n, "b");
    g_assert_true(b->read_only);
    node_set_read_only(n, false, &error);
    g_assert_no_error(error);
    g_assert_false(b->read_only);
    fill(n, 0, 65536, 1);
    memory_file_assign(crashed, f);
    node_set_read_only(n, true, &error);
    g_assert_no_error(error);
    g_assert_true(b->read_only);
    node_unref(n);
    check_clean("map");
    n = open_image("map", NODE_RW);
    g_assert_cmpuint(dirty_bytes(dirty_find(n, "b")), ==, 65536);
    node_unref(n);
    n = open_image("crashed", 0);
    g_assert_true(dirty_find(n, "b")->inconsistent);
    node_unref(n);
    memory_file_free(f);
    memory_file_free(crashed);
}

static void test_bitmap_reopen(void)
{
    in_fiber(body_bitmap_reopen, NULL);
}

static void test_bitmaps(void)
{
    static const char *const options[] = {"{}", "{\"cluster_size\": 512}",
                                          "{\"extended_l2\": true}",
                                          "{\"lazy_refcounts\": true, \"cluster_size\": 4096}"};
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++)
        in_fiber(body_bitmaps, options[i]);
}

static void body_bitmap_refusals(const void *arg)
{
    struct memory_file *f = memory_file_new("map", 0);
    create("map", DISK, "{\"compat\": \"0.10\"}");
    struct node *n = open_image("map", NODE_RW);
    g_autoptr(GError) error = NULL;
    g_assert_false(n->driver->bitmap_can_store(n, "x", 65536, &error));
    g_assert_true(strstr(error->message, "cannot be stored in version 2"));
    node_unref(n);
    create("map", 1ULL << 50, "{}");
    n = open_image("map", NODE_RW);
    g_assert_false(n->driver->bitmap_can_store(n, "x", 512, NULL));
    g_assert_false(n->driver->bitmap_can_store(n, "x", 1000, NULL));
    g_assert_false(n->driver->bitmap_can_store(n, "", 65536, NULL));
    g_assert_true(n->driver->bitmap_can_store(n, "x", MIB, NULL));
    node_unref(n);
    memory_file_free(f);
}

static void test_bitmap_refusals(void)
{
    in_fiber(body_bitmap_refusals, NULL);
}

/* ---- amend ---- */

static void amend(struct node *n, const char *options)
{
    GError *error = NULL;
    g_autoptr(JsonObject) o = json(options);
    n->driver->amend(n, o, NULL, &error);
    g_assert_no_error(error);
}

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

/* ---- power cuts ---- */

static void op_snapshot(struct node *n)
{
    snapshot(n, "new", 0);
}

static void op_delete(struct node *n)
{
    snapshot_do(n->driver->snapshot_delete, n, "old");
}

static void op_apply(struct node *n)
{
    snapshot_do(n->driver->snapshot_apply, n, "old");
}

static void op_width(struct node *n)
{
    amend(n, "{\"refcount_bits\": 64}");
}

static void op_bitmap(struct node *n)
{
    dirty_set(new_bitmap(n, "b", 4096), 0, 5 * 65536);
    g_assert_true(qcow2_bitmaps_store(qcow2_of(n), NULL));
}

static void op_features(struct node *n)
{
    amend(n, "{\"lazy_refcounts\": true}");
}

static const struct {
    const char *name;
    void (*fn)(struct node *n);
    bool changes; /* the disk shows the old snapshot afterwards */
} operations[] = {
    {"snapshot", op_snapshot, false}, {"delete", op_delete, false},
    {"apply", op_apply, true},        {"width", op_width, false},
    {"bitmap", op_bitmap, false},     {"features", op_features, false},
};

/* The disk is as before, or (once `changes`) as the snapshot "old" has it. */
static void judge_cut(struct memory_file *left, bool changes)
{
    g_assert_true(bed_check(bed, &qcow2_format, "left", BED_ALLOW_LEAKS));
    struct node *n = open_image("left", NODE_RW);
    uint8_t first;
    g_assert_cmpint(node_pread(n, 0, &first, 1), ==, 0);
    g_assert_true(first == 2 || (changes && first == 1));
    expect(n, 0, 128 * KIB, first);
    expect(n, 128 * KIB, 128 * KIB, 1);
    expect(n, MIB, 65536, first == 2 ? 3 : 0);
    fill(n, 64 * KIB, 256 * KIB, 8); /* life goes on */
    expect(n, 64 * KIB, 256 * KIB, 8);
    expect(n, 0, 64 * KIB, first);
    node_unref(n);
    g_assert_true(bed_check(bed, &qcow2_format, "left", BED_ALLOW_LEAKS));
    check("left", CHECK_FIX_LEAKS);
    check_clean("left");
}

/* Every prefix of the record, and the next flush's worth of it torn. */
static void cut_everywhere(struct memory_file *sure, struct memory_file *disk, GRand *r,
                           bool changes)
{
    unsigned count = memory_file_event_count(disk);
    struct memory_file *left = memory_file_new("left", 0);
    for (unsigned cut = 0; cut <= count; cut++) {
        memory_file_assign(left, sure);
        judge_cut(left, changes);
        for (unsigned round = 0; cut < count && round < 3; round++) {
            memory_file_assign(left, sure);
            for (unsigned i = cut; i < count && memory_file_event(disk, i)->op != MEMORY_FLUSH; i++)
                memory_event_apply_torn(left, memory_file_event(disk, i), r);
            judge_cut(left, changes);
        }
        if (cut < count)
            memory_event_apply(sure, memory_file_event(disk, cut));
    }
    memory_file_free(left);
}

static void body_power_cut(const void *arg)
{
    for (size_t i = 0; i < G_N_ELEMENTS(operations); i++) {
        struct memory_file *disk = memory_file_new("disk", 0), *sure = memory_file_new("sure", 0);
        create("disk", DISK, arg);
        struct node *n = open_image("disk", NODE_RW);
        fill(n, 0, 256 * KIB, 1);
        snapshot(n, "old", 0);
        fill(n, 0, 128 * KIB, 2);
        fill(n, MIB, 65536, 3);
        g_assert_cmpint(node_flush(n), ==, 0);
        node_unref(n);
        n = open_image("disk", NODE_RW);
        memory_file_assign(sure, disk);
        memory_file_record(disk, true);
        g_test_message("%s: %s", (const char *)arg, operations[i].name);
        operations[i].fn(n);
        g_assert_cmpint(node_flush(n), ==, 0);
        GRand *r = g_rand_new_with_seed(7);
        cut_everywhere(sure, disk, r, operations[i].changes);
        g_rand_free(r);
        node_unref(n);
        memory_file_free(disk);
        memory_file_free(sure);
    }
}

static void test_power_cut(void)
{
    in_fiber(body_power_cut, "{}");
    in_fiber(body_power_cut, "{\"cluster_size\": 4096}");
    in_fiber(body_power_cut, "{\"extended_l2\": true, \"cluster_size\": 16384}");
}

int main(int argc, char **argv)
{
    static const struct {
        const char *path;
        void (*fn)(void);
    } tests[] = {
        {"create", test_create},
        {"sizes", test_sizes},
        {"create-refusals", test_create_refusals},
        {"measure", test_measure},
        {"repair", test_repair},
        {"statistics", test_statistics},
        {"snapshots", test_snapshots},
        {"snapshot-sizes", test_snapshot_sizes},
        {"vmstate", test_vmstate},
        {"width-one", test_width_one},
        {"bitmaps", test_bitmaps},
        {"bitmap-reopen", test_bitmap_reopen},
        {"bitmap-refusals", test_bitmap_refusals},
        {"amend-width", test_amend_width},
        {"amend-version", test_amend_version},
        {"amend-refusals", test_amend_refusals},
        {"power-cut", test_power_cut},
    };
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++) {
        g_autofree char *path = g_strconcat("/qcow2-manage/", tests[i].path, NULL);
        g_test_add_func(path, tests[i].fn);
    }
    return g_test_run();
}
