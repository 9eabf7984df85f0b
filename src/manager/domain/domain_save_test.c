/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Saving and restoring machines that are not there (fake_vm.h): states, events, files; what a
 * killed manager leaves. And the files' heads.
 */
#include "manager/domain/domain_testing.h"
#include "manager/domain/save_file.h"
#include "manager/job.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void hear(void *opaque, const struct event *e)
{
    if (e->id == DOMAIN_EVENT_LIFECYCLE)
        g_string_append_printf(heard, "%d.%d ", e->event, e->detail);
    else
        g_string_append_printf(heard, "#%d ", e->id);
}

static char *xml_of(const char *name, const char *more)
{
    return g_strdup_printf(
        "<domain type='qemu'><name>%s</name><uuid>00000000-0000-4000-8000-000000000001</uuid>"
        "<memory unit='MiB'>128</memory><vcpu>2</vcpu><os><type arch='x86_64'>hvm</type></os>"
        "<devices><disk><source file='/tmp/a.img'/><target dev='vda'/></disk>%s</devices></domain>",
        name, more);
}

static struct domain *define(void)
{
    g_autofree char *xml = xml_of("web", "");
    g_autoptr(GError) error = NULL;
    struct domain *d = domain_define(me, xml, 0, &error);
    g_assert_no_error(error);
    return d;
}

static struct domain *started(void)
{
    struct domain *d = define();
    WORKS(domain_start(me, d, 0, &error));
    g_string_truncate(heard, 0);
    return d;
}

static char *file(void)
{
    return g_build_filename(root, "web.saved", NULL);
}

static unsigned files_in(const char *folder)
{
    unsigned count = 0;
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    while (dir && g_dir_read_name(dir))
        count++;
    return count;
}

/* ---- save and restore ---- */

static bool restore(const char *path, const char *xml, unsigned flags, GError **error)
{
    auto_domain *d = domain_restore(me, path, xml, flags, NULL, error);
    return d != NULL;
}

static void save_task(void *opaque)
{
    struct domain *d = started();
    g_autofree char *path = file(), *text = NULL;
    struct domain_job_info info;
    FAILS(restore(path, NULL, 0, &error), RUCHE_ERR_NOT_FOUND, path);
    FAILS(domain_save(me, d, "relative", NULL, 0, NULL, &error), RUCHE_ERR_INVALID, "full path");
    STATE(d, DOMAIN_RUNNING, RUNNING_SAVE_CANCELED);
    FAILS(domain_save(me, d, path, NULL, 6, NULL, &error), RUCHE_ERR_INVALID, "exclude");
    g_string_truncate(heard, 0);
    WORKS(domain_save(me, d, path, NULL, 0, NULL, &error));
    STATE(d, DOMAIN_SHUTOFF, SHUTOFF_SAVED);
    HEARD("3.0 #21 5.4 ");
    WORKS(domain_job_info(me, d, true, false, &info, &error));
    g_assert_cmpint(info.type, ==, DOMAIN_JOB_COMPLETED);
    g_assert_cmpint(info.operation, ==, DOMAIN_JOB_SAVE);
    WORKS(domain_job_info(me, d, true, false, &info, &error));
    g_assert_cmpint(info.type, ==, DOMAIN_JOB_NONE);
    FAILS(domain_save(me, d, path, NULL, 0, NULL, &error), RUCHE_ERR_STATE, "not running");
    text = domain_save_xml(me, path, DEF_FORMAT_SECURE, NULL);
    g_assert_nonnull(strstr(text, "<name>web</name>"));
    WORKS(restore(path, NULL, 0, &error));
    STATE(d, DOMAIN_RUNNING, RUNNING_RESTORED);
    HEARD("2.2 4.2 ");
    FAILS(restore(path, NULL, 0, &error), RUCHE_ERR_STATE, "already active");
    WORKS(domain_destroy(me, d, 0, &error));
    g_string_truncate(heard, 0);
    WORKS(restore(path, NULL, SAVE_AS_PAUSED, &error));
    STATE(d, DOMAIN_PAUSED, PAUSED_USER);
    HEARD("2.2 3.4 ");
    WORKS(domain_save(me, d, path, NULL, 0, NULL, &error)); /* over the old one */
    HEARD("#21 5.4 ");
    WORKS(restore(path, NULL, 0, &error));
    STATE(d, DOMAIN_PAUSED, PAUSED_USER);
    drop(d);
    WORKS(restore(path, NULL, SAVE_AS_RUNNING, &error)); /* transient now */
    d = domain_find_name("web", NULL);
    g_assert_false(d->persistent);
    WORKS(domain_destroy(me, d, 0, &error));
    domain_unref(d);
    g_unlink(path);
    g_string_truncate(heard, 0);
}

static void failing_task(void *opaque)
{
    struct domain *d = started();
    g_autofree char *path = file();
    unsigned files = files_in(root);
    struct domain_job_info info;
    fake.fail_stream = true;
    FAILS(domain_save(me, d, path, NULL, 0, NULL, &error), MANAGER_ERR_MACHINE, "stream broke");
    STATE(d, DOMAIN_RUNNING, RUNNING_SAVE_CANCELED);
    HEARD("3.0 4.0 ");
    g_assert_cmpuint(files_in(root), ==, files);
    WORKS(domain_job_info(me, d, true, true, &info, &error));
    g_assert_cmpint(info.type, ==, DOMAIN_JOB_FAILED);
    g_assert_nonnull(strstr(info.why, "broke"));
    fake.fail_stream = false;
    WORKS(domain_save(me, d, path, NULL, 0, NULL, &error));
    fake.fail_stream = true;
    FAILS(restore(path, NULL, 0, &error), MANAGER_ERR_MACHINE, "stream broke");
    STATE(d, DOMAIN_SHUTOFF, SHUTOFF_FAILED);
    fake.fail_stream = false;
    WORKS(restore(path, NULL, 0, &error)); /* the file is still there */
    g_unlink(path);
    drop(d);
}

struct saving {
    struct domain *d;
    char *path;
    bool over;
    GError *error;
};

static void saving_task(void *opaque)
{
    struct saving *s = *(struct saving **)opaque;
    domain_save(me, s->d, s->path, NULL, 0, NULL, &s->error);
    s->over = true;
}

static void cancel_task(void *opaque)
{
    struct saving s = {.d = started(), .path = file()}, *at = &s;
    struct domain_job_info info;
    FAILS(domain_abort_job(me, s.d, &error), RUCHE_ERR_STATE, "no job");
    fake.stream_polls = 100000;
    task_start(saving_task, &at);
    for (info.total = 0; !info.total; task_sleep_ms(1))
        WORKS(domain_job_info(me, s.d, false, false, &info, &error));
    g_assert_cmpint(info.type, ==, DOMAIN_JOB_UNBOUNDED);
    STATE(s.d, DOMAIN_PAUSED, PAUSED_SAVE);
    WORKS(domain_set_max_speed(me, s.d, 10, &error));
    WORKS(domain_abort_job(me, s.d, &error));
    while (!s.over)
        task_sleep_ms(1);
    g_assert_error(s.error, RUCHE_ERROR, MANAGER_ERR_ABORTED);
    STATE(s.d, DOMAIN_RUNNING, RUNNING_SAVE_CANCELED);
    g_assert_false(g_file_test(s.path, G_FILE_TEST_EXISTS));
    g_clear_error(&s.error);
    g_free(s.path);
    drop(s.d);
}

/* ---- managed ---- */

static void managed_task(void *opaque)
{
    struct domain *d = started();
    g_autofree char *path = domain_managed_save_path("web"), *text = NULL;
    WORKS(domain_managed_save(me, d, 0, NULL, &error));
    g_assert_true(d->managed_save && g_file_test(path, G_FILE_TEST_EXISTS));
    HEARD("3.0 #21 5.4 ");
    FAILS(domain_undefine(me, d, 0, &error), RUCHE_ERR_STATE, "managed save");
    FAILS(domain_rename(me, d, "other", &error), RUCHE_ERR_STATE, "managed save");
    d = born_again(d);
    g_assert_true(d->managed_save);
    g_autoptr(GPtrArray) saved = domain_list(me, 1 << 8), not_saved = domain_list(me, 1 << 9);
    g_assert_cmpuint(saved->len, ==, 1);
    g_assert_cmpuint(not_saved->len, ==, 0);
    text = domain_managed_save_xml(me, d, 0, NULL);
    g_assert_nonnull(text);
    fake.fail_start = true;
    FAILS(domain_start(me, d, 0, &error), MANAGER_ERR_MACHINE, "force-boot");
    g_assert_true(d->managed_save && g_file_test(path, G_FILE_TEST_EXISTS));
    fake.fail_start = false;
    g_string_truncate(heard, 0);
    WORKS(domain_start(me, d, 0, &error));
    STATE(d, DOMAIN_RUNNING, RUNNING_RESTORED);
    g_assert_false(d->managed_save || g_file_test(path, G_FILE_TEST_EXISTS));
    WORKS(domain_managed_save(me, d, SAVE_AS_PAUSED, NULL, &error));
    g_string_truncate(heard, 0);
    WORKS(domain_start(me, d, START_FORCE_BOOT, &error));
    STATE(d, DOMAIN_RUNNING, RUNNING_BOOTED);
    HEARD("2.0 ");
    g_assert_false(d->managed_save || g_file_test(path, G_FILE_TEST_EXISTS));
    drop(d);
}

/* ---- the same guest ---- */

static void guest_task(void *opaque)
{
    struct domain *d = started();
    g_autofree char *path = file(), *text = NULL,
                    *other = xml_of(
                        "web",
                        "<rng model='virtio'><backend model='random'>/dev/random</backend></rng>");
    WORKS(domain_save(me, d, path, NULL, 0, NULL, &error));
    FAILS(domain_save_define(me, path, other, 0, &error), MANAGER_ERR_CONFIG, "another machine");
    text = domain_save_xml(me, path, DEF_FORMAT_SECURE, NULL);
    g_auto(GStrv) parts = g_strsplit(text, "/tmp/a.img", 2);
    g_autofree char *moved = g_strjoin("/tmp/moved.img", parts[0], parts[1], NULL);
    WORKS(domain_save_define(me, path, moved, SAVE_AS_PAUSED, &error));
    WORKS(domain_save_define(me, path, moved, SAVE_AS_PAUSED, &error));
    g_auto(GStrv) halves = g_strsplit(text, "<vcpu placement='static'>2<", 2);
    g_assert_nonnull(halves[1]);
    g_autofree char *more = g_strjoin("<vcpu placement='static'>3<", halves[0], halves[1], NULL);
    FAILS(restore(path, more, 0, &error), MANAGER_ERR_CONFIG, "'vcpu' is");
    WORKS(restore(path, NULL, 0, &error));
    STATE(d, DOMAIN_PAUSED, PAUSED_USER);
    g_assert_nonnull(strstr(d->live->text, "/tmp/moved.img"));
    g_unlink(path);
    drop(d);
}

/* ---- killed ---- */

static void killed_task(void *opaque)
{
    struct domain *d = started();
    struct stat st;
    g_autofree char *path = file(), *temporary = g_build_filename(root, "temporary", NULL);
    fake.attach_state = "paused";
    for (int finished = 0; finished < 2; finished++) {
        g_assert_true(g_file_set_contents(finished ? path : temporary, "x", -1, NULL));
        struct domain_job *j = domain_job_begin(d, DOMAIN_JOB_SAVE, NULL);
        j->resume = j->finishing = true;
        j->path = g_strdup(path);
        j->temporary = g_strdup(temporary);
        g_assert_cmpint(stat(finished ? path : temporary, &st), ==, 0);
        j->inode = st.st_ino;
        domain_set_state(d, DOMAIN_PAUSED, PAUSED_SAVE);
        d = born_again(d);
        g_assert_false(g_file_test(temporary, G_FILE_TEST_EXISTS));
        if (finished)
            STATE(d, DOMAIN_SHUTOFF, SHUTOFF_SAVED);
        else
            STATE(d, DOMAIN_RUNNING, RUNNING_SAVE_CANCELED);
    }
    /* Restored, and killed before its state was taken away. */
    g_autofree char *used = domain_managed_save_path("web"), *dir = g_path_get_dirname(used);
    g_mkdir_with_parents(dir, 0700);
    WORKS(domain_start(me, d, START_PAUSED, &error));
    g_assert_true(g_file_set_contents(used, "x", -1, NULL));
    struct domain_job *j = domain_job_begin(d, DOMAIN_JOB_RESTORE, NULL);
    j->resume = true;
    j->used = g_strdup(used);
    domain_set_state(d, DOMAIN_PAUSED, PAUSED_USER);
    d = born_again(d);
    STATE(d, DOMAIN_RUNNING, RUNNING_RESTORED);
    g_assert_false(d->managed_save || g_file_test(used, G_FILE_TEST_EXISTS));
    g_unlink(path);
    drop(d);
}

/* ---- core files ---- */

static void dump_task(void *opaque)
{
    struct domain *d = started();
    g_autofree char *path = file(), *dumps = g_build_filename(manager.state_dir, "dump", NULL),
                    *xml = xml_of("web", "");
    FAILS(domain_dump(me, d, path, 0, DUMP_CRASH | DUMP_LIVE, NULL, &error), RUCHE_ERR_INVALID,
          "exclude");
    FAILS(domain_dump(me, d, path, 1, 0, NULL, &error), MANAGER_ERR_CONFIG, "memory alone");
    FAILS(domain_dump(me, d, path, 9, DUMP_MEMORY_ONLY, NULL, &error), RUCHE_ERR_INVALID,
          "no format 9");
    WORKS(domain_dump(me, d, path, 0, DUMP_MEMORY_ONLY, NULL, &error));
    STATE(d, DOMAIN_RUNNING, RUNNING_UNPAUSED);
    HEARD("3.0 4.0 #21 ");
    WORKS(domain_dump(me, d, path, 0, DUMP_LIVE, NULL, &error));
    HEARD("#21 ");
    fake.fail_stream = true;
    FAILS(domain_dump(me, d, path, 0, DUMP_RESET, NULL, &error), MANAGER_ERR_MACHINE, "broke");
    STATE(d, DOMAIN_RUNNING, RUNNING_UNPAUSED);
    g_assert_cmpuint(fake.resets, ==, 0);
    fake.fail_stream = false;
    WORKS(domain_dump(me, d, path, 0, DUMP_RESET, NULL, &error));
    g_assert_cmpuint(fake.resets, ==, 1);
    WORKS(domain_dump(me, d, path, 0, DUMP_CRASH, NULL, &error));
    STATE(d, DOMAIN_SHUTOFF, SHUTOFF_CRASHED);
    drop(d);
    g_unlink(path);
    /* A guest that panics is dumped, and begins anew. */
    g_auto(GStrv) halves = g_strsplit(xml, "<devices>", 2);
    g_autofree char *crashing =
        g_strjoin("<on_crash>coredump-restart</on_crash><devices>", halves[0], halves[1], NULL);
    d = domain_define(me, crashing, 0, NULL);
    WORKS(domain_start(me, d, 0, &error));
    fake.resets = 0;
    domain_vm_event(d, VM_EV_PANIC, 0, (const char *const[4]){NULL}, 0);
    while (task_count() > 1)
        task_sleep_ms(1);
    STATE(d, DOMAIN_RUNNING, RUNNING_BOOTED);
    g_assert_cmpuint(fake.resets, ==, 1);
    g_assert_cmpuint(files_in(dumps), ==, 1);
    drop(d);
}

/* ---- files ---- */

static int head_of(const uint8_t *block, size_t len)
{
    struct save_head h;
    return save_head_read(block, len, &h);
}

static void test_head(void)
{
    uint8_t block[SAVE_HEAD_BYTES];
    struct save_head h = {.state = SAVE_PAUSED, .slot = 1, .slot_bytes = 8192, .xml_bytes = 5000},
                     again;
    save_head_write(&h, block);
    g_assert_cmpint(save_head_read(block, sizeof(block), &again), ==, 0);
    g_assert_cmpmem(&h, sizeof(h), &again, sizeof(again));
    g_assert_cmpuint(save_head_stream(&h), ==, 4096 + 2 * 8192);
    g_assert_cmpint(head_of(block, 20), ==, -EBADMSG);
    static const struct {
        unsigned at;
        uint8_t byte;
        int wanted;
    } damage[] = {{0, 'X', -EBADMSG}, {16, 2, -EPROTONOSUPPORT}, {20, 7, -ERANGE},
                  {24, 2, -ERANGE},   {28, 1, -ERANGE},          {31, 255, -ERANGE},
                  {33, 0x40, -ERANGE}};
    for (unsigned i = 0; i < G_N_ELEMENTS(damage); i++) {
        uint8_t kept = block[damage[i].at];
        block[damage[i].at] = damage[i].byte;
        g_assert_cmpint(head_of(block, sizeof(block)), ==, damage[i].wanted);
        block[damage[i].at] = kept;
    }
}

static void test_file(void)
{
    g_autofree char *path = file(), *xml = NULL;
    g_autoptr(GError) error = NULL;
    struct save_file f;
    struct save_head h;
    char word[6] = "";
    g_assert_true(save_file_new(path, &f, &error) &&
                  save_file_begin(&f, "<a/>", SAVE_RUNNING, &error));
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    g_assert_cmpint(write(f.fd, "state", 5), ==, 5);
    g_assert_true(save_file_commit(&f, &error));
    save_file_done(&f);
    for (const char *text = "<a/>"; text;
         text = strcmp(text, "<b>longer</b>") ? "<b>longer</b>" : NULL) {
        int fd = save_file_open(path, &h, &xml, &error);
        g_assert_no_error(error);
        g_assert_cmpstr(xml, ==, text);
        g_assert_cmpint(read(fd, word, 5), ==, 5);
        g_assert_cmpstr(word, ==, "state");
        FAILS(save_file_set_xml(path, "<c/>", SAVE_PAUSED, &error), RUCHE_ERR_BUSY, "in use");
        close(fd);
        g_clear_pointer(&xml, g_free);
        g_assert_true(save_file_set_xml(path, "<b>longer</b>", SAVE_PAUSED, &error));
    }
    g_autofree char *long_text = g_strnfill(100000, 'x');
    FAILS(save_file_set_xml(path, long_text, SAVE_PAUSED, &error), MANAGER_ERR_OVERFLOW,
          "has room for");
    int fd = open(path, O_WRONLY);
    g_assert_cmpint(pwrite(fd, "y", 1, 4096 + 3), ==, 1);
    g_assert_cmpint(pwrite(fd, "y", 1, 4096 + (off_t)h.slot_bytes + 3), ==, 1);
    FAILS(save_file_open(path, &h, &xml, &error) >= 0, RUCHE_ERR_INVALID, "description is damaged");
    g_assert_cmpint(ftruncate(fd, 5000), ==, 0);
    FAILS(save_file_open(path, &h, &xml, &error) >= 0, RUCHE_ERR_INVALID, "its end is missing");
    close(fd);
    FAILS(save_file_open("/dev/null", &h, &xml, &error) >= 0, RUCHE_ERR_INVALID, "regular");
    FAILS(save_file_new(root, &f, &error), RUCHE_ERR_INVALID, "not a regular file");
    g_unlink(path);
}

int main(int argc, char **argv)
{
    static const struct domain_test tests[] = {
        {"/save/save and restore", save_task},
        {"/save/what fails", failing_task},
        {"/save/cancelled", cancel_task},
        {"/save/managed", managed_task},
        {"/save/same guest", guest_task},
        {"/save/killed", killed_task},
        {"/save/dump", dump_task},
    };
    domain_tests_init(&argc, &argv, hear);
    g_test_add_func("/save/head", test_head);
    g_test_add_func("/save/file", test_file);
    return domain_tests_run(tests, G_N_ELEMENTS(tests));
}
