/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-img serve: an image as an NBD server, with qemu-nbd's options.
 *
 * Ends when the last client has gone, or with -t when told so by SIGTERM, SIGINT or SIGHUP: clients
 * are disconnected, the image is flushed and closed, exit code 0.
 */
#include "image/nbd/server.h"
#include "img/img.h"
#include "img/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct serve_options {
    struct img_common common;
    const char *port, *bind, *socket, *name, *description, *cache, *tls, *authz, *pid_file, *snapshot;
    GPtrArray *bitmaps;
    uint64_t shared, offset;
    bool persistent, read_only, depth, fork, verbose;
    const char *shared_text;
    int discard, detect_zeroes;
};

static const char *const discard_words[] = {"unmap", "on", "ignore", "off", NULL};
static const char *const detect_words[] = {"off", "on", "unmap", NULL};

/* ---- in the background ---- */

static int ready_fd = -1; /* told when clients may connect */

/* The parent ends when the child serves, or has failed. */
static int serve_before(void *options)
{
    const struct serve_options *o = options;
    int ends[2];
    char byte;
    if (!o->fork)
        return -1;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return 1;
    pid_t pid = fork();
    if (pid < 0)
        return 1;
    if (pid == 0) {
        close(ends[0]);
        ready_fd = ends[1];
        setsid();
        return -1;
    }
    close(ends[1]);
    ssize_t got;
    do
        got = read(ends[0], &byte, 1);
    while (got < 0 && errno == EINTR);
    return got == 1 ? 0 : 1;
}

static void say_ready(void)
{
    if (ready_fd < 0)
        return;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; null >= 0 && fd < 3; fd++)
        dup2(null, fd);
    if (write(ready_fd, "", 1) == 1)
        close(ready_fd);
    ready_fd = -1;
}

static bool write_pid(const char *path, GError **error)
{
    g_autofree char *text = g_strdup_printf("%d\n", getpid());
    return !path || g_file_set_contents(path, text, -1, error);
}

/* ---- the image ---- */

static struct node *open_image(struct img *img, const struct serve_options *o, const char *name,
                               GError **error)
{
    bool writes = !o->read_only && !o->snapshot;
    struct node *n =
        img_open(img, &o->common, name, o->common.format, o->cache, writes ? NODE_RW : 0, error);
    if (!n)
        return NULL;
    n->discard = n->discard && o->discard < 2;
    n->detect_zeroes = (unsigned)o->detect_zeroes;
    if (o->snapshot && !source_show_snapshot(n, o->snapshot, error))
        g_clear_pointer(&n, node_unref);
    if (!n || !o->offset)
        return n;
    g_autoptr(JsonObject) part = json_object_new();
    json_object_set_string_member(part, "driver", "raw");
    json_object_set_string_member(part, "file", node_name(n));
    json_object_set_int_member(part, "offset", (int64_t)o->offset);
    struct node *top = node_open(img->graph, part, writes ? NODE_RW : 0, error);
    node_unref(n); /* top holds it */
    return top;
}

/* ---- the server ---- */

struct serving {
    struct fiber *fiber;
    bool end;
};

static void end(void *opaque)
{
    struct serving *s = opaque;
    if (s->end)
        return;
    s->end = true;
    fiber_wake(s->fiber);
}

static struct nbd_server *start(struct img *img, const struct serve_options *o, struct serving *s,
                                GError **error)
{
    struct nbd_server_config config = NBD_SERVER_CONFIG_INIT;
    config.unix_path = o->socket;
    config.host = o->socket ? NULL : o->bind;
    config.port = o->socket ? NULL : o->port;
    config.max_connections = (unsigned)o->shared;
    config.idle = o->persistent ? NULL : end;
    config.opaque = s;
    config.tls_authz = o->authz;
    if (o->tls && !(config.tls = tls_creds_find(o->tls, true, error)))
        return NULL;
    struct nbd_server *server = nbd_server_new(img->ctx, &config, error);
    tls_creds_unref(config.tls);
    return server;
}

static bool export(struct nbd_server *server, struct node *n, const struct serve_options *o,
                   GError **error)
{
    if (o->bitmaps)
        g_ptr_array_add(o->bitmaps, NULL);
    struct nbd_export_config e = {
        .name = o->name ? o->name : "",
        .description = o->description,
        .node = n,
        .writable = !node_is_read_only(n),
        .bitmaps = o->bitmaps ? (const char *const *)o->bitmaps->pdata : NULL,
        .allocation_depth = o->depth,
    };
    return nbd_server_add(server, &e, error);
}

static bool serve_node(struct img *img, const struct serve_options *o, struct node *n,
                       GError **error)
{
    struct serving s = {.fiber = fiber_self()};
    struct nbd_server *server = start(img, o, &s, error);
    bool good = server && export(server, n, o, error) && write_pid(o->pid_file, error);
    if (good) {
        if (o->verbose)
            fprintf(stderr, "ruche-img: serving at %s\n", nbd_server_where(server));
        img_on_end(end, &s);
        say_ready();
        while (!s.end)
            fiber_wait();
        img_on_end(NULL, NULL);
        if (o->pid_file)
            unlink(o->pid_file);
    }
    nbd_server_free(server);
    return good;
}

static bool check_options(struct serve_options *o, GError **error)
{
    o->shared = 1;
    if (o->shared_text) {
        char *rest;
        o->shared = g_ascii_strtoull(o->shared_text, &rest, 10);
        if (*rest || rest == o->shared_text || o->shared > 4096)
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "-e: '%s' is not a number of clients from 0 to 4096",
                               o->shared_text);
    }
    if (!o->shared)
        o->shared = 4096;
    if (o->socket && (o->port || o->bind))
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "serve: either a socket (-k) or an address (-b, -p) is served, not both");
    return true;
}

static int serve_run(struct img *img, void *options, char **operands, unsigned count)
{
    struct serve_options *o = options;
    GError *error = NULL;
    struct node *n = check_options(o, &error) ? open_image(img, o, operands[0], &error) : NULL;
    bool good = n && serve_node(img, o, n, &error);
    int r = good && !node_is_read_only(n) ? node_flush(n) : 0;
    if (r < 0)
        good = ruche_error_errno(&error, -r, "'%s': the last writes failed", operands[0]);
    node_unref(n);
    return good ? 0 : img_fail(error, 1);
}

#define ROW(l, n, m, k, member, text) ARG_ROW(l, n, m, k, struct serve_options, member, text)
#define WORD(n, m, list, member, text)                                                             \
    {                                                                                              \
        .name = n, .metavar = m, .kind = ARG_WORD, .words = list,                                  \
        .offset = offsetof(struct serve_options, member), .help = text                             \
    }
static const struct arg serve_args[] = {
    ROW('k', "socket", "PATH", ARG_TEXT, socket, "Listen on this Unix socket"),
    ROW('p', "port", "PORT", ARG_TEXT, port, "Listen on this TCP port (10809); 0: any"),
    ROW('b', "bind", "ADDRESS", ARG_TEXT, bind, "... of this address (loopback)"),
    ROW('e', "shared", "N", ARG_TEXT, shared_text, "Clients at a time (1); 0: many"),
    ROW('t', "persistent", NULL, ARG_FLAG, persistent, "Go on when the last client has gone"),
    ROW('x', "export-name", "NAME", ARG_TEXT, name, "Name of the export (empty)"),
    ROW('D', "description", "TEXT", ARG_TEXT, description, "Its description"),
    ROW('r', "read-only", NULL, ARG_FLAG, read_only, "Clients may not write"),
    ROW('B', "bitmap", "NAME", ARG_LIST, bitmaps,
        "Show this dirty bitmap; may be given several times"),
    ROW('A', "allocation-depth", NULL, ARG_FLAG, depth, "Show which image of the chain holds what"),
    ROW('l', "load-snapshot", "SNAPSHOT", ARG_TEXT, snapshot, "Serve a snapshot, read-only"),
    {.letter = 'o',
     .name = "offset",
     .metavar = "BYTES",
     .kind = ARG_SIZE,
     .offset = offsetof(struct serve_options, offset),
     .help = "Serve from here on"},
    ROW(0, "cache", "MODE", ARG_TEXT, cache, "none, writeback, writethrough, directsync, unsafe"),
    WORD("discard", "MODE", discard_words, discard, "unmap, or ignore"),
    WORD("detect-zeroes", "MODE", detect_words, detect_zeroes, "off, on or unmap"),
    ROW(0, "tls-creds", "ID", ARG_TEXT, tls, "Demand TLS, with these credentials (--object)"),
    ROW(0, "tls-authz", "ID", ARG_TEXT, authz, "Let in whom this object lets in (--object)"),
    ROW(0, "pid-file", "PATH", ARG_TEXT, pid_file, "Write the process id there"),
    ROW(0, "fork", NULL, ARG_FLAG, fork,
        "Serve in the background; return when clients may connect"),
    ROW('v', "verbose", NULL, ARG_FLAG, verbose, "Say where it serves"),
    ARG_FORMAT,
    ARG_IMAGE_OPTS,
    ARG_OBJECT,
    {0},
};

static const struct verb serve_verb = {
    .name = "serve",
    .summary = "Serve an image by NBD",
    .operands = "FILE",
    .args = serve_args,
    .size = sizeof(struct serve_options),
    .min_operands = 1,
    .max_operands = 1,
    .before = serve_before,
    .run = serve_run,
};
IMG_VERB(serve_verb);
