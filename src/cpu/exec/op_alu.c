/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Integer arithmetic and logic, every size and form. The common forms have threaded versions in hot.c,
 * which come here when memory is not at hand.
 *
 * Spec      Intel SDM volume 2.
 */
#include "cpu/exec/alu.h"
#include "cpu/exec/handlers.h"
#include "cpu/exec/operand.h"
#include "cpu/shared.h"

/* rm = rm OP b */
static inline int alu_modify(struct cpu *c, const struct insn *i, alu_binary_fn *fn, uint64_t b)
{
    uint16_t flags;
    uint64_t v;
    struct rmw m;

    if (rmw_begin(c, i, i->opsize, &m))
        return X_FAULT;
    do {
        flags = c->flags_ax;
        v = fn(i->opsize, m.old, b, &flags);
    } while (!rmw_commit(c, i, &m, v));
    if (!m.status)
        c->flags_ax = flags;
    return m.status;
}

/* reg = reg OP rm */
static inline int alu_to_reg(struct cpu *c, const struct insn *i, alu_binary_fn *fn)
{
    uint64_t b;

    if (op_rm(c, i, i->opsize, &b))
        return X_FAULT;
    op_reg_set(c, i, i->reg, i->opsize, fn(i->opsize, op_reg(c, i, i->reg, i->opsize), b, &c->flags_ax));
    return X_NEXT;
}

#define ALU_HANDLERS(name)                                                                         \
    int x_##name##_EG(struct cpu *c, const struct insn *i)                                          \
    {                                                                                              \
        return alu_modify(c, i, alu_##name, op_reg(c, i, i->reg, i->opsize));                      \
    }                                                                                              \
    int x_##name##_GE(struct cpu *c, const struct insn *i)                                          \
    {                                                                                              \
        return alu_to_reg(c, i, alu_##name);                                                       \
    }                                                                                              \
    int x_##name##_EI(struct cpu *c, const struct insn *i)                                          \
    {                                                                                              \
        return alu_modify(c, i, alu_##name, i->imm);                                               \
    }
ALU_HANDLERS(add)
ALU_HANDLERS(or)
ALU_HANDLERS(adc)
ALU_HANDLERS(sbb)
ALU_HANDLERS(and)
ALU_HANDLERS(sub)
ALU_HANDLERS(xor)

/* Flags of rm OP b, nothing written. */
static inline int alu_compare(struct cpu *c, const struct insn *i, alu_binary_fn *fn, uint64_t b)
{
    uint64_t a;

    if (op_rm(c, i, i->opsize, &a))
        return X_FAULT;
    fn(i->opsize, a, b, &c->flags_ax);
    return X_NEXT;
}

#define COMPARE_HANDLERS(name)                                                                     \
    int x_##name##_EG(struct cpu *c, const struct insn *i)                                          \
    {                                                                                              \
        return alu_compare(c, i, alu_##name, op_reg(c, i, i->reg, i->opsize));                     \
    }                                                                                              \
    int x_##name##_EI(struct cpu *c, const struct insn *i)                                          \
    {                                                                                              \
        return alu_compare(c, i, alu_##name, i->imm);                                              \
    }
COMPARE_HANDLERS(cmp)
COMPARE_HANDLERS(test)

int x_cmp_GE(struct cpu *c, const struct insn *i)
{
    uint64_t b;

    if (op_rm(c, i, i->opsize, &b))
        return X_FAULT;
    alu_cmp(i->opsize, op_reg(c, i, i->reg, i->opsize), b, &c->flags_ax);
    return X_NEXT;
}

int x_inc_E(struct cpu *c, const struct insn *i)
{
    return alu_modify(c, i, alu_inc, 0);
}

int x_dec_E(struct cpu *c, const struct insn *i)
{
    return alu_modify(c, i, alu_dec, 0);
}

int x_neg_E(struct cpu *c, const struct insn *i)
{
    return alu_modify(c, i, alu_neg, 0);
}

static uint64_t alu_not(unsigned size, uint64_t a, uint64_t b, uint16_t *flags)
{
    return ~a;
}

int x_not_E(struct cpu *c, const struct insn *i)
{
    return alu_modify(c, i, alu_not, 0);
}

/* --- shifts and rotates --- */

#define SHIFT_HANDLERS(name)                                                                       \
    int x_##name##_EI(struct cpu *c, const struct insn *i)                                          \
    {                                                                                              \
        return alu_modify(c, i, alu_##name, i->imm);                                               \
    }                                                                                              \
    int x_##name##_E1(struct cpu *c, const struct insn *i)                                          \
    {                                                                                              \
        return alu_modify(c, i, alu_##name, 1);                                                    \
    }                                                                                              \
    int x_##name##_EC(struct cpu *c, const struct insn *i)                                          \
    {                                                                                              \
        return alu_modify(c, i, alu_##name, (uint8_t)c->gpr[1]);                                   \
    }
SHIFT_HANDLERS(rol)
SHIFT_HANDLERS(ror)
SHIFT_HANDLERS(rcl)
SHIFT_HANDLERS(rcr)
SHIFT_HANDLERS(shl)
SHIFT_HANDLERS(shr)
SHIFT_HANDLERS(sar)

static int double_shift(struct cpu *c, const struct insn *i, bool right, uint8_t count)
{
    uint64_t v, src = c->gpr[i->reg];
    uint16_t flags;
    struct rmw m;

    if (rmw_begin(c, i, i->opsize, &m))
        return X_FAULT;
    flags = c->flags_ax;
    v = right ? alu_shrd(i->opsize, m.old, src, count, &flags)
              : alu_shld(i->opsize, m.old, src, count, &flags);
    rmw_commit(c, i, &m, v);
    if (!m.status)
        c->flags_ax = flags;
    return m.status;
}

int x_shld_EGI(struct cpu *c, const struct insn *i)
{
    return double_shift(c, i, false, (uint8_t)i->imm);
}

int x_shld_EGC(struct cpu *c, const struct insn *i)
{
    return double_shift(c, i, false, (uint8_t)c->gpr[1]);
}

int x_shrd_EGI(struct cpu *c, const struct insn *i)
{
    return double_shift(c, i, true, (uint8_t)i->imm);
}

int x_shrd_EGC(struct cpu *c, const struct insn *i)
{
    return double_shift(c, i, true, (uint8_t)c->gpr[1]);
}

/* --- flags --- */

int x_sahf(struct cpu *c, const struct insn *i)
{
    if ((c->mode & MODE_CODE64) && !cpu_has(c, F_LAHF64))
        return cpu_raise(c, EXC_UD);
    c->flags_ax = (uint16_t)((c->gpr[0] & 0xd500) | (c->flags_ax & 1));
    return X_NEXT;
}

int x_lahf(struct cpu *c, const struct insn *i)
{
    if ((c->mode & MODE_CODE64) && !cpu_has(c, F_LAHF64))
        return cpu_raise(c, EXC_UD);
    reg8_set(c, 4, false, (uint8_t)((c->flags_ax >> 8) | 2));
    return X_NEXT;
}

int x_cmc(struct cpu *c, const struct insn *i)
{
    c->flags_ax ^= FLAG_CF << 8;
    return X_NEXT;
}

int x_clc(struct cpu *c, const struct insn *i)
{
    c->flags_ax &= (uint16_t)~(FLAG_CF << 8);
    return X_NEXT;
}

int x_stc(struct cpu *c, const struct insn *i)
{
    c->flags_ax |= FLAG_CF << 8;
    return X_NEXT;
}

int x_cld(struct cpu *c, const struct insn *i)
{
    c->flags_sys &= ~FLAG_DF;
    return X_NEXT;
}

int x_std(struct cpu *c, const struct insn *i)
{
    c->flags_sys |= FLAG_DF;
    return X_NEXT;
}

int x_salc(struct cpu *c, const struct insn *i)
{
    reg8_set(c, 0, true, c->flags_ax & (FLAG_CF << 8) ? 0xff : 0);
    return X_NEXT;
}

int x_setcc(struct cpu *c, const struct insn *i)
{
    return op_rm_set(c, i, 1, alu_condition(c->flags_ax, insn_rows[i->row].opcode & 15));
}

int x_cmovcc(struct cpu *c, const struct insn *i)
{
    uint64_t v;

    if (op_rm(c, i, i->opsize, &v))
        return X_FAULT;
    if (!alu_condition(c->flags_ax, insn_rows[i->row].opcode & 15))
        v = c->gpr[i->reg];
    reg_set(c, i->reg, i->opsize, v);
    return X_NEXT;
}

int x_cbw(struct cpu *c, const struct insn *i)
{
    reg_set(c, 0, i->opsize, sign_extend(c->gpr[0], i->opsize / 2));
    return X_NEXT;
}

int x_cwd(struct cpu *c, const struct insn *i)
{
    reg_set(c, 2, i->opsize, sign_extend(c->gpr[0], i->opsize) >> 63 ? ~(uint64_t)0 : 0);
    return X_NEXT;
}
