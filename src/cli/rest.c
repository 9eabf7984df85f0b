/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The REST interface's client: libsoup over a Unix socket or HTTPS. */
#include "cli/rest.h"

#include "base/fd.h"
#include "base/sock.h"
#include "base/util.h"

#include <fcntl.h>
#include <gio/gunixsocketaddress.h>
#include <string.h>
#include <unistd.h>

#define START_WAIT_MS 10000
#define START_LOOK_MS 20

struct rest {
    SoupSession *session;
    char *base;  /* "http://ruche", "https://host:port" */
    char *token; /* NULL: none */
    GTlsCertificate *cert; /* NULL: none */
};

static char *socket_of(bool system)
{
    return system ? g_strdup("/run/ruche/ruche.sock")
                  : g_build_filename(g_get_user_runtime_dir(), "ruche", "ruche.sock", NULL);
}

static bool answers(const char *path)
{
    int fd = sock_connect_unix(path, false, NULL);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* ruched beside us, else in PATH. */
static char *find_ruched(void)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *dir = self ? g_path_get_dirname(self) : g_strdup(".");
    g_autofree char *beside = g_build_filename(dir, "ruched", NULL);
    return access(beside, X_OK) == 0 ? g_steal_pointer(&beside) : g_find_program_in_path("ruched");
}

/* Does a manager live that looks after this folder? It holds the lock of ruched.pid while it does. */
static bool is_held(const char *folder)
{
    g_autofree char *path = g_build_filename(folder, "ruched.pid", NULL);
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    autofd fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && !fcntl(fd, F_GETLK, &lock) && lock.l_type != F_UNLCK;
}

/* Another `ruche` may have started one a moment before: its manager tells nobody but that one when it is ready, so it
 * is asked after each pause, as long as it lives. */
static bool another_comes(const char *path)
{
    g_autofree char *folder = g_path_get_dirname(path);
    for (int waited = 0; waited < START_WAIT_MS; waited += START_LOOK_MS) {
        if (answers(path))
            return true;
        if (!is_held(folder))
            return false;
        g_usleep(START_LOOK_MS * 1000);
    }
    return false;
}

/* A person's own manager starts when it is needed. With --daemon its parent ends when all is ready, or nothing will be. */
static bool start_session(const char *path, GError **error)
{
    g_autofree char *program = find_ruched();
    if (!program)
        return ruche_error(error, RUCHE_ERR_NOT_FOUND, "the program 'ruched' is neither beside 'ruche' nor in PATH");
    char *argv[] = { program, (char *)"--session", (char *)"--daemon", NULL };
    g_autofree char *said = NULL;
    int status = 0;
    if (!g_spawn_sync(NULL, argv, NULL, G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL, NULL, &said, &status, error))
        return false;
    if (status ? another_comes(path) : answers(path))
        return true;
    return ruche_error(error, RUCHE_ERR_IO, "ruched was started and does not answer on %s%s%s", path, said && *said ? ": " : "",
                       said ? g_strchomp(said) : "");
}

static bool reach(const char *path, bool own, GError **error)
{
    if (answers(path))
        return true;
    if (own)
        return start_session(path, error);
    return ruche_error(error, RUCHE_ERR_IO, "no manager answers on %s; start it with 'systemctl start ruched' or 'ruched "
                       "--system --daemon', or use --connect session", path);
}

static bool is_session(const char *connect)
{
    return connect ? !strcmp(connect, "session") : geteuid() != 0;
}

/* RUCHE_CA: whose signature the manager's certificate bears; RUCHE_CERT: our own, with its key. */
static bool trust(struct rest *r, GError **error)
{
    const char *ca = g_getenv("RUCHE_CA"), *cert = g_getenv("RUCHE_CERT");
    if (ca) {
        g_autoptr(GTlsDatabase) database = g_tls_file_database_new(ca, error);
        if (!database)
            return false;
        soup_session_set_tls_database(r->session, database);
    }
    if (cert)
        r->cert = g_tls_certificate_new_from_file(cert, error);
    return !cert || r->cert;
}

struct rest *rest_new(const char *connect, GError **error)
{
    struct rest *r = g_new0(struct rest, 1);
    if (connect && (g_str_has_prefix(connect, "https://") || g_str_has_prefix(connect, "http://"))) {
        r->base = g_strdup(connect);
        r->token = g_strdup(g_getenv("RUCHE_TOKEN"));
        r->session = soup_session_new();
        if (trust(r, error))
            return r;
        rest_free(r);
        return NULL;
    }
    bool own = is_session(connect);
    g_autofree char *path = connect && strchr(connect, '/') ? g_strdup(connect) : socket_of(!own);
    if (!reach(path, own, error)) {
        g_free(r);
        return NULL;
    }
    g_autoptr(GSocketAddress) address = g_unix_socket_address_new(path);
    r->base = g_strdup("http://ruche");
    r->session = soup_session_new_with_options("remote-connectable", address, "timeout", 0, "idle-timeout", 60, NULL);
    return r;
}

void rest_free(struct rest *r)
{
    if (!r)
        return;
    g_object_unref(r->session);
    g_free(r->base);
    g_free(r->token);
    g_clear_object(&r->cert);
    g_free(r);
}

/* Strings of the format become parts of a path: escaped, '/' too. */
static char *path_of(const char *format, va_list ap)
{
    GString *out = g_string_new(NULL);
    for (; *format; format++) {
        if (format[0] == '%' && format[1] == 's') {
            g_string_append_uri_escaped(out, va_arg(ap, const char *), NULL, FALSE);
            format++;
        } else if (format[0] == '%' && format[1] == 'u') {
            g_string_append_printf(out, "%u", va_arg(ap, unsigned));
            format++;
        } else {
            g_string_append_c(out, *format);
        }
    }
    return g_string_free(out, FALSE);
}

static SoupMessage *message_of(struct rest *r, const char *method, const char *path, GError **error)
{
    g_autofree char *url = g_strconcat(r->base, path, NULL);
    SoupMessage *msg = soup_message_new(method, url);
    if (!msg) {
        ruche_error(error, RUCHE_ERR_INVALID, "'%s' is not a URL", url);
        return NULL;
    }
    if (r->cert)
        soup_message_set_tls_client_certificate(msg, r->cert);
    g_autofree char *bearer = r->token ? g_strconcat("Bearer ", r->token, NULL) : NULL;
    if (bearer)
        soup_message_headers_append(soup_message_get_request_headers(msg), "Authorization", bearer);
    return msg;
}

/* {"error": {"message": ...}} */
static void set_error(GError **error, SoupMessage *msg, GBytes *body)
{
    size_t len;
    const char *text = g_bytes_get_data(body, &len), *said = NULL;
    g_autoptr(JsonParser) parser = json_parser_new();
    if (len && json_parser_load_from_data(parser, text, (gssize)len, NULL)) {
        JsonNode *root = json_parser_get_root(parser);
        JsonObject *o = root && JSON_NODE_HOLDS_OBJECT(root) ? json_node_get_object(root) : NULL;
        JsonObject *e = o && json_object_has_member(o, "error") ? json_object_get_object_member(o, "error") : NULL;
        said = e ? json_object_get_string_member_with_default(e, "message", NULL) : NULL;
    }
    ruche_error(error, RUCHE_ERR_IO, "%s", said ? said : soup_message_get_reason_phrase(msg));
}

static GBytes *send_message(struct rest *r, SoupMessage *msg, GError **error)
{
    g_autoptr(GBytes) body = soup_session_send_and_read(r->session, msg, NULL, error);
    if (!body)
        return NULL;
    if (!SOUP_STATUS_IS_SUCCESSFUL(soup_message_get_status(msg))) {
        set_error(error, msg, body);
        return NULL;
    }
    return g_steal_pointer(&body);
}

static void set_body(SoupMessage *msg, JsonObject *body)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(node, body);
    char *text = json_to_string(node, FALSE);
    g_autoptr(GBytes) bytes = g_bytes_new_take(text, strlen(text));
    soup_message_set_request_body_from_bytes(msg, "application/json", bytes);
}

JsonObject *rest_call(struct rest *r, const char *method, JsonObject *body, GError **error, const char *path, ...)
{
    va_list ap;
    va_start(ap, path);
    g_autofree char *where = path_of(path, ap);
    va_end(ap);
    g_autoptr(SoupMessage) msg = message_of(r, method, where, error);
    if (!msg) {
        g_clear_pointer(&body, json_object_unref);
        return NULL;
    }
    if (body)
        set_body(msg, body);
    g_autoptr(GBytes) answer = send_message(r, msg, error);
    g_autoptr(JsonParser) parser = json_parser_new();
    size_t len;
    if (!answer || !json_parser_load_from_data(parser, g_bytes_get_data(answer, &len), (gssize)g_bytes_get_size(answer), error))
        return NULL;
    JsonNode *root = json_parser_get_root(parser);
    if (!root || !JSON_NODE_HOLDS_OBJECT(root)) {
        ruche_error(error, RUCHE_ERR_INTERNAL, "%s: the answer is not an object", where);
        return NULL;
    }
    return json_node_dup_object(root);
}

const char *yes_no(JsonObject *o, const char *name)
{
    return json_object_get_boolean_member(o, name) ? "yes" : "no";
}

const char *text_of(JsonObject *o, const char *name)
{
    return json_object_get_string_member_with_default(o, name, NULL);
}

char *rest_text(struct rest *r, GError **error, const char *path, ...)
{
    va_list ap;
    va_start(ap, path);
    g_autofree char *where = path_of(path, ap);
    va_end(ap);
    g_autoptr(SoupMessage) msg = message_of(r, "GET", where, error);
    g_autoptr(GBytes) answer = msg ? send_message(r, msg, error) : NULL;
    return answer ? g_strndup(g_bytes_get_data(answer, NULL), g_bytes_get_size(answer)) : NULL;
}

GInputStream *rest_stream(struct rest *r, GError **error, const char *path, ...)
{
    va_list ap;
    va_start(ap, path);
    g_autofree char *where = path_of(path, ap);
    va_end(ap);
    g_autoptr(SoupMessage) msg = message_of(r, "GET", where, error);
    g_autoptr(GInputStream) in = msg ? soup_session_send(r->session, msg, NULL, error) : NULL;
    if (in && !SOUP_STATUS_IS_SUCCESSFUL(soup_message_get_status(msg))) {
        ruche_error(error, RUCHE_ERR_IO, "%s: %s", where, soup_message_get_reason_phrase(msg));
        return NULL;
    }
    return g_steal_pointer(&in);
}

struct putting {
    void (*fn)(uint64_t done, void *opaque);
    void *opaque;
    uint64_t done;
};

static void on_put(SoupMessage *msg, unsigned bytes, gpointer opaque)
{
    struct putting *p = opaque;
    p->done += bytes;
    if (p->fn)
        p->fn(p->done, p->opaque);
}

bool rest_put(struct rest *r, GInputStream *in, uint64_t length, void (*fn)(uint64_t done, void *opaque), void *opaque, GError **error,
              const char *path, ...)
{
    va_list ap;
    va_start(ap, path);
    g_autofree char *where = path_of(path, ap);
    va_end(ap);
    struct putting p = { fn, opaque, 0 };
    g_autoptr(SoupMessage) msg = message_of(r, "PUT", where, error);
    if (!msg)
        return false;
    soup_message_set_request_body(msg, "application/octet-stream", in, (gssize)length);
    g_signal_connect(msg, "wrote-body-data", G_CALLBACK(on_put), &p);
    g_autoptr(GBytes) answer = send_message(r, msg, error);
    return answer != NULL;
}

struct opening {
    SoupWebsocketConnection *socket;
    GError *error;
    bool done;
};

static void on_open(GObject *session, GAsyncResult *result, gpointer opaque)
{
    struct opening *o = opaque;
    o->socket = soup_session_websocket_connect_finish(SOUP_SESSION(session), result, &o->error);
    o->done = true;
}

SoupWebsocketConnection *rest_websocket(struct rest *r, GError **error, const char *path, ...)
{
    va_list ap;
    va_start(ap, path);
    g_autofree char *where = path_of(path, ap);
    va_end(ap);
    g_autoptr(SoupMessage) msg = message_of(r, "GET", where, error);
    struct opening o = { 0 };
    if (!msg)
        return NULL;
    soup_session_websocket_connect_async(r->session, msg, NULL, NULL, G_PRIORITY_DEFAULT, NULL, on_open, &o);
    while (!o.done)
        g_main_context_iteration(NULL, TRUE);
    if (o.error)
        g_propagate_error(error, o.error);
    return o.socket;
}
