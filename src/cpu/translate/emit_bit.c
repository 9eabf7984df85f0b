/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bit tests, scans and counts, BMI1, BMI2, ADX, CRC32.
 *
 * Spec      Intel SDM volume 2. A model shows only features that the host has.
 */
#include "cpu/shared.h"
#include "cpu/translate/place.h"

/* --- bt, bts, btr, btc --- */

/* `ext`: 4 bt, 5 bts, 6 btr, 7 btc. The flags but CF are as they were. */
static bool bit_imm(struct tr *t, const struct insn *i, unsigned ext)
{
    struct as_op op = { .map = 1, .opcode = 0xba, .size = i->opsize, .lock = i->lock };
    bool keeps = !flags_dead_behind(t);

    if (i->mem) {
        emit_mem(t, i, i->opsize, ext != 4, 1);
        if (keeps)
            flags_need_keep(t);
        as_op_rm(&t->as, op, ext, AS_AT(R_S0, 0));
        as_u8(&t->as, (uint8_t)i->imm & (8 * i->opsize - 1));
    } else {
        if (keeps)
            flags_need(t);
        unsigned r = emit_reg(t, i->rm, R_S1);
        as_op_rr(&t->as, op, ext, r);
        as_u8(&t->as, (uint8_t)i->imm);
        if (ext != 4)
            emit_reg_done(t, i->rm, r);
    }
    flags_produced(t, (struct flags){ 0 });
    return true;
}

/* With memory the index reaches beyond the operand: S0 = address of the word that it selects, by
 * host arithmetic. */
static void bit_address(struct tr *t, const struct insn *i)
{
    unsigned index = emit_reg(t, i->reg, R_S1), shift = i->opsize == 8 ? 6 : i->opsize == 4 ? 5 : 4;

    /* The word's number, sign-extended, times its size, is what the linear address needs more. */
    if (i->opsize == 8)
        as_mov(&t->as, R_S1, index);
    else
        as_extend(&t->as, true, i->opsize, 8, R_S1, index);
    as_shift_ri(&t->as, 7, 8, R_S1, shift);
    as_shift_ri(&t->as, 4, 8, R_S1, shift - 3);
    as_store(&t->as, 8, AS_GS(offsetof(struct cpu, tx_tmp)), R_S1);
    emit_linear(t, i, R_S0, 0);
    as_alu_rm(&t->as, AS_ADD, i->adsize, R_S0, AS_GS(offsetof(struct cpu, tx_tmp)));
}

/* `opcode`: of the form with a register index. */
static bool bit_reg(struct tr *t, const struct insn *i, unsigned opcode)
{
    struct as_op op = { .map = 1, .opcode = (uint8_t)opcode, .size = i->opsize, .lock = i->lock };
    bool keeps = !flags_dead_behind(t), write = opcode != 0xa3;

    if (!i->mem) {
        if (keeps)
            flags_need(t);
        unsigned index = emit_reg(t, i->reg, R_S1), r = emit_reg(t, i->rm, R_S0);
        as_op_rr(&t->as, op, index, r);
        if (write)
            emit_reg_done(t, i->rm, r);
        flags_produced(t, (struct flags){ 0 });
        return true;
    }
    if (i->seg >= SEG_FS &&
        i->adsize == 4) /* the segment's base is not part of the sum that wraps */
        return false;
    flags_clobber(t);
    bit_address(t, i);
    emit_mem_s0(t, i->opsize, write, 1);
    unsigned index = emit_reg(t, i->reg, R_S1);
    if (index != R_S1)
        as_mov32(&t->as, R_S1, index);
    as_alu_ri(&t->as, AS_AND, 4, R_S1, 8 * i->opsize - 1);
    if (keeps)
        flags_need_keep(t);
    as_op_rm(&t->as, op, R_S1, AS_AT(R_S0, 0));
    flags_produced(t, (struct flags){ 0 });
    return true;
}

#define BIT_EMITTERS(name, op, ext)                                                                \
    static bool emit_##name##_EG(struct tr *t, const struct insn *i)                               \
    {                                                                                              \
        return bit_reg(t, i, op);                                                                  \
    }                                                                                              \
    static bool emit_##name##_EI(struct tr *t, const struct insn *i)                               \
    {                                                                                              \
        return bit_imm(t, i, ext);                                                                 \
    }
BIT_EMITTERS(bt, 0xa3, 4)
BIT_EMITTERS(bts, 0xab, 5)
BIT_EMITTERS(btr, 0xb3, 6)
BIT_EMITTERS(btc, 0xbb, 7)

/* --- scans and counts --- */

static bool scan(struct tr *t, const struct insn *i, unsigned pfx, unsigned opcode)
{
    struct place src = place_rm(t, i, i->opsize, false);
    unsigned dst = emit_reg(t, i->reg, R_S1);

    place_op(t,
             (struct as_op){
                 .map = 1, .opcode = (uint8_t)opcode, .pfx = (uint8_t)pfx, .size = i->opsize },
             dst, src);
    emit_reg_done(t, i->reg, dst);
    flags_produced(t, (struct flags){ 0 });
    return true;
}

static bool emit_bsf(struct tr *t, const struct insn *i)
{
    return scan(t, i, 0, 0xbc);
}

static bool emit_bsr(struct tr *t, const struct insn *i)
{
    return scan(t, i, 0, 0xbd);
}

static bool emit_tzcnt(struct tr *t, const struct insn *i)
{
    return scan(t, i, cpu_has(t->c, F_BMI1) ? 0xf3 : 0, 0xbc);
}

static bool emit_lzcnt(struct tr *t, const struct insn *i)
{
    return scan(t, i, cpu_has(t->c, F_LZCNT) ? 0xf3 : 0, 0xbd);
}

static bool emit_popcnt(struct tr *t, const struct insn *i)
{
    return scan(t, i, 0xf3, 0xb8);
}

/* --- CRC32 --- */

static bool crc32(struct tr *t, const struct insn *i, unsigned size)
{
    struct as_op op = { .map = 2,
                        .opcode = size == 1 ? 0xf0 : 0xf1,
                        .pfx = 0xf2,
                        .size = (uint8_t)size,
                        .byte_rm = size == 1 };
    struct place src;

    flags_reg_changes(t, i->reg);
    if (!i->mem && is_high(i, i->rm, size))
        src = place_reg(emit_byte(t, i, i->rm, R_S0));
    else
        src = place_rm(t, i, size, false);
    unsigned dst = emit_reg(t, i->reg, R_S1);
    place_op(t, op, dst, src);
    emit_reg_done(t, i->reg, dst);
    return true;
}

static bool emit_crc32_8(struct tr *t, const struct insn *i)
{
    return crc32(t, i, 1);
}

static bool emit_crc32_v(struct tr *t, const struct insn *i)
{
    return crc32(t, i, i->rex_w ? 8 : i->opsize_pfx ? 2 : 4);
}

/* --- ADX --- */

static bool add_carry(struct tr *t, const struct insn *i, unsigned pfx)
{
    struct place src = place_rm(t, i, i->opsize, false);

    if (i->mem)
        flags_need_keep(t);
    else
        flags_need(t);
    unsigned dst = emit_reg(t, i->reg, R_S1);
    place_op(t, (struct as_op){ .map = 2, .opcode = 0xf6, .pfx = (uint8_t)pfx, .size = i->opsize },
             dst, src);
    emit_reg_done(t, i->reg, dst);
    flags_produced(t, (struct flags){ 0 });
    return true;
}

static bool emit_adcx(struct tr *t, const struct insn *i)
{
    return add_carry(t, i, 0x66);
}

static bool emit_adox(struct tr *t, const struct insn *i)
{
    return add_carry(t, i, 0xf3);
}

/* --- BMI1, BMI2 --- */

/* What a VEX-encoded integer instruction does: its encoding, which registers it names, whether it
 * writes flags. */
struct bmi {
    uint8_t map, opcode, pfx;
    bool flags;
    uint8_t ext; /* ModRM.reg when it is no register: then vvvv is the destination */
    bool no_vvvv, imm;
};

static bool bmi(struct tr *t, const struct insn *i, struct bmi b)
{
    struct as_vex op = { .map = b.map, .opcode = b.opcode, .pfx = b.pfx, .w = i->opsize == 8 };
    unsigned n = b.ext ? i->vvvv : i->reg;

    if (!b.flags)
        flags_reg_changes(t, n);
    struct place src = place_rm(t, i, i->opsize, false);
    unsigned dst = emit_reg_dst(t, n, R_S1), other = 0;
    if (!b.ext && !b.no_vvvv)
        other = emit_reg(t, i->vvvv, R_S1);
    if (b.ext)
        place_vex(t, op, b.ext, dst, src);
    else
        place_vex(t, op, dst, other, src);
    if (b.imm)
        as_u8(&t->as, (uint8_t)i->imm);
    emit_reg_done(t, n, dst);
    if (b.flags)
        flags_produced(t, (struct flags){ 0 });
    return true;
}

#define BMI_EMITTER(name, m, op, p, ...)                                                           \
    static bool emit_##name(struct tr *t, const struct insn *i)                                    \
    {                                                                                              \
        return bmi(t, i, (struct bmi){ .map = m, .opcode = op, .pfx = p, __VA_ARGS__ });           \
    }
BMI_EMITTER(andn, 2, 0xf2, 0, .flags = true)
BMI_EMITTER(blsr, 2, 0xf3, 0, .flags = true, .ext = 1)
BMI_EMITTER(blsmsk, 2, 0xf3, 0, .flags = true, .ext = 2)
BMI_EMITTER(blsi, 2, 0xf3, 0, .flags = true, .ext = 3)
BMI_EMITTER(bextr, 2, 0xf7, 0, .flags = true)
BMI_EMITTER(bzhi, 2, 0xf5, 0, .flags = true)
BMI_EMITTER(pdep, 2, 0xf5, 0xf2)
BMI_EMITTER(pext, 2, 0xf5, 0xf3)
BMI_EMITTER(rorx, 3, 0xf0, 0xf2, .no_vvvv = true, .imm = true)
BMI_EMITTER(sarx, 2, 0xf7, 0xf3)
BMI_EMITTER(shlx, 2, 0xf7, 0x66)
BMI_EMITTER(shrx, 2, 0xf7, 0xf2)

/* rm times RDX: low half to vvvv, high half to reg, which wins. */
static bool emit_mulx(struct tr *t, const struct insn *i)
{
    flags_reg_changes(t, i->vvvv);
    flags_reg_changes(t, i->reg);
    struct place src = place_rm(t, i, i->opsize, false);
    unsigned lo = emit_reg_dst(t, i->vvvv, R_S1), hi = emit_reg_dst(t, i->reg, R_S0);
    place_vex(t, (struct as_vex){ .map = 2, .opcode = 0xf6, .pfx = 0xf2, .w = i->opsize == 8 }, hi,
              lo, src);
    emit_reg_done(t, i->vvvv, lo);
    emit_reg_done(t, i->reg, hi);
    return true;
}

static const struct emit_row rows[] = {
    { x_bt_EG, emit_bt_EG },   { x_bt_EI, emit_bt_EI },     { x_bts_EG, emit_bts_EG },
    { x_bts_EI, emit_bts_EI }, { x_btr_EG, emit_btr_EG },   { x_btr_EI, emit_btr_EI },
    { x_btc_EG, emit_btc_EG }, { x_btc_EI, emit_btc_EI },   { x_bsf, emit_bsf },
    { x_bsr, emit_bsr },       { x_tzcnt, emit_tzcnt },     { x_lzcnt, emit_lzcnt },
    { x_popcnt, emit_popcnt }, { x_crc32_8, emit_crc32_8 }, { x_crc32_v, emit_crc32_v },
    { x_adcx, emit_adcx },     { x_adox, emit_adox },       { x_andn, emit_andn },
    { x_blsr, emit_blsr },     { x_blsmsk, emit_blsmsk },   { x_blsi, emit_blsi },
    { x_bextr, emit_bextr },   { x_bzhi, emit_bzhi },       { x_pdep, emit_pdep },
    { x_pext, emit_pext },     { x_rorx, emit_rorx },       { x_sarx, emit_sarx },
    { x_shlx, emit_shlx },     { x_shrx, emit_shrx },       { x_mulx, emit_mulx },
};
EMIT_ROWS(bit_rows, rows);
