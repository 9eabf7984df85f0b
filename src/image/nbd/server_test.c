/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Our client at our server, in one thread, and with the exports on another one: what a user sees of exports, of
 * their end, and of many connections. */
#include "base/fd.h"
#include "base/sock.h"
#include "image/dirty.h"
#include "image/nbd/client.h"
#include "image/nbd/server.h"
#include "image/job.h"
#include "image/testbed.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define DISK_BYTES (4 * MIB)

struct ground {
    struct bed *bed;
    struct node *disk;
    struct nbd_server *server;
    char *path;
    unsigned idle; /* how often the last client went */
};

static void on_idle(void *opaque)
{
    ((struct ground *)opaque)->idle++;
}

static int open_disk(void *opaque)
{
    struct ground *g = opaque;
    g->disk = node_open_name(g->bed->graph, "memory://disk", "raw", NULL, NODE_RW, NULL);
    return 0;
}

static struct ground *ground_new(unsigned max_connections)
{
    struct ground *g = g_new0(struct ground, 1);
    g->bed = bed_new();
    memory_file_new("disk", DISK_BYTES);
    context_run(g->bed->ctx, open_disk, g);
    g_assert_nonnull(g->disk);
    g->path = g_strdup_printf("@ruche-nbd-test-%d", getpid());
    struct nbd_server_config config = NBD_SERVER_CONFIG_INIT;
    config.unix_path = g->path;
    config.max_connections = max_connections;
    config.idle = on_idle;
    config.opaque = g;
    g_autoptr(GError) error = NULL;
    g->server = nbd_server_new(g->bed->ctx, &config, &error);
    g_assert_no_error(error);
    return g;
}

static int close_disk(void *opaque)
{
    node_unref(opaque);
    return 0;
}

static void ground_free(struct ground *g)
{
    nbd_server_free(g->server);
    context_run(g->bed->ctx, close_disk, g->disk);
    memory_file_free(memory_file_find("disk"));
    bed_free(g->bed);
    g_free(g->path);
    g_free(g);
}

static struct nbd_export *export(struct ground *g, const char *name, bool writable, GError **error)
{
    struct nbd_export_config c = { .name = name, .node = g->disk, .writable = writable };
    return nbd_server_add(g->server, &c, error);
}

static struct node *client(struct ground *g, const char *name, const char *more, GError **error)
{
    g_autofree char *text = g_strdup_printf(
        "driver=nbd,server.type=unix,server.path=%s,export=%s%s", g->path, name, more);
    g_autoptr(JsonObject) o = option_parse_text(text, NULL, error);
    g_assert_nonnull(o);
    return node_open(g->bed->graph, o, NODE_RW, error);
}

static void refused(GError **error, int code, const char *part)
{
    g_assert_error(*error, RUCHE_ERROR, code);
    if (!strstr((*error)->message, part))
        g_error("'%s' is not in: %s", part, (*error)->message);
    g_clear_error(error);
}

/* --- requests --- */

static int round_trip(void *opaque)
{
    struct node *n = opaque;
    static uint8_t out[3 * MIB], in[3 * MIB];
    struct image_extent e;
    for (size_t i = 0; i < sizeof(out); i++)
        out[i] = (uint8_t)(i * 7 + i / 4096 + 1);
    g_assert_cmpint(node_pwrite(n, 1000, out, sizeof(out), 0), ==, 0);
    g_assert_cmpint(node_pread(n, 1000, in, sizeof(in)), ==, 0);
    g_assert_cmpmem(in, sizeof(in), out, sizeof(out));
    g_assert_cmpint(node_pwrite(n, 5, out, 100, NODE_FUA), ==, 0);
    g_assert_cmpint(node_zero(n, MIB, MIB, NODE_MAY_UNMAP), ==, 0);
    g_assert_cmpint(node_discard(n, 3 * MIB, 65536), ==, 0);
    g_assert_cmpint(node_flush(n), ==, 0);
    g_assert_cmpint(node_pread(n, MIB, in, MIB), ==, 0);
    g_assert_true(bytes_are_zero(in, MIB));
    g_assert_cmpint(node_map(n, MIB, MIB, &e), ==, 0);
    g_assert_cmpuint(e.len, ==, MIB);
    g_assert_true(e.flags & EXTENT_ZERO);
    g_assert_cmpint(node_pread(n, DISK_BYTES - 10, in, 11), ==, -EINVAL);
    return 0;
}

static void test_round_trip(void)
{
    struct ground *g = ground_new(0);
    g_autoptr(GError) error = NULL;
    g_assert_nonnull(export(g, "x", true, &error));
    struct node *n = client(g, "x", ",multi-conn=3", &error);
    g_assert_no_error(error);
    g_assert_cmpuint(node_size(n), ==, DISK_BYTES);
    g_assert_cmpuint(nbd_server_client_count(g->server), ==, 3);
    context_run(g->bed->ctx, round_trip, n);
    context_run(g->bed->ctx, close_disk, n);
    ground_free(g);
}

/* --- exports --- */

static int add_disabled_bitmap(void *opaque)
{
    struct ground *g = opaque;
    struct dirty_bitmap *b = dirty_new(g->disk, 0, "b", 65536, NULL);
    g_assert_nonnull(b);
    return 0;
}

static void test_exports(void)
{
    struct ground *g = ground_new(0);
    g_autoptr(GError) error = NULL;
    const char *bitmaps[] = { "b", NULL };
    struct nbd_export_config c = {
        .name = "bits", .node = g->disk, .writable = true, .bitmaps = bitmaps
    };
    g_assert_null(nbd_server_add(g->server, &c, &error));
    refused(&error, RUCHE_ERR_NOT_FOUND, "no dirty bitmap 'b'");
    context_run(g->bed->ctx, add_disabled_bitmap, g);
    c.writable = false;
    g_assert_null(nbd_server_add(g->server, &c, &error));
    refused(&error, RUCHE_ERR_STATE, "'b' is enabled");
    c.writable = true;
    g_assert_nonnull(nbd_server_add(g->server, &c, &error));
    g_assert_true(dirty_find(g->disk, "b")->busy);
    g_assert_null(export(g, "bits", true, &error));
    refused(&error, RUCHE_ERR_EXISTS, "'bits' exists already");
    g_assert_nonnull(export(g, "x", false, &error));

    g_assert_null(client(g, "x", "", &error));
    refused(&error, RUCHE_ERR_UNSUPPORTED, "'x' is read-only");
    g_assert_null(client(g, "y", ",open-timeout=60", &error));
    refused(&error, RUCHE_ERR_NOT_FOUND, "export 'y'");
    g_assert_null(client(g, "x", ",read-only=on,x-dirty-bitmap=qemu:dirty-bitmap:b", &error));
    refused(&error, RUCHE_ERR_NOT_FOUND, "qemu:dirty-bitmap:b");

    g_assert_false(nbd_server_remove(g->server, "y", true, &error));
    refused(&error, RUCHE_ERR_NOT_FOUND, "'y'");
    g_assert_true(nbd_server_remove(g->server, "bits", false, &error));
    g_assert_false(dirty_find(g->disk, "b")->busy);
    g_assert_null(nbd_server_find(g->server, "bits"));
    g_assert_cmpstr(nbd_export_get_name(nbd_server_next(g->server, NULL)), ==, "x");
    ground_free(g);
}

static int read_one(void *opaque)
{
    uint8_t byte;
    return node_pread(opaque, 0, &byte, 1);
}

static void test_removal(void)
{
    struct ground *g = ground_new(0);
    g_autoptr(GError) error = NULL;
    struct nbd_export *e = export(g, "x", true, &error);
    g_assert_nonnull(export(g, "other", true, &error));
    struct node *n = client(g, "x", "", &error), *other = client(g, "other", "", &error);
    g_assert_cmpint(context_run(g->bed->ctx, read_one, n), ==, 0);
    g_assert_cmpuint(nbd_export_client_count(e), ==, 1);
    g_assert_false(nbd_server_remove(g->server, "x", false, &error));
    refused(&error, RUCHE_ERR_BUSY, "has 1 client;");
    g_assert_true(nbd_server_remove(g->server, "x", true, &error));
    g_assert_cmpint(context_run(g->bed->ctx, read_one, n), ==, -EIO);
    g_assert_cmpint(context_run(g->bed->ctx, read_one, other), ==, 0);
    context_run(g->bed->ctx, close_disk, n);
    context_run(g->bed->ctx, close_disk, other);
    ground_free(g);
}

/* --- draining --- */

struct drain {
    struct ground *g;
    struct node *n;
    bool read_done;
};

static void read_fiber(void *opaque)
{
    struct drain *d = opaque;
    g_assert_cmpint(read_one(d->n), ==, 0);
    d->read_done = true;
}

static int drain(void *opaque)
{
    struct drain *d = opaque;
    node_drain_begin(d->g->disk);
    fiber_start(read_fiber, d);
    context_sleep_ns(d->g->bed->ctx, 50 * NS_PER_MS);
    g_assert_false(d->read_done);
    node_drain_end(d->g->disk);
    for (unsigned i = 0; i < 500 && !d->read_done; i++)
        context_sleep_ns(d->g->bed->ctx, 10 * NS_PER_MS);
    g_assert_true(d->read_done);
    return 0;
}

static void test_drain(void)
{
    struct ground *g = ground_new(0);
    g_autoptr(GError) error = NULL;
    g_assert_nonnull(export(g, "x", true, &error));
    struct drain d = { .g = g, .n = client(g, "x", "", &error) };
    g_assert_no_error(error);
    context_run(g->bed->ctx, drain, &d);
    context_run(g->bed->ctx, close_disk, d.n);
    ground_free(g);
}

/* --- another thread --- */

static int pause_shortly(void *opaque)
{
    context_sleep_ns(opaque, 20 * NS_PER_MS);
    return 0;
}

struct far {
    struct loop *loop;
    struct context *ctx;
};

static void far_init(struct far *f)
{
    f->loop = loop_new("far");
    g_assert_cmpint(loop_thread_start(f->loop), ==, 0);
    f->ctx = context_get(f->loop);
    g_assert_nonnull(f->ctx);
}

static void far_done(struct far *f)
{
    loop_thread_join(f->loop);
    context_put(f->ctx);
    loop_free(f->loop);
}

static int drain_shortly(void *opaque)
{
    struct ground *g = opaque;
    node_drain_begin(g->disk);
    context_sleep_ns(node_context(g->disk), NS_PER_MS);
    node_drain_end(g->disk);
    return 0;
}

struct storm {
    struct node *n;
    unsigned left;
};

static void storm_fiber(void *opaque)
{
    struct storm *s = opaque;
    uint8_t buf[4096] = { 1 };
    for (unsigned i = 0; i < 50; i++) {
        g_assert_cmpint(node_pwrite(s->n, i * 8192, buf, sizeof(buf), 0), ==, 0);
        g_assert_cmpint(node_pread(s->n, i * 8192, buf, sizeof(buf)), ==, 0);
    }
    s->left--;
}

static int storm(void *opaque)
{
    struct storm *s = opaque;
    s->left = 8;
    for (unsigned i = 0; i < 8; i++)
        fiber_start(storm_fiber, s);
    for (unsigned i = 0; i < 2000 && s->left; i++)
        context_sleep_ns(node_context(s->n), 5 * NS_PER_MS);
    g_assert_cmpuint(s->left, ==, 0);
    return 0;
}

/* The server here, the export's node there: clients come, are served there, and go, while it is drained. */
static void test_far(void)
{
    struct ground *g = ground_new(0);
    struct far f;
    g_autoptr(GError) error = NULL;
    far_init(&f);
    g_assert_true(node_move(g->disk, f.ctx, &error));
    g_assert_nonnull(export(g, "x", true, &error));
    for (unsigned i = 0; i < 5; i++) {
        struct node *n = client(g, "x", ",multi-conn=2", &error);
        struct storm s = { .n = n };
        g_assert_no_error(error);
        context_run(g->bed->ctx, round_trip, n);
        context_run(f.ctx, drain_shortly, g);
        context_run(g->bed->ctx, storm, &s);
        context_run(g->bed->ctx, close_disk, n);
    }
    struct node *n = client(g, "x", "", &error);
    g_assert_true(nbd_server_remove(g->server, "x", true, &error));
    g_assert_cmpint(context_run(g->bed->ctx, read_one, n), ==, -EIO);
    context_run(g->bed->ctx, close_disk, n);
    g_assert_true(node_move(g->disk, g->bed->ctx, &error));
    far_done(&f);
    ground_free(g);
}

/* An exported node moves while nobody is connected, there and back; and not while somebody is. */
static void test_move(void)
{
    struct ground *g = ground_new(0);
    struct far one, two;
    g_autoptr(GError) error = NULL;
    far_init(&one);
    far_init(&two);
    struct context *const way[] = { one.ctx, two.ctx, g->bed->ctx, two.ctx, g->bed->ctx };
    struct nbd_export *e = export(g, "x", true, &error);
    for (unsigned i = 0; i < ARRAY_COUNT(way); i++) {
        g_assert_true(node_move(g->disk, way[i], &error));
        g_assert_true(node_context(g->disk) == way[i]);
        struct node *n = client(g, "x", "", &error);
        g_assert_no_error(error);
        context_run(g->bed->ctx, round_trip, n);
        g_assert_false(node_move(g->disk, way[(i + 1) % ARRAY_COUNT(way)], &error));
        refused(&error, RUCHE_ERR_BUSY, "NBD export 'x' uses it");
        context_run(g->bed->ctx, round_trip, n);
        context_run(g->bed->ctx, close_disk, n);
        for (unsigned k = 0; k < 500 && nbd_export_client_count(e); k++)
            context_run(g->bed->ctx, pause_shortly, g->bed->ctx);
        g_assert_cmpuint(nbd_export_client_count(e), ==, 0);
    }
    far_done(&one);
    far_done(&two);
    ground_free(g);
}

/* --- many connections --- */

/* More idle ones than the ring has entries: requests go on all the same. */
static void test_many(void)
{
    enum { MANY = 300 };
    struct ground *g = ground_new(MANY + 10);
    g_autoptr(GError) error = NULL;
    static int fds[MANY];
    g_assert_nonnull(export(g, "x", true, &error));
    for (unsigned i = 0; i < MANY; i++) {
        for (unsigned tries = 0;
             tries < 100 && (fds[i] = sock_connect_unix(g->path, true, NULL)) < 0; tries++)
            context_run(g->bed->ctx, pause_shortly, g->bed->ctx); /* the backlog is full */
        g_assert_cmpint(fds[i], >=, 0);
    }
    struct node *n = client(g, "x", "", &error);
    g_assert_no_error(error);
    g_assert_cmpuint(nbd_server_client_count(g->server), ==, MANY + 1);
    context_run(g->bed->ctx, round_trip, n);
    for (unsigned i = 0; i < MANY; i++)
        close(fds[i]);
    context_run(g->bed->ctx, close_disk, n);
    for (unsigned i = 0; i < 100 && nbd_server_client_count(g->server); i++)
        context_run(g->bed->ctx, pause_shortly, g->bed->ctx);
    context_run(g->bed->ctx, pause_shortly, g->bed->ctx);
    g_assert_cmpuint(nbd_server_client_count(g->server), ==, 0);
    g_assert_cmpuint(g->idle, ==, 1);
    ground_free(g);
}

/* --- names, credentials --- */

static void test_names(void)
{
    static const struct {
        const char *name, *type, *host, *port, *path, *export;
    } good[] = {
        { "nbd://h", "inet", "h", "10809", NULL, NULL },
        { "nbd://h:1/a/b", "inet", "h", "1", NULL, "a/b" },
        { "nbd+tcp://[::1]:5/%41", "inet", "::1", "5", NULL, "A" },
        { "nbd+unix:///x?socket=/s", "unix", NULL, NULL, "/s", "x" },
        { "nbd+unix://?socket=/s%20t", "unix", NULL, NULL, "/s t", NULL },
        { "nbd:h:2", "inet", "h", "2", NULL, NULL },
        { "nbd:[::1]:2:exportname=a:b", "inet", "::1", "2", NULL, "a:b" },
        { "nbd:unix:/s", "unix", NULL, NULL, "/s", NULL },
        { "nbd:unix:/s:exportname=x", "unix", NULL, NULL, "/s", "x" },
    };
    static const char *const bad[] = { "nbd+unix:///x",
                                       "nbd+unix://h/x?socket=/s",
                                       "nbd://h/x?socket=/s",
                                       "nbd://u@h/",
                                       "nbd:",
                                       "nbd:h",
                                       "nbd::1",
                                       "nbd:unix:",
                                       "nbd://h/x?y=z",
                                       "nbds://h/x",
                                       "nbd://h:99999999/x" };
    for (unsigned i = 0; i < ARRAY_COUNT(good); i++) {
        g_autoptr(JsonObject) o = json_object_new();
        g_autoptr(GError) error = NULL;
        g_assert_true(nbd_parse_name(good[i].name, o, &error));
        JsonObject *s = json_object_get_object_member(o, "server");
        g_assert_cmpstr(json_object_get_string_member_with_default(s, "type", NULL), ==,
                        good[i].type);
        g_assert_cmpstr(json_object_get_string_member_with_default(s, "host", NULL), ==,
                        good[i].host);
        g_assert_cmpstr(json_object_get_string_member_with_default(s, "port", NULL), ==,
                        good[i].port);
        g_assert_cmpstr(json_object_get_string_member_with_default(s, "path", NULL), ==,
                        good[i].path);
        g_assert_cmpstr(json_object_get_string_member_with_default(o, "export", NULL), ==,
                        good[i].export);
    }
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        g_autoptr(JsonObject) o = json_object_new();
        g_autoptr(GError) error = NULL;
        if (nbd_parse_name(bad[i], o, &error))
            g_error("'%s' was not refused", bad[i]);
        g_assert_nonnull(strstr(error->message, bad[i]));
    }
}

static struct tls_creds *creds(const char *kind, const char *text, GError **error)
{
    g_autoptr(JsonObject) o = option_parse_text(text, NULL, error);
    return tls_creds_new(kind, "t", o, error);
}

static void test_credentials(void)
{
    g_autoptr(GError) error = NULL;
    g_assert_null(creds("tls-creds-x", "dir=/", &error));
    refused(&error, RUCHE_ERR_UNKNOWN, "'tls-creds-x'");
    g_assert_null(creds("tls-creds-psk", "endpoint=server", &error));
    refused(&error, RUCHE_ERR_INVALID, "needs dir=");
    g_assert_null(creds("tls-creds-x509", "dir=/nowhere", &error));
    refused(&error, RUCHE_ERR_NOT_FOUND, "/nowhere/ca-cert.pem");
    g_assert_null(creds("tls-creds-anon", "endpoint=client,color=red", &error));
    refused(&error, RUCHE_ERR_UNKNOWN, "color");
    struct tls_creds *c = creds("tls-creds-anon", "endpoint=client", &error);
    g_assert_no_error(error);
    g_assert_true(tls_creds_add(c, &error));
    g_assert_false(tls_creds_add(c, &error));
    refused(&error, RUCHE_ERR_EXISTS, "'t'");
    g_assert_null(tls_creds_find("t", true, &error));
    refused(&error, RUCHE_ERR_INVALID, "endpoint=server is needed");
    g_assert_null(tls_creds_find("u", false, &error));
    refused(&error, RUCHE_ERR_NOT_FOUND, "'u'");
    g_assert_true(tls_creds_remove("t", &error));
    g_assert_false(tls_creds_remove("t", &error));
    tls_creds_unref(c);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/nbd/round-trip", test_round_trip);
    g_test_add_func("/nbd/exports", test_exports);
    g_test_add_func("/nbd/removal", test_removal);
    g_test_add_func("/nbd/drain", test_drain);
    g_test_add_func("/nbd/far", test_far);
    g_test_add_func("/nbd/move", test_move);
    g_test_add_func("/nbd/many", test_many);
    g_test_add_func("/nbd/names", test_names);
    g_test_add_func("/nbd/credentials", test_credentials);
    return g_test_run();
}
