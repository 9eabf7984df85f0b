/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The driver "luks": a disk whose every sector is encrypted, behind a LUKS1 header.
 *
 * Spec      LUKS On-Disk Format Specification 1.2.3; QEMU's options.
 * Fiber     Reads decrypt where they were read to; writes are encrypted in one of a few buffers of
 * the node, as the guest's memory is not ours to change. What is large is ciphered by the pool.
 * Trust     The header is hostile (luks.c). The payload is bytes.
 * Crash     Nothing but the header is metadata; see luks_amend.c. A grown image ends in what
 * deciphering zeroes gives, as with every encryption of sectors without a map.
 */
#include "image/driver.h"
#include "image/luks.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define BOUNCE_BYTES (256 * KIB)
#define BOUNCE_MAX   16

struct luks_node {
    struct node n;
    char *key_secret;
    struct luks *luks;
    uint64_t payload;       /* offset in the file */
    void *idle[BOUNCE_MAX]; /* buffers of BOUNCE_BYTES */
    unsigned idle_count, made;
    struct fiber_queue waiting; /* for a buffer */
};

struct luks_create {
    struct luks_create_options luks;
    int preallocation;
};

static struct luks_node *luks_of(struct node *n)
{
    return container_of(n, struct luks_node, n);
}

/* ---- the header, in a file ---- */

static int header_read(void *opaque, uint64_t off, void *buf, size_t len)
{
    return node_pread(opaque, off, buf, len);
}

static int header_write(void *opaque, uint64_t off, const void *buf, size_t len)
{
    return node_pwrite(opaque, off, buf, len, 0);
}

static int header_flush(void *opaque)
{
    return node_flush(opaque);
}

static struct luks_io file_io(struct node *file)
{
    return (struct luks_io){header_read, header_write, header_flush, file, node_size(file)};
}

static bool driver_open(struct node *n, GError **error)
{
    struct luks_node *l = luks_of(n);
    g_autofree char *what = g_strdup_printf("image '%s'", n->filename);
    struct luks_io io = file_io(node_file(n));
    l->luks = luks_open(n->ctx, &io, l->key_secret, n->open_flags & NODE_NO_IO ? LUKS_NO_KEY : 0,
                        what, error);
    if (!l->luks)
        return false;
    l->payload = luks_payload_offset(l->luks);
    if (l->payload > io.bytes)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the LUKS payload at %" PRIu64
                           " is behind the end of the file (%" PRIu64 ")",
                           what, l->payload, io.bytes);
    n->size_bytes = align_down(io.bytes - l->payload, CRYPTO_SECTOR_BYTES);
    n->request_align = CRYPTO_SECTOR_BYTES;
    n->write_flags = NODE_FUA;
    n->encrypted = true;
    return true;
}

static void driver_close(struct node *n)
{
    struct luks_node *l = luks_of(n);
    while (l->idle_count)
        free(l->idle[--l->idle_count]);
    luks_free(l->luks);
    l->luks = NULL;
}

/* ---- sectors ---- */

struct cipher_work {
    const struct luks *luks;
    uint64_t off;
    struct vec v; /* in place; every piece is whole sectors */
    bool encrypt;
};

static int cipher_work(void *opaque)
{
    struct cipher_work *w = opaque;
    struct iovec piece;
    int r = 0;
    for (size_t at = 0, n; at < w->v.len && !r; at += n) {
        vec_to_iov(vec_slice(w->v, at, w->v.len - at), &piece, 1, &n);
        r = w->encrypt ? luks_encrypt(w->luks, w->off + at, piece.iov_base, n)
                       : luks_decrypt(w->luks, w->off + at, piece.iov_base, n);
    }
    return r;
}

static int cipher(struct luks_node *l, uint64_t off, struct vec v, bool encrypt)
{
    struct cipher_work w = {l->luks, off, v, encrypt};
    return v.len < CRYPTO_OFFLOAD_BYTES ? cipher_work(&w)
                                        : context_offload(l->n.ctx, cipher_work, &w);
}

static void *bounce_take(struct luks_node *l)
{
    for (;;) {
        if (l->idle_count)
            return l->idle[--l->idle_count];
        if (l->made < BOUNCE_MAX) {
            void *b = aligned_alloc(4096, BOUNCE_BYTES);
            l->made += b != NULL;
            if (b || !l->made)
                return b;
        }
        fiber_queue_wait(&l->waiting);
    }
}

static void bounce_put(struct luks_node *l, void *b)
{
    l->idle[l->idle_count++] = b;
    fiber_queue_wake_one(&l->waiting);
}

/* Pieces that end inside a sector: through a buffer. */
static int read_bounced(struct luks_node *l, uint64_t off, struct vec v)
{
    struct iovec iov;
    void *b = bounce_take(l);
    int r = b ? 0 : -ENOMEM;
    for (size_t at = 0, n; at < v.len && !r; at += n) {
        n = MIN(v.len - at, BOUNCE_BYTES);
        struct vec flat = vec_flat(&iov, b, n);
        r = node_read(node_file(&l->n), l->payload + off + at, flat, 0);
        if (!r)
            r = cipher(l, off + at, flat, false);
        if (!r)
            vec_write(vec_slice(v, at, n), b);
    }
    if (b)
        bounce_put(l, b);
    return r;
}

static int driver_read(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    struct luks_node *l = luks_of(n);
    if (!vec_is_aligned(v, 1, CRYPTO_SECTOR_BYTES))
        return read_bounced(l, off, v);
    int r = node_read(node_file(n), l->payload + off, v, flags);
    return r ? r : cipher(l, off, v, false);
}

static int driver_write(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    struct luks_node *l = luks_of(n);
    struct iovec iov;
    void *b = bounce_take(l);
    int r = b ? 0 : -ENOMEM;
    for (size_t at = 0, part; at < v.len && !r; at += part) {
        part = MIN(v.len - at, BOUNCE_BYTES);
        struct vec flat = vec_flat(&iov, b, part);
        vec_read(vec_slice(v, at, part), b);
        r = cipher(l, off + at, flat, true);
        if (!r)
            r = node_write(node_file(n), l->payload + off + at, flat, flags);
    }
    if (b)
        bounce_put(l, b);
    return r;
}

static bool driver_resize(struct node *n, uint64_t size, enum image_prealloc p, GError **error)
{
    struct luks_node *l = luks_of(n);
    if (size % CRYPTO_SECTOR_BYTES)
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s': size %" PRIu64 " is no multiple of %d",
                           node_filename(n), size, CRYPTO_SECTOR_BYTES);
    if (!node_resize(node_file(n), l->payload + size, p, error))
        return false;
    n->size_bytes = size;
    return true;
}

/* ---- making, changing, showing ---- */

static bool driver_create(struct image_create *c, GError **error)
{
    const struct luks_create *o = c->options;
    uint64_t payload = luks_format_bytes(&o->luks, error);
    if (!payload)
        return false;
    if (o->preallocation == PREALLOC_METADATA)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s': luks has no metadata to preallocate; use off, "
                           "falloc or full",
                           c->filename);
    uint64_t size = align_up(c->size_bytes, CRYPTO_SECTOR_BYTES);
    if (!node_resize(c->file, payload + size, (enum image_prealloc)o->preallocation, error))
        return false;
    g_autofree char *what = g_strdup_printf("'%s'", c->filename);
    struct luks_io io = file_io(c->file);
    struct luks *l = luks_format(node_context(c->file), &io, &o->luks, what, error);
    luks_free(l);
    return l;
}

static bool driver_measure(const void *create_options, uint64_t size_bytes, struct node *source,
                           struct image_measure *ret, GError **error)
{
    const struct luks_create *o = create_options;
    uint64_t payload = luks_format_bytes(&o->luks, error);
    if (!payload)
        return false;
    uint64_t size = align_up(source ? node_size(source) : size_bytes, CRYPTO_SECTOR_BYTES);
    *ret = (struct image_measure){payload + size, payload + size, UINT64_MAX};
    return true;
}

static bool driver_amend(struct node *n, JsonObject *given, struct image_progress *p,
                         GError **error)
{
    return luks_amend(luks_of(n)->luks, given, false, error);
}

static JsonObject *driver_describe(struct node *n)
{
    return luks_describe(luks_of(n)->luks);
}

static int driver_probe_luks(const uint8_t *head, size_t len, const char *filename)
{
    return luks_probe(head, len);
}

static const struct image_option open_options[] = {
    OPT_STRING("key-secret", struct luks_node, key_secret,
               "ID of the secret that unlocks the image"),
    {0},
};
static const struct image_option create_options[] = {
    LUKS_CREATE_OPTIONS("", struct luks_create, luks),
    OPT_WORD("preallocation", struct luks_create, preallocation, image_prealloc_words, PREALLOC_OFF,
             "off, falloc or full"),
    {0},
};

static const struct image_driver luks_driver = {
    .name = "luks",
    .summary = "A disk encrypted under LUKS version 1",
    .spec = "LUKS On-Disk Format Specification 1.2.3",
    .kind = DRIVER_FORMAT,
    .size = sizeof(struct luks_node),
    .open_options = open_options,
    .create_options = create_options,
    .create_size = sizeof(struct luks_create),
    .probe = driver_probe_luks,
    .open = driver_open,
    .close = driver_close,
    .read = driver_read,
    .write = driver_write,
    .resize = driver_resize,
    .create = driver_create,
    .measure = driver_measure,
    .amend = driver_amend,
    .amendable = (const char *const[]){NULL},
    .amend_options = luks_amend_options,
    .describe = driver_describe,
};
IMAGE_DRIVER(luks_driver);
