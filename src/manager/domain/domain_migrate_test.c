/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the other side of a migration says, read: cookies as libvirt's and as an enemy's, parameters,
 * flags. */
#include "manager/domain/domain_migrate_priv.h"
#include "manager/domain/domain_testing.h"

#define UUID    "00010203-0405-0607-0809-0a0b0c0d0e0f"
#define NAMES   "<name>web</name><uuid>" UUID "</uuid>"
#define THERE   "<hostname>there</hostname><hostuuid>99999999-0405-0607-0809-0a0b0c0d0e0f</hostuuid>"
#define A(rest) "<qemu-migration>" NAMES THERE rest "</qemu-migration>"

static uint8_t uuid[16];

static bool read_text(const char *text, size_t len, struct migrate_cookie *ret, GError **error)
{
    /* No byte behind it may be read. */
    g_autofree char *exact = g_memdup2(text, len);
    const struct migrate_cookie_in in = {exact, len};
    return migrate_cookie_read(&in, "web", uuid, ret, error);
}

static void refused(const char *text, const char *part)
{
    struct migrate_cookie c = {0};
    g_autoptr(GError) error = NULL;
    g_assert_false(read_text(text, strlen(text), &c, &error));
    g_assert_nonnull(error);
    if (!strstr(error->message, part))
        g_error("'%s' has no '%s'", error->message, part);
    g_assert_null(c.persistent);
}

static void taken(const char *text, const char *persistent)
{
    for (unsigned with_end = 0; with_end < 2; with_end++) {
        struct migrate_cookie c = {0};
        g_autoptr(GError) error = NULL;
        g_assert_true(read_text(text, strlen(text) + with_end, &c, &error));
        g_assert_no_error(error);
        g_assert_true(persistent ? c.persistent && strstr(c.persistent, persistent) != NULL
                                 : !c.persistent);
        migrate_cookie_done(&c);
    }
}

static void test_taken(void)
{
    taken("", NULL);
    taken(A(""), NULL);
    taken(A("<feature name='persistent'/><domain type='kvm'><name>web</name></domain>"),
          "<name>web</name>");
    /* As QEMU's driver sends it: offers that nobody has to take up. */
    taken(A("<feature name='memory-hotplug'/><feature name='cpu-hotplug'/>"
            "<graphics type='spice' port='5900' listen='127.0.0.1' tlsPort='-1'/>"
            "<network><interface index='0' vporttype='openvswitch'/></network>"
            "<nbd port='49153'><disk target='vda' capacity='1048576'/></nbd>"
            "<statistics><started>1</started><time_elapsed>2</time_elapsed></statistics>"
            "<capabilities><cap name='xbzrle' auto='no'/></capabilities><allowReboot value='yes'/>"
            "<blockDirtyBitmaps/><cpu mode='custom'><model>qemu64</model></cpu>"),
          NULL);
}

static void test_refused(void)
{
    refused("x", "");
    refused("<domain/>", "<domain>");
    refused("<qemu-migration>", "");
    refused("<qemu-migration/>", "of domain ''");
    refused("<qemu-migration><name>other</name></qemu-migration>", "of domain 'other'");
    refused("<qemu-migration><name>web</name></qemu-migration>", "another UUID");
    refused("<qemu-migration><name>web</name><uuid>00010203</uuid></qemu-migration>", "another");
    refused(
        "<qemu-migration><name>web</name><uuid>10010203-0405-0607-0809-0a0b0c0d0e0f</uuid>" THERE
        "</qemu-migration>",
        "another UUID");
    refused("<qemu-migration>" NAMES "</qemu-migration>", "names no host");
    refused("<qemu-migration>" NAMES "<hostuuid>" UUID "</hostuuid></qemu-migration>", "same host");
    refused(A("<feature name='tunnel-vnc'/>"), "'tunnel-vnc'");
    refused(A("<feature name='lockstate'/><lockstate driver='sanlock'/>"), "'sanlock'");
    refused(A("<feature/>"), "''");
    refused("<!DOCTYPE x [<!ENTITY e 'web'>]><qemu-migration><name>&e;</name></qemu-migration>",
            "");
    refused("<!DOCTYPE x SYSTEM 'file:///etc/passwd'>" A(""), "");
}

/* Bytes that are no text, a bomb of elements, and one that is deep. */
static void test_hostile(void)
{
    static const char zeros[64] = {0}, cut[] = A("<feature name='\0'/>");
    struct migrate_cookie c = {0};
    g_autoptr(GError) error = NULL;
    g_assert_false(read_text(zeros, sizeof(zeros), &c, &error));
    g_clear_error(&error);
    g_assert_false(read_text(cut, sizeof(cut) - 1, &c, &error));
    g_clear_error(&error);
    g_assert_false(read_text("\xff\xfe<qemu-migration/>", 19, &c, &error));
    g_autoptr(GString) deep = g_string_new("<qemu-migration>");
    for (unsigned i = 0; i < 100000; i++)
        g_string_append(deep, "<a>");
    refused(deep->str, "");
    g_autoptr(GString) wide = g_string_new("<qemu-migration>" NAMES THERE);
    for (unsigned i = 0; i < 200000; i++)
        g_string_append(wide, "<feature name='persistent'/>");
    g_string_append(wide, "<feature name='last'/></qemu-migration>");
    refused(wide->str, ""); /* at the limit of a description, or for its last */
    g_autofree char *name = g_strnfill(1 << 20, 'n');
    g_autofree char *text =
        g_strdup_printf("<qemu-migration><name>%s</name></qemu-migration>", name);
    refused(text, "of domain");
}

/* What we write the other side reads; our own we do not. */
static void test_there_and_back(void)
{
    g_autofree char *ours = migrate_cookie_write("web", uuid, NULL);
    refused(ours, "same host");
    manager.host_uuid[0] ^= 1;
    taken(ours, NULL);
    manager.host_uuid[0] ^= 1;
}

static void check_params(struct param_list *l, const char *part)
{
    struct migrate_params p;
    g_autoptr(GError) error = NULL;
    g_assert_cmpint(migrate_params_read(l, &p, &error), ==, !part);
    g_assert_true(!part || strstr(error->message, part) != NULL);
    param_list_done(l);
}

static void test_params(void)
{
    struct param_list l = {0};
    check_params(&l, NULL);
    param_string(&l, "migrate_uri", "tcp:there");
    param_string(&l, "graphics_uri", "spice://there");
    param_ullong(&l, "bandwidth", UINT64_MAX);
    check_params(&l, NULL);
    param_string(&l, "bandwidth", "fast");
    check_params(&l, "'bandwidth'");
    param_ullong(&l, "migrate_uri", 5);
    check_params(&l, "'migrate_uri'");
    param_string(&l, "compression", "xbzrle");
    check_params(&l, "'compression'");
    param_string(&l, "", "");
    check_params(&l, "''");
}

static void test_flags(void)
{
    g_assert_true(migrate_flags_check(MIGRATE_LIVE | MIGRATE_PEER2PEER, NULL));
    g_assert_false(migrate_flags_check(MIGRATE_LIVE | MIGRATE_OFFLINE, NULL));
    g_assert_false(migrate_flags_check(1u << 31, NULL));
    for (unsigned flag = 14; flag < 32; flag++)
        g_assert_false(migrate_flags_check(1u << flag, NULL));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < 16; i++)
        uuid[i] = manager.host_uuid[i] = (uint8_t)i;
    g_test_add_func("/migrate/cookies that are taken", test_taken);
    g_test_add_func("/migrate/cookies that are refused", test_refused);
    g_test_add_func("/migrate/hostile cookies", test_hostile);
    g_test_add_func("/migrate/there and back", test_there_and_back);
    g_test_add_func("/migrate/parameters", test_params);
    g_test_add_func("/migrate/flags", test_flags);
    return g_test_run();
}
