/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the driver "vhdx" share: Hyper-V's virtual hard disks, fixed, dynamic and
 * differencing.
 *
 * Spec      [MS-VHDX]; section numbers are of its revision 7.0. All numbers little-endian.
 * Units     Bytes. Regions and blocks begin at multiples of 1 MiB, metadata changes in pages of 4
 *           KiB.
 * Trust     Everything is hostile: what *_load() return is checked, a table entry is checked when
 *           it is used.
 *
 * A file is: identifier, two headers (the newer valid one counts), two region tables (the same),
 * then, in any order, log, metadata, block table (BAT), payload blocks, and the bitmaps of
 * differencing images.
 */
#pragma once

#include "image/driver.h"
#include "image/vhd/pages.h"

#define VHDX_PAGE          4096u
#define VHDX_MIB           (1024u * 1024u)
#define VHDX_HEADER_AT(i)  ((1 + (uint64_t)(i)) * 64 * KIB)
#define VHDX_REGIONS_AT(i) ((3 + (uint64_t)(i)) * 64 * KIB)
#define VHDX_TABLE_BYTES   (64 * KIB) /* of a region table, and of the metadata table */
#define VHDX_HEADER_BYTES  4096u
#define VHDX_SIZE_MAX      (64ULL << 40)
#define VHDX_FILE_MAX      (128ULL << 40)
#define VHDX_LOG_MAX       (64u * VHDX_MIB) /* that is replayed */
#define VHDX_CHUNK_SECTORS (1ULL << 23)
#define VHDX_BITMAP_BYTES  VHDX_MIB /* of a chunk, one bit a sector */
#define VHDX_DIRTY_PAGES   80       /* of one log entry: three entries fit the smallest log */
#define VHDX_GUID          16

struct vhdx_header {
    uint64_t sequence;
    uint8_t file_guid[VHDX_GUID], data_guid[VHDX_GUID];
    uint8_t log_guid[VHDX_GUID]; /* zeroes: there is nothing to replay */
    uint32_t log_bytes;
    uint64_t log_offset;
};

struct vhdx_range {
    uint64_t off, len;
};

/* Where a metadata item is; len 0: it is not there. */
enum vhdx_item {
    VHDX_FILE_PARAMETERS,
    VHDX_DISK_SIZE,
    VHDX_PAGE83,
    VHDX_LOGICAL_SECTOR,
    VHDX_PHYSICAL_SECTOR,
    VHDX_PARENT_LOCATOR,
    VHDX_ITEMS
};

struct vhdx_metadata {
    uint32_t block_bytes, sector_bytes, physical_bytes;
    bool leave_allocated, has_parent;
    uint64_t disk_bytes;
    struct vhdx_range items[VHDX_ITEMS]; /* in the file */
    unsigned entry_of[VHDX_ITEMS];       /* their place in the table */
    unsigned entry_count;
};

enum vhdx_state {
    VHDX_NOT_PRESENT = 0,
    VHDX_UNDEFINED = 1,
    VHDX_ZERO = 2,
    VHDX_UNMAPPED = 3,
    VHDX_FULL = 6,
    VHDX_PARTIAL = 7
};
#define VHDX_BITMAP_PRESENT 6u

struct vhdx_log;

struct vhdx {
    struct node n;
    uint64_t cache_bytes;
    struct vhdx_header header;
    unsigned slot; /* of the header that counts */
    struct vhdx_range bat, metadata_region;
    struct vhdx_metadata m;
    uint32_t chunk_ratio;     /* payload blocks a bitmap block */
    struct pages *pages;      /* metadata, BAT, bitmaps */
    struct vhdx_log *overlay; /* a log that a reader cannot replay into the file */
    char *parent_linkage;     /* "{guid}" of the parent's data, lower case; NULL: none */
    bool keep_data_guid;      /* see vhdx_begin_write() */

    /* Writing: see vhdx_log.c and vhdx_bat.c. */
    bool writing; /* the header has new identifiers */
    bool logging; /* the header names our log */
    struct fiber_mutex begin_lock, alloc_lock;
    uint8_t log_guid[VHDX_GUID];
    uint64_t log_sequence;
    uint32_t log_at; /* where the next entry goes */
    uint8_t *log_buffer;
    bool space_known;
    uint64_t next_free, reserved_end;
};

static inline struct vhdx *vhdx_of(struct node *n)
{
    return container_of(n, struct vhdx, n);
}

/* ---- vhdx_format.c: bytes ---- */

uint32_t vhdx_crc32c(uint32_t crc, const void *data, size_t len);
/* CRC32C of `len` bytes whose four at `skip` count as zeroes. */
uint32_t vhdx_checksum(const uint8_t *p, size_t len, size_t skip);
extern const uint8_t vhdx_signature[8];                               /* "vhdxfile" */
bool vhdx_header_load(const uint8_t *bytes, struct vhdx_header *ret); /* false: it does not count */
void vhdx_header_store(const struct vhdx_header *h, uint8_t *bytes);  /* VHDX_HEADER_BYTES */
/* bytes: VHDX_TABLE_BYTES. */
bool vhdx_regions_load(const uint8_t *bytes, const char *what, struct vhdx_range *bat,
                       struct vhdx_range *metadata, GError **error);
void vhdx_regions_store(struct vhdx_range bat, struct vhdx_range metadata, uint8_t *bytes);
/* The table alone; the items' contents are read by vhdx_load_metadata(). */
bool vhdx_metadata_table_load(const uint8_t *bytes, struct vhdx_range region, const char *what,
                              struct vhdx_metadata *ret, GError **error);
#define VHDX_ENTRY_BYTES 32u /* of the metadata table, its head included */
void vhdx_metadata_entry_store(enum vhdx_item item, uint32_t offset, uint32_t len, uint8_t *bytes);
void vhdx_metadata_head_store(unsigned count, uint8_t *bytes);
#define VHDX_GUID_TEXT 39
void vhdx_guid_text(const uint8_t *guid, char *ret); /* "{...}" lower case; VHDX_GUID_TEXT bytes */

/* ---- vhdx_log.c ---- */

/* Finds what the header's log holds; *ret NULL: nothing. */
bool vhdx_log_find(struct vhdx *v, struct vhdx_log **ret, GError **error);
/* Into the file, durable, and the header forgets it. */
bool vhdx_log_replay(struct vhdx *v, const struct vhdx_log *log, GError **error);
/* pages_config's overlay; opaque: struct vhdx. */
void vhdx_log_overlay(void *opaque, uint64_t off, uint8_t *buf, size_t len);
void vhdx_log_free(struct vhdx_log *log); /* NULL is fine */
/* pages_config's log. */
int vhdx_log_write(void *opaque, const struct page_copy *copies, unsigned count);

/* ---- vhdx_bat.c ---- */

uint64_t vhdx_payload_blocks(const struct vhdx *v);
/* Entries that a disk of so many blocks has, those of bitmaps included. */
uint64_t vhdx_bat_entries(uint64_t blocks, uint32_t chunk_ratio, bool has_parent);
/* Before the first change of anything: the header says that the file, and its data, are new. */
int vhdx_begin_write(struct vhdx *v);
int vhdx_write_header(struct vhdx *v);
/* -EIO and the image marked corrupt when the entry is wild. */
int vhdx_payload(struct vhdx *v, uint64_t block, enum vhdx_state *ret_state, uint64_t *ret_off);
int vhdx_set_payload(struct vhdx *v, uint64_t block, enum vhdx_state state, uint64_t off);
/* Where the block's part of the bitmap is; -EIO when there is none. */
int vhdx_bitmap(struct vhdx *v, uint64_t block, uint64_t *ret_off);
/* The block is there for writing: FULL, or PARTIAL over a parent. */
int vhdx_allocate(struct vhdx *v, uint64_t block, enum vhdx_state *ret_state, uint64_t *ret_off);
/* Serial: room for `bytes` at the file's end, zeroes. */
int vhdx_take_space(struct vhdx *v, uint64_t bytes, uint64_t *ret_off);
/* The file ends behind what is used; what was reserved is given back. */
int vhdx_tighten(struct vhdx *v);
uint64_t vhdx_payload_index(const struct vhdx *v, uint64_t block);
uint64_t vhdx_bitmap_index(const struct vhdx *v, uint64_t chunk);
int vhdx_entry_read(struct vhdx *v, uint64_t index, uint64_t *ret);
int vhdx_entry_write(struct vhdx *v, uint64_t index, uint64_t entry);
/* Over headers, log, tables, or outside of the file. */
bool vhdx_is_wild(struct vhdx *v, uint64_t off, uint64_t len);

/* ---- vhdx_io.c ---- */

int vhdx_read(struct node *n, uint64_t off, struct vec vec, unsigned flags);
int vhdx_write(struct node *n, uint64_t off, struct vec vec, unsigned flags);
int vhdx_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags);
int vhdx_discard(struct node *n, uint64_t off, uint64_t len);
int vhdx_map(struct node *n, uint64_t off, uint64_t len, struct image_extent *ret);
int vhdx_flush(struct node *n);
int vhdx_make_empty(struct node *n);
/* Every sector of a PARTIAL block that it does not have is zeroes from now on, and the block FULL.
 */
int vhdx_complete_block(struct vhdx *v, uint64_t block);

/* ---- vhdx_parent.c ---- */

bool vhdx_open_parent(struct vhdx *v, GError **error);
/* The locator's bytes for a parent of that name; g_free() them. NULL with *error. `near`: whose
 * folder it is in. */
uint8_t *vhdx_make_locator(struct node *near, const char *name, size_t *ret_len, GError **error);
bool vhdx_change_backing(struct node *n, const char *name, const char *format, GError **error);

/* ---- vhdx.c, vhdx_create.c, vhdx_resize.c, vhdx_check.c ---- */

/* Table and items, from the file (or the log over it). */
bool vhdx_load_metadata(struct vhdx *v, const char *what, GError **error);
uint32_t vhdx_chunk_ratio(const struct vhdx_metadata *m);
struct vhdx_create {
    uint64_t log_size, block_size; /* block_size 0: by the disk's size */
    int subformat;
    bool block_state_zero;
};
extern const struct image_option vhdx_create_options[];
bool vhdx_create(struct image_create *c, GError **error);
bool vhdx_measure(const void *create_options, uint64_t size_bytes, struct node *source,
                  struct image_measure *ret, GError **error);
bool vhdx_resize(struct node *n, uint64_t size, enum image_prealloc p, GError **error);
bool vhdx_check(struct node *n, unsigned fix, struct image_check *ret, GError **error);
