/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Several vCPUs: start, IPIs of every kind, locked instructions under contention, TLB shoot-down,
 * start again.
 *
 * Spec      Intel SDM volume 3, chapters 9 (start-up) and 11 (IPIs), 4.10.5 (shoot-down).
 */
#include "lib/guest.h"

#define ROUNDS_TOTAL 40000u
#define ROUNDS_SOFT_KVM 8000u /* where the kernel runs each instruction in software, slowly */
#define SHOOT_VECTOR 0xe0
#define COUNT_VECTOR 0xe1
#define WINDOW 0x4000000000ul

static unsigned count;
static unsigned rounds;
static struct {
    uint64_t inc, add, xadd, dec, cmpxchg, xchg_held, byte_add, sub;
    uint64_t wide[2] __attribute__((aligned(16)));
    uint64_t split[16];
    volatile uint32_t lock;
    uint64_t bits[64];
} shared __attribute__((aligned(64)));
static uint64_t *const split =
    (uint64_t *)((char *)&shared.split + 60 - offsetof(__typeof__(shared), split) % 64);

static void increment_word(uint64_t *p)
{
    uint64_t old = *(volatile uint64_t *)p;
    while (
        !__atomic_compare_exchange_n(p, &old, old + 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
}

static void increment_wide(uint64_t p[2])
{
    uint64_t lo = ((volatile uint64_t *)p)[0], hi = ((volatile uint64_t *)p)[1];
    bool done = false;
    while (!done)
        __asm__ volatile("lock cmpxchg16b %1; setz %0"
                         : "=q"(done), "+m"(*(__int128 *)p), "+a"(lo), "+d"(hi)
                         : "b"(lo + 1), "c"(hi + 2)
                         : "memory");
}

static bool have_cx16(void)
{
    uint32_t r[4];
    cpuid(1, 0, r);
    return r[2] >> 13 & 1;
}

static void contend(void *arg)
{
    bool wide = have_cx16();
    unsigned me = this_cpu()->index;
    for (unsigned i = 0; i < rounds; i++) {
        __asm__ volatile("lock incq %0" : "+m"(shared.inc)::"memory");
        __asm__ volatile("lock addq $3, %0" : "+m"(shared.add)::"memory");
        __asm__ volatile("lock subq $5, %0" : "+m"(shared.sub)::"memory");
        __asm__ volatile("lock addb $1, %0" : "+m"(shared.byte_add)::"memory");
        uint64_t one = 1;
        __asm__ volatile("lock xaddq %0, %1" : "+r"(one), "+m"(shared.xadd)::"memory");
        __asm__ volatile("lock decq %0" : "+m"(shared.dec)::"memory");
        increment_word(&shared.cmpxchg);
        uint64_t *bits = &shared.bits[i % 64];
        __asm__ volatile("lock btsq %1, %0" : "+m"(*bits) : "r"((uint64_t)me) : "memory");
        __asm__ volatile("lock btrq %1, %0" : "+m"(*bits) : "r"((uint64_t)me) : "memory");
        while (__atomic_exchange_n(&shared.lock, 1, __ATOMIC_ACQUIRE))
            pause();
        shared.xchg_held++; /* not atomic: the lock must do */
        __atomic_store_n(&shared.lock, 0, __ATOMIC_RELEASE);
        if (i % 16 == 0)
            __asm__ volatile("lock addq $1, %0" : "+m"(*split)::"memory");
        if (wide)
            increment_wide(shared.wide);
    }
}

static void test_atomics(void)
{
    uint64_t n = (uint64_t)rounds * count;
    smp_call_all(contend, NULL);
    check_eq(shared.inc, n, "LOCK INC");
    check_eq(shared.add, 3 * n, "LOCK ADD");
    check_eq(shared.sub, -5 * n, "LOCK SUB");
    check_eq(shared.byte_add, n & 0xff, "LOCK ADD of bytes");
    check_eq(shared.xadd, n, "LOCK XADD");
    check_eq(shared.dec, -n, "LOCK DEC");
    check_eq(shared.cmpxchg, n, "LOCK CMPXCHG");
    check_eq(shared.xchg_held, n, "a spin lock by XCHG");
    check_eq(*split, (uint64_t)count * ((rounds + 15) / 16), "LOCK ADD across two lines");
    uint64_t left = 0;
    for (unsigned i = 0; i < 64; i++)
        left |= shared.bits[i];
    check_eq(left, 0, "LOCK BTS and BTR");
    if (have_cx16()) {
        check_eq(shared.wide[0], n, "CMPXCHG16B, low");
        check_eq(shared.wide[1], 2 * n, "CMPXCHG16B, high");
    } else {
        skip("CMPXCHG16B", "not in CPUID");
    }
}

static void test_ids(void)
{
    for (unsigned i = 0; i < count; i++) {
        for (unsigned j = 0; j < i; j++)
            check(cpus[i].apic_id != cpus[j].apic_id, "APIC id %u of vCPUs %u and %u",
                  cpus[i].apic_id, i, j);
    }
    uint32_t r[4];
    cpuid(1, 0, r);
    check_eq(r[1] >> 24, cpus[0].apic_id & 0xff, "CPUID's initial APIC id");
}

static void counted(struct frame *f)
{
    this_cpu()->counter++;
    apic_eoi();
}

static bool wait_counter(unsigned index, uint64_t value)
{
    return wait_for(&cpus[index].counter, value, 5000);
}

static void test_ipis(void)
{
    trap_set(COUNT_VECTOR, counted);
    for (unsigned i = 1; i < count; i++) {
        for (uint64_t n = 1; n <= 20; n++) {
            smp_ipi(i, COUNT_VECTOR);
            if (!check(wait_counter(i, n), "IPI %lu to vCPU %u arrives", n, i))
                break;
        }
    }
    uint64_t before[MAX_CPUS];
    for (unsigned i = 0; i < count; i++)
        before[i] = cpus[i].counter;
    apic_icr(0, 0xc4000 | COUNT_VECTOR); /* all but self */
    for (unsigned i = 1; i < count; i++)
        check(wait_counter(i, before[i] + 1), "the broadcast reaches vCPU %u", i);
    check_eq(cpus[0].counter, before[0], "but not its sender");
    apic_icr(0, 0x84000 | COUNT_VECTOR); /* all */
    for (unsigned i = 0; i < count; i++)
        check(wait_counter(i, before[i] + (i ? 2 : 1)), "the broadcast to all reaches vCPU %u", i);
    apic_icr(0, 0x44000 | COUNT_VECTOR); /* self */
    check(wait_counter(0, before[0] + 2), "a self-IPI");
}

static void count_work(void *arg)
{
    ++*(uint64_t *)arg;
}

/* The other vCPU sleeps in HLT between two pieces of work: no wake-up may be lost. */
static void test_wake_ups(void)
{
    uint64_t done = 0, rounds_here = cmdline_number("softkvm", 0) ? 100 : 5000;
    for (uint64_t n = 1; n <= rounds_here; n++) {
        smp_call(1, count_work, &done);
        uint64_t begin = rdtsc();
        while (__atomic_load_n(&cpus[1].work, __ATOMIC_ACQUIRE) &&
               rdtsc() - begin < tsc_khz() * 10000)
            pause();
        if (!check_eq(done, n, "pieces of work done by a vCPU that sleeps between them"))
            break;
    }
}

static volatile uint64_t nmis;
static void count_nmi(struct frame *f)
{
    __atomic_fetch_add(&nmis, 1, __ATOMIC_SEQ_CST);
}

static void test_nmi(void)
{
    trap_set(2, count_nmi);
    for (unsigned i = 1; i < count && i < 4; i++) {
        nmis = 0;
        apic_icr(cpus[i].apic_id, 0x4400);
        check(wait_for(&nmis, 1, 5000), "an NMI to vCPU %u", i);
    }
}

/* --- shoot-down: the others read through a page that the first vCPU moves under them --- */

static volatile uint64_t acks, stop_reading;
static uint64_t *frames[2];
static volatile uint64_t current, bad_reads;

static void shoot(struct frame *f)
{
    invlpg((void *)WINDOW);
    __atomic_fetch_add(&acks, 1, __ATOMIC_SEQ_CST);
    apic_eoi();
}

/* Between shoot-downs a reader may see old or new; after all have answered, only new. */
static void read_window(void *arg)
{
    sti();
    while (!stop_reading) {
        uint64_t before = current, v = *(volatile uint64_t *)WINDOW, after = current;
        if (before == after && (before & 1) == 0 && v != (before >> 1 & 1))
            __atomic_fetch_add(&bad_reads, 1, __ATOMIC_SEQ_CST);
        pause();
    }
    cli();
}

static void test_shoot_down(void)
{
    for (unsigned i = 0; i < 2; i++) {
        frames[i] = alloc_pages(1);
        frames[i][0] = i;
    }
    map_page(0, WINDOW, (uint64_t)frames[0], PTE_P | PTE_W, 1);
    trap_set(SHOOT_VECTOR, shoot);
    for (unsigned i = 1; i < count; i++)
        smp_call(i, read_window, NULL);
    volatile uint64_t *pte = find_pte(0, WINDOW, NULL);
    unsigned turns = count > 8 ? 10 : 100;
    for (uint64_t n = 1; n <= turns; n++) {
        current = 2 * n - 1; /* odd: in between */
        *pte = (uint64_t)frames[n & 1] | PTE_P | PTE_W;
        invlpg((void *)WINDOW);
        acks = 0;
        apic_icr(0, 0xc4000 | SHOOT_VECTOR);
        if (!check(wait_for(&acks, count - 1, 10000), "all answer shoot-down %lu", n))
            break;
        current = 2 * n;
        check_eq(*(volatile uint64_t *)WINDOW, n & 1, "this vCPU sees the new page");
    }
    stop_reading = 1;
    for (unsigned i = 1; i < count; i++)
        smp_wait(i);
    check_eq(bad_reads, 0, "reads of the old page after a shoot-down");
}

static void read_tsc(void *arg)
{
    *(volatile uint64_t *)arg = rdtsc();
}

/* A message goes forth and back: time must not. */
static void test_tsc_order(void)
{
    static volatile uint64_t there;
    for (unsigned i = 1; i < count && i < 4; i++) {
        for (unsigned n = 0; n < 20; n++) {
            uint64_t before = rdtsc();
            smp_call(i, read_tsc, (void *)&there);
            smp_wait(i);
            uint64_t after = rdtsc();
            check(there >= before && there <= after, "vCPU %u reads 0x%lx between 0x%lx and 0x%lx",
                  i, there, before, after);
        }
    }
}

/* INIT takes a vCPU from anywhere back to waiting; a start-up IPI without INIT does nothing. */
static void test_restart(void)
{
    unsigned last = count - 1;
    cpus[last].counter = 0;
    smp_ipi(last, COUNT_VECTOR);
    check(wait_counter(last, 1), "the vCPU lives");
    cpus[last].up = false;
    apic_icr(cpus[last].apic_id, 0x4608);
    delay_us(20000);
    check(!cpus[last].up, "a SIPI to a running vCPU is ignored");
    extern volatile uint32_t ap_next;
    ap_next = last;
    apic_icr(cpus[last].apic_id, 0x4500);
    delay_us(10000);
    check(!cpus[last].up, "after INIT it waits");
    apic_icr(cpus[last].apic_id, 0x4608);
    uint64_t begin = rdtsc(), ticks = tsc_khz() * 10000;
    gdt[SEL_TSS / 8 + 2 * last] &= ~(2ull << 40); /* the TSS is free again */
    while (!*(volatile bool *)&cpus[last].up && rdtsc() - begin < ticks)
        pause();
    check(cpus[last].up, "INIT and SIPI start it again");
}

void test_main(void)
{
    count = cpu_count();
    if (cmdline_number("x2apic", 0))
        apic_x2_enable();
    check_eq(smp_start(), count, "vCPUs that run");
    print("%u vCPUs run\n", count);
    unsigned total = cmdline_number("softkvm", 0) ? ROUNDS_SOFT_KVM : ROUNDS_TOTAL;
    rounds = (unsigned)cmdline_number("rounds", total / count);
    test_ids();
    test_atomics();
    if (count > 1) {
        test_ipis();
        test_wake_ups();
        test_nmi();
        test_shoot_down();
        test_tsc_order();
        test_restart();
    }
}
