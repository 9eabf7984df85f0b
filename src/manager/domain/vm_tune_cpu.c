/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Processor time of a running machine: shares of the whole, and quotas of vCPUs, emulator and I/O
 * threads, which are groups of their own once something is set.
 */
#include "manager/domain/vm_tune.h"

#include "base/util.h"

#include <string.h>

enum whom { WHOLE, VCPUS, EMULATOR, IOTHREADS };
static const struct {
    const char *name;
    enum param_type type;
    enum cgroup_key key;
    enum whom whom;
} scheduler[] = {
    {"cpu_shares", PARAM_ULLONG, CGROUP_CPU_SHARES, WHOLE},
    {"vcpu_period", PARAM_ULLONG, CGROUP_CPU_PERIOD_US, VCPUS},
    {"vcpu_quota", PARAM_LLONG, CGROUP_CPU_QUOTA_US, VCPUS},
    {"emulator_period", PARAM_ULLONG, CGROUP_CPU_PERIOD_US, EMULATOR},
    {"emulator_quota", PARAM_LLONG, CGROUP_CPU_QUOTA_US, EMULATOR},
    {"global_period", PARAM_ULLONG, CGROUP_CPU_PERIOD_US, WHOLE},
    {"global_quota", PARAM_LLONG, CGROUP_CPU_QUOTA_US, WHOLE},
    {"iothread_period", PARAM_ULLONG, CGROUP_CPU_PERIOD_US, IOTHREADS},
    {"iothread_quota", PARAM_LLONG, CGROUP_CPU_QUOTA_US, IOTHREADS},
};

static bool set_threads(struct vm *v, const GArray *threads, const char *prefix,
                        enum cgroup_key key, int64_t value, GError **error)
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
        return cgroup_set(v->cgroup, "emulator", tids, vm_emulator_tids(v, tids, ARRAY_COUNT(tids)),
                          key, value, error);
    default:
        return cgroup_set(v->cgroup, NULL, NULL, 0, key, value, error);
    }
}

/* A part's group is only there once something was set: until then its threads have the whole's. */
static int64_t get_scheduler(const struct vm *v, size_t row)
{
    char first[32] = "iothread1";
    if (v->iothreads->len)
        g_snprintf(first, sizeof(first), "iothread%u",
                   g_array_index(v->iothreads, struct vm_thread, 0).number);
    const char *const parts[] = {
        [WHOLE] = NULL, [VCPUS] = "vcpu0", [EMULATOR] = "emulator", [IOTHREADS] = first};
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
    return p->type == PARAM_LLONG || p->type == PARAM_INT
               ? p->i
               : (int64_t)MIN(p->u, (uint64_t)G_MAXINT64);
}

static bool scheduler_set(struct vm *v, const char *device, const struct param_list *l,
                          GError **error)
{
    for (unsigned i = 0; i < l->count; i++)
        for (size_t row = 0; row < ARRAY_COUNT(scheduler); row++)
            if (!strcmp(l->rows[i].name, scheduler[row].name) &&
                !set_scheduler(v, row, value_of(&l->rows[i]), error))
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

static bool start_scheduler(struct vm *v, const struct xml_node *domain, GError **error)
{
    for (size_t row = 0; row < ARRAY_COUNT(scheduler); row++) {
        const char *name = scheduler[row].whom == WHOLE && !row ? "shares"
                           : scheduler[row].whom == VCPUS ? scheduler[row].name + strlen("vcpu_")
                                                          : scheduler[row].name;
        g_autofree char *path = g_strconcat("cputune/", name, NULL);
        const char *text = xml_get(domain, path);
        if (text && !set_scheduler(v, row, g_ascii_strtoll(text, NULL, 10), error))
            return false;
    }
    return true;
}

const struct vm_tune_group vm_tune_scheduler = {
    .which = "scheduler",
    .set = scheduler_set,
    .get = scheduler_get,
    .start = start_scheduler,
};
