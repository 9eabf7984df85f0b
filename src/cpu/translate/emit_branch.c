/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Branches: jcc, jmp, call, ret, loop, jcxz.
 *
 * Spec      Intel SDM volume 2; volume 1, 6.4.
 *
 * Nothing changes before the target was found in the jump cache and the stack's slot was checked. So a target that must
 * fault, or is not at hand, leaves the whole instruction to its handler. Branches with a 16-bit operand size are its
 * from the start.
 */
#include "cpu/exec/handlers.h"
#include "cpu/translate/emit.h"

enum { RCX = 1, RSP = 4 };

static bool near_target(int64_t off)
{
    return off >= 0 && off < (int64_t)PAGE_SIZE;
}

/* The target of a relative branch, from the page's start. */
static int64_t target_of(const struct tr *t, const struct insn *i)
{
    return t->next + (int64_t)i->imm;
}

static void branch_to(struct tr *t, unsigned cc, int64_t target)
{
    if (near_target(target))
        emit_exit(t, cc, (uint32_t)target);
    else
        emit_branch_far(t, cc, target);
}

static bool emit_jcc(struct tr *t, const struct insn *i)
{
    if (i->opsize == 2)
        return false;
    flags_need(t);
    branch_to(t, insn_rows[i->row].opcode & 15, target_of(t, i));
    return true;
}

static bool emit_jmp_rel(struct tr *t, const struct insn *i)
{
    if (i->opsize == 2)
        return false;
    branch_to(t, CC_NONE, target_of(t, i));
    t->ended = true;
    return true;
}

/* S0 = the operand of an indirect branch. Flags are in memory. */
static void load_target(struct tr *t, const struct insn *i)
{
    if (i->mem) {
        emit_mem(t, i, i->opsize, false, 1);
        as_load(&t->as, i->opsize, R_S0, AS_AT(R_S0, 0));
        return;
    }
    unsigned r = emit_reg(t, i->rm, R_S0);
    if (!t->mode64)
        as_mov32(&t->as, R_S0, r);
    else if (r != R_S0)
        as_mov(&t->as, R_S0, r);
}

static bool emit_jmp_ind(struct tr *t, const struct insn *i)
{
    if (i->opsize == 2)
        return false;
    flags_to_mem(t);
    load_target(t, i);
    emit_branch_find(t);
    emit_branch_go(t);
    t->ended = true;
    return true;
}

/* Stores the address of the next instruction on the stack. */
static void push_return(struct tr *t, const struct insn *i)
{
    flags_reg_changes(t, RSP);
    emit_mem_at(t, RSP, -(int32_t)i->opsize, i->opsize, true);
    emit_rip(t, R_S1, t->next);
    as_store(&t->as, i->opsize, AS_AT(R_S0, 0), R_S1);
    emit_stack_move(t, -(int32_t)i->opsize);
}

static bool emit_call_rel(struct tr *t, const struct insn *i)
{
    int64_t target = target_of(t, i);

    if (i->opsize == 2 || !emit_stack_plain(t))
        return false;
    flags_to_mem(t);
    t->f.host = false; /* the push destroys them */
    if (near_target(target)) {
        push_return(t, i);
        emit_exit(t, CC_NONE, (uint32_t)target);
    } else {
        emit_rip(t, R_S0, target);
        emit_branch_find(t);
        emit_branch_keep(t);
        push_return(t, i);
        emit_branch_go_kept(t, target);
    }
    t->ended = true;
    return true;
}

static bool emit_call_ind(struct tr *t, const struct insn *i)
{
    if (i->opsize == 2 || !emit_stack_plain(t))
        return false;
    flags_to_mem(t);
    load_target(t, i);
    emit_branch_find(t);
    as_store(&t->as, 8, AS_GS(offsetof(struct cpu, tx_tmp)), R_S0);
    emit_branch_keep(t);
    push_return(t, i);
    emit_branch_go_kept_ind(t);
    t->ended = true;
    return true;
}

static bool emit_ret_any(struct tr *t, const struct insn *i, unsigned extra)
{
    if (i->opsize == 2 || !emit_stack_plain(t))
        return false;
    flags_to_mem(t);
    flags_reg_changes(t, RSP);
    emit_mem_at(t, RSP, 0, i->opsize, false);
    as_load(&t->as, i->opsize, R_S0, AS_AT(R_S0, 0));
    emit_branch_find(t);
    emit_stack_move(t, (int32_t)(i->opsize + extra));
    emit_branch_go(t);
    t->ended = true;
    return true;
}

static bool emit_ret(struct tr *t, const struct insn *i)
{
    return emit_ret_any(t, i, 0);
}

static bool emit_ret_imm(struct tr *t, const struct insn *i)
{
    return emit_ret_any(t, i, (uint16_t)i->imm);
}

/* Counts down and branches without a look at flags. The slow forms and far targets are the handler's. */
static bool emit_loop(struct tr *t, const struct insn *i)
{
    int64_t target = target_of(t, i);
    uint8_t rcx = host_of[RCX];

    if (i->opsize == 2 || i->adsize == 2 || !near_target(target) || (insn_rows[i->row].opcode & 3) != 2)
        return false;
    flags_reg_changes(t, RCX);
    if (!t->f.host && !t->f.mem)
        flags_need(t);
    as_lea(&t->as, i->adsize, rcx, AS_AT(rcx, -1));
    as_mov(&t->as, R_S1, rcx);
    struct as_fix done = as_jrcxz(&t->as);
    emit_exit(t, CC_NONE, (uint32_t)target);
    as_fix_here(&t->as, done);
    return true;
}

static bool emit_jcxz(struct tr *t, const struct insn *i)
{
    int64_t target = target_of(t, i);

    if (i->opsize == 2 || i->adsize == 2 || !near_target(target))
        return false;
    if (!t->f.host && !t->f.mem)
        flags_need(t);
    if (i->adsize == 8)
        as_mov(&t->as, R_S1, host_of[RCX]);
    else
        as_mov32(&t->as, R_S1, host_of[RCX]);
    struct as_fix taken = as_jrcxz(&t->as);
    struct as_fix done = as_jmp(&t->as, false);
    as_fix_here(&t->as, taken);
    emit_exit(t, CC_NONE, (uint32_t)target);
    as_fix_here(&t->as, done);
    return true;
}

static const struct emit_row rows[] = {
    { x_jcc, emit_jcc },         { x_jmp_J, emit_jmp_rel },   { x_jmp_E, emit_jmp_ind },
    { x_call_J, emit_call_rel }, { x_call_E, emit_call_ind }, { x_ret, emit_ret },
    { x_ret_I, emit_ret_imm },   { x_loop, emit_loop },       { x_jcxz, emit_jcxz },
};
EMIT_ROWS(branch_rows, rows);
