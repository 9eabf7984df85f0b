/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The active L1 table, which is in memory whole, and the making of L2 tables below it.
 *
 * A new L2 table is on disk (zeroes, or the copy of a table shared with a snapshot) before L1 names
 * it in memory; the commit that writes L1 syncs before, so the table is durable by then.
 *
 * Spec      qcow2, "Cluster mapping".
 * Thread    The node's home thread; new tables under l2_lock.
 */
#include "image/qcow2/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { L1_SECTOR_ENTRIES = 64 };

/* Room for `count` entries, whole sectors, zeroed. */
static bool l1_new(uint64_t count, uint64_t **ret, uint8_t **ret_dirty)
{
    uint64_t room = align_up(count + 1, L1_SECTOR_ENTRIES);
    *ret = g_try_new0(uint64_t, room);
    *ret_dirty = g_try_new0(uint8_t, room / L1_SECTOR_ENTRIES);
    if (*ret && *ret_dirty)
        return true;
    g_clear_pointer(ret, g_free);
    g_clear_pointer(ret_dirty, g_free);
    return false;
}

static void l1_take(struct qcow2 *s, uint64_t *l1, uint8_t *dirty)
{
    g_free(s->l1);
    g_free(s->l1_dirty);
    s->l1 = l1;
    s->l1_dirty = dirty;
    s->l1_any_dirty = false;
}

bool qcow2_l1_load(struct qcow2 *s, GError **error)
{
    const char *name = node_filename(&s->node);
    uint32_t count = s->header.l1_count;
    uint64_t *l1;
    uint8_t *dirty;
    if (!l1_new(count, &l1, &dirty))
        return ruche_error_errno(error, ENOMEM, "'%s': L1 table of %u entries", name, count);
    int r = count ? qcow2_meta_read(s, s->header.l1_offset, l1, (size_t)count * 8) : 0;
    if (r) {
        g_free(l1);
        g_free(dirty);
        return ruche_error_errno(error, -r, "cannot read the L1 table of '%s'", name);
    }
    for (uint32_t i = 0; i < count; i++)
        l1[i] = __builtin_bswap64(l1[i]);
    l1_take(s, l1, dirty);
    qcow2_cache_forget_all(&s->l2_cache);
    return true;
}

void qcow2_l1_set(struct qcow2 *s, uint64_t index, uint64_t entry)
{
    s->l1[index] = entry;
    s->l1_dirty[index / L1_SECTOR_ENTRIES] = 1;
    s->l1_any_dirty = true;
}

/* ---- growing ---- */

static int l1_write(struct qcow2 *s, uint64_t off, const uint64_t *l1, uint64_t count)
{
    uint64_t bytes = align_up(count * 8, s->cluster_bytes);
    uint64_t *be = g_try_malloc0(bytes);
    if (!be)
        return -ENOMEM;
    for (uint64_t i = 0; i < count; i++)
        be[i] = __builtin_bswap64(l1[i]);
    int r = qcow2_meta_write(s, 0, off, be, bytes);
    g_free(be);
    return r ? r : qcow2_meta_sync(s);
}

static int l1_switch(struct qcow2 *s, uint64_t off, uint64_t count)
{
    struct qcow2_header old = s->header;
    s->header.l1_offset = off;
    s->header.l1_count = (uint32_t)count;
    int r = qcow2_header_write_fields(s);
    if (!r)
        r = qcow2_meta_sync(s);
    if (r) {
        s->header.l1_offset = old.l1_offset;
        s->header.l1_count = old.l1_count;
        return r;
    }
    qcow2_free_now(s, old.l1_offset, (uint64_t)old.l1_count * 8);
    return 0;
}

static int l1_grow_locked(struct qcow2 *s, uint64_t count)
{
    uint64_t off, *l1;
    uint8_t *dirty;
    if (count > QCOW2_L1_BYTES_MAX / 8)
        return -EFBIG;
    int r =
        qcow2_commit(s, true); /* what L1 says in memory is durable: it may be written anywhere */
    if (!r)
        r = qcow2_alloc_bytes(s, count * 8, &off);
    if (r)
        return r;
    if (!l1_new(count, &l1, &dirty)) {
        qcow2_free_now(s, off, count * 8);
        return -ENOMEM;
    }
    memcpy(l1, s->l1, (size_t)s->header.l1_count * 8);
    r = l1_write(s, off, l1, count);
    if (!r)
        r = qcow2_commit(s, true); /* the new clusters' counts */
    if (!r)
        r = l1_switch(s, off, count);
    if (r) {
        qcow2_free_now(s, off, count * 8);
        g_free(l1);
        g_free(dirty);
        return r;
    }
    l1_take(s, l1, dirty);
    return 0;
}

int qcow2_l1_grow(struct qcow2 *s, uint64_t count)
{
    fiber_mutex_lock(&s->l2_lock);
    int r = count > s->header.l1_count ? l1_grow_locked(s, count) : 0;
    fiber_mutex_unlock(&s->l2_lock);
    return r;
}

/* ---- new L2 tables ---- */

static int l2_fill(struct qcow2 *s, uint64_t to, uint64_t from)
{
    if (!from)
        return node_zero(qcow2_file(s), to, s->cluster_bytes, 0);
    uint8_t *table = g_try_malloc(s->cluster_bytes);
    if (!table)
        return -ENOMEM;
    int r = qcow2_meta_read(s, from, table, s->cluster_bytes);
    if (!r)
        r = node_pwrite(qcow2_file(s), to, table, s->cluster_bytes, 0);
    g_free(table);
    return r;
}

/* A sector of L1 that never held anything may be a hole of the file: it is written as it is before anything counts on
 * it, so that a full disk refuses the guest's write rather than the commit, which would leave clusters counted that
 * nothing refers to. */
static int l1_back_sector(struct qcow2 *s, uint64_t index)
{
    static const uint8_t zeroes[L1_SECTOR_ENTRIES * 8];
    uint64_t sector = index / L1_SECTOR_ENTRIES, first = sector * L1_SECTOR_ENTRIES;
    if (s->l1_dirty[sector])
        return 0;
    for (uint64_t i = first; i < first + L1_SECTOR_ENTRIES && i < s->header.l1_count; i++)
        if (s->l1[i])
            return 0;
    return qcow2_meta_write(s, QCOW2_SECTION_ACTIVE_L1, s->header.l1_offset + first * 8, zeroes,
                            sizeof(zeroes));
}

/* Under l2_lock: entry `index` of L1 gets a table of its own. */
static int l2_make(struct qcow2 *s, uint64_t index)
{
    uint64_t old = s->l1[index] & QCOW2_OFFSET_MASK, off, count;
    bool fresh;
    if (old & (s->cluster_bytes - 1))
        return qcow2_corrupt(
            s, true, -1, 0, "L1 entry %" PRIu64 " has the unaligned offset 0x%" PRIx64, index, old);
    int r = l1_back_sector(s, index);
    if (!r)
        r = qcow2_alloc_run(s, 1, &off, &count, &fresh);
    if (r)
        return r;
    r = l2_fill(s, off, old);
    if (r) {
        qcow2_free_now(s, off, s->cluster_bytes);
        return r;
    }
    qcow2_places_add(s, QCOW2_SECTION_ACTIVE_L2, off);
    qcow2_cache_forget(&s->l2_cache, off, s->cluster_bytes);
    qcow2_l1_set(s, index, off | QCOW2_COPIED);
    if (old) {
        qcow2_cache_forget(&s->l2_cache, old, s->cluster_bytes);
        qcow2_places_remove(s, old);
        qcow2_places_add(s, QCOW2_SECTION_INACTIVE_L2, old);
        qcow2_free_later(s, old, s->cluster_bytes, QCOW2_DISCARD_OTHER);
    }
    return 0;
}

static bool l1_is_ours(const struct qcow2 *s, uint64_t index)
{
    return (s->l1[index] & QCOW2_COPIED) && (s->l1[index] & QCOW2_OFFSET_MASK);
}

int qcow2_l2_writable(struct qcow2 *s, uint64_t off, struct qcow2_table **ret, unsigned *ret_index)
{
    uint64_t index = off >> (s->cluster_bits + s->l2_bits);
    if (index >= s->header.l1_count)
        return -EFBIG;
    for (;;) {
        int r = 0;
        if (unlikely(!l1_is_ours(s, index))) {
            fiber_mutex_lock(&s->l2_lock);
            if (!l1_is_ours(s, index))
                r = l2_make(s, index);
            fiber_mutex_unlock(&s->l2_lock);
        }
        uint64_t entry = s->l1[index];
        if (!r)
            r = qcow2_l2_find(s, off, ret, ret_index);
        if (r)
            return r;
        if (likely(*ret && s->l1[index] == entry && (entry & QCOW2_COPIED)))
            return 0;
    }
}
