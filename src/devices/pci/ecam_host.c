/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `pcie-ecam-host`: a plain PCI Express host bridge at a fixed ECAM, for boards without a chipset (microvm). Its four
 * interrupt lines are GSI 16 to 19.
 *
 * Spec      PCI Express Base 3.0, 7.2.2.
 * Thread    See pci.h.
 */
#include "devices/pci/host.h"
#include "devices/pci/pci_internal.h"
#include "machine/chipset.h"

struct ecam_host {
    struct pci_device pci;
    struct pci_host host;
    struct pci_bus *bus;
};

static void set_line(void *opaque, unsigned line, int level)
{
    struct ecam_host *h = opaque;
    irq_set(&h->pci.dev.machine->gsi[PCI_GSI_BASE + line], level);
}

static void host_setup(struct machine *m)
{
    uint64_t high = pci_mem64_window_base(m->ram_above_4g);
    struct pci_windows w = {
        .mem_base = MICROVM_MEM_WINDOW_BASE, .mem_end = MICROVM_MEM_WINDOW_END,
        .mem64_base = high, .mem64_end = high + PCI_MEM64_WINDOW_BYTES,
        .io_base = PCI_IO_WINDOW_BASE, .io_end = PCI_IO_WINDOW_END,
    };
    for (unsigned line = 0; line < 4; line++)
        w.line_irq[line] = (uint8_t)(PCI_GSI_BASE + line);
    pci_bus_assign(m->pci, &w);
}

static bool host_realize(struct device *d, GError **error)
{
    struct ecam_host *h = (struct ecam_host *)d;
    struct machine *m = d->machine;
    static const struct pci_ids ids = {
        .vendor = 0x1b36, .device = 0x0008, .subsystem_vendor = 0x1af4, .subsystem = 0x1100, .class_code = 0x06,
    };
    struct pci_bus_irq irq = { .map = microvm_pci_line, .set = set_line, .opaque = h };
    h->bus = pci_bus_new(m, "pcie.0", &irq);
    if (!h->bus)
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "%s: out of memory", d->type->name);
    m->pci = h->bus;
    if (!pci_device_init(&h->pci, &ids, error))
        return false;
    pci_host_init(&h->host, h->bus);
    if (pci_host_add_ecam(&h->host, m->memory, MICROVM_ECAM_BYTES) ||
        mem_region_move(&h->host.ecam, MICROVM_ECAM_BASE) || pci_host_add_ports(&h->host, m->io))
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "%s: out of memory", d->type->name);
    m->pci_setup = host_setup;
    return true;
}

static void host_reset(struct device *d)
{
    struct ecam_host *h = (struct ecam_host *)d;
    pci_host_reset(&h->host);
}

static void host_unrealize(struct device *d)
{
    struct ecam_host *h = (struct ecam_host *)d;
    pci_host_done(&h->host);
    pci_device_done(&h->pci);
    pci_bus_free(h->bus);
    if (d->machine->pci == h->bus) {
        d->machine->pci = NULL;
        d->machine->pci_setup = NULL;
    }
    h->bus = NULL;
}

static const struct state_field host_state[] = {
    STATE(struct ecam_host, host.address),
    { 0 },
};

static const struct device_type ecam_host_type = {
    .name = "pcie-ecam-host", .summary = "PCI Express host bridge at a fixed ECAM", .spec = "PCI Express Base 3.0",
    .bus = BUS_PCI, .size = sizeof(struct ecam_host), .state = host_state, .internal = true,
    .realize = host_realize, .reset = host_reset, .unrealize = host_unrealize,
};
DEVICE_TYPE(ecam_host_type);
