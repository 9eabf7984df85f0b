/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: what the program is made of: commands, schema, options, boards, backends. */
#include "devices/virtio/console.h"
#include "chardev/chardev.h"
#include "machine/backends.h"
#include "image/authz.h"
#include "image/nbd/tls.h"
#include "image/node.h"
#include "image/secret.h"
#include "image/throttle.h"
#include "vmm/qmp_util.h"

#include <string.h>

static JsonNode *query_commands(void *opaque, JsonObject *args, GError **error)
{
    JsonArray *list = json_array_new();
    JsonObject *first = json_object_new();
    json_object_set_string_member(first, "name", "qmp_capabilities");
    json_array_add_object_element(list, first);
    for (const struct qmp_command *const *c = qmp_command_list(); *c; c++) {
        JsonObject *o = json_object_new();
        json_object_set_string_member(o, "name", (*c)->name);
        json_array_add_object_element(list, o);
    }
    return qmp_array(list);
}
static const struct qmp_command query_commands_cmd = { .name = "query-commands",
                                                       .summary = "These commands",
                                                       .call = query_commands };
QMP_COMMAND(query_commands_cmd);

static JsonNode *query_schema(void *opaque, JsonObject *args, GError **error)
{
    return qmp_schema();
}
static const struct qmp_command query_schema_cmd = {
    .name = "query-qmp-schema",
    .summary = "Commands, events and their arguments",
    .call = query_schema,
};
QMP_COMMAND(query_schema_cmd);

static JsonNode *query_options(void *opaque, JsonObject *args, GError **error)
{
    const char *only = json_object_get_string_member_with_default(args, "option", NULL);
    JsonArray *list = json_array_new();
    for (const struct option_row *const *r = option_rows(); *r; r++) {
        if (only && strcmp(only, (*r)->name))
            continue;
        JsonObject *o = json_object_new();
        json_object_set_string_member(o, "option", (*r)->name);
        json_object_set_array_member(o, "parameters", json_array_new());
        json_array_add_object_element(list, o);
    }
    if (only && !json_array_get_length(list))
        ruche_error(error, RUCHE_ERR_INVALID, "there is no option '%s'", only);
    return qmp_array(list);
}
static const struct qmp_arg query_options_args[] = {
    { "option", QMP_STRING, true, "Only this one" },
    { 0 },
};
static const struct qmp_command query_options_cmd = {
    .name = "query-command-line-options",
    .summary = "Options of the program",
    .args = query_options_args,
    .call = query_options,
};
QMP_COMMAND(query_options_cmd);

static JsonNode *query_machines(void *opaque, JsonObject *args, GError **error)
{
    JsonArray *list = json_array_new();
    for (const struct board_type *const *b = board_type_list(); *b; b++) {
        JsonObject *o = json_object_new();
        json_object_set_string_member(o, "name", (*b)->name);
        if ((*b)->aliases && (*b)->aliases[0])
            json_object_set_string_member(o, "alias", (*b)->aliases[0]);
        json_object_set_int_member(o, "cpu-max", (*b)->max_cpus);
        json_object_set_boolean_member(o, "hotpluggable-cpus", FALSE);
        json_object_set_boolean_member(o, "numa-mem-supported", FALSE);
        json_object_set_boolean_member(o, "deprecated", FALSE);
        if (!strcmp((*b)->name, DEFAULT_BOARD))
            json_object_set_boolean_member(o, "is-default", TRUE);
        json_array_add_object_element(list, o);
    }
    return qmp_array(list);
}
static const struct qmp_command query_machines_cmd = { .name = "query-machines",
                                                       .summary = "Boards",
                                                       .call = query_machines };
QMP_COMMAND(query_machines_cmd);

/* ---- character backends ---- */

static JsonNode *query_chardev(void *opaque, JsonObject *args, GError **error)
{
    const struct vmm *v = opaque;
    JsonArray *list = json_array_new();
    for (guint i = 0; i < v->chardevs->len; i++) {
        const struct chardev *c = g_ptr_array_index(v->chardevs, i);
        g_autofree char *where = chardev_describe(c);
        JsonObject *o = json_object_new();
        json_object_set_string_member(o, "label", chardev_id(c));
        json_object_set_string_member(o, "filename", where);
        int guest = v->machine ? console_guest_open(v->machine, c) : -1;
        json_object_set_boolean_member(o, "frontend-open", guest < 0 ? chardev_in_use(c) : guest);
        json_array_add_object_element(list, o);
    }
    return qmp_array(list);
}
static const struct qmp_command query_chardev_cmd = { .name = "query-chardev",
                                                      .summary = "Character backends",
                                                      .call = query_chardev };
QMP_COMMAND(query_chardev_cmd);

static struct chardev *find_chardev(struct vmm *v, const char *id, GError **error)
{
    struct chardev *c = vmm_find_chardev(v, id);
    if (!c)
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no chardev '%s'", id);
    return c;
}

static bool wants_base64(JsonObject *args, bool *ret, GError **error)
{
    const char *format = json_object_get_string_member_with_default(args, "format", "utf8");
    *ret = !strcmp(format, "base64");
    if (*ret || !strcmp(format, "utf8"))
        return true;
    return ruche_error(error, RUCHE_ERR_INVALID, "'format' must be utf8 or base64, not '%s'",
                       format);
}

static JsonNode *ringbuf_read(void *opaque, JsonObject *args, GError **error)
{
    struct chardev *c = find_chardev(opaque, json_object_get_string_member(args, "device"), error);
    gint64 size = json_object_get_int_member(args, "size");
    bool base64;
    size_t len;
    if (!c || !wants_base64(args, &base64, error))
        return NULL;
    if (size <= 0 || size > (gint64)(1 * MIB)) {
        ruche_error(error, RUCHE_ERR_INVALID, "'size' must be from 1 to 1048576");
        return NULL;
    }
    g_autofree char *buf = g_malloc(size);
    if (!chardev_ringbuf_read(c, buf, size, &len)) {
        ruche_error(error, RUCHE_ERR_INVALID, "chardev '%s' is not a ringbuf", chardev_id(c));
        return NULL;
    }
    g_autofree char *text =
        base64 ? g_base64_encode((guchar *)buf, len) : g_utf8_make_valid(buf, len);
    JsonNode *node = json_node_new(JSON_NODE_VALUE);
    json_node_set_string(node, text);
    return node;
}
static const struct qmp_arg ringbuf_read_args[] = {
    { "device", QMP_STRING, false, "The ringbuf's id" },
    { "size", QMP_INT, false, "Bytes at most" },
    { "format", QMP_STRING, true, "utf8 or base64" },
    { 0 },
};
static const struct qmp_command ringbuf_read_cmd = {
    .name = "ringbuf-read",
    .summary = "What a ringbuf has kept",
    .args = ringbuf_read_args,
    .call = ringbuf_read,
};
QMP_COMMAND(ringbuf_read_cmd);

static JsonNode *ringbuf_write(void *opaque, JsonObject *args, GError **error)
{
    struct chardev *c = find_chardev(opaque, json_object_get_string_member(args, "device"), error);
    const char *data = json_object_get_string_member(args, "data");
    bool base64;
    size_t len = strlen(data), none;
    if (!c || !wants_base64(args, &base64, error))
        return NULL;
    if (!chardev_ringbuf_read(c, NULL, 0, &none)) {
        ruche_error(error, RUCHE_ERR_INVALID, "chardev '%s' is not a ringbuf", chardev_id(c));
        return NULL;
    }
    g_autofree guchar *decoded = base64 ? g_base64_decode(data, &len) : NULL;
    chardev_write(c, base64 ? (const void *)decoded : data, len);
    return NULL;
}
static const struct qmp_arg ringbuf_write_args[] = {
    { "device", QMP_STRING, false, "The ringbuf's id" },
    { "data", QMP_STRING, false, "What to put in" },
    { "format", QMP_STRING, true, "utf8 or base64" },
    { 0 },
};
static const struct qmp_command ringbuf_write_cmd = {
    .name = "ringbuf-write", .summary = "Put bytes into a ringbuf", .args = ringbuf_write_args,
    .call = ringbuf_write,
};
QMP_COMMAND(ringbuf_write_cmd);

/* ---- I/O threads ---- */

static JsonNode *query_iothreads(void *opaque, JsonObject *args, GError **error)
{
    const struct vmm *v = opaque;
    JsonArray *list = json_array_new();
    for (guint i = 0; i < v->iothreads->len; i++) {
        const struct vm_iothread *t = g_ptr_array_index(v->iothreads, i);
        JsonObject *o = json_object_new();
        json_object_set_string_member(o, "id", t->id);
        json_object_set_int_member(o, "thread-id", t->thread_id);
        for (unsigned k = 0; k < IOTHREAD_PROPS; k++)
            if (iothread_props[k].queried)
                json_object_set_int_member(o, iothread_props[k].name, (gint64)t->props[k]);
        json_array_add_object_element(list, o);
    }
    return qmp_array(list);
}
static const struct qmp_command query_iothreads_cmd = { .name = "query-iothreads",
                                                        .summary = "I/O threads",
                                                        .call = query_iothreads };
QMP_COMMAND(query_iothreads_cmd);

static bool id_taken(const struct vmm *v, const char *id)
{
    for (guint i = 0; i < v->iothreads->len; i++)
        if (!strcmp(((struct vm_iothread *)g_ptr_array_index(v->iothreads, i))->id, id))
            return true;
    return g_hash_table_contains(v->rngs, id);
}

static JsonNode *object_add(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    const char *type = json_object_get_string_member(args, "qom-type");
    const char *id = json_object_get_string_member(args, "id");
    static const char *const kinds[] = { "iothread",       "secret",        "throttle-group",
                                         "tls-creds-x509", "tls-creds-psk", "tls-creds-anon", "rng-random",
                                         "rng-builtin",    NULL };
    if (!g_strv_contains(kinds, type) && !authz_is_kind(type)) {
        ruche_error(error, RUCHE_ERR_UNSUPPORTED, "a '%s' cannot be added while the machine runs", type);
        return NULL;
    }
    if (id_taken(v, id)) {
        ruche_error(error, RUCHE_ERR_EXISTS, "the id '%s' is taken", id);
        return NULL;
    }
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
    json_node_set_object(node, args);
    g_autofree char *text = json_to_string(node, FALSE);
    auto_kv *l = kv_parse(text, NULL, error);
    guint before = v->iothreads->len;
    if (l && kv_check_id(id, error) && build_object(v, l, error)) {
        if (v->iothreads->len > before) {
            struct vm_iothread *t = g_ptr_array_index(v->iothreads, before);
            backend_add(v->machine, BACKEND_IOTHREAD, t->id, t->loop);
        }
        if (g_str_has_prefix(type, "rng-"))
            g_hash_table_add(v->rngs, g_strdup(id));
    } else if (v->iothreads->len > before) {
        g_ptr_array_remove_index(v->iothreads, before);
    }
    return NULL;
}
static const struct qmp_arg object_add_args[] = {
    { "qom-type", QMP_STRING, false, "iothread, secret, throttle-group, tls-creds-x509, authz-simple..." },
    { "id", QMP_STRING, false, "Its id" },
    { "*", QMP_ANY, true, "Its properties" },
    { 0 },
};
static const struct qmp_command object_add_cmd = {
    .name = "object-add",
    .summary = "Add an I/O thread, a secret, limits",
    .args = object_add_args,
    .call = object_add,
};
QMP_COMMAND(object_add_cmd);

static bool remove_throttle_group(struct vmm *v, const char *id)
{
    for (guint i = 0; i < v->throttle_groups->len; i++) {
        struct throttle_group *g = g_ptr_array_index(v->throttle_groups, i);
        if (!strcmp(throttle_group_name(g), id))
            return g_ptr_array_remove_index(v->throttle_groups, i) != NULL;
    }
    return false;
}

/* 1: gone; 0: there is none; -1 with *error: in use. */
static int remove_iothread(struct vmm *v, const char *id, GError **error)
{
    for (guint i = 0; i < v->iothreads->len; i++) {
        struct vm_iothread *t = g_ptr_array_index(v->iothreads, i);
        if (strcmp(t->id, id))
            continue;
        bool used = false;
        for (const struct device *d = v->machine->devices; d; d = d->next)
            used |= d->loop == t->loop;
        for (struct node *n = graph_next(v->graph, NULL); n; n = graph_next(v->graph, n))
            used |= node_context(n) == t->images;
        if (used) {
            ruche_error(error, RUCHE_ERR_BUSY, "object '%s' is in use, can not be deleted", id);
            return -1;
        }
        backend_remove(v->machine, BACKEND_IOTHREAD, id);
        g_ptr_array_remove_index(v->iothreads, i); /* ends it */
        return 1;
    }
    return 0;
}

/* Sources of randomness that came at run time: nothing but their names. */
static bool remove_rng(struct vmm *v, const char *id)
{
    return g_hash_table_remove(v->rngs, id);
}

static JsonNode *object_del(void *opaque, JsonObject *args, GError **error)
{
    const char *id = json_object_get_string_member(args, "id");
    int found = remove_iothread(opaque, id, error);
    if (found < 0)
        return NULL;
    if (found || remove_rng(opaque, id) || remove_throttle_group(opaque, id) || secret_remove(id, NULL) || tls_creds_remove(id, NULL) ||
        authz_remove(id))
        return NULL;
    ruche_error(error, RUCHE_ERR_STATE, "there is no object '%s' that can be taken out", id);
    return NULL;
}
static const struct qmp_arg object_del_args[] = {
    { "id", QMP_STRING, false, "The object" },
    { 0 },
};
static const struct qmp_command object_del_cmd = {
    .name = "object-del",
    .summary = "Take an I/O thread, a secret, limits, TLS credentials or an authorization out",
    .args = object_del_args,
    .call = object_del,
};
QMP_COMMAND(object_del_cmd);
