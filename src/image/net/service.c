/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Serving a library's descriptor; see service.h. */
#include "image/net/service.h"

#include <poll.h>
#include <sys/socket.h>

#define ASK_AGAIN_NS (100 * NS_PER_MS)

static void cut(void *opaque)
{
    struct service *s = opaque;
    if (s->library)
        shutdown(s->fd(s->library), SHUT_RDWR);
}

static int wait_once(struct service *s, unsigned events)
{
    if (!events) {
        context_sleep_ns(s->ctx, ASK_AGAIN_NS);
        return 0;
    }
    if (!s->timeout_ns)
        return context_wait_fd(s->ctx, s->fd(s->library), events);
    struct loop_timer timer;
    loop_timer_init(context_loop(s->ctx), &timer, cut, s);
    loop_timer_arm(&timer, loop_now_ns() + s->timeout_ns);
    int ready = context_wait_fd(s->ctx, s->fd(s->library), events);
    loop_timer_done(&timer);
    return ready;
}

static void serve_once(struct service *s, unsigned events)
{
    int ready = wait_once(s, events);
    if (!s->library || (ready >= 0 && s->handle(s->library, ready) >= 0))
        return;
    void *library = s->library;
    cut(s); /* wakes who else waits for the descriptor */
    s->library = NULL;
    s->give_up(library);
}

bool service_wait(struct service *s, const bool *done)
{
    /* What our call queued goes out: the fiber that serves may be waiting only for answers. */
    while (s->library && s->serving && !*done && (s->events(s->library) & POLLOUT))
        serve_once(s, POLLOUT);
    while (s->library && !*done) {
        if (s->serving) {
            fiber_queue_wait(&s->others);
            continue;
        }
        s->serving = true;
        serve_once(s, (unsigned)s->events(s->library));
        s->serving = false;
        fiber_queue_wake_all(&s->others);
    }
    fiber_queue_wake_all(&s->others);
    return *done;
}
