/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Store-then-load order against guest code. Contract in fence.h.
 *
 * Thread    Any. `relaxed` only ever becomes true, before the guest code that needs it runs.
 */
#include "base/fence.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Atomic bool relaxed;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool kept; /* under the lock, and the list */
static struct fence_relaxed *first;

bool fence_guest_relax(struct fence_relaxed *r)
{
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) < 0)
        return false;
    pthread_mutex_lock(&lock);
    r->on = !kept;
    if (r->on) {
        atomic_store(&relaxed, true);
        r->next = first;
        first = r;
    }
    pthread_mutex_unlock(&lock);
    return r->on;
}

void fence_guest_unrelax(struct fence_relaxed *r)
{
    pthread_mutex_lock(&lock);
    for (struct fence_relaxed **at = &first; r->on && *at; at = &(*at)->next) {
        if (*at == r) {
            *at = r->next;
            break;
        }
    }
    r->on = false;
    pthread_mutex_unlock(&lock);
}

void fence_guest_keep(void)
{
    pthread_mutex_lock(&lock);
    kept = true;
    for (; first; first = first->next) {
        first->on = false;
        first->restore(first->opaque);
    }
    pthread_mutex_unlock(&lock);
}

void fence_guest(void)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&relaxed, memory_order_relaxed))
        syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}
