/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tables: descriptions of networks.
 *
 * Spec      libvirt's formatnetwork, network.rng and networkport.rng at 9.0.0.
 */
#include "manager/domain/schema_table.h"
#include "manager/network/network_priv.h"

/* clang-format off */
#define IFNAME CHARS_MAX(CLASS_DEVICE, 64) /* its length is checked with a sentence of its own */
#define PORT UINT_OF(1, 65535)
#define U16 UINT_OF(0, 65535)
#define DNS_NAME CHARS_MAX("a-zA-Z0-9._-", 255)
#define PLAIN TEXT_MAX(255)
#define DNSMASQ_NS "http://libvirt.org/schemas/network/dnsmasq/1.0"
#define FAMILY { "family", WORD("ipv4|ipv6") }
#define LEASE { "lease", ATTRS({ "expiry", UINT, F_NEED }, { "unit", WORD("seconds|minutes|hours"), .when = "expiry!=0", .otherwise = "minutes" }) }

static const struct schema_attr pci_attrs[] = {
    { "type", WORD("pci"), F_NEED }, { "domain", HEX(4, 0xffff), .otherwise = "0x0000" },
    { "bus", HEX(2, 0xff), F_NEED }, { "slot", HEX(2, 0x1f), F_NEED }, { "function", HEX(1, 7), .otherwise = "0x0" },
    { "multifunction", ON_OFF }, { "connections", UINT, F_LIVE }, { 0 } };

static const struct schema_row forward[] = {
    { "driver", .flags = F_PRUNE, ATTRS({ "name", WORD("vfio|kvm") }) },
    { "pf", ATTRS({ "dev", IFNAME, F_NEED }, { "connections", UINT, F_LIVE }) },
    { "nat", .flags = F_PRUNE, ATTRS({ "ipv6", YES_NO }), CHILDREN(
        { "address", ATTRS({ "start", IPV4, F_NEED }, { "end", IPV4, F_NEED }) },
        { "port", ATTRS({ "start", PORT, F_NEED }, { "end", PORT, F_NEED }) }) },
    { "interface", .flags = F_MANY, ATTRS({ "dev", IFNAME, F_NEED }, { "connections", UINT, F_LIVE }) },
    { "address", .attrs = pci_attrs, .flags = F_MANY },
    { 0 },
};

static const struct schema_row dns[] = {
    { "forwarder", .flags = F_MANY, ATTRS({ "domain", DNS_NAME }, { "addr", IP }) },
    { "txt", .flags = F_MANY, ATTRS({ "name", DNS_NAME, F_NEED }, { "value", TEXT_MAX(4096), F_NEED }) },
    { "srv", .flags = F_MANY, ATTRS(
        { "service", DNS_NAME, F_NEED }, { "protocol", WORD("tcp|udp"), F_NEED }, { "domain", DNS_NAME }, { "target", DNS_NAME },
        { "port", PORT }, { "priority", U16 }, { "weight", U16 }) },
    { "host", .flags = F_MANY, ATTRS({ "ip", IP, F_NEED }), CHILDREN(
        { "hostname", DNS_NAME, .flags = F_MANY | F_NEED | F_TEXT }) },
    { 0 },
};

static const struct schema_row dhcp[] = {
    { "range", .flags = F_MANY, ATTRS({ "start", IP, F_NEED }, { "end", IP, F_NEED }), CHILDREN(LEASE) },
    { "host", .flags = F_MANY, ATTRS(
        { "mac", MAC }, { "id", CHARS_MAX("0-9a-fA-F:", 400) }, { "name", DNS_NAME }, { "ip", IP }), CHILDREN(LEASE) },
    { "bootp", ATTRS({ "file", PLAIN, F_NEED }, { "server", DNS_NAME }) },
    { 0 },
};

static const struct schema_row vlan[] = {
    { "tag", .flags = F_MANY, ATTRS({ "id", UINT_OF(0, 4095), F_NEED }, { "nativeMode", WORD("tagged|untagged") }) }, { 0 } };
static const struct schema_attr rates[] = {
    { "average", UINT_OF(1, UINT32_MAX) }, { "peak", UINT_OF(1, UINT32_MAX) }, { "floor", UINT_OF(1, UINT32_MAX) },
    { "burst", UINT_OF(1, UINT32_MAX) }, { 0 } };
static const struct schema_row bandwidth[] = {
    { "inbound", .attrs = rates, .flags = F_PRUNE }, { "outbound", .attrs = rates, .flags = F_PRUNE }, { 0 } };
static const struct schema_row virtualport[] = {
    { "parameters", .flags = F_PRUNE, ATTRS(
        { "managerid", UINT_OF(0, 255) }, { "typeid", UINT_OF(0, 0xffffff) }, { "typeidversion", UINT_OF(0, 255) },
        { "instanceid", UUID }, { "interfaceid", UUID }, { "profileid", TEXT_MAX(39) }) },
    { 0 },
};
#define VIRTUALPORT { "virtualport", .flags = F_PRUNE, .children = virtualport, ATTRS( \
    { "type", WORD("802.1Qbg|802.1Qbh|openvswitch|midonet") }) }
#define VLAN { "vlan", .flags = F_PRUNE, .children = vlan, ATTRS({ "trunk", WORD("yes") }) }
#define BANDWIDTH { "bandwidth", .flags = F_PRUNE, .children = bandwidth, ATTRS({ "classID", UINT }) }
#define ISOLATED { "port", .flags = F_PRUNE, ATTRS({ "isolated", YES_NO }) }

static const struct schema_row network_rows[] = {
    { "name", PLAIN, .flags = F_NEED | F_TEXT },
    { "uuid", UUID },
    { "metadata", .flags = F_ANY },
    { "forward", .children = forward, ATTRS(
        { "dev", IFNAME },
        { "mode", WORD("nat|route|open|bridge|private|vepa|passthrough|hostdev"), .otherwise = "nat" },
        { "managed", YES_NO, .when = "mode=hostdev", .otherwise = "no" }) },
    { "bridge", .flags = F_PRUNE, ATTRS(
        { "name", CHARS_MAX("%" CLASS_DEVICE, 64) }, { "zone", CHARS_MAX("a-zA-Z0-9_-", 64) }, { "stp", ON_OFF }, { "delay", UINT_OF(0, 1000000) },
        { "macTableManager", WORD("kernel|libvirt") }) },
    { "mtu", ATTRS({ "size", UINT_OF(68, 65535), F_NEED }) },
    { "mac", .flags = F_PRUNE, ATTRS({ "address", MAC }) },
    { "domain", ATTRS({ "name", DNS_NAME, F_NEED }, { "localOnly", YES_NO }, { "register", YES_NO }) },
    { "dns", .flags = F_PRUNE, .children = dns, ATTRS({ "enable", YES_NO }, { "forwardPlainNames", YES_NO }) },
    VLAN,
    BANDWIDTH,
    ISOLATED,
    { "ip", .flags = F_MANY, ATTRS(
          FAMILY, { "address", IP, F_NEED }, { "netmask", IPV4 }, { "prefix", UINT_OF(0, 128) }, { "localPtr", YES_NO }), CHILDREN(
        { "tftp", ATTRS({ "root", PATH, F_NEED }) },
        { "dhcp", .flags = F_PRUNE, .children = dhcp }) },
    { "route", .flags = F_MANY, ATTRS(
        FAMILY, { "address", IP, F_NEED }, { "netmask", IPV4 }, { "prefix", UINT_OF(0, 128) }, { "gateway", IP, F_NEED },
        { "metric", UINT_OF(1, UINT32_MAX) }) },
    VIRTUALPORT,
    { "portgroup", .flags = F_MANY, ATTRS(
          { "name", CHARS_MAX(CLASS_DEVICE, 64), F_NEED }, { "default", YES_NO }, { "trustGuestRxFilters", YES_NO }),
        CHILDREN(VLAN, VIRTUALPORT, BANDWIDTH) },
    { "options", .ns = DNSMASQ_NS, .prefix = "dnsmasq", .flags = F_PRUNE, CHILDREN(
        { "option", .ns = DNSMASQ_NS, .prefix = "dnsmasq", .flags = F_MANY, ATTRS(
            { "value", TEXT_MAX(1024), F_NEED }) }) },
    { 0 },
};
const struct schema_row network_schema = { "network", .children = network_rows, ATTRS(
    { "connections", UINT, F_LIVE }, { "ipv6", YES_NO }, { "trustGuestRxFilters", YES_NO }) };

static const struct schema_row plug[] = {
    { "driver", .flags = F_PRUNE, ATTRS({ "name", WORD("vfio|kvm") }) }, { "address", ATTRS(
        { "type", WORD("pci") }, { "domain", HEX(4, 0xffff) }, { "bus", HEX(2, 0xff), F_NEED }, { "slot", HEX(2, 0x1f), F_NEED },
        { "function", HEX(1, 7) }) },
    { 0 },
};
static const struct schema_row port_rows[] = {
    { "uuid", UUID },
    { "owner", .flags = F_NEED, CHILDREN({ "name", PLAIN, .flags = F_NEED | F_TEXT }, { "uuid", UUID, .flags = F_NEED | F_TEXT }) },
    { "group", PLAIN },
    { "mac", .flags = F_NEED, ATTRS({ "address", MAC, F_NEED }) },
    VIRTUALPORT,
    BANDWIDTH,
    VLAN,
    ISOLATED,
    { "rxfilters", .flags = F_PRUNE, ATTRS({ "trustGuest", YES_NO }) },
    { "plug", .children = plug, ATTRS(
        { "type", WORD("network|bridge|direct|hostdev-pci"), F_NEED }, { "bridge", IFNAME }, { "dev", IFNAME },
        { "mode", WORD("vepa|private|bridge|passthrough") }, { "macTableManager", WORD("kernel|libvirt") },
        { "managed", YES_NO }) },
    { "filterref", .flags = F_ANY },
    { 0 },
};
const struct schema_row network_port_schema = { "networkport", .children = port_rows };
