/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domains: finding, listing, and the life cycle. Thread: the loop thread. */
#include "libvirt/object.h"

enum { LIST_ACTIVE = 1, LIST_INACTIVE = 2 };

/* Answers with the domain; takes the reference. */
static bool answer(struct domain *d, void *ret)
{
    if (d)
        object_fill_domain(d, &((struct r_domain *)ret)->dom);
    domain_unref(d);
    return d != NULL;
}

/* ---- finding ---- */

static bool by_id(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return answer(domain_find_id(((struct a_int *)args)->v, error), ret);
}
RPC_PROC(domain_lookup_by_id, .number = 22, .flags = OBJECT_QUERY, ARGS(a_int), RET(r_domain),
         .call = by_id);

static bool by_name(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return answer(domain_find_name(((struct a_name *)args)->name, error), ret);
}
RPC_PROC(domain_lookup_by_name, .number = 23, .flags = OBJECT_QUERY, ARGS(a_name), RET(r_domain),
         .call = by_name);

static bool by_uuid(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return answer(domain_find_uuid(((struct a_uuid *)args)->uuid, error), ret);
}
RPC_PROC(domain_lookup_by_uuid, .number = 24, .flags = OBJECT_QUERY, ARGS(a_uuid), RET(r_domain),
         .call = by_uuid);

/* ---- lists ---- */

struct domains {
    struct xdr_array domains;
    uint32_t count;
};
static const struct xdr_row domains_xdr[] = {
    XDR_LIST(struct domains, domains, wire_domain, LIMIT_OBJECTS),
    XDR_F(UINT, struct domains, count), XDR_DONE};

static bool list_all(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_all *a = args;
    struct domains *r = ret;
    g_autoptr(GPtrArray) list = domain_list(c->who, a->flags);
    r->count = list->len;
    if (!a->need_results)
        return true;
    r->domains.items = g_new0(struct wire_domain, MAX(list->len, 1));
    for (; r->domains.count < list->len; r->domains.count++)
        object_fill_domain(list->pdata[r->domains.count],
                           (struct wire_domain *)r->domains.items + r->domains.count);
    return true;
}
RPC_PROC(connect_list_all_domains, .number = 273, .flags = OBJECT_QUERY, ARGS(a_all), RET(domains),
         .call = list_all);

static bool count_active(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return object_int(ret, (int32_t)domain_count(true));
}
RPC_PROC(connect_num_of_domains, .number = 51, .flags = OBJECT_QUERY, RET(r_int),
         .call = count_active);

static bool count_defined(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return object_int(ret, (int32_t)domain_count(false));
}
RPC_PROC(connect_num_of_defined_domains, .number = 25, .flags = OBJECT_QUERY, RET(r_int),
         .call = count_defined);

struct ids {
    struct xdr_array ids;
};
static const struct xdr_row ids_xdr[] = {XDR_LIST(struct ids, ids, wire_u32, LIMIT_OBJECTS),
                                         XDR_DONE};

static bool list_ids(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const int32_t room = ((struct a_int *)args)->v;
    struct xdr_array *r = &((struct ids *)ret)->ids;
    if (!object_room(room, LIMIT_OBJECTS, "connect_list_domains", error))
        return false;
    g_autoptr(GPtrArray) list = domain_list(c->who, LIST_ACTIVE);
    struct wire_u32 *ids = g_new0(struct wire_u32, list->len + 1);
    for (; r->count < MIN(list->len, (guint)room); r->count++)
        ids[r->count].v = (uint32_t)((struct domain *)list->pdata[r->count])->id;
    r->items = ids;
    return true;
}
RPC_PROC(connect_list_domains, .number = 37, .flags = OBJECT_QUERY, ARGS(a_int), RET(ids),
         .call = list_ids);

static bool list_defined(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const int32_t room = ((struct a_int *)args)->v;
    struct xdr_array *r = &((struct r_names *)ret)->names;
    if (!object_room(room, LIMIT_OBJECTS, "connect_list_defined_domains", error))
        return false;
    g_autoptr(GPtrArray) list = domain_list(c->who, LIST_INACTIVE);
    struct wire_string *names = g_new0(struct wire_string, list->len + 1);
    for (; r->count < MIN(list->len, (guint)room); r->count++)
        names[r->count].s = g_strdup(domain_summary(list->pdata[r->count])->name);
    r->items = names;
    return true;
}
RPC_PROC(connect_list_defined_domains, .number = 21, .flags = OBJECT_QUERY, ARGS(a_int),
         RET(r_names), .call = list_defined);

/* ---- making ---- */

static bool define(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return answer(domain_define(c->who, ((struct a_name *)args)->name, 0, error), ret);
}
RPC_PROC(domain_define_xml, .number = 11, ARGS(a_name), RET(r_domain), .call = define);

static bool define_flags(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_name_flags *a = args;
    return answer(domain_define(c->who, a->name, a->flags, error), ret);
}
RPC_PROC(domain_define_xml_flags, .number = 350, ARGS(a_name_flags), RET(r_domain),
         .call = define_flags);

static bool create(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_name_flags *a = args;
    return answer(domain_create_xml(c->who, a->name, a->flags, error), ret);
}
RPC_PROC(domain_create_xml, .number = 10, ARGS(a_name_flags), RET(r_domain), .call = create);

DOMAIN_PROC(domain_undefine, 35, 0, a_domain, domain_undefine(c->who, d, 0, error));
DOMAIN_PROC(domain_undefine_flags, 231, 0, a_domain_flags,
            domain_undefine(c->who, d, a->flags, error));

static bool rename_domain(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_domain_word_flags *a = args;
    auto_domain *d = object_domain(&a->dom, error);
    if (!d || !object_flags(a->flags, 0, "domain_rename", error))
        return false;
    if (!a->text)
        return ruche_error(error, RUCHE_ERR_INVALID, "domain '%s': a new name is missing",
                           domain_summary(d)->name);
    return domain_rename(c->who, d, a->text, error) && object_int(ret, 0);
}
RPC_PROC(domain_rename, .number = 358, ARGS(a_domain_word_flags), RET(r_int),
         .call = rename_domain);

/* ---- life ---- */

DOMAIN_PROC(domain_create, 9, 0, a_domain, domain_start(c->who, d, 0, error));

static bool start(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_domain_flags *a = args;
    auto_domain *d = object_domain(&a->dom, error);
    if (!d || !domain_start(c->who, d, a->flags, error))
        return false;
    object_fill_domain(d, &((struct r_domain *)ret)->dom);
    return true;
}
RPC_PROC(domain_create_with_flags, .number = 196, ARGS(a_domain_flags), RET(r_domain),
         .call = start);

DOMAIN_PROC(domain_suspend, 34, 0, a_domain, domain_suspend(c->who, d, error));
DOMAIN_PROC(domain_resume, 28, 0, a_domain, domain_resume(c->who, d, error));
DOMAIN_PROC(domain_shutdown, 33, 0, a_domain, domain_shutdown(c->who, d, 0, error));
DOMAIN_PROC(domain_shutdown_flags, 258, 0, a_domain_flags,
            domain_shutdown(c->who, d, a->flags, error));
DOMAIN_PROC(domain_reboot, 27, 0, a_domain_flags, domain_reboot(c->who, d, a->flags, error));
DOMAIN_PROC(domain_reset, 245, 0, a_domain_flags,
            object_flags(a->flags, 0, "domain_reset", error) && domain_reset(c->who, d, error));
DOMAIN_PROC(domain_destroy, 12, 0, a_domain, domain_destroy(c->who, d, 0, error));
DOMAIN_PROC(domain_destroy_flags, 234, 0, a_domain_flags,
            domain_destroy(c->who, d, a->flags, error));
DOMAIN_PROC(domain_inject_nmi, 210, 0, a_domain_flags,
            object_flags(a->flags, 0, "domain_inject_nmi", error) &&
                domain_inject_nmi(c->who, d, error));

struct lifecycle_action {
    struct wire_domain dom;
    uint32_t type, action, flags;
};
static const struct xdr_row lifecycle_action_xdr[] = {
    XDR_SUB(struct lifecycle_action, dom, wire_domain_xdr),
    XDR_F(UINT, struct lifecycle_action, type), XDR_F(UINT, struct lifecycle_action, action),
    XDR_F(UINT, struct lifecycle_action, flags), XDR_DONE};
DOMAIN_PROC(domain_set_lifecycle_action, 390, 0, lifecycle_action,
            object_flags(a->flags, 3, "domain_set_lifecycle_action", error) &&
                domain_set_lifecycle_action(c->who, d, a->type, a->action, a->flags, error));

DOMAIN_PROC(domain_get_autostart, 15, OBJECT_QUERY, a_domain, object_int(ret, d->autostart),
            RET(r_int));
DOMAIN_PROC(domain_set_autostart, 29, 0, a_domain_int,
            domain_set_autostart(c->who, d, a->v != 0, error));
DOMAIN_PROC(domain_is_active, 150, OBJECT_QUERY, a_domain, object_int(ret, domain_is_active(d)),
            RET(r_int));
DOMAIN_PROC(domain_is_persistent, 151, OBJECT_QUERY, a_domain, object_int(ret, d->persistent),
            RET(r_int));
DOMAIN_PROC(domain_is_updated, 202, OBJECT_QUERY, a_domain, object_int(ret, 0), RET(r_int));

struct state {
    int32_t state, reason;
};
static const struct xdr_row state_xdr[] = {XDR_F(INT, struct state, state),
                                           XDR_F(INT, struct state, reason), XDR_DONE};

static bool get_state(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_domain_flags *a = args;
    auto_domain *d = object_domain(&a->dom, error);
    if (!d || !object_flags(a->flags, 0, "domain_get_state", error))
        return false;
    *(struct state *)ret = (struct state){d->state, d->reason};
    return true;
}
RPC_PROC(domain_get_state, .number = 212, .flags = OBJECT_QUERY, ARGS(a_domain_flags), RET(state),
         .call = get_state);
