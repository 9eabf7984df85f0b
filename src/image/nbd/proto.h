/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The words of the NBD protocol, and their packing: nothing here does I/O.
 *
 * Spec      The NBD protocol (doc/proto.md of the reference implementation), fixed newstyle only.
 * Units     Bytes; everything on the wire is big-endian.
 * Trust     The parse functions take hostile bytes; they check magics and shapes, and leave it to
 *           the caller whether a well-formed value makes sense.
 * Errors    -EBADMSG: not of the protocol's form.
 */
#pragma once

#include "base/cursor.h"

#define NBD_DEFAULT_PORT "10809"

#define NBD_MAGIC            0x4e42444d41474943ULL /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC     0x49484156454f5054ULL /* "IHAVEOPT" */
#define NBD_OLDSTYLE_MAGIC   0x0000420281861253ULL
#define NBD_OPTION_REP_MAGIC 0x0003e889045565a9ULL
#define NBD_REQUEST_MAGIC    0x25609513U
#define NBD_SIMPLE_MAGIC     0x67446698U
#define NBD_CHUNK_MAGIC      0x668e33efU

enum nbd_handshake_flags { NBD_FIXED_NEWSTYLE = 1, NBD_NO_ZEROES = 2 };

enum nbd_option {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_STARTTLS = 5,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
};

#define NBD_REP_IS_ERROR (1U << 31)
enum nbd_option_reply {
    NBD_REP_ACK = 1,
    NBD_REP_SERVER = 2,
    NBD_REP_INFO = 3,
    NBD_REP_META_CONTEXT = 4,
};
#define NBD_REP_ERR_UNSUP           (NBD_REP_IS_ERROR | 1)
#define NBD_REP_ERR_POLICY          (NBD_REP_IS_ERROR | 2)
#define NBD_REP_ERR_INVALID         (NBD_REP_IS_ERROR | 3)
#define NBD_REP_ERR_PLATFORM        (NBD_REP_IS_ERROR | 4)
#define NBD_REP_ERR_TLS_REQD        (NBD_REP_IS_ERROR | 5)
#define NBD_REP_ERR_UNKNOWN         (NBD_REP_IS_ERROR | 6)
#define NBD_REP_ERR_SHUTDOWN        (NBD_REP_IS_ERROR | 7)
#define NBD_REP_ERR_BLOCK_SIZE_REQD (NBD_REP_IS_ERROR | 8)
#define NBD_REP_ERR_TOO_BIG         (NBD_REP_IS_ERROR | 9)

enum nbd_info {
    NBD_INFO_EXPORT = 0,
    NBD_INFO_NAME = 1,
    NBD_INFO_DESCRIPTION = 2,
    NBD_INFO_BLOCK_SIZE = 3
};

enum nbd_export_flags {
    NBD_FLAG_HAS_FLAGS = 1 << 0,
    NBD_FLAG_READ_ONLY = 1 << 1,
    NBD_FLAG_SEND_FLUSH = 1 << 2,
    NBD_FLAG_SEND_FUA = 1 << 3,
    NBD_FLAG_ROTATIONAL = 1 << 4,
    NBD_FLAG_SEND_TRIM = 1 << 5,
    NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
    NBD_FLAG_SEND_DF = 1 << 7,
    NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
    NBD_FLAG_SEND_CACHE = 1 << 10,
    NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
};

enum nbd_command {
    NBD_CMD_READ = 0,
    NBD_CMD_WRITE = 1,
    NBD_CMD_DISC = 2,
    NBD_CMD_FLUSH = 3,
    NBD_CMD_TRIM = 4,
    NBD_CMD_CACHE = 5,
    NBD_CMD_WRITE_ZEROES = 6,
    NBD_CMD_BLOCK_STATUS = 7,
    NBD_COMMANDS
};
enum nbd_command_flags {
    NBD_CMD_FUA = 1 << 0,
    NBD_CMD_NO_HOLE = 1 << 1,
    NBD_CMD_DF = 1 << 2,
    NBD_CMD_REQ_ONE = 1 << 3,
    NBD_CMD_FAST_ZERO = 1 << 4,
};

#define NBD_CHUNK_DONE     1 /* flag: the last chunk of a reply */
#define NBD_CHUNK_IS_ERROR (1U << 15)
enum nbd_chunk_type {
    NBD_CHUNK_NONE = 0,
    NBD_CHUNK_DATA = 1,
    NBD_CHUNK_HOLE = 2,
    NBD_CHUNK_BLOCK_STATUS = 5,
    NBD_CHUNK_ERROR = NBD_CHUNK_IS_ERROR | 1,
    NBD_CHUNK_ERROR_OFFSET = NBD_CHUNK_IS_ERROR | 2,
};

enum nbd_state { NBD_STATE_HOLE = 1, NBD_STATE_ZERO = 2, NBD_STATE_DIRTY = 1 };
#define NBD_CONTEXT_BASE  "base:allocation"
#define NBD_CONTEXT_DEPTH "qemu:allocation-depth"
#define NBD_CONTEXT_DIRTY "qemu:dirty-bitmap:"

#define NBD_NAME_MAX 4096U /* export names, descriptions, context names, messages */
#define NBD_PAYLOAD_MAX                                                                            \
    (32U * 1024 * 1024) /* of one READ or WRITE, unless the server says otherwise */
#define NBD_OPTION_DATA_MAX (64U * 1024) /* of one option, either way */
#define NBD_ZERO_PAD_BYTES  124 /* behind EXPORT_NAME's answer, unless both say NO_ZEROES */

#define NBD_HELLO_BYTES        18 /* the server's first words */
#define NBD_OPTION_BYTES       16
#define NBD_OPTION_REPLY_BYTES 20
#define NBD_REQUEST_BYTES      28
#define NBD_SIMPLE_BYTES       16
#define NBD_CHUNK_BYTES        20
#define NBD_REPLY_BYTES_MAX    NBD_CHUNK_BYTES
#define NBD_EXTENT_BYTES       8

struct nbd_option_head {
    uint32_t option, len;
};
struct nbd_option_reply_head {
    uint32_t option, type, len;
};
struct nbd_request {
    uint16_t flags, command;
    uint64_t cookie, offset;
    uint32_t len;
};
/* A reply's head, simple or a chunk of a structured one. */
struct nbd_reply_head {
    bool structured;
    uint16_t flags, type; /* structured */
    uint32_t error;       /* simple */
    uint64_t cookie;
    uint32_t len; /* structured: bytes that follow */
};

void nbd_put_be16(uint8_t *to, uint16_t v);
void nbd_put_be32(uint8_t *to, uint32_t v);
void nbd_put_be64(uint8_t *to, uint64_t v);

void nbd_pack_hello(uint8_t to[NBD_HELLO_BYTES], uint16_t flags);
void nbd_pack_option(uint8_t to[NBD_OPTION_BYTES], uint32_t option, uint32_t len);
int nbd_parse_option(const uint8_t from[NBD_OPTION_BYTES], struct nbd_option_head *ret);
void nbd_pack_option_reply(uint8_t to[NBD_OPTION_REPLY_BYTES], uint32_t option, uint32_t type,
                           uint32_t len);
int nbd_parse_option_reply(const uint8_t from[NBD_OPTION_REPLY_BYTES],
                           struct nbd_option_reply_head *ret);
void nbd_pack_request(uint8_t to[NBD_REQUEST_BYTES], const struct nbd_request *r);
int nbd_parse_request(const uint8_t from[NBD_REQUEST_BYTES], struct nbd_request *ret);
void nbd_pack_simple(uint8_t to[NBD_SIMPLE_BYTES], uint32_t error, uint64_t cookie);
void nbd_pack_chunk(uint8_t to[NBD_CHUNK_BYTES], uint16_t flags, uint16_t type, uint64_t cookie,
                    uint32_t len);
/* Bytes of the reply head that begins with these four; -EBADMSG: no reply. */
int nbd_reply_head_bytes(const uint8_t from[4]);
int nbd_parse_reply(const uint8_t *from, size_t len, struct nbd_reply_head *ret);

/* Text of a peer, bounded and UTF-8: `len` bytes of it, or -EBADMSG. The caller frees *ret. */
int nbd_take_text(struct cur *c, uint32_t len, char **ret);

/* Which contexts a SET or LIST query stands for: an exact name, or a whole name space ("qemu:", and
 * for LIST also the empty list). `asked` is not terminated. */
bool nbd_query_matches(const uint8_t *asked, size_t len, const char *context, bool listing);

/* Negative errno to the protocol's error and back; what the other side has no word for is EINVAL or
 * EIO. */
uint32_t nbd_error_of_errno(int result);
int nbd_errno_of_error(uint32_t error);

const char *nbd_option_word(uint32_t option);     /* "NBD_OPT_GO", for messages */
const char *nbd_option_error_word(uint32_t type); /* "unknown export" ... */
const char *nbd_command_word(unsigned command);
