/* SPDX-License-Identifier: GPL-2.0-or-later */
/* OVSDB's messages; see message.h. */
#include "ovsdb/message.h"

/* JSON's null counts as not there. */
static JsonNode *member(JsonObject *o, const char *name)
{
    JsonNode *n = json_object_get_member(o, name);
    return n && !JSON_NODE_HOLDS_NULL(n) ? n : NULL;
}

static const char *read_request(struct ovsdb_message *m, JsonObject *o)
{
    JsonNode *method = member(o, "method"), *params = member(o, "params");
    if (!JSON_NODE_HOLDS_VALUE(method) || json_node_get_value_type(method) != G_TYPE_STRING)
        return "a request's method is not a string";
    if (!params || !JSON_NODE_HOLDS_ARRAY(params))
        return "a request's parameters are not an array";
    m->kind = m->id ? OVSDB_REQUEST : OVSDB_NOTIFICATION;
    m->method = json_node_get_string(method);
    m->params = json_node_get_array(params);
    return NULL;
}

static const char *read_response(struct ovsdb_message *m, JsonObject *o)
{
    m->kind = OVSDB_RESPONSE;
    m->result = member(o, "result");
    m->error = member(o, "error");
    if (!m->id)
        return "a response has no id";
    return m->result && m->error ? "a response is both a result and an error" : NULL;
}

static const char *read_message(struct ovsdb_message *m)
{
    JsonObject *o =
        m->root && JSON_NODE_HOLDS_OBJECT(m->root) ? json_node_get_object(m->root) : NULL;
    if (!o)
        return "a message is not an object";
    m->id = member(o, "id");
    return member(o, "method") ? read_request(m, o) : read_response(m, o);
}

const char *ovsdb_message_parse(struct ovsdb_message *ret, const char *text, size_t len)
{
    g_autoptr(JsonParser) parser = json_parser_new_immutable();
    *ret = (struct ovsdb_message){0};
    if (len > OVSDB_MESSAGE_MAX || !json_parser_load_from_data(parser, text, (gssize)len, NULL))
        return "a message is not JSON";
    struct ovsdb_message m = {.root = json_parser_get_root(parser)};
    const char *why = read_message(&m);
    if (why)
        return why;
    json_node_ref(m.root);
    *ret = m;
    return NULL;
}

void ovsdb_message_done(struct ovsdb_message *m)
{
    g_clear_pointer(&m->root, json_node_unref);
}

static char *text_of(JsonObject *o)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(node, o);
    return json_to_string(node, FALSE);
}

char *ovsdb_request_text(const char *method, JsonArray *params, int64_t id)
{
    JsonObject *o = json_object_new();
    if (id < 0)
        json_object_set_null_member(o, "id");
    else
        json_object_set_int_member(o, "id", id);
    json_object_set_string_member(o, "method", method);
    json_object_set_array_member(o, "params", params);
    return text_of(o);
}

static void put(JsonObject *o, const char *name, JsonNode *value)
{
    json_object_set_member(o, name, value ? json_node_copy(value) : json_node_new(JSON_NODE_NULL));
}

char *ovsdb_response_text(JsonNode *id, JsonNode *result, JsonNode *error)
{
    JsonObject *o = json_object_new();
    put(o, "id", id);
    put(o, "result", result);
    put(o, "error", error);
    return text_of(o);
}
