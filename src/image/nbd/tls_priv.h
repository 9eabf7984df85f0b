/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLS: between credentials and sessions. */
#pragma once

#include "image/nbd/tls.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

enum creds_kind { CREDS_ANON, CREDS_PSK, CREDS_X509, CREDS_KINDS };
enum creds_endpoint { ENDPOINT_CLIENT, ENDPOINT_SERVER };

struct tls_creds {
    gatomicrefcount refs;
    char *id;
    enum creds_kind kind;
    /* the object's properties */
    int endpoint;
    char *dir, *priority, *username, *password_id;
    bool verify_peer;
    /* gnutls' side, by kind and end; all but the one that applies are NULL */
    gnutls_anon_server_credentials_t anon_server;
    gnutls_anon_client_credentials_t anon_client;
    gnutls_psk_server_credentials_t psk_server;
    gnutls_psk_client_credentials_t psk_client;
    gnutls_certificate_credentials_t x509;
    gnutls_dh_params_t dh;
    struct tls_creds *next; /* of the registry */
};

bool tls_refused(GError **error, const struct tls_creds *c, int rc, const char *what);
const char *tls_creds_kind(const struct tls_creds *c);     /* "tls-creds-psk" */
const char *tls_creds_priority(const struct tls_creds *c); /* gnutls' priority string */
