/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is changed of domains on machines that are not there: I/O threads, pins, lifecycle actions,
 * sleep. */
#include "manager/domain/domain_testing.h"

static void hear(void *opaque, const struct event *e)
{
    if (e->class != EVENT_DOMAIN)
        return;
    g_string_append_printf(heard, "#%d:%d.%d ", e->id, e->event, e->detail);
    for (unsigned i = 0; e->params && i < e->params->count; i++)
        if (e->params->rows[i].type == PARAM_STRING)
            g_string_append_printf(heard, "%s=%s ", e->params->rows[i].name, e->params->rows[i].s);
}

static struct domain *define(const char *more)
{
    g_autofree char *xml = g_strdup_printf(
        "<domain type='qemu'><name>web</name><uuid>00000000-0000-4000-8000-000000000001</uuid>"
        "<memory unit='MiB'>128</memory><vcpu>2</vcpu><os><type "
        "arch='x86_64'>hvm</type></os>%s</domain>",
        more);
    g_autoptr(GError) error = NULL;
    struct domain *d = domain_define(me, xml, 0, &error);
    g_assert_no_error(error);
    return d;
}

static void end(struct domain *d)
{
    if (domain_is_active(d))
        WORKS(domain_destroy(me, d, 0, &error));
    WORKS(domain_undefine(me, d, 0, &error));
    g_string_truncate(heard, 0);
}

static bool says(struct domain *d, unsigned flags, const char *part)
{
    g_autofree char *xml = domain_xml(me, d, flags, NULL);
    return strstr(xml, part) != NULL;
}

static void check_iothreads(struct domain *d, unsigned affect, const char *want)
{
    g_autoptr(GArray) ids = NULL;
    g_autofree uint8_t *maps = NULL;
    g_autoptr(GString) s = g_string_new(NULL);
    WORKS(domain_get_iothreads(me, d, affect, 1, &ids, &maps, &error));
    for (guint i = 0; i < ids->len; i++)
        g_string_append_printf(s, "%u ", g_array_index(ids, unsigned, i));
    g_assert_cmpstr(s->str, ==, want);
}

static void iothread_task(void *opaque)
{
    auto_domain *d =
        define("<iothreads>3</iothreads><iothreadids><iothread id='2'/></iothreadids>"
               "<devices><disk><driver iothread='3'/><source file='/tmp/a'/><target dev='vda'/>"
               "</disk></devices>");
    check_iothreads(d, AFFECT_CONFIG, "2 1 3 ");
    FAILS(domain_add_iothread(me, d, 0, AFFECT_CONFIG, &error), RUCHE_ERR_INVALID, "from 1");
    FAILS(domain_add_iothread(me, d, 3, AFFECT_CONFIG, &error), RUCHE_ERR_INVALID, "3 already");
    FAILS(domain_add_iothread(me, d, 9, AFFECT_LIVE, &error), RUCHE_ERR_STATE, "not running");
    WORKS(domain_add_iothread(me, d, 9, AFFECT_CONFIG, &error));
    FAILS(domain_del_iothread(me, d, 3, AFFECT_CONFIG, &error), RUCHE_ERR_INVALID, "disk 'vda'");
    FAILS(domain_del_iothread(me, d, 7, AFFECT_CONFIG, &error), RUCHE_ERR_INVALID,
          "no I/O thread 7");
    WORKS(domain_pin_iothread(me, d, 2, (const uint8_t *)"\3", 1, AFFECT_CONFIG, &error));
    g_assert_true(says(d, 0, "<iothreadpin iothread='2' cpuset='0-1'/>"));
    WORKS(domain_del_iothread(me, d, 2, AFFECT_CONFIG, &error));
    check_iothreads(d, AFFECT_CONFIG, "1 3 9 ");
    g_assert_true(says(d, 0, "<iothreads>3</iothreads>") && !says(d, 0, "iothreadpin"));
    WORKS(domain_start(me, d, 0, &error));
    g_string_truncate(heard, 0);
    WORKS(domain_add_iothread(me, d, 4, AFFECT_LIVE, &error));
    WORKS(domain_pin_iothread(me, d, 4, (const uint8_t *)"\1", 1, 0, &error));
    HEARD("#17:0.0 cputune.iothreadpin4=0 ");
    check_iothreads(d, AFFECT_LIVE, "1 3 9 4 ");
    check_iothreads(d, AFFECT_CONFIG, "1 3 9 ");
    WORKS(domain_del_iothread(me, d, 4, AFFECT_LIVE, &error));
    FAILS(domain_del_iothread(me, d, 3, AFFECT_LIVE, &error), RUCHE_ERR_INVALID, "disk 'vda'");
    end(d);
}

static void iothread_params_task(void *opaque)
{
    auto_domain *d = define("<iothreads>1</iothreads>");
    struct param_list pool = {0}, polls = {0};
    param_int(&pool, "thread_pool_min", 2);
    param_int(&pool, "thread_pool_max", 5);
    param_ullong(&polls, "poll_max_ns", 5);
    WORKS(domain_set_iothread(me, d, 1, &pool, 0, &error));
    g_assert_true(says(d, 0, "<iothread id='1' thread_pool_min='2' thread_pool_max='5'/>"));
    FAILS(domain_set_iothread(me, d, 1, &polls, 0, &error), MANAGER_ERR_CONFIG, "poll_max_ns");
    FAILS(domain_set_iothread(me, d, 2, &pool, 0, &error), RUCHE_ERR_INVALID, "no I/O thread 2");
    pool.rows[0].i = 6;
    FAILS(domain_set_iothread(me, d, 1, &pool, 0, &error), RUCHE_ERR_INVALID, "is above");
    param_list_done(&pool);
    param_list_done(&polls);
    end(d);
}

static void lifecycle_task(void *opaque)
{
    enum { POWEROFF, REBOOT, CRASH, DESTROY = 0, RESTART, PRESERVE = 3, COREDUMP = 4 };
    auto_domain *d = define("");
    FAILS(domain_set_lifecycle_action(me, d, POWEROFF, PRESERVE, 0, &error), MANAGER_ERR_CONFIG,
          "'preserve' cannot be done");
    FAILS(domain_set_lifecycle_action(me, d, REBOOT, COREDUMP, 0, &error), MANAGER_ERR_CONFIG,
          "<on_reboot>");
    FAILS(domain_set_lifecycle_action(me, d, 3, 0, 0, &error), RUCHE_ERR_INVALID, "3 and 0");
    WORKS(domain_set_lifecycle_action(me, d, CRASH, COREDUMP, 0, &error));
    g_assert_true(says(d, 0, "<on_crash>coredump-destroy</on_crash>"));
    WORKS(domain_start(me, d, 0, &error));
    WORKS(domain_set_lifecycle_action(me, d, REBOOT, DESTROY, AFFECT_LIVE, &error));
    g_assert_true(fake.reboot_destroys && d->live->s.on_reboot_destroy);
    g_assert_true(says(d, DEF_FORMAT_INACTIVE, "<on_reboot>restart</on_reboot>"));
    WORKS(domain_set_lifecycle_action(me, d, POWEROFF, RESTART, AFFECT_LIVE, &error));
    domain_vm_event(d, VM_EV_SHUTDOWN, 1, (const char *const[4]){NULL}, 0);
    settle();
    g_assert_cmpuint(fake.resets, ==, 1);
    STATE(d, DOMAIN_RUNNING, RUNNING_BOOTED);
    end(d);
}

/* It sleeps, is woken, and how long its agent has outlives us. */
static void sleep_task(void *opaque)
{
    auto_domain *d = define("");
    static const char *const nothing[4];
    FAILS(domain_pm_wakeup(me, d, &error), RUCHE_ERR_STATE, "not running");
    WORKS(domain_start(me, d, 0, &error));
    WORKS(domain_set_agent_timeout(me, d, 7, &error));
    FAILS(domain_set_agent_timeout(me, d, -3, &error), RUCHE_ERR_INVALID, "-3");
    FAILS(domain_pm_suspend(me, d, 3, 0, &error), RUCHE_ERR_INVALID, "3 is no way");
    FAILS(domain_pm_suspend(me, d, 0, 9, &error), MANAGER_ERR_ARGUMENT, "9 s");
    FAILS(domain_pm_wakeup(me, d, &error), RUCHE_ERR_STATE, "does not sleep");
    fake.no_sleep = true;
    FAILS(domain_pm_suspend(me, d, 0, 0, &error), MANAGER_ERR_CONFIG, "cannot sleep");
    fake.no_sleep = false;
    WORKS(domain_pm_suspend(me, d, 0, 0, &error));
    g_assert_cmpuint(fake.told, ==, 1);
    g_string_truncate(heard, 0);
    domain_vm_event(d, VM_EV_SLEEP, 0, nothing, 0);
    HEARD("#0:7.0 #12:0.0 ");
    STATE(d, DOMAIN_PMSUSPENDED, 0);
    WORKS(domain_pm_wakeup(me, d, &error));
    HEARD("#0:2.4 #11:0.0 ");
    STATE(d, DOMAIN_RUNNING, RUNNING_WAKEUP);
    fake.attach_state = "running";
    reborn();
    auto_domain *again = domain_find_name("web", NULL);
    g_assert_cmpint(again->agent_timeout, ==, 7);
    end(again);
}

int main(int argc, char **argv)
{
    static const struct domain_test tests[] = {
        {"/domain/iothread", iothread_task},
        {"/domain/iothread-params", iothread_params_task},
        {"/domain/lifecycle", lifecycle_task},
        {"/domain/sleep", sleep_task},
    };
    domain_tests_init(&argc, &argv, hear);
    return domain_tests_run(tests, G_N_ELEMENTS(tests));
}
