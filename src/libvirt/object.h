/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Objects of the core as the protocol names them. Thread: the loop thread. */
#pragma once

#include "libvirt/params.h"
#include "libvirt/rpc.h"
#include "manager/domain/domain.h"

#include <string.h>

static inline void domain_auto_unref(struct domain **d)
{
    domain_unref(*d);
}
#define auto_domain __attribute__((cleanup(domain_auto_unref))) struct domain

/* The domain that a call names: by its UUID. A reference; NULL with *error. */
static inline struct domain *object_domain(const struct wire_domain *w, GError **error)
{
    return domain_find_uuid(w->uuid, error);
}

static inline void object_fill_domain(const struct domain *d, struct wire_domain *ret)
{
    ret->name = g_strdup(d->name);
    memcpy(ret->uuid, d->uuid, sizeof(ret->uuid));
    ret->id = d->id;
}

/* Flags that a call may have; others are an error by number. */
static inline bool object_flags(uint32_t flags, uint32_t known, const char *call, GError **error)
{
    if (!(flags & ~known))
        return true;
    return ruche_error(error, MANAGER_ERR_ARGUMENT, "%s: flags 0x%x are not known", call,
                       flags & ~known);
}

/* How many results a client takes. */
static inline bool object_room(int32_t room, uint32_t limit, const char *call, GError **error)
{
    if (room >= 0 && (uint32_t)room <= limit)
        return true;
    return ruche_error(error, RUCHE_ERR_INVALID, "%s: room for %d is not from 0 to %u", call, room,
                       limit);
}

/* A procedure that is one operation on one domain: `expression` sees c, a (the arguments), d, ret
 * and error. */
#define DOMAIN_PROC(ident, number_, flags_, shape, expression, ...)                                \
    static bool do_##ident(struct rpc_call *c, void *args, void *ret, GError **error)              \
    {                                                                                              \
        struct shape *a = args;                                                                    \
        auto_domain *d = object_domain(&a->dom, error);                                            \
        return d && (expression);                                                                  \
    }                                                                                              \
    RPC_PROC(ident, .number = number_, .flags = flags_, ARGS(shape), .call = do_##ident,           \
             ##__VA_ARGS__)

#define OBJECT_QUERY (RPC_FAST | RPC_READONLY)

/* A text with its end, as an array of char. */
static inline struct xdr_array object_chars(const char *text)
{
    return wire_chars(text, strlen(text) + 1);
}

/* Results of one value; true. */
static inline bool object_int(void *ret, int32_t v)
{
    ((struct r_int *)ret)->v = v;
    return true;
}

static inline bool object_u64(void *ret, uint64_t v)
{
    ((struct r_u64 *)ret)->v = v;
    return true;
}

/* Takes the text; NULL is a failure that has been told. */
static inline bool object_text(void *ret, char *text)
{
    ((struct r_text *)ret)->text = text;
    return text != NULL;
}
