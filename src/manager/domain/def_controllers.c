/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Places on controllers that are not PCI's: drives, ports of virtio-serial and USB; and the
 * controllers themselves, of which those that are missing are made. */
#include "manager/domain/def_internal.h"

enum { MAX_CONTROLLER = 255 };

struct xml_node *def_controller(const struct xml_node *devices, const char *type, uint64_t index)
{
    FOREACH_NAMED (c, devices, "controller")
        if (xml_is(c, "@type", type) && xml_get_u64(c, "@index", 0) == index)
            return c;
    return NULL;
}

struct xml_node *def_add_controller(struct xml_node *devices, const char *type, uint64_t index)
{
    struct xml_node *c = def_controller(devices, type, index);
    if (c)
        return c;
    c = add_element(devices, "controller");
    xml_set(c, "@type", type);
    xml_set_f(c, "@index", "%" PRIu64, index);
    return c;
}

/* ---- numbers and models ---- */

static bool may_share(const struct xml_node *c)
{
    return xml_is(c, "@type", "usb") && g_str_has_prefix(xml_get_or(c, "@model", ""), "ich9-");
}

static bool number_controllers(struct xml_node *devices, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (int pass = 0; pass < 2; pass++) { /* given numbers first */
        FOREACH_NAMED (c, devices, "controller") {
            const char *type = xml_get(c, "@type");
            bool given = xml_get(c, "@index") != NULL;
            if (given == (pass == 1))
                continue;
            bool root = xml_is(c, "@model", "pci-root") || xml_is(c, "@model", "pcie-root");
            unsigned n = !strcmp(type, "pci") && !root; /* PCI's 0 is the root */
            g_autofree char *key =
                given ? g_strdup_printf("%s %s", type, xml_get(c, "@index")) : NULL;
            while (!given && (!key || g_hash_table_contains(seen, key))) {
                g_free(key);
                key = g_strdup_printf("%s %u", type, n++);
            }
            if (!given)
                xml_set_f(c, "@index", "%u", n - 1);
            if (!g_hash_table_add(seen, g_steal_pointer(&key)) && !may_share(c))
                return ruche_error(error, RUCHE_ERR_XML,
                                   "controller of type '%s' with index %s is there twice", type,
                                   xml_get(c, "@index"));
        }
    }
    return true;
}

static void complete_controller(const struct xml_node *domain, struct xml_node *c)
{
    enum def_board board = def_board(domain);
    if (xml_is(c, "@type", "scsi") && (!xml_get(c, "@model") || xml_is(c, "@model", "auto")))
        xml_set(c, "@model", "virtio-scsi");
    if (xml_is(c, "@type", "usb") && !xml_get(c, "@model"))
        xml_set(c, "@model", board == BOARD_PCI && def_is_x86(domain) ? "piix3-uhci" : "qemu-xhci");
}

/* ---- drives ---- */

static const struct drive_bus {
    const char *bus, *controller;
    unsigned buses, units, reserved; /* of a controller; a unit that is the controller itself */
} drive_buses[] = {
    {"ide", "ide", 2, 2, UINT32_MAX},
    {"sata", "sata", 1, 6, UINT32_MAX},
    {"scsi", "scsi", 1, 16, 7},
    {"fdc", "fdc", 1, 2, UINT32_MAX},
};

static const struct drive_bus *drive_bus_of(const struct xml_node *disk)
{
    for (size_t i = 0; i < G_N_ELEMENTS(drive_buses); i++)
        if (xml_is(disk, "target@bus", drive_buses[i].bus))
            return &drive_buses[i];
    return NULL;
}

static char *drive_key(const char *controller, uint64_t number, uint64_t bus, uint64_t target,
                       uint64_t unit)
{
    return g_strdup_printf("%s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, controller, number,
                           bus, target, unit);
}

static bool take_given_drive(GHashTable *taken, const struct xml_node *disk,
                             const struct drive_bus *b, GError **error)
{
    char *key =
        drive_key(b->controller, xml_get_u64(disk, "address@controller", 0),
                  xml_get_u64(disk, "address@bus", 0), xml_get_u64(disk, "address@target", 0),
                  xml_get_u64(disk, "address@unit", 0));
    if (g_hash_table_add(taken, key))
        return true;
    return ruche_error(error, RUCHE_ERR_XML,
                       "disk '%s': its address %s (controller, bus, target, unit) is taken",
                       xml_get(disk, "target@dev"), xml_get_or(disk, "address@unit", "0"));
}

static bool place_drive(GHashTable *taken, struct xml_node *disk, const struct drive_bus *b,
                        GError **error)
{
    unsigned per = b->buses * b->units - (b->reserved < b->units);
    unsigned wish = (unsigned)def_disk_index(xml_get(disk, "target@dev"));
    for (unsigned i = 0; i <= per * (MAX_CONTROLLER + 1); i++) {
        unsigned at = i ? i - 1 : wish, number = at / per, in = at % per;
        unsigned bus = b->buses > 1 ? in / b->units : 0, unit = b->buses > 1 ? in % b->units : in;
        unit += unit >= b->reserved;
        if (number > MAX_CONTROLLER)
            continue;
        if (!g_hash_table_add(taken, drive_key(b->controller, number, bus, 0, unit)))
            continue;
        xml_set(disk, "address@type", "drive");
        xml_set_f(disk, "address@controller", "%u", number);
        xml_set_f(disk, "address@bus", "%u", bus);
        xml_set(disk, "address@target", "0");
        xml_set_f(disk, "address@unit", "%u", unit);
        return true;
    }
    return ruche_error(error, RUCHE_ERR_XML, "disk '%s': there is no place left on bus '%s'",
                       xml_get(disk, "target@dev"), b->bus);
}

static bool place_drives(struct xml_node *devices, GError **error)
{
    g_autoptr(GHashTable) taken = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (int pass = 0; pass < 2; pass++) {
        FOREACH_NAMED (d, devices, "disk") {
            const struct drive_bus *b = drive_bus_of(d);
            bool given = xml_is(d, "address@type", "drive");
            if (!b || (xml_find(d, "address") && !given) || given != (pass == 0))
                continue;
            if (!(given ? take_given_drive(taken, d, b, error) : place_drive(taken, d, b, error)))
                return false;
        }
    }
    FOREACH_NAMED (d, devices, "disk") {
        const struct drive_bus *b = drive_bus_of(d);
        if (b && xml_is(d, "address@type", "drive"))
            def_add_controller(devices, b->controller, xml_get_u64(d, "address@controller", 0));
    }
    return true;
}

/* ---- virtio-serial ---- */

static bool is_port(const struct xml_node *c)
{
    return (is_named(c, "console") || is_named(c, "channel")) && xml_is(c, "target@type", "virtio");
}

static bool take_port(GHashTable *taken, const struct xml_node *c, GError **error)
{
    const char *port = xml_get(c, "address@port");
    char *key = g_strdup_printf("%" PRIu64 " %s", xml_get_u64(c, "address@controller", 0), port);
    if (g_hash_table_add(taken, key))
        return true;
    return ruche_error(error, RUCHE_ERR_XML, "virtio-serial port %s is taken twice", port);
}

/* Port 0 is the console's. */
static bool place_port(GHashTable *taken, struct xml_node *c, GError **error)
{
    uint64_t number = xml_get_u64(c, "address@controller", 0);
    for (unsigned port = is_named(c, "console") ? 0 : 1; port < 256; port++) {
        if (!g_hash_table_add(taken, g_strdup_printf("%" PRIu64 " %u", number, port)))
            continue;
        xml_set(c, "address@type", "virtio-serial");
        xml_set_f(c, "address@controller", "%" PRIu64, number);
        set_missing(c, "address@bus", "0");
        xml_set_f(c, "address@port", "%u", port);
        return true;
    }
    return ruche_error(error, RUCHE_ERR_XML,
                       "virtio-serial controller %" PRIu64 " has no port left", number);
}

static bool place_ports(struct xml_node *devices, GError **error)
{
    g_autoptr(GHashTable) taken = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (int pass = 0; pass < 2; pass++) {
        FOREACH_ELEMENT (c, devices) {
            if (!is_port(c) ||
                (xml_find(c, "address") && !xml_is(c, "address@type", "virtio-serial")))
                continue;
            bool given = xml_get(c, "address@port") != NULL;
            if (given == (pass == 0) &&
                !(given ? take_port(taken, c, error) : place_port(taken, c, error)))
                return false;
            def_add_controller(devices, "virtio-serial", xml_get_u64(c, "address@controller", 0));
        }
    }
    return true;
}

/* ---- USB ---- */

bool def_is_usb(const struct xml_node *n)
{
    if (is_named(n, "hub") || is_named(n, "redirdev"))
        return true;
    if (is_named(n, "input"))
        return xml_is(n, "@bus", "usb");
    if (is_named(n, "disk"))
        return xml_is(n, "target@bus", "usb");
    if (is_named(n, "hostdev"))
        return xml_is(n, "@type", "usb") && xml_is(n, "@mode", "subsystem");
    if (is_named(n, "sound"))
        return xml_is(n, "@model", "usb");
    if (is_named(n, "serial"))
        return xml_is(n, "target@type", "usb-serial");
    if (is_named(n, "interface"))
        return xml_is(n, "model@type", "usb-net");
    return false;
}

static unsigned usb_ports(const struct xml_node *c)
{
    const char *model = xml_get_or(c, "@model", "");
    uint64_t given = xml_get_u64(c, "@ports", 0);
    if (!strcmp(model, "none"))
        return 0;
    if (given)
        return (unsigned)given;
    return strstr(model, "xhci")                                      ? 4
           : strstr(model, "ehci") || g_str_has_prefix(model, "ich9") ? 6
                                                                      : 2;
}

static bool place_usb(GHashTable *taken, struct xml_node *devices, struct xml_node *n,
                      GError **error)
{
    FOREACH_NAMED (c, devices, "controller") {
        if (!xml_is(c, "@type", "usb") || xml_find(c, "master"))
            continue;
        if (xml_get(n, "address@bus") && !xml_is(n, "address@bus", xml_get(c, "@index")))
            continue;
        for (unsigned port = 1; port <= usb_ports(c); port++) {
            if (!g_hash_table_add(taken, g_strdup_printf("%s %u", xml_get(c, "@index"), port)))
                continue;
            xml_set(n, "address@type", "usb");
            xml_set(n, "address@bus", xml_get(c, "@index"));
            xml_set_f(n, "address@port", "%u", port);
            return true;
        }
    }
    g_autofree char *where = schema_where(n);
    return ruche_error(error, RUCHE_ERR_XML,
                       "%s: no USB controller has a free port; add a controller or a hub", where);
}

static bool place_usbs(const struct xml_node *domain, struct xml_node *devices, GError **error)
{
    g_autoptr(GHashTable) taken = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (int pass = 0; pass < 2; pass++) {
        FOREACH_ELEMENT (n, devices) {
            if (!def_is_usb(n) || (xml_find(n, "address") && !xml_is(n, "address@type", "usb")))
                continue;
            const char *port = xml_get(n, "address@port");
            const char *bus = xml_get_or(n, "address@bus", "0");
            if (!def_controller(devices, "usb", xml_get_u64(n, "address@bus", 0)) &&
                (port || !def_controller(devices, "usb", 0)))
                complete_controller(
                    domain, def_add_controller(devices, "usb", xml_get_u64(n, "address@bus", 0)));
            if ((port != NULL) != (pass == 0))
                continue;
            if (!port && !place_usb(taken, devices, n, error))
                return false;
            if (port && !g_hash_table_add(taken, g_strdup_printf("%s %s", bus, port)))
                return ruche_error(error, RUCHE_ERR_XML, "USB port %s of bus %s is taken twice",
                                   port, bus);
        }
    }
    return true;
}

static void place_smartcards(struct xml_node *devices)
{
    unsigned slot = 0;
    FOREACH_NAMED (s, devices, "smartcard") {
        if (!xml_find(s, "address")) {
            xml_set(s, "address@type", "ccid");
            xml_set(s, "address@controller", "0");
            xml_set_f(s, "address@slot", "%u", slot);
        }
        slot++;
        def_add_controller(devices, "ccid", xml_get_u64(s, "address@controller", 0));
    }
}

/* ---- memory modules ---- */

static bool is_module(const struct xml_node *m)
{
    return xml_is(m, "@model", "dimm") || xml_is(m, "@model", "nvdimm");
}

static bool place_modules(struct xml_node *devices, GError **error)
{
    bool taken[256] = {false};
    for (int pass = 0; pass < 2; pass++) {
        FOREACH_NAMED (m, devices, "memory") {
            bool given = xml_is(m, "address@type", "dimm");
            if (!is_module(m) || given != (pass == 0) || (xml_find(m, "address") && !given))
                continue;
            unsigned slot = (unsigned)xml_get_u64(m, "address@slot", 0);
            while (!given && slot < 255 && taken[slot])
                slot++;
            if (taken[slot])
                return ruche_error(error, RUCHE_ERR_XML, "memory slot %u is taken twice", slot);
            taken[slot] = true;
            xml_set(m, "address@type", "dimm");
            xml_set_f(m, "address@slot", "%u", slot);
        }
    }
    return true;
}

bool def_controllers(struct xml_node *domain, GError **error)
{
    struct xml_node *devices = devices_of(domain);
    if (!number_controllers(devices, error) || !place_drives(devices, error) ||
        !place_ports(devices, error) || !place_usbs(domain, devices, error) ||
        !place_modules(devices, error))
        return false;
    place_smartcards(devices);
    FOREACH_NAMED (c, devices, "controller")
        complete_controller(domain, c);
    return true;
}
