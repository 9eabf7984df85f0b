/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `q35-pcihost`: the Q35 memory controller hub as function 00:00.0, the root bus, ECAM by PCIEXBAR, CF8/CFC.
 *
 * Spec      Intel 3 Series Express Chipset datasheet 316966, 5.1.
 * Thread    See pci.h.
 * Trust     PCIEXBAR is the guest's: the ECAM window may be moved anywhere, behind RAM.
 */
#include "devices/misc/ich9.h"
#include "devices/pci/host.h"
#include "devices/pci/pci_internal.h"
#include "machine/chipset.h"

#define PCIEXBAR 0x60
#define PCIEXBAR_ENABLE 1u
#define PCIEXBAR_LENGTH(v) ((v) >> 1 & 3) /* 0: 256 MiB, 1: 128, 2: 64 */
#define PAM0 0x90                         /* 7 registers; everything there is RAM, so they only hold their bits */
#define SMRAM 0x9d
#define LPC_DEVFN 0xf8

struct q35_host {
    struct pci_device pci;
    struct pci_host host;
    struct pci_bus *bus;
};

_Static_assert(ICH9_PMBASE == Q35_PMBASE && ICH9_GPE0 == Q35_GPE0 && ICH9_RCBA == Q35_RCBA &&
                   ICH9_ACPI_ENABLE == Q35_ACPI_ENABLE && ICH9_SLP_TYP_S5 == Q35_SLEEP_TYPE_S5 && ICH9_CPU_GPE == Q35_CPU_GPE,
               "the tables tell guests where the LPC bridge is");

/* The LPC bridge routes the lines; it comes later than the host bridge. */
static void set_line(void *opaque, unsigned line, int level)
{
    struct pci_device *lpc = ((struct q35_host *)opaque)->bus->dev[LPC_DEVFN];
    if (lpc)
        ich9_pci_set_irq(&lpc->dev, line, level);
}

static void ecam_update(struct q35_host *h)
{
    uint64_t bar = pci_get32(&h->pci, PCIEXBAR) | (uint64_t)pci_get32(&h->pci, PCIEXBAR + 4) << 32;
    unsigned length = PCIEXBAR_LENGTH((uint32_t)bar);
    uint64_t size = Q35_ECAM_BYTES >> length;
    /* A shorter window would need a smaller region; no firmware asks for one. */
    if (!(bar & PCIEXBAR_ENABLE) || length || mem_region_move(&h->host.ecam, bar & 0xfffffffffULL & ~(size - 1)))
        mem_region_hide(&h->host.ecam);
}

static void host_config_written(struct pci_device *p, unsigned off, unsigned len, uint32_t val)
{
    if (pci_overlaps(off, len, PCIEXBAR, 8))
        ecam_update((struct q35_host *)p);
}

/* Direct boot: what firmware leaves behind. */
static void host_setup(struct machine *m)
{
    struct pci_bus *bus = m->pci;
    struct q35_host *h = (struct q35_host *)bus->dev[0];
    uint64_t high = pci_mem64_window_base(m->ram_above_4g);
    struct pci_windows w = {
        .mem_base = Q35_MEM_WINDOW_BASE, .mem_end = Q35_MEM_WINDOW_END,
        .mem64_base = high, .mem64_end = high + PCI_MEM64_WINDOW_BYTES,
        .io_base = PCI_IO_WINDOW_BASE, .io_end = PCI_IO_WINDOW_END,
    };
    struct pci_device *lpc = bus->dev[LPC_DEVFN];
    if (lpc)
        ich9_setup(&lpc->dev);
    for (unsigned line = 0; lpc && line < PCI_BUS_LINES; line++)
        w.line_irq[line] = ich9_pirq_irq(&lpc->dev, line);
    pci_bus_config_write(h->bus, 0, 0, PCIEXBAR + 4, 4, 0);
    pci_bus_config_write(h->bus, 0, 0, PCIEXBAR, 4, Q35_ECAM_BASE | PCIEXBAR_ENABLE);
    pci_bus_assign(bus, &w);
}

static bool host_realize(struct device *d, GError **error)
{
    struct q35_host *h = (struct q35_host *)d;
    struct machine *m = d->machine;
    static const struct pci_ids ids = {
        .vendor = 0x8086, .device = 0x29c0, .subsystem_vendor = 0x1af4, .subsystem = 0x1100, .class_code = 0x06,
    };
    struct pci_bus_irq irq = { .map = q35_pci_line, .set = set_line, .opaque = h };
    h->bus = pci_bus_new(m, "pcie.0", &irq);
    if (!h->bus)
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "%s: out of memory", d->type->name);
    m->pci = h->bus;
    if (!pci_device_init(&h->pci, &ids, error))
        return false;
    h->pci.config_written = host_config_written;
    memset(h->pci.writable + PCIEXBAR, 0xff, 5);
    h->pci.writable[PCIEXBAR] = 0x07;
    h->pci.writable[PCIEXBAR + 1] = h->pci.writable[PCIEXBAR + 2] = 0;
    h->pci.writable[PCIEXBAR + 4] = 0x0f;
    memset(h->pci.writable + PAM0, 0x33, 7);
    h->pci.writable[SMRAM] = 0x78;
    pci_host_init(&h->host, h->bus);
    if (pci_host_add_ecam(&h->host, m->memory, Q35_ECAM_BYTES) || pci_host_add_ports(&h->host, m->io))
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "%s: out of memory", d->type->name);
    m->pci_setup = host_setup;
    return true;
}

static void host_reset(struct device *d)
{
    struct q35_host *h = (struct q35_host *)d;
    pci_host_reset(&h->host);
    h->pci.config[SMRAM] = 0x02;
    ecam_update(h);
}

static bool host_loaded(struct device *d, GError **error)
{
    ecam_update((struct q35_host *)d);
    return true;
}

static void host_unrealize(struct device *d)
{
    struct q35_host *h = (struct q35_host *)d;
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
    STATE(struct q35_host, host.address),
    { 0 },
};

static const struct device_type q35_host_type = {
    .name = "q35-pcihost", .summary = "Q35 host bridge", .spec = "Intel 316966, 5.1",
    .bus = BUS_PCI, .size = sizeof(struct q35_host), .state = host_state, .internal = true,
    .realize = host_realize, .reset = host_reset, .load_after = host_loaded,
    .unrealize = host_unrealize,
};
DEVICE_TYPE(q35_host_type);
