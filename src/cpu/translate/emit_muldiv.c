/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Multiplication and division.
 *
 * Spec      Intel SDM volume 2.
 *
 * Guest RAX comes to the host's for the instruction; RDX is the host's anyway. A division runs here
 * only when its quotient is known to fit: the rest, and the faults, are the handler's. It keeps
 * flags, as the handler does.
 */
#include "cpu/translate/place.h"

enum { RAX = 0, RDX = 2 };

/* S1 = the operand, zero-extended below 4 bytes, at least in its low `size` bytes. */
static void operand_to_s1(struct tr *t, const struct insn *i)
{
    unsigned size = i->opsize;

    if (i->mem) {
        emit_mem(t, i, size, false, 1);
        as_load(&t->as, size, R_S1, AS_AT(R_S0, 0));
        return;
    }
    unsigned r = size == 1 ? emit_byte(t, i, i->rm, R_S1) : emit_reg(t, i->rm, R_S1);
    if (r != R_S1)
        as_mov(&t->as, R_S1, r);
}

/* Guest RAX = AX; for bytes just the 16 bits of the answer. */
static void rax_back(struct tr *t, unsigned size)
{
    if (size <= 2)
        as_op_rr(&t->as, (struct as_op){ .opcode = 0x89, .size = 2 }, R_AX, host_of[RAX]);
    else
        as_mov(&t->as, host_of[RAX], R_AX);
}

static void group3(struct tr *t, unsigned size, unsigned ext)
{
    as_op_rr(&t->as, op_sized(0xf6, size), ext, R_S1);
}

static bool emit_mul_any(struct tr *t, const struct insn *i, unsigned ext)
{
    operand_to_s1(t, i);
    as_mov(&t->as, R_AX, host_of[RAX]);
    group3(t, i->opsize, ext);
    rax_back(t, i->opsize);
    flags_produced(t, (struct flags){ 0 });
    return true;
}

static bool emit_mul(struct tr *t, const struct insn *i)
{
    return emit_mul_any(t, i, 4);
}

static bool emit_imul(struct tr *t, const struct insn *i)
{
    return emit_mul_any(t, i, 5);
}

static bool emit_imul_GE(struct tr *t, const struct insn *i)
{
    struct place src = place_rm(t, i, i->opsize, false);
    unsigned dst = emit_reg(t, i->reg, R_S1);

    place_op(t, (struct as_op){ .map = 1, .opcode = 0xaf, .size = i->opsize }, dst, src);
    emit_reg_done(t, i->reg, dst);
    flags_produced(t, (struct flags){ 0 });
    return true;
}

static bool emit_imul_GEI(struct tr *t, const struct insn *i)
{
    bool short_imm = (int64_t)i->imm == (int8_t)i->imm;
    struct place src = place_rm(t, i, i->opsize, false);
    unsigned dst = i->opsize == 2 ? emit_reg(t, i->reg, R_S1) : emit_reg_dst(t, i->reg, R_S1);

    place_op(t, (struct as_op){ .opcode = short_imm ? 0x6b : 0x69, .size = i->opsize }, dst, src);
    as_imm(&t->as, short_imm ? 1 : i->opsize, i->imm);
    emit_reg_done(t, i->reg, dst);
    flags_produced(t, (struct flags){ 0 });
    return true;
}

/* --- division --- */

static void divide_begin(struct tr *t, const struct insn *i)
{
    flags_reg_changes(t, RAX);
    if (i->opsize > 1)
        flags_reg_changes(t, RDX);
    flags_clobber(t);
    operand_to_s1(t, i);
    as_mov(&t->as, R_AX, host_of[RAX]);
}

/* The high half below the divisor: then the quotient fits, and the divisor is not 0. */
static bool emit_div(struct tr *t, const struct insn *i)
{
    divide_begin(t, i);
    if (i->opsize == 1)
        as_bytes(&t->as, "\x38\xcc", 2); /* cmp ah, cl */
    else
        as_alu_rr(&t->as, AS_CMP, i->opsize, R_DX, R_S1);
    emit_slow_if(t, CC_AE);
    group3(t, i->opsize, 6);
    rax_back(t, i->opsize);
    return true;
}

/* A dividend that is the low half, sign-extended, and a divisor but 0 and -1: the quotient fits. */
static bool emit_idiv(struct tr *t, const struct insn *i)
{
    unsigned size = i->opsize;

    divide_begin(t, i);
    if (size == 1) {
        as_extend(&t->as, true, 1, 2, R_AX, R_AX);
        as_alu_rr(&t->as, AS_CMP, 2, R_AX, host_of[RAX]);
    } else {
        as_shift_ri(&t->as, 7, size, R_AX, 8 * size - 1);
        as_alu_rr(&t->as, AS_CMP, size, R_AX, R_DX);
    }
    emit_slow_if(t, CC_NE);
    as_lea(&t->as, 8, R_AX, AS_AT(R_S1, 1));
    as_alu_ri(&t->as, AS_CMP, size, R_AX, 1);
    emit_slow_if(t, CC_BE);
    as_mov(&t->as, R_AX, host_of[RAX]);
    group3(t, size, 7);
    rax_back(t, size);
    return true;
}

static const struct emit_row rows[] = {
    { x_mul_E, emit_mul },         { x_imul_E, emit_imul }, { x_imul_GE, emit_imul_GE },
    { x_imul_GEI, emit_imul_GEI }, { x_div_E, emit_div },   { x_idiv_E, emit_idiv },
};
EMIT_ROWS(muldiv_rows, rows);
