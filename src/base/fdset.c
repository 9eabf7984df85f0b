/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sets of descriptors; see fdset.h. */
#include "base/fdset.h"

#include "base/fd.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "/dev/fdset/"

/* Sorted by set. */
static struct member {
    int set, fd;
} members[FDSET_MAX];
static size_t member_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int next_set_locked(void)
{
    return member_count ? members[member_count - 1].set + 1 : 0;
}

int fdset_add(int set, int fd)
{
    int result = -ENOSPC;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    pthread_mutex_lock(&lock);
    if (set < 0)
        set = next_set_locked();
    if (member_count < FDSET_MAX && set >= 0 && set < INT32_MAX) {
        size_t at = member_count++;
        for (; at && members[at - 1].set > set; at--)
            members[at] = members[at - 1];
        members[at] = (struct member){set, fd};
        result = set;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int fdset_remove(int set, int fd)
{
    size_t kept = 0;
    pthread_mutex_lock(&lock);
    size_t before = member_count;
    for (size_t i = 0; i < before; i++) {
        if (members[i].set == set && (fd == -1 || members[i].fd == fd))
            close(members[i].fd);
        else
            members[kept++] = members[i];
    }
    member_count = kept;
    pthread_mutex_unlock(&lock);
    return kept < before ? 0 : -ENOENT;
}

bool fdset_is_path(const char *path)
{
    return !strncmp(path, PREFIX, strlen(PREFIX));
}

/* May a descriptor opened as `have` be used as `want`? */
static bool serves(int have, int want)
{
    return (have & O_ACCMODE) == (want & O_ACCMODE) || (have & O_ACCMODE) == O_RDWR;
}

/* The set's best descriptor, or -errno. */
static int choose_locked(int set, int flags)
{
    int best = -ENOENT;
    for (size_t i = 0; i < member_count; i++) {
        if (members[i].set != set)
            continue;
        int have = fcntl(members[i].fd, F_GETFL);
        if (have < 0 || !serves(have, flags))
            best = best == -ENOENT ? -EACCES : best;
        else if ((have & O_ACCMODE) == (flags & O_ACCMODE))
            return members[i].fd;
        else if (best < 0)
            best = members[i].fd;
    }
    return best;
}

/* Direct I/O belongs to the open file, which copies share. */
static int make_direct(int fd, int flags)
{
    int have = fcntl(fd, F_GETFL);
    if (!(flags & O_DIRECT) || (have & O_DIRECT))
        return 0;
    return fcntl(fd, F_SETFL, have | O_DIRECT);
}

int fdset_open(const char *path, int flags, mode_t mode)
{
    if (!fdset_is_path(path))
        return open(path, flags | O_CLOEXEC, mode);
    char *end;
    const char *number = path + strlen(PREFIX);
    errno = 0;
    long set = strtol(number, &end, 10);
    if (*number < '0' || *number > '9' || *end || errno || set > INT32_MAX) {
        errno = ENOENT;
        return -1;
    }
    pthread_mutex_lock(&lock);
    int fd = choose_locked((int)set, flags);
    if (fd >= 0)
        fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    else
        errno = -fd;
    pthread_mutex_unlock(&lock);
    if (fd >= 0 && make_direct(fd, flags) < 0) {
        fd_close_keep_errno(fd);
        return -1;
    }
    return fd < 0 ? -1 : fd;
}

void fdset_foreach(void (*fn)(int set, int fd, void *opaque), void *opaque)
{
    for (size_t i = 0;; i++) {
        pthread_mutex_lock(&lock);
        bool there = i < member_count;
        struct member m = there ? members[i] : (struct member){0, -1};
        pthread_mutex_unlock(&lock);
        if (!there)
            return;
        fn(m.set, m.fd, opaque);
    }
}
