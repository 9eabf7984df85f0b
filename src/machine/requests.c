/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests and events of guests and devices, carried from any thread to the main loop.
 *
 * Bounds    Each kind of request waits at most once for each vCPU thread; events wait in a ring whose overflow is
 *           dropped and counted: a guest can provoke both at will.
 */
#include "base/log.h"
#include "machine/machine_internal.h"

#define MAX_REQUESTS 64
#define MAX_EVENTS 64
#define NO_VCPU UINT32_MAX

struct request {
    enum machine_request what;
    int code;
    unsigned vcpu; /* that waits for the answer, or NO_VCPU */
};

struct machine_requests {
    pthread_mutex_t lock;
    struct loop_task task;
    struct request queue[MAX_REQUESTS];
    unsigned count;
    struct {
        char *name;
        char **pairs;
    } event[MAX_EVENTS];
    unsigned event_count;
    uint64_t events_dropped;
};

static void deliver_events(struct machine *m)
{
    struct machine_requests *r = m->requests;
    for (;;) {
        pthread_mutex_lock(&r->lock);
        if (!r->event_count) {
            pthread_mutex_unlock(&r->lock);
            return;
        }
        char *name = r->event[0].name, **pairs = r->event[0].pairs;
        memmove(r->event, r->event + 1, --r->event_count * sizeof(r->event[0]));
        pthread_mutex_unlock(&r->lock);
        if (m->observer.event)
            m->observer.event(m->observer.opaque, name, (const char *const *)pairs);
        g_free(name);
        g_strfreev(pairs);
    }
}

static void deliver(void *opaque)
{
    struct machine *m = opaque;
    struct machine_requests *r = m->requests;
    struct request queue[MAX_REQUESTS];
    deliver_events(m);
    pthread_mutex_lock(&r->lock);
    unsigned count = r->count;
    memcpy(queue, r->queue, count * sizeof(*queue));
    r->count = 0;
    pthread_mutex_unlock(&r->lock);
    for (unsigned i = 0; i < count; i++) {
        if (m->observer.request)
            m->observer.request(m->observer.opaque, queue[i].what, queue[i].code);
        if (queue[i].vcpu != NO_VCPU)
            machine_vcpu_release(m, queue[i].vcpu);
    }
}

/* A vCPU that asks for the machine to end or begin anew executes nothing more until the main thread has seen it, as
 * the instruction behind the request belongs to no machine. */
static bool holds_vcpu(enum machine_request what)
{
    return what != MACHINE_REQ_IO_ERROR && what != MACHINE_REQ_CRASH_LOADED;
}

void machine_request(struct machine *m, enum machine_request what, int code)
{
    struct machine_requests *r = m->requests;
    struct request req = { what, code, NO_VCPU };
    if (current_vcpu && holds_vcpu(what)) {
        req.vcpu = current_vcpu->index;
        machine_vcpu_hold(m);
    }
    pthread_mutex_lock(&r->lock);
    bool known = false;
    for (unsigned i = 0; i < r->count; i++)
        known |= r->queue[i].what == what && r->queue[i].vcpu == req.vcpu;
    bool queued = known || r->count < MAX_REQUESTS;
    if (!known && queued)
        r->queue[r->count++] = req;
    pthread_mutex_unlock(&r->lock);
    if (!queued && req.vcpu != NO_VCPU)
        machine_vcpu_release(m, req.vcpu);
    loop_post(m->main_loop, &r->task);
}

void machine_event(struct machine *m, const char *name, const char *const *pairs)
{
    struct machine_requests *r = m->requests;
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    if (r->event_count < MAX_EVENTS) {
        r->event[r->event_count].name = g_strdup(name);
        r->event[r->event_count++].pairs = g_strdupv((char **)(uintptr_t)pairs);
    } else {
        r->events_dropped++;
    }
    pthread_mutex_unlock(&r->lock);
    loop_post(m->main_loop, &r->task);
}

bool machine_requests_init(struct machine *m, GError **error)
{
    struct machine_requests *r = g_new0(struct machine_requests, 1);
    pthread_mutex_init(&r->lock, NULL);
    r->task.fn = deliver;
    r->task.opaque = m;
    m->requests = r;
    return true;
}

/* No vCPU runs any more; what still waits has nobody to hear it. */
void machine_requests_done(struct machine *m)
{
    struct machine_requests *r = m->requests;
    if (!r)
        return;
    m->observer = (struct machine_observer){ 0 };
    loop_unpost(m->main_loop, &r->task);
    deliver(m);
    pthread_mutex_destroy(&r->lock);
    g_free(r);
    m->requests = NULL;
}
