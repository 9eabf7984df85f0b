/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pools on a real folder, and the ground for its volumes (volume_test.c). The program's arguments: ruche-img (without it, images other
 * than raw are skipped). */
#include "base/scratch.h"
#include "manager/storage/pool.h"
#include "manager/storage/storage_priv.h"
#include "manager/storage/storage_test.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static char *root;
char *img, *target;
GString *events;

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

char *at(const char *name)
{
    return g_build_filename(target, name, NULL);
}

void put(const char *name, const char *bytes, size_t len)
{
    g_autofree char *path = at(name);
    g_assert_true(g_file_set_contents(path, bytes, (gssize)len, NULL));
}

bool is_there(const char *name)
{
    g_autofree char *path = at(name);
    return g_file_test(path, G_FILE_TEST_EXISTS);
}

static char *pool_text(const char *name, const char *path)
{
    return g_strdup_printf(
        "<pool type='dir'><name>%s</name><target><path>%s</path></target></pool>", name, path);
}

struct pool *begin_pool(void)
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

void end_pool(struct pool *p)
{
    if (p->state != POOL_INACTIVE)
        g_assert_true(pool_destroy(&caller_self, p, NULL));
    g_assert_true(pool_undefine(&caller_self, p, NULL));
    pool_unref(p);
    remove_tree(target);
}

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

TEST(life)
TEST(bad_descriptions)
TEST(clashes)
TEST(restart)
TEST(vanished)
TEST(odd_files)

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
    volume_tests_add();
    return g_test_run();
}
