/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: qom-list, qom-get and qom-set for the objects that can change while the machine runs: limits that disks share
 * and the balloon. I/O threads and the names of devices are shown.
 *
 * Spec      QAPI's ThrottleLimits. What is left out of `limits` stays as it is.
 */
#include "vmm/block.h"

#include <string.h>

#define OBJECTS "/objects"
#define PERIPHERALS "/machine/peripheral"

/* ---- limits as members ---- */

struct limit_row {
    char name[32];
    uint64_t *value;
    uint64_t least;
};
#define LIMIT_ROWS (3 * THROTTLE_KINDS + 1)

/* "bps-total", "bps-total-max", "bps-total-max-length", ... "iops-size"; values are members of l. */
static unsigned limit_rows(struct throttle_limits *l, struct limit_row *rows)
{
    unsigned n = 0;
    for (const struct throttle_name *t = throttle_names; t->qmp; t++) {
        struct {
            const char *suffix;
            uint64_t *value;
        } parts[] = { { "", &l->of[t->kind].avg },
                      { "-max", &l->of[t->kind].max },
                      { "-max-length", &l->of[t->kind].length } };
        for (size_t i = 0; i < G_N_ELEMENTS(parts); i++, n++) {
            g_snprintf(rows[n].name, sizeof(rows[n].name), "%s%s", t->option, parts[i].suffix);
            rows[n].value = parts[i].value;
            rows[n].least = i == 2;
        }
    }
    g_strlcpy(rows[n].name, "iops-size", sizeof(rows[n].name));
    rows[n].value = &l->op_size;
    rows[n].least = 0;
    return n + 1;
}

static JsonNode *get_limits(struct throttle_group *g)
{
    struct throttle_limits l;
    struct limit_row rows[LIMIT_ROWS];
    JsonObject *o = json_object_new();
    throttle_group_limits(g, &l);
    unsigned count = limit_rows(&l, rows);
    for (unsigned i = 0; i < count; i++)
        json_object_set_int_member(o, rows[i].name, (gint64)*rows[i].value);
    return qmp_object(o);
}

static bool take_limit(struct limit_row *rows, unsigned count, const char *name, JsonNode *value,
                       GError **error)
{
    for (unsigned i = 0; i < count; i++) {
        if (strcmp(rows[i].name, name))
            continue;
        gint64 v = JSON_NODE_HOLDS_VALUE(value) ? json_node_get_int(value) : -1;
        if (v < (gint64)rows[i].least || (uint64_t)v > THROTTLE_VALUE_MAX)
            return ruche_error(error, RUCHE_ERR_INVALID, "limits: '%s' is not a number from %d to %llu",
                               name, (int)rows[i].least, (unsigned long long)THROTTLE_VALUE_MAX);
        *rows[i].value = (uint64_t)v;
        return true;
    }
    return ruche_error(error, RUCHE_ERR_UNKNOWN, "limits: there is no limit '%s'", name);
}

static bool set_limits(struct throttle_group *g, JsonNode *value, GError **error)
{
    struct throttle_limits l;
    struct limit_row rows[LIMIT_ROWS];
    JsonObjectIter it;
    const char *name;
    JsonNode *member;
    if (!JSON_NODE_HOLDS_OBJECT(value))
        return ruche_error(error, RUCHE_ERR_INVALID, "'limits' is an object");
    throttle_group_limits(g, &l);
    unsigned count = limit_rows(&l, rows);
    json_object_iter_init(&it, json_node_get_object(value));
    while (json_object_iter_next(&it, &name, &member))
        if (!take_limit(rows, count, name, member, error))
            return false;
    if (!throttle_check(&l, error))
        return false;
    throttle_group_set(g, &l);
    return true;
}

/* ---- objects ---- */

struct object {
    struct throttle_group *group;       /* or */
    struct vm_iothread *iothread; /* one of them; borrowed */
};

/* By its id, or by its path. */
static bool find(struct vmm *v, const char *path, struct object *ret, GError **error)
{
    const char *id = g_str_has_prefix(path, OBJECTS "/") ? path + strlen(OBJECTS "/") : path;
    *ret = (struct object){ 0 };
    for (guint i = 0; i < v->throttle_groups->len && !ret->group; i++)
        if (!strcmp(throttle_group_name(g_ptr_array_index(v->throttle_groups, i)), id))
            ret->group = g_ptr_array_index(v->throttle_groups, i);
    for (guint i = 0; i < v->iothreads->len && !ret->group && !ret->iothread; i++) {
        struct vm_iothread *t = g_ptr_array_index(v->iothreads, i);
        if (!strcmp(t->id, id))
            ret->iothread = t;
    }
    return ret->group || ret->iothread ||
           ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no object '%s' with properties", path);
}

static JsonNode *no_property(const struct object *o, const char *path, const char *name, GError **error)
{
    ruche_error(error, RUCHE_ERR_UNKNOWN, "object '%s' has no property '%s' but %s", path, name,
                o->group ? "'limits'" : "'poll-max-ns' and others that qom-list names");
    return NULL;
}

/* The place of a property; NULL: there is none of that name. */
static uint64_t *iothread_value(const struct object *o, const char *name, uint64_t *ret_max)
{
    for (unsigned i = 0; o->iothread && i < IOTHREAD_PROPS; i++)
        if (!strcmp(iothread_props[i].name, name)) {
            *ret_max = iothread_props[i].max;
            return &o->iothread->props[i];
        }
    return NULL;
}

static bool set_iothread(const char *path, const char *name, uint64_t *at, uint64_t max, JsonNode *value, GError **error)
{
    bool is_int = value && JSON_NODE_HOLDS_VALUE(value) && json_node_get_value_type(value) == G_TYPE_INT64;
    if (!is_int || json_node_get_int(value) < 0 || (uint64_t)json_node_get_int(value) > max)
        return ruche_error(error, RUCHE_ERR_INVALID, "object '%s': '%s' is a number from 0 to %" G_GUINT64_FORMAT, path,
                           name, max);
    *at = (uint64_t)json_node_get_int(value);
    return true;
}

static JsonNode *qom_get(void *opaque, JsonObject *args, GError **error)
{
    const char *path = arg_string(args, "path"), *name = arg_string(args, "property");
    struct object o;
    if (qmp_balloon_path(opaque, path))
        return qmp_balloon_get(opaque, name, error);
    if (!find(opaque, path, &o, error))
        return NULL;
    if (o.group && !strcmp(name, "limits"))
        return get_limits(o.group);
    uint64_t max, *at = iothread_value(&o, name, &max);
    if (at)
        return json_node_init_int(json_node_alloc(), (gint64)*at);
    return no_property(&o, path, name, error);
}

static JsonNode *qom_set(void *opaque, JsonObject *args, GError **error)
{
    const char *path = arg_string(args, "path"), *name = arg_string(args, "property");
    struct object o;
    if (qmp_balloon_path(opaque, path)) {
        qmp_balloon_set(opaque, name, json_object_get_member(args, "value"), error);
        return NULL;
    }
    if (!find(opaque, path, &o, error))
        return NULL;
    uint64_t max, *at = iothread_value(&o, name, &max);
    if (o.group && !strcmp(name, "limits"))
        set_limits(o.group, json_object_get_member(args, "value"), error);
    else if (at)
        set_iothread(path, name, at, max, json_object_get_member(args, "value"), error);
    else
        no_property(&o, path, name, error);
    return NULL;
}

static void list_one(JsonArray *list, const char *name, const char *type)
{
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "name", name);
    json_object_set_string_member(o, "type", type);
    json_array_add_object_element(list, o);
}

/* Devices and vCPUs that have an id. */
static JsonNode *list_peripherals(struct vmm *v)
{
    JsonArray *list = json_array_new();
    for (const struct device *d = v->machine->devices; d; d = d->next) {
        g_autofree char *type = g_strdup_printf("child<%s>", d->type->name);
        if (d->id)
            list_one(list, d->id, type);
    }
    for (unsigned i = 0; v->cpu_ids && i < v->machine->vcpu_count; i++)
        if (v->cpu_ids[i])
            list_one(list, v->cpu_ids[i], "child<cpu>");
    return qmp_array(list);
}

/* "/objects", "/machine/peripheral", or the properties of an object. */
static JsonNode *qom_list(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    const char *path = arg_string(args, "path");
    struct object o = { 0 };
    if (!strcmp(path, PERIPHERALS))
        return list_peripherals(v);
    if (strcmp(path, OBJECTS) && !find(v, path, &o, error))
        return NULL;
    JsonArray *list = json_array_new();
    if (o.group)
        list_one(list, "limits", "ThrottleLimits");
    for (unsigned i = 0; o.iothread && i < IOTHREAD_PROPS; i++)
        list_one(list, iothread_props[i].name, "int");
    if (o.group || o.iothread)
        return qmp_array(list);
    for (guint i = 0; i < v->throttle_groups->len; i++)
        list_one(list, throttle_group_name(g_ptr_array_index(v->throttle_groups, i)), "child<throttle-group>");
    for (guint i = 0; i < v->iothreads->len; i++)
        list_one(list, ((struct vm_iothread *)g_ptr_array_index(v->iothreads, i))->id, "child<iothread>");
    return qmp_array(list);
}

#define PATH { "path", QMP_STRING, false, "/objects/ID, /machine/peripheral/ID, or the id" }
#define PROPERTY { "property", QMP_STRING, false, "Its name" }
static const struct qmp_arg list_args[] = { PATH, { 0 } };
static const struct qmp_arg get_args[] = { PATH, PROPERTY, { 0 } };
static const struct qmp_arg set_args[] = { PATH, PROPERTY, { "value", QMP_ANY, false, "What it is to be" }, { 0 } };

static const struct qmp_command list_cmd = { .name = "qom-list",
                                             .summary = "Objects, and their properties",
                                             .args = list_args,
                                             .call = qom_list };
QMP_COMMAND(list_cmd);
static const struct qmp_command get_cmd = { .name = "qom-get",
                                            .summary = "An object's property",
                                            .args = get_args,
                                            .call = qom_get };
QMP_COMMAND(get_cmd);
static const struct qmp_command set_cmd = { .name = "qom-set",
                                            .summary = "Change an object's property",
                                            .args = set_args,
                                            .call = qom_set };
QMP_COMMAND(set_cmd);
