/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP, the manager's end; see client.h.
 *
 * Commands wait in a queue in the order they were sent; the peer answers in that order. A call that
 * is given up stays in the queue, without a waiter, until its answer comes.
 */
#include "qmp/client.h"

#include "base/fd.h"
#include "base/fiber.h"
#include "base/json_frame.h"
#include "base/sock.h"
#include "qmp/errors.h"

#include <fcntl.h>
#include <glib-unix.h>
#include <string.h>
#include <sys/socket.h>

#define READ_CHUNK        16384
#define MAX_CALLS         256        /* under way, given up ones among them */
#define MAX_OUTPUT        (4u << 20) /* that the peer does not read */
#define FIRST_ID          1          /* of the negotiation */
#define FOR_ANOTHER_MAX   16
#define EVENTS_PER_SECOND 2000       /* a guest cannot provoke that many; QEMU and we limit them */

struct call {
    struct fiber *waiter; /* NULL: given up, or not waiting yet */
    guint timer;
    int64_t id; /* 0: the greeting */
    bool done;
    bool given_up;
    JsonNode *answer; /* the whole object */
    GError *error;
};

/* Bytes on their way out; a descriptor goes with the first. */
struct chunk {
    char *text;
    size_t len, sent;
    int fd;
};

struct qmp_client {
    unsigned refs;
    int fd;
    guint in_source, out_source, closed_source;
    struct frame frame;
    GQueue calls; /* struct call */
    GQueue out;   /* struct chunk */
    size_t out_bytes;
    int64_t next_id;
    unsigned for_another; /* answers that were */
    int64_t second_us; /* events are counted from here */
    unsigned events;
    char *why; /* the connection is over */
    bool freed;
    struct qmp_client_ops ops;
    void *opaque;
    unsigned version;
    char *package;
};

static struct qmp_client *client_ref(struct qmp_client *c)
{
    c->refs++;
    return c;
}

static void client_unref(struct qmp_client *c)
{
    if (--c->refs)
        return;
    frame_done(&c->frame);
    g_free(c->why);
    g_free(c->package);
    g_free(c);
}

/* ---- calls ---- */

static void call_free(struct call *k)
{
    g_clear_handle_id(&k->timer, g_source_remove);
    g_clear_pointer(&k->answer, json_node_unref);
    g_clear_error(&k->error);
    g_free(k);
}

/* The call has its answer or error: its task goes on. Given up ones are forgotten. */
static void call_end(struct call *k)
{
    if (k->given_up) {
        call_free(k);
        return;
    }
    k->done = true;
    g_clear_handle_id(&k->timer, g_source_remove);
    if (k->waiter)
        fiber_wake(g_steal_pointer(&k->waiter));
}

static gboolean call_late(gpointer opaque)
{
    struct call *k = opaque;
    k->timer = 0;
    k->given_up = true;
    fiber_wake(g_steal_pointer(&k->waiter));
    return G_SOURCE_REMOVE;
}

/* Waits for the end of a call that stands in the queue. The answer, or NULL. */
static JsonNode *call_wait(struct call *k, int timeout_ms, GError **error)
{
    if (!k->done) {
        k->waiter = fiber_self();
        g_assert(k->waiter);
        if (timeout_ms >= 0)
            k->timer = g_timeout_add(timeout_ms, call_late, k);
        fiber_wait();
    }
    if (!k->done) { /* the queue keeps it */
        g_set_error(error, QMP_CLIENT_ERROR, QMP_CLIENT_SILENT, "no answer within %d ms",
                    timeout_ms);
        return NULL;
    }
    JsonNode *answer = g_steal_pointer(&k->answer);
    if (k->error)
        g_propagate_error(error, g_steal_pointer(&k->error));
    call_free(k);
    return answer;
}

/* ---- the end of a connection ---- */

static void chunk_free(gpointer p)
{
    struct chunk *k = p;
    fd_close_keep_errno(k->fd);
    g_free(k->text);
    g_free(k);
}

static gboolean tell_closed(gpointer opaque)
{
    struct qmp_client *c = opaque;
    c->closed_source = 0;
    client_ref(c);
    if (c->ops.closed)
        c->ops.closed(c->opaque, c->why);
    client_unref(c);
    return G_SOURCE_REMOVE;
}

/* Everything that waits ends in an error. */
static void hang_up(struct qmp_client *c, const char *why)
{
    if (c->why)
        return;
    c->why = g_strdup(why);
    g_clear_handle_id(&c->in_source, g_source_remove);
    g_clear_handle_id(&c->out_source, g_source_remove);
    fd_close_keep_errno(fd_steal(&c->fd));
    g_queue_clear_full(&c->out, chunk_free);
    if (!c->freed)
        c->closed_source = g_idle_add(tell_closed, c);
    GQueue calls = c->calls;
    g_queue_init(&c->calls);
    for (struct call *k; (k = g_queue_pop_head(&calls));) {
        g_set_error(&k->error, QMP_CLIENT_ERROR, QMP_CLIENT_OVER, "%s", why);
        call_end(k);
    }
}

void qmp_client_free(struct qmp_client *c)
{
    if (!c)
        return;
    c->freed = true;
    hang_up(c, "the connection to the monitor was given up");
    g_clear_handle_id(&c->closed_source, g_source_remove);
    client_unref(c);
}

/* ---- output ---- */

/* Bytes taken, or -errno. */
static ssize_t chunk_send(int fd, const struct chunk *k)
{
    struct iovec iov = {.iov_base = k->text + k->sent, .iov_len = k->len - k->sent};
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (k->fd >= 0 && !k->sent) {
        m.msg_control = &control;
        m.msg_controllen = sizeof(control);
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        *h = (struct cmsghdr){
            .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
        memcpy(CMSG_DATA(h), &k->fd, sizeof(int));
    }
    ssize_t n;
    do
        n = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static gboolean writable(int fd, GIOCondition condition, gpointer opaque);

static void flush(struct qmp_client *c)
{
    for (struct chunk *k; !c->why && (k = g_queue_peek_head(&c->out));) {
        ssize_t n = chunk_send(c->fd, k);
        if (n == -EAGAIN) {
            if (!c->out_source)
                c->out_source = g_unix_fd_add(c->fd, G_IO_OUT, writable, c);
            return;
        }
        if (n < 0) {
            g_autofree char *why =
                g_strdup_printf("the monitor does not take commands: %s", g_strerror(-n));
            hang_up(c, why);
            return;
        }
        k->sent += n;
        c->out_bytes -= n;
        if (k->sent == k->len)
            chunk_free(g_queue_pop_head(&c->out));
    }
}

static gboolean writable(int fd, GIOCondition condition, gpointer opaque)
{
    struct qmp_client *c = opaque;
    guint source = c->out_source;
    c->out_source = 0;
    client_ref(c);
    flush(c);
    bool again = !c->why && c->out_source;
    if (again) { /* the same source goes on, not the new one */
        g_source_remove(c->out_source);
        c->out_source = source;
    }
    client_unref(c);
    return again ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

/* ---- input ---- */

/* The value of a member that must be of `type` (G_TYPE_NONE: an object); NULL: it is not. */
static JsonNode *member_of(JsonObject *o, const char *name, GType type)
{
    JsonNode *n = o ? json_object_get_member(o, name) : NULL;
    if (!n ||
        (type == G_TYPE_NONE ? !JSON_NODE_HOLDS_OBJECT(n)
                             : !JSON_NODE_HOLDS_VALUE(n) || json_node_get_value_type(n) != type))
        return NULL;
    return n;
}

static JsonObject *object_of(JsonObject *o, const char *name)
{
    JsonNode *n = member_of(o, name, G_TYPE_NONE);
    return n ? json_node_get_object(n) : NULL;
}

static const char *string_of(JsonObject *o, const char *name)
{
    JsonNode *n = member_of(o, name, G_TYPE_STRING);
    return n ? json_node_get_string(n) : NULL;
}

static int64_t int_of(JsonObject *o, const char *name)
{
    JsonNode *n = member_of(o, name, G_TYPE_INT64);
    return n ? json_node_get_int(n) : 0;
}

/* NULL, or what is wrong with it. */
static const char *handle_event(struct qmp_client *c, JsonObject *o)
{
    int64_t now = g_get_monotonic_time();
    const char *name = string_of(o, "event");
    JsonObject *at = object_of(o, "timestamp");
    if (!name)
        return "the monitor sent an event without a name";
    if (now - c->second_us >= G_USEC_PER_SEC) {
        c->second_us = now;
        c->events = 0;
    }
    if (++c->events > EVENTS_PER_SECOND)
        return "the monitor sends events without end";
    if (c->ops.event)
        c->ops.event(c->opaque, name, object_of(o, "data"), int_of(at, "seconds"),
                     int_of(at, "microseconds"));
    return NULL;
}

/* QEMU answers what the client before us had asked for to whoever is connected by then; it does so
 * before it answers anything of ours. */
static bool is_for_another(struct qmp_client *c, const struct call *k, JsonNode *id)
{
    return k && k->id == FIRST_ID && id && json_node_get_int(id) != k->id &&
           c->for_another++ < FOR_ANOTHER_MAX;
}

static const char *handle_answer(struct qmp_client *c, JsonNode *node, JsonObject *o)
{
    struct call *k = g_queue_peek_head(&c->calls);
    JsonNode *id = member_of(o, "id", G_TYPE_INT64);
    bool greeting = object_of(o, "QMP") != NULL;
    if (is_for_another(c, k, id))
        return NULL;
    if (!k || greeting != (k->id == 0))
        return "the monitor answered what it was not asked";
    /* An error about the text itself has no id. */
    if (!greeting && (id || !json_object_has_member(o, "error")) &&
        (!id || json_node_get_int(id) != k->id))
        return "the monitor does not answer in order";
    g_queue_pop_head(&c->calls);
    k->answer = json_node_ref(node);
    call_end(k);
    return NULL;
}

static const char *handle_text(struct qmp_client *c)
{
    g_autoptr(JsonParser) parser = json_parser_new_immutable();
    if (!json_parser_load_from_data(parser, c->frame.text->str, c->frame.text->len, NULL))
        return "the monitor sent what is not JSON";
    JsonNode *root = json_parser_get_root(parser);
    if (!root || !JSON_NODE_HOLDS_OBJECT(root))
        return "the monitor sent what is not an object";
    JsonObject *o = json_node_get_object(root);
    return json_object_has_member(o, "event") ? handle_event(c, o) : handle_answer(c, root, o);
}

static void receive(struct qmp_client *c, const char *data, size_t len)
{
    while (len && !c->why) {
        const char *why = NULL;
        enum frame_result r = frame_feed(&c->frame, &data, &len, &why);
        if (r == FRAME_TEXT)
            why = handle_text(c);
        if (r != FRAME_MORE && why)
            hang_up(c, why);
    }
}

static gboolean readable(int fd, GIOCondition condition, gpointer opaque)
{
    struct qmp_client *c = opaque;
    char buf[READ_CHUNK];
    ssize_t n = read(fd, buf, sizeof(buf));
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return G_SOURCE_CONTINUE;
    client_ref(c);
    if (n > 0)
        receive(c, buf, n);
    else
        hang_up(c, "the machine has closed its monitor");
    bool go_on = !c->why;
    client_unref(c);
    return go_on ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

/* ---- commands ---- */

static bool refuse(GError **error, const char *why)
{
    g_set_error_literal(error, QMP_CLIENT_ERROR, QMP_CLIENT_REFUSED, why);
    return false;
}

/* Sends a command object, our id put in, and waits for its answer: the whole object. */
static JsonNode *exchange(struct qmp_client *c, JsonObject *command, int fd, int timeout_ms,
                          GError **error)
{
    if (c->why) {
        g_set_error(error, QMP_CLIENT_ERROR, QMP_CLIENT_OVER, "%s", c->why);
        return NULL;
    }
    json_object_set_int_member(command, "id", ++c->next_id);
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
    json_node_set_object(node, command);
    g_autofree char *text = json_to_string(node, FALSE);
    size_t len = strlen(text);
    if (g_queue_get_length(&c->calls) >= MAX_CALLS || c->out_bytes + len > MAX_OUTPUT) {
        refuse(error, "the monitor leaves too many commands without an answer");
        return NULL;
    }
    int copy = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (fd >= 0 && copy < 0) {
        ruche_error_errno(error, errno, "descriptor %d", fd);
        return NULL;
    }
    struct chunk *out = g_new0(struct chunk, 1);
    *out = (struct chunk){.text = g_strconcat(text, "\n", NULL), .len = len + 1, .fd = copy};
    g_queue_push_tail(&c->out, out);
    c->out_bytes += out->len;
    struct call *k = g_new0(struct call, 1);
    k->id = c->next_id;
    g_queue_push_tail(&c->calls, k);
    client_ref(c);
    flush(c);
    JsonNode *answer = call_wait(k, timeout_ms, error);
    client_unref(c);
    return answer;
}

/* The machine's refusal, as a GError. */
static void answer_error(JsonObject *o, GError **error)
{
    JsonObject *e = object_of(o, "error");
    const char *class = string_of(e, "class"), *desc = string_of(e, "desc");
    if (!desc)
        desc = "the monitor gave neither a value nor a reason";
    if (!g_strcmp0(class, "CommandNotFound"))
        g_set_error_literal(error, QMP_COMMAND_NOT_FOUND, 0, desc);
    else if (!g_strcmp0(class, "DeviceNotActive"))
        g_set_error_literal(error, QMP_DEVICE_NOT_ACTIVE, 0, desc);
    else if (!g_strcmp0(class, "DeviceNotFound"))
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "%s", desc);
    else
        g_set_error_literal(error, QMP_CLIENT_ERROR, QMP_CLIENT_GENERIC, desc);
}

JsonNode *qmp_client_call(struct qmp_client *c, const char *command, JsonObject *args, int fd,
                          int timeout_ms, GError **error)
{
    g_autoptr(JsonObject) o = json_object_new();
    json_object_set_string_member(o, "execute", command);
    if (args)
        json_object_set_object_member(o, "arguments", args);
    g_autoptr(JsonNode) answer = exchange(c, o, fd, timeout_ms, error);
    if (!answer)
        return NULL;
    JsonObject *reply = json_node_get_object(answer);
    JsonNode *value = json_object_get_member(reply, "return");
    if (value)
        return json_node_ref(value);
    answer_error(reply, error);
    return NULL;
}

char *qmp_client_call_text(struct qmp_client *c, const char *json, int timeout_ms, GError **error)
{
    const char *why = frame_check(json, strlen(json), QMP_MAX_INPUT, QMP_MAX_DEPTH);
    g_autoptr(JsonNode) node = why ? NULL : json_from_string(json, NULL);
    if (!node || !JSON_NODE_HOLDS_OBJECT(node)) {
        refuse(error, why ? why : "Not JSON: expected an object");
        return NULL;
    }
    JsonObject *command = json_node_get_object(node);
    JsonNode *id = json_object_get_member(command, "id");
    g_autoptr(JsonNode) own_id = id ? json_node_copy(id) : NULL;
    g_autoptr(JsonNode) answer = exchange(c, command, -1, timeout_ms, error);
    if (!answer)
        return NULL;
    g_autoptr(JsonNode) reply = json_node_new(JSON_NODE_OBJECT);
    JsonObject *from = json_node_get_object(answer), *to = json_object_new();
    JsonObjectIter it;
    const char *name;
    JsonNode *value;
    json_object_iter_init(&it, from);
    while (json_object_iter_next(&it, &name, &value))
        if (strcmp(name, "id"))
            json_object_set_member(to, name, json_node_copy(value));
    if (own_id)
        json_object_set_member(to, "id", g_steal_pointer(&own_id));
    json_node_take_object(reply, to);
    return json_to_string(reply, FALSE);
}

/* ---- the beginning ---- */

static unsigned version_part(JsonObject *v, const char *name)
{
    return CLAMP(int_of(v, name), 0, 999);
}

static bool greet(struct qmp_client *c, int timeout_ms, GError **error)
{
    struct call *k = g_new0(struct call, 1);
    g_queue_push_tail(&c->calls, k);
    g_autoptr(JsonNode) hello = call_wait(k, timeout_ms, error);
    if (!hello)
        return false;
    JsonObject *version = object_of(object_of(json_node_get_object(hello), "QMP"), "version");
    JsonObject *qemu = object_of(version, "qemu");
    const char *package = string_of(version, "package");
    c->version = version_part(qemu, "major") * 1000000 + version_part(qemu, "minor") * 1000 +
                 version_part(qemu, "micro");
    c->package = g_strdup(package ? package : "");
    g_autoptr(JsonNode) done = qmp_client_call(c, "qmp_capabilities", NULL, -1, timeout_ms, error);
    return done != NULL;
}

struct qmp_client *qmp_client_new(int fd, const struct qmp_client_ops *ops, void *opaque,
                                  int timeout_ms, GError **error)
{
    struct qmp_client *c = g_new0(struct qmp_client, 1);
    *c = (struct qmp_client){.refs = 1, .fd = fd, .opaque = opaque};
    g_queue_init(&c->calls);
    g_queue_init(&c->out);
    frame_init(&c->frame, QMP_CLIENT_MAX_LINE, QMP_MAX_DEPTH);
    sock_set_nonblock(fd, true);
    c->ops.event = ops->event;
    c->in_source = g_unix_fd_add(fd, G_IO_IN | G_IO_HUP | G_IO_ERR, readable, c);
    bool ok = greet(c, timeout_ms, error);
    if (ok && !c->why) {
        c->ops.closed = ops->closed;
        return c;
    }
    if (ok)
        g_set_error(error, QMP_CLIENT_ERROR, QMP_CLIENT_OVER, "%s", c->why);
    qmp_client_free(c);
    return NULL;
}

unsigned qmp_client_version(const struct qmp_client *c)
{
    return c->version;
}

const char *qmp_client_package(const struct qmp_client *c)
{
    return c->package;
}
