/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host: what it is, what it can do for machines, how busy it is.
 *
 * Spec      libvirt's virNode* and capabilities at 9.0.0; sysfs, /proc, CPUID, DMI.
 * Thread    The loop thread; reads of /proc and /sys do not block. What never changes is read
 *           once.
 * Root      NODE_SYSFS of the environment puts another tree in front of /sys and /proc: for tests.
 */
#pragma once

#include "manager/manager.h"

struct node_info {
    char model[32];     /* "x86_64" */
    uint64_t memory_kib;
    unsigned cpus, mhz, nodes, sockets, cores, threads;
};
bool node_info(const struct caller *who, struct node_info *ret, GError **error);
char *node_hostname(void);
char *node_arch(void); /* "x86_64" */
/* virConnectGetCapabilities(): host CPU, topology with NUMA cells and their pages, guests of the emulators there are.
 * Asks each emulator once (waits). */
char *node_capabilities(const struct caller *who, GError **error);
/* virConnectGetDomainCapabilities(); NULL arguments mean the default. Asks the emulator once (waits). */
char *node_domain_capabilities(const struct caller *who, const char *emulator, const char *arch, const char *machine,
                               const char *virt_type, GError **error);
/* The emulators: what def and vm ask. Looked for at the start and when their file has changed. */
struct emulator {
    char *path;
    bool ours;          /* ruche-vmm, else a qemu-system-* */
    char *arch;
    unsigned version;
    bool kvm;           /* KVM can be used */
    const char *const *machines; /* canonical names and aliases: "pc-q35-7.2", "q35" */
    /* devices, buses and models by their words in domain XML: has("disk.bus", "virtio"). The sets are named by element
     * and attribute; emulator_words.c has all of them. */
    GHashTable *words;
};
/* NULL path: the default for the arch (NULL: the host's). NULL with *error. Borrowed. (waits, the first time) */
const struct emulator *node_emulator(const char *path, const char *arch, GError **error);
bool emulator_has(const struct emulator *e, const char *set, const char *word);
unsigned node_max_vcpus(const char *virt_type);
/* Begins to ask the emulators, in a task of its own, so that the first caller need not wait for them. */
void node_start(void);

/* cpu -1: all. Rows "kernel", "user", "idle", "iowait", in nanoseconds. */
bool node_cpu_stats(const struct caller *who, int cpu, struct param_list *ret, GError **error);
/* cell -1: all. Rows "total", "free", "buffers", "cached" in KiB. */
bool node_memory_stats(const struct caller *who, int cell, struct param_list *ret, GError **error);
uint64_t node_free_memory(void);
int node_cells_free_memory(uint64_t *ret, int start_cell, int max_cells);
/* present and online: bit maps of g_malloc()ed bytes; returns the number of CPUs present. */
int node_cpu_map(uint8_t **ret_map, unsigned *ret_online);
/* Free pages of sizes (KiB) for cells. */
int node_free_pages(const unsigned *pages, unsigned page_count, int start_cell, unsigned cell_count, uint64_t *ret, GError **error);
/* Merging of equal pages, by libvirt's names ("shm_pages_to_scan"). */
bool node_get_memory_tune(const struct caller *who, struct param_list *ret, GError **error);
bool node_set_memory_tune(const struct caller *who, const struct param_list *l, GError **error);
/* The pool of pages of this size in a cell (-1: the whole host): so many, or so many more. */
bool node_alloc_pages(const struct caller *who, int cell, unsigned page_kib, uint64_t count, bool more, GError **error);
char *node_sysinfo(const struct caller *who, GError **error);   /* DMI, as <sysinfo type='smbios'> */
char **node_cpu_models(const char *arch, GError **error);       /* names that <cpu><model> takes */
/* baseline of CPU XMLs; compare: virCPUCompareResult. */
char *node_baseline_cpu(char *const *cpus, unsigned count, unsigned flags, GError **error);
int node_compare_cpu(const char *xml, unsigned flags, GError **error);
/* The security model: "none", and (where on) its DOI. */
const char *node_security_model(void);
