/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Volumes on a real folder: made, copied, wiped, read and written. Part of storage_test. */
#include "manager/storage/storage_test.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static char *volume_text(const char *name, const char *more)
{
    return g_strdup_printf("<volume><name>%s</name>%s</volume>", name, more);
}

static bool make(struct pool *p, const char *name, const char *more, GError **error)
{
    g_autofree char *xml = volume_text(name, more), *made = NULL;
    bool ok = volume_create_xml(&caller_self, p, xml, NULL, 0, &made, error);
    g_assert_true(!ok || !strcmp(made, name));
    return ok;
}

static void raw_volumes(void *opaque)
{
    struct pool *p = begin_pool();
    g_autoptr(GError) e = NULL;
    g_assert_true(
        make(p, "r",
             "<capacity unit='MiB'>2</capacity><allocation>0</allocation><target><permissions>"
             "<mode>0640</mode></permissions></target>",
             &e));
    struct volume *v = volume_find(p, "r", NULL);
    g_assert_cmpuint(v->capacity, ==, 2 << 20);
    g_assert_cmpuint(v->allocation, ==, 0);
    g_assert_cmpint(v->perms.mode, ==, 0640);
    g_assert_true(make(p, "full", "<capacity unit='K'>64</capacity>", &e));
    g_assert_cmpuint(volume_find(p, "full", NULL)->allocation, >=, 65536);
    assert_refused(make(p, "r", "<capacity>1</capacity>", &error), "exists already");
    put("hidden", "x", 1); /* not seen yet, yet not written over */
    assert_refused(make(p, "hidden", "<capacity>1</capacity>", &error), "already there");
    assert_refused(make(p, "../x", "<capacity>1</capacity>", &error), "../x");
    assert_refused(make(p, STAGE_PREFIX "x", "<capacity>1</capacity>", &error), "kept");
    assert_refused(make(p, "y", "", &error), "capacity");
    assert_refused(make(p, "y", "<capacity unit='E'>9</capacity>", &error), "y");
    assert_refused(make(p, "y", "<capacity unit='Q'>9</capacity>", &error), "not a size");
    assert_refused(make(p, "y", "<capacity unit='EiB'>99</capacity>", &error), "not a size");
    assert_refused(make(p, "y", "<capacity>-1</capacity>", &error), "not a size");
    assert_refused(
        make(p, "y", "<capacity>1</capacity><target><format type='bochs'/></target>", &error),
        "bochs");
    assert_refused(
        make(p, "y", "<capacity>1</capacity><target><encryption format='luks'/></target>", &error),
        "needs one <secret");
    assert_refused(
        make(p, "y", "<capacity>1</capacity><backingStore><path>/x</path></backingStore>", &error),
        "raw");
    g_assert_false(is_there("y"));
    g_assert_true(pool_refresh(&caller_self, p, 0, NULL));
    g_assert_cmpuint(g_hash_table_size(p->volumes), ==, 3); /* and no stage is left */
    end_pool(p);
}

static void clones(void *opaque)
{
    struct pool *p = begin_pool();
    g_autofree char *data = g_malloc(300000), *path = at("a"), *xml = volume_text("b", ""),
                    *copy = at("b"), *got = NULL;
    gsize len;
    memset(data, 'd', 300000);
    put("a", data, 300000);
    g_assert_true(pool_refresh(&caller_self, p, 0, NULL));
    g_autoptr(GError) e = NULL;
    g_assert_true(volume_create_xml(&caller_self, p, xml, path, 0, NULL, &e));
    g_assert_no_error(e);
    g_assert_true(g_file_get_contents(copy, &got, &len, NULL));
    g_assert_true(len == 300000 && !memcmp(got, data, len));
    g_assert_cmpuint(volume_find(p, "a", NULL)->in_use, ==, 0);
    g_autofree char *larger = volume_text("c", "<capacity unit='MiB'>1</capacity>");
    g_assert_true(volume_create_xml(&caller_self, p, larger, path, 0, NULL, NULL));
    g_assert_cmpuint(volume_find(p, "c", NULL)->capacity, ==, 1 << 20);
    g_autofree char *none = volume_text("d", "");
    assert_refused(volume_create_xml(&caller_self, p, none, "/etc/passwd", 0, NULL, &error),
                   "/etc/passwd");
    end_pool(p);
}

static void wiping(void *opaque)
{
    struct pool *p = begin_pool();
    put("w", "secret secret", 13);
    g_assert_true(pool_refresh(&caller_self, p, 0, NULL));
    g_autofree char *path = at("w");
    for (unsigned algorithm = 0; algorithm < 10; algorithm++) {
        g_autofree char *got = NULL;
        gsize len;
        put("w", "secret secret", 13);
        g_autoptr(GError) e = NULL;
        bool ok = volume_wipe(&caller_self, p, "w", algorithm, &e);
        g_assert_true(ok || algorithm == 9); /* not every file system can make holes */
        g_assert_true(g_file_get_contents(path, &got, &len, NULL));
        g_assert_cmpuint(len, ==, 13);
        g_assert_true(!ok || !memmem(got, len, "secret", 6));
    }
    assert_refused(volume_wipe(&caller_self, p, "w", 10, &error), "algorithm 10");
    int fd = open(path, O_RDWR);
    struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 101, .l_len = 1};
    g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &l), ==, 0); /* as a machine that writes to it */
    assert_refused(volume_wipe(&caller_self, p, "w", 0, &error), "in use");
    close(fd);
    end_pool(p);
}

/* As a machine looks before it starts: may it write? */
static void check_locked(const char *name, bool yes)
{
    g_autofree char *path = at(name);
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 201, .l_len = 1};
    int fd = open(path, O_RDWR);
    g_assert_cmpint(fcntl(fd, F_OFD_GETLK, &l), ==, 0);
    g_assert_true((l.l_type != F_UNLCK) == yes);
    close(fd);
}

static void streams(void *opaque)
{
    struct pool *p = begin_pool();
    uint64_t length;
    char buffer[16] = "";
    put("s", "0123456789", 10);
    g_assert_true(pool_refresh(&caller_self, p, 0, NULL));
    int fd = volume_open(&caller_self, p, "s", VOLUME_READ, 4, 0, &length, NULL);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpuint(length, ==, 6);
    g_assert_cmpint(read(fd, buffer, sizeof(buffer)), ==, 6);
    g_assert_cmpstr(buffer, ==, "456789");
    assert_refused(volume_delete(&caller_self, p, "s", 0, false, &error), "in use");
    assert_refused(pool_destroy(&caller_self, p, &error), "in use");
    volume_close(p, "s", fd, false);
    task_sleep_ms(50);
    assert_refused(volume_open(&caller_self, p, "s", VOLUME_WRITE, 10, 0, &length, &error) >= 0,
                   "behind its end");
    assert_refused(volume_open(&caller_self, p, "s", VOLUME_WRITE, 4, 7, &length, &error) >= 0, "7 bytes");
    fd = volume_open(&caller_self, p, "s", VOLUME_WRITE, 7, 0, &length, NULL);
    g_assert_cmpuint(length, ==, 3);
    g_assert_cmpint(write(fd, "abc", 3), ==, 3);
    check_locked("s", true);
    g_string_truncate(events, 0);
    volume_close(p, "s", fd, true);
    while (!events->len)
        task_sleep_ms(5);
    g_assert_cmpuint(volume_find(p, "s", NULL)->capacity, ==, 10);
    g_assert_cmpuint(volume_find(p, "s", NULL)->in_use, ==, 0);
    check_locked("s", false);
    assert_refused(volume_open(&caller_self, p, "s", VOLUME_READ, 14, 0, &length, &error) >= 0,
                   "behind its end");
    assert_refused(volume_open(&caller_self, p, "s", VOLUME_READ, 4, 100, &length, &error) >= 0,
                   "100 bytes");
    assert_refused(volume_open(&caller_self, p, "none", VOLUME_READ, 0, 0, &length, &error) >= 0, "none");
    end_pool(p);
}

/* A header by hand: version 3, 64 KiB clusters, 1 GiB, a backing file of a relative name. */
static void qcow2_heads(void *opaque)
{
    uint8_t head[512] = {'Q', 'F', 'I', 0xfb, 0, 0, 0, 3, 0,  0, 0, 0, 0, 0,   1,
                         0,   0,   0,   0,    4, 0, 0, 0, 16, 0, 0, 0, 0, 0x40};
    static const uint8_t extension[] = {0xe2, 0x79, 0x2a, 0xca, 0, 0, 0, 3, 'r', 'a', 'w'};
    head[103] = 104;
    memcpy(head + 104, extension, sizeof(extension));
    memcpy(head + 256, "base", 4);
    struct pool *p = begin_pool();
    g_autofree char *base = at("base");
    put("ok", (char *)head, sizeof(head));
    head[259] = ':'; /* "bas:" is a protocol */
    put("protocol", (char *)head, sizeof(head));
    head[23] = 40;
    put("clusters", (char *)head, sizeof(head));
    put("short", (char *)head, 80);
    g_assert_true(pool_refresh(&caller_self, p, 0, NULL));
    struct volume *v = volume_find(p, "ok", NULL);
    g_assert_cmpuint(v->capacity, ==, 1 << 30);
    g_assert_cmpuint(v->cluster_size, ==, 65536);
    g_assert_cmpstr(v->compat, ==, "1.1");
    g_assert_cmpstr(v->backing, ==, base);
    g_assert_cmpstr(v->backing_format, ==, "raw");
    g_assert_null(volume_find(p, "protocol", NULL)->backing);
    g_assert_cmpuint(volume_find(p, "clusters", NULL)->capacity, ==, sizeof(head));
    g_assert_null(volume_find(p, "short", NULL)->compat);
    end_pool(p);
}

static void images(void *opaque)
{
    if (!img)
        return g_test_skip("ruche-img was not given");
    struct pool *p = begin_pool();
    g_autoptr(GError) e = NULL;
    g_assert_true(
        make(p, "base",
             "<capacity unit='MiB'>8</capacity><target><format type='qcow2'/><compat>1.1</compat>"
             "<features><lazy_refcounts/></features></target>",
             &e));
    g_assert_no_error(e);
    struct volume *v = volume_find(p, "base", NULL);
    g_assert_cmpstr(v->format, ==, "qcow2");
    g_assert_cmpuint(v->capacity, ==, 8 << 20);
    g_assert_cmpuint(v->physical, <, 1 << 20);
    g_assert_true(v->lazy_refcounts);
    g_autofree char *base = at("base");
    g_autofree char *over =
        g_strdup_printf("<backingStore><path>%s</path><format type='qcow2'/></backingStore><target>"
                        "<format type='qcow2'/></target>",
                        base);
    g_assert_true(make(p, "over", over, &e));
    g_assert_cmpstr(volume_find(p, "over", NULL)->backing, ==, base);
    g_assert_cmpstr(volume_find(p, "over", NULL)->backing_format, ==, "qcow2");
    g_assert_true(volume_resize(&caller_self, p, "over", 4 << 20, 2, false, &e)); /* by 4 MiB */
    g_assert_cmpuint(volume_find(p, "over", NULL)->capacity, ==, 12 << 20);
    assert_refused(volume_resize(&caller_self, p, "over", 1 << 20, 0, false, &error), "cannot shrink");
    assert_refused(volume_resize(&caller_self, p, "over", 1ull << 62, 0, false, &error), "do not fit");
    assert_refused(volume_resize(&caller_self, p, "over", UINT64_MAX, 2, false, &error), "too large");
    static const char *const formats[] = {"raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx"};
    for (unsigned i = 0; i < ARRAY_COUNT(formats); i++) {
        g_autofree char *name = g_strconcat("copy.", formats[i], NULL);
        g_autofree char *more = g_strdup_printf("<target><format type='%s'/></target>", formats[i]);
        g_autofree char *xml = volume_text(name, more);
        bool ok = volume_create_xml(&caller_self, p, xml, base, 0, NULL, &e);
        g_assert_no_error(e);
        g_assert_true(ok);
        g_assert_cmpstr(volume_find(p, name, NULL)->format, ==, formats[i]);
        g_assert_cmpuint(volume_find(p, name, NULL)->capacity, >=, 8 << 20);
    }
    g_assert_true(pool_refresh(&caller_self, p, 0, NULL));
    g_assert_cmpuint(g_hash_table_size(p->volumes), ==, 8);
    assert_refused(
        make(p, "broken",
             "<capacity>1</capacity><backingStore><path>/nonexistent</path></backingStore><target>"
             "<format type='qcow2'/></target>",
             &error),
        "/nonexistent");
    g_assert_false(is_there("broken"));
    end_pool(p);
}

TEST(raw_volumes)
TEST(clones)
TEST(wiping)
TEST(streams)
TEST(images)
TEST(qcow2_heads)

void volume_tests_add(void)
{
    g_test_add_func("/volume/raw", test_raw_volumes);
    g_test_add_func("/volume/clones", test_clones);
    g_test_add_func("/volume/wiping", test_wiping);
    g_test_add_func("/volume/streams", test_streams);
    g_test_add_func("/volume/qcow2", test_qcow2_heads);
    g_test_add_func("/volume/images", test_images);
}
