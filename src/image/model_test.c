/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Model test: random operations on an image, and the same on plain memory. What is read must be
 * what the memory holds; the image is closed, checked and opened again every now and then, and must
 * be clean.
 *
 *   model_test [--ops=N] [--seed=N] [--format=LABEL] [--all]
 */
#include "image/dirty.h"
#include "image/testbed.h"

#include <string.h>

enum { SECTOR = 512, LEN_MAX = 256 * 1024, BITMAPS_MAX = 3, SNAPSHOTS_MAX = 4, FIBERS = 4 };

struct saved {
    char name[8];
    uint8_t *bytes;
    uint64_t size;
};

struct model {
    struct bed *bed;
    const struct bed_format *f;
    struct memory_file *disk, *bases[2];
    unsigned base; /* which of the two is below */
    GRand *r;
    struct node *n;
    uint8_t *bytes, *buf; /* the shadow; room for the largest size */
    uint64_t size, room;
    struct saved saved[SNAPSHOTS_MAX];
    unsigned saved_count, next_name;
    uint64_t ops, op; /* to do, done */
    unsigned busy;
    struct fiber_queue done;
};

static guint32 run_seed;

/* ---- chance ---- */

static uint64_t chance(struct model *m, uint64_t below)
{
    return below ? ((uint64_t)g_rand_int(m->r) << 31 ^ g_rand_int(m->r)) % below : 0;
}

struct range {
    uint64_t off, len;
};

/* Of any alignment inside [from, to): bytes, sectors or clusters. */
static struct range pick_range_in(struct model *m, uint64_t from, uint64_t to)
{
    static const uint32_t units[] = {1, SECTOR, SECTOR, 4096, 0, 0};
    uint32_t unit = units[chance(m, ARRAY_COUNT(units))];
    unit = unit ? unit : m->f->cluster_bytes;
    uint64_t most = min_u64(
        chance(m, 4) ? max_u64(m->f->cluster_bytes, 4096) : 3 * m->f->cluster_bytes, LEN_MAX);
    struct range g = {.off = align_down(from + chance(m, to - from), unit)};
    g.off = max_u64(g.off, from);
    g.len = align_up(1 + chance(m, most), unit);
    g.len = min_u64(min_u64(g.len, to - g.off), LEN_MAX);
    return g;
}

static struct range pick_range(struct model *m)
{
    return pick_range_in(m, 0, m->size);
}

/* Some writes compress well, some are zero, most are neither. */
static void fill(struct model *m, uint8_t *to, uint64_t len)
{
    unsigned kind = (unsigned)chance(m, 8);
    if (kind == 0) {
        memset(to, 0, len);
        return;
    }
    uint32_t x = g_rand_int(m->r) | 1;
    for (uint64_t i = 0; i < len; i++) {
        x = x * 1664525 + 1013904223;
        to[i] = (uint8_t)(kind < 3 ? m->op : x >> 24);
    }
}

/* ---- saying what went wrong ---- */

#define expect(m, ok, ...)                                                                         \
    do {                                                                                           \
        if (!(ok)) {                                                                               \
            g_printerr("# %s, operation %" G_GUINT64_FORMAT ", --seed=%u: ", (m)->f->label,        \
                       (m)->op, run_seed);                                                         \
            g_error(__VA_ARGS__);                                                                  \
        }                                                                                          \
    } while (0)

static void expect_same(struct model *m, uint64_t off, const uint8_t *got, uint64_t len)
{
    for (uint64_t i = 0; memcmp(got, m->bytes + off, len) && i < len; i++)
        expect(m, got[i] == m->bytes[off + i],
               "byte %" G_GUINT64_FORMAT " is %#x, not %#x (read from %" G_GUINT64_FORMAT
               ", %" G_GUINT64_FORMAT " bytes)",
               off + i, got[i], m->bytes[off + i], off, len);
}

static void expect_bitmaps_dirty(struct model *m, struct range g)
{
    for (struct dirty_bitmap *b = m->n->bitmaps; b && g.len; b = b->next)
        expect(m, !b->enabled || (dirty_get(b, g.off) && dirty_get(b, g.off + g.len - 1)),
               "bitmap %s misses a write at %" G_GUINT64_FORMAT, b->name, g.off);
}

/* ---- the guest's operations ---- */

static void do_write(struct model *m)
{
    struct range g = pick_range(m);
    fill(m, m->buf, g.len);
    int err = node_pwrite(m->n, g.off, m->buf, g.len, chance(m, 40) ? 0 : NODE_FUA);
    expect(m, !err, "write: %s", g_strerror(-err));
    memcpy(m->bytes + g.off, m->buf, g.len);
    expect_bitmaps_dirty(m, g);
}

static void do_read(struct model *m)
{
    struct range g = pick_range(m);
    int err = node_pread(m->n, g.off, m->buf, g.len);
    expect(m, !err, "read: %s", g_strerror(-err));
    expect_same(m, g.off, m->buf, g.len);
}

static void do_compressed(struct model *m)
{
    uint64_t cluster = m->f->cluster_bytes, off = align_down(chance(m, m->size), cluster);
    struct range g = {off, min_u64(cluster, m->size - off)};
    fill(m, m->buf, g.len);
    int err = node_pwrite(m->n, g.off, m->buf, g.len, NODE_COMPRESSED);
    expect(m, !err, "compressed write: %s", g_strerror(-err));
    memcpy(m->bytes + g.off, m->buf, g.len);
    expect_bitmaps_dirty(m, g);
}

static void do_zero(struct model *m)
{
    struct range g = pick_range(m);
    int err = node_zero(m->n, g.off, g.len, chance(m, 2) ? NODE_MAY_UNMAP : 0);
    expect(m, !err, "zero: %s", g_strerror(-err));
    memset(m->bytes + g.off, 0, g.len);
    expect_bitmaps_dirty(m, g);
}

/* Bytes stay, or are zero; from now on as they are. */
static void do_discard(struct model *m)
{
    struct range g = pick_range(m);
    int err = node_discard(m->n, g.off, g.len);
    expect(m, !err, "discard: %s", g_strerror(-err));
    err = node_pread(m->n, g.off, m->buf, g.len);
    expect(m, !err, "read after discard: %s", g_strerror(-err));
    for (uint64_t i = 0; i < g.len; i++)
        m->bytes[g.off + i] = m->buf[i] ? m->bytes[g.off + i] : 0;
    expect_same(m, g.off, m->buf, g.len);
}

static void do_flush(struct model *m)
{
    int err = node_flush(m->n);
    expect(m, !err, "flush: %s", g_strerror(-err));
}

/* The map tells zeroes only where there are some. */
static void do_map(struct model *m)
{
    uint64_t at = chance(m, m->size);
    for (unsigned steps = 0; at < m->size && steps < 20; steps++) {
        struct image_extent e;
        unsigned depth;
        int err = node_map_chain(m->n, NULL, at, m->size - at, &e, &depth);
        expect(m, !err && e.len && e.len <= m->size - at, "map at %" G_GUINT64_FORMAT ": %d", at,
               err);
        expect(m, !(e.flags & EXTENT_ZERO) || bytes_are_zero(m->bytes + at, e.len),
               "mapped as zero, and is not: %" G_GUINT64_FORMAT ", %" G_GUINT64_FORMAT " bytes", at,
               e.len);
        at += e.len;
    }
}

/* ---- several at a time, next to one another ---- */

struct part {
    struct model *m;
    uint64_t from, to;
};

static void work_on_part(void *opaque)
{
    struct part *p = opaque;
    struct model *m = p->m;
    uint8_t *buf = g_malloc(LEN_MAX);
    for (unsigned i = 0; i < 4; i++) {
        struct range g = pick_range_in(m, p->from, p->to);
        if (chance(m, 3)) {
            fill(m, buf, g.len);
            int err = node_pwrite(m->n, g.off, buf, g.len, 0);
            expect(m, !err, "write: %s", g_strerror(-err));
            memcpy(m->bytes + g.off, buf, g.len);
        } else {
            int err = node_pread(m->n, g.off, buf, g.len);
            expect(m, !err, "read: %s", g_strerror(-err));
            expect_same(m, g.off, buf, g.len);
        }
    }
    g_free(buf);
    if (!--m->busy)
        fiber_queue_wake_all(&m->done);
}

static void do_parallel(struct model *m)
{
    struct part parts[FIBERS];
    uint64_t from = chance(m, m->size / 2),
             to = from + min_u64(m->size / 2, 6 * m->f->cluster_bytes);
    memory_file_delay(m->disk, g_rand_int(m->r) | 1);
    m->busy = FIBERS + 1;
    for (unsigned i = 0; i < FIBERS; i++) {
        parts[i] = (struct part){m, from + (to - from) * i / FIBERS,
                                 from + (to - from) * (i + 1) / FIBERS};
        fiber_start(work_on_part, &parts[i]);
    }
    if (--m->busy)
        fiber_queue_wait(&m->done);
    memory_file_delay(m->disk, 0);
}

/* ---- management ---- */

static void read_all(struct model *m)
{
    for (uint64_t off = 0; off < m->size; off += LEN_MAX) {
        uint64_t len = min_u64(LEN_MAX, m->size - off);
        int err = node_pread(m->n, off, m->buf, len);
        expect(m, !err, "read: %s", g_strerror(-err));
        expect_same(m, off, m->buf, len);
    }
}

struct kept_bitmap {
    char *name;
    uint8_t *bits;
    uint64_t grains;
};

static uint8_t *bitmap_bits(const struct dirty_bitmap *b)
{
    uint8_t *bits = g_malloc0(b->grain_count / 8 + 8);
    dirty_store(b, 0, b->grain_count, bits);
    return bits;
}

static void expect_bitmap(struct model *m, struct kept_bitmap *k)
{
    struct dirty_bitmap *b = dirty_find(m->n, k->name);
    expect(m, b && !b->inconsistent && b->grain_count == k->grains, "bitmap %s was not kept",
           k->name);
    g_autofree uint8_t *bits = bitmap_bits(b);
    expect(m, !memcmp(bits, k->bits, k->grains / 8 + 1), "bitmap %s was not kept as it was",
           k->name);
    g_free(k->name);
    g_free(k->bits);
}

static void close_check_open(struct model *m)
{
    struct kept_bitmap kept[BITMAPS_MAX];
    unsigned count = 0;
    for (struct dirty_bitmap *b = m->n->bitmaps; b; b = b->next)
        kept[count++] = (struct kept_bitmap){g_strdup(b->name), bitmap_bits(b), b->grain_count};
    node_unref(g_steal_pointer(&m->n));
    expect(m, bed_check(m->bed, m->f, "disk", 0), "not clean");
    m->n = bed_must_open(m->bed, m->f, "disk", NODE_RW);
    expect(m, node_size(m->n) == m->size, "size is %" G_GUINT64_FORMAT ", not %" G_GUINT64_FORMAT,
           node_size(m->n), m->size);
    for (unsigned i = 0; i < count; i++)
        expect_bitmap(m, &kept[i]);
}

static void do_reopen(struct model *m)
{
    close_check_open(m);
    read_all(m);
}

static void do_resize(struct model *m)
{
    g_autoptr(GError) error = NULL;
    uint64_t size = align_down(m->room / 4 + chance(m, m->room * 3 / 4), SECTOR);
    if (!node_resize(m->n, size, PREALLOC_OFF, &error)) {
        expect(m, m->saved_count || m->n->bitmaps, "resize: %s", error->message);
        expect(m, node_size(m->n) == m->size, "the size changed though it was refused");
        return;
    }
    if (size > m->size)
        memset(m->bytes + m->size, 0, size - m->size);
    m->size = size;
    expect(m, node_size(m->n) == size, "size is %" G_GUINT64_FORMAT ", not %" G_GUINT64_FORMAT,
           node_size(m->n), size);
}

static void do_snapshot(struct model *m)
{
    g_autoptr(GError) error = NULL;
    if (m->saved_count == SNAPSHOTS_MAX)
        return;
    struct saved *s = &m->saved[m->saved_count++];
    g_snprintf(s->name, sizeof(s->name), "s%u", m->next_name++ % 1000);
    s->bytes = g_memdup2(m->bytes, m->size);
    s->size = m->size;
    struct snapshot_info info = {.name = s->name, .size_bytes = m->size};
    expect(m, m->n->driver->snapshot_create(m->n, &info, &error), "%s", error->message);
}

static void do_snapshot_apply(struct model *m)
{
    g_autoptr(GError) error = NULL;
    if (!m->saved_count)
        return;
    struct saved *s = &m->saved[chance(m, m->saved_count)];
    if (!m->n->driver->snapshot_apply(m->n, s->name, &error)) {
        expect(m, s->size != m->size, "%s", error->message);
        return;
    }
    m->size = s->size;
    memcpy(m->bytes, s->bytes, s->size);
    read_all(m);
}

static void do_snapshot_delete(struct model *m)
{
    g_autoptr(GError) error = NULL;
    if (!m->saved_count)
        return;
    struct saved *s = &m->saved[chance(m, m->saved_count)];
    expect(m, m->n->driver->snapshot_delete(m->n, s->name, &error), "%s", error->message);
    g_free(s->bytes);
    *s = m->saved[--m->saved_count];
}

static void do_bitmap(struct model *m)
{
    g_autoptr(GError) error = NULL;
    unsigned count = 0;
    for (struct dirty_bitmap *b = m->n->bitmaps; b; b = b->next)
        count++;
    if (count < BITMAPS_MAX && chance(m, 2)) {
        g_autofree char *name = g_strdup_printf("b%u", m->next_name++);
        struct dirty_bitmap *b = dirty_new(m->n, 0, name, 1u << (9 + chance(m, 9)), &error);
        expect(m, b, "%s", error->message);
        b->enabled = b->persistent = true;
    } else if (count) {
        struct dirty_bitmap *b = m->n->bitmaps;
        for (uint64_t i = chance(m, count); i; i--)
            b = b->next;
        if (chance(m, 3)) {
            dirty_clear(b);
        } else {
            bool ok = m->n->driver->bitmap_forget(m->n, b->name, &error);
            expect(m, ok, "%s", error->message);
            dirty_free(b);
        }
    }
}

/* Another file of the same bytes below. */
static void do_rebase(struct model *m)
{
    g_autoptr(GError) error = NULL;
    unsigned other = !m->base;
    memory_file_assign(m->bases[other], m->bases[m->base]);
    bool ok = node_change_backing(m->n, other ? "memory://base1" : "memory://base0", "raw", &error);
    expect(m, ok, "%s", error->message);
    m->base = other;
    close_check_open(m);
}

/* Everything goes down, and the image is emptied. Snapshots would see the new base. */
static void do_commit(struct model *m)
{
    if (m->saved_count)
        return;
    node_unref(g_steal_pointer(&m->n));
    memory_file_set(m->bases[m->base], m->bytes, m->size);
    m->n = bed_must_open(m->bed, m->f, "disk", NODE_RW);
    int err = m->n->driver->make_empty(m->n);
    expect(m, !err, "cannot empty it: %s", g_strerror(-err));
    read_all(m);
}

/* ---- the run ---- */

static const struct {
    void (*fn)(struct model *m);
    unsigned weight, needs;
} rows[] = {
    {do_write, 4000, 0},
    {do_read, 3300, 0},
    {do_zero, 800, 0},
    {do_discard, 600, 0},
    {do_compressed, 400, BED_COMPRESS},
    {do_flush, 300, 0},
    {do_map, 200, 0},
    {do_parallel, 30, 0},
    {do_reopen, 10, 0},
    {do_resize, 10, BED_RESIZE},
    {do_snapshot, 12, BED_SNAPSHOTS},
    {do_snapshot_apply, 8, BED_SNAPSHOTS},
    {do_snapshot_delete, 10, BED_SNAPSHOTS},
    {do_bitmap, 20, BED_BITMAPS},
    {do_rebase, 4, BED_BACKING},
    {do_commit, 4, BED_BACKING},
};

static void (*pick_op(struct model *m))(struct model *m)
{
    unsigned total = 0;
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++)
        total += rows[i].weight;
    for (;;) {
        unsigned dice = (unsigned)chance(m, total), i = 0;
        for (; dice >= rows[i].weight; i++)
            dice -= rows[i].weight;
        if ((rows[i].needs & m->f->flags) == rows[i].needs)
            return rows[i].fn;
    }
}

static int run_in_fiber(void *opaque)
{
    struct model *m = opaque;
    bool backing = m->f->flags & BED_BACKING;
    if (backing) { /* shorter than the image, and with holes */
        uint64_t len = m->size * 3 / 4;
        for (uint64_t at = 0; at < len; at += 3 * 4096)
            fill(m, m->bytes + at, min_u64(2 * 4096, len - at));
        memory_file_set(m->bases[0], m->bytes, len);
    }
    bed_create(m->bed, m->f, "disk", backing ? "base0" : NULL);
    m->n = bed_must_open(m->bed, m->f, "disk", NODE_RW);
    m->size = node_size(m->n); /* vpc rounds up */
    for (; m->op < m->ops; m->op++)
        pick_op(m)(m);
    do_reopen(m);
    node_unref(m->n);
    return 0;
}

static uint64_t run_ops;

static void test_format(gconstpointer data)
{
    const struct bed_format *f = data;
    struct model m = {
        .f = f, .bed = bed_new(), .ops = run_ops, .size = f->size_bytes, .room = f->size_bytes * 2};
    m.disk = memory_file_new("disk", 0);
    m.bases[0] = memory_file_new("base0", 0);
    m.bases[1] = memory_file_new("base1", 0);
    m.r = g_rand_new_with_seed(run_seed);
    m.bytes = g_malloc0(m.room);
    m.buf = g_malloc(MAX(LEN_MAX, f->cluster_bytes));
    bed_run(m.bed, run_in_fiber, &m);
    bed_free(m.bed);
    for (unsigned i = 0; i < m.saved_count; i++)
        g_free(m.saved[i].bytes);
    memory_file_free(m.disk);
    memory_file_free(m.bases[0]);
    memory_file_free(m.bases[1]);
    g_rand_free(m.r);
    g_free(m.bytes);
    g_free(m.buf);
}

int main(int argc, char **argv)
{
    gint ops = 20000, seed = 1;
    gboolean all = FALSE;
    g_autofree char *only = NULL;
    const GOptionEntry entries[] = {
        {"ops", 0, 0, G_OPTION_ARG_INT, &ops, "Operations on all formats together", "N"},
        {"seed", 0, 0, G_OPTION_ARG_INT, &seed, "Another run; 0: a random one", "N"},
        {"format", 0, 0, G_OPTION_ARG_STRING, &only, "Only these", "LABEL"},
        {"all", 0, 0, G_OPTION_ARG_NONE, &all, "Every format, not the quick ones", NULL},
        G_OPTION_ENTRY_NULL,
    };
    bed_options(&argc, &argv, entries);
    g_test_init(&argc, &argv, NULL);
    run_seed = seed ? (guint32)seed : (guint32)g_test_rand_int();
    unsigned flags = all || only ? 0 : BED_QUICK, count = 0;
    for (const struct bed_format *f = NULL; (f = bed_format_next(f, flags, only)); count++) {
        g_autofree char *path = g_strconcat("/model/", f->label, NULL);
        g_test_add_data_func(path, f, test_format);
    }
    run_ops = (uint64_t)ops / MAX(count, 1);
    return g_test_run();
}
