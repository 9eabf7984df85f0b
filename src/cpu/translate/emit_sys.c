/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Emitters of what kernels do at every entry, exit and lock: CLI, STI, SWAPGS. CPL 0 only; else the handler decides.
 *
 * Thread    The one that builds the block.
 */
#include "cpu/exec/handlers.h"
#include "cpu/translate/emit.h"

#define CPU_GS(field) AS_GS(offsetof(struct cpu, field))

/* The mode word tells CPL 3 from the others only. Host flags are destroyed. */
static void check_cpl0(struct tr *t)
{
    flags_clobber(t);
    as_alu_mi(&t->as, AS_CMP, 1, CPU_GS(cpl), 0);
    emit_slow_if(t, CC_NE);
}

static bool emit_cli(struct tr *t, const struct insn *i)
{
    if (t->mode & MODE_USER)
        return false;
    check_cpl0(t);
    as_alu_mi(&t->as, AS_AND, 4, CPU_GS(flags_sys), ~(int32_t)FLAG_IF);
    return true;
}

/* No event is looked at before the next instruction of the block is done: that is the shadow. An interrupt that has
 * waited for IF, or an instruction that stands last, needs the real one: the handler's. */
static bool emit_sti(struct tr *t, const struct insn *i)
{
    if (t->mode & MODE_USER || t->n + 1 >= t->count)
        return false;
    check_cpl0(t);
    as_alu_mi(&t->as, AS_CMP, 1, CPU_GS(intr_pending), 0);
    emit_slow_if(t, CC_NE);
    as_alu_mi(&t->as, AS_OR, 4, CPU_GS(flags_sys), FLAG_IF);
    return true;
}

static bool emit_swapgs(struct tr *t, const struct insn *i)
{
    if (t->mode & MODE_USER || !t->mode64)
        return false;
    check_cpl0(t);
    as_load(&t->as, 8, R_S0, CPU_GS(seg_base[SEG_GS]));
    as_load(&t->as, 8, R_S1, CPU_GS(kernel_gs_base));
    as_store(&t->as, 8, CPU_GS(kernel_gs_base), R_S0);
    as_store(&t->as, 8, CPU_GS(seg_base[SEG_GS]), R_S1);
    as_store(&t->as, 8, CPU_GS(seg[SEG_GS].base), R_S1);
    return true;
}

static const struct emit_row rows[] = {
    { x_cli, emit_cli },
    { x_sti, emit_sti },
    { x_swapgs, emit_swapgs },
};
EMIT_ROWS(sys_emitters, rows);
