/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a machine's sockets and logs are.
 *
 * Trust     The log has what the machine's process wrote: its tail is made printable and short.
 */
#include "manager/domain/vm_internal.h"

#include "base/fd.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define LOG_MAX_BYTES (2u << 20)
#define TAIL_BYTES    4096
#define TAIL_SHOWN    600

char *vm_log_path(const char *name)
{
    return g_strdup_printf("%s/machines/%s.log", manager.log_dir, name);
}

char *vm_console_log_path(const char *name)
{
    return g_strdup_printf("%s/consoles/%s.log", manager.log_dir, name);
}

char *vm_socket_path(const struct vm *v, const char *name)
{
    return g_build_filename(v->dir, name, NULL);
}

/* ---- sockets ---- */

/* Paths of sockets have room for 107 bytes: longer ones go by a descriptor of their folder, kept
 * open in *ret_dir. */
static bool make_address(const char *path, struct sockaddr_un *ret, int *ret_dir, GError **error)
{
    g_autofree char *dir = g_path_get_dirname(path), *base = g_path_get_basename(path);
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    *ret_dir = -1;
    if (strlen(path) < sizeof(ret->sun_path)) {
        g_strlcpy(ret->sun_path, path, sizeof(ret->sun_path));
        return true;
    }
    *ret_dir = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*ret_dir < 0)
        return ruche_error_errno(error, errno, "folder '%s'", dir);
    int n = g_snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/%s", *ret_dir, base);
    return n < (int)sizeof(ret->sun_path) ||
           ruche_error(error, RUCHE_ERR_INVALID, "the name of socket '%s' is too long", path);
}

static int unix_socket(const char *path, struct sockaddr_un *ret, int *ret_dir, GError **error)
{
    if (!make_address(path, ret, ret_dir, error))
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        ruche_error_errno(error, errno, "socket '%s'", path);
    return fd;
}

int vm_listen(const char *path, GError **error)
{
    struct sockaddr_un a;
    autofd dir = -1;
    autofd fd = unix_socket(path, &a, &dir, error);
    if (fd < 0)
        return -1;
    g_unlink(path); /* in a folder of our own: nobody else's */
    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 8) < 0) {
        ruche_error_errno(error, errno, "socket '%s'", path);
        return -1;
    }
    return fd_steal(&fd);
}

int vm_connect(const char *path, GError **error)
{
    struct sockaddr_un a;
    autofd dir = -1;
    autofd fd = unix_socket(path, &a, &dir, error);
    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        ruche_error_errno(error, errno, "socket '%s'", path);
        return -1;
    }
    return fd_steal(&fd);
}

/* ---- logs ---- */

int vm_log_open(const char *name, GError **error)
{
    g_autofree char *path = vm_log_path(name), *dir = g_path_get_dirname(path);
    struct stat st;
    g_mkdir_with_parents(dir, 0700);
    if (stat(path, &st) == 0 && st.st_size > LOG_MAX_BYTES / 2) {
        g_autofree char *old = g_strconcat(path, ".0", NULL);
        g_rename(path, old);
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        ruche_error_errno(error, errno, "log '%s'", path);
    return fd;
}

/* The process goes on writing at the end, which is now the beginning. */
void vm_log_bound(const char *name)
{
    g_autofree char *path = vm_log_path(name);
    struct stat st;
    if (stat(path, &st) == 0 && st.st_size > LOG_MAX_BYTES && truncate(path, 0) < 0)
        g_unlink(path);
}

/* Emulators tell there which terminal each console got: no reason why one ended. */
static void drop_greetings(char *text)
{
    char *to = text;
    for (char *line = text, *next; *line; line = next) {
        size_t len = strcspn(line, "\n");
        next = line + len + (line[len] == '\n');
        if (g_strstr_len(line, (gssize)len, "char device redirected to "))
            continue;
        memmove(to, line, (size_t)(next - line));
        to += next - line;
    }
    *to = '\0';
}

char *vm_log_tail(const char *name, off_t from)
{
    g_autofree char *path = vm_log_path(name);
    autofd fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    char buf[TAIL_BYTES + 1];
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size <= from)
        return NULL;
    off_t at = MAX(from, st.st_size - TAIL_BYTES);
    ssize_t n = pread(fd, buf, TAIL_BYTES, at);
    if (n <= 0)
        return NULL;
    buf[n] = '\0';
    drop_greetings(buf);
    for (char *p = buf; *p; p++)
        if ((unsigned char)*p < ' ')
            *p = ' ';
    g_strstrip(buf);
    size_t len = strlen(buf);
    g_autofree char *shown = g_utf8_make_valid(len > TAIL_SHOWN ? buf + len - TAIL_SHOWN : buf, -1);
    return *shown ? g_steal_pointer(&shown) : NULL;
}
