/* SPDX-License-Identifier: GPL-2.0-or-later */
/* PCI by ports 0xcf8 and 0xcfc. */
#include "guest.h"

static uint32_t select_reg(const struct pci *p, unsigned off)
{
    uint32_t a = 1u << 31 | (uint32_t)p->bus << 16 | (uint32_t)p->dev << 11 | (uint32_t)p->fn << 8 |
                 (off & 0xfc);
    out32(0xcf8, a);
    return a;
}

uint32_t pci_read32(const struct pci *p, unsigned off)
{
    select_reg(p, off);
    return in32(0xcfc);
}

void pci_write32(const struct pci *p, unsigned off, uint32_t v)
{
    select_reg(p, off);
    out32(0xcfc, v);
}

uint16_t pci_read16(const struct pci *p, unsigned off)
{
    select_reg(p, off);
    return in16((uint16_t)(0xcfc + (off & 2)));
}

void pci_write16(const struct pci *p, unsigned off, uint16_t v)
{
    select_reg(p, off);
    out16((uint16_t)(0xcfc + (off & 2)), v);
}

uint8_t pci_read8(const struct pci *p, unsigned off)
{
    select_reg(p, off);
    return in8((uint16_t)(0xcfc + (off & 3)));
}

void pci_write8(const struct pci *p, unsigned off, uint8_t v)
{
    select_reg(p, off);
    out8((uint16_t)(0xcfc + (off & 3)), v);
}

/* Size and place of each BAR, decoding off meanwhile. */
static void read_bars(struct pci *p)
{
    uint16_t command = pci_read16(p, 4);
    pci_write16(p, 4, (uint16_t)(command & ~3u));
    for (unsigned i = 0; i < ((p->header & 0x7f) == 1 ? 2u : 6u); i++) {
        unsigned off = 0x10 + 4 * i, first = i;
        uint32_t old = pci_read32(p, off);
        pci_write32(p, off, ~0u);
        uint64_t mask = pci_read32(p, off);
        pci_write32(p, off, old);
        if (!mask)
            continue;
        p->bar_io[first] = old & 1;
        p->bar[first] = old & (old & 1 ? ~3u : ~15u);
        if (!(old & 1) && (old & 6) == 4 && i < 5) {
            uint32_t high = pci_read32(p, off + 4);
            pci_write32(p, off + 4, ~0u);
            mask |= (uint64_t)pci_read32(p, off + 4) << 32;
            pci_write32(p, off + 4, high);
            p->bar[first] |= (uint64_t)high << 32;
            i++;
        } else {
            mask |= ~0ull << 32;
        }
        p->bar_size[first] = -(mask & (old & 1 ? ~3ull : ~15ull));
        if (old & 1)
            p->bar_size[first] &= 0xffff;
    }
    pci_write16(p, 4, command);
}

bool pci_probe(uint8_t bus, uint8_t dev, uint8_t fn, struct pci *ret)
{
    struct pci p = { .bus = bus, .dev = dev, .fn = fn };
    uint32_t id = pci_read32(&p, 0);
    if ((id & 0xffff) == 0xffff)
        return false;
    p.vendor = (uint16_t)id;
    p.device = (uint16_t)(id >> 16);
    p.subclass = pci_read8(&p, 0xa);
    p.class_code = pci_read8(&p, 0xb);
    p.header = pci_read8(&p, 0xe);
    p.irq_line = pci_read8(&p, 0x3c);
    p.irq_pin = pci_read8(&p, 0x3d);
    read_bars(&p);
    *ret = p;
    return true;
}

unsigned pci_scan(struct pci *ret, unsigned max)
{
    unsigned n = 0;
    for (unsigned bus = 0; bus < 4; bus++) {
        for (unsigned slot = 0; slot < 256 && n < max; slot++)
            n += pci_probe((uint8_t)bus, (uint8_t)(slot >> 3), slot & 7, &ret[n]);
    }
    return n;
}

bool pci_find(uint16_t vendor, uint16_t device, unsigned nth, struct pci *ret)
{
    static struct pci all[PCI_MAX];
    static unsigned count;
    if (!count)
        count = pci_scan(all, PCI_MAX);
    for (unsigned i = 0; i < count; i++) {
        if (all[i].vendor == vendor && all[i].device == device && nth-- == 0) {
            *ret = all[i];
            return true;
        }
    }
    return false;
}

uint8_t pci_capability(const struct pci *p, uint8_t id, uint8_t after)
{
    if (!(pci_read16(p, 6) & 0x10))
        return 0;
    uint8_t at = after ? pci_read8(p, after + 1u) : pci_read8(p, 0x34);
    for (unsigned i = 0; at && i < 48; i++, at = pci_read8(p, at + 1u)) {
        if (pci_read8(p, at) == id)
            return at;
    }
    return 0;
}

volatile void *pci_map_bar(struct pci *p, unsigned bar)
{
#ifdef __x86_64__
    return map_mmio(p->bar[bar], p->bar_size[bar]);
#else
    return (volatile void *)(uintptr_t)p->bar[bar];
#endif
}

void pci_enable(const struct pci *p, bool master)
{
    pci_write16(p, 4, (uint16_t)(pci_read16(p, 4) | 3 | (master ? 4 : 0)));
}

bool pci_msix_set(struct pci *p, unsigned entry, uint32_t dest_apic, uint8_t vector)
{
    uint8_t cap = pci_capability(p, 0x11, 0);
    if (!cap || entry > (pci_read16(p, cap + 2u) & 0x7ffu))
        return false;
    uint32_t table = pci_read32(p, cap + 4u);
    volatile uint32_t *e = (volatile uint32_t *)((volatile uint8_t *)pci_map_bar(p, table & 7) +
                                                 (table & ~7u) + 16 * entry);
    pci_write16(p, cap + 2u, (uint16_t)(pci_read16(p, cap + 2u) | 0x8000));
    e[0] = 0xfee00000 | dest_apic << 12;
    e[1] = 0;
    e[2] = vector;
    e[3] = 0;
    return true;
}
