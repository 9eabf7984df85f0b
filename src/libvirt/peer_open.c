/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Transports of a client: Unix sockets, TCP, TLS, ssh. Thread: a worker. */
#include "libvirt/peer_open.h"

#include "base/fd.h"
#include "libvirt/client.h"
#include "libvirt/sasl.h"

#include <fcntl.h>
#include <gio/gunixsocketaddress.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT_TCP 16509
#define PORT_TLS 16514
#define COMPLAINTS_MAX 1024 /* bytes; what is more is lost */

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

/* Whoever answers is taken for the host. */
static bool is_unchecked(const struct place *p)
{
    return !g_strcmp0(param(p, "no_verify"), "1");
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
    l->local = true;
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
    if (is_unchecked(p))
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
    g_autoptr(GSocketConnectable) name = g_network_address_new(l->host, PORT_TLS);
    g_autoptr(GIOStream) tls = g_tls_client_connection_new(below, name, error);
    if (!tls || !shake_hands(p, G_TLS_CONNECTION(tls), error) ||
        !g_input_stream_read_all(g_io_stream_get_input_stream(tls), &welcome, 1, &n, NULL, error))
        return NULL;
    l->socket = g_object_ref(g_socket_connection_get_socket(G_SOCKET_CONNECTION(below)));
    l->checked_tls = !is_unchecked(p);
    if (n == 1 && welcome == 1)
        return g_steal_pointer(&tls);
    ruche_error(error, RUCHE_ERR_IO, "it does not let our certificate in");
    return NULL;
}

/* ---- ssh ---- */

/* The other host's shell finds the socket, and a program that carries the bytes. */
static char *remote_command(const struct place *p)
{
    const char *path = param(p, "socket"), *netcat = param(p, "netcat");
    g_autofree char *quoted = path ? g_shell_quote(path) : NULL;
    g_autofree char *program = netcat ? g_shell_quote(netcat) : NULL;
    g_autofree char *find =
        quoted ? g_strdup_printf("s=%s", quoted)
        : is_session(p)
            ? g_strdup("s=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/libvirt/libvirt-sock")
            : g_strdup("s=/run/libvirt/libvirt-sock; [ -S $s ] || s=/run/ruche/libvirt-sock");
    if (program)
        return g_strdup_printf("%s; exec %s -U \"$s\"", find, program);
    return g_strdup_printf("%s; if nc -h 2>&1 | grep -q -e -U; then exec nc -U \"$s\"; "
                           "elif command -v ncat >/dev/null; then exec ncat -U \"$s\"; "
                           "else exec socat - \"UNIX-CONNECT:$s\"; fi",
                           find);
}

/* Nobody is there to answer questions. A key that was not checked is not remembered, either. */
static const char *const ssh_begin[] = {"ssh", "-T", "-e", "none", "-o", "BatchMode=yes", NULL};
static const char *const ssh_unchecked[] = {
    "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
    "-o", "LogLevel=ERROR",           NULL};

static void add_words(GPtrArray *argv, const char *const *words)
{
    for (; *words; words++)
        g_ptr_array_add(argv, g_strdup(*words));
}

static GPtrArray *ssh_words(const struct place *p)
{
    GPtrArray *argv = g_ptr_array_new_with_free_func(g_free);
    int number = g_uri_get_port(p->uri);
    g_autofree char *port = number > 0 ? g_strdup_printf("%d", number) : NULL;
    const char *const options[][2] = {
        {"-l", g_uri_get_user(p->uri)}, {"-i", param(p, "keyfile")}, {"-p", port}};
    add_words(argv, ssh_begin);
    if (is_unchecked(p))
        add_words(argv, ssh_unchecked);
    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++)
        if (options[i][1])
            add_words(argv, (const char *const[]){options[i][0], options[i][1], NULL});
    add_words(argv, (const char *const[]){"--", host_of(p) ? host_of(p) : "localhost", NULL});
    g_ptr_array_add(argv, remote_command(p));
    g_ptr_array_add(argv, NULL);
    return argv;
}

/* A file for what ssh and the other host's shell complain of, which cannot grow. -1: they complain into ours. */
static int open_complaints(void)
{
    autofd fd = memfd_create("ssh", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, COMPLAINTS_MAX) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW) < 0)
        return -1;
    return fd_steal(&fd);
}

static GIOStream *open_ssh(const struct place *p, struct peer_link *l, GError **error)
{
    int fds[2];
    g_autoptr(GPtrArray) argv = ssh_words(p);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) {
        ruche_error_errno(error, errno, "a pair of sockets");
        return NULL;
    }
    g_autoptr(GSubprocessLauncher) launcher = g_subprocess_launcher_new(G_SUBPROCESS_FLAGS_NONE);
    g_subprocess_launcher_take_stdin_fd(launcher, dup(fds[1]));
    g_subprocess_launcher_take_stdout_fd(launcher, fds[1]);
    l->complaints = open_complaints();
    if (l->complaints >= 0)
        g_subprocess_launcher_take_stderr_fd(launcher, dup(l->complaints));
    l->ssh = g_subprocess_launcher_spawnv(launcher, (const gchar *const *)argv->pdata, error);
    if (!l->ssh)
        fd_close_keep_errno(l->complaints);
    l->local = true;
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
    if (parse(uri, &p, &why)) {
        l.host = g_strdup(host_of(&p) ? host_of(&p) : "localhost");
        l.user = g_strdup(g_uri_get_user(p.uri));
        l.stream = open_by(&p, &l, &why);
    }
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
    if (l->ssh) {
        g_subprocess_force_exit(l->ssh);
        fd_close_keep_errno(l->complaints);
    }
    g_clear_object(&l->ssh);
    g_clear_pointer(&l->sasl, sasl_layer_free);
    g_clear_pointer(&l->open_name, g_free);
    g_clear_pointer(&l->host, g_free);
    g_clear_pointer(&l->user, g_free);
}

/* ---- bytes ---- */

/* The last line of what ssh said is the reason; "": it said nothing. For g_free(). */
static char *complaint(const struct peer_link *l)
{
    char said[COMPLAINTS_MAX + 1] = "";
    if (!l->ssh || l->complaints < 0 || pread(l->complaints, said, COMPLAINTS_MAX, 0) <= 0)
        return g_strdup("");
    g_strchomp(said);
    const char *line = strrchr(said, '\n');
    return g_utf8_make_valid(line ? line + 1 : said, -1);
}

/* An error of the connection, and what ssh says to it. */
static bool fail(const struct peer_link *l, const GError *why, GError **error)
{
    g_autofree char *said = complaint(l);
    return ruche_error(error, RUCHE_ERR_IO, "%s%s%s", why->message, *said ? "; ssh: " : "", said);
}

bool peer_link_write(struct peer_link *l, const void *data, size_t len, GError **error)
{
    GOutputStream *out = g_io_stream_get_output_stream(l->stream);
    g_autoptr(GError) why = NULL;
    if (!l->sasl)
        return g_output_stream_write_all(out, data, len, NULL, NULL, &why) || fail(l, why, error);
    for (size_t done = 0, n; done < len; done += n) {
        const char *encoded;
        unsigned bytes;
        n = len - done;
        if (sasl_layer_encode(l->sasl, (const char *)data + done, &n, &encoded, &bytes) < 0)
            return ruche_error(error, RUCHE_ERR_IO, "what is to be sent cannot be protected");
        if (!g_output_stream_write_all(out, encoded, bytes, NULL, NULL, error))
            return false;
    }
    return true;
}

static bool ended(GError **error)
{
    return ruche_error(error, RUCHE_ERR_IO, "the connection ended");
}

static bool read_protected(struct peer_link *l, void *to, size_t len, GError **error)
{
    GInputStream *in = g_io_stream_get_input_stream(l->stream);
    for (size_t done = 0; done < len;) {
        char raw[16384];
        ssize_t n = sasl_layer_pending(l->sasl, (char *)to + done, len - done);
        done += (size_t)n;
        if (n)
            continue;
        gssize got = g_input_stream_read(in, raw, sizeof(raw), NULL, error);
        if (got <= 0)
            return got == 0 && ended(error);
        if (sasl_layer_decode(l->sasl, raw, (size_t)got) < 0)
            return ruche_error(error, RUCHE_ERR_IO, "what came is not protected as was agreed");
    }
    return true;
}

bool peer_link_read(struct peer_link *l, void *to, size_t len, GError **error)
{
    gsize n = 0;
    g_autoptr(GError) why = NULL;
    if (l->sasl)
        return read_protected(l, to, len, error);
    GInputStream *in = g_io_stream_get_input_stream(l->stream);
    return (g_input_stream_read_all(in, to, len, &n, NULL, &why) && (n == len || ended(&why))) ||
           fail(l, why, error);
}
