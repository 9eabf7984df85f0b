/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The interpreter on hand-written guest code: flags, strings, faults, atomics, self-modifying code, events.
 * Each case states what a program would see. */
#include "cpu/exec/testbed.h"

/* Guest code: assembled here, copied into guest RAM; HLT ends it. Position independent. */
#define GUEST(name, text)                                                                          \
    __asm__(".pushsection .rodata\n.intel_syntax noprefix\n" #name ":\n" text "\nhlt\n" #name     \
            "_end:\n.att_syntax\n.popsection\n");                                                  \
    extern const uint8_t name[], name##_end[]

#define LOAD_GUEST(b, name) bed_code(b, name, (size_t)(name##_end - name))

/* Runs to HLT in the code itself. */
static void run_ok(struct bed *b)
{
    enum cpu_exit why = cpu_run(b->cpu);

    g_assert_cmpint(why, ==, CPU_EXIT_HALT);
    g_assert_cmphex(b->cpu->rip & ~0xfffull, >=, 0x10000);
}

/* Runs into exception or interrupt `vector`. */
static void run_into(struct bed *b, unsigned vector)
{
    g_assert_cmpint(cpu_run(b->cpu), ==, CPU_EXIT_HALT);
    g_assert_cmphex(b->cpu->rip, ==, BED_HANDLER + 16 * vector + 1);
}

/* Quadword `n` of the handler's stack. */
static uint64_t frame(struct bed *b, unsigned n)
{
    uint64_t v;
    memcpy(&v, b->ram + b->cpu->gpr[4] + 8 * n, 8);
    return v;
}

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

/* --- arithmetic --- */

GUEST(arith, "mov eax, 0xffffffff; add eax, 1; adc ebx, 0; stc; inc eax; setc dl; mov cl, 0; stc; shl eax, cl; setc dh;"
             "mov r8, -1; mov r8d, r8d; mov r9, -1; clc; cmovc r9d, eax; mov ah, 0x12; mov spl, 0x34; xchg ah, al;"
             "mov r10, 0x8000000000000000; mov r11, 3; imul r12, r11, 7; neg r11; bswap r10; lea r13, [r11 + r11*4 + 1];"
             "mov r14d, 0x80; movsx r15, r14b; lea rsp, [rsp + 0]");

static void test_arithmetic(void)
{
    struct bed *b = bed_new("max");
    struct cpu *c = b->cpu;

    LOAD_GUEST(b, arith);
    run_ok(b);
    g_assert_cmphex(c->gpr[RBX], ==, 1);          /* carry went on */
    g_assert_cmphex(c->gpr[RDX] & 0xffff, ==, 0x0101); /* inc and a shift by 0 keep CF */
    g_assert_cmphex(c->gpr[R8], ==, 0xffffffff);
    g_assert_cmphex(c->gpr[R9], ==, 0xffffffff);  /* a cmov that does not move clears the upper half */
    g_assert_cmphex(c->gpr[RAX], ==, 0x0112);
    g_assert_cmphex(c->gpr[R10], ==, 0x80);
    g_assert_cmphex(c->gpr[R12], ==, 21);
    g_assert_cmphex(c->gpr[R13], ==, (uint64_t)-14);
    g_assert_cmphex(c->gpr[R15], ==, 0xffffffffffffff80);
    bed_free(b);
}

GUEST(divide, "mov eax, 100; xor edx, edx; mov ecx, 7; div ecx; mov r8, rax; mov r9, rdx; mov rax, -100; cqo; mov rcx, 7;"
              "idiv rcx; mov r10, rax; mov r11, rdx; mov rax, 1; mov rdx, 7; div rcx");

static void test_divide_error(void)
{
    struct bed *b = bed_new("max");
    struct cpu *c = b->cpu;

    LOAD_GUEST(b, divide);
    run_into(b, EXC_DE);
    g_assert_cmphex(c->gpr[R8], ==, 14);
    g_assert_cmphex(c->gpr[R9], ==, 2);
    g_assert_cmphex(c->gpr[R10], ==, (uint64_t)-14);
    g_assert_cmphex(c->gpr[R11], ==, (uint64_t)-2);
    g_assert_cmphex(c->gpr[RDX], ==, 7);          /* untouched */
    bed_free(b);
}

/* A comparison and a conditional jump are run as one; with a NOP between they are not. Both must do the same. The jump
 * leads to "mov bl, 1; hlt". */
static unsigned emit_branch(uint8_t *p, unsigned form, unsigned size, unsigned cc, bool nop)
{
    static const uint8_t opcodes[2][3] = { { 0x38, 0x80, 7 << 3 }, { 0x84, 0xf6, 0 } };
    const uint8_t *op = opcodes[form & 1];
    unsigned n = 0, kind = form >> 1; /* registers, immediate, memory and immediate */

    if (size == 8)
        p[n++] = 0x48;
    p[n++] = (uint8_t)(op[kind != 0] + (size != 1));
    p[n++] = (uint8_t)((kind == 2 ? 0x06 : 0xc0) | (kind ? op[2] : 1 << 3)); /* rax or [rsi]; rcx */
    if (kind) {
        static const uint8_t imm[4] = { 0x80, 0xff, 0xff, 0xff };
        memcpy(p + n, imm, size == 1 ? 1 : 4);
        n += size == 1 ? 1 : 4;
    }
    if (nop)
        p[n++] = 0x90;
    memcpy(p + n, (const uint8_t[]){ (uint8_t)(0x70 + cc), 1, 0xf4, 0xb3, 1, 0xf4 }, 6);
    return n + 6;
}

static uint64_t run_branch(struct bed *b, uint64_t a, uint64_t v, unsigned form, unsigned size, unsigned cc,
                           bool nop)
{
    struct cpu *c = b->cpu;
    uint32_t at = BED_CODE + ((form * 9 + size) * 16 + cc) * 64 + (nop ? 32 : 0);

    emit_branch(b->ram + at, form, size, cc, nop);
    bed_poke64(b, BED_DATA, a);
    c->gpr[RAX] = a;
    c->gpr[RCX] = v;
    c->gpr[RSI] = BED_DATA;
    c->gpr[RBX] = 0;
    c->rip = at;
    c->halted = false;
    run_ok(b);
    return c->gpr[RBX] | (uint64_t)cpu_flags(c) << 8;
}

static void test_compare_and_branch(void)
{
    static const uint64_t values[] = { 0, 1, ~0ull, 0x7f, 0x80, 0x7fffffff, 0x80000000, 1ull << 63, ~0ull >> 1 };
    struct bed *b = bed_new("max");

    for (unsigned k = 0; k < 81; k++)
        for (unsigned form = 0; form < 6; form++)
            for (unsigned size = 1; size <= 8; size *= size == 1 ? 4 : 2)
                for (unsigned cc = 0; cc < 16; cc++) {
                    uint64_t a = values[k / 9], v = values[k % 9];
                    uint64_t one = run_branch(b, a, v, form, size, cc, false);
                    g_assert_cmphex(one, ==, run_branch(b, a, v, form, size, cc, true));
                }
    bed_free(b);
}

/* --- memory and faults --- */

GUEST(rmw_fault, "mov rax, 5; mov rbx, 0x301000; stc; add [rbx - 4], rax");

static void test_fault_is_exact(void)
{
    struct bed *b = bed_new("max");
    struct cpu *c = b->cpu;

    LOAD_GUEST(b, rmw_fault);
    bed_map_page(b, 0x301000, 0);
    run_into(b, EXC_PF);
    g_assert_cmphex(c->cr2, ==, 0x301000);
    g_assert_cmphex(frame(b, 0), ==, 2);           /* a write, although it reads first */
    g_assert_cmphex(frame(b, 1), ==, BED_CODE + (uint64_t)(rmw_fault_end - rmw_fault) - 1 - 4);
    g_assert_cmphex(frame(b, 3) & FLAG_CF, ==, FLAG_CF);
    g_assert_cmphex(b->ram[0x300ffc], ==, 0);
    bed_free(b);
}

GUEST(movs_fault, "mov rsi, 0x300f00; mov rdi, 0x310000; mov rcx, 0x200; cld; rep movsb");
GUEST(movs_down, "mov rsi, 0x300fff; mov rdi, 0x31007f; mov rcx, 0x200; std; rep movsw");

static void test_rep_fault(void)
{
    struct bed *b = bed_new("max");
    struct cpu *c = b->cpu;

    LOAD_GUEST(b, movs_fault);
    memset(b->ram + 0x300f00, 0x5a, 0x100);
    bed_map_page(b, 0x301000, 0);
    run_into(b, EXC_PF);
    g_assert_cmphex(c->cr2, ==, 0x301000);
    g_assert_cmphex(c->gpr[RCX], ==, 0x100);
    g_assert_cmphex(c->gpr[RSI], ==, 0x301000);
    g_assert_cmphex(c->gpr[RDI], ==, 0x310100);
    g_assert_cmphex(b->ram[0x3100ff], ==, 0x5a);
    g_assert_cmphex(b->ram[0x310100], ==, 0);
    /* The page appears: the instruction goes on from there. */
    bed_map_page(b, 0x301000, 0x301000 | 7);
    memset(b->ram + 0x301000, 0xa5, 0x100);
    c->rip = frame(b, 1);
    c->gpr[RSP] = BED_STACK;
    c->halted = false;
    run_ok(b);
    g_assert_cmphex(c->gpr[RCX], ==, 0);
    g_assert_cmphex(b->ram[0x3101ff], ==, 0xa5);
    bed_free(b);
}

GUEST(overlap, "cld; mov rsi, 0x300000; mov rdi, 0x300001; mov rcx, 0x1fff; rep movsb;"
               "std; mov rsi, 0x320ffe; mov rdi, 0x320ffc; mov rcx, 0x7ff; rep movsw; cld;"
               "mov rdi, 0x30ffff; mov eax, 0x11223344; mov ecx, 0x900; rep stosd;"
               "mov rdi, 0x30ffff; mov al, 0x22; mov rcx, 100; repne scasb; mov r8, rcx;"
               "mov rsi, 0x30ffff; mov rdi, 0x310003; mov rcx, 0x8ff; repe cmpsd; sete r9b; mov r10, rcx");

static void test_strings(void)
{
    struct bed *b = bed_new("max");
    struct cpu *c = b->cpu;

    LOAD_GUEST(b, overlap);
    b->ram[0x300000] = 0x77;
    b->ram[0x320ffe] = 0x12;
    b->ram[0x320fff] = 0x34;
    run_ok(b);
    for (unsigned k = 0; k < 0x2000; k++)          /* the first byte spread */
        g_assert_cmphex(b->ram[0x300000 + k], ==, 0x77);
    g_assert_cmphex(b->ram[0x320000], ==, 0x12);   /* the last word, downwards */
    g_assert_cmphex(b->ram[0x320001], ==, 0x34);
    g_assert_cmphex(b->ram[0x30ffff], ==, 0x44);
    g_assert_cmphex(b->ram[0x30ffff + 0x23ff], ==, 0x11);
    g_assert_cmphex(b->ram[0x30ffff + 0x2400], ==, 0);
    g_assert_cmphex(c->gpr[R8], ==, 97);
    g_assert_cmphex(c->gpr[R9] & 0xff, ==, 1);
    g_assert_cmphex(c->gpr[R10], ==, 0);
    bed_free(b);
}

static void test_strings_down(void)
{
    struct bed *b = bed_new("max");
    struct cpu *c = b->cpu;

    LOAD_GUEST(b, movs_down);
    bed_map_page(b, 0x2ff000, 0x2ff000 | 7);
    bed_map_page(b, 0x30f000, 0);
    run_into(b, EXC_PF);
    g_assert_cmphex(c->cr2, ==, 0x30ffff);         /* the word that crosses into the hole */
    g_assert_cmphex(c->gpr[RDI], ==, 0x30ffff);
    g_assert_cmphex(c->gpr[RCX], ==, 0x200 - 0x40);
    bed_free(b);
}

GUEST(rep_long, "cld; sti; mov rsi, 0x300000; mov rdi, 0x310000; mov rcx, 0x4000; rep movsb");

static void test_rep_interrupted(void)
{
    struct bed *b = bed_new("max");
    struct cpu *c = b->cpu;

    LOAD_GUEST(b, rep_long);
    b->irq = 0x21;
    b->event_page = 0x312000;
    run_into(b, 0x21);
    g_assert_cmphex(c->gpr[RCX], ==, 0x4000 - 0x3000);
    g_assert_cmphex(c->gpr[RDI], ==, 0x313000);
    uint64_t at = frame(b, 0) - BED_CODE;
    g_assert_cmphex(b->ram[BED_CODE + at], ==, 0xf3); /* to be resumed */
    bed_free(b);
}

/* --- self-modifying code --- */

/* Overwrites the immediate of the very next instruction, in the same block. */
GUEST(smc_next, "mov byte ptr [rip + 1f + 1], 0x55; 1: mov al, 0x11");
/* Patches a function between calls. */
GUEST(smc_loop, "xor ebx, ebx; mov ecx, 10; 1: mov byte ptr [rip + 2f + 1], cl; call 2f; add ebx, eax; dec ecx; jnz 1b; jmp 3f;"
                "2: mov eax, 0; ret; 3: nop");
/* A string store over code ahead. */
GUEST(smc_stos, "cld; lea rdi, [rip + 1f]; mov al, 0x90; mov ecx, 2; rep stosb; xor eax, eax; jmp 1f; .p2align 6; 1: ud2; mov al, 7");

static void test_self_modifying(void)
{
    struct bed *b = bed_new("max");
    struct cpu *c = b->cpu;

    LOAD_GUEST(b, smc_next);
    run_ok(b);
    g_assert_cmphex(c->gpr[RAX] & 0xff, ==, 0x55);
    bed_free(b);

    b = bed_new("max");
    LOAD_GUEST(b, smc_loop);
    run_ok(b);
    g_assert_cmpuint(b->cpu->gpr[RBX], ==, 55);
    bed_free(b);

    b = bed_new("max");
    LOAD_GUEST(b, smc_stos);
    run_ok(b);
    g_assert_cmphex(b->cpu->gpr[RAX] & 0xff, ==, 7);
    bed_free(b);
}

static void test_code_written_from_outside(void)
{
    struct bed *b = bed_new("max");
    struct cpu *c = b->cpu;

    BED_CODE_BYTES(b, 0xb0, 1, 0xf4); /* mov al, 1; hlt */
    run_ok(b);
    g_assert_cmphex(c->gpr[RAX] & 0xff, ==, 1);
    b->ram[BED_CODE + 1] = 2;
    cpu_shared_written(b->shared, BED_CODE + 1, 1);
    c->rip = BED_CODE;
    c->halted = false;
    run_ok(b);
    g_assert_cmphex(c->gpr[RAX] & 0xff, ==, 2);
    bed_free(b);
}

/* An instruction across two pages; the second page then maps elsewhere. */
static void test_crossing_instruction(void)
{
    struct bed *b = bed_new("max");
    struct cpu *c = b->cpu;
    const uint8_t code[] = { 0xb8, 1, 0, 0, 0, 0xf4 }; /* mov eax, 1; hlt */

    for (unsigned round = 0; round < 4; round++) {
        memcpy(b->ram + 0x130ffd, code, sizeof(code));
        memcpy(b->ram + 0x140000, "\x02\x00\xf4", 3);
        bed_map_page(b, 0x131000, (round & 1 ? 0x140000 : 0x131000) | 7);
        mmu_flush_page(c, 0x131000);
        c->rip = 0x130ffd;
        c->halted = false;
        run_ok(b);
        g_assert_cmphex(c->gpr[RAX], ==, round & 1 ? 0x20001 : 1);
    }
    bed_map_page(b, 0x131000, 0);
    mmu_flush_page(c, 0x131000);
    c->rip = 0x130ffd;
    c->halted = false;
    run_into(b, EXC_PF);
    g_assert_cmphex(c->cr2, ==, 0x131000);
    g_assert_cmphex(frame(b, 0), ==, 0x10); /* an instruction fetch */
    bed_free(b);
}

/* Two virtual aliases of one physical page, and calls between pages, after their mapping changed. */
GUEST(far_calls, "mov rbx, 0x150000; mov ecx, 100; 1: call rbx; add eax, edx; dec ecx; jnz 1b");

static void test_remapped_target(void)
{
    struct bed *b = bed_new("max");
    struct cpu *c = b->cpu;

    LOAD_GUEST(b, far_calls);
    memcpy(b->ram + 0x150000, "\xba\x01\x00\x00\x00\xc3", 6); /* mov edx, 1; ret */
    memcpy(b->ram + 0x160000, "\xba\x02\x00\x00\x00\xc3", 6);
    run_ok(b);
    g_assert_cmpuint(c->gpr[RAX], ==, 100);
    bed_map_page(b, 0x150000, 0x160000 | 7);
    mmu_flush_page(c, 0x150000);
    c->rip = BED_CODE;
    c->gpr[RAX] = 0;
    c->halted = false;
    run_ok(b);
    g_assert_cmpuint(c->gpr[RAX], ==, 200);
    bed_free(b);
}

/* Branches off the end of the lower half of the address space fault where they stand. */
static void test_branch_out_of_canonical(void)
{
    static const uint8_t codes[3][6] = { { 0xeb, 0x40 }, { 0x74, 0x40 }, { 0xe8, 0x40 } }; /* jmp, je, call */
    struct bed *b = bed_new("max");
    struct cpu *c = b->cpu;

    bed_poke64(b, 0x1000 + 255 * 8, 0x10000 | 7);
    bed_poke64(b, 0x10000 + 511 * 8, 0x11000 | 7);
    bed_poke64(b, 0x11000 + 511 * 8, 0x12000 | 7);
    bed_poke64(b, 0x12000 + 511 * 8, 0x13000 | 7);
    for (unsigned k = 0; k < 6; k++) {
        uint64_t at = 0x7fffffffffd0 + k % 3 * 8;
        memcpy(b->ram + 0x13000 + (at & 0xfff), codes[k % 3], 6);
        c->rip = at;
        c->gpr[RSP] = BED_STACK;
        c->flags_ax = FLAG_ZF << 8;
        c->halted = false;
        run_into(b, EXC_GP);
        g_assert_cmphex(frame(b, 0), ==, 0);
        g_assert_cmphex(frame(b, 1), ==, at);
        g_assert_cmphex(frame(b, 4), ==, BED_STACK); /* a call pushed nothing */
    }
    bed_free(b);
}

/* --- events --- */

static void *raise_later(void *opaque)
{
    struct bed *b = opaque;

    g_usleep(20000);
    cpu_raise_event(b->cpu, b->irq >= 0 ? CPU_EV_INTR : CPU_EV_STOP);
    return NULL;
}

GUEST(spin, "sti; 1: inc rax; jmp 1b");

static void test_events_end_a_loop(void)
{
    for (unsigned k = 0; k < 2; k++) {
        struct bed *b = bed_new("max");
        LOAD_GUEST(b, spin);
        b->irq = k ? 0x30 : -1;
        GThread *t = g_thread_new("raise", raise_later, b);
        if (k)
            run_into(b, 0x30);
        else
            g_assert_cmpint(cpu_run(b->cpu), ==, CPU_EXIT_STOP);
        g_assert_cmpuint(b->cpu->gpr[RAX], >, 1000);
        g_thread_join(t);
        bed_free(b);
    }
}

GUEST(shadow, "sti; nop; nop");

static void test_sti_shadow(void)
{
    struct bed *b = bed_new("max");

    LOAD_GUEST(b, shadow);
    b->irq = 0x22;
    cpu_raise_event(b->cpu, CPU_EV_INTR);
    run_into(b, 0x22);
    g_assert_cmphex(frame(b, 0), ==, BED_CODE + 2); /* one instruction after STI */
    bed_free(b);
}

static void test_step(void)
{
    struct bed *b = bed_new("max");

    LOAD_GUEST(b, arith);
    g_assert_cmpint(cpu_step(b->cpu), ==, CPU_EXIT_DEBUG);
    g_assert_cmphex(b->cpu->rip, ==, BED_CODE + 5);
    g_assert_cmpint(cpu_step(b->cpu), ==, CPU_EXIT_DEBUG);
    g_assert_cmphex(cpu_flags(b->cpu) & (FLAG_CF | FLAG_ZF), ==, FLAG_CF | FLAG_ZF);
    bed_free(b);
}

GUEST(trap_flag, "pushfq; or dword ptr [rsp], 0x100; popfq; nop; nop");

static void test_single_step_trap(void)
{
    struct bed *b = bed_new("max");

    LOAD_GUEST(b, trap_flag);
    run_into(b, EXC_DB);
    g_assert_cmphex(frame(b, 0), ==, BED_CODE + (uint64_t)(trap_flag_end - trap_flag) - 2);
    bed_free(b);
}

/* --- atomics --- */

GUEST(atomics, "mov rbx, 0x300000; mov ecx, 100000; 1: lock inc dword ptr [rbx]; mov eax, 1; lock xadd [rbx + 8], rax;"
               "2: mov rax, [rbx + 16]; lea rdx, [rax + 1]; lock cmpxchg [rbx + 16], rdx; jnz 2b;"
               "lock inc dword ptr [rbx + 61]; 3: mov al, 1; xchg al, [rbx + 128]; test al, al; jnz 3b; inc qword ptr [rbx + 136];"
               "mov byte ptr [rbx + 128], 0; dec ecx; jnz 1b");

static void *run_other(void *opaque)
{
    return GINT_TO_POINTER(cpu_run(opaque));
}

static void test_atomics(void)
{
    struct bed *b = bed_new("max");
    struct cpu *other = cpu_new(b->shared, 1, &bed_callbacks, b);
    uint64_t v[18];
    uint32_t split;

    LOAD_GUEST(b, atomics);
    bed_tables(b, other);
    bed_long_mode(b, other);
    other->gpr[RSP] = BED_STACK + 0x10000;
    GThread *t = g_thread_new("vcpu1", run_other, other);
    run_ok(b);
    g_assert_cmpint(GPOINTER_TO_INT(g_thread_join(t)), ==, CPU_EXIT_HALT);
    memcpy(v, b->ram + 0x300000, sizeof(v));
    g_assert_cmpuint(v[0], ==, 200000);
    g_assert_cmpuint(v[1], ==, 200000);
    g_assert_cmpuint(v[2], ==, 200000);
    memcpy(&split, b->ram + 0x30003d, sizeof(split)); /* across a cache line */
    g_assert_cmpuint(split, ==, 200000);
    g_assert_cmpuint(v[17], ==, 200000);                            /* under the spin lock */
    cpu_free(other);
    bed_free(b);
}

GUEST(cas_wide, "mov rsi, 0x300000; mov eax, 1; mov edx, 2; mov ebx, 3; mov ecx, 4; lock cmpxchg8b [rsi]; setz r8b;"
                "lock cmpxchg8b [rsi]; setz r9b; lock cmpxchg16b [rsi + 16]; setz r10b; mov rdi, rax; lock cmpxchg16b [rsi + 8]");

static void test_wide_compare_exchange(void)
{
    struct bed *b = bed_new("max");
    struct cpu *c = b->cpu;

    LOAD_GUEST(b, cas_wide);
    bed_poke64(b, 0x300000, 0x200000001);
    bed_poke64(b, 0x300010, 7);
    run_into(b, EXC_GP);                                    /* the last is not aligned */
    g_assert_cmpuint(c->gpr[R8] & 0xff, ==, 1);
    g_assert_cmpuint(c->gpr[R9] & 0xff, ==, 0);
    g_assert_cmpuint(c->gpr[R10] & 0xff, ==, 0);
    g_assert_cmphex(*(uint64_t *)(b->ram + 0x300000), ==, 0x400000003);
    g_assert_cmphex(c->gpr[RDI], ==, 7);
    bed_free(b);
}

/* --- 16-bit code --- */

static void real_mode(struct bed *b)
{
    cpu_reset(b->cpu, false);
    b->cpu->seg[SEG_CS].base = BED_CODE;
    b->cpu->seg[SEG_CS].selector = 0x1000;
    b->cpu->rip = 0;
    b->cpu->gpr[RSP] = 0x8000;
    cpu_update_mode(b->cpu);
}

GUEST(real, ".code16\nmov ax, 0x1234; push ax; pusha; popa; pop bx; mov al, 0x35; aam; mov cx, 3; xor dx, dx; 1: add dx, cx; loop 1b;"
            "mov al, 0x79; add al, 0x35; daa; mov si, ax; mov di, 0x7000; mov [bp + di], si; mov bp, [di]; .code64");

static void test_real_mode(void)
{
    struct bed *b = bed_new("max");
    struct cpu *c = b->cpu;

    real_mode(b);
    LOAD_GUEST(b, real);
    g_assert_cmpint(cpu_run(c), ==, CPU_EXIT_HALT);
    g_assert_cmphex(c->gpr[RBX] & 0xffff, ==, 0x1234);
    g_assert_cmphex(c->gpr[RDX] & 0xffff, ==, 6);
    g_assert_cmphex(c->gpr[RSI] & 0xff, ==, 0x14);  /* 79 + 35 in decimal */
    g_assert_cmphex(c->gpr[RBP] & 0xffff, ==, c->gpr[RSI] & 0xffff);
    g_assert_cmphex(c->gpr[RSP] & 0xffff, ==, 0x8000);
    bed_free(b);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/exec/arithmetic", test_arithmetic);
    g_test_add_func("/exec/compare-and-branch", test_compare_and_branch);
    g_test_add_func("/exec/divide-error", test_divide_error);
    g_test_add_func("/exec/fault-is-exact", test_fault_is_exact);
    g_test_add_func("/exec/rep-fault", test_rep_fault);
    g_test_add_func("/exec/strings", test_strings);
    g_test_add_func("/exec/strings-down", test_strings_down);
    g_test_add_func("/exec/rep-interrupted", test_rep_interrupted);
    g_test_add_func("/exec/self-modifying", test_self_modifying);
    g_test_add_func("/exec/written-from-outside", test_code_written_from_outside);
    g_test_add_func("/exec/crossing-instruction", test_crossing_instruction);
    g_test_add_func("/exec/remapped-target", test_remapped_target);
    g_test_add_func("/exec/branch-out-of-canonical", test_branch_out_of_canonical);
    g_test_add_func("/exec/events-end-a-loop", test_events_end_a_loop);
    g_test_add_func("/exec/sti-shadow", test_sti_shadow);
    g_test_add_func("/exec/step", test_step);
    g_test_add_func("/exec/single-step-trap", test_single_step_trap);
    g_test_add_func("/exec/atomics", test_atomics);
    g_test_add_func("/exec/wide-compare-exchange", test_wide_compare_exchange);
    g_test_add_func("/exec/real-mode", test_real_mode);
    return g_test_run();
}
