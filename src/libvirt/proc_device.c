/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host's devices. Thread: the loop thread. */
#include "libvirt/object.h"
#include "manager/node/device.h"

static void device_auto_free(struct node_device **d)
{
    node_device_free(*d);
}
#define auto_device __attribute__((cleanup(device_auto_free))) struct node_device

struct r_device {
    struct wire_device dev;
};
static const struct xdr_row r_device_xdr[] = {XDR_SUB(struct r_device, dev, wire_device_xdr),
                                              XDR_DONE};
struct r_devices {
    struct xdr_array devices;
    uint32_t count;
};
static const struct xdr_row r_devices_xdr[] = {
    XDR_LIST(struct r_devices, devices, wire_device, LIMIT_OBJECTS),
    XDR_F(UINT, struct r_devices, count), XDR_DONE};

/* ---- listing ---- */

static bool list_all(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_all *a = args;
    struct r_devices *r = ret;
    g_autoptr(GPtrArray) list = node_devices(c->who, a->flags);
    r->count = MIN(list->len, LIMIT_OBJECTS);
    if (!a->need_results)
        return true;
    struct wire_device *w = g_new0(struct wire_device, r->count + 1);
    for (unsigned i = 0; i < r->count; i++)
        w[i].name = g_strdup(((struct node_device *)list->pdata[i])->name);
    r->devices = (struct xdr_array){r->count, w};
    return true;
}
RPC_PROC(connect_list_all_node_devices, .number = 285, .flags = OBJECT_QUERY, ARGS(a_all),
         RET(r_devices), .call = list_all);

struct a_cap {
    char *cap;
    uint32_t flags;
};
static const struct xdr_row a_cap_xdr[] = {XDR_F(STRING_OPT, struct a_cap, cap),
                                           XDR_F(UINT, struct a_cap, flags), XDR_DONE};

static bool count(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_cap *a = args;
    if (!object_flags(a->flags, 0, "node_num_of_devices", error))
        return false;
    g_autoptr(GPtrArray) list = node_devices_of(c->who, a->cap, error);
    return list && object_int(ret, (int32_t)list->len);
}
RPC_PROC(node_num_of_devices, .number = 111, .flags = OBJECT_QUERY, ARGS(a_cap), RET(r_int),
         .call = count);

struct a_cap_room {
    char *cap;
    int32_t room;
    uint32_t flags;
};
static const struct xdr_row a_cap_room_xdr[] = {XDR_F(STRING_OPT, struct a_cap_room, cap),
                                                XDR_F(INT, struct a_cap_room, room),
                                                XDR_F(UINT, struct a_cap_room, flags), XDR_DONE};

static bool names(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_cap_room *a = args;
    struct r_names *r = ret;
    if (!object_flags(a->flags, 0, "node_list_devices", error) ||
        !object_room(a->room, LIMIT_OBJECTS, "list of node devices", error))
        return false;
    g_autoptr(GPtrArray) list = node_devices_of(c->who, a->cap, error);
    if (!list)
        return false;
    uint32_t n = MIN(list->len, (uint32_t)a->room);
    struct wire_string *w = g_new0(struct wire_string, n + 1);
    for (unsigned i = 0; i < n; i++)
        w[i].s = g_strdup(((struct node_device *)list->pdata[i])->name);
    r->names = (struct xdr_array){n, w};
    return true;
}
RPC_PROC(node_list_devices, .number = 112, .flags = OBJECT_QUERY, ARGS(a_cap_room), RET(r_names),
         .call = names);

/* ---- one device ---- */

static bool answer(struct node_device *d, struct r_device *ret)
{
    ret->dev.name = d ? g_strdup(d->name) : NULL;
    node_device_free(d);
    return ret->dev.name != NULL;
}

static bool by_name(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return answer(node_device_find(c->who, ((struct a_name *)args)->name, error), ret);
}
RPC_PROC(node_device_lookup_by_name, .number = 113, .flags = OBJECT_QUERY, ARGS(a_name),
         RET(r_device), .call = by_name);

struct a_wwn {
    char *wwnn, *wwpn;
    uint32_t flags;
};
static const struct xdr_row a_wwn_xdr[] = {XDR_F(STRING, struct a_wwn, wwnn),
                                           XDR_F(STRING, struct a_wwn, wwpn),
                                           XDR_F(UINT, struct a_wwn, flags), XDR_DONE};

static bool by_wwn(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_wwn *a = args;
    return object_flags(a->flags, 0, "node_device_lookup_scsi_host_by_wwn", error) &&
           answer(node_device_find_wwn(c->who, a->wwnn, a->wwpn, error), ret);
}
RPC_PROC(node_device_lookup_scsi_host_by_wwn, .number = 297, .flags = OBJECT_QUERY, ARGS(a_wwn),
         RET(r_device), .call = by_wwn);

/* `expression` sees c, a (the arguments), d, ret and error. */
#define DEVICE_PROC(ident, number_, shape, expression, ...)                                        \
    static bool do_##ident(struct rpc_call *c, void *args, void *ret, GError **error)              \
    {                                                                                              \
        struct shape *a = args;                                                                    \
        auto_device *d = node_device_find(c->who, a->name, error);                                 \
        return d && (expression);                                                                  \
    }                                                                                              \
    RPC_PROC(ident, .number = number_, .flags = OBJECT_QUERY, ARGS(shape), .call = do_##ident,     \
             ##__VA_ARGS__)

struct r_word {
    char *text;
};
static const struct xdr_row r_word_xdr[] = {XDR_F(STRING_OPT, struct r_word, text), XDR_DONE};

static bool give_parent(const struct node_device *d, struct r_word *ret)
{
    ret->text = g_strdup(d->parent);
    return true;
}

static bool give_caps(const struct node_device *d, int32_t room, struct r_names *ret,
                      GError **error)
{
    if (!object_room(room, LIMIT_OBJECTS, "list of capabilities", error))
        return false;
    struct wire_string *w = g_new0(struct wire_string, DEVICE_CAPS);
    ret->names.items = w;
    for (unsigned i = 0; i < DEVICE_CAPS && ret->names.count < (uint32_t)room; i++)
        if (d->caps >> i & 1)
            w[ret->names.count++].s = g_strdup(node_device_cap_name(i));
    return true;
}

struct a_name_int {
    char *name;
    int32_t v;
};
static const struct xdr_row a_name_int_xdr[] = {XDR_F(STRING, struct a_name_int, name),
                                                XDR_F(INT, struct a_name_int, v), XDR_DONE};
DEVICE_PROC(node_device_get_xml_desc, 114, a_name_flags,
            object_flags(a->flags, 0, "node_device_get_xml_desc", error) &&
                object_text(ret, node_device_xml(d)),
            RET(r_text));
DEVICE_PROC(node_device_get_parent, 115, a_name, give_parent(d, ret), RET(r_word));
DEVICE_PROC(node_device_num_of_caps, 116, a_name, object_int(ret, __builtin_popcount(d->caps)),
            RET(r_int));
DEVICE_PROC(node_device_list_caps, 117, a_name_int, give_caps(d, a->v, ret, error), RET(r_names));
DEVICE_PROC(node_device_get_autostart, 433, a_name, object_int(ret, d->autostart), RET(r_int));
DEVICE_PROC(node_device_is_persistent, 435, a_name, object_int(ret, d->text != NULL), RET(r_int));
DEVICE_PROC(node_device_is_active, 436, a_name, object_int(ret, d->active), RET(r_int));

/* ---- changes; they wait ---- */

/* `expression` sees c, a (the arguments), ret and error. */
#define CHANGE_PROC(ident, number_, shape, expression, ...)                                        \
    static bool do_##ident(struct rpc_call *c, void *args, void *ret, GError **error)              \
    {                                                                                              \
        const struct shape *a = args;                                                              \
        return expression;                                                                         \
    }                                                                                              \
    RPC_PROC(ident, .number = number_, ARGS(shape), .call = do_##ident, ##__VA_ARGS__)

struct a_detach {
    char *name, *driver;
    uint32_t flags;
};
static const struct xdr_row a_detach_xdr[] = {XDR_F(STRING, struct a_detach, name),
                                              XDR_F(STRING_OPT, struct a_detach, driver),
                                              XDR_F(UINT, struct a_detach, flags), XDR_DONE};
/* Of descriptions; what is not known in them is left out. */
enum { VALIDATE = 1 };

CHANGE_PROC(node_device_dettach, 118, a_name, node_device_detach(c->who, a->name, NULL, error));
CHANGE_PROC(node_device_detach_flags, 301, a_detach,
            object_flags(a->flags, 0, "node_device_detach_flags", error) &&
                node_device_detach(c->who, a->name, a->driver, error));
CHANGE_PROC(node_device_re_attach, 119, a_name, node_device_reattach(c->who, a->name, error));
CHANGE_PROC(node_device_reset, 120, a_name, node_device_reset(c->who, a->name, error));
CHANGE_PROC(node_device_create_xml, 123, a_name_flags,
            object_flags(a->flags, VALIDATE, "node_device_create_xml", error) &&
                answer(node_device_create_xml(c->who, a->name, error), ret),
            RET(r_device));
CHANGE_PROC(node_device_destroy, 124, a_name, node_device_destroy(c->who, a->name, error));
CHANGE_PROC(node_device_define_xml, 428, a_name_flags,
            object_flags(a->flags, VALIDATE, "node_device_define_xml", error) &&
                answer(node_device_define(c->who, a->name, error), ret),
            RET(r_device));
CHANGE_PROC(node_device_undefine, 429, a_name_flags,
            object_flags(a->flags, 0, "node_device_undefine", error) &&
                node_device_undefine(c->who, a->name, error));
CHANGE_PROC(node_device_create, 430, a_name_flags,
            object_flags(a->flags, 0, "node_device_create", error) &&
                node_device_start(c->who, a->name, error));
CHANGE_PROC(node_device_set_autostart, 434, a_name_int,
            node_device_set_autostart(c->who, a->name, a->v != 0, error));
