/* SPDX-License-Identifier: GPL-2.0-or-later */
/* String instructions: what RCX, RSI and RDI hold when a page faults mid-way, restart, direction,
 * sizes, overlap.
 *
 * Spec      Intel SDM volume 2, REP; volume 1, 7.3.9.
 */
#include "lib/guest.h"

#define WINDOW 0x4000000000ul

struct regs {
    uint64_t rcx, rsi, rdi, rax;
};

enum op { MOVSB, MOVSW, MOVSD, MOVSQ, STOSB, STOSW, STOSD, STOSQ, LODSB, CMPSB, SCASB, N_OPS };
static const char *const names[] = { "MOVSB", "MOVSW", "MOVSD", "MOVSQ", "STOSB", "STOSW",
                                     "STOSD", "STOSQ", "LODSB", "CMPSB", "SCASB" };
static const unsigned sizes[] = { 1, 2, 4, 8, 1, 2, 4, 8, 1, 1, 1 };

#define RUN(insn)                                                                                  \
    __asm__ volatile(insn : "+c"(r->rcx), "+S"(r->rsi), "+D"(r->rdi), "+a"(r->rax)::"memory", "cc")

static void run_op(enum op op, struct regs *r)
{
    switch (op) {
    case MOVSB:
        RUN("rep movsb");
        break;
    case MOVSW:
        RUN("rep movsw");
        break;
    case MOVSD:
        RUN("rep movsl");
        break;
    case MOVSQ:
        RUN("rep movsq");
        break;
    case STOSB:
        RUN("rep stosb");
        break;
    case STOSW:
        RUN("rep stosw");
        break;
    case STOSD:
        RUN("rep stosl");
        break;
    case STOSQ:
        RUN("rep stosq");
        break;
    case LODSB:
        RUN("rep lodsb");
        break;
    case CMPSB:
        RUN("repe cmpsb");
        break;
    case SCASB:
        RUN("repe scasb");
        break;
    default:
        break;
    }
}

static bool reads_source(enum op op) { return op <= MOVSQ || op == LODSB || op == CMPSB; }
static bool uses_dest(enum op op) { return op != LODSB; }

static struct {
    enum op op;
    struct regs r;
} job;

static void do_job(void *arg) { run_op(job.op, &job.r); }

/* Two mapped pages at WINDOW, nothing behind; the string runs over the end. */
static void test_fault_at_end(enum op op, bool source_faults)
{
    unsigned size = sizes[op], fit = 5;
    uint64_t safe = (uint64_t)alloc_pages(4), edge = WINDOW + 2 * PAGE - fit * size;
    job.op = op;
    job.r = (struct regs){ .rcx = 1000,
                           .rsi = source_faults ? edge : safe,
                           .rdi = source_faults ? safe : edge };
    int v = catch_trap(do_job, NULL);
    struct frame *f = &this_cpu()->caught;
    check_eq(v, 14, "%s over the end faults", names[op]);
    check_eq(this_cpu()->caught_cr2, WINDOW + 2 * PAGE, "its CR2");
    check_eq(f->rcx, 1000 - fit, "RCX of %s", names[op]);
    if (reads_source(op))
        check_eq(f->rsi, job.r.rsi + fit * size, "RSI of %s", names[op]);
    if (uses_dest(op))
        check_eq(f->rdi, job.r.rdi + fit * size, "RDI of %s", names[op]);
}

/* An element that straddles the end must not be written in part. */
static void test_straddle(void)
{
    uint8_t *last = (uint8_t *)WINDOW + 2 * PAGE - 4;
    memset(last, 0x11, 4);
    job.op = STOSQ;
    job.r = (struct regs){ .rcx = 3, .rdi = (uint64_t)last - 8, .rax = ~0ull };
    check_eq(catch_trap(do_job, NULL), 14, "STOSQ across the end faults");
    check_eq(this_cpu()->caught.rcx, 2, "one was stored");
    if (!cmdline_number("softkvm", 0)) /* whose emulator writes what it can */
        check_eq(last[0] | last[3], 0x11, "nothing of the next");
    check_eq(((volatile uint8_t *)last)[-1], 0xff, "the first is there");
}

static uint64_t mapped_by_handler;
static void map_on_fault(struct frame *f)
{
    uint64_t at = read_cr2() & ~(PAGE - 1);
    map_page(0, at, (uint64_t)alloc_pages(1), PTE_P | PTE_W, 1);
    mapped_by_handler++;
}

/* The handler maps what is missing and returns: the instruction goes on as if nothing had been. */
static void test_restart(void)
{
    uint64_t to = WINDOW + 0x100000 + 123, n = 10 * PAGE;
    uint8_t *from = alloc_pages(11);
    for (uint64_t i = 0; i < n; i++)
        from[i] = (uint8_t)(i * 7);
    trap_set(14, map_on_fault);
    memcpy((void *)to, from, n);
    trap_set(14, NULL);
    check_eq(mapped_by_handler, 11, "pages mapped under way");
    check_eq(memcmp((void *)to, from, n), 0, "the copy");
}

static void test_backwards(void)
{
    uint8_t *p = alloc_pages(2);
    for (unsigned i = 0; i < 256; i++)
        p[i] = (uint8_t)i;
    uint64_t rcx = 200, rsi = (uint64_t)p + 199, rdi = (uint64_t)p + 209;
    __asm__ volatile("std; rep movsb; cld" : "+c"(rcx), "+S"(rsi), "+D"(rdi)::"memory");
    check_eq(rsi, (uint64_t)p - 1, "RSI after a copy backwards");
    bool ok = true;
    for (unsigned i = 0; i < 200; i++)
        ok &= p[10 + i] == (uint8_t)i;
    check(ok, "overlapping copy backwards");
    for (unsigned i = 0; i < 256; i++)
        p[i] = (uint8_t)i;
    memcpy(p + 1, p, 200); /* forwards by one: the first byte spreads */
    ok = true;
    for (unsigned i = 0; i <= 200; i++)
        ok &= p[i] == 0;
    check(ok, "overlapping copy forwards by one");
}

static void test_compare(void)
{
    uint8_t *a = alloc_pages(1), *b = alloc_pages(1);
    a[100] = 1;
    uint64_t rcx = 1000, rsi = (uint64_t)a, rdi = (uint64_t)b;
    bool equal;
    __asm__ volatile("repe cmpsb; setz %3"
                     : "+c"(rcx), "+S"(rsi), "+D"(rdi), "=q"(equal)::"memory", "cc");
    check_eq(rcx, 1000 - 101, "RCX of REPE CMPSB");
    check(!equal, "ZF of REPE CMPSB");
    rcx = 1000, rdi = (uint64_t)a;
    __asm__ volatile("repne scasb; setz %2"
                     : "+c"(rcx), "+D"(rdi), "=q"(equal)
                     : "a"(1)
                     : "memory", "cc");
    check_eq(rdi, (uint64_t)a + 101, "RDI of REPNE SCASB");
    check(equal, "ZF of REPNE SCASB");
    rcx = 0, rsi = 1, rdi = 1; /* nothing is touched */
    __asm__ volatile("repe cmpsb" : "+c"(rcx), "+S"(rsi), "+D"(rdi)::"memory", "cc");
    check_eq(rsi, 1, "REP with RCX 0");
}

/* 32-bit addresses wrap and clear the upper halves of what they write. */
static void test_address_size(void)
{
    uint8_t *p = alloc_pages(1);
    uint64_t rcx = 0xffffffff00000003, rdi = 0xffffffff00000000 | (uint64_t)p;
    __asm__ volatile("addr32 rep stosb" : "+c"(rcx), "+D"(rdi) : "a"(0x5a) : "memory");
    check_eq(rcx, 0, "RCX under 32-bit addresses");
    check_eq(rdi, (uint64_t)p + 3, "RDI under 32-bit addresses");
    check_eq(p[2], 0x5a, "the bytes");
}

static volatile uint64_t ticks;
static void tick(struct frame *f)
{
    ticks++;
    apic_eoi();
}

/* Interrupts are taken within one long string instruction. */
static void test_interrupted(void)
{
    apic_enable();
    trap_set(0x40, tick);
    apic_write(APIC_TIMER_DIV, 0xb);
    apic_write(APIC_LVT_TIMER, 0x20040);
    apic_write(APIC_TIMER_INIT, 200000);
    uint64_t pages = cmdline_number("softkvm", 0) ? 16 : 1024;
    uint8_t *p = alloc_pages(pages);
    sti();
    for (int i = 0; i < 8; i++)
        memset(p, i, pages * PAGE);
    uint64_t begin = rdtsc();
    while (!ticks && rdtsc() - begin < tsc_khz() * 1000)
        pause();
    cli();
    apic_write(APIC_LVT_TIMER, 0x10000);
    check(ticks > 0, "the timer ticked meanwhile");
    bool ok = true;
    for (uint64_t i = 0; i < pages * PAGE; i += 8)
        ok &= *(uint64_t *)(p + i) == 0x0707070707070707;
    check(ok, "memory filled under interrupts");
}

void test_main(void)
{
    map_page(0, WINDOW, (uint64_t)alloc_pages(1), PTE_P | PTE_W, 1);
    map_page(0, WINDOW + PAGE, (uint64_t)alloc_pages(1), PTE_P | PTE_W, 1);
    for (enum op op = 0; op < N_OPS; op++) {
        if (reads_source(op))
            test_fault_at_end(op, true);
        if (uses_dest(op) && op != CMPSB)
            test_fault_at_end(op, false);
    }
    test_straddle();
    test_restart();
    test_backwards();
    test_compare();
    test_address_size();
    test_interrupted();
}
