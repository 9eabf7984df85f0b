/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations on networks. */
#include "web/op.h"

#include "manager/network/network.h"
#include "manager/uuid.h"

#include <string.h>

static const char *const mode_words[] = {
    [NETWORK_NAT] = "nat",         [NETWORK_ROUTE] = "route", [NETWORK_OPEN] = "open",
    [NETWORK_ISOLATED] = "none",   [NETWORK_BRIDGE] = "bridge", [NETWORK_PRIVATE] = "private",
    [NETWORK_VEPA] = "vepa",       [NETWORK_PASSTHROUGH] = "passthrough", [NETWORK_DIRECT] = "bridge",
    [NETWORK_HOSTDEV] = "hostdev",
};

static JsonObject *describe(const struct network *n)
{
    char uuid[UUID_TEXT_BYTES];
    JsonObject *o = json_object_new();
    uuid_format(n->uuid, uuid);
    json_object_set_string_member(o, "name", n->name);
    json_object_set_string_member(o, "uuid", uuid);
    json_object_set_string_member(o, "mode", mode_words[n->mode]);
    json_object_set_boolean_member(o, "active", n->active);
    json_object_set_boolean_member(o, "autostart", n->autostart);
    json_object_set_boolean_member(o, "persistent", n->persistent);
    json_object_set_int_member(o, "ports", g_hash_table_size(n->ports));
    if (n->bridge)
        json_object_set_string_member(o, "bridge", n->bridge);
    JsonArray *warnings = json_array_new();
    for (unsigned i = 0; i < n->warnings->len; i++)
        json_array_add_string_element(warnings, n->warnings->pdata[i]);
    json_object_set_array_member(o, "warnings", warnings);
    return o;
}

static JsonNode *do_list(struct web_request *r, GError **error)
{
    if (!access_check(r->who, RIGHT_READ, "list networks", error))
        return NULL;
    g_autoptr(GPtrArray) networks = network_list(r->who, 0);
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < networks->len; i++)
        json_array_add_object_element(list, describe(networks->pdata[i]));
    JsonObject *o = json_object_new();
    json_object_set_array_member(o, "networks", list);
    return web_node(o);
}
WEB_OP(network_list, .method = "GET", .path = "/networks", .summary = "All networks", .quick = true, .call = do_list);

static JsonArray *describe_subnets(const struct network *n)
{
    g_autoptr(GPtrArray) subnets = network_subnets(n);
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < subnets->len; i++) {
        const struct network_subnet *s = subnets->pdata[i];
        JsonObject *o = json_object_new();
        JsonArray *ranges = json_array_new();
        for (char **r = s->ranges; *r; r += 2) {
            JsonObject *range = json_object_new();
            json_object_set_string_member(range, "start", r[0]);
            json_object_set_string_member(range, "end", r[1]);
            json_array_add_object_element(ranges, range);
        }
        json_object_set_string_member(o, "address", s->address);
        json_object_set_array_member(o, "ranges", ranges);
        json_array_add_object_element(list, o);
    }
    return list;
}

/* As the answer about one network has it. */
static JsonNode *whole(const struct network *n)
{
    JsonObject *o = describe(n);
    json_object_set_array_member(o, "subnets", describe_subnets(n));
    return web_node(o);
}

/* One operation on the network that the path names; the network as it is then. */
static JsonNode *on_network(struct web_request *r, bool (*fn)(struct web_request *r, struct network *n, GError **error),
                            GError **error)
{
    struct network *n = network_find_name(web_text(r, "name"), error);
    JsonNode *node = n && fn(r, n, error) ? whole(n) : NULL;
    network_unref(n);
    return node;
}

static bool get(struct web_request *r, struct network *n, GError **error)
{
    return access_check(r->who, RIGHT_READ, "read a network", error);
}

static bool start(struct web_request *r, struct network *n, GError **error)
{
    return network_start(r->who, n, error);
}

static bool stop(struct web_request *r, struct network *n, GError **error)
{
    return network_destroy(r->who, n, error);
}

static bool undefine(struct web_request *r, struct network *n, GError **error)
{
    return network_undefine(r->who, n, error);
}

static bool autostart(struct web_request *r, struct network *n, GError **error)
{
    return network_set_autostart(r->who, n, web_bool(r, "autostart"), error);
}

#define NETWORK_OP(ident, method_, path_, summary_, fn, ...)                                                       \
    static JsonNode *do_##fn(struct web_request *r, GError **error)                                                \
    {                                                                                                              \
        return on_network(r, fn, error);                                                                           \
    }                                                                                                              \
    WEB_OP(ident, .method = method_, .path = path_, .summary = summary_, .call = do_##fn, ##__VA_ARGS__)

static const struct web_field patch_fields[] = { { "autostart", WEB_BOOL, true, 0, 0, "start with the host" }, { 0 } };
NETWORK_OP(network_get, "GET", "/networks/{name}", "One network, and what of this host stands in its way", get);
NETWORK_OP(network_start, "POST", "/networks/{name}/start", "Starts a network", start);
NETWORK_OP(network_stop, "POST", "/networks/{name}/stop", "Stops a network", stop);
NETWORK_OP(network_undefine, "DELETE", "/networks/{name}", "Takes a network's definition away; one that runs goes on until it is stopped",
           undefine);
NETWORK_OP(network_set, "PATCH", "/networks/{name}", "Changes whether a network starts with the host", autostart, .fields = patch_fields);

static const struct web_field define_fields[] = {
    { "xml", WEB_STRING, true, 0, 0, "libvirt's network XML; or as a body of type application/xml" },
    { "start", WEB_BOOL, false, 0, 0, "start it, too" },
    { 0 },
};

static JsonNode *do_define(struct web_request *r, GError **error)
{
    struct network *n = network_define(r->who, web_text(r, "xml"), 0, error);
    JsonNode *node = n && (!web_bool(r, "start") || network_start(r->who, n, error)) ? whole(n) : NULL;
    network_unref(n);
    return node;
}
WEB_OP(network_define, .method = "POST", .path = "/networks", .summary = "Defines a network, or changes its definition",
       .fields = define_fields, .status = 201, .call = do_define);

static const struct web_field xml_fields[] = { { "inactive", WEB_BOOL, false, 0, 0, "as it will be started next" }, { 0 } };

static JsonNode *do_xml(struct web_request *r, GError **error)
{
    struct network *n = network_find_name(web_text(r, "name"), error);
    r->text_type = "application/xml";
    r->ret_text = n ? network_xml(r->who, n, web_bool(r, "inactive"), error) : NULL;
    network_unref(n);
    return NULL;
}
WEB_OP(network_xml, .method = "GET", .path = "/networks/{name}/xml", .summary = "A network's description as libvirt's XML",
       .fields = xml_fields, .call = do_xml);

static JsonObject *describe_lease(const struct network_lease *l)
{
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "ip", l->ip);
    json_object_set_int_member(o, "prefix", l->prefix);
    json_object_set_int_member(o, "expiry", l->expiry);
    if (l->mac)
        json_object_set_string_member(o, "mac", l->mac);
    if (l->hostname)
        json_object_set_string_member(o, "hostname", l->hostname);
    if (l->client_id)
        json_object_set_string_member(o, "client_id", l->client_id);
    return o;
}

static JsonNode *do_leases(struct web_request *r, GError **error)
{
    struct network *n = network_find_name(web_text(r, "name"), error);
    g_autoptr(GPtrArray) leases = n ? network_leases(r->who, n, NULL, error) : NULL;
    network_unref(n);
    if (!leases)
        return NULL;
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < leases->len; i++)
        json_array_add_object_element(list, describe_lease(leases->pdata[i]));
    JsonObject *o = json_object_new();
    json_object_set_array_member(o, "leases", list);
    return web_node(o);
}
WEB_OP(network_leases, .method = "GET", .path = "/networks/{name}/leases", .summary = "Addresses that a network's DHCP server gave",
       .call = do_leases);
