/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Executable memory: two mappings of one memfd, one to write and one to run, none that does both.
 *
 * Thread    Any, each with its own arena.
 */
#include "cpu/translate/tb.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

static bool map_at(uint8_t *at, size_t bytes, int prot, int fd)
{
    int flags = MAP_FIXED | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED);
    return mmap(at, bytes, prot, flags, fd, 0) != MAP_FAILED;
}

static int map_all(struct code_arena *a, int fd)
{
    size_t total = 2 * a->size + a->data_size;
    uint8_t *base = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return -errno;
    if (!map_at(base, a->size, PROT_READ | PROT_WRITE, fd) || !map_at(base + a->size, a->size, PROT_READ | PROT_EXEC, fd) ||
        !map_at(base + 2 * a->size, a->data_size, PROT_READ | PROT_WRITE, -1)) {
        int err = -errno;
        munmap(base, total);
        return err;
    }
    a->rw = base;
    a->rx = base + a->size;
    a->data = base + 2 * a->size;
    return 0;
}

int code_arena_init(struct code_arena *a, size_t bytes, size_t data_bytes)
{
    int fd = memfd_create("ruche-code", MFD_CLOEXEC);

    *a = (struct code_arena){ .size = bytes, .data_size = data_bytes };
    if (fd < 0)
        return -errno;
    int err = ftruncate(fd, (off_t)bytes) < 0 ? -errno : map_all(a, fd);
    close(fd);
    return err;
}

void code_arena_done(struct code_arena *a)
{
    if (a->rw)
        munmap(a->rw, 2 * a->size + a->data_size);
    *a = (struct code_arena){ 0 };
}
