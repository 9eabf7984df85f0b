/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Records: reading and checking them; see migrate_stream.h.
 *
 * Trust     A header is read whole, copied out field by field, and its one length bounded before the payload is read;
 *           the sum is checked before anything else is looked at.
 */
#include "vmm/migrate_stream.h"

#include "base/cursor.h"

#include <inttypes.h>
#include <stdlib.h>

static const char *const kind_names[] = {
    [MIGRATE_HEAD] = "head", [MIGRATE_RAM] = "RAM", [MIGRATE_STATE] = "state",
    [MIGRATE_END] = "end",   [MIGRATE_GO] = "go",   [MIGRATE_ANSWER] = "answer",
};

struct record {
    enum migrate_kind kind;
    uint32_t payload_bytes, extents;
    struct cur extent;          /* the header's rest */
    const uint8_t *payload;
};

bool migrate_reader_init(struct migrate_reader *r, migrate_move_fn *read, void *opaque)
{
    *r = (struct migrate_reader){ .read = read, .opaque = opaque };
    r->record = aligned_alloc(MIGRATE_PAGE, MIGRATE_RECORD_MAX);
    return r->record;
}

void migrate_reader_done(struct migrate_reader *r)
{
    free(r->record);
    r->record = NULL;
}

static bool bad(const struct migrate_reader *r, GError **error, const char *what)
{
    return ruche_error(error, RUCHE_ERR_INVALID, "record %" PRIu64 " of the stream %s", r->number, what);
}

static bool read_header(struct migrate_reader *r, struct record *ret, uint32_t *ret_crc, GError **error)
{
    if (!r->read(r->opaque, r->record, MIGRATE_PAGE, error)) {
        g_prefix_error(error, "record %" PRIu64 " of the stream: ", r->number);
        return false;
    }
    struct cur c = cur_of(r->record, MIGRATE_PAGE);
    const uint8_t *magic = cur_take(&c, 8);
    if (memcmp(magic, "RUCHEVM\n", 8))
        return bad(r, error, r->number ? "does not begin as one" : "is no machine that ruche-vmm has saved");
    uint32_t kind = cur_le32(&c);
    *ret_crc = cur_le32(&c);
    uint64_t number = cur_le64(&c);
    *ret = (struct record){ .kind = kind, .payload_bytes = cur_le32(&c), .extents = cur_le32(&c) };
    ret->extent = c;
    ret->payload = r->record + MIGRATE_PAGE;
    if (kind >= ARRAY_COUNT(kind_names) || !kind_names[kind])
        return bad(r, error, "is of an unknown kind");
    if (number != r->number)
        return ruche_error(error, RUCHE_ERR_INVALID, "the stream has record %" PRIu64 " where %" PRIu64 " must be", number,
                           r->number);
    if (ret->payload_bytes > MIGRATE_PAYLOAD_MAX || ret->extents > MIGRATE_EXTENTS_MAX)
        return bad(r, error, "is longer than records are");
    return true;
}

static bool read_record(struct migrate_reader *r, struct record *ret, GError **error)
{
    uint32_t crc = 0;
    if (!read_header(r, ret, &crc, error))
        return false;
    size_t whole = align_up(ret->payload_bytes, MIGRATE_PAGE);
    if (whole && !r->read(r->opaque, r->record + MIGRATE_PAGE, whole, error)) {
        g_prefix_error(error, "record %" PRIu64 " of the stream: ", r->number);
        return false;
    }
    memset(r->record + 12, 0, 4);
    if (migrate_crc(0, r->record, MIGRATE_PAGE + whole) != crc)
        return bad(r, error, "is damaged: its sum is wrong");
    r->number++;
    return true;
}

static bool unexpected(const struct migrate_reader *r, const struct record *rec, const char *wanted, GError **error)
{
    return ruche_error(error, RUCHE_ERR_INVALID, "record %" PRIu64 " of the stream is of kind '%s' where '%s' must be",
                       r->number - 1, kind_names[rec->kind], wanted);
}

/* ---- head and answers ---- */

static char *take_text(struct cur *c)
{
    uint16_t len = cur_le16(c);
    const uint8_t *p = len <= MIGRATE_TEXT_MAX ? cur_take(c, len) : NULL;
    if (!p || !g_utf8_validate((const char *)p, len, NULL)) {
        c->bad = true;
        return g_strdup("");
    }
    return g_strndup((const char *)p, len);
}

static bool parse_head(struct migrate_reader *r, const struct record *rec, struct migrate_head *ret, GError **error)
{
    struct cur c = cur_of(rec->payload, rec->payload_bytes);
    uint32_t version = cur_le32(&c), flags = cur_le32(&c);
    if (!c.bad && version != MIGRATE_VERSION)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "the stream has version %u; this program knows %u", version,
                           MIGRATE_VERSION);
    ret->answers = flags & 1;
    uint32_t count = cur_le32(&c);
    if (flags > 1 || count > MIGRATE_ITEMS_MAX)
        c.bad = true;
    for (uint32_t i = 0; i < 2 * count && !c.bad; i++)
        g_ptr_array_add(ret->items, take_text(&c));
    if (c.bad || c.left)
        return ruche_error(error, RUCHE_ERR_INVALID, "the head of the stream is malformed");
    return true;
}

bool migrate_read_head(struct migrate_reader *r, struct migrate_head *ret, GError **error)
{
    struct record rec;
    struct migrate_head h;
    if (!read_record(r, &rec, error))
        return false;
    if (rec.kind != MIGRATE_HEAD)
        return unexpected(r, &rec, "head", error);
    migrate_head_init(&h);
    if (!parse_head(r, &rec, &h, error)) {
        migrate_head_done(&h);
        return false;
    }
    *ret = h;
    return true;
}

bool migrate_read_go(struct migrate_reader *r, GError **error)
{
    struct record rec;
    return read_record(r, &rec, error) && (rec.kind == MIGRATE_GO || unexpected(r, &rec, "go", error));
}

bool migrate_read_answer(struct migrate_reader *r, GError **error)
{
    struct record rec;
    if (!read_record(r, &rec, error))
        return false;
    if (rec.kind != MIGRATE_ANSWER)
        return unexpected(r, &rec, "answer", error);
    struct cur c = cur_of(rec.payload, rec.payload_bytes);
    uint32_t yes = cur_le32(&c);
    g_autofree char *why = take_text(&c);
    if (c.bad || c.left || yes > 1)
        return ruche_error(error, RUCHE_ERR_INVALID, "the other side's answer is malformed");
    return yes || ruche_error(error, RUCHE_ERR_STATE, "the other side refuses: %s", why);
}

/* ---- RAM, state, end ---- */

/* First pass: is all of it RAM, and is the payload as long as the extents say? Second: apply. */
static bool take_ram(struct migrate_reader *r, const struct record *rec, const struct migrate_ram *ram, GError **error)
{
    for (int apply = 0; apply < 2; apply++) {
        struct cur c = rec->extent, data = cur_of(rec->payload, rec->payload_bytes);
        uint64_t pages = 0;
        for (uint32_t i = 0; i < rec->extents; i++) {
            uint64_t page = cur_le64(&c);
            uint32_t count = cur_le32(&c), flags = cur_le32(&c);
            uint8_t *to = flags <= 1 && count ? migrate_ram_at(ram, page, count) : NULL;
            size_t bytes = (size_t)count * MIGRATE_PAGE;
            const uint8_t *from = to && !flags ? cur_take(&data, bytes) : NULL;
            pages += count;
            if (pages > ram->low_pages + ram->high_pages)
                return bad(r, error, "has more pages than this machine's RAM");
            if (!to || data.bad)
                return ruche_error(error, RUCHE_ERR_INVALID,
                                   "record %" PRIu64 " of the stream has %u pages from page 0x%" PRIx64
                                   " on, which %s", r->number - 1, count, page,
                                   to ? "are cut off" : "are not this machine's RAM");
            if (apply && from)
                memcpy(to, from, bytes);
            else if (apply)
                memset(to, 0, bytes);
        }
        if (data.left)
            return ruche_error(error, RUCHE_ERR_INVALID, "record %" PRIu64 " of the stream has %zu bytes too many",
                               r->number - 1, data.left);
    }
    return true;
}

static bool take_state(struct migrate_reader *r, const struct record *rec, GByteArray *state, GError **error)
{
    if (state->len + (uint64_t)rec->payload_bytes > MIGRATE_STATE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "the state in the stream has more than %u bytes", MIGRATE_STATE_MAX);
    g_byte_array_append(state, rec->payload, rec->payload_bytes);
    return true;
}

static bool take_end(const struct record *rec, char **ret_run_state, GError **error)
{
    struct cur c = cur_of(rec->payload, rec->payload_bytes);
    g_autofree char *run_state = take_text(&c);
    if (c.bad || c.left)
        return ruche_error(error, RUCHE_ERR_INVALID, "the end of the stream is malformed");
    *ret_run_state = g_steal_pointer(&run_state);
    return true;
}

bool migrate_read_body(struct migrate_reader *r, const struct migrate_ram *ram, GByteArray **ret_state,
                       char **ret_run_state, GError **error)
{
    g_autoptr(GByteArray) state = g_byte_array_new();
    struct record rec;
    for (;;) {
        if (!read_record(r, &rec, error))
            return false;
        bool known = rec.kind == MIGRATE_STATE || rec.kind == MIGRATE_END || (rec.kind == MIGRATE_RAM && !state->len);
        if (!known)
            return unexpected(r, &rec, "end", error);
        if (rec.kind == MIGRATE_END)
            break;
        if (!(rec.kind == MIGRATE_RAM ? take_ram(r, &rec, ram, error) : take_state(r, &rec, state, error)))
            return false;
    }
    if (!take_end(&rec, ret_run_state, error))
        return false;
    *ret_state = g_steal_pointer(&state);
    return true;
}
