/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Traffic limits: htb for what leaves an interface, a policer for what enters it.
 *
 * Spec      tc-htb(8), tc-police(8); linux/pkt_sched.h. libvirt's <bandwidth>: average and peak in
 *           KiB/s, burst in KiB.
 * Thread    Any; the kernel answers at once.
 */
#include "manager/netlink.h"
#include "manager/network/network_priv.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <net/if.h>
#include <string.h>

#define NS_PER_TICK  64 /* the kernel's clock of schedulers, as /proc/net/psched says */
#define BURST_MIN    1600
#define TICKS_A_TIME 250 /* of timers a second, at least: a burst must fill one */
#define LARGEST      65536
#define CELL_LOG     8

struct rate {
    uint64_t average, peak, burst; /* bytes (a second) */
};

static struct rate rate_of(const struct xml_node *n)
{
    struct rate r = {.average = xml_get_u64(n, "@average", 0) * 1024,
                     .peak = xml_get_u64(n, "@peak", 0) * 1024,
                     .burst = xml_get_u64(n, "@burst", 0) * 1024};
    r.peak = MAX(r.peak, r.average);
    r.burst = MAX(r.burst, r.average / TICKS_A_TIME + BURST_MIN);
    return r;
}

static uint32_t ticks(uint64_t bytes, uint64_t rate)
{
    long double t = (long double)bytes * 1e9L / (long double)MAX(rate, 1) / NS_PER_TICK;
    return t > UINT32_MAX ? UINT32_MAX : (uint32_t)t;
}

static struct nl_msg *request(int type, int flags, unsigned index, uint32_t parent, uint32_t handle)
{
    struct tcmsg t = {.tcm_family = AF_UNSPEC,
                      .tcm_ifindex = (int)index,
                      .tcm_parent = parent,
                      .tcm_handle = handle};
    return netlink_new(type, NLM_F_ACK | flags, &t, sizeof(t));
}

/* ---- what leaves ---- */

/* What no filter sends elsewhere goes to class 1:usual. */
static int make_shaper(unsigned index, unsigned usual)
{
    struct tc_htb_glob all = {.version = 3, .rate2quantum = 10, .defcls = usual};
    struct nl_msg *m = request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, index, TC_H_ROOT,
                               TC_H_MAKE(1 << 16, 0));
    nla_put_string(m, TCA_KIND, "htb");
    struct nlattr *nest = nla_nest_start(m, TCA_OPTIONS);
    nla_put(m, TCA_HTB_INIT, sizeof(all), &all);
    nla_nest_end(m, nest);
    return netlink_do(m);
}

static int make_class(unsigned index, unsigned parent, unsigned id, const struct rate *r)
{
    struct tc_htb_opt o = {
        .rate = {.linklayer = TC_LINKLAYER_ETHERNET, .rate = (uint32_t)MIN(r->average, UINT32_MAX)},
        .ceil = {.linklayer = TC_LINKLAYER_ETHERNET, .rate = (uint32_t)MIN(r->peak, UINT32_MAX)},
        .buffer = ticks(r->burst, r->average),
        .cbuffer = ticks(r->burst, r->peak),
    };
    struct nl_msg *m = request(RTM_NEWTCLASS, NLM_F_CREATE | NLM_F_REPLACE, index,
                               TC_H_MAKE(1 << 16, parent), TC_H_MAKE(1 << 16, id));
    nla_put_string(m, TCA_KIND, "htb");
    struct nlattr *nest = nla_nest_start(m, TCA_OPTIONS);
    nla_put(m, TCA_HTB_PARMS, sizeof(o), &o);
    if (r->average > UINT32_MAX)
        nla_put_u64(m, TCA_HTB_RATE64, r->average);
    if (r->peak > UINT32_MAX)
        nla_put_u64(m, TCA_HTB_CEIL64, r->peak);
    nla_nest_end(m, nest);
    return netlink_do(m);
}

static int shape(unsigned index, const struct rate *r)
{
    int err = make_shaper(index, 1);
    return err ? err : make_class(index, 0, 1, r);
}

/* ---- what is promised to some ---- */

/* Frames to the address go to class 1:id. The offsets are those of the address before the payload.
 */
static int choose_class(unsigned index, unsigned id, const uint8_t mac[6])
{
    struct {
        struct tc_u32_sel sel;
        struct tc_u32_key keys[2];
    } to = {
        .sel = {.flags = TC_U32_TERMINAL, .nkeys = 2},
        .keys = {
            {.off = -16, .mask = g_htonl(0xffff), .val = g_htonl((uint32_t)mac[0] << 8 | mac[1])},
            {.off = -12, .mask = 0xffffffff}}};
    memcpy(&to.keys[1].val, mac + 2, sizeof(to.keys[1].val));
    struct tcmsg t = {.tcm_ifindex = (int)index,
                      .tcm_parent = TC_H_MAKE(1 << 16, 0),
                      .tcm_info = TC_H_MAKE(2 << 16, g_htons(ETH_P_ALL))};
    struct nl_msg *m = netlink_new(RTM_NEWTFILTER, NLM_F_ACK | NLM_F_CREATE, &t, sizeof(t));
    nla_put_string(m, TCA_KIND, "u32");
    struct nlattr *nest = nla_nest_start(m, TCA_OPTIONS);
    nla_put_u32(m, TCA_U32_CLASSID, TC_H_MAKE(1 << 16, id));
    nla_put(m, TCA_U32_SEL, sizeof(to.sel) + sizeof(to.keys), &to);
    nla_nest_end(m, nest);
    return netlink_do(m);
}

/* The whole rate is class 1:1; below it 1:2 is everybody else's, 1:3 and on are the promised ones.
 * What one does not use the others may. */
static int share(unsigned index, const struct rate *whole, const struct network_floor *floors,
                 unsigned count)
{
    struct rate rest = {.peak = whole->peak, .burst = whole->burst, .average = whole->average};
    for (unsigned i = 0; i < count; i++)
        rest.average -= MIN(floors[i].kib * 1024, rest.average - 1024);
    int err = make_shaper(index, 2);
    err = err ? err : make_class(index, 0, 1, whole);
    err = err ? err : make_class(index, 1, 2, &rest);
    for (unsigned i = 0; !err && i < count; i++) {
        struct rate own = {
            .average = floors[i].kib * 1024, .peak = whole->peak, .burst = whole->burst};
        uint8_t mac[6];
        err = netlink_parse_mac(floors[i].mac, mac) ? make_class(index, 1, 3 + i, &own) : EINVAL;
        err = err ? err : choose_class(index, 3 + i, mac);
    }
    return err;
}

/* ---- what enters ---- */

static void put_policer(struct nl_msg *m, const struct rate *r)
{
    struct tc_police p = {.action = TC_POLICE_SHOT,
                          .burst = ticks(r->burst, r->average),
                          .mtu = LARGEST,
                          .rate = {.cell_log = CELL_LOG,
                                   .linklayer = TC_LINKLAYER_ETHERNET,
                                   .rate = (uint32_t)MIN(r->average, UINT32_MAX)}};
    uint32_t table[256];
    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++)
        table[i] = ticks((i + 1) << CELL_LOG, r->average);
    nla_put(m, TCA_POLICE_TBF, sizeof(p), &p);
    nla_put(m, TCA_POLICE_RATE, sizeof(table), table);
    if (r->average > UINT32_MAX)
        nla_put_u64(m, TCA_POLICE_RATE64, r->average); /* kernels before 5.5 stay at 4 GiB/s */
}

static int police(unsigned index, const struct rate *r)
{
    struct {
        struct tc_u32_sel sel;
        struct tc_u32_key key;
    } all = {.sel = {.flags = TC_U32_TERMINAL, .nkeys = 1}};
    struct nl_msg *m = request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, index, TC_H_INGRESS,
                               TC_H_MAKE(TC_H_INGRESS, 0));
    nla_put_string(m, TCA_KIND, "ingress");
    int err = netlink_do(m);
    if (err)
        return err;
    struct tcmsg t = {.tcm_ifindex = (int)index,
                      .tcm_parent = TC_H_MAKE(TC_H_INGRESS, 0),
                      .tcm_info = TC_H_MAKE(1 << 16, g_htons(ETH_P_ALL))};
    m = netlink_new(RTM_NEWTFILTER, NLM_F_ACK | NLM_F_CREATE, &t, sizeof(t));
    nla_put_string(m, TCA_KIND, "u32");
    struct nlattr *nest = nla_nest_start(m, TCA_OPTIONS);
    nla_put_u32(m, TCA_U32_CLASSID, 1);
    nla_put(m, TCA_U32_SEL, sizeof(all.sel) + sizeof(all.key), &all);
    struct nlattr *policer = nla_nest_start(m, TCA_U32_POLICE);
    put_policer(m, r);
    nla_nest_end(m, policer);
    nla_nest_end(m, nest);
    return netlink_do(m);
}

/* ---- both ---- */

struct there {
    int index;
    char *kind;
};

/* What the kernel gives an interface by itself has no handle. */
static void look(const struct nlmsghdr *h, void *opaque)
{
    struct there *t = opaque;
    const struct tcmsg *m = nlmsg_data((struct nlmsghdr *)h);
    struct nlattr *a[TCA_MAX + 1] = {NULL};
    if (h->nlmsg_type != RTM_NEWQDISC || m->tcm_ifindex != t->index || !m->tcm_handle || t->kind ||
        (m->tcm_parent != TC_H_ROOT && m->tcm_parent != TC_H_INGRESS) ||
        nlmsg_parse((struct nlmsghdr *)h, sizeof(*m), a, TCA_MAX, NULL) < 0 || !a[TCA_KIND])
        return;
    t->kind = g_strndup(nla_data(a[TCA_KIND]), (gsize)nla_len(a[TCA_KIND]));
}

char *network_qos_there(const char *ifname)
{
    struct there t = {.index = (int)if_nametoindex(ifname)};
    struct tcmsg m = {.tcm_family = AF_UNSPEC};
    if (t.index)
        netlink_dump(RTM_GETQDISC, &m, sizeof(m), look, &t);
    return t.kind;
}

static void clear(unsigned index)
{
    netlink_do(request(RTM_DELQDISC, 0, index, TC_H_ROOT, TC_H_MAKE(1 << 16, 0)));
    netlink_do(request(RTM_DELQDISC, 0, index, TC_H_INGRESS, TC_H_MAKE(TC_H_INGRESS, 0)));
}

static bool refuse(const char *ifname, int err, bool leaving, bool reversed, GError **error)
{
    if (err == ENOENT || err == EOPNOTSUPP || err == EINVAL)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "interface '%s': its %s traffic cannot be limited: this kernel lacks %s",
                           ifname, leaving != reversed ? "inbound" : "outbound",
                           leaving ? "the scheduler 'htb' (CONFIG_NET_SCH_HTB; modprobe sch_htb)"
                                   : "what polices it (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_U32, "
                                     "CONFIG_NET_ACT_POLICE; "
                                     "modprobe sch_ingress cls_u32 act_police)");
    return ruche_error_errno(error, err, "interface '%s': its traffic cannot be limited", ifname);
}

bool network_qos(const char *ifname, const struct xml_node *bandwidth, bool reversed,
                 GError **error)
{
    unsigned index = if_nametoindex(ifname);
    const struct xml_node *in = bandwidth ? xml_find(bandwidth, "inbound") : NULL;
    const struct xml_node *out = bandwidth ? xml_find(bandwidth, "outbound") : NULL;
    if (!index)
        return ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no interface '%s'", ifname);
    const struct xml_node *leaving = reversed ? out : in, *entering = reversed ? in : out;
    clear(index);
    struct rate r;
    int err = 0;
    if (leaving &&
        xml_get(leaving, "@average")) { /* else only a floor, which the network's bridge keeps */
        r = rate_of(leaving);
        if ((err = shape(index, &r)))
            return refuse(ifname, err, true, reversed, error);
    }
    if (entering) {
        r = rate_of(entering);
        if ((err = police(index, &r))) {
            clear(index);
            return refuse(ifname, err, false, reversed, error);
        }
    }
    return true;
}

bool network_qos_floors(const char *bridge, const struct xml_node *bandwidth,
                        const struct network_floor *floors, unsigned count, GError **error)
{
    unsigned index = if_nametoindex(bridge);
    const struct xml_node *in = xml_find(bandwidth, "inbound");
    if (!network_qos(bridge, bandwidth, false, error))
        return false;
    if (!count || !in)
        return true;
    struct rate whole = rate_of(in);
    netlink_do(request(RTM_DELQDISC, 0, index, TC_H_ROOT, TC_H_MAKE(1 << 16, 0)));
    int err = share(index, &whole, floors, count);
    return !err || refuse(bridge, err, true, false, error);
}
