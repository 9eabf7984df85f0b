/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Making and deleting links of the host by rtnetlink(7): what ioctls cannot do. */
#include "manager/domain/vm_internal.h"

#include "base/fd.h"

#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

struct request {
    struct nlmsghdr h;
    struct ifinfomsg i;
    char room[512];
};

static struct rtattr *put(struct request *r, unsigned short type, const void *data, size_t len)
{
    struct rtattr *a = (struct rtattr *)((char *)r + NLMSG_ALIGN(r->h.nlmsg_len));
    a->rta_type = type;
    a->rta_len = (unsigned short)RTA_LENGTH(len);
    if (len)
        memcpy(RTA_DATA(a), data, len);
    r->h.nlmsg_len = NLMSG_ALIGN(r->h.nlmsg_len) + (unsigned)RTA_ALIGN(a->rta_len);
    return a;
}

static void end(struct request *r, struct rtattr *nest)
{
    nest->rta_len = (unsigned short)((char *)r + r->h.nlmsg_len - (char *)nest);
}

static struct request request(unsigned short type, unsigned short flags)
{
    return (struct request){
        .h = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)),
              .nlmsg_type = type,
              .nlmsg_flags = (unsigned short)(NLM_F_REQUEST | NLM_F_ACK | flags)}};
}

/* 0 or a positive errno. */
static int exchange(const struct request *r)
{
    struct {
        struct nlmsghdr h;
        struct nlmsgerr e;
        char room[1024];
    } answer;
    autofd fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0 || send(fd, r, r->h.nlmsg_len, 0) < 0)
        return errno;
    ssize_t n = recv(fd, &answer, sizeof(answer), 0);
    if (n < (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)) || answer.h.nlmsg_type != NLMSG_ERROR)
        return n < 0 ? errno : EPROTO;
    return -answer.e.error;
}

int vm_macvtap_make(const char *name, unsigned lower, const char *mode, const char *mac)
{
    static const struct {
        const char *word;
        uint32_t mode;
    } modes[] = {{"private", MACVLAN_MODE_PRIVATE},
                 {"vepa", MACVLAN_MODE_VEPA},
                 {"bridge", MACVLAN_MODE_BRIDGE},
                 {"passthrough", MACVLAN_MODE_PASSTHRU}};
    struct request r = request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
    unsigned b[6];
    uint8_t address[6];
    uint32_t number = MACVLAN_MODE_VEPA;
    for (size_t i = 0; i < G_N_ELEMENTS(modes); i++)
        if (!strcmp(modes[i].word, mode))
            number = modes[i].mode;
    put(&r, IFLA_IFNAME, name, strlen(name) + 1);
    put(&r, IFLA_LINK, &lower, sizeof(lower));
    if (mac && sscanf(mac, "%x:%x:%x:%x:%x:%x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]) == 6) {
        for (int i = 0; i < 6; i++)
            address[i] = (uint8_t)b[i];
        put(&r, IFLA_ADDRESS, address, sizeof(address));
    }
    struct rtattr *info = put(&r, IFLA_LINKINFO, NULL, 0);
    put(&r, IFLA_INFO_KIND, "macvtap", 7);
    struct rtattr *data = put(&r, IFLA_INFO_DATA, NULL, 0);
    put(&r, IFLA_MACVLAN_MODE, &number, sizeof(number));
    end(&r, data);
    end(&r, info);
    return exchange(&r);
}

void vm_link_delete(const char *name)
{
    struct request r = request(RTM_DELLINK, 0);
    r.i.ifi_index = (int)if_nametoindex(name);
    if (r.i.ifi_index > 0)
        exchange(&r);
}
