/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Hot plug as the rest of the machine sees it: which bus takes devices at run time, putting one in,
 * asking for one.
 *
 * Thread    Main.
 */
#include "devices/pci/pci_internal.h"

void pci_bus_set_slot(struct pci_bus *b, const struct pci_slot_ops *ops)
{
    b->slot = ops;
}

static bool no_hotplug(const struct pci_bus *b, GError **error)
{
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "Bus '%s' does not support hotplugging",
                       b->name);
}

bool pci_check_hotplug(struct machine *m, const char *bus_name, GError **error)
{
    if (!m->pci)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "this machine has no PCI bus");
    struct pci_bus *b = bus_name ? pci_bus_find(m->pci, bus_name) : m->pci;
    if (!b)
        return ruche_error(error, RUCHE_ERR_INVALID, "Bus '%s' not found", bus_name);
    return b->slot || no_hotplug(b, error);
}

void pci_plug(struct pci_device *p)
{
    p->bus->slot->plug(p->bus->bridge, p);
}

bool pci_request_unplug(struct pci_device *p, GError **error)
{
    return p->bus->slot ? p->bus->slot->request_unplug(p->bus->bridge, p, error)
                        : no_hotplug(p->bus, error);
}
