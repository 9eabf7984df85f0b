/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Check and repair: every reference of the image is counted, then compared with its refcounts.
 *
 * Spec      qcow2: "Host cluster management" and all structures; `qemu-img check`'s statistics.
 * Fiber     A fiber of the node's context.
 * Trust     Everything read is hostile: memory is bounded by the file's clusters (tally.h), each
 *           table is read once.
 * Order     Repairs in place only bring a count nearer to the truth. New refcount structures are
 *           written behind everything and synced before one sector of the header points to them;
 *           "dirty" and "corrupt" go last. "Copied" flags are judged with leaks in mind: where a
 *           count is only too high, because a crash kept it from falling, the flag may already say
 *           what will be right.
 */
#include "image/qcow2/check.h"

#include "base/error.h"

#include <stdarg.h>

void check_found(struct check *c, enum found what, const char *format, ...)
{
    struct image_check *r = c->r;
    uint64_t *counters[] = {
        [FOUND_ERROR] = &r->check_errors,
        [FOUND_CORRUPTION] = &r->corruptions,
        [FOUND_LEAK] = &r->leaks,
        [FOUND_FIXED] = &r->corruptions_fixed,
    };
    ++*counters[what];
    if (!r->report || c->reports++ >= CHECK_REPORT_MAX)
        return;
    va_list ap;
    va_start(ap, format);
    g_autofree char *sentence = g_strdup_vprintf(format, ap);
    va_end(ap);
    g_autofree char *whole = what == FOUND_FIXED ? g_strdup_printf("repaired: %s", sentence)
                                                 : g_steal_pointer(&sentence);
    r->report(whole, r->opaque);
}

bool check_begin(struct check *c, GError **error)
{
    struct qcow2 *s = c->s;
    uint64_t bytes = node_size(qcow2_file(s));
    c->file_clusters = (bytes >> s->cluster_bits) + (bytes % s->cluster_bytes != 0);
    c->end_cluster = c->file_clusters;
    /* Room behind for what a repair moves or makes: at most a copy of what there is, and its
     * counts. */
    uint64_t room = c->file_clusters + (QCOW2_REFTABLE_BYTES_MAX >> s->cluster_bits) + 1024;
    return tally_init(&c->t, c->file_clusters + room, node_name(&s->node), error);
}

void check_done(struct check *c)
{
    tally_done(&c->t);
    table_list_done(&c->blocks);
    table_list_done(&c->l2s);
    g_free(c->reftable);
}

bool check_reload(struct qcow2 *s, GError **error)
{
    s->fresh_offset = align_up(node_size(qcow2_file(s)), s->cluster_bytes);
    s->free_index = s->packed_offset = 0;
    qcow2_cache_forget_all(&s->l2_cache);
    qcow2_cache_forget_all(&s->refcount_cache);
    qcow2_unpacked_forget(s);
    if (!qcow2_reftable_load(s, error) || !qcow2_l1_load(s, error))
        return false;
    int r = qcow2_places_rebuild(s);
    return r == 0 || ruche_error_errno(error, -r, "'%s': cannot load the repaired tables",
                                       node_name(&s->node));
}

static bool clear_marks(struct check *c, GError **error)
{
    struct qcow2 *s = c->s;
    if (c->r->corruptions || c->r->check_errors)
        return true;
    int r = qcow2_header_set_incompatible(s, 0, QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT);
    if (r < 0)
        return ruche_error_errno(error, -r, "'%s': cannot write the header", node_name(&s->node));
    s->dirty_marked = false;
    s->node.corrupt = s->node.unclean = false;
    return true;
}

static bool run(struct check *c, GError **error)
{
    struct qcow2 *s = c->s;
    int r = check_scan(c);
    if (r == 0)
        r = check_refs(c);
    if (r < 0) {
        c->r->check_errors++;
        return ruche_error_errno(error, -r, "'%s': the check could not be completed",
                                 node_name(&s->node));
    }
    c->r->image_end_offset = (c->highest + 1) << s->cluster_bits;
    c->r->total_clusters =
        (s->header.size_bytes >> s->cluster_bits) + (s->header.size_bytes % s->cluster_bytes != 0);
    if (!c->fix)
        return true;
    r = node_flush(qcow2_file(s));
    if (r < 0)
        return ruche_error_errno(error, -r, "'%s': cannot sync", node_name(&s->node));
    return check_reload(s, error) && clear_marks(c, error);
}

bool qcow2_check(struct node *n, unsigned fix, struct image_check *ret, GError **error)
{
    struct qcow2 *s = qcow2_of(n);
    struct check c = {.s = s, .fix = fix, .r = ret};
    if (fix && n->read_only)
        return ruche_error(error, RUCHE_ERR_STATE, "'%s' is open read-only: it cannot be repaired",
                           node_name(n));
    int r = n->read_only ? 0 : qcow2_settle(s);
    if (r < 0)
        return ruche_error_errno(error, -r, "'%s': cannot write what is changed in memory",
                                 node_name(n));
    bool good = check_begin(&c, error) && run(&c, error);
    check_done(&c);
    return good;
}
