/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of LUKS share: the header in memory, its bytes on disk, and the splitting of keys.
 *
 * Spec      LUKS On-Disk Format Specification 1.2.3, sections 2 to 4.
 * Trust     luks_header_load() checks every field; what it returned is safe to use.
 */
#pragma once

#include "image/luks.h"

#define LUKS_HEADER_BYTES   592
#define LUKS_DIGEST_BYTES   20
#define LUKS_SALT_BYTES     32
#define LUKS_UUID_BYTES     40
#define LUKS_ALIGN_BYTES    4096      /* of key material in new headers */
#define LUKS_ITERATIONS_MIN 1000      /* of new keys */
#define LUKS_ITERATIONS_MAX (1 << 25) /* that are tried: some ten seconds a slot */
#define LUKS_STRIPES_MAX    65536

struct luks_slot {
    bool active;
    uint32_t iterations, stripes;
    uint64_t offset; /* of the key material, bytes */
    uint8_t salt[LUKS_SALT_BYTES];
};

struct luks_header {
    struct crypto_params params;
    enum crypto_hash hash;
    uint64_t payload_offset; /* bytes */
    uint32_t key_bytes;
    uint32_t digest_iterations;
    uint8_t digest[LUKS_DIGEST_BYTES], digest_salt[LUKS_SALT_BYTES];
    char uuid[LUKS_UUID_BYTES + 1];
    struct luks_slot slots[LUKS_SLOTS];
};

struct luks {
    struct context *ctx; /* borrowed */
    struct luks_io io;
    char *what;
    struct luks_header h;
    uint8_t key[CRYPTO_KEY_MAX]; /* the master key, once unlocked */
    bool unlocked;
    struct crypto *crypto; /* of the payload; NULL while locked */
};

/* bytes: LUKS_HEADER_BYTES. `area_bytes`: what the header's offsets have to lie in. */
bool luks_header_load(const uint8_t *bytes, uint64_t area_bytes, const char *what,
                      struct luks_header *ret, GError **error);
void luks_header_store(const struct luks_header *h, uint8_t *bytes);
/* Bytes of a slot's key material, whole sectors. */
size_t luks_material_bytes(const struct luks_header *h, uint32_t stripes);

/* Splits `key` into `stripes` times its length at `to`, so that losing any part loses it; and back.
 * 0 or -errno. */
int luks_split(enum crypto_hash hash, const uint8_t *key, size_t key_len, uint32_t stripes,
               uint8_t *to);
int luks_merge(enum crypto_hash hash, const uint8_t *from, size_t key_len, uint32_t stripes,
               uint8_t *key);

/* (f) Writes the header. */
bool luks_write_header(struct luks *l, GError **error);
/* (f) Does `secret` (its id) open the slot? 1 with the master key at `key`, 0 no, -1 with *error.
 */
int luks_try_slot(struct luks *l, unsigned slot, const char *secret, uint8_t *key, GError **error);
/* (f) Puts the master key into a slot that is inactive, under `secret`. */
bool luks_fill_slot(struct luks *l, unsigned slot, const char *secret, uint64_t iter_time_ms,
                    GError **error);
