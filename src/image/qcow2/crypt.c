/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Encrypted images: guest data passes through a buffer of its own, since the guest's memory must
 * never hold cipher text and what the guest changes while we encrypt must not reach the disk half.
 * The initial vector of a sector is that of its place in the file.
 *
 * Spec      qcow2, "Full disk encryption header pointer".
 * Thread    The node's home thread; large buffers on a thread of the pool.
 */
#include "image/qcow2/internal.h"

#include "image/luks.h"
#include "image/secret.h"

#include <errno.h>
#include <string.h>

enum { AES_KEY_BYTES = 16 };

struct crypt_work {
    struct qcow2 *s;
    uint64_t place; /* that gives the initial vector: in the file with LUKS, on the disk with AES */
    uint8_t *buf;
    size_t len;
    bool encrypt;
};

static int crypt_run(void *opaque)
{
    struct crypt_work *w = opaque;
    if (!w->s->aes && !w->s->luks)
        return -EACCES; /* opened for information only */
    if (w->s->aes)
        return crypto_decrypt(w->s->aes, w->place, w->buf, w->len);
    return w->encrypt ? luks_encrypt(w->s->luks, w->place, w->buf, w->len)
                      : luks_decrypt(w->s->luks, w->place, w->buf, w->len);
}

static int crypt_do(struct crypt_work *w)
{
    return w->len >= CRYPTO_OFFLOAD_BYTES ? context_offload(w->s->node.ctx, crypt_run, w)
                                          : crypt_run(w);
}

int qcow2_crypt_read(struct qcow2 *s, uint64_t off, uint64_t host, struct vec v)
{
    uint8_t *buf = g_try_malloc(v.len);
    if (!buf)
        return -ENOMEM;
    struct iovec iov;
    int r = qcow2_read_host(s, host, vec_flat(&iov, buf, v.len));
    if (!r)
        r = crypt_do(
            &(struct crypt_work){.s = s, .place = s->aes ? off : host, .buf = buf, .len = v.len});
    if (!r)
        vec_write(v, buf);
    g_free(buf);
    return r;
}

int qcow2_crypt_write(struct qcow2 *s, uint64_t host, struct vec v)
{
    uint8_t *buf = g_try_malloc(v.len);
    if (!buf)
        return -ENOMEM;
    vec_read(v, buf);
    int r = crypt_do(
        &(struct crypt_work){.s = s, .place = host, .buf = buf, .len = v.len, .encrypt = true});
    struct iovec iov;
    if (!r)
        r = node_write(qcow2_data(s), host, vec_flat(&iov, buf, v.len), 0);
    g_free(buf);
    return r;
}

/* ---- the LUKS header ---- */

static int header_read(void *opaque, uint64_t off, void *buf, size_t len)
{
    struct qcow2 *s = opaque;
    if (!range_fits(off, len, s->ext.crypto_bytes))
        return -EINVAL;
    return qcow2_meta_read(s, s->ext.crypto_offset + off, buf, len);
}

static int header_write(void *opaque, uint64_t off, const void *buf, size_t len)
{
    struct qcow2 *s = opaque;
    if (!range_fits(off, len, s->ext.crypto_bytes))
        return -EINVAL;
    return qcow2_meta_write(s, 0, s->ext.crypto_offset + off, buf, len);
}

static int header_flush(void *opaque)
{
    return qcow2_meta_sync(opaque);
}

static bool check_format(const struct qcow2 *s, GError **error)
{
    const char *name = node_filename(&s->node), *given = s->opt.encrypt_format;
    const char *is = s->header.crypt_method == QCOW2_CRYPT_LUKS ? "luks" : "aes";
    if (given && !s->header.crypt_method)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s' is not encrypted; encrypt.format=%s was given", name, given);
    if (given && strcmp(given, is))
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is encrypted with %s, not with '%s'",
                           name, is, given);
    return true;
}

/* The old way: the password is the key, the initial vector is the guest's sector. Only to get the
 * data out. */
static bool open_aes(struct qcow2 *s, GError **error)
{
    const char *name = node_filename(&s->node);
    const struct crypto_params how = {.cipher = CRYPTO_AES_128,
                                      .mode = CRYPTO_CBC,
                                      .ivgen = CRYPTO_PLAIN64,
                                      .sector_bytes = CRYPTO_SECTOR_BYTES};
    if (s->node.open_flags & (NODE_NO_IO | NODE_CHECK))
        return true;
    if (!s->node.read_only)
        return ruche_error(
            error, RUCHE_ERR_UNSUPPORTED,
            "'%s' uses the AES-CBC encryption of old qcow2 images, which is not safe: "
            "it is only read; convert it to one with LUKS",
            name);
    if (!s->opt.encrypt_key)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s' is encrypted: encrypt.key-secret is missing", name);
    g_autofree char *password = secret_get_text(s->opt.encrypt_key, error);
    if (!password)
        return false;
    uint8_t key[AES_KEY_BYTES] = {0};
    memcpy(key, password, min_u64(strlen(password), sizeof(key)));
    s->aes = crypto_new(&how, key, error);
    crypto_wipe(key, sizeof(key));
    crypto_wipe(password, strlen(password));
    s->node.request_align = CRYPTO_SECTOR_BYTES;
    return s->aes != NULL;
}

bool qcow2_crypt_open(struct qcow2 *s, GError **error)
{
    if (!check_format(s, error))
        return false;
    s->node.encrypted = s->header.crypt_method != QCOW2_CRYPT_NONE;
    if (s->header.crypt_method != QCOW2_CRYPT_LUKS)
        return !s->node.encrypted || open_aes(s, error);
    struct luks_io io = {.read = header_read,
                         .write = header_write,
                         .flush = header_flush,
                         .opaque = s,
                         .bytes = s->ext.crypto_bytes};
    unsigned flags = s->node.open_flags & (NODE_NO_IO | NODE_CHECK) ? LUKS_NO_KEY : 0;
    if (s->opt.encrypt_key)
        flags = 0;
    g_autofree char *what = g_strdup_printf("'%s'", node_filename(&s->node));
    s->luks = luks_open(s->node.ctx, &io, s->opt.encrypt_key, flags, what, error);
    s->node.request_align = CRYPTO_SECTOR_BYTES;
    return s->luks != NULL;
}

void qcow2_crypt_close(struct qcow2 *s)
{
    luks_free(s->luks);
    crypto_free(s->aes);
    s->luks = NULL;
    s->aes = NULL;
}

JsonObject *qcow2_crypt_describe(const struct qcow2 *s)
{
    if (s->header.crypt_method == QCOW2_CRYPT_NONE)
        return NULL;
    JsonObject *o = s->luks ? luks_describe(s->luks) : json_object_new();
    json_object_set_string_member(o, "format", s->luks ? "luks" : "aes");
    return o;
}
