/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Monitors: QMP or the human one on a character backend, or QMP on a listening socket.
 *
 * Owner     struct vmm; freed after the machine and before the backends.
 * Thread    The main thread.
 */
#pragma once

#include "vmm/build.h"

struct monitor;

bool build_monitors(struct vmm *v, GError **error);
void monitor_free(gpointer monitor);

/* Runs one line as the human monitor would: what it prints, g_malloc'd. */
char *hmp_run(struct vmm *v, const char *line);

/* build_chardev.c: a short form or "chardev:ID"; NULL without an error: "none". The vmm owns it. */
struct chardev *build_short_chardev(struct vmm *v, const char *spec, const char *id,
                                    bool *ret_monitor, GError **error);
