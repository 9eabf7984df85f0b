/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptors by the paths of their sets. */
#include "base/fdset.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

static char *path_of(int set)
{
    return g_strdup_printf("/dev/fdset/%d", set);
}

static void test_modes(void)
{
    g_autofree char *file = NULL, *none = path_of(77);
    int rw = g_file_open_tmp("fdset-XXXXXX", &file, NULL), ro = open(file, O_RDONLY);
    g_assert_cmpint(rw, >=, 0);
    int set = fdset_add(-1, rw);
    g_assert_cmpint(fdset_add(set, ro), ==, set);
    g_autofree char *path = path_of(set);
    int a = fdset_open(path, O_RDONLY, 0), b = fdset_open(path, O_RDWR, 0),
        c = fdset_open(path, O_WRONLY, 0);
    g_assert_cmpint(fcntl(a, F_GETFL) & O_ACCMODE, ==, O_RDONLY); /* the one that can do least */
    g_assert_cmpint(fcntl(b, F_GETFL) & O_ACCMODE, ==, O_RDWR);
    g_assert_cmpint(fcntl(c, F_GETFL) & O_ACCMODE, ==, O_RDWR);
    g_assert_cmpint(fcntl(a, F_GETFD), ==, FD_CLOEXEC);
    g_assert_cmpint(fdset_remove(set, -1), ==, 0);
    g_assert_cmpint(fdset_remove(set, -1), ==, -ENOENT);
    g_assert_cmpint(fcntl(rw, F_GETFD), ==, -1);
    g_assert_cmpint(write(b, "x", 1), ==, 1); /* copies live on */
    g_assert_cmpint(fdset_open(none, O_RDONLY, 0), ==, -1);
    g_assert_cmpint(errno, ==, ENOENT);
    int files[] = {a, b, c};
    for (size_t i = 0; i < G_N_ELEMENTS(files); i++)
        close(files[i]);
    g_unlink(file);
}

static void test_refused(void)
{
    static const char *const bad[] = {"/dev/fdset/", "/dev/fdset/x", "/dev/fdset/1x",
                                      "/dev/fdset/-1", "/dev/fdset/99999999999999999999"};
    int set = fdset_add(5, open("/dev/null", O_RDONLY));
    g_assert_cmpint(set, ==, 5);
    g_assert_cmpint(fdset_open("/dev/fdset/5", O_WRONLY, 0), ==, -1);
    g_assert_cmpint(errno, ==, EACCES);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++)
        g_assert_cmpint(fdset_open(bad[i], O_RDONLY, 0), ==, -1);
    g_assert_cmpint(fdset_add(-1, 9999), ==, -EBADF);
    g_assert_cmpint(fdset_remove(5, -1), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/fdset/modes", test_modes);
    g_test_add_func("/fdset/refused", test_refused);
    return g_test_run();
}
