/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ciphers of encrypted disks: sectors under AES in CBC or XTS, each with an initial vector made
 * from its number.
 *
 * Spec      LUKS1 On-Disk Format 1.2.3; dm-crypt's plain, plain64 and essiv; IEEE 1619 (XTS).
 * Owner     crypto_new() ... crypto_free(). Keys live in GnuTLS and are wiped with it.
 * Thread    Any number of threads may encrypt and decrypt with one struct crypto at a time.
 * Units     Bytes; offsets and lengths are multiples of the sector (512 bytes in LUKS1 and qcow2).
 * Errors    -EIO: the cipher refused; -ENOMEM.
 */
#pragma once

#include "base/error.h"
#include "base/util.h"

enum crypto_cipher { CRYPTO_AES_128, CRYPTO_AES_192, CRYPTO_AES_256 };
enum crypto_mode { CRYPTO_CBC, CRYPTO_XTS };
enum crypto_ivgen { CRYPTO_PLAIN, CRYPTO_PLAIN64, CRYPTO_ESSIV };
enum crypto_hash { CRYPTO_SHA1, CRYPTO_SHA224, CRYPTO_SHA256, CRYPTO_SHA384, CRYPTO_SHA512 };
/* QEMU's words, by enum, NULL-terminated. */
extern const char *const crypto_cipher_words[]; /* "aes-128", ... */
extern const char *const crypto_mode_words[];   /* "cbc", "xts" */
extern const char *const crypto_ivgen_words[];  /* "plain", "plain64", "essiv" */
extern const char *const crypto_hash_words[];   /* "sha1", ... */

#define CRYPTO_SECTOR_BYTES 512
#define CRYPTO_KEY_MAX      64
#define CRYPTO_DIGEST_MAX   64
/* Buffers from this size on are worth context_offload(). */
#define CRYPTO_OFFLOAD_BYTES (32 * KIB)

struct crypto_params {
    enum crypto_cipher cipher;
    enum crypto_mode mode;
    enum crypto_ivgen ivgen;
    enum crypto_hash ivgen_hash; /* for essiv */
    uint32_t sector_bytes;       /* of one initial vector; a multiple of 16 */
};

/* Bytes of key that cipher and mode take together (XTS: two keys). */
size_t crypto_key_bytes(const struct crypto_params *p);
/* `key`: crypto_key_bytes(p) bytes, copied. */
struct crypto *crypto_new(const struct crypto_params *p, const void *key, GError **error);
void crypto_free(struct crypto *c); /* nobody uses it; NULL is fine */

/* In place; `off` is the first byte's place on the encrypted disk, from which the sector number is
 * taken. */
int crypto_encrypt(struct crypto *c, uint64_t off, void *buf, size_t len);
int crypto_decrypt(struct crypto *c, uint64_t off, void *buf, size_t len);

size_t crypto_digest_bytes(enum crypto_hash h);
int crypto_digest(enum crypto_hash h, const void *data, size_t len, void *ret);
int crypto_pbkdf2(enum crypto_hash h, const void *password, size_t password_len, const void *salt,
                  size_t salt_len, uint64_t iterations, void *ret, size_t ret_len);
/* Iterations of PBKDF2 that take this thread `ms` of processor time; measures for about 50 ms. */
uint64_t crypto_pbkdf2_iterations(enum crypto_hash h, size_t key_len, uint64_t ms);
int crypto_random(void *ret, size_t len);
void crypto_wipe(void *p, size_t len);
