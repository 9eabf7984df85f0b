/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parsing with its limits, paths, printing. */
#include "manager/xml.h"

#include <string.h>

static xmlDoc *parse(const char *text)
{
    g_autoptr(GError) error = NULL;
    xmlDoc *doc = xml_parse(text, strlen(text), NULL, &error);
    g_assert_no_error(error);
    g_assert_nonnull(doc);
    return doc;
}

static void refused(const char *text, size_t len, int code, const char *says)
{
    g_autoptr(GError) error = NULL;
    g_assert_null(xml_parse(text, len, "domain", &error));
    g_assert_error(error, RUCHE_ERROR, code);
    if (!strstr(error->message, says))
        g_error("'%s' does not say '%s'", error->message, says);
    g_assert_true(g_utf8_validate(error->message, -1, NULL));
}

static const char bomb[] =
    "<!DOCTYPE domain [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>"
    "<!ENTITY c '&b;&b;&b;&b;&b;&b;&b;'>]><domain>&c;</domain>";
static const struct {
    const char *text;
    int code;
    const char *says;
} refusals[] = {
    {"", MANAGER_ERR_XML_SYNTAX, "line"},
    {"<domain>", MANAGER_ERR_XML_SYNTAX, "line 1"},
    {"<domain>\n<a></b></domain>", MANAGER_ERR_XML_SYNTAX, "line 2, column"},
    {"<network/>", MANAGER_ERR_XML, "<network>"},
    {"<domain xmlns='urn:x'/>", MANAGER_ERR_XML, "<domain>"},
    {"<domain a='1' a='2'/>", MANAGER_ERR_XML_SYNTAX, "line 1"},
    {"<domain>&nothing;</domain>", MANAGER_ERR_XML_SYNTAX, "line 1"},
    {"<domain><x:y/></domain>", MANAGER_ERR_XML_SYNTAX, "line 1"},
    {"<domain>\xff\xfe</domain>", MANAGER_ERR_XML_SYNTAX, "line 1"},
    {"<domain>&#0;</domain>", MANAGER_ERR_XML_SYNTAX, "line 1"},
    {"<!DOCTYPE domain SYSTEM '/etc/passwd'><domain/>", MANAGER_ERR_XML_SYNTAX, "document type"},
    {"<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain>&x;</domain>",
     MANAGER_ERR_XML_SYNTAX, "document type"},
    {bomb, MANAGER_ERR_XML_SYNTAX, "document type"},
};

static void test_refused(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(refusals); i++)
        refused(refusals[i].text, strlen(refusals[i].text), refusals[i].code, refusals[i].says);
    refused("<domain>\0</domain>", 18, MANAGER_ERR_XML_SYNTAX, "zero byte");
}

static void test_limits(void)
{
    GString *s = g_string_new("<domain>");
    for (int i = 0; i < 100000; i++)
        g_string_append(s, "<a>");
    refused(s->str, s->len, MANAGER_ERR_XML_SYNTAX, "deeper than 64");
    g_string_assign(s, "<domain>");
    for (int i = 0; i < 300000; i++)
        g_string_append(s, "<a/>");
    g_string_append(s, "</domain>");
    refused(s->str, s->len, MANAGER_ERR_XML_SYNTAX, "200000");
    g_string_set_size(s, 10 << 20);
    refused(s->str, s->len, MANAGER_ERR_XML_SYNTAX, "10485760");
    g_string_assign(s, "<!-- <a b='> --><domain><?p a='?><![CDATA[<a b='>]]><a");
    size_t start = s->len;
    for (int i = 0; i < 256; i++)
        g_string_append_printf(s, " a%d='>='", i);
    size_t filled = s->len;
    g_string_append(s, "/></domain>");
    g_autoptr(xmlDoc) most = xml_parse(s->str, s->len, "domain", NULL);
    g_assert_nonnull(most);
    g_string_truncate(s, filled);
    g_string_append(s, " b=''/></domain>");
    refused(s->str, s->len, MANAGER_ERR_XML_SYNTAX, "more than 256 attributes");
    g_string_truncate(s, start);
    for (int i = 0; s->len < XML_MAX_BYTES - 100; i++)
        g_string_append_printf(s, " a%d=''", i);
    g_string_append(s, "/></domain>");
    refused(s->str, s->len, MANAGER_ERR_XML_SYNTAX, "more than 256 attributes");
    g_string_assign(s, "<domain>");
    for (int i = 1; i < XML_MAX_DEPTH; i++)
        g_string_append(s, "<a>");
    for (int i = 1; i < XML_MAX_DEPTH; i++)
        g_string_append(s, "</a>");
    g_string_append(s, "</domain>");
    xmlFreeDoc(parse(s->str));
    g_string_free(s, TRUE);
}

static void test_paths(void)
{
    g_autoptr(xmlDoc) doc =
        parse("<domain type='kvm'><name>web</name><os><type arch='x86_64'>hvm</type></os>"
              "<d n='0x10'/><d n='7'/><e/><t>one <!-- not here -->two<![CDATA[ <3]]></t>"
              "<x:o xmlns:x='urn:x'><x:arg value='-s'/></x:o></domain>");
    xmlNode *n = xmlDocGetRootElement(doc);
    g_assert_cmpstr(xml_get(n, "name"), ==, "web");
    g_assert_cmpstr(xml_get(n, "@type"), ==, "kvm");
    g_assert_cmpstr(xml_get(n, "os/type"), ==, "hvm");
    g_assert_cmpstr(xml_get(n, "os/type@arch"), ==, "x86_64");
    g_assert_cmpstr(xml_get(n, "e"), ==, "");
    g_assert_cmpstr(xml_get(n, "t"), ==, "one two <3");
    g_assert_cmpstr(xml_get(n, "x:o/x:arg@value"), ==, "-s");
    g_assert_null(xml_get(n, "o/arg@value"));
    g_assert_null(xml_get(n, "os/nothing"));
    g_assert_null(xml_get(n, "os@nothing"));
    g_assert_cmpstr(xml_get_or(n, "os@nothing", "x"), ==, "x");
    g_assert_true(xml_is(n, "name", "web"));
    g_assert_false(xml_is(n, "name", "we"));
    g_assert_cmpuint(xml_get_u64(n, "d@n", 0), ==, 16);
    xmlNode *second = xml_next(xml_find(n, "d"));
    g_assert_cmpuint(xml_get_u64(second, "@n", 0), ==, 7);
    g_assert_cmpuint(xml_get_u64(n, "name", 5), ==, 5);
    g_assert_null(xml_next(second));
    g_assert_true(xml_find(n, "") == n);
}

static void test_changes(void)
{
    g_autoptr(xmlDoc) doc = parse("<domain><name>web</name></domain>");
    xmlNode *n = xmlDocGetRootElement(doc);
    xml_set(n, "name", "a<&'b");
    xml_set(n, "os/type@arch", "x86_64");
    xml_set(n, "os/type", "hvm");
    xml_set_f(n, "@id", "%d", 7);
    xml_set(n, "os/gone", "x");
    xml_set(n, "os/type@gone", "x\n\"y");
    g_assert_cmpstr(xml_get(n, "os/type@gone"), ==, "x\n\"y");
    xml_remove(n, "os/gone");
    xml_remove(n, "os/type@gone");
    xml_remove(n, "os/nothing");
    g_autofree char *text = xml_format(n, 0);
    g_assert_cmpstr(text, ==,
                    "<domain id='7'>\n  <name>a&lt;&amp;&apos;b</name>\n  <os>\n    <type "
                    "arch='x86_64'>hvm</type>\n"
                    "  </os>\n</domain>\n");
}

/* What is printed is read as the same, white space in values and mixed content included. */
static void test_format(void)
{
    const char *text = "  <m>\n    <x:a xmlns:x='urn:x' x:k='v' t='a&#10;b&#9;c'>\n      "
                       "<x:b>two\nlines &gt;</x:b>\n"
                       "      <x:c>in <x:i>mixed</x:i> text</x:c>\n    </x:a>\n    <e/>\n  </m>\n";
    g_autoptr(xmlDoc) doc = parse(text);
    g_autofree char *again = xml_format(xmlDocGetRootElement(doc), 1);
    g_assert_cmpstr(again, ==, text);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/xml/refused", test_refused);
    g_test_add_func("/xml/limits", test_limits);
    g_test_add_func("/xml/paths", test_paths);
    g_test_add_func("/xml/changes", test_changes);
    g_test_add_func("/xml/format", test_format);
    return g_test_run();
}
