/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Creation of qcow2 images: the whole layout is computed before the first byte is written.
 *
 * Spec      "qcow2", docs/interop/qcow2.txt of QEMU; create options of qemu-img.
 * Owner     See driver.h: c->file is the caller's.
 * Fiber     A fiber of the file's context.
 * Layout    header | refcount table | refcount blocks | L1 | LUKS header | L2 tables | data, each
 *           in whole clusters; the last two only when preallocated. Every cluster is counted once.
 * Order     The header comes last: before it there is no image. A device's old header goes first.
 * Errors    Sentences with option, value and limit.
 */
#include "base/error.h"
#include "image/qcow2/internal.h"

#include <endian.h>
#include <string.h>

enum { WRITE_BYTES = 1 << 20 };

static const char *const compat_words[] = {"1.1", "0.10", "v3", "v2", NULL};
static const char *const compression_words[] = {"zlib", "zstd", NULL};
static const char *const encrypt_words[] = {"", "aes", "luks", NULL};

#define OPTIONS struct qcow2_create_options
const struct image_option qcow2_create_options[] = {
    OPT_WORD("compat", OPTIONS, compat, compat_words, 0,
             "Version: 0.10 (v2) for QEMU before 2012, 1.1 (v3) for all others"),
    OPT_STRING("backing_file", OPTIONS, backing_file, "Image that shows where this one is empty"),
    OPT_STRING("backing_fmt", OPTIONS, backing_format, "Format of the backing file"),
    OPT_SIZE("cluster_size", OPTIONS, cluster_bytes, 64 * KIB, 1ULL << QCOW2_CLUSTER_BITS_MIN,
             1ULL << QCOW2_CLUSTER_BITS_MAX, "Unit of allocation, a power of two"),
    OPT_WORD("preallocation", OPTIONS, preallocation, image_prealloc_words, PREALLOC_OFF,
             "What is given a place at once"),
    OPT_BOOL("lazy_refcounts", OPTIONS, lazy_refcounts, false,
             "Put updates of reference counts off until the image is closed"),
    OPT_U64("refcount_bits", OPTIONS, refcount_bits, 16, 1, 64,
            "Width of a reference count, a power of two"),
    OPT_STRING("data_file", OPTIONS, data_file, "Further file that keeps the disk's contents"),
    OPT_BOOL("data_file_raw", OPTIONS, data_file_raw, false,
             "Keep the data file readable as a raw image"),
    OPT_WORD("compression_type", OPTIONS, compression, compression_words, QCOW2_COMPRESSION_ZLIB,
             "How compressed clusters are compressed"),
    OPT_BOOL("extended_l2", OPTIONS, extended_l2, false,
             "Allocate in 32nds of a cluster (subclusters)"),
    OPT_SIZE("extent_size_hint", OPTIONS, extent_bytes, 0, 0, UINT32_MAX,
             "Extent size asked from the file system, which may ignore it"),
    OPT_BOOL("encryption", OPTIONS, encryption, false, "Refused; use encrypt.format"),
    OPT_WORD("encrypt.format", OPTIONS, encrypt_format, encrypt_words, QCOW2_CRYPT_NONE,
             "Encryption of the contents"),
    LUKS_CREATE_OPTIONS("encrypt.", OPTIONS, luks),
    {0},
};
#undef OPTIONS

/* Where everything comes to lie; bytes and offsets in the image file. */
struct plan {
    const struct qcow2_create_options *o;
    const char *backing, *backing_format;
    unsigned version, cluster_bits, refcount_order;
    uint64_t cluster, size;
    enum image_prealloc prealloc;
    uint64_t l1_count, l2_count, data_count; /* data_count: of clusters in this file */
    uint64_t crypto_bytes;
    uint64_t block_count, reftable_clusters;
    uint64_t reftable_off, blocks_off, l1_off, crypto_off, l2_off, data_off, end;
    bool fresh; /* the file is empty: what is not written reads as zero */
};

static uint64_t div_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

uint64_t qcow2_refcount_clusters(uint64_t others, uint32_t cluster_bits, unsigned order,
                                 uint64_t *ret_blocks)
{
    uint64_t per_block = 8ULL << cluster_bits >> order, per_table = (1ULL << cluster_bits) / 8;
    uint64_t blocks = 0, table = 0, before;
    do {
        before = blocks + table;
        blocks = div_up(others + before, per_block);
        table = div_up(blocks, per_table);
    } while (blocks + table != before);
    if (ret_blocks)
        *ret_blocks = blocks;
    return blocks + table;
}

bool qcow2_cluster_options_check(const struct qcow2_create_options *o, GError **error)
{
    bool v2 = o->compat & 1;
    if (!is_power_of_2(o->cluster_bytes))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "cluster_size: %" G_GUINT64_FORMAT
                           " is not a power of two between 512 and 2M",
                           o->cluster_bytes);
    if (!is_power_of_2(o->refcount_bits))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "refcount_bits: %" G_GUINT64_FORMAT
                           " is not a power of two between 1 and 64",
                           o->refcount_bits);
    if (o->extended_l2 && o->cluster_bytes < 16 * KIB)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "extended_l2: clusters of %" G_GUINT64_FORMAT
                           " bytes are too small for 32 subclusters; use cluster_size=16k or more",
                           o->cluster_bytes);
    const char *needs_v3 = o->refcount_bits != 16 ? "refcount_bits other than 16"
                           : o->extended_l2       ? "extended_l2"
                           : o->lazy_refcounts    ? "lazy_refcounts"
                           : o->data_file         ? "data_file"
                           : o->compression != QCOW2_COMPRESSION_ZLIB ? "compression_type=zstd"
                                                                      : NULL;
    if (v2 && needs_v3)
        return ruche_error(error, RUCHE_ERR_INVALID, "compat=0.10 has no %s; use compat=1.1",
                           needs_v3);
    return true;
}

static bool check_encryption(const struct plan *p, GError **error)
{
    const struct qcow2_create_options *o = p->o;
    if (o->encryption || o->encrypt_format == QCOW2_CRYPT_AES)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "encryption: qcow2's own AES protects nothing and is only read; "
                           "use encrypt.format=luks");
    if (o->encrypt_format == QCOW2_CRYPT_NONE) {
        if (o->luks.key_secret)
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "encrypt.key-secret needs encrypt.format=luks");
        return true;
    }
    if (!o->luks.key_secret)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "encrypt.format=luks needs encrypt.key-secret");
    if (o->data_file_raw)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "data_file_raw: an encrypted data file is not a raw image");
    if (p->version < 3 && p->prealloc != PREALLOC_OFF)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "preallocation of an encrypted image needs compat=1.1, which can mark "
                           "clusters as zero");
    return true;
}

static bool check_combinations(const struct plan *p, GError **error)
{
    const struct qcow2_create_options *o = p->o;
    if (p->backing_format && !p->backing)
        return ruche_error(error, RUCHE_ERR_INVALID, "backing_fmt: there is no backing_file");
    if (p->backing && strlen(p->backing) > QCOW2_BACKING_NAME_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "backing_file: the name has %zu bytes; the limit is %d",
                           strlen(p->backing), QCOW2_BACKING_NAME_MAX);
    if (o->data_file_raw && !o->data_file)
        return ruche_error(error, RUCHE_ERR_INVALID, "data_file_raw: there is no data_file");
    if (o->data_file_raw && p->backing)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "data_file_raw: a raw data file cannot show a backing file");
    if (p->backing && p->prealloc != PREALLOC_OFF && !o->extended_l2)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "preallocation: clusters with a place hide the backing file; use "
                           "extended_l2=on for both");
    return check_encryption(p, error);
}

static bool plan_tables(struct plan *p, GError **error)
{
    uint64_t entry = p->o->extended_l2 ? 16 : 8, per_l2 = p->cluster * (p->cluster / entry);
    p->l1_count = div_up(p->size, per_l2);
    if (p->size > IMAGE_SIZE_MAX || p->l1_count * 8 > QCOW2_L1_BYTES_MAX)
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "size: %" G_GUINT64_FORMAT " bytes are too much for clusters of %" G_GUINT64_FORMAT
            ": the limit is %" G_GUINT64_FORMAT "; use a larger cluster_size",
            p->size, p->cluster, min_u64(IMAGE_SIZE_MAX, QCOW2_L1_BYTES_MAX / 8 * per_l2));
    if (p->prealloc != PREALLOC_OFF) {
        p->l2_count = p->l1_count;
        p->data_count = p->o->data_file ? 0 : div_up(p->size, p->cluster);
    }
    p->l1_count = max_u64(p->l1_count, 1);
    return true;
}

static bool plan_layout(struct plan *p, GError **error)
{
    uint64_t l1_clusters = div_up(p->l1_count * 8, p->cluster);
    uint64_t crypto_clusters = div_up(p->crypto_bytes, p->cluster);
    uint64_t others = 1 + l1_clusters + crypto_clusters + p->l2_count + p->data_count;
    uint64_t counting =
        qcow2_refcount_clusters(others, p->cluster_bits, p->refcount_order, &p->block_count);
    p->reftable_clusters = counting - p->block_count;
    if (p->reftable_clusters * p->cluster > QCOW2_REFTABLE_BYTES_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "preallocation: the reference counts of %" G_GUINT64_FORMAT
                           " clusters need a table above 8 MiB; use a larger cluster_size",
                           others);
    p->reftable_off = p->cluster;
    p->blocks_off = p->reftable_off + p->reftable_clusters * p->cluster;
    p->l1_off = p->blocks_off + p->block_count * p->cluster;
    p->crypto_off = p->l1_off + l1_clusters * p->cluster;
    p->l2_off = p->crypto_off + crypto_clusters * p->cluster;
    p->data_off = p->l2_off + p->l2_count * p->cluster;
    p->end = p->data_off + p->data_count * p->cluster;
    return true;
}

static bool plan_make(struct plan *p, const struct image_create *c, GError **error)
{
    const struct qcow2_create_options *o = c->options;
    p->o = o;
    p->backing = c->backing_file ? c->backing_file : o->backing_file;
    p->backing_format = c->backing_format ? c->backing_format : o->backing_format;
    if (!qcow2_cluster_options_check(o, error))
        return false;
    p->version = o->compat & 1 ? 2 : 3;
    p->cluster = o->cluster_bytes;
    p->cluster_bits = (unsigned)__builtin_ctzll(p->cluster);
    p->refcount_order = (unsigned)__builtin_ctzll(o->refcount_bits);
    p->size = min_u64(c->size_bytes, UINT64_MAX - 511);
    p->size = align_up(p->size, 512);
    p->prealloc = (enum image_prealloc)o->preallocation;
    if (o->data_file_raw && p->prealloc == PREALLOC_OFF)
        p->prealloc = PREALLOC_METADATA; /* guest and data file offsets are the same for ever */
    p->fresh = node_size(c->file) == 0;
    if (!check_combinations(p, error))
        return false;
    if (o->encrypt_format == QCOW2_CRYPT_LUKS) {
        p->crypto_bytes = luks_format_bytes(&o->luks, error);
        if (!p->crypto_bytes)
            return false;
    }
    return plan_tables(p, error) && plan_layout(p, error);
}

/* Writes `len` bytes, without the zeroes at the end where the file has them anyway. */
static int put(const struct plan *p, struct node *file, uint64_t off, const uint8_t *buf,
               size_t len)
{
    while (p->fresh && len > 4096 &&
           bytes_are_zero(buf + align_down(len - 1, 4096), (len - 1) % 4096 + 1))
        len = align_down(len - 1, 4096);
    if (p->fresh && bytes_are_zero(buf, len))
        return 0;
    return node_pwrite(file, off, buf, len, 0);
}

/* `count` big-endian words; word i is fill(p, i). Whole clusters. */
static int put_words(const struct plan *p, struct node *file, uint64_t off, uint64_t count,
                     uint64_t (*fill)(const struct plan *p, uint64_t i))
{
    uint64_t bytes = align_up(count * 8, p->cluster), piece = min_u64(bytes, WRITE_BYTES);
    g_autofree uint64_t *buf = g_malloc(piece);
    for (uint64_t done = 0; done < bytes; done += piece) {
        piece = min_u64(piece, bytes - done);
        for (uint64_t w = 0; w < piece / 8; w++) {
            uint64_t i = done / 8 + w;
            buf[w] = i < count ? htobe64(fill(p, i)) : 0;
        }
        int r = put(p, file, off + done, (uint8_t *)buf, piece);
        if (r < 0)
            return r;
    }
    return 0;
}

static uint64_t fill_reftable(const struct plan *p, uint64_t i)
{
    return p->blocks_off + i * p->cluster;
}

static uint64_t fill_l1(const struct plan *p, uint64_t i)
{
    return i < p->l2_count ? (p->l2_off + i * p->cluster) | QCOW2_COPIED : 0;
}

/* Preallocated clusters read as zero. Encrypted ones would not: they are marked. With subclusters,
 * no bit set shows zeroes, or the backing file. */
static uint64_t fill_l2(const struct plan *p, uint64_t i)
{
    if (p->o->extended_l2 && i % 2)
        return 0;
    uint64_t cluster = p->o->extended_l2 ? i / 2 : i;
    if (cluster >= div_up(p->size, p->cluster))
        return 0;
    uint64_t zero = p->crypto_bytes && !p->o->extended_l2 ? QCOW2_ZERO : 0;
    return (p->data_off * !p->o->data_file + cluster * p->cluster) | QCOW2_COPIED | zero;
}

static int put_blocks(const struct plan *p, struct node *file)
{
    uint64_t total = p->end >> p->cluster_bits,
             per_block = 8ULL << p->cluster_bits >> p->refcount_order;
    g_autofree uint8_t *full = g_malloc0(p->cluster), *last = g_malloc0(p->cluster);
    for (uint64_t i = 0; i < min_u64(per_block, total); i++)
        qcow2_refcount_write(full, p->refcount_order, i, 1);
    for (uint64_t i = 0; i < total % per_block; i++)
        qcow2_refcount_write(last, p->refcount_order, i, 1);
    for (uint64_t b = 0; b < p->block_count; b++) {
        const uint8_t *block = (b + 1) * per_block <= total ? full : last;
        int r = put(p, file, p->blocks_off + b * p->cluster, block, p->cluster);
        if (r < 0)
            return r;
    }
    return 0;
}

static int put_tables(const struct plan *p, struct node *file)
{
    uint64_t l2_words = p->l2_count * (p->cluster / 8);
    int r = put_words(p, file, p->reftable_off, p->block_count, fill_reftable);
    if (r == 0)
        r = put_blocks(p, file);
    if (r == 0)
        r = put_words(p, file, p->l1_off, p->l1_count, fill_l1);
    if (r == 0 && l2_words)
        r = put_words(p, file, p->l2_off, l2_words, fill_l2);
    return r;
}

struct luks_area {
    struct node *file;
    uint64_t off;
};

static int luks_area_read(void *opaque, uint64_t off, void *buf, size_t len)
{
    struct luks_area *a = opaque;
    return node_pread(a->file, a->off + off, buf, len);
}

static int luks_area_write(void *opaque, uint64_t off, const void *buf, size_t len)
{
    struct luks_area *a = opaque;
    return node_pwrite(a->file, a->off + off, buf, len, 0);
}

static int luks_area_flush(void *opaque)
{
    return node_flush(((struct luks_area *)opaque)->file);
}

static bool put_luks(const struct plan *p, const struct image_create *c, GError **error)
{
    struct luks_area area = {c->file, p->crypto_off};
    struct luks_io io = {luks_area_read, luks_area_write, luks_area_flush, &area, p->crypto_bytes};
    struct luks *l = luks_format(node_context(c->file), &io, &p->o->luks, c->filename, error);
    luks_free(l);
    return l != NULL;
}

static bool put_header(const struct plan *p, const struct image_create *c, GError **error)
{
    const struct qcow2_create_options *o = p->o;
    struct qcow2_header h = {
        .version = p->version,
        .cluster_bits = p->cluster_bits,
        .size_bytes = p->size,
        .crypt_method = (uint32_t)o->encrypt_format,
        .l1_count = (uint32_t)p->l1_count,
        .l1_offset = p->l1_off,
        .reftable_offset = p->reftable_off,
        .reftable_clusters = (uint32_t)p->reftable_clusters,
        .incompatible = (o->data_file ? QCOW2_INCOMPAT_DATA_FILE : 0) |
                        (o->compression ? QCOW2_INCOMPAT_COMPRESSION : 0) |
                        (o->extended_l2 ? QCOW2_INCOMPAT_EXTL2 : 0),
        .compatible = o->lazy_refcounts ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0,
        .autoclear = o->data_file_raw ? QCOW2_AUTOCLEAR_DATA_FILE_RAW : 0,
        .refcount_order = p->refcount_order,
        .compression = (uint8_t)o->compression,
    };
    struct qcow2_exts e = {
        .backing_format = (char *)p->backing_format,
        .data_file = o->data_file,
        .crypto_offset = p->crypto_bytes ? p->crypto_off : 0,
        .crypto_bytes = p->crypto_bytes,
    };
    g_autofree uint8_t *buf = g_malloc0(p->cluster);
    int r = qcow2_header_build(&h, &e, p->backing, buf);
    if (r == -ENOSPC)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s': the names of backing and data file do not fit into the first "
                           "cluster of %" G_GUINT64_FORMAT " bytes; use a larger cluster_size",
                           c->filename, p->cluster);
    if (r == 0)
        r = put(p, c->file, 0, buf, p->cluster);
    return r == 0 || ruche_error_errno(error, -r, "'%s': cannot write the header", c->filename);
}

/* Gives the file its length, and preallocated data its zeroes. */
static bool put_room(const struct plan *p, const struct image_create *c, GError **error)
{
    enum image_prealloc mode = p->data_count ? p->prealloc : PREALLOC_OFF;
    if (mode == PREALLOC_METADATA)
        mode = PREALLOC_OFF;
    if (node_size(c->file) < p->end && !node_resize(c->file, p->end, mode, error))
        return false;
    if (p->fresh || !p->data_count)
        return true;
    int r = node_zero(c->file, p->data_off, p->end - p->data_off, 0);
    return r == 0 || ruche_error_errno(error, -r, "'%s': cannot write zeroes", c->filename);
}

static bool write_image(const struct plan *p, struct image_create *c, GError **error)
{
    int r = 0;
    if (!p->fresh) { /* a device: what was there is no image any more */
        r = node_zero(c->file, 0, min_u64(p->cluster, node_size(c->file)), 0);
        if (r == 0)
            r = node_flush(c->file);
    }
    if (r == 0)
        r = put_tables(p, c->file);
    if (r < 0)
        return ruche_error_errno(error, -r, "'%s': cannot write the tables", c->filename);
    if (p->crypto_bytes && !put_luks(p, c, error))
        return false;
    if (!put_room(p, c, error))
        return false;
    r = p->fresh ? 0 : node_flush(c->file);
    if (r < 0)
        return ruche_error_errno(error, -r, "'%s': cannot sync", c->filename);
    return put_header(p, c, error);
}

/* The data file, of the image's size. */
static bool make_data_file(const struct plan *p, struct image_create *c, GError **error)
{
    g_autofree char *name = name_beside(c->filename, p->o->data_file);
    const char *path = image_files_add(c->files, name ? name : p->o->data_file, error);
    if (!path)
        return false;
    enum image_prealloc mode = p->prealloc == PREALLOC_METADATA ? PREALLOC_OFF : p->prealloc;
    struct node *data = image_create_file(c->graph, path, 0, error);
    bool good = data && (node_size(data) >= p->size || node_resize(data, p->size, mode, error));
    int r = good ? node_flush(data) : 0;
    node_unref(data);
    return r < 0 ? ruche_error_errno(error, -r, "'%s': cannot sync", p->o->data_file) : good;
}

bool qcow2_create(struct image_create *c, GError **error)
{
    struct plan p = {0};
    return plan_make(&p, c, error) && (!p.o->data_file || make_data_file(&p, c, error)) &&
           write_image(&p, c, error);
}
