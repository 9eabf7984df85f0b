/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writing on-disk structures field by field: the counterpart of base/cursor.h. Running over the end
 * is our bug. */
#pragma once

#include "base/util.h"

#include <glib.h>
#include <string.h>

struct put {
    uint8_t *p, *end;
};

static inline struct put put_to(void *buf, size_t len)
{
    return (struct put){buf, (uint8_t *)buf + len};
}

static inline void put_bytes(struct put *w, const void *from, size_t len)
{
    g_assert(len <= (size_t)(w->end - w->p));
    memcpy(w->p, from, len);
    w->p += len;
}

static inline void put_zeroes(struct put *w, size_t len)
{
    g_assert(len <= (size_t)(w->end - w->p));
    memset(w->p, 0, len);
    w->p += len;
}

#define PUT_DEFINE(name, type, convert)                                                            \
    static inline void put_##name(struct put *w, type v)                                           \
    {                                                                                              \
        v = convert(v);                                                                            \
        put_bytes(w, &v, sizeof(v));                                                               \
    }
PUT_DEFINE(u8, uint8_t, )
PUT_DEFINE(le16, uint16_t, )
PUT_DEFINE(le32, uint32_t, )
PUT_DEFINE(le64, uint64_t, )
PUT_DEFINE(be16, uint16_t, __builtin_bswap16)
PUT_DEFINE(be32, uint32_t, __builtin_bswap32)
PUT_DEFINE(be64, uint64_t, __builtin_bswap64)
#undef PUT_DEFINE
