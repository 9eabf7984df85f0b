/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parking and loading of vector and x87 registers, by the thunks that translated code calls.
 *
 * Each test makes a function of a few thunk calls and instructions, runs it with GS.base = struct cpu as a block
 * would, and looks at cpu->xsave and at what the host's registers held.
 */
#include "cpu/fpu/fpu.h"
#include "cpu/translate/vector.h"

#include <asm/prctl.h>
#include <glib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CODE_BYTES 16384u

static struct {
    struct cpu *c;
    struct as as;
    struct thunks th;
    uint8_t *code;
    uint8_t ymm[16][32]; /* the host's, as put_dump() found them */
    uint32_t mxcsr;
} f;

static void start(void)
{
    f.c = aligned_alloc(64, align_up(sizeof(*f.c), 64));
    g_assert_nonnull(f.c);
    memset(f.c, 0, sizeof(*f.c));
    f.c->self = f.c;
    f.c->vec_parked = f.c->ymm_parked = 1;
    for (unsigned k = 0; k < 256; k++) {
        f.c->xsave[XS_XMM + k] = (uint8_t)(k * 7 + 1);
        f.c->xsave[XS_YMM + k] = (uint8_t)(k * 11 + 5);
    }
    *fpu_mxcsr(f.c) = MXCSR_DEFAULT;
    *fpu_word(f.c, XS_FCW) = 0x37f;
    f.code = mmap(NULL, CODE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    g_assert_true(f.code != MAP_FAILED);
    f.as = (struct as){ .p = f.code, .end = f.code + CODE_BYTES };
    vector_make_thunks(&f.as, &f.th);
    f.code = f.as.p;
}

static void finish(void)
{
    munmap((void *)((uintptr_t)f.code & PAGE_MASK), CODE_BYTES);
    free(f.c);
}

static void put_dump(void)
{
    for (unsigned n = 0; n < 16; n++) {
        as_mov_imm(&f.as, R_AX, (uint64_t)(uintptr_t)f.ymm[n]);
        as_vex_rm(&f.as, (struct as_vex){ .map = 1, .opcode = 0x11, .l = true }, n, 0, AS_AT(R_AX, 0));
    }
    as_mov_imm(&f.as, R_AX, (uint64_t)(uintptr_t)&f.mxcsr);
    as_op_rm(&f.as, (struct as_op){ .map = 1, .opcode = 0xae, .size = 4 }, 3, AS_AT(R_AX, 0));
}

static uint64_t run(void)
{
    uint64_t ret;

    as_u8(&f.as, 0xc3);
    g_assert_false(f.as.full);
    void *base = (void *)((uintptr_t)f.code & PAGE_MASK);
    g_assert_cmpint(mprotect(base, CODE_BYTES, PROT_READ | PROT_EXEC), ==, 0);
    syscall(SYS_arch_prctl, ARCH_SET_GS, f.c);
    __asm__ volatile("call *%[code]"
                     : "=a"(ret)
                     : [code] "b"(f.code)
                     : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "cc", "memory", "xmm0", "xmm1",
                       "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
                       "xmm13", "xmm14", "xmm15");
    syscall(SYS_arch_prctl, ARCH_SET_GS, NULL);
    return ret;
}

static bool has_avx(void)
{
    if (__builtin_cpu_supports("avx"))
        return true;
    g_test_skip("the host has no AVX");
    return false;
}

static void test_load_all(void)
{
    if (!has_avx())
        return;
    start();
    *fpu_mxcsr(f.c) = 0x7fa1; /* towards zero, two flags */
    as_call_to(&f.as, f.th.ymm_load);
    put_dump();
    as_call_to(&f.as, f.th.vec_park);
    run();
    for (unsigned n = 0; n < 16; n++) {
        g_assert_cmpmem(f.ymm[n], 16, fpu_xmm(f.c, n), 16);
        g_assert_cmpmem(f.ymm[n] + 16, 16, fpu_xmm(f.c, n) + XS_YMM - XS_XMM, 16);
    }
    g_assert_cmphex(f.mxcsr, ==, 0x7fa1);
    g_assert_cmphex(__builtin_ia32_stmxcsr() & MXCSR_MASKS, ==, MXCSR_MASKS);
    g_assert_cmphex(__builtin_ia32_stmxcsr() & 0x6000, ==, 0);
    g_assert_true(f.c->vec_parked && f.c->ymm_parked);
    finish();
}

/* At the lower level the upper halves in memory stand. */
static void test_low_level(void)
{
    uint8_t high[256], want[16] = { 0 };

    start();
    memcpy(high, f.c->xsave + XS_YMM, 256);
    as_call_to(&f.as, f.th.vec_load);
    as_bytes(&f.as, (const uint8_t[]){ 0x0f, 0x57, 0xed }, 3); /* xorps xmm5, xmm5 */
    as_call_to(&f.as, f.th.vec_load);                          /* live: changes nothing */
    as_call_to(&f.as, f.th.vec_park);
    run();
    g_assert_cmpmem(fpu_xmm(f.c, 5), 16, want, 16);
    g_assert_cmpint(fpu_xmm(f.c, 4)[0], ==, 4 * 16 * 7 + 1 - 256);
    g_assert_cmpmem(f.c->xsave + XS_YMM, 256, high, 256);
    finish();
}

/* The higher level comes on top of changed low halves. */
static void test_level_up(void)
{
    if (!has_avx())
        return;
    start();
    as_call_to(&f.as, f.th.vec_load);
    as_bytes(&f.as, (const uint8_t[]){ 0x0f, 0x57, 0xed }, 3);       /* xorps xmm5, xmm5 */
    as_call_to(&f.as, f.th.ymm_load);
    as_bytes(&f.as, (const uint8_t[]){ 0xc5, 0xfc, 0x28, 0xf5 }, 4); /* vmovaps ymm6, ymm5 */
    as_call_to(&f.as, f.th.vec_park);
    run();
    g_assert_cmpint(fpu_xmm(f.c, 6)[0], ==, 0);
    g_assert_cmpmem(fpu_xmm(f.c, 6) + XS_YMM - XS_XMM, 16, fpu_xmm(f.c, 5) + XS_YMM - XS_XMM, 16);
    g_assert_cmpint(f.c->xsave[XS_YMM + 16 * 6], ==, (16 * 5 * 11 + 5) & 255);
    finish();
}

/* Flags that an instruction raised are the guest's. */
static void test_mxcsr_flags(void)
{
    start();
    as_call_to(&f.as, f.th.vec_load);
    as_bytes(&f.as, (const uint8_t[]){ 0x0f, 0x57, 0xc0, 0xf3, 0x0f, 0x5e, 0xc0 }, 7); /* 0 / 0 */
    as_call_to(&f.as, f.th.vec_park);
    run();
    g_assert_cmphex(*fpu_mxcsr(f.c), ==, MXCSR_DEFAULT | 1);
    finish();
}

static void test_load_keeps_flags(void)
{
    start();
    as_bytes(&f.as, (const uint8_t[]){ 0x31, 0xc0, 0xf9 }, 3); /* xor eax, eax; stc */
    as_call_to(&f.as, f.th.vec_load);
    as_bytes(&f.as, (const uint8_t[]){ 0x0f, 0x92, 0xc0, 0x50 }, 4); /* setc al; push rax */
    as_call_to(&f.as, f.th.vec_park);
    as_u8(&f.as, 0x58);
    g_assert_cmpuint(run(), ==, 1);
    finish();
}

static void test_x87_load(void)
{
    static const uint8_t one[10] = { [7] = 0x80, [8] = 0xff, [9] = 0x3f };
    uint64_t want = 0;

    start();
    memcpy(f.c->xsave + XS_ST, one, sizeof(one));
    f.c->xsave[XS_FTW] = 1 << 7;
    *fpu_word(f.c, XS_FSW) = 7 << 11;
    for (unsigned k = 0; k < 16; k++) {
        if (k == R_CX || k == R_SP || k == R_BX || k == R_BP || k >= R_12)
            continue;
        as_mov_imm(&f.as, k, 0x100 + k);
        want += 0x100 + k;
    }
    as_call_to(&f.as, f.th.x87_load);
    as_call_to(&f.as, f.th.x87_load); /* live: changes nothing */
    for (unsigned k = R_DX; k < R_12; k++)
        if (k != R_SP && k != R_BX && k != R_BP)
            as_alu_rr(&f.as, AS_ADD, 8, R_AX, k);
    g_assert_cmphex(run(), ==, want);
    g_assert_true(f.c->fpu_live);
    g_assert_false(f.c->fpu_unmasked);
    memset(f.c->xsave + XS_ST, 0, 10);
    fpu_park(f.c);
    g_assert_cmpmem(f.c->xsave + XS_ST, 10, one, 10);
    finish();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vector/load-all", test_load_all);
    g_test_add_func("/vector/low-level", test_low_level);
    g_test_add_func("/vector/level-up", test_level_up);
    g_test_add_func("/vector/mxcsr-flags", test_mxcsr_flags);
    g_test_add_func("/vector/load-keeps-flags", test_load_keeps_flags);
    g_test_add_func("/vector/x87-load", test_x87_load);
    return g_test_run();
}
