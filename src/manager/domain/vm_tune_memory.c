/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory limits and NUMA nodes of a running machine.
 *
 * Spec      libvirt's memory and NUMA parameters; KiB there, bytes in control groups.
 */
#include "manager/domain/vm_tune.h"

#include "base/util.h"

#include <string.h>

#define UNLIMITED_KIB 9007199254740991ULL /* VIR_DOMAIN_MEMORY_PARAM_UNLIMITED */

static const struct {
    const char *name;
    enum cgroup_key key;
} memory[] = {
    {"hard_limit", CGROUP_MEMORY_HARD},
    {"soft_limit", CGROUP_MEMORY_SOFT},
    {"swap_hard_limit", CGROUP_MEMORY_SWAP},
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
    const struct param *hard = param_find(l, "hard_limit"),
                       *swap = param_find(l, "swap_hard_limit");
    int64_t old = -1;
    if (hard && swap && hard->u > swap->u)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "memory hard_limit %" G_GUINT64_FORMAT
                           " KiB must not be above swap_hard_limit %" G_GUINT64_FORMAT " KiB",
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

static bool start_memory(struct vm *v, const struct xml_node *domain, GError **error)
{
    struct param_list l = {0};
    for (size_t row = 0; row < ARRAY_COUNT(memory); row++) {
        g_autofree char *path = g_strconcat("memtune/", memory[row].name, NULL);
        if (xml_get(domain, path))
            param_ullong(&l, memory[row].name, xml_get_u64(domain, path, UNLIMITED_KIB));
    }
    bool ok = !l.count || memory_set(v, NULL, &l, error);
    param_list_done(&l);
    return ok;
}

const struct vm_tune_group vm_tune_memory = {
    .which = "memory",
    .set = memory_set,
    .get = memory_get,
    .start = start_memory,
};

/* ---- NUMA ---- */

static const char *const numa_modes[] = {"strict", "preferred", "interleave", "restrictive"};

static bool numa_set(struct vm *v, const char *device, const struct param_list *l, GError **error)
{
    const struct param *nodes = param_find(l, "numa_nodeset"), *mode = param_find(l, "numa_mode");
    struct xml_node *domain = domain_def_tree(v->d->live);
    const char *now = xml_get_or(domain, "numatune/memory@mode", "strict");
    if (mode && (mode->i < 0 || mode->i > 3 || strcmp(numa_modes[mode->i], now)))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "machine '%s': the NUMA mode of a running machine cannot be changed",
                           v->name);
    return !nodes || cgroup_set_text(v->cgroup, CGROUP_CPUSET_MEMS, nodes->s, error);
}

static bool numa_get(struct vm *v, const char *device, struct param_list *ret, GError **error)
{
    struct xml_node *domain = domain_def_tree(v->d->live);
    const char *now = xml_get_or(domain, "numatune/memory@mode", "strict");
    g_autofree char *mems = cgroup_get_text(v->cgroup, CGROUP_CPUSET_MEMS);
    for (int i = 0; i < 4; i++)
        if (!strcmp(numa_modes[i], now))
            param_int(ret, "numa_mode", i);
    param_string(ret, "numa_nodeset",
                 mems ? mems : xml_get_or(domain, "numatune/memory@nodeset", ""));
    domain_def_shrink(v->d->live);
    return true;
}

static bool start_numa(struct vm *v, const struct xml_node *domain, GError **error)
{
    const char *nodes = xml_get(domain, "numatune/memory@nodeset");
    bool strict = !xml_get(domain, "numatune/memory@mode") ||
                  xml_is(domain, "numatune/memory@mode", "strict");
    return !nodes || !strict || cgroup_set_text(v->cgroup, CGROUP_CPUSET_MEMS, nodes, error);
}

const struct vm_tune_group vm_tune_numa = {
    .which = "numa", .set = numa_set, .get = numa_get, .start = start_numa};
