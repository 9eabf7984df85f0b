/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The filters of tests: rules of blkdebug, and the log of blklogwrites byte by byte. */
#include "image/testbed.h"

#include "base/cursor.h"

#include <errno.h>

enum { SIZE = 64 * 1024 };

struct fixture {
    struct bed *bed;
    struct memory_file *disk, *log;
};

static void setup(struct fixture *f, gconstpointer data)
{
    f->bed = bed_new();
    f->disk = memory_file_new("disk", SIZE);
    f->log = memory_file_new("log", 0);
}

static void teardown(struct fixture *f, gconstpointer data)
{
    bed_free(f->bed);
    memory_file_free(f->disk);
    memory_file_free(f->log);
}

static struct node *open_text(struct fixture *f, const char *text, GError **error)
{
    g_autoptr(JsonNode) node = json_from_string(text, NULL);
    g_assert_nonnull(node);
    return node_open(f->bed->graph, json_node_get_object(node), NODE_RW, error);
}

/* A filter over the disk; `rules` are the members of its one rule. */
static struct node *open_rule(struct fixture *f, const char *rule)
{
    GError *error = NULL;
    g_autofree char *text = g_strdup_printf(
        "{\"driver\": \"blkdebug\", \"discard\": \"unmap\", \"inject-error\": [{%s}], "
        "\"image\": {\"driver\": \"memory\", \"name\": \"disk\"}}",
        rule);
    struct node *n = open_text(f, text, &error);
    g_assert_no_error(error);
    return n;
}

/* ---- blkdebug ---- */

static uint8_t bytes[SIZE];

#define WRITE(n, off, len) node_pwrite(n, off, bytes, len, 0)
#define READ(n, off, len)  node_pread(n, off, bytes, len)

static int rules_in_fiber(void *opaque)
{
    struct fixture *f = opaque;
    struct node *n = open_rule(f, "\"event\": \"write_aio\"");
    g_assert_cmpint(READ(n, 0, 512), ==, 0);
    g_assert_cmpint(WRITE(n, 0, 512), ==, -EIO);
    g_assert_cmpint(WRITE(n, 0, 512), ==, -EIO);
    node_unref(n);

    n = open_rule(f,
                  "\"event\": \"read_aio\", \"errno\": 28, \"once\": true, \"immediately\": true");
    g_assert_cmpint(WRITE(n, 0, 512), ==, 0);
    g_assert_cmpint(READ(n, 0, 512), ==, -ENOSPC);
    g_assert_cmpint(READ(n, 0, 512), ==, 0);
    node_unref(n);

    n = open_rule(f, "\"event\": \"flush_to_disk\"");
    g_assert_cmpint(WRITE(n, 0, 512), ==, 0);
    g_assert_cmpint(node_flush(n), ==, -EIO);
    node_unref(n);

    n = open_rule(f, "\"sector\": 3, \"iotype\": \"write\"");
    g_assert_cmpint(WRITE(n, 0, 3 * 512), ==, 0);
    g_assert_cmpint(WRITE(n, 4 * 512, 512), ==, 0);
    g_assert_cmpint(WRITE(n, 0, 3 * 512 + 1), ==, -EIO);
    g_assert_cmpint(WRITE(n, 4 * 512 - 1, 512), ==, -EIO);
    g_assert_cmpint(node_zero(n, 0, 8192, 0), ==, 0);
    node_unref(n);

    n = open_rule(f, "\"skip\": 2, \"once\": true");
    g_assert_cmpint(WRITE(n, 0, 512), ==, 0);
    g_assert_cmpint(node_zero(n, 0, 512, 0), ==, 0);
    g_assert_cmpint(READ(n, 0, 512), ==, -EIO);
    g_assert_cmpint(READ(n, 0, 512), ==, 0);
    g_autoptr(JsonObject) told = n->driver->describe(n);
    g_assert_cmpint(json_object_get_int_member(told, "requests"), ==, 4);
    g_assert_cmpint(json_object_get_int_member(told, "injected"), ==, 1);
    node_unref(n);
    return 0;
}

static void test_rules(struct fixture *f, gconstpointer data)
{
    bed_run(f->bed, rules_in_fiber, f);
}

static int partial_in_fiber(void *opaque)
{
    struct fixture *f = opaque;
    struct node *n = open_rule(f, "\"event\": \"write_aio\", \"partial\": 1000");
    uint8_t got[2];
    memset(bytes, 0x77, sizeof(bytes));
    g_assert_cmpint(WRITE(n, 0, 4096), ==, -EIO);
    memory_file_read(f->disk, 999, got, 2);
    g_assert_cmphex(got[0], ==, 0x77);
    g_assert_cmphex(got[1], ==, 0);
    node_unref(n);
    return 0;
}

static void test_partial(struct fixture *f, gconstpointer data)
{
    bed_run(f->bed, partial_in_fiber, f);
}

static void test_bad_rules(struct fixture *f, gconstpointer data)
{
    static const struct {
        const char *inject, *message;
    } bad[] = {
        {"5", "blkdebug: inject-error is a list of rules"},
        {"[5]", "blkdebug: inject-error: a rule is an object"},
        {"[{\"event\": \"l1_update\"}]", "blkdebug: inject-error: event='l1_update' is not one "
                                         "of none, read_aio, write_aio, flush_to_disk"},
        {"[{\"errno\": 0}]", "blkdebug: inject-error: errno='0' is not between 1 and 4095"},
        {"[{\"onze\": true}]",
         "blkdebug: inject-error: unknown option 'onze'; did you mean 'once'?"},
    };
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *text =
            g_strdup_printf("{\"driver\": \"blkdebug\", \"inject-error\": %s, "
                            "\"image\": {\"driver\": \"memory\", \"name\": \"disk\"}}",
                            bad[i].inject);
        g_assert_null(open_text(f, text, &error));
        g_assert_cmpstr(error->message, ==, bad[i].message);
    }
}

/* ---- blklogwrites ---- */

struct entry {
    uint64_t sector, sectors, flags;
};

/* Reads the entry in log sector *at and moves behind its data. */
static struct entry take_entry(struct fixture *f, uint64_t *at, unsigned sector_bytes)
{
    uint8_t raw[32];
    memory_file_read(f->log, *at * sector_bytes, raw, sizeof(raw));
    struct cur c = cur_of(raw, sizeof(raw));
    struct entry e = {cur_le64(&c), cur_le64(&c), cur_le64(&c)};
    g_assert_cmpuint(cur_le64(&c), ==, 0);
    *at += 1 + (e.flags & 4 ? 0 : e.sectors);
    return e;
}

static void assert_entry(struct fixture *f, uint64_t *at, unsigned sector_bytes, struct entry want)
{
    struct entry e = take_entry(f, at, sector_bytes);
    g_assert_cmpuint(e.sector, ==, want.sector);
    g_assert_cmpuint(e.sectors, ==, want.sectors);
    g_assert_cmpuint(e.flags, ==, want.flags);
}

static void assert_head(struct fixture *f, uint64_t entries, uint32_t sector_bytes)
{
    uint8_t raw[28];
    memory_file_read(f->log, 0, raw, sizeof(raw));
    struct cur c = cur_of(raw, sizeof(raw));
    g_assert_cmphex(cur_le64(&c), ==, 0x6a736677736872);
    g_assert_cmpuint(cur_le64(&c), ==, 1);
    g_assert_cmpuint(cur_le64(&c), ==, entries);
    g_assert_cmpuint(cur_le32(&c), ==, sector_bytes);
}

static struct node *open_log(struct fixture *f, const char *more)
{
    GError *error = NULL;
    g_autofree char *text = g_strdup_printf(
        "{\"driver\": \"blklogwrites\", \"discard\": \"unmap\", %s "
        "\"file\": {\"driver\": \"memory\", \"name\": \"disk\", \"discard\": \"unmap\"}, "
        "\"log\": {\"driver\": \"memory\", \"name\": \"log\"}}",
        more);
    struct node *n = open_text(f, text, &error);
    g_assert_no_error(error);
    return n;
}

static int log_in_fiber(void *opaque)
{
    struct fixture *f = opaque;
    uint64_t at = 1;
    uint8_t got[1024];
    struct node *n = open_log(f, "");
    memset(bytes, 0x42, sizeof(bytes));
    g_assert_cmpint(WRITE(n, 1024, 1024), ==, 0);
    g_assert_cmpint(node_flush(n), ==, 0);
    g_assert_cmpint(node_pwrite(n, 0, bytes, 512, NODE_FUA), ==, 0);
    g_assert_cmpint(node_discard(n, 8192, 4096), ==, 0);
    g_assert_cmpint(node_zero(n, 512, 1024, 0), ==, 0);
    node_unref(n);
    assert_entry(f, &at, 512, (struct entry){2, 2, 0});
    memory_file_read(f->log, 2 * 512, got, 1024);
    g_assert_cmpmem(got, 1024, bytes, 1024);
    assert_entry(f, &at, 512, (struct entry){0, 0, 1});
    assert_entry(f, &at, 512, (struct entry){0, 1, 2});
    assert_entry(f, &at, 512, (struct entry){16, 8, 4});
    assert_entry(f, &at, 512, (struct entry){1, 2, 0});
    uint64_t entries = at * 512 == memory_file_size(f->log) ? 5 : 6;
    if (entries == 6) /* closing flushes */
        assert_entry(f, &at, 512, (struct entry){0, 0, 1});
    g_assert_cmpuint(at * 512, ==, memory_file_size(f->log));
    assert_head(f, entries, 512);

    n = open_log(f, "\"log-append\": true,");
    g_assert_cmpint(WRITE(n, 0, 512), ==, 0);
    node_unref(n);
    assert_entry(f, &at, 512, (struct entry){0, 1, 0});
    return 0;
}

static void test_log(struct fixture *f, gconstpointer data)
{
    bed_run(f->bed, log_in_fiber, f);
}

static int large_in_fiber(void *opaque)
{
    struct fixture *f = opaque;
    uint64_t at = 1;
    struct node *n = open_log(f, "\"log-sector-size\": 4096,");
    g_assert_cmpint(WRITE(n, 100, 10), ==, 0); /* a sector is read, changed, and written */
    node_unref(n);
    assert_entry(f, &at, 4096, (struct entry){0, 1, 0});
    return 0;
}

static void test_large_sectors(struct fixture *f, gconstpointer data)
{
    bed_run(f->bed, large_in_fiber, f);
}

static void test_bad_log(struct fixture *f, gconstpointer data)
{
    static const char disk[] = "\"file\": {\"driver\": \"memory\", \"name\": \"disk\"}, "
                               "\"log\": {\"driver\": \"memory\", \"name\": \"log\"}";
    static const struct {
        const char *more, *message;
    } bad[] = {
        {"\"log-append\": true,",
         "'memory://log' is not a log of writes, version 1, with sectors of 512 bytes"},
        {"\"log-sector-size\": 1000,", "blklogwrites: log-sector-size=1000 is not a power of two"},
    };
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *text =
            g_strdup_printf("{\"driver\": \"blklogwrites\", %s %s}", bad[i].more, disk);
        g_assert_null(open_text(f, text, &error));
        g_assert_cmpstr(error->message, ==, bad[i].message);
    }
}

#define ADD(path, fn) g_test_add(path, struct fixture, NULL, setup, fn, teardown)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("/blkdebug/rules", test_rules);
    ADD("/blkdebug/partial", test_partial);
    ADD("/blkdebug/bad-rules", test_bad_rules);
    ADD("/blklogwrites/log", test_log);
    ADD("/blklogwrites/large-sectors", test_large_sectors);
    ADD("/blklogwrites/bad-log", test_bad_log);
    return g_test_run();
}
