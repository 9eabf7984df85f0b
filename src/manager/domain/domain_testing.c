/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/scratch.h"
#include "manager/domain/domain_testing.h"

#include <glib/gstdio.h>
#include <stdlib.h>

GString *heard;
char *root;
const struct caller *const me = &caller_self;
static struct event_listener listener;

void hear_names(void *opaque, const struct event *e)
{
    if (e->id == DOMAIN_EVENT_LIFECYCLE)
        g_string_append_printf(heard, "%s:%d.%d ", e->name, e->event, e->detail);
    else
        g_string_append_printf(heard, "%s#%d ", e->name, e->id);
}

char *numbered_xml(const char *name, unsigned number, const char *more)
{
    return g_strdup_printf(
        "<domain type='qemu'><name>%s</name><uuid>00000000-0000-4000-8000-%012u</uuid>"
        "<memory unit='MiB'>128</memory><vcpu>2</vcpu><os><type "
        "arch='x86_64'>hvm</type></os>%s</domain>",
        name, number, more);
}

struct domain *numbered(const char *name, unsigned number, const char *more)
{
    g_autofree char *xml = numbered_xml(name, number, more);
    g_autoptr(GError) error = NULL;
    struct domain *d = domain_define(me, xml, 0, &error);
    g_assert_no_error(error);
    return d;
}

bool has_file(const char *folder, const char *name)
{
    g_autofree char *path = g_strdup_printf("%s/%s/%s.xml", root, folder, name);
    return g_file_test(path, G_FILE_TEST_IS_REGULAR);
}

void settle(void)
{
    do
        task_sleep_ms(1);
    while (task_count() > 1);
}

void reborn(void)
{
    domains_stop();
    WORKS(domains_load(&error));
    settle();
}

struct domain *born_again(struct domain *d)
{
    g_autofree char *name = g_strdup(d->name);
    domain_unref(d);
    reborn();
    return domain_find_name(name, NULL);
}

void drop(struct domain *d)
{
    if (domain_is_active(d))
        WORKS(domain_destroy(me, d, 0, &error));
    WORKS(domain_undefine(me, d, 1, &error));
    g_string_truncate(heard, 0);
    domain_unref(d);
}

void domain_tests_init(int *argc, char ***argv, void (*hear)(void *opaque, const struct event *e))
{
    static const char *const names[] = {"config", "run", "state", "log", "cache"};
    char **const folders[] = {&manager.config_dir, &manager.runtime_dir, &manager.state_dir,
                              &manager.log_dir, &manager.cache_dir};
    g_autoptr(GError) error = NULL;
    g_test_init(argc, argv, NULL);
    root = scratch_folder("ruche-domain");
    heard = g_string_new(NULL);
    manager_config_init(true);
    for (unsigned i = 0; i < G_N_ELEMENTS(folders); i++) {
        g_free(*folders[i]);
        *folders[i] = g_build_filename(root, names[i], NULL);
        g_mkdir(*folders[i], 0700);
    }
    if (!domains_load(&error))
        g_error("%s", error->message);
    listener.fn = hear;
    event_listen(&listener);
}

/* What a test leaves is the next one's surprise. */
static void run(gconstpointer test)
{
    unsigned before = fake.live;
    memset(&fake, 0, sizeof(fake));
    fake.live = before;
    task_start(((const struct domain_test *)test)->fn, NULL);
    while (task_count())
        g_main_context_iteration(NULL, true);
    g_assert_cmpuint(domain_count(false) + domain_count(true), ==, 0);
}

int domain_tests_run(const struct domain_test *tests, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        g_test_add_data_func(tests[i].path, &tests[i], run);
    return g_test_run();
}
