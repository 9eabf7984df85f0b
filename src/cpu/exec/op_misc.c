/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Instructions that do little: hints, fences, undefined opcodes, random numbers.
 *
 * Spec      Intel SDM volume 2.
 */
#include "cpu/exec/handlers.h"
#include "cpu/exec/operand.h"

#include <sched.h>
#include <sys/random.h>

int x_nop(struct cpu *c, const struct insn *i)
{
    return X_NEXT;
}

int x_ud(struct cpu *c, const struct insn *i)
{
    return cpu_raise(c, EXC_UD);
}

/* Somebody spins. With fewer host cores than vCPUs the one waited for may not be running: now and then
 * the core is given away. */
int x_pause(struct cpu *c, const struct insn *i)
{
    if (++c->pauses % 512 == 0)
        sched_yield();
    else
        __builtin_ia32_pause();
    return X_NEXT;
}

/* Guest memory order is the host's; only what the compiler or the host's store buffer could move matters. */
int x_fence(struct cpu *c, const struct insn *i)
{
    __sync_synchronize();
    return X_NEXT;
}

/* Checks its operand as a load of one byte does. */
int x_clflush(struct cpu *c, const struct insn *i)
{
    uint64_t lin;

    if (exec_linear(c, i, 1, false, &lin))
        return X_FAULT;
    return mmu_probe(c, lin, 1, ACCESS_READ);
}

/* CF: a number was to be had. Without one the destination is 0. */
static int random_number(struct cpu *c, const struct insn *i)
{
    uint64_t v = 0;
    bool ok = getrandom(&v, sizeof(v), GRND_NONBLOCK) == (ssize_t)sizeof(v);

    reg_set(c, i->rm, i->opsize, ok ? v : 0);
    c->flags_ax = ok ? FLAG_CF << 8 : 0;
    return X_NEXT;
}

int x_rdrand(struct cpu *c, const struct insn *i)
{
    return random_number(c, i);
}

int x_rdseed(struct cpu *c, const struct insn *i)
{
    return random_number(c, i);
}
