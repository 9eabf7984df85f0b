/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writing the first cluster, so that a crash leaves the old header or the new one.
 *
 * Spec      qcow2, "Header" and "Header extensions".
 * Thread    The node's home thread.
 * Order     What differs in one sector, or fits in the first, goes out as one sector. Otherwise extensions and names are
 *           first written behind all that is in use, where the new first sector then refers to them
 *           across an extension of padding; then they are written to their own place, and the first
 *           sector once more. A sync stands between each two.
 */
#include "image/qcow2/internal.h"

#include <errno.h>
#include <string.h>

enum {
    HEADER_KNOWN_BYTES = 112,
    EXT_HEAD_BYTES = 8,
    BITMAPS_BYTES = 24,
    FEATURE_BYTES = 48,
    SECTOR_BYTES = 512,
};

static const struct {
    uint8_t set, bit;
    const char *name;
} features[] = {
    {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
    {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
    {2, 0, "bitmaps"},          {2, 1, "raw external data"},
};

/* Writes into `to`, never past it; once full stays full. */
struct out {
    uint8_t *to;
    size_t at, len;
    bool full;
};

static void out_bytes(struct out *o, const void *p, size_t len)
{
    if (o->full || len > o->len - o->at) {
        o->full = true;
        return;
    }
    if (len)
        memcpy(o->to + o->at, p, len);
    o->at += len;
}

static void out_be32(struct out *o, uint32_t v)
{
    v = __builtin_bswap32(v);
    out_bytes(o, &v, sizeof(v));
}

static void out_be64(struct out *o, uint64_t v)
{
    v = __builtin_bswap64(v);
    out_bytes(o, &v, sizeof(v));
}

static void out_ext(struct out *o, uint32_t type, const void *data, uint32_t len)
{
    static const uint8_t zeroes[8];
    out_be32(o, type);
    out_be32(o, len);
    out_bytes(o, data, len);
    out_bytes(o, zeroes, -len & 7);
}

static void out_fields(struct out *o, const struct qcow2_header *h)
{
    static const uint8_t zeroes[8];
    out_be32(o, QCOW2_MAGIC);
    out_be32(o, h->version);
    out_be64(o, h->backing_name_offset);
    out_be32(o, h->backing_name_bytes);
    out_be32(o, h->cluster_bits);
    out_be64(o, h->size_bytes);
    out_be32(o, h->crypt_method);
    out_be32(o, h->l1_count);
    out_be64(o, h->l1_offset);
    out_be64(o, h->reftable_offset);
    out_be32(o, h->reftable_clusters);
    out_be32(o, h->snapshot_count);
    out_be64(o, h->snapshots_offset);
    if (h->version < 3)
        return;
    out_be64(o, h->incompatible);
    out_be64(o, h->compatible);
    out_be64(o, h->autoclear);
    out_be32(o, h->refcount_order);
    out_be32(o, h->header_bytes);
    if (h->header_bytes == QCOW2_HEADER_V3_BYTES)
        return;
    out_bytes(o, &h->compression, 1);
    out_bytes(o, zeroes, HEADER_KNOWN_BYTES - QCOW2_HEADER_V3_BYTES - 1);
    out_bytes(o, h->unknown, h->unknown_bytes);
}

static void out_features(struct out *o, const struct qcow2_exts *e)
{
    uint8_t table[ARRAY_COUNT(features)][FEATURE_BYTES] = {0};
    for (unsigned i = 0; i < ARRAY_COUNT(features); i++) {
        table[i][0] = features[i].set;
        table[i][1] = features[i].bit;
        memcpy(table[i] + 2, features[i].name, strlen(features[i].name));
    }
    if (e->features)
        out_ext(o, QCOW2_EXT_FEATURES, e->features, e->features_bytes);
    else
        out_ext(o, QCOW2_EXT_FEATURES, table, sizeof(table));
}

static void out_exts(struct out *o, const struct qcow2_header *h, const struct qcow2_exts *e)
{
    if (e->crypto_offset) {
        uint64_t pointer[2] = {__builtin_bswap64(e->crypto_offset),
                               __builtin_bswap64(e->crypto_bytes)};
        out_ext(o, QCOW2_EXT_CRYPTO, pointer, sizeof(pointer));
    }
    if (e->backing_format)
        out_ext(o, QCOW2_EXT_BACKING_FORMAT, e->backing_format, strlen(e->backing_format));
    if (e->data_file)
        out_ext(o, QCOW2_EXT_DATA_FILE, e->data_file, strlen(e->data_file));
    for (unsigned i = 0; i < e->unknown_count; i++)
        out_ext(o, e->unknown[i].type, e->unknown[i].data, e->unknown[i].len);
}

/* Last, so that nothing moves when it comes and goes: between its change and that of the autoclear
 * bit a torn write leaves what is readable. */
static void out_bitmaps(struct out *o, const struct qcow2_exts *e)
{
    if (!e->has_bitmaps)
        return;
    out_be32(o, QCOW2_EXT_BITMAPS);
    out_be32(o, BITMAPS_BYTES);
    out_be32(o, e->bitmap_count);
    out_be32(o, 0);
    out_be64(o, e->bitmap_dir_bytes);
    out_be64(o, e->bitmap_dir_offset);
}

/* Where it was, or behind room for a bitmaps extension. */
static void out_backing(struct out *o, struct qcow2_header *h, const char *backing, bool moved)
{
    size_t len = backing ? strlen(backing) : 0;
    if (!moved && h->backing_name_offset >= o->at &&
        range_fits(h->backing_name_offset, len, o->len))
        o->at = h->backing_name_offset;
    else if (!moved && o->len - o->at >= len + EXT_HEAD_BYTES + BITMAPS_BYTES)
        o->at += EXT_HEAD_BYTES + BITMAPS_BYTES;
    h->backing_name_offset = backing ? o->at : 0;
    h->backing_name_bytes = len;
    out_bytes(o, backing, len);
}

/* `at`: where the extensions begin, behind padding; 0: behind the fields. */
static int build_at(struct qcow2_header *h, const struct qcow2_exts *e, const char *backing,
                    size_t at, uint8_t *to)
{
    struct out o = {.to = to, .len = (size_t)1 << h->cluster_bits};
    memset(to, 0, o.len);
    if (h->version < 3)
        h->header_bytes = QCOW2_HEADER_V2_BYTES;
    else if (h->header_bytes < HEADER_KNOWN_BYTES)
        h->header_bytes = HEADER_KNOWN_BYTES;
    size_t name_bytes = backing ? strlen(backing) : 0;
    if (name_bytes > QCOW2_BACKING_NAME_MAX)
        return -ENAMETOOLONG;

    o.at = h->header_bytes; /* fields last: they say where the name is */
    if (at) {
        out_be32(&o, QCOW2_EXT_PADDING);
        out_be32(&o, (uint32_t)(at - o.at - 4));
        o.at = at;
    }
    out_exts(&o, h, e);
    if (h->version >= 3) {
        /* Only if there is room: it is for people. In its own place, room for all of it twice, so that it can be
         * switched over. */
        struct out with = o;
        out_features(&with, e);
        size_t more = 2 * EXT_HEAD_BYTES + BITMAPS_BYTES + name_bytes;
        bool twice = at || 2 * align_up(with.at + more, SECTOR_BYTES) <= with.len;
        if (!with.full && twice && with.len - with.at >= more)
            o = with;
        else
            memset(to + o.at, 0, o.len - o.at);
    }
    out_bitmaps(&o, e);
    out_be64(&o, 0); /* end of extensions */
    out_backing(&o, h, backing, at != 0);
    if (o.full)
        return -ENOSPC;
    struct out fields = {.to = to, .len = o.len};
    out_fields(&fields, h);
    return 0;
}

int qcow2_header_build(struct qcow2_header *h, const struct qcow2_exts *e, const char *backing,
                       uint8_t *to)
{
    return build_at(h, e, backing, 0, to);
}

int qcow2_header_write_fields(struct qcow2 *s)
{
    uint8_t sector[SECTOR_BYTES];
    fiber_mutex_lock(&s->header_lock);
    int r = qcow2_meta_read(s, 0, sector, sizeof(sector));
    if (!r) {
        struct out o = {.to = sector, .len = sizeof(sector)};
        out_fields(&o, &s->header);
        r = node_pwrite(qcow2_file(s), 0, sector, sizeof(sector), 0);
    }
    fiber_mutex_unlock(&s->header_lock);
    return r;
}

/* ---- the whole of it ---- */

struct clusters {
    uint8_t *old, *new, *between; /* as it is; as it is to be; with the extensions elsewhere */
    size_t bytes;
};

static size_t used_bytes(const uint8_t *cluster, size_t len)
{
    while (len && !cluster[len - 1])
        len--;
    return len;
}

/* The only sector in which they differ; `bytes`: none; -1: there are more. */
static ssize_t only_change(const struct clusters *c)
{
    ssize_t found = (ssize_t)c->bytes;
    for (size_t at = 0; at < c->bytes; at += SECTOR_BYTES) {
        if (!memcmp(c->old + at, c->new + at, SECTOR_BYTES))
            continue;
        if (found != (ssize_t)c->bytes)
            return -1;
        found = (ssize_t)at;
    }
    return found;
}

static int put(struct qcow2 *s, const uint8_t *cluster, size_t at, size_t len)
{
    return node_pwrite(qcow2_file(s), at, cluster + at, len, 0);
}

static int put_and_sync(struct qcow2 *s, const uint8_t *cluster, size_t at, size_t len)
{
    int r = put(s, cluster, at, len);
    return r ? r : qcow2_meta_sync(s);
}

/* By way of c->between, whose extensions begin at `at`, behind all that is in use. */
static int switch_over(struct qcow2 *s, struct clusters *c, size_t at)
{
    size_t end = align_up(used_bytes(c->between, c->bytes), SECTOR_BYTES);
    int r = put_and_sync(s, c->between, at, end - at);
    if (!r)
        r = put_and_sync(s, c->between, 0, SECTOR_BYTES);
    if (!r)
        r = put_and_sync(s, c->new, SECTOR_BYTES, at - SECTOR_BYTES);
    if (!r)
        r = put_and_sync(s, c->new, 0, SECTOR_BYTES);
    return r ? r : put(s, c->new, at, end - at); /* zeroes */
}

/* All that is new stands in the first sector, its end mark too: what lies behind does not count any more. */
static int shrink_to_sector(struct qcow2 *s, struct clusters *c)
{
    int r = put_and_sync(s, c->new, 0, SECTOR_BYTES);
    return r ? r : put(s, c->new, SECTOR_BYTES, c->bytes - SECTOR_BYTES);
}

static int write_clusters(struct qcow2 *s, struct clusters *c)
{
    int r = qcow2_meta_read(s, 0, c->old, c->bytes);
    struct qcow2_header h = s->header, moved = s->header;
    if (!r)
        r = qcow2_header_build(&h, &s->ext, s->node.backing_file, c->new);
    if (r)
        return r;
    ssize_t sector = only_change(c);
    size_t at =
        align_up(MAX(used_bytes(c->old, c->bytes), used_bytes(c->new, c->bytes)), SECTOR_BYTES);
    if (sector >= 0)
        r = sector < (ssize_t)c->bytes ? put(s, c->new, (size_t)sector, SECTOR_BYTES) : 0;
    else if (used_bytes(c->new, c->bytes) + EXT_HEAD_BYTES <= SECTOR_BYTES)
        r = shrink_to_sector(s, c);
    else if (at < c->bytes && !build_at(&moved, &s->ext, s->node.backing_file, at, c->between))
        r = switch_over(s, c, at);
    else
        r = put(s, c->new, 0, c->bytes); /* clusters too small for two */
    if (r)
        return r;
    /* Only these: others change what else is in it while we wait. */
    s->header.header_bytes = h.header_bytes;
    s->header.backing_name_offset = h.backing_name_offset;
    s->header.backing_name_bytes = h.backing_name_bytes;
    return 0;
}

int qcow2_header_write(struct qcow2 *s)
{
    uint8_t *memory = g_try_malloc(3 * (size_t)s->cluster_bytes);
    if (!memory)
        return -ENOMEM;
    struct clusters c = {.old = memory,
                         .new = memory + s->cluster_bytes,
                         .between = memory + 2 * (size_t)s->cluster_bytes,
                         .bytes = s->cluster_bytes};
    fiber_mutex_lock(&s->header_lock);
    int r = write_clusters(s, &c);
    fiber_mutex_unlock(&s->header_lock);
    g_free(memory);
    return r;
}

int qcow2_header_set_incompatible(struct qcow2 *s, uint64_t set, uint64_t clear)
{
    uint64_t before = s->header.incompatible, after = (before | set) & ~clear;
    if (before == after)
        return 0;
    s->header.incompatible = after;
    int r = qcow2_header_write_fields(s);
    if (!r)
        r = qcow2_meta_sync(s);
    if (r)
        s->header.incompatible = before;
    return r;
}
