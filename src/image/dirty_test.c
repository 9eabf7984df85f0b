/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Dirty bitmaps against a shadow of one byte per 512 bytes of disk: whatever random sets, resets,
 * merges, resizes and stores do, both must answer alike. */
#include "image/dirty.h"

#include "base/error.h"
#include "image/driver.h"

#include <string.h>

enum { UNIT = 512, UNITS_MAX = 40000 };

static uint8_t shadow[UNITS_MAX];
static uint64_t seed;

static uint64_t chance(uint64_t below)
{
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (seed >> 33) % below;
}

static struct dirty_bitmap *fresh(uint64_t size, uint32_t granularity)
{
    g_autoptr(GError) error = NULL;
    struct dirty_bitmap *b = dirty_new(NULL, size, NULL, granularity, &error);
    g_assert_no_error(error);
    memset(shadow, 0, sizeof(shadow));
    return b;
}

static void shadow_fill(const struct dirty_bitmap *b, uint64_t begin, uint64_t end, uint8_t value)
{
    for (uint64_t u = begin / UNIT; u * UNIT < end && u * UNIT < b->size_bytes; u++)
        shadow[u] = value;
}

static void both_set(struct dirty_bitmap *b, uint64_t off, uint64_t len)
{
    dirty_set(b, off, len);
    if (len && off < b->size_bytes)
        shadow_fill(b, align_down(off, b->granularity), align_up(off + len, b->granularity), 1);
}

static void both_reset(struct dirty_bitmap *b, uint64_t off, uint64_t len)
{
    dirty_reset(b, off, len);
    uint64_t end =
        off + len >= b->size_bytes ? b->size_bytes : align_down(off + len, b->granularity);
    uint64_t begin = align_up(off, b->granularity);
    if (begin < end)
        shadow_fill(b, begin, end, 0);
}

static void compare_areas(const struct dirty_bitmap *b, uint64_t from, uint64_t end,
                          uint64_t max_len)
{
    uint64_t off = from, a, len;
    while (dirty_next(b, off, end, max_len, &a, &len)) {
        g_assert_cmpuint(len, >, 0);
        g_assert_cmpuint(a + len, <=, min_u64(end, b->size_bytes));
        if (max_len)
            g_assert_cmpuint(len, <=, max_len);
        for (uint64_t p = off; p < a; p = align_down(p, UNIT) + UNIT)
            g_assert_cmpuint(shadow[p / UNIT], ==, 0);
        for (uint64_t p = a; p < a + len; p = align_down(p, UNIT) + UNIT)
            g_assert_cmpuint(shadow[p / UNIT], ==, 1);
        off = a + len;
    }
    for (uint64_t p = off; p < min_u64(end, b->size_bytes); p = align_down(p, UNIT) + UNIT)
        g_assert_cmpuint(shadow[p / UNIT], ==, 0);
}

static void compare(const struct dirty_bitmap *b)
{
    uint64_t bytes = 0;
    for (uint64_t off = 0; off < b->size_bytes; off += UNIT) {
        g_assert_cmpint(dirty_get(b, off), ==, shadow[off / UNIT]);
        if (shadow[off / UNIT])
            bytes += min_u64(UNIT, b->size_bytes - off);
    }
    g_assert_cmpuint(dirty_bytes(b), ==, bytes);
    compare_areas(b, 0, UINT64_MAX, 0);
    uint64_t from = chance(b->size_bytes), clean;
    compare_areas(b, from, from + chance(b->size_bytes) + 1, 1 + chance(5 * b->granularity));
    uint64_t expect = from;
    while (expect < b->size_bytes && shadow[expect / UNIT])
        expect = align_down(expect, UNIT) + UNIT;
    bool found = dirty_next_clean(b, from, b->size_bytes, &clean);
    g_assert_cmpint(found, ==, expect < b->size_bytes);
    if (found)
        g_assert_cmpuint(clean, ==, expect);
}

static void random_step(struct dirty_bitmap *b)
{
    uint64_t off = chance(b->size_bytes + 1000), len = chance(chance(4) ? 3000 : b->size_bytes);
    switch (chance(8)) {
    case 0:
    case 1:
        both_reset(b, off, len);
        break;
    case 2:
        both_reset(b, off, b->size_bytes);
        break;
    default:
        both_set(b, off, len);
    }
}

static void test_random(void)
{
    for (seed = 1; seed < 400; seed++) {
        uint64_t round = seed, size = 1 + chance((uint64_t)UNITS_MAX * UNIT);
        struct dirty_bitmap *b = fresh(size, UNIT << chance(8));
        for (unsigned step = 0; step < 40; step++)
            random_step(b);
        compare(b);
        dirty_clear(b);
        memset(shadow, 0, sizeof(shadow));
        both_set(b, chance(size), 1);
        compare(b);
        dirty_free(b);
        seed = round;
    }
}

static void test_stored_form(void)
{
    for (seed = 1000; seed < 1100; seed++) {
        uint64_t round = seed, size = 1 + chance((uint64_t)UNITS_MAX * UNIT);
        struct dirty_bitmap *b = fresh(size, UNIT << chance(4));
        for (unsigned step = 0; step < 40; step++)
            random_step(b);
        g_autofree uint8_t *bytes = g_malloc0(b->grain_count / 8 + 1);
        for (uint64_t g = 0; g < b->grain_count; g++)
            bytes[g / 8] |= (uint8_t)(shadow[g * b->granularity / UNIT] << g % 8);
        g_autofree uint8_t *stored = g_malloc(b->grain_count / 8 + 1);
        struct dirty_bitmap *copy = dirty_new(NULL, size, NULL, b->granularity, NULL);
        for (uint64_t g = 0, step; g < b->grain_count; g += step) {
            step = min_u64(8 * (1 + chance(300)), b->grain_count - g);
            dirty_store(b, g, step, stored + g / 8);
            dirty_load(copy, g, step, bytes + g / 8);
        }
        g_assert_cmpmem(stored, (b->grain_count + 7) / 8, bytes, (b->grain_count + 7) / 8);
        compare(copy);
        dirty_free(copy);
        dirty_free(b);
        seed = round;
    }
}

/* Bits past the last grain, as a hostile image may hold them, are not taken. */
static void test_stray_bits(void)
{
    struct dirty_bitmap *b = fresh(10 * UNIT, UNIT);
    uint8_t stored[16];
    memset(stored, 0xff, sizeof(stored));
    dirty_load(b, 0, 128, stored);
    g_assert_cmpuint(dirty_bytes(b), ==, 10 * UNIT);
    dirty_load(b, 64, 64, stored);
    g_assert_cmpuint(dirty_bytes(b), ==, 10 * UNIT);
    dirty_clear(b);
    g_assert_cmpuint(b->dirty_count, ==, 0);
    dirty_free(b);
}

static void test_merge_and_swap(void)
{
    for (seed = 5000; seed < 5100; seed++) {
        uint64_t round = seed, size = 1 + chance((uint64_t)UNITS_MAX * UNIT);
        struct dirty_bitmap *src = fresh(size, UNIT << chance(6));
        for (unsigned step = 0; step < 10; step++)
            random_step(src);
        struct dirty_bitmap *dst = dirty_new(NULL, size, NULL, UNIT << chance(6), NULL);
        g_assert_true(dirty_merge(dst, src, NULL));
        for (uint64_t off = 0; off < size; off += UNIT) {
            uint64_t begin = align_down(off, dst->granularity), end = begin + dst->granularity, a,
                     len;
            g_assert_cmpint(dirty_get(dst, off), ==, dirty_next(src, begin, end, 0, &a, &len));
        }
        struct dirty_bitmap *taken = dirty_new(NULL, size, NULL, src->granularity, NULL);
        dirty_swap(taken, src);
        g_assert_cmpuint(dirty_bytes(src), ==, 0);
        compare(taken);
        dirty_free(src);
        dirty_free(dst);
        dirty_free(taken);
        seed = round;
    }
    g_autoptr(GError) error = NULL;
    struct dirty_bitmap *a = fresh(MIB, 64 * KIB), *b = fresh(2 * MIB, 64 * KIB);
    g_assert_false(dirty_merge(a, b, &error));
    g_assert_cmpstr(
        error->message, ==,
        "bitmap '(a job's)' covers 2097152 bytes and '(a job's)' 1048576: only bitmaps of "
        "one size can be merged");
    dirty_free(a);
    dirty_free(b);
}

static void test_resize(void)
{
    for (seed = 9000; seed < 9200; seed++) {
        uint64_t round = seed, max = (uint64_t)UNITS_MAX * UNIT;
        struct dirty_bitmap *b = fresh(1 + chance(max), UNIT << chance(3));
        for (unsigned step = 0; step < 20; step++)
            random_step(b);
        uint64_t old = b->size_bytes, size = 1 + chance(max);
        bool last = dirty_get(b, old - 1);
        g_assert_true(dirty_resize(b, size));
        if (size > old && last) /* the rest of the last grain comes with it */
            shadow_fill(b, old, align_up(old, b->granularity), 1);
        for (uint64_t u = size / UNIT + (size % UNIT != 0); u < UNITS_MAX; u++)
            shadow[u] = 0;
        compare(b);
        dirty_free(b);
        seed = round;
    }
}

/* A petabyte at 64 KiB: found, counted and cleared without a pass over its memory. */
static void test_large(void)
{
    uint64_t size = 1ULL << 50, off, len;
    struct dirty_bitmap *b = fresh(size, 128 * KIB);
    for (unsigned i = 0; i < 1000; i++)
        dirty_set(b, i * (size / 1000), 1);
    g_assert_cmpuint(dirty_bytes(b), ==, 1000 * 128 * KIB);
    int64_t begin = g_get_monotonic_time();
    unsigned found = 0;
    for (off = len = 0; dirty_next(b, off + len, size, 0, &off, &len); found++)
        g_assert_cmpuint(len, ==, 128 * KIB);
    dirty_clear(b);
    g_assert_cmpuint(found, ==, 1000);
    g_assert_cmpuint(dirty_bytes(b), ==, 0);
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 3 * G_USEC_PER_SEC);
    dirty_free(b);
}

static void test_node(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree struct node *n = g_new0(struct node, 1);
    n->size_bytes = 10 * MIB;
    n->name = (char *)"disk0";
    struct dirty_bitmap *a = dirty_new(n, 0, "a", 0, NULL), *b = dirty_new(n, 0, "b", 4096, NULL);
    g_assert_cmpuint(a->granularity, ==, 64 * KIB);
    n->cluster_bytes = 512;
    struct dirty_bitmap *c = dirty_new(n, 0, "c", 0, NULL);
    g_assert_cmpuint(c->granularity, ==, 4096);
    g_assert_true(dirty_find(n, "b") == b);
    g_assert_null(dirty_find(n, "d"));
    g_assert_null(dirty_new(n, 0, "b", 0, &error));
    g_assert_cmpstr(error->message, ==, "node 'disk0' has a bitmap 'b' already");
    b->enabled = false;
    dirty_record(n, 8192, 100);
    g_assert_cmpuint(dirty_bytes(a), ==, 64 * KIB);
    g_assert_cmpuint(dirty_bytes(b), ==, 0);
    g_assert_cmpuint(dirty_bytes(c), ==, 4096);
    dirty_free(b);
    g_assert_null(dirty_find(n, "b"));
    g_assert_true(dirty_find(n, "c") == c);
    dirty_free(a);
    dirty_free(c);
    g_assert_null(n->bitmaps);
    dirty_free(NULL);
}

static void test_refusals(void)
{
    static const struct {
        const char *name;
        uint32_t granularity;
        const char *sentence;
    } bad[] = {
        {"", 512, "a bitmap needs a name that is not empty"},
        {"x", 1000,
         "bitmap 'x': granularity 1000 is not a power of two between 512 and 2147483648 bytes"},
        {"x", 256,
         "bitmap 'x': granularity 256 is not a power of two between 512 and 2147483648 bytes"},
        {"x", 512,
         "bitmap 'x': no memory for 2251799813685248 grains (the limit is 17179869184); choose a "
         "granularity above 512 bytes"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_null(dirty_new(NULL, 1ULL << 60, bad[i].name, bad[i].granularity, &error));
        g_assert_cmpstr(error->message, ==, bad[i].sentence);
    }
    g_autofree char *name = g_strnfill(1024, 'n');
    g_assert_null(dirty_new(NULL, 512, name, 512, NULL));
    name[1023] = 0;
    struct dirty_bitmap *b = dirty_new(NULL, 512, name, 512, NULL);
    g_assert_nonnull(b);
    g_assert_true(dirty_usable(b, 7, NULL));
    b->busy = true;
    g_assert_false(dirty_usable(b, DIRTY_NEED_IDLE, NULL));
    g_assert_true(dirty_usable(b, DIRTY_NEED_WRITABLE | DIRTY_NEED_CONSISTENT, NULL));
    b->read_only = b->inconsistent = true;
    g_assert_false(dirty_usable(b, DIRTY_NEED_WRITABLE, NULL));
    g_assert_false(dirty_usable(b, DIRTY_NEED_CONSISTENT, NULL));
    dirty_free(b);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/dirty/random", test_random);
    g_test_add_func("/dirty/stored-form", test_stored_form);
    g_test_add_func("/dirty/stray-bits", test_stray_bits);
    g_test_add_func("/dirty/merge-and-swap", test_merge_and_swap);
    g_test_add_func("/dirty/resize", test_resize);
    g_test_add_func("/dirty/large", test_large);
    g_test_add_func("/dirty/node", test_node);
    g_test_add_func("/dirty/refusals", test_refusals);
    return g_test_run();
}
