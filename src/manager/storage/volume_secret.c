/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Encrypted volumes, and passwords of pools: which secret, and how ruche-img gets it.
 *
 * Spec      libvirt's formatstorageencryption and formatstorage (<auth>) at 9.0.0. LUKS only:
 *           qcow2's old AES protects nothing.
 * Thread    The loop thread.
 */
#include "manager/markup.h"
#include "manager/storage/storage_priv.h"
#include "manager/uuid.h"

#include <inttypes.h>
#include <string.h>

/* ---- for ruche-img ---- */

char *encrypted_name(const char *path, const char *format, const char *key)
{
    bool raw = !strcmp(format, "raw");
    g_autoptr(JsonNode) n = json_node_new(JSON_NODE_OBJECT);
    JsonObject *o = json_object_new(), *file = json_object_new(), *e = json_object_new();
    json_object_set_string_member(o, "driver", raw ? "luks" : format);
    json_object_set_string_member(file, "driver",
                                  g_str_has_prefix(path, "/dev/") ? "host_device" : "file");
    json_object_set_string_member(file, "filename", path);
    json_object_set_object_member(o, "file", file);
    json_object_set_string_member(e, "format", "luks");
    json_object_set_string_member(e, "key-secret", key);
    if (raw)
        json_object_set_string_member(o, "key-secret", key);
    else
        json_object_set_object_member(o, "encrypt", json_object_ref(e));
    json_object_unref(e);
    json_node_take_object(n, o);
    g_autofree char *text = json_to_string(n, FALSE);
    return g_strconcat("json:", text, NULL);
}

char *secret_object(const char *id, const struct secret_file *f)
{
    return g_strdup_printf("secret,id=%s,file=%s", id, f->path);
}

/* ---- <encryption> ---- */

/* Words that a format's option may be made of. */
static bool is_plain(const char *word)
{
    return strlen(word) < 64 && !word[strspn(word, "abcdefghijklmnopqrstuvwxyz"
                                                   "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")];
}

static bool add_option(GString *s, const struct volume_def *d, const char *key, const char *value,
                       GError **error)
{
    if (!value)
        return true;
    if (!is_plain(value))
        return ruche_error(error, RUCHE_ERR_XML, "volume '%s': '%.64s' is no cipher or hash",
                           d->name, value);
    g_string_append_printf(s, "%s%s=%s", s->len ? "," : "", key, value);
    return true;
}

/* <cipher name='aes' size='256' mode='xts' hash='sha256'/><ivgen name='plain64' hash='..'/> */
static bool parse_ciphers(struct volume_def *d, const struct xml_node *e, GError **error)
{
    const char *name = xml_get(e, "cipher@name"), *size = xml_get(e, "cipher@size");
    g_autofree char *algorithm = name && size ? g_strdup_printf("%s-%s", name, size) : NULL;
    GString *s = g_string_new(NULL);
    bool ok = add_option(s, d, "cipher-alg", algorithm, error) &&
              add_option(s, d, "cipher-mode", xml_get(e, "cipher@mode"), error) &&
              add_option(s, d, "hash-alg", xml_get(e, "cipher@hash"), error) &&
              add_option(s, d, "ivgen-alg", xml_get(e, "ivgen@name"), error) &&
              add_option(s, d, "ivgen-hash-alg", xml_get(e, "ivgen@hash"), error);
    d->ciphers = g_string_free(s, FALSE);
    return ok;
}

/* The UUID of what <secret> means. */
static char *secret_uuid(const struct xml_node *secret)
{
    char text[UUID_TEXT_BYTES];
    const char *usage = xml_get(secret, "@usage");
    struct secret *s = usage ? secret_find_usage(SECRET_VOLUME, usage, NULL) : NULL;
    if (!s)
        return g_strdup(xml_get(secret, "@uuid"));
    uuid_format(s->uuid, text);
    secret_unref(s);
    return g_strdup(text);
}

bool volume_encryption_parse(struct volume_def *d, const struct pool_backend *b,
                             const struct xml_node *root, GError **error)
{
    const struct xml_node *e = xml_find(root, "target/encryption"),
                          *secret = e ? xml_find(e, "secret") : NULL;
    const char *format = e ? xml_get_or(e, "@format", "") : NULL;
    if (!e)
        return true;
    if (strcmp(format, "luks") != 0)
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "volume '%s': encryption '%.16s' cannot be made; 'luks' can", d->name,
                           format);
    bool raw = !strcmp(d->format, "raw"), files = b->can & POOL_FILES;
    if (files ? !raw && strcmp(d->format, "qcow2") != 0 : b->can & POOL_REMOTE || d->backing)
        return ruche_error(
            error, MANAGER_ERR_CONFIG,
            "volume '%s': files of format raw and qcow2 can be encrypted, and devices of "
            "this host without a backing store, not %s%s in a pool of type '%s'",
            d->name, d->format, d->backing ? " with a backing store" : "", b->type);
    if (!secret || xml_next(secret) || !xml_is(secret, "@type", "passphrase"))
        return ruche_error(error, RUCHE_ERR_XML,
                           "volume '%s': <encryption> needs one <secret type='passphrase'>",
                           d->name);
    d->encrypted = true;
    d->key = secret_value_of(secret, SECRET_VOLUME, error);
    if (!d->key) {
        g_prefix_error(error, "volume '%s': ", d->name);
        return false;
    }
    d->secret = secret_uuid(secret);
    return parse_ciphers(d, e, error);
}

static struct secret *secret_of(const struct volume *v, GError **error)
{
    uint8_t uuid[16];
    return v->secret && uuid_parse(v->secret, uuid)
               ? secret_find_uuid(uuid, error)
               : secret_find_usage(SECRET_VOLUME, v->path, error);
}

void volume_encryption_format(GString *b, const struct volume *v)
{
    char text[UUID_TEXT_BYTES];
    if (!v->encrypted)
        return;
    g_string_append(b, "    <encryption format='luks'>\n");
    struct secret *s = secret_of(v, NULL);
    if (s) {
        uuid_format(s->uuid, text);
        markup_add(b, "      <secret type='passphrase' uuid='%s'/>\n", text);
    }
    secret_unref(s);
    g_string_append(b, "    </encryption>\n");
}

GBytes *volume_key(const struct volume *v, GError **error)
{
    struct secret *s = secret_of(v, error);
    if (!s) {
        g_prefix_error(error, "volume '%s' is encrypted: ", v->name);
        return NULL;
    }
    GBytes *value = s->value ? g_bytes_ref(s->value) : NULL;
    if (!value)
        ruche_error(error, MANAGER_ERR_NO_SECRET,
                    "volume '%s' is encrypted, and its secret '%s' does not have a value", v->name,
                    s->id);
    secret_unref(s);
    return value;
}

/* ---- <auth> ---- */

GBytes *pool_password(const struct pool *p, GError **error)
{
    const struct xml_node *auth = xml_find(pool_root(p), "source/auth");
    enum secret_usage usage = xml_is(auth, "@type", "ceph") ? SECRET_CEPH : SECRET_ISCSI;
    g_autoptr(GBytes) value = secret_value_of(xml_find(auth, "secret"), usage, error);
    if (!value)
        g_prefix_error(error, "storage pool '%s': ", p->name);
    return value && usage == SECRET_CEPH ? secret_base64(value) : g_steal_pointer(&value);
}

const char *pool_user(const struct pool *p)
{
    return pool_get(p, "source/auth@username");
}

bool pool_secret_open(const struct pool *p, struct secret_file *f, GError **error)
{
    if (!pool_user(p))
        return true;
    g_autoptr(GBytes) value = pool_password(p, error);
    return value && secret_file_open(f, value, error);
}

char *pool_secret_id(const struct pool *p)
{
    char text[UUID_TEXT_BYTES];
    uuid_format(p->uuid, text);
    return g_strconcat("pool-", text, NULL);
}

char *pool_secret_object(const struct pool *p, const struct secret_file *f)
{
    g_autofree char *id = f->fd >= 0 ? pool_secret_id(p) : NULL;
    return id ? secret_object(id, f) : NULL;
}

char *pool_image_name(const struct pool *p, JsonObject *file, const char *secret_key)
{
    g_autoptr(JsonNode) n = json_node_new(JSON_NODE_OBJECT);
    JsonObject *o = json_object_new();
    g_autofree char *id = pool_secret_id(p);
    json_object_set_string_member(file, "user", pool_user(p));
    json_object_set_string_member(file, secret_key, id);
    json_object_set_string_member(o, "driver", "raw");
    json_object_set_object_member(o, "file", file);
    json_node_take_object(n, o);
    g_autofree char *text = json_to_string(n, FALSE);
    return g_strconcat("json:", text, NULL);
}
