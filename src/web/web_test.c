/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Routes, checks of arguments and the OpenAPI text, over rows of the test's own. */
#include "web/op.h"

#include <string.h>

static JsonNode *nothing(struct web_request *r, GError **error)
{
    return NULL;
}

static const struct web_field fields[] = {
    { "memory", WEB_SIZE, true, 1 << 20, INT64_MAX, "a size" },
    { "cpus", WEB_INT, false, 1, 8, "a number" },
    { "on", WEB_BOOL, false, 0, 0, "a switch" },
    { "keys", WEB_STRINGS, false, 0, 0, "texts" },
    { "title", WEB_STRING, false, 0, 0, "a text" },
    { 0 },
};
WEB_OP(thing_list, .method = "GET", .path = "/things", .summary = "All", .call = nothing);
WEB_OP(thing_get, .method = "GET", .path = "/things/{name}", .summary = "One", .call = nothing);
WEB_OP(thing_set, .method = "PATCH", .path = "/things/{name}", .summary = "Changes it", .fields = fields, .call = nothing);
WEB_OP(thing_part, .method = "GET", .path = "/things/{name}/parts/{part}", .summary = "A part", .call = nothing);

static const struct web_op *route(const char *method, const char *path, JsonObject *args, unsigned want)
{
    unsigned status = 0;
    const struct web_op *op = web_route(method, path, args, &status);
    if (!op)
        g_assert_cmpuint(status, ==, want);
    return op;
}

static void test_routes(void)
{
    g_autoptr(JsonObject) args = json_object_new();
    g_assert_cmpstr(route("GET", "/things", args, 0)->id, ==, "thing_list");
    g_assert_cmpstr(route("GET", "/things/a%20b/parts/%C3%A9", args, 0)->id, ==, "thing_part");
    g_assert_cmpstr(json_object_get_string_member(args, "name"), ==, "a b");
    g_assert_cmpstr(json_object_get_string_member(args, "part"), ==, "é");
    g_assert_null(route("POST", "/things", args, 405));
    static const char *const unknown[] = { "", "/", "things", "/things/", "/things/x/", "/things/x/y", "/thing", "/things/%ff", "/things/%00",
                                           "/things/%" };
    for (size_t i = 0; i < G_N_ELEMENTS(unknown); i++)
        g_assert_null(route("GET", unknown[i], args, 404));
}

/* NULL: accepted; else a word of the message. */
static void expect(const char *json, const char *word)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) node = json_from_string(json, NULL);
    g_autoptr(JsonObject) args = json_node_dup_object(node);
    const struct web_op *op = route("PATCH", "/things/x", args, 0);
    bool good = web_check_args(op, args, &error);
    if (!word) {
        g_assert_no_error(error);
        g_assert_true(good);
    } else {
        g_assert_false(good);
        g_assert_nonnull(error);
        g_assert_nonnull(strstr(error->message, word));
    }
}

static void test_arguments(void)
{
    expect("{\"memory\": 2097152}", NULL);
    expect("{\"memory\": \"2G\", \"cpus\": 8, \"on\": true, \"keys\": [\"a\", \"b\"], \"title\": \"\"}", NULL);
    expect("{\"memory\": \"2M\", \"cpus\": \"3\", \"on\": \"false\"}", NULL);
    expect("{}", "needs the argument 'memory'");
    expect("{\"memory\": 1}", "is not between 1048576");
    expect("{\"memory\": \"2X\"}", "must be a size");
    expect("{\"memory\": -1}", "is not between");
    expect("{\"memory\": \"99999999999999999999\"}", "must be a size");
    expect("{\"memory\": [1]}", "must be a size");
    expect("{\"memory\": \"1G\", \"cpus\": 9}", "between 1 and 8");
    expect("{\"memory\": \"1G\", \"cpus\": 1.5}", "whole number");
    expect("{\"memory\": \"1G\", \"on\": \"perhaps\"}", "true or false");
    expect("{\"memory\": \"1G\", \"keys\": \"a\"}", "array of texts");
    expect("{\"memory\": \"1G\", \"keys\": [1]}", "array of texts");
    expect("{\"memory\": \"1G\", \"title\": 7}", "must be a text");
    expect("{\"memory\": \"1G\", \"colour\": \"red\"}", "no argument 'colour'");
}

static void test_sizes_become_numbers(void)
{
    g_autoptr(JsonNode) node = json_from_string("{\"memory\": \"1.5G\"}", NULL);
    struct web_request r = { .args = json_node_get_object(node) };
    g_assert_true(web_check_args(route("PATCH", "/things/x", r.args, 0), r.args, NULL));
    g_assert_cmpint(web_int(&r, "memory", 0), ==, 3ll << 29);
    g_assert_cmpint(web_int(&r, "cpus", 7), ==, 7);
    g_assert_null(web_text(&r, "title"));
    g_assert_false(web_bool(&r, "on"));
}

static void test_openapi(void)
{
    g_autoptr(JsonNode) node = web_openapi();
    JsonObject *paths = json_object_get_object_member(json_node_get_object(node), "paths");
    JsonObject *thing = json_object_get_object_member(paths, "/things/{name}");
    JsonObject *set = json_object_get_object_member(thing, "patch");
    g_assert_cmpstr(json_object_get_string_member(set, "operationId"), ==, "thing_set");
    g_assert_true(json_object_has_member(set, "requestBody"));
    JsonObject *get = json_object_get_object_member(thing, "get");
    g_assert_cmpuint(json_array_get_length(json_object_get_array_member(get, "parameters")), ==, 1);
}

static void test_statuses(void)
{
    const char *word;
    g_autoptr(GError) mine = g_error_new(RUCHE_ERROR, MANAGER_ERR_NO_DOMAIN, "x");
    g_autoptr(GError) other = g_error_new(G_FILE_ERROR, G_FILE_ERROR_IO, "x");
    g_assert_cmpuint(web_status(mine, &word), ==, 404);
    g_assert_cmpstr(word, ==, "no-domain");
    g_assert_cmpuint(web_status(other, &word), ==, 500);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/web/routes", test_routes);
    g_test_add_func("/web/arguments", test_arguments);
    g_test_add_func("/web/sizes", test_sizes_become_numbers);
    g_test_add_func("/web/openapi", test_openapi);
    g_test_add_func("/web/statuses", test_statuses);
    return g_test_run();
}
