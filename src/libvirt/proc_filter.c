/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Filters and their bindings. Thread: the loop thread. */
#include "libvirt/object.h"
#include "manager/filter/filter.h"

static void auto_filter_unref(struct filter **f)
{
    filter_unref(*f);
}
#define auto_filter __attribute__((cleanup(auto_filter_unref))) struct filter
static void auto_binding_unref(struct filter_binding **b)
{
    filter_binding_unref(*b);
}
#define auto_binding __attribute__((cleanup(auto_binding_unref))) struct filter_binding

static void fill(const struct filter *f, struct wire_named *ret)
{
    ret->name = g_strdup(f->name);
    memcpy(ret->uuid, f->uuid, sizeof(ret->uuid));
}

/* Takes the reference. */
static bool answer(struct filter *f, void *ret)
{
    if (f)
        fill(f, &((struct r_named *)ret)->obj);
    filter_unref(f);
    return f != NULL;
}

/* ---- finding and listing ---- */

static bool by_name(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return answer(filter_find_name(((struct a_name *)args)->name, error), ret);
}
RPC_PROC(nwfilter_lookup_by_name, .number = 175, .flags = OBJECT_QUERY, ARGS(a_name), RET(r_named),
         .call = by_name);

static bool by_uuid(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return answer(filter_find_uuid(((struct a_uuid *)args)->uuid, error), ret);
}
RPC_PROC(nwfilter_lookup_by_uuid, .number = 176, .flags = OBJECT_QUERY, ARGS(a_uuid), RET(r_named),
         .call = by_uuid);

struct filters {
    struct xdr_array filters;
    uint32_t count;
};
static const struct xdr_row filters_xdr[] = {
    XDR_LIST(struct filters, filters, wire_named, LIMIT_FILTERS),
    XDR_F(UINT, struct filters, count), XDR_DONE};

static bool list_all(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_all *a = args;
    struct filters *r = ret;
    if (!object_flags(a->flags, 0, "connect_list_all_nwfilters", error))
        return false;
    g_autoptr(GPtrArray) list = filter_list(c->who);
    r->count = list->len;
    if (!a->need_results)
        return true;
    struct wire_named *w = g_new0(struct wire_named, list->len + 1);
    for (unsigned i = 0; i < list->len; i++)
        fill(list->pdata[i], &w[i]);
    r->filters = (struct xdr_array){list->len, w};
    return true;
}
RPC_PROC(connect_list_all_nwfilters, .number = 286, .flags = OBJECT_QUERY, ARGS(a_all),
         RET(filters), .call = list_all);

static bool list_names(struct rpc_call *c, void *args, void *ret, GError **error)
{
    int32_t room = ((struct a_int *)args)->v;
    struct r_names *r = ret;
    if (!object_room(room, LIMIT_FILTERS, "list of filters", error))
        return false;
    g_autoptr(GPtrArray) list = filter_list(c->who);
    struct wire_string *s = g_new0(struct wire_string, list->len + 1);
    for (; r->names.count < MIN(list->len, (guint)room); r->names.count++)
        s[r->names.count].s = g_strdup(((struct filter *)list->pdata[r->names.count])->name);
    r->names.items = s;
    return true;
}
RPC_PROC(connect_list_nwfilters, .number = 179, .flags = OBJECT_QUERY, ARGS(a_int), RET(r_names),
         .call = list_names);

static bool count(struct rpc_call *c, void *args, void *ret, GError **error)
{
    g_autoptr(GPtrArray) list = filter_list(c->who);
    return object_int(ret, (int32_t)list->len);
}
RPC_PROC(connect_num_of_nwfilters, .number = 178, .flags = OBJECT_QUERY, RET(r_int), .call = count);

/* ---- one of them ---- */

static bool define(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return answer(filter_define(c->who, ((struct a_name *)args)->name, 0, error), ret);
}
RPC_PROC(nwfilter_define_xml, .number = 180, ARGS(a_name), RET(r_named), .call = define);

static bool define_flags(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_name_flags *a = args;
    return answer(filter_define(c->who, a->name, a->flags, error), ret);
}
RPC_PROC(nwfilter_define_xml_flags, .number = 431, ARGS(a_name_flags), RET(r_named),
         .call = define_flags);

static bool undefine(struct rpc_call *c, void *args, void *ret, GError **error)
{
    auto_filter *f = filter_find_uuid(((struct a_named *)args)->obj.uuid, error);
    return f && filter_undefine(c->who, f, error);
}
RPC_PROC(nwfilter_undefine, .number = 181, ARGS(a_named), .call = undefine);

static bool describe(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_named_flags *a = args;
    auto_filter *f = filter_find_uuid(a->obj.uuid, error);
    return f && object_text(ret, filter_xml(c->who, f, a->flags, error));
}
RPC_PROC(nwfilter_get_xml_desc, .number = 177, .flags = OBJECT_QUERY, ARGS(a_named_flags),
         RET(r_text), .call = describe);

/* ---- bindings ---- */

struct wire_binding {
    char *portdev, *filter;
};
static const struct xdr_row wire_binding_xdr[] = {XDR_F(STRING, struct wire_binding, portdev),
                                                  XDR_F(STRING, struct wire_binding, filter),
                                                  XDR_DONE};
struct r_binding {
    struct wire_binding obj;
};
static const struct xdr_row r_binding_xdr[] = {XDR_SUB(struct r_binding, obj, wire_binding_xdr),
                                               XDR_DONE};
struct a_binding {
    struct wire_binding obj;
};
static const struct xdr_row a_binding_xdr[] = {XDR_SUB(struct a_binding, obj, wire_binding_xdr),
                                               XDR_DONE};
struct a_binding_flags {
    struct wire_binding obj;
    uint32_t flags;
};
static const struct xdr_row a_binding_flags_xdr[] = {
    XDR_SUB(struct a_binding_flags, obj, wire_binding_xdr),
    XDR_F(UINT, struct a_binding_flags, flags), XDR_DONE};
struct bindings {
    struct xdr_array bindings;
    uint32_t count;
};
static const struct xdr_row bindings_xdr[] = {
    XDR_LIST(struct bindings, bindings, wire_binding, LIMIT_OBJECTS),
    XDR_F(UINT, struct bindings, count), XDR_DONE};

static struct wire_binding wire_of(const struct filter_binding *b)
{
    return (struct wire_binding){g_strdup(b->ifname), g_strdup(b->filter)};
}

static bool find_binding(struct rpc_call *c, void *args, void *ret, GError **error)
{
    auto_binding *b = filter_binding_find(((struct a_name *)args)->name, error);
    if (b)
        ((struct r_binding *)ret)->obj = wire_of(b);
    return b != NULL;
}
RPC_PROC(nwfilter_binding_lookup_by_port_dev, .number = 397, .flags = OBJECT_QUERY, ARGS(a_name),
         RET(r_binding), .call = find_binding);

static bool describe_binding(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_binding_flags *a = args;
    auto_binding *b = filter_binding_find(a->obj.portdev, error);
    return b && object_text(ret, filter_binding_xml(c->who, b, a->flags, error));
}
RPC_PROC(nwfilter_binding_get_xml_desc, .number = 398, .flags = OBJECT_QUERY, ARGS(a_binding_flags),
         RET(r_text), .call = describe_binding);

static bool create_binding(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_name_flags *a = args;
    auto_binding *b = filter_binding_create(c->who, a->name, a->flags, error);
    if (b)
        ((struct r_binding *)ret)->obj = wire_of(b);
    return b != NULL;
}
RPC_PROC(nwfilter_binding_create_xml, .number = 399, ARGS(a_name_flags), RET(r_binding),
         .call = create_binding);

static bool delete_binding(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return filter_binding_delete(c->who, ((struct a_binding *)args)->obj.portdev, error);
}
RPC_PROC(nwfilter_binding_delete, .number = 400, ARGS(a_binding), .call = delete_binding);

static bool list_bindings(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_all *a = args;
    struct bindings *r = ret;
    if (!object_flags(a->flags, 0, "connect_list_all_nwfilter_bindings", error))
        return false;
    g_autoptr(GPtrArray) list = filter_binding_list(c->who);
    r->count = MIN(list->len, LIMIT_OBJECTS);
    if (!a->need_results)
        return true;
    struct wire_binding *w = g_new0(struct wire_binding, list->len + 1);
    for (unsigned i = 0; i < r->count; i++)
        w[i] = wire_of(list->pdata[i]);
    r->bindings = (struct xdr_array){r->count, w};
    return true;
}
RPC_PROC(connect_list_all_nwfilter_bindings, .number = 401, .flags = OBJECT_QUERY, ARGS(a_all),
         RET(bindings), .call = list_bindings);
