/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domains on machines that are not there (fake_vm.h). */
#include "manager/domain/domain_testing.h"

#include <glib/gstdio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- defining ---- */

static void define_task(void *opaque)
{
    auto_domain *d = numbered("web", 1, "");
    HEARD("web:0.0 ");
    g_assert_true(d->persistent && !domain_is_active(d) && has_file("config/domains", "web"));
    auto_domain *again = numbered("web", 1, "<title>two</title>");
    g_assert_true(again == d);
    HEARD("web:0.1 ");
    g_autofree char *other_name = numbered_xml("db", 1, ""),
                    *other_uuid = numbered_xml("web", 2, ""), *slash = numbered_xml("a/b", 3, "");
    FAILS(domain_define(me, other_name, 0, &error), RUCHE_ERR_EXISTS,
          "domain 'web' is already defined with uuid 00000000-0000-4000-8000-000000000001");
    FAILS(domain_define(me, other_uuid, 0, &error), RUCHE_ERR_EXISTS,
          "domain 'web' already exists with uuid 00000000-0000-4000-8000-000000000001");
    g_assert_null(domain_define(me, slash, 0, NULL));
    FAILS(domain_define(me, other_name, 8, &error), MANAGER_ERR_ARGUMENT,
          "unsupported flags (0x8)");
    g_autofree char *dumps = numbered_xml("dumps", 4, "<on_crash>rename-restart</on_crash>");
    FAILS(domain_define(me, dumps, 0, &error), MANAGER_ERR_CONFIG,
          "<on_crash>: 'rename-restart' cannot be done; use 'destroy' or 'restart'");
    struct caller reader = {.transport = "unix", .authenticated = true, .read_only = true};
    FAILS(domain_define(&reader, other_name, 0, &error), MANAGER_ERR_READ_ONLY, "");
    FAILS(domain_undefine(&reader, d, 0, &error), MANAGER_ERR_READ_ONLY, "undefine domain 'web'");
    HEARD("");
    g_assert_cmpuint(domain_count(false), ==, 1);
    reborn();
    g_assert_cmpuint(domain_count(false), ==, 1);
    auto_domain *found = domain_find_name("web", NULL);
    g_assert_cmpstr(domain_summary(found)->title, ==, "two");
    WORKS(domain_undefine(me, found, 0, &error));
    HEARD("web:1.0 ");
    g_assert_false(has_file("config/domains", "web"));
    FAILS(domain_find_name("web", &error), MANAGER_ERR_NO_DOMAIN,
          "no domain with matching name 'web'");
    FAILS(domain_start(me, found, 0, &error), MANAGER_ERR_NO_DOMAIN, "web");
}

/* By hand, while no manager runs. */
static void edit(const char *name, const char *from, const char *to)
{
    g_autofree char *path = g_strdup_printf("%s/config/domains/%s.xml", root, name), *text = NULL;
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_auto(GStrv) parts = g_strsplit(text, from, 2);
    g_assert_nonnull(parts[1]);
    g_autofree char *edited = g_strjoinv(to, parts);
    domains_stop();
    g_assert_true(g_file_set_contents(path, edited, -1, NULL));
    WORKS(domains_load(&error));
    settle();
}

/* What we wrote is known again; what was edited is read as anything else from outside. */
static void known_task(void *opaque)
{
    auto_domain *d = numbered("web", 1, "<title>one</title>");
    g_autofree char *text = g_strdup(d->def->text);
    reborn();
    auto_domain *same = domain_find_name("web", NULL);
    g_assert_cmpstr(domain_summary(same)->title, ==, "one");
    g_assert_cmpstr(same->def->text, ==, text);
    edit("web", "<title>one</title>", "<title>two</title>");
    auto_domain *edited = domain_find_name("web", NULL);
    g_assert_cmpstr(domain_summary(edited)->title, ==, "two");
    edit("web", "placement='static'", "placement='nowhere'");
    g_assert_null(domain_find_name("web", NULL));
    edit("web", "placement='nowhere'", "placement='static'");
    auto_domain *again = domain_find_name("web", NULL);
    WORKS(domain_undefine(me, again, 0, &error));
    HEARD("web:0.0 web:1.0 ");
}

static void define_one(void *opaque)
{
    auto_domain *d = numbered("same", 7, "");
    g_assert_nonnull(d);
    (*(unsigned *)opaque)++;
}

/* Many define the same at once: one is added, the others change it. */
static void define_many_task(void *opaque)
{
    unsigned done = 0;
    for (int i = 0; i < 10; i++)
        task_start(define_one, &done);
    g_assert_null(domain_find_name("same", NULL)); /* not before it is stored */
    g_autoptr(GPtrArray) list = domain_list(me, 0);
    g_assert_cmpuint(list->len, ==, 0);
    while (done < 10)
        task_sleep_ms(1);
    g_assert_true(g_str_has_prefix(heard->str, "same:0.0 same:0.1 same:0.1 "));
    g_string_truncate(heard, 0);
    auto_domain *d = domain_find_name("same", NULL);
    WORKS(domain_undefine(me, d, 127 & ~8 & ~64, &error));
    HEARD("same:1.0 ");
}

static void list_task(void *opaque)
{
    auto_domain *b = numbered("b", 2, ""), *a = numbered("a", 1, ""), *c = numbered("c", 3, "");
    WORKS(domain_start(me, b, 0, &error));
    WORKS(domain_set_autostart(me, c, true, &error));
    static const struct {
        unsigned flags;
        const char *names;
    } rows[] = {{0, "abc"},     {1, "b"},       {2, "ac"},          {3, "abc"},
                {4, "abc"},     {8, ""},        {16, "b"},          {32, ""},
                {64, "ac"},     {1 << 10, "c"}, {2 | 1 << 11, "a"}, {1 << 8, ""},
                {1 << 9, "abc"}};
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(GPtrArray) list = domain_list(me, rows[i].flags);
        g_autoptr(GString) names = g_string_new(NULL);
        for (unsigned k = 0; k < list->len; k++)
            g_string_append(names, ((struct domain *)list->pdata[k])->name);
        g_assert_cmpstr(names->str, ==, rows[i].names);
    }
    g_assert_cmpuint(domain_count(true), ==, 1);
    g_assert_cmpuint(domain_count(false), ==, 2);
    auto_domain *found = domain_find_id(b->id, NULL);
    g_assert_true(found == b);
    WORKS(domain_destroy(me, b, 0, &error));
    WORKS(domain_undefine(me, a, 0, &error) && domain_undefine(me, b, 0, &error) &&
          domain_undefine(me, c, 0, &error));
    g_assert_false(g_file_test("config/autostart/c.xml", G_FILE_TEST_IS_SYMLINK));
    g_string_truncate(heard, 0);
}

/* ---- life ---- */

static void life_task(void *opaque)
{
    auto_domain *d = numbered("web", 1, "");
    HEARD("web:0.0 ");
    STATE(d, DOMAIN_SHUTOFF, SHUTOFF_UNKNOWN);
    FAILS(domain_suspend(me, d, &error), RUCHE_ERR_STATE,
          "cannot suspend 'web': domain is not running");
    FAILS(domain_destroy(me, d, 0, &error), RUCHE_ERR_STATE, "domain is not running");
    WORKS(domain_start(me, d, 0, &error));
    HEARD("web:2.0 ");
    STATE(d, DOMAIN_RUNNING, RUNNING_BOOTED);
    int first = d->id;
    g_assert_cmpint(first, >, 0);
    g_assert_true(has_file("run/domains", "web"));
    FAILS(domain_start(me, d, 0, &error), RUCHE_ERR_STATE, "domain is already running");
    FAILS(domain_resume(me, d, &error), RUCHE_ERR_STATE, "domain is already running");
    WORKS(domain_suspend(me, d, &error));
    WORKS(domain_suspend(me, d, &error)); /* as libvirt: paused is what was wanted */
    HEARD("web:3.0 ");
    STATE(d, DOMAIN_PAUSED, PAUSED_USER);
    WORKS(domain_resume(me, d, &error));
    HEARD("web:4.0 ");
    STATE(d, DOMAIN_RUNNING, RUNNING_UNPAUSED);
    struct domain_info info;
    WORKS(domain_info(me, d, &info, &error));
    g_assert_cmpuint(info.max_memory_kib, ==, 131072);
    g_assert_cmpuint(info.memory_kib, ==, 65536);
    g_assert_cmpuint(info.vcpus, ==, 2);
    WORKS(domain_destroy(me, d, 0, &error));
    HEARD("web:5.1 ");
    STATE(d, DOMAIN_SHUTOFF, SHUTOFF_DESTROYED);
    g_assert_cmpint(d->id, ==, -1);
    g_assert_false(has_file("run/domains", "web"));
    WORKS(domain_start(me, d, START_PAUSED, &error));
    HEARD("web:2.0 web:3.0 ");
    g_assert_cmpint(d->id, >, first);
    WORKS(domain_destroy(me, d, 1, &error));
    fake.fail_start = true;
    FAILS(domain_start(me, d, 0, &error), MANAGER_ERR_MACHINE, "did not want to");
    fake.fail_start = false;
    STATE(d, DOMAIN_SHUTOFF, SHUTOFF_FAILED);
    fake.fail_cont = true;
    FAILS(domain_start(me, d, 0, &error), MANAGER_ERR_MACHINE, "does not go on");
    fake.fail_cont = false;
    g_assert_false(has_file("run/domains", "web"));
    HEARD("web:5.1 ");
    WORKS(domain_undefine(me, d, 0, &error));
    g_string_truncate(heard, 0);
}

static void transient_task(void *opaque)
{
    g_autofree char *xml = numbered_xml("gone", 1, ""),
                    *defined = numbered_xml("kept", 2, "<title>live</title>");
    g_autoptr(GError) error = NULL;
    auto_domain *d = domain_create_xml(me, xml, 0, &error);
    g_assert_no_error(error);
    HEARD("gone:2.0 ");
    g_assert_true(!d->persistent && domain_is_active(d));
    FAILS(domain_create_xml(me, xml, 0, &error), RUCHE_ERR_STATE,
          "domain is already active as 'gone'");
    FAILS(domain_set_autostart(me, d, true, &error), RUCHE_ERR_STATE, "transient");
    FAILS(domain_undefine(me, d, 0, &error), RUCHE_ERR_STATE, "transient");
    WORKS(domain_destroy(me, d, 0, &error));
    HEARD("gone:5.1 ");
    g_assert_null(domain_find_name("gone", NULL));
    g_assert_cmpstr(domain_summary(d)->name, ==, "gone"); /* for those who still hold it */
    struct caller other = {.transport = "unix", .authenticated = true};
    auto_domain *bound =
        domain_create_xml(&other, xml, START_AUTODESTROY, &error); /* goes with its connection */
    g_assert_no_error(error);
    caller_done(&other);
    settle();
    g_assert_true(bound->removed);
    fake.fail_start = true;
    g_assert_null(domain_create_xml(me, xml, 0, NULL));
    fake.fail_start = false;
    g_assert_null(domain_find_name("gone", NULL));

    auto_domain *k = numbered("kept", 2, "<title>stored</title>");
    auto_domain *same =
        domain_create_xml(me, defined, 0, &error); /* a defined one, as this text describes it */
    g_assert_true(same == k && k->persistent);
    g_assert_cmpstr(k->live->s.title, ==, "live");
    g_assert_cmpstr(k->def->s.title, ==, "stored");
    WORKS(domain_undefine(me, k, 0, &error)); /* while it runs: transient from here on */
    g_assert_true(!k->persistent && domain_is_active(k) && !k->removed);
    WORKS(domain_destroy(me, k, 0, &error));
    g_assert_true(k->removed);
    g_string_truncate(heard, 0);
}

static void guest_task(void *opaque)
{
    auto_domain *d =
        numbered("web", 1, "<on_poweroff>destroy</on_poweroff><on_crash>restart</on_crash>");
    const char *const where[4] = {"/disk", "vda", "enospc"};
    g_string_truncate(heard, 0);
    WORKS(domain_start(me, d, 0, &error));
    domain_vm_event(d, VM_EV_SHUTDOWN, 1, NULL, 0);
    STATE(d, DOMAIN_SHUTDOWN, SHUTDOWN_UNKNOWN);
    settle();
    STATE(d, DOMAIN_SHUTOFF, SHUTOFF_SHUTDOWN);
    HEARD("web:2.0 web:6.1 web:5.0 ");

    WORKS(domain_start(me, d, 0, &error)); /* a reboot is a power-off that goes on */
    WORKS(domain_reboot(me, d, 1, &error));
    domain_vm_event(d, VM_EV_SHUTDOWN, 1, NULL, 0);
    settle();
    STATE(d, DOMAIN_RUNNING, RUNNING_BOOTED);
    g_assert_cmpuint(fake.resets, ==, 1);
    HEARD("web:2.0 web:6.1 web#1 web:4.0 ");

    domain_vm_event(d, VM_EV_IO_ERROR, 0, where, 1);
    STATE(d, DOMAIN_PAUSED, PAUSED_IOERROR);
    HEARD("web#4 web#6 web:3.2 ");
    fake.full = true;
    WORKS(domain_resume(me, d, &error));
    STATE(d, DOMAIN_PAUSED, PAUSED_IOERROR);
    HEARD("web:4.0 web#4 web#6 web:3.2 ");
    fake.full = false;
    WORKS(domain_resume(me, d, &error));
    STATE(d, DOMAIN_RUNNING, RUNNING_UNPAUSED);

    d->reboot_told_us =
        g_get_monotonic_time() + G_USEC_PER_SEC; /* a moment ago, on however slow a host */
    domain_vm_event(d, VM_EV_PANIC, 0, NULL, 0);
    STATE(d, DOMAIN_CRASHED, CRASHED_PANICKED);
    settle();
    STATE(d, DOMAIN_RUNNING, RUNNING_BOOTED); /* on_crash */
    HEARD("web:4.0 web:8.0 web:4.0 ");
    d->reboot_told_us = 0;
    for (int i = 0; i < 1000;
         i++) /* a guest that does nothing else is heard of, and not all the time */
        domain_vm_event(d, VM_EV_RESET, 0, NULL, 0);
    g_assert_cmpuint(heard->len, >=, strlen("web#1 "));
    g_assert_cmpuint(heard->len, <, 100 * strlen("web#1 "));
    g_string_truncate(heard, 0);

    domain_vm_event(d, VM_EV_GONE, 1, NULL, 0);
    settle();
    STATE(d, DOMAIN_SHUTOFF, SHUTOFF_CRASHED);
    HEARD("web:5.5 ");
    domain_vm_event(d, VM_EV_STOPPED, 0, NULL, 0); /* too late: nothing */
    FAILS(domain_shutdown(me, d, 0, &error), RUCHE_ERR_STATE, "domain is not running");
    WORKS(domain_undefine(me, d, 0, &error));
    g_string_truncate(heard, 0);
}

/* ---- the lock ---- */

static void suspend_one(void *opaque)
{
    struct domain *d = opaque;
    g_autoptr(GError) error = NULL;
    g_assert_false(domain_suspend(me, d, &error));
    g_assert_error(error, RUCHE_ERROR, MANAGER_ERR_MACHINE);
}

static void stats_one(void *opaque)
{
    struct param_list l = {0};
    domain_stats(me, opaque, 0, 0, &l, NULL);
    param_list_done(&l);
}

static void lock_task(void *opaque)
{
    auto_domain *d = numbered("web", 1, "");
    WORKS(domain_start(me, d, 0, &error));
    g_string_truncate(heard, 0);
    fake.hang = true;
    task_start(suspend_one, d);
    FAILS(domain_lock_within(d, "reset", 20, &error), MANAGER_ERR_LOCK_TIMEOUT,
          "cannot reset domain 'web' now: 'suspend' has held it");
    task_start(stats_one, d); /* asks the machine while it is taken away */
    WORKS(domain_destroy(me, d, 0, &error));
    g_assert_cmpuint(fake.signals, ==, 1);
    fake.hang = false;
    HEARD("web:5.1 ");
    settle();
    g_assert_cmpuint(fake.live, ==, 0);
    WORKS(domain_undefine(me, d, 0, &error));
    g_string_truncate(heard, 0);
}

/* ---- changes ---- */

static void change_task(void *opaque)
{
    auto_domain *d = numbered("web", 1, "");
    WORKS(domain_set_metadata(me, d, 1, "A title", NULL, NULL, 0, &error));
    g_assert_cmpstr(d->def->s.title, ==, "A title");
    HEARD("web:0.0 web#23 ");
    FAILS(domain_set_metadata(me, d, 1, "x", NULL, NULL, AFFECT_LIVE, &error), RUCHE_ERR_STATE,
          "not running");
    FAILS(domain_set_memory(me, d, 262144, 0, &error), RUCHE_ERR_INVALID,
          "cannot set memory higher than max memory");
    WORKS(domain_set_memory(me, d, 262144, 4, &error));
    g_assert_cmpuint(d->def->s.memory_kib, ==, 262144);
    g_assert_cmpuint(d->def->s.current_memory_kib, ==, 131072);
    WORKS(domain_set_memory(me, d, 200000, AFFECT_CONFIG, &error));
    g_assert_cmpuint(d->def->s.current_memory_kib, ==, 200000);
    WORKS(domain_set_vcpus(me, d, 4, AFFECT_CONFIG | 4, &error));
    WORKS(domain_set_vcpus(me, d, 3, AFFECT_CONFIG, &error));
    FAILS(domain_set_vcpus(me, d, 5, AFFECT_CONFIG, &error), RUCHE_ERR_INVALID, "5 > 4");
    g_assert_cmpint(domain_get_vcpus(me, d, AFFECT_CONFIG, NULL), ==, 3);
    g_assert_cmpint(domain_get_vcpus(me, d, AFFECT_CONFIG | 4, NULL), ==, 4);

    const uint8_t cpus[1] = {0x0b};
    uint8_t maps[4] = {0};
    WORKS(domain_pin_vcpu(me, d, 1, cpus, 1, AFFECT_CONFIG, &error));
    g_assert_cmpint(domain_get_pins(me, d, false, AFFECT_CONFIG, maps, 4, 1, NULL), ==, 3);
    g_assert_cmpuint(maps[1], ==, 0x0b);
    FAILS(domain_pin_vcpu(me, d, 9, cpus, 1, AFFECT_CONFIG, &error), RUCHE_ERR_INVALID,
          "vcpu 9 is out of range");

    struct param_list set = {0}, get = {0};
    param_ullong(&set, "cpu_shares", 2048);
    param_llong(&set, "vcpu_quota", -1);
    WORKS(domain_set_params(me, d, "scheduler", &set, AFFECT_CONFIG, &error));
    WORKS(domain_get_params(me, d, "scheduler", AFFECT_CONFIG, &get, &error));
    g_assert_cmpuint(param_find(&get, "cpu_shares")->u, ==, 2048);
    g_assert_cmpint(param_find(&get, "vcpu_quota")->i, ==, -1);
    g_assert_cmpuint(param_find(&get, "vcpu_period")->u, ==, 0);
    FAILS(domain_set_params(me, d, "memory", &set, AFFECT_CONFIG, &error), MANAGER_ERR_ARGUMENT,
          "cpu_shares");
    param_list_done(&set);
    param_list_done(&get);
    reborn();
    auto_domain *found = domain_find_name("web", NULL);
    g_assert_cmpuint(found->def->s.vcpus_max, ==, 4);
    g_assert_cmpuint(found->def->s.current_memory_kib, ==, 200000);
    WORKS(domain_undefine(me, found, 0, &error));
    g_string_truncate(heard, 0);
}

/* A guest's log cannot steer the terminal of who reads it, nor be longer than is wanted. */
static void dmesg_task(void *opaque)
{
    auto_domain *d = numbered("web", 1, "");
    g_autofree char *path = vm_console_log_path("web"), *noise = g_strnfill(100000, 'x'),
                    *text = NULL;
    g_autofree char *log = g_strconcat(noise, "\n[0.1] one\n\033[2Jtwo\377\n", NULL);
    FAILS(domain_dmesg(me, d, &error), RUCHE_ERR_NOT_FOUND, "web");
    g_assert_true(g_file_set_contents(path, log, -1, NULL));
    text = domain_dmesg(me, d, NULL);
    g_assert_cmpstr(text, ==, "[0.1] one\n[2Jtwo\357\277\275\n");
    WORKS(domain_undefine(me, d, 0, &error));
    g_string_truncate(heard, 0);
}

int main(int argc, char **argv)
{
    static const struct domain_test tests[] = {
        {"/domain/define", define_task}, {"/domain/define-many", define_many_task},
        {"/domain/known", known_task},   {"/domain/list", list_task},
        {"/domain/life", life_task},     {"/domain/transient", transient_task},
        {"/domain/guest", guest_task},   {"/domain/lock", lock_task},
        {"/domain/change", change_task}, {"/domain/dmesg", dmesg_task},
    };
    domain_tests_init(&argc, &argv, hear_names);
    return domain_tests_run(tests, G_N_ELEMENTS(tests));
}
