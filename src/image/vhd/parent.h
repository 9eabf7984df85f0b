/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parents of differencing disks: what VHD and VHDX do alike.
 *
 * Fiber     All of it.
 */
#pragma once

#include "image/driver.h"

/* Opens the child "backing" of n: the one that the options give, else n->backing_file, which is of
 * the same format. *ret_named: the latter, for its identity to be checked; NULL: there is nothing
 * to check. */
bool parent_open(struct node *n, const char *format, struct node **ret_named, GError **error);
/* The image that n's header could name so, for its identity: a reference, or NULL with *error. */
struct node *parent_look_at(struct node *n, const char *name, const char *format, GError **error);
