/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Secrets that are defined while the one before of the same UUID still goes. */
#include "base/scratch.h"
#include "manager/manager.h"
#include "manager/secret/secret.h"
#include "manager/task_testing.h"

#include <string.h>

#define UUID "7d1c2f10-93a5-4c0c-8f0e-3a6f5f0e5b11"
#define XML                                                                                        \
    "<secret><uuid>" UUID "</uuid><usage type='volume'><volume>/v</volume></usage></secret>"

static struct secret *define(const char *value)
{
    g_autoptr(GError) e = NULL;
    struct secret *s = secret_define(&caller_self, XML, 0, &e);
    g_assert_no_error(e);
    g_assert_true(secret_set_value(&caller_self, s, value, strlen(value), &e));
    g_assert_no_error(e);
    return s;
}

static void undefine(void *opaque)
{
    struct secret *s = opaque;
    g_autoptr(GError) e = NULL;
    g_assert_true(secret_undefine(&caller_self, s, &e));
    g_assert_no_error(e);
    secret_unref(s);
}

static char *value_file(void)
{
    return g_build_filename(manager.config_dir, "secrets", UUID ".base64", NULL);
}

/* `wait` rounds of the loop after the undefine began. */
static void redefine_after(unsigned wait)
{
    g_autofree char *path = value_file(), *text = NULL;
    task_start(undefine, define("old"));
    while (wait--)
        task_yield();
    struct secret *s = define("new");
    task_sleep_ms(20); /* what the other had begun ends */
    g_autoptr(GBytes) value = secret_get_value(&caller_self, s, NULL);
    g_assert_true(value && g_bytes_get_size(value) == 3 &&
                  !memcmp(g_bytes_get_data(value, NULL), "new", 3));
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "bmV3");
    undefine(s);
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
}

static void do_redefine(void *opaque)
{
    for (unsigned wait = 0; wait < 40; wait++)
        redefine_after(wait);
    secrets_stop();
}

static void test_redefine(void)
{
    run_in_task(do_redefine, NULL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    manager.config_dir = g_build_filename(scratch_folder("secret-test"), "config", NULL);
    g_test_add_func("/secret/redefine", test_redefine);
    return g_test_run();
}
