/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sockets of the REST interface. We accept connections ourselves and hand them to libsoup, so that their
 * number and silence are bounded; the remote address of each carries who is behind it.
 *
 * Thread    The loop thread. Trust: a client's certificate is checked against the configured CA; a token
 *           against digests, in constant time.
 */
#include "web/internal.h"

#include "base/log.h"
#include "base/sock.h"
#include "base/util.h"

#include <gio/gunixsocketaddress.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CALLER_KEY "ruche-caller"
#define SOCKET_KEY "ruche-socket"

struct listener {
    SoupServer *server;
    GSocketListener *sockets;
    GTlsCertificate *cert; /* NULL: a Unix socket */
    GTlsDatabase *ca;      /* NULL: no client certificates */
    GCancellable *end; /* of what waits for it */
};

static GPtrArray *listeners;
static unsigned connection_count[2]; /* of Unix sockets; of HTTPS: strangers cannot take the places of those */
static GHashTable *tokens; /* digest in hexadecimal to name */

static void caller_free(gpointer opaque)
{
    struct caller *c = opaque;
    caller_done(c);
    g_free(c);
}

const struct caller *web_caller(SoupServerMessage *msg)
{
    GSocketAddress *address = soup_server_message_get_remote_address(msg);
    return g_object_get_data(G_OBJECT(address), CALLER_KEY);
}

void web_drop(SoupServerMessage *msg)
{
    GObject *address = G_OBJECT(soup_server_message_get_remote_address(msg));
    g_socket_shutdown(g_object_get_data(address, SOCKET_KEY), TRUE, TRUE, NULL);
}

static void connection_gone(gpointer opaque, GObject *where)
{
    --*(unsigned *)opaque;
}

static struct caller *unix_caller(GSocket *socket)
{
    struct caller *c = g_new0(struct caller, 1);
    *c = (struct caller){ .transport = "rest", .uid = (uid_t)-1, .gid = (gid_t)-1 };
    struct ucred peer;
    socklen_t len = sizeof(peer);
    if (!getsockopt(g_socket_get_fd(socket), SOL_SOCKET, SO_PEERCRED, &peer, &len)) {
        c->uid = peer.uid;
        c->gid = peer.gid;
        c->pid = peer.pid;
        c->authenticated = true;
        c->name = g_strdup_printf("uid %u", (unsigned)peer.uid);
    }
    return c;
}

/* The name that a certificate which the CA signed is made out to. */
static void on_tls_peer(GTlsConnection *tls, GParamSpec *spec, gpointer opaque)
{
    struct caller *c = g_object_get_data(opaque, CALLER_KEY);
    GTlsCertificate *peer = g_tls_connection_get_peer_certificate(tls);
    if (!peer || !c)
        return;
    g_free(c->name);
    c->name = g_tls_certificate_get_subject_name(peer);
    c->authenticated = true;
}

/* On a server's side the last word on a certificate is ours, also where nothing speaks against it. */
static gboolean on_tls_verified(GTlsConnection *tls, GTlsCertificate *peer, GTlsCertificateFlags wrong, gpointer opaque)
{
    return wrong == 0;
}

static GIOStream *wrap_tls(struct listener *l, GSocketConnection *connection, GSocketAddress *remote)
{
    GIOStream *tls = g_tls_server_connection_new(G_IO_STREAM(connection), l->cert, NULL);
    if (!tls)
        return NULL;
    if (l->ca) {
        g_tls_connection_set_database(G_TLS_CONNECTION(tls), l->ca);
        g_object_set(tls, "authentication-mode",
                     g_hash_table_size(tokens) ? G_TLS_AUTHENTICATION_REQUESTED : G_TLS_AUTHENTICATION_REQUIRED, NULL);
        g_signal_connect(tls, "accept-certificate", G_CALLBACK(on_tls_verified), NULL);
        g_signal_connect_object(tls, "notify::peer-certificate", G_CALLBACK(on_tls_peer), remote, 0);
    }
    return tls;
}

static void take(struct listener *l, GSocketConnection *connection)
{
    GSocket *socket = g_socket_connection_get_socket(connection);
    g_autoptr(GSocketAddress) local = g_socket_get_local_address(socket, NULL);
    g_autoptr(GSocketAddress) remote = l->cert ? g_socket_get_remote_address(socket, NULL)
                                               : g_unix_socket_address_new("client");
    if (!local || !remote)
        return;
    struct caller *who = l->cert ? g_new0(struct caller, 1) : unix_caller(socket);
    if (l->cert)
        *who = (struct caller){ .transport = "https", .uid = (uid_t)-1, .gid = (gid_t)-1 };
    g_object_set_data_full(G_OBJECT(remote), CALLER_KEY, who, caller_free);
    g_autoptr(GIOStream) stream = l->cert ? wrap_tls(l, connection, remote) : g_object_ref(G_IO_STREAM(connection));
    if (!stream)
        return;
    g_object_set_data_full(G_OBJECT(remote), SOCKET_KEY, g_object_ref(socket), g_object_unref);
    soup_server_accept_iostream(l->server, stream, local, remote, NULL);
}

struct silent {
    struct listener *listener; /* until `end` */
    GSocketConnection *connection;
    GCancellable *end;
};

static void silent_free(gpointer opaque)
{
    struct silent *s = opaque;
    g_object_unref(s->connection);
    g_object_unref(s->end);
    g_free(s);
}

/* It spoke, or has gone, or its time is over. */
static gboolean on_spoken(GSocket *socket, GIOCondition condition, gpointer opaque)
{
    struct silent *s = opaque;
    char first;
    if (!g_cancellable_is_cancelled(s->end) && recv(g_socket_get_fd(socket), &first, 1, MSG_PEEK | MSG_DONTWAIT) == 1)
        take(s->listener, s->connection);
    return G_SOURCE_REMOVE;
}

/* A handshake holds a thread of few: it begins when the peer has begun it. */
static void wait_for_word(struct listener *l, GSocketConnection *connection)
{
    struct silent *s = g_new0(struct silent, 1);
    *s = (struct silent){ .listener = l, .connection = g_object_ref(connection), .end = g_object_ref(l->end) };
    g_autoptr(GSource) source = g_socket_create_source(g_socket_connection_get_socket(connection), G_IO_IN, l->end);
    g_source_set_callback(source, G_SOURCE_FUNC(on_spoken), s, silent_free);
    g_source_attach(source, NULL);
}

static void admit(struct listener *l, GSocketConnection *connection)
{
    unsigned *count = &connection_count[l->cert != NULL];
    if (*count >= WEB_MAX_CONNECTIONS)
        return;
    ++*count;
    g_object_weak_ref(G_OBJECT(connection), connection_gone, count);
    g_socket_set_timeout(g_socket_connection_get_socket(connection), WEB_IDLE_S);
    if (l->cert)
        wait_for_word(l, connection);
    else
        take(l, connection);
}

static void on_accept(GObject *sockets, GAsyncResult *result, gpointer opaque)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GSocketConnection) connection =
        g_socket_listener_accept_finish(G_SOCKET_LISTENER(sockets), result, NULL, &error);
    if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED) || g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CLOSED))
        return;
    struct listener *l = opaque;
    if (connection)
        admit(l, connection);
    g_socket_listener_accept_async(l->sockets, NULL, on_accept, l);
}

static void listener_free(gpointer opaque)
{
    struct listener *l = opaque;
    if (l->sockets)
        g_socket_listener_close(l->sockets);
    g_cancellable_cancel(l->end);
    g_clear_object(&l->end);
    g_clear_object(&l->sockets);
    g_clear_object(&l->cert);
    g_clear_object(&l->ca);
    g_free(l);
}

static bool listen_on(struct listener *l, int fd, GError **error)
{
    g_autoptr(GSocket) socket = g_socket_new_from_fd(fd, error);
    if (!socket) {
        close(fd);
        return false;
    }
    l->sockets = g_socket_listener_new();
    if (!g_socket_listener_add_socket(l->sockets, socket, NULL, error))
        return false;
    g_socket_listener_accept_async(l->sockets, NULL, on_accept, l);
    return true;
}

static struct listener *listener_new(SoupServer *server)
{
    struct listener *l = g_new0(struct listener, 1);
    l->server = server;
    l->end = g_cancellable_new();
    g_ptr_array_add(listeners, l);
    return l;
}

bool web_listen_unix(SoupServer *server, int fd, GError **error)
{
    return listen_on(listener_new(server), fd, error);
}

static bool listen_https(SoupServer *server, const struct web_config *c, GError **error)
{
    if (!c->cert || !c->key)
        return ruche_error(error, RUCHE_ERR_INVALID, "REST on %s needs a certificate and a key", c->listen);
    if (!c->ca && !c->token_file)
        return ruche_error(error, RUCHE_ERR_INVALID, "REST on %s lets nobody in: it needs a CA or a token file", c->listen);
    struct listener *l = listener_new(server);
    l->cert = g_tls_certificate_new_from_files(c->cert, c->key, error);
    if (!l->cert || (c->ca && !(l->ca = g_tls_file_database_new(c->ca, error))))
        return false;
    const char *colon = strrchr(c->listen, ':');
    g_autofree char *host = g_strndup(c->listen, colon ? (size_t)(colon - c->listen) : 0);
    int fd = sock_listen_tcp(host, colon ? colon + 1 : c->listen, NULL, error);
    return fd >= 0 && listen_on(l, fd, error);
}

static bool read_tokens(const char *path, GError **error)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, error))
        return false;
    g_auto(GStrv) lines = g_strsplit(text, "\n", 1000);
    for (char **line = lines; *line; line++) {
        g_auto(GStrv) words = g_strsplit_set(g_strstrip(*line), " \t", 2);
        if (!words[0] || !*words[0] || words[0][0] == '#')
            continue;
        if (!words[1] || strlen(g_strstrip(words[1])) != 64)
            return ruche_error(error, RUCHE_ERR_INVALID, "%s: the line of '%s' has no SHA-256 digest", path, words[0]);
        g_hash_table_insert(tokens, g_ascii_strdown(words[1], -1), g_strdup(words[0]));
    }
    return true;
}

bool web_listen(SoupServer *server, const struct web_config *c, GError **error)
{
    listeners = g_ptr_array_new_with_free_func(listener_free);
    tokens = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    if (c->token_file && !read_tokens(c->token_file, error))
        return false;
    return !c->listen || listen_https(server, c, error);
}

void web_listen_stop(void)
{
    g_clear_pointer(&listeners, g_ptr_array_unref);
    g_clear_pointer(&tokens, g_hash_table_unref);
}

/* The digest is what is looked up: how long that takes tells nothing of a token. */
bool web_authenticate(SoupServerMessage *msg, GError **error)
{
    struct caller *c = (struct caller *)web_caller(msg);
    if (c->authenticated)
        return true;
    const char *header =
        soup_message_headers_get_one(soup_server_message_get_request_headers(msg), "Authorization");
    if (header && g_str_has_prefix(header, "Bearer ")) {
        g_autofree char *digest = g_compute_checksum_for_string(G_CHECKSUM_SHA256, header + strlen("Bearer "), -1);
        const char *name = g_hash_table_lookup(tokens, digest);
        if (name) {
            g_free(c->name);
            c->name = g_strdup(name);
            c->authenticated = true;
            return true;
        }
    }
    return ruche_error(error, MANAGER_ERR_AUTH, "who you are was not shown: send a token, or use a certificate");
}
