/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The words of the NBD protocol; see proto.h. */
#include "image/nbd/proto.h"

#include <errno.h>
#include <glib.h>

void nbd_put_be16(uint8_t *to, uint16_t v)
{
    v = __builtin_bswap16(v);
    memcpy(to, &v, sizeof(v));
}

void nbd_put_be32(uint8_t *to, uint32_t v)
{
    v = __builtin_bswap32(v);
    memcpy(to, &v, sizeof(v));
}

void nbd_put_be64(uint8_t *to, uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(to, &v, sizeof(v));
}

void nbd_pack_hello(uint8_t to[NBD_HELLO_BYTES], uint16_t flags)
{
    nbd_put_be64(to, NBD_MAGIC);
    nbd_put_be64(to + 8, NBD_OPTION_MAGIC);
    nbd_put_be16(to + 16, flags);
}

void nbd_pack_option(uint8_t to[NBD_OPTION_BYTES], uint32_t option, uint32_t len)
{
    nbd_put_be64(to, NBD_OPTION_MAGIC);
    nbd_put_be32(to + 8, option);
    nbd_put_be32(to + 12, len);
}

int nbd_parse_option(const uint8_t from[NBD_OPTION_BYTES], struct nbd_option_head *ret)
{
    struct cur c = cur_of(from, NBD_OPTION_BYTES);
    if (cur_be64(&c) != NBD_OPTION_MAGIC)
        return -EBADMSG;
    ret->option = cur_be32(&c);
    ret->len = cur_be32(&c);
    return 0;
}

void nbd_pack_option_reply(uint8_t to[NBD_OPTION_REPLY_BYTES], uint32_t option, uint32_t type,
                           uint32_t len)
{
    nbd_put_be64(to, NBD_OPTION_REP_MAGIC);
    nbd_put_be32(to + 8, option);
    nbd_put_be32(to + 12, type);
    nbd_put_be32(to + 16, len);
}

int nbd_parse_option_reply(const uint8_t from[NBD_OPTION_REPLY_BYTES],
                           struct nbd_option_reply_head *ret)
{
    struct cur c = cur_of(from, NBD_OPTION_REPLY_BYTES);
    if (cur_be64(&c) != NBD_OPTION_REP_MAGIC)
        return -EBADMSG;
    ret->option = cur_be32(&c);
    ret->type = cur_be32(&c);
    ret->len = cur_be32(&c);
    return 0;
}

void nbd_pack_request(uint8_t to[NBD_REQUEST_BYTES], const struct nbd_request *r)
{
    nbd_put_be32(to, NBD_REQUEST_MAGIC);
    nbd_put_be16(to + 4, r->flags);
    nbd_put_be16(to + 6, r->command);
    nbd_put_be64(to + 8, r->cookie);
    nbd_put_be64(to + 16, r->offset);
    nbd_put_be32(to + 24, r->len);
}

int nbd_parse_request(const uint8_t from[NBD_REQUEST_BYTES], struct nbd_request *ret)
{
    struct cur c = cur_of(from, NBD_REQUEST_BYTES);
    if (cur_be32(&c) != NBD_REQUEST_MAGIC)
        return -EBADMSG;
    ret->flags = cur_be16(&c);
    ret->command = cur_be16(&c);
    ret->cookie = cur_be64(&c);
    ret->offset = cur_be64(&c);
    ret->len = cur_be32(&c);
    return 0;
}

void nbd_pack_simple(uint8_t to[NBD_SIMPLE_BYTES], uint32_t error, uint64_t cookie)
{
    nbd_put_be32(to, NBD_SIMPLE_MAGIC);
    nbd_put_be32(to + 4, error);
    nbd_put_be64(to + 8, cookie);
}

void nbd_pack_chunk(uint8_t to[NBD_CHUNK_BYTES], uint16_t flags, uint16_t type, uint64_t cookie,
                    uint32_t len)
{
    nbd_put_be32(to, NBD_CHUNK_MAGIC);
    nbd_put_be16(to + 4, flags);
    nbd_put_be16(to + 6, type);
    nbd_put_be64(to + 8, cookie);
    nbd_put_be32(to + 16, len);
}

int nbd_reply_head_bytes(const uint8_t from[4])
{
    struct cur c = cur_of(from, 4);
    uint32_t magic = cur_be32(&c);
    return magic == NBD_SIMPLE_MAGIC  ? NBD_SIMPLE_BYTES
           : magic == NBD_CHUNK_MAGIC ? NBD_CHUNK_BYTES
                                      : -EBADMSG;
}

int nbd_parse_reply(const uint8_t *from, size_t len, struct nbd_reply_head *ret)
{
    struct cur c = cur_of(from, len);
    struct nbd_reply_head h = { 0 };
    uint32_t magic = cur_be32(&c);
    if (magic == NBD_SIMPLE_MAGIC) {
        h.error = cur_be32(&c);
        h.cookie = cur_be64(&c);
    } else if (magic == NBD_CHUNK_MAGIC) {
        h.structured = true;
        h.flags = cur_be16(&c);
        h.type = cur_be16(&c);
        h.cookie = cur_be64(&c);
        h.len = cur_be32(&c);
    } else {
        return -EBADMSG;
    }
    if (c.bad)
        return -EBADMSG;
    *ret = h;
    return 0;
}

int nbd_take_text(struct cur *c, uint32_t len, char **ret)
{
    if (len > NBD_NAME_MAX)
        c->bad = true;
    const char *p = (const char *)cur_take(c, len);
    if (!p || memchr(p, '\0', len) || !g_utf8_validate(p, len, NULL)) {
        c->bad = true;
        return -EBADMSG;
    }
    *ret = g_strndup(p, len);
    return 0;
}

bool nbd_query_matches(const uint8_t *asked, size_t len, const char *context, bool listing)
{
    size_t whole = strlen(context);
    if (len == whole && memcmp(asked, context, len) == 0)
        return true;
    /* A name space, or a name within one ("qemu:dirty-bitmap:"): ends in a colon. */
    return listing && len > 0 && len < whole && asked[len - 1] == ':' &&
           memcmp(asked, context, len) == 0;
}

static const struct {
    int err;
    uint32_t wire;
} error_table[] = {
    { EPERM, 1 },
    { EIO, 5 },
    { ENOMEM, 12 },
    { EINVAL, 22 },
    { ENOSPC, 28 },
    { EOVERFLOW, 75 },
    { ENOTSUP, 95 },
    { ESHUTDOWN, 108 },
    /* from here on only towards the wire */
    { EROFS, 1 },
    { EACCES, 1 },
    { EFBIG, 28 },
    { EDQUOT, 28 },
};
#define ERROR_WORDS 8

uint32_t nbd_error_of_errno(int result)
{
    if (result >= 0)
        return 0;
    for (unsigned i = 0; i < ARRAY_COUNT(error_table); i++) {
        if (error_table[i].err == -result)
            return error_table[i].wire;
    }
    return 5;
}

int nbd_errno_of_error(uint32_t error)
{
    if (error == 0)
        return 0;
    for (unsigned i = 0; i < ERROR_WORDS; i++) {
        if (error_table[i].wire == error)
            return -error_table[i].err;
    }
    return -EINVAL;
}

const char *nbd_option_word(uint32_t option)
{
    static const char *const words[] = {
        [NBD_OPT_EXPORT_NAME] = "NBD_OPT_EXPORT_NAME",
        [NBD_OPT_ABORT] = "NBD_OPT_ABORT",
        [NBD_OPT_LIST] = "NBD_OPT_LIST",
        [NBD_OPT_STARTTLS] = "NBD_OPT_STARTTLS",
        [NBD_OPT_INFO] = "NBD_OPT_INFO",
        [NBD_OPT_GO] = "NBD_OPT_GO",
        [NBD_OPT_STRUCTURED_REPLY] = "NBD_OPT_STRUCTURED_REPLY",
        [NBD_OPT_LIST_META_CONTEXT] = "NBD_OPT_LIST_META_CONTEXT",
        [NBD_OPT_SET_META_CONTEXT] = "NBD_OPT_SET_META_CONTEXT",
    };
    return option < ARRAY_COUNT(words) && words[option] ? words[option] : "an unknown option";
}

const char *nbd_option_error_word(uint32_t type)
{
    static const char *const words[] = {
        NULL,
        "the server does not know that option",
        "the server's policy forbids it",
        "the server finds the option invalid",
        "the server's platform does not support it",
        "the server requires TLS",
        "the server has no export of that name",
        "the server is shutting down",
        "the server requires that block sizes be negotiated",
        "the option is too big for the server",
    };
    uint32_t i = type & ~NBD_REP_IS_ERROR;
    return (type & NBD_REP_IS_ERROR) && i < ARRAY_COUNT(words) && words[i]
               ? words[i]
               : "the server refuses for a reason unknown to us";
}

const char *nbd_command_word(unsigned command)
{
    static const char *const words[NBD_COMMANDS] = {
        [NBD_CMD_READ] = "read",
        [NBD_CMD_WRITE] = "write",
        [NBD_CMD_DISC] = "disconnect",
        [NBD_CMD_FLUSH] = "flush",
        [NBD_CMD_TRIM] = "trim",
        [NBD_CMD_CACHE] = "cache",
        [NBD_CMD_WRITE_ZEROES] = "write zeroes",
        [NBD_CMD_BLOCK_STATUS] = "block status",
    };
    return command < NBD_COMMANDS ? words[command] : "unknown command";
}
