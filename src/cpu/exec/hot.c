/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Threaded handlers: the frequent forms of the frequent instructions, each for one operand size and one kind
 * of operand, so that nothing is left to decide at run time.
 *
 * Spec      Intel SDM volume 2.
 * Thread    The vCPU's own.
 */
#include "cpu/exec/hot_words.h"

/* --- two operands --- */

/* Register or immediate source, register destination. */
#define ALU_RR(name, bits, ...)                                                                    \
    HOT(name##_rr_##bits)                                                                          \
    {                                                                                              \
        PUT_##bits(rm, alu_##name##_##bits(GET_##bits(rm), GET_##bits(reg), &c->flags_ax));        \
        DONE;                                                                                      \
    }                                                                                              \
    HOT(name##_rg_##bits)                                                                          \
    {                                                                                              \
        PUT_##bits(reg, alu_##name##_##bits(GET_##bits(reg), GET_##bits(rm), &c->flags_ax));       \
        DONE;                                                                                      \
    }                                                                                              \
    HOT(name##_ri_##bits)                                                                          \
    {                                                                                              \
        PUT_##bits(rm, alu_##name##_##bits(GET_##bits(rm), (uint##bits##_t)(int64_t)i->imm, &c->flags_ax)); \
        DONE;                                                                                      \
    }
/* The same with a memory operand at LINEAR_##form. */
#define ALU_MEM(name, bits, form)                                                                  \
    HOT(name##_rm_##bits##_##form)                                                                 \
    {                                                                                              \
        HOST_AT(LINEAR_##form(), bits, read);                                                      \
        PUT_##bits(reg, alu_##name##_##bits(GET_##bits(reg), LOAD(bits), &c->flags_ax));           \
        DONE;                                                                                      \
    }                                                                                              \
    HOT(name##_mr_##bits##_##form)                                                                 \
    {                                                                                              \
        HOST_AT(LINEAR_##form(), bits, write);                                                     \
        STORE(bits, alu_##name##_##bits(LOAD(bits), GET_##bits(reg), &c->flags_ax));               \
        DONE;                                                                                      \
    }                                                                                              \
    HOT(name##_mi_##bits##_##form)                                                                 \
    {                                                                                              \
        HOST_AT(LINEAR_##form(), bits, write);                                                     \
        STORE(bits, alu_##name##_##bits(LOAD(bits), (uint##bits##_t)(int64_t)i->imm, &c->flags_ax));        \
        DONE;                                                                                      \
    }
/* cmp, test: nothing is written. */
#define COMPARE_RR(name, bits, ...)                                                                \
    HOT(name##_rr_##bits)                                                                          \
    {                                                                                              \
        alu_##name##_##bits(GET_##bits(rm), GET_##bits(reg), &c->flags_ax);                        \
        DONE;                                                                                      \
    }                                                                                              \
    HOT(name##_rg_##bits)                                                                          \
    {                                                                                              \
        alu_##name##_##bits(GET_##bits(reg), GET_##bits(rm), &c->flags_ax);                        \
        DONE;                                                                                      \
    }                                                                                              \
    HOT(name##_ri_##bits)                                                                          \
    {                                                                                              \
        alu_##name##_##bits(GET_##bits(rm), (uint##bits##_t)(int64_t)i->imm, &c->flags_ax);                 \
        DONE;                                                                                      \
    }
#define COMPARE_MEM(name, bits, form)                                                              \
    HOT(name##_rm_##bits##_##form)                                                                 \
    {                                                                                              \
        HOST_AT(LINEAR_##form(), bits, read);                                                      \
        alu_##name##_##bits(GET_##bits(reg), LOAD(bits), &c->flags_ax);                            \
        DONE;                                                                                      \
    }                                                                                              \
    HOT(name##_mr_##bits##_##form)                                                                 \
    {                                                                                              \
        HOST_AT(LINEAR_##form(), bits, read);                                                      \
        alu_##name##_##bits(LOAD(bits), GET_##bits(reg), &c->flags_ax);                            \
        DONE;                                                                                      \
    }                                                                                              \
    HOT(name##_mi_##bits##_##form)                                                                 \
    {                                                                                              \
        HOST_AT(LINEAR_##form(), bits, read);                                                      \
        alu_##name##_##bits(LOAD(bits), (uint##bits##_t)(int64_t)i->imm, &c->flags_ax);                     \
        DONE;                                                                                      \
    }

/* Four sizes of each, and the table row that names them. */
#define FOUR(RR, MEM, name)                                                                        \
    RR(name, 8) RR(name, 16) RR(name, 32) RR(name, 64)                                             \
    MEM(name, 8, B) MEM(name, 16, B) MEM(name, 32, B) MEM(name, 64, B)                             \
    MEM(name, 8, X) MEM(name, 16, X) MEM(name, 32, X) MEM(name, 64, X)
#define BY_SIZE(name, form) { hot_##name##_##form##_8, hot_##name##_##form##_16, hot_##name##_##form##_32, \
                              hot_##name##_##form##_64 }
#define BY_SIZE_M(name, form, ea)                                                                  \
    { hot_##name##_##form##_8_##ea, hot_##name##_##form##_16_##ea, hot_##name##_##form##_32_##ea,  \
      hot_##name##_##form##_64_##ea }

FOUR(ALU_RR, ALU_MEM, add)
FOUR(ALU_RR, ALU_MEM, or)
FOUR(ALU_RR, ALU_MEM, adc)
FOUR(ALU_RR, ALU_MEM, sbb)
FOUR(ALU_RR, ALU_MEM, and)
FOUR(ALU_RR, ALU_MEM, sub)
FOUR(ALU_RR, ALU_MEM, xor)
FOUR(COMPARE_RR, COMPARE_MEM, cmp)
FOUR(COMPARE_RR, COMPARE_MEM, test)

/* mov as one more of them: the source is the result. */
#define alu_mov_8(a, b, f)  (b)
#define alu_mov_16(a, b, f) (b)
#define alu_mov_32(a, b, f) (b)
#define alu_mov_64(a, b, f) (b)
#define MOV_MEM(name, bits, form)                                                                  \
    HOT(mov_rm_##bits##_##form)                                                                    \
    {                                                                                              \
        HOST_AT(LINEAR_##form(), bits, read);                                                      \
        PUT_##bits(reg, LOAD(bits));                                                               \
        DONE;                                                                                      \
    }                                                                                              \
    HOT(mov_mr_##bits##_##form)                                                                    \
    {                                                                                              \
        HOST_AT(LINEAR_##form(), bits, write);                                                     \
        STORE(bits, GET_##bits(reg));                                                              \
        DONE;                                                                                      \
    }                                                                                              \
    HOT(mov_mi_##bits##_##form)                                                                    \
    {                                                                                              \
        HOST_AT(LINEAR_##form(), bits, write);                                                     \
        STORE(bits, (uint##bits##_t)(int64_t)i->imm);                                                       \
        DONE;                                                                                      \
    }
FOUR(ALU_RR, MOV_MEM, mov)

/* --- one operand --- */

#define UNARY(name, bits)                                                                          \
    HOT(name##_r_##bits)                                                                           \
    {                                                                                              \
        PUT_##bits(rm, alu_##name##_##bits(GET_##bits(rm), &c->flags_ax));                         \
        DONE;                                                                                      \
    }
#define UNARY_MEM(name, bits, form)                                                                \
    HOT(name##_m_##bits##_##form)                                                                  \
    {                                                                                              \
        HOST_AT(LINEAR_##form(), bits, write);                                                     \
        STORE(bits, alu_##name##_##bits(LOAD(bits), &c->flags_ax));                                \
        DONE;                                                                                      \
    }
#define alu_not_8(a, f)  ((uint8_t)~(a))
#define alu_not_16(a, f) ((uint16_t)~(a))
#define alu_not_32(a, f) (~(a))
#define alu_not_64(a, f) (~(a))
FOUR(UNARY, UNARY_MEM, inc)
FOUR(UNARY, UNARY_MEM, dec)
FOUR(UNARY, UNARY_MEM, neg)
FOUR(UNARY, UNARY_MEM, not)

/* Shifts of a register, by an immediate or by CL. */
#define SHIFT(name, bits)                                                                          \
    HOT(name##_ri_##bits)                                                                          \
    {                                                                                              \
        PUT_##bits(rm, alu_##name##_##bits(GET_##bits(rm), (uint8_t)i->imm, &c->flags_ax));        \
        DONE;                                                                                      \
    }                                                                                              \
    HOT(name##_rc_##bits)                                                                          \
    {                                                                                              \
        PUT_##bits(rm, alu_##name##_##bits(GET_##bits(rm), (uint8_t)c->gpr[1], &c->flags_ax));     \
        DONE;                                                                                      \
    }
#define SHIFTS(name) SHIFT(name, 8) SHIFT(name, 16) SHIFT(name, 32) SHIFT(name, 64)
SHIFTS(shl)
SHIFTS(shr)
SHIFTS(sar)
SHIFTS(rol)
SHIFTS(ror)

/* --- widening moves, lea, conditional moves --- */

#define WIDEN(name, from, type, to)                                                                \
    HOT(name##_r_##from##_##to)                                                                    \
    {                                                                                              \
        PUT_##to(reg, (uint##to##_t)(type)GET_##from(rm));                                         \
        DONE;                                                                                      \
    }                                                                                              \
    WIDEN_MEM(name, from, type, to, B)                                                             \
    WIDEN_MEM(name, from, type, to, X)
#define WIDEN_MEM(name, from, type, to, form)                                                      \
    HOT(name##_m_##from##_##to##_##form)                                                           \
    {                                                                                              \
        HOST_AT(LINEAR_##form(), from, read);                                                      \
        PUT_##to(reg, (uint##to##_t)(type)LOAD(from));                                             \
        DONE;                                                                                      \
    }
WIDEN(movzx, 8, uint8_t, 32)
WIDEN(movzx, 16, uint16_t, 32)
WIDEN(movsx, 8, int8_t, 32)
WIDEN(movsx, 16, int16_t, 32)
WIDEN(movsx, 8, int8_t, 64)
WIDEN(movsx, 16, int16_t, 64)
WIDEN(movsx, 32, int32_t, 64)

#define LEA(bits)                                                                                  \
    HOT(lea_##bits##_B)                                                                            \
    {                                                                                              \
        PUT_##bits(reg, LINEAR_B());                                                               \
        DONE;                                                                                      \
    }                                                                                              \
    HOT(lea_##bits##_X)                                                                            \
    {                                                                                              \
        PUT_##bits(reg, hot_offset(c, i));                                                         \
        DONE;                                                                                      \
    }
LEA(32)
LEA(64)

#define CONDITIONAL(n)                                                                             \
    HOT(cmov32_r_##n)                                                                              \
    {                                                                                              \
        uint32_t a = GET_32(reg), b = GET_32(rm);                                                  \
        PUT_32(reg, COND_##n ? b : a);                                                             \
        DONE;                                                                                      \
    }                                                                                              \
    HOT(cmov64_r_##n)                                                                              \
    {                                                                                              \
        uint64_t a = GET_64(reg), b = GET_64(rm);                                                  \
        PUT_64(reg, COND_##n ? b : a);                                                             \
        DONE;                                                                                      \
    }                                                                                              \
    HOT(set_r_##n)                                                                                 \
    {                                                                                              \
        PUT_8(rm, COND_##n ? 1 : 0);                                                               \
        DONE;                                                                                      \
    }
FOR_ALL_CONDITIONS(CONDITIONAL)

HOT(imul_rr_32)
{
    PUT_32(reg, alu_imul_32(GET_32(reg), GET_32(rm), &c->flags_ax));
    DONE;
}

HOT(imul_rr_64)
{
    PUT_64(reg, alu_imul_64(GET_64(reg), GET_64(rm), &c->flags_ax));
    DONE;
}

HOT(imul_rri_32)
{
    PUT_32(reg, alu_imul_32(GET_32(rm), (uint32_t)i->imm, &c->flags_ax));
    DONE;
}

HOT(imul_rri_64)
{
    PUT_64(reg, alu_imul_64(GET_64(rm), (uint64_t)(int64_t)i->imm, &c->flags_ax));
    DONE;
}

/* The two halves of an immediate that needs 64 bits. */
HOT(movabs)
{
    PUT_64(rm, (uint64_t)(uint32_t)i->disp << 32 | (uint32_t)i->imm);
    DONE;
}

HOT(nop)
{
    DONE;
}

HOT(cdqe)
{
    c->gpr[0] = (uint64_t)(int64_t)(int32_t)c->gpr[0];
    DONE;
}

/* --- tables: what hot_bind.c chooses from --- */

#define ALU_FORMS(name)                                                                            \
    { .rr = BY_SIZE(name, rr), .rg = BY_SIZE(name, rg), .ri = BY_SIZE(name, ri),                   \
      .rm = { BY_SIZE_M(name, rm, B), BY_SIZE_M(name, rm, X) },                                    \
      .mr = { BY_SIZE_M(name, mr, B), BY_SIZE_M(name, mr, X) },                                    \
      .mi = { BY_SIZE_M(name, mi, B), BY_SIZE_M(name, mi, X) } }
const struct hot_binary hot_binaries[N_HOT_BINARY] = {
    [HOT_ADD] = ALU_FORMS(add), [HOT_OR] = ALU_FORMS(or), [HOT_ADC] = ALU_FORMS(adc),
    [HOT_SBB] = ALU_FORMS(sbb), [HOT_AND] = ALU_FORMS(and), [HOT_SUB] = ALU_FORMS(sub),
    [HOT_XOR] = ALU_FORMS(xor), [HOT_CMP] = ALU_FORMS(cmp), [HOT_TEST] = ALU_FORMS(test),
    [HOT_MOV] = ALU_FORMS(mov),
};

#define UNARY_FORMS(name)                                                                          \
    { .r = BY_SIZE(name, r), .m = { BY_SIZE_M(name, m, B), BY_SIZE_M(name, m, X) } }
const struct hot_unary hot_unaries[N_HOT_UNARY] = {
    [HOT_INC] = UNARY_FORMS(inc), [HOT_DEC] = UNARY_FORMS(dec), [HOT_NEG] = UNARY_FORMS(neg),
    [HOT_NOT] = UNARY_FORMS(not),
};

#define SHIFT_FORMS(name) { .ri = BY_SIZE(name, ri), .rc = BY_SIZE(name, rc) }
const struct hot_shift hot_shifts[N_HOT_SHIFT] = {
    [HOT_SHL] = SHIFT_FORMS(shl), [HOT_SHR] = SHIFT_FORMS(shr), [HOT_SAR] = SHIFT_FORMS(sar),
    [HOT_ROL] = SHIFT_FORMS(rol), [HOT_ROR] = SHIFT_FORMS(ror),
};

#define WIDEN_FORMS(name, from, to)                                                                \
    { hot_##name##_r_##from##_##to, hot_##name##_m_##from##_##to##_B, hot_##name##_m_##from##_##to##_X }
const struct hot_widen hot_widens[N_HOT_WIDEN] = {
    [HOT_MOVZX_8] = { { WIDEN_FORMS(movzx, 8, 32), WIDEN_FORMS(movzx, 8, 32) } },
    [HOT_MOVZX_16] = { { WIDEN_FORMS(movzx, 16, 32), WIDEN_FORMS(movzx, 16, 32) } },
    [HOT_MOVSX_8] = { { WIDEN_FORMS(movsx, 8, 32), WIDEN_FORMS(movsx, 8, 64) } },
    [HOT_MOVSX_16] = { { WIDEN_FORMS(movsx, 16, 32), WIDEN_FORMS(movsx, 16, 64) } },
    [HOT_MOVSX_32] = { { { NULL, NULL, NULL }, WIDEN_FORMS(movsx, 32, 64) } },
};

#define ROW_CMOV(n) { hot_cmov32_r_##n, hot_cmov64_r_##n },
#define ROW_SET(n)  hot_set_r_##n,
exec_op_fn *const hot_cmov[16][2] = { FOR_ALL_CONDITIONS(ROW_CMOV) };
exec_op_fn *const hot_set[16] = { FOR_ALL_CONDITIONS(ROW_SET) };

exec_op_fn *const hot_lea[2][2] = { { hot_lea_32_B, hot_lea_32_X }, { hot_lea_64_B, hot_lea_64_X } };
exec_op_fn *const hot_imul_rr[2] = { hot_imul_rr_32, hot_imul_rr_64 };
exec_op_fn *const hot_imul_rri[2] = { hot_imul_rri_32, hot_imul_rri_64 };

const struct hot_singles hot_singles = { .nop = hot_nop, .cdqe = hot_cdqe, .movabs = hot_movabs };
