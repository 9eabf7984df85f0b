/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The end of jobs: those of a transaction succeed or fail together. Each waits until the work of
 * all has ended; then all are prepared, and only when every one could be, committed. When one
 * fails, the others are cancelled, and all are undone.
 *
 * Thread    The main thread.
 */
#include "image/job/internal.h"

#include "base/error.h"

#include <errno.h>

struct job_transaction {
    unsigned refs;    /* its jobs, and who made it */
    struct job *jobs; /* by txn_next */
    bool aborting, finalizing;
};

struct job_transaction *job_transaction_new(void)
{
    struct job_transaction *t = g_new0(struct job_transaction, 1);
    t->refs = 1;
    return t;
}

void job_transaction_put(struct job_transaction *t)
{
    if (t && --t->refs == 0)
        g_free(t);
}

void job_txn_join(struct job_transaction *t, struct job *j)
{
    t->refs++;
    j->txn = t;
    j->txn_next = t->jobs;
    t->jobs = j;
}

void job_txn_leave(struct job *j)
{
    struct job_transaction *t = j->txn;
    if (!t)
        return;
    for (struct job **p = &t->jobs; *p; p = &(*p)->txn_next)
        if (*p == j) {
            *p = j->txn_next;
            break;
        }
    j->txn = NULL;
    job_transaction_put(t);
}

/* ---- one job's end ---- */

static void note_error(struct job *j)
{
    if (j->result >= 0 || j->result == -ECANCELED || j->error)
        return;
    j->error = j->sentence ? g_steal_pointer(&j->sentence) : g_strdup(g_strerror(-j->result));
}

static void conclude(struct job *j)
{
    note_error(j);
    if (j->result >= 0) {
        job_call(j, j->type->commit);
    } else {
        job_set_status(j, JOB_ABORTING);
        job_call(j, j->type->abort);
    }
    job_call(j, j->type->clean);
    job_txn_leave(j);
    j->concluded = true;
    job_set_status(j, JOB_CONCLUDED);
    if (j->auto_dismiss && !j->awaited)
        job_dismiss(j);
}

static bool all_finished(const struct job_transaction *t)
{
    for (const struct job *j = t->jobs; j; j = j->txn_next)
        if (!j->finished)
            return false;
    return true;
}

static void conclude_all(struct job_transaction *t)
{
    while (t->jobs)
        conclude(t->jobs); /* which leaves it */
}

/* ---- all together ---- */

static void abort_all(struct job_transaction *t, struct job *culprit)
{
    t->aborting = true;
    for (struct job *j = t->jobs; j; j = j->txn_next) {
        if (j == culprit)
            continue;
        j->cancelled = true;
        if (j->finished) {
            if (j->result >= 0)
                j->result = -ECANCELED;
        } else if (!j->started) {
            j->finished = true;
            j->result = -ECANCELED;
        } else {
            j->pauses = 0;
            job_wake(j);
        }
    }
}

struct preparation {
    struct job *job;
    GError *error;
};

static int prepare_one(void *opaque)
{
    struct preparation *p = opaque;
    return p->job->type->prepare(p->job, &p->error) ? 0 : -EIO;
}

static bool prepare(struct job *j)
{
    struct preparation p = { .job = j };
    if (j->prepared || !j->type->prepare)
        return true;
    j->prepared = true;
    if (context_run(j->ctx, prepare_one, &p) >= 0)
        return true;
    j->result = -EIO;
    j->error = g_strdup(p.error ? p.error->message : "it cannot be finished");
    g_clear_error(&p.error);
    return false;
}

/* Guests wait from before the first job is prepared until the last is concluded: what they wrote to a
 * target that has taken a disk's place would be lost when another job cannot be prepared. */
static int drain_begin(void *n)
{
    node_drain_begin(n);
    return 0;
}

static int drain_end(void *n)
{
    node_drain_end(n);
    return 0;
}

static GPtrArray *drain_all(const struct job_transaction *t)
{
    GPtrArray *drained = g_ptr_array_new_with_free_func((GDestroyNotify)node_unref);
    for (const struct job *j = t->jobs; j; j = j->txn_next) {
        if (!j->node)
            continue;
        g_ptr_array_add(drained, node_ref(j->node));
        context_run(j->ctx, drain_begin, j->node);
    }
    return drained;
}

static void drain_all_end(GPtrArray *drained)
{
    for (guint i = 0; i < drained->len; i++) {
        struct node *n = g_ptr_array_index(drained, i);
        context_run(node_context(n), drain_end, n);
    }
    g_ptr_array_unref(drained);
}

static void finalize(struct job_transaction *t)
{
    if (t->finalizing)
        return;
    t->finalizing = true;
    t->refs++;
    GPtrArray *drained = drain_all(t);
    for (struct job *j = t->jobs; j; j = j->txn_next)
        if (!prepare(j)) {
            abort_all(t, j);
            break;
        }
    conclude_all(t);
    drain_all_end(drained);
    job_transaction_put(t);
}

void job_txn_finalize(struct job *j)
{
    finalize(j->txn);
}

static void succeed(struct job_transaction *t)
{
    bool by_itself = true;
    for (struct job *j = t->jobs; j; j = j->txn_next) {
        job_set_status(j, JOB_PENDING);
        by_itself &= j->auto_finalize;
    }
    if (by_itself)
        finalize(t);
}

void job_txn_finished(struct job *j)
{
    struct job_transaction *t = j->txn;
    t->refs++;
    if (j->result < 0 && !t->aborting)
        abort_all(t, j);
    if (!t->aborting)
        job_set_status(j, JOB_WAITING);
    if (all_finished(t)) {
        if (t->aborting)
            conclude_all(t);
        else
            succeed(t);
    }
    job_transaction_put(t);
}
