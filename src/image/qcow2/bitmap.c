/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Persistent dirty bitmaps: loaded and marked "in use" when the image is opened for writing,
 * stored when it is closed or becomes read-only.
 *
 * Spec      qcow2, "Bitmaps extension".
 * Owner     s->bitmap_dir is what the image has on disk; the bitmaps themselves are the node's.
 * Fiber     Everything but can_store, resize and describe.
 * Trust     The directory is checked by bitmap_dir.c; tables entry by entry here; the bits of all
 *           bitmaps together are capped before they take memory.
 * Order     "In use" is on disk before the first write of a guest. A new directory, its tables and
 *           bits are written and counted (commit) before the header points to them; what it
 *           replaced is freed afterwards. After a crash the bitmaps are found "in use" and
 *           inconsistent, or not at all; nothing else is wrong but leaks.
 */
#include "image/qcow2/bitmap.h"

#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define ALL_BITS_MAX (1 * GIB) /* bytes of all bitmaps of an image */

static uint64_t grains_of(const struct qcow2 *s, uint8_t granularity_bits)
{
    uint64_t size = s->header.size_bytes;
    return (size >> granularity_bits) + ((size & ((1ULL << granularity_bits) - 1)) != 0);
}

static struct bitmap_entry *find_entry(const struct qcow2 *s, const char *name)
{
    struct bitmap_dir *d = s->bitmap_dir;
    for (uint32_t i = 0; d && i < d->count; i++)
        if (!strcmp(d->entries[i].name, name))
            return &d->entries[i];
    return NULL;
}

static void free_dir(struct qcow2 *s)
{
    if (s->bitmap_dir)
        bitmap_dir_done(s->bitmap_dir);
    g_clear_pointer(&s->bitmap_dir, g_free);
}

void qcow2_bitmaps_free(struct qcow2 *s)
{
    free_dir(s);
}

/* ---- loading ---- */

static int load_bits(struct qcow2 *s, const uint64_t *table, uint32_t count, struct dirty_bitmap *b)
{
    uint64_t per_cluster = (uint64_t)s->cluster_bytes * 8;
    g_autofree uint8_t *buf = g_try_malloc(s->cluster_bytes);
    int r = buf ? 0 : -ENOMEM;
    for (uint32_t i = 0; r == 0 && i < count && i * per_cluster < b->grain_count; i++) {
        uint64_t off = table[i] & BITMAP_TABLE_OFFSET, first = i * per_cluster;
        uint64_t grains = min_u64(per_cluster, b->grain_count - first);
        if ((table[i] & BITMAP_TABLE_RESERVED) || off % s->cluster_bytes)
            return -EINVAL;
        if (!off && !(table[i] & BITMAP_TABLE_ONES))
            continue;
        if (off)
            r = qcow2_meta_read(s, off, buf, s->cluster_bytes);
        else
            memset(buf, 0xff, s->cluster_bytes);
        if (r == 0)
            dirty_load(b, first, grains, buf);
    }
    return r;
}

static bool load_one(struct qcow2 *s, const struct bitmap_entry *e, GError **error)
{
    struct dirty_bitmap *b = dirty_new(&s->node, 0, e->name, 1u << e->granularity_bits, error);
    if (!b)
        return false;
    b->persistent = true;
    b->inconsistent = e->flags & BITMAP_IN_USE;
    b->enabled = !b->inconsistent && (e->flags & BITMAP_AUTO);
    b->read_only = s->node.read_only;
    if (b->inconsistent)
        return true;
    /* The table may be longer than the disk needs. */
    uint64_t per_cluster = (uint64_t)s->cluster_bytes * 8;
    uint32_t count = (uint32_t)min_u64(e->table_count, b->grain_count / per_cluster + 1);
    g_autofree uint64_t *table = bitmap_table_read(s, e, count, error);
    if (!table)
        return false;
    int r = load_bits(s, table, count, b);
    return r == 0 || ruche_error_errno(error, -r, "'%s': bitmap '%s' cannot be read",
                                       node_filename(&s->node), e->name);
}

static bool load_all(struct qcow2 *s, GError **error)
{
    uint64_t bytes = 0;
    s->bitmap_dir = g_new0(struct bitmap_dir, 1);
    if (!bitmap_dir_read(s, s->bitmap_dir, error))
        return false;
    for (uint32_t i = 0; i < s->bitmap_dir->count; i++)
        bytes += grains_of(s, s->bitmap_dir->entries[i].granularity_bits) / 8;
    if (bytes > ALL_BITS_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s': its bitmaps take %" PRIu64 " bytes of memory; the limit is %llu",
                           node_filename(&s->node), bytes, ALL_BITS_MAX);
    bool bits = !(s->node.open_flags & NODE_NO_IO);
    for (uint32_t i = 0; bits && i < s->bitmap_dir->count; i++)
        if (!load_one(s, &s->bitmap_dir->entries[i], error))
            return false;
    return true;
}

static int write_dir_in_place(struct qcow2 *s)
{
    g_autofree uint8_t *buf = g_try_malloc(s->ext.bitmap_dir_bytes + 1);
    if (!buf || bitmap_dir_bytes(s->bitmap_dir) != s->ext.bitmap_dir_bytes)
        return buf ? -EINVAL : -ENOMEM;
    bitmap_dir_build(s->bitmap_dir, buf);
    int r = qcow2_meta_write(s, QCOW2_SECTION_BITMAPS, s->ext.bitmap_dir_offset, buf,
                             s->ext.bitmap_dir_bytes);
    return r < 0 ? r : qcow2_meta_sync(s);
}

static bool mark_in_use(struct qcow2 *s, GError **error)
{
    bool any = false;
    for (uint32_t i = 0; i < s->bitmap_dir->count; i++) {
        struct bitmap_entry *e = &s->bitmap_dir->entries[i];
        any = any || !(e->flags & BITMAP_IN_USE);
        e->flags |= BITMAP_IN_USE;
    }
    int r = any ? write_dir_in_place(s) : 0;
    return r == 0 || ruche_error_errno(error, -r, "'%s': cannot mark its bitmaps as in use",
                                       node_filename(&s->node));
}

bool qcow2_bitmaps_load(struct qcow2 *s, GError **error)
{
    bool read_only = s->node.read_only;
    if (!s->bitmap_dir && !load_all(s, error)) {
        free_dir(s);
        if (!(s->node.open_flags & NODE_CHECK))
            return false;
        g_clear_error(error); /* the check finds and says it again */
        return true;
    }
    for (struct dirty_bitmap *b = s->node.bitmaps; b; b = b->next)
        b->read_only = read_only && b->persistent;
    if (read_only || (s->node.open_flags & (NODE_NO_IO | NODE_CHECK)))
        return true;
    return mark_in_use(s, error);
}

/* ---- storing ---- */

/* Everything that a stored bitmap takes goes back. */
static void free_entry(struct qcow2 *s, const struct bitmap_entry *e)
{
    g_autofree uint64_t *table =
        e->table_count ? bitmap_table_read(s, e, e->table_count, NULL) : NULL;
    for (uint32_t i = 0; table && i < e->table_count; i++) {
        uint64_t off = table[i] & BITMAP_TABLE_OFFSET;
        if (off && off % s->cluster_bytes == 0)
            qcow2_free_later(s, off, s->cluster_bytes, QCOW2_DISCARD_OTHER);
    }
    if (table)
        qcow2_free_later(s, e->table_offset, (uint64_t)e->table_count * 8, QCOW2_DISCARD_OTHER);
}

static bool is_ones(const uint8_t *buf, size_t len)
{
    return buf[0] == 0xff && !memcmp(buf, buf + 1, len - 1);
}

/* Writes the bits and fills the table (big-endian). */
static int store_bits(struct qcow2 *s, const struct dirty_bitmap *b, uint64_t *table,
                      uint32_t count)
{
    uint64_t per_cluster = (uint64_t)s->cluster_bytes * 8;
    g_autofree uint8_t *buf = g_try_malloc(s->cluster_bytes);
    int r = buf ? 0 : -ENOMEM;
    for (uint32_t i = 0; r == 0 && i < count; i++) {
        uint64_t first = i * per_cluster, grains = min_u64(per_cluster, b->grain_count - first),
                 off;
        memset(buf, 0, s->cluster_bytes);
        dirty_store(b, first, grains, buf);
        if (bytes_are_zero(buf, s->cluster_bytes))
            continue;
        if (is_ones(buf, s->cluster_bytes)) {
            table[i] = __builtin_bswap64(BITMAP_TABLE_ONES);
            continue;
        }
        r = qcow2_alloc_bytes(s, s->cluster_bytes, &off);
        if (r < 0)
            break;
        table[i] = __builtin_bswap64(off);
        r = qcow2_meta_write(s, 0, off, buf, s->cluster_bytes);
    }
    return r;
}

static void undo_bits(struct qcow2 *s, const uint64_t *table, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t off = __builtin_bswap64(table[i]) & BITMAP_TABLE_OFFSET;
        if (off)
            qcow2_free_now(s, off, s->cluster_bytes);
    }
}

/* A new entry for b, with its bits and table on disk. */
static int store_one(struct qcow2 *s, const struct dirty_bitmap *b, struct bitmap_entry *ret)
{
    uint64_t per_cluster = (uint64_t)s->cluster_bytes * 8;
    uint64_t count = b->grain_count / per_cluster + (b->grain_count % per_cluster != 0);
    g_autofree uint64_t *table = g_try_new0(uint64_t, count + 1);
    uint64_t off = 0;
    int r = table ? store_bits(s, b, table, (uint32_t)count) : -ENOMEM;
    if (r == 0 && count)
        r = qcow2_alloc_bytes(s, count * 8, &off);
    if (r == 0 && count) {
        r = qcow2_meta_write(s, 0, off, table, count * 8);
        if (r < 0)
            qcow2_free_now(s, off, count * 8);
    }
    if (r < 0) {
        if (table)
            undo_bits(s, table, (uint32_t)count);
        return r;
    }
    const struct bitmap_entry *old = find_entry(s, b->name);
    *ret = (struct bitmap_entry){
        .name = g_strdup(b->name),
        .table_offset = off,
        .table_count = (uint32_t)count,
        .flags = (b->enabled ? BITMAP_AUTO : 0) | (old ? old->flags & BITMAP_EXTRA_COMPATIBLE : 0),
        .type = BITMAP_TYPE_DIRTY,
        .granularity_bits = (uint8_t)__builtin_ctz(b->granularity),
        .extra = old && old->extra ? g_memdup2(old->extra, old->extra_bytes) : NULL,
        .extra_bytes = old ? old->extra_bytes : 0,
    };
    return 0;
}

static struct bitmap_entry copy_entry(const struct bitmap_entry *e)
{
    struct bitmap_entry copy = *e;
    copy.name = g_strdup(e->name);
    copy.extra = e->extra ? g_memdup2(e->extra, e->extra_bytes) : NULL;
    return copy;
}

/* The directory in new clusters, counted and synced. */
static int write_dir(struct qcow2 *s, const struct bitmap_dir *d, uint64_t *ret_off,
                     uint64_t *ret_bytes)
{
    uint64_t bytes = bitmap_dir_bytes(d);
    *ret_off = 0;
    *ret_bytes = bytes;
    if (bytes > QCOW2_BITMAP_DIR_BYTES_MAX)
        return -EFBIG;
    g_autofree uint8_t *buf = g_try_malloc0(bytes + 1);
    int r = !buf ? -ENOMEM : d->count ? qcow2_alloc_bytes(s, bytes, ret_off) : 0;
    if (r == 0 && d->count) {
        bitmap_dir_build(d, buf);
        r = qcow2_meta_write(s, 0, *ret_off, buf, bytes);
        if (r < 0)
            qcow2_free_now(s, *ret_off, bytes);
    }
    return r < 0 ? r : qcow2_commit(s, true);
}

static int set_autoclear(struct qcow2 *s, bool on)
{
    uint64_t before = s->header.autoclear;
    s->header.autoclear &= ~(uint64_t)QCOW2_AUTOCLEAR_BITMAPS;
    s->header.autoclear |= on ? QCOW2_AUTOCLEAR_BITMAPS : 0;
    if (s->header.autoclear == before)
        return 0;
    int r = qcow2_header_write_fields(s);
    if (r == 0)
        r = qcow2_meta_sync(s);
    if (r < 0)
        s->header.autoclear = before;
    return r;
}

/* The extension may lie across sectors: while it changes, the bit that makes it valid is off. */
static int write_ext(struct qcow2 *s, const struct bitmap_dir *d, uint64_t off, uint64_t bytes)
{
    struct qcow2_exts before = s->ext;
    int r = set_autoclear(s, false);
    if (r < 0)
        return r;
    s->ext.has_bitmaps = d->count > 0;
    s->ext.bitmap_count = d->count;
    s->ext.bitmap_dir_offset = off;
    s->ext.bitmap_dir_bytes = bytes;
    r = qcow2_header_write(s);
    if (r == 0)
        r = qcow2_meta_sync(s);
    if (r == 0)
        r = set_autoclear(s, d->count > 0);
    if (r < 0)
        s->ext = before;
    return r;
}

/* What the former directory, and only it, referred to. */
static void free_former(struct qcow2 *s, struct bitmap_dir *old, uint64_t dir_off,
                        uint64_t dir_bytes)
{
    for (uint32_t i = 0; old && i < old->count; i++) {
        const struct bitmap_entry *kept = find_entry(s, old->entries[i].name);
        if (!kept || kept->table_offset != old->entries[i].table_offset)
            free_entry(s, &old->entries[i]);
    }
    if (old)
        bitmap_dir_done(old);
    g_free(old);
    if (dir_bytes)
        qcow2_free_later(s, dir_off, dir_bytes, QCOW2_DISCARD_OTHER);
}

/* The image gets the directory *d, which is taken over. */
static int replace_dir(struct qcow2 *s, struct bitmap_dir *d)
{
    uint64_t old_off = s->ext.bitmap_dir_offset, off, bytes;
    uint64_t old_bytes = s->ext.has_bitmaps ? s->ext.bitmap_dir_bytes : 0;
    int r = write_dir(s, d, &off, &bytes);
    if (r == 0)
        r = write_ext(s, d, off, bytes);
    if (r < 0)
        return r;
    struct bitmap_dir *old = s->bitmap_dir;
    s->bitmap_dir = g_memdup2(d, sizeof(*d));
    free_former(s, old, old_off, old_bytes);
    r = qcow2_commit_and_free(s);
    return r < 0 ? r : qcow2_places_rebuild(s);
}

static unsigned count_persistent(const struct node *n)
{
    unsigned count = 0;
    for (const struct dirty_bitmap *b = n->bitmaps; b; b = b->next)
        count += b->persistent;
    return count;
}

/* What is to be on disk: every persistent bitmap, the inconsistent ones as they are there. */
static int store_all(struct qcow2 *s, struct bitmap_dir *d, const char **ret_name)
{
    d->entries = g_new0(struct bitmap_entry, count_persistent(&s->node) + 1);
    for (const struct dirty_bitmap *b = s->node.bitmaps; b; b = b->next) {
        if (!b->persistent)
            continue;
        const struct bitmap_entry *old = find_entry(s, b->name);
        *ret_name = b->name;
        if (b->inconsistent && old) {
            d->entries[d->count++] = copy_entry(old);
            continue;
        }
        int r = b->inconsistent ? 0 : store_one(s, b, &d->entries[d->count]);
        if (r < 0)
            return r;
        d->count += !b->inconsistent;
    }
    return 0;
}

bool qcow2_bitmaps_store(struct qcow2 *s, GError **error)
{
    struct node *n = &s->node;
    bool none = !count_persistent(n) && !s->ext.has_bitmaps;
    if (!s->bitmap_dir || n->read_only || none || n->corrupt ||
        (n->open_flags & (NODE_NO_IO | NODE_CHECK)))
        return true;
    struct bitmap_dir d = {0};
    const char *name = "";
    int r = store_all(s, &d, &name);
    if (r == 0)
        r = replace_dir(s, &d);
    if (r == 0) {
        for (struct dirty_bitmap *b = n->bitmaps; b; b = b->next)
            b->read_only = b->persistent;
        return true;
    }
    for (uint32_t i = 0; i < d.count; i++) {
        const struct bitmap_entry *old = find_entry(s, d.entries[i].name);
        if (!old || old->table_offset != d.entries[i].table_offset)
            free_entry(s, &d.entries[i]);
    }
    bitmap_dir_done(&d);
    return ruche_error_errno(error, -r,
                             "'%s': cannot store bitmap '%s'; it is inconsistent from now on",
                             node_filename(n), name);
}

/* ---- by name ---- */

bool qcow2_bitmap_can_store(struct node *n, const char *name, uint64_t granularity, GError **error)
{
    struct qcow2 *s = qcow2_of(n);
    const char *file = node_filename(n);
    if (s->header.version < 3)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "'%s': bitmaps cannot be stored in version 2 (compat=0.10)", file);
    if (!*name || strlen(name) > DIRTY_NAME_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s': the name of a bitmap has 1 to %d bytes, not %zu", file,
                           DIRTY_NAME_MAX, strlen(name));
    if (!is_power_of_2(granularity) || granularity < 1ULL << BITMAP_GRANULARITY_BITS_MIN ||
        granularity > 1ULL << BITMAP_GRANULARITY_BITS_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "bitmap '%s': granularity %" PRIu64
                           " is not a power of two between 512 and 2 GiB",
                           name, granularity);
    if (count_persistent(n) >= QCOW2_BITMAPS_MAX)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "'%s' has %d bitmaps already; that is the limit", file,
                           QCOW2_BITMAPS_MAX);
    if (grains_of(s, (uint8_t)__builtin_ctzll(granularity)) / 8 > BITMAP_BYTES_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "bitmap '%s': a granularity of %" PRIu64
                           " makes it larger than 512 MiB; "
                           "choose a larger one",
                           name, granularity);
    return true;
}

bool qcow2_bitmap_forget(struct node *n, const char *name, GError **error)
{
    struct qcow2 *s = qcow2_of(n);
    const struct bitmap_entry *gone = find_entry(s, name);
    if (!gone)
        return true; /* never stored */
    if (n->read_only)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "'%s' is open read-only: bitmap '%s' cannot be removed",
                           node_filename(n), name);
    struct bitmap_dir d = {.entries = g_new0(struct bitmap_entry, s->bitmap_dir->count)};
    for (uint32_t i = 0; i < s->bitmap_dir->count; i++) {
        if (&s->bitmap_dir->entries[i] != gone)
            d.entries[d.count++] = copy_entry(&s->bitmap_dir->entries[i]);
    }
    int r = replace_dir(s, &d);
    if (r == 0)
        return true;
    bitmap_dir_done(&d);
    return ruche_error_errno(error, -r, "'%s': cannot remove bitmap '%s'", node_filename(n), name);
}

bool qcow2_bitmaps_fit(struct qcow2 *s, uint64_t size_bytes, GError **error)
{
    for (const struct dirty_bitmap *b = s->node.bitmaps; b; b = b->next) {
        if (b->persistent && !b->inconsistent &&
            size_bytes / b->granularity / 8 >= BITMAP_BYTES_MAX)
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "bitmap '%s' would be larger than 512 MiB for a disk of %" PRIu64
                               " bytes; remove it first",
                               b->name, size_bytes);
    }
    return true;
}

JsonArray *qcow2_bitmaps_describe(struct qcow2 *s)
{
    if (!s->bitmap_dir || !s->bitmap_dir->count)
        return NULL;
    JsonArray *all = json_array_new();
    for (uint32_t i = 0; i < s->bitmap_dir->count; i++) {
        const struct bitmap_entry *e = &s->bitmap_dir->entries[i];
        JsonArray *flags = json_array_new();
        if (e->flags & BITMAP_IN_USE)
            json_array_add_string_element(flags, "in-use");
        if (e->flags & BITMAP_AUTO)
            json_array_add_string_element(flags, "auto");
        JsonObject *one = json_object_new();
        g_autofree char *name = g_utf8_make_valid(e->name, -1);
        json_object_set_array_member(one, "flags", flags);
        json_object_set_string_member(one, "name", name);
        json_object_set_int_member(one, "granularity", 1LL << e->granularity_bits);
        json_array_add_object_element(all, one);
    }
    return all;
}
