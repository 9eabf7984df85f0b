/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLS below OVSDB's messages, the client's end.
 *
 * Spec      RFC 8446, RFC 5246; ovsdb(7), "ssl:IP:PORT": both ends show certificates of one CA, names
 *           in them are not looked at.
 * Owner     ovsdb_tls_new(), then ovsdb_tls_free(); the descriptor is the caller's, non-blocking.
 * Trust     The server is hostile until the handshake is over; its records are bounded by GnuTLS
 *           (16 KiB).
 * Errors    Data: 0 or negative errno; -EAGAIN: wait for the descriptor. Sentences otherwise.
 */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <sys/types.h>

/* PEM files; ca NULL: TLS is not configured. */
struct ovsdb_tls_files {
    char *key, *certificate, *ca;
};
struct ovsdb_tls;
struct ovsdb_tls *ovsdb_tls_new(const struct ovsdb_tls_files *f, int fd, GError **error);
void ovsdb_tls_free(struct ovsdb_tls *t); /* NULL is fine */

/* 0: done; -EAGAIN, *ret_out: waits until it can write, else read; else ovsdb_tls_why() says it. */
int ovsdb_tls_handshake(struct ovsdb_tls *t, bool *ret_out);
/* What ended the last handshake or transfer; the struct's. */
const char *ovsdb_tls_why(const struct ovsdb_tls *t);
/* What was not sent is given again, from the same place on. */
ssize_t ovsdb_tls_send(struct ovsdb_tls *t, const void *data, size_t len);
/* 0: the end. */
ssize_t ovsdb_tls_receive(struct ovsdb_tls *t, void *buf, size_t len);
/* Is there something that the descriptor does not show? */
bool ovsdb_tls_pending(const struct ovsdb_tls *t);
