/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Store-then-load order against guest code. Contract in fence.h.
 *
 * Thread    Any. `relaxed` only ever becomes true, before the guest code that needs it runs.
 */
#include "base/fence.h"

#include <linux/membarrier.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Atomic bool relaxed;

bool fence_guest_relax(void)
{
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) < 0)
        return false;
    atomic_store(&relaxed, true);
    return true;
}

bool fence_guest_relaxed(void)
{
    return atomic_load(&relaxed);
}

void fence_guest(void)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&relaxed, memory_order_relaxed))
        syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}
