/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Limits of a running machine: processor time, memory, disk weight and NUMA nodes by control groups, pinning by
 * affinity, disk rates by its monitor. Names are libvirt's typed parameters.
 *
 * Where      A group's values are what the kernel says now; where a controller is missing, asking is an error
 *            that names it.
 */
#include "manager/domain/vm_internal.h"

#include "base/util.h"

#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define UNLIMITED_KIB 9007199254740991ULL /* VIR_DOMAIN_MEMORY_PARAM_UNLIMITED */
#define MAX_CPUS 4096

/* ---- threads ---- */

static bool is_in(const GArray *threads, pid_t tid)
{
    for (guint i = 0; i < threads->len; i++)
        if (g_array_index(threads, struct vm_thread, i).tid == tid)
            return true;
    return false;
}

/* All threads that are neither vCPU nor I/O thread. */
static unsigned emulator_tids(const struct vm *v, pid_t *ret, unsigned room)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/task", (int)v->pid);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    unsigned n = 0;
    for (const char *name; dir && n < room && (name = g_dir_read_name(dir));) {
        pid_t tid = (pid_t)g_ascii_strtoll(name, NULL, 10);
        if (!is_in(v->vcpus, tid) && !is_in(v->iothreads, tid))
            ret[n++] = tid;
    }
    return n;
}

/* ---- processor time ---- */

enum whom { WHOLE, VCPUS, EMULATOR, IOTHREADS };
static const struct {
    const char *name;
    enum param_type type;
    enum cgroup_key key;
    enum whom whom;
} scheduler[] = {
    { "cpu_shares", PARAM_ULLONG, CGROUP_CPU_SHARES, WHOLE },
    { "vcpu_period", PARAM_ULLONG, CGROUP_CPU_PERIOD_US, VCPUS },
    { "vcpu_quota", PARAM_LLONG, CGROUP_CPU_QUOTA_US, VCPUS },
    { "emulator_period", PARAM_ULLONG, CGROUP_CPU_PERIOD_US, EMULATOR },
    { "emulator_quota", PARAM_LLONG, CGROUP_CPU_QUOTA_US, EMULATOR },
    { "global_period", PARAM_ULLONG, CGROUP_CPU_PERIOD_US, WHOLE },
    { "global_quota", PARAM_LLONG, CGROUP_CPU_QUOTA_US, WHOLE },
    { "iothread_period", PARAM_ULLONG, CGROUP_CPU_PERIOD_US, IOTHREADS },
    { "iothread_quota", PARAM_LLONG, CGROUP_CPU_QUOTA_US, IOTHREADS },
};

static bool set_threads(struct vm *v, const GArray *threads, const char *prefix, enum cgroup_key key, int64_t value, GError **error)
{
    for (guint i = 0; i < threads->len; i++) {
        const struct vm_thread *t = &g_array_index(threads, struct vm_thread, i);
        g_autofree char *part = g_strdup_printf("%s%u", prefix, t->number);
        if (!cgroup_set(v->cgroup, part, &t->tid, 1, key, value, error))
            return false;
    }
    return true;
}

static bool set_scheduler(struct vm *v, size_t row, int64_t value, GError **error)
{
    enum cgroup_key key = scheduler[row].key;
    pid_t tids[1024];
    if (key == CGROUP_CPU_QUOTA_US && value == 0)
        value = -1; /* libvirt: 0 is no limit too */
    if (key == CGROUP_CPU_PERIOD_US && value == 0)
        return true;
    switch (scheduler[row].whom) {
    case VCPUS:
        return set_threads(v, v->vcpus, "vcpu", key, value, error);
    case IOTHREADS:
        return set_threads(v, v->iothreads, "iothread", key, value, error);
    case EMULATOR:
        return cgroup_set(v->cgroup, "emulator", tids, emulator_tids(v, tids, ARRAY_COUNT(tids)), key, value, error);
    default:
        return cgroup_set(v->cgroup, NULL, NULL, 0, key, value, error);
    }
}

/* A part's group is only there once something was set: until then its threads have the whole's. */
static int64_t get_scheduler(const struct vm *v, size_t row)
{
    static const char *const parts[] = { [WHOLE] = NULL, [VCPUS] = "vcpu0", [EMULATOR] = "emulator", [IOTHREADS] = "iothread1" };
    int64_t value;
    if (cgroup_get(v->cgroup, parts[scheduler[row].whom], scheduler[row].key, &value, NULL))
        return value;
    return scheduler[row].key == CGROUP_CPU_QUOTA_US ? -1 : 100000;
}

static void add(struct param_list *l, const char *name, enum param_type type, int64_t value)
{
    if (type == PARAM_LLONG)
        param_llong(l, name, value);
    else if (type == PARAM_UINT)
        param_uint(l, name, (unsigned)value);
    else
        param_ullong(l, name, (uint64_t)value);
}

static int64_t value_of(const struct param *p)
{
    return p->type == PARAM_LLONG || p->type == PARAM_INT ? p->i : (int64_t)MIN(p->u, (uint64_t)G_MAXINT64);
}

static bool scheduler_set(struct vm *v, const char *device, const struct param_list *l, GError **error)
{
    for (unsigned i = 0; i < l->count; i++)
        for (size_t row = 0; row < ARRAY_COUNT(scheduler); row++)
            if (!strcmp(l->rows[i].name, scheduler[row].name) && !set_scheduler(v, row, value_of(&l->rows[i]), error))
                return false;
    return true;
}

static bool scheduler_get(struct vm *v, const char *device, struct param_list *ret, GError **error)
{
    int64_t shares;
    if (!cgroup_get(v->cgroup, NULL, CGROUP_CPU_SHARES, &shares, error))
        return false;
    for (size_t row = 0; row < ARRAY_COUNT(scheduler); row++)
        add(ret, scheduler[row].name, scheduler[row].type, get_scheduler(v, row));
    return true;
}

/* ---- memory ---- */

static const struct {
    const char *name;
    enum cgroup_key key;
} memory[] = {
    { "hard_limit", CGROUP_MEMORY_HARD }, { "soft_limit", CGROUP_MEMORY_SOFT }, { "swap_hard_limit", CGROUP_MEMORY_SWAP },
};

static int64_t limit_bytes(uint64_t kib)
{
    return kib >= UNLIMITED_KIB ? -1 : (int64_t)kib * 1024;
}

static bool set_memory_limit(struct vm *v, const struct param_list *l, size_t row, GError **error)
{
    const struct param *p = param_find(l, memory[row].name);
    return !p || cgroup_set(v->cgroup, NULL, NULL, 0, memory[row].key, limit_bytes(p->u), error);
}

/* The limit of memory and swap can never be below that of memory: which one goes first depends. */
static bool memory_set(struct vm *v, const char *device, const struct param_list *l, GError **error)
{
    const struct param *hard = param_find(l, "hard_limit"), *swap = param_find(l, "swap_hard_limit");
    int64_t old = -1;
    if (hard && swap && hard->u > swap->u)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "memory hard_limit %" G_GUINT64_FORMAT " KiB must not be above swap_hard_limit %" G_GUINT64_FORMAT " KiB",
                           hard->u, swap->u);
    if (swap)
        cgroup_get(v->cgroup, NULL, CGROUP_MEMORY_SWAP, &old, NULL);
    bool swap_first = swap && old >= 0 && (limit_bytes(swap->u) < 0 || limit_bytes(swap->u) > old);
    return (!swap_first || set_memory_limit(v, l, 2, error)) && set_memory_limit(v, l, 0, error) &&
           set_memory_limit(v, l, 1, error) && (swap_first || set_memory_limit(v, l, 2, error));
}

static bool memory_get(struct vm *v, const char *device, struct param_list *ret, GError **error)
{
    int64_t bytes;
    if (!cgroup_get(v->cgroup, NULL, CGROUP_MEMORY_HARD, &bytes, error))
        return false;
    for (size_t row = 0; row < ARRAY_COUNT(memory); row++) {
        bool known = cgroup_get(v->cgroup, NULL, memory[row].key, &bytes, NULL);
        bool limited = known && bytes >= 0 && (uint64_t)bytes / 1024 < UNLIMITED_KIB / 1024 * 1023;
        param_ullong(ret, memory[row].name, limited ? (uint64_t)bytes / 1024 : UNLIMITED_KIB);
    }
    return true;
}

/* ---- disks' share ---- */

static const struct {
    const char *name, *which, *element;
} blkio[] = {
    { "device_weight", "weight", "weight" },
    { "device_read_bytes_sec", "rbps", "read_bytes_sec" },
    { "device_write_bytes_sec", "wbps", "write_bytes_sec" },
    { "device_read_iops_sec", "riops", "read_iops_sec" },
    { "device_write_iops_sec", "wiops", "write_iops_sec" },
};

static bool set_block_device(struct vm *v, const char *path, const char *which, uint64_t value, GError **error)
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
    if (weight && !cgroup_set(v->cgroup, NULL, NULL, 0, CGROUP_BLKIO_WEIGHT, (int64_t)weight->u, error))
        return false;
    for (size_t i = 0; i < ARRAY_COUNT(blkio); i++) {
        const struct param *p = param_find(l, blkio[i].name);
        if (p && !set_block_list(v, blkio[i].which, p->s, error))
            return false;
    }
    return true;
}

/* Devices' limits as they were set: the live description has them. */
static char *block_list(const xmlNode *domain, const char *element)
{
    GString *s = g_string_new(NULL);
    for (xmlNode *n = xml_find(domain, "blkiotune/device"); n; n = xml_next(n))
        if (xml_get(n, element))
            g_string_append_printf(s, "%s%s,%s", s->len ? "," : "", xml_get_or(n, "path", ""), xml_get(n, element));
    return g_string_free(s, FALSE);
}

static bool blkio_get(struct vm *v, const char *device, struct param_list *ret, GError **error)
{
    int64_t weight = 0;
    if (!cgroup_has(v->cgroup, CGROUP_BLKIO))
        return cgroup_get(v->cgroup, NULL, CGROUP_BLKIO_WEIGHT, &weight, error);
    cgroup_get(v->cgroup, NULL, CGROUP_BLKIO_WEIGHT, &weight, NULL); /* not every scheduler has weights */
    param_uint(ret, "weight", (unsigned)weight);
    xmlNode *domain = domain_def_tree(v->d->live);
    for (size_t i = 0; i < ARRAY_COUNT(blkio); i++) {
        g_autofree char *list = block_list(domain, blkio[i].element);
        param_string(ret, blkio[i].name, list);
    }
    domain_def_shrink(v->d->live);
    return true;
}

/* ---- NUMA ---- */

static const char *const numa_modes[] = { "strict", "preferred", "interleave", "restrictive" };

static bool numa_set(struct vm *v, const char *device, const struct param_list *l, GError **error)
{
    const struct param *nodes = param_find(l, "numa_nodeset"), *mode = param_find(l, "numa_mode");
    xmlNode *domain = domain_def_tree(v->d->live);
    const char *now = xml_get_or(domain, "numatune/memory@mode", "strict");
    if (mode && (mode->i < 0 || mode->i > 3 || strcmp(numa_modes[mode->i], now)))
        return ruche_error(error, MANAGER_ERR_CONFIG, "machine '%s': the NUMA mode of a running machine cannot be changed", v->name);
    return !nodes || cgroup_set_text(v->cgroup, CGROUP_CPUSET_MEMS, nodes->s, error);
}

static bool numa_get(struct vm *v, const char *device, struct param_list *ret, GError **error)
{
    xmlNode *domain = domain_def_tree(v->d->live);
    const char *now = xml_get_or(domain, "numatune/memory@mode", "strict");
    g_autofree char *mems = cgroup_get_text(v->cgroup, CGROUP_CPUSET_MEMS);
    for (int i = 0; i < 4; i++)
        if (!strcmp(numa_modes[i], now))
            param_int(ret, "numa_mode", i);
    param_string(ret, "numa_nodeset", mems ? mems : xml_get_or(domain, "numatune/memory@nodeset", ""));
    domain_def_shrink(v->d->live);
    return true;
}

/* ---- disks' rates ---- */

static const struct {
    const char *name, *qmp;
} iotune[] = {
    { "total_bytes_sec", "bps" },
    { "read_bytes_sec", "bps_rd" },
    { "write_bytes_sec", "bps_wr" },
    { "total_iops_sec", "iops" },
    { "read_iops_sec", "iops_rd" },
    { "write_iops_sec", "iops_wr" },
    { "total_bytes_sec_max", "bps_max" },
    { "read_bytes_sec_max", "bps_rd_max" },
    { "write_bytes_sec_max", "bps_wr_max" },
    { "total_iops_sec_max", "iops_max" },
    { "read_iops_sec_max", "iops_rd_max" },
    { "write_iops_sec_max", "iops_wr_max" },
    { "size_iops_sec", "iops_size" },
    { "total_bytes_sec_max_length", "bps_max_length" },
    { "read_bytes_sec_max_length", "bps_rd_max_length" },
    { "write_bytes_sec_max_length", "bps_wr_max_length" },
    { "total_iops_sec_max_length", "iops_max_length" },
    { "read_iops_sec_max_length", "iops_rd_max_length" },
    { "write_iops_sec_max_length", "iops_wr_max_length" },
};

/* QEMU wants the path of the part that has the image, for disks without a -drive. */
static char *throttle_id(const struct vm *v, const char *alias)
{
    return v->ours || !g_str_has_prefix(alias, "virtio-") ? g_strdup(alias)
                                                          : g_strdup_printf("/machine/peripheral/%s/virtio-backend", alias);
}

static uint64_t iotune_value(const struct param_list *l, const xmlNode *disk, const char *name)
{
    const struct param *p = param_find(l, name);
    g_autofree char *path = g_strconcat("iotune/", name, NULL);
    return p ? p->u : xml_get_u64(disk, path, 0);
}

/* What is not said stays, but for what excludes it: a total takes away its parts, and the other way round. */
static bool excluded(const struct param_list *l, const char *name)
{
    const char *unit = strstr(name, "bytes") ? "bytes" : "iops";
    bool total = g_str_has_prefix(name, "total_");
    if (param_find(l, name) || !strcmp(name, "size_iops_sec"))
        return false;
    for (unsigned i = 0; i < l->count; i++)
        if (strstr(l->rows[i].name, unit) && l->rows[i].type != PARAM_STRING && l->rows[i].u &&
            g_str_has_prefix(l->rows[i].name, "total_") != total && strcmp(l->rows[i].name, "size_iops_sec"))
            return true;
    return false;
}

static bool apply_iotune(struct vm *v, const xmlNode *disk, const struct param_list *l, GError **error)
{
    g_autofree char *id = throttle_id(v, xml_get_or(disk, "alias@name", ""));
    JsonObject *args = vm_json("id", 's', id, NULL);
    for (size_t i = 0; i < ARRAY_COUNT(iotune); i++) {
        uint64_t value = excluded(l, iotune[i].name) ? 0 : iotune_value(l, disk, iotune[i].name);
        bool needed = i < 6; /* the plain rates are never left out */
        if (needed || value)
            json_object_set_int_member(args, iotune[i].qmp, (gint64)MIN(value, (uint64_t)G_MAXINT64));
    }
    const struct param *group = param_find(l, "group_name");
    const char *name = group ? group->s : xml_get(disk, "iotune/group_name");
    if (name && *name)
        json_object_set_string_member(args, "group", name);
    return vm_do(v, "block_set_io_throttle", args, error);
}

static xmlNode *find_disk_node(xmlNode *domain, const char *name)
{
    for (xmlNode *n = xml_find(domain, "devices/disk"); n; n = xml_next(n))
        if (xml_is(n, "target@dev", name) || xml_is(n, "source@file", name) || xml_is(n, "source@dev", name))
            return n;
    return NULL;
}

static bool blockio_set(struct vm *v, const char *device, const struct param_list *l, GError **error)
{
    g_autoptr(xmlDoc) doc = xmlCopyDoc(domain_def_tree(v->d->live)->doc, 1); /* the call below waits */
    domain_def_shrink(v->d->live);
    xmlNode *disk = find_disk_node(xmlDocGetRootElement(doc), device);
    if (!disk)
        return ruche_error(error, MANAGER_ERR_ARGUMENT, "machine '%s' has no disk '%s'", v->name, device);
    return apply_iotune(v, disk, l, error);
}

static bool blockio_get(struct vm *v, const char *device, struct param_list *ret, GError **error)
{
    static const struct param_list nothing;
    xmlNode *disk = find_disk_node(domain_def_tree(v->d->live), device);
    if (!disk)
        return ruche_error(error, MANAGER_ERR_ARGUMENT, "machine '%s' has no disk '%s'", v->name, device);
    for (size_t i = 0; i < ARRAY_COUNT(iotune); i++) {
        if (i == 13)
            param_string(ret, "group_name", xml_get_or(disk, "iotune/group_name", ""));
        param_ullong(ret, iotune[i].name, iotune_value(&nothing, disk, iotune[i].name));
    }
    domain_def_shrink(v->d->live);
    return true;
}

/* ---- interfaces' rates ---- */

static bool interface_set(struct vm *v, const char *device, const struct param_list *l, GError **error)
{
    for (unsigned i = 0; i < l->count; i++)
        if (l->rows[i].u)
            return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                               "machine '%s': rates of interface '%s' cannot be limited yet", v->name, device);
    return true;
}

static bool interface_get(struct vm *v, const char *device, struct param_list *ret, GError **error)
{
    static const char *const names[] = { "inbound.average",  "inbound.peak",  "inbound.burst", "inbound.floor",
                                         "outbound.average", "outbound.peak", "outbound.burst" };
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        param_uint(ret, names[i], 0);
    return true;
}

/* ---- by name ---- */

static const struct {
    const char *which;
    bool (*set)(struct vm *v, const char *device, const struct param_list *l, GError **error);
    bool (*get)(struct vm *v, const char *device, struct param_list *ret, GError **error);
} groups[] = {
    { "scheduler", scheduler_set, scheduler_get }, { "memory", memory_set, memory_get },
    { "blkio", blkio_set, blkio_get },             { "numa", numa_set, numa_get },
    { "blockio", blockio_set, blockio_get },       { "interface", interface_set, interface_get },
};

static int find_group(const struct vm *v, const char *which, const char **ret_device, GError **error)
{
    size_t len = strcspn(which, ":");
    *ret_device = which[len] ? which + len + 1 : "";
    for (size_t i = 0; i < ARRAY_COUNT(groups) && v->d && v->d->live; i++)
        if (strlen(groups[i].which) == len && !strncmp(groups[i].which, which, len))
            return (int)i;
    ruche_error(error, MANAGER_ERR_ARGUMENT, "machine '%s' has no parameters '%s'", v->name, which);
    return -1;
}

bool vm_set_params(struct vm *v, const char *which, const struct param_list *l, GError **error)
{
    auto_vm *keep = vm_ref(v);
    const char *device;
    int g = find_group(keep, which, &device, error);
    return g >= 0 && groups[g].set(keep, device, l, error);
}

bool vm_get_params(struct vm *v, const char *which, struct param_list *ret, GError **error)
{
    auto_vm *keep = vm_ref(v);
    const char *device;
    int g = find_group(keep, which, &device, error);
    return g >= 0 && groups[g].get(keep, device, ret, error);
}

/* ---- pinning ---- */

static bool pin_tids(struct vm *v, const pid_t *tids, unsigned count, const cpu_set_t *set, size_t bytes, GError **error)
{
    for (unsigned i = 0; i < count; i++)
        if (sched_setaffinity(tids[i], bytes, set) < 0 && errno != ESRCH)
            return ruche_error_errno(error, errno, "machine '%s': thread %d cannot be pinned", v->name, (int)tids[i]);
    return true;
}

static bool pin_map(struct vm *v, const GArray *threads, int number, const uint8_t *map, unsigned len, GError **error)
{
    size_t bytes = CPU_ALLOC_SIZE(MAX_CPUS);
    cpu_set_t *set = CPU_ALLOC(MAX_CPUS);
    pid_t tids[1024];
    unsigned count = 0;
    CPU_ZERO_S(bytes, set);
    for (unsigned cpu = 0; cpu < len * 8 && cpu < MAX_CPUS; cpu++)
        if (map[cpu / 8] >> (cpu % 8) & 1)
            CPU_SET_S(cpu, bytes, set);
    bool ok = CPU_COUNT_S(bytes, set) > 0 ||
              ruche_error(error, RUCHE_ERR_INVALID, "machine '%s': no CPU is named to pin to", v->name);
    if (!threads)
        count = emulator_tids(v, tids, ARRAY_COUNT(tids));
    for (guint i = 0; threads && i < threads->len; i++)
        if (!count && (int)g_array_index(threads, struct vm_thread, i).number == number)
            tids[count++] = g_array_index(threads, struct vm_thread, i).tid;
    if (ok && !count)
        ok = ruche_error(error, RUCHE_ERR_INVALID, "machine '%s' has no vCPU %d", v->name, number);
    ok = ok && pin_tids(v, tids, count, set, bytes, error);
    CPU_FREE(set);
    return ok;
}

bool vm_pin(struct vm *v, int vcpu, const uint8_t *cpumap, unsigned len, GError **error)
{
    return pin_map(v, vcpu < 0 ? NULL : v->vcpus, vcpu, cpumap, len, error);
}

/* "0-3,^2,8" as bits. */
static bool parse_cpus(const char *text, uint8_t map[MAX_CPUS / 8], GError **error)
{
    memset(map, 0, MAX_CPUS / 8);
    for (const char *p = text; *p;) {
        bool off = *p == '^';
        char *end;
        p += off;
        uint64_t from = g_ascii_strtoull(p, &end, 10), to = from;
        if (end != p && *end == '-')
            to = g_ascii_strtoull(end + 1, &end, 10);
        if (end == p || from > to || to >= MAX_CPUS || (*end && *end != ','))
            return ruche_error(error, MANAGER_ERR_XML, "'%s' is not a set of CPUs", text);
        for (uint64_t cpu = from; cpu <= to; cpu++)
            map[cpu / 8] = (uint8_t)(off ? map[cpu / 8] & ~(1u << cpu % 8) : map[cpu / 8] | 1u << cpu % 8);
        p = end + (*end == ',');
    }
    return true;
}

static bool pin_text(struct vm *v, const GArray *threads, int number, const char *cpus, GError **error)
{
    uint8_t map[MAX_CPUS / 8];
    return parse_cpus(cpus, map, error) && pin_map(v, threads, number, map, sizeof(map), error);
}

/* ---- at the start: what the description says ---- */

static bool start_pins(struct vm *v, const xmlNode *domain, GError **error)
{
    const char *all = xml_get(domain, "vcpu@cpuset"), *emulator = xml_get(domain, "cputune/emulatorpin@cpuset");
    for (guint i = 0; all && *all && i < v->vcpus->len; i++)
        if (!pin_text(v, v->vcpus, (int)g_array_index(v->vcpus, struct vm_thread, i).number, all, error))
            return false;
    if ((emulator || all) && *(emulator ? emulator : all) && !pin_text(v, NULL, -1, emulator ? emulator : all, error))
        return false;
    for (xmlNode *n = xml_find(domain, "cputune/vcpupin"); n; n = xml_next(n)) {
        int number = (int)xml_get_u64(n, "@vcpu", 0);
        if ((guint)number < v->vcpus->len && !pin_text(v, v->vcpus, number, xml_get_or(n, "@cpuset", ""), error))
            return false;
    }
    for (xmlNode *n = xml_find(domain, "cputune/iothreadpin"); n; n = xml_next(n))
        if (!pin_text(v, v->iothreads, (int)xml_get_u64(n, "@iothread", 0), xml_get_or(n, "@cpuset", ""), error))
            return false;
    return true;
}

static bool start_scheduler(struct vm *v, const xmlNode *domain, GError **error)
{
    for (size_t row = 0; row < ARRAY_COUNT(scheduler); row++) {
        const char *name = scheduler[row].whom == WHOLE && !row ? "shares"
                           : scheduler[row].whom == VCPUS       ? scheduler[row].name + strlen("vcpu_")
                                                                : scheduler[row].name;
        g_autofree char *path = g_strconcat("cputune/", name, NULL);
        const char *text = xml_get(domain, path);
        if (text && !set_scheduler(v, row, g_ascii_strtoll(text, NULL, 10), error))
            return false;
    }
    return true;
}

static bool start_memory(struct vm *v, const xmlNode *domain, GError **error)
{
    struct param_list l = { 0 };
    for (size_t row = 0; row < ARRAY_COUNT(memory); row++) {
        g_autofree char *path = g_strconcat("memtune/", memory[row].name, NULL);
        if (xml_get(domain, path))
            param_ullong(&l, memory[row].name, xml_get_u64(domain, path, UNLIMITED_KIB));
    }
    bool ok = !l.count || memory_set(v, NULL, &l, error);
    param_list_done(&l);
    const char *nodes = xml_get(domain, "numatune/memory@nodeset");
    bool strict = !xml_get(domain, "numatune/memory@mode") || xml_is(domain, "numatune/memory@mode", "strict");
    return ok && (!nodes || !strict || cgroup_set_text(v->cgroup, CGROUP_CPUSET_MEMS, nodes, error));
}

static bool start_blkio(struct vm *v, const xmlNode *domain, GError **error)
{
    uint64_t weight = xml_get_u64(domain, "blkiotune/weight", 0);
    if (weight && !cgroup_set(v->cgroup, NULL, NULL, 0, CGROUP_BLKIO_WEIGHT, (int64_t)weight, error))
        return false;
    for (xmlNode *n = xml_find(domain, "blkiotune/device"); n; n = xml_next(n))
        for (size_t i = 0; i < ARRAY_COUNT(blkio); i++)
            if (xml_get(n, blkio[i].element) && !set_block_device(v, xml_get_or(n, "path", ""), blkio[i].which,
                                                                  xml_get_u64(n, blkio[i].element, 0), error))
                return false;
    return true;
}

static bool start_devices(struct vm *v, const xmlNode *domain, GError **error)
{
    static const struct param_list nothing;
    for (xmlNode *n = xml_find(domain, "devices/disk"); n; n = xml_next(n))
        if (xml_find(n, "iotune") && !apply_iotune(v, n, &nothing, error))
            return false;
    for (xmlNode *n = xml_find(domain, "devices/interface"); n; n = xml_next(n))
        if (xml_is(n, "link@state", "down") && !vm_set_link(v, n, error))
            return false;
    return true;
}

/* currentMemory below memory: the guest gets it once its driver is there. */
static bool start_balloon(struct vm *v, const xmlNode *domain, GError **error)
{
    const xmlNode *b = xml_find(domain, "devices/memballoon");
    uint64_t most = xml_get_u64(domain, "memory", 0), now = xml_get_u64(domain, "currentMemory", most);
    v->has_balloon = b && !xml_is(b, "@model", "none");
    if (!v->has_balloon)
        return true;
    uint64_t period = xml_get_u64(b, "stats@period", 0);
    g_autofree char *path = g_strdup_printf("/machine/peripheral/%s", xml_get_or(b, "alias@name", "balloon0"));
    if (period && !vm_do(v, "qom-set", vm_json("path", 's', path, "property", 's', "guest-stats-polling-interval", "value", 'i',
                                               (int64_t)MIN(period, 3600), NULL), error))
        return false;
    return now >= most || vm_set_memory(v, now, error);
}

bool vm_tune_at_start(struct vm *v, xmlNode *domain, GError **error)
{
    return start_pins(v, domain, error) && start_scheduler(v, domain, error) && start_memory(v, domain, error) &&
           start_blkio(v, domain, error) && start_devices(v, domain, error) && start_balloon(v, domain, error);
}
