/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `socket`: a cable to another machine: Ethernet frames over TCP (each behind its length), in UDP datagrams, or to all of
 * a multicast group.
 *
 * A server has one client at a time; a client whose server goes tries again each second. Frames that find nobody are
 * dropped. A member of a group does not hear itself, so groups send from a socket of their own.
 *
 * Spec      QEMU's -netdev socket: fd=, listen=, connect=, mcast=, udp=, localaddr=; 4 bytes of length, big-endian.
 * Thread    The netdev's loop.
 * Trust     Lengths and frames are the other side's: a length that no frame has ends the connection.
 * Errors    Sentences at creation; -errno and counters afterwards.
 */
#include "base/fd.h"
#include "base/sock.h"
#include "netdev/internal.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define LENGTH   4
#define BATCH    64 /* frames taken before others get their turn */
#define MAX_IOVS 1024
#define AGAIN_NS NS_PER_SEC

struct cable {
    struct netdev n;
    char *where;       /* for people */
    char *host, *port; /* connect= */
    bool datagrams, group;
    int fd, send_fd, listen_fd; /* send_fd: of datagrams; -1: none */
    struct sockaddr_in own;     /* what we send to a group from */
    struct loop_fd watch, listen_watch;
    struct loop_timer again;
    bool connecting, timer_made;
    uint8_t *in, *out; /* a length and a frame each */
    size_t in_len, out_len, out_done;
    size_t held; /* bytes of a frame that the device had no room for */
};

static struct cable *of(const struct netdev *n)
{
    return container_of(n, struct cable, n);
}

/* --- connections --- */

static void ready(void *opaque, uint32_t events);

static void watch(struct cable *c)
{
    bool write = c->connecting || c->out_len > c->out_done;
    loop_fd_modify(&c->watch, (c->held || c->connecting ? 0 : EPOLLIN) | (write ? EPOLLOUT : 0));
}

static void set_fd(struct cable *c, int fd)
{
    c->fd = fd;
    c->in_len = c->out_len = c->out_done = c->held = 0;
    if (c->n.loop)
        loop_fd_add(c->n.loop, &c->watch, fd, EPOLLIN, ready, c);
    watch(c);
}

static void hang_up(struct cable *c)
{
    loop_fd_remove(&c->watch);
    fd_close_keep_errno(c->fd);
    c->fd = -1;
    c->connecting = false;
    c->in_len = c->out_len = c->out_done = c->held = 0;
    if (c->n.peer.send_ready)
        c->n.peer.send_ready(c->n.peer.opaque, 0); /* what waited is dropped */
    if (c->n.loop && c->listen_fd >= 0)
        loop_fd_modify(&c->listen_watch, EPOLLIN);
    else if (c->n.loop && c->host)
        loop_timer_arm(&c->again, loop_now_ns() + AGAIN_NS);
}

static void client_arrived(void *opaque, uint32_t events)
{
    struct cable *c = opaque;
    int fd = sock_accept(c->listen_fd);
    if (fd < 0)
        return;
    loop_fd_modify(&c->listen_watch, 0);
    set_fd(c, fd);
}

static void connect_again(void *opaque)
{
    struct cable *c = opaque;
    int fd = sock_connect_tcp(c->host, c->port, true, NULL);
    if (fd < 0) {
        loop_timer_arm(&c->again, loop_now_ns() + AGAIN_NS);
        return;
    }
    c->connecting = true;
    set_fd(c, fd);
}

/* --- frames to the device --- */

/* False: the device has no room, the frame stays. */
static bool hand_over(struct cable *c, const uint8_t *frame, size_t len)
{
    struct iovec iov = {(void *)(uintptr_t)frame, len};
    c->held = netdev_deliver(&c->n, 0, &iov, 1) == 0 ? len : 0;
    return !c->held;
}

static void take_datagrams(struct cable *c)
{
    for (unsigned i = 0; i < BATCH && !c->held; i++) {
        struct sockaddr_in from = {0};
        socklen_t size = sizeof(from);
        ssize_t n =
            recvfrom(c->fd, c->in, NETDEV_MAX_FRAME, MSG_DONTWAIT, (struct sockaddr *)&from, &size);
        if (n < 0 && errno != ECONNREFUSED && errno != EINTR)
            break;
        bool mine = c->group && from.sin_port == c->own.sin_port &&
                    from.sin_addr.s_addr == c->own.sin_addr.s_addr;
        if (n > 0 && !mine)
            hand_over(c, c->in, (size_t)n);
    }
    watch(c);
}

/* Whole frames at the front of in[]. False: the length is none. */
static bool take_frames(struct cable *c)
{
    while (!c->held && c->in_len >= LENGTH) {
        uint32_t len;
        memcpy(&len, c->in, LENGTH);
        len = ntohl(len);
        if (!len || len > NETDEV_MAX_FRAME)
            return false;
        if (c->in_len < LENGTH + len)
            return true;
        if (!hand_over(c, c->in + LENGTH, len))
            return true;
        c->in_len -= LENGTH + len;
        memmove(c->in, c->in + LENGTH + len, c->in_len);
    }
    return true;
}

static void take_stream(struct cable *c)
{
    ssize_t n = recv(c->fd, c->in + c->in_len, LENGTH + NETDEV_MAX_FRAME - c->in_len, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    c->in_len += n > 0 ? (size_t)n : 0;
    if (n <= 0 || !take_frames(c))
        hang_up(c);
    else
        watch(c);
}

static void cable_receive_ready(struct netdev *n, unsigned queue)
{
    struct cable *c = of(n);
    size_t len = c->held;
    if (!len || !hand_over(c, c->in + (c->datagrams ? 0 : LENGTH), len))
        return;
    if (!c->datagrams) {
        c->in_len -= LENGTH + len;
        memmove(c->in, c->in + LENGTH + len, c->in_len);
        if (!take_frames(c)) {
            hang_up(c);
            return;
        }
    }
    watch(c);
}

/* --- frames from the device --- */

static void flush(struct cable *c)
{
    while (c->out_done < c->out_len) {
        ssize_t n = send(c->fd, c->out + c->out_done, c->out_len - c->out_done,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            hang_up(c);
            return;
        }
        if (n < 0)
            break;
        c->out_done += (size_t)n;
    }
    watch(c);
    if (c->out_done == c->out_len && c->n.peer.send_ready)
        c->n.peer.send_ready(c->n.peer.opaque, 0);
}

static void ready(void *opaque, uint32_t events)
{
    struct cable *c = opaque;
    if (c->connecting) {
        c->connecting = false;
        if (sock_connect_result(c->fd) < 0)
            hang_up(c);
        else
            watch(c);
        return;
    }
    if (events & EPOLLOUT && c->out_done < c->out_len)
        flush(c);
    if (c->fd < 0 || c->held || !(events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
        return;
    if (c->datagrams)
        take_datagrams(c);
    else
        take_stream(c);
}

static ssize_t send_stream(struct cable *c, const struct iovec *iov, unsigned iov_count, size_t len)
{
    if (c->fd < 0 || c->connecting)
        return -ENOTCONN;
    if (c->out_done < c->out_len)
        return 0; /* the frame before is under way */
    uint32_t length = htonl((uint32_t)len);
    memcpy(c->out, &length, LENGTH);
    c->out_len = LENGTH + iov_copy_out(iov, iov_count, 0, c->out + LENGTH, len);
    c->out_done = 0;
    ssize_t n = send(c->fd, c->out, c->out_len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        int err = -errno;
        c->out_len = 0;
        return err; /* reading tells of the end, too */
    }
    c->out_done = n > 0 ? (size_t)n : 0;
    watch(c);
    return (ssize_t)len;
}

static ssize_t cable_send(struct netdev *n, unsigned queue, const struct iovec *iov,
                          unsigned iov_count)
{
    struct cable *c = of(n);
    size_t len = iov_bytes(iov, iov_count);
    if (!c->datagrams)
        return send_stream(c, iov, iov_count, len);
    const struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = iov_count};
    ssize_t r = iov_count <= MAX_IOVS ? sendmsg(c->send_fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) : -1;
    return r < 0 ? -errno : r; /* a cable that is full loses frames */
}

/* --- the backend --- */

static int cable_set_loop(struct netdev *n, struct loop *l)
{
    struct cable *c = of(n);
    loop_fd_remove(&c->watch);
    loop_fd_remove(&c->listen_watch);
    if (c->timer_made)
        loop_timer_done(&c->again);
    n->loop = l;
    c->timer_made = l != NULL;
    if (!l)
        return 0;
    loop_timer_init(l, &c->again, connect_again, c);
    int err = c->fd >= 0 ? loop_fd_add(l, &c->watch, c->fd, EPOLLIN, ready, c) : 0;
    if (!err && c->listen_fd >= 0)
        err = loop_fd_add(l, &c->listen_watch, c->listen_fd, c->fd < 0 ? EPOLLIN : 0,
                          client_arrived, c);
    if (c->fd < 0 && c->host)
        loop_timer_arm(&c->again, loop_now_ns());
    watch(c);
    return err;
}

static void cable_destroy(struct netdev *n)
{
    struct cable *c = of(n);
    fd_close_keep_errno(c->fd);
    if (c->send_fd != c->fd)
        fd_close_keep_errno(c->send_fd);
    fd_close_keep_errno(c->listen_fd);
    g_free(c->where);
    g_free(c->host);
    g_free(c->port);
    g_free(c->in);
    g_free(c->out);
    g_free(c);
}

static char *cable_describe(const struct netdev *n)
{
    return g_strdup_printf("type=socket,%s,%s", of(n)->where,
                           of(n)->fd >= 0 ? "connected" : "not connected");
}

static const struct netdev_ops cable_ops = {
    .send = cable_send,
    .receive_ready = cable_receive_ready,
    .offloads = netdev_no_offloads,
    .set_offloads = netdev_keep_offloads,
    .set_loop = cable_set_loop,
    .destroy = cable_destroy,
    .describe = cable_describe,
};

/* --- creation --- */

/* "HOST:PORT", "PORT" or ":PORT". */
static void split(const char *text, char **ret_host, char **ret_port)
{
    const char *colon = strrchr(text, ':');
    *ret_host = colon && colon > text ? g_strndup(text, (gsize)(colon - text)) : NULL;
    *ret_port = g_strdup(colon ? colon + 1 : text);
}

static bool resolve(struct cable *c, const char *name, const char *text, struct sockaddr_in *ret,
                    GError **error)
{
    g_autofree char *host = NULL, *port = NULL;
    const struct addrinfo hints = {
        .ai_family = AF_INET, .ai_socktype = SOCK_DGRAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *a = NULL;
    split(text, &host, &port);
    int rc = getaddrinfo(host, port, &hints, &a);
    if (rc)
        return ruche_error(error, RUCHE_ERR_INVALID, "netdev '%s': %s=%s: %s", c->n.id, name, text,
                           gai_strerror(rc));
    memcpy(ret, a->ai_addr, sizeof(*ret));
    freeaddrinfo(a);
    return true;
}

static bool open_udp(struct cable *c, const char *text, const struct netdev_config *cfg,
                     GError **error)
{
    const char *local = netdev_option(cfg, "localaddr");
    struct sockaddr_in to, from;
    if (!local)
        return ruche_error(error, RUCHE_ERR_INVALID, "netdev '%s': udp= needs localaddr=HOST:PORT",
                           c->n.id);
    if (!resolve(c, "udp", text, &to, error) || !resolve(c, "localaddr", local, &from, error))
        return false;
    c->datagrams = true;
    c->fd = c->send_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return (c->fd >= 0 && bind(c->fd, (struct sockaddr *)&from, sizeof(from)) == 0 &&
            connect(c->fd, (struct sockaddr *)&to, sizeof(to)) == 0) ||
           ruche_error_errno(error, errno, "netdev '%s': udp=%s, localaddr=%s", c->n.id, text,
                             local);
}

static bool join(struct cable *c, const struct sockaddr_in *group, struct in_addr interface)
{
    const struct ip_mreq member = {.imr_multiaddr = group->sin_addr, .imr_interface = interface};
    socklen_t size = sizeof(c->own);
    int on = 1;
    return setsockopt(c->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
           bind(c->fd, (const struct sockaddr *)group, sizeof(*group)) == 0 &&
           setsockopt(c->fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &member, sizeof(member)) == 0 &&
           setsockopt(c->send_fd, IPPROTO_IP, IP_MULTICAST_IF, &interface, sizeof(interface)) ==
               0 &&
           setsockopt(c->send_fd, IPPROTO_IP, IP_MULTICAST_LOOP, &on, sizeof(on)) == 0 &&
           connect(c->send_fd, (const struct sockaddr *)group, sizeof(*group)) == 0 &&
           getsockname(c->send_fd, (struct sockaddr *)&c->own, &size) == 0;
}

static bool open_group(struct cable *c, const char *text, const struct netdev_config *cfg,
                       GError **error)
{
    const char *local = netdev_option(cfg, "localaddr");
    struct in_addr interface = {.s_addr = INADDR_ANY};
    struct sockaddr_in group;
    if (!resolve(c, "mcast", text, &group, error))
        return false;
    if (!IN_MULTICAST(ntohl(group.sin_addr.s_addr)))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "netdev '%s': mcast=%s is no multicast address", c->n.id, text);
    if (local && inet_pton(AF_INET, local, &interface) != 1)
        return ruche_error(error, RUCHE_ERR_INVALID, "netdev '%s': localaddr=%s is no IPv4 address",
                           c->n.id, local);
    c->datagrams = c->group = true;
    c->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    c->send_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return (c->fd >= 0 && c->send_fd >= 0 && join(c, &group, interface)) ||
           ruche_error_errno(error, errno, "netdev '%s': mcast=%s", c->n.id, text);
}

static bool open_server(struct cable *c, const char *text, const struct netdev_config *cfg,
                        GError **error)
{
    g_autofree char *host = NULL, *port = NULL, *where = NULL;
    split(text, &host, &port);
    c->listen_fd = sock_listen_tcp(host, port, &where, error);
    if (c->listen_fd < 0)
        g_prefix_error(error, "netdev '%s': ", c->n.id);
    return c->listen_fd >= 0;
}

static bool open_client(struct cable *c, const char *text, const struct netdev_config *cfg,
                        GError **error)
{
    split(text, &c->host, &c->port);
    if (!c->host)
        c->host = g_strdup("localhost");
    c->fd = sock_connect_tcp(c->host, c->port, false, error);
    if (c->fd < 0)
        g_prefix_error(error, "netdev '%s': ", c->n.id);
    return c->fd >= 0 && sock_set_nonblock(c->fd, true) == 0;
}

/* One that is connected already. */
static bool take_fd(struct cable *c, const char *text, const struct netdev_config *cfg,
                    GError **error)
{
    char *end;
    long fd = strtol(text, &end, 10);
    int type = 0;
    socklen_t size = sizeof(type);
    if (!*text || *end || fd < 0 || fd > INT32_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "netdev '%s': '%s' is not a descriptor's number", c->n.id, text);
    if (getsockopt((int)fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
        return ruche_error_errno(error, errno, "netdev '%s': descriptor %ld is no socket", c->n.id,
                                 fd);
    c->datagrams = type == SOCK_DGRAM;
    c->fd = c->send_fd = (int)fd;
    fcntl(c->fd, F_SETFD, FD_CLOEXEC);
    return sock_set_nonblock(c->fd, true) == 0;
}

static const struct {
    const char *name;
    bool (*open)(struct cable *c, const char *text, const struct netdev_config *cfg,
                 GError **error);
} ways[] = {
    {"listen", open_server}, {"connect", open_client}, {"udp", open_udp},
    {"mcast", open_group},   {"fd", take_fd},
};

static bool open_way(struct cable *c, const struct netdev_config *cfg, GError **error)
{
    int way = -1;
    for (size_t i = 0; i < ARRAY_COUNT(ways); i++) {
        if (!netdev_option(cfg, ways[i].name))
            continue;
        if (way >= 0)
            return ruche_error(error, RUCHE_ERR_INVALID, "netdev '%s': %s= excludes %s=", c->n.id,
                               ways[way].name, ways[i].name);
        way = (int)i;
    }
    if (way < 0)
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "netdev '%s': socket needs listen=, connect=, udp=, mcast= or fd=", c->n.id);
    const char *text = netdev_option(cfg, ways[way].name);
    c->where = g_strdup_printf("%s=%s", ways[way].name, text);
    return ways[way].open(c, text, cfg, error);
}

static const struct netdev_type cable_type;

static struct netdev *cable_create(const char *id, const struct netdev_config *cfg, GError **error)
{
    struct cable *c = g_new0(struct cable, 1);
    netdev_init(&c->n, &cable_type, &cable_ops, id);
    c->fd = c->send_fd = c->listen_fd = -1;
    c->in = g_malloc(LENGTH + NETDEV_MAX_FRAME);
    c->out = g_malloc(LENGTH + NETDEV_MAX_FRAME);
    if (open_way(c, cfg, error))
        return &c->n;
    netdev_free(&c->n);
    return NULL;
}

static const struct netdev_prop cable_props[] = {
    {"listen", "[HOST]:PORT to wait at for a client; the loopback when HOST is left out"},
    {"connect", "HOST:PORT of a server"},
    {"udp", "HOST:PORT where datagrams go; with localaddr=HOST:PORT"},
    {"mcast", "ADDRESS:PORT of a multicast group; localaddr=ADDRESS of the interface"},
    {"localaddr", "Of udp= and mcast="},
    {"fd", "A socket that is connected"},
    {NULL, NULL},
};

static const struct netdev_type cable_type = {
    .name = "socket",
    .summary = "A cable to another machine over TCP, UDP or multicast",
    .props = cable_props,
    .create = cable_create,
};
NETDEV_TYPE(cable_type);
