/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Mirrors of a disk that a guest writes to. */
#include "image/job/world.h"

#include <errno.h>

/* ---- mirror ---- */

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

void add_mirror_tests(void)
{
    g_test_add_func("/job/mirror", test_mirror);
    g_test_add_func("/job/mirror-new-target", test_mirror_new_target);
    g_test_add_func("/job/mirror-write-blocking", test_mirror_write_blocking);
    g_test_add_func("/job/mirror-split", test_mirror_split);
    g_test_add_func("/job/mirror-cancel", test_mirror_cancel);
    g_test_add_func("/job/mirror-survives-errors", test_mirror_survives_errors);
}
