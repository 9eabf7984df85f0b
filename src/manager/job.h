/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Long work that a person can watch and end: building an image, copying a volume, wiping one.
 *
 * Thread    The loop thread; the work's worker threads only write `done` and `total` and read `cancelled`.
 * Owner     The table; ended jobs are kept for JOB_KEEP_S, so that their result can be asked for.
 */
#pragma once

#include "manager/access.h"

#include <stdatomic.h>

#define JOB_KEEP_S 600

enum job_state { JOB_RUNNING, JOB_DONE, JOB_FAILED, JOB_CANCELLED };

struct job {
    unsigned refs, id;
    char *operation, *object;      /* "launch", "domain 'web'" */
    enum job_state state;
    char *step;                    /* what it does now: "building image 'debian'" */
    _Atomic uint64_t done, total;  /* of the step, in its own unit; total 0: not known */
    atomic_bool cancelled;         /* asked for; the work looks at it */
    char *result;                  /* of a done one, may be NULL */
    GError *error;                 /* of a failed one */
    int64_t begin_us, end_us;
    uid_t owner;
};
/* fn runs as a task; true: done (*ret_result may be set), false: failed, or cancelled if that was asked for. The job
 * returned is referenced for the caller. */
struct job *job_start(const struct caller *who, const char *operation, const char *object,
                      bool (*fn)(struct job *j, void *opaque, char **ret_result, GError **error), void *opaque);
void job_step(struct job *j, const char *format, ...) G_GNUC_PRINTF(2, 3);
bool job_cancel(const struct caller *who, struct job *j, GError **error);
struct job *job_find(unsigned id, GError **error);
GPtrArray *job_list(const struct caller *who); /* references */
bool job_wait(struct job *j, int timeout_ms);  /* from a task; false: not ended yet */
struct job *job_ref(struct job *j);
void job_unref(struct job *j);
