/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of jobs. Thread: the loop thread; see job.h for what workers may touch. */
#include "manager/job.h"

#include "manager/task.h"

struct running {
    struct job *job;
    bool (*fn)(struct job *j, void *opaque, char **ret_result, GError **error);
    void *opaque;
};

/* One that waits for a job's end. */
struct waiter {
    struct job *job;
    struct task_event end;
    struct waiter *next;
};

static GPtrArray *jobs;
static struct waiter *waiters;
static unsigned last_id;

struct job *job_ref(struct job *j)
{
    j->refs++;
    return j;
}

void job_unref(struct job *j)
{
    if (!j || --j->refs)
        return;
    g_free(j->operation);
    g_free(j->object);
    g_free(j->step);
    g_free(j->result);
    g_clear_error(&j->error);
    g_free(j);
}

static void job_free(gpointer j)
{
    job_unref(j);
}

static gboolean forget(gpointer opaque)
{
    g_ptr_array_remove(jobs, opaque);
    return G_SOURCE_REMOVE;
}

static void ended(struct job *j)
{
    j->end_us = g_get_monotonic_time();
    g_timeout_add_seconds(JOB_KEEP_S, forget, j); /* the table's reference lives as long as that */
    for (struct waiter *w = waiters; w; w = w->next)
        if (w->job == j)
            task_event_happen(&w->end);
}

static void job_main(void *opaque)
{
    struct running r = *(struct running *)opaque;
    struct job *j = r.job;
    bool ok = r.fn(j, r.opaque, &j->result, &j->error);
    j->state = ok ? JOB_DONE : atomic_load(&j->cancelled) ? JOB_CANCELLED : JOB_FAILED;
    ended(j);
}

struct job *job_start(const struct caller *who, const char *operation, const char *object,
                      bool (*fn)(struct job *j, void *opaque, char **ret_result, GError **error),
                      void *opaque)
{
    struct job *j = g_new0(struct job, 1);
    struct running r = {.job = j, .fn = fn, .opaque = opaque};
    if (!jobs)
        jobs = g_ptr_array_new_with_free_func(job_free);
    j->refs = 2; /* the table's and the caller's */
    j->id = ++last_id;
    j->operation = g_strdup(operation);
    j->object = g_strdup(object);
    j->begin_us = g_get_monotonic_time();
    j->owner = who->uid;
    g_ptr_array_add(jobs, j);
    task_start(job_main, &r);
    return j;
}

void job_step(struct job *j, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    g_free(j->step);
    j->step = g_strdup_vprintf(format, ap);
    va_end(ap);
    atomic_store(&j->done, 0);
    atomic_store(&j->total, 0);
}

bool job_cancel(const struct caller *who, struct job *j, GError **error)
{
    g_autofree char *what =
        g_strdup_printf("cancel job %u (%s %s)", j->id, j->operation, j->object);
    if (!access_check(who, RIGHT_CONTROL, what, error))
        return false;
    if (j->state != JOB_RUNNING)
        return ruche_error(error, RUCHE_ERR_STATE, "job %u (%s %s) has ended already", j->id,
                           j->operation, j->object);
    atomic_store(&j->cancelled, true);
    audit(who, "cancel job", j->object, NULL);
    return true;
}

struct job *job_find(unsigned id, GError **error)
{
    for (unsigned i = 0; jobs && i < jobs->len; i++)
        if (((struct job *)jobs->pdata[i])->id == id)
            return job_ref(jobs->pdata[i]);
    ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no job %u", id);
    return NULL;
}

GPtrArray *job_list(const struct caller *who)
{
    GPtrArray *list = g_ptr_array_new_with_free_func(job_free);
    for (unsigned i = 0; jobs && i < jobs->len && access_has(who, RIGHT_READ); i++)
        g_ptr_array_add(list, job_ref(jobs->pdata[i]));
    return list;
}

bool job_wait(struct job *j, int timeout_ms)
{
    struct waiter self = {.job = j, .next = waiters};
    if (j->state != JOB_RUNNING)
        return true;
    job_ref(j);
    waiters = &self;
    task_event_wait(&self.end, timeout_ms);
    struct waiter **at = &waiters;
    while (*at != &self)
        at = &(*at)->next;
    *at = self.next;
    bool over = j->state != JOB_RUNNING;
    job_unref(j);
    return over;
}
