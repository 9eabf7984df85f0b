/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The stream of migrations: what goes in comes out; every cut, flip and exchange is refused. */
#include "vmm/migrate_stream.h"

#include <string.h>

#define LOW_PAGES 16u
#define HIGH_PAGES 600u
#define HIGH_FIRST (1u << 20)

/* A stream in memory. */
struct tape {
    GByteArray *bytes;
    size_t at;
};

static bool tape_write(void *opaque, void *buf, size_t len, GError **error)
{
    g_byte_array_append(((struct tape *)opaque)->bytes, buf, (guint)len);
    return true;
}

static bool tape_read(void *opaque, void *buf, size_t len, GError **error)
{
    struct tape *t = opaque;
    if (len > t->bytes->len - t->at)
        return ruche_error(error, RUCHE_ERR_IO, "the tape ends too early");
    memcpy(buf, t->bytes->data + t->at, len);
    t->at += len;
    return true;
}

static struct migrate_ram new_ram(void)
{
    struct migrate_ram r = { .low_pages = LOW_PAGES, .high_first = HIGH_FIRST, .high_pages = HIGH_PAGES };
    r.low = g_malloc0((LOW_PAGES + HIGH_PAGES) * MIGRATE_PAGE);
    r.high = r.low + LOW_PAGES * MIGRATE_PAGE;
    return r;
}

static void add_page(struct migrate_writer *w, uint64_t page, const void *data)
{
    g_autoptr(GError) error = NULL;
    while (!migrate_add_page(w, page, data)) {
        g_assert_true(migrate_flush_ram(w, &error));
        g_assert_no_error(error);
    }
}

/* Low RAM in runs with gaps, high RAM whole, a page that becomes zero again. */
static GByteArray *write_stream(struct migrate_ram *ram)
{
    g_autoptr(GError) error = NULL;
    struct tape t = { .bytes = g_byte_array_new() };
    struct migrate_writer w;
    struct migrate_head h;
    g_assert_true(migrate_writer_init(&w, tape_write, &t));
    migrate_head_init(&h);
    migrate_head_add(&h, "board", "q35");
    migrate_head_add(&h, "vCPUs", "%u", 2);
    g_assert_true(migrate_write_head(&w, &h, &error));
    for (unsigned i = 0; i < (LOW_PAGES + HIGH_PAGES) * MIGRATE_PAGE; i++)
        ram->low[i] = (uint8_t)(i * 7 + i / 4096 + 1);
    memset(ram->low + 3 * MIGRATE_PAGE, 0, MIGRATE_PAGE);
    for (unsigned i = 0; i < LOW_PAGES; i++)
        if (i != 3)
            add_page(&w, i, ram->low + i * MIGRATE_PAGE);
    add_page(&w, 3, ram->low);
    for (unsigned i = 0; i < HIGH_PAGES; i++)
        add_page(&w, HIGH_FIRST + i, ram->high + i * MIGRATE_PAGE);
    add_page(&w, 3, NULL);
    g_assert_true(migrate_flush_ram(&w, &error));
    g_autofree uint8_t *state = g_malloc0(3u << 20);
    state[0] = 1;
    state[(3u << 20) - 1] = 2;
    g_assert_true(migrate_write_state(&w, state, 3u << 20, &error));
    g_assert_true(migrate_write_end(&w, "paused", &error));
    migrate_head_done(&h);
    migrate_writer_done(&w);
    return t.bytes;
}

static bool read_stream(GByteArray *bytes, const struct migrate_ram *ram, GError **error)
{
    struct tape t = { .bytes = bytes };
    struct migrate_reader r;
    struct migrate_head h = { 0 };
    GByteArray *state = NULL;
    char *run_state = NULL;
    g_assert_true(migrate_reader_init(&r, tape_read, &t));
    bool ok = migrate_read_head(&r, &h, error) && migrate_read_body(&r, ram, &state, &run_state, error);
    if (ok) {
        g_assert_cmpuint(state->len, ==, 3u << 20);
        g_assert_cmpuint(state->data[0], ==, 1);
        g_assert_cmpuint(state->data[state->len - 1], ==, 2);
        g_assert_cmpstr(run_state, ==, "paused");
        g_assert_cmpstr(g_ptr_array_index(h.items, 3), ==, "2");
        g_byte_array_unref(state);
        g_free(run_state);
    } else {
        g_assert_null(state);
        g_assert_null(run_state);
    }
    migrate_head_done(&h);
    migrate_reader_done(&r);
    return ok;
}

static void test_round_trip(void)
{
    g_autoptr(GError) error = NULL;
    struct migrate_ram from = new_ram(), to = new_ram();
    g_autoptr(GByteArray) bytes = write_stream(&from);
    memset(to.low, 0xee, (LOW_PAGES + HIGH_PAGES) * MIGRATE_PAGE);
    g_assert_true(read_stream(bytes, &to, &error));
    g_assert_no_error(error);
    g_assert_cmpmem(from.low, (LOW_PAGES + HIGH_PAGES) * MIGRATE_PAGE, to.low, (LOW_PAGES + HIGH_PAGES) * MIGRATE_PAGE);
    g_assert_cmpuint(bytes->len % MIGRATE_PAGE, ==, 0);
    g_free(from.low);
    g_free(to.low);
}

static void test_zeroes_cost_nothing(void)
{
    g_autoptr(GError) error = NULL;
    struct tape t = { .bytes = g_byte_array_new() };
    struct migrate_writer w;
    g_assert_true(migrate_writer_init(&w, tape_write, &t));
    for (uint64_t page = 0; page < 1u << 20; page++)
        add_page(&w, page, NULL);
    g_assert_true(migrate_flush_ram(&w, &error));
    g_assert_cmpuint(t.bytes->len, ==, MIGRATE_PAGE);
    migrate_writer_done(&w);
    g_byte_array_unref(t.bytes);
}

/* A stream that ends anywhere has no END. */
static void test_truncated(void)
{
    struct migrate_ram from = new_ram(), to = new_ram();
    g_autoptr(GByteArray) bytes = write_stream(&from);
    guint whole = bytes->len;
    /* Every place near the ends of the first records and of the stream, some between. */
    for (guint len = 0; len < whole; len += len % MIGRATE_PAGE < 40 || whole - len < 40 ? 1 : 997) {
        g_autoptr(GError) error = NULL;
        bytes->len = len;
        g_assert_false(read_stream(bytes, &to, &error));
        g_assert_nonnull(error);
        if (len > 3 * MIGRATE_PAGE && whole - len > 100000)
            len += 61 * MIGRATE_PAGE;
    }
    bytes->len = whole;
    g_free(from.low);
    g_free(to.low);
}

static void test_flips(void)
{
    struct migrate_ram from = new_ram(), to = new_ram();
    g_autoptr(GByteArray) bytes = write_stream(&from);
    for (guint at = 0; at < bytes->len; at += at < 200 ? 1 : 40009) {
        g_autoptr(GError) error = NULL;
        uint8_t bit = (uint8_t)(1 << at % 8);
        bytes->data[at] ^= bit;
        g_assert_false(read_stream(bytes, &to, &error));
        g_assert_nonnull(error);
        bytes->data[at] ^= bit;
    }
    g_free(from.low);
    g_free(to.low);
}

static void refuse(GByteArray *bytes, const struct migrate_ram *to, const char *why)
{
    g_autoptr(GError) error = NULL;
    g_assert_false(read_stream(bytes, to, &error));
    g_assert_nonnull(error);
    if (!strstr(error->message, why))
        g_error("'%s' does not say '%s'", error->message, why);
}

/* Whole records in the wrong place: the sums are right, the numbers are not. */
static void test_records_exchanged(void)
{
    struct migrate_ram from = new_ram(), to = new_ram();
    g_autoptr(GByteArray) bytes = write_stream(&from);
    g_byte_array_remove_range(bytes, 2 * MIGRATE_PAGE, MIGRATE_RECORD_MAX); /* the first of RAM is full */
    refuse(bytes, &to, "the stream has record 2 where 1 must be");
    g_free(from.low);
    g_free(to.low);
}

/* A record as somebody who means harm would make it: with a right sum. */
static GByteArray *forge(uint64_t number, uint32_t kind, uint32_t payload, uint32_t extents,
                         const uint64_t (*extent)[3])
{
    uint8_t *r = g_malloc0(MIGRATE_PAGE + align_up(payload, MIGRATE_PAGE));
    memcpy(r, "RUCHEVM\n", 8);
    memcpy(r + 8, &kind, 4);
    memcpy(r + 16, &number, 8);
    memcpy(r + 24, &payload, 4);
    memcpy(r + 28, &extents, 4);
    for (uint32_t i = 0; extent && i < extents; i++) {
        uint32_t count = (uint32_t)extent[i][1], flags = (uint32_t)extent[i][2];
        memcpy(r + 32 + 16 * i, &extent[i][0], 8);
        memcpy(r + 40 + 16 * i, &count, 4);
        memcpy(r + 44 + 16 * i, &flags, 4);
    }
    size_t whole = MIGRATE_PAGE + (payload <= MIGRATE_PAYLOAD_MAX ? align_up(payload, MIGRATE_PAGE) : 0);
    uint32_t crc = migrate_crc(0, r, whole);
    memcpy(r + 12, &crc, 4);
    return g_byte_array_new_take(r, whole);
}

static void test_hostile_extents(void)
{
    static const struct {
        uint64_t extent[3];
        uint32_t payload;
        const char *why;
    } rows[] = {
        { { LOW_PAGES, 1, 1 }, 0, "are not this machine's RAM" },
        { { LOW_PAGES - 1, 2, 1 }, 0, "are not this machine's RAM" },
        { { HIGH_FIRST - 1, 1, 1 }, 0, "are not this machine's RAM" },
        { { HIGH_FIRST, HIGH_PAGES + 1, 1 }, 0, "are not this machine's RAM" },
        { { UINT64_MAX, 2, 1 }, 0, "are not this machine's RAM" },
        { { 0, UINT32_MAX, 1 }, 0, "more pages than this machine's RAM" },
        { { 0, 0, 1 }, 0, "are not this machine's RAM" },
        { { 0, 1, 2 }, 0, "are not this machine's RAM" },
        { { 0, 2, 0 }, MIGRATE_PAGE, "are cut off" },
        { { 0, 1, 0 }, 2 * MIGRATE_PAGE, "bytes too many" },
        { { 0, 1, 0 }, MIGRATE_PAGE + 1, "bytes too many" },
    };
    struct migrate_ram from = new_ram(), to = new_ram();
    g_autoptr(GByteArray) bytes = write_stream(&from);
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        g_byte_array_set_size(bytes, 2 * MIGRATE_PAGE);
        g_autoptr(GByteArray) bad = forge(1, MIGRATE_RAM, rows[i].payload, 1, &rows[i].extent);
        g_byte_array_append(bytes, bad->data, bad->len);
        refuse(bytes, &to, rows[i].why);
    }
    g_free(from.low);
    g_free(to.low);
}

static void test_hostile_records(void)
{
    static const struct {
        uint32_t kind, payload, extents;
        const char *why;
    } rows[] = {
        { 0, 0, 0, "of an unknown kind" },
        { 99, 0, 0, "of an unknown kind" },
        { UINT32_MAX, 0, 0, "of an unknown kind" },
        { MIGRATE_RAM, MIGRATE_PAYLOAD_MAX + 1, 0, "longer than records are" },
        { MIGRATE_RAM, 0, MIGRATE_EXTENTS_MAX + 1, "longer than records are" },
        { MIGRATE_HEAD, 0, 0, "is of kind 'head' where 'end' must be" },
        { MIGRATE_ANSWER, 0, 0, "is of kind 'answer' where 'end' must be" },
        { MIGRATE_END, 0, 0, "the end of the stream is malformed" },
    };
    struct migrate_ram from = new_ram(), to = new_ram();
    g_autoptr(GByteArray) bytes = write_stream(&from);
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        g_byte_array_set_size(bytes, 2 * MIGRATE_PAGE);
        g_autoptr(GByteArray) bad = forge(1, rows[i].kind, rows[i].payload, rows[i].extents, NULL);
        g_byte_array_append(bytes, bad->data, bad->len);
        refuse(bytes, &to, rows[i].why);
    }
    g_byte_array_set_size(bytes, 0);
    g_byte_array_append(bytes, (const uint8_t *)"QEVM", 4);
    g_byte_array_set_size(bytes, 8192);
    refuse(bytes, &to, "is no machine that ruche-vmm has saved");
    g_free(from.low);
    g_free(to.low);
}

static void test_head_differs(void)
{
    struct migrate_head a, b;
    g_autoptr(GError) error = NULL;
    migrate_head_init(&a);
    migrate_head_init(&b);
    migrate_head_add(&a, "board", "q35");
    migrate_head_add(&b, "board", "q35");
    g_assert_true(migrate_head_fits(&a, &b, &error));
    migrate_head_add(&a, "device 7", "virtio-net-pci net0");
    g_assert_false(migrate_head_fits(&a, &b, &error));
    g_assert_cmpstr(error->message, ==, "the machine that was saved has device 7 'virtio-net-pci net0', this one has none");
    g_clear_error(&error);
    migrate_head_add(&b, "device 7", "virtio-blk-pci net0");
    g_assert_false(migrate_head_fits(&a, &b, &error));
    g_assert_cmpstr(error->message, ==,
                    "the machine that was saved has device 7 'virtio-net-pci net0', this one 'virtio-blk-pci net0'");
    migrate_head_done(&a);
    migrate_head_done(&b);
}

static bool pass_answer(const char *why_not, GError **error)
{
    struct tape t = { .bytes = g_byte_array_new() };
    struct migrate_writer w;
    struct migrate_reader r;
    g_assert_true(migrate_writer_init(&w, tape_write, &t) && migrate_reader_init(&r, tape_read, &t));
    g_assert_true(migrate_write_answer(&w, why_not, NULL));
    bool yes = migrate_read_answer(&r, error);
    migrate_writer_done(&w);
    migrate_reader_done(&r);
    g_byte_array_unref(t.bytes);
    return yes;
}

static void test_answers(void)
{
    g_autoptr(GError) error = NULL;
    g_assert_true(pass_answer(NULL, &error));
    g_assert_false(pass_answer("there is no disk 'a'", &error));
    g_assert_cmpstr(error->message, ==, "the other side refuses: there is no disk 'a'");
}

/* RFC 3720, B.4. */
static void test_crc(void)
{
    uint8_t data[32] = { 0 };
    g_assert_cmphex(migrate_crc(0, data, 32), ==, 0x8a9136aa);
    memset(data, 0xff, 32);
    g_assert_cmphex(migrate_crc(0, data, 32), ==, 0x62a8ab43);
    for (uint8_t i = 0; i < 32; i++)
        data[i] = i;
    g_assert_cmphex(migrate_crc(migrate_crc(0, data, 5), data + 5, 27), ==, 0x46dd794e);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/migrate/round-trip", test_round_trip);
    g_test_add_func("/migrate/zeroes", test_zeroes_cost_nothing);
    g_test_add_func("/migrate/truncated", test_truncated);
    g_test_add_func("/migrate/flips", test_flips);
    g_test_add_func("/migrate/exchanged", test_records_exchanged);
    g_test_add_func("/migrate/extents", test_hostile_extents);
    g_test_add_func("/migrate/records", test_hostile_records);
    g_test_add_func("/migrate/head", test_head_differs);
    g_test_add_func("/migrate/answers", test_answers);
    g_test_add_func("/migrate/crc", test_crc);
    return g_test_run();
}
