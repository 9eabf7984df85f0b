/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The balloon as the monitor sees it: how much memory the guest shall have, has, and what it says
 * of it.
 *
 * Thread    The main thread; takes the device's lock.
 */
#pragma once

#include "machine/device.h"

#define BALLOON_STATS 10
extern const char *const balloon_stat_names[BALLOON_STATS]; /* QEMU's: "stat-swap-in", ... */

struct balloon_stats {
    int64_t value[BALLOON_STATS]; /* bytes or counts; -1: the guest did not say */
    int64_t updated_s;            /* since 1970; 0: never */
};

struct device *balloon_find(struct machine *m); /* NULL: there is none */
/* More than there is becomes all. The guest follows as fast as it likes. */
void balloon_set_target(struct device *d, uint64_t bytes);
uint64_t balloon_actual(struct device *d); /* bytes that the guest has */
void balloon_get_stats(struct device *d, struct balloon_stats *ret);
unsigned balloon_poll_s(struct device *d);
void balloon_set_poll(struct device *d, unsigned seconds); /* 0: the guest is not asked */
