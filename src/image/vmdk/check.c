/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checking VMDK images: that every grain lies inside its file and belongs to one place only. What
 * is wrong in one copy of the tables is taken from the other one when it is right there.
 *
 * Fiber     All of it.
 * Trust     Bounded by the file's size: a bit for each place where a grain can be.
 */
#include "image/vmdk/vmdk.h"

#include "base/cursor.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define USED_BYTES_MAX (64 * MIB)

struct check {
    struct vmdk_extent *e;
    struct image_check *ret;
    unsigned fix, reports;
    uint64_t unit; /* of the places in `used` */
    uint8_t *used;
    uint64_t used_bits, last_host;
    uint32_t *spare; /* the redundant copy of the table */
};

static void G_GNUC_PRINTF(2, 3) report(struct check *c, const char *format, ...)
{
    if (!c->ret->report || c->reports++ >= CHECK_REPORT_MAX)
        return;
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    c->ret->report(text, c->ret->opaque);
}

static bool has_data(const struct vmdk_extent *e, uint32_t entry)
{
    return entry != VMDK_GTE_UNALLOCATED && !(entry == VMDK_GTE_ZERO && e->zero_grains);
}

/* Where no grain may be: NULL, or what is wrong. */
static const char *misplaced(const struct check *c, uint32_t entry)
{
    const struct vmdk_extent *e = c->e;
    uint64_t host = (uint64_t)entry * VMDK_SECTOR, size = node_size(e->file);
    uint64_t directory = e->directory_count * sizeof(uint32_t);
    if (host >= size)
        return "is behind the end of the file";
    if (host < e->data_begin ||
        (host < e->directory_offset + directory && host >= e->directory_offset) ||
        (e->redundant && host < e->redundant_offset + directory && host >= e->redundant_offset))
        return "lies over the metadata";
    uint64_t bit = host / c->unit;
    if (bit < c->used_bits && c->used[bit / 8] & 1 << bit % 8)
        return "belongs to another grain, too";
    return NULL;
}

static void mark_used(struct check *c, uint32_t entry)
{
    uint64_t host = (uint64_t)entry * VMDK_SECTOR, bit = host / c->unit;
    if (bit < c->used_bits)
        c->used[bit / 8] |= (uint8_t)(1 << bit % 8);
    c->ret->allocated_clusters++;
    c->ret->compressed_clusters += c->e->compressed;
    c->ret->fragmented_clusters +=
        c->last_host && host != c->last_host + c->e->grain_bytes && !c->e->compressed;
    c->last_host = host;
}

/* The marker in front of a compressed grain says which one it is. */
static const char *wrong_marker(const struct check *c, uint64_t grain, uint32_t entry)
{
    uint8_t bytes[12];
    if (!c->e->markers)
        return NULL;
    if (node_pread(c->e->file, (uint64_t)entry * VMDK_SECTOR, bytes, sizeof(bytes)) < 0)
        return "cannot be read";
    struct cur m = cur_of(bytes, sizeof(bytes));
    return cur_le64(&m) == grain * (c->e->grain_bytes / VMDK_SECTOR) && cur_le32(&m)
               ? NULL
               : "has the marker of another one";
}

static bool repair_entry(struct check *c, uint64_t grain, uint32_t other, uint32_t *ret)
{
    if (!(c->fix & CHECK_FIX_ERRORS))
        return false;
    bool good = has_data(c->e, other) && !misplaced(c, other);
    *ret = good ? other : VMDK_GTE_UNALLOCATED;
    report(c, "Repaired: grain %" PRIu64 " of '%s' is now %s", grain, c->e->filename,
           good ? "where the redundant table says" : "not allocated");
    c->ret->corruptions_fixed++;
    return vmdk_set_entries(c->e, grain, 1, *ret, 0) >= 0;
}

static int check_table(struct check *c, uint32_t table, uint32_t *entries)
{
    struct vmdk_extent *e = c->e;
    uint64_t first = (uint64_t)table * e->table_entries;
    unsigned count = (unsigned)min_u64(e->table_entries, e->grain_count - first);
    uint32_t *t;
    int r = map_cache_get(&e->image->tables, vmdk_table_key(e, table), &t);
    if (r < 0)
        return r;
    memcpy(entries, t, count * sizeof(*t)); /* what follows waits */
    uint64_t at = e->redundant ? (uint64_t)e->redundant[table] * VMDK_SECTOR : 0;
    uint64_t bytes = count * sizeof(*t);
    bool spare = at && range_fits(at, bytes, node_size(e->file)) &&
                 node_pread(e->file, at, c->spare, bytes) >= 0;
    for (unsigned i = 0; i < count; i++) {
        if (!has_data(e, entries[i]))
            continue;
        const char *wrong = misplaced(c, entries[i]);
        if (!wrong && e->compressed)
            wrong = wrong_marker(c, first + i, entries[i]);
        if (wrong) {
            report(c, "ERROR: grain %" PRIu64 " of '%s' at sector %u %s", first + i, e->filename,
                   entries[i], wrong);
            c->ret->corruptions++;
            if (!repair_entry(c, first + i, spare ? c->spare[i] : 0, &entries[i]) ||
                !has_data(e, entries[i]))
                continue;
        }
        mark_used(c, entries[i]);
    }
    return 0;
}

static bool table_fits(const struct vmdk_extent *e, const uint32_t *directory, uint32_t table)
{
    return directory && directory[table] &&
           range_fits((uint64_t)directory[table] * VMDK_SECTOR, e->table_entries * sizeof(uint32_t),
                      node_size(e->file));
}

/* A directory entry that points nowhere: the redundant one, or none. */
static int check_directory(struct check *c, uint32_t table)
{
    struct vmdk_extent *e = c->e;
    if (!e->directory[table] || table_fits(e, e->directory, table))
        return 0;
    report(c, "ERROR: grain table %u of '%s' at sector %u is not inside the file", table,
           e->filename, e->directory[table]);
    c->ret->corruptions++;
    if (!(c->fix & CHECK_FIX_ERRORS) || e->at_end)
        return 1;
    uint32_t better = table_fits(e, e->redundant, table) ? e->redundant[table] : 0;
    int r = node_pwrite(e->file, e->directory_offset + table * sizeof(better), &better,
                        sizeof(better), 0);
    if (r < 0)
        return r;
    e->directory[table] = better;
    c->ret->corruptions_fixed++;
    return !better;
}

static int check_extent(struct check *c)
{
    struct vmdk_extent *e = c->e;
    g_autofree uint32_t *entries = g_try_malloc_n(2 * e->table_entries, sizeof(uint32_t));
    c->unit = e->compressed ? VMDK_SECTOR : e->grain_bytes;
    c->used_bits = min_u64(node_size(e->file), (uint64_t)UINT32_MAX * VMDK_SECTOR) / c->unit + 1;
    if (c->used_bits / 8 > USED_BYTES_MAX) {
        report(c, "'%s' is too large to find grains that share their place", e->filename);
        c->used_bits = 0;
    }
    g_autofree uint8_t *used = g_try_malloc0(c->used_bits / 8 + 1);
    if (!entries || !used)
        return -ENOMEM;
    c->used = used;
    c->spare = entries + e->table_entries;
    c->last_host = 0;
    c->ret->total_clusters += e->grain_count;
    c->ret->image_end_offset += node_size(e->file);
    int r = 0;
    for (uint32_t i = 0; r >= 0 && i < e->directory_count; i++) {
        r = check_directory(c, i);
        if (r == 0 && (e->directory[i] || e->at_end))
            r = check_table(c, i, entries);
    }
    return r;
}

bool vmdk_check(struct node *n, unsigned fix, struct image_check *ret, GError **error)
{
    struct vmdk *v = vmdk_of(n);
    struct check c = {.ret = ret, .fix = n->read_only ? 0 : fix};
    int r = 0;
    for (unsigned i = 0; r >= 0 && i < v->extent_count; i++) {
        c.e = &v->extents[i];
        if (c.e->kind == VMDK_SPARSE || c.e->kind == VMDK_COWD)
            r = check_extent(&c);
    }
    if (r >= 0 && c.fix)
        r = vmdk_flush(n);
    return r >= 0 || ruche_error_errno(error, -r, "image '%s' cannot be checked", n->filename);
}
