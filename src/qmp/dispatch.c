/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands by name, their arguments checked against their tables. */
#include "qmp/internal.h"

#include <stdlib.h>
#include <string.h>

static int compare_names(const void *a, const void *b)
{
    /* Both kinds of rows begin with their name. */
    return strcmp(**(const char *const *const *)a, **(const char *const *const *)b);
}

const struct qmp_command *const *qmp_command_list(void)
{
    static const struct qmp_command **list;
    if (list)
        return list;
    size_t n = 0;
    LINKSET_FOREACH(qmp_commands, struct qmp_command, c)
        n++;
    list = g_new0(const struct qmp_command *, n + 1);
    n = 0;
    LINKSET_FOREACH(qmp_commands, struct qmp_command, c)
        list[n++] = c;
    qsort(list, n, sizeof(list[0]), compare_names);
    return list;
}

const struct qmp_event_type *const *qmp_event_list(void)
{
    static const struct qmp_event_type **list;
    if (list)
        return list;
    size_t n = 0;
    LINKSET_FOREACH(qmp_event_types, struct qmp_event_type, e)
        n++;
    list = g_new0(const struct qmp_event_type *, n + 1);
    n = 0;
    LINKSET_FOREACH(qmp_event_types, struct qmp_event_type, e)
        list[n++] = e;
    qsort(list, n, sizeof(list[0]), compare_names);
    return list;
}

const struct qmp_command *qmp_command_find(const char *name)
{
    for (const struct qmp_command *const *c = qmp_command_list(); *c; c++)
        if (!strcmp((*c)->name, name))
            return *c;
    return NULL;
}

static void unknown_command(const char *name, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    for (const struct qmp_command *const *c = qmp_command_list(); *c; c++)
        g_ptr_array_add(names, (gpointer)(*c)->name);
    g_ptr_array_add(names, NULL);
    g_set_error(error, QMP_COMMAND_NOT_FOUND, 0, "The command %.64s has not been found%s", name,
                suggest_phrase(name, (const char *const *)names->pdata));
}

static const char *const kind_names[] = {
    [QMP_STRING] = "a string", [QMP_INT] = "an integer",   [QMP_BOOL] = "true or false",
    [QMP_NUMBER] = "a number", [QMP_OBJECT] = "an object", [QMP_ARRAY] = "a list",
    [QMP_ANY] = "anything",
};

static bool kind_fits(enum qmp_arg_kind kind, JsonNode *n)
{
    GType type = JSON_NODE_HOLDS_VALUE(n) ? json_node_get_value_type(n) : G_TYPE_INVALID;
    switch (kind) {
    case QMP_STRING:
        return type == G_TYPE_STRING;
    case QMP_INT:
        return type == G_TYPE_INT64;
    case QMP_BOOL:
        return type == G_TYPE_BOOLEAN;
    case QMP_NUMBER:
        return type == G_TYPE_INT64 || type == G_TYPE_DOUBLE;
    case QMP_OBJECT:
        return JSON_NODE_HOLDS_OBJECT(n);
    case QMP_ARRAY:
        return JSON_NODE_HOLDS_ARRAY(n);
    case QMP_ANY:
        return true;
    }
    return false;
}

static const struct qmp_arg *arg_find(const struct qmp_command *c, const char *name)
{
    for (const struct qmp_arg *a = c->args; a && a->name; a++)
        if (a->kind == QMP_ANY && !strcmp(a->name, "*")) /* takes whatever else is given */
            return a;
        else if (!strcmp(a->name, name))
            return a;
    return NULL;
}

bool qmp_check_args(const struct qmp_command *c, JsonObject *args, GError **error)
{
    JsonObjectIter it;
    const char *name;
    JsonNode *value;
    json_object_iter_init(&it, args);
    while (json_object_iter_next(&it, &name, &value)) {
        const struct qmp_arg *a = arg_find(c, name);
        if (!a) {
            const char *names[32];
            size_t n = 0;
            for (const struct qmp_arg *k = c->args; k && k->name && n < G_N_ELEMENTS(names) - 1;
                 k++)
                names[n++] = k->name;
            names[n] = NULL;
            return ruche_error(error, RUCHE_ERR_INVALID, "%s has no argument '%.64s'%s", c->name,
                               name, suggest_phrase(name, names));
        }
        if (!kind_fits(a->kind, value))
            return ruche_error(error, RUCHE_ERR_INVALID, "argument '%s' of %s must be %s", name,
                               c->name, kind_names[a->kind]);
    }
    for (const struct qmp_arg *a = c->args; a && a->name; a++)
        if (!a->optional && strcmp(a->name, "*") && !json_object_has_member(args, a->name))
            return ruche_error(error, RUCHE_ERR_INVALID, "%s lacks the argument '%s'", c->name,
                               a->name);
    return true;
}

JsonNode *qmp_execute(struct qmp_server *s, const char *command, JsonObject *args, GError **error)
{
    const struct qmp_command *c = qmp_command_find(command);
    if (!c) {
        unknown_command(command, error);
        return NULL;
    }
    JsonObject *given = args ? json_object_ref(args) : json_object_new();
    JsonNode *result = NULL;
    GError *local = NULL;
    if (qmp_check_args(c, given, &local))
        result = c->call(s->opaque, given, &local);
    json_object_unref(given);
    if (local) {
        g_clear_pointer(&result, json_node_unref);
        g_propagate_error(error, local);
        return NULL;
    }
    if (!result) {
        result = json_node_new(JSON_NODE_OBJECT);
        json_node_take_object(result, json_object_new());
    }
    return result;
}
