/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Taking, applying and deleting internal snapshots.
 *
 * Spec      qcow2, "Snapshots" and "Reference count".
 * Fiber     A fiber of the node's context; the node is drained meanwhile, and committed first.
 * Trust     Trees are hostile: tally.h bounds what they may refer to.
 * Order     At any instant every reference on disk is counted, and what two trees share is marked
 *           as copied in none of them:
 *
 *           create   counts of the active tree rise, a copy of its L1 is written; commit; "copied"
 *                    flags go; sync; the header knows a table with the snapshot.
 *           delete   the header knows a table without it; "copied" is set where one reference is
 *                    left; sync; counts of its tree fall.
 *           apply    counts rise where its tree has more references than the active one, its L1
 *                    is copied without "copied" flags; commit; the header knows the new L1 and the
 *                    disk's size; counts fall where the old tree had more.
 *
 *           A crash in between leaves counts that are too high: leaks.
 */
#include "image/qcow2/snapshot.h"
#include "image/qcow2/tally.h"

#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static bool tally_tree(struct qcow2 *s, const uint64_t *l1, uint64_t count, struct tally *t,
                       GError **error)
{
    uint64_t bytes = node_size(qcow2_file(s));
    if (!tally_init(t, (bytes >> s->cluster_bits) + 1, node_name(&s->node), error))
        return false;
    int r = tree_tally(s, l1, count, t);
    return r == 0 ||
           ruche_error_errno(error, -r,
                             "'%s': the tables cannot be read, or point outside of the file; "
                             "check the image",
                             node_filename(&s->node));
}

static bool raise_tree(struct qcow2 *s, const struct tally *t, GError **error)
{
    int r = tree_raise(s, t);
    if (r == -EINVAL)
        return ruche_error(
            error, RUCHE_ERR_UNSUPPORTED,
            "'%s': refcounts of %u bits cannot count one more snapshot; the limit is %" PRIu64
            " references",
            node_filename(&s->node), 1u << s->refcount_order, s->refcount_max);
    return r == 0 ||
           ruche_error_errno(error, -r, "'%s': cannot change refcounts", node_filename(&s->node));
}

static int clear_copied(void *opaque, const struct table_ref *ref, uint8_t *table)
{
    struct qcow2 *s = opaque;
    bool changed = false;
    for (uint64_t i = 0; i < s->cluster_bytes / 8; i += s->l2_entry_bytes / 8) {
        uint64_t entry = table_entry(table, i);
        if (!(entry & QCOW2_COPIED))
            continue;
        table_set_entry(table, i, entry & ~QCOW2_COPIED);
        changed = true;
    }
    return changed;
}

/* In the L2 tables of that L1, on disk. */
static int clear_copied_below(struct qcow2 *s, const uint64_t *l1, uint64_t count)
{
    struct table_list tables = {0};
    int r = tree_tables(s, l1, count, &tables);
    if (r == 0)
        r = tables_walk(s, &tables, WALK_SKIP_HOLES, clear_copied, s);
    table_list_done(&tables);
    qcow2_cache_forget_all(&s->l2_cache);
    return r;
}

/* A copy of an L1 table without "copied" flags, in new clusters of the file, `count` entries of
 * which `have` are given. */
static int copy_l1(struct qcow2 *s, const uint64_t *l1, uint64_t have, uint64_t count,
                   uint64_t *ret_off)
{
    g_autofree uint64_t *copy = g_try_new0(uint64_t, count + 1);
    int r = copy ? qcow2_alloc_bytes(s, max_u64(count, 1) * 8, ret_off) : -ENOMEM;
    if (r < 0)
        return r;
    for (uint64_t i = 0; i < have; i++)
        copy[i] = __builtin_bswap64(l1[i] & ~QCOW2_COPIED);
    r = qcow2_meta_write(s, 0, *ret_off, copy, count * 8);
    if (r < 0)
        qcow2_free_now(s, *ret_off, max_u64(count, 1) * 8);
    return r;
}

static bool begin(struct qcow2 *s, GError **error)
{
    struct node *n = &s->node;
    if (n->read_only)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "'%s' is open read-only: its snapshots cannot change", node_filename(n));
    if (s->data_external)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "'%s': an image with an external data file cannot have snapshots",
                           node_filename(n));
    int r = qcow2_commit_and_free(s);
    return r == 0 || ruche_error_errno(error, -r, "'%s': cannot write what is changed in memory",
                                       node_filename(n));
}

static bool finish(struct qcow2 *s, GError **error)
{
    int r = qcow2_commit_and_free(s);
    if (r == 0)
        r = qcow2_places_rebuild(s);
    return r == 0 || ruche_error_errno(error, -r, "'%s': cannot write the refcounts",
                                       node_filename(&s->node));
}

/* ---- create ---- */

static char *next_id(const struct qcow2 *s)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < s->header.snapshot_count; i++)
        most = max_u64(most, g_ascii_strtoull(s->snapshots[i].id, NULL, 10));
    return g_strdup_printf("%" PRIu64, most + 1);
}

static bool check_info(const struct qcow2 *s, const struct snapshot_info *info, GError **error)
{
    const char *name = node_filename(&s->node);
    if (s->header.snapshot_count >= QCOW2_SNAPSHOTS_MAX)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "'%s' has %u snapshots already; that is the limit", name,
                           s->header.snapshot_count);
    if (!info->name || strlen(info->name) > UINT16_MAX ||
        (info->id && strlen(info->id) > UINT16_MAX))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s': a snapshot needs a name of at most 65535 bytes", name);
    for (uint32_t i = 0; info->id && i < s->header.snapshot_count; i++)
        if (!strcmp(s->snapshots[i].id, info->id))
            return ruche_error(error, RUCHE_ERR_EXISTS,
                               "'%s' has a snapshot with the id '%s' already", name, info->id);
    return true;
}

/* The table with one more entry. Its strings are the old one's, until the new table is in place. */
static struct qcow2_snapshot *list_with(const struct qcow2 *s, const struct snapshot_info *info,
                                        uint64_t l1_offset)
{
    uint32_t count = s->header.snapshot_count;
    struct qcow2_snapshot *list = g_new0(struct qcow2_snapshot, count + 1);
    if (count)
        memcpy(list, s->snapshots, count * sizeof(*list));
    list[count] = (struct qcow2_snapshot){
        .id = info->id && *info->id ? g_strdup(info->id) : next_id(s),
        .name = g_strdup(info->name),
        .l1_offset = l1_offset,
        .l1_count = s->header.l1_count,
        .date_sec = (uint32_t)info->date_sec,
        .date_nsec = info->date_nsec,
        .vm_clock_ns = info->vm_clock_ns,
        .vm_state_bytes = info->vm_state_bytes,
        .size_bytes = s->header.size_bytes,
        .icount = info->icount,
    };
    return list;
}

static int create_table(struct qcow2 *s, const struct snapshot_info *info, uint64_t l1_offset)
{
    uint32_t count = s->header.snapshot_count;
    struct qcow2_snapshot *list = list_with(s, info, l1_offset);
    int r = snapshot_table_replace(s, list, count + 1);
    if (r < 0) {
        snapshot_clear(&list[count]);
        g_free(list);
    }
    return r;
}

/* The active tree is now shared: its entries may not be written in place. */
static int share_active(struct qcow2 *s)
{
    int r = qcow2_commit(s, true);
    if (r == 0)
        r = clear_copied_below(s, s->l1, s->header.l1_count);
    for (uint64_t i = 0; r == 0 && i < s->header.l1_count; i++)
        if (s->l1[i] & QCOW2_COPIED)
            qcow2_l1_set(s, i, s->l1[i] & ~QCOW2_COPIED);
    return r;
}

static bool create_drained(struct qcow2 *s, const struct snapshot_info *info, GError **error)
{
    struct tally t = {0};
    uint64_t l1_offset = 0;
    bool good = begin(s, error) && check_info(s, info, error) &&
                tally_tree(s, s->l1, s->header.l1_count, &t, error) && raise_tree(s, &t, error);
    if (!good) {
        tally_done(&t);
        return false;
    }
    int r = copy_l1(s, s->l1, s->header.l1_count, s->header.l1_count, &l1_offset);
    if (r < 0)
        tree_lower(s, &t);
    else
        r = share_active(s); /* from here on a failure leaves leaks */
    if (r == 0)
        r = create_table(s, info, l1_offset);
    tally_done(&t);
    if (r < 0)
        return ruche_error_errno(error, -r, "'%s': cannot write the snapshot",
                                 node_filename(&s->node));
    return finish(s, error);
}

bool qcow2_snapshot_create(struct node *n, const struct snapshot_info *info, GError **error)
{
    struct qcow2 *s = qcow2_of(n);
    node_drain_begin(n);
    bool good = create_drained(s, info, error);
    if (good && info->vm_state_bytes) { /* the snapshot has it; the active tree needs it no more */
        uint64_t bits = s->cluster_bits + s->l2_bits;
        uint64_t from = snapshot_l1_need(s, s->header.size_bytes) << bits;
        uint64_t len = min_u64(align_up(info->vm_state_bytes, s->cluster_bytes),
                               ((uint64_t)s->header.l1_count << bits) - from);
        qcow2_drop_range(s, from, len, QCOW2_DISCARD_NEVER);
    }
    node_drain_end(n);
    return good;
}

/* ---- delete ---- */

struct sole {
    struct qcow2 *s;
    const struct tally *leaving; /* references that go */
};

/* 1: once those have gone, one reference to the cluster is left. */
static int becomes_sole(const struct sole *o, uint64_t off)
{
    uint64_t count, index = off >> o->s->cluster_bits, less = tally_get(o->leaving, index);
    if (!less)
        return 0;
    int r = qcow2_refcount_get(o->s, index, &count);
    return r < 0 ? r : count == less + 1;
}

static int set_copied(void *opaque, const struct table_ref *ref, uint8_t *table)
{
    const struct sole *o = opaque;
    bool changed = false;
    for (uint64_t i = 0; i < o->s->cluster_bytes / 8; i += o->s->l2_entry_bytes / 8) {
        uint64_t entry = table_entry(table, i), off = entry & QCOW2_OFFSET_MASK;
        if (!off || (entry & (QCOW2_COPIED | QCOW2_COMPRESSED)))
            continue;
        int r = becomes_sole(o, off);
        if (r < 0)
            return r;
        if (r) {
            table_set_entry(table, i, entry | QCOW2_COPIED);
            changed = true;
        }
    }
    return changed;
}

static int unshare_active(struct qcow2 *s, const struct tally *leaving)
{
    struct sole o = {s, leaving};
    struct table_list tables = {0};
    int r = tree_tables(s, s->l1, s->header.l1_count, &tables);
    if (r == 0)
        r = tables_walk(s, &tables, WALK_SKIP_HOLES, set_copied, &o);
    table_list_done(&tables);
    qcow2_cache_forget_all(&s->l2_cache);
    for (uint64_t i = 0; r >= 0 && i < s->header.l1_count; i++) {
        uint64_t off = s->l1[i] & QCOW2_OFFSET_MASK;
        r = off && !(s->l1[i] & QCOW2_COPIED) ? becomes_sole(&o, off) : 0;
        if (r > 0)
            qcow2_l1_set(s, i, s->l1[i] | QCOW2_COPIED);
    }
    return r < 0 ? r : qcow2_commit(s, true);
}

static uint64_t *snapshot_l1(struct qcow2 *s, const struct qcow2_snapshot *e, GError **error)
{
    if (e->l1_offset % s->cluster_bytes) {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "'%s': the L1 table of snapshot '%s' is at 0x%" PRIx64 ", not at a cluster",
                    node_filename(&s->node), e->name, e->l1_offset);
        return NULL;
    }
    return tree_read_l1(s, e->l1_offset, e->l1_count, error);
}

static int delete_entry(struct qcow2 *s, struct qcow2_snapshot *e)
{
    uint32_t count = s->header.snapshot_count, at = (uint32_t)(e - s->snapshots);
    struct qcow2_snapshot gone = *e, *list = g_new0(struct qcow2_snapshot, count);
    memcpy(list, s->snapshots, at * sizeof(*list));
    memcpy(list + at, s->snapshots + at + 1, (count - at - 1) * sizeof(*list));
    int r = snapshot_table_replace(s, list, count - 1);
    if (r < 0)
        g_free(list);
    else
        snapshot_clear(&gone);
    return r;
}

static bool delete_drained(struct qcow2 *s, const char *id_or_name, GError **error)
{
    struct qcow2_snapshot *e = begin(s, error) ? snapshot_find(s, id_or_name, error) : NULL;
    g_autofree uint64_t *l1 = e ? snapshot_l1(s, e, error) : NULL;
    struct tally t = {0};
    if (!l1 || !tally_tree(s, l1, e->l1_count, &t, error)) {
        tally_done(&t);
        return false;
    }
    uint64_t l1_offset = e->l1_offset, l1_bytes = max_u64(e->l1_count, 1) * 8;
    int r = delete_entry(s, e);
    if (r == 0)
        r = unshare_active(s, &t);
    if (r == 0) {
        tree_lower(s, &t);
        qcow2_free_later(s, l1_offset, l1_bytes, QCOW2_DISCARD_SNAPSHOT);
    }
    tally_done(&t);
    if (r < 0)
        return ruche_error_errno(error, -r, "'%s': cannot delete snapshot '%s'",
                                 node_filename(&s->node), id_or_name);
    return finish(s, error);
}

bool qcow2_snapshot_delete(struct node *n, const char *id_or_name, GError **error)
{
    node_drain_begin(n);
    bool good = delete_drained(qcow2_of(n), id_or_name, error);
    node_drain_end(n);
    return good;
}

/* ---- apply ---- */

/* The header gets the new L1 and size in one sector; the old tree's counts fall afterwards. */
static int switch_l1(struct qcow2 *s, uint64_t l1_offset, uint64_t l1_count, uint64_t size)
{
    struct qcow2_header before = s->header;
    s->header.l1_offset = l1_offset;
    s->header.l1_count = (uint32_t)l1_count;
    s->header.size_bytes = size;
    int r = qcow2_header_write_fields(s);
    if (r == 0)
        r = qcow2_meta_sync(s);
    if (r < 0)
        s->header = before;
    return r;
}

static bool apply_size(struct qcow2 *s, uint64_t size, GError **error)
{
    struct node *n = &s->node;
    n->size_bytes = size;
    for (struct dirty_bitmap *b = n->bitmaps; b; b = b->next) {
        if (b->size_bytes != size && !dirty_resize(b, size))
            return ruche_error(error, RUCHE_ERR_NO_SPACE,
                               "bitmap '%s': no memory to follow the disk's size",
                               b->name ? b->name : "(a job's)");
        if (b->enabled)
            dirty_set(b, 0, size);
    }
    return true;
}

static bool apply_switch(struct qcow2 *s, const struct qcow2_snapshot *e, const uint64_t *l1,
                         const struct tally *former, GError **error)
{
    uint64_t need = max_u64(snapshot_l1_need(s, e->size_bytes), 1), off = 0;
    uint64_t count = max_u64(e->l1_count, need), size = e->size_bytes;
    uint64_t old_off = s->header.l1_offset, old_bytes = max_u64(s->header.l1_count, 1) * 8;
    int r = count > QCOW2_L1_BYTES_MAX / 8 ? -EFBIG : copy_l1(s, l1, e->l1_count, count, &off);
    if (r == 0)
        r = qcow2_commit(s, true);
    if (r == 0)
        r = clear_copied_below(s, l1, e->l1_count);
    if (r == 0)
        r = qcow2_meta_sync(s);
    if (r == 0)
        r = switch_l1(s, off, count, size);
    if (r < 0)
        return ruche_error_errno(error, -r, "'%s': cannot apply snapshot '%s'",
                                 node_filename(&s->node), e->name);
    qcow2_unpacked_forget(s);
    if (!qcow2_l1_load(s, error))
        return false;
    tree_lower(s, former);
    qcow2_free_later(s, old_off, old_bytes, QCOW2_DISCARD_SNAPSHOT);
    return apply_size(s, size, error) && finish(s, error);
}

static bool apply_drained(struct qcow2 *s, const char *id_or_name, GError **error)
{
    const struct qcow2_snapshot *e = begin(s, error) ? snapshot_find(s, id_or_name, error) : NULL;
    g_autofree uint64_t *l1 = e ? snapshot_l1(s, e, error) : NULL;
    struct tally coming = {0}, former = {0};
    bool good = l1 && tally_tree(s, s->l1, s->header.l1_count, &former, error) &&
                tally_tree(s, l1, e->l1_count, &coming, error);
    if (good)
        tally_cancel(&coming, &former);
    good = good && raise_tree(s, &coming, error) && apply_switch(s, e, l1, &former, error);
    tally_done(&coming);
    tally_done(&former);
    return good;
}

bool qcow2_snapshot_apply(struct node *n, const char *id_or_name, GError **error)
{
    node_drain_begin(n);
    bool good = apply_drained(qcow2_of(n), id_or_name, error);
    node_drain_end(n);
    return good;
}
