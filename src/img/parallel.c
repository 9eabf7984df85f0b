/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Several fibers at one piece of work. Fiber: all of it. */
#include "img/img.h"

struct team {
    void (*fn)(void *opaque);
    void *opaque;
    unsigned running;
    struct fiber_queue done;
};

static void member(void *opaque)
{
    struct team *t = opaque;
    t->fn(t->opaque);
    if (!--t->running)
        fiber_queue_wake_all(&t->done);
}

void img_parallel(unsigned count, void (*fn)(void *opaque), void *opaque)
{
    struct team t = {.fn = fn, .opaque = opaque, .running = count};
    for (unsigned i = 0; i < count; i++)
        fiber_start(member, &t);
    while (t.running)
        fiber_queue_wait(&t.done);
}
