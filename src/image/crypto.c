/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sector ciphers, digests and key derivation.
 *
 * Spec      LUKS On-Disk Format 1.2.3; dm-crypt's IV generators; IEEE 1619; RFC 8018 (PBKDF2).
 * Thread    Any. A GnuTLS handle carries the vector of its last call, so that each caller takes one
 * from a bank; there are as many as were ever used at a time. Nettle's contexts are only read.
 * Libraries GnuTLS has AES-NI code for XTS and CBC of many blocks, Nettle takes XTS block by block:
 * the latter serves only what the former lacks (XTS under AES-192) and the single blocks of ESSIV.
 */
#include "image/crypto.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <nettle/aes.h>
#include <nettle/xts.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#define BLOCK_BYTES 16

const char *const crypto_cipher_words[] = {"aes-128", "aes-192", "aes-256", NULL};
const char *const crypto_mode_words[] = {"cbc", "xts", NULL};
const char *const crypto_ivgen_words[] = {"plain", "plain64", "essiv", NULL};
const char *const crypto_hash_words[] = {"sha1", "sha224", "sha256", "sha384", "sha512", NULL};

static const size_t key_bytes[] = {16, 24, 32};
static const gnutls_cipher_algorithm_t algorithms[3][2] = {
    [CRYPTO_AES_128] = {GNUTLS_CIPHER_AES_128_CBC, GNUTLS_CIPHER_AES_128_XTS},
    [CRYPTO_AES_192] = {GNUTLS_CIPHER_AES_192_CBC, GNUTLS_CIPHER_UNKNOWN},
    [CRYPTO_AES_256] = {GNUTLS_CIPHER_AES_256_CBC, GNUTLS_CIPHER_AES_256_XTS},
};
static const struct {
    gnutls_digest_algorithm_t digest;
    gnutls_mac_algorithm_t mac;
    size_t len;
} hashes[] = {
    [CRYPTO_SHA1] = {GNUTLS_DIG_SHA1, GNUTLS_MAC_SHA1, 20},
    [CRYPTO_SHA224] = {GNUTLS_DIG_SHA224, GNUTLS_MAC_SHA224, 28},
    [CRYPTO_SHA256] = {GNUTLS_DIG_SHA256, GNUTLS_MAC_SHA256, 32},
    [CRYPTO_SHA384] = {GNUTLS_DIG_SHA384, GNUTLS_MAC_SHA384, 48},
    [CRYPTO_SHA512] = {GNUTLS_DIG_SHA512, GNUTLS_MAC_SHA512, 64},
};

/* A GnuTLS handle of the bank. */
struct handle {
    gnutls_cipher_hd_t hd;
    struct handle *next;
};

struct crypto {
    struct crypto_params p;
    gnutls_cipher_algorithm_t algorithm;
    uint8_t key[CRYPTO_KEY_MAX];
    struct aes256_ctx essiv;
    struct {
        struct aes192_ctx encrypt, decrypt, tweak;
    } xts192;
    pthread_mutex_t lock;
    struct handle *idle;
};

void crypto_wipe(void *p, size_t len)
{
    explicit_bzero(p, len);
}

size_t crypto_key_bytes(const struct crypto_params *p)
{
    return key_bytes[p->cipher] * (p->mode == CRYPTO_XTS ? 2 : 1);
}

static struct handle *handle_new(struct crypto *c)
{
    static uint8_t zero_iv[BLOCK_BYTES];
    gnutls_datum_t key = {c->key, (unsigned)crypto_key_bytes(&c->p)}, iv = {zero_iv, BLOCK_BYTES};
    struct handle *h = g_try_new0(struct handle, 1);
    if (h && gnutls_cipher_init(&h->hd, c->algorithm, &key, &iv)) {
        g_free(h);
        h = NULL;
    }
    return h;
}

static struct handle *handle_take(struct crypto *c)
{
    pthread_mutex_lock(&c->lock);
    struct handle *h = c->idle;
    if (h)
        c->idle = h->next;
    pthread_mutex_unlock(&c->lock);
    return h ? h : handle_new(c);
}

static void handle_put(struct crypto *c, struct handle *h)
{
    pthread_mutex_lock(&c->lock);
    h->next = c->idle;
    c->idle = h;
    pthread_mutex_unlock(&c->lock);
}

static bool init_essiv(struct crypto *c, GError **error)
{
    uint8_t digest[CRYPTO_DIGEST_MAX];
    if (hashes[c->p.ivgen_hash].len != AES256_KEY_SIZE)
        return ruche_error(
            error, RUCHE_ERR_UNSUPPORTED,
            "essiv with AES needs a hash of %d bytes, and '%s' has %zu; use 'sha256'",
            AES256_KEY_SIZE, crypto_hash_words[c->p.ivgen_hash], hashes[c->p.ivgen_hash].len);
    if (crypto_digest(c->p.ivgen_hash, c->key, crypto_key_bytes(&c->p), digest))
        return ruche_error(error, RUCHE_ERR_INTERNAL, "hash '%s' failed",
                           crypto_hash_words[c->p.ivgen_hash]);
    aes256_set_encrypt_key(&c->essiv, digest);
    crypto_wipe(digest, sizeof(digest));
    return true;
}

static void init_xts192(struct crypto *c)
{
    aes192_set_encrypt_key(&c->xts192.encrypt, c->key);
    aes192_set_decrypt_key(&c->xts192.decrypt, c->key);
    aes192_set_encrypt_key(&c->xts192.tweak, c->key + AES192_KEY_SIZE);
}

struct crypto *crypto_new(const struct crypto_params *p, const void *key, GError **error)
{
    struct crypto *c = g_new0(struct crypto, 1);
    c->p = *p;
    c->algorithm = algorithms[p->cipher][p->mode];
    pthread_mutex_init(&c->lock, NULL);
    memcpy(c->key, key, crypto_key_bytes(p));
    if (p->ivgen == CRYPTO_ESSIV && !init_essiv(c, error)) {
        crypto_free(c);
        return NULL;
    }
    if (c->algorithm == GNUTLS_CIPHER_UNKNOWN) {
        init_xts192(c);
        return c;
    }
    struct handle *h = handle_new(c);
    if (!h) {
        ruche_error(error, RUCHE_ERR_UNSUPPORTED, "GnuTLS refuses cipher '%s' in mode '%s'",
                    crypto_cipher_words[p->cipher], crypto_mode_words[p->mode]);
        crypto_free(c);
        return NULL;
    }
    handle_put(c, h);
    return c;
}

void crypto_free(struct crypto *c)
{
    if (!c)
        return;
    for (struct handle *h = c->idle, *next; h; h = next) {
        next = h->next;
        gnutls_cipher_deinit(h->hd);
        g_free(h);
    }
    pthread_mutex_destroy(&c->lock);
    crypto_wipe(c, sizeof(*c));
    g_free(c);
}

static void make_iv(const struct crypto *c, uint64_t sector, uint8_t iv[BLOCK_BYTES])
{
    uint64_t le = GUINT64_TO_LE(c->p.ivgen == CRYPTO_PLAIN ? (uint32_t)sector : sector);
    memset(iv, 0, BLOCK_BYTES);
    memcpy(iv, &le, sizeof(le));
    if (c->p.ivgen == CRYPTO_ESSIV)
        aes256_encrypt(&c->essiv, BLOCK_BYTES, iv, iv);
}

/* XTS under AES-192, which GnuTLS lacks. */
static void run_xts192(const struct crypto *c, uint64_t sector, uint8_t *p, size_t len,
                       bool encrypt)
{
    const void *ctx = encrypt ? &c->xts192.encrypt : &c->xts192.decrypt;
    uint8_t iv[BLOCK_BYTES];
    for (; len; p += c->p.sector_bytes, len -= c->p.sector_bytes) {
        make_iv(c, sector++, iv);
        if (encrypt)
            xts_encrypt_message(ctx, &c->xts192.tweak, (nettle_cipher_func *)aes192_encrypt, iv,
                                c->p.sector_bytes, p, p);
        else
            xts_decrypt_message(ctx, &c->xts192.tweak, (nettle_cipher_func *)aes192_decrypt,
                                (nettle_cipher_func *)aes192_encrypt, iv, c->p.sector_bytes, p, p);
    }
}

static int run(struct crypto *c, uint64_t off, uint8_t *p, size_t len, bool encrypt)
{
    uint64_t sector = off / c->p.sector_bytes;
    uint8_t iv[BLOCK_BYTES];
    g_assert(off % c->p.sector_bytes == 0 && len % c->p.sector_bytes == 0);
    if (c->algorithm == GNUTLS_CIPHER_UNKNOWN) {
        run_xts192(c, sector, p, len, encrypt);
        return 0;
    }
    struct handle *h = handle_take(c);
    if (!h)
        return -ENOMEM;
    int r = 0;
    for (; len && !r; p += c->p.sector_bytes, len -= c->p.sector_bytes) {
        make_iv(c, sector++, iv);
        gnutls_cipher_set_iv(h->hd, iv, sizeof(iv));
        r = encrypt ? gnutls_cipher_encrypt(h->hd, p, c->p.sector_bytes)
                    : gnutls_cipher_decrypt(h->hd, p, c->p.sector_bytes);
    }
    handle_put(c, h);
    return r ? -EIO : 0;
}

int crypto_encrypt(struct crypto *c, uint64_t off, void *buf, size_t len)
{
    return run(c, off, buf, len, true);
}

int crypto_decrypt(struct crypto *c, uint64_t off, void *buf, size_t len)
{
    return run(c, off, buf, len, false);
}

size_t crypto_digest_bytes(enum crypto_hash h)
{
    return hashes[h].len;
}

int crypto_digest(enum crypto_hash h, const void *data, size_t len, void *ret)
{
    return gnutls_hash_fast(hashes[h].digest, data, len, ret) ? -EIO : 0;
}

int crypto_pbkdf2(enum crypto_hash h, const void *password, size_t password_len, const void *salt,
                  size_t salt_len, uint64_t iterations, void *ret, size_t ret_len)
{
    gnutls_datum_t p = {(unsigned char *)password, (unsigned)password_len};
    gnutls_datum_t s = {(unsigned char *)salt, (unsigned)salt_len};
    if (!iterations || iterations > UINT32_MAX)
        return -EINVAL;
    return gnutls_pbkdf2(hashes[h].mac, &p, &s, (unsigned)iterations, ret, ret_len) ? -EIO : 0;
}

static int64_t thread_cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * NS_PER_SEC + t.tv_nsec;
}

uint64_t crypto_pbkdf2_iterations(enum crypto_hash h, size_t key_len, uint64_t ms)
{
    uint8_t key[CRYPTO_KEY_MAX] = {0}, salt[32] = {0};
    int64_t took_ns = 0;
    uint64_t n = 1 << 14;
    for (; n < 1ULL << 30; n *= 2) {
        int64_t start = thread_cpu_ns();
        if (crypto_pbkdf2(h, "password", 8, salt, sizeof(salt), n, key, key_len))
            return 0;
        took_ns = thread_cpu_ns() - start;
        if (took_ns >= 20 * NS_PER_MS)
            break;
    }
    return (uint64_t)((double)n * (double)ms * NS_PER_MS / (double)took_ns);
}

int crypto_random(void *ret, size_t len)
{
    return gnutls_rnd(GNUTLS_RND_KEY, ret, len) ? -EIO : 0;
}
