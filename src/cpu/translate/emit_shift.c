/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Shifts and rotates, shld and shrd.
 *
 * Spec      Intel SDM volume 2.
 *
 * A count of 0 leaves all flags, a rotate most of them: then the guest's must be in the host's
 * before. Only shifts by a constant write all.
 */
#include "cpu/translate/place.h"

enum { RCX = 1 };
enum { ROL, ROR, RCL, RCR, SHL, SHR, SAR = 7 };

static bool rotates_carry(unsigned ext)
{
    return ext == RCL || ext == RCR;
}

static unsigned masked(const struct insn *i, uint64_t count)
{
    return (unsigned)count & (i->opsize == 8 ? 63 : 31);
}

/* A shift by a constant whose operand can be put aside for a replay, if one may come. */
static bool wants_replay(const struct tr *t, const struct insn *i, unsigned ext, unsigned count)
{
    return !i->mem && ext >= SHL && count && !is_high(i, i->rm, i->opsize) &&
           host_of[i->rm] != R_NONE && t->clobber_ahead[t->n + 1];
}

static bool shift_imm(struct tr *t, const struct insn *i, unsigned ext, unsigned count)
{
    static const uint8_t kind[] = { [SHL] = REPLAY_SHL, [SHR] = REPLAY_SHR, [SAR] = REPLAY_SAR };
    bool keeps = rotates_carry(ext) || ((ext < SHL || count == 0) && !flags_dead_behind(t));
    struct as_op op = op_group(count == 1 ? 0xd0 : 0xc0, i->opsize);
    struct flags how = { 0 };

    if (i->mem) {
        struct as_mem m = emit_near_mem(t, i, i->opsize, true);
        if (keeps)
            flags_need_keep(t);
        as_op_rm(&t->as, op, ext, m);
        if (count != 1)
            as_imm(&t->as, 1, count);
        flags_produced(t, how);
        return true;
    }
    if (keeps)
        flags_need(t);
    if (wants_replay(t, i, ext, count)) {
        as_store(&t->as, 8, AS_GS(offsetof(struct cpu, tx_slot)), host_of[i->rm]);
        how = (struct flags){ .replay = kind[ext],
                              .size = i->opsize,
                              .a = FLAGS_SLOT(0),
                              .b = R_NONE,
                              .imm = (int32_t)count };
    }
    struct dest d = dest_begin(t, i, i->rm, i->opsize, R_S1);
    as_op_rr(&t->as, op_dest(op, d), ext, d.reg);
    if (count != 1)
        as_imm(&t->as, 1, count);
    dest_end(t, d);
    flags_produced(t, how);
    return true;
}

static bool shift_cl(struct tr *t, const struct insn *i, unsigned ext)
{
    struct as_op op = op_group(0xd2, i->opsize);
    bool keeps = rotates_carry(ext) || !flags_dead_behind(t);

    if (i->mem) {
        struct as_mem m = emit_near_mem(t, i, i->opsize, true);
        if (keeps)
            flags_need_keep(t);
        as_mov32(&t->as, R_CX, host_of[RCX]);
        as_op_rm(&t->as, op, ext, m);
    } else {
        if (keeps)
            flags_need(t);
        as_mov32(&t->as, R_CX, host_of[RCX]);
        struct dest d = dest_begin(t, i, i->rm, i->opsize, R_S0);
        as_op_rr(&t->as, op_dest(op, d), ext, d.reg);
        dest_end(t, d);
    }
    flags_produced(t, (struct flags){ 0 });
    return true;
}

#define SHIFT_EMITTERS(name, ext)                                                                  \
    static bool emit_##name##_EI(struct tr *t, const struct insn *i)                               \
    {                                                                                              \
        return shift_imm(t, i, ext, masked(i, i->imm));                                            \
    }                                                                                              \
    static bool emit_##name##_E1(struct tr *t, const struct insn *i)                               \
    {                                                                                              \
        return shift_imm(t, i, ext, 1);                                                            \
    }                                                                                              \
    static bool emit_##name##_EC(struct tr *t, const struct insn *i)                               \
    {                                                                                              \
        return shift_cl(t, i, ext);                                                                \
    }
SHIFT_EMITTERS(rol, ROL)
SHIFT_EMITTERS(ror, ROR)
SHIFT_EMITTERS(rcl, RCL)
SHIFT_EMITTERS(rcr, RCR)
SHIFT_EMITTERS(shl, SHL)
SHIFT_EMITTERS(shr, SHR)
SHIFT_EMITTERS(sar, SAR)

/* --- shld, shrd --- */

/* rm = rm shifted, filled from reg. A memory operand leaves S1 for the filler, or for the count. */
static bool double_shift(struct tr *t, const struct insn *i, unsigned opcode, bool by_cl)
{
    unsigned count = masked(i, i->imm);
    bool keeps = (by_cl || count == 0) && !flags_dead_behind(t);
    struct as_op op = { .map = 1, .opcode = (uint8_t)opcode, .size = i->opsize };
    struct place rm = { 0 };
    struct dest d = { 0 };

    if (by_cl && host_of[i->reg] == R_NONE)
        return false;
    if (i->mem)
        rm = place_mem(t, i, i->opsize, true);
    if (keeps && i->mem)
        flags_need_keep(t);
    else if (keeps)
        flags_need(t);
    unsigned src = emit_reg(t, i->reg, R_S1);
    if (by_cl)
        as_mov32(&t->as, R_CX, host_of[RCX]);
    if (!i->mem) {
        d = dest_begin(t, i, i->rm, i->opsize, R_S0);
        rm = place_reg(d.reg);
    }
    place_op(t, op, src, rm);
    if (!by_cl)
        as_imm(&t->as, 1, count);
    if (!i->mem)
        dest_end(t, d);
    flags_produced(t, (struct flags){ 0 });
    return true;
}

static bool emit_shld_EGI(struct tr *t, const struct insn *i)
{
    return double_shift(t, i, 0xa4, false);
}

static bool emit_shld_EGC(struct tr *t, const struct insn *i)
{
    return double_shift(t, i, 0xa5, true);
}

static bool emit_shrd_EGI(struct tr *t, const struct insn *i)
{
    return double_shift(t, i, 0xac, false);
}

static bool emit_shrd_EGC(struct tr *t, const struct insn *i)
{
    return double_shift(t, i, 0xad, true);
}

#define SHIFT_ROWS(name)                                                                           \
    { x_##name##_EI, emit_##name##_EI }, { x_##name##_E1, emit_##name##_E1 },                      \
    {                                                                                              \
        x_##name##_EC, emit_##name##_EC                                                            \
    }
static const struct emit_row rows[] = {
    SHIFT_ROWS(rol),
    SHIFT_ROWS(ror),
    SHIFT_ROWS(rcl),
    SHIFT_ROWS(rcr),
    SHIFT_ROWS(shl),
    SHIFT_ROWS(shr),
    SHIFT_ROWS(sar),
    { x_shld_EGI, emit_shld_EGI },
    { x_shld_EGC, emit_shld_EGC },
    { x_shrd_EGI, emit_shrd_EGI },
    { x_shrd_EGC, emit_shrd_EGC },
};
EMIT_ROWS(shift_rows, rows);
