/* SPDX-License-Identifier: GPL-2.0-or-later */
/* NBD server: listening, clients' lives, exports; see server.h. */
#include "image/nbd/server_priv.h"

#include "base/fd.h"
#include "base/log.h"
#include "base/sock.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#define DEFAULT_CONNECTIONS  100
#define DEFAULT_HANDSHAKE_MS 10000
#define DEFAULT_REQUESTS     64
#define ACCEPT_PAUSE_NS      (100 * NS_PER_MS) /* when the system is out of descriptors */

/* --- clients --- */

static void client_free(struct nbd_client *c)
{
    nbd_serve_done(c);
    channel_done(&c->ch);
    g_free(c);
}

static void tell_idle(void *opaque)
{
    struct nbd_server *s = opaque;
    if (!s->client_count && !s->stopping)
        s->config.idle(s->config.opaque);
}

/* Server's thread: the client is through. In a fiber, so that who waits for it, and perhaps frees
 * the server, goes on only afterwards. */
static void end_client(void *opaque)
{
    struct nbd_client *c = opaque;
    struct nbd_server *s = c->server;
    struct nbd_client **at = &s->clients;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    s->client_count--;
    if (c->export)
        c->export->clients--;
    client_free(c);
    if (!s->client_count && s->config.idle)
        loop_post(context_loop(s->ctx), &s->idle_task);
    fiber_queue_wake_one(&s->room);
    fiber_queue_wake_all(&s->ended);
}

static void client_ended(void *opaque)
{
    fiber_start(end_client, opaque);
}

static void serve_fiber(void *opaque)
{
    struct nbd_client *c = opaque;
    nbd_serve(c);
    c->task = (struct loop_task){ .fn = client_ended, .opaque = c };
    loop_post(context_loop(c->server->ctx), &c->task);
}

/* Export's thread. */
static void begin_serving(void *opaque)
{
    fiber_start(serve_fiber, opaque);
}

static void handshake_late(void *opaque)
{
    struct nbd_client *c = opaque;
    channel_shutdown(&c->ch);
}

static void handshake_fiber(void *opaque)
{
    struct nbd_client *c = opaque;
    struct nbd_server *s = c->server;
    struct loop *loop = context_loop(s->ctx);
    loop_timer_init(loop, &c->deadline, handshake_late, c);
    loop_timer_arm(&c->deadline, loop_now_ns() + (int64_t)s->config.handshake_ms * NS_PER_MS);
    bool good = nbd_handshake(c) && !s->stopping && !c->export->closing;
    loop_timer_done(&c->deadline);
    c->task = (struct loop_task){ .fn = good ? begin_serving : client_ended, .opaque = c };
    if (good)
        c->ch.ctx = c->export->ctx;
    loop_post(context_loop(good ? c->export->ctx : s->ctx), &c->task);
}

static void accept_fiber(void *opaque)
{
    struct nbd_server *s = opaque;
    while (!s->stopping) {
        if (s->client_count >= s->config.max_connections) {
            fiber_queue_wait(&s->room);
            continue;
        }
        int fd = sock_accept(s->listen_fd);
        if (fd == -EAGAIN) {
            context_wait_fd(s->ctx, s->listen_fd, POLLIN);
            continue;
        }
        if (fd < 0) {
            context_sleep_ns(s->ctx, ACCEPT_PAUSE_NS);
            continue;
        }
        struct nbd_client *c = g_new0(struct nbd_client, 1);
        c->server = s;
        channel_init(&c->ch, s->ctx, fd);
        c->next = s->clients;
        s->clients = c;
        s->client_count++;
        fiber_start(handshake_fiber, c);
    }
    s->accepting = false;
    fiber_queue_wake_all(&s->ended);
}

/* --- waiting for clients to go --- */

struct gone {
    struct nbd_server *s;
    struct nbd_export *e; /* its clients; NULL: everybody, and who accepts */
};

static int wait_gone(void *opaque)
{
    struct gone *g = opaque;
    while (g->e ? g->e->clients : g->s->client_count || g->s->accepting)
        fiber_queue_wait(&g->s->ended);
    return 0;
}

static void disconnect(struct nbd_server *s, const struct nbd_export *e)
{
    for (struct nbd_client *c = s->clients; c; c = c->next) {
        if (!e || c->export == e)
            channel_shutdown(&c->ch);
    }
    struct gone g = { s, (struct nbd_export *)e };
    context_run(s->ctx, wait_gone, &g);
}

/* --- exports --- */

struct add {
    struct nbd_export *e;
    const struct nbd_export_config *config;
    GError **error;
    bool good;
};

static struct dirty_bitmap *find_bitmap(struct node *n, const char *name)
{
    for (unsigned depth = 0; n && depth < IMAGE_CHAIN_MAX; depth++) {
        struct node *image = node_skip_filters(n);
        struct dirty_bitmap *b = dirty_find(n, name);
        if (!b)
            b = dirty_find(image, name);
        if (b)
            return b;
        n = node_backing(image);
    }
    return NULL;
}

static bool add_bitmap(struct nbd_export *e, const char *name, GError **error)
{
    struct dirty_bitmap *b = find_bitmap(e->user.node, name);
    if (!b)
        return ruche_error(error, RUCHE_ERR_NOT_FOUND,
                           "%s: there is no dirty bitmap '%s' in node '%s' or below", e->who, name,
                           node_name(e->user.node));
    if (!dirty_usable(b, DIRTY_NEED_IDLE | DIRTY_NEED_CONSISTENT, error))
        return false;
    if (b->size_bytes != e->size_bytes)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: bitmap '%s' covers %" G_GUINT64_FORMAT
                           " bytes, the export has %" G_GUINT64_FORMAT,
                           e->who, name, b->size_bytes, e->size_bytes);
    if (!e->writable && b->enabled && !node_is_read_only(e->user.node))
        return ruche_error(error, RUCHE_ERR_STATE,
                           "%s: bitmap '%s' is enabled: a read-only export would show it changing",
                           e->who, name);
    struct nbd_export_bitmap *row = &e->bitmaps[e->bitmap_count++];
    row->context = g_strconcat(NBD_CONTEXT_DIRTY, name, NULL);
    row->bitmap = b;
    b->busy = true;
    return true;
}

static void on_drained(struct node_user *u, bool begin)
{
    struct nbd_export *e = container_of(u, struct nbd_export, user);
    if (begin)
        e->paused++;
    else if (--e->paused == 0)
        fiber_queue_wake_all(&e->resume);
}

/* Clients are served on the node's thread: it may change while there are none. */
static bool on_move(struct node_user *u, struct context *to)
{
    struct nbd_export *e = container_of(u, struct nbd_export, user);
    if (to)
        e->ctx = to;
    return !e->clients;
}

struct node *nbd_export_enter(struct nbd_export *e)
{
    while (unlikely(e->paused))
        fiber_queue_wait(&e->resume);
    return e->user.node;
}

/* Export's thread, in a fiber. */
static int attach_node(void *opaque)
{
    struct add *a = opaque;
    struct nbd_export *e = a->e;
    struct node *n = a->config->node;
    if (e->writable && node_is_read_only(n)) {
        ruche_error(a->error, RUCHE_ERR_INVALID,
                    "%s: node '%s' is read-only: it cannot be exported for writing", e->who,
                    node_name(n));
        return 0;
    }
    if (!node_use(n, &e->user, a->error))
        return 0;
    e->size_bytes = node_size(n);
    a->good = true;
    for (const char *const *name = a->config->bitmaps; a->good && name && *name; name++)
        a->good = add_bitmap(e, *name, a->error);
    return 0;
}

static int detach_node(void *opaque)
{
    struct nbd_export *e = opaque;
    for (unsigned i = 0; i < e->bitmap_count; i++)
        e->bitmaps[i].bitmap->busy = false;
    if (e->user.node)
        node_leave(&e->user);
    nbd_buffers_free(e);
    return 0;
}

static void export_free(struct nbd_export *e)
{
    context_run(e->ctx, detach_node, e);
    for (unsigned i = 0; i < e->bitmap_count; i++)
        g_free(e->bitmaps[i].context);
    g_free(e->bitmaps);
    g_free(e->name);
    g_free(e->description);
    g_free(e->who);
    g_free(e);
}

static bool check_export(const struct nbd_server *s, const struct nbd_export_config *config,
                         const char *name, GError **error)
{
    unsigned bitmaps = config->bitmaps ? g_strv_length((char **)config->bitmaps) : 0;
    if (strlen(name) > NBD_NAME_MAX ||
        (config->description && strlen(config->description) > NBD_NAME_MAX))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "the name and the description of an export are %u bytes at most",
                           NBD_NAME_MAX);
    if (bitmaps > NBD_EXPORT_BITMAPS_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "NBD export '%s': %u bitmaps are over the limit of %d", name, bitmaps,
                           NBD_EXPORT_BITMAPS_MAX);
    if (nbd_server_find(s, name))
        return ruche_error(error, RUCHE_ERR_EXISTS, "an NBD export '%s' exists already", name);
    return true;
}

struct nbd_export *nbd_server_add(struct nbd_server *s, const struct nbd_export_config *config,
                                  GError **error)
{
    const char *name = config->name ? config->name : node_name(config->node);
    if (!check_export(s, config, name, error))
        return NULL;
    struct nbd_export *e = g_new0(struct nbd_export, 1);
    e->server = s;
    e->name = g_strdup(name);
    e->description = g_strdup(config->description);
    e->who = g_strdup_printf("NBD export '%s'", name);
    e->ctx = node_context(config->node);
    e->writable = config->writable;
    e->allocation_depth = config->allocation_depth;
    e->preferred_block = 4 * KIB;
    e->bitmaps = g_new0(struct nbd_export_bitmap, NBD_EXPORT_BITMAPS_MAX);
    e->user.who = e->who;
    e->user.perms = PERM_READ | (e->writable ? PERM_WRITE : 0);
    e->user.shared = PERM_ALL & ~PERM_RESIZE;
    e->user.drained = on_drained;
    e->user.move = on_move;
    struct add a = { .e = e, .config = config, .error = error };
    context_run(e->ctx, attach_node, &a);
    if (!a.good) {
        export_free(e);
        return NULL;
    }
    struct nbd_export **at = &s->exports;
    while (*at)
        at = &(*at)->next;
    *at = e;
    return e;
}

struct nbd_export *nbd_server_find(const struct nbd_server *s, const char *name)
{
    for (struct nbd_export *e = s->exports; e; e = e->next) {
        if (!e->closing && strcmp(e->name, name) == 0)
            return e;
    }
    return NULL;
}

struct nbd_export *nbd_server_next(const struct nbd_server *s, const struct nbd_export *after)
{
    return after ? after->next : s->exports;
}

static void remove_export(struct nbd_server *s, struct nbd_export *e)
{
    e->closing = true;
    for (struct nbd_client *c = s->clients; c; c = c->next) {
        if (c->contexts.export == e)
            c->contexts = (struct nbd_contexts){ 0 };
    }
    disconnect(s, e);
    struct nbd_export **at = &s->exports;
    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    export_free(e);
}

bool nbd_server_remove(struct nbd_server *s, const char *name, bool force, GError **error)
{
    struct nbd_export *e = nbd_server_find(s, name);
    if (!e)
        return ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no NBD export '%s'", name);
    if (e->clients && !force)
        return ruche_error(
            error, RUCHE_ERR_BUSY,
            "NBD export '%s' has %u client%s; they are disconnected with mode 'hard'", name,
            e->clients, e->clients == 1 ? "" : "s");
    remove_export(s, e);
    return true;
}

const char *nbd_export_get_name(const struct nbd_export *e)
{
    return e->name;
}

struct node *nbd_export_node(const struct nbd_export *e)
{
    return e->user.node;
}

bool nbd_export_is_writable(const struct nbd_export *e)
{
    return e->writable;
}

unsigned nbd_export_client_count(const struct nbd_export *e)
{
    return e->clients;
}

/* --- the server --- */

static bool open_socket(struct nbd_server *s, GError **error)
{
    const struct nbd_server_config *c = &s->config;
    const char *scheme = c->tls ? "nbds" : "nbd";
    if (c->listen_fd >= 0) {
        s->listen_fd = c->listen_fd;
        s->where = g_strdup_printf("%s socket of descriptor %d", scheme, c->listen_fd);
        return sock_set_nonblock(s->listen_fd, true) == 0 ||
               ruche_error(error, RUCHE_ERR_INVALID, "descriptor %d is no socket", c->listen_fd);
    }
    if (c->unix_path) {
        s->path = g_new0(struct sock_path, 1);
        s->listen_fd = sock_listen_unix(c->unix_path, s->path, error);
        s->where = g_strdup_printf("%s+unix://?socket=%s", scheme, c->unix_path);
        return s->listen_fd >= 0;
    }
    g_autofree char *where = NULL;
    s->listen_fd = sock_listen_tcp(c->host, c->port ? c->port : NBD_DEFAULT_PORT, &where, error);
    s->where = g_strdup_printf("%s://%s", scheme, where ? where : "");
    return s->listen_fd >= 0;
}

static void set_defaults(struct nbd_server_config *c)
{
    if (!c->max_connections)
        c->max_connections = DEFAULT_CONNECTIONS;
    if (!c->handshake_ms)
        c->handshake_ms = DEFAULT_HANDSHAKE_MS;
    if (!c->max_requests)
        c->max_requests = DEFAULT_REQUESTS;
    c->max_bytes = max_u64(c->max_bytes, NBD_PAYLOAD_MAX);
}

static void server_done(struct nbd_server *s)
{
    fd_close_keep_errno(s->listen_fd);
    if (s->path)
        sock_path_remove(s->path);
    g_free(s->path);
    tls_creds_unref(s->tls);
    g_free(s->tls_authz);
    g_free(s->where);
    g_free(s);
}

static int start_accepting(void *opaque)
{
    fiber_start(accept_fiber, opaque);
    return 0;
}

struct nbd_server *nbd_server_new(struct context *c, const struct nbd_server_config *config,
                                  GError **error)
{
    if (config->tls && !tls_creds_is_server(config->tls)) {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "TLS credentials '%s' are for a client; endpoint=server is needed here",
                    tls_creds_id(config->tls));
        return NULL;
    }
    if (config->tls_authz && !config->tls) {
        ruche_error(error, RUCHE_ERR_INVALID, "tls-authz needs tls-creds: without TLS nobody has a name");
        return NULL;
    }
    struct nbd_server *s = g_new0(struct nbd_server, 1);
    s->ctx = c;
    s->config = *config;
    set_defaults(&s->config);
    s->listen_fd = -1;
    s->idle_task = (struct loop_task){ .fn = tell_idle, .opaque = s };
    s->tls = config->tls ? tls_creds_ref(config->tls) : NULL;
    s->tls_authz = g_strdup(config->tls_authz);
    if (!open_socket(s, error)) {
        server_done(s);
        return NULL;
    }
    s->accepting = true;
    context_run(c, start_accepting, s);
    return s;
}

void nbd_server_free(struct nbd_server *s)
{
    if (!s)
        return;
    s->stopping = true;
    shutdown(s->listen_fd, SHUT_RDWR);
    fiber_queue_wake_all(&s->room);
    disconnect(s, NULL);
    while (s->exports)
        remove_export(s, s->exports);
    loop_unpost(context_loop(s->ctx), &s->idle_task);
    server_done(s);
}

const char *nbd_server_where(const struct nbd_server *s)
{
    return s->where;
}

unsigned nbd_server_client_count(const struct nbd_server *s)
{
    return s->client_count;
}
