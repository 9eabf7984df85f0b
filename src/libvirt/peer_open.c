/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Transports of a client: Unix sockets, TCP, TLS, ssh. Thread: a worker. */
#include "libvirt/peer_open.h"

#include "libvirt/client.h"

#include <gio/gunixsocketaddress.h>
#include <string.h>
#include <sys/socket.h>

#define PORT_TCP 16509
#define PORT_TLS 16514

struct place {
    GUri *uri;
    char *driver, *transport;
    GHashTable *params;
    unsigned timeout_s;
};

static void place_done(struct place *p)
{
    g_clear_pointer(&p->uri, g_uri_unref);
    g_clear_pointer(&p->params, g_hash_table_unref);
    g_free(p->driver);
    g_free(p->transport);
}

static const char *param(const struct place *p, const char *name)
{
    return p->params ? g_hash_table_lookup(p->params, name) : NULL;
}

static const char *host_of(const struct place *p)
{
    const char *host = g_uri_get_host(p->uri);
    return host && *host ? host : NULL;
}

static bool is_session(const struct place *p)
{
    return !strcmp(g_uri_get_path(p->uri), "/session");
}

static bool parse(const char *text, struct place *ret, GError **error)
{
    g_autoptr(GError) why = NULL;
    ret->uri = g_uri_parse(text, G_URI_FLAGS_HAS_PASSWORD, &why);
    const char *query = ret->uri ? g_uri_get_query(ret->uri) : NULL;
    if (ret->uri && query)
        ret->params = g_uri_parse_params(query, -1, "&;", G_URI_PARAMS_NONE, &why);
    if (why)
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is no URI of a manager: %s", text,
                           why->message);
    g_auto(GStrv) words = g_strsplit(g_uri_get_scheme(ret->uri), "+", 2);
    ret->driver = g_strdup(words[0]);
    ret->transport = g_strdup(words[1] ? words[1] : host_of(ret) ? "tls" : "unix");
    return true;
}

/* ---- Unix sockets ---- */

static char *default_socket(const struct place *p)
{
    static const char *const system[] = {"/run/libvirt/libvirt-sock", "/run/ruche/libvirt-sock"};
    if (is_session(p))
        return g_build_filename(g_get_user_runtime_dir(), "libvirt", "libvirt-sock", NULL);
    return g_strdup(g_file_test(system[0], G_FILE_TEST_EXISTS) ? system[0] : system[1]);
}

static GIOStream *connect_to(const struct place *p, GSocketConnectable *where, GError **error)
{
    g_autoptr(GSocketClient) client = g_socket_client_new();
    g_socket_client_set_timeout(client, p->timeout_s);
    g_socket_client_set_enable_proxy(client, FALSE);
    GSocketConnection *c = g_socket_client_connect(client, where, NULL, error);
    return c ? G_IO_STREAM(c) : NULL;
}

static GIOStream *open_unix(const struct place *p, struct peer_link *l, GError **error)
{
    g_autofree char *usual = default_socket(p);
    const char *path = param(p, "socket") ? param(p, "socket") : usual;
    g_autoptr(GSocketAddress) address = g_unix_socket_address_new(path);
    return connect_to(p, G_SOCKET_CONNECTABLE(address), error);
}

/* ---- TCP, TLS ---- */

static GIOStream *open_port(const struct place *p, int usual, GError **error)
{
    int port = g_uri_get_port(p->uri) > 0 ? g_uri_get_port(p->uri) : usual;
    g_autoptr(GSocketConnectable) where =
        g_network_address_new(host_of(p) ? host_of(p) : "localhost", (guint16)port);
    return connect_to(p, where, error);
}

static GIOStream *open_tcp(const struct place *p, struct peer_link *l, GError **error)
{
    return open_port(p, PORT_TCP, error);
}

/* A file of `pkipath`, of our settings, or where libvirt's clients have theirs. */
static char *pki(const struct place *p, const char *name, const char *ours, const char *usual)
{
    if (param(p, "pkipath"))
        return g_build_filename(param(p, "pkipath"), name, NULL);
    return g_strdup(ours ? ours : usual);
}

static gboolean accept_any(GTlsConnection *c, GTlsCertificate *cert, GTlsCertificateFlags errors,
                           gpointer opaque)
{
    return TRUE;
}

static bool shake_hands(const struct place *p, GTlsConnection *tls, GError **error)
{
    const struct libvirt_server_config *s = server_config();
    g_autofree char *ca = pki(p, "cacert.pem", s ? s->tls_ca : NULL, "/etc/pki/CA/cacert.pem"),
                    *crt = pki(p, "clientcert.pem", s ? s->tls_cert : NULL,
                               "/etc/pki/libvirt/clientcert.pem"),
                    *key = pki(p, "clientkey.pem", s ? s->tls_key : NULL,
                               "/etc/pki/libvirt/private/clientkey.pem");
    g_autoptr(GTlsDatabase) trusted = g_tls_file_database_new(ca, error);
    if (!trusted)
        return false;
    g_tls_connection_set_database(tls, trusted);
    if (g_file_test(crt, G_FILE_TEST_EXISTS)) {
        g_autoptr(GTlsCertificate) own = g_tls_certificate_new_from_files(crt, key, error);
        if (!own)
            return false;
        g_tls_connection_set_certificate(tls, own);
    }
    if (!g_strcmp0(param(p, "no_verify"), "1"))
        g_signal_connect(tls, "accept-certificate", G_CALLBACK(accept_any), NULL);
    return g_tls_connection_handshake(tls, NULL, error);
}

static GIOStream *open_tls(const struct place *p, struct peer_link *l, GError **error)
{
    g_autoptr(GIOStream) below = open_port(p, PORT_TLS, error);
    char welcome = 0;
    gsize n = 0;
    if (!below)
        return NULL;
    g_autoptr(GSocketConnectable) name = g_network_address_new(host_of(p), PORT_TLS);
    g_autoptr(GIOStream) tls = g_tls_client_connection_new(below, name, error);
    if (!tls || !shake_hands(p, G_TLS_CONNECTION(tls), error) ||
        !g_input_stream_read_all(g_io_stream_get_input_stream(tls), &welcome, 1, &n, NULL, error))
        return NULL;
    l->socket = g_object_ref(g_socket_connection_get_socket(G_SOCKET_CONNECTION(below)));
    if (n == 1 && welcome == 1)
        return g_steal_pointer(&tls);
    ruche_error(error, RUCHE_ERR_IO, "it does not let our certificate in");
    return NULL;
}

/* ---- ssh ---- */

/* The other host's shell finds the socket, and a program carries the bytes. */
static char *remote_command(const struct place *p)
{
    const char *netcat = param(p, "netcat") ? param(p, "netcat") : "nc";
    g_autofree char *program = g_shell_quote(netcat);
    if (param(p, "socket")) {
        g_autofree char *path = g_shell_quote(param(p, "socket"));
        return g_strdup_printf("exec %s -U %s", program, path);
    }
    if (is_session(p))
        return g_strdup_printf(
            "exec %s -U \"${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/libvirt/libvirt-sock\"", program);
    return g_strdup_printf(
        "s=/run/libvirt/libvirt-sock; [ -S $s ] || s=/run/ruche/libvirt-sock; exec %s -U $s",
        program);
}

static GIOStream *open_ssh(const struct place *p, struct peer_link *l, GError **error)
{
    int fds[2];
    g_autofree char *command = remote_command(p), *port = NULL;
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    const char *const begin[] = {"ssh", "-T", "-e", "none", "-o", "BatchMode=yes"};
    for (unsigned i = 0; i < G_N_ELEMENTS(begin); i++)
        g_ptr_array_add(argv, (char *)begin[i]);
    const struct {
        const char *option, *value;
    } rows[] = {{"-l", g_uri_get_user(p->uri)}, {"-i", param(p, "keyfile")}};
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++)
        if (rows[i].value) {
            g_ptr_array_add(argv, (char *)rows[i].option);
            g_ptr_array_add(argv, (char *)rows[i].value);
        }
    if (g_uri_get_port(p->uri) > 0) {
        port = g_strdup_printf("%d", g_uri_get_port(p->uri));
        g_ptr_array_add(argv, (char *)"-p");
        g_ptr_array_add(argv, port);
    }
    g_ptr_array_add(argv, (char *)"--");
    g_ptr_array_add(argv, (char *)(host_of(p) ? host_of(p) : "localhost"));
    g_ptr_array_add(argv, command);
    g_ptr_array_add(argv, NULL);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) {
        ruche_error_errno(error, errno, "a pair of sockets");
        return NULL;
    }
    g_autoptr(GSubprocessLauncher) launcher = g_subprocess_launcher_new(G_SUBPROCESS_FLAGS_NONE);
    g_subprocess_launcher_take_stdin_fd(launcher, dup(fds[1]));
    g_subprocess_launcher_take_stdout_fd(launcher, fds[1]);
    l->ssh = g_subprocess_launcher_spawnv(launcher, (const gchar *const *)argv->pdata, error);
    g_autoptr(GSocket) s = l->ssh ? g_socket_new_from_fd(fds[0], error) : NULL;
    if (!s) {
        close(fds[0]);
        return NULL;
    }
    g_socket_set_timeout(s, p->timeout_s);
    return G_IO_STREAM(g_socket_connection_factory_create_connection(s));
}

/* ---- all of them ---- */

static const struct {
    const char *name;
    GIOStream *(*open)(const struct place *p, struct peer_link *l, GError **error);
} transports[] = {{"unix", open_unix}, {"tcp", open_tcp}, {"tls", open_tls}, {"ssh", open_ssh}};

static GIOStream *open_by(const struct place *p, struct peer_link *l, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(transports); i++)
        if (!strcmp(p->transport, transports[i].name))
            return transports[i].open(p, l, error);
    ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                "there is no transport '%s'; unix, tcp, tls and ssh are", p->transport);
    return NULL;
}

bool peer_link_open(const char *uri, unsigned timeout_s, struct peer_link *ret, GError **error)
{
    struct place p = {.timeout_s = timeout_s};
    struct peer_link l = {0};
    g_autoptr(GError) why = NULL;
    if (parse(uri, &p, &why))
        l.stream = open_by(&p, &l, &why);
    if (l.stream) {
        if (!l.socket)
            l.socket = g_object_ref(g_socket_connection_get_socket(G_SOCKET_CONNECTION(l.stream)));
        l.open_name = g_strdup_printf("%s://%s", p.driver, g_uri_get_path(p.uri));
        *ret = l;
    } else {
        ruche_error(error, RUCHE_ERR_IO, "'%s' cannot be reached: %s", uri, why->message);
        peer_link_close(&l);
    }
    place_done(&p);
    return ret->stream != NULL;
}

void peer_link_close(struct peer_link *l)
{
    if (l->stream)
        g_io_stream_close(l->stream, NULL, NULL);
    g_clear_object(&l->stream);
    g_clear_object(&l->socket);
    if (l->ssh)
        g_subprocess_force_exit(l->ssh);
    g_clear_object(&l->ssh);
    g_clear_pointer(&l->open_name, g_free);
}
