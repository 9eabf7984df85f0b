/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files follow the store's log: who made a change is answered when the log has it, and its file is
 * put in place when no other change has come for some milliseconds, or after a second; many at once,
 * of several changes of one path the last.
 *
 * Thread    The loop thread; a worker puts the files in place.
 * Errors    A file that cannot be put in place stays due, is tried again, and its record in the log
 *           stays until it is there.
 */
#pragma once

#include "manager/store_file.h"

enum { STORE_FOLLOW_AFTER_MS = 10, STORE_FOLLOW_LATEST_MS = 1000 };

/* What the log has: `f` with the record's times; its texts are copied. */
void store_follow(const struct store_file *f);
/* What is due at `path`; NULL: nothing, the file system has it. Until the next wait. */
const struct store_file *store_follow_find(const char *path);
/* In a task: waits until all that was due is in place. 0 or positive errno: of one that is not. */
int store_follow_wait(void);
/* The same without a task, at the end. EBUSY: a worker is at it. */
int store_follow_finish(void);
