/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Storage pools. Thread: the loop thread. */
#include "libvirt/storage_object.h"

/* ---- finding and listing ---- */

static bool answer(struct pool *p, void *ret)
{
    if (p)
        storage_fill_pool(p, &((struct r_named *)ret)->obj);
    pool_unref(p);
    return p != NULL;
}

static bool by_name(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return answer(pool_find_name(((struct a_name *)args)->name, error), ret);
}
RPC_PROC(storage_pool_lookup_by_name, .number = 84, .flags = OBJECT_QUERY, ARGS(a_name),
         RET(r_named), .call = by_name);

static bool by_uuid(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return answer(pool_find_uuid(((struct a_uuid *)args)->uuid, error), ret);
}
RPC_PROC(storage_pool_lookup_by_uuid, .number = 85, .flags = OBJECT_QUERY, ARGS(a_uuid),
         RET(r_named), .call = by_uuid);

static bool by_volume(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return answer(pool_find_name(((struct a_volume *)args)->vol.pool, error), ret);
}
RPC_PROC(storage_pool_lookup_by_volume, .number = 86, .flags = OBJECT_QUERY, ARGS(a_volume),
         RET(r_named), .call = by_volume);

static bool by_target(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return answer(pool_find_target(((struct a_name *)args)->name, error), ret);
}
RPC_PROC(storage_pool_lookup_by_target_path, .number = 391, .flags = OBJECT_QUERY, ARGS(a_name),
         RET(r_named), .call = by_target);

struct pools {
    struct xdr_array pools;
    uint32_t count;
};
static const struct xdr_row pools_xdr[] = {XDR_LIST(struct pools, pools, wire_named, LIMIT_POOLS),
                                           XDR_F(UINT, struct pools, count), XDR_DONE};

static bool list_all(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_all *a = args;
    struct pools *r = ret;
    g_autoptr(GPtrArray) list = pool_list(c->who, a->flags);
    r->count = list->len;
    if (!a->need_results)
        return true;
    r->pools.items = g_new0(struct wire_named, list->len + 1);
    for (; r->pools.count < list->len; r->pools.count++)
        storage_fill_pool(list->pdata[r->pools.count],
                          (struct wire_named *)r->pools.items + r->pools.count);
    return true;
}
RPC_PROC(connect_list_all_storage_pools, .number = 281, .flags = OBJECT_QUERY, ARGS(a_all),
         RET(pools), .call = list_all);

static bool names(struct rpc_call *c, unsigned list_flags, int32_t room, struct r_names *ret,
                  GError **error)
{
    if (!object_room(room, LIMIT_POOLS, "list of pools", error))
        return false;
    g_autoptr(GPtrArray) list = pool_list(c->who, list_flags);
    struct wire_string *s = g_new0(struct wire_string, list->len + 1);
    for (; ret->names.count < MIN(list->len, (guint)room); ret->names.count++)
        s[ret->names.count].s = g_strdup(((struct pool *)list->pdata[ret->names.count])->name);
    ret->names.items = s;
    return true;
}

static bool count(struct rpc_call *c, unsigned list_flags, void *ret)
{
    g_autoptr(GPtrArray) list = pool_list(c->who, list_flags);
    return object_int(ret, (int32_t)list->len);
}

static bool list_active(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return names(c, POOLS_ACTIVE, ((struct a_int *)args)->v, ret, error);
}
RPC_PROC(connect_list_storage_pools, .number = 72, .flags = OBJECT_QUERY, ARGS(a_int), RET(r_names),
         .call = list_active);

static bool list_defined(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return names(c, POOLS_INACTIVE, ((struct a_int *)args)->v, ret, error);
}
RPC_PROC(connect_list_defined_storage_pools, .number = 74, .flags = OBJECT_QUERY, ARGS(a_int),
         RET(r_names), .call = list_defined);

static bool count_active(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return count(c, POOLS_ACTIVE, ret);
}
RPC_PROC(connect_num_of_storage_pools, .number = 71, .flags = OBJECT_QUERY, RET(r_int),
         .call = count_active);

static bool count_defined(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return count(c, POOLS_INACTIVE, ret);
}
RPC_PROC(connect_num_of_defined_storage_pools, .number = 73, .flags = OBJECT_QUERY, RET(r_int),
         .call = count_defined);

static bool capabilities(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return object_flags(((struct a_flags *)args)->flags, 0, "connect_get_storage_pool_capabilities",
                        error) &&
           object_text(ret, pool_capabilities(c->who, error));
}
RPC_PROC(connect_get_storage_pool_capabilities, .number = 403, .flags = RPC_READONLY, ARGS(a_flags),
         RET(r_text), .call = capabilities);

struct find_sources {
    char *type, *spec;
    uint32_t flags;
};
static const struct xdr_row find_sources_xdr[] = {
    XDR_F(STRING, struct find_sources, type), XDR_F(STRING_OPT, struct find_sources, spec),
    XDR_F(UINT, struct find_sources, flags), XDR_DONE};

static bool find_sources(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct find_sources *a = args;
    return object_text(ret, pool_find_sources(c->who, a->type, a->spec, a->flags, error));
}
RPC_PROC(connect_find_storage_pool_sources, .number = 75, ARGS(find_sources), RET(r_text),
         .call = find_sources);

/* ---- life ---- */

static bool define(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_name_flags *a = args;
    return answer(pool_define(c->who, a->name, a->flags, error), ret);
}
RPC_PROC(storage_pool_define_xml, .number = 77, ARGS(a_name_flags), RET(r_named), .call = define);

static bool create_xml(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_name_flags *a = args;
    return answer(pool_create_xml(c->who, a->name, a->flags, error), ret);
}
RPC_PROC(storage_pool_create_xml, .number = 76, ARGS(a_name_flags), RET(r_named),
         .call = create_xml);

POOL_PROC(storage_pool_create, 78, 0, a_named_flags, pool_start(c->who, p, a->flags, error));
POOL_PROC(storage_pool_build, 79, 0, a_named_flags, pool_build(c->who, p, a->flags, error));
POOL_PROC(storage_pool_destroy, 80, 0, a_named, pool_destroy(c->who, p, error));
POOL_PROC(storage_pool_delete, 81, 0, a_named_flags, pool_delete(c->who, p, a->flags, error));
POOL_PROC(storage_pool_undefine, 82, 0, a_named, pool_undefine(c->who, p, error));
POOL_PROC(storage_pool_refresh, 83, 0, a_named_flags, pool_refresh(c->who, p, a->flags, error));
POOL_PROC(storage_pool_get_xml_desc, 88, RPC_READONLY, a_named_flags,
          object_text(ret, pool_xml(c->who, p, a->flags, error)), RET(r_text));
POOL_PROC(storage_pool_get_autostart, 89, OBJECT_QUERY, a_named, object_int(ret, p->autostart),
          RET(r_int));
POOL_PROC(storage_pool_set_autostart, 90, 0, a_named_int,
          pool_set_autostart(c->who, p, a->v != 0, error));
POOL_PROC(storage_pool_is_active, 154, OBJECT_QUERY, a_named,
          object_int(ret, pool_runs(p)), RET(r_int));
POOL_PROC(storage_pool_is_persistent, 155, OBJECT_QUERY, a_named, object_int(ret, p->persistent),
          RET(r_int));

struct pool_info {
    uint32_t state;
    uint64_t capacity, allocation, available;
};
static const struct xdr_row pool_info_xdr[] = {
    XDR_F(UINT, struct pool_info, state), XDR_F(UHYPER, struct pool_info, capacity),
    XDR_F(UHYPER, struct pool_info, allocation), XDR_F(UHYPER, struct pool_info, available),
    XDR_DONE};

static bool info(const struct pool *p, struct pool_info *ret)
{
    *ret = (struct pool_info){p->state, p->capacity, p->allocation, p->available};
    return true;
}
POOL_PROC(storage_pool_get_info, 87, OBJECT_QUERY, a_named, info(p, ret), RET(pool_info));
