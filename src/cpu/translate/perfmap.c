/* SPDX-License-Identifier: GPL-2.0-or-later */
/* /tmp/perf-PID.map: tells perf(1) which guest code a stretch of the code cache was made from.
 *
 * One line a block and place: address, size, "guest 0xGPA mode" (and "cold" for what is off the straight way). Lines of
 * blocks that died stay; perf takes the last that fits.
 *
 * Spec      Linux, tools/perf/Documentation/jit-interface.txt.
 * Thread    Under translate.lock.
 */
#include "cpu/translate/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

static void add(FILE *f, const uint8_t *at, size_t bytes, const char *what)
{
    if (bytes)
        fprintf(f, "%" PRIxPTR " %zx %s\n", (uintptr_t)at, bytes, what);
}

int perf_map_open(struct translate *t)
{
    char name[64];

    snprintf(name, sizeof(name), "/tmp/perf-%d.map", getpid());
    if (unlink(name) < 0 && errno != ENOENT)
        return -errno;
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    t->perf_map = fdopen(fd, "w");
    if (!t->perf_map) {
        close(fd);
        return -ENOMEM;
    }
    setvbuf(t->perf_map, NULL, _IOLBF, 0);
    add(t->perf_map, t->code.rx, TX_CHUNK_CODE, "thunks");
    return 0;
}

void perf_map_add(struct translate *t, const struct tb *tb)
{
    char what[80];

    if (!t->perf_map || !tb->code)
        return;
    snprintf(what, sizeof(what), "guest 0x%" PRIx64 " %x", tb->gpa, tb->mode);
    add(t->perf_map, tb->code, tb->code_bytes, what);
    snprintf(what, sizeof(what), "guest 0x%" PRIx64 " %x cold", tb->gpa, tb->mode);
    add(t->perf_map, tb->cold, tb->cold_bytes, what);
}

void perf_map_close(struct translate *t)
{
    if (t->perf_map)
        fclose(t->perf_map);
    t->perf_map = NULL;
}
