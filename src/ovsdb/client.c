/* SPDX-License-Identifier: GPL-2.0-or-later */
/* OVSDB, the client's end; see client.h.
 *
 * Answers come in any order and are known by their numbers. A call that is given up is forgotten;
 * an answer to it that comes later is passed over.
 */
#include "ovsdb/client.h"

#include "base/fd.h"
#include "base/fiber.h"
#include "base/json_frame.h"
#include "base/sock.h"
#include "ovsdb/message.h"
#include "ovsdb/tls.h"

#include <glib-unix.h>
#include <string.h>
#include <sys/socket.h>

#define READ_CHUNK     16384
#define MAX_CALLS      256
#define MAX_OUTPUT     (OVSDB_MESSAGE_MAX + (1u << 20)) /* that the server does not read */
#define MAX_ERROR_TEXT 400                              /* of what a server says, into a sentence */

G_DEFINE_QUARK(ovsdb - client - error, ovsdb_client_error)

/* A fiber that waits for an answer or a descriptor, not for ever. On its stack. */
struct wait {
    struct fiber *waiter;
    guint timer, source;
    bool late;
};

struct call {
    struct wait wait;
    int64_t id;
    bool done;
    struct ovsdb_message answer;
    char *why; /* the connection is over */
};

struct ovsdb_client {
    unsigned refs;
    char *address, *host, *port, *path; /* the parts of the address; path: of a Unix socket */
    bool secure;                        /* by TLS */
    struct ovsdb_tls_files files;
    struct ovsdb_tls *tls; /* of the connection that there is */
    int fd;                /* -1: not connected */
    bool connected, freed;
    guint in_source, out_source;
    struct frame frame;
    GString *out;
    size_t sent;       /* of out */
    GHashTable *calls; /* id to struct call, on their fibers' stacks */
    int64_t next_id;
    struct fiber_mutex connecting;
    struct ovsdb_client_ops ops;
    void *opaque;
};

static void client_unref(struct ovsdb_client *c)
{
    if (--c->refs)
        return;
    frame_done(&c->frame);
    g_hash_table_unref(c->calls);
    g_string_free(c->out, TRUE);
    g_free(c->address);
    g_free(c->host);
    g_free(c->port);
    g_free(c->path);
    g_free(c->files.key);
    g_free(c->files.certificate);
    g_free(c->files.ca);
    g_free(c);
}

/* ---- waiting ---- */

static void wait_end(struct wait *w)
{
    g_clear_handle_id(&w->timer, g_source_remove);
    if (w->waiter)
        fiber_wake(g_steal_pointer(&w->waiter));
}

static gboolean wait_late(gpointer opaque)
{
    struct wait *w = opaque;
    w->timer = 0;
    w->late = true;
    wait_end(w);
    return G_SOURCE_REMOVE;
}

static gboolean wait_ready(int fd, GIOCondition condition, gpointer opaque)
{
    struct wait *w = opaque;
    w->source = 0;
    wait_end(w);
    return G_SOURCE_REMOVE;
}

static void wait_for(struct wait *w, int timeout_ms)
{
    w->waiter = fiber_self();
    g_assert(w->waiter);
    w->timer = g_timeout_add((guint)timeout_ms, wait_late, w);
    fiber_wait();
}

/* ---- the end of a connection ---- */

static void hang_up(struct ovsdb_client *c, const char *why)
{
    if (c->fd < 0)
        return;
    bool told = c->connected;
    g_clear_handle_id(&c->in_source, g_source_remove);
    g_clear_handle_id(&c->out_source, g_source_remove);
    g_clear_pointer(&c->tls, ovsdb_tls_free);
    fd_close_keep_errno(fd_steal(&c->fd));
    c->connected = false;
    g_string_truncate(c->out, 0);
    c->sent = 0;
    /* Whoever wakes may call again. */
    g_autoptr(GList) calls = g_hash_table_get_values(c->calls);
    g_hash_table_remove_all(c->calls);
    for (GList *l = calls; l; l = l->next) {
        struct call *k = l->data;
        k->done = true;
        k->why = g_strdup(why);
        wait_end(&k->wait);
    }
    if (told && !c->freed && c->ops.closed)
        c->ops.closed(c->opaque, why);
}

void ovsdb_client_free(struct ovsdb_client *c)
{
    if (!c)
        return;
    c->freed = true;
    hang_up(c, "the connection was given up");
    client_unref(c);
}

/* ---- output ---- */

static gboolean writable(int fd, GIOCondition condition, gpointer opaque);

/* Bytes, or a negative errno. */
static ssize_t put_bytes(const struct ovsdb_client *c, const char *data, size_t len)
{
    if (c->tls)
        return ovsdb_tls_send(c->tls, data, len);
    ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    return n < 0 ? -errno : n;
}

static ssize_t take_bytes(const struct ovsdb_client *c, char *buf, size_t len)
{
    if (c->tls)
        return ovsdb_tls_receive(c->tls, buf, len);
    ssize_t n = read(c->fd, buf, len);
    return n < 0 ? -errno : n;
}

/* `why` is freed with the connection. */
static void break_off(struct ovsdb_client *c, ssize_t err)
{
    g_autofree char *why = g_strdup(err && err != -EPROTO ? g_strerror((int)-err)
                                    : err && c->tls       ? ovsdb_tls_why(c->tls)
                                                          : "the server closed the connection");
    hang_up(c, why);
}

static void flush(struct ovsdb_client *c)
{
    while (c->fd >= 0 && c->sent < c->out->len) {
        ssize_t n = put_bytes(c, c->out->str + c->sent, c->out->len - c->sent);
        if (n == -EINTR)
            continue;
        if (n == -EAGAIN) {
            if (!c->out_source)
                c->out_source = g_unix_fd_add(c->fd, G_IO_OUT, writable, c);
            return;
        }
        if (n < 0) {
            break_off(c, n);
            return;
        }
        c->sent += (size_t)n;
    }
    g_string_truncate(c->out, 0);
    c->sent = 0;
}

static gboolean writable(int fd, GIOCondition condition, gpointer opaque)
{
    struct ovsdb_client *c = opaque;
    c->out_source = 0;
    flush(c);
    return G_SOURCE_REMOVE;
}

static bool send_text(struct ovsdb_client *c, const char *text)
{
    if (c->fd < 0 || c->out->len - c->sent + strlen(text) > MAX_OUTPUT)
        return false;
    g_string_append(c->out, text);
    flush(c);
    return true;
}

/* ---- input ---- */

/* A server asks whether we are there; anything else it has no reason to ask. */
static const char *answer_request(struct ovsdb_client *c, const struct ovsdb_message *m)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_ARRAY), wrong = NULL;
    json_node_set_array(node, m->params);
    bool echo = !strcmp(m->method, "echo");
    if (!echo)
        wrong = json_node_init_string(json_node_alloc(), "unknown method");
    g_autofree char *text = ovsdb_response_text(m->id, echo ? node : NULL, wrong);
    return send_text(c, text) ? NULL : "the server asks and does not read answers";
}

static const char *take_response(struct ovsdb_client *c, struct ovsdb_message *m)
{
    bool number = JSON_NODE_HOLDS_VALUE(m->id) && json_node_get_value_type(m->id) == G_TYPE_INT64;
    int64_t id = number ? json_node_get_int(m->id) : -1;
    if (id < 0 || id >= c->next_id)
        return "the server answered what it was not asked";
    struct call *k = g_hash_table_lookup(c->calls, &id);
    if (!k) /* given up */
        return NULL;
    g_hash_table_remove(c->calls, &k->id);
    k->answer = *m;
    m->root = NULL;
    k->done = true;
    wait_end(&k->wait);
    return NULL;
}

static const char *take_text(struct ovsdb_client *c)
{
    struct ovsdb_message m;
    const char *why = ovsdb_message_parse(&m, c->frame.text->str, c->frame.text->len);
    if (why)
        return why;
    if (m.kind == OVSDB_RESPONSE)
        why = take_response(c, &m);
    else if (m.kind == OVSDB_REQUEST)
        why = answer_request(c, &m);
    else if (c->ops.notify)
        c->ops.notify(c->opaque, m.method, m.params);
    ovsdb_message_done(&m);
    return why;
}

/* Until the bytes are used, or the connection is not the same any more. */
static void receive(struct ovsdb_client *c, const char *data, size_t len)
{
    guint source = c->in_source;
    while (len && c->in_source == source) {
        const char *why = NULL;
        enum frame_result r = frame_feed(&c->frame, &data, &len, &why);
        if (r == FRAME_TEXT)
            why = take_text(c);
        if (r != FRAME_MORE && why && c->in_source == source)
            hang_up(c, why);
    }
}

static gboolean readable(int fd, GIOCondition condition, gpointer opaque)
{
    struct ovsdb_client *c = opaque;
    char buf[READ_CHUNK];
    guint source = c->in_source;
    c->refs++;
    do {
        ssize_t n = take_bytes(c, buf, sizeof(buf));
        if (n == -EAGAIN || n == -EINTR)
            break;
        if (n > 0)
            receive(c, buf, (size_t)n);
        else
            break_off(c, n);
    } while (c->in_source == source && c->tls && ovsdb_tls_pending(c->tls));
    bool go_on = c->in_source == source; /* not another connection's by now */
    client_unref(c);
    return go_on;
}

/* ---- connecting ---- */

static bool unreachable(const struct ovsdb_client *c, const char *why, GError **error)
{
    g_set_error(error, OVSDB_CLIENT_ERROR, OVSDB_ERR_UNREACHABLE, "%s: %s", c->address, why);
    return false;
}

/* False: not in time. */
static bool wait_until(int fd, GIOCondition condition, int64_t until)
{
    struct wait w = {0};
    int left = (int)MAX((until - g_get_monotonic_time()) / 1000, 1);
    w.source = g_unix_fd_add(fd, condition | G_IO_ERR | G_IO_HUP, wait_ready, &w);
    wait_for(&w, left);
    g_clear_handle_id(&w.source, g_source_remove);
    return !w.late;
}

/* A descriptor that may still be connecting. */
static bool finish_connect(const struct ovsdb_client *c, int fd, int64_t until, GError **error)
{
    int err = wait_until(fd, G_IO_OUT, until) ? -sock_connect_result(fd) : ETIMEDOUT;
    return !err || unreachable(c, g_strerror(err), error);
}

/* The session; NULL with *error. */
static struct ovsdb_tls *shake_hands(const struct ovsdb_client *c, int fd, int64_t until,
                                     GError **error)
{
    g_autoptr(GError) files = NULL;
    struct ovsdb_tls *t = ovsdb_tls_new(&c->files, fd, &files);
    bool out = false, late = false;
    int rc = t ? -EAGAIN : 0;
    while (rc == -EAGAIN && (rc = ovsdb_tls_handshake(t, &out)) == -EAGAIN && !late && !c->freed)
        late = g_get_monotonic_time() >= until || !wait_until(fd, out ? G_IO_OUT : G_IO_IN, until);
    if (t && !rc && !c->freed)
        return t;
    g_set_error(error, OVSDB_CLIENT_ERROR, late ? OVSDB_ERR_SILENT : OVSDB_ERR_BROKEN, "%s: %s",
                c->address,
                !t         ? files->message
                : c->freed ? "the connection was given up"
                : late     ? "TLS did not begin in time"
                           : ovsdb_tls_why(t));
    ovsdb_tls_free(t);
    return NULL;
}

static bool connect_now(struct ovsdb_client *c, int timeout_ms, GError **error)
{
    g_autoptr(GError) why = NULL;
    int64_t until = g_get_monotonic_time() + (int64_t)timeout_ms * 1000;
    autofd fd = c->path ? sock_connect_unix(c->path, true, &why)
                        : sock_connect_tcp(c->host, c->port, true, &why);
    if (fd < 0)
        return unreachable(c, why->message, error);
    sock_set_nonblock(fd, true);
    if (!finish_connect(c, fd, until, error))
        return false;
    if (c->freed)
        return unreachable(c, "the connection was given up", error);
    struct ovsdb_tls *tls = c->secure ? shake_hands(c, fd, until, error) : NULL;
    if (c->secure && !tls)
        return false;
    frame_done(&c->frame);
    frame_init(&c->frame, OVSDB_MESSAGE_MAX, OVSDB_DEPTH_MAX);
    c->fd = fd_steal(&fd);
    c->tls = tls;
    c->connected = true;
    c->in_source = g_unix_fd_add(c->fd, G_IO_IN | G_IO_HUP | G_IO_ERR, readable, c);
    return true;
}

static bool ensure_connected(struct ovsdb_client *c, int timeout_ms, GError **error)
{
    fiber_mutex_lock(&c->connecting);
    bool ok = c->fd >= 0 || connect_now(c, timeout_ms, error);
    fiber_mutex_unlock(&c->connecting);
    return ok;
}

/* ---- calls ---- */

static void set_refusal(const struct ovsdb_client *c, JsonNode *wrong, GError **error)
{
    g_autofree char *text = json_to_string(wrong, FALSE);
    g_set_error(error, OVSDB_CLIENT_ERROR, OVSDB_ERR_REFUSED, "%s: %.*s", c->address,
                MAX_ERROR_TEXT, text);
}

static JsonNode *take_answer(const struct ovsdb_client *c, struct call *k, int timeout_ms,
                             GError **error)
{
    JsonNode *result = NULL;
    if (!k->done)
        g_set_error(error, OVSDB_CLIENT_ERROR, OVSDB_ERR_SILENT, "%s: no answer within %d ms",
                    c->address, timeout_ms);
    else if (k->why)
        g_set_error(error, OVSDB_CLIENT_ERROR, OVSDB_ERR_BROKEN, "%s: %s", c->address, k->why);
    else if (k->answer.error)
        set_refusal(c, k->answer.error, error);
    else
        result = k->answer.result ? json_node_ref(k->answer.result) : json_node_new(JSON_NODE_NULL);
    ovsdb_message_done(&k->answer);
    g_free(k->why);
    return result;
}

/* The text goes out under the number k->id. */
static JsonNode *exchange(struct ovsdb_client *c, struct call *k, const char *text, int timeout_ms,
                          GError **error)
{
    int64_t until = g_get_monotonic_time() + (int64_t)timeout_ms * 1000;
    if (!ensure_connected(c, timeout_ms, error))
        return NULL;
    int left = (int)MAX((until - g_get_monotonic_time()) / 1000, 1);
    g_hash_table_insert(c->calls, &k->id, k);
    if (g_hash_table_size(c->calls) > MAX_CALLS || !send_text(c, text)) {
        g_hash_table_remove(c->calls, &k->id);
        if (k->done)
            return take_answer(c, k, timeout_ms, error);
        g_set_error(error, OVSDB_CLIENT_ERROR, OVSDB_ERR_BROKEN,
                    "%s: the server leaves too much unread or unanswered", c->address);
        return NULL;
    }
    if (!k->done)
        wait_for(&k->wait, left);
    if (!k->done)
        g_hash_table_remove(c->calls, &k->id);
    return take_answer(c, k, timeout_ms, error);
}

JsonNode *ovsdb_client_call(struct ovsdb_client *c, const char *method, JsonArray *params,
                            int timeout_ms, GError **error)
{
    struct call k = {.id = c->next_id++};
    g_autofree char *text = ovsdb_request_text(method, params, k.id);
    c->refs++;
    JsonNode *result = exchange(c, &k, text, timeout_ms, error);
    client_unref(c);
    return result;
}

/* ---- transactions ---- */

static const char *string_in(JsonObject *o, const char *name)
{
    JsonNode *n = json_object_get_member(o, name);
    return n && JSON_NODE_HOLDS_VALUE(n) && json_node_get_value_type(n) == G_TYPE_STRING
               ? json_node_get_string(n)
               : NULL;
}

/* Each operation has its result; behind the last one there may be the commit's error. */
static bool check_results(const struct ovsdb_client *c, JsonArray *results, unsigned count,
                          GError **error)
{
    unsigned got = json_array_get_length(results);
    for (unsigned i = 0; i < got; i++) {
        JsonNode *n = json_array_get_element(results, i);
        JsonObject *o = JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
        const char *wrong = o ? string_in(o, "error") : NULL,
                   *details = o ? string_in(o, "details") : NULL;
        if (wrong) {
            g_set_error(error, OVSDB_CLIENT_ERROR, OVSDB_ERR_REFUSED, "%s: %.*s%s%.*s", c->address,
                        MAX_ERROR_TEXT, wrong, details ? ": " : "", MAX_ERROR_TEXT,
                        details ? details : "");
            return false;
        }
        if (!o && i < count) {
            g_set_error(error, OVSDB_CLIENT_ERROR, OVSDB_ERR_REFUSED,
                        "%s: operation %u was not carried out", c->address, i);
            return false;
        }
    }
    if (got >= count)
        return true;
    g_set_error(error, OVSDB_CLIENT_ERROR, OVSDB_ERR_REFUSED, "%s: %u operations have %u results",
                c->address, count, got);
    return false;
}

JsonArray *ovsdb_client_transact(struct ovsdb_client *c, const char *db, JsonArray *operations,
                                 int timeout_ms, GError **error)
{
    JsonArray *params = json_array_new();
    unsigned count = json_array_get_length(operations);
    json_array_add_string_element(params, db);
    for (unsigned i = 0; i < count; i++)
        json_array_add_element(params, json_array_dup_element(operations, i));
    json_array_unref(operations);
    c->refs++;
    g_autoptr(JsonNode) result = ovsdb_client_call(c, "transact", params, timeout_ms, error);
    JsonArray *results =
        result && JSON_NODE_HOLDS_ARRAY(result) ? json_node_dup_array(result) : NULL;
    if (result && !results)
        g_set_error(error, OVSDB_CLIENT_ERROR, OVSDB_ERR_REFUSED,
                    "%s: the results of a transaction are not an array", c->address);
    if (results && !check_results(c, results, count, error))
        g_clear_pointer(&results, json_array_unref);
    client_unref(c);
    return results;
}

/* ---- the beginning ---- */

/* "IP:PORT" or "[IP]:PORT"; numbers only, so that no look-up blocks. */
static bool read_tcp(struct ovsdb_client *c, const char *text)
{
    const char *colon = strrchr(text, ':');
    size_t len = colon ? (size_t)(colon - text) : 0;
    bool brackets = len > 2 && text[0] == '[' && colon[-1] == ']';
    guint64 port;
    if (!colon || !g_ascii_string_to_unsigned(colon + 1, 10, 1, 65535, &port, NULL))
        return false;
    c->host = brackets ? g_strndup(text + 1, len - 2) : g_strndup(text, len);
    c->port = g_strdup(colon + 1);
    return g_hostname_is_ip_address(c->host);
}

static bool read_address(struct ovsdb_client *c, GError **error)
{
    const char *a = c->address;
    if (g_str_has_prefix(a, "unix:") && a[5]) {
        c->path = g_strdup(a + 5);
        return true;
    }
    c->secure = g_str_has_prefix(a, "ssl:");
    if ((c->secure || g_str_has_prefix(a, "tcp:")) && read_tcp(c, a + 4))
        return true;
    return ruche_error(error, RUCHE_ERR_INVALID,
                       "'%.200s' is not unix:PATH, tcp:IP:PORT or ssl:IP:PORT", a);
}

void ovsdb_client_set_tls(struct ovsdb_client *c, const struct ovsdb_tls_files *f)
{
    g_free(c->files.key);
    g_free(c->files.certificate);
    g_free(c->files.ca);
    c->files =
        (struct ovsdb_tls_files){g_strdup(f->key), g_strdup(f->certificate), g_strdup(f->ca)};
}

struct ovsdb_client *ovsdb_client_new(const char *address, const struct ovsdb_client_ops *ops,
                                      void *opaque, GError **error)
{
    struct ovsdb_client *c = g_new0(struct ovsdb_client, 1);
    *c = (struct ovsdb_client){.refs = 1, .fd = -1, .address = g_strdup(address), .opaque = opaque};
    if (ops)
        c->ops = *ops;
    c->out = g_string_new(NULL);
    c->calls = g_hash_table_new(g_int64_hash, g_int64_equal);
    frame_init(&c->frame, OVSDB_MESSAGE_MAX, OVSDB_DEPTH_MAX);
    if (read_address(c, error))
        return c;
    ovsdb_client_free(c);
    return NULL;
}
