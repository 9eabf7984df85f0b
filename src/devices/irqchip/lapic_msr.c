/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The local APIC's MSRs: IA32_APIC_BASE, the TSC deadline, and the registers of an x2APIC.
 *
 * Spec      Intel SDM volume 3, sections 11.4.4 and 11.12.
 * Thread    The vCPU's own.
 * Trust     Values are the guest's: what the processor refuses with #GP gives -1.
 */
#include "devices/irqchip/lapic.h"

#define MSR_APIC_BASE 0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC 0x800
#define CPUID_1_ECX_X2APIC (1u << 21)
#define LVT_READ_ONLY 0x5000u /* delivery status, remote IRR */

/* The bits of IA32_APIC_BASE on the machine's processors. */
uint64_t lapic_known_base_bits(const struct machine *m)
{
    uint32_t sizes[4] = { 52 }, features[4] = { [2] = CPUID_1_ECX_X2APIC };
    if (m->cpu_model) {
        cpu_model_cpuid(m->cpu_model, &m->config.topology, 0, 0x80000008, 0, sizes);
        cpu_model_cpuid(m->cpu_model, &m->config.topology, 0, 1, 0, features);
    }
    unsigned bits = sizes[0] & 0xff;
    uint64_t addr = bits >= 32 && bits < 52 ? (1ULL << bits) - 1 : (1ULL << 52) - 1;
    return (addr & LAPIC_BASE_ADDR) | LAPIC_BASE_BSP | LAPIC_BASE_ENABLE |
           (features[2] & CPUID_1_ECX_X2APIC ? LAPIC_BASE_X2APIC : 0);
}

static int base_written(struct lapic *s, unsigned i, uint64_t val)
{
    bool on = val & LAPIC_BASE_ENABLE, x2 = val & LAPIC_BASE_X2APIC;
    bool was_on = s->base[i] & LAPIC_BASE_ENABLE, was_x2 = lapic_is_x2(s, i);
    if ((val & ~s->base_known) || (x2 && !on) || (x2 && !was_on) || (was_x2 && on && !x2))
        return -1;
    uint32_t id = cpu_topology_apic_id(&s->dev.machine->config.topology, i);
    if ((x2 && !was_x2) || !on)
        s->reg[i][LAPIC_ID] = id;
    if (x2 && !was_x2) {
        s->reg[i][LAPIC_LDR] = id >> 4 << 16 | 1u << (id & 0xf);
        s->reg[i][LAPIC_ICR2] = 0;
    }
    uint64_t moved = (s->base[i] ^ val) & LAPIC_BASE_ADDR;
    s->base[i] = val;
    if (moved)
        lapic_place(s, i);
    if (was_on && !on)
        lapic_init_regs(s, i);
    lapic_update(s, i);
    return 0;
}

static int x2_read(struct lapic *s, unsigned i, unsigned reg, uint64_t *ret_val)
{
    uint32_t val;
    if (reg == LAPIC_DFR || reg == LAPIC_ICR2 || reg == LAPIC_EOI || reg == LAPIC_APR ||
        reg >= LAPIC_REGS || !lapic_reg_read(s, i, reg, &val))
        return -1;
    *ret_val = reg == LAPIC_ICR ? (uint64_t)s->reg[i][LAPIC_ICR2] << 32 | val : val;
    return 0;
}

static int x2_write(struct lapic *s, unsigned i, unsigned reg, uint64_t val)
{
    if (reg == LAPIC_ICR) {
        if ((uint32_t)val & ~(lapic_writable[LAPIC_ICR] | 1u << 12))
            return -1;
        s->reg[i][LAPIC_ICR] = (uint32_t)val & lapic_writable[LAPIC_ICR];
        s->reg[i][LAPIC_ICR2] = val >> 32;
        lapic_icr_written(s, i, (uint32_t)val, val >> 32);
        return 0;
    }
    if (val >> 32)
        return -1;
    if (reg == LAPIC_SELF_IPI) {
        if (val > 0xff)
            return -1;
        lapic_self_ipi(s, i, (uint8_t)val);
        return 0;
    }
    if (reg == LAPIC_DFR || reg == LAPIC_LDR || reg == LAPIC_ICR2 || reg >= LAPIC_REGS)
        return -1;
    /* EOI and ESR take only zero, the others only the bits they have; writing a read-only one is no
     * fault. */
    bool lvt = reg >= LAPIC_LVT_TIMER && reg <= LAPIC_LVT_ERROR;
    if (val & ~(uint64_t)(lapic_writable[reg] | (lvt ? LVT_READ_ONLY : 0)))
        return -1;
    return lapic_reg_write(s, i, reg, (uint32_t)val) ? 0 : -1;
}

int lapic_msr_read(void *opaque, unsigned i, uint32_t msr, uint64_t *ret_val)
{
    struct lapic *s = opaque;
    if (msr == MSR_APIC_BASE) {
        *ret_val = s->base[i];
        return 0;
    }
    if (msr == MSR_TSC_DEADLINE) {
        *ret_val = lapic_timer_deadline(s, i);
        return 0;
    }
    return lapic_is_x2(s, i) && msr >= MSR_X2APIC ? x2_read(s, i, msr - MSR_X2APIC, ret_val) : -1;
}

int lapic_msr_write(void *opaque, unsigned i, uint32_t msr, uint64_t val)
{
    struct lapic *s = opaque;
    if (msr == MSR_APIC_BASE)
        return base_written(s, i, val);
    if (msr == MSR_TSC_DEADLINE) {
        lapic_timer_set_deadline(s, i, val);
        return 0;
    }
    return lapic_is_x2(s, i) && msr >= MSR_X2APIC ? x2_write(s, i, msr - MSR_X2APIC, val) : -1;
}
