/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rows of Open vSwitch's tables; see openvswitch_row.h. */
#include "manager/network/openvswitch_row.h"

#include <string.h>

#define VLANS_MAX 4096

void ovs_add_select(JsonArray *ops, const char *table, const char *name, const char *owner)
{
    static const char *const columns[] = {"_uuid", NULL};
    JsonObject *op = ovsdb_op(ops, "select", table);
    ovsdb_op_where(op, "name", "==", ovsdb_text(name));
    if (owner)
        ovsdb_op_where(op, "external_ids", "includes",
                       ovsdb_map((const char *const[]){"vm-id", owner, NULL}));
    ovsdb_op_columns(op, columns);
}

/* The switch is told that there is something new. */
static void add_change_number(JsonArray *ops)
{
    ovsdb_op_mutate(ovsdb_op(ops, "mutate", "Open_vSwitch"), "next_cfg",
                    "+=", json_node_init_int(json_node_alloc(), 1));
}

/* Rows that nothing refers to any more the database takes away by itself. */
void ovs_add_removal(JsonArray *ops, const char *port_uuid)
{
    JsonObject *op = ovsdb_op(ops, "mutate", "Bridge");
    ovsdb_op_where(op, "ports", "includes", ovsdb_uuid(port_uuid));
    ovsdb_op_mutate(op, "ports", "delete", ovsdb_uuid(port_uuid));
    add_change_number(ops);
}

static JsonNode *limit_ids(const char *ifname, const char *owner)
{
    return owner ? ovsdb_map((const char *const[]){"vm-id", owner, "ifname", ifname, NULL})
                 : ovsdb_map((const char *const[]){"ifname", ifname, NULL});
}

void ovs_add_no_limits(JsonArray *ops, const char *ifname, const char *owner)
{
    JsonObject *op = ovsdb_op(ops, "update", "Port");
    ovsdb_op_where(op, "name", "==", ovsdb_text(ifname));
    ovsdb_op_where(op, "external_ids", "includes", limit_ids(ifname, owner));
    ovsdb_op_set(op, "qos", ovsdb_set(NULL, 0));
    ovsdb_op_where(ovsdb_op(ops, "delete", "QoS"), "external_ids", "includes",
                   limit_ids(ifname, owner));
    ovsdb_op_where(ovsdb_op(ops, "delete", "Queue"), "external_ids", "includes",
                   limit_ids(ifname, owner));
}

/* ---- VLANs ---- */

static int64_t tag_id(const struct xml_node *tag)
{
    return (int64_t)xml_get_u64(tag, "@id", 0);
}

/* One tag without 'trunk' is an access port; a trunk may have a native VLAN besides. */
static void set_vlans(JsonObject *op, const struct xml_node *vlan)
{
    int64_t trunks[VLANS_MAX], own = -1;
    unsigned count = 0;
    const char *mode = NULL;
    bool trunk = vlan && xml_is(vlan, "@trunk", "yes");
    for (const struct xml_node *t = vlan ? xml_find(vlan, "tag") : NULL; t; t = xml_next(t)) {
        const char *native = xml_get(t, "@nativeMode");
        if (native)
            mode = !strcmp(native, "tagged") ? "native-tagged" : "native-untagged";
        if (native || (!trunk && own < 0))
            own = tag_id(t);
        if (trunk && count < VLANS_MAX)
            trunks[count++] = tag_id(t);
    }
    ovsdb_op_set(op, "tag", ovsdb_integers(&own, own >= 0));
    ovsdb_op_set(op, "trunks", ovsdb_integers(trunks, count));
    ovsdb_op_set(op, "vlan_mode", mode ? ovsdb_text(mode) : ovsdb_set(NULL, 0));
}

/* ---- limits ---- */

static uint64_t rate(const struct xml_node *bandwidth, const char *path, unsigned factor)
{
    return bandwidth ? xml_get_u64(bandwidth, path, 0) * factor : 0;
}

/* What the machine sends: kbit/s and kbit. */
static void set_policing(JsonObject *op, const struct xml_node *bandwidth)
{
    ovsdb_op_set(
        op, "ingress_policing_rate",
        json_node_init_int(json_node_alloc(), (gint64)rate(bandwidth, "outbound@average", 8)));
    ovsdb_op_set(
        op, "ingress_policing_burst",
        json_node_init_int(json_node_alloc(), (gint64)rate(bandwidth, "outbound@burst", 8)));
}

static void set_rates(JsonObject *op, const struct xml_node *bandwidth)
{
    uint64_t average = rate(bandwidth, "inbound@average", 8000),
             peak = MAX(rate(bandwidth, "inbound@peak", 8000), average);
    uint64_t burst = rate(bandwidth, "inbound@burst", 8192);
    g_autofree char *least = g_strdup_printf("%" G_GUINT64_FORMAT, average),
                    *most = g_strdup_printf("%" G_GUINT64_FORMAT, peak);
    g_autofree char *extra = burst ? g_strdup_printf("%" G_GUINT64_FORMAT, burst) : g_strdup("");
    ovsdb_op_set(op, "other_config",
                 ovsdb_map((const char *const[]){"min-rate", least, "max-rate", most, "burst",
                                                 extra, NULL}));
}

/* What the machine receives: bit/s and bit, in a queue of its own. */
static void set_limits(JsonArray *ops, JsonObject *port, const struct ovs_port *p)
{
    if (!rate(p->bandwidth, "inbound@average", 1))
        return;
    JsonObject *queue = ovsdb_op(ops, "insert", "Queue"), *qos = ovsdb_op(ops, "insert", "QoS");
    JsonArray *pair = json_array_new(), *pairs = json_array_new(), *map = json_array_new();
    JsonNode *queues = json_node_new(JSON_NODE_ARRAY);
    ovsdb_op_name(queue, "queue");
    ovsdb_op_name(qos, "limits");
    ovsdb_op_set(qos, "type", ovsdb_text("linux-htb"));
    set_rates(queue, p->bandwidth);
    set_rates(qos, p->bandwidth);
    ovsdb_op_set(queue, "external_ids", limit_ids(p->ifname, p->owner));
    ovsdb_op_set(qos, "external_ids", limit_ids(p->ifname, p->owner));
    json_array_add_int_element(pair, 0);
    json_array_add_element(pair, ovsdb_named("queue"));
    json_array_add_array_element(pairs, pair);
    json_array_add_string_element(map, "map");
    json_array_add_array_element(map, pairs);
    json_node_take_array(queues, map);
    ovsdb_op_set(qos, "queues", queues);
    ovsdb_op_set(port, "qos", ovsdb_named("limits"));
    ovsdb_op_set(port, "external_ids", limit_ids(p->ifname, p->owner));
}

static JsonNode *yes_no(bool yes)
{
    return json_node_init_boolean(json_node_alloc(), yes);
}

/* ---- ports ---- */

void ovs_add_port(JsonArray *ops, const struct ovs_port *p, const char *bridge_uuid)
{
    JsonObject *interface = ovsdb_op(ops, "insert", "Interface");
    const char *const ids[] = {"attached-mac",
                               p->mac,
                               "iface-id",
                               p->interface_id,
                               "vm-id",
                               p->owner,
                               "iface-status",
                               "active",
                               "port-profile",
                               p->profile ? p->profile : "",
                               NULL};
    ovsdb_op_name(interface, "interface");
    ovsdb_op_set(interface, "name", ovsdb_text(p->ifname));
    ovsdb_op_set(interface, "external_ids", ovsdb_map(ids));
    set_policing(interface, p->bandwidth);
    JsonObject *port = ovsdb_op(ops, "insert", "Port");
    ovsdb_op_name(port, "port");
    ovsdb_op_set(port, "name", ovsdb_text(p->ifname));
    ovsdb_op_set(port, "interfaces", ovsdb_named("interface"));
    ovsdb_op_set(port, "protected", yes_no(p->isolated));
    set_vlans(port, p->vlan);
    set_limits(ops, port, p);
    JsonObject *bridge = ovsdb_op(ops, "mutate", "Bridge");
    ovsdb_op_where(bridge, "_uuid", "==", ovsdb_uuid(bridge_uuid));
    ovsdb_op_mutate(bridge, "ports", "insert", ovsdb_named("port"));
    add_change_number(ops);
}

unsigned ovs_add_change(JsonArray *ops, const struct ovs_port *p)
{
    JsonObject *interface = ovsdb_op(ops, "update", "Interface");
    ovsdb_op_where(interface, "name", "==", ovsdb_text(p->ifname));
    set_policing(interface, p->bandwidth);
    unsigned index = json_array_get_length(ops);
    JsonObject *port = ovsdb_op(ops, "update", "Port");
    ovsdb_op_where(port, "name", "==", ovsdb_text(p->ifname));
    ovsdb_op_set(port, "protected", yes_no(p->isolated));
    set_vlans(port, p->vlan);
    set_limits(ops, port, p);
    add_change_number(ops);
    static const char *const columns[] = {"next_cfg", NULL};
    ovsdb_op_columns(ovsdb_op(ops, "select", "Open_vSwitch"), columns);
    return index;
}

bool ovs_add_wait_change(JsonArray *ops, JsonObject *row, int timeout_ms)
{
    auto_ovsdb_datum d = {0};
    if (!row || ovsdb_row_get(row, "next_cfg", &d) || d.count != 1 ||
        d.keys[0].type != OVSDB_INTEGER)
        return false;
    JsonObject *op = ovsdb_op(ops, "wait", "Open_vSwitch");
    ovsdb_op_where(op, "cur_cfg", "<", ovsdb_integers(&d.keys[0].integer, 1));
    ovsdb_op_until_none(op, timeout_ms);
    return true;
}

void ovs_add_wait(JsonArray *ops, const char *ifname, int timeout_ms)
{
    static const char *const columns[] = {"error", NULL};
    JsonObject *op = ovsdb_op(ops, "wait", "Interface");
    ovsdb_op_where(op, "name", "==", ovsdb_text(ifname));
    ovsdb_op_until_not(op, "ofport", ovsdb_set(NULL, 0), timeout_ms);
    op = ovsdb_op(ops, "select", "Interface");
    ovsdb_op_where(op, "name", "==", ovsdb_text(ifname));
    ovsdb_op_columns(op, columns);
}
