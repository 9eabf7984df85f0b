/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bounded cursor over untrusted bytes. Reading past the end yields zero and sets `bad`, which stays. */
#pragma once

#include "base/util.h"

#include <string.h>

struct cur {
    const uint8_t *p;
    size_t left;
    bool bad;
};

static inline struct cur cur_of(const void *data, size_t len)
{
    return (struct cur){ .p = data, .left = len };
}

/* `len` bytes in place, or NULL (and bad). */
static inline const uint8_t *cur_take(struct cur *c, size_t len)
{
    if (c->bad || len > c->left) {
        c->bad = true;
        return NULL;
    }
    const uint8_t *p = c->p;
    c->p += len;
    c->left -= len;
    return p;
}

static inline void cur_copy(struct cur *c, void *to, size_t len)
{
    const uint8_t *p = cur_take(c, len);
    if (p)
        memcpy(to, p, len);
    else
        memset(to, 0, len);
}

#define CUR_DEFINE(name, type, convert)                                                            \
    static inline type cur_##name(struct cur *c)                                                   \
    {                                                                                              \
        type v;                                                                                    \
        cur_copy(c, &v, sizeof(v));                                                                \
        return convert(v);                                                                         \
    }
CUR_DEFINE(u8, uint8_t, )
CUR_DEFINE(le16, uint16_t, )
CUR_DEFINE(le32, uint32_t, )
CUR_DEFINE(le64, uint64_t, )
CUR_DEFINE(be16, uint16_t, __builtin_bswap16)
CUR_DEFINE(be32, uint32_t, __builtin_bswap32)
CUR_DEFINE(be64, uint64_t, __builtin_bswap64)
#undef CUR_DEFINE
