/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Type 'disk': a block device with a partition table; its partitions are the volumes.
 *
 * Spec      libvirt's formatstorage, "Disk pool"; sfdisk(8), --json and its input.
 * Trust     sfdisk's answer is read by type; a table with more than PARTITIONS_MAX entries is
 * refused.
 */
#include "base/log.h"
#include "manager/markup.h"
#include "manager/storage/readers.h"
#include "manager/storage/report.h"
#include "manager/storage/storage_priv.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PARTITIONS_MAX 1024
#define ALIGN_BYTES    (1u << 20)

struct partition {
    char *node;
    uint64_t start, bytes;
    bool container; /* an extended one: others lie in it */
};
struct disk_table {
    char *label;
    uint64_t first, last, sector; /* bytes; last is behind the end */
    unsigned count;
    struct partition *parts; /* by place */
};

void disk_table_free(struct disk_table *t)
{
    for (unsigned i = 0; t && i < t->count; i++)
        g_free(t->parts[i].node);
    g_free(t ? t->parts : NULL);
    g_free(t ? t->label : NULL);
    g_free(t);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(disk_table, disk_table_free)

static int by_start(const void *a, const void *b)
{
    const struct partition *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

/* Sizes are in sectors; what cannot be in bytes is refused. */
static bool read_partition(JsonObject *o, const char *device, uint64_t sector,
                           struct partition *ret)
{
    const char *node = json_text(o, "node"), *type = json_text(o, "type");
    if (!g_str_has_prefix(node, device) ||
        __builtin_mul_overflow(json_number(o, "start"), sector, &ret->start) ||
        __builtin_mul_overflow(json_number(o, "size"), sector, &ret->bytes) ||
        ret->bytes > INT64_MAX || ret->start > INT64_MAX - ret->bytes)
        return false;
    ret->container = !strcmp(type, "5") || !strcmp(type, "f") || !strcmp(type, "85");
    ret->node = g_strdup(node);
    return true;
}

disk_table *disk_table_read(const char *text, const char *device, uint64_t device_bytes,
                            GError **error)
{
    g_autoptr(JsonNode) owner = NULL;
    JsonObject *root = json_root("sfdisk", text, &owner, error);
    JsonNode *n = root ? json_object_get_member(root, "partitiontable") : NULL;
    JsonObject *table = n && JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
    if (!table) {
        if (root)
            ruche_error(error, RUCHE_ERR_IO, "sfdisk: its answer about '%s' has no table", device);
        return NULL;
    }
    g_autoptr(disk_table) t = g_new0(struct disk_table, 1);
    JsonNode *list = json_object_get_member(table, "partitions");
    JsonArray *parts = list && JSON_NODE_HOLDS_ARRAY(list) ? json_node_get_array(list) : NULL;
    unsigned count = parts ? json_array_get_length(parts) : 0;
    uint64_t last = json_number(table, "lastlba");
    t->sector = json_number(table, "sectorsize") ? json_number(table, "sectorsize") : 512;
    t->label = g_strdup(json_text(table, "label"));
    t->first = ALIGN_BYTES;
    t->last = last && last < INT64_MAX / 4096 && t->sector <= 4096 ? (last + 1) * t->sector
                                                                   : device_bytes;
    t->last = MIN(t->last, device_bytes);
    t->parts = g_new0(struct partition, MIN(count, PARTITIONS_MAX) + 1);
    for (unsigned i = 0; i < count && count <= PARTITIONS_MAX; i++) {
        JsonNode *e = json_array_get_element(parts, i);
        if (JSON_NODE_HOLDS_OBJECT(e) &&
            read_partition(json_node_get_object(e), device, t->sector, &t->parts[t->count]))
            t->count++;
    }
    qsort(t->parts, t->count, sizeof(t->parts[0]), by_start);
    return g_steal_pointer(&t);
}

/* The first free range of so many bytes, aligned; 0: there is none. */
uint64_t disk_table_room(const disk_table *t, uint64_t bytes)
{
    uint64_t at = t->first;
    for (unsigned i = 0; i <= t->count; i++) {
        uint64_t end = i < t->count ? MIN(t->parts[i].start, t->last) : t->last;
        if (end > at && end - at >= bytes)
            return at;
        if (i < t->count)
            at = MAX(at, align_up(t->parts[i].start + t->parts[i].bytes, ALIGN_BYTES));
    }
    return 0;
}

/* NULL: none begins there. (The first in an extended one begins behind its head.) */
static const struct partition *part_at(const disk_table *t, uint64_t start)
{
    for (unsigned i = 0; i < t->count; i++)
        if (t->parts[i].start == start)
            return &t->parts[i];
    return NULL;
}

static const char *device_of(const struct pool *p)
{
    return pool_get(p, "source/device@path");
}

/* ---- looking ---- */

static bool device_bytes(struct pool *p, const char *device, uint64_t *ret, GError **error)
{
    g_autoptr(GHashTable) one =
        g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)volume_free);
    struct volume *v = device_volume_new(one, "disk", device);
    if (!v || !device_volumes_look(p, one, device, error))
        return false;
    *ret = v->capacity;
    return *ret || ruche_error(error, RUCHE_ERR_NOT_FOUND,
                               "'%s' is no block device that could be opened", device);
}

static disk_table *read_table(struct pool *p, uint64_t *ret_bytes, GError **error)
{
    g_autofree char *device = g_strdup(device_of(p)), *said = NULL;
    if (!device_bytes(p, device, ret_bytes, error) ||
        !storage_run(&said, error, "sfdisk", "--json", "--", device, NULL))
        return NULL;
    return disk_table_read(said, device, *ret_bytes, error);
}

static bool disk_scan(struct pool *p, GHashTable *found, struct pool_figures *ret, GError **error)
{
    uint64_t bytes = 0;
    g_autoptr(disk_table) t = read_table(p, &bytes, error);
    if (!t)
        return false;
    ret->capacity = bytes;
    for (unsigned i = 0; i < t->count; i++) {
        const struct partition *part = &t->parts[i];
        g_autofree char *name = g_path_get_basename(part->node);
        struct volume *v = device_volume_new(found, name, part->node);
        if (!v)
            continue;
        GString *s = g_string_new(NULL);
        markup_add(s,
                   "    <device path='%s'>\n      <extent start='%" PRIu64 "' end='%" PRIu64
                   "'/>\n    </device>\n",
                   device_of(p), part->start, part->start + part->bytes);
        v->source = g_string_free(s, FALSE);
        v->capacity = v->allocation = part->bytes;
        v->extent = (struct volume_extent){part->start, part->bytes, part->container};
        if (!part->container)
            ret->allocation += part->bytes;
    }
    ret->allocation = MIN(ret->allocation, bytes);
    ret->available = bytes - ret->allocation;
    return device_volumes_look(p, found, device_of(p), error);
}

/* ---- life ---- */

static bool run_script(const char *device, bool more, const char *script, GError **error)
{
    const char *const whole[] = {"sfdisk", "--quiet", "--wipe", "always", "--", device, NULL};
    const char *const append[] = {"sfdisk",   "--quiet", "--wipe", "never", "--no-reread",
                                  "--append", "--",      device,   NULL};
    if (!storage_run_argv(more ? append : whole, script, STORAGE_RUN_MS, NULL, error))
        return false;
    storage_run(NULL, NULL, "udevadm", "settle", "--timeout=10", NULL);
    return true;
}

/* Mapped partitions (multipath) are kpartx's. */
static bool kernel_has(const struct disk_table *t, const char *device)
{
    g_autofree char *real = realpath(device, NULL);
    if (real && g_str_has_prefix(real, "/dev/dm-"))
        return true;
    for (unsigned i = 0; i < t->count; i++) {
        const struct partition *part = &t->parts[i];
        const struct volume_extent e = {part->start, part->bytes, part->container};
        if (!device_is_at(part->node, &e))
            return false;
    }
    return true;
}

/* udev's programs look at partitions that were closed: what they have open at that moment the kernel does not take
 * anew from sfdisk. */
static void tell_kernel(struct pool *p)
{
    enum { TRIES = 20, WAIT_MS = 100 };
    uint64_t bytes;
    g_autofree char *device = g_strdup(device_of(p));
    for (unsigned tries = 0; tries < TRIES; tries++) {
        storage_run(NULL, NULL, "udevadm", "settle", "--timeout=10", NULL);
        g_autoptr(disk_table) t = read_table(p, &bytes, NULL);
        if (!t || kernel_has(t, device))
            return;
        storage_run(NULL, NULL, "partx", "--update", device, NULL);
        task_sleep_ms(WAIT_MS);
    }
    log_warn("storage pool '%s': the kernel has not taken all partitions of '%s' as they are now",
             p->name, device);
}

static bool disk_build(struct pool *p, unsigned flags, GError **error)
{
    const char *format = pool_get(p, "source/format@type");
    g_autofree char *script =
        g_strdup_printf("label: %s\n", !strcmp(format, "unknown") ? "dos" : format);
    return (flags & POOL_BUILD_OVERWRITE || device_is_empty(device_of(p), error)) &&
           run_script(device_of(p), false, script, error);
}

static bool disk_start(struct pool *p, GError **error)
{
    const char *format = pool_get(p, "source/format@type");
    uint64_t bytes;
    g_autoptr(disk_table) t = read_table(p, &bytes, error);
    if (!t)
        return false;
    return !strcmp(format, "unknown") || !strcmp(format, t->label) ||
           ruche_error(error, MANAGER_ERR_CONFIG,
                       "storage pool '%s': the partition table of '%s' is '%s', not '%s'", p->name,
                       device_of(p), t->label, format);
}

/* ---- volumes ---- */

/* A partition's type by the word for its format. */
static const char *type_word(const char *format, bool gpt)
{
    static const struct {
        const char *format, *dos, *gpt;
    } rows[] = {
        {"linux", "83", "L"},
        {"fat16", "6", "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"},
        {"fat32", "c", "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"},
        {"linux-swap", "82", "S"},
        {"linux-lvm", "8e", "E6D6D379-F507-44C2-A23C-238F2A3DF928"},
        {"linux-raid", "fd", "R"},
        {"extended", "5", "L"},
    };
    for (unsigned i = 0; format && i < ARRAY_COUNT(rows); i++)
        if (!strcmp(rows[i].format, format))
            return gpt ? rows[i].gpt : rows[i].dos;
    return gpt ? "L" : "83";
}

/* Names are the kernel's: the new one is known before. */
static char *next_name(const struct pool *p, const disk_table *t)
{
    g_autofree char *base = g_path_get_basename(device_of(p));
    bool digit = g_ascii_isdigit(base[strlen(base) - 1]);
    for (unsigned number = 1; number <= PARTITIONS_MAX; number++) {
        g_autofree char *node = g_strdup_printf("%s%s%u", device_of(p), digit ? "p" : "", number);
        bool taken = false;
        for (unsigned i = 0; i < t->count; i++)
            taken |= !strcmp(t->parts[i].node, node);
        if (!taken)
            return g_path_get_basename(node);
    }
    return NULL;
}

static bool disk_create(struct pool *p, const struct volume_def *d, char **ret_path, GError **error)
{
    uint64_t total, bytes = align_up(d->capacity, ALIGN_BYTES);
    g_autoptr(disk_table) t = read_table(p, &total, error);
    g_autofree char *name = t ? next_name(p, t) : NULL;
    if (!t)
        return false;
    if (g_strcmp0(name, d->name) != 0)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "volume '%s': the next partition of '%s' is called '%s'", d->name,
                           device_of(p), name ? name : "nothing");
    bool gpt = !strcmp(t->label, "gpt");
    uint64_t at = disk_table_room(t, bytes);
    if (!at)
        return ruche_error(error, RUCHE_ERR_NO_SPACE,
                           "volume '%s': '%s' has no free range of %" PRIu64 " bytes", d->name,
                           device_of(p), bytes);
    g_autofree char *script =
        g_strdup_printf("start=%" PRIu64 ", size=%" PRIu64 ", type=%s\n", at / t->sector,
                        bytes / t->sector, type_word(d->partition, gpt));
    g_autofree char *device = g_strdup(device_of(p)), *folder = g_path_get_dirname(device);
    g_autofree char *path = g_build_filename(folder, name, NULL);
    if (!run_script(device, true, script, error))
        return false;
    tell_kernel(p);
    disk_table_free(t);
    t = read_table(p, &total, error);
    const struct partition *made = t ? part_at(t, at) : NULL;
    if (!made || strcmp(made->node, path) != 0)
        return t && ruche_error(error, RUCHE_ERR_IO,
                                "volume '%s': sfdisk has made '%s' at %" PRIu64 " of '%s'", d->name,
                                made ? made->node : "nothing", at, device);
    struct volume *v = g_hash_table_lookup(p->volumes, d->name); /* while it is being made */
    if (v)
        v->extent = (struct volume_extent){made->start, made->bytes, made->container};
    *ret_path = g_steal_pointer(&path);
    return true;
}

/* ---- what is there by now ---- */

static bool check_table(const struct pool *p, const disk_table *t, const char *path,
                        const struct volume_extent *e, GError **error)
{
    const struct partition *part = part_at(t, e->start);
    return (part && part->bytes == e->bytes && !strcmp(part->node, path)) ||
           ruche_error(error, RUCHE_ERR_STATE,
                       "volume '%s': the partition table of '%s' has changed, and at %" PRIu64
                       " is %s; refresh storage pool '%s'",
                       path, device_of(p), e->start, part ? part->node : "nothing", p->name);
}

static bool disk_check(struct pool *p, const char *name, GError **error)
{
    uint64_t total;
    g_autoptr(disk_table) t = read_table(p, &total, error);
    const struct volume *v = t ? volume_find(p, name, error) : NULL;
    return v && check_table(p, t, v->path, &v->extent, error);
}

static unsigned number_of(const struct volume *v)
{
    const char *digits = v->name + strlen(v->name);
    while (digits > v->name && g_ascii_isdigit(digits[-1]))
        digits--;
    return (unsigned)strtoul(digits, NULL, 10);
}

static bool lies_in(const struct volume *v, const struct volume *container)
{
    const struct volume_extent *in = &v->extent, *e = &container->extent;
    return e->container && in != e && in->start >= e->start &&
           in->start + in->bytes <= e->start + e->bytes;
}

/* Logical partitions, those in an extended one, are numbered without gaps. */
static GPtrArray *disk_renames(struct pool *p, const struct volume *v)
{
    GPtrArray *names = g_ptr_array_new();
    GHashTableIter it, others;
    const struct volume *container, *other;
    g_hash_table_iter_init(&it, p->volumes);
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&container)) {
        if (!lies_in(v, container))
            continue;
        g_hash_table_iter_init(&others, p->volumes);
        while (g_hash_table_iter_next(&others, NULL, (gpointer *)&other))
            if (lies_in(other, container) && number_of(other) > number_of(v))
                g_ptr_array_add(names, other->name);
    }
    return names;
}

static bool check_empty(struct pool *p, const struct volume *container, GError **error)
{
    GHashTableIter it;
    const struct volume *v;
    g_hash_table_iter_init(&it, p->volumes);
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&v))
        if (lies_in(v, container))
            return ruche_error(error, RUCHE_ERR_BUSY,
                               "volume '%s' is an extended partition, in which '%s' lies: delete "
                               "that before",
                               container->name, v->name);
    return true;
}

/* The kernel takes away and renames only what nobody uses; sfdisk would change the table all the same. */
static bool check_unused(struct pool *p, const struct volume *v, GError **error)
{
    g_autoptr(GArray) extents = g_array_new(FALSE, FALSE, sizeof(v->extent));
    g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free), names = disk_renames(p, v);
    g_ptr_array_add(names, v->name);
    for (unsigned i = 0; i < names->len; i++) {
        const struct volume *one = g_hash_table_lookup(p->volumes, names->pdata[i]);
        g_array_append_val(extents, one->extent);
        g_ptr_array_add(paths, g_strdup(one->path));
    }
    for (unsigned i = 0; i < paths->len; i++)
        if (!device_check_free(p, "volume", paths->pdata[i],
                               &g_array_index(extents, struct volume_extent, i), error))
            return false;
    return true;
}

static bool disk_delete(struct pool *p, const char *name, const char *path, GError **error)
{
    const struct volume *v = volume_find(p, name, error);
    if (!v)
        return false;
    const struct volume_extent extent = v->extent;
    g_autofree char *number = g_strdup_printf("%u", number_of(v)), *device = g_strdup(device_of(p));
    if (!(extent.container ? check_empty(p, v, error) : check_unused(p, v, error)))
        return false;
    uint64_t total;
    storage_run(NULL, NULL, "udevadm", "settle", "--timeout=10", NULL); /* who looked at them, too */
    g_autoptr(disk_table) t = read_table(p, &total, error);
    if (!t || !check_table(p, t, path, &extent, error) ||
        !storage_run(NULL, error, "sfdisk", "--quiet", "--no-reread", "--delete", device, number,
                     NULL))
        return false;
    tell_kernel(p);
    return true;
}

static const char *const formats[] = {"unknown", "dos", "gpt", "sun", NULL};
static const char *const partitions[] = {
    "none", "linux", "fat16", "fat32", "linux-swap", "linux-lvm", "linux-raid", "extended", NULL};
static const char *const programs[] = {"sfdisk", "wipefs", NULL};

static const struct pool_backend disk_backend = {
    .type = "disk",
    .summary = "a disk with a partition table",
    .list_flag = 1 << 10,
    .can = POOL_CAN_BUILD | POOL_CAN_OVERWRITE,
    .needs = POOL_NEEDS_DEVICE,
    .target = "/dev",
    .source_formats = formats,
    .volume_formats = partitions,
    .programs = programs,
    .build = disk_build,
    .start = disk_start,
    .scan = disk_scan,
    .volume_create = disk_create,
    .volume_delete = disk_delete,
    .volume_check = disk_check,
    .volume_renames = disk_renames,
};
POOL_BACKEND(disk_backend);
