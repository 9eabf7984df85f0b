/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The bitmap directory and bitmap tables: parsing and building.
 *
 * Spec      qcow2, "Bitmaps extension".
 * Fiber     Reading waits; building never does.
 * Trust     See bitmap.h. What an unknown flag, type or extra data means cannot be guessed:
 *           refused.
 */
#include "image/qcow2/bitmap.h"

#include "base/cursor.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

void bitmap_dir_done(struct bitmap_dir *d)
{
    for (uint32_t i = 0; i < d->count; i++) {
        g_free(d->entries[i].name);
        g_free(d->entries[i].extra);
    }
    g_free(d->entries);
    *d = (struct bitmap_dir){0};
}

static uint64_t entry_bytes(const struct bitmap_entry *e)
{
    return align_up(BITMAP_ENTRY_BYTES + (uint64_t)e->extra_bytes + strlen(e->name), 8);
}

static const char *judge_entry(const struct qcow2 *s, const struct bitmap_entry *e)
{
    uint64_t bits_bytes = (uint64_t)e->table_count << s->cluster_bits;
    if (e->flags & ~BITMAP_FLAGS_KNOWN)
        return "has unknown flags";
    if (e->type != BITMAP_TYPE_DIRTY)
        return "is not a dirty bitmap";
    if (e->extra_bytes && !(e->flags & BITMAP_EXTRA_COMPATIBLE))
        return "has extra data of an unknown kind";
    if (e->granularity_bits < BITMAP_GRANULARITY_BITS_MIN ||
        e->granularity_bits > BITMAP_GRANULARITY_BITS_MAX)
        return "has a granularity outside of 2^9 to 2^31";
    if (e->table_offset % s->cluster_bytes || (e->table_count && !e->table_offset))
        return "has its table at no cluster's offset";
    if (e->table_count > BITMAP_TABLE_MAX || bits_bytes > BITMAP_BYTES_MAX)
        return "is above the limit of 512 MiB";
    uint64_t grains = s->header.size_bytes >> e->granularity_bits;
    if (!(e->flags & BITMAP_IN_USE) && grains > bits_bytes * 8)
        return "is shorter than the disk";
    return NULL;
}

static bool parse_entry(struct qcow2 *s, struct cur *c, struct bitmap_entry *e, const char **why)
{
    size_t before = c->left;
    e->table_offset = cur_be64(c);
    e->table_count = cur_be32(c);
    e->flags = cur_be32(c);
    e->type = cur_u8(c);
    e->granularity_bits = cur_u8(c);
    uint16_t name_len = cur_be16(c);
    e->extra_bytes = cur_be32(c);
    const uint8_t *extra = cur_take(c, e->extra_bytes), *name = cur_take(c, name_len);
    size_t used = before - c->left;
    cur_take(c, align_up(used, 8) - used);
    if (c->bad)
        *why = "reaches past the end of the directory";
    else if (!name_len || name_len > DIRTY_NAME_MAX || memchr(name, 0, name_len))
        *why = "has a name that is empty, too long or not text";
    if (*why)
        return false;
    e->extra = e->extra_bytes ? g_memdup2(extra, e->extra_bytes) : NULL;
    e->name = g_strndup((const char *)name, name_len);
    *why = judge_entry(s, e);
    return !*why;
}

bool bitmap_dir_read(struct qcow2 *s, struct bitmap_dir *ret, GError **error)
{
    *ret = (struct bitmap_dir){0};
    if (!s->ext.has_bitmaps)
        return true;
    uint64_t bytes = s->ext.bitmap_dir_bytes;
    uint32_t count = s->ext.bitmap_count;
    if (count > QCOW2_BITMAPS_MAX || bytes > QCOW2_BITMAP_DIR_BYTES_MAX ||
        bytes < (uint64_t)count * BITMAP_ENTRY_BYTES)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s': a directory of %" PRIu64 " bytes cannot hold %u bitmaps",
                           node_filename(&s->node), bytes, count);
    g_autofree uint8_t *buf = g_try_malloc(bytes + 1);
    int r = buf ? qcow2_meta_read(s, s->ext.bitmap_dir_offset, buf, bytes) : -ENOMEM;
    if (r < 0)
        return ruche_error_errno(error, -r, "'%s': cannot read the bitmap directory",
                                 node_filename(&s->node));
    struct bitmap_dir d = {.entries = g_new0(struct bitmap_entry, count)};
    struct cur c = cur_of(buf, bytes);
    const char *why = NULL;
    while (d.count < count && parse_entry(s, &c, &d.entries[d.count], &why))
        d.count++;
    if (!why) {
        *ret = d;
        return true;
    }
    ruche_error(error, RUCHE_ERR_INVALID, "'%s': bitmap %u of %u in the directory %s",
                node_filename(&s->node), d.count + 1, count, why);
    g_free(d.entries[d.count].name);
    g_free(d.entries[d.count].extra);
    bitmap_dir_done(&d);
    return false;
}

uint64_t bitmap_dir_bytes(const struct bitmap_dir *d)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < d->count; i++)
        bytes += entry_bytes(&d->entries[i]);
    return bytes;
}

static void build_entry(const struct bitmap_entry *e, uint8_t *to)
{
    uint64_t offset = __builtin_bswap64(e->table_offset);
    uint32_t words[] = {__builtin_bswap32(e->table_count), __builtin_bswap32(e->flags)};
    uint16_t name_len = __builtin_bswap16((uint16_t)strlen(e->name));
    uint32_t extra = __builtin_bswap32(e->extra_bytes);
    memset(to, 0, entry_bytes(e));
    memcpy(to, &offset, 8);
    memcpy(to + 8, words, 8);
    to[16] = e->type;
    to[17] = e->granularity_bits;
    memcpy(to + 18, &name_len, 2);
    memcpy(to + 20, &extra, 4);
    if (e->extra_bytes)
        memcpy(to + BITMAP_ENTRY_BYTES, e->extra, e->extra_bytes);
    memcpy(to + BITMAP_ENTRY_BYTES + e->extra_bytes, e->name, strlen(e->name));
}

void bitmap_dir_build(const struct bitmap_dir *d, uint8_t *to)
{
    for (uint32_t i = 0; i < d->count; i++) {
        build_entry(&d->entries[i], to);
        to += entry_bytes(&d->entries[i]);
    }
}

uint64_t *bitmap_table_read(struct qcow2 *s, const struct bitmap_entry *e, uint32_t count,
                            GError **error)
{
    uint64_t *table = g_try_new(uint64_t, (size_t)count + 1);
    int r = table ? qcow2_meta_read(s, e->table_offset, table, (size_t)count * 8) : -ENOMEM;
    if (r < 0) {
        ruche_error_errno(error, -r, "'%s': cannot read the table of bitmap '%s'",
                          node_filename(&s->node), e->name);
        g_free(table);
        return NULL;
    }
    for (uint32_t i = 0; i < count; i++)
        table[i] = __builtin_bswap64(table[i]);
    return table;
}
