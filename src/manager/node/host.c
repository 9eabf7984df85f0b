/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the host is: processors in numbers, memory, names. And how busy it is.
 *
 * Spec      libvirt's virNodeGetInfo and its kin; proc(5).
 * Thread    The loop thread.
 */
#include "manager/node/topology.h"

#include "manager/node/node.h"

#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

char *node_arch(void)
{
    struct utsname u;
    return g_strdup(uname(&u) == 0 ? u.machine : "x86_64");
}

char *node_hostname(void)
{
    char name[HOST_NAME_MAX + 1] = "";
    gethostname(name, sizeof(name) - 1);
    return g_strdup(name[0] ? name : "localhost");
}

const char *node_security_model(void)
{
    return "none";
}

static unsigned read_mhz(void)
{
    g_autofree char *text = sysfs_read("/proc/cpuinfo");
    const char *at = text ? strstr(text, "cpu MHz") : NULL;
    at = at ? strchr(at, ':') : NULL;
    return at ? (unsigned)g_ascii_strtod(at + 1, NULL) : 0;
}

/* How many different values `key` takes among the online CPUs of a cell. */
static unsigned count_keys(const struct topology *t, unsigned cell,
                           uint64_t (*key)(const struct topology_cpu *), unsigned *ret_most)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_direct_hash, g_direct_equal);
    unsigned most = 0;
    for (unsigned i = 0; i < t->cpu_count; i++) {
        const struct topology_cpu *c = &t->cpus[i];
        if (!c->online || c->cell != cell)
            continue;
        gpointer k = GSIZE_TO_POINTER(key(c));
        unsigned n = GPOINTER_TO_UINT(g_hash_table_lookup(seen, k)) + 1;
        g_hash_table_insert(seen, k, GUINT_TO_POINTER(n));
        most = MAX(most, n);
    }
    *ret_most = most;
    return g_hash_table_size(seen);
}

static uint64_t socket_key(const struct topology_cpu *c)
{
    return c->socket;
}

static uint64_t core_key(const struct topology_cpu *c)
{
    return (uint64_t)c->socket << 40 | (uint64_t)(c->die & 0xfffff) << 20 | (c->core & 0xfffff);
}

/* The product of the four has to be the number of CPUs; where cells, sockets or cores differ, a
 * flat host is told. */
static void fill_shape(const struct topology *t, struct node_info *n)
{
    unsigned sockets = 0, cores = 0, threads = 0, per;
    for (unsigned i = 0; i < t->cell_count; i++) {
        unsigned cell = t->cells[i].id, s = count_keys(t, cell, socket_key, &per);
        unsigned c = count_keys(t, cell, core_key, &per);
        sockets = MAX(sockets, s);
        cores = MAX(cores, s ? c / s : 0);
        threads = MAX(threads, per);
    }
    n->nodes = t->cell_count;
    n->sockets = sockets;
    n->cores = cores;
    n->threads = threads;
    if ((uint64_t)n->nodes * sockets * cores * threads != n->cpus) {
        n->nodes = n->sockets = n->threads = 1;
        n->cores = n->cpus;
    }
}

bool node_info(const struct caller *who, struct node_info *ret, GError **error)
{
    if (!access_check(who, RIGHT_READ, "read node info", error))
        return false;
    struct node_info n = {0};
    auto_topology *t = node_topology();
    g_autofree char *arch = node_arch();
    g_strlcpy(n.model, arch, sizeof(n.model));
    for (unsigned i = 0; i < t->cpu_count; i++)
        n.cpus += t->cpus[i].online;
    if (!n.cpus || !node_meminfo(-1, "MemTotal", &n.memory_kib))
        return ruche_error(error, RUCHE_ERR_IO,
                           "the host's processors and memory cannot be read from /sys and /proc");
    n.mhz = read_mhz();
    fill_shape(t, &n);
    *ret = n;
    return true;
}

int node_cpu_map(uint8_t **ret_map, unsigned *ret_online)
{
    auto_topology *t = node_topology();
    unsigned count = t->cpu_count ? t->cpus[t->cpu_count - 1].id + 1 : 0, online = 0;
    uint8_t *map = g_malloc0((count + 7) / 8 + 1);
    for (unsigned i = 0; i < t->cpu_count; i++)
        if (t->cpus[i].online) {
            map[t->cpus[i].id / 8] |= (uint8_t)(1u << (t->cpus[i].id % 8));
            online++;
        }
    if (ret_map)
        *ret_map = map;
    else
        g_free(map);
    if (ret_online)
        *ret_online = online;
    return (int)count;
}
