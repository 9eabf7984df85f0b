/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operand access of integer handlers, and the stack.
 *
 * Spec      Intel SDM volume 1, 3.7 (addressing); volume 3, 8.1 (locked operations).
 */
#include "cpu/exec/operand.h"

uint64_t exec_offset(const struct cpu *c, const struct insn *i)
{
    uint64_t off = (uint64_t)(int64_t)i->disp;

    if (i->base == BASE_RIP)
        off += c->rip + i->len;
    else if (i->base != REG_NONE)
        off += c->gpr[i->base];
    if (i->index != REG_NONE)
        off += c->gpr[i->index] << i->scale;
    return off & size_mask(i->adsize);
}

int op_load(struct cpu *c, uint64_t lin, unsigned size, uint64_t *ret)
{
    uint8_t v8;
    uint16_t v16;
    uint32_t v32;
    int st;

    switch (size) {
    case 1:
        st = mmu_read_u8(c, lin, &v8);
        *ret = st ? 0 : v8;
        return st;
    case 2:
        st = mmu_read_u16(c, lin, &v16);
        *ret = st ? 0 : v16;
        return st;
    case 4:
        st = mmu_read_u32(c, lin, &v32);
        *ret = st ? 0 : v32;
        return st;
    default:
        return mmu_read_u64(c, lin, ret);
    }
}

int op_store(struct cpu *c, uint64_t lin, unsigned size, uint64_t val)
{
    switch (size) {
    case 1:
        return mmu_write_u8(c, lin, (uint8_t)val);
    case 2:
        return mmu_write_u16(c, lin, (uint16_t)val);
    case 4:
        return mmu_write_u32(c, lin, (uint32_t)val);
    default:
        return mmu_write_u64(c, lin, val);
    }
}

int op_rm(struct cpu *c, const struct insn *i, unsigned size, uint64_t *ret)
{
    uint64_t lin;

    if (!i->mem) {
        *ret = op_reg(c, i, i->rm, size);
        return 0;
    }
    if (exec_linear(c, i, size, false, &lin))
        return X_FAULT;
    return op_load(c, lin, size, ret);
}

int op_rm_set(struct cpu *c, const struct insn *i, unsigned size, uint64_t val)
{
    uint64_t lin;

    if (!i->mem) {
        op_reg_set(c, i, i->rm, size, val);
        return 0;
    }
    if (exec_linear(c, i, size, true, &lin))
        return X_FAULT;
    return op_store(c, lin, size, val);
}

/* --- read-modify-write --- */

static uint64_t host_load(const uint8_t *p, unsigned size)
{
    switch (size) {
    case 1:
        return mmu_ram_get_u8(p);
    case 2:
        return mmu_ram_get_u16(p);
    case 4:
        return mmu_ram_get_u32(p);
    default:
        return mmu_ram_get_u64(p);
    }
}

static void host_store(uint8_t *p, unsigned size, uint64_t v)
{
    switch (size) {
    case 1:
        mmu_ram_put_u8(p, (uint8_t)v);
        break;
    case 2:
        mmu_ram_put_u16(p, (uint16_t)v);
        break;
    case 4:
        mmu_ram_put_u32(p, (uint32_t)v);
        break;
    default:
        mmu_ram_put_u64(p, v);
    }
}

/* The host's own LOCK CMPXCHG, which takes any alignment, as the guest's does. */
static bool host_cas(uint8_t *p, unsigned size, uint64_t *old, uint64_t v)
{
    bool done;

#define CAS(suffix, reg)                                                                           \
    __asm__ volatile("lock cmpxchg" suffix " %" reg "[v], (%[p])"                                  \
                     : "=@ccz"(done), "+a"(*old) : [p] "r"(p), [v] "r"(v) : "memory", "cc")
    switch (size) {
    case 1:
        CAS("b", "b");
        break;
    case 2:
        CAS("w", "w");
        break;
    case 4:
        CAS("l", "k");
        break;
    default:
        CAS("q", "q");
    }
#undef CAS
    *old &= size_mask(size);
    return done;
}

int rmw_begin_at(struct cpu *c, const struct insn *i, uint64_t lin, unsigned size, struct rmw *m)
{
    *m = (struct rmw){ .lin = lin, .size = size };
    if (mmu_host(c, lin, size, ACCESS_WRITE, &m->host))
        return X_FAULT;
    if (m->host) {
        m->old = host_load(m->host, size);
        return 0;
    }
    mmu_lock_begin(c);
    if (mmu_probe(c, lin, size, ACCESS_WRITE) || op_load(c, lin, size, &m->old)) {
        mmu_lock_end(c);
        return X_FAULT;
    }
    m->locked = true;
    return 0;
}

int rmw_begin(struct cpu *c, const struct insn *i, unsigned size, struct rmw *m)
{
    uint64_t lin;

    if (!i->mem) {
        *m = (struct rmw){ .size = size, .old = op_reg(c, i, i->rm, size) };
        return 0;
    }
    if (exec_linear(c, i, size, true, &lin))
        return X_FAULT;
    return rmw_begin_at(c, i, lin, size, m);
}

bool rmw_commit(struct cpu *c, const struct insn *i, struct rmw *m, uint64_t val)
{
    if (m->host) {
        if (i->lock)
            return host_cas(m->host, m->size, &m->old, val);
        host_store(m->host, m->size, val);
        return true;
    }
    if (m->locked) {
        m->status = op_store(c, m->lin, m->size, val);
        mmu_lock_end(c);
        return true;
    }
    op_reg_set(c, i, i->rm, m->size, val);
    return true;
}

/* --- stack --- */

uint64_t exec_stack_mask(const struct cpu *c)
{
    if (c->mode & MODE_CODE64)
        return ~(uint64_t)0;
    return c->mode & MODE_SS32 ? 0xffffffffu : 0xffffu;
}

void exec_stack_set(struct cpu *c, uint64_t sp)
{
    uint64_t mask = exec_stack_mask(c);

    c->gpr[4] = mask == 0xffff ? (c->gpr[4] & ~(uint64_t)0xffff) | (sp & 0xffff) : sp & mask;
}

int exec_push(struct cpu *c, unsigned size, uint64_t val)
{
    uint64_t sp = (c->gpr[4] - size) & exec_stack_mask(c), lin;

    if (exec_linear_at(c, SEG_SS, sp, size, true, &lin) || op_store(c, lin, size, val))
        return X_FAULT;
    exec_stack_set(c, sp);
    return 0;
}

int exec_pop(struct cpu *c, unsigned size, uint64_t *ret_val)
{
    uint64_t sp = c->gpr[4] & exec_stack_mask(c), lin;

    if (exec_linear_at(c, SEG_SS, sp, size, false, &lin) || op_load(c, lin, size, ret_val))
        return X_FAULT;
    exec_stack_set(c, sp + size);
    return 0;
}
