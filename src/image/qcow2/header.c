/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The first cluster of an image: fixed header, extensions, name of the backing file.
 *
 * Spec      qcow2, "Header" and "Header extensions".
 * Thread    The node's home thread.
 * Trust     All of it is hostile: read once, through a cursor; every count and offset is bounded
 *           here.
 * Errors    Sentences with file, field and value.
 */
#include "image/qcow2/internal.h"

#include "base/cursor.h"

#include <errno.h>
#include <inttypes.h>

enum {
    HEADER_KNOWN_BYTES = 112, /* with compression type and padding */
    FEATURE_BYTES = 48,
    FEATURE_NAME_BYTES = 46,
    EXT_HEAD_BYTES = 8,
};

/* ---- parsing ---- */

struct parse {
    const char *name; /* of the file, for messages */
    struct qcow2_header *h;
    struct qcow2_exts *e;
    GError **error;
};

#define REFUSE(p, ...) ruche_error((p)->error, RUCHE_ERR_INVALID, __VA_ARGS__)

static bool parse_v3_fields(struct parse *p, struct cur *c)
{
    struct qcow2_header *h = p->h;
    h->incompatible = cur_be64(c);
    h->compatible = cur_be64(c);
    h->autoclear = cur_be64(c);
    h->refcount_order = cur_be32(c);
    h->header_bytes = cur_be32(c);
    if (c->bad)
        return REFUSE(p, "'%s': the qcow2 header ends before byte %d", p->name,
                      QCOW2_HEADER_V3_BYTES);
    uint32_t most = HEADER_KNOWN_BYTES + sizeof(h->unknown);
    if (h->header_bytes < QCOW2_HEADER_V3_BYTES || h->header_bytes > most || h->header_bytes % 8)
        return REFUSE(p, "'%s': header length %u is not a multiple of 8 between %d and %u", p->name,
                      h->header_bytes, QCOW2_HEADER_V3_BYTES, most);
    if (h->header_bytes > QCOW2_HEADER_V3_BYTES) {
        h->compression = cur_u8(c);
        cur_take(c, HEADER_KNOWN_BYTES - QCOW2_HEADER_V3_BYTES - 1);
        h->unknown_bytes = h->header_bytes - HEADER_KNOWN_BYTES;
        cur_copy(c, h->unknown, h->unknown_bytes);
    }
    if (c->bad)
        return REFUSE(p, "'%s': the file ends inside the header of %u bytes", p->name,
                      h->header_bytes);
    return true;
}

static bool parse_fields(struct parse *p, struct cur *c)
{
    struct qcow2_header *h = p->h;
    if (cur_be32(c) != QCOW2_MAGIC)
        return REFUSE(p, "'%s' is not in qcow2 format: it does not begin with QFI\\xfb", p->name);
    h->version = cur_be32(c);
    if (h->version < 2 || h->version > 3)
        return ruche_error(p->error, RUCHE_ERR_UNSUPPORTED,
                           "'%s': qcow2 version %u is not supported; versions 2 and 3 are", p->name,
                           h->version);
    h->backing_name_offset = cur_be64(c);
    h->backing_name_bytes = cur_be32(c);
    h->cluster_bits = cur_be32(c);
    h->size_bytes = cur_be64(c);
    h->crypt_method = cur_be32(c);
    h->l1_count = cur_be32(c);
    h->l1_offset = cur_be64(c);
    h->reftable_offset = cur_be64(c);
    h->reftable_clusters = cur_be32(c);
    h->snapshot_count = cur_be32(c);
    h->snapshots_offset = cur_be64(c);
    h->refcount_order = 4;
    h->header_bytes = QCOW2_HEADER_V2_BYTES;
    if (c->bad)
        return REFUSE(p, "'%s': the qcow2 header ends before byte %d", p->name,
                      QCOW2_HEADER_V2_BYTES);
    return h->version < 3 || parse_v3_fields(p, c);
}

/* "'some feature', bit 7" of the incompatible bits that we do not know. */
static char *name_unknown_features(const struct parse *p, uint64_t bits)
{
    GString *text = g_string_new(NULL);
    struct cur c = cur_of(p->e->features, p->e->features_bytes);
    uint64_t named = 0;
    while (c.left >= FEATURE_BYTES) {
        uint8_t set = cur_u8(&c), bit = cur_u8(&c);
        char name[FEATURE_NAME_BYTES + 1] = {0};
        cur_copy(&c, name, FEATURE_NAME_BYTES);
        if (set || bit > 63 || !(bits & ~named & (1ULL << bit)))
            continue;
        named |= 1ULL << bit;
        g_autofree char *shown = g_utf8_make_valid(name, -1);
        g_string_append_printf(text, "%s'%s'", text->len ? ", " : "", shown);
    }
    for (unsigned bit = 0; bit < 64; bit++)
        if (bits & ~named & (1ULL << bit))
            g_string_append_printf(text, "%sincompatible bit %u", text->len ? ", " : "", bit);
    return g_string_free(text, FALSE);
}

static bool check_features(const struct parse *p)
{
    const struct qcow2_header *h = p->h;
    uint64_t unknown = h->incompatible & ~(uint64_t)QCOW2_INCOMPAT_KNOWN;
    if (unknown) {
        g_autofree char *names = name_unknown_features(p, unknown);
        return ruche_error(p->error, RUCHE_ERR_UNSUPPORTED,
                           "'%s' uses features that are not supported: %s", p->name, names);
    }
    bool other = h->incompatible & QCOW2_INCOMPAT_COMPRESSION;
    if (h->compression > QCOW2_COMPRESSION_ZSTD)
        return ruche_error(p->error, RUCHE_ERR_UNSUPPORTED,
                           "'%s': compression type %u is not supported; 0 (zlib) and 1 (zstd) are",
                           p->name, h->compression);
    if (other != (h->compression != QCOW2_COMPRESSION_ZLIB))
        return REFUSE(p,
                      "'%s': compression type %u and incompatible bit 3 (%s) contradict each other",
                      p->name, h->compression, other ? "set" : "clear");
    if (h->refcount_order > 6)
        return REFUSE(p, "'%s': refcount order %u is above 6 (64 bits)", p->name,
                      h->refcount_order);
    if ((h->incompatible & QCOW2_INCOMPAT_EXTL2) && h->cluster_bits < 14)
        return REFUSE(p, "'%s': extended L2 entries need clusters of 16 KiB; they have 2^%u bytes",
                      p->name, h->cluster_bits);
    if ((h->autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW) &&
        !(h->incompatible & QCOW2_INCOMPAT_DATA_FILE))
        return REFUSE(p, "'%s': raw external data is claimed without an external data file",
                      p->name);
    if (h->crypt_method > QCOW2_CRYPT_LUKS)
        return ruche_error(p->error, RUCHE_ERR_UNSUPPORTED,
                           "'%s': encryption method %u is not supported", p->name, h->crypt_method);
    return true;
}

/* A table of `bytes` at `off`: aligned, and inside what an offset can say. */
static bool check_table(const struct parse *p, const char *what, uint64_t off, uint64_t bytes)
{
    uint64_t cluster = 1ULL << p->h->cluster_bits;
    if (off & (cluster - 1))
        return REFUSE(p, "'%s': %s offset 0x%" PRIx64 " is not a multiple of the cluster size",
                      p->name, what, off);
    if (off > QCOW2_OFFSET_MASK || bytes > QCOW2_OFFSET_MASK - off || (bytes && !off))
        return REFUSE(p, "'%s': %s of %" PRIu64 " bytes cannot be at offset 0x%" PRIx64, p->name,
                      what, bytes, off);
    return true;
}

static bool check_tables(const struct parse *p, unsigned open_flags)
{
    const struct qcow2_header *h = p->h;
    uint64_t cluster = 1ULL << h->cluster_bits;
    unsigned l2_bits = h->cluster_bits - ((h->incompatible & QCOW2_INCOMPAT_EXTL2) ? 4 : 3);
    uint64_t reftable_bytes = (uint64_t)h->reftable_clusters * cluster;
    if (!h->reftable_clusters && !(open_flags & NODE_CHECK))
        return REFUSE(p, "'%s': the image has no refcount table", p->name);
    if (reftable_bytes > QCOW2_REFTABLE_BYTES_MAX)
        return REFUSE(p, "'%s': the refcount table of %u clusters is above the limit of 8 MiB",
                      p->name, h->reftable_clusters);
    if (h->l1_count > QCOW2_L1_BYTES_MAX / 8)
        return REFUSE(p, "'%s': the L1 table of %u entries is above the limit of 32 MiB", p->name,
                      h->l1_count);
    if (h->snapshot_count > QCOW2_SNAPSHOTS_MAX)
        return REFUSE(p, "'%s': %u snapshots are above the limit of %d", p->name, h->snapshot_count,
                      QCOW2_SNAPSHOTS_MAX);
    if (h->size_bytes > IMAGE_SIZE_MAX)
        return REFUSE(p, "'%s': the size of %" PRIu64 " bytes is above the limit of 2^62", p->name,
                      h->size_bytes);
    uint64_t per_l1 = cluster << l2_bits;
    uint64_t need = h->size_bytes / per_l1 + !!(h->size_bytes % per_l1);
    if (need > h->l1_count)
        return REFUSE(
            p, "'%s': the L1 table has %u entries; the size of %" PRIu64 " bytes takes %" PRIu64,
            p->name, h->l1_count, h->size_bytes, need);
    return check_table(p, "refcount table", h->reftable_offset, reftable_bytes) &&
           check_table(p, "L1 table", h->l1_offset, (uint64_t)h->l1_count * 8) &&
           check_table(p, "snapshot table", h->snapshots_offset, h->snapshot_count ? 40 : 0);
}

/* ---- extensions ---- */

static char *take_string(const uint8_t *data, uint32_t len)
{
    return g_strndup((const char *)data, len);
}

static bool ext_backing_format(struct parse *p, const uint8_t *data, uint32_t len)
{
    g_free(p->e->backing_format);
    p->e->backing_format = take_string(data, len);
    return true;
}

static bool ext_data_file(struct parse *p, const uint8_t *data, uint32_t len)
{
    g_free(p->e->data_file);
    p->e->data_file = take_string(data, len);
    return true;
}

static bool ext_features(struct parse *p, const uint8_t *data, uint32_t len)
{
    g_free(p->e->features);
    p->e->features = g_memdup2(data, len);
    p->e->features_bytes = len;
    return true;
}

static bool ext_crypto(struct parse *p, const uint8_t *data, uint32_t len)
{
    struct cur c = cur_of(data, len);
    p->e->crypto_offset = cur_be64(&c);
    p->e->crypto_bytes = cur_be64(&c);
    if (c.bad || !p->e->crypto_offset || !p->e->crypto_bytes)
        return REFUSE(p, "'%s': the encryption header pointer has %u bytes, or is empty", p->name,
                      len);
    return check_table(p, "encryption header", p->e->crypto_offset, p->e->crypto_bytes);
}

static bool ext_bitmaps(struct parse *p, const uint8_t *data, uint32_t len)
{
    struct cur c = cur_of(data, len);
    struct qcow2_exts *e = p->e;
    e->bitmap_count = cur_be32(&c);
    uint32_t reserved = cur_be32(&c);
    e->bitmap_dir_bytes = cur_be64(&c);
    e->bitmap_dir_offset = cur_be64(&c);
    e->has_bitmaps = true;
    if (!(p->h->autoclear & QCOW2_AUTOCLEAR_BITMAPS)) {
        e->has_bitmaps = false; /* written by a program that does not know them: stale */
        return true;
    }
    if (c.bad || len != 24 || reserved)
        return REFUSE(p, "'%s': the bitmaps extension of %u bytes is malformed", p->name, len);
    if (!e->bitmap_count || e->bitmap_count > QCOW2_BITMAPS_MAX ||
        e->bitmap_dir_bytes > QCOW2_BITMAP_DIR_BYTES_MAX)
        return REFUSE(
            p, "'%s': %u bitmaps in a directory of %" PRIu64 " bytes; limits are %d and 64 MiB",
            p->name, e->bitmap_count, e->bitmap_dir_bytes, QCOW2_BITMAPS_MAX);
    return check_table(p, "bitmap directory", e->bitmap_dir_offset, e->bitmap_dir_bytes);
}

static bool ext_padding(struct parse *p, const uint8_t *data, uint32_t len)
{
    return true;
}

static const struct {
    uint32_t type;
    bool (*parse)(struct parse *p, const uint8_t *data, uint32_t len);
} ext_parsers[] = {
    {QCOW2_EXT_BACKING_FORMAT, ext_backing_format},
    {QCOW2_EXT_FEATURES, ext_features},
    {QCOW2_EXT_CRYPTO, ext_crypto},
    {QCOW2_EXT_BITMAPS, ext_bitmaps},
    {QCOW2_EXT_DATA_FILE, ext_data_file},
    {QCOW2_EXT_PADDING, ext_padding},
};

static bool ext_unknown(struct parse *p, uint32_t type, const uint8_t *data, uint32_t len)
{
    struct qcow2_exts *e = p->e;
    if (e->unknown_count == QCOW2_UNKNOWN_EXT_MAX)
        return REFUSE(p, "'%s': more than %d unknown header extensions", p->name,
                      QCOW2_UNKNOWN_EXT_MAX);
    e->unknown[e->unknown_count++] =
        (struct qcow2_unknown_ext){.type = type, .len = len, .data = g_memdup2(data, len)};
    return true;
}

static bool parse_ext(struct parse *p, uint32_t type, const uint8_t *data, uint32_t len)
{
    for (unsigned i = 0; i < ARRAY_COUNT(ext_parsers); i++)
        if (ext_parsers[i].type == type)
            return ext_parsers[i].parse(p, data, len);
    return ext_unknown(p, type, data, len);
}

static bool parse_exts(struct parse *p, struct cur c)
{
    while (c.left >= EXT_HEAD_BYTES) {
        uint32_t type = cur_be32(&c), len = cur_be32(&c);
        if (type == QCOW2_EXT_END)
            break;
        const uint8_t *data = cur_take(&c, len);
        if (c.bad)
            return REFUSE(p, "'%s': header extension 0x%08x of %u bytes does not fit the header",
                          p->name, type, len);
        cur_take(&c, min_u64(-len & 7, c.left));
        if (!parse_ext(p, type, data, len))
            return false;
    }
    if ((p->h->autoclear & QCOW2_AUTOCLEAR_BITMAPS) && !p->e->has_bitmaps)
        return REFUSE(p, "'%s': the bitmaps bit is set without a bitmaps extension", p->name);
    if (p->h->crypt_method == QCOW2_CRYPT_LUKS && !p->e->crypto_offset)
        return REFUSE(p, "'%s': LUKS encryption without a header for it", p->name);
    return true;
}

static bool parse_backing(struct parse *p, const uint8_t *cluster, size_t have, char **ret)
{
    struct qcow2_header *h = p->h;
    if (!h->backing_name_offset)
        return true;
    if (h->backing_name_bytes > QCOW2_BACKING_NAME_MAX ||
        !range_fits(h->backing_name_offset, h->backing_name_bytes, have) ||
        h->backing_name_offset < h->header_bytes)
        return REFUSE(p,
                      "'%s': the backing file name of %u bytes at offset 0x%" PRIx64
                      " does not fit the header; at most %d bytes inside the first cluster do",
                      p->name, h->backing_name_bytes, h->backing_name_offset,
                      QCOW2_BACKING_NAME_MAX);
    if (h->backing_name_bytes)
        *ret = take_string(cluster + h->backing_name_offset, h->backing_name_bytes);
    return true;
}

static bool parse_cluster(struct parse *p, const uint8_t *cluster, size_t have, unsigned open_flags,
                          char **ret_backing)
{
    struct qcow2_header *h = p->h;
    struct cur c = cur_of(cluster, have);
    uint64_t end =
        h->backing_name_offset && h->backing_name_offset < have ? h->backing_name_offset : have;
    if (!cur_take(&c, h->header_bytes))
        return REFUSE(p, "'%s': the file ends inside the header", p->name);
    c.left = end > h->header_bytes ? end - h->header_bytes : 0;
    return parse_exts(p, c) && check_features(p) && check_tables(p, open_flags) &&
           parse_backing(p, cluster, have, ret_backing);
}

bool qcow2_header_read(struct node *file, const char *name, unsigned open_flags,
                       struct qcow2_header *ret, struct qcow2_exts *ret_ext, char **ret_backing,
                       GError **error)
{
    struct parse p = {.name = name, .h = ret, .e = ret_ext, .error = error};
    uint8_t head[HEADER_KNOWN_BYTES + sizeof(ret->unknown)];
    size_t have = min_u64(sizeof(head), node_size(file));
    int r = node_pread(file, 0, head, have);
    if (r)
        return ruche_error_errno(error, -r, "cannot read the header of '%s'", name);
    struct cur c = cur_of(head, have);
    if (!parse_fields(&p, &c))
        return false;
    if (ret->cluster_bits < QCOW2_CLUSTER_BITS_MIN || ret->cluster_bits > QCOW2_CLUSTER_BITS_MAX)
        return REFUSE(&p, "'%s': clusters of 2^%u bytes are not supported; 2^%d to 2^%d are", name,
                      ret->cluster_bits, QCOW2_CLUSTER_BITS_MIN, QCOW2_CLUSTER_BITS_MAX);
    have = min_u64(1ULL << ret->cluster_bits, node_size(file));
    g_autofree uint8_t *cluster = g_try_malloc(have);
    if (!cluster)
        return ruche_error_errno(error, ENOMEM, "cannot read the header of '%s'", name);
    r = node_pread(file, 0, cluster, have);
    if (r)
        return ruche_error_errno(error, -r, "cannot read the header of '%s'", name);
    return parse_cluster(&p, cluster, have, open_flags, ret_backing);
}

void qcow2_exts_clear(struct qcow2_exts *e)
{
    g_free(e->backing_format);
    g_free(e->data_file);
    g_free(e->features);
    for (unsigned i = 0; i < e->unknown_count; i++)
        g_free(e->unknown[i].data);
    memset(e, 0, sizeof(*e));
}
