/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domains: I/O threads. Thread: the loop thread. */
#include "libvirt/object.h"

enum { LIVE = 1, CONFIG = 2, AFFECT = 3 };

struct iothread {
    uint32_t id;
    struct xdr_bytes map;
};
static const struct xdr_row iothread_xdr[] = {
    XDR_F(UINT, struct iothread, id), XDR_F(BYTES, struct iothread, map, .max = LIMIT_CPUMAP),
    XDR_DONE};
struct iothreads {
    struct xdr_array info;
    uint32_t count;
};
static const struct xdr_row iothreads_xdr[] = {
    XDR_LIST(struct iothreads, info, iothread, LIMIT_VCPUS), XDR_F(UINT, struct iothreads, count),
    XDR_DONE};

static bool iothreads(struct rpc_call *c, struct domain *d, unsigned flags, struct iothreads *ret,
                      GError **error)
{
    unsigned len = (g_get_num_processors() + 7) / 8;
    g_autoptr(GArray) ids = NULL;
    g_autofree uint8_t *maps = NULL;
    if (!object_flags(flags, AFFECT, "domain_get_iothread_info", error) ||
        !domain_get_iothreads(c->who, d, flags, len, &ids, &maps, error))
        return false;
    struct iothread *t = g_new0(struct iothread, ids->len + 1);
    for (guint i = 0; i < ids->len; i++)
        t[i] = (struct iothread){g_array_index(ids, unsigned, i),
                                 {len, g_memdup2(maps + (size_t)i * len, len)}};
    ret->info = (struct xdr_array){ids->len, t};
    ret->count = ids->len;
    return true;
}
DOMAIN_PROC(domain_get_iothread_info, 351, RPC_READONLY, a_domain_flags,
            iothreads(c, d, a->flags, ret, error), RET(iothreads));

DOMAIN_PROC(domain_pin_iothread, 352, 0, a_domain_cpus_flags,
            object_flags(a->flags, AFFECT, "domain_pin_iothread", error) &&
                domain_pin_iothread(c->who, d, a->cpu, a->map.data, a->map.len, a->flags, error));

struct one_iothread {
    struct wire_domain dom;
    uint32_t id, flags;
};
static const struct xdr_row one_iothread_xdr[] = {
    XDR_SUB(struct one_iothread, dom, wire_domain_xdr), XDR_F(UINT, struct one_iothread, id),
    XDR_F(UINT, struct one_iothread, flags), XDR_DONE};
DOMAIN_PROC(domain_add_iothread, 355, 0, one_iothread,
            object_flags(a->flags, AFFECT, "domain_add_iothread", error) &&
                domain_add_iothread(c->who, d, a->id, a->flags, error));
DOMAIN_PROC(domain_del_iothread, 356, 0, one_iothread,
            object_flags(a->flags, AFFECT, "domain_del_iothread", error) &&
                domain_del_iothread(c->who, d, a->id, a->flags, error));

struct set_iothread {
    struct wire_domain dom;
    uint32_t id;
    struct xdr_array params;
    uint32_t flags;
};
static const struct xdr_row set_iothread_xdr[] = {
    XDR_SUB(struct set_iothread, dom, wire_domain_xdr), XDR_F(UINT, struct set_iothread, id),
    XDR_LIST(struct set_iothread, params, wire_param, 64), XDR_F(UINT, struct set_iothread, flags),
    XDR_DONE};

static bool set_iothread(struct rpc_call *c, struct domain *d, const struct set_iothread *a,
                         GError **error)
{
    struct param_list l = {0};
    bool ok = object_flags(a->flags, AFFECT, "domain_set_iothread_params", error) &&
              params_from_wire(&a->params, &l, error) &&
              domain_set_iothread(c->who, d, a->id, &l, a->flags, error);
    param_list_done(&l);
    return ok;
}
DOMAIN_PROC(domain_set_iothread_params, 402, 0, set_iothread, set_iothread(c, d, a, error));
