/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Procedures by number. Thread: the loop thread; the table is filled at the first question. */
#include "libvirt/rpc.h"

#include "libvirt/frame.h"

enum { REMOTE_ROOM = 512, QEMU_ROOM = 16 };

static const struct rpc_proc *remote[REMOTE_ROOM], *qemu[QEMU_ROOM];

static const struct rpc_proc **slot(uint32_t program, uint32_t number)
{
    if (program == PROGRAM_QEMU)
        return number < QEMU_ROOM ? &qemu[number] : NULL;
    return program == PROGRAM_REMOTE && number < REMOTE_ROOM ? &remote[number] : NULL;
}

static void fill(void)
{
    LINKSET_FOREACH (rpc_procs, struct rpc_proc, p) {
        const struct rpc_proc **at = slot(p->program ? p->program : PROGRAM_REMOTE, p->number);
        g_assert(at && !*at); /* a number twice is our bug */
        *at = p;
    }
}

const struct rpc_proc *rpc_find(uint32_t program, uint32_t number)
{
    static bool filled;
    if (!filled)
        fill();
    filled = true;
    const struct rpc_proc **at = slot(program, number);
    return at ? *at : NULL;
}
