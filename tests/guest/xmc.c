/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Code that one vCPU changes and others execute, by the protocols that the manuals and Linux have:
 * a flag and a serialising instruction; INT3 first, then the tail, then the head, with an IPI
 * between; one aligned store with none.
 *
 * Spec      Intel SDM volume 3, 9.1.3; Linux's text_poke_bp().
 */
#include "lib/guest.h"

#define V_SYNC 0xe4
#define ALIAS 0x4000000000ul

typedef uint32_t code_fn(void);
static uint8_t *code;
static unsigned count;

static void put_return(uint8_t *at, uint32_t value)
{
    at[0] = 0xb8;
    memcpy(at + 1, &value, 4);
    at[5] = 0xc3;
}

static uint32_t run(const uint8_t *at)
{
    return ((code_fn *)at)();
}

static void serialise_cpuid(void)
{
    uint32_t r[4];
    cpuid(0, 0, r);
}
static void serialise_iret(void)
{
    __asm__ volatile("mov %%rsp, %%rcx; mov %%ss, %%eax; push %%rax; push %%rcx; pushf; mov %%cs, %%eax; push %%rax; lea 1f(%%rip), %%rax; push %%rax; iretq; 1:" ::
                         : "rax", "rcx", "memory", "cc");
}
static void serialise_cr3(void)
{
    write_cr3(read_cr3());
}
static void serialise_invlpg(void)
{
    invlpg(code);
}
static void serialise_dr7(void)
{
    write_dr7(0x400);
}

/* --- 1: write, then a flag; the others serialise once they see it --- */

static const struct {
    const char *name;
    void (*serialise)(void);
} means[] = {
    { "CPUID", serialise_cpuid }, { "IRETQ", serialise_iret }, { "MOV CR3", serialise_cr3 },
    { "INVLPG", serialise_invlpg }, { "MOV DR7", serialise_dr7 },
};
static volatile uint64_t turn, answers, stale;
static void (*volatile serialise)(void);
static uint64_t turns;

static void follow(void *arg)
{
    uint64_t bad = 0;
    for (uint64_t i = 1; i <= turns; i++) {
        while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) < i)
            pause();
        serialise();
        bad += run(code + 256) != (uint32_t)i;
        bad += run(code + 256) != (uint32_t)i;
        bad += run((uint8_t *)ALIAS + 256) != (uint32_t)i;
        __atomic_fetch_add(&answers, 1, __ATOMIC_SEQ_CST);
    }
    __atomic_fetch_add(&stale, bad, __ATOMIC_SEQ_CST);
}

static void start_others(void (*fn)(void *), void *arg)
{
    for (unsigned i = 1; i < count; i++)
        smp_call(i, fn, arg);
}

static void wait_others(void)
{
    for (unsigned i = 1; i < count; i++)
        smp_wait(i);
}

static void test_flag(unsigned which)
{
    serialise = means[which].serialise;
    turn = answers = stale = 0;
    start_others(follow, NULL);
    for (uint64_t i = 1; i <= turns; i++) {
        put_return((uint8_t *)(i & 1 ? (uint64_t)code : ALIAS) + 256, (uint32_t)i);
        __atomic_store_n(&turn, i, __ATOMIC_RELEASE);
        while (__atomic_load_n(&answers, __ATOMIC_ACQUIRE) < i * (count - 1))
            pause();
    }
    wait_others();
    check_eq(stale, 0, "stale code after a flag and %s, in %lu turns", means[which].name, turns);
}

/* --- 2: the way of Linux: INT3 over the first byte, IPI, the tail, IPI, the first byte, IPI --- */

static volatile uint64_t synced, stop_running, traps, bad_values, last_value, runs_done;
static volatile uint32_t poke_old, poke_new;

static void on_sync(struct frame *f)
{
    apic_eoi();
    serialise_cpuid();
    __atomic_fetch_add(&synced, 1, __ATOMIC_SEQ_CST);
}

/* Emulates the instruction under change: MOV of the old value. */
static void on_int3(struct frame *f)
{
    __atomic_fetch_add(&traps, 1, __ATOMIC_RELAXED);
    f->rax = poke_old;
    f->rip += 4; /* behind the five bytes */
}

static void sync_all(void)
{
    synced = 0;
    apic_icr(0, 0xc4000 | V_SYNC);
    uint64_t begin = rdtsc();
    while (__atomic_load_n(&synced, __ATOMIC_ACQUIRE) < count - 1) {
        if (rdtsc() - begin > tsc_khz() * 20000) {
            check(false, "only %lu of %u vCPUs answer", synced, count - 1);
            return;
        }
        pause();
    }
}

/* Old and new may show while a change is under way; nothing else ever, and no torn immediate. */
static void run_poked(void *arg)
{
    sti();
    while (!stop_running) {
        for (unsigned i = 0; i < 50; i++) {
            uint32_t low = __atomic_load_n(&poke_old, __ATOMIC_ACQUIRE), got = run(code + 1024);
            uint32_t high = __atomic_load_n(&poke_new, __ATOMIC_ACQUIRE);
            uint32_t n = got >> 16;
            if ((got & 0xffff) != n || n < (low >> 16) || n > (high >> 16)) {
                __atomic_fetch_add(&bad_values, 1, __ATOMIC_SEQ_CST);
                last_value = got;
            }
        }
        __atomic_fetch_add(&runs_done, 1, __ATOMIC_RELAXED);
    }
    cli();
}

static void test_text_poke(uint64_t pokes)
{
    trap_set(3, on_int3);
    trap_set(V_SYNC, on_sync);
    poke_old = poke_new = 0;
    put_return(code + 1024, 0);
    stop_running = bad_values = traps = runs_done = 0;
    start_others(run_poked, NULL);
    while (runs_done < count)
        pause();
    uint8_t *at = code + 1024;
    for (uint32_t i = 1; i <= pokes; i++) {
        uint32_t value = i << 16 | i;
        poke_new = value;
        __atomic_store_n(&at[0], 0xcc, __ATOMIC_SEQ_CST);
        sync_all();
        memcpy(at + 1, &value, 4);
        sync_all();
        __atomic_store_n(&at[0], 0xb8, __ATOMIC_SEQ_CST);
        sync_all();
        __atomic_store_n(&poke_old, value, __ATOMIC_SEQ_CST);
    }
    stop_running = 1;
    wait_others();
    check_eq(bad_values, 0, "values that were never there, the last 0x%lx", last_value);
    print("INT3 met while poking: %lu\n", traps);
    trap_set(3, NULL);
}

/* --- 3: one aligned store changes a jump's displacement; sooner or later all see it --- */

static volatile uint64_t seen_new;
static void run_until_new(void *arg)
{
    uint32_t want = (uint32_t)(uint64_t)arg, got;
    uint64_t begin = rdtsc(), limit = tsc_khz() * 10000;
    do {
        got = run(code + 2048);
    } while (got != want && rdtsc() - begin < limit);
    if (got == want)
        __atomic_fetch_add(&seen_new, 1, __ATOMIC_SEQ_CST);
}

static void test_eventually(void)
{
    uint8_t *at = code + 2048;
    for (uint32_t i = 1; i <= 40; i++) {
        put_return(at + 16, i);
        put_return(at + 32, i + 1);
        at[0] = 0xeb; /* jmp +14 to at + 16 */
        at[1] = 14;
        seen_new = 0;
        start_others(run_until_new, (void *)(uint64_t)(i + 1));
        for (unsigned j = 0; j < 200 * (i % 4); j++)
            pause();
        __atomic_store_n(&at[1], 30, __ATOMIC_SEQ_CST);
        wait_others();
        check_eq(seen_new, count - 1, "vCPUs that see a store to code without a protocol");
    }
}

/* --- 4: a page of code is rewritten while it is not executed, by whoever comes next --- */

static volatile uint64_t owner, errors;
static void pass_on(void *arg)
{
    uint64_t me = this_cpu()->index;
    for (uint64_t i = 0; i < turns; i++) {
        while (__atomic_load_n(&owner, __ATOMIC_ACQUIRE) != i * count + me)
            pause();
        serialise_cpuid();
        uint32_t value = (uint32_t)(i * count + me);
        if (value && run(code + 3000) != value - 1)
            __atomic_fetch_add(&errors, 1, __ATOMIC_SEQ_CST);
        put_return(code + 3000, value);
        if (run(code + 3000) != value)
            __atomic_fetch_add(&errors, 1, __ATOMIC_SEQ_CST);
        __atomic_store_n(&owner, i * count + me + 1, __ATOMIC_RELEASE);
    }
}

static void test_ring(void)
{
    owner = errors = 0;
    smp_call_all(pass_on, NULL);
    check_eq(errors, 0, "stale code as it goes round");
}

/* --- 5: freshly written functions are handed over by pointer: the producer writes, the consumer calls --- */

static uint8_t *volatile offered;
static volatile uint64_t taken_sum;
static void consume(void *arg)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < turns; i++) {
        uint8_t *p;
        while (!(p = __atomic_exchange_n(&offered, NULL, __ATOMIC_ACQ_REL)))
            pause();
        sum += run(p);
    }
    taken_sum = sum;
}

static void test_producer(void)
{
    uint8_t *pool = alloc_pages(1 + turns * 16 / PAGE);
    uint64_t sum = 0;
    offered = NULL;
    smp_call(1, consume, NULL);
    for (uint64_t i = 0; i < turns; i++) {
        uint8_t *p = pool + i * 16; /* beside code that was executed, but never twice the same */
        while (__atomic_load_n(&offered, __ATOMIC_ACQUIRE))
            pause();
        put_return(p, (uint32_t)(i * 3 + 1));
        sum += i * 3 + 1;
        __atomic_store_n(&offered, p, __ATOMIC_RELEASE);
    }
    smp_wait(1);
    check_eq(taken_sum, sum, "the sum of functions handed over");
}

void test_main(void)
{
    turns = cmdline_number("turns", 150);
    code = alloc_pages(1);
    map_page(0, ALIAS, (uint64_t)code, PTE_P | PTE_W, 1);
    count = cpu_count() > 1 ? smp_start() : 1;
    if (!check(count > 1, "there is another vCPU"))
        return;
    for (unsigned i = 0; i < ARRAY_COUNT(means); i++)
        test_flag(i);
    test_text_poke(turns);
    test_eventually();
    test_ring();
    test_producer();
}
