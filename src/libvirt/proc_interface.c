/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Interfaces of the host. Thread: the loop thread. */
#include "libvirt/object.h"
#include "manager/interface/interface.h"

struct r_interface {
    struct wire_interface i;
};
static const struct xdr_row r_interface_xdr[] = {XDR_SUB(struct r_interface, i, wire_interface_xdr),
                                                 XDR_DONE};
struct a_interface {
    struct wire_interface i;
};
static const struct xdr_row a_interface_xdr[] = {XDR_SUB(struct a_interface, i, wire_interface_xdr),
                                                 XDR_DONE};
struct a_interface_flags {
    struct wire_interface i;
    uint32_t flags;
};
static const struct xdr_row a_interface_flags_xdr[] = {
    XDR_SUB(struct a_interface_flags, i, wire_interface_xdr),
    XDR_F(UINT, struct a_interface_flags, flags), XDR_DONE};
struct r_interfaces {
    struct xdr_array interfaces;
    uint32_t count;
};
static const struct xdr_row r_interfaces_xdr[] = {
    XDR_LIST(struct r_interfaces, interfaces, wire_interface, LIMIT_OBJECTS),
    XDR_F(UINT, struct r_interfaces, count), XDR_DONE};

static void fill(const struct interface *i, struct wire_interface *ret)
{
    ret->name = g_strdup(i->name);
    ret->mac = g_strdup(i->mac);
}

/* Takes it. */
static bool answer(struct interface *i, struct r_interface *ret)
{
    if (i)
        fill(i, &ret->i);
    interface_free(i);
    return ret->i.name != NULL;
}

/* ---- finding and listing ---- */

static bool list_all(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_all *a = args;
    struct r_interfaces *r = ret;
    g_autoptr(GPtrArray) list = interface_list(c->who, a->flags);
    r->count = MIN(list->len, LIMIT_OBJECTS);
    if (!a->need_results)
        return true;
    struct wire_interface *w = g_new0(struct wire_interface, r->count + 1);
    for (unsigned i = 0; i < r->count; i++)
        fill(list->pdata[i], &w[i]);
    r->interfaces = (struct xdr_array){r->count, w};
    return true;
}
RPC_PROC(connect_list_all_interfaces, .number = 284, .flags = OBJECT_QUERY, ARGS(a_all),
         RET(r_interfaces), .call = list_all);

/* Procedures that ask for the active or the others: how many, and their names. */
#define LIST_PROCS(which, list_flags, count_ident, count_number, names_ident, names_number)        \
    static bool count_##which(struct rpc_call *c, void *args, void *ret, GError **error)           \
    {                                                                                              \
        g_autoptr(GPtrArray) list = interface_list(c->who, list_flags);                            \
        return object_int(ret, (int32_t)list->len);                                                \
    }                                                                                              \
    RPC_PROC(count_ident, .number = count_number, .flags = OBJECT_QUERY, RET(r_int),               \
             .call = count_##which);                                                               \
    static bool names_##which(struct rpc_call *c, void *args, void *ret, GError **error)           \
    {                                                                                              \
        return names(c, list_flags, ((struct a_int *)args)->v, ret, error);                        \
    }                                                                                              \
    RPC_PROC(names_ident, .number = names_number, .flags = OBJECT_QUERY, ARGS(a_int),              \
             RET(r_names), .call = names_##which)

static bool names(struct rpc_call *c, unsigned list_flags, int32_t room, struct r_names *ret,
                  GError **error)
{
    if (!object_room(room, LIMIT_OBJECTS, "list of interfaces", error))
        return false;
    g_autoptr(GPtrArray) list = interface_list(c->who, list_flags);
    uint32_t n = MIN(list->len, (uint32_t)room);
    struct wire_string *w = g_new0(struct wire_string, n + 1);
    for (unsigned i = 0; i < n; i++)
        w[i].s = g_strdup(((struct interface *)list->pdata[i])->name);
    ret->names = (struct xdr_array){n, w};
    return true;
}
LIST_PROCS(active, INTERFACE_LIST_ACTIVE, connect_num_of_interfaces, 126, connect_list_interfaces,
           127);
LIST_PROCS(inactive, INTERFACE_LIST_INACTIVE, connect_num_of_defined_interfaces, 137,
           connect_list_defined_interfaces, 138);

static bool by_name(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return answer(interface_find(c->who, ((struct a_name *)args)->name, error), ret);
}
RPC_PROC(interface_lookup_by_name, .number = 128, .flags = OBJECT_QUERY, ARGS(a_name),
         RET(r_interface), .call = by_name);

static bool by_mac(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return answer(interface_find_mac(c->who, ((struct a_name *)args)->name, error), ret);
}
RPC_PROC(interface_lookup_by_mac_string, .number = 129, .flags = OBJECT_QUERY, ARGS(a_name),
         RET(r_interface), .call = by_mac);

/* ---- one interface ---- */

/* `expression` sees c, a (the arguments), name, ret and error. */
#define INTERFACE_PROC(ident, number_, flags_, shape, expression, ...)                             \
    static bool do_##ident(struct rpc_call *c, void *args, void *ret, GError **error)              \
    {                                                                                              \
        const struct shape *a = args;                                                              \
        const char *name = a->i.name;                                                              \
        return expression;                                                                         \
    }                                                                                              \
    RPC_PROC(ident, .number = number_, .flags = flags_, ARGS(shape), .call = do_##ident,           \
             ##__VA_ARGS__)

static bool is_active(struct rpc_call *c, const char *name, void *ret, GError **error)
{
    struct interface *i = interface_find(c->who, name, error);
    bool found = i && object_int(ret, i->active);
    interface_free(i);
    return found;
}
INTERFACE_PROC(interface_get_xml_desc, 130, OBJECT_QUERY, a_interface_flags,
               object_text(ret, interface_xml(c->who, name, a->flags, error)), RET(r_text));
INTERFACE_PROC(interface_is_active, 156, OBJECT_QUERY, a_interface, is_active(c, name, ret, error),
               RET(r_int));
INTERFACE_PROC(interface_undefine, 132, 0, a_interface, interface_undefine(c->who, name, error));

static bool define(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_name_flags *a = args;
    return answer(interface_define(c->who, a->name, a->flags, error), ret);
}
RPC_PROC(interface_define_xml, .number = 131, ARGS(a_name_flags), RET(r_interface), .call = define);
INTERFACE_PROC(interface_create, 133, 0, a_interface_flags,
               object_flags(a->flags, 0, "interface_create", error) &&
                   interface_start(c->who, name, error));
INTERFACE_PROC(interface_destroy, 134, 0, a_interface_flags,
               object_flags(a->flags, 0, "interface_destroy", error) &&
                   interface_stop(c->who, name, error));

/* ---- changes that can be taken back ---- */

#define CHANGE_PROC(ident, number_, expression)                                                    \
    static bool do_##ident(struct rpc_call *c, void *args, void *ret, GError **error)              \
    {                                                                                              \
        return object_flags(((struct a_flags *)args)->flags, 0, #ident, error) && (expression);    \
    }                                                                                              \
    RPC_PROC(ident, .number = number_, ARGS(a_flags), .call = do_##ident)
CHANGE_PROC(interface_change_begin, 220, interface_change_begin(c->who, 0, error));
CHANGE_PROC(interface_change_commit, 221, interface_change_commit(c->who, error));
CHANGE_PROC(interface_change_rollback, 222, interface_change_rollback(c->who, error));
