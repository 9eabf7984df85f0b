/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests: from HTTP to a row of the table, run in place or as a task, and its result back.
 *
 * Spec      docs/rest.md. Thread: the loop thread. Trust: all of a request is the peer's.
 */
#include "web/internal.h"

#include "base/util.h"

#include <string.h>

#define REFUSED_KEY "ruche-refused"
#define WEB_MAX_REFUSED (64u << 20)

struct web_run {
    const struct web_op *op;
    SoupServerMessage *msg; /* referenced */
    struct web_request request;
};

static SoupServer *server;

static void answer_text(SoupServerMessage *msg, unsigned status, const char *type, char *text)
{
    soup_server_message_set_status(msg, status, NULL);
    soup_server_message_set_response(msg, type, SOUP_MEMORY_TAKE, text, strlen(text));
}

static void answer_json(SoupServerMessage *msg, unsigned status, JsonNode *node)
{
    g_autoptr(JsonGenerator) g = json_generator_new();
    json_generator_set_root(g, node);
    answer_text(msg, status, "application/json", json_generator_to_data(g, NULL));
}

void web_answer_error(SoupServerMessage *msg, const GError *error)
{
    const char *word;
    unsigned status = web_status(error, &word);
    JsonObject *inner = json_object_new(), *outer = json_object_new();
    json_object_set_string_member(inner, "code", word);
    json_object_set_string_member(inner, "message", error->message);
    json_object_set_object_member(outer, "error", inner);
    g_autoptr(JsonNode) node = web_node(outer);
    answer_json(msg, status, node);
    if (status == 401)
        soup_message_headers_replace(soup_server_message_get_response_headers(msg), "WWW-Authenticate", "Bearer");
}

void web_answer_empty(SoupServerMessage *msg)
{
    g_autoptr(JsonNode) node = web_node(json_object_new());
    answer_json(msg, 200, node);
}

static void run_free(struct web_run *run)
{
    json_object_unref(run->request.args);
    g_free(run->request.ret_text);
    g_object_unref(run->msg);
    g_free(run);
}

static void run_op(struct web_run *run)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) node = run->op->call(&run->request, &error);
    unsigned status = run->op->status ? run->op->status : 200;
    if (error)
        web_answer_error(run->msg, error);
    else if (run->request.ret_text)
        answer_text(run->msg, status, run->request.text_type, g_steal_pointer(&run->request.ret_text));
    else {
        if (!node)
            node = web_node(json_object_new());
        answer_json(run->msg, status, node);
    }
}

static void run_task(void *opaque)
{
    struct web_run *run = opaque;
    run_op(run);
    soup_server_message_unpause(run->msg);
    run_free(run);
}

static void add_query(JsonObject *args, GHashTable *query)
{
    GHashTableIter it;
    gpointer name, value;
    if (!query)
        return;
    g_hash_table_iter_init(&it, query);
    while (g_hash_table_iter_next(&it, &name, &value))
        if (g_utf8_validate(name, -1, NULL) && g_utf8_validate(value, -1, NULL))
            json_object_set_string_member(args, name, value);
}

static bool add_body(JsonObject *args, SoupServerMessage *msg, GError **error)
{
    g_autoptr(GBytes) body = soup_message_body_flatten(soup_server_message_get_request_body(msg));
    size_t len;
    const char *text = g_bytes_get_data(body, &len);
    if (!len)
        return true;
    const char *type = soup_message_headers_get_content_type(soup_server_message_get_request_headers(msg), NULL);
    if (!type || !strcmp(type, "application/json"))
        return web_add_json(args, text, len, error);
    if (strcmp(type, "application/xml") != 0 && strcmp(type, "text/xml") != 0)
        return ruche_error(error, RUCHE_ERR_INVALID, "a body of type '%s' is not taken; use application/json or "
                           "application/xml", type);
    if (memchr(text, 0, len) || !g_utf8_validate(text, (gssize)len, NULL))
        return ruche_error(error, RUCHE_ERR_XML_SYNTAX, "the request's body is not UTF-8 text");
    g_autofree char *copy = g_strndup(text, len);
    json_object_set_string_member(args, "xml", copy);
    return true;
}

static void answer_status(SoupServerMessage *msg, unsigned status, const char *path)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *shown = g_utf8_make_valid(path, -1);
    ruche_error(&error, status == 404 ? RUCHE_ERR_NOT_FOUND : RUCHE_ERR_UNSUPPORTED, "%s %s is no operation; GET "
                "/openapi.json lists them", soup_server_message_get_method(msg), shown);
    web_answer_error(msg, error);
    soup_server_message_set_status(msg, status, NULL);
}

static void serve(SoupServerMessage *msg, const char *path, GHashTable *query)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonObject) args = json_object_new();
    unsigned status;
    const struct web_op *op = web_route(soup_server_message_get_method(msg), path, args, &status);
    if (!op) {
        answer_status(msg, status, path);
        return;
    }
    add_query(args, query);
    /* what stands in the path stands above the query */
    web_route(soup_server_message_get_method(msg), path, args, &status);
    if (!add_body(args, msg, &error) || !web_check_args(op, args, &error)) {
        web_answer_error(msg, error);
        return;
    }
    if (op->flow == WEB_FLOW_OUT) {
        web_download(msg, args);
        return;
    }
    struct web_run *run = g_new0(struct web_run, 1);
    *run = (struct web_run){ .op = op, .msg = g_object_ref(msg), .request.who = web_caller(msg),
                             .request.args = g_steal_pointer(&args) };
    if (op->quick) {
        run_op(run);
        run_free(run);
    } else {
        soup_server_message_pause(msg);
        task_start(run_task, run);
    }
}

/* libsoup keeps connections only that it accepted itself: one of ours is for one request. */
static void say_close(SoupServerMessage *msg)
{
    soup_message_headers_replace(soup_server_message_get_response_headers(msg), "Connection", "close");
}

static void on_request(SoupServer *s, SoupServerMessage *msg, const char *path, GHashTable *query, gpointer opaque)
{
    g_autoptr(GError) error = NULL;
    say_close(msg);
    if (!web_authenticate(msg, &error))
        web_answer_error(msg, error);
    else if (!strcmp(path, "/events") && !strcmp(soup_server_message_get_method(msg), "GET"))
        web_events(msg);
    else if (!web_upload_end(msg))
        serve(msg, path, query);
}

/* Of a body that is refused: a peer that does not stop is cut off. */
static void on_refused_chunk(SoupServerMessage *msg, GBytes *chunk, gpointer opaque)
{
    size_t *total = g_object_get_data(G_OBJECT(msg), REFUSED_KEY);
    *total += g_bytes_get_size(chunk);
    if (*total > WEB_MAX_REFUSED)
        web_drop(msg);
}

void web_refuse_body(SoupServerMessage *msg)
{
    say_close(msg);
    soup_message_body_set_accumulate(soup_server_message_get_request_body(msg), FALSE);
    g_object_set_data_full(G_OBJECT(msg), REFUSED_KEY, g_new0(size_t, 1), g_free);
    g_signal_connect(msg, "got-chunk", G_CALLBACK(on_refused_chunk), NULL);
}

/* True: this is a request whose body goes into a volume, or is refused. */
static bool begin_flow(SoupServerMessage *msg, const char *path, GHashTable *query)
{
    g_autoptr(JsonObject) args = json_object_new();
    g_autoptr(GError) error = NULL;
    unsigned status;
    const struct web_op *op = web_route(soup_server_message_get_method(msg), path, args, &status);
    if (!op || op->flow != WEB_FLOW_IN)
        return false;
    add_query(args, query);
    web_route(soup_server_message_get_method(msg), path, args, &status);
    say_close(msg);
    if (web_authenticate(msg, &error) && web_check_args(op, args, &error)) {
        web_upload_begin(msg, args);
    } else {
        web_answer_error(msg, error);
        web_refuse_body(msg);
    }
    return true;
}

/* Before the body is read: too long or of unknown length, and it is not kept. */
static void on_headers(SoupServer *s, SoupServerMessage *msg, const char *path, GHashTable *query, gpointer opaque)
{
    SoupMessageHeaders *h = soup_server_message_get_request_headers(msg);
    if (soup_message_headers_get_encoding(h) == SOUP_ENCODING_CONTENT_LENGTH && begin_flow(msg, path, query))
        return;
    unsigned status = soup_message_headers_get_encoding(h) == SOUP_ENCODING_CHUNKED ? SOUP_STATUS_LENGTH_REQUIRED
                      : soup_message_headers_get_content_length(h) > (goffset)WEB_MAX_BODY ? SOUP_STATUS_REQUEST_ENTITY_TOO_LARGE
                                                                                            : 0;
    if (!status)
        return;
    soup_server_message_set_status(msg, status, NULL);
    web_refuse_body(msg);
}

static void stop(void)
{
    web_listen_stop();
    web_events_stop();
    if (server)
        soup_server_disconnect(server);
    g_clear_object(&server);
}

static bool start(const struct web_config *c, GError **error)
{
    server = soup_server_new("server-header", "ruche/" RUCHE_VERSION, NULL);
    soup_server_add_early_handler(server, NULL, on_headers, NULL, NULL);
    soup_server_add_handler(server, NULL, on_request, NULL, NULL);
    soup_server_add_websocket_handler(server, "/console", NULL, NULL, web_console, NULL, NULL);
    if (web_listen(server, c, error))
        return true;
    stop();
    return false;
}

static bool serve_unix(int fd, GError **error)
{
    return web_listen_unix(server, fd, error);
}

__attribute__((visibility("default"))) const struct web_module ruche_web = {
    .start = start, .serve_unix = serve_unix, .stop = stop};
