/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Command lines: controllers, displays, and devices that are one line each; see vm_args.h. */
#include "manager/domain/vm_args.h"

#include "manager/error.h"

#include <string.h>

/* ---- controllers ---- */

/* The id and, of PCI bridges, the number of a controller. */
static void pci_controller(GString *s, const struct xml_node *c)
{
    unsigned index = (unsigned)xml_get_u64(c, "@index", 0);
    const char *model = xml_get_or(c, "@model", "");
    if (!strcmp(model, "pcie-root-port") || !strcmp(model, "pcie-switch-downstream-port")) {
        opt_addf(s, "port", "%u", (unsigned)xml_get_u64(c, "target@port", index));
        opt_addf(s, "chassis", "%u", (unsigned)xml_get_u64(c, "target@chassis", index));
    } else if (!strcmp(model, "pci-bridge")) {
        opt_addf(s, "chassis_nr", "%u", (unsigned)xml_get_u64(c, "target@chassisNr", index));
    }
    opt_addf(s, "id", "pci.%u", index);
}

static void alias_controller(GString *s, const struct xml_node *c)
{
    opt_add(s, "id", args_alias(c));
    opt_add(s, "max_ports", xml_get(c, "@ports"));
    opt_add(s, "num_queues", xml_get(c, "driver@queues"));
    const char *io = xml_get(c, "driver@iothread");
    if (io)
        opt_addf(s, "iothread", "iothread%s", io);
    const struct xml_node *master = xml_find(c, "master");
    if (master) {
        g_autofree char *usb = g_strdup(args_alias(c));
        opt_addf(s, "masterbus", "%s.0", usb);
        opt_add(s, "firstport", xml_get(master, "@startport"));
    }
}

static const struct {
    const char *type, *model, *device; /* device NULL: a part of the board */
    void (*fn)(GString *s, const struct xml_node *c);
} controllers[] = {
    {"pci", "pcie-root", NULL, NULL},
    {"pci", "pci-root", NULL, NULL},
    {"pci", "pcie-root-port", "pcie-root-port", pci_controller},
    {"pci", "pci-bridge", "pci-bridge", pci_controller},
    {"pci", "pcie-to-pci-bridge", "pcie-pci-bridge", pci_controller},
    {"pci", "dmi-to-pci-bridge", "i82801b11-bridge", pci_controller},
    {"pci", "pcie-switch-upstream-port", "x3130-upstream", pci_controller},
    {"pci", "pcie-switch-downstream-port", "xio3130-downstream", pci_controller},
    {"virtio-serial", NULL, "virtio-serial-pci", alias_controller},
    {"scsi", "lsilogic", "lsi", alias_controller},
    {"scsi", NULL, "virtio-scsi-pci", alias_controller},
    {"usb", "none", NULL, NULL},
    {"usb", "piix3-uhci", "piix3-usb-uhci", alias_controller},
    {"usb", "piix4-uhci", "piix4-usb-uhci", alias_controller},
    {"usb", "ehci", "usb-ehci", alias_controller},
    {"usb", "ich9-ehci1", "ich9-usb-ehci1", alias_controller},
    {"usb", "ich9-uhci1", "ich9-usb-uhci1", alias_controller},
    {"usb", "ich9-uhci2", "ich9-usb-uhci2", alias_controller},
    {"usb", "ich9-uhci3", "ich9-usb-uhci3", alias_controller},
    {"usb", "nec-xhci", "nec-usb-xhci", alias_controller},
    {"usb", "qemu-xhci", "qemu-xhci", alias_controller},
    {"usb", NULL, "piix3-usb-uhci", alias_controller},
    {"sata", NULL, "ich9-ahci", alias_controller},
    {"ide", NULL, NULL, NULL},
    {"fdc", NULL, "isa-fdc", alias_controller},
};

static bool add_controller(struct vm_args *a, const struct xml_node *c, GError **error)
{
    const char *type = xml_get_or(c, "@type", ""), *model = xml_get(c, "@model");
    /* The first SATA controller is the board's, and i440fx has one for floppy disks. */
    if (!strcmp(type, "sata") && xml_get_u64(c, "@index", 0) == 0)
        return true;
    if (!strcmp(type, "fdc") && !strcmp(args_root_bus(a), "pci.0"))
        return true;
    for (size_t i = 0; i < G_N_ELEMENTS(controllers); i++) {
        if (strcmp(controllers[i].type, type) ||
            (controllers[i].model && g_strcmp0(controllers[i].model, model)))
            continue;
        if (!controllers[i].device)
            return true;
        GString *s = opt_new(controllers[i].device);
        controllers[i].fn(s, c);
        args_address(a, s, c);
        args_take_device(a, s);
        return true;
    }
    return args_word_error(c, "type", type, error);
}

/* Buses come before what stands on them. */
bool args_controllers(struct vm_args *a, GError **error)
{
    for (int pci = 1; pci >= 0; pci--)
        for (struct xml_node *c = xml_find(a->devices, "controller"); c; c = xml_next(c))
            if (xml_is(c, "@type", "pci") == pci && !add_controller(a, c, error))
                return false;
    return true;
}

/* ---- displays ---- */

static const char *listen_address(const struct xml_node *g)
{
    const char *v = xml_get(g, "listen@address");
    return v ? v : xml_get_or(g, "@listen", "127.0.0.1");
}

/* port='-1' is any: the one that was found is written into the tree. */
static unsigned choose_port(struct vm_args *a, struct xml_node *g, GError **error)
{
    const char *port = xml_get_or(g, "@port", "-1");
    if (strcmp(port, "-1") && strcmp(port, "0"))
        return (unsigned)xml_get_u64(g, "@port", 5900);
    unsigned found = a->ops->free_port(a->opaque, 5900, error);
    if (found)
        xml_set_f(g, "@port", "%u", found);
    return found;
}

static bool add_vnc(struct vm_args *a, struct xml_node *g, GError **error)
{
    const char *socket =
        xml_get(g, "listen@socket") ? xml_get(g, "listen@socket") : xml_get(g, "@socket");
    unsigned port = socket ? 0 : choose_port(a, g, error);
    if (!socket && !port)
        return false;
    if (port && port < 5900)
        return args_word_error(g, "port", xml_get(g, "@port"), error);
    g_autofree char *where = socket ? g_strconcat("unix:", socket, NULL)
                                    : g_strdup_printf("%s:%u", listen_address(g), port - 5900);
    GString *s = opt_new(where);
    opt_add(s, "share", xml_get(g, "@sharePolicy"));
    opt_add(s, "password", xml_get(g, "@passwd") ? "on" : NULL);
    args_take(a, "-vnc", s);
    return true;
}

static bool add_spice(struct vm_args *a, struct xml_node *g, GError **error)
{
    unsigned port = choose_port(a, g, error);
    if (!port)
        return false;
    GString *s = opt_new("");
    opt_addf(s, "port", "%u", port);
    opt_add(s, "addr", listen_address(g));
    opt_add(s, "disable-ticketing", xml_get(g, "@passwd") ? NULL : "on");
    opt_add(s, "seamless-migration", "on");
    args_take(a, "-spice", s);
    return true;
}

static const struct {
    const char *type, *primary, *secondary;
} videos[] = {
    {"vga", "VGA", "secondary-vga"},
    {"cirrus", "cirrus-vga", NULL},
    {"qxl", "qxl-vga", "qxl"},
    {"virtio", "virtio-vga", "virtio-gpu-pci"},
    {"bochs", "bochs-display", "bochs-display"},
    {"ramfb", "ramfb", NULL},
    {"vmvga", "vmware-svga", NULL},
};

static bool add_video(struct vm_args *a, const struct xml_node *v, bool first, GError **error)
{
    const char *type = xml_get_or(v, "model@type", "");
    if (!strcmp(type, "none"))
        return true;
    for (size_t i = 0; i < G_N_ELEMENTS(videos); i++) {
        const char *device = first ? videos[i].primary : videos[i].secondary;
        if (strcmp(videos[i].type, type) || !device)
            continue;
        GString *s = opt_new(device);
        opt_add(s, "id", args_alias(v));
        uint64_t vram = xml_get_u64(v, "model@vgamem",
                                    !strcmp(type, "vga") ? xml_get_u64(v, "model@vram", 0) : 0);
        if (vram && (!strcmp(type, "vga") || !strcmp(type, "qxl")))
            opt_addf(s, "vgamem_mb", "%u", (unsigned)(vram / 1024));
        opt_add(s, "max_outputs", !strcmp(type, "virtio") ? xml_get(v, "model@heads") : NULL);
        args_address(a, s, v);
        args_take_device(a, s);
        return true;
    }
    return args_word_error(v, "model", type, error);
}

bool args_displays(struct vm_args *a, GError **error)
{
    bool any = false, first = true;
    for (struct xml_node *g = xml_find(a->devices, "graphics"); g; g = xml_next(g)) {
        bool vnc = xml_is(g, "@type", "vnc");
        if (!vnc && !xml_is(g, "@type", "spice"))
            return args_word_error(g, "type", xml_get(g, "@type"), error);
        if (!(vnc ? add_vnc(a, g, error) : add_spice(a, g, error)))
            return false;
        any = true;
    }
    if (!any)
        args_add(a, "-display", "none");
    for (struct xml_node *v = xml_find(a->devices, "video"); v; v = xml_next(v), first = false)
        if (!add_video(a, v, first, error))
            return false;
    return true;
}

/* ---- one line each ---- */

static bool add_rng(struct vm_args *a, struct xml_node *n, GError **error)
{
    const char *model = xml_get_or(n, "backend@model", "random");
    GString *o = opt_new(!strcmp(model, "builtin") ? "rng-builtin" : "rng-random");
    if (strcmp(model, "builtin") && strcmp(model, "random")) {
        g_string_free(o, TRUE);
        return args_word_error(n, "backend", model, error);
    }
    opt_addf(o, "id", "obj%s", args_alias(n));
    opt_add(o, "filename",
            !strcmp(model, "random") ? xml_get_or(n, "backend", "/dev/urandom") : NULL);
    args_take(a, "-object", o);
    GString *s = opt_new("virtio-rng-pci");
    opt_addf(s, "rng", "obj%s", args_alias(n));
    opt_add(s, "id", args_alias(n));
    if (xml_find(n, "rate")) {
        opt_add(s, "max-bytes", xml_get(n, "rate@bytes"));
        opt_add(s, "period", xml_get_or(n, "rate@period", "1000"));
    }
    args_address(a, s, n);
    args_take_device(a, s);
    return true;
}

static bool add_balloon(struct vm_args *a, struct xml_node *n, GError **error)
{
    if (xml_is(n, "@model", "none"))
        return true;
    GString *s = opt_new("virtio-balloon-pci");
    opt_add(s, "id", args_alias(n));
    opt_on_off(s, "deflate-on-oom", n, "@autodeflate");
    opt_on_off(s, "free-page-reporting", n, "@freePageReporting");
    args_address(a, s, n);
    args_take_device(a, s);
    return true;
}

static bool add_watchdog(struct vm_args *a, struct xml_node *n, GError **error)
{
    const char *model = xml_get_or(n, "@model", "");
    if (!strcmp(model, "itco")) { /* the board's */
        args_add(a, "-global", "ICH9-LPC.noreboot=off");
        return true;
    }
    GString *s = opt_new(model);
    opt_add(s, "id", args_alias(n));
    args_address(a, s, n);
    args_take_device(a, s);
    return true;
}

static bool add_panic(struct vm_args *a, struct xml_node *n, GError **error)
{
    const char *model = xml_get_or(n, "@model", "isa");
    if (strcmp(model, "isa") && strcmp(model, "pvpanic"))
        return !strcmp(model, "hyperv") || args_word_error(n, "model", model, error);
    GString *s = opt_new(strcmp(model, "isa") ? "pvpanic-pci" : "pvpanic");
    opt_add(s, "ioport", !strcmp(model, "isa") ? xml_get(n, "address@iobase") : NULL);
    args_address(a, s, n);
    args_take_device(a, s);
    return true;
}

static const struct {
    const char *type, *bus, *device;
} inputs[] = {
    {"mouse", "ps2", NULL},
    {"keyboard", "ps2", NULL},
    {"tablet", "usb", "usb-tablet"},
    {"mouse", "usb", "usb-mouse"},
    {"keyboard", "usb", "usb-kbd"},
    {"tablet", "virtio", "virtio-tablet-pci"},
    {"mouse", "virtio", "virtio-mouse-pci"},
    {"keyboard", "virtio", "virtio-keyboard-pci"},
};

static bool add_input(struct vm_args *a, struct xml_node *n, GError **error)
{
    const char *type = xml_get_or(n, "@type", ""), *bus = xml_get_or(n, "@bus", "ps2");
    for (size_t i = 0; i < G_N_ELEMENTS(inputs); i++) {
        if (strcmp(inputs[i].type, type) || strcmp(inputs[i].bus, bus))
            continue;
        if (!inputs[i].device)
            return true;
        GString *s = opt_new(inputs[i].device);
        opt_add(s, "id", args_alias(n));
        if (!strcmp(bus, "usb")) {
            opt_add(s, "bus", "usb.0");
            opt_add(s, "port", xml_get(n, "address@port"));
        }
        args_address(a, s, n);
        args_take_device(a, s);
        return true;
    }
    return args_word_error(n, "bus", bus, error);
}

static const struct {
    const char *model, *device, *codec;
} sounds[] = {
    {"ich6", "intel-hda", "hda-duplex"},
    {"ich9", "ich9-intel-hda", "hda-duplex"},
    {"ac97", "AC97", NULL},
    {"es1370", "ES1370", NULL},
    {"usb", "usb-audio", NULL},
};

static bool add_sound(struct vm_args *a, struct xml_node *n, GError **error)
{
    const char *model = xml_get_or(n, "@model", "");
    for (size_t i = 0; i < G_N_ELEMENTS(sounds); i++) {
        if (strcmp(sounds[i].model, model))
            continue;
        GString *s = opt_new(sounds[i].device);
        opt_add(s, "id", args_alias(n));
        args_address(a, s, n);
        args_take_device(a, s);
        if (sounds[i].codec) {
            s = opt_new(sounds[i].codec);
            opt_addf(s, "bus", "%s.0", args_alias(n));
            args_take_device(a, s);
        }
        return true;
    }
    return args_word_error(n, "model", model, error);
}

static bool add_vmcoreinfo(struct vm_args *a)
{
    if (xml_is(a->domain, "features/vmcoreinfo@state", "on"))
        args_add(a, "-device", "vmcoreinfo");
    return true;
}

static const struct {
    const char *element;
    bool (*fn)(struct vm_args *a, struct xml_node *n, GError **error);
} rows[] = {
    {"input", add_input},        {"sound", add_sound}, {"watchdog", add_watchdog},
    {"memballoon", add_balloon}, {"rng", add_rng},     {"panic", add_panic},
};

bool args_small_devices(struct vm_args *a, GError **error)
{
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        for (struct xml_node *n = xml_find(a->devices, rows[i].element); n; n = xml_next(n))
            if (!rows[i].fn(a, n, error))
                return false;
    return add_vmcoreinfo(a);
}
