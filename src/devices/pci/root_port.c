/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `pcie-root-port`: a PCI Express port with a bus of its own behind it, named after the device's id.
 *
 * Spec      PCI Express Base 3.0, 7.5.1.2 and 7.8; PCI-to-PCI Bridge 1.2.
 * Thread    See pci.h.
 * Trust     Windows and bus numbers are the guest's; a device behind is mapped only where both allow it.
 */
#include "devices/pci/pci_internal.h"

#define SLOT_CAP 20    /* offsets in the express capability */
#define SLOT_STATUS 26
#define SLOT_PRESENT 0x40
#define LINK_STATUS 18
#define FLAGS_SLOT 0x0100
#define LINK_ACTIVE 0x2000

struct root_port {
    struct pci_device pci;
    uint16_t chassis, slot;
    uint8_t port;
    struct pci_bus *bus;
};

/* Writable bits of header type 1. */
static void init_bridge_header(struct pci_device *p)
{
    p->config[PCI_HEADER_TYPE] = (p->config[PCI_HEADER_TYPE] & PCI_HEADER_MULTIFUNCTION) | PCI_HEADER_BRIDGE;
    memset(p->config + PCI_SUBSYSTEM_VENDOR, 0, 4); /* upper prefetchable limit here */
    memset(p->writable + PCI_PRIMARY_BUS, 0xff, 3);
    p->writable[PCI_IO_BASE] = p->writable[PCI_IO_LIMIT] = 0xf0;
    static const uint16_t memory_bits = 0xfff0;
    for (unsigned reg = PCI_MEMORY_BASE; reg <= PCI_PREF_LIMIT; reg += 2)
        memcpy(p->writable + reg, &memory_bits, 2);
    memset(p->writable + PCI_PREF_BASE_HIGH, 0xff, 8);
    pci_set16(p, PCI_PREF_BASE, 1); /* 64-bit */
    pci_set16(p, PCI_PREF_LIMIT, 1);
    p->writable[PCI_BRIDGE_CONTROL] = 0x5b;
}

static bool root_port_realize(struct device *d, GError **error)
{
    struct root_port *rp = (struct root_port *)d;
    struct pci_device *p = &rp->pci;
    static const struct pci_ids ids = {
        .vendor = 0x1b36, .device = 0x000c, .subclass = 0x04, .class_code = 0x06,
    };
    if (!d->id)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: needs an id=, which names the bus behind it",
                           d->type->name);
    if (pci_bus_find(d->machine->pci, d->id))
        return ruche_error(error, RUCHE_ERR_EXISTS, "%s: a PCI bus is already called '%s'", d->type->name,
                           d->id);
    if (!pci_device_init(p, &ids, error))
        return false;
    if (p->bus->bridge)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s '%s': a root port stands on the root bus, not on '%s'",
                           d->type->name, d->id, p->bus->name);
    init_bridge_header(p);
    pci_set_intx_pin(p, 1);
    if (pci_add_msi(p, 1) || pci_add_express(p) || !(rp->bus = pci_bus_new_secondary(p, d->id)))
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "%s '%s': out of memory", d->type->name, d->id);
    pci_set16(p, p->exp_cap + 2, pci_get16(p, p->exp_cap + 2) | FLAGS_SLOT);
    pci_set32(p, p->exp_cap + 12, pci_get32(p, p->exp_cap + 12) | (uint32_t)rp->port << 24);
    pci_set32(p, p->exp_cap + SLOT_CAP, (uint32_t)rp->slot << 19);
    return true;
}

/* Whether something is plugged in is known only when the machine starts. */
static void root_port_reset(struct device *d)
{
    struct root_port *rp = (struct root_port *)d;
    struct pci_device *p = &rp->pci;
    pci_device_reset(p);
    bool present = rp->bus->dev[0];
    pci_set16(p, p->exp_cap + SLOT_STATUS, present ? SLOT_PRESENT : 0);
    pci_set16(p, p->exp_cap + LINK_STATUS, present ? 0x11 | LINK_ACTIVE : 0x11);
}

static void root_port_unrealize(struct device *d)
{
    struct root_port *rp = (struct root_port *)d;
    pci_bus_free(rp->bus);
    rp->bus = NULL;
    pci_device_done(&rp->pci);
}

static const struct prop root_port_props[] = {
    PCI_PROPS(struct root_port),
    PROP_U16("chassis", struct root_port, chassis, .help = "Chassis number; accepted, no register shows it"),
    PROP_U16("slot", struct root_port, slot, .max = 8191, .help = "Physical slot number"),
    PROP_U8("port", struct root_port, port, .help = "Port number"),
    { 0 },
};

static const struct state_field root_port_state[] = {
    STATE_ARRAY(struct root_port, pci.config),
    { 0 },
};

static const struct device_type root_port_type = {
    .name = "pcie-root-port", .summary = "PCI Express root port", .spec = "PCI Express Base 3.0",
    .bus = BUS_PCI, .size = sizeof(struct root_port), .props = root_port_props, .state = root_port_state,
    .realize = root_port_realize, .reset = root_port_reset, .unrealize = root_port_unrealize,
};
DEVICE_TYPE(root_port_type);
