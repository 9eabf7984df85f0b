/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The LUKS1 header's bytes, and its anti-forensic splitter.
 *
 * Spec      LUKS On-Disk Format Specification 1.2.3: 2.4 (AF splitting), 3.1 (phdr).
 * Trust     A header is hostile: names are looked up, offsets checked for overlap and range, counts
 * bounded.
 */
#include "image/luks_header.h"

#include "base/cursor.h"

#include <errno.h>
#include <inttypes.h>

#define SLOT_ACTIVE   0x00ac71f3u
#define SLOT_INACTIVE 0x0000deadu
#define NAME_BYTES    32

static const uint8_t magic[6] = {'L', 'U', 'K', 'S', 0xba, 0xbe};

int luks_probe(const uint8_t *head, size_t len)
{
    return len >= 8 && !memcmp(head, magic, sizeof(magic)) && head[6] == 0 && head[7] == 1 ? 100
                                                                                           : 0;
}

size_t luks_material_bytes(const struct luks_header *h, uint32_t stripes)
{
    return align_up((uint64_t)h->key_bytes * stripes, CRYPTO_SECTOR_BYTES);
}

static int find_word(const char *const *words, const char *word)
{
    for (int i = 0; words[i]; i++)
        if (!strcmp(words[i], word))
            return i;
    return -1;
}

static bool unsupported(GError **error, const char *what, const char *field, const char *value)
{
    g_autofree char *shown = g_strescape(value, NULL);
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "%s: LUKS %s '%s' is not supported", what,
                       field, shown);
}

static bool load_cipher(struct luks_header *h, const char *name, const char *what, GError **error)
{
    static const size_t plain_bytes[] = {16, 24, 32};
    size_t each = h->params.mode == CRYPTO_XTS ? h->key_bytes / 2 : h->key_bytes;
    if (strcmp(name, "aes"))
        return unsupported(error, what, "cipher", name);
    for (unsigned i = 0; i < ARRAY_COUNT(plain_bytes); i++) {
        h->params.cipher = (enum crypto_cipher)i;
        if (each == plain_bytes[i] && crypto_key_bytes(&h->params) == h->key_bytes)
            return true;
    }
    return ruche_error(error, RUCHE_ERR_INVALID,
                       "%s: LUKS key of %u bytes does not fit cipher 'aes' in %s", what,
                       h->key_bytes, crypto_mode_words[h->params.mode]);
}

/* "xts-plain64", "cbc-essiv:sha256" */
static bool load_mode(struct luks_header *h, const char *text, const char *what, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(text, "-", 2);
    char *ivgen = parts[0] && parts[1] ? parts[1] : (char *)"";
    char *colon = strchr(ivgen, ':');
    if (colon)
        *colon = 0;
    int mode = parts[0] ? find_word(crypto_mode_words, parts[0]) : -1;
    int iv = find_word(crypto_ivgen_words, ivgen);
    int hash = colon ? find_word(crypto_hash_words, colon + 1) : -1;
    if (mode < 0 || iv < 0 || (hash < 0) != (iv != CRYPTO_ESSIV))
        return unsupported(error, what, "cipher mode", text);
    h->params.mode = (enum crypto_mode)mode;
    h->params.ivgen = (enum crypto_ivgen)iv;
    h->params.ivgen_hash = hash < 0 ? CRYPTO_SHA256 : (enum crypto_hash)hash;
    h->params.sector_bytes = CRYPTO_SECTOR_BYTES;
    return true;
}

static void load_slot(struct cur *c, struct luks_slot *s, bool *bad)
{
    uint32_t state = cur_be32(c);
    s->active = state == SLOT_ACTIVE;
    *bad = state != SLOT_ACTIVE && state != SLOT_INACTIVE;
    s->iterations = cur_be32(c);
    cur_copy(c, s->salt, sizeof(s->salt));
    s->offset = (uint64_t)cur_be32(c) * CRYPTO_SECTOR_BYTES;
    s->stripes = cur_be32(c);
}

static bool check_slot(const struct luks_header *h, unsigned i, uint64_t area_bytes,
                       const char *what, GError **error)
{
    const struct luks_slot *s = &h->slots[i];
    if (!s->stripes || s->stripes > LUKS_STRIPES_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: LUKS key slot %u has %u stripes; the limit is %d", what, i,
                           s->stripes, LUKS_STRIPES_MAX);
    if (s->active && (!s->iterations || s->iterations > LUKS_ITERATIONS_MAX))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: LUKS key slot %u asks for %u iterations; the limit is %d", what, i,
                           s->iterations, LUKS_ITERATIONS_MAX);
    size_t len = luks_material_bytes(h, s->stripes);
    uint64_t limit = min_u64(h->payload_offset ? h->payload_offset : area_bytes, area_bytes);
    /* An inactive slot's material need not exist yet. */
    if (s->offset < LUKS_HEADER_BYTES || (s->active && !range_fits(s->offset, len, limit)))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: key material of LUKS slot %u, %zu bytes at %" PRIu64
                           ", is not between header and payload (%" PRIu64 ")",
                           what, i, len, s->offset, limit);
    for (unsigned k = 0; k < i; k++) {
        const struct luks_slot *o = &h->slots[k];
        if (s->offset < o->offset + luks_material_bytes(h, o->stripes) &&
            o->offset < s->offset + len)
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "%s: key material of LUKS slots %u and %u overlaps at %" PRIu64,
                               what, k, i, s->offset);
    }
    return true;
}

static bool check_header(const struct luks_header *h, uint64_t area_bytes, const char *what,
                         GError **error)
{
    if (!h->digest_iterations || h->digest_iterations > LUKS_ITERATIONS_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the LUKS key digest asks for %u iterations; the limit is %d", what,
                           h->digest_iterations, LUKS_ITERATIONS_MAX);
    for (unsigned i = 0; i < LUKS_SLOTS; i++)
        if (!check_slot(h, i, area_bytes, what, error))
            return false;
    return true;
}

bool luks_header_load(const uint8_t *bytes, uint64_t area_bytes, const char *what,
                      struct luks_header *ret, GError **error)
{
    struct luks_header h = {0};
    char cipher[NAME_BYTES + 1] = "", mode[NAME_BYTES + 1] = "", hash[NAME_BYTES + 1] = "";
    struct cur c = cur_of(bytes, LUKS_HEADER_BYTES);
    if (memcmp(cur_take(&c, sizeof(magic)), magic, sizeof(magic)))
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: there is no LUKS header", what);
    uint16_t version = cur_be16(&c);
    if (version != 1)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "%s: LUKS version %u is not supported; only 1 is", what, version);
    cur_copy(&c, cipher, NAME_BYTES);
    cur_copy(&c, mode, NAME_BYTES);
    cur_copy(&c, hash, NAME_BYTES);
    h.payload_offset = (uint64_t)cur_be32(&c) * CRYPTO_SECTOR_BYTES;
    h.key_bytes = cur_be32(&c);
    cur_copy(&c, h.digest, sizeof(h.digest));
    cur_copy(&c, h.digest_salt, sizeof(h.digest_salt));
    h.digest_iterations = cur_be32(&c);
    cur_copy(&c, h.uuid, LUKS_UUID_BYTES);
    bool bad = false;
    for (unsigned i = 0; i < LUKS_SLOTS && !bad; i++)
        load_slot(&c, &h.slots[i], &bad);
    if (bad || c.bad)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: a LUKS key slot is neither active nor inactive", what);
    int known_hash = find_word(crypto_hash_words, hash);
    if (known_hash < 0)
        return unsupported(error, what, "hash", hash);
    h.hash = (enum crypto_hash)known_hash;
    if (!load_mode(&h, mode, what, error) || !load_cipher(&h, cipher, what, error) ||
        !check_header(&h, area_bytes, what, error))
        return false;
    *ret = h;
    return true;
}

static uint8_t *put(uint8_t *p, const void *from, size_t len)
{
    memcpy(p, from, len);
    return p + len;
}

static uint8_t *put_be32(uint8_t *p, uint32_t v)
{
    v = GUINT32_TO_BE(v);
    return put(p, &v, sizeof(v));
}

static uint8_t *put_name(uint8_t *p, const char *name)
{
    memset(p, 0, NAME_BYTES);
    memcpy(p, name, MIN(strlen(name), NAME_BYTES - 1));
    return p + NAME_BYTES;
}

void luks_header_store(const struct luks_header *h, uint8_t *bytes)
{
    g_autofree char *mode = g_strconcat(
        crypto_mode_words[h->params.mode], "-", crypto_ivgen_words[h->params.ivgen],
        h->params.ivgen == CRYPTO_ESSIV ? ":" : "",
        h->params.ivgen == CRYPTO_ESSIV ? crypto_hash_words[h->params.ivgen_hash] : "", NULL);
    uint8_t *p = put(bytes, magic, sizeof(magic));
    *p++ = 0;
    *p++ = 1;
    p = put_name(p, "aes");
    p = put_name(p, mode);
    p = put_name(p, crypto_hash_words[h->hash]);
    p = put_be32(p, (uint32_t)(h->payload_offset / CRYPTO_SECTOR_BYTES));
    p = put_be32(p, h->key_bytes);
    p = put(p, h->digest, sizeof(h->digest));
    p = put(p, h->digest_salt, sizeof(h->digest_salt));
    p = put_be32(p, h->digest_iterations);
    p = put(p, h->uuid, LUKS_UUID_BYTES);
    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        const struct luks_slot *s = &h->slots[i];
        p = put_be32(p, s->active ? SLOT_ACTIVE : SLOT_INACTIVE);
        p = put_be32(p, s->iterations);
        p = put(p, s->salt, sizeof(s->salt));
        p = put_be32(p, (uint32_t)(s->offset / CRYPTO_SECTOR_BYTES));
        p = put_be32(p, s->stripes);
    }
    g_assert(p == bytes + LUKS_HEADER_BYTES);
}

/* Spreads every bit of `p` over its digest-sized part. */
static int diffuse(enum crypto_hash hash, uint8_t *p, size_t len)
{
    size_t step = crypto_digest_bytes(hash);
    uint8_t in[4 + CRYPTO_DIGEST_MAX], out[CRYPTO_DIGEST_MAX];
    int r = 0;
    for (uint32_t i = 0; len && !r; i++) {
        size_t n = MIN(step, len);
        memcpy(put_be32(in, i), p, n);
        r = crypto_digest(hash, in, 4 + n, out);
        memcpy(p, out, n);
        p += n;
        len -= n;
    }
    return r;
}

static void xor_into(uint8_t *to, const uint8_t *from, size_t len)
{
    for (size_t i = 0; i < len; i++)
        to[i] ^= from[i];
}

int luks_split(enum crypto_hash hash, const uint8_t *key, size_t key_len, uint32_t stripes,
               uint8_t *to)
{
    uint8_t acc[CRYPTO_KEY_MAX] = {0};
    size_t head = key_len * (stripes - 1);
    int r = head ? crypto_random(to, head) : 0;
    for (size_t at = 0; at < head && !r; at += key_len) {
        xor_into(acc, to + at, key_len);
        r = diffuse(hash, acc, key_len);
    }
    xor_into(acc, key, key_len);
    memcpy(to + head, acc, key_len);
    crypto_wipe(acc, sizeof(acc));
    return r;
}

int luks_merge(enum crypto_hash hash, const uint8_t *from, size_t key_len, uint32_t stripes,
               uint8_t *key)
{
    uint8_t acc[CRYPTO_KEY_MAX] = {0};
    size_t head = key_len * (stripes - 1);
    int r = 0;
    for (size_t at = 0; at < head && !r; at += key_len) {
        xor_into(acc, from + at, key_len);
        r = diffuse(hash, acc, key_len);
    }
    xor_into(acc, from + head, key_len);
    memcpy(key, acc, key_len);
    crypto_wipe(acc, sizeof(acc));
    return r;
}
