/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rounds that put files in place: what becomes due while one is under way belongs to the next. See
 * store_follow.h. */
#include "manager/store_follow.h"

#include "base/log.h"
#include "manager/task.h"

#include <errno.h>
#include <glib.h>

enum { AGAIN_AFTER_MS = 5000 };

static struct {
    GHashTable *next, *now; /* path, which the file owns: struct store_file; `now`: of this round */
    uint64_t begun, ended;  /* rounds */
    int err;                /* of the last one */
    int64_t first_us, last_us; /* when something became due for the next one */
    guint timer;            /* to the next one */
    struct fiber_queue waiters;
} s;

static void file_free(void *opaque)
{
    struct store_file *f = opaque;
    g_free((char *)f->path);
    g_free((char *)f->text);
    g_free(f);
}

static GHashTable *table_new(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, NULL, file_free);
}

static unsigned due(void)
{
    return s.next ? g_hash_table_size(s.next) : 0;
}

/* ---- a round ---- */

static void place_all(void *opaque)
{
    GHashTableIter it;
    gpointer f;
    g_hash_table_iter_init(&it, opaque);
    while (g_hash_table_iter_next(&it, NULL, &f))
        store_file_carry_out(f);
}

/* What failed is due again, unless a later change of its path is. */
static void end_round(void)
{
    g_autoptr(GHashTable) now = g_steal_pointer(&s.now);
    GHashTableIter it;
    struct store_file *f;
    int before = s.err;
    s.err = 0;
    g_hash_table_iter_init(&it, now);
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&f)) {
        if (f->edited)
            log_warn("%s was changed by another, and is left as it is", f->path);
        if (!f->err)
            continue;
        if (f->err != before)
            log_warn("%s: %s: %s; it is tried again", f->path, f->step, g_strerror(f->err));
        s.err = f->err;
        f->err = 0;
        g_hash_table_iter_steal(&it);
        if (g_hash_table_contains(s.next, f->path))
            file_free(f);
        else
            g_hash_table_insert(s.next, (gpointer)f->path, f);
    }
}

static void begin_round(void)
{
    g_clear_handle_id(&s.timer, g_source_remove);
    s.now = g_steal_pointer(&s.next);
    s.next = table_new();
    s.begun++;
}

static void plan_round(void);

static void round_task(void *opaque)
{
    begin_round();
    task_work(place_all, s.now);
    end_round();
    s.ended++;
    plan_round();
    fiber_queue_wake_all(&s.waiters);
}

/* To make a file may keep a processor in the kernel for a millisecond (ext4 looks for an inode that was
 * not free a minute ago), where those who wait for an answer meanwhile cannot run. */
static bool is_burst(void)
{
    int64_t now_us = g_get_monotonic_time();
    return !s.err && now_us - s.last_us < STORE_FOLLOW_AFTER_MS * 1000 &&
           now_us - s.first_us < STORE_FOLLOW_LATEST_MS * 1000;
}

static gboolean round_is_due(gpointer opaque)
{
    if (is_burst())
        return G_SOURCE_CONTINUE;
    s.timer = 0;
    if (!s.now && due())
        task_start(round_task, NULL);
    return G_SOURCE_REMOVE;
}

/* Not at once: what comes in quick succession is one round, and its answers go first. */
static void plan_round(void)
{
    if (!s.timer && !s.now && due())
        s.timer = g_timeout_add(s.err ? AGAIN_AFTER_MS : STORE_FOLLOW_AFTER_MS, round_is_due, NULL);
}

/* ---- what is due ---- */

void store_follow(const struct store_file *f)
{
    struct store_file *copy = g_new(struct store_file, 1);
    *copy = (struct store_file){.kind = f->kind,
                                .path = g_strdup(f->path),
                                .text = g_strdup(f->text),
                                .mode = f->mode,
                                .time_ns = f->time_ns,
                                .old_ns = f->old_ns};
    s.last_us = g_get_monotonic_time();
    if (!due())
        s.first_us = s.last_us;
    if (!s.next)
        s.next = table_new();
    g_hash_table_replace(s.next, (gpointer)copy->path, copy);
    plan_round();
}

const struct store_file *store_follow_find(const char *path)
{
    const struct store_file *f = s.next ? g_hash_table_lookup(s.next, path) : NULL;
    return f || !s.now ? f : g_hash_table_lookup(s.now, path);
}

int store_follow_wait(void)
{
    uint64_t wanted = s.begun + (due() > 0);
    while (s.ended < wanted) {
        if (!s.now)
            task_start(round_task, NULL);
        if (s.ended < wanted)
            fiber_queue_wait(&s.waiters);
    }
    return due() ? s.err : 0;
}

int store_follow_finish(void)
{
    if (s.now)
        return EBUSY;
    if (due()) {
        begin_round();
        place_all(s.now);
        end_round();
        s.ended++;
    }
    g_clear_handle_id(&s.timer, g_source_remove);
    g_clear_pointer(&s.next, g_hash_table_unref);
    int err = s.err;
    s.err = 0;
    return err;
}
