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

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vhd/model", test_model);
    g_test_add_func("/vhd/parallel", test_parallel);
    g_test_add_func("/vhd/power-cut", test_power_cut);
    return g_test_run();
}
