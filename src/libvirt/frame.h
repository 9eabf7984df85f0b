/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages of libvirt's RPC: a length that counts itself, a header of six words, a payload.
 *
 * Spec      libvirt's RPC at 9.0.0: 28 bytes of length and header, messages of at most 33,554,436
 *           bytes; with descriptors, a count follows the header, and one byte for each with
 *           SCM_RIGHTS the message.
 * Trust     Bytes are the peer's. A length out of bounds ends the connection: there is no next
 *           message.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define FRAME_HEADER_BYTES 28u       /* with the length */
#define FRAME_MAX_BYTES    33554436u /* with the length */
#define FRAME_MAX_FDS      32u
#define FRAME_CHUNK_BYTES  262120u /* payload of a stream's message */

#define PROGRAM_REMOTE    0x20008086u
#define PROGRAM_QEMU      0x20008087u
#define PROGRAM_KEEPALIVE 0x6b656570u
#define PROGRAM_VERSION   1u /* of each */

enum frame_type {
    FRAME_CALL,
    FRAME_REPLY,
    FRAME_MESSAGE,
    FRAME_STREAM,
    FRAME_CALL_FDS,
    FRAME_REPLY_FDS,
    FRAME_HOLE,
    FRAME_TYPES
};
enum frame_status { FRAME_OK, FRAME_ERROR, FRAME_CONTINUE, FRAME_STATUSES };

struct frame {
    uint32_t program, version, procedure;
    int32_t type;
    uint32_t serial;
    int32_t status;
};

/* Reads the header of the message at `data`. 0: *ret_bytes is the message's whole length (more than
 * len: not all of it is here yet; 0: not even its length is); *ret is set once the header is here.
 * -EBADMSG: no message can be so long. */
int frame_read(const uint8_t *data, size_t len, struct frame *ret, uint32_t *ret_bytes);
/* Appends a header to `out` and returns where its message begins; frame_end() fills the length in.
 * False: the message is too long, and is taken off again. */
guint frame_begin(GByteArray *out, const struct frame *f);
bool frame_end(GByteArray *out, guint begin);
