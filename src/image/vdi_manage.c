/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VDI: making, checking and resizing images.
 *
 * Spec      VirtualBox's VDI 1.1.
 * Fiber     All of it.
 * Trust     Checking is bounded by the file's size: one bit a block.
 * Order     Growing past the room of the map moves the first blocks to the end, as ordinary changes
 * of the map, and then puts a new map where they were. One write of the header's sector makes it
 * count.
 */
#include "image/vdi.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define USED_BITS_MAX (512 * MIB) /* of checking: the places of 512 TiB */

static const char *const prealloc_words[] = {"off", "metadata", "falloc", "full", NULL};

#define MEMBER(kind, name, member, ...)                                                            \
    OPT_##kind(name, struct vdi_create_options, member, __VA_ARGS__)
const struct image_option vdi_create_options[] = {
    MEMBER(SIZE, "extent_size_hint", extent_size_hint, 0, 0, 0,
           "Extent size hint for the image file, 0 to disable"),
    MEMBER(BOOL, "nocow", nocow, false, "Turn off copy-on-write (valid only on btrfs)"),
    MEMBER(WORD, "preallocation", prealloc, prealloc_words, 0,
           "Preallocation mode (allowed values: off, metadata, falloc, full); all but off make a "
           "static image"),
    MEMBER(BOOL, "static", is_static, false, "VDI static (pre-allocated) image"),
    {0},
};

static uint64_t blocks_of(uint64_t bytes)
{
    return bytes / VDI_BLOCK_BYTES + (bytes % VDI_BLOCK_BYTES != 0);
}

static uint64_t map_bytes(uint64_t blocks)
{
    return align_up(blocks * sizeof(uint32_t), VDI_SECTOR);
}

/* ---- create ---- */

static void put32(uint8_t *sector, unsigned at, uint32_t value)
{
    memcpy(sector + at, &value, sizeof(value));
}

static void random_uuid(uint8_t *to)
{
    for (unsigned i = 0; i < 16; i += 4)
        put32(to, i, g_random_int());
    to[7] = (uint8_t)(0x40 | (to[7] & 0x0f)); /* version 4, first three groups little-endian */
    to[8] = (uint8_t)(0x80 | (to[8] & 0x3f));
}

static void build_header(const struct vdi_header *h, uint8_t *sector)
{
    static const char text[] = "<<< Ruche VM Virtual Disk Image >>>\n";
    memset(sector, 0, VDI_HEADER_BYTES);
    memcpy(sector, text, sizeof(text));
    put32(sector, 64, VDI_SIGNATURE);
    put32(sector, 68, VDI_VERSION);
    put32(sector, 72, 0x180); /* bytes of the header from here on */
    put32(sector, 76, h->type);
    put32(sector, 360, VDI_SECTOR);
    put32(sector, 376, VDI_BLOCK_BYTES);
    random_uuid(sector + 392);
    random_uuid(sector + 408);
    vdi_header_update(h, sector);
}

/* All blocks missing, or all in order. */
static int write_map(struct node *file, uint64_t at, uint64_t blocks, bool in_order)
{
    g_autofree uint32_t *page = g_try_malloc(VDI_PAGE_BYTES);
    int r = page ? 0 : -ENOMEM;
    for (uint64_t first = 0; r >= 0 && first < blocks; first += VDI_PAGE_ENTRIES) {
        uint64_t n = min_u64(VDI_PAGE_ENTRIES, blocks - first);
        for (uint64_t i = 0; i < n; i++)
            page[i] = in_order ? (uint32_t)(first + i) : VDI_UNALLOCATED;
        r = node_pwrite(file, at + first * sizeof(uint32_t), page, n * sizeof(uint32_t), 0);
    }
    return r;
}

bool vdi_create(struct image_create *c, GError **error)
{
    const struct vdi_create_options *o = c->options;
    uint64_t blocks = blocks_of(c->size_bytes);
    if (c->backing_file)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "'%s': format vdi has no backing files",
                           c->filename);
    if (blocks > VDI_BLOCKS_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s': %" PRIu64 " bytes are over the %" PRIu64 " of a vdi image",
                           c->filename, c->size_bytes,
                           (uint64_t)(VDI_BLOCKS_MAX * VDI_BLOCK_BYTES));
    bool in_order = o->is_static || o->prealloc;
    struct vdi_header h = {
        .type = in_order ? VDI_STATIC : VDI_DYNAMIC,
        .map_offset = VDI_HEADER_BYTES,
        .data_offset = (uint32_t)(VDI_HEADER_BYTES + map_bytes(blocks)),
        .disk_bytes = align_down(c->size_bytes + VDI_SECTOR - 1, VDI_SECTOR),
        .block_count = (uint32_t)blocks,
        .allocated = in_order ? (uint32_t)blocks : 0,
    };
    uint64_t end = h.data_offset + (in_order ? blocks * VDI_BLOCK_BYTES : 0);
    enum image_prealloc p =
        o->prealloc >= PREALLOC_FALLOC ? (enum image_prealloc)o->prealloc : PREALLOC_OFF;
    if (!node_resize(c->file, end, p, error))
        return false;
    uint8_t sector[VDI_HEADER_BYTES];
    build_header(&h, sector);
    int r = write_map(c->file, h.map_offset, blocks, in_order);
    if (r >= 0)
        r = node_pwrite(c->file, 0, sector, sizeof(sector), 0);
    return r >= 0 || ruche_error_errno(error, -r, "'%s' cannot be written", c->filename);
}

bool vdi_measure(const void *create_options, uint64_t size_bytes, struct node *source,
                 struct image_measure *ret, GError **error)
{
    const struct vdi_create_options *o = create_options;
    uint64_t size = source ? node_size(source) : size_bytes, blocks = blocks_of(size), data = 0,
             counted = 0;
    struct image_extent x;
    for (uint64_t off = 0; source && off < size; off += x.len) {
        unsigned depth;
        int r = node_map_chain(source, NULL, off, size - off, &x, &depth);
        if (r < 0)
            return ruche_error_errno(error, -r, "'%s' cannot be mapped", node_filename(source));
        uint64_t first = max_u64(off / VDI_BLOCK_BYTES, counted), end = blocks_of(off + x.len);
        if (x.flags & EXTENT_ZERO || end <= first)
            continue;
        data += end - first;
        counted = end;
    }
    uint64_t overhead = VDI_HEADER_BYTES + map_bytes(blocks),
             all = overhead + blocks * VDI_BLOCK_BYTES;
    bool in_order = o && (o->is_static || o->prealloc);
    *ret = (struct image_measure){
        .required = in_order ? all : overhead + data * VDI_BLOCK_BYTES,
        .fully_allocated = all,
        .bitmaps = UINT64_MAX,
    };
    return true;
}

/* ---- resize ---- */

static int copy_block(struct vdi *v, uint64_t from, uint64_t to)
{
    struct node *file = node_file(&v->node);
    g_autofree uint8_t *block = g_try_malloc(VDI_BLOCK_BYTES);
    if (!block)
        return -ENOMEM;
    int r = node_pread(file, from, block, VDI_BLOCK_BYTES);
    return r < 0 ? r : node_pwrite(file, to, block, VDI_BLOCK_BYTES, 0);
}

/* Every block of the disk that lies in the first `places` moves to the end. */
static int clear_places(struct vdi *v, uint32_t places)
{
    int r = 0;
    for (uint64_t b = 0; r >= 0 && b < v->header.block_count; b++) {
        uint32_t *t;
        r = vdi_get_page(v, b, &t);
        if (r < 0 || !vdi_is_block(*t) || *t >= places)
            continue;
        uint32_t to = v->header.allocated++;
        r = copy_block(v, v->header.data_offset + (uint64_t)*t * VDI_BLOCK_BYTES,
                       v->header.data_offset + (uint64_t)to * VDI_BLOCK_BYTES);
        if (r >= 0)
            r = vdi_get_page(v, b, &t);
        if (r < 0)
            break;
        *t = to;
        map_cache_changed(&v->map, b / VDI_PAGE_ENTRIES);
    }
    return r < 0 ? r : vdi_flush(&v->node);
}

/* The map as it is to be, with `places` fewer in front of each block, at `at`. */
static int write_moved_map(struct vdi *v, uint64_t at, uint64_t blocks, uint32_t places)
{
    g_autofree uint32_t *page = g_try_malloc(VDI_PAGE_BYTES);
    int r = page ? 0 : -ENOMEM;
    for (uint64_t first = 0; r >= 0 && first < blocks; first += VDI_PAGE_ENTRIES) {
        uint32_t *t = NULL;
        uint64_t n = min_u64(VDI_PAGE_ENTRIES, blocks - first);
        if (first < v->header.block_count)
            r = vdi_get_page(v, first, &t);
        for (uint64_t i = 0; r >= 0 && i < n; i++) {
            uint32_t old = first + i < v->header.block_count ? t[i] : VDI_UNALLOCATED;
            page[i] = vdi_is_block(old) ? old - places : old;
        }
        if (r >= 0)
            r = node_pwrite(node_file(&v->node), at + first * sizeof(uint32_t), page,
                            n * sizeof(uint32_t), 0);
    }
    return r < 0 ? r : node_flush(node_file(&v->node));
}

static int move_map(struct vdi *v, struct vdi_header *h)
{
    uint32_t places = (uint32_t)blocks_of(map_bytes(h->block_count));
    v->header.allocated = MAX(v->header.allocated, places);
    if (v->header.data_offset > UINT32_MAX - places * VDI_BLOCK_BYTES)
        return -EFBIG;
    int r = clear_places(v, places);
    if (r >= 0)
        r = write_moved_map(v, v->header.data_offset, h->block_count, places);
    h->map_offset = v->header.data_offset;
    h->data_offset = v->header.data_offset + places * (uint32_t)VDI_BLOCK_BYTES;
    h->allocated = v->header.allocated - places;
    return r;
}

/* Entries behind the old end, in the room that the map has. */
static int extend_map(struct vdi *v, uint64_t blocks)
{
    int r = 0;
    uint32_t none[128];
    memset(none, 0xff, sizeof(none));
    for (uint64_t b = v->header.block_count, n; r >= 0 && b < blocks; b += n) {
        n = min_u64(ARRAY_COUNT(none), blocks - b);
        r = node_pwrite(node_file(&v->node), v->header.map_offset + b * sizeof(uint32_t), none,
                        n * sizeof(uint32_t), 0);
    }
    return r < 0 ? r : node_flush(node_file(&v->node));
}

static int cut_map(struct vdi *v, uint64_t blocks)
{
    int r = 0;
    for (uint64_t b = blocks; r >= 0 && b < v->header.block_count; b++) {
        uint32_t *t;
        r = vdi_get_page(v, b, &t);
        if (r < 0 || *t == VDI_UNALLOCATED)
            continue;
        *t = VDI_UNALLOCATED;
        map_cache_changed(&v->map, b / VDI_PAGE_ENTRIES);
    }
    return r < 0 ? r : vdi_flush(&v->node);
}

/* The end of the last block is zero again, for when the disk grows. */
static int zero_rest(struct vdi *v, uint64_t size)
{
    uint64_t end = align_up(size, VDI_BLOCK_BYTES), old = v->node.size_bytes;
    return size < old ? vdi_zero(&v->node, size, min_u64(end, old) - size, 0) : 0;
}

static int change_size(struct vdi *v, uint64_t size)
{
    uint64_t blocks = blocks_of(size);
    struct vdi_header h = v->header;
    h.disk_bytes = size;
    h.block_count = (uint32_t)blocks;
    uint64_t room = v->header.data_offset > v->header.map_offset
                        ? v->header.data_offset - v->header.map_offset
                        : map_bytes(v->header.block_count);
    int r = vdi_flush(&v->node);
    if (r >= 0 && blocks < v->header.block_count)
        r = cut_map(v, blocks);
    else if (r >= 0 && blocks * sizeof(uint32_t) <= room)
        r = extend_map(v, blocks);
    else if (r >= 0)
        r = move_map(v, &h);
    if (r < 0)
        return r;
    struct vdi_header old = v->header;
    v->header = h;
    r = vdi_write_header(v);
    if (r >= 0)
        r = node_flush(node_file(&v->node));
    if (r < 0)
        v->header = old;
    v->stored_allocated = v->header.allocated;
    v->file_allocated = 0; /* the end may have moved */
    map_cache_drop(&v->map);
    return r;
}

bool vdi_resize(struct node *n, uint64_t size, enum image_prealloc p, GError **error)
{
    struct vdi *v = vdi_of(n);
    if (v->header.type == VDI_STATIC || p != PREALLOC_OFF)
        return ruche_error(
            error, RUCHE_ERR_UNSUPPORTED,
            "image '%s': only dynamic vdi images change their size, without preallocation",
            n->filename);
    if (size % VDI_SECTOR || blocks_of(size) > VDI_BLOCKS_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "image '%s': a vdi image cannot have %" PRIu64 " bytes", n->filename,
                           size);
    int r = zero_rest(v, size);
    if (r >= 0)
        r = change_size(v, size);
    return r >= 0 || ruche_error_errno(error, -r, "image '%s' cannot be resized", n->filename);
}

/* ---- check ---- */

struct check {
    struct vdi *v;
    struct image_check *ret;
    unsigned fix, reports;
    uint64_t places; /* blocks that the file has room for */
    uint8_t *used;   /* a bit for each */
    uint64_t found, last;
    uint64_t limit;  /* no place from here on is used */
};

static void G_GNUC_PRINTF(2, 3) report(struct check *c, const char *format, ...)
{
    if (!c->ret->report || c->reports++ >= CHECK_REPORT_MAX)
        return;
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    c->ret->report(text, c->ret->opaque);
}

static const char *misplaced(const struct check *c, uint32_t place)
{
    if (place >= c->places)
        return "is behind the end of the file";
    return c->used[place / 8] & 1 << place % 8 ? "belongs to another block, too" : NULL;
}

static int check_block(struct check *c, uint64_t block)
{
    uint32_t *t;
    int r = vdi_get_page(c->v, block, &t);
    if (r < 0 || !vdi_is_block(*t))
        return r;
    uint32_t place = *t;
    const char *wrong = misplaced(c, place);
    if (!wrong) {
        c->used[place / 8] |= (uint8_t)(1 << place % 8);
        c->limit = max_u64(c->limit, (uint64_t)place + 1);
        c->ret->fragmented_clusters += c->found && place != c->last + 1;
        c->found++;
        c->last = place;
        return 0;
    }
    report(c, "ERROR: block %" PRIu64 " at place %u %s", block, place, wrong);
    c->ret->corruptions++;
    if (!(c->fix & CHECK_FIX_ERRORS))
        return 0;
    *t = VDI_UNALLOCATED;
    map_cache_changed(&c->v->map, block / VDI_PAGE_ENTRIES);
    c->ret->corruptions_fixed++;
    return 0;
}

static bool is_used(const struct check *c, uint64_t place)
{
    return c->used[place / 8] & 1 << place % 8;
}

/* Places up to the highest one that the map uses. */
static uint64_t used_end(struct check *c)
{
    while (c->limit && !is_used(c, c->limit - 1))
        c->limit--;
    return c->limit;
}

#define OWNERS_MAX (16u << 20) /* places: 64 MiB for the list, 16 TiB of disk */

/* Which block lies in each place below `end`; NULL: no memory. */
static uint32_t *list_owners(struct check *c, uint64_t end, int *ret)
{
    uint32_t *owners = g_try_malloc_n(end + 1, sizeof(uint32_t));
    *ret = owners ? 0 : -ENOMEM;
    for (uint64_t b = 0; *ret >= 0 && b < c->v->header.block_count; b++) {
        uint32_t *t;
        *ret = vdi_get_page(c->v, b, &t);
        if (*ret >= 0 && vdi_is_block(*t) && *t < end)
            owners[*t] = (uint32_t)b;
    }
    return owners;
}

/* Blocks from the end go into the gaps, and the file is cut. The old place is given up when the map
 * is stored. */
static int fill_gaps(struct check *c)
{
    struct vdi *v = c->v;
    int r;
    uint64_t end = used_end(c);
    g_autofree uint32_t *owners = list_owners(c, end, &r);
    for (uint64_t gap = 0; r >= 0; gap++) {
        while (gap < end && is_used(c, gap))
            gap++;
        if (gap >= end)
            break;
        uint32_t *t;
        uint64_t block = owners[end - 1];
        r = copy_block(v, v->header.data_offset + (end - 1) * VDI_BLOCK_BYTES,
                       v->header.data_offset + gap * VDI_BLOCK_BYTES);
        if (r >= 0)
            r = vdi_get_page(v, block, &t);
        if (r < 0)
            break;
        *t = (uint32_t)gap;
        map_cache_changed(&v->map, block / VDI_PAGE_ENTRIES);
        c->used[gap / 8] |= (uint8_t)(1 << gap % 8);
        c->used[(end - 1) / 8] &= (uint8_t) ~(1 << (end - 1) % 8);
        end = used_end(c);
    }
    return r < 0 ? r : vdi_flush(&v->node);
}

static int fix_leaks(struct check *c, uint64_t leaks)
{
    struct vdi *v = c->v;
    struct node *file = node_file(&v->node);
    int r = fill_gaps(c);
    if (r < 0)
        return r;
    v->header.allocated = (uint32_t)used_end(c);
    r = vdi_write_header(v);
    if (r >= 0)
        r = node_flush(file);
    if (r < 0)
        return r;
    v->stored_allocated = v->file_allocated = v->header.allocated;
    g_autoptr(GError) error = NULL;
    uint64_t end = v->header.data_offset + (uint64_t)v->header.allocated * VDI_BLOCK_BYTES;
    if (file->grows && node_size(file) > end && !node_resize(file, end, PREALLOC_OFF, &error))
        g_message("%s: %s", v->node.filename, error->message);
    c->ret->leaks_fixed += leaks;
    return 0;
}

/* The header counts the blocks; more than there are is space that nothing refers to. */
static int check_count(struct check *c)
{
    struct vdi *v = c->v;
    uint64_t end = used_end(c);
    if (v->stored_allocated < end) {
        report(c, "ERROR: the header counts %u blocks, the map uses places up to %" PRIu64,
               v->stored_allocated, end);
        c->ret->corruptions++;
        int r = c->fix & CHECK_FIX_ERRORS ? vdi_write_header(v) : 0;
        c->ret->corruptions_fixed += c->fix & CHECK_FIX_ERRORS && r >= 0;
        return r;
    }
    uint64_t leaks = v->stored_allocated > c->found ? v->stored_allocated - c->found : 0;
    if (!leaks)
        return 0;
    report(c, "Leaked: %" PRIu64 " blocks are in the file, but not in the map", leaks);
    c->ret->leaks += leaks;
    bool sound = c->ret->corruptions == c->ret->corruptions_fixed;
    bool may = sound && c->fix & CHECK_FIX_LEAKS && v->header.type == VDI_DYNAMIC;
    if (may && end > OWNERS_MAX)
        report(c, "The map uses places up to %" PRIu64 "; leaks are closed below %u only", end, OWNERS_MAX);
    return may && end <= OWNERS_MAX ? fix_leaks(c, leaks) : 0;
}

bool vdi_check(struct node *n, unsigned fix, struct image_check *ret, GError **error)
{
    struct vdi *v = vdi_of(n);
    uint64_t size = node_size(node_file(n)), begin = v->header.data_offset;
    struct check c = {.v = v, .ret = ret, .fix = n->read_only ? 0 : fix};
    c.places = min_u64(size > begin ? blocks_of(size - begin) : 0, USED_BITS_MAX);
    g_autofree uint8_t *used = g_try_malloc0(c.places / 8 + 1);
    c.used = used;
    int r = used ? 0 : -ENOMEM;
    for (uint64_t b = 0; r >= 0 && b < v->header.block_count; b++)
        r = check_block(&c, b);
    if (r >= 0)
        r = check_count(&c);
    if (r >= 0 && c.fix)
        r = vdi_flush(n);
    ret->total_clusters = v->header.block_count;
    ret->allocated_clusters = c.found;
    ret->image_end_offset = size;
    return r >= 0 || ruche_error_errno(error, -r, "image '%s' cannot be checked", n->filename);
}
