/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who we are to a peer that asks for a name and a password. Blocks: on a worker. */
#pragma once

#include "libvirt/peer_open.h"
#include "libvirt/xdr.h"

/* Sends a call of the exchange and waits for its answer; `args` by `args_rows` (NULL: none), the answer into
 * *ret by `ret_rows`. */
typedef bool peer_ask_fn(void *opaque, uint32_t procedure, const struct xdr_row *args_rows,
                         const void *args, const struct xdr_row *ret_rows, void *ret,
                         size_t ret_size, GError **error);
/* Names and passwords are of `auth.conf` in the manager's folder of settings. When it is done the link's bytes are
 * protected, if that was agreed on. */
bool peer_sasl(struct peer_link *l, const char *uri, peer_ask_fn *ask, void *opaque,
               GError **error);
