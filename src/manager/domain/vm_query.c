/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Processor time and memory of a machine: what cgroups and /proc tell at once, and what the balloon
 * is asked for.
 */
#include "manager/domain/vm_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { VCPU_OFFLINE, VCPU_RUNNING, VCPU_BLOCKED }; /* virVcpuState */

/* ---- /proc ---- */

static uint64_t ticks_ns(uint64_t ticks)
{
    return ticks * (1000000000u / (uint64_t)sysconf(_SC_CLK_TCK));
}

struct task_stat {
    char state;
    uint64_t user_ns, system_ns, minor, major;
    int cpu;
};

/* A process's or (tid) a thread's. False: it is gone. */
static bool read_stat(pid_t pid, pid_t tid, struct task_stat *ret)
{
    g_autofree char *path = tid ? g_strdup_printf("/proc/%d/task/%d/stat", (int)pid, (int)tid)
                                : g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree char *text = NULL;
    uint64_t user, system;
    if (!g_file_get_contents(path, &text, NULL, NULL))
        return false;
    const char *p = strrchr(text, ')');
    *ret = (struct task_stat){.cpu = -1};
    if (!p ||
        sscanf(p + 1,
               " %c %*d %*d %*d %*d %*d %*u %" SCNu64 " %*u %" SCNu64 " %*u %" SCNu64 " %" SCNu64,
               &ret->state, &ret->minor, &ret->major, &user, &system) != 5)
        return false;
    ret->user_ns = ticks_ns(user);
    ret->system_ns = ticks_ns(system);
    for (int i = 0; p && i < 37; i++) /* to the 39th field */
        p = strchr(p + 1, ' ');
    if (p)
        ret->cpu = atoi(p);
    return true;
}

/* Time on a processor, and in wait for one; finer than stat's. */
static bool read_schedstat(pid_t pid, pid_t tid, uint64_t *ret_run, uint64_t *ret_wait)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/task/%d/schedstat", (int)pid, (int)tid),
                    *text = NULL;
    return g_file_get_contents(path, &text, NULL, NULL) &&
           sscanf(text, "%" SCNu64 " %" SCNu64, ret_run, ret_wait) == 2;
}

static uint64_t rss_kib(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/statm", (int)pid), *text = NULL;
    uint64_t pages = 0;
    if (g_file_get_contents(path, &text, NULL, NULL))
        sscanf(text, "%*u %" SCNu64, &pages);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE) / 1024;
}

/* ---- processors ---- */

static bool cpu_times(const struct vm *v, uint64_t *ret_total, uint64_t *ret_user,
                      uint64_t *ret_system)
{
    struct task_stat st;
    if (cgroup_cpu_ns(v->cgroup, ret_total, ret_user, ret_system))
        return true;
    if (!read_stat(v->pid, 0, &st))
        return false;
    *ret_user = st.user_ns;
    *ret_system = st.system_ns;
    *ret_total = st.user_ns + st.system_ns;
    return true;
}

uint64_t vm_cpu_time_ns(struct vm *v)
{
    uint64_t total, user, system;
    return cpu_times(v, &total, &user, &system) ? total : 0;
}

bool vm_cpu_stats(struct vm *v, int cpu, struct param_list *ret, GError **error)
{
    uint64_t total, user, system;
    if (cpu >= 0) {
        if (!cgroup_percpu_ns(v->cgroup, (unsigned)cpu, &total, error))
            return false;
        param_ullong(ret, "cpu_time", total);
        return true;
    }
    if (!cpu_times(v, &total, &user, &system))
        return ruche_error(error, MANAGER_ERR_MACHINE, "machine '%s' has ended", v->name);
    param_ullong(ret, "cpu_time", total);
    param_ullong(ret, "user_time", user);
    param_ullong(ret, "system_time", system);
    return true;
}

static int vcpu_state(const struct task_stat *st)
{
    return st->state == 'R' ? VCPU_RUNNING : VCPU_BLOCKED;
}

int vm_vcpus(struct vm *v, struct domain_vcpu *ret, unsigned room)
{
    unsigned n = 0;
    for (guint i = 0; i < v->vcpus->len && n < room; i++) {
        const struct vm_thread *t = &g_array_index(v->vcpus, struct vm_thread, i);
        struct task_stat st;
        uint64_t run = 0, wait = 0;
        if (!read_stat(v->pid, t->tid, &st))
            continue;
        if (!read_schedstat(v->pid, t->tid, &run, &wait))
            run = st.user_ns + st.system_ns;
        /* Asleep it is still the guest's running vCPU to its users: libvirt says so too. */
        ret[n++] = (struct domain_vcpu){
            .number = t->number, .state = VCPU_RUNNING, .cpu = st.cpu, .cpu_time_ns = run};
    }
    return (int)n;
}

void vm_vcpu_stats(struct vm *v, struct param_list *ret)
{
    param_uint(ret, "vcpu.current", v->vcpus->len);
    param_uint(ret, "vcpu.maximum", v->d ? v->d->live->s.vcpus_max : v->vcpus->len);
    for (guint i = 0; i < v->vcpus->len; i++) {
        const struct vm_thread *t = &g_array_index(v->vcpus, struct vm_thread, i);
        struct task_stat st;
        uint64_t run = 0, wait = 0;
        char name[48];
        if (!read_stat(v->pid, t->tid, &st))
            continue;
        bool fine = read_schedstat(v->pid, t->tid, &run, &wait);
        g_snprintf(name, sizeof(name), "vcpu.%u.state", t->number);
        param_int(ret, name, VCPU_RUNNING);
        param_ullong_at(ret, fine ? run : st.user_ns + st.system_ns, "vcpu.%u.time", t->number);
        if (fine)
            param_ullong_at(ret, wait, "vcpu.%u.wait", t->number);
        g_snprintf(name, sizeof(name), "vcpu.%u.halted", t->number);
        param_bool(ret, name, vcpu_state(&st) == VCPU_BLOCKED);
    }
}

void vm_cpu_total_stats(struct vm *v, struct param_list *ret)
{
    uint64_t total, user, system;
    if (!cpu_times(v, &total, &user, &system))
        return;
    param_ullong(ret, "cpu.time", total);
    param_ullong(ret, "cpu.user", user);
    param_ullong(ret, "cpu.system", system);
}

/* ---- memory ---- */

uint64_t vm_memory_kib(const struct vm *v)
{
    if (v->balloon_kib)
        return v->balloon_kib;
    return v->d && v->d->live ? v->d->live->s.current_memory_kib : 0;
}

bool vm_set_memory(struct vm *v, uint64_t kib, GError **error)
{
    auto_vm *keep = vm_ref(v);
    if (kib > G_MAXINT64 / 1024)
        return ruche_error(error, MANAGER_ERR_OVERFLOW,
                           "machine '%s': %" G_GUINT64_FORMAT " KiB of memory are too much",
                           v->name, kib);
    if (!vm_do(v, "balloon", vm_json("value", 'i', (int64_t)kib * 1024, NULL), error)) {
        g_prefix_error(error, "its memory cannot be changed: ");
        return false;
    }
    keep->answers[VM_ASK_BALLOON_STATS].at_us = 0;
    return true;
}

/* virDomainMemoryStatTags, with QEMU's names; bytes there are KiB here. */
static const struct {
    const char *qmp, *bulk;
    int tag;
    bool bytes;
} memory_rows[] = {
    {"stat-swap-in", "balloon.swap_in", 0, true},
    {"stat-swap-out", "balloon.swap_out", 1, true},
    {"stat-major-faults", "balloon.major_fault", 2, false},
    {"stat-minor-faults", "balloon.minor_fault", 3, false},
    {"stat-free-memory", "balloon.unused", 4, true},
    {"stat-total-memory", "balloon.available", 5, true},
    {"stat-available-memory", "balloon.usable", 8, true},
    {"stat-disk-caches", "balloon.disk_caches", 10, true},
    {"stat-htlb-pgalloc", "balloon.hugetlb_pgalloc", 11, false},
    {"stat-htlb-pgfail", "balloon.hugetlb_pgfail", 12, false},
};
enum { TAG_ACTUAL = 6, TAG_RSS = 7, TAG_LAST_UPDATE = 9 };

/* What the guest's driver told; negative is "never". Row's value in KiB or counts. */
static bool guest_stat(JsonObject *stats, size_t row, uint64_t *ret)
{
    int64_t n = vm_json_int(stats, memory_rows[row].qmp, -1);
    if (n < 0)
        return false;
    *ret = memory_rows[row].bytes ? (uint64_t)n / 1024 : (uint64_t)n;
    return true;
}

static JsonObject *guest_answer(struct vm *v)
{
    return v->balloon ? vm_json_object(vm_ask(v, VM_ASK_BALLOON_STATS, NULL)) : NULL;
}

int vm_memory_stats(struct vm *v, struct domain_memory_stat *ret, unsigned room)
{
    auto_vm *keep = vm_ref(v);
    unsigned n = 0;
    uint64_t value;
    JsonObject *answer = guest_answer(v), *stats = vm_json_sub(answer, "stats");
    int64_t update = vm_json_int(answer, "last-update", 0);
    if (n < room)
        ret[n++] = (struct domain_memory_stat){TAG_ACTUAL, vm_memory_kib(keep)};
    for (size_t i = 0; i < G_N_ELEMENTS(memory_rows) && n < room; i++)
        if (guest_stat(stats, i, &value))
            ret[n++] = (struct domain_memory_stat){memory_rows[i].tag, value};
    if (update > 0 && n < room)
        ret[n++] = (struct domain_memory_stat){TAG_LAST_UPDATE, (uint64_t)update};
    if (n < room)
        ret[n++] = (struct domain_memory_stat){TAG_RSS, rss_kib(keep->pid)};
    return (int)n;
}

void vm_balloon_stats(struct vm *v, struct param_list *ret)
{
    uint64_t value;
    param_ullong(ret, "balloon.current", vm_memory_kib(v));
    param_ullong(ret, "balloon.maximum", v->d && v->d->live ? v->d->live->s.memory_kib : 0);
    JsonObject *answer = guest_answer(v), *stats = vm_json_sub(answer, "stats");
    for (size_t i = 0; i < G_N_ELEMENTS(memory_rows); i++)
        if (guest_stat(stats, i, &value))
            param_ullong(ret, memory_rows[i].bulk, value);
    int64_t update = vm_json_int(answer, "last-update", 0);
    if (update > 0)
        param_ullong(ret, "balloon.last-update", (uint64_t)update);
    param_ullong(ret, "balloon.rss", rss_kib(v->pid));
}
