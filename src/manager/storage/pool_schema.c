/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a pool's description may say: elements and attributes in the order in which they are
 * printed.
 *
 * Spec      libvirt's formatstorage, storagepool.rng at 9.0.0. What a type needs: the rows of
 * backend.h.
 */
#include "manager/domain/schema_table.h"
#include "manager/storage/storage_priv.h"

#define FS_NS  "http://libvirt.org/schemas/storagepool/fs/1.0"
#define RBD_NS "http://libvirt.org/schemas/storagepool/rbd/1.0"

static const struct schema_attr named[] = {{"name", TEXT_MAX(255), .flags = F_NEED}, {0}};

static const struct schema_row adapter[] = {
    {"parentaddr", ATTRS({"unique_id", UINT}),
     CHILDREN({"address", ATTRS({"domain", HEX(4, 0xffff)}, {"bus", HEX(2, 0xff)},
                                {"slot", HEX(2, 0x1f)}, {"function", HEX(1, 7)})})},
    {0}};

static const struct schema_row source[] = {
    {"host",
     ATTRS({"name", CHARS_MAX("a-zA-Z0-9.:_-", 255), .flags = F_NEED}, {"port", UINT_OF(1, 65535)}),
     .flags = F_MANY},
    {"device", ATTRS({"path", TEXT_MAX(4095), .flags = F_NEED}, {"part_separator", YES_NO}),
     .flags = F_MANY},
    {"dir", ATTRS({"path", TEXT_MAX(4095), .flags = F_NEED})},
    {"adapter",
     ATTRS({"type", WORD("scsi_host|fc_host")}, {"name", CHARS_MAX(CLASS_GENERIC, 64)},
           {"parent", CHARS_MAX(CLASS_GENERIC, 64)}, {"parent_wwnn", CHARS_MAX("a-fA-F0-9", 16)},
           {"parent_wwpn", CHARS_MAX("a-fA-F0-9", 16)},
           {"parent_fabric_wwn", CHARS_MAX("a-fA-F0-9", 16)}, {"managed", YES_NO},
           {"wwnn", CHARS_MAX("a-fA-F0-9", 16)}, {"wwpn", CHARS_MAX("a-fA-F0-9", 16)}),
     .children = adapter},
    {"name", TEXT_MAX(255)},
    {"initiator",
     CHILDREN({"iqn", ATTRS({"name", CHARS_MAX("a-zA-Z0-9.:_-", 223), .flags = F_NEED})}),
     .flags = F_PRUNE},
    {"format", ATTRS({"type", CHARS_MAX("a-z0-9+", 16), .flags = F_NEED})},
    {"auth",
     ATTRS({"type", WORD("chap|ceph"), .flags = F_NEED},
           {"username", TEXT_MAX(255), .flags = F_NEED}),
     CHILDREN({"secret", ATTRS({"uuid", UUID}, {"usage", TEXT_MAX(255)}), .flags = F_NEED})},
    {"vendor", .attrs = named},
    {"product", .attrs = named},
    {"protocol", ATTRS({"ver", CHARS_MAX("0-9.", 8), .flags = F_NEED})},
    {0}};

static const struct schema_row target[] = {
    {"path", {.kind = S_PATH, .max = 4095}},
    {"permissions",
     CHILDREN({"mode", TEXT_MAX(16)}, {"owner", INT_OF(-1, UINT32_MAX - 1)},
              {"group", INT_OF(-1, UINT32_MAX - 1)}, {"label", TEXT_MAX(255)}),
     .flags = F_PRUNE},
    {0}};

static const struct schema_row options[] = {
    {"option", .attrs = named, .flags = F_MANY, .ns = FS_NS, .prefix = "fs"}, {0}};
static const struct schema_row settings[] = {
    {"option",
     ATTRS({"name", TEXT_MAX(255), .flags = F_NEED}, {"value", TEXT_MAX(4095), .flags = F_NEED}),
     .flags = F_MANY, .ns = RBD_NS, .prefix = "rbd"},
    {0}};

static const struct schema_row children[] = {
    {"name", TEXT_MAX(255)},
    {"uuid", UUID},
    {"capacity", SIZE_BYTES, ATTRS({"unit", TEXT}), .flags = F_LIVE},
    {"allocation", SIZE_BYTES, ATTRS({"unit", TEXT}), .flags = F_LIVE},
    {"available", SIZE_BYTES, ATTRS({"unit", TEXT}), .flags = F_LIVE},
    {"features", CHILDREN({"cow", ATTRS({"state", YES_NO, .flags = F_NEED})}), .flags = F_PRUNE},
    {"source", .children = source},
    {"target", .children = target, .flags = F_PRUNE},
    {"refresh", CHILDREN({"volume", ATTRS({"allocation", WORD("default|capacity")})}),
     .flags = F_PRUNE},
    {"mount_opts", .children = options, .flags = F_PRUNE, .ns = FS_NS, .prefix = "fs"},
    {"config_opts", .children = settings, .flags = F_PRUNE, .ns = RBD_NS, .prefix = "rbd"},
    {0}};

const struct schema_row schema_pool = {
    "pool",
    ATTRS({"type", CHARS_MAX("a-z-", 16), .flags = F_NEED}),
    .children = children,
};
