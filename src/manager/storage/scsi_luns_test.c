/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Units of a SCSI host, in a made-up /sys: which are waited for, and what they say of themselves. */
#include "base/scratch.h"
#include "manager/storage/scsi_luns.h"
#include "manager/storage/storage_priv.h"
#include "manager/task_testing.h"

#include <glib/gstdio.h>
#include <string.h>

static char *root;

static GHashTable *table(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)volume_free);
}

enum { LONG_MS = 600000, SHORT_MS = 200 };

static char *unit_path(const char *unit, const char *file)
{
    return g_build_filename(root, "sys/bus/scsi/devices", unit, file, NULL);
}

static void put_unit(const char *unit, const char *type)
{
    g_autofree char *folder = unit_path(unit, NULL), *file = unit_path(unit, "type");
    g_assert_cmpint(g_mkdir_with_parents(folder, 0755), ==, 0);
    g_assert_true(g_file_set_contents(file, type, -1, NULL));
}

/* Its driver takes it, a moment later. */
static gpointer take_unit(gpointer unit)
{
    g_autofree char *folder = unit_path(unit, "block/ruche-sdz");
    g_usleep(SHORT_MS * 1000);
    g_assert_cmpint(g_mkdir_with_parents(folder, 0755), ==, 0);
    return NULL;
}

static void put_serial(const char *unit, const char *serial)
{
    g_autofree char *file = unit_path(unit, "vpd_pg80"),
                    *text = g_strdup_printf("xx%c%c%s", 1, (int)strlen(serial), serial);
    g_assert_true(g_file_set_contents(file, text, -1, NULL)); /* a page of more bytes: cut to what there is */
}

/* A unit says itself what its serial is: one that looks like a path would be found in place of another volume. */
static void check_serials(GHashTable *found)
{
    const struct volume *good = g_hash_table_lookup(found, "unit:0:0:4"),
                        *bad = g_hash_table_lookup(found, "unit:0:0:3");
    if (good)
        g_assert_cmpstr(good->key, ==, "WD-1");
    if (bad)
        g_assert_null(bad->key);
}

/* The names of what is found; how long it took. The host is number 3. */
static int64_t scan_units(struct pool *p, unsigned wait_ms, const char *names)
{
    g_autoptr(GHashTable) found = table();
    g_autoptr(GError) error = NULL;
    struct pool_figures figures = {0};
    int64_t begin = g_get_monotonic_time();
    scsi_luns_wait_ms = wait_ms;
    g_assert_true(scsi_luns_scan(p, 3, false, found, &figures, &error));
    g_assert_no_error(error);
    check_serials(found);
    g_autoptr(GList) keys = g_list_sort(g_hash_table_get_keys(found), (GCompareFunc)strcmp);
    g_autoptr(GString) text = g_string_new(NULL);
    for (GList *k = keys; k; k = k->next)
        g_string_append_printf(text, "%s ", (const char *)k->data);
    g_assert_cmpstr(text->str, ==, names);
    return (g_get_monotonic_time() - begin) / 1000;
}

static void replace_unit(const char *unit, const char *type)
{
    g_autofree char *old = unit_path(unit, NULL), *away = unit_path("away", NULL);
    g_assert_cmpint(g_rename(old, away), ==, 0); /* its inode stays taken */
    put_unit(unit, type);
}

static void do_scsi(void *opaque)
{
    struct pool_def def = {.target = root};
    struct pool p = {.def = &def};
    put_unit("3:0:0:0", "5\n");   /* sr's */
    put_unit("3:0:0:1", "13\n");  /* ses's */
    put_unit("3:0:1:0", "3\n");   /* nobody's */
    put_unit("4:0:0:0", "0\n");   /* another host's */
    put_unit("host3", "0\n");     /* no unit */
    g_assert_cmpint(scan_units(&p, LONG_MS, ""), <, LONG_MS);
    put_unit("3:0:0:2", "0\n"); /* sd's, who does not want it */
    g_assert_cmpint(scan_units(&p, SHORT_MS, ""), >=, SHORT_MS);
    g_assert_cmpint(scan_units(&p, LONG_MS, ""), <, LONG_MS);
    static const char *const taken[][3] = {
        {"3:0:0:3", "0\n", "unit:0:0:3 "},
        {"3:0:0:4", "7\n", "unit:0:0:3 unit:0:0:4 "},
        {"3:0:0:5", "14\n", "unit:0:0:3 unit:0:0:4 unit:0:0:5 "},
        {"3:0:0:6", "20\n", "unit:0:0:3 unit:0:0:4 unit:0:0:5 unit:0:0:6 "},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(taken); i++) { /* new: waited for until it is taken */
        put_unit(taken[i][0], taken[i][1]);
        put_serial(taken[i][0], i ? "WD-1" : "/dev/sda");
        GThread *driver = g_thread_new("sd", take_unit, (gpointer)taken[i][0]);
        g_assert_cmpint(scan_units(&p, LONG_MS, taken[i][2]), <, LONG_MS);
        g_thread_join(driver);
    }
    replace_unit("3:0:0:2", "0\n"); /* another one in its place */
    g_assert_cmpint(scan_units(&p, SHORT_MS, taken[3][2]), >=, SHORT_MS);
    g_assert_cmpint(scan_units(&p, LONG_MS, taken[3][2]), <, LONG_MS);
    g_assert_cmpuint(g_hash_table_size(p.waited_for), ==, 1);
    g_hash_table_unref(p.waited_for);
}

static void test_scsi(void)
{
    run_in_task(do_scsi, NULL);
}

/* In the place of udev's program, which would wait for the host's devices. */
static void put_udevadm(void)
{
    g_autofree char *path = g_build_filename(root, "udevadm", NULL),
                    *all = g_strconcat(root, ":", g_getenv("PATH"), NULL);
    g_assert_true(g_file_set_contents(path, "#!/bin/sh\nexit 0\n", -1, NULL));
    g_assert_cmpint(g_chmod(path, 0755), ==, 0);
    g_setenv("PATH", all, true);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    root = scratch_folder("scsi-test");
    g_setenv("NODE_SYSFS", root, true);
    put_udevadm();
    g_test_add_func("/scsi/units", test_scsi);
    return g_test_run();
}
