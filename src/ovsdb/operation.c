/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations of a transaction; see operation.h. */
#include "ovsdb/operation.h"

#include <string.h>

static JsonArray *array_in(JsonObject *op, const char *name)
{
    if (!json_object_has_member(op, name))
        json_object_set_array_member(op, name, json_array_new());
    return json_object_get_array_member(op, name);
}

JsonObject *ovsdb_op(JsonArray *list, const char *op, const char *table)
{
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "op", op);
    json_object_set_string_member(o, "table", table);
    if (strcmp(op, "insert") != 0)
        array_in(o, "where");
    json_array_add_object_element(list, o);
    return o;
}

static void add_triple(JsonArray *to, const char *column, const char *word, JsonNode *value)
{
    JsonArray *triple = json_array_sized_new(3);
    json_array_add_string_element(triple, column);
    json_array_add_string_element(triple, word);
    json_array_add_element(triple, value);
    json_array_add_array_element(to, triple);
}

void ovsdb_op_where(JsonObject *op, const char *column, const char *function, JsonNode *value)
{
    add_triple(array_in(op, "where"), column, function, value);
}

void ovsdb_op_mutate(JsonObject *op, const char *column, const char *mutator, JsonNode *value)
{
    add_triple(array_in(op, "mutations"), column, mutator, value);
}

void ovsdb_op_columns(JsonObject *op, const char *const *columns)
{
    for (; *columns; columns++)
        json_array_add_string_element(array_in(op, "columns"), *columns);
}

void ovsdb_op_set(JsonObject *op, const char *column, JsonNode *value)
{
    if (!json_object_has_member(op, "row"))
        json_object_set_object_member(op, "row", json_object_new());
    json_object_set_member(json_object_get_object_member(op, "row"), column, value);
}

void ovsdb_op_name(JsonObject *op, const char *name)
{
    json_object_set_string_member(op, "uuid-name", name);
}

void ovsdb_op_until_not(JsonObject *op, const char *column, JsonNode *value, int timeout_ms)
{
    JsonObject *row = json_object_new();
    json_object_set_member(row, column, value);
    json_array_add_object_element(array_in(op, "rows"), row);
    json_array_add_string_element(array_in(op, "columns"), column);
    json_object_set_string_member(op, "until", "!=");
    json_object_set_int_member(op, "timeout", timeout_ms);
}

void ovsdb_op_until_none(JsonObject *op, int timeout_ms)
{
    json_object_set_array_member(op, "rows", json_array_new());
    json_array_add_string_element(array_in(op, "columns"), "_uuid");
    json_object_set_string_member(op, "until", "==");
    json_object_set_int_member(op, "timeout", timeout_ms);
}

/* ---- results, which a peer made ---- */

static JsonObject *result_of(JsonArray *results, unsigned index)
{
    JsonNode *n =
        index < json_array_get_length(results) ? json_array_get_element(results, index) : NULL;
    return n && JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
}

JsonArray *ovsdb_rows(JsonArray *results, unsigned index)
{
    JsonObject *o = result_of(results, index);
    JsonNode *n = o ? json_object_get_member(o, "rows") : NULL;
    return n && JSON_NODE_HOLDS_ARRAY(n) ? json_node_get_array(n) : NULL;
}

JsonObject *ovsdb_first_row(JsonArray *results, unsigned index)
{
    JsonArray *rows = ovsdb_rows(results, index);
    JsonNode *n = rows && json_array_get_length(rows) ? json_array_get_element(rows, 0) : NULL;
    return n && JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
}

int64_t ovsdb_count(JsonArray *results, unsigned index)
{
    JsonObject *o = result_of(results, index);
    JsonNode *n = o ? json_object_get_member(o, "count") : NULL;
    return n && JSON_NODE_HOLDS_VALUE(n) && json_node_get_value_type(n) == G_TYPE_INT64
               ? json_node_get_int(n)
               : 0;
}
