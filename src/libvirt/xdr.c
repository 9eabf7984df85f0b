/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The engine: a function for each kind to read, to write and to free; rows say the rest.
 *
 * Thread    Any. Trust: bytes are the peer's. Recursion is as deep as our own tables are.
 */
#include "libvirt/xdr.h"

#include "base/cursor.h"

#include <errno.h>
#include <string.h>

struct reader {
    struct cur c;
    size_t budget; /* bytes of memory that may still be asked for */
    int result;
};

static inline void *field(const struct xdr_row *r, const void *obj)
{
    return (char *)obj + r->offset;
}

static inline uint32_t limit(const struct xdr_row *r)
{
    return r->max ? r->max : XDR_STRING_MAX;
}

/* ---- reading ---- */

static void read_rows(struct reader *rd, const struct xdr_row *rows, void *obj);

static void *take_memory(struct reader *rd, size_t bytes)
{
    void *p = bytes <= rd->budget ? g_try_malloc0(bytes ? bytes : 1) : NULL;
    if (p)
        rd->budget -= bytes;
    else
        rd->result = -ENOMEM;
    return p;
}

/* A length or count: within the row's limit, and `unit` bytes for each are really there. */
static bool read_count(struct reader *rd, const struct xdr_row *r, size_t unit, uint32_t *ret)
{
    uint32_t n = cur_be32(&rd->c);
    if (!rd->c.bad && n > limit(r))
        rd->result = -EMSGSIZE;
    else if (rd->c.bad || n > rd->c.left / unit)
        rd->result = -EBADMSG;
    *ret = n;
    return !rd->result;
}

/* `len` bytes and the zeroes that fill the last word; what these hold is not looked at. */
static const uint8_t *read_padded(struct reader *rd, uint32_t len)
{
    const uint8_t *p = cur_take(&rd->c, len);
    cur_take(&rd->c, -len & 3);
    return p;
}

static void read_string(struct reader *rd, const struct xdr_row *r, void *obj)
{
    uint32_t len;
    if (!read_count(rd, r, 1, &len))
        return;
    const uint8_t *p = read_padded(rd, len);
    if (rd->c.bad || memchr(p, 0, len)) {
        rd->result = -EBADMSG;
        return;
    }
    char *s = take_memory(rd, (size_t)len + 1);
    if (s)
        memcpy(s, p, len);
    *(char **)field(r, obj) = s;
}

static void read_bytes(struct reader *rd, const struct xdr_row *r, void *obj)
{
    struct xdr_bytes *b = field(r, obj);
    uint32_t len;
    if (!read_count(rd, r, 1, &len) || !len)
        return;
    const uint8_t *p = read_padded(rd, len);
    if (rd->c.bad)
        return;
    b->data = take_memory(rd, len);
    if (!b->data)
        return;
    memcpy(b->data, p, len);
    b->len = len;
}

static void read_pointer(struct reader *rd, const struct xdr_row *r, void *obj)
{
    if (!cur_be32(&rd->c))
        return;
    void *p = take_memory(rd, r->size);
    *(void **)field(r, obj) = p;
    if (p)
        read_rows(rd, r->rows, p);
}

static void read_items(struct reader *rd, const struct xdr_row *r, char *items, uint32_t count)
{
    for (uint32_t i = 0; i < count && !rd->result && !rd->c.bad; i++)
        read_rows(rd, r->rows, items + (size_t)i * r->size);
}

static void read_array(struct reader *rd, const struct xdr_row *r, void *obj)
{
    struct xdr_array *a = field(r, obj);
    uint32_t count;
    if (!read_count(rd, r, 4, &count) || !count)
        return;
    a->items = take_memory(rd, (size_t)count * r->size);
    if (!a->items)
        return;
    a->count = count;
    read_items(rd, r, a->items, count);
}

static void read_union(struct reader *rd, const struct xdr_row *r, void *obj)
{
    int32_t tag = (int32_t)cur_be32(&rd->c);
    for (const struct xdr_row *arm = r->rows; arm->kind != XDR_END; arm++)
        if (arm->tag == tag) {
            *(int32_t *)field(r, obj) = tag;
            const struct xdr_row one[] = {*arm, XDR_DONE};
            read_rows(rd, one, obj);
            return;
        }
    rd->result = -EBADMSG;
}

static void read_row(struct reader *rd, const struct xdr_row *r, void *obj)
{
    void *p = field(r, obj);
    switch (r->kind) {
    case XDR_INT:
    case XDR_UINT:
        *(uint32_t *)p = cur_be32(&rd->c);
        break;
    case XDR_BOOL:
        *(bool *)p = cur_be32(&rd->c) != 0;
        break;
    case XDR_HYPER:
    case XDR_UHYPER:
    case XDR_DOUBLE:
        *(uint64_t *)p = cur_be64(&rd->c);
        break;
    case XDR_STRING_OPT:
        if (cur_be32(&rd->c))
            read_string(rd, r, obj);
        break;
    case XDR_STRING:
        read_string(rd, r, obj);
        break;
    case XDR_OPAQUE_FIXED:
        cur_copy(&rd->c, p, r->max);
        cur_take(&rd->c, -r->max & 3);
        break;
    case XDR_BYTES:
        read_bytes(rd, r, obj);
        break;
    case XDR_STRUCT:
        read_rows(rd, r->rows, p);
        break;
    case XDR_POINTER:
        read_pointer(rd, r, obj);
        break;
    case XDR_ARRAY:
        read_array(rd, r, obj);
        break;
    case XDR_ARRAY_FIXED:
        read_items(rd, r, p, r->max);
        break;
    case XDR_UNION:
        read_union(rd, r, obj);
        break;
    case XDR_CHARS:
        for (uint32_t i = 0; i < r->max; i++)
            ((char *)p)[i] = (char)cur_be32(&rd->c);
        break;
    case XDR_END:
        break;
    }
}

static void read_rows(struct reader *rd, const struct xdr_row *rows, void *obj)
{
    for (const struct xdr_row *r = rows; r->kind != XDR_END && !rd->result; r++) {
        read_row(rd, r, obj);
        if (rd->c.bad && !rd->result)
            rd->result = -EBADMSG;
    }
}

int xdr_read(const struct xdr_row *rows, void *obj, size_t obj_size, const uint8_t *data,
             size_t len, size_t *ret_used)
{
    struct reader rd = {.c = cur_of(data, len), .budget = XDR_MAX_MEMORY};
    memset(obj, 0, obj_size);
    read_rows(&rd, rows, obj);
    if (ret_used && !rd.result)
        *ret_used = len - rd.c.left;
    return rd.result;
}

/* ---- writing ---- */

static uint8_t *append(GByteArray *out, size_t len)
{
    guint at = out->len;
    g_byte_array_set_size(out, at + (guint)len);
    return out->data + at;
}

static void write_u32(GByteArray *out, uint32_t v)
{
    v = GUINT32_TO_BE(v);
    memcpy(append(out, 4), &v, 4);
}

static void write_u64(GByteArray *out, uint64_t v)
{
    v = GUINT64_TO_BE(v);
    memcpy(append(out, 8), &v, 8);
}

static void write_padded(GByteArray *out, const void *data, uint32_t len)
{
    uint32_t pad = -len & 3;
    uint8_t *p = append(out, (size_t)len + pad);
    if (len)
        memcpy(p, data, len);
    memset(p + len, 0, pad);
}

static int write_string(const struct xdr_row *r, const char *s, GByteArray *out)
{
    size_t len = s ? strlen(s) : 0;
    if (len > limit(r))
        return -EMSGSIZE;
    write_u32(out, (uint32_t)len);
    write_padded(out, s, (uint32_t)len);
    return 0;
}

static int write_items(const struct xdr_row *r, const char *items, uint32_t count, GByteArray *out)
{
    int result = 0;
    for (uint32_t i = 0; i < count && !result; i++)
        result = xdr_write(r->rows, items + (size_t)i * r->size, out);
    return result;
}

static int write_array(const struct xdr_row *r, const struct xdr_array *a, GByteArray *out)
{
    if (a->count > limit(r))
        return -EMSGSIZE;
    write_u32(out, a->count);
    return write_items(r, a->items, a->count, out);
}

static int write_bytes(const struct xdr_row *r, const struct xdr_bytes *b, GByteArray *out)
{
    if (b->len > limit(r))
        return -EMSGSIZE;
    write_u32(out, b->len);
    write_padded(out, b->data, b->len);
    return 0;
}

static int write_pointer(const struct xdr_row *r, const void *target, GByteArray *out)
{
    write_u32(out, target != NULL);
    return target ? xdr_write(r->rows, target, out) : 0;
}

static int write_union(const struct xdr_row *r, const void *obj, GByteArray *out)
{
    int32_t tag = *(const int32_t *)field(r, obj);
    for (const struct xdr_row *arm = r->rows; arm->kind != XDR_END; arm++)
        if (arm->tag == tag) {
            const struct xdr_row one[] = {*arm, XDR_DONE};
            write_u32(out, (uint32_t)tag);
            return xdr_write(one, obj, out);
        }
    return -EMSGSIZE;
}

static int write_row(const struct xdr_row *r, const void *obj, GByteArray *out)
{
    const void *p = field(r, obj);
    switch (r->kind) {
    case XDR_INT:
    case XDR_UINT:
        write_u32(out, *(const uint32_t *)p);
        return 0;
    case XDR_BOOL:
        write_u32(out, *(const bool *)p);
        return 0;
    case XDR_HYPER:
    case XDR_UHYPER:
    case XDR_DOUBLE:
        write_u64(out, *(const uint64_t *)p);
        return 0;
    case XDR_STRING:
        return write_string(r, *(char *const *)p, out);
    case XDR_STRING_OPT:
        write_u32(out, *(char *const *)p != NULL);
        return *(char *const *)p ? write_string(r, *(char *const *)p, out) : 0;
    case XDR_OPAQUE_FIXED:
        write_padded(out, p, r->max);
        return 0;
    case XDR_BYTES:
        return write_bytes(r, p, out);
    case XDR_STRUCT:
        return xdr_write(r->rows, p, out);
    case XDR_POINTER:
        return write_pointer(r, *(void *const *)p, out);
    case XDR_ARRAY:
        return write_array(r, p, out);
    case XDR_ARRAY_FIXED:
        return write_items(r, p, r->max, out);
    case XDR_UNION:
        return write_union(r, obj, out);
    case XDR_CHARS:
        for (uint32_t i = 0; i < r->max; i++)
            write_u32(out, (uint32_t)(int32_t)((const signed char *)p)[i]);
        return 0;
    case XDR_END:
        break;
    }
    return 0;
}

int xdr_write(const struct xdr_row *rows, const void *obj, GByteArray *out)
{
    int result = 0;
    for (const struct xdr_row *r = rows; r->kind != XDR_END && !result; r++)
        result = write_row(r, obj, out);
    return result;
}

/* ---- freeing ---- */

static void free_items(const struct xdr_row *r, char *items, uint32_t count)
{
    for (uint32_t i = 0; items && i < count; i++)
        xdr_free(r->rows, items + (size_t)i * r->size);
}

static void free_array(const struct xdr_row *r, struct xdr_array *a)
{
    free_items(r, a->items, a->count);
    g_clear_pointer(&a->items, g_free);
    a->count = 0;
}

static void free_union(const struct xdr_row *r, void *obj)
{
    int32_t tag = *(const int32_t *)field(r, obj);
    for (const struct xdr_row *arm = r->rows; arm->kind != XDR_END; arm++)
        if (arm->tag == tag) {
            const struct xdr_row one[] = {*arm, XDR_DONE};
            xdr_free(one, obj);
            *(int32_t *)field(r, obj) = 0;
            return;
        }
}

static void free_row(const struct xdr_row *r, void *obj)
{
    void *p = field(r, obj);
    switch (r->kind) {
    case XDR_STRING:
    case XDR_STRING_OPT:
        g_clear_pointer((char **)p, g_free);
        break;
    case XDR_BYTES: /* they may be a secret */
        if (((struct xdr_bytes *)p)->data)
            explicit_bzero(((struct xdr_bytes *)p)->data, ((struct xdr_bytes *)p)->len);
        g_clear_pointer(&((struct xdr_bytes *)p)->data, g_free);
        ((struct xdr_bytes *)p)->len = 0;
        break;
    case XDR_STRUCT:
        xdr_free(r->rows, p);
        break;
    case XDR_POINTER:
        if (*(void **)p)
            xdr_free(r->rows, *(void **)p);
        g_clear_pointer((void **)p, g_free);
        break;
    case XDR_ARRAY:
        free_array(r, p);
        break;
    case XDR_ARRAY_FIXED:
        free_items(r, p, r->max);
        break;
    case XDR_UNION:
        free_union(r, obj);
        break;
    default:
        break;
    }
}

void xdr_free(const struct xdr_row *rows, void *obj)
{
    for (const struct xdr_row *r = rows; r->kind != XDR_END; r++)
        free_row(r, obj);
}
