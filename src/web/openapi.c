/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The OpenAPI description of the table of operations.
 *
 * Spec      OpenAPI 3.0.3. Thread: the loop thread.
 */
#include "web/op.h"

#include <string.h>

static JsonObject *schema_of(enum web_kind kind)
{
    static const char *const types[] = {
        [WEB_STRING] = "string", [WEB_INT] = "integer", [WEB_BOOL] = "boolean", [WEB_STRINGS] = "array",
    };
    JsonObject *o = json_object_new();
    if (kind == WEB_SIZE) {
        JsonArray *either = json_array_new();
        json_array_add_object_element(either, schema_of(WEB_INT));
        json_array_add_object_element(either, schema_of(WEB_STRING));
        json_object_set_array_member(o, "oneOf", either);
        return o;
    }
    json_object_set_string_member(o, "type", types[kind]);
    if (kind == WEB_STRINGS)
        json_object_set_object_member(o, "items", schema_of(WEB_STRING));
    return o;
}

static void add_parameter(JsonArray *parameters, const char *name, const char *where, const struct web_field *f)
{
    JsonObject *p = json_object_new();
    json_object_set_string_member(p, "name", name);
    json_object_set_string_member(p, "in", where);
    json_object_set_boolean_member(p, "required", !f || f->required);
    json_object_set_object_member(p, "schema", schema_of(f ? f->kind : WEB_STRING));
    if (f)
        json_object_set_string_member(p, "description", f->help);
    json_array_add_object_element(parameters, p);
}

static JsonArray *parameters_of(const struct web_op *op, bool query)
{
    JsonArray *parameters = json_array_new();
    for (const char *at = strchr(op->path, '{'); at; at = strchr(at + 1, '{')) {
        g_autofree char *name = g_strndup(at + 1, strcspn(at + 1, "}"));
        add_parameter(parameters, name, "path", NULL);
    }
    for (const struct web_field *f = op->fields; query && f && f->name; f++)
        add_parameter(parameters, f->name, "query", f);
    return parameters;
}

static JsonObject *content_of(JsonObject *schema)
{
    JsonObject *json = json_object_new(), *content = json_object_new(), *body = json_object_new();
    json_object_set_object_member(json, "schema", schema);
    json_object_set_object_member(content, "application/json", json);
    json_object_set_object_member(body, "content", content);
    return body;
}

static JsonObject *body_of(const struct web_op *op)
{
    JsonObject *schema = schema_of(WEB_STRING), *properties = json_object_new();
    JsonArray *required = json_array_new();
    json_object_set_string_member(schema, "type", "object");
    for (const struct web_field *f = op->fields; f->name; f++) {
        JsonObject *property = schema_of(f->kind);
        json_object_set_string_member(property, "description", f->help);
        json_object_set_object_member(properties, f->name, property);
        if (f->required)
            json_array_add_string_element(required, f->name);
    }
    json_object_set_object_member(schema, "properties", properties);
    if (json_array_get_length(required))
        json_object_set_array_member(schema, "required", required);
    else
        json_array_unref(required);
    return content_of(schema);
}

static JsonObject *responses_of(const struct web_op *op)
{
    JsonObject *responses = json_object_new(), *good = json_object_new(), *bad = json_object_new();
    g_autofree char *status = g_strdup_printf("%u", op->status ? op->status : 200);
    json_object_set_string_member(good, "description", op->summary);
    json_object_set_object_member(responses, status, good);
    json_object_set_string_member(bad, "description", "{\"error\": {\"code\", \"message\"}}");
    json_object_set_object_member(responses, "default", bad);
    return responses;
}

static JsonObject *operation_of(const struct web_op *op)
{
    bool query = !strcmp(op->method, "GET") || !strcmp(op->method, "DELETE");
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "operationId", op->id);
    json_object_set_string_member(o, "summary", op->summary);
    json_object_set_array_member(o, "parameters", parameters_of(op, query));
    if (!query && op->fields)
        json_object_set_object_member(o, "requestBody", body_of(op));
    json_object_set_object_member(o, "responses", responses_of(op));
    return o;
}

JsonNode *web_openapi(void)
{
    JsonObject *top = json_object_new(), *info = json_object_new(), *paths = json_object_new(), *path = NULL;
    json_object_set_string_member(top, "openapi", "3.0.3");
    json_object_set_string_member(info, "title", "Ruche");
    json_object_set_string_member(info, "version", RUCHE_VERSION);
    json_object_set_object_member(top, "info", info);
    const char *last = "";
    for (const struct web_op *const *op = web_op_list(); *op; op++) {
        if (strcmp(last, (*op)->path) != 0) {
            path = json_object_new();
            json_object_set_object_member(paths, (*op)->path, path);
            last = (*op)->path;
        }
        g_autofree char *method = g_ascii_strdown((*op)->method, -1);
        json_object_set_object_member(path, method, operation_of(*op));
    }
    json_object_set_object_member(top, "paths", paths);
    return web_node(top);
}
