/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A port's limits as parameters, read and changed while its machine runs.
 *
 * Spec      virNetworkPortGetParameters, virNetworkPortSetParameters at 9.0.0.
 * Thread    The loop thread, in a task.
 */
#include "manager/network/network_priv.h"
#include "manager/network/openvswitch.h"

#include <string.h>

static const struct param_rule rules[] = {
    {"inbound.average", PARAM_UINT},  {"inbound.peak", PARAM_UINT},
    {"inbound.floor", PARAM_UINT},    {"inbound.burst", PARAM_UINT},
    {"outbound.average", PARAM_UINT}, {"outbound.peak", PARAM_UINT},
    {"outbound.burst", PARAM_UINT},   {0},
};

static char *path_of(const char *name)
{
    const char *dot = strchr(name, '.');
    return g_strdup_printf("bandwidth/%.*s@%s", (int)(dot - name), name, dot + 1);
}

bool network_port_get_params(const struct caller *who, struct network *n, const char *port,
                             struct param_list *ret, GError **error)
{
    struct network_port *p = network_port_find(n, port, error);
    if (!p || !access_check(who, RIGHT_READ, "read a port's limits", error))
        return false;
    const struct xml_node *root = p->doc;
    for (const struct param_rule *r = rules; r->name; r++) {
        g_autofree char *path = path_of(r->name);
        param_uint(ret, r->name, (unsigned)xml_get_u64(root, path, 0));
    }
    return true;
}

/* 0 takes a limit away; a direction without a rate is none. */
static void set_params(struct xml_node *root, const struct param_list *l)
{
    static const char *const directions[] = {"bandwidth/inbound", "bandwidth/outbound"};
    if (!xml_find(root, "bandwidth")) /* its place in the order of elements */
        xml_insert_after(xml_find(root, xml_find(root, "virtualport") ? "virtualport" : "mac"),
                         xml_new("bandwidth"));
    for (unsigned i = 0; i < l->count; i++) {
        g_autofree char *path = path_of(l->rows[i].name);
        if (l->rows[i].u)
            xml_set_f(root, path, "%u", (unsigned)l->rows[i].u);
        else
            xml_remove(root, path);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(directions); i++) {
        const struct xml_node *d = xml_find(root, directions[i]);
        if (d && !xml_get(d, "@average") && !xml_get(d, "@floor"))
            xml_remove(root, directions[i]);
    }
    if (!xml_find(root, "bandwidth/inbound") && !xml_find(root, "bandwidth/outbound"))
        xml_remove(root, "bandwidth");
}

/* The tap has what the port says. Open vSwitch is waited for. */
static bool apply(const struct network *n, const struct network_port *p, GError **error)
{
    auto_network_plug plug = {0};
    if (!p->ifname || !network_port_plug(n, p, &plug))
        return true;
    const struct ovs_port port = {.bridge = plug.bridge,
                                  .ifname = p->ifname,
                                  .owner = p->owner,
                                  .mac = p->mac,
                                  .interface_id = plug.openvswitch,
                                  .isolated = plug.isolated,
                                  .vlan = plug.vlan,
                                  .bandwidth = plug.bandwidth};
    if (plug.openvswitch)
        return ovs_change(&port, error);
    return network_qos(p->ifname, plug.bandwidth, plug.dev != NULL, error);
}

struct change {
    const char *port;
    const struct param_list *list;
};

static bool apply_all(const struct network *n, const struct xml_node *root,
                      const struct network_port *p, GError **error)
{
    const struct xml_node *bandwidth = xml_find(root, "bandwidth");
    return apply(n, p, error) && (!bandwidth || !network_mode_has_own_bridge(n->mode) ||
                                  network_floors_apply(n, bandwidth, error));
}

/* By `fresh`, or as it was. The machine can let go of the port meanwhile. */
static bool change(struct network *n, const struct xml_node *root, struct network_port *p,
                   struct xml_node *fresh, GError **error)
{
    auto_xml *before = p->doc;
    p->doc = fresh;
    bool ok = apply_all(n, root, p, error);
    if (g_hash_table_lookup(n->ports, p->uuid) != p)
        return ok && ruche_error(error, RUCHE_ERR_NOT_FOUND,
                                 "network '%s' has no port '%s' any more", n->name, p->uuid);
    if (ok)
        return network_port_save(n, p, error);
    xml_free(p->doc);
    p->doc = g_steal_pointer(&before);
    apply_all(n, root, p, NULL);
    return false;
}

static bool do_change(struct network *n, void *opaque, GError **error)
{
    const struct change *c = opaque;
    struct network_port *p = network_port_find(n, c->port, error);
    auto_network_def d = {0};
    if (!p || !network_def_parse(&d, network_text(n), NETWORK_DEF_LIVE, error))
        return false;
    auto_xml *fresh = xml_copy(p->doc);
    set_params(fresh, c->list);
    if (!network_floor_check(n, d.root, fresh, p, error))
        return false;
    network_port_ref(p);
    bool ok = change(n, d.root, p, g_steal_pointer(&fresh), error);
    network_port_unref(p);
    return ok;
}

bool network_port_set_params(const struct caller *who, struct network *n, const char *port,
                             const struct param_list *l, GError **error)
{
    struct change c = {port, l};
    return param_check(l, rules, error) &&
           network_operation(who, n, RIGHT_HOST, "set a port's limits of", do_change, &c, error);
}
