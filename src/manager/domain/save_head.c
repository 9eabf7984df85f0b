/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The head of a saved machine's file; see save_file.h. Thread: any. */
#include "manager/domain/save_file.h"

#include "base/cursor.h"
#include "base/xml.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

#define VERSION    1u
#define SLOT_ALIGN 4096u

static const uint8_t magic[16] = {'R', 'u', 'c',  'h', 'e',  ' ',  's',  'a',
                                  'v', 'e', 0x1a, 0,   '\r', '\n', 0xff, 0};

uint64_t save_head_stream(const struct save_head *h)
{
    return SAVE_HEAD_BYTES + 2 * (uint64_t)h->slot_bytes;
}

static void put32(uint8_t **p, uint32_t v)
{
    v = GUINT32_TO_LE(v);
    memcpy(*p, &v, sizeof(v));
    *p += sizeof(v);
}

void save_head_write(const struct save_head *h, uint8_t ret[SAVE_HEAD_BYTES])
{
    uint8_t *p = ret + sizeof(magic);
    memset(ret, 0, SAVE_HEAD_BYTES);
    memcpy(ret, magic, sizeof(magic));
    put32(&p, VERSION);
    put32(&p, h->state);
    put32(&p, h->slot);
    put32(&p, h->slot_bytes);
    put32(&p, h->xml_bytes);
    memcpy(p, h->digest, sizeof(h->digest));
}

int save_head_read(const uint8_t *data, size_t len, struct save_head *ret)
{
    struct cur c = cur_of(data, len);
    const uint8_t *m = cur_take(&c, sizeof(magic));
    if (!m || memcmp(m, magic, sizeof(magic)))
        return -EBADMSG;
    uint32_t version = cur_le32(&c), state = cur_le32(&c), slot = cur_le32(&c);
    struct save_head h = {.state = state == SAVE_RUNNING ? SAVE_RUNNING : SAVE_PAUSED,
                          .slot = slot};
    h.slot_bytes = cur_le32(&c);
    h.xml_bytes = cur_le32(&c);
    cur_copy(&c, h.digest, sizeof(h.digest));
    if (c.bad)
        return -EBADMSG;
    if (version != VERSION)
        return -EPROTONOSUPPORT;
    if ((state != SAVE_RUNNING && state != SAVE_PAUSED) || slot > 1 || !h.xml_bytes ||
        h.xml_bytes > XML_MAX_BYTES || h.slot_bytes % SLOT_ALIGN || h.slot_bytes < h.xml_bytes ||
        h.slot_bytes > 2 * XML_MAX_BYTES)
        return -ERANGE;
    *ret = h;
    return 0;
}
