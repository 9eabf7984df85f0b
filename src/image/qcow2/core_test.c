/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qcow2 without a peer: counts of every width, headers that are refused, metadata that a broken
 * entry must not overwrite, and what a small write costs.
 *
 * Thread    The test's.
 */
#include "image/qcow2/internal.h"
#include "image/testbed.h"

#include <errno.h>
#include <string.h>

static const struct bed_format format = {"qcow2", "qcow2", "{}", 8 * MIB, 65536, 0};

/* ---- counts ---- */

static void test_widths(void)
{
    for (unsigned order = 0; order <= 6; order++) {
        uint8_t block[512 * 8] = {0};
        uint64_t want[512] = {0}, mask = order == 6 ? UINT64_MAX : (1ULL << (1U << order)) - 1;
        GRand *rand = g_rand_new_with_seed(order);
        for (unsigned i = 0; i < 4000; i++) {
            unsigned at = (unsigned)g_rand_int_range(rand, 0, ARRAY_COUNT(want));
            want[at] = ((uint64_t)g_rand_int(rand) << 32 | g_rand_int(rand)) & mask;
            qcow2_refcount_write(block, order, at, want[at]);
        }
        for (unsigned i = 0; i < ARRAY_COUNT(want); i++)
            g_assert_cmpuint(qcow2_refcount_read(block, order, i), ==, want[i]);
        g_rand_free(rand);
    }
    uint8_t two[2] = {0}, bits[1] = {0};
    qcow2_refcount_write(two, 4, 0, 0x1234);
    g_assert_cmphex(two[0], ==, 0x12);
    qcow2_refcount_write(bits, 1, 1, 2); /* the lowest bits come first */
    g_assert_cmphex(bits[0], ==, 8);
}

/* ---- headers ---- */

struct refusal {
    unsigned off;
    const char *bytes;
    unsigned len;
    const char *says;
};

static const struct refusal refusals[] = {
    {4, "\0\0\0\4", 4, "version 4 is not supported"},
    {20, "\0\0\0\10", 4, "clusters of 2^8 bytes"},
    {20, "\0\0\0\26", 4, "clusters of 2^22 bytes"},
    {24, "\177\377\377\377\0\0\0\0", 8, "is above the limit of 2^62"},
    {24, "\0\377\377\377\0\0\0\0", 8, "the L1 table has 1 entries"},
    {32, "\0\0\0\7", 4, "encryption method 7"},
    {36, "\177\377\377\377", 4, "the L1 table of 2147483647 entries"},
    {40, "\0\0\0\0\0\3\0\1", 8, "L1 table offset 0x30001 is not a multiple"},
    {48, "\377\0\0\0\0\0\0\0", 8, "refcount table"},
    {56, "\0\377\377\377", 4, "the refcount table of 16777215 clusters"},
    {60, "\377\0\0\0", 4, "snapshots are above the limit"},
    {72, "\0\0\0\0\0\0\0\200", 8, "incompatible bit 7"},
    {72, "\0\0\0\0\0\0\0\10", 8, "compression type 0 and incompatible bit 3"},
    {88, "\0\0\0\0\0\0\0\2", 8, "without an external data file"},
    {96, "\0\0\0\7", 4, "refcount order 7"},
    {100, "\0\0\0\144", 4, "header length 100"},
    {8, "\0\0\0\0\0\0\4\0\0\0\7\320", 12, "the backing file name of 2000 bytes"},
};

static int refuse_headers(void *opaque)
{
    struct bed *b = opaque;
    struct memory_file *f = memory_file_new("h", 0);
    for (unsigned i = 0; i < ARRAY_COUNT(refusals); i++) {
        g_autoptr(GError) error = NULL;
        const struct refusal *r = &refusals[i];
        memory_file_set(f, "", 0);
        bed_create(b, &format, "h", NULL);
        memory_file_write(f, r->off, r->bytes, r->len);
        g_assert_null(bed_open(b, &format, "h", NULL, 0, &error));
        if (!strstr(error->message, r->says))
            g_error("byte %u: '%s' does not say '%s'", r->off, error->message, r->says);
    }
    memory_file_free(f);
    return 0;
}

static void test_headers(void)
{
    struct bed *b = bed_new();
    bed_run(b, refuse_headers, b);
    bed_free(b);
}

/* ---- overlap ---- */

/* An entry that names the refcount table: the write is refused, the image marked, and only readable
 * from now on. */
static int hit_metadata(void *opaque)
{
    struct bed *b = opaque;
    struct memory_file *f = memory_file_new("o", 0);
    uint8_t data[4096], before[64], after[64], flags;
    GError *error = NULL;
    memset(data, 0xaa, sizeof(data));
    bed_create(b, &format, "o", NULL);
    struct node *n = bed_must_open(b, &format, "o", NODE_RW);
    struct qcow2 *s = qcow2_of(n);
    struct qcow2_table *t;
    unsigned index;
    g_assert_cmpint(node_pwrite(n, 0, data, sizeof(data), 0), ==, 0);
    g_assert_cmpint(qcow2_l2_writable(s, 0, &t, &index), ==, 0);
    g_assert_cmpint(qcow2_cache_change(&s->l2_cache, t), ==, 0);
    qcow2_l2_set(s, t, index, s->header.reftable_offset | QCOW2_COPIED, 0);
    memory_file_read(f, s->header.reftable_offset, before, sizeof(before));
    g_assert_cmpint(node_pwrite(n, 0, data, sizeof(data), 0), ==, -EIO);
    memory_file_read(f, s->header.reftable_offset, after, sizeof(after));
    g_assert_cmpmem(before, sizeof(before), after, sizeof(after));
    g_assert_true(n->corrupt);
    g_assert_true(node_is_read_only(n));
    memory_file_read(f, 79, &flags, 1);
    g_assert_cmpuint(flags & QCOW2_INCOMPAT_CORRUPT, ==, QCOW2_INCOMPAT_CORRUPT);
    node_unref(n);
    g_assert_null(bed_open(b, &format, "o", NULL, NODE_RW, &error));
    g_assert_nonnull(strstr(error->message, "is marked as corrupt"));
    g_clear_error(&error);
    node_unref(bed_must_open(b, &format, "o", 0));
    memory_file_free(f);
    return 0;
}

static void test_overlap(void)
{
    struct bed *b = bed_new();
    bed_run(b, hit_metadata, b);
    bed_free(b);
}

/* ---- cost ---- */

/* 4 KiB into a fresh cluster are one write of 4 KiB; tables wait for the flush. */
static int count_writes(void *opaque)
{
    struct bed *b = opaque;
    struct memory_file *f = memory_file_new("c", 0);
    uint8_t data[4096];
    memset(data, 1, sizeof(data));
    bed_create(b, &format, "c", NULL);
    struct node *n = bed_must_open(b, &format, "c", NODE_RW);
    g_assert_cmpint(node_pwrite(n, 0, data, sizeof(data), 0), ==, 0); /* makes the L2 table */
    memory_file_record(f, true);
    for (unsigned i = 1; i <= 10; i++)
        g_assert_cmpint(node_pwrite(n, i * 65536 + 8192, data, sizeof(data), 0), ==, 0);
    g_assert_cmpuint(memory_file_event_count(f), ==, 10);
    for (unsigned i = 0; i < 10; i++) {
        g_assert_cmpint(memory_file_event(f, i)->op, ==, MEMORY_WRITE);
        g_assert_cmpuint(memory_file_event(f, i)->len, ==, sizeof(data));
    }
    memory_file_record(f, false);
    node_unref(n);
    memory_file_free(f);
    return 0;
}

static void test_cost(void)
{
    struct bed *b = bed_new();
    bed_run(b, count_writes, b);
    bed_free(b);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-core/widths", test_widths);
    g_test_add_func("/qcow2-core/headers", test_headers);
    g_test_add_func("/qcow2-core/overlap", test_overlap);
    g_test_add_func("/qcow2-core/cost", test_cost);
    return g_test_run();
}
