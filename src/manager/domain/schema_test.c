/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The engine of tables: each kind of value, and what rows say of presence, order, conditions. On a
 * table of its own. */
#include "manager/domain/def.h"
#include "manager/domain/schema_table.h"

#include <string.h>

/* clang-format off */
static const struct schema_row tree_rows[] = {
    { "first", TEXT },
    { "source", .when = "type=file", .flags = F_NEED, ATTRS({ "file", PATH, F_NEED }) },
    { "source", .when = "type=none", .flags = F_PRUNE, ATTRS({ "hint", TEXT }) },
    { "many", UINT, .flags = F_MANY },
    { "running", .flags = F_LIVE },
    { "size", SIZE, ATTRS({ "unit", TEXT }), .flags = F_TEXT },
    { "others", .flags = F_ANY },
    { "secret", TEXT, .flags = F_SECRET },
    { 0 },
};
static const struct schema_row tree = { "tree", .children = tree_rows, ATTRS(
    { "type", WORD("file|none"), .otherwise = "none" }, { "mode", WORD("a|b"), .when = "type=file" },
    { "level", UINT_OF(1, 3) }, { "key", TEXT, F_SECRET }, { "pid", UINT, F_LIVE }) };

static const struct schema_value kinds[] = {
    TEXT_MAX(3), CHARS_MAX("a-c_-", 4), WORD("one|two"), YES_NO, UINT, UINT_OF(5, 10), INT_OF(-5, 7), HEX(4, 0xffff),
    SIZE, SIZE_BYTES, UUID, MAC, IP, IPV4, PATH, CPUSET,
};
enum { K_TEXT, K_CHARS, K_WORD, K_YES, K_UINT, K_RANGE, K_INT, K_HEX, K_SIZE, K_BYTES, K_UUID, K_MAC, K_IP, K_IPV4,
       K_PATH, K_CPUSET };

/* A value, its unit, and its one form; NULL: refused. */
static const struct {
    int kind;
    const char *text, *unit, *form;
} values[] = {
    { K_TEXT, "abc", NULL, "abc" }, { K_TEXT, "", NULL, "" }, { K_TEXT, "abcd", NULL, NULL },
    { K_TEXT, "\t\r\n", NULL, "\t\r\n" }, { K_TEXT, "a\x01", NULL, NULL }, { K_TEXT, "\xc3", NULL, NULL },
    { K_TEXT, "\xef\xbf\xbf", NULL, NULL }, { K_PATH, "/\x1f", NULL, NULL },
    { K_CHARS, "a-_c", NULL, "a-_c" }, { K_CHARS, "d", NULL, NULL }, { K_CHARS, "", NULL, NULL },
    { K_CHARS, "aaaaa", NULL, NULL },
    { K_WORD, "two", NULL, "two" }, { K_WORD, " one\n", NULL, "one" }, { K_WORD, "on", NULL, NULL },
    { K_WORD, "one|two", NULL, NULL }, { K_WORD, "", NULL, NULL },
    { K_YES, "yes", NULL, "yes" }, { K_YES, "on", NULL, NULL },
    { K_UINT, "007", NULL, "7" }, { K_UINT, "4294967295", NULL, "4294967295" }, { K_UINT, "4294967296", NULL, NULL },
    { K_UINT, "-1", NULL, NULL }, { K_UINT, "1x", NULL, NULL }, { K_UINT, "0x1", NULL, NULL }, { K_UINT, "", NULL, NULL },
    { K_UINT, "99999999999999999999999", NULL, NULL },
    { K_RANGE, "5", NULL, "5" }, { K_RANGE, "4", NULL, NULL }, { K_RANGE, "11", NULL, NULL },
    { K_INT, "-5", NULL, "-5" }, { K_INT, "+7", NULL, "7" }, { K_INT, "-6", NULL, NULL }, { K_INT, "8", NULL, NULL },
    { K_INT, "-", NULL, NULL }, { K_INT, "-9223372036854775809", NULL, NULL },
    { K_HEX, "16", NULL, "0x0010" }, { K_HEX, "0xFF", NULL, "0x00ff" }, { K_HEX, "0x10000", NULL, NULL },
    { K_HEX, "ff", NULL, NULL }, { K_HEX, "0x", NULL, NULL },
    { K_SIZE, "5", NULL, "5" }, { K_SIZE, "1", "GiB", "1048576" }, { K_SIZE, "1", "g", "1048576" },
    { K_SIZE, "1", "GB", "976563" }, { K_SIZE, "1025", "b", "2" }, { K_SIZE, "1", "parsec", NULL },
    { K_SIZE, "1", "Gi", NULL }, { K_SIZE, "16", "E", NULL }, { K_SIZE, "-1", "K", NULL }, { K_SIZE, "7", "EiB", "7881299347898368" },
    { K_BYTES, "3", "KiB", "3072" }, { K_BYTES, "3", NULL, "3" },
    { K_UUID, "C0FFEE00111142228333444455556666", NULL, "c0ffee00-1111-4222-8333-444455556666" },
    { K_UUID, "c0ffee00-1111-4222-8333-44445555666", NULL, NULL }, { K_UUID, "x", NULL, NULL },
    { K_MAC, "52:54:0:AB:cd:1", NULL, "52:54:00:ab:cd:01" }, { K_MAC, "52:54:00:ab:cd", NULL, NULL },
    { K_MAC, "52:54:00:ab:cd:ef:01", NULL, NULL }, { K_MAC, "53:54:00:ab:cd:ef", NULL, NULL },
    { K_MAC, "52:54:00:ab:cd:100", NULL, NULL }, { K_MAC, "52-54-00-ab-cd-ef", NULL, NULL },
    { K_IP, "10.0.0.1", NULL, "10.0.0.1" }, { K_IP, "fe80::1", NULL, "fe80::1" }, { K_IP, "10.0.0", NULL, NULL },
    { K_IPV4, "fe80::1", NULL, NULL },
    { K_PATH, "/a b", NULL, "/a b" }, { K_PATH, "a", NULL, NULL }, { K_PATH, "/a\nb", NULL, NULL },
    { K_CPUSET, "0-3,^2,8", NULL, "0-1,3,8" }, { K_CPUSET, "3,2,1", NULL, "1-3" }, { K_CPUSET, "3-1", NULL, NULL },
    { K_CPUSET, "^1", NULL, NULL }, { K_CPUSET, "1,,2", NULL, NULL }, { K_CPUSET, "16384", NULL, NULL },
    { K_CPUSET, "1-", NULL, NULL },
};
/* clang-format on */

static void test_values(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(values); i++) {
        g_autofree char *form = NULL;
        g_autoptr(GError) error = NULL;
        bool ok = schema_value_check(&kinds[values[i].kind], values[i].text, values[i].unit, &form,
                                     &error);
        if (ok != (values[i].form != NULL) || ok != !error)
            g_error("'%s' of kind %d is %s", values[i].text, values[i].kind,
                    ok ? "taken" : error->message);
        if (ok)
            g_assert_cmpstr(form ? form : values[i].text, ==, values[i].form);
    }
}

/* What a text becomes; NULL: refused, and the reason is freed. */
static char *applied(const char *text, unsigned flags)
{
    auto_xml *doc = xml_parse(text, strlen(text), "tree", NULL);
    g_autoptr(GError) error = NULL;
    if (schema_apply(doc, &tree, flags, &error))
        return xml_format(doc, 0);
    g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_XML);
    return NULL;
}

static const struct {
    const char *text, *form;
    unsigned flags;
} trees[] = {
    {"<tree/>", "<tree type='none'/>\n", 0},
    {"<tree level='2' type='none' extra='1'><unknown/></tree>", "<tree type='none' level='2'/>\n",
     0},
    {"<tree extra='1'/>", NULL, DEF_VALIDATE},
    {"<tree><unknown/></tree>", NULL, DEF_VALIDATE},
    {"<tree level='4'/>", NULL, 0},
    {"<tree mode='a'/>", "<tree type='none'/>\n", 0},
    {"<tree type='file'/>", NULL, 0},
    {"<tree type='file'><source/></tree>", NULL, 0},
    {"<tree mode='b' type='file'><source file='/a'/></tree>",
     "<tree type='file' mode='b'>\n  <source file='/a'/>\n</tree>\n", 0},
    {"<tree><source file='/a'/></tree>", "<tree type='none'/>\n", 0},
    {"<tree><many>2</many><first>x</first><many>1</many><first>y</first></tree>",
     "<tree type='none'>\n  <first>x</first>\n  <many>2</many>\n  <many>1</many>\n</tree>\n", 0},
    {"<tree><first>x</first><first>y</first></tree>", NULL, DEF_VALIDATE},
    {"<tree pid='7'><running/></tree>", "<tree type='none'/>\n", 0},
    {"<tree pid='7'><running/></tree>", "<tree type='none' pid='7'>\n  <running/>\n</tree>\n",
     DEF_LIVE},
    {"<tree><size unit='MiB'>2</size></tree>",
     "<tree type='none'>\n  <size unit='KiB'>2048</size>\n</tree>\n", 0},
    {"<tree><size/></tree>", NULL, 0},
    {"<tree xmlns:x='urn:x' x:level='9'><x:first/></tree>", "<tree type='none'/>\n", 0},
    {"<tree xmlns:x='urn:x'><others><x:a k='1'/><b/><x:c/></others></tree>",
     "<tree type='none'>\n  <others>\n    <x:a xmlns:x='urn:x' k='1'/>\n  </others>\n</tree>\n",
     DEF_VALIDATE},
    {"<tree>stray text<!-- --></tree>", "<tree type='none'/>\n", 0},
};

static void test_trees(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(trees); i++) {
        g_autofree char *form = applied(trees[i].text, trees[i].flags);
        g_test_message("%s", trees[i].text);
        g_assert_cmpstr(form, ==, trees[i].form);
        g_autofree char *again = form ? applied(form, trees[i].flags | DEF_VALIDATE) : NULL;
        g_assert_cmpstr(again, ==, form);
    }
}

static void test_secrets(void)
{
    static const char text[] =
        "<tree key='k' type='none'><secret>s</secret><first>x</first></tree>";
    auto_xml *doc = xml_parse(text, strlen(text), "tree", NULL);
    schema_drop(doc, &tree, F_SECRET);
    g_autofree char *left = xml_format(doc, 0);
    g_assert_cmpstr(left, ==, "<tree type='none'>\n  <first>x</first>\n</tree>\n");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/schema/values", test_values);
    g_test_add_func("/schema/trees", test_trees);
    g_test_add_func("/schema/secrets", test_secrets);
    return g_test_run();
}
