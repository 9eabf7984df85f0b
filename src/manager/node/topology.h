/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host's processors and NUMA cells, as /sys shows them.
 *
 * Owner     node_topology() reads anew and gives it away; topology_free() takes NULL.
 */
#pragma once

#include "manager/node/sysfs.h"

struct topology_cpu {
    unsigned id, cell, socket, die, core;
    bool online;
    char *siblings; /* threads of its core: "0-1" */
};
struct topology_pages {
    unsigned size_kib;
    uint64_t count;
};
struct topology_cell {
    unsigned id;
    uint64_t memory_kib;
    struct topology_pages pages[8]; /* the base size first */
    unsigned page_sizes;
    GArray *distances; /* unsigned, one for each cell in order; NULL: not known */
};
struct topology_cache {
    unsigned id, level;
    char *type; /* "both", "data", "code" */
    uint64_t size_kib;
    char *cpus;
};
struct topology {
    struct topology_cpu *cpus; /* present ones, by number */
    struct topology_cell *cells;
    GArray *caches; /* struct topology_cache of the last level */
    unsigned cpu_count, cell_count;
    bool numa; /* the kernel knows cells; else there is one for everything */
};
struct topology *node_topology(void);
void topology_free(struct topology *t);
static inline void topology_auto_free(struct topology **t)
{
    topology_free(*t);
}
#define auto_topology __attribute__((cleanup(topology_auto_free))) struct topology

/* A line "Name:  123 kB" of /proc/meminfo, or of a cell's (cell -1: of all), in KiB. */
bool node_meminfo(int cell, const char *name, uint64_t *ret_kib);
