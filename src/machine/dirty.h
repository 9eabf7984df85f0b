/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which pages of RAM were written, by vCPUs and by devices: for sending a machine while it runs.
 *
 * Pages     4 KiB, by guest-physical number; the numbers of the hole between low and high RAM are never set.
 * Writers   Devices: through mem_written(), after they wrote. The software CPU: when it makes an entry of its TLB
 *           writable, which a harvest takes back from all of them, as processors set the dirty bit of a page table.
 *           KVM: its own log of each slot, fetched by the harvest.
 * Order     A page is marked after it was written, or before by a vCPU that will not run until the harvest has looked:
 *           whoever harvests first and copies then has every write, now or in the next harvest.
 * Cost      While nobody logs: one load in mem_written() and one in a TLB miss.
 * Owner     struct machine; the bits live as long as it does once they were asked for.
 * Thread    Main, but for the marks (any).
 */
#pragma once

#include "base/error.h"
#include "base/util.h"

struct machine;

/* Numbers of pages: those of RAM are below. */
uint64_t machine_dirty_pages(const struct machine *m);
/* From now on; running or not. Once at a time. */
bool machine_dirty_start(struct machine *m, GError **error);
void machine_dirty_stop(struct machine *m);
/* Adds what was written since the start or the last harvest to `to` (a bit for each page) and begins anew; stops the
 * vCPUs for a moment. Returns how many pages those were. */
uint64_t machine_dirty_harvest(struct machine *m, uint64_t *to);
void machine_dirty_free(struct machine *m);

/* For machine.c: a device wrote. */
void machine_dirty_written(struct machine *m, uint64_t gpa, uint64_t len);
