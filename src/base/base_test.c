/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/cursor.h"
#include "base/error.h"
#include "base/log.h"
#include "base/units.h"

void loop_add_tests(void);

static void test_sizes(void)
{
    static const struct { const char *text; uint64_t unit, bytes; } good[] = {
        { "0", 1, 0 },
        { "4096", 1, 4096 },
        { "128", MIB, 128 * MIB },
        { "64M", 1, 64 * MIB },
        { "1.5G", 1, 1536 * MIB },
        { "0x10k", 1, 16 * KIB },
        { "2TiB", 1, 2048 * GIB },
        { "7B", MIB, 7 },
        { "512kb", 1, 512 * KIB },
    };
    static const char *const bad[] = { "", "x", "-1", "1X", "1Mi5", "99999999999999999999", "8E", "1.5.2G", " 1" };
    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        uint64_t v = 1;
        g_assert_true(units_parse_size(good[i].text, good[i].unit, &v));
        g_assert_cmpuint(v, ==, good[i].bytes);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        uint64_t v = 77;
        g_assert_false(units_parse_size(bad[i], 1, &v));
        g_assert_cmpuint(v, ==, 77);
    }
    g_assert_cmpstr(units_format_size(64 * MIB), ==, "64 MiB");
    g_assert_cmpstr(units_format_size(1536 * MIB), ==, "1.5 GiB");
    g_assert_cmpstr(units_format_size(12), ==, "12 B");
}

static void test_suggestions(void)
{
    static const char *const words[] = { "virtio-blk-pci", "virtio-net-pci", "isa-serial", "hpet", NULL };
    g_assert_cmpstr(suggest_word("virtio-blk", words), ==, "virtio-blk-pci");
    g_assert_cmpstr(suggest_word("vrtio-net-pci", words), ==, "virtio-net-pci");
    g_assert_cmpstr(suggest_word("hpte", words), ==, "hpet");
    g_assert_null(suggest_word("floppy", words));
    g_assert_cmpstr(suggest_phrase("isa-seral", words), ==, "; did you mean 'isa-serial'?");
    g_assert_cmpstr(suggest_phrase("zzz", words), ==, "");
}

static void test_errors(void)
{
    g_autoptr(GError) error = NULL;
    g_assert_false(ruche_error_errno(&error, ENOSPC, "disk '%s'", "a.img"));
    g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_NO_SPACE);
    g_assert_cmpstr(error->message, ==, "disk 'a.img': No space left on device");
    g_assert_false(ruche_error(NULL, RUCHE_ERR_INVALID, "nobody listens"));
}

static void test_cursor(void)
{
    static const uint8_t bytes[] = { 1, 0x34, 0x12, 0xde, 0xad, 0xbe, 0xef };
    struct cur c = cur_of(bytes, sizeof(bytes));
    g_assert_cmpuint(cur_u8(&c), ==, 1);
    g_assert_cmpuint(cur_le16(&c), ==, 0x1234);
    g_assert_cmpuint(cur_be32(&c), ==, 0xdeadbeef);
    g_assert_false(c.bad);
    g_assert_cmpuint(cur_le64(&c), ==, 0);
    g_assert_true(c.bad);
    c.left = 100; /* bad sticks whatever happens to the rest */
    g_assert_cmpuint(cur_u8(&c), ==, 0);
}

static void test_log_items(void)
{
    uint32_t items = 0;
    g_assert_null(log_parse_items("int,cpu", &items));
    g_assert_cmpuint(items, ==, LOG_INT | LOG_CPU);
    g_assert_cmpstr(log_parse_items("int,nonsense", &items), ==, "nonsense");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/base/sizes", test_sizes);
    g_test_add_func("/base/suggestions", test_suggestions);
    g_test_add_func("/base/errors", test_errors);
    g_test_add_func("/base/cursor", test_cursor);
    g_test_add_func("/base/log-items", test_log_items);
    loop_add_tests();
    return g_test_run();
}
