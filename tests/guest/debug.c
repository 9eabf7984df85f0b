/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Single step, breakpoints on code, data and ports, DR6, RF, and what shadows them.
 *
 * Spec      Intel SDM volume 3, chapter 18.
 */
#include "lib/guest.h"

#define MAX_HITS 32

static struct {
    uint64_t rip, dr6;
} hits[MAX_HITS];
static volatile uint64_t count;
static bool set_rf; /* the handler lets a code breakpoint pass */

static void on_debug(struct frame *f)
{
    if (count < MAX_HITS) {
        hits[count].rip = f->rip;
        hits[count].dr6 = read_dr6();
    }
    count++;
    write_dr6(0xffff0ff0);
    if (set_rf)
        f->flags |= FLAG_RF;
    if (count >= MAX_HITS)
        f->flags &= ~FLAG_TF;
}

static void ignore(struct frame *f)
{
}

static void forget(void)
{
    count = 0;
    write_dr6(0xffff0ff0);
    set_rf = false;
}

/* Three NOPs under TF: a trap after each, and after POPF that clears it none. */
static void test_single_step(void)
{
    uint64_t start;
    forget();
    __asm__ volatile("pushf; orl $0x100, (%%rsp); popf\n"
                     "1: nop; nop; nop\n"
                     "pushf; andl $~0x100, (%%rsp); popf\n"
                     "lea 1b(%%rip), %0"
                     : "=r"(start)::"memory", "cc");
    check_eq(count, 6, "traps of three NOPs, PUSHF, AND and POPF");
    check_eq(hits[0].rip, start + 1, "the RIP after the first NOP");
    check_eq(hits[2].rip, start + 3, "the RIP after the third NOP");
    check_eq(hits[0].dr6 & 0x4000, 0x4000, "DR6.BS");
    check_eq(hits[0].dr6 & 0xf, 0, "no breakpoint in DR6");
}

/* MOV SS holds the trap back by one instruction. */
static void test_step_mov_ss(void)
{
    uint64_t start;
    forget();
    __asm__ volatile("mov %%ss, %%ecx; pushf; orl $0x100, (%%rsp); popf\n"
                     "1: mov %%ecx, %%ss; nop; nop\n"
                     "pushf; andl $~0x100, (%%rsp); popf\n"
                     "lea 1b(%%rip), %0"
                     : "=r"(start)::"rcx", "memory", "cc");
    check_eq(hits[0].rip, start + 3, "the first trap comes after the instruction behind MOV SS");
}

/* A REP instruction traps after each turn. */
static void test_step_rep(void)
{
    static uint8_t buf[16];
    uint64_t start, rcx = 4, rdi = (uint64_t)buf;
    forget();
    __asm__ volatile("pushf; orl $0x100, (%%rsp); popf\n"
                     "1: rep stosb\n"
                     "pushf; andl $~0x100, (%%rsp); popf\n"
                     "lea 1b(%%rip), %0"
                     : "=&r"(start), "+c"(rcx), "+D"(rdi)
                     : "a"(0x5a)
                     : "memory", "cc");
    check_eq(count, 4 + 3, "traps of REP STOSB with RCX 4");
    check_eq(hits[0].rip, start, "RIP stays on it");
    check_eq(hits[3].rip, start + 2, "until the last turn");
    check_eq(buf[3], 0x5a, "and it stored");
}

static void test_step_int(void)
{
    forget();
    __asm__ volatile("pushf; orl $0x100, (%%rsp); popf\n"
                     "int $0x84\n"
                     "nop\n"
                     "pushf; andl $~0x100, (%%rsp); popf" ::
                         : "memory", "cc");
    check(count >= 4 && count <= 5, "INT under TF: %lu traps, none inside the handler", count);
}

static void test_code_breakpoint(void)
{
    uint64_t at;
    __asm__ volatile("lea 1f(%%rip), %0; jmp 2f; 1: nop; ret; 2:" : "=r"(at));
    forget();
    set_rf = true;
    write_dr0(at);
    write_dr7(0x402);
    ((void (*)(void))at)();
    check_eq(count, 1, "hits of a code breakpoint");
    check_eq(hits[0].rip, at, "it stops before the instruction");
    check_eq(hits[0].dr6 & 0xf, 1, "DR6.B0");
    ((void (*)(void))at)();
    check_eq(count, 2, "and again the next time");
    write_dr7(0x400);
    ((void (*)(void))at)();
    check_eq(count, 2, "not while it is off");
}

static uint64_t watched[4] __attribute__((aligned(64)));

static void test_data_breakpoints(void)
{
    volatile uint64_t *w = watched;
    forget();
    write_dr1((uint64_t)&watched[1]);
    write_dr7(0x400 | 1u << 3 | 1u << 20 | 2u << 22); /* slot 1: write, 8 bytes */
    w[0] = 1;
    check_eq(count, 0, "a write beside it");
    (void)w[1];
    check_eq(count, 0, "a read of a write watchpoint");
    w[1] = 2;
    check_eq(count, 1, "a write");
    check_eq(hits[0].dr6 & 0xf, 2, "DR6.B1");
    *((volatile uint8_t *)&watched[1] + 7) = 3;
    check_eq(count, 2, "a write of its last byte");
    *(volatile uint32_t *)((uint8_t *)&watched[0] + 6) = 4;
    check_eq(count, 3, "a write that overlaps its first bytes");
    write_dr7(0x400 | 1u << 3 | 3u << 20 | 2u << 22); /* read or write */
    (void)w[1];
    check_eq(count, 4, "a read of a read-write watchpoint");
    check_eq(w[1] & 0xff, 4 >> 16 & 0xff, "the value is intact");
    write_dr7(0x400);
    w[1] = 5;
    check(count <= 5, "nothing more once it is off");
}

static void test_data_breakpoint_string(void)
{
    static uint8_t buf[64] __attribute__((aligned(64)));
    forget();
    write_dr2((uint64_t)buf + 20);
    write_dr7(0x400 | 1u << 5 | 1u << 24); /* slot 2: write, 1 byte */
    memset(buf, 1, 64);
    check_eq(count, 1, "a string store over a watched byte");
    check_eq(hits[0].dr6 & 0xf, 4, "DR6.B2");
    write_dr7(0x400);
    check_eq(buf[63], 1, "the store went on to its end");
}

static void test_io_breakpoint(void)
{
    forget();
    write_cr4(read_cr4() | CR4_DE);
    write_dr3(0x84);
    write_dr7(0x400 | 1u << 7 | 2u << 28); /* slot 3: port */
    out8(0x85, 0);
    check_eq(count, 0, "a write of another port");
    out8(0x84, 0);
    check_eq(count, 1, "a write of the watched port");
    check_eq(hits[0].dr6 & 0xf, 8, "DR6.B3");
    (void)in8(0x84);
    check_eq(count, 2, "a read of it");
    write_dr7(0x400);
    write_cr4(read_cr4() & ~CR4_DE);
}

static void touch_dr4(void *arg)
{
    __asm__ volatile("mov %%dr4, %%rax" ::: "rax");
}

static void touch_dr0(void *arg)
{
    (void)read_dr0();
}

static void test_registers(void)
{
    write_dr0(0x1234567890);
    check_eq(read_dr0(), 0x1234567890, "DR0 holds what was written");
    write_dr7(0);
    check_eq(read_dr7() & 0x400, 0x400, "DR7 bit 10 reads as 1");
    write_dr7(0x400);
    write_cr4(read_cr4() | CR4_DE);
    check_eq(catch_trap(touch_dr4, NULL), 6, "DR4 under CR4.DE");
    write_cr4(read_cr4() & ~CR4_DE);
    check_eq(catch_trap(touch_dr4, NULL), -1, "DR4 is DR6 without");
    trap_set(1, NULL);
    write_dr7(0x2400); /* GD */
    int v = catch_trap(touch_dr0, NULL);
    check_eq(v, 1, "an access under DR7.GD");
    check_eq(read_dr6() & 0x2000, 0x2000, "DR6.BD");
    check_eq(read_dr7() & 0x2000, 0, "delivery clears GD");
    write_dr6(0xffff0ff0);
}

void test_main(void)
{
    trap_set(1, on_debug);
    trap_set(0x84, ignore);
    test_single_step();
    test_step_mov_ss();
    test_step_rep();
    test_step_int();
    test_code_breakpoint();
    test_data_breakpoints();
    test_data_breakpoint_string();
    test_io_breakpoint();
    test_registers();
}
