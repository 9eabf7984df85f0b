/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Headers. Thread: any. */
#include "libvirt/frame.h"

#include "base/cursor.h"

#include <errno.h>
#include <string.h>

int frame_read(const uint8_t *data, size_t len, struct frame *ret, uint32_t *ret_bytes)
{
    struct cur c = cur_of(data, len);
    uint32_t bytes = cur_be32(&c);
    if (c.bad) {
        *ret_bytes = 0;
        return 0;
    }
    if (bytes < FRAME_HEADER_BYTES || bytes > FRAME_MAX_BYTES)
        return -EBADMSG;
    *ret_bytes = bytes;
    struct frame f;
    f.program = cur_be32(&c);
    f.version = cur_be32(&c);
    f.procedure = cur_be32(&c);
    f.type = (int32_t)cur_be32(&c);
    f.serial = cur_be32(&c);
    f.status = (int32_t)cur_be32(&c);
    if (!c.bad)
        *ret = f;
    return 0;
}

guint frame_begin(GByteArray *out, const struct frame *f)
{
    guint begin = out->len;
    const uint32_t words[] = {
        0, f->program, f->version, f->procedure, (uint32_t)f->type, f->serial, (uint32_t)f->status};
    g_byte_array_set_size(out, begin + FRAME_HEADER_BYTES);
    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
        uint32_t be = GUINT32_TO_BE(words[i]);
        memcpy(out->data + begin + i * 4, &be, 4);
    }
    return begin;
}

bool frame_end(GByteArray *out, guint begin)
{
    guint bytes = out->len - begin;
    if (bytes > FRAME_MAX_BYTES) {
        g_byte_array_set_size(out, begin);
        return false;
    }
    uint32_t be = GUINT32_TO_BE(bytes);
    memcpy(out->data + begin, &be, 4);
    return true;
}
