/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The process: pid file, background, signals.
 *
 * Thread    The main thread, before others exist, but for the signals' callback.
 */
#pragma once

#include "base/error.h"
#include "base/loop.h"

/* The file is locked while the program runs: a second start with the same one is refused. */
bool pidfile_create(const char *path, GError **error);
void pidfile_remove(void); /* nothing when there is none */

/* Forks: returns in the child; the parent waits for daemon_ready() and exits with 0, or with 1
 * when the child ends before. False: in the parent of a failed fork. */
bool daemon_start(GError **error);
/* The child lets go of the terminal and tells the parent. */
bool daemon_ready(GError **error);

/* SIGINT, SIGTERM and SIGHUP call fn on the loop, in every thread blocked; SIGPIPE and SIGXFSZ
 * are ignored; SIGCONT makes the terminal raw again; fatal signals give it back first. */
bool signals_init(struct loop *l, void (*fn)(void *opaque, int signal, int pid), void *opaque,
                  GError **error);
void signals_done(void);
