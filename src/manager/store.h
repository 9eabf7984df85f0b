/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files that are replaced as a whole: a power cut leaves the old text or the new.
 *
 * Log       A change is promised by a record in a log, which is synced: then whoever asked for it goes on. Its file
 *           follows soon after (store_follow.h), and is synced at leisure (store_log.h); store_read()
 *           knows what is to come. Files outside of the log's folder are written and synced before the answer.
 * Thread    The loop thread, unless said otherwise.
 * Errors    Sentences with the path and the system's reason. A failed write changes nothing.
 */
#pragma once

#include "base/error.h"

#include <sys/types.h>

/* Once, before anything is read: promises go to the file `log` from now on and are kept in the folder `root`. What
 * was promised before a power cut or a kill is done now. */
bool store_open(const char *log, const char *root, GError **error);
/* The log is empty afterwards: who edits files while no manager runs has the last word. */
void store_close(void);

/* Replaces the file `path`. From a task; changes of several tasks are synced together. Whoever changes files that
 * are written in this way uses these functions only: the log does not know of other changes. */
bool store_write(const char *path, const char *text, mode_t mode, GError **error);
/* A symbolic link to `target` in the place of `path`. From a task. */
bool store_link(const char *path, const char *target, GError **error);
/* Takes a file away, for good; a missing one is fine. From a task. */
bool store_remove(const char *path, GError **error);
/* Without a task or the log, for files outside of its folder: synced, renamed, the folder synced. */
bool store_write_blocking(const char *path, const char *text, mode_t mode, GError **error);
/* For what need not outlive the host (the state of what runs): replaced as a whole, but not synced. Any thread. */
bool store_write_volatile(const char *path, const char *text, mode_t mode, GError **error);
/* The whole file; more than max_bytes is an error. Left-overs of writes that were cut off are
 * removed by store_clean_dir(), once at the start. */
char *store_read(const char *path, size_t max_bytes, GError **error);
void store_clean_dir(const char *dir);
/* May `name` be part of a file's name: no '/', not '.' or '..', not empty, at most 200 bytes? */
bool store_name_check(const char *kind, const char *name, GError **error);
