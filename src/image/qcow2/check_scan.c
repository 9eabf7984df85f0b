/* SPDX-License-Identifier: GPL-2.0-or-later */
/* First half of a check: goes through every table of the image and counts what it refers to.
 *
 * Fiber     A fiber of the node's context; L2 tables are read by tables_walk().
 * Trust     Each entry is judged before its reference is counted; what lies outside of the file is
 *           not counted.
 */
#include "image/qcow2/bitmap.h"
#include "image/qcow2/check.h"

#include "base/error.h"

#include <errno.h>
#include <inttypes.h>

/* ---- metadata ---- */

/* Counts clusters of metadata. False: it lies outside of the file or on top of other metadata;
 * reported as `found`. */
static bool count_meta_as(struct check *c, enum found found, const char *what, uint64_t off,
                          uint64_t bytes)
{
    unsigned bits = c->s->cluster_bits;
    uint64_t first = off >> bits, last = (off + max_u64(bytes, 1) - 1) >> bits;
    if (last >= c->file_clusters || off + bytes < off) {
        check_found(c, found,
                    "%s: %" PRIu64 " bytes at offset 0x%" PRIx64 " reach past the end of the file",
                    what, bytes, off);
        return false;
    }
    bool alone = true;
    for (uint64_t i = first; i <= last; i++) {
        alone = alone && !tally_get(&c->t, i);
        if (tally_add(&c->t, i, 1, TALLY_META) < 0)
            return false;
    }
    if (!alone)
        check_found(c, found, "%s at offset 0x%" PRIx64 " lies on top of other metadata", what,
                    off);
    return alone;
}

static bool count_meta(struct check *c, const char *what, uint64_t off, uint64_t bytes)
{
    return count_meta_as(c, FOUND_CORRUPTION, what, off, bytes);
}

/* What is wrong with the refcount structures themselves is mended by making them anew. */
static enum found found_in_refcounts(const struct check *c)
{
    return c->fix & CHECK_FIX_ERRORS ? FOUND_FIXED : FOUND_CORRUPTION;
}

static int scan_blocks(struct check *c)
{
    struct qcow2 *s = c->s;
    for (uint64_t i = 0; i < c->reftable_count; i++) {
        uint64_t off = c->reftable[i];
        if (!off)
            continue;
        if (off % s->cluster_bytes) {
            check_found(c, found_in_refcounts(c),
                        "refcount table entry %" PRIu64 ": 0x%" PRIx64 " is not a cluster's offset",
                        i, off);
        } else if (count_meta_as(c, found_in_refcounts(c), "refcount block", off,
                                 s->cluster_bytes)) {
            struct table_ref ref = {.offset = off, .uses = 1, .index = i};
            int r = table_list_add(&c->blocks, &ref);
            if (r < 0)
                return r;
            continue;
        }
        c->reftable[i] = 0;
        c->rebuild = true;
    }
    table_list_merge(&c->blocks);
    return 0;
}

static int scan_refcounts(struct check *c)
{
    struct qcow2 *s = c->s;
    uint64_t bytes = (uint64_t)s->header.reftable_clusters << s->cluster_bits;
    if (bytes > QCOW2_REFTABLE_BYTES_MAX)
        return -EFBIG;
    c->reftable = g_try_malloc0(bytes + 8);
    if (!c->reftable)
        return -ENOMEM;
    if (!bytes || !count_meta_as(c, found_in_refcounts(c), "refcount table",
                                 s->header.reftable_offset, bytes)) {
        c->rebuild = true;
        return 0;
    }
    int r = qcow2_meta_read(s, s->header.reftable_offset, c->reftable, bytes);
    if (r < 0)
        return r;
    c->reftable_count = bytes / 8;
    for (uint64_t i = 0; i < c->reftable_count; i++)
        c->reftable[i] = __builtin_bswap64(c->reftable[i]);
    return scan_blocks(c);
}

static int scan_l1(struct check *c, const char *what, uint64_t off, uint64_t count, bool active)
{
    struct qcow2 *s = c->s;
    if (!count || !count_meta(c, what, off, count * 8))
        return 0;
    g_autoptr(GError) error = NULL;
    g_autofree uint64_t *l1 = tree_read_l1(s, off, count, &error);
    if (!l1)
        return -EIO;
    int r = 0;
    for (uint64_t i = 0; r == 0 && i < count; i++) {
        struct table_ref ref = {.offset = l1[i] & QCOW2_OFFSET_MASK, .uses = 1, .active = active};
        if (active && ref.offset)
            ref.index = l1[i] & QCOW2_COPIED ? TALLY_COPIED : TALLY_PLAIN;
        if (l1[i] & QCOW2_L1_RESERVED)
            check_found(c, FOUND_CORRUPTION,
                        "%s entry %" PRIu64 ": 0x%" PRIx64 " has reserved bits set", what, i,
                        l1[i]);
        if (ref.offset % s->cluster_bytes)
            check_found(c, FOUND_CORRUPTION,
                        "%s entry %" PRIu64 ": 0x%" PRIx64 " is not a cluster's offset", what, i,
                        ref.offset);
        else if (ref.offset >> s->cluster_bits >= c->file_clusters)
            check_found(c, FOUND_CORRUPTION,
                        "%s entry %" PRIu64 ": the L2 table at 0x%" PRIx64
                        " lies past the end of the file",
                        what, i, ref.offset);
        else if (ref.offset)
            r = table_list_add(&c->l2s, &ref);
    }
    return r;
}

/* Opened for a check, the table may have been cut where it cannot be read; a repair makes that last. */
static int scan_snapshot_count(struct check *c)
{
    struct qcow2 *s = c->s;
    uint32_t have = s->header.snapshot_count, said;
    int r = qcow2_meta_read(s, QCOW2_HEADER_SNAPSHOT_COUNT_AT, &said, sizeof(said));
    said = __builtin_bswap32(said);
    if (r < 0 || said <= have)
        return r;
    bool fix = c->fix & CHECK_FIX_ERRORS;
    check_found(c, fix ? FOUND_FIXED : FOUND_CORRUPTION,
                "the snapshot table has %u entries that can be read, not the %u that the header says",
                have, said);
    if (fix)
        r = qcow2_header_write_fields(s);
    return r < 0 || !fix ? r : qcow2_meta_sync(s);
}

static int scan_snapshots(struct check *c)
{
    struct qcow2 *s = c->s;
    int r = scan_snapshot_count(c);
    if (s->header.snapshot_count &&
        !count_meta(c, "snapshot table", s->header.snapshots_offset, s->snapshot_table_bytes))
        return r;
    for (unsigned i = 0; r == 0 && i < s->header.snapshot_count; i++) {
        const struct qcow2_snapshot *snap = &s->snapshots[i];
        g_autofree char *what = g_strdup_printf("L1 table of snapshot '%s'", snap->id);
        if (snap->l1_offset % s->cluster_bytes || snap->l1_count > QCOW2_L1_BYTES_MAX / 8)
            check_found(c, FOUND_CORRUPTION,
                        "%s: %u entries at offset 0x%" PRIx64 " cannot be an L1 table", what,
                        snap->l1_count, snap->l1_offset);
        else
            r = scan_l1(c, what, snap->l1_offset, snap->l1_count, false);
    }
    return r;
}

static void scan_bitmap(struct check *c, const struct bitmap_entry *e)
{
    struct qcow2 *s = c->s;
    g_autofree char *what = g_strdup_printf("table of bitmap '%s'", e->name);
    if (!e->table_count || !count_meta(c, what, e->table_offset, (uint64_t)e->table_count * 8))
        return;
    g_autoptr(GError) error = NULL;
    g_autofree uint64_t *table = bitmap_table_read(s, e, e->table_count, &error);
    if (!table) {
        check_found(c, FOUND_CORRUPTION, "%s", error->message);
        return;
    }
    g_autofree char *data = g_strdup_printf("bitmap '%s'", e->name);
    for (uint32_t i = 0; i < e->table_count; i++) {
        uint64_t off = table[i] & BITMAP_TABLE_OFFSET;
        if ((table[i] & BITMAP_TABLE_RESERVED) || off % s->cluster_bytes ||
            (off && (table[i] & BITMAP_TABLE_ONES)))
            check_found(c, FOUND_CORRUPTION, "%s: entry %u is 0x%" PRIx64 ", which cannot be", what,
                        i, table[i]);
        else if (off)
            count_meta(c, data, off, s->cluster_bytes);
    }
}

static void scan_bitmaps(struct check *c)
{
    struct qcow2 *s = c->s;
    if (!s->ext.has_bitmaps ||
        !count_meta(c, "bitmap directory", s->ext.bitmap_dir_offset, s->ext.bitmap_dir_bytes))
        return;
    struct bitmap_dir dir = {0};
    g_autoptr(GError) error = NULL;
    if (!bitmap_dir_read(s, &dir, &error))
        check_found(c, FOUND_CORRUPTION, "%s", error->message);
    for (uint32_t i = 0; i < dir.count; i++)
        scan_bitmap(c, &dir.entries[i]);
    bitmap_dir_done(&dir);
}

/* ---- L2 ---- */

/* One entry at work. */
struct entry {
    const struct table_ref *ref;
    uint8_t *table;
    uint64_t index; /* of the word */
    uint64_t value, bitmap;
    uint64_t next; /* where the next cluster would be contiguous; 0: nothing yet */
    bool changed;  /* the table */
};

static void put_entry(struct check *c, struct entry *e, uint64_t value, uint64_t bitmap)
{
    table_set_entry(e->table, e->index, value);
    if (c->s->extended_l2)
        table_set_entry(e->table, e->index + 1, bitmap);
    e->value = value;
    e->bitmap = bitmap;
    e->changed = true;
}

/* Data that lies where metadata is: it moves to a place of its own. */
static int move_away(struct check *c, struct entry *e, uint64_t from)
{
    struct qcow2 *s = c->s;
    bool fix = c->fix & CHECK_FIX_ERRORS;
    check_found(c, fix ? FOUND_FIXED : FOUND_CORRUPTION,
                "L2 table at 0x%" PRIx64 ", entry %" PRIu64 ": the cluster at 0x%" PRIx64
                " is metadata of the image",
                e->ref->offset, e->index * 8 / s->l2_entry_bytes, from);
    if (!fix || c->end_cluster >= c->t.clusters)
        return tally_add(&c->t, from >> s->cluster_bits, e->ref->uses, 0);
    g_autofree uint8_t *buf = g_try_malloc(s->cluster_bytes);
    uint64_t to = c->end_cluster++ << s->cluster_bits;
    int r = buf ? qcow2_meta_read(s, from, buf, s->cluster_bytes) : -ENOMEM;
    if (r == 0)
        r = node_pwrite(qcow2_file(s), to, buf, s->cluster_bytes, 0);
    if (r < 0)
        return r;
    bool alone = e->ref->uses == 1 && e->ref->active;
    put_entry(c, e,
              (e->value & ~(QCOW2_OFFSET_MASK | QCOW2_COPIED)) | to | (alone ? QCOW2_COPIED : 0),
              e->bitmap);
    uint16_t flags = !e->ref->active ? 0 : alone ? TALLY_COPIED : TALLY_PLAIN;
    return tally_add(&c->t, to >> s->cluster_bits, e->ref->uses, flags);
}

static int count_data(struct check *c, struct entry *e, uint64_t off)
{
    struct qcow2 *s = c->s;
    uint64_t index = off >> s->cluster_bits;
    if (index >= c->file_clusters) {
        check_found(c, FOUND_CORRUPTION,
                    "L2 table at 0x%" PRIx64 ", entry %" PRIu64 ": the cluster at 0x%" PRIx64
                    " lies past the end of the file",
                    e->ref->offset, e->index * 8 / s->l2_entry_bytes, off);
        return 0;
    }
    const uint16_t *cell = tally_cell(&c->t, index);
    if (cell && (*cell & TALLY_META))
        return move_away(c, e, off);
    uint16_t flags = !e->ref->active ? 0 : e->value & QCOW2_COPIED ? TALLY_COPIED : TALLY_PLAIN;
    return tally_add(&c->t, index, e->ref->uses, flags);
}

static int scan_packed(struct check *c, struct entry *e)
{
    struct qcow2 *s = c->s;
    uint64_t off, number = e->index * 8 / s->l2_entry_bytes;
    uint32_t len;
    c->r->allocated_clusters += e->ref->active;
    c->r->compressed_clusters += e->ref->active;
    c->r->fragmented_clusters += e->ref->active;
    const char *wrong = s->data_external ? "compressed in an image with an external data file"
                        : e->bitmap      ? "compressed, but has subclusters"
                        : (e->value & QCOW2_COPIED) ? "compressed, but marked as copied"
                                                    : NULL;
    if (wrong) {
        bool fix = (c->fix & CHECK_FIX_ERRORS) && !s->data_external;
        check_found(c, fix ? FOUND_FIXED : FOUND_CORRUPTION,
                    "L2 table at 0x%" PRIx64 ", entry %" PRIu64 " is %s", e->ref->offset, number,
                    wrong);
        if (fix)
            put_entry(c, e, e->value & ~QCOW2_COPIED, 0);
        if (s->data_external)
            return 0;
    }
    qcow2_packed_place(s, e->value, &off, &len);
    uint64_t last = (off + len - 1) >> s->cluster_bits;
    if (last >= c->file_clusters) {
        check_found(c, FOUND_CORRUPTION,
                    "L2 table at 0x%" PRIx64 ", entry %" PRIu64
                    ": %u compressed bytes at 0x%" PRIx64 " reach past the end of the file",
                    e->ref->offset, number, len, off);
        return 0;
    }
    int r = 0;
    for (uint64_t i = off >> s->cluster_bits; r == 0 && i <= last; i++) {
        const uint16_t *cell = tally_cell(&c->t, i);
        if (cell && (*cell & TALLY_META))
            check_found(c, FOUND_CORRUPTION,
                        "L2 table at 0x%" PRIx64 ", entry %" PRIu64
                        ": compressed data at 0x%" PRIx64 " is metadata of the image",
                        e->ref->offset, number, off);
        r = tally_add(&c->t, i, e->ref->uses, 0);
    }
    return r;
}

static void check_bitmap(struct check *c, struct entry *e, bool has_place)
{
    uint64_t both = e->bitmap & e->bitmap >> 32, stray = has_place ? 0 : e->bitmap & UINT32_MAX;
    if (!c->s->extended_l2 || !(both | stray))
        return;
    bool fix = c->fix & CHECK_FIX_ERRORS;
    check_found(c, fix ? FOUND_FIXED : FOUND_CORRUPTION,
                "L2 table at 0x%" PRIx64 ", entry %" PRIu64 ": subclusters 0x%" PRIx64 " are %s",
                e->ref->offset, e->index / 2, both | stray,
                stray ? "allocated in a cluster without a place" : "allocated and zero at once");
    if (fix)
        put_entry(c, e, e->value, stray ? e->bitmap & ~stray : e->bitmap & ~(both << 32));
}

static int scan_plain(struct check *c, struct entry *e)
{
    struct qcow2 *s = c->s;
    uint64_t off = e->value & QCOW2_OFFSET_MASK, number = e->index * 8 / s->l2_entry_bytes;
    uint64_t reserved = QCOW2_L2_RESERVED | (s->header.version < 3 ? QCOW2_ZERO : 0);
    bool has_place = off || (s->data_external && (e->value & QCOW2_COPIED));
    if (e->value & reserved)
        check_found(c, FOUND_CORRUPTION,
                    "L2 table at 0x%" PRIx64 ", entry %" PRIu64 ": 0x%" PRIx64
                    " has reserved bits set",
                    e->ref->offset, number, e->value);
    check_bitmap(c, e, has_place);
    if (!has_place)
        return 0;
    if (e->ref->active) {
        c->r->allocated_clusters += e->ref->active;
        if (e->next && off != e->next)
            c->r->fragmented_clusters += e->ref->active;
        e->next = off + s->cluster_bytes;
    }
    if (off % s->cluster_bytes) {
        bool data = s->extended_l2 ? e->bitmap & UINT32_MAX : !(e->value & QCOW2_ZERO);
        bool fix = (c->fix & CHECK_FIX_ERRORS) && !data;
        check_found(c, fix ? FOUND_FIXED : FOUND_CORRUPTION,
                    "L2 table at 0x%" PRIx64 ", entry %" PRIu64 ": 0x%" PRIx64
                    " is not a cluster's offset",
                    e->ref->offset, number, off);
        if (fix)
            put_entry(c, e, e->value & QCOW2_ZERO, e->bitmap);
        return 0;
    }
    return s->data_external ? 0 : count_data(c, e, off);
}

/* The common case in a few instructions: a cluster of data in the file that is no metadata. */
static bool count_quickly(struct check *c, const struct table_ref *ref, uint64_t value)
{
    const struct qcow2 *s = c->s;
    uint64_t off = value & QCOW2_OFFSET_MASK, index = off >> s->cluster_bits;
    if ((value & (QCOW2_COMPRESSED | QCOW2_L2_RESERVED)) || off % s->cluster_bytes ||
        index >= c->file_clusters)
        return false;
    uint16_t *cell = tally_cell(&c->t, index);
    if (!cell || (*cell & TALLY_META) || (*cell & TALLY_COUNT) + ref->uses >= TALLY_COUNT)
        return false;
    *cell += (uint16_t)ref->uses;
    if (ref->active)
        *cell |= value & QCOW2_COPIED ? TALLY_COPIED : TALLY_PLAIN;
    return true;
}

static int scan_l2(void *opaque, const struct table_ref *ref, uint8_t *table)
{
    struct check *c = opaque;
    const struct qcow2 *s = c->s;
    unsigned step = s->l2_entry_bytes / 8;
    bool quick = !s->extended_l2 && !s->data_external && s->header.version >= 3;
    uint64_t allocated = 0, fragmented = 0;
    struct entry e = {.ref = ref, .table = table};
    int r = 0;
    for (uint64_t i = 0; r >= 0 && i < s->cluster_bytes / 8; i += step) {
        e.index = i;
        e.value = table_entry(table, i);
        e.bitmap = s->extended_l2 ? table_entry(table, i + 1) : 0;
        uint64_t off = e.value & QCOW2_OFFSET_MASK;
        if (!(e.value | e.bitmap))
            continue;
        if (quick && off && count_quickly(c, ref, e.value)) {
            allocated++;
            fragmented += e.next && off != e.next;
            e.next = off + s->cluster_bytes;
        } else {
            r = e.value & QCOW2_COMPRESSED ? scan_packed(c, &e) : scan_plain(c, &e);
        }
    }
    c->r->allocated_clusters += allocated * ref->active;
    c->r->fragmented_clusters += fragmented * ref->active;
    return r < 0 ? r : e.changed;
}

/* L2 tables are marked before any is read, so that data on top of one is seen. */
static int mark_l2s(struct check *c)
{
    table_list_merge(&c->l2s);
    int r = 0;
    for (uint64_t i = 0; r == 0 && i < c->l2s.count; i++) {
        const struct table_ref *ref = &c->l2s.refs[i];
        uint64_t index = ref->offset >> c->s->cluster_bits;
        if (tally_get(&c->t, index))
            check_found(c, FOUND_CORRUPTION,
                        "the L2 table at 0x%" PRIx64 " lies on top of other metadata", ref->offset);
        r = tally_add(&c->t, index, ref->uses, (uint16_t)(TALLY_META | ref->index));
    }
    return r;
}

int check_scan(struct check *c)
{
    const struct qcow2_header *h = &c->s->header;
    count_meta(c, "header", 0, 1);
    int r = scan_refcounts(c);
    if (r == 0)
        r = scan_l1(c, "L1 table", h->l1_offset, h->l1_count, true);
    if (r == 0)
        r = scan_snapshots(c);
    if (r < 0)
        return r;
    scan_bitmaps(c);
    if (h->crypt_method == QCOW2_CRYPT_LUKS)
        count_meta(c, "encryption header", c->s->ext.crypto_offset, c->s->ext.crypto_bytes);
    r = mark_l2s(c);
    return r < 0 ? r : tables_walk(c->s, &c->l2s, WALK_SKIP_HOLES, scan_l2, c);
}
