/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pinning of a machine's threads to host CPUs.
 */
#include "manager/domain/vm_tune.h"

#include "base/util.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

#define MAX_CPUS 4096

/* ---- threads ---- */

static bool is_in(const GArray *threads, pid_t tid)
{
    for (guint i = 0; i < threads->len; i++)
        if (g_array_index(threads, struct vm_thread, i).tid == tid)
            return true;
    return false;
}

unsigned vm_emulator_tids(const struct vm *v, pid_t *ret, unsigned room)
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

/* ---- pinning ---- */

static bool pin_tids(struct vm *v, const pid_t *tids, unsigned count, const cpu_set_t *set,
                     size_t bytes, GError **error)
{
    for (unsigned i = 0; i < count; i++)
        if (sched_setaffinity(tids[i], bytes, set) < 0 && errno != ESRCH)
            return ruche_error_errno(error, errno, "machine '%s': thread %d cannot be pinned",
                                     v->name, (int)tids[i]);
    return true;
}

static bool pin_map(struct vm *v, enum domain_pin kind, unsigned number, const uint8_t *map,
                    unsigned len, GError **error)
{
    static const char *const kinds[] = {"vCPU", "emulator thread", "I/O thread"};
    const GArray *threads = kind == PIN_VCPU ? v->vcpus : kind == PIN_IOTHREAD ? v->iothreads : NULL;
    size_t bytes = CPU_ALLOC_SIZE(MAX_CPUS);
    cpu_set_t *set = CPU_ALLOC(MAX_CPUS);
    pid_t tids[1024];
    unsigned count = 0;
    CPU_ZERO_S(bytes, set);
    for (unsigned cpu = 0; cpu < len * 8 && cpu < MAX_CPUS; cpu++)
        if (map[cpu / 8] >> (cpu % 8) & 1)
            CPU_SET_S(cpu, bytes, set);
    bool ok =
        CPU_COUNT_S(bytes, set) > 0 ||
        ruche_error(error, RUCHE_ERR_INVALID, "machine '%s': no CPU is named to pin to", v->name);
    if (!threads)
        count = vm_emulator_tids(v, tids, ARRAY_COUNT(tids));
    for (guint i = 0; threads && i < threads->len; i++)
        if (!count && g_array_index(threads, struct vm_thread, i).number == number)
            tids[count++] = g_array_index(threads, struct vm_thread, i).tid;
    if (ok && !count)
        ok = ruche_error(error, RUCHE_ERR_INVALID, "machine '%s' has no %s %u", v->name,
                         kinds[kind], number);
    ok = ok && pin_tids(v, tids, count, set, bytes, error);
    CPU_FREE(set);
    return ok;
}

bool vm_pin(struct vm *v, enum domain_pin kind, unsigned number, const uint8_t *cpumap,
            unsigned len, GError **error)
{
    return pin_map(v, kind, number, cpumap, len, error);
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
            return ruche_error(error, RUCHE_ERR_XML, "'%s' is not a set of CPUs", text);
        for (uint64_t cpu = from; cpu <= to; cpu++)
            map[cpu / 8] =
                (uint8_t)(off ? map[cpu / 8] & ~(1u << cpu % 8) : map[cpu / 8] | 1u << cpu % 8);
        p = end + (*end == ',');
    }
    return true;
}

static bool pin_text(struct vm *v, enum domain_pin kind, unsigned number, const char *cpus,
                     GError **error)
{
    uint8_t map[MAX_CPUS / 8];
    return parse_cpus(cpus, map, error) && pin_map(v, kind, number, map, sizeof(map), error);
}

/* What <vcpu cpuset> says of all threads holds for each until its own pin says otherwise. */
static bool pin_all(struct vm *v, const struct xml_node *domain, enum domain_pin kind,
                    const GArray *threads, GError **error)
{
    const char *all = xml_get(domain, "vcpu@cpuset");
    for (guint i = 0; all && *all && i < threads->len; i++)
        if (!pin_text(v, kind, g_array_index(threads, struct vm_thread, i).number, all, error))
            return false;
    return true;
}

bool vm_pin_iothread(struct vm *v, const struct xml_node *domain, unsigned id, GError **error)
{
    const char *all = xml_get(domain, "vcpu@cpuset");
    return !all || !*all || pin_text(v, PIN_IOTHREAD, id, all, error);
}

bool vm_start_pins(struct vm *v, const struct xml_node *domain, GError **error)
{
    const char *all = xml_get(domain, "vcpu@cpuset"),
               *emulator = xml_get(domain, "cputune/emulatorpin@cpuset");
    if (!pin_all(v, domain, PIN_VCPU, v->vcpus, error) ||
        !pin_all(v, domain, PIN_IOTHREAD, v->iothreads, error))
        return false;
    if ((emulator || all) && *(emulator ? emulator : all) &&
        !pin_text(v, PIN_EMULATOR, 0, emulator ? emulator : all, error))
        return false;
    for (struct xml_node *n = xml_find(domain, "cputune/vcpupin"); n; n = xml_next(n)) {
        unsigned number = (unsigned)xml_get_u64(n, "@vcpu", 0);
        if (number < v->vcpus->len &&
            !pin_text(v, PIN_VCPU, number, xml_get_or(n, "@cpuset", ""), error))
            return false;
    }
    for (struct xml_node *n = xml_find(domain, "cputune/iothreadpin"); n; n = xml_next(n))
        if (!pin_text(v, PIN_IOTHREAD, (unsigned)xml_get_u64(n, "@iothread", 0),
                      xml_get_or(n, "@cpuset", ""), error))
            return false;
    return true;
}
