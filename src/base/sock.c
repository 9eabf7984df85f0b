/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stream sockets by name; see sock.h. */
#include "base/sock.h"

#include "base/fd.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define LISTEN_BACKLOG SOMAXCONN /* who finds a short queue full by TCP asks again after 1, 3, 7, ... seconds */

int sock_set_nonblock(int fd, bool on)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    return fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) < 0 ? -errno : 0;
}

static bool unix_address(const char *path, struct sockaddr_un *ret, socklen_t *ret_len,
                         GError **error)
{
    size_t len = strlen(path);
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (len == 0)
        return ruche_error(error, RUCHE_ERR_INVALID, "a socket's path is empty");
    if (len >= sizeof(ret->sun_path))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "socket path '%s' is %zu bytes long; the system takes %zu at most", path,
                           len, sizeof(ret->sun_path) - 1);
    memcpy(ret->sun_path, path, len);
    *ret_len = sizeof(*ret);
    if (path[0] == '@') {
        ret->sun_path[0] = '\0';
        *ret_len = offsetof(struct sockaddr_un, sun_path) + len;
    }
    return true;
}

/* A socket file whose owner is gone refuses connections: only then it is ours to remove. */
static bool remove_stale(const char *path, const struct sockaddr_un *addr, socklen_t len,
                         GError **error)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT || ruche_error_errno(error, errno, "socket path '%s'", path);
    if (!S_ISSOCK(st.st_mode))
        return ruche_error(error, RUCHE_ERR_EXISTS, "'%s' exists and is not a socket", path);
    autofd probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0)
        return ruche_error_errno(error, errno, "socket path '%s'", path);
    if (connect(probe, (const struct sockaddr *)addr, len) == 0 || errno != ECONNREFUSED)
        return ruche_error(error, RUCHE_ERR_BUSY,
                           "socket path '%s' is in use: somebody listens there", path);
    if (unlink(path) < 0 && errno != ENOENT)
        return ruche_error_errno(error, errno, "cannot replace the dead socket '%s'", path);
    return true;
}

int sock_listen_unix(const char *path, struct sock_path *ret_path, GError **error)
{
    struct sockaddr_un addr;
    socklen_t len;
    if (!unix_address(path, &addr, &len, error))
        return -1;
    autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        ruche_error_errno(error, errno, "cannot make a socket for '%s'", path);
        return -1;
    }
    bool named = path[0] != '@';
    if (bind(fd, (struct sockaddr *)&addr, len) < 0) {
        if (errno != EADDRINUSE) {
            ruche_error_errno(error, errno, "cannot listen on '%s'", path);
            return -1;
        }
        if (!named) {
            ruche_error(error, RUCHE_ERR_BUSY, "socket name '%s' is in use", path);
            return -1;
        }
        if (!remove_stale(path, &addr, len, error))
            return -1;
        if (bind(fd, (struct sockaddr *)&addr, len) < 0) {
            ruche_error_errno(error, errno, "cannot listen on '%s'", path);
            return -1;
        }
    }
    struct stat st = { 0 };
    bool ours = named && lstat(path, &st) == 0;
    if (listen(fd, LISTEN_BACKLOG) < 0) {
        ruche_error_errno(error, errno, "cannot listen on '%s'", path);
        if (ours)
            unlink(path);
        return -1;
    }
    if (ret_path)
        *ret_path = (struct sock_path){ .path = ours ? g_canonicalize_filename(path, NULL) : NULL,
                                        .dev = st.st_dev, .ino = st.st_ino };
    return fd_steal(&fd);
}

void sock_path_remove(struct sock_path *p)
{
    struct stat st;
    if (p->path && lstat(p->path, &st) == 0 && st.st_dev == p->dev && st.st_ino == p->ino)
        unlink(p->path);
    g_clear_pointer(&p->path, g_free);
}

static struct addrinfo *resolve(const char *host, const char *port, bool passive, GError **error)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = passive ? AI_PASSIVE : 0 },
                    *list;
    const char *name = host && *host ? host : "localhost";
    int rc = getaddrinfo(name, port, &hints, &list);
    if (rc == 0)
        return list;
    ruche_error(error, RUCHE_ERR_INVALID, "cannot resolve '%s' port '%s': %s", name, port,
                gai_strerror(rc));
    return NULL;
}

static char *local_name(int fd)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0 ||
        getnameinfo((struct sockaddr *)&ss, len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV))
        return g_strdup("?");
    return g_strdup_printf(strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

/* Tries each address; `use` binds or connects: 0 or negative errno. */
static int try_addresses(const struct addrinfo *list, int extra_flags,
                         int (*use)(int fd, const struct addrinfo *a), int *ret_err)
{
    *ret_err = EADDRNOTAVAIL;
    for (const struct addrinfo *a = list; a; a = a->ai_next) {
        autofd fd =
            socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | extra_flags, a->ai_protocol);
        if (fd < 0) {
            *ret_err = errno;
            continue;
        }
        int rc = use(fd, a);
        if (rc == 0)
            return fd_steal(&fd);
        *ret_err = -rc;
    }
    return -1;
}

static int use_listen(int fd, const struct addrinfo *a)
{
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, LISTEN_BACKLOG) < 0)
        return -errno;
    return 0;
}

static int use_connect(int fd, const struct addrinfo *a)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(fd, a->ai_addr, a->ai_addrlen) < 0 && errno != EINPROGRESS)
        return -errno;
    return 0;
}

int sock_listen_tcp(const char *host, const char *port, char **ret_where, GError **error)
{
    struct addrinfo *list = resolve(host, port, true, error);
    if (!list)
        return -1;
    int err, fd = try_addresses(list, SOCK_NONBLOCK, use_listen, &err);
    freeaddrinfo(list);
    if (fd < 0)
        ruche_error_errno(error, err, "cannot listen on TCP port %s of '%s'", port,
                          host && *host ? host : "localhost");
    else if (ret_where)
        *ret_where = local_name(fd);
    return fd;
}

int sock_connect_tcp(const char *host, const char *port, bool nonblock, GError **error)
{
    struct addrinfo *list = resolve(host, port, false, error);
    if (!list)
        return -1;
    int err, fd = try_addresses(list, nonblock ? SOCK_NONBLOCK : 0, use_connect, &err);
    freeaddrinfo(list);
    if (fd < 0)
        ruche_error_errno(error, err, "cannot connect to TCP port %s of '%s'", port,
                          host && *host ? host : "localhost");
    return fd;
}

int sock_connect_unix(const char *path, bool nonblock, GError **error)
{
    struct sockaddr_un addr;
    socklen_t len;
    if (!unix_address(path, &addr, &len, error))
        return -1;
    autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (nonblock ? SOCK_NONBLOCK : 0), 0);
    if (fd < 0 || (connect(fd, (struct sockaddr *)&addr, len) < 0 && errno != EINPROGRESS)) {
        ruche_error_errno(error, errno, "cannot connect to '%s'", path);
        return -1;
    }
    return fd_steal(&fd);
}

int sock_connect_result(int fd)
{
    int err = 0;
    socklen_t len = sizeof(err);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
        return -errno;
    return -err;
}

int sock_accept(int listen_fd)
{
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

#define RECEIVED_FDS 16

ssize_t sock_receive(int fd, void *buf, size_t len, void (*got)(void *opaque, int fd), void *opaque)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(RECEIVED_FDS * sizeof(int))];
    } control;
    struct iovec iov = { buf, len };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
    };
    ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
    for (struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t at = 0; at + sizeof(int) <= c->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
            int one;
            memcpy(&one, CMSG_DATA(c) + at, sizeof(one));
            got(opaque, one);
        }
    }
    return n;
}
