/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What commit.c needs of the table caches. Thread: the node's home thread. */
#pragma once

#include "image/qcow2/internal.h"

#include <stdlib.h>
#include <string.h>

/* Writes what has changed, in no order: refcount blocks only. (f) */
int qcow2_cache_write_changed(struct qcow2_cache *c);
/* Writes t as it was when it was cut, or finds that it was forgotten; t->cut ends. (f) */
int qcow2_cache_write_cut(struct qcow2_cache *c, struct qcow2_table *t);
/* Until a table that is loading or being written is done with. -ENOMEM: there is none at all. (f) */
int qcow2_cache_wait_busy(struct qcow2_cache *c);
