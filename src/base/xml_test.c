/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parsing with its limits, paths, changes, namespaces, printing. */
#include "base/xml.h"

#include <string.h>

static struct xml_node *parse(const char *text)
{
    g_autoptr(GError) error = NULL;
    struct xml_node *doc = xml_parse(text, strlen(text), NULL, &error);
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
    {"", RUCHE_ERR_XML_SYNTAX, "line"},
    {"<domain>", RUCHE_ERR_XML_SYNTAX, "line 1"},
    {"<domain>\n<a></b></domain>", RUCHE_ERR_XML_SYNTAX, "line 2, column"},
    {"<network/>", RUCHE_ERR_XML, "<network>"},
    {"<domain xmlns='urn:x'/>", RUCHE_ERR_XML, "<domain>"},
    {"<domain a='1' a='2'/>", RUCHE_ERR_XML_SYNTAX, "line 1"},
    {"<domain>&nothing;</domain>", RUCHE_ERR_XML_SYNTAX, "line 1"},
    {"<domain><x:y/></domain>", RUCHE_ERR_XML_SYNTAX, "line 1"},
    {"<domain>\xff\xfe</domain>", RUCHE_ERR_XML_SYNTAX, "line 1"},
    {"<domain>&#0;</domain>", RUCHE_ERR_XML_SYNTAX, "line 1"},
    {"<!DOCTYPE domain SYSTEM '/etc/passwd'><domain/>", RUCHE_ERR_XML_SYNTAX, "document type"},
    {"<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain>&x;</domain>",
     RUCHE_ERR_XML_SYNTAX, "document type"},
    {bomb, RUCHE_ERR_XML_SYNTAX, "document type"},
    {"<domain><a></domain>", RUCHE_ERR_XML_SYNTAX, "line 1, column 14: mismatched tag, inside <a>"},
    {"<domain xmlns:x='u' xmlns:y='u' x:a='' y:a=''/>", RUCHE_ERR_XML_SYNTAX, "duplicate"},
    {"<domain xmlns:x=''/>", RUCHE_ERR_XML_SYNTAX, "line 1"},
    {"<?xml version='1.0' encoding='koi8-r'?><domain/>", RUCHE_ERR_XML_SYNTAX, "'koi8-r'"},
    {"<?xml version='1.0' encoding='utf8'?><domain>\xff</domain>", RUCHE_ERR_XML_SYNTAX,
     "column 46"},
};

static void test_refused(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(refusals); i++)
        refused(refusals[i].text, strlen(refusals[i].text), refusals[i].code, refusals[i].says);
    refused("<domain>\0</domain>", 18, RUCHE_ERR_XML_SYNTAX, "line 1, column 9");
}

static void test_limits(void)
{
    GString *s = g_string_new("<domain>");
    for (int i = 0; i < 100000; i++)
        g_string_append(s, "<a>");
    refused(s->str, s->len, RUCHE_ERR_XML_SYNTAX, "deeper than 64");
    g_string_assign(s, "<domain>");
    for (int i = 0; i < 300000; i++)
        g_string_append(s, "<a/>");
    g_string_append(s, "</domain>");
    refused(s->str, s->len, RUCHE_ERR_XML_SYNTAX, "200000");
    g_string_set_size(s, 10 << 20);
    refused(s->str, s->len, RUCHE_ERR_XML_SYNTAX, "10485760");
    g_string_assign(s, "<!-- <a b='> --><domain><?p a='?><![CDATA[<a b='>]]><a");
    size_t start = s->len;
    for (int i = 0; i < 256; i++)
        g_string_append_printf(s, " a%d='>='", i);
    size_t filled = s->len;
    g_string_append(s, "/></domain>");
    auto_xml *most = xml_parse(s->str, s->len, "domain", NULL);
    g_assert_nonnull(most);
    g_string_truncate(s, filled);
    g_string_append(s, " b=''/></domain>");
    refused(s->str, s->len, RUCHE_ERR_XML_SYNTAX, "more than 256 attributes");
    g_string_truncate(s, start);
    for (int i = 0; s->len < XML_MAX_BYTES - 100; i++)
        g_string_append_printf(s, " a%d=''", i);
    g_string_append(s, "/></domain>");
    refused(s->str, s->len, RUCHE_ERR_XML_SYNTAX, "more than 256 attributes");
    g_string_assign(s, "<domain>");
    for (int i = 1; i < XML_MAX_DEPTH; i++)
        g_string_append(s, "<a>");
    for (int i = 1; i < XML_MAX_DEPTH; i++)
        g_string_append(s, "</a>");
    g_string_append(s, "</domain>");
    xml_free(parse(s->str));
    g_string_free(s, TRUE);
}

/* What each use of a namespace costs is bounded. */
static void test_namespace_limits(void)
{
    g_autoptr(GString) s = g_string_new("<domain xmlns:x='");
    for (int i = 0; i < 1025; i++)
        g_string_append_c(s, 'u');
    g_string_append(s, "'/>");
    refused(s->str, s->len, RUCHE_ERR_XML_SYNTAX, "1024");
    g_string_erase(s, (gssize)strlen("<domain xmlns:x='"), 1);
    xml_free(parse(s->str));
    g_string_assign(s, "<domain");
    for (int i = 0; i < 128; i++)
        g_string_append_printf(s, " xmlns:a%d='u%d'", i, i);
    g_string_append(s, ">");
    for (int i = 0; i < 100; i++)
        g_string_append_printf(s, "<c xmlns:b%d='u'/>", i);
    g_string_append(s, "<c");
    for (int i = 0; i < 128; i++)
        g_string_append_printf(s, " xmlns:c%d='u%d'", i, i);
    g_string_append(s, ">");
    size_t filled = s->len;
    g_string_append(s, "</c></domain>");
    xml_free(parse(s->str));
    g_string_truncate(s, filled);
    g_string_append(s, "<d xmlns:d='u'/></c></domain>");
    refused(s->str, s->len, RUCHE_ERR_XML_SYNTAX, "more than 256 namespaces");
}

static void test_encodings(void)
{
    static const char wide[] = "\xff\xfe<\0d\0>\0\xe9\0<\0/\0d\0>\0";
    auto_xml *utf16 = xml_parse(wide, sizeof(wide) - 1, "d", NULL);
    auto_xml *latin = parse("<?xml version='1.0' encoding='iso-8859-1'?><d>\xe9</d>");
    auto_xml *python = parse("<?xml version='1.0' encoding='utf8'?><d>\xc3\xa9</d>");
    g_assert_cmpstr(xml_get(utf16, ""), ==, "\xc3\xa9");
    g_assert_cmpstr(xml_get(latin, ""), ==, "\xc3\xa9");
    g_assert_cmpstr(xml_get(python, ""), ==, "\xc3\xa9");
}

static void test_paths(void)
{
    auto_xml *n = parse("<domain type='kvm'><name>web</name><os><type arch='x86_64'>hvm</type></os>"
                        "<d n='0x10'/><d n='7'/><e/><t>one <!-- not here -->two<![CDATA[ <3]]></t>"
                        "<x:o xmlns:x='urn:x'><x:arg value='-s'/></x:o></domain>");
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
    struct xml_node *second = xml_next(xml_find(n, "d"));
    g_assert_cmpuint(xml_get_u64(second, "@n", 0), ==, 7);
    g_assert_cmpuint(xml_get_u64(n, "name", 5), ==, 5);
    g_assert_null(xml_next(second));
    g_assert_true(xml_find(n, "") == n);
}

static void test_changes(void)
{
    auto_xml *n = parse("<domain><name>web</name></domain>");
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

static void says(const struct xml_node *n, const char *want)
{
    g_autofree char *text = xml_format(n, 0);
    g_strdelimit(text, "\n", ' ');
    g_assert_cmpstr(g_strchomp(text), ==, want);
}

/* Each change is looked at from both ends. */
static void test_tree(void)
{
    auto_xml *n = parse("<r>a<b/>c</r>");
    struct xml_node *b = xml_find(n, "b");
    xml_insert_before(b, xml_new("x"));
    xml_insert_after(b, xml_new("y"));
    xml_add(n, "z");
    says(n, "<r>a<x/><b/><y/>c<z/></r>");
    g_assert_cmpstr(n->last->prev->text, ==, "c");
    xml_append(n, b);
    xml_insert_after(n->children, xml_find(n, "z"));
    says(n, "<r>a<z/><x/><y/>c<b/></r>");
    xml_insert_before(b, b);
    xml_insert_after(n->children, n->children->next);
    xml_replace(xml_find(n, "x"), xml_find(n, "b"));
    says(n, "<r>a<z/><b/><y/>c</r>");
    g_assert_cmpstr(n->last->text, ==, "c");
    xml_set(n, "", xml_get(n, "")); /* a value of the tree itself; the text is one now */
    says(n, "<r>a<z/><b/><y/></r>");
    xml_set(b, "@k", "1");
    xml_set(b, "@l", "2");
    xml_set(b, "@k", xml_get(b, "@k"));
    xml_set(b, "@k", xml_get(b, "@l"));
    says(b, "<b k='2' l='2'/>");
    xml_unlink(b);
    xml_append(b, xml_copy_as(n, "n"));
    says(b, "<b k='2' l='2'>   <n>a<z/><y/></n> </b>");
    xml_remove(b, "");
    xml_free(b);
    xml_free(NULL);
    says(n, "<r>a<z/><y/></r>");
}

static void test_namespaces(void)
{
    auto_xml *n =
        parse("<m xmlns:x='u' xmlns:y='v'><x:a y:k='1'><b xmlns='w'><c xmlns=''/></b></x:a></m>");
    struct xml_node *a = xml_find(n, "x:a");
    auto_xml *copy = xml_copy(a);
    says(copy,
         "<x:a xmlns:x='u' xmlns:y='v' y:k='1'>   <b xmlns='w'>     <c xmlns=''/>   </b> </x:a>");
    xml_unlink(a);
    xml_append(copy, xml_new("d"));
    xml_drop_declared(n);
    xml_append(n, a);
    says(n, "<m>   <x:a y:k='1'>     <b xmlns='w'>       <c xmlns=''/>     </b>   </x:a> </m>");
    xml_declare_used(a);
    g_assert_null(xml_declare(a, "x", "other"));
    xml_set_ns(a, xml_declare(a, "z", "other"));
    xml_free(a->children);
    says(n, "<m>   <z:a xmlns:x='u' xmlns:y='v' xmlns:z='other' y:k='1'/> </m>");
    xml_leave_ns(a);
    says(n, "<m>   <a xmlns:x='u' xmlns:y='v' y:k='1'/> </m>");
    g_assert_true(xml_find(n, "a") == a);
    auto_xml *lang = parse("<r xml:lang='fr' xmlns:xml='http://www.w3.org/XML/1998/namespace'/>");
    auto_xml *other = xml_copy(lang);
    says(other, "<r xml:lang='fr'/>");
}

/* What is printed is read as the same, white space in values and mixed content included. */
static void test_format(void)
{
    const char *text = "  <m>\n    <x:a xmlns:x='urn:x' x:k='v' t='a&#10;b&#9;c'>\n      "
                       "<x:b>two\nlines &gt;</x:b>\n"
                       "      <x:c>in <x:i>mixed</x:i> text</x:c>\n    </x:a>\n    <e/>\n  </m>\n";
    auto_xml *doc = parse(text);
    g_autofree char *again = xml_format(doc, 1);
    g_assert_cmpstr(again, ==, text);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/xml/refused", test_refused);
    g_test_add_func("/xml/limits", test_limits);
    g_test_add_func("/xml/namespace-limits", test_namespace_limits);
    g_test_add_func("/xml/encodings", test_encodings);
    g_test_add_func("/xml/paths", test_paths);
    g_test_add_func("/xml/changes", test_changes);
    g_test_add_func("/xml/tree", test_tree);
    g_test_add_func("/xml/namespaces", test_namespaces);
    g_test_add_func("/xml/format", test_format);
    return g_test_run();
}
