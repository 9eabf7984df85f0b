/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Making VHDX files, and saying how large they will be.
 *
 * Spec      [MS-VHDX] 2; QEMU's options and defaults.
 * Layout    Headers and region tables in the first MiB; log; metadata, 1 MiB; BAT; blocks.
 */
#include "image/vhd/pages.h"
#include "image/crypto.h"
#include "image/vhd/put.h"
#include "image/vhdx/vhdx.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { SUB_DYNAMIC, SUB_FIXED };
static const char *const subformat_words[] = {"dynamic", "fixed", NULL};
const struct image_option vhdx_create_options[] = {
    OPT_SIZE("log_size", struct vhdx_create, log_size, 1 * MIB, 1 * MIB, 4095 * MIB,
             "Log, whole MiB"),
    OPT_SIZE("block_size", struct vhdx_create, block_size, 0, 0, 256 * MIB,
             "Allocation unit; 0: 8 to 64 MiB, by the disk's size"),
    OPT_WORD("subformat", struct vhdx_create, subformat, subformat_words, SUB_DYNAMIC,
             "dynamic or fixed"),
    OPT_BOOL("block_state_zero", struct vhdx_create, block_state_zero, true,
             "Say of new blocks that they are zero, rather than not there"),
    {0},
};

#define SECTOR_BYTES   512u
#define PHYSICAL_BYTES 4096u
#define ITEMS_AT       VHDX_TABLE_BYTES /* of the metadata region */
#define ITEM_ROOM      64u
#define LOCATOR_AT     (ITEMS_AT + VHDX_PAGE)
#define BAT_PART       8192 /* entries written at a time */

struct plan {
    struct vhdx_header header;
    struct vhdx_range bat, metadata;
    struct vhdx_metadata m;
    uint64_t blocks, entries, blocks_at;
    uint8_t *locator;
    size_t locator_len;
};

static uint64_t default_block(uint64_t disk)
{
    return disk > 32768 * GIB ? 64 * MIB
           : disk > 100 * GIB ? 32 * MIB
           : disk > 1 * GIB   ? 16 * MIB
                              : 8 * MIB;
}

static bool plan_sizes(uint64_t disk_bytes, const struct vhdx_create *o, bool has_parent,
                       struct plan *p, GError **error)
{
    uint64_t block = o->block_size ? o->block_size : default_block(disk_bytes);
    uint64_t disk = align_up(max_u64(disk_bytes, 1), SECTOR_BYTES);
    if (disk_bytes > VHDX_SIZE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "A VHDX of %" PRIu64 " bytes cannot be; the limit is 64 TiB",
                           disk_bytes);
    if (!is_power_of_2(block) || block < VHDX_MIB)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "block_size %" PRIu64 " is no power of two between 1 MiB and 256 MiB",
                           block);
    if (o->log_size % VHDX_MIB)
        return ruche_error(error, RUCHE_ERR_INVALID, "log_size %" PRIu64 " is not whole MiB",
                           o->log_size);
    p->m = (struct vhdx_metadata){.block_bytes = (uint32_t)block,
                                  .sector_bytes = SECTOR_BYTES,
                                  .physical_bytes = PHYSICAL_BYTES,
                                  .disk_bytes = disk,
                                  .has_parent = has_parent,
                                  .leave_allocated = o->subformat == SUB_FIXED};
    p->blocks = (disk + block - 1) / block;
    /* Room for the bitmaps of a differencing image, too, that it may become. */
    p->entries = vhdx_bat_entries(p->blocks, vhdx_chunk_ratio(&p->m), true);
    p->header = (struct vhdx_header){.log_offset = VHDX_MIB, .log_bytes = (uint32_t)o->log_size};
    p->metadata = (struct vhdx_range){VHDX_MIB + o->log_size, VHDX_MIB};
    p->bat = (struct vhdx_range){p->metadata.off + VHDX_MIB, align_up(p->entries * 8, VHDX_MIB)};
    p->blocks_at = p->bat.off + p->bat.len;
    return true;
}

/* ---- the parts ---- */

static int write_front(struct node *file, struct plan *p)
{
    g_autofree uint8_t *bytes = g_malloc0(VHDX_TABLE_BYTES);
    static const uint8_t creator[] = {'r', 0, 'u', 0, 'c', 0, 'h', 0, 'e', 0};
    struct put w = put_to(bytes, VHDX_TABLE_BYTES);
    put_bytes(&w, vhdx_signature, sizeof(vhdx_signature));
    put_bytes(&w, creator, sizeof(creator));
    int r = node_pwrite(file, 0, bytes, VHDX_TABLE_BYTES, 0);
    for (unsigned i = 0; i < 2 && !r; i++) {
        p->header.sequence = i + 1;
        vhdx_header_store(&p->header, bytes);
        r = node_pwrite(file, VHDX_HEADER_AT(i), bytes, VHDX_HEADER_BYTES, 0);
    }
    vhdx_regions_store(p->bat, p->metadata, bytes);
    for (unsigned i = 0; i < 2 && !r; i++)
        r = node_pwrite(file, VHDX_REGIONS_AT(i), bytes, VHDX_TABLE_BYTES, 0);
    return r;
}

/* Item i is at ITEMS_AT + i * ITEM_ROOM. */
static void store_items(const struct vhdx_metadata *m, const uint8_t *page83, uint8_t *bytes)
{
    struct put w = put_to(bytes + VHDX_FILE_PARAMETERS * ITEM_ROOM, 8);
    put_le32(&w, m->block_bytes);
    put_le32(&w, (m->leave_allocated ? 1 : 0) | (m->has_parent ? 2 : 0));
    w = put_to(bytes + VHDX_DISK_SIZE * ITEM_ROOM, 8);
    put_le64(&w, m->disk_bytes);
    w = put_to(bytes + VHDX_PAGE83 * ITEM_ROOM, VHDX_GUID);
    put_bytes(&w, page83, VHDX_GUID);
    w = put_to(bytes + VHDX_LOGICAL_SECTOR * ITEM_ROOM, 4);
    put_le32(&w, m->sector_bytes);
    w = put_to(bytes + VHDX_PHYSICAL_SECTOR * ITEM_ROOM, 4);
    put_le32(&w, m->physical_bytes);
}

static int write_metadata(struct node *file, const struct plan *p)
{
    static const uint8_t lengths[] = {8, 8, VHDX_GUID, 4, 4};
    uint8_t page83[VHDX_GUID];
    g_autofree uint8_t *bytes = g_malloc0(LOCATOR_AT);
    unsigned count = ARRAY_COUNT(lengths);
    vhdx_metadata_head_store(count + (p->locator != NULL), bytes);
    for (unsigned i = 0; i < count; i++)
        vhdx_metadata_entry_store((enum vhdx_item)i, (uint32_t)(ITEMS_AT + i * ITEM_ROOM),
                                  lengths[i], bytes + (i + 1) * VHDX_ENTRY_BYTES);
    if (p->locator)
        vhdx_metadata_entry_store(VHDX_PARENT_LOCATOR, LOCATOR_AT, (uint32_t)p->locator_len,
                                  bytes + (count + 1) * VHDX_ENTRY_BYTES);
    int r = crypto_random(page83, sizeof(page83));
    store_items(&p->m, page83, bytes + ITEMS_AT);
    if (!r)
        r = node_pwrite(file, p->metadata.off, bytes, LOCATOR_AT, 0);
    if (!r && p->locator)
        r = node_pwrite(file, p->metadata.off + LOCATOR_AT, p->locator, p->locator_len, 0);
    return r;
}

/* A state of zero for all is what the empty file says already. */
static int write_bat(struct node *file, const struct plan *p, enum vhdx_state state)
{
    uint32_t ratio = vhdx_chunk_ratio(&p->m);
    g_autofree uint64_t *part = g_try_new(uint64_t, BAT_PART);
    int r = part ? 0 : -ENOMEM;
    uint64_t count = vhdx_bat_entries(p->blocks, ratio, false), block = 0;
    for (uint64_t i = 0, n; i < count && !r; i += n) {
        n = min_u64(count - i, BAT_PART);
        for (uint64_t k = 0; k < n; k++) {
            bool bitmap = (i + k) % (ratio + 1ULL) == ratio;
            uint64_t off = state == VHDX_FULL ? p->blocks_at + block * p->m.block_bytes : 0;
            part[k] = bitmap ? 0 : GUINT64_TO_LE(off | state);
            block += !bitmap;
        }
        r = node_pwrite(file, p->bat.off + 8 * i, part, 8 * n, 0);
    }
    return r;
}

static bool write_all(const struct image_create *c, struct plan *p, GError **error)
{
    const struct vhdx_create *o = c->options;
    enum vhdx_state state = o->subformat == SUB_FIXED                 ? VHDX_FULL
                            : o->block_state_zero && !p->m.has_parent ? VHDX_ZERO
                                                                      : VHDX_NOT_PRESENT;
    uint64_t end = p->blocks_at + (state == VHDX_FULL ? p->blocks * p->m.block_bytes : 0);
    if (!node_resize(c->file, end, PREALLOC_OFF, error))
        return false;
    int r = crypto_random(p->header.file_guid, VHDX_GUID);
    if (!r)
        r = crypto_random(p->header.data_guid, VHDX_GUID);
    if (!r)
        r = write_front(c->file, p);
    if (!r)
        r = write_metadata(c->file, p);
    if (!r && state != VHDX_NOT_PRESENT)
        r = write_bat(c->file, p, state);
    return !r || ruche_error_errno(error, -r, "'%s': cannot write", c->filename);
}

bool vhdx_create(struct image_create *c, GError **error)
{
    const struct vhdx_create *o = c->options;
    struct plan p = {.locator = NULL};
    if (!plan_sizes(c->size_bytes, o, c->backing_file, &p, error))
        return false;
    if (c->backing_file && o->subformat == SUB_FIXED)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "'%s': a fixed VHDX cannot have a parent",
                           c->filename);
    if (c->backing_file && c->backing_format && strcmp(c->backing_format, "vhdx"))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "'%s': the parent of a VHDX must be a VHDX, not '%s'", c->filename,
                           c->backing_format);
    if (c->backing_file &&
        !(p.locator = vhdx_make_locator(c->file, c->backing_file, &p.locator_len, error)))
        return false;
    bool ok = write_all(c, &p, error);
    g_free(p.locator);
    return ok;
}

bool vhdx_measure(const void *create_options, uint64_t size_bytes, struct node *source,
                  struct image_measure *ret, GError **error)
{
    const struct vhdx_create *o = create_options;
    struct plan p = {.locator = NULL};
    uint64_t used = 0;
    if (!plan_sizes(source ? node_size(source) : size_bytes, o, false, &p, error))
        return false;
    if (o->subformat == SUB_FIXED)
        used = p.blocks;
    else if (source && !pages_count_blocks(source, p.m.block_bytes, &used, error))
        return false;
    *ret = (struct image_measure){p.blocks_at + used * p.m.block_bytes,
                                  p.blocks_at + p.blocks * p.m.block_bytes, UINT64_MAX};
    return true;
}
