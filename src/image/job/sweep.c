/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The engine of copying jobs: takes what is dirty in a bitmap, chunk by chunk and round and round,
 * several at a time, at the job's speed. What fails is dirty again, so that every policy for errors
 * comes down to going on or not.
 *
 * Fiber     sweep_run() in the job's; each chunk in one of its own.
 */
#include "image/job/internal.h"

#include <errno.h>
#include <stdlib.h>

struct sweep_slot {
    struct sweep *sweep;
    struct area area;
    void *buf;
    uint64_t off, len;
    bool used;
};

bool sweep_init(struct sweep *s)
{
    s->slots = g_try_new0(struct sweep_slot, s->workers);
    for (unsigned i = 0; s->slots && i < s->workers; i++) {
        s->slots[i].sweep = s;
        if (posix_memalign(&s->slots[i].buf, 4096, s->chunk))
            return false;
    }
    if (!s->areas)
        s->areas = &s->own;
    return s->slots != NULL;
}

void sweep_done(struct sweep *s)
{
    for (unsigned i = 0; s->slots && i < s->workers; i++)
        free(s->slots[i].buf);
    g_clear_pointer(&s->slots, g_free);
}

static void work_on(void *opaque)
{
    struct sweep_slot *slot = opaque;
    struct sweep *s = slot->sweep;
    bool write = false;
    int err = s->copy(s, slot->off, slot->len, slot->buf, &write);
    if (err < 0) {
        dirty_set(s->todo, slot->off, slot->len);
        s->error = err;
        s->error_write = write;
    } else {
        job_add_done(s->job, slot->len);
    }
    area_unlock(s->areas, &slot->area);
    slot->used = false;
    s->running--;
    fiber_queue_wake_all(&s->idle);
    if (--s->node->in_flight == 0)
        fiber_queue_wake_all(&s->node->idle_waiters);
}

static void wait_idle(struct sweep *s)
{
    while (s->running)
        fiber_queue_wait(&s->idle);
}

static bool find_work(struct sweep *s, uint64_t *ret_off, uint64_t *ret_len)
{
    uint64_t size = s->todo->size_bytes;
    if (s->cursor < size && dirty_next(s->todo, s->cursor, size, s->chunk, ret_off, ret_len))
        return true;
    s->cursor = 0;
    return false;
}

/* A round has ended: is that enough? What failed in it is dirty again. */
static bool round_is_enough(struct sweep *s)
{
    wait_idle(s);
    return !s->error && dirty_bytes(s->todo) <= s->enough;
}

/* Locks the chunk and starts on it, unless somebody did the work while we waited for the lock. */
static void start_chunk(struct sweep *s, uint64_t off, uint64_t len)
{
    struct sweep_slot *slot = s->slots;
    while (slot->used)
        slot++;
    slot->used = true;
    s->running++;
    area_lock(s->areas, &slot->area, off, len);
    s->cursor = off + len;
    if (!dirty_next(s->todo, off, off + len, 0, &slot->off, &slot->len)) {
        area_unlock(s->areas, &slot->area);
        slot->used = false;
        s->running--;
        return;
    }
    dirty_reset(s->todo, slot->off, slot->len);
    s->node->in_flight++;
    fiber_start(work_on, slot);
}

/* What keeps the sweep from going on: true when it was dealt with. */
static bool meet_obstacle(struct sweep *s, int *ret)
{
    struct job *j = s->job;
    if (!s->error && !j->pauses && !j->quiet)
        return false;
    wait_idle(s);
    if (s->error && !j->cancelled) {
        int err = s->error;
        s->error = 0;
        *ret = job_io_failed(j, s->error_write, err);
    }
    job_pause_point(j);
    return true;
}

int sweep_run(struct sweep *s)
{
    int ret = 0;
    while (!ret && !job_is_cancelled(s->job)) {
        uint64_t off, len;
        if (meet_obstacle(s, &ret))
            continue;
        if (s->running == s->workers) {
            fiber_queue_wait(&s->idle);
        } else if (find_work(s, &off, &len)) {
            job_pace(s->job, len);
            if (!s->job->pauses && !s->job->quiet && !job_is_cancelled(s->job))
                start_chunk(s, off, len);
        } else if (round_is_enough(s)) {
            break;
        }
    }
    wait_idle(s);
    return ret;
}
