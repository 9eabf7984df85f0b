/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The log of the store: what is promised stands here first, in a file whose blocks are there
 * already, so that one write past the page cache and one flush of the disk are all that a promise
 * costs.
 *
 * Format    A head of 4096 bytes (whose folder this is; at 3584 the mark: the first epoch that
 * counts), then two areas. An area is records of one epoch (store_record.h). While one is filled,
 * the files that the other speaks of are synced, and the mark is moved on: then it is free again.
 * Thread    One at a time calls; only store_log_settle() may run beside store_log_put().
 */
#pragma once

#include "base/error.h"
#include "manager/store_record.h"

/* Takes up the log at `path`, makes one if there is none, and carries out what it promises in its
 * folder. It is for paths below `root` from then on. */
bool store_log_open(const char *path, const char *root, GError **error);
/* `empty`: all files are synced, and nothing is left to be carried out; else the next one does. */
void store_log_close(bool empty);
/* `path` as its record names it, NULL: it does not belong here, or there is no log. */
const char *store_log_relative(const char *path);
/* Bytes that are left in this area; bytes of an area. */
size_t store_log_room(void);
size_t store_log_area_bytes(void);
bool store_log_is_empty(void); /* this area is */
/* Writes records down, for good, all at once. Fills in their times. 0 or positive errno: then none
 * counts. */
int store_log_put(struct store_record *records, unsigned count);
/* Goes on in the other area, which must be free, as it is after store_log_settle(). */
void store_log_turn(void);
/* Syncs the files of the area that is not being filled, and sets it free. 0 or positive errno. */
int store_log_settle(void);
