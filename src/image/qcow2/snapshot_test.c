/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Snapshots and bitmaps of qcow2 images; power cuts in all that changes an image's structure. Files are in memory. */
#include "image/qcow2/manage_bed.h"

#include "base/error.h"

#include <string.h>

/* ---- snapshots ---- */

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

/* ---- power cuts ---- */

static bool op_snapshot(struct node *n, GError **error)
{
    struct snapshot_info s = {.name = (char *)"new"};
    return n->driver->snapshot_create(n, &s, error);
}

static bool op_delete(struct node *n, GError **error)
{
    return n->driver->snapshot_delete(n, "old", error);
}

static bool op_apply(struct node *n, GError **error)
{
    return n->driver->snapshot_apply(n, "old", error);
}

static bool op_amend(struct node *n, const char *option, bool on, GError **error)
{
    g_autoptr(JsonObject) o = json_object_new();
    json_object_set_string_member(o, option, on ? "on" : "64");
    return n->driver->amend(n, o, NULL, error);
}

static bool op_width(struct node *n, GError **error)
{
    return op_amend(n, "refcount_bits", false, error);
}

static bool op_features(struct node *n, GError **error)
{
    return op_amend(n, "lazy_refcounts", true, error);
}

static bool op_bitmap(struct node *n, GError **error)
{
    dirty_set(new_bitmap(n, "b", 4096), 0, 5 * 65536);
    return qcow2_bitmaps_store(qcow2_of(n), error);
}

static const struct operation {
    const char *name;
    bool (*fn)(struct node *n, GError **error);
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

/* What the operations work on, in memory://disk. */
static struct memory_file *make_disk(const char *options)
{
    struct memory_file *disk = memory_file_new("disk", 0);
    create("disk", DISK, options);
    struct node *n = open_image("disk", NODE_RW);
    fill(n, 0, 256 * KIB, 1);
    snapshot(n, "old", 0);
    fill(n, 0, 128 * KIB, 2);
    fill(n, MIB, 65536, 3);
    node_unref(n);
    return disk;
}

static void body_power_cut(const void *arg)
{
    for (const struct operation *o = operations; o < operations + G_N_ELEMENTS(operations); o++) {
        GError *error = NULL;
        struct memory_file *disk = make_disk(arg), *sure = memory_file_new("sure", 0);
        struct node *n = open_image("disk", NODE_RW);
        memory_file_assign(sure, disk);
        memory_file_record(disk, true);
        g_test_message("%s: %s", (const char *)arg, o->name);
        o->fn(n, &error);
        g_assert_no_error(error);
        g_assert_cmpint(node_flush(n), ==, 0);
        GRand *r = g_rand_new_with_seed(7);
        cut_everywhere(sure, disk, r, o->changes);
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

/* The medium fills up at any point of an operation: it fails in a sentence, and nothing is lost. */
static void body_no_space(const void *arg)
{
    for (const struct operation *o = operations; o < operations + G_N_ELEMENTS(operations); o++) {
        struct memory_file *full = make_disk(arg), *disk = memory_file_new("disk2", 0);
        bool done = false;
        g_test_message("%s: %s", (const char *)arg, o->name);
        for (uint64_t room = 0; !done; room += 4096) {
            g_autoptr(GError) error = NULL;
            memory_file_assign(disk, full);
            struct node *n = open_image("disk2", NODE_RW);
            memory_file_limit(disk, memory_file_allocated(disk) + room);
            done = o->fn(n, &error);
            g_assert_true(done || error);
            memory_file_limit(disk, UINT64_MAX);
            node_unref(n);
            struct memory_file *left = memory_file_new("left", 0);
            memory_file_assign(left, disk);
            judge_cut(left, o->changes);
            memory_file_free(left);
            g_assert_cmpuint(room, <, 64 * MIB);
        }
        memory_file_free(full);
        memory_file_free(disk);
    }
}

static void test_no_space(void)
{
    in_fiber(body_no_space, "{}");
    in_fiber(body_no_space, "{\"cluster_size\": 4096}");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-snapshot/snapshots", test_snapshots);
    g_test_add_func("/qcow2-snapshot/snapshot-sizes", test_snapshot_sizes);
    g_test_add_func("/qcow2-snapshot/vmstate", test_vmstate);
    g_test_add_func("/qcow2-snapshot/width-one", test_width_one);
    g_test_add_func("/qcow2-snapshot/bitmap-reopen", test_bitmap_reopen);
    g_test_add_func("/qcow2-snapshot/bitmaps", test_bitmaps);
    g_test_add_func("/qcow2-snapshot/bitmap-refusals", test_bitmap_refusals);
    g_test_add_func("/qcow2-snapshot/power-cut", test_power_cut);
    g_test_add_func("/qcow2-snapshot/no-space", test_no_space);
    return g_test_run();
}
