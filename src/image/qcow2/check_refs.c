/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Second half of a check: compares refcounts, and the "copied" flags that depend on them, with
 * what was counted.
 *
 * Fiber     A fiber of the node's context; refcount blocks are read by tables_walk().
 * Trust     Clusters that no valid block covers have refcount 0.
 * Order     Counts are mended and synced before flags.
 */
#include "image/qcow2/check.h"

#include <errno.h>
#include <inttypes.h>

static void report_count(struct check *c, uint64_t cluster, uint64_t have, uint64_t want)
{
    bool leak = have > want, fix = c->fix & (leak ? CHECK_FIX_LEAKS : CHECK_FIX_ERRORS);
    const char *prefix = fix ? "repairing: " : "";
    uint64_t unused = 0;
    uint64_t *counter = fix ? &unused : leak ? &c->r->leaks : &c->r->corruptions;
    ++*counter;
    if (!c->r->report || c->reports++ >= CHECK_REPORT_MAX)
        return;
    g_autofree char *sentence =
        g_strdup_printf("%scluster %" PRIu64 " (offset 0x%" PRIx64 ") %s: its refcount is %" PRIu64
                        ", but %" PRIu64 " references exist",
                        prefix, cluster, cluster << c->s->cluster_bits,
                        leak ? "is leaked" : "is counted too low", have, want);
    c->r->report(sentence, c->r->opaque);
}

/* Leaves in the cell the flags of entries that are wrong: those that fit neither the refcount that stays nor, when that is
 * only too high, the references that exist. */
static void judge_flags(struct check *c, uint16_t *cell, uint64_t have, uint64_t want)
{
    if (!(*cell & (TALLY_COPIED | TALLY_PLAIN)))
        return;
    bool leak = have > want, fix = c->fix & (leak ? CHECK_FIX_LEAKS : CHECK_FIX_ERRORS);
    bool one = (fix ? want : have) == 1, one_by_then = leak ? want == 1 : one;
    if (one || one_by_then)
        *cell &= (uint16_t)~TALLY_COPIED;
    if (!one || !one_by_then)
        *cell &= (uint16_t)~TALLY_PLAIN;
    c->flags_wrong = c->flags_wrong || (*cell & (TALLY_COPIED | TALLY_PLAIN));
}

/* True: `have` is to become `want` in its block. */
static bool compare_one(struct check *c, uint64_t cluster, uint64_t have, uint64_t want)
{
    bool leak = have > want;
    if (c->applying)
        return have != want && (c->fix & (leak ? CHECK_FIX_LEAKS : CHECK_FIX_ERRORS)) &&
               want <= c->s->refcount_max;
    if (have | want)
        c->highest = max_u64(c->highest, cluster);
    uint16_t *cell = tally_cell(&c->t, cluster);
    if (cell)
        judge_flags(c, cell, have, want);
    if (have == want)
        return false;
    if (leak)
        c->leaks++;
    else
        c->low++;
    report_count(c, cluster, have, want);
    return false;
}

static int compare_block(void *opaque, const struct table_ref *ref, uint8_t *block)
{
    struct check *c = opaque;
    unsigned order = c->s->refcount_order;
    uint64_t per_block = 1ULL << c->s->refblock_bits, first = ref->index * per_block;
    bool changed = false;
    if (tally_next(&c->t, first, first + per_block) >= min_u64(first + per_block, c->t.clusters) &&
        bytes_are_zero(block, c->s->cluster_bytes))
        return 0;
    for (uint64_t i = 0; i < per_block; i++) {
        uint64_t have = order == 4 ? __builtin_bswap16(((uint16_t *)block)[i])
                                   : qcow2_refcount_read(block, order, i);
        uint16_t *cell = tally_cell(&c->t, first + i);
        uint64_t want = cell ? *cell & TALLY_COUNT : 0;
        if (want == TALLY_COUNT)
            want = tally_get(&c->t, first + i);
        /* One reference that is ours, counted once: nearly all of them. */
        if (have == 1 && want == 1 && !(*cell & TALLY_PLAIN) && !c->applying) {
            *cell &= (uint16_t)~TALLY_COPIED;
            c->highest = max_u64(c->highest, first + i);
            continue;
        }
        if ((have | want) && compare_one(c, first + i, have, want)) {
            qcow2_refcount_write(block, order, i, want);
            changed = true;
        }
    }
    return changed;
}

/* Clusters in [from, end), which no block covers, must have no reference. */
static void compare_uncovered(struct check *c, uint64_t from, uint64_t end)
{
    end = min_u64(end, c->t.clusters);
    for (uint64_t i = tally_next(&c->t, from, end); i < end; i = tally_next(&c->t, i + 1, end)) {
        compare_one(c, i, 0, tally_get(&c->t, i));
        c->rebuild = true;
    }
}

static int compare_all(struct check *c)
{
    int r = tables_walk(c->s, &c->blocks, 0, compare_block, c);
    if (r < 0 || c->applying)
        return r;
    uint64_t per_block = 1ULL << c->s->refblock_bits;
    for (uint64_t i = 0; i < c->reftable_count && i * per_block < c->t.clusters; i++) {
        if (!c->reftable[i])
            compare_uncovered(c, i * per_block, (i + 1) * per_block);
    }
    compare_uncovered(c, c->reftable_count * per_block, c->t.clusters);
    return 0;
}

/* ---- "copied" flags ---- */

struct flags {
    struct check *c;
    bool fix;
    const char *what;
    uint64_t offset; /* of the table */
};

/* True: the entry changed. */
static bool mend_flag(const struct flags *f, uint64_t index, uint64_t *entry, uint64_t host)
{
    struct check *c = f->c;
    const uint16_t *cell = tally_cell(&c->t, host >> c->s->cluster_bits);
    bool copied = *entry & QCOW2_COPIED;
    if (!cell || !(*cell & (copied ? TALLY_COPIED : TALLY_PLAIN)))
        return false;
    check_found(c, f->fix ? FOUND_FIXED : FOUND_CORRUPTION,
                "%s at 0x%" PRIx64 ", entry %" PRIu64 ": 0x%" PRIx64
                " is %smarked as copied, with %" PRIu64 " references",
                f->what, f->offset, index, *entry, copied ? "" : "not ",
                tally_get(&c->t, host >> c->s->cluster_bits));
    if (f->fix)
        *entry ^= QCOW2_COPIED;
    return f->fix;
}

/* Once all counts are right, flags may follow even when only leaks are to be mended: a leak may
 * have kept them back. */
static bool may_mend_flags(const struct check *c)
{
    const struct image_check *r = c->r;
    return (c->fix & CHECK_FIX_ERRORS) ||
           ((c->fix & CHECK_FIX_LEAKS) && !(r->corruptions | r->check_errors | r->leaks));
}

static int mend_l2_flags(void *opaque, const struct table_ref *ref, uint8_t *table)
{
    struct check *c = opaque;
    struct flags f = {c, c->mend_flags, "L2 table", ref->offset};
    unsigned step = c->s->l2_entry_bytes / 8;
    bool changed = false;
    for (uint64_t i = 0; i < c->s->cluster_bytes / 8; i += step) {
        uint64_t entry = table_entry(table, i), off = entry & QCOW2_OFFSET_MASK;
        if (!off || (entry & QCOW2_COMPRESSED) || c->s->data_external)
            continue;
        if (mend_flag(&f, i / step, &entry, off)) {
            table_set_entry(table, i, entry);
            changed = true;
        }
    }
    return changed;
}

static int mend_l1_flags(struct check *c)
{
    struct qcow2 *s = c->s;
    struct flags f = {c, c->mend_flags, "L1 table", s->header.l1_offset};
    g_autoptr(GError) error = NULL;
    g_autofree uint64_t *l1 = tree_read_l1(s, s->header.l1_offset, s->header.l1_count, &error);
    int r = l1 ? 0 : -EIO;
    for (uint64_t i = 0; r == 0 && i < s->header.l1_count; i++) {
        uint64_t off = l1[i] & QCOW2_OFFSET_MASK;
        if (!off || !mend_flag(&f, i, &l1[i], off))
            continue;
        uint64_t value = __builtin_bswap64(l1[i]);
        r = node_pwrite(qcow2_file(s), s->header.l1_offset + i * 8, &value, sizeof(value), 0);
    }
    return r;
}

static int mend_flags(struct check *c)
{
    struct table_list active = {0};
    c->mend_flags = may_mend_flags(c);
    int r = mend_l1_flags(c);
    for (uint64_t i = 0; r == 0 && i < c->l2s.count; i++) {
        if (c->l2s.refs[i].active)
            r = table_list_add(&active, &c->l2s.refs[i]);
    }
    if (r == 0)
        r = tables_walk(c->s, &active, WALK_SKIP_HOLES, mend_l2_flags, c);
    table_list_done(&active);
    return r;
}

/* ---- counts ---- */

static int mend_counts(struct check *c)
{
    bool leaks = c->leaks && (c->fix & CHECK_FIX_LEAKS),
         low = c->low && (c->fix & CHECK_FIX_ERRORS);
    int r = 0;
    if (c->rebuild && (c->fix & CHECK_FIX_ERRORS)) {
        r = check_rebuild(c, c->s->refcount_order);
        leaks = c->leaks;
        if (r == 0 && !(c->fix & CHECK_FIX_LEAKS))
            c->r->leaks = 0; /* new structures have none */
    } else if (leaks || low) {
        c->applying = true;
        r = compare_all(c);
        c->applying = false;
    }
    if (r < 0)
        return r;
    c->r->leaks_fixed += leaks ? c->leaks : 0;
    c->r->corruptions_fixed += low ? c->low : 0;
    return leaks || low ? node_flush(qcow2_file(c->s)) : 0;
}

int check_refs(struct check *c)
{
    int r = compare_all(c);
    if (r == 0 && c->rebuild && !c->low)
        check_found(c, c->fix & CHECK_FIX_ERRORS ? FOUND_FIXED : FOUND_CORRUPTION,
                    "the refcount structures are damaged and need to be made anew");
    if (r == 0 && c->fix)
        r = mend_counts(c);
    if (r == 0 && c->flags_wrong)
        r = mend_flags(c);
    return r;
}
