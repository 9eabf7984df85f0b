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
#include "image/net/rbd.h"
#include "image/secret.h"

#include <errno.h>
#include <string.h>

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

/* What the cluster is waited for, where the configuration does not say it. */
static int set_timeouts(struct rbd_blocking *b)
{
    static const struct {
        const char *name, *usual;
    } rows[] = {
        {"client_mount_timeout", "300"},
        {"rados_mon_op_timeout", "0"},
        {"rados_osd_op_timeout", "0"},
    };
    struct rbd_node *n = b->n;
    uint64_t seconds = n->timeout_sec ? n->timeout_sec : graph_patience_sec(n->node.graph);
    g_autofree char *text = g_strdup_printf("%u", (unsigned)seconds);
    for (unsigned i = 0; seconds && i < ARRAY_COUNT(rows); i++) {
        char now[32] = "";
        if (rados_conf_get(n->cluster, rows[i].name, now, sizeof(now)) < 0 ||
            strtod(now, NULL) != strtod(rows[i].usual, NULL))
            continue;
        int rc = rados_conf_set(n->cluster, rows[i].name, text);
        if (rc < 0)
            return refuse(b, rc, rows[i].name);
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
    if (set_values(b) < 0 || set_timeouts(b) < 0)
        return -EIO;
    rc = b->key ? rados_conf_set(n->cluster, "key", b->key) : 0;
    if (rc < 0)
        return refuse(b, rc, "the key is not accepted");
    rc = rados_connect(n->cluster);
    return rc < 0 ? refuse(b, rc, "cannot connect to the cluster") : 0;
}

static int connect_pool(struct rbd_blocking *b)
{
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
    return 0;
}

/* Are the objects that there are counted, and well? */
static bool knows_objects(struct rbd_node *n)
{
    uint64_t features, flags;
    return rbd_get_features(n->handle, &features) >= 0 && rbd_get_flags(n->handle, &flags) >= 0 &&
           features & RBD_FEATURE_FAST_DIFF && !(flags & RBD_FLAG_FAST_DIFF_INVALID);
}

static int open_call(void *opaque)
{
    struct rbd_blocking *b = opaque;
    struct rbd_node *n = b->n;
    rbd_image_info_t info;
    if (connect_pool(b) < 0)
        return -EIO;
    int rc = n->node.read_only ? rbd_open_read_only(n->pool_io, n->image, &n->handle, n->snapshot)
                               : rbd_open(n->pool_io, n->image, &n->handle, n->snapshot);
    if (rc < 0) {
        n->handle = NULL;
        return refuse(b, rc, "cannot open the image");
    }
    rc = rbd_stat(n->handle, &info, sizeof(info));
    if (rc < 0)
        return refuse(b, rc, "cannot read its size");
    b->size = info.size;
    bool usual = is_power_of_2(info.obj_size) && info.obj_size <= GIB;
    n->node.cluster_bytes = usual ? (uint32_t)info.obj_size : 0;
    n->fast_diff = usual && knows_objects(n);
    return 0;
}

static int create_call(void *opaque)
{
    struct rbd_blocking *b = opaque;
    int order = 0; /* as the cluster is configured */
    if (connect_pool(b) < 0)
        return -EIO;
    int rc = rbd_create(b->n->pool_io, b->n->image, b->size, &order);
    return rc < 0 ? refuse(b, rc, "cannot be created") : 0;
}

static int close_call(void *opaque)
{
    struct rbd_node *n = opaque;
    if (n->gave_up) /* every step of closing would wait as long again */
        rados_conf_set(n->cluster, "rados_osd_op_timeout", "1");
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

static bool rbd_node_resize(struct node *node, uint64_t size, enum image_prealloc p, GError **error)
{
    if (p != PREALLOC_OFF)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "image '%s': Ceph has no preallocation '%s'", node->filename,
                           image_prealloc_words[p]);
    int rc = rbd_node_set_size(rbd_of(node), size);
    if (rc < 0)
        return ruche_error_errno(error, -rc, "image '%s' cannot be resized", node->filename);
    node->size_bytes = size;
    return true;
}

/* Off the loop, with the user's key if there is a secret for it. */
static bool call_with_key(struct rbd_blocking *b, struct context *ctx, int (*fn)(void *opaque))
{
    const char *id = b->n->key_secret;
    char *key = id ? secret_get_text(id, b->error) : NULL;
    if (id && !key)
        return false;
    b->key = key;
    int rc = context_offload(ctx, fn, b);
    if (key)
        secret_free(key, strlen(key));
    return rc >= 0;
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
    struct rbd_blocking b = {.n = n, .error = error};
    if (!call_with_key(&b, node->ctx, open_call))
        return false;
    node->size_bytes = n->image_bytes = b.size;
    node->zero_init = true;
    node->grows = true;
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

/* "KEY=VALUE:KEY=VALUE": id, conf and timeout are ours, the rest is Ceph's. */
static bool parse_values(const char *filename, const char *at, JsonObject *options, GError **error)
{
    g_autoptr(JsonObject) values = json_object_new();
    char end = ':';
    while (end && *at) {
        g_autofree char *name = take_part(&at, "=", &end);
        if (!end)
            return bad_name(filename, "its options are KEY=VALUE", error);
        g_autofree char *value = take_part(&at, ":", &end);
        const char *ours = strcmp(name, "id") == 0        ? "user"
                           : strcmp(name, "conf") == 0    ? "conf"
                           : strcmp(name, "timeout") == 0 ? "timeout"
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
    OPT_U64("timeout", struct rbd_node, timeout_sec, 0, 0, 3600,
            "Seconds until a cluster that does not answer is an error (0: those of the program)"),
    OPT_JSON("conf-values", struct rbd_node, values, "More settings of ceph.conf"),
    {0},
};

static bool rbd_make_file(struct graph *g, JsonObject *options, uint64_t size, GError **error)
{
    g_autofree struct rbd_node *n = g_new0(struct rbd_node, 1);
    struct rbd_blocking b = {.n = n, .size = size, .error = error};
    n->node.graph = g;
    bool ok = option_parse(rbd_options, options, "rbd", n, error) &&
              (n->snapshot
                   ? ruche_error(error, RUCHE_ERR_INVALID,
                                 "rbd image '%s/%s': a snapshot is not made so", n->pool, n->image)
                   : call_with_key(&b, graph_context(g), create_call));
    context_offload(graph_context(g), close_call, n);
    option_clear(rbd_options, n);
    return ok;
}

static const char *const rbd_schemes[] = {"rbd", NULL};
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
    .map = rbd_node_map,
    .resize = rbd_node_resize,
    .make_file = rbd_make_file,
};

extern const struct image_driver *const ruche_image_drivers[];
__attribute__((visibility("default")))
const struct image_driver *const ruche_image_drivers[] = {&rbd_driver, NULL};
