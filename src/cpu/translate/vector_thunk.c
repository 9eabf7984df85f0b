/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The thunks that park and load vector and x87 registers. Contract in vector.h.
 *
 * Spec      Intel SDM volume 1, 10.2 and 14.1 (MXCSR, upper halves).
 */
#include "cpu/translate/vector.h"
#include "cpu/fpu/fpu.h"

#define XSAVE_AT(off) AS_GS(offsetof(struct cpu, xsave) + (off))
#define PARKED AS_GS(offsetof(struct cpu, vec_parked))
#define YMM_HIGH_PARKED AS_GS(offsetof(struct cpu, ymm_parked))
#define MXCSR AS_GS(offsetof(struct cpu, xsave) + XS_MXCSR)

/* --- pieces of code --- */

static void put_ldmxcsr(struct as *a, struct as_mem m)
{
    as_op_rm(a, (struct as_op){ .map = 1, .opcode = 0xae, .size = 4 }, 2, m);
}

static void put_stmxcsr(struct as *a, struct as_mem m)
{
    as_op_rm(a, (struct as_op){ .map = 1, .opcode = 0xae, .size = 4 }, 3, m);
}

static void put_vzeroupper(struct as *a)
{
    as_bytes(a, (const uint8_t[]){ 0xc5, 0xf8, 0x77 }, 3);
}

/* Low halves: movaps from or to cpu->xsave. */
static void put_low_halves(struct as *a, bool store)
{
    struct as_op op = { .map = 1, .opcode = store ? 0x29 : 0x28, .size = 4 };

    for (unsigned n = 0; n < 16; n++)
        as_op_rm(a, op, n, XSAVE_AT(XS_XMM + 16 * n));
}

/* High halves: vextractf128 or vinsertf128. */
static void put_high_halves(struct as *a, bool store)
{
    struct as_vex op = { .map = 3, .opcode = store ? 0x19 : 0x18, .pfx = 0x66, .l = true };

    for (unsigned n = 0; n < 16; n++) {
        as_vex_rm(a, op, n, store ? 0 : n, XSAVE_AT(XS_YMM + 16 * n));
        as_u8(a, 1);
    }
}

/* Jumps if the 64 bits at `m` are 0; host flags stay. Destroys S1. */
static struct as_fix put_jump_if_zero(struct as *a, struct as_mem m)
{
    as_load(a, 8, R_S1, m);
    struct as_fix zero = as_jrcxz(a), other = as_jmp(a, false);
    as_fix_here(a, zero);
    struct as_fix out = as_jmp(a, true);
    as_fix_here(a, other);
    return out;
}

/* --- thunks --- */

/* The host's MXCSR, unless the guest's has the same control bits: its flags do not matter to C. */
static void put_host_mxcsr(struct as *a)
{
    as_load(a, 4, R_S1, MXCSR);
    as_alu_ri(a, AS_AND, 4, R_S1, (int32_t)~FPU_EXCEPTIONS);
    as_alu_ri(a, AS_CMP, 4, R_S1, MXCSR_DEFAULT);
    struct as_fix same = as_jcc(a, CC_E, false);
    as_u8(a, 0x68); /* push imm32 */
    as_u32(a, MXCSR_DEFAULT);
    put_ldmxcsr(a, AS_AT(R_SP, 0));
    as_pop(a, R_S1);
    as_fix_here(a, same);
}

static void make_park(struct as *a)
{
    struct as_fix parked = put_jump_if_zero(a, PARKED);
    as_ret(a); /* nothing is live */
    as_fix_here(a, parked);
    put_stmxcsr(a, MXCSR);
    put_low_halves(a, true);
    as_alu_mi(a, AS_CMP, 8, YMM_HIGH_PARKED, 0);
    struct as_fix narrow = as_jcc(a, CC_NE, true);
    put_high_halves(a, true);
    put_vzeroupper(a);
    as_store_imm32(a, 8, YMM_HIGH_PARKED, 1);
    as_fix_here(a, narrow);
    as_store_imm32(a, 8, PARKED, 1);
    put_host_mxcsr(a);
    as_ret(a);
}

static void put_load_low(struct as *a)
{
    put_low_halves(a, false);
    put_ldmxcsr(a, MXCSR);
    as_store_imm32(a, 8, PARKED, 0);
}

static void make_load(struct as *a)
{
    struct as_fix live = put_jump_if_zero(a, PARKED);
    put_load_low(a);
    as_fix_here(a, live);
    as_ret(a);
}

static void make_ymm_load(struct as *a)
{
    struct as_fix live = put_jump_if_zero(a, YMM_HIGH_PARKED);
    struct as_fix low_live = put_jump_if_zero(a, PARKED);
    put_load_low(a);
    as_fix_here(a, low_live);
    put_high_halves(a, false);
    as_store_imm32(a, 8, YMM_HIGH_PARKED, 0);
    as_fix_here(a, live);
    as_ret(a);
}

/* What C may change and holds guest registers or scratch. */
static const uint8_t c_clobbers[] = { R_AX, R_DX, R_SI, R_DI, R_8, R_9, R_10, R_11 };

static void make_x87_load(struct as *a, const struct thunks *th)
{
    as_alu_mi(a, AS_CMP, 1, AS_GS(offsetof(struct cpu, fpu_live)), 0);
    struct as_fix dead = as_jcc(a, CC_E, false);
    as_ret(a);
    as_fix_here(a, dead);
    for (unsigned k = 0; k < ARRAY_COUNT(c_clobbers); k++)
        as_push(a, c_clobbers[k]);
    as_push(a, R_BP);
    as_mov(a, R_BP, R_SP);
    as_alu_ri(a, AS_AND, 8, R_SP, -16);
    as_call_to(a, th->vec_park);
    as_load(a, 8, R_DI, AS_GS(offsetof(struct cpu, self)));
    as_mov_imm(a, R_AX, (uint64_t)(uintptr_t)fpu_load_slow);
    as_bytes(a, (const uint8_t[]){ 0xff, 0xd0 }, 2); /* call rax */
    as_mov(a, R_SP, R_BP);
    as_pop(a, R_BP);
    for (unsigned k = ARRAY_COUNT(c_clobbers); k-- > 0;)
        as_pop(a, c_clobbers[k]);
    as_ret(a);
}

void vector_make_thunks(struct as *a, struct thunks *th)
{
    th->vec_park = a->p + a->to_rx;
    make_park(a);
    th->vec_load = a->p + a->to_rx;
    make_load(a);
    th->ymm_load = a->p + a->to_rx;
    make_ymm_load(a);
    th->x87_load = a->p + a->to_rx;
    make_x87_load(a, th);
}

void emit_park(struct as *a, const struct thunks *th)
{
    as_alu_mi(a, AS_CMP, 8, PARKED, 0);
    struct as_fix parked = as_jcc(a, CC_NE, false);
    as_call_to(a, th->vec_park);
    as_fix_here(a, parked);
}
