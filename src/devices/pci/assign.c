/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What firmware does to a PCI tree: bus numbers, addresses for BARs and bridge windows, interrupt line registers,
 * decoding on. Used when a kernel is booted directly.
 *
 * Spec      PCI Firmware 3.2, chapter 3; PCI-to-PCI Bridge 1.2, 3.2.5.
 * Method    Resources of a bus are laid out by falling alignment, so that powers of two pack without gaps; a bridge
 *           counts as one resource whose size is the layout of the bus behind it.
 * Thread    The main thread, vCPUs stopped. Registers are written as the guest would write them.
 */
#include "devices/pci/pci_internal.h"

enum window { WINDOW_IO, WINDOW_MEM, WINDOW_PREF, N_WINDOWS };

#define BRIDGE_IO_ALIGN 0x1000u
#define BRIDGE_MEM_ALIGN 0x100000u

struct resource {
    struct pci_device *dev;
    int bar; /* -1: a bridge's window */
    uint64_t size, align;
};

struct assign {
    struct pci_bus *root;
    bool pref_high; /* prefetchable 64-bit BARs go above 4 GiB */
    uint8_t next_bus;
    const struct pci_windows *windows;
};

static unsigned bus_number(const struct pci_bus *b)
{
    return b->bridge ? b->bridge->config[PCI_SECONDARY_BUS] : 0;
}

static void poke(struct assign *a, struct pci_device *p, unsigned off, unsigned len, uint32_t val)
{
    pci_bus_config_write(a->root, (uint8_t)bus_number(p->bus), p->devfn, off, len, val);
}

/* Depth first, as every operating system expects them. */
static void number_buses(struct assign *a, struct pci_bus *b)
{
    for (unsigned i = 0; i < ARRAY_COUNT(b->dev); i++) {
        struct pci_device *p = b->dev[i];
        if (!p || !p->secondary)
            continue;
        uint8_t own = ++a->next_bus;
        poke(a, p, PCI_PRIMARY_BUS, 1, bus_number(b));
        poke(a, p, PCI_SECONDARY_BUS, 1, own);
        poke(a, p, PCI_SUBORDINATE_BUS, 1, 0xff);
        number_buses(a, p->secondary);
        poke(a, p, PCI_SUBORDINATE_BUS, 1, a->next_bus);
    }
}

static enum window window_of(const struct assign *a, const struct pci_bar *bar)
{
    if (bar->kind == PCI_BAR_IO)
        return WINDOW_IO;
    return bar->kind == PCI_BAR_MEM64_PREFETCH && a->pref_high ? WINDOW_PREF : WINDOW_MEM;
}

static int by_align(const void *x, const void *y)
{
    const struct resource *a = x, *b = y;
    if (a->align != b->align)
        return a->align < b->align ? 1 : -1;
    if (a->dev->devfn != b->dev->devfn)
        return a->dev->devfn < b->dev->devfn ? -1 : 1;
    return a->bar - b->bar;
}

static uint64_t layout(struct assign *a, struct pci_bus *b, enum window w, uint64_t base, bool apply);

/* The window that a bridge needs: its size, 0 for none. A base of 0 shows the size, as all parts are aligned to it. */
static uint64_t bridge_need(struct assign *a, struct pci_bus *b, enum window w, uint64_t *ret_align)
{
    uint64_t unit = w == WINDOW_IO ? BRIDGE_IO_ALIGN : BRIDGE_MEM_ALIGN;
    uint64_t size = align_up(layout(a, b, w, 0, false), unit), align = unit;
    for (unsigned i = 0; i < ARRAY_COUNT(b->dev); i++)
        for (unsigned n = 0; b->dev[i] && n < PCI_MAX_BARS; n++)
            if (b->dev[i]->bar[n].region && window_of(a, &b->dev[i]->bar[n]) == w)
                align = max_u64(align, b->dev[i]->bar[n].size);
    *ret_align = align;
    return size;
}

static unsigned collect(struct assign *a, struct pci_bus *b, enum window w, struct resource *r)
{
    unsigned count = 0;
    for (unsigned i = 0; i < ARRAY_COUNT(b->dev); i++) {
        struct pci_device *p = b->dev[i];
        if (!p)
            continue;
        for (int n = 0; n < PCI_MAX_BARS; n++) {
            const struct pci_bar *bar = &p->bar[n];
            if (bar->region && window_of(a, bar) == w)
                r[count++] = (struct resource){ p, n, bar->size, bar->size };
        }
        struct resource br = { p, -1, 0, 0 };
        if (p->secondary && (br.size = bridge_need(a, p->secondary, w, &br.align)))
            r[count++] = br;
    }
    return count;
}

static void set_bridge_window(struct assign *a, struct pci_device *p, enum window w, uint64_t base,
                              uint64_t last)
{
    if (w == WINDOW_IO) {
        poke(a, p, PCI_IO_BASE, 1, (uint32_t)(base >> 8));
        poke(a, p, PCI_IO_LIMIT, 1, (uint32_t)(last >> 8));
        return;
    }
    unsigned reg = w == WINDOW_MEM ? PCI_MEMORY_BASE : PCI_PREF_BASE;
    poke(a, p, reg, 2, (uint32_t)(base >> 16) & 0xfff0);
    poke(a, p, reg + 2, 2, (uint32_t)(last >> 16) & 0xfff0);
    if (w == WINDOW_PREF) {
        poke(a, p, PCI_PREF_BASE_HIGH, 4, (uint32_t)(base >> 32));
        poke(a, p, PCI_PREF_LIMIT_HIGH, 4, (uint32_t)(last >> 32));
    }
}

static void place(struct assign *a, const struct resource *r, enum window w, uint64_t base)
{
    if (r->bar < 0) {
        set_bridge_window(a, r->dev, w, base, base + r->size - 1);
        layout(a, r->dev->secondary, w, base, true);
        return;
    }
    unsigned off = pci_bar_offset((unsigned)r->bar);
    poke(a, r->dev, off, 4, (uint32_t)base);
    if (pci_bar_is_64(r->dev->bar[r->bar].kind))
        poke(a, r->dev, off + 4, 4, (uint32_t)(base >> 32));
}

/* Lays window w of bus b out from `base`; returns the end. */
static uint64_t layout(struct assign *a, struct pci_bus *b, enum window w, uint64_t base, bool apply)
{
    struct resource *r = g_new(struct resource, ARRAY_COUNT(b->dev) * (PCI_MAX_BARS + 1));
    unsigned count = collect(a, b, w, r);
    qsort(r, count, sizeof(*r), by_align);
    for (unsigned i = 0; i < count; i++) {
        base = align_up(base, r[i].align);
        if (apply)
            place(a, &r[i], w, base);
        base += r[i].size;
    }
    g_free(r);
    return base;
}

/* All windows of a bridge shut: base above limit. */
static void shut_bridge(struct pci_device *p, void *opaque)
{
    struct assign *a = opaque;
    if (!p->secondary)
        return;
    set_bridge_window(a, p, WINDOW_IO, 0xf000, 0x0fff);
    set_bridge_window(a, p, WINDOW_MEM, 0xfff00000, 0x000fffff);
    set_bridge_window(a, p, WINDOW_PREF, 0xfff00000, 0x000fffff);
}

static void enable(struct pci_device *p, void *opaque)
{
    struct assign *a = opaque;
    if (p->intx_pin) {
        unsigned pin = p->intx_pin - 1;
        const struct pci_device *at = p;
        for (; at->bus->bridge; at = at->bus->bridge)
            pin = (pin + PCI_SLOT(at->devfn)) % 4;
        unsigned line = a->root->irq.map(PCI_SLOT(at->devfn), pin) % PCI_BUS_LINES;
        poke(a, p, PCI_INTERRUPT_LINE, 1, a->windows->line_irq[line]);
    }
    poke(a, p, PCI_COMMAND, 2,
         pci_get16(p, PCI_COMMAND) | PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

bool pci_bus_assign(struct pci_bus *b, const struct pci_windows *w)
{
    struct assign a = { .root = b, .windows = w };
    number_buses(&a, b);
    pci_bus_foreach(b, shut_bridge, &a);
    if (layout(&a, b, WINDOW_MEM, w->mem_base, false) > w->mem_end)
        a.pref_high = true;
    bool io_fits = layout(&a, b, WINDOW_IO, w->io_base, false) <= w->io_end;
    bool mem_fits = layout(&a, b, WINDOW_MEM, w->mem_base, false) <= w->mem_end;
    bool high_fits = layout(&a, b, WINDOW_PREF, w->mem64_base, false) <= w->mem64_end;
    if (io_fits)
        layout(&a, b, WINDOW_IO, w->io_base, true);
    if (mem_fits)
        layout(&a, b, WINDOW_MEM, w->mem_base, true);
    if (high_fits)
        layout(&a, b, WINDOW_PREF, w->mem64_base, true);
    pci_bus_foreach(b, enable, &a);
    return io_fits && mem_fits && high_fits;
}
