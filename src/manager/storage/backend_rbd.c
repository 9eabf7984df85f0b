/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Type 'rbd': a pool of a Ceph cluster; its images are the volumes. The program rbd speaks to the
 * cluster, in a process of its own; machines and ruche-img use the image layer's module.
 *
 * Spec      libvirt's formatstorage, "RBD pool"; rbd(8), ceph(8), --format json.
 */
#include "manager/storage/readers.h"
#include "manager/storage/report.h"
#include "manager/storage/storage_priv.h"

#include <inttypes.h>
#include <string.h>

#define IMAGES_MAX 100000

/* "a:1,[b]:2": the monitors as Ceph's programs take them. */
static char *monitors_of(const struct pool *p)
{
    GString *s = g_string_new(NULL);
    for (const struct xml_node *n = xml_find(pool_root(p), "source/host"); n; n = xml_next(n)) {
        const char *name = xml_get(n, "@name"), *port = xml_get(n, "@port");
        g_string_append_printf(s, strchr(name, ':') ? "%s[%s]" : "%s%s", s->len ? "," : "", name);
        if (port)
            g_string_append_printf(s, ":%s", port);
    }
    return g_string_free(s, FALSE);
}

/* Runs rbd or ceph with the words that lead to the cluster; without hosts, those of the host's own
 * configuration. The key is read from a file. */
static bool run(struct pool *p, char **ret_out, GError **error, const char *program,
                ...) G_GNUC_NULL_TERMINATED;
static bool run(struct pool *p, char **ret_out, GError **error, const char *program, ...)
{
    g_autofree char *monitors = monitors_of(p);
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    auto_secret_file key = SECRET_FILE_NONE;
    va_list ap;
    if (!pool_secret_open(p, &key, error))
        return false;
    g_ptr_array_add(argv, (void *)program);
    if (*monitors) {
        g_ptr_array_add(argv, (void *)"-c");
        g_ptr_array_add(argv, (void *)"/dev/null");
        g_ptr_array_add(argv, (void *)"-m");
        g_ptr_array_add(argv, monitors);
        if (key.fd < 0)
            g_ptr_array_add(argv, (void *)"--auth_client_required=none");
    }
    if (key.fd >= 0) {
        g_ptr_array_add(argv, (void *)"--id");
        g_ptr_array_add(argv, (void *)pool_user(p));
        g_ptr_array_add(argv, (void *)"--keyfile");
        g_ptr_array_add(argv, key.path);
    }
    va_start(ap, program);
    for (const char *a; (a = va_arg(ap, const char *));)
        g_ptr_array_add(argv, (void *)a);
    va_end(ap);
    g_ptr_array_add(argv, NULL);
    return storage_run_argv((const char *const *)argv->pdata, NULL, STORAGE_RUN_MS, ret_out, error);
}

static const char *cluster_pool(const struct pool *p)
{
    return pool_get(p, "source/name");
}

static char *image_of(const struct pool *p, const char *name)
{
    return g_strdup_printf("%s/%s", cluster_pool(p), name);
}

/* ---- looking ---- */

bool rbd_read_images(const char *text, const char *pool, GHashTable *found, GError **error)
{
    g_autoptr(JsonNode) root = json_from_string(text, NULL);
    JsonArray *list = root && JSON_NODE_HOLDS_ARRAY(root) ? json_node_get_array(root) : NULL;
    if (!list || json_array_get_length(list) > IMAGES_MAX)
        return ruche_error(error, RUCHE_ERR_IO, "rbd: its answer is no list of at most %d images",
                           IMAGES_MAX);
    for (unsigned i = 0; i < json_array_get_length(list); i++) {
        JsonNode *n = json_array_get_element(list, i);
        JsonObject *o = JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
        const char *name = json_text(o, "image");
        if (!*name || strpbrk(name, "/@") || *json_text(o, "snapshot"))
            continue; /* "a@b" means the snapshot b of a to rbd, which has no other way to say it */
        g_autofree char *path = g_strdup_printf("%s/%s", pool, name);
        struct volume *v = device_volume_new(found, name, path);
        if (!v)
            continue;
        v->type = VOLUME_NETWORK;
        v->capacity = v->allocation = json_number(o, "size");
    }
    return true;
}

static JsonObject *member(JsonObject *o, const char *name)
{
    JsonNode *n = o ? json_object_get_member(o, name) : NULL;
    return n && JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
}

bool rbd_read_figures(const char *text, const char *pool, struct pool_figures *ret, GError **error)
{
    g_autoptr(JsonNode) owner = NULL;
    JsonObject *root = json_root("ceph", text, &owner, error), *stats = member(root, "stats");
    JsonNode *n = root ? json_object_get_member(root, "pools") : NULL;
    JsonArray *pools = n && JSON_NODE_HOLDS_ARRAY(n) ? json_node_get_array(n) : NULL;
    if (!root)
        return false;
    ret->capacity = json_number(stats, "total_bytes");
    ret->available = json_number(stats, "total_avail_bytes");
    for (unsigned i = 0; pools && i < json_array_get_length(pools); i++) {
        JsonNode *e = json_array_get_element(pools, i);
        JsonObject *o = JSON_NODE_HOLDS_OBJECT(e) ? json_node_get_object(e) : NULL;
        if (!strcmp(json_text(o, "name"), pool)) {
            ret->allocation = json_number(member(o, "stats"), "bytes_used");
            return true;
        }
    }
    if (pools && !json_array_get_length(pools)) /* no manager of the cluster counts */
        return true;
    return ruche_error(error, RUCHE_ERR_NOT_FOUND, "the cluster has no pool '%s'", pool);
}

static bool rbd_scan(struct pool *p, GHashTable *found, struct pool_figures *ret, GError **error)
{
    g_autofree char *images = NULL, *figures = NULL;
    return run(p, &figures, error, "ceph", "df", "--format", "json", NULL) &&
           rbd_read_figures(figures, cluster_pool(p), ret, error) &&
           run(p, &images, error, "rbd", "ls", "-l", "--format", "json", "-p", cluster_pool(p),
               NULL) &&
           rbd_read_images(images, cluster_pool(p), found, error);
}

/* ---- volumes ---- */

static bool rbd_create(struct pool *p, const struct volume_def *d, char **ret_path, GError **error)
{
    g_autofree char *image = image_of(p, d->name),
                    *size = g_strdup_printf("%" PRIu64 "B", d->capacity);
    if (d->name[0] == '-' || strpbrk(d->name, "@/"))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "volume '%s': images of Ceph are not called so", d->name);
    if (!run(p, NULL, error, "rbd", "create", "--image-format", "2", "--size", size, image, NULL))
        return false;
    *ret_path = g_steal_pointer(&image);
    return true;
}

static bool rbd_delete(struct pool *p, const char *name, const char *path, GError **error)
{
    g_autofree char *image = image_of(p, name);
    return run(p, NULL, error, "rbd", "rm", "--no-progress", image, NULL);
}

static bool rbd_resize(struct pool *p, const char *name, const char *path, uint64_t bytes,
                       GError **error)
{
    g_autofree char *image = image_of(p, name), *size = g_strdup_printf("%" PRIu64 "B", bytes);
    return run(p, NULL, error, "rbd", "resize", "--no-progress", "--allow-shrink", "--size", size,
               image, NULL);
}

static char *rbd_locked(const struct pool *p, const char *name, const char *monitors)
{
    JsonObject *file = json_object_new(), *values = json_object_new();
    json_object_set_string_member(file, "driver", "rbd");
    json_object_set_string_member(file, "pool", cluster_pool(p));
    json_object_set_string_member(file, "image", name);
    if (*monitors)
        json_object_set_string_member(values, "mon_host", monitors);
    json_object_set_string_member(values, "auth_client_required", "cephx");
    json_object_set_object_member(file, "conf-values", values);
    return pool_image_name(p, file, "key-secret");
}

/* A part of "rbd:pool/image:mon_host=a\:1": its delimiters in it are escaped. */
static void add_part(GString *s, const char *part)
{
    for (const char *c = part; *c; c++) {
        if (strchr(":/@=\\", *c))
            g_string_append_c(s, '\\');
        g_string_append_c(s, *c);
    }
}

static char *rbd_url(struct pool *p, const char *name)
{
    g_autofree char *monitors = monitors_of(p);
    if (pool_user(p))
        return rbd_locked(p, name, monitors);
    GString *s = g_string_new("rbd:");
    add_part(s, cluster_pool(p));
    g_string_append_c(s, '/');
    add_part(s, name);
    if (*monitors)
        g_string_append(s, ":auth_client_required=none:mon_host=");
    add_part(s, monitors);
    return g_string_free(s, FALSE);
}

static bool rbd_check(struct xml_node *root, GError **error)
{
    const char *type = xml_get(root, "source/auth@type"), *name = xml_get_or(root, "source/name", ""),
               *user = xml_get_or(root, "source/auth@username", "");
    if (type && strcmp(type, "ceph") != 0)
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "pool '%s': <auth type='%s'> is not Ceph's, which is 'ceph'",
                           xml_get_or(root, "name", ""), type);
    if (strpbrk(name, "/@"))
        return ruche_error(error, RUCHE_ERR_XML,
                           "pool '%s': '%.64s' cannot be a source's name: Ceph's programs take what "
                           "is behind '/' or '@' for something else",
                           xml_get_or(root, "name", ""), name);
    return user[0] != '-' || ruche_error(error, RUCHE_ERR_XML, "pool '%s': '%.64s' is no user",
                                         xml_get_or(root, "name", ""), user);
}

static const char *const programs[] = {"rbd", "ceph", NULL};

static const struct pool_backend rbd_backend = {
    .type = "rbd",
    .summary = "a pool of a Ceph cluster",
    .list_flag = 1 << 14,
    .can = POOL_REMOTE | POOL_CAN_RESIZE,
    .needs = POOL_NEEDS_NAME | POOL_NEEDS_HOST,
    .programs = programs,
    .check = rbd_check,
    .scan = rbd_scan,
    .volume_create = rbd_create,
    .volume_delete = rbd_delete,
    .volume_resize = rbd_resize,
    .volume_url = rbd_url,
};
POOL_BACKEND(rbd_backend);
