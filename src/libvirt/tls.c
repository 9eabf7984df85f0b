/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Credentials and the check of a client's certificate. Trust: the certificate is the peer's. */
#include "libvirt/tls.h"

#include "base/library_gnutls.h"
#include "manager/error.h"

struct tls {
    gnutls_certificate_credentials_t credentials;
    const struct libvirt_server_config *config;
};

static bool failed(GError **error, int code, const char *what, const char *path)
{
    return ruche_error(error, RUCHE_ERR_IO, "TLS: %s '%s' cannot be used: %s", what, path,
                       gnutls.strerror(code));
}

static bool load(struct tls *t, const struct libvirt_server_config *c, GError **error)
{
    if (!c->tls_ca || !c->tls_cert || !c->tls_key)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "TLS needs a CA's certificate, our certificate and its key");
    int r = gnutls.certificate_set_x509_trust_file(t->credentials, c->tls_ca, GNUTLS_X509_FMT_PEM);
    if (r <= 0)
        return failed(error, r, "CA's certificate", c->tls_ca);
    if (c->tls_crl) {
        r = gnutls.certificate_set_x509_crl_file(t->credentials, c->tls_crl, GNUTLS_X509_FMT_PEM);
        if (r < 0)
            return failed(error, r, "revocation list", c->tls_crl);
    }
    r = gnutls.certificate_set_x509_key_file(t->credentials, c->tls_cert, c->tls_key,
                                             GNUTLS_X509_FMT_PEM);
    return r >= 0 || failed(error, r, "certificate and key", c->tls_cert);
}

struct tls *tls_new(const struct libvirt_server_config *config, GError **error)
{
    if (!library_gnutls(error))
        return NULL;
    struct tls *t = g_new0(struct tls, 1);
    t->config = config;
    int r = gnutls.certificate_allocate_credentials(&t->credentials);
    if (r < 0) {
        t->credentials = NULL;
        ruche_error(error, RUCHE_ERR_NO_SPACE, "TLS: %s", gnutls.strerror(r));
    } else if (load(t, config, error)) {
        return t;
    }
    tls_free(t);
    return NULL;
}

void tls_free(struct tls *t)
{
    if (!t)
        return;
    if (t->credentials)
        gnutls.certificate_free_credentials(t->credentials);
    g_free(t);
}

gnutls_session_t tls_session_new(struct tls *t)
{
    gnutls_session_t s;
    if (gnutls.init(&s, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) < 0)
        return NULL;
    if (gnutls.set_default_priority(s) < 0 ||
        gnutls.credentials_set(s, GNUTLS_CRD_CERTIFICATE, t->credentials) < 0) {
        gnutls.deinit(s);
        return NULL;
    }
    gnutls.certificate_server_set_request(s, t->config->tls_any_client ? GNUTLS_CERT_REQUEST
                                                                       : GNUTLS_CERT_REQUIRE);
    return s;
}

static char *peer_name(gnutls_session_t session)
{
    unsigned count = 0;
    const gnutls_datum_t *der = gnutls.certificate_get_peers(session, &count);
    gnutls_x509_crt_t cert;
    if (!der || !count || gnutls.x509_crt_init(&cert) < 0)
        return NULL;
    gnutls_datum_t dn = {0};
    char *name = NULL;
    if (gnutls.x509_crt_import(cert, der, GNUTLS_X509_FMT_DER) >= 0 &&
        gnutls.x509_crt_get_dn3(cert, &dn, 0) >= 0)
        name = g_strndup((const char *)dn.data, dn.size);
    (*gnutls.free)(dn.data);
    gnutls.x509_crt_deinit(cert);
    return name;
}

static bool let_in(const char *const *patterns, const char *name)
{
    if (!patterns)
        return true;
    for (; *patterns; patterns++)
        if (g_pattern_match_simple(*patterns, name))
            return true;
    return false;
}

bool tls_check_peer(const struct tls *t, gnutls_session_t session, char **ret_name, GError **error)
{
    if (t->config->tls_any_client) {
        *ret_name = NULL;
        return true;
    }
    unsigned status = 0;
    int r = gnutls.certificate_verify_peers2(session, &status);
    if (r < 0)
        return ruche_error(error, MANAGER_ERR_AUTH, "TLS: the client's certificate: %s",
                           gnutls.strerror(r));
    if (status) {
        gnutls_datum_t why = {0};
        gnutls.certificate_verification_status_print(status, GNUTLS_CRT_X509, &why, 0);
        ruche_error(error, MANAGER_ERR_AUTH, "TLS: %s",
                    why.data ? (char *)why.data : "the client's certificate is bad");
        (*gnutls.free)(why.data);
        return false;
    }
    g_autofree char *name = peer_name(session);
    if (!name || !let_in(t->config->tls_names, name))
        return ruche_error(error, MANAGER_ERR_AUTH,
                           "TLS: '%s' is not among the names that are let in", name ? name : "");
    *ret_name = g_steal_pointer(&name);
    return true;
}
