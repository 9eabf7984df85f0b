/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Completion of devices: what each leaves out, and the devices that every machine has. Addresses
 * and controllers: def_address.c. */
#include "manager/domain/def_internal.h"

/* More than any board has places for; bounds what loops over pairs of devices cost. */
enum { MAX_DEVICES = 2048 };

/* ---- disks ---- */

static const struct {
    const char *prefix, *bus;
} disk_buses[] = {
    {"vd", "virtio"}, {"sd", "scsi"}, {"hd", "ide"}, {"fd", "fdc"}, {"xvd", "xen"}, {"ubd", "uml"},
};

static size_t prefix_len(const char *dev)
{
    if (g_str_has_prefix(dev, "ioemu:"))
        return strlen("ioemu:") + prefix_len(dev + strlen("ioemu:"));
    for (size_t i = 0; i < G_N_ELEMENTS(disk_buses); i++)
        if (g_str_has_prefix(dev, disk_buses[i].prefix))
            return strlen(disk_buses[i].prefix);
    return 0;
}

int def_disk_index(const char *dev)
{
    const char *p = dev + prefix_len(dev);
    int index = 0, letters = 0;
    for (; p > dev && g_ascii_islower(*p) && letters < 4; p++, letters++)
        index = index * 26 + (*p - 'a') + 1;
    return letters && !p[strspn(p, "0123456789")] ? index - 1 : -1;
}

char *def_disk_name(const char *bus, unsigned index)
{
    const char *prefix = "sd";
    for (size_t i = 0; i < G_N_ELEMENTS(disk_buses); i++)
        if (!strcmp(disk_buses[i].bus, bus))
            prefix = disk_buses[i].prefix;
    char letters[8], *p = letters + sizeof(letters) - 1;
    *p = 0;
    for (unsigned n = index + 1; n && p > letters; n = (n - 1) / 26)
        *--p = (char)('a' + (n - 1) % 26);
    return g_strconcat(prefix, p, NULL);
}

/* taken: the names of all targets */
static bool complete_target(GHashTable *taken, struct xml_node *disk, GError **error)
{
    const char *dev = xml_get(disk, "target@dev");
    if (dev && def_disk_index(dev) < 0)
        return ruche_error(error, RUCHE_ERR_XML,
                           "disk '%s': the target's name begins with vd, sd, hd, fd, xvd or ubd "
                           "and goes on with letters",
                           dev);
    if (!xml_get(disk, "target@bus")) {
        const char *bus = xml_is(disk, "@device", "floppy") ? "fdc" : "virtio";
        for (size_t i = 0; dev && i < G_N_ELEMENTS(disk_buses); i++)
            if (!strncmp(dev, disk_buses[i].prefix, strlen(disk_buses[i].prefix)))
                bus = disk_buses[i].bus;
        xml_set(disk, "target@bus", bus);
    }
    for (unsigned i = 0; !dev && i <= MAX_DEVICES; i++) {
        g_autofree char *name = def_disk_name(xml_get(disk, "target@bus"), i);
        if (g_hash_table_contains(taken, name))
            continue;
        xml_set(disk, "target@dev", name);
        g_hash_table_add(taken, g_steal_pointer(&name));
        break;
    }
    return true;
}

static bool complete_disk(GHashTable *taken, struct xml_node *disk, GError **error)
{
    if (!complete_target(taken, disk, error))
        return false;
    if (!xml_is(disk, "@type", "vhostuser")) {
        set_missing(disk, "driver@name", "qemu");
        set_missing(disk, "driver@type", "raw");
    }
    if (xml_is(disk, "@device", "cdrom") && !xml_find(disk, "readonly"))
        add_element(disk, "readonly");
    return true;
}

/* ---- interfaces ---- */

static bool complete_interface(struct xml_node *domain, struct xml_node *i, GError **error)
{
    if (!xml_get(i, "mac@address"))
        xml_set_f(i, "mac@address", "52:54:00:%02x:%02x:%02x", (unsigned)g_random_int_range(0, 256),
                  (unsigned)g_random_int_range(0, 256), (unsigned)g_random_int_range(0, 256));
    if (!xml_is(i, "@type", "hostdev"))
        set_missing(i, "model@type", "virtio");
    /* A network makes one up when the machine is plugged in. */
    if (!xml_is(i, "@type", "network") && xml_is(i, "virtualport@type", "openvswitch") &&
        !xml_get(i, "virtualport/parameters@interfaceid")) {
        g_autofree char *id = g_uuid_string_random();
        xml_set(i, "virtualport/parameters@interfaceid", id);
    }
    return true;
}

/* ---- character devices ---- */

struct serial_kind {
    const char *arch_prefix, *target, *model;
};
static const struct serial_kind serial_kinds[] = {
    {"x86_64", "isa-serial", "isa-serial"},  {"i686", "isa-serial", "isa-serial"},
    {"aarch64", "system-serial", "pl011"},   {"arm", "system-serial", "pl011"},
    {"riscv", "system-serial", "16550a"},    {"ppc64", "spapr-vio-serial", "spapr-vty"},
    {"s390x", "sclp-serial", "sclpconsole"},
};
static const char *const serial_models[][2] = {
    {"isa-serial", "isa-serial"},      {"pci-serial", "pci-serial"},
    {"usb-serial", "usb-serial"},      {"isa-debug", "isa-debugcon"},
    {"spapr-vio-serial", "spapr-vty"}, {"sclp-serial", "sclpconsole"},
    {"system-serial", "pl011"},
};

static void complete_serial(const struct xml_node *domain, struct xml_node *serial)
{
    const char *arch = xml_get_or(domain, "os/type@arch", "");
    for (size_t i = 0; i < G_N_ELEMENTS(serial_kinds) && !xml_get(serial, "target@type"); i++) {
        if (!g_str_has_prefix(arch, serial_kinds[i].arch_prefix))
            continue;
        xml_set(serial, "target@type", serial_kinds[i].target);
        set_missing(serial, "target/model@name", serial_kinds[i].model);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(serial_models); i++)
        if (xml_is(serial, "target@type", serial_models[i][0]))
            set_missing(serial, "target/model@name", serial_models[i][1]);
}

static bool number_ports(const struct xml_node *devices, const char *name, GError **error)
{
    unsigned next = 0;
    FOREACH_NAMED (c, devices, name)
        next = MAX(next, (unsigned)xml_get_u64(c, "target@port", UINT32_MAX) + 1);
    g_autoptr(GHashTable) taken = g_hash_table_new(g_str_hash, g_str_equal);
    FOREACH_NAMED (c, devices, name) {
        if (!xml_get(c, "target@port"))
            xml_set_f(c, "target@port", "%u", next++);
        if (!g_hash_table_add(taken, (void *)xml_get(c, "target@port")))
            return ruche_error(error, RUCHE_ERR_XML, "%s port %s is there twice", name,
                               xml_get(c, "target@port"));
    }
    return true;
}

/* Can this serial port be the guest's first console? */
static bool is_console_port(const struct xml_node *serial)
{
    const char *type = xml_get_or(serial, "target@type", "");
    return strcmp(type, "pci-serial") && strcmp(type, "usb-serial") && strcmp(type, "isa-debug");
}

static struct xml_node *copy_chardev(const struct xml_node *from, const char *name)
{
    struct xml_node *n = xml_copy_as(from, name);
    xml_remove(n, "target");
    xml_remove(n, "address");
    xml_remove(n, "acpi");
    return n;
}

static bool is_serial_console(const struct xml_node *console)
{
    const char *type = xml_get(console, "target@type");
    return !type || !strcmp(type, "serial");
}

/* The first console and the first serial port are one device with two names. */
static bool pair_console(struct xml_node *devices, GError **error)
{
    struct xml_node *console = xml_find(devices, "console"), *serial = xml_find(devices, "serial");
    if (console && is_serial_console(console) && !serial)
        serial = xml_append(devices, copy_chardev(console, "serial"));
    if (serial && is_console_port(serial) && (!console || is_serial_console(console))) {
        struct xml_node *twin = copy_chardev(serial, "console");
        xml_set(twin, "target@type", "serial");
        xml_set(twin, "target@port", xml_get_or(serial, "target@port", "0"));
        if (console) {
            if (xml_get(console, "@tty")) /* of a running machine */
                xml_set(twin, "@tty", xml_get(console, "@tty"));
            xml_replace(console, twin);
        } else {
            xml_append(devices, twin);
        }
        console = twin;
    }
    for (struct xml_node *c = console ? xml_next(console) : NULL; c; c = xml_next(c)) {
        if (xml_is(c, "target@type", "serial"))
            return ruche_error(
                error, RUCHE_ERR_XML,
                "only the first console can be a serial port; use a type of its own");
        set_missing(c, "target@type", "virtio");
    }
    return true;
}

static bool complete_chardevs(const struct xml_node *domain, struct xml_node *devices,
                              GError **error)
{
    if (!number_ports(devices, "serial", error) || !pair_console(devices, error))
        return false;
    FOREACH_NAMED (s, devices, "serial")
        complete_serial(domain, s);
    struct xml_node *console = xml_find(devices, "console"), *serial = xml_find(devices, "serial");
    if (serial && !xml_get(serial, "target@port"))
        xml_set(serial, "target@port", "0");
    if (console && xml_is(console, "target@type", "serial") && serial)
        xml_set(console, "target@port", xml_get_or(serial, "target@port", "0"));
    return number_ports(devices, "console", error) && number_ports(devices, "parallel", error);
}

static void complete_channel(struct xml_node *c)
{
    if (xml_is(c, "@type", "unix") && !xml_find(c, "source"))
        xml_set(c, "source@mode", "bind");
}

/* ---- display ---- */

/* The attribute "listen" and the first <listen> say the same. */
static void complete_listen(struct xml_node *g)
{
    bool local = xml_is(g, "@type", "spice") && !xml_get(g, "@port") && !xml_get(g, "@tlsPort") &&
                 !xml_is(g, "@autoport", "yes");
    if (!xml_find(g, "listen") && local && !xml_get(g, "@listen")) {
        xml_set(g, "listen@type", "none"); /* nobody connects but through us */
    } else if (!xml_find(g, "listen")) {
        struct xml_node *l = add_element(g, "listen");
        const char *socket = xml_get(g, "@socket"), *address = xml_get(g, "@listen");
        xml_set(l, "@type", socket ? "socket" : "address");
        if (socket || address)
            xml_set(l, socket ? "@socket" : "@address", socket ? socket : address);
    }
    xml_remove(g, "@listen");
    const struct xml_node *first = xml_find(g, "listen");
    const char *address = xml_get(first, "@address");
    if (address)
        xml_set(g, "@listen", address);
    if (xml_is(first, "@type", "socket") && xml_get(first, "@socket") && xml_is(g, "@type", "vnc"))
        xml_set(g, "@socket", xml_get(first, "@socket"));
}

static void complete_ports(struct xml_node *g, bool live)
{
    bool spice = xml_is(g, "@type", "spice");
    const char *port = xml_get(g, "@port");
    bool none = !port || !strcmp(port, "-1") || (!strcmp(port, "0") && !live);
    bool on_socket = xml_get(g, "@socket") || xml_is(g, "listen@type", "socket") ||
                     xml_is(g, "listen@type", "none");
    if (on_socket && !port)
        return;
    /* A spice display chooses its ports when it is asked to, the others when they have none. */
    bool chooses = none && (!spice || (port && xml_is(g, "@tlsPort", "-1")));
    set_missing(g, "@autoport", chooses ? "yes" : "no");
    if (!xml_is(g, "@autoport", "yes") || live)
        return;
    xml_remove(g, "@tlsPort");
    if (spice)
        xml_remove(g, "@port");
    else
        xml_set(g, "@port", "-1");
}

static void complete_graphics(struct xml_node *g, bool live)
{
    static const char *const servers[] = {"vnc", "spice", "rdp", NULL};
    if (!g_strv_contains(servers, xml_get_or(g, "@type", "")))
        return;
    complete_listen(g);
    complete_ports(g, live);
}

static void complete_video(struct xml_node *video, bool first)
{
    set_missing(video, "model@type", "vga");
    const char *type = xml_get(video, "model@type");
    if (!strcmp(type, "none"))
        return;
    if (!strcmp(type, "qxl")) {
        set_missing(video, "model@ram", "65536");
        set_missing(video, "model@vram", "65536");
        set_missing(video, "model@vgamem", "16384");
    } else if (strcmp(type, "virtio") && strcmp(type, "ramfb") && strcmp(type, "gop")) {
        set_missing(video, "model@vram", "16384");
    }
    set_missing(video, "model@heads", "1");
    if (first)
        set_missing(video, "model@primary", "yes");
}

/* ---- the rest ---- */

static void complete_input(struct xml_node *i)
{
    if (xml_is(i, "@type", "evdev"))
        return;
    if (!xml_get(i, "@bus"))
        xml_set(i, "@bus",
                xml_is(i, "@type", "tablet")        ? "usb"
                : xml_is(i, "@type", "passthrough") ? "virtio"
                                                    : "ps2");
}

static void complete_small(const struct xml_node *domain, struct xml_node *n)
{
    if (is_named(n, "rng")) {
        if (xml_is(n, "backend@model", "random") && !*xml_get_or(n, "backend", ""))
            xml_set(n, "backend", "/dev/urandom");
    } else if (is_named(n, "panic")) {
        set_missing(n, "@model", def_is_x86(domain) ? "isa" : "pseries");
    } else if (is_named(n, "tpm")) {
        set_missing(n, "@model", "tpm-tis");
        if (xml_is(n, "backend@type", "emulator"))
            set_missing(n, "backend@version", "2.0");
        if (xml_is(n, "backend@type", "passthrough"))
            set_missing(n, "backend/device@path", "/dev/tpm0");
    } else if (is_named(n, "vsock")) {
        set_missing(n, "@model", "virtio");
        set_missing(n, "cid@auto", xml_get(n, "cid@address") ? "no" : "yes");
    } else if (is_named(n, "shmem")) {
        set_missing(n, "model@type", xml_find(n, "server") ? "ivshmem-doorbell" : "ivshmem-plain");
    }
}

static bool has_input(const struct xml_node *devices, const char *type)
{
    FOREACH_NAMED (i, devices, "input")
        if (xml_is(i, "@type", type) && xml_is(i, "@bus", "ps2"))
            return true;
    return false;
}

static void add_input(struct xml_node *devices, const char *type)
{
    if (has_input(devices, type))
        return;
    struct xml_node *i = add_element(devices, "input");
    xml_set(i, "@type", type);
    xml_set(i, "@bus", "ps2");
}

static void add_implicit(const struct xml_node *domain, struct xml_node *devices)
{
    if (xml_find(devices, "graphics") && def_is_x86(domain)) {
        add_input(devices, "mouse");
        add_input(devices, "keyboard");
    }
    if (xml_find(devices, "graphics") && !xml_find(devices, "video"))
        add_element(devices, "video");
    if (!xml_find(devices, "memballoon"))
        xml_set(devices, "memballoon@model", "virtio");
    bool first = true;
    FOREACH_NAMED (v, devices, "video") {
        complete_video(v, first);
        first = false;
    }
}

static bool complete_disks(struct xml_node *devices, GError **error)
{
    g_autoptr(GHashTable) taken = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    FOREACH_NAMED (d, devices, "disk")
        if (xml_get(d, "target@dev"))
            g_hash_table_add(taken, g_strdup(xml_get(d, "target@dev")));
    FOREACH_NAMED (d, devices, "disk")
        if (!complete_disk(taken, d, error))
            return false;
    return true;
}

bool def_devices(struct xml_node *domain, unsigned def_flags, GError **error)
{
    struct xml_node *devices = devices_of(domain);
    unsigned count = 0;
    FOREACH_ELEMENT (c, devices)
        count++;
    if (count > MAX_DEVICES)
        return ruche_error(error, RUCHE_ERR_XML, "the domain has %u devices; at most %d can be",
                           count, MAX_DEVICES);
    if (!complete_disks(devices, error))
        return false;
    FOREACH_ELEMENT (c, devices) {
        if (is_named(c, "interface") && !complete_interface(domain, c, error))
            return false;
        if (is_named(c, "channel"))
            complete_channel(c);
        if (is_named(c, "graphics"))
            complete_graphics(c, def_flags & DEF_LIVE);
        if (is_named(c, "input"))
            complete_input(c);
        complete_small(domain, c);
    }
    if (!complete_chardevs(domain, devices, error))
        return false;
    add_implicit(domain, devices);
    return true;
}
