/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests to the kernel's network configuration, by libnl.
 *
 * Spec      rtnetlink(7), Linux Documentation/userspace-api/netlink.
 * Thread    Any; blocks for as long as the kernel takes. For workers.
 * Errors    Positive errno, 0: done.
 */
#pragma once

#include <linux/rtnetlink.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <stdbool.h>

/* A request with its fixed header; nla_put*() add to it. Never NULL. */
struct nl_msg *netlink_new(int type, int flags, const void *header, size_t len);
struct nl_msg *netlink_link(int type, int flags, const char *ifname, unsigned index);
/* Sends and waits for the answer; takes the message. */
int netlink_do(struct nl_msg *msg);
/* Each message of a dump; fn must not keep it. */
int netlink_dump(int type, const void *header, size_t len,
                 void (*fn)(const struct nlmsghdr *h, void *opaque), void *opaque);

/* Is there a link of that name, and is it of the kind ("bridge"; NULL: any)? */
bool netlink_is(const char *ifname, const char *kind);
int netlink_up(const char *ifname, bool up);
int netlink_delete(const char *ifname);
