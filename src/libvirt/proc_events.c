/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Registration for events. Thread: the loop thread. */
#include "libvirt/events.h"
#include "libvirt/object.h"

/* ---- the old way: no ids, every domain ---- */

static bool register_lifecycle(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return events_register_old(c->client, DOMAIN_EVENT_LIFECYCLE, error) && object_int(ret, 1);
}
RPC_PROC(connect_domain_event_register, .number = 105, .flags = OBJECT_QUERY, RET(r_int),
         .call = register_lifecycle);

static bool deregister_lifecycle(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return events_deregister_old(c->client, DOMAIN_EVENT_LIFECYCLE, error) && object_int(ret, 0);
}
RPC_PROC(connect_domain_event_deregister, .number = 106, .flags = OBJECT_QUERY, RET(r_int),
         .call = deregister_lifecycle);

static bool register_any(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return events_register_old(c->client, ((struct a_int *)args)->v, error);
}
RPC_PROC(connect_domain_event_register_any, .number = 167, .flags = OBJECT_QUERY, ARGS(a_int),
         .call = register_any);

static bool deregister_any(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return events_deregister_old(c->client, ((struct a_int *)args)->v, error);
}
RPC_PROC(connect_domain_event_deregister_any, .number = 168, .flags = OBJECT_QUERY, ARGS(a_int),
         .call = deregister_any);

/* ---- callbacks ---- */

struct on_domain {
    int32_t event;
    struct wire_domain *dom;
};
static const struct xdr_row on_domain_xdr[] = {XDR_F(INT, struct on_domain, event),
                                               XDR_F(POINTER, struct on_domain, dom,
                                                     .size = sizeof(struct wire_domain),
                                                     .rows = wire_domain_xdr),
                                               XDR_DONE};
struct on_named {
    int32_t event;
    struct wire_named *obj;
};
static const struct xdr_row on_named_xdr[] = {
    XDR_F(INT, struct on_named, event),
    XDR_F(POINTER, struct on_named, obj, .size = sizeof(struct wire_named), .rows = wire_named_xdr),
    XDR_DONE};
struct on_device {
    int32_t event;
    struct wire_device *dev;
};
static const struct xdr_row on_device_xdr[] = {XDR_F(INT, struct on_device, event),
                                               XDR_F(POINTER, struct on_device, dev,
                                                     .size = sizeof(struct wire_device),
                                                     .rows = wire_device_xdr),
                                               XDR_DONE};
struct on_secret {
    int32_t event;
    struct wire_secret *secret;
};
static const struct xdr_row on_secret_xdr[] = {XDR_F(INT, struct on_secret, event),
                                               XDR_F(POINTER, struct on_secret, secret,
                                                     .size = sizeof(struct wire_secret),
                                                     .rows = wire_secret_xdr),
                                               XDR_DONE};

#define CLASS_PROCS(ident, class, shape, register_number, deregister_number, uuid, name)           \
    static bool register_##ident(struct rpc_call *c, void *args, void *ret, GError **error)        \
    {                                                                                              \
        const struct shape *a = args;                                                              \
        int id = events_register(c->client, class, a->event, uuid, name, error);                   \
        return object_int(ret, id) && id >= 0;                                                     \
    }                                                                                              \
    static bool deregister_##ident(struct rpc_call *c, void *args, void *ret, GError **error)      \
    {                                                                                              \
        return events_deregister(c->client, class, ((struct a_int *)args)->v, error);              \
    }                                                                                              \
    RPC_PROC(connect_##ident##_register_any, .number = register_number, .flags = OBJECT_QUERY,     \
             ARGS(shape), RET(r_int), .call = register_##ident);                                   \
    RPC_PROC(connect_##ident##_deregister_any, .number = deregister_number, .flags = OBJECT_QUERY, \
             ARGS(a_int), .call = deregister_##ident)
CLASS_PROCS(domain_event_callback, EVENT_DOMAIN, on_domain, 316, 317, a->dom ? a->dom->uuid : NULL,
            NULL);
CLASS_PROCS(network_event, EVENT_NETWORK, on_named, 313, 314, a->obj ? a->obj->uuid : NULL, NULL);
CLASS_PROCS(storage_pool_event, EVENT_POOL, on_named, 368, 369, a->obj ? a->obj->uuid : NULL, NULL);
CLASS_PROCS(node_device_event, EVENT_NODE_DEVICE, on_device, 374, 375, NULL,
            a->dev ? a->dev->name : NULL);
CLASS_PROCS(secret_event, EVENT_SECRET, on_secret, 380, 381, a->secret ? a->secret->uuid : NULL,
            NULL);

/* ---- what monitors tell: the qemu program ---- */

struct on_monitor {
    struct wire_domain *dom;
    char *event;
    uint32_t flags;
};
static const struct xdr_row on_monitor_xdr[] = {XDR_F(POINTER, struct on_monitor, dom,
                                                      .size = sizeof(struct wire_domain),
                                                      .rows = wire_domain_xdr),
                                                XDR_F(STRING_OPT, struct on_monitor, event),
                                                XDR_F(UINT, struct on_monitor, flags), XDR_DONE};

static bool register_monitor(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct on_monitor *a = args;
    if (!object_flags(a->flags, EVENT_PATTERN | EVENT_ANY_CASE, "monitor_event_register", error))
        return false;
    int id = events_register_monitor(c->client, a->dom ? a->dom->uuid : NULL, a->event, a->flags,
                                     error);
    return object_int(ret, id) && id >= 0;
}
RPC_PROC(qemu_connect_domain_monitor_event_register, .program = PROGRAM_QEMU, .number = 4,
         .flags = RPC_FAST, ARGS(on_monitor), RET(r_int), .call = register_monitor);

static bool deregister_monitor(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return events_deregister(c->client, EVENT_MONITOR, ((struct a_int *)args)->v, error);
}
RPC_PROC(qemu_connect_domain_monitor_event_deregister, .program = PROGRAM_QEMU, .number = 5,
         .flags = RPC_FAST, ARGS(a_int), .call = deregister_monitor);
