/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sleeping near the client: kept while it pays, left when it does not, when the client pauses or
 * another one calls. */
#include "libvirt/near.h"

#include <glib.h>
#include <unistd.h>

static int64_t now_us;
static uint64_t calls;
static int who, other;

/* Rounds that take so long near, or anywhere. Returns how many were slept through near. */
static unsigned run(struct near *n, unsigned rounds, int64_t anywhere_us, int64_t near_us)
{
    unsigned slept = 0;
    bool near = n->phase == NEAR_TRY || n->phase == NEAR_KEEP, look;
    for (unsigned i = 0; i < rounds; i++) {
        now_us += near ? near_us : anywhere_us;
        near = near_round(n, &who, now_us, ++calls, &look);
        slept += near;
    }
    return slept;
}

static void test_pays(void)
{
    struct near n = {0};
    g_assert_cmpuint(run(&n, 60, 80, 15), ==, 0); /* a few calls change nothing */
    g_assert_cmpuint(run(&n, 10000, 80, 15), >, 9900);
    g_assert_cmpint(n.phase, ==, NEAR_KEEP);
}

static void test_does_not_pay(void)
{
    struct near n = {0};
    g_assert_cmpuint(run(&n, 10000, 20, 30), <, 500);
    /* It did, and does no more: the client went elsewhere. */
    n = (struct near){0};
    run(&n, 1000, 80, 15);
    g_assert_cmpuint(run(&n, 10000, 80, 120), <, 1500);
}

static void test_interrupted(void)
{
    struct near n = {0};
    bool look;
    run(&n, 1000, 80, 15);
    now_us += 5000; /* it thinks */
    g_assert_false(near_round(&n, &who, now_us, ++calls, &look));
    run(&n, 1000, 80, 15);
    g_assert_cmpint(n.phase, ==, NEAR_KEEP);
    now_us += 10;
    g_assert_false(near_round(&n, &other, now_us, ++calls, &look));
    now_us += 10;
    g_assert_false(near_round(&n, &who, now_us, ++calls, &look));
}

/* Where it is, is looked up when we go there, and now and then. */
static void test_looks(void)
{
    struct near n = {0};
    unsigned looks = 0;
    bool look;
    for (unsigned i = 0; i < 2000; i++) {
        near_round(&n, &who, now_us += 20, ++calls, &look);
        looks += look;
    }
    g_assert_cmpuint(looks, >=, 3);
    g_assert_cmpuint(looks, <=, 20);
    near_rest(&n);
    g_assert_false(near_round(&n, &who, now_us += 20, ++calls, &look));
}

static void test_cpu(void)
{
    g_assert_cmpint(near_cpu_of(getpid()), >=, 0);
    g_assert_cmpint(near_cpu_of(0), ==, -1);
    g_assert_cmpint(near_cpu_of(-1), ==, -1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/near/pays", test_pays);
    g_test_add_func("/near/does-not-pay", test_does_not_pay);
    g_test_add_func("/near/interrupted", test_interrupted);
    g_test_add_func("/near/looks", test_looks);
    g_test_add_func("/near/cpu", test_cpu);
    return g_test_run();
}
