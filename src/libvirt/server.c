/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Listeners, the list of clients, and the one descriptor (epoll) by which the loop learns of them
 * all: with thousands of connections a round costs as much as there is to do, not as there are
 * clients. Thread: the loop thread.
 */
#include "libvirt/server.h"

#include "base/fd.h"
#include "base/log.h"
#include "base/sock.h"
#include "libvirt/client.h"
#include "libvirt/events.h"
#include "manager/awake.h"

#include <glib-unix.h>
#include <grp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum {
    EVENTS_A_ROUND = 64,
    ROUNDS = 8,
    ACCEPTS_A_ROUND = 64,
    LISTENERS = 16,
    BACKLOG = 4096,
    PAUSE_MS = 200
};

struct listener {
    struct watch watch;
    int fd;
    uint32_t interest;
    enum client_kind kind;
    enum libvirt_auth auth;
    struct sock_path path;
    unsigned port;
};

static struct {
    const struct libvirt_server_config *config;
    int epoll;
    guint epoll_source, tick_source, resume_source;
    bool dispatching, paused; /* paused: no more connections are taken for now */
    struct listener listeners[LISTENERS];
    unsigned listener_count;
    struct tls *tls;
    gid_t group;               /* (gid_t)-1: none */
    GQueue clients, half_open; /* oldest first */
    GSList *buried;
    struct libvirt_server_figures figures;
} server = {.epoll = -1};

size_t server_input_bytes;

const struct libvirt_server_config *server_config(void)
{
    return server.config;
}

struct libvirt_server_figures *server_figures(void)
{
    return &server.figures;
}

void libvirt_server_figures(struct libvirt_server_figures *ret)
{
    *ret = server.figures;
    ret->clients = server.clients.length;
    ret->half_open = server.half_open.length;
}

/* ---- epoll ---- */

void server_watch(struct watch *w, int fd, uint32_t *interest, uint32_t wanted)
{
    struct epoll_event e = {.events = wanted, .data.ptr = w};
    enum { KNOWN = EPOLLONESHOT }; /* never asked for: says that epoll has it already */
    if (*interest == (wanted | KNOWN))
        return;
    if (epoll_ctl(server.epoll, *interest & KNOWN ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &e) < 0)
        log_warn("libvirt: a connection cannot be watched: %s", g_strerror(errno));
    *interest = wanted | KNOWN;
}

void server_unwatch(int fd)
{
    epoll_ctl(server.epoll, EPOLL_CTL_DEL, fd, NULL);
}

static void free_buried(void)
{
    g_slist_free_full(g_steal_pointer(&server.buried), g_free);
}

static bool dispatch_once(void)
{
    struct epoll_event e[EVENTS_A_ROUND];
    int n = epoll_wait(server.epoll, e, EVENTS_A_ROUND, 0);
    for (int i = 0; i < n; i++) {
        struct watch *w = e[i].data.ptr;
        if (w->ready)
            w->ready(w, e[i].events);
    }
    return n == EVENTS_A_ROUND;
}

static gboolean dispatch(gint fd, GIOCondition condition, gpointer opaque)
{
    server.dispatching = true;
    for (unsigned i = 0; i < ROUNDS && dispatch_once(); i++)
        ;
    server.dispatching = false;
    free_buried();
    return G_SOURCE_CONTINUE;
}

/* ---- clients ---- */

void server_add(struct client *c)
{
    g_queue_push_tail_link(&server.clients, &c->link);
    g_queue_push_tail_link(&server.half_open, &c->half_open_link);
    server.figures.accepted++;
}

void server_opened(struct client *c)
{
    g_queue_unlink(&server.half_open, &c->half_open_link);
}

static void listen_again(void)
{
    server.paused = false;
    for (unsigned i = 0; i < server.listener_count; i++)
        server_watch(&server.listeners[i].watch, server.listeners[i].fd,
                     &server.listeners[i].interest, EPOLLIN);
}

static void stop_listening(void)
{
    server.paused = true;
    for (unsigned i = 0; i < server.listener_count; i++)
        server_watch(&server.listeners[i].watch, server.listeners[i].fd,
                     &server.listeners[i].interest, 0);
}

void server_remove(struct client *c)
{
    if (!c->opened)
        server_opened(c);
    g_queue_unlink(&server.clients, &c->link);
    if (server.paused && !server.resume_source && server.epoll >= 0)
        listen_again();
}

void server_bury(struct client *c)
{
    c->watch.ready = NULL;
    if (server.dispatching)
        server.buried = g_slist_prepend(server.buried, c);
    else
        g_free(c);
}

GList *server_clients(void)
{
    return server.clients.head;
}

/* ---- who may come in ---- */

static bool in_group(int fd)
{
    gid_t groups[1024];
    socklen_t len = sizeof(groups);
    if (server.group == (gid_t)-1 || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
        return false;
    for (size_t i = 0; i < len / sizeof(*groups); i++)
        if (groups[i] == server.group)
            return true;
    return false;
}

static bool is_trusted(const struct client *c)
{
    bool local = c->kind == CLIENT_UNIX || c->kind == CLIENT_UNIX_RO;
    switch (c->auth) {
    case LIBVIRT_AUTH_NONE:
        return true;
    case LIBVIRT_AUTH_SASL:
        return local && c->who.uid == 0;
    case LIBVIRT_AUTH_LOCAL:
        return (c->kind == CLIENT_UNIX_RO && !server.config->own_only) ||
               (local && (c->who.uid == 0 || c->who.uid == geteuid() ||
                          c->who.gid == server.group || in_group(c->io.fd)));
    }
    return false;
}

static void take_client(struct listener *l, int fd)
{
    if (server.half_open.length >= server.config->max_half_open)
        client_end(g_queue_peek_head(&server.half_open), "another one wants to come in");
    int on = 1;
    if (l->kind == CLIENT_TCP || l->kind == CLIENT_TLS)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    struct client *c = client_new(fd, l->kind, l->kind == CLIENT_TLS ? server.tls : NULL, l->auth);
    if (c)
        c->who.authenticated = is_trusted(c);
}

static gboolean try_again(gpointer opaque)
{
    server.resume_source = 0;
    listen_again();
    return G_SOURCE_REMOVE;
}

/* No descriptor is free: whoever has not opened his connection gives his, else all wait a little.
 */
static void make_room(void)
{
    if (!g_queue_is_empty(&server.half_open)) {
        client_end(g_queue_peek_head(&server.half_open), "descriptors are used up");
        return;
    }
    stop_listening();
    server.resume_source = g_timeout_add(PAUSE_MS, try_again, NULL);
}

static void accept_ready(struct watch *w, uint32_t events)
{
    struct listener *l = (struct listener *)w; /* its first member */
    for (unsigned i = 0; i < ACCEPTS_A_ROUND; i++) {
        if (server.clients.length >= server.config->max_clients) {
            stop_listening();
            return;
        }
        int fd = sock_accept(l->fd);
        if (fd >= 0)
            take_client(l, fd);
        else if (fd == -EMFILE || fd == -ENFILE)
            make_room();
        if (fd < 0)
            return;
    }
}

/* ---- listening ---- */

static struct listener *add_listener(int fd, enum client_kind kind, enum libvirt_auth auth)
{
    struct listener *l = &server.listeners[server.listener_count++];
    *l = (struct listener){.watch.ready = accept_ready, .fd = fd, .kind = kind, .auth = auth};
    listen(fd, BACKLOG);
    return l;
}

static bool listen_unix(const char *dir, const char *name, enum client_kind kind,
                        enum libvirt_auth auth, GError **error)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    bool own = server.config->own_only;
    struct sock_path where;
    if (server.listener_count == LISTENERS)
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s': at most %d sockets are listened on",
                           path, LISTENERS);
    if (g_mkdir_with_parents(dir, own ? 0700 : 0755) < 0)
        return ruche_error_errno(error, errno, "folder '%s' of libvirt's sockets", dir);
    int fd = sock_listen_unix(path, &where, error);
    if (fd < 0)
        return false;
    add_listener(fd, kind, auth)->path = where;
    /* Whoever reaches the folder may ask; the answer is is_trusted()'s. */
    if (chmod(path, own ? 0700 : 0777) < 0 ||
        (server.group != (gid_t)-1 && geteuid() == 0 && chown(path, (uid_t)-1, server.group) < 0))
        return ruche_error_errno(error, errno, "socket '%s': rights cannot be set", path);
    return true;
}

static bool listen_tcp(const char *host, const char *port, enum client_kind kind,
                       enum libvirt_auth auth, GError **error)
{
    g_autofree char *where = NULL;
    if (auth == LIBVIRT_AUTH_LOCAL)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "port %s: local authentication is for Unix sockets", port);
    int fd = sock_listen_tcp(g_strcmp0(host, "*") ? host : "::", port, &where, error);
    if (fd < 0)
        return false;
    struct listener *l = add_listener(fd, kind, auth);
    const char *colon = strrchr(where, ':');
    l->port = colon ? (unsigned)g_ascii_strtoull(colon + 1, NULL, 10) : 0;
    return true;
}

static bool listen_all(const struct libvirt_server_config *c, GError **error)
{
    for (const char *const *dir = c->socket_dirs; dir && *dir; dir++)
        if (!listen_unix(*dir, "libvirt-sock", CLIENT_UNIX, c->auth_unix_rw, error) ||
            !listen_unix(*dir, "libvirt-sock-ro", CLIENT_UNIX_RO, c->auth_unix_ro, error))
            return false;
    if (c->tcp_port && !listen_tcp(c->tcp_host, c->tcp_port, CLIENT_TCP, c->auth_tcp, error))
        return false;
    if (!c->tls_port)
        return true;
    server.tls = tls_new(c, error);
    return server.tls && listen_tcp(c->tls_host, c->tls_port, CLIENT_TLS, c->auth_tls, error);
}

static bool find_group(const char *name, GError **error)
{
    server.group = (gid_t)-1;
    if (!name)
        return true;
    errno = 0;
    const struct group *g = getgrnam(name); /* before anything is served: may block */
    if (!g)
        return ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no group '%s'", name);
    server.group = g->gr_gid;
    return true;
}

static void raise_descriptor_limit(unsigned clients)
{
    struct rlimit l;
    rlim_t want = (rlim_t)clients + 1024;
    if (getrlimit(RLIMIT_NOFILE, &l) < 0 || l.rlim_cur >= want)
        return;
    l.rlim_cur = MIN(want, l.rlim_max);
    setrlimit(RLIMIT_NOFILE, &l);
}

static gboolean tick(gpointer opaque)
{
    int64_t now = g_get_monotonic_time();
    for (GList *l = server.clients.head, *next; l; l = next) {
        next = l->next;
        client_tick(l->data, now);
    }
    return G_SOURCE_CONTINUE;
}

void libvirt_server_config_init(struct libvirt_server_config *config)
{
    *config = (struct libvirt_server_config){.auth_unix_rw = LIBVIRT_AUTH_LOCAL,
                                             .auth_unix_ro = LIBVIRT_AUTH_LOCAL,
                                             .auth_tcp = LIBVIRT_AUTH_SASL,
                                             .auth_tls = LIBVIRT_AUTH_NONE,
                                             .max_clients = 5000,
                                             .max_half_open = 1000,
                                             .half_open_s = 60,
                                             .max_calls = 64,
                                             .max_output_bytes = 64 << 20,
                                             .pause_output_bytes = 1 << 20,
                                             .stalled_s = 60,
                                             .keepalive_s = 5,
                                             .keepalive_count = 5,
                                             .stay_awake = true};
}

bool libvirt_server_start(const struct libvirt_server_config *config, GError **error)
{
    g_assert(server.epoll < 0);
    memset(&server, 0, sizeof(server));
    server.config = config;
    raise_descriptor_limit(config->max_clients);
    server.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (server.epoll < 0)
        return ruche_error_errno(error, errno, "the libvirt server cannot start");
    if (!find_group(config->group, error) || !listen_all(config, error)) {
        libvirt_server_stop();
        return false;
    }
    listen_again();
    server.epoll_source = g_unix_fd_add(server.epoll, G_IO_IN, dispatch, NULL);
    /* Nothing here runs the loop within itself. Of a source that might, GLib takes the descriptor
     * out of its poll for each dispatch and wakes itself twice: four system calls more for each
     * message. */
    g_source_set_can_recurse(g_main_context_find_source_by_id(NULL, server.epoll_source), true);
    server.tick_source = g_timeout_add_seconds(1, tick, NULL);
    if (config->stay_awake)
        awake_start("/dev/cpu_dma_latency");
    events_start();
    return true;
}

static void tell_closing(struct client *c)
{
    enum { CONNECTION_CLOSED = 362, REASON_CLIENT_GONE = 2 };
    static const struct xdr_row rows[] = {{.kind = XDR_INT}, XDR_DONE};
    const struct frame f = {PROGRAM_REMOTE, PROGRAM_VERSION, CONNECTION_CLOSED, FRAME_MESSAGE, 1,
                            FRAME_OK};
    if (c->close_callback)
        client_send_rows(c, &f, rows, &(int32_t){REASON_CLIENT_GONE});
    client_flush(c);
}

static void remove_source(guint *source)
{
    if (*source)
        g_source_remove(*source);
    *source = 0;
}

void libvirt_server_stop(void)
{
    if (server.epoll < 0)
        return;
    if (server.epoll_source) {
        events_stop();
        if (server.config->stay_awake)
            awake_stop();
    }
    remove_source(&server.epoll_source);
    remove_source(&server.tick_source);
    remove_source(&server.resume_source);
    server.paused = false;
    while (!g_queue_is_empty(&server.clients)) {
        struct client *c = client_ref(g_queue_peek_head(&server.clients));
        tell_closing(c);
        client_end(c, NULL);
        client_unref(c);
    }
    for (unsigned i = 0; i < server.listener_count; i++) {
        sock_path_remove(&server.listeners[i].path);
        close(server.listeners[i].fd);
    }
    server.listener_count = 0;
    tls_free(g_steal_pointer(&server.tls));
    close(fd_steal(&server.epoll));
}

static unsigned port_of(enum client_kind kind)
{
    for (unsigned i = 0; i < server.listener_count; i++)
        if (server.listeners[i].kind == kind)
            return server.listeners[i].port;
    return 0;
}

unsigned libvirt_server_tcp_port(void)
{
    return port_of(CLIENT_TCP);
}

unsigned libvirt_server_tls_port(void)
{
    return port_of(CLIENT_TLS);
}
