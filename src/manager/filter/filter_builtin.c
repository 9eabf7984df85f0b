/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Filters that every host has from its first start, by the names that libvirt's users know.
 *
 * Spec      libvirt's formatnwfilter, "Pre-existing network filters".
 */
#include "manager/filter/filter_priv.h"

#define RULE(action, direction, priority)                                                          \
    "<rule action='" action "' direction='" direction "' priority='" priority "'>"
#define ALL(action, direction, priority)                                                           \
    "<rule action='" action "' direction='" direction "' priority='" priority "'/>"
#define USE(name)   "<filterref filter='" name "'/>"
#define SPOOF_CLEAN USE("no-mac-spoofing") USE("no-ip-spoofing")
#define DHCPV6_ASKS                                                                                \
    RULE("accept", "out", "100")                                                                   \
    "<ipv6 srcipaddr='fe80::' srcipmask='10' dstipaddr='ff02::1:2' protocol='udp' "                \
    "srcportstart='546' dstportstart='547'/></rule>"

/* clang-format off */
const char *const filter_builtin[] = {
    "<filter name='allow-arp' chain='arp'>" ALL("accept", "inout", "500") "</filter>",
    "<filter name='allow-ipv4' chain='ipv4'>" ALL("accept", "inout", "500") "</filter>",
    "<filter name='allow-ipv6' chain='ipv6'>" ALL("accept", "inout", "500") "</filter>",
    "<filter name='allow-incoming-ipv4' chain='ipv4'>" ALL("accept", "in", "500") "</filter>",
    "<filter name='allow-incoming-ipv6' chain='ipv6'>" ALL("accept", "in", "500") "</filter>",
    "<filter name='allow-dhcp' chain='ipv4'>"
        RULE("accept", "out", "100")
            "<ip srcipaddr='0.0.0.0' dstipaddr='255.255.255.255' protocol='udp' srcportstart='68' dstportstart='67'/></rule>"
        RULE("accept", "in", "100") "<ip protocol='udp' srcportstart='67' dstportstart='68'/></rule></filter>",
    "<filter name='allow-dhcp-server' chain='ipv4'>"
        RULE("accept", "out", "100")
            "<ip srcipaddr='0.0.0.0' dstipaddr='255.255.255.255' protocol='udp' srcportstart='68' dstportstart='67'/></rule>"
        RULE("accept", "in", "100")
            "<ip srcipaddr='$DHCPSERVER' protocol='udp' srcportstart='67' dstportstart='68'/></rule></filter>",
    "<filter name='allow-dhcpv6' chain='ipv6'>" DHCPV6_ASKS
        RULE("accept", "in", "100") "<ipv6 protocol='udp' srcportstart='547' dstportstart='546'/></rule></filter>",
    "<filter name='allow-dhcpv6-server' chain='ipv6'>" DHCPV6_ASKS
        RULE("accept", "in", "100")
            "<ipv6 srcipaddr='$DHCPSERVER' protocol='udp' srcportstart='547' dstportstart='546'/></rule></filter>",
    "<filter name='no-ip-multicast' chain='ipv4'>"
        RULE("drop", "out", "500") "<ip dstipaddr='224.0.0.0' dstipmask='4'/></rule></filter>",
    "<filter name='no-ipv6-multicast' chain='ipv6'>"
        RULE("drop", "out", "500") "<ipv6 dstipaddr='ff00::' dstipmask='8'/></rule></filter>",
    "<filter name='no-mac-broadcast' chain='ipv4'>"
        RULE("drop", "out", "500") "<mac dstmacaddr='ff:ff:ff:ff:ff:ff'/></rule></filter>",
    "<filter name='no-mac-spoofing' chain='mac' priority='-800'>"
        RULE("return", "out", "500") "<mac srcmacaddr='$MAC'/></rule>" RULE("drop", "out", "500") "<mac/></rule></filter>",
    "<filter name='no-ip-spoofing' chain='ipv4-ip' priority='-710'>"
        RULE("return", "out", "100") "<ip srcipaddr='0.0.0.0' protocol='udp'/></rule>"
        RULE("return", "out", "500") "<ip srcipaddr='$IP'/></rule>" ALL("drop", "out", "1000") "</filter>",
    "<filter name='no-ipv6-spoofing' chain='ipv6-ip' priority='-610'>"
        RULE("return", "out", "100") "<ipv6 srcipaddr='fe80::' srcipmask='10' protocol='udp'/></rule>"
        RULE("return", "out", "500") "<ipv6 srcipaddr='$IPV6'/></rule>" ALL("drop", "out", "1000") "</filter>",
    "<filter name='no-arp-mac-spoofing' chain='arp-mac' priority='-520'>"
        RULE("return", "out", "350") "<arp arpsrcmacaddr='$MAC'/></rule>" ALL("drop", "out", "1000") "</filter>",
    "<filter name='no-arp-ip-spoofing' chain='arp-ip' priority='-510'>"
        RULE("return", "out", "400") "<arp arpsrcipaddr='$IP'/></rule>" ALL("drop", "out", "1000") "</filter>",
    "<filter name='no-arp-spoofing' chain='root'>"
        USE("no-arp-mac-spoofing") USE("no-arp-ip-spoofing") "</filter>",
    "<filter name='no-other-l2-traffic' chain='root'>" ALL("drop", "inout", "1000") "</filter>",
    "<filter name='no-other-rarp-traffic' chain='rarp'>" ALL("drop", "inout", "1000") "</filter>",
    "<filter name='qemu-announce-self' chain='root'>"
        RULE("accept", "out", "500") "<mac protocolid='0x835'/></rule>" USE("qemu-announce-self-rarp")
        USE("no-other-rarp-traffic") "</filter>",
    "<filter name='qemu-announce-self-rarp' chain='rarp'>"
        RULE("accept", "out", "500")
            "<rarp srcmacaddr='$MAC' dstmacaddr='ff:ff:ff:ff:ff:ff' opcode='Request_Reverse' arpsrcmacaddr='$MAC' "
            "arpdstmacaddr='$MAC' arpsrcipaddr='0.0.0.0' arpdstipaddr='0.0.0.0'/></rule>"
        RULE("accept", "in", "500")
            "<rarp dstmacaddr='ff:ff:ff:ff:ff:ff' opcode='Request_Reverse' arpsrcmacaddr='$MAC' arpdstmacaddr='$MAC' "
            "arpsrcipaddr='0.0.0.0' arpdstipaddr='0.0.0.0'/></rule></filter>",
    "<filter name='clean-traffic' chain='root'>" SPOOF_CLEAN
        RULE("accept", "out", "-650") "<mac protocolid='ipv4'/></rule>"
        USE("allow-incoming-ipv4") USE("no-arp-spoofing")
        RULE("accept", "inout", "-500") "<mac protocolid='arp'/></rule>"
        USE("no-other-l2-traffic") USE("qemu-announce-self") "</filter>",
    "<filter name='clean-traffic-gateway' chain='root'>" SPOOF_CLEAN USE("no-arp-spoofing")
        RULE("accept", "inout", "-500") "<mac protocolid='arp'/></rule>"
        RULE("accept", "in", "500") "<mac srcmacaddr='$GATEWAY_MAC'/></rule>"
        RULE("accept", "out", "500") "<mac dstmacaddr='$GATEWAY_MAC'/></rule>"
        USE("no-other-l2-traffic") USE("qemu-announce-self") "</filter>",
    NULL,
};
/* clang-format on */
