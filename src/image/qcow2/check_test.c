/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checking qcow2 images, and repairing hurt ones. Files are in memory. */
#include "image/qcow2/manage_bed.h"

#include "base/error.h"

#include <string.h>

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

static void sick_snapshots(const struct sick *k)
{
    struct node *n = open_image("sick", NODE_RW);
    struct snapshot_info s = {.name = (char *)"s"};
    g_assert_true(n->driver->snapshot_create(n, &s, NULL));
    node_unref(n);
    set64(k->f, 56, (get64(k->f, 56) & ~0xffffffffULL) | 3);
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
    {"cut snapshot table", sick_snapshots, 1, 0, true, 0},
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

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-check/repair", test_repair);
    g_test_add_func("/qcow2-check/statistics", test_statistics);
    return g_test_run();
}
