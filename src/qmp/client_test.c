/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The QMP client against our own server over a socketpair, and against peers that break every rule.
 */
#include "qmp/client.h"

#include "base/fiber.h"
#include "base/sock.h"
#include "qmp/errors.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static JsonNode *echo(void *opaque, JsonObject *args, GError **error)
{
    JsonNode *n = json_node_new(JSON_NODE_OBJECT);
    json_node_set_object(n, args);
    return n;
}
static const struct qmp_arg echo_args[] = {{"text", QMP_STRING, false, "Text"}, {0}};
static const struct qmp_command echo_cmd = {
    .name = "test-echo", .summary = "Echo", .args = echo_args, .call = echo};
QMP_COMMAND(echo_cmd);

static JsonNode *fail(void *opaque, JsonObject *args, GError **error)
{
    ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no disk 'x'");
    return NULL;
}
static const struct qmp_command fail_cmd = {.name = "test-fail", .summary = "Fail", .call = fail};
QMP_COMMAND(fail_cmd);

static const struct qmp_event_type test_event = {.name = "TEST", .summary = "A test"};
QMP_EVENT(test_event);

/* ---- what a test has ---- */

struct env {
    struct qmp_server *server; /* or NULL: `peer` is ours to write */
    struct qmp_client *client;
    int peer;
    unsigned running, events, closed;
    char *why;
    bool free_in_event;
    GError *error;
};

static void on_event(void *opaque, const char *name, JsonObject *data, int64_t s, int64_t us)
{
    struct env *e = opaque;
    e->events++;
    if (e->free_in_event)
        g_clear_pointer(&e->client, qmp_client_free);
}

static void on_closed(void *opaque, const char *why)
{
    struct env *e = opaque;
    g_assert_null(fiber_self());
    e->closed++;
    g_free(e->why);
    e->why = g_strdup(why);
}

static const struct qmp_client_ops ops = {.event = on_event, .closed = on_closed};

static void turn(void)
{
    g_main_context_iteration(NULL, TRUE);
}

struct start {
    struct env *env;
    int fd, timeout_ms;
    void (*fn)(struct env *e);
};

static void in_fiber(void *opaque)
{
    struct start s = *(struct start *)opaque;
    s.env->running++;
    if (s.fn)
        s.fn(s.env);
    else
        s.env->client = qmp_client_new(s.fd, &ops, s.env, s.timeout_ms, &s.env->error);
    s.env->running--;
}

static void start_connect(struct env *e, int fd, int timeout_ms)
{
    fiber_start(in_fiber, &(struct start){.env = e, .fd = fd, .timeout_ms = timeout_ms});
}

static void start(struct env *e, void (*fn)(struct env *e))
{
    fiber_start(in_fiber, &(struct start){.env = e, .fn = fn});
}

static void finish(struct env *e)
{
    while (e->running)
        turn();
}

static void say(struct env *e, const char *text)
{
    g_assert_cmpint(write(e->peer, text, strlen(text)), ==, strlen(text));
}

#define HELLO                                                                                      \
    "{\"QMP\":{\"version\":{\"qemu\":{\"micro\":19,\"minor\":2,\"major\":7},\"package\":\"P\"},"   \
    "\"capabilities\":[]}}\n"

/* With our server, or with a peer that has greeted and answered the negotiation. */
static void env_init(struct env *e, bool server)
{
    int fds[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    *e = (struct env){.peer = -1};
    if (server) {
        e->server = qmp_server_new(NULL);
        qmp_server_accept(e->server, fds[1]);
    } else {
        e->peer = fds[1];
        sock_set_nonblock(e->peer, true);
        say(e, HELLO "{\"return\":{},\"id\":1}\n");
    }
    start_connect(e, fds[0], 5000);
    finish(e);
    if (server) {
        g_assert_no_error(e->error);
        g_assert_nonnull(e->client);
    }
}

static void env_done(struct env *e)
{
    qmp_client_free(e->client);
    finish(e);
    while (g_main_context_iteration(NULL, FALSE))
        ;
    qmp_server_free(e->server);
    if (e->peer >= 0)
        close(e->peer);
    g_clear_error(&e->error);
    g_free(e->why);
}

/* ---- with our server ---- */

static JsonObject *text_args(const char *text)
{
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "text", text);
    return o;
}

static void call_echo(struct env *e)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) r =
        qmp_client_call(e->client, "test-echo", text_args("hé"), -1, 5000, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(json_object_get_string_member(json_node_get_object(r), "text"), ==, "hé");
}

static void call_errors(struct env *e)
{
    g_autoptr(GError) a = NULL, b = NULL, c = NULL, d = NULL;
    g_assert_null(qmp_client_call(e->client, "test-fail", NULL, -1, 5000, &a));
    g_assert_error(a, RUCHE_ERROR, RUCHE_ERR_NOT_FOUND);
    g_assert_cmpstr(a->message, ==, "there is no disk 'x'");
    g_assert_null(qmp_client_call(e->client, "no-such", NULL, -1, 5000, &b));
    g_assert_true(b->domain == QMP_COMMAND_NOT_FOUND);
    g_assert_null(qmp_client_call(e->client, "test-echo", NULL, -1, 5000, &c));
    g_assert_error(c, QMP_CLIENT_ERROR, QMP_CLIENT_GENERIC);
    g_assert_null(qmp_client_call_text(e->client, "{\"execute\"", 5000, &d));
    g_assert_error(d, QMP_CLIENT_ERROR, QMP_CLIENT_REFUSED);
}

static void call_text(struct env *e)
{
    g_autofree char *a = qmp_client_call_text(
        e->client, " {\"execute\":\"test-echo\",\"id\":\"mine\",\"arguments\":{\"text\":\"x\"}}\n",
        5000, NULL);
    g_assert_cmpstr(a, ==, "{\"return\":{\"text\":\"x\"},\"id\":\"mine\"}");
    g_autofree char *b = qmp_client_call_text(e->client, "{\"execute\":\"no-such\"}", 5000, NULL);
    g_assert_nonnull(strstr(b, "CommandNotFound"));
    g_assert_null(strstr(b, "\"id\""));
}

static void test_calls(void)
{
    struct env e;
    env_init(&e, true);
    g_assert_true(g_str_has_prefix(qmp_client_package(e.client), "ruche"));
    for (int i = 0; i < 20; i++)
        start(&e, call_echo); /* all under way at once */
    g_assert_cmpuint(e.running, ==, 20);
    start(&e, call_errors);
    start(&e, call_text);
    finish(&e);
    qmp_event(e.server, "TEST", NULL);
    while (!e.events)
        turn();
    env_done(&e);
}

static void call_until_over(struct env *e)
{
    g_autoptr(GError) error = NULL;
    g_assert_null(qmp_client_call(e->client, "test-echo", text_args("x"), -1, 5000, &error));
    g_assert_error(error, QMP_CLIENT_ERROR, QMP_CLIENT_OVER);
}

static void test_free_with_calls(void)
{
    struct env e;
    env_init(&e, false);
    start(&e, call_until_over);
    start(&e, call_until_over);
    g_assert_cmpuint(e.running, ==, 2);
    g_clear_pointer(&e.client, qmp_client_free);
    finish(&e);
    g_assert_cmpuint(e.closed, ==, 0); /* nobody is told what he did himself */
    env_done(&e);
}

static void test_free_in_event(void)
{
    struct env e;
    env_init(&e, false);
    e.free_in_event = true;
    start(&e, call_until_over);
    say(&e, "{\"event\":\"A\"}\n{\"event\":\"B\"}\n");
    finish(&e);
    g_assert_cmpuint(e.events, ==, 1);
    env_done(&e);
}

/* ---- peers that break the rules ---- */

static void call_late(struct env *e)
{
    g_autoptr(GError) error = NULL;
    g_assert_null(qmp_client_call(e->client, "a", NULL, -1, 10, &error));
    g_assert_error(error, QMP_CLIENT_ERROR, QMP_CLIENT_SILENT);
}

static void call_three(struct env *e)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) r = qmp_client_call(e->client, "b", NULL, -1, 5000, &error);
    g_assert_no_error(error);
    g_assert_cmpint(json_node_get_int(r), ==, 3);
}

/* An answer that comes too late is not taken for the next one's. */
static void test_late_answer(void)
{
    struct env e;
    env_init(&e, false);
    g_assert_cmpuint(qmp_client_version(e.client), ==, 7002019);
    start(&e, call_late);
    finish(&e);
    start(&e, call_three);
    say(&e, "{\"return\":2,\"id\":2}{\"event\":\"X\",\"timestamp\":{\"seconds\":1,\"microseconds\":"
            "2}}");
    say(&e, "{\"return\":3,\"id\":3}");
    finish(&e);
    g_assert_cmpuint(e.events, ==, 1);
    env_done(&e);
}

static int fd_to_send;

static void call_getfd(struct env *e)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) r = qmp_client_call(e->client, "getfd", NULL, fd_to_send, 5000, &error);
    g_assert_no_error(error);
    g_assert_nonnull(r);
}

static void test_descriptor(void)
{
    struct env e;
    int pipe_fds[2], got = -1;
    char text[256], room[CMSG_SPACE(sizeof(int))];
    env_init(&e, false);
    g_assert_cmpint(read(e.peer, text, sizeof(text)), >, 0); /* qmp_capabilities */
    g_assert_cmpint(pipe(pipe_fds), ==, 0);
    fd_to_send = pipe_fds[1];
    start(&e, call_getfd);
    struct iovec iov = {text, sizeof(text)};
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
    g_assert_cmpint(recvmsg(e.peer, &m, 0), >, 0);
    g_assert_nonnull(CMSG_FIRSTHDR(&m));
    memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
    g_assert_cmpint(write(got, "x", 1), ==, 1);
    g_assert_cmpint(read(pipe_fds[0], text, 1), ==, 1);
    say(&e, "{\"return\":{},\"id\":2}");
    finish(&e);
    close(got);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    env_done(&e);
}

/* What a client before us had asked for is answered to us, before our own. */
static void test_for_another(void)
{
    struct env e = {.peer = -1};
    int fds[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    e.peer = fds[1];
    sock_set_nonblock(e.peer, true);
    say(&e, HELLO "{\"return\":{},\"id\":7}{\"error\":{\"class\":\"GenericError\",\"desc\":\"x\"},"
                  "\"id\":8}{\"return\":{},\"id\":1}\n");
    start_connect(&e, fds[0], 5000);
    finish(&e);
    g_assert_no_error(e.error);
    g_assert_nonnull(e.client);
    env_done(&e);
}

static const struct {
    const char *name, *text, *why;
} hostile[] = {
    {"unasked", "{\"return\":{},\"id\":7}\n", "not asked"},
    {"unasked-greeting", HELLO, "not asked"},
    {"not-json", "{\"return\":,}\n", "not JSON"},
    {"array", "[1]\n", "not an object"},
    {"garbage", "hello\n", "expected an object"},
    {"nameless-event", "{\"event\":3}\n", "without a name"},
    {"bad-utf8", "{\"a\":\"\xff\"}\n", "UTF-8"},
};

static void test_hostile(gconstpointer data)
{
    unsigned i = GPOINTER_TO_UINT(data);
    struct env e;
    env_init(&e, false);
    say(&e, hostile[i].text);
    while (!e.closed)
        turn();
    g_assert_nonnull(strstr(e.why, hostile[i].why));
    start(&e, call_until_over);
    finish(&e);
    g_assert_cmpuint(e.closed, ==, 1);
    env_done(&e);
}

static void write_all(struct env *e, const char *text, size_t len)
{
    while (len && !e->closed) {
        ssize_t n = send(e->peer, text, len, MSG_NOSIGNAL);
        if (n > 0)
            text += n, len -= n;
        else if (errno == EPIPE)
            break;
        while (g_main_context_iteration(NULL, FALSE))
            ;
    }
}

/* Sent without an end: deep, long, and events. Memory stays, the connection ends. */
static void flood(const char *begin, const char *piece, const char *why)
{
    struct env e;
    g_autoptr(GString) block = g_string_new(NULL);
    env_init(&e, false);
    while (block->len < 60000)
        g_string_append(block, piece);
    write_all(&e, begin, strlen(begin));
    for (size_t total = 0; total < QMP_CLIENT_MAX_LINE + (1u << 20) && !e.closed;
         total += block->len)
        write_all(&e, block->str, block->len);
    while (!e.closed)
        turn();
    g_assert_nonnull(strstr(e.why, why));
    env_done(&e);
}

static void test_deep(void)
{
    flood("{\"a\":", "[", "deep");
}

static void test_long(void)
{
    flood("{\"a\":\"", "aaaaaaaa", "too long");
}

static void test_event_flood(void)
{
    flood("", "{\"event\":\"E\"}\n", "without end");
}

static void test_out_of_order(void)
{
    struct env e;
    env_init(&e, false);
    start(&e, call_until_over);
    start(&e, call_until_over);
    say(&e, "{\"return\":{},\"id\":3}\n");
    finish(&e);
    env_done(&e);
}

static void call_many(struct env *e)
{
    g_autoptr(GError) error = NULL;
    qmp_client_call(e->client, "x", NULL, -1, 200, &error);
    g_assert_nonnull(error);
    e->events += g_error_matches(error, QMP_CLIENT_ERROR, QMP_CLIENT_REFUSED);
}

static void test_never_answers(void)
{
    struct env e;
    env_init(&e, false);
    for (int i = 0; i < 400; i++)
        start(&e, call_many);
    g_assert_cmpuint(e.running, <=, 256);
    finish(&e);
    g_assert_cmpuint(e.events, ==, 400 - 256);
    env_done(&e);
}

static void test_greeting(void)
{
    static const char *const bad[] = {"", "{}\n", "{\"return\":{},\"id\":0}\n", "x\n",
                                      "{\"QMP\":1}\n"};
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        int fds[2];
        struct env e = {0};
        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
        e.peer = fds[1];
        say(&e, bad[i]);
        if (i % 2)
            shutdown(e.peer, SHUT_WR);
        start_connect(&e, fds[0], 50);
        finish(&e);
        g_assert_null(e.client);
        g_assert_nonnull(e.error);
        env_done(&e);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/client/calls", test_calls);
    g_test_add_func("/client/free-with-calls", test_free_with_calls);
    g_test_add_func("/client/free-in-event", test_free_in_event);
    g_test_add_func("/client/late-answer", test_late_answer);
    g_test_add_func("/client/for-another", test_for_another);
    g_test_add_func("/client/descriptor", test_descriptor);
    for (size_t i = 0; i < G_N_ELEMENTS(hostile); i++) {
        g_autofree char *path = g_strdup_printf("/client/hostile/%s", hostile[i].name);
        g_test_add_data_func(path, GUINT_TO_POINTER(i), test_hostile);
    }
    g_test_add_func("/client/hostile/deep", test_deep);
    g_test_add_func("/client/hostile/long", test_long);
    g_test_add_func("/client/hostile/events", test_event_flood);
    g_test_add_func("/client/hostile/order", test_out_of_order);
    g_test_add_func("/client/hostile/silent", test_never_answers);
    g_test_add_func("/client/hostile/greeting", test_greeting);
    return g_test_run();
}
