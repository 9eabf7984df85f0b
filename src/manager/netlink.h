/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests to the kernel's network configuration, by libnl.
 *
 * Spec      rtnetlink(7), Linux Documentation/userspace-api/netlink.
 * Thread    Any; blocks for as long as the kernel takes. For workers.
 * Errors    Positive errno, 0: done.
 */
#pragma once

#include "manager/network/address.h"

#include <glib.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <stdbool.h>

/* A request with its fixed header; nla_put*() add to it. Never NULL. */
struct nl_msg *netlink_new(int type, int flags, const void *header, size_t len);
struct nl_msg *netlink_link(int type, int flags, const char *ifname, unsigned index);
/* Sends and waits for the answer; takes the message. */
int netlink_do(struct nl_msg *msg);
/* Each message of a dump; fn must not keep it. EAGAIN: it changed meanwhile, and some may have been
 * left out, or come twice. */
int netlink_dump(int type, const void *header, size_t len,
                 void (*fn)(const struct nlmsghdr *h, void *opaque), void *opaque);

/* A socket that can be read when the kernel has told these groups something; the caller's. -1:
 * there is none. */
int netlink_listen(int protocol, uint32_t groups);
/* Until it has, or for so long; fd -1: for so long. What it was is dropped: a reason to look, no
 * more. */
void netlink_await(int fd, int timeout_ms);

/* Is there a link of that name, and is it of the kind ("bridge"; NULL: any)? */
bool netlink_is(const char *ifname, const char *kind);
int netlink_up(const char *ifname, bool up);
int netlink_delete(const char *ifname);
/* The address and its prefix, with the broadcast address that belongs to it; one that is there
 * stays. `flags`: IFA_F_*. */
int netlink_address(const char *ifname, const struct net_subnet *s, unsigned flags);
/* A route by the interface; prefix 0: the default one. metric 0: the kernel's. Replaces one to the
 * same place. */
int netlink_route(const char *ifname, const struct net_subnet *to, const struct net_addr *gateway,
                  uint32_t metric);
/* The same, but replaces only what is by the interface itself. EEXIST: there is one to the same
 * place by another, which is ret_other ("": it has not one interface). */
int netlink_own_route(const char *ifname, const struct net_subnet *to,
                      const struct net_addr *gateway, uint32_t metric, char ret_other[IFNAMSIZ]);
/* /proc/sys/net/NAME; what is so already is not written. */
int netlink_setting(const char *value, const char *format, ...) G_GNUC_PRINTF(2, 3);
bool netlink_parse_mac(const char *text, uint8_t ret[6]);
