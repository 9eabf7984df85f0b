/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Arithmetic and logic: add to cmp, test, inc, dec, neg, not.
 *
 * Spec      Intel SDM volume 2.
 */
#include "cpu/translate/place.h"

/* --- add, or, adc, sbb, and, sub, xor, cmp --- */

static bool reads_carry(unsigned alu)
{
    return alu == AS_ADC || alu == AS_SBB;
}

/* How the flags of `dst OP src` come back. `src` R_NONE: imm. */
static struct flags alu_replay(unsigned alu, unsigned size, unsigned dst, unsigned src,
                               uint64_t imm)
{
    static const uint8_t kind[] = {
        [AS_ADD] = REPLAY_ADD, [AS_OR] = REPLAY_TEST,  [AS_AND] = REPLAY_TEST,
        [AS_SUB] = REPLAY_SUB, [AS_XOR] = REPLAY_TEST, [AS_CMP] = REPLAY_CMP
    };
    struct flags f = { .replay = kind[alu],
                       .size = (uint8_t)size,
                       .a = (uint8_t)dst,
                       .b = (uint8_t)src,
                       .imm = (int32_t)imm };

    if (alu == AS_SUB && src == dst)
        f.replay = REPLAY_TEST;
    else if (alu == AS_ADD && src == dst)
        f.replay = REPLAY_NONE;
    if (f.replay == REPLAY_TEST)
        f.b = f.a;
    return f;
}

/* A byte in AL to BL, where no REX is needed; S0 unless it is there already. */
static unsigned plain_byte(struct tr *t, unsigned reg)
{
    if (reg <= R_BX)
        return reg;
    as_mov32(&t->as, R_S0, reg);
    return R_S0;
}

/* dst OP src, both guest registers. */
static void alu_registers(struct tr *t, const struct insn *i, unsigned alu, unsigned dst,
                          unsigned src)
{
    unsigned size = i->opsize;
    bool high = is_high(i, dst, size), src_high = is_high(i, src, size);
    struct flags how = { 0 };

    if (reads_carry(alu))
        flags_need(t);
    struct dest d = dest_begin(t, i, dst, size, R_S1);
    if (high) {
        unsigned v = plain_byte(t, emit_byte(t, i, src, R_S0));
        as_op_rr(&t->as, (struct as_op){ .opcode = (uint8_t)(alu * 8), .size = 1 }, v, d.reg);
    } else if (src_high) {
        as_alu_rr(&t->as, alu, size, d.reg, emit_byte(t, i, src, R_S0));
    } else if (host_of[src] == R_NONE) {
        as_alu_rm(&t->as, alu, size, d.reg, gpr_mem(src));
    } else {
        as_alu_rr(&t->as, alu, size, d.reg, host_of[src]);
    }
    if (alu != AS_CMP)
        dest_end(t, d);
    if (!high && !src_high)
        how = alu_replay(alu, size, dst, src, 0);
    flags_produced(t, how);
}

/* rm OP reg */
static bool alu_EG(struct tr *t, const struct insn *i, unsigned alu)
{
    unsigned size = i->opsize;

    if (!i->mem) {
        alu_registers(t, i, alu, i->rm, i->reg);
        return true;
    }
    struct as_op op = op_sized(alu * 8, size);
    op.lock = i->lock;
    struct as_mem m = emit_near_mem(t, i, size, alu != AS_CMP);
    if (reads_carry(alu))
        flags_need_keep(t);
    as_op_rm(&t->as, op, size == 1 ? emit_byte(t, i, i->reg, R_S1) : emit_reg(t, i->reg, R_S1), m);
    flags_produced(t, (struct flags){ 0 });
    return true;
}

/* reg OP rm */
static bool alu_GE(struct tr *t, const struct insn *i, unsigned alu)
{
    if (!i->mem) {
        alu_registers(t, i, alu, i->reg, i->rm);
        return true;
    }
    struct as_mem m = emit_near_mem(t, i, i->opsize, false);
    if (reads_carry(alu))
        flags_need_keep(t);
    struct dest d = dest_begin(t, i, i->reg, i->opsize, R_S1);
    as_op_rm(&t->as, op_dest(op_sized(alu * 8 + 2, i->opsize), d), d.reg, m);
    if (alu != AS_CMP)
        dest_end(t, d);
    struct flags how = { 0 };
    if (!d.high && (alu == AS_AND || alu == AS_OR || alu == AS_XOR))
        how = alu_replay(alu, i->opsize, i->reg, i->reg, 0);
    flags_produced(t, how);
    return true;
}

/* OP place, imm; the operation's ModRM.reg is `ext` of opcodes 80, 81, 83. */
static void alu_imm_memory(struct tr *t, const struct insn *i, unsigned alu, struct as_mem m)
{
    bool short_imm = i->opsize == 1 || (int64_t)i->imm == (int8_t)i->imm;
    struct as_op op = { .opcode = i->opsize == 1 ? 0x80
                                  : short_imm    ? 0x83
                                                 : 0x81,
                        .size = i->opsize,
                        .lock = i->lock,
                        .ext = true };

    as_op_rm(&t->as, op, alu, m);
    as_imm(&t->as, short_imm ? 1 : i->opsize, i->imm);
}

/* rm OP imm */
static bool alu_EI(struct tr *t, const struct insn *i, unsigned alu)
{
    unsigned size = i->opsize;

    if (i->mem) {
        struct as_mem m = emit_near_mem(t, i, size, alu != AS_CMP);
        if (reads_carry(alu))
            flags_need_keep(t);
        alu_imm_memory(t, i, alu, m);
        flags_produced(t, (struct flags){ 0 });
        return true;
    }
    if (reads_carry(alu))
        flags_need(t);
    struct dest d = dest_begin(t, i, i->rm, size, R_S1);
    struct flags how = { 0 };
    if (d.high) {
        as_op_rr(&t->as, (struct as_op){ .opcode = 0x80, .size = 1, .ext = true }, alu, d.reg);
        as_imm(&t->as, 1, i->imm);
    } else {
        as_alu_ri(&t->as, alu, size, d.reg, (int32_t)i->imm);
        how = alu_replay(alu, size, i->rm, R_NONE, i->imm);
    }
    if (alu != AS_CMP)
        dest_end(t, d);
    flags_produced(t, how);
    return true;
}

#define ALU_EMITTERS(name, alu)                                                                    \
    static bool emit_##name##_EG(struct tr *t, const struct insn *i)                               \
    {                                                                                              \
        return alu_EG(t, i, alu);                                                                  \
    }                                                                                              \
    static bool emit_##name##_GE(struct tr *t, const struct insn *i)                               \
    {                                                                                              \
        return alu_GE(t, i, alu);                                                                  \
    }                                                                                              \
    static bool emit_##name##_EI(struct tr *t, const struct insn *i)                               \
    {                                                                                              \
        return alu_EI(t, i, alu);                                                                  \
    }
ALU_EMITTERS(add, AS_ADD)
ALU_EMITTERS(or, AS_OR)
ALU_EMITTERS(adc, AS_ADC)
ALU_EMITTERS(sbb, AS_SBB)
ALU_EMITTERS(and, AS_AND)
ALU_EMITTERS(sub, AS_SUB)
ALU_EMITTERS(xor, AS_XOR)
ALU_EMITTERS(cmp, AS_CMP)

/* --- test --- */

static bool emit_test_EG(struct tr *t, const struct insn *i)
{
    unsigned size = i->opsize;
    bool high = is_high(i, i->reg, size) || (!i->mem && is_high(i, i->rm, size));
    struct flags how = { 0 };
    struct place rm = { 0 };

    if (i->mem)
        rm = place_mem(t, i, size, false);
    unsigned reg = size == 1 ? emit_byte(t, i, i->reg, R_S1) : emit_reg(t, i->reg, R_S1);
    if (!i->mem)
        rm = high ? place_reg(emit_byte(t, i, i->rm, R_S0)) : place_gpr(i->rm);
    place_op(t, op_sized(0x84, size), reg, rm);
    if (!i->mem && !high)
        how =
            (struct flags){ .replay = REPLAY_TEST, .size = (uint8_t)size, .a = i->rm, .b = i->reg };
    flags_produced(t, how);
    return true;
}

static bool emit_test_EI(struct tr *t, const struct insn *i)
{
    unsigned size = i->opsize;
    struct flags how = { 0 };

    if (i->mem) {
        as_op_rm(&t->as, op_group(0xf6, size), 0, emit_near_mem(t, i, size, false));
        as_imm(&t->as, size, i->imm);
    } else if (is_high(i, i->rm, size)) {
        as_test_ri(&t->as, 1, emit_byte(t, i, i->rm, R_S0), (int32_t)i->imm);
    } else {
        as_test_ri(&t->as, size, emit_reg(t, i->rm, R_S0), (int32_t)i->imm);
        how = (struct flags){ .replay = REPLAY_TEST,
                              .size = (uint8_t)size,
                              .a = i->rm,
                              .b = R_NONE,
                              .imm = (int32_t)i->imm };
    }
    flags_produced(t, how);
    return true;
}

/* --- one operand --- */

/* Opcode `op` (or + 1) /ext on the ModRM operand. `reads`: flags must be the guest's. */
static void unary(struct tr *t, const struct insn *i, unsigned op, unsigned ext, bool reads)
{
    unsigned size = i->opsize;

    if (i->mem) {
        struct as_op o = op_group(op, size);
        o.lock = i->lock;
        struct as_mem m = emit_near_mem(t, i, size, true);
        if (reads)
            flags_need_keep(t);
        as_op_rm(&t->as, o, ext, m);
        return;
    }
    if (reads)
        flags_need(t);
    struct dest d = dest_begin(t, i, i->rm, size, R_S1);
    as_op_rr(&t->as, op_dest(op_group(op, size), d), ext, d.reg);
    dest_end(t, d);
}

static bool emit_inc(struct tr *t, const struct insn *i)
{
    unary(t, i, 0xfe, 0, !flags_dead_behind(t));
    flags_produced(t, (struct flags){ 0 });
    return true;
}

static bool emit_dec(struct tr *t, const struct insn *i)
{
    unary(t, i, 0xfe, 1, !flags_dead_behind(t));
    flags_produced(t, (struct flags){ 0 });
    return true;
}

static bool emit_neg(struct tr *t, const struct insn *i)
{
    bool plain = !i->mem && !is_high(i, i->rm, i->opsize);

    unary(t, i, 0xf6, 3, false);
    flags_produced(
        t, plain
               ? (struct flags){ .replay = REPLAY_NEG, .size = i->opsize, .a = i->rm, .b = R_NONE }
               : (struct flags){ 0 });
    return true;
}

static bool emit_not(struct tr *t, const struct insn *i)
{
    if (!i->mem)
        flags_reg_changes(t, is_high(i, i->rm, i->opsize) ? i->rm - 4u : i->rm);
    unary(t, i, 0xf6, 2, false);
    return true;
}

#define ALU_ROWS(name)                                                                             \
    { x_##name##_EG, emit_##name##_EG }, { x_##name##_GE, emit_##name##_GE },                      \
    {                                                                                              \
        x_##name##_EI, emit_##name##_EI                                                            \
    }
static const struct emit_row rows[] = {
    ALU_ROWS(add),
    ALU_ROWS(or),
    ALU_ROWS(adc),
    ALU_ROWS(sbb),
    ALU_ROWS(and),
    ALU_ROWS(sub),
    ALU_ROWS(xor),
    ALU_ROWS(cmp),
    { x_test_EG, emit_test_EG },
    { x_test_EI, emit_test_EI },
    { x_inc_E, emit_inc },
    { x_dec_E, emit_dec },
    { x_neg_E, emit_neg },
    { x_not_E, emit_not },
};
EMIT_ROWS(alu_rows, rows);
