/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Type 'logical': an LVM volume group; its logical volumes are the volumes, thin ones too.
 *
 * Spec      libvirt's formatstorage, "Logical volume pool"; lvmreport(7), --reportformat json.
 * Trust     Answers of LVM are read by type; names that XML cannot hold are left out.
 */
#include "base/units.h"
#include "manager/markup.h"
#include "manager/storage/readers.h"
#include "manager/storage/report.h"
#include "manager/storage/storage_priv.h"

#include <inttypes.h>
#include <string.h>

/* As LVM has them, so that an error says what is wrong with one, and none means something else: "@tag", "vg/lv". */
static bool is_lvm_name(const char *name)
{
    bool ok = *name && name[0] != '-';
    for (const char *c = name; *c; c++)
        ok = ok && (g_ascii_isalnum(*c) || strchr("+_.-", *c));
    return ok;
}

static const char *group_of(const struct pool *p)
{
    return pool_get(p, "source/name");
}

/* ---- reading ---- */

/* "/dev/sdb(12)": the device, and at which extent of it. */
static bool read_place(const char *text, char **ret_device, uint64_t *ret_extent)
{
    const char *open = strrchr(text, '(');
    g_autofree char *number = open ? g_strndup(open + 1, strcspn(open + 1, ")")) : NULL;
    if (!number || text[0] != '/' || !units_parse_u64(number, ret_extent))
        return false;
    *ret_device = g_strndup(text, (size_t)(open - text));
    return true;
}

/* One segment of a volume: where it lies on each of its devices. */
static void add_segment(struct volume *v, const struct report_row *r)
{
    uint64_t extent = report_number(r, "vg_extent_size"), size = report_number(r, "seg_size"), at;
    g_auto(GStrv) places = g_strsplit(report_text(r, "devices"), ",", 64);
    GString *s = g_string_new(v->source);
    for (char **place = places; *place; place++) {
        g_autofree char *device = NULL;
        if (read_place(*place, &device, &at) && !__builtin_mul_overflow(at, extent, &at) &&
            at <= INT64_MAX - size)
            markup_add(s,
                       "    <device path='%s'>\n      <extent start='%" PRIu64 "' end='%" PRIu64
                       "'/>\n    </device>\n",
                       device, at, at + size);
    }
    g_free(v->source);
    v->source = g_string_free(s, FALSE);
}

/* What is no percentage is none of it or all of it. */
static uint64_t share_of(uint64_t all, const char *percent)
{
    double share = g_ascii_strtod(percent, NULL) / 100;
    return share >= 1 ? all : share > 0 ? MIN(all, (uint64_t)((double)all * share)) : 0;
}

static struct volume *add_volume(struct pool *p, GHashTable *found, const struct report_row *r)
{
    const char *name = report_text(r, "lv_name"), *origin = report_text(r, "origin");
    g_autofree char *path = g_strdup_printf("%s/%s", p->def->target, name);
    struct volume *v = device_volume_new(found, name, path);
    if (!v)
        return NULL;
    v->key = g_strdup(report_text(r, "lv_uuid"));
    v->capacity = v->allocation = report_number(r, "lv_size");
    if (report_text(r, "lv_attr")[0] == 'V')
        v->allocation = share_of(v->capacity, report_text(r, "data_percent"));
    if (*origin) {
        v->backing = g_strdup_printf("%s/%s", p->def->target, origin);
        v->backing_format = g_strdup("raw");
    }
    return v;
}

bool logical_read_volumes(struct pool *p, const char *text, GHashTable *found, GError **error)
{
    g_autoptr(report) report = report_read("lvs", text, "lv", error);
    for (unsigned i = 0; report && i < report->count; i++) {
        const struct report_row *r = &report->rows[i];
        const char *name = report_text(r, "lv_name"), *attr = report_text(r, "lv_attr");
        if (!*name ||
            strchr("tCdeil",
                   attr[0])) /* pools of thin volumes, caches, and other parts of volumes */
            continue;
        struct volume *v = g_hash_table_lookup(found, name);
        if (!v)
            v = add_volume(p, found, r);
        if (v)
            add_segment(v, r);
    }
    return report != NULL;
}

bool logical_read_group(const char *text, struct pool_figures *ret, GError **error)
{
    g_autoptr(report) report = report_read("vgs", text, "vg", error);
    if (!report)
        return false;
    if (report->count != 1)
        return ruche_error(error, RUCHE_ERR_IO, "vgs told of %u volume groups in place of one",
                           report->count);
    ret->capacity = report_number(report->rows, "vg_size");
    ret->available = MIN(report_number(report->rows, "vg_free"), ret->capacity);
    ret->allocation = ret->capacity - ret->available;
    return true;
}

static bool logical_scan(struct pool *p, GHashTable *found, struct pool_figures *ret,
                         GError **error)
{
    g_autofree char *group = g_strdup(group_of(p)), *vgs = NULL, *lvs = NULL;
    if (!storage_run(&vgs, error, "vgs", "--reportformat", "json", "--units", "b", "--nosuffix",
                     "-o", "vg_name,vg_size,vg_free", group, NULL) ||
        !logical_read_group(vgs, ret, error))
        return false;
    return storage_run(&lvs, error, "lvs", "--reportformat", "json", "--units", "b", "--nosuffix",
                       "-o",
                       "lv_name,lv_uuid,lv_attr,lv_size,origin,data_percent,devices,seg_size,vg_"
                       "extent_size",
                       group, NULL) &&
           logical_read_volumes(p, lvs, found, error) && device_volumes_look(p, found, group, error);
}

/* ---- life ---- */

static bool logical_check(struct xml_node *root, GError **error)
{
    const char *group = xml_get_or(root, "source/name", "");
    return is_lvm_name(group) ||
           ruche_error(error, RUCHE_ERR_XML,
                       "pool '%s': '%.64s' cannot be a source's name: names of volume groups have "
                       "letters, digits and + _ . - only, and do not begin with -",
                       xml_get_or(root, "name", ""), group);
}

static bool logical_start(struct pool *p, GError **error)
{
    return storage_run(NULL, error, "vgchange", "-q", "-aly", group_of(p), NULL);
}

static bool logical_stop(struct pool *p, GError **error)
{
    return storage_run(NULL, error, "vgchange", "-q", "-aln", group_of(p), NULL);
}

static GPtrArray *devices_of(const struct pool *p)
{
    GPtrArray *list = g_ptr_array_new_with_free_func(g_free);
    for (const struct xml_node *n = xml_find(pool_root(p), "source/device"); n; n = xml_next(n))
        g_ptr_array_add(list, g_strdup(xml_get(n, "@path")));
    return list;
}

static bool make_devices(GPtrArray *devices, unsigned flags, GError **error)
{
    for (unsigned i = 0; i < devices->len; i++)
        if (!(flags & POOL_BUILD_OVERWRITE) && !device_is_empty(devices->pdata[i], error))
            return false;
    for (unsigned i = 0; i < devices->len; i++) {
        if ((!(flags & POOL_BUILD_OVERWRITE) ||
             storage_run(NULL, error, "wipefs", "-q", "--all", "--force", "--", devices->pdata[i],
                         NULL)) &&
            storage_run(NULL, error, "pvcreate", "-q", "-y", devices->pdata[i], NULL))
            continue;
        while (i-- > 0)
            storage_run(NULL, NULL, "pvremove", "-q", "-y", devices->pdata[i], NULL);
        return false;
    }
    return true;
}

static bool logical_build(struct pool *p, unsigned flags, GError **error)
{
    g_autoptr(GPtrArray) devices = devices_of(p), argv = g_ptr_array_new();
    if (!devices->len)
        return ruche_error(error, RUCHE_ERR_XML,
                           "storage pool '%s': a volume group is made of devices: say which "
                           "(source/device@path)",
                           p->name);
    if (!make_devices(devices, flags, error))
        return false;
    g_ptr_array_add(argv, (void *)"vgcreate");
    g_ptr_array_add(argv, (void *)"-q");
    g_ptr_array_add(argv, (void *)group_of(p));
    for (unsigned i = 0; i <= devices->len; i++)
        g_ptr_array_add(argv, i < devices->len ? devices->pdata[i] : NULL);
    if (storage_run_argv((const char *const *)argv->pdata, NULL, STORAGE_RUN_MS, NULL, error))
        return true;
    for (unsigned i = 0; i < devices->len; i++)
        storage_run(NULL, NULL, "pvremove", "-q", "-y", devices->pdata[i], NULL);
    return false;
}

static bool logical_remove(struct pool *p, GError **error)
{
    g_autoptr(GPtrArray) devices = devices_of(p);
    if (!storage_run(NULL, error, "vgremove", "-q", "-f", group_of(p), NULL))
        return false;
    for (unsigned i = 0; i < devices->len; i++)
        if (!storage_run(NULL, error, "pvremove", "-q", "-y", devices->pdata[i], NULL))
            return false;
    return true;
}

static void logical_find(const struct xml_node *spec, GString *into, GError **error)
{
    g_autofree char *said = NULL;
    if (!storage_run(&said, error, "pvs", "--reportformat", "json", "-o", "pv_name,vg_name", NULL))
        return;
    g_autoptr(report) report = report_read("pvs", said, "pv", error);
    g_autoptr(GHashTable) groups = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    for (unsigned i = 0; report && i < report->count; i++) {
        const char *group = report_text(&report->rows[i], "vg_name"),
                   *old = g_hash_table_lookup(groups, group);
        GString *s = g_string_new(old);
        markup_add(s, "    <device path='%s'/>\n", report_text(&report->rows[i], "pv_name"));
        g_hash_table_replace(groups, g_strdup(group), g_string_free(s, FALSE));
    }
    GHashTableIter it;
    const char *group, *devices;
    g_hash_table_iter_init(&it, groups);
    while (g_hash_table_iter_next(&it, (gpointer *)&group, (gpointer *)&devices)) {
        if (!*group)
            continue;
        g_string_append_printf(into, "  <source>\n%s", devices);
        markup_add(into, "    <name>%s</name>\n    <format type='lvm2'/>\n  </source>\n", group);
    }
}

/* ---- volumes ---- */

/* The group's first pool of thin volumes; NULL: none. */
static char *thin_pool(const struct pool *p)
{
    g_autofree char *said = NULL;
    if (!storage_run(&said, NULL, "lvs", "--reportformat", "json", "-o", "lv_name,lv_attr",
                     group_of(p), NULL))
        return NULL;
    g_autoptr(report) report = report_read("lvs", said, "lv", NULL);
    for (unsigned i = 0; report && i < report->count; i++)
        if (report_text(&report->rows[i], "lv_attr")[0] == 't')
            return g_strdup(report_text(&report->rows[i], "lv_name"));
    return NULL;
}

static bool check_name(const char *name, GError **error)
{
    return is_lvm_name(name) || ruche_error(error, RUCHE_ERR_INVALID,
                             "volume '%s': names of logical volumes have letters, digits and + _ . "
                             "- only, and do not begin with -",
                             name);
}

/* "/dev/vg/origin" as "vg/origin", and whether that is a thin one. */
static bool find_origin(struct pool *p, const char *path, char **ret_origin, bool *ret_thin,
                        GError **error)
{
    size_t length = strlen(p->def->target);
    const char *name =
        !strncmp(path, p->def->target, length) && path[length] == '/' ? path + length + 1 : NULL;
    g_autofree char *said = NULL,
                    *origin = name ? g_strdup_printf("%s/%s", group_of(p), name) : NULL;
    if (!name || strchr(name, '/') || !g_hash_table_contains(p->volumes, name))
        return ruche_error(error, RUCHE_ERR_NOT_FOUND,
                           "backing store '%s' is no volume of storage pool '%s'", path, p->name);
    if (!storage_run(&said, error, "lvs", "--reportformat", "json", "-o", "lv_attr", origin, NULL))
        return false;
    g_autoptr(report) report = report_read("lvs", said, "lv", error);
    *ret_thin = report && report->count && report_text(report->rows, "lv_attr")[0] == 'V';
    *ret_origin = report ? g_steal_pointer(&origin) : NULL;
    return report != NULL;
}

static bool logical_create(struct pool *p, const struct volume_def *d, char **ret_path,
                           GError **error)
{
    uint64_t room =
        d->allocation == UINT64_MAX ? d->capacity : MAX(MIN(d->allocation, d->capacity), 1);
    bool sparse = d->allocation < d->capacity, thin = false;
    g_autofree char *pool = sparse && !d->backing ? thin_pool(p) : NULL, *origin = NULL;
    g_autofree char *size = g_strdup_printf("%" PRIu64 "b", align_up(d->capacity, 512));
    g_autofree char *own = g_strdup_printf("%" PRIu64 "b", align_up(room, 1 << 20));
    if (!check_name(d->name, error) ||
        (d->backing && !find_origin(p, d->backing, &origin, &thin, error)))
        return false;
    const char *argv[16] = {"lvcreate", "-q", "-y", "-n", d->name};
    unsigned n = 5;
    const char *const snapshot[] = {"-s", origin, thin ? "-kn" : "-L", thin ? "-ay" : own, NULL};
    const char *const in_pool[] = {"-V", size, "--thinpool", pool, group_of(p), NULL};
    const char *const virtual_size[] = {"--type", "snapshot", "-L",        own,
                                        "-V",     size,       group_of(p), NULL};
    const char *const plain[] = {"-W", "y", "-L", size, group_of(p), NULL};
    const char *const *more = origin ? snapshot : pool ? in_pool : sparse ? virtual_size : plain;
    while (*more)
        argv[n++] = *more++;
    if (!storage_run_argv(argv, NULL, STORAGE_RUN_MS, NULL, error))
        return false;
    *ret_path = g_strdup_printf("%s/%s", p->def->target, d->name);
    return true;
}

static bool logical_delete(struct pool *p, const char *name, const char *path, GError **error)
{
    g_autofree char *full = g_strdup_printf("%s/%s", group_of(p), name);
    return storage_run(NULL, error, "lvremove", "-q", "-f", full, NULL);
}

static bool logical_resize(struct pool *p, const char *name, const char *path, uint64_t bytes,
                           GError **error)
{
    g_autofree char *full = g_strdup_printf("%s/%s", group_of(p), name),
                    *size = g_strdup_printf("%" PRIu64 "b", bytes);
    const struct volume *v = g_hash_table_lookup(p->volumes, name);
    return (v && (v->physical ? v->physical : v->capacity) == bytes) ||
           storage_run(NULL, error, "lvresize", "-q", "-f", "-L", size, full, NULL);
}

static const char *const formats[] = {"lvm2", "unknown", NULL};
static const char *const programs[] = {"vgs", "lvs", "lvcreate", "vgcreate", "pvcreate", NULL};

static const struct pool_backend logical_backend = {
    .type = "logical",
    .summary = "an LVM volume group",
    .list_flag = 1 << 9,
    .can =
        POOL_CAN_BUILD | POOL_CAN_OVERWRITE | POOL_CAN_DELETE | POOL_CAN_RESIZE | POOL_CAN_SNAPSHOT,
    .needs = POOL_NEEDS_NAME,
    .may = POOL_NEEDS_DEVICE,
    .target = "/dev/%s",
    .source_formats = formats,
    .programs = programs,
    .check = logical_check,
    .find_sources = logical_find,
    .build = logical_build,
    .start = logical_start,
    .stop = logical_stop,
    .remove = logical_remove,
    .scan = logical_scan,
    .volume_create = logical_create,
    .volume_delete = logical_delete,
    .volume_resize = logical_resize,
};
POOL_BACKEND(logical_backend);
