/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The interrupt controllers as a guest programs them: local APICs, IOAPIC, PICs. */
#include "devices/irqchip/lapic.h"
#include "devices/testing.h"

#define REG(r) (LAPIC_BASE + (r) * 16u)

struct fixture {
    struct test_machine *t;
    const struct accel_apic *apic;
};

static struct fixture setup(unsigned vcpus)
{
    struct test_machine *t = test_machine_new(vcpus);
    test_device(t, "lapic", NULL);
    test_device(t, "ioapic", NULL);
    test_device(t, "i8259", NULL);
    for (unsigned i = 0; i < vcpus; i++) {
        test_use_vcpu(t, (int)i);
        test_write32(t, REG(LAPIC_SVR), 0x1ff);
        test_write32(t, REG(LAPIC_LVT_LINT0), LAPIC_LVT_MASKED);
    }
    test_use_vcpu(t, 0);
    return (struct fixture){ t, t->accel.apic };
}

static int ack(struct fixture *f, unsigned i)
{
    return f->apic->ack(f->apic->opaque, i);
}

static void write_reg(struct fixture *f, int i, enum lapic_reg r, uint32_t val)
{
    test_use_vcpu(f->t, i);
    test_write32(f->t, REG(r), val);
}

static uint32_t read_reg(struct fixture *f, int i, enum lapic_reg r)
{
    test_use_vcpu(f->t, i);
    return test_read32(f->t, REG(r));
}

static void ioapic_write(struct fixture *f, uint8_t reg, uint32_t val)
{
    test_write32(f->t, IOAPIC_BASE, reg);
    test_write32(f->t, IOAPIC_BASE + 0x10, val);
}

static uint32_t ioapic_read(struct fixture *f, uint8_t reg)
{
    test_write32(f->t, IOAPIC_BASE, reg);
    return test_read32(f->t, IOAPIC_BASE + 0x10);
}

static void test_priorities(void)
{
    struct fixture f = setup(1);
    g_assert_cmpint(ack(&f, 0), ==, -1);
    machine_msi(&f.t->m, LAPIC_BASE, 0x31);
    machine_msi(&f.t->m, LAPIC_BASE, 0x52);
    machine_msi(&f.t->m, LAPIC_BASE, 0x51);
    g_assert_cmpint(ack(&f, 0), ==, 0x52);
    g_assert_cmphex(read_reg(&f, 0, LAPIC_PPR), ==, 0x50);
    g_assert_cmpint(ack(&f, 0), ==, -1); /* same class waits */
    machine_msi(&f.t->m, LAPIC_BASE, 0x60);
    g_assert_cmpint(ack(&f, 0), ==, 0x60); /* a higher one nests */
    unsigned before = f.t->signals[0][VCPU_SIGNAL_INTR];
    write_reg(&f, 0, LAPIC_EOI, 0);
    g_assert_cmpint(ack(&f, 0), ==, -1);
    g_assert_cmpint(f.t->signals[0][VCPU_SIGNAL_INTR], ==, before);
    write_reg(&f, 0, LAPIC_EOI, 0); /* uncovers 0x51: the vCPU must be told */
    g_assert_cmpint(f.t->signals[0][VCPU_SIGNAL_INTR], ==, before + 1);
    g_assert_cmpint(ack(&f, 0), ==, 0x51);
    write_reg(&f, 0, LAPIC_EOI, 0);
    f.apic->tpr_write(f.apic->opaque, 0, 4);
    g_assert_cmpint(ack(&f, 0), ==, -1);
    g_assert_cmphex(read_reg(&f, 0, LAPIC_TPR), ==, 0x40);
    f.apic->tpr_write(f.apic->opaque, 0, 2);
    g_assert_cmpint(ack(&f, 0), ==, 0x31);
    test_machine_free(f.t);
}

static void test_disabled(void)
{
    struct fixture f = setup(1);
    write_reg(&f, 0, LAPIC_LVT_LINT1, 0x400);
    write_reg(&f, 0, LAPIC_SVR, 0xff);
    machine_msi(&f.t->m, LAPIC_BASE, 0x31);
    g_assert_cmpint(ack(&f, 0), ==, -1);
    g_assert_cmphex(read_reg(&f, 0, LAPIC_LVT_LINT1), ==, 0x10400); /* masked with the rest */
    write_reg(&f, 0, LAPIC_LVT_TIMER, 0x20);
    g_assert_cmphex(read_reg(&f, 0, LAPIC_LVT_TIMER), ==, 0x10020);
    machine_msi(&f.t->m, LAPIC_BASE, 0x400); /* NMI comes through */
    g_assert_cmpint(f.t->signals[0][VCPU_SIGNAL_NMI], ==, 1);
    test_machine_free(f.t);
}

static void test_ipis(void)
{
    struct fixture f = setup(4);
    write_reg(&f, 1, LAPIC_ICR2, 2u << 24);
    write_reg(&f, 1, LAPIC_ICR, 0x41);
    g_assert_cmpint(ack(&f, 2), ==, 0x41);
    g_assert_cmpint(ack(&f, 1), ==, -1);

    write_reg(&f, 1, LAPIC_ICR, 0xc0042); /* all but self */
    for (unsigned i = 0; i < 4; i++)
        g_assert_cmpint(ack(&f, i), ==, i == 1 ? -1 : i == 2 ? -1 : 0x42);
    write_reg(&f, 2, LAPIC_EOI, 0);
    g_assert_cmpint(ack(&f, 2), ==, 0x42);
    write_reg(&f, 3, LAPIC_ICR, 0x40050); /* self */
    g_assert_cmpint(ack(&f, 3), ==, 0x50);

    write_reg(&f, 0, LAPIC_ICR2, 3u << 24);
    write_reg(&f, 0, LAPIC_ICR, 0x4500);
    write_reg(&f, 0, LAPIC_ICR, 0x8500); /* de-assert: nothing */
    g_assert_cmpint(f.t->signals[3][VCPU_SIGNAL_INIT], ==, 1);
    g_assert_cmphex(read_reg(&f, 3, LAPIC_SVR), ==, 0xff); /* it is reset */
    write_reg(&f, 0, LAPIC_ICR, 0x4608);
    g_assert_cmpint(f.t->signals[3][VCPU_SIGNAL_SIPI], ==, 1);
    g_assert_cmphex(f.t->sipi_vector[3], ==, 0x08);
    /* Vectors below 16 are an error of the sender. */
    write_reg(&f, 0, LAPIC_ICR, 0x4005);
    write_reg(&f, 0, LAPIC_ESR, 0);
    g_assert_cmphex(read_reg(&f, 0, LAPIC_ESR), ==, LAPIC_ERR_SEND_VECTOR);
    write_reg(&f, 0, LAPIC_ESR, 0);
    g_assert_cmphex(read_reg(&f, 0, LAPIC_ESR), ==, 0);
    test_machine_free(f.t);
}

static void test_logical(void)
{
    struct fixture f = setup(4);
    for (int i = 0; i < 4; i++)
        write_reg(&f, i, LAPIC_LDR, 1u << (24 + i));
    machine_msi(&f.t->m, LAPIC_BASE | 0x5 << 12 | 4, 0x61); /* flat: 0 and 2 */
    for (unsigned i = 0; i < 4; i++)
        g_assert_cmpint(ack(&f, i), ==, i & 1 ? -1 : 0x61);
    /* Lowest priority: of 0 to 3 the idle ones take turns, the busy ones are spared. */
    unsigned got[4] = { 0 };
    for (int n = 0; n < 8; n++) {
        machine_msi(&f.t->m, LAPIC_BASE | 0xf << 12 | 4, 0x100 | 0x55);
        for (unsigned i = 1; i < 4; i += 2) {
            if (ack(&f, i) == 0x55) {
                got[i]++;
                write_reg(&f, (int)i, LAPIC_EOI, 0);
            }
        }
    }
    g_assert_cmpint(got[1] + got[3], ==, 8);
    g_assert_cmpint(got[1], >, 0);
    g_assert_cmpint(got[3], >, 0);
    /* Cluster model: cluster 1, members 0 and 1; cluster 2. */
    for (int i = 0; i < 4; i++) {
        write_reg(&f, i, LAPIC_EOI, 0);
        write_reg(&f, i, LAPIC_DFR, 0x0fffffff);
        write_reg(&f, i, LAPIC_LDR, (uint32_t)(i < 2 ? 0x10 | 1 << i : 0x20 | 1 << (i - 2)) << 24);
    }
    machine_msi(&f.t->m, LAPIC_BASE | 0x13 << 12 | 4, 0x71);
    for (unsigned i = 0; i < 4; i++)
        g_assert_cmpint(ack(&f, i), ==, i < 2 ? 0x71 : -1);
    test_machine_free(f.t);
}

static int wrmsr(struct fixture *f, unsigned i, uint32_t msr, uint64_t val)
{
    return f->apic->msr_write(f->apic->opaque, i, msr, val);
}

static uint64_t rdmsr(struct fixture *f, unsigned i, uint32_t msr)
{
    uint64_t val = 0;
    g_assert_cmpint(f->apic->msr_read(f->apic->opaque, i, msr, &val), ==, 0);
    return val;
}

static void test_x2apic(void)
{
    struct fixture f = setup(40);
    uint64_t val;
    g_assert_cmphex(rdmsr(&f, 0, 0x1b), ==, 0xfee00900);
    g_assert_cmphex(rdmsr(&f, 33, 0x1b), ==, 0xfee00800);
    g_assert_cmpint(wrmsr(&f, 0, 0x808, 0), ==, -1); /* not yet in x2APIC mode */
    g_assert_cmpint(wrmsr(&f, 0, 0x1b, 0xfee00500), ==, -1); /* x2 without enable */
    for (unsigned i = 0; i < 40; i++)
        g_assert_cmpint(wrmsr(&f, i, 0x1b, rdmsr(&f, i, 0x1b) | 1 << 10), ==, 0);
    g_assert_cmpint(wrmsr(&f, 0, 0x1b, 0xfee00900), ==, -1); /* no way back but by off */
    g_assert_cmphex(rdmsr(&f, 33, 0x802), ==, 33);
    g_assert_cmphex(rdmsr(&f, 33, 0x80d), ==, 0x20002);
    g_assert_cmpint(wrmsr(&f, 0, 0x80d, 1), ==, -1);
    g_assert_cmpint(wrmsr(&f, 0, 0x80b, 1), ==, -1);
    g_assert_cmpint(f.apic->msr_read(f.apic->opaque, 0, 0x80b, &val), ==, -1);
    g_assert_cmpint(f.apic->msr_read(f.apic->opaque, 0, 0x840, &val), ==, -1);
    g_assert_cmpint(wrmsr(&f, 0, 0x8ff, 0), ==, -1);
    g_assert_cmphex(test_read32(f.t, REG(LAPIC_ID)), ==, UINT32_MAX); /* the page is gone */

    g_assert_cmpint(wrmsr(&f, 0, 0x830, 33ULL << 32 | 0x44), ==, 0);
    g_assert_cmpint(ack(&f, 33), ==, 0x44);
    g_assert_cmpint(wrmsr(&f, 0, 0x830, 0x20003ULL << 32 | 0x845), ==, 0); /* cluster 2: 32 and 33 */
    g_assert_cmpint(ack(&f, 32), ==, 0x45);
    g_assert_cmpint(wrmsr(&f, 33, 0x80b, 0), ==, 0);
    g_assert_cmpint(ack(&f, 33), ==, 0x45);
    g_assert_cmpint(wrmsr(&f, 5, 0x830, 0xffffffffULL << 32 | 0x46), ==, 0);
    g_assert_cmpint(ack(&f, 39), ==, 0x46);
    g_assert_cmpint(ack(&f, 5), ==, 0x46);
    g_assert_cmpint(wrmsr(&f, 7, 0x83f, 0x77), ==, 0);
    g_assert_cmpint(ack(&f, 7), ==, 0x77);
    g_assert_cmpint(wrmsr(&f, 7, 0x1b, 0xfee00000), ==, 0);
    g_assert_cmpint(wrmsr(&f, 7, 0x1b, 0xfee00c00), ==, -1); /* from off only to xAPIC */
    g_assert_cmpint(wrmsr(&f, 7, 0x1b, 0xfee00800), ==, 0);
    g_assert_cmphex(read_reg(&f, 7, LAPIC_ID), ==, 7u << 24);
    test_machine_free(f.t);
}

static void test_moved_page(void)
{
    struct fixture f = setup(2);
    g_assert_cmpint(wrmsr(&f, 0, 0x1b, 0x80900), ==, 0); /* over RAM */
    test_use_vcpu(f.t, 0);
    g_assert_cmphex(test_read32(f.t, 0x80030), ==, 0x50014);
    g_assert_cmphex(test_read32(f.t, REG(LAPIC_VERSION)), ==, UINT32_MAX);
    test_use_vcpu(f.t, 1);
    g_assert_cmphex(test_read32(f.t, 0x80030), ==, UINT32_MAX);
    g_assert_cmphex(test_read32(f.t, REG(LAPIC_VERSION)), ==, 0x50014);
    g_assert_cmpint(wrmsr(&f, 0, 0x1b, 0xfee00900), ==, 0); /* the RAM is back */
    g_assert_cmphex(test_read32(f.t, 0x80030), ==, 0);
    g_assert_cmpint(wrmsr(&f, 0, 0x1b, 0xfffffffff900), ==, 0);
    device_reset(f.t->m.devices);
    g_assert_cmphex(read_reg(&f, 0, LAPIC_VERSION), ==, 0x50014);
    test_machine_free(f.t);
}

static void test_timer(void)
{
    struct fixture f = setup(1);
    write_reg(&f, 0, LAPIC_LVT_TIMER, 0x40);
    write_reg(&f, 0, LAPIC_TDCR, 0x3); /* by 16 */
    write_reg(&f, 0, LAPIC_TICR, 1000000);
    test_advance_ns(f.t, 8 * NS_PER_MS);
    g_assert_cmpint(read_reg(&f, 0, LAPIC_TCCR), ==, 500000);
    g_assert_cmpint(ack(&f, 0), ==, -1);
    test_advance_ns(f.t, 8 * NS_PER_MS);
    g_assert_cmpint(ack(&f, 0), ==, 0x40);
    write_reg(&f, 0, LAPIC_EOI, 0);
    g_assert_cmpint(read_reg(&f, 0, LAPIC_TCCR), ==, 0);
    test_advance_ns(f.t, NS_PER_SEC);
    g_assert_cmpint(ack(&f, 0), ==, -1);

    /* Over and masked is over: neither unmasking nor another mode starts it again. */
    write_reg(&f, 0, LAPIC_LVT_TIMER, 0x10040);
    write_reg(&f, 0, LAPIC_TICR, 1000);
    test_advance_ns(f.t, NS_PER_MS);
    write_reg(&f, 0, LAPIC_LVT_TIMER, 0x20040);
    g_assert_cmpint(read_reg(&f, 0, LAPIC_TCCR), ==, 0);
    test_advance_ns(f.t, NS_PER_MS);
    g_assert_cmpint(ack(&f, 0), ==, -1);
    write_reg(&f, 0, LAPIC_LVT_TIMER, 0x40);

    /* Periodic, as fast as a guest can ask: the host is woken at most every 100 us. */
    struct lapic *s = f.apic->opaque;
    s->timer_fired = 0;
    write_reg(&f, 0, LAPIC_TDCR, 0xb);
    write_reg(&f, 0, LAPIC_LVT_TIMER, 0x20041);
    write_reg(&f, 0, LAPIC_TICR, 1);
    test_advance_ns(f.t, 10 * NS_PER_MS);
    g_assert_cmpint(s->timer_fired, ==, 100);
    g_assert_cmpint(ack(&f, 0), ==, 0x41);
    write_reg(&f, 0, LAPIC_TICR, 0);
    write_reg(&f, 0, LAPIC_EOI, 0);
    test_advance_ns(f.t, 10 * NS_PER_MS);
    g_assert_cmpint(ack(&f, 0), ==, -1);

    /* TSC deadline: 2 GHz, so 2,000,000 is a millisecond. */
    write_reg(&f, 0, LAPIC_LVT_TIMER, 0x40042);
    uint64_t khz, tsc = f.t->accel.ops->vcpu_tsc(&f.t->vcpu[0], &khz);
    wrmsr(&f, 0, 0x6e0, tsc + 2000000);
    g_assert_cmpint(rdmsr(&f, 0, 0x6e0), ==, tsc + 2000000);
    test_advance_ns(f.t, NS_PER_MS - 1);
    g_assert_cmpint(ack(&f, 0), ==, -1);
    test_advance_ns(f.t, 1);
    g_assert_cmpint(ack(&f, 0), ==, 0x42);
    g_assert_cmpint(rdmsr(&f, 0, 0x6e0), ==, 0);
    write_reg(&f, 0, LAPIC_EOI, 0);
    wrmsr(&f, 0, 0x6e0, 1); /* in the past: at once */
    g_assert_cmpint(ack(&f, 0), ==, 0x42);
    write_reg(&f, 0, LAPIC_EOI, 0);
    wrmsr(&f, 0, 0x6e0, UINT64_MAX); /* centuries away */
    test_advance_ns(f.t, NS_PER_SEC);
    g_assert_cmpint(ack(&f, 0), ==, -1);
    write_reg(&f, 0, LAPIC_TICR, 5); /* ignored in this mode */
    g_assert_cmpint(read_reg(&f, 0, LAPIC_TCCR), ==, 0);
    test_machine_free(f.t);
}

static void test_ioapic_edge(void)
{
    struct fixture f = setup(2);
    g_assert_cmphex(ioapic_read(&f, 1), ==, 0x170020);
    g_assert_cmphex(ioapic_read(&f, 0x10), ==, 0x10000);
    irq_pulse(&f.t->m.gsi[4]); /* masked: lost */
    ioapic_write(&f, 0x18 + 1, 1u << 24);
    ioapic_write(&f, 0x18, 0x34);
    g_assert_cmpint(ack(&f, 1), ==, -1);
    irq_set(&f.t->m.gsi[4], 1);
    irq_set(&f.t->m.gsi[4], 1); /* no second edge */
    g_assert_cmpint(ack(&f, 1), ==, 0x34);
    write_reg(&f, 1, LAPIC_EOI, 0);
    g_assert_cmpint(ack(&f, 1), ==, -1);
    irq_set(&f.t->m.gsi[4], 0);
    irq_set(&f.t->m.gsi[4], 1);
    g_assert_cmpint(ack(&f, 1), ==, 0x34);
    ioapic_write(&f, 0x14, 0x30); /* ISA IRQ 0 is pin 2 */
    irq_pulse(&f.t->m.gsi[0]);
    g_assert_cmpint(ack(&f, 0), ==, 0x30);
    test_machine_free(f.t);
}

static void test_ioapic_level(void)
{
    struct fixture f = setup(1);
    ioapic_write(&f, 0x10 + 2 * 17, 0x8051);
    irq_set(&f.t->m.gsi[17], 1);
    g_assert_cmphex(ioapic_read(&f, 0x10 + 2 * 17), ==, 0xc051); /* remote IRR */
    g_assert_cmpint(ack(&f, 0), ==, 0x51);
    irq_set(&f.t->m.gsi[17], 0);
    irq_set(&f.t->m.gsi[17], 1); /* not before the first is finished */
    g_assert_cmpint(ack(&f, 0), ==, -1);
    write_reg(&f, 0, LAPIC_EOI, 0); /* the line is still up: again */
    g_assert_cmpint(ack(&f, 0), ==, 0x51);
    irq_set(&f.t->m.gsi[17], 0);
    write_reg(&f, 0, LAPIC_EOI, 0);
    g_assert_cmpint(ack(&f, 0), ==, -1);
    g_assert_cmphex(ioapic_read(&f, 0x10 + 2 * 17), ==, 0x8051);
    /* Masked while the line is up, then unmasked: it is delivered. */
    ioapic_write(&f, 0x10 + 2 * 17, 0x18051);
    irq_set(&f.t->m.gsi[17], 1);
    g_assert_cmpint(ack(&f, 0), ==, -1);
    ioapic_write(&f, 0x10 + 2 * 17, 0x8051);
    g_assert_cmpint(ack(&f, 0), ==, 0x51);
    /* The EOI register does it too. */
    irq_set(&f.t->m.gsi[17], 0);
    test_write32(f.t, IOAPIC_BASE + 0x40, 0x51);
    g_assert_cmphex(ioapic_read(&f, 0x10 + 2 * 17), ==, 0x8051);
    test_machine_free(f.t);
}

static void pic_init(struct fixture *f, uint8_t icw4)
{
    static const struct { uint16_t port; uint8_t val; } seq[] = {
        { 0x20, 0x11 }, { 0x21, 0x20 }, { 0x21, 0x04 }, { 0xa0, 0x11 }, { 0xa1, 0x28 }, { 0xa1, 0x02 },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(seq); i++) {
        test_outb(f->t, seq[i].port, seq[i].val);
        if (i == 2 || i == 5)
            test_outb(f->t, seq[i].port, icw4);
    }
    write_reg(f, 0, LAPIC_LVT_LINT0, 0x700); /* ExtINT */
    test_outb(f->t, 0x21, 0);
    test_outb(f->t, 0xa1, 0);
}

static void test_pic(void)
{
    struct fixture f = setup(2);
    pic_init(&f, 1);
    irq_set(&f.t->m.gsi[4], 1);
    g_assert_cmpint(f.t->signals[0][VCPU_SIGNAL_INTR], >, 0);
    g_assert_cmpint(f.t->signals[1][VCPU_SIGNAL_INTR], ==, 0); /* LINT0 is masked there */
    g_assert_cmpint(ack(&f, 0), ==, 0x24);
    irq_pulse(&f.t->m.gsi[6]); /* lower priority waits */
    g_assert_cmpint(ack(&f, 0), ==, -1);
    irq_pulse(&f.t->m.gsi[12]); /* through the slave, at the cascade's priority */
    g_assert_cmpint(ack(&f, 0), ==, 0x2c);
    irq_pulse(&f.t->m.gsi[8]);
    g_assert_cmpint(ack(&f, 0), ==, -1); /* the master's input 2 is in service */
    test_outb(f.t, 0xa0, 0x20);
    test_outb(f.t, 0x20, 0x20);
    g_assert_cmpint(ack(&f, 0), ==, 0x28);
    test_outb(f.t, 0xa0, 0x20);
    test_outb(f.t, 0x20, 0x62); /* specific: input 2 */
    test_outb(f.t, 0x20, 0x0b);
    g_assert_cmphex(test_inb(f.t, 0x20), ==, 0x10); /* ISR */
    test_outb(f.t, 0x20, 0x20);
    g_assert_cmpint(ack(&f, 0), ==, 0x26);
    test_outb(f.t, 0x20, 0x20);
    g_assert_cmpint(ack(&f, 0), ==, -1);
    /* Mask, then the request that waited. */
    test_outb(f.t, 0x21, 0x02);
    irq_pulse(&f.t->m.gsi[1]);
    g_assert_cmpint(ack(&f, 0), ==, -1);
    test_outb(f.t, 0x21, 0);
    g_assert_cmpint(ack(&f, 0), ==, 0x21);
    test_machine_free(f.t);
}

/* A kernel that never touches its APIC still gets the PIC's interrupts. */
static void test_virtual_wire(void)
{
    struct test_machine *t = test_machine_new(2);
    test_device(t, "lapic", NULL);
    test_device(t, "i8259", NULL);
    struct fixture f = { t, t->accel.apic };
    test_outb(t, 0x20, 0x13);
    test_outb(t, 0x21, 0x20);
    test_outb(t, 0x21, 0x01);
    test_outb(t, 0x21, 0);
    irq_pulse(&t->m.gsi[0]);
    g_assert_cmpint(ack(&f, 1), ==, -1);
    g_assert_cmpint(ack(&f, 0), ==, 0x20);
    test_machine_free(t);
}

static void test_pic_modes(void)
{
    struct fixture f = setup(1);
    pic_init(&f, 3); /* automatic EOI */
    irq_pulse(&f.t->m.gsi[4]);
    irq_pulse(&f.t->m.gsi[5]);
    g_assert_cmpint(ack(&f, 0), ==, 0x24);
    g_assert_cmpint(ack(&f, 0), ==, 0x25);

    pic_init(&f, 1);
    /* Level-triggered IRQ 10: asks again until its line falls; edge input 2 cannot be made level. */
    test_outb(f.t, 0x4d0, 0xff);
    g_assert_cmphex(test_inb(f.t, 0x4d0), ==, 0xf8);
    test_outb(f.t, 0x4d1, 0x04);
    irq_set(&f.t->m.gsi[10], 1);
    for (int n = 0; n < 2; n++) {
        g_assert_cmpint(ack(&f, 0), ==, 0x2a);
        test_outb(f.t, 0xa0, 0x20);
        test_outb(f.t, 0x20, 0x20);
    }
    irq_set(&f.t->m.gsi[10], 0);
    g_assert_cmpint(ack(&f, 0), ==, -1);
    /* Poll mode. */
    irq_set(&f.t->m.gsi[3], 1);
    test_outb(f.t, 0x20, 0x0c);
    g_assert_cmphex(test_inb(f.t, 0x20), ==, 0x83);
    test_outb(f.t, 0x20, 0x20);
    test_outb(f.t, 0x20, 0x0c);
    /* Inputs 3 to 7 are level-triggered now, so 3 is still there; then it is not. */
    g_assert_cmphex(test_inb(f.t, 0x20), ==, 0x83);
    irq_set(&f.t->m.gsi[3], 0);
    test_outb(f.t, 0x20, 0x20);
    test_outb(f.t, 0x20, 0x0c);
    g_assert_cmphex(test_inb(f.t, 0x20), ==, 0);
    /* Rotation: after input 4 is made the lowest, 5 goes before 1. */
    test_outb(f.t, 0x4d0, 0);
    test_outb(f.t, 0x20, 0xc4);
    irq_pulse(&f.t->m.gsi[1]);
    irq_pulse(&f.t->m.gsi[5]);
    g_assert_cmpint(ack(&f, 0), ==, 0x25);
    /* Special mask: a masked input in service does not hold back the others. */
    test_outb(f.t, 0x21, 0x20);
    g_assert_cmpint(ack(&f, 0), ==, -1);
    test_outb(f.t, 0x20, 0x68);
    g_assert_cmpint(ack(&f, 0), ==, 0x21);
    test_machine_free(f.t);
}

#define ROUNDS 5000

struct poster {
    struct fixture *f;
    uint8_t vector;
    unsigned sent;
};

static _Atomic unsigned taken[256];

/* Sends the next one when the last was taken: a lost wake-up would be waited for in vain. */
static gpointer post_rounds(gpointer opaque)
{
    struct poster *p = opaque;
    gint64 deadline = g_get_monotonic_time() + 20 * G_TIME_SPAN_SECOND;
    for (unsigned n = 0; n < ROUNDS && g_get_monotonic_time() < deadline; n++) {
        machine_msi(&p->f->t->m, LAPIC_BASE, p->vector);
        p->sent++;
        while (taken[p->vector] <= n && g_get_monotonic_time() < deadline)
            g_thread_yield();
    }
    return NULL;
}

/* The vCPU's side looks only when it is signalled, and its TPR goes up and down between. */
static void test_threads(void)
{
    struct fixture f = setup(1);
    struct poster posters[3] = { { &f, 0x31, 0 }, { &f, 0x32, 0 }, { &f, 0x91, 0 } };
    GThread *threads[3];
    unsigned *signals = &f.t->signals[0][VCPU_SIGNAL_INTR], seen = *signals;
    gint64 deadline = g_get_monotonic_time() + 30 * G_TIME_SPAN_SECOND;
    for (unsigned i = 0; i < 3; i++)
        threads[i] = g_thread_new("poster", post_rounds, &posters[i]);
    while (taken[0x31] + taken[0x32] + taken[0x91] < 3 * ROUNDS && g_get_monotonic_time() < deadline) {
        unsigned now = __atomic_load_n(signals, __ATOMIC_SEQ_CST);
        if (now == seen) {
            g_thread_yield();
            continue;
        }
        seen = now;
        int vector = ack(&f, 0);
        if (vector < 0)
            continue;
        taken[vector]++; /* the next may come from here on */
        write_reg(&f, 0, LAPIC_EOI, 0);
        f.apic->tpr_write(f.apic->opaque, 0, 9);
        f.apic->tpr_write(f.apic->opaque, 0, 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        g_thread_join(threads[i]);
        g_assert_cmpuint(taken[posters[i].vector], ==, ROUNDS);
    }
    test_machine_free(f.t);
}

static void test_hostile(void)
{
    struct fixture f = setup(3);
    uint32_t x = 12345;
    for (unsigned n = 0; n < 200000; n++) {
        x = x * 1664525 + 1013904223;
        uint32_t val = x ^ x >> 13;
        test_use_vcpu(f.t, (int)(x >> 20) % 3);
        switch (x >> 28) {
        case 0 ... 3:
            test_write32(f.t, LAPIC_BASE + (x >> 4 & 0x3f0), val);
            break;
        case 4 ... 5:
            mem_io_write(f.t->m.memory, LAPIC_BASE + (x >> 4 & 0xfffff), val, 1u << (x & 3));
            break;
        case 6 ... 7:
            ioapic_write(&f, (uint8_t)(x >> 8), val);
            break;
        case 8:
            test_outb(f.t, 0x20 + (x >> 9 & 0x81), (uint8_t)val);
            break;
        case 9:
            irq_set(&f.t->m.gsi[(x >> 9) % 24], (int)(x >> 4 & 1));
            break;
        case 10:
            wrmsr(&f, x % 3, 0x800 + (x >> 9 & 0x1ff), val);
            break;
        case 11:
            wrmsr(&f, x % 3, 0x1b, (uint64_t)val << (x & 31));
            break;
        case 12:
            test_advance_ns(f.t, x & 0xffff);
            break;
        default:
            ack(&f, x % 3);
            test_read32(f.t, LAPIC_BASE + (x >> 4 & 0xfff));
            break;
        }
    }
    test_machine_free(f.t);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/lapic/priorities", test_priorities);
    g_test_add_func("/lapic/disabled", test_disabled);
    g_test_add_func("/lapic/ipis", test_ipis);
    g_test_add_func("/lapic/logical", test_logical);
    g_test_add_func("/lapic/x2apic", test_x2apic);
    g_test_add_func("/lapic/moved-page", test_moved_page);
    g_test_add_func("/lapic/timer", test_timer);
    g_test_add_func("/ioapic/edge", test_ioapic_edge);
    g_test_add_func("/ioapic/level", test_ioapic_level);
    g_test_add_func("/i8259/priorities", test_pic);
    g_test_add_func("/i8259/modes", test_pic_modes);
    g_test_add_func("/i8259/virtual-wire", test_virtual_wire);
    g_test_add_func("/lapic/threads", test_threads);
    g_test_add_func("/irqchip/hostile", test_hostile);
    return g_test_run();
}
