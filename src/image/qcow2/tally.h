/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Counting references: how often tables refer to each cluster of an image, and reading many tables fast.
 *
 * Owner     tally_init() ... tally_done(), by a check, a snapshot or an amendment, on whose stack it lives.
 * Thread    The node's home thread; walks start fibers of their own, whose calls do not overlap in time but interleave.
 * Units     Clusters, by index in the file.
 * Trust     References come from hostile tables: every index is compared with the file's size; memory is capped.
 * Errors    -ERANGE: outside of the file; -ENOMEM: more than TALLY_BYTES_MAX.
 */
#pragma once

#include "image/qcow2/internal.h"

#define TALLY_CHUNK_BITS 14
#define TALLY_BYTES_MAX (2 * GIB)
#define TALLY_CLUSTERS_MAX (1ULL << 40)

/* A cell: a count, and what is known of who refers. */
#define TALLY_COUNT 0x1fff     /* this value: the true one is in `large` */
#define TALLY_META 0x2000      /* a table or other metadata is here */
#define TALLY_COPIED 0x4000    /* an active reference says "copied" */
#define TALLY_PLAIN 0x8000     /* an active reference does not */

struct tally {
    uint64_t clusters;         /* of the file */
    uint64_t chunk_count, used; /* of `chunks`; of them with memory */
    uint16_t **chunks;         /* NULL: nothing refers there */
    GHashTable *large;         /* cluster to count, for those above TALLY_COUNT */
};

bool tally_init(struct tally *t, uint64_t clusters, const char *name, GError **error);
void tally_done(struct tally *t); /* twice is fine */
/* The cell, made when there is none; NULL: out of range or memory (*ret_err). */
uint16_t *tally_make_cell(struct tally *t, uint64_t index, int *ret_err);
static inline uint16_t *tally_cell(const struct tally *t, uint64_t index)
{
    if (index >= t->clusters)
        return NULL;
    uint16_t *chunk = t->chunks[index >> TALLY_CHUNK_BITS];
    return chunk ? chunk + (index & ((1 << TALLY_CHUNK_BITS) - 1)) : NULL;
}
uint64_t tally_get(const struct tally *t, uint64_t index);
/* Adds `count` references and the flags to one cluster. */
int tally_add(struct tally *t, uint64_t index, uint32_t count, uint16_t flags);
void tally_clear_cell(struct tally *t, uint64_t index);
/* Takes from both what they have in common. */
void tally_cancel(struct tally *a, struct tally *b);
/* The first cluster in [from, end) that is referred to, or `end`. */
uint64_t tally_next(const struct tally *t, uint64_t from, uint64_t end);

/* A table of one cluster in the file: an L2 table with who uses it, or a refcount block with its index. */
struct table_ref {
    uint64_t offset;
    uint32_t uses, active;     /* L1 entries that refer to it; of them of the active L1 */
    uint64_t index;            /* refcount block: in the refcount table */
};
struct table_list {
    struct table_ref *refs;    /* owned */
    uint64_t count, capacity;
};
#define TABLE_LIST_MAX (1ULL << 24)

void table_list_done(struct table_list *l);
int table_list_add(struct table_list *l, const struct table_ref *ref);
/* Sorts by offset and makes one of those with the same. */
void table_list_merge(struct table_list *l);

/* 0; 1: the table was changed and is to be written back; negative: stop. Called in fibers that interleave. (f) */
typedef int table_fn(void *opaque, const struct table_ref *ref, uint8_t *table);
/* Reads them, many at a time, neighbours in one go. The image is quiet and committed: caches are passed by, and must
 * forget what is written back. (f) */
enum walk_flags { WALK_SKIP_HOLES = 1 }; /* fn is not called for tables of zeroes that lie in a hole of the file */
int tables_walk(struct qcow2 *s, const struct table_list *l, unsigned flags, table_fn *fn,
                void *opaque);

/* The L2 tables of an L1 in host order, each with `uses` 1. Entries that are no valid offset are left out. */
int tree_tables(struct qcow2 *s, const uint64_t *l1, uint64_t l1_count, struct table_list *ret);
/* Counts what an L1 refers to: L2 tables and clusters of the image file. -EIO: broken entries. (f) */
int tree_tally(struct qcow2 *s, const uint64_t *l1, uint64_t l1_count, struct tally *t);
/* Adds the tally to the refcounts; undone and -EINVAL when one would become too large. (f) */
int tree_raise(struct qcow2 *s, const struct tally *t);
/* Takes the tally from the refcounts, after the next commit. (f) */
void tree_lower(struct qcow2 *s, const struct tally *t);
/* An L1 table from disk, host order; NULL with *error. (f) */
uint64_t *tree_read_l1(struct qcow2 *s, uint64_t offset, uint64_t count, GError **error);

static inline uint64_t table_entry(const uint8_t *table, uint64_t i)
{
    uint64_t v;
    __builtin_memcpy(&v, table + i * 8, 8);
    return __builtin_bswap64(v);
}
static inline void table_set_entry(uint8_t *table, uint64_t i, uint64_t v)
{
    v = __builtin_bswap64(v);
    __builtin_memcpy(table + i * 8, &v, 8);
}
