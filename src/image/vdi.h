/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VDI: what vdi.c (requests) and vdi_manage.c (create, resize, check) share.
 *
 * Spec      VirtualBox's VDI 1.1.
 * Owner     The node.
 * Thread    The node's home thread; everything in a fiber.
 */
#pragma once

#include "image/driver.h"
#include "image/mapcache.h"

#include "base/error.h"

#define VDI_HEADER_BYTES 512u
#define VDI_SECTOR       512u
#define VDI_SIGNATURE    0xbeda107fu
#define VDI_VERSION      0x00010001u
#define VDI_BLOCK_BYTES  (1 * MIB)
#define VDI_BLOCKS_MAX                                                                             \
    0x1fffff80u /* as QEMU: the map's size in bytes is a signed 32-bit number                      \
                 */
#define VDI_PLACES_MAX   0xfffffff0u
#define VDI_PAGE_ENTRIES 1024u
#define VDI_PAGE_BYTES   (VDI_PAGE_ENTRIES * sizeof(uint32_t))

enum vdi_type { VDI_DYNAMIC = 1, VDI_STATIC = 2 };
enum vdi_entry { VDI_UNALLOCATED = 0xffffffffu, VDI_DISCARDED = 0xfffffffeu };

static inline bool vdi_is_block(uint32_t entry)
{
    return entry < VDI_DISCARDED;
}

struct vdi_header {
    uint32_t version, header_bytes, type, flags, map_offset, data_offset, sector_bytes;
    uint64_t disk_bytes;
    uint32_t block_bytes, block_extra, block_count, allocated;
    uint8_t uuid_image[16], uuid_snapshot[16], uuid_link[16], uuid_parent[16];
};

/* Blocks being given out, on their fiber's stack. */
struct vdi_allocation {
    uint64_t first, count;
    struct vdi_allocation *next;
};

struct vdi {
    struct node node;
    uint64_t cache_bytes;      /* option */
    struct vdi_header header;  /* allocated: the place of the next new block */
    uint32_t stored_allocated; /* what the header in the file says now */
    uint32_t file_allocated;   /* and what it said when it was opened */
    struct map_cache map;
    struct vdi_allocation *allocations;
    struct fiber_queue allocation_waiters;
};

static inline struct vdi *vdi_of(struct node *n)
{
    return container_of(n, struct vdi, node);
}

struct vdi_create_options {
    bool is_static, nocow;
    int prealloc;
    uint64_t extent_size_hint;
};

/* ---- vdi.c ---- */
/* Of 512 bytes. False: no VDI. */
bool vdi_header_parse(const uint8_t *sector, struct vdi_header *ret);
/* Puts places, counts and size into a header's bytes. */
void vdi_header_update(const struct vdi_header *h, uint8_t *sector);
int vdi_write_header(struct vdi *v);
/* The map's entry of that block, until the next wait. */
int vdi_get_page(struct vdi *v, uint64_t block, uint32_t **ret_entry);
int vdi_flush(struct node *n);
int vdi_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags);

/* ---- vdi_manage.c ---- */
extern const struct image_option vdi_create_options[];
bool vdi_create(struct image_create *c, GError **error);
bool vdi_measure(const void *create_options, uint64_t size_bytes, struct node *source,
                 struct image_measure *ret, GError **error);
bool vdi_resize(struct node *n, uint64_t size, enum image_prealloc p, GError **error);
bool vdi_check(struct node *n, unsigned fix, struct image_check *ret, GError **error);
