/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Image locks: byte locks that QEMU and its tools understand, so that each refuses what the other
 * uses.
 *
 * Spec      QEMU's raw file driver: bytes from 100 stand for the permissions that an opener uses,
 *           bytes from 200 for those that it does not share with others. Read locks announce; a
 *           test for a write lock asks.
 * Thread    Any.
 * Trust     /proc is read only to name the holder in a message.
 * Errors    A sentence with RUCHE_ERR_BUSY; a file system without locks is no error.
 */
#include "base/image_lock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PERM_READ = 0, PERM_WRITE = 1, PERM_RESIZE = 3, PERM_COUNT = 4 };
#define USED_BASE 100
#define UNSHARED_BASE 200

struct lock_plan {
    unsigned used, unshared; /* bits by permission */
};

static int announce(int fd, int base, unsigned bits)
{
    for (int n = 0; n < PERM_COUNT; n++) {
        if (!(bits & (1u << n)))
            continue;
        struct flock l = {
            .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = base + n, .l_len = 1
        };
        if (fcntl(fd, F_OFD_SETLK, &l) < 0)
            return -errno;
    }
    return 0;
}

/* True when another opener announced one of the bits. */
static bool announced_by_other(int fd, int base, unsigned bits)
{
    for (int n = 0; n < PERM_COUNT; n++) {
        if (!(bits & (1u << n)))
            continue;
        struct flock l = {
            .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = base + n, .l_len = 1
        };
        if (fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK)
            return true;
    }
    return false;
}

static bool fdinfo_has_lock(const char *pid, const char *fd)
{
    g_autofree char *path = g_strdup_printf("/proc/%s/fdinfo/%s", pid, fd);
    g_autofree char *text = NULL;
    return g_file_get_contents(path, &text, NULL, NULL) && strstr(text, "OFDLCK");
}

static bool process_locks(const char *pid, const struct stat *want, int except)
{
    bool self = atoi(pid) == getpid();
    g_autofree char *folder = g_strdup_printf("/proc/%s/fd", pid);
    DIR *d = opendir(folder);
    if (!d)
        return false;
    bool found = false;
    for (struct dirent *e; !found && (e = readdir(d));) {
        struct stat st;
        found = e->d_name[0] != '.' && !(self && atoi(e->d_name) == except) &&
                fstatat(dirfd(d), e->d_name, &st, 0) == 0 &&
                st.st_dev == want->st_dev && st.st_ino == want->st_ino &&
                fdinfo_has_lock(pid, e->d_name);
    }
    closedir(d);
    return found;
}

/* "process 123 (name)" who holds locks on the file by another descriptor than fd, or NULL. An open-file lock
 * carries no pid. */
static char *find_holder(int fd)
{
    struct stat st;
    DIR *d = opendir("/proc");
    if (!d)
        return NULL;
    char *who = NULL;
    if (fstat(fd, &st) == 0) {
        for (struct dirent *e; !who && (e = readdir(d));) {
            if (!g_ascii_isdigit(e->d_name[0]) || !process_locks(e->d_name, &st, fd))
                continue;
            if (atoi(e->d_name) == getpid()) {
                who = g_strdup("this process");
                break;
            }
            g_autofree char *path = g_strdup_printf("/proc/%s/comm", e->d_name);
            g_autofree char *name = NULL;
            g_file_get_contents(path, &name, NULL, NULL);
            who = g_strdup_printf("process %s (%s)", e->d_name, name ? g_strchomp(name) : "?");
        }
    }
    closedir(d);
    return who;
}

/* The kernel holds a dead process's files while its last requests run, for milliseconds. */
#define ORPHAN_TRIES 20
#define ORPHAN_WAIT_US (50 * 1000)

static bool is_free(int fd, const struct lock_plan *plan)
{
    return !announced_by_other(fd, UNSHARED_BASE, plan->used) &&
           !announced_by_other(fd, USED_BASE, plan->unshared);
}

void image_unlock(int fd)
{
    struct flock l = {
        .l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = USED_BASE, .l_len = UNSHARED_BASE + PERM_COUNT - USED_BASE
    };
    fcntl(fd, F_OFD_SETLK, &l);
}

/* False: *ret_who has the file in a way that excludes us. */
static bool take(int fd, const struct lock_plan *plan, char **ret_who)
{
    int err = announce(fd, USED_BASE, plan->used);
    if (!err)
        err = announce(fd, UNSHARED_BASE, plan->unshared);
    if (err == -EINVAL || err == -ENOLCK || err == -ENOSYS || err == -EOPNOTSUPP)
        return true; /* no locks on this file system: nobody else can lock either */
    char *who = NULL;
    for (unsigned tries = 0; !err && !who && tries < ORPHAN_TRIES; tries++) {
        if (is_free(fd, plan))
            return true;
        who = find_holder(fd);
        if (!who)
            g_usleep(ORPHAN_WAIT_US);
    }
    image_unlock(fd); /* a descriptor that was passed to us outlives its copy here, and would keep what it announced */
    *ret_who = who ? who : g_strdup("another process");
    return false;
}

static const unsigned change = 1u << PERM_WRITE | 1u << PERM_RESIZE;

bool image_lock(int fd, const char *filename, bool write, bool force_share, GError **error)
{
    struct lock_plan plan = { .used = 1u << PERM_READ | (write ? 1u << PERM_WRITE : 0),
                              .unshared = change };
    g_autofree char *who = NULL;
    return force_share || take(fd, &plan, &who) ||
           ruche_error(error, RUCHE_ERR_BUSY,
                       "image '%s' is in use by %s; stop it, or open the image %s", filename, who,
                       write ? "read-only where the other does so too" : "with force-share=on");
}

bool image_lock_alone(int fd, char **ret_who)
{
    struct lock_plan plan = { .used = 1u << PERM_READ | 1u << PERM_WRITE, .unshared = change };
    return take(fd, &plan, ret_who);
}
