/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Chooses the handler of a decoded instruction: the row's own, or one that raises what the processor's
 * model and mode demand.
 *
 * Thread    The vCPU's own. The mode word is part of a block's key, so what depends on it is decided here.
 */
#include "cpu/exec/handlers.h"
#include "cpu/shared.h"

#define ROW(mnem, exec, map, op, pfx, mod, reg, vex, ops, r, w, u, attr) x_##exec,
static exec_fn *const row_handlers[] = {
#include "cpu/decode/rows.h"
};
#undef ROW

static int bind_ud(struct cpu *c, const struct insn *i)
{
    return cpu_raise(c, EXC_UD);
}

/* CR0.TS or EM was set when the block was decoded, and MODE_FPU_NM says that it still is. */
static int bind_fpu_off(struct cpu *c, const struct insn *i)
{
    uint32_t attr = insn_rows[i->row].attr;

    if ((c->cr0 & 4) && (attr & (A_MMX | A_SSE)))
        return cpu_raise(c, EXC_UD);
    return cpu_raise(c, EXC_NM);
}

static int bind_priv(struct cpu *c, const struct insn *i)
{
    if (c->cpl != 0)
        return cpu_raise_error(c, EXC_GP, 0);
    return row_handlers[i->row](c, i);
}

void exec_bind(struct cpu *c, struct insn *i, const uint8_t *bytes)
{
    uint32_t attr = insn_rows[i->row].attr;
    uint32_t vector = attr & (A_X87 | A_MMX | A_SSE | A_AVX);

    if (((attr >> 24) && !cpu_has(c, attr >> 24)) || ((attr & A_AVX) && (c->mode & MODE_AVX_OFF)) ||
        ((attr & A_SSE) && (c->mode & MODE_SSE_OFF))) {
        i->fn = bind_ud;
        return;
    }
    i->fn = attr & A_PRIV ? bind_priv : row_handlers[i->row];
    if (!vector)
        return;
    if (c->mode & MODE_FPU_NM)
        i->fn = bind_fpu_off;
    else
        fpu_bind(c, i, bytes);
}

exec_fn *exec_row_handler(unsigned row)
{
    return row_handlers[row];
}

bool exec_bind_refused(const struct insn *i)
{
    return i->fn == bind_ud || i->fn == bind_fpu_off;
}
