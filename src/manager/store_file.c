/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files beside their places, and into them. See store_file.h. */
#include "manager/store_file.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NS_A_SECOND 1000000000

static void failed(struct store_file *f, const char *step)
{
    f->err = errno ? errno : EIO;
    f->step = step;
    store_file_drop(f);
}

void store_file_drop(struct store_file *f)
{
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

static void write_text(struct store_file *f)
{
    int fd = open(f->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, f->mode);
    if (fd < 0)
        return failed(f, "open");
    if (fchmod(fd, f->mode) < 0 || !write_all(fd, f->text, strlen(f->text)))
        failed(f, "write");
    if (close(fd) < 0 && !f->err)
        failed(f, "write");
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

void store_file_write(struct store_file *f)
{
    static _Atomic unsigned serial;
    if (f->kind == STORE_REMOVE)
        return;
    g_autofree char *dir = g_path_get_dirname(f->path);
    f->temp = g_strdup_printf("%s/" STORE_TEMP_PREFIX "%d-%u", dir, (int)getpid(), serial++);
    if (f->kind == STORE_WRITE)
        write_text(f);
    else if (symlink(f->text, f->temp) < 0)
        failed(f, "link");
    const struct timespec when = {.tv_sec = f->time_ns / NS_A_SECOND,
                                  .tv_nsec = f->time_ns % NS_A_SECOND};
    if (!f->err && f->time_ns &&
        utimensat(AT_FDCWD, f->temp, (const struct timespec[]){when, when}, AT_SYMLINK_NOFOLLOW) <
            0)
        failed(f, "date");
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
