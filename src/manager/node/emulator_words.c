/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an emulator can do, in the words of libvirt's domain XML.
 *
 * Spec      A set is named by the element and its attribute: "disk.bus", "interface.model". A row
 *           says which of the emulator's types stand for a word; what has no type of its own
 *           stands in a row for all or for QEMU. The domain capabilities and the
 *           checks of definitions read the same rows. A device that domain/vm_args*.c makes no
 *           command line of has no row: it is neither offered nor accepted.
 * Thread    Any; the tables are constant.
 */
#include "manager/node/emulator.h"

#include <string.h>

enum whose { BY_TYPE, QEMU, BOTH };

struct word_row {
    const char *set, *word;
    enum whose whose;
    const char *types; /* BY_TYPE: any of these, separated by blanks */
};

static const struct word_row rows[] = {
    {"disk.device", "disk", BOTH, NULL},
    {"disk.device", "cdrom", BY_TYPE, "ide-cd scsi-cd"},
    {"disk.device", "floppy", BY_TYPE, "floppy isa-fdc"},
    {"disk.device", "lun", BY_TYPE, "scsi-block"},
    {"disk.bus", "ide", BY_TYPE, "ide-hd"},
    {"disk.bus", "fdc", BY_TYPE, "isa-fdc"},
    {"disk.bus", "scsi", BY_TYPE, "scsi-hd"},
    {"disk.bus", "virtio", BY_TYPE, "virtio-blk-pci virtio-blk-device virtio-blk-ccw"},
    {"disk.bus", "usb", BY_TYPE, "usb-storage"},
    {"disk.bus", "sata", BY_TYPE, "ich9-ahci sysbus-ahci"},
    {"disk.bus", "sd", BY_TYPE, "sd-card"},
    {"disk.model", "virtio", BY_TYPE, "virtio-blk-pci virtio-blk-ccw"},
    {"disk.model", "virtio-transitional", BY_TYPE, "virtio-blk-pci-transitional"},
    {"disk.model", "virtio-non-transitional", BY_TYPE, "virtio-blk-pci-non-transitional"},
    {"disk.type", "file", BOTH, NULL},
    {"disk.type", "block", BOTH, NULL},
    {"disk.type", "network", BOTH, NULL},
    {"disk.type", "volume", BOTH, NULL},
    {"disk.type", "dir", QEMU, NULL},
    {"disk.type", "nvme", QEMU, NULL},
    {"disk.type", "vhostuser", BY_TYPE, "vhost-user-blk-pci"},
    {"controller.type", "pci", BOTH, NULL},
    {"controller.type", "virtio-serial", BY_TYPE, "virtio-serial-pci virtio-serial-device"},
    {"controller.type", "ide", BY_TYPE, "ide-hd"},
    {"controller.type", "fdc", BY_TYPE, "isa-fdc"},
    {"controller.type", "scsi", BY_TYPE, "scsi-hd"},
    {"controller.type", "sata", BY_TYPE, "ich9-ahci"},
    {"controller.type", "usb", BY_TYPE, "qemu-xhci piix3-usb-uhci ich9-usb-ehci1 nec-usb-xhci"},
    {"controller.type", "ccid", BY_TYPE, "usb-ccid"},
    {"controller.pci", "pci-root", BY_TYPE, "i440FX-pcihost"},
    {"controller.pci", "pcie-root", BY_TYPE, "q35-pcihost gpex-pcihost"},
    {"controller.pci", "pcie-root-port", BY_TYPE, "pcie-root-port ioh3420"},
    {"controller.pci", "pci-bridge", BY_TYPE, "pci-bridge"},
    {"controller.pci", "dmi-to-pci-bridge", BY_TYPE, "i82801b11-bridge"},
    {"controller.pci", "pcie-to-pci-bridge", BY_TYPE, "pcie-pci-bridge"},
    {"controller.pci", "pcie-switch-upstream-port", BY_TYPE, "x3130-upstream"},
    {"controller.pci", "pcie-switch-downstream-port", BY_TYPE, "xio3130-downstream"},
    {"controller.pci", "pci-expander-bus", BY_TYPE, "pxb"},
    {"controller.pci", "pcie-expander-bus", BY_TYPE, "pxb-pcie"},
    {"controller.scsi", "virtio-scsi", BY_TYPE, "virtio-scsi-pci virtio-scsi-device"},
    {"controller.scsi", "virtio-transitional", BY_TYPE, "virtio-scsi-pci-transitional"},
    {"controller.scsi", "virtio-non-transitional", BY_TYPE, "virtio-scsi-pci-non-transitional"},
    {"controller.scsi", "lsilogic", BY_TYPE, "lsi53c895a"},
    {"controller.scsi", "lsisas1068", BY_TYPE, "mptsas1068"},
    {"controller.scsi", "lsisas1078", BY_TYPE, "megasas"},
    {"controller.scsi", "vmpvscsi", BY_TYPE, "pvscsi"},
    {"controller.scsi", "am53c974", BY_TYPE, "am53c974"},
    {"controller.scsi", "dc390", BY_TYPE, "dc390"},
    {"controller.usb", "none", BOTH, NULL},
    {"controller.usb", "qemu-xhci", BY_TYPE, "qemu-xhci"},
    {"controller.usb", "nec-xhci", BY_TYPE, "nec-usb-xhci"},
    {"controller.usb", "piix3-uhci", BY_TYPE, "piix3-usb-uhci"},
    {"controller.usb", "piix4-uhci", BY_TYPE, "piix4-usb-uhci"},
    {"controller.usb", "ehci", BY_TYPE, "usb-ehci"},
    {"controller.usb", "ich9-ehci1", BY_TYPE, "ich9-usb-ehci1"},
    {"controller.usb", "ich9-uhci1", BY_TYPE, "ich9-usb-uhci1"},
    {"controller.usb", "ich9-uhci2", BY_TYPE, "ich9-usb-uhci2"},
    {"controller.usb", "ich9-uhci3", BY_TYPE, "ich9-usb-uhci3"},
    {"controller.usb", "pci-ohci", BY_TYPE, "pci-ohci"},
    {"interface.type", "user", BOTH, NULL},
    {"interface.type", "network", BOTH, NULL},
    {"interface.type", "bridge", BOTH, NULL},
    {"interface.type", "ethernet", BOTH, NULL},
    {"interface.type", "direct", BOTH, NULL},
    {"interface.type", "mcast", BOTH, NULL},
    {"interface.type", "server", BOTH, NULL},
    {"interface.type", "client", BOTH, NULL},
    {"interface.type", "udp", BOTH, NULL},
    {"interface.type", "vhostuser", BOTH, NULL},
    {"interface.type", "hostdev", BY_TYPE, "vfio-pci"},
    {"interface.model", "virtio", BY_TYPE, "virtio-net-pci virtio-net-device virtio-net-ccw"},
    {"interface.model", "virtio-transitional", BY_TYPE, "virtio-net-pci-transitional"},
    {"interface.model", "virtio-non-transitional", BY_TYPE, "virtio-net-pci-non-transitional"},
    {"interface.model", "e1000", BY_TYPE, "e1000"},
    {"interface.model", "e1000e", BY_TYPE, "e1000e"},
    {"interface.model", "igb", BY_TYPE, "igb"},
    {"interface.model", "rtl8139", BY_TYPE, "rtl8139"},
    {"interface.model", "pcnet", BY_TYPE, "pcnet"},
    {"interface.model", "ne2k_pci", BY_TYPE, "ne2k_pci"},
    {"interface.model", "vmxnet3", BY_TYPE, "vmxnet3"},
    {"interface.model", "i82551", BY_TYPE, "i82551"},
    {"interface.model", "i82557b", BY_TYPE, "i82557b"},
    {"interface.model", "i82559er", BY_TYPE, "i82559er"},
    {"chardev.type", "pty", BOTH, NULL},
    {"chardev.type", "unix", BOTH, NULL},
    {"chardev.type", "tcp", BOTH, NULL},
    {"chardev.type", "udp", BOTH, NULL},
    {"chardev.type", "file", BOTH, NULL},
    {"chardev.type", "pipe", BOTH, NULL},
    {"chardev.type", "stdio", BOTH, NULL},
    {"chardev.type", "null", BOTH, NULL},
    {"chardev.type", "vc", QEMU, NULL},
    {"chardev.type", "dev", QEMU, NULL},
    {"chardev.type", "spicevmc", BY_TYPE, "chardev-spicevmc"},
    {"chardev.type", "spiceport", BY_TYPE, "chardev-spiceport"},
    {"chardev.type", "qemu-vdagent", BY_TYPE, "chardev-qemu-vdagent"},
    {"serial.target", "isa-serial", BY_TYPE, "isa-serial"},
    {"serial.target", "pci-serial", BY_TYPE, "pci-serial"},
    {"serial.target", "usb-serial", BY_TYPE, "usb-serial"},
    {"serial.target", "isa-debug", BY_TYPE, "isa-debugcon"},
    {"console.target", "serial", BY_TYPE, "isa-serial pl011"},
    {"console.target", "virtio", BY_TYPE, "virtconsole"},
    {"console.target", "sclp", BY_TYPE, "sclpconsole"},
    {"channel.target", "virtio", BY_TYPE, "virtserialport"},
    {"channel.target", "guestfwd", QEMU, NULL},
    {"graphics.type", "vnc", QEMU, NULL},
    {"graphics.type", "spice", BY_TYPE, "chardev-spicevmc"},
    {"graphics.type", "egl-headless", BY_TYPE, "virtio-gpu-gl-pci"},
    {"video.model", "none", BOTH, NULL},
    {"video.model", "vga", BY_TYPE, "VGA"},
    {"video.model", "cirrus", BY_TYPE, "cirrus-vga"},
    {"video.model", "vmvga", BY_TYPE, "vmware-svga"},
    {"video.model", "qxl", BY_TYPE, "qxl-vga"},
    {"video.model", "virtio", BY_TYPE, "virtio-gpu-pci virtio-gpu-device"},
    {"video.model", "bochs", BY_TYPE, "bochs-display"},
    {"video.model", "ramfb", BY_TYPE, "ramfb"},
    {"input.type", "mouse", BY_TYPE, "ps2-mouse usb-mouse"},
    {"input.type", "keyboard", BY_TYPE, "i8042 ps2-kbd usb-kbd"},
    {"input.type", "tablet", BY_TYPE, "usb-tablet virtio-tablet-pci"},
    {"input.type", "passthrough", BY_TYPE, "virtio-input-host-pci"},
    {"input.bus", "ps2", BY_TYPE, "i8042"},
    {"input.bus", "usb", BY_TYPE, "usb-tablet"},
    {"input.bus", "virtio", BY_TYPE, "virtio-tablet-pci"},
    {"sound.model", "ich6", BY_TYPE, "intel-hda"},
    {"sound.model", "ich9", BY_TYPE, "ich9-intel-hda"},
    {"sound.model", "ac97", BY_TYPE, "AC97"},
    {"sound.model", "es1370", BY_TYPE, "ES1370"},
    {"sound.model", "sb16", BY_TYPE, "sb16"},
    {"sound.model", "pcspk", BY_TYPE, "isa-pcspk"},
    {"sound.model", "usb", BY_TYPE, "usb-audio"},
    {"rng.model", "virtio", BY_TYPE, "virtio-rng-pci virtio-rng-device virtio-rng-ccw"},
    {"rng.model", "virtio-transitional", BY_TYPE, "virtio-rng-pci-transitional"},
    {"rng.model", "virtio-non-transitional", BY_TYPE, "virtio-rng-pci-non-transitional"},
    {"rng.backend", "random", BOTH, NULL},
    {"rng.backend", "egd", QEMU, NULL},
    {"rng.backend", "builtin", BOTH, NULL},
    {"memballoon.model", "none", BOTH, NULL},
    {"memballoon.model", "virtio", BY_TYPE, "virtio-balloon-pci virtio-balloon-device"},
    {"memballoon.model", "virtio-transitional", BY_TYPE, "virtio-balloon-pci-transitional"},
    {"memballoon.model", "virtio-non-transitional", BY_TYPE, "virtio-balloon-pci-non-transitional"},
    {"watchdog.model", "i6300esb", BY_TYPE, "i6300esb"},
    {"watchdog.model", "ib700", BY_TYPE, "ib700"},
    {"watchdog.model", "diag288", BY_TYPE, "diag288"},
    {"panic.model", "isa", BY_TYPE, "pvpanic"},
    {"panic.model", "hyperv", QEMU, NULL},
    {"memoryBacking.source", "file", BOTH, NULL},
    {"memoryBacking.source", "anonymous", BOTH, NULL},
    {"memoryBacking.source", "memfd", BOTH, NULL},
    {"feature", "vmcoreinfo", BY_TYPE, "vmcoreinfo"},
    {"feature", "genid", BY_TYPE, "vmgenid"},
    {"feature", "hyperv", QEMU, NULL},
    {"feature", "iothreads", BOTH, NULL},
    {"feature", "backup", BOTH, NULL},
    {"feature", "firmware", QEMU, NULL},
};

static bool any_type(GHashTable *types, const char *names)
{
    g_auto(GStrv) list = g_strsplit(names, " ", -1);
    for (char **n = list; *n; n++)
        if (g_hash_table_contains(types, *n))
            return true;
    return false;
}

GHashTable *emulator_words(bool ours, GHashTable *types)
{
    GHashTable *words = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
        const struct word_row *r = &rows[i];
        bool has = r->whose == BOTH || (r->whose == QEMU && !ours) ||
                   (r->whose == BY_TYPE && any_type(types, r->types));
        if (has)
            g_hash_table_add(words, g_strdup_printf("%s=%s", r->set, r->word));
    }
    return words;
}

bool emulator_has(const struct emulator *e, const char *set, const char *word)
{
    g_autofree char *key = g_strdup_printf("%s=%s", set, word);
    return g_hash_table_contains(e->words, key);
}

const char **emulator_set(const struct emulator *e, const char *set)
{
    GPtrArray *found = g_ptr_array_new();
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++)
        if (!strcmp(rows[i].set, set) && emulator_has(e, set, rows[i].word))
            g_ptr_array_add(found, (gpointer)rows[i].word);
    g_ptr_array_add(found, NULL);
    return (const char **)g_ptr_array_free(found, FALSE);
}
