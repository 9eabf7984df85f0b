/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Listening sockets and their clients, on the default GMainContext. */
#include "qmp/internal.h"

#include "base/fd.h"
#include "base/log.h"
#include "base/sock.h"

#include <glib-unix.h>
#include <string.h>

#define READ_CHUNK 16384

struct listener {
    struct qmp_server *server;
    int fd;
    guint source;
    struct sock_path path;
};

struct client {
    struct qmp_server *server;
    struct qmp_session *session;
    int fd;
    guint in_source, out_source;
    bool gone;
};

/* ---- clients ---- */

static void client_free(gpointer p)
{
    struct client *c = p;
    if (c->in_source)
        g_source_remove(c->in_source);
    if (c->out_source)
        g_source_remove(c->out_source);
    qmp_session_free(c->session);
    fd_close_keep_errno(c->fd);
    g_free(c);
}

static gboolean client_writable(int fd, GIOCondition condition, gpointer opaque)
{
    struct client *c = opaque;
    qmp_session_writable(c->session);
    if (qmp_session_pending(c->session) && !c->gone)
        return G_SOURCE_CONTINUE;
    c->out_source = 0;
    return G_SOURCE_REMOVE;
}

static size_t client_write(void *opaque, const void *data, size_t len)
{
    struct client *c = opaque;
    if (c->gone)
        return len;
    ssize_t n;
    do
        n = write(c->fd, data, len);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN) {
        c->gone = true; /* the reader's hangup takes it away */
        return len;
    }
    if (n < (ssize_t)len && !c->out_source)
        c->out_source = g_unix_fd_add(c->fd, G_IO_OUT, client_writable, c);
    return n < 0 ? 0 : n;
}

static gboolean client_gone(gpointer opaque)
{
    struct client *c = opaque;
    c->in_source = 0;
    g_ptr_array_remove(c->server->clients, c); /* frees it */
    return G_SOURCE_REMOVE;
}

static void client_drop(void *opaque)
{
    struct client *c = opaque;
    c->gone = true;
    if (c->in_source)
        g_source_remove(c->in_source);
    c->in_source = g_idle_add(client_gone, c);
}

static void got_fd(void *opaque, int fd)
{
    qmp_session_receive_fd(opaque, fd);
}

static gboolean client_readable(int fd, GIOCondition condition, gpointer opaque)
{
    struct client *c = opaque;
    char buf[READ_CHUNK];
    ssize_t n = c->gone ? 0 : sock_receive(fd, buf, sizeof(buf), got_fd, c->session);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return G_SOURCE_CONTINUE;
    if (n <= 0)
        return client_gone(c);
    guint source = c->in_source;
    qmp_session_receive(c->session, buf, n);
    return c->in_source == source ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

void qmp_server_accept(struct qmp_server *s, int fd)
{
    struct client *c = g_new0(struct client, 1);
    *c = (struct client){ .server = s, .fd = fd };
    sock_set_nonblock(fd, true);
    if (!s->clients)
        s->clients = g_ptr_array_new_with_free_func(client_free);
    const struct qmp_transport t = { .write = client_write, .drop = client_drop, .opaque = c };
    c->session = qmp_session_new(s, &t);
    if (!c->session) {
        client_free(c);
        return;
    }
    g_ptr_array_add(s->clients, c);
    c->in_source = g_unix_fd_add(fd, G_IO_IN | G_IO_HUP | G_IO_ERR, client_readable, c);
}

/* ---- listeners ---- */

static void listener_free(gpointer p)
{
    struct listener *l = p;
    if (l->source)
        g_source_remove(l->source);
    fd_close_keep_errno(l->fd);
    sock_path_remove(&l->path);
    g_free(l);
}

void qmp_listeners_free(struct qmp_server *s)
{
    g_clear_pointer(&s->clients, g_ptr_array_unref);
    g_clear_pointer(&s->listeners, g_ptr_array_unref);
}

static gboolean client_arrived(int fd, GIOCondition condition, gpointer opaque)
{
    struct listener *l = opaque;
    int client = sock_accept(fd);
    if (client >= 0)
        qmp_server_accept(l->server, client);
    return G_SOURCE_CONTINUE;
}

/* The text behind "unix:" or "tcp:". */
struct spec {
    char *where;
    bool unix_path, server, wait;
};

static bool word_on(const char *value)
{
    return !value || !strcmp(value, "on") || !strcmp(value, "yes") || !strcmp(value, "true");
}

static bool spec_parse(const char *text, struct spec *ret, GError **error)
{
    g_auto(GStrv) words = g_strsplit(text, ",", 0);
    static const char *const known[] = {
        "server", "wait", "nowait", "nodelay", "ipv4", "ipv6", NULL
    };
    *ret = (struct spec){ .unix_path = g_str_has_prefix(text, "unix:"), .wait = true };
    for (char **w = words + 1; words[0] && *w; w++) {
        char *value = strchr(*w, '=');
        if (value)
            *value++ = '\0';
        if (!strcmp(*w, "server"))
            ret->server = word_on(value);
        else if (!strcmp(*w, "wait"))
            ret->wait = word_on(value);
        else if (!strcmp(*w, "nowait"))
            ret->wait = false;
        else if (!g_strv_contains(known, *w))
            return ruche_error(error, RUCHE_ERR_UNKNOWN, "unknown property '%s'%s", *w,
                               suggest_phrase(*w, known));
    }
    ret->where = g_strdup(words[0] + (ret->unix_path ? 5 : 4));
    return true;
}

bool qmp_server_can_listen(const char *spec)
{
    if (!g_str_has_prefix(spec, "unix:") && !g_str_has_prefix(spec, "tcp:"))
        return false;
    struct spec parsed;
    /* Unknown words are told by the attempt to listen. A doubled comma is the chardev parser's
     * business. */
    if (strstr(spec, ",,") || !spec_parse(spec, &parsed, NULL))
        return !strstr(spec, ",,");
    g_free(parsed.where);
    return parsed.server;
}

static int spec_listen(const struct spec *p, struct sock_path *ret_path, GError **error)
{
    if (p->unix_path)
        return sock_listen_unix(p->where, ret_path, error);
    char *colon = strrchr(p->where, ':');
    if (!colon) {
        ruche_error(error, RUCHE_ERR_INVALID, "'%s' is not HOST:PORT", p->where);
        return -1;
    }
    *colon = '\0';
    return sock_listen_tcp(p->where, colon + 1, NULL, error);
}

bool qmp_server_listen(struct qmp_server *s, const char *text, GError **error)
{
    struct spec p;
    if (!spec_parse(text, &p, error))
        return false;
    struct listener *l = g_new0(struct listener, 1);
    l->server = s;
    l->fd = spec_listen(&p, &l->path, error);
    g_free(p.where);
    if (l->fd < 0) {
        g_free(l);
        return false;
    }
    if (!s->listeners)
        s->listeners = g_ptr_array_new_with_free_func(listener_free);
    g_ptr_array_add(s->listeners, l);
    l->source = g_unix_fd_add(l->fd, G_IO_IN, client_arrived, l);
    if (p.wait)
        log_info("waiting for a connection on %s", text);
    unsigned before = s->session_count;
    while (p.wait && s->session_count == before && !s->stop_waiting)
        g_main_context_iteration(NULL, TRUE);
    if (p.wait && s->stop_waiting)
        return ruche_error(error, RUCHE_ERR_STATE, "interrupted while waiting for a client on %s",
                           text);
    return true;
}
