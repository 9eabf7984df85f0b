/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Records of the store's log, to bytes and from them. */
#include "manager/store_record.h"

#include <string.h>

enum { HEAD_BYTES = 56, CHECK_BYTES = 8, PATH_MAX_BYTES = 4095 };

/* Not against malice: against what is half written. */
static uint64_t check_of(const uint8_t *p, size_t len)
{
    uint64_t h = 0x9e3779b97f4a7c15u ^ len, word;
    for (; len >= sizeof(word); p += sizeof(word), len -= sizeof(word)) {
        memcpy(&word, p, sizeof(word));
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return h;
}

static uint8_t *put(uint8_t *to, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        *to++ = (uint8_t)(v >> (8 * i));
    return to;
}

void store_record_seal(uint8_t *record, size_t bytes)
{
    put(record, check_of(record + CHECK_BYTES, bytes - CHECK_BYTES), CHECK_BYTES);
}

size_t store_record_bytes(const struct store_record *r)
{
    size_t bytes = HEAD_BYTES + strlen(r->path) + 1 + strlen(r->text) + 1;
    return (bytes + STORE_SECTOR - 1) / STORE_SECTOR * STORE_SECTOR;
}

void store_record_put(uint8_t *to, uint64_t epoch, uint64_t number, const struct store_record *r)
{
    size_t bytes = store_record_bytes(r), path_len = strlen(r->path), text_len = strlen(r->text);
    uint8_t *p = to + CHECK_BYTES;
    memset(to, 0, bytes);
    p = put(p, bytes, 4);
    p = put(p, r->kind, 2);
    p = put(p, path_len, 2);
    p = put(p, epoch, 8);
    p = put(p, number, 8);
    p = put(p, r->mode, 4);
    p = put(p, text_len, 4);
    p = put(p, (uint64_t)r->time_ns, 8);
    p = put(p, (uint64_t)r->old_ns, 8);
    memcpy(p, r->path, path_len);
    memcpy(p + path_len + 1, r->text, text_len);
    store_record_seal(to, bytes);
}

uint64_t store_record_epoch(struct cur c)
{
    cur_take(&c, 16);
    return cur_le64(&c);
}

/* `len` bytes and their end, with no other end among them. */
static const char *take_text(struct cur *c, size_t len)
{
    const char *text = (const char *)cur_take(c, len + 1);
    if (text && memchr(text, 0, len + 1) != text + len)
        c->bad = true;
    return c->bad ? NULL : text;
}

/* Is it the name of something below a folder? */
static bool is_below(const char *path)
{
    for (const char *part = path;; part++) {
        size_t len = strcspn(part, "/");
        if (!len || (len == 1 && *part == '.') || (len == 2 && part[0] == '.' && part[1] == '.'))
            return false;
        part += len;
        if (!*part)
            return true;
    }
}

bool store_record_take(struct cur *c, uint64_t epoch, uint64_t number, struct store_record *ret)
{
    struct cur look = *c;
    uint64_t check = cur_le64(&look);
    uint32_t bytes = cur_le32(&look);
    if (look.bad || bytes < HEAD_BYTES || bytes % STORE_SECTOR || bytes > c->left ||
        check_of(c->p + CHECK_BYTES, bytes - CHECK_BYTES) != check)
        return false;
    struct cur in = cur_of(look.p, bytes - CHECK_BYTES - 4);
    struct store_record r = {.kind = cur_le16(&in)};
    size_t path_len = cur_le16(&in);
    bool expected = cur_le64(&in) == epoch;
    expected &= cur_le64(&in) == number;
    r.mode = cur_le32(&in);
    size_t text_len = cur_le32(&in);
    r.time_ns = (int64_t)cur_le64(&in);
    r.old_ns = (int64_t)cur_le64(&in);
    r.path = take_text(&in, path_len);
    r.text = take_text(&in, text_len);
    if (in.bad || !expected || r.kind < STORE_WRITE || r.kind >= STORE_KINDS ||
        path_len > PATH_MAX_BYTES || r.mode > 07777 || !is_below(r.path))
        return false;
    cur_take(c, bytes);
    *ret = r;
    return true;
}
