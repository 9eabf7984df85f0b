/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A pool's folder on the file system: building it, opening files in it and never beside it, and
 * making new files where they cannot be seen before they are whole.
 *
 * Thread    Workers; every call may block.
 * Trust     Whoever may write into the folder can put links and odd files there at any time: files
 *           are opened with openat2() below the folder's descriptor, and looked at through what
 *           was opened.
 */
#include "base/fd.h"
#include "manager/storage/storage_priv.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>

int pool_fs_open_dir(const char *target, GError **error)
{
    int fd = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        ruche_error_errno(error, errno, "cannot open folder '%s'", target);
    return fd;
}

int pool_fs_open(int dir, const char *name, int flags)
{
    flags |= O_CLOEXEC | O_NONBLOCK | O_NOCTTY; /* a FIFO or a terminal must not hold us up */
    struct open_how how = {.flags = (uint64_t)flags,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    int fd = (int)syscall(SYS_openat2, dir, name, &how, sizeof(how));
    if (fd < 0 && errno == ENOSYS) /* kernels before 5.6: no links at all */
        fd = openat(dir, name, flags | O_NOFOLLOW);
    return fd;
}

bool pool_fs_apply(int fd, const char *what, const struct file_perms *perms, GError **error)
{
    uid_t owner = perms->owner < 0 ? (uid_t)-1 : (uid_t)perms->owner;
    gid_t group = perms->group < 0 ? (gid_t)-1 : (gid_t)perms->group;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return ruche_error_errno(error, errno, "cannot look at '%s'", what);
    bool other =
        (perms->owner >= 0 && st.st_uid != owner) || (perms->group >= 0 && st.st_gid != group);
    if (other && fchown(fd, owner, group) < 0)
        return ruche_error_errno(error, errno,
                                 "cannot give '%s' to user %" PRId64 " and group %" PRId64, what,
                                 perms->owner, perms->group);
    if (perms->mode >= 0 && fchmod(fd, (mode_t)perms->mode) < 0)
        return ruche_error_errno(error, errno, "cannot set mode %04o on '%s'",
                                 (unsigned)perms->mode, what);
    return true;
}

bool pool_fs_build(const char *target, const struct file_perms *perms, GError **error)
{
    g_autofree char *parent = g_path_get_dirname(target);
    struct file_perms wanted = *perms;
    if (g_mkdir_with_parents(parent, 0755) < 0)
        return ruche_error_errno(error, errno, "cannot make folder '%s'", parent);
    if (mkdir(target, 0711) == 0) {
        if (wanted.mode < 0)
            wanted.mode = 0711;
    } else if (errno != EEXIST) {
        return ruche_error_errno(error, errno, "cannot make folder '%s'", target);
    }
    autofd fd = pool_fs_open_dir(target, error);
    return fd >= 0 && pool_fs_apply(fd, target, &wanted, error);
}

/* ---- stages ---- */

bool stage_open(struct stage *s, const char *target, GError **error)
{
    *s = (struct stage){.fd = -1, .pool_fd = pool_fs_open_dir(target, error)};
    if (s->pool_fd < 0)
        return false;
    for (int tries = 0; tries < 16; tries++) {
        g_snprintf(s->name, sizeof(s->name), STAGE_PREFIX "%08x%08x", g_random_int(),
                   g_random_int());
        if (mkdirat(s->pool_fd, s->name, 0700) == 0)
            break;
        if (errno != EEXIST) {
            s->name[0] = 0;
            return ruche_error_errno(error, errno, "cannot make a folder in '%s'", target);
        }
    }
    s->fd = openat(s->pool_fd, s->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return (s->fd >= 0 && flock(s->fd, LOCK_EX | LOCK_NB) == 0) ||
           ruche_error_errno(error, errno, "cannot lock a folder in '%s'", target);
}

bool stage_publish(struct stage *s, const char *name, GError **error)
{
    autofd fd = openat(s->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fsync(fd) < 0)
        return ruche_error_errno(error, errno, "cannot sync new volume '%s'", name);
    if (renameat2(s->fd, name, s->pool_fd, name, RENAME_NOREPLACE) < 0) {
        if (errno == EEXIST)
            return ruche_error(error, RUCHE_ERR_EXISTS, "a file '%s' is already there", name);
        if (errno != EINVAL) /* a file system that cannot refuse to replace */
            return ruche_error_errno(error, errno, "cannot put volume '%s' into its place", name);
        if (linkat(s->fd, name, s->pool_fd, name, 0) < 0)
            return ruche_error_errno(error, errno, "cannot put volume '%s' into its place", name);
    }
    return true;
}

static void empty_folder(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *e;
    if (!dir) {
        fd_close_keep_errno(copy);
        return;
    }
    rewinddir(dir);
    while ((e = readdir(dir)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(fd, e->d_name, 0);
    closedir(dir);
}

void stage_close(struct stage *s)
{
    if (s->fd >= 0)
        empty_folder(s->fd);
    if (s->pool_fd >= 0 && s->name[0])
        unlinkat(s->pool_fd, s->name, AT_REMOVEDIR);
    fd_close_keep_errno(fd_steal(&s->fd));
    fd_close_keep_errno(fd_steal(&s->pool_fd));
}

int nameless_open(int dir, int mode)
{
    return openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, mode);
}

/* A file of holes has nothing to be synced: its size goes the way of its name. */
static bool sync_contents(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && (st.st_blocks == 0 || fsync(fd) == 0);
}

/* Contents are synced, as with libvirt; the name is as durable as the file system makes it. */
bool nameless_publish(int dir, int fd, const char *name, GError **error)
{
    char path[32];
    g_snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (!sync_contents(fd))
        return ruche_error_errno(error, errno, "cannot sync new volume '%s'", name);
    if (linkat(AT_FDCWD, path, dir, name, AT_SYMLINK_FOLLOW) == 0)
        return true;
    return errno == EEXIST
               ? ruche_error(error, RUCHE_ERR_EXISTS, "a file '%s' is already there", name)
               : ruche_error_errno(error, errno, "cannot put volume '%s' into its place", name);
}

/* Left-overs of a manager that was killed: nobody holds their lock. */
static void clean_stage(int pool_fd, const char *name)
{
    autofd fd = openat(pool_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        return;
    empty_folder(fd);
    unlinkat(pool_fd, name, AT_REMOVEDIR);
}

void stage_clean(int pool_fd)
{
    int copy = openat(pool_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *e;
    if (!dir) {
        fd_close_keep_errno(copy);
        return;
    }
    while ((e = readdir(dir)))
        if (g_str_has_prefix(e->d_name, STAGE_PREFIX))
            clean_stage(pool_fd, e->d_name);
    closedir(dir);
}

bool pool_fs_image_busy(int fd)
{
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 200};
    return fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}
