/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Channels of migrations; see migrate_channel.h. */
#include "vmm/migrate_channel.h"

#include "base/fd.h"
#include "base/fdset.h"
#include "base/units.h"
#include "vmm/hotplug.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define COMMAND_POLL_NS 10000000 /* between looks whether a command has ended */
#define HANG_UP_TRIES 50
#define HANG_UP_TRY_MS 100

static const char *const schemes[] = {
    [MIGRATE_TO_FD] = "fd:",     [MIGRATE_TO_FILE] = "file:", [MIGRATE_TO_EXEC] = "exec:",
    [MIGRATE_TO_UNIX] = "unix:", [MIGRATE_TO_TCP] = "tcp:",
};

/* ---- names ---- */

static bool parse_file(struct migrate_channel *c, GError **error)
{
    char *comma = strstr(c->where, ",offset=");
    if (!comma)
        return true;
    if (!units_parse_size(comma + 8, 1, &c->offset) || c->offset > INT64_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is no offset of a file", comma + 8);
    *comma = '\0';
    return true;
}

static bool parse_tcp(struct migrate_channel *c, const char *uri, GError **error)
{
    char *colon = strrchr(c->where, ':');
    if (!colon || !colon[1])
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is not tcp:HOST:PORT", uri);
    *colon = '\0';
    c->port = g_strdup(colon + 1);
    size_t len = strlen(c->where);
    if (len > 1 && c->where[0] == '[' && c->where[len - 1] == ']') { /* an IPv6 address */
        c->where[len - 1] = '\0';
        memmove(c->where, c->where + 1, len - 1);
    }
    return true;
}

static bool parse(struct migrate_channel *c, const char *uri, GError **error)
{
    for (size_t i = 0; i < ARRAY_COUNT(schemes); i++) {
        if (!g_str_has_prefix(uri, schemes[i]))
            continue;
        c->scheme = (enum migrate_scheme)i;
        c->where = g_strdup(uri + strlen(schemes[i]));
        if (!*c->where)
            return ruche_error(error, RUCHE_ERR_INVALID, "'%s' names nothing", uri);
        return i == MIGRATE_TO_FILE ? parse_file(c, error) : i != MIGRATE_TO_TCP || parse_tcp(c, uri, error);
    }
    return ruche_error(error, RUCHE_ERR_INVALID,
                       "Parameter 'uri' expects a valid migration protocol: fd:, file:, exec:, unix: or tcp:, not '%s'",
                       uri);
}

/* ---- opening ---- */

static bool open_file(struct migrate_channel *c, GError **error)
{
    struct stat st;
    c->fd = fdset_open(c->where, (c->out ? O_WRONLY | O_CREAT : O_RDONLY) | O_CLOEXEC, 0600);
    if (c->fd < 0 || fstat(c->fd, &st))
        return ruche_error_errno(error, errno, "'%s'", c->where);
    bool cut = c->out && S_ISREG(st.st_mode);
    if ((cut && ftruncate(c->fd, (off_t)c->offset)) ||
        ((c->offset || cut) && lseek(c->fd, (off_t)c->offset, SEEK_SET) < 0))
        return ruche_error_errno(error, errno, "'%s'", c->where);
    return true;
}

static void reset_signals(gpointer opaque)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setpgid(0, 0); /* so that all of it can be ended */
}

static bool open_exec(struct migrate_channel *c, GError **error)
{
    const char *const argv[] = { "/bin/sh", "-c", c->where, NULL };
    int fds[2];
    if (pipe2(fds, O_CLOEXEC))
        return ruche_error_errno(error, errno, "a pipe to '%s'", c->where);
    g_autoptr(GError) why = NULL;
    GPid pid;
    bool ok = g_spawn_async_with_fds(NULL, (char **)(uintptr_t)argv, NULL, G_SPAWN_DO_NOT_REAP_CHILD, reset_signals, NULL,
                                     &pid, c->out ? fds[0] : -1, c->out ? -1 : fds[1], -1, &why);
    close(fds[c->out ? 0 : 1]);
    c->fd = fds[c->out ? 1 : 0];
    if (!ok)
        return ruche_error(error, RUCHE_ERR_IO, "'%s': %s", c->where, why->message);
    c->pid = pid;
    return true;
}

/* A number that this program was given at start (what it opens itself is close-on-exec), or a name that getfd knows. */
static int take_fd(struct vmm *v, const char *name, GError **error)
{
    uint64_t fd;
    if (!g_ascii_isdigit(name[0]))
        return hotplug_take_fd(v, name, error);
    int flags = units_parse_u64(name, &fd) && fd > 2 && fd <= INT32_MAX ? fcntl((int)fd, F_GETFD) : -1;
    if (flags >= 0 && !(flags & FD_CLOEXEC) && !fcntl((int)fd, F_SETFD, FD_CLOEXEC))
        return (int)fd;
    ruche_error(error, RUCHE_ERR_INVALID, "descriptor %s is none that this program was given", name);
    return -1;
}

static bool listen_at(struct migrate_channel *c, GError **error)
{
    c->listen_fd = c->scheme == MIGRATE_TO_UNIX ? sock_listen_unix(c->where, &c->path, error)
                                                : sock_listen_tcp(c->where, c->port, NULL, error);
    return c->listen_fd >= 0;
}

static bool prepare(struct migrate_channel *c)
{
    struct stat st;
    c->socket = fstat(c->fd, &st) == 0 && S_ISSOCK(st.st_mode);
    return sock_set_nonblock(c->fd, true) >= 0;
}

bool migrate_channel_open(struct migrate_channel *c, struct vmm *v, const char *uri, bool out, GError **error)
{
    *c = (struct migrate_channel){ .fd = -1, .listen_fd = -1, .out = out };
    c->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->cancel_fd < 0)
        return ruche_error_errno(error, errno, "a migration needs an event descriptor");
    if (!parse(c, uri, error))
        return false;
    if (c->scheme == MIGRATE_TO_UNIX || c->scheme == MIGRATE_TO_TCP)
        return out || listen_at(c, error);
    if (c->scheme == MIGRATE_TO_FD)
        c->fd = take_fd(v, c->where, error);
    else if (!(c->scheme == MIGRATE_TO_FILE ? open_file(c, error) : open_exec(c, error)))
        return false;
    return c->fd >= 0 && (prepare(c) || ruche_error_errno(error, errno, "'%s'", uri));
}

/* ---- moving ---- */

/* False: cancelled, which is no error of anybody's. */
static bool wait_for(struct migrate_channel *c, short events, int timeout_ms)
{
    struct pollfd p[2] = { { c->fd, events, 0 }, { c->cancel_fd, POLLIN, 0 } };
    poll(p, 2, timeout_ms);
    return !(p[1].revents & POLLIN);
}

static bool cancelled(GError **error)
{
    return ruche_error(error, RUCHE_ERR_STATE, "cancelled");
}

bool migrate_channel_connect(struct migrate_channel *c, GError **error)
{
    if (c->fd >= 0)
        return true;
    c->fd = c->scheme == MIGRATE_TO_UNIX ? sock_connect_unix(c->where, true, error)
                                         : sock_connect_tcp(c->where, c->port, true, error);
    if (c->fd < 0)
        return false;
    if (!wait_for(c, POLLOUT, -1))
        return cancelled(error);
    int err = sock_connect_result(c->fd);
    if (err < 0)
        return ruche_error_errno(error, -err, "'%s%s%s' cannot be connected to", c->where, c->port ? ":" : "",
                                 c->port ? c->port : "");
    return prepare(c) || ruche_error_errno(error, errno, "'%s'", c->where);
}

bool migrate_channel_write(void *opaque, void *buf, size_t len, GError **error)
{
    struct migrate_channel *c = opaque;
    for (uint8_t *p = buf; len;) {
        if (!wait_for(c, 0, 0))
            return cancelled(error);
        ssize_t n = c->socket ? send(c->fd, p, len, MSG_NOSIGNAL) : write(c->fd, p, len);
        if (n < 0 && errno == EAGAIN && !wait_for(c, POLLOUT, -1))
            return cancelled(error);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return ruche_error_errno(error, errno, "the machine cannot be written to %s%s", schemes[c->scheme], c->where);
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
    return true;
}

bool migrate_channel_read(void *opaque, void *buf, size_t len, GError **error)
{
    struct migrate_channel *c = opaque;
    for (uint8_t *p = buf; len;) {
        if (!wait_for(c, 0, 0))
            return cancelled(error);
        ssize_t n = read(c->fd, p, len);
        if (!n)
            return ruche_error(error, RUCHE_ERR_IO, "%s%s ends too early", schemes[c->scheme], c->where);
        if (n < 0 && errno == EAGAIN && !wait_for(c, POLLIN, -1))
            return cancelled(error);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return ruche_error_errno(error, errno, "%s%s cannot be read", schemes[c->scheme], c->where);
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
    return true;
}

bool migrate_channel_sleep(struct migrate_channel *c, int64_t ns)
{
    struct pollfd p = { c->cancel_fd, POLLIN, 0 };
    struct timespec t = { ns / 1000000000, ns % 1000000000 };
    return ppoll(&p, 1, &t, NULL) <= 0;
}

bool migrate_channel_finish(struct migrate_channel *c, GError **error)
{
    int status = 0, pid = 0;
    if (!c->pid)
        return true;
    fd_close_keep_errno(c->fd); /* the end of its input */
    c->fd = -1;
    while (!(pid = waitpid(c->pid, &status, WNOHANG)))
        if (!migrate_channel_sleep(c, COMMAND_POLL_NS))
            return cancelled(error);
    c->pid = 0;
    if (pid > 0 && WIFEXITED(status) && !WEXITSTATUS(status))
        return true;
    return ruche_error(error, RUCHE_ERR_IO, "'%s' ended with %s %d", c->where,
                       WIFEXITED(status) ? "exit status" : "signal",
                       WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

void migrate_channel_hang_up(struct migrate_channel *c)
{
    char rest[256];
    struct pollfd p = { c->fd, POLLIN, 0 };
    if (c->fd < 0 || shutdown(c->fd, SHUT_WR) < 0)
        return;
    for (int tries = 0; tries < HANG_UP_TRIES && poll(&p, 1, HANG_UP_TRY_MS) >= 0; tries++) {
        ssize_t n = p.revents ? read(c->fd, rest, sizeof(rest)) : 1;
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return;
    }
}

void migrate_channel_cancel(struct migrate_channel *c)
{
    eventfd_signal(c->cancel_fd);
}

void migrate_channel_done(struct migrate_channel *c)
{
    if (c->fd >= 0)
        close(c->fd);
    if (c->listen_fd >= 0)
        close(c->listen_fd);
    sock_path_remove(&c->path);
    if (c->cancel_fd >= 0)
        close(c->cancel_fd);
    if (c->pid) {
        kill(-c->pid, SIGKILL);
        waitpid(c->pid, NULL, 0);
    }
    g_free(c->where);
    g_free(c->port);
    *c = (struct migrate_channel){ .fd = -1, .listen_fd = -1, .cancel_fd = -1 };
}
