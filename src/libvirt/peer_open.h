/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The connection to a peer, as its URI says. Blocks: on a worker. */
#pragma once

#include "base/error.h"

#include <gio/gio.h>

struct sasl_layer; /* sasl.h */

struct peer_link {
    GIOStream *stream;
    GSocket *socket;  /* below it: says whether the peer is still there */
    GSubprocess *ssh; /* NULL: none */
    int complaints;   /* with ssh: the file that it complains into */
    char *open_name;  /* what CONNECT_OPEN names: "qemu:///system" */
    char *host, *user; /* of the URI: "localhost" where it names none; NULL: nobody */
    bool checked_tls;  /* TLS, and its certificate is the host's */
    bool local;        /* a Unix socket, or ssh: nobody listens */
    struct sasl_layer *sasl; /* protects the bytes from now on; NULL: nothing */
};
bool peer_link_open(const char *uri, unsigned timeout_s, struct peer_link *ret, GError **error);
/* All of it, or an error. */
bool peer_link_write(struct peer_link *l, const void *data, size_t len, GError **error);
bool peer_link_read(struct peer_link *l, void *to, size_t len, GError **error);
void peer_link_close(struct peer_link *l);
