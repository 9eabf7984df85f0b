/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operands of integer instructions: read, write, read-modify-write, whatever their size and place. */
#pragma once

#include "cpu/exec/exec.h"

static inline uint64_t size_mask(unsigned size)
{
    return ~(uint64_t)0 >> (64 - 8 * size);
}

static inline uint64_t sign_extend(uint64_t v, unsigned size)
{
    unsigned shift = 64 - 8 * size;
    return (uint64_t)((int64_t)(v << shift) >> shift);
}

/* Registers of any size, zero-extended. */
static inline uint64_t op_reg(const struct cpu *c, const struct insn *i, unsigned n, unsigned size)
{
    return size == 1 ? reg8_get(c, n, i->rex) : c->gpr[n] & size_mask(size);
}

static inline void op_reg_set(struct cpu *c, const struct insn *i, unsigned n, unsigned size,
                              uint64_t v)
{
    if (size == 1)
        reg8_set(c, n, i->rex, (uint8_t)v);
    else
        reg_set(c, n, size, v);
}

/* Linear memory of 1, 2, 4 or 8 bytes, zero-extended. 0 or X_FAULT. */
int op_load(struct cpu *c, uint64_t lin, unsigned size, uint64_t *ret);
int op_store(struct cpu *c, uint64_t lin, unsigned size, uint64_t val);

/* ModRM.rm. 0 or X_FAULT. */
int op_rm(struct cpu *c, const struct insn *i, unsigned size, uint64_t *ret);
int op_rm_set(struct cpu *c, const struct insn *i, unsigned size, uint64_t val);

/* Read-modify-write of ModRM.rm, as write access from the start, atomic when LOCK asks for it:
 *
 *     struct rmw m;
 *     if (rmw_begin(c, i, size, &m)) return X_FAULT;
 *     do { new = f(m.old); } while (!rmw_commit(c, i, &m, new));
 *     if (m.status) return X_FAULT;
 */
struct rmw {
    uint64_t old;  /* zero-extended; read anew when a commit did not hold */
    uint64_t lin;
    uint8_t *host; /* plain RAM */
    unsigned size;
    int status;    /* 0 or X_FAULT, once committed */
    bool locked;   /* between mmu_lock_begin() and mmu_lock_end() */
};
int rmw_begin(struct cpu *c, const struct insn *i, unsigned size, struct rmw *m);
int rmw_begin_at(struct cpu *c, const struct insn *i, uint64_t lin, unsigned size, struct rmw *m);
bool rmw_commit(struct cpu *c, const struct insn *i, struct rmw *m, uint64_t val);
