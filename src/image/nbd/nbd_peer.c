/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A program for the tests of NBD under tests/system: our server and our client by themselves, to be put against
 * other programs.
 *
 *   nbd_peer serve IMAGE-OPTIONS SERVER-OPTIONS   prints "ready WHERE"; ends with its input
 *   nbd_peer client IMAGE-OPTIONS                 obeys the commands on its input
 *   ... CREDS-OPTIONS                             id=x,kind=tls-creds-psk,dir=...
 *
 * Options are "a=b,c.d=e" as on QEMU's command line.
 */
#include "base/log.h"
#include "image/dirty.h"
#include "image/nbd/server.h"
#include "image/authz.h"
#include "image/nbd/tls.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REQUEST_MAX (64 * MIB)

static void die(const char *what, GError *error)
{
    log_error("%s: %s", what, error ? error->message : "failed");
    exit(1);
}

static JsonObject *parse(const char *text)
{
    GError *error = NULL;
    JsonObject *o = option_parse_text(text, NULL, &error);
    if (!o)
        die(text, error);
    return o;
}

static const char *text_of(JsonObject *o, const char *name)
{
    return json_object_get_string_member_with_default(o, name, NULL);
}

static uint64_t number_of(JsonObject *o, const char *name)
{
    const char *text = text_of(o, name);
    return text ? g_ascii_strtoull(text, NULL, 0) : 0;
}

static void add_creds(const char *text)
{
    GError *error = NULL;
    JsonObject *o = parse(text);
    g_autofree char *id = g_strdup(text_of(o, "id")), *kind = g_strdup(text_of(o, "kind"));
    json_object_remove_member(o, "id");
    json_object_remove_member(o, "kind");
    if (authz_is_kind(kind)) {
        if (!authz_add(kind, id, o, &error))
            die(text, error);
        json_object_unref(o);
        return;
    }
    struct tls_creds *c = tls_creds_new(kind, id, o, &error);
    if (!c || !tls_creds_add(c, &error))
        die(text, error);
    tls_creds_unref(c);
    json_object_unref(o);
}

/* --- client --- */

struct command {
    struct node *node;
    char **word;
    unsigned count;
};

static uint64_t argument(const struct command *c, unsigned i)
{
    return i < c->count ? g_ascii_strtoull(c->word[i], NULL, 0) : 0;
}

static int do_read(struct command *c)
{
    uint64_t len = argument(c, 2);
    g_autofree uint8_t *buf = g_malloc(len + 1);
    int rc = node_pread(c->node, argument(c, 1), buf, len);
    if (rc < 0)
        return rc;
    g_autofree char *sum = g_compute_checksum_for_data(G_CHECKSUM_SHA256, buf, len);
    printf("%s\n", sum);
    return 0;
}

static int do_write(struct command *c)
{
    uint64_t len = argument(c, 2);
    g_autofree uint8_t *buf = g_malloc(len + 1);
    memset(buf, (int)argument(c, 3), len);
    return node_pwrite(c->node, argument(c, 1), buf, len, argument(c, 4) ? NODE_FUA : 0);
}

static int do_zero(struct command *c)
{
    return node_zero(c->node, argument(c, 1), argument(c, 2), (unsigned)argument(c, 3));
}

static int do_discard(struct command *c)
{
    return node_discard(c->node, argument(c, 1), argument(c, 2));
}

static int do_flush(struct command *c)
{
    return node_flush(c->node);
}

static int do_size(struct command *c)
{
    printf("%" G_GUINT64_FORMAT " %s\n", node_size(c->node), node_filename(c->node));
    return 0;
}

static int do_map(struct command *c)
{
    uint64_t size = node_size(c->node);
    for (uint64_t off = 0; off < size;) {
        struct image_extent e;
        int rc = node_map(c->node, off, size - off, &e);
        if (rc < 0)
            return rc;
        printf("%" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT "%s%s\n", off, e.len,
               e.flags & EXTENT_DATA ? " data" : "", e.flags & EXTENT_ZERO ? " zero" : "");
        off += e.len;
    }
    return 0;
}

struct storm {
    struct node *node;
    uint64_t blocks, block_bytes;
    unsigned running, failed, seed, left;
    bool write;
    struct fiber_queue ended;
};

static void storm_fiber(void *opaque)
{
    struct storm *s = opaque;
    g_autofree uint8_t *buf = g_malloc0(s->block_bytes);
    while (s->left) {
        s->left--;
        uint64_t off = (uint64_t)rand_r(&s->seed) % s->blocks * s->block_bytes;
        s->failed += (s->write ? node_pwrite(s->node, off, buf, s->block_bytes, 0)
                               : node_pread(s->node, off, buf, s->block_bytes)) < 0;
    }
    s->running--;
    fiber_queue_wake_all(&s->ended);
}

/* storm COUNT DEPTH BYTES [write]: random requests, many in flight; prints operations a second. */
static int do_storm(struct command *c)
{
    struct storm s = { .node = c->node,
                       .block_bytes = argument(c, 3),
                       .seed = 1,
                       .left = (unsigned)argument(c, 1),
                       .write = c->count > 4 };
    s.blocks = node_size(c->node) / s.block_bytes;
    int64_t begin = loop_now_ns();
    for (unsigned i = 0; i < argument(c, 2); i++) {
        s.running++;
        fiber_start(storm_fiber, &s);
    }
    while (s.running)
        fiber_queue_wait(&s.ended);
    printf("%.0f %u\n", (double)argument(c, 1) * 1e9 / (double)(loop_now_ns() - begin), s.failed);
    return 0;
}

static const struct {
    const char *name;
    int (*fn)(struct command *c);
} commands[] = {
    { "read", do_read },   { "write", do_write }, { "zero", do_zero }, { "discard", do_discard },
    { "flush", do_flush }, { "size", do_size },   { "map", do_map },   { "storm", do_storm },
};

static int run_command(void *opaque)
{
    struct command *c = opaque;
    for (unsigned i = 0; i < ARRAY_COUNT(commands); i++) {
        if (strcmp(commands[i].name, c->word[0]) == 0)
            return commands[i].fn(c);
    }
    return -EINVAL;
}

static int client(const char *options)
{
    GError *error = NULL;
    struct context *ctx = context_new(&error);
    struct graph *g = graph_new(ctx);
    JsonObject *o = parse(options);
    struct node *n = text_of(o, "name")
                         ? node_open_name(g, text_of(o, "name"), "raw", NULL, NODE_RW, &error)
                         : node_open(g, o, NODE_RW, &error);
    if (!n)
        printf("refused: %s\n", error->message);
    g_clear_error(&error);
    char line[256];
    while (n && fgets(line, sizeof(line), stdin)) {
        g_auto(GStrv) word = g_strsplit(g_strstrip(line), " ", -1);
        struct command c = { .node = n, .word = word, .count = g_strv_length(word) };
        int rc = context_run(ctx, run_command, &c);
        printf("%s\n", rc == 0 ? "ok" : strerror(-rc));
        fflush(stdout);
    }
    node_unref(n);
    json_object_unref(o);
    graph_free(g);
    context_free(ctx);
    return 0;
}

/* --- server --- */

static void on_input(void *opaque, uint32_t events)
{
    char byte;
    if (read(0, &byte, 1) <= 0)
        loop_stop(opaque);
}

/* bitmap=NAME marks [1 MiB, 1 MiB + 64 KiB) and the last 64 KiB. */
static int make_bitmap(void *opaque)
{
    struct nbd_export_config *e = opaque;
    struct dirty_bitmap *b = dirty_new(e->node, 0, e->bitmaps[0], 65536, NULL);
    dirty_set(b, MIB, 65536);
    dirty_set(b, node_size(e->node) - 65536, 65536);
    return 0;
}

static int drop_bitmap(void *opaque)
{
    struct nbd_export_config *e = opaque;
    dirty_free(dirty_find(e->node, e->bitmaps[0]));
    return 0;
}

static int close_node(void *opaque)
{
    node_unref(opaque);
    return 0;
}

static struct nbd_server *start_server(struct context *ctx, JsonObject *so)
{
    GError *error = NULL;
    struct nbd_server_config config = NBD_SERVER_CONFIG_INIT;
    config.unix_path = text_of(so, "unix");
    config.port = text_of(so, "port");
    config.max_connections = (unsigned)number_of(so, "max-connections");
    config.handshake_ms = (unsigned)number_of(so, "handshake-ms");
    config.max_requests = (unsigned)number_of(so, "max-requests");
    config.tls_authz = text_of(so, "tls-authz");
    config.tls = text_of(so, "tls") ? tls_creds_find(text_of(so, "tls"), true, &error) : NULL;
    struct nbd_server *s = error ? NULL : nbd_server_new(ctx, &config, &error);
    if (!s)
        die("server", error);
    tls_creds_unref(config.tls);
    return s;
}

static int serve(const char *image_options, const char *server_options)
{
    GError *error = NULL;
    JsonObject *io = parse(image_options), *so = parse(server_options);
    struct loop *loop = loop_new("main"), *node_loop = loop;
    if (text_of(so, "thread")) {
        node_loop = loop_new("image");
        loop_thread_start(node_loop);
    }
    struct context *ctx = context_get(loop), *node_ctx = context_get(node_loop);
    struct graph *g = graph_new(node_ctx);
    bool writable = text_of(so, "writable") != NULL;
    struct node *n = node_open(g, io, writable ? NODE_RW : 0, &error);
    if (!n)
        die("image", error);
    const char *bitmaps[] = { text_of(so, "bitmap"), NULL };
    struct nbd_export_config e = { .name = text_of(so, "export"),
                                   .description = text_of(so, "description"),
                                   .node = n,
                                   .writable = writable,
                                   .bitmaps = bitmaps,
                                   .allocation_depth = text_of(so, "depth") != NULL };
    if (bitmaps[0])
        context_run(node_ctx, make_bitmap, &e);
    struct nbd_server *s = start_server(ctx, so);
    if (!nbd_server_add(s, &e, &error))
        die("export", error);
    printf("ready %s\n", nbd_server_where(s));
    fflush(stdout);
    struct loop_fd watch;
    loop_fd_add(loop, &watch, 0, EPOLLIN, on_input, loop);
    loop_run(loop);
    loop_fd_remove(&watch);
    nbd_server_free(s);
    if (bitmaps[0])
        context_run(node_ctx, drop_bitmap, &e);
    context_run(node_ctx, close_node, n);
    if (node_loop != loop)
        loop_thread_join(node_loop);
    graph_free(g);
    context_put(node_ctx);
    context_put(ctx);
    if (node_loop != loop)
        loop_free(node_loop);
    loop_free(loop);
    json_object_unref(io);
    json_object_unref(so);
    return 0;
}

int main(int argc, char **argv)
{
    log_set_program("nbd_peer");
    if (argc < 3)
        return 2;
    bool serves = strcmp(argv[1], "serve") == 0;
    for (int i = serves ? 4 : 3; i < argc; i++)
        add_creds(argv[i]);
    return serves ? serve(argv[2], argv[3]) : client(argv[2]);
}
