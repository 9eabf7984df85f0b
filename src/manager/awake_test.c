/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Staying awake: for quick calls only, and not for ever. A loop with a client that calls once a
 * millisecond sleeps as before; one that calls at once is noticed, and forgotten when it is gone.
 */
#include "base/scratch.h"
#include "manager/awake.h"

#include <glib-unix.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- when ---- */

static bool call_times(struct awake *a, unsigned times, int64_t think_us, int64_t *now_us)
{
    bool on = false;
    for (unsigned i = 0; i < times; i++) {
        *now_us += think_us + 5;
        on = awake_call(a, think_us, *now_us);
    }
    return on;
}

static void test_quick(void)
{
    struct awake a;
    int64_t now_us = 1;
    awake_init(&a, now_us);
    g_assert_false(call_times(&a, AWAKE_STREAK - 1, 20, &now_us));
    g_assert_true(call_times(&a, 1, 20, &now_us));
    g_assert_true(awake_look(&a, now_us + AWAKE_LINGER_US - 1));
    g_assert_false(awake_look(&a, now_us + AWAKE_LINGER_US));
    g_assert_false(call_times(&a, 1, 20, &now_us)); /* from the begin */
}

static void test_slow(void)
{
    struct awake a;
    int64_t now_us = 1;
    awake_init(&a, now_us);
    g_assert_false(call_times(&a, 100000, AWAKE_THINK_US + 1, &now_us));
    /* Short bursts of one who then thinks. */
    for (unsigned i = 0; i < 1000; i++) {
        g_assert_false(call_times(&a, AWAKE_STREAK - 1, 10, &now_us));
        g_assert_false(call_times(&a, 1, 1000, &now_us));
    }
}

/* Somebody who calls day and night. */
static void test_share(void)
{
    enum { HOUR_US = 3600 };
    struct awake a;
    int64_t now_us = 1, on_us = 0, longest_us = 0, begin_us = 0;
    awake_init(&a, now_us);
    for (int64_t end_us = HOUR_US * INT64_C(1000000), last_us = now_us; now_us < end_us;) {
        bool was = a.on;
        call_times(&a, 1, 95, &now_us);
        if (!was && a.on)
            begin_us = now_us;
        on_us += was ? now_us - last_us : 0;
        longest_us = MAX(longest_us, a.on ? now_us - begin_us : 0);
        last_us = now_us;
        awake_look(&a, now_us);
    }
    g_assert_cmpint(longest_us, <=, AWAKE_CREDIT_US + 1000);
    g_assert_cmpint(on_us, >, INT64_C(1000000) * HOUR_US / (AWAKE_SHARE + 2));
    g_assert_cmpint(on_us, <, INT64_C(1000000) * HOUR_US / AWAKE_SHARE + AWAKE_CREDIT_US);
}

/* ---- the loop ---- */

struct talk {
    int fds[2]; /* the manager's, the client's */
    unsigned calls, wait_us;
    int64_t answered_us;
    bool until_on, ended;
};

static gboolean serve(gint fd, GIOCondition condition, gpointer opaque)
{
    struct talk *t = opaque;
    char byte;
    if (read(fd, &byte, 1) != 1) {
        t->ended = true;
        return G_SOURCE_REMOVE;
    }
    int64_t now_us = g_get_monotonic_time();
    awake_called(now_us - t->answered_us, now_us);
    struct awake_figures f;
    awake_figures(&f);
    byte = t->until_on && f.on; /* enough */
    g_assert_cmpint(write(fd, &byte, 1), ==, 1);
    t->answered_us = g_get_monotonic_time();
    return G_SOURCE_CONTINUE;
}

static gpointer client(gpointer opaque)
{
    struct talk *t = opaque;
    char byte = 0;
    for (unsigned i = 0; i < t->calls && !byte; i++) {
        if (write(t->fds[1], "", 1) != 1 || read(t->fds[1], &byte, 1) != 1)
            break;
        if (t->wait_us)
            g_usleep(t->wait_us);
    }
    shutdown(t->fds[1], SHUT_WR);
    return NULL;
}

static int64_t cpu_us(void)
{
    struct rusage r;
    getrusage(RUSAGE_THREAD, &r);
    return (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * INT64_C(1000000) + r.ru_utime.tv_usec +
           r.ru_stime.tv_usec;
}

/* Returns microseconds of processor time that the loop thread took. */
static int64_t talk(struct talk *t)
{
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, t->fds), ==, 0);
    g_unix_fd_add(t->fds[0], G_IO_IN, serve, t);
    int64_t before_us = cpu_us();
    GThread *thread = g_thread_new("client", client, t);
    while (!t->ended)
        g_main_context_iteration(NULL, true);
    g_thread_join(thread);
    close(t->fds[0]);
    close(t->fds[1]);
    return cpu_us() - before_us;
}

static char *device(void)
{
    char *path = NULL;
    int fd = g_file_open_tmp("ruche-awake-XXXXXX", &path, NULL);
    g_assert_cmpint(fd, >=, 0);
    close(fd);
    return path;
}

static void test_loop_slow(void)
{
    g_autofree char *path = device();
    struct awake_figures before, after;
    awake_figures(&before);
    awake_start(path);
    struct talk t = {.calls = 400, .wait_us = 1000};
    int64_t begin_us = g_get_monotonic_time(), spent_us = talk(&t),
            passed_us = g_get_monotonic_time() - begin_us;
    awake_figures(&after);
    g_test_message("%d us of processor time in %d us", (int)spent_us, (int)passed_us);
    g_assert_cmpuint(after.times, ==, before.times);
    g_assert_cmpint(spent_us, <, passed_us / 3);
    awake_stop();
    unlink(path);
}

static void test_loop_quick(void)
{
    g_autofree char *path = device(), *said = NULL;
    struct awake_figures f;
    gsize len;
    awake_start(path);
    struct talk t = {.calls = 1000000, .until_on = true};
    talk(&t);
    awake_figures(&f);
    g_assert_cmpuint(f.times, >=, 1);
    g_assert_true(g_file_get_contents(path, &said, &len, NULL));
    g_assert_cmpuint(len, ==, sizeof(int32_t)); /* a limit in microseconds */
    while (f.on) { /* nobody calls any more: the loop comes back by itself */
        g_main_context_iteration(NULL, false);
        g_usleep(500);
        awake_figures(&f);
    }
    g_assert_cmpuint(f.total_us, >=, AWAKE_LINGER_US);
    awake_stop();
    unlink(path);
}

static void test_loop_without(void)
{
    struct awake_figures before, after;
    awake_figures(&before);
    awake_start("/nonexistent/device");
    struct talk t = {.calls = 20000};
    talk(&t);
    awake_figures(&after);
    g_assert_cmpuint(after.times, ==, before.times);
    awake_stop();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    scratch_folder("ruche-awake");
    g_test_add_func("/awake/quick", test_quick);
    g_test_add_func("/awake/slow", test_slow);
    g_test_add_func("/awake/share", test_share);
    g_test_add_func("/awake/loop-slow", test_loop_slow);
    g_test_add_func("/awake/loop-quick", test_loop_quick);
    g_test_add_func("/awake/loop-without", test_loop_without);
    return g_test_run();
}
