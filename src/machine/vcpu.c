/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vCPU threads: one host thread each, and the protocol that starts and stops them.
 *
 * `lock` guards everything in struct machine_run. A thread executes only between setting its `executing` and clearing
 * it, and sets it only while `running` is true: the stopper clears `running` under the lock, kicks whoever executes,
 * and waits for the count to reach zero. A kick that arrives before the accelerator enters the guest is remembered by
 * it (vcpu_kick's contract), so none is lost.
 *
 * Thread    Run, stop, start, join: main. Hold: the vCPU's own. Release: main.
 */
#include "base/log.h"
#include "machine/machine_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>

struct vcpu_thread {
    struct machine *machine;
    struct vcpu *vcpu;
    pthread_t thread;
    bool started;
    bool executing; /* in the accelerator, or about to be */
    bool held;      /* waits for the main thread's answer to a request */
    bool failed;    /* internal error: executes nothing until reset */
    bool leave;     /* the vCPU is taken out: the thread is to end */
};

struct machine_run {
    pthread_mutex_t lock;
    pthread_cond_t go;   /* running, a hold or quit changed */
    pthread_cond_t idle; /* executing fell to zero; a thread has its number */
    bool running, quit;
    unsigned executing;
    unsigned count, known; /* threads that can be; those that ever began */
    struct vcpu_thread thread[];
};

/* Waits until the vCPU may execute. False: the thread is to end. */
static bool wait_for_go(struct machine_run *r, struct vcpu_thread *t)
{
    pthread_mutex_lock(&r->lock);
    while (!r->quit && !t->leave && (!r->running || t->held || t->failed))
        pthread_cond_wait(&r->go, &r->lock);
    bool go = !r->quit && !t->leave;
    if (go) {
        t->executing = true;
        r->executing++;
    }
    pthread_mutex_unlock(&r->lock);
    return go;
}

static void left_guest(struct machine_run *r, struct vcpu_thread *t, bool failed)
{
    pthread_mutex_lock(&r->lock);
    t->executing = false;
    t->failed |= failed;
    if (!--r->executing)
        pthread_cond_broadcast(&r->idle);
    pthread_mutex_unlock(&r->lock);
}

static void *vcpu_main(void *opaque)
{
    struct vcpu_thread *t = opaque;
    struct machine *m = t->machine;
    const struct accel_ops *ops = m->accel->ops;
    char name[16];
    snprintf(name, sizeof(name), "vcpu %u", t->vcpu->index);
    pthread_setname_np(pthread_self(), name);
    current_vcpu = t->vcpu;
    pthread_mutex_lock(&m->run->lock);
    t->vcpu->thread_id = gettid();
    m->run->known++; /* the monitor can tell its number */
    pthread_cond_broadcast(&m->run->idle);
    pthread_mutex_unlock(&m->run->lock);
    while (wait_for_go(m->run, t)) {
        enum vcpu_exit why = ops->vcpu_run(t->vcpu);
        if (why == VCPU_EXIT_ERROR)
            log_error("vCPU %u: %s", t->vcpu->index, ops->vcpu_error(t->vcpu));
        /* Both before `executing` falls: whoever waits for that finds the request posted. */
        if (why == VCPU_EXIT_SHUTDOWN)
            machine_request(m, MACHINE_REQ_RESET, 0);
        else if (why == VCPU_EXIT_ERROR)
            machine_request(m, MACHINE_REQ_INTERNAL_ERROR, 0);
        left_guest(m->run, t, why == VCPU_EXIT_ERROR);
    }
    return NULL;
}

/* Signals that the program handles on its main thread stay away from vCPU threads. */
static void block_signals(sigset_t *ret_old)
{
    static const int handled[] = { SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGWINCH, SIGPIPE, SIGALRM, SIGTSTP, SIGCONT };
    sigset_t set;
    sigemptyset(&set);
    for (unsigned i = 0; i < ARRAY_COUNT(handled); i++)
        sigaddset(&set, handled[i]);
    pthread_sigmask(SIG_BLOCK, &set, ret_old);
}

/* Returns when the thread has its number. 0 or errno. */
static int start_thread(struct machine *m, struct vcpu_thread *t)
{
    struct machine_run *r = m->run;
    sigset_t old;
    unsigned known = r->known;
    t->leave = t->held = t->failed = false;
    block_signals(&old);
    int err = pthread_create(&t->thread, NULL, vcpu_main, t);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (err)
        return err;
    t->started = true;
    pthread_mutex_lock(&r->lock);
    while (r->known == known)
        pthread_cond_wait(&r->idle, &r->lock);
    pthread_mutex_unlock(&r->lock);
    return 0;
}

bool machine_threads_start(struct machine *m, GError **error)
{
    struct machine_run *r = g_malloc0(sizeof(*r) + m->vcpu_count * sizeof(r->thread[0]));
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->go, NULL);
    pthread_cond_init(&r->idle, NULL);
    r->count = m->vcpu_count;
    m->run = r;
    int err = 0;
    for (unsigned i = 0; i < r->count && !err; i++) {
        r->thread[i].machine = m;
        r->thread[i].vcpu = m->vcpus[i];
        if (m->vcpus[i]->present)
            err = start_thread(m, &r->thread[i]);
    }
    return !err || ruche_error_errno(error, err, "no thread for a vCPU");
}

bool machine_vcpu_plug(struct machine *m, unsigned index, GError **error)
{
    struct vcpu *v = m->vcpus[index];
    m->accel->ops->vcpu_reset(v);
    int err = start_thread(m, &m->run->thread[index]);
    if (err)
        return ruche_error_errno(error, err, "no thread for a vCPU");
    v->present = true;
    return true;
}

void machine_vcpu_unplug(struct machine *m, unsigned index)
{
    struct machine_run *r = m->run;
    struct vcpu_thread *t = &r->thread[index];
    if (!t->started)
        return;
    pthread_mutex_lock(&r->lock);
    t->leave = true;
    if (t->executing)
        m->accel->ops->vcpu_kick(t->vcpu);
    pthread_cond_broadcast(&r->go);
    pthread_mutex_unlock(&r->lock);
    pthread_join(t->thread, NULL);
    t->started = false;
    t->vcpu->thread_id = 0;
    t->vcpu->present = false;
}

void machine_threads_join(struct machine *m)
{
    struct machine_run *r = m->run;
    if (!r)
        return;
    machine_threads_stop(m);
    pthread_mutex_lock(&r->lock);
    r->quit = true;
    pthread_cond_broadcast(&r->go);
    pthread_mutex_unlock(&r->lock);
    for (unsigned i = 0; i < r->count; i++)
        if (r->thread[i].started)
            pthread_join(r->thread[i].thread, NULL);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->go);
    pthread_cond_destroy(&r->idle);
    g_free(r);
    m->run = NULL;
}

void machine_threads_run(struct machine *m)
{
    struct machine_run *r = m->run;
    pthread_mutex_lock(&r->lock);
    r->running = true;
    pthread_cond_broadcast(&r->go);
    pthread_mutex_unlock(&r->lock);
}

void machine_threads_stop(struct machine *m)
{
    struct machine_run *r = m->run;
    pthread_mutex_lock(&r->lock);
    r->running = false;
    for (unsigned i = 0; i < r->count; i++)
        if (r->thread[i].executing)
            m->accel->ops->vcpu_kick(r->thread[i].vcpu);
    while (r->executing)
        pthread_cond_wait(&r->idle, &r->lock);
    pthread_mutex_unlock(&r->lock);
}

bool machine_is_running(const struct machine *m)
{
    struct machine_run *r = m->run;
    pthread_mutex_lock(&r->lock);
    bool running = r->running;
    pthread_mutex_unlock(&r->lock);
    return running;
}

void machine_vcpu_hold(struct machine *m)
{
    struct machine_run *r = m->run;
    struct vcpu *v = current_vcpu;
    if (!v)
        return;
    pthread_mutex_lock(&r->lock);
    r->thread[v->index].held = true;
    pthread_mutex_unlock(&r->lock);
    m->accel->ops->vcpu_kick(v);
}

void machine_vcpu_release(struct machine *m, unsigned index)
{
    struct machine_run *r = m->run;
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->thread[index].held = false;
    pthread_cond_broadcast(&r->go);
    pthread_mutex_unlock(&r->lock);
}

void machine_vcpus_revive(struct machine *m)
{
    struct machine_run *r = m->run;
    pthread_mutex_lock(&r->lock);
    for (unsigned i = 0; i < r->count; i++)
        r->thread[i].failed = false;
    pthread_cond_broadcast(&r->go);
    pthread_mutex_unlock(&r->lock);
}
