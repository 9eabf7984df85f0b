/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Several fibers on behalf of one: pieces of a request that can go on at the same time.
 *
 * Owner     Fan and tasks are the starter's, who joins before they go.
 * Thread    The node's home thread.
 */
#include "image/qcow2/internal.h"

static void run_task(void *opaque)
{
    struct qcow2_task *t = opaque;
    struct qcow2_fan *f = t->fan;
    int r = t->fn(t);
    if (r && !f->error)
        f->error = r;
    t->busy = false;
    f->running--;
    if (f->waiter) {
        struct fiber *w = f->waiter;
        f->waiter = NULL;
        fiber_wake(w);
    }
}

void qcow2_fan_start(struct qcow2_fan *f, struct qcow2_task *t, int (*fn)(struct qcow2_task *t))
{
    t->fan = f;
    t->fn = fn;
    t->busy = true;
    f->running++;
    fiber_start(run_task, t);
}

void qcow2_fan_wait(struct qcow2_fan *f)
{
    if (!f->running)
        return;
    f->waiter = fiber_self();
    fiber_wait();
}

int qcow2_fan_join(struct qcow2_fan *f)
{
    while (f->running)
        qcow2_fan_wait(f);
    return f->error;
}

struct call {
    struct qcow2_task task;
    int (*fn)(void *opaque);
    void *opaque;
};

static int run_call(struct qcow2_task *t)
{
    struct call *c = (struct call *)t;
    return c->fn(c->opaque);
}

int qcow2_on_new_stack(int (*fn)(void *opaque), void *opaque)
{
    struct qcow2_fan fan = {0};
    struct call c = {.fn = fn, .opaque = opaque};
    qcow2_fan_start(&fan, &c.task, run_call);
    return qcow2_fan_join(&fan);
}
