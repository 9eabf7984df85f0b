/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The TSC's offset, for whoever keeps the clocks of several vCPUs in step.
 *
 * Thread    The vCPU's own, or any while it does not run.
 */
#include "cpu/state.h"

int64_t cpu_tsc_offset(const struct cpu *c)
{
    return c->tsc_offset;
}

void cpu_set_tsc_offset(struct cpu *c, int64_t offset)
{
    c->tsc_offset = offset;
}
