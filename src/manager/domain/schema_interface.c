/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tables: network interfaces.
 *
 * Spec      libvirt's formatdomain, "Network interfaces", and formatnetwork (bandwidth, VLAN, virtual port),
 *           at 9.0.0.
 */
#include "manager/domain/schema_table.h"

/* clang-format off */
#define PORT UINT_OF(1, 65535)
#define ATTRS_NETWORK { "network", TEXT_MAX(255) }, { "portgroup", CHARS_MAX(CLASS_DEVICE, 64) }, \
    { "portid", UUID, F_LIVE }
#define ATTRS_BRIDGE { "bridge", CHARS_MAX("a-zA-Z0-9_.:/\\ -", 64), F_LIVE }, \
    { "macTableManager", WORD("kernel|libvirt"), F_LIVE }
#define RATES ATTRS( \
    { "average", UINT_OF(1, UINT32_MAX) }, { "peak", UINT_OF(1, UINT32_MAX) }, \
    { "floor", UINT_OF(1, UINT32_MAX) }, { "burst", UINT_OF(1, UINT32_MAX) })

static const struct schema_attr ip_attrs[] = {
    { "address", IP, F_NEED }, { "family", WORD("ipv4|ipv6") }, { "prefix", UINT_OF(0, 128) }, { "peer", IP }, { 0 } };
static const struct schema_attr route_attrs[] = {
    { "family", WORD("ipv4|ipv6") }, { "address", IP, F_NEED }, { "netmask", IPV4 }, { "prefix", UINT_OF(0, 128) },
    { "gateway", IP, F_NEED }, { "metric", UINT_OF(1, UINT32_MAX) }, { 0 } };
#define ROWS_IP { "ip", .attrs = ip_attrs, .flags = F_MANY }, { "route", .attrs = route_attrs, .flags = F_MANY }

static const struct schema_row ethernet_source[] = { ROWS_IP, { 0 } };
static const struct schema_row hostdev_source[] = {
    { "vendor", ATTRS({ "id", HEX(4, 0xffff), F_NEED }) },
    { "product", ATTRS({ "id", HEX(4, 0xffff), F_NEED }) },
    { "address", .attrs = schema_address, .flags = F_NEED },
    { 0 },
};

#define OFFLOADS { "csum", ON_OFF }, { "gso", ON_OFF }, { "tso4", ON_OFF }, { "tso6", ON_OFF }, { "ecn", ON_OFF }, \
    { "ufo", ON_OFF }
static const struct schema_row driver_rows[] = {
    { "host", .flags = F_PRUNE, ATTRS(OFFLOADS, { "mrg_rxbuf", ON_OFF }) },
    { "guest", .flags = F_PRUNE, ATTRS(
        { "csum", ON_OFF }, { "tso4", ON_OFF }, { "tso6", ON_OFF }, { "ecn", ON_OFF }, { "ufo", ON_OFF }) },
    { 0 },
};

const struct schema_attr schema_interface_attrs[] = {
    { "type", WORD("network|bridge|user|direct|ethernet|vhostuser|server|client|mcast|udp|internal|hostdev|vdpa|"
                   "null|vds"), .otherwise = "user" },
    { "managed", YES_NO, .when = "type=hostdev" }, { "trustGuestRxFilters", YES_NO }, { 0 },
};
const struct schema_row schema_interface[] = {
    { "mac", .flags = F_PRUNE, ATTRS(
        { "address", MAC }, { "type", WORD("generated|static") }, { "check", YES_NO }) },
    { "source", .when = "type=network", .flags = F_NEED, ATTRS(
        { "network", TEXT_MAX(255), F_NEED }, { "portgroup", CHARS_MAX(CLASS_DEVICE, 64) },
        { "portid", UUID, F_LIVE }, ATTRS_BRIDGE) },
    { "source", .when = "type=bridge", .flags = F_NEED, ATTRS(
        ATTRS_NETWORK, { "bridge", CHARS_MAX("a-zA-Z0-9_.:/\\ -", 64), F_NEED },
        { "macTableManager", WORD("kernel|libvirt"), F_LIVE }) },
    { "source", .when = "type=ethernet", .flags = F_PRUNE, .children = ethernet_source },
    { "source", .when = "type=direct", .flags = F_NEED, ATTRS(
        ATTRS_NETWORK, { "dev", CHARS_MAX(CLASS_DEVICE, 64), F_NEED },
        { "mode", WORD("vepa|bridge|private|passthrough"), .otherwise = "vepa" }) },
    { "source", .when = "type=user", .flags = F_PRUNE, ATTRS({ "dev", CHARS_MAX(CLASS_DEVICE, 64) }) },
    { "source", .when = "type=vhostuser", .flags = F_NEED, .children = schema_reconnect, ATTRS(
        { "type", WORD("unix"), F_NEED }, { "path", PATH, F_NEED }, { "mode", WORD("server|client"), F_NEED }) },
    { "source", .when = "type=internal", .flags = F_NEED, ATTRS({ "name", CHARS_MAX(CLASS_DEVICE, 255), F_NEED }) },
    { "source", .when = "type=mcast|client", .flags = F_NEED, ATTRS(
        { "address", IPV4, F_NEED }, { "port", PORT, F_NEED }) },
    { "source", .when = "type=server", .flags = F_NEED, ATTRS({ "address", IPV4 }, { "port", PORT, F_NEED }) },
    { "source", .when = "type=udp", .flags = F_NEED, ATTRS(
          { "address", IPV4, F_NEED }, { "port", PORT, F_NEED }), CHILDREN(
        { "local", .flags = F_NEED, ATTRS({ "address", IPV4, F_NEED }, { "port", PORT, F_NEED }) }) },
    { "source", .when = "type=hostdev", .flags = F_NEED, .children = hostdev_source, ATTRS(
        { "missing", YES_NO, F_LIVE }) },
    { "source", .when = "type=vdpa", .flags = F_NEED, ATTRS({ "dev", PATH, F_NEED }) },
    { "source", .when = "type=vds", .flags = F_NEED, ATTRS(
        { "switchid", UUID, F_NEED }, { "portid", U64, F_NEED }, { "portgroupid", TEXT_MAX(255), F_NEED },
        { "connectionid", U64, F_NEED }) },
    { "vlan", .flags = F_PRUNE, ATTRS({ "trunk", WORD("yes") }), CHILDREN(
        { "tag", .flags = F_MANY, ATTRS(
            { "id", UINT_OF(0, 4095), F_NEED }, { "nativeMode", WORD("tagged|untagged") }) }) },
    { "virtualport", .flags = F_PRUNE, ATTRS(
          { "type", WORD("802.1Qbg|802.1Qbh|openvswitch|midonet") }), CHILDREN(
        { "parameters", .flags = F_PRUNE, ATTRS(
            { "managerid", UINT_OF(0, 255) }, { "typeid", UINT_OF(0, 0xffffff) }, { "typeidversion", UINT_OF(0, 255) },
            { "instanceid", UUID }, { "interfaceid", UUID }, { "profileid", TEXT_MAX(39) }) }) },
    { "bandwidth", .flags = F_PRUNE, CHILDREN(
        { "inbound", .flags = F_PRUNE, RATES }, { "outbound", .flags = F_PRUNE, RATES }) },
    { "port", .flags = F_PRUNE, ATTRS({ "isolated", YES_NO }) },
    ROWS_IP,
    { "portForward", .flags = F_MANY, ATTRS(
          { "proto", WORD("tcp|udp"), F_NEED }, { "address", IP }, { "dev", CHARS_MAX(CLASS_DEVICE, 64) }), CHILDREN(
        { "range", .flags = F_MANY, ATTRS(
            { "start", PORT, F_NEED }, { "end", PORT }, { "to", PORT }, { "exclude", YES_NO }) }) },
    { "script", .flags = F_PRUNE, ATTRS({ "path", TEXT_MAX(4095), F_NEED }) },
    { "downscript", .flags = F_PRUNE, ATTRS({ "path", TEXT_MAX(4095), F_NEED }) },
    { "backenddomain", ATTRS({ "name", TEXT_MAX(255), F_NEED }) },
    { "target", .flags = F_PRUNE, ATTRS({ "dev", CHARS_MAX(CLASS_DEVICE, 15) }, { "managed", YES_NO }) },
    { "guest", .flags = F_PRUNE, ATTRS(
        { "dev", CHARS_MAX(CLASS_DEVICE, 15) }, { "actual", CHARS_MAX(CLASS_DEVICE, 15), F_LIVE }) },
    { "model", .flags = F_PRUNE, ATTRS({ "type", CHARS_MAX("a-zA-Z0-9_-", 64) }) },
    { "driver", .flags = F_PRUNE, .children = driver_rows, ATTRS(
        { "name", WORD("qemu|vhost|kvm|vfio|xen") },
        { "txmode", WORD("iothread|timer") }, { "ioeventfd", ON_OFF }, { "event_idx", ON_OFF },
        { "queues", UINT_OF(1, 256) }, { "rx_queue_size", UINT_OF(256, 1024) }, { "tx_queue_size", UINT_OF(256, 1024) },
        { "rss", ON_OFF }, { "rss_hash_report", ON_OFF }, ATTRS_VIRTIO) },
    { "backend", .flags = F_PRUNE, ATTRS(
        { "type", WORD("passt|default") }, { "tap", PATH }, { "vhost", PATH }, { "logFile", PATH }) },
    { "filterref", ATTRS({ "filter", CHARS_MAX("a-zA-Z0-9_. :-", 255), F_NEED }), CHILDREN(
        { "parameter", .flags = F_MANY, ATTRS(
            { "name", CHARS_MAX("a-zA-Z0-9_", 255), F_NEED }, { "value", TEXT_MAX(1024), F_NEED }) }) },
    { "tune", .flags = F_PRUNE, CHILDREN({ "sndbuf", U64 }) },
    { "teaming", ATTRS(
        { "type", WORD("persistent|transient"), F_NEED },
        { "persistent", CHARS_MAX(CLASS_ALIAS, 255), F_NEED, .when = "type=transient" }) },
    { "link", ATTRS({ "state", WORD("up|down"), F_NEED }) },
    { "mtu", ATTRS({ "size", UINT_OF(1, 65535), F_NEED }) },
    { "coalesce", .flags = F_PRUNE, CHILDREN(
        { "rx", .flags = F_PRUNE, CHILDREN({ "frames", .flags = F_PRUNE, ATTRS({ "max", UINT }) }) }) },
    ROW_BOOT,
    { "rom", .attrs = schema_rom, .flags = F_PRUNE },
    ROWS_DEVICE,
    { 0 },
};
