/* SPDX-License-Identifier: GPL-2.0-or-later */
/* GnuTLS, loaded by the first connection that needs it: a daemon without one has none of its pages.
 *
 * Use       `#include` this header for the types, too; call gnutls.handshake(...) in place of
 *           gnutls_handshake(...), after library_gnutls() was true once.
 * Thread    The loop thread loads; then any.
 */
#pragma once

#include "base/plugin.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#define LIBRARY_GNUTLS(F)                                                                                              \
    F(gnutls, alert_get)                                                                                               \
    F(gnutls, alert_get_name)                                                                                          \
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
    F(gnutls, priority_set_direct)                                                                                     \
    F(gnutls, record_check_pending)                                                                                    \
    F(gnutls, record_get_direction)                                                                                    \
    F(gnutls, record_recv)                                                                                             \
    F(gnutls, record_send)                                                                                             \
    F(gnutls, session_get_verify_cert_status)                                                                          \
    F(gnutls, session_set_verify_cert)                                                                                 \
    F(gnutls, set_default_priority)                                                                                    \
    F(gnutls, strerror)                                                                                                \
    F(gnutls, transport_set_int2)                                                                                      \
    F(gnutls, x509_crt_deinit)                                                                                         \
    F(gnutls, x509_crt_get_dn3)                                                                                        \
    F(gnutls, x509_crt_import)                                                                                         \
    F(gnutls, x509_crt_init)

/* The address of each (gnutls_free is a variable). */
extern struct library_gnutls {
    LIBRARY_GNUTLS(PLUGIN_MEMBER)
} gnutls;

/* False: it is not installed; the error names its package. */
bool library_gnutls(GError **error);
