/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fibers: order of control, nesting, queues, locks, many at a time, threads that end. */
#include "base/fiber.h"

#include <glib.h>
#include <pthread.h>
#include <string.h>

static GString *trace;

static void note(const char *what)
{
    g_string_append(trace, what);
}

static void reset_trace(void)
{
    if (trace)
        g_string_free(trace, TRUE);
    trace = g_string_new(NULL);
}

static struct fiber *first, *second;

static void wait_once(void *opaque)
{
    first = fiber_self();
    note("a");
    fiber_wait();
    note("c");
}

static void test_wait_and_wake(void)
{
    reset_trace();
    g_assert_null(fiber_self());
    fiber_start(wait_once, NULL);
    note("b");
    fiber_wake(first);
    note("d");
    g_assert_cmpstr(trace->str, ==, "abcd");
    g_assert_null(fiber_self());
}

static void inner(void *opaque)
{
    note("2");
    second = fiber_self();
    fiber_wait();
    note("5");
}

static void outer(void *opaque)
{
    note("1");
    fiber_start(inner, NULL);
    note("3");
    fiber_wake(second); /* runs when control is back at the thread */
    note("4");
}

static void test_nested(void)
{
    reset_trace();
    fiber_start(outer, NULL);
    g_assert_cmpstr(trace->str, ==, "12345");
}

static struct fiber_mutex mutex;
static struct fiber_queue queue;
static int inside, entered;

static void locker(void *opaque)
{
    fiber_mutex_lock(&mutex);
    g_assert_cmpint(++inside, ==, 1);
    fiber_queue_wait(&queue);
    inside--;
    entered += *(int *)opaque;
    fiber_mutex_unlock(&mutex);
}

static void test_mutex(void)
{
    int n[40];
    entered = 0;
    for (int i = 0; i < 40; i++) {
        n[i] = i;
        fiber_start(locker, &n[i]);
    }
    int rounds = 0;
    while (fiber_queue_wake_one(&queue))
        rounds++;
    g_assert_cmpint(rounds, ==, 40);
    g_assert_cmpint(entered, ==, 39 * 40 / 2);
    g_assert_false(mutex.locked);
}

static struct fiber_rwlock rw;

static void reader(void *opaque)
{
    fiber_rwlock_read(&rw);
    g_assert_false(rw.writer);
    note("r");
    fiber_queue_wait(&queue);
    fiber_rwlock_unlock(&rw);
}

static void writer(void *opaque)
{
    fiber_rwlock_write(&rw);
    g_assert_cmpuint(rw.readers, ==, 0);
    note("w");
    fiber_queue_wait(&queue);
    fiber_rwlock_unlock(&rw);
}

static void test_rwlock(void)
{
    reset_trace();
    fiber_start(reader, NULL);
    fiber_start(reader, NULL);
    fiber_start(writer, NULL);
    fiber_start(reader, NULL); /* behind the writer, or it would starve */
    g_assert_cmpstr(trace->str, ==, "rr");
    fiber_queue_wake_all(&queue);
    g_assert_cmpstr(trace->str, ==, "rrw");
    fiber_queue_wake_all(&queue);
    g_assert_cmpstr(trace->str, ==, "rrwr");
    fiber_queue_wake_all(&queue);
    g_assert_false(rw.writer || rw.readers || rw.writers_waiting);
}

static void deep(void *opaque)
{
    char block[4000];
    int depth = *(int *)opaque;
    memset(block, depth, sizeof(block));
    if (depth) {
        int next = depth - 1;
        deep(&next);
    } else {
        fiber_queue_wait(&queue);
    }
    g_assert_cmpint(block[3999], ==, (char)depth);
}

static void test_many(void)
{
    int depth = 20;
    for (int i = 0; i < 1000; i++)
        fiber_start(deep, &depth);
    int n = 0;
    while (fiber_queue_wake_one(&queue))
        n++;
    g_assert_cmpint(n, ==, 1000);
}

static void *thread_main(void *opaque)
{
    for (int i = 0; i < 100; i++) {
        fiber_start(wait_once, NULL);
        fiber_wake(first);
    }
    return NULL;
}

static void test_thread(void)
{
    reset_trace();
    pthread_t t;
    g_assert_cmpint(pthread_create(&t, NULL, thread_main, NULL), ==, 0);
    pthread_join(t, NULL);
    g_assert_cmpuint(trace->len, ==, 200);
    g_assert_null(fiber_self());
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/fiber/wait-and-wake", test_wait_and_wake);
    g_test_add_func("/fiber/nested", test_nested);
    g_test_add_func("/fiber/mutex", test_mutex);
    g_test_add_func("/fiber/rwlock", test_rwlock);
    g_test_add_func("/fiber/many", test_many);
    g_test_add_func("/fiber/thread", test_thread);
    return g_test_run();
}
