/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Jobs: the set of them, their life, and the commands on them.
 *
 * Spec      QEMU's job states: created, running or paused, ready or standby, waiting, pending,
 *           aborting, concluded, gone.
 * Thread    The main thread owns the states. The work sends messages (paused, ready, failed,
 *           done), which the main loop, or job_wait(), takes from the set's queue in order.
 */
#include "image/job/internal.h"

#include "base/error.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#define JOB_ID_MAX 255

const char *const job_kind_words[] = { "stream", "commit", "mirror", "backup",
                                       "create", "amend",  NULL };
const char *const job_status_words[] = { "undefined", "created",   "running", "paused",
                                         "ready",     "standby",   "waiting", "pending",
                                         "aborting",  "concluded", "null",    NULL };

struct message {
    struct job *job;
    enum job_message_kind kind;
    bool write;
    enum job_on_error action;
    struct message *next;
};

struct job_set {
    struct job_listener listener;
    struct loop *main; /* NULL: only job_wait() takes messages */
    struct loop_task task;
    struct job *jobs;     /* in order of creation */
    bool told;            /* a message waits; for context_wait() */
    pthread_mutex_t lock; /* guards the queue */
    pthread_cond_t arrived;
    struct message *first, **last;
};

/* ---- the set ---- */

static void take_messages(void *opaque);

struct job_set *job_set_new(struct loop *main, const struct job_listener *l)
{
    struct job_set *s = g_new0(struct job_set, 1);
    if (l)
        s->listener = *l;
    s->main = main;
    s->task = (struct loop_task){ .fn = take_messages, .opaque = s };
    s->last = &s->first;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->arrived, NULL);
    return s;
}

void job_set_free(struct job_set *s)
{
    if (!s)
        return;
    for (struct job *j = s->jobs; j; j = j->next)
        j->auto_finalize = true;
    while (s->jobs) {
        struct job *j = s->jobs;
        if (j->concluded) {
            job_dismiss(j);
            continue;
        }
        job_do(j, JOB_VERB_CANCEL, 0, true, NULL);
        j->auto_dismiss = true;
        job_wait(j, NULL);
    }
    if (s->main)
        loop_unpost(s->main, &s->task);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->arrived);
    g_free(s);
}

struct job *job_find(const struct job_set *s, const char *id)
{
    struct job *j = s->jobs;
    while (j && strcmp(j->id, id))
        j = j->next;
    return j;
}

struct job *job_next(const struct job_set *s, const struct job *after)
{
    return after ? after->next : s->jobs;
}

/* ---- messages ---- */

void job_tell(struct job *j, enum job_message_kind kind, bool write, enum job_on_error action)
{
    struct job_set *s = j->set;
    struct message *m = g_new(struct message, 1);
    *m = (struct message){ .job = j, .kind = kind, .write = write, .action = action };
    pthread_mutex_lock(&s->lock);
    *s->last = m;
    s->last = &m->next;
    __atomic_store_n(&s->told, true, __ATOMIC_RELEASE);
    pthread_cond_signal(&s->arrived);
    pthread_mutex_unlock(&s->lock);
    if (s->main)
        loop_post(s->main, &s->task);
}

static struct message *next_message(struct job_set *s)
{
    pthread_mutex_lock(&s->lock);
    struct message *m = s->first;
    if (m) {
        s->first = m->next;
        if (!s->first)
            s->last = &s->first;
    } else {
        __atomic_store_n(&s->told, false, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&s->lock);
    return m;
}

static void on_done(struct job *j)
{
    j->finished = true;
    j->busy = false;
    if (j->cancelled && j->result >= 0)
        j->result = -ECANCELED;
    job_txn_finished(j);
}

static void handle(struct job *j, const struct message *m)
{
    static const enum job_status paused[] = {
        [JOB_RUNNING] = JOB_PAUSED, [JOB_READY] = JOB_STANDBY
    };
    static const enum job_status resumed[] = {
        [JOB_PAUSED] = JOB_RUNNING, [JOB_STANDBY] = JOB_READY
    };
    switch (m->kind) {
    case JOB_SAYS_PAUSED:
        if (j->status == JOB_RUNNING || j->status == JOB_READY)
            job_set_status(j, paused[j->status]);
        break;
    case JOB_SAYS_RESUMED:
        if (j->status == JOB_PAUSED || j->status == JOB_STANDBY)
            job_set_status(j, resumed[j->status]);
        break;
    case JOB_SAYS_READY:
        job_set_status(j, j->status == JOB_PAUSED ? JOB_STANDBY : JOB_READY);
        break;
    case JOB_SAYS_ERROR:
        if (j->set->listener.io_error)
            j->set->listener.io_error(j, m->write, m->action, j->set->listener.opaque);
        if (m->action == JOB_ERROR_STOP)
            j->user_paused = true;
        break;
    case JOB_SAYS_DONE:
        on_done(j);
        break;
    }
}

static void take_messages(void *opaque)
{
    struct job_set *s = opaque;
    for (struct message *m; (m = next_message(s)); g_free(m))
        handle(m->job, m);
}

/* ---- life ---- */

static bool id_is_fine(const char *id)
{
    if (!g_ascii_isalpha(id[0]) || strlen(id) > JOB_ID_MAX)
        return false;
    for (const char *p = id; *p; p++)
        if (!g_ascii_isalnum(*p) && !strchr("-._", *p))
            return false;
    return true;
}

static void begin(void *opaque);
static void wake_up(void *opaque);

struct job *job_new(struct job_set *s, const struct job_type *t, const struct job_common *c,
                    struct node *n, struct context *ctx, GError **error)
{
    if (!c->id) {
        ruche_error(error, RUCHE_ERR_INVALID, "a job needs an id: 'job-id' is missing");
        return NULL;
    }
    if (!id_is_fine(c->id)) {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "'%s' cannot be a job's id: a letter, then letters, digits, '-', '.' or '_'",
                    c->id);
        return NULL;
    }
    if (job_find(s, c->id)) {
        ruche_error(error, RUCHE_ERR_EXISTS, "the job id '%s' is in use", c->id);
        return NULL;
    }
    struct job *j = g_malloc0(t->size);
    j->type = t;
    j->set = s;
    j->id = g_strdup(c->id);
    j->who = g_strdup_printf("job '%s'", c->id);
    j->ctx = ctx;
    j->node = n;
    j->auto_finalize = c->auto_finalize;
    j->auto_dismiss = c->auto_dismiss;
    j->on_error[0] = c->on_error_source;
    j->on_error[1] = c->on_error_target;
    j->speed = c->speed;
    j->status = JOB_UNDEFINED;
    j->begin_task = (struct loop_task){ .fn = begin, .opaque = j };
    j->wake_task = (struct loop_task){ .fn = wake_up, .opaque = j };
    return j;
}

void job_free_new(struct job *j)
{
    g_free(j->id);
    g_free(j->who);
    g_free(j->error);
    g_free(j->sentence);
    g_free(j);
}

void job_born(struct job *j, const struct job_common *c)
{
    struct job **tail = &j->set->jobs;
    while (*tail)
        tail = &(*tail)->next;
    *tail = j;
    struct job_transaction *t = c->txn ? c->txn : job_transaction_new();
    job_txn_join(t, j);
    if (!c->txn)
        job_transaction_put(t);
    job_set_status(j, JOB_CREATED);
    if (!c->hold)
        job_start(j);
}

void job_set_status(struct job *j, enum job_status s)
{
    if (j->status == s)
        return;
    j->status = s;
    if (j->set->listener.status)
        j->set->listener.status(j, j->set->listener.opaque);
}

/* In a fiber of the context. */
static void work(void *opaque)
{
    struct job *j = opaque;
    job_pause_point(j);
    j->result = job_is_cancelled(j) ? -ECANCELED : j->type->run(j);
    job_tell(j, JOB_SAYS_DONE, false, JOB_ERROR_REPORT);
}

static void begin(void *opaque)
{
    fiber_start(work, opaque);
}

void job_start(struct job *j)
{
    j->started = true;
    j->busy = true;
    job_set_status(j, JOB_RUNNING);
    loop_post(context_loop(j->ctx), &j->begin_task);
}

void job_drop(struct job *j)
{
    struct job_transaction *alone = job_transaction_new();
    job_txn_leave(j);
    job_txn_join(alone, j);
    job_transaction_put(alone);
    j->auto_dismiss = true;
    j->cancelled = true;
    j->result = -ECANCELED;
    j->finished = true;
    job_txn_finished(j);
}

/* Home thread of the context, outside of fibers. */
static void wake_up(void *opaque)
{
    struct job *j = opaque;
    fiber_queue_wake_all(&j->wake);
}

void job_wake(struct job *j)
{
    loop_post(context_loop(j->ctx), &j->wake_task);
}

struct call {
    struct job *job;
    void (*fn)(struct job *j);
};

static int run_call(void *opaque)
{
    struct call *c = opaque;
    c->fn(c->job);
    return 0;
}

void job_call(struct job *j, void (*fn)(struct job *j))
{
    struct call c = { .job = j, .fn = fn };
    if (fn)
        context_run(j->ctx, run_call, &c);
}

static void forget_wake(struct job *j)
{
    loop_unpost(context_loop(j->ctx), &j->wake_task);
}

void job_dismiss(struct job *j)
{
    struct job **link = &j->set->jobs;
    while (*link != j)
        link = &(*link)->next;
    *link = j->next;
    job_set_status(j, JOB_NULL);
    job_call(j, forget_wake);
    job_txn_leave(j);
    job_free_new(j);
}

/* ---- what users see and do ---- */

void job_get_info(const struct job *j, struct job_info *ret)
{
    int io_error = j->io_error;
    *ret = (struct job_info){
        .id = j->id,
        .kind = j->type->kind,
        .status = j->status,
        .done = j->done,
        .total = j->total,
        .speed = j->speed,
        .paused = j->pauses > 0,
        .busy = j->busy,
        .ready = j->ready,
        .auto_finalize = j->auto_finalize,
        .auto_dismiss = j->auto_dismiss,
        .failed_io = io_error != 0,
        .no_space = io_error == ENOSPC,
        .cancelled = j->result == -ECANCELED,
        .error = j->error,
    };
}

#define IN(status) (1u << JOB_##status)
#define ALIVE      (IN(CREATED) | IN(RUNNING) | IN(PAUSED) | IN(READY) | IN(STANDBY))
static const struct {
    unsigned when; /* states that allow it */
    const char *word;
} verbs[JOB_VERBS] = {
    [JOB_VERB_CANCEL] = { ALIVE | IN(WAITING) | IN(PENDING), "cancelled" },
    [JOB_VERB_PAUSE] = { ALIVE, "paused" },
    [JOB_VERB_RESUME] = { ALIVE, "resumed" },
    [JOB_VERB_SET_SPEED] = { ALIVE, "given a speed" },
    [JOB_VERB_COMPLETE] = { IN(READY), "completed" },
    [JOB_VERB_FINALIZE] = { IN(PENDING), "finalized" },
    [JOB_VERB_DISMISS] = { IN(CONCLUDED), "dismissed" },
};

static void cancel(struct job *j, bool force)
{
    if (j->started && !j->finished) {
        if (j->ready && !force)
            j->stopped = true;
        else
            j->cancelled = true;
        j->user_paused = false;
        j->pauses = 0;
        job_wake(j);
        return;
    }
    j->cancelled = true; /* not begun, or waiting for the end of others */
    j->result = -ECANCELED;
    j->finished = true;
    job_txn_finished(j);
}

static bool set_paused(struct job *j, bool paused, GError **error)
{
    if (j->user_paused == paused)
        return ruche_error(error, RUCHE_ERR_STATE,
                           paused ? "job '%s' is paused already" : "job '%s' is not paused", j->id);
    j->user_paused = paused;
    if (!paused)
        j->io_error = 0;
    j->pauses = paused;
    job_wake(j);
    return true;
}

bool job_do(struct job *j, enum job_verb v, uint64_t speed, bool force, GError **error)
{
    if (!(verbs[v].when & (1u << j->status)))
        return ruche_error(error, RUCHE_ERR_STATE, "job '%s' is in state '%s'; it cannot be %s now",
                           j->id, job_status_words[j->status], verbs[v].word);
    switch (v) {
    case JOB_VERB_CANCEL:
        cancel(j, force);
        return true;
    case JOB_VERB_PAUSE:
    case JOB_VERB_RESUME:
        return set_paused(j, v == JOB_VERB_PAUSE, error);
    case JOB_VERB_SET_SPEED:
        if (speed > INT64_MAX)
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "job '%s': the speed %" G_GUINT64_FORMAT " is too large", j->id,
                               speed);
        j->speed = speed;
        break;
    case JOB_VERB_COMPLETE:
        if (!j->type->can_complete)
            return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "job '%s' ends by itself", j->id);
        if (j->stopped)
            return ruche_error(error, RUCHE_ERR_STATE, "job '%s' is being cancelled", j->id);
        j->completing = true;
        break;
    case JOB_VERB_FINALIZE:
        job_txn_finalize(j);
        return true;
    case JOB_VERB_DISMISS:
        job_dismiss(j);
        return true;
    case JOB_VERBS:
        return false;
    }
    job_wake(j);
    return true;
}

/* Serves the job's context until a message is there. */
static void wait_for_message(struct job *j)
{
    struct job_set *s = j->set;
    struct loop *home = context_home(j->ctx);
    if (!home || loop_is_home(home)) {
        context_wait(j->ctx, &s->told);
        return;
    }
    pthread_mutex_lock(&s->lock);
    while (!s->first)
        pthread_cond_wait(&s->arrived, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

bool job_wait(struct job *j, GError **error)
{
    struct job_set *s = j->set;
    j->awaited = true;
    for (take_messages(s); !j->concluded; take_messages(s))
        wait_for_message(j);
    bool ok = j->result >= 0;
    if (!ok)
        ruche_error(error, j->result == -ENOSPC ? RUCHE_ERR_NO_SPACE : RUCHE_ERR_IO, "%s",
                    j->error ? j->error : "the job was cancelled");
    j->awaited = false;
    if (j->auto_dismiss)
        job_dismiss(j);
    return ok;
}

const char *job_id(const struct job *j)
{
    return j->id;
}

struct node *job_node(const struct job *j)
{
    return j->concluded ? NULL : j->node;
}

bool job_is_block_job(const struct job *j)
{
    return j->type->block;
}
