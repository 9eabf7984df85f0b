/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See the header.
 *
 * The power cut: every write carries its number in each of its sectors. A cut may come behind any
 * event that the file recorded; what was not synced by then is there, or not, sector by sector. The
 * image that is left must open, check clean, and each of its sectors must hold what was last
 * flushed, or what was written to it since.
 */
#include "image/vhd/testing.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SECTOR      512
#define PARENT_BYTE 0x5a

/* ---- the bench ---- */

struct create_call {
    struct format_bench *b;
    const char *name, *backing;
    uint64_t size;
    GError *error;
    bool ok;
};

static JsonObject *parse(const char *text)
{
    if (!text)
        return json_object_new();
    g_autoptr(JsonNode) n = json_from_string(text, NULL);
    g_assert_nonnull(n);
    return json_object_ref(json_node_get_object(n));
}

static int create_call(void *opaque)
{
    struct create_call *k = opaque;
    g_autoptr(JsonObject) options = parse(k->b->c->create);
    const struct image_driver *d = driver_find(k->b->c->driver, NULL);
    k->ok = image_create(k->b->graph, d, k->name, k->size, k->backing,
                         k->backing ? k->b->c->driver : NULL, options, &k->error);
    return 0;
}

static void create(struct format_bench *b, const char *name, uint64_t size, const char *backing)
{
    struct create_call k = {.b = b, .name = name, .size = size, .backing = backing};
    context_run(b->ctx, create_call, &k);
    g_assert_no_error(k.error);
    g_assert_true(k.ok);
}

static int fill_parent(void *opaque)
{
    struct node *n = opaque;
    g_autofree uint8_t *bytes = g_malloc(64 * KIB);
    memset(bytes, PARENT_BYTE, 64 * KIB);
    int r = 0;
    for (uint64_t off = 0, len; off < n->size_bytes && !r; off += len) {
        len = min_u64(64 * KIB, n->size_bytes - off);
        r = node_pwrite(n, off, bytes, len, 0);
    }
    return r;
}

void bench_init(struct format_bench *b, const struct format_case *c)
{
    GError *error = NULL;
    *b = (struct format_bench){.ctx = context_new(&error), .c = c};
    g_assert_no_error(error);
    b->graph = graph_new(b->ctx);
    b->disk = memory_file_new("disk", 0);
    b->parent = memory_file_new("parent", 0);
    if (c->parent) {
        create(b, "memory://parent", c->size / 4 * 3, NULL);
        struct node *n =
            node_open_name(b->graph, "memory://parent", c->driver, NULL, NODE_RW, &error);
        g_assert_no_error(error);
        g_assert_cmpint(context_run(b->ctx, fill_parent, n), ==, 0);
        node_unref(n);
    }
    create(b, "memory://disk", c->size, c->parent ? "memory://parent" : NULL);
}

void bench_done(struct format_bench *b)
{
    graph_free(b->graph);
    context_free(b->ctx);
    memory_file_free(b->disk);
    memory_file_free(b->parent);
}

struct node *bench_open(struct format_bench *b, unsigned flags, GError **error)
{
    GError *e = NULL;
    g_autoptr(JsonObject) extra = parse(b->c->open);
    struct node *n = node_open_name(b->graph, "memory://disk", b->c->driver, extra, flags, &e);
    if (error && e)
        g_propagate_error(error, e);
    else
        g_assert_no_error(e);
    return n;
}

int bench_run(struct format_bench *b, int (*fn)(void *opaque), void *opaque)
{
    return context_run(b->ctx, fn, opaque);
}

static void report(const char *sentence, void *opaque)
{
    g_test_message("check: %s", sentence);
}

static int check_call(void *opaque)
{
    struct node *n = opaque;
    struct image_check k = {.report = report};
    GError *error = NULL;
    if (!n->driver->check)
        return 0;
    bool ok = n->driver->check(n, 0, &k, &error);
    g_assert_no_error(error);
    g_assert_true(ok);
    g_assert_cmpuint(k.corruptions, ==, 0);
    g_assert_cmpuint(k.leaks, ==, 0);
    g_assert_cmpuint(k.check_errors, ==, 0);
    return 0;
}

void bench_check(struct format_bench *b)
{
    struct node *n = bench_open(b, NODE_CHECK, NULL);
    context_run(b->ctx, check_call, n);
    node_unref(n);
}

/* ---- the model ---- */

struct model {
    struct format_bench *b;
    struct node *n;
    GRand *rand;
    uint8_t *shadow, *bytes;
    uint64_t size;
};
#define MODEL_IO_MAX (128 * KIB)

static uint64_t pick(GRand *r, uint64_t below)
{
    return ((uint64_t)g_rand_int(r) << 32 | g_rand_int(r)) % below;
}

static void assert_same(struct model *m, uint64_t off, uint64_t len)
{
    g_assert_cmpint(node_pread(m->n, off, m->bytes, len), ==, 0);
    if (!memcmp(m->bytes, m->shadow + off, len))
        return;
    for (uint64_t i = 0; i < len; i++)
        if (m->bytes[i] != m->shadow[off + i])
            g_error("byte %" G_GUINT64_FORMAT " is %#x, not %#x", off + i, m->bytes[i],
                    m->shadow[off + i]);
}

/* The map must say zero only where there are zeroes, and give plain bytes where it says so. */
static void assert_map(struct model *m, uint64_t off, uint64_t len)
{
    struct image_extent e;
    unsigned depth;
    off = align_down(off, SECTOR);
    g_assert_cmpint(
        node_map_chain(m->n, NULL, off, MAX(align_down(len, SECTOR), SECTOR), &e, &depth), ==, 0);
    g_assert_cmpuint(e.len, >, 0);
    uint64_t n = min_u64(e.len, MODEL_IO_MAX);
    if (e.flags & EXTENT_ZERO)
        g_assert_true(bytes_are_zero(m->shadow + off, n));
    if (e.flags & EXTENT_OFFSET) {
        g_assert_cmpint(node_pread(e.host, e.host_offset, m->bytes, n), ==, 0);
        g_assert_cmpmem(m->bytes, n, m->shadow + off, n);
    }
}

static void model_step(struct model *m)
{
    uint64_t off = pick(m->rand, m->size), max = pick(m->rand, 8) ? 8 * KIB : MODEL_IO_MAX;
    uint64_t len = 1 + pick(m->rand, MIN(max, m->size - off));
    if (pick(m->rand, 2)) {
        off = align_down(off, SECTOR);
        len = min_u64(align_up(len, SECTOR), m->size - off);
    }
    switch (pick(m->rand, 10)) {
    case 0:
    case 1:
    case 2:
    case 3:
        for (uint64_t i = 0; i < len; i++)
            m->bytes[i] = (uint8_t)(g_rand_int(m->rand) | 1);
        memcpy(m->shadow + off, m->bytes, len);
        g_assert_cmpint(node_pwrite(m->n, off, m->bytes, len, 0), ==, 0);
        break;
    case 4:
        len = min_u64(len * 16, m->size - off);
        memset(m->shadow + off, 0, len);
        g_assert_cmpint(node_zero(m->n, off, len, pick(m->rand, 2) ? NODE_MAY_UNMAP : 0), ==, 0);
        break;
    case 5: /* what a discard leaves is the format's choice */
        len = min_u64(len * 16, m->size - off);
        g_assert_cmpint(node_discard(m->n, off, len), ==, 0);
        for (uint64_t at = 0, n; at < len; at += n) {
            n = min_u64(len - at, MODEL_IO_MAX);
            g_assert_cmpint(node_pread(m->n, off + at, m->shadow + off + at, n), ==, 0);
        }
        break;
    case 6:
        g_assert_cmpint(node_flush(m->n), ==, 0);
        break;
    case 7:
        assert_map(m, off, len);
        break;
    default:
        assert_same(m, off, len);
    }
}

static int model_call(void *opaque)
{
    struct model *m = opaque;
    for (unsigned i = 0; i < 200; i++)
        model_step(m);
    return 0;
}

static int compare_call(void *opaque)
{
    struct model *m = opaque;
    for (uint64_t off = 0, len; off < m->size; off += len) {
        len = min_u64(MODEL_IO_MAX, m->size - off);
        assert_same(m, off, len);
    }
    return 0;
}

static void model_init(struct model *m, struct format_bench *b, guint32 seed)
{
    *m = (struct model){
        .b = b, .rand = g_rand_new_with_seed(seed), .bytes = g_malloc(MODEL_IO_MAX * 2)};
    m->n = bench_open(b, NODE_RW, NULL);
    m->size = node_size(m->n);
    g_assert_cmpuint(m->size, >=, b->c->size);
    m->shadow = g_malloc0(m->size);
    if (b->c->parent)
        memset(m->shadow, PARENT_BYTE, b->c->size / 4 * 3);
}

static void model_done(struct model *m)
{
    g_rand_free(m->rand);
    g_free(m->shadow);
    g_free(m->bytes);
    node_unref(m->n);
}

void format_test_model(const struct format_case *c, guint32 seed, unsigned ops)
{
    struct format_bench b;
    struct model m;
    bench_init(&b, c);
    model_init(&m, &b, seed);
    if (!b.graph || strcmp(c->driver, "luks"))
        context_run(b.ctx, compare_call, &m);
    else /* a new encrypted disk reads as noise */
        context_run(b.ctx, fill_parent, m.n), memset(m.shadow, PARENT_BYTE, m.size);
    for (unsigned done = 0; done < ops; done += 200) {
        context_run(b.ctx, model_call, &m);
        if (pick(m.rand, 4))
            continue;
        node_unref(m.n);
        bench_check(&b);
        m.n = bench_open(&b, NODE_RW, NULL);
        context_run(b.ctx, compare_call, &m);
    }
    model_done(&m);
    bench_check(&b);
    bench_done(&b);
}

/* ---- many at a time ---- */

#define WRITERS 16
struct writer {
    struct node *n;
    unsigned index, *left;
    bool *done;
};

/* Each its own stripes of an odd size, so that blocks and bitmaps are shared by several. */
#define STRIPE 3584
static void writer_fiber(void *opaque)
{
    struct writer *w = opaque;
    uint8_t bytes[STRIPE];
    memset(bytes, (int)w->index + 1, sizeof(bytes));
    for (uint64_t off = w->index * STRIPE; off + STRIPE <= w->n->size_bytes;
         off += WRITERS * STRIPE) {
        g_assert_cmpint(node_pwrite(w->n, off, bytes, STRIPE, 0), ==, 0);
        if (off % 7 == 0)
            g_assert_cmpint(node_flush(w->n), ==, 0);
    }
    *w->done = !--*w->left;
}

static int stripes_call(void *opaque)
{
    struct node *n = opaque;
    uint8_t bytes[STRIPE], want[STRIPE];
    for (uint64_t off = 0, i = 0; off + STRIPE <= n->size_bytes; off += STRIPE, i++) {
        memset(want, (int)(i % WRITERS) + 1, sizeof(want));
        g_assert_cmpint(node_pread(n, off, bytes, STRIPE), ==, 0);
        g_assert_cmpmem(bytes, STRIPE, want, STRIPE);
    }
    return 0;
}

void format_test_parallel(const struct format_case *c, guint32 seed)
{
    struct format_bench b;
    struct writer w[WRITERS];
    unsigned left = WRITERS;
    bool done = false;
    bench_init(&b, c);
    memory_file_delay(b.disk, seed);
    struct node *n = bench_open(&b, NODE_RW, NULL);
    for (unsigned i = 0; i < WRITERS; i++) {
        w[i] = (struct writer){n, i, &left, &done};
        fiber_start(writer_fiber, &w[i]);
    }
    context_wait(b.ctx, &done);
    context_run(b.ctx, stripes_call, n);
    node_unref(n);
    bench_check(&b);
    n = bench_open(&b, 0, NULL);
    context_run(b.ctx, stripes_call, n);
    node_unref(n);
    bench_done(&b);
}

/* ---- power cuts ---- */

struct cut_op {
    uint64_t off, len; /* sectors of the disk */
    bool flush, zero;
    unsigned begin, end; /* events that were recorded before it, and when it was done */
};
struct cut {
    struct format_bench *b;
    struct node *n;
    GRand *rand;
    struct cut_op *ops;
    unsigned op_count;
};

static int cut_work(void *opaque)
{
    struct cut *k = opaque;
    uint64_t sectors = k->n->size_bytes / SECTOR;
    g_autofree uint8_t *bytes = g_malloc0(64 * SECTOR);
    for (unsigned i = 0; i < k->op_count; i++) {
        struct cut_op *o = &k->ops[i];
        o->begin = memory_file_event_count(k->b->disk);
        o->flush = !pick(k->rand, 6);
        o->zero = !pick(k->rand, 8);
        o->off = pick(k->rand, sectors);
        o->len = 1 + pick(k->rand, MIN(64, sectors - o->off));
        if (o->flush) {
            g_assert_cmpint(node_flush(k->n), ==, 0);
        } else if (o->zero) {
            o->len = MIN(o->len * 64, sectors - o->off);
            g_assert_cmpint(node_zero(k->n, o->off * SECTOR, o->len * SECTOR, NODE_MAY_UNMAP), ==,
                            0);
        } else {
            for (uint64_t s = 0; s < o->len; s++)
                memcpy(bytes + s * SECTOR, &(uint64_t){i + 1}, 8);
            g_assert_cmpint(node_pwrite(k->n, o->off * SECTOR, bytes, o->len * SECTOR, 0), ==, 0);
        }
        o->end = memory_file_event_count(k->b->disk);
    }
    return 0;
}

/* What sector s may hold when the power goes behind `events`: marks allowed[number of a write], 0
 * for never written. A flush counts when it was done; a write when it had begun. */
static void allowed_at(const struct cut *k, uint64_t s, unsigned events, bool *allowed)
{
    memset(allowed, 0, k->op_count + 1);
    allowed[0] = true;
    for (unsigned i = 0; i < k->op_count; i++) {
        const struct cut_op *o = &k->ops[i];
        if (o->begin > events)
            return;
        if (o->flush && o->end <= events) {
            unsigned last = 0;
            for (unsigned p = 0; p <= i; p++)
                if (allowed[p])
                    last = p;
            /* only the newest survives; it was moved to the end of the list by its number */
            memset(allowed, 0, k->op_count + 1);
            allowed[last] = true;
        }
        if (!o->flush && s >= o->off && s < o->off + o->len)
            allowed[i + 1] = true;
    }
}

struct cut_check {
    struct cut *k;
    struct node *n;
    unsigned events;
};

/* The number that a sector shows: 0 for zeroes, which may also be a zero request's. */
static int cut_compare(void *opaque)
{
    struct cut_check *c = opaque;
    uint8_t bytes[SECTOR];
    g_autofree bool *allowed = g_new(bool, c->k->op_count + 1);
    for (unsigned i = 0; i < 160; i++) {
        const struct cut_op *o = &c->k->ops[pick(c->k->rand, c->k->op_count)];
        uint64_t s = o->off + pick(c->k->rand, o->len), got;
        g_assert_cmpint(node_pread(c->n, s * SECTOR, bytes, SECTOR), ==, 0);
        memcpy(&got, bytes, 8);
        allowed_at(c->k, s, c->events, allowed);
        bool fine = false;
        for (unsigned v = 0; v <= c->k->op_count; v++) {
            bool zero = v ? c->k->ops[v - 1].zero
                          : !c->k->b->c->parent || s * SECTOR >= c->k->b->c->size / 4 * 3;
            uint64_t want = zero ? 0 : v ? v : 0x0101010101010101ULL * PARENT_BYTE;
            fine |= allowed[v] && got == want;
        }
        if (!fine)
            g_error("cut behind event %u: sector %" G_GUINT64_FORMAT " holds %#" G_GINT64_MODIFIER
                    "x",
                    c->events, s, got);
    }
    return 0;
}

/* The file as a cut behind `events` may leave it. */
static void replay(struct memory_file *to, const struct memory_file *start,
                   const struct memory_file *record, unsigned events, GRand *chance)
{
    unsigned synced = 0;
    memory_file_assign(to, start);
    for (unsigned i = 0; i < events; i++)
        if (memory_file_event(record, i)->op == MEMORY_FLUSH)
            synced = i;
    for (unsigned i = 0; i < events; i++) {
        const struct memory_event *e = memory_file_event(record, i);
        /* A file's length comes back whole with what was last written behind it. */
        if (i < synced || !chance || e->op == MEMORY_RESIZE)
            memory_event_apply(to, e);
        else
            memory_event_apply_torn(to, e, chance);
    }
}

static void cut_at(struct cut *k, const struct memory_file *start, struct memory_file *record,
                   unsigned events, GRand *chance)
{
    struct format_bench *b = k->b;
    struct memory_file *whole = memory_file_new("whole", 0);
    memory_file_assign(whole, b->disk);
    replay(b->disk, start, record, events, chance);
    bench_check(b);
    for (unsigned i = 0; i < 2; i++) { /* as a reader finds it, and after a writer's repair */
        struct cut_check c = {k, bench_open(b, i ? NODE_RW : 0, NULL), events};
        context_run(b->ctx, cut_compare, &c);
        node_unref(c.n);
    }
    bench_check(b);
    memory_file_assign(b->disk, whole);
    memory_file_free(whole);
}

void format_test_power_cut(const struct format_case *c, guint32 seed, unsigned ops)
{
    struct format_bench b;
    bench_init(&b, c);
    struct cut k = {.b = &b,
                    .rand = g_rand_new_with_seed(seed),
                    .ops = g_new0(struct cut_op, ops),
                    .op_count = ops};
    struct memory_file *start = memory_file_new("start", 0);
    memory_file_assign(start, b.disk);
    memory_file_record(b.disk, true);
    k.n = bench_open(&b, NODE_RW, NULL);
    context_run(b.ctx, cut_work, &k);
    node_unref(k.n);
    struct memory_file *record = b.disk;
    unsigned events = memory_file_event_count(record);
    b.disk = memory_file_new("disk", 0);
    GRand *chance = g_rand_new_with_seed(seed + 1);
    for (unsigned i = 0; i <= events; i++)
        cut_at(&k, start, record, i, i % 2 ? chance : NULL);
    g_rand_free(chance);
    memory_file_free(record);
    memory_file_free(start);
    g_rand_free(k.rand);
    g_free(k.ops);
    bench_done(&b);
}
