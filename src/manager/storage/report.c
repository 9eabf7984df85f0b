/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Answers of programs in JSON. See report.h. */
#include "manager/storage/report.h"

#include "base/units.h"

const char *json_text(JsonObject *o, const char *field)
{
    JsonNode *n = o ? json_object_get_member(o, field) : NULL;
    bool text = n && JSON_NODE_HOLDS_VALUE(n) && json_node_get_value_type(n) == G_TYPE_STRING;
    return text && g_utf8_validate(json_node_get_string(n), -1, NULL) ? json_node_get_string(n)
                                                                      : "";
}

/* A number, or a text that is one, whole or with a fraction that is cut off. */
uint64_t json_number(JsonObject *o, const char *field)
{
    JsonNode *n = o ? json_object_get_member(o, field) : NULL;
    uint64_t v = 0;
    if (n && JSON_NODE_HOLDS_VALUE(n) && json_node_get_value_type(n) == G_TYPE_INT64)
        return (uint64_t)MAX(json_node_get_int(n), 0);
    g_autofree char *text = g_strdup(json_text(o, field));
    text[strcspn(text, ".")] = 0;
    return units_parse_u64(text, &v) && v <= INT64_MAX ? v : 0;
}

const char *report_text(const struct report_row *r, const char *field)
{
    return json_text(r->fields, field);
}

uint64_t report_number(const struct report_row *r, const char *field)
{
    return json_number(r->fields, field);
}

JsonObject *json_root(const char *program, const char *text, JsonNode **ret_node, GError **error)
{
    g_autoptr(JsonNode) root = json_from_string(text, NULL);
    if (!root || !JSON_NODE_HOLDS_OBJECT(root)) {
        ruche_error(error, RUCHE_ERR_IO, "%s: its answer is no JSON object", program);
        return NULL;
    }
    *ret_node = g_steal_pointer(&root);
    return json_node_get_object(*ret_node);
}

static JsonArray *array_of(JsonObject *o, const char *name)
{
    JsonNode *n = o ? json_object_get_member(o, name) : NULL;
    return n && JSON_NODE_HOLDS_ARRAY(n) ? json_node_get_array(n) : NULL;
}

static JsonObject *object_at(JsonArray *a, unsigned i)
{
    JsonNode *n = a && i < json_array_get_length(a) ? json_array_get_element(a, i) : NULL;
    return n && JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
}

report *report_read(const char *program, const char *text, const char *list, GError **error)
{
    JsonNode *node = NULL;
    JsonObject *root = json_root(program, text, &node, error);
    if (!root)
        return NULL;
    JsonArray *rows = array_of(object_at(array_of(root, "report"), 0), list);
    if (!rows || json_array_get_length(rows) > REPORT_MAX) {
        ruche_error(error, RUCHE_ERR_IO, "%s: its answer has no list '%s' of at most %d rows",
                    program, list, REPORT_MAX);
        json_node_unref(node);
        return NULL;
    }
    report *r = g_new0(report, 1);
    r->root = node;
    r->rows = g_new0(struct report_row, json_array_get_length(rows) + 1);
    for (unsigned i = 0; i < json_array_get_length(rows); i++)
        if (object_at(rows, i))
            r->rows[r->count++].fields = object_at(rows, i);
    return r;
}

void report_free(report *r)
{
    if (!r)
        return;
    json_node_unref(r->root);
    g_free(r->rows);
    g_free(r);
}
