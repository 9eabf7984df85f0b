/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What backends share: finding them, their programs and the packages that bring those, work with a
 * deadline. */
#include "base/log.h"
#include "manager/package.h"
#include "manager/storage/storage_priv.h"

#include <stdarg.h>
#include <string.h>

#define ANSWER_MAX (8u << 20)

const struct pool_backend *pool_backend_find(const char *type)
{
    LINKSET_FOREACH (pool_backends, struct pool_backend, b)
        if (!strcmp(b->type, type))
            return b;
    return NULL;
}

const struct xml_node *pool_root(const struct pool *p)
{
    return p->def->doc;
}

const char *pool_get(const struct pool *p, const char *path)
{
    return xml_get(pool_root(p), path);
}

/* ---- programs ---- */

static bool missing(const char *program, GError **error)
{
    g_autofree char *advice = package_advice(program);
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "%s", advice ? advice : program);
}

bool storage_programs(const char *const *programs, GError **error)
{
    for (; programs && *programs; programs++) {
        g_autofree char *path = package_find_program(*programs);
        if (!path)
            return missing(*programs, error);
    }
    return true;
}

bool storage_run_argv(const char *const *argv, const char *stdin_text, int timeout_ms,
                      char **ret_out, GError **error)
{
    g_autofree char *path = package_find_program(argv[0]);
    if (!path)
        return missing(argv[0], error);
    g_autofree const char **own = g_new0(const char *, g_strv_length((char **)argv) + 1);
    own[0] = path;
    for (unsigned i = 1; argv[i]; i++)
        own[i] = argv[i];
    return task_run_program(own, stdin_text, ANSWER_MAX, timeout_ms, ret_out, error);
}

bool storage_run(char **ret_out, GError **error, const char *program, ...)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    va_list ap;
    va_start(ap, program);
    for (const char *a = program; a; a = va_arg(ap, const char *))
        g_ptr_array_add(argv, (void *)a);
    va_end(ap);
    g_ptr_array_add(argv, NULL);
    return storage_run_argv((const char *const *)argv->pdata, NULL, STORAGE_RUN_MS, ret_out, error);
}

/* ---- work with a deadline ---- */

/* Shared by the task that waits and the thread: whoever is last frees it. */
struct errand {
    void (*fn)(void *opaque), (*free_fn)(void *opaque);
    void *opaque;
    struct task_event *done; /* NULL: nobody waits any more; loop thread */
    struct pool *pool;       /* then a reference */
    unsigned start;          /* of the pool, that it was begun in */
};

enum { HUNG_MAX = 8 }; /* threads of a pool that is started again and again */

/* The waiter gives up: the pool keeps count of what is left behind. */
static void errand_leave(struct errand *e)
{
    e->done = NULL;
    pool_ref(e->pool)->hung++;
    if (e->start != e->pool->starts)
        e->pool->hung_before++;
}

static void errand_returns(struct errand *e)
{
    e->pool->hung--;
    if (e->start != e->pool->starts)
        e->pool->hung_before--;
    pool_unref(e->pool);
    if (e->free_fn)
        e->free_fn(e->opaque);
}

void storage_work_anew(struct pool *p)
{
    p->starts++;
    p->hung_before = p->hung;
}

static gboolean errand_done(gpointer opaque)
{
    struct errand *e = opaque;
    if (e->done)
        task_event_happen(e->done);
    else
        errand_returns(e);
    g_free(e);
    return G_SOURCE_REMOVE;
}

static gpointer errand_thread(gpointer opaque)
{
    struct errand *e = opaque;
    e->fn(e->opaque);
    g_idle_add_full(G_PRIORITY_DEFAULT, errand_done, e, NULL);
    return NULL;
}

static bool errand_start(struct errand *e, const char *what, GError **error)
{
    const struct pool *p = e->pool;
    if (p->hung > p->hung_before || p->hung >= HUNG_MAX)
        return ruche_error(error, MANAGER_ERR_TIMEOUT,
                           "%s: storage pool '%s' has not answered what it was asked before (%u "
                           "still wait)",
                           what, p->name, p->hung);
    GThread *thread = g_thread_try_new("storage", errand_thread, e, NULL);
    if (!thread)
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "%s: no thread for it", what);
    g_thread_unref(thread);
    return true;
}

bool storage_work(struct pool *p, void (*fn)(void *opaque), void *opaque,
                  void (*free_fn)(void *opaque), int timeout_ms, const char *what, GError **error)
{
    struct task_event done = {0};
    struct errand *e = g_new(struct errand, 1);
    *e = (struct errand){fn, free_fn, opaque, &done, p, p->starts};
    if (!errand_start(e, what, error)) {
        g_free(e);
        if (free_fn)
            free_fn(opaque);
        return false;
    }
    if (task_event_wait(&done, timeout_ms))
        return true;
    errand_leave(e);
    return ruche_error(error, MANAGER_ERR_TIMEOUT, "%s did not answer within %d s", what,
                       timeout_ms / 1000);
}
