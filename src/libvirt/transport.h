/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The bytes of one connection: plain or through TLS, and with a SASL security layer on top.
 *
 * Spec      libvirt's RPC: after the TLS handshake the server sends one byte 0x01 inside TLS; a
 *           SASL layer begins behind the reply that completes the exchange.
 * Thread    The loop thread; never blocks.
 * Owner     The client: transport_init() takes the descriptor, transport_done() closes it.
 * Errors    0 or more: bytes; -EAGAIN: not now; other negative errno: the connection is of no use
 *           any more.
 */
#pragma once

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct sasl_layer; /* sasl.h */

struct transport {
    int fd;
    gnutls_session_t tls;     /* NULL: plain */
    bool agreed;              /* the handshake is done */
    bool shaken;              /* 0x01 was sent, too: both sides may speak */
    struct sasl_layer *layer; /* borrowed; NULL: none */
    const char *encoded;      /* of the layer: bytes that are still to be written ... */
    unsigned encoded_left;
    size_t encoded_plain; /* ... and how many plain bytes they stand for */
};

void transport_init(struct transport *t, int fd, gnutls_session_t tls);
void transport_done(struct transport *t);
/* TLS: 0 when it is done. Plain: 0. */
int transport_handshake(struct transport *t);
/* After the check of the peer's certificate: tells it that it may speak. */
int transport_welcome(struct transport *t);
/* Is the TLS library waiting to write, not to read? */
bool transport_wants_write(const struct transport *t);
/* 0: the peer has ended. Descriptors that came (at most `room`) are put in fds, *fd_count of them;
 * the rest is closed. */
ssize_t transport_read(struct transport *t, void *buf, size_t len, int *fds, unsigned room,
                       unsigned *fd_count);
/* `fd` (-1: none) goes with the first byte; Unix sockets only. */
ssize_t transport_write(struct transport *t, const void *buf, size_t len, int fd);
/* Bytes that were received and wait inside the library: the descriptor does not tell. */
bool transport_has_more(const struct transport *t);
