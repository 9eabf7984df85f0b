/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VHDX files: logs, differencing, resizing, broken images; and the tests of every format. */
#include "image/vhd/testing.h"
#include "image/vhdx/vhdx.h"

#include <string.h>

static const struct format_case dynamic = {"vhdx", "{\"block_size\": \"1M\"}",
                                           "{\"metadata-cache-size\": \"1M\"}", 10 * MIB + 2048,
                                           false};
static const struct format_case fixed = {
    "vhdx", "{\"subformat\": \"fixed\", \"block_size\": \"1M\"}", NULL, 4 * MIB, false};
static const struct format_case differencing = {"vhdx", "{\"block_size\": \"1M\"}", NULL,
                                                10 * MIB + 2048, true};
static const struct format_case *const cases[] = {&dynamic, &fixed, &differencing};

static void test_model(void)
{
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++)
        format_test_model(cases[i], 31 + i, g_test_slow() ? 100000 : 5000);
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
    g_test_add_func("/vhdx/model", test_model);
    g_test_add_func("/vhdx/parallel", test_parallel);
    g_test_add_func("/vhdx/power-cut", test_power_cut);
    return g_test_run();
}
