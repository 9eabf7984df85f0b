/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pools and volumes on a real folder. The program's arguments: ruche-img (without it, images other
 * than raw are skipped). */
#include "base/scratch.h"
#include "manager/storage/pool.h"
#include "manager/storage/storage_priv.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static char *root, *img, *target;
static GString *events;

static void run(void (*fn)(void *opaque), void *opaque)
{
    task_start(fn, opaque);
    while (task_count())
        g_main_context_iteration(NULL, true);
}

static void remove_tree(const char *path)
{
    g_autoptr(GDir) dir =
        g_file_test(path, G_FILE_TEST_IS_SYMLINK) ? NULL : g_dir_open(path, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *full = g_build_filename(path, name, NULL);
        remove_tree(full);
    }
    g_remove(path);
}

static void on_event(void *opaque, const struct event *e)
{
    g_string_append_printf(events, "%s:%d:%d ", e->name, e->id, e->event);
}

static char *at(const char *name)
{
    return g_build_filename(target, name, NULL);
}

static void put(const char *name, const char *bytes, size_t len)
{
    g_autofree char *path = at(name);
    g_assert_true(g_file_set_contents(path, bytes, (gssize)len, NULL));
}

static bool is_there(const char *name)
{
    g_autofree char *path = at(name);
    return g_file_test(path, G_FILE_TEST_EXISTS);
}

static char *pool_text(const char *name, const char *path)
{
    return g_strdup_printf(
        "<pool type='dir'><name>%s</name><target><path>%s</path></target></pool>", name, path);
}

/* A defined, built and started pool 'p'; the caller destroys it by end_pool(). */
static struct pool *begin_pool(void)
{
    g_autofree char *xml = pool_text("p", target);
    g_autoptr(GError) error = NULL;
    struct pool *p = pool_define(&caller_self, xml, 0, &error);
    g_assert_no_error(error);
    g_assert_true(pool_build(&caller_self, p, 0, NULL));
    g_assert_true(pool_start(&caller_self, p, 0, &error));
    g_assert_no_error(error);
    return p;
}

static void end_pool(struct pool *p)
{
    if (p->state != POOL_INACTIVE)
        g_assert_true(pool_destroy(&caller_self, p, NULL));
    g_assert_true(pool_undefine(&caller_self, p, NULL));
    pool_unref(p);
    remove_tree(target);
}

#define assert_refused(call, word)                                                                 \
    do {                                                                                           \
        g_autoptr(GError) error = NULL;                                                            \
        g_assert_true(!(call));                                                                    \
        g_assert_nonnull(error);                                                                   \
        if (!strstr(error->message, word))                                                         \
            g_error("'%s' is not in: %s", word, error->message);                                   \
    } while (0)

/* ---- pools ---- */

static void life(void *opaque)
{
    g_string_truncate(events, 0);
    struct pool *p = begin_pool();
    g_assert_cmpint(p->state, ==, POOL_RUNNING);
    g_assert_cmpuint(p->capacity, >, 0);
    g_assert_cmpuint(p->allocation, <=, p->capacity);
    assert_refused(pool_start(&caller_self, p, 0, &error), "already active");
    assert_refused(pool_undefine(&caller_self, p, &error), "still active");
    assert_refused(pool_delete(&caller_self, p, 0, &error), "still active");
    assert_refused(pool_build(&caller_self, p, 0, &error), "active");
    assert_refused(pool_refresh(&caller_self, p, 1, &error), "0x1");
    g_assert_true(pool_set_autostart(&caller_self, p, true, NULL));
    struct pool *same = pool_find_target(target, NULL);
    g_assert_true(same == p);
    pool_unref(same);
    g_autofree char *xml = pool_xml(&caller_self, p, 0, NULL);
    g_assert_nonnull(strstr(xml, "<mode>0711</mode>"));
    g_autofree char *inactive = pool_xml(&caller_self, p, 1, NULL);
    g_assert_nonnull(strstr(inactive, "<capacity unit='bytes'>0</capacity>"));
    g_assert_true(pool_destroy(&caller_self, p, NULL));
    assert_refused(pool_destroy(&caller_self, p, &error), "not active");
    assert_refused(pool_refresh(&caller_self, p, 0, &error), "not active");
    g_assert_true(pool_delete(&caller_self, p, 0, NULL));
    g_assert_false(g_file_test(target, G_FILE_TEST_EXISTS));
    assert_refused(pool_start(&caller_self, p, 0, &error), target);
    g_assert_true(pool_start(&caller_self, p, 1, NULL)); /* with build */
    end_pool(p);
    g_assert_cmpstr(events->str, ==, "p:0:0 p:0:4 p:0:2 p:0:3 p:0:5 p:0:2 p:0:3 p:0:1 ");
}

static void bad_descriptions(void *opaque)
{
    static const struct {
        const char *xml, *word;
    } rows[] = {
        {"", "well-formed"},
        {"<pool/>", "type"},
        {"<pool type='dir'/>", "name"},
        {"<pool type='dir'><name>x</name></pool>", "target path"},
        {"<pool type='dir'><name>x</name><target><path>rel</path></target></pool>", "absolute"},
        {"<pool type='sheepdog'><name>x</name></pool>", "'sheepdog' is not supported"},
        {"<pool type='cloud'><name>x</name></pool>", "'cloud'"},
        {"<pool type='dir'><name>a/b</name><target><path>/x</path></target></pool>", "a/b"},
        {"<pool type='dir'><name>..</name><target><path>/x</path></target></pool>", ".."},
        {"<pool type='dir'><name>x</name><uuid>z</uuid><target><path>/x</path></target></pool>",
         "UUID"},
        {"<pool "
         "type='dir'><name>x</name><target><path>/x</path><permissions><mode>9</mode></"
         "permissions></target></pool>",
         "octal"},
        {"<pool "
         "type='dir'><name>x</name><target><path>/x</path><permissions><owner>bob</owner></"
         "permissions></target>"
         "</pool>",
         "bob"},
        {"<!DOCTYPE pool [<!ENTITY a 'b'>]><pool type='dir'><name>&a;</name></pool>",
         "document type"},
    };
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++)
        assert_refused(pool_define(&caller_self, rows[i].xml, 0, &error), rows[i].word);
    assert_refused(
        pool_define(&caller_self,
                    "<pool type='dir'><name>x</name><target><path>/x</path><what/></target></pool>",
                    1, &error),
        "<what>");
    struct caller reader = {
        .transport = "unix", .uid = 0, .authenticated = true, .read_only = true};
    g_autofree char *xml = pool_text("x", target);
    assert_refused(pool_define(&reader, xml, 0, &error), "read");
}

static void clashes(void *opaque)
{
    struct pool *p = begin_pool();
    g_autofree char *same_folder = pool_text("q", target),
                    *same_name = pool_text("p", "/somewhere/else");
    assert_refused(pool_define(&caller_self, same_folder, 0, &error),
                   "already that of storage pool 'p'");
    assert_refused(pool_define(&caller_self, same_name, 0, &error), "is active");
    assert_refused(pool_create_xml(&caller_self, same_name, 0, &error), "already active");
    struct pool *found = pool_find_name("p", NULL);
    g_assert_true(found == p && p->persistent);
    pool_unref(found);
    end_pool(p);
    g_autofree char *missing = pool_text("t", target);
    assert_refused(pool_create_xml(&caller_self, missing, 0, &error), target);
    assert_refused(pool_find_name("t", &error), "'t'");
    struct pool *t = pool_create_xml(&caller_self, missing, 1, NULL);
    g_assert_false(t->persistent);
    assert_refused(pool_set_autostart(&caller_self, t, true, &error), "transient");
    g_assert_true(pool_destroy(&caller_self, t, NULL));
    assert_refused(pool_find_name("t", &error), "'t'");
    pool_unref(t);
    remove_tree(target);
}

static void restart(void *opaque)
{
    struct pool *p = begin_pool();
    uint8_t uuid[16];
    memcpy(uuid, p->uuid, sizeof(uuid));
    g_assert_true(pool_set_autostart(&caller_self, p, true, NULL));
    put("a", "abc", 3);
    g_mkdir(".", 0700);
    g_autofree char *left = at(STAGE_PREFIX "0123"), *half = at(STAGE_PREFIX "0123/half");
    g_assert_cmpint(g_mkdir(left, 0700), ==, 0);
    g_assert_true(g_file_set_contents(half, "x", 1, NULL));
    g_autofree char *held = at(STAGE_PREFIX "4567");
    g_assert_cmpint(g_mkdir(held, 0700), ==, 0);
    int fd = open(held, O_RDONLY | O_DIRECTORY);
    g_assert_cmpint(flock(fd, LOCK_EX), ==, 0);
    pool_unref(p);
    pools_stop(); /* the manager ends; the pool runs on */
    g_assert_true(pools_load(NULL));
    p = pool_find_uuid(uuid, NULL);
    g_assert_true(p && p->state == POOL_RUNNING && p->persistent && p->autostart);
    while (!g_hash_table_size(p->volumes))
        task_sleep_ms(5);
    g_assert_nonnull(volume_find(p, "a", NULL));
    g_assert_false(g_file_test(left, G_FILE_TEST_EXISTS)); /* nobody's any more */
    g_assert_true(g_file_test(held, G_FILE_TEST_EXISTS));  /* somebody is at work there */
    close(fd);
    g_assert_true(pool_destroy(&caller_self, p, NULL));
    pool_unref(p);
    pools_stop();
    g_assert_true(pools_load(NULL)); /* now as after a boot */
    pools_autostart();
    p = pool_find_uuid(uuid, NULL);
    g_assert_cmpint(p->state, ==, POOL_RUNNING);
    end_pool(p);
    pools_stop();
    g_assert_true(pools_load(NULL));
    assert_refused(pool_find_uuid(uuid, &error), "no storage pool");
}

static void vanished(void *opaque)
{
    struct pool *p = begin_pool();
    remove_tree(target);
    assert_refused(pool_refresh(&caller_self, p, 0, &error), target);
    g_assert_cmpint(p->state, ==, POOL_INACTIVE);
    end_pool(p);
}

/* ---- volumes ---- */

static void odd_files(void *opaque)
{
    struct pool *p = begin_pool();
    g_autofree char *dir = at("folder"), *fifo = at("fifo"), *out = at("out"), *in = at("in"),
                    *none = at("none");
    put("plain", "hello", 5);
    put("bad\xff", "x", 1);
    put("hostile", "QFI\xfb\xff\xff\xff\xff", 8);
    put("line\nfeed", "x", 1);
    g_assert_cmpint(g_mkdir(dir, 0755), ==, 0);
    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    g_assert_cmpint(symlink("/etc/passwd", out), ==, 0);
    g_assert_cmpint(symlink("plain", in), ==, 0);
    g_assert_cmpint(symlink("nowhere", none), ==, 0);
    g_assert_true(pool_refresh(&caller_self, p, 0, NULL));
    g_assert_cmpuint(g_hash_table_size(p->volumes), ==, 4);
    g_assert_cmpuint(volume_find(p, "plain", NULL)->capacity, ==, 5);
    g_assert_cmpstr(volume_find(p, "plain", NULL)->format, ==, "raw");
    g_assert_cmpint(volume_find(p, "folder", NULL)->type, ==, 2);
    g_assert_nonnull(volume_find(p, "in", NULL));
    g_assert_nonnull(
        volume_find(p, "hostile", NULL)); /* ruche-img refuses it; it is a file all the same */
    assert_refused(volume_find(p, "out", &error), "'out'");
    g_autofree char *path = at("plain");
    struct pool *where = NULL;
    g_assert_true(volume_find_path(path, &where, NULL) == volume_find(p, "plain", NULL) &&
                  where == p);
    pool_unref(where);
    assert_refused(volume_find_path("/etc/passwd", NULL, &error), "/etc/passwd");
    g_autofree char *text = volume_xml(&caller_self, p, "plain", NULL);
    g_assert_nonnull(strstr(text, "<physical unit='bytes'>5</physical>"));
    g_assert_true(volume_delete(&caller_self, p, "in", 0, false, NULL)); /* the link, not the file */
    g_assert_true(is_there("plain") && !is_there("in"));
    g_assert_true(volume_delete(&caller_self, p, "folder", 0, false, NULL));
    g_assert_cmpint(g_unlink(path), ==, 0);
    assert_refused(volume_xml(&caller_self, p, "plain", &error),
                   "plain"); /* gone behind our back */
    end_pool(p);
}

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

#define TEST(fn)                                                                                   \
    static void test_##fn(void)                                                                    \
    {                                                                                              \
        run(fn, NULL);                                                                             \
    }
TEST(life)
TEST(bad_descriptions)
TEST(clashes)
TEST(restart)
TEST(vanished)
TEST(odd_files)
TEST(raw_volumes)
TEST(clones)
TEST(wiping)
TEST(streams)
TEST(images)
TEST(qcow2_heads)

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    umask(022);
    g_test_init(&argc, &argv, NULL);
    if (argc > 1)
        img = g_canonicalize_filename(argv[1], NULL);
    root = scratch_folder("storage-test");
    target = g_build_filename(root, "images", NULL);
    manager.config_dir = g_build_filename(root, "config", NULL);
    manager.runtime_dir = g_build_filename(root, "run", NULL);
    manager.img = img ? img : (char *)"/nonexistent";
    events = g_string_new(NULL);
    struct event_listener listener = {.fn = on_event};
    event_listen(&listener);
    g_test_add_func("/pool/life", test_life);
    g_test_add_func("/pool/bad", test_bad_descriptions);
    g_test_add_func("/pool/clashes", test_clashes);
    g_test_add_func("/pool/restart", test_restart);
    g_test_add_func("/pool/vanished", test_vanished);
    g_test_add_func("/volume/odd", test_odd_files);
    g_test_add_func("/volume/raw", test_raw_volumes);
    g_test_add_func("/volume/clones", test_clones);
    g_test_add_func("/volume/wiping", test_wiping);
    g_test_add_func("/volume/streams", test_streams);
    g_test_add_func("/volume/qcow2", test_qcow2_heads);
    g_test_add_func("/volume/images", test_images);
    return g_test_run();
}
