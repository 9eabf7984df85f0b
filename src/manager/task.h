/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tasks: what the manager does takes its way on one thread, in fibers (base/fiber.h) that wait for
 * machines, workers and timers. An operation so reads from top to bottom.
 *
 * Thread    The manager's loop thread: the default GMainContext. Nothing here is for other threads.
 * Rule      Between two waits nothing else runs: state needs no locks. After a wait, everything that
 *           is not held (a reference, an object's job lock) may have changed: look again.
 */
#pragma once

#include "base/fiber.h"

#include <glib.h>
#include <stdatomic.h>

/* Runs fn(opaque) as a task, at once, until it first waits. */
void task_start(void (*fn)(void *opaque), void *opaque);
/* All below only in a task. */
void task_sleep_ms(unsigned ms);
/* Lets everything else that is ready run first: for loops over many objects. */
void task_yield(void);
/* fn(opaque) on a thread of a bounded pool, while this task waits for it: what blocks (files that are
 * synced, programs, names, passwords) or computes long. fn sees only what it is given. */
void task_work(void (*fn)(void *opaque), void *opaque);
/* The same on a thread of its own: for what takes seconds and waits, so that short works do not queue behind it. */
void task_work_long(void (*fn)(void *opaque), void *opaque);
/* Waits until the descriptor is ready for any of `events` (G_IO_IN...). False: time is over. */
bool task_wait_fd(int fd, GIOCondition events, int timeout_ms);
/* Runs a program to its end, its output collected, at most max_bytes of each stream (more is an
 * error). argv[0] is a path or looked up in PATH. A status other than 0 is an error that carries the
 * last line of standard error. timeout_ms -1: none; a late program is killed. `ret_out` may be NULL. */
bool task_run_program(const char *const *argv, const char *stdin_text, size_t max_bytes, int timeout_ms,
                      char **ret_out, GError **error);
/* The same; the program is killed soon after *cancelled has become true (MANAGER_ERR_ABORTED). */
bool task_run_program_until(const atomic_bool *cancelled, const char *const *argv, const char *stdin_text,
                            size_t max_bytes, int timeout_ms, char **ret_out, GError **error);
/* The same, for a program that says how far it is by "(12.34/100%)": *progress is what it said last, in hundredths
 * of a percent. */
bool task_run_program_watched(const atomic_bool *cancelled, _Atomic uint64_t *progress, const char *const *argv,
                              size_t max_bytes, GError **error);

/* Something that happens once and that one task waits for, perhaps with a deadline. Embedded; all zeroes
 * is ready for use. */
struct task_event {
    struct fiber *waiter;
    guint timer;
    bool happened, timed_out;
};
bool task_event_wait(struct task_event *e, int timeout_ms); /* false: time is over; -1: for ever */
void task_event_happen(struct task_event *e);               /* from anywhere on the loop thread */

/* Before the program ends: how many tasks have not returned yet. */
unsigned task_count(void);
