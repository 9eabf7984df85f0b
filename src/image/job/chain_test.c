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

void add_chain_tests(void)
{
    g_test_add_func("/job/stream", test_stream);
    g_test_add_func("/job/stream-to-base", test_stream_to_base);
    g_test_add_func("/job/stream-copies-no-more", test_stream_copies_no_more);
    g_test_add_func("/job/stream-cancel", test_stream_cancel);
    g_test_add_func("/job/commit-middle", test_commit_middle);
    g_test_add_func("/job/commit-active", test_commit_active);
    g_test_add_func("/job/commit-refused", test_commit_refused);
}
