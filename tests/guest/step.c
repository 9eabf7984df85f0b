/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Single step over everything, and breakpoints in code that is hot already: where each trap stands,
 * and how many there are.
 *
 * Spec      Intel SDM volume 3, chapter 18.
 */
#include "lib/guest.h"

#define MAX_HITS 64

static uint64_t hits[MAX_HITS], dr6s[MAX_HITS];
static volatile uint64_t count;

static void on_debug(struct frame *f)
{
    if (count < MAX_HITS) {
        hits[count] = f->rip;
        dr6s[count] = read_dr6();
    }
    count++;
    write_dr6(0xffff0ff0);
    f->flags |= FLAG_RF;
}

static void forget(void)
{
    count = 0;
    write_dr6(0xffff0ff0);
}

/* --- single step: text between the POPF that sets TF and the PUSHF of the one that clears it; the
 * offsets of the traps from label 1, ended by -1. Three more follow for PUSHF, AND and POPF. --- */

#define STEP_ON "pushf; orl $0x100, (%%rsp); popf\n1: "
#define STEP_OFF "\npushf; andl $~0x100, (%%rsp); popf\n"
#define STEPPED(name, text)                                                                        \
    static uint64_t name(void)                                                                     \
    {                                                                                              \
        uint64_t start;                                                                            \
        __asm__ volatile(STEP_ON text STEP_OFF "lea 1b(%%rip), %0"                                 \
                         : "=&r"(start), "+m"(area)                                                \
                         :                                                                         \
                         : "rax", "rcx", "rdx", "rsi", "rdi", "r11", "memory", "cc");              \
        return start;                                                                              \
    }
static uint8_t area[256] __attribute__((aligned(64)));

STEPPED(nops, "nop; nop")
STEPPED(loop, "mov $3, %%ecx; 2: dec %%ecx; jnz 2b")
STEPPED(rep_stos, "lea %1, %%rdi; mov $3, %%ecx; rep stosb")
STEPPED(rep_movs, "lea %1, %%rdi; lea %1, %%rsi; mov $2, %%ecx; rep movsl")
STEPPED(rep_none, "xor %%ecx, %%ecx; rep stosb; nop")
STEPPED(repe_cmps, "lea %1, %%rdi; lea %1, %%rsi; mov $3, %%ecx; repe cmpsb")
STEPPED(call_ret, "call 2f; jmp 3f; 2: ret; 3: nop")
STEPPED(indirect, "lea 2f(%%rip), %%rax; jmp *%%rax; ud2; 2: nop")
STEPPED(pushf_popf, "pushf; popf; nop")
STEPPED(stack, "push %%rax; push $5; pop %%rax; pop %%rax")
STEPPED(mov_ss, "mov %%ss, %%eax; mov %%eax, %%ss; nop; nop")
STEPPED(sti_cli, "cli; nop; cli")
STEPPED(locked, "lock incl %1; xchg %%eax, %1")
STEPPED(vectors, "movups %1, %%xmm0; pxor %%xmm0, %%xmm0; movups %%xmm0, %1")
STEPPED(x87, "fld1; fstps %1; fwait")
STEPPED(slow, "xor %%eax, %%eax; rdtsc; mov %%cr0, %%rax; pause")
STEPPED(software_int, "int $0x84; nop")
STEPPED(faults, "ud2; nop")
STEPPED(branches, "stc; jc 2f; ud2; 2: jnc 3f; nop; 3: nop")
STEPPED(far_return, "mov %%cs, %%eax; push %%rax; lea 2f(%%rip), %%rax; push %%rax; lretq; ud2; 2: nop")

static const struct {
    const char *name;
    uint64_t (*fn)(void);
    int at[16];
} stepped[] = {
    { "NOPs", nops, { 1, 2, -1 } },
    { "a loop", loop, { 5, 7, 5, 7, 5, 7, 9, -1 } },
    { "REP STOSB", rep_stos, { 7, 12, 12, 12, 14, -1 } },
    { "REP MOVSL", rep_movs, { 7, 14, 19, 19, 21, -1 } },
    { "REP STOSB of nothing", rep_none, { 2, 4, 5, -1 } },
    { "REPE CMPSB", repe_cmps, { 7, 14, 19, 19, 19, 21, -1 } },
    { "CALL and RET", call_ret, { 7, 5, 8, 9, -1 } },
    { "an indirect jump", indirect, { 7, 11, 12, -1 } },
    { "PUSHF and POPF", pushf_popf, { 1, 2, 3, -1 } },
    { "the stack", stack, { 1, 3, 4, 5, -1 } },
    { "MOV SS", mov_ss, { 2, 5, 6, -1 } },
    { "CLI", sti_cli, { 1, 2, 3, -1 } },
    { "INT", software_int, { 3, -1 } },
    { "#UD", faults, { 3, -1 } },
    { "branches", branches, { 1, 5, 7, 8, 9, -1 } },
};
static uint64_t (*const counted[])(void) = { locked, vectors, x87, slow, far_return };
static const unsigned counts[] = { 2, 3, 3, 4, 6 };

/* INT and faults: delivery drops the trap, and the handler's IRET lets one instruction pass. */
static void test_stepped(void)
{
    for (size_t i = 0; i < ARRAY_COUNT(stepped); i++) {
        for (unsigned turn = 0; turn < 4; turn++) {
            forget();
            uint64_t start = stepped[i].fn();
            unsigned n = 0;
            for (; stepped[i].at[n] >= 0; n++)
                check_eq(hits[n] - start, stepped[i].at[n], "trap %u of %s", n, stepped[i].name);
            check_eq(count, n + 3, "traps of %s", stepped[i].name);
            for (unsigned j = 0; j < n; j++)
                check_eq(dr6s[j] & 0xe00f, 0x4000, "DR6 of trap %u of %s", j, stepped[i].name);
        }
    }
    for (size_t i = 0; i < ARRAY_COUNT(counted); i++) {
        for (unsigned turn = 0; turn < 4; turn++) {
            forget();
            counted[i]();
            check_eq(count, counts[i] + 3, "traps of row %lu", i);
        }
    }
}

/* --- through SYSCALL and SYSRET --- */

static uint64_t entry_flags;
__attribute__((naked)) static void syscall_entry(void)
{
    __asm__("pushf; popq %0; nop; nop; sysretq" : "+m"(entry_flags));
}
__attribute__((naked)) static void user_syscall(void *arg)
{
    __asm__("pushf; orl $0x100, (%rsp); popf; 1: nop; syscall; 2: nop; pushf; andl $~0x100, (%rsp); popf; ret");
}

/* SFMASK takes TF away in the kernel; SYSRET brings it back with R11, and traps behind itself. */
static void test_syscall(void)
{
    user_pages(true);
    wrmsr(MSR_STAR, (uint64_t)(SEL_USER32) << 48 | (uint64_t)SEL_CODE << 32);
    wrmsr(MSR_LSTAR, (uint64_t)syscall_entry);
    wrmsr(MSR_SFMASK, FLAG_TF | FLAG_IF);
    for (unsigned turn = 0; turn < 20; turn++) {
        forget();
        check_eq(catch_user(user_syscall, NULL), USER_DONE, "a user program steps through SYSCALL");
        check_eq(entry_flags & FLAG_TF, 0, "TF behind SYSCALL");
        uint64_t nop = (uint64_t)user_syscall + 9;
        check_eq(hits[0], nop + 1, "the trap of the NOP before SYSCALL");
        check_eq(hits[1] == nop + 3 || hits[1] == nop + 4, 1, "then one behind SYSRET, at +%lu", hits[1] - nop);
        check_eq(count == 6 || count == 5, 1, "traps, of which none in the kernel: %lu", count);
    }
    user_pages(false);
}

/* --- breakpoints set into code that is hot, chained, and in loops --- */

__attribute__((noinline, noclone)) static uint64_t hot(uint64_t n)
{
    uint64_t sum;
    __asm__ volatile("xor %k0, %k0; .globl step_loop, step_add, step_call, step_leaf\n"
                     "step_loop: add %1, %0\n"
                     "step_add: lea 1(%0), %0\n"
                     "step_call: call step_leaf\n"
                     "dec %1; jnz step_loop; jmp 9f\n"
                     "step_leaf: xor $0, %1; ret\n"
                     "9:"
                     : "=&r"(sum), "+r"(n)::"memory", "cc");
    return sum;
}

static void test_hot_breakpoints(void)
{
    extern uint8_t step_loop[], step_add[], step_call[], step_leaf[];
    static uint8_t *const places[] = { step_loop, step_add, step_call, step_leaf };
    for (unsigned turn = 0; turn < 24; turn++) {
        uint8_t *place = places[turn % 4];
        for (unsigned i = 0; i < 20; i++)
            check_eq(hot(100), 5150, "the sum, hot");
        forget();
        write_dr0((uint64_t)place);
        write_dr7(0x402);
        check_eq(hot(10), 65, "the sum with a breakpoint");
        check_eq(count, 10, "hits of a breakpoint in a hot loop, place %u", turn % 4);
        check_eq(hits[9], (uint64_t)place, "where it hits");
        write_dr7(0x400);
        check_eq(hot(100), 5150, "the sum once it is off");
        check_eq(count, 10, "and no more hits");
    }
}

static uint64_t watched[64] __attribute__((aligned(64)));

__attribute__((noinline, noclone)) static void fill(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        ((volatile uint64_t *)watched)[i] = i;
}

__attribute__((noinline, noclone)) static uint64_t total(uint64_t n)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < n; i++)
        sum += ((volatile uint64_t *)watched)[i];
    return sum;
}

/* Stores and loads that hit the TLB already must still be watched. */
static void test_hot_watchpoints(void)
{
    for (unsigned turn = 0; turn < 12; turn++) {
        unsigned which = (turn * 7 + 3) % 64;
        for (unsigned i = 0; i < 20; i++)
            fill(64), (void)total(64);
        forget();
        write_dr1((uint64_t)&watched[which]);
        write_dr7(0x400 | 1u << 3 | 1u << 20 | 2u << 22); /* write, 8 bytes */
        fill(64);
        check_eq(count, 1, "a watched store in a hot loop");
        check_eq(total(64), 63 * 64 / 2, "loads beside it");
        check_eq(count, 1, "loads do not hit a watch for stores");
        write_dr7(0x400 | 1u << 3 | 3u << 20 | 2u << 22); /* read or write */
        check_eq(total(64), 63 * 64 / 2, "watched loads");
        check_eq(count, 2, "a watched load in a hot loop");
        write_dr7(0x400);
        fill(64);
        check_eq(count, 2, "nothing once it is off");
    }
}

static void go_on(struct frame *f)
{
    if (f->vector == 6)
        f->rip += 2;
}

void test_main(void)
{
    __asm__ volatile("fninit");
    trap_set(1, on_debug);
    trap_set(6, go_on);
    trap_set(0x84, go_on);
    test_stepped();
    test_syscall();
    test_hot_breakpoints();
    test_hot_watchpoints();
}
