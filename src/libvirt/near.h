/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sleeping where the client runs: a local client that sends its next call when it has the answer to
 * the last one never runs at the same time as we do. On its processor, waking each other is a
 * switch of tasks; across processors it is an interrupt to an idle one, several times the price of
 * the call itself.
 *
 * While such calls come, the loop thread is bound to the client's processor for the time that it
 * sleeps; whatever it does, it does unbound, and so does what it starts. Whether that pays is
 * measured, again and again.
 *
 * Thread    The loop thread.
 */
#pragma once

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum near_phase {
    NEAR_COUNT, /* anywhere, to learn what a call takes */
    NEAR_TRY,   /* near, to learn whether it takes less */
    NEAR_KEEP,  /* near, as long as it does */
    NEAR_REST,  /* it did not: anywhere, for a while */
};

struct near {
    enum near_phase phase;
    const void *who;
    int64_t since_us, last_us; /* of this window of calls; the last round */
    uint64_t since_calls;
    double usual_us;          /* a call takes anywhere */
    unsigned rounds, windows; /* in the window; of this phase */
};

/* One more round of `who` alone, `calls` of it since it came. True: we should sleep near;
 * `*ret_look`: where that is has to be found out now. */
bool near_round(struct near *n, const void *who, int64_t now_us, uint64_t calls, bool *ret_look);
/* Where it runs cannot be found out. */
void near_rest(struct near *n);
/* The processor that the main thread of a process ran on last; -1: unknown. */
int near_cpu_of(pid_t pid);

/* For the server: takes over how the default context polls. */
void near_start(void);
void near_stop(void);
/* `who` alone was served in this round. */
void near_served(const void *who, pid_t pid, int64_t now_us, uint64_t calls);
/* Rounds that we slept through near the client, for metrics. */
uint64_t near_sleeps(void);
