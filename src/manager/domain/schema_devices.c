/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tables: devices, each by its element, and what they have in common: addresses, aliases, boot order.
 *
 * Spec      libvirt's formatdomain, "Devices", at 9.0.0; the order is that of its dumpxml.
 */
#include "manager/domain/schema_table.h"

/* clang-format off */
static const struct schema_attr size_attrs[] = { { "unit", TEXT }, { 0 } };

/* ---- parts ---- */

const struct schema_attr schema_alias[] = { { "name", CHARS_MAX(CLASS_ALIAS, 128), F_NEED }, { 0 } };
const struct schema_attr schema_boot[] = {
    { "order", UINT_OF(1, INT32_MAX), F_NEED }, { "loadparm", CHARS_MAX("a-zA-Z0-9. ", 8) }, { 0 } };
const struct schema_attr schema_acpi_index[] = { { "index", UINT_OF(1, 16383) }, { 0 } };
const struct schema_attr schema_rom[] = { { "bar", ON_OFF }, { "enabled", YES_NO }, { "file", PATH }, { 0 } };

#define PCI .when = "type=pci"
const struct schema_attr schema_address[] = {
    { "type", WORD("pci|drive|virtio-serial|ccid|usb|spapr-vio|ccw|isa|virtio-mmio|dimm|unassigned"), F_NEED },
    /* of PCI all or nothing is there: nothing asks for a place */
    { "domain", HEX(4, UINT32_MAX), PCI }, { "bus", HEX(2, 0xff), PCI }, { "slot", HEX(2, 0x1f), PCI },
    { "function", HEX(1, 7), PCI },
    { "multifunction", ON_OFF, PCI },
    { "controller", UINT_OF(0, 255), .when = "type=drive|virtio-serial|ccid", .otherwise = "0" },
    { "bus", UINT_OF(0, 255), .when = "type=drive|virtio-serial|usb", .otherwise = "0" },
    { "target", UINT_OF(0, 65535), .when = "type=drive", .otherwise = "0" },
    { "unit", UINT_OF(0, 65535), .when = "type=drive", .otherwise = "0" },
    { "port", UINT_OF(0, 255), .when = "type=virtio-serial" }, { "port", CHARS_MAX("0-9.", 16), .when = "type=usb" },
    { "slot", UINT_OF(0, 255), .when = "type=ccid|dimm", .otherwise = "0" },
    { "base", HEX(1, INT64_MAX), .when = "type=dimm" },
    { "reg", HEX(8, UINT32_MAX), .when = "type=spapr-vio" },
    { "cssid", HEX(2, 0xfe), .when = "type=ccw" }, { "ssid", HEX(1, 3), .when = "type=ccw" },
    { "devno", HEX(4, 0xffff), .when = "type=ccw" },
    { "iobase", HEX(1, 0xffff), .when = "type=isa" }, { "irq", HEX(1, 0xffff), .when = "type=isa" },
    { 0 },
};
const struct schema_row schema_zpci[] = {
    { "zpci", .when = "type=pci", .flags = F_PRUNE, ATTRS(
        { "uid", HEX(4, 0xffff) }, { "fid", HEX(8, UINT32_MAX) }) },
    { 0 },
};

/* ---- controllers ---- */

#define USB_MODELS "piix3-uhci|piix4-uhci|ehci|ich9-ehci1|ich9-uhci1|ich9-uhci2|ich9-uhci3|vt82c686b-uhci|pci-ohci|" \
    "nec-xhci|qemu-xhci|qusb1|qusb2|none"
#define SCSI_MODELS "auto|buslogic|lsilogic|lsisas1068|vmpvscsi|ibmvscsi|virtio-scsi|lsisas1078|" VIRTIO_MODELS \
    "|ncr53c90|dc390|am53c974"
#define PCI_MODELS "pci-root|pcie-root|pci-bridge|dmi-to-pci-bridge|pcie-to-pci-bridge|pcie-root-port|" \
    "pcie-switch-upstream-port|pcie-switch-downstream-port|pci-expander-bus|pcie-expander-bus"
#define PCI_NAMES "pci-bridge|i82801b11-bridge|pcie-pci-bridge|ioh3420|pcie-root-port|x3130-upstream|" \
    "xio3130-downstream|pxb|pxb-pcie|spapr-pci-host-bridge"

static const struct schema_row controllers[] = {
    { "model", .when = "type=pci", .flags = F_PRUNE, ATTRS({ "name", WORD(PCI_NAMES) }) },
    { "target", .when = "type=pci", .flags = F_PRUNE, ATTRS(
          { "chassisNr", UINT_OF(1, 255) }, { "chassis", UINT_OF(0, 255) }, { "port", HEX(1, 255) },
          { "busNr", UINT_OF(1, 254) }, { "index", UINT_OF(0, 30) }, { "hotplug", ON_OFF }), CHILDREN(
        { "node", UINT_OF(0, 1023) }) },
    { "pcihole64", SIZE, .when = "model=pci-root|pcie-root", .attrs = size_attrs },
    { "master", .when = "type=usb", ATTRS({ "startport", UINT_OF(0, 255), F_NEED }) },
    { "driver", .flags = F_PRUNE, ATTRS(
        { "queues", UINT_OF(1, 1024) }, { "cmd_per_lun", UINT }, { "max_sectors", UINT }, { "ioeventfd", ON_OFF },
        { "iothread", UINT_OF(1, UINT32_MAX) }, ATTRS_VIRTIO) },
    ROWS_DEVICE,
    { 0 },
};
static const struct schema_attr controller_attrs[] = {
    { "type", WORD("ide|fdc|scsi|sata|virtio-serial|ccid|usb|pci|xenbus|isa"), F_NEED },
    { "index", UINT_OF(0, INT32_MAX) },
    { "model", WORD(PCI_MODELS), F_NEED, .when = "type=pci" }, { "model", WORD(USB_MODELS), .when = "type=usb" },
    { "model", WORD(SCSI_MODELS), .when = "type=scsi" }, { "model", WORD("piix3|piix4|ich6"), .when = "type=ide" },
    { "model", WORD(VIRTIO_MODELS), .when = "type=virtio-serial" },
    { "ports", UINT_OF(1, 256), .when = "type=usb|virtio-serial" },
    { "vectors", UINT_OF(0, 2048), .when = "type=virtio-serial" },
    { "maxGrantFrames", UINT, .when = "type=xenbus" }, { "maxEventChannels", UINT, .when = "type=xenbus" }, { 0 },
};

/* ---- display, sound, input ---- */

#define PORT INT_OF(-1, 65535)
#define COMPRESSION(name, words) { name, .when = "type=spice", ATTRS({ "compression", WORD(words), F_NEED }) }
#define SPICE_MODES "any|secure|insecure"

static const struct schema_attr graphics_attrs[] = {
    { "type", WORD("vnc|spice|rdp|sdl|desktop|egl-headless|dbus"), F_NEED },
    { "port", PORT, .when = "type=vnc|spice|rdp" }, { "tlsPort", PORT, .when = "type=spice" },
    { "autoport", YES_NO, .when = "type=vnc|spice|rdp" },
    { "websocket", PORT, .when = "type=vnc" },
    { "socket", PATH, .when = "type=vnc" },
    { "listen", CHARS_MAX(CLASS_HOST, 255), .when = "type=vnc|spice|rdp" },
    { "keymap", CHARS_MAX("a-zA-Z0-9_-", 64), .when = "type=vnc|spice" },
    { "defaultMode", WORD(SPICE_MODES), .when = "type=spice" },
    { "passwd", TEXT_MAX(1024), F_SECRET, .when = "type=vnc|spice" },
    { "passwdValidTo", CHARS_MAX("0-9T:Z.+-", 40), F_SECRET, .when = "type=vnc|spice" },
    { "connected", WORD("fail|disconnect|keep"), .when = "type=spice" }, { "connected", WORD("keep"), .when = "type=vnc" },
    { "sharePolicy", WORD("allow-exclusive|force-shared|ignore"), .when = "type=vnc" },
    { "powerControl", YES_NO, .when = "type=vnc" },
    { "display", TEXT_MAX(255), .when = "type=sdl|desktop" }, { "xauth", TEXT_MAX(4095), .when = "type=sdl" },
    { "fullscreen", YES_NO, .when = "type=sdl|desktop" },
    { "replaceUser", YES_NO, .when = "type=rdp" }, { "multiUser", YES_NO, .when = "type=rdp" },
    { "p2p", YES_NO, .when = "type=dbus" }, { "address", TEXT_MAX(1024), .when = "type=dbus" }, { 0 },
};
static const struct schema_row graphics[] = {
    { "listen", .when = "type=vnc|spice|rdp", .flags = F_MANY, ATTRS(
        { "type", WORD("address|network|socket|none"), F_NEED },
        { "address", CHARS_MAX(CLASS_HOST, 255), .when = "type=address" },
        { "address", CHARS_MAX(CLASS_HOST, 255), F_LIVE, .when = "type=network" },
        { "network", TEXT_MAX(255), F_NEED, .when = "type=network" },
        { "socket", PATH, .when = "type=socket" }) },
    { "channel", .when = "type=spice", .flags = F_MANY, ATTRS(
        { "name", WORD("main|display|inputs|cursor|playback|record|smartcard|usbredir"), F_NEED },
        { "mode", WORD(SPICE_MODES), F_NEED }) },
    COMPRESSION("image", "auto_glz|auto_lz|quic|glz|lz|off"),
    COMPRESSION("jpeg", "auto|never|always"),
    COMPRESSION("zlib", "auto|never|always"),
    COMPRESSION("playback", "on|off"),
    { "streaming", .when = "type=spice", ATTRS({ "mode", WORD("filter|all|off"), F_NEED }) },
    { "mouse", .when = "type=spice", ATTRS({ "mode", WORD("server|client"), F_NEED }) },
    { "clipboard", .when = "type=spice", ATTRS({ "copypaste", YES_NO, F_NEED }) },
    { "filetransfer", .when = "type=spice", ATTRS({ "enable", YES_NO, F_NEED }) },
    { "gl", .when = "type=sdl", ATTRS({ "enable", YES_NO, F_NEED }) },
    { "gl", .when = "type=spice|dbus", ATTRS({ "enable", YES_NO, F_NEED }, { "rendernode", PATH }) },
    { "gl", .when = "type=egl-headless", .flags = F_PRUNE, ATTRS({ "rendernode", PATH }) },
    { "audio", .when = "type=vnc|dbus", ATTRS({ "id", UINT_OF(1, 255), F_NEED }) },
    { 0 },
};

static const struct schema_row video[] = {
    { "driver", .flags = F_PRUNE, ATTRS(
        { "name", WORD("qemu|vhostuser") }, { "vgaconf", WORD("io|on|off") }, ATTRS_VIRTIO) },
    { "model", ATTRS(
          { "type", WORD("vga|cirrus|vmvga|xen|vbox|virtio|gop|none|bochs|ramfb|qxl") },
          { "ram", UINT, .when = "type=qxl" }, { "vram", UINT }, { "vram64", UINT, .when = "type=qxl" },
          { "vgamem", UINT, .when = "type=qxl" }, { "heads", UINT_OF(1, 64) }, { "primary", YES_NO },
          { "blob", ON_OFF, .when = "type=virtio" }), CHILDREN(
        { "acceleration", .flags = F_PRUNE, ATTRS(
            { "accel3d", YES_NO }, { "accel2d", YES_NO }, { "rendernode", PATH }) },
        { "resolution", ATTRS({ "x", UINT_OF(1, 65535), F_NEED }, { "y", UINT_OF(1, 65535), F_NEED }) }) },
    ROWS_DEVICE,
    { 0 },
};

static const struct schema_attr audio_attrs[] = {
    { "id", UINT_OF(1, 255), F_NEED },
    { "type", WORD("none|alsa|coreaudio|jack|oss|pulseaudio|sdl|spice|file|dbus"), F_NEED },
    { "tryMMap", YES_NO, .when = "type=oss" }, { "exclusive", YES_NO, .when = "type=oss" },
    { "dspPolicy", INT_OF(-1, 10), .when = "type=oss" },
    { "serverName", TEXT_MAX(255), .when = "type=pulseaudio" },
    { "driver", WORD("esd|alsa|arts|pulseaudio"), .when = "type=sdl" }, { "path", PATH, .when = "type=file" },
    { "timerPeriod", UINT_OF(1, UINT32_MAX) }, { 0 },
};
#define AUDIO_ATTRS { "mixingEngine", YES_NO }, { "fixedSettings", YES_NO }, { "voices", UINT_OF(1, UINT32_MAX) }, \
    { "bufferLength", UINT_OF(1, UINT32_MAX) }
#define AUDIO_SIDE(name) { name, .flags = F_PRUNE, .attrs = audio_side_attrs, .children = audio_side }
/* What only some back ends have is told apart by the machine: vm_check_def(). */
static const struct schema_attr audio_side_attrs[] = {
    AUDIO_ATTRS, { "dev", TEXT_MAX(255) }, { "bufferCount", UINT_OF(1, UINT32_MAX) }, { "tryPoll", YES_NO },
    { "name", TEXT_MAX(255) }, { "streamName", TEXT_MAX(255) }, { "latency", UINT_OF(1, UINT32_MAX) },
    { "serverName", TEXT_MAX(255) }, { "clientName", TEXT_MAX(255) }, { "connectPorts", TEXT_MAX(255) },
    { "exactName", YES_NO }, { 0 },
};
static const struct schema_row audio_side[] = {
    { "settings", .flags = F_PRUNE, ATTRS(
        { "frequency", UINT_OF(1, UINT32_MAX) }, { "channels", UINT_OF(1, 64) },
        { "format", WORD("s8|u8|s16|u16|s32|u32|f32") }) },
    { 0 },
};
static const struct schema_row audio[] = { AUDIO_SIDE("input"), AUDIO_SIDE("output"), { 0 } };

/* ---- host devices ---- */

static const struct schema_attr hostdev_attrs[] = {
    { "mode", WORD("subsystem|capabilities"), .otherwise = "subsystem" },
    { "type", WORD("usb|pci|scsi|scsi_host|mdev"), F_NEED, .when = "mode=subsystem" },
    { "type", WORD("storage|misc|net"), F_NEED, .when = "mode=capabilities" },
    { "managed", YES_NO, .when = "mode=subsystem", .otherwise = "no" },
    { "rawio", YES_NO, .when = "type=scsi" }, { "sgio", WORD("filtered|unfiltered"), .when = "type=scsi" },
    { "model", WORD(VIRTIO_MODELS), .when = "type=scsi_host" },
    { "model", WORD("vfio-pci|vfio-ccw|vfio-ap"), F_NEED, .when = "type=mdev" },
    { "display", ON_OFF, .when = "type=mdev" }, { "ramfb", ON_OFF, .when = "type=mdev" }, { 0 },
};
static const struct schema_row usb_source[] = {
    { "vendor", ATTRS({ "id", HEX(4, 0xffff), F_NEED }) },
    { "product", ATTRS({ "id", HEX(4, 0xffff), F_NEED }) },
    { "address", ATTRS({ "bus", UINT_OF(0, 255), F_NEED }, { "device", UINT_OF(0, 255), F_NEED }) },
    { 0 },
};
static const struct schema_row scsi_source[] = {
    { "adapter", .when = "protocol!=iscsi", .flags = F_NEED, ATTRS({ "name", TEXT_MAX(255), F_NEED }) },
    { "address", .when = "protocol!=iscsi", .flags = F_NEED, ATTRS(
        { "bus", UINT, F_NEED }, { "target", UINT, F_NEED }, { "unit", U64, F_NEED }) },
    { "host", .when = "protocol=iscsi", .flags = F_NEED | F_MANY, ATTRS(
        { "name", CHARS_MAX(CLASS_HOST, 255), F_NEED }, { "port", UINT_OF(1, 65535) }) },
    { "auth", .when = "protocol=iscsi", .children = schema_auth_secret, ATTRS(
        { "username", CHARS_MAX(CLASS_GENERIC, 255), F_NEED }) },
    { "initiator", .when = "protocol=iscsi", CHILDREN(
        { "iqn", .flags = F_NEED, ATTRS({ "name", TEXT_MAX(255), F_NEED }) }) },
    { 0 },
};
#define STARTUP { "startupPolicy", WORD("mandatory|requisite|optional") }
static const struct schema_row hostdev[] = {
    { "driver", .when = "type=pci", .flags = F_PRUNE, ATTRS({ "name", WORD("kvm|vfio|xen") }) },
    { "teaming", .when = "type=pci", ATTRS(
        { "type", WORD("persistent|transient"), F_NEED },
        { "persistent", CHARS_MAX(CLASS_ALIAS, 255), F_NEED, .when = "type=transient" }) },
    { "source", .when = "type=pci", .flags = F_NEED, ATTRS(STARTUP, { "writeFiltering", YES_NO }), CHILDREN(
        { "address", .flags = F_NEED, ATTRS(
            { "domain", HEX(4, UINT32_MAX), .otherwise = "0x0000" }, { "bus", HEX(2, 0xff), F_NEED },
            { "slot", HEX(2, 0x1f), F_NEED }, { "function", HEX(1, 7), F_NEED }) }) },
    { "source", .when = "type=usb", .flags = F_NEED, .children = usb_source, ATTRS(
        STARTUP, { "guestReset", WORD("off|uninitialized|on") }) },
    { "source", .when = "type=scsi", .flags = F_NEED, .children = scsi_source, ATTRS(
        { "protocol", WORD("adapter|iscsi") }, { "name", TEXT_MAX(255), F_NEED, .when = "protocol=iscsi" }) },
    { "source", .when = "type=scsi_host", .flags = F_NEED, ATTRS(
        { "protocol", WORD("vhost"), F_NEED }, { "wwpn", CHARS_MAX("na.0-9a-fA-F", 20), F_NEED }) },
    { "source", .when = "type=mdev", .flags = F_NEED, CHILDREN(
        { "address", .flags = F_NEED, ATTRS({ "uuid", UUID, F_NEED }) }) },
    { "source", .when = "type=storage", .flags = F_NEED, CHILDREN({ "block", PATH, .flags = F_NEED | F_TEXT }) },
    { "source", .when = "type=misc", .flags = F_NEED, CHILDREN({ "char", PATH, .flags = F_NEED | F_TEXT }) },
    { "source", .when = "type=net", .flags = F_NEED, CHILDREN(
        { "interface", CHARS_MAX(CLASS_DEVICE, 15), .flags = F_NEED | F_TEXT }) },
    { "readonly" }, { "shareable" },
    ROW_BOOT,
    { "rom", .attrs = schema_rom, .flags = F_PRUNE },
    ROWS_DEVICE,
    { 0 },
};

/* ---- memory, TPM ---- */

static const struct schema_attr memory_attrs[] = {
    { "model", WORD("dimm|nvdimm|virtio-pmem|virtio-mem|sgx-epc"), F_NEED }, { "access", WORD("shared|private") },
    { "discard", YES_NO }, { 0 },
};
static const struct schema_row memory[] = {
    { "uuid", UUID, .when = "model=nvdimm|virtio-pmem" },
    { "source", .flags = F_PRUNE, CHILDREN(
        { "path", PATH }, { "alignsize", SIZE, .attrs = size_attrs }, { "pmem" },
        { "pagesize", SIZE, .attrs = size_attrs }, { "nodemask", CPUSET }) },
    { "target", .flags = F_NEED, CHILDREN(
        { "size", SIZE, .attrs = size_attrs, .flags = F_NEED | F_TEXT }, { "node", UINT_OF(0, 1023) },
        { "label", CHILDREN({ "size", SIZE, .attrs = size_attrs, .flags = F_NEED | F_TEXT }) },
        { "readonly" },
        { "block", SIZE, .attrs = size_attrs }, { "requested", SIZE, .attrs = size_attrs },
        { "current", SIZE, .attrs = size_attrs, .flags = F_LIVE }) },
    ROWS_DEVICE,
    { 0 },
};

static const struct schema_row tpm[] = {
    { "backend", .flags = F_NEED, ATTRS(
          { "type", WORD("passthrough|emulator|external"), F_NEED }, { "version", WORD("1.2|2.0"), .when = "type=emulator" },
          { "persistent_state", YES_NO, .when = "type=emulator" }), CHILDREN(
        { "device", .when = "type=passthrough", .flags = F_PRUNE, ATTRS({ "path", PATH }) },
        { "source", .when = "type=external", .flags = F_NEED, ATTRS(
            { "type", WORD("unix"), F_NEED }, { "mode", WORD("connect"), F_NEED }, { "path", PATH, F_NEED }) },
        { "encryption", .when = "type=emulator", ATTRS({ "secret", UUID, F_NEED }) },
        { "active_pcr_banks", .when = "type=emulator", .flags = F_PRUNE, CHILDREN(
            { "sha1" }, { "sha256" }, { "sha384" }, { "sha512" }) }) },
    ROWS_DEVICE,
    { 0 },
};

static const struct schema_row rng[] = {
    { "rate", ATTRS({ "bytes", UINT_OF(1, UINT32_MAX), F_NEED }, { "period", UINT_OF(1, UINT32_MAX) }) },
    { "backend", PATH, .flags = F_NEED, .children = schema_rng_egd, ATTRS(
        { "model", WORD("random|egd|builtin"), F_NEED },
        { "type", WORD("unix|tcp|udp|pty|dev|file|pipe|null|stdio|vc"), F_NEED, .when = "model=egd" }) },
    { "driver", .flags = F_PRUNE, ATTRS(ATTRS_VIRTIO) },
    ROWS_DEVICE,
    { 0 },
};

/* ---- the list ---- */

static const struct schema_row device_only[] = { ROWS_DEVICE, { 0 } };
#define SIMPLE(...) CHILDREN(__VA_ARGS__, ROWS_DEVICE)
#define ROW_VIRTIO_DRIVER { "driver", .flags = F_PRUNE, ATTRS(ATTRS_VIRTIO) }

const struct schema_row schema_devices[] = {
    { "emulator", PATH, .flags = F_TEXT },
    { "disk", .flags = F_MANY, .attrs = schema_disk_attrs, .children = schema_disk },
    { "controller", .flags = F_MANY, .attrs = controller_attrs, .children = controllers },
    { "lease", .flags = F_MANY, CHILDREN(
        { "lockspace", TEXT_MAX(255) }, { "key", TEXT_MAX(255), .flags = F_NEED | F_TEXT },
        { "target", .flags = F_NEED, ATTRS({ "path", PATH, F_NEED }, { "offset", U64 }) }) },
    { "filesystem", .flags = F_MANY, .attrs = schema_filesystem_attrs, .children = schema_filesystem },
    { "interface", .flags = F_MANY, .attrs = schema_interface_attrs, .children = schema_interface },
    { "smartcard", .flags = F_MANY, .children = schema_smartcard, ATTRS(
        { "mode", WORD("host|host-certificates|passthrough"), F_NEED },
        { "type", WORD("dev|file|pipe|unix|tcp|udp|null|stdio|vc|pty|spicevmc|spiceport|nmdm"), F_NEED,
          .when = "mode=passthrough" }) },
    { "serial", .flags = F_MANY, .attrs = schema_serial_attrs, .children = schema_serial },
    { "parallel", .flags = F_MANY, .attrs = schema_serial_attrs, .children = schema_parallel },
    { "console", .flags = F_MANY, .attrs = schema_serial_attrs, .children = schema_console },
    { "channel", .flags = F_MANY, .attrs = schema_serial_attrs, .children = schema_channel },
    { "input", .flags = F_MANY, ATTRS(
          { "type", WORD("mouse|tablet|keyboard|passthrough|evdev"), F_NEED },
          { "bus", WORD("ps2|usb|xen|virtio|parallels|none"), .when = "type!=evdev" },
          { "model", WORD(VIRTIO_MODELS), .when = "bus=virtio" }), SIMPLE(
        ROW_VIRTIO_DRIVER,
        { "source", .when = "type=passthrough", .flags = F_NEED, ATTRS({ "evdev", PATH, F_NEED }) },
        { "source", .when = "type=evdev", .flags = F_NEED, ATTRS(
            { "dev", PATH, F_NEED }, { "grab", WORD("all") },
            { "grabToggle", WORD("ctrl-ctrl|alt-alt|shift-shift|meta-meta|scrolllock|ctrl-scrolllock") },
            { "repeat", ON_OFF }) }) },
    { "tpm", .flags = F_MANY, .children = tpm, ATTRS(
        { "model", WORD("tpm-tis|tpm-crb|tpm-spapr|spapr-tpm-proxy") }) },
    { "graphics", .flags = F_MANY, .attrs = graphics_attrs, .children = graphics },
    { "sound", .flags = F_MANY, ATTRS({ "model", WORD("sb16|es1370|pcspk|ac97|ich6|ich7|ich9|usb"), F_NEED }), SIMPLE(
        { "codec", .flags = F_MANY, ATTRS({ "type", WORD("duplex|micro|output"), F_NEED }) },
        { "audio", ATTRS({ "id", UINT_OF(1, 255), F_NEED }) }) },
    { "audio", .flags = F_MANY, .attrs = audio_attrs, .children = audio },
    { "video", .flags = F_MANY, .children = video },
    { "hostdev", .flags = F_MANY, .attrs = hostdev_attrs, .children = hostdev },
    { "redirdev", .flags = F_MANY, .children = schema_redirdev, ATTRS(
        { "bus", WORD("usb"), .otherwise = "usb" },
        { "type", WORD("spicevmc|tcp|unix|pty|dev|file|pipe|udp|null|stdio|vc"), F_NEED }) },
    { "redirfilter", .flags = F_PRUNE, CHILDREN(
        { "usbdev", .flags = F_MANY, ATTRS(
            { "class", CHARS_MAX("0-9a-fA-Fx-", 4) }, { "vendor", CHARS_MAX("0-9a-fA-Fx-", 6) },
            { "product", CHARS_MAX("0-9a-fA-Fx-", 6) }, { "version", CHARS_MAX("0-9.-", 5) },
            { "allow", YES_NO, F_NEED }) }) },
    { "hub", .flags = F_MANY, .children = device_only, ATTRS({ "type", WORD("usb"), F_NEED }) },
    { "watchdog", ATTRS(
          { "model", WORD("i6300esb|ib700|diag288|itco"), F_NEED },
          { "action", WORD("reset|shutdown|poweroff|pause|none|dump|inject-nmi"), .otherwise = "reset" }),
      .children = device_only },
    { "memballoon", ATTRS(
          { "model", WORD(VIRTIO_MODELS "|xen|none"), F_NEED }, { "autodeflate", ON_OFF },
          { "freePageReporting", ON_OFF }), SIMPLE(
        { "stats", .when = "model!=none", ATTRS({ "period", UINT_OF(0, INT32_MAX), F_NEED }) }, ROW_VIRTIO_DRIVER) },
    { "rng", .flags = F_MANY, .children = rng, ATTRS({ "model", WORD(VIRTIO_MODELS), F_NEED }) },
    { "nvram", .children = device_only },
    { "panic", .flags = F_MANY, .children = device_only, ATTRS({ "model", WORD("isa|pseries|hyperv|s390") }) },
    { "shmem", .flags = F_MANY, ATTRS(
          { "name", CHARS_MAX(" -.0-~", 255), F_NEED }, { "role", WORD("master|peer") }), SIMPLE(
        { "model", ATTRS({ "type", WORD("ivshmem|ivshmem-plain|ivshmem-doorbell"), F_NEED }) },
        { "size", SIZE_BYTES, .attrs = size_attrs },
        { "server", .flags = F_PRUNE, ATTRS({ "path", PATH }) },
        { "msi", ATTRS({ "vectors", UINT }, { "ioeventfd", ON_OFF }) }) },
    { "memory", .flags = F_MANY, .attrs = memory_attrs, .children = memory },
    { "crypto", .flags = F_MANY, ATTRS(
          { "model", WORD("virtio"), F_NEED }, { "type", WORD("qemu"), F_NEED }), SIMPLE(
        { "backend", .flags = F_NEED, ATTRS({ "model", WORD("builtin|lkcf"), F_NEED }, { "queues", UINT_OF(1, 256) }) }) },
    { "iommu", ATTRS({ "model", WORD("intel|smmuv3|virtio"), F_NEED }), SIMPLE(
        { "driver", .flags = F_PRUNE, ATTRS(
            { "intremap", ON_OFF }, { "caching_mode", ON_OFF }, { "eim", ON_OFF }, { "iotlb", ON_OFF },
            { "aw_bits", UINT_OF(1, 64) }) }) },
    { "vsock", ATTRS({ "model", WORD(VIRTIO_MODELS) }), SIMPLE(
        { "cid", .flags = F_PRUNE, ATTRS({ "auto", YES_NO }, { "address", UINT_OF(3, UINT32_MAX) }) },
        ROW_VIRTIO_DRIVER) },
    { 0 },
};
