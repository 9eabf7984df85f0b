/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Option tables: values of every kind, typed and as text, limits, refusals and help. */
#include "image/option.h"

#include <string.h>

static const char *const compat_words[] = {"0.10", "1.1", NULL};

struct sample {
    char *backing_file, *label;
    bool lazy;
    uint64_t bits, cluster, plain;
    int compat;
};

static const struct image_option rows[] = {
    OPT_STRING("backing_file", struct sample, backing_file, "Image below"),
    OPT_STRING("label", struct sample, label, "Name"),
    OPT_BOOL("lazy_refcounts", struct sample, lazy, true, "Put counts off"),
    OPT_U64("refcount_bits", struct sample, bits, 16, 1, 64, "Width of a count"),
    OPT_SIZE("cluster_size", struct sample, cluster, 64 * KIB, 512, 2 * MIB, "Allocation unit"),
    OPT_SIZE("plain", struct sample, plain, 0, 0, 0, "Any size"),
    OPT_WORD("compat", struct sample, compat, compat_words, 1, "Version"),
    {0},
};

static JsonObject *json(const char *text)
{
    GError *error = NULL;
    g_autoptr(JsonNode) node = json_from_string(text, &error);
    g_assert_no_error(error);
    return json_object_ref(json_node_get_object(node));
}

static void test_defaults(void)
{
    struct sample s;
    memset(&s, 0xaa, sizeof(s));
    g_assert_true(option_parse(rows, NULL, "-o", &s, NULL));
    g_assert_null(s.backing_file);
    g_assert_true(s.lazy);
    g_assert_cmpuint(s.bits, ==, 16);
    g_assert_cmpuint(s.cluster, ==, 64 * KIB);
    g_assert_cmpuint(s.plain, ==, 0);
    g_assert_cmpint(s.compat, ==, 1);
    option_clear(rows, &s);
}

/* The same from typed values and from strings; what is not ours stays. */
static void test_values(void)
{
    static const char *const texts[] = {
        "{\"backing_file\": \"a,b\", \"lazy_refcounts\": false, \"refcount_bits\": 64, "
        "\"cluster_size\": 2097152, \"plain\": 9223372036854775807, \"compat\": \"0.10\", "
        "\"other\": 1}",
        "{\"backing_file\": \"a,b\", \"lazy_refcounts\": \"off\", \"refcount_bits\": \"0x40\", "
        "\"cluster_size\": \"2M\", \"plain\": \"0x7fffffffffffffff\", \"compat\": \"0.10\", "
        "\"other\": 1}",
    };
    for (unsigned i = 0; i < ARRAY_COUNT(texts); i++) {
        g_autoptr(JsonObject) from = json(texts[i]);
        struct sample s = {0};
        GError *error = NULL;
        option_parse(rows, from, "-o", &s, &error);
        g_assert_no_error(error);
        g_assert_cmpstr(s.backing_file, ==, "a,b");
        g_assert_null(s.label);
        g_assert_false(s.lazy);
        g_assert_cmpuint(s.bits, ==, 64);
        g_assert_cmpuint(s.cluster, ==, 2 * MIB);
        g_assert_cmpuint(s.plain, ==, INT64_MAX);
        g_assert_cmpint(s.compat, ==, 0);
        g_assert_cmpuint(json_object_get_size(from), ==, 1);
        g_assert_true(json_object_has_member(from, "other"));
        option_clear(rows, &s);
        g_assert_null(s.backing_file);
        option_clear(rows, &s); /* twice is fine */
    }
}

static void test_refusals(void)
{
    static const struct {
        const char *json, *message;
    } bad[] = {
        {"{\"cluster_size\": \"big\"}",
         "-o: cluster_size='big' is not a size; use a number with k, M, G, T, P or E"},
        {"{\"cluster_size\": 511}", "-o: cluster_size='511' is not between 512 B and 2 MiB"},
        {"{\"cluster_size\": \"4M\"}", "-o: cluster_size='4M' is not between 512 B and 2 MiB"},
        {"{\"cluster_size\": -512}", "-o: cluster_size='-512' is not a positive number"},
        {"{\"cluster_size\": 1.5}",
         "-o: cluster_size='1.5' is not a size; use a number with k, M, G, T, P or E"},
        {"{\"refcount_bits\": \"1k\"}", "-o: refcount_bits='1k' is not a number"},
        {"{\"refcount_bits\": 65}", "-o: refcount_bits='65' is not between 1 and 64"},
        {"{\"lazy_refcounts\": \"maybe\"}", "-o: lazy_refcounts='maybe' is not on or off"},
        {"{\"lazy_refcounts\": 1}", "-o: lazy_refcounts='1' is not on or off"},
        {"{\"compat\": \"1.2\"}", "-o: compat='1.2' is not one of 0.10, 1.1; did you mean '1.1'?"},
        {"{\"compat\": null}", "-o: compat='null' is not one of 0.10, 1.1"},
        {"{\"label\": 5}", "-o: label='5' is not a string"},
        {"{\"label\": {\"a\": []}}", "-o: label='{\"a\":[]}' is not a string"},
        {"{\"label\": \"held\", \"refcount_bits\": []}", "-o: refcount_bits='[]' is not a number"},
    };
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        g_autoptr(JsonObject) from = json(bad[i].json);
        g_autoptr(GError) error = NULL;
        struct sample s = {0};
        g_assert_false(option_parse(rows, from, "-o", &s, &error));
        g_assert_error(error, RUCHE_ERROR, (int)RUCHE_ERR_INVALID);
        g_assert_cmpstr(error->message, ==, bad[i].message);
        g_assert_null(s.label);
    }
}

static void test_unknown(void)
{
    static const char *const extra[] = {"preallocation", NULL};
    g_autoptr(JsonObject) none = json("{}");
    g_assert_true(option_all_used(none, rows, extra, "-o", NULL));
    g_assert_true(option_all_used(NULL, NULL, NULL, "-o", NULL));
    static const struct {
        const char *json, *message;
    } bad[] = {
        {"{\"cluster-size\": 1}",
         "-o: unknown option 'cluster-size'; did you mean 'cluster_size'?"},
        {"{\"prealocation\": 1}",
         "-o: unknown option 'prealocation'; did you mean 'preallocation'?"},
        {"{\"wings\": 1}", "-o: unknown option 'wings'"},
    };
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        g_autoptr(JsonObject) left = json(bad[i].json);
        g_autoptr(GError) error = NULL;
        g_assert_false(option_all_used(left, rows, extra, "-o", &error));
        g_assert_error(error, RUCHE_ERROR, (int)RUCHE_ERR_UNKNOWN);
        g_assert_cmpstr(error->message, ==, bad[i].message);
    }
}

static void test_text(void)
{
    static const struct {
        const char *text, *first, *json;
    } good[] = {
        {"", NULL, "{}"},
        {"a=1,b.c=2,d=x,,y", NULL, "{\"a\":\"1\",\"b\":{\"c\":\"2\"},\"d\":\"x,y\"}"},
        {"a=,b=", NULL, "{\"a\":\"\",\"b\":\"\"}"},
        {"a=1,a=2", NULL, "{\"a\":\"2\"}"},
        {"qcow2,file.driver=file,file.filename=/x=y", "driver",
         "{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"/x=y\"}}"},
        {"/tmp/a,,b c,x=1", "filename", "{\"filename\":\"/tmp/a,b c\",\"x\":\"1\"}"},
        {"driver=raw,size=1M", "driver", "{\"driver\":\"raw\",\"size\":\"1M\"}"},
        {"a=,,,,,b=1", NULL, "{\"a\":\",,\",\"b\":\"1\"}"},
        {"a=1,", NULL, "{\"a\":\"1\"}"},
    };
    for (unsigned i = 0; i < ARRAY_COUNT(good); i++) {
        GError *error = NULL;
        g_autoptr(JsonObject) o = option_parse_text(good[i].text, good[i].first, &error);
        g_assert_no_error(error);
        g_autoptr(JsonNode) node = json_node_init_object(json_node_alloc(), o);
        g_autofree char *got = json_to_string(node, false);
        g_assert_cmpstr(got, ==, good[i].json);
    }
}

static void test_bad_text(void)
{
    g_autofree char *deep = g_strnfill(200, 'a');
    for (unsigned i = 1; i < 199; i += 2)
        deep[i] = '.';
    g_autofree char *deep_text = g_strconcat(deep, "=1", NULL);
    g_autofree char *long_key = g_strnfill(128, 'a');
    g_autofree char *long_text = g_strconcat(long_key, "=1", NULL);
    const struct {
        const char *text, *first, *message;
    } bad[] = {
        {"compat6", NULL, "'compat6' lacks a value; write name=value"},
        {"a=1,,b=2,c", NULL, "'c' lacks a value; write name=value"},
        {"a b=1", NULL, "'a b=1' lacks a value; write name=value"},
        {"=1", NULL,
         "'' is not the name of an option; use letters, digits, '-', '_' and single dots"},
        {"a..b=1", NULL,
         "'a..b' is not the name of an option; use letters, digits, '-', '_' and single dots"},
        {"a.=1", NULL,
         "'a.' is not the name of an option; use letters, digits, '-', '_' and single dots"},
        {"a=1,a.b=2", NULL, "option 'a' cannot have a value and members at once"},
        {"x.a.b=1,x.a=2", NULL, "option 'x.a' cannot have a value and members at once"},
        {deep_text, NULL, NULL},
        {long_text, NULL, NULL},
    };
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_null(option_parse_text(bad[i].text, bad[i].first, &error));
        g_assert_error(error, RUCHE_ERROR, (int)RUCHE_ERR_INVALID);
        if (bad[i].message)
            g_assert_cmpstr(error->message, ==, bad[i].message);
    }
}

static void test_help(void)
{
    g_autofree char *text = option_help(rows);
    g_assert_cmpstr(text, ==,
                    "  backing_file=<str>       - Image below\n"
                    "  cluster_size=<size>      - Allocation unit (default 64 KiB)\n"
                    "  compat=<0.10|1.1>        - Version (default 1.1)\n"
                    "  label=<str>              - Name\n"
                    "  lazy_refcounts=<on|off>  - Put counts off (default on)\n"
                    "  plain=<size>             - Any size\n"
                    "  refcount_bits=<num>      - Width of a count (default 16)\n");
}

/* Lists and objects are handed over whole. */
static void test_json(void)
{
    struct holder {
        JsonNode *rules;
    } h;
    static const struct image_option row[] = {
        OPT_JSON("rules", struct holder, rules, "Rules"),
        {0},
    };
    g_autoptr(JsonObject) from = json("{\"rules\": [{\"a\": 1}]}");
    g_assert_true(option_parse(row, from, "-o", &h, NULL));
    g_assert_cmpuint(json_object_get_size(from), ==, 0);
    g_assert_cmpuint(json_array_get_length(json_node_get_array(h.rules)), ==, 1);
    option_clear(row, &h);
    g_assert_null(h.rules);
    g_assert_true(option_parse(row, NULL, "-o", &h, NULL));
    g_assert_null(h.rules);
}

/* A dotted row takes its value from nested objects too, and leaves no empty ones behind. */
static void test_nested(void)
{
    static const struct image_option nested[] = {
        OPT_STRING("encrypt.format", struct sample, label, "Format"),
        OPT_U64("encrypt.iter.time", struct sample, bits, 7, 1, 99, "Time"),
        {0},
    };
    static const char *const texts[] = {
        "{\"encrypt\": {\"format\": \"luks\", \"iter\": {\"time\": 3}}}",
        "{\"encrypt.format\": \"luks\", \"encrypt\": {\"iter\": {\"time\": \"3\"}}}",
    };
    for (unsigned i = 0; i < ARRAY_COUNT(texts); i++) {
        g_autoptr(JsonObject) from = json(texts[i]);
        struct sample s = {0};
        g_assert_true(option_parse(nested, from, "-o", &s, NULL));
        g_assert_cmpstr(s.label, ==, "luks");
        g_assert_cmpuint(s.bits, ==, 3);
        g_assert_cmpuint(json_object_get_size(from), ==, 0);
        option_clear(nested, &s);
    }
    g_autoptr(JsonObject) from = json("{\"encrypt\": {\"format\": \"luks\", \"x\": 1}}");
    struct sample s = {0};
    g_assert_true(option_parse(nested, from, "-o", &s, NULL));
    g_assert_cmpuint(s.bits, ==, 7);
    g_assert_true(json_object_has_member(json_object_get_object_member(from, "encrypt"), "x"));
    option_clear(nested, &s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/option/defaults", test_defaults);
    g_test_add_func("/option/values", test_values);
    g_test_add_func("/option/nested", test_nested);
    g_test_add_func("/option/refusals", test_refusals);
    g_test_add_func("/option/unknown", test_unknown);
    g_test_add_func("/option/text", test_text);
    g_test_add_func("/option/bad-text", test_bad_text);
    g_test_add_func("/option/help", test_help);
    g_test_add_func("/option/json", test_json);
    return g_test_run();
}
