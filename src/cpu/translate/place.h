/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What emitters of integer instructions share: operands that are a host register, a guest register
 * in memory or checked guest memory, and the bytes AH to BH.
 *
 * Two scratch registers have to do. While S0 holds the address of a memory operand, S1 is the only
 * other.
 */
#pragma once

#include "cpu/exec/handlers.h"
#include "cpu/translate/emit.h"

/* Host register or memory: one side of a host instruction. */
struct place {
    bool mem;
    uint8_t reg;
    struct as_mem m;
};

static inline struct place place_reg(unsigned reg)
{
    return (struct place){ .reg = (uint8_t)reg };
}

/* Where guest register `n` lives. */
static inline struct place place_gpr(unsigned n)
{
    if (host_of[n] != R_NONE)
        return place_reg(host_of[n]);
    return (struct place){ .mem = true, .m = gpr_mem(n) };
}

/* The ModRM operand in memory, its check emitted. */
static inline struct place place_mem(struct tr *t, const struct insn *i, unsigned size, bool write)
{
    return (struct place){ .mem = true, .m = emit_near_mem(t, i, size, write) };
}

/* The ModRM.rm operand, its check emitted if it is memory. Not for AH to BH. */
static inline struct place place_rm(struct tr *t, const struct insn *i, unsigned size, bool write)
{
    if (!i->mem)
        return place_gpr(i->rm);
    return place_mem(t, i, size, write);
}

static inline void place_op(struct tr *t, struct as_op op, unsigned reg, struct place p)
{
    if (p.mem)
        as_op_rm(&t->as, op, reg, p.m);
    else
        as_op_rr(&t->as, op, reg, p.reg);
}

static inline void place_vex(struct tr *t, struct as_vex op, unsigned reg, unsigned vvvv,
                             struct place p)
{
    if (p.mem)
        as_vex_rm(&t->as, op, reg, vvvv, p.m);
    else
        as_vex_rr(&t->as, op, reg, vvvv, p.reg);
}

/* An operation on registers or memory whose opcode is `op` for bytes and `op` + 1 for the rest. */
static inline struct as_op op_sized(unsigned op, unsigned size)
{
    return (struct as_op){ .opcode = (uint8_t)(op + (size > 1)),
                           .size = (uint8_t)size,
                           .byte_reg = size == 1,
                           .byte_rm = size == 1 };
}

/* One of a group, with part of the opcode in ModRM.reg. */
static inline struct as_op op_group(unsigned op, unsigned size)
{
    struct as_op o = op_sized(op, size);

    o.ext = true;
    return o;
}

/* --- AH, CH, DH, BH --- */

static inline bool is_high(const struct insn *i, unsigned n, unsigned size)
{
    return size == 1 && !i->rex && n >= 4 && n < 8;
}

/* A byte register of the guest as the low byte of a host register: its own, or `scratch`. No flags.
 */
unsigned emit_byte(struct tr *t, const struct insn *i, unsigned n, unsigned scratch);

/* A register to be written. */
struct dest {
    uint8_t n;   /* guest register; of AH to BH, RAX to RBX */
    uint8_t reg; /* host register number for the encoding */
    uint8_t scratch;
    bool high; /* reg is AH or CH, in `scratch`: no REX may stand with it */
};
/* `scratch`: S0 or S1. The old value is there: all of it, or the rest of it when the whole register
 * is not written. */
struct dest dest_begin(struct tr *t, const struct insn *i, unsigned n, unsigned size,
                       unsigned scratch);
void dest_end(struct tr *t, struct dest d);
/* The byte flags of an operation with d.reg in ModRM.reg, or in ModRM.rm. */
static inline struct as_op op_dest(struct as_op op, struct dest d)
{
    if (d.high)
        op.byte_reg = op.byte_rm = false;
    return op;
}
/* Guest register `n` of `size` bytes = host register `src` (its low byte, not a register of the
 * guest's when the destination is AH to BH, and `scratch` only when `size` is 4). No flags. */
void emit_put(struct tr *t, const struct insn *i, unsigned n, unsigned size, unsigned src,
              unsigned scratch);
