/* SPDX-License-Identifier: GPL-2.0-or-later */
/* IRET in every mode.
 *
 * Spec      Intel SDM volume 2, IRET/IRETD/IRETQ; volume 3, 6.7.1 (NMI), 20.2 (vm86).
 * Thread    The vCPU's own.
 */
#include "cpu/exec/handlers.h"
#include "cpu/sys/internal.h"

/* What IRET, and POPF in cpu1's folder, may change at this privilege; 16-bit forms reach the low
 * half only. */
uint32_t flags_mask(const struct cpu *c, unsigned opsize)
{
    uint32_t m = OSZAPC | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_RF | FLAG_AC | FLAG_ID;
    if (c->cpl <= (c->flags_sys & FLAG_IOPL) >> 12)
        m |= FLAG_IF;
    if (c->cpl == 0)
        m |= FLAG_IOPL | FLAG_VIF | FLAG_VIP;
    return opsize == 2 ? m & 0xffff : m;
}

/* RF matters only while breakpoints are armed; elsewhere nobody would clear it. */
static void load_flags(struct cpu *c, uint64_t val, uint32_t mask)
{
    if (!(c->dr[7] & DR7_ENABLES))
        val &= ~(uint64_t)FLAG_RF;
    cpu_set_flags(c, (uint32_t)val, mask);
}

/* After the flags are loaded. TF that comes with them acts after the next instruction. */
static int finish(struct cpu *c)
{
    c->tf_latched = false;
    c->nmi_blocked = false;
    cpu_update_mode(c);
    return X_JUMP;
}

static int iret_real(struct cpu *c, const struct insn *i)
{
    struct stack st = stack_current(c);
    uint64_t rip, sel, flags;
    uint32_t mask = flags_mask(c, i->opsize);
    int r;
    if (c->mode & MODE_VM86) {
        if ((c->flags_sys & FLAG_IOPL) != FLAG_IOPL)
            return cpu_raise_error(c, EXC_GP, 0);
        mask &= ~FLAG_IOPL;
    }
    if ((r = stack_pop(c, &st, i->opsize, &rip)) || (r = stack_pop(c, &st, i->opsize, &sel)) ||
        (r = stack_pop(c, &st, i->opsize, &flags)))
        return r;
    if (rip > c->seg[SEG_CS].limit)
        return cpu_raise_error(c, EXC_GP, 0);
    struct cpu_segment cs = seg_real(c, SEG_CS, (uint16_t)sel);
    stack_commit(c, &st);
    cs_set(c, &cs, rip, c->cpl);
    load_flags(c, flags, mask);
    return finish(c);
}

static int iret_task(struct cpu *c, const struct insn *i)
{
    uint16_t link;
    if (c->mode & MODE_LONG)
        return cpu_raise_error(c, EXC_GP, 0);
    int r = mmu_read_sys(c, c->tr.base, 2, &link);
    if (r)
        return r;
    if (link & 4)
        return fault_sel(c, EXC_TS, link);
    r = task_switch(c, link, TASK_IRET, c->rip + i->len, false, 0);
    return r ? r : finish(c);
}

/* From CPL 0 back into virtual-8086 mode: nine words on the stack. */
static int iret_to_vm86(struct cpu *c, struct stack *st, uint64_t rip, uint64_t cs_sel, uint64_t flags)
{
    static const uint8_t order[] = { SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS };
    uint64_t sp, sel[5];
    int r = stack_pop(c, st, 4, &sp);
    for (unsigned n = 0; !r && n < 5; n++)
        r = stack_pop(c, st, 4, &sel[n]);
    if (r)
        return r;
    load_flags(c, flags | FLAG_VM, ~0u & ~0xffc0802au);
    for (unsigned n = 0; n < 5; n++)
        c->seg[order[n]] = seg_real(c, order[n], (uint16_t)sel[n]);
    struct cpu_segment cs = seg_real(c, SEG_CS, (uint16_t)cs_sel);
    c->gpr[4] = (uint32_t)sp;
    cs_set(c, &cs, rip & 0xffff, 3);
    return finish(c);
}

static int iret_protected(struct cpu *c, const struct insn *i)
{
    struct stack st = stack_current(c);
    struct cpu_segment cs, ss;
    uint64_t rip, sel, flags, sp, ss_sel;
    int r;
    if ((r = stack_pop(c, &st, i->opsize, &rip)) || (r = stack_pop(c, &st, i->opsize, &sel)) ||
        (r = stack_pop(c, &st, i->opsize, &flags)))
        return r;
    if (flags & FLAG_VM && i->opsize == 4 && c->cpl == 0 && !(c->mode & MODE_LONG))
        return iret_to_vm86(c, &st, rip, sel, flags);
    if ((r = return_cs(c, (uint16_t)sel, &cs)))
        return r;
    unsigned cpl = sel & 3;
    bool outer = cpl != c->cpl, code64 = c->mode & MODE_LONG && cs.l;
    uint32_t mask = flags_mask(c, i->opsize);
    if (outer || c->mode & MODE_CODE64) {
        if ((r = stack_pop(c, &st, i->opsize, &sp)) || (r = stack_pop(c, &st, i->opsize, &ss_sel)) ||
            (r = return_ss(c, (uint16_t)ss_sel, &cs, &ss)))
            return r;
        st = (struct stack){ .ss = ss, .sp = sp, .flat64 = code64 };
    }
    if ((r = cs_check_rip(c, &cs, rip)))
        return r;
    if (outer || c->mode & MODE_CODE64)
        seg_set(c, SEG_SS, &st.ss);
    stack_commit(c, &st);
    load_flags(c, flags, mask);
    cs_set(c, &cs, rip, cpl);
    if (outer)
        seg_drop_inner(c, cpl);
    return finish(c);
}

int x_iret(struct cpu *c, const struct insn *i)
{
    if (c->mode & MODE_REAL)
        return iret_real(c, i);
    if (c->flags_sys & FLAG_NT)
        return iret_task(c, i);
    return iret_protected(c, i);
}
