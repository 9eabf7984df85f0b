/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Interrupt controllers and timers: PIC, IOAPIC, local APIC and its timer, PIT, RTC, HPET, NMI.
 *
 * Spec      Intel SDM volume 3, chapter 11; 8259A, 8254, 82093AA and HPET 1.0a data sheets.
 */
#include "lib/guest.h"

#define V_PIC 0x20
#define V_A 0x41 /* priority class 4 */
#define V_B 0x52 /* class 5 */
#define V_TIMER 0x63
#define V_LINE 0x70

static volatile uint64_t hits[256];
static volatile uint64_t order[16], order_count;

static void hit(struct frame *f)
{
    hits[f->vector]++;
    if (order_count < ARRAY_COUNT(order))
        order[order_count++] = f->vector;
    apic_eoi();
}

static void hit_pic(struct frame *f)
{
    hits[f->vector]++;
    if (f->vector >= V_PIC + 8)
        out8(0xa0, 0x20);
    out8(0x20, 0x20);
}

static bool soft_kvm;

/* A KVM in software delivers some hundred instructions later than it could. */
static void open_window(void)
{
    sti();
    if (soft_kvm)
        delay_us(3000);
    for (int i = 0; i < (soft_kvm ? 2000 : 50); i++)
        pause();
    cli();
}

static void forget(void)
{
    if (soft_kvm)
        open_window(); /* for what is still under way */
    for (unsigned i = 0; i < 256; i++)
        hits[i] = 0;
    order_count = 0;
}

/* --- local APIC --- */

static void test_self_ipi(void)
{
    forget();
    apic_icr(0, 0x44000 | V_A);
    check(apic_is_set(APIC_IRR, V_A), "a request waits in IRR while interrupts are off");
    check_eq(hits[V_A], 0, "hits before STI");
    open_window();
    check_eq(hits[V_A], 1, "hits after STI");
    check(!apic_is_set(APIC_IRR, V_A) && !apic_is_set(APIC_ISR, V_A),
          "IRR and ISR are empty after EOI");
}

/* Both wait: the higher class comes first. */
static void test_priority(void)
{
    forget();
    apic_icr(0, 0x44000 | V_A);
    apic_icr(0, 0x44000 | V_B);
    open_window();
    check_eq(order_count, 2, "both are delivered");
    check(order[0] == V_B && order[1] == V_A, "the higher class first");
}

static void test_tpr(void)
{
    forget();
    write_cr8(5);
    check_eq(apic_read(APIC_TPR), 0x50, "TPR after a write of CR8");
    apic_icr(0, 0x44000 | V_A);
    apic_icr(0, 0x44000 | V_B);
    open_window();
    check_eq(hits[V_A] + hits[V_B], 0, "TPR 5 holds both back");
    write_cr8(4);
    open_window();
    check_eq(hits[V_B], 1, "TPR 4 lets class 5 pass");
    check_eq(hits[V_A], 0, "and holds class 4");
    apic_write(APIC_TPR, 0);
    check_eq(read_cr8(), 0, "CR8 after a write of TPR");
    open_window();
    check_eq(hits[V_A], 1, "TPR 0 lets all pass");
}

static volatile uint64_t seen_inside;
static void no_eoi(struct frame *f)
{
    hits[f->vector]++;
    apic_icr(0, 0x44000 | V_A); /* lower than what is in service */
    sti();
    for (int i = 0; i < 50; i++)
        pause();
    cli();
    seen_inside = hits[V_A];
    apic_eoi();
}

static void test_in_service(void)
{
    forget();
    trap_set(V_B, no_eoi);
    apic_icr(0, 0x44000 | V_B);
    open_window();
    open_window();
    check_eq(seen_inside, 0, "an interrupt in service holds back a lower one");
    check_eq(hits[V_A], 1, "which comes after EOI");
    trap_set(V_B, hit);
}

static void test_nmi(void)
{
    forget();
    trap_set(2, hit);
    apic_icr(apic_id(), 0x4400);
    for (int i = 0; i < 100 && !hits[2]; i++)
        delay_us(100);
    check_eq(hits[2], 1, "an NMI comes with interrupts off");
    trap_set(2, NULL);
}

/* STI; HLT: the interrupt that waits is taken after HLT began, and HLT ends. */
static void test_hlt(void)
{
    for (int i = 0; i < 20; i++) {
        forget();
        apic_icr(0, 0x44000 | V_A);
        sti_hlt_cli();
        if (soft_kvm)
            open_window();
        check_eq(hits[V_A], 1, "HLT in the shadow of STI wakes");
    }
}

static void test_disabled(void)
{
    forget();
    apic_write(APIC_LVT_TIMER, V_TIMER);
    apic_write(APIC_SVR, 0xff);
    check(apic_read(APIC_LVT_TIMER) & 1u << 16, "software disable masks the LVT");
    apic_write(APIC_LVT_TIMER, V_TIMER);
    check(apic_read(APIC_LVT_TIMER) & 1u << 16, "and it stays masked");
    apic_write(APIC_SVR, 0x1ff);
}

/* --- its timer --- */

static void test_timer_oneshot(void)
{
    forget();
    apic_write(APIC_TIMER_DIV, 0xb); /* by 1 */
    apic_write(APIC_LVT_TIMER, V_TIMER);
    apic_write(APIC_TIMER_INIT, 1000000);
    check(apic_read(APIC_TIMER_NOW) > 0, "the count runs");
    check(wait_for(&hits[V_TIMER], 1, 2000), "the one-shot timer fires");
    delay_us(5000);
    open_window();
    check_eq(hits[V_TIMER], 1, "once");
    check_eq(apic_read(APIC_TIMER_NOW), 0, "the count after it");
    apic_write(APIC_TIMER_INIT, 0xffffffff);
    uint32_t a = apic_read(APIC_TIMER_NOW);
    delay_us(1000);
    uint32_t b = apic_read(APIC_TIMER_NOW);
    check(b < a, "the count goes down");
    apic_write(APIC_TIMER_INIT, 0);
    check_eq(apic_read(APIC_TIMER_NOW), 0, "an initial count of 0 stops it");
}

static void test_timer_periodic(void)
{
    forget();
    apic_write(APIC_LVT_TIMER, 0x20000 | V_TIMER);
    apic_write(APIC_TIMER_INIT, 2000000);
    check(wait_for(&hits[V_TIMER], 5, 5000), "the periodic timer fires again and again");
    apic_write(APIC_LVT_TIMER, 0x30000 | V_TIMER);
    open_window();
    uint64_t n = hits[V_TIMER];
    delay_us(20000);
    open_window();
    check_eq(hits[V_TIMER], n, "ticks while it is masked");
    apic_write(APIC_TIMER_INIT, 0);
}

static void test_timer_deadline(void)
{
    uint32_t r[4];
    cpuid(1, 0, r);
    if (!(r[2] >> 24 & 1)) {
        skip("TSC deadline", "not in CPUID");
        return;
    }
    forget();
    apic_write(APIC_LVT_TIMER, 0x40000 | V_TIMER);
    __asm__ volatile("mfence");
    uint64_t at = rdtsc() + tsc_khz() * 5;
    wrmsr(0x6e0, at);
    check(rdmsr(0x6e0) != 0, "the deadline stands");
    check(wait_for(&hits[V_TIMER], 1, 2000), "it comes");
    check(rdtsc() >= at, "not too early");
    check_eq(rdmsr(0x6e0), 0, "the deadline after it");
    wrmsr(0x6e0, rdtsc() - 1000);
    check(wait_for(&hits[V_TIMER], 2, 2000), "a deadline in the past fires at once");
    wrmsr(0x6e0, rdtsc() + tsc_khz() * 1000000);
    wrmsr(0x6e0, 0);
    check_eq(rdmsr(0x6e0), 0, "0 disarms");
    apic_write(APIC_LVT_TIMER, 0x10000);
}

/* --- PIC, PIT --- */

static void pit_rate(uint16_t count)
{
    out8(0x43, 0x34); /* channel 0, mode 2 */
    out8(0x40, (uint8_t)count);
    out8(0x40, (uint8_t)(count >> 8));
}

static void test_pic_pit(void)
{
    forget();
    for (unsigned i = 0; i < 16; i++)
        trap_set(V_PIC + i, hit_pic);
    apic_write(APIC_LVT_LINT0, 0x700); /* ExtINT */
    pic_init(V_PIC, V_PIC + 8, 0xfffe);
    pit_rate(11932); /* 100 Hz */
    check(wait_for(&hits[V_PIC], 5, 5000), "PIT interrupts come through the PIC");
    out8(0x21, 0xff);
    open_window();
    uint64_t n = hits[V_PIC];
    delay_us(30000);
    open_window();
    check_eq(hits[V_PIC], n, "ticks while the PIC masks them");
    out8(0x20, 0x0a);
    check(in8(0x20) & 1, "IRR shows the waiting tick");
    out8(0x21, 0xfe);
    check(wait_for(&hits[V_PIC], n + 1, 2000), "unmasking lets it in");
    out8(0x43, 0x00); /* latch channel 0 */
    uint16_t a = in8(0x40);
    a |= (uint16_t)(in8(0x40) << 8);
    check(a <= 11932, "the latched count is within the period");
    out8(0x21, 0xff);
    apic_write(APIC_LVT_LINT0, 0x10000);
}

/* A busy host stops us at times between two looks at a clock: the least of some measurements is what it tells. */
static void check_clock(const char *what, uint64_t (*measure)(void), uint64_t floor, uint64_t limit)
{
    uint64_t least = measure();
    for (unsigned tries = 0; tries < 10 && least >= limit; tries++) {
        uint64_t again = measure();
        least = again < least ? again : least;
    }
    check(least > floor && least < limit, "%s: %lu, to be between %lu and %lu", what, least, floor, limit);
}

/* Channel 2, gated by port 0x61, against the TSC. */
static uint64_t channel2_us(void)
{
    out8(0x61, (uint8_t)((in8(0x61) & ~2u) | 1));
    out8(0x43, 0xb0);
    out8(0x42, (uint8_t)11932);
    out8(0x42, (uint8_t)(11932 >> 8));
    uint64_t begin = rdtsc();
    while (!(in8(0x61) & 0x20) && rdtsc() - begin < tsc_khz() * 1000)
        ;
    return (rdtsc() - begin) * 1000 / tsc_khz();
}

static void test_pit_channel2(void)
{
    check_clock("us that 10 ms of PIT channel 2 took", channel2_us, 8000, 100000);
}

/* --- IOAPIC --- */

static void test_ioapic_pit(void)
{
    forget();
    uint32_t version = ioapic_read(1);
    check((version >> 16 & 0xff) >= 23, "the IOAPIC has %u pins", (version >> 16 & 0xff) + 1);
    trap_set(V_LINE, hit);
    ioapic_route(2, (uint64_t)apic_id() << 56 | V_LINE);
    check_eq(ioapic_read(0x14) & 0xff, V_LINE, "the entry reads back");
    pit_rate(11932);
    check(wait_for(&hits[V_LINE], 5, 5000), "PIT interrupts come through the IOAPIC");
    ioapic_route(2, IOAPIC_MASKED);
    open_window();
    uint64_t n = hits[V_LINE];
    delay_us(30000);
    open_window();
    check_eq(hits[V_LINE], n, "ticks while the pin is masked");
    pit_rate(0);
}

static volatile uint64_t level_hits;
static void on_level(struct frame *f)
{
    level_hits++;
    if (level_hits == 1)
        check(apic_is_set(APIC_TMR, (uint8_t)f->vector), "TMR shows a level interrupt");
    if (level_hits >= 3)
        out8(0x3f9, 0); /* the UART drops the line */
    apic_eoi();
}

/* The UART's transmitter-empty interrupt, by IRQ 4 as a level: it comes again until the cause is
 * gone. */
static void test_ioapic_level(void)
{
    level_hits = 0;
    trap_set(V_LINE, on_level);
    out8(0x3fc, 0x0b); /* OUT2, RTS, DTR */
    out8(0x3f9, 0);
    ioapic_route(4, (uint64_t)apic_id() << 56 | IOAPIC_LEVEL | V_LINE);
    out8(0x3f9, 2);
    check(wait_for(&level_hits, 3, 2000), "a level that stays comes again after each EOI");
    open_window();
    uint64_t n = level_hits;
    delay_us(2000);
    open_window();
    check_eq(level_hits, n, "interrupts after the line fell");
    check(!(ioapic_read(0x10 + 2 * 4) & 1u << 14), "remote IRR is clear");
    ioapic_route(4, IOAPIC_MASKED);
}

/* --- RTC --- */

static uint8_t cmos(uint8_t reg)
{
    out8(0x70, reg);
    return in8(0x71);
}

static void set_cmos(uint8_t reg, uint8_t v)
{
    out8(0x70, reg);
    out8(0x71, v);
}

static volatile uint64_t rtc_hits;
static void on_rtc(struct frame *f)
{
    rtc_hits++;
    cmos(0x0c);
    apic_eoi();
}

static void test_rtc(void)
{
    trap_set(V_LINE, on_rtc);
    check(cmos(0x0d) & 0x80, "the RTC's battery is good");
    uint8_t month = cmos(8), day = cmos(7);
    check(month >= 1 && month <= 0x12 && day >= 1 && day <= 0x31, "a date: month %x, day %x", month,
          day);
    ioapic_route(8, (uint64_t)apic_id() << 56 | V_LINE);
    cmos(0x0c);
    set_cmos(0x0a, 0x26);                         /* 1024 Hz */
    set_cmos(0x0b, (uint8_t)(cmos(0x0b) | 0x40)); /* periodic interrupt */
    check(wait_for(&rtc_hits, 10, 5000), "periodic interrupts of the RTC");
    set_cmos(0x0b, (uint8_t)(cmos(0x0b) & ~0x40));
    cmos(0x0c);
    ioapic_route(8, IOAPIC_MASKED);
}

/* --- HPET --- */

#define HPET 0xfed00000ul

static uint64_t hpet_read(unsigned off)
{
    return *(volatile uint64_t *)(HPET + off);
}
static void hpet_write(unsigned off, uint64_t v)
{
    *(volatile uint64_t *)(HPET + off) = v;
}

static uint32_t hpet_period(void)
{
    return (uint32_t)(hpet_read(0) >> 32);
}

static uint64_t hpet_ns(void)
{
    uint64_t a = hpet_read(0xf0);
    delay_us(1000);
    return (hpet_read(0xf0) - a) * (hpet_period() / 1000) / 1000;
}

static void test_hpet(void)
{
    uint64_t caps = hpet_read(0);
    uint32_t period = hpet_period();
    if (caps == ~0ull || !period || !cmdline_number("hpet", 1)) {
        skip("HPET", "not there");
        return;
    }
    check(period <= 100000000, "its period is %u fs", period);
    hpet_write(0x10, 1);
    check_clock("ns of the HPET in 1 ms of the TSC", hpet_ns, 500000, 50000000);
    uint64_t config = hpet_read(0x100);
    uint32_t pins = (uint32_t)(config >> 32);
    check(pins != 0, "timer 0 can reach IOAPIC pins 0x%x", pins);
    unsigned pin = (unsigned)__builtin_ctz(pins & ~1u ? pins & ~1u : 1);
    forget();
    trap_set(V_LINE, hit);
    ioapic_route(pin, (uint64_t)apic_id() << 56 | V_LINE);
    hpet_write(0x100, (uint64_t)pin << 9 | 4); /* edge, one-shot, enabled */
    hpet_write(0x108, hpet_read(0xf0) + 2000000000000ull / period);
    check(wait_for(&hits[V_LINE], 1, 3000), "timer 0 fires on pin %u", pin);
    if (config & 1u << 4) {
        forget();
        hpet_write(0x10, 0);
        hpet_write(0xf0, 0);
        hpet_write(0x100, (uint64_t)pin << 9 | 0x4c); /* periodic, set the accumulator */
        hpet_write(0x108, 1000000000000ull / period);
        hpet_write(0x108, 1000000000000ull / period);
        hpet_write(0x10, 1);
        check(wait_for(&hits[V_LINE], 5, 3000), "periodic mode");
    }
    hpet_write(0x100, 0);
    hpet_write(0x10, 0);
    ioapic_route(pin, IOAPIC_MASKED);
}

/* --- ACPI PM timer --- */

static uint32_t pm_port;

static uint64_t pm_ticks(void)
{
    uint32_t a = in32((uint16_t)pm_port);
    delay_us(2000);
    return (in32((uint16_t)pm_port) - a) & 0xffffff;
}

static void test_pm_timer(void)
{
    const uint8_t *fadt = acpi_find("FACP");
    if (!fadt) {
        skip("PM timer", "no FADT");
        return;
    }
    memcpy(&pm_port, fadt + 76, 4);
    if (!pm_port) {
        skip("PM timer", "no port in the FADT");
        return;
    }
    check_clock("ticks of the PM timer, of 3.58 MHz, in 2 ms", pm_ticks, 5000, 200000);
}

void test_main(void)
{
    soft_kvm = cmdline_number("softkvm", 0);
    apic_enable();
    if (cmdline_number("x2apic", 0))
        apic_x2_enable();
    trap_set(V_A, hit);
    trap_set(V_B, hit);
    trap_set(V_TIMER, hit);
    for (unsigned pin = 0; pin < 24; pin++)
        ioapic_route(pin, IOAPIC_MASKED);
    apic_write(APIC_LVT_LINT0, 0x10000);
    test_self_ipi();
    test_tpr();
    if (soft_kvm) {
        skip("priorities", "a KVM in software delivers late, and not in this order");
    } else {
        test_priority();
        test_in_service();
    }
    test_nmi();
    test_hlt();
    test_disabled();
    test_timer_oneshot();
    test_timer_periodic();
    test_timer_deadline();
    if (cmdline_number("pic", 1)) {
        test_pic_pit();
        test_pit_channel2();
        test_ioapic_pit();
        test_rtc();
        test_hpet();
    }
    test_ioapic_level();
    test_pm_timer();
}
