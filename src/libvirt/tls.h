/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLS with certificates: ours, and whose of the clients are let in.
 *
 * Thread    The loop thread. Owner: the server: tls_new() ... tls_free().
 */
#pragma once

#include "libvirt/server.h"

#include <gnutls/gnutls.h>

struct tls;

struct tls *tls_new(const struct libvirt_server_config *config, GError **error);
void tls_free(struct tls *t); /* NULL is fine */
gnutls_session_t tls_session_new(struct tls *t);
/* After the handshake: the peer's certificate is good and its name is let in. *ret_name: its
 * distinguished name, g_malloc'd; NULL where none was asked for. */
bool tls_check_peer(const struct tls *t, gnutls_session_t session, char **ret_name, GError **error);
