/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, FS and GS base.
 *
 * Spec      Intel SDM volume 2; AMD APM volume 3. They differ: SYSCALL outside 64-bit mode exists
 *           on AMD only, SYSENTER in long mode on Intel only.
 * Thread    The vCPU's own.
 */
#include "cpu/exec/handlers.h"
#include "cpu/sys/internal.h"
#include "cpu/sys/operand.h"

static void flat_code(struct cpu *c, uint16_t sel, unsigned dpl, bool code64)
{
    c->seg[SEG_CS] = (struct cpu_segment){ .selector = (uint16_t)((sel & ~3u) | dpl), .limit = UINT32_MAX,
                                           .type = 11, .dpl = (uint8_t)dpl, .s = true, .present = true,
                                           .l = code64, .db = !code64, .g = true };
}

static void flat_stack(struct cpu *c, uint16_t sel, unsigned dpl)
{
    c->seg[SEG_SS] = (struct cpu_segment){ .selector = (uint16_t)((sel & ~3u) | dpl), .limit = UINT32_MAX,
                                           .type = 3, .dpl = (uint8_t)dpl, .s = true, .present = true,
                                           .db = true, .g = true };
}

static int enter(struct cpu *c, unsigned cpl)
{
    c->cpl = (uint8_t)cpl;
    cpu_update_mode(c);
    return X_JUMP;
}

int x_syscall(struct cpu *c, const struct insn *i)
{
    bool wide = c->mode & MODE_LONG;
    if (!(c->efer & EFER_SCE) || (c->mode & MODE_REAL && !(c->mode & MODE_VM86)) ||
        (!(c->mode & MODE_CODE64) && !c->shared->amd))
        return cpu_raise(c, EXC_UD);
    uint16_t sel = (uint16_t)(c->star >> 32);
    uint32_t flags = cpu_flags(c) & ~FLAG_RF;
    if (wide) {
        c->gpr[1] = c->rip + i->len;
        c->gpr[11] = flags;
        c->rip = c->mode & MODE_CODE64 ? c->lstar : c->cstar;
        cpu_set_flags(c, flags & ~(uint32_t)c->sfmask, ~0u);
    } else {
        c->gpr[1] = (uint32_t)(c->rip + i->len);
        c->rip = (uint32_t)c->star;
        cpu_set_flags(c, flags & ~(FLAG_VM | FLAG_IF), ~0u);
    }
    c->tf_latched = c->flags_sys & FLAG_TF;
    flat_code(c, sel, 0, wide);
    flat_stack(c, (uint16_t)(sel + 8), 0);
    return enter(c, 0);
}

int x_sysret(struct cpu *c, const struct insn *i)
{
    bool to64 = i->opsize == 8;
    if (!(c->efer & EFER_SCE) || (!(c->mode & MODE_CODE64) && !c->shared->amd))
        return cpu_raise(c, EXC_UD);
    /* A non-canonical RCX faults here, as on Intel: AMD's fault comes one instruction later, in
     * user mode. */
    if (c->mode & MODE_REAL || c->cpl || (to64 && exec_canonical(c->gpr[1]) != c->gpr[1]))
        return cpu_raise_error(c, EXC_GP, 0);
    uint16_t sel = (uint16_t)(c->star >> 48);
    c->rip = to64 ? c->gpr[1] : (uint32_t)c->gpr[1];
    if (c->mode & MODE_LONG)
        cpu_set_flags(c, (uint32_t)c->gpr[11] & 0x3c7fd7, ~0u);
    else
        cpu_set_flags(c, FLAG_IF, FLAG_IF);
    c->tf_latched = false;
    flat_code(c, (uint16_t)(sel + (to64 ? 16 : 0)), 3, to64);
    flat_stack(c, (uint16_t)(sel + 8), 3);
    enter(c, 3);
    if (!(c->flags_sys & FLAG_TF))
        return X_JUMP;
    /* Unlike after IRET and POPF, a TF that SYSRET loads traps before the next instruction. */
    c->fault = (struct cpu_fault){ .vector = EXC_DB, .dr6 = DR6_BS, .trap = true };
    return X_FAULT;
}

int x_sysenter(struct cpu *c, const struct insn *i)
{
    bool wide = c->mode & MODE_LONG;
    uint16_t sel = (uint16_t)c->sysenter_cs;
    if (wide && c->shared->amd)
        return cpu_raise(c, EXC_UD);
    if ((c->mode & MODE_REAL && !(c->mode & MODE_VM86)) || sel_is_null(sel))
        return cpu_raise_error(c, EXC_GP, 0);
    c->rip = wide ? c->sysenter_eip : (uint32_t)c->sysenter_eip;
    c->gpr[4] = wide ? c->sysenter_esp : (uint32_t)c->sysenter_esp;
    cpu_set_flags(c, 0, FLAG_VM | FLAG_IF | FLAG_RF);
    flat_code(c, sel, 0, wide);
    flat_stack(c, (uint16_t)(sel + 8), 0);
    return enter(c, 0);
}

int x_sysexit(struct cpu *c, const struct insn *i)
{
    bool to64 = i->opsize == 8;
    uint16_t sel = (uint16_t)c->sysenter_cs;
    if (c->mode & MODE_LONG && c->shared->amd)
        return cpu_raise(c, EXC_UD);
    if (c->mode & MODE_REAL || c->cpl || sel_is_null(sel) ||
        (to64 && (exec_canonical(c->gpr[1]) != c->gpr[1] || exec_canonical(c->gpr[2]) != c->gpr[2])))
        return cpu_raise_error(c, EXC_GP, 0);
    c->rip = to64 ? c->gpr[2] : (uint32_t)c->gpr[2];
    c->gpr[4] = to64 ? c->gpr[1] : (uint32_t)c->gpr[1];
    flat_code(c, (uint16_t)(sel + (to64 ? 32 : 16)), 3, to64);
    flat_stack(c, (uint16_t)(sel + (to64 ? 40 : 24)), 3);
    return enter(c, 3);
}

/* --- bases --- */

void set_seg_base(struct cpu *c, unsigned seg, uint64_t base)
{
    c->seg[seg].base = base;
    c->seg_base[seg] = base;
}

int x_swapgs(struct cpu *c, const struct insn *i)
{
    uint64_t gs = c->seg[SEG_GS].base;
    set_seg_base(c, SEG_GS, c->kernel_gs_base);
    c->kernel_gs_base = gs;
    return X_NEXT;
}

/* ModRM.reg: 0 RDFSBASE, 1 RDGSBASE, 2 WRFSBASE, 3 WRGSBASE. */
int x_fsgsbase(struct cpu *c, const struct insn *i)
{
    unsigned op = i->reg & 3, seg = op & 1 ? SEG_GS : SEG_FS;
    if (!(c->cr4 & CR4_FSGSBASE))
        return cpu_raise(c, EXC_UD);
    if (op < 2) {
        reg_set(c, i->rm, i->opsize, c->seg[seg].base);
        return X_NEXT;
    }
    uint64_t v = i->opsize == 8 ? c->gpr[i->rm] : (uint32_t)c->gpr[i->rm];
    if (exec_canonical(v) != v)
        return cpu_raise_error(c, EXC_GP, 0);
    set_seg_base(c, seg, v);
    return X_NEXT;
}
