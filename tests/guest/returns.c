/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What return prediction must not believe: deep and unbalanced calls, switched stacks, changed
 * return addresses, RET with an operand, returns that were never called.
 *
 * Each piece of assembly computes f(n) by a way of its own; all are compared with the sum in C.
 *
 * Spec      Intel SDM volume 1, 6.4 (calls and returns).
 */
#include "lib/probe.h"

typedef uint64_t sum_fn(uint64_t n);

/* f(n) = 1 + 2 + ... + n; RAX, RCX, RDX, RSI, RDI, R8 to R11 are free. */
__asm__(PIECES_BEGIN(sums)
PIECE("xor %eax, %eax; test %rdi, %rdi; jz 2f; 1: add %rdi, %rax; dec %rdi; jnz 1b; 2: ret")
/* recursion, and mutual recursion */
PIECE("1: test %rdi, %rdi; jz 2f; push %rdi; dec %rdi; call 1b; pop %rdi; add %rdi, %rax; ret; 2: xor %eax, %eax; ret")
PIECE("1: xor %eax, %eax; test %rdi, %rdi; jz 3f; push %rdi; dec %rdi; call 2f; pop %rdi; add %rdi, %rax; ret; 2: test %rdi, %rdi; jz 3f; push %rdi; dec %rdi; call 1b; pop %rdi; add %rdi, %rax; ret; 3: xor %eax, %eax; ret")
/* by pointer */
PIECE("1: test %rdi, %rdi; jz 2f; push %rdi; dec %rdi; lea 1b(%rip), %rax; call *%rax; pop %rdi; add %rdi, %rax; ret; 2: xor %eax, %eax; ret")
/* two calls a level, so that each return has two targets */
PIECE("xor %eax, %eax; call 1f; ret; 1: test %rdi, %rdi; jz 3f; add %rdi, %rax; push %rdi; shr $1, %rdi; call 2f; mov (%rsp), %rdi; shr $1, %rdi; call 2f; pop %rdi; dec %rdi; jmp 1b; 2: ret; 3: ret")
/* return addresses dropped: calls without returns, a thousand deep */
PIECE("mov %rsp, %rsi; xor %eax, %eax; test %rdi, %rdi; jz 2f; 1: call 3f; ud2; 3: add %rdi, %rax; dec %rdi; jnz 1b; 2: mov %rsi, %rsp; ret")
/* returns without calls: addresses pushed one by one, then popped by RET */
PIECE("mov %rdi, %rcx; lea 9f(%rip), %rdx; push %rdx; lea 1f(%rip), %rdx; jrcxz 8f; 2: push %rdx; dec %rcx; jnz 2b; 8: xor %eax, %eax; mov $1, %ecx; ret; 1: add %rcx, %rax; inc %rcx; ret; 9: ret")
/* PUSH and RET as a jump */
PIECE("xor %eax, %eax; lea 1f(%rip), %rdx; 2: test %rdi, %rdi; jz 3f; push %rdx; ret; ud2; 1: add %rdi, %rax; dec %rdi; jmp 2b; 3: ret")
/* the return address changed by the callee: skips a UD2 */
PIECE("xor %eax, %eax; 1: test %rdi, %rdi; jz 2f; call 3f; ud2; add %rdi, %rax; dec %rdi; jmp 1b; 2: ret; 3: addq $2, (%rsp); ret")
/* now and then only, so that it is hot before */
PIECE("xor %eax, %eax; 1: test %rdi, %rdi; jz 2f; call 3f; jmp 4f; add %rdi, %rax; jmp 5f; 4: add %rdi, %rax; 5: dec %rdi; jmp 1b; 2: ret; 3: test $15, %dil; jnz 6f; addq $2, (%rsp); 6: ret")
/* RET with an operand */
PIECE("xor %eax, %eax; 1: test %rdi, %rdi; jz 2f; push %rdi; push $0; push %rdi; call 3f; dec %rdi; jmp 1b; 2: ret; 3: add 8(%rsp), %rax; ret $24")
PIECE("mov %rsp, %r8; xor %eax, %eax; 1: test %rdi, %rdi; jz 2f; call 3f; cmp %r8, %rsp; jne 4f; dec %rdi; jmp 1b; 4: xor %eax, %eax; 2: mov %r8, %rsp; ret; 3: add %rdi, %rax; ret $0")
/* CALL to the next instruction, and its POP */
PIECE("xor %eax, %eax; 1: test %rdi, %rdi; jz 2f; call 3f; 3: pop %rdx; add %rdi, %rax; dec %rdi; jmp 1b; 2: ret")
/* the retpoline: a return that goes elsewhere, with a trap behind the call */
PIECE("xor %eax, %eax; lea 4f(%rip), %r11; 1: test %rdi, %rdi; jz 2f; call 3f; 5: pause; lfence; jmp 5b; 3: mov %r11, (%rsp); ret; 4: add %rdi, %rax; dec %rdi; jmp 1b; 2: ret")
/* the same as a call */
PIECE("xor %eax, %eax; lea 4f(%rip), %r11; 1: test %rdi, %rdi; jz 2f; call 6f; dec %rdi; jmp 1b; 2: ret; 6: call 3f; 5: pause; lfence; jmp 5b; 3: mov %r11, (%rsp); ret; 4: add %rdi, %rax; ret")
/* a return thunk: JMP to a RET, and one with an untraining call */
PIECE("xor %eax, %eax; 1: test %rdi, %rdi; jz 2f; call 3f; dec %rdi; jmp 1b; 2: jmp 4f; 3: add %rdi, %rax; jmp 4f; .balign 16; 4: ret; int3")
PIECE("xor %eax, %eax; 1: test %rdi, %rdi; jz 2f; call 3f; dec %rdi; jmp 1b; 2: jmp 4f; 3: add %rdi, %rax; jmp 4f; 5: add $8, %rsp; lfence; ret; int3; 4: call 5b; int3")
/* the return address by XCHG: two routines that go on in turns */
PIECE("xor %eax, %eax; test %rdi, %rdi; jz 9f; lea 5f(%rip), %rdx; push %rdx; 1: test %rdi, %rdi; jz 8f; mov (%rsp), %rdx; lea 2f(%rip), %rcx; mov %rcx, (%rsp); jmp *%rdx; 2: dec %rdi; jmp 1b; 5: add %rdi, %rax; lea 5b(%rip), %rdx; xchg %rdx, (%rsp); jmp *%rdx; 8: pop %rdx; 9: ret")
/* JMP through the popped address in place of RET */
PIECE("xor %eax, %eax; 1: test %rdi, %rdi; jz 2f; call 3f; dec %rdi; jmp 1b; 2: ret; 3: add %rdi, %rax; pop %rdx; jmp *%rdx")
/* operand sizes: a 16-bit push shifts the stack for a while */
PIECE("xor %eax, %eax; 1: test %rdi, %rdi; jz 2f; pushw $1; call 3f; add $2, %rsp; dec %rdi; jmp 1b; 2: ret; 3: add %rdi, %rax; ret")
/* far returns and IRETQ as returns */
PIECE("xor %eax, %eax; 1: test %rdi, %rdi; jz 2f; mov %cs, %edx; push %rdx; call 3f; dec %rdi; jmp 1b; 2: ret; 3: add %rdi, %rax; lretq")
PIECE("xor %eax, %eax; 1: test %rdi, %rdi; jz 2f; mov %rsp, %rcx; mov %ss, %edx; push %rdx; push %rcx; pushf; mov %cs, %edx; push %rdx; call 3f; dec %rdi; jmp 1b; 2: ret; 3: add %rdi, %rax; iretq")
PIECES_END(sums));

static void test_sum(const struct piece *code, uint64_t off, unsigned turns)
{
    memset(probe_code, 0xcc, 2 * PAGE);
    memcpy(probe_code + off, code->code, code->len);
    for (unsigned turn = 0; turn < turns; turn++) {
        uint64_t n = turn % 8 == 7 ? 300 : turn % 16, got = ((sum_fn *)(CODE_AT + off))(n);
        if (got != n * (n + 1) / 2) {
            check(false, "f(%lu) is %lu in turn %u at %lu: %s", n, got, turn, off, code->text);
            return;
        }
    }
    check(true, "%s", code->text);
}

static void test_sums(unsigned turns)
{
    extern const struct piece sums[], sums_end[];
    for (const struct piece *code = sums; code < sums_end; code++) {
        test_sum(code, 0, 4 * turns);
        for (uint64_t cut = 1; cut < code->len; cut += 1 + code->len / 24)
            test_sum(code, PAGE - cut, turns);
    }
}

/* --- coroutines: stacks switched in the middle of nested calls --- */

#define N_ROUTINES 5
static struct routine {
    uint64_t rsp;
    uint64_t stack[512];
    uint64_t steps, sum;
} routines[N_ROUTINES] __attribute__((aligned(16)));
static struct routine *current;
static uint64_t main_rsp;

void coroutine_switch(uint64_t *save_rsp, uint64_t rsp);
__asm__(".text\ncoroutine_switch:\n"
        "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "mov %rsp, (%rdi); mov %rsi, %rsp\n"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret");

static void yield(void)
{
    coroutine_switch(&current->rsp, main_rsp);
}

/* Yields at several depths, so that returns happen between other routines' calls. */
__attribute__((noinline)) static uint64_t climb(uint64_t depth)
{
    if (!depth) {
        yield();
        return 1;
    }
    uint64_t below = climb(depth - 1);
    if (depth % 3 == 0)
        yield();
    return below + 1;
}

static void routine_main(void)
{
    for (;;) {
        struct routine *self = current;
        self->sum += climb(self->steps++ % 12 + (uint64_t)(self - routines));
        yield();
    }
}

static void test_coroutines(void)
{
    for (unsigned i = 0; i < N_ROUTINES; i++) {
        uint64_t *top = routines[i].stack + ARRAY_COUNT(routines[i].stack) - 2;
        *top = (uint64_t)routine_main;
        routines[i].rsp = (uint64_t)(top - 6);
    }
    for (unsigned turn = 0; turn < 6000; turn++) {
        current = &routines[(turn * 7 + turn / 11) % N_ROUTINES];
        coroutine_switch(&main_rsp, current->rsp);
    }
    for (unsigned i = 0; i < N_ROUTINES; i++) {
        uint64_t sum = 0, steps = 0;
        for (; steps + 1 < routines[i].steps; steps++)
            sum += steps % 12 + i + 1;
        check(routines[i].sum == sum || routines[i].sum == sum + steps % 12 + i + 1,
              "coroutine %u: %lu after %lu steps, not %lu", i, routines[i].sum, routines[i].steps,
              sum);
    }
}

/* --- setjmp and longjmp out of deep calls --- */

__attribute__((returns_twice)) int set_jump(uint64_t buf[8]);
void long_jump(uint64_t buf[8]);
__asm__(".text\nset_jump: mov (%rsp), %rax; mov %rax, (%rdi); lea 8(%rsp), %rax; mov %rax, 8(%rdi)\n"
        "mov %rbp, 16(%rdi); mov %rbx, 24(%rdi); mov %r12, 32(%rdi); mov %r13, 40(%rdi)\n"
        "mov %r14, 48(%rdi); mov %r15, 56(%rdi); xor %eax, %eax; ret\n"
        "long_jump: mov 8(%rdi), %rsp; mov 16(%rdi), %rbp; mov 24(%rdi), %rbx; mov 32(%rdi), %r12\n"
        "mov 40(%rdi), %r13; mov 48(%rdi), %r14; mov 56(%rdi), %r15; mov $1, %eax; jmp *(%rdi)");
static uint64_t jump_buf[8];
static volatile uint64_t depth_reached;

__attribute__((noinline)) static uint64_t dive(uint64_t depth)
{
    depth_reached = depth;
    if (depth)
        return dive(depth - 1) + depth;
    long_jump(jump_buf);
    return 0;
}

__attribute__((noinline)) static uint64_t one_jump(uint64_t depth)
{
    if (set_jump(jump_buf))
        return depth_reached + depth * 3;
    return dive(depth);
}

static void test_long_jumps(void)
{
    for (uint64_t turn = 0; turn < 300; turn++)
        check_eq(one_jump(turn % 40), turn % 40 * 3, "a long jump from depth %lu", turn % 40);
}

/* --- an exception's handler returns to another place than it came from --- */

static uint64_t redirect_to;
static void redirect(struct frame *f)
{
    f->rip = redirect_to;
}

static void test_redirected(void)
{
    trap_set(0x90, redirect);
    for (unsigned turn = 0; turn < 200; turn++) {
        uint64_t got;
        __asm__ volatile("lea 3f(%%rip), %%rax; mov %%rax, %1; xor %%eax, %%eax\n"
                         "call 1f; add $1, %%eax; jmp 4f\n"
                         "1: call 2f; add $2, %%eax; ret\n"
                         "2: int $0x90; ud2\n"
                         "3: add $4, %%eax; ret\n"
                         "4:"
                         : "=&a"(got), "=m"(redirect_to)::"memory", "cc");
        check_eq(got, 7, "returns around a redirected exception");
    }
    trap_set(0x90, NULL);
}

void test_main(void)
{
    probe_init();
    for (unsigned v = 0; v < 256; v++)
        idt[v].ist = v == 8;
    test_sums((unsigned)cmdline_number("turns", 24));
    test_coroutines();
    test_long_jumps();
    test_redirected();
}
