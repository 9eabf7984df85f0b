/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files of saved machines; see save_file.h. */
#include "manager/domain/save_file.h"

#include "base/fd.h"
#include "base/xml.h"

#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPARE_BYTES (64u << 10) /* how much longer a description may become */
#define BLOCK       4096u

static bool io_failed(const char *path, const char *step, GError **error)
{
    return ruche_error_errno(error, errno, "'%s' cannot be %s", path, step);
}

/* ---- new ones ---- */

/* A name beside `path` that store_clean_dir() knows. */
static char *beside(const char *path)
{
    g_autofree char *dir = g_path_get_dirname(path), *base = g_path_get_basename(path);
    return g_strdup_printf("%s/.ruche-new-%s-%08x", dir, base, g_random_int());
}

/* Without a name where the file system has that. */
static int create(const char *path, char **ret_temporary)
{
    g_autofree char *dir = g_path_get_dirname(path);
    int fd = open(dir, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return fd;
    *ret_temporary = beside(path);
    return open(*ret_temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
}

bool save_file_new(const char *path, struct save_file *ret, GError **error)
{
    struct stat st;
    *ret = (struct save_file){.fd = -1};
    if (!g_path_is_absolute(path))
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is not the full path of a file", path);
    if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s' is there already and is not a regular file", path);
    struct save_file f = {.path = g_strdup(path)};
    f.fd = create(path, &f.temporary);
    if (f.fd < 0 || fstat(f.fd, &st) < 0) {
        io_failed(path, "created", error);
        save_file_done(&f);
        return false;
    }
    f.inode = st.st_ino;
    *ret = f;
    return true;
}

static bool write_at(int fd, const void *data, size_t len, off_t at)
{
    for (const uint8_t *p = data; len;) {
        ssize_t n = pwrite(fd, p, len, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static void digest(const char *xml, size_t len, uint8_t ret[32])
{
    gsize room = 32;
    GChecksum *c = g_checksum_new(G_CHECKSUM_SHA256);
    g_checksum_update(c, (const guchar *)xml, (gssize)len);
    g_checksum_get_digest(c, ret, &room);
    g_checksum_free(c);
}

/* The description into its slot, and only then the head that says so. */
static bool write_xml(int fd, struct save_head *h, const char *xml)
{
    uint8_t block[SAVE_HEAD_BYTES];
    digest(xml, h->xml_bytes, h->digest);
    save_head_write(h, block);
    return write_at(fd, xml, h->xml_bytes, SAVE_HEAD_BYTES + (off_t)h->slot * h->slot_bytes) &&
           fdatasync(fd) == 0 && write_at(fd, block, 512, 0) && fdatasync(fd) == 0;
}

bool save_file_begin(struct save_file *f, const char *xml, enum save_state state, GError **error)
{
    size_t len = strlen(xml);
    if (len > XML_MAX_BYTES)
        return ruche_error(error, MANAGER_ERR_OVERFLOW, "a description of %zu bytes is too long",
                           len);
    struct save_head h = {.state = state,
                          .slot_bytes = ((uint32_t)len + SPARE_BYTES + BLOCK - 1) / BLOCK * BLOCK,
                          .xml_bytes = (uint32_t)len};
    off_t at = (off_t)save_head_stream(&h);
    if (ftruncate(f->fd, at) < 0 || !write_xml(f->fd, &h, xml) || lseek(f->fd, at, SEEK_SET) != at)
        return io_failed(f->path, "written", error);
    return true;
}

void save_file_trim(const struct save_file *f)
{
    if (f->drop_cache &&
        sync_file_range(f->fd, 0, 0, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER) == 0)
        posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
}

static bool sync_folder(const char *path)
{
    g_autofree char *dir = g_path_get_dirname(path);
    autofd fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 && fsync(fd) == 0;
}

bool save_file_commit(struct save_file *f, GError **error)
{
    if (fsync(f->fd) < 0)
        return io_failed(f->path, "written", error);
    save_file_trim(f);
    if (!f->temporary) {
        g_autofree char *own = g_strdup_printf("/proc/self/fd/%d", f->fd), *name = beside(f->path);
        if (linkat(AT_FDCWD, own, AT_FDCWD, name, AT_SYMLINK_FOLLOW) < 0)
            return io_failed(f->path, "created", error);
        f->temporary = g_steal_pointer(&name);
    }
    if (rename(f->temporary, f->path) < 0)
        return io_failed(f->path, "created", error);
    g_clear_pointer(&f->temporary, g_free);
    return sync_folder(f->path) || io_failed(f->path, "synced", error);
}

void save_file_done(struct save_file *f)
{
    if (f->temporary)
        unlink(f->temporary);
    fd_close_keep_errno(fd_steal(&f->fd));
    g_clear_pointer(&f->temporary, g_free);
    g_clear_pointer(&f->path, g_free);
}

/* ---- those that there are ---- */

static bool broken(const char *path, const char *why, GError **error)
{
    return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is no saved machine: %s", path, why);
}

static char *read_xml(int fd, const char *path, const struct save_head *h, GError **error)
{
    uint8_t is[32];
    g_autofree char *xml = g_try_malloc(h->xml_bytes + 1);
    if (!xml) {
        ruche_error(error, RUCHE_ERR_NO_SPACE, "no memory for the description in '%s'", path);
        return NULL;
    }
    ssize_t n = pread(fd, xml, h->xml_bytes, SAVE_HEAD_BYTES + (off_t)h->slot * h->slot_bytes);
    xml[h->xml_bytes] = '\0';
    digest(xml, h->xml_bytes, is);
    if (n != (ssize_t)h->xml_bytes || memcmp(is, h->digest, sizeof(is)) ||
        strlen(xml) != h->xml_bytes) {
        broken(path, "its description is damaged", error);
        return NULL;
    }
    return g_steal_pointer(&xml);
}

static bool read_head(int fd, const char *path, struct save_head *ret, GError **error)
{
    uint8_t block[SAVE_HEAD_BYTES];
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return broken(path, "it is not a regular file", error);
    ssize_t n = pread(fd, block, sizeof(block), 0);
    int e = n == (ssize_t)sizeof(block) ? save_head_read(block, sizeof(block), ret) : -EBADMSG;
    if (e == -EPROTONOSUPPORT)
        return broken(path, "it was written by a later version", error);
    if (e == -ERANGE)
        return broken(path, "its head is damaged", error);
    if (e)
        return broken(path, "it does not begin as one", error);
    return (uint64_t)st.st_size > save_head_stream(ret) ||
           broken(path, "its end is missing", error);
}

static int open_image(const char *path, int flags, struct save_head *ret, char **ret_xml,
                      GError **error)
{
    if (!g_path_is_absolute(path)) {
        ruche_error(error, RUCHE_ERR_INVALID, "'%s' is not the full path of a file", path);
        return -1;
    }
    autofd fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        io_failed(path, "opened", error);
        return -1;
    }
    if (!read_head(fd, path, ret, error))
        return -1;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        ruche_error(error, RUCHE_ERR_BUSY, "'%s' is in use: a machine is being restored from it",
                    path);
        return -1;
    }
    *ret_xml = read_xml(fd, path, ret, error);
    return *ret_xml ? fd_steal(&fd) : -1;
}

int save_file_open(const char *path, struct save_head *ret, char **ret_xml, GError **error)
{
    g_autofree char *xml = NULL;
    autofd fd = open_image(path, O_RDONLY, ret, &xml, error);
    if (fd < 0)
        return -1;
    if (lseek(fd, (off_t)save_head_stream(ret), SEEK_SET) < 0) {
        io_failed(path, "read", error);
        return -1;
    }
    *ret_xml = g_steal_pointer(&xml);
    return fd_steal(&fd);
}

bool save_file_set_xml(const char *path, const char *xml, enum save_state state, GError **error)
{
    struct save_head h;
    g_autofree char *old = NULL;
    autofd fd = open_image(path, O_RDWR, &h, &old, error);
    size_t len = strlen(xml);
    if (fd < 0)
        return false;
    if (len > MIN(h.slot_bytes, XML_MAX_BYTES))
        return ruche_error(error, MANAGER_ERR_OVERFLOW,
                           "'%s' has room for a description of %u bytes; this one has %zu", path,
                           h.slot_bytes, len);
    h.slot = !h.slot;
    h.xml_bytes = (uint32_t)len;
    h.state = state;
    return write_xml(fd, &h, xml) || io_failed(path, "written", error);
}
