/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How large a qcow2 image would become: the numbers that `qemu-img measure` gives.
 *
 * Spec      qemu-img measure: `required` counts metadata as for a fully allocated image.
 * Fiber     A fiber of the source's context.
 * Trust     The source's map is bounded by its size; every step takes at least a byte.
 */
#include "base/error.h"
#include "image/qcow2/internal.h"

#include <string.h>

static uint64_t div_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

/* Header, L1, L2, refcounts of `size` bytes (whole clusters), all of them allocated. 0: too large.
 */
static uint64_t metadata_bytes(const struct qcow2_create_options *o, uint64_t size)
{
    uint64_t cluster = o->cluster_bytes, entry = o->extended_l2 ? 16 : 8;
    unsigned bits = (unsigned)__builtin_ctzll(cluster);
    uint64_t l2_tables = div_up(size / cluster, cluster / entry);
    if (l2_tables * 8 > QCOW2_L1_BYTES_MAX)
        return 0;
    uint64_t meta = cluster + l2_tables * cluster + align_up(l2_tables * 8, cluster);
    return meta + cluster * qcow2_refcount_clusters((meta + size) / cluster, bits,
                                                    (unsigned)__builtin_ctzll(o->refcount_bits),
                                                    NULL);
}

/* The source's file has clusters that take no room: metadata was preallocated. The same rule as the peer's: one in ten,
 * and two at least. */
static bool is_sparse(struct node *source)
{
    struct node *image = node_skip_filters(source), *file = node_file(image);
    if (!file || !image->cluster_bytes)
        return false;
    int64_t allocated = node_allocated_bytes(file);
    if (allocated < 0)
        return false;
    uint64_t real = (uint64_t)allocated / image->cluster_bytes;
    return node_size(file) / image->cluster_bytes >= max_u64(real + real / 9, real + 2);
}

/* Preallocated clusters whose place is a hole of the file below are zero, which only that file knows. */
static void look_below(struct image_extent *e)
{
    struct image_extent below;
    if (!(e->flags & EXTENT_OFFSET) || (e->flags & EXTENT_COMPRESSED) || !e->host ||
        !range_fits(e->host_offset, e->len, node_size(e->host)) ||
        node_map(e->host, e->host_offset, e->len, &below) < 0)
        return;
    e->len = min_u64(e->len, below.len);
    e->flags |= below.flags & EXTENT_ZERO;
}

/* Bytes of the clusters that hold data anywhere in the source's chain. */
static int count_data(struct node *source, uint64_t cluster, uint64_t *ret)
{
    uint64_t size = node_size(source), bytes = 0;
    bool sparse = is_sparse(source);
    for (uint64_t off = 0; off < size;) {
        struct image_extent e;
        unsigned depth;
        int r = node_map_chain(source, NULL, off, size - off, &e, &depth);
        if (r < 0)
            return r;
        if (sparse && (e.flags & EXTENT_DATA))
            look_below(&e);
        uint64_t end = off + e.len;
        if ((e.flags & EXTENT_DATA) && !(e.flags & EXTENT_ZERO)) {
            end = align_up(end, cluster);
            bytes += end - align_down(off, cluster);
        }
        off = end;
    }
    *ret = bytes;
    return 0;
}

static uint64_t bitmaps_bytes(const struct node *source, uint64_t cluster)
{
    uint64_t bytes = 0, directory = 0;
    for (const struct dirty_bitmap *b = source->bitmaps; b; b = b->next) {
        if (!b->persistent || b->inconsistent)
            continue;
        uint64_t clusters = div_up(div_up(b->grain_count, 8), cluster);
        bytes += clusters * cluster + align_up(clusters * 8, cluster);
        directory += align_up(24 + strlen(b->name), 8);
    }
    return bytes + align_up(directory, cluster);
}

bool qcow2_measure(const void *create_options, uint64_t size_bytes, struct node *source,
                   struct image_measure *ret, GError **error)
{
    const struct qcow2_create_options *o = create_options;
    if (!qcow2_cluster_options_check(o, error))
        return false;
    uint64_t cluster = o->cluster_bytes, crypto = 0;
    if (o->encrypt_format == QCOW2_CRYPT_LUKS) {
        crypto = luks_format_bytes(&o->luks, error);
        if (!crypto)
            return false;
    }
    uint64_t given = source ? node_size(source) : size_bytes;
    uint64_t size = align_up(min_u64(given, IMAGE_SIZE_MAX), cluster), required = 0;
    uint64_t meta = metadata_bytes(o, size);
    if (!meta || given > IMAGE_SIZE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "size: %" G_GUINT64_FORMAT
                           " bytes are too much for clusters of %" G_GUINT64_FORMAT
                           "; use a larger cluster_size",
                           given, cluster);
    bool all = o->preallocation == PREALLOC_FALLOC || o->preallocation == PREALLOC_FULL;
    if (all ||
        (source && o->backing_file)) { /* nobody knows yet what the backing file will share */
        required = size;
    } else if (source) {
        int r = count_data(source, cluster, &required);
        if (r < 0)
            return ruche_error_errno(error, -r, "'%s': cannot map", node_name(source));
    }
    uint64_t luks = align_up(crypto, cluster);
    ret->fully_allocated = luks + meta + size;
    ret->required = luks + meta + required;
    bool keeps = !(o->compat & 1) && source && source->driver->bitmap_can_store &&
                 source->driver->bitmap_can_store(source, "b", 2 * GIB, NULL);
    ret->bitmaps = keeps ? bitmaps_bytes(source, cluster) : UINT64_MAX;
    return true;
}
