/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Words for writing tables of descriptions, and the parts that several tables take. For schema_*.c tables only. */
#pragma once

#include "manager/domain/schema.h"

/* A row says what it needs, in the order of the members; the rest is zero. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#define ATTRS(...) .attrs = (const struct schema_attr[]){ __VA_ARGS__, { 0 } }
#define CHILDREN(...) .children = (const struct schema_row[]){ __VA_ARGS__, { 0 } }
#define TEXT { .kind = S_TEXT }
#define TEXT_MAX(n) { .kind = S_TEXT, .max = (n) }
#define CHARS(class) { .kind = S_CHARS, .words = (class) }
#define CHARS_MAX(class, n) { .kind = S_CHARS, .words = (class), .max = (n) }
#define WORD(list) { .kind = S_WORD, .words = (list) }
#define YES_NO { .kind = S_WORD, .words = "yes|no" }
#define ON_OFF { .kind = S_WORD, .words = "on|off" }
#define UINT { .kind = S_UINT }
#define UINT_OF(lo, hi) { .kind = S_UINT, .min = (lo), .max = (hi) }
#define U64 { .kind = S_UINT, .max = INT64_MAX }
#define INT_OF(lo, hi) { .kind = S_INT, .low = (lo), .max = (hi) }
#define HEX(digits, hi) { .kind = S_HEX, .min = (digits), .max = (hi) }
#define SIZE { .kind = S_SIZE, .scale = 1024 }
#define SIZE_BYTES { .kind = S_SIZE, .scale = 1 }
#define UUID { .kind = S_UUID }
#define MAC { .kind = S_MAC }
#define IP { .kind = S_IP }
#define IPV4 { .kind = S_IPV4 }
#define PATH { .kind = S_PATH }
#define CPUSET { .kind = S_CPUSET }

#define CLASS_GENERIC "a-zA-Z0-9_+-"
#define CLASS_DEVICE "a-zA-Z0-9_.:/\\-"
#define CLASS_HOST "a-zA-Z0-9.:-"
#define CLASS_ALIAS "a-zA-Z0-9_.-"
#define VIRTIO_MODELS "virtio|virtio-transitional|virtio-non-transitional"

/* Tables that other tables take. */
extern const struct schema_row schema_blkiotune[], schema_memtune[], schema_memory_backing[], schema_cputune[];
extern const struct schema_row schema_numatune[], schema_sysinfo[], schema_os[], schema_features[], schema_cpu[];
extern const struct schema_row schema_clock[];
extern const struct schema_attr schema_sysinfo_attrs[], schema_cpu_attrs[], schema_clock_attrs[];
/* Of devices. */
extern const struct schema_attr schema_address[], schema_alias[], schema_boot[], schema_acpi_index[], schema_rom[];
extern const struct schema_row schema_zpci[];
extern const struct schema_attr schema_disk_attrs[], schema_interface_attrs[];
extern const struct schema_row schema_disk[], schema_interface[], schema_backing[];
extern const struct schema_attr schema_serial_attrs[], schema_filesystem_attrs[];
extern const struct schema_row schema_serial[], schema_parallel[], schema_console[], schema_channel[];
extern const struct schema_row schema_smartcard[], schema_redirdev[], schema_rng_egd[];
extern const struct schema_row schema_filesystem[], schema_auth_secret[];
extern const struct schema_row schema_encryption[];

/* Where a disk's or variable store's bytes are: rows that depend on the parent's @type. */
extern const struct schema_attr schema_source_file[], schema_source_block[], schema_source_dir[];
extern const struct schema_attr schema_source_network[], schema_source_volume[], schema_source_nvme[];
extern const struct schema_attr schema_source_vhostuser[];
extern const struct schema_row schema_source_local[], schema_found_volume[], schema_source_remote[], schema_source_pci[], schema_reconnect[];
#define ROWS_DISK_SOURCE \
    { "source", .when = "type=file", .attrs = schema_source_file, .children = schema_source_local, .flags = F_PRUNE }, \
    { "source", .when = "type=block", .attrs = schema_source_block, .children = schema_source_local, .flags = F_PRUNE }, \
    { "source", .when = "type=dir", .attrs = schema_source_dir, .children = schema_source_local, .flags = F_PRUNE }, \
    { "source", .when = "type=volume", .attrs = schema_source_volume, .children = schema_found_volume, .flags = F_PRUNE }, \
    { "source", .when = "type=network", .attrs = schema_source_network, .children = schema_source_remote, .flags = F_NEED }, \
    { "source", .when = "type=nvme", .attrs = schema_source_nvme, .children = schema_source_pci, .flags = F_NEED }, \
    { "source", .when = "type=vhostuser", .attrs = schema_source_vhostuser, .children = schema_reconnect, .flags = F_NEED }

/* What most devices have; rows of a table of children. */
#define ROW_ALIAS { "alias", .attrs = schema_alias }
#define ROW_ADDRESS { "address", .attrs = schema_address, .children = schema_zpci }
#define ROW_BOOT { "boot", .attrs = schema_boot }
#define ROW_ACPI { "acpi", .attrs = schema_acpi_index, .flags = F_PRUNE }
#define ROWS_DEVICE ROW_ALIAS, ROW_ACPI, ROW_ADDRESS
#define ATTRS_VIRTIO { "iommu", ON_OFF }, { "ats", ON_OFF }, { "packed", ON_OFF }, { "page_per_vq", ON_OFF }
