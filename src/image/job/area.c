/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ranges of bytes that one fiber at a time works on. There are as many as requests in flight: a
 * list is searched.
 *
 * Owner     An area lives on the stack of the fiber that locked it.
 */
#include "image/job/internal.h"

static struct area *find_overlap(const struct area_set *s, uint64_t off, uint64_t end)
{
    struct area *a = s->first;
    while (a && (a->end <= off || a->off >= end))
        a = a->next;
    return a;
}

bool area_is_locked(const struct area_set *s, uint64_t off, uint64_t len)
{
    return find_overlap(s, off, off + len) != NULL;
}

void area_wait(struct area_set *s, uint64_t off, uint64_t len)
{
    struct area *a = find_overlap(s, off, off + len);
    if (a)
        fiber_queue_wait(&a->waiters);
}

void area_lock(struct area_set *s, struct area *a, uint64_t off, uint64_t len)
{
    for (struct area *other; (other = find_overlap(s, off, off + len));)
        fiber_queue_wait(&other->waiters);
    *a = (struct area){ .off = off, .end = off + len, .next = s->first };
    s->first = a;
}

void area_unlock(struct area_set *s, struct area *a)
{
    struct area **link = &s->first;
    while (*link != a)
        link = &(*link)->next;
    *link = a->next;
    fiber_queue_wake_all(&a->waiters);
}
