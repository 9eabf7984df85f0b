/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For unit tests of the machine: an accelerator `test` without a processor, a board `test` without devices.
 *
 * A test vCPU executes nothing: vcpu_run() waits for a kick, or calls test_accel_run when that is set.
 */
#pragma once

#include "machine/machine.h"

extern enum vcpu_exit (*test_accel_run)(struct vcpu *v);
/* State that was set last, and how often vCPUs entered the guest. */
const struct cpu_arch_state *test_vcpu_state(const struct vcpu *v);
unsigned test_vcpu_runs(const struct vcpu *v);
/* Waits until somebody kicks; false after that one kick. */
void test_vcpu_wait_kick(struct vcpu *v);

/* A machine with so much RAM and so many vCPUs; aborts the test when it cannot be made. */
struct machine *test_machine(uint64_t ram_bytes, unsigned vcpus);
void test_machine_free(struct machine *m);

/* A file with these bytes that is removed at exit; the path is static until the next call of the same `slot` (0-7). */
const char *test_file(unsigned slot, const void *data, size_t len);
