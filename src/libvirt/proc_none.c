/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Kinds of objects of which there are none yet: host interfaces, filters. Lists are empty, and each
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
LIST_ALL(connect_list_all_nwfilters, 286);
LIST_ALL(connect_list_all_nwfilter_bindings, 401);
COUNT(connect_num_of_interfaces, 126);
COUNT(connect_num_of_defined_interfaces, 137);
COUNT(connect_num_of_nwfilters, 178);
NAMES(connect_list_interfaces, 127);
NAMES(connect_list_defined_interfaces, 138);
NAMES(connect_list_nwfilters, 179);

/* ---- not found: of the arguments only what names the object is read ---- */

static bool no_name(int code, const char *kind, const char *name, GError **error)
{
    return ruche_error(error, code, "no %s with matching name '%s'", kind, name);
}

static bool no_uuid(int code, const char *kind, const uint8_t *u, GError **error)
{
    return ruche_error(error, code,
                       "no %s with matching uuid "
                       "'%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x'",
                       kind, u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10],
                       u[11], u[12], u[13], u[14], u[15]);
}

#define NONE(ident, shape, expression)                                                             \
    static bool ident(struct rpc_call *c, void *args, void *ret, GError **error)                   \
    {                                                                                              \
        const struct shape *a = args;                                                              \
        return expression;                                                                         \
    }
NONE(interface_name, a_name, no_name(MANAGER_ERR_NO_INTERFACE, "interface", a->name, error))
NONE(filter_name, a_name, no_name(MANAGER_ERR_NO_FILTER, "network filter", a->name, error))
NONE(filter_uuid, a_uuid, no_uuid(MANAGER_ERR_NO_FILTER, "network filter", a->uuid, error))
NONE(filter, a_named, no_name(MANAGER_ERR_NO_FILTER, "network filter", a->obj.name, error))

#define MISSING(ident, number_, shape, call_)                                                      \
    RPC_PROC(ident, .number = number_, .flags = OBJECT_QUERY, ARGS(shape), .call = call_)
MISSING(interface_lookup_by_name, 128, a_name, interface_name);
MISSING(interface_lookup_by_mac_string, 129, a_name, interface_name);
MISSING(interface_get_xml_desc, 130, a_name, interface_name);
MISSING(interface_undefine, 132, a_name, interface_name);
MISSING(interface_create, 133, a_name, interface_name);
MISSING(interface_destroy, 134, a_name, interface_name);
MISSING(interface_is_active, 156, a_name, interface_name);
MISSING(nwfilter_lookup_by_name, 175, a_name, filter_name);
MISSING(nwfilter_lookup_by_uuid, 176, a_uuid, filter_uuid);
MISSING(nwfilter_get_xml_desc, 177, a_named, filter);
MISSING(nwfilter_undefine, 181, a_named, filter);
