/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Networks. Thread: the loop thread. */
#include "libvirt/network_object.h"
#include "libvirt/params.h"

enum { NETWORKS_INACTIVE = 1, NETWORKS_ACTIVE = 2 }; /* of virConnectListAllNetworksFlags */

/* ---- finding and listing ---- */

static bool answer(struct network *n, void *ret)
{
    if (n)
        network_fill(n, &((struct r_named *)ret)->obj);
    network_unref(n);
    return n != NULL;
}

static bool by_name(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return answer(network_find_name(((struct a_name *)args)->name, error), ret);
}
RPC_PROC(network_lookup_by_name, .number = 46, .flags = OBJECT_QUERY, ARGS(a_name), RET(r_named),
         .call = by_name);

static bool by_uuid(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return answer(network_find_uuid(((struct a_uuid *)args)->uuid, error), ret);
}
RPC_PROC(network_lookup_by_uuid, .number = 47, .flags = OBJECT_QUERY, ARGS(a_uuid), RET(r_named),
         .call = by_uuid);

struct networks {
    struct xdr_array networks;
    uint32_t count;
};
static const struct xdr_row networks_xdr[] = {
    XDR_LIST(struct networks, networks, wire_named, LIMIT_OBJECTS),
    XDR_F(UINT, struct networks, count), XDR_DONE};

static bool list_all(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_all *a = args;
    struct networks *r = ret;
    g_autoptr(GPtrArray) list = network_list(c->who, a->flags);
    r->count = list->len;
    if (!a->need_results)
        return true;
    r->networks.items = g_new0(struct wire_named, list->len + 1);
    for (; r->networks.count < list->len; r->networks.count++)
        network_fill(list->pdata[r->networks.count],
                     (struct wire_named *)r->networks.items + r->networks.count);
    return true;
}
RPC_PROC(connect_list_all_networks, .number = 283, .flags = OBJECT_QUERY, ARGS(a_all),
         RET(networks), .call = list_all);

static bool names(struct rpc_call *c, unsigned list_flags, int32_t room, struct r_names *ret,
                  GError **error)
{
    if (!object_room(room, LIMIT_OBJECTS, "list of networks", error))
        return false;
    g_autoptr(GPtrArray) list = network_list(c->who, list_flags);
    struct wire_string *s = g_new0(struct wire_string, list->len + 1);
    for (; ret->names.count < MIN(list->len, (guint)room); ret->names.count++)
        s[ret->names.count].s = g_strdup(((struct network *)list->pdata[ret->names.count])->name);
    ret->names.items = s;
    return true;
}

static bool count(struct rpc_call *c, unsigned list_flags, void *ret)
{
    g_autoptr(GPtrArray) list = network_list(c->who, list_flags);
    return object_int(ret, (int32_t)list->len);
}

static bool list_active(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return names(c, NETWORKS_ACTIVE, ((struct a_int *)args)->v, ret, error);
}
RPC_PROC(connect_list_networks, .number = 38, .flags = OBJECT_QUERY, ARGS(a_int), RET(r_names),
         .call = list_active);

static bool list_defined(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return names(c, NETWORKS_INACTIVE, ((struct a_int *)args)->v, ret, error);
}
RPC_PROC(connect_list_defined_networks, .number = 36, .flags = OBJECT_QUERY, ARGS(a_int),
         RET(r_names), .call = list_defined);

static bool count_active(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return count(c, NETWORKS_ACTIVE, ret);
}
RPC_PROC(connect_num_of_networks, .number = 52, .flags = OBJECT_QUERY, RET(r_int),
         .call = count_active);

static bool count_defined(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return count(c, NETWORKS_INACTIVE, ret);
}
RPC_PROC(connect_num_of_defined_networks, .number = 50, .flags = OBJECT_QUERY, RET(r_int),
         .call = count_defined);

/* ---- life ---- */

static bool define(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return answer(network_define(c->who, ((struct a_name *)args)->name, 0, error), ret);
}
RPC_PROC(network_define_xml, .number = 41, ARGS(a_name), RET(r_named), .call = define);

static bool define_flags(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_name_flags *a = args;
    return answer(network_define(c->who, a->name, a->flags, error), ret);
}
RPC_PROC(network_define_xml_flags, .number = 432, ARGS(a_name_flags), RET(r_named),
         .call = define_flags);

static bool create_xml(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return answer(network_create_xml(c->who, ((struct a_name *)args)->name, 0, error), ret);
}
RPC_PROC(network_create_xml, .number = 40, ARGS(a_name), RET(r_named), .call = create_xml);

static bool create_xml_flags(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_name_flags *a = args;
    return answer(network_create_xml(c->who, a->name, a->flags, error), ret);
}
RPC_PROC(network_create_xml_flags, .number = 437, ARGS(a_name_flags), RET(r_named),
         .call = create_xml_flags);

NETWORK_PROC(network_create, 39, 0, a_named, network_start(c->who, n, error));
NETWORK_PROC(network_destroy, 42, 0, a_named, network_destroy(c->who, n, error));
NETWORK_PROC(network_undefine, 49, 0, a_named, network_undefine(c->who, n, error));
NETWORK_PROC(network_get_xml_desc, 43, OBJECT_QUERY, a_named_flags,
             object_text(ret, network_xml(c->who, n, a->flags, error)), RET(r_text));
NETWORK_PROC(network_get_bridge_name, 45, OBJECT_QUERY, a_named,
             object_text(ret, network_bridge_name(c->who, n, error)), RET(r_text));
NETWORK_PROC(network_get_autostart, 44, OBJECT_QUERY, a_named, object_int(ret, n->autostart),
             RET(r_int));
NETWORK_PROC(network_set_autostart, 48, 0, a_named_int,
             network_set_autostart(c->who, n, a->v != 0, error));
NETWORK_PROC(network_is_active, 152, OBJECT_QUERY, a_named, object_int(ret, n->active), RET(r_int));
NETWORK_PROC(network_is_persistent, 153, OBJECT_QUERY, a_named, object_int(ret, n->persistent),
             RET(r_int));

struct a_update {
    struct wire_named obj;
    uint32_t command, section;
    int32_t index;
    char *xml;
    uint32_t flags;
};
static const struct xdr_row a_update_xdr[] = {XDR_SUB(struct a_update, obj, wire_named_xdr),
                                              XDR_F(UINT, struct a_update, command),
                                              XDR_F(UINT, struct a_update, section),
                                              XDR_F(INT, struct a_update, index),
                                              XDR_F(STRING, struct a_update, xml),
                                              XDR_F(UINT, struct a_update, flags),
                                              XDR_DONE};
NETWORK_PROC(network_update, 291, 0, a_update,
             network_update(c->who, n, a->command, a->section, a->index, a->xml, a->flags, error));

/* ---- leases ---- */

struct wire_lease {
    char *interface;
    int64_t expiry;
    int32_t type;
    char *mac, *iaid, *ip;
    uint32_t prefix;
    char *hostname, *client_id;
};
static const struct xdr_row wire_lease_xdr[] = {XDR_F(STRING, struct wire_lease, interface),
                                                XDR_F(HYPER, struct wire_lease, expiry),
                                                XDR_F(INT, struct wire_lease, type),
                                                XDR_F(STRING_OPT, struct wire_lease, mac),
                                                XDR_F(STRING_OPT, struct wire_lease, iaid),
                                                XDR_F(STRING, struct wire_lease, ip),
                                                XDR_F(UINT, struct wire_lease, prefix),
                                                XDR_F(STRING_OPT, struct wire_lease, hostname),
                                                XDR_F(STRING_OPT, struct wire_lease, client_id),
                                                XDR_DONE};
struct a_leases {
    struct wire_named obj;
    char *mac;
    int32_t need_results;
    uint32_t flags;
};
static const struct xdr_row a_leases_xdr[] = {
    XDR_SUB(struct a_leases, obj, wire_named_xdr), XDR_F(STRING_OPT, struct a_leases, mac),
    XDR_F(INT, struct a_leases, need_results), XDR_F(UINT, struct a_leases, flags), XDR_DONE};
struct r_leases {
    struct xdr_array leases;
    uint32_t count;
};
static const struct xdr_row r_leases_xdr[] = {
    XDR_LIST(struct r_leases, leases, wire_lease, LIMIT_OBJECTS),
    XDR_F(UINT, struct r_leases, count), XDR_DONE};

static bool leases(struct rpc_call *c, struct network *n, const struct a_leases *a,
                   struct r_leases *ret, GError **error)
{
    if (!object_flags(a->flags, 0, "network_get_dhcp_leases", error))
        return false;
    g_autoptr(GPtrArray) list = network_leases(c->who, n, a->mac, error);
    if (!list)
        return false;
    ret->count = MIN(list->len, LIMIT_OBJECTS);
    if (!a->need_results)
        return true;
    struct wire_lease *w = g_new0(struct wire_lease, list->len + 1);
    for (unsigned i = 0; i < ret->count; i++) {
        const struct network_lease *l = list->pdata[i];
        w[i] = (struct wire_lease){.interface = g_strdup(n->bridge),
                                   .expiry = l->expiry,
                                   .type = l->v6,
                                   .mac = g_strdup(l->mac),
                                   .iaid = g_strdup(l->iaid),
                                   .ip = g_strdup(l->ip),
                                   .prefix = l->prefix,
                                   .hostname = g_strdup(l->hostname),
                                   .client_id = g_strdup(l->client_id)};
    }
    ret->leases = (struct xdr_array){ret->count, w};
    return true;
}
NETWORK_PROC(network_get_dhcp_leases, 341, RPC_READONLY, a_leases, leases(c, n, a, ret, error),
             RET(r_leases));

/* ---- ports ---- */

struct wire_port {
    struct wire_named net;
    uint8_t uuid[16];
};
static const struct xdr_row wire_port_xdr[] = {
    XDR_SUB(struct wire_port, net, wire_named_xdr),
    XDR_F(OPAQUE_FIXED, struct wire_port, uuid, .max = 16), XDR_DONE};
struct a_port {
    struct wire_named obj; /* a port begins with its network */
    uint8_t uuid[16];
    uint32_t flags;
};
static const struct xdr_row a_port_xdr[] = {XDR_SUB(struct a_port, obj, wire_named_xdr),
                                            XDR_F(OPAQUE_FIXED, struct a_port, uuid, .max = 16),
                                            XDR_F(UINT, struct a_port, flags), XDR_DONE};
/* The same without flags. */
static const struct xdr_row a_port_lookup_xdr[] = {
    XDR_SUB(struct a_port, obj, wire_named_xdr),
    XDR_F(OPAQUE_FIXED, struct a_port, uuid, .max = 16), XDR_DONE};
struct r_port {
    struct wire_port port;
};
static const struct xdr_row r_port_xdr[] = {XDR_SUB(struct r_port, port, wire_port_xdr), XDR_DONE};
struct a_ports {
    struct wire_named obj;
    int32_t need_results;
    uint32_t flags;
};
static const struct xdr_row a_ports_xdr[] = {XDR_SUB(struct a_ports, obj, wire_named_xdr),
                                             XDR_F(INT, struct a_ports, need_results),
                                             XDR_F(UINT, struct a_ports, flags), XDR_DONE};
struct r_ports {
    struct xdr_array ports;
    uint32_t count;
};
static const struct xdr_row r_ports_xdr[] = {
    XDR_LIST(struct r_ports, ports, wire_port, LIMIT_OBJECTS), XDR_F(UINT, struct r_ports, count),
    XDR_DONE};
struct a_port_xml {
    struct wire_named obj;
    char *xml;
    uint32_t flags;
};
static const struct xdr_row a_port_xml_xdr[] = {XDR_SUB(struct a_port_xml, obj, wire_named_xdr),
                                                XDR_F(STRING, struct a_port_xml, xml),
                                                XDR_F(UINT, struct a_port_xml, flags), XDR_DONE};

static bool fill_port(const struct network *n, const char *port, struct wire_port *ret)
{
    network_fill(n, &ret->net);
    return uuid_parse(port, ret->uuid);
}

static bool list_ports(struct rpc_call *c, struct network *n, const struct a_ports *a,
                       struct r_ports *ret)
{
    g_autoptr(GPtrArray) list = network_port_list(c->who, n);
    ret->count = list->len;
    if (!a->need_results)
        return true;
    ret->ports.items = g_new0(struct wire_port, list->len + 1);
    for (; ret->ports.count < list->len; ret->ports.count++)
        fill_port(n, list->pdata[ret->ports.count],
                  (struct wire_port *)ret->ports.items + ret->ports.count);
    return true;
}
NETWORK_PROC(network_list_all_ports, 404, OBJECT_QUERY, a_ports, list_ports(c, n, a, ret),
             RET(r_ports));

static char *port_xml(struct rpc_call *c, struct network *n, const uint8_t *uuid, GError **error)
{
    char text[UUID_TEXT_BYTES];
    uuid_format(uuid, text);
    return network_port_xml(c->who, n, text, error);
}

static bool lookup_port(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_port *a = args;
    struct r_port *r = ret;
    auto_network *n = network_of(&a->obj, error);
    g_autofree char *xml = n ? port_xml(c, n, a->uuid, error) : NULL;
    if (!xml)
        return false;
    network_fill(n, &r->port.net);
    memcpy(r->port.uuid, a->uuid, sizeof(r->port.uuid));
    return true;
}
RPC_PROC(network_port_lookup_by_uuid, .number = 405, .flags = OBJECT_QUERY,
         .args = a_port_lookup_xdr, .args_size = sizeof(struct a_port), RET(r_port),
         .call = lookup_port);

static bool create_port(struct rpc_call *c, struct network *n, const struct a_port_xml *a,
                        struct r_port *ret, GError **error)
{
    g_autofree char *port = network_port_create(c->who, n, a->xml, a->flags, error);
    return port && fill_port(n, port, &ret->port);
}
NETWORK_PROC(network_port_create_xml, 406, 0, a_port_xml, create_port(c, n, a, ret, error),
             RET(r_port));

NETWORK_PROC(network_port_get_xml_desc, 409, OBJECT_QUERY, a_port,
             object_text(ret, port_xml(c, n, a->uuid, error)), RET(r_text));

static bool delete_port(struct rpc_call *c, struct network *n, const struct a_port *a,
                        GError **error)
{
    char text[UUID_TEXT_BYTES];
    uuid_format(a->uuid, text);
    return network_port_delete(c->who, n, text, error);
}
NETWORK_PROC(network_port_delete, 410, 0, a_port, delete_port(c, n, a, error));

#define LIMIT_PORT_PARAMS 16
struct a_port_get {
    struct wire_named obj;
    uint8_t uuid[16];
    int32_t room;
    uint32_t flags;
};
static const struct xdr_row a_port_get_xdr[] = {
    XDR_SUB(struct a_port_get, obj, wire_named_xdr),
    XDR_F(OPAQUE_FIXED, struct a_port_get, uuid, .max = 16), XDR_F(INT, struct a_port_get, room),
    XDR_F(UINT, struct a_port_get, flags), XDR_DONE};
struct a_port_set {
    struct wire_named obj;
    uint8_t uuid[16];
    struct xdr_array params;
    uint32_t flags;
};
static const struct xdr_row a_port_set_xdr[] = {
    XDR_SUB(struct a_port_set, obj, wire_named_xdr),
    XDR_F(OPAQUE_FIXED, struct a_port_set, uuid, .max = 16),
    XDR_LIST(struct a_port_set, params, wire_param, LIMIT_PORT_PARAMS),
    XDR_F(UINT, struct a_port_set, flags), XDR_DONE};

static bool get_port(struct rpc_call *c, struct network *n, const struct a_port_get *a,
                     struct r_params_count *ret, GError **error)
{
    char text[UUID_TEXT_BYTES];
    struct param_list l = {0};
    uuid_format(a->uuid, text);
    if (!network_port_get_params(c->who, n, text, &l, error))
        return false;
    /* The call makes room for all by itself; clients leave `room` as their stack had it. */
    params_answer(&l, INT32_MAX, &ret->params, &ret->count);
    return true;
}
NETWORK_PROC(network_port_get_parameters, 407, OBJECT_QUERY, a_port_get,
             get_port(c, n, a, ret, error), RET(r_params_count));

static bool set_port(struct rpc_call *c, struct network *n, const struct a_port_set *a,
                     GError **error)
{
    char text[UUID_TEXT_BYTES];
    struct param_list l = {0};
    uuid_format(a->uuid, text);
    bool ok = params_from_wire(&a->params, &l, error) &&
              network_port_set_params(c->who, n, text, &l, error);
    param_list_done(&l);
    return ok;
}
NETWORK_PROC(network_port_set_parameters, 408, 0, a_port_set, set_port(c, n, a, error));
