/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Kinds of objects of which there are none yet: host interfaces. Lists are empty, and each
 * name is one that is not found. Thread: the loop thread. */
#include "libvirt/object.h"

/* An empty list of whatever, and how many there would be. */
struct nothing {
    uint32_t list, count;
};
static const struct xdr_row nothing_xdr[] = {XDR_F(UINT, struct nothing, list),
                                             XDR_F(UINT, struct nothing, count), XDR_DONE};

static bool empty(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return true; /* results begin as zeroes */
}

#define LIST_ALL(ident, number_)                                                                   \
    RPC_PROC(ident, .number = number_, .flags = OBJECT_QUERY, ARGS(a_all), RET(nothing),           \
             .call = empty)
#define COUNT(ident, number_)                                                                      \
    RPC_PROC(ident, .number = number_, .flags = OBJECT_QUERY, RET(r_int), .call = empty)
#define NAMES(ident, number_)                                                                      \
    RPC_PROC(ident, .number = number_, .flags = OBJECT_QUERY, ARGS(a_int), RET(r_names),           \
             .call = empty)
LIST_ALL(connect_list_all_interfaces, 284);
COUNT(connect_num_of_interfaces, 126);
COUNT(connect_num_of_defined_interfaces, 137);
NAMES(connect_list_interfaces, 127);
NAMES(connect_list_defined_interfaces, 138);

/* ---- not found: of the arguments only what names the object is read ---- */

static bool no_name(int code, const char *kind, const char *name, GError **error)
{
    return ruche_error(error, code, "no %s with matching name '%s'", kind, name);
}

#define NONE(ident, shape, expression)                                                             \
    static bool ident(struct rpc_call *c, void *args, void *ret, GError **error)                   \
    {                                                                                              \
        const struct shape *a = args;                                                              \
        return expression;                                                                         \
    }
NONE(interface_name, a_name, no_name(MANAGER_ERR_NO_INTERFACE, "interface", a->name, error))

#define MISSING(ident, number_, shape, call_)                                                      \
    RPC_PROC(ident, .number = number_, .flags = OBJECT_QUERY, ARGS(shape), .call = call_)
MISSING(interface_lookup_by_name, 128, a_name, interface_name);
MISSING(interface_lookup_by_mac_string, 129, a_name, interface_name);
MISSING(interface_get_xml_desc, 130, a_name, interface_name);
MISSING(interface_undefine, 132, a_name, interface_name);
MISSING(interface_create, 133, a_name, interface_name);
MISSING(interface_destroy, 134, a_name, interface_name);
MISSING(interface_is_active, 156, a_name, interface_name);
