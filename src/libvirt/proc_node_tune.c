/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host's memory: what merges equal pages, and pools of huge ones. Thread: the loop thread. */
#include "libvirt/object.h"
#include "manager/node/node.h"

struct get_tune {
    int32_t room;
    uint32_t flags;
};
static const struct xdr_row get_tune_xdr[] = {XDR_F(INT, struct get_tune, room),
                                              XDR_F(UINT, struct get_tune, flags), XDR_DONE};

static bool get_tune(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct get_tune *a = args;
    struct r_params_count *r = ret;
    struct param_list l = {0};
    if (!object_flags(a->flags, 4 /* strings are fine */, "node_get_memory_parameters", error) ||
        !node_get_memory_tune(c->who, &l, error))
        return false;
    params_answer(&l, a->room, &r->params, &r->count);
    return true;
}
RPC_PROC(node_get_memory_parameters, .number = 289, .flags = RPC_READONLY, ARGS(get_tune),
         RET(r_params_count), .call = get_tune);

struct set_tune {
    struct xdr_array params;
    uint32_t flags;
};
static const struct xdr_row set_tune_xdr[] = {XDR_LIST(struct set_tune, params, wire_param, 64),
                                              XDR_F(UINT, struct set_tune, flags), XDR_DONE};

static bool set_tune(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct set_tune *a = args;
    struct param_list l = {0};
    bool ok = object_flags(a->flags, 0, "node_set_memory_parameters", error) &&
              params_from_wire(&a->params, &l, error) && node_set_memory_tune(c->who, &l, error);
    param_list_done(&l);
    return ok;
}
RPC_PROC(node_set_memory_parameters, .number = 288, ARGS(set_tune), .call = set_tune);

struct page_count {
    uint64_t count;
};
static const struct xdr_row page_count_xdr[] = {XDR_F(UHYPER, struct page_count, count), XDR_DONE};
struct alloc_pages {
    struct xdr_array sizes, counts;
    int32_t start_cell;
    uint32_t cell_count, flags;
};
static const struct xdr_row alloc_pages_xdr[] = {
    XDR_LIST(struct alloc_pages, sizes, wire_u32, 64),
    XDR_LIST(struct alloc_pages, counts, page_count, 64),
    XDR_F(INT, struct alloc_pages, start_cell),
    XDR_F(UINT, struct alloc_pages, cell_count),
    XDR_F(UINT, struct alloc_pages, flags),
    XDR_DONE};

/* The result counts the pools that were changed. */
static bool alloc_pages(struct rpc_call *c, void *args, void *ret, GError **error)
{
    enum { SET = 1 };
    const struct alloc_pages *a = args;
    int32_t done = 0;
    if (!object_flags(a->flags, SET, "node_alloc_pages", error))
        return false;
    if (a->sizes.count != a->counts.count || a->start_cell < -1 || a->cell_count > LIMIT_CELLS ||
        a->start_cell > INT32_MAX - LIMIT_CELLS)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "node_alloc_pages: sizes, counts and cells do not fit");
    for (uint32_t cell = 0; cell < a->cell_count; cell++)
        for (uint32_t i = 0; i < a->sizes.count; i++, done++)
            if (!node_alloc_pages(c->who, a->start_cell < 0 ? -1 : a->start_cell + (int)cell,
                                  ((struct wire_u32 *)a->sizes.items)[i].v,
                                  ((struct page_count *)a->counts.items)[i].count,
                                  !(a->flags & SET), error))
                return false;
    return object_int(ret, done);
}
RPC_PROC(node_alloc_pages, .number = 347, ARGS(alloc_pages), RET(r_int), .call = alloc_pages);
