/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Counters of references, 16 bits a cluster, in chunks that exist only where something refers
 * to.
 *
 * Thread    The node's home thread. Trust: see tally.h.
 */
#include "image/qcow2/tally.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_CELLS (1ULL << TALLY_CHUNK_BITS)

bool tally_init(struct tally *t, uint64_t clusters, const char *name, GError **error)
{
    *t = (struct tally){.clusters = clusters};
    if (clusters > TALLY_CLUSTERS_MAX)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "'%s': the file has %" G_GUINT64_FORMAT
                           " clusters; the limit for counting their references is %llu",
                           name, clusters, TALLY_CLUSTERS_MAX);
    t->chunk_count = (clusters >> TALLY_CHUNK_BITS) + 1;
    t->chunks = g_try_new0(uint16_t *, t->chunk_count);
    if (!t->chunks)
        return ruche_error(error, RUCHE_ERR_NO_SPACE,
                           "'%s': no memory to count the references to %" G_GUINT64_FORMAT
                           " clusters",
                           name, clusters);
    t->large = g_hash_table_new(NULL, NULL);
    return true;
}

void tally_done(struct tally *t)
{
    for (uint64_t i = 0; t->used && i < t->chunk_count; i++)
        g_free(t->chunks[i]);
    g_free(t->chunks);
    if (t->large)
        g_hash_table_unref(t->large);
    *t = (struct tally){0};
}

uint16_t *tally_make_cell(struct tally *t, uint64_t index, int *ret_err)
{
    uint16_t *cell = tally_cell(t, index);
    if (cell)
        return cell;
    *ret_err = -ERANGE;
    if (index >= t->clusters)
        return NULL;
    *ret_err = -ENOMEM;
    if (t->used >= TALLY_BYTES_MAX / (CHUNK_CELLS * sizeof(uint16_t)))
        return NULL;
    uint16_t *chunk = g_try_new0(uint16_t, CHUNK_CELLS);
    if (!chunk)
        return NULL;
    t->chunks[index >> TALLY_CHUNK_BITS] = chunk;
    t->used++;
    return tally_cell(t, index);
}

uint64_t tally_get(const struct tally *t, uint64_t index)
{
    const uint16_t *cell = tally_cell(t, index);
    uint64_t count = cell ? *cell & TALLY_COUNT : 0;
    if (count == TALLY_COUNT)
        count = GPOINTER_TO_SIZE(g_hash_table_lookup(t->large, GSIZE_TO_POINTER(index)));
    return count;
}

static void set_count(struct tally *t, uint64_t index, uint16_t *cell, uint64_t count)
{
    if (count >= TALLY_COUNT) {
        g_hash_table_insert(t->large, GSIZE_TO_POINTER(index), GSIZE_TO_POINTER(count));
        count = TALLY_COUNT;
    }
    *cell = (uint16_t)((*cell & ~TALLY_COUNT) | count);
}

int tally_add(struct tally *t, uint64_t index, uint32_t count, uint16_t flags)
{
    int err;
    uint16_t *cell = tally_make_cell(t, index, &err);
    if (!cell)
        return err;
    set_count(t, index, cell, tally_get(t, index) + count);
    *cell |= flags;
    return 0;
}

void tally_clear_cell(struct tally *t, uint64_t index)
{
    uint16_t *cell = tally_cell(t, index);
    if (cell)
        *cell = 0;
}

void tally_cancel(struct tally *a, struct tally *b)
{
    for (uint64_t i = tally_next(a, 0, a->clusters); i < a->clusters;
         i = tally_next(a, i + 1, a->clusters)) {
        uint64_t have = tally_get(a, i), other = tally_get(b, i), common = min_u64(have, other);
        if (!common)
            continue;
        set_count(a, i, tally_cell(a, i), have - common);
        set_count(b, i, tally_cell(b, i), other - common);
    }
}

uint64_t tally_next(const struct tally *t, uint64_t from, uint64_t end)
{
    end = min_u64(end, t->clusters);
    while (from < end) {
        const uint16_t *chunk = t->chunks[from >> TALLY_CHUNK_BITS];
        uint64_t stop = min_u64(align_down(from, CHUNK_CELLS) + CHUNK_CELLS, end);
        for (; chunk && from < stop; from++) {
            if (chunk[from % CHUNK_CELLS] & TALLY_COUNT)
                return from;
        }
        from = stop;
    }
    return end;
}

/* ---- lists of tables ---- */

void table_list_done(struct table_list *l)
{
    g_free(l->refs);
    *l = (struct table_list){0};
}

static int compare_refs(const void *a, const void *b)
{
    uint64_t x = ((const struct table_ref *)a)->offset, y = ((const struct table_ref *)b)->offset;
    return (x > y) - (x < y);
}

void table_list_merge(struct table_list *l)
{
    bool sorted = true;
    for (uint64_t i = 1; i < l->count && sorted; i++)
        sorted = l->refs[i - 1].offset < l->refs[i].offset;
    if (sorted)
        return;
    qsort(l->refs, l->count, sizeof(*l->refs), compare_refs);
    uint64_t n = 0;
    for (uint64_t i = 1; i < l->count; i++) {
        if (l->refs[i].offset == l->refs[n].offset) {
            l->refs[n].uses += l->refs[i].uses;
            l->refs[n].active += l->refs[i].active;
        } else {
            l->refs[++n] = l->refs[i];
        }
    }
    l->count = n + 1;
}

int table_list_add(struct table_list *l, const struct table_ref *ref)
{
    if (l->count == l->capacity) {
        if (l->count)
            table_list_merge(l);
        if (l->count > l->capacity / 2 || !l->capacity) {
            uint64_t capacity = max_u64(256, l->capacity * 2);
            struct table_ref *refs =
                capacity > TABLE_LIST_MAX ? NULL : g_try_renew(struct table_ref, l->refs, capacity);
            if (!refs)
                return -ENOMEM;
            l->refs = refs;
            l->capacity = capacity;
        }
    }
    l->refs[l->count++] = *ref;
    return 0;
}
