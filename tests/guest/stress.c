/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Everything at once on several vCPUs, for a time: atomics of all kinds on shared and split lines,
 * locks, memory-order tests, private code that is patched, address spaces that are switched, pages
 * that are mapped anew, timers. Sums are exact at the end.
 *
 * Spec      Intel SDM volume 3, 9.1 (locked operations), 9.2 (memory ordering).
 */
#include "lib/guest.h"

#define V_TIMER 0x61
#define WINDOW 0x4000000000ul
#define PRIVATE_AT 0x4100000000ul

static unsigned count;
static uint64_t end_at;
static struct {
    uint64_t add, xadd, cmpxchg, ticket_next, ticket_now, plain;
    uint64_t wide[2] __attribute__((aligned(16)));
    uint8_t split_room[192];
    uint32_t bytes;
} shared __attribute__((aligned(64)));
static struct {
    uint64_t rounds, ticks, code_runs, switches, errors;
    uint64_t pad[3];
} mine[MAX_CPUS] __attribute__((aligned(64)));
static uint64_t roots[MAX_CPUS][2];
static uint8_t *code_pages[MAX_CPUS];

static void on_tick(struct frame *f)
{
    mine[this_cpu()->index].ticks++;
    apic_eoi();
}

/* --- atomics --- */

static void add_wide(void)
{
    uint64_t lo = ((volatile uint64_t *)shared.wide)[0], hi = ((volatile uint64_t *)shared.wide)[1];
    bool done = false;
    while (!done)
        __asm__ volatile("lock cmpxchg16b %1; setz %0"
                         : "=q"(done), "+m"(*(__int128 *)shared.wide), "+a"(lo), "+d"(hi)
                         : "b"(lo + 1), "c"(hi + 3)
                         : "memory");
}

static void do_atomics(void)
{
    uint64_t *split = (uint64_t *)(shared.split_room + 60), one = 1;
    __asm__ volatile("lock addq $1, %0" : "+m"(shared.add)::"memory");
    __asm__ volatile("lock xaddq %0, %1" : "+r"(one), "+m"(shared.xadd)::"memory");
    uint64_t old = __atomic_load_n(&shared.cmpxchg, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&shared.cmpxchg, &old, old + 2, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST))
        ;
    add_wide();
    __asm__ volatile("lock addb $1, %0" : "+m"(shared.bytes)::"memory");
    if (mine[this_cpu()->index].rounds % 8 == 0)
        __asm__ volatile("lock incq %0" : "+m"(*split)::"memory");
    uint64_t ticket = __atomic_fetch_add(&shared.ticket_next, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&shared.ticket_now, __ATOMIC_ACQUIRE) != ticket)
        pause();
    shared.plain++;
    __atomic_store_n(&shared.ticket_now, ticket + 1, __ATOMIC_RELEASE);
}

/* --- this vCPU's own code, patched and run through one of two address spaces --- */

static void do_code(unsigned me, uint64_t round)
{
    uint8_t *at = code_pages[me] + round % 2 * PAGE + 64 + round * 16 % 1024;
    uint32_t value = (uint32_t)(round * 7 + me);
    at[0] = 0xb8;
    memcpy(at + 1, &value, 4);
    at[5] = 0xc3;
    write_cr3(roots[me][round % 2]);
    uint32_t got = ((uint32_t(*)(void))(PRIVATE_AT + (uint64_t)(at - code_pages[me]) % PAGE))();
    mine[me].errors += got != value;
    mine[me].switches++;
}

static void do_remap(unsigned me, uint64_t round)
{
    uint64_t at = WINDOW + me * PAGE;
    uint8_t *page = code_pages[me] + (2 + round % 3) * PAGE;
    volatile uint64_t *pte = find_pte(roots[me][round % 2], at, NULL);
    *(volatile uint64_t *)page = round;
    *pte = (uint64_t)page | PTE_P | PTE_W;
    invlpg((void *)at);
    mine[me].errors += *(volatile uint64_t *)at != round;
    *(volatile uint64_t *)(at + 8) = round + 1;
    mine[me].errors += *(volatile uint64_t *)(page + 8) != round + 1;
}

static void work(void *arg)
{
    unsigned me = this_cpu()->index;
    uint64_t home = read_cr3();
    apic_write(APIC_TIMER_DIV, 0xb);
    apic_write(APIC_LVT_TIMER, 0x20000 | V_TIMER);
    apic_write(APIC_TIMER_INIT, 300000 + me * 7777);
    sti();
    for (uint64_t round = 0; rdtsc() < end_at; round++) {
        do_atomics();
        do_code(me, round);
        do_remap(me, round);
        mine[me].rounds++;
    }
    cli();
    apic_write(APIC_TIMER_INIT, 0);
    apic_write(APIC_LVT_TIMER, 0x10000);
    write_cr3(home);
}

static void test_mixed(uint64_t ms)
{
    for (unsigned i = 0; i < count; i++) {
        code_pages[i] = alloc_pages(5);
        for (unsigned j = 0; j < 2; j++) {
            roots[i][j] = new_address_space();
            map_page(roots[i][j], PRIVATE_AT, (uint64_t)code_pages[i] + j * PAGE, PTE_P | PTE_W, 1);
            map_page(roots[i][j], WINDOW + i * PAGE, 0, 0, 1);
        }
    }
    for (unsigned i = 0; i < count; i++) {
        for (unsigned j = 0; j < 2; j++)
            map_page(roots[i][j], WINDOW + i * PAGE, (uint64_t)code_pages[i] + 2 * PAGE, PTE_P | PTE_W, 1);
    }
    trap_set(V_TIMER, on_tick);
    end_at = rdtsc() + tsc_khz() * ms;
    smp_call_all(work, NULL);
    uint64_t rounds = 0, errors = 0, ticks = 0, split = 0;
    for (unsigned i = 0; i < count; i++) {
        rounds += mine[i].rounds;
        errors += mine[i].errors;
        ticks += mine[i].ticks;
        split += (mine[i].rounds + 7) / 8;
    }
    check_eq(errors, 0, "stale code or pages");
    check_eq(shared.add, rounds, "LOCK ADD");
    check_eq(shared.xadd, rounds, "LOCK XADD");
    check_eq(shared.cmpxchg, 2 * rounds, "LOCK CMPXCHG");
    check_eq(shared.wide[0], rounds, "CMPXCHG16B, low");
    check_eq(shared.wide[1], 3 * rounds, "CMPXCHG16B, high");
    check_eq(shared.plain, rounds, "a counter under a ticket lock");
    check_eq(shared.bytes & 0xff, rounds & 0xff, "LOCK ADD of bytes");
    check_eq(*(uint64_t *)(shared.split_room + 60), split, "LOCK INC across lines");
    check(ticks > 0 && rounds > 0, "timers ticked");
    print("rounds %lu ticks %lu\n", rounds, ticks);
}

/* --- memory order: what x86 forbids must not be seen --- */

static volatile struct {
    uint64_t x, pad0[15], y, pad1[15], go[2], pad2[14], r[2], pad3[14], done[2];
} litmus __attribute__((aligned(64)));
static uint64_t litmus_turns;
enum { SB_FENCED, SB_LOCKED, MP, LB, N_LITMUS };
static const char *const litmus_names[] = { "stores, MFENCE, loads", "stores, XCHG, loads",
                                            "message passing", "loads before stores" };
static volatile unsigned litmus_kind;

static void litmus_side(unsigned side)
{
    volatile uint64_t *a = side ? &litmus.y : &litmus.x, *b = side ? &litmus.x : &litmus.y;
    uint64_t r = 0, one = 1, scratch = 0;
    switch (litmus_kind) {
    case SB_FENCED:
        __asm__ volatile("movq $1, %1; mfence; mov %2, %0" : "=&r"(r), "=m"(*a) : "m"(*b) : "memory");
        break;
    case SB_LOCKED:
        __asm__ volatile("xchg %0, %1" : "+r"(one), "+m"(*a)::"memory");
        __asm__ volatile("mov %1, %0" : "=r"(r) : "m"(*b) : "memory");
        break;
    case MP: /* side 0 writes x, then y; side 1 reads y, then x: y without x is forbidden */
        if (!side)
            __asm__ volatile("movq $1, %0; movq $1, %1" : "=m"(litmus.x), "=m"(litmus.y)::"memory");
        else
            __asm__ volatile("mov %2, %0; mov %3, %1" : "=&r"(r), "=&r"(scratch) : "m"(litmus.y), "m"(litmus.x) : "memory");
        r = side ? r << 1 | scratch : 0;
        break;
    default:
        __asm__ volatile("mov %2, %0; movq $1, %1" : "=&r"(r), "=m"(*a) : "m"(*b) : "memory");
    }
    litmus.r[side] = r;
}

static void litmus_run(unsigned side)
{
    for (uint64_t turn = 1; turn <= litmus_turns; turn++) {
        if (!side) {
            litmus.x = litmus.y = 0;
            __atomic_store_n(&litmus.go[0], turn, __ATOMIC_SEQ_CST);
        } else {
            while (__atomic_load_n(&litmus.go[0], __ATOMIC_SEQ_CST) != turn)
                ;
        }
        litmus_side(side);
        __atomic_store_n(&litmus.done[side], turn, __ATOMIC_SEQ_CST);
        if (side)
            continue;
        while (__atomic_load_n(&litmus.done[1], __ATOMIC_SEQ_CST) != turn)
            ;
        uint64_t r0 = litmus.r[0], r1 = litmus.r[1];
        bool bad = litmus_kind == MP ? r1 == 2 : litmus_kind == LB ? r0 && r1 : !r0 && !r1;
        mine[0].errors += bad;
    }
}

static void litmus_other(void *arg) { litmus_run(1); }

static void test_litmus(uint64_t turns)
{
    litmus_turns = turns;
    for (unsigned kind = 0; kind < N_LITMUS; kind++) {
        mine[0].errors = 0;
        litmus_kind = kind;
        litmus.go[0] = litmus.done[0] = litmus.done[1] = 0;
        smp_call(1, litmus_other, NULL);
        litmus_run(0);
        smp_wait(1);
        check_eq(mine[0].errors, 0, "forbidden outcomes of %s", litmus_names[kind]);
    }
}

void test_main(void)
{
    apic_enable();
    count = cpu_count() > 1 ? smp_start() : 1;
    if (count > 1)
        test_litmus(cmdline_number("turns", 3000));
    test_mixed(cmdline_number("ms", 700));
}
