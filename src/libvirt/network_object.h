/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Networks as the protocol names them. Thread: the loop thread. */
#pragma once

#include "libvirt/object.h"
#include "manager/network/network.h"
#include "manager/uuid.h"

static inline void network_auto_unref(struct network **n)
{
    network_unref(*n);
}
#define auto_network __attribute__((cleanup(network_auto_unref))) struct network

static inline struct network *network_of(const struct wire_named *w, GError **error)
{
    return network_find_uuid(w->uuid, error);
}

static inline void network_fill(const struct network *n, struct wire_named *ret)
{
    ret->name = g_strdup(n->name);
    memcpy(ret->uuid, n->uuid, sizeof(ret->uuid));
}

/* A procedure that is one operation on one network: `expression` sees c, a (the arguments), n, ret
 * and error. */
#define NETWORK_PROC(ident, number_, flags_, shape, expression, ...)                               \
    static bool do_##ident(struct rpc_call *c, void *args, void *ret, GError **error)              \
    {                                                                                              \
        struct shape *a = args;                                                                    \
        auto_network *n = network_of(&a->obj, error);                                              \
        return n && (expression);                                                                  \
    }                                                                                              \
    RPC_PROC(ident, .number = number_, .flags = flags_, ARGS(shape), .call = do_##ident,           \
             ##__VA_ARGS__)
