/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Local APIC, IOAPIC and PIC, at their usual places. */
#include "guest.h"

#define LAPIC 0xfee00000ul
#define IOAPIC 0xfec00000ul

bool apic_is_x2(void)
{
    return rdmsr(MSR_APIC_BASE) & 1u << 10;
}

uint32_t apic_read(unsigned reg)
{
    if (apic_is_x2())
        return (uint32_t)rdmsr(0x800 + reg / 16);
    return *(volatile uint32_t *)(LAPIC + reg);
}

void apic_write(unsigned reg, uint32_t v)
{
    if (apic_is_x2())
        wrmsr(0x800 + reg / 16, v);
    else
        *(volatile uint32_t *)(LAPIC + reg) = v;
}

void apic_enable(void)
{
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 1u << 11);
    apic_write(APIC_TPR, 0);
    apic_write(APIC_SVR, 0x1ff);
}

void apic_x2_enable(void)
{
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 3u << 10);
    apic_write(APIC_TPR, 0);
    apic_write(APIC_SVR, 0x1ff);
}

uint32_t apic_id(void)
{
    return apic_is_x2() ? apic_read(APIC_ID) : apic_read(APIC_ID) >> 24;
}

void apic_icr(uint32_t dest, uint32_t low)
{
    if (apic_is_x2()) {
        wrmsr(0x830, (uint64_t)dest << 32 | low);
        return;
    }
    apic_write(APIC_ICR2, dest << 24);
    apic_write(APIC_ICR, low);
    for (unsigned i = 0; i < 100000 && (apic_read(APIC_ICR) & 1u << 12); i++)
        pause();
}

void apic_eoi(void)
{
    apic_write(APIC_EOI, 0);
}

bool apic_is_set(unsigned bank, uint8_t vector)
{
    return apic_read(bank + vector / 32 * 16) >> (vector & 31) & 1;
}

uint32_t ioapic_read(unsigned reg)
{
    *(volatile uint32_t *)IOAPIC = reg;
    return *(volatile uint32_t *)(IOAPIC + 0x10);
}

void ioapic_write(unsigned reg, uint32_t v)
{
    *(volatile uint32_t *)IOAPIC = reg;
    *(volatile uint32_t *)(IOAPIC + 0x10) = v;
}

void ioapic_route(unsigned pin, uint64_t entry)
{
    ioapic_write(0x10 + 2 * pin, IOAPIC_MASKED);
    ioapic_write(0x11 + 2 * pin, (uint32_t)(entry >> 32));
    ioapic_write(0x10 + 2 * pin, (uint32_t)entry);
}

void pic_init(uint8_t base0, uint8_t base1, uint16_t mask)
{
    static const uint8_t icw4 = 1;
    out8(0x20, 0x11);
    out8(0xa0, 0x11);
    out8(0x21, base0);
    out8(0xa1, base1);
    out8(0x21, 4);
    out8(0xa1, 2);
    out8(0x21, icw4);
    out8(0xa1, icw4);
    out8(0x21, (uint8_t)mask);
    out8(0xa1, (uint8_t)(mask >> 8));
}
