/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Control groups of both versions, on folders that look like them. */
#include "base/scratch.h"
#include "manager/cgroup.h"

#include <glib/gstdio.h>
#include <string.h>

static char *root;

static char *path_of(const char *name)
{
    return g_build_filename(root, name, NULL);
}

static void put(const char *name, const char *text)
{
    g_autofree char *path = path_of(name), *dir = g_path_get_dirname(path);
    g_mkdir_with_parents(dir, 0700);
    g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

static void expect(const char *name, const char *want)
{
    g_autofree char *path = path_of(name), *got = NULL;
    g_assert_true(g_file_get_contents(path, &got, NULL, NULL));
    /* A write here replaces the beginning: the kernel would take it as a whole. */
    g_assert_true(g_str_has_prefix(got, want));
}

/* A table of mounts: lines of "FOLDER TYPE OPTIONS". */
static void mounts(const char *const *rows)
{
    g_autoptr(GString) s = g_string_new(NULL);
    g_autofree char *table = path_of("mounts");
    for (; *rows; rows += 3)
        g_string_append_printf(s, "none %s/%s %s %s 0 0\n", root, rows[0], rows[1], rows[2]);
    g_assert_true(g_file_set_contents(table, s->str, -1, NULL));
    g_setenv("CGROUP_MOUNTS", table, TRUE);
}

static void test_unified(void)
{
    static const char *const rows[] = {"two", "cgroup2", "rw", NULL};
    static const char *const files[] = {"cpu.max",         "cpu.weight", "memory.max",
                                        "memory.swap.max", "io.weight",  "io.max"};
    g_autoptr(GError) error = NULL;
    int64_t value;
    uint64_t total, user, system;
    put("two/cgroup.controllers", "cpuset cpu io memory\n");
    put("two/cgroup.subtree_control", "");
    mounts(rows);
    struct cgroup *c = cgroup_new("m");
    g_assert_true(cgroup_has(c, CGROUP_CPU) && cgroup_has(c, CGROUP_MEMORY) &&
                  cgroup_is_unified(c, CGROUP_BLKIO));
    for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autofree char *name = g_strconcat("two/ruche.machines/m/", files[i], NULL);
        put(name, !strcmp(files[i], "cpu.max") ? "max 100000\n" : "");
    }
    put("two/ruche.machines/m/cpu.stat", "usage_usec 7\nuser_usec 5\nsystem_usec 2\n");
    g_assert_true(cgroup_set(c, NULL, NULL, 0, CGROUP_CPU_QUOTA_US, 50000, &error));
    expect("two/ruche.machines/m/cpu.max", "50000 100000");
    g_assert_true(cgroup_get(c, NULL, CGROUP_CPU_QUOTA_US, &value, &error));
    g_assert_cmpint(value, ==, 50000);
    put("two/ruche.machines/m/cpu.max", "max 100000\n");
    g_assert_true(cgroup_get(c, NULL, CGROUP_CPU_QUOTA_US, &value, &error));
    g_assert_cmpint(value, ==, -1);
    g_assert_true(cgroup_set(c, NULL, NULL, 0, CGROUP_MEMORY_HARD, 1 << 20, &error));
    g_assert_true(
        cgroup_set(c, NULL, NULL, 0, CGROUP_MEMORY_SWAP, 3 << 20, &error)); /* both together */
    expect("two/ruche.machines/m/memory.swap.max", "2097152");
    g_assert_true(cgroup_set(c, NULL, NULL, 0, CGROUP_BLKIO_WEIGHT, 300, &error));
    expect("two/ruche.machines/m/io.weight", "default 300");
    g_assert_true(cgroup_set_device(c, 8, 1, "rbps", 1000, &error));
    expect("two/ruche.machines/m/io.max", "8:1 rbps=1000");
    g_assert_true(cgroup_cpu_ns(c, &total, &user, &system));
    g_assert_cmpuint(total, ==, 7000);
    g_assert_no_error(error);
    g_assert_false(cgroup_percpu_ns(c, 0, &total, &error));
    g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_UNSUPPORTED);
    cgroup_free(c);
}

static void test_version_1(void)
{
    static const char *const rows[] = {"cpu",       "cgroup", "rw,cpu,cpuacct", "set", "cgroup",
                                       "rw,cpuset", "other",  "tmpfs",          "rw",  NULL};
    g_autoptr(GError) error = NULL;
    int64_t value;
    uint64_t total, user, system;
    int fds[CGROUP_CONTROLLERS];
    put("cpu/tasks", "");
    put("set/cpuset.cpus", "0-3\n");
    mounts(rows);
    struct cgroup *c = cgroup_new("m");
    put("cpu/ruche.machines/m/cpu.shares", "");
    put("cpu/ruche.machines/m/cgroup.procs", "");
    put("cpu/ruche.machines/m/cpuacct.usage", "123\n");
    put("cpu/ruche.machines/m/cpuacct.stat", "user 1\nsystem 2\n");
    put("cpu/ruche.machines/m/cpuacct.usage_percpu", "100 23\n");
    g_assert_cmpuint(cgroup_open_procs(c, fds, CGROUP_CONTROLLERS), ==,
                     1); /* two controllers, one folder */
    close(fds[0]);
    g_assert_true(cgroup_set(c, NULL, NULL, 0, CGROUP_CPU_SHARES, 512, &error));
    g_assert_true(cgroup_get(c, NULL, CGROUP_CPU_SHARES, &value, &error));
    g_assert_cmpint(value, ==, 512);
    g_assert_true(cgroup_cpu_ns(c, &total, &user, &system));
    g_assert_cmpuint(total, ==, 123);
    g_assert_true(cgroup_percpu_ns(c, 1, &total, &error));
    g_assert_cmpuint(total, ==, 23);
    g_assert_false(cgroup_set(c, NULL, NULL, 0, CGROUP_MEMORY_HARD, 1,
                              &error)); /* the one that is missing is named */
    g_assert_error(error, RUCHE_ERROR, MANAGER_ERR_CONFIG);
    g_assert_nonnull(strstr(error->message, "'memory'"));
    cgroup_free(c);
}

static void test_none(void)
{
    static const char *const rows[] = {NULL};
    uint64_t a, b, s;
    mounts(rows);
    struct cgroup *c = cgroup_new("m");
    g_assert_false(cgroup_has(c, CGROUP_CPU));
    g_assert_false(cgroup_cpu_ns(c, &a, &b, &s));
    cgroup_remove(c);
    cgroup_free(c);
    cgroup_free(NULL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    root = scratch_folder("cgroup");
    g_test_add_func("/cgroup/unified", test_unified);
    g_test_add_func("/cgroup/version-1", test_version_1);
    g_test_add_func("/cgroup/none", test_none);
    return g_test_run();
}
