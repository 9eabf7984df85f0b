/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tables: the protocols of libvirt's filter language, and where their fields are in a frame.
 *
 * Spec      libvirt's formatnwfilter and nwfilter.rng at 9.0.0; IEEE 802.1D-2004, 9.3.1; RFC 826.
 */
#include "manager/filter/filter_priv.h"

#include <string.h>

#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

/* clang-format off */
#define MAC_OF(n, field, other) \
    { n "macaddr", FK_MAC, field, other, n "macmask", FP_MASK }, { n "macmask", FK_MAC }
#define MACS MAC_OF("src", "ether saddr", "ether daddr"), MAC_OF("dst", "ether daddr", "ether saddr")
#define SRC_MAC { "srcmacaddr", FK_MAC, "ether saddr", "ether daddr" }
#define NET(n, v, f, field, other) \
    { n "ipaddr", FK_IPV##v, f " " field, f " " other, n "ipmask", FP_MASK }, { n "ipmask", FK_MASK##v }
#define NETS(v, f) NET("src", v, f, "saddr", "daddr"), NET("dst", v, f, "daddr", "saddr")
#define RANGE(n, v, f, field, other) \
    { n "ipfrom", FK_IPV##v, f " " field, f " " other, n "ipto", FP_END }, { n "ipto", FK_IPV##v }
#define RANGES(v, f) RANGE("src", v, f, "saddr", "daddr"), RANGE("dst", v, f, "daddr", "saddr")
#define PORTS \
    { "srcportstart", FK_U16, "th sport", "th dport", "srcportend", FP_END }, { "srcportend", FK_U16 }, \
    { "dstportstart", FK_U16, "th dport", "th sport", "dstportend", FP_END }, { "dstportend", FK_U16 }
#define CONNECTION { "connlimit-above", FK_CONNLIMIT, "ct count" }, { "state", FK_STATE, "ct state" }, \
    { "ipset", FK_IPSET }, { "ipsetflags", FK_IPSETFLAGS }
#define COMMENT { "comment", FK_COMMENT }, { 0 }
#define TO_HI(n, kind, field) { n, kind, field, NULL, n "-hi", FP_END }, { n "-hi", kind }

static const struct filter_attr mac[] = { MACS, { "protocolid", FK_ETHERTYPE, "ether type" }, COMMENT };
static const struct filter_attr vlan[] = {
    MACS, { "vlanid", FK_VLAN, "vlan id" }, { "encap-protocol", FK_ETHERTYPE, "vlan type" }, COMMENT };
/* A BPDU begins 17 bytes into the frame, behind the length and the LLC header. */
static const struct filter_attr stp[] = {
    { "srcmacaddr", FK_MAC, "ether saddr", NULL, "srcmacmask", FP_MASK }, { "srcmacmask", FK_MAC },
    { "type", FK_U8, "@ll,160,8" }, { "flags", FK_U8, "@ll,168,8" }, TO_HI("root-priority", FK_U16, "@ll,176,16"),
    { "root-address", FK_MAC, "@ll,192,48", NULL, "root-address-mask", FP_MASK }, { "root-address-mask", FK_MAC },
    TO_HI("root-cost", FK_U32, "@ll,240,32"), TO_HI("sender-priority", FK_U16, "@ll,272,16"),
    { "sender-address", FK_MAC, "@ll,288,48", NULL, "sender-address-mask", FP_MASK }, { "sender-address-mask", FK_MAC },
    TO_HI("port", FK_U16, "@ll,336,16"), TO_HI("age", FK_U16, "@ll,352,16"), TO_HI("max-age", FK_U16, "@ll,368,16"),
    TO_HI("hello-time", FK_U16, "@ll,384,16"), TO_HI("forward-delay", FK_U16, "@ll,400,16"), COMMENT };
/* By their places: nft's own words are for ARP only, not for RARP. */
static const struct filter_attr arp[] = {
    MACS, { "hwtype", FK_U16, "@nh,0,16" }, { "protocoltype", FK_U16, "@nh,16,16" }, { "opcode", FK_OPCODE, "@nh,48,16" },
    { "arpsrcmacaddr", FK_MAC, "@nh,64,48", "@nh,144,48" }, { "arpdstmacaddr", FK_MAC, "@nh,144,48", "@nh,64,48" },
    { "arpsrcipaddr", FK_IPV4, "@nh,112,32", "@nh,192,32" }, { "arpdstipaddr", FK_IPV4, "@nh,192,32", "@nh,112,32" },
    { "gratuitous", FK_BOOL, "@nh" }, COMMENT };
static const struct filter_attr ip[] = {
    MACS, NETS(4, "ip"), { "protocol", FK_IPPROTO, "ip protocol" }, PORTS, { "dscp", FK_DSCP, "ip dscp" }, COMMENT };
static const struct filter_attr ipv6[] = {
    MACS, NETS(6, "ip6"), { "protocol", FK_IPPROTO, "meta l4proto" }, PORTS,
    { "type", FK_U8, "icmpv6 type", NULL, "typeend", FP_END }, { "typeend", FK_U8 },
    { "code", FK_U8, "icmpv6 code", NULL, "codeend", FP_END }, { "codeend", FK_U8 }, COMMENT };

#define L4(v, f) SRC_MAC, NETS(v, f), RANGES(v, f)
#define L4_END(v, f) { "dscp", FK_DSCP, f " dscp" }, CONNECTION, COMMENT
#define TCP_FLAGS { "flags", FK_TCPFLAGS, "tcp flags" }
static const struct filter_attr any4[] = { L4(4, "ip"), L4_END(4, "ip") };
static const struct filter_attr any6[] = { L4(6, "ip6"), L4_END(6, "ip6") };
static const struct filter_attr ports4[] = { L4(4, "ip"), PORTS, L4_END(4, "ip") };
static const struct filter_attr ports6[] = { L4(6, "ip6"), PORTS, L4_END(6, "ip6") };
static const struct filter_attr tcp4[] = { L4(4, "ip"), PORTS, TCP_FLAGS, L4_END(4, "ip") };
static const struct filter_attr tcp6[] = { L4(6, "ip6"), PORTS, TCP_FLAGS, L4_END(6, "ip6") };
static const struct filter_attr icmp4[] = {
    L4(4, "ip"), { "type", FK_U8, "icmp type" }, { "code", FK_U8, "icmp code" }, L4_END(4, "ip") };
static const struct filter_attr icmp6[] = {
    L4(6, "ip6"), { "type", FK_U8, "icmpv6 type" }, { "code", FK_U8, "icmpv6 code" }, L4_END(6, "ip6") };

#define IP4(number) "ether type ip ip protocol " number
#define IP6(number) "ether type ip6 meta l4proto " number
static const struct filter_proto protos[] = {
    { "mac", "", false, mac }, { "vlan", "ether type vlan", false, vlan },
    { "stp", "ether daddr 01:80:c2:00:00:00", false, stp }, { "arp", "ether type arp", false, arp },
    { "rarp", "ether type 0x8035", false, arp }, { "ip", "ether type ip", false, ip },
    { "ipv6", "ether type ip6", false, ipv6 },
    { "tcp", IP4("6"), true, tcp4 }, { "udp", IP4("17"), true, ports4 }, { "sctp", IP4("132"), true, ports4 },
    { "icmp", IP4("1"), true, icmp4 }, { "igmp", IP4("2"), true, any4 }, { "esp", IP4("50"), true, any4 },
    { "ah", IP4("51"), true, any4 }, { "udplite", IP4("136"), true, any4 }, { "all", "ether type ip", true, any4 },
    { "tcp-ipv6", IP6("6"), true, tcp6 }, { "udp-ipv6", IP6("17"), true, ports6 },
    { "sctp-ipv6", IP6("132"), true, ports6 }, { "icmpv6", IP6("58"), true, icmp6 },
    { "esp-ipv6", IP6("50"), true, any6 }, { "ah-ipv6", IP6("51"), true, any6 },
    { "udplite-ipv6", IP6("136"), true, any6 }, { "all-ipv6", "ether type ip6", true, any6 },
};
/* clang-format on */

const struct filter_proto *filter_proto_find(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(protos); i++)
        if (!strcmp(protos[i].name, name))
            return &protos[i];
    return NULL;
}

int filter_attr_index(const struct filter_proto *p, const char *name)
{
    for (int i = 0; p->attrs[i].name; i++)
        if (!strcmp(p->attrs[i].name, name))
            return i;
    return -1;
}
