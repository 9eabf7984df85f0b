/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which elements a network's forward mode takes, and what its VLANs, rates and ports can be.
 *
 * Spec      libvirt's formatnetwork at 9.0.0.
 */
#include "manager/network/network_priv.h"

#include <string.h>

#define REFUSE NETWORK_REFUSE

static unsigned count(const struct xml_node *n, const char *path)
{
    unsigned c = 0;
    FOREACH_NAMED (e, n, path)
        c++;
    return c;
}

static bool is_macvtap(const struct network_def *d)
{
    return d->mode >= NETWORK_PRIVATE && d->mode <= NETWORK_DIRECT;
}

/* ---- <forward> ---- */

static bool check_routed(const struct network_def *d, GError **error)
{
    const char *mode = network_mode_word(d->mode);
    if ((d->mode == NETWORK_NAT || d->mode == NETWORK_ROUTE) && !d->subnet_count)
        return REFUSE(d, error, "forward mode '%s' needs an <ip> to forward from", mode);
    if (count(d->root, "forward/interface") > 1)
        return REFUSE(d, error, "forward mode '%s' takes one <interface>", mode);
    if (xml_find(d->root, "forward/pf"))
        return REFUSE(d, error, "forward/pf is not for forward mode '%s'", mode);
    if (d->mode == NETWORK_OPEN &&
        (xml_get(d->root, "forward@dev") || xml_find(d->root, "forward/interface")))
        return REFUSE(d, error,
                      "forward mode 'open' takes no dev: it has no rules that could name it");
    return true;
}

/* Where machines' ends come from: one kind of them. */
static bool check_pool(const struct network_def *d, GError **error)
{
    bool functions = d->mode == NETWORK_HOSTDEV;
    bool interface = xml_find(d->root, "forward/interface") || xml_get(d->root, "forward@dev");
    if (functions && interface)
        return REFUSE(d, error,
                      "forward mode 'hostdev' takes PCI functions, by <address> or <pf>, and no "
                      "<interface>");
    if (xml_find(d->root, "forward/pf") && (interface || xml_find(d->root, "forward/address")))
        return REFUSE(d, error,
                      "forward/pf stands for all of its virtual functions: neither an "
                      "<interface> nor an <address> goes with it");
    return true;
}

/* Modes that lend what the host has. */
static bool check_lent(const struct network_def *d, GError **error)
{
    static const char *const ours[] = {"ip", "dns", "domain", "mac", "route", NULL};
    const char *mode = network_mode_word(d->mode);
    bool has_bridge = d->bridge != NULL;
    for (const char *const *e = ours; *e; e++)
        if (xml_find(d->root, *e))
            return REFUSE(
                d, error,
                "element <%s> is not for forward mode '%s', which has no bridge of its own", *e,
                mode);
    if (has_bridge && d->mode != NETWORK_BRIDGE)
        return REFUSE(d, error, "a bridge is not for forward mode '%s'", mode);
    if (xml_get(d->root, "bridge@stp") || xml_get(d->root, "bridge@delay") ||
        xml_get(d->root, "bridge@zone"))
        return REFUSE(d, error, "bridge stp, delay and zone are not for forward mode '%s'", mode);
    if (has_bridge && (xml_find(d->root, "forward/interface") || xml_find(d->root, "forward/pf") ||
                       xml_get(d->root, "forward@dev")))
        return REFUSE(d, error, "forward mode 'bridge' takes a bridge or a dev, not both");
    if (xml_find(d->root, "mtu") && d->mode != NETWORK_BRIDGE)
        return REFUSE(d, error, "mtu is not for forward mode '%s'", mode);
    return check_pool(d, error);
}

static bool check_nat(const struct network_def *d, GError **error)
{
    struct net_addr a, b;
    const struct xml_node *address = xml_find(d->root, "forward/nat/address"),
                          *port = xml_find(d->root, "forward/nat/port");
    if (xml_find(d->root, "forward/nat") && d->mode != NETWORK_NAT)
        return REFUSE(d, error, "forward/nat is not for forward mode '%s'",
                      network_mode_word(d->mode));
    if (address && net_addr_parse(xml_get(address, "@start"), &a) &&
        net_addr_parse(xml_get(address, "@end"), &b) && net_addr_cmp(&a, &b) > 0)
        return REFUSE(d, error, "nat addresses end (%s) before they start (%s)",
                      xml_get(address, "@end"), xml_get(address, "@start"));
    if (port && xml_get_u64(port, "@start", 0) > xml_get_u64(port, "@end", 0))
        return REFUSE(d, error, "nat ports end (%s) before they start (%s)", xml_get(port, "@end"),
                      xml_get(port, "@start"));
    return true;
}

/* ---- what a port has ---- */

/* Linux's bridges of this kind know no VLANs. */
static bool takes_vlan(const struct network_def *d, const struct xml_node *n)
{
    return d->mode == NETWORK_HOSTDEV || d->mode == NETWORK_PASSTHROUGH || network_is_ovs(n) ||
           network_is_ovs(d->root);
}

static bool check_vlan(const struct network_def *d, const struct xml_node *n, GError **error)
{
    const struct xml_node *vlan = xml_find(n, "vlan");
    if (!vlan)
        return true;
    unsigned tags = count(vlan, "tag"), native = 0;
    FOREACH_NAMED (t, vlan, "tag")
        native += xml_get(t, "@nativeMode") != NULL;
    if (!tags)
        return REFUSE(d, error, "<vlan> has no <tag>");
    if (native > 1)
        return REFUSE(d, error, "<vlan> has %u native tags; untagged frames belong to one", native);
    if (!takes_vlan(d, n))
        return REFUSE(d, error,
                      "<vlan> is for <virtualport type='openvswitch'> and for modes 'hostdev' and "
                      "'passthrough'");
    return tags == 1 || network_is_ovs(n) || network_is_ovs(d->root) ||
           REFUSE(d, error, "a virtual function takes one VLAN, no trunk of %u", tags);
}

static bool check_rates(const struct network_def *d, const struct xml_node *n, GError **error)
{
    static const char *const directions[] = {"bandwidth/inbound", "bandwidth/outbound"};
    if (xml_find(n, "bandwidth") && d->mode == NETWORK_HOSTDEV)
        return REFUSE(d, error,
                      "<bandwidth> is not for forward mode 'hostdev': its frames do not pass the "
                      "host's kernel");
    if (xml_get(n, "bandwidth@classID"))
        return REFUSE(d, error, "<bandwidth classID='%s'>: classes are chosen, not asked for",
                      xml_get(n, "bandwidth@classID"));
    for (unsigned i = 0; i < G_N_ELEMENTS(directions); i++) {
        const struct xml_node *r = xml_find(n, directions[i]);
        if (r && xml_get(r, "@floor"))
            return REFUSE(d, error, "%s: a floor is for the <bandwidth> of an interface",
                          directions[i]);
        if (r && !xml_get(r, "@average"))
            return REFUSE(d, error, "%s has no average", directions[i]);
        if (r && xml_get(r, "@peak") && xml_get_u64(r, "@peak", 0) < xml_get_u64(r, "@average", 0))
            return REFUSE(d, error, "%s: peak %s is less than average %s", directions[i],
                          xml_get(r, "@peak"), xml_get(r, "@average"));
    }
    return true;
}

/* Of the network or a portgroup. */
static bool check_virtualport(const struct network_def *d, const struct xml_node *n, GError **error)
{
    static const char *const others[] = {"managerid", "typeid", "typeidversion", "instanceid"};
    const char *type = xml_get(n, "virtualport@type"), *own = xml_get(d->root, "virtualport@type");
    if (!xml_find(n, "virtualport"))
        return true;
    if (type && strcmp(type, "openvswitch") != 0)
        return REFUSE(d, error, "virtualport type '%s': only 'openvswitch' is there", type);
    for (unsigned i = 0; i < G_N_ELEMENTS(others); i++) {
        g_autofree char *path = g_strconcat("virtualport/parameters@", others[i], NULL);
        if (xml_get(n, path))
            return REFUSE(d, error, "virtualport: parameter %s is not one of type 'openvswitch'",
                          others[i]);
    }
    if (d->mode != NETWORK_BRIDGE)
        return REFUSE(d, error, "a virtualport is for forward mode 'bridge', not for '%s'",
                      network_mode_word(d->mode));
    return type || own || n != d->root ||
           REFUSE(d, error, "the virtualport of a network needs a type");
}

/* A guest's MAC address and multicast groups would have to be followed on the host. */
static bool check_trust(const struct network_def *d, const struct xml_node *n, GError **error)
{
    return !xml_is(n, "@trustGuestRxFilters", "yes") || !is_macvtap(d) ||
           REFUSE(d, error,
                  "trustGuestRxFilters='yes': a macvtap does not follow the filters that its guest "
                  "sets");
}

static bool check_port(const struct network_def *d, const struct xml_node *n, GError **error)
{
    return check_vlan(d, n, error) && check_rates(d, n, error) && check_virtualport(d, n, error) &&
           check_trust(d, n, error);
}

static bool check_portgroups(const struct network_def *d, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    const char *usual = NULL;
    FOREACH_NAMED (p, d->root, "portgroup") {
        const char *name = xml_get(p, "@name");
        if (!g_hash_table_add(seen, (void *)name))
            return REFUSE(d, error, "portgroup '%s' is there twice", name);
        if (xml_is(p, "@default", "yes") && usual)
            return REFUSE(d, error, "portgroups '%s' and '%s' are both the default", usual, name);
        if (xml_is(p, "@default", "yes"))
            usual = name;
        if (!check_port(d, p, error))
            return false;
    }
    return check_port(d, d->root, error);
}

bool network_check_mode(const struct network_def *d, GError **error)
{
    bool own = network_mode_has_own_bridge(d->mode);
    if (xml_find(d->root, "forward/address") && d->mode != NETWORK_HOSTDEV)
        return REFUSE(d, error, "forward/address is for mode 'hostdev'");
    if (xml_is(d->root, "port@isolated", "yes") && (is_macvtap(d) || d->mode == NETWORK_HOSTDEV))
        return REFUSE(d, error, "port isolated='yes' is for bridges, not for forward mode '%s'",
                      network_mode_word(d->mode));
    return (own ? check_routed(d, error) : check_lent(d, error)) && check_nat(d, error) &&
           check_portgroups(d, error);
}
