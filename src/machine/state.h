/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The state of a stopped machine, all but its RAM: clock, vCPUs, interrupt controllers, every device.
 *
 * What is saved here, loaded into a machine made by the same command line, goes on as if nothing had been: no
 * interrupt lost or twice, no request of a disk or network lost, no timer early. Suspending to a file,
 * snapshots and migration are all made of this and of RAM (vmm/migrate.h).
 *
 * Format    docs/devices.md, "Saved state": a head with a version, then one section per part in a fixed order: its
 *           name (a device's path, a backend's id), its type, its length, its fields (device_state_save()). A part knows no
 *           versions of its own yet; a field that is added later says what it is where it is missing.
 * Owner     The array is the caller's.
 * Thread    The main thread, the machine stopped: no vCPU runs, requests of devices are done or put back into
 *           their rings (machine_state_save() sees to it), nothing in flight.
 * Trust     The bytes come from a file or a peer: every length, index and value is checked before it is used, and a
 *           machine whose load failed is fit only to be reset or freed.
 * Errors    A sentence that names the device, the field, what it has and what it needs.
 */
#pragma once

#include "machine/machine.h"

/* NULL: a part cannot be saved now ("device 'net0': its backend 'x' keeps state outside"). */
GByteArray *machine_state_save(struct machine *m, GError **error);
/* Into a machine as machine_new() and the -device options have made it, before or instead of machine_power_on(). */
bool machine_state_load(struct machine *m, const uint8_t *data, size_t len, GError **error);
