/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The TSC as a clock: its frequency from CPUID where that is told, else by the PIT. */
#include "guest.h"

static uint64_t khz;

static uint64_t khz_by_cpuid(void)
{
    uint32_t r[4];
    cpuid(0, 0, r);
    if (r[0] >= 0x15) {
        cpuid(0x15, 0, r);
        if (r[0] && r[1] && r[2])
            return (uint64_t)r[2] * r[1] / r[0] / 1000;
    }
    cpuid(0x40000000, 0, r);
    if (r[0] >= 0x40000010 && r[0] < 0x40001000) {
        cpuid(0x40000010, 0, r);
        return r[0];
    }
    return 0;
}

/* Channel 2, mode 0, 20 ms. */
static uint64_t khz_by_pit(void)
{
    unsigned count = 1193182 / 50;
    out8(0x61, (uint8_t)((in8(0x61) & ~2u) | 1));
    out8(0x43, 0xb0);
    out8(0x42, (uint8_t)count);
    out8(0x42, (uint8_t)(count >> 8));
    uint64_t begin = rdtsc();
    while (!(in8(0x61) & 0x20) && rdtsc() - begin < 2000000000ull)
        ;
    return (rdtsc() - begin) / 20;
}

uint64_t tsc_khz(void)
{
    if (!khz)
        khz = khz_by_cpuid();
    if (!khz)
        khz = khz_by_pit();
    return khz;
}

void delay_us(uint64_t us)
{
    uint64_t begin = rdtsc(), ticks = us * tsc_khz() / 1000;
    while (rdtsc() - begin < ticks)
        pause();
}

bool wait_for(volatile uint64_t *what, uint64_t value, unsigned ms)
{
    uint64_t begin = rdtsc(), ticks = ms * tsc_khz();
    while (*what < value && rdtsc() - begin < ticks) {
        sti();
        pause();
        cli();
    }
    return *what >= value;
}
