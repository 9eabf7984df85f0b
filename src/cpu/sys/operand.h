/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operands of system instructions: ModRM register or memory, small sizes, no speed. */
#pragma once

#include "cpu/exec/exec.h"

/* Reads the ModRM.rm operand, zero-extended. 0 or X_FAULT. */
static inline int rm_read(struct cpu *c, const struct insn *i, unsigned size, uint64_t *ret)
{
    uint64_t lin, v = 0;
    if (!i->mem) {
        *ret = size == 8 ? c->gpr[i->rm] : c->gpr[i->rm] & ((1ull << size * 8) - 1);
        return 0;
    }
    int r = exec_linear(c, i, size, false, &lin);
    if (r || (r = mmu_read_slow(c, lin, size, &v)))
        return r;
    *ret = v;
    return 0;
}

/* Writes ModRM.rm: memory gets `size` bytes, a register `reg_size`. X_NEXT or X_FAULT. */
static inline int rm_write(struct cpu *c, const struct insn *i, unsigned size, unsigned reg_size, uint64_t v)
{
    uint64_t lin;
    if (!i->mem) {
        reg_set(c, i->rm, reg_size, v);
        return X_NEXT;
    }
    int r = exec_linear(c, i, size, true, &lin);
    return r ? r : mmu_write_slow(c, lin, size, &v);
}

/* After an instruction that changed the mode: the next one is looked up anew. */
static inline int next_anew(struct cpu *c, const struct insn *i)
{
    c->rip += i->len;
    if (!(c->mode & MODE_CODE64))
        c->rip = (uint32_t)c->rip;
    return X_JUMP;
}
