/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Interfaces as they are described: links, ports, addresses, routes.
 *
 * Spec      rtnetlink(7); linux/if_link.h; Documentation/networking/bonding.rst.
 * Thread    Workers: all of it blocks.
 */
#include "manager/interface/interface_priv.h"
#include "manager/netlink.h"

#include <errno.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <string.h>

#define CENTISECONDS 100

/* ---- links ---- */

struct kind {
    const char *word, *module, *option; /* the kernel's word, its module and the option for it */
};
static const struct kind kinds[] = {
    [INTERFACE_ETHERNET] = {NULL, NULL, NULL},
    [INTERFACE_BRIDGE] = {"bridge", "bridge", "CONFIG_BRIDGE"},
    [INTERFACE_BOND] = {"bond", "bonding", "CONFIG_BONDING"},
    [INTERFACE_VLAN] = {"vlan", "8021q", "CONFIG_VLAN_8021Q"},
};

static bool failed(const char *name, int err, const char *what, GError **error)
{
    if (err == EPERM && manager.session)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "interface '%s': %s: a person's own manager has no right to", name,
                           what);
    return ruche_error_errno(error, err, "interface '%s': %s", name, what);
}

static int place_of(const char *words, const char *word)
{
    g_auto(GStrv) list = g_strsplit(words, "|", 16);
    for (int i = 0; list[i]; i++)
        if (!strcmp(list[i], word))
            return i;
    return 0;
}

/* With STP the kernel takes delays from 2 to 30 s only. */
static void put_bridge(struct nl_msg *m, const struct xml_node *n)
{
    bool stp = xml_is(n, "bridge@stp", "on");
    double delay = g_ascii_strtod(xml_get_or(n, "bridge@delay", "0"), NULL);
    if (stp)
        delay = CLAMP(delay, 2, 30);
    nla_put_u32(m, IFLA_BR_FORWARD_DELAY, (uint32_t)(delay * CENTISECONDS));
    nla_put_u32(m, IFLA_BR_STP_STATE, stp);
}

static void put_arp(struct nl_msg *m, const struct xml_node *arp)
{
    struct net_addr target = {0};
    net_addr_parse(xml_get_or(arp, "@target", ""), &target);
    nla_put_u32(m, IFLA_BOND_ARP_INTERVAL, (uint32_t)xml_get_u64(arp, "@interval", 0));
    struct nlattr *targets = nla_nest_start(m, IFLA_BOND_ARP_IP_TARGET);
    nla_put(m, 0, 4, target.b);
    nla_nest_end(m, targets);
    if (xml_get(arp, "@validate"))
        nla_put_u32(m, IFLA_BOND_ARP_VALIDATE,
                    (uint32_t)place_of("none|active|backup|all", xml_get(arp, "@validate")));
}

static void put_bond(struct nl_msg *m, const struct xml_node *n)
{
    const struct xml_node *mii = xml_find(n, "bond/miimon"), *arp = xml_find(n, "bond/arpmon");
    nla_put_u8(m, IFLA_BOND_MODE,
               (uint8_t)place_of(INTERFACE_BOND_MODES, xml_get_or(n, "bond@mode", "balance-rr")));
    if (mii) {
        nla_put_u32(m, IFLA_BOND_MIIMON, (uint32_t)xml_get_u64(mii, "@freq", 0));
        nla_put_u32(m, IFLA_BOND_UPDELAY, (uint32_t)xml_get_u64(mii, "@updelay", 0));
        nla_put_u32(m, IFLA_BOND_DOWNDELAY, (uint32_t)xml_get_u64(mii, "@downdelay", 0));
    }
    if (mii && xml_get(mii, "@carrier"))
        nla_put_u8(m, IFLA_BOND_USE_CARRIER, xml_is(mii, "@carrier", "netif"));
    if (arp)
        put_arp(m, arp);
}

static void put_vlan(struct nl_msg *m, const struct xml_node *n)
{
    nla_put_u16(m, IFLA_VLAN_ID, (uint16_t)xml_get_u64(n, "vlan@tag", 0));
}

static void (*const putters[])(struct nl_msg *m, const struct xml_node *n) = {
    [INTERFACE_ETHERNET] = NULL,
    [INTERFACE_BRIDGE] = put_bridge,
    [INTERFACE_BOND] = put_bond,
    [INTERFACE_VLAN] = put_vlan,
};

static int make_link(const struct xml_node *n, const char *name, GHashTable *indexes)
{
    enum interface_type type = interface_type_of(n);
    unsigned old = if_nametoindex(name);
    unsigned index = old || !indexes ? old : GPOINTER_TO_UINT(g_hash_table_lookup(indexes, name));
    struct nl_msg *m = netlink_link(RTM_NEWLINK, NLM_F_ACK | (old ? 0 : NLM_F_CREATE | NLM_F_EXCL),
                                    old ? NULL : name, index);
    if (type == INTERFACE_VLAN && !old)
        nla_put_u32(m, IFLA_LINK, if_nametoindex(xml_get(n, "vlan/interface@name")));
    struct nlattr *info = nla_nest_start(m, IFLA_LINKINFO);
    nla_put_string(m, IFLA_INFO_KIND, kinds[type].word);
    struct nlattr *data = nla_nest_start(m, IFLA_INFO_DATA);
    putters[type](m, n);
    nla_nest_end(m, data);
    nla_nest_end(m, info);
    return netlink_do(m);
}

static bool check_link(const struct xml_node *n, const char *name, GError **error)
{
    enum interface_type type = interface_type_of(n);
    const char *lower = xml_get(n, "vlan/interface@name");
    if (type == INTERFACE_ETHERNET && !if_nametoindex(name))
        return ruche_error(error, RUCHE_ERR_NOT_FOUND, "this host has no interface '%s'", name);
    if (type == INTERFACE_VLAN && !if_nametoindex(lower))
        return ruche_error(error, RUCHE_ERR_NOT_FOUND,
                           "interface '%s': this host has no interface '%s', whose VLAN it is",
                           name, lower);
    if (type != INTERFACE_ETHERNET && if_nametoindex(name) && !netlink_is(name, kinds[type].word))
        return ruche_error(error, RUCHE_ERR_EXISTS, "interface '%s' exists and is no %s", name,
                           kinds[type].word);
    return true;
}

static bool make_kind(const struct xml_node *n, const char *name, GHashTable *indexes,
                      GError **error)
{
    const struct kind *k = &kinds[interface_type_of(n)];
    int err = make_link(n, name, indexes);
    if (err == EOPNOTSUPP && !if_nametoindex(name))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "interface '%s': this host's kernel has no %s devices: its module '%s' "
                           "(%s) is missing",
                           name, k->word, k->module, k->option);
    return !err || failed(name, err, "the kernel does not take its settings", error);
}

/* ---- what a port had becomes its bridge's ---- */

/* What the kernel says of a next hop's link is none of its settings. */
static void redirect(struct nlattr *hops, const int *from, unsigned count, int to)
{
    int left = nla_len(hops);
    for (struct rtnexthop *n = nla_data(hops); RTNH_OK(n, left);) {
        n->rtnh_flags &= (unsigned char)~(RTNH_F_DEAD | RTNH_F_LINKDOWN);
        for (unsigned i = 0; i < count; i++)
            if (n->rtnh_ifindex == from[i]) {
                n->rtnh_ifindex = to;
                break;
            }
        left -= (int)RTNH_ALIGN(n->rtnh_len);
        n = RTNH_NEXT(n);
    }
}

/* The same for another interface: its number is in the message, IPv4's label falls away. */
int interface_replay(int type, GBytes *raw, const int *from, unsigned count, int to)
{
    gsize len = 0;
    const uint8_t *data = g_bytes_get_data(raw, &len);
    bool address = type == RTM_NEWADDR || type == RTM_DELADDR;
    size_t head = address ? sizeof(struct ifaddrmsg) : sizeof(struct rtmsg);
    int flags = type == RTM_NEWADDR || type == RTM_NEWROUTE ? NLM_F_CREATE | NLM_F_REPLACE : 0;
    g_autofree uint8_t *copy = len >= head ? g_memdup2(data, len) : NULL;
    if (!copy)
        return EINVAL;
    if (address)
        ((struct ifaddrmsg *)(void *)copy)->ifa_index = (unsigned)to;
    else
        ((struct rtmsg *)(void *)copy)->rtm_flags &= ~(unsigned)(RTNH_F_DEAD | RTNH_F_LINKDOWN);
    struct nl_msg *m = netlink_new(type, NLM_F_ACK | flags, copy, head);
    struct nlattr *a = (struct nlattr *)(void *)(copy + NLMSG_ALIGN(head));
    for (int left = (int)(len - NLMSG_ALIGN(head)); nla_ok(a, left); a = nla_next(a, &left)) {
        uint32_t number = (uint32_t)to;
        bool oif = !address && nla_type(a) == RTA_OIF;
        bool drop = address ? nla_type(a) == IFA_LABEL : nla_type(a) == RTA_CACHEINFO;
        if (!address && nla_type(a) == RTA_MULTIPATH)
            redirect(a, from, count, to);
        if (!drop)
            nla_put(m, nla_type(a), oif ? 4 : nla_len(a), oif ? (void *)&number : nla_data(a));
    }
    return netlink_do(m);
}

static bool says_addresses(const struct xml_node *root, bool v6)
{
    const struct xml_node *p = interface_protocol(root, v6);
    return p && (xml_find(p, "ip") || xml_find(p, "dhcp") || xml_find(p, "autoconf"));
}

/* Where the description says addresses of its own, the port's only go. */
static bool move_addresses(const struct xml_node *root, const struct host *h,
                           const struct host_link *from, int to, GError **error)
{
    FOREACH_OF(host_address, a, h->addresses)
    {
        if (a->index != from->index || a->scope == RT_SCOPE_LINK)
            continue;
        int err = interface_replay(RTM_DELADDR, a->raw, NULL, 0, from->index);
        if (!err && !says_addresses(root, a->s.addr.v6))
            err = interface_replay(RTM_NEWADDR, a->raw, NULL, 0, to);
        if (err && err != EADDRNOTAVAIL)
            return failed(from->name, err, "its addresses cannot be moved to its bridge", error);
    }
    return true;
}

static bool move_paths(const struct xml_node *root, const struct host *h,
                       const struct host_link *from, int to, GError **error)
{
    /* Those that others stand on first. */
    for (int gateways = 0; gateways < 2; gateways++)
        FOREACH_OF(host_path, p, h->paths)
        {
            bool v6 = p->to.addr.v6;
            if (p->index != from->index || p->has_gateway != (bool)gateways || p->shared ||
                p->protocol == RTPROT_KERNEL || says_addresses(root, v6))
                continue;
            int err = interface_replay(RTM_NEWROUTE, p->raw, NULL, 0, to);
            interface_replay(RTM_DELROUTE, p->raw, NULL, 0, from->index);
            if (err)
                return failed(from->name, err, "its routes cannot be moved to its bridge", error);
        }
    return true;
}

static bool is_among(const GArray *indexes, int index)
{
    for (guint i = 0; i < indexes->len; i++)
        if (g_array_index(indexes, int, i) == index)
            return true;
    return false;
}

/* Routes with several next hops, some of them by ports: once each, when all addresses have moved. The
 * new one is in the old one's place. */
static bool move_shared(const struct xml_node *root, const struct host *h, const GArray *ports,
                        int to, GError **error)
{
    const int *from = (const int *)(const void *)ports->data;
    GBytes *done = NULL; /* a route's next hops follow each other */
    FOREACH_OF(host_path, p, h->paths)
    {
        if (!p->shared || p->raw == done || !is_among(ports, p->index) ||
            says_addresses(root, p->to.addr.v6))
            continue;
        done = p->raw;
        int err = interface_replay(RTM_NEWROUTE, p->raw, from, ports->len, to);
        if (err)
            return failed(xml_get(root, "@name"), err,
                          "a route with several next hops cannot be moved to it", error);
    }
    return true;
}

static bool take_over(const struct xml_node *root, const char *name, GError **error)
{
    auto_host *h = host_read();
    g_autoptr(GArray) ports = g_array_new(FALSE, FALSE, sizeof(int));
    int to = (int)if_nametoindex(name);
    for (const struct xml_node *p = interface_ports(root); p; p = xml_next(p)) {
        const struct host_link *from = host_find(h, xml_get(p, "@name"));
        if (!from)
            continue;
        g_array_append_val(ports, from->index);
        if (!move_addresses(root, h, from, to, error) || !move_paths(root, h, from, to, error))
            return false;
    }
    return move_shared(root, h, ports, to, error);
}

/* ---- ports ---- */

static int set_master(const char *port, unsigned master)
{
    struct nl_msg *m = netlink_link(RTM_NEWLINK, NLM_F_ACK, NULL, if_nametoindex(port));
    nla_put_u32(m, IFLA_MASTER, master);
    return netlink_do(m);
}

static bool make(const struct xml_node *n, GHashTable *indexes, GError **error);

static bool join(const struct xml_node *n, const struct xml_node *p, const char *name,
                 GHashTable *indexes, GError **error)
{
    const char *port = xml_get(p, "@name");
    if (!make(p, indexes, error))
        return false;
    auto_host *h = host_read();
    const struct host_link *l = host_find(h, port), *master = l ? host_at(h, l->master) : NULL;
    if (master && strcmp(master->name, name) != 0)
        return ruche_error(error, RUCHE_ERR_EXISTS,
                           "interface '%s': '%s' is already a port of '%s'", name, port,
                           master->name);
    bool bond = interface_type_of(n) == INTERFACE_BOND;
    if (bond && !master)
        netlink_up(port, false); /* the kernel takes none that is up */
    int err = master ? 0 : set_master(port, if_nametoindex(name));
    if (!err)
        err = netlink_up(port, true);
    if (err == EINVAL || err == ELOOP)
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "interface '%s': the kernel does not take '%s' as a port", name, port);
    return !err || failed(name, err, "a port cannot be joined to it", error);
}

/* The first port of a bond that keeps one in reserve is the one that it prefers. */
static void set_primary(const struct xml_node *n, const char *name)
{
    const struct xml_node *first = interface_ports(n);
    if (!xml_is(n, "bond@mode", "active-backup") || !first)
        return;
    struct nl_msg *m = netlink_link(RTM_NEWLINK, NLM_F_ACK, NULL, if_nametoindex(name));
    struct nlattr *info = nla_nest_start(m, IFLA_LINKINFO);
    nla_put_string(m, IFLA_INFO_KIND, "bond");
    struct nlattr *data = nla_nest_start(m, IFLA_INFO_DATA);
    nla_put_u32(m, IFLA_BOND_PRIMARY, if_nametoindex(xml_get(first, "@name")));
    nla_nest_end(m, data);
    nla_nest_end(m, info);
    netlink_do(m);
}

/* ---- the whole ---- */

static bool set_frame(const struct xml_node *n, const char *name, GError **error)
{
    uint8_t mac[6];
    bool has_mac = netlink_parse_mac(xml_get(n, "mac@address"), mac);
    uint64_t mtu = xml_get_u64(n, "mtu@size", 0);
    struct nl_msg *m = netlink_link(RTM_NEWLINK, NLM_F_ACK, NULL, if_nametoindex(name));
    if (has_mac)
        nla_put(m, IFLA_ADDRESS, sizeof(mac), mac);
    if (mtu)
        nla_put_u32(m, IFLA_MTU, (uint32_t)mtu);
    int err = netlink_do(m);
    return !err || failed(name, err, "its MAC address or MTU cannot be set", error);
}

static bool make(const struct xml_node *n, GHashTable *indexes, GError **error)
{
    const char *name = xml_get(n, "@name");
    if (!check_link(n, name, error) ||
        (interface_type_of(n) != INTERFACE_ETHERNET && !make_kind(n, name, indexes, error)))
        return false;
    for (const struct xml_node *p = interface_ports(n); p; p = xml_next(p))
        if (!join(n, p, name, indexes, error))
            return false;
    if (interface_type_of(n) == INTERFACE_VLAN) /* it cannot be up on one that is down */
        netlink_up(xml_get(n, "vlan/interface@name"), true);
    set_primary(n, name);
    return set_frame(n, name, error);
}

/* A host that forwards listens to routers only when it is told to twice. */
static void set_ipv6(const struct xml_node *root, const char *name)
{
    const struct xml_node *p = interface_protocol(root, true);
    bool automatic = p && xml_find(p, "autoconf"), forwards;
    g_autofree char *text = NULL;
    forwards = g_file_get_contents("/proc/sys/net/ipv6/conf/all/forwarding", &text, NULL, NULL) &&
               *text != '0';
    if (p)
        netlink_setting("0", "ipv6/conf/%s/disable_ipv6", name);
    if (p || interface_type_of(root) == INTERFACE_BRIDGE) {
        netlink_setting(!automatic ? "0" : forwards ? "2" : "1", "ipv6/conf/%s/accept_ra", name);
        netlink_setting(automatic ? "1" : "0", "ipv6/conf/%s/autoconf", name);
    }
}

static bool add_addresses(const struct xml_node *root, const char *name, GError **error)
{
    for (const struct xml_node *p = xml_find(root, "protocol"); p; p = xml_next(p))
        for (const struct xml_node *ip = xml_find(p, "ip"); ip; ip = xml_next(ip)) {
            struct net_subnet s = {.prefix = (unsigned)xml_get_u64(ip, "@prefix", 0)};
            net_addr_parse(xml_get_or(ip, "@address", ""), &s.addr);
            int err = netlink_address(name, &s, 0);
            if (err)
                return ruche_error_errno(error, err, "interface '%s' does not take address '%s'",
                                         name, xml_get(ip, "@address"));
        }
    return true;
}

static bool add_gateways(const struct xml_node *root, const char *name, GError **error)
{
    for (const struct xml_node *p = xml_find(root, "protocol"); p; p = xml_next(p)) {
        struct net_subnet all = {.addr = {.v6 = xml_is(p, "@family", "ipv6")}};
        struct net_addr gateway;
        if (!net_addr_parse(xml_get_or(p, "route@gateway", ""), &gateway))
            continue;
        int err = netlink_route(name, &all, &gateway, 0);
        if (err)
            return ruche_error_errno(error, err, "interface '%s': the route by gateway '%s'", name,
                                     xml_get(p, "route@gateway"));
    }
    return true;
}

bool interface_make(const struct xml_node *root, GHashTable *indexes, GError **error)
{
    const char *name = xml_get(root, "@name");
    if (!make(root, indexes, error))
        return false;
    set_ipv6(root, name);
    int err = netlink_up(name, true);
    if (err)
        return failed(name, err, "it cannot be set up", error);
    if (interface_type_of(root) == INTERFACE_BRIDGE && !take_over(root, name, error))
        return false;
    return add_addresses(root, name, error) && add_gateways(root, name, error);
}

bool interface_flush(const char *name, bool down, GError **error)
{
    auto_host *h = host_read();
    const struct host_link *l = host_find(h, name);
    FOREACH_OF(host_address, a, h->addresses)
    if (l && a->index == l->index)
        interface_replay(RTM_DELADDR, a->raw, NULL, 0, l->index);
    int err = l && down ? netlink_up(name, false) : 0;
    return !err || failed(name, err, "it cannot be set down", error);
}
