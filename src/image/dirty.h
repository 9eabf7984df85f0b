/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Dirty bitmaps: which parts of a node were written since a moment. Kept in memory, two levels, exact at
 * their granularity; formats that can (qcow2) store them when the node is closed.
 *
 * Owner     The node (those of the user), or the job that made one without a name.
 * Thread    The node's home thread.
 * Units     Bytes at the interface; granularity is a power of two, 512 bytes to 2 GiB.
 */
#pragma once

#include "image/node.h"

#define DIRTY_NAME_MAX 1023
#define DIRTY_GRANULARITY_DEFAULT (64 * KIB)

struct dirty_bitmap {
    char *name;              /* NULL: a job's own */
    struct node *node;       /* borrowed; NULL: of no node, filled by hand */
    uint64_t size_bytes;     /* covered; follows the node's */
    uint32_t granularity;
    bool enabled;            /* writes are recorded */
    bool persistent;         /* stored with the image */
    bool read_only;          /* the image it came from is */
    bool inconsistent;       /* was in use when the image was last left open: only removable */
    bool busy;               /* a job or export uses it */
    uint64_t *bits, *summary; /* one bit a grain; one bit a word of bits */
    uint64_t grain_count, dirty_count;
    struct dirty_bitmap *next;
};

/* Attached to n (writes are recorded from now on), or free-standing of size_bytes when n is NULL.
 * granularity 0: the node's cluster size, kept between 4 KiB and 64 KiB; DIRTY_GRANULARITY_DEFAULT without
 * one. */
struct dirty_bitmap *dirty_new(struct node *n, uint64_t size_bytes, const char *name,
                               uint32_t granularity, GError **error);
void dirty_free(struct dirty_bitmap *b); /* detaches it; NULL is fine */
struct dirty_bitmap *dirty_find(const struct node *n, const char *name);
/* What may be asked of it by name: flags DIRTY_NEED_*; false with a sentence. */
enum dirty_need { DIRTY_NEED_IDLE = 1, DIRTY_NEED_WRITABLE = 2, DIRTY_NEED_CONSISTENT = 4 };
bool dirty_usable(const struct dirty_bitmap *b, unsigned need, GError **error);

void dirty_set(struct dirty_bitmap *b, uint64_t off, uint64_t len);
/* Only grains wholly inside, and the last one when the range reaches the end. */
void dirty_reset(struct dirty_bitmap *b, uint64_t off, uint64_t len);
void dirty_clear(struct dirty_bitmap *b);
bool dirty_get(const struct dirty_bitmap *b, uint64_t off);
uint64_t dirty_bytes(const struct dirty_bitmap *b); /* count * granularity, cut at the end */
/* The first dirty (clean) area in [off, end): false when there is none; at most max_len bytes (0: any). */
bool dirty_next(const struct dirty_bitmap *b, uint64_t off, uint64_t end, uint64_t max_len,
                uint64_t *ret_off, uint64_t *ret_len);
bool dirty_next_clean(const struct dirty_bitmap *b, uint64_t off, uint64_t end, uint64_t *ret_off);
/* dst |= src; granularities may differ; sizes are the same. */
bool dirty_merge(struct dirty_bitmap *dst, const struct dirty_bitmap *src, GError **error);
/* Exchanges the bits: a fresh `a` takes those of b, which ends clear. Same granularity and size. */
void dirty_swap(struct dirty_bitmap *a, struct dirty_bitmap *b);
bool dirty_resize(struct dirty_bitmap *b, uint64_t size_bytes); /* new part clean; false: no memory */
/* Stored form: little-endian bit string, grain 0 the lowest bit of byte 0. first_grain a multiple of 8. */
void dirty_store(const struct dirty_bitmap *b, uint64_t first_grain, uint64_t count, uint8_t *to);
void dirty_load(struct dirty_bitmap *b, uint64_t first_grain, uint64_t count, const uint8_t *from);
/* For the node layer: every enabled bitmap of n records it. */
void dirty_record(struct node *n, uint64_t off, uint64_t len);
