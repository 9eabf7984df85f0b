/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Does the host still reach its gateways? The kernel's own neighbour discovery says so.
 *
 * Spec      arp(7), RFC 4861; neighbour states of linux/neighbour.h.
 * Thread    Workers: waits.
 */
#include "base/fd.h"
#include "manager/interface/interface_priv.h"
#include "manager/netlink.h"

#include <linux/neighbour.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ASK_US = 1000000, DISCARD_PORT = 9 };

struct wanted {
    const struct net_addr *gateway;
    int index;
    bool answered;
};

static void take_neighbour(const struct nlmsghdr *h, void *opaque)
{
    struct wanted *w = opaque;
    const struct ndmsg *n = nlmsg_data((struct nlmsghdr *)h);
    struct nlattr *a[NDA_MAX + 1] = {NULL};
    int len = w->gateway->v6 ? 16 : 4;
    if (h->nlmsg_type != RTM_NEWNEIGH || n->ndm_ifindex != w->index ||
        nlmsg_parse((struct nlmsghdr *)h, sizeof(*n), a, NDA_MAX, NULL) < 0 || !a[NDA_DST] ||
        nla_len(a[NDA_DST]) != len || memcmp(nla_data(a[NDA_DST]), w->gateway->b, (size_t)len) != 0)
        return;
    w->answered = n->ndm_state & (NUD_REACHABLE | NUD_PERMANENT | NUD_NOARP);
}

static bool answered(const struct net_addr *gateway, int index)
{
    struct wanted w = {gateway, index, false};
    struct ndmsg n = {.ndm_family = gateway->v6 ? AF_INET6 : AF_INET};
    netlink_dump(RTM_GETNEIGH, &n, sizeof(n), take_neighbour, &w);
    return w.answered;
}

/* What the kernel knew is forgotten: it has to ask again. */
static void forget(const struct net_addr *gateway, int index)
{
    struct ndmsg n = {.ndm_family = gateway->v6 ? AF_INET6 : AF_INET, .ndm_ifindex = index};
    struct nl_msg *m = netlink_new(RTM_DELNEIGH, NLM_F_ACK, &n, sizeof(n));
    nla_put(m, NDA_DST, gateway->v6 ? 16 : 4, gateway->b);
    netlink_do(m);
}

/* One octet to nobody: the kernel looks for the gateway's address first. */
static void ask(const struct net_addr *gateway, int index)
{
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(DISCARD_PORT)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6,
                               .sin6_port = htons(DISCARD_PORT),
                               .sin6_scope_id = (uint32_t)index};
    const struct sockaddr *to = gateway->v6 ? (const struct sockaddr *)(const void *)&six
                                            : (const struct sockaddr *)(const void *)&four;
    memcpy(&four.sin_addr, gateway->b, 4);
    memcpy(&six.sin6_addr, gateway->b, 16);
    autofd fd = socket(to->sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0)
        sendto(fd, "", 1, MSG_NOSIGNAL, to, gateway->v6 ? sizeof(six) : sizeof(four));
}

static bool answers_by(const struct net_addr *gateway, int index, int changes, int64_t until_us)
{
    while (!answered(gateway, index)) {
        if (g_get_monotonic_time() >= until_us)
            return false;
        int64_t left_us = until_us - g_get_monotonic_time();
        netlink_await(changes, (int)(MAX(left_us, 0) / 1000) + 1);
    }
    return true;
}

static bool probe(const struct net_addr *gateway, int index, unsigned wait_s)
{
    autofd changes = netlink_listen(NETLINK_ROUTE, RTMGRP_NEIGH); /* -1: looked at once a second */
    forget(gateway, index);
    for (unsigned second = 0; second < wait_s; second++) {
        int64_t asked_us = g_get_monotonic_time();
        ask(gateway, index);
        if (answers_by(gateway, index, changes, asked_us + ASK_US))
            return true;
    }
    return false;
}

unsigned probe_gateways(GPtrArray *names, unsigned wait_s, struct net_addr *ret, unsigned max)
{
    unsigned count = 0;
    auto_host *h = host_read();
    FOREACH_OF(host_path, p, h->paths)
    for (unsigned i = 0; i < names->len && count < max; i++) {
        const struct host_link *l = host_find(h, names->pdata[i]);
        if (l && l->index == p->index && !p->to.prefix && p->has_gateway &&
            probe(&p->gateway, p->index, wait_s))
            ret[count++] = p->gateway;
    }
    return count;
}
