/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Libraries that few connections need: they are loaded when the first one does, and cost nothing before.
 *
 * Use       `#include` the library's own header for types; call gnutls.handshake(...) in place of
 *           gnutls_handshake(...), after library_gnutls() was true once.
 * Thread    The loop thread loads; then any.
 */
#pragma once

#include "base/error.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <sasl/sasl.h>
#include <stdbool.h>

#define LIBRARY_GNUTLS(F)                                                                                              \
    F(gnutls, bye)                                                                                                     \
    F(gnutls, certificate_allocate_credentials)                                                                        \
    F(gnutls, certificate_free_credentials)                                                                            \
    F(gnutls, certificate_get_peers)                                                                                   \
    F(gnutls, certificate_server_set_request)                                                                          \
    F(gnutls, certificate_set_x509_crl_file)                                                                           \
    F(gnutls, certificate_set_x509_key_file)                                                                           \
    F(gnutls, certificate_set_x509_trust_file)                                                                         \
    F(gnutls, certificate_verification_status_print)                                                                   \
    F(gnutls, certificate_verify_peers2)                                                                               \
    F(gnutls, credentials_set)                                                                                         \
    F(gnutls, deinit)                                                                                                  \
    F(gnutls, error_is_fatal)                                                                                          \
    F(gnutls, free)                                                                                                    \
    F(gnutls, handshake)                                                                                               \
    F(gnutls, init)                                                                                                    \
    F(gnutls, record_check_pending)                                                                                    \
    F(gnutls, record_get_direction)                                                                                    \
    F(gnutls, record_recv)                                                                                             \
    F(gnutls, record_send)                                                                                             \
    F(gnutls, set_default_priority)                                                                                    \
    F(gnutls, strerror)                                                                                                \
    F(gnutls, transport_set_int2)                                                                                      \
    F(gnutls, x509_crt_deinit)                                                                                         \
    F(gnutls, x509_crt_get_dn3)                                                                                        \
    F(gnutls, x509_crt_import)                                                                                         \
    F(gnutls, x509_crt_init)

#define LIBRARY_SASL(F)                                                                                                \
    F(sasl, client_init)                                                                                               \
    F(sasl, client_new)                                                                                                \
    F(sasl, client_start)                                                                                              \
    F(sasl, client_step)                                                                                               \
    F(sasl, decode)                                                                                                    \
    F(sasl, dispose)                                                                                                   \
    F(sasl, encode)                                                                                                    \
    F(sasl, errstring)                                                                                                 \
    F(sasl, getprop)                                                                                                   \
    F(sasl, listmech)                                                                                                  \
    F(sasl, server_init)                                                                                               \
    F(sasl, server_new)                                                                                                \
    F(sasl, server_start)                                                                                              \
    F(sasl, server_step)                                                                                               \
    F(sasl, setprop)

/* The address of each (gnutls_free is a variable). */
#define LIBRARY_MEMBER(library, name) __typeof__(library##_##name) *name;
extern struct library_gnutls {
    LIBRARY_GNUTLS(LIBRARY_MEMBER)
} gnutls;
extern struct library_sasl {
    LIBRARY_SASL(LIBRARY_MEMBER)
} sasl;

bool library_gnutls(GError **error);
bool library_sasl(GError **error);
