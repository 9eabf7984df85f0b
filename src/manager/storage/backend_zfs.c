/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Type 'zfs': a ZFS pool; its zvols are the volumes.
 *
 * Spec      libvirt's formatstorage, "ZFS pool"; zfs(8), zpool(8), -H and -p: columns by tabs,
 * exact numbers.
 */
#include "base/units.h"
#include "manager/markup.h"
#include "manager/storage/readers.h"
#include "manager/storage/storage_priv.h"

#include <inttypes.h>
#include <string.h>

static const char *zpool_of(const struct pool *p)
{
    return pool_get(p, "source/name");
}

static uint64_t number(const char *text)
{
    uint64_t v;
    return text && units_parse_u64(text, &v) ? v : 0;
}

/* Lines "pool/volume	volsize	used". */
void zfs_read_volumes(const char *text, const char *zpool, GHashTable *found)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", VOLUMES_MAX);
    g_autofree char *prefix = g_strconcat(zpool, "/", NULL);
    for (char **l = lines; *l; l++) {
        g_auto(GStrv) cells = g_strsplit(*l, "\t", 4);
        if (g_strv_length(cells) < 3 || !g_str_has_prefix(cells[0], prefix) ||
            strchr(cells[0] + strlen(prefix), '/'))
            continue;
        g_autofree char *path = g_strconcat("/dev/zvol/", cells[0], NULL);
        struct volume *v = device_volume_new(found, cells[0] + strlen(prefix), path);
        if (!v)
            continue;
        v->capacity = number(cells[1]);
        v->allocation = number(cells[2]);
    }
}

bool zfs_read_figures(const char *text, struct pool_figures *ret, GError **error)
{
    g_auto(GStrv) cells = g_strsplit_set(text, "\t\n", 4);
    if (g_strv_length(cells) < 3)
        return ruche_error(error, RUCHE_ERR_IO,
                           "zpool: its answer has no size, allocation and free");
    ret->capacity = number(cells[0]);
    ret->allocation = number(cells[1]);
    ret->available = number(cells[2]);
    return true;
}

static bool zfs_scan(struct pool *p, GHashTable *found, struct pool_figures *ret, GError **error)
{
    g_autofree char *figures = NULL, *volumes = NULL;
    if (!storage_run(&figures, error, "zpool", "list", "-Hp", "-o", "size,allocated,free",
                     zpool_of(p), NULL) ||
        !zfs_read_figures(figures, ret, error) ||
        !storage_run(&volumes, error, "zfs", "list", "-Hp", "-t", "volume", "-r", "-o",
                     "name,volsize,used", zpool_of(p), NULL))
        return false;
    zfs_read_volumes(volumes, zpool_of(p), found);
    return device_volumes_look(p, found, zpool_of(p), error);
}

static bool zfs_build(struct pool *p, unsigned flags, GError **error)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    const struct xml_node *first = xml_find(pool_root(p), "source/device");
    if (!first)
        return ruche_error(error, RUCHE_ERR_XML,
                           "storage pool '%s': a ZFS pool is made of devices: say which "
                           "(source/device@path)",
                           p->name);
    g_ptr_array_add(argv, (void *)"zpool");
    g_ptr_array_add(argv, (void *)"create");
    if (flags & POOL_BUILD_OVERWRITE)
        g_ptr_array_add(argv, (void *)"-f");
    g_ptr_array_add(argv, (void *)zpool_of(p));
    for (const struct xml_node *n = first; n; n = xml_next(n))
        g_ptr_array_add(argv, (void *)xml_get(n, "@path"));
    g_ptr_array_add(argv, NULL);
    return storage_run_argv((const char *const *)argv->pdata, NULL, STORAGE_RUN_MS, NULL, error);
}

static bool zfs_remove(struct pool *p, GError **error)
{
    return storage_run(NULL, error, "zpool", "destroy", zpool_of(p), NULL);
}

static void zfs_find(const struct xml_node *spec, GString *into, GError **error)
{
    g_autofree char *said = NULL;
    if (!storage_run(&said, error, "zpool", "list", "-H", "-o", "name", NULL))
        return;
    g_auto(GStrv) lines = g_strsplit(said, "\n", VOLUMES_MAX);
    for (char **l = lines; *l; l++)
        if (**l && g_utf8_validate(*l, -1, NULL))
            markup_add(into, "  <source>\n    <name>%s</name>\n  </source>\n", *l);
}

/* ---- volumes ---- */

static bool zfs_create(struct pool *p, const struct volume_def *d, char **ret_path, GError **error)
{
    g_autofree char *full = g_strdup_printf("%s/%s", zpool_of(p), d->name);
    g_autofree char *size = g_strdup_printf("%" PRIu64, align_up(d->capacity, 1 << 20));
    bool sparse = d->allocation < d->capacity;
    const char *const argv[] = {"zfs",
                                "create",
                                sparse ? "-s" : "-V",
                                sparse ? "-V" : size,
                                sparse ? size : full,
                                sparse ? full : NULL,
                                NULL};
    if (strpbrk(d->name, "@#/ ") || d->name[0] == '-')
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "volume '%s': volumes of ZFS are not called so", d->name);
    if (!storage_run_argv(argv, NULL, STORAGE_RUN_MS, NULL, error))
        return false;
    storage_run(NULL, NULL, "udevadm", "settle", "--timeout=10", NULL);
    *ret_path = g_strconcat("/dev/zvol/", full, NULL);
    return true;
}

static bool zfs_delete(struct pool *p, const char *name, const char *path, GError **error)
{
    g_autofree char *full = g_strdup_printf("%s/%s", zpool_of(p), name);
    return storage_run(NULL, error, "zfs", "destroy", full, NULL);
}

static bool zfs_resize(struct pool *p, const char *name, const char *path, uint64_t bytes,
                       GError **error)
{
    g_autofree char *full = g_strdup_printf("%s/%s", zpool_of(p), name);
    g_autofree char *size = g_strdup_printf("volsize=%" PRIu64, align_up(bytes, 1 << 20));
    return storage_run(NULL, error, "zfs", "set", size, full, NULL);
}

static const char *const programs[] = {"zfs", "zpool", NULL};

static const struct pool_backend zfs_backend = {
    .type = "zfs",
    .summary = "a ZFS pool",
    .list_flag = 1 << 17,
    .can = POOL_CAN_BUILD | POOL_CAN_OVERWRITE | POOL_CAN_DELETE | POOL_CAN_RESIZE,
    .needs = POOL_NEEDS_NAME,
    .may = POOL_NEEDS_DEVICE,
    .target = "/dev/zvol/%s",
    .programs = programs,
    .find_sources = zfs_find,
    .build = zfs_build,
    .remove = zfs_remove,
    .scan = zfs_scan,
    .volume_create = zfs_create,
    .volume_delete = zfs_delete,
    .volume_resize = zfs_resize,
};
POOL_BACKEND(zfs_backend);
