/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The store's log beside power cuts: after each, every change that was promised is there, the one
 * that was not is there as a whole or not at all, and what a person edited since stays. */
#include "base/scratch.h"
#include "manager/store.h"
#include "manager/store_follow.h"
#include "manager/store_log.h"
#include "manager/task.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHANGES = 40, NAMES = 5, CUTS = 60, LONGEST = 9000 };

static char *dir, *root, *log_path;

static void begin(void)
{
    g_autoptr(GError) error = NULL;
    dir = g_dir_make_tmp("ruche-store-XXXXXX", NULL);
    root = g_build_filename(dir, "root", NULL);
    log_path = g_build_filename(dir, "log", NULL);
    g_mkdir(root, 0700);
    store_open(log_path, root, &error);
    g_assert_no_error(error);
}

static void remove_below(const char *folder)
{
    g_autoptr(GDir) d = g_dir_open(folder, 0, NULL);
    for (const char *name; d && (name = g_dir_read_name(d));) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        if (g_file_test(path, G_FILE_TEST_IS_DIR) && !g_file_test(path, G_FILE_TEST_IS_SYMLINK))
            remove_below(path);
        else
            unlink(path);
    }
    rmdir(folder);
}

static void end(void)
{
    store_close();
    remove_below(dir);
    g_clear_pointer(&dir, g_free);
    g_clear_pointer(&root, g_free);
    g_clear_pointer(&log_path, g_free);
}

static void open_again(void)
{
    g_autoptr(GError) error = NULL;
    store_open(log_path, root, &error);
    g_assert_no_error(error);
}

/* ---- changes ---- */

struct wish {
    const char *path, *text; /* text NULL: it goes */
    bool done;
    GError *error;
};

static void follow_task(void *opaque)
{
    *(int *)opaque = store_follow_wait();
}

/* Until the files are in place; 0, or the errno of one that cannot be. */
static int follow(void)
{
    int err = -1;
    task_start(follow_task, &err);
    while (err < 0)
        g_main_context_iteration(NULL, true);
    return err;
}

static void wish_task(void *opaque)
{
    struct wish *w = opaque;
    if (w->text)
        store_write(w->path, w->text, 0600, &w->error);
    else
        store_remove(w->path, &w->error);
    w->done = true;
}

/* Answered; the file is not there yet. */
static void promise(const char *path, const char *text)
{
    struct wish w = {.path = path, .text = text};
    task_start(wish_task, &w);
    while (!w.done)
        g_main_context_iteration(NULL, true);
    g_assert_no_error(w.error);
}

static void change(const char *path, const char *text)
{
    promise(path, text);
    g_assert_cmpint(follow(), ==, 0);
}

static void assert_file(const char *path, const char *text)
{
    g_autofree char *got = NULL;
    g_file_get_contents(path, &got, NULL, NULL);
    g_assert_cmpstr(got, ==, text);
}

/* ---- the disk as a power cut leaves it ---- */

static char *names[NAMES];
static char *texts[CHANGES + 1][NAMES]; /* after so many changes; NULL: not there */
static int64_t times[CHANGES + 1][NAMES];
static unsigned touched[CHANGES + 1]; /* by the change that led there */
static uint8_t *logs[CHANGES + 1];
static size_t log_bytes;

static void name_files(void)
{
    static const char *const below[NAMES] = {"domains/a.xml", "domains/b.xml", "storage/c.xml", "d",
                                             "domains/e f.xml"};
    static const char *const folders[] = {"domains", "storage"};
    for (unsigned i = 0; i < G_N_ELEMENTS(folders); i++) {
        g_autofree char *path = g_build_filename(root, folders[i], NULL);
        g_mkdir_with_parents(path, 0700);
    }
    for (unsigned i = 0; i < NAMES; i++)
        names[i] = g_build_filename(root, below[i], NULL);
}

static int64_t mtime_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec : 0;
}

static void note_state(unsigned step)
{
    gsize bytes;
    for (unsigned i = 0; i < NAMES; i++) {
        g_file_get_contents(names[i], &texts[step][i], NULL, NULL);
        times[step][i] = mtime_of(names[i]);
    }
    g_assert_true(g_file_get_contents(log_path, (char **)&logs[step], &bytes, NULL));
    log_bytes = MIN(bytes, 1 << 20); /* one area is not filled */
    logs[step] = g_realloc(logs[step], log_bytes);
}

static char *some_text(void)
{
    size_t len = (size_t)g_test_rand_int_range(1, LONGEST);
    char *text = g_malloc(len + 1);
    for (size_t i = 0; i < len; i++)
        text[i] = (char)g_test_rand_int_range('a', 'z' + 1);
    text[len] = 0;
    return text;
}

static void make_history(void)
{
    name_files();
    note_state(0);
    for (unsigned step = 1; step <= CHANGES; step++) {
        unsigned i = touched[step] = (unsigned)g_test_rand_int_range(0, NAMES);
        g_autofree char *text =
            texts[step - 1][i] && g_test_rand_int_range(0, 4) == 0 ? NULL : some_text();
        change(names[i], text);
        note_state(step);
    }
}

static void forget_history(void)
{
    for (unsigned step = 0; step <= CHANGES; step++) {
        for (unsigned i = 0; i < NAMES; i++)
            g_free(texts[step][i]);
        g_free(logs[step]);
    }
    for (unsigned i = 0; i < NAMES; i++)
        g_free(names[i]);
}

static void put_time(const char *path, int64_t time)
{
    const struct timespec when = {.tv_sec = time / 1000000000, .tv_nsec = time % 1000000000};
    g_assert_cmpint(utimensat(AT_FDCWD, path, (const struct timespec[]){when, when}, 0), ==, 0);
}

static void put_file(const char *path, const char *text, size_t len, int64_t time)
{
    unlink(path);
    if (!text)
        return;
    g_assert_true(
        g_file_set_contents_full(path, text, (gssize)len, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
    put_time(path, time);
}

/* Nothing of it was synced: any state that there was, or a part of one. */
static void cut_file(unsigned i, unsigned last)
{
    unsigned step = (unsigned)g_test_rand_int_range(0, (int)last + 1);
    const char *text = texts[step][i];
    size_t len = text ? strlen(text) : 0;
    unsigned luck = (unsigned)g_test_rand_int_range(0, 4);
    if (luck == 0)
        len = 0;
    else if (luck == 1)
        len /= 2;
    put_file(names[i], text, len, times[step][i]);
}

/* Of what was being written, each sector may have come or not. */
static void cut_log(unsigned step)
{
    g_autofree uint8_t *bytes = g_memdup2(logs[step], log_bytes);
    for (size_t at = 0; step < CHANGES && at < log_bytes; at += 512)
        if (memcmp(bytes + at, logs[step + 1] + at, 512) != 0 && g_test_rand_int_range(0, 3))
            memcpy(bytes + at, logs[step + 1] + at, 512);
    FILE *f = fopen(log_path, "r+");
    g_assert_nonnull(f);
    g_assert_cmpuint(fwrite(bytes, 1, log_bytes, f), ==, log_bytes);
    fclose(f);
}

static void assert_state(unsigned step)
{
    for (unsigned i = 0; i < NAMES; i++) {
        g_autofree char *got = NULL;
        g_file_get_contents(names[i], &got, NULL, NULL);
        if (step < CHANGES && touched[step + 1] == i && g_strcmp0(got, texts[step + 1][i]) == 0)
            continue; /* not promised, but there */
        g_assert_cmpstr(got, ==, texts[step][i]);
    }
}

static void test_power_cuts(void)
{
    begin();
    make_history();
    store_log_close(false);
    for (unsigned cut = 0; cut < CUTS; cut++) {
        unsigned step = (unsigned)g_test_rand_int_range(0, CHANGES + 1);
        for (unsigned i = 0; i < NAMES; i++)
            cut_file(i, step);
        cut_log(step);
        open_again();
        assert_state(step);
        store_log_close(false);
    }
    forget_history();
    end();
}

/* The mark was lost with the power: all is carried out again, over what had been carried out. */
static void test_twice(void)
{
    begin();
    make_history();
    store_log_close(false);
    for (unsigned cut = 0; cut < CUTS / 4; cut++) {
        unsigned step = (unsigned)g_test_rand_int_range(1, CHANGES + 1);
        for (unsigned i = 0; i < NAMES; i++)
            cut_file(i, step);
        for (unsigned again = 0; again < 3; again++) {
            cut_log(CHANGES); /* whole */
            open_again();
            assert_state(CHANGES);
            store_log_close(false);
            const unsigned torn = (unsigned)g_test_rand_int_range(0, NAMES);
            int64_t time = mtime_of(names[torn]);
            if (time)
                put_file(names[torn], "", 0, time);
        }
    }
    forget_history();
    end();
}

static void test_edited(void)
{
    begin();
    g_autofree char *a = g_build_filename(root, "a", NULL), *b = g_build_filename(root, "b", NULL),
                    *got = NULL;
    change(a, "promised");
    change(b, "promised");
    store_log_close(false);
    put_file(a, "by hand", 7, mtime_of(a) + 60000000000);
    open_again();
    g_assert_true(g_file_get_contents(a, &got, NULL, NULL));
    g_assert_cmpstr(got, ==, "by hand");
    change(b, "later");
    store_close(); /* empty: whatever the times are, nothing is carried out */
    put_file(b, "by hand", 7, 1000000000);
    open_again();
    g_free(g_steal_pointer(&got));
    g_assert_true(g_file_get_contents(b, &got, NULL, NULL));
    g_assert_cmpstr(got, ==, "by hand");
    end();
}

/* Many times what the log can hold, and one text that no area can. */
static void test_long(void)
{
    begin();
    g_autofree char *path = g_build_filename(root, "a", NULL), *got = NULL;
    g_autofree char *text = g_strnfill(300000, 'x'), *longest = g_strnfill(5000000, 'y');
    for (unsigned i = 0; i < 30; i++) {
        text[0] = (char)('a' + i % 26);
        change(path, text);
    }
    change(path, longest);
    store_log_close(false);
    open_again();
    g_assert_true(g_file_get_contents(path, &got, NULL, NULL));
    g_assert_cmpstr(got, ==, longest);
    change(path, text);
    store_log_close(false);
    unlink(path);
    open_again();
    g_free(g_steal_pointer(&got));
    g_assert_true(g_file_get_contents(path, &got, NULL, NULL));
    g_assert_cmpstr(got, ==, text);
    end();
}

/* ---- between the answer and the file ---- */

/* In a process of its own, which is told by its environment: a change is answered, and that is all. */
static void test_dies(void)
{
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) told = g_strsplit(g_getenv("RUCHE_STORE"), ":", 4);
    store_open(told[0], told[1], &error);
    g_assert_no_error(error);
    promise(told[2], told[3]);
    kill(getpid(), SIGKILL);
}

static void promise_and_die(const char *path, const char *text)
{
    g_autofree char *told = g_strjoin(":", log_path, root, path, text, NULL);
    g_setenv("RUCHE_STORE", told, true);
    g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
    g_assert_false(g_test_trap_has_passed());
}

static void test_killed(void)
{
    if (g_test_subprocess()) {
        test_dies();
        return;
    }
    begin();
    g_autofree char *a = g_build_filename(root, "a", NULL), *b = g_build_filename(root, "b", NULL);
    change(a, "old");
    change(b, "goes");
    store_close();
    promise_and_die(a, "new");
    assert_file(a, "old"); /* so it was killed in between */
    promise_and_die(b, NULL);
    assert_file(a, "new"); /* by the one that was killed next */
    assert_file(b, "goes");
    open_again();
    assert_file(a, "new");
    assert_file(b, NULL);
    end();
}

static void test_follows(void)
{
    begin();
    g_autofree char *a = g_build_filename(root, "a", NULL), *got = NULL;
    promise(a, "first");
    assert_file(a, NULL);
    got = store_read(a, 100, NULL);
    g_assert_cmpstr(got, ==, "first"); /* the manager knows it already */
    promise(a, "second");
    g_assert_cmpint(follow(), ==, 0);
    assert_file(a, "second");
    promise(a, NULL);
    g_assert_null(store_read(a, 100, NULL));
    promise(a, "third");
    while (store_follow_find(a)) /* by itself */
        g_main_context_iteration(NULL, true);
    assert_file(a, "third");
    promise(a, NULL);
    promise(a, "fourth");
    promise(a, NULL); /* takes away what may not be there yet */
    size_t room = store_log_room();
    promise(a, NULL); /* and nothing more needs to be promised */
    g_assert_cmpuint(store_log_room(), ==, room);
    g_assert_cmpint(follow(), ==, 0);
    assert_file(a, NULL);
    promise(a, "at the end");
    store_close();
    assert_file(a, "at the end");
    end();
}

/* Changes that come without a pause do not keep what came first from its place. */
static void test_burst(void)
{
    begin();
    g_autofree char *a = g_build_filename(root, "a", NULL), *b = g_build_filename(root, "b", NULL);
    promise(a, "first");
    for (int i = 0; access(a, F_OK) < 0; i++) {
        g_autofree char *text = g_strdup_printf("%d", i);
        promise(b, text);
    }
    assert_file(a, "first");
    g_assert_cmpint(follow(), ==, 0);
    end();
}

/* Who edits a file in between has the last word; what cannot be done yet is done when it can. */
static void test_in_between(void)
{
    begin();
    g_autofree char *a = g_build_filename(root, "a", NULL), *b = g_build_filename(root, "b", NULL);
    promise(a, "promised");
    put_file(a, "by hand", 7, g_get_real_time() * 1000 + 60000000000);
    g_assert_cmpint(follow(), ==, 0);
    assert_file(a, "by hand");
    promise(b, "promised");
    g_assert_cmpint(g_mkdir(b, 0700), ==, 0);
    put_time(b, 1000000000);
    g_assert_cmpint(follow(), ==, EISDIR);
    g_assert_cmpint(g_rmdir(b), ==, 0);
    g_assert_cmpint(follow(), ==, 0);
    assert_file(b, "promised");
    end();
}

/* One that is damaged is put aside; one folder's promises are not another's. */
static void test_other(void)
{
    begin();
    g_autofree char *a = g_build_filename(root, "a", NULL),
                    *bad = g_strdup_printf("%s.bad", log_path), *got = NULL;
    change(a, "promised");
    store_log_close(false);
    unlink(a);
    g_free(root);
    root = g_build_filename(dir, "other", NULL);
    g_mkdir(root, 0700);
    open_again();
    g_assert_true(g_file_get_contents(a, &got, NULL, NULL));
    g_assert_null(store_log_relative(a));
    store_close();
    g_assert_true(g_file_set_contents(log_path, "?", 1, NULL));
    open_again();
    g_assert_true(g_file_test(bad, G_FILE_TEST_EXISTS));
    end();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    scratch_folder("ruche-store");
    g_test_add_func("/store-log/power-cuts", test_power_cuts);
    g_test_add_func("/store-log/twice", test_twice);
    g_test_add_func("/store-log/edited", test_edited);
    g_test_add_func("/store-log/long", test_long);
    g_test_add_func("/store-log/killed", test_killed);
    g_test_add_func("/store-log/follows", test_follows);
    g_test_add_func("/store-log/burst", test_burst);
    g_test_add_func("/store-log/in-between", test_in_between);
    g_test_add_func("/store-log/other", test_other);
    return g_test_run();
}
