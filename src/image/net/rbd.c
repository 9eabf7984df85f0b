/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Driver "rbd": an image in a Ceph cluster.
 *
 * Spec      rbd:POOL[/NAMESPACE]/IMAGE[@SNAPSHOT][:KEY=VALUE...], where '\' takes the meaning from
 *           ':', '/' and '@', and QEMU's options; librbd.
 * Thread    librbd answers on threads of its own, which post to the node's loop.
 * Fiber     Opening, closing and resizing block, on a thread of the pool; requests are
 *           asynchronous.
 * Trust     The cluster's answers are parsed by librbd; no more bytes are taken than were asked
 *           for.
 */
#include "image/driver.h"
#include "image/secret.h"

#include <errno.h>
#include <rados/librados.h>
#include <rbd/librbd.h>
#include <string.h>

#define IOVS_MAX 64

struct rbd_node {
    struct node node;
    char *pool, *name_space, *image, *snapshot, *conf, *user, *key_secret;
    JsonNode *values; /* more of ceph.conf: an object of strings */

    rados_t cluster;
    rados_ioctx_t pool_io;
    rbd_image_t handle;
};

/* One request in flight, on its fiber's stack. */
struct rbd_call {
    struct rbd_node *n;
    struct loop_task task;
    struct fiber *fiber;
    rbd_completion_t completion;
    bool done;
};

static struct rbd_node *rbd_of(struct node *n)
{
    return container_of(n, struct rbd_node, node);
}

/* --- requests --- */

static void at_home(void *opaque)
{
    struct rbd_call *c = opaque;
    c->done = true;
    if (c->fiber)
        fiber_wake(c->fiber);
}

/* A thread of librbd. */
static void completed(rbd_completion_t completion, void *opaque)
{
    struct rbd_call *c = opaque;
    loop_post(context_loop(c->n->node.ctx), &c->task);
}

static int begin(struct rbd_node *n, struct rbd_call *c)
{
    *c = (struct rbd_call){ .n = n, .task = { .fn = at_home, .opaque = c } };
    return rbd_aio_create_completion(c, completed, &c->completion);
}

/* `rc` is what starting it gave. */
static ssize_t finish(struct rbd_call *c, int rc)
{
    ssize_t result = rc;
    if (rc >= 0) {
        while (!c->done) {
            c->fiber = fiber_self();
            fiber_wait();
        }
        result = rbd_aio_get_return_value(c->completion);
    }
    rbd_aio_release(c->completion);
    return result;
}

static int transfer(struct rbd_node *n, uint64_t off, struct vec v, bool write)
{
    for (size_t done = 0; done < v.len;) {
        struct iovec iov[IOVS_MAX];
        struct rbd_call c;
        size_t len;
        int count = (int)vec_to_iov(vec_slice(v, done, v.len - done), iov, IOVS_MAX, &len);
        int rc = begin(n, &c);
        if (rc < 0)
            return rc;
        ssize_t got =
            finish(&c, write ? rbd_aio_writev(n->handle, iov, count, off + done, c.completion)
                             : rbd_aio_readv(n->handle, iov, count, off + done, c.completion));
        if (got < 0)
            return (int)got;
        if (!write && (size_t)got < len) /* the image has become shorter */
            vec_fill(vec_slice(v, done + (size_t)got, len - (size_t)got), 0);
        done += len;
    }
    return 0;
}

static int rbd_node_read(struct node *node, uint64_t off, struct vec v, unsigned flags)
{
    return transfer(rbd_of(node), off, v, false);
}

static int rbd_node_write(struct node *node, uint64_t off, struct vec v, unsigned flags)
{
    return transfer(rbd_of(node), off, v, true);
}

static int rbd_node_flush(struct node *node)
{
    struct rbd_node *n = rbd_of(node);
    struct rbd_call c;
    int rc = begin(n, &c);
    return rc < 0 ? rc : (int)finish(&c, rbd_aio_flush(n->handle, c.completion));
}

static int rbd_node_discard(struct node *node, uint64_t off, uint64_t len)
{
    struct rbd_node *n = rbd_of(node);
    struct rbd_call c;
    int rc = begin(n, &c);
    return rc < 0 ? rc : (int)finish(&c, rbd_aio_discard(n->handle, off, len, c.completion));
}

static int rbd_node_zero(struct node *node, uint64_t off, uint64_t len, unsigned flags)
{
    struct rbd_node *n = rbd_of(node);
    struct rbd_call c;
    int rc = begin(n, &c), how = flags & NODE_MAY_UNMAP ? 0 : RBD_WRITE_ZEROES_FLAG_THICK_PROVISION;
    return rc < 0
               ? rc
               : (int)finish(&c, rbd_aio_write_zeroes(n->handle, off, len, c.completion, how, 0));
}

/* --- calls that block --- */

struct rbd_blocking {
    struct rbd_node *n;
    uint64_t size;
    const char *key;
    GError **error;
};

static int refuse(struct rbd_blocking *b, int err, const char *what)
{
    ruche_error_errno(b->error, err < 0 ? -err : EIO, "rbd image '%s/%s': %s", b->n->pool,
                      b->n->image, what);
    return -EIO;
}

static int set_values(struct rbd_blocking *b)
{
    struct rbd_node *n = b->n;
    if (!n->values)
        return 0;
    if (!JSON_NODE_HOLDS_OBJECT(n->values))
        return refuse(b, -EINVAL, "conf-values takes names and values");
    JsonObjectIter it;
    const char *name;
    JsonNode *value;
    json_object_iter_init(&it, json_node_get_object(n->values));
    while (json_object_iter_next(&it, &name, &value)) {
        const char *text = JSON_NODE_HOLDS_VALUE(value) ? json_node_get_string(value) : NULL;
        int rc = text ? rados_conf_set(n->cluster, name, text) : -EINVAL;
        if (rc < 0)
            return refuse(b, rc, name);
    }
    return 0;
}

static int connect_cluster(struct rbd_blocking *b)
{
    struct rbd_node *n = b->n;
    int rc = rados_create(&n->cluster, n->user);
    if (rc < 0) {
        n->cluster = NULL;
        return refuse(b, rc, "no Ceph client can be made");
    }
    rc = rados_conf_read_file(n->cluster,
                              n->conf); /* NULL: where Ceph looks for it; may be absent then */
    if (rc < 0 && n->conf)
        return refuse(b, rc, n->conf);
    if (set_values(b) < 0)
        return -EIO;
    rc = b->key ? rados_conf_set(n->cluster, "key", b->key) : 0;
    if (rc < 0)
        return refuse(b, rc, "the key is not accepted");
    rc = rados_connect(n->cluster);
    return rc < 0 ? refuse(b, rc, "cannot connect to the cluster") : 0;
}

static int open_call(void *opaque)
{
    struct rbd_blocking *b = opaque;
    struct rbd_node *n = b->n;
    if (connect_cluster(b) < 0)
        return -EIO;
    int rc = rados_ioctx_create(n->cluster, n->pool, &n->pool_io);
    if (rc < 0) {
        n->pool_io = NULL;
        return refuse(b, rc, "cannot open the pool");
    }
    if (n->name_space)
        rados_ioctx_set_namespace(n->pool_io, n->name_space);
    rc = n->node.read_only ? rbd_open_read_only(n->pool_io, n->image, &n->handle, n->snapshot)
                           : rbd_open(n->pool_io, n->image, &n->handle, n->snapshot);
    if (rc < 0) {
        n->handle = NULL;
        return refuse(b, rc, "cannot open the image");
    }
    rc = rbd_get_size(n->handle, &b->size);
    return rc < 0 ? refuse(b, rc, "cannot read its size") : 0;
}

static int close_call(void *opaque)
{
    struct rbd_node *n = opaque;
    if (n->handle)
        rbd_close(n->handle);
    if (n->pool_io)
        rados_ioctx_destroy(n->pool_io);
    if (n->cluster)
        rados_shutdown(n->cluster);
    n->handle = NULL;
    n->pool_io = NULL;
    n->cluster = NULL;
    return 0;
}

static int resize_call(void *opaque)
{
    struct rbd_blocking *b = opaque;
    return rbd_resize(b->n->handle, b->size);
}

static bool rbd_node_resize(struct node *node, uint64_t size, enum image_prealloc p, GError **error)
{
    struct rbd_blocking b = { .n = rbd_of(node), .size = size, .error = error };
    if (p != PREALLOC_OFF)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "image '%s': Ceph has no preallocation '%s'", node->filename,
                           image_prealloc_words[p]);
    int rc = context_offload(node->ctx, resize_call, &b);
    if (rc < 0)
        return ruche_error_errno(error, -rc, "image '%s' cannot be resized", node->filename);
    node->size_bytes = size;
    return true;
}

static bool rbd_node_open(struct node *node, GError **error)
{
    struct rbd_node *n = rbd_of(node);
    if (!n->pool || !n->image)
        return ruche_error(error, RUCHE_ERR_INVALID, "driver rbd needs pool and image");
    if (n->snapshot && !node->read_only) {
        if (!node->auto_read_only)
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "rbd image '%s/%s': a snapshot is read-only; use read-only=on",
                               n->pool, n->image);
        node->read_only = true;
    }
    char *key = n->key_secret ? secret_get_text(n->key_secret, error) : NULL;
    if (n->key_secret && !key)
        return false;
    struct rbd_blocking b = { .n = n, .key = key, .error = error };
    int rc = context_offload(node->ctx, open_call, &b);
    if (key)
        secret_free(key, strlen(key));
    if (rc < 0)
        return false;
    node->size_bytes = b.size;
    node->zero_init = true;
    node->zero_flags = NODE_MAY_UNMAP;
    g_free(node->filename);
    node->filename = g_strdup_printf("rbd:%s%s%s/%s%s%s", n->pool, n->name_space ? "/" : "",
                                     n->name_space ? n->name_space : "", n->image,
                                     n->snapshot ? "@" : "", n->snapshot ? n->snapshot : "");
    return true;
}

static void rbd_node_close(struct node *node)
{
    if (rbd_of(node)->cluster)
        context_offload(node->ctx, close_call, rbd_of(node));
}

/* --- names --- */

/* The part up to one of `ends`, without its backslashes; *at moves behind it, *ret_end says what
 * ended it (0: the name's end). */
static char *take_part(const char **at, const char *ends, char *ret_end)
{
    GString *part = g_string_new(NULL);
    const char *p = *at;
    while (*p && !strchr(ends, *p)) {
        if (*p == '\\' && p[1])
            p++;
        g_string_append_c(part, *p++);
    }
    *ret_end = *p;
    *at = *p ? p + 1 : p;
    return g_string_free(part, FALSE);
}

static bool bad_name(const char *filename, const char *why, GError **error)
{
    return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is not the name of an rbd image: %s",
                       filename, why);
}

/* "KEY=VALUE:KEY=VALUE": id and conf are ours, the rest is Ceph's. */
static bool parse_values(const char *filename, const char *at, JsonObject *options, GError **error)
{
    g_autoptr(JsonObject) values = json_object_new();
    char end = ':';
    while (end && *at) {
        g_autofree char *name = take_part(&at, "=", &end);
        if (!end)
            return bad_name(filename, "its options are KEY=VALUE", error);
        g_autofree char *value = take_part(&at, ":", &end);
        const char *ours = strcmp(name, "id") == 0     ? "user"
                           : strcmp(name, "conf") == 0 ? "conf"
                                                       : NULL;
        if (strcmp(name, "key") == 0)
            return bad_name(filename,
                            "a key in a name is seen by everybody on this host; give it as a "
                            "secret (key-secret)",
                            error);
        json_object_set_string_member(ours ? options : values, ours ? ours : name, value);
    }
    if (json_object_get_size(values))
        json_object_set_object_member(options, "conf-values", json_object_ref(values));
    return true;
}

static bool rbd_node_parse_name(const char *filename, JsonObject *options, GError **error)
{
    const char *at = filename + strlen("rbd:");
    char end;
    g_autofree char *pool = take_part(&at, "/:", &end);
    if (end != '/' || !*pool)
        return bad_name(filename, "it is rbd:POOL/IMAGE", error);
    g_autofree char *image = take_part(&at, "/@:", &end);
    if (end == '/') {
        json_object_set_string_member(options, "namespace", image);
        g_free(image);
        image = take_part(&at, "@:", &end);
    }
    if (!*image)
        return bad_name(filename, "it is rbd:POOL/IMAGE", error);
    if (end == '@') {
        g_autofree char *snapshot = take_part(&at, ":", &end);
        json_object_set_string_member(options, "snapshot", snapshot);
    }
    json_object_set_string_member(options, "pool", pool);
    json_object_set_string_member(options, "image", image);
    return parse_values(filename, at, options, error);
}

static const struct image_option rbd_options[] = {
    OPT_STRING("pool", struct rbd_node, pool, "Pool of the image"),
    OPT_STRING("namespace", struct rbd_node, name_space, "Namespace within the pool"),
    OPT_STRING("image", struct rbd_node, image, "Name of the image"),
    OPT_STRING("snapshot", struct rbd_node, snapshot, "Snapshot to show, read-only"),
    OPT_STRING("conf", struct rbd_node, conf, "Path of ceph.conf"),
    OPT_STRING("user", struct rbd_node, user, "Ceph user, without 'client.'"),
    OPT_STRING("key-secret", struct rbd_node, key_secret,
               "Id of the secret that holds the user's key"),
    OPT_JSON("conf-values", struct rbd_node, values, "More settings of ceph.conf"),
    { 0 },
};

static const char *const rbd_schemes[] = { "rbd", NULL };
static const struct image_driver rbd_driver = {
    .name = "rbd",
    .summary = "Image in a Ceph cluster",
    .spec = "librbd",
    .kind = DRIVER_PROTOCOL,
    .size = sizeof(struct rbd_node),
    .schemes = rbd_schemes,
    .open_options = rbd_options,
    .parse_name = rbd_node_parse_name,
    .open = rbd_node_open,
    .close = rbd_node_close,
    .read = rbd_node_read,
    .write = rbd_node_write,
    .zero = rbd_node_zero,
    .discard = rbd_node_discard,
    .flush = rbd_node_flush,
    .resize = rbd_node_resize,
};

extern const struct image_driver *const ruche_image_drivers[];
__attribute__((visibility("default")))
const struct image_driver *const ruche_image_drivers[] = { &rbd_driver, NULL };
