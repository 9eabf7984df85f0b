/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files behind machine.h share. */
#pragma once

#include "machine/machine.h"

/* --- ram.c --- */

/* Makes m->ram as the configuration asks. Main thread. */
bool machine_ram_init(struct machine *m, GError **error);
void machine_ram_done(struct machine *m);

/* --- vcpu.c: one thread for each vCPU --- */

/* Starts the threads, which wait. The vCPUs exist. */
bool machine_threads_start(struct machine *m, GError **error);
void machine_threads_join(struct machine *m); /* stops first; takes a machine without threads */
void machine_threads_run(struct machine *m);
void machine_threads_stop(struct machine *m); /* returns when no vCPU executes */
/* The calling vCPU thread executes nothing more until machine_vcpu_release(); no effect on other threads. */
void machine_vcpu_hold(struct machine *m);
void machine_vcpu_release(struct machine *m, unsigned index);
/* vCPUs that ended with an internal error may run again: after a reset. */
void machine_vcpus_revive(struct machine *m);

/* --- requests.c: from any thread to the main loop --- */

bool machine_requests_init(struct machine *m, GError **error);
void machine_requests_done(struct machine *m);
