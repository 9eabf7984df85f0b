/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VDI: written, closed and read again; growing past the map's room; check; hostile headers. */
#include "base/scratch.h"
#include "image/sparse_testing.h"
#include "image/vdi.h"

static void both_types(struct ground *t)
{
    for (unsigned i = 0; i < 2; i++) {
        ground_create(t, "vdi", "d.vdi", 10 * MIB + 1024, NULL, i ? "{\"static\": true}" : "{}");
        struct node *n = ground_open(t, "vdi", "d.vdi", NODE_RW);
        g_assert_cmpuint(node_size(n), ==, 10 * MIB + 1024);
        ground_write(n, 7 * MIB + 5, 1000, 0x11);
        ground_write(n, 2 * MIB - 10, 2 * MIB, 0x22);
        ground_write(n, 10 * MIB + 512, 512, 0x33);
        node_unref(n);
        n = ground_open(t, "vdi", "d.vdi", 0);
        ground_expect(n, 0, 2 * MIB - 10, 0);
        ground_expect(n, 2 * MIB - 10, 2 * MIB, 0x22);
        ground_expect(n, 4 * MIB - 10, 100, 0);
        ground_expect(n, 7 * MIB + 5, 1000, 0x11);
        ground_expect(n, 10 * MIB, 512, 0);
        ground_expect(n, 10 * MIB + 512, 512, 0x33);
        node_unref(n);
        struct image_check c = ground_check(t, "vdi", "d.vdi", 0);
        g_assert_cmpuint(c.corruptions + c.leaks, ==, 0);
        g_assert_cmpuint(c.allocated_clusters, ==, i ? 11 : 5);
    }
}

static void zero_and_discard(struct ground *t)
{
    ground_create(t, "vdi", "d.vdi", 10 * MIB, NULL, "{}");
    struct node *n = ground_open(t, "vdi", "d.vdi", NODE_RW);
    ground_write(n, 0, 3 * MIB, 0x11);
    g_assert_cmpint(node_zero(n, MIB / 2, MIB, NODE_MAY_UNMAP), ==, 0);
    g_assert_cmpint(node_zero(n, 5 * MIB, 5 * MIB, 0), ==, 0);
    ground_expect(n, 0, MIB / 2, 0x11);
    ground_expect(n, MIB / 2, MIB, 0);
    ground_expect(n, MIB + MIB / 2, MIB, 0x11);
    struct image_extent x;
    g_assert_cmpint(node_map(n, 5 * MIB, MIB, &x), ==, 0);
    g_assert_true(x.flags & EXTENT_ZERO);
    node_unref(n);
}

static void resize_to(struct ground *t, uint64_t size)
{
    g_autoptr(GError) error = NULL;
    struct node *n = ground_open(t, "vdi", "d.vdi", NODE_RW);
    node_resize(n, size, PREALLOC_OFF, &error);
    g_assert_no_error(error);
    node_unref(n);
    struct image_check c = ground_check(t, "vdi", "d.vdi", 0);
    g_assert_cmpuint(c.corruptions, ==, 0);
}

/* The map has room for 128 blocks in its sector; then the first blocks make place for a larger one.
 */
static void resize(struct ground *t)
{
    ground_create(t, "vdi", "d.vdi", 10 * MIB, NULL, "{}");
    struct node *n = ground_open(t, "vdi", "d.vdi", NODE_RW);
    ground_write(n, 8 * MIB, MIB, 0x41);
    ground_write(n, 0, MIB, 0x42);
    node_unref(n);
    static const uint64_t sizes[] = {100 * MIB, 3000 * MIB, 700 * GIB, 9 * MIB + 512, 20 * GIB};
    for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
        resize_to(t, sizes[i]);
        n = ground_open(t, "vdi", "d.vdi", NODE_RW);
        g_assert_cmpuint(node_size(n), ==, sizes[i]);
        ground_expect(n, 0, MIB, 0x42);
        ground_expect(n, 8 * MIB, MIB, 0x41);
        ground_expect(n, 9 * MIB, 512, i ? 0x43 : 0);
        ground_write(n, 9 * MIB, 512, 0x43);
        if (sizes[i] > 50 * MIB)
            ground_expect(n, 9 * MIB + 512, MIB, 0);
        node_unref(n);
    }
}

static void check_finds(struct ground *t)
{
    uint32_t map[4] = {0, 0, 77, VDI_UNALLOCATED}, count = 0;
    ground_create(t, "vdi", "d.vdi", 4 * MIB, NULL, "{}");
    struct node *n = ground_open(t, "vdi", "d.vdi", NODE_RW);
    ground_write(n, 0, 3 * MIB, 0x51);
    node_unref(n);
    ground_poke(t, "d.vdi", 512, map, sizeof(map));
    ground_poke(t, "d.vdi", 388, &count, sizeof(count));
    struct image_check c = ground_check(t, "vdi", "d.vdi", 0);
    g_assert_cmpuint(c.corruptions, ==, 3);
    c = ground_check(t, "vdi", "d.vdi", CHECK_FIX_ERRORS);
    g_assert_cmpuint(c.corruptions_fixed, ==, 3);
    c = ground_check(t, "vdi", "d.vdi", 0);
    g_assert_cmpuint(c.corruptions, ==, 0);
    n = ground_open(t, "vdi", "d.vdi", NODE_RW);
    ground_expect(n, 0, MIB, 0x51);
    ground_expect(n, MIB, 3 * MIB, 0);
    ground_write(n, MIB, MIB, 0x52); /* not over the first block */
    ground_expect(n, 0, MIB, 0x51);
    node_unref(n);
}

/* Blocks that the map lost: the others move together, and the file gets shorter. */
static void leaks(struct ground *t)
{
    static const uint32_t none = VDI_UNALLOCATED;
    ground_create(t, "vdi", "d.vdi", 9 * MIB, NULL, "{}");
    struct node *n = ground_open(t, "vdi", "d.vdi", NODE_RW);
    for (unsigned i = 0; i < 9; i++)
        ground_write(n, i * MIB, MIB, 0x61 + (int)i);
    node_unref(n);
    uint64_t full = ground_size(t, "d.vdi");
    for (unsigned i = 0; i < 9; i += i == 2 ? 5 : 1) /* 0, 1, 2, 7, 8 */
        ground_poke(t, "d.vdi", 512 + 4 * i, &none, sizeof(none));
    struct image_check c = ground_check(t, "vdi", "d.vdi", 0);
    g_assert_cmpuint(c.leaks, ==, 5);
    g_assert_cmpuint(c.corruptions, ==, 0);
    c = ground_check(t, "vdi", "d.vdi", CHECK_FIX_LEAKS);
    g_assert_cmpuint(c.leaks_fixed, ==, 5);
    c = ground_check(t, "vdi", "d.vdi", 0);
    g_assert_cmpuint(c.leaks + c.corruptions, ==, 0);
    g_assert_cmpuint(ground_size(t, "d.vdi"), ==, full - 5 * MIB);
    n = ground_open(t, "vdi", "d.vdi", NODE_RW);
    ground_write(n, 0, MIB, 0x70); /* a new block, at the new end */
    for (unsigned i = 0; i < 9; i++)
        ground_expect(n, i * MIB, MIB, i == 0 ? 0x70 : i > 2 && i < 7 ? 0x61 + (int)i : 0);
    node_unref(n);
}

static void patched(struct ground *t, unsigned at, uint64_t value, unsigned bytes, const char *why)
{
    ground_create(t, "vdi", "h.vdi", 4 * MIB, NULL, "{}");
    ground_poke(t, "h.vdi", at, &value, bytes);
    ground_cannot_open(t, "vdi", "h.vdi", 0, why);
}

static void headers(struct ground *t)
{
    patched(t, 64, 0, 4, "no VDI header");
    patched(t, 68, 0x00020000, 4, "version 2.0");
    patched(t, 76, 4, 4, "type 4");
    patched(t, 340, 100, 4, "block map");
    patched(t, 340, 0x7fffff00, 4, "block map");
    patched(t, 344, 513, 4, "blocks' offset");
    patched(t, 360, 4096, 4, "sectors of 4096");
    patched(t, 368, UINT64_MAX, 8, "do not fit");
    patched(t, 376, 65536, 4, "blocks of 65536");
    patched(t, 384, UINT32_MAX, 4, "do not fit");
    patched(t, 384, 1u << 28, 4, "block map");
    patched(t, 430, 1, 1, "belongs to a parent");
}

/* The map's entry points at the map itself. */
static void corrupt_entry(struct ground *t)
{
    uint32_t data = 512, first = 0;
    ground_create(t, "vdi", "c.vdi", 4 * MIB, NULL, "{}");
    ground_poke(t, "c.vdi", 344, &data, sizeof(data));
    ground_poke(t, "c.vdi", 512, &first, sizeof(first));
    struct node *n = ground_open(t, "vdi", "c.vdi", NODE_RW);
    uint8_t byte = 1;
    g_assert_cmpint(node_pwrite(n, 0, &byte, 1, 0), ==, -EIO);
    g_assert_true(n->corrupt);
    node_unref(n);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    scratch_folder("ruche-vdi");
    ground_add("/vdi/both-types", both_types);
    ground_add("/vdi/zero-and-discard", zero_and_discard);
    ground_add("/vdi/resize", resize);
    ground_add("/vdi/check", check_finds);
    ground_add("/vdi/leaks", leaks);
    ground_add("/vdi/headers", headers);
    ground_add("/vdi/corrupt-entry", corrupt_entry);
    return g_test_run();
}
