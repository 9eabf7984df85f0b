/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the driver "vpc" share: Microsoft's virtual hard disks, fixed, dynamic and
 * differencing.
 *
 * Spec      Virtual Hard Disk Image Format Specification 1.0 (2006); QEMU's rules for sizes.
 * Units     Offsets and lengths in bytes unless a name says sectors; on disk the block table
 *           counts sectors.
 * Trust     Footers, header, table and bitmaps are hostile: what footer_load() and header_load()
 *           return is checked; a table entry is checked each time it is used.
 *
 * A dynamic image is: copy of the footer, header, block table, blocks (each a bitmap of its
 * sectors, then the sectors), footer. The copy at the front is the one that counts; the one at the
 * end is kept for others to find.
 */
#pragma once

#include "image/driver.h"
#include "image/vhd/pages.h"

#define VHD_SECTOR          512
#define VHD_FOOTER_BYTES    512
#define VHD_HEADER_BYTES    1024
#define VHD_LOCATORS        8
#define VHD_EPOCH_SEC       946684800 /* 2000-01-01 */
#define VHD_BLOCK_DEFAULT   (2 * MIB)
#define VHD_SIZE_MAX        (0xff000000ULL * VHD_SECTOR) /* 2040 GiB */
#define VHD_ENTRIES_MAX     (1u << 24)
#define VHD_UNUSED          0xffffffffu
#define VHD_CHS_SECTORS_MAX (65535ULL * 16 * 255)
#define VHD_FILE_MAX        (0xfffffffeULL * VHD_SECTOR) /* what a table entry can reach */

enum vhd_type { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFFERENCING = 4 };

struct vhd_footer {
    uint64_t data_offset; /* of the header; UINT64_MAX: none */
    uint32_t timestamp;   /* seconds since VHD_EPOCH_SEC */
    char creator[4];
    uint64_t original_bytes, current_bytes;
    uint16_t cylinders;
    uint8_t heads, sectors;
    enum vhd_type type;
    uint8_t uuid[16];
    bool saved_state;
};

/* Where a parent is said to be. */
struct vhd_locator {
    char code[4];        /* "W2ru", "W2ku", "MacX", ...; zeroes: none */
    uint32_t space, len; /* room and use, bytes */
    uint64_t off;
};

struct vhd_header {
    uint64_t table_offset;
    uint32_t entries, block_bytes;
    uint8_t parent_uuid[16];
    uint32_t parent_timestamp;
    uint8_t parent_name[512]; /* UTF-16, big-endian */
    struct vhd_locator locators[VHD_LOCATORS];
};

struct vhd {
    struct node n;
    uint64_t cache_bytes;
    int size_rule; /* enum vhd_size_rule */
    struct vhd_footer footer;
    struct vhd_header header; /* not of fixed ones */
    uint32_t bitmap_bytes;
    struct pages *pages; /* table and bitmaps; NULL: fixed */

    /* Space at the end: see vhd_space.c. */
    struct fiber_mutex alloc_lock;
    bool space_known;
    uint64_t next_free, reserved_end;
};
enum vhd_size_rule { VHD_SIZE_BY_CREATOR, VHD_SIZE_CHS, VHD_SIZE_CURRENT };

static inline struct vhd *vhd_of(struct node *n)
{
    return container_of(n, struct vhd, n);
}

/* ---- vhd_format.c: bytes ---- */

/* "image 'x'" begins the sentences. */
bool vhd_footer_load(const uint8_t *bytes, const char *what, struct vhd_footer *ret,
                     GError **error);
void vhd_footer_store(const struct vhd_footer *f, uint8_t *bytes);
bool vhd_header_load(const uint8_t *bytes, const char *what, struct vhd_header *ret,
                     GError **error);
void vhd_header_store(const struct vhd_header *h, uint8_t *bytes);
/* Cylinders, heads and sectors of the footer for at least that many sectors, by the specification's
 * rule. */
void vhd_geometry(uint64_t sectors, struct vhd_footer *f);
uint64_t vhd_chs_bytes(const struct vhd_footer *f);
/* The size the disk has for the guest. */
uint64_t vhd_disk_bytes(const struct vhd_footer *f, int size_rule);
uint32_t vhd_now(void);
uint32_t vhd_bitmap_bytes(uint32_t block_bytes);
/* From a block's start to the next one's, such that its sectors stay aligned to 4 KiB. */
uint64_t vhd_stride(uint32_t block_bytes);
/* The first place at or behind `end` whose block has its sectors aligned to 4 KiB. */
uint64_t vhd_place(uint64_t end, uint32_t block_bytes);

/* ---- vhd_space.c: the table, and room for blocks ---- */

/* Where the block's bitmap is; 0: it has none. -EIO and the image marked corrupt when the entry is
 * wild. */
int vhd_lookup(struct vhd *v, uint32_t block, uint64_t *ret_off);
/* The same, given a place when it has none; with all sectors present, or none when there is a
 * parent's image. */
int vhd_allocate(struct vhd *v, uint32_t block, uint64_t *ret_off);
/* The first byte behind the last block, table, header and locator. */
int vhd_find_end(struct vhd *v, uint64_t *ret);
/* Gives back what was reserved: the file ends with the footer right behind the last block, where others expect it
 * when they append one. */
int vhd_tighten(struct vhd *v);
/* Serial: under alloc_lock, or while nothing is in flight. Room behind all that there is; its first
 * sector may hold an old footer, the rest is zeroes. */
int vhd_take_space(struct vhd *v, uint64_t bytes, uint64_t *ret_off);
int vhd_write_end_footer(struct vhd *v, uint64_t at);
/* The image is what *f and, at f->data_offset, *h (NULL: the one that is there) say, from one write
 * of one sector on: a changed header needs a new place. */
int vhd_switch(struct vhd *v, const struct vhd_footer *f, const struct vhd_header *h);
/* A block may not lie over footer, header or table. Its end may be cut off by the file's, as others
 * do: reads then give zeroes. */
bool vhd_is_wild(struct vhd *v, uint64_t off);
uint32_t vhd_blocks(const struct vhd *v);

/* ---- vhd_io.c ---- */

struct vhd_run {
    uint64_t len;
    bool present;  /* in this image */
    uint64_t host; /* of the bytes, when present */
};
/* What is at [off, off + len): the longest run of one kind inside a block. */
int vhd_run_at(struct vhd *v, uint64_t off, uint64_t len, struct vhd_run *ret);
int vhd_read(struct node *n, uint64_t off, struct vec vec, unsigned flags);
int vhd_write(struct node *n, uint64_t off, struct vec vec, unsigned flags);
int vhd_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags);
int vhd_discard(struct node *n, uint64_t off, uint64_t len);
int vhd_map(struct node *n, uint64_t off, uint64_t len, struct image_extent *ret);
int vhd_flush(struct node *n);
int vhd_make_empty(struct node *n);

/* ---- vhd_parent.c ---- */

/* Opens the parent that the header names, unless told otherwise; *ret_ok false: with *error. */
bool vhd_open_parent(struct vhd *v, GError **error);
/* Puts name and identity of the parent into *h, and into `area`, VHD_LOCATOR_BYTES that will be at
 * `at` in the file, the locators. */
bool vhd_name_parent(struct vhd_header *h, const char *name, struct vhd *parent, uint8_t *area,
                     uint64_t at, GError **error);
/* Opens an image that is to be a parent, for its identity. `near`: whose folder the name is
 * relative to. */
struct vhd *vhd_look_at_parent(struct node *near, const char *name, GError **error);
bool vhd_change_backing(struct node *n, const char *name, const char *format, GError **error);
/* Seconds since VHD_EPOCH_SEC when the parent's file was last changed; 0: unknown. */
uint32_t vhd_parent_time(struct node *parent);
#define VHD_LOCATOR_BYTES 8192 /* room for the locators of one name */
#define VHD_NAME_MAX      1023

/* ---- vhd_create.c, vhd_resize.c, vhd_check.c ---- */

struct vhd_create {
    int subformat; /* enum vhd_subformat */
    bool force_size;
    uint64_t block_size;
};
enum vhd_subformat { VHD_SUB_DYNAMIC, VHD_SUB_FIXED };
extern const struct image_option vhd_create_options[];
bool vhd_create(struct image_create *c, GError **error);
bool vhd_measure(const void *create_options, uint64_t size_bytes, struct node *source,
                 struct image_measure *ret, GError **error);
bool vhd_resize(struct node *n, uint64_t size, enum image_prealloc p, GError **error);
bool vhd_check(struct node *n, unsigned fix, struct image_check *ret, GError **error);
