/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests to the kernel's network configuration. See netlink.h. */
#include "manager/netlink.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct nl_msg *netlink_new(int type, int flags, const void *header, size_t len)
{
    struct nl_msg *msg = nlmsg_alloc_simple(type, NLM_F_REQUEST | flags);
    if (!msg || nlmsg_append(msg, (void *)header, len, NLMSG_ALIGNTO) < 0)
        g_error("no memory for a netlink message");
    return msg;
}

struct nl_msg *netlink_link(int type, int flags, const char *ifname, unsigned index)
{
    struct ifinfomsg i = {.ifi_family = AF_UNSPEC, .ifi_index = (int)index};
    struct nl_msg *msg = netlink_new(type, flags, &i, sizeof(i));
    if (ifname)
        nla_put_string(msg, IFLA_IFNAME, ifname);
    return msg;
}

static int on_error(struct sockaddr_nl *who, struct nlmsgerr *e, void *opaque)
{
    *(int *)opaque = -e->error;
    return NL_STOP;
}

static struct nl_sock *open_socket(int *err)
{
    struct nl_sock *sk = nl_socket_alloc();
    if (!sk)
        g_error("no memory for a netlink socket");
    if (nl_connect(sk, NETLINK_ROUTE) < 0) {
        nl_socket_free(sk);
        return NULL;
    }
    nl_socket_modify_err_cb(sk, NL_CB_CUSTOM, on_error, err);
    return sk;
}

int netlink_do(struct nl_msg *msg)
{
    int err = 0;
    struct nl_sock *sk = open_socket(&err);
    int rc = sk ? nl_send_auto(sk, msg) : -1;
    if (rc >= 0)
        rc = nl_wait_for_ack(sk);
    nlmsg_free(msg);
    if (sk)
        nl_socket_free(sk);
    return err ? err : rc < 0 ? EIO : 0;
}

struct dump {
    void (*fn)(const struct nlmsghdr *h, void *opaque);
    void *opaque;
};

static int on_valid(struct nl_msg *msg, void *opaque)
{
    const struct dump *d = opaque;
    d->fn(nlmsg_hdr(msg), d->opaque);
    return NL_OK;
}

/* What the kernel answers to a question; takes the message. */
static int ask(struct nl_msg *msg, void (*fn)(const struct nlmsghdr *h, void *opaque), void *opaque)
{
    struct dump d = {fn, opaque};
    int err = 0;
    struct nl_sock *sk = open_socket(&err);
    int rc = -1;
    if (sk) {
        nl_socket_disable_auto_ack(sk);
        nl_socket_modify_cb(sk, NL_CB_VALID, NL_CB_CUSTOM, on_valid, &d);
        rc = nl_send_auto(sk, msg);
    }
    if (rc >= 0)
        rc = nl_recvmsgs_default(sk);
    nlmsg_free(msg);
    if (sk)
        nl_socket_free(sk);
    return err ? err : rc == -NLE_DUMP_INTR ? EAGAIN : rc < 0 ? EIO : 0;
}

int netlink_dump(int type, const void *header, size_t len,
                 void (*fn)(const struct nlmsghdr *h, void *opaque), void *opaque)
{
    return ask(netlink_new(type, NLM_F_DUMP, header, len), fn, opaque);
}

/* ---- changes ---- */

int netlink_listen(int protocol, uint32_t groups)
{
    struct sockaddr_nl at = {.nl_family = AF_NETLINK, .nl_groups = groups};
    autofd fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
    if (fd < 0 || bind(fd, (const struct sockaddr *)(const void *)&at, sizeof(at)) < 0)
        return -1;
    return fd_steal(&fd);
}

void netlink_await(int fd, int timeout_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char message;
    if (poll(&p, 1, timeout_ms) > 0)
        while (recv(fd, &message, sizeof(message), MSG_TRUNC) > 0)
            ;
}

/* ---- links ---- */

struct search {
    const char *kind;
    bool found;
};

static void look(const struct nlmsghdr *h, void *opaque)
{
    struct search *s = opaque;
    struct nlattr *a[IFLA_MAX + 1] = {NULL}, *info[IFLA_INFO_MAX + 1] = {NULL};
    if (h->nlmsg_type != RTM_NEWLINK ||
        nlmsg_parse((struct nlmsghdr *)h, sizeof(struct ifinfomsg), a, IFLA_MAX, NULL) < 0)
        return;
    if (a[IFLA_LINKINFO])
        nla_parse_nested(info, IFLA_INFO_MAX, a[IFLA_LINKINFO], NULL);
    s->found = info[IFLA_INFO_KIND] && !strcmp(nla_get_string(info[IFLA_INFO_KIND]), s->kind);
}

/* Asked for by its name: a list of all may leave one out while others come and go. */
bool netlink_is(const char *ifname, const char *kind)
{
    struct search s = {kind, false};
    if (!kind)
        return if_nametoindex(ifname) > 0;
    ask(netlink_link(RTM_GETLINK, 0, ifname, 0), look, &s);
    return s.found;
}

int netlink_up(const char *ifname, bool up)
{
    struct ifinfomsg i = {.ifi_index = (int)if_nametoindex(ifname),
                          .ifi_change = IFF_UP,
                          .ifi_flags = up ? IFF_UP : 0};
    if (!i.ifi_index)
        return ENODEV;
    return netlink_do(netlink_new(RTM_NEWLINK, NLM_F_ACK, &i, sizeof(i)));
}

int netlink_delete(const char *ifname)
{
    unsigned index = if_nametoindex(ifname);
    return index ? netlink_do(netlink_link(RTM_DELLINK, NLM_F_ACK, NULL, index)) : 0;
}

/* ---- addresses, routes, settings ---- */

int netlink_address(const char *ifname, const struct net_subnet *s, unsigned flags)
{
    bool v6 = s->addr.v6;
    int len = v6 ? 16 : 4;
    struct ifaddrmsg a = {.ifa_family = v6 ? AF_INET6 : AF_INET,
                          .ifa_prefixlen = (uint8_t)s->prefix,
                          .ifa_flags = (uint8_t)(v6 ? flags : 0),
                          .ifa_index = if_nametoindex(ifname)};
    struct nl_msg *m =
        netlink_new(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, &a, sizeof(a));
    struct net_addr last = net_subnet_last(s);
    nla_put(m, IFA_LOCAL, len, s->addr.b);
    nla_put(m, IFA_ADDRESS, len, s->addr.b);
    if (!v6 && s->prefix < 31)
        nla_put(m, IFA_BROADCAST, len, last.b);
    return netlink_do(m);
}

static int change_route(int type, int flags, unsigned index, const struct net_subnet *to,
                        const struct net_addr *gateway, uint32_t metric)
{
    int len = to->addr.v6 ? 16 : 4;
    bool gone = type == RTM_DELROUTE; /* whoever has set it */
    struct rtmsg r = {.rtm_family = to->addr.v6 ? AF_INET6 : AF_INET,
                      .rtm_dst_len = (uint8_t)to->prefix,
                      .rtm_table = RT_TABLE_MAIN,
                      .rtm_protocol = gone ? RTPROT_UNSPEC : RTPROT_STATIC,
                      .rtm_scope = gone ? RT_SCOPE_NOWHERE : RT_SCOPE_UNIVERSE,
                      .rtm_type = RTN_UNICAST};
    struct nl_msg *m = netlink_new(type, NLM_F_ACK | flags, &r, sizeof(r));
    if (to->prefix)
        nla_put(m, RTA_DST, len, to->addr.b);
    nla_put(m, RTA_GATEWAY, len, gateway->b);
    nla_put_u32(m, RTA_OIF, index);
    if (metric)
        nla_put_u32(m, RTA_PRIORITY, metric);
    return netlink_do(m);
}

int netlink_route(const char *ifname, const struct net_subnet *to, const struct net_addr *gateway,
                  uint32_t metric)
{
    return change_route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, if_nametoindex(ifname), to,
                        gateway, metric);
}

/* A route to the same place, by metric. */
struct same_place {
    const struct net_subnet *to;
    unsigned index; /* of our interface */
    uint32_t metric;
    bool other, own;
    unsigned other_index;
    struct net_addr own_gateway;
};

static uint32_t number_of(const struct nlattr *a)
{
    return a && nla_len(a) >= 4 ? nla_get_u32(a) : 0;
}

static void look_at_route(const struct nlmsghdr *h, void *opaque)
{
    struct same_place *s = opaque;
    const struct rtmsg *m = nlmsg_data((struct nlmsghdr *)h);
    struct nlattr *a[RTA_MAX + 1] = {NULL};
    struct net_subnet to = {.addr.v6 = s->to->addr.v6, .prefix = s->to->prefix};
    int len = to.addr.v6 ? 16 : 4;
    if (h->nlmsg_type != RTM_NEWROUTE || m->rtm_table != RT_TABLE_MAIN ||
        m->rtm_dst_len != to.prefix || m->rtm_tos || m->rtm_flags & RTM_F_CLONED ||
        nlmsg_parse((struct nlmsghdr *)h, sizeof(*m), a, RTA_MAX, NULL) < 0 ||
        number_of(a[RTA_PRIORITY]) != s->metric)
        return;
    if (a[RTA_DST] && nla_len(a[RTA_DST]) >= len)
        memcpy(to.addr.b, nla_data(a[RTA_DST]), (size_t)len);
    if (net_addr_cmp(&to.addr, &s->to->addr) != 0)
        return;
    if (number_of(a[RTA_OIF]) != s->index) {
        s->other = true;
        s->other_index = number_of(a[RTA_OIF]);
        return;
    }
    s->own = true;
    s->own_gateway = (struct net_addr){.v6 = to.addr.v6};
    if (a[RTA_GATEWAY] && nla_len(a[RTA_GATEWAY]) >= len)
        memcpy(s->own_gateway.b, nla_data(a[RTA_GATEWAY]), (size_t)len);
}

int netlink_own_route(const char *ifname, const struct net_subnet *to,
                      const struct net_addr *gateway, uint32_t metric, char ret_other[IFNAMSIZ])
{
    bool v6 = to->addr.v6;
    unsigned index = if_nametoindex(ifname);
    struct same_place s = {.to = to, .index = index, .metric = metric};
    struct rtmsg all = {.rtm_family = v6 ? AF_INET6 : AF_INET};
    int err = change_route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, index, to, gateway, metric);
    if (err != EEXIST)
        return err;
    if (!metric && v6)
        s.metric = 1024; /* IP6_RT_PRIO_USER */
    netlink_dump(RTM_GETROUTE, &all, sizeof(all), look_at_route, &s);
    if (s.own && !net_addr_cmp(&s.own_gateway, gateway))
        return 0;
    *ret_other = 0;
    if (s.other || !s.own) {
        if_indextoname(s.other_index, ret_other);
        return EEXIST;
    }
    err = change_route(RTM_DELROUTE, 0, index, to, &s.own_gateway, metric);
    if (err && err != ESRCH)
        return err;
    return change_route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, index, to, gateway, metric);
}

int netlink_setting(const char *value, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    g_autofree char *name = g_strdup_vprintf(format, ap),
                    *path = g_strconcat("/proc/sys/net/", name, NULL), *now = NULL;
    va_end(ap);
    if (g_file_get_contents(path, &now, NULL, NULL) && !strcmp(g_strchomp(now), value))
        return 0;
    autofd fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd < 0 || write(fd, value, strlen(value)) < 0 ? errno : 0;
}

bool netlink_parse_mac(const char *text, uint8_t ret[6])
{
    unsigned b[6];
    if (!text ||
        sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]) != 6)
        return false;
    for (int i = 0; i < 6; i++)
        ret[i] = (uint8_t)b[i];
    return true;
}
