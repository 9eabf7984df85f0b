/* SPDX-License-Identifier: GPL-2.0-or-later */
/* struct cpu_arch_state as a table of fields. cpu_set_state() takes any values. */
#include "accel/accel.h"

#define VALUE(field)          STATE(struct cpu_arch_state, field)
#define SEGMENTS(member, ...) STATE_OF_EACH(struct cpu_arch_state, seg, member, __VA_ARGS__)
#define SEGMENT(name)                                                                              \
    VALUE(name.base), VALUE(name.limit), VALUE(name.selector), VALUE(name.type), VALUE(name.dpl),  \
        VALUE(name.s), VALUE(name.present), VALUE(name.avl), VALUE(name.l), VALUE(name.db),        \
        VALUE(name.g), VALUE(name.unusable)

const struct state_field cpu_arch_fields[] = {
    STATE_ARRAY(struct cpu_arch_state, gpr),
    VALUE(rip),
    VALUE(rflags),
    SEGMENTS(base),
    SEGMENTS(limit),
    SEGMENTS(selector),
    SEGMENTS(type),
    SEGMENTS(dpl),
    SEGMENTS(s),
    SEGMENTS(present),
    SEGMENTS(avl),
    SEGMENTS(l),
    SEGMENTS(db),
    SEGMENTS(g),
    SEGMENTS(unusable),
    SEGMENT(ldtr),
    SEGMENT(tr),
    VALUE(gdtr.base),
    VALUE(gdtr.limit),
    VALUE(idtr.base),
    VALUE(idtr.limit),
    VALUE(cr0),
    VALUE(cr2),
    VALUE(cr3),
    VALUE(cr4),
    VALUE(cr8),
    VALUE(xcr0),
    VALUE(efer),
    VALUE(apic_base),
    STATE_ARRAY(struct cpu_arch_state, dr),
    VALUE(star),
    VALUE(lstar),
    VALUE(cstar),
    VALUE(sfmask),
    VALUE(kernel_gs_base),
    VALUE(sysenter_cs),
    VALUE(sysenter_esp),
    VALUE(sysenter_eip),
    VALUE(pat),
    VALUE(tsc_aux),
    VALUE(tsc),
    VALUE(xss),
    VALUE(misc_enable),
    VALUE(mtrr_def_type),
    VALUE(nmi_blocked),
    VALUE(sti_shadow),
    VALUE(movss_shadow),
    VALUE(halted),
    STATE_ARRAY(struct cpu_arch_state, xsave),
    {0},
};
