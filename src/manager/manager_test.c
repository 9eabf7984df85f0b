/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the core stands on: tasks, workers, programs, files, rights, names of things. */
#include "base/scratch.h"
#include "manager/error.h"
#include "manager/job.h"
#include "manager/manager.h"
#include "manager/store.h"
#include "manager/uuid.h"

#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void run(void (*fn)(void *opaque), void *opaque)
{
    task_start(fn, opaque);
    while (task_count())
        g_main_context_iteration(NULL, true);
}

static char *dir;

/* ---- tasks ---- */

static GString *order;

static void sleeper(void *opaque)
{
    task_sleep_ms(GPOINTER_TO_UINT(opaque));
    g_string_append_printf(order, "%u ", GPOINTER_TO_UINT(opaque));
}

static void test_sleep(void)
{
    order = g_string_new(NULL);
    task_start(sleeper, GUINT_TO_POINTER(60));
    task_start(sleeper, GUINT_TO_POINTER(5));
    run(sleeper, GUINT_TO_POINTER(30));
    g_assert_cmpstr(order->str, ==, "5 30 60 ");
    g_string_free(order, true);
}

static void on_worker(void *opaque)
{
    GThread **who = opaque;
    *who = g_thread_self();
    g_usleep(1000);
}

static void asks_worker(void *opaque)
{
    GThread *who = NULL;
    for (int i = 0; i < 20; i++) {
        task_work(on_worker, &who);
        g_assert_true(who && who != g_thread_self());
        task_yield();
    }
    (*(int *)opaque)++;
}

static void test_work(void)
{
    int done = 0;
    for (int i = 0; i < 50; i++)
        task_start(asks_worker, &done);
    run(asks_worker, &done);
    g_assert_cmpint(done, ==, 51);
}

static void waits_event(void *opaque)
{
    struct task_event *e = opaque;
    g_assert_false(task_event_wait(e, 10));
    g_assert_true(e->timed_out);
    g_assert_true(task_event_wait(e, 10000));
    g_assert_true(task_event_wait(e, 0));
}

static gboolean happens(gpointer opaque)
{
    task_event_happen(opaque);
    task_event_happen(opaque); /* the second is nothing new */
    return G_SOURCE_REMOVE;
}

static void test_event(void)
{
    struct task_event e = {0};
    g_timeout_add(50, happens, &e);
    run(waits_event, &e);
}

static void waits_fd(void *opaque)
{
    int *pipe_fds = opaque;
    g_assert_false(task_wait_fd(pipe_fds[0], G_IO_IN, 10));
    g_assert_cmpint(write(pipe_fds[1], "x", 1), ==, 1);
    g_assert_true(task_wait_fd(pipe_fds[0], G_IO_IN, 1000));
}

static void test_fd(void)
{
    int fds[2];
    g_assert_cmpint(pipe(fds), ==, 0);
    run(waits_fd, fds);
    close(fds[0]);
    close(fds[1]);
}

static void runs_programs(void *opaque)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *out = NULL;
    const char *cat[] = {"cat", NULL},
               *fails[] = {"sh", "-c", "echo first >&2; echo no such thing >&2; exit 3", NULL};
    const char *slow[] = {"sleep", "100", NULL}, *loud[] = {"yes", NULL},
               *missing[] = {"/nowhere/x", NULL};
    const char *leaves[] = {"sh", "-c", "sleep 100 & echo $!", NULL};

    g_assert_true(task_run_program(cat, "over there", 100, 5000, &out, &error));
    g_assert_cmpstr(out, ==, "over there");
    g_assert_false(task_run_program(fails, NULL, 100, 5000, NULL, &error));
    g_assert_cmpstr(error->message, ==, "sh failed with status 3: no such thing");
    g_clear_error(&error);
    g_assert_false(task_run_program(slow, NULL, 100, 100, NULL, &error));
    g_assert_error(error, RUCHE_ERROR, MANAGER_ERR_TIMEOUT);
    g_clear_error(&error);
    g_assert_false(task_run_program(loud, NULL, 1000, 5000, NULL, &error));
    g_assert_cmpstr(error->message, ==, "yes said more than 1000 bytes");
    g_clear_error(&error);
    g_assert_false(task_run_program(missing, NULL, 1000, 5000, NULL, &error));
    g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_NOT_FOUND);
    g_clear_error(&error);
    g_clear_pointer(&out, g_free);
    gint64 begin = g_get_monotonic_time();
    g_assert_true(task_run_program(leaves, NULL, 1000, 20000, &out,
                                   &error)); /* its child holds the pipe open */
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 10000000);
    kill(atoi(out), SIGKILL);
}

static void test_program(void)
{
    run(runs_programs, NULL);
}

static void runs_long(void *opaque)
{
    const char *const argv[] = {"sh", "-c", "echo $$ > \"$0\"; exec sleep 100", opaque, NULL};
    task_run_program(argv, NULL, 100, -1, NULL, NULL);
}

/* A program does not outlive who waits for it, however that one ends. */
static void test_program_orphan(void)
{
    g_autofree char *path = g_build_filename(dir, "pid", NULL), *text = NULL;
    pid_t child = fork();
    if (!child) {
        run(runs_long, path);
        _exit(0);
    }
    while (!g_file_get_contents(path, &text, NULL, NULL) || !*text)
        g_usleep(1000);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    for (int i = 0; i < 5000 && kill(atoi(text), 0) == 0; i++)
        g_usleep(1000);
    g_assert_cmpint(kill(atoi(text), 0), ==, -1);
    g_unlink(path);
}

/* ---- store ---- */

struct many {
    unsigned number, done;
};

static void writes(void *opaque)
{
    struct many *m = opaque;
    g_autofree char *path = g_strdup_printf("%s/many-%u", dir, m->number++);
    g_autofree char *text = g_strnfill(m->number * 100, 'x'), *got = NULL;
    g_autoptr(GError) error = NULL;
    g_assert_true(store_write(path, "old", 0600, &error));
    g_assert_true(store_write(path, text, 0600, &error));
    got = store_read(path, 100000, &error);
    g_assert_cmpstr(got, ==, text);
    g_assert_true(store_remove(path, &error));
    g_assert_true(store_remove(path, &error)); /* gone already: fine */
    g_assert_null(store_read(path, 100000, NULL));
    m->done++;
}

static unsigned names_in(const char *where)
{
    g_autoptr(GDir) d = g_dir_open(where, 0, NULL);
    unsigned n = 0;
    while (g_dir_read_name(d))
        n++;
    return n;
}

static void test_store_many(void)
{
    struct many m = {0};
    for (int i = 0; i < 40; i++)
        task_start(writes, &m);
    run(writes, &m);
    g_assert_cmpuint(m.done, ==, 41);
    g_assert_cmpuint(names_in(dir), ==, 0); /* nor a temporary one */
}

static void fails_to_write(void *opaque)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *missing = g_build_filename(dir, "missing", "file", NULL),
                    *blocked = g_build_filename(dir, "sub", NULL);
    g_assert_false(store_write(missing, "x", 0600, &error));
    g_assert_nonnull(strstr(error->message, missing));
    g_clear_error(&error);
    g_assert_cmpint(g_mkdir(blocked, 0700), ==, 0);
    g_assert_false(store_write(blocked, "x", 0600, &error)); /* a folder is not replaced */
    g_assert_nonnull(error);
    g_assert_cmpint(g_rmdir(blocked), ==, 0);
    g_assert_cmpuint(names_in(dir), ==, 0);
}

static void test_store_errors(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = g_build_filename(dir, "large", NULL);
    run(fails_to_write, NULL);
    g_assert_true(store_write_blocking(path, "12345", 0640, &error));
    g_assert_null(store_read(path, 4, &error));
    g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_NO_SPACE);
    g_clear_error(&error);
    GStatBuf st;
    g_assert_cmpint(g_stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_mode & 0777, ==, 0640);
    g_unlink(path);
    g_assert_null(store_read(dir, 100, &error));
    g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_INVALID);
}

/* A process that replaces a file again and again is killed: the file is always one of its texts,
 * whole, and what was left beside it goes away. */
static void test_store_killed(void)
{
    g_autofree char *path = g_build_filename(dir, "torn", NULL);
    g_autofree char *a = g_strnfill(200000, 'a'), *b = g_strnfill(150000, 'b');
    g_assert_true(store_write_blocking(path, a, 0600, NULL));
    for (int round = 0; round < 20; round++) {
        pid_t child = fork();
        if (!child)
            for (;;) {
                store_write_blocking(path, b, 0600, NULL);
                store_write_blocking(path, a, 0600, NULL);
            }
        g_usleep(1000 + 700 * round);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        g_autofree char *got = store_read(path, 1 << 20, NULL);
        g_assert_true(strcmp(got, a) == 0 || strcmp(got, b) == 0);
        store_clean_dir(dir);
        g_assert_cmpuint(names_in(dir), ==, 1);
    }
    g_unlink(path);
}

static void test_names(void)
{
    static const char *const bad[] = {"", ".", "..", "a/b", "../x", "line\nfeed", "\x7f"};
    g_autofree char *longest = g_strnfill(200, 'n'), *longer = g_strnfill(201, 'n');
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
        g_assert_false(store_name_check("domain", bad[i], NULL));
    g_assert_false(store_name_check("domain", longer, NULL));
    g_assert_true(store_name_check("domain", longest, NULL));
    g_assert_true(store_name_check("domain", "...", NULL));
    g_assert_true(store_name_check("domain", "ruche \xc3\xa9t\xc3\xa9 #1", NULL));
}

/* ---- jobs ---- */

static bool job_counts(struct job *j, void *opaque, char **ret_result, GError **error)
{
    job_step(j, "counting to %d", 3);
    atomic_store(&j->total, 3);
    for (int i = 1; i <= 3; i++) {
        task_sleep_ms(5);
        atomic_store(&j->done, (uint64_t)i);
    }
    *ret_result = g_strdup("three");
    return true;
}

static bool job_until_cancelled(struct job *j, void *opaque, char **ret_result, GError **error)
{
    while (!atomic_load(&j->cancelled))
        task_sleep_ms(1);
    return ruche_error(error, MANAGER_ERR_ABORTED, "as was wanted");
}

static bool job_fails(struct job *j, void *opaque, char **ret_result, GError **error)
{
    return ruche_error(error, RUCHE_ERR_NO_SPACE, "the disk is full");
}

static void job_task(void *opaque)
{
    struct caller reader = {.transport = "unix", .authenticated = true, .read_only = true};
    g_autoptr(GError) error = NULL;
    struct job *counts = job_start(&caller_self, "count", "fingers", job_counts, NULL);
    g_assert_cmpstr(counts->step, ==, "counting to 3");
    g_assert_false(job_wait(counts, 0));
    g_assert_true(job_wait(counts, 10000));
    g_assert_cmpint(counts->state, ==, JOB_DONE);
    g_assert_cmpstr(counts->result, ==, "three");
    g_assert_cmpuint(atomic_load(&counts->done), ==, 3);
    g_assert_false(job_cancel(&caller_self, counts, &error));
    g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_STATE);
    g_clear_error(&error);

    struct job *waits = job_start(&caller_self, "wait", "for ever", job_until_cancelled, NULL);
    g_assert_false(job_cancel(&reader, waits, NULL));
    g_assert_true(job_cancel(&caller_self, waits, &error));
    g_assert_true(job_wait(waits, -1));
    g_assert_cmpint(waits->state, ==, JOB_CANCELLED);

    struct job *fails = job_start(&caller_self, "fill", "disk", job_fails, NULL);
    g_assert_true(job_wait(fails, -1));
    g_assert_cmpint(fails->state, ==, JOB_FAILED);
    g_assert_error(fails->error, RUCHE_ERROR, RUCHE_ERR_NO_SPACE);

    struct job *found = job_find(waits->id, &error); /* ended ones can still be asked for */
    g_assert_true(found == waits);
    g_assert_null(job_find(999, NULL));
    g_autoptr(GPtrArray) all = job_list(&reader);
    g_assert_cmpuint(all->len, ==, 3);
    job_unref(counts);
    job_unref(waits);
    job_unref(fails);
    job_unref(found);
}

static void test_jobs(void)
{
    run(job_task, NULL);
}

/* ---- rights, the log, UUIDs, places ---- */

static void test_access(void)
{
    struct caller c = {.transport = "unix", .uid = 1000, .pid = 7, .read_only = true};
    g_autoptr(GError) error = NULL;
    g_assert_false(access_check(&c, RIGHT_READ, "list domains", &error));
    g_assert_error(error, RUCHE_ERROR, MANAGER_ERR_DENIED);
    g_clear_error(&error);
    c.authenticated = true;
    g_assert_true(access_check(&c, RIGHT_READ, "list domains", NULL));
    for (int right = RIGHT_READ_SECURE; right <= RIGHT_HOST; right++) {
        g_assert_false(access_check(&c, right, "define domain 'web'", &error));
        g_assert_error(error, RUCHE_ERROR, MANAGER_ERR_READ_ONLY);
        g_clear_error(&error);
        g_assert_true(access_check(&caller_self, right, "define domain 'web'", NULL));
    }
}

static void test_audit(void)
{
    struct caller c = {.transport = "unix", .name = (char *)"eve\nuid=0", .uid = 1000, .pid = 7};
    g_autoptr(GError) why = g_error_new(RUCHE_ERROR, RUCHE_ERR_BUSY, "disk \"a\" is in use");
    g_autofree char *path = g_build_filename(dir, "audit.log", NULL), *text = NULL;
    manager.log_dir = dir;
    audit(&c, "define", "domain 'web'", NULL);
    audit(&c, "start", "domain 'web'", why);
    manager.log_dir = NULL;
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_auto(GStrv) lines = g_strsplit(text, "\n", 0);
    g_assert_cmpuint(g_strv_length(lines), ==,
                     3); /* the last is empty: a name makes no line of its own */
    g_assert_true(g_str_has_suffix(
        lines[0], " via=unix uid=1000 pid=7 user=\"eve\\nuid=0\" operation=\"define\" "
                  "object=\"domain 'web'\" result=done"));
    g_assert_true(g_str_has_suffix(lines[1], " result=failed why=\"disk \\\"a\\\" is in use\""));
    g_unlink(path);
}

static void test_uuid(void)
{
    uint8_t u[16], v[16];
    char text[UUID_TEXT_BYTES];
    g_assert_true(uuid_parse("C7A5fdbd-edaf-9455-926a-d65c16db1809", u));
    uuid_format(u, text);
    g_assert_cmpstr(text, ==, "c7a5fdbd-edaf-9455-926a-d65c16db1809");
    g_assert_true(uuid_parse("c7a5fdbdedaf9455926ad65c16db1809", v));
    g_assert_true(uuid_equal(u, v) && uuid_hash(u) == uuid_hash(v));
    g_assert_false(uuid_parse("c7a5fdbdedaf9455926ad65c16db180", v));
    g_assert_false(uuid_parse("c7a5fdbdedaf9455926ad65c16db18091", v));
    g_assert_false(uuid_parse("x7a5fdbdedaf9455926ad65c16db1809", v));
    uuid_random(v);
    uuid_format(v, text);
    g_assert_true(uuid_is_valid(v) && text[14] == '4' && strchr("89ab", text[19]));
    memset(v, 0xff, 16);
    g_assert_false(uuid_is_valid(v));
}

static void test_config(void)
{
    manager_config_init(false);
    g_assert_cmpstr(manager.config_dir, ==, "/etc/ruche");
    g_assert_cmpstr(manager.runtime_dir, ==, "/run/ruche");
    g_assert_cmpstr(manager.uri, ==, "qemu:///system");
    g_assert_true(uuid_is_valid(manager.host_uuid));
    uint8_t before[16];
    memcpy(before, manager.host_uuid, 16);
    manager_config_init(true);
    g_assert_true(manager.session && g_str_has_suffix(manager.config_dir, "/ruche"));
    g_assert_true(g_str_has_prefix(manager.log_dir, manager.state_dir));
    g_assert_true(memcmp(before, manager.host_uuid, 16) == 0); /* the same host */
    manager_config_done();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    dir = scratch_folder("ruche-manager");
    g_test_add_func("/task/program-orphan",
                    test_program_orphan); /* the first: it forks while there are no threads */
    g_test_add_func("/task/sleep", test_sleep);
    g_test_add_func("/task/work", test_work);
    g_test_add_func("/task/event", test_event);
    g_test_add_func("/task/fd", test_fd);
    g_test_add_func("/task/program", test_program);
    g_test_add_func("/store/many", test_store_many);
    g_test_add_func("/store/errors", test_store_errors);
    g_test_add_func("/store/killed", test_store_killed);
    g_test_add_func("/store/names", test_names);
    g_test_add_func("/job/life", test_jobs);
    g_test_add_func("/access/rights", test_access);
    g_test_add_func("/access/audit", test_audit);
    g_test_add_func("/manager/uuid", test_uuid);
    g_test_add_func("/manager/config", test_config);
    return g_test_run();
}
