/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLS credentials on gnutls; see tls.h. */
#include "image/nbd/tls_priv.h"

#include "image/option.h"
#include "image/secret.h"

#include <string.h>

static const char *const endpoint_words[] = { "client", "server", NULL };

#define CREDS_COMMON                                                                               \
    OPT_WORD("endpoint", struct tls_creds, endpoint, endpoint_words, ENDPOINT_CLIENT,              \
             "Which end of the connection the credentials are for"),                               \
        OPT_STRING("dir", struct tls_creds, dir, "Folder that holds the files"),                   \
        OPT_STRING("priority", struct tls_creds, priority, "gnutls priority string"),              \
        OPT_BOOL("verify-peer", struct tls_creds, verify_peer, true,                               \
                 "Check the peer's certificate")

static const struct image_option common_options[] = { CREDS_COMMON, { 0 } };
static const struct image_option psk_options[] = {
    CREDS_COMMON,
    OPT_STRING("username", struct tls_creds, username, "Which key a client uses (default qemu)"),
    { 0 },
};

static const struct image_option x509_options[] = {
    CREDS_COMMON,
    OPT_STRING("passwordid", struct tls_creds, password_id, "The secret that the key's file is locked by"),
    { 0 },
};

static bool load_anon(struct tls_creds *c, GError **error);
static bool load_psk(struct tls_creds *c, GError **error);
static bool load_x509(struct tls_creds *c, GError **error);

static const struct creds_type {
    const char *name;
    const char *priority; /* when the user gives none */
    const struct image_option *options;
    bool (*load)(struct tls_creds *c, GError **error);
} creds_types[] = {
    [CREDS_ANON] = { "tls-creds-anon", "NORMAL:+ANON-ECDH:+ANON-DH", common_options, load_anon },
    [CREDS_PSK] = { "tls-creds-psk", "NORMAL:+ECDHE-PSK:+DHE-PSK:+PSK", psk_options, load_psk },
    [CREDS_X509] = { "tls-creds-x509", "NORMAL", x509_options, load_x509 },
};

static GMutex registry_lock;
static struct tls_creds *registry;

bool tls_refused(GError **error, const struct tls_creds *c, int rc, const char *what)
{
    return ruche_error(error, RUCHE_ERR_INVALID, "%s '%s': %s: %s", creds_types[c->kind].name,
                       c->id, what, gnutls_strerror(rc));
}

/* The file of that name in dir; NULL when it is not there: with *error if it is needed. */
static char *creds_file(struct tls_creds *c, const char *name, bool needed, GError **error)
{
    g_autofree char *path = g_build_filename(c->dir, name, NULL);
    if (g_file_test(path, G_FILE_TEST_IS_REGULAR))
        return g_steal_pointer(&path);
    if (needed)
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "%s '%s': there is no file '%s'",
                    creds_types[c->kind].name, c->id, path);
    return NULL;
}

static bool needs_dir(const struct tls_creds *c, GError **error)
{
    return c->dir ||
           ruche_error(error, RUCHE_ERR_INVALID, "%s '%s' needs dir=, the folder of its files",
                       creds_types[c->kind].name, c->id);
}

/* dh-params.pem when there is one: gnutls negotiates standard groups otherwise. */
static bool load_dh(struct tls_creds *c, GError **error)
{
    g_autofree char *path = c->dir ? creds_file(c, "dh-params.pem", false, NULL) : NULL;
    if (!path)
        return true;
    g_autofree char *text = NULL;
    gsize len;
    if (!g_file_get_contents(path, &text, &len, error))
        return false;
    gnutls_datum_t pem = { (unsigned char *)text, (unsigned)len };
    int rc = gnutls_dh_params_init(&c->dh);
    if (rc == 0)
        rc = gnutls_dh_params_import_pkcs3(c->dh, &pem, GNUTLS_X509_FMT_PEM);
    return rc == 0 || tls_refused(error, c, rc, path);
}

static bool load_anon(struct tls_creds *c, GError **error)
{
    if (c->endpoint == ENDPOINT_CLIENT) {
        int rc = gnutls_anon_allocate_client_credentials(&c->anon_client);
        return rc == 0 || tls_refused(error, c, rc, "no memory");
    }
    int rc = gnutls_anon_allocate_server_credentials(&c->anon_server);
    if (rc != 0)
        return tls_refused(error, c, rc, "no memory");
    if (!load_dh(c, error))
        return false;
    if (c->dh)
        gnutls_anon_set_server_dh_params(c->anon_server, c->dh);
    else
        gnutls_anon_set_server_known_dh_params(c->anon_server, GNUTLS_SEC_PARAM_MEDIUM);
    return true;
}

/* keys.psk holds "user:hexkey" lines. A client takes the one of its user. */
static bool find_psk(struct tls_creds *c, const char *path, char **ret_key, GError **error)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, error))
        return false;
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    const char *user = c->username ? c->username : "qemu";
    size_t len = strlen(user);
    for (char **line = lines; *line; line++) {
        if (strncmp(*line, user, len) == 0 && (*line)[len] == ':') {
            *ret_key = g_strdup(g_strstrip(*line + len + 1));
            return true;
        }
    }
    return ruche_error(error, RUCHE_ERR_NOT_FOUND, "%s '%s': '%s' has no key for user '%s'",
                       creds_types[c->kind].name, c->id, path, user);
}

static bool load_psk(struct tls_creds *c, GError **error)
{
    if (!needs_dir(c, error))
        return false;
    g_autofree char *path = creds_file(c, "keys.psk", true, error);
    if (!path)
        return false;
    int rc;
    if (c->endpoint == ENDPOINT_SERVER) {
        if (c->username)
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "%s '%s': username= is for endpoint=client",
                               creds_types[c->kind].name, c->id);
        rc = gnutls_psk_allocate_server_credentials(&c->psk_server);
        if (rc == 0)
            rc = gnutls_psk_set_server_credentials_file(c->psk_server, path);
        if (rc != 0)
            return tls_refused(error, c, rc, path);
        if (!load_dh(c, error))
            return false;
        if (c->dh)
            gnutls_psk_set_server_dh_params(c->psk_server, c->dh);
        else
            gnutls_psk_set_server_known_dh_params(c->psk_server, GNUTLS_SEC_PARAM_MEDIUM);
        return true;
    }
    g_autofree char *key = NULL;
    if (!find_psk(c, path, &key, error))
        return false;
    gnutls_datum_t hex = { (unsigned char *)key, (unsigned)strlen(key) };
    rc = gnutls_psk_allocate_client_credentials(&c->psk_client);
    if (rc == 0)
        rc = gnutls_psk_set_client_credentials(c->psk_client, c->username ? c->username : "qemu",
                                               &hex, GNUTLS_PSK_KEY_HEX);
    return rc == 0 || tls_refused(error, c, rc, path);
}

static bool load_x509_pair(struct tls_creds *c, GError **error)
{
    bool server = c->endpoint == ENDPOINT_SERVER;
    g_autofree char *cert =
        creds_file(c, server ? "server-cert.pem" : "client-cert.pem", server, error);
    g_autofree char *key =
        creds_file(c, server ? "server-key.pem" : "client-key.pem", cert != NULL, error);
    if (!cert)
        return !server; /* a client without one is anonymous to the server */
    if (!key)
        return false;
    char *password = c->password_id ? secret_get_text(c->password_id, error) : NULL;
    if (c->password_id && !password)
        return false;
    int rc = gnutls_certificate_set_x509_key_file2(c->x509, cert, key, GNUTLS_X509_FMT_PEM, password, 0);
    if (password)
        secret_free(password, strlen(password));
    return rc == 0 || tls_refused(error, c, rc, cert);
}

static bool load_x509(struct tls_creds *c, GError **error)
{
    if (!needs_dir(c, error))
        return false;
    int rc = gnutls_certificate_allocate_credentials(&c->x509);
    if (rc != 0)
        return tls_refused(error, c, rc, "no memory");
    bool need_ca = c->endpoint == ENDPOINT_CLIENT || c->verify_peer;
    g_autofree char *ca = creds_file(c, "ca-cert.pem", need_ca, error);
    if (need_ca && !ca)
        return false;
    rc = ca ? gnutls_certificate_set_x509_trust_file(c->x509, ca, GNUTLS_X509_FMT_PEM) : 0;
    if (rc < 0)
        return tls_refused(error, c, rc, ca);
    g_autofree char *crl = creds_file(c, "ca-crl.pem", false, NULL);
    rc = crl ? gnutls_certificate_set_x509_crl_file(c->x509, crl, GNUTLS_X509_FMT_PEM) : 0;
    if (rc < 0)
        return tls_refused(error, c, rc, crl);
    if (!load_x509_pair(c, error) || !load_dh(c, error))
        return false;
    if (c->dh)
        gnutls_certificate_set_dh_params(c->x509, c->dh);
    return true;
}

static const struct creds_type *find_type(const char *kind)
{
    for (unsigned i = 0; i < CREDS_KINDS; i++) {
        if (strcmp(creds_types[i].name, kind) == 0)
            return &creds_types[i];
    }
    return NULL;
}

bool tls_creds_is_kind(const char *kind)
{
    return find_type(kind) != NULL;
}

char *tls_creds_help(const char *kind)
{
    const struct creds_type *t = find_type(kind);
    return t ? option_help(t->options) : NULL;
}

struct tls_creds *tls_creds_new(const char *kind, const char *id, JsonObject *props, GError **error)
{
    const struct creds_type *t = find_type(kind);
    if (!t) {
        ruche_error(error, RUCHE_ERR_UNKNOWN, "'%s' is no kind of TLS credentials", kind);
        return NULL;
    }
    struct tls_creds *c = g_new0(struct tls_creds, 1);
    g_atomic_ref_count_init(&c->refs);
    c->id = g_strdup(id);
    c->kind = (enum creds_kind)(t - creds_types);
    g_autofree char *what = g_strdup_printf("%s '%s'", kind, id);
    if (!option_parse(t->options, props, what, c, error) ||
        (props && !option_all_used(props, t->options, NULL, what, error)) || !t->load(c, error)) {
        tls_creds_unref(c);
        return NULL;
    }
    return c;
}

struct tls_creds *tls_creds_ref(struct tls_creds *c)
{
    g_atomic_ref_count_inc(&c->refs);
    return c;
}

static void free_gnutls(struct tls_creds *c)
{
    if (c->anon_server)
        gnutls_anon_free_server_credentials(c->anon_server);
    if (c->anon_client)
        gnutls_anon_free_client_credentials(c->anon_client);
    if (c->psk_server)
        gnutls_psk_free_server_credentials(c->psk_server);
    if (c->psk_client)
        gnutls_psk_free_client_credentials(c->psk_client);
    if (c->x509)
        gnutls_certificate_free_credentials(c->x509);
    if (c->dh)
        gnutls_dh_params_deinit(c->dh);
}

void tls_creds_unref(struct tls_creds *c)
{
    if (!c || !g_atomic_ref_count_dec(&c->refs))
        return;
    free_gnutls(c);
    option_clear(creds_types[c->kind].options, c);
    g_free(c->id);
    g_free(c);
}

const char *tls_creds_id(const struct tls_creds *c)
{
    return c->id;
}

bool tls_creds_is_server(const struct tls_creds *c)
{
    return c->endpoint == ENDPOINT_SERVER;
}

/* --- the registry --- */

static struct tls_creds **registry_slot(const char *id)
{
    struct tls_creds **at = &registry;
    while (*at && strcmp((*at)->id, id) != 0)
        at = &(*at)->next;
    return at;
}

bool tls_creds_add(struct tls_creds *c, GError **error)
{
    g_autoptr(GMutexLocker) lock G_GNUC_UNUSED = g_mutex_locker_new(&registry_lock);
    struct tls_creds **at = registry_slot(c->id);
    if (*at)
        return ruche_error(error, RUCHE_ERR_EXISTS, "an object '%s' exists already", c->id);
    *at = tls_creds_ref(c);
    c->next = NULL;
    return true;
}

bool tls_creds_remove(const char *id, GError **error)
{
    g_autoptr(GMutexLocker) lock G_GNUC_UNUSED = g_mutex_locker_new(&registry_lock);
    struct tls_creds **at = registry_slot(id), *c = *at;
    if (!c)
        return ruche_error(error, RUCHE_ERR_NOT_FOUND, "there are no TLS credentials '%s'", id);
    *at = c->next;
    tls_creds_unref(c);
    return true;
}

struct tls_creds *tls_creds_find(const char *id, bool server, GError **error)
{
    g_autoptr(GMutexLocker) lock G_GNUC_UNUSED = g_mutex_locker_new(&registry_lock);
    struct tls_creds *c = *registry_slot(id);
    if (!c) {
        ruche_error(error, RUCHE_ERR_NOT_FOUND,
                    "there are no TLS credentials '%s'; make them with -object", id);
        return NULL;
    }
    if (tls_creds_is_server(c) != server) {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "TLS credentials '%s' are for a %s; endpoint=%s is needed here", id,
                    endpoint_words[c->endpoint], endpoint_words[!c->endpoint]);
        return NULL;
    }
    return tls_creds_ref(c);
}

const char *tls_creds_kind(const struct tls_creds *c)
{
    return creds_types[c->kind].name;
}

const char *tls_creds_priority(const struct tls_creds *c)
{
    return c->priority ? c->priority : creds_types[c->kind].priority;
}
