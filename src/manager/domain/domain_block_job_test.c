/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Jobs on disks of machines that are not there (fake_vm.h): what they make of the descriptions, what
 * is heard of them, and what a machine or a manager that ends meanwhile leaves.
 *
 * The disk is /i/top, which stands on /i/mid, and that on /i/base.
 */
#include "manager/domain/domain_testing.h"

#include "manager/domain/def_chain.h"

#include <glib/gstdio.h>

/* "kind.status " of each end and readiness; the two events of one are the same. */
static void hear(void *opaque, const struct event *e)
{
    static int old_way;
    if (e->id == DOMAIN_EVENT_BLOCK_JOB)
        old_way = e->event * 10 + e->detail;
    if (e->id != DOMAIN_EVENT_BLOCK_JOB_2)
        return;
    g_assert_cmpint(e->event * 10 + e->detail, ==, old_way);
    g_assert_cmpstr(e->text[0], ==, "vda");
    g_string_append_printf(heard, "%d.%d ", e->event, e->detail);
}

/* As it is found when a machine starts. */
static bool add_chain(struct xml_node *domain, void *opaque, GError **error)
{
    static const char *const paths[] = {"/i/mid", "/i/base"};
    struct xml_node *disk = def_chain_disk(domain, "vda"), *at = disk;
    for (unsigned i = 0; i < G_N_ELEMENTS(paths); i++) {
        at = xml_add(at, "backingStore");
        xml_set(at, "@type", "file");
        xml_set(at, "format@type", "qcow2");
        xml_set(at, "source@file", paths[i]);
    }
    xml_add(at, "backingStore");
    def_chain_count(disk);
    return true;
}

#define XML                                                                                        \
    "<domain type='qemu'><name>web</name><uuid>00000000-0000-4000-8000-000000000001</uuid>"        \
    "<memory unit='MiB'>128</memory><os><type arch='x86_64'>hvm</type></os><devices>"              \
    "<disk type='file'><driver type='qcow2'/><source file='%s'/><target dev='vda'/></disk>"        \
    "<disk type='file' device='cdrom'><target dev='sda'/></disk></devices></domain>"

static struct domain *define(const char *path)
{
    g_autofree char *xml = g_strdup_printf(XML, path);
    g_autoptr(GError) error = NULL;
    struct domain *d = domain_define(me, xml, 0, &error);
    g_assert_no_error(error);
    return d;
}

static struct domain *started(void)
{
    struct domain *d = define("/i/top");
    fake.attach_state = "running";
    WORKS(domain_start(me, d, 0, &error));
    WORKS(domain_lock(d, "begin a test of", &error));
    WORKS(domain_edit(d, true, add_chain, NULL, &error));
    domain_unlock(d);
    return d;
}

/* ---- what is looked at ---- */

static char *chain_of(struct domain_def *def)
{
    GString *s = g_string_new(NULL);
    for (struct xml_node *n = def_chain_disk(domain_def_tree(def), "vda"); n; n = def_chain_next(n))
        g_string_append_printf(s, "%s%s", s->len ? " " : "", def_chain_path(n));
    return g_string_free(s, FALSE);
}

#define CHAIN(def, text)                                                                           \
    do {                                                                                           \
        g_autofree char *chain = chain_of(def);                                                    \
        g_assert_cmpstr(chain, ==, text);                                                          \
    } while (0)
#define WHOLE "/i/top /i/mid /i/base"

/* <mirror>'s file and state, as "file ready". */
static void check_mirror(const struct domain *d, const char *path, const char *ready)
{
    struct xml_node *m = xml_find(def_chain_disk(domain_def_tree(d->live), "vda"), "mirror");
    g_assert_true(!m == !path);
    if (!m)
        return;
    g_assert_cmpstr(xml_get(m, "source@file"), ==, path);
    g_assert_cmpstr(xml_get(m, "@ready"), ==, ready);
}

static struct domain_block_job_info info_of(struct domain *d)
{
    struct domain_block_job_info info;
    WORKS(domain_block_job_info(me, d, "vda", &info, &error));
    return info;
}

/* ---- what the machine tells ---- */

static void told(struct domain *d)
{
    domain_vm_event(d, VM_EV_BLOCK_JOB, 0, (const char *const[4]){NULL}, 0);
    settle();
}

static void ready(struct domain *d)
{
    fake.block_job.ready = true;
    told(d);
}

static void ended(struct domain *d, const char *why)
{
    fake.block_job.over = true;
    g_strlcpy(fake.block_job.why, why, sizeof(fake.block_job.why));
    told(d);
    g_assert_cmpint(fake.block_job.kind, ==, BLOCK_JOB_NONE); /* dismissed */
}

/* ---- pull ---- */

static void pull_task(void *opaque)
{
    struct domain *d = started();
    FAILS(domain_block_pull(me, d, "vdz", NULL, 0, &error), RUCHE_ERR_INVALID, "no disk 'vdz'");
    FAILS(domain_block_pull(me, d, "sda", NULL, 0, &error), MANAGER_ERR_CONFIG, "no file");
    FAILS(domain_block_pull(me, d, "vda", "/i/none", 0, &error), RUCHE_ERR_INVALID, "'/i/none'");
    FAILS(domain_block_pull(me, d, "vda", "/i/top", 0, &error), RUCHE_ERR_INVALID, "beneath");
    fake.fail_block_job = true;
    FAILS(domain_block_pull(me, d, "vda", NULL, 0, &error), MANAGER_ERR_MACHINE, "no job today");
    fake.fail_block_job = false;
    WORKS(domain_block_pull(me, d, "/i/top", "/i/base", 77, &error)); /* a disk by its file */
    g_assert_cmpuint(fake.block_job.b, ==, 2);
    g_assert_cmpuint(fake.block_job.bytes_s, ==, 77);
    FAILS(domain_block_pull(me, d, "vda", NULL, 0, &error), RUCHE_ERR_BUSY, "already in active");
    FAILS(domain_block_job_abort(me, d, "vda", ABORT_PIVOT, &error), RUCHE_ERR_STATE, "pivot");
    CHAIN(d->live, WHOLE);
    ended(d, "No space left on device");
    HEARD("1.1 ");
    CHAIN(d->live, WHOLE);
    WORKS(domain_block_pull(me, d, "vda", "vda[2]", 0, &error));
    ended(d, "");
    HEARD("1.0 ");
    CHAIN(d->live, "/i/top /i/base");
    g_assert_cmpuint(fake.forgotten, ==, 1);
    WORKS(domain_block_pull(me, d, "vda", NULL, 0, &error));
    ended(d, "");
    HEARD("1.0 ");
    CHAIN(d->live, "/i/top");
    CHAIN(d->def, "/i/top");
    g_assert_cmpuint(fake.forgotten, ==, 2);
    WORKS(domain_destroy(me, d, 0, &error));
    FAILS(domain_block_pull(me, d, "vda", NULL, 0, &error), RUCHE_ERR_STATE, "not running");
    drop(d);
}

/* ---- commit ---- */

static bool commit(struct domain *d, const char *base, const char *top, unsigned flags, GError **e)
{
    return domain_block_commit(me, d, "vda", base, top, flags, 0, e);
}

static void commit_task(void *opaque)
{
    struct domain *d = started();
    FAILS(commit(d, NULL, NULL, 0, &error), RUCHE_ERR_INVALID, "requires active flag");
    FAILS(commit(d, NULL, "/i/mid", COMMIT_ACTIVE, &error), RUCHE_ERR_INVALID, "not active");
    FAILS(commit(d, NULL, "/i/base", 0, &error), RUCHE_ERR_INVALID, "no image beneath");
    FAILS(commit(d, "/i/mid", "/i/base", 0, &error), RUCHE_ERR_INVALID, "no image beneath");
    FAILS(commit(d, "/i/base", NULL, COMMIT_SHALLOW | COMMIT_ACTIVE, &error), RUCHE_ERR_INVALID,
          "not immediately below");
    FAILS(commit(d, NULL, "/i/mid", COMMIT_DELETE, &error), MANAGER_ERR_ARGUMENT,
          "unsupported flags");
    WORKS(commit(d, "/i/base", "/i/mid", 0, &error));
    g_assert_cmpint(info_of(d).kind, ==, BLOCK_JOB_COMMIT);
    check_mirror(d, NULL, NULL);
    ended(d, "");
    HEARD("3.0 ");
    CHAIN(d->live, "/i/top /i/base");
    CHAIN(d->def, "/i/top");
    drop(d);
}

static void active_task(void *opaque)
{
    struct domain *d = started();
    fake.fail_block_job = true;
    FAILS(commit(d, NULL, NULL, COMMIT_ACTIVE, &error), MANAGER_ERR_MACHINE, "no job today");
    check_mirror(d, NULL, NULL);
    fake.fail_block_job = false;
    WORKS(commit(d, NULL, NULL, COMMIT_ACTIVE | COMMIT_SHALLOW, &error));
    check_mirror(d, "/i/mid", NULL);
    FAILS(domain_block_job_abort(me, d, "vda", ABORT_PIVOT, &error), RUCHE_ERR_BUSY, "not ready");
    ended(d, "Input/output error");
    HEARD("4.1 ");
    check_mirror(d, NULL, NULL);
    WORKS(commit(d, NULL, NULL, COMMIT_ACTIVE, &error));
    ready(d);
    told(d); /* said once */
    HEARD("4.3 ");
    check_mirror(d, "/i/base", "yes");
    WORKS(domain_block_job_abort(me, d, "vda", 0, &error));
    HEARD("4.2 ");
    CHAIN(d->live, WHOLE);
    check_mirror(d, NULL, NULL);
    WORKS(commit(d, NULL, NULL, COMMIT_ACTIVE, &error));
    ready(d);
    fake.fail_block_job = true;
    FAILS(domain_block_job_abort(me, d, "vda", ABORT_PIVOT, &error), MANAGER_ERR_MACHINE, "listen");
    check_mirror(d, "/i/base", "yes");
    fake.fail_block_job = false;
    WORKS(domain_block_job_abort(me, d, "vda", ABORT_PIVOT, &error));
    HEARD("4.3 4.0 ");
    CHAIN(d->live, "/i/base");
    CHAIN(d->def, "/i/base");
    check_mirror(d, NULL, NULL);
    g_assert_cmpuint(fake.forgotten, ==, 2);
    drop(d);
}

/* ---- copy ---- */

static bool copy(struct domain *d, const struct domain_block_copy *c, GError **error)
{
    return domain_block_copy(me, d, "vda", c, error);
}

static void copy_task(void *opaque)
{
    struct domain *d = started();
    g_autofree char *path = g_build_filename(root, "copy", NULL), *img = manager.img,
                    *shallow = g_strconcat(path, " /i/mid /i/base", NULL);
    struct domain_block_copy c = {.path = "copy"};
    FAILS(copy(d, &c, &error), RUCHE_ERR_INVALID, "not the full path");
    c = (struct domain_block_copy){.path = path, .reuse = true};
    FAILS(copy(d, &c, &error), RUCHE_ERR_NOT_FOUND, path);
    c = (struct domain_block_copy){.path = path, .format = "raw", .shallow = true};
    FAILS(copy(d, &c, &error), MANAGER_ERR_CONFIG, "shallow copy as raw");
    c.format = NULL;
    manager.img = "false"; /* makes no image */
    FAILS(copy(d, &c, &error), RUCHE_ERR_IO, "false");
    check_mirror(d, NULL, NULL);
    manager.img = "true";
    g_assert_true(g_file_set_contents(path, "", 0, NULL));
    fake.fail_block_job = true;
    FAILS(copy(d, &c, &error), MANAGER_ERR_MACHINE, "no job today");
    fake.fail_block_job = false;
    check_mirror(d, NULL, NULL);
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS)); /* what was made goes again */
    WORKS(copy(d, &c, &error));
    check_mirror(d, path, NULL);
    ready(d);
    WORKS(domain_block_job_abort(me, d, "vda", 0, &error));
    HEARD("2.3 2.2 ");
    check_mirror(d, NULL, NULL);
    CHAIN(d->live, WHOLE);
    g_assert_cmpuint(fake.forgotten, ==, 1);
    g_assert_true(g_file_set_contents(path, "x", 1, NULL));
    FAILS(copy(d, &c, &error), RUCHE_ERR_EXISTS, "already exists");
    c.reuse = true;
    WORKS(copy(d, &c, &error));
    ready(d);
    WORKS(domain_block_job_abort(me, d, "vda", ABORT_PIVOT, &error));
    HEARD("2.3 2.0 ");
    CHAIN(d->live, shallow);
    CHAIN(d->def, path);
    g_assert_cmpuint(fake.forgotten, ==, 2);
    manager.img = g_steal_pointer(&img);
    g_unlink(path);
    drop(d);
}

/* A stored description that has another disk by now keeps it. */
static void stored_task(void *opaque)
{
    struct domain *d = started();
    WORKS(commit(d, NULL, NULL, COMMIT_ACTIVE, &error));
    ready(d);
    domain_unref(define("/i/other"));
    WORKS(domain_block_job_abort(me, d, "vda", ABORT_PIVOT, &error));
    CHAIN(d->live, "/i/base");
    CHAIN(d->def, "/i/other");
    drop(d);
}

/* ---- figures, speed ---- */

static void info_task(void *opaque)
{
    struct domain *d = started();
    g_assert_cmpint(info_of(d).kind, ==, BLOCK_JOB_NONE);
    FAILS(domain_block_job_speed(me, d, "vda", 5, &error), RUCHE_ERR_STATE, "active block job");
    FAILS(domain_block_job_abort(me, d, "vda", 0, &error), RUCHE_ERR_STATE, "active block job");
    WORKS(commit(d, NULL, NULL, COMMIT_ACTIVE, &error));
    struct domain_block_job_info info = info_of(d); /* nothing is known yet: that is not "ready" */
    g_assert_cmpint(info.kind, ==, BLOCK_JOB_ACTIVE);
    g_assert_true(!info.ready && info.done < info.total);
    fake.block_job.done = fake.block_job.total = 100;
    info = info_of(d);
    g_assert_true(!info.ready && info.done < info.total);
    fake.block_job.ready = true;
    info = info_of(d);
    g_assert_true(info.ready && info.done == 100 && info.total == 100);
    WORKS(domain_block_job_speed(me, d, "vda", 5, &error));
    g_assert_cmpuint(info_of(d).bytes_s, ==, 5);
    FAILS(domain_block_job_speed(me, d, "vdz", 5, &error), RUCHE_ERR_INVALID, "no disk 'vdz'");
    ended(d, "");
    drop(d);
}

/* ---- a client ends it ---- */

struct ending {
    struct domain *d;
    bool over;
    GError *error;
};

static void ending_task(void *opaque)
{
    struct ending *e = *(struct ending **)opaque;
    domain_block_job_abort(me, e->d, "vda", 0, &e->error);
    e->over = true;
}

static void begin_end(struct ending *e)
{
    fake.slow_block_job = true;
    task_start(ending_task, &e);
    while (!fake.block_job.why[0]) /* told to */
        task_sleep_ms(1);
    g_assert_false(e->over);
}

static void abort_task(void *opaque)
{
    struct ending e = {.d = started()};
    WORKS(domain_block_pull(me, e.d, "vda", NULL, 0, &error));
    fake.slow_block_job = true;
    WORKS(domain_block_job_abort(me, e.d, "vda", ABORT_ASYNC, &error)); /* does not wait */
    HEARD("");
    ended(e.d, "Operation canceled");
    HEARD("1.2 ");
    CHAIN(e.d->live, WHOLE);
    WORKS(domain_block_pull(me, e.d, "vda", NULL, 0, &error));
    begin_end(&e);
    fake.block_job.over = true;
    while (!e.over)
        task_sleep_ms(1);
    g_assert_no_error(e.error);
    HEARD("1.2 ");
    drop(e.d);
}

/* ---- the machine ends, the manager ends ---- */

static void machine_ends_task(void *opaque)
{
    struct ending e = {.d = started()};
    WORKS(commit(e.d, NULL, NULL, COMMIT_ACTIVE, &error));
    begin_end(&e);
    WORKS(domain_destroy(me, e.d, 0, &error));
    g_assert_true(e.over);
    g_assert_error(e.error, RUCHE_ERROR, MANAGER_ERR_MACHINE);
    g_clear_error(&e.error);
    STATE(e.d, DOMAIN_SHUTOFF, SHUTOFF_DESTROYED);
    CHAIN(e.d->def, "/i/top");
    g_assert_null(xml_find(def_chain_disk(domain_def_tree(e.d->def), "vda"), "mirror"));
    HEARD("");
    told(e.d); /* late news of a machine that is no more */
    HEARD("");
    memset(&fake.block_job, 0, sizeof(fake.block_job));
    drop(e.d);
}

static void manager_ends_task(void *opaque)
{
    struct domain *d = started();
    WORKS(domain_block_pull(me, d, "vda", "/i/base", 0, &error));
    fake.block_job.over = true; /* while nobody looks */
    d = born_again(d);
    g_assert_cmpint(fake.block_job.kind, ==, BLOCK_JOB_NONE);
    CHAIN(d->live, "/i/top /i/base");
    HEARD("1.0 ");
    WORKS(commit(d, NULL, NULL, COMMIT_ACTIVE, &error));
    fake.block_job.ready = true;
    d = born_again(d);
    check_mirror(d, "/i/base", "yes");
    d = born_again(d);
    HEARD("4.3 ");
    /* Ready, and its end neither asked for nor made. */
    fake.block_job.over = true;
    d = born_again(d);
    HEARD("4.2 ");
    CHAIN(d->live, "/i/top /i/base");
    drop(d);
}

static void pivot_ends_task(void *opaque)
{
    struct domain *d = started();
    WORKS(commit(d, NULL, NULL, COMMIT_ACTIVE, &error));
    ready(d);
    fake.slow_block_job = true;
    WORKS(domain_block_job_abort(me, d, "vda", ABORT_PIVOT | ABORT_ASYNC, &error));
    check_mirror(d, "/i/base", "pivot");
    d = born_again(d);
    check_mirror(d, "/i/base", "pivot");
    fake.block_job.over = true;
    d = born_again(d);
    HEARD("4.3 4.0 ");
    CHAIN(d->live, "/i/base");
    CHAIN(d->def, "/i/base");
    drop(d);
}

/* <mirror> is written before the job begins; the manager ended in between. */
static void lonely_task(void *opaque)
{
    struct domain *d = started();
    const struct domain_block_copy c = {.path = "/dev/null", .reuse = true};
    WORKS(copy(d, &c, &error));
    fake.block_job.kind = BLOCK_JOB_NONE;
    d = born_again(d);
    check_mirror(d, NULL, NULL);
    CHAIN(d->live, WHOLE);
    HEARD("");
    g_assert_cmpuint(fake.forgotten, ==, 1);
    drop(d);
}

int main(int argc, char **argv)
{
    static const struct domain_test tests[] = {
        {"/block job/pull", pull_task},
        {"/block job/commit", commit_task},
        {"/block job/active commit", active_task},
        {"/block job/copy", copy_task},
        {"/block job/stored description", stored_task},
        {"/block job/figures and speed", info_task},
        {"/block job/abort", abort_task},
        {"/block job/the machine ends", machine_ends_task},
        {"/block job/the manager ends", manager_ends_task},
        {"/block job/the manager ends in a pivot", pivot_ends_task},
        {"/block job/a mirror without its job", lonely_task},
    };
    domain_tests_init(&argc, &argv, hear);
    return domain_tests_run(tests, G_N_ELEMENTS(tests));
}
