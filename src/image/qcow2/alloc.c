/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guest clusters that writes are giving a place: who wants the same ones waits, and looks up again.
 *
 * Thread    The node's home thread.
 */
#include "image/qcow2/internal.h"

void qcow2_alloc_begin(struct qcow2 *s, struct qcow2_alloc *a, uint64_t begin, uint64_t end)
{
    *a = (struct qcow2_alloc){.begin = begin, .end = end, .next = s->allocs};
    if (s->allocs)
        s->allocs->prev = a;
    s->allocs = a;
}

void qcow2_alloc_end(struct qcow2 *s, struct qcow2_alloc *a)
{
    if (a->prev)
        a->prev->next = a->next;
    else
        s->allocs = a->next;
    if (a->next)
        a->next->prev = a->prev;
    fiber_queue_wake_all(&a->waiters);
}

struct qcow2_alloc *qcow2_alloc_find(struct qcow2 *s, uint64_t begin, uint64_t end)
{
    struct qcow2_alloc *first = NULL;
    for (struct qcow2_alloc *a = s->allocs; a; a = a->next)
        if (a->begin < end && begin < a->end && (!first || a->begin < first->begin))
            first = a;
    return first;
}

bool qcow2_alloc_wait(struct qcow2 *s, uint64_t off, uint64_t len)
{
    struct qcow2_alloc *a = qcow2_alloc_find(s, off, off + len);
    if (a)
        fiber_queue_wait(&a->waiters);
    return a != NULL;
}
