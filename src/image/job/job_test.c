/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The states of jobs, commands on them, transactions, and filters by name. */
#include "image/driver.h"
#include "image/job/world.h"
#include "image/throttle.h"

#include <errno.h>
#include <string.h>

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
    g_assert_null(job_stream(w.jobs, &common, c.top, NULL, NULL, NULL, NULL, &error));
    assert_sentence(error, "a job needs an id");
    error = NULL;
    common.id = "1x";
    g_assert_null(job_stream(w.jobs, &common, c.top, NULL, NULL, NULL, NULL, &error));
    assert_sentence(error, "'1x' cannot be a job's id");
    error = NULL;
    common.id = "j0";
    common.speed = 1;
    g_assert_nonnull(job_stream(w.jobs, &common, c.top, NULL, NULL, NULL, NULL, NULL));
    g_assert_null(job_stream(w.jobs, &common, c.base, NULL, NULL, NULL, NULL, &error));
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
    struct job *j = job_stream(jobs, &usual, top, NULL, NULL, NULL, NULL, &error);
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

struct write_call {
    struct node *node;
    uint64_t off;
    unsigned count;
};

static int write_sectors(void *opaque)
{
    const struct write_call *c = opaque;
    static const uint8_t sector[512] = { 0xa5 };
    for (unsigned i = 0; i < c->count; i++) {
        int err = node_pwrite(c->node, c->off + i * 512, sector, sizeof(sector), 0);
        if (err < 0)
            return err;
    }
    return 0;
}

static void test_throttle(void)
{
    struct world w;
    GError *error = NULL;
    world_init(&w);
    layer_new(w.graph, "disk", MIB, NULL, true);
    g_autoptr(JsonObject) o =
        option_parse_text("driver=throttle,file=disk,throttle-group=g0", NULL, NULL);
    g_assert_null(node_open(w.graph, o, NODE_RW, &error));
    assert_sentence(error, "there is no throttle group 'g0'");
    struct throttle_group *g = throttle_group_get("g0");
    throttle_group_set(
        g, &(struct throttle_limits){ .of[THROTTLE_OPS_WRITE] = { .avg = 100, .length = 1 } });
    struct node *f = open_filter(&w, "throttle,file=disk,throttle-group=g0");
    throttle_group_put(g);
    struct write_call c = { .node = f, .count = 31 };
    int64_t begin = loop_now_ns();
    g_assert_cmpint(context_run(w.ctx, write_sectors, &c), ==, 0);
    g_assert_cmpint(loop_now_ns() - begin, >, 150 * NS_PER_MS); /* 11 at once, 20 at 100 a second */
    node_unref(f);
    world_done(&w);
}

/* What is overwritten is on the target; a target that fails makes the guest's write fail, as asked. */
static void test_copy_before_write(void)
{
    struct world w;
    world_init(&w);
    struct node *disk = layer_new(w.graph, "disk", MIB, NULL, true);
    struct node *target = layer_new(w.graph, "target", MIB, NULL, true);
    layer_fill(disk, 0, MIB, 9);
    struct node *f = open_filter(&w, "copy-before-write,file=disk,target=target");
    struct write_call c = { .node = f, .off = 3 * LAYER_CLUSTER + 512, .count = 2 };
    g_assert_cmpint(context_run(w.ctx, write_sectors, &c), ==, 0);
    g_assert_true(layer_holds(target, 3 * LAYER_CLUSTER));
    g_assert_false(layer_holds(target, 2 * LAYER_CLUSTER));
    layer_fail_writes(target, 1, -ENOSPC);
    c.off = 0;
    g_assert_cmpint(context_run(w.ctx, write_sectors, &c), ==, -ENOSPC);
    g_assert_cmpint(context_run(w.ctx, write_sectors, &c), ==, 0);
    g_assert_true(layer_holds(target, 0));
    node_unref(f);
    world_done(&w);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add_chain_tests();
    add_make_tests();
    add_mirror_tests();
    add_backup_tests();
    g_test_add_func("/job/full-disk-stops-the-job", test_full_disk_stops_the_job);
    g_test_add_func("/job/pause-speed-and-verbs", test_pause_speed_and_verbs);
    g_test_add_func("/job/ids", test_ids);
    g_test_add_func("/job/transaction", test_transaction);
    g_test_add_func("/job/transaction-fails-together", test_transaction_fails_together);
    g_test_add_func("/job/dropped", test_dropped);
    g_test_add_func("/job/tool", test_tool);
    g_test_add_func("/job/copy-on-read", test_copy_on_read);
    g_test_add_func("/job/throttle", test_throttle);
    g_test_add_func("/job/copy-before-write", test_copy_before_write);
    return g_test_run();
}
