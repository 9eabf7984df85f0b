/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Grain tables between memory and file.
 *
 * Fiber     All of it, called by the cache (image/mapcache.h).
 * Trust     A table's place is checked against the file; its entries are checked by those who use
 * them.
 */
#include "image/vmdk/vmdk.h"

#include <errno.h>
#include <string.h>

static struct vmdk_extent *extent_of(struct vmdk *v, uint64_t key, uint32_t *ret_table)
{
    *ret_table = (uint32_t)key;
    return &v->extents[key >> 32];
}

static int load(void *opaque, uint64_t key, uint32_t *entries)
{
    struct vmdk *v = opaque;
    uint32_t table;
    struct vmdk_extent *e = extent_of(v, key, &table);
    uint64_t bytes = e->table_entries * sizeof(uint32_t);
    uint64_t at = (uint64_t)e->directory[table] * VMDK_SECTOR;
    if (!at) {
        memset(entries, 0, bytes);
        return 0;
    }
    if (!range_fits(at, bytes, node_size(e->file)))
        return node_corrupt(&v->node, false, (int64_t)at, bytes,
                            "%s: grain table %u at sector %u is not inside the file", e->filename,
                            table, e->directory[table]);
    return node_pread(e->file, at, entries, bytes);
}

static int barrier(void *opaque)
{
    struct vmdk *v = opaque;
    int r = 0;
    for (unsigned i = 0; r >= 0 && i < v->extent_count; i++)
        if (v->extents[i].kind == VMDK_SPARSE)
            r = node_flush(v->extents[i].file);
    return r;
}

/* How many of the tables lie behind one another in the file, as they do in memory. */
static unsigned neighbours(const struct vmdk_extent *e, const uint32_t *sectors,
                           const uint64_t *keys, unsigned count, bool dense)
{
    uint32_t first = (uint32_t)keys[0],
             step = (uint32_t)(e->table_entries * sizeof(uint32_t) / VMDK_SECTOR);
    unsigned n = 1;
    while (dense && n < count && keys[n] == keys[0] + n &&
           sectors[first + n] == sectors[first] + n * step)
        n++;
    return n;
}

/* Tables of one extent, in one of its two copies. */
static int store_copy(struct vmdk_extent *e, const uint32_t *sectors, const uint64_t *keys,
                      const uint32_t *pages, unsigned count)
{
    unsigned stride = e->image->tables.page_entries;
    uint64_t bytes = e->table_entries * sizeof(uint32_t);
    bool dense = stride == e->table_entries && bytes % VMDK_SECTOR == 0;
    for (unsigned i = 0, n; i < count; i += n) {
        n = neighbours(e, sectors, keys + i, count - i, dense);
        uint64_t at = (uint64_t)sectors[(uint32_t)keys[i]] * VMDK_SECTOR;
        if (at < VMDK_SECTOR)
            continue; /* the redundant directory lacks it */
        int r = node_pwrite(e->file, at, pages + (size_t)i * stride, n * bytes, 0);
        if (r < 0)
            return r;
    }
    return 0;
}

static int store_extent(struct vmdk_extent *e, const uint64_t *keys, const uint32_t *pages,
                        unsigned count)
{
    int r = 0;
    for (unsigned i = 0; e->at_end && r >= 0 && i < count; i++)
        r = vmdk_stream_store_table(e, (uint32_t)keys[i],
                                    pages + (size_t)i * e->image->tables.page_entries);
    if (e->at_end)
        return r;
    if (e->redundant)
        r = store_copy(e, e->redundant, keys, pages, count);
    return r < 0 ? r : store_copy(e, e->directory, keys, pages, count);
}

static int store(void *opaque, const uint64_t *keys, const uint32_t *pages, unsigned count)
{
    struct vmdk *v = opaque;
    for (unsigned i = 0, n; i < count; i += n) {
        for (n = 1; i + n < count && keys[i + n] >> 32 == keys[i] >> 32; n++)
            ;
        int r = store_extent(&v->extents[keys[i] >> 32], keys + i,
                             pages + (size_t)i * v->tables.page_entries, n);
        if (r < 0)
            return r;
    }
    return 0;
}

const struct map_ops vmdk_map_ops = {.load = load, .barrier = barrier, .store = store};
