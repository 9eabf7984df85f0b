/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Views of scattered memory, against the same bytes laid flat. */
#include "image/vec.h"

#include <glib.h>
#include <string.h>

/* Iovecs of the lengths below, over one buffer with gaps between them. */
static const size_t lengths[] = {0, 1, 0, 0, 511, 4096, 3, 0, 70000, 16, 0};
enum { COUNT = ARRAY_COUNT(lengths), GAP = 32, TOTAL = 1 + 511 + 4096 + 3 + 70000 + 16 };

struct scattered {
    uint8_t memory[TOTAL + COUNT * GAP];
    struct iovec iov[COUNT];
};

static struct scattered *scattered_new(void)
{
    struct scattered *s = g_new0(struct scattered, 1);
    memset(s->memory, 0xee, sizeof(s->memory));
    size_t at = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        s->iov[i] = (struct iovec){.iov_base = s->memory + at, .iov_len = lengths[i]};
        at += lengths[i] + GAP;
    }
    return s;
}

static void assert_gaps_untouched(const struct scattered *s)
{
    for (unsigned i = 0; i < COUNT; i++) {
        const uint8_t *gap = (const uint8_t *)s->iov[i].iov_base + s->iov[i].iov_len;
        for (unsigned b = 0; b < GAP; b++)
            g_assert_cmphex(gap[b], ==, 0xee);
    }
}

static void test_read_write(void)
{
    g_autofree struct scattered *s = scattered_new();
    g_autofree uint8_t *model = g_malloc0(TOTAL), *flat = g_malloc(TOTAL);
    struct vec all = vec_of(s->iov, COUNT);
    g_assert_cmpuint(all.len, ==, TOTAL);
    vec_fill(all, 0);
    for (unsigned round = 0; round < 2000; round++) {
        size_t off = (size_t)g_test_rand_int_range(0, TOTAL + 1);
        size_t len = (size_t)g_test_rand_int_range(0, (gint32)(TOTAL - off) + 1);
        if (round & 1)
            len = MIN(len, 20);
        memset(flat, (int)round, len);
        memcpy(model + off, flat, len);
        /* A slice of a slice is the same bytes. */
        struct vec outer = vec_slice(all, off / 2, TOTAL - off / 2);
        struct vec v = vec_slice(outer, off - off / 2, len);
        g_assert_cmpuint(v.len, ==, len);
        vec_write(v, flat);
        vec_read(all, flat);
        g_assert_cmpmem(flat, TOTAL, model, TOTAL);
    }
    assert_gaps_untouched(s);
}

static void test_to_iov(void)
{
    g_autofree struct scattered *s = scattered_new();
    struct iovec out[COUNT];
    size_t len;
    unsigned n = vec_to_iov(vec_of(s->iov, COUNT), out, COUNT, &len);
    g_assert_cmpuint(n, ==, 6); /* empty ones are left out */
    g_assert_cmpuint(len, ==, TOTAL);
    n = vec_to_iov(vec_of(s->iov, COUNT), out, 2, &len);
    g_assert_cmpuint(n, ==, 2);
    g_assert_cmpuint(len, ==, 512);
    struct vec middle = vec_slice(vec_of(s->iov, COUNT), 500, 4200);
    n = vec_to_iov(middle, out, COUNT, &len);
    g_assert_cmpuint(n, ==, 4);
    g_assert_cmpuint(len, ==, 4200);
    g_assert_true(out[0].iov_base == (uint8_t *)s->iov[4].iov_base + 499);
    g_assert_cmpuint(out[0].iov_len, ==, 12);
    g_assert_cmpuint(out[3].iov_len, ==, 4200 - 12 - 4096 - 3);
    g_assert_cmpuint(vec_to_iov(vec_slice(middle, 4200, 0), out, COUNT, &len), ==, 0);
    g_assert_cmpuint(len, ==, 0);
}

static void test_flat(void)
{
    char text[] = "honeycomb";
    struct iovec iov;
    char got[5] = "";
    vec_read(vec_slice(vec_flat(&iov, text, 9), 5, 4), got);
    g_assert_cmpstr(got, ==, "comb");
    vec_read(vec_of(NULL, 0), got); /* nothing at all is fine */
    g_assert_true(vec_is_zero(vec_of(NULL, 0)));
}

static void test_aligned(void)
{
    static _Alignas(4096) uint8_t page[3 * 4096];
    struct iovec iov[] = {{page, 4096}, {page + 8192, 512}};
    struct vec v = vec_of(iov, 2);
    g_assert_true(vec_is_aligned(v, 4096, 512));
    g_assert_false(vec_is_aligned(v, 4096, 4096));
    g_assert_true(vec_is_aligned(vec_slice(v, 512, 4096), 512, 512));
    g_assert_false(vec_is_aligned(vec_slice(v, 512, 4096), 4096, 512));
    g_assert_false(vec_is_aligned(vec_slice(v, 0, 4097), 1, 2));
    g_assert_true(vec_is_aligned(vec_slice(v, 3, 7), 1, 1));
}

/* One byte that is not zero is found wherever it stands, and only inside. */
static void test_zero(void)
{
    enum { MAX = 1100 };
    uint8_t bytes[MAX + 2] = {0};
    for (size_t len = 0; len <= MAX; len = len < 300 ? len + 1 : len + 97) {
        bytes[0] = bytes[len + 1] = 1;
        g_assert_true(bytes_are_zero(bytes + 1, len));
        bytes[0] = bytes[len + 1] = 0;
        for (size_t at = 1; at <= len; at++) {
            bytes[at] = 0x80;
            g_assert_false(bytes_are_zero(bytes + 1, len));
            bytes[at] = 0;
        }
    }
    g_autofree struct scattered *s = scattered_new();
    struct vec all = vec_of(s->iov, COUNT);
    g_assert_false(vec_is_zero(all));
    vec_fill(all, 0);
    g_assert_true(vec_is_zero(all));
    vec_fill(vec_slice(all, TOTAL - 1, 1), 1);
    g_assert_false(vec_is_zero(all));
    g_assert_true(vec_is_zero(vec_slice(all, 0, TOTAL - 1)));
    assert_gaps_untouched(s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vec/read-write", test_read_write);
    g_test_add_func("/vec/to-iov", test_to_iov);
    g_test_add_func("/vec/flat", test_flat);
    g_test_add_func("/vec/aligned", test_aligned);
    g_test_add_func("/vec/zero", test_zero);
    return g_test_run();
}
