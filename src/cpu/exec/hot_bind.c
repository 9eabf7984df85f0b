/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Chooses the threaded handler of a decoded instruction, and makes a block's tail.
 *
 * Thread    The vCPU's own. What is decided here rests on the mode word, which is part of the block's key.
 */
#include "cpu/exec/handlers.h"
#include "cpu/exec/hot.h"

/* Returns the handler, or NULL: only the generic one serves. */
typedef exec_fn *hot_binder(struct cpu *c, struct insn *i, unsigned op);

static unsigned size_index(const struct insn *i)
{
    return (unsigned)__builtin_ctz(i->opsize);
}

/* --- addresses --- */

static bool address_fits(const struct cpu *c, const struct insn *i)
{
    if (c->mode & MODE_CODE64)
        return true;
    return (c->mode & MODE_FLAT) && i->seg < SEG_FS;
}

/* Fills the members that say the address: 0 for base + displacement, 1 for the full form, -1: cannot. */
static int bind_address(struct cpu *c, struct insn *i)
{
    int64_t disp = i->disp;

    if (!address_fits(c, i))
        return -1;
    if (i->base == BASE_RIP)
        disp += i->off + i->len;
    if (disp != (int32_t)disp)
        return -1;
    i->hdisp = (int32_t)disp;
    i->hbase = i->base == REG_NONE ? 17 : i->base;
    i->hindex = i->index == REG_NONE ? 17 : i->index;
    i->hseg = i->seg;
    i->hshift = (uint8_t)(64 - 8 * i->adsize);
    return i->index != REG_NONE || i->adsize != 8 || i->seg >= SEG_FS;
}

static exec_fn *pick(struct cpu *c, struct insn *i, const hot_sizes reg, const hot_sizes mem[2])
{
    if (!i->mem)
        return reg[size_index(i)];
    int ea = i->lock ? -1 : bind_address(c, i);
    return ea < 0 ? NULL : mem[ea][size_index(i)];
}

/* --- binders --- */

static exec_fn *bind_EG(struct cpu *c, struct insn *i, unsigned op)
{
    return pick(c, i, hot_binaries[op].rr, hot_binaries[op].mr);
}

static exec_fn *bind_GE(struct cpu *c, struct insn *i, unsigned op)
{
    return pick(c, i, hot_binaries[op].rg, hot_binaries[op].rm);
}

static exec_fn *bind_EI(struct cpu *c, struct insn *i, unsigned op)
{
    return pick(c, i, hot_binaries[op].ri, hot_binaries[op].mi);
}

static exec_fn *bind_E(struct cpu *c, struct insn *i, unsigned op)
{
    return pick(c, i, hot_unaries[op].r, hot_unaries[op].m);
}

static exec_fn *bind_shift_imm(struct cpu *c, struct insn *i, unsigned op)
{
    return i->mem ? NULL : hot_shifts[op].ri[size_index(i)];
}

static exec_fn *bind_shift_one(struct cpu *c, struct insn *i, unsigned op)
{
    i->imm = 1;
    return bind_shift_imm(c, i, op);
}

static exec_fn *bind_shift_cl(struct cpu *c, struct insn *i, unsigned op)
{
    return i->mem ? NULL : hot_shifts[op].rc[size_index(i)];
}

static exec_fn *bind_widen(struct cpu *c, struct insn *i, unsigned op)
{
    if (i->opsize < 4)
        return NULL;
    exec_fn *const *form = hot_widens[op].form[i->opsize == 8];
    if (!i->mem)
        return form[0];
    int ea = bind_address(c, i);
    return ea < 0 ? NULL : form[1 + ea];
}

static exec_fn *bind_lea(struct cpu *c, struct insn *i, unsigned op)
{
    i->seg = SEG_DS; /* no access */
    if (i->opsize < 4 || !(c->mode & (MODE_CODE64 | MODE_FLAT)))
        return NULL;
    int ea = bind_address(c, i);
    return ea < 0 ? NULL : hot_lea[i->opsize == 8][ea];
}

static unsigned condition_of(const struct insn *i)
{
    return insn_rows[i->row].opcode & 15;
}

static exec_fn *bind_cmov(struct cpu *c, struct insn *i, unsigned op)
{
    return i->mem || i->opsize < 4 ? NULL : hot_cmov[condition_of(i)][i->opsize == 8];
}

static exec_fn *bind_set(struct cpu *c, struct insn *i, unsigned op)
{
    return i->mem ? NULL : hot_set[condition_of(i)];
}

static exec_fn *bind_imul(struct cpu *c, struct insn *i, unsigned op)
{
    if (i->mem || i->opsize < 4)
        return NULL;
    return (op ? hot_imul_rri : hot_imul_rr)[i->opsize == 8];
}

static exec_fn *bind_nop(struct cpu *c, struct insn *i, unsigned op)
{
    return hot_singles.nop;
}

static exec_fn *bind_cbw(struct cpu *c, struct insn *i, unsigned op)
{
    return i->opsize == 8 ? hot_singles.cdqe : NULL;
}

/* Stack instructions of 64-bit mode with 64-bit operands. */
static bool stack_64(const struct cpu *c, const struct insn *i)
{
    return (c->mode & MODE_CODE64) && i->opsize == 8;
}

static exec_fn *bind_push(struct cpu *c, struct insn *i, unsigned op)
{
    return stack_64(c, i) && !i->mem ? hot_singles.push : NULL;
}

static exec_fn *bind_push_imm(struct cpu *c, struct insn *i, unsigned op)
{
    return stack_64(c, i) ? hot_singles.push_imm : NULL;
}

static exec_fn *bind_pop(struct cpu *c, struct insn *i, unsigned op)
{
    return stack_64(c, i) && !i->mem ? hot_singles.pop : NULL;
}

static exec_fn *bind_leave(struct cpu *c, struct insn *i, unsigned op)
{
    return stack_64(c, i) ? hot_singles.leave : NULL;
}

static exec_fn *bind_ret(struct cpu *c, struct insn *i, unsigned op)
{
    return stack_64(c, i) ? hot_singles.ret : NULL;
}

static exec_fn *bind_jmp_E(struct cpu *c, struct insn *i, unsigned op)
{
    if (!stack_64(c, i))
        return NULL;
    if (!i->mem)
        return hot_singles.jmp_reg;
    return bind_address(c, i) < 0 ? NULL : hot_singles.jmp_mem;
}

static exec_fn *bind_call_E(struct cpu *c, struct insn *i, unsigned op)
{
    return stack_64(c, i) && !i->mem ? hot_singles.call_reg : NULL;
}

/* Offset of a direct branch's target from the start of the code page: near when below PAGE_SIZE. i->aux has the
 * page offset of the instruction. */
static bool target_is_near(const struct insn *i)
{
    int64_t at = (int64_t)i->aux + i->len + (int64_t)i->imm;
    return at >= 0 && at < (int64_t)PAGE_SIZE;
}

/* Fills the branch displacement. False: the generic handler must check the target. */
static bool bind_branch(struct cpu *c, struct insn *i)
{
    int64_t disp = (int64_t)i->imm + i->off + i->len;
    bool flat32 = (c->mode & MODE_FLAT) && i->opsize == 4 && target_is_near(i);

    if (disp != (int32_t)disp || !(stack_64(c, i) || flat32))
        return false;
    i->hdisp = (int32_t)disp;
    return true;
}

static exec_fn *bind_jcc(struct cpu *c, struct insn *i, unsigned op)
{
    return bind_branch(c, i) ? hot_jcc[condition_of(i)][!target_is_near(i)] : NULL;
}

static exec_fn *bind_jmp_J(struct cpu *c, struct insn *i, unsigned op)
{
    return bind_branch(c, i) ? hot_jmp[!target_is_near(i)] : NULL;
}

static exec_fn *bind_call_J(struct cpu *c, struct insn *i, unsigned op)
{
    return stack_64(c, i) && bind_branch(c, i) ? hot_call[!target_is_near(i)] : NULL;
}

/* --- which row takes which --- */

struct hot_rule {
    exec_fn *fn;
    hot_binder *bind;
    unsigned op;
};

#define BINARY_RULES(name, op)                                                                     \
    { x_##name##_EG, bind_EG, op }, { x_##name##_GE, bind_GE, op }, { x_##name##_EI, bind_EI, op }
#define SHIFT_RULES(name, op)                                                                      \
    { x_##name##_EI, bind_shift_imm, op }, { x_##name##_E1, bind_shift_one, op },                  \
    { x_##name##_EC, bind_shift_cl, op }
static const struct hot_rule rules[] = {
    BINARY_RULES(add, HOT_ADD), BINARY_RULES(or, HOT_OR), BINARY_RULES(adc, HOT_ADC),
    BINARY_RULES(sbb, HOT_SBB), BINARY_RULES(and, HOT_AND), BINARY_RULES(sub, HOT_SUB),
    BINARY_RULES(xor, HOT_XOR), BINARY_RULES(cmp, HOT_CMP), BINARY_RULES(mov, HOT_MOV),
    { x_test_EG, bind_EG, HOT_TEST }, { x_test_EI, bind_EI, HOT_TEST },
    { x_inc_E, bind_E, HOT_INC }, { x_dec_E, bind_E, HOT_DEC }, { x_neg_E, bind_E, HOT_NEG },
    { x_not_E, bind_E, HOT_NOT },
    SHIFT_RULES(shl, HOT_SHL), SHIFT_RULES(shr, HOT_SHR), SHIFT_RULES(sar, HOT_SAR),
    SHIFT_RULES(rol, HOT_ROL), SHIFT_RULES(ror, HOT_ROR),
    { x_movzx_8, bind_widen, HOT_MOVZX_8 }, { x_movzx_16, bind_widen, HOT_MOVZX_16 },
    { x_movsx_8, bind_widen, HOT_MOVSX_8 }, { x_movsx_16, bind_widen, HOT_MOVSX_16 },
    { x_movsx_32, bind_widen, HOT_MOVSX_32 },
    { x_lea, bind_lea, 0 }, { x_cmovcc, bind_cmov, 0 }, { x_setcc, bind_set, 0 },
    { x_imul_GE, bind_imul, 0 }, { x_imul_GEI, bind_imul, 1 }, { x_nop, bind_nop, 0 },
    { x_cbw, bind_cbw, 0 }, { x_push_E, bind_push, 0 }, { x_push_I, bind_push_imm, 0 },
    { x_pop_E, bind_pop, 0 }, { x_leave, bind_leave, 0 }, { x_ret, bind_ret, 0 },
    { x_jmp_E, bind_jmp_E, 0 }, { x_call_E, bind_call_E, 0 }, { x_jcc, bind_jcc, 0 },
    { x_jmp_J, bind_jmp_J, 0 }, { x_call_J, bind_call_J, 0 },
};

/* Rule of each row, 0 for none, else its index + 1. */
#define ROW(mnem, exec, map, op, pfx, mod, reg, vex, ops, r, w, u, attr) x_##exec,
static exec_fn *const row_fn[] = {
#include "cpu/decode/rows.h"
};
#undef ROW
static uint8_t row_rule[ARRAY_COUNT(row_fn)];

__attribute__((constructor)) static void index_rules(void)
{
    for (unsigned r = 0; r < ARRAY_COUNT(row_fn); r++)
        for (unsigned k = 0; k < ARRAY_COUNT(rules); k++)
            if (row_fn[r] == rules[k].fn)
                row_rule[r] = (uint8_t)(k + 1);
}

static uint8_t byte_register(const struct insn *i, unsigned n)
{
    return (uint8_t)(!i->rex && n >= 4 && n < 8 ? (n - 4) * 8 + 1 : n * 8);
}

void hot_bind(struct cpu *c, struct insn *i, unsigned off, unsigned page_off)
{
    exec_fn *hot = NULL;

    i->off = (uint16_t)off;
    i->hot = exec_generic;
    if (i->row == UINT16_MAX)
        return;
    if (insn_rows[i->row].attr & (A_MODE | A_SHADOW)) {
        i->hot = exec_generic_mode;
        return;
    }
    unsigned rule = row_rule[i->row];
    if (!rule || i->fn != row_fn[i->row])
        return;
    i->aux = page_off;
    i->breg = byte_register(i, i->reg);
    i->brm = byte_register(i, i->rm);
    hot = rules[rule - 1].bind(c, i, rules[rule - 1].op);
    if (hot)
        i->hot = hot;
}

void hot_bind_tail(struct cpu *c, struct exec_block *b)
{
    const struct insn *last = &b->insns[b->count - 1];
    struct exec_tail *t = exec_tail_of(last);
    uint64_t page = b->gpa & PAGE_MASK;
    bool near_end = (b->gpa & (PAGE_SIZE - 1)) + b->bytes < PAGE_SIZE;

    *t = (struct exec_tail){ .bytes = b->bytes };
    t->fall = (struct exec_link){ &exec_no_block, near_end ? page : BLOCK_NO_PAGE };
    t->taken = (struct exec_link){ &exec_no_block, target_is_near(last) ? page : BLOCK_NO_PAGE };
    if (c->mode & MODE_CODE64)
        t->hot = near_end ? hot_tail_near : hot_tail_far;
    else
        t->hot = (c->mode & MODE_FLAT) && near_end ? hot_tail_near : hot_tail_leave;
}
