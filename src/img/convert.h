/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of convert share. */
#pragma once

#include "img/img.h"

/* Copies the persistent bitmaps of `from` to `to`; broken ones are passed over with a warning, or
 * refused. */
bool convert_bitmaps(struct node *from, struct node *to, bool skip_broken, GError **error);
