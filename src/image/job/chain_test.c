/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stream and commit while a guest writes. */
#include "image/job/world.h"

/* ---- stream ---- */

static void test_stream(void)
{
    struct world w;
    world_init(&w);
    struct chain c = make_chain(&w);
    guest_begin(&w.guest);
    g_assert_nonnull(job_stream(w.jobs, &usual, c.top, NULL, NULL, NULL, NULL, NULL));
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
    g_assert_nonnull(job_stream(w.jobs, &usual, c.top, c.base, NULL, "the-base", NULL, NULL));
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
    g_assert_nonnull(job_stream(w.jobs, &usual, c.top, NULL, c.mid, NULL, NULL, NULL));
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
    struct job *j = job_stream(w.jobs, &slow, c.top, NULL, NULL, NULL, NULL, NULL);
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
    g_assert_nonnull(job_commit(w.jobs, &usual, c.top, c.mid, c.base, NULL, NULL, NULL));
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

/* An overlay that lies below the guest's image was opened for reading, and gets another header. */
static void test_commit_below(void)
{
    struct world w;
    world_init(&w);
    struct node *base = layer_new(w.graph, "base", MIB, NULL, false),
                *low = layer_new(w.graph, "low", MIB, "base", false),
                *mid = layer_new(w.graph, "mid", MIB, "low", false),
                *top = layer_new(w.graph, "top", MIB, "mid", true);
    layer_fill(low, 0, 4 * KIB, 7);
    g_assert_nonnull(job_commit(w.jobs, &usual, top, low, base, NULL, NULL, NULL));
    finish(&w, "j0");
    g_assert_true(node_backing(mid) == base);
    g_assert_cmpstr(layer_header(mid), ==, "/layers/base");
    g_assert_true(layer_holds(base, 0));
    g_assert_true(node_is_read_only(mid) && node_is_read_only(base));
    world_done(&w);
}

static void test_commit_active(void)
{
    struct world w;
    world_init(&w);
    struct chain c = make_chain(&w);
    guest_begin(&w.guest);
    struct job *j = job_commit(w.jobs, &usual, c.top, c.top, c.base, NULL, NULL, NULL);
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
    g_assert_null(job_commit(w.jobs, &usual, c.top, c.base, c.mid, NULL, NULL, &error));
    assert_sentence(error, "base 'mid' is not in the backing chain of 'base'");
    error = NULL;
    struct job_common slow = usual;
    slow.speed = 1;
    g_assert_nonnull(job_commit(w.jobs, &slow, c.top, c.mid, c.base, NULL, NULL, NULL));
    slow.id = "j1";
    g_assert_null(job_stream(w.jobs, &slow, c.mid, NULL, NULL, NULL, NULL, &error));
    assert_sentence(error, "node 'mid' is busy: job 'j0'");
    g_assert_cmpstr(w.log->str, ==, "j0:created j0:running ");
    world_done(&w);
}

/* ---- a transaction of which one cannot be prepared ---- */

static struct chain plain_chain(struct world *w, const char *prefix)
{
    g_autofree char *base = g_strconcat(prefix, "-base", NULL),
                    *mid = g_strconcat(prefix, "-mid", NULL),
                    *top = g_strconcat(prefix, "-top", NULL);
    struct chain c = {.base = layer_new(w->graph, base, MIB, NULL, false)};
    c.mid = layer_new(w->graph, mid, MIB, base, false);
    c.top = layer_new(w->graph, top, MIB, mid, true);
    layer_fill(c.base, 0, MIB, 1);
    layer_fill(c.mid, 0, MIB / 2, 2);
    return c;
}

/* Four jobs that end together: a stream, a commit, a mirror under a busy guest, and one that fails
 * at the last moment, before or after the others were prepared. */
static void end_together(bool fails_first)
{
    struct world w;
    struct job *j[4] = {NULL};
    struct node *target;
    struct job_info info;
    world_init(&w);
    struct chain c = make_chain(&w), s = plain_chain(&w, "s"), m = plain_chain(&w, "m"),
                 f = plain_chain(&w, "f");
    struct job_copy copy = copy_to(&w, &c, SYNC_FULL, &target);
    struct job_transaction *txn = job_transaction_new();
    struct job_common common = {.auto_finalize = true, .txn = txn, .hold = true};
    layer_keep_header(f.top);
    for (int i = 0; i < 4; i++) { /* the last made is the first prepared */
        static const char *const ids[] = {"j0", "j1", "j2", "j3"};
        common.id = ids[i];
        if (i == (fails_first ? 3 : 0))
            j[i] = job_stream(w.jobs, &common, f.top, NULL, NULL, NULL, NULL, NULL);
        else if (i == (fails_first ? 0 : 3))
            j[i] = job_stream(w.jobs, &common, s.top, NULL, NULL, NULL, NULL, NULL);
        else if (i == 1)
            j[i] = job_commit(w.jobs, &common, m.top, m.mid, m.base, NULL, "over-mid", NULL);
        else
            j[i] = job_mirror(w.jobs, &common, &copy, NULL);
        g_assert_nonnull(j[i]);
    }
    job_transaction_put(txn);
    guest_begin(&w.guest);
    for (int i = 0; i < 4; i++)
        job_start(j[i]);
    PUMP_UNTIL(&w, has(&w, "j2:ready"));
    g_assert_true(job_do(j[2], JOB_VERB_COMPLETE, 0, false, NULL));
    PUMP_UNTIL(&w, has(&w, "j2:concluded"));
    job_get_info(j[fails_first ? 3 : 0], &info);
    g_assert_cmpstr(info.error, ==, "the header of '/layers/f-top' cannot be written");
    for (int i = 0; i < 4; i++) {
        job_get_info(j[i], &info);
        g_assert_cmpint(info.status, ==, JOB_CONCLUDED);
        g_assert_true(info.cancelled == (i != (fails_first ? 3 : 0)));
    }
    uint64_t writes = w.guest.writes;
    PUMP_UNTIL(&w, w.guest.writes > writes + 50);
    guest_end(&w);
    g_assert_true(node_backing(s.top) == s.mid && node_backing(f.top) == f.mid);
    g_assert_true(node_backing(m.top) == m.mid);
    g_assert_cmpstr(layer_header(s.top), ==, "/layers/s-mid");
    g_assert_cmpstr(layer_header(m.top), ==, "/layers/m-mid");
    g_assert_true(image_node(w.guest.image) == c.top);
    g_assert_true(holds(&w, c.top, w.guest.shadow));
    g_assert_null(graph_find(w.graph, "over-mid"));
    world_done(&w);
}

static void test_abort_undoes(void)
{
    end_together(false);
}

static void test_abort_before(void)
{
    end_together(true);
}

static void set_loop(void *opaque)
{
    struct world *w = opaque;
    g_assert_cmpint(image_set_loop(w->guest.image, w->far), ==, 0);
}

static void begin_far(void *opaque)
{
    guest_begin(opaque);
}

/* The guest is on a thread of its own, and goes on while a job is prepared that fails slowly: nothing that it writes
 * is lost with the mirror's target, which had taken the disk's place. */
static void test_abort_under_guest(void)
{
    struct world w;
    struct node *target;
    world_init(&w);
    struct chain c = make_chain(&w), f = plain_chain(&w, "f");
    struct job_copy copy = copy_to(&w, &c, SYNC_FULL, &target);
    struct job_transaction *txn = job_transaction_new();
    struct job_common common = { .id = "j0", .auto_finalize = true, .txn = txn, .hold = true };
    w.far = loop_new("far");
    g_assert_cmpint(loop_thread_start(w.far), ==, 0);
    struct context *far = context_get(w.far);
    loop_call(w.far, set_loop, &w);
    layer_keep_header(f.top);
    struct job *failing = job_stream(w.jobs, &common, f.top, NULL, NULL, NULL, NULL, NULL);
    common.id = "j1";
    struct job *mirror = job_mirror(w.jobs, &common, &copy, NULL);
    g_assert_true(failing && mirror);
    job_transaction_put(txn);
    loop_call(w.far, begin_far, &w.guest);
    job_start(failing);
    job_start(mirror);
    PUMP_UNTIL(&w, has(&w, "j1:ready") && has(&w, "j0:waiting"));
    layer_dawdle(f.top, 100 * NS_PER_MS);
    g_assert_true(job_do(mirror, JOB_VERB_COMPLETE, 0, false, NULL));
    PUMP_UNTIL(&w, has(&w, "j1:concluded"));
    guest_end(&w);
    g_assert_true(image_node(w.guest.image) == c.top);
    g_assert_true(holds(&w, c.top, w.guest.shadow));
    loop_thread_join(w.far);
    world_done(&w);
    context_put(far);
    loop_free(w.far);
}

/* A mirror whose target was to take the place of another node than its source gives that place back. */
static void test_abort_replaces(void)
{
    struct world w;
    struct node *target;
    world_init(&w);
    struct chain c = make_chain(&w), f = plain_chain(&w, "f");
    struct node *place = layer_new(w.graph, "place", SIZE, NULL, true);
    struct image *user = image_new("user", place, NULL);
    struct job_copy copy = copy_to(&w, &c, SYNC_FULL, &target);
    struct job_transaction *txn = job_transaction_new();
    struct job_common common = { .id = "j0", .auto_finalize = true, .txn = txn, .hold = true };
    layer_keep_header(f.top);
    struct job *failing = job_stream(w.jobs, &common, f.top, NULL, NULL, NULL, NULL, NULL);
    common.id = "j1";
    copy.replaces = "place";
    struct job *mirror = job_mirror(w.jobs, &common, &copy, NULL);
    job_transaction_put(txn);
    job_start(failing);
    job_start(mirror);
    PUMP_UNTIL(&w, has(&w, "j1:ready"));
    g_assert_true(job_do(mirror, JOB_VERB_COMPLETE, 0, false, NULL));
    PUMP_UNTIL(&w, has(&w, "j1:concluded"));
    g_assert_true(image_node(user) == place);
    g_assert_true(image_node(w.guest.image) == c.top);
    image_close(user);
    world_done(&w);
}

/* ---- filters with names of the user's ---- */

static void test_filter_names(void)
{
    struct world w;
    GError *error = NULL;
    struct job_common slow = usual;
    world_init(&w);
    struct chain c = make_chain(&w);
    slow.speed = 1;
    g_assert_null(job_stream(w.jobs, &slow, c.top, NULL, NULL, NULL, "mid", &error));
    assert_sentence(error, "the node-name 'mid' is taken");
    g_assert_nonnull(job_stream(w.jobs, &slow, c.top, NULL, NULL, NULL, "named", NULL));
    g_assert_true(image_node(w.guest.image) == graph_find(w.graph, "named"));
    job_do(job_find(w.jobs, "j0"), JOB_VERB_CANCEL, 0, true, NULL);
    finish(&w, "j0");
    g_assert_null(graph_find(w.graph, "named"));
    slow.id = "j1";
    g_assert_nonnull(job_commit(w.jobs, &slow, c.top, NULL, c.base, NULL, "active", NULL));
    g_assert_true(image_node(w.guest.image) == graph_find(w.graph, "active"));
    job_do(job_find(w.jobs, "j1"), JOB_VERB_CANCEL, 0, true, NULL);
    finish(&w, "j1");
    slow.id = "j2";
    g_assert_nonnull(job_commit(w.jobs, &slow, c.top, c.mid, c.base, NULL, "middle", NULL));
    g_assert_true(node_backing(c.top) == graph_find(w.graph, "middle"));
    guest_begin(&w.guest);
    g_assert_true(job_do(job_find(w.jobs, "j2"), JOB_VERB_SET_SPEED, 0, false, NULL));
    finish(&w, "j2");
    guest_end(&w);
    g_assert_null(graph_find(w.graph, "middle"));
    g_assert_true(node_backing(c.top) == c.base);
    g_assert_true(holds(&w, c.top, w.guest.shadow));
    world_done(&w);
}

void add_chain_tests(void)
{
    g_test_add_func("/job/stream", test_stream);
    g_test_add_func("/job/stream-to-base", test_stream_to_base);
    g_test_add_func("/job/stream-copies-no-more", test_stream_copies_no_more);
    g_test_add_func("/job/stream-cancel", test_stream_cancel);
    g_test_add_func("/job/commit-middle", test_commit_middle);
    g_test_add_func("/job/commit-below", test_commit_below);
    g_test_add_func("/job/commit-active", test_commit_active);
    g_test_add_func("/job/commit-refused", test_commit_refused);
    g_test_add_func("/job/abort-undoes", test_abort_undoes);
    g_test_add_func("/job/abort-before", test_abort_before);
    g_test_add_func("/job/abort-under-guest", test_abort_under_guest);
    g_test_add_func("/job/abort-replaces", test_abort_replaces);
    g_test_add_func("/job/filter-names", test_filter_names);
}
