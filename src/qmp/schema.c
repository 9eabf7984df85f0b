/* SPDX-License-Identifier: GPL-2.0-or-later */
/* query-qmp-schema, made from the tables of commands and events.
 *
 * Spec      QEMU's qapi/introspect.json: a flat list of types, commands and events that name each
 *           other.
 */
#include "qmp/internal.h"

#include <string.h>

static const struct {
    const char *name, *json_type;
} builtins[] = {
    [QMP_STRING] = { "str", "string" }, [QMP_INT] = { "int", "int" },
    [QMP_BOOL] = { "bool", "boolean" }, [QMP_NUMBER] = { "number", "number" },
    [QMP_OBJECT] = { "any", NULL },     [QMP_ARRAY] = { "[any]", NULL },
    [QMP_ANY] = { "any", "value" },
};

static JsonObject *entry(JsonArray *list, const char *name, const char *meta)
{
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "name", name);
    json_object_set_string_member(o, "meta-type", meta);
    json_array_add_object_element(list, o);
    return o;
}

static void add_members(JsonObject *type, const struct qmp_arg *args)
{
    JsonArray *members = json_array_new();
    for (const struct qmp_arg *a = args; a && a->name; a++) {
        if (!strcmp(a->name, "*"))
            continue;
        JsonObject *m = json_object_new();
        json_object_set_string_member(m, "name", a->name);
        json_object_set_string_member(m, "type", builtins[a->kind].name);
        if (a->optional)
            json_object_set_null_member(m, "default");
        json_array_add_object_element(members, m);
    }
    json_object_set_array_member(type, "members", members);
}

/* The name of the object type that holds a row's members; made when there are any. */
static char *args_type(JsonArray *list, const char *owner, const char *suffix,
                       const struct qmp_arg *args)
{
    if (!args || !args->name)
        return g_strdup("q_empty");
    char *name = g_strdup_printf("q_obj_%s-%s", owner, suffix);
    add_members(entry(list, name, "object"), args);
    return name;
}

static void add_builtins(JsonArray *list)
{
    for (size_t i = 0; i < G_N_ELEMENTS(builtins); i++)
        if (builtins[i].json_type)
            json_object_set_string_member(entry(list, builtins[i].name, "builtin"), "json-type",
                                          builtins[i].json_type);
    json_object_set_string_member(entry(list, "[any]", "array"), "element-type", "any");
    add_members(entry(list, "q_empty", "object"), NULL);
}

JsonNode *qmp_schema(void)
{
    JsonArray *list = json_array_new();
    add_builtins(list);
    for (const struct qmp_command *const *c = qmp_command_list(); *c; c++) {
        g_autofree char *args = args_type(list, (*c)->name, "arg", (*c)->args);
        JsonObject *o = entry(list, (*c)->name, "command");
        json_object_set_string_member(o, "arg-type", args);
        json_object_set_string_member(o, "ret-type", "any");
        json_object_set_boolean_member(o, "allow-oob", FALSE);
    }
    for (const struct qmp_event_type *const *e = qmp_event_list(); *e; e++) {
        g_autofree char *args = args_type(list, (*e)->name, "arg", (*e)->data);
        json_object_set_string_member(entry(list, (*e)->name, "event"), "arg-type", args);
    }
    JsonNode *node = json_node_new(JSON_NODE_ARRAY);
    json_node_take_array(node, list);
    return node;
}
