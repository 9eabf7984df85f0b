/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What user mode on the host cannot show about x87 and vectors: units switched off, deferred errors, real mode,
 * devices as operands, state that moves between processors and threads.
 * The instructions themselves are compared with the host's in cpu/test. */
#include "cpu/exec/testbed.h"
#include "cpu/fpu/emit.h"
#include "cpu/fpu/fpu.h"
#include "cpu/fpu/stub.h"

#include <xmmintrin.h>

#define GUEST(name, text)                                                                          \
    __asm__(".pushsection .rodata\n.intel_syntax noprefix\n" #name ":\n" text "\nhlt\n" #name     \
            "_end:\n.att_syntax\n.popsection\n");                                                  \
    extern const uint8_t name[], name##_end[]

#define LOAD_GUEST(b, name) bed_code(b, name, (size_t)(name##_end - name))

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };
#define CR0_MP 2u
#define CR0_EM 4u
#define CR0_TS 8u

static struct bed *bed_with(uint64_t cr0_set, uint64_t cr4_set, uint64_t cr4_clear)
{
    struct bed *b = bed_new("max");

    b->cpu->cr0 |= cr0_set;
    b->cpu->cr4 = (b->cpu->cr4 | cr4_set) & ~cr4_clear;
    b->cpu->xcr0 = 7;
    cpu_update_mode(b->cpu);
    return b;
}

/* The vector whose handler halted, or -1: the code's own HLT. */
static int run(struct bed *b)
{
    g_assert_cmpint(cpu_run(b->cpu), ==, CPU_EXIT_HALT);
    if (b->cpu->rip < BED_HANDLER || b->cpu->rip >= BED_HANDLER + 64 * 16)
        return -1;
    return (int)((b->cpu->rip - BED_HANDLER) / 16);
}

/* --- units switched off --- */

GUEST(use_sse, "addps xmm0, xmm1");
GUEST(use_mmx, "paddb mm0, mm1");
GUEST(use_x87, "fld1");
GUEST(use_avx, "vaddps ymm0, ymm0, ymm1");
GUEST(use_fwait, "fwait");
GUEST(use_fxsave, "fxsave [rbx]");
GUEST(use_xsave, "xsave [rbx]");
GUEST(use_fninit, "fninit");

static void test_unavailable(void)
{
    static const struct {
        const uint8_t *code, *end;
        uint64_t cr0, cr4, cr4_clear;
        int vector;
    } cases[] = {
        { use_sse, use_sse_end, 0, 0, 0, -1 },
        { use_sse, use_sse_end, CR0_TS, 0, 0, EXC_NM },
        { use_sse, use_sse_end, CR0_EM, 0, 0, EXC_UD },
        { use_sse, use_sse_end, CR0_EM | CR0_TS, 0, 0, EXC_UD },
        { use_sse, use_sse_end, 0, 0, 1 << 9, EXC_UD },
        { use_mmx, use_mmx_end, CR0_TS, 0, 0, EXC_NM },
        { use_mmx, use_mmx_end, CR0_EM, 0, 0, EXC_UD },
        { use_mmx, use_mmx_end, 0, 0, 1 << 9, -1 },
        { use_x87, use_x87_end, CR0_TS, 0, 0, EXC_NM },
        { use_x87, use_x87_end, CR0_EM, 0, 0, EXC_NM },
        { use_fninit, use_fninit_end, CR0_EM, 0, 0, EXC_NM },
        { use_fwait, use_fwait_end, CR0_MP | CR0_TS, 0, 0, EXC_NM },
        { use_fwait, use_fwait_end, CR0_EM, 0, 0, -1 },
        { use_avx, use_avx_end, 0, 0, 1 << 18, EXC_UD },
        { use_avx, use_avx_end, 0, 1 << 18, 0, -1 },
        { use_avx, use_avx_end, CR0_TS, 1 << 18, 0, EXC_NM },
        { use_fxsave, use_fxsave_end, CR0_TS, 0, 0, EXC_NM },
        { use_fxsave, use_fxsave_end, CR0_EM, 0, 0, EXC_UD },
        { use_xsave, use_xsave_end, 0, 0, 1 << 18, EXC_UD },
        { use_xsave, use_xsave_end, CR0_TS, 1 << 18, 0, EXC_NM },
    };

    for (unsigned k = 0; k < ARRAY_COUNT(cases); k++) {
        struct bed *b = bed_with(cases[k].cr0, cases[k].cr4, cases[k].cr4_clear);
        b->cpu->gpr[RBX] = BED_DATA;
        if (!cpu_has(b->cpu, F_AVX) && cases[k].code == use_avx) {
            bed_free(b);
            continue;
        }
        bed_code(b, cases[k].code, (size_t)(cases[k].end - cases[k].code));
        g_test_message("case %u", k);
        g_assert_cmpint(run(b), ==, cases[k].vector);
        bed_free(b);
    }
}

/* --- errors --- */

GUEST(x87_error, "fninit; fldcw [rbx]; fldz; fld1; fdiv st, st(1); nop; fnstsw ax; fnstcw [rbx + 8]; fld1");
GUEST(x87_cleared, "fninit; fldcw [rbx]; fldz; fld1; fdiv st, st(1); fnclex; fld1; fnstsw ax");

static void test_x87_error_is_deferred(void)
{
    struct bed *b = bed_with(0, 0, 0);
    uint16_t cw = 0x037b; /* zero divide is unmasked */
    uint64_t fip;

    memcpy(b->ram + BED_DATA, &cw, 2);
    b->cpu->gpr[RBX] = BED_DATA;
    LOAD_GUEST(b, x87_error);
    g_assert_cmpint(run(b), ==, EXC_MF);
    g_assert_cmphex(b->cpu->gpr[RAX] & 0x84, ==, 0x84); /* FNSTSW did not wait: ES and ZE */
    memcpy(&fip, b->cpu->xsave + XS_FIP, 8);
    g_assert_cmphex(b->ram[fip], ==, 0xd8); /* the division, not who found out */
    uint64_t at = *(uint64_t *)(b->ram + b->cpu->gpr[RSP]);
    g_assert_cmphex(b->ram[at], ==, 0xd9);
    g_assert_cmphex(b->ram[at + 1], ==, 0xe8); /* FLD1 */
    bed_free(b);

    b = bed_with(0, 0, 0);
    memcpy(b->ram + BED_DATA, &cw, 2);
    b->cpu->gpr[RBX] = BED_DATA;
    LOAD_GUEST(b, x87_cleared);
    g_assert_cmpint(run(b), ==, -1);
    g_assert_cmphex(b->cpu->gpr[RAX] & 0x80ff, ==, 0);
    bed_free(b);
}

GUEST(simd_error, "divps xmm0, xmm1");

static void test_simd_error(void)
{
    static const float one = 1.0f;

    for (unsigned enabled = 0; enabled < 2; enabled++) {
        struct bed *b = bed_with(0, 0, enabled ? 0 : 1 << 10);
        *fpu_mxcsr(b->cpu) = 0x1f80 & ~0x200u; /* zero divide is unmasked */
        for (unsigned k = 0; k < 4; k++)
            memcpy(fpu_xmm(b->cpu, 0) + 4 * k, &one, 4);
        LOAD_GUEST(b, simd_error);
        g_assert_cmpint(run(b), ==, enabled ? EXC_XM : EXC_UD);
        g_assert_cmpmem(fpu_xmm(b->cpu, 0), 4, &one, 4);
        g_assert_cmphex(*fpu_mxcsr(b->cpu) & 0x3f, ==, 4);
        bed_free(b);
    }
}

/* --- whose state it is --- */

GUEST(round_up, "ldmxcsr [rbx]; addss xmm0, xmm1; fninit; fldcw [rbx + 4]; fld1");

static void test_host_keeps_its_modes(void)
{
    struct bed *b = bed_with(0, 0, 0);
    uint32_t modes[2] = { 0xdfc0, 0x0c3f }; /* flush to zero, denormals are zero, up; x87 truncates singles */
    uint16_t cw;

    memcpy(b->ram + BED_DATA, modes, sizeof(modes));
    b->cpu->gpr[RBX] = BED_DATA;
    LOAD_GUEST(b, round_up);
    g_assert_cmpint(run(b), ==, -1);
    g_assert_cmphex(_mm_getcsr() & ~0x3fu, ==, 0x1f80);
    __asm__ volatile("fnstcw %0" : "=m"(cw));
    g_assert_cmphex(cw, ==, 0x37f);
    g_assert_cmphex(*fpu_mxcsr(b->cpu), ==, 0xdfc0);
    bed_free(b);
}

GUEST(push_one, "fninit; fld1; mov eax, 0x40000000; movd xmm1, eax");
GUEST(push_zero, "fninit; fldz; xor eax, eax; movd xmm1, eax");
GUEST(pop_it, "fstp qword ptr [rbx]; movd eax, xmm1");

static void load_and_run(struct bed *b, const uint8_t *code, const uint8_t *end)
{
    bed_code(b, code, (size_t)(end - code));
    cpu_shared_written(b->shared, BED_CODE, 0x1000);
    b->cpu->rip = BED_CODE;
    b->cpu->halted = false;
    g_assert_cmpint(run(b), ==, -1);
}

/* Two processors take turns on one thread; each finds its own registers again. */
static void test_two_processors(void)
{
    struct bed *one = bed_with(0, 0, 0), *zero = bed_with(0, 0, 0);
    double v;

    one->cpu->gpr[RBX] = zero->cpu->gpr[RBX] = BED_DATA;
    load_and_run(one, push_one, push_one_end);
    load_and_run(zero, push_zero, push_zero_end);
    load_and_run(one, pop_it, pop_it_end);
    load_and_run(zero, pop_it, pop_it_end);
    memcpy(&v, one->ram + BED_DATA, 8);
    g_assert_cmpfloat(v, ==, 1.0);
    g_assert_cmphex(one->cpu->gpr[RAX], ==, 0x40000000);
    memcpy(&v, zero->ram + BED_DATA, 8);
    g_assert_cmpfloat(v, ==, 0.0);
    g_assert_cmphex(zero->cpu->gpr[RAX], ==, 0);
    bed_free(one);
    bed_free(zero);
}

static void test_state_moves(void)
{
    struct bed *from = bed_with(0, 0, 0), *to = bed_with(0, 0, 0);
    struct cpu_arch_state s;
    double v;

    load_and_run(from, push_one, push_one_end);
    cpu_get_state(from->cpu, &s);
    cpu_set_state(to->cpu, &s);
    to->cpu->gpr[RBX] = BED_DATA;
    load_and_run(to, pop_it, pop_it_end);
    memcpy(&v, to->ram + BED_DATA, 8);
    g_assert_cmpfloat(v, ==, 1.0);
    bed_free(from);
    bed_free(to);
}

GUEST(float_and_x87, "divps xmm0, xmm1; fld1; fld1; fwait");

/* cpu_set_state() takes values as they are: reserved MXCSR bits, ES without an error, a wild FCW. */
static void test_wild_state(void)
{
    struct bed *b = bed_with(0, 0, 0);
    struct cpu_arch_state s;

    cpu_get_state(b->cpu, &s);
    memset(s.xsave, 0xff, XS_LEGACY_END);
    s.xsave[XS_FSW] = 0x80;
    cpu_set_state(b->cpu, &s);
    LOAD_GUEST(b, float_and_x87);
    run(b);
    bed_free(b);
}

/* --- operands that are no RAM --- */

GUEST(device_operands, "movdqu xmm0, [rbx]; movups [rbx + 16], xmm0; fninit; fild qword ptr [rbx + 8];"
                       "fistp qword ptr [rbx + 32]; fld1; fstp dword ptr [rsi]; movq mm0, [rbx]; movq rax, mm0");

static void test_device_operands(void)
{
    struct bed *b = bed_with(0, 0, 0);
    uint64_t low, high;
    float f;

    b->cpu->gpr[RBX] = 0x10000000; /* mapped, beyond RAM: reads give the address */
    b->cpu->gpr[RSI] = BED_DATA;
    LOAD_GUEST(b, device_operands);
    g_assert_cmpint(run(b), ==, -1);
    memcpy(&low, fpu_xmm(b->cpu, 0), 8);
    memcpy(&high, fpu_xmm(b->cpu, 0) + 8, 8);
    g_assert_cmphex((uint32_t)low, ==, 0x10000000);
    g_assert_cmphex((uint32_t)high, ==, 0x10000008);
    g_assert_cmphex(b->cpu->gpr[RAX] & 0xffffffff, ==, 0x10000000);
    g_assert_cmpuint(b->mmio_writes, >=, 3);
    memcpy(&f, b->ram + BED_DATA, 4);
    g_assert_cmpfloat(f, ==, 1.0f); /* live registers survived the device's callbacks */
    bed_free(b);
}

/* --- real mode --- */

static void real_mode(struct bed *b)
{
    struct cpu *c = b->cpu;

    cpu_reset(c, false);
    c->seg[SEG_CS].base = 0x12340;
    c->seg[SEG_CS].selector = 0x1234;
    c->rip = 0x10;
    cpu_update_mode(c);
}

/* fninit; fld1; fst dword [0x200]; fnstenv [0x100]; hlt */
static void test_real_mode_environment(void)
{
    static const uint8_t code[] = { 0xdb, 0xe3, 0xd9, 0xe8, 0xd9, 0x16, 0x00, 0x02,
                                    0xd9, 0x36, 0x00, 0x01, 0xf4 };
    struct bed *b = bed_with(0, 0, 0);
    uint16_t env[7];

    real_mode(b);
    memcpy(b->ram + 0x12350, code, sizeof(code));
    g_assert_cmpint(cpu_run(b->cpu), ==, CPU_EXIT_HALT);
    memcpy(env, b->ram + 0x100, sizeof(env));
    g_assert_cmphex(env[0], ==, 0x37f);
    g_assert_cmphex(env[1] & 0x3800, ==, 0x3800);
    g_assert_cmphex(env[2], ==, 0x3fff); /* register 7 is valid, the others are empty */
    g_assert_cmphex(env[3], ==, 0x2354); /* linear address of FST: 12354h */
    g_assert_cmphex(env[4], ==, 0x1000 | (0x116));
    g_assert_cmphex(env[5], ==, 0x0200);
    g_assert_cmphex(env[6], ==, 0x0000);
    bed_free(b);
}

/* --- the store of stubs --- */

static bool row_has(const struct insn_row *row, uint8_t kind)
{
    for (unsigned k = 0; k < ARRAY_COUNT(row->operand); k++)
        if (row->operand[k] == kind)
            return true;
    return false;
}

/* Every immediate, and every MMX or x87 register, of one form. */
static void make_variants(struct insn *i, unsigned *count)
{
    const struct insn_row *row = &insn_rows[i->row];
    bool numbered = row->attr & (A_MMX | A_X87), two = row->attr >> 24 == F_SSE4A;
    unsigned imms = two ? 64 : row_has(row, Ib) ? 256 : 1;

    for (unsigned regs = 0; regs < (numbered ? 64 : 1); regs++)
        for (unsigned imm = 0; imm < imms; imm++)
            for (unsigned imm2 = 0; imm2 < (two ? 64 : 1); imm2++) {
                i->reg = regs & 7;
                i->rm = regs >> 3;
                i->imm = imm;
                i->imm2 = (uint8_t)imm2;
                g_assert_cmpuint(emit_stub(i), !=, 0);
                ++*count;
            }
}

/* A guest that uses every encoding there is still finds room. */
static void test_store_holds_all(void)
{
    unsigned count = 0;

    g_assert_cmpint(stub_init(), ==, 0);
    for (unsigned row = 0; row < insn_row_count; row++) {
        const struct insn_row *r = &insn_rows[row];
        if (!(r->attr & (A_X87 | A_MMX | A_SSE | A_AVX)))
            continue;
        for (unsigned form = 0; form < 8; form++) {
            bool mem = form & 1, l1 = form & 4;
            unsigned l_rule = r->vex == LEGACY ? 0 : (r->vex - VEX_LIG_WIG) / 3 + 1u;
            if ((mem && r->mod != MOD_ANY && r->mod != MOD_MEM) || (!mem && r->mod == MOD_MEM) ||
                (l1 && (l_rule == 0 || l_rule == 2)) || (!l1 && l_rule == 3))
                continue;
            struct insn i = { .row = (uint16_t)row, .mem = mem, .rex_w = !!(form & 2), .mode64 = 1,
                              .vl = r->vex == LEGACY ? 0 : l1 ? 32 : 16 };
            make_variants(&i, &count);
        }
    }
    g_test_message("%u encodings", count);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/fpu/unavailable", test_unavailable);
    g_test_add_func("/fpu/x87-error", test_x87_error_is_deferred);
    g_test_add_func("/fpu/simd-error", test_simd_error);
    g_test_add_func("/fpu/host-modes", test_host_keeps_its_modes);
    g_test_add_func("/fpu/two-processors", test_two_processors);
    g_test_add_func("/fpu/state-moves", test_state_moves);
    g_test_add_func("/fpu/wild-state", test_wild_state);
    g_test_add_func("/fpu/device-operands", test_device_operands);
    g_test_add_func("/fpu/real-mode-environment", test_real_mode_environment);
    g_test_add_func("/fpu/store-holds-all", test_store_holds_all);
    return g_test_run();
}
