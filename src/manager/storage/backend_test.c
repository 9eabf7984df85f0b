/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Types of pools without their storage: descriptions of each, what programs print (recorded, odd
 * and hostile), and programs that hang, fail or print garbage, put in front of PATH. */
#include "base/scratch.h"
#include "manager/storage/readers.h"
#include "manager/storage/storage_priv.h"
#include "manager/task_testing.h"

#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

static char *root, *bin;

static GHashTable *table(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)volume_free);
}

/* ---- descriptions ---- */

#define TARGET "<target><path>/t</path></target>"
#define POOL(type, source)                                                                         \
    "<pool type='" type "'><name>x</name><source>" source "</source>" TARGET "</pool>"

static void test_descriptions(void)
{
    static const char *const good[] = {
        POOL("dir", ""),
        POOL("fs", "<device path='/dev/sdb1'/><format type='xfs'/>"),
        POOL("netfs", "<host name='h'/><dir path='/e'/>"),
        POOL("netfs", "<host name='h' port='2049'/><dir path='/e'/><format type='nfs'/><protocol "
                      "ver='4.1'/>"),
        POOL("netfs", "<host name='::1'/><dir path='share'/><format type='cifs'/>"),
        POOL("logical", "<device path='/dev/sdb'/><device path='/dev/sdc'/><name>vg</name>"),
        "<pool type='logical'><source><name>vg</name></source></pool>",
        POOL("disk", "<device path='/dev/sdb'/><format type='gpt'/>"),
        POOL("iscsi", "<host name='h'/><device path='iqn.2026-01.org.x:y'/>"),
        "<pool type='iscsi-direct'><name>x</name><source><host name='h'/><device "
        "path='iqn.2026-01.org.x:y'/>"
        "<initiator><iqn name='iqn.2026-01.org.x:us'/></initiator></source></pool>",
        POOL("scsi", "<adapter type='scsi_host' name='scsi_host1'/>"),
        POOL("scsi", "<adapter type='fc_host' wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'/>"),
        "<pool type='mpath'><name>x</name><target><path>/dev/mapper</path></target></pool>",
        "<pool type='rbd'><name>x</name><source><name>p</name><host name='a' port='6789'/><host "
        "name='b'/></source></pool>",
        "<pool type='zfs'><name>x</name><source><name>tank</name></source></pool>",
        "<pool type='netfs' "
        "xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0'><name>x</name><source><host "
        "name='h'/>"
        "<dir path='/e'/></source>" TARGET
        "<fs:mount_opts><fs:option name='sync'/></fs:mount_opts></pool>",
    };
    for (unsigned i = 0; i < ARRAY_COUNT(good); i++) {
        g_autoptr(GError) error = NULL;
        struct pool_def *d = pool_def_new(good[i], true, &error);
        g_assert_no_error(error);
        struct pool_def *again = pool_def_new(d->text, true, &error);
        g_assert_no_error(error);
        g_assert_cmpstr(again->text, ==, d->text);
        pool_def_free(again);
        pool_def_free(d);
    }
}

/* What the table of protocols has as "no", and what is missing. */
static void test_refusals(void)
{
    static const struct {
        const char *xml, *word;
    } rows[] = {
        {POOL("fs", ""), "needs a source device"},
        {POOL("fs", "<device path='//h/share'/>"), "for type 'netfs'"},
        {POOL("fs", "<device path='h:/export'/>"), "for type 'netfs'"},
        {POOL("fs", "<device path='/dev/sda'/><host name='h'/>"), "takes no source host"},
        {POOL("fs", "<device path='/dev/sda'/><format type='nfs'/>"), "is not one of"},
        {POOL("netfs", "<host name='h'/><dir path='/e'/><device path='/dev/sda'/>"),
         "takes no source device"},
        {POOL("netfs", "<host name='h'/>"), "needs a source directory"},
        {POOL("netfs", "<host name='-oProxy'/><dir path='/e'/>"), "is no host"},
        {POOL("netfs", "<host name='h'/><dir path='e'/>"), "no absolute path"},
        {POOL("logical", "<name>vg</name><dir path='/e'/>"), "takes no source directory"},
        {POOL("logical", "<name>-vg</name>"), "cannot be a source's name"},
        {POOL("logical", "<name>vg;rm</name>"), "cannot be a source's name"},
        {POOL("logical", "<name>@tag</name>"), "cannot be a source's name"},
        {POOL("logical", "<name>vg/lv</name>"), "names of volume groups"},
        {"<pool type='logical'><name>@tag</name></pool>", "cannot be a source's name"},
        {POOL("rbd", "<name>p@s</name><host name='h'/>"), "cannot be a source's name"},
        {POOL("disk", "<device path='/dev/sdb'/><host name='h'/>"), "takes no source host"},
        {POOL("disk", "<device path='-x'/>"), "is no path"},
        {POOL("disk", "<device path='/dev/sdb'/><format type='bsd'/>"), "is not one of"},
        {POOL("iscsi", "<host name='h'/><device path='nqn.2014-08.org.nvmexpress:x'/>"),
         "NVMe over fabrics"},
        {POOL("iscsi", "<host name='h'/><device path='iqn.2026-01.x:y'/><adapter type='fc_host'/>"),
         "takes no source adapter"},
        {POOL("iscsi", "<host name='h'/><device path='iqn.2026-01.x:y'/><auth type='ceph' "
                       "username='u'><secret usage='s'/></auth>"),
         "which has 'chap'"},
        {POOL("rbd", "<host name='h'/><name>p</name><auth type='chap' username='u'><secret "
                     "usage='s'/></auth>"),
         "which is 'ceph'"},
        {POOL("iscsi-direct", "<host name='h'/><device path='iqn.2026-01.x:y'/>"), "initiator"},
        {POOL("mpath", "<device path='/dev/sda'/>"), "takes no source device"},
        {POOL("scsi", "<adapter type='fc_host' wwnn='20000000c9831b4b'/>"), "wwnn and wwpn"},
        {POOL("rbd", "<name>p</name>"), "needs a source host"},
        {POOL("rbd", "<name>p</name><host name='h' port='99999'/>"), "99999"},
    };
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++)
        assert_refused(pool_def_new(rows[i].xml, false, &error), rows[i].word);
}

static void test_clashes(void)
{
    struct pool_def *a =
        pool_def_new(POOL("netfs", "<host name='h'/><dir path='/e'/>"), false, NULL);
    struct pool_def *b = pool_def_new(
        "<pool type='netfs'><name>y</name><source><host name='h'/><dir path='/e'/></source><target>"
        "<path>/u</path></target></pool>",
        false, NULL);
    struct pool_def *c =
        pool_def_new("<pool type='dir'><name>z</name>" TARGET "</pool>", false, NULL);
    g_autofree char *ab = pool_def_clash(a, b), *ac = pool_def_clash(a, c),
                    *bc = pool_def_clash(b, c);
    g_assert_cmpstr(ab, ==, "source 'h /e'");
    g_assert_cmpstr(ac, ==, "folder '/t'");
    g_assert_null(bc);
    pool_def_free(a);
    pool_def_free(b);
    pool_def_free(c);
}

/* ---- what programs print ---- */

static struct pool *pool_of(const char *xml)
{
    g_autoptr(GError) error = NULL;
    struct pool_def *d = pool_def_new(xml, false, &error);
    g_assert_no_error(error);
    return pool_new(d);
}

static void test_lvm(void)
{
    static const char lvs[] =
        "{\"report\":[{\"lv\":["
        "{\"lv_name\":\"base\",\"lv_uuid\":\"u1\",\"lv_attr\":\"-wi-a-----\",\"lv_size\":"
        "\"41943040\",\"origin\":\"\",\"data_percent\":\"\","
        "\"devices\":\"/dev/vdc(0)\",\"seg_size\":\"20971520\",\"vg_extent_size\":\"4194304\"},"
        "{\"lv_name\":\"base\",\"lv_uuid\":\"u1\",\"lv_attr\":\"-wi-a-----\",\"lv_size\":"
        "\"41943040\",\"origin\":\"\",\"data_percent\":\"\","
        "\"devices\":\"/dev/vdd(2)\",\"seg_size\":\"20971520\",\"vg_extent_size\":\"4194304\"},"
        "{\"lv_name\":\"pool\",\"lv_attr\":\"twi-aotz--\",\"lv_size\":\"83886080\",\"devices\":"
        "\"pool_tdata(0)\"},"
        "{\"lv_name\":\"t\",\"lv_uuid\":\"u2\",\"lv_attr\":\"Vwi-a-tz--\",\"lv_size\":"
        "\"2147483648\",\"origin\":\"base\","
        "\"data_percent\":\"25.00\",\"devices\":\"\"},"
        "{\"lv_name\":\"n\",\"lv_attr\":\"V\",\"lv_size\":\"9223372036854775807\",\"data_percent\":\"1e300\"},"
        "{\"lv_name\":\"o\",\"lv_attr\":\"V\",\"lv_size\":\"512\",\"data_percent\":\"-nan\"},"
        "{\"lv_name\":\"../sda\",\"lv_attr\":\"-wi-a-----\",\"lv_size\":\"1\"},"
        "{\"lv_name\":\"bad\\u0001\",\"lv_attr\":\"-\",\"lv_size\":\"-5\"},{\"lv_name\":7},[],null]"
        "}]}";
    struct pool *p = pool_of("<pool type='logical'><source><name>vg</name></source></pool>");
    g_autoptr(GHashTable) found = table();
    g_assert_true(logical_read_volumes(p, lvs, found, NULL));
    g_assert_cmpuint(g_hash_table_size(found), ==, 4);
    const struct volume *base = g_hash_table_lookup(found, "base"),
                        *t = g_hash_table_lookup(found, "t"), *n = g_hash_table_lookup(found, "n");
    g_assert_cmpuint(n->allocation, ==, INT64_MAX);
    n = g_hash_table_lookup(found, "o");
    g_assert_cmpuint(n->allocation, ==, 0);
    g_assert_cmpstr(base->path, ==, "/dev/vg/base");
    g_assert_cmpstr(base->key, ==, "u1");
    g_assert_nonnull(strstr(base->source, "<extent start='0' end='20971520'/>"));
    g_assert_nonnull(strstr(
        base->source, "<device path='/dev/vdd'>\n      <extent start='8388608' end='29360128'/>"));
    g_assert_cmpuint(t->capacity, ==, 2147483648u);
    g_assert_cmpuint(t->allocation, ==, 536870912u);
    g_assert_cmpstr(t->backing, ==, "/dev/vg/base");
    struct pool_figures f = {0};
    g_assert_true(logical_read_group(
        "{\"report\":[{\"vg\":[{\"vg_name\":\"vg\",\"vg_size\":\"100\",\"vg_free\":\"40\"}]}]}", &f,
        NULL));
    g_assert_cmpuint(f.allocation, ==, 60);
    g_assert_true(logical_read_group(
        "{\"report\":[{\"vg\":[{\"vg_size\":\"1\",\"vg_free\":\"99\"}]}]}", &f, NULL));
    g_assert_cmpuint(f.available, <=, f.capacity);
    static const char *const bad[] = {
        "",       "[]",  "{}", "{\"report\":{}}", "{\"report\":[]}", "{\"report\":[{\"lv\":{}}]}",
        "{\"rep", "\xff"};
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_refused(logical_read_volumes(p, bad[i], found, &error), "lvs");
        assert_refused(logical_read_group(bad[i], &f, &error), "vgs");
    }
    pool_unref(p);
}

static void test_sfdisk(void)
{
    static const char gpt[] =
        "{\"partitiontable\":{\"label\":\"gpt\",\"id\":\"X\",\"device\":\"/dev/"
        "vdc\",\"unit\":\"sectors\",\"firstlba\":2048,"
        "\"lastlba\":819166,\"sectorsize\":512,\"partitions\":["
        "{\"node\":\"/dev/vdc2\",\"start\":206848,\"size\":204800,\"type\":\"E6D6D379\"},"
        "{\"node\":\"/dev/vdc1\",\"start\":2048,\"size\":102400,\"type\":\"0FC63DAF\"},"
        "{\"node\":\"/dev/other1\",\"start\":1,\"size\":1,\"type\":\"L\"},"
        "{\"node\":\"/dev/"
        "vdc9\",\"start\":9223372036854775807,\"size\":9223372036854775807,\"type\":\"L\"}]}}";
    enum { DISK = 400 << 20 };
    disk_table *t = disk_table_read(gpt, "/dev/vdc", DISK, NULL);
    g_assert_nonnull(t);
    g_assert_cmpuint(disk_table_room(t, 10 << 20), ==, (2048 + 102400) * 512); /* between the two */
    g_assert_cmpuint(disk_table_room(t, 60 << 20), ==, (206848 + 204800) * 512); /* behind both */
    g_assert_cmpuint(disk_table_room(t, 300u << 20), ==, 0);
    disk_table_free(t);
    t = disk_table_read("{\"partitiontable\":{\"label\":\"dos\"}}", "/dev/vdc", DISK, NULL);
    g_assert_cmpuint(disk_table_room(t, 300u << 20), ==, 1 << 20);
    g_assert_cmpuint(disk_table_room(t, DISK), ==, 0);
    disk_table_free(t);
    t = disk_table_read("{\"partitiontable\":{\"partitions\":[{\"node\":\"/dev/vdc1\",\"start\":"
                        "99999999,\"size\":1}]}}", /* behind the end */
                        "/dev/vdc", DISK, NULL);
    g_assert_cmpuint(disk_table_room(t, DISK), ==, 0);
    disk_table_free(t);
    static const char *const bad[] = {"", "{}", "[1]", "{\"partitiontable\":[]}",
                                      "{\"partitiontable\":"};
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++)
        assert_refused(disk_table_read(bad[i], "/dev/vdc", DISK, &error), "sfdisk");
}

static void test_iscsi(void)
{
    static const char sessions[] = "tcp: [1] 10.0.0.1:3260,1 iqn.2026-01.org.x:other (non-flash)\n"
                                   "tcp: [23] 127.0.0.1:3260,1 iqn.2026-01.org.x:y (non-flash)\n";
    static const char units[] = "Target:iqn.2026-01.org.x:other Portal:127.0.0.1:3260,1\nLun:7    "
                                "Type:DIRECT_ACCESS (Size:1G)\n"
                                "Target:iqn.2026-01.org.x:y Portal:127.0.0.1:3260,1\nLun:0    "
                                "Type:STORAGE_ARRAY_CONTROLLER\n"
                                "Lun:1    Type:DIRECT_ACCESS (Size:10M)\nLun:99999 "
                                "Type:DIRECT_ACCESS\nLun:x DIRECT_ACCESS\n";
    unsigned n = 0;
    g_assert_true(iscsi_find_session(sessions, "iqn.2026-01.org.x:y", &n));
    g_assert_cmpuint(n, ==, 23);
    g_assert_false(iscsi_find_session(sessions, "iqn.2026-01.org.x", &n));
    g_assert_false(iscsi_find_session("tcp: [99999999999] a iqn.x b\ntcp: [-1] a iqn.x b\n[ ]\n\n",
                                      "iqn.x", &n));
    g_autoptr(GArray) found = iscsi_direct_units(units, "iqn.2026-01.org.x:y");
    g_assert_cmpuint(found->len, ==, 1);
    g_assert_cmpuint(g_array_index(found, unsigned, 0), ==, 1);
}

static void test_others(void)
{
    g_autoptr(GHashTable) m = table(), r = table(), z = table();
    struct pool_figures f = {0};
    mpath_read(
        "mpatha\t(253:0)\nmpathb\t(253, 1)\n../x\t(253:2)\nNo devices found\n\t(1:1)\nx\t(a:b)\n",
        "/dev/mapper", m);
    g_assert_cmpuint(g_hash_table_size(m), ==, 2);
    g_assert_cmpstr(((struct volume *)g_hash_table_lookup(m, "dm-1"))->path, ==,
                    "/dev/mapper/mpathb");
    g_assert_true(rbd_read_images(
        "[{\"image\":\"a\",\"size\":1048576},{\"image\":\"a\",\"snapshot\":\"s\",\"size\":1},"
        "{\"image\":\"x/y\"},{\"image\":\"x@y\"},{},3]",
        "rbd", r, NULL));
    g_assert_cmpuint(g_hash_table_size(r), ==, 1);
    assert_refused(rbd_read_images("{}", "rbd", r, &error), "no list");
    g_assert_true(rbd_read_figures("{\"stats\":{\"total_bytes\":100,\"total_avail_bytes\":60},"
                                   "\"pools\":[{\"name\":\"rbd\",\"stats\":"
                                   "{\"bytes_used\":7}}]}",
                                   "rbd", &f, NULL));
    g_assert_true(f.capacity == 100 && f.available == 60 && f.allocation == 7);
    assert_refused(rbd_read_figures("{}", "rbd", &f, &error), "no pool 'rbd'");
    assert_refused(rbd_read_figures("{\"pools\":[{\"name\":\"a\"}]}", "rbd", &f, &error),
                   "no pool 'rbd'");
    g_assert_true(
        rbd_read_figures("{\"stats\":{},\"pools\":[]}", "rbd", &f, NULL)); /* no manager */
    zfs_read_volumes(
        "tank/v\t1073741824\t4096\ntank\t-\t1\ntank/a/b\t1\t1\nother/x\t1\t1\ntank/short\n", "tank",
        z);
    g_assert_cmpuint(g_hash_table_size(z), ==, 1);
    g_assert_true(zfs_read_figures("1000\t10\t990\n", &f, NULL) && f.available == 990);
    assert_refused(zfs_read_figures("", &f, &error), "zpool");
}

/* What an image's name ends at is escaped in ruche-img's. */
static void test_rbd_names(void)
{
    struct pool *p = pool_of("<pool type='rbd'><name>x</name><source><name>p:1</name><host name='h' port='1'/>"
                             "</source></pool>");
    g_autofree char *url = p->backend->volume_url(p, "a:b=c\\d");
    g_assert_cmpstr(url, ==,
                    "rbd:p\\:1/a\\:b\\=c\\\\d:auth_client_required=none:mon_host=h\\:1");
    pool_unref(p);
}

static void test_mountinfo(void)
{
    static const char text[] = "22 1 254:0 / / rw - ext4 /dev/vda rw\n40 22 0:50 / /mnt/a\\040b rw "
                               "shared:1 - nfs4 h:/e rw\n"
                               "41 22 0:51 / /t rw - ext4 /dev/sda rw\n42 41 0:52 / /t rw - xfs "
                               "/dev/sdb rw\nbroken\n - \n";
    g_autofree char *a = mount_source(text, "/mnt/a b"), *top = mount_source(text, "/t"),
                    *none = mount_source(text, "/x");
    g_assert_cmpstr(a, ==, "h:/e");
    g_assert_cmpstr(top, ==, "/dev/sdb");
    g_assert_null(none);
}

/* ---- programs that do not do what they should ---- */

static void put_program(const char *name, const char *script)
{
    g_autofree char *path = g_build_filename(bin, name, NULL),
                    *text = g_strconcat("#!/bin/sh\n", script, "\n", NULL);
    g_assert_true(g_file_set_contents(path, text, -1, NULL));
    g_assert_cmpint(g_chmod(path, 0755), ==, 0);
}

static void do_programs(void *opaque)
{
    const char *const hang[] = {"fake-hang", NULL}, *const nothing[] = {"sfdisk-of-nobody", NULL},
                      *const iscsi[] = {"iscsi-ls", NULL};
    put_program("fake-hang", "while :; do sleep 60; done");
    put_program("vgs", "echo garbage");
    put_program("lvs", "echo 'something is broken' >&2; exit 5");
    put_program("vgchange", "exit 0");
    put_program("lvcreate", "exit 0");
    put_program("vgcreate", "exit 0");
    put_program("pvcreate", "exit 0");
    assert_refused(storage_run_argv(hang, NULL, 300, NULL, &error), "did not end within 300 ms");
    assert_refused(storage_programs(nothing, &error), "'sfdisk-of-nobody' is missing");
    if (!g_find_program_in_path("iscsi-ls"))
        assert_refused(storage_programs(iscsi, &error), "iscsi");
    g_autoptr(GError) e = NULL;
    struct pool *p = pool_define(
        &caller_self, "<pool type='logical'><source><name>vg</name></source></pool>", 0, &e);
    g_assert_no_error(e);
    assert_refused(pool_start(&caller_self, p, 0, &error), "vgs: its answer is no JSON");
    g_assert_cmpint(p->state, ==, POOL_INACTIVE);
    put_program("vgs", "echo '{\"report\":[{\"vg\":[{\"vg_size\":\"100\",\"vg_free\":\"40\"}]}]}'");
    assert_refused(pool_start(&caller_self, p, 0, &error), "something is broken");
    put_program("lvs", "echo '{\"report\":[{\"lv\":[]}]}'");
    g_assert_true(pool_start(&caller_self, p, 0, &e));
    g_assert_cmpuint(p->capacity, ==, 100);
    assert_refused(volume_create_xml(&caller_self, p,
                                     "<volume><name>-x</name><capacity>1</capacity></volume>", NULL,
                                     0, NULL, &error),
                   "logical volumes");
    put_program("vgs-then", "echo '{\"report\":[{\"vg\":[{\"vg_size\":\"100\",\"vg_free\":\"10\"}]}]}'");
    put_program("lvs-then", "echo '{\"report\":[{\"lv\":[{\"lv_name\":\"v\",\"lv_attr\":\"-\"}]}]}'");
    put_program("lvcreate", "cd ${0%/*} && mv vgs-then vgs && mv lvs-then lvs");
    g_assert_true(pool_set_warning(&caller_self, p, 80, &e) && !p->warned);
    g_assert_true(volume_create_xml(&caller_self, p,
                                    "<volume><name>v</name><capacity>1</capacity></volume>", NULL,
                                    0, NULL, &e));
    g_assert_true(p->warned);
    g_assert_true(pool_destroy(&caller_self, p, NULL));
    g_assert_true(pool_undefine(&caller_self, p, NULL));
    pool_unref(p);
}

static void test_programs(void)
{
    run_in_task(do_programs, NULL);
}

/* A pool created over a defined one that does not start has its description back. */
static void do_create_over(void *opaque)
{
    g_autofree char *folder = g_build_filename(root, "there", NULL);
    g_autofree char *xml = g_strdup_printf(
        "<pool type='dir'><name>o</name><target><path>%s</path></target></pool>", folder);
    struct pool *p = pool_define(&caller_self, xml, 0, NULL);
    assert_refused(
        pool_create_xml(
            &caller_self,
            "<pool type='dir'><name>o</name><target><path>/nonexistent/x</path></target></pool>", 0,
            &error),
        "/nonexistent/x");
    g_assert_cmpstr(pool_target(p), ==, folder);
    g_autofree char *text = pool_xml(&caller_self, p, 1, NULL);
    g_assert_nonnull(strstr(text, folder));
    g_assert_true(pool_undefine(&caller_self, p, NULL));
    pool_unref(p);
}

static void test_create_over(void)
{
    run_in_task(do_create_over, NULL);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    g_test_init(&argc, &argv, NULL);
    root = scratch_folder("backend-test");
    bin = g_build_filename(root, "bin", NULL);
    g_assert_cmpint(g_mkdir(bin, 0755), ==, 0);
    g_autofree char *path = g_strconcat(bin, ":", g_getenv("PATH"), NULL);
    g_setenv("PATH", path, TRUE);
    manager.config_dir = g_build_filename(root, "config", NULL);
    manager.runtime_dir = g_build_filename(root, "run", NULL);
    manager.img = (char *)"/nonexistent";
    g_test_add_func("/backend/descriptions", test_descriptions);
    g_test_add_func("/backend/refusals", test_refusals);
    g_test_add_func("/backend/clashes", test_clashes);
    g_test_add_func("/backend/lvm", test_lvm);
    g_test_add_func("/backend/sfdisk", test_sfdisk);
    g_test_add_func("/backend/iscsi", test_iscsi);
    g_test_add_func("/backend/others", test_others);
    g_test_add_func("/backend/rbd names", test_rbd_names);
    g_test_add_func("/backend/mountinfo", test_mountinfo);
    g_test_add_func("/backend/programs", test_programs);
    g_test_add_func("/backend/create-over", test_create_over);
    return g_test_run();
}
