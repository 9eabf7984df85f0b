/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The stack: push, pop, leave, pushf, popf.
 *
 * Spec      Intel SDM volume 2; volume 1, 6.2.
 *
 * Stacks with 16-bit addresses, `pop` to memory and `enter` are the handlers'.
 */
#include "cpu/exec/handlers.h"
#include "cpu/translate/emit.h"

enum { RSP = 4, RBP = 5 };

#define CPU_GS(field) AS_GS(offsetof(struct cpu, field))

bool emit_stack_plain(const struct tr *t)
{
    return t->mode64 || (t->mode & MODE_SS32);
}

void emit_stack_move(struct tr *t, int32_t by)
{
    as_lea(&t->as, t->mode64 ? 8 : 4, host_of[RSP], AS_AT(host_of[RSP], by));
}

/* A register's low `size` bytes from memory: 2 keeps the rest, 4 clears it. */
static void load_part(struct tr *t, unsigned size, unsigned dst, struct as_mem m)
{
    as_op_rm(&t->as, (struct as_op){ .opcode = 0x8b, .size = (uint8_t)size }, dst, m);
}

/* --- runs: one check for several slots ---
 *
 * Compilers push and pop registers in runs, the last pop being followed by the return. The run has one check; where it
 * fails, the slow path has all of them done by their handlers, one after the other. */

#define RUN_MAX 8

/* Instruction `k` behind the one in hand, or NULL. */
static const struct insn *ahead(const struct tr *t, unsigned k)
{
    return t->n + k < t->count ? &t->tb->insn[t->n + k] : NULL;
}

/* The slow path does the next `more` instructions as well. */
static void slow_covers(struct tr *t, unsigned more)
{
    if (t->slow)
        t->slow->more = (uint8_t)more;
}

/* The next `by` instructions have been emitted with the one in hand. */
static void advance(struct tr *t, unsigned by)
{
    t->n += by;
    t->i = &t->tb->insn[t->n];
    t->at = t->tb->insn_at[t->n];
    t->next = (uint16_t)(t->at + t->i->len);
    t->tb->insns = (uint16_t)(t->tb->insns + by);
}

static bool pushes(const struct tr *t, const struct insn *i, unsigned size)
{
    if (!build_native(t, i) || i->opsize != size)
        return false;
    exec_fn *x = exec_row_handler(i->row);
    return x == x_push_I || (x == x_push_E && !i->mem && i->rm != RSP);
}

static bool pops(const struct tr *t, const struct insn *i, unsigned size)
{
    return build_native(t, i) && i->opsize == size && exec_row_handler(i->row) == x_pop_E && !i->mem && i->rm != RSP;
}

static unsigned run_length(const struct tr *t, bool (*belongs)(const struct tr *, const struct insn *, unsigned))
{
    unsigned n = 0;

    for (const struct insn *i = t->i; i && n < RUN_MAX && belongs(t, i, t->i->opsize); i = ahead(t, n))
        n++;
    return n;
}

static bool returns(const struct insn *i, unsigned size)
{
    return i && i->row != UINT16_MAX && exec_row_handler(i->row) == x_ret && i->opsize == size;
}

/* The check of a return's slot went with others, and S0 is its target. `by`: instructions that came before it. */
static void finish_with_return(struct tr *t, unsigned by)
{
    slow_covers(t, by);
    advance(t, by);
    t->slow = NULL;
    emit_branch_find(t);
    emit_stack_move(t, t->i->opsize);
    emit_branch_go(t);
    t->ended = true;
}

/* --- push --- */

/* The slots of `n` pushes: S0 = the lowest one's host address. */
static void push_slots(struct tr *t, unsigned size, unsigned n)
{
    flags_reg_changes(t, RSP);
    emit_mem_at(t, RSP, -(int32_t)(size * n), size * n, true);
}

static bool push_run(struct tr *t, unsigned size)
{
    unsigned n = run_length(t, pushes);

    push_slots(t, size, n);
    for (unsigned k = 0; k < n; k++) {
        const struct insn *i = ahead(t, k);
        struct as_mem slot = AS_AT(R_S0, size * (n - 1 - k));
        if (exec_row_handler(i->row) == x_push_I)
            as_store_imm32(&t->as, size, slot, (int32_t)i->imm);
        else
            as_store(&t->as, size, slot, emit_reg(t, i->rm, R_S1));
    }
    emit_stack_move(t, -(int32_t)(size * n));
    slow_covers(t, n - 1);
    advance(t, n - 1);
    return true;
}

static bool emit_push(struct tr *t, const struct insn *i)
{
    unsigned size = i->opsize;

    if (!emit_stack_plain(t))
        return false;
    if (pushes(t, i, size))
        return push_run(t, size);
    if (i->mem) {
        emit_mem(t, i, size, false, 1);
        as_load(&t->as, size, R_S0, AS_AT(R_S0, 0));
        as_store(&t->as, 8, CPU_GS(tx_tmp), R_S0);
        push_slots(t, size, 1);
        as_load(&t->as, 8, R_S1, CPU_GS(tx_tmp));
        as_store(&t->as, size, AS_AT(R_S0, 0), R_S1);
    } else { /* push rsp */
        push_slots(t, size, 1);
        as_store(&t->as, size, AS_AT(R_S0, 0), host_of[i->rm]);
    }
    emit_stack_move(t, -(int32_t)size);
    return true;
}

/* --- pop --- */

static void pop_one(struct tr *t, const struct insn *i, struct as_mem from)
{
    unsigned dst = i->opsize == 2 ? emit_reg(t, i->rm, R_S1) : emit_reg_dst(t, i->rm, R_S1);

    load_part(t, i->opsize, dst, from);
    emit_reg_done(t, i->rm, dst);
}

static bool pop_run(struct tr *t, unsigned size)
{
    unsigned n = run_length(t, pops);
    bool ret = size > 2 && returns(ahead(t, n), size);

    if (ret)
        flags_to_mem(t);
    flags_reg_changes(t, RSP);
    for (unsigned k = 0; k < n; k++)
        flags_reg_changes(t, ahead(t, k)->rm);
    emit_mem_at(t, RSP, 0, size * (n + ret), false);
    for (unsigned k = 0; k < n; k++)
        pop_one(t, ahead(t, k), AS_AT(R_S0, size * k));
    if (ret)
        as_load(&t->as, size, R_S0, AS_AT(R_S0, size * n));
    emit_stack_move(t, (int32_t)(size * n));
    if (ret) {
        finish_with_return(t, n);
    } else {
        slow_covers(t, n - 1);
        advance(t, n - 1);
    }
    return true;
}

static bool emit_pop(struct tr *t, const struct insn *i)
{
    if (!emit_stack_plain(t) || i->mem)
        return false;
    if (i->rm != RSP)
        return pop_run(t, i->opsize);
    flags_reg_changes(t, RSP);
    emit_mem_at(t, RSP, 0, i->opsize, false);
    emit_stack_move(t, i->opsize); /* its high part stays if the operand is a word */
    load_part(t, i->opsize, host_of[RSP], AS_AT(R_S0, 0));
    return true;
}

static bool emit_leave(struct tr *t, const struct insn *i)
{
    unsigned size = i->opsize;
    bool ret = returns(ahead(t, 1), size);

    if (!emit_stack_plain(t) || size == 2)
        return false;
    if (ret)
        flags_to_mem(t);
    flags_reg_changes(t, RSP);
    flags_reg_changes(t, RBP);
    emit_mem_at(t, RBP, 0, ret ? 2 * size : size, false);
    as_lea(&t->as, t->mode64 ? 8 : 4, host_of[RSP], AS_AT(host_of[RBP], size));
    as_load(&t->as, size, host_of[RBP], AS_AT(R_S0, 0));
    if (ret) {
        as_load(&t->as, size, R_S0, AS_AT(R_S0, size));
        finish_with_return(t, 1);
    }
    return true;
}

/* --- flags --- */

/* S0 = RFLAGS as PUSHF shows it. */
static void load_flags(struct tr *t, bool from_host)
{
    if (from_host) {
        as_u8(&t->as, 0x9c); /* pushfq */
        as_u8(&t->as, 0x58); /* pop rax */
        as_alu_ri(&t->as, AS_AND, 4, R_AX, OSZAPC);
    } else {
        as_load(&t->as, 2, R_AX, CPU_GS(flags_ax));
        as_mov32(&t->as, R_CX, R_AX);
        as_shift_ri(&t->as, 5, 4, R_AX, 8);
        as_shift_ri(&t->as, 4, 4, R_CX, 11);
        as_alu_ri(&t->as, AS_AND, 4, R_AX, OSZAPC & ~FLAG_OF);
        as_alu_ri(&t->as, AS_AND, 4, R_CX, FLAG_OF);
        as_alu_rr(&t->as, AS_OR, 4, R_AX, R_CX);
    }
    as_alu_rm(&t->as, AS_OR, 4, R_AX, CPU_GS(flags_sys));
    as_alu_ri(&t->as, AS_AND, 4, R_AX, ~(int32_t)(FLAG_VM | FLAG_RF));
}

static bool emit_pushf(struct tr *t, const struct insn *i)
{
    if (!emit_stack_plain(t))
        return false;
    if (!t->f.host && !t->f.mem)
        flags_need(t);
    bool from_host = t->f.host;
    flags_clobber(t); /* leaves them as they are */
    load_flags(t, from_host);
    t->f.host = false;
    as_store(&t->as, 8, CPU_GS(tx_tmp), R_AX);
    push_slots(t, i->opsize, 1);
    as_load(&t->as, 8, R_S1, CPU_GS(tx_tmp));
    as_store(&t->as, i->opsize, AS_AT(R_S0, 0), R_S1);
    emit_stack_move(t, -(int32_t)i->opsize);
    return true;
}

/* Where only arithmetic flags change. Anything else may change what interrupts, faults and modes do: the handler. */
static bool emit_popf(struct tr *t, const struct insn *i)
{
    const uint32_t fixed = FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_AC | FLAG_ID;

    if (!emit_stack_plain(t) || i->opsize == 2)
        return false;
    flags_to_mem(t);
    flags_reg_changes(t, RSP);
    emit_mem_at(t, RSP, 0, i->opsize, false);
    as_load(&t->as, 4, R_S0, AS_AT(R_S0, 0));
    as_load(&t->as, 4, R_S1, CPU_GS(flags_sys));
    as_test_ri(&t->as, 4, R_S1, (int32_t)FLAG_RF);
    emit_slow_if(t, CC_NE);
    as_alu_rr(&t->as, AS_XOR, 4, R_S1, R_S0);
    as_test_ri(&t->as, 4, R_S1, (int32_t)fixed);
    emit_slow_if(t, CC_NE);
    /* AH = SF ZF AF PF CF, AL = OF. */
    as_mov32(&t->as, R_S1, R_S0);
    as_alu_ri(&t->as, AS_AND, 4, R_S0, OSZAPC & ~FLAG_OF);
    as_shift_ri(&t->as, 4, 4, R_S0, 8);
    as_shift_ri(&t->as, 5, 4, R_S1, 11);
    as_alu_ri(&t->as, AS_AND, 4, R_S1, 1);
    as_alu_rr(&t->as, AS_OR, 4, R_S0, R_S1);
    as_store(&t->as, 2, CPU_GS(flags_ax), R_S0);
    emit_stack_move(t, i->opsize);
    t->f = (struct flags){ .mem = true };
    return true;
}

static const struct emit_row rows[] = {
    { x_push_E, emit_push },   { x_push_I, emit_push }, { x_pop_E, emit_pop },
    { x_leave, emit_leave },   { x_pushf, emit_pushf },     { x_popf, emit_popf },
};
EMIT_ROWS(stack_rows, rows);
