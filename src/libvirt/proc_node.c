/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host: capabilities, figures, CPUs. Thread: the loop thread. */
#include "libvirt/object.h"
#include "manager/node/node.h"

struct node {
    char model[32];
    uint64_t memory;
    int32_t cpus, mhz, nodes, sockets, cores, threads;
};
static const struct xdr_row node_xdr[] = {XDR_F(CHARS, struct node, model, .max = 32),
                                          XDR_F(UHYPER, struct node, memory),
                                          XDR_F(INT, struct node, cpus),
                                          XDR_F(INT, struct node, mhz),
                                          XDR_F(INT, struct node, nodes),
                                          XDR_F(INT, struct node, sockets),
                                          XDR_F(INT, struct node, cores),
                                          XDR_F(INT, struct node, threads),
                                          XDR_DONE};

static bool get_info(struct rpc_call *c, void *args, void *ret, GError **error)
{
    struct node_info i;
    struct node *n = ret;
    if (!node_info(c->who, &i, error))
        return false;
    *n = (struct node){.memory = i.memory_kib,
                       .cpus = (int)i.cpus,
                       .mhz = (int)i.mhz,
                       .nodes = (int)i.nodes,
                       .sockets = (int)i.sockets,
                       .cores = (int)i.cores,
                       .threads = (int)i.threads};
    g_strlcpy(n->model, i.model, sizeof(n->model));
    return true;
}
RPC_PROC(node_get_info, .number = 6, .flags = OBJECT_QUERY, RET(node), .call = get_info);

static bool capabilities(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return object_text(ret, node_capabilities(c->who, error));
}
RPC_PROC(connect_get_capabilities, .number = 7, .flags = RPC_READONLY, RET(r_text),
         .call = capabilities);

struct emulator_args {
    char *emulator, *arch, *machine, *type;
    uint32_t flags;
};
static const struct xdr_row emulator_args_xdr[] = {
    XDR_F(STRING_OPT, struct emulator_args, emulator),
    XDR_F(STRING_OPT, struct emulator_args, arch),
    XDR_F(STRING_OPT, struct emulator_args, machine),
    XDR_F(STRING_OPT, struct emulator_args, type),
    XDR_F(UINT, struct emulator_args, flags),
    XDR_DONE};

static bool domain_capabilities(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct emulator_args *a = args;
    return object_flags(a->flags, 0, "connect_get_domain_capabilities", error) &&
           object_text(ret, node_domain_capabilities(c->who, a->emulator, a->arch, a->machine,
                                                     a->type, error));
}
RPC_PROC(connect_get_domain_capabilities, .number = 342, .flags = RPC_READONLY, ARGS(emulator_args),
         RET(r_text), .call = domain_capabilities);

struct type {
    char *type;
};
static const struct xdr_row type_xdr[] = {XDR_F(STRING_OPT, struct type, type), XDR_DONE};

static bool max_vcpus(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return object_int(ret, (int32_t)node_max_vcpus(((struct type *)args)->type));
}
RPC_PROC(connect_get_max_vcpus, .number = 5, .flags = OBJECT_QUERY, ARGS(type), RET(r_int),
         .call = max_vcpus);

static bool sysinfo(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return object_flags(((struct a_flags *)args)->flags, 0, "connect_get_sysinfo", error) &&
           object_text(ret, node_sysinfo(c->who, error));
}
RPC_PROC(connect_get_sysinfo, .number = 203, .flags = RPC_READONLY, ARGS(a_flags), RET(r_text),
         .call = sysinfo);

struct security_model {
    struct xdr_array model, doi;
};
static const struct xdr_row security_model_xdr[] = {
    XDR_LIST(struct security_model, model, wire_u32, 257),
    XDR_LIST(struct security_model, doi, wire_u32, 257), XDR_DONE};

static bool security_model(struct rpc_call *c, void *args, void *ret, GError **error)
{
    *(struct security_model *)ret =
        (struct security_model){object_chars(node_security_model()), object_chars("0")};
    return true;
}
RPC_PROC(node_get_security_model, .number = 122, .flags = OBJECT_QUERY, RET(security_model),
         .call = security_model);

/* ---- figures ---- */

struct figure {
    char *name;
    uint64_t value;
};
static const struct xdr_row figure_xdr[] = {XDR_F(STRING, struct figure, name),
                                            XDR_F(UHYPER, struct figure, value), XDR_DONE};
struct figures {
    struct xdr_array figures;
    int32_t count;
};
static const struct xdr_row figures_xdr[] = {
    XDR_LIST(struct figures, figures, figure, LIMIT_NODE_STATS), XDR_F(INT, struct figures, count),
    XDR_DONE};

/* Asked twice: for the number, then for as many. */
static void answer(struct param_list *l, int32_t room, struct figures *ret)
{
    ret->count = (int32_t)l->count;
    uint32_t n = room > 0 ? MIN(l->count, (unsigned)room) : 0;
    struct figure *f = g_new0(struct figure, n + 1);
    for (uint32_t i = 0; i < n; i++)
        f[i] = (struct figure){g_strdup(l->rows[i].name), l->rows[i].u};
    ret->figures = (struct xdr_array){n, f};
    param_list_done(l);
}

struct cpu_stats {
    int32_t cpu, room;
    uint32_t flags;
};
static const struct xdr_row cpu_stats_xdr[] = {XDR_F(INT, struct cpu_stats, cpu),
                                               XDR_F(INT, struct cpu_stats, room),
                                               XDR_F(UINT, struct cpu_stats, flags), XDR_DONE};

static bool cpu_stats(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct cpu_stats *a = args;
    struct param_list l = {0};
    if (!object_flags(a->flags, 0, "node_get_cpu_stats", error) ||
        !node_cpu_stats(c->who, a->cpu, &l, error))
        return false;
    answer(&l, a->room, ret);
    return true;
}
RPC_PROC(node_get_cpu_stats, .number = 227, .flags = OBJECT_QUERY, ARGS(cpu_stats), RET(figures),
         .call = cpu_stats);

struct memory_stats {
    int32_t room, cell;
    uint32_t flags;
};
static const struct xdr_row memory_stats_xdr[] = {
    XDR_F(INT, struct memory_stats, room), XDR_F(INT, struct memory_stats, cell),
    XDR_F(UINT, struct memory_stats, flags), XDR_DONE};

static bool memory_stats(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct memory_stats *a = args;
    struct param_list l = {0};
    if (!object_flags(a->flags, 0, "node_get_memory_stats", error) ||
        !node_memory_stats(c->who, a->cell, &l, error))
        return false;
    answer(&l, a->room, ret);
    return true;
}
RPC_PROC(node_get_memory_stats, .number = 228, .flags = OBJECT_QUERY, ARGS(memory_stats),
         RET(figures), .call = memory_stats);

static bool free_memory(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return object_u64(ret, node_free_memory());
}
RPC_PROC(node_get_free_memory, .number = 102, .flags = OBJECT_QUERY, RET(r_u64),
         .call = free_memory);

struct counts {
    struct xdr_array counts;
};
static const struct xdr_row counts_xdr[] = {XDR_LIST(struct counts, counts, wire_u64, LIMIT_CELLS),
                                            XDR_DONE};

static bool cells_free_memory(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_two_ints *a = args;
    if (!object_room(a->w, LIMIT_CELLS, "node_get_cells_free_memory", error))
        return false;
    struct wire_u64 *cells = g_new0(struct wire_u64, (gsize)a->w + 1);
    struct xdr_array *r = &((struct counts *)ret)->counts;
    r->items = cells;
    int n = node_cells_free_memory(&cells->v, a->v, a->w);
    if (n < 0)
        return ruche_error(error, RUCHE_ERR_INVALID, "there is no NUMA cell %d", a->v);
    r->count = (uint32_t)n;
    return true;
}
RPC_PROC(node_get_cells_free_memory, .number = 101, .flags = OBJECT_QUERY, ARGS(a_two_ints),
         RET(counts), .call = cells_free_memory);

struct free_pages {
    struct xdr_array sizes;
    int32_t start;
    uint32_t cells, flags;
};
static const struct xdr_row free_pages_xdr[] = {
    XDR_LIST(struct free_pages, sizes, wire_u32, LIMIT_CELLS), XDR_F(INT, struct free_pages, start),
    XDR_F(UINT, struct free_pages, cells), XDR_F(UINT, struct free_pages, flags), XDR_DONE};

static bool free_pages(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct free_pages *a = args;
    struct xdr_array *r = &((struct counts *)ret)->counts;
    if (!object_flags(a->flags, 0, "node_get_free_pages", error))
        return false;
    if ((uint64_t)a->cells * a->sizes.count > LIMIT_CELLS)
        return ruche_error(error, MANAGER_ERR_OVERFLOW,
                           "%u sizes of pages in %u cells are more than %d", a->sizes.count,
                           a->cells, LIMIT_CELLS);
    struct wire_u64 *counts = g_new0(struct wire_u64, a->cells * a->sizes.count + 1);
    r->items = counts;
    int n = node_free_pages(a->sizes.items, a->sizes.count, a->start, a->cells, &counts->v, error);
    r->count = n > 0 ? (uint32_t)n : 0;
    return n >= 0;
}
RPC_PROC(node_get_free_pages, .number = 340, .flags = OBJECT_QUERY, ARGS(free_pages), RET(counts),
         .call = free_pages);

/* ---- CPUs ---- */

struct cpu_map_args {
    int32_t need_map, need_online;
    uint32_t flags;
};
static const struct xdr_row cpu_map_args_xdr[] = {
    XDR_F(INT, struct cpu_map_args, need_map), XDR_F(INT, struct cpu_map_args, need_online),
    XDR_F(UINT, struct cpu_map_args, flags), XDR_DONE};
struct cpu_map {
    struct xdr_bytes map;
    uint32_t online;
    int32_t count;
};
static const struct xdr_row cpu_map_xdr[] = {XDR_F(BYTES, struct cpu_map, map, .max = LIMIT_CPUMAP),
                                             XDR_F(UINT, struct cpu_map, online),
                                             XDR_F(INT, struct cpu_map, count), XDR_DONE};

static bool cpu_map(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct cpu_map_args *a = args;
    struct cpu_map *r = ret;
    if (!object_flags(a->flags, 0, "node_get_cpu_map", error))
        return false;
    uint8_t *map = NULL;
    r->count = node_cpu_map(&map, &r->online);
    if (r->count < 0) {
        g_free(map);
        return ruche_error(error, RUCHE_ERR_IO, "the host's CPUs cannot be counted");
    }
    r->map.data = map;
    r->map.len = a->need_map ? (uint32_t)(r->count + 7) / 8 : 0;
    return true;
}
RPC_PROC(node_get_cpu_map, .number = 293, .flags = OBJECT_QUERY, ARGS(cpu_map_args), RET(cpu_map),
         .call = cpu_map);

struct models_args {
    char *arch;
    int32_t need_results;
    uint32_t flags;
};
static const struct xdr_row models_args_xdr[] = {XDR_F(STRING, struct models_args, arch),
                                                 XDR_F(INT, struct models_args, need_results),
                                                 XDR_F(UINT, struct models_args, flags), XDR_DONE};
struct models {
    struct xdr_array names;
    int32_t count;
};
static const struct xdr_row models_xdr[] = {
    XDR_LIST(struct models, names, wire_string, LIMIT_MODELS), XDR_F(INT, struct models, count),
    XDR_DONE};

static bool cpu_models(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct models_args *a = args;
    struct models *r = ret;
    if (!object_flags(a->flags, 0, "connect_get_cpu_model_names", error))
        return false;
    g_auto(GStrv) names = node_cpu_models(a->arch, error);
    if (!names)
        return false;
    r->count = (int32_t)g_strv_length(names);
    if (!a->need_results)
        return true;
    struct wire_string *s = g_new0(struct wire_string, (gsize)r->count + 1);
    for (int i = 0; i < r->count; i++)
        s[i].s = g_strdup(names[i]);
    r->names = (struct xdr_array){(uint32_t)r->count, s};
    return true;
}
RPC_PROC(connect_get_cpu_model_names, .number = 312, .flags = RPC_READONLY, ARGS(models_args),
         RET(models), .call = cpu_models);

static bool compare(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_name_flags *a = args;
    GError *e = NULL;
    int32_t v = node_compare_cpu(a->name, a->flags, &e);
    if (!e)
        return object_int(ret, v);
    g_propagate_error(error, e);
    return false;
}
RPC_PROC(connect_compare_cpu, .number = 158, .flags = RPC_READONLY, ARGS(a_name_flags), RET(r_int),
         .call = compare);

struct compare_hypervisor {
    struct emulator_args e;
    char *xml;
};
static const struct xdr_row compare_hypervisor_xdr[] = {
    XDR_F(STRING_OPT, struct compare_hypervisor, e.emulator),
    XDR_F(STRING_OPT, struct compare_hypervisor, e.arch),
    XDR_F(STRING_OPT, struct compare_hypervisor, e.machine),
    XDR_F(STRING_OPT, struct compare_hypervisor, e.type),
    XDR_F(STRING, struct compare_hypervisor, xml),
    XDR_F(UINT, struct compare_hypervisor, e.flags),
    XDR_DONE};

static bool compare_hypervisor(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct compare_hypervisor *a = args;
    struct a_name_flags plain = {a->xml, a->e.flags};
    return compare(c, &plain, ret, error);
}
RPC_PROC(connect_compare_hypervisor_cpu, .number = 393, .flags = RPC_READONLY,
         ARGS(compare_hypervisor), RET(r_int), .call = compare_hypervisor);

struct baseline {
    struct xdr_array cpus;
    uint32_t flags;
};
static const struct xdr_row baseline_xdr[] = {
    XDR_LIST(struct baseline, cpus, wire_string, LIMIT_CPUS), XDR_F(UINT, struct baseline, flags),
    XDR_DONE};

static bool baseline(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct baseline *a = args;
    return object_text(ret, node_baseline_cpu(a->cpus.items, a->cpus.count, a->flags, error));
}
RPC_PROC(connect_baseline_cpu, .number = 162, .flags = RPC_READONLY, ARGS(baseline), RET(r_text),
         .call = baseline);

struct baseline_hypervisor {
    struct emulator_args e;
    struct xdr_array cpus;
};
static const struct xdr_row baseline_hypervisor_xdr[] = {
    XDR_F(STRING_OPT, struct baseline_hypervisor, e.emulator),
    XDR_F(STRING_OPT, struct baseline_hypervisor, e.arch),
    XDR_F(STRING_OPT, struct baseline_hypervisor, e.machine),
    XDR_F(STRING_OPT, struct baseline_hypervisor, e.type),
    XDR_LIST(struct baseline_hypervisor, cpus, wire_string, LIMIT_CPUS),
    XDR_F(UINT, struct baseline_hypervisor, e.flags),
    XDR_DONE};

static bool baseline_hypervisor(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct baseline_hypervisor *a = args;
    return object_text(ret, node_baseline_cpu(a->cpus.items, a->cpus.count, a->e.flags, error));
}
RPC_PROC(connect_baseline_hypervisor_cpu, .number = 394, .flags = RPC_READONLY,
         ARGS(baseline_hypervisor), RET(r_text), .call = baseline_hypervisor);
