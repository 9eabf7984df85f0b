/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Control flow and the stack: the same programs by both engines, which must leave the same registers and memory.
 *
 * Programs run at BED_CODE, identity-mapped, and end at HLT: their own, or that of a fault's handler.
 */
#include "cpu/exec/testbed.h"

#include <pthread.h>

/* AT&T syntax, copied to BED_CODE; 77b is the program's start, AT(label) is a label's address there. */
#define PROGRAM(name, text)                                                                        \
    extern const uint8_t name[], name##_end[];                                                     \
    __asm__(".section .rodata\n.balign 4096\n" #name ": 77:\n" text "\n" #name "_end:\n"          \
            ".previous\n")
#define AT(label) "$0x100000 + (" label " - 77b)"

/* --- machinery --- */

static struct bed *bed_make(enum cpu_translate how, bool bits32)
{
    struct bed *b = g_new0(struct bed, 1);
    struct cpu_topology t = { 1, 1, 1, 1 };
    char *error = NULL;

    b->model = cpu_model_parse("max", &error);
    g_assert_nonnull(b->model);
    b->shared = cpu_shared_new(b->model, &t, BED_RAM);
    g_assert_cmpint(cpu_shared_set_translate(b->shared, how, 0), ==, 0);
    b->ram = g_malloc0(BED_RAM);
    b->irq = -1;
    b->cpu = cpu_new(b->shared, 0, &bed_callbacks, b);
    bed_map(b);
    bed_tables(b, b->cpu);
    bed_long_mode(b, b->cpu);
    if (bits32) {
        b->cpu->seg[SEG_CS].l = false;
        b->cpu->seg[SEG_CS].db = true;
        cpu_update_mode(b->cpu);
    }
    for (unsigned n = 0; n < 16; n++)
        if (n != 4)
            b->cpu->gpr[n] = bits32 ? 0x11223344u * (n + 1) : 0x1122334455667788ull * (n + 1);
    b->cpu->gpr[3] = BED_DATA;
    return b;
}

static void same_u64(const char *what, uint64_t want, uint64_t got)
{
    if (want != got)
        g_error("%s: %#lx interpreted, %#lx translated", what, (unsigned long)want, (unsigned long)got);
}

/* The page tables differ in accessed bits at most. */
static void same_ram(struct bed *a, struct bed *b)
{
    for (size_t at = 0x6000; at < BED_RAM; at += 4096) {
        if (memcmp(a->ram + at, b->ram + at, 4096) == 0)
            continue;
        size_t k = at;
        while (a->ram[k] == b->ram[k])
            k++;
        g_error("memory at %#zx: %#x interpreted, %#x translated", k, a->ram[k], b->ram[k]);
    }
}

static void same_end(struct bed *a, struct bed *b)
{
    struct cpu_arch_state x, y;
    char name[8];

    cpu_get_state(a->cpu, &x);
    cpu_get_state(b->cpu, &y);
    same_u64("rip", x.rip, y.rip);
    for (unsigned n = 0; n < 16; n++) {
        g_snprintf(name, sizeof(name), "gpr %u", n);
        same_u64(name, x.gpr[n], y.gpr[n]);
    }
    same_u64("rflags", x.rflags, y.rflags);
    same_u64("cr2", x.cr2, y.cr2);
    same_ram(a, b);
}

static void run_both(const void *code, size_t len, bool bits32, void (*prepare)(struct bed *b), uint64_t want_rip)
{
    struct bed *b[2];

    for (unsigned k = 0; k < 2; k++) {
        b[k] = bed_make(k ? CPU_TRANSLATE_ON : CPU_TRANSLATE_OFF, bits32);
        bed_code(b[k], code, len);
        if (prepare)
            prepare(b[k]);
        g_assert_cmpint(cpu_run(b[k]->cpu), ==, CPU_EXIT_HALT);
    }
    if (want_rip)
        same_u64("where the program ended", want_rip, b[0]->cpu->rip);
    same_end(b[0], b[1]);
    for (unsigned k = 0; k < 2; k++)
        bed_free(b[k]);
}

struct program {
    const char *name;
    const uint8_t *start, *end;
    bool bits32;
    int vector; /* that ends it; -1: none */
    bool stray; /* HLT is not the last instruction */
    void (*prepare)(struct bed *b);
};

static void run_program(gconstpointer data)
{
    const struct program *p = data;
    size_t len = (size_t)(p->end - p->start);
    uint64_t rip = p->vector < 0 ? BED_CODE + len : BED_HANDLER + 16 * (uint64_t)p->vector + 1;

    run_both(p->start, len, p->bits32, p->prepare, p->stray ? 0 : rip);
}

/* --- programs --- */

/* Conditions, taken and not, forwards and backwards, on flags of many origins; rdx gathers what was taken. */
PROGRAM(p_jcc, "mov $300, %r14\n"
               "1: imul $0x343fd, %rax; add $0x269ec3, %rax; mov %rax, %rcx; shr $17, %rcx\n"
               "cmp %cl, %ch; jo 2f; lea 1(%rdx), %rdx\n"
               "2: jno 2f; lea 2(%rdx), %rdx\n"
               "2: jb 2f; lea 3(%rdx), %rdx\n"
               "2: jae 2f; lea 5(%rdx), %rdx\n"
               "2: add %ecx, %esi; je 2f; lea 7(%rdx), %rdx\n"
               "2: jne 2f; lea 11(%rdx), %rdx\n"
               "2: jbe 2f; lea 13(%rdx), %rdx\n"
               "2: ja 2f; lea 17(%rdx), %rdx\n"
               "2: test %cx, %ax; js 2f; lea 19(%rdx), %rdx\n"
               "2: jns 2f; lea 23(%rdx), %rdx\n"
               "2: jp 2f; lea 29(%rdx), %rdx\n"
               "2: jnp 2f; lea 31(%rdx), %rdx\n"
               "2: sub (%rbx), %rcx; mov %rax, (%rbx); jl 2f; lea 37(%rdx), %rdx\n"
               "2: jge 2f; lea 41(%rdx), %rdx\n"
               "2: jle 2f; lea 43(%rdx), %rdx\n"
               "2: jg 2f; lea 47(%rdx), %rdx\n"
               "2: dec %r14; jnz 1b; hlt");

/* Loops that carry flags around: adc chains with jrcxz, loop, and a back edge that keeps CF. */
PROGRAM(p_loops, "mov $50, %r14\n"
                 "1: mov $20, %ecx; clc\n"
                 "2: adc %rax, %rdx; rol $7, %rax; lea -1(%rcx), %rcx; jrcxz 3f; jmp 2b\n"
                 "3: mov $9, %ecx; stc\n"
                 "4: adc %rax, %rsi; loop 4b\n"
                 "mov $5, %ecx\n"
                 "5: sbb %rsi, %rdi; loopne 5b\n"
                 "mov $3, %ecx\n"
                 "6: cmp %rcx, %rcx; loope 6b\n"
                 "mov $0x100000003, %rcx\n"
                 "7: adc $1, %r8; addr32 loop 7b\n"
                 "mov $0x100000000, %rcx; addr32 jrcxz 8f; lea 1(%r9), %r9\n"
                 "8: lea 1(%r10), %r10\n"
                 "mov $10, %ecx\n"
                 "9: inc %r11; dec %ecx; jnz 9b; adc $0, %r11\n"
                 "dec %r14; jnz 1b; hlt");

/* Calls and returns in the page and across pages; ret n; recursion on both sides of a page's end. */
PROGRAM(p_calls, "mov $200, %r14\n"
                 "1: call 2f; call far; mov $6, %edi; call fib; add %rax, %rdx\n"
                 "push %rdx; push %rsi; call far_n; cmp $0, %r9; je 3f; call 2f\n"
                 "3: dec %r14; jnz 1b; jmp out\n"
                 "2: add $3, %rax; ret\n"
                 ".org 77b + 4092\n"
                 "fib: push %rbx; push %rdi; cmp $2, %edi; jb 4f; dec %edi; call fib; mov %rax, %rbx\n"
                 "dec %edi; call fib; add %rbx, %rax; jmp 5f\n"
                 "4: mov %rdi, %rax\n"
                 "5: pop %rdi; pop %rbx; ret\n"
                 "far: sub $1, %r9; jc far2; ret\n"
                 "far_n: lea 4(%r8), %r8; ret $16\n"
                 ".org 77b + 9000\n"
                 "far2: mov $77, %r9d; jmp far3\n"
                 ".org 77b + 13000\n"
                 "far3: neg %r9; jns out; ret\n"
                 ".org 77b + 17000\n"
                 "out: hlt");

/* Indirect jumps and calls by register, memory, and through the stack pointer; targets that share a cache entry. */
PROGRAM(p_indirect, "mov $500, %r14; xor %edx, %edx\n"
                    "mov " AT("a") ", %rax; mov %rax, (%rbx); mov " AT("b") ", %rax; mov %rax, 8(%rbx)\n"
                    "mov " AT("c") ", %rax; mov %rax, 16(%rbx); mov " AT("d") ", %rax; mov %rax, 24(%rbx)\n"
                    "1: mov %r14, %rcx; and $3, %ecx; call *(%rbx,%rcx,8); mov (%rbx,%rcx,8), %r11; call *%r11\n"
                    "push 8(%rbx); call *(%rsp); pop %rax\n"
                    "mov " AT("2f") ", %r15; cmp %r14, %rcx; jmp *%r15\n"
                    "2: adc $0, %rdx; mov " AT("3f") ", %rax; mov %rax, -64(%rbx); jmp *-64(%rbx)\n"
                    "3: mov " AT("4f") ", %rax; push %rax; ret\n"
                    "4: dec %r14; jnz 1b; jmp out1\n"
                    "a: inc %rdx; ret\n"
                    "b: add $5, %rdx; ret\n"
                    ".org 77b + 4095\n"
                    "c: shl $1, %rdx; ret\n"
                    "d: xor %r14, %rdx; ret\n"
                    ".org 77b + 5000\n"
                    "out1: hlt");

/* Every form of push and pop, RSP as operand and as base, 16-bit ones, leave, flags. */
PROGRAM(p_stack, "mov $100, %r14; mov %rsp, %rbp\n"
                 "1: push %rax; push %r10; push %r11; push %r15; push $-7; push $0x12345678; pushw %dx; pushw $0x1234\n"
                 "push %rsp; push 8(%rsp); push (%rbx); pushw 2(%rsp); popw %ax; pop %r15; pop %r11\n"
                 "pop %rsi; mov %rsp, %rdi; sub %rdi, %rsi; popw %cx; popw %r10w; pop %rcx; pop 8(%rsp); popw 2(%rbx)\n"
                 "pushw $1; pop %r10; pop (%rbx)\n"
                 "push %rsp; pop %rsp; lea -64(%rsp), %r8; mov %r8, -64(%rsp); lea -64(%rsp), %rsp; pop %rsp\n"
                 "lea 64(%rsp), %rsp; push %rbp; mov %rsp, %rbp; push %rax; push %rcx; leave\n"
                 "cmp %rax, %rcx; pushf; add %rcx, %rax; pushf; xorl $0x8d5, (%rsp); popf; adc %rdx, %rdx; popf\n"
                 "sbb %rdx, %rcx; enter $32, $0; push %rdx; leave; enter $16, $2; leave\n"
                 "imul $0x10dcd, %rax; add $1, %rax; pushfw; popw %dx; pushf; orl $0x200, (%rsp); popf; pushf; pop %r9; cli\n"
                 "dec %r14; jnz 1b; hlt");

/* A stack that goes through page ends with every alignment. */
PROGRAM(p_stack_edge, "mov $3000, %r14; mov %rsp, %r13\n"
                      "1: lea -3(%rsp), %rsp; push %rax; call 2f; pop %rax; lea 1(%rsp), %rsp; pushf; pop %rdx\n"
                      "dec %r14; jnz 1b; mov %r13, %rsp; hlt\n"
                      "2: push %rbp; mov %rsp, %rbp; push %rdx; leave; add %r14, %rax; ret");

/* The stack's page is mapped elsewhere, back, made read-only and writable again (in CR0.WP's sense), while it is in use. */
PROGRAM(p_stack_remap, "mov $400, %r14; mov $0x3ff800, %rsp\n"
                       "1: push %r14; call 2f; pop %rax; add %rax, %rdx\n"
                       "test $1, %r14; jz 3f\n"
                       "movq $0x3f0007, 0x5ff8; invlpg (%rsp); push %rdx; push %r14; call 2f; pop %rax; pop %rcx\n"
                       "movq $0x3ff007, 0x5ff8; test $2, %r14; jz 4f; mov %cr3, %rax; mov %rax, %cr3; jmp 3f\n"
                       "4: invlpg -8(%rsp)\n"
                       "3: mov -8(%rsp), %rax; add %rax, %rsi; mov %rsi, -64(%rsp); dec %r14; jnz 1b; hlt\n"
                       "2: push %rbp; add 16(%rsp), %rdi; pop %rbp; ret");

/* Code is pushed on the stack and called, other code each time, at the same place. */
PROGRAM(p_stack_code, "mov $500, %r14; mov $0x3ff800, %rsp\n"
                      "1: mov %r14d, %eax; shl $8, %rax; or $0xb8, %rax; mov $0xc3, %ecx; shl $40, %rcx; or %rcx, %rax\n"
                      "push %rax; mov %rsp, %rbx; sub $64, %rsp; call *%rbx; call *%rbx; add %rax, %rdx; add $64, %rsp\n"
                      "test $8, %r14; jz 2f; pushq $7; pop %rcx\n"
                      "2: pop %rax; dec %r14; jnz 1b; hlt");

PROGRAM(p_32, "mov $200, %edx\n"
              ".code32\n"
              "1: push %eax; push $5; push %esp; pop %ecx; popl (%ebx); pushl (%ebx); pop %edi; pop %eax; call 2f\n"
              "pushw $3; popw %cx; mov " AT("3f") ", %esi; call *%esi; jmp 4f\n"
              "2: push %ebp; mov %esp, %ebp; push %ecx; leave; add $7, %eax; ret\n"
              "3: enter $8, $0; leave; mov $4, %ecx; 5: adc %ecx, %eax; loop 5b; ret\n"
              "4: cmp %eax, %edx; pushf; pop %ecx; call far32; mov " AT("6f") ", %esi; push %esi; push %esi; ret $4\n"
              "6: mov $0x30, %ecx; jecxz 7f; dec %edx; jnz 1b\n"
              "7: jmp out32\n"
              ".org 77b + 6000\n"
              "far32: sub %ecx, %eax; jc 8f; ret\n"
              ".org 77b + 9000\n"
              "8: ret\n"
              "out32: hlt\n.code64");

/* Falls over a page's end, once straight and once by an instruction that crosses it. */
PROGRAM(p_fall, "mov $100, %r14\n"
                "1: jmp 2f\n"
                ".org 77b + 4089\n"
                "2: add %rax, %rdx; inc %r8; nop\n"
                "3: lea (%rdx,%rax), %rax; jmp 4f\n"
                ".org 77b + 8190\n"
                "4: mov $0x11223344, %ecx; xor %rcx, %rax; dec %r14; jnz 1b; hlt");

/* --- programs that end in a fault: nothing of the branch may have happened --- */

/* #GP at the branch itself. The loop makes the branch hot with a good target first. */
PROGRAM(p_ret_gp, "mov $300, %r14; mov $0x800000000000, %r13\n"
                  "1: mov " AT("2f") ", %rax; cmp $1, %r14; cmove %r13, %rax; push %rax; stc; ret\n"
                  "2: dec %r14; jnz 1b; hlt");
PROGRAM(p_call_gp, "mov $300, %r14; mov $0xdeadbeef00001234, %r13\n"
                   "1: mov " AT("2f") ", %rax; cmp $1, %r14; cmove %r13, %rax; call *%rax\n"
                   "dec %r14; jnz 1b; hlt\n"
                   "2: ret");
PROGRAM(p_jmp_gp, "mov $300, %r14; mov $0xffff7fffffffffff, %r13\n"
                  "1: mov " AT("2f") ", %rax; cmp $1, %r14; cmove %r13, %rax; mov %rax, (%rbx); jmp *(%rbx)\n"
                  "2: dec %r14; jnz 1b; hlt");
/* #PF at the target, which is the next instruction's address. */
PROGRAM(p_jmp_pf, "mov $300, %r14; mov $0x7fff12345678, %r13\n"
                  "1: mov " AT("2f") ", %rax; cmp $1, %r14; cmove %r13, %rax; jmp *%rax\n"
                  "2: dec %r14; jnz 1b; hlt");
/* Not a sentinel of anybody's: address 0 holds no code page that may run. */
PROGRAM(p_ret_zero, "mov $300, %r14; xor %r13d, %r13d\n"
                    "1: mov " AT("2f") ", %rax; cmp $1, %r14; cmove %r13, %rax; push %rax; ret\n"
                    "2: dec %r14; jnz 1b; hlt");
/* In the last round the stack is half on a page that is not there. */
#define STACK_FAULT(what)                                                                          \
    "mov $300, %r14; mov %rsp, %r12; mov %rsp, %rbp\n"                                             \
    "1: cmp $1, %r14; mov $0x3ff004, %rcx; mov %rsp, %rdx; cmove %rcx, %rdx; mov %rdx, %rsp; mov %rdx, %rbp; stc\n" what       \
    "\ncmc; mov %r12, %rsp; dec %r14; jnz 1b; hlt\n"                                               \
    "9: ret"
PROGRAM(p_push_pf, STACK_FAULT("push %rax"));
PROGRAM(p_pop_pf, STACK_FAULT("pop %rax"));
PROGRAM(p_call_pf, STACK_FAULT("call 9f"));
PROGRAM(p_call_ind_pf, STACK_FAULT("mov " AT("9f") ", %rax; call *%rax"));
PROGRAM(p_ret_pf, STACK_FAULT("lea 2f(%rip), %rax; mov %rax, (%r12); ret; 2:"));
PROGRAM(p_leave_pf, STACK_FAULT("leave"));
PROGRAM(p_pushf_pf, STACK_FAULT("pushf"));
PROGRAM(p_popf_pf, STACK_FAULT("mov $2, %eax; mov %rax, (%r12); popf"));
/* A direct jump and call over the end of the canonical addresses: the page below it holds code. */
PROGRAM(p_hole, "mov $0x7ffffffff000, %r12; mov $300, %r14\n"
                "1: mov %r14, %rax; call *%r12; dec %r14; jnz 1b; hlt\n"
                ".org 77b + 4096\n"
                "cmp $1, %rax; je 77b + 0x2010; ret");
PROGRAM(p_hole_call, "mov $0x7ffffffff000, %r12; mov $300, %r14\n"
                     "1: mov %r14, %rax; call *%r12; dec %r14; jnz 1b; hlt\n"
                     ".org 77b + 4096\n"
                     "cmp $1, %rax; jne 2f; call 77b + 0x2010\n"
                     "2: ret");
PROGRAM(p_hole_fall, "mov $0x7ffffffff000, %r12; mov $300, %r14\n"
                     "1: mov %r14, %rax; call *%r12; dec %r14; jnz 1b; hlt\n"
                     ".org 77b + 4096\n"
                     "cmp $1, %rax; je 2f; ret\n"
                     ".org 77b + 8189\n"
                     "2: add %rax, %rax");

/* 0x7ffffffff000 -> the program's second page. */
static void map_top(struct bed *b)
{
    bed_poke64(b, 0x1000 + 8 * 255, 0x600000 | 7);
    bed_poke64(b, 0x600000 + 8 * 511, 0x601000 | 7);
    bed_poke64(b, 0x601000 + 8 * 511, 0x602000 | 7);
    bed_poke64(b, 0x602000 + 8 * 511, (BED_CODE + 0x1000) | 7);
}

static void unmap_stack(struct bed *b)
{
    bed_map_page(b, 0x3ff000, 0);
}

static void no_page_zero(struct bed *b)
{
    bed_map_page(b, 0, 0);
}

#define ENDS(name) name, name##_end
static const struct program programs[] = {
    { "jcc", ENDS(p_jcc), .vector = -1 },
    { "loops", ENDS(p_loops), .vector = -1 },
    { "calls", ENDS(p_calls), .vector = -1 },
    { "indirect", ENDS(p_indirect), .vector = -1 },
    { "stack", ENDS(p_stack), .vector = -1 },
    { "stack-remap", ENDS(p_stack_remap), .vector = -1, .stray = true },
    { "stack-code", ENDS(p_stack_code), .vector = -1 },
    { "32-bit", ENDS(p_32), .bits32 = true, .vector = -1 },
    { "fall", ENDS(p_fall), .vector = -1 },
    { "ret-gp", ENDS(p_ret_gp), .vector = EXC_GP },
    { "call-gp", ENDS(p_call_gp), .vector = EXC_GP },
    { "jmp-gp", ENDS(p_jmp_gp), .vector = EXC_GP },
    { "jmp-pf", ENDS(p_jmp_pf), .vector = EXC_PF },
    { "ret-zero", ENDS(p_ret_zero), .vector = EXC_PF, .prepare = no_page_zero },
    { "push-pf", ENDS(p_push_pf), .vector = EXC_PF, .prepare = unmap_stack },
    { "pop-pf", ENDS(p_pop_pf), .vector = EXC_PF, .prepare = unmap_stack },
    { "call-pf", ENDS(p_call_pf), .vector = EXC_PF, .prepare = unmap_stack },
    { "call-ind-pf", ENDS(p_call_ind_pf), .vector = EXC_PF, .prepare = unmap_stack },
    { "ret-pf", ENDS(p_ret_pf), .vector = EXC_PF, .prepare = unmap_stack },
    { "leave-pf", ENDS(p_leave_pf), .vector = EXC_PF, .prepare = unmap_stack },
    { "pushf-pf", ENDS(p_pushf_pf), .vector = EXC_PF, .prepare = unmap_stack },
    { "popf-pf", ENDS(p_popf_pf), .vector = EXC_PF, .prepare = unmap_stack },
    { "hole", ENDS(p_hole), .vector = EXC_GP, .prepare = map_top },
    { "hole-call", ENDS(p_hole_call), .vector = EXC_GP, .prepare = map_top },
    { "hole-fall", ENDS(p_hole_fall), .vector = EXC_GP, .prepare = map_top },
};

static void test_stack_edge(void)
{
    run_both(p_stack_edge, (size_t)(p_stack_edge_end - p_stack_edge), false, NULL, 0);
}

/* --- random programs --- */

#define GEN_BLOCKS 48
#define GEN_BYTES 0x3000

struct gen {
    uint8_t code[GEN_BYTES];
    unsigned at;
    unsigned start[GEN_BLOCKS];
    struct { unsigned at, block; } fix[GEN_BLOCKS * 8]; /* rel32 fields */
    unsigned fixes;
    GRand *rand;
};

static unsigned pick(struct gen *g, unsigned n)
{
    return (unsigned)g_rand_int_range(g->rand, 0, (gint32)n);
}

#define PUT(g, ...) put(g, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))
static void put(struct gen *g, const uint8_t *bytes, size_t len)
{
    memcpy(g->code + g->at, bytes, len);
    g->at += (unsigned)len;
}

static void put_rel(struct gen *g, unsigned block)
{
    g->fix[g->fixes].at = g->at;
    g->fix[g->fixes++].block = block;
    PUT(g, 0, 0, 0, 0);
}

/* rax rcx rdx rbp rsi rdi: others have their own use. */
static unsigned some_reg(struct gen *g)
{
    static const uint8_t regs[] = { 0, 1, 2, 5, 6, 7 };
    return regs[pick(g, sizeof(regs))];
}

static void put_op(struct gen *g)
{
    unsigned a = some_reg(g), b = some_reg(g);
    uint8_t rex = pick(g, 2) ? 0x48 : 0x40, rr = (uint8_t)(0xc0 | b << 3 | a);

    switch (pick(g, 14)) {
    case 0: PUT(g, rex, 0x01, rr); break;                                   /* add a, b */
    case 1: PUT(g, rex, 0x39, rr); break;                                   /* cmp */
    case 2: PUT(g, rex, 0x85, rr); break;                                   /* test */
    case 3: PUT(g, rex, 0x11, rr); break;                                   /* adc */
    case 4: PUT(g, rex, 0x29, rr); break;                                   /* sub */
    case 5: PUT(g, rex, 0xff, (uint8_t)(0xc0 | a)); break;                  /* inc */
    case 6: PUT(g, 0x48, 0x89, (uint8_t)(0x43 | a << 3), (uint8_t)(pick(g, 8) * 8)); break; /* mov [rbx+], a */
    case 7: PUT(g, rex, 0x03, (uint8_t)(0x43 | a << 3), (uint8_t)(pick(g, 8) * 8)); break;  /* add a, [rbx+] */
    case 8: PUT(g, (uint8_t)(0x50 | a), (uint8_t)(0x58 | b)); break;        /* push a; pop b */
    case 9: PUT(g, 0x6a, (uint8_t)pick(g, 256), (uint8_t)(0x58 | a)); break; /* push imm; pop a */
    case 10: PUT(g, 0x9c, 0x58); break;                                     /* pushf; pop rax */
    case 11: PUT(g, 0x9c, 0x80, 0x34, 0x24, 0x41, 0x9d); break;             /* pushf; xor byte [rsp], 41; popf */
    case 12: PUT(g, 0x55, 0x48, 0x89, 0xe5, 0x52, 0xc9); break;             /* push rbp; mov rbp, rsp; push rdx; leave */
    default: PUT(g, rex, 0x83, (uint8_t)(0xc0 | pick(g, 8) << 3 | a), (uint8_t)pick(g, 256)); /* alu a, imm */
    }
}

static void put_ops(struct gen *g)
{
    for (unsigned n = pick(g, 6); n; n--)
        put_op(g);
}

/* lea rax, [rip + block] */
static void put_address(struct gen *g, unsigned block)
{
    PUT(g, 0x48, 0x8d, 0x05);
    put_rel(g, block);
}

/* Blocks from GEN_BLOCKS / 2 on are functions, each of which calls only later ones. */
static void put_function_end(struct gen *g, unsigned n)
{
    if (n + 1 < GEN_BLOCKS && pick(g, 2)) {
        unsigned callee = n + 1 + pick(g, GEN_BLOCKS - n - 1);
        if (pick(g, 2)) {
            PUT(g, 0xe8);
            put_rel(g, callee);
        } else {
            put_address(g, callee);
            PUT(g, 0xff, 0xd0); /* call rax */
        }
        put_ops(g);
    }
    if (pick(g, 4))
        PUT(g, 0xc3);
    else if (n + 1 < GEN_BLOCKS) /* a tail call */
        PUT(g, 0xe9), put_rel(g, n + 1 + pick(g, GEN_BLOCKS - n - 1));
    else
        PUT(g, 0xc3);
}

static void put_jump(struct gen *g)
{
    unsigned to = pick(g, GEN_BLOCKS / 2), f = GEN_BLOCKS / 2 + pick(g, GEN_BLOCKS / 2);

    switch (pick(g, 8)) {
    case 0: PUT(g, 0xe9), put_rel(g, to); break;
    case 1: put_address(g, to); PUT(g, 0xff, 0xe0); break;                  /* jmp rax */
    case 2: put_address(g, to); PUT(g, 0x50, 0xc3); break;                  /* push rax; ret */
    case 3: put_address(g, to); PUT(g, 0x48, 0x89, 0x43, 0x70, 0xff, 0x63, 0x70); break; /* jmp [rbx + 70] */
    case 4: put_address(g, f); PUT(g, 0x48, 0x89, 0x43, 0x70, 0xff, 0x53, 0x70); break;  /* call [rbx + 70] */
    case 5: put_address(g, f); PUT(g, 0xff, 0xd0); break;
    default: PUT(g, 0xe8), put_rel(g, f);
    }
}

/* Each block burns fuel (r13) and ends the program when there is none left. */
static void put_block(struct gen *g, unsigned n)
{
    g->start[n] = g->at;
    PUT(g, 0x49, 0xff, 0xcd, 0x0f, 0x88); /* dec r13; js end */
    put_rel(g, 0);
    put_ops(g);
    if (n >= GEN_BLOCKS / 2) {
        put_function_end(g, n);
        return;
    }
    for (unsigned k = pick(g, 3); k; k--) {
        PUT(g, 0x0f, (uint8_t)(0x80 | pick(g, 16)));
        put_rel(g, 1 + pick(g, GEN_BLOCKS / 2 - 1));
        put_ops(g);
    }
    put_jump(g);
    PUT(g, 0xe9);
    put_rel(g, 1 + pick(g, GEN_BLOCKS / 2 - 1));
}

static void generate(struct gen *g, uint32_t seed)
{
    memset(g, 0, sizeof(*g));
    g->rand = g_rand_new_with_seed(seed);
    PUT(g, 0x49, 0xc7, 0xc5, 0xb8, 0x0b, 0x00, 0x00, 0xe9); /* mov r13, 3000; jmp block 1 */
    put_rel(g, 1);
    g->start[0] = g->at;
    PUT(g, 0xf4);
    for (unsigned n = 1; n < GEN_BLOCKS; n++) {
        g->at += pick(g, 4) ? pick(g, 16) : pick(g, 300);
        put_block(g, n);
    }
    g_assert_cmpuint(g->at, <, GEN_BYTES);
    for (unsigned k = 0; k < g->fixes; k++) {
        int32_t rel = (int32_t)(g->start[g->fix[k].block] - g->fix[k].at - 4);
        memcpy(g->code + g->fix[k].at, &rel, 4);
    }
    g_rand_free(g->rand);
}

static void test_random(void)
{
    const char *first = g_getenv("FLOW_SEED"), *many = g_getenv("FLOW_COUNT");
    uint32_t seed = first ? (uint32_t)atoi(first) : 1, count = many ? (uint32_t)atoi(many) : 60;
    struct gen *g = g_new(struct gen, 1);

    for (uint32_t k = seed; k < seed + count; k++) {
        g_test_message("seed %u", k);
        generate(g, k);
        run_both(g->code, g->at, false, NULL, BED_CODE + g->start[0] + 1);
    }
    g_free(g);
}

/* --- events --- */

PROGRAM(p_spin_host, "xor %eax, %eax; 1: add $2, %rax; jnc 1b; hlt");
PROGRAM(p_spin_mem, "1: add (%rbx), %rax; mov %rax, 8(%rbx); jmp 1b");
PROGRAM(p_spin_call, "1: call 2f; jmp 3f; 2: ret; .org 77b + 5000; 3: jmp 1b");
PROGRAM(p_spin_ind, "mov " AT("1f") ", %rax; 1: jmp *%rax");
PROGRAM(p_spin_recursion, "mov %rsp, %rdx; 1: mov %rdx, %rsp; call 2f; 2: call 1b");
PROGRAM(p_spin_loop, "1: mov $-1, %rcx; 2: loop 2b; jmp 1b");

static void *stop_soon(void *arg)
{
    g_usleep(20000);
    cpu_raise_event(arg, CPU_EV_STOP);
    return NULL;
}

/* A loop without end is left when an event comes. */
static void test_spin(gconstpointer data)
{
    const struct program *p = data;
    struct bed *b = bed_make(CPU_TRANSLATE_ON, false);
    pthread_t thread;

    bed_code(b, p->start, (size_t)(p->end - p->start));
    for (unsigned k = 0; k < 3; k++) {
        pthread_create(&thread, NULL, stop_soon, b->cpu);
        g_assert_cmpint(cpu_run(b->cpu), ==, CPU_EXIT_STOP);
        pthread_join(thread, NULL);
        g_assert_cmpuint(b->cpu->rip, >=, BED_CODE);
        g_assert_cmpuint(b->cpu->rip, <, BED_CODE + (uint64_t)(p->end - p->start));
    }
    bed_free(b);
}

static const struct program spins[] = {
    { "host-flags", ENDS(p_spin_host), .vector = -1 },
    { "memory", ENDS(p_spin_mem), .vector = -1 },
    { "call", ENDS(p_spin_call), .vector = -1 },
    { "indirect", ENDS(p_spin_ind), .vector = -1 },
    { "recursion", ENDS(p_spin_recursion), .vector = -1 },
    { "loop", ENDS(p_spin_loop), .vector = -1 },
};

int main(int argc, char **argv)
{
    char path[64];

    g_test_init(&argc, &argv, NULL);
    for (unsigned k = 0; k < ARRAY_COUNT(programs); k++) {
        g_snprintf(path, sizeof(path), "/flow/%s", programs[k].name);
        g_test_add_data_func(path, &programs[k], run_program);
    }
    g_test_add_func("/flow/stack-edge", test_stack_edge);
    g_test_add_func("/flow/random", test_random);
    for (unsigned k = 0; k < ARRAY_COUNT(spins); k++) {
        g_snprintf(path, sizeof(path), "/flow/leaves/%s", spins[k].name);
        g_test_add_data_func(path, &spins[k], test_spin);
    }
    return g_test_run();
}
