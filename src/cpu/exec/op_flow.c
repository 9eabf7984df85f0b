/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Near control flow.
 *
 * Spec      Intel SDM volume 2; volume 1, 6.4. A target that is not canonical, or beyond the code segment's
 *           limit, faults at the branch itself.
 */
#include "cpu/exec/alu.h"
#include "cpu/exec/handlers.h"
#include "cpu/exec/operand.h"

enum { RCX = 1 };

/* Truncates to the operand size and checks. 0 or X_FAULT. */
static int check_target(struct cpu *c, const struct insn *i, uint64_t *target)
{
    uint64_t t = *target & size_mask(i->opsize);

    if (c->mode & MODE_CODE64 ? exec_canonical(t) != t : t > c->seg[SEG_CS].limit)
        return cpu_raise_error(c, EXC_GP, 0);
    *target = t;
    return 0;
}

static int jump_to(struct cpu *c, const struct insn *i, uint64_t target)
{
    if (check_target(c, i, &target))
        return X_FAULT;
    c->rip = target;
    return X_JUMP;
}

static int jump_relative(struct cpu *c, const struct insn *i)
{
    return jump_to(c, i, c->rip + i->len + i->imm);
}

int x_jcc(struct cpu *c, const struct insn *i)
{
    if (!alu_condition(c->flags_ax, insn_rows[i->row].opcode & 15))
        return X_NEXT;
    return jump_relative(c, i);
}

int x_jmp_J(struct cpu *c, const struct insn *i)
{
    return jump_relative(c, i);
}

int x_jmp_E(struct cpu *c, const struct insn *i)
{
    uint64_t t;

    if (op_rm(c, i, i->opsize, &t))
        return X_FAULT;
    return jump_to(c, i, t);
}

static int call_to(struct cpu *c, const struct insn *i, uint64_t target)
{
    if (check_target(c, i, &target) || exec_push(c, i->opsize, c->rip + i->len))
        return X_FAULT;
    c->rip = target;
    return X_JUMP;
}

int x_call_J(struct cpu *c, const struct insn *i)
{
    return call_to(c, i, c->rip + i->len + i->imm);
}

int x_call_E(struct cpu *c, const struct insn *i)
{
    uint64_t t;

    if (op_rm(c, i, i->opsize, &t))
        return X_FAULT;
    return call_to(c, i, t);
}

static int return_near(struct cpu *c, const struct insn *i, uint16_t extra)
{
    uint64_t sp = c->gpr[4], t;

    if (exec_pop(c, i->opsize, &t))
        return X_FAULT;
    if (check_target(c, i, &t)) {
        c->gpr[4] = sp;
        return X_FAULT;
    }
    if (extra)
        exec_stack_set(c, c->gpr[4] + extra);
    c->rip = t;
    return X_JUMP;
}

int x_ret(struct cpu *c, const struct insn *i)
{
    return return_near(c, i, 0);
}

int x_ret_I(struct cpu *c, const struct insn *i)
{
    return return_near(c, i, (uint16_t)i->imm);
}

/* loop, loope, loopne: the counter moves only when the branch does not fault. */
int x_loop(struct cpu *c, const struct insn *i)
{
    uint64_t count = (c->gpr[RCX] - 1) & size_mask(i->adsize);
    unsigned op = insn_rows[i->row].opcode & 3;
    bool zf = c->flags_ax & (FLAG_ZF << 8);
    int st = X_NEXT;

    if (count != 0 && (op == 2 || zf == (op == 1))) {
        st = jump_relative(c, i);
        if (st == X_FAULT)
            return st;
    }
    reg_set(c, RCX, i->adsize, count);
    return st;
}

int x_jcxz(struct cpu *c, const struct insn *i)
{
    if (c->gpr[RCX] & size_mask(i->adsize))
        return X_NEXT;
    return jump_relative(c, i);
}
