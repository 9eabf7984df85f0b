/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Opening, making and using LUKS1 headers.
 *
 * Spec      LUKS On-Disk Format Specification 1.2.3, section 4; QEMU's choice of iteration counts.
 * Fiber     I/O in the caller's fiber; derivations and splitting on a thread of the pool.
 * Trust     The header is checked by luks_header_load(); whatever key comes out counts only when
 * its digest matches.
 */
#include "image/luks_header.h"

#include "image/secret.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

const char *const luks_ivgen_hash_words[] = {"",       "sha1",   "sha224", "sha256",
                                             "sha384", "sha512", NULL};

/* What a thread of the pool works on: one slot, one password. */
struct derive {
    const struct luks_header *h;
    const struct luks_slot *slot;
    const char *password;
    uint8_t *material; /* luks_material_bytes() */
    uint8_t key[CRYPTO_KEY_MAX];
    uint8_t digest[LUKS_DIGEST_BYTES];
    uint64_t iter_time_ms;
    uint32_t iterations;
    bool match;
};

/* The cipher of a slot's material, under a key that comes from its password. */
static struct crypto *slot_cipher(const struct derive *d)
{
    uint8_t key[CRYPTO_KEY_MAX];
    struct crypto *c = NULL;
    if (!crypto_pbkdf2(d->h->hash, d->password, strlen(d->password), d->slot->salt, LUKS_SALT_BYTES,
                       d->slot->iterations, key, d->h->key_bytes))
        c = crypto_new(&d->h->params, key, NULL);
    crypto_wipe(key, sizeof(key));
    return c;
}

/* Pool: what a master key is known by. */
static int digest_work(void *opaque)
{
    struct derive *d = opaque;
    return crypto_pbkdf2(d->h->hash, d->key, d->h->key_bytes, d->h->digest_salt, LUKS_SALT_BYTES,
                         d->h->digest_iterations, d->digest, LUKS_DIGEST_BYTES);
}

/* Pool: material to key, and whether it is the master key. */
static int unlock_work(void *opaque)
{
    struct derive *d = opaque;
    struct crypto *c = slot_cipher(d);
    if (!c)
        return -EIO;
    int r = crypto_decrypt(c, 0, d->material, luks_material_bytes(d->h, d->slot->stripes));
    crypto_free(c);
    if (!r)
        r = luks_merge(d->h->hash, d->material, d->h->key_bytes, d->slot->stripes, d->key);
    if (!r)
        r = digest_work(d);
    d->match = !r && !memcmp(d->digest, d->h->digest, sizeof(d->digest));
    return r;
}

/* Pool: key to material. */
static int lock_work(void *opaque)
{
    struct derive *d = opaque;
    struct crypto *c = slot_cipher(d);
    if (!c)
        return -EIO;
    int r = luks_split(d->h->hash, d->key, d->h->key_bytes, d->slot->stripes, d->material);
    if (!r)
        r = crypto_encrypt(c, 0, d->material, luks_material_bytes(d->h, d->slot->stripes));
    crypto_free(c);
    return r;
}

/* Pool: how many iterations take iter_time_ms. */
static int count_work(void *opaque)
{
    struct derive *d = opaque;
    uint64_t n = crypto_pbkdf2_iterations(d->h->hash, d->h->key_bytes, d->iter_time_ms);
    d->iterations = (uint32_t)CLAMP(n, LUKS_ITERATIONS_MIN, LUKS_ITERATIONS_MAX);
    return n ? 0 : -EIO;
}

static bool io_error(struct luks *l, GError **error, int r, const char *doing)
{
    return ruche_error_errno(error, -r, "%s: cannot %s LUKS keys", l->what, doing);
}

int luks_try_slot(struct luks *l, unsigned slot, const char *secret, uint8_t *key, GError **error)
{
    struct derive d = {.h = &l->h, .slot = &l->h.slots[slot]};
    char *password = secret_get_text(secret, error);
    if (!password)
        return -1;
    size_t len = luks_material_bytes(&l->h, d.slot->stripes);
    d.password = password;
    d.material = g_try_malloc(len);
    int r = d.material ? l->io.read(l->io.opaque, d.slot->offset, d.material, len) : -ENOMEM;
    if (!r)
        r = context_offload(l->ctx, unlock_work, &d);
    if (r)
        io_error(l, error, r, "read");
    else if (d.match)
        memcpy(key, d.key, l->h.key_bytes);
    secret_free(d.material, d.material ? len : 0);
    secret_free(password, strlen(password));
    crypto_wipe(d.key, sizeof(d.key));
    return r ? -1 : d.match;
}

bool luks_write_header(struct luks *l, GError **error)
{
    uint8_t bytes[LUKS_HEADER_BYTES];
    luks_header_store(&l->h, bytes);
    int r = l->io.write(l->io.opaque, 0, bytes, sizeof(bytes));
    if (!r && l->io.flush)
        r = l->io.flush(l->io.opaque);
    return !r || io_error(l, error, r, "write");
}

static int write_material(struct luks *l, struct derive *d)
{
    size_t len = luks_material_bytes(&l->h, d->slot->stripes);
    d->material = g_try_malloc0(len);
    int r = d->material ? context_offload(l->ctx, lock_work, d) : -ENOMEM;
    if (!r)
        r = l->io.write(l->io.opaque, d->slot->offset, d->material, len);
    if (!r && l->io.flush)
        r = l->io.flush(l->io.opaque);
    secret_free(d->material, d->material ? len : 0);
    return r;
}

bool luks_fill_slot(struct luks *l, unsigned slot, const char *secret, uint64_t iter_time_ms,
                    GError **error)
{
    struct luks_slot *s = &l->h.slots[slot], was = *s;
    struct derive d = {.h = &l->h, .slot = s, .iter_time_ms = iter_time_ms};
    char *password = secret_get_text(secret, error);
    if (!password)
        return false;
    d.password = password;
    memcpy(d.key, l->key, sizeof(d.key));
    int r = crypto_random(s->salt, sizeof(s->salt));
    if (!r)
        r = context_offload(l->ctx, count_work, &d);
    s->iterations = d.iterations;
    if (!r)
        r = write_material(l, &d);
    crypto_wipe(d.key, sizeof(d.key));
    secret_free(password, strlen(password));
    s->active = true;
    bool ok = r ? io_error(l, error, r, "write") : luks_write_header(l, error);
    if (!ok)
        *s = was;
    return ok;
}

static bool use_key(struct luks *l, GError **error)
{
    l->unlocked = true;
    l->crypto = crypto_new(&l->h.params, l->key, error);
    return l->crypto;
}

static bool unlock(struct luks *l, const char *secret, GError **error)
{
    if (!secret)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: it is encrypted and needs 'key-secret'",
                           l->what);
    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        int r = l->h.slots[i].active ? luks_try_slot(l, i, secret, l->key, error) : 0;
        if (r)
            return r > 0 && use_key(l, error);
    }
    return ruche_error(error, RUCHE_ERR_INVALID,
                       "%s: secret '%s' opens no key slot: invalid password", l->what, secret);
}

static struct luks *luks_new(struct context *ctx, const struct luks_io *io, const char *what)
{
    struct luks *l = g_new0(struct luks, 1);
    l->ctx = ctx;
    l->io = *io;
    l->what = g_strdup(what);
    return l;
}

void luks_free(struct luks *l)
{
    if (!l)
        return;
    crypto_free(l->crypto);
    g_free(l->what);
    crypto_wipe(l, sizeof(*l));
    g_free(l);
}

struct luks *luks_open(struct context *ctx, const struct luks_io *io, const char *key_secret,
                       unsigned flags, const char *what, GError **error)
{
    uint8_t bytes[LUKS_HEADER_BYTES];
    struct luks *l = luks_new(ctx, io, what);
    bool ok;
    if (io->bytes < sizeof(bytes)) {
        ok = ruche_error(error, RUCHE_ERR_INVALID,
                         "%s: %" PRIu64 " bytes are too few for a LUKS header", what, io->bytes);
    } else {
        int r = io->read(io->opaque, 0, bytes, sizeof(bytes));
        ok = r ? io_error(l, error, r, "read")
               : luks_header_load(bytes, io->bytes, what, &l->h, error);
    }
    if (ok && (!(flags & LUKS_NO_KEY) || key_secret))
        ok = unlock(l, key_secret, error);
    if (ok)
        return l;
    luks_free(l);
    return NULL;
}

/* The header's geometry: slots one after another, each aligned. */
static bool plan(const struct luks_create_options *o, struct luks_header *h, GError **error)
{
    *h = (struct luks_header){
        .params = {(enum crypto_cipher)o->cipher, (enum crypto_mode)o->mode,
                   (enum crypto_ivgen)o->ivgen,
                   o->ivgen_hash ? (enum crypto_hash)(o->ivgen_hash - 1) : CRYPTO_SHA256,
                   CRYPTO_SECTOR_BYTES},
        .hash = (enum crypto_hash)o->hash,
    };
    if (o->ivgen_hash && o->ivgen != CRYPTO_ESSIV)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'ivgen-hash-alg' goes only with 'ivgen-alg=essiv'");
    if (o->ivgen == CRYPTO_ESSIV && crypto_digest_bytes(h->params.ivgen_hash) != 32)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'ivgen-hash-alg=%s' does not go with AES; use 'sha256'",
                           crypto_hash_words[h->params.ivgen_hash]);
    h->key_bytes = (uint32_t)crypto_key_bytes(&h->params);
    uint64_t each = align_up(luks_material_bytes(h, LUKS_STRIPES), LUKS_ALIGN_BYTES);
    for (unsigned i = 0; i < LUKS_SLOTS; i++)
        h->slots[i] =
            (struct luks_slot){.stripes = LUKS_STRIPES, .offset = LUKS_ALIGN_BYTES + i * each};
    h->payload_offset = LUKS_ALIGN_BYTES + LUKS_SLOTS * each;
    return true;
}

uint64_t luks_format_bytes(const struct luks_create_options *o, GError **error)
{
    struct luks_header h;
    return plan(o, &h, error) ? h.payload_offset : 0;
}

/* The master key, and the digest by which it is known again. */
static int make_key(struct luks *l, uint64_t iter_time_ms)
{
    /* An eighth of the time, as the digest is no secret's only guard. */
    struct derive d = {.h = &l->h, .iter_time_ms = MAX(iter_time_ms / 8, 1)};
    int r = context_offload(l->ctx, count_work, &d);
    if (!r)
        r = crypto_random(l->key, l->h.key_bytes);
    if (!r)
        r = crypto_random(l->h.digest_salt, sizeof(l->h.digest_salt));
    l->h.digest_iterations = d.iterations;
    memcpy(d.key, l->key, sizeof(d.key));
    if (!r)
        r = context_offload(l->ctx, digest_work, &d);
    memcpy(l->h.digest, d.digest, sizeof(d.digest));
    crypto_wipe(d.key, sizeof(d.key));
    return r;
}

static int clear_area(struct luks *l)
{
    static const uint8_t zeroes[64 * KIB];
    int r = 0;
    for (uint64_t off = 0, n; off < l->h.payload_offset && !r; off += n) {
        n = min_u64(sizeof(zeroes), l->h.payload_offset - off);
        r = l->io.write(l->io.opaque, off, zeroes, n);
    }
    return r;
}

struct luks *luks_format(struct context *ctx, const struct luks_io *io,
                         const struct luks_create_options *o, const char *what, GError **error)
{
    struct luks *l = luks_new(ctx, io, what);
    bool ok = plan(o, &l->h, error);
    if (ok && !o->key_secret)
        ok = ruche_error(error, RUCHE_ERR_INVALID, "%s: 'key-secret' is needed to encrypt", what);
    if (ok && !secret_exists(o->key_secret))
        ok = ruche_error(error, RUCHE_ERR_NOT_FOUND, "%s: there is no secret '%s'", what,
                         o->key_secret);
    if (ok) {
        g_autofree char *uuid = g_uuid_string_random();
        g_strlcpy(l->h.uuid, uuid, sizeof(l->h.uuid));
        int r = make_key(l, o->iter_time_ms);
        if (!r)
            r = clear_area(l);
        ok = !r || io_error(l, error, r, "make");
    }
    if (ok && luks_fill_slot(l, 0, o->key_secret, o->iter_time_ms, error) && use_key(l, error))
        return l;
    luks_free(l);
    return NULL;
}

uint64_t luks_payload_offset(const struct luks *l)
{
    return l->h.payload_offset;
}

int luks_encrypt(const struct luks *l, uint64_t off, void *buf, size_t len)
{
    return l->crypto ? crypto_encrypt(l->crypto, off, buf, len) : -EACCES;
}

int luks_decrypt(const struct luks *l, uint64_t off, void *buf, size_t len)
{
    return l->crypto ? crypto_decrypt(l->crypto, off, buf, len) : -EACCES;
}

static JsonArray *describe_slots(const struct luks_header *h)
{
    JsonArray *slots = json_array_new();
    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        const struct luks_slot *s = &h->slots[i];
        JsonObject *o = json_object_new();
        json_object_set_boolean_member(o, "active", s->active);
        if (s->active)
            json_object_set_int_member(o, "iters", s->iterations);
        json_object_set_int_member(o, "key-offset", (gint64)s->offset);
        if (s->active)
            json_object_set_int_member(o, "stripes", s->stripes);
        json_array_add_object_element(slots, o);
    }
    return slots;
}

JsonObject *luks_describe(const struct luks *l)
{
    const struct luks_header *h = &l->h;
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "ivgen-alg", crypto_ivgen_words[h->params.ivgen]);
    json_object_set_string_member(o, "hash-alg", crypto_hash_words[h->hash]);
    json_object_set_string_member(o, "cipher-alg", crypto_cipher_words[h->params.cipher]);
    g_autofree char *uuid = g_utf8_make_valid(h->uuid, -1);
    json_object_set_string_member(o, "uuid", uuid);
    if (h->params.ivgen == CRYPTO_ESSIV)
        json_object_set_string_member(o, "ivgen-hash-alg", crypto_hash_words[h->params.ivgen_hash]);
    json_object_set_string_member(o, "cipher-mode", crypto_mode_words[h->params.mode]);
    json_object_set_array_member(o, "slots", describe_slots(h));
    json_object_set_int_member(o, "payload-offset", (gint64)h->payload_offset);
    json_object_set_int_member(o, "master-key-iters", h->digest_iterations);
    return o;
}
