/* SPDX-License-Identifier: GPL-2.0-or-later */
/* XDR by tables: a row says where a field lies in a struct and what it is on the wire. One engine
 * reads, writes and frees them all, so that a procedure is data.
 *
 * Spec      RFC 4506; of libvirt's protocol: strings are at most REMOTE_STRING_MAX, a pointer is a
 *           bool and what it points to.
 * Trust     Bytes are the peer's: lengths are checked against the rest of the message before
 *           memory is asked for; strings must not hold NUL; at most XDR_MAX_MEMORY bytes come of
 *           one message.
 * Owner     xdr_read() allocates strings, arrays and what pointers point to; xdr_free() takes them
 *           back, also after a failed read.
 */
#pragma once

#include "manager/error.h"

#include <stddef.h>
#include <stdint.h>

#define XDR_MAX_MEMORY (64u << 20)
#define XDR_STRING_MAX (4u << 20) /* REMOTE_STRING_MAX */

enum xdr_kind {
    XDR_END,
    XDR_INT,
    XDR_UINT,
    XDR_BOOL, /* 32 bits: int32_t, uint32_t, bool */
    XDR_HYPER,
    XDR_UHYPER,
    XDR_DOUBLE,
    XDR_STRING,       /* char *; up to .max bytes, 0: XDR_STRING_MAX; NULL is written as "" */
    XDR_STRING_OPT,   /* char *, NULL is possible: a pointer to a string */
    XDR_OPAQUE_FIXED, /* .max bytes in place: uuids */
    XDR_BYTES,        /* struct xdr_bytes; up to .max bytes */
    XDR_STRUCT,       /* in place: .rows */
    XDR_POINTER,      /* to a struct of .rows, .size bytes; NULL is possible */
    XDR_ARRAY,        /* struct xdr_array of .size-byte structs by .rows, up to .max of them */
    XDR_ARRAY_FIXED,  /* .max of them in place */
    XDR_UNION,        /* an int at .offset chooses the arm (rows with .tag) */
    XDR_CHARS,        /* char[.max] in place, each a word of its own on the wire */
};
struct xdr_bytes {
    uint32_t len;
    uint8_t *data;
};
struct xdr_array {
    uint32_t count;
    void *items;
};

struct xdr_row {
    enum xdr_kind kind;
    uint32_t offset, max, size;
    int tag; /* of an arm of a union */
    const struct xdr_row *rows;
};
/* XDR_F(INT, struct x_args, field), ... rows end with XDR_DONE. The rest of a row, if its kind
 * needs it, follows: XDR_F(BYTES, struct x, map, .max = 2048). */
#define XDR_F(kind_, type, field, ...)                                                             \
    {                                                                                              \
        .kind = XDR_##kind_, .offset = offsetof(type, field), __VA_ARGS__                          \
    }
#define XDR_SUB(type, field, rows_) XDR_F(STRUCT, type, field, .rows = rows_)
#define XDR_LIST(type, field, item, max_)                                                          \
    XDR_F(ARRAY, type, field, .max = max_, .size = sizeof(struct item), .rows = item##_xdr)
#define XDR_DONE                                                                                   \
    {                                                                                              \
        .kind = XDR_END                                                                            \
    }

/* 0, -EBADMSG (short, or against a rule), -EMSGSIZE (over .max), -ENOMEM. `obj` is zeroed first.
 * Trailing bytes are left: *ret_used. */
int xdr_read(const struct xdr_row *rows, void *obj, size_t obj_size, const uint8_t *data,
             size_t len, size_t *ret_used);
/* Appends to `out`. -EMSGSIZE: a value of ours is over the protocol's limit. */
int xdr_write(const struct xdr_row *rows, const void *obj, GByteArray *out);
void xdr_free(const struct xdr_row *rows, void *obj);
