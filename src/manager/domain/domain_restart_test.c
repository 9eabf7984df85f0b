/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a daemon that begins again finds of domains, on disk and running, on machines that are not
 * there (fake_vm.h). */
#include "manager/domain/domain_testing.h"

static void reborn_task(void *opaque)
{
    auto_domain *d = numbered("web", 1, "");
    g_autofree char *xml = numbered_xml("moving", 2, "");
    auto_domain *t = domain_create_xml(me, xml, 0, NULL);
    WORKS(domain_start(me, d, 0, &error));
    int id = d->id, moving_id = t->id;
    fake.attach_state = "running";
    reborn();
    auto_domain *found = domain_find_name("web", NULL), *moving = domain_find_name("moving", NULL);
    g_assert_true(found && found != d && found->persistent && found->id == id && found->vm);
    g_assert_true(moving && !moving->persistent && moving->id == moving_id);
    STATE(found, DOMAIN_RUNNING, RUNNING_BOOTED);
    g_string_truncate(heard, 0);

    fake.attach_state = "io-error"; /* what happened meanwhile */
    reborn();
    auto_domain *stopped = domain_find_name("web", NULL);
    STATE(stopped, DOMAIN_PAUSED, PAUSED_IOERROR);
    fake.attach_state = "shutdown";
    reborn();
    auto_domain *off = domain_find_name("web", NULL);
    STATE(off, DOMAIN_SHUTOFF, SHUTOFF_SHUTDOWN);
    g_assert_null(domain_find_name("moving", NULL));
    g_assert_false(has_file("run/domains", "web") || has_file("run/domains", "moving"));

    WORKS(domain_start(me, off, 0, &error));
    g_assert_cmpint(off->id, >, 0);
    fake.gone_on_attach = true;
    reborn();
    fake.gone_on_attach = false;
    auto_domain *gone = domain_find_name("web", NULL);
    STATE(gone, DOMAIN_SHUTOFF, SHUTOFF_UNKNOWN);

    gone->live = domain_def_ref(gone->def); /* killed between the status file and the process */
    domain_set_id(gone, 77);
    WORKS(domain_write_status(gone, true, &error));
    domain_drop_live(gone);
    fake.cleans = 0;
    reborn();
    g_assert_cmpuint(fake.cleans, ==, 1);
    auto_domain *clean = domain_find_name("web", NULL);
    g_assert_false(domain_is_active(clean));
    WORKS(domain_undefine(me, clean, 0, &error));
    g_string_truncate(heard, 0);
}

#define CHANNEL_XML                                                                                \
    "<channel type='unix'><source mode='bind'/><target type='virtio' name='org.hot'/></channel>"

static bool status_has(const char *part)
{
    g_autofree char *path = g_strdup_printf("%s/run/domains/web.xml", root), *text = NULL;
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    return strstr(text, part) != NULL;
}

static void attach_channel(void *opaque)
{
    auto_domain *d = domain_ref(opaque);
    domain_device(me, d, DEF_ATTACH, CHANNEL_XML, AFFECT_LIVE, NULL);
}

/* A device is in the status file before it is in the machine; what is not there is taken out. */
static void plug_task(void *opaque)
{
    auto_domain *d =
        numbered("web", 1, "<devices><controller type='virtio-serial' index='0'/></devices>");
    WORKS(domain_start(me, d, 0, &error));
    FAILS(domain_device(me, d, DEF_ATTACH, CHANNEL_XML, AFFECT_LIVE, &error), MANAGER_ERR_CONFIG,
          "no hot plug");
    fake.plugs = FAKE_PLUGS_FAIL;
    task_start(attach_channel, d);
    task_sleep_ms(0);
    g_assert_true(status_has("org.hot"));
    settle();
    g_assert_false(status_has("org.hot") || strstr(d->live->text, "org.hot"));
    fake.plugs = FAKE_PLUGS;
    WORKS(domain_device(me, d, DEF_ATTACH, CHANNEL_XML, AFFECT_LIVE, &error));
    g_assert_true(status_has("org.hot") && strstr(d->live->text, "org.hot"));
    fake.attach_state = "running";
    reborn();
    auto_domain *found = domain_find_name("web", NULL);
    g_assert_nonnull(strstr(found->live->text, "org.hot"));
    fake.lost = "channel0";
    reborn();
    fake.lost = NULL;
    auto_domain *less = domain_find_name("web", NULL);
    g_assert_null(strstr(less->live->text, "org.hot"));
    g_assert_false(status_has("org.hot"));
    WORKS(domain_destroy(me, less, 0, &error));
    WORKS(domain_undefine(me, less, 0, &error));
    g_string_truncate(heard, 0);
}

static void copy_file(const char *from, const char *to)
{
    g_autofree char *text = NULL;
    g_assert_true(g_file_get_contents(from, &text, NULL, NULL));
    g_assert_true(g_file_set_contents(to, text, -1, NULL));
}

static void rename_task(void *opaque)
{
    auto_domain *d = numbered("old", 1, ""), *other = numbered("taken", 2, "");
    WORKS(domain_set_autostart(me, d, true, &error));
    g_string_truncate(heard, 0);
    FAILS(domain_rename(me, d, "taken", &error), RUCHE_ERR_EXISTS,
          "domain with name 'taken' already exists");
    FAILS(domain_rename(me, d, "old", &error), RUCHE_ERR_INVALID, "itself");
    FAILS(domain_rename(me, d, "a/b", &error), RUCHE_ERR_XML, "a/b");
    WORKS(domain_rename(me, d, "new", &error));
    HEARD("old:1.1 new:0.2 ");
    g_assert_true(has_file("config/domains", "new") && !has_file("config/domains", "old"));
    WORKS(domain_start(me, d, 0, &error));
    FAILS(domain_rename(me, d, "third", &error), RUCHE_ERR_STATE, "active");
    WORKS(domain_destroy(me, d, 0, &error));

    /* Cut off in the middle of a rename to 'third'. */
    g_autofree char *from = g_build_filename(root, "config/domains/new.xml", NULL);
    g_autofree char *to = g_build_filename(root, "config/domains/third.xml", NULL), *text = NULL;
    copy_file(from, to);
    g_assert_true(g_file_get_contents(to, &text, NULL, NULL));
    g_auto(GStrv) parts = g_strsplit(text, "<name>new</name>", 2);
    g_autofree char *renamed = g_strjoinv("<name>third</name>", parts);
    g_usleep(20000);
    g_assert_true(g_file_set_contents(to, renamed, -1, NULL));
    reborn();
    auto_domain *third = domain_find_name("third", NULL), *second = domain_find_name("taken", NULL);
    g_assert_true(third && third->autostart && second);
    g_assert_null(domain_find_name("new", NULL));
    g_assert_false(has_file("config/domains", "new"));
    WORKS(domain_undefine(me, third, 0, &error) && domain_undefine(me, second, 0, &error));
    g_assert_true(other->refs == 1);
    g_string_truncate(heard, 0);
}

static void autostart_task(void *opaque)
{
    auto_domain *a = numbered("a", 1, ""), *b = numbered("b", 2, ""), *c = numbered("c", 3, "");
    WORKS(domain_set_autostart(me, c, true, &error) && domain_set_autostart(me, a, true, &error));
    reborn();
    g_string_truncate(heard, 0);
    domains_autostart();
    HEARD("a:2.0 c:2.0 ");
    auto_domain *started = domain_find_name("c", NULL);
    WORKS(domain_destroy(me, started, 0, &error));
    g_string_truncate(heard, 0);
    domains_autostart(); /* the same boot: once is enough */
    HEARD("");
    g_autoptr(GPtrArray) all = domain_list(me, 0);
    for (unsigned i = 0; i < all->len; i++) {
        struct domain *d = all->pdata[i];
        if (domain_is_active(d))
            WORKS(domain_destroy(me, d, 0, &error));
        WORKS(domain_undefine(me, d, 0, &error));
    }
    g_assert_true(b->refs == 1);
    g_string_truncate(heard, 0);
}

int main(int argc, char **argv)
{
    static const struct domain_test tests[] = {
        {"/domain/restart/reborn", reborn_task},
        {"/domain/restart/plug", plug_task},
        {"/domain/restart/rename", rename_task},
        {"/domain/restart/autostart", autostart_task},
    };
    domain_tests_init(&argc, &argv, hear_names);
    return domain_tests_run(tests, G_N_ELEMENTS(tests));
}
