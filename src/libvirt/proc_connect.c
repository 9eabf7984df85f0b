/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Connections: opening, closing, what is supported, who we are. Thread: the loop thread. */
#include "libvirt/client.h"
#include "libvirt/object.h"
#include "manager/node/node.h"

#include <string.h>

enum { E_NO_CONNECT = 5, FROM_NONE = 0 };
/* virConnectFlags; the last is a session's client saying that it would have begun the daemon. */
enum { OPEN_READ_ONLY = 1, OPEN_NO_ALIASES = 2, OPEN_AUTOSTART = 4 };

/* ---- opening and closing ---- */

struct open {
    char *name;
    uint32_t flags;
};
static const struct xdr_row open_xdr[] = {XDR_F(STRING_OPT, struct open, name),
                                          XDR_F(UINT, struct open, flags), XDR_DONE};

/* "qemu:///system", with whatever a client leaves standing behind: both words open what this daemon
 * has. */
static bool ours(const char *uri)
{
    static const char *const names[] = {"qemu:///system", "qemu:///session", "ruche:///system",
                                        "ruche:///session"};
    if (!uri || !*uri)
        return true;
    size_t len = strcspn(uri, "?");
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
        if (len == strlen(names[i]) && !strncmp(uri, names[i], len))
            return true;
    return false;
}

static bool do_open(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct open *a = args;
    if (!object_flags(a->flags, OPEN_READ_ONLY | OPEN_NO_ALIASES | OPEN_AUTOSTART, "connect_open",
                      error))
        return false;
    if (c->client->opened)
        return wire_error(error, LIBVIRT_ERROR_RPC, LIBVIRT_FROM_RPC,
                          "the connection is open already");
    if (!ours(a->name))
        return wire_error(error, E_NO_CONNECT, FROM_NONE,
                          "there is nothing here that '%s' could open; try '%s'", a->name,
                          manager.uri ? manager.uri : "qemu:///system");
    if (a->flags & OPEN_READ_ONLY)
        c->client->who.read_only = true;
    client_opened(c->client);
    return true;
}
RPC_PROC(connect_open, .number = 1, .flags = RPC_FAST | RPC_NO_OPEN, ARGS(open), .call = do_open);

static bool do_close(struct rpc_call *c, void *args, void *ret, GError **error)
{
    c->client->end_when_sent = true;
    return true;
}
RPC_PROC(connect_close, .number = 2, .flags = RPC_FAST | RPC_READONLY, .call = do_close);

static bool watch_closing(struct rpc_call *c, void *args, void *ret, GError **error)
{
    if (c->client->close_callback)
        return wire_error(error, LIBVIRT_ERROR_RPC, LIBVIRT_FROM_RPC,
                          "a close callback is registered already");
    c->client->close_callback = true;
    return true;
}
RPC_PROC(connect_register_close_callback, .number = 360, .flags = RPC_FAST | RPC_READONLY,
         .call = watch_closing);

static bool forget_closing(struct rpc_call *c, void *args, void *ret, GError **error)
{
    if (!c->client->close_callback)
        return wire_error(error, LIBVIRT_ERROR_RPC, LIBVIRT_FROM_RPC,
                          "no close callback is registered");
    c->client->close_callback = false;
    return true;
}
RPC_PROC(connect_unregister_close_callback, .number = 361, .flags = RPC_FAST | RPC_READONLY,
         .call = forget_closing);

/* ---- features ---- */

enum feature {
    FEATURE_MIGRATION_P2P = 4,
    FEATURE_MIGRATION_V3 = 6,
    FEATURE_CHANGE_PROTECTION = 7,
    FEATURE_FD_PASSING = 8,
    FEATURE_PARAM_STRINGS = 9,
    FEATURE_KEEPALIVE = 10,
    FEATURE_XML_MIGRATABLE = 11,
    FEATURE_MIGRATION_OFFLINE = 12,
    FEATURE_MIGRATION_PARAMS = 13,
    FEATURE_EVENT_CALLBACK = 14,
    FEATURE_CLOSE_CALLBACK = 15,
    FEATURE_NETWORK_UPDATE_ORDER = 16
};

static bool supports_feature(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const int32_t feature = ((struct a_int *)args)->v;
    int32_t *supported = &((struct r_int *)ret)->v;
    switch (feature) {
    case FEATURE_KEEPALIVE:
        c->client->knows_keepalive = true; /* whoever asks answers our pings */
        *supported = 1;
        return true;
    case FEATURE_FD_PASSING:
        *supported = c->client->kind <= CLIENT_UNIX_RO;
        return true;
    case FEATURE_MIGRATION_P2P:
    case FEATURE_MIGRATION_V3:
    case FEATURE_CHANGE_PROTECTION:
    case FEATURE_MIGRATION_OFFLINE:
    case FEATURE_MIGRATION_PARAMS:
    case FEATURE_PARAM_STRINGS:
    case FEATURE_XML_MIGRATABLE:
    case FEATURE_EVENT_CALLBACK:
    case FEATURE_CLOSE_CALLBACK:
    case FEATURE_NETWORK_UPDATE_ORDER:
        *supported = 1;
        return true;
    default: /* older ways of migration; and what may come */
        return true;
    }
}
RPC_PROC(connect_supports_feature, .number = 60, .flags = RPC_FAST | RPC_READONLY | RPC_NO_OPEN,
         ARGS(a_int), RET(r_int), .call = supports_feature);

/* ---- who we are ---- */

static bool get_type(struct rpc_call *c, void *args, void *ret, GError **error)
{
    ((struct r_text *)ret)->text = g_strdup("QEMU"); /* what clients choose their way by */
    return true;
}
RPC_PROC(connect_get_type, .number = 3, .flags = RPC_FAST | RPC_READONLY, RET(r_text),
         .call = get_type);

static bool get_version(struct rpc_call *c, void *args, void *ret, GError **error)
{
    ((struct r_u64 *)ret)->v = MANAGER_LIBVIRT_VERSION;
    return true;
}
RPC_PROC(connect_get_version, .number = 4, .flags = RPC_FAST | RPC_READONLY, RET(r_u64),
         .call = get_version);
RPC_PROC(connect_get_lib_version, .number = 157, .flags = RPC_FAST | RPC_READONLY, RET(r_u64),
         .call = get_version);

static bool get_uri(struct rpc_call *c, void *args, void *ret, GError **error)
{
    ((struct r_text *)ret)->text = g_strdup(manager.uri ? manager.uri : "qemu:///system");
    return true;
}
RPC_PROC(connect_get_uri, .number = 110, .flags = RPC_FAST | RPC_READONLY, RET(r_text),
         .call = get_uri);

static bool get_hostname(struct rpc_call *c, void *args, void *ret, GError **error)
{
    ((struct r_text *)ret)->text = node_hostname();
    return true;
}
RPC_PROC(connect_get_hostname, .number = 59, .flags = RPC_FAST | RPC_READONLY, RET(r_text),
         .call = get_hostname);

static bool is_secure(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct client *client = c->client;
    ((struct r_int *)ret)->v = client->kind <= CLIENT_UNIX_RO || client->io.tls || client->io.layer;
    return true;
}
RPC_PROC(connect_is_secure, .number = 149, .flags = RPC_FAST | RPC_READONLY, RET(r_int),
         .call = is_secure);

struct identity {
    struct xdr_array params;
    uint32_t flags;
};
static const struct xdr_row identity_xdr[] = {XDR_LIST(struct identity, params, wire_param, 16),
                                              XDR_F(UINT, struct identity, flags), XDR_DONE};

/* For a proxy that speaks for others. We believe our own eyes only. */
static bool set_identity(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return ruche_error(error, MANAGER_ERR_DENIED,
                       "a connection keeps the identity that it came with");
}
RPC_PROC(connect_set_identity, .number = 419, .flags = RPC_FAST, ARGS(identity),
         .call = set_identity);
