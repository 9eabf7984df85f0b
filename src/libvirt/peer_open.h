/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The connection to a peer, as its URI says. Blocks: on a worker. */
#pragma once

#include "base/error.h"

#include <gio/gio.h>

struct peer_link {
    GIOStream *stream;
    GSocket *socket;  /* below it: says whether the peer is still there */
    GSubprocess *ssh; /* NULL: none */
    char *open_name;  /* what CONNECT_OPEN names: "qemu:///system" */
};
bool peer_link_open(const char *uri, unsigned timeout_s, struct peer_link *ret, GError **error);
void peer_link_close(struct peer_link *l);
