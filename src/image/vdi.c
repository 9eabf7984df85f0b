/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The driver "vdi": VirtualBox's disks, dynamic and static. Opening, reading, writing.
 *
 * Spec      VirtualBox's VDI 1.1: a header, a map with the place of each block, the blocks.
 * Owner     The node; made by vdi_open(), freed by vdi_close().
 * Thread    The node's home thread.
 * Fiber     All but describe and probe. Who waits looks up again what it found before.
 * Trust     Header and map are hostile: sizes are capped, entries are checked when used.
 * Order     A crash at any instant leaves at most blocks that nothing refers to:
 *           1. Blocks are given out behind the end of the file, where it reads as zeroes; their
 * data is written first.
 *           2. The map entry is set in memory when the write is done.
 *           3. A flush writes the header with the count of blocks and syncs, data too; then it
 * writes the changed pages of the map, and syncs. So the count is never below what the map refers
 * to.
 */
#include "image/vdi.h"

#include "base/cursor.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define CACHE_BYTES (1 * MIB) /* the map of 256 GiB */

/* ---- header ---- */

bool vdi_header_parse(const uint8_t *sector, struct vdi_header *ret)
{
    struct cur c = cur_of(sector, VDI_HEADER_BYTES);
    cur_take(&c, 64); /* a text */
    if (cur_le32(&c) != VDI_SIGNATURE)
        return false;
    ret->version = cur_le32(&c);
    ret->header_bytes = cur_le32(&c);
    ret->type = cur_le32(&c);
    ret->flags = cur_le32(&c);
    cur_take(&c, 256); /* description */
    ret->map_offset = cur_le32(&c);
    ret->data_offset = cur_le32(&c);
    cur_take(&c, 12); /* geometry */
    ret->sector_bytes = cur_le32(&c);
    cur_le32(&c);
    ret->disk_bytes = cur_le64(&c);
    ret->block_bytes = cur_le32(&c);
    ret->block_extra = cur_le32(&c);
    ret->block_count = cur_le32(&c);
    ret->allocated = cur_le32(&c);
    cur_copy(&c, ret->uuid_image, 16);
    cur_copy(&c, ret->uuid_snapshot, 16);
    cur_copy(&c, ret->uuid_link, 16);
    cur_copy(&c, ret->uuid_parent, 16);
    return !c.bad;
}

static void put32(uint8_t *sector, unsigned at, uint32_t value)
{
    memcpy(sector + at, &value, sizeof(value));
}

void vdi_header_update(const struct vdi_header *h, uint8_t *sector)
{
    put32(sector, 340, h->map_offset);
    put32(sector, 344, h->data_offset);
    memcpy(sector + 368, &h->disk_bytes, sizeof(h->disk_bytes));
    put32(sector, 384, h->block_count);
    put32(sector, 388, h->allocated);
}

static bool check_kind(const struct node *n, const struct vdi_header *h, GError **error)
{
    static const uint8_t none[16];
    const char *name = n->filename;
    if (h->version != VDI_VERSION)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "image '%s': VDI version %u.%u is not supported; 1.1 is", name,
                           h->version >> 16, h->version & 0xffff);
    if (h->type != VDI_DYNAMIC && h->type != VDI_STATIC)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "image '%s': VDI type %u (undo or differencing) is not supported; "
                           "dynamic and static are",
                           name, h->type);
    if (memcmp(h->uuid_link, none, 16) != 0 || memcmp(h->uuid_parent, none, 16) != 0)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "image '%s': it belongs to a parent, which is not supported", name);
    if (h->sector_bytes != VDI_SECTOR)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "image '%s': sectors of %u bytes are not supported", name,
                           h->sector_bytes);
    if (h->block_bytes != VDI_BLOCK_BYTES || h->block_extra)
        return ruche_error(
            error, RUCHE_ERR_UNSUPPORTED,
            "image '%s': blocks of %u and %u more bytes are not supported; blocks of 1 MiB are",
            name, h->block_bytes, h->block_extra);
    return true;
}

static bool check_places(const struct vdi *v, GError **error)
{
    const struct vdi_header *h = &v->header;
    const char *name = v->node.filename;
    uint64_t file = node_size(node_file(&v->node)),
             map = (uint64_t)h->block_count * sizeof(uint32_t);
    if (h->block_count > VDI_BLOCKS_MAX ||
        h->disk_bytes > (uint64_t)h->block_count * VDI_BLOCK_BYTES)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "image '%s': %" PRIu64
                           " bytes do not fit into %u blocks (of %u at most)",
                           name, h->disk_bytes, h->block_count, VDI_BLOCKS_MAX);
    if (h->map_offset < VDI_HEADER_BYTES || h->map_offset % VDI_SECTOR ||
        !range_fits(h->map_offset, map, file))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "image '%s': the block map of %" PRIu64
                           " bytes at %u is not inside the file of %" PRIu64 " bytes",
                           name, map, h->map_offset, file);
    if (h->data_offset % VDI_SECTOR || h->data_offset < VDI_HEADER_BYTES ||
        (h->data_offset < h->map_offset + map && h->data_offset > h->map_offset))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "image '%s': the blocks' offset %u lies inside the block map", name,
                           h->data_offset);
    return true;
}

/* ---- the block map ---- */

static uint64_t page_bytes(const struct vdi *v, uint64_t key)
{
    uint64_t left = (uint64_t)v->header.block_count * sizeof(uint32_t) - key * VDI_PAGE_BYTES;
    return min_u64(VDI_PAGE_BYTES, left);
}

static int map_load(void *opaque, uint64_t key, uint32_t *entries)
{
    struct vdi *v = opaque;
    uint64_t bytes = page_bytes(v, key);
    memset((uint8_t *)entries + bytes, 0xff, VDI_PAGE_BYTES - bytes);
    return node_pread(node_file(&v->node), v->header.map_offset + key * VDI_PAGE_BYTES, entries,
                      bytes);
}

int vdi_write_header(struct vdi *v)
{
    struct node *file = node_file(&v->node);
    uint8_t sector[VDI_HEADER_BYTES];
    int r = node_pread(file, 0, sector, sizeof(sector));
    vdi_header_update(&v->header, sector);
    return r < 0 ? r : node_pwrite(file, 0, sector, sizeof(sector), 0);
}

static int map_barrier(void *opaque)
{
    struct vdi *v = opaque;
    int r = 0;
    if (v->header.allocated != v->stored_allocated) {
        uint32_t now = v->header.allocated;
        r = vdi_write_header(v);
        if (r >= 0)
            v->stored_allocated = now;
    }
    return r < 0 ? r : node_flush(node_file(&v->node));
}

static int map_store(void *opaque, const uint64_t *keys, const uint32_t *pages, unsigned count)
{
    struct vdi *v = opaque;
    int r = 0;
    for (unsigned i = 0, n; r >= 0 && i < count; i += n) {
        for (n = 1; i + n < count && keys[i + n] == keys[i] + n; n++)
            ;
        uint64_t bytes = (n - 1) * VDI_PAGE_BYTES + page_bytes(v, keys[i + n - 1]);
        r = node_pwrite(node_file(&v->node), v->header.map_offset + keys[i] * VDI_PAGE_BYTES,
                        pages + (size_t)i * VDI_PAGE_ENTRIES, bytes, 0);
    }
    return r;
}

static const struct map_ops map_ops = {
    .load = map_load, .barrier = map_barrier, .store = map_store};

int vdi_get_page(struct vdi *v, uint64_t block, uint32_t **ret_entry)
{
    int r = map_cache_get(&v->map, block / VDI_PAGE_ENTRIES, ret_entry);
    if (r >= 0)
        *ret_entry += block % VDI_PAGE_ENTRIES;
    return r;
}

/* ---- looking up ---- */

struct run {
    bool data; /* else it reads as zeroes */
    uint64_t len, host;
};

/* The run of bytes from `off` whose blocks are all missing, or lie behind one another. Nothing
 * waits after the map was read. */
static int lookup(struct vdi *v, uint64_t off, uint64_t len, struct run *ret)
{
    uint64_t block = off / VDI_BLOCK_BYTES, inside = off % VDI_BLOCK_BYTES;
    uint32_t *t;
    int r = vdi_get_page(v, block, &t);
    if (r < 0)
        return r;
    uint64_t count = min_u64((inside + len + VDI_BLOCK_BYTES - 1) / VDI_BLOCK_BYTES,
                             VDI_PAGE_ENTRIES - block % VDI_PAGE_ENTRIES);
    uint64_t n = 1;
    ret->data = vdi_is_block(t[0]);
    if (ret->data)
        while (n < count && t[n] == t[0] + n && vdi_is_block(t[n]))
            n++;
    else
        while (n < count && !vdi_is_block(t[n]))
            n++;
    ret->len = min_u64(len, n * VDI_BLOCK_BYTES - inside);
    ret->host = v->header.data_offset + (uint64_t)t[0] * VDI_BLOCK_BYTES + inside;
    return 0;
}

/* The run's first block must begin inside the file; the last one may be cut short. */
static int check_host(struct vdi *v, uint64_t off, const struct run *run, bool write)
{
    uint64_t size = node_size(node_file(&v->node)), host = run->host;
    uint64_t map_end = v->header.map_offset + (uint64_t)v->header.block_count * sizeof(uint32_t);
    bool over_map = host < map_end && host + run->len > v->header.map_offset;
    if (host - off % VDI_BLOCK_BYTES < size && !over_map)
        return 0;
    return node_corrupt(&v->node, write, (int64_t)host, run->len,
                        "a block at %" PRIu64
                        " lies over the block map or behind the end of the file, %" PRIu64,
                        host, size);
}

/* Bytes of the run that the file has; the rest reads as zeroes. */
static uint64_t inside_file(const struct vdi *v, const struct run *run)
{
    uint64_t size = node_size(node_file(&v->node));
    return run->host < size ? min_u64(run->len, size - run->host) : 0;
}

static int read_data(struct vdi *v, uint64_t off, const struct run *run, struct vec to)
{
    int r = check_host(v, off, run, false);
    uint64_t n = inside_file(v, run);
    if (r < 0)
        return r;
    vec_fill(vec_slice(to, n, to.len - n), 0);
    return n ? node_read(node_file(&v->node), run->host, vec_slice(to, 0, n), 0) : 0;
}

static int vdi_read(struct node *n, uint64_t off, struct vec to, unsigned flags)
{
    struct vdi *v = vdi_of(n);
    while (to.len) {
        struct run run;
        int r = lookup(v, off, to.len, &run);
        if (r < 0)
            return r;
        struct vec part = vec_slice(to, 0, run.len);
        if (!run.data)
            vec_fill(part, 0);
        else
            r = read_data(v, off, &run, part);
        if (r < 0)
            return r;
        off += run.len;
        to = vec_slice(to, run.len, to.len - run.len);
    }
    return 0;
}

/* ---- writing ---- */

static bool wait_allocation(struct vdi *v, uint64_t block, uint64_t *count)
{
    for (struct vdi_allocation *a = v->allocations; a; a = a->next) {
        if (a->first >= block + *count || a->first + a->count <= block)
            continue;
        if (a->first <= block) {
            fiber_queue_wait(&v->allocation_waiters);
            return true;
        }
        *count = a->first - block;
    }
    return false;
}

static int set_entries(struct vdi *v, uint64_t block, uint64_t count, uint32_t first)
{
    uint32_t *t;
    int r = vdi_get_page(v, block, &t);
    if (r < 0)
        return r;
    for (uint64_t i = 0; i < count; i++)
        t[i] = first + (uint32_t)i;
    map_cache_changed(&v->map, block / VDI_PAGE_ENTRIES);
    return 0;
}

/* New blocks lie where the file has not been yet, and where it reads as zeroes. */
static int write_new(struct vdi *v, uint64_t off, struct vec from, uint64_t count)
{
    struct node *file = node_file(&v->node);
    uint32_t first = v->header.allocated;
    uint64_t block = off / VDI_BLOCK_BYTES;
    uint64_t host = v->header.data_offset + (uint64_t)first * VDI_BLOCK_BYTES;
    if (first + count > VDI_PLACES_MAX)
        return -EFBIG;
    if (!file->grows && host + count * VDI_BLOCK_BYTES > node_size(file))
        return -ENOSPC;
    v->header.allocated += (uint32_t)count;
    struct vdi_allocation a = {.first = block, .count = count, .next = v->allocations};
    v->allocations = &a;
    int r = node_write(file, host + off % VDI_BLOCK_BYTES, from, 0);
    if (r >= 0)
        r = set_entries(v, block, count, first);
    struct vdi_allocation **at = &v->allocations;
    while (*at != &a)
        at = &(*at)->next;
    *at = a.next;
    fiber_queue_wake_all(&v->allocation_waiters);
    return r;
}

static int vdi_write(struct node *n, uint64_t off, struct vec from, unsigned flags)
{
    struct vdi *v = vdi_of(n);
    while (from.len) {
        struct run run;
        int r = lookup(v, off, from.len, &run);
        if (r < 0)
            return r;
        uint64_t inside = off % VDI_BLOCK_BYTES,
                 count = (inside + run.len + VDI_BLOCK_BYTES - 1) / VDI_BLOCK_BYTES;
        if (run.data) {
            r = check_host(v, off, &run, true);
            if (r >= 0)
                r = node_write(node_file(n), run.host, vec_slice(from, 0, run.len), 0);
        } else {
            if (wait_allocation(v, off / VDI_BLOCK_BYTES, &count))
                continue;
            run.len = min_u64(run.len, count * VDI_BLOCK_BYTES - inside);
            r = write_new(v, off, vec_slice(from, 0, run.len), count);
        }
        if (r < 0)
            return r;
        off += run.len;
        from = vec_slice(from, run.len, from.len - run.len);
    }
    return 0;
}

/* Blocks keep their place, so that nothing leaks; missing ones are zero as they are. */
static int zero_or_discard(struct vdi *v, uint64_t off, uint64_t len, bool zero, unsigned flags)
{
    struct node *file = node_file(&v->node);
    while (len) {
        struct run run;
        int r = lookup(v, off, len, &run);
        if (r >= 0 && run.data && (r = check_host(v, off, &run, true)) >= 0) {
            uint64_t inside = inside_file(v, &run);
            r = zero
                    ? node_zero(file, run.host, inside, flags & (NODE_MAY_UNMAP | NODE_NO_FALLBACK))
                    : node_discard(file, run.host, inside);
        }
        if (r < 0)
            return r;
        off += run.len;
        len -= run.len;
    }
    return 0;
}

int vdi_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags)
{
    return zero_or_discard(vdi_of(n), off, len, true, flags);
}

static int vdi_discard(struct node *n, uint64_t off, uint64_t len)
{
    struct vdi *v = vdi_of(n);
    return v->header.type == VDI_STATIC ? -ENOTSUP : zero_or_discard(v, off, len, false, 0);
}

int vdi_flush(struct node *n)
{
    struct vdi *v = vdi_of(n);
    if (n->read_only)
        return 0;
    int r = map_cache_flush(&v->map);
    return r < 0 ? r : node_flush(node_file(n));
}

static int vdi_map(struct node *n, uint64_t off, uint64_t len, struct image_extent *ret)
{
    struct node *file = node_file(n);
    struct run run;
    int r = lookup(vdi_of(n), off, len, &run);
    if (r < 0)
        return r;
    ret->len = run.len;
    ret->flags = EXTENT_ALLOCATED | (run.data ? EXTENT_DATA | EXTENT_OFFSET : EXTENT_ZERO);
    ret->host = file;
    ret->host_offset = run.host;
    if (!run.data || run.host >= node_size(file))
        return 0;
    struct image_extent below; /* holes of the file read as zeroes */
    r = node_map(file, run.host, run.len, &below);
    if (r >= 0) {
        ret->len = below.len;
        ret->flags |= below.flags & EXTENT_ZERO;
    }
    return r < 0 ? r : 0;
}

/* ---- the node ---- */

static bool vdi_open(struct node *n, GError **error)
{
    struct vdi *v = vdi_of(n);
    struct node *file = node_file(n);
    uint8_t sector[VDI_HEADER_BYTES];
    int r =
        node_size(file) < sizeof(sector) ? -EINVAL : node_pread(file, 0, sector, sizeof(sector));
    if (r < 0)
        return ruche_error_errno(error, -r, "image '%s': cannot read the VDI header", n->filename);
    if (!vdi_header_parse(sector, &v->header))
        return ruche_error(error, RUCHE_ERR_INVALID, "image '%s': there is no VDI header",
                           n->filename);
    if (!check_kind(n, &v->header, error) || !check_places(v, error))
        return false;
    struct vdi_header *h = &v->header;
    n->size_bytes = align_down(h->disk_bytes + VDI_SECTOR - 1, VDI_SECTOR);
    n->size_bytes = min_u64(n->size_bytes, (uint64_t)h->block_count * VDI_BLOCK_BYTES);
    n->cluster_bytes = VDI_BLOCK_BYTES;
    n->zero_flags = NODE_MAY_UNMAP | NODE_NO_FALLBACK;
    n->zero_init = h->type == VDI_DYNAMIC || file->zero_init;
    v->stored_allocated = h->allocated;
    /* New blocks must not lie over others, whatever the count says: they start behind the file's
     * end. */
    uint64_t data = node_size(file) > h->data_offset ? node_size(file) - h->data_offset : 0;
    uint64_t places = data / VDI_BLOCK_BYTES + (data % VDI_BLOCK_BYTES != 0);
    v->file_allocated = h->allocated;
    h->allocated = (uint32_t)MAX(h->allocated, MIN(places, VDI_PLACES_MAX));
    uint64_t all = (uint64_t)h->block_count * sizeof(uint32_t) + VDI_PAGE_BYTES;
    r = map_cache_init(&v->map, &map_ops, v, VDI_PAGE_ENTRIES, min_u64(v->cache_bytes, all));
    return r >= 0 ||
           ruche_error_errno(error, -r, "image '%s': no memory for the block map", n->filename);
}

/* The last block may have been left short. */
static void vdi_close(struct node *n)
{
    struct vdi *v = vdi_of(n);
    struct node *file = node_file(n);
    g_autoptr(GError) error = NULL;
    int r = v->map.pages && !n->read_only ? vdi_flush(n) : 0;
    if (r < 0)
        g_message("%s: cannot be flushed: %s", n->filename, g_strerror(-r));
    uint64_t end = v->header.data_offset + (uint64_t)v->header.allocated * VDI_BLOCK_BYTES;
    bool grown = v->map.pages && !n->read_only && v->header.allocated > v->file_allocated;
    if (grown && file->grows && node_size(file) < end &&
        !node_resize(file, end, PREALLOC_OFF, &error))
        g_message("%s: %s", n->filename, error->message);
    map_cache_done(&v->map);
}

static int vdi_probe(const uint8_t *head, size_t len, const char *filename)
{
    uint32_t signature;
    if (len < VDI_HEADER_BYTES)
        return 0;
    memcpy(&signature, head + 64, sizeof(signature));
    return signature == VDI_SIGNATURE ? 100 : 0;
}

static const struct image_option open_options[] = {
    OPT_SIZE("l2-cache-size", struct vdi, cache_bytes, CACHE_BYTES, 64 * KIB, 256 * MIB,
             "Memory for the block map"),
    {0},
};

static const struct image_driver vdi_driver = {
    .name = "vdi",
    .summary = "VirtualBox's disks",
    .spec = "VDI 1.1",
    .kind = DRIVER_FORMAT,
    .size = sizeof(struct vdi),
    .open_options = open_options,
    .create_options = vdi_create_options,
    .create_size = sizeof(struct vdi_create_options),
    .probe = vdi_probe,
    .open = vdi_open,
    .close = vdi_close,
    .read = vdi_read,
    .write = vdi_write,
    .zero = vdi_zero,
    .discard = vdi_discard,
    .flush = vdi_flush,
    .map = vdi_map,
    .resize = vdi_resize,
    .create = vdi_create,
    .measure = vdi_measure,
    .check = vdi_check,
};
IMAGE_DRIVER(vdi_driver);
