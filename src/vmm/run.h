/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The run state: one table says what may follow what; the rest of the vmm asks for events.
 *
 * Thread    The main thread.
 */
#pragma once

#include "machine/machine.h"

struct vmm;

enum run_event { EV_CONT, EV_STOP, EV_RESET, EV_GUEST_OFF, EV_PANIC, EV_IO_ERROR, EV_INTERNAL_ERROR,
                 EV_FINISH_MIGRATE, EV_MIGRATED, EV_LOADED, N_RUN_EVENTS };
#define N_RUN_STATES (RUN_POSTMIGRATE + 1)

/* Why the machine ended; the SHUTDOWN event's reason. */
enum shutdown_cause {
    CAUSE_GUEST_SHUTDOWN,
    CAUSE_GUEST_RESET,
    CAUSE_GUEST_PANIC,
    CAUSE_QMP_QUIT,
    CAUSE_SIGNAL,
    CAUSE_CONSOLE,
    CAUSE_HOST_ERROR,
    N_SHUTDOWN_CAUSES
};

struct run {
    bool ending;        /* the main loop has been told to leave */
    bool panicked;
};

/* The state after `e`; -1: not allowed. */
int run_state_next(enum run_state s, enum run_event e);
const char *run_state_name(enum run_state s);
const char *run_event_name(enum run_event e);

/* What QMP and HMP ask for: false with a sentence when the state does not allow it. */
bool run_cont(struct vmm *v, GError **error);
bool run_stop(struct vmm *v, GError **error);
bool run_reset(struct vmm *v, GError **error);
bool run_powerdown(struct vmm *v, GError **error);
/* The machine waits for another's state: instead of its power-on. cont and stop then say what it does afterwards. */
void run_expect_state(struct vmm *v);
/* It has it: the state that the other one had (its name), or runs where that one ran and nobody asked for -S. */
bool run_loaded(struct vmm *v, const char *state, GError **error);
/* The switch-over of a migration: stops; ends it; or goes back to `before` when it failed. */
bool run_finish_migrate(struct vmm *v, enum run_state *ret_before, GError **error);
void run_migrated(struct vmm *v);
bool run_unmigrate(struct vmm *v, enum run_state before, GError **error);
/* Ends the program once the main loop is back. */
void run_quit(struct vmm *v, enum shutdown_cause cause);
/* struct machine_observer for machine->observer; opaque is the vmm. */
extern const struct machine_observer run_observer;
