/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pools and volumes as the protocol names them. Thread: the loop thread. */
#pragma once

#include "libvirt/object.h"
#include "manager/storage/pool.h"

enum { POOLS_INACTIVE = 1, POOLS_ACTIVE = 2 }; /* of virConnectListAllStoragePoolsFlags */

static inline void pool_auto_unref(struct pool **p)
{
    pool_unref(*p);
}
#define auto_pool __attribute__((cleanup(pool_auto_unref))) struct pool

static inline struct pool *storage_pool(const struct wire_named *w, GError **error)
{
    return pool_find_uuid(w->uuid, error);
}

static inline void storage_fill_pool(const struct pool *p, struct wire_named *ret)
{
    ret->name = g_strdup(p->name);
    memcpy(ret->uuid, p->uuid, sizeof(ret->uuid));
}

/* A volume's key is its path, unless its type has one that stays when the path changes. */
static inline void storage_fill_volume(const struct pool *p, const struct volume *v,
                                       struct wire_volume *ret)
{
    *ret = (struct wire_volume){g_strdup(p->name), g_strdup(v->name),
                                g_strdup(v->key ? v->key : v->path)};
}

/* A procedure that is one operation on one pool: `expression` sees c, a (the arguments), p, ret and
 * error. */
#define POOL_PROC(ident, number_, flags_, shape, expression, ...)                                  \
    static bool do_##ident(struct rpc_call *c, void *args, void *ret, GError **error)              \
    {                                                                                              \
        struct shape *a = args;                                                                    \
        auto_pool *p = storage_pool(&a->obj, error);                                               \
        return p && (expression);                                                                  \
    }                                                                                              \
    RPC_PROC(ident, .number = number_, .flags = flags_, ARGS(shape), .call = do_##ident,           \
             ##__VA_ARGS__)

/* The same for a volume: p is its pool; that it is there, the operation says. */
#define VOLUME_PROC(ident, number_, flags_, shape, expression, ...)                                \
    static bool do_##ident(struct rpc_call *c, void *args, void *ret, GError **error)              \
    {                                                                                              \
        struct shape *a = args;                                                                    \
        auto_pool *p = pool_find_name(a->vol.pool, error);                                         \
        return p && (expression);                                                                  \
    }                                                                                              \
    RPC_PROC(ident, .number = number_, .flags = flags_, ARGS(shape), .call = do_##ident,           \
             ##__VA_ARGS__)
