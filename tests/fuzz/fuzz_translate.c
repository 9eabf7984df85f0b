/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Any code in any state, run block by block by both engines in lockstep: they must agree.
 *
 * Input     As fuzz_machine.h has it.
 */
#include "fuzz_machine.h"

#include "cpu/translate/translate.h"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BLOCKS 48

/* False: the machine has stopped. */
static bool run_block(void)
{
    struct cpu *c = fuzz_cpu;

    if (!translate_wanted(c) || c->int_shadow || c->halted)
        return cpu_step(c) == CPU_EXIT_DEBUG;
    int st = translate_one(c);
    if (st == X_FAULT)
        st = cpu_deliver_fault(c);
    if (st == X_EXIT && c->exit_reason == CPU_EXIT_ERROR)
        fprintf(stderr, "%s\n", cpu_run_error(c));
    fuzz_require(st != X_EXIT || c->exit_reason != CPU_EXIT_ERROR);
    return st != X_EXIT;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_guest guest;

    if (!fuzz_cpu) {
        fuzz_machine_init(CPU_TRANSLATE_LOCKSTEP);
        translate_set_eager(fuzz_shared);
    }
    fuzz_guest_make(data, size, &guest);
    cpu_reset(fuzz_cpu, false);
    cpu_shared_written(fuzz_shared, 0, RAM_SIZE);
    cpu_set_state(fuzz_cpu, &guest.state);
    fuzz_irq = guest.vector ? (int)guest.vector : -1;
    for (unsigned n = 0; n < BLOCKS && run_block(); n++)
        ;
    return 0;
}
