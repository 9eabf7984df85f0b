/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The end of a stream-optimized extent: tables, directory, footer and end mark; cutting them off to
 * go on, and finding the grains by their markers when they are missing.
 *
 * Spec      "Virtual Disk Format 5.0", Stream-Optimized Compressed Sparse Extents.
 * Fiber     All of it.
 * Trust     Markers are hostile: sizes are checked against the file, and a grain must inflate.
 * Order     The first write cuts off directory, footer and end mark; a flush puts them back, the
 * footer when everything that it refers to is durable. In between, markers tell it all.
 */
#include "image/vmdk/vmdk.h"

#include "base/cursor.h"

#include <errno.h>
#include <string.h>

enum { FOOTER_SECTORS = 3 };

/* Cuts off what finish() wrote; grow_lock is held. The cut is durable before anything new stands
 * there. */
int vmdk_stream_reopen(struct vmdk_extent *e)
{
    uint64_t size = align_down(node_size(e->file), VMDK_SECTOR);
    uint64_t footer = size - FOOTER_SECTORS * VMDK_SECTOR;
    uint64_t directory = align_up((uint64_t)e->directory_count * sizeof(uint32_t), VMDK_SECTOR);
    bool in_front =
        e->directory_offset + directory == footer && e->directory_offset > e->data_begin;
    uint64_t end = in_front ? e->directory_offset - VMDK_SECTOR : footer;
    g_autoptr(GError) error = NULL;
    if (e->finished && !node_resize(e->file, end, PREALLOC_OFF, &error)) {
        g_message("%s: cannot cut off the footer: %s", e->filename, error->message);
        return -EIO;
    }
    if (e->finished) {
        e->end = end;
        e->finished = false;
        e->cut = true;
    }
    int r = node_flush(e->file);
    e->cut = r < 0;
    return r;
}

/* Puts records behind the end. The position is taken before the write, since tables are put there
 * meanwhile. */
int vmdk_stream_append(struct vmdk_extent *e, const void *bytes, uint64_t len, uint64_t *ret_at)
{
    uint64_t at = e->end;
    if ((at + len) / VMDK_SECTOR > UINT32_MAX)
        return -EFBIG;
    if (e->broken)
        return -EIO;
    e->end += len;
    int r = node_pwrite(e->file, at, bytes, len, 0);
    if (r < 0 && e->end == at + len)
        e->end = at;
    else if (r < 0)
        e->broken = true;
    *ret_at = at;
    return r;
}

static void put_marker(uint8_t *sector, uint64_t sectors, enum vmdk_marker type)
{
    uint32_t word = type;
    memset(sector, 0, VMDK_SECTOR);
    memcpy(sector, &sectors, sizeof(sectors));
    memcpy(sector + VMDK_MARKER_BYTES, &word, sizeof(word));
}

int vmdk_stream_store_table(struct vmdk_extent *e, uint32_t index, const uint32_t *entries)
{
    uint64_t bytes = align_up(e->table_entries * sizeof(uint32_t), VMDK_SECTOR), at;
    g_autofree uint8_t *record = g_try_malloc0(VMDK_SECTOR + bytes);
    if (!record)
        return -ENOMEM;
    put_marker(record, bytes / VMDK_SECTOR, VMDK_MARKER_GT);
    memcpy(record + VMDK_SECTOR, entries, e->table_entries * sizeof(uint32_t));
    int r = vmdk_stream_append(e, record, VMDK_SECTOR + bytes, &at);
    if (r >= 0)
        e->directory[index] = (uint32_t)(at / VMDK_SECTOR) + 1;
    return r;
}

uint8_t *vmdk_stream_tail(const struct vmdk_extent *e, uint64_t *ret_len)
{
    uint64_t count_bytes = (uint64_t)e->directory_count * sizeof(uint32_t);
    uint64_t bytes = align_up(count_bytes, VMDK_SECTOR);
    struct vmdk_header h = {
        .version = e->version,
        .flags = e->flags,
        .capacity = e->capacity_sectors,
        .grain_sectors = e->grain_bytes / VMDK_SECTOR,
        .desc_offset = e->descriptor_offset / VMDK_SECTOR,
        .desc_sectors = e->descriptor_bytes / VMDK_SECTOR,
        .table_entries = e->table_entries,
        .directory_offset = e->end / VMDK_SECTOR + 1,
        .overhead = e->data_begin / VMDK_SECTOR,
        .compression = 1,
    };
    *ret_len = bytes + (1 + FOOTER_SECTORS) * VMDK_SECTOR;
    uint8_t *tail = g_try_malloc0(*ret_len);
    if (!tail)
        return NULL;
    put_marker(tail, bytes / VMDK_SECTOR, VMDK_MARKER_GD);
    memcpy(tail + VMDK_SECTOR, e->directory, count_bytes);
    put_marker(tail + VMDK_SECTOR + bytes, 1, VMDK_MARKER_FOOTER);
    vmdk_header_build(&h, tail + 2 * VMDK_SECTOR + bytes);
    return tail;
}

/* Everything that the footer refers to is durable before the footer is written. */
static int write_tail(struct vmdk_extent *e)
{
    uint64_t len, at = e->end, footer = FOOTER_SECTORS * VMDK_SECTOR;
    g_autofree uint8_t *tail = vmdk_stream_tail(e, &len);
    int r = tail ? vmdk_stream_append(e, tail, len - footer, &at) : -ENOMEM;
    if (r >= 0)
        r = node_flush(e->file);
    if (r >= 0)
        r = vmdk_stream_append(e, tail + len - footer, footer, &(uint64_t){0});
    g_autoptr(GError) error = NULL;
    if (r >= 0 && node_size(e->file) > e->end &&
        !node_resize(e->file, e->end, PREALLOC_OFF, &error)) {
        g_message("%s: cannot cut off what is behind the end mark: %s", e->filename,
                  error->message);
        r = -EIO;
    }
    if (r < 0)
        e->end = at;
    e->directory_offset = r < 0 ? 0 : at + VMDK_SECTOR;
    e->finished = r >= 0;
    return r;
}

int vmdk_stream_finish(struct vmdk_extent *e)
{
    fiber_mutex_lock(&e->grow_lock);
    int r = 0;
    if (!e->finished) {
        r = map_cache_flush(&e->image->tables);
        if (r >= 0)
            r = write_tail(e);
    }
    fiber_mutex_unlock(&e->grow_lock);
    return r;
}

/* ---- recovery ---- */

struct record {
    uint64_t value;
    uint32_t size, type;
};

/* A grain is taken when it is whole and inflates. */
static int recover_grain(struct vmdk_extent *e, uint64_t at, const struct record *m,
                         uint8_t *buffer)
{
    uint64_t sectors = e->grain_bytes / VMDK_SECTOR, bytes = vmdk_record_bytes(m->size);
    uint64_t grain = m->value / sectors;
    if (m->value % sectors || grain >= e->grain_count || bytes > vmdk_record_bytes_max(e) ||
        !range_fits(at, bytes, node_size(e->file)))
        return 0;
    uint8_t *record = buffer + e->grain_bytes;
    int r = node_pread(e->file, at, record, bytes);
    if (r < 0)
        return r;
    r = vmdk_record_inflate(e, grain, record, bytes, buffer);
    if (r >= 0)
        r = vmdk_set_entries(e, grain, 1, (uint32_t)(at / VMDK_SECTOR), 0);
    return r == -EIO ? 0 : r < 0 ? r : 1;
}

static int recover(struct vmdk_extent *e, uint8_t *buffer)
{
    uint64_t at = e->data_begin, size = node_size(e->file);
    int r = 1;
    while (r > 0 && range_fits(at, VMDK_SECTOR, size) && at / VMDK_SECTOR <= UINT32_MAX) {
        uint8_t sector[16];
        r = node_pread(e->file, at, sector, sizeof(sector));
        struct cur c = cur_of(sector, sizeof(sector));
        struct record m = {.value = cur_le64(&c)};
        m.size = cur_le32(&c);
        m.type = cur_le32(&c);
        uint64_t table = align_up(e->table_entries * sizeof(uint32_t), VMDK_SECTOR);
        if (r >= 0 && m.size)
            r = recover_grain(e, at, &m, buffer);
        else if (r >= 0)
            r = m.type == VMDK_MARKER_GT && m.value == table / VMDK_SECTOR;
        if (r > 0)
            at += m.size ? vmdk_record_bytes(m.size) : VMDK_SECTOR + table;
    }
    e->end = at;
    return r;
}

bool vmdk_stream_recover(struct vmdk_extent *e, GError **error)
{
    uint8_t *buffer = vmdk_buffer_get(e->image);
    int r = buffer ? recover(e, buffer) : -ENOMEM;
    if (buffer)
        vmdk_buffer_put(e->image, buffer);
    return r >= 0 ||
           ruche_error_errno(error, -r, "%s: cannot read the grains by their markers", e->filename);
}
