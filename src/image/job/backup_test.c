/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Backups of one moment while a guest writes, and what they leave in bitmaps. */
#include "image/job/world.h"

#include "image/dirty.h"

#include <errno.h>
#include <string.h>

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

void add_backup_tests(void)
{
    g_test_add_func("/job/backup", test_backup);
    g_test_add_func("/job/backup-top", test_backup_top);
    g_test_add_func("/job/backup-none", test_backup_none);
    g_test_add_func("/job/backup-incremental", test_backup_incremental);
    g_test_add_func("/job/backup-failure-and-bitmaps", test_backup_failure_and_bitmaps);
    g_test_add_func("/job/backup-broken-target", test_backup_broken_target);
}
