/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Disks' share of the host's (control groups), and rates of a machine's own disks (its monitor).
 */
#include "manager/domain/vm_tune.h"

#include "base/util.h"

#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* ---- disks' share ---- */

static const struct {
    const char *name, *which, *element;
} blkio[] = {
    {"device_weight", "weight", "weight"},
    {"device_read_bytes_sec", "rbps", "read_bytes_sec"},
    {"device_write_bytes_sec", "wbps", "write_bytes_sec"},
    {"device_read_iops_sec", "riops", "read_iops_sec"},
    {"device_write_iops_sec", "wiops", "write_iops_sec"},
};

static bool set_block_device(struct vm *v, const char *path, const char *which, uint64_t value,
                             GError **error)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return ruche_error_errno(error, errno, "block device '%s'", path);
    if (!S_ISBLK(st.st_mode))
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is not a block device", path);
    return cgroup_set_device(v->cgroup, major(st.st_rdev), minor(st.st_rdev), which, value, error);
}

static bool set_block_list(struct vm *v, const char *which, const char *text, GError **error)
{
    g_auto(GStrv) words = g_strsplit(text, ",", 1024);
    for (char **w = words; w[0] && w[1]; w += 2)
        if (!set_block_device(v, w[0], which, g_ascii_strtoull(w[1], NULL, 10), error))
            return false;
    return true;
}

static bool blkio_set(struct vm *v, const char *device, const struct param_list *l, GError **error)
{
    const struct param *weight = param_find(l, "weight");
    if (weight &&
        !cgroup_set(v->cgroup, NULL, NULL, 0, CGROUP_BLKIO_WEIGHT, (int64_t)weight->u, error))
        return false;
    for (size_t i = 0; i < ARRAY_COUNT(blkio); i++) {
        const struct param *p = param_find(l, blkio[i].name);
        if (p && !set_block_list(v, blkio[i].which, p->s, error))
            return false;
    }
    return true;
}

/* Devices' limits as they were set: the live description has them. */
static char *block_list(const struct xml_node *domain, const char *element)
{
    GString *s = g_string_new(NULL);
    for (struct xml_node *n = xml_find(domain, "blkiotune/device"); n; n = xml_next(n))
        if (xml_get(n, element))
            g_string_append_printf(s, "%s%s,%s", s->len ? "," : "", xml_get_or(n, "path", ""),
                                   xml_get(n, element));
    return g_string_free(s, FALSE);
}

static bool blkio_get(struct vm *v, const char *device, struct param_list *ret, GError **error)
{
    int64_t weight = 0;
    if (!cgroup_has(v->cgroup, CGROUP_BLKIO))
        return cgroup_get(v->cgroup, NULL, CGROUP_BLKIO_WEIGHT, &weight, error);
    cgroup_get(v->cgroup, NULL, CGROUP_BLKIO_WEIGHT, &weight,
               NULL); /* not every scheduler has weights */
    param_uint(ret, "weight", (unsigned)weight);
    struct xml_node *domain = domain_def_tree(v->d->live);
    for (size_t i = 0; i < ARRAY_COUNT(blkio); i++) {
        g_autofree char *list = block_list(domain, blkio[i].element);
        param_string(ret, blkio[i].name, list);
    }
    domain_def_shrink(v->d->live);
    return true;
}

static bool start_blkio(struct vm *v, const struct xml_node *domain, GError **error)
{
    uint64_t weight = xml_get_u64(domain, "blkiotune/weight", 0);
    if (weight &&
        !cgroup_set(v->cgroup, NULL, NULL, 0, CGROUP_BLKIO_WEIGHT, (int64_t)weight, error))
        return false;
    for (struct xml_node *n = xml_find(domain, "blkiotune/device"); n; n = xml_next(n))
        for (size_t i = 0; i < ARRAY_COUNT(blkio); i++)
            if (xml_get(n, blkio[i].element) &&
                !set_block_device(v, xml_get_or(n, "path", ""), blkio[i].which,
                                  xml_get_u64(n, blkio[i].element, 0), error))
                return false;
    return true;
}

const struct vm_tune_group vm_tune_blkio = {
    .which = "blkio", .set = blkio_set, .get = blkio_get, .start = start_blkio};

/* ---- disks' rates ---- */

static const struct {
    const char *name, *qmp;
} iotune[] = {
    {"total_bytes_sec", "bps"},
    {"read_bytes_sec", "bps_rd"},
    {"write_bytes_sec", "bps_wr"},
    {"total_iops_sec", "iops"},
    {"read_iops_sec", "iops_rd"},
    {"write_iops_sec", "iops_wr"},
    {"total_bytes_sec_max", "bps_max"},
    {"read_bytes_sec_max", "bps_rd_max"},
    {"write_bytes_sec_max", "bps_wr_max"},
    {"total_iops_sec_max", "iops_max"},
    {"read_iops_sec_max", "iops_rd_max"},
    {"write_iops_sec_max", "iops_wr_max"},
    {"size_iops_sec", "iops_size"},
    {"total_bytes_sec_max_length", "bps_max_length"},
    {"read_bytes_sec_max_length", "bps_rd_max_length"},
    {"write_bytes_sec_max_length", "bps_wr_max_length"},
    {"total_iops_sec_max_length", "iops_max_length"},
    {"read_iops_sec_max_length", "iops_rd_max_length"},
    {"write_iops_sec_max_length", "iops_wr_max_length"},
};

/* QEMU wants the path of the part that has the image, for disks without a -drive. */
static char *throttle_id(const struct vm *v, const char *alias)
{
    return v->ours || !g_str_has_prefix(alias, "virtio-")
               ? g_strdup(alias)
               : g_strdup_printf("/machine/peripheral/%s/virtio-backend", alias);
}

static uint64_t iotune_value(const struct param_list *l, const struct xml_node *disk,
                             const char *name)
{
    const struct param *p = param_find(l, name);
    g_autofree char *path = g_strconcat("iotune/", name, NULL);
    return p ? p->u : xml_get_u64(disk, path, 0);
}

/* What is not said stays, but for what excludes it: a total takes away its parts, and the other way
 * round. */
static bool excluded(const struct param_list *l, const char *name)
{
    const char *unit = strstr(name, "bytes") ? "bytes" : "iops";
    bool total = g_str_has_prefix(name, "total_");
    if (param_find(l, name) || !strcmp(name, "size_iops_sec"))
        return false;
    for (unsigned i = 0; i < l->count; i++)
        if (strstr(l->rows[i].name, unit) && l->rows[i].type != PARAM_STRING && l->rows[i].u &&
            g_str_has_prefix(l->rows[i].name, "total_") != total &&
            strcmp(l->rows[i].name, "size_iops_sec"))
            return true;
    return false;
}

static bool apply_iotune(struct vm *v, const struct xml_node *disk, const struct param_list *l,
                         GError **error)
{
    g_autofree char *id = throttle_id(v, xml_get_or(disk, "alias@name", ""));
    JsonObject *args = vm_json("id", 's', id, NULL);
    for (size_t i = 0; i < ARRAY_COUNT(iotune); i++) {
        uint64_t value = excluded(l, iotune[i].name) ? 0 : iotune_value(l, disk, iotune[i].name);
        bool needed = i < 6; /* the plain rates are never left out */
        if (needed || value)
            json_object_set_int_member(args, iotune[i].qmp,
                                       (gint64)MIN(value, (uint64_t)G_MAXINT64));
    }
    const struct param *group = param_find(l, "group_name");
    const char *name = group ? group->s : xml_get(disk, "iotune/group_name");
    if (name && *name)
        json_object_set_string_member(args, "group", name);
    return vm_do(v, "block_set_io_throttle", args, error);
}

static struct xml_node *find_disk_node(struct xml_node *domain, const char *name)
{
    for (struct xml_node *n = xml_find(domain, "devices/disk"); n; n = xml_next(n))
        if (xml_is(n, "target@dev", name) || xml_is(n, "source@file", name) ||
            xml_is(n, "source@dev", name))
            return n;
    return NULL;
}

static bool blockio_set(struct vm *v, const char *device, const struct param_list *l,
                        GError **error)
{
    auto_xml *doc = xml_copy(domain_def_tree(v->d->live)); /* the call below waits */
    domain_def_shrink(v->d->live);
    struct xml_node *disk = find_disk_node(doc, device);
    if (!disk)
        return ruche_error(error, MANAGER_ERR_ARGUMENT, "machine '%s' has no disk '%s'", v->name,
                           device);
    return apply_iotune(v, disk, l, error);
}

static bool blockio_get(struct vm *v, const char *device, struct param_list *ret, GError **error)
{
    static const struct param_list nothing;
    struct xml_node *disk = find_disk_node(domain_def_tree(v->d->live), device);
    if (!disk)
        return ruche_error(error, MANAGER_ERR_ARGUMENT, "machine '%s' has no disk '%s'", v->name,
                           device);
    for (size_t i = 0; i < ARRAY_COUNT(iotune); i++) {
        if (i == 13)
            param_string(ret, "group_name", xml_get_or(disk, "iotune/group_name", ""));
        param_ullong(ret, iotune[i].name, iotune_value(&nothing, disk, iotune[i].name));
    }
    domain_def_shrink(v->d->live);
    return true;
}

static bool start_blockio(struct vm *v, const struct xml_node *domain, GError **error)
{
    static const struct param_list nothing;
    for (struct xml_node *n = xml_find(domain, "devices/disk"); n; n = xml_next(n))
        if (xml_find(n, "iotune") && !apply_iotune(v, n, &nothing, error))
            return false;
    return true;
}

const struct vm_tune_group vm_tune_blockio = {
    .which = "blockio",
    .set = blockio_set,
    .get = blockio_get,
    .start = start_blockio,
};
