/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Driver "nfs": a file on an NFS server, without mounting it.
 *
 * Spec      nfs://SERVER/PATH[?uid=...&gid=...&version=4...], QEMU's options; RFC 1813, RFC 7530 by
 *           libnfs.
 * Fiber     Opening and closing block, on a thread of the pool. After that libnfs runs on its own
 *           descriptor, which the fibers that wait for answers serve in turn: see service.h.
 * Trust     The server's answers are parsed by libnfs; no more bytes are taken than were asked for.
 * Errors    Negative errno of the server. As with a hard mount, a server that went away is waited
 *           for.
 */
#include "image/driver.h"
#include "image/net/service.h"

#include <errno.h>
#include <fcntl.h>
#include <nfsc/libnfs.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>

#define TRANSFER_MAX MIB /* of one call; the server may want less */

struct nfs_node {
    struct node node;
    char *host, *path;
    int server_type;
    uint64_t uid, gid, syn_count, readahead, page_cache, debug, version, port, mount_port;

    struct service service;
    struct nfsfh *file;
    uint64_t transfer_max;
};

/* One call in flight, on its fiber's stack. */
struct nfs_call {
    struct vec to; /* reads */
    struct nfs_stat_64 stat;
    int result;
    bool done;
};

static struct nfs_node *nfs_of(struct node *n)
{
    return container_of(n, struct nfs_node, node);
}

/* --- calls --- */

static void on_done(int err, struct nfs_context *nfs, void *data, void *opaque)
{
    struct nfs_call *c = opaque;
    c->result = err;
    c->done = true;
}

static void on_read(int err, struct nfs_context *nfs, void *data, void *opaque)
{
    struct nfs_call *c = opaque;
    on_done(err, nfs, data, opaque);
    if (err > 0) {
        c->result = (int)min_u64((uint64_t)err, c->to.len);
        vec_write(vec_slice(c->to, 0, (size_t)c->result), data);
    }
}

static void on_stat(int err, struct nfs_context *nfs, void *data, void *opaque)
{
    struct nfs_call *c = opaque;
    on_done(err, nfs, data, opaque);
    if (err == 0)
        c->stat = *(const struct nfs_stat_64 *)data;
}

static int library_fd(void *library)
{
    return nfs_get_fd(library);
}

static int library_events(void *library)
{
    return nfs_which_events(library);
}

static int library_handle(void *library, int revents)
{
    return nfs_service(library, revents);
}

static void library_give_up(void *library)
{
    nfs_destroy_context(library);
}

/* `rc` is what starting the call gave. */
static int wait_for(struct nfs_node *n, int rc, struct nfs_call *c)
{
    return rc == 0 && service_wait(&n->service, &c->done) ? c->result : -EIO;
}

static struct nfs_context *library_of(struct nfs_node *n)
{
    return n->service.library;
}

static int nfs_node_read(struct node *node, uint64_t off, struct vec v, unsigned flags)
{
    struct nfs_node *n = nfs_of(node);
    for (size_t done = 0; done < v.len;) {
        struct nfs_call c = { .to = vec_slice(v, done, min_u64(v.len - done, n->transfer_max)) };
        if (!library_of(n))
            return -EIO;
        int got = wait_for(
            n, nfs_pread_async(library_of(n), n->file, off + done, c.to.len, on_read, &c), &c);
        if (got < 0)
            return got;
        if (got == 0) { /* the file ends in its last sector, or was cut */
            vec_fill(vec_slice(v, done, v.len - done), 0);
            return 0;
        }
        done += (size_t)got;
    }
    return 0;
}

static int nfs_node_write(struct node *node, uint64_t off, struct vec v, unsigned flags)
{
    struct nfs_node *n = nfs_of(node);
    for (size_t done = 0; done < v.len;) {
        struct nfs_call c = { 0 };
        struct iovec iov;
        size_t len;
        vec_to_iov(vec_slice(v, done, min_u64(v.len - done, n->transfer_max)), &iov, 1, &len);
        if (!library_of(n))
            return -EIO;
        int put = wait_for(
            n, nfs_pwrite_async(library_of(n), n->file, off + done, len, iov.iov_base, on_done, &c),
            &c);
        if (put <= 0)
            return put < 0 ? put : -EIO;
        done += (size_t)put;
    }
    return 0;
}

static int nfs_node_flush(struct node *node)
{
    struct nfs_node *n = nfs_of(node);
    struct nfs_call c = { 0 };
    return library_of(n) ? wait_for(n, nfs_fsync_async(library_of(n), n->file, on_done, &c), &c)
                         : -EIO;
}

static bool nfs_node_resize(struct node *node, uint64_t size, enum image_prealloc p, GError **error)
{
    struct nfs_node *n = nfs_of(node);
    struct nfs_call c = { 0 };
    if (p != PREALLOC_OFF)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "image '%s': NFS has no preallocation '%s'", node->filename,
                           image_prealloc_words[p]);
    int rc = library_of(n)
                 ? wait_for(n, nfs_ftruncate_async(library_of(n), n->file, size, on_done, &c), &c)
                 : -EIO;
    if (rc < 0)
        return ruche_error_errno(error, -rc, "image '%s' cannot be resized", node->filename);
    node->size_bytes = size;
    return true;
}

static int64_t nfs_node_allocated(struct node *node)
{
    struct nfs_node *n = nfs_of(node);
    struct nfs_call c = { 0 };
    int rc = library_of(n) ? wait_for(n, nfs_fstat64_async(library_of(n), n->file, on_stat, &c), &c)
                           : -EIO;
    return rc < 0 ? rc : (int64_t)min_u64(c.stat.nfs_used, IMAGE_SIZE_MAX);
}

/* --- opening --- */

struct nfs_opening {
    struct nfs_node *n;
    struct nfs_stat_64 stat;
    bool make; /* a file that is there is emptied */
    GError **error;
};

static int refuse(struct nfs_opening *o, const char *what)
{
    ruche_error(o->error, RUCHE_ERR_IO, "'nfs://%s%s': %s: %s", o->n->host, o->n->path, what,
                nfs_get_error(library_of(o->n)));
    return -EIO;
}

/* On a thread of the pool: nothing else uses the connection yet. */
static int open_call(void *opaque)
{
    struct nfs_opening *o = opaque;
    struct nfs_node *n = o->n;
    g_autofree char *folder = g_path_get_dirname(n->path), *base = g_path_get_basename(n->path);
    g_autofree char *name = g_strconcat("/", base, NULL);
    if (nfs_set_version(library_of(n), (int)n->version) < 0)
        return refuse(o, "the version cannot be set");
    if (nfs_mount(library_of(n), n->host, folder) < 0)
        return refuse(o, "the folder cannot be mounted");
    if (o->make && nfs_creat(library_of(n), name, 0644, &n->file) < 0)
        return refuse(o, "the file cannot be created");
    if (o->make)
        return nfs_ftruncate(library_of(n), n->file, 0) < 0 ? refuse(o, "the file cannot be emptied") : 0;
    if (nfs_open(library_of(n), name, n->node.read_only ? O_RDONLY : O_RDWR, &n->file) < 0)
        return refuse(o, "the file cannot be opened");
    return nfs_fstat64(library_of(n), n->file, &o->stat) < 0 ? refuse(o, "its size cannot be read")
                                                             : 0;
}

/* The library takes them only as part of a name. */
static void set_ports(struct nfs_node *n, struct nfs_context *nfs)
{
    if (!n->port && !n->mount_port)
        return;
    g_autofree char *name =
        g_strdup_printf("nfs://%s/x/y?nfsport=%u&mountport=%u", n->host, (unsigned)n->port,
                        (unsigned)(n->mount_port ? n->mount_port : n->port));
    struct nfs_url *u = nfs_parse_url_full(nfs, name);
    if (u)
        nfs_destroy_url(u);
}

static bool set_up(struct nfs_node *n, GError **error)
{
    const char *name = node_name(&n->node) ? node_name(&n->node) : "nfs";
    if (!n->host || !n->path || n->path[0] != '/' || strchr(n->path, '\0')[-1] == '/')
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "node '%s': nfs needs server.host and path, an absolute one of a file",
                           name);
    struct nfs_context *nfs = nfs_init_context();
    if (!nfs)
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "node '%s': no memory for an NFS connection",
                           name);
    if (n->uid)
        nfs_set_uid(nfs, (int)n->uid);
    if (n->gid)
        nfs_set_gid(nfs, (int)n->gid);
    if (n->syn_count)
        nfs_set_tcp_syncnt(nfs, (int)n->syn_count);
    if (n->readahead)
        nfs_set_readahead(nfs, (uint32_t)n->readahead);
    if (n->page_cache)
        nfs_set_pagecache(nfs, (uint32_t)n->page_cache);
    nfs_set_debug(nfs, (int)n->debug);
    set_ports(n, nfs);
    n->service = (struct service){ .ctx = n->node.ctx,
                                   .library = nfs,
                                   .fd = library_fd,
                                   .events = library_events,
                                   .handle = library_handle,
                                   .give_up = library_give_up };
    return true;
}

static bool nfs_node_open(struct node *node, GError **error)
{
    struct nfs_node *n = nfs_of(node);
    if (!set_up(n, error))
        return false;
    struct nfs_opening o = { .n = n, .error = error };
    int rc = context_offload(node->ctx, open_call, &o);
    if (rc < 0)
        return false;
    if (o.stat.nfs_size > IMAGE_SIZE_MAX || !S_ISREG(o.stat.nfs_mode))
        return ruche_error(error, RUCHE_ERR_INVALID, "'nfs://%s%s' is no file, or too long",
                           n->host, n->path);
    node->size_bytes = o.stat.nfs_size;
    node->grows = true;
    node->zero_init = true;
    uint64_t max = min_u64(nfs_get_readmax(library_of(n)), nfs_get_writemax(library_of(n)));
    n->transfer_max = max ? min_u64(max, TRANSFER_MAX) : 4096;
    g_free(node->filename);
    node->filename = g_strdup_printf("nfs://%s%s", n->host, n->path);
    return true;
}

static int close_call(void *opaque)
{
    struct nfs_node *n = opaque;
    if (n->file)
        nfs_close(library_of(n), n->file);
    nfs_destroy_context(library_of(n));
    return 0;
}

static void nfs_node_close(struct node *node)
{
    struct nfs_node *n = nfs_of(node);
    if (library_of(n))
        context_offload(node->ctx, close_call, n);
    n->service.library = NULL;
}

static void nfs_node_attach(struct node *node)
{
    nfs_of(node)->service.ctx = node->ctx;
}

static bool bad_name(const char *filename, const char *why, GError **error)
{
    return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is not the name of a file by NFS: %s",
                       filename, why);
}

static bool nfs_node_parse_name(const char *filename, JsonObject *options, GError **error)
{
    static const char *const arguments[][2] = {
        { "uid", "user" },
        { "gid", "group" },
        { "tcp-syncnt", "tcp-syn-count" },
        { "readahead", "readahead-size" },
        { "pagecache", "page-cache-size" },
        { "debug", "debug" },
        { "version", "version" },
        { "nfsport", "port" },
        { "mountport", "mount-port" },
    };
    g_autoptr(GError) why = NULL;
    g_autoptr(GUri) u = g_uri_parse(filename, G_URI_FLAGS_NONE, &why);
    const char *query = u ? g_uri_get_query(u) : NULL;
    g_autoptr(GHashTable) args =
        u ? g_uri_parse_params(query ? query : "", -1, "&", G_URI_PARAMS_NONE, &why) : NULL;
    if (!args)
        return bad_name(filename, why->message, error);
    if (!g_uri_get_host(u) || !*g_uri_get_host(u) || strlen(g_uri_get_path(u)) < 2)
        return bad_name(filename, "it is nfs://SERVER/FOLDER/FILE", error);
    JsonObject *server = json_object_new();
    json_object_set_string_member(server, "type", "inet");
    json_object_set_string_member(server, "host", g_uri_get_host(u));
    json_object_set_object_member(options, "server", server);
    json_object_set_string_member(options, "path", g_uri_get_path(u));
    unsigned used = 0;
    for (unsigned i = 0; i < ARRAY_COUNT(arguments); i++) {
        const char *value = g_hash_table_lookup(args, arguments[i][0]);
        if (value)
            json_object_set_string_member(options, arguments[i][1], value);
        used += value != NULL;
    }
    return used == g_hash_table_size(args) ||
           bad_name(filename,
                    "its arguments are uid, gid, tcp-syncnt, readahead, pagecache, debug, version, "
                    "nfsport and mountport",
                    error);
}

static const char *const server_words[] = { "inet", NULL };
static const struct image_option nfs_options[] = {
    OPT_WORD("server.type", struct nfs_node, server_type, server_words, 0, "inet"),
    OPT_STRING("server.host", struct nfs_node, host, "Host name or address"),
    OPT_STRING("path", struct nfs_node, path, "Path of the file on the server"),
    OPT_U64("user", struct nfs_node, uid, 0, 0, INT32_MAX,
            "User id to go by (default: the process's)"),
    OPT_U64("group", struct nfs_node, gid, 0, 0, INT32_MAX,
            "Group id to go by (default: the process's)"),
    OPT_U64("tcp-syn-count", struct nfs_node, syn_count, 0, 0, 255, "Attempts to connect"),
    OPT_U64("readahead-size", struct nfs_node, readahead, 0, 0, MIB, "Bytes read ahead"),
    OPT_U64("page-cache-size", struct nfs_node, page_cache, 0, 0, 8192,
            "Pages that the library keeps"),
    OPT_U64("debug", struct nfs_node, debug, 0, 0, 2, "How much the library says"),
    OPT_U64("port", struct nfs_node, port, 0, 0, 65535,
            "Port of the server (default: as its portmapper says)"),
    OPT_U64("mount-port", struct nfs_node, mount_port, 0, 0, 65535,
            "Port of its mount service (default: likewise)"),
    OPT_U64("version", struct nfs_node, version, 3, 3, 4,
            "Version of the protocol: 3, or 4, by which libnfs 4.0 only reads"),
    { 0 },
};

/* The size comes later, by resize. */
static bool nfs_make_file(struct graph *g, JsonObject *options, uint64_t size, GError **error)
{
    g_autofree struct nfs_node *n = g_new0(struct nfs_node, 1);
    struct nfs_opening o = { .n = n, .make = true, .error = error };
    n->node.graph = g;
    n->node.ctx = graph_context(g);
    bool ok = option_parse(nfs_options, options, "nfs", n, error) && set_up(n, error) &&
              context_offload(n->node.ctx, open_call, &o) >= 0;
    nfs_node_close(&n->node);
    option_clear(nfs_options, n);
    return ok;
}

static const char *const nfs_schemes[] = { "nfs", NULL };
static const struct image_driver nfs_driver = {
    .name = "nfs",
    .summary = "File on an NFS server",
    .spec = "RFC 1813, RFC 7530",
    .kind = DRIVER_PROTOCOL,
    .size = sizeof(struct nfs_node),
    .schemes = nfs_schemes,
    .open_options = nfs_options,
    .parse_name = nfs_node_parse_name,
    .open = nfs_node_open,
    .close = nfs_node_close,
    .read = nfs_node_read,
    .write = nfs_node_write,
    .flush = nfs_node_flush,
    .resize = nfs_node_resize,
    .allocated_bytes = nfs_node_allocated,
    .attach = nfs_node_attach,
    .make_file = nfs_make_file,
};

extern const struct image_driver *const ruche_image_drivers[];
__attribute__((visibility("default")))
const struct image_driver *const ruche_image_drivers[] = { &nfs_driver, NULL };
