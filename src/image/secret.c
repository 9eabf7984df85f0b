/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The registry of secrets.
 *
 * Spec      QEMU's secret object: an encrypted secret is AES-256-CBC with PKCS#7 padding under the
 *           32 bytes of the secret `keyid`; with format=base64 its ciphertext is base64, and its
 *           plain text is not.
 * Thread    Any; one lock around the table.
 * Trust     Options come from users and QMP peers: sizes are capped, padding is checked.
 */
#include "image/secret.h"

#include "image/crypto.h"

#include <gnutls/crypto.h>
#include <string.h>

#define SECRET_KEY_BYTES   32
#define SECRET_BLOCK_BYTES 16

struct secret {
    uint8_t *bytes; /* secret_free() */
    size_t len;
};

static GMutex secrets_lock;
static GHashTable *secrets; /* char * -> struct secret, owned */

void secret_free(void *bytes, size_t len)
{
    if (bytes)
        crypto_wipe(bytes, len);
    g_free(bytes);
}

static void secret_done(void *opaque)
{
    struct secret *s = opaque;
    secret_free(s->bytes, s->len);
    g_free(s);
}

static uint8_t *secret_copy(const void *from, size_t len)
{
    uint8_t *to = g_malloc(len + 1);
    memcpy(to, from, len);
    to[len] = 0;
    return to;
}

/* The member as text, NULL when absent; sets *bad for anything but a string. */
static const char *member(JsonObject *o, const char *name, bool *bad)
{
    JsonNode *n = json_object_get_member(o, name);
    if (!n)
        return NULL;
    if (JSON_NODE_HOLDS_VALUE(n) && json_node_get_value_type(n) == G_TYPE_STRING)
        return json_node_get_string(n);
    *bad = true;
    return NULL;
}

static bool read_file(const char *id, const char *path, struct secret *ret, GError **error)
{
    g_autofree char *text = NULL;
    size_t len;
    g_autoptr(GError) e = NULL;
    if (!g_file_get_contents(path, &text, &len, &e))
        return ruche_error(error, RUCHE_ERR_IO, "secret '%s': %s", id, e->message);
    bool fits = len <= SECRET_BYTES_MAX;
    if (fits)
        *ret = (struct secret){secret_copy(text, len), len};
    crypto_wipe(text, len);
    return fits || ruche_error(error, RUCHE_ERR_INVALID,
                               "secret '%s': file '%s' has %zu bytes; the limit is %llu", id, path,
                               len, (unsigned long long)SECRET_BYTES_MAX);
}

static bool is_base64(const uint8_t *p, size_t len)
{
    size_t digits = 0;
    for (size_t i = 0; i < len; i++) {
        bool space = g_ascii_isspace(p[i]);
        if (!space && !g_ascii_isalnum(p[i]) && !strchr("+/=", p[i]))
            return false;
        digits += !space;
    }
    return digits % 4 == 0;
}

static bool decode_base64(const char *id, const char *what, struct secret *s, GError **error)
{
    if (!is_base64(s->bytes, s->len))
        return ruche_error(error, RUCHE_ERR_INVALID, "secret '%s': %s is not base64", id, what);
    size_t len;
    g_autofree uint8_t *plain = g_base64_decode((const char *)s->bytes, &len);
    struct secret was = *s;
    *s = (struct secret){secret_copy(plain, len), len};
    crypto_wipe(plain, len);
    secret_free(was.bytes, was.len);
    return true;
}

static bool strip_padding(const char *id, struct secret *s, GError **error)
{
    unsigned pad = s->bytes[s->len - 1];
    bool good = pad >= 1 && pad <= SECRET_BLOCK_BYTES && pad <= s->len;
    for (unsigned i = 1; good && i <= pad; i++)
        good = s->bytes[s->len - i] == pad;
    if (!good)
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "secret '%s': it does not decrypt to padded text; wrong 'keyid' or 'iv'?", id);
    s->len -= pad;
    s->bytes[s->len] = 0;
    return true;
}

static bool run_cipher(const char *id, const uint8_t *key, const struct secret *iv,
                       struct secret *s, GError **error)
{
    gnutls_cipher_hd_t h;
    gnutls_datum_t k = {(unsigned char *)key, SECRET_KEY_BYTES},
                   v = {iv->bytes, SECRET_BLOCK_BYTES};
    int r = gnutls_cipher_init(&h, GNUTLS_CIPHER_AES_256_CBC, &k, &v);
    if (!r) {
        r = gnutls_cipher_decrypt(h, s->bytes, s->len);
        gnutls_cipher_deinit(h);
    }
    if (r)
        return ruche_error(error, RUCHE_ERR_INTERNAL, "secret '%s': %s", id, gnutls_strerror(r));
    return strip_padding(id, s, error);
}

static bool decrypt(const char *id, const char *keyid, const char *iv_text, struct secret *s,
                    GError **error)
{
    if (!iv_text)
        return ruche_error(error, RUCHE_ERR_INVALID, "secret '%s': 'keyid' needs 'iv'", id);
    if (!s->len || s->len % SECRET_BLOCK_BYTES)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "secret '%s': %zu encrypted bytes are no multiple of %d", id, s->len,
                           SECRET_BLOCK_BYTES);
    uint8_t *key;
    size_t key_len;
    if (!secret_get(keyid, &key, &key_len, error))
        return false;
    struct secret iv = {secret_copy(iv_text, strlen(iv_text)), strlen(iv_text)};
    bool ok = decode_base64(id, "'iv'", &iv, error);
    if (ok && (key_len != SECRET_KEY_BYTES || iv.len != SECRET_BLOCK_BYTES))
        ok = ruche_error(error, RUCHE_ERR_INVALID,
                         "secret '%s': key '%s' has %zu bytes and 'iv' %zu; %d and %d are needed",
                         id, keyid, key_len, iv.len, SECRET_KEY_BYTES, SECRET_BLOCK_BYTES);
    ok = ok && run_cipher(id, key, &iv, s, error);
    secret_free(iv.bytes, iv.len);
    secret_free(key, key_len);
    return ok;
}

struct secret_options {
    const char *data, *file, *format, *keyid, *iv; /* borrowed from the object */
};

static bool parse_options(const char *id, JsonObject *from, struct secret_options *ret,
                          GError **error)
{
    static const char *const known[] = {"data", "file",     "format", "keyid", "iv",
                                        "id",   "qom-type", "loaded", NULL};
    g_autoptr(GList) names = json_object_get_members(from);
    for (GList *l = names; l; l = l->next)
        if (!g_strv_contains(known, l->data))
            return ruche_error(error, RUCHE_ERR_UNKNOWN, "secret '%s': unknown option '%s'%s", id,
                               (char *)l->data, suggest_phrase(l->data, known));
    bool bad = false;
    *ret = (struct secret_options){member(from, "data", &bad), member(from, "file", &bad),
                                   member(from, "format", &bad), member(from, "keyid", &bad),
                                   member(from, "iv", &bad)};
    if (bad || !ret->data == !ret->file)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "secret '%s': exactly one of 'data' and 'file' is needed, as text", id);
    if (ret->format && strcmp(ret->format, "raw") && strcmp(ret->format, "base64"))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "secret '%s': format '%s' is neither 'raw' nor 'base64'", id,
                           ret->format);
    return true;
}

static bool load(const char *id, const struct secret_options *o, struct secret *s, GError **error)
{
    if (o->data && strlen(o->data) > SECRET_BYTES_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "secret '%s': more than %llu bytes", id,
                           (unsigned long long)SECRET_BYTES_MAX);
    if (o->data)
        *s = (struct secret){secret_copy(o->data, strlen(o->data)), strlen(o->data)};
    else if (!read_file(id, o->file, s, error))
        return false;
    bool base64 = o->format && !strcmp(o->format, "base64");
    if (base64 && !decode_base64(id, o->data ? "'data'" : "the file", s, error))
        return false;
    return !o->keyid || decrypt(id, o->keyid, o->iv, s, error);
}

bool secret_add(const char *id, JsonObject *options, GError **error)
{
    struct secret_options o = {0};
    struct secret s = {0};
    if (!parse_options(id, options, &o, error))
        return false;
    bool ok = load(id, &o, &s, error);
    g_mutex_lock(&secrets_lock);
    if (!secrets)
        secrets = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, secret_done);
    if (ok && g_hash_table_contains(secrets, id))
        ok = ruche_error(error, RUCHE_ERR_EXISTS, "secret '%s' exists already", id);
    if (ok)
        g_hash_table_insert(secrets, g_strdup(id), g_memdup2(&s, sizeof(s)));
    g_mutex_unlock(&secrets_lock);
    if (!ok)
        secret_free(s.bytes, s.len);
    return ok;
}

bool secret_remove(const char *id, GError **error)
{
    g_mutex_lock(&secrets_lock);
    bool ok = secrets && g_hash_table_remove(secrets, id);
    g_mutex_unlock(&secrets_lock);
    return ok || ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no secret '%s'", id);
}

bool secret_exists(const char *id)
{
    g_mutex_lock(&secrets_lock);
    bool found = secrets && g_hash_table_contains(secrets, id);
    g_mutex_unlock(&secrets_lock);
    return found;
}

bool secret_get(const char *id, uint8_t **ret, size_t *ret_len, GError **error)
{
    g_mutex_lock(&secrets_lock);
    const struct secret *s = secrets ? g_hash_table_lookup(secrets, id) : NULL;
    if (s) {
        *ret = secret_copy(s->bytes, s->len);
        *ret_len = s->len;
    }
    g_mutex_unlock(&secrets_lock);
    return s || ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no secret '%s'", id);
}

char *secret_get_text(const char *id, GError **error)
{
    uint8_t *bytes;
    size_t len;
    if (!secret_get(id, &bytes, &len, error))
        return NULL;
    if (g_utf8_validate((char *)bytes, (gssize)len, NULL))
        return (char *)bytes;
    secret_free(bytes, len);
    ruche_error(error, RUCHE_ERR_INVALID, "secret '%s' is no UTF-8 text", id);
    return NULL;
}
