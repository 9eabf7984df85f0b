/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Base address registers and bridge windows: where a function's regions stand in the address spaces.
 *
 * Spec      PCI Local Bus 3.0, 6.2.5; PCI-to-PCI Bridge 1.2, 3.2.5.
 * Thread    The bus lock is held, but for pci_bar_register(). Regions are moved and hidden, never waited for.
 * Trust     Addresses are the guest's: one that wraps, lies above the space or is 0 leaves the BAR unmapped.
 */
#include "devices/pci/pci_internal.h"

#define MEM_LIMIT (1ULL << 52)

void pci_bar_register(struct pci_device *p, unsigned n, enum pci_bar_kind kind, struct mem_region *r)
{
    struct pci_bar *bar = &p->bar[n];
    unsigned off = pci_bar_offset(n);
    bool io = kind == PCI_BAR_IO;
    *bar = (struct pci_bar){ .region = r, .kind = kind, .size = r->size, .addr = PCI_UNMAPPED };
    uint64_t mask = ~(r->size - 1) & (io ? 0xfffffffcu : ~0xfULL);
    uint32_t flags = io ? 1 : (pci_bar_is_64(kind) ? 4 : 0) | (kind == PCI_BAR_MEM64_PREFETCH ? 8 : 0);
    uint32_t low = (uint32_t)mask, high = (uint32_t)(mask >> 32);
    pci_set32(p, off, flags);
    memcpy(p->writable + off, &low, 4);
    if (pci_bar_is_64(kind))
        memcpy(p->writable + off + 4, &high, 4);
    struct machine *m = p->dev.machine;
    struct mem_space *space = io ? m->io : m->memory;
    mem_space_begin(space);
    if (!mem_region_add(space, r, 0, PCI_BAR_PRIORITY))
        mem_region_hide(r);
    mem_space_end(space);
}

uint64_t pci_bar_address(const struct pci_device *p, unsigned n)
{
    const struct pci_bar *bar = &p->bar[n];
    bool io = bar->kind == PCI_BAR_IO;
    uint64_t addr = pci_get32(p, pci_bar_offset(n)) & (io ? ~3u : ~0xfu);
    if (pci_bar_is_64(bar->kind))
        addr |= (uint64_t)pci_get32(p, pci_bar_offset(n + 1)) << 32;
    uint64_t limit = io ? 0x10000 : pci_bar_is_64(bar->kind) ? MEM_LIMIT : 0xffffffffu;
    if (!addr || !range_fits(addr, bar->size, limit))
        return PCI_UNMAPPED;
    return addr;
}

/* True when [addr, addr + size) lies in the inclusive window; a window whose end is below its start is shut. */
static bool window_holds(uint64_t base, uint64_t last, uint64_t addr, uint64_t size)
{
    return base <= last && addr >= base && addr + size - 1 <= last;
}

static bool bridge_passes(const struct pci_device *br, enum pci_bar_kind kind, uint64_t addr, uint64_t size)
{
    uint16_t command = pci_get16(br, PCI_COMMAND);
    if (kind == PCI_BAR_IO) {
        uint64_t base = (br->config[PCI_IO_BASE] & 0xf0) << 8;
        uint64_t last = (br->config[PCI_IO_LIMIT] & 0xf0) << 8 | 0xfff;
        return (command & PCI_COMMAND_IO) && window_holds(base, last, addr, size);
    }
    if (!(command & PCI_COMMAND_MEMORY))
        return false;
    uint64_t base = (uint64_t)(pci_get16(br, PCI_MEMORY_BASE) & 0xfff0) << 16;
    uint64_t last = (uint64_t)(pci_get16(br, PCI_MEMORY_LIMIT) & 0xfff0) << 16 | 0xfffff;
    if (window_holds(base, last, addr, size))
        return true;
    base = (uint64_t)(pci_get16(br, PCI_PREF_BASE) & 0xfff0) << 16 |
           (uint64_t)pci_get32(br, PCI_PREF_BASE_HIGH) << 32;
    last = (uint64_t)(pci_get16(br, PCI_PREF_LIMIT) & 0xfff0) << 16 | 0xfffff |
           (uint64_t)pci_get32(br, PCI_PREF_LIMIT_HIGH) << 32;
    return window_holds(base, last, addr, size);
}

bool pci_bridge_forwards(const struct pci_bus *b, enum pci_bar_kind kind, uint64_t addr, uint64_t size)
{
    for (; b->bridge; b = b->bridge->bus)
        if (!bridge_passes(b->bridge, kind, addr, size))
            return false;
    return true;
}

static uint64_t effective_address(const struct pci_device *p, unsigned n)
{
    const struct pci_bar *bar = &p->bar[n];
    uint16_t need = bar->kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
    if (p->shut || !(pci_get16(p, PCI_COMMAND) & need))
        return PCI_UNMAPPED;
    uint64_t addr = pci_bar_address(p, n);
    if (addr == PCI_UNMAPPED || !pci_bridge_forwards(p->bus, bar->kind, addr, bar->size))
        return PCI_UNMAPPED;
    return addr;
}

void pci_bars_update(struct pci_device *p)
{
    for (unsigned n = 0; n < PCI_MAX_BARS; n++) {
        struct pci_bar *bar = &p->bar[n];
        if (!bar->region)
            continue;
        uint64_t addr = effective_address(p, n);
        if (addr == bar->addr)
            continue;
        if (addr == PCI_UNMAPPED || mem_region_move(bar->region, addr)) {
            mem_region_hide(bar->region);
            addr = PCI_UNMAPPED;
        }
        bar->addr = addr;
    }
}

static void update_one(struct pci_device *p, void *opaque)
{
    pci_bars_update(p);
}

void pci_bars_update_behind(struct pci_bus *b)
{
    pci_bus_foreach(b, update_one, NULL);
}
