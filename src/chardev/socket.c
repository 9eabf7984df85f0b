/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Unix and TCP stream sockets, server or client, with telnet's minimum; and UDP.
 *
 * A server takes one client at a time; the next one waits in the kernel's queue until the first
 * leaves. A client with reconnect=SECONDS tries again for ever.
 *
 * Spec      RFC 854 (telnet), RFC 856 (binary), RFC 857 (echo), RFC 858 (suppress go ahead).
 * Trust     The peer's bytes, telnet commands among them.
 */
#include "chardev/chardev_priv.h"

#include "base/fd.h"
#include "base/log.h"
#include "base/sock.h"

#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

enum { TELNET_SE = 240, TELNET_BREAK = 243, TELNET_SB = 250, TELNET_WILL = 251, TELNET_DO = 253,
       TELNET_DONT = 254, TELNET_IAC = 255 };
enum telnet_state { T_DATA, T_IAC, T_OPTION, T_SUB, T_SUB_IAC };

struct sock {
    char *path, *host, *port;
    bool telnet, given; /* given: by fd= */
    uint64_t reconnect_s;
    int listen_fd, connecting_fd;
    struct loop_fd listen_watch, connect_watch;
    struct sock_path file;
    struct loop_timer retry;
    enum telnet_state state;
};

static volatile sig_atomic_t stop_waiting;

void chardev_stop_waiting(void)
{
    stop_waiting = 1;
}

/* ---- telnet ---- */

static size_t telnet_filter(struct chardev *c, uint8_t *data, size_t len)
{
    struct sock *s = c->priv;
    size_t kept = 0;
    if (!s->telnet)
        return len;
    for (size_t i = 0; i < len; i++) {
        uint8_t b = data[i];
        switch (s->state) {
        case T_DATA:
            if (b == TELNET_IAC)
                s->state = T_IAC;
            else
                data[kept++] = b;
            break;
        case T_IAC:
            if (b == TELNET_IAC)
                data[kept++] = b;
            else if (b == TELNET_BREAK && c->port[0].used && c->port[0].fe.send_break)
                c->port[0].fe.send_break(c->port[0].fe.opaque);
            s->state = b == TELNET_SB                         ? T_SUB
                       : b >= TELNET_WILL && b <= TELNET_DONT ? T_OPTION
                                                              : T_DATA;
            break;
        case T_OPTION:
            s->state = T_DATA;
            break;
        case T_SUB:
            if (b == TELNET_IAC)
                s->state = T_SUB_IAC;
            break;
        case T_SUB_IAC:
            s->state = b == TELNET_SE ? T_DATA : T_SUB;
            break;
        }
    }
    return kept;
}

/* We echo, in binary, without go-ahead: what makes a telnet client a plain terminal. */
static void telnet_hello(int fd)
{
    static const uint8_t hello[] = { 255, 251, 1, 255, 251, 3, 255, 251, 0, 255, 253, 0 };
    if (write(fd, hello, sizeof(hello)) < 0)
        return; /* the first read will tell */
}

/* ---- connections ---- */

static void established(struct chardev *c, int fd)
{
    struct sock *s = c->priv;
    s->state = T_DATA;
    if (s->telnet)
        telnet_hello(fd);
    pthread_mutex_lock(&c->lock);
    c->double_iac = s->telnet;
    pthread_mutex_unlock(&c->lock);
    chardev_connected(c, fd, fd);
}

static void client_arrived(void *opaque, uint32_t events)
{
    struct chardev *c = opaque;
    struct sock *s = c->priv;
    int fd = sock_accept(s->listen_fd);
    if (fd < 0)
        return;
    loop_fd_remove(&s->listen_watch);
    established(c, fd);
}

static void try_connect(void *opaque);

static void connect_ended(void *opaque, uint32_t events)
{
    struct chardev *c = opaque;
    struct sock *s = c->priv;
    int fd = fd_steal(&s->connecting_fd);
    loop_fd_remove(&s->connect_watch);
    if (sock_connect_result(fd) == 0) {
        established(c, fd);
        return;
    }
    close(fd);
    loop_timer_arm(&s->retry, loop_now_ns() + (int64_t)s->reconnect_s * NS_PER_SEC);
}

static int start_connect(const struct sock *s, bool nonblock, GError **error)
{
    return s->path ? sock_connect_unix(s->path, nonblock, error)
                   : sock_connect_tcp(s->host, s->port, nonblock, error);
}

static void try_connect(void *opaque)
{
    struct chardev *c = opaque;
    struct sock *s = c->priv;
    s->connecting_fd = start_connect(s, true, NULL);
    if (s->connecting_fd >= 0 &&
        loop_fd_add(c->loop, &s->connect_watch, s->connecting_fd, EPOLLOUT, connect_ended, c) == 0)
        return;
    fd_close_keep_errno(s->connecting_fd);
    s->connecting_fd = -1;
    loop_timer_arm(&s->retry, loop_now_ns() + (int64_t)s->reconnect_s * NS_PER_SEC);
}

static void socket_hangup(struct chardev *c)
{
    struct sock *s = c->priv;
    chardev_disconnected(c);
    if (s->listen_fd >= 0)
        loop_fd_add(c->loop, &s->listen_watch, s->listen_fd, EPOLLIN, client_arrived, c);
    else if (s->reconnect_s)
        loop_timer_arm(&s->retry, loop_now_ns() + (int64_t)s->reconnect_s * NS_PER_SEC);
}

/* ---- opening ---- */

static bool open_server(struct chardev *c, bool wait, GError **error)
{
    struct sock *s = c->priv;
    g_autofree char *where = NULL;
    if (s->listen_fd < 0)
        s->listen_fd = s->path ? sock_listen_unix(s->path, &s->file, error)
                               : sock_listen_tcp(s->host, s->port, &where, error);
    if (s->listen_fd < 0) {
        g_prefix_error(error, "chardev '%s': ", c->id);
        return false;
    }
    c->where = s->given ? g_strdup("fd,server=on")
               : s->path ? g_strdup_printf("unix:%s,server=on", s->path)
                       : g_strdup_printf("%s:%s,server=on", s->telnet ? "telnet" : "tcp", where);
    loop_fd_add(c->loop, &s->listen_watch, s->listen_fd, EPOLLIN, client_arrived, c);
    if (wait)
        log_info("waiting for a connection on %s", c->where);
    while (wait && !c->open && !stop_waiting)
        loop_once(c->loop, -1);
    if (wait && !c->open)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "chardev '%s': interrupted while waiting for a client", c->id);
    return true;
}

static bool open_client(struct chardev *c, GError **error)
{
    struct sock *s = c->priv;
    if (s->given) {
        c->where = g_strdup("fd");
        established(c, fd_steal(&s->connecting_fd));
        return true;
    }
    c->where = s->path
                   ? g_strdup_printf("unix:%s", s->path)
                   : g_strdup_printf("%s:%s:%s", s->telnet ? "telnet" : "tcp", s->host, s->port);
    if (s->reconnect_s) {
        try_connect(c);
        return true;
    }
    int fd = start_connect(s, false, error);
    if (fd < 0) {
        g_prefix_error(error, "chardev '%s': ", c->id);
        return false;
    }
    sock_set_nonblock(fd, true);
    established(c, fd);
    return true;
}

/* fd=: a socket that somebody opened, listening where we are the server, connected where not. */
static bool take_descriptor(struct chardev *c, const struct chardev_config *cfg, bool server, GError **error)
{
    struct sock *s = c->priv;
    uint64_t fd;
    int listens = 0;
    socklen_t len = sizeof(listens);
    if (!chardev_opt_u64(c, cfg, "fd", 0, INT32_MAX, &fd, error))
        return false;
    if (chardev_opt(cfg, "path") || chardev_opt(cfg, "port"))
        return ruche_error(error, RUCHE_ERR_INVALID, "chardev '%s': 'fd=' excludes 'path=' and 'port='", c->id);
    if (getsockopt((int)fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) < 0)
        return ruche_error_errno(error, errno, "chardev '%s': descriptor %u is no socket", c->id, (unsigned)fd);
    if (!!listens != server)
        return ruche_error(error, RUCHE_ERR_INVALID, "chardev '%s': descriptor %u %s", c->id, (unsigned)fd,
                           server ? "does not listen" : "listens: it needs server=on");
    fcntl((int)fd, F_SETFD, FD_CLOEXEC);
    sock_set_nonblock((int)fd, true);
    *(server ? &s->listen_fd : &s->connecting_fd) = (int)fd;
    s->given = true;
    return true;
}

static bool take_address(struct chardev *c, const struct chardev_config *cfg, bool server, GError **error)
{
    struct sock *s = c->priv;
    if (chardev_opt(cfg, "fd"))
        return take_descriptor(c, cfg, server, error);
    const char *path = chardev_opt(cfg, "path"), *port = chardev_opt(cfg, "port");
    bool abstract;
    if (!chardev_opt_bool(c, cfg, "abstract", false, &abstract, error))
        return false;
    if (!path == !port)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "chardev '%s': socket needs 'path=', 'port=' or 'fd='", c->id);
    const char *host = chardev_opt(cfg, "host");
    s->path = path ? g_strconcat(abstract ? "@" : "", path, NULL) : NULL;
    s->host = g_strdup(host && *host ? host : "localhost");
    s->port = g_strdup(port);
    return true;
}

static bool socket_open(struct chardev *c, const struct chardev_config *cfg, GError **error)
{
    struct sock *s = c->priv;
    bool server, wait;
    s->listen_fd = s->connecting_fd = -1;
    loop_timer_init(c->loop, &s->retry, try_connect, c);
    if (!chardev_opt_bool(c, cfg, "server", false, &server, error) ||
        !chardev_opt_bool(c, cfg, "wait", server, &wait, error) ||
        !chardev_opt_bool(c, cfg, "telnet", false, &s->telnet, error) ||
        !chardev_opt_u64(c, cfg, "reconnect", 0, 86400, &s->reconnect_s, error) ||
        !take_address(c, cfg, server, error))
        return false;
    if (!server && chardev_opt(cfg, "wait"))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "chardev '%s': 'wait' is for servers (server=on)", c->id);
    if (server && s->reconnect_s)
        return ruche_error(error, RUCHE_ERR_INVALID, "chardev '%s': 'reconnect' is for clients",
                           c->id);
    return server ? open_server(c, wait, error) : open_client(c, error);
}

static void socket_close(struct chardev *c)
{
    struct sock *s = c->priv;
    loop_fd_remove(&s->listen_watch);
    loop_fd_remove(&s->connect_watch);
    loop_timer_done(&s->retry);
    fd_close_keep_errno(s->listen_fd);
    fd_close_keep_errno(s->connecting_fd);
    sock_path_remove(&s->file);
    g_free(s->path);
    g_free(s->host);
    g_free(s->port);
    *s = (struct sock){ .listen_fd = -1, .connecting_fd = -1 };
}

static const struct chardev_option_help socket_options[] = {
    { "path", "a Unix socket's path" },
    { "abstract", "on: the path is a name in the abstract name space" },
    { "host", "a host's name or address; localhost" },
    { "port", "a TCP port's number or name" },
    { "fd", "a socket that was opened before, listening where server=on" },
    { "server", "on: listen, and take one client at a time" },
    { "wait", "server: on holds up the start until a client comes (the default)" },
    { "telnet", "on: the peer is a telnet client" },
    { "reconnect", "client: seconds between attempts; 0 is never again" },
    { "nodelay", "accepted; small writes are never held back" },
    { "delay", "accepted; small writes are never held back" },
    { "ipv4", "accepted; the name's addresses are tried in turn" },
    { "ipv6", "accepted; the name's addresses are tried in turn" },
    { 0 },
};
static const struct chardev_type socket_type = {
    .name = "socket",
    .summary = "A Unix or TCP socket, server or client",
    .options = socket_options,
    .priv_size = sizeof(struct sock),
    .open = socket_open,
    .close = socket_close,
    .hangup = socket_hangup,
    .filter = telnet_filter,
};
CHARDEV_TYPE(socket_type);

bool chardev_passes_fds(const struct chardev *c)
{
    c = chardev_now(c);
    const struct sock *s = c->priv;
    return c->type == &socket_type && !s->telnet && (s->path || s->given);
}

/* ---- udp ---- */

static struct addrinfo *udp_resolve(struct chardev *c, const char *host, const char *port,
                                    int flags, GError **error)
{
    struct addrinfo hints = { .ai_socktype = SOCK_DGRAM, .ai_flags = flags, .ai_family = AF_INET },
                    *a;
    int rc = getaddrinfo(host && *host ? host : NULL, port, &hints, &a);
    if (rc == 0)
        return a;
    ruche_error(error, RUCHE_ERR_INVALID, "chardev '%s': cannot resolve '%s' port '%s': %s", c->id,
                host ? host : "", port, gai_strerror(rc));
    return NULL;
}

static bool udp_open(struct chardev *c, const struct chardev_config *cfg, GError **error)
{
    const char *port = chardev_opt_need(c, cfg, "port", error), *host = chardev_opt(cfg, "host");
    const char *local_port = chardev_opt(cfg, "localport");
    if (!port)
        return false;
    struct addrinfo *to = udp_resolve(c, host, port, 0, error);
    if (!to)
        return false;
    struct addrinfo *from = udp_resolve(c, chardev_opt(cfg, "localaddr"),
                                        local_port ? local_port : "0", AI_PASSIVE, error);
    autofd fd = from ? socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;
    bool ok = fd >= 0 && bind(fd, from->ai_addr, from->ai_addrlen) == 0 &&
              connect(fd, to->ai_addr, to->ai_addrlen) == 0;
    if (!ok && from)
        ruche_error_errno(error, errno, "chardev '%s': UDP port %s", c->id,
                          local_port ? local_port : port);
    freeaddrinfo(to);
    if (from)
        freeaddrinfo(from);
    if (!ok)
        return false;
    c->where = g_strdup_printf("udp:%s:%s", host ? host : "localhost", port);
    int in = fd_steal(&fd);
    chardev_connected(c, in, in);
    return true;
}

static const struct chardev_option_help udp_options[] = {
    { "host", "where datagrams go; localhost" },
    { "port", "their port" },
    { "localaddr", "own address; any" },
    { "localport", "own port; any" },
    { 0 },
};
static const struct chardev_type udp_type = {
    .name = "udp", .summary = "UDP datagrams", .options = udp_options, .open = udp_open,
};
CHARDEV_TYPE(udp_type);
