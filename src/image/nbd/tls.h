/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLS for image protocols: credentials as users name them (objects tls-creds-x509, -psk and -anon),
 * and sessions on non-blocking sockets.
 *
 * Spec      RFC 8446, RFC 5246; file names and properties are QEMU's.
 * Owner     Credentials are counted: the registry and every server, node and session hold one
 *           reference.
 * Thread    Credentials: any. A session: one thread; one fiber may send while another one receives.
 * Trust     The peer: gnutls parses it; without verify-peer=off its certificate must be signed by
 *           our CA, and a server's must be for the name that we asked for.
 * Errors    Sentences with the object and the file; sessions: -EAGAIN (see tls_session_wants()),
 *           -EIO.
 */
#pragma once

#include "base/error.h"
#include "base/util.h"

#include <json-glib/json-glib.h>
#include <sys/types.h>

struct tls_creds;
struct tls_session;

/* What -object and object-add take: kind "tls-creds-x509", "tls-creds-psk" or "tls-creds-anon";
 * `props` without qom-type and id. The files are read here. NULL with *error. */
struct tls_creds *tls_creds_new(const char *kind, const char *id, JsonObject *props,
                                GError **error);
struct tls_creds *tls_creds_ref(struct tls_creds *c);
void tls_creds_unref(struct tls_creds *c); /* NULL is fine */
const char *tls_creds_id(const struct tls_creds *c);
bool tls_creds_is_server(const struct tls_creds *c);
bool tls_creds_is_kind(const char *kind);
char *tls_creds_help(const char *kind); /* the properties; the caller frees */

/* The registry by id. Takes a reference; false when the id is taken. */
bool tls_creds_add(struct tls_creds *c, GError **error);
bool tls_creds_remove(const char *id, GError **error); /* users keep theirs */
/* A reference, or NULL with *error: unknown, or not for that end. */
struct tls_creds *tls_creds_find(const char *id, bool server, GError **error);

/* fd is borrowed, connected, non-blocking. host: the name that a server's certificate must bear;
 * ignored by servers. */
struct tls_session *tls_session_new(struct tls_creds *c, int fd, const char *host, GError **error);
void tls_session_free(struct tls_session *s); /* NULL is fine */
/* 1 when done, 0 to be called again when tls_session_wants() is ready, -1 with *error. */
int tls_session_handshake(struct tls_session *s, GError **error);
/* After the handshake: who the peer has proved to be: its certificate's distinguished name, or the user whose key
 * it has. The caller's; NULL: nobody in particular. */
char *tls_session_peer(struct tls_session *s);
/* Bytes moved, 0 at the end of the stream, -EAGAIN or -EIO. After -EAGAIN tls_session_send() is
 * called again with the same bytes. */
ssize_t tls_session_recv(struct tls_session *s, void *buf, size_t len);
ssize_t tls_session_send(struct tls_session *s, const void *buf, size_t len);
unsigned tls_session_wants(const struct tls_session *s); /* POLLIN or POLLOUT, after -EAGAIN */
void tls_session_bye(struct tls_session *s);             /* says goodbye without waiting */
#define TLS_RECORD_BYTES 16384
