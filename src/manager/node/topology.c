/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host's processors, NUMA cells and caches.
 *
 * Spec      Linux Documentation/ABI/stable/sysfs-devices-node, sysfs-devices-system-cpu.
 * Thread    Any.
 */
#include "manager/node/topology.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CPU_DIR  "/sys/devices/system/cpu"
#define NODE_DIR "/sys/devices/system/node"

bool node_meminfo(int cell, const char *name, uint64_t *ret_kib)
{
    g_autofree char *text =
        cell < 0 ? sysfs_read("/proc/meminfo") : sysfs_read(NODE_DIR "/node%d/meminfo", cell);
    g_autofree char *wanted = g_strconcat(name, ":", NULL);
    g_auto(GStrv) lines = g_strsplit(text ? text : "", "\n", 512);
    for (char **line = lines; *line; line++) {
        char *at = *line;
        if (cell >= 0) { /* "Node 0 MemTotal: ..." */
            at = strchr(at, ' ');
            at = at ? strchr(at + 1, ' ') : NULL;
            at = at ? at + 1 : *line;
        }
        if (!g_str_has_prefix(at, wanted))
            continue;
        char *end;
        uint64_t kib = g_ascii_strtoull(g_strchug(at + strlen(wanted)), &end, 10);
        *ret_kib = kib;
        return *end == ' ' || !*end;
    }
    return false;
}

static unsigned cpu_number(unsigned cpu, const char *what, unsigned otherwise)
{
    uint64_t v;
    return sysfs_read_u64(&v, CPU_DIR "/cpu%u/topology/%s", cpu, what) && v <= G_MAXINT
               ? (unsigned)v
               : otherwise;
}

static void read_cpu(struct topology_cpu *c, unsigned id)
{
    uint64_t online;
    c->id = id;
    c->online = !sysfs_read_u64(&online, CPU_DIR "/cpu%u/online", id) || online;
    c->socket = cpu_number(id, "physical_package_id", 0);
    c->die = cpu_number(id, "die_id", 0);
    c->core = cpu_number(id, "core_id", 0);
    c->siblings = sysfs_read(CPU_DIR "/cpu%u/topology/thread_siblings_list", id);
    if (!c->siblings)
        c->siblings = g_strdup_printf("%u", id);
}

static void read_cpus(struct topology *t)
{
    g_autoptr(GArray) numbers = sysfs_numbers(CPU_DIR, "cpu");
    t->cpus = g_new0(struct topology_cpu, numbers->len);
    for (unsigned i = 0; i < numbers->len; i++)
        read_cpu(&t->cpus[t->cpu_count++], g_array_index(numbers, unsigned, i));
}

static void add_pages(struct topology_cell *c, unsigned size_kib, uint64_t count)
{
    if (c->page_sizes < ARRAY_COUNT(c->pages))
        c->pages[c->page_sizes++] = (struct topology_pages){size_kib, count};
}

/* Huge pages are taken out of what is left for pages of the base size. */
static void read_pages(struct topology_cell *c, bool numa)
{
    g_autofree char *dir = numa ? g_strdup_printf(NODE_DIR "/node%u/hugepages", c->id)
                                : g_strdup("/sys/kernel/mm/hugepages");
    unsigned base_kib = (unsigned)(sysconf(_SC_PAGESIZE) / 1024);
    add_pages(c, base_kib, 0);
    g_autofree char *path = sysfs_path(dir);
    g_autoptr(GDir) entries = g_dir_open(path, 0, NULL);
    g_autoptr(GArray) sizes = g_array_new(FALSE, FALSE, sizeof(unsigned));
    const char *name;
    while (entries && (name = g_dir_read_name(entries))) {
        unsigned kib;
        if (sscanf(name, "hugepages-%ukB", &kib) == 1 && kib)
            g_array_append_val(sizes, kib);
    }
    uint64_t huge_kib = 0, count;
    for (unsigned want = 0; want < sizes->len; want++) {
        unsigned least = 0;
        for (unsigned i = 1; i < sizes->len; i++)
            if (g_array_index(sizes, unsigned, i) < g_array_index(sizes, unsigned, least))
                least = i;
        unsigned kib = g_array_index(sizes, unsigned, least);
        g_array_index(sizes, unsigned, least) = G_MAXUINT;
        if (!sysfs_read_u64(&count, "%s/hugepages-%ukB/nr_hugepages", dir, kib))
            count = 0;
        add_pages(c, kib, count);
        huge_kib += count * kib;
    }
    c->pages[0].count = (c->memory_kib > huge_kib ? c->memory_kib - huge_kib : 0) / base_kib;
}

static GArray *read_distances(unsigned cell)
{
    g_autofree char *text = sysfs_read(NODE_DIR "/node%u/distance", cell);
    if (!text)
        return NULL;
    GArray *d = g_array_new(FALSE, FALSE, sizeof(unsigned));
    g_auto(GStrv) words = g_strsplit(g_strstrip(text), " ", CPU_SET_MAX);
    for (char **w = words; *w; w++) {
        unsigned v = (unsigned)g_ascii_strtoull(*w, NULL, 10);
        if (**w)
            g_array_append_val(d, v);
    }
    return d;
}

static void mark_cell(struct topology *t, unsigned cell)
{
    g_autofree char *list = sysfs_read(NODE_DIR "/node%u/cpulist", cell);
    struct cpu_set set;
    if (!cpu_set_parse(&set, list))
        return;
    for (unsigned i = 0; i < t->cpu_count; i++)
        if (cpu_set_has(&set, t->cpus[i].id))
            t->cpus[i].cell = cell;
}

static void read_cells(struct topology *t)
{
    g_autoptr(GArray) numbers = sysfs_numbers(NODE_DIR, "node");
    t->numa = numbers->len > 0;
    t->cell_count = t->numa ? numbers->len : 1;
    t->cells = g_new0(struct topology_cell, t->cell_count);
    for (unsigned i = 0; i < t->cell_count; i++) {
        struct topology_cell *c = &t->cells[i];
        c->id = t->numa ? g_array_index(numbers, unsigned, i) : 0;
        if (!node_meminfo(t->numa ? (int)c->id : -1, "MemTotal", &c->memory_kib))
            c->memory_kib = 0;
        read_pages(c, t->numa);
        if (!t->numa)
            continue;
        c->distances = read_distances(c->id);
        mark_cell(t, c->id);
    }
}

static const char *cache_word(const char *type)
{
    return !strcmp(type, "Data") ? "data" : !strcmp(type, "Instruction") ? "code" : "both";
}

static bool knows_cache(const struct topology *t, const char *cpus, unsigned level)
{
    for (unsigned i = 0; i < t->caches->len; i++) {
        struct topology_cache *c = &g_array_index(t->caches, struct topology_cache, i);
        if (c->level == level && !strcmp(c->cpus, cpus))
            return true;
    }
    return false;
}

/* The last level's banks: what machines on one host share. */
static void read_caches(struct topology *t)
{
    for (unsigned i = 0; i < t->cpu_count; i++) {
        unsigned id = t->cpus[i].id;
        uint64_t level, bank;
        if (!sysfs_read_u64(&level, CPU_DIR "/cpu%u/cache/index3/level", id))
            continue;
        g_autofree char *cpus = sysfs_read(CPU_DIR "/cpu%u/cache/index3/shared_cpu_list", id);
        g_autofree char *size = sysfs_read(CPU_DIR "/cpu%u/cache/index3/size", id);
        g_autofree char *type = sysfs_read(CPU_DIR "/cpu%u/cache/index3/type", id);
        if (!cpus || !size || !type || knows_cache(t, cpus, (unsigned)level))
            continue;
        if (!sysfs_read_u64(&bank, CPU_DIR "/cpu%u/cache/index3/id", id))
            bank = t->caches->len;
        struct topology_cache c = {
            .id = (unsigned)bank,
            .level = (unsigned)level,
            .type = g_strdup(cache_word(type)),
            .size_kib = g_ascii_strtoull(size, NULL, 10),
            .cpus = g_steal_pointer(&cpus),
        };
        g_array_append_val(t->caches, c);
    }
}

struct topology *node_topology(void)
{
    struct topology *t = g_new0(struct topology, 1);
    t->caches = g_array_new(FALSE, TRUE, sizeof(struct topology_cache));
    read_cpus(t);
    read_cells(t);
    read_caches(t);
    return t;
}

void topology_free(struct topology *t)
{
    if (!t)
        return;
    for (unsigned i = 0; i < t->cpu_count; i++)
        g_free(t->cpus[i].siblings);
    for (unsigned i = 0; i < t->cell_count; i++)
        g_clear_pointer(&t->cells[i].distances, g_array_unref);
    for (unsigned i = 0; i < t->caches->len; i++) {
        g_free(g_array_index(t->caches, struct topology_cache, i).type);
        g_free(g_array_index(t->caches, struct topology_cache, i).cpus);
    }
    g_array_unref(t->caches);
    g_free(t->cpus);
    g_free(t->cells);
    g_free(t);
}
