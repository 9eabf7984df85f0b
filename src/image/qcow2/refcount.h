/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What refcount.c and reftable.c share. Everything under alloc_lock. Thread: the node's home thread. */
#pragma once

#include "image/qcow2/internal.h"

/* The slice of the block that counts cluster `index`, and the index in it. *ret NULL: there is no block. (f) */
int qcow2_refcount_slice(struct qcow2 *s, uint64_t index, struct qcow2_table **ret,
                         uint64_t *ret_entry);
/* Adds to the counts of `count` clusters from `index` on; blocks are made for raising. (f) */
int qcow2_refcount_add_locked(struct qcow2 *s, uint64_t index, uint64_t count, int addend);
