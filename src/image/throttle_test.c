/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/throttle.h"

#include "base/error.h"

#include <errno.h>
#include <string.h>

struct bench {
    struct context *ctx;
    struct throttle_member member[2];
    unsigned members, passed[2], started;
    uint64_t bytes; /* of one request */
    int64_t first_ns, last_ns;
    int64_t timeout_ns;
    unsigned want;                   /* how many shall have passed in the end */
    void (*midway)(struct bench *b); /* after `midway_at` have passed */
    unsigned midway_at, most_apart;
};

struct request {
    struct bench *bench;
    unsigned member;
    bool write;
};

static unsigned all_passed(const struct bench *b)
{
    return b->passed[0] + b->passed[1];
}

static void one_request(void *opaque)
{
    struct request r = *(struct request *)opaque;
    struct bench *b = r.bench;
    throttle_pass(&b->member[r.member], r.write, b->bytes);
    b->passed[r.member]++;
    b->last_ns = loop_now_ns();
    unsigned apart =
        b->passed[0] > b->passed[1] ? b->passed[0] - b->passed[1] : b->passed[1] - b->passed[0];
    b->most_apart = MAX(b->most_apart, apart);
    if (b->midway && all_passed(b) == b->midway_at)
        b->midway(b);
}

static int run_requests(void *opaque)
{
    struct bench *b = opaque;
    b->first_ns = loop_now_ns();
    for (unsigned i = 0; i < b->started; i++) {
        struct request r = {.bench = b, .member = i % b->members, .write = true};
        fiber_start(one_request, &r);
    }
    while (all_passed(b) < b->want && loop_now_ns() - b->first_ns < b->timeout_ns)
        context_sleep_ns(b->ctx, NS_PER_MS);
    return 0;
}

/* The seconds that `count` requests took. */
static double take(struct bench *b, const struct throttle_limits *l, unsigned count)
{
    struct throttle_group *g = throttle_group_get(NULL);
    b->ctx = context_new(NULL);
    b->started = count;
    b->want = b->want ? b->want : count;
    b->members = b->members ? b->members : 1;
    b->timeout_ns = 10 * NS_PER_SEC;
    throttle_group_set(g, l);
    for (unsigned i = 0; i < b->members; i++)
        throttle_join(&b->member[i], g, b->ctx);
    throttle_group_put(g);
    context_run(b->ctx, run_requests, b);
    for (unsigned i = 0; i < b->members; i++)
        throttle_leave(&b->member[i]);
    context_free(b->ctx);
    g_assert_cmpuint(all_passed(b), ==, b->want);
    return (double)(b->last_ns - b->first_ns) / NS_PER_SEC;
}

static void test_operations(void)
{
    /* A tenth of a second is free: 11 go at once, the other 30 one every 10 ms. */
    struct throttle_limits l = {.of[THROTTLE_OPS_TOTAL] = {.avg = 100, .length = 1}};
    struct bench b = {.bytes = 4096};
    double seconds = take(&b, &l, 41);
    g_assert_cmpfloat(seconds, >, 0.28);
    g_assert_cmpfloat(seconds, <, 1.0);
}

static void test_bytes(void)
{
    /* The first two go (the bucket holds 100 KiB), each further one pays for one before it. */
    struct throttle_limits l = {.of[THROTTLE_BPS_WRITE] = {.avg = 1024 * 1000, .length = 1}};
    struct bench b = {.bytes = 64 * KIB};
    double seconds = take(&b, &l, 8);
    g_assert_cmpfloat(seconds, >, 0.3);
    g_assert_cmpfloat(seconds, <, 1.0);
}

static void test_writes_are_free_of_read_limits(void)
{
    struct throttle_limits l = {.of[THROTTLE_BPS_READ] = {.avg = 1, .length = 1}};
    struct bench b = {.bytes = 64 * KIB};
    g_assert_cmpfloat(take(&b, &l, 100), <, 0.2);
}

static void test_burst(void)
{
    /* 100 may go in a burst, then 50 a second. */
    struct throttle_limits l = {.of[THROTTLE_OPS_TOTAL] = {.avg = 50, .max = 100, .length = 1}};
    struct bench b = {.bytes = 512};
    double seconds = take(&b, &l, 116);
    g_assert_cmpfloat(seconds, >, 0.2);
    g_assert_cmpfloat(seconds, <, 1.0);
}

static void test_long_burst_has_its_rate(void)
{
    /* A burst of 5 s at 200 a second is not 1000 requests at once. */
    struct throttle_limits l = {.of[THROTTLE_OPS_TOTAL] = {.avg = 10, .max = 200, .length = 5}};
    struct bench b = {.bytes = 512};
    double seconds = take(&b, &l, 100);
    g_assert_cmpfloat(seconds, >, 0.35);
    g_assert_cmpfloat(seconds, <, 1.5);
}

static void test_operation_size(void)
{
    struct throttle_limits l = {.of[THROTTLE_OPS_TOTAL] = {.avg = 100, .length = 1},
                                .op_size = 4096};
    struct bench b = {.bytes = 10 * 4096};
    double seconds = take(&b, &l, 6); /* 60 operations, of which the last 10 need not be paid yet */
    g_assert_cmpfloat(seconds, >, 0.35);
    g_assert_cmpfloat(seconds, <, 1.5);
}

static void test_members_take_turns(void)
{
    struct throttle_limits l = {.of[THROTTLE_OPS_TOTAL] = {.avg = 200, .length = 1}};
    struct bench b = {.bytes = 4096, .members = 2};
    take(&b, &l, 80);
    g_assert_cmpuint(b.passed[0], ==, b.passed[1]);
    g_assert_cmpuint(b.most_apart, <=, 2);
}

static void open_first(struct bench *b)
{
    throttle_open(&b->member[0], true);
}

static void test_open(void)
{
    /* One a second: an hour for all, but for the gate that opens. */
    struct throttle_limits l = {.of[THROTTLE_OPS_TOTAL] = {.avg = 1, .length = 1}};
    struct bench b = {.bytes = 4096, .midway = open_first, .midway_at = 1};
    g_assert_cmpfloat(take(&b, &l, 500), <, 2);
}

static void lift_limits(struct bench *b)
{
    throttle_group_set(b->member[0].group, &(struct throttle_limits){0});
}

static void test_lifted_limits_let_waiters_go(void)
{
    struct throttle_limits l = {.of[THROTTLE_OPS_TOTAL] = {.avg = 1, .length = 1}};
    struct bench b = {.bytes = 4096, .members = 2, .midway = lift_limits, .midway_at = 1};
    g_assert_cmpfloat(take(&b, &l, 500), <, 2);
}

/* ---- two threads, one group ---- */

static int pass_some(void *opaque)
{
    struct throttle_member *m = opaque;
    for (int i = 0; i < 40; i++)
        throttle_pass(m, i & 1, 4096);
    return 0;
}

static gpointer member_thread(gpointer group)
{
    struct throttle_member m;
    struct context *c = context_new(NULL);
    throttle_join(&m, group, c);
    context_run(c, pass_some, &m);
    throttle_leave(&m);
    context_free(c);
    return NULL;
}

static void test_threads(void)
{
    struct throttle_group *g = throttle_group_get("shared");
    throttle_group_set(
        g, &(struct throttle_limits){.of[THROTTLE_OPS_TOTAL] = {.avg = 400, .length = 1}});
    int64_t begin = loop_now_ns();
    GThread *t[3];
    for (size_t i = 0; i < G_N_ELEMENTS(t); i++)
        t[i] = g_thread_new("member", member_thread, g);
    for (size_t i = 0; i < G_N_ELEMENTS(t); i++)
        g_thread_join(t[i]);
    double seconds =
        (double)(loop_now_ns() - begin) / NS_PER_SEC; /* 120 operations, 40 of them at once */
    g_assert_cmpfloat(seconds, >, 0.17);
    g_assert_cmpfloat(seconds, <, 3);
    throttle_group_put(g);
}

/* ---- names and limits ---- */

static void test_groups_by_name(void)
{
    struct throttle_group *a = throttle_group_get("g0"), *b = throttle_group_get("g0"),
                          *c = throttle_group_get(NULL);
    struct throttle_limits l = {.of[THROTTLE_BPS_READ] = {.avg = 77, .length = 1}}, got;
    g_assert_true(a == b);
    g_assert_true(a != c);
    g_assert_cmpstr(throttle_group_name(a), ==, "g0");
    throttle_group_set(a, &l);
    throttle_group_limits(b, &got);
    g_assert_cmpuint(got.of[THROTTLE_BPS_READ].avg, ==, 77);
    throttle_group_put(a);
    throttle_group_put(b);
    a = throttle_group_get("g0"); /* a new one, without limits */
    throttle_group_limits(a, &got);
    g_assert_false(throttle_is_limited(&got));
    throttle_group_put(a);
    throttle_group_put(c);
}

static void test_limits(void)
{
    static const struct {
        struct throttle_limits l;
        const char *sentence; /* NULL: accepted */
    } rows[] = {
        {{.of[THROTTLE_BPS_TOTAL] = {100, 0, 1}}, NULL},
        {{.of[THROTTLE_BPS_TOTAL] = {100, 1000, 60},
          .of[THROTTLE_OPS_READ] = {5, 0, 1},
          .op_size = 8192},
         NULL},
        {{.of[THROTTLE_BPS_TOTAL] = {1, 0, 1}, .of[THROTTLE_BPS_READ] = {1, 0, 1}},
         "bps-total excludes"},
        {{.of[THROTTLE_OPS_TOTAL] = {1, 0, 1}, .of[THROTTLE_OPS_WRITE] = {1, 0, 1}},
         "iops-total excludes"},
        {{.of[THROTTLE_OPS_READ] = {0, 10, 1}}, "burst rate but no rate"},
        {{.of[THROTTLE_OPS_READ] = {20, 10, 1}}, "10, is below its rate, 20"},
        {{.of[THROTTLE_OPS_READ] = {20, 0, 7}}, "burst length but no burst rate"},
        {{.of[THROTTLE_OPS_READ] = {20, 30, 0}}, "length of iops-read is 0"},
        {{.of[THROTTLE_BPS_WRITE] = {THROTTLE_VALUE_MAX + 1, 0, 1}},
         "bps-write is above the limit"},
        {{.of[THROTTLE_BPS_WRITE] = {1, THROTTLE_VALUE_MAX, 2}},
         "a burst of bps-write for 2 seconds"},
        {{.of[THROTTLE_BPS_WRITE] = {1, 0, 1}, .op_size = 512}, "iops-size needs"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(GError) error = NULL;
        bool ok = throttle_check(&rows[i].l, &error);
        g_assert_true(ok == !rows[i].sentence);
        if (!ok)
            g_assert_nonnull(strstr(error->message, rows[i].sentence));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/throttle/limits", test_limits);
    g_test_add_func("/throttle/groups-by-name", test_groups_by_name);
    g_test_add_func("/throttle/operations", test_operations);
    g_test_add_func("/throttle/bytes", test_bytes);
    g_test_add_func("/throttle/writes-are-free-of-read-limits",
                    test_writes_are_free_of_read_limits);
    g_test_add_func("/throttle/burst", test_burst);
    g_test_add_func("/throttle/long-burst-has-its-rate", test_long_burst_has_its_rate);
    g_test_add_func("/throttle/operation-size", test_operation_size);
    g_test_add_func("/throttle/members-take-turns", test_members_take_turns);
    g_test_add_func("/throttle/open", test_open);
    g_test_add_func("/throttle/lifted-limits-let-waiters-go", test_lifted_limits_let_waiters_go);
    g_test_add_func("/throttle/threads", test_threads);
    return g_test_run();
}
