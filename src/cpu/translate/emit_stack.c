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

/* The slot for a push: S0 = its host address. */
static void push_slot(struct tr *t, unsigned size)
{
    flags_reg_changes(t, RSP);
    emit_mem_at(t, RSP, -(int32_t)size, size, true);
}

static bool emit_push(struct tr *t, const struct insn *i)
{
    unsigned size = i->opsize;

    if (!emit_stack_plain(t))
        return false;
    if (i->mem) {
        emit_mem(t, i, size, false, 1);
        as_load(&t->as, size, R_S0, AS_AT(R_S0, 0));
        as_store(&t->as, 8, CPU_GS(tx_tmp), R_S0);
        push_slot(t, size);
        as_load(&t->as, 8, R_S1, CPU_GS(tx_tmp));
        as_store(&t->as, size, AS_AT(R_S0, 0), R_S1);
    } else {
        push_slot(t, size);
        as_store(&t->as, size, AS_AT(R_S0, 0), emit_reg(t, i->rm, R_S1));
    }
    emit_stack_move(t, -(int32_t)size);
    return true;
}

static bool emit_push_imm(struct tr *t, const struct insn *i)
{
    if (!emit_stack_plain(t))
        return false;
    push_slot(t, i->opsize);
    as_store_imm32(&t->as, i->opsize, AS_AT(R_S0, 0), (int32_t)i->imm);
    emit_stack_move(t, -(int32_t)i->opsize);
    return true;
}

static bool emit_pop(struct tr *t, const struct insn *i)
{
    unsigned size = i->opsize;

    if (!emit_stack_plain(t) || i->mem)
        return false;
    flags_reg_changes(t, RSP);
    flags_reg_changes(t, i->rm);
    emit_mem_at(t, RSP, 0, size, false);
    emit_stack_move(t, (int32_t)size); /* before the write: pop rsp */
    unsigned dst = emit_reg(t, i->rm, R_S1);
    load_part(t, size, dst, AS_AT(R_S0, 0));
    emit_reg_done(t, i->rm, dst);
    return true;
}

static bool emit_leave(struct tr *t, const struct insn *i)
{
    unsigned size = i->opsize;

    if (!emit_stack_plain(t) || size == 2)
        return false;
    flags_reg_changes(t, RSP);
    flags_reg_changes(t, RBP);
    emit_mem_at(t, RBP, 0, size, false);
    as_lea(&t->as, t->mode64 ? 8 : 4, host_of[RSP], AS_AT(host_of[RBP], size));
    as_load(&t->as, size, host_of[RBP], AS_AT(R_S0, 0));
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
    push_slot(t, i->opsize);
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
    { x_push_E, emit_push },   { x_push_I, emit_push_imm }, { x_pop_E, emit_pop },
    { x_leave, emit_leave },   { x_pushf, emit_pushf },     { x_popf, emit_popf },
};
EMIT_ROWS(stack_rows, rows);
