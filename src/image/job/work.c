/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the work of a job calls: pauses, pace, progress, and the policy for failed requests.
 *
 * Fiber     All of it, in fibers of the job's context.
 */
#include "image/job/internal.h"

#include <errno.h>

#define RETRY_NS (100 * NS_PER_MS) /* between attempts of what on-error=ignore ignores */

bool job_is_cancelled(const struct job *j)
{
    return j->cancelled;
}

static void timer_fired(void *opaque)
{
    struct job *j = opaque;
    fiber_queue_wake_all(&j->wake);
}

void job_sleep(struct job *j, int64_t ns)
{
    struct loop_timer timer;
    j->busy = false;
    if (ns) {
        loop_timer_init(context_loop(j->ctx), &timer, timer_fired, j);
        loop_timer_arm(&timer, loop_now_ns() + ns);
    }
    fiber_queue_wait(&j->wake);
    if (ns)
        loop_timer_done(&timer);
    j->busy = true;
}

static void wait_while_drained(struct job *j)
{
    while (j->quiet)
        fiber_queue_wait(&j->wake);
}

void job_pause_point(struct job *j)
{
    wait_while_drained(j);
    if (!j->pauses || job_is_cancelled(j))
        return;
    job_tell(j, JOB_SAYS_PAUSED, false, JOB_ERROR_REPORT);
    while (j->pauses && !job_is_cancelled(j))
        job_sleep(j, 0);
    job_tell(j, JOB_SAYS_RESUMED, false, JOB_ERROR_REPORT);
    wait_while_drained(j);
}

void job_pace(struct job *j, uint64_t bytes)
{
    int64_t now = loop_now_ns();
    while (j->speed && j->next_ns > now && !job_is_cancelled(j) && !j->pauses) {
        job_sleep(j, j->next_ns - now);
        now = loop_now_ns();
    }
    uint64_t speed = j->speed;
    j->next_ns =
        speed ? MAX(j->next_ns, now) + (int64_t)((double)bytes / (double)speed * NS_PER_SEC) : 0;
}

void job_add_done(struct job *j, uint64_t bytes)
{
    j->done += bytes;
    if (j->total < j->done)
        j->total = j->done;
}

void job_set_total(struct job *j, uint64_t bytes)
{
    j->total = bytes;
}

int job_io_failed(struct job *j, bool write, int err)
{
    enum job_on_error policy = j->on_error[write], action = policy;
    if (policy == JOB_ERROR_ENOSPC)
        action = err == -ENOSPC ? JOB_ERROR_STOP : JOB_ERROR_REPORT;
    if (action == JOB_ERROR_STOP && !job_is_cancelled(j)) {
        j->io_error = -err;
        j->pauses = 1;
    }
    job_tell(j, JOB_SAYS_ERROR, write, action);
    if (action == JOB_ERROR_REPORT)
        return err;
    if (action == JOB_ERROR_IGNORE)
        job_sleep(j, RETRY_NS);
    return 0;
}

int job_fail(struct job *j, int err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_free(j->sentence);
    j->sentence = g_strdup_vprintf(format, args);
    va_end(args);
    return err;
}
