/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tables: everything that is a stream of characters: serial and parallel ports, consoles, channels, and devices that
 * stand on one (smart cards, USB redirection, entropy daemons).
 *
 * Spec      libvirt's formatdomain, "Consoles, serial, parallel & channel devices", "Smartcard devices", "Redirected
 *           devices", at 9.0.0.
 */
#include "manager/domain/schema_table.h"

/* clang-format off */
#define CHARDEV_TYPES "pty|dev|file|pipe|unix|tcp|udp|null|stdio|vc|spicevmc|spiceport|nmdm|qemu-vdagent|dbus"
#define SERVICE CHARS_MAX(CLASS_ALIAS, 64)
#define APPEND { "append", ON_OFF }
/* A source's security label is kept: another host's administrator wrote it. */
#define ROW_SECLABEL { "seclabel", .flags = F_MANY, ATTRS( \
    { "model", TEXT_MAX(64) }, { "relabel", YES_NO }), CHILDREN({ "label", TEXT }) }

static const struct schema_row unix_source[] = {
    { "reconnect", ATTRS({ "enabled", YES_NO, F_NEED }, { "timeout", UINT, .when = "enabled=yes" }) },
    ROW_SECLABEL, { 0 } };
static const struct schema_row label_source[] = { ROW_SECLABEL, { 0 } };

/* Rows of the parent's @type. */
#define ROWS_SOURCE \
    { "source", .when = "type=pty", .flags = F_PRUNE, .children = label_source, ATTRS({ "path", PATH, F_LIVE }) }, \
    { "source", .when = "type=dev|pipe", .flags = F_NEED, .children = label_source, ATTRS({ "path", PATH, F_NEED }) }, \
    { "source", .when = "type=file", .flags = F_NEED, .children = label_source, ATTRS( \
        { "path", PATH, F_NEED }, APPEND) }, \
    { "source", .when = "type=unix", .flags = F_PRUNE, .children = unix_source, ATTRS( \
        { "mode", WORD("bind|connect"), .otherwise = "connect" }, { "path", PATH }) }, \
    { "source", .when = "type=tcp", .flags = F_NEED, .children = unix_source, ATTRS( \
        { "mode", WORD("bind|connect"), .otherwise = "connect" }, { "host", CHARS_MAX(CLASS_HOST, 255), F_NEED }, \
        { "service", SERVICE, F_NEED }, { "tls", YES_NO }) }, \
    { "source", .when = "type=udp", .flags = F_NEED | F_MANY, .children = label_source, ATTRS( \
        { "mode", WORD("bind|connect"), .otherwise = "connect" }, { "host", CHARS_MAX(CLASS_HOST, 255) }, \
        { "service", SERVICE }) }, \
    { "source", .when = "type=spiceport", .flags = F_NEED, ATTRS({ "channel", TEXT_MAX(255), F_NEED }) }, \
    { "source", .when = "type=dbus", .flags = F_NEED, ATTRS({ "channel", TEXT_MAX(255), F_NEED }) }, \
    { "source", .when = "type=nmdm", .flags = F_NEED, ATTRS({ "master", PATH, F_NEED }, { "slave", PATH, F_NEED }) }, \
    { "source", .when = "type=qemu-vdagent", .flags = F_PRUNE, CHILDREN( \
        { "clipboard", ATTRS({ "copypaste", YES_NO, F_NEED }) }, \
        { "mouse", ATTRS({ "mode", WORD("server|client"), F_NEED }) }) }, \
    { "protocol", .when = "type=tcp", ATTRS({ "type", WORD("raw|telnet|telnets|tls"), .otherwise = "raw" }) }, \
    { "log", ATTRS({ "file", PATH, F_NEED }, APPEND) }

const struct schema_attr schema_serial_attrs[] = {
    { "type", WORD(CHARDEV_TYPES), F_NEED }, { "tty", PATH, F_LIVE }, { 0 } };

const struct schema_row schema_serial[] = {
    ROWS_SOURCE,
    { "target", ATTRS(
          { "type", WORD("isa-serial|usb-serial|pci-serial|spapr-vio-serial|system-serial|sclp-serial|isa-debug") },
          { "port", UINT_OF(0, INT32_MAX) }), CHILDREN(
        { "model", ATTRS({ "name", WORD("isa-serial|usb-serial|pci-serial|spapr-vty|pl011|16550a|sclpconsole|"
                                        "sclplmconsole|isa-debugcon"), F_NEED }) }) },
    ROWS_DEVICE,
    { 0 },
};
const struct schema_row schema_parallel[] = {
    ROWS_SOURCE,
    { "target", ATTRS({ "type", TEXT_MAX(32) }, { "port", UINT_OF(0, INT32_MAX) }) },
    ROWS_DEVICE,
    { 0 },
};
const struct schema_row schema_console[] = {
    ROWS_SOURCE,
    { "target", ATTRS(
        { "type", WORD("xen|serial|uml|virtio|lxc|openvz|sclp|sclplm") }, { "port", UINT_OF(0, INT32_MAX) }) },
    ROWS_DEVICE,
    { 0 },
};
const struct schema_row schema_channel[] = {
    ROWS_SOURCE,
    { "target", .flags = F_NEED, ATTRS(
        { "type", WORD("virtio|guestfwd|xen"), F_NEED },
        { "address", IPV4, F_NEED, .when = "type=guestfwd" }, { "port", UINT_OF(1, 65535), F_NEED, .when = "type=guestfwd" },
        { "name", TEXT_MAX(255), .when = "type=virtio|xen" },
        { "state", WORD("connected|disconnected"), F_LIVE, .when = "type=virtio" }) },
    ROWS_DEVICE,
    { 0 },
};
const struct schema_row schema_smartcard[] = {
    ROWS_SOURCE,
    { "certificate", TEXT_MAX(255), .flags = F_MANY | F_TEXT, .when = "mode=host-certificates" },
    { "database", PATH, .when = "mode=host-certificates" },
    { "target", .flags = F_PRUNE },
    ROWS_DEVICE,
    { 0 },
};
const struct schema_row schema_redirdev[] = {
    ROWS_SOURCE,
    ROW_BOOT,
    ROWS_DEVICE,
    { 0 },
};
const struct schema_row schema_rng_egd[] = { ROWS_SOURCE, { 0 } };
