/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tables: descriptions of interfaces.
 *
 * Spec      libvirt's interface.rng at 9.0.0.
 */
#include "manager/domain/schema_table.h"
#include "manager/interface/interface_priv.h"

/* clang-format off */
#define IFNAME CHARS_MAX(CLASS_DEVICE, 64) /* its length is checked with a sentence of its own */
#define LINK { "link", .flags = F_LIVE | F_PRUNE, ATTRS({ "speed", UINT }, \
    { "state", WORD("unknown|notpresent|down|lowerlayerdown|testing|dormant|up") }) }
#define MAC_ROW { "mac", .flags = F_PRUNE, ATTRS({ "address", MAC, F_NEED }) }

static const struct schema_row bare[] = { LINK, MAC_ROW, { 0 } };

static const struct schema_row bond[] = {
    { "miimon", ATTRS({ "freq", UINT, F_NEED }, { "downdelay", UINT }, { "updelay", UINT }, { "carrier", WORD("ioctl|netif") }) },
    { "arpmon", ATTRS({ "interval", UINT, F_NEED }, { "target", IPV4, F_NEED }, { "validate", WORD("none|active|backup|all") }) },
    { "interface", .flags = F_MANY | F_NEED, .children = bare, ATTRS(
        { "type", WORD("ethernet"), .otherwise = "ethernet" }, { "name", IFNAME, F_NEED }) },
    { 0 },
};
#define BOND { "bond", .when = "type=bond", .flags = F_NEED, .children = bond, ATTRS( \
    { "mode", WORD(INTERFACE_BOND_MODES) }) }
#define VLAN { "vlan", .when = "type=vlan", .flags = F_NEED, \
    ATTRS({ "tag", UINT_OF(0, 4094), F_NEED }), CHILDREN({ "interface", .flags = F_NEED, ATTRS({ "name", IFNAME, F_NEED }) }) }

static const struct schema_row port[] = { LINK, MAC_ROW, BOND, VLAN, { 0 } };

static const struct schema_row interface_rows[] = {
    LINK,
    { "start", .flags = F_PRUNE, ATTRS({ "mode", WORD("onboot|none|hotplug"), F_NEED }) },
    MAC_ROW,
    { "mtu", ATTRS({ "size", UINT_OF(68, 65535), F_NEED }) },
    { "protocol", .flags = F_MANY, ATTRS({ "family", WORD("ipv4|ipv6"), F_NEED }), CHILDREN(
        { "autoconf" },
        { "dhcp", ATTRS({ "peerdns", YES_NO }) },
        { "ip", .flags = F_MANY, ATTRS({ "address", IP, F_NEED }, { "prefix", UINT_OF(0, 128) }) },
        { "route", ATTRS({ "gateway", IP, F_NEED }) }) },
    { "bridge", .when = "type=bridge", .flags = F_NEED, ATTRS({ "stp", ON_OFF }, { "delay", CHARS_MAX("0-9.", 16) }), CHILDREN(
        { "interface", .flags = F_MANY, .children = port, ATTRS(
            { "type", WORD("ethernet|bond|vlan"), .otherwise = "ethernet" }, { "name", IFNAME }) }) },
    BOND,
    VLAN,
    { 0 },
};
const struct schema_row interface_schema = { "interface", .children = interface_rows, ATTRS(
    { "type", WORD("ethernet|bridge|bond|vlan"), F_NEED }, { "name", IFNAME }) };
