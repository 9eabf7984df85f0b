/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Exchanges: xchg, xadd, cmpxchg, cmpxchg8b and 16b.
 *
 * Spec      Intel SDM volume 2; volume 3, 8.1. The guest's LOCK is the host's, on the same memory;
 * what crosses a page fails the check and is the handler's.
 */
#include "cpu/shared.h"
#include "cpu/translate/place.h"

enum { RAX, RCX, RDX, RBX };

static unsigned changed(const struct insn *i, unsigned n)
{
    return is_high(i, n, i->opsize) ? n - 4 : n;
}

static bool swap_registers(struct tr *t, const struct insn *i, unsigned a, unsigned b)
{
    if (host_of[a] == R_NONE || host_of[b] == R_NONE || is_high(i, a, i->opsize) ||
        is_high(i, b, i->opsize))
        return false;
    flags_reg_changes(t, a);
    flags_reg_changes(t, b);
    as_op_rr(&t->as, op_sized(0x86, i->opsize), host_of[a], host_of[b]);
    return true;
}

static bool emit_xchg_AZ(struct tr *t, const struct insn *i)
{
    return i->reg == RAX || swap_registers(t, i, RAX, i->reg);
}

static bool emit_xchg_EG(struct tr *t, const struct insn *i)
{
    unsigned size = i->opsize;

    if (!i->mem)
        return swap_registers(t, i, i->rm, i->reg);
    flags_reg_changes(t, changed(i, i->reg));
    emit_mem(t, i, size, true, 1);
    unsigned r = size == 1 ? emit_byte(t, i, i->reg, R_S1) : emit_reg(t, i->reg, R_S1);
    if (size >= 4 && r != R_S1 && translate_plain_locks(t->c)) { /* the host's XCHG locks by itself */
        as_load(&t->as, size, R_S1, AS_AT(R_S0, 0));
        as_store(&t->as, size, AS_AT(R_S0, 0), r);
        as_mov(&t->as, r, R_S1);
        return true;
    }
    as_op_rm(&t->as, op_sized(0x86, size), r, AS_AT(R_S0, 0));
    if (is_high(i, i->reg, size))
        emit_put(t, i, i->reg, size, r, R_S0);
    else
        emit_reg_done(t, i->reg, r);
    return true;
}

static bool emit_xadd(struct tr *t, const struct insn *i)
{
    unsigned size = i->opsize;
    struct as_op op = { .map = 1,
                        .opcode = size == 1 ? 0xc0 : 0xc1,
                        .size = (uint8_t)size,
                        .byte_reg = size == 1,
                        .byte_rm = size == 1,
                        .lock = i->lock };

    if (is_high(i, i->reg, size) ||
        (!i->mem && (is_high(i, i->rm, size) || host_of[i->rm] == R_NONE)))
        return false;
    struct place rm = place_rm(t, i, size, true);
    unsigned r = emit_reg(t, i->reg, R_S1);
    place_op(t, op, r, rm);
    emit_reg_done(t, i->reg, r);
    flags_produced(t, (struct flags){ 0 });
    return true;
}

/* The accumulator is the host's own for the instruction; so the address goes to S1, and a source
 * that lives in memory to the register that guest RAX has left. */
static bool emit_cmpxchg(struct tr *t, const struct insn *i)
{
    unsigned size = i->opsize;
    struct as_op op = { .map = 1,
                        .opcode = size == 1 ? 0xb0 : 0xb1,
                        .size = (uint8_t)size,
                        .byte_reg = size == 1,
                        .byte_rm = size == 1,
                        .lock = i->lock };
    struct place rm = { .mem = true, .m = AS_AT(R_S1, 0) };

    if (is_high(i, i->reg, size) ||
        (!i->mem && (i->rm == RAX || is_high(i, i->rm, size) || host_of[i->rm] == R_NONE)))
        return false;
    if (i->mem) {
        emit_mem(t, i, size, true, 1);
        as_mov(&t->as, R_S1, R_S0);
    } else {
        rm = place_reg(host_of[i->rm]);
    }
    as_mov(&t->as, R_AX, host_of[RAX]);
    place_op(t, op, emit_reg(t, i->reg, host_of[RAX]), rm);
    as_mov(&t->as, host_of[RAX], R_AX);
    if (!i->mem && size == 4) /* some processors do not when it was different */
        as_mov32(&t->as, rm.reg, rm.reg);
    flags_produced(t, (struct flags){ 0 });
    return true;
}

/* Guest RBX's own register holds the address while the host's RBX has its value. */
static bool emit_cmpxchg8b(struct tr *t, const struct insn *i)
{
    unsigned half = i->rex_w ? 8 : 4;
    struct as *a = &t->as;

    if (half == 8 && !cpu_has(t->c, F_CX16))
        return false;
    emit_mem(t, i, 2 * half, true, half == 8 ? 16 : 1);
    flags_need_keep(t);
    as_mov(a, R_S1, R_S0);
    as_mov(a, R_AX, host_of[RAX]);
    as_mov(a, R_BX, host_of[RBX]);
    as_mov(a, host_of[RBX], R_S1);
    as_mov(a, R_CX, host_of[RCX]);
    as_op_rm(a, (struct as_op){ .map = 1, .opcode = 0xc7, .size = (uint8_t)half, .lock = i->lock },
             1, AS_AT(host_of[RBX], 0));
    as_mov(a, host_of[RBX], R_BX);
    as_mov(a, host_of[RAX], R_AX);
    flags_produced(t, (struct flags){ 0 });
    return true;
}

static const struct emit_row rows[] = {
    { x_xchg_AZ, emit_xchg_AZ }, { x_xchg_EG, emit_xchg_EG },     { x_xadd, emit_xadd },
    { x_cmpxchg, emit_cmpxchg }, { x_cmpxchg8b, emit_cmpxchg8b },
};
EMIT_ROWS(atomic_rows, rows);
