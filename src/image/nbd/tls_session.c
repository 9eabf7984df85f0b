/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLS sessions on gnutls; see tls.h. */
#include "image/nbd/tls_priv.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

struct tls_session {
    struct tls_creds *creds;
    gnutls_session_t session;
    char *host; /* clients: what the certificate must be for */
};

static int set_credentials(struct tls_session *s)
{
    struct tls_creds *c = s->creds;
    bool server = tls_creds_is_server(c);
    switch (c->kind) {
    case CREDS_ANON:
        return gnutls_credentials_set(s->session, GNUTLS_CRD_ANON,
                                      server ? (void *)c->anon_server : (void *)c->anon_client);
    case CREDS_PSK:
        return gnutls_credentials_set(s->session, GNUTLS_CRD_PSK,
                                      server ? (void *)c->psk_server : (void *)c->psk_client);
    default:
        if (server && c->verify_peer)
            gnutls_certificate_server_set_request(s->session, GNUTLS_CERT_REQUIRE);
        return gnutls_credentials_set(s->session, GNUTLS_CRD_CERTIFICATE, c->x509);
    }
}

/* A literal address is no server name in the sense of the protocol. */
static bool is_dns_name(const char *host)
{
    return *host && !g_hostname_is_ip_address(host);
}

struct tls_session *tls_session_new(struct tls_creds *c, int fd, const char *host, GError **error)
{
    struct tls_session *s = g_new0(struct tls_session, 1);
    bool server = tls_creds_is_server(c);
    s->creds = tls_creds_ref(c);
    s->host = server ? NULL : g_strdup(host);
    int rc = gnutls_init(&s->session, (server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK |
                                          GNUTLS_NO_SIGNAL);
    if (rc == 0)
        rc = gnutls_priority_set_direct(s->session, tls_creds_priority(c), NULL);
    if (rc == 0)
        rc = set_credentials(s);
    if (rc == 0 && s->host && is_dns_name(s->host))
        rc = gnutls_server_name_set(s->session, GNUTLS_NAME_DNS, s->host, strlen(s->host));
    if (rc != 0) {
        tls_refused(error, c, rc, "cannot begin a session");
        tls_session_free(s);
        return NULL;
    }
    gnutls_handshake_set_timeout(s->session,
                                 GNUTLS_INDEFINITE_TIMEOUT); /* the caller has a clock */
    gnutls_transport_set_int(s->session, fd);
    return s;
}

void tls_session_free(struct tls_session *s)
{
    if (!s)
        return;
    if (s->session)
        gnutls_deinit(s->session);
    tls_creds_unref(s->creds);
    g_free(s->host);
    g_free(s);
}

static bool verify(struct tls_session *s, GError **error)
{
    struct tls_creds *c = s->creds;
    if (c->kind != CREDS_X509 || !c->verify_peer)
        return true;
    unsigned status = 0;
    int rc = gnutls_certificate_verify_peers3(s->session, s->host, &status);
    if (rc != 0)
        return tls_refused(error, c, rc, "cannot verify the peer's certificate");
    if (status == 0)
        return true;
    gnutls_datum_t text = { 0 };
    gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
    ruche_error(error, RUCHE_ERR_INVALID, "%s '%s': the peer%s%s%s is refused: %s",
                tls_creds_kind(c), c->id, s->host ? " '" : "", s->host ? s->host : "",
                s->host ? "'" : "",
                text.data ? g_strchomp((char *)text.data) : "its certificate is not valid");
    gnutls_free(text.data);
    return false;
}

int tls_session_handshake(struct tls_session *s, GError **error)
{
    int rc;
    do
        rc = gnutls_handshake(s->session);
    while (rc == GNUTLS_E_INTERRUPTED ||
           (rc < 0 && rc != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(rc)));
    if (rc == GNUTLS_E_AGAIN)
        return 0;
    if (rc < 0) {
        tls_refused(error, s->creds, rc, "TLS handshake failed");
        return -1;
    }
    return verify(s, error) ? 1 : -1;
}

static char *certified_name(struct tls_session *s)
{
    unsigned count = 0;
    const gnutls_datum_t *list = gnutls_certificate_get_peers(s->session, &count);
    gnutls_x509_crt_t cert;
    char name[1024];
    size_t len = sizeof(name);
    if (!s->creds->verify_peer || !list || !count || gnutls_x509_crt_init(&cert) < 0)
        return NULL;
    int rc = gnutls_x509_crt_import(cert, &list[0], GNUTLS_X509_FMT_DER);
    if (rc == 0)
        rc = gnutls_x509_crt_get_dn(cert, name, &len);
    gnutls_x509_crt_deinit(cert);
    return rc == 0 ? g_strdup(name) : NULL;
}

char *tls_session_peer(struct tls_session *s)
{
    bool server = tls_creds_is_server(s->creds);
    if (s->creds->kind == CREDS_X509)
        return certified_name(s);
    return server && s->creds->kind == CREDS_PSK ? g_strdup(gnutls_psk_server_get_username(s->session))
                                                 : NULL;
}

/* Warnings and rekeying come as errors that are not fatal: ask again, as often as a peer may
 * interrupt us. */
#define NON_FATAL_MAX 8

ssize_t tls_session_recv(struct tls_session *s, void *buf, size_t len)
{
    for (unsigned i = 0; i < NON_FATAL_MAX; i++) {
        ssize_t n = gnutls_record_recv(s->session, buf, len);
        if (n >= 0)
            return n;
        if (n == GNUTLS_E_AGAIN)
            return -EAGAIN;
        if (n == GNUTLS_E_PREMATURE_TERMINATION)
            return 0;
        if (gnutls_error_is_fatal((int)n))
            return -EIO;
    }
    return -EIO;
}

ssize_t tls_session_send(struct tls_session *s, const void *buf, size_t len)
{
    for (unsigned i = 0; i < NON_FATAL_MAX; i++) {
        ssize_t n = gnutls_record_send(s->session, buf, len);
        if (n >= 0)
            return n;
        if (n == GNUTLS_E_AGAIN)
            return -EAGAIN;
        if (gnutls_error_is_fatal((int)n))
            return -EIO;
    }
    return -EIO;
}

unsigned tls_session_wants(const struct tls_session *s)
{
    return gnutls_record_get_direction(s->session) ? POLLOUT : POLLIN;
}

void tls_session_bye(struct tls_session *s)
{
    gnutls_bye(s->session, GNUTLS_SHUT_WR);
}
