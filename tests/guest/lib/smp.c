/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The other vCPUs: started by INIT and SIPI, then asleep in HLT until they are given work. */
#include "guest.h"

#define AP_PAGE 0x8000ul
#define WORK_VECTOR 0xf0

extern uint8_t ap_start[], ap_end[];
void smp_ap_main(unsigned index);
static bool x2;

unsigned cpu_count(void)
{
    uint16_t n = 0;
    if (fw_cfg_present())
        fw_cfg_read(5, &n, sizeof(n));
    return (unsigned)cmdline_number("cpus", n ? n : 1);
}

static void work_interrupt(struct frame *f)
{
    apic_eoi();
}

void smp_ap_main(unsigned index)
{
    struct this_cpu *c = &cpus[index];
    if (x2)
        apic_x2_enable();
    else
        apic_enable();
    c->apic_id = apic_id();
    __atomic_store_n(&c->up, true, __ATOMIC_RELEASE);
    for (;;) {
        while (!__atomic_load_n(&c->work, __ATOMIC_ACQUIRE))
            sti_hlt_cli();
        c->work(c->work_arg);
        __atomic_store_n(&c->work, NULL, __ATOMIC_RELEASE);
    }
}

static unsigned count_up(unsigned count)
{
    unsigned up = 1;
    for (unsigned i = 1; i < count; i++)
        up += __atomic_load_n(&cpus[i].up, __ATOMIC_ACQUIRE);
    return up;
}

unsigned smp_start(void)
{
    unsigned count = cpu_count();
    if (count > MAX_CPUS)
        count = MAX_CPUS;
    x2 = apic_is_x2();
    if (!x2)
        apic_enable();
    cpus[0].apic_id = apic_id();
    trap_set(WORK_VECTOR, work_interrupt);
    memcpy((void *)AP_PAGE, ap_start, (size_t)(ap_end - ap_start));
    if (count > 1) {
        apic_icr(0, 0xc4500); /* all but self: INIT, then SIPI twice, as the specification has it */
        delay_us(10000);
        apic_icr(0, 0xc4600 | AP_PAGE >> 12);
        delay_us(200);
        apic_icr(0, 0xc4600 | AP_PAGE >> 12);
    }
    uint64_t begin = rdtsc(), ticks = tsc_khz() * 20000;
    while (count_up(count) < count && rdtsc() - begin < ticks)
        pause();
    return count_up(count);
}

void smp_ipi(unsigned index, uint8_t vector)
{
    apic_icr(cpus[index].apic_id, 0x4000 | vector);
}

void smp_call(unsigned index, void (*fn)(void *arg), void *arg)
{
    cpus[index].work_arg = arg;
    __atomic_store_n(&cpus[index].work, fn, __ATOMIC_RELEASE);
    smp_ipi(index, WORK_VECTOR);
}

void smp_wait(unsigned index)
{
    while (__atomic_load_n(&cpus[index].work, __ATOMIC_ACQUIRE))
        pause();
}

void smp_call_all(void (*fn)(void *arg), void *arg)
{
    unsigned self = this_cpu()->index;
    for (unsigned i = 0; i < MAX_CPUS; i++) {
        if (i != self && cpus[i].up)
            smp_call(i, fn, arg);
    }
    fn(arg);
    for (unsigned i = 0; i < MAX_CPUS; i++) {
        if (i != self && cpus[i].up)
            smp_wait(i);
    }
}
