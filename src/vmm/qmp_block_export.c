/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: nodes exported over NBD: the server, and exports by id; in the two spellings that QEMU has.
 *
 * Owner     The machine has one server. An export keeps its node until it is deleted or the server
 *           stops.
 */
#include "vmm/block.h"

#include "image/nbd/server.h"

#include <string.h>

struct block_export {
    char *id, *name; /* of QMP; of NBD */
};

static void export_free(gpointer p)
{
    struct block_export *e = p;
    g_free(e->id);
    g_free(e->name);
    g_free(e);
}

static GPtrArray *exports; /* of the machine's server */

static struct block_export *find_export(const char *id)
{
    for (guint i = 0; exports && i < exports->len; i++) {
        struct block_export *e = g_ptr_array_index(exports, i);
        if (!strcmp(e->id, id))
            return e;
    }
    return NULL;
}

static void forget_export(struct vmm *v, struct block_export *e)
{
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "id", e->id);
    g_ptr_array_remove(exports, e);
    qmp_event(v->qmp, "BLOCK_EXPORT_DELETED", o);
}

/* ---- the server ---- */

static bool take_inet(JsonObject *data, struct nbd_server_config *c, GError **error)
{
    c->host = arg_string(data, "host");
    c->port = arg_string(data, "port");
    return (c->host && c->port) ||
           ruche_error(error, RUCHE_ERR_INVALID, "addr: 'host' and 'port' are missing");
}

/* {"type": "inet"|"unix", "data": {...}}, or flat as newer commands have it. */
static bool take_address(JsonObject *addr, struct nbd_server_config *c, GError **error)
{
    const char *type = arg_string(addr, "type");
    JsonNode *inner = json_object_get_member(addr, "data");
    JsonObject *data = inner && JSON_NODE_HOLDS_OBJECT(inner) ? json_node_get_object(inner) : addr;
    if (!g_strcmp0(type, "inet"))
        return take_inet(data, c, error);
    c->unix_path = arg_string(data, "path");
    if (g_strcmp0(type, "unix"))
        return ruche_error(error, RUCHE_ERR_INVALID, "addr: type '%s' is neither 'inet' nor 'unix'",
                           type ? type : "");
    return c->unix_path || ruche_error(error, RUCHE_ERR_INVALID, "addr: 'path' is missing");
}

static JsonNode *server_start(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    struct nbd_server_config c = NBD_SERVER_CONFIG_INIT;
    const char *creds = arg_string(args, "tls-creds");
    uint64_t max = 0;
    if (v->nbd) {
        ruche_error(error, RUCHE_ERR_STATE, "the NBD server runs already, at %s",
                    nbd_server_where(v->nbd));
        return NULL;
    }
    if (!take_address(json_object_get_object_member(args, "addr"), &c, error) ||
        !arg_u64(args, "max-connections", UINT32_MAX, &max, error))
        return NULL;
    c.tls_authz = arg_string(args, "tls-authz");
    c.tls = creds ? tls_creds_find(creds, true, error) : NULL;
    if (creds && !c.tls)
        return NULL;
    c.max_connections = (unsigned)max;
    v->nbd = nbd_server_new(v->image_context, &c, error);
    tls_creds_unref(c.tls);
    if (v->nbd && !exports)
        exports = g_ptr_array_new_with_free_func(export_free);
    return NULL;
}
static const struct qmp_arg server_start_args[] = {
    { "addr", QMP_OBJECT, false, "type inet or unix, and data" },
    { "tls-creds", QMP_STRING, true, "Id of TLS credentials" },
    { "tls-authz", QMP_STRING, true, "Id of the object that says who is let in" },
    { "max-connections", QMP_INT, true, "0: no limit but the server's own" },
    { 0 },
};
static const struct qmp_command server_start_cmd = { .name = "nbd-server-start",
                                                     .summary = "Serve nodes over NBD",
                                                     .args = server_start_args,
                                                     .call = server_start };
QMP_COMMAND(server_start_cmd);

static JsonNode *server_stop(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    if (!v->nbd) {
        ruche_error(error, RUCHE_ERR_STATE, "there is no NBD server");
        return NULL;
    }
    g_clear_pointer(&v->nbd, nbd_server_free);
    while (exports->len)
        forget_export(v, g_ptr_array_index(exports, 0));
    return NULL;
}
static const struct qmp_command server_stop_cmd = { .name = "nbd-server-stop",
                                                    .summary = "End the NBD server",
                                                    .call = server_stop };
QMP_COMMAND(server_stop_cmd);

void block_exports_done(struct vmm *v)
{
    g_clear_pointer(&v->nbd, nbd_server_free);
    g_clear_pointer(&exports, g_ptr_array_unref);
}

/* ---- exports ---- */

static bool add_export(struct vmm *v, const char *id, const struct nbd_export_config *c,
                       GError **error)
{
    if (!v->nbd)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "there is no NBD server: nbd-server-start comes first");
    if (find_export(id))
        return ruche_error(error, RUCHE_ERR_EXISTS, "the export id '%s' is taken", id);
    struct nbd_export *e = nbd_server_add(v->nbd, c, error);
    if (!e)
        return false;
    struct block_export *b = g_new(struct block_export, 1);
    *b = (struct block_export){ .id = g_strdup(id), .name = g_strdup(nbd_export_get_name(e)) };
    g_ptr_array_add(exports, b);
    return true;
}

static JsonNode *server_add(void *opaque, JsonObject *args, GError **error)
{
    const char *device = arg_string(args, "device"), *name = arg_string(args, "name");
    const char *const bitmaps[] = { arg_string(args, "bitmap"), NULL };
    struct node *n = block_node(opaque, device, NULL, error);
    const struct nbd_export_config c = {
        .name = name ? name : device,
        .description = arg_string(args, "description"),
        .node = n,
        .writable = arg_bool(args, "writable", false),
        .bitmaps = bitmaps,
    };
    if (n)
        add_export(opaque, c.name, &c, error);
    return NULL;
}
static const struct qmp_arg server_add_args[] = {
    { "device", QMP_STRING, false, "Disk or node" },
    { "name", QMP_STRING, true, "The export's; the node's by default" },
    { "description", QMP_STRING, true, "For people" },
    { "writable", QMP_BOOL, true, "Clients may write" },
    { "bitmap", QMP_STRING, true, "Bitmap to show to clients" },
    { 0 },
};
static const struct qmp_command server_add_cmd = { .name = "nbd-server-add",
                                                   .summary = "Export a node over NBD",
                                                   .args = server_add_args,
                                                   .call = server_add };
QMP_COMMAND(server_add_cmd);

/* Names, or {"node": ..., "name": ...}: the chain below the export is searched. NULL with
 * *error. */
static const char **bitmap_names(JsonObject *args, GError **error)
{
    JsonArray *list = json_object_has_member(args, "bitmaps")
                          ? json_object_get_array_member(args, "bitmaps")
                          : NULL;
    guint count = list ? json_array_get_length(list) : 0;
    const char **names = g_new0(const char *, count + 1);
    for (guint i = 0; i < count; i++) {
        JsonNode *n = json_array_get_element(list, i);
        names[i] = JSON_NODE_HOLDS_OBJECT(n)  ? arg_string(json_node_get_object(n), "name")
                   : JSON_NODE_HOLDS_VALUE(n) ? json_node_get_string(n)
                                              : NULL;
        if (names[i])
            continue;
        ruche_error(error, RUCHE_ERR_INVALID, "bitmaps: each is a name, or an object with 'name'");
        g_free(names);
        return NULL;
    }
    return names;
}

/* iothread: where the node shall be served; it is no error when it cannot go there, unless fixed-iothread. */
static bool move_to_iothread(struct vmm *v, struct node *n, JsonObject *args, GError **error)
{
    const char *id = arg_string(args, "iothread");
    struct context *c = id ? block_iothread(v, id, error) : NULL;
    if (!c)
        return !id;
    return node_move(n, c, arg_bool(args, "fixed-iothread", false) ? error : NULL) ||
           !arg_bool(args, "fixed-iothread", false);
}

static JsonNode *export_add(void *opaque, JsonObject *args, GError **error)
{
    const char *type = arg_string(args, "type"), *name = arg_string(args, "name");
    if (strcmp(type, "nbd")) {
        ruche_error(error, RUCHE_ERR_UNSUPPORTED, "exports of type '%s' are not here; 'nbd' is",
                    type);
        return NULL;
    }
    struct node *n = block_node(opaque, NULL, arg_string(args, "node-name"), error);
    if (!n || !move_to_iothread(opaque, n, args, error))
        return NULL;
    g_autofree const char **bitmaps = bitmap_names(args, error);
    if (!bitmaps)
        return NULL;
    const struct nbd_export_config c = {
        .name = name ? name : node_name(n),
        .description = arg_string(args, "description"),
        .node = n,
        .writable = arg_bool(args, "writable", false),
        .bitmaps = bitmaps,
        .allocation_depth = arg_bool(args, "allocation-depth", false),
    };
    add_export(opaque, arg_string(args, "id"), &c, error);
    return NULL;
}
static const struct qmp_arg export_add_args[] = {
    { "type", QMP_STRING, false, "nbd" },
    { "id", QMP_STRING, false, "The export's id" },
    { "node-name", QMP_STRING, false, "The node" },
    { "writable", QMP_BOOL, true, "Clients may write" },
    { "writethrough", QMP_BOOL, true, "Accepted: clients say when to flush" },
    { "iothread", QMP_STRING, true, "Where its node is served, if it can move" },
    { "fixed-iothread", QMP_BOOL, true, "It is an error if it cannot" },
    { "name", QMP_STRING, true, "Its name in NBD" },
    { "description", QMP_STRING, true, "For people" },
    { "bitmaps", QMP_ARRAY, true, "Bitmaps to show to clients" },
    { "allocation-depth", QMP_BOOL, true, "Show which image holds what" },
    { 0 },
};
static const struct qmp_command export_add_cmd = { .name = "block-export-add",
                                                   .summary = "Export a node",
                                                   .args = export_add_args,
                                                   .call = export_add };
QMP_COMMAND(export_add_cmd);

static void remove_export(struct vmm *v, JsonObject *args, const char *key, GError **error)
{
    static const char *const modes[] = { "safe", "hard", NULL };
    struct block_export *e = find_export(arg_string(args, key));
    int mode = 0;
    if (!e)
        ruche_error(error, RUCHE_ERR_STATE, "there is no export '%s'", arg_string(args, key));
    else if (arg_word(args, "mode", modes, &mode, error) &&
             nbd_server_remove(v->nbd, e->name, mode == 1, error))
        forget_export(v, e);
}

static JsonNode *export_del(void *opaque, JsonObject *args, GError **error)
{
    remove_export(opaque, args, "id", error);
    return NULL;
}
static const struct qmp_arg export_del_args[] = {
    { "id", QMP_STRING, false, "The export" },
    { "mode", QMP_STRING, true, "safe: refused while there are clients; hard" },
    { 0 },
};
static const struct qmp_command export_del_cmd = { .name = "block-export-del",
                                                   .summary = "End an export",
                                                   .args = export_del_args,
                                                   .call = export_del };
QMP_COMMAND(export_del_cmd);

static JsonNode *server_remove(void *opaque, JsonObject *args, GError **error)
{
    remove_export(opaque, args, "name", error);
    return NULL;
}
static const struct qmp_arg server_remove_args[] = {
    { "name", QMP_STRING, false, "The export" },
    { "mode", QMP_STRING, true, "safe: refused while there are clients; hard" },
    { 0 },
};
static const struct qmp_command server_remove_cmd = { .name = "nbd-server-remove",
                                                      .summary = "End an export",
                                                      .args = server_remove_args,
                                                      .call = server_remove };
QMP_COMMAND(server_remove_cmd);

static JsonNode *query_exports(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    JsonArray *list = json_array_new();
    for (guint i = 0; exports && i < exports->len; i++) {
        const struct block_export *e = g_ptr_array_index(exports, i);
        struct nbd_export *n = nbd_server_find(v->nbd, e->name);
        JsonObject *o = json_object_new();
        json_object_set_string_member(o, "id", e->id);
        json_object_set_string_member(o, "type", "nbd");
        json_object_set_string_member(o, "node-name", n ? node_name(nbd_export_node(n)) : "");
        json_object_set_boolean_member(o, "shutting-down", FALSE);
        json_array_add_object_element(list, o);
    }
    return qmp_array(list);
}
static const struct qmp_command query_exports_cmd = { .name = "query-block-exports",
                                                      .summary = "What is exported",
                                                      .call = query_exports };
QMP_COMMAND(query_exports_cmd);
