/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Histograms: each time lands in one bin; bad bounds are refused. */
#include "image/stats.h"

#include <glib.h>

static void test_bins(void)
{
    static const uint64_t bounds[] = { 10, 100, 1000 };
    static const struct {
        uint64_t ns;
        unsigned bin;
    } rows[] = { { 0, 0 },   { 9, 0 },    { 10, 1 },   { 11, 1 },         { 99, 1 },
                 { 100, 2 }, { 999, 2 }, { 1000, 3 }, { UINT64_MAX, 3 } };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct latency_histogram *h = histogram_new(bounds, 3);
        histogram_count(h, rows[i].ns);
        for (unsigned bin = 0; bin < 4; bin++)
            g_assert_cmpuint(h->bins[bin], ==, bin == rows[i].bin);
        histogram_free(h);
    }
}

static void test_refused(void)
{
    static const uint64_t same[] = { 5, 5 }, falling[] = { 5, 4 }, zero[] = { 0, 4 };
    static uint64_t many[HISTOGRAM_BOUNDS_MAX + 1];
    for (unsigned i = 0; i <= HISTOGRAM_BOUNDS_MAX; i++)
        many[i] = i + 1;
    g_assert_null(histogram_new(same, 2));
    g_assert_null(histogram_new(falling, 2));
    g_assert_null(histogram_new(zero, 2));
    g_assert_null(histogram_new(same, 0));
    g_assert_null(histogram_new(many, HISTOGRAM_BOUNDS_MAX + 1));
    struct latency_histogram *h = histogram_new(many, HISTOGRAM_BOUNDS_MAX);
    g_assert_nonnull(h);
    histogram_free(h);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/stats/bins", test_bins);
    g_test_add_func("/stats/refused", test_refused);
    return g_test_run();
}
