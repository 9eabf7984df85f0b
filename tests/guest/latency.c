/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How soon an interrupt comes: in loops that never leave a block, and exactly where STI, MOV SS,
 * POPF, IRET, CR8 and EOI say.
 *
 * Spec      Intel SDM volume 2, STI; volume 3, 6.8.3 (MOV SS), 11.8.3 (priorities).
 */
#include "lib/guest.h"

#define V_TIMER 0x61
#define V_SELF 0x52
#define MAX_MS 200 /* the host may be busy */

static uint64_t armed_at, worst_ticks, leave_to, leave_rsp;
static volatile uint64_t came;
static struct frame seen;

/* Takes the interrupted program to its exit. */
static void on_timer(struct frame *f)
{
    uint64_t late = rdtsc() - armed_at;
    if (late > worst_ticks)
        worst_ticks = late;
    came++;
    seen = *f;
    f->rip = leave_to;
    apic_eoi();
}

/* Endless; RDI is where they may write, 64 KiB. Each leaves all but RSP and what is listed alone. */
#define ENDLESS(name, text)                                                                        \
    static void name(void *arg)                                                                    \
    {                                                                                              \
        __asm__ volatile("lea 99f(%%rip), %%rax; mov %%rax, %0; push %%rbp; push %%rbx; mov %%rsp, %1; sti; xor %%eax, %%eax\n" text   \
                         "\n99: cli; mov %1, %%rsp; cld; pop %%rbx; pop %%rbp"                          \
                         : "+m"(leave_to), "+m"(leave_rsp)                                         \
                         : "D"(arg)                                                                \
                         : "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "r12", "r13",     \
                           "r14", "r15", "memory", "cc");                                          \
    }
ENDLESS(to_itself, "1: jmp 1b")
ENDLESS(nop_loop, "1: nop; jmp 1b")
ENDLESS(condition, "1: test %%eax, %%eax; jz 1b")
ENDLESS(condition_alone, "test %%eax, %%eax; 1: jz 1b")
ENDLESS(count_down, "1: dec %%rcx; jmp 1b")
ENDLESS(loop_alone, "1: mov $1000, %%ecx; 2: loop 2b; jmp 1b")
ENDLESS(jrcxz_loop, "xor %%ecx, %%ecx; 1: jrcxz 1b")
ENDLESS(indirect, "lea 1f(%%rip), %%rdx; 1: jmp *%%rdx")
ENDLESS(indirect_two, "lea 1f(%%rip), %%rdx; lea 2f(%%rip), %%rsi; 1: jmp *%%rsi; 2: jmp *%%rdx")
ENDLESS(memory_jump, "lea 1f(%%rip), %%rdx; mov %%rdx, (%%rdi); 1: jmp *(%%rdi)")
ENDLESS(return_loop, "lea 1f(%%rip), %%rdx; 1: push %%rdx; ret")
ENDLESS(call_loop, "1: call 2f; jmp 1b; 2: ret")
ENDLESS(call_dropped, "1: call 2f; 2: add $8, %%rsp; jmp 1b")
ENDLESS(call_pointer, "lea 2f(%%rip), %%rdx; 1: call *%%rdx; jmp 1b; 2: ret")
ENDLESS(forward_only, "1: jmp 2f; .skip 5000, 0xcc; 2: jmp 3f; .skip 5000, 0xcc; 3: jmp 1b")
ENDLESS(both_ways, "1: xor $1, %%eax; jz 1b; jmp 1b")
ENDLESS(stores, "1: mov %%rax, (%%rdi); incl 8(%%rdi); jmp 1b")
ENDLESS(locked, "1: lock incl (%%rdi); jmp 1b")
ENDLESS(spin, "1: pause; cmpl $1, (%%rdi); jne 1b")
ENDLESS(rep_store, "mov %%rdi, %%rdx; 1: mov %%rdx, %%rdi; mov $65536, %%ecx; rep stosb; jmp 1b")
ENDLESS(rep_move, "mov %%rdi, %%rdx; 1: mov %%rdx, %%rdi; lea 4096(%%rdx), %%rsi; mov $7000, %%ecx; rep movsq; jmp 1b")
ENDLESS(rep_compare, "mov %%rdi, %%rdx; 1: mov %%rdx, %%rdi; mov %%rdx, %%rsi; mov $60000, %%ecx; repe cmpsb; jmp 1b")
ENDLESS(x87_loop, "1: fld1; fptan; fstp %%st(0); fstp %%st(0); jmp 1b")
ENDLESS(sse_loop, "1: sqrtps %%xmm0, %%xmm1; jmp 1b")
ENDLESS(divisions, "1: mov $1, %%eax; xor %%edx, %%edx; mov $3, %%ecx; div %%ecx; jmp 1b")
ENDLESS(system, "1: cpuid; jmp 1b")
ENDLESS(flags_loop, "1: pushf; popf; jmp 1b")
ENDLESS(port_loop, "1: out %%al, $0x84; jmp 1b")
ENDLESS(patching, "1: incl 2f+1(%%rip); 2: mov $1, %%eax; jmp 1b")
ENDLESS(sti_loop, "1: sti; jmp 1b")
ENDLESS(cli_sti_loop, "1: cli; nop; sti; nop; jmp 1b")
ENDLESS(mov_ss_loop, "mov %%ss, %%ecx; 1: mov %%ecx, %%ss; nop; jmp 1b")
ENDLESS(int_loop, "1: int $0x91; jmp 1b")
ENDLESS(fault_loop, "1: ud2; jmp 1b")
ENDLESS(halt_loop, "1: hlt; jmp 1b")

static const struct {
    const char *name;
    void (*fn)(void *);
} loops[] = {
#define ROW(fn) { #fn, fn }
    ROW(to_itself),   ROW(nop_loop),    ROW(condition),    ROW(condition_alone), ROW(count_down),
    ROW(loop_alone),  ROW(jrcxz_loop),  ROW(indirect),     ROW(indirect_two),    ROW(memory_jump),
    ROW(return_loop), ROW(call_loop),   ROW(call_dropped), ROW(call_pointer),    ROW(forward_only),
    ROW(both_ways),   ROW(stores),      ROW(locked),       ROW(spin),            ROW(rep_store),
    ROW(rep_move),    ROW(rep_compare), ROW(x87_loop),     ROW(sse_loop),        ROW(divisions),
    ROW(system),      ROW(flags_loop),  ROW(port_loop),    ROW(patching),        ROW(sti_loop),
    ROW(cli_sti_loop), ROW(mov_ss_loop), ROW(int_loop),    ROW(fault_loop),      ROW(halt_loop),
};

static void go_on(struct frame *f)
{
    if (f->vector == 6)
        f->rip += 2;
}

static void test_loops(void)
{
    uint8_t *area = alloc_pages(32);
    trap_set(0x91, go_on);
    trap_set(6, go_on);
    trap_set(V_TIMER, on_timer);
    apic_write(APIC_LVT_TIMER, 0x40000 | V_TIMER);
    for (size_t i = 0; i < ARRAY_COUNT(loops); i++) {
        uint64_t worst = 0;
        for (unsigned turn = 0; turn < 5; turn++) {
            came = worst_ticks = 0;
            armed_at = rdtsc() + tsc_khz() / 1000 * (100 + turn * 300);
            wrmsr(0x6e0, armed_at);
            loops[i].fn(area);
            if (worst_ticks > worst)
                worst = worst_ticks;
            check_eq(came, 1, "interrupts that ended %s", loops[i].name);
        }
        check(worst < MAX_MS * tsc_khz(), "%s was interrupted after %lu us", loops[i].name,
              worst * 1000 / tsc_khz());
        if (cmdline_number("say", 0))
            print("%s: %lu us\n", loops[i].name, worst * 1000 / tsc_khz());
    }
    trap_set(6, NULL);
}

/* --- where a waiting interrupt must come, to the instruction --- */

static void on_self(struct frame *f)
{
    seen = *f;
    came++;
    apic_eoi();
}

/* The interrupt waits when the text begins; label 1 is where it must be taken. */
#define EXACT(name, text)                                                                          \
    static uint64_t name(void)                                                                     \
    {                                                                                              \
        uint64_t at;                                                                               \
        __asm__ volatile(text "\ncli; lea 1b(%%rip), %0"                                           \
                         : "=&r"(at)                                                               \
                         :                                                                         \
                         : "rax", "rcx", "rdx", "memory", "cc");                                   \
        return at;                                                                                 \
    }
EXACT(after_sti, "sti; nop; 1: nop; nop; nop")
EXACT(after_sti_store, "push %%rax; sti; mov %%rax, (%%rsp); 1: mov %%rcx, (%%rsp); pop %%rax")
EXACT(after_sti_jump, "sti; jmp 1f; nop; 1: nop; nop")
EXACT(after_sti_call, "sti; call 1f; jmp 2f; 1: ret; 2:")
EXACT(sti_cli_sti, "sti; cli; nop; sti; nop; 1: nop")
EXACT(sti_sti, "sti; sti; 1: nop; nop")
EXACT(sti_mov_ss, "mov %%ss, %%ecx; sti; mov %%ecx, %%ss; nop; 1: nop; nop")
EXACT(mov_ss_sti, "mov %%ss, %%ecx; mov %%ecx, %%ss; sti; nop; 1: nop; nop")
EXACT(by_popf, "pushf; orl $0x200, (%%rsp); popf; 1: nop; nop")
EXACT(by_iret, "mov %%rsp, %%rcx; mov %%ss, %%eax; push %%rax; push %%rcx; pushf; orl $0x200, (%%rsp); mov %%cs, %%eax; push %%rax; lea 1f(%%rip), %%rax; push %%rax; iretq; nop; 1: nop; nop")
EXACT(mov_ss_later, "mov %%ss, %%ecx; sti; nop; 1: nop; mov %%ecx, %%ss; nop")
EXACT(sti_hlt, "sti; hlt; 1: nop; nop")
EXACT(by_cr8, "mov $15, %%eax; mov %%rax, %%cr8; sti; nop; nop; xor %%eax, %%eax; mov %%rax, %%cr8; 1: nop; nop")
EXACT(sti_loop_end, "sti; mov $1, %%ecx; 1: dec %%ecx; jnz 1b; nop")

static const struct {
    const char *name;
    uint64_t (*fn)(void);
} exact[] = {
    ROW(after_sti), ROW(after_sti_store), ROW(after_sti_jump), ROW(after_sti_call),
    ROW(sti_cli_sti), ROW(sti_sti), ROW(sti_mov_ss), ROW(mov_ss_sti), ROW(by_popf), ROW(by_iret),
    ROW(mov_ss_later), ROW(sti_hlt), ROW(by_cr8), ROW(sti_loop_end),
};

static void test_exact(void)
{
    trap_set(V_SELF, on_self);
    for (size_t i = 0; i < ARRAY_COUNT(exact); i++) {
        for (unsigned turn = 0; turn < 40; turn++) {
            came = 0;
            apic_icr(0, 0x44000 | V_SELF);
            uint64_t want = exact[i].fn();
            check_eq(came, 1, "interrupts in %s", exact[i].name);
            check_eq(seen.rip, want, "RIP of the interrupt in %s, turn %u", exact[i].name, turn);
            if (exact[i].fn != sti_hlt) /* hot without an interrupt, too; but HLT would sleep */
                exact[i].fn();
        }
    }
}

/* --- the handler's EOI, and a lower one that waits --- */

static volatile uint64_t order;
static void on_high(struct frame *f)
{
    order = order * 16 + 1;
    apic_eoi();
}
static void on_low(struct frame *f)
{
    order = order * 16 + 2;
    apic_eoi();
}

static void test_two_wait(void)
{
    trap_set(0x71, on_high);
    trap_set(0x51, on_low);
    for (unsigned turn = 0; turn < 50; turn++) {
        order = 0;
        apic_icr(0, 0x44000 | 0x51);
        apic_icr(0, 0x44000 | 0x71);
        __asm__ volatile("sti; nop; nop; cli" ::: "memory");
        check_eq(order, 0x12, "two that wait, in their order");
    }
}

void test_main(void)
{
    __asm__ volatile("fninit");
    apic_enable();
    if (cpu_count() > 1)
        smp_start();
    test_loops();
    test_exact();
    test_two_wait();
}
