/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How busy the host is: time of processors, memory of cells, free pages.
 *
 * Spec      proc(5), /proc/stat and /proc/meminfo; their copies for a NUMA node.
 * Thread    The loop thread.
 */
#include "manager/node/topology.h"

#include "manager/node/node.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool node_cpu_stats(const struct caller *who, int cpu, struct param_list *ret, GError **error)
{
    if (!access_check(who, RIGHT_READ, "read node CPU statistics", error))
        return false;
    g_autofree char *text = sysfs_read("/proc/stat");
    g_autofree char *name = cpu < 0 ? g_strdup("cpu ") : g_strdup_printf("cpu%d ", cpu);
    g_auto(GStrv) lines = g_strsplit(text ? text : "", "\n", CPU_SET_MAX + 16);
    for (char **line = lines; *line; line++) {
        unsigned long long user, nice, system, idle, iowait = 0, irq = 0, softirq = 0;
        if (!g_str_has_prefix(*line, name) ||
            sscanf(*line + strlen(name), "%llu %llu %llu %llu %llu %llu %llu", &user, &nice,
                   &system, &idle, &iowait, &irq, &softirq) < 4)
            continue;
        uint64_t tick_ns = (uint64_t)(NS_PER_SEC / sysconf(_SC_CLK_TCK));
        param_ullong(ret, "kernel", (system + irq + softirq) * tick_ns);
        param_ullong(ret, "user", (user + nice) * tick_ns);
        param_ullong(ret, "idle", idle * tick_ns);
        param_ullong(ret, "iowait", iowait * tick_ns);
        return true;
    }
    return ruche_error(error, MANAGER_ERR_ARGUMENT, "the host has no CPU number %d that is online",
                       cpu);
}

bool node_memory_stats(const struct caller *who, int cell, struct param_list *ret, GError **error)
{
    static const char *const rows[][2] = {
        {"total", "MemTotal"},
        {"free", "MemFree"},
        {"buffers", "Buffers"},
        {"cached", "Cached"},
    };
    if (!access_check(who, RIGHT_READ, "read node memory statistics", error))
        return false;
    unsigned count = 0;
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
        uint64_t kib;
        if (!node_meminfo(cell, rows[i][1], &kib))
            continue;
        param_ullong(ret, rows[i][0], kib);
        count++;
    }
    return count || ruche_error(error, MANAGER_ERR_ARGUMENT, "the host has no NUMA cell %d", cell);
}

uint64_t node_free_memory(void)
{
    uint64_t kib;
    return node_meminfo(-1, "MemFree", &kib) ? kib * 1024 : 0;
}

int node_cells_free_memory(uint64_t *ret, int start_cell, int max_cells)
{
    auto_topology *t = node_topology();
    int n = 0;
    for (unsigned i = 0; i < t->cell_count && n < max_cells; i++) {
        uint64_t kib;
        if ((int)t->cells[i].id < start_cell)
            continue;
        if (!node_meminfo(t->numa ? (int)t->cells[i].id : -1, "MemFree", &kib))
            kib = 0;
        ret[n++] = kib * 1024;
    }
    return n;
}

/* Free huge pages of one size in a cell (-1: on the host). */
static bool free_huge(int cell, unsigned size_kib, uint64_t *ret)
{
    return cell < 0
               ? sysfs_read_u64(ret, "/sys/kernel/mm/hugepages/hugepages-%ukB/free_hugepages",
                                size_kib)
               : sysfs_read_u64(
                     ret, "/sys/devices/system/node/node%d/hugepages/hugepages-%ukB/free_hugepages",
                     cell, size_kib);
}

static bool free_pages_of(int cell, unsigned size_kib, uint64_t *ret, GError **error)
{
    unsigned base_kib = (unsigned)(sysconf(_SC_PAGESIZE) / 1024);
    uint64_t kib;
    if (size_kib != base_kib)
        return free_huge(cell, size_kib, ret) ||
               ruche_error(error, MANAGER_ERR_ARGUMENT, "the host has no pages of %u KiB",
                           size_kib);
    if (!node_meminfo(cell, "MemFree", &kib))
        return ruche_error(error, MANAGER_ERR_ARGUMENT, "the host has no NUMA cell %d", cell);
    *ret = kib / base_kib;
    return true;
}

int node_free_pages(const unsigned *pages, unsigned page_count, int start_cell, unsigned cell_count,
                    uint64_t *ret, GError **error)
{
    auto_topology *t = node_topology();
    int last = (int)t->cells[t->cell_count - 1].id;
    if (start_cell < -1 || start_cell > last) {
        ruche_error(error, MANAGER_ERR_ARGUMENT, "start cell %d is out of range (0 to %d)",
                    start_cell, last);
        return -1;
    }
    unsigned n = 0;
    int end = start_cell < 0 ? -1 : last;
    for (int cell = start_cell; cell <= end && (unsigned)(cell - start_cell) < cell_count; cell++)
        for (unsigned i = 0; i < page_count; i++)
            if (!free_pages_of(t->numa ? cell : -1, pages[i], &ret[n++], error))
                return -1;
    return (int)n;
}
