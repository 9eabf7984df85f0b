/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Chooses the threaded handler of a decoded instruction, and makes a block's tail.
 *
 * Thread    The vCPU's own. What is decided here rests on the mode word, which is part of the block's key.
 */
#include "cpu/exec/handlers.h"
#include "cpu/exec/hot.h"

/* Returns the handler, or NULL: only the generic one serves. `op` has imm, off, len and the registers; binders of
 * memory forms and branches fill the rest. */
typedef exec_op_fn *hot_binder(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which);

/* log2 of a size, which is a power of two. */
static unsigned log2_of(unsigned size)
{
    return (unsigned)__builtin_ctz(size);
}

static unsigned size_index(const struct insn *i)
{
    return log2_of(i->opsize);
}

/* --- addresses --- */

static bool address_fits(const struct cpu *c, const struct insn *i)
{
    if (c->mode & MODE_CODE64)
        return true;
    return (c->mode & MODE_FLAT) && i->seg < SEG_FS && i->seg != SEG_CS;
}

/* Fills the members that say the address: 0 for base + displacement, 1 for the full form, -1: cannot. */
static int bind_address(struct cpu *c, const struct insn *i, struct exec_op *op)
{
    int64_t disp = i->disp;

    if (!address_fits(c, i))
        return -1;
    op->flags |= OP_MEM;
    if (i->base == BASE_RIP) {
        disp += op->off + i->len;
        op->flags |= OP_RIP;
    }
    if (disp != (int32_t)disp)
        return -1;
    op->disp = (int32_t)disp;
    op->base = i->base == REG_NONE ? OP_SLOT_NONE : i->base;
    op->index = i->index == REG_NONE ? OP_SLOT_NONE : i->index;
    op->scale = i->scale;
    op->shift = (uint8_t)(64 - 8 * i->adsize);
    return i->index != REG_NONE || i->adsize != 8 || i->seg >= SEG_FS;
}

static exec_op_fn *pick(struct cpu *c, const struct insn *i, struct exec_op *op, const hot_sizes reg,
                        const hot_sizes mem[2])
{
    if (!i->mem)
        return reg[size_index(i)];
    int ea = i->lock ? -1 : bind_address(c, i, op);
    return ea < 0 ? NULL : mem[ea][size_index(i)];
}

/* --- binders --- */

static exec_op_fn *bind_EG(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    return pick(c, i, op, hot_binaries[which].rr, hot_binaries[which].mr);
}

static exec_op_fn *bind_GE(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    return pick(c, i, op, hot_binaries[which].rg, hot_binaries[which].rm);
}

static exec_op_fn *bind_EI(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    return pick(c, i, op, hot_binaries[which].ri, hot_binaries[which].mi);
}

static exec_op_fn *bind_E(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    return pick(c, i, op, hot_unaries[which].r, hot_unaries[which].m);
}

static exec_op_fn *bind_shift_imm(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    return i->mem ? NULL : hot_shifts[which].ri[size_index(i)];
}

static exec_op_fn *bind_shift_one(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    op->imm = 1;
    return bind_shift_imm(c, i, op, which);
}

static exec_op_fn *bind_shift_cl(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    return i->mem ? NULL : hot_shifts[which].rc[size_index(i)];
}

static exec_op_fn *bind_widen(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    if (i->opsize < 4)
        return NULL;
    exec_op_fn *const *form = hot_widens[which].form[i->opsize == 8];
    if (!i->mem)
        return form[0];
    int ea = bind_address(c, i, op);
    return ea < 0 ? NULL : form[1 + ea];
}

static exec_op_fn *bind_lea(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    struct insn at = *i;

    at.seg = SEG_DS; /* no access: an override means nothing */
    if (i->opsize < 4)
        return NULL;
    int ea = bind_address(c, &at, op);
    return ea < 0 ? NULL : hot_lea[i->opsize == 8][ea];
}

static unsigned condition_of(const struct insn *i)
{
    return insn_rows[i->row].opcode & 15;
}

static exec_op_fn *bind_cmov(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    return i->mem || i->opsize < 4 ? NULL : hot_cmov[condition_of(i)][i->opsize == 8];
}

static exec_op_fn *bind_set(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    return i->mem ? NULL : hot_set[condition_of(i)];
}

static exec_op_fn *bind_imul(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    if (i->mem || i->opsize < 4)
        return NULL;
    return (which ? hot_imul_rri : hot_imul_rr)[i->opsize == 8];
}

static exec_op_fn *bind_nop(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    return hot_singles.nop;
}

static exec_op_fn *bind_cbw(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    return i->opsize == 8 ? hot_singles.cdqe : NULL;
}

/* Stack instructions of 64-bit mode with 64-bit operands. */
static bool stack_64(const struct cpu *c, const struct insn *i)
{
    return (c->mode & MODE_CODE64) && i->opsize == 8;
}

static exec_op_fn *bind_push(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    return stack_64(c, i) && !i->mem ? hot_flow.push : NULL;
}

static exec_op_fn *bind_push_imm(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    return stack_64(c, i) ? hot_flow.push_imm : NULL;
}

static exec_op_fn *bind_pop(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    return stack_64(c, i) && !i->mem ? hot_flow.pop : NULL;
}

static exec_op_fn *bind_leave(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    return stack_64(c, i) ? hot_flow.leave : NULL;
}

static exec_op_fn *bind_ret(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    return stack_64(c, i) ? hot_flow.ret : NULL;
}

static exec_op_fn *bind_jmp_E(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    if (!stack_64(c, i))
        return NULL;
    if (!i->mem)
        return hot_flow.jmp_reg;
    return bind_address(c, i, op) < 0 ? NULL : hot_flow.jmp_mem;
}

static exec_op_fn *bind_call_E(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    return stack_64(c, i) && !i->mem ? hot_flow.call_reg : NULL;
}

/* Whether a direct branch's target is on the instruction's own page. Binders of branches get the instruction's page
 * offset as `which`. */
static bool target_is_near(const struct insn *i, unsigned page_off)
{
    int64_t at = (int64_t)page_off + i->len + (int64_t)i->imm;
    return at >= 0 && at < (int64_t)PAGE_SIZE;
}

/* Fills the branch displacement. False: the generic handler must check the target. */
static bool bind_branch(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned page_off)
{
    int64_t disp = (int64_t)i->imm + op->off + i->len;
    bool flat32 = (c->mode & MODE_FLAT) && i->opsize == 4 && target_is_near(i, page_off);

    if (disp != (int32_t)disp || !(stack_64(c, i) || flat32))
        return false;
    op->disp = (int32_t)disp;
    op->flags |= OP_BRANCH;
    return true;
}

static exec_op_fn *bind_jcc(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    return bind_branch(c, i, op, which) ? hot_jcc[condition_of(i)][!target_is_near(i, which)] : NULL;
}

static exec_op_fn *bind_jmp_J(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    return bind_branch(c, i, op, which) ? hot_jmp[!target_is_near(i, which)] : NULL;
}

static exec_op_fn *bind_call_J(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned which)
{
    return stack_64(c, i) && bind_branch(c, i, op, which) ? hot_call[!target_is_near(i, which)] : NULL;
}

/* --- which row takes which --- */

struct hot_rule {
    exec_fn *fn;
    hot_binder *bind;
    unsigned which;
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

/* Byte offset of an 8-bit register in cpu->gpr[]. */
static uint8_t byte_register(const struct insn *i, unsigned n)
{
    return (uint8_t)(!i->rex && n >= 4 && n < 8 ? (n - 4) * 8 + 1 : n * 8);
}

/* Which operands are 8-bit registers. */
static void bind_registers(const struct insn *i, struct exec_op *op)
{
    const struct insn_row *r = &insn_rows[i->row];

    op->reg = i->reg;
    op->rm = i->rm;
    for (unsigned k = 0; k < 2; k++) {
        if (r->operand[k] == Gb) {
            op->reg = byte_register(i, i->reg);
            op->flags |= OP_REG_BYTE;
        } else if ((r->operand[k] == Eb && !i->mem) || r->operand[k] == Zb || r->operand[k] == rAL) {
            op->rm = byte_register(i, i->rm);
            op->flags |= OP_RM_BYTE;
        }
    }
}

static exec_op_fn *bind_rule(struct cpu *c, const struct insn *i, struct exec_op *op, unsigned page_off)
{
    const struct hot_rule *rule = &rules[row_rule[i->row] - 1];
    bool branch = rule->bind == bind_jcc || rule->bind == bind_jmp_J || rule->bind == bind_call_J;

    if ((int64_t)i->imm != (int32_t)i->imm) {
        if (rule->fn != x_mov_EI || i->mem)
            return NULL;
        op->disp = (int32_t)(i->imm >> 32);
        return hot_singles.movabs;
    }
    return rule->bind(c, i, op, branch ? page_off : rule->which);
}

bool hot_bind(struct cpu *c, const struct insn *i, unsigned off, unsigned page_off, struct exec_op *ret)
{
    *ret = (struct exec_op){ .run = exec_generic, .off = (uint16_t)off, .len = i->len };
    if (i->row == UINT16_MAX)
        return false;
    if (insn_rows[i->row].attr & (A_MODE | A_SHADOW)) {
        ret->run = exec_generic_mode;
        return false;
    }
    if (!row_rule[i->row] || i->fn != row_fn[i->row])
        return false;
    ret->imm = (int32_t)i->imm;
    ret->row = i->row;
    ret->sizes = (uint8_t)(size_index(i) | log2_of(i->adsize) << 4);
    ret->flags = i->rex ? OP_REX : 0;
    ret->seg = i->seg;
    bind_registers(i, ret);
    exec_op_fn *run = bind_rule(c, i, ret, page_off);
    if (run)
        ret->run = run;
    return run != NULL;
}

static uint8_t register_number(uint8_t reg, bool byte)
{
    if (!byte)
        return reg;
    return (uint8_t)(reg / 8 + (reg & 1 ? 4 : 0));
}

void op_rebuild(const struct cpu *c, const struct exec_op *op, struct insn *ret)
{
    *ret = (struct insn){
        .fn = row_fn[op->row], .imm = (uint64_t)(int64_t)op->imm, .disp = op->disp, .row = op->row,
        .len = op->len, .opsize = (uint8_t)(1 << (op->sizes & 15)),
        .adsize = (uint8_t)(1 << (op->sizes >> 4)), .mem = op->flags & OP_MEM,
        .reg = register_number(op->reg, op->flags & OP_REG_BYTE),
        .rm = register_number(op->rm, op->flags & OP_RM_BYTE), .base = REG_NONE, .index = REG_NONE,
        .scale = op->scale, .seg = op->seg, .rex = !!(op->flags & OP_REX),
        .mode64 = !!(c->mode & MODE_CODE64),
    };
    if (op->flags & OP_MEM) {
        ret->base = op->base == OP_SLOT_NONE ? REG_NONE : op->base;
        ret->index = op->index == OP_SLOT_NONE ? REG_NONE : op->index;
    }
    if (op->flags & OP_RIP)
        ret->disp -= op->off + op->len;
    if (op->flags & OP_BRANCH)
        ret->imm = (uint64_t)((int64_t)op->disp - op->off - op->len);
}

void hot_bind_tail(struct cpu *c, struct exec_block *b)
{
    const struct insn *last = &c->blocks->decoded[b->count - 1];
    unsigned start = b->gpa & (PAGE_SIZE - 1);
    struct exec_tail *t = block_tail(b);
    uint64_t page = b->gpa & PAGE_MASK;
    bool near_end = start + b->bytes < PAGE_SIZE;
    bool near = target_is_near(last, start + b->bytes - last->len);

    if (b->count > 1)
        hot_fuse(&b->ops[b->count - 2]);
    *t = (struct exec_tail){ .bytes = b->bytes };
    t->fall = (struct exec_link){ &exec_no_block, near_end ? page : BLOCK_NO_PAGE };
    t->taken = (struct exec_link){ &exec_no_block, near ? page : BLOCK_NO_PAGE };
    if (c->mode & MODE_CODE64)
        t->run = near_end ? hot_tail_near : hot_tail_far;
    else
        t->run = (c->mode & MODE_FLAT) && near_end ? hot_tail_near : hot_tail_leave;
}
