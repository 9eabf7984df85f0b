/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Jobs while a guest writes: what the images hold in the end, the states on the way, and what is
 * left when they fail or are cancelled.
 */
#include "image/driver.h"
#include "image/image.h"
#include "image/job/testing.h"

#include "base/error.h"

#include <errno.h>
#include <string.h>

#define SIZE        (8 * MIB + 512)
#define SLOTS       4
#define STRIPE      (2 * MIB)
#define WRITE_MAX   (128 * KIB)
#define PATIENCE_NS (20 * NS_PER_SEC)

/* ---- the world of a test ---- */

struct slot {
    struct guest *guest;
    unsigned index;
    struct image_request r;
    struct iovec iov;
    uint8_t buf[WRITE_MAX];
};

/* Writes at random, each slot in a stripe of its own, and knows what it wrote. */
struct guest {
    struct image *image;
    uint8_t *shadow;
    struct slot slot[SLOTS];
    bool stop;
    unsigned in_flight;
    uint64_t writes;
    int worst; /* result of all requests */
};

struct world {
    struct loop *loop;
    struct context *ctx;
    struct graph *graph;
    struct job_set *jobs;
    GString *log; /* "id:status " */
    unsigned io_errors;
    struct guest guest;
};

static void on_status(struct job *j, void *opaque)
{
    struct world *w = opaque;
    struct job_info info;
    job_get_info(j, &info);
    g_string_append_printf(w->log, "%s:%s ", info.id, job_status_words[info.status]);
}

static void on_io_error(struct job *j, bool write, enum job_on_error action, void *opaque)
{
    ((struct world *)opaque)->io_errors++;
}

static void world_init(struct world *w)
{
    *w = (struct world){ .loop = loop_new("test"), .log = g_string_new(NULL) };
    loop_once(w->loop, 0); /* this thread is its home */
    w->ctx = context_get(w->loop);
    w->graph = graph_new(w->ctx);
    const struct job_listener l = { .status = on_status, .io_error = on_io_error, .opaque = w };
    w->jobs = job_set_new(w->loop, &l);
}

static void world_done(struct world *w)
{
    job_set_free(w->jobs);
    image_close(w->guest.image);
    graph_free(w->graph);
    context_put(w->ctx);
    loop_free(w->loop);
    g_string_free(w->log, TRUE);
    g_free(w->guest.shadow);
}

#define PUMP_UNTIL(w, condition)                                                                   \
    do {                                                                                           \
        int64_t until = loop_now_ns() + PATIENCE_NS;                                               \
        while (!(condition)) {                                                                     \
            loop_once((w)->loop, 10);                                                              \
            g_assert_cmpint(loop_now_ns(), <, until);                                              \
        }                                                                                          \
    } while (0)

/* ---- the guest ---- */

static void slot_write(struct slot *s);

static void slot_done(struct image_request *r, int result)
{
    struct slot *s = r->opaque;
    s->guest->in_flight--;
    s->guest->worst = MIN(s->guest->worst, result);
    if (!s->guest->stop)
        slot_write(s);
}

static void slot_write(struct slot *s)
{
    struct guest *g = s->guest;
    uint64_t len = (1 + g_random_int_range(0, WRITE_MAX / 512)) * 512;
    uint64_t off = s->index * STRIPE + g_random_int_range(0, (STRIPE - len) / 512 + 1) * 512;
    uint8_t fill = (uint8_t)g_random_int();
    unsigned kind = g_random_int_range(0, 8);
    memset(s->buf, kind ? fill : 0, len);
    memcpy(g->shadow + off, s->buf, len);
    s->iov = (struct iovec){ s->buf, len };
    s->r = (struct image_request){ .op = kind ? IMAGE_WRITE : IMAGE_WRITE_ZEROES,
                                   .offset = off,
                                   .len = len,
                                   .iov = &s->iov,
                                   .iov_count = 1,
                                   .may_unmap = true,
                                   .done = slot_done,
                                   .opaque = s };
    g->in_flight++;
    g->writes++;
    image_submit(g->image, &s->r);
}

static void guest_begin(struct guest *g)
{
    g->stop = false;
    for (unsigned i = 0; i < SLOTS; i++) {
        g->slot[i].guest = g;
        g->slot[i].index = i;
        slot_write(&g->slot[i]);
    }
}

static void guest_end(struct world *w)
{
    w->guest.stop = true;
    PUMP_UNTIL(w, !w->guest.in_flight);
    g_assert_cmpint(w->guest.worst, ==, 0);
}

struct compare {
    struct node *a, *b;
    const uint8_t *bytes;
    bool equal;
};

static int read_all(void *opaque)
{
    struct compare *c = opaque;
    g_autofree uint8_t *got = g_malloc(SIZE);
    g_assert_cmpint(node_pread(c->a, 0, got, SIZE), ==, 0);
    c->equal = !memcmp(got, c->bytes, SIZE);
    for (uint64_t i = 0; !c->equal && i < SIZE; i++)
        if (got[i] != c->bytes[i]) {
            g_test_message("%s differs at %#" G_GINT64_MODIFIER "x: %02x, not %02x",
                           node_name(c->a), i, got[i], c->bytes[i]);
            break;
        }
    return 0;
}

static bool holds(struct world *w, struct node *n, const uint8_t *bytes)
{
    struct compare c = { .a = n, .bytes = bytes };
    context_run(w->ctx, read_all, &c);
    return c.equal;
}

static int take_shadow(void *opaque)
{
    struct compare *c = opaque;
    return node_pread(c->a, 0, (void *)c->bytes, SIZE);
}

/* A guest on n, which knows its contents. */
static void guest_attach(struct world *w, struct node *n)
{
    g_autoptr(GError) error = NULL;
    w->guest.shadow = g_malloc(SIZE);
    struct compare c = { .a = n, .bytes = w->guest.shadow };
    context_run(w->ctx, take_shadow, &c);
    w->guest.image = image_new("disk", n, &error);
    g_assert_no_error(error);
    g_assert_cmpint(image_set_loop(w->guest.image, w->loop), ==, 0);
}

/* ---- chains ---- */

struct chain {
    struct node *base, *mid, *top;
};

/* base <- mid <- top, all holding some of the same and some of their own. */
static struct chain make_chain(struct world *w)
{
    struct chain c;
    c.base = layer_new(w->graph, "base", SIZE - 512, NULL, false);
    c.mid = layer_new(w->graph, "mid", SIZE, "base", false);
    c.top = layer_new(w->graph, "top", SIZE, "mid", true);
    layer_fill(c.base, 0, 4 * MIB, 1);
    layer_fill(c.mid, 2 * MIB, 3 * MIB, 50);
    layer_fill(c.top, 3 * MIB + 4096, MIB, 100);
    guest_attach(w, c.top);
    return c;
}

static const struct job_common usual = { .id = "j0", .auto_finalize = true, .auto_dismiss = true };

static bool has(struct world *w, const char *word)
{
    return strstr(w->log->str, word) != NULL;
}

static void finish(struct world *w, const char *id)
{
    g_autofree char *gone = g_strdup_printf("%s:null", id);
    PUMP_UNTIL(w, has(w, gone));
}

static void assert_sentence(GError *error, const char *part)
{
    g_assert_nonnull(error);
    if (!strstr(error->message, part))
        g_error("'%s' does not say '%s'", error->message, part);
    g_error_free(error);
}

/* ---- stream ---- */

static void test_stream(void)
{
    struct world w;
    world_init(&w);
    struct chain c = make_chain(&w);
    guest_begin(&w.guest);
    g_assert_nonnull(job_stream(w.jobs, &usual, c.top, NULL, NULL, NULL, NULL));
    finish(&w, "j0");
    guest_end(&w);
    g_assert_cmpstr(w.log->str, ==,
                    "j0:created j0:running j0:waiting j0:pending j0:concluded j0:null ");
    g_assert_null(node_backing(c.top));
    g_assert_null(layer_header(c.top));
    g_assert_true(holds(&w, c.top, w.guest.shadow));
    g_assert_false(layer_holds(c.top, 7 * MIB + 512 * KIB) && !w.guest.writes);
    world_done(&w);
}

static void test_stream_to_base(void)
{
    struct world w;
    world_init(&w);
    struct chain c = make_chain(&w);
    guest_begin(&w.guest);
    g_assert_nonnull(job_stream(w.jobs, &usual, c.top, c.base, NULL, "the-base", NULL));
    finish(&w, "j0");
    guest_end(&w);
    g_assert_true(node_backing(c.top) == c.base);
    g_assert_cmpstr(layer_header(c.top), ==, "the-base");
    g_assert_true(holds(&w, c.top, w.guest.shadow));
    world_done(&w);
}

/* Only what lies above the base is copied. */
static void test_stream_copies_no_more(void)
{
    struct world w;
    world_init(&w);
    struct chain c = make_chain(&w);
    g_assert_nonnull(job_stream(w.jobs, &usual, c.top, NULL, c.mid, NULL, NULL));
    finish(&w, "j0");
    g_assert_false(layer_holds(c.top, 0));
    g_assert_true(layer_holds(c.top, 2 * MIB));
    g_assert_true(node_backing(c.top) == c.base);
    g_assert_true(holds(&w, c.top, w.guest.shadow));
    world_done(&w);
}

static void test_stream_cancel(void)
{
    struct world w;
    struct job_common slow = usual;
    world_init(&w);
    struct chain c = make_chain(&w);
    slow.speed = MIB;
    struct job *j = job_stream(w.jobs, &slow, c.top, NULL, NULL, NULL, NULL);
    guest_begin(&w.guest);
    PUMP_UNTIL(&w, w.guest.writes > 50);
    g_assert_true(job_do(j, JOB_VERB_CANCEL, 0, false, NULL));
    finish(&w, "j0");
    guest_end(&w);
    g_assert_true(has(&w, "j0:aborting j0:concluded j0:null"));
    g_assert_true(node_backing(c.top) == c.mid);
    g_assert_true(image_node(w.guest.image) == c.top); /* the filter is gone */
    g_assert_true(holds(&w, c.top, w.guest.shadow));
    world_done(&w);
}

/* ---- commit ---- */

static void test_commit_middle(void)
{
    struct world w;
    world_init(&w);
    struct chain c = make_chain(&w);
    guest_begin(&w.guest);
    g_assert_nonnull(job_commit(w.jobs, &usual, c.top, c.mid, c.base, NULL, NULL));
    finish(&w, "j0");
    guest_end(&w);
    g_assert_true(node_backing(c.top) == c.base);
    g_assert_cmpstr(layer_header(c.top), ==, "/layers/base");
    g_assert_true(node_is_read_only(c.base));
    g_assert_cmpuint(node_size(c.base), ==, SIZE);
    g_assert_true(layer_holds(c.base, 4 * MIB + 512 * KIB));
    g_assert_true(holds(&w, c.top, w.guest.shadow));
    world_done(&w);
}

static void test_commit_active(void)
{
    struct world w;
    world_init(&w);
    struct chain c = make_chain(&w);
    guest_begin(&w.guest);
    struct job *j = job_commit(w.jobs, &usual, c.top, c.top, c.base, NULL, NULL);
    g_assert_nonnull(j);
    PUMP_UNTIL(&w, has(&w, "j0:ready"));
    g_assert_true(job_do(j, JOB_VERB_COMPLETE, 0, false, NULL));
    finish(&w, "j0");
    PUMP_UNTIL(&w, w.guest.writes > 300);
    guest_end(&w);
    g_assert_true(image_node(w.guest.image) == c.base);
    g_assert_false(node_is_read_only(c.base));
    g_assert_true(holds(&w, c.base, w.guest.shadow));
    world_done(&w);
}

static void test_commit_refused(void)
{
    struct world w;
    GError *error = NULL;
    world_init(&w);
    struct chain c = make_chain(&w);
    g_assert_null(job_commit(w.jobs, &usual, c.top, c.base, c.mid, NULL, &error));
    assert_sentence(error, "base 'mid' is not in the backing chain of 'base'");
    error = NULL;
    struct job_common slow = usual;
    slow.speed = 1;
    g_assert_nonnull(job_commit(w.jobs, &slow, c.top, c.mid, c.base, NULL, NULL));
    slow.id = "j1";
    g_assert_null(job_stream(w.jobs, &slow, c.mid, NULL, NULL, NULL, &error));
    assert_sentence(error, "node 'mid' is busy: job 'j0'");
    g_assert_cmpstr(w.log->str, ==, "j0:created j0:running ");
    world_done(&w);
}

/* ---- mirror ---- */

static struct job_copy copy_to(struct world *w, struct chain *c, enum sync_mode sync,
                               struct node **ret_target)
{
    *ret_target = layer_new(w->graph, "target", SIZE, NULL, true);
    return (
        struct job_copy){ .source = c->top, .target = *ret_target, .sync = sync, .unmap = true };
}

static void mirror_and_pivot(bool write_blocking, bool new_zero)
{
    struct world w;
    struct node *t;
    world_init(&w);
    struct chain c = make_chain(&w);
    struct job_copy copy = copy_to(&w, &c, SYNC_FULL, &t);
    copy.write_blocking = write_blocking;
    copy.target_is_new_zero = new_zero;
    if (!new_zero)
        layer_fill(t, 0, SIZE, 77);
    layer_dawdle(t, 50 * NS_PER_US);
    guest_begin(&w.guest);
    struct job *j = job_mirror(w.jobs, &usual, &copy, NULL);
    g_assert_nonnull(j);
    PUMP_UNTIL(&w, has(&w, "j0:ready"));
    uint64_t writes = w.guest.writes;
    PUMP_UNTIL(&w, w.guest.writes > writes + 200);
    g_assert_true(job_do(j, JOB_VERB_COMPLETE, 0, false, NULL));
    finish(&w, "j0");
    g_assert_true(image_node(w.guest.image) == t);
    PUMP_UNTIL(&w, w.guest.writes > writes + 400);
    guest_end(&w);
    g_assert_true(holds(&w, t, w.guest.shadow));
    g_assert_cmpuint(layer_flushes(t), >, 0);
    g_assert_true(has(&w, "j0:running j0:ready j0:waiting j0:pending j0:concluded j0:null"));
    world_done(&w);
}

static void test_mirror(void)
{
    mirror_and_pivot(false, false);
}

static void test_mirror_new_target(void)
{
    mirror_and_pivot(false, true);
}

static void test_mirror_write_blocking(void)
{
    mirror_and_pivot(true, false);
}

/* A ready mirror that is ended: the target is of that moment, the source goes on. */
static void test_mirror_split(void)
{
    struct world w;
    struct node *t;
    world_init(&w);
    struct chain c = make_chain(&w);
    struct job_copy copy = copy_to(&w, &c, SYNC_FULL, &t);
    guest_begin(&w.guest);
    struct job *j = job_mirror(w.jobs, &usual, &copy, NULL);
    PUMP_UNTIL(&w, has(&w, "j0:ready"));
    guest_end(&w);
    g_autofree uint8_t *moment = g_memdup2(w.guest.shadow, SIZE);
    g_assert_true(job_do(j, JOB_VERB_CANCEL, 0, false, NULL));
    finish(&w, "j0");
    g_assert_false(has(&w, "aborting"));
    guest_begin(&w.guest);
    PUMP_UNTIL(&w, w.guest.writes > 200);
    guest_end(&w);
    g_assert_true(image_node(w.guest.image) == c.top);
    g_assert_true(holds(&w, t, moment));
    g_assert_true(holds(&w, c.top, w.guest.shadow));
    world_done(&w);
}

static void test_mirror_cancel(void)
{
    struct world w;
    struct node *t;
    world_init(&w);
    struct chain c = make_chain(&w);
    struct job_copy copy = copy_to(&w, &c, SYNC_TOP, &t);
    struct job_common slow = usual;
    slow.speed = 2 * MIB;
    guest_begin(&w.guest);
    struct job *j = job_mirror(w.jobs, &slow, &copy, NULL);
    PUMP_UNTIL(&w, w.guest.writes > 100);
    g_assert_true(job_do(j, JOB_VERB_CANCEL, 0, true, NULL));
    finish(&w, "j0");
    guest_end(&w);
    g_assert_true(has(&w, "j0:aborting"));
    g_assert_true(image_node(w.guest.image) == c.top);
    g_assert_true(holds(&w, c.top, w.guest.shadow));
    world_done(&w);
}

/* The target fails now and then; with "ignore" the mirror goes on, and ends up whole. */
static void test_mirror_survives_errors(void)
{
    struct world w;
    struct node *t;
    world_init(&w);
    struct chain c = make_chain(&w);
    struct job_copy copy = copy_to(&w, &c, SYNC_FULL, &t);
    struct job_common patient = usual;
    patient.on_error_target = JOB_ERROR_IGNORE;
    copy.write_blocking = true;
    layer_fail_writes(t, 3, -EIO);
    guest_begin(&w.guest);
    struct job *j = job_mirror(w.jobs, &patient, &copy, NULL);
    PUMP_UNTIL(&w, has(&w, "j0:ready"));
    layer_fail_writes(t, 2, -EIO);
    uint64_t writes = w.guest.writes;
    PUMP_UNTIL(&w, w.guest.writes > writes + 100);
    g_assert_true(job_do(j, JOB_VERB_COMPLETE, 0, false, NULL));
    finish(&w, "j0");
    guest_end(&w);
    g_assert_cmpuint(w.io_errors, >, 0);
    g_assert_true(image_node(w.guest.image) == t);
    g_assert_true(holds(&w, t, w.guest.shadow));
    world_done(&w);
}

/* ---- backup ---- */

static void test_backup(void)
{
    struct world w;
    struct node *t;
    world_init(&w);
    struct chain c = make_chain(&w);
    struct job_copy copy = copy_to(&w, &c, SYNC_FULL, &t);
    copy.compress = true;
    g_autofree uint8_t *moment = g_memdup2(w.guest.shadow, SIZE);
    struct job_common slow = usual;
    slow.speed = 16 * MIB;
    g_assert_nonnull(job_backup(w.jobs, &slow, &copy, NULL));
    guest_begin(&w.guest);
    finish(&w, "j0");
    guest_end(&w);
    g_assert_cmpuint(w.guest.writes, >, 50);
    g_assert_true(holds(&w, t, moment));
    g_assert_true(holds(&w, c.top, w.guest.shadow));
    g_assert_true(image_node(w.guest.image) == c.top);
    world_done(&w);
}

static void test_backup_top(void)
{
    struct world w;
    struct node *t;
    world_init(&w);
    struct chain c = make_chain(&w);
    struct job_copy copy = copy_to(&w, &c, SYNC_TOP, &t);
    g_assert_nonnull(job_backup(w.jobs, &usual, &copy, NULL));
    finish(&w, "j0");
    g_assert_true(layer_holds(t, 3 * MIB + 4096));
    g_assert_false(layer_holds(t, 0));
    g_assert_false(layer_holds(t, 2 * MIB));
    world_done(&w);
}

/* sync=none: only what is overwritten is kept; with the source below the target shows the
 * moment. */
static void test_backup_none(void)
{
    struct world w;
    struct node *t;
    world_init(&w);
    struct chain c = make_chain(&w);
    struct job_copy copy = copy_to(&w, &c, SYNC_NONE, &t);
    g_autofree uint8_t *moment = g_memdup2(w.guest.shadow, SIZE);
    struct job *j = job_backup(w.jobs, &usual, &copy, NULL);
    guest_begin(&w.guest);
    PUMP_UNTIL(&w, w.guest.writes > 30);
    guest_end(&w);
    g_autofree uint8_t *now = g_malloc(SIZE);
    struct compare got = { .a = t, .bytes = now };
    context_run(w.ctx, take_shadow, &got);
    for (uint64_t at = 0; at < SIZE; at += LAYER_CLUSTER) {
        uint64_t len = MIN(LAYER_CLUSTER, SIZE - at);
        g_assert_cmpint(
            memcmp(moment + at, layer_holds(t, at) ? now + at : w.guest.shadow + at, len), ==, 0);
    }
    g_assert_true(job_do(j, JOB_VERB_CANCEL, 0, false, NULL));
    finish(&w, "j0");
    world_done(&w);
}

static struct dirty_bitmap *add_bitmap(struct node *n)
{
    g_autoptr(GError) error = NULL;
    struct dirty_bitmap *b = dirty_new(n, 0, "b0", LAYER_CLUSTER, &error);
    g_assert_no_error(error);
    return b;
}

/* Full, then incremental into the same target: it is the second moment. */
static void test_backup_incremental(void)
{
    struct world w;
    struct node *t;
    world_init(&w);
    struct chain c = make_chain(&w);
    struct job_copy copy = copy_to(&w, &c, SYNC_FULL, &t);
    copy.bitmap = add_bitmap(c.top);
    g_assert_nonnull(job_backup(w.jobs, &usual, &copy, NULL));
    finish(&w, "j0");
    guest_begin(&w.guest);
    PUMP_UNTIL(&w, w.guest.writes > 20);
    guest_end(&w);
    uint64_t dirty = dirty_bytes(copy.bitmap);
    g_assert_cmpuint(dirty, >, 0);
    g_autofree uint8_t *moment = g_memdup2(w.guest.shadow, SIZE);
    g_string_truncate(w.log, 0);
    copy.sync = SYNC_INCREMENTAL;
    struct job *j = job_backup(w.jobs, &usual, &copy, NULL);
    g_assert_nonnull(j);
    guest_begin(&w.guest);
    struct job_info info;
    for (job_get_info(j, &info); !info.done; job_get_info(j, &info))
        loop_once(w.loop, 10);
    g_assert_cmpuint(info.total, <=, align_up(dirty, LAYER_CLUSTER));
    finish(&w, "j0");
    guest_end(&w);
    g_assert_true(holds(&w, t, moment));
    g_assert_false(copy.bitmap->busy);
    world_done(&w);
}

/* What a failed backup leaves in the bitmap. */
static void failing_backup(enum bitmap_mode mode, bool expect_all)
{
    struct world w;
    struct node *t;
    world_init(&w);
    struct chain c = make_chain(&w);
    struct job_copy copy = copy_to(&w, &c, SYNC_BITMAP, &t);
    copy.bitmap = add_bitmap(c.top);
    copy.bitmap_mode = mode;
    copy.max_workers = 1;
    copy.max_chunk = LAYER_CLUSTER;
    dirty_set(copy.bitmap, 0, MIB);
    struct job_common keep = usual;
    keep.auto_dismiss = false;
    keep.speed = 256 * KIB;
    struct job *j = job_backup(w.jobs, &keep, &copy, NULL);
    struct job_info info;
    for (job_get_info(j, &info); info.done < 128 * KIB; job_get_info(j, &info))
        loop_once(w.loop, 10);
    layer_fail_writes(t, 1, -EIO);
    g_assert_true(job_do(j, JOB_VERB_SET_SPEED, 0, false, NULL));
    PUMP_UNTIL(&w, has(&w, "concluded"));
    job_get_info(j, &info);
    g_assert_cmpstr(info.error, ==, g_strerror(EIO));
    if (expect_all)
        g_assert_cmpuint(dirty_bytes(copy.bitmap), ==, MIB);
    else
        g_assert_cmpuint(dirty_bytes(copy.bitmap), ==, MIB - info.done);
    g_assert_true(job_do(j, JOB_VERB_DISMISS, 0, false, NULL));
    g_assert_null(job_find(w.jobs, "j0"));
    world_done(&w);
}

static void test_backup_failure_and_bitmaps(void)
{
    failing_backup(BITMAP_ON_SUCCESS, true);
    failing_backup(BITMAP_ALWAYS, false);
    failing_backup(BITMAP_NEVER, true);
}

/* The guest does not notice a target that breaks; the backup does. */
static void test_backup_broken_target(void)
{
    struct world w;
    struct node *t;
    world_init(&w);
    struct chain c = make_chain(&w);
    struct job_copy copy = copy_to(&w, &c, SYNC_NONE, &t);
    struct job_common keep = usual;
    keep.auto_dismiss = false;
    struct job *j = job_backup(w.jobs, &keep, &copy, NULL);
    layer_fail_writes(t, 1000, -ENOSPC);
    guest_begin(&w.guest);
    PUMP_UNTIL(&w, has(&w, "concluded"));
    guest_end(&w);
    struct job_info info;
    job_get_info(j, &info);
    g_assert_nonnull(strstr(info.error, "the target 'target' could not take"));
    g_assert_true(holds(&w, c.top, w.guest.shadow));
    world_done(&w);
}

/* ---- policies, states, commands ---- */

static void test_full_disk_stops_the_job(void)
{
    struct world w;
    struct node *t;
    world_init(&w);
    struct chain c = make_chain(&w);
    struct job_copy copy = copy_to(&w, &c, SYNC_FULL, &t);
    struct job_common careful = usual;
    careful.on_error_target = JOB_ERROR_ENOSPC;
    layer_fail_writes(t, 1, -ENOSPC);
    struct job *j = job_backup(w.jobs, &careful, &copy, NULL);
    PUMP_UNTIL(&w, has(&w, "j0:paused"));
    struct job_info info;
    job_get_info(j, &info);
    g_assert_true(info.failed_io && info.no_space && info.paused);
    g_assert_cmpuint(w.io_errors, ==, 1);
    g_assert_true(job_do(j, JOB_VERB_RESUME, 0, false, NULL));
    finish(&w, "j0");
    g_assert_true(holds(&w, t, w.guest.shadow));
    world_done(&w);
}

static void test_pause_speed_and_verbs(void)
{
    struct world w;
    struct node *t;
    struct job_info info;
    GError *error = NULL;
    world_init(&w);
    struct chain c = make_chain(&w);
    struct job_copy copy = copy_to(&w, &c, SYNC_FULL, &t);
    struct job_common slow = usual;
    slow.speed = 1; /* the first chunk goes at once */
    slow.auto_finalize = slow.auto_dismiss = false;
    struct job *j = job_backup(w.jobs, &slow, &copy, NULL);
    g_assert_false(job_do(j, JOB_VERB_RESUME, 0, false, &error));
    assert_sentence(error, "job 'j0' is not paused");
    error = NULL;
    g_assert_false(job_do(j, JOB_VERB_COMPLETE, 0, false, &error));
    assert_sentence(error, "job 'j0' is in state 'running'; it cannot be completed now");
    g_assert_true(job_do(j, JOB_VERB_PAUSE, 0, false, NULL));
    PUMP_UNTIL(&w, has(&w, "j0:paused"));
    job_get_info(j, &info);
    g_assert_true(info.paused && !info.busy);
    g_assert_true(job_do(j, JOB_VERB_SET_SPEED, 0, false, NULL));
    g_assert_true(job_do(j, JOB_VERB_RESUME, 0, false, NULL));
    PUMP_UNTIL(&w, has(&w, "j0:pending"));
    job_get_info(j, &info);
    g_assert_cmpuint(info.done, ==, info.total);
    g_assert_true(job_do(j, JOB_VERB_FINALIZE, 0, false, NULL));
    g_assert_true(has(&w, "j0:running j0:waiting j0:pending j0:concluded "));
    g_assert_true(job_do(j, JOB_VERB_DISMISS, 0, false, NULL));
    world_done(&w);
}

static void test_ids(void)
{
    struct world w;
    GError *error = NULL;
    struct job_common common = usual;
    world_init(&w);
    struct chain c = make_chain(&w);
    common.id = NULL;
    g_assert_null(job_stream(w.jobs, &common, c.top, NULL, NULL, NULL, &error));
    assert_sentence(error, "a job needs an id");
    error = NULL;
    common.id = "1x";
    g_assert_null(job_stream(w.jobs, &common, c.top, NULL, NULL, NULL, &error));
    assert_sentence(error, "'1x' cannot be a job's id");
    error = NULL;
    common.id = "j0";
    common.speed = 1;
    g_assert_nonnull(job_stream(w.jobs, &common, c.top, NULL, NULL, NULL, NULL));
    g_assert_null(job_stream(w.jobs, &common, c.base, NULL, NULL, NULL, &error));
    assert_sentence(error, "the job id 'j0' is in use");
    world_done(&w); /* cancels it */
}

/* ---- transactions ---- */

struct pair {
    struct node *source[2], *target[2];
    struct job *job[2];
};

static void begin_pair(struct world *w, struct pair *p, bool auto_finalize)
{
    struct job_transaction *txn = job_transaction_new();
    for (int i = 0; i < 2; i++) {
        g_autofree char *source = g_strdup_printf("s%d", i), *target = g_strdup_printf("t%d", i),
                        *id = g_strdup_printf("j%d", i);
        p->source[i] = layer_new(w->graph, source, MIB, NULL, true);
        p->target[i] = layer_new(w->graph, target, MIB, NULL, true);
        layer_fill(p->source[i], 0, MIB, (uint8_t)i);
        struct job_copy copy = { .source = p->source[i],
                                 .target = p->target[i],
                                 .max_chunk = LAYER_CLUSTER };
        struct job_common common = {
            .id = id, .auto_finalize = auto_finalize, .txn = txn, .hold = true
        };
        p->job[i] = job_backup(w->jobs, &common, &copy, NULL);
        g_assert_nonnull(p->job[i]);
    }
    job_transaction_put(txn);
}

static void test_transaction(void)
{
    struct world w;
    struct pair p;
    world_init(&w);
    begin_pair(&w, &p, false);
    g_assert_cmpstr(w.log->str, ==, "j0:created j1:created ");
    job_start(p.job[0]);
    PUMP_UNTIL(&w, has(&w, "j0:waiting"));
    g_assert_false(has(&w, "pending"));
    job_start(p.job[1]);
    PUMP_UNTIL(&w, has(&w, "j0:pending") && has(&w, "j1:pending"));
    g_assert_true(job_do(p.job[1], JOB_VERB_FINALIZE, 0, false, NULL));
    g_assert_true(has(&w, "j0:concluded") && has(&w, "j1:concluded"));
    g_assert_false(has(&w, "aborting"));
    world_done(&w);
}

static void test_transaction_fails_together(void)
{
    struct world w;
    struct pair p;
    struct job_info info;
    world_init(&w);
    begin_pair(&w, &p, true);
    layer_fail_writes(p.target[1], 1, -EIO);
    job_start(p.job[0]);
    job_start(p.job[1]);
    PUMP_UNTIL(&w, has(&w, "j0:concluded") && has(&w, "j1:concluded"));
    g_assert_true(has(&w, "j0:aborting") && has(&w, "j1:aborting"));
    job_get_info(p.job[0], &info);
    g_assert_true(info.cancelled && !info.error);
    job_get_info(p.job[1], &info);
    g_assert_true(!info.cancelled && info.error);
    world_done(&w);
}

static void test_dropped(void)
{
    struct world w;
    struct pair p;
    world_init(&w);
    begin_pair(&w, &p, true);
    job_drop(p.job[0]);
    job_drop(p.job[1]);
    g_assert_null(job_find(w.jobs, "j0"));
    g_assert_null(job_find(w.jobs, "j1"));
    g_assert_null(node_blocked_by(p.source[0]));
    world_done(&w);
}

/* ---- without a loop, as a tool ---- */

static void test_tool(void)
{
    g_autoptr(GError) error = NULL;
    struct context *ctx = context_new(&error);
    struct graph *g = graph_new(ctx);
    struct job_set *jobs = job_set_new(NULL, NULL);
    struct node *base = layer_new(g, "base", MIB, NULL, false),
                *top = layer_new(g, "top", MIB, "base", true);
    layer_fill(base, 0, MIB, 1);
    struct job *j = job_stream(jobs, &usual, top, NULL, NULL, NULL, &error);
    g_assert_true(job_wait(j, &error));
    g_assert_null(node_backing(top));
    g_assert_true(layer_holds(top, MIB - 1));
    layer_fail_reads(top, 100, -EIO);
    struct node *t = layer_new(g, "t", MIB, NULL, true);
    struct job_copy copy = { .source = top, .target = t };
    j = job_backup(jobs, &usual, &copy, NULL);
    g_assert_false(job_wait(j, &error));
    g_assert_cmpstr(error->message, ==, g_strerror(EIO));
    job_set_free(jobs);
    graph_free(g);
    context_free(ctx);
}

/* ---- filters by name ---- */

static struct node *open_filter(struct world *w, const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonObject) o = option_parse_text(text, "driver", &error);
    struct node *n = node_open(w->graph, o, NODE_RW, &error);
    g_assert_no_error(error);
    return n;
}

static void test_copy_on_read(void)
{
    struct world w;
    uint8_t byte;
    world_init(&w);
    struct node *base = layer_new(w.graph, "base", SIZE, NULL, false);
    struct node *top = layer_new(w.graph, "top", SIZE, "base", true);
    layer_fill(base, 0, SIZE, 3);
    struct node *f = open_filter(&w, "copy-on-read,node-name=cor,file=top");
    struct iovec iov = { &byte, 1 };
    struct image *i = image_new("disk", f, NULL);
    image_set_loop(i, w.loop);
    uint8_t sector[512];
    iov = (struct iovec){ sector, 512 };
    int result = image_read_sync(i, 5 * LAYER_CLUSTER + 512, sector, 512);
    g_assert_cmpint(result, ==, 0);
    g_assert_true(layer_holds(top, 5 * LAYER_CLUSTER));
    g_assert_false(layer_holds(top, 4 * LAYER_CLUSTER));
    g_assert_false(layer_holds(top, 6 * LAYER_CLUSTER));
    g_assert_cmpuint(((uint8_t *)iov.iov_base)[0], ==,
                     (uint8_t)(3 + (5 * LAYER_CLUSTER / 512 + 1) * 7));
    image_close(i);
    node_unref(f);
    world_done(&w);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/job/stream", test_stream);
    g_test_add_func("/job/stream-to-base", test_stream_to_base);
    g_test_add_func("/job/stream-copies-no-more", test_stream_copies_no_more);
    g_test_add_func("/job/stream-cancel", test_stream_cancel);
    g_test_add_func("/job/commit-middle", test_commit_middle);
    g_test_add_func("/job/commit-active", test_commit_active);
    g_test_add_func("/job/commit-refused", test_commit_refused);
    g_test_add_func("/job/mirror", test_mirror);
    g_test_add_func("/job/mirror-new-target", test_mirror_new_target);
    g_test_add_func("/job/mirror-write-blocking", test_mirror_write_blocking);
    g_test_add_func("/job/mirror-split", test_mirror_split);
    g_test_add_func("/job/mirror-cancel", test_mirror_cancel);
    g_test_add_func("/job/mirror-survives-errors", test_mirror_survives_errors);
    g_test_add_func("/job/backup", test_backup);
    g_test_add_func("/job/backup-top", test_backup_top);
    g_test_add_func("/job/backup-none", test_backup_none);
    g_test_add_func("/job/backup-incremental", test_backup_incremental);
    g_test_add_func("/job/backup-failure-and-bitmaps", test_backup_failure_and_bitmaps);
    g_test_add_func("/job/backup-broken-target", test_backup_broken_target);
    g_test_add_func("/job/full-disk-stops-the-job", test_full_disk_stops_the_job);
    g_test_add_func("/job/pause-speed-and-verbs", test_pause_speed_and_verbs);
    g_test_add_func("/job/ids", test_ids);
    g_test_add_func("/job/transaction", test_transaction);
    g_test_add_func("/job/transaction-fails-together", test_transaction_fails_together);
    g_test_add_func("/job/dropped", test_dropped);
    g_test_add_func("/job/tool", test_tool);
    g_test_add_func("/job/copy-on-read", test_copy_on_read);
    return g_test_run();
}
