/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A machine with PCI, and a device of the tests; see pci_testing.h. */
#include "devices/pci/pci_testing.h"

static uint64_t fn_read(void *opaque, uint64_t off, unsigned size)
{
    ((struct test_fn *)opaque)->reads++;
    return 0x12345678;
}

static void fn_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
}

static const struct mem_ops fn_ops = {.read = fn_read, .write = fn_write};

static bool fn_realize(struct device *d, GError **error)
{
    struct test_fn *f = (struct test_fn *)d;
    static const struct pci_ids ids = {.vendor = 0x1234, .device = 0x5678, .class_code = 0xff};
    if (!pci_device_init(&f->pci, &ids, error))
        return false;
    mem_region_init_io(&f->mem, "test-mem", &fn_ops, f, BAR_SIZE, NULL);
    mem_region_init_io(&f->io, "test-io", &fn_ops, f, 0x20, NULL);
    pci_bar_register(&f->pci, 0, PCI_BAR_MEM32, &f->mem);
    pci_bar_register(&f->pci, 1, PCI_BAR_IO, &f->io);
    if (f->wide_bar) {
        mem_region_init_io(&f->big, "test-big", &fn_ops, f, f->wide_bar, NULL);
        pci_bar_register(&f->pci, 2, PCI_BAR_MEM64_PREFETCH, &f->big);
    }
    pci_set_intx_pin(&f->pci, 1);
    g_assert_cmpint(pci_add_express(&f->pci), ==, 0);
    if (f->msi)
        g_assert_cmpint(pci_add_msi(&f->pci, 4), ==, 0);
    return !pci_add_msix(&f->pci, 4, VECTORS);
}

static void fn_reset(struct device *d)
{
    pci_device_reset((struct pci_device *)d);
}

static void fn_unrealize(struct device *d)
{
    pci_device_done((struct pci_device *)d);
}

static const struct prop fn_props[] = {
    PCI_PROPS(struct test_fn),
    PROP_SIZE("wide", struct test_fn, wide_bar),
    PROP_BOOL("msi", struct test_fn, msi),
    {0},
};

static const struct device_type fn_type = {
    .name = "test-fn",
    .summary = "test",
    .bus = BUS_PCI,
    .size = sizeof(struct test_fn),
    .props = fn_props,
    .realize = fn_realize,
    .reset = fn_reset,
    .unrealize = fn_unrealize,
};
DEVICE_TYPE(fn_type);

static void log_msi(void *opaque, uint64_t addr, uint32_t data)
{
    struct msi_log *l = opaque;
    l->count++;
    l->addr = addr;
    l->data = data;
}

struct pci_bed *pci_bed_new(void)
{
    struct pci_bed *f = g_new0(struct pci_bed, 1);
    f->t = test_machine_new(1);
    f->apic = (struct accel_apic){.opaque = &f->msi, .msi = log_msi};
    f->t->accel.apic = &f->apic;
    f->host = test_device(f->t, "pcie-ecam-host", NULL);
    return f;
}

void pci_bed_free(struct pci_bed *f)
{
    while (f->t->m.devices) {
        struct device *last = f->t->m.devices;
        while (last->next)
            last = last->next;
        device_free(last);
    }
    test_machine_free(f->t);
    g_free(f);
}

uint32_t read_cfg(struct pci_bed *f, unsigned slot, unsigned off)
{
    return test_read32(f->t, cfg(0, slot, off));
}

void write_cfg(struct pci_bed *f, unsigned slot, unsigned off, uint32_t val)
{
    test_write32(f->t, cfg(0, slot, off), val);
}

struct test_fn *add_fn(struct pci_bed *f, const char *addr)
{
    return (struct test_fn *)test_device(f->t, "test-fn", "addr", addr, NULL);
}

unsigned find_cap(struct pci_bed *f, unsigned slot, uint8_t id)
{
    unsigned at = read_cfg(f, slot, 0x34) & 0xff;
    for (unsigned i = 0; at && i < 48; i++) {
        uint32_t head = read_cfg(f, slot, at);
        if ((head & 0xff) == id)
            return at;
        at = head >> 8 & 0xff;
    }
    return 0;
}

bool mapped(struct pci_bed *f, uint64_t addr)
{
    return test_read32(f->t, addr) == 0x12345678;
}
