/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Instructions that do little: NOP, UD.
 *
 * Spec      Intel SDM volume 2.
 */
#include "cpu/exec/handlers.h"

int x_nop(struct cpu *c, const struct insn *i)
{
    return X_NEXT;
}

int x_ud(struct cpu *c, const struct insn *i)
{
    return cpu_raise(c, EXC_UD);
}
