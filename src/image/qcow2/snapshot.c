/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The snapshot table: reading, writing, listing, showing one snapshot; machine state.
 *
 * Spec      qcow2, "Snapshots".
 * Fiber     See internal.h.
 * Trust     The table is hostile: its size and every length in it are capped; it is parsed through
 *           a cursor.
 * Order     A new table is written to clusters of its own; one sector of the header switches over.
 */
#include "image/qcow2/snapshot.h"

#include "base/cursor.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { ENTRY_BYTES = 40, EXTRA_KNOWN = 24, EXTRA_MAX = 1024, READ_FIRST = 64 * 1024 };

/* ---- reading ---- */

void snapshot_clear(struct qcow2_snapshot *e)
{
    g_free(e->id);
    g_free(e->name);
    g_free(e->unknown_extra);
    *e = (struct qcow2_snapshot){0};
}

void qcow2_snapshots_free(struct qcow2 *s)
{
    for (uint32_t i = 0; s->snapshots && i < s->header.snapshot_count; i++)
        snapshot_clear(&s->snapshots[i]);
    g_clear_pointer(&s->snapshots, g_free);
}

static void parse_extra(struct cur *c, uint32_t bytes, uint64_t disk_size, struct qcow2_snapshot *e)
{
    struct cur x = cur_of(cur_take(c, bytes), c->bad ? 0 : bytes);
    e->extra_bytes = bytes;
    e->size_bytes = disk_size;
    e->icount = UINT64_MAX;
    if (x.left >= 8)
        e->vm_state_bytes = cur_be64(&x);
    if (x.left >= 8)
        e->size_bytes = cur_be64(&x);
    if (x.left >= 8)
        e->icount = cur_be64(&x);
    if (x.left && bytes > EXTRA_KNOWN)
        e->unknown_extra = g_memdup2(x.p, x.left);
}

static char *take_text(struct cur *c, size_t len)
{
    const uint8_t *p = cur_take(c, len);
    return g_strndup(p ? (const char *)p : "", p ? len : 0);
}

/* One entry. False: the bytes end early; or *why is set. */
static bool parse_entry(struct cur *c, uint64_t disk_size, struct qcow2_snapshot *e,
                        const char **why)
{
    size_t before = c->left;
    e->l1_offset = cur_be64(c);
    e->l1_count = cur_be32(c);
    uint16_t id_len = cur_be16(c), name_len = cur_be16(c);
    e->date_sec = cur_be32(c);
    e->date_nsec = cur_be32(c);
    e->vm_clock_ns = cur_be64(c);
    e->vm_state_bytes = cur_be32(c);
    uint32_t extra = cur_be32(c);
    if (!c->bad && extra > EXTRA_MAX)
        *why = "has more than 1024 bytes of extra data";
    else if (!c->bad && !id_len)
        *why = "has no id";
    if (c->bad || *why)
        return false;
    parse_extra(c, extra, disk_size, e);
    e->id = take_text(c, id_len);
    e->name = take_text(c, name_len);
    size_t used = before - c->left;
    cur_take(c, align_up(used, 8) - used);
    if (!c->bad && e->size_bytes > IMAGE_SIZE_MAX)
        *why = "has a disk of more than 2^62 bytes";
    return !c->bad && !*why;
}

/* Parses as many as there are; *why stays NULL when the bytes ended early. */
static uint32_t parse_table(struct qcow2 *s, const uint8_t *bytes, size_t len,
                            struct qcow2_snapshot *list, const char **why)
{
    struct cur c = cur_of(bytes, len);
    uint32_t n = 0;
    for (; n < s->header.snapshot_count; n++) {
        if (!parse_entry(&c, s->header.size_bytes, &list[n], why)) {
            snapshot_clear(&list[n]);
            break;
        }
        s->snapshot_table_bytes = len - c.left;
    }
    return n;
}

bool qcow2_snapshots_load(struct qcow2 *s, GError **error)
{
    uint64_t file = node_size(qcow2_file(s)), off = s->header.snapshots_offset;
    uint32_t count = s->header.snapshot_count, n = 0;
    s->snapshot_table_bytes = 0;
    if (!count)
        return true;
    /* The file may end in the last entry's padding. */
    uint64_t most = min_u64(off < file ? align_up(file - off, 8) : 0, QCOW2_SNAPSHOT_TABLE_BYTES_MAX);
    struct qcow2_snapshot *list = g_new0(struct qcow2_snapshot, count);
    const char *why = NULL;
    for (uint64_t len = min_u64(READ_FIRST, most);; len = min_u64(len * 4, most)) {
        g_autofree uint8_t *bytes = g_try_malloc(len + 1);
        int r = bytes ? qcow2_meta_read(s, off, bytes, len) : -ENOMEM;
        if (r < 0) {
            g_free(list);
            return ruche_error_errno(error, -r, "'%s': cannot read the snapshot table",
                                     node_name(&s->node));
        }
        n = parse_table(s, bytes, len, list, &why);
        if (n == count || why || len == most)
            break;
        for (uint32_t i = 0; i < n; i++)
            snapshot_clear(&list[i]);
    }
    s->snapshots = list;
    s->header.snapshot_count = n;
    if (n == count || (s->node.open_flags & NODE_CHECK))
        return true;
    qcow2_snapshots_free(s);
    return ruche_error(error, RUCHE_ERR_INVALID, "'%s': snapshot %u of %u in the header %s",
                       node_name(&s->node), n + 1, count,
                       why ? why : "lies past the end of the file, or of a table of 64 MiB");
}

/* ---- writing ---- */

static void put16(uint8_t **p, uint16_t v)
{
    v = __builtin_bswap16(v);
    memcpy(*p, &v, sizeof(v));
    *p += sizeof(v);
}

static void put32(uint8_t **p, uint32_t v)
{
    v = __builtin_bswap32(v);
    memcpy(*p, &v, sizeof(v));
    *p += sizeof(v);
}

static void put64(uint8_t **p, uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(*p, &v, sizeof(v));
    *p += sizeof(v);
}

static uint32_t unknown_bytes(const struct qcow2_snapshot *e)
{
    return e->unknown_extra ? e->extra_bytes - EXTRA_KNOWN : 0;
}

static uint64_t entry_bytes(const struct qcow2_snapshot *e)
{
    return align_up(ENTRY_BYTES + EXTRA_KNOWN + unknown_bytes(e) + strlen(e->id) + strlen(e->name),
                    8);
}

static void build_entry(const struct qcow2_snapshot *e, uint8_t *p)
{
    put64(&p, e->l1_offset);
    put32(&p, e->l1_count);
    put16(&p, (uint16_t)strlen(e->id));
    put16(&p, (uint16_t)strlen(e->name));
    put32(&p, e->date_sec);
    put32(&p, e->date_nsec);
    put64(&p, e->vm_clock_ns);
    put32(&p, e->vm_state_bytes > UINT32_MAX ? 0 : (uint32_t)e->vm_state_bytes);
    put32(&p, EXTRA_KNOWN + unknown_bytes(e));
    put64(&p, e->vm_state_bytes);
    put64(&p, e->size_bytes);
    put64(&p, e->icount);
    if (unknown_bytes(e))
        memcpy(p, e->unknown_extra, unknown_bytes(e));
    p += unknown_bytes(e);
    memcpy(p, e->id, strlen(e->id));
    memcpy(p + strlen(e->id), e->name, strlen(e->name));
}

/* The table in new clusters; nothing refers to them yet. */
static int write_table(struct qcow2 *s, const struct qcow2_snapshot *list, uint32_t count,
                       uint64_t *ret_off, uint64_t *ret_bytes)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count; i++)
        bytes += entry_bytes(&list[i]);
    *ret_off = 0;
    *ret_bytes = bytes;
    if (!count)
        return 0;
    if (bytes > QCOW2_SNAPSHOT_TABLE_BYTES_MAX)
        return -EFBIG;
    g_autofree uint8_t *buf = g_try_malloc0(bytes);
    int r = buf ? qcow2_alloc_bytes(s, bytes, ret_off) : -ENOMEM;
    if (r < 0)
        return r;
    uint8_t *p = buf;
    for (uint32_t i = 0; i < count; i++) {
        build_entry(&list[i], p);
        p += entry_bytes(&list[i]);
    }
    r = qcow2_meta_write(s, 0, *ret_off, buf, bytes);
    if (r < 0)
        qcow2_free_now(s, *ret_off, bytes);
    return r;
}

int snapshot_table_replace(struct qcow2 *s, struct qcow2_snapshot *list, uint32_t count)
{
    struct qcow2_header before = s->header;
    uint64_t old_bytes = s->snapshot_table_bytes, off, bytes;
    int r = write_table(s, list, count, &off, &bytes);
    if (r < 0)
        return r;
    r = qcow2_commit(s, true);
    if (r == 0) {
        s->header.snapshots_offset = off;
        s->header.snapshot_count = count;
        r = qcow2_header_write_fields(s);
        if (r == 0)
            r = qcow2_meta_sync(s);
    }
    if (r < 0) { /* the header may have reached the disk: the new table stays, as a leak */
        s->header.snapshots_offset = before.snapshots_offset;
        s->header.snapshot_count = before.snapshot_count;
        return r;
    }
    if (old_bytes)
        qcow2_free_later(s, before.snapshots_offset, old_bytes, QCOW2_DISCARD_OTHER);
    s->snapshot_table_bytes = bytes;
    g_free(s->snapshots);
    s->snapshots = list;
    return 0;
}

/* ---- finding and showing ---- */

struct qcow2_snapshot *snapshot_find(struct qcow2 *s, const char *id_or_name, GError **error)
{
    for (uint32_t i = 0; i < s->header.snapshot_count; i++)
        if (!strcmp(s->snapshots[i].id, id_or_name))
            return &s->snapshots[i];
    for (uint32_t i = 0; i < s->header.snapshot_count; i++)
        if (!strcmp(s->snapshots[i].name, id_or_name))
            return &s->snapshots[i];
    ruche_error(error, RUCHE_ERR_NOT_FOUND, "'%s' has no snapshot with the id or name '%s'",
                node_filename(&s->node), id_or_name);
    return NULL;
}

int qcow2_snapshot_list(struct node *n, struct snapshot_info **ret, unsigned *ret_count)
{
    struct qcow2 *s = qcow2_of(n);
    uint32_t count = s->header.snapshot_count;
    struct snapshot_info *list = g_new0(struct snapshot_info, count + 1);
    for (uint32_t i = 0; i < count; i++) {
        const struct qcow2_snapshot *e = &s->snapshots[i];
        list[i] = (struct snapshot_info){
            .id = g_utf8_make_valid(e->id, -1),
            .name = g_utf8_make_valid(e->name, -1),
            .vm_state_bytes = e->vm_state_bytes,
            .size_bytes = e->size_bytes,
            .date_sec = e->date_sec,
            .date_nsec = e->date_nsec,
            .vm_clock_ns = e->vm_clock_ns,
            .icount = e->icount,
        };
    }
    *ret = list;
    *ret_count = count;
    return 0;
}

uint64_t snapshot_l1_need(const struct qcow2 *s, uint64_t size)
{
    unsigned bits = s->cluster_bits + s->l2_bits;
    return (size >> bits) + ((size & ((1ULL << bits) - 1)) != 0);
}

bool qcow2_snapshot_show(struct node *n, const char *id_or_name, GError **error)
{
    struct qcow2 *s = qcow2_of(n);
    const struct qcow2_snapshot *e = snapshot_find(s, id_or_name, error);
    if (!e)
        return false;
    if (!n->read_only)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "'%s' is open for writing: a snapshot can only be shown read-only",
                           node_filename(n));
    if (e->l1_offset % s->cluster_bytes || e->l1_count > QCOW2_L1_BYTES_MAX / 8 ||
        snapshot_l1_need(s, e->size_bytes) > e->l1_count)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s': snapshot '%s' has an L1 table of %u entries at 0x%" PRIx64
                           " for %" PRIu64 " bytes, which cannot be",
                           node_filename(n), e->name, e->l1_count, e->l1_offset, e->size_bytes);
    s->header.l1_offset = e->l1_offset;
    s->header.l1_count = e->l1_count;
    s->header.size_bytes = n->size_bytes = e->size_bytes;
    qcow2_unpacked_forget(s);
    return qcow2_l1_load(s, error);
}

/* ---- machine state: behind what the guest sees ---- */

static uint64_t vmstate_begin(const struct qcow2 *s)
{
    return snapshot_l1_need(s, s->header.size_bytes) << (s->cluster_bits + s->l2_bits);
}

int qcow2_vmstate_read(struct node *n, uint64_t off, struct vec v)
{
    struct qcow2 *s = qcow2_of(n);
    uint64_t begin = vmstate_begin(s);
    if (off > IMAGE_SIZE_MAX || snapshot_l1_need(s, begin + off + v.len) > s->header.l1_count)
        return -EINVAL;
    return qcow2_read_any(s, begin + off, v);
}

int qcow2_vmstate_write(struct node *n, uint64_t off, struct vec v)
{
    struct qcow2 *s = qcow2_of(n);
    uint64_t begin = vmstate_begin(s);
    if (n->read_only)
        return -EROFS;
    if (off > IMAGE_SIZE_MAX)
        return -EFBIG;
    uint64_t need = snapshot_l1_need(s, begin + off + v.len);
    if (need > QCOW2_L1_BYTES_MAX / 8)
        return -EFBIG;
    int r = need > s->header.l1_count ? qcow2_l1_grow(s, need) : 0;
    return r < 0 ? r : qcow2_write_any(s, begin + off, v);
}
