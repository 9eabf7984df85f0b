/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between network_ops.c and network_life.c: operations on a locked network. */
#pragma once

#include "manager/network/network_priv.h"

bool network_do_start(struct network *n, void *opaque, GError **error);
bool network_do_destroy(struct network *n, void *opaque, GError **error);
/* A running one takes a changed description. */
bool network_reload(struct network *n, const struct network_def *d, GError **error);
