/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A session: greeting, negotiation, commands in, answers and events out. */
#include "qmp/internal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- output ---- */

static void flush(struct qmp_session *q)
{
    while (q->out->len && !q->dropped) {
        size_t n = q->transport.write(q->transport.opaque, q->out->str, q->out->len);
        if (!n)
            return;
        g_string_erase(q->out, 0, n);
    }
}

static void drop(struct qmp_session *q)
{
    if (q->dropped)
        return;
    q->dropped = true;
    g_string_truncate(q->out, 0);
    if (q->transport.drop)
        q->transport.drop(q->transport.opaque);
}

void qmp_session_send(struct qmp_session *q, const char *text)
{
    if (q->dropped)
        return;
    g_string_append(q->out, text);
    g_string_append(q->out, "\r\n");
    flush(q);
    if (q->out->len > QMP_MAX_OUTPUT)
        drop(q);
}

/* Takes the object over. */
static void send_object(struct qmp_session *q, JsonObject *o)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(node, o);
    g_autofree char *text = json_to_string(node, FALSE);
    qmp_session_send(q, text);
}

void qmp_session_writable(struct qmp_session *q)
{
    flush(q);
}

bool qmp_session_pending(const struct qmp_session *q)
{
    return q->out->len > 0;
}

/* ---- what is said ---- */

static void greet(struct qmp_session *q)
{
    unsigned major = 0, minor = 0, micro = 0;
    char *end;
    major = strtoul(RUCHE_VERSION, &end, 10);
    minor = *end ? strtoul(end + 1, &end, 10) : 0;
    micro = *end ? strtoul(end + 1, &end, 10) : 0;
    g_autofree char *text =
        g_strdup_printf("{\"QMP\":{\"version\":{\"qemu\":{\"micro\":%u,\"minor\":%u,\"major\":%u},"
                        "\"package\":\"ruche-vmm %s\"},"
                        "\"capabilities\":[]}}",
                        micro, minor, major, RUCHE_VERSION);
    qmp_session_send(q, text);
}

/* The class that QEMU's clients look at. */
static const char *error_class(const GError *e)
{
    if (e->domain == QMP_COMMAND_NOT_FOUND)
        return "CommandNotFound";
    if (e->domain == QMP_DEVICE_NOT_ACTIVE)
        return "DeviceNotActive";
    return g_error_matches(e, RUCHE_ERROR, RUCHE_ERR_NOT_FOUND) ? "DeviceNotFound" : "GenericError";
}

/* `id` is the peer's, echoed; may be NULL. */
static void send_error(struct qmp_session *q, JsonNode *id, const char *class, const char *desc)
{
    JsonObject *error = json_object_new(), *reply = json_object_new();
    json_object_set_string_member(error, "class", class);
    /* a quoted word may have been cut within a character */
    g_autofree char *valid = g_utf8_make_valid(desc, -1);
    json_object_set_string_member(error, "desc", valid);
    if (id)
        json_object_set_member(reply, "id", json_node_copy(id));
    json_object_set_object_member(reply, "error", error);
    send_object(q, reply);
}

static void send_result(struct qmp_session *q, JsonNode *id, JsonNode *result)
{
    JsonObject *reply = json_object_new();
    json_object_set_member(reply, "return", result);
    if (id)
        json_object_set_member(reply, "id", json_node_copy(id));
    send_object(q, reply);
}

/* ---- commands ---- */

/* qmp_capabilities: nothing can be enabled. */
static bool negotiate(struct qmp_session *q, JsonObject *args, GError **error)
{
    JsonNode *enable = args ? json_object_get_member(args, "enable") : NULL;
    if (q->negotiated) {
        g_set_error(error, QMP_COMMAND_NOT_FOUND, 0,
                    "The command qmp_capabilities is for the beginning; capabilities are settled");
        return false;
    }
    if (enable && !JSON_NODE_HOLDS_ARRAY(enable))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "argument 'enable' of qmp_capabilities must be a list");
    if (enable && json_array_get_length(json_node_get_array(enable)))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "a capability is not among those of the greeting");
    if (args && json_object_get_size(args) > (enable ? 1u : 0u))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "qmp_capabilities has only the argument 'enable'");
    q->negotiated = true;
    return true;
}

static JsonNode *run_command(struct qmp_session *q, const char *name, JsonObject *args,
                             GError **error)
{
    if (!strcmp(name, "qmp_capabilities")) {
        if (!negotiate(q, args, error))
            return NULL;
        JsonNode *empty = json_node_new(JSON_NODE_OBJECT);
        json_node_take_object(empty, json_object_new());
        return empty;
    }
    if (!q->negotiated) {
        g_set_error(error, QMP_COMMAND_NOT_FOUND, 0,
                    "The command %.64s has to wait: send qmp_capabilities first", name);
        return NULL;
    }
    struct qmp_session *outer = q->server->current;
    q->server->current = q;
    JsonNode *result = qmp_execute(q->server, name, args, error);
    q->server->current = outer;
    return result;
}

/* The members that a command's object may have. NULL and *error, or the command's name. */
static const char *check_shape(JsonObject *o, GError **error)
{
    JsonObjectIter it;
    const char *name;
    JsonNode *value;
    if (json_object_has_member(o, "exec-oob")) {
        ruche_error(error, RUCHE_ERR_UNSUPPORTED, "out-of-band execution was not negotiated");
        return NULL;
    }
    json_object_iter_init(&it, o);
    while (json_object_iter_next(&it, &name, &value)) {
        bool known = !strcmp(name, "execute") || !strcmp(name, "arguments") || !strcmp(name, "id");
        if (!known) {
            ruche_error(error, RUCHE_ERR_INVALID, "a command has no member '%.64s'", name);
            return NULL;
        }
    }
    JsonNode *command = json_object_get_member(o, "execute"),
             *args = json_object_get_member(o, "arguments");
    if (!command || !JSON_NODE_HOLDS_VALUE(command) ||
        json_node_get_value_type(command) != G_TYPE_STRING) {
        ruche_error(error, RUCHE_ERR_INVALID, "member 'execute' must be there and be a string");
        return NULL;
    }
    if (args && !JSON_NODE_HOLDS_OBJECT(args)) {
        ruche_error(error, RUCHE_ERR_INVALID, "member 'arguments' must be an object");
        return NULL;
    }
    return json_node_get_string(command);
}

static void handle_object(struct qmp_session *q, JsonObject *o)
{
    g_autoptr(GError) error = NULL;
    JsonNode *id = json_object_get_member(o, "id"), *result = NULL;
    const char *name = check_shape(o, &error);
    if (name) {
        JsonObject *args = json_object_has_member(o, "arguments")
                               ? json_object_get_object_member(o, "arguments")
                               : NULL;
        result = run_command(q, name, args, &error);
    }
    if (result)
        send_result(q, id, result);
    else
        send_error(q, id, error_class(error), error->message);
}

/* The parser wraps integers that are too long around: they are found in the text, outside
 * strings. */
static bool integers_fit(const char *p)
{
    while (*p) {
        if (*p == '"') {
            for (p++; *p && *p != '"'; p++)
                p += *p == '\\' && p[1];
            p += *p == '"';
        } else if (g_ascii_isdigit(*p)) {
            size_t len = strspn(p, "0123456789.eE+-"), digits = strspn(p, "0123456789");
            errno = 0;
            bool negative = p[-1] == '-';
            if (len == digits && (g_ascii_strtoll(p - negative, NULL, 10), errno == ERANGE))
                return false;
            p += len;
        } else {
            p++;
        }
    }
    return true;
}

/* 1e999 is a number to the parser, and nothing that an answer could echo; json-glib up to 1.6 also
 * writes 1e20 as "1e+20.0". */
static bool number_printable(double d)
{
    char buf[G_ASCII_DTOSTR_BUF_SIZE];
    return isfinite(d) && (strchr(g_ascii_dtostr(buf, sizeof(buf), d), '.') || !strchr(buf, 'e'));
}

/* Depth is bounded by the framing. */
static bool numbers_printable(JsonNode *n)
{
    if (JSON_NODE_HOLDS_VALUE(n))
        return json_node_get_value_type(n) != G_TYPE_DOUBLE ||
               number_printable(json_node_get_double(n));
    if (JSON_NODE_HOLDS_ARRAY(n)) {
        JsonArray *a = json_node_get_array(n);
        for (guint i = 0; i < json_array_get_length(a); i++)
            if (!numbers_printable(json_array_get_element(a, i)))
                return false;
    } else if (JSON_NODE_HOLDS_OBJECT(n)) {
        JsonObjectIter it;
        JsonNode *child;
        json_object_iter_init(&it, json_node_get_object(n));
        while (json_object_iter_next(&it, NULL, &child))
            if (!numbers_printable(child))
                return false;
    }
    return true;
}

static void handle_text(struct qmp_session *q)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonParser) parser = json_parser_new();
    if (!integers_fit(q->frame.text->str)) {
        send_error(q, NULL, "GenericError", "an integer does not fit 64 bits");
        return;
    }
    if (!json_parser_load_from_data(parser, q->frame.text->str, q->frame.text->len, &error)) {
        g_autofree char *desc = g_strdup_printf("JSON parse error: %s", error->message);
        send_error(q, NULL, "GenericError", desc);
        return;
    }
    JsonNode *root = json_parser_get_root(parser);
    if (root && !numbers_printable(root))
        send_error(q, NULL, "GenericError", "a number is out of range");
    else if (root && JSON_NODE_HOLDS_OBJECT(root))
        handle_object(q, json_node_get_object(root));
    else
        send_error(q, NULL, "GenericError", "a command must be a JSON object");
}

void qmp_session_receive(struct qmp_session *q, const void *data, size_t len)
{
    const char *p = data, *why;
    q->busy = true;
    while (len && !q->dropped && !q->freed) {
        enum frame_result r = frame_feed(&q->frame, &p, &len, &why);
        if (r == FRAME_TEXT)
            handle_text(q);
        else if (r == FRAME_BAD)
            send_error(q, NULL, "GenericError", why);
    }
    q->busy = false;
    if (q->freed)
        qmp_session_free(q);
}

/* ---- descriptors ---- */

void qmp_session_receive_fd(struct qmp_session *q, int fd)
{
    if (q->fd_count < QMP_MAX_FDS)
        q->fds[q->fd_count++] = fd;
    else
        close(fd);
}

int qmp_take_fd(struct qmp_server *s)
{
    struct qmp_session *q = s->current;
    if (!q || !q->fd_count)
        return -1;
    int fd = q->fds[0];
    memmove(q->fds, q->fds + 1, --q->fd_count * sizeof(q->fds[0]));
    return fd;
}

/* ---- life ---- */

struct qmp_session *qmp_session_new(struct qmp_server *s, const struct qmp_transport *t)
{
    if (s->session_count == QMP_MAX_SESSIONS)
        return NULL;
    struct qmp_session *q = g_new0(struct qmp_session, 1);
    q->server = s;
    q->transport = *t;
    q->out = g_string_new(NULL);
    frame_init(&q->frame, QMP_MAX_INPUT, QMP_MAX_DEPTH);
    q->next = s->sessions;
    s->sessions = q;
    s->session_count++;
    greet(q);
    return q;
}

void qmp_session_free(struct qmp_session *q)
{
    if (!q)
        return;
    if (q->busy) { /* a command of its own ended it */
        q->freed = q->dropped = true;
        return;
    }
    for (struct qmp_session **at = &q->server->sessions; *at; at = &(*at)->next)
        if (*at == q) {
            *at = q->next;
            q->server->session_count--;
            break;
        }
    frame_done(&q->frame);
    g_string_free(q->out, TRUE);
    for (unsigned i = 0; i < q->fd_count; i++)
        close(q->fds[i]);
    g_free(q);
}

struct qmp_server *qmp_server_new(void *opaque)
{
    struct qmp_server *s = g_new0(struct qmp_server, 1);
    s->opaque = opaque;
    return s;
}

void qmp_server_free(struct qmp_server *s)
{
    if (!s)
        return;
    qmp_limits_free(s);
    qmp_listeners_free(s);
    while (s->sessions) {
        s->sessions->busy = false;
        qmp_session_free(s->sessions);
    }
    g_free(s);
}

void qmp_server_stop_waiting(struct qmp_server *s)
{
    s->stop_waiting = true;
    g_main_context_wakeup(NULL);
}
