/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compare and exchange, exchange and add.
 *
 * Spec      Intel SDM volume 2; volume 3, 8.1. On guest RAM these are the host's own locked instructions.
 */
#include "cpu/exec/alu.h"
#include "cpu/exec/handlers.h"
#include "cpu/exec/operand.h"
#include "cpu/shared.h"

enum { RAX, RCX, RDX, RBX };

/* Memory is written in either case, as the processor does. */
int x_cmpxchg(struct cpu *c, const struct insn *i)
{
    uint64_t want = op_reg(c, i, RAX, i->opsize), val = op_reg(c, i, i->reg, i->opsize);
    struct rmw m;

    if (rmw_begin(c, i, i->opsize, &m))
        return X_FAULT;
    while (!rmw_commit(c, i, &m, m.old == want ? val : m.old))
        ;
    if (m.status)
        return X_FAULT;
    alu_cmp(i->opsize, want, m.old, &c->flags_ax);
    if (m.old != want)
        op_reg_set(c, i, RAX, i->opsize, m.old);
    return X_NEXT;
}

int x_xadd(struct cpu *c, const struct insn *i)
{
    uint64_t b = op_reg(c, i, i->reg, i->opsize), v;
    uint16_t flags = 0;
    struct rmw m;

    if (rmw_begin(c, i, i->opsize, &m))
        return X_FAULT;
    do
        v = alu_add(i->opsize, m.old, b, &flags);
    while (!rmw_commit(c, i, &m, v));
    if (m.status)
        return X_FAULT;
    c->flags_ax = flags;
    op_reg_set(c, i, i->reg, i->opsize, m.old);
    if (!i->mem) /* the destination last: xadd of a register with itself leaves the sum */
        op_reg_set(c, i, i->rm, i->opsize, v);
    return X_NEXT;
}

/* --- cmpxchg8b, cmpxchg16b --- */

struct pair {
    uint64_t lo, hi;
};

static bool host_cas16(uint8_t *p, struct pair *old, struct pair v)
{
    bool done;

    __asm__ volatile("lock cmpxchg16b (%[p])"
                     : "=@ccz"(done), "+a"(old->lo), "+d"(old->hi)
                     : [p] "r"(p), "b"(v.lo), "c"(v.hi) : "memory", "cc");
    return done;
}

static void host_cas8(uint8_t *p, uint64_t *old, uint64_t v)
{
    __asm__ volatile("lock cmpxchgq %[v], (%[p])" : "+a"(*old) : [p] "r"(p), [v] "r"(v) : "memory", "cc");
}

/* Not plain RAM: under the global lock, by read and write. */
static int cas_slow(struct cpu *c, uint64_t lin, unsigned size, struct pair *old, struct pair v)
{
    struct pair now = { 0 };
    int st;

    mmu_lock_begin(c);
    st = mmu_probe(c, lin, size, ACCESS_WRITE);
    if (!st)
        st = mmu_read_slow(c, lin, size, &now);
    if (!st) {
        bool same = now.lo == old->lo && now.hi == old->hi;
        st = mmu_write_slow(c, lin, size, same ? &v : &now);
    }
    mmu_lock_end(c);
    if (!st)
        *old = now;
    return st;
}

int x_cmpxchg8b(struct cpu *c, const struct insn *i)
{
    unsigned half = i->rex_w ? 8 : 4;
    uint64_t mask = size_mask(half), lin;
    struct pair want, old, val = { c->gpr[RBX], c->gpr[RCX] };
    uint8_t *host;

    if (half == 8 && !cpu_has(c, F_CX16))
        return cpu_raise(c, EXC_UD);
    if (exec_linear(c, i, 2 * half, true, &lin))
        return X_FAULT;
    if (half == 8 && (lin & 15))
        return cpu_raise_error(c, EXC_GP, 0);
    want = (struct pair){ c->gpr[RAX], c->gpr[RDX] };
    if (half == 4) {
        want = (struct pair){ (want.lo & mask) | want.hi << 32, 0 };
        val = (struct pair){ (val.lo & mask) | val.hi << 32, 0 };
    }
    if (mmu_host(c, lin, 2 * half, ACCESS_WRITE, &host))
        return X_FAULT;
    old = want;
    if (!host) {
        if (cas_slow(c, lin, 2 * half, &old, val))
            return X_FAULT;
    } else if (half == 8) {
        host_cas16(host, &old, val);
    } else {
        host_cas8(host, &old.lo, val.lo);
    }
    bool same = old.lo == want.lo && old.hi == want.hi;
    c->flags_ax = (uint16_t)((c->flags_ax & ~(FLAG_ZF << 8)) | (same ? FLAG_ZF << 8 : 0));
    if (!same) {
        reg_set(c, RAX, half, old.lo);
        reg_set(c, RDX, half, half == 4 ? old.lo >> 32 : old.hi);
    }
    return X_NEXT;
}
