/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Snapshots of sources, as -l of convert and measure names them. Fiber. */
#pragma once

#include "img/img.h"

/* "name", "id", "snapshot.name=...", "snapshot.id=...": n, opened read-only, shows it from now on.
 */
bool source_show_snapshot(struct node *n, const char *which, GError **error);
