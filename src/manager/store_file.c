/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files beside their places, and into them. See store_file.h. */
#include "manager/store_file.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define NS_A_SECOND 1000000000

/* Nothing stays beside. */
static void failed(struct store_file *f, const char *step)
{
    f->err = errno ? errno : EIO;
    f->step = step;
    if (f->temp)
        unlink(f->temp);
    g_clear_pointer(&f->temp, g_free);
}

static int64_t time_of(const struct stat *st)
{
    return (int64_t)st->st_mtim.tv_sec * NS_A_SECOND + st->st_mtim.tv_nsec;
}

int64_t store_file_time(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 ? time_of(&st) : 0;
}

static bool write_all(int fd, const char *text, size_t len)
{
    while (len) {
        ssize_t n = write(fd, text, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        text += n;
        len -= (size_t)n;
    }
    return true;
}

static struct timespec date_of(const struct store_file *f)
{
    return (struct timespec){.tv_sec = f->time_ns / NS_A_SECOND,
                             .tv_nsec = f->time_ns % NS_A_SECOND};
}

static void write_text(struct store_file *f)
{
    int fd = open(f->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, f->mode);
    if (fd < 0)
        return failed(f, "open");
    const struct timespec when[2] = {date_of(f), date_of(f)};
    if (fchmod(fd, f->mode) < 0 || !write_all(fd, f->text, strlen(f->text)) ||
        (f->time_ns && futimens(fd, when) < 0))
        failed(f, "write");
    if (close(fd) < 0 && !f->err)
        failed(f, "write");
}

static void write_link(struct store_file *f)
{
    const struct timespec when[2] = {date_of(f), date_of(f)};
    if (symlink(f->text, f->temp) < 0 ||
        (f->time_ns && utimensat(AT_FDCWD, f->temp, when, AT_SYMLINK_NOFOLLOW) < 0))
        failed(f, "link");
}

void store_file_look(struct store_file *f)
{
    struct stat st;
    f->old_ns = 0;
    if (lstat(f->path, &st) < 0)
        return;
    f->old_ns = time_of(&st);
    if (S_ISDIR(st.st_mode)) { /* so that nothing is promised that cannot be done */
        errno = EISDIR;
        failed(f, f->kind == STORE_REMOVE ? "remove" : "rename");
    }
}

/* Without a file nothing is needed to remove it; else a folder, and room in it. */
void store_file_foresee(struct store_file *f)
{
    store_file_look(f);
    if (f->err || f->kind == STORE_REMOVE)
        return;
    struct statvfs fs;
    g_autofree char *dir = g_path_get_dirname(f->path);
    if (access(dir, W_OK | X_OK) < 0 || statvfs(dir, &fs) < 0)
        return failed(f, "open");
    if (!(geteuid() ? fs.f_bavail : fs.f_bfree) || (fs.f_files && !fs.f_ffree)) {
        errno = ENOSPC;
        failed(f, "write");
    }
}

static void store_file_write(struct store_file *f)
{
    static _Atomic unsigned serial;
    if (f->kind == STORE_REMOVE)
        return;
    g_autofree char *dir = g_path_get_dirname(f->path);
    f->temp = g_strdup_printf("%s/" STORE_TEMP_PREFIX "%d-%u", dir, (int)getpid(), serial++);
    if (f->kind == STORE_WRITE)
        write_text(f);
    else
        write_link(f);
}

void store_file_prepare(struct store_file *f)
{
    store_file_look(f);
    if (!f->err)
        store_file_write(f);
}

void store_file_place(struct store_file *f)
{
    if (f->kind == STORE_REMOVE) {
        if (unlink(f->path) < 0 && errno != ENOENT)
            failed(f, "remove");
        return;
    }
    if (rename(f->temp, f->path) < 0)
        return failed(f, "rename");
    g_clear_pointer(&f->temp, g_free);
}

static void make_folder(struct store_file *f)
{
    g_autofree char *dir = g_path_get_dirname(f->path);
    if (g_mkdir_with_parents(dir, 0700) < 0)
        failed(f, "folder");
}

void store_file_carry_out(struct store_file *f)
{
    int64_t now = store_file_time(f->path);
    f->edited = now > f->time_ns && now != f->old_ns;
    if (f->edited)
        return;
    if (!now && f->kind != STORE_REMOVE)
        make_folder(f);
    if (!f->err)
        store_file_write(f);
    if (!f->err)
        store_file_place(f);
}

static bool sync_path(const char *path, int flags)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
    bool ok = fd >= 0 && fsync(fd) == 0;
    int err = errno;
    if (fd >= 0)
        close(fd);
    errno = err;
    return ok;
}

void store_file_sync(struct store_file *f)
{
    if (f->kind == STORE_WRITE && !sync_path(f->temp, O_NOFOLLOW))
        failed(f, "sync");
}

void store_file_sync_folder(struct store_file *f)
{
    g_autofree char *dir = g_path_get_dirname(f->path);
    if (!sync_path(dir, O_DIRECTORY))
        failed(f, "sync folder");
}
