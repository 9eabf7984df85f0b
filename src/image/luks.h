/* SPDX-License-Identifier: GPL-2.0-or-later */
/* LUKS version 1: a header with eight key slots before a payload of encrypted sectors. The driver
 * "luks" has it at the start of a file, qcow2 in clusters of its own.
 *
 * Spec      LUKS On-Disk Format Specification 1.2.3; QEMU's options and output.
 * Owner     luks_open() or luks_format() ... luks_free(); borrows `io` (copied) and the context.
 * Fiber     Everything marked (f): in a fiber of `ctx`; keys are derived on a thread of its pool,
 *           which takes seconds by design. luks_encrypt() and luks_decrypt(): any thread, any
 *           number at a time.
 * Units     Offsets given to luks_encrypt() and luks_decrypt() are those of the guest's disk in
 *           "luks"; in qcow2 those of the host file. Multiples of CRYPTO_SECTOR_BYTES.
 * Trust     The header is hostile: offsets, stripes and iterations are bounded before use.
 * Errors    Sentences that begin with `what` ("'disk.luks'"); 0 or -errno for sectors.
 */
#pragma once

#include "image/context.h"
#include "image/crypto.h"
#include "image/option.h"

#define LUKS_SLOTS   8
#define LUKS_STRIPES 4000

struct luks;

/* Where header and key material are: `off` counts from the header's first byte. (f) */
struct luks_io {
    int (*read)(void *opaque, uint64_t off, void *buf, size_t len); /* all of it, or -errno */
    int (*write)(void *opaque, uint64_t off, const void *buf, size_t len);
    int (*flush)(void *opaque); /* what was written is durable */
    void *opaque;
    uint64_t bytes; /* that may be read: the area's, or the file's, size */
};

/* Create options, as rows of a table whose struct has a struct luks_create_options `member`;
 * `prefix` is "" or "encrypt.". */
struct luks_create_options {
    char *key_secret;
    int cipher, mode, ivgen, ivgen_hash,
        hash; /* ivgen_hash: 0 is "none given", then enum crypto_hash + 1 */
    uint64_t iter_time_ms;
};
extern const char *const luks_ivgen_hash_words[]; /* "", then crypto_hash_words */
#define LUKS_CREATE_OPTIONS(prefix, type, member)                                                  \
    OPT_STRING(prefix "key-secret", type, member.key_secret,                                       \
               "ID of the secret that unlocks the image"),                                         \
        OPT_WORD(prefix "cipher-alg", type, member.cipher, crypto_cipher_words, CRYPTO_AES_256,    \
                 "Cipher"),                                                                        \
        OPT_WORD(prefix "cipher-mode", type, member.mode, crypto_mode_words, CRYPTO_XTS,           \
                 "Cipher mode"),                                                                   \
        OPT_WORD(prefix "ivgen-alg", type, member.ivgen, crypto_ivgen_words, CRYPTO_PLAIN64,       \
                 "How initial vectors are made"),                                                  \
        OPT_WORD(prefix "ivgen-hash-alg", type, member.ivgen_hash, luks_ivgen_hash_words, 0,       \
                 "Hash of essiv (default sha256)"),                                                \
        OPT_WORD(prefix "hash-alg", type, member.hash, crypto_hash_words, CRYPTO_SHA256,           \
                 "Hash that keys are derived with"),                                               \
        OPT_U64(prefix "iter-time", type, member.iter_time_ms, 2000, 1, 3600000,                   \
                "Milliseconds that deriving a key is to take")

/* The names that `given` of luks_amend() may have, besides "force". */
extern const struct image_option luks_amend_options[];

enum luks_open_flags {
    LUKS_NO_KEY = 1, /* information only: no secret is asked for, sectors cannot be read */
};

/* (f) Reads the header and, unless LUKS_NO_KEY, finds the slot that the secret opens. NULL with
 * *error. */
struct luks *luks_open(struct context *ctx, const struct luks_io *io, const char *key_secret,
                       unsigned flags, const char *what, GError **error);
/* (f) A new header: luks_format_bytes() at the start of `io`, all of which are written. The key is
 * in slot 0. */
struct luks *luks_format(struct context *ctx, const struct luks_io *io,
                         const struct luks_create_options *o, const char *what, GError **error);
void luks_free(struct luks *l); /* wipes the keys; NULL is fine */

/* Bytes that header and key material of a new image take: the payload's offset. 0 with *error:
 * options that do not go together. */
uint64_t luks_format_bytes(const struct luks_create_options *o, GError **error);
uint64_t luks_payload_offset(const struct luks *l);

/* In place. For CRYPTO_OFFLOAD_BYTES and more, callers use context_offload(). */
int luks_encrypt(const struct luks *l, uint64_t off, void *buf, size_t len);
int luks_decrypt(const struct luks *l, uint64_t off, void *buf, size_t len);

/* (f) Adds or erases keys: `given` has the names of luks_amend_options without a prefix ("state",
 * "new-secret", "old-secret", "keyslot", "iter-time"), and "force" may be among them as a boolean.
 * A crash leaves every slot as it was, inactive, or as it is to be. The last active slot is erased
 * only with force, and an active one overwritten likewise. `given` is only read. */
bool luks_amend(struct luks *l, JsonObject *given, bool force, GError **error);

/* What `info` shows: ivgen-alg, hash-alg, cipher-alg, uuid, cipher-mode, slots, payload-offset,
 * master-key-iters. Caller owns. */
JsonObject *luks_describe(const struct luks *l);
/* 100 when `head` begins with a LUKS header of version 1, else 0. */
int luks_probe(const uint8_t *head, size_t len);
