/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Debug registers, breakpoints, single step.
 *
 * Spec      Intel SDM volume 3, chapter 17 (17.2, 17.3.1).
 * Thread    The vCPU's own.
 */
#include "cpu/exec/handlers.h"
#include "cpu/sys/internal.h"
#include "cpu/sys/operand.h"

static bool enabled(const struct cpu *c, unsigned n)
{
    return c->dr[7] >> (n * 2) & 3;
}

static unsigned type_of(const struct cpu *c, unsigned n)
{
    return c->dr[7] >> (16 + n * 4) & 3;
}

int cpu_debug_before(struct cpu *c)
{
    c->tf_latched = c->flags_sys & FLAG_TF;
    bool resume = c->flags_sys & FLAG_RF;
    c->flags_sys &= ~FLAG_RF; /* now, so that the RF which IRET loads lasts to the next instruction */
    /* Intel holds code breakpoints off after MOV SS, AMD does not. */
    if (resume || (c->int_shadow & 2 && !c->shared->amd))
        return X_NEXT;
    uint64_t lin = c->rip + c->seg_base[SEG_CS], hit = 0;
    if (!(c->mode & MODE_CODE64))
        lin = (uint32_t)lin;
    for (unsigned n = 0; n < 4; n++)
        if (enabled(c, n) && type_of(c, n) == 0 && c->dr[n] == lin)
            hit |= 1u << n;
    if (!hit)
        return X_NEXT;
    c->fault = (struct cpu_fault){ .vector = EXC_DB, .dr6 = hit };
    return X_FAULT;
}

int cpu_debug_after(struct cpu *c)
{
    if (c->int_shadow & 2)
        return X_NEXT;
    uint64_t hit = c->dr6_pending | (c->tf_latched ? DR6_BS : 0);
    c->dr6_pending = 0;
    c->tf_latched = false;
    if (!hit)
        return X_NEXT;
    c->fault = (struct cpu_fault){ .vector = EXC_DB, .dr6 = hit, .trap = true };
    return X_FAULT;
}

void debug_io(struct cpu *c, uint16_t port, unsigned size)
{
    static const uint8_t len_of[4] = { 1, 2, 1, 4 };
    if (likely(!(c->dr[7] & DR7_ENABLES)) || !(c->cr4 & CR4_DE))
        return;
    for (unsigned n = 0; n < 4; n++) {
        unsigned len = len_of[c->dr[7] >> (18 + n * 4) & 3];
        uint64_t at = c->dr[n] & ~(uint64_t)(len - 1);
        if (enabled(c, n) && type_of(c, n) == 2 && port < at + len && at < (uint64_t)port + size)
            c->dr6_pending |= (uint8_t)(1u << n);
    }
}

/* DR4 and DR5 are DR6 and DR7, or do not exist under CR4.DE. */
static int check_dr(struct cpu *c, unsigned *n)
{
    if (*n > 7 || (c->cr4 & CR4_DE && (*n == 4 || *n == 5)))
        return cpu_raise(c, EXC_UD);
    if (*n == 4 || *n == 5)
        *n += 2;
    if (c->dr[7] & DR7_GD) {
        c->fault = (struct cpu_fault){ .vector = EXC_DB, .dr6 = DR6_BD };
        return X_FAULT;
    }
    return 0;
}

int x_mov_from_dr(struct cpu *c, const struct insn *i)
{
    unsigned n = i->reg;
    int r = check_dr(c, &n);
    if (r)
        return r;
    reg_set(c, i->rm, c->mode & MODE_CODE64 ? 8 : 4, c->dr[n]);
    return X_NEXT;
}

void debug_set(struct cpu *c, unsigned n, uint64_t v)
{
    bool watched = c->dr[7] & DR7_ENABLES;
    if (n == 6)
        v = (v & 0xe00f) | DR6_FIXED;
    else if (n == 7)
        v = (v & 0xffff23ff) | DR7_FIXED;
    c->dr[n] = v;
    /* Pages with breakpoints are slow in the TLB: the set of pages has changed. */
    if (n != 6 && (watched || c->dr[7] & DR7_ENABLES))
        mmu_flush_all(c);
    cpu_update_mode(c);
}

int x_mov_to_dr(struct cpu *c, const struct insn *i)
{
    unsigned n = i->reg;
    uint64_t v = c->mode & MODE_CODE64 ? c->gpr[i->rm] : (uint32_t)c->gpr[i->rm];
    int r = check_dr(c, &n);
    if (r)
        return r;
    if (n >= 6 && v >> 32)
        return cpu_raise_error(c, EXC_GP, 0);
    debug_set(c, n, v);
    return next_anew(c, i);
}
