/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a guest may expect of its disk when things go wrong. See the header.
 *
 * A sector that is written since the last flush may hold anything: a new cluster may be in its
 * place before its data, as a disk may tear what it is writing. Filesystems only trust what they
 * have flushed.
 */
#include "image/shadow.h"

#include <string.h>

enum { READ_SECTORS = 128 };
#define BASE_STAMP 0x80000000u
/* Of `loose`: */
enum { MAYBE_ZERO = 1, /* discarded */ ANYTHING = 2 /* a write to it failed */ };

static void fill_sectors(uint8_t *to, uint32_t count, uint32_t stamp)
{
    for (uint32_t i = 0; i < count * (SHADOW_SECTOR / 4); i++)
        memcpy(to + i * 4, &stamp, 4);
}

void shadow_init(struct shadow *s, const struct bed_format *f, guint32 seed)
{
    *s = (struct shadow){.f = f, .sectors = (uint32_t)(f->size_bytes / SHADOW_SECTOR)};
    s->r = g_rand_new_with_seed(seed);
    s->events = g_array_new(FALSE, FALSE, sizeof(struct guest_event));
    s->durable = g_new0(uint32_t, s->sectors);
    s->loose = g_new0(uint8_t, s->sectors);
}

void shadow_done(struct shadow *s)
{
    g_rand_free(s->r);
    g_array_unref(s->events);
    g_free(s->durable);
    g_free(s->loose);
}

void shadow_fill_base(struct shadow *s, struct memory_file *base)
{
    uint8_t buf[SHADOW_SECTOR];
    for (uint32_t i = 0; i < s->sectors; i++) {
        s->durable[i] = i / 8 % 3 ? BASE_STAMP | i : 0;
        fill_sectors(buf, 1, s->durable[i]);
        memory_file_write(base, (uint64_t)i * SHADOW_SECTOR, buf, SHADOW_SECTOR);
    }
}

/* ---- events ---- */

static enum guest_op pick_op(struct shadow *s)
{
    int dice = g_rand_int_range(s->r, 0, 100);
    if (dice < 6 && s->f->flags & BED_COMPRESS)
        return GUEST_COMPRESSED;
    return dice < 76 ? GUEST_WRITE : dice < 88 ? GUEST_ZERO : GUEST_DISCARD;
}

struct guest_event shadow_pick(struct shadow *s, unsigned part, unsigned parts)
{
    uint32_t room = s->sectors / parts, cluster = s->f->cluster_bytes / SHADOW_SECTOR;
    uint32_t most = g_rand_boolean(s->r) ? cluster * 3 : MAX(cluster / 2, 8);
    struct guest_event e = {.op = pick_op(s), .stamp = ++s->next_stamp};
    e.first = (uint32_t)g_rand_int_range(s->r, 0, (gint32)room);
    e.count = (uint32_t)g_rand_int_range(s->r, 1, (gint32)MIN(most, 2048) + 1);
    if (e.op == GUEST_COMPRESSED || (e.op != GUEST_WRITE && g_rand_boolean(s->r))) {
        e.first -= e.first % cluster;
        e.count = cluster;
    }
    e.count = MIN(e.count, room - e.first);
    e.first += part * room;
    if (e.op == GUEST_COMPRESSED && (e.first | e.count) % cluster)
        e.op = GUEST_WRITE;
    if (e.op == GUEST_ZERO)
        e.stamp = 0;
    return e;
}

struct guest_event shadow_pick_flush(struct shadow *s)
{
    return (struct guest_event){.op = GUEST_FLUSH};
}

static struct guest_event *event_at(const struct shadow *s, unsigned i)
{
    return &g_array_index(s->events, struct guest_event, i);
}

unsigned shadow_begin(struct shadow *s, struct guest_event e, unsigned moment)
{
    e.begin = moment;
    e.end = UINT32_MAX;
    g_array_append_val(s->events, e);
    return s->events->len - 1;
}

void shadow_end(struct shadow *s, unsigned index, unsigned moment, int err)
{
    event_at(s, index)->end = moment;
    event_at(s, index)->err = err;
}

int shadow_do(const struct guest_event *e, struct node *n)
{
    uint64_t off = (uint64_t)e->first * SHADOW_SECTOR, len = (uint64_t)e->count * SHADOW_SECTOR;
    if (e->op == GUEST_FLUSH)
        return node_flush(n);
    if (e->op == GUEST_ZERO)
        return node_zero(n, off, len, e->first & 1 ? NODE_MAY_UNMAP : 0);
    if (e->op == GUEST_DISCARD)
        return node_discard(n, off, len);
    g_autofree uint8_t *buf = g_malloc(len);
    fill_sectors(buf, e->count, e->stamp);
    return node_pwrite(n, off, buf, len, e->op == GUEST_COMPRESSED ? NODE_COMPRESSED : 0);
}

int shadow_scribble(struct shadow *s, struct node *n)
{
    uint8_t buf[3 * SHADOW_SECTOR];
    int err = 0;
    fill_sectors(buf, 3, 0xfeedface);
    for (unsigned i = 0; i < 4 && !err; i++) {
        uint64_t at = (uint64_t)g_rand_int_range(s->r, 0, (gint32)s->sectors - 3);
        err = node_pwrite(n, at * SHADOW_SECTOR, buf, sizeof(buf), 0);
    }
    return err ? err : node_flush(n);
}

/* ---- what may be there ---- */

static void make_durable(struct shadow *s, const struct guest_event *e)
{
    for (uint32_t i = e->first; i < e->first + e->count; i++) {
        if (e->op == GUEST_DISCARD) {
            s->loose[i] |= MAYBE_ZERO;
        } else {
            s->durable[i] = e->stamp;
            s->loose[i] = e->err ? ANYTHING : 0;
        }
    }
}

void shadow_advance(struct shadow *s, unsigned moment)
{
    unsigned upto = s->durable_events;
    for (unsigned i = upto; i < s->events->len && event_at(s, i)->begin <= moment; i++) {
        const struct guest_event *e = event_at(s, i);
        if (e->op == GUEST_FLUSH && e->end <= moment && !e->err)
            upto = i;
    }
    for (; s->durable_events < upto; s->durable_events++)
        make_durable(s, event_at(s, s->durable_events));
}

static bool is_pending(const struct shadow *s, unsigned moment, uint32_t sector)
{
    for (unsigned i = s->durable_events; i < s->events->len && event_at(s, i)->begin <= moment;
         i++) {
        const struct guest_event *e = event_at(s, i);
        if (sector >= e->first && sector - e->first < e->count)
            return true;
    }
    return false;
}

static void check_sector(struct shadow *s, unsigned moment, uint32_t sector, const uint8_t *p,
                         int err)
{
    uint32_t stamp;
    memcpy(&stamp, p, 4);
    bool whole = !err && !memcmp(p, p + 4, SHADOW_SECTOR - 4);
    if (whole && (stamp == s->durable[sector] || (!stamp && s->loose[sector] & MAYBE_ZERO)))
        return;
    if (s->loose[sector] & ANYTHING || is_pending(s, moment, sector))
        return;
    g_printerr("# %s, at moment %u (%u events of the guest are flushed), sector %u: ", s->f->label,
               moment, s->durable_events, sector);
    if (err)
        g_error("reading: %s", g_strerror(-err));
    g_error("%#x%s where %#x was flushed", stamp, whole ? "" : " and others", s->durable[sector]);
}

void shadow_check(struct shadow *s, unsigned moment, struct node *n)
{
    g_autofree uint8_t *buf = g_malloc(READ_SECTORS * SHADOW_SECTOR);
    for (uint32_t first = 0; first < s->sectors; first += READ_SECTORS) {
        uint32_t count = MIN(READ_SECTORS, s->sectors - first);
        int err = node_pread(n, (uint64_t)first * SHADOW_SECTOR, buf, count * SHADOW_SECTOR);
        for (uint32_t i = 0; i < count; i++) {
            uint8_t *p = buf + i * SHADOW_SECTOR;
            int e =
                err ? node_pread(n, (uint64_t)(first + i) * SHADOW_SECTOR, p, SHADOW_SECTOR) : 0;
            check_sector(s, moment, first + i, p, e);
        }
    }
}
