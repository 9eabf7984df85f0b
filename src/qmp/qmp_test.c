/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP sessions as a client sees them, over a socketpair and a listening socket. */
#include "base/scratch.h"
#include "qmp/qmp.h"

#include "base/sock.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- commands of this test ---- */

static JsonNode *echo(void *opaque, JsonObject *args, GError **error)
{
    JsonNode *n = json_node_new(JSON_NODE_OBJECT);
    json_node_set_object(n, args);
    return n;
}
static const struct qmp_arg echo_args[] = {
    { "text", QMP_STRING, false, "Text" },
    { "count", QMP_INT, true, "Number" },
    { "flag", QMP_BOOL, true, "Switch" },
    { 0 },
};
static const struct qmp_command echo_cmd = {
    .name = "test-echo", .summary = "Echo", .args = echo_args, .call = echo
};
QMP_COMMAND(echo_cmd);

static JsonNode *fail(void *opaque, JsonObject *args, GError **error)
{
    ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no disk 'x'");
    return NULL;
}
static const struct qmp_command fail_cmd = { .name = "test-fail", .summary = "Fail", .call = fail };
QMP_COMMAND(fail_cmd);

static JsonNode *nothing(void *opaque, JsonObject *args, GError **error)
{
    return NULL;
}
static const struct qmp_command nothing_cmd = { .name = "test-nothing",
                                                .summary = "Nothing",
                                                .call = nothing };
QMP_COMMAND(nothing_cmd);

static struct qmp_server *fd_server;
static JsonNode *take(void *opaque, JsonObject *args, GError **error)
{
    int fd = qmp_take_fd(fd_server);
    if (fd < 0) {
        ruche_error(error, RUCHE_ERR_INVALID, "none");
        return NULL;
    }
    char text[8] = "";
    g_assert_cmpint(read(fd, text, sizeof(text) - 1), >, 0);
    close(fd);
    return json_node_init_string(json_node_alloc(), text);
}
static const struct qmp_command take_cmd = { .name = "test-take", .summary = "Take", .call = take };
QMP_COMMAND(take_cmd);

static const struct qmp_event_type test_event = { .name = "TEST", .summary = "A test" };
QMP_EVENT(test_event);

static const struct qmp_event_type limited_event = { .name = "LIMITED",
                                                     .summary = "Of a guest",
                                                     .limit_by = "path" };
QMP_EVENT(limited_event);

static const struct qmp_event_type burst_event = { .name = "BURST",
                                                   .summary = "Of a guest that has much to say",
                                                   .limit_by = "info.path",
                                                   .limit_burst = 3 };
QMP_EVENT(burst_event);

/* ---- a client ---- */

struct peer {
    struct qmp_server *server;
    int fd;
    GString *got;
};

static void peer_init(struct peer *p)
{
    int fds[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    sock_set_nonblock(fds[0], true);
    *p = (struct peer){ .server = qmp_server_new(NULL), .fd = fds[0], .got = g_string_new(NULL) };
    qmp_server_accept(p->server, fds[1]);
}

static void peer_done(struct peer *p)
{
    if (p->fd >= 0)
        close(p->fd);
    while (g_main_context_iteration(NULL, FALSE))
        ;
    qmp_server_free(p->server);
    g_string_free(p->got, TRUE);
}

static void pump(struct peer *p)
{
    char buf[4096];
    ssize_t n;
    do {
        while (g_main_context_iteration(NULL, FALSE))
            ;
        n = p->fd < 0 ? 0 : read(p->fd, buf, sizeof(buf));
        if (n > 0)
            g_string_append_len(p->got, buf, n);
    } while (n > 0);
}

/* The next line that came, without its end; "" when there is none. */
static char *take_line(struct peer *p)
{
    pump(p);
    char *end = strstr(p->got->str, "\r\n");
    if (!end)
        return g_strdup("");
    char *line = g_strndup(p->got->str, end - p->got->str);
    g_string_erase(p->got, 0, end + 2 - p->got->str);
    return line;
}

static void send_bytes(struct peer *p, const char *text, size_t len)
{
    while (len) {
        ssize_t n = send(p->fd, text, len, MSG_NOSIGNAL);
        if (n < 0)
            pump(p);
        else
            text += n, len -= n;
    }
}

static void expect(struct peer *p, const char *send, const char *want)
{
    send_bytes(p, send, strlen(send));
    g_autofree char *line = take_line(p);
    g_assert_cmpstr(line, ==, want);
}

#define GREETING "{\"QMP\":{\"version\":{\"qemu\":{"
#define OK "{\"return\":{}}"

static void negotiate(struct peer *p)
{
    g_autofree char *hello = take_line(p);
    g_assert_true(g_str_has_prefix(hello, GREETING));
    g_assert_true(g_str_has_suffix(hello, "\"capabilities\":[]}}"));
    expect(p, "{\"execute\":\"qmp_capabilities\"}", OK);
}

/* With `count` descriptors, each with its number to read. */
static void send_fds(struct peer *p, const char *text, unsigned count)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(64 * sizeof(int))];
    } control = { 0 };
    int fds[64];
    struct iovec iov = { (void *)text, strlen(text) };
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                        .msg_controllen = CMSG_SPACE(count * sizeof(int)) };
    for (unsigned i = 0; i < count; i++) {
        int ends[2];
        char number[8];
        g_assert_cmpint(pipe(ends), ==, 0);
        int len = g_snprintf(number, sizeof(number), "%u", i);
        g_assert_cmpint(write(ends[1], number, len), ==, len);
        close(ends[1]);
        fds[i] = ends[0];
    }
    *CMSG_FIRSTHDR(&m) = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
                                           .cmsg_len = CMSG_LEN(count * sizeof(int)) };
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), fds, count * sizeof(int));
    g_assert_cmpint(sendmsg(p->fd, &m, 0), ==, (int)strlen(text));
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
}

/* ---- tests ---- */

static unsigned open_fds(void)
{
    unsigned n = 0;
    g_autoptr(GDir) dir = g_dir_open("/proc/self/fd", 0, NULL);
    while (g_dir_read_name(dir))
        n++;
    return n;
}

/* Descriptors wait for the commands that take them, in order; too many, and those that nobody takes, are closed. */
static void test_descriptors(void)
{
    struct peer p;
    unsigned before = open_fds();
    peer_init(&p);
    fd_server = p.server;
    negotiate(&p);
    expect(&p, "{\"execute\":\"test-take\"}", "{\"error\":{\"class\":\"GenericError\",\"desc\":\"none\"}}");
    send_fds(&p, "{\"execute\":\"test-take\"}", 2);
    expect(&p, "", "{\"return\":\"0\"}");
    expect(&p, "{\"execute\":\"test-take\"}", "{\"return\":\"1\"}");
    expect(&p, "{\"execute\":\"test-take\"}", "{\"error\":{\"class\":\"GenericError\",\"desc\":\"none\"}}");
    send_fds(&p, " ", 40);
    send_fds(&p, " ", 10);
    expect(&p, "{\"execute\":\"test-take\"}", "{\"return\":\"0\"}");
    peer_done(&p);
    g_assert_cmpuint(open_fds(), <=, before + 2); /* GLib's own */
}

static void test_negotiation(void)
{
    struct peer p;
    peer_init(&p);
    g_autofree char *hello = take_line(&p);
    g_assert_true(g_str_has_prefix(hello, GREETING));
    expect(&p, "{\"execute\":\"test-nothing\"}",
           "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"The command test-nothing has to "
           "wait: send "
           "qmp_capabilities first\"}}");
    expect(&p, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]}}",
           "{\"error\":{\"class\":\"GenericError\",\"desc\":\"a capability is not among those of "
           "the greeting\"}}");
    qmp_event(p.server, "TEST", NULL); /* not for those who have not negotiated */
    expect(&p, "{\"execute\":\"qmp_capabilities\",\"id\":7}", "{\"return\":{},\"id\":7}");
    expect(&p, "{\"execute\":\"qmp_capabilities\"}",
           "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"The command qmp_capabilities is "
           "for the beginning; "
           "capabilities are settled\"}}");
    peer_done(&p);
}

static const struct {
    const char *send, *want;
} rows[] = {
    { "{\"execute\":\"test-nothing\"}", OK },
    { "{ \"execute\" : \"test-nothing\" , \"id\" : {\"a\":[1,null,\"\\u00e9\"]} }",
      "{\"return\":{},\"id\":{\"a\":[1,null,\"é\"]}}" },
    { "{\"execute\":\"test-echo\",\"arguments\":{\"text\":\"}{\\\"[\"}}",
      "{\"return\":{\"text\":\"}{\\\"[\"}}" },
    { "{\"execute\":\"test-echo\",\"arguments\":{\"text\":\"a\",\"count\":-3,\"flag\":true}}",
      "{\"return\":{\"text\":\"a\",\"count\":-3,\"flag\":true}}" },
    { "{\"execute\":\"test-echo\"}",
      "{\"error\":{\"class\":\"GenericError\",\"desc\":\"test-echo lacks the argument 'text'\"}}" },
    { "{\"execute\":\"test-echo\",\"arguments\":{\"text\":1}}",
      "{\"error\":{\"class\":\"GenericError\",\"desc\":\"argument 'text' of test-echo must be a "
      "string\"}}" },
    { "{\"execute\":\"test-echo\",\"arguments\":{\"text\":\"a\",\"coumt\":1}}",
      "{\"error\":{\"class\":\"GenericError\",\"desc\":\"test-echo has no argument 'coumt'; did "
      "you mean "
      "'count'?\"}}" },
    { "{\"execute\":\"test-echo\",\"arguments\":[]}",
      "{\"error\":{\"class\":\"GenericError\",\"desc\":\"member 'arguments' must be an "
      "object\"}}" },
    { "{\"execute\":\"test-fail\",\"id\":\"i\"}",
      "{\"id\":\"i\",\"error\":{\"class\":\"DeviceNotFound\",\"desc\":\"there is no disk 'x'\"}}" },
    { "{\"execute\":\"test-ehco\"}", "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"The "
                                     "command test-ehco has not been found; did you mean "
                                     "'test-echo'?\"}}" },
    { "{\"exec-oob\":\"test-nothing\",\"id\":1}",
      "{\"id\":1,\"error\":{\"class\":\"GenericError\",\"desc\":\"out-of-band execution was not "
      "negotiated\"}}" },
    { "{\"execute\":\"test-nothing\",\"foo\":1}",
      "{\"error\":{\"class\":\"GenericError\",\"desc\":\"a command has no member 'foo'\"}}" },
    { "{}", "{\"error\":{\"class\":\"GenericError\",\"desc\":\"member 'execute' must be there and "
            "be a string\"}}" },
    { "{\"execute\":\"test-nothing\",\"id\":[1e999]}",
      "{\"error\":{\"class\":\"GenericError\",\"desc\":\"a number is out of range\"}}" },
    { "{\"execute\":\"test-nothing\",\"id\":1e20}",
      "{\"error\":{\"class\":\"GenericError\",\"desc\":\"a number is out of range\"}}" },
    { "{\"execute\":\"test-nothing\",\"id\":[\"9999999999999999999999\",-9223372036854775808,1.25]"
      "}",
      "{\"return\":{},\"id\":[\"9999999999999999999999\",-9223372036854775808,1.25]}" },
    { "{\"execute\":\"test-nothing\",\"id\":9223372036854775808}",
      "{\"error\":{\"class\":\"GenericError\",\"desc\":\"an integer does not fit 64 bits\"}}" },
    { "[{}]",
      "{\"error\":{\"class\":\"GenericError\",\"desc\":\"a command must be a JSON object\"}}" },
    { "hello\n",
      "{\"error\":{\"class\":\"GenericError\",\"desc\":\"Not JSON: expected an object\"}}" },
    { "{'execute':1}\n", "{\"error\":{\"class\":\"GenericError\",\"desc\":\"Not JSON: unexpected "
                         "character outside a string\"}}" },
    { "{\"a\\222\":1}\n", "{\"error\":{\"class\":\"GenericError\",\"desc\":\"Not JSON: unknown "
                          "escape in a string\"}}" },
    { "{/*\"*/}\n", "{\"error\":{\"class\":\"GenericError\",\"desc\":\"Not JSON: unexpected "
                    "character outside a string\"}}" },
    { "{\"a\xff\":1}",
      "{\"error\":{\"class\":\"GenericError\",\"desc\":\"JSON text is not UTF-8\"}}" },
    { "\r\n \t{\"execute\":\"test-nothing\"}\r\n", OK },
};

static void test_commands(void)
{
    struct peer p;
    peer_init(&p);
    negotiate(&p);
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        expect(&p, rows[i].send, rows[i].want);
    expect(&p, "{\"execute\":\"test-nothing\"}", OK);
    peer_done(&p);
}

static void test_any_split(void)
{
    struct peer p;
    const char *text =
        "{\"execute\":\"test-echo\",\"arguments\":{\"text\":\"\\\\\\\"é\"},\"id\":[2]}";
    peer_init(&p);
    negotiate(&p);
    for (size_t cut = 1; cut < strlen(text); cut++) {
        send_bytes(&p, text, cut);
        g_autofree char *early = take_line(&p);
        g_assert_cmpstr(early, ==, "");
        expect(&p, text + cut, "{\"return\":{\"text\":\"\\\\\\\"é\"},\"id\":[2]}");
    }
    /* Many at once, without anything between them. */
    for (int i = 0; i < 20; i++)
        send_bytes(&p, text, strlen(text));
    for (int i = 0; i < 20; i++)
        expect(&p, "", "{\"return\":{\"text\":\"\\\\\\\"é\"},\"id\":[2]}");
    peer_done(&p);
}

static void test_bombs(void)
{
    struct peer p;
    peer_init(&p);
    negotiate(&p);
    g_autofree char *deep = g_strnfill(100000, '[');
    send_bytes(&p, deep, strlen(deep));
    expect(&p, "\n",
           "{\"error\":{\"class\":\"GenericError\",\"desc\":\"JSON text is nested too deep\"}}");
    expect(&p, "{\"execute\":\"test-nothing\"}", OK);
    send_bytes(&p, "{\"a\0\":1}\n", 9);
    expect(&p, "",
           "{\"error\":{\"class\":\"GenericError\",\"desc\":\"JSON text contains a NUL byte\"}}");
    g_autofree char *huge = g_strnfill(QMP_MAX_INPUT + 1000, 'x');
    memcpy(huge, "{\"a\":\"", 6);
    send_bytes(&p, huge, strlen(huge));
    expect(&p, "\"}\n",
           "{\"error\":{\"class\":\"GenericError\",\"desc\":\"JSON text is too long\"}}");
    expect(&p, "{\"execute\":\"test-nothing\"}", OK);
    peer_done(&p);
}

static void test_events(void)
{
    struct peer p;
    peer_init(&p);
    negotiate(&p);
    JsonObject *data = json_object_new();
    json_object_set_boolean_member(data, "guest", TRUE);
    qmp_event(p.server, "TEST", data);
    g_autofree char *line = take_line(&p);
    g_assert_true(g_regex_match_simple(
        "^{\"timestamp\":{\"seconds\":\\d+,\"microseconds\":\\d+},\"event\":\"TEST\","
        "\"data\":{\"guest\":true}}$",
        line, 0, 0));
    peer_done(&p);
}

static void send_limited(struct peer *p, const char *path, int number)
{
    JsonObject *data = json_object_new();
    json_object_set_string_member(data, "path", path);
    json_object_set_int_member(data, "number", number);
    qmp_event(p->server, "LIMITED", data);
}

static void expect_limited(struct peer *p, const char *path, int number)
{
    g_autofree char *want = g_strdup_printf(
        "\"event\":\"LIMITED\",\"data\":{\"path\":\"%s\",\"number\":%d}}", path, number);
    char *line = take_line(p);
    while (!*line) {
        g_main_context_iteration(NULL, TRUE);
        g_free(line);
        line = take_line(p);
    }
    g_assert_nonnull(strstr(line, want));
    g_free(line);
}

/* Of a flood the first is sent at once, the last when the period ends, nothing between; another
 * device's are not held back by it. */
static void test_event_flood(void)
{
    struct peer p;
    peer_init(&p);
    negotiate(&p);
    gint64 begin = g_get_monotonic_time();
    for (int i = 0; i < 1000; i++)
        send_limited(&p, "a", i);
    send_limited(&p, "b", 7);
    expect_limited(&p, "a", 0);
    expect_limited(&p, "b", 7);
    expect_limited(&p, "a", 999);
    g_assert_cmpint(g_get_monotonic_time() - begin, >=, QMP_EVENT_PERIOD_MS * 1000);
    send_limited(&p, "a", 1); /* into the period that began with the last */
    expect_limited(&p, "a", 1);
    g_assert_cmpint(g_get_monotonic_time() - begin, >=, 2 * QMP_EVENT_PERIOD_MS * 1000);
    send_limited(&p, "a", 2); /* waits for ever: the server ends first */
    peer_done(&p);
}

static void send_burst(struct peer *p, const char *path, int number)
{
    JsonObject *data = json_object_new(), *info = json_object_new();
    json_object_set_string_member(info, "path", path);
    json_object_set_int_member(info, "number", number);
    json_object_set_object_member(data, "info", info);
    qmp_event(p->server, "BURST", data);
}

static void expect_burst(struct peer *p, const char *path, int number)
{
    g_autofree char *want = g_strdup_printf("\"info\":{\"path\":\"%s\",\"number\":%d}", path, number);
    g_autofree char *line = take_line(p);
    while (!*line) {
        g_main_context_iteration(NULL, TRUE);
        g_free(line);
        line = take_line(p);
    }
    g_assert_nonnull(strstr(line, want));
}

/* As many as the type allows are sent at once, for each string by itself; then it is as with one. */
static void test_event_burst(void)
{
    struct peer p;
    peer_init(&p);
    negotiate(&p);
    gint64 begin = g_get_monotonic_time();
    for (int i = 0; i < 1000; i++)
        send_burst(&p, "a", i);
    send_burst(&p, "b", 7);
    for (int i = 0; i < 3; i++)
        expect_burst(&p, "a", i);
    expect_burst(&p, "b", 7);
    expect_burst(&p, "a", 999);
    g_assert_cmpint(g_get_monotonic_time() - begin, >=, QMP_EVENT_PERIOD_MS * 1000);
    for (int i = 0; i < 2; i++) { /* the last one has opened a period, as one of its three */
        send_burst(&p, "a", i);
        expect_burst(&p, "a", i);
    }
    qmp_event(p.server, "BURST", NULL);
    g_autofree char *line = take_line(&p);
    g_assert_nonnull(strstr(line, "\"event\":\"BURST\"}"));
    peer_done(&p);
}

/* A client that never reads is dropped once too much waits for it; others go on. */
static void test_deaf_client(void)
{
    struct peer p;
    peer_init(&p);
    negotiate(&p);
    g_autofree char *text = g_strnfill(100000, 'e');
    for (int i = 0; i < 400; i++) {
        JsonObject *data = json_object_new();
        json_object_set_string_member(data, "text", text);
        qmp_event(p.server, "TEST", data);
    }
    int fds[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    while (g_main_context_iteration(NULL, FALSE))
        ;
    pump(&p);
    char byte;
    g_assert_cmpint(read(p.fd, &byte, 1), ==, 0); /* end of file */
    close(p.fd);
    p.fd = fds[0];
    sock_set_nonblock(fds[0], true);
    g_string_truncate(p.got, 0);
    qmp_server_accept(p.server, fds[1]);
    negotiate(&p);
    peer_done(&p);
}

static void test_listen(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *dir = g_dir_make_tmp("ruche-qmp-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "sock", NULL);
    g_autofree char *spec = g_strdup_printf("unix:%s,server=on,wait=off", path);
    struct qmp_server *s = qmp_server_new(NULL), *second = qmp_server_new(NULL);
    g_assert_true(qmp_server_can_listen(spec));
    g_assert_true(qmp_server_listen(s, spec, &error));
    /* Several clients at a time. */
    int a = sock_connect_unix(path, false, &error), b = sock_connect_unix(path, false, &error);
    g_assert_no_error(error);
    while (g_main_context_iteration(NULL, FALSE))
        ;
    char buf[16];
    g_assert_cmpint(read(a, buf, sizeof(buf)), ==, 16);
    g_assert_cmpint(read(b, buf, sizeof(buf)), ==, 16);
    g_assert_false(qmp_server_listen(second, spec, &error));
    g_assert_nonnull(strstr(error->message, "is in use: somebody listens there"));
    close(a);
    close(b);
    qmp_server_free(second);
    g_assert_true(g_file_test(path, G_FILE_TEST_EXISTS));
    qmp_server_free(s);
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    rmdir(dir);
}

static void test_schema(void)
{
    g_autoptr(JsonNode) schema = qmp_schema();
    JsonArray *list = json_node_get_array(schema);
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
    for (guint i = 0; i < json_array_get_length(list); i++)
        g_hash_table_add(names, (gpointer)json_object_get_string_member(
                                    json_array_get_object_element(list, i), "name"));
    /* Everything that is referred to is there. */
    for (guint i = 0; i < json_array_get_length(list); i++) {
        JsonObject *o = json_array_get_object_element(list, i);
        const char *arg = json_object_get_string_member_with_default(o, "arg-type", NULL);
        g_assert_true(!arg || g_hash_table_contains(names, arg));
        JsonArray *members = json_object_has_member(o, "members")
                                 ? json_object_get_array_member(o, "members")
                                 : NULL;
        for (guint k = 0; members && k < json_array_get_length(members); k++)
            g_assert_true(g_hash_table_contains(
                names,
                json_object_get_string_member(json_array_get_object_element(members, k), "type")));
    }
    g_assert_true(g_hash_table_contains(names, "test-echo") &&
                  g_hash_table_contains(names, "TEST"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    scratch_folder("ruche-qmp");
    g_test_add_func("/qmp/negotiation", test_negotiation);
    g_test_add_func("/qmp/commands", test_commands);
    g_test_add_func("/qmp/any-split", test_any_split);
    g_test_add_func("/qmp/bombs", test_bombs);
    g_test_add_func("/qmp/events", test_events);
    g_test_add_func("/qmp/event-flood", test_event_flood);
    g_test_add_func("/qmp/event-burst", test_event_burst);
    g_test_add_func("/qmp/deaf-client", test_deaf_client);
    g_test_add_func("/qmp/listen", test_listen);
    g_test_add_func("/qmp/schema", test_schema);
    g_test_add_func("/qmp/descriptors", test_descriptors);
    return g_test_run();
}
