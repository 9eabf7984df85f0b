/* SPDX-License-Identifier: GPL-2.0-or-later */
/* PCI addresses (and channel subsystem numbers of s390x): what has none gets one, which it keeps.
 *
 * On a PCI Express board each device that is express gets a root port of its own, so that it can be
 * taken out while the guest runs; root ports share slots of bus 0, eight functions each. Others
 * stand on bus 0. */
#include "manager/domain/def_internal.h"

enum { BUSES = 256, SLOTS = 32, FUNCTIONS = 8 }; /* more the tables refuse */

struct places {
    struct xml_node *domain, *devices;
    enum def_board board;
    uint8_t (*taken)[SLOTS]; /* by bus and slot: a bit for each function */
    unsigned bus;            /* those before have no root port that is free */
    GError **error;
};

enum pci_need { PCI_NOT, PCI_EXPRESS, PCI_PLAIN };

/* ---- what needs an address ---- */

static bool is_one_of(const char *word, const char *const *list)
{
    return word && g_strv_contains(list, word);
}

static enum pci_need need_of_controller(const struct xml_node *n)
{
    static const char *const old_scsi[] = {"lsilogic", "lsisas1068", "lsisas1078",
                                           "vmpvscsi", "buslogic",   "am53c974",
                                           "dc390",    "ncr53c90",   NULL};
    const char *type = xml_get_or(n, "@type", ""), *model = xml_get_or(n, "@model", "");
    if (!strcmp(type, "virtio-serial"))
        return PCI_EXPRESS;
    if (!strcmp(type, "scsi"))
        return is_one_of(model, old_scsi)  ? PCI_PLAIN
               : strcmp(model, "ibmvscsi") ? PCI_EXPRESS
                                           : PCI_NOT;
    if (!strcmp(type, "usb"))
        return strstr(model, "xhci")                             ? PCI_EXPRESS
               : !strcmp(model, "none") || strstr(model, "qusb") ? PCI_NOT
                                                                 : PCI_PLAIN;
    if (!strcmp(type, "sata") || !strcmp(type, "ide"))
        return PCI_PLAIN;
    if (!strcmp(type, "pci")) {
        if (!strcmp(model, "pci-root") || !strcmp(model, "pcie-root"))
            return PCI_NOT;
        return !strcmp(model, "pcie-to-pci-bridge") || g_str_has_prefix(model, "pcie-switch")
                   ? PCI_EXPRESS
                   : PCI_PLAIN;
    }
    return PCI_NOT;
}

static enum pci_need need_of_interface(const struct xml_node *n)
{
    static const char *const express[] = {
        "virtio", "virtio-non-transitional", "e1000e", "igb", "vmxnet3", NULL};
    static const char *const elsewhere[] = {"usb-net", "spapr-vlan", "ne2k_isa",
                                            "lan9118", "smc91c111",  NULL};
    const char *model = xml_get(n, "model@type");
    if (is_one_of(model, elsewhere))
        return PCI_NOT;
    return !model || is_one_of(model, express) ? PCI_EXPRESS : PCI_PLAIN;
}

static enum pci_need need_of_sound(const struct xml_node *n)
{
    static const char *const elsewhere[] = {"sb16", "pcspk", "usb", NULL};
    return is_one_of(xml_get(n, "@model"), elsewhere) ? PCI_NOT : PCI_PLAIN;
}

static enum pci_need need_of_video(const struct xml_node *n)
{
    static const char *const elsewhere[] = {"none", "ramfb", "xen", "vbox", "gop", NULL};
    return is_one_of(xml_get(n, "model@type"), elsewhere) ? PCI_NOT
           : xml_is(n, "model@type", "virtio")            ? PCI_EXPRESS
                                                          : PCI_PLAIN;
}

static enum pci_need need_of_hostdev(const struct xml_node *n)
{
    static const char *const types[] = {"pci", "mdev", "scsi_host", NULL};
    if (!is_one_of(xml_get(n, "@type"), types) || xml_is(n, "@model", "vfio-ap") ||
        xml_is(n, "@model", "vfio-ccw"))
        return PCI_NOT;
    return PCI_EXPRESS;
}

static enum pci_need need_of_disk(const struct xml_node *n)
{
    return xml_is(n, "target@bus", "virtio") ? PCI_EXPRESS : PCI_NOT;
}

static enum pci_need need_of_model(const struct xml_node *n)
{
    return xml_is(n, "@model", "none") || xml_is(n, "@model", "xen") ? PCI_NOT : PCI_EXPRESS;
}

static enum pci_need need_of_input(const struct xml_node *n)
{
    return xml_is(n, "@bus", "virtio") ? PCI_EXPRESS : PCI_NOT;
}

static enum pci_need need_of_memory(const struct xml_node *n)
{
    return g_str_has_prefix(xml_get_or(n, "@model", ""), "virtio") ? PCI_EXPRESS : PCI_NOT;
}

static enum pci_need need_of_watchdog(const struct xml_node *n)
{
    return xml_is(n, "@model", "i6300esb") ? PCI_PLAIN : PCI_NOT;
}

static enum pci_need need_of_serial(const struct xml_node *n)
{
    return xml_is(n, "target@type", "pci-serial") ? PCI_PLAIN : PCI_NOT;
}

static enum pci_need need_of_iommu(const struct xml_node *n)
{
    return xml_is(n, "@model", "virtio") ? PCI_PLAIN : PCI_NOT;
}

static enum pci_need need_of_filesystem(const struct xml_node *n)
{
    return xml_is(n, "@type", "mount") ? PCI_EXPRESS : PCI_NOT;
}

static enum pci_need need_plain(const struct xml_node *n)
{
    return PCI_PLAIN;
}

static enum pci_need need_express(const struct xml_node *n)
{
    return PCI_EXPRESS;
}

/* In the order in which addresses are given out. */
static const struct {
    const char *name;
    enum pci_need (*need)(const struct xml_node *n);
} needs[] = {
    {"filesystem", need_of_filesystem},
    {"interface", need_of_interface},
    {"sound", need_of_sound},
    {"controller", need_of_controller},
    {"disk", need_of_disk},
    {"hostdev", need_of_hostdev},
    {"memballoon", need_of_model},
    {"rng", need_of_model},
    {"video", need_of_video},
    {"shmem", need_plain},
    {"input", need_of_input},
    {"watchdog", need_of_watchdog},
    {"serial", need_of_serial},
    {"vsock", need_express},
    {"memory", need_of_memory},
    {"crypto", need_express},
    {"iommu", need_of_iommu},
};

static bool has_address(const struct xml_node *n)
{
    return xml_find(n, "address") && !xml_is(n, "address@type", "pci");
}

/* ---- places ---- */

static bool is_given(const struct xml_node *n)
{
    return xml_is(n, "address@type", "pci") &&
           (xml_get_u64(n, "address@domain", 0) || xml_get_u64(n, "address@bus", 0) ||
            xml_get_u64(n, "address@slot", 0) || xml_get_u64(n, "address@function", 0));
}

static void write_place(struct xml_node *n, unsigned bus, unsigned slot, unsigned function)
{
    xml_set(n, "address@type", "pci");
    xml_set(n, "address@domain", "0x0000");
    xml_set_f(n, "address@bus", "0x%02x", bus);
    xml_set_f(n, "address@slot", "0x%02x", slot);
    xml_set_f(n, "address@function", "0x%x", function);
}

/* False: it is taken already. */
static bool mark(struct places *p, unsigned bus, unsigned slot, unsigned function)
{
    g_assert(bus < BUSES && slot < SLOTS && function < FUNCTIONS);
    uint8_t bit = (uint8_t)(1u << function), before = p->taken[bus][slot];
    p->taken[bus][slot] |= bit;
    return !(before & bit);
}

static bool take(struct places *p, struct xml_node *n, unsigned bus, unsigned slot,
                 unsigned function)
{
    if (!mark(p, bus, slot, function))
        return false;
    write_place(n, bus, slot, function);
    return true;
}

static bool slot_is_free(const struct places *p, unsigned bus, unsigned slot)
{
    return !p->taken[bus][slot];
}

static bool bus_is_free(const struct places *p, unsigned bus)
{
    for (unsigned slot = 0; slot < SLOTS; slot++)
        if (!slot_is_free(p, bus, slot))
            return false;
    return true;
}

static bool no_room(struct places *p, const struct xml_node *n)
{
    g_autofree char *where = schema_where(n);
    return ruche_error(p->error, RUCHE_ERR_XML, "%s: no PCI slot is left for it", where);
}

static bool take_slot(struct places *p, struct xml_node *n, unsigned first)
{
    for (unsigned i = 0; i < 31; i++) {
        unsigned slot = (first - 1 + i) % 31 + 1;
        if (slot_is_free(p, 0, slot))
            return take(p, n, 0, slot, 0);
    }
    return no_room(p, n);
}

/* A root port's own place: the next function of a slot that has only root ports. */
static bool place_root_port(struct places *p, struct xml_node *port)
{
    for (unsigned slot = 2; slot < 31; slot++) {
        if (slot_is_free(p, 0, slot)) {
            take(p, port, 0, slot, 0);
            xml_set(port, "address@multifunction", "on");
            return true;
        }
        FOREACH_NAMED (c, p->devices, "controller") {
            if (!xml_is(c, "@model", "pcie-root-port") ||
                xml_get_u64(c, "address@slot", 0) != slot || xml_get_u64(c, "address@bus", 1) ||
                !xml_is(c, "address@multifunction", "on"))
                continue;
            for (unsigned f = 1; f < FUNCTIONS; f++)
                if (take(p, port, 0, slot, f))
                    return true;
        }
    }
    return no_room(p, port);
}

static void complete_pci_controller(struct xml_node *c)
{
    static const char *const names[][2] = {
        {"pcie-root-port", "pcie-root-port"},
        {"pci-bridge", "pci-bridge"},
        {"dmi-to-pci-bridge", "i82801b11-bridge"},
        {"pcie-to-pci-bridge", "pcie-pci-bridge"},
        {"pcie-switch-upstream-port", "x3130-upstream"},
        {"pcie-switch-downstream-port", "xio3130-downstream"},
        {"pci-expander-bus", "pxb"},
        {"pcie-expander-bus", "pxb-pcie"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
        if (xml_is(c, "@model", names[i][0]))
            set_missing(c, "model@name", names[i][1]);
    const char *index = xml_get(c, "@index");
    if (xml_is(c, "@model", "pci-bridge"))
        set_missing(c, "target@chassisNr", index);
    if (xml_is(c, "@model", "pcie-root-port") ||
        xml_is(c, "@model", "pcie-switch-downstream-port")) {
        set_missing(c, "target@chassis", index);
        if (!xml_get(c, "target@port"))
            xml_set_f(c, "target@port", "0x%x",
                      (unsigned)(xml_get_u64(c, "address@slot", 0) << 3 |
                                 xml_get_u64(c, "address@function", 0)));
    }
}

static struct xml_node *bus_controller(const struct places *p, unsigned bus)
{
    FOREACH_NAMED (c, p->devices, "controller")
        if (xml_is(c, "@type", "pci") && xml_get_u64(c, "@index", 0) == bus)
            return c;
    return NULL;
}

static struct xml_node *add_bus(struct places *p, unsigned bus)
{
    struct xml_node *c = add_element(p->devices, "controller");
    xml_set(c, "@type", "pci");
    xml_set_f(c, "@index", "%u", bus);
    xml_set(c, "@model", p->board == BOARD_PCI ? "pci-bridge" : "pcie-root-port");
    if (!(p->board == BOARD_PCI ? take_slot(p, c, 3) : place_root_port(p, c)))
        return NULL;
    complete_pci_controller(c);
    return c;
}

static bool place_express(struct places *p, struct xml_node *n)
{
    for (unsigned bus = MAX(p->bus, 1); bus < BUSES; bus++) {
        const struct xml_node *c = bus_controller(p, bus);
        if (!c && !add_bus(p, bus))
            return false;
        p->bus = bus + 1;
        if ((!c || xml_is(c, "@model", "pcie-root-port")) && bus_is_free(p, bus))
            return take(p, n, bus, 0, 0);
    }
    return no_room(p, n);
}

/* ---- places that boards have for certain devices ---- */

static bool is_primary_video(const struct places *p, const struct xml_node *n)
{
    return is_named(n, "video") && n == xml_find(p->devices, "video");
}

static bool place_fixed(struct places *p, struct xml_node *n)
{
    if (p->board == BOARD_FLAT_PCIE || !def_is_x86(p->domain))
        return false;
    bool pcie = p->board == BOARD_PCIE,
         controller = is_named(n, "controller") && xml_get_u64(n, "@index", 0) == 0;
    if (is_primary_video(p, n))
        return take(p, n, 0, pcie ? 1 : 2, 0);
    if (controller && pcie && xml_is(n, "@type", "sata"))
        return take(p, n, 0, 0x1f, 2);
    if (controller && !pcie && xml_is(n, "@type", "ide"))
        return take(p, n, 0, 1, 1);
    if (controller && !pcie && xml_is(n, "@model", "piix3-uhci"))
        return take(p, n, 0, 1, 2);
    static const char *const companions[][2] = {
        {"ich9-ehci1", "7"}, {"ich9-uhci1", "0"}, {"ich9-uhci2", "1"}, {"ich9-uhci3", "2"}};
    for (size_t i = 0; controller && pcie && i < G_N_ELEMENTS(companions); i++) {
        if (!xml_is(n, "@model", companions[i][0]) ||
            !take(p, n, 0, 0x1d, (unsigned)(companions[i][1][0] - '0')))
            continue;
        if (companions[i][1][0] == '0')
            xml_set(n, "address@multifunction", "on");
        return true;
    }
    return false;
}

/* What the board itself has there. */
static void reserve(struct places *p)
{
    mark(p, 0, 0, 0);
    if (!def_is_x86(p->domain) || p->board == BOARD_FLAT_PCIE)
        return;
    unsigned bridge = p->board == BOARD_PCIE ? 0x1f : 1;
    mark(p, 0, bridge, 0);
    mark(p, 0, bridge, 3);
}

/* ---- the whole ---- */

static bool place(struct places *p, struct xml_node *n, enum pci_need need)
{
    if (is_named(n, "controller") && xml_is(n, "@model", "pcie-root-port"))
        return place_root_port(p, n);
    if (p->board == BOARD_PCIE && need == PCI_EXPRESS)
        return place_express(p, n);
    return take_slot(p, n, p->board == BOARD_PCIE ? 0x10 : p->board == BOARD_PCI ? 3 : 1);
}

/* Given addresses are taken first; buses that they are on and that are not there are made after
 * them. */
static bool take_given(struct places *p)
{
    FOREACH_ELEMENT (n, p->devices) {
        if (!is_given(n))
            continue;
        unsigned bus = (unsigned)xml_get_u64(n, "address@bus", 0),
                 slot = (unsigned)xml_get_u64(n, "address@slot", 0);
        unsigned function = (unsigned)xml_get_u64(n, "address@function", 0);
        g_autofree char *where = schema_where(n);
        if (xml_get_u64(n, "address@domain", 0))
            return ruche_error(p->error, RUCHE_ERR_XML,
                               "%s: PCI domain %s is not there; only 0x0000 is", where,
                               xml_get(n, "address@domain"));
        if (!mark(p, bus, slot, function))
            return ruche_error(p->error, RUCHE_ERR_XML,
                               "%s: PCI address 0000:%02x:%02x.%x is taken twice", where, bus, slot,
                               function);
        write_place(n, bus, slot, function);
    }
    return true;
}

static bool add_buses(struct places *p)
{
    unsigned most = 0;
    FOREACH_ELEMENT (n, p->devices)
        if (is_given(n))
            most = MAX(most, (unsigned)xml_get_u64(n, "address@bus", 0));
    for (unsigned bus = 1; bus <= most; bus++)
        if (!bus_controller(p, bus) && !add_bus(p, bus))
            return false;
    FOREACH_ELEMENT (n, p->devices) {
        const struct xml_node *c =
            is_given(n) ? bus_controller(p, (unsigned)xml_get_u64(n, "address@bus", 0)) : NULL;
        if (!c || !xml_is(c, "@model", "pcie-root-port") || xml_get_u64(n, "address@slot", 0) == 0)
            continue;
        g_autofree char *where = schema_where(n);
        return ruche_error(p->error, RUCHE_ERR_XML, "%s: slot %s: a root port has only slot 0",
                           where, xml_get(n, "address@slot"));
    }
    return true;
}

static bool add_root(struct places *p)
{
    const char *model = p->board == BOARD_PCI ? "pci-root" : "pcie-root";
    struct xml_node *root = bus_controller(p, 0);
    if (root && !xml_is(root, "@model", model))
        return ruche_error(p->error, RUCHE_ERR_XML,
                           "PCI controller 0 is of model '%s'; on this machine it is '%s'",
                           xml_get(root, "@model"), model);
    if (root)
        return true;
    root = add_element(p->devices, "controller");
    xml_set(root, "@type", "pci");
    xml_set(root, "@index", "0");
    xml_set(root, "@model", model);
    return true;
}

/* Devices of the board stand where they stand, whatever else wants the place: `fixed` is a pass for
 * them. */
static bool place_pass(struct places *p, bool fixed)
{
    for (size_t i = 0; i < G_N_ELEMENTS(needs); i++)
        FOREACH_NAMED (n, p->devices, needs[i].name) {
            enum pci_need need = needs[i].need(n);
            if (has_address(n) || is_given(n) || (need == PCI_NOT && !xml_find(n, "address")))
                continue;
            if (!place_fixed(p, n) && !fixed && !place(p, n, need))
                return false;
        }
    return true;
}

static void place_ccw(const struct xml_node *devices)
{
    unsigned next = 0;
    FOREACH_ELEMENT (n, devices)
        if (xml_is(n, "address@type", "ccw"))
            next = MAX(next, (unsigned)xml_get_u64(n, "address@devno", 0) + 1);
    for (size_t i = 0; i < G_N_ELEMENTS(needs); i++)
        FOREACH_NAMED (n, devices, needs[i].name) {
            if (xml_find(n, "address") || needs[i].need(n) != PCI_EXPRESS ||
                xml_is(n, "@type", "pci") || next > 0xffff)
                continue;
            xml_set(n, "address@type", "ccw");
            xml_set(n, "address@cssid", "0xfe");
            xml_set(n, "address@ssid", "0x0");
            xml_set_f(n, "address@devno", "0x%04x", next++);
        }
}

bool def_addresses(struct xml_node *domain, GError **error)
{
    struct places p = {.domain = domain,
                       .devices = devices_of(domain),
                       .board = def_board(domain),
                       .error = error};
    if (p.board == BOARD_CCW)
        place_ccw(p.devices);
    if (p.board == BOARD_CCW || p.board == BOARD_NONE)
        return true;
    g_autofree void *taken = g_malloc0(sizeof(uint8_t[BUSES][SLOTS]));
    p.taken = taken;
    reserve(&p);
    if (!add_root(&p) || !take_given(&p) || !place_pass(&p, true) || !add_buses(&p) ||
        !place_pass(&p, false))
        return false;
    FOREACH_NAMED (c, p.devices, "controller")
        if (xml_is(c, "@type", "pci"))
            complete_pci_controller(c);
    return true;
}
