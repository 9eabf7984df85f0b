/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ranges of zeroes: with a kernel that punches holes, and with one that knows nothing of them. */
#include "base/fd.h"
#include "base/refuse_testing.h"
#include "base/zeroes.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { SIZE = 1 << 20, AT = 4097, LEN = 300000 };

static int full_file(void)
{
    g_autofree uint8_t *data = g_malloc(SIZE);
    memset(data, 0x5a, SIZE);
    int fd = memfd_create("zeroes", MFD_CLOEXEC);
    g_assert_cmpint(pwrite(fd, data, SIZE, 0), ==, SIZE);
    return fd;
}

static void check_range(void)
{
    autofd fd = full_file();
    g_autofree uint8_t *data = g_malloc(SIZE);
    g_assert_cmpint(zeroes_write(fd, AT, LEN), ==, 0);
    g_assert_cmpint(pread(fd, data, SIZE, 0), ==, SIZE);
    for (unsigned i = 0; i < SIZE; i++)
        g_assert_cmpuint(data[i], ==, i >= AT && i < AT + LEN ? 0 : 0x5a);
}

static void test_hole(void)
{
    struct stat before, after;
    autofd fd = full_file();
    check_range();
    fstat(fd, &before);
    g_assert_cmpint(zeroes_write(fd, 0, SIZE), ==, 0);
    fstat(fd, &after);
    g_assert_cmpint(after.st_blocks, <, before.st_blocks);
    g_assert_cmpint(after.st_size, ==, SIZE);
}

static void test_written(void)
{
    if (!g_test_subprocess()) {
        g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
        g_test_trap_assert_passed();
        return;
    }
    refuse_call(SYS_fallocate, EOPNOTSUPP); /* as a file system without holes answers */
    check_range();
}

static void test_limits(void)
{
    autofd fd = full_file(), none = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    g_assert_cmpint(zeroes_write(fd, SIZE, 0), ==, 0);
    g_assert_cmpint(zeroes_write(fd, UINT64_MAX, 1), ==, -EFBIG);
    g_assert_cmpint(zeroes_write(fd, 1, INT64_MAX), ==, -EFBIG);
    g_assert_cmpint(fcntl(none, F_ADD_SEALS, F_SEAL_WRITE), ==, 0);
    g_assert_cmpint(zeroes_write(none, 0, 512), ==, -EPERM);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/zeroes/hole", test_hole);
    g_test_add_func("/zeroes/written", test_written);
    g_test_add_func("/zeroes/limits", test_limits);
    return g_test_run();
}
