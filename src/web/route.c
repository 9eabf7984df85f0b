/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From a request's method and path to its row, and from its texts to checked arguments. Thread: the loop
 * thread. Trust: paths and arguments are the peer's. */
#include "web/op.h"

#include "base/json_frame.h"
#include "base/units.h"
#include "base/util.h"
#include "web/web.h"

#include <inttypes.h>
#include <errno.h>
#include <string.h>

static int by_path(const void *a, const void *b)
{
    const struct web_op *x = *(const struct web_op *const *)a, *y = *(const struct web_op *const *)b;
    int order = strcmp(x->path, y->path);
    return order ? order : strcmp(x->method, y->method);
}

const struct web_op *const *web_op_list(void)
{
    static const struct web_op **list;
    if (!list) {
        GPtrArray *a = g_ptr_array_new();
        LINKSET_FOREACH (web_ops, struct web_op, op)
            g_ptr_array_add(a, (void *)op);
        qsort(a->pdata, a->len, sizeof(void *), by_path);
        g_ptr_array_add(a, NULL);
        list = (const struct web_op **)g_ptr_array_free(a, FALSE);
    }
    return list;
}

/* One part of a pattern against one of the path; a text for {name} is put into `args`, unescaped. */
static bool match_part(const char *pattern, size_t pattern_len, const char *part, size_t part_len, JsonObject *args)
{
    if (pattern_len < 2 || pattern[0] != '{')
        return pattern_len == part_len && !memcmp(pattern, part, part_len);
    g_autofree char *name = g_strndup(pattern + 1, pattern_len - 2);
    g_autofree char *value = g_uri_unescape_segment(part, part + part_len, NULL);
    if (!value || !*value || !g_utf8_validate(value, -1, NULL))
        return false;
    if (args)
        json_object_set_string_member(args, name, value);
    return true;
}

static bool match(const char *pattern, const char *path, JsonObject *args)
{
    while (*pattern == '/' && *path == '/') {
        size_t pattern_len = strcspn(++pattern, "/"), part_len = strcspn(++path, "/");
        if (!match_part(pattern, pattern_len, path, part_len, args))
            return false;
        pattern += pattern_len;
        path += part_len;
    }
    return !*pattern && !*path;
}

const struct web_op *web_route(const char *method, const char *path, JsonObject *args, unsigned *ret_status)
{
    *ret_status = 404;
    for (const struct web_op *const *op = web_op_list(); *op; op++) {
        if (!match((*op)->path, path, NULL))
            continue;
        if (!strcmp((*op)->method, method)) {
            match((*op)->path, path, args);
            return *op;
        }
        *ret_status = 405;
    }
    return NULL;
}

static bool in_path(const struct web_op *op, const char *name)
{
    g_autofree char *part = g_strdup_printf("{%s}", name);
    return strstr(op->path, part);
}

/* A member of the body never replaces what stands in the path. */
static void add_member(JsonObject *object, const char *name, JsonNode *value, gpointer opaque)
{
    JsonObject *args = opaque;
    if (!json_object_has_member(args, name) && !JSON_NODE_HOLDS_NULL(value))
        json_object_set_member(args, name, json_node_copy(value));
}

bool web_add_json(JsonObject *args, const char *text, size_t len, GError **error)
{
    const char *wrong = frame_check(text, len, WEB_MAX_BODY, WEB_MAX_DEPTH);
    if (wrong)
        return ruche_error(error, RUCHE_ERR_INVALID, "the request's body is not JSON: %s", wrong);
    g_autoptr(JsonParser) parser = json_parser_new();
    if (!json_parser_load_from_data(parser, text, (gssize)len, NULL))
        return ruche_error(error, RUCHE_ERR_INVALID, "the request's body is not JSON");
    JsonNode *root = json_parser_get_root(parser);
    if (!root || !JSON_NODE_HOLDS_OBJECT(root))
        return ruche_error(error, RUCHE_ERR_INVALID, "the request's body is not a JSON object");
    json_object_foreach_member(json_node_get_object(root), add_member, args);
    return true;
}

static const struct web_field *find_field(const struct web_op *op, const char *name)
{
    for (const struct web_field *f = op->fields; f && f->name; f++)
        if (!strcmp(f->name, name))
            return f;
    return NULL;
}

static bool check_range(const struct web_field *f, int64_t value, GError **error)
{
    int64_t max = f->max || f->min ? f->max : INT64_MAX;
    if (value < f->min || value > max)
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s': %" PRIi64 " is not between %" PRIi64 " and %" PRIi64,
                           f->name, value, f->min, max);
    return true;
}

static bool wrong_kind(const struct web_field *f, GError **error)
{
    static const char *const kinds[] = {
        [WEB_STRING] = "a text", [WEB_INT] = "a whole number", [WEB_BOOL] = "true or false",
        [WEB_SIZE] = "a size: bytes, or a text such as \"2G\"", [WEB_STRINGS] = "an array of texts",
    };
    return ruche_error(error, RUCHE_ERR_INVALID, "'%s' must be %s", f->name, kinds[f->kind]);
}

/* A number, from JSON or (in a query) from text; put back as a number. */
static bool check_number(const struct web_field *f, JsonObject *args, JsonNode *value, GError **error)
{
    GType type = json_node_get_value_type(value);
    int64_t number;
    if (type == G_TYPE_INT64) {
        number = json_node_get_int(value);
    } else if (type == G_TYPE_STRING) {
        const char *text = json_node_get_string(value);
        uint64_t unsigned_number;
        bool minus = f->kind == WEB_INT && *text == '-';
        bool good = f->kind == WEB_SIZE ? units_parse_size(text, 1, &unsigned_number)
                                        : units_parse_u64(text + minus, &unsigned_number);
        if (!good || unsigned_number > INT64_MAX)
            return wrong_kind(f, error);
        number = minus ? -(int64_t)unsigned_number : (int64_t)unsigned_number;
        json_object_set_int_member(args, f->name, number);
    } else {
        return wrong_kind(f, error);
    }
    return check_range(f, number, error);
}

static bool check_bool(const struct web_field *f, JsonObject *args, JsonNode *value, GError **error)
{
    if (json_node_get_value_type(value) == G_TYPE_BOOLEAN)
        return true;
    const char *text = json_node_get_value_type(value) == G_TYPE_STRING ? json_node_get_string(value) : "-";
    bool yes = !*text || !strcmp(text, "true") || !strcmp(text, "1");
    if (!yes && strcmp(text, "false") != 0 && strcmp(text, "0") != 0)
        return wrong_kind(f, error);
    json_object_set_boolean_member(args, f->name, yes);
    return true;
}

static bool check_strings(const struct web_field *f, JsonNode *value, GError **error)
{
    if (!JSON_NODE_HOLDS_ARRAY(value))
        return wrong_kind(f, error);
    JsonArray *array = json_node_get_array(value);
    for (unsigned i = 0; i < json_array_get_length(array); i++)
        if (json_node_get_value_type(json_array_get_element(array, i)) != G_TYPE_STRING)
            return wrong_kind(f, error);
    return true;
}

static bool check_field(const struct web_field *f, JsonObject *args, JsonNode *value, GError **error)
{
    if (f->kind == WEB_STRINGS)
        return check_strings(f, value, error);
    if (!JSON_NODE_HOLDS_VALUE(value))
        return wrong_kind(f, error);
    switch (f->kind) {
    case WEB_INT:
    case WEB_SIZE:
        return check_number(f, args, value, error);
    case WEB_BOOL:
        return check_bool(f, args, value, error);
    default:
        return json_node_get_value_type(value) == G_TYPE_STRING || wrong_kind(f, error);
    }
}

bool web_check_args(const struct web_op *op, JsonObject *args, GError **error)
{
    g_autoptr(GList) names = json_object_get_members(args);
    for (GList *n = names; n; n = n->next) {
        const struct web_field *f = find_field(op, n->data);
        if (!f && in_path(op, n->data))
            continue;
        if (!f)
            return ruche_error(error, RUCHE_ERR_UNKNOWN, "%s takes no argument '%s'", op->id, (char *)n->data);
        if (!check_field(f, args, json_object_get_member(args, n->data), error))
            return false;
    }
    for (const struct web_field *f = op->fields; f && f->name; f++)
        if (f->required && !json_object_has_member(args, f->name))
            return ruche_error(error, RUCHE_ERR_INVALID, "%s needs the argument '%s': %s", op->id, f->name, f->help);
    return true;
}

const char *web_text(const struct web_request *r, const char *name)
{
    return json_object_get_string_member_with_default(r->args, name, NULL);
}

int64_t web_int(const struct web_request *r, const char *name, int64_t otherwise)
{
    return json_object_get_int_member_with_default(r->args, name, otherwise);
}

bool web_bool(const struct web_request *r, const char *name)
{
    return json_object_get_boolean_member_with_default(r->args, name, FALSE);
}

bool web_given(const struct web_request *r, const char *name)
{
    return json_object_has_member(r->args, name);
}

JsonNode *web_node(JsonObject *object)
{
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(node, object);
    return node;
}
