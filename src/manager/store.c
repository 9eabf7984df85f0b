/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files replaced as a whole, several at a time.
 *
 * Group     Writes that come while others are being synced are taken together by the same worker:
 * all texts are written, then each folder is synced once. The cost of a write is one wait for the
 * disk, however many there are. Order     The text must be on the disk before its name. In general
 * that is a sync of the file, then one of the folder. On XFS, and on ext4 with a journal, the
 * pages, their place and the file's size are part of what was before the rename once
 * sync_file_range() has returned, and the commit that makes the rename durable flushes the disk:
 * there the one sync of the folder covers both.
 */
#include "manager/store.h"

#include "base/log.h"
#include "manager/error.h"
#include "manager/task.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

#define TEMP_PREFIX ".ruche-new-"

/* One change that somebody waits for. text NULL: the file was taken away, and its folder wants to
 * be synced (waiter NULL: nobody waits, and it is on the heap). */
struct change {
    const char *path, *text;
    bool link; /* text is what a symbolic link says */
    char *temp, *dir;
    mode_t mode;
    int fd, err;      /* positive errno */
    const char *step; /* what failed */
    struct fiber *waiter;
    struct change *next;
};

static void failed(struct change *c, const char *step)
{
    c->err = errno ? errno : EIO;
    c->step = step;
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    if (c->temp)
        unlink(c->temp);
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
        len -= n;
    }
    return true;
}

static void write_temp(struct change *c)
{
    static _Atomic unsigned serial;
    c->temp = g_strdup_printf("%s/" TEMP_PREFIX "%d-%u", c->dir, (int)getpid(), serial++);
    if (c->link) {
        if (symlink(c->text, c->temp) < 0)
            failed(c, "link");
        return;
    }
    c->fd = open(c->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, c->mode);
    if (c->fd < 0)
        return failed(c, "open");
    if (fchmod(c->fd, c->mode) < 0 || !write_all(c->fd, c->text, strlen(c->text)))
        return failed(c, "write");
}

/* ext2, and ext4 without a journal, have the same number: a journal has a thread, which sysfs
 * names. */
static bool has_journal(dev_t dev)
{
    g_autofree char *link = g_strdup_printf("/sys/dev/block/%u:%u", major(dev), minor(dev)),
                    *text = NULL;
    g_autofree char *where = g_file_read_link(link, NULL),
                    *name = where ? g_path_get_basename(where) : NULL;
    g_autofree char *path = name ? g_strdup_printf("/sys/fs/ext4/%s/journal_task", name) : NULL;
    return path && g_file_get_contents(path, &text, NULL, NULL) && g_ascii_isdigit(*text);
}

static bool orders_renames(int fd)
{
    static __thread dev_t known_dev;
    static __thread bool known_orders;
    struct statfs fs;
    struct stat st;
    if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
        return false;
    if (st.st_dev != known_dev) {
        known_orders = fs.f_type == XFS_SUPER_MAGIC ||
                       (fs.f_type == EXT4_SUPER_MAGIC && has_journal(st.st_dev));
        known_dev = st.st_dev;
    }
    return known_orders;
}

static void put_in_place(struct change *c)
{
    const unsigned whole =
        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    if (!c->link &&
        (orders_renames(c->fd) ? sync_file_range(c->fd, 0, 0, whole) : fsync(c->fd)) < 0)
        return failed(c, "sync");
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    if (rename(c->temp, c->path) < 0)
        return failed(c, "rename");
    g_clear_pointer(&c->temp, g_free);
}

/* Syncs the folder of `c` for all changes in it. */
static void sync_dir(struct change *c)
{
    int fd = open(c->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int err = fd < 0 || fsync(fd) < 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    for (struct change *other = c; other; other = other->next)
        if (!other->err && other->dir && strcmp(other->dir, c->dir) == 0) {
            other->err = err;
            other->step = "sync folder";
            if (other != c)
                g_clear_pointer(&other->dir, g_free); /* done */
        }
    g_clear_pointer(&c->dir, g_free);
}

static void carry_out(struct change *list)
{
    for (struct change *c = list; c; c = c->next) {
        c->fd = -1;
        c->dir = g_path_get_dirname(c->path);
        if (c->text)
            write_temp(c);
        if (c->fd >= 0)
            sync_file_range(c->fd, 0, 0,
                            SYNC_FILE_RANGE_WRITE); /* a start, while the others are written */
    }
    for (struct change *c = list; c; c = c->next)
        if (c->text && !c->err)
            put_in_place(c);
    for (struct change *c = list; c; c = c->next)
        if (!c->err && c->dir)
            sync_dir(c);
    for (struct change *c = list; c; c = c->next) {
        g_clear_pointer(&c->dir, g_free);
        g_clear_pointer(&c->temp, g_free);
    }
}

static bool outcome(const struct change *c, GError **error)
{
    return !c->err || ruche_error_errno(error, c->err, "%s: %s", c->path, c->step);
}

bool store_write_blocking(const char *path, const char *text, mode_t mode, GError **error)
{
    struct change c = {.path = path, .text = text, .mode = mode};
    carry_out(&c);
    return outcome(&c, error);
}

bool store_write_volatile(const char *path, const char *text, mode_t mode, GError **error)
{
    struct change c = {.path = path, .text = text, .mode = mode, .fd = -1};
    c.dir = g_path_get_dirname(path);
    write_temp(&c);
    if (!c.err && rename(c.temp, path) < 0)
        failed(&c, "rename");
    if (c.fd >= 0)
        close(c.fd);
    g_free(c.dir);
    g_free(c.temp);
    return outcome(&c, error);
}

/* ---- from tasks ---- */

static struct change *waiting, **waiting_end = &waiting;
static bool writer_runs;

static void writer_work(void *opaque)
{
    carry_out(opaque);
}

static void background_done(struct change *c)
{
    g_autoptr(GError) error = NULL;
    if (!outcome(c, &error))
        log_warn("%s", error->message);
    g_free((char *)c->path);
    g_free(c);
}

/* A task that goes on while there are changes: each round takes all. */
static void writer(void *opaque)
{
    while (waiting) {
        struct change *list = g_steal_pointer(&waiting);
        waiting_end = &waiting;
        task_work(writer_work, list);
        for (struct change *next; list; list = next) {
            next = list->next; /* it is gone with its task's frame */
            if (list->waiter)
                fiber_wake(list->waiter);
            else
                background_done(list);
        }
    }
    writer_runs = false;
}

static void enqueue(struct change *c)
{
    *waiting_end = c;
    waiting_end = &c->next;
    if (writer_runs)
        return;
    writer_runs = true;
    task_start(writer, NULL);
}

static bool change_and_wait(struct change *c, GError **error)
{
    c->waiter = fiber_self();
    enqueue(c);
    fiber_wait();
    return outcome(c, error);
}

bool store_write(const char *path, const char *text, mode_t mode, GError **error)
{
    struct change c = {.path = path, .text = text, .mode = mode};
    return change_and_wait(&c, error);
}

bool store_link(const char *path, const char *target, GError **error)
{
    struct change c = {.path = path, .text = target, .link = true};
    return change_and_wait(&c, error);
}

struct removal {
    const char *path;
    int err;
};

static void removal_work(void *opaque)
{
    struct removal *r = opaque;
    r->err = unlink(r->path) < 0 ? errno : 0;
}

bool store_remove(const char *path, GError **error)
{
    struct removal r = {.path = path};
    task_work(removal_work, &r);
    if (r.err)
        return r.err == ENOENT || ruche_error_errno(error, r.err, "%s: remove", path);
    struct change *c = g_new0(struct change, 1);
    c->path = g_strdup(path);
    enqueue(c);
    return true;
}

/* ---- reading ---- */

static char *read_all(int fd, size_t max_bytes, const char *path, GError **error)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        ruche_error(error, RUCHE_ERR_INVALID, "%s is not a regular file", path);
        return NULL;
    }
    if ((uint64_t)st.st_size > max_bytes) {
        ruche_error(error, RUCHE_ERR_NO_SPACE, "%s has %lld bytes; %zu are the most", path,
                    (long long)st.st_size, max_bytes);
        return NULL;
    }
    size_t have = 0, size = st.st_size;
    g_autofree char *text = g_try_malloc(size + 1);
    if (!text) {
        ruche_error(error, RUCHE_ERR_NO_SPACE, "%s: no memory for %zu bytes", path, size);
        return NULL;
    }
    while (have < size) {
        ssize_t n = read(fd, text + have, size - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            ruche_error_errno(error, errno, "%s: read", path);
            return NULL;
        }
        if (n == 0)
            break;
        have += n;
    }
    text[have] = 0;
    return g_steal_pointer(&text);
}

char *store_read(const char *path, size_t max_bytes, GError **error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        int err = errno;
        if (err == ENOENT)
            ruche_error(error, RUCHE_ERR_NOT_FOUND, "%s does not exist", path);
        else
            ruche_error_errno(error, err, "%s: open", path);
        return NULL;
    }
    char *text = read_all(fd, max_bytes, path, error);
    close(fd);
    return text;
}

void store_clean_dir(const char *dir)
{
    g_autoptr(GDir) d = g_dir_open(dir, 0, NULL);
    for (const char *name; d && (name = g_dir_read_name(d));) {
        g_autofree char *path = g_build_filename(dir, name, NULL);
        if (g_str_has_prefix(name, TEMP_PREFIX) && unlink(path) < 0)
            log_warn("%s: left over, and could not be removed: %s", path, g_strerror(errno));
    }
}
