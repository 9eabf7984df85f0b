/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domains: memory, vCPUs, pins and tunables. Thread: the loop thread.
 *
 * Trust     Sizes of maps are the client's: their product is checked before memory is asked for.
 */
#include "libvirt/agent.h"

enum { LIVE = 1, CONFIG = 2, AFFECT = 3, MAXIMUM = 4, STRINGS_OKAY = 4, GUEST = 8 };

/* ---- memory and vCPUs ---- */

DOMAIN_PROC(domain_set_memory, 31, 0, a_domain_u64,
            domain_set_memory(c->who, d, a->v, LIVE, error));
DOMAIN_PROC(domain_set_max_memory, 30, 0, a_domain_u64,
            domain_set_memory(c->who, d, a->v, MAXIMUM, error));
DOMAIN_PROC(domain_set_memory_flags, 204, 0, a_domain_u64_flags,
            domain_set_memory(c->who, d, a->v, a->flags, error));
DOMAIN_PROC(domain_get_max_memory, 17, OBJECT_QUERY, a_domain,
            object_u64(ret, domain_summary(d)->memory_kib), RET(r_u64));

DOMAIN_PROC(domain_set_memory_stats_period, 308, 0, a_domain_int_flags,
            domain_set_stats_period(c->who, d, a->v, a->flags, error));

DOMAIN_PROC(domain_set_vcpus, 32, 0, a_domain_int,
            domain_set_vcpus(c->who, d, (unsigned)a->v, LIVE, error));
DOMAIN_PROC(domain_set_vcpus_flags, 199, 0, a_domain_int_flags,
            domain_set_vcpus(c->who, d, (unsigned)a->v, a->flags, error));

struct set_vcpu {
    struct wire_domain dom;
    char *cpus;
    int32_t state;
    uint32_t flags;
};
static const struct xdr_row set_vcpu_xdr[] = {
    XDR_SUB(struct set_vcpu, dom, wire_domain_xdr), XDR_F(STRING, struct set_vcpu, cpus),
    XDR_F(INT, struct set_vcpu, state), XDR_F(UINT, struct set_vcpu, flags), XDR_DONE};

static bool set_vcpu(struct rpc_call *c, struct domain *d, const struct set_vcpu *a, GError **error)
{
    if (a->state != 0 && a->state != 1)
        return ruche_error(error, RUCHE_ERR_INVALID, "a vCPU's state is 0 or 1, not %d", a->state);
    return object_flags(a->flags, AFFECT, "domain_set_vcpu", error) &&
           domain_set_vcpu(c->who, d, a->cpus, a->state, a->flags, error);
}
DOMAIN_PROC(domain_set_vcpu, 384, 0, set_vcpu, set_vcpu(c, d, a, error));

static bool vcpus(struct rpc_call *c, struct domain *d, unsigned flags, void *ret, GError **error)
{
    return object_int(ret, domain_get_vcpus(c->who, d, flags, error)) &&
           ((struct r_int *)ret)->v >= 0;
}
/* The guest says itself how many of them it uses. */
static bool vcpus_flags(struct rpc_call *c, struct domain *d, unsigned flags, void *ret,
                        GError **error)
{
    if (!(flags & GUEST))
        return vcpus(c, d, flags, ret, error);
    if (flags & CONFIG)
        return ruche_error(error, RUCHE_ERR_INVALID, "only what runs has a guest to ask");
    int count = agent_vcpu_count(c, d, flags & MAXIMUM, error);
    return count >= 0 && object_int(ret, count);
}
DOMAIN_PROC(domain_get_vcpus_flags, 200, RPC_READONLY, a_domain_flags,
            vcpus_flags(c, d, a->flags, ret, error), RET(r_int));
DOMAIN_PROC(domain_get_max_vcpus, 18, RPC_READONLY, a_domain,
            vcpus(c, d, MAXIMUM | (domain_is_active(d) ? LIVE : CONFIG), ret, error), RET(r_int));

/* ---- pins ---- */

DOMAIN_PROC(domain_pin_vcpu, 26, 0, a_domain_cpus,
            domain_pin_vcpu(c->who, d, (int)a->cpu, a->map.data, a->map.len, LIVE, error));
DOMAIN_PROC(domain_pin_vcpu_flags, 225, 0, a_domain_cpus_flags,
            object_flags(a->flags, AFFECT, "domain_pin_vcpu", error) &&
                domain_pin_vcpu(c->who, d, (int)a->cpu, a->map.data, a->map.len, a->flags, error));

struct pin_emulator {
    struct wire_domain dom;
    struct xdr_bytes map;
    uint32_t flags;
};
static const struct xdr_row pin_emulator_xdr[] = {
    XDR_SUB(struct pin_emulator, dom, wire_domain_xdr),
    XDR_F(BYTES, struct pin_emulator, map, .max = LIMIT_CPUMAP),
    XDR_F(UINT, struct pin_emulator, flags), XDR_DONE};
DOMAIN_PROC(domain_pin_emulator, 279, 0, pin_emulator,
            object_flags(a->flags, AFFECT, "domain_pin_emulator", error) &&
                domain_pin_vcpu(c->who, d, -1, a->map.data, a->map.len, a->flags, error));

/* `rows` maps of `len` bytes each, as they stand. */
static bool pins(struct rpc_call *c, struct domain *d, bool emulator, unsigned affect, int32_t rows,
                 int32_t len, struct r_bytes_int *ret, GError **error)
{
    if (rows < 0 || rows > LIMIT_VCPUS || len < 0 || len > LIMIT_CPUMAP ||
        rows * len > LIMIT_CPUMAPS)
        return ruche_error(error, RUCHE_ERR_INVALID, "%d maps of %d bytes are too many", rows, len);
    if (!object_flags(affect, AFFECT, "pin info", error))
        return false;
    ret->bytes.data = g_malloc0((size_t)rows * (size_t)len + 1);
    ret->v = domain_get_pins(c->who, d, emulator, affect, ret->bytes.data, (unsigned)rows,
                             (unsigned)len, error);
    if (ret->v < 0)
        return false;
    ret->bytes.len = (uint32_t)(MIN(ret->v, rows) * len);
    return true;
}

struct pin_info {
    struct wire_domain dom;
    int32_t rows, len;
    uint32_t flags;
};
static const struct xdr_row pin_info_xdr[] = {
    XDR_SUB(struct pin_info, dom, wire_domain_xdr), XDR_F(INT, struct pin_info, rows),
    XDR_F(INT, struct pin_info, len), XDR_F(UINT, struct pin_info, flags), XDR_DONE};
DOMAIN_PROC(domain_get_vcpu_pin_info, 230, RPC_READONLY, pin_info,
            pins(c, d, false, a->flags, a->rows, a->len, ret, error), RET(r_bytes_int));
DOMAIN_PROC(domain_get_emulator_pin_info, 280, RPC_READONLY, a_domain_int_flags,
            pins(c, d, true, a->flags, 1, a->v, ret, error), RET(r_bytes_int));

struct vcpu_info {
    uint32_t number;
    int32_t state;
    uint64_t cpu_time;
    int32_t cpu;
};
static const struct xdr_row vcpu_info_xdr[] = {
    XDR_F(UINT, struct vcpu_info, number), XDR_F(INT, struct vcpu_info, state),
    XDR_F(UHYPER, struct vcpu_info, cpu_time), XDR_F(INT, struct vcpu_info, cpu), XDR_DONE};
struct get_vcpus {
    struct wire_domain dom;
    int32_t rows, len;
};
static const struct xdr_row get_vcpus_xdr[] = {XDR_SUB(struct get_vcpus, dom, wire_domain_xdr),
                                               XDR_F(INT, struct get_vcpus, rows),
                                               XDR_F(INT, struct get_vcpus, len), XDR_DONE};
struct vcpus {
    struct xdr_array info;
    struct xdr_bytes maps;
};
static const struct xdr_row vcpus_xdr[] = {XDR_LIST(struct vcpus, info, vcpu_info, LIMIT_VCPUS),
                                           XDR_F(BYTES, struct vcpus, maps, .max = LIMIT_CPUMAPS),
                                           XDR_DONE};

static bool get_vcpus(struct rpc_call *c, struct domain *d, const struct get_vcpus *a,
                      struct vcpus *ret, GError **error)
{
    struct r_bytes_int maps = {0};
    if (!object_room(a->rows, LIMIT_VCPUS, "domain_get_vcpus", error))
        return false;
    if (a->len > 0 && !pins(c, d, false, LIVE, a->rows, a->len, &maps, error)) {
        g_free(maps.bytes.data);
        return false;
    }
    ret->maps = maps.bytes;
    g_autofree struct domain_vcpu *v = g_new0(struct domain_vcpu, (gsize)a->rows + 1);
    int n = domain_vcpus(c->who, d, v, (unsigned)a->rows, error);
    if (n < 0)
        return false;
    struct vcpu_info *info = g_new0(struct vcpu_info, (gsize)n + 1);
    for (int i = 0; i < n; i++)
        info[i] = (struct vcpu_info){v[i].number, v[i].state, v[i].cpu_time_ns, v[i].cpu};
    ret->info = (struct xdr_array){(uint32_t)n, info};
    ret->maps.len = MIN(ret->maps.len, (uint32_t)(n * a->len));
    return true;
}
DOMAIN_PROC(domain_get_vcpus, 20, RPC_READONLY, get_vcpus, get_vcpus(c, d, a, ret, error),
            RET(vcpus));

/* ---- tunables ---- */

/* Strings go to those only who say that they take them. */
static void drop_strings(struct param_list *l, unsigned flags)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < l->count; i++) {
        if (l->rows[i].type == PARAM_STRING && !(flags & STRINGS_OKAY))
            g_free(l->rows[i].s);
        else
            l->rows[kept++] = l->rows[i];
    }
    l->count = kept;
}

static bool get(struct rpc_call *c, struct domain *d, const char *which, unsigned flags,
                struct param_list *ret, GError **error)
{
    if (!object_flags(flags, AFFECT | STRINGS_OKAY, which, error) ||
        !domain_get_params(c->who, d, which, flags & AFFECT, ret, error)) {
        param_list_done(ret);
        return false;
    }
    drop_strings(ret, flags);
    return true;
}

static bool set(struct rpc_call *c, struct domain *d, const char *which,
                const struct xdr_array *params, unsigned flags, GError **error)
{
    struct param_list l = {0};
    if (!object_flags(flags, AFFECT, which, error) || !params_from_wire(params, &l, error))
        return false;
    bool ok = domain_set_params(c->who, d, which, &l, flags, error);
    param_list_done(&l);
    return ok;
}

/* Asked twice: for the number, then for as many. */
static bool get_twice(struct rpc_call *c, struct domain *d, const char *which, int32_t room,
                      unsigned flags, struct r_params_count *ret, GError **error)
{
    struct param_list l = {0};
    if (!get(c, d, which, flags, &l, error))
        return false;
    params_answer(&l, room, &ret->params, &ret->count);
    return true;
}

static bool get_once(struct rpc_call *c, struct domain *d, int32_t room, unsigned flags,
                     struct r_params *ret, GError **error)
{
    struct param_list l = {0};
    int32_t count;
    if (!get(c, d, "scheduler", flags, &l, error))
        return false;
    params_answer(&l, room, &ret->params, &count);
    return true;
}

struct scheduler_type {
    char *type;
    int32_t count;
};
static const struct xdr_row scheduler_type_xdr[] = {
    XDR_F(STRING, struct scheduler_type, type), XDR_F(INT, struct scheduler_type, count), XDR_DONE};

static bool scheduler_type(struct rpc_call *c, struct domain *d, struct scheduler_type *ret,
                           GError **error)
{
    struct param_list l = {0};
    if (!get(c, d, "scheduler", 0, &l, error))
        return false;
    ret->type = g_strdup("posix");
    ret->count = (int32_t)l.count;
    param_list_done(&l);
    return true;
}
DOMAIN_PROC(domain_get_scheduler_type, 56, RPC_READONLY, a_domain, scheduler_type(c, d, ret, error),
            RET(scheduler_type));
DOMAIN_PROC(domain_get_scheduler_parameters, 57, RPC_READONLY, a_domain_int,
            get_once(c, d, a->v, 0, ret, error), RET(r_params));
DOMAIN_PROC(domain_get_scheduler_parameters_flags, 223, RPC_READONLY, a_domain_int_flags,
            get_once(c, d, a->v, a->flags, ret, error), RET(r_params));

struct set_scheduler {
    struct wire_domain dom;
    struct xdr_array params;
};
static const struct xdr_row set_scheduler_xdr[] = {
    XDR_SUB(struct set_scheduler, dom, wire_domain_xdr),
    XDR_LIST(struct set_scheduler, params, wire_param, LIMIT_FEW_PARAMS), XDR_DONE};
DOMAIN_PROC(domain_set_scheduler_parameters, 58, 0, set_scheduler,
            set(c, d, "scheduler", &a->params, 0, error));

#define GETTER(ident, number, which)                                                               \
    DOMAIN_PROC(ident, number, RPC_READONLY, a_domain_int_flags,                                   \
                get_twice(c, d, which, a->v, a->flags, ret, error), RET(r_params_count))
#define SETTER(ident, number, which)                                                               \
    DOMAIN_PROC(ident, number, 0, a_domain_params_flags,                                           \
                set(c, d, which, &a->params, a->flags, error))
SETTER(domain_set_scheduler_parameters_flags, 219, "scheduler");
GETTER(domain_get_memory_parameters, 198, "memory");
SETTER(domain_set_memory_parameters, 197, "memory");
GETTER(domain_get_blkio_parameters, 206, "blkio");
SETTER(domain_set_blkio_parameters, 205, "blkio");
GETTER(domain_get_numa_parameters, 255, "numa");
SETTER(domain_set_numa_parameters, 254, "numa");

/* Of one device: its name stands behind the group's. */
struct get_device {
    struct wire_domain dom;
    char *device;
    int32_t room;
    uint32_t flags;
};
static const struct xdr_row get_device_xdr[] = {
    XDR_SUB(struct get_device, dom, wire_domain_xdr), XDR_F(STRING, struct get_device, device),
    XDR_F(INT, struct get_device, room), XDR_F(UINT, struct get_device, flags), XDR_DONE};
static const struct xdr_row get_disk_xdr[] = {
    XDR_SUB(struct get_device, dom, wire_domain_xdr), XDR_F(STRING_OPT, struct get_device, device),
    XDR_F(INT, struct get_device, room), XDR_F(UINT, struct get_device, flags), XDR_DONE};
struct set_device {
    struct wire_domain dom;
    char *device;
    struct xdr_array params;
    uint32_t flags;
};
static const struct xdr_row set_device_xdr[] = {XDR_SUB(struct set_device, dom, wire_domain_xdr),
                                                XDR_F(STRING, struct set_device, device),
                                                XDR_LIST(struct set_device, params, wire_param, 32),
                                                XDR_F(UINT, struct set_device, flags), XDR_DONE};

static bool get_device(struct rpc_call *c, struct domain *d, const char *group,
                       const struct get_device *a, struct r_params_count *ret, GError **error)
{
    /* How many there are may be asked without naming one. */
    const char *first = domain_summary(d)->disk_count ? domain_summary(d)->disks[0].target : "";
    g_autofree char *which = g_strdup_printf("%s:%s", group, a->device ? a->device : first);
    return get_twice(c, d, which, a->room, a->flags, ret, error);
}

static bool set_device(struct rpc_call *c, struct domain *d, const char *group,
                       const struct set_device *a, GError **error)
{
    g_autofree char *which = g_strdup_printf("%s:%s", group, a->device);
    return set(c, d, which, &a->params, a->flags, error);
}
DOMAIN_PROC(domain_get_interface_parameters, 257, RPC_READONLY, get_device,
            get_device(c, d, "interface", a, ret, error), RET(r_params_count));
DOMAIN_PROC(domain_set_interface_parameters, 256, 0, set_device,
            set_device(c, d, "interface", a, error));
DOMAIN_PROC(domain_set_block_io_tune, 252, 0, set_device, set_device(c, d, "blockio", a, error));

static bool get_block_io_tune(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct get_device *a = args;
    auto_domain *d = object_domain(&a->dom, error);
    return d && get_device(c, d, "blockio", a, ret, error);
}
RPC_PROC(domain_get_block_io_tune, .number = 253, .flags = RPC_READONLY, .args = get_disk_xdr,
         .args_size = sizeof(struct get_device), RET(r_params_count), .call = get_block_io_tune);
