/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Starting a machine's process, as nobody's child: it is handed to init, in a session of its own,
 * and does not end with us.
 *
 * Thread    Any; blocks for some milliseconds, so tasks use a worker.
 */
#pragma once

#include "manager/error.h"

#include <stdint.h>
#include <sys/types.h>

#define VM_FIRST_FD 10 /* numbers of passed descriptors begin here, in the order of `fds` */
#define VM_MAX_FDS  512

struct vm_spawn {
    const char *const *argv, *const *env; /* argv[0] is a path */
    const int *fds;                       /* passed; the caller's stay open */
    unsigned fd_count;
    int log_fd;  /* standard output and error */
    int lock_fd; /* stays open in it, behind the passed ones; its number is written there */
    const int *cgroup_fds; /* cgroup.procs files that the process writes itself into */
    unsigned cgroup_count;
    const char *user, *group; /* whom it runs as; NULL: ourselves */
    uint64_t max_files;       /* RLIMIT_NOFILE */
    int64_t locked_bytes;     /* RLIMIT_MEMLOCK; -1: as it is */
};
/* The process, which has become argv[0]. 0 with *error. */
pid_t vm_spawn(const struct vm_spawn *s, GError **error);
