/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the kernel has of a network: the bridge, its addresses and routes, forwarding.
 *
 * Thread    Workers: all of it blocks.
 * Repair    Everything may be done again to a network that runs: what is there stays, what is
 * missing comes.
 */
#include "manager/network/bridge.h"
#include "manager/netlink.h"
#include "manager/network/network_priv.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_bridge.h>
#include <linux/neighbour.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CENTISECONDS 100
#define TRIES        5 /* of a list that changes meanwhile */

static bool refuse(const struct network_def *d, int err, const char *what, GError **error)
{
    if (err == EPERM && manager.session)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "network '%s': %s: a person's own manager has no right to; use "
                           "interfaces of type 'user', or "
                           "the system's manager",
                           d->name, what);
    return ruche_error_errno(error, err, "network '%s': %s", d->name, what);
}

/* ---- routes of the host ---- */

struct routes {
    const char *but;
    struct host_route *list;
    unsigned count, max;
    bool learned; /* only those that routers announced */
};

static void take_route(const struct nlmsghdr *h, void *opaque)
{
    struct routes *r = opaque;
    const struct rtmsg *m = nlmsg_data((struct nlmsghdr *)h);
    struct nlattr *a[RTA_MAX + 1] = {NULL};
    char ifname[IF_NAMESIZE] = "";
    if (h->nlmsg_type != RTM_NEWROUTE || r->count == r->max || m->rtm_table != RT_TABLE_MAIN ||
        m->rtm_type != RTN_UNICAST ||
        nlmsg_parse((struct nlmsghdr *)h, sizeof(*m), a, RTA_MAX, NULL) < 0)
        return;
    if (r->learned ? m->rtm_protocol != RTPROT_RA : !m->rtm_dst_len)
        return;
    if (a[RTA_OIF])
        if_indextoname(nla_get_u32(a[RTA_OIF]), ifname);
    if (r->but && !strcmp(ifname, r->but))
        return;
    struct host_route *to = &r->list[r->count];
    *to = (struct host_route){
        .to = {.addr = {.v6 = m->rtm_family == AF_INET6}, .prefix = m->rtm_dst_len}};
    size_t len = to->to.addr.v6 ? 16 : 4;
    if (m->rtm_dst_len && (!a[RTA_DST] || nla_len(a[RTA_DST]) < (int)len))
        return;
    if (a[RTA_DST])
        memcpy(to->to.addr.b, nla_data(a[RTA_DST]), len);
    bool link_local =
        to->to.addr.v6 && to->to.addr.b[0] == 0xfe && (to->to.addr.b[1] & 0xc0) == 0x80;
    bool multicast = to->to.addr.v6 && to->to.addr.b[0] == 0xff;
    g_strlcpy(to->ifname, ifname, sizeof(to->ifname));
    r->count += r->learned || (!link_local && !multicast);
}

static unsigned routes(const char *but, bool learned, struct host_route *ret, unsigned max)
{
    struct routes r = {.but = but, .list = ret, .max = max, .learned = learned};
    for (int i = 0; i < 2; i++) {
        struct rtmsg m = {.rtm_family = i ? AF_INET6 : AF_INET};
        unsigned begin = r.count;
        int err = EAGAIN;
        for (int tries = 0; err == EAGAIN && tries < TRIES; tries++) {
            r.count = begin;
            err = netlink_dump(RTM_GETROUTE, &m, sizeof(m), take_route, &r);
        }
    }
    return r.count;
}

unsigned network_host_routes(const char *but, struct host_route *ret, unsigned max)
{
    return routes(but, false, ret, max);
}

/* ---- forwarding ---- */

/* A host that forwards no longer believes routers, unless it is told to (accept_ra 2): it would
 * lose its own way out. */
static bool check_announced(const struct network_def *d, GError **error)
{
    g_autofree struct host_route *list = g_new(struct host_route, 256);
    unsigned count = routes(NULL, true, list, 256);
    for (unsigned i = 0; i < count; i++) {
        g_autofree char *path =
                            g_strdup_printf("/proc/sys/net/ipv6/conf/%s/accept_ra", list[i].ifname),
                        *value = NULL;
        if (*list[i].ifname && g_file_get_contents(path, &value, NULL, NULL) && atoi(value) == 1)
            return ruche_error(error, MANAGER_ERR_CONFIG,
                               "network '%s': with IPv6 forwarding interface '%s' would lose the "
                               "routes that routers "
                               "announce; set sysctl net.ipv6.conf.%s.accept_ra=2 first",
                               d->name, list[i].ifname, list[i].ifname);
    }
    return true;
}

static bool has_family(const struct network_def *d, bool v6)
{
    for (unsigned i = 0; i < d->subnet_count; i++)
        if (d->subnets[i].addr.v6 == v6)
            return true;
    return false;
}

static bool allow_forwarding(const struct network_def *d, GError **error)
{
    if (d->mode == NETWORK_ISOLATED)
        return true;
    int err = has_family(d, false) ? netlink_setting("1", "ipv4/ip_forward") : 0;
    g_autofree char *now = NULL;
    if (!err && has_family(d, true)) {
        bool on = g_file_get_contents("/proc/sys/net/ipv6/conf/all/forwarding", &now, NULL, NULL) &&
                  atoi(now);
        if (!on && !check_announced(d, error))
            return false;
        err = netlink_setting("1", "ipv6/conf/all/forwarding");
    }
    return !err || refuse(d, err, "forwarding cannot be switched on", error);
}

/* ---- the bridge ---- */

/* Makes it, or sets an existing one as it is to be. */
static int set_bridge(const struct network_def *d, uint64_t delay)
{
    unsigned index = if_nametoindex(d->bridge);
    struct nl_msg *m =
        netlink_link(RTM_NEWLINK, NLM_F_ACK | (index ? 0 : NLM_F_CREATE | NLM_F_EXCL),
                     index ? NULL : d->bridge, index);
    uint8_t mac[6];
    uint64_t mtu = xml_get_u64(d->root, "mtu@size", 0);
    if (netlink_parse_mac(xml_get(d->root, "mac@address"), mac))
        nla_put(m, IFLA_ADDRESS, sizeof(mac), mac);
    if (mtu)
        nla_put_u32(m, IFLA_MTU, (uint32_t)mtu);
    struct nlattr *info = nla_nest_start(m, IFLA_LINKINFO);
    nla_put_string(m, IFLA_INFO_KIND, "bridge");
    struct nlattr *data = nla_nest_start(m, IFLA_INFO_DATA);
    nla_put_u32(m, IFLA_BR_FORWARD_DELAY, (uint32_t)delay * CENTISECONDS);
    nla_put_u32(m, IFLA_BR_STP_STATE, xml_is(d->root, "bridge@stp", "on"));
    nla_nest_end(m, data);
    nla_nest_end(m, info);
    return netlink_do(m);
}

/* Where the table of addresses is ours, no frame has a tag that the table does not know. */
static int set_filtering(const struct network_def *d)
{
    struct nl_msg *m = netlink_link(RTM_NEWLINK, NLM_F_ACK, NULL, if_nametoindex(d->bridge));
    struct nlattr *info = nla_nest_start(m, IFLA_LINKINFO);
    nla_put_string(m, IFLA_INFO_KIND, "bridge");
    struct nlattr *data = nla_nest_start(m, IFLA_INFO_DATA);
    nla_put_u8(m, IFLA_BR_VLAN_FILTERING, 1);
    nla_nest_end(m, data);
    nla_nest_end(m, info);
    int err = netlink_do(m);
    return err == EOPNOTSUPP ? 0 : err; /* a kernel without VLANs on bridges takes tags for data */
}

/* With STP the kernel takes delays from 2 to 30 s only; others are its nearest, as with brctl. */
static bool make_bridge(const struct network_def *d, GError **error)
{
    uint64_t delay = MIN(xml_get_u64(d->root, "bridge@delay", 0), 100000);
    int err = set_bridge(d, delay);
    if (err == ERANGE)
        err = set_bridge(d, CLAMP(delay, 2, 30));
    if (!err && xml_is(d->root, "bridge@macTableManager", "libvirt"))
        err = set_filtering(d);
    return !err || refuse(d, err, "its bridge cannot be made", error);
}

static void set_ipv6(const struct network_def *d)
{
    bool any = has_family(d, true);
    /* The host takes part in IPv6 there only with an address that somebody asked for. */
    netlink_setting(any ? "0" : "1", "ipv6/conf/%s/disable_ipv6", d->bridge);
    netlink_setting("0", "ipv6/conf/%s/accept_ra", d->bridge);
    netlink_setting("0", "ipv6/conf/%s/autoconf", d->bridge);
}

static bool add_route(const struct network_def *d, const struct xml_node *n, GError **error)
{
    struct net_subnet to;
    struct net_addr gateway;
    char other[IFNAMSIZ] = "", text[64];
    unsigned metric = (unsigned)xml_get_u64(n, "@metric", 1);
    int err = EINVAL;
    if (network_subnet_parse(n, &to, NULL) &&
        net_addr_parse(xml_get_or(n, "@gateway", ""), &gateway))
        err = netlink_own_route(d->bridge, &to, &gateway, metric, other);
    if (err == EEXIST) {
        net_subnet_format(&to, text);
        return ruche_error(
            error, RUCHE_ERR_EXISTS,
            "network '%s': this host has a route to %s with metric %u already, by %s%s; "
            "give the network's another metric",
            d->name, text, metric, *other ? "interface " : "several next hops or none", other);
    }
    return !err || ruche_error_errno(error, err, "network '%s': the route to %s by %s", d->name,
                                     xml_get(n, "@address"), xml_get(n, "@gateway"));
}

static bool add_addresses(const struct network_def *d, GError **error)
{
    for (unsigned i = 0; i < d->subnet_count; i++) {
        char text[64];
        /* nobody else is on a bridge that we make */
        int err = netlink_address(d->bridge, &d->subnets[i], IFA_F_NODAD);
        net_subnet_format(&d->subnets[i], text);
        if (err)
            return ruche_error_errno(error, err,
                                     "network '%s': bridge '%s' does not take its address in %s",
                                     d->name, d->bridge, text);
    }
    return true;
}

bool network_kernel_start(const struct network_def *d, GError **error)
{
    if (if_nametoindex(d->bridge) && !netlink_is(d->bridge, "bridge"))
        return ruche_error(error, RUCHE_ERR_EXISTS,
                           "network '%s': interface '%s' exists and is no bridge", d->name,
                           d->bridge);
    if (!make_bridge(d, error))
        return false;
    set_ipv6(d);
    if (!add_addresses(d, error))
        return false;
    int err = netlink_up(d->bridge, true);
    if (err)
        return refuse(d, err, "its bridge cannot be set up", error);
    FOREACH_NAMED (r, d->root, "route")
        if (!add_route(d, r, error))
            return false;
    return allow_forwarding(d, error);
}

void network_bridge_delete(const char *bridge)
{
    if (netlink_is(bridge, "bridge"))
        netlink_delete(bridge);
}

/* ---- ports ---- */

static int set_port_flags(unsigned index, const struct network_plug *p)
{
    struct ifinfomsg i = {.ifi_family = AF_BRIDGE, .ifi_index = (int)index};
    struct nl_msg *m = netlink_new(RTM_SETLINK, NLM_F_ACK, &i, sizeof(i));
    struct nlattr *info = nla_nest_start(m, IFLA_PROTINFO | NLA_F_NESTED);
    nla_put_u8(m, IFLA_BRPORT_ISOLATED, p->isolated);
    if (p->macs_by_us) {
        nla_put_u8(m, IFLA_BRPORT_LEARNING, 0);
        nla_put_u8(m, IFLA_BRPORT_UNICAST_FLOOD, 0);
    }
    nla_nest_end(m, info);
    return netlink_do(m);
}

static int add_station(unsigned index, const char *mac)
{
    struct ndmsg n = {.ndm_family = PF_BRIDGE,
                      .ndm_ifindex = (int)index,
                      .ndm_state = NUD_NOARP | NUD_PERMANENT,
                      .ndm_flags = NTF_MASTER};
    struct nl_msg *m =
        netlink_new(RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, &n, sizeof(n));
    uint8_t b[6];
    if (netlink_parse_mac(mac, b))
        nla_put(m, NDA_LLADDR, sizeof(b), b);
    return netlink_do(m);
}

int network_bridge_join(const char *bridge, const char *ifname, const struct network_plug *p,
                        const char *mac)
{
    unsigned index = if_nametoindex(ifname), master = if_nametoindex(bridge);
    if (!index || !master)
        return ENODEV;
    struct nl_msg *m = netlink_link(RTM_NEWLINK, NLM_F_ACK, NULL, index);
    nla_put_u32(m, IFLA_MASTER, master);
    int err = netlink_do(m);
    if (!err && p)
        err = set_port_flags(index, p);
    if (!err && p && p->macs_by_us)
        err = add_station(index, mac);
    return err;
}
