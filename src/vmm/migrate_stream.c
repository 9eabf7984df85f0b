/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Records: filling and writing them; see migrate_stream.h. */
#include "vmm/migrate_stream.h"

#include <nmmintrin.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define AT_KIND 8
#define AT_CRC 12
#define AT_NUMBER 16
#define AT_PAYLOAD 24
#define AT_EXTENTS 28
#define AT_EXTENT 32
#define EXTENT_BYTES 16
#define EXTENT_ZEROES 1u

/* ---- sums and zeroes ---- */

#define CRC_POLYNOMIAL 0x82f63b78u

static uint32_t crc_table[256];

static void make_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t v = i;
        for (int bit = 0; bit < 8; bit++)
            v = v >> 1 ^ (v & 1 ? CRC_POLYNOMIAL : 0);
        crc_table[i] = v;
    }
}

static uint32_t crc_by_table(uint32_t crc, const uint8_t *p, size_t len)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_table);
    while (len--)
        crc = crc >> 8 ^ crc_table[(uint8_t)crc ^ *p++];
    return crc;
}

__attribute__((target("sse4.2"))) static uint32_t crc_by_host(uint32_t crc, const uint8_t *p, size_t len)
{
    uint64_t c = crc;
    for (; len >= 8; p += 8, len -= 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        c = _mm_crc32_u64(c, v);
    }
    while (len--)
        c = _mm_crc32_u8((uint32_t)c, *p++);
    return (uint32_t)c;
}

uint32_t migrate_crc(uint32_t crc, const void *data, size_t len)
{
    return ~(__builtin_cpu_supports("sse4.2") ? crc_by_host(~crc, data, len) : crc_by_table(~crc, data, len));
}

bool migrate_is_zero(const void *page)
{
    const uint8_t *p = page;
    for (unsigned at = 0; at < MIGRATE_PAGE; at += 64) {
        uint64_t v[8], any = 0;
        memcpy(v, p + at, sizeof(v));
        for (unsigned i = 0; i < 8; i++)
            any |= v[i];
        if (any)
            return false;
    }
    return true;
}

uint8_t *migrate_ram_at(const struct migrate_ram *r, uint64_t page, uint64_t count)
{
    if (range_fits(page, count, r->low_pages))
        return r->low + page * MIGRATE_PAGE;
    if (page >= r->high_first && range_fits(page - r->high_first, count, r->high_pages))
        return r->high + (page - r->high_first) * MIGRATE_PAGE;
    return NULL;
}

/* ---- what the machine is ---- */

void migrate_head_init(struct migrate_head *h)
{
    *h = (struct migrate_head){ .items = g_ptr_array_new_with_free_func(g_free) };
}

void migrate_head_done(struct migrate_head *h)
{
    g_clear_pointer(&h->items, g_ptr_array_unref);
}

void migrate_head_add(struct migrate_head *h, const char *name, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_ptr_array_add(h->items, g_strdup(name));
    g_ptr_array_add(h->items, g_strdup_vprintf(format, args));
    va_end(args);
}

static const char *value_of(const struct migrate_head *h, const char *name)
{
    for (guint i = 0; i + 1 < h->items->len; i += 2)
        if (!strcmp(g_ptr_array_index(h->items, i), name))
            return g_ptr_array_index(h->items, i + 1);
    return NULL;
}

bool migrate_head_fits(const struct migrate_head *saved, const struct migrate_head *own, GError **error)
{
    for (guint i = 0; i + 1 < own->items->len; i += 2) {
        const char *name = g_ptr_array_index(own->items, i), *here = g_ptr_array_index(own->items, i + 1);
        const char *there = value_of(saved, name);
        if (!there)
            return ruche_error(error, RUCHE_ERR_INVALID, "this machine has %s '%s', the one that was saved has none", name,
                               here);
        if (strcmp(here, there))
            return ruche_error(error, RUCHE_ERR_INVALID, "the machine that was saved has %s '%s', this one '%s'", name,
                               there, here);
    }
    for (guint i = 0; i + 1 < saved->items->len; i += 2) {
        const char *name = g_ptr_array_index(saved->items, i);
        if (!value_of(own, name))
            return ruche_error(error, RUCHE_ERR_INVALID, "the machine that was saved has %s '%s', this one has none", name,
                               (const char *)g_ptr_array_index(saved->items, i + 1));
    }
    return true;
}

/* ---- writing ---- */

bool migrate_writer_init(struct migrate_writer *w, migrate_move_fn *write, void *opaque)
{
    *w = (struct migrate_writer){ .write = write, .opaque = opaque };
    w->record = aligned_alloc(MIGRATE_PAGE, MIGRATE_RECORD_MAX);
    return w->record;
}

void migrate_writer_done(struct migrate_writer *w)
{
    free(w->record);
    w->record = NULL;
}

static void put32(uint8_t *at, uint32_t v)
{
    memcpy(at, &v, sizeof(v));
}

static void put64(uint8_t *at, uint64_t v)
{
    memcpy(at, &v, sizeof(v));
}

static bool send(struct migrate_writer *w, enum migrate_kind kind, GError **error)
{
    uint8_t *head = w->record;
    size_t used = AT_EXTENT + w->extents * EXTENT_BYTES, whole = align_up(w->payload_bytes, MIGRATE_PAGE);
    memcpy(head, "RUCHEVM\n", 8);
    put32(head + AT_KIND, kind);
    put32(head + AT_CRC, 0);
    put64(head + AT_NUMBER, w->number++);
    put32(head + AT_PAYLOAD, w->payload_bytes);
    put32(head + AT_EXTENTS, w->extents);
    memset(head + used, 0, MIGRATE_PAGE - used);
    memset(head + MIGRATE_PAGE + w->payload_bytes, 0, whole - w->payload_bytes);
    put32(head + AT_CRC, migrate_crc(0, head, MIGRATE_PAGE + whole));
    w->payload_bytes = w->extents = 0;
    return w->write(w->opaque, head, MIGRATE_PAGE + whole, error);
}

bool migrate_add_page(struct migrate_writer *w, uint64_t page, const void *data)
{
    uint8_t *last = w->record + AT_EXTENT + (w->extents - 1) * EXTENT_BYTES;
    uint32_t flags = data ? 0 : EXTENT_ZEROES, count = 0, last_flags = 0;
    uint64_t first = 0;
    if (data && w->payload_bytes == MIGRATE_PAYLOAD_MAX)
        return false;
    if (w->extents) {
        memcpy(&first, last, 8);
        memcpy(&count, last + 8, 4);
        memcpy(&last_flags, last + 12, 4);
    }
    bool joins = w->extents && first + count == page && last_flags == flags && count < UINT32_MAX;
    if (!joins && w->extents == MIGRATE_EXTENTS_MAX)
        return false;
    if (joins) {
        put32(last + 8, count + 1);
    } else {
        uint8_t *at = w->record + AT_EXTENT + w->extents++ * EXTENT_BYTES;
        put64(at, page);
        put32(at + 8, 1);
        put32(at + 12, flags);
    }
    if (data) {
        memcpy(w->record + MIGRATE_PAGE + w->payload_bytes, data, MIGRATE_PAGE);
        w->payload_bytes += MIGRATE_PAGE;
    }
    return true;
}

size_t migrate_waiting_bytes(const struct migrate_writer *w)
{
    return w->extents ? MIGRATE_PAGE + w->payload_bytes : 0;
}

bool migrate_flush_ram(struct migrate_writer *w, GError **error)
{
    return !w->extents || send(w, MIGRATE_RAM, error);
}

static void add_bytes(struct migrate_writer *w, const void *data, size_t len)
{
    memcpy(w->record + MIGRATE_PAGE + w->payload_bytes, data, len);
    w->payload_bytes += (uint32_t)len;
}

static void add_text(GByteArray *to, const char *text)
{
    uint16_t len = (uint16_t)min_u64(strlen(text), MIGRATE_TEXT_MAX);
    g_byte_array_append(to, (const uint8_t *)&len, sizeof(len));
    g_byte_array_append(to, (const uint8_t *)text, len);
}

static void add_u32(GByteArray *to, uint32_t v)
{
    g_byte_array_append(to, (const uint8_t *)&v, sizeof(v));
}

static bool send_bytes(struct migrate_writer *w, enum migrate_kind kind, const GByteArray *b, GError **error)
{
    if (b->len > MIGRATE_PAYLOAD_MAX)
        return ruche_error(error, RUCHE_ERR_INTERNAL, "the description of this machine has %u bytes, more than %u", b->len,
                           MIGRATE_PAYLOAD_MAX);
    add_bytes(w, b->data, b->len);
    return send(w, kind, error);
}

bool migrate_write_head(struct migrate_writer *w, const struct migrate_head *h, GError **error)
{
    g_autoptr(GByteArray) b = g_byte_array_new();
    add_u32(b, MIGRATE_VERSION);
    add_u32(b, h->answers);
    add_u32(b, h->items->len / 2);
    for (guint i = 0; i < h->items->len; i++)
        add_text(b, g_ptr_array_index(h->items, i));
    return send_bytes(w, MIGRATE_HEAD, b, error);
}

bool migrate_write_state(struct migrate_writer *w, const void *state, size_t len, GError **error)
{
    const uint8_t *p = state;
    if (len > MIGRATE_STATE_MAX)
        return ruche_error(error, RUCHE_ERR_INTERNAL, "the state of this machine has %zu bytes, more than %u", len,
                           MIGRATE_STATE_MAX);
    while (len) {
        size_t piece = min_u64(len, MIGRATE_PAYLOAD_MAX);
        add_bytes(w, p, piece);
        if (!send(w, MIGRATE_STATE, error))
            return false;
        p += piece;
        len -= piece;
    }
    return true;
}

bool migrate_write_end(struct migrate_writer *w, const char *run_state, GError **error)
{
    g_autoptr(GByteArray) b = g_byte_array_new();
    add_text(b, run_state);
    return send_bytes(w, MIGRATE_END, b, error);
}

bool migrate_write_go(struct migrate_writer *w, GError **error)
{
    return send(w, MIGRATE_GO, error);
}

bool migrate_write_answer(struct migrate_writer *w, const char *why_not, GError **error)
{
    g_autoptr(GByteArray) b = g_byte_array_new();
    add_u32(b, !why_not);
    add_text(b, why_not ? why_not : "");
    return send_bytes(w, MIGRATE_ANSWER, b, error);
}
