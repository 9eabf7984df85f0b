/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Works of pools that do not come back: what they cost, and that there are no more and more of them. */
#include "base/scratch.h"
#include "manager/storage/storage_priv.h"
#include "manager/task_testing.h"

#include <string.h>

static GMutex lock;
static GCond opened;
static bool open_gate;
static unsigned ran, freed; /* of works; loop thread */
static atomic_uint waiting;

static void hang(void *opaque)
{
    g_mutex_lock(&lock);
    atomic_fetch_add(&waiting, 1);
    while (!open_gate)
        g_cond_wait(&opened, &lock);
    g_mutex_unlock(&lock);
}

static void quick(void *opaque)
{
    *(bool *)opaque = true;
}

static void count_free(void *opaque)
{
    freed++;
}

static bool run_quick(struct pool *p, GError **error)
{
    static bool done;
    done = false;
    bool ok = storage_work(p, quick, &done, count_free, 10000, "quick", error);
    g_assert_true(done == ok);
    ran += ok;
    return ok;
}

static void assert_timed_out(bool ok, GError *e, const char *word)
{
    g_assert_false(ok);
    g_assert_error(e, RUCHE_ERROR, MANAGER_ERR_TIMEOUT);
    if (!strstr(e->message, word))
        g_error("'%s' is not in: %s", word, e->message);
    g_error_free(e);
}

static void leave_one(struct pool *p)
{
    GError *e = NULL;
    bool ok = storage_work(p, hang, NULL, count_free, 20, "server 's'", &e);
    assert_timed_out(ok, e, "server 's' did not answer");
}

static void refuse_quick(struct pool *p, const char *word)
{
    GError *e = NULL;
    bool ok = run_quick(p, &e);
    assert_timed_out(ok, e, word);
}

static struct pool *pool_of(const char *name)
{
    g_autofree char *xml = g_strdup_printf(
        "<pool type='dir'><name>%s</name><target><path>/%s</path></target></pool>", name, name);
    g_autoptr(GError) e = NULL;
    struct pool_def *d = pool_def_new(xml, false, &e);
    g_assert_no_error(e);
    return pool_new(d);
}

static void do_hang(void *opaque)
{
    enum { MOST = 8 };
    struct pool *p = pool_of("p"), *other = pool_of("other");
    leave_one(p);
    refuse_quick(p, "storage pool 'p' has not answered what it was asked before (1 still wait)");
    g_assert_cmpuint(freed, ==, 1);
    g_assert_true(run_quick(other, NULL));
    for (unsigned i = 1; i < MOST; i++) { /* stopped and started again: perhaps another server */
        storage_work_anew(p);
        g_assert_true(run_quick(p, NULL));
        leave_one(p);
    }
    storage_work_anew(p);
    refuse_quick(p, "8 still wait");
    while (atomic_load(&waiting) < MOST)
        task_sleep_ms(1);
    g_mutex_lock(&lock);
    open_gate = true;
    g_cond_broadcast(&opened);
    g_mutex_unlock(&lock);
    while (p->hung)
        task_sleep_ms(1);
    g_assert_cmpuint(p->hung_before, ==, 0);
    g_assert_cmpuint(freed, ==, MOST + 2); /* and those that were refused */
    g_assert_true(run_quick(p, NULL));
    g_assert_cmpuint(ran, ==, MOST + 1);
    g_assert_cmpuint(p->refs, ==, 1);
    pool_unref(p);
    pool_unref(other);
}

static void test_hang(void)
{
    run_in_task(do_hang, NULL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    scratch_folder("work-test");
    g_test_add_func("/work/hang", test_hang);
    return g_test_run();
}
