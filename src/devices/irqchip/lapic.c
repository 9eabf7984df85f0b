/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `lapic`: the local APICs of all vCPUs, for accelerators without a kernel irqchip.
 *
 * Spec      Intel SDM volume 3, chapter 11; messages are in lapic_ipi.c, MSRs in lapic_msr.c, the
 *           timer in lapic_timer.c.
 * Thread    See lapic.h. The page at 0xfee00000 is the APIC of the vCPU that touches it.
 * Trust     Registers are the guest's. Illegal xAPIC accesses set ESR, illegal x2APIC ones give
 *           #GP.
 */
#include "devices/irqchip/lapic.h"

#define PAGE_BYTES 0x1000
#define VERSION 0x00050014u /* six LVT entries, version 0x14 */

/* What a guest may change, per register that is only storage; 0: not written that way. */
const uint32_t lapic_writable[LAPIC_REGS] = {
    [LAPIC_TPR] = 0xff,          [LAPIC_LDR] = 0xff000000,     [LAPIC_DFR] = 0xf0000000,
    [LAPIC_SVR] = 0x1ff,         [LAPIC_ICR] = 0xccfff,        [LAPIC_ICR2] = 0xff000000,
    [LAPIC_LVT_TIMER] = 0x700ff, [LAPIC_LVT_THERMAL] = 0x107ff, [LAPIC_LVT_PERF] = 0x107ff,
    [LAPIC_LVT_LINT0] = 0x1a7ff, [LAPIC_LVT_LINT1] = 0x1a7ff,  [LAPIC_LVT_ERROR] = 0x100ff,
    [LAPIC_TICR] = UINT32_MAX,   [LAPIC_TDCR] = 0xb,
};

/* The only userspace APIC there is. */
static struct lapic *lapic_of(const struct machine *m)
{
    return m->accel && m->accel->apic ? m->accel->apic->opaque : NULL;
}

void lapic_signal(struct lapic *s, unsigned i, enum vcpu_signal_kind kind, uint8_t vector)
{
    struct machine *m = s->dev.machine;
    if (m->vcpus && i < m->vcpu_count)
        m->accel->ops->vcpu_signal(m->vcpus[i], kind, vector);
}

int lapic_highest(_Atomic uint32_t *words)
{
    for (int w = 7; w >= 0; w--) {
        uint32_t bits = words[w];
        if (bits)
            return w * 32 + 31 - __builtin_clz(bits);
    }
    return -1;
}

uint8_t lapic_ppr(struct lapic *s, unsigned i)
{
    uint8_t tpr = (uint8_t)s->reg[i][LAPIC_TPR];
    int isr = lapic_highest(&s->reg[i][LAPIC_ISR]);
    return isr >= 0 && isr >> 4 > tpr >> 4 ? isr & 0xf0 : tpr;
}

/* The vector to deliver now, or -1. */
static int deliverable(struct lapic *s, unsigned i)
{
    if (!lapic_is_on(s, i))
        return -1;
    int irr = lapic_highest(&s->reg[i][LAPIC_IRR]);
    return irr >= 0 && irr >> 4 > lapic_ppr(s, i) >> 4 ? irr : -1;
}

/* Does the PIC's output reach this vCPU? A disabled APIC connects it straight to the boot
 * processor. */
static bool takes_pic(struct lapic *s, unsigned i)
{
    if (!(s->base[i] & LAPIC_BASE_ENABLE))
        return i == 0;
    uint32_t lvt = s->reg[i][LAPIC_LVT_LINT0];
    return !(lvt & LAPIC_LVT_MASKED) && (lvt >> 8 & 7) == LAPIC_EXTINT;
}

static bool pic_wants(struct lapic *s, unsigned i)
{
    return s->lint0 && s->pic_ack && (s->extint[i] || takes_pic(s, i));
}

void lapic_update(struct lapic *s, unsigned i)
{
    if (pic_wants(s, i) || deliverable(s, i) >= 0)
        lapic_signal(s, i, VCPU_SIGNAL_INTR, 0);
}

void lapic_post(struct lapic *s, unsigned i, uint8_t vector, bool level)
{
    uint32_t bit = 1u << (vector & 31);
    if (!lapic_is_on(s, i))
        return;
    if (vector < 16) {
        lapic_error(s, i, LAPIC_ERR_RECV_VECTOR);
        return;
    }
    lapic_count(&s->posted);
    if (level)
        atomic_fetch_or(&s->reg[i][LAPIC_TMR + vector / 32], bit);
    else
        atomic_fetch_and(&s->reg[i][LAPIC_TMR + vector / 32], ~bit);
    if (atomic_fetch_or(&s->reg[i][LAPIC_IRR + vector / 32], bit) & bit)
        lapic_count(&s->coalesced);
    else if (deliverable(s, i) >= 0)
        lapic_signal(s, i, VCPU_SIGNAL_INTR, 0);
}

void lapic_local(struct lapic *s, unsigned i, enum lapic_reg lvt_reg)
{
    uint32_t lvt = s->reg[i][lvt_reg];
    if ((lvt & LAPIC_LVT_MASKED) || !(s->base[i] & LAPIC_BASE_ENABLE))
        return;
    switch (lvt >> 8 & 7) {
    case LAPIC_FIXED:
        lapic_post(s, i, (uint8_t)lvt, false);
        break;
    case LAPIC_SMI:
        lapic_signal(s, i, VCPU_SIGNAL_SMI, 0);
        break;
    case LAPIC_NMI:
        lapic_signal(s, i, VCPU_SIGNAL_NMI, 0);
        break;
    case LAPIC_EXTINT:
        lapic_update(s, i);
        break;
    default: /* INIT is for pins that are not there */
        break;
    }
}

/* An error interrupt whose own vector is illegal must not raise the next one. */
void lapic_error(struct lapic *s, unsigned i, uint32_t bits)
{
    lapic_count(&s->errors);
    bool first = !(atomic_fetch_or(&s->esr_pending[i], bits) & bits);
    if (first && (s->reg[i][LAPIC_LVT_ERROR] & 0xff) >= 16)
        lapic_local(s, i, LAPIC_LVT_ERROR);
}

void lapic_connect_pic(struct machine *m, int (*ack)(void *opaque), void *opaque)
{
    struct lapic *s = lapic_of(m);
    if (!s)
        return;
    s->pic_ack = ack;
    s->pic = opaque;
}

void lapic_connect_eoi(struct machine *m, void (*eoi)(void *opaque, uint8_t vector), void *opaque)
{
    struct lapic *s = lapic_of(m);
    if (!s)
        return;
    s->eoi = eoi;
    s->eoi_opaque = opaque;
}

void lapic_set_lint0(struct machine *m, int level)
{
    struct lapic *s = lapic_of(m);
    if (!s)
        return;
    int was = atomic_exchange(&s->lint0, !!level);
    if (!level || was)
        return;
    for (unsigned i = 0; i < s->count; i++) {
        if (pic_wants(s, i))
            lapic_signal(s, i, VCPU_SIGNAL_INTR, 0);
        else
            lapic_local(s, i, LAPIC_LVT_LINT0);
    }
}

void lapic_nmi(struct machine *m)
{
    struct lapic *s = lapic_of(m);
    for (unsigned i = 0; s && i < s->count; i++)
        lapic_local(s, i, LAPIC_LVT_LINT1);
}

/* --- what the processor asks for, on its own thread --- */

static int apic_ack(void *opaque, unsigned i)
{
    struct lapic *s = opaque;
    int vector;
    if (pic_wants(s, i)) {
        s->extint[i] = 0;
        vector = s->pic_ack(s->pic);
    } else {
        vector = deliverable(s, i);
        if (vector < 0)
            return -1;
        uint32_t bit = 1u << (vector & 31);
        atomic_fetch_or(&s->reg[i][LAPIC_ISR + vector / 32], bit);
        atomic_fetch_and(&s->reg[i][LAPIC_IRR + vector / 32], ~bit);
    }
    lapic_update(s, i);
    return vector;
}

static uint64_t apic_tpr_read(void *opaque, unsigned i)
{
    struct lapic *s = opaque;
    return s->reg[i][LAPIC_TPR] >> 4;
}

static void apic_tpr_write(void *opaque, unsigned i, uint64_t cr8)
{
    struct lapic *s = opaque;
    s->reg[i][LAPIC_TPR] = (cr8 & 0xf) << 4;
    lapic_update(s, i);
}

static void end_of_interrupt(struct lapic *s, unsigned i)
{
    int vector = lapic_highest(&s->reg[i][LAPIC_ISR]);
    if (vector < 0)
        return;
    uint32_t bit = 1u << (vector & 31);
    lapic_count(&s->eois);
    atomic_fetch_and(&s->reg[i][LAPIC_ISR + vector / 32], ~bit);
    if ((s->reg[i][LAPIC_TMR + vector / 32] & bit) && s->eoi)
        s->eoi(s->eoi_opaque, (uint8_t)vector);
    lapic_update(s, i);
}

/* --- registers --- */

static void lvt_written(struct lapic *s, unsigned i, enum lapic_reg reg, uint32_t val)
{
    val &= lapic_writable[reg];
    if (!(s->reg[i][LAPIC_SVR] & LAPIC_SVR_ENABLE))
        val |= LAPIC_LVT_MASKED;
    if (reg == LAPIC_LVT_TIMER)
        lapic_timer_set_lvt(s, i, val);
    else
        s->reg[i][reg] = val;
    lapic_update(s, i);
}

static void svr_written(struct lapic *s, unsigned i, uint32_t val)
{
    s->reg[i][LAPIC_SVR] = val & lapic_writable[LAPIC_SVR];
    if (!(val & LAPIC_SVR_ENABLE)) {
        for (unsigned r = LAPIC_LVT_TIMER; r <= LAPIC_LVT_ERROR; r++)
            lvt_written(s, i, r, s->reg[i][r]);
    }
    lapic_update(s, i);
}

/* False: there is no such register to write. */
bool lapic_reg_write(struct lapic *s, unsigned i, unsigned reg, uint32_t val)
{
    switch (reg) {
    case LAPIC_TPR:
        s->reg[i][LAPIC_TPR] = val & 0xff;
        lapic_update(s, i);
        return true;
    case LAPIC_EOI:
        end_of_interrupt(s, i);
        return true;
    case LAPIC_LDR:
    case LAPIC_ICR2:
        s->reg[i][reg] = val & lapic_writable[reg];
        return true;
    case LAPIC_DFR:
        s->reg[i][reg] = val | ~lapic_writable[reg];
        return true;
    case LAPIC_SVR:
        svr_written(s, i, val);
        return true;
    case LAPIC_ESR:
        s->reg[i][LAPIC_ESR] = atomic_exchange(&s->esr_pending[i], 0);
        return true;
    case LAPIC_ICR:
        s->reg[i][LAPIC_ICR] = val & lapic_writable[LAPIC_ICR];
        lapic_icr_written(s, i, val, s->reg[i][LAPIC_ICR2] >> 24);
        return true;
    case LAPIC_LVT_TIMER ... LAPIC_LVT_ERROR:
        lvt_written(s, i, reg, val);
        return true;
    case LAPIC_TICR:
        lapic_timer_set_count(s, i, val);
        return true;
    case LAPIC_TDCR:
        lapic_timer_set_divide(s, i, val);
        return true;
    default:
        return false;
    }
}

/* False: there is no such register to read. */
bool lapic_reg_read(struct lapic *s, unsigned i, unsigned reg, uint32_t *ret_val)
{
    switch (reg) {
    case LAPIC_PPR:
        *ret_val = lapic_ppr(s, i);
        return true;
    case LAPIC_TCCR:
        *ret_val = lapic_timer_count(s, i);
        return true;
    case LAPIC_ID ... LAPIC_VERSION:
    case LAPIC_TPR:
    case LAPIC_LDR ... LAPIC_ESR:
    case LAPIC_ICR ... LAPIC_TICR:
    case LAPIC_TDCR:
        *ret_val = s->reg[i][reg];
        return true;
    case LAPIC_EOI: /* write-only, reads as zero */
    case LAPIC_APR:
        *ret_val = 0;
        return true;
    default:
        return false;
    }
}

/* The vCPU whose page at `page` this is, or -1: its APIC is not there. */
static int mmio_cpu(struct lapic *s, uint64_t page)
{
    if (!current_vcpu || current_vcpu->index >= s->count)
        return -1;
    uint64_t base = s->base[current_vcpu->index];
    bool here = (base & LAPIC_BASE_ENABLE) && !(base & LAPIC_BASE_X2APIC) &&
                (base & LAPIC_BASE_ADDR) == page;
    return here ? (int)current_vcpu->index : -1;
}

static uint64_t page_read(struct lapic *s, uint64_t page, uint64_t off)
{
    int i = mmio_cpu(s, page);
    uint32_t val;
    if (i < 0)
        return UINT32_MAX;
    if ((off & 0xf) || off >= 0x400 || !lapic_reg_read(s, (unsigned)i, off >> 4, &val)) {
        lapic_error(s, (unsigned)i, LAPIC_ERR_REGISTER);
        return 0;
    }
    return off >> 4 == LAPIC_ID ? val << 24 : val;
}

static void page_write(struct lapic *s, uint64_t page, uint64_t off, uint32_t val)
{
    int i = mmio_cpu(s, page);
    if (i < 0)
        return;
    if (off == LAPIC_ID * 16) /* until the APIC is disabled, or becomes an x2APIC */
        s->reg[i][LAPIC_ID] = val >> 24;
    else if (off == LAPIC_VERSION * 16) /* to no effect and without an error */
        return;
    else if ((off & 0xf) || off >= 0x400 || !lapic_reg_write(s, (unsigned)i, off >> 4, val))
        lapic_error(s, (unsigned)i, LAPIC_ERR_REGISTER);
}

static uint64_t mmio_read(void *opaque, uint64_t off, unsigned size)
{
    return off < PAGE_BYTES ? page_read(opaque, LAPIC_BASE, off) : UINT32_MAX;
}

/* Behind the page, writes are messages. */
static void mmio_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    if (off < PAGE_BYTES)
        page_write(opaque, LAPIC_BASE, off, (uint32_t)val);
    else
        lapic_msi(opaque, LAPIC_BASE + off, (uint32_t)val);
}

static uint64_t moved_read(void *opaque, uint64_t off, unsigned size)
{
    return page_read(opaque, ((struct lapic *)opaque)->moved_base, off);
}

static void moved_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    page_write(opaque, ((struct lapic *)opaque)->moved_base, off, (uint32_t)val);
}

static const struct mem_ops mmio_ops = {
    .read = mmio_read, .write = mmio_write, .min_size = 4, .max_size = 4,
};
static const struct mem_ops moved_ops = {
    .read = moved_read, .write = moved_write, .min_size = 4, .max_size = 4,
};

void lapic_place(struct lapic *s, unsigned i)
{
    uint64_t base = s->base[i] & LAPIC_BASE_ADDR, old = s->moved_base;
    if (base != LAPIC_BASE && base != old) {
        s->moved_base = base;
        if (mem_region_move(&s->moved, base))
            mem_region_hide(&s->moved);
        return;
    }
    for (unsigned n = 0; n < s->count; n++) {
        if ((s->base[n] & LAPIC_BASE_ADDR) == old)
            return;
    }
    s->moved_base = 0;
    mem_region_hide(&s->moved);
}

/* --- life --- */

void lapic_init_regs(struct lapic *s, unsigned i)
{
    uint32_t id = s->reg[i][LAPIC_ID], ldr = lapic_is_x2(s, i) ? s->reg[i][LAPIC_LDR] : 0;
    lapic_timer_stop(s, i);
    for (unsigned r = 0; r < LAPIC_REGS; r++)
        s->reg[i][r] = 0;
    for (unsigned r = LAPIC_LVT_TIMER; r <= LAPIC_LVT_ERROR; r++)
        s->reg[i][r] = LAPIC_LVT_MASKED;
    s->reg[i][LAPIC_ID] = id;
    s->reg[i][LAPIC_LDR] = ldr;
    s->reg[i][LAPIC_VERSION] = VERSION;
    s->reg[i][LAPIC_DFR] = UINT32_MAX;
    s->reg[i][LAPIC_SVR] = 0xff;
    s->esr_pending[i] = 0;
    s->extint[i] = 0;
}

static void lapic_reset(struct device *d)
{
    struct lapic *s = container_of(d, struct lapic, dev);
    for (unsigned i = 0; i < s->count; i++) {
        s->base[i] = LAPIC_BASE | LAPIC_BASE_ENABLE | (i ? 0 : LAPIC_BASE_BSP);
        s->reg[i][LAPIC_ID] = cpu_topology_apic_id(&d->machine->config.topology, i);
        lapic_init_regs(s, i);
    }
    lapic_place(s, 0);
    /* The PIC reaches the boot processor before anybody has programmed the APIC: "virtual wire", as
     * firmware sets it. */
    s->reg[0][LAPIC_LVT_LINT0] = LAPIC_EXTINT << 8;
}

static bool lapic_loaded(struct device *d, GError **error)
{
    struct lapic *s = container_of(d, struct lapic, dev);
    for (unsigned i = 0; i < s->count; i++) {
        if (s->base[i] & ~s->base_known)
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "state of device 'lapic': the base of vCPU %u is 0x%" G_GINT64_MODIFIER
                               "x, and can have the bits 0x%" G_GINT64_MODIFIER "x", i, (uint64_t)s->base[i],
                               s->base_known);
        s->reg[i][LAPIC_TDCR] &= lapic_writable[LAPIC_TDCR];
        if (!lapic_timer_loaded(s, i, error))
            return false;
        lapic_place(s, i);
        lapic_update(s, i);
    }
    return true;
}

static bool lapic_realize(struct device *d, GError **error)
{
    struct lapic *s = container_of(d, struct lapic, dev);
    struct machine *m = d->machine;
    s->count = m->vcpu_count ? m->vcpu_count : m->config.cpu_count;
    if (!s->count || s->count > LAPIC_MAX_CPUS)
        return ruche_error(error, RUCHE_ERR_INVALID, "lapic: %u vCPUs; it has room for 1 to %u",
                           s->count, LAPIC_MAX_CPUS);
    s->base_known = lapic_known_base_bits(m);
    for (unsigned i = 0; i < s->count; i++)
        lapic_timer_make(s, i);
    mem_region_init_io(&s->mmio, "lapic", &mmio_ops, s, 1 * MIB, NULL);
    mem_region_init_io(&s->moved, "lapic-moved", &moved_ops, s, PAGE_BYTES, NULL);
    mem_space_begin(m->memory);
    int r = mem_region_add(m->memory, &s->mmio, LAPIC_BASE, 10);
    r = r ? r : mem_region_add(m->memory, &s->moved, 0, 10);
    mem_region_hide(&s->moved);
    mem_space_end(m->memory);
    lapic_reset(d);
    if (r < 0)
        return ruche_error_errno(error, -r, "lapic: cannot map 0x%x", LAPIC_BASE);
    s->ops = (struct accel_apic){
        .opaque = s, .ack = apic_ack, .tpr_read = apic_tpr_read, .tpr_write = apic_tpr_write,
        .msr_read = lapic_msr_read, .msr_write = lapic_msr_write, .msi = lapic_msi,
    };
    m->accel->apic = &s->ops;
    return true;
}

static void lapic_unrealize(struct device *d)
{
    struct lapic *s = container_of(d, struct lapic, dev);
    if (d->machine->accel && d->machine->accel->apic == &s->ops)
        d->machine->accel->apic = NULL;
    mem_region_remove(&s->mmio);
    mem_region_remove(&s->moved);
    for (unsigned i = 0; i < LAPIC_MAX_CPUS; i++)
        lapic_timer_unmake(s, i);
}

static const struct state_field lapic_state[] = {
    { .name = "reg", .offset = offsetof(struct lapic, reg), .size = 4, .count = LAPIC_MAX_CPUS * LAPIC_REGS },
    STATE_ARRAY(struct lapic, base),
    STATE_ARRAY(struct lapic, esr_pending),
    STATE_ARRAY(struct lapic, extint, .max = 1),
    STATE_ARRAY(struct lapic, next_ns),
    STATE_ARRAY(struct lapic, tsc_deadline),
    STATE(struct lapic, lint0, .max = 1),
    STATE(struct lapic, rotate),
    { 0 },
};

static const struct device_counter lapic_counters[] = {
    COUNTER(struct lapic, posted, "Interrupts accepted"),
    COUNTER(struct lapic, coalesced, "Interrupts that were already pending"),
    COUNTER(struct lapic, ipis, "Interprocessor interrupts sent"),
    COUNTER(struct lapic, eois, "Ends of interrupt"),
    COUNTER(struct lapic, timer_fired, "Expiries of local timers"),
    COUNTER(struct lapic, errors, "Errors latched in ESR"),
    { 0 },
};

static const struct device_type lapic_type = {
    .name = "lapic", .summary = "Local APICs of all vCPUs (xAPIC and x2APIC)",
    .spec = "Intel SDM volume 3, chapter 11", .bus = BUS_SYSTEM, .internal = true,
    .size = sizeof(struct lapic), .state = lapic_state, .counters = lapic_counters,
    .realize = lapic_realize, .reset = lapic_reset, .load_after = lapic_loaded, .unrealize = lapic_unrealize,
};
DEVICE_TYPE(lapic_type);
