/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The architectural state as plain values: to KVM and back, to QMP, to tests.
 *
 * Thread    The vCPU's own, not inside cpu_run().
 * Trust     What is loaded may come from a guest by way of KVM, or from a file: any value. Fields
 *           that index or mask something of the host's are cut to their width; the rest faults in
 *           the guest.
 */
#include "cpu/fpu/fpu.h"
#include "cpu/sys/internal.h"
#include "cpu/sys/model.h"

#define RFLAGS_DEFINED 0x3f7fd7u

/* MSRs and other 64-bit values of both structs by name. */
#define STATE_VALUES(V)                                                                            \
    V(cr2) V(xcr0) V(star) V(lstar) V(cstar) V(sfmask) V(kernel_gs_base) V(sysenter_cs)            \
    V(sysenter_esp) V(sysenter_eip) V(pat) V(tsc_aux) V(xss) V(misc_enable) V(mtrr_def_type)

void cpu_get_state(struct cpu *c, struct cpu_arch_state *ret)
{
    fpu_park(c);
    memset(ret, 0, sizeof(*ret));
    memcpy(ret->gpr, c->gpr, sizeof(ret->gpr));
    ret->rip = c->rip;
    ret->rflags = cpu_flags(c);
    memcpy(ret->seg, c->seg, sizeof(ret->seg));
    ret->ldtr = c->ldtr;
    ret->tr = c->tr;
    ret->gdtr = c->gdtr;
    ret->idtr = c->idtr;
    ret->cr0 = c->cr0;
    ret->cr3 = c->cr3;
    ret->cr4 = c->cr4;
    ret->efer = c->efer;
    ret->cr8 = c->cb->tpr_read(c->opaque);
    if (c->cb->apic_msr_read(c->opaque, 0x1b, &ret->apic_base))
        ret->apic_base = 0;
    memcpy(ret->dr, c->dr, sizeof(ret->dr));
#define GET(name) ret->name = c->name;
    STATE_VALUES(GET)
#undef GET
    ret->tsc = cpu_tsc(c);
    ret->nmi_blocked = c->nmi_blocked;
    ret->sti_shadow = c->int_shadow & 1;
    ret->movss_shadow = c->int_shadow & 2;
    ret->halted = c->halted;
    memcpy(ret->xsave, c->xsave, sizeof(ret->xsave));
}

static struct cpu_segment sane_segment(struct cpu_segment s)
{
    s.base = exec_canonical(s.base);
    s.type &= 15;
    s.dpl &= 3;
    return s;
}

static void set_segments(struct cpu *c, const struct cpu_arch_state *s)
{
    for (unsigned i = 0; i < N_SEGS; i++)
        c->seg[i] = sane_segment(s->seg[i]);
    c->ldtr = sane_segment(s->ldtr);
    c->tr = sane_segment(s->tr);
    c->gdtr = s->gdtr;
    c->idtr = s->idtr;
    c->gdtr.base = exec_canonical(c->gdtr.base);
    c->idtr.base = exec_canonical(c->idtr.base);
}

static void set_control(struct cpu *c, const struct cpu_arch_state *s)
{
    c->cr0 = (uint32_t)s->cr0 | CR0_ET;
    c->cr4 = (uint32_t)s->cr4;
    c->efer = s->efer & (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE);
    c->cr3 = s->cr3 & ~(1ull << 63);
    memcpy(c->dr, s->dr, sizeof(c->dr));
    c->dr[6] = (s->dr[6] & 0xe00f) | DR6_FIXED;
    c->dr[7] = (s->dr[7] & 0xffff23ff) | DR7_FIXED;
}

static void set_vector(struct cpu *c, const struct cpu_arch_state *s)
{
    uint64_t allowed = xcr0_allowed(c->shared->model);
    fpu_park(c);
    memcpy(c->xsave, s->xsave, sizeof(c->xsave));
    *fpu_mxcsr(c) &= fpu_mxcsr_mask();
    uint64_t bv;
    memcpy(&bv, c->xsave + XS_HEADER, 8);
    bv &= allowed;
    memset(c->xsave + XS_HEADER, 0, 64);
    memcpy(c->xsave + XS_HEADER, &bv, 8);
    c->xcr0 = (s->xcr0 & allowed) | 1;
    if ((c->xcr0 & 6) == 4)
        c->xcr0 = 1;
}

void cpu_set_state(struct cpu *c, const struct cpu_arch_state *s)
{
    memcpy(c->gpr, s->gpr, sizeof(c->gpr));
    c->rip = s->rip;
    cpu_set_flags(c, (uint32_t)s->rflags & RFLAGS_DEFINED, ~0u);
    set_segments(c, s);
    set_control(c, s);
    if (!(c->cr0 & CR0_PE)) /* or protection, once switched on, would begin in virtual-8086 mode */
        c->flags_sys &= ~FLAG_VM;
#define SET(name) c->name = s->name;
    STATE_VALUES(SET)
#undef SET
    set_vector(c, s);
    cpu_tsc_set(c, s->tsc);
    c->cpl = !(c->cr0 & CR0_PE) ? 0 : c->flags_sys & FLAG_VM ? 3 : c->seg[SEG_SS].dpl;
    c->seg[SEG_SS].dpl = c->cpl; /* what the privilege comes from when the mode changes, or the state goes out again */
    c->nmi_blocked = s->nmi_blocked;
    c->int_shadow = (uint8_t)((s->sti_shadow ? 1 : 0) | (s->movss_shadow ? 2 : 0));
    c->halted = s->halted;
    c->dr6_pending = 0;
    c->tf_latched = false;
    c->cb->tpr_write(c->opaque, s->cr8 & 15);
    mmu_flush_all(c);
    if (c->cr0 & CR0_PG && c->cr4 & CR4_PAE && !(c->efer & EFER_LMA))
        mmu_load_pdptes(c, c->cr3, false);
    cpu_update_mode(c);
}

#define RARE_VALUES(V)                                                                             \
    V(mcg_status) V(mcg_ctl) V(tsc_adjust) V(debugctl) V(spec_ctrl) V(syscfg) V(hwcr)              \
    V(kvm_system_time) V(kvm_wall_clock)
#define RARE_ARRAYS(V) V(mtrr_base) V(mtrr_mask) V(mtrr_fixed) V(mce)

void cpu_get_rare_state(struct cpu *c, struct cpu_rare_state *ret)
{
    memset(ret, 0, sizeof(*ret));
#define GET(name) ret->name = c->sys->name;
    RARE_VALUES(GET)
#undef GET
#define GET(name)                                                                                  \
    _Static_assert(sizeof(ret->name) == sizeof(c->sys->name), #name);                              \
    memcpy(ret->name, c->sys->name, sizeof(ret->name));
    RARE_ARRAYS(GET)
#undef GET
    unsigned nmis = c->nmi_pending + atomic_load(&c->nmis);
    ret->nmis = (uint8_t)(nmis > 2 ? 2 : nmis);
    ret->dr6_pending = c->dr6_pending;
}

void cpu_set_rare_state(struct cpu *c, const struct cpu_rare_state *s)
{
#define SET(name) c->sys->name = s->name;
    RARE_VALUES(SET)
#undef SET
#define SET(name) memcpy(c->sys->name, s->name, sizeof(s->name));
    RARE_ARRAYS(SET)
#undef SET
    c->nmi_pending = 0;
    atomic_store(&c->nmis, 0);
    for (unsigned i = 0; i < s->nmis && i < 2; i++)
        cpu_raise_event(c, CPU_EV_NMI);
    c->dr6_pending = s->dr6_pending & 15;
}
