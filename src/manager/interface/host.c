/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the kernel has of interfaces: links, addresses, routes; and that as XML.
 *
 * Spec      rtnetlink(7); libvirt's formatinterface.
 * Thread    Any: the kernel answers at once.
 */
#include "manager/interface/interface_priv.h"
#include "manager/markup.h"
#include "manager/netlink.h"
#include "manager/node/sysfs.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <string.h>

#define CENTISECONDS 100.0
enum {
    OBJECTS_MAX = 65536,
    TRIES = 5,    /* of a list that changes meanwhile */
    STATE_UP = 6, /* of RFC 2863, as the kernel numbers them */
};

/* ---- links ---- */

static GBytes *payload(const struct nlmsghdr *h)
{
    return g_bytes_new(nlmsg_data((struct nlmsghdr *)h),
                       (gsize)nlmsg_datalen((struct nlmsghdr *)h));
}

static void read_info(struct nlattr *attr, struct host_link *l)
{
    struct nlattr *info[IFLA_INFO_MAX + 1] = {NULL};
    if (!attr || nla_parse_nested(info, IFLA_INFO_MAX, attr, NULL) < 0)
        return;
    if (info[IFLA_INFO_KIND])
        nla_strlcpy(l->kind, info[IFLA_INFO_KIND], sizeof(l->kind));
    if (info[IFLA_INFO_DATA])
        l->data = g_bytes_new(nla_data(info[IFLA_INFO_DATA]), (gsize)nla_len(info[IFLA_INFO_DATA]));
}

static int number(struct nlattr *a)
{
    return a && nla_len(a) >= 4 ? (int)nla_get_u32(a) : 0;
}

static void take_link(const struct nlmsghdr *h, void *opaque)
{
    struct host *host = opaque;
    const struct ifinfomsg *i = nlmsg_data((struct nlmsghdr *)h);
    struct nlattr *a[IFLA_MAX + 1] = {NULL};
    if (h->nlmsg_type != RTM_NEWLINK || host->links->len == OBJECTS_MAX ||
        nlmsg_parse((struct nlmsghdr *)h, sizeof(*i), a, IFLA_MAX, NULL) < 0 || !a[IFLA_IFNAME])
        return;
    struct host_link l = {.index = i->ifi_index,
                          .master = number(a[IFLA_MASTER]),
                          .lower = number(a[IFLA_LINK]),
                          .flags = i->ifi_flags,
                          .mtu = (unsigned)number(a[IFLA_MTU]),
                          .state = a[IFLA_OPERSTATE] ? nla_get_u8(a[IFLA_OPERSTATE]) : 0};
    nla_strlcpy(l.name, a[IFLA_IFNAME], sizeof(l.name));
    if (a[IFLA_ADDRESS] && nla_len(a[IFLA_ADDRESS]) == 6) {
        const uint8_t *m = nla_data(a[IFLA_ADDRESS]);
        g_snprintf(l.mac, sizeof(l.mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3],
                   m[4], m[5]);
    }
    read_info(a[IFLA_LINKINFO], &l);
    g_array_append_val(host->links, l);
}

bool host_is_tap(const struct host_link *l)
{
    return !strcmp(l->kind, "tun") || !strcmp(l->kind, "macvtap");
}

bool host_is_up(const struct host_link *l)
{
    return l->flags & IFF_UP;
}

enum interface_type host_type(const struct host_link *l)
{
    static const struct {
        const char *kind;
        enum interface_type type;
    } kinds[] = {{"bridge", INTERFACE_BRIDGE}, {"bond", INTERFACE_BOND}, {"vlan", INTERFACE_VLAN}};
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++)
        if (!strcmp(l->kind, kinds[i].kind))
            return kinds[i].type;
    return INTERFACE_ETHERNET;
}

/* ---- addresses and routes ---- */

static bool read_address(struct nlattr *a, bool v6, struct net_addr *ret)
{
    int len = v6 ? 16 : 4;
    if (!a || nla_len(a) < len)
        return false;
    *ret = (struct net_addr){.v6 = v6};
    memcpy(ret->b, nla_data(a), (size_t)len);
    return true;
}

static void take_address(const struct nlmsghdr *h, void *opaque)
{
    struct host *host = opaque;
    const struct ifaddrmsg *i = nlmsg_data((struct nlmsghdr *)h);
    struct nlattr *a[IFA_MAX + 1] = {NULL};
    bool v6 = i->ifa_family == AF_INET6;
    struct host_address to = {.index = (int)i->ifa_index, .scope = i->ifa_scope};
    if (h->nlmsg_type != RTM_NEWADDR || (!v6 && i->ifa_family != AF_INET) ||
        host->addresses->len == OBJECTS_MAX ||
        nlmsg_parse((struct nlmsghdr *)h, sizeof(*i), a, IFA_MAX, NULL) < 0 ||
        !read_address(a[IFA_LOCAL] ? a[IFA_LOCAL] : a[IFA_ADDRESS], v6, &to.s.addr))
        return;
    to.s.prefix = MIN(i->ifa_prefixlen, v6 ? 128 : 32);
    to.raw = payload(h);
    g_array_append_val(host->addresses, to);
}

static void add_path(struct host *host, const struct host_path *p, int index,
                     struct nlattr *gateway)
{
    struct host_path one = *p;
    if (host->paths->len == OBJECTS_MAX)
        return;
    one.index = index;
    one.has_gateway = read_address(gateway, p->to.addr.v6, &one.gateway);
    one.raw = g_bytes_ref(p->raw);
    g_array_append_val(host->paths, one);
}

/* Each next hop is a path. */
static void add_shared(struct host *host, struct host_path *p, struct nlattr *hops)
{
    int left = nla_len(hops);
    p->shared = true;
    for (struct rtnexthop *n = nla_data(hops); RTNH_OK(n, left);) {
        struct nlattr *first = (struct nlattr *)(void *)RTNH_DATA(n);
        int len = n->rtnh_len - (int)RTNH_LENGTH(0);
        add_path(host, p, n->rtnh_ifindex, nla_find(first, len, RTA_GATEWAY));
        left -= (int)RTNH_ALIGN(n->rtnh_len);
        n = RTNH_NEXT(n);
    }
}

static void take_path(const struct nlmsghdr *h, void *opaque)
{
    struct host *host = opaque;
    const struct rtmsg *r = nlmsg_data((struct nlmsghdr *)h);
    struct nlattr *a[RTA_MAX + 1] = {NULL};
    bool v6 = r->rtm_family == AF_INET6;
    struct host_path p = {.protocol = r->rtm_protocol, .to = {.addr = {.v6 = v6}}};
    if (h->nlmsg_type != RTM_NEWROUTE || r->rtm_table != RT_TABLE_MAIN ||
        r->rtm_type != RTN_UNICAST || r->rtm_flags & RTM_F_CLONED ||
        nlmsg_parse((struct nlmsghdr *)h, sizeof(*r), a, RTA_MAX, NULL) < 0 ||
        (r->rtm_dst_len && !read_address(a[RTA_DST], v6, &p.to.addr)))
        return;
    p.to.prefix = MIN(r->rtm_dst_len, v6 ? 128 : 32);
    p.raw = payload(h);
    if (a[RTA_OIF])
        add_path(host, &p, number(a[RTA_OIF]), a[RTA_GATEWAY]);
    else if (a[RTA_MULTIPATH])
        add_shared(host, &p, a[RTA_MULTIPATH]);
    g_bytes_unref(p.raw);
}

static void clear_link(void *l)
{
    g_clear_pointer(&((struct host_link *)l)->data, g_bytes_unref);
}

static void clear_address(void *a)
{
    g_bytes_unref(((struct host_address *)a)->raw);
}

static void clear_path(void *p)
{
    g_bytes_unref(((struct host_path *)p)->raw);
}

static struct host *host_new(void)
{
    struct host *h = g_new0(struct host, 1);
    h->links = g_array_new(FALSE, FALSE, sizeof(struct host_link));
    h->addresses = g_array_new(FALSE, FALSE, sizeof(struct host_address));
    h->paths = g_array_new(FALSE, FALSE, sizeof(struct host_path));
    g_array_set_clear_func(h->links, clear_link);
    g_array_set_clear_func(h->addresses, clear_address);
    g_array_set_clear_func(h->paths, clear_path);
    return h;
}

/* False: something came or went meanwhile, and may be missing. */
static bool read_once(struct host *h)
{
    struct ifinfomsg i = {.ifi_family = AF_UNSPEC};
    struct ifaddrmsg a = {.ifa_family = AF_UNSPEC};
    bool whole = netlink_dump(RTM_GETLINK, &i, sizeof(i), take_link, h) != EAGAIN;
    whole &= netlink_dump(RTM_GETADDR, &a, sizeof(a), take_address, h) != EAGAIN;
    for (int family = 0; family < 2; family++) {
        struct rtmsg r = {.rtm_family = family ? AF_INET6 : AF_INET};
        whole &= netlink_dump(RTM_GETROUTE, &r, sizeof(r), take_path, h) != EAGAIN;
    }
    return whole;
}

struct host *host_read(void)
{
    struct host *h = host_new();
    for (int tries = 1; !read_once(h) && tries < TRIES; tries++) {
        host_free(h);
        h = host_new();
    }
    return h;
}

void host_free(struct host *h)
{
    if (!h)
        return;
    g_array_unref(h->links);
    g_array_unref(h->addresses);
    g_array_unref(h->paths);
    g_free(h);
}

const struct host_link *host_find(const struct host *h, const char *name)
{
    FOREACH_OF(host_link, l, h->links)
    if (!strcmp(l->name, name))
        return l;
    return NULL;
}

const struct host_link *host_at(const struct host *h, int index)
{
    FOREACH_OF(host_link, l, h->links)
    if (index && l->index == index)
        return l;
    return NULL;
}

bool host_same_address(const struct host_address *a, const struct host_address *b)
{
    return a->index == b->index && a->s.prefix == b->s.prefix && a->s.addr.v6 == b->s.addr.v6 &&
           !net_addr_cmp(&a->s.addr, &b->s.addr);
}

/* ---- XML ---- */

static void parse_data(const struct host_link *l, struct nlattr **ret, int max)
{
    gsize len = 0;
    const void *data = l->data ? g_bytes_get_data(l->data, &len) : NULL;
    if (data)
        nla_parse(ret, max, (struct nlattr *)data, (int)len, NULL);
}

static void add_link_row(GString *b, const struct host_link *l, const char *indent)
{
    static const char *const states[] = {"unknown", "notpresent", "down", "lowerlayerdown",
                                         "testing", "dormant",    "up"};
    const char *state = l->state < G_N_ELEMENTS(states) ? states[l->state] : "unknown";
    uint64_t speed = 0;
    if (l->state == STATE_UP && sysfs_read_u64(&speed, "/sys/class/net/%s/speed", l->name) &&
        speed && speed < UINT32_MAX)
        g_string_append_printf(b, "%s<link speed='%" PRIu64 "' state='%s'/>\n", indent, speed,
                               state);
    else
        g_string_append_printf(b, "%s<link state='%s'/>\n", indent, state);
}

static void add_family(GString *b, const struct host *h, const struct host_link *l, bool v6)
{
    g_autoptr(GString) in = g_string_new(NULL);
    char text[64];
    bool dynamic = false;
    FOREACH_OF(host_address, a, h->addresses)
    {
        if (a->index != l->index || a->s.addr.v6 != v6)
            continue;
        net_addr_format(&a->s.addr, text);
        g_string_append_printf(in, "    <ip address='%s' prefix='%u'/>\n", text, a->s.prefix);
    }
    FOREACH_OF(host_path, p, h->paths)
    if (p->index == l->index && p->to.addr.v6 == v6 && !p->to.prefix && p->has_gateway) {
        dynamic = p->protocol == RTPROT_RA;
        net_addr_format(&p->gateway, text);
        g_string_append_printf(in, "    <route gateway='%s'/>\n", text);
        break; /* the schema has room for one */
    }
    if (in->len)
        g_string_append_printf(b, "  <protocol family='%s'>\n%s%s  </protocol>\n",
                               v6 ? "ipv6" : "ipv4", dynamic ? "    <autoconf/>\n" : "", in->str);
}

static void add_kind(GString *b, const struct host *h, const struct host_link *l,
                     const char *indent);

static void add_bare(GString *b, const struct host *h, const struct host_link *l,
                     const char *indent)
{
    g_autofree char *deeper = g_strconcat(indent, "  ", NULL);
    enum interface_type type = host_type(l);
    bool ethernet = type == INTERFACE_ETHERNET || type == INTERFACE_BRIDGE;
    markup_add(b, "%s<interface type='%s' name='%s'>\n", indent,
               interface_type_word(ethernet ? INTERFACE_ETHERNET : type), l->name);
    add_link_row(b, l, deeper);
    if (*l->mac && ethernet)
        markup_add(b, "%s<mac address='%s'/>\n", deeper, l->mac);
    if (!ethernet)
        add_kind(b, h, l, deeper);
    g_string_append_printf(b, "%s</interface>\n", indent);
}

static void add_bridge(GString *b, const struct host *h, const struct host_link *l,
                       const char *indent)
{
    struct nlattr *a[IFLA_BR_MAX + 1] = {NULL};
    char delay[G_ASCII_DTOSTR_BUF_SIZE];
    g_autofree char *deeper = g_strconcat(indent, "  ", NULL);
    parse_data(l, a, IFLA_BR_MAX);
    g_ascii_formatd(delay, sizeof(delay), "%.2f", number(a[IFLA_BR_FORWARD_DELAY]) / CENTISECONDS);
    g_string_append_printf(b, "%s<bridge stp='%s' delay='%s'>\n", indent,
                           number(a[IFLA_BR_STP_STATE]) ? "on" : "off", delay);
    FOREACH_OF(host_link, p, h->links)
    if (p->master == l->index)
        add_bare(b, h, p, deeper);
    g_string_append_printf(b, "%s</bridge>\n", indent);
}

static const char *word_at(const char *words, unsigned n, char ret[16])
{
    g_auto(GStrv) list = g_strsplit(words, "|", 16);
    g_strlcpy(ret, list[MIN(n, g_strv_length(list) - 1)], 16);
    return ret;
}

static void add_monitor(GString *b, struct nlattr *const *a, const char *indent)
{
    char word[16];
    if (number(a[IFLA_BOND_MIIMON]) > 0) {
        g_string_append_printf(b, "%s  <miimon freq='%d' downdelay='%d' updelay='%d'", indent,
                               number(a[IFLA_BOND_MIIMON]), number(a[IFLA_BOND_DOWNDELAY]),
                               number(a[IFLA_BOND_UPDELAY]));
        if (a[IFLA_BOND_USE_CARRIER])
            g_string_append_printf(b, " carrier='%s'",
                                   nla_get_u8(a[IFLA_BOND_USE_CARRIER]) ? "netif" : "ioctl");
        g_string_append(b, "/>\n");
    } else if (number(a[IFLA_BOND_ARP_INTERVAL]) > 0 && a[IFLA_BOND_ARP_IP_TARGET]) {
        struct nlattr *first = nla_data(a[IFLA_BOND_ARP_IP_TARGET]);
        struct net_addr target;
        char text[64];
        if (nla_len(a[IFLA_BOND_ARP_IP_TARGET]) < 8 || !read_address(first, false, &target))
            return;
        net_addr_format(&target, text);
        g_string_append_printf(
            b, "%s  <arpmon interval='%d' target='%s' validate='%s'/>\n", indent,
            number(a[IFLA_BOND_ARP_INTERVAL]), text,
            word_at("none|active|backup|all", (unsigned)number(a[IFLA_BOND_ARP_VALIDATE]), word));
    }
}

static void add_bond(GString *b, const struct host *h, const struct host_link *l,
                     const char *indent)
{
    struct nlattr *a[IFLA_BOND_MAX + 1] = {NULL};
    char word[16];
    g_autofree char *deeper = g_strconcat(indent, "  ", NULL);
    parse_data(l, a, IFLA_BOND_MAX);
    unsigned mode = a[IFLA_BOND_MODE] ? nla_get_u8(a[IFLA_BOND_MODE]) : 0;
    g_string_append_printf(b, "%s<bond mode='%s'>\n", indent,
                           word_at(INTERFACE_BOND_MODES, mode, word));
    add_monitor(b, a, indent);
    FOREACH_OF(host_link, p, h->links)
    if (p->master == l->index)
        add_bare(b, h, p, deeper);
    g_string_append_printf(b, "%s</bond>\n", indent);
}

static void add_vlan(GString *b, const struct host *h, const struct host_link *l,
                     const char *indent)
{
    struct nlattr *a[IFLA_VLAN_MAX + 1] = {NULL};
    const struct host_link *lower = host_at(h, l->lower);
    parse_data(l, a, IFLA_VLAN_MAX);
    markup_add(b, "%s<vlan tag='%u'>\n%s  <interface name='%s'/>\n%s</vlan>\n", indent,
               a[IFLA_VLAN_ID] ? nla_get_u16(a[IFLA_VLAN_ID]) : 0, indent,
               lower ? lower->name : "-", indent);
}

static void add_kind(GString *b, const struct host *h, const struct host_link *l,
                     const char *indent)
{
    static void (*const adders[])(GString * b, const struct host *h, const struct host_link *l,
                                  const char *indent) = {
        [INTERFACE_ETHERNET] = NULL,
        [INTERFACE_BRIDGE] = add_bridge,
        [INTERFACE_BOND] = add_bond,
        [INTERFACE_VLAN] = add_vlan,
    };
    if (adders[host_type(l)])
        adders[host_type(l)](b, h, l, indent);
}

char *host_xml(const struct host *h, const struct host_link *l, const char *start)
{
    GString *b = g_string_new(NULL);
    enum interface_type type = host_type(l);
    markup_add(b, "<interface type='%s' name='%s'>\n", interface_type_word(type), l->name);
    if (type != INTERFACE_BRIDGE)
        add_link_row(b, l, "  ");
    if (start)
        markup_add(b, "  <start mode='%s'/>\n", start);
    if (type == INTERFACE_ETHERNET && *l->mac)
        markup_add(b, "  <mac address='%s'/>\n", l->mac);
    g_string_append_printf(b, "  <mtu size='%u'/>\n", l->mtu);
    add_family(b, h, l, false);
    add_family(b, h, l, true);
    add_kind(b, h, l, "  ");
    g_string_append(b, "</interface>\n");
    return g_string_free(b, FALSE);
}
