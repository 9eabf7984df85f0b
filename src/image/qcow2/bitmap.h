/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The bitmap directory as it is stored.
 *
 * Spec      qcow2, "Bitmaps extension".
 * Owner     bitmap_dir_read() ... bitmap_dir_done().
 * Trust     Hostile: counts and sizes are capped before anything is allocated, offsets checked for alignment.
 */
#pragma once

#include "image/qcow2/internal.h"

enum bitmap_flags { BITMAP_IN_USE = 1, BITMAP_AUTO = 2, BITMAP_EXTRA_COMPATIBLE = 4 };
#define BITMAP_FLAGS_KNOWN 7u
#define BITMAP_TYPE_DIRTY 1
#define BITMAP_GRANULARITY_BITS_MIN 9
#define BITMAP_GRANULARITY_BITS_MAX 31
#define BITMAP_TABLE_MAX (1u << 27)     /* entries */
#define BITMAP_BYTES_MAX (512 * MIB)    /* of one bitmap's bits */
#define BITMAP_ENTRY_BYTES 24           /* before extra data and name */
#define BITMAP_TABLE_OFFSET 0x00fffffffffffe00ULL
#define BITMAP_TABLE_ONES 1ULL          /* without an offset: all bits are set */
#define BITMAP_TABLE_RESERVED 0xff000000000001feULL

struct bitmap_entry {
    char *name;
    uint64_t table_offset;
    uint32_t table_count;               /* entries */
    uint32_t flags;
    uint8_t type, granularity_bits;
    uint8_t *extra;
    uint32_t extra_bytes;
};
struct bitmap_dir {
    struct bitmap_entry *entries;
    uint32_t count;
};

/* Empty when the image has none. (f) */
bool bitmap_dir_read(struct qcow2 *s, struct bitmap_dir *ret, GError **error);
void bitmap_dir_done(struct bitmap_dir *d);
/* Bytes that it takes; and the bytes themselves, padding zeroed. */
uint64_t bitmap_dir_bytes(const struct bitmap_dir *d);
void bitmap_dir_build(const struct bitmap_dir *d, uint8_t *to);
/* The first `count` entries, at most e->table_count; host order; g_free(). NULL with *error. (f) */
uint64_t *bitmap_table_read(struct qcow2 *s, const struct bitmap_entry *e, uint32_t count,
                            GError **error);
