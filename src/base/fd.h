/* SPDX-License-Identifier: GPL-2.0-or-later */
/* File descriptors that close themselves, and eventfds. */
#pragma once

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

static inline void fd_close_keep_errno(int fd)
{
    if (fd >= 0) {
        int saved = errno;
        close(fd);
        errno = saved;
    }
}

static inline void fd_auto_cleanup(int *fd)
{
    fd_close_keep_errno(*fd);
}
#define autofd __attribute__((cleanup(fd_auto_cleanup))) int

/* Gives the descriptor away: the variable becomes -1. */
static inline int fd_steal(int *fd)
{
    int v = *fd;
    *fd = -1;
    return v;
}

static inline void eventfd_signal(int fd)
{
    uint64_t one = 1;
    while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

static inline uint64_t eventfd_drain(int fd)
{
    uint64_t n = 0;
    return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}
