/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The connection that carries a machine's state: tcp:HOST:PORT, tcp://HOST[:PORT], unix:///PATH.
 *
 * Thread    The loop thread; names are looked up, and connections made, on workers.
 * Trust     URIs are the other side's, or a client's: parsed with bounds, never given to a shell.
 */

#include "base/fd.h"
#include "manager/domain/vm_internal.h"
#include "manager/node/node.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT_FIRST      49152
#define PORT_LAST       49215
#define CONNECT_MS      30000
#define WORD_MAX        256
#define KEEPALIVE_S     5
#define USER_TIMEOUT_MS 60000

struct place {
    char *host, *port; /* port NULL: any that is free; host NULL: not said */
    char *path;        /* of a Unix socket */
};

static void place_done(struct place *p)
{
    g_free(p->host);
    g_free(p->port);
    g_free(p->path);
}

static bool bad_uri(const char *uri, GError **error)
{
    return ruche_error(error, RUCHE_ERR_INVALID,
                       "'%s' is no place to migrate to; tcp://HOST:PORT or unix:///PATH are", uri);
}

static bool is_port(const char *text)
{
    uint64_t n;
    return g_ascii_string_to_unsigned(text, 10, 1, 65535, &n, NULL);
}

/* "HOST", "HOST:PORT", "[ADDRESS]:PORT", perhaps with a '/' at the end. */
static bool parse_host(const char *uri, const char *text, struct place *ret, GError **error)
{
    const char *end = *text == '[' ? strchr(text, ']') : text + strcspn(text, ":/");
    if (!end || end - text > WORD_MAX || strlen(end) > WORD_MAX)
        return bad_uri(uri, error);
    bool brackets = *text == '[';
    g_autofree char *host = g_strndup(text + brackets, (size_t)(end - text) - brackets);
    end += brackets;
    g_autofree char *port = *end == ':' ? g_strndup(end + 1, strcspn(end + 1, "/")) : NULL;
    const char *rest = port ? end + 1 + strlen(port) : end;
    if (port && !*port)
        g_clear_pointer(&port, g_free);
    if (!*host || strcmp(*rest ? rest : "/", "/") || (port && !is_port(port)))
        return bad_uri(uri, error);
    ret->host = g_steal_pointer(&host);
    ret->port = g_steal_pointer(&port);
    return true;
}

static bool parse(const char *uri, struct place *ret, GError **error)
{
    *ret = (struct place){0};
    if (g_str_has_prefix(uri, "tcp://"))
        return parse_host(uri, uri + strlen("tcp://"), ret, error);
    if (g_str_has_prefix(uri, "tcp:"))
        return parse_host(uri, uri + strlen("tcp:"), ret, error);
    const char *path = g_str_has_prefix(uri, "unix://") ? uri + strlen("unix://")
                       : g_str_has_prefix(uri, "unix:") ? uri + strlen("unix:")
                                                        : NULL;
    if (!path || *path != '/')
        return bad_uri(uri, error);
    ret->path = g_strdup(path);
    return true;
}

/* ---- workers ---- */

struct work {
    const struct place *place;
    const char *address; /* to listen at */
    int fd;
    unsigned port; /* that was found */
    GError *error;
};

static struct addrinfo *look_up(const char *host, const char *port, int flags, GError **error)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    int r = getaddrinfo(host, port, &hints, &list);
    if (r)
        ruche_error(error, RUCHE_ERR_IO, "'%s': %s", host ? host : "any address", gai_strerror(r));
    return r ? NULL : list;
}

/* A connection that says when the other host is gone. */
static void keep_alive(int fd)
{
    const int on = 1, every = KEEPALIVE_S, gone = USER_TIMEOUT_MS;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &every, sizeof(every));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof(every));
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &gone, sizeof(gone));
}

static int connect_one(const struct addrinfo *a)
{
    int err = 0;
    socklen_t len = sizeof(err);
    autofd fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, a->ai_addr, a->ai_addrlen) < 0 && errno != EINPROGRESS)
        return -errno;
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    if (poll(&p, 1, CONNECT_MS) <= 0)
        return -ETIMEDOUT;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0 || err)
        return err ? -err : -errno;
    int flags = fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
    keep_alive(fd);
    return fd_steal(&fd);
}

static void connect_work(void *opaque)
{
    struct work *w = opaque;
    int last = -EADDRNOTAVAIL;
    struct addrinfo *list = look_up(w->place->host, w->place->port, 0, &w->error);
    for (const struct addrinfo *a = list; a && w->fd < 0; a = a->ai_next) {
        last = connect_one(a);
        w->fd = last;
    }
    if (list)
        freeaddrinfo(list);
    if (w->fd < 0 && !w->error)
        ruche_error_errno(&w->error, -last, "'%s', port %s, where the machine's state is to go",
                          w->place->host, w->place->port);
}

static int listen_one(const struct addrinfo *a)
{
    const int on = 1;
    autofd fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, 1) < 0)
        return -errno;
    return fd_steal(&fd);
}

static int listen_at_port(const char *address, unsigned port, GError **error)
{
    char text[16];
    int r = -EADDRNOTAVAIL;
    g_snprintf(text, sizeof(text), "%u", port);
    struct addrinfo *list = look_up(address, text, AI_PASSIVE, error);
    if (!list)
        return -EINVAL;
    /* "any address" is best asked of IPv6, which takes IPv4 in too */
    for (const struct addrinfo *a = list; a && r < 0; a = a->ai_next)
        if (address || a->ai_family == AF_INET6)
            r = listen_one(a);
    for (const struct addrinfo *a = list; a && r < 0 && r != -EADDRINUSE; a = a->ai_next)
        r = listen_one(a);
    freeaddrinfo(list);
    return r;
}

static void listen_work(void *opaque)
{
    struct work *w = opaque;
    unsigned first = w->place->port ? (unsigned)atoi(w->place->port) : PORT_FIRST,
             last = w->place->port ? first : PORT_LAST;
    int r = -EADDRINUSE;
    for (w->port = first; w->port <= last && !w->error; w->port++) {
        r = listen_at_port(w->address, w->port, &w->error);
        if (r >= 0 || r != -EADDRINUSE)
            break;
    }
    w->fd = r;
    if (r < 0 && !w->error)
        ruche_error_errno(&w->error, -r, "ports %u to %u, where a machine's state is to come",
                          first, last);
}

static int run(void (*fn)(void *), struct work *w, GError **error)
{
    w->fd = -1;
    task_work_long(fn, w);
    if (w->error)
        g_propagate_error(error, w->error);
    return w->fd < 0 ? -1 : w->fd;
}

/* ---- both sides ---- */

int vm_migrate_connect(const char *uri, GError **error)
{
    struct place p;
    int fd = -1;
    if (parse(uri, &p, error)) {
        struct work w = {.place = &p};
        if (p.path)
            fd = vm_connect(p.path, error);
        else if (!p.port)
            bad_uri(uri, error);
        else
            fd = run(connect_work, &w, error);
    }
    place_done(&p);
    return fd;
}

static int listen_tcp(struct place *p, const char *address, char **ret_uri, GError **error)
{
    struct work w = {.place = p, .address = address};
    int fd = run(listen_work, &w, error);
    if (fd < 0)
        return -1;
    if (!p->host)
        p->host = manager.migration_host ? g_strdup(manager.migration_host) : node_hostname();
    const char *brackets = strchr(p->host, ':') ? "[]" : "";
    *ret_uri = g_strdup_printf("tcp:%.1s%s%s:%u", brackets, p->host, *brackets ? "]" : "", w.port);
    return fd;
}

static int listen_unix(const struct place *p, const char *uri, char **ret_uri, char **ret_path,
                       GError **error)
{
    if (g_file_test(p->path, G_FILE_TEST_EXISTS)) {
        ruche_error(error, RUCHE_ERR_EXISTS, "'%s' is there already", p->path);
        return -1;
    }
    int fd = vm_listen(p->path, error);
    if (fd >= 0) {
        *ret_path = g_strdup(p->path);
        *ret_uri = g_strdup(uri);
    }
    return fd;
}

int vm_migrate_listen(const char *uri, const char *address, char **ret_uri, char **ret_path,
                      GError **error)
{
    struct place p = {0};
    int fd = -1;
    if (!uri || parse(uri, &p, error))
        fd = p.path ? listen_unix(&p, uri, ret_uri, ret_path, error)
                    : listen_tcp(&p, address ? address : manager.migration_address, ret_uri, error);
    place_done(&p);
    return fd;
}
