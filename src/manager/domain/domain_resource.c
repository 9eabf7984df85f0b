/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory and vCPUs: in the description, in the machine, or both.
 *
 * Thread    The loop thread; all that changes waits.
 */
#include "manager/domain/domain_priv.h"

#include <stdlib.h>
#include <string.h>

/* ---- memory ---- */

struct memory {
    uint64_t kib;
    bool maximum;
};

static bool edit_memory(struct xml_node *domain, void *opaque, GError **error)
{
    const struct memory *m = opaque;
    uint64_t max = xml_get_u64(domain, "memory", 0),
             current = xml_get_u64(domain, "currentMemory", max);
    if (m->maximum && xml_find(domain, "cpu/numa"))
        return ruche_error(
            error, RUCHE_ERR_STATE,
            "the maximum memory of a domain with NUMA cells is theirs: change <cpu><numa>");
    if (m->maximum)
        xml_set_f(domain, "memory", "%" G_GUINT64_FORMAT, m->kib);
    else if (m->kib > max)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "cannot set memory higher than max memory: %" G_GUINT64_FORMAT
                           " KiB, and %" G_GUINT64_FORMAT " KiB are the most",
                           m->kib, max);
    xml_set(domain, "memory@unit", "KiB");
    xml_set(domain, "currentMemory@unit", "KiB");
    xml_set_f(domain, "currentMemory", "%" G_GUINT64_FORMAT,
              m->maximum ? MIN(current, m->kib) : m->kib);
    return true;
}

static bool live_memory(struct vm *v, void *opaque, GError **error)
{
    const struct memory *m = opaque;
    return vm_set_memory(v, m->kib, error);
}

bool domain_set_memory(const struct caller *who, struct domain *d, uint64_t kib,
                       unsigned memory_flags, GError **error)
{
    enum { MEMORY_MAXIMUM = 4 };
    struct memory m = {.kib = kib, .maximum = memory_flags & MEMORY_MAXIMUM};
    const struct domain_edit edit = {.fn = edit_memory, .live = live_memory, .opaque = &m};
    unsigned affect;
    if (!kib)
        return ruche_error(error, RUCHE_ERR_INVALID, "domain '%s': memory of 0 KiB", d->name);
    if (!domain_affect(d, memory_flags, MEMORY_MAXIMUM, &affect, error))
        return false;
    if (m.maximum && (affect & AFFECT_LIVE))
        return ruche_error(error, RUCHE_ERR_STATE,
                           "cannot resize the maximum memory on an active domain: '%s' runs",
                           d->name);
    if ((affect & AFFECT_LIVE) && kib > d->live->s.memory_kib)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "cannot set memory higher than max memory: %" G_GUINT64_FORMAT
                           " KiB, and %" G_GUINT64_FORMAT " KiB are the most",
                           kib, d->live->s.memory_kib);
    return domain_change(who, d, "set memory of", affect, 0, &edit, error);
}

struct period {
    struct domain *d;
    unsigned seconds;
};

static struct xml_node *balloon_of(struct xml_node *domain, const struct period *p, GError **error)
{
    struct xml_node *balloon = xml_find(domain, "devices/memballoon");
    if (balloon && !xml_is(balloon, "@model", "none"))
        return balloon;
    ruche_error(error, RUCHE_ERR_STATE,
                "domain '%s' has no memory balloon that could report every %u s", p->d->name,
                p->seconds);
    return NULL;
}

static bool edit_period(struct xml_node *domain, void *opaque, GError **error)
{
    const struct period *p = opaque;
    struct xml_node *balloon = balloon_of(domain, p, error);
    if (balloon && p->seconds)
        xml_set_f(balloon, "stats@period", "%u", p->seconds);
    else if (balloon)
        xml_remove(balloon, "stats");
    return balloon != NULL;
}

static bool live_period(struct vm *v, void *opaque, GError **error)
{
    const struct period *p = opaque;
    struct xml_node *balloon = balloon_of(domain_def_tree(p->d->live), p, error);
    return balloon && vm_set_stats_period(v, balloon, p->seconds, error);
}

bool domain_set_stats_period(const struct caller *who, struct domain *d, int seconds,
                             unsigned affect, GError **error)
{
    enum { PERIOD_MAX = 3600 };
    struct period p = {d, (unsigned)seconds};
    const struct domain_edit edit = {.fn = edit_period, .live = live_period, .opaque = &p};
    if (seconds < 0 || seconds > PERIOD_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "a period of %d s is not from 0 to %d s",
                           seconds, PERIOD_MAX);
    return domain_affect(d, affect, 0, &affect, error) &&
           domain_change(who, d, "set memory stats period of", affect, 0, &edit, error);
}

/* ---- vCPUs ---- */

enum { VCPU_MAXIMUM = 4, VCPU_GUEST = 8, VCPU_HOTPLUGGABLE = 16 };

struct vcpus {
    unsigned count;
    bool maximum;
};

static bool edit_vcpus(struct xml_node *domain, void *opaque, GError **error)
{
    const struct vcpus *n = opaque;
    unsigned max = (unsigned)xml_get_u64(domain, "vcpu", 1);
    unsigned current = (unsigned)xml_get_u64(domain, "vcpu@current", max);
    if (!n->maximum && n->count > max)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "requested vcpus is greater than max allowable vcpus for the persistent "
                           "domain: %u > %u",
                           n->count, max);
    if (n->maximum)
        xml_set_f(domain, "vcpu", "%u", n->count);
    max = n->maximum ? n->count : max;
    current = n->maximum ? MIN(current, max) : n->count;
    if (current == max)
        xml_remove(domain, "vcpu@current");
    else
        xml_set_f(domain, "vcpu@current", "%u", current);
    return true;
}

static bool live_vcpus(struct vm *v, void *opaque, GError **error)
{
    const struct vcpus *n = opaque;
    return vm_set_vcpus(v, n->count, error);
}

/* By the agent: CPUs that the guest has, put to sleep and woken. */
static bool guest_vcpus(struct domain *d, unsigned count, GError **error)
{
    g_autoptr(GString) json =
        g_string_new("{\"execute\":\"guest-set-vcpus\",\"arguments\":{\"vcpus\":[");
    struct vm_use *u = domain_use(d, error);
    if (!u)
        return false;
    unsigned max = d->live->s.vcpus;
    for (unsigned i = 1; i < max; i++) /* the first stays */
        g_string_append_printf(json, "%s{\"logical-id\":%u,\"online\":%s}", i > 1 ? "," : "", i,
                               i < count ? "true" : "false");
    g_string_append(json, "]}}");
    bool ok = count <= max ||
              ruche_error(error, RUCHE_ERR_INVALID, "domain '%s' has %u vCPUs, and cannot wake %u",
                          d->name, max, count);
    g_autofree char *answer = ok ? vm_agent_command(u->vm, json->str, -1, error) : NULL;
    domain_use_end(u);
    return answer != NULL;
}

/* What was done before a failure stays done. */
static void recount(struct domain *d, unsigned affect)
{
    if (!(affect & AFFECT_LIVE) || !domain_lock(d, "count vCPUs of", NULL))
        return;
    domain_device_gone(d, "vcpu");
    domain_unlock(d);
}

bool domain_set_vcpus(const struct caller *who, struct domain *d, unsigned count,
                      unsigned vcpu_flags, GError **error)
{
    struct vcpus n = {.count = count, .maximum = vcpu_flags & VCPU_MAXIMUM};
    struct domain_edit edit = {.fn = edit_vcpus, .live = live_vcpus, .opaque = &n};
    unsigned affect;
    if (!count)
        return ruche_error(error, RUCHE_ERR_INVALID, "domain '%s': 0 vCPUs", d->name);
    if (!domain_affect(d, vcpu_flags, VCPU_MAXIMUM | VCPU_GUEST | VCPU_HOTPLUGGABLE, &affect,
                       error))
        return false;
    if (vcpu_flags & VCPU_GUEST)
        return domain_allowed(who, d, RIGHT_WRITE, "set vCPUs of", error) &&
               guest_vcpus(d, count, error);
    if (n.maximum && (affect & AFFECT_LIVE))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "maximum vCPU count of a live domain cannot be modified: '%s' runs",
                           d->name);
    if ((affect & AFFECT_LIVE) && count > d->live->s.vcpus_max)
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "requested vcpus is greater than max allowable vcpus for the live domain: %u > %u",
            count, d->live->s.vcpus_max);
    if ((affect & AFFECT_LIVE) && count == d->live->s.vcpus)
        edit.live = NULL; /* it has them */
    bool ok = domain_change(who, d, "set vCPUs of", affect, 0, &edit, error);
    if (!ok && edit.live)
        recount(d, affect);
    return ok;
}

#define VCPUS_MAX 4096

struct vcpu_map {
    uint8_t map[VCPUS_MAX / 8];
    bool on;
    struct domain *d;
};

/* "0-3,^2,8" as bits. */
static bool parse_map(const char *text, uint8_t *map, GError **error)
{
    for (const char *p = text; *p;) {
        bool off = *p == '^';
        char *end;
        p += off;
        uint64_t from = g_ascii_strtoull(p, &end, 10), to = from;
        if (end != p && *end == '-')
            to = g_ascii_strtoull(end + 1, &end, 10);
        if (end == p || from > to || to >= VCPUS_MAX || (*end && *end != ','))
            return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is not a set of vCPUs", text);
        for (uint64_t n = from; n <= to; n++)
            map[n / 8] = (uint8_t)(off ? map[n / 8] & ~(1u << n % 8) : map[n / 8] | 1u << n % 8);
        p = end + (*end == ',');
    }
    return true;
}

/* A description says how many there are: those from the first on. */
static bool edit_vcpu_map(struct xml_node *domain, void *opaque, GError **error)
{
    const struct vcpu_map *m = opaque;
    unsigned max = (unsigned)xml_get_u64(domain, "vcpu", 1), count = 0;
    unsigned current = (unsigned)xml_get_u64(domain, "vcpu@current", max);
    bool hole = false;
    for (unsigned i = 0; i < VCPUS_MAX; i++) {
        bool named = m->map[i / 8] >> i % 8 & 1, in = named ? m->on : i < current;
        if (named && i >= max)
            return ruche_error(error, RUCHE_ERR_INVALID, "vCPU %u is not below the maximum, %u", i,
                               max);
        if (in && hole)
            return ruche_error(error, MANAGER_ERR_CONFIG,
                               "vCPU %u cannot be there without those before it", i);
        hole |= !in;
        count += in;
    }
    return edit_vcpus(domain, &(struct vcpus){.count = MAX(count, 1)}, error);
}

static bool live_vcpu_map(struct vm *v, void *opaque, GError **error)
{
    const struct vcpu_map *m = opaque;
    return vm_set_vcpu(v, m->map, sizeof(m->map), m->on, error);
}

/* What runs may have holes: it is described by how many there are. */
static bool edit_live_map(struct xml_node *domain, void *opaque, GError **error)
{
    const struct vcpu_map *m = opaque;
    unsigned count = m->d->vm ? vm_vcpu_count(m->d->vm) : 0;
    return edit_vcpus(domain, &(struct vcpus){.count = MAX(count, 1)}, error);
}

bool domain_set_vcpu(const struct caller *who, struct domain *d, const char *cpus, bool on,
                     unsigned affect, GError **error)
{
    struct vcpu_map m = {.on = on, .d = d};
    const struct domain_edit live = {.fn = edit_live_map, .live = live_vcpu_map, .opaque = &m},
                             config = {.fn = edit_vcpu_map, .opaque = &m};
    if (!parse_map(cpus, m.map, error) || !domain_affect(d, affect, 0, &affect, error))
        return false;
    if (m.map[0] & 1 && !on)
        return ruche_error(error, RUCHE_ERR_INVALID, "domain '%s': vCPU 0 can't be modified", d->name);
    if ((affect & AFFECT_LIVE) &&
        !domain_change(who, d, "set vCPUs of", AFFECT_LIVE, 0, &live, error)) {
        recount(d, affect);
        return false;
    }
    return !(affect & AFFECT_CONFIG) ||
           domain_change(who, d, "set vCPUs of", AFFECT_CONFIG, 0, &config, error);
}

int domain_get_vcpus(const struct caller *who, struct domain *d, unsigned vcpu_flags,
                     GError **error)
{
    unsigned affect;
    if (!domain_allowed(who, d, RIGHT_READ, "read", error) ||
        !domain_affect(d, vcpu_flags, VCPU_MAXIMUM, &affect, error))
        return -1;
    const struct domain_summary *s = affect & AFFECT_CONFIG ? &d->def->s : &d->live->s;
    return (int)(vcpu_flags & VCPU_MAXIMUM ? s->vcpus_max : s->vcpus);
}
