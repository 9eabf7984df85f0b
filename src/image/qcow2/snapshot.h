/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of internal snapshots, shared by snapshot.c and snapshot_ops.c.
 *
 * Owner     s->snapshots; an edited copy is built beside it and takes its place when the header does.
 */
#pragma once

#include "image/qcow2/internal.h"

/* By id, else by name; NULL with *error. */
struct qcow2_snapshot *snapshot_find(struct qcow2 *s, const char *id_or_name, GError **error);
/* L1 entries that a disk of `size` bytes needs. */
uint64_t snapshot_l1_need(const struct qcow2 *s, uint64_t size);
/* Writes `list` as the new table, commits, and has the header point to it; the old one is freed later. The image's list
 * is `list` afterwards (its memory is taken over; entries that are in both are shared). (f) */
int snapshot_table_replace(struct qcow2 *s, struct qcow2_snapshot *list, uint32_t count);
void snapshot_clear(struct qcow2_snapshot *e);
