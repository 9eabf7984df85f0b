/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Moves, exchanges and the stack.
 *
 * Spec      Intel SDM volume 2.
 */
#include "cpu/exec/handlers.h"
#include "cpu/exec/operand.h"

enum { RAX = 0, RBX = 3, RSP = 4, RBP = 5 };

int x_mov_EG(struct cpu *c, const struct insn *i)
{
    return op_rm_set(c, i, i->opsize, op_reg(c, i, i->reg, i->opsize));
}

int x_mov_GE(struct cpu *c, const struct insn *i)
{
    uint64_t v;

    if (op_rm(c, i, i->opsize, &v))
        return X_FAULT;
    op_reg_set(c, i, i->reg, i->opsize, v);
    return X_NEXT;
}

int x_mov_EI(struct cpu *c, const struct insn *i)
{
    return op_rm_set(c, i, i->opsize, i->imm);
}

int x_mov_AO(struct cpu *c, const struct insn *i)
{
    uint64_t lin, v;

    if (exec_linear_at(c, i->seg, i->imm, i->opsize, false, &lin) || op_load(c, lin, i->opsize, &v))
        return X_FAULT;
    op_reg_set(c, i, RAX, i->opsize, v);
    return X_NEXT;
}

int x_mov_OA(struct cpu *c, const struct insn *i)
{
    uint64_t lin;

    if (exec_linear_at(c, i->seg, i->imm, i->opsize, true, &lin))
        return X_FAULT;
    return op_store(c, lin, i->opsize, op_reg(c, i, RAX, i->opsize));
}

int x_xlat(struct cpu *c, const struct insn *i)
{
    uint64_t off = (c->gpr[RBX] + (uint8_t)c->gpr[RAX]) & size_mask(i->adsize), lin, v;

    if (exec_linear_at(c, i->seg, off, 1, false, &lin) || op_load(c, lin, 1, &v))
        return X_FAULT;
    reg8_set(c, RAX, true, (uint8_t)v);
    return X_NEXT;
}

#define EXTEND_HANDLERS(name, bits, type)                                                          \
    int x_##name##_##bits(struct cpu *c, const struct insn *i)                                      \
    {                                                                                              \
        uint64_t v;                                                                                \
        if (op_rm(c, i, bits / 8, &v))                                                             \
            return X_FAULT;                                                                        \
        reg_set(c, i->reg, i->opsize, (uint64_t)(type)v);                                          \
        return X_NEXT;                                                                             \
    }
EXTEND_HANDLERS(movzx, 8, uint8_t)
EXTEND_HANDLERS(movzx, 16, uint16_t)
EXTEND_HANDLERS(movsx, 8, int8_t)
EXTEND_HANDLERS(movsx, 16, int16_t)
EXTEND_HANDLERS(movsx, 32, int32_t)

int x_lea(struct cpu *c, const struct insn *i)
{
    reg_set(c, i->reg, i->opsize, exec_offset(c, i));
    return X_NEXT;
}

int x_bswap(struct cpu *c, const struct insn *i)
{
    uint64_t v = c->gpr[i->reg];

    if (i->opsize == 8)
        c->gpr[i->reg] = __builtin_bswap64(v);
    else if (i->opsize == 4)
        c->gpr[i->reg] = __builtin_bswap32((uint32_t)v);
    else
        reg_set(c, i->reg, 2, 0); /* undefined; what processors do */
    return X_NEXT;
}

static uint64_t swap_bytes(uint64_t v, unsigned size)
{
    return __builtin_bswap64(v) >> (64 - 8 * size);
}

int x_movbe_GM(struct cpu *c, const struct insn *i)
{
    uint64_t v;

    if (op_rm(c, i, i->opsize, &v))
        return X_FAULT;
    reg_set(c, i->reg, i->opsize, swap_bytes(v, i->opsize));
    return X_NEXT;
}

int x_movbe_MG(struct cpu *c, const struct insn *i)
{
    return op_rm_set(c, i, i->opsize, swap_bytes(c->gpr[i->reg], i->opsize));
}

/* --- exchange --- */

int x_xchg_AZ(struct cpu *c, const struct insn *i)
{
    uint64_t a = c->gpr[RAX], b = c->gpr[i->reg];

    if (i->reg == RAX)
        return X_NEXT;
    reg_set(c, RAX, i->opsize, b);
    reg_set(c, i->reg, i->opsize, a);
    return X_NEXT;
}

/* With memory it is always locked. */
int x_xchg_EG(struct cpu *c, const struct insn *i)
{
    uint64_t v = op_reg(c, i, i->reg, i->opsize);
    struct insn locked = *i;
    struct rmw m;

    locked.lock = 1;
    if (rmw_begin(c, &locked, i->opsize, &m))
        return X_FAULT;
    while (!rmw_commit(c, &locked, &m, v))
        ;
    if (!m.status)
        op_reg_set(c, i, i->reg, i->opsize, m.old);
    return m.status;
}

/* --- stack --- */

int x_push_E(struct cpu *c, const struct insn *i)
{
    uint64_t v;

    if (op_rm(c, i, i->opsize, &v))
        return X_FAULT;
    return exec_push(c, i->opsize, v);
}

int x_push_I(struct cpu *c, const struct insn *i)
{
    return exec_push(c, i->opsize, i->imm);
}

/* The destination's address is computed with the stack pointer already moved. */
int x_pop_E(struct cpu *c, const struct insn *i)
{
    uint64_t v, sp = c->gpr[RSP];

    if (exec_pop(c, i->opsize, &v))
        return X_FAULT;
    if (op_rm_set(c, i, i->opsize, v)) {
        c->gpr[RSP] = sp;
        return X_FAULT;
    }
    return X_NEXT;
}

/* Reads or writes `n` stack slots from SP + delta as one access, so that a fault leaves nothing done. A stack that wraps
 * inside is taken slot by slot, after all of them were probed. */
static int stack_block(struct cpu *c, int64_t delta, unsigned size, unsigned n, bool write, uint8_t *buf)
{
    uint64_t mask = exec_stack_mask(c), lin;

    for (int pass = write ? 0 : 1; pass < 2; pass++) {
        for (unsigned k = 0; k < n; k++) {
            uint64_t off = (c->gpr[RSP] + (uint64_t)delta + k * size) & mask, v = 0;
            if (exec_linear_at(c, SEG_SS, off, size, write, &lin))
                return X_FAULT;
            if (pass == 0) {
                if (mmu_probe(c, lin, size, ACCESS_WRITE))
                    return X_FAULT;
                continue;
            }
            memcpy(&v, buf + k * size, size);
            if (write ? op_store(c, lin, size, v) : op_load(c, lin, size, &v))
                return X_FAULT;
            memcpy(buf + k * size, &v, size);
        }
    }
    return 0;
}

int x_pusha(struct cpu *c, const struct insn *i)
{
    uint8_t buf[8 * 4];

    for (unsigned k = 0; k < 8; k++) /* DI lowest */
        memcpy(buf + k * i->opsize, &c->gpr[7 - k], i->opsize);
    if (stack_block(c, -8 * i->opsize, i->opsize, 8, true, buf))
        return X_FAULT;
    exec_stack_set(c, c->gpr[RSP] - 8 * i->opsize);
    return X_NEXT;
}

int x_popa(struct cpu *c, const struct insn *i)
{
    uint8_t buf[8 * 4];

    if (stack_block(c, 0, i->opsize, 8, false, buf))
        return X_FAULT;
    for (unsigned k = 0; k < 8; k++) {
        uint64_t v = 0;
        memcpy(&v, buf + k * i->opsize, i->opsize);
        if (7 - k != RSP)
            reg_set(c, 7 - k, i->opsize, v);
    }
    exec_stack_set(c, c->gpr[RSP] + 8 * i->opsize);
    return X_NEXT;
}

/* Frame pointers of the enclosing levels, copied below the saved RBP. */
static int enter_levels(struct cpu *c, const struct insn *i, unsigned levels, uint64_t frame)
{
    uint64_t mask = exec_stack_mask(c), rbp = c->gpr[RBP], lin, v;

    for (unsigned k = 1; k < levels; k++) {
        rbp -= i->opsize;
        if (exec_linear_at(c, SEG_SS, rbp & mask, i->opsize, false, &lin) ||
            op_load(c, lin, i->opsize, &v) || exec_push(c, i->opsize, v))
            return X_FAULT;
    }
    return exec_push(c, i->opsize, frame);
}

int x_enter(struct cpu *c, const struct insn *i)
{
    unsigned levels = i->imm2 & 31;
    uint64_t sp = c->gpr[RSP], mask = exec_stack_mask(c), frame, lin;

    if (exec_push(c, i->opsize, c->gpr[RBP]))
        return X_FAULT;
    frame = c->gpr[RSP];
    if (levels && enter_levels(c, i, levels, frame))
        goto fail;
    exec_stack_set(c, c->gpr[RSP] - i->imm);
    /* The new top must be writable. */
    if (exec_linear_at(c, SEG_SS, c->gpr[RSP] & mask, 1, true, &lin) || mmu_probe(c, lin, 1, ACCESS_WRITE))
        goto fail;
    reg_set(c, RBP, i->opsize, frame);
    return X_NEXT;
fail:
    c->gpr[RSP] = sp;
    return X_FAULT;
}

int x_leave(struct cpu *c, const struct insn *i)
{
    uint64_t sp = c->gpr[RSP], v;

    exec_stack_set(c, c->gpr[RBP]);
    if (exec_pop(c, i->opsize, &v)) {
        c->gpr[RSP] = sp;
        return X_FAULT;
    }
    reg_set(c, RBP, i->opsize, v);
    return X_NEXT;
}

int x_bound(struct cpu *c, const struct insn *i)
{
    unsigned size = i->opsize;
    uint64_t lin, lo, hi;

    if (exec_linear(c, i, 2 * size, false, &lin) || op_load(c, lin, size, &lo) ||
        op_load(c, lin + size, size, &hi))
        return X_FAULT;
    int64_t at = (int64_t)sign_extend(c->gpr[i->reg], size);
    if (at < (int64_t)sign_extend(lo, size) || at > (int64_t)sign_extend(hi, size))
        return cpu_raise(c, EXC_BR);
    return X_NEXT;
}

/* --- flags on the stack --- */

static bool vm86_locked(const struct cpu *c)
{
    return (c->mode & MODE_VM86) && (c->flags_sys & FLAG_IOPL) != FLAG_IOPL;
}

int x_pushf(struct cpu *c, const struct insn *i)
{
    if (vm86_locked(c))
        return cpu_raise_error(c, EXC_GP, 0);
    return exec_push(c, i->opsize, cpu_flags(c) & ~(FLAG_VM | FLAG_RF));
}

int x_popf(struct cpu *c, const struct insn *i)
{
    uint32_t mask = OSZAPC | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID;
    uint64_t v;

    if (vm86_locked(c))
        return cpu_raise_error(c, EXC_GP, 0);
    if (exec_pop(c, i->opsize, &v))
        return X_FAULT;
    if (c->cpl == 0)
        mask |= FLAG_IOPL;
    if (c->cpl <= (c->flags_sys & FLAG_IOPL) >> 12)
        mask |= FLAG_IF;
    if (i->opsize == 2)
        mask &= 0xffff;
    cpu_set_flags(c, (uint32_t)v & ~FLAG_RF, mask | FLAG_RF);
    cpu_update_mode(c);
    return X_NEXT;
}
