/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files that are replaced as a whole: a power cut leaves the old text or the new.
 *
 * Thread    Any; blocks (callers on the loop use store_write(), which takes a worker).
 * Errors    Sentences with the path and the system's reason. A failed write changes nothing.
 */
#pragma once

#include "base/error.h"

#include <sys/types.h>

/* Writes `text` beside `path`, syncs it, renames it over `path` and syncs the folder. */
bool store_write_blocking(const char *path, const char *text, mode_t mode, GError **error);
/* The same, from a task, on a worker; writes of several tasks run side by side. */
bool store_write(const char *path, const char *text, mode_t mode, GError **error);
/* A symbolic link to `target` in the place of `path`. From a task. */
bool store_link(const char *path, const char *target, GError **error);
/* For what need not outlive the host (the state of what runs): replaced as a whole, but not synced. Any thread. */
bool store_write_volatile(const char *path, const char *text, mode_t mode, GError **error);
/* Takes a file away; a missing one is fine. The folder is synced soon after, with others': a power cut in that moment may
 * bring the old file back, whole. From a task. */
bool store_remove(const char *path, GError **error);
/* The whole file; more than max_bytes is an error. Left-overs of writes that were cut off are
 * removed by store_clean_dir(), once at the start. */
char *store_read(const char *path, size_t max_bytes, GError **error);
void store_clean_dir(const char *dir);
/* May `name` be part of a file's name: no '/', not '.' or '..', not empty, at most 200 bytes? */
bool store_name_check(const char *kind, const char *name, GError **error);
