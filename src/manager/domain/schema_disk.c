/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tables: disks, where their bytes are, and file systems.
 *
 * Spec      libvirt's formatdomain, "Hard drives, floppy disks, CDROMs", "Filesystems", at 9.0.0.
 */
#include "manager/domain/schema_table.h"

/* clang-format off */
#define FORMATS "raw|dir|bochs|cloop|dmg|iso|vpc|vdi|fat|vhd|ploop|luks|cow|qcow|qcow2|qed|vmdk"
#define DISK_TYPES "file|block|dir|network|volume|nvme|vhostuser"

/* ---- where the bytes are ---- */

#define STARTUP { "startupPolicy", WORD("mandatory|requisite|optional") }
#define INDEX { "index", UINT_OF(1, UINT32_MAX), F_LIVE }

const struct schema_attr schema_source_file[] = {
    { "file", PATH }, { "fdgroup", TEXT_MAX(64) }, STARTUP, INDEX, { 0 } };
const struct schema_attr schema_source_block[] = { { "dev", PATH }, STARTUP, INDEX, { 0 } };
const struct schema_attr schema_source_dir[] = { { "dir", PATH, F_NEED }, STARTUP, INDEX, { 0 } };
const struct schema_attr schema_source_volume[] = {
    { "pool", TEXT_MAX(255), F_NEED }, { "volume", TEXT_MAX(255), F_NEED }, { "mode", WORD("host|direct") }, STARTUP,
    INDEX,
    /* vm_volume.c: what the volume is. */
    { "file", PATH, F_LIVE | F_FOUND }, { "dev", PATH, F_LIVE | F_FOUND },
    { "protocol", WORD("iscsi|rbd"), F_LIVE | F_FOUND }, { "name", TEXT_MAX(4096), F_LIVE | F_FOUND }, { 0 } };
const struct schema_attr schema_source_nvme[] = {
    { "type", WORD("pci"), F_NEED }, { "managed", YES_NO }, { "namespace", UINT_OF(1, UINT32_MAX), F_NEED }, STARTUP,
    INDEX, { 0 } };
const struct schema_attr schema_source_vhostuser[] = {
    { "type", WORD("unix"), F_NEED }, { "path", PATH, F_NEED }, { 0 } };
const struct schema_attr schema_source_network[] = {
    { "protocol", WORD("nbd|rbd|sheepdog|gluster|iscsi|http|https|ftp|ftps|tftp|ssh|vxhs|nfs"), F_NEED },
    { "name", TEXT_MAX(4096), .when = "protocol=nbd|rbd" },
    { "name", TEXT_MAX(4096), F_NEED, .when = "protocol!=nbd|rbd" },
    { "query", TEXT_MAX(4096), .when = "protocol=http|https" },
    { "tls", YES_NO, .when = "protocol=nbd|vxhs" },
    { "tlsHostname", CHARS_MAX(CLASS_HOST, 255), .when = "protocol=nbd" },
    INDEX, { 0 } };

const struct schema_row schema_reconnect[] = {
    { "reconnect", ATTRS({ "enabled", YES_NO, F_NEED }, { "timeout", UINT, .when = "enabled=yes" }) },
    { 0 },
};
const struct schema_row schema_auth_secret[] = {
    { "secret", .flags = F_NEED, ATTRS(
        { "type", WORD("ceph|iscsi"), F_NEED }, { "uuid", UUID }, { "usage", TEXT_MAX(255) }) },
    { 0 },
};
const struct schema_row schema_encryption[] = {
    { "secret", .flags = F_MANY, ATTRS(
        { "type", WORD("passphrase"), F_NEED }, { "uuid", UUID }, { "usage", TEXT_MAX(255) }) },
    { "cipher", ATTRS(
        { "name", TEXT_MAX(64), F_NEED }, { "size", UINT, F_NEED }, { "mode", TEXT_MAX(64) },
        { "hash", TEXT_MAX(64) }) },
    { "ivgen", ATTRS({ "name", TEXT_MAX(64), F_NEED }, { "hash", TEXT_MAX(64) }) },
    { 0 },
};

#define ROW_ENCRYPTION { "encryption", .children = schema_encryption, ATTRS( \
    { "format", WORD("default|qcow|luks|luks2"), F_NEED }, { "engine", WORD("qemu|librbd") }) }
#define ROW_AUTH { "auth", .children = schema_auth_secret, ATTRS( \
    { "username", CHARS_MAX(CLASS_GENERIC, 255), F_NEED }) }
#define ROW_SECLABEL { "seclabel", .flags = F_MANY, ATTRS( \
    { "model", TEXT_MAX(64) }, { "relabel", YES_NO }, { "labelskip", YES_NO }), CHILDREN({ "label", TEXT }) }
#define ROW_SLICES { "slices", .flags = F_PRUNE, CHILDREN( \
    { "slice", ATTRS({ "type", WORD("storage"), F_NEED }, { "offset", U64, F_NEED }, { "size", U64, F_NEED }) }) }
#define ROW_RESERVATIONS { "reservations", ATTRS({ "managed", YES_NO, F_NEED }), CHILDREN( \
    { "source", .children = schema_reconnect, ATTRS( \
        { "type", WORD("unix"), F_NEED }, { "path", PATH, F_NEED }, { "mode", WORD("client"), F_NEED }) }) }

const struct schema_row schema_source_local[] = {
    ROW_RESERVATIONS, ROW_ENCRYPTION, ROW_SLICES, ROW_SECLABEL, { 0 } };
const struct schema_row schema_found_volume[] = {
    { "host", .flags = F_MANY | F_LIVE | F_FOUND, ATTRS(
        { "name", CHARS_MAX(CLASS_HOST, 255), F_NEED }, { "port", UINT_OF(1, 65535) }) },
    { "initiator", .flags = F_LIVE | F_FOUND, CHILDREN(
        { "iqn", .flags = F_NEED, ATTRS({ "name", TEXT_MAX(255), F_NEED }) }) },
    { "auth", .flags = F_LIVE | F_FOUND, .children = schema_auth_secret, ATTRS(
        { "username", CHARS_MAX(CLASS_GENERIC, 255), F_NEED }) },
    ROW_RESERVATIONS, ROW_ENCRYPTION, ROW_SLICES, ROW_SECLABEL, { 0 } };
const struct schema_row schema_source_pci[] = {
    { "address", .flags = F_NEED, ATTRS(
        { "domain", HEX(4, UINT32_MAX), .otherwise = "0x0000" }, { "bus", HEX(2, 0xff), F_NEED },
        { "slot", HEX(2, 0x1f), F_NEED }, { "function", HEX(1, 7), F_NEED }) },
    ROW_ENCRYPTION, ROW_SLICES, { 0 } };

const struct schema_row schema_source_remote[] = {
    { "host", .flags = F_MANY, ATTRS(
        { "transport", WORD("tcp|unix|rdma") }, { "socket", PATH, F_NEED, .when = "transport=unix" },
        { "name", CHARS_MAX(CLASS_HOST, 255), F_NEED, .when = "transport!=unix" },
        { "port", UINT_OF(1, 65535), .when = "transport!=unix" }) },
    { "snapshot", .when = "protocol=rbd", ATTRS({ "name", CHARS_MAX(CLASS_ALIAS "+", 255), F_NEED }) },
    { "config", .when = "protocol=rbd", ATTRS({ "file", PATH, F_NEED }) },
    { "initiator", .when = "protocol=iscsi", CHILDREN(
        { "iqn", .flags = F_NEED, ATTRS({ "name", TEXT_MAX(255), F_NEED }) }) },
    { "identity", .when = "protocol=nfs", ATTRS(
        { "user", CHARS_MAX(CLASS_GENERIC, 255) }, { "group", CHARS_MAX(CLASS_GENERIC, 255) }) },
    ROW_AUTH, ROW_RESERVATIONS, ROW_ENCRYPTION, ROW_SLICES,
    { "ssl", .when = "protocol=https|ftps", ATTRS({ "verify", YES_NO, F_NEED }) },
    { "cookies", .when = "protocol=http|https", .flags = F_SECRET | F_PRUNE, CHILDREN(
        { "cookie", CHARS("!#-+--:<-[]-~\""), .flags = F_MANY | F_TEXT, ATTRS(
            { "name", CHARS("!#-'*+.0-9A-Z^-z|~-"), F_NEED }) }) },
    { "readahead", ATTRS({ "size", UINT_OF(1, UINT32_MAX), F_NEED }) },
    { "timeout", ATTRS({ "seconds", UINT_OF(1, UINT32_MAX), F_NEED }) },
    { 0 },
};

/* ---- disk ---- */

static const struct schema_attr size_attrs[] = { { "unit", TEXT }, { 0 } };
#define ROW_CACHE { "metadata_cache", .flags = F_PRUNE, CHILDREN( \
    { "max_size", SIZE_BYTES, .attrs = size_attrs, .flags = F_TEXT }) }
#define ROW_FORMAT { "format", ATTRS({ "type", WORD(FORMATS), F_NEED }), CHILDREN(ROW_CACHE) }

const struct schema_row schema_backing[] = {
    ROW_FORMAT, ROWS_DISK_SOURCE,
    { "backingStore", .children = schema_backing, ATTRS({ "type", WORD(DISK_TYPES) }, INDEX) },
    { 0 },
};

static const struct schema_attr driver_attrs[] = {
    { "name", CHARS_MAX(CLASS_GENERIC, 64) }, { "type", WORD(FORMATS "|aio") },
    { "cache", WORD("default|none|writeback|writethrough|directsync|unsafe") },
    { "error_policy", WORD("stop|report|ignore|enospace") }, { "rerror_policy", WORD("stop|report|ignore") },
    { "io", WORD("threads|native|io_uring") }, { "ioeventfd", ON_OFF }, { "event_idx", ON_OFF },
    { "copy_on_read", ON_OFF }, { "discard", WORD("unmap|ignore") }, { "iothread", UINT_OF(1, UINT32_MAX) },
    { "detect_zeroes", WORD("off|on|unmap") }, { "queues", UINT_OF(1, 1024) }, { "queue_size", UINT_OF(2, 1024) },
    ATTRS_VIRTIO, { 0 },
};

static const struct schema_row iotune[] = {
    { "total_bytes_sec", U64 }, { "read_bytes_sec", U64 }, { "write_bytes_sec", U64 },
    { "total_iops_sec", U64 }, { "read_iops_sec", U64 }, { "write_iops_sec", U64 },
    { "total_bytes_sec_max", U64 }, { "read_bytes_sec_max", U64 }, { "write_bytes_sec_max", U64 },
    { "total_iops_sec_max", U64 }, { "read_iops_sec_max", U64 }, { "write_iops_sec_max", U64 },
    { "size_iops_sec", U64 }, { "group_name", TEXT_MAX(255) },
    { "total_bytes_sec_max_length", U64 }, { "read_bytes_sec_max_length", U64 },
    { "write_bytes_sec_max_length", U64 }, { "total_iops_sec_max_length", U64 },
    { "read_iops_sec_max_length", U64 }, { "write_iops_sec_max_length", U64 },
    { 0 },
};

const struct schema_attr schema_disk_attrs[] = {
    { "type", WORD(DISK_TYPES), .otherwise = "file" },
    { "device", WORD("disk|cdrom|floppy|lun"), .otherwise = "disk" },
    { "model", WORD(VIRTIO_MODELS) },
    { "rawio", YES_NO, .when = "device=lun" }, { "sgio", WORD("filtered|unfiltered"), .when = "device=lun" },
    { "snapshot", WORD("no|internal|external|manual") }, { 0 },
};
const struct schema_row schema_disk[] = {
    { "driver", .attrs = driver_attrs, .flags = F_PRUNE, CHILDREN(ROW_CACHE) },
    ROW_AUTH,
    ROWS_DISK_SOURCE,
    { "backingStore", .children = schema_backing, ATTRS({ "type", WORD(DISK_TYPES) }, INDEX) },
    { "geometry", ATTRS(
        { "cyls", UINT, F_NEED }, { "heads", UINT, F_NEED }, { "secs", UINT, F_NEED },
        { "trans", WORD("auto|none|lba") }) },
    { "blockio", .flags = F_PRUNE, ATTRS({ "logical_block_size", UINT_OF(512, 2097152) },
                                         { "physical_block_size", UINT_OF(512, 2097152) }) },
    { "mirror", .flags = F_LIVE, .children = schema_backing, ATTRS(
        { "type", WORD(DISK_TYPES) }, { "file", PATH }, { "format", WORD(FORMATS) },
        { "job", WORD("copy|active-commit") }, { "ready", WORD("yes|abort|pivot") }) },
    { "target", ATTRS(
        { "dev", CHARS_MAX("a-zA-Z0-9_:", 64) }, { "bus", WORD("ide|fdc|scsi|virtio|xen|usb|uml|sata|sd") },
        { "tray", WORD("open|closed") }, { "removable", ON_OFF }, { "rotation_rate", UINT_OF(1, 65534) }) },
    { "iotune", .children = iotune, .flags = F_PRUNE },
    { "backenddomain", ATTRS({ "name", TEXT_MAX(255), F_NEED }) },
    { "readonly" },
    { "shareable" },
    { "transient", ATTRS({ "shareBacking", YES_NO }) },
    { "serial", CHARS_MAX("A-Za-z0-9_.+ -", 256) },
    { "wwn", CHARS_MAX("0-9a-fA-Fx", 18) },
    { "vendor", CHARS_MAX(" -~", 8) },
    { "product", CHARS_MAX(" -~", 16) },
    ROW_ENCRYPTION,
    ROW_BOOT,
    ROWS_DEVICE,
    { 0 },
};

/* ---- filesystem ---- */

const struct schema_attr schema_filesystem_attrs[] = {
    { "type", WORD("mount|block|file|template|ram|bind|volume"), .otherwise = "mount" },
    { "accessmode", WORD("passthrough|mapped|squash") },
    { "multidevs", WORD("default|remap|forbid|warn") },
    { "fmode", CHARS_MAX("0-7", 4) }, { "dmode", CHARS_MAX("0-7", 4) }, { "model", WORD(VIRTIO_MODELS) }, { 0 },
};
const struct schema_row schema_filesystem[] = {
    { "driver", .flags = F_PRUNE, ATTRS(
        { "type", WORD("path|handle|loop|nbd|ploop|virtiofs") }, { "format", WORD(FORMATS) },
        { "wrpolicy", WORD("immediate") }, { "queue", UINT_OF(1, 1024), .when = "type=virtiofs" }, ATTRS_VIRTIO) },
    { "binary", .flags = F_PRUNE, ATTRS({ "path", PATH }, { "xattr", ON_OFF }), CHILDREN(
        { "cache", .flags = F_PRUNE, ATTRS({ "mode", WORD("none|always") }) },
        { "sandbox", .flags = F_PRUNE, ATTRS({ "mode", WORD("namespace|chroot") }) },
        { "lock", .flags = F_PRUNE, ATTRS({ "posix", ON_OFF }, { "flock", ON_OFF }) },
        { "thread_pool", .flags = F_PRUNE, ATTRS({ "size", INT_OF(0, INT32_MAX) }) }) },
    { "source", .when = "type=mount", .flags = F_NEED, ATTRS({ "dir", PATH }, { "socket", PATH }) },
    { "source", .when = "type=bind", .flags = F_NEED, ATTRS({ "dir", PATH, F_NEED }) },
    { "source", .when = "type=block", .flags = F_NEED, ATTRS({ "dev", PATH, F_NEED }) },
    { "source", .when = "type=file", .flags = F_NEED, ATTRS({ "file", PATH, F_NEED }) },
    { "source", .when = "type=template", .flags = F_NEED, ATTRS({ "name", CHARS(CLASS_GENERIC), F_NEED }) },
    { "source", .when = "type=ram", .flags = F_NEED, ATTRS({ "usage", U64, F_NEED }, { "units", TEXT_MAX(8) }) },
    { "source", .when = "type=volume", .flags = F_NEED, ATTRS(
        { "pool", TEXT_MAX(255), F_NEED }, { "volume", TEXT_MAX(255), F_NEED }) },
    { "target", .flags = F_NEED, ATTRS({ "dir", TEXT_MAX(4096), F_NEED }) },
    { "readonly" },
    { "space_hard_limit", SIZE_BYTES, .attrs = size_attrs },
    { "space_soft_limit", SIZE_BYTES, .attrs = size_attrs },
    ROW_BOOT,
    ROWS_DEVICE,
    { 0 },
};
