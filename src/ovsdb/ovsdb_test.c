/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Values there and back, messages, and the client against servers of every kind. */
#include "base/fd.h"
#include "base/fiber.h"
#include "base/scratch.h"
#include "base/sock.h"
#include "ovsdb/client.h"
#include "ovsdb/message.h"
#include "ovsdb/tls.h"
#include "ovsdb/value.h"

#include <glib-unix.h>
#include <glib/gstdio.h>
#include <gnutls/x509.h>
#include <string.h>
#include <unistd.h>

/* ---- values ---- */

#define UUID "550e8400-e29b-41d4-a716-446655440000"

static void test_values(void)
{
    static const char *const good[] = {
        "\"text\"",
        "7",
        "-9223372036854775808",
        "1.5",
        "true",
        "[\"uuid\",\"" UUID "\"]",
        "[\"named-uuid\",\"_row1\"]",
        "[\"set\",[]]",
        "[\"set\",[1,2,3]]",
        "[\"map\",[]]",
        "[\"map\",[[\"a\",\"b\"],[\"c\",[\"uuid\",\"" UUID "\"]]]]",
    };
    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autoptr(JsonNode) in = json_from_string(good[i], NULL), out = NULL;
        auto_ovsdb_datum d;
        g_assert_null(ovsdb_datum_parse(&d, in));
        out = ovsdb_datum_format(&d);
        g_autofree char *text = json_to_string(out, FALSE);
        g_assert_cmpstr(text, ==, good[i]);
    }
    static const char *const bad[] = {
        "null",
        "{}",
        "[]",
        "[1]",
        "[\"uuid\",\"x\"]",
        "[\"uuid\",7]",
        "[\"named-uuid\",\"a-b\"]",
        "[\"set\",7]",
        "[\"set\",[null]]",
        "[\"set\",[[\"set\",[]]]]",
        "[\"map\",[1]]",
        "[\"map\",[[1]]]",
        "[\"map\",[[null,\"x\"]]]",
        "[\"map\",[[\"x\",[]]]]",
        "[\"sat\",[]]",
    };
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(JsonNode) in = json_from_string(bad[i], NULL);
        struct ovsdb_datum d;
        g_assert_nonnull(ovsdb_datum_parse(&d, in));
        g_assert_cmpuint(d.count, ==, 0);
        g_assert_null(d.keys);
    }
}

static void test_reading(void)
{
    g_autoptr(JsonNode) node = json_from_string(
        "{\"_uuid\":[\"uuid\",\"" UUID
        "\"],\"tag\":[\"set\",[]],\"ids\":[\"map\",[[\"a\",\"1\"],[\"b\",\"2\"]]]}",
        NULL);
    JsonObject *row = json_node_get_object(node);
    auto_ovsdb_datum id = {0}, tag = {0}, ids = {0};
    struct ovsdb_datum none;
    g_assert_null(ovsdb_row_get(row, "_uuid", &id));
    g_assert_null(ovsdb_row_get(row, "tag", &tag));
    g_assert_null(ovsdb_row_get(row, "ids", &ids));
    g_assert_nonnull(ovsdb_row_get(row, "none", &none));
    g_assert_cmpstr(ovsdb_datum_text(&id, OVSDB_UUID), ==, UUID);
    g_assert_null(ovsdb_datum_text(&id, OVSDB_STRING));
    g_assert_null(ovsdb_datum_text(&tag, OVSDB_STRING));
    g_assert_cmpstr(ovsdb_datum_get(&ids, "b"), ==, "2");
    g_assert_null(ovsdb_datum_get(&ids, "c"));
    static const char *const pairs[] = {"k", "v", "left out", "", NULL};
    g_autoptr(JsonNode) map = ovsdb_map(pairs),
                        numbers = ovsdb_integers((const int64_t[]){4, 5}, 2);
    g_autofree char *a = json_to_string(map, FALSE), *b = json_to_string(numbers, FALSE);
    g_assert_cmpstr(a, ==, "[\"map\",[[\"k\",\"v\"]]]");
    g_assert_cmpstr(b, ==, "[\"set\",[4,5]]");
}

static void test_messages(void)
{
    static const struct {
        const char *text;
        int kind; /* -1: refused */
    } rows[] = {
        {"{\"method\":\"echo\",\"params\":[],\"id\":\"echo\"}", OVSDB_REQUEST},
        {"{\"method\":\"update\",\"params\":[null,{}],\"id\":null}", OVSDB_NOTIFICATION},
        {"{\"id\":1,\"result\":[],\"error\":null}", OVSDB_RESPONSE},
        {"{\"id\":1,\"result\":null,\"error\":\"x\"}", OVSDB_RESPONSE},
        {"{\"id\":1,\"result\":[],\"error\":\"x\"}", -1},
        {"{\"result\":[]}", -1},
        {"{\"method\":7,\"params\":[]}", -1},
        {"{\"method\":\"x\",\"params\":{}}", -1},
        {"{\"method\":{},\"params\":[]}", -1},
        {"[]", -1},
        {"{", -1},
        {"", -1},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct ovsdb_message m;
        const char *why = ovsdb_message_parse(&m, rows[i].text, strlen(rows[i].text));
        g_assert_cmpint(why ? -1 : (int)m.kind, ==, rows[i].kind);
        ovsdb_message_done(&m);
    }
}

/* ---- the client ---- */

/* A server: what it sends for each text that comes; "" closes; NULL says nothing. %ID% is the
 * request's number. */
struct server {
    const char *const *answers;
    unsigned at, connections;
    int listener, fd;
    guint accepting, reading;
    GString *in;
    struct sock_path place;
    char *address, *dir;
    GString *heard;
};

static void server_hang_up(struct server *s)
{
    g_clear_handle_id(&s->reading, g_source_remove);
    fd_close_keep_errno(fd_steal(&s->fd));
    g_string_truncate(s->in, 0);
}

static void server_answer(struct server *s, const char *request, size_t len)
{
    struct ovsdb_message m;
    g_assert_null(ovsdb_message_parse(&m, request, len));
    g_string_append_len(s->heard, request, (gssize)len);
    if (m.kind == OVSDB_RESPONSE) { /* to our echo */
        ovsdb_message_done(&m);
        return;
    }
    const char *answer = s->answers[s->at++];
    g_autofree char *id = json_to_string(m.id, FALSE);
    ovsdb_message_done(&m);
    if (!answer)
        return;
    if (!*answer) {
        server_hang_up(s);
        return;
    }
    g_auto(GStrv) parts = g_strsplit(answer, "%ID%", -1);
    g_autofree char *text = g_strjoinv(id, parts);
    for (const char *p = text; p && *p;) { /* in small pieces */
        size_t len = MIN(7, strlen(p));
        g_assert_cmpint(write(s->fd, p, len), >, 0);
        p += len;
    }
}

static gboolean server_read(int fd, GIOCondition condition, gpointer opaque)
{
    struct server *s = opaque;
    char buf[4096];
    ssize_t n = read(fd, buf, sizeof(buf));
    if (n <= 0) {
        s->reading = 0;
        server_hang_up(s);
        return G_SOURCE_REMOVE;
    }
    g_string_append_len(s->in, buf, n);
    unsigned depth = 0; /* of our own client's texts, which have no brackets in strings here */
    for (size_t i = 0; i < s->in->len; i++) {
        depth += s->in->str[i] == '{';
        if (s->in->str[i] == '}' && !--depth) {
            g_autofree char *text = g_strndup(s->in->str, i + 1);
            g_string_erase(s->in, 0, (gssize)i + 1);
            server_answer(s, text, strlen(text));
            break;
        }
    }
    return s->reading != 0;
}

static gboolean server_accept(int fd, GIOCondition condition, gpointer opaque)
{
    struct server *s = opaque;
    server_hang_up(s);
    s->fd = sock_accept(fd);
    g_assert_cmpint(s->fd, >=, 0);
    sock_set_nonblock(s->fd, false);
    s->connections++;
    s->reading = g_unix_fd_add(s->fd, G_IO_IN | G_IO_HUP, server_read, s);
    return G_SOURCE_CONTINUE;
}

static void server_start(struct server *s, const char *const *answers)
{
    *s = (struct server){.answers = answers, .fd = -1};
    s->dir = g_dir_make_tmp("ruche-ovsdb-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(s->dir, "db", NULL);
    s->address = g_strconcat("unix:", path, NULL);
    s->listener = sock_listen_unix(path, &s->place, NULL);
    g_assert_cmpint(s->listener, >=, 0);
    s->in = g_string_new(NULL);
    s->heard = g_string_new(NULL);
    s->accepting = g_unix_fd_add(s->listener, G_IO_IN, server_accept, s);
}

static void server_stop(struct server *s)
{
    server_hang_up(s);
    g_clear_handle_id(&s->accepting, g_source_remove);
    close(s->listener);
    sock_path_remove(&s->place);
    g_rmdir(s->dir);
    g_free(s->dir);
    g_free(s->address);
    g_string_free(s->in, TRUE);
    g_string_free(s->heard, TRUE);
}

struct talk {
    struct server server;
    struct ovsdb_client *c;
    unsigned notified, closed;
    bool over;
    void (*fn)(struct talk *t);
};

static void notify(void *opaque, const char *method, JsonArray *params)
{
    struct talk *t = opaque;
    t->notified += !strcmp(method, "update") && json_array_get_length(params) == 2;
}

static void closed(void *opaque, const char *why)
{
    ((struct talk *)opaque)->closed++;
}

static void talk_fiber(void *opaque)
{
    struct talk *t = opaque;
    t->fn(t);
    t->over = true;
}

static void talk(const char *const *answers, void (*fn)(struct talk *t))
{
    static const struct ovsdb_client_ops ops = {notify, closed};
    struct talk t = {.fn = fn};
    server_start(&t.server, answers);
    t.c = ovsdb_client_new(t.server.address, &ops, &t, NULL);
    g_assert_nonnull(t.c);
    fiber_start(talk_fiber, &t);
    while (!t.over)
        g_main_context_iteration(NULL, TRUE);
    ovsdb_client_free(t.c);
    server_stop(&t.server);
}

#define LONG 60000

static void call_fails(struct talk *t, int code, int timeout_ms)
{
    g_autoptr(GError) error = NULL;
    g_assert_null(ovsdb_client_call(t->c, "list_dbs", json_array_new(), timeout_ms, &error));
    g_assert_error(error, OVSDB_CLIENT_ERROR, code);
    g_assert_nonnull(strstr(error->message, "unix:"));
}

static void call_works(struct talk *t)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) n = ovsdb_client_call(t->c, "list_dbs", json_array_new(), LONG, &error);
    g_assert_no_error(error);
    g_autofree char *text = json_to_string(n, FALSE);
    g_assert_cmpstr(text, ==, "[\"Open_vSwitch\"]");
}

#define DBS "{\"id\":%ID%,\"result\":[\"Open_vSwitch\"],\"error\":null}"

static void talk_calls(struct talk *t)
{
    call_works(t);
    call_fails(t, OVSDB_ERR_REFUSED, LONG);
    call_works(t);
    g_assert_cmpuint(t->notified, ==, 2);
    while (
        !strstr(t->server.heard->str, "{\"id\":\"are you there\",\"result\":[1],\"error\":null}"))
        g_main_context_iteration(NULL, TRUE); /* the server reads it */
    g_assert_cmpuint(t->server.connections, ==, 1);
}

static void test_calls(void)
{
    static const char *const answers[] = {
        DBS,
        "{\"id\":null,\"method\":\"update\",\"params\":[null,{}]}{\"id\":%ID%,\"result\":null,"
        "\"error\":\"no\"}",
        "{\"id\":null,\"method\":\"update\",\"params\":[null,{}]}{\"id\":\"are you "
        "there\",\"method\":\"echo\",\"params\":[1]}" DBS,
    };
    talk(answers, talk_calls);
}

static void talk_broken(struct talk *t)
{
    unsigned rows = 8;
    for (unsigned i = 0; i < rows; i++)
        call_fails(t, OVSDB_ERR_BROKEN, LONG);
    call_works(t); /* by a new connection */
    g_assert_cmpuint(t->closed, ==, rows);
    g_assert_cmpuint(t->server.connections, ==, rows + 1);
    call_fails(t, OVSDB_ERR_SILENT, 50);
    call_works(t); /* an answer to the other that comes first is passed over */
}

static void test_broken(void)
{
    GString *deep = g_string_new("{\"id\":%ID%,\"result\":");
    for (unsigned i = 0; i < 100; i++)
        g_string_append_c(deep, '[');
    const char *const answers[] = {
        "",
        "nonsense",
        "[]",
        "{\"id\":99,\"result\":[],\"error\":null}",
        "{\"id\":%ID%,\"result\":[],\"error\":\"both\"}",
        "{\"id\":-1,\"result\":[]}",
        "{\"id\":\"x\",\"result\":[]}",
        deep->str,
        DBS,
        NULL,
        "{\"id\":9,\"result\":[],\"error\":null}" DBS,
    };
    talk(answers, talk_broken);
    g_string_free(deep, TRUE);
}

static JsonArray *two_operations(void)
{
    g_autoptr(JsonNode) n = json_from_string(
        "[{\"op\":\"comment\",\"comment\":\"a\"},{\"op\":\"comment\",\"comment\":\"b\"}]", NULL);
    return json_node_dup_array(n);
}

static void talk_transactions(struct talk *t)
{
    static const char *const why[] = {"full: a disk", "was not carried out", "2 operations have 1",
                                      "not an array", "commit failed"};
    g_autoptr(JsonArray) good =
        ovsdb_client_transact(t->c, "Open_vSwitch", two_operations(), LONG, NULL);
    g_assert_cmpuint(json_array_get_length(good), ==, 2);
    for (size_t i = 0; i < G_N_ELEMENTS(why); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_null(ovsdb_client_transact(t->c, "Open_vSwitch", two_operations(), LONG, &error));
        g_assert_error(error, OVSDB_CLIENT_ERROR, OVSDB_ERR_REFUSED);
        g_assert_nonnull(strstr(error->message, why[i]));
    }
}

static void test_transactions(void)
{
    static const char *const answers[] = {
        "{\"id\":%ID%,\"result\":[{},{}],\"error\":null}",
        "{\"id\":%ID%,\"result\":[{},{\"error\":\"full\",\"details\":\"a disk\"}],\"error\":null}",
        "{\"id\":%ID%,\"result\":[{},null],\"error\":null}",
        "{\"id\":%ID%,\"result\":[{}],\"error\":null}",
        "{\"id\":%ID%,\"result\":{},\"error\":null}",
        "{\"id\":%ID%,\"result\":[{},{},{\"error\":\"commit failed\"}],\"error\":null}",
    };
    talk(answers, talk_transactions);
}

static void talk_nobody(struct talk *t)
{
    g_clear_handle_id(&t->server.accepting, g_source_remove);
    sock_path_remove(&t->server.place);
    call_fails(t, OVSDB_ERR_UNREACHABLE, LONG);
}

static void test_addresses(void)
{
    static const char *const bad[] = {"",
                                      "unix:",
                                      "tcp:",
                                      "tcp:localhost:1",
                                      "tcp:1.2.3.4",
                                      "tcp:1.2.3.4:0",
                                      "tcp:1.2.3.4:x",
                                      "ssl:1.2.3.4",
                                      "tls:1.2.3.4:5",
                                      "/path"};
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_null(ovsdb_client_new(bad[i], NULL, NULL, &error));
        g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_INVALID);
    }
    ovsdb_client_free(ovsdb_client_new("tcp:[::1]:6640", NULL, NULL, NULL));
    static const char *const none[] = {NULL};
    talk(none, talk_nobody);
}

/* ---- TLS: servers that do not speak it ---- */

/* What a TCP server says to each that comes; then it waits, or closes. */
struct hostile {
    const char *bytes;
    size_t len;
    bool closes;
    int code;
    const char *why;
};

struct hostile_server {
    const struct hostile *h;
    int fd, peer;
    bool over;
    char *address;
    struct ovsdb_tls_files files;
};

static gboolean accept_hostile(int fd, GIOCondition condition, gpointer opaque)
{
    struct hostile_server *s = opaque;
    s->peer = sock_accept(fd);
    g_assert_cmpint(s->peer, >=, 0);
    g_assert_cmpint(write(s->peer, s->h->bytes, s->h->len), ==, (ssize_t)s->h->len);
    if (s->h->closes)
        fd_close_keep_errno(fd_steal(&s->peer));
    return G_SOURCE_REMOVE;
}

static void hostile_fiber(void *opaque)
{
    struct hostile_server *s = opaque;
    g_autoptr(GError) error = NULL;
    struct ovsdb_client *c = ovsdb_client_new(s->address, NULL, NULL, NULL);
    g_assert_nonnull(c);
    ovsdb_client_set_tls(c, &s->files);
    bool silent = s->h->code == OVSDB_ERR_SILENT;
    g_assert_null(ovsdb_client_call(c, "list_dbs", json_array_new(), silent ? 200 : LONG, &error));
    g_assert_error(error, OVSDB_CLIENT_ERROR, s->h->code);
    if (!strstr(error->message, s->h->why))
        g_error("'%s' is not in '%s'", s->h->why, error->message);
    ovsdb_client_free(c);
    s->over = true;
}

static void try_hostile(const struct hostile *h, const struct ovsdb_tls_files *files)
{
    g_autofree char *where = NULL;
    struct hostile_server s = {.h = h, .peer = -1, .files = *files};
    s.fd = sock_listen_tcp("127.0.0.1", "0", &where, NULL);
    g_assert_cmpint(s.fd, >=, 0);
    s.address = g_strconcat("ssl:", where, NULL);
    guint source = g_unix_fd_add(s.fd, G_IO_IN, accept_hostile, &s);
    fiber_start(hostile_fiber, &s);
    while (!s.over)
        g_main_context_iteration(NULL, TRUE);
    if (s.peer < 0 && !h->closes)
        g_source_remove(source);
    fd_close_keep_errno(s.fd);
    if (s.peer >= 0)
        fd_close_keep_errno(s.peer);
    g_free(s.address);
}

/* A certificate of its own CA, in three files of the folder. */
static void make_certificate(const char *dir, struct ovsdb_tls_files *ret)
{
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t crt;
    gnutls_datum_t pem[2] = {{0}};
    g_assert_cmpint(gnutls_x509_privkey_init(&key) | gnutls_x509_crt_init(&crt), ==, 0);
    unsigned bits = GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1);
    g_assert_cmpint(gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, bits, 0), ==, 0);
    g_assert_cmpint(gnutls_x509_crt_set_key(crt, key), ==, 0);
    gnutls_x509_crt_set_version(crt, 3);
    gnutls_x509_crt_set_serial(crt, "1", 1);
    gnutls_x509_crt_set_ca_status(crt, 1);
    gnutls_x509_crt_set_activation_time(crt, 0);
    gnutls_x509_crt_set_expiration_time(crt, (time_t)1 << 32);
    g_assert_cmpint(gnutls_x509_crt_sign2(crt, crt, key, GNUTLS_DIG_SHA256, 0), ==, 0);
    gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem[0]);
    gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem[1]);
    ret->key = g_build_filename(dir, "key.pem", NULL);
    ret->certificate = g_build_filename(dir, "certificate.pem", NULL);
    ret->ca = g_strdup(ret->certificate);
    g_assert_true(g_file_set_contents(ret->key, (char *)pem[0].data, pem[0].size, NULL));
    g_assert_true(g_file_set_contents(ret->ca, (char *)pem[1].data, pem[1].size, NULL));
    gnutls_free(pem[0].data);
    gnutls_free(pem[1].data);
    gnutls_x509_privkey_deinit(key);
    gnutls_x509_crt_deinit(crt);
}

static void test_tls(void)
{
    static const char record[] = "\x16\x03\x03\xff\xff", hello[] = "{\"id\":0,\"result\":[]}",
                      alert[] = "\x15\x03\x03\x00\x02\x02\x28";
    static const struct hostile rows[] = {
        {"", 0, false, OVSDB_ERR_SILENT, "TLS did not begin in time"},
        {"", 0, true, OVSDB_ERR_BROKEN, "ssl:127.0.0.1"},
        {hello, sizeof(hello) - 1, false, OVSDB_ERR_BROKEN, "TLS: "},
        {record, sizeof(record) - 1, false, OVSDB_ERR_BROKEN, "TLS: "},
        {alert, sizeof(alert) - 1, false, OVSDB_ERR_BROKEN, "refused TLS: Handshake failed"},
    };
    g_autofree char *dir = g_dir_make_tmp("ovsdb-XXXXXX", NULL);
    struct ovsdb_tls_files files;
    make_certificate(dir, &files);
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        try_hostile(&rows[i], &files);
    struct hostile nothing = {"", 0, false, OVSDB_ERR_BROKEN, "ovsdb_ca of [network]"};
    try_hostile(&nothing, &(struct ovsdb_tls_files){0});
    nothing.why = files.key;
    try_hostile(&nothing, &(struct ovsdb_tls_files){files.ca, files.key, files.ca});
    g_unlink(files.key);
    g_unlink(files.certificate);
    g_rmdir(dir);
    g_free(files.key);
    g_free(files.certificate);
    g_free(files.ca);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    scratch_folder("ruche-ovsdb");
    g_test_add_func("/ovsdb/values", test_values);
    g_test_add_func("/ovsdb/reading", test_reading);
    g_test_add_func("/ovsdb/messages", test_messages);
    g_test_add_func("/ovsdb/calls", test_calls);
    g_test_add_func("/ovsdb/broken", test_broken);
    g_test_add_func("/ovsdb/transactions", test_transactions);
    g_test_add_func("/ovsdb/addresses", test_addresses);
    g_test_add_func("/ovsdb/tls", test_tls);
    return g_test_run();
}
