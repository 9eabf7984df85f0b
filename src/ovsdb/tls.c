/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLS below OVSDB's messages; see tls.h. */
#include "ovsdb/tls.h"

#include "base/library_gnutls.h"

#include <errno.h>

#define PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"
#define RECORD_MAX 16384
#define ROUNDS_MAX 16 /* of messages that are no data, before others have their turn */

struct ovsdb_tls {
    gnutls_certificate_credentials_t credentials;
    gnutls_session_t session;
    bool begun, heard; /* the handshake is over; the server has said something since */
    bool unsent;       /* GnuTLS has a record that the descriptor did not take */
    char *why;
};

void ovsdb_tls_free(struct ovsdb_tls *t)
{
    if (!t)
        return;
    if (t->session)
        gnutls.deinit(t->session);
    if (t->credentials)
        gnutls.certificate_free_credentials(t->credentials);
    g_free(t->why);
    g_free(t);
}

static bool load(struct ovsdb_tls *t, const struct ovsdb_tls_files *f, GError **error)
{
    if (!f->ca || !f->certificate || !f->key)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "ssl: needs a key, a certificate and that of a CA: ovsdb_key, "
                           "ovsdb_certificate and ovsdb_ca of [network] in ruched.conf");
    int n = gnutls.certificate_set_x509_trust_file(t->credentials, f->ca, GNUTLS_X509_FMT_PEM);
    if (n <= 0)
        return ruche_error(error, RUCHE_ERR_INVALID, "the CA's certificate '%s': %s", f->ca,
                           n ? gnutls.strerror(n) : "there is none in it");
    n = gnutls.certificate_set_x509_key_file(t->credentials, f->certificate, f->key,
                                             GNUTLS_X509_FMT_PEM);
    return n >= 0 || ruche_error(error, RUCHE_ERR_INVALID, "certificate '%s' with key '%s': %s",
                                 f->certificate, f->key, gnutls.strerror(n));
}

struct ovsdb_tls *ovsdb_tls_new(const struct ovsdb_tls_files *f, int fd, GError **error)
{
    if (!library_gnutls(error))
        return NULL;
    struct ovsdb_tls *t = g_new0(struct ovsdb_tls, 1);
    int rc = gnutls.certificate_allocate_credentials(&t->credentials);
    if (rc >= 0 && !load(t, f, error)) {
        ovsdb_tls_free(t);
        return NULL;
    }
    if (rc >= 0)
        rc = gnutls.init(&t->session, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
    if (rc >= 0)
        rc = gnutls.priority_set_direct(t->session, PRIORITIES, NULL);
    if (rc >= 0)
        rc = gnutls.credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, t->credentials);
    if (rc < 0) {
        ruche_error(error, RUCHE_ERR_IO, "TLS: %s", gnutls.strerror(rc));
        ovsdb_tls_free(t);
        return NULL;
    }
    gnutls.session_set_verify_cert(t->session, NULL, 0);
    gnutls.transport_set_int2(t->session, fd, fd);
    return t;
}

/* ---- what went wrong ---- */

const char *ovsdb_tls_why(const struct ovsdb_tls *t)
{
    return t->why ? t->why : "the server closed the connection";
}

static char *sentence(const struct ovsdb_tls *t, int rc)
{
    gnutls_datum_t text = {0};
    unsigned status = gnutls.session_get_verify_cert_status(t->session);
    if (rc == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR &&
        gnutls.certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) >= 0) {
        char *s = g_strdup_printf("the server's certificate is not believed: %s",
                                  (const char *)text.data);
        (*gnutls.free)(text.data);
        return g_strchomp(s);
    }
    if (rc == GNUTLS_E_FATAL_ALERT_RECEIVED)
        return g_strdup_printf("the server refused TLS: %s",
                               gnutls.alert_get_name(gnutls.alert_get(t->session)));
    if (rc == GNUTLS_E_PREMATURE_TERMINATION || rc == GNUTLS_E_PUSH_ERROR ||
        rc == GNUTLS_E_PULL_ERROR)
        return g_strdup(t->begun && !t->heard
                            ? "the server closed the connection as soon as TLS had begun: does it "
                              "know the CA of our certificate?"
                            : "the server closed the connection");
    return g_strdup_printf("TLS: %s", gnutls.strerror(rc));
}

/* -EAGAIN, or the end with a reason. */
static int fail(struct ovsdb_tls *t, int rc)
{
    if (!gnutls.error_is_fatal(rc) && rc != GNUTLS_E_REHANDSHAKE)
        return -EAGAIN;
    g_free(t->why);
    t->why = sentence(t, rc);
    return -EPROTO;
}

/* ---- use ---- */

int ovsdb_tls_handshake(struct ovsdb_tls *t, bool *ret_out)
{
    int rc = GNUTLS_E_AGAIN;
    for (int i = 0; i < ROUNDS_MAX; i++) {
        rc = gnutls.handshake(t->session);
        t->begun = rc >= 0;
        if (rc >= 0)
            return 0;
        if (rc == GNUTLS_E_AGAIN || gnutls.error_is_fatal(rc))
            break;
    }
    *ret_out = gnutls.record_get_direction(t->session) == 1;
    return fail(t, rc);
}

ssize_t ovsdb_tls_send(struct ovsdb_tls *t, const void *data, size_t len)
{
    ssize_t n = t->unsent ? gnutls.record_send(t->session, NULL, 0)
                          : gnutls.record_send(t->session, data, MIN(len, RECORD_MAX));
    t->unsent = n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED;
    return n < 0 ? fail(t, (int)n) : n;
}

ssize_t ovsdb_tls_receive(struct ovsdb_tls *t, void *buf, size_t len)
{
    ssize_t n = GNUTLS_E_AGAIN;
    for (int i = 0; i < ROUNDS_MAX; i++) {
        n = gnutls.record_recv(t->session, buf, len);
        if (n >= 0 || n == GNUTLS_E_AGAIN || gnutls.error_is_fatal((int)n))
            break;
    }
    t->heard |= n > 0;
    return n < 0 ? fail(t, (int)n) : n;
}

bool ovsdb_tls_pending(const struct ovsdb_tls *t)
{
    return gnutls.record_check_pending(t->session) > 0;
}
