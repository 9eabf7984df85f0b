/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/fd.h"
#include "base/loop.h"

#include <glib.h>

void loop_add_tests(void);

struct probe {
    struct loop *loop;
    struct loop_timer timer[3];
    struct loop_fd fd[2];
    struct loop_task task;
    char order[16];
    unsigned count, runs;
};

static void note(struct probe *p, char c)
{
    p->order[p->count++ % 15] = c;
}

static void timer_a(void *opaque) { note(opaque, 'a'); }
static void timer_b(void *opaque) { note(opaque, 'b'); }
static void timer_c(void *opaque) { note(opaque, 'c'); }

static void test_timers(void)
{
    struct probe p = { .loop = loop_new("test") };
    loop_timer_init(p.loop, &p.timer[0], timer_a, &p);
    loop_timer_init(p.loop, &p.timer[1], timer_b, &p);
    loop_timer_init(p.loop, &p.timer[2], timer_c, &p);
    int64_t now = loop_now_ns();
    loop_timer_arm(&p.timer[0], now + 6 * NS_PER_MS);
    loop_timer_arm(&p.timer[1], now + 90 * NS_PER_SEC);
    loop_timer_arm(&p.timer[2], now + 3 * NS_PER_MS);
    loop_timer_arm(&p.timer[1], now - 5); /* moved to the past: first */
    while (p.count < 3)
        loop_once(p.loop, 1000);
    g_assert_cmpstr(p.order, ==, "bca");
    g_assert_cmpint(loop_now_ns() - now, >=, 6 * NS_PER_MS);
    loop_timer_arm(&p.timer[0], now);
    loop_timer_cancel(&p.timer[0]);
    loop_once(p.loop, 5);
    g_assert_cmpuint(p.count, ==, 3);
    for (int i = 0; i < 3; i++)
        loop_timer_done(&p.timer[i]);
    loop_free(p.loop);
}

static void remove_both(void *opaque, uint32_t events)
{
    struct probe *p = opaque;
    g_assert_cmpuint(events & EPOLLIN, !=, 0);
    p->runs++;
    loop_fd_remove(&p->fd[0]);
    loop_fd_remove(&p->fd[1]);
}

/* Both descriptors are ready; the first callback removes both watches: the second must not run. */
static void test_remove_while_ready(void)
{
    struct probe p = { .loop = loop_new("test") };
    autofd a = eventfd(1, EFD_CLOEXEC), b = eventfd(1, EFD_CLOEXEC);
    g_assert_cmpint(loop_fd_add(p.loop, &p.fd[0], a, EPOLLIN, remove_both, &p), ==, 0);
    g_assert_cmpint(loop_fd_add(p.loop, &p.fd[1], b, EPOLLIN, remove_both, &p), ==, 0);
    loop_once(p.loop, 100);
    loop_once(p.loop, 1);
    g_assert_cmpuint(p.runs, ==, 1);
    loop_free(p.loop);
}

static void task_again(void *opaque)
{
    struct probe *p = opaque;
    if (__atomic_add_fetch(&p->runs, 1, __ATOMIC_RELEASE) < 1000)
        loop_post(p->loop, &p->task);
}

static void read_runs(void *opaque)
{
    struct probe *p = opaque;
    note(p, loop_is_home(p->loop) ? 'h' : 'x');
}

static void test_tasks_and_threads(void)
{
    struct probe p = { .loop = loop_new("test") };
    p.task = (struct loop_task){ .fn = task_again, .opaque = &p };
    g_assert_cmpint(loop_thread_start(p.loop), ==, 0);
    loop_post(p.loop, &p.task);
    while (__atomic_load_n(&p.runs, __ATOMIC_ACQUIRE) < 1000)
        g_thread_yield();
    loop_call(p.loop, read_runs, &p);
    g_assert_cmpstr(p.order, ==, "h");
    g_assert_false(loop_is_home(p.loop));
    loop_thread_join(p.loop);
    loop_free(p.loop);
}

static gboolean give_up(gpointer data)
{
    *(bool *)data = true;
    return G_SOURCE_REMOVE;
}

static void test_inside_main_context(void)
{
    struct probe p = { .loop = loop_new("test") };
    bool late = false;
    loop_attach(p.loop);
    loop_timer_init(p.loop, &p.timer[0], timer_a, &p);
    loop_timer_arm(&p.timer[0], loop_now_ns() + 2 * NS_PER_MS);
    guint id = g_timeout_add(10000, give_up, &late);
    while (!p.count && !late)
        g_main_context_iteration(NULL, TRUE);
    g_assert_cmpstr(p.order, ==, "a");
    g_source_remove(id);
    loop_timer_done(&p.timer[0]);
    loop_free(p.loop);
}

void loop_add_tests(void)
{
    g_test_add_func("/base/loop/timers", test_timers);
    g_test_add_func("/base/loop/remove-while-ready", test_remove_while_ready);
    g_test_add_func("/base/loop/tasks-and-threads", test_tasks_and_threads);
    g_test_add_func("/base/loop/main-context", test_inside_main_context);
}
