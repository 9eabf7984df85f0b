/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Definitions: what is refused and how it is said, what is completed, changes by devices and
 * metadata, what texts show. Whole descriptions are compared in tests/system/domain_xml.py. */
#include "manager/domain/def.h"
#include "manager/manager.h"

#include <string.h>
#include <time.h>

#define HEAD                                                                                       \
    "<domain type='kvm'><name>t</name><memory unit='MiB'>256</memory><os><type "                   \
    "arch='x86_64'>hvm</type></os>"
#define UUID_TEXT "c0ffee00-1111-4222-8333-444455556666"

static struct domain_def *define(const char *text, unsigned flags)
{
    g_autoptr(GError) error = NULL;
    struct domain_def *d = domain_def_parse(text, strlen(text), flags, &error);
    g_assert_no_error(error);
    return d;
}

static struct domain_def *with_devices(const char *devices, unsigned flags)
{
    g_autofree char *text = g_strdup_printf(HEAD "<devices>%s</devices></domain>", devices);
    return define(text, flags);
}

static const char *got(struct domain_def *d, const char *path)
{
    return xml_get_or(domain_def_tree(d), path, "(none)");
}

/* A definition's text defines to the same text. */
static void stable(struct domain_def *d, unsigned flags)
{
    auto_domain_def *again = define(d->text, flags);
    g_assert_cmpstr(again->text, ==, d->text);
}

static void test_defaults(void)
{
    auto_domain_def *d = define(HEAD "</domain>", 0);
    static const char *const rows[][2] = {
        {"memory", "262144"},
        {"memory@unit", "KiB"},
        {"currentMemory", "262144"},
        {"vcpu", "1"},
        {"vcpu@placement", "static"},
        {"os/type@machine", "q35"},
        {"os/boot@dev", "hd"},
        {"clock@offset", "utc"},
        {"on_poweroff", "destroy"},
        {"on_reboot", "restart"},
        {"on_crash", "destroy"},
        {"devices/emulator", "/usr/bin/ruche-vmm"},
        {"devices/memballoon@model", "virtio"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        g_assert_cmpstr(got(d, rows[i][0]), ==, rows[i][1]);
    g_assert_cmpstr(d->s.name, ==, "t");
    g_assert_cmpuint(d->s.memory_kib, ==, 262144);
    g_assert_cmpuint(d->s.uuid[6] >> 4, ==, 4);
    stable(d, 0);
    stable(d, DEF_VALIDATE);
}

static void refused(const char *text, unsigned flags, const char *says)
{
    g_autoptr(GError) error = NULL;
    auto_domain_def *d = domain_def_parse(text, strlen(text), flags, &error);
    if (d)
        g_error("this was taken: %s", text);
    g_assert_cmpint(error->code, >=, RUCHE_ERR_XML_SYNTAX);
    if (!strstr(error->message, says))
        g_error("'%s' does not say '%s'", error->message, says);
    g_assert_true(g_utf8_validate(error->message, -1, NULL));
}

#define DISK(target) "<disk><source file='/a'/>" target "</disk>"
/* What stands in the place of the domain's children behind HEAD, and what the error says. */
static const char *const refusals[][2] = {
    {"<vcpu>0</vcpu>", "vcpu: '0' is not a number of 1 to 16384"},
    {"<vcpu>-1</vcpu>", "'-1'"},
    {"<vcpu>99999999999999999999</vcpu>", "vcpu"},
    {"<vcpu current='3'>2</vcpu>", "3 current"},
    {"<vcpu cpuset='5-3'>2</vcpu>", "vcpu@cpuset: '5-3' is not a CPU set"},
    {"<vcpu>4</vcpu><cpu><topology sockets='1' cores='3' threads='1'/></cpu>",
     "topology has 3 vCPUs, the domain 4"},
    {"<currentMemory unit='furlong'>3</currentMemory>", "'furlong' is not a unit"},
    {"<currentMemory unit='E'>99</currentMemory>", "'99' is not a size"},
    {"<uuid>12</uuid>", "uuid: '12' is not a UUID"},
    {"<title>a\nb</title>", "title"},
    {"<on_reboot>explode</on_reboot>",
     "on_reboot: 'explode' is not known; it can be destroy, restart"},
    {"<cpu mode='custom'><feature name='x'/></cpu>", "needs a model"},
    {"<cpu><numa><cell id='0' cpus='0' memory='1' unit='GiB'/><cell id='2' memory='1' "
     "unit='GiB'/></numa></cpu>",
     "1 is missing of 2"},
    {"<cpu><numa><cell id='0' cpus='0-1' memory='1' unit='GiB'/></numa></cpu>", "vCPU 1"},
    {"<devices><disk type='fil'/></devices>", "disk 1@type: 'fil' is not known"},
    {"<devices>" DISK("<target dev='vda'/>") DISK("<target dev='vda'/>") "</devices>",
     "target 'vda'"},
    {"<devices>" DISK("<target dev='../x'/>") "</devices>", "target"},
    {"<devices>" DISK("<target dev='qqa' bus='virtio'/>") "</devices>", "'qqa'"},
    {"<devices>" DISK("<target dev='vda' bus='floppy'/>") "</devices>",
     "disk 'vda': target@bus: 'floppy'"},
    {"<devices>" DISK("<target dev='vda'/><driver cache='writebak'/>") "</devices>",
     "did you mean 'writeback'"},
    {"<devices><disk><source file='a.img'/><target dev='vda'/></disk></devices>",
     "not an absolute path"},
    {"<devices><disk device='cdrom'><target dev='vda' bus='virtio'/></disk></devices>", "CD-ROM"},
    {"<devices><disk device='lun'><source file='/a'/><target dev='sda'/></disk></devices>", "lun"},
    {"<devices><disk device='floppy'><target dev='fda' bus='sata'/></disk></devices>", "fdc"},
    {"<devices>" DISK("<target "
                      "dev='vda'/><iotune><total_iops_sec>5</total_iops_sec><read_iops_sec>1</"
                      "read_iops_sec></iotune>") "</devices>",
     "total_iops_sec"},
    {"<devices><interface type='user'><mac address='52:54:00:00:00'/></interface></devices>",
     "is not a MAC address"},
    {"<devices><interface type='user'><mac address='01:54:00:00:00:01'/></interface></devices>",
     "multicast"},
    {"<devices><interface type='bridge'/></devices>", "element <source> is missing"},
    {"<devices><interface type='network'><source/></interface></devices>",
     "attribute 'network' is missing"},
    {"<devices><disk><target dev='vda'/></disk></devices>", "no source"},
    {"<blkiotune><weight>x</weight></blkiotune>", "'x' is not a number of 10 to 10000"},
    {"<devices><graphics type='vnc' port='70000'/></devices>",
     "'70000' is not a number of -1 to 65535"},
    {"<devices><controller type='scsi' index='0'/><controller type='scsi' index='0'/></devices>",
     "twice"},
    {"<devices>" DISK("<target dev='vda'/><boot order='1'/>")
         DISK("<target dev='vdb'/><boot order='1'/>") "</devices>",
     "boot order 1"},
    {"<devices>" DISK("<target dev='vda'/><address type='pci' bus='1' slot='0'/>")
         DISK("<target dev='vdb'/><address type='pci' bus='1' slot='0'/>") "</devices>",
     "PCI address 0000:01:00.0 is taken twice"},
    {"<devices>" DISK("<target dev='vda'/><address type='pci' bus='1' slot='3'/>") "</devices>",
     "only slot 0"},
    {"<devices>" DISK("<target dev='vda'/><address type='pci' domain='1' bus='1'/>") "</devices>",
     "domain 0x0001"},
    {"<devices>" DISK("<target dev='sda' bus='sata'/><address type='drive' unit='1'/>")
         DISK("<target dev='sdb' bus='sata'/><address type='drive' unit='1'/>") "</devices>",
     "is taken"},
    {"<devices><serial type='pty'><target port='0'/></serial><serial type='pty'><target "
     "port='0'/></serial></devices>",
     "serial port 0"},
    {"<devices>" DISK("<target dev='vda'/><driver iothread='2'/>") "</devices>", "iothread 2"},
    {"<cputune><vcpupin vcpu='0' cpuset='1'/><vcpupin vcpu='0' cpuset='2'/></cputune>",
     "vCPU 0 is pinned twice"},
    {"<devices><memory model='dimm'><target><size>1024</size></target></memory></devices>",
     "maxMemory"},
};

static void test_refused(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(refusals); i++) {
        g_autofree char *text = g_strdup_printf(HEAD "%s</domain>", refusals[i][0]);
        refused(text, 0, refusals[i][1]);
    }
    refused("<domain type='kvm'><memory>1</memory><os><type>hvm</type></os></domain>", 0,
            "<name> is missing");
    refused("<domain type='kvm'><name>a</name><os><type>hvm</type></os></domain>", 0,
            "memory is missing");
    refused("<domain type='kvm'><name>a</name><memory>1</memory></domain>", 0, "<os> is missing");
    refused(
        "<domain type='magic'><name>a</name><memory>1</memory><os><type>hvm</type></os></domain>",
        0, "'magic'");
    refused("<domain><name>a</name></domain>", 0, "attribute 'type' is missing");
    refused("<network/>", 0, "<network>");
}

static void test_names(void)
{
    g_autofree char *long_name = g_strnfill(201, 'x');
    const char *const names[] = {"", " ", "a/b", "a\nb", ".", "..", "../x", long_name};
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *text = g_strdup_printf(
            "<domain "
            "type='kvm'><name>%s</name><memory>1024</memory><os><type>hvm</type></os></domain>",
            names[i]);
        refused(text, 0, i ? "name" : "empty");
    }
    long_name[200] = 0;
    g_autofree char *text = g_strdup_printf(
        "<domain type='kvm'><name>%s</name><memory>1024</memory><os><type>hvm</type></os></domain>",
        long_name);
    auto_domain_def *d = define(text, 0);
    g_assert_cmpstr(d->s.name, ==, long_name);
}

/* What is not known goes, or is refused on request; metadata of anybody stays. */
static void test_unknown(void)
{
    static const char text[] = HEAD "<sparkles/><metadata><a:b xmlns:a='urn:a' "
                                    "a:k='v'>t</a:b><plain/><a:b xmlns:a='urn:a'/></metadata>"
                                    "<devices><disk fast='yes'><source file='/a'/><target "
                                    "dev='vda'/></disk><warp/></devices></domain>";
    auto_domain_def *d = define(text, 0);
    g_assert_null(strstr(d->text, "sparkles"));
    g_assert_null(strstr(d->text, "warp"));
    g_assert_null(strstr(d->text, "fast"));
    g_assert_null(strstr(d->text, "plain"));
    g_assert_nonnull(strstr(d->text, "    <a:b xmlns:a='urn:a' a:k='v'>t</a:b>\n  </metadata>"));
    refused(text, DEF_VALIDATE, "<sparkles> is not known");
    refused(HEAD "<vcpu gold='1'>1</vcpu></domain>", DEF_VALIDATE, "attribute 'gold' is not known");
    refused(HEAD "<vcpu>1</vcpu><vcpu>2</vcpu></domain>", DEF_VALIDATE, "<vcpu> is there twice");
    auto_domain_def *first = define(HEAD "<vcpu>1</vcpu><vcpu>2</vcpu></domain>", 0);
    g_assert_cmpuint(first->s.vcpus, ==, 1);
}

/* QEMU's own words are kept, under libvirt's prefix; a declaration on the root that metadata uses
 * moves to it. */
static void test_namespaces(void)
{
    auto_domain_def *d = define(
        "<domain type='kvm' xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0' xmlns:m='urn:m'>"
        "<name>t</name><memory>1024</memory><os><type>hvm</type></os><metadata><m:x/></metadata>"
        "<q:commandline><q:arg value='-s'/></q:commandline></domain>",
        0);
    g_assert_true(g_str_has_prefix(
        d->text, "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' type='kvm'>\n"));
    g_assert_cmpstr(got(d, "qemu:commandline/qemu:arg@value"), ==, "-s");
    g_assert_nonnull(strstr(d->text, "<m:x xmlns:m='urn:m'/>"));
    g_autofree char *running = domain_def_format(d, DEF_FORMAT_SECURE, 7);
    auto_xml *doc = xml_parse(running, strlen(running), "domain", NULL);
    g_assert_true(doc && xml_is(doc, "@id", "7"));
    stable(d, DEF_VALIDATE);
}

static void test_devices(void)
{
    auto_domain_def *d = with_devices(
        "<disk><source file='/a'/><target dev='vdb'/></disk><disk device='cdrom'><target dev='sda' "
        "bus='sata'/></disk>"
        "<interface type='network'><source network='default'/></interface><serial type='pty'/>"
        "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
        "<input type='tablet'/><graphics type='vnc'/>",
        0);
    static const char *const rows[][2] = {
        {"disk@type", "file"},
        {"disk/driver@type", "raw"},
        {"disk/address@type", "pci"},
        {"interface/model@type", "virtio"},
        {"console/target@type", "serial"},
        {"serial/target/model@name", "isa-serial"},
        {"channel/address@port", "1"},
        {"input@bus", "usb"},
        {"input/address@port", "1"},
        {"graphics@autoport", "yes"},
        {"graphics/listen@type", "address"},
        {"video/model@primary", "yes"},
        {"video/address@slot", "0x01"},
    };
    const struct xml_node *devices = xml_find(domain_def_tree(d), "devices");
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        g_assert_cmpstr(xml_get_or(devices, rows[i][0], rows[i][0]), ==, rows[i][1]);
    g_assert_true(g_str_has_prefix(d->s.interfaces[0].mac, "52:54:00:"));
    g_assert_cmpuint(d->s.disk_count, ==, 2);
    g_assert_cmpstr(d->s.disks[0].source, ==, "/a");
    g_assert_true(d->s.disks[1].read_only);
    g_assert_cmpuint(d->s.chardev_count, ==, 3);
    stable(d, DEF_VALIDATE);
}

/* Every express device has a root port of its own, and no two things one place. */
static void test_pci(void)
{
    GString *s = g_string_new(NULL);
    for (int i = 0; i < 20; i++)
        g_string_append_printf(
            s, "<interface type='user'><mac address='52:54:00:00:00:%02x'/></interface>", i);
    g_string_append(s, "<sound model='ich9'/><watchdog model='i6300esb'/>");
    auto_domain_def *d = with_devices(s->str, 0);
    g_string_free(s, TRUE);
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (struct xml_node *n = xml_find(domain_def_tree(d), "devices")->children; n; n = n->next) {
        if (!xml_is_element(n) || !xml_is(n, "address@type", "pci"))
            continue;
        g_assert_true(g_hash_table_add(seen, g_strdup_printf("%s:%s.%s", xml_get(n, "address@bus"),
                                                             xml_get(n, "address@slot"),
                                                             xml_get(n, "address@function"))));
        if (!strcmp(n->name, "interface"))
            g_assert_cmpstr(xml_get(n, "address@slot"), ==, "0x00");
    }
    g_assert_cmpuint(g_hash_table_size(seen), ==, 20 + 20 + 1 + 2 + 1);
    stable(d, 0);
}

static void test_live(void)
{
    static const char devices[] =
        "<disk><source file='/a'/><target dev='vda'/><alias name='virtio-disk0'/></disk>"
        "<disk><source file='/b'/><target dev='sda' bus='scsi'/><alias name='ua-mine'/></disk>"
        "<interface type='user'><mac address='52:54:00:00:00:01'/><target dev='vnet3'/></interface>"
        "<interface type='user'><mac address='52:54:00:00:00:02'/><target dev='mytap'/></interface>"
        "<console type='pty' tty='/dev/pts/3'><source path='/dev/pts/3'/></console>";
    auto_domain_def *off = with_devices(devices, 0);
    g_assert_null(strstr(off->text, "virtio-disk0"));
    g_assert_nonnull(strstr(off->text, "ua-mine"));
    g_assert_null(strstr(off->text, "vnet3"));
    g_assert_nonnull(strstr(off->text, "mytap"));
    g_assert_null(strstr(off->text, "/dev/pts"));
    auto_domain_def *live = with_devices(devices, DEF_LIVE);
    static const char *const words[] = {"virtio-disk0", "ua-mine",   "vnet3",   "'net0'",
                                        "'serial0'",    "'pcie.0'",  "'pci.1'", "'scsi0'",
                                        "'balloon0'",   "/dev/pts/3"};
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
        if (!strstr(live->text, words[i]))
            g_error("%s is not in %s", words[i], live->text);
    stable(live, DEF_LIVE);
    g_assert_cmpstr(live->s.disks[0].alias, ==, "virtio-disk0");
    g_autofree char *shown = domain_def_format(live, DEF_FORMAT_SECURE, 7);
    g_assert_true(g_str_has_prefix(shown, "<domain type='kvm' id='7'>"));
    g_autofree char *plain = domain_def_format(live, DEF_FORMAT_SECURE | DEF_FORMAT_INACTIVE, -1);
    g_assert_null(strstr(plain, "balloon0"));
}

static void test_secrets(void)
{
    auto_domain_def *d = with_devices(
        "<graphics type='vnc' passwd='s3cret'/><disk type='network'><source protocol='https' "
        "name='x'><host name='h' port='443'/><cookies><cookie name='a'>s3cret</cookie></cookies>"
        "</source><target dev='vda'/></disk>",
        0);
    g_assert_nonnull(strstr(d->text, "s3cret"));
    g_autofree char *open = domain_def_format(d, 0, -1),
                    *all = domain_def_format(d, DEF_FORMAT_SECURE, -1);
    g_assert_null(strstr(open, "s3cret"));
    g_assert_nonnull(strstr(open, "<host name='h' port='443'/>"));
    g_assert_cmpstr(all, ==, d->text);
}

static struct domain_def *change(struct domain_def *d, enum def_device_action action,
                                 const char *xml, struct xml_node **ret)
{
    g_autoptr(GError) error = NULL;
    struct domain_def *made = domain_def_device(d, action, xml, 0, ret, &error);
    g_assert_no_error(error);
    stable(made, 0);
    return made;
}

static void no_change(struct domain_def *d, enum def_device_action action, const char *xml,
                      const char *says)
{
    g_autoptr(GError) error = NULL;
    g_assert_null(domain_def_device(d, action, xml, 0, NULL, &error));
    if (!strstr(error->message, says))
        g_error("'%s' does not say '%s'", error->message, says);
}

static void test_attach(void)
{
    auto_domain_def *d =
        with_devices("<disk><source file='/a'/><target dev='vda'/></disk><interface type='user'>"
                     "<mac address='52:54:00:00:00:01'/></interface><serial type='pty'/>",
                     0);
    struct xml_node *n = NULL;
    auto_domain_def *two =
        change(d, DEF_ATTACH, "<disk><source file='/b'/><target dev='vdb'/></disk>", &n);
    g_assert_cmpstr(xml_get(n, "source@file"), ==, "/b");
    g_assert_cmpstr(xml_get(n, "address@type"), ==, "pci");
    g_assert_cmpuint(two->s.disk_count, ==, 2);
    g_assert_cmpuint(d->s.disk_count, ==, 1);
    auto_domain_def *updated =
        change(two, DEF_UPDATE, "<disk><source file='/c'/><target dev='vdb'/></disk>", &n);
    g_assert_cmpstr(xml_get(n, "source@file"), ==, "/c");
    g_assert_cmpstr(updated->s.disks[1].source, ==, "/c");
    auto_domain_def *one = change(updated, DEF_DETACH, "<disk><target dev='vda'/></disk>", &n);
    g_assert_cmpstr(xml_get(n, "source@file"), ==, "/a");
    g_assert_cmpuint(one->s.disk_count, ==, 1);
    auto_domain_def *down = change(
        d, DEF_UPDATE,
        "<interface type='user'><mac address='52:54:00:00:00:01'/><link state='down'/></interface>",
        &n);
    g_assert_cmpstr(xml_get(n, "link@state"), ==, "down");
    g_assert_cmpuint(down->s.interface_count, ==, 1);
    g_assert_cmpstr(xml_get(n, "model@type"), ==, "virtio");
    auto_domain_def *silent =
        change(d, DEF_DETACH, "<serial type='pty'><target port='0'/></serial>", NULL);
    g_assert_cmpuint(silent->s.chardev_count, ==, 0);
    auto_domain_def *own = change(
        d, DEF_DETACH, "<memballoon model='virtio'><alias name='balloon0'/></memballoon>", NULL);
    g_assert_cmpstr(got(own, "devices/memballoon@model"), ==, "virtio"); /* every machine has one */
    no_change(d, DEF_ATTACH, "<disk><source file='/b'/><target dev='vda'/></disk>", "target 'vda'");
    no_change(d, DEF_ATTACH,
              "<interface type='user'><mac address='52:54:00:00:00:01'/></interface>",
              "52:54:00:00:00:01");
    no_change(d, DEF_ATTACH, "<memballoon model='virtio'/>", "already has a memballoon");
    no_change(d, DEF_DETACH, "<disk><target dev='vdz'/></disk>", "no disk 'vdz'");
    no_change(d, DEF_UPDATE,
              "<interface type='user'><mac address='52:54:00:00:00:09'/></interface>",
              "no interface");
    no_change(d, DEF_ATTACH, "<spaceship/>", "is not a device");
    no_change(d, DEF_ATTACH, "<disk", "not well-formed");
}

/* A running machine takes what it has a free port for. */
static void test_attach_live(void)
{
    g_autoptr(GError) error = NULL;
    auto_domain_def *full = with_devices("<memballoon model='none'/>", DEF_LIVE);
    static const char disk[] = "<disk><source file='/b'/><target dev='vdb'/></disk>";
    g_assert_null(domain_def_device(full, DEF_ATTACH, disk, DEF_LIVE, NULL, &error));
    g_assert_error(error, RUCHE_ERROR, MANAGER_ERR_CONFIG);
    g_assert_nonnull(strstr(error->message, "pcie-root-port"));
    g_clear_error(&error);
    auto_domain_def *roomy = with_devices(
        "<memballoon model='none'/><controller type='pci' model='pcie-root-port'/>", DEF_LIVE);
    struct xml_node *n = NULL;
    auto_domain_def *made = domain_def_device(roomy, DEF_ATTACH, disk, DEF_LIVE, &n, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(xml_get(n, "alias@name"), ==, "virtio-disk1");
    g_assert_cmpstr(xml_get(n, "address@bus"), ==, "0x01");
    stable(made, DEF_LIVE);
}

/* The place a device has and what a new text does not say are kept; so are devices beside it. */
static void test_update_keeps(void)
{
    auto_domain_def *d = with_devices(
        "<disk device='cdrom'><source file='/a.iso'/><target dev='sda' bus='sata'/></disk>"
        "<disk device='cdrom'><source file='/b.iso'/><target dev='sdb' bus='sata'/></disk>",
        0);
    struct xml_node *n = NULL;
    auto_domain_def *empty =
        change(d, DEF_UPDATE, "<disk device='cdrom'><target dev='sda' bus='sata'/></disk>", &n);
    g_assert_null(xml_find(n, "source"));
    g_assert_cmpstr(xml_get(n, "address@unit"), ==, "0");
    g_assert_cmpstr(empty->s.disks[0].target, ==, "sda");
    g_assert_null(empty->s.disks[0].source);
    g_assert_cmpstr(empty->s.disks[1].source, ==, "/b.iso");
}

/* Stored, it would be the end of the machine's description. */
static void unreadable(struct domain_def *d, int code, int type, const char *text,
                       const char *prefix, const char *uri)
{
    g_autoptr(GError) error = NULL;
    g_assert_null(domain_def_set_metadata(d, type, text, prefix, uri, &error));
    g_assert_error(error, RUCHE_ERROR, code);
}

static void test_metadata(void)
{
    g_autoptr(GError) error = NULL;
    auto_domain_def *d = with_devices("", 0);
    auto_domain_def *titled = domain_def_set_metadata(d, 1, "My <machine>", NULL, NULL, &error);
    g_autofree char *title = domain_def_get_metadata(titled, 1, NULL, &error);
    g_assert_cmpstr(title, ==, "My <machine>");
    g_assert_cmpstr(titled->s.title, ==, "My <machine>");
    auto_domain_def *own = domain_def_set_metadata(titled, 2, "<owner name='ann'><x/></owner>",
                                                   "my", "urn:my", &error);
    g_assert_no_error(error);
    g_assert_nonnull(strstr(own->text, "<my:owner xmlns:my='urn:my' name='ann'>"));
    stable(own, DEF_VALIDATE);
    g_autofree char *element = domain_def_get_metadata(own, 2, "urn:my", &error);
    g_assert_cmpstr(element, ==, "<owner name='ann'>\n  <x/>\n</owner>");
    auto_domain_def *gone = domain_def_set_metadata(own, 2, NULL, NULL, "urn:my", &error);
    g_assert_null(strstr(gone->text, "metadata"));
    g_assert_null(domain_def_get_metadata(gone, 2, "urn:my", &error));
    g_assert_error(error, RUCHE_ERROR, MANAGER_ERR_NO_METADATA);
    g_clear_error(&error);
    g_assert_null(domain_def_set_metadata(d, 2, "<a></b>", "my", "urn:my", &error));
    g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_XML_SYNTAX);
    unreadable(d, RUCHE_ERR_XML, 1, "a\x01", NULL, NULL);
    unreadable(d, RUCHE_ERR_XML_SYNTAX, 2, "<a/>", "1", "urn:my");
    unreadable(d, RUCHE_ERR_XML_SYNTAX, 2, "<a/>", "my", "urn:\x7f\x01");
    GString *deep = g_string_new(NULL);
    for (int i = 0; i < XML_MAX_DEPTH; i++)
        g_string_append(deep, "<a>");
    for (int i = 0; i < XML_MAX_DEPTH; i++)
        g_string_append(deep, "</a>");
    unreadable(d, RUCHE_ERR_XML_SYNTAX, 2, deep->str, "my", "urn:my");
    g_string_free(deep, TRUE);
}

static void test_rename(void)
{
    g_autoptr(GError) error = NULL;
    auto_domain_def *d = define("<domain type='kvm'><name>t</name><uuid>" UUID_TEXT
                                "</uuid><memory>1024</memory><os>"
                                "<type>hvm</type></os></domain>",
                                0);
    auto_domain_def *r = domain_def_rename(d, "other", NULL, &error);
    g_assert_cmpstr(r->s.name, ==, "other");
    g_assert_cmpmem(r->s.uuid, 16, d->s.uuid, 16);
    g_assert_null(domain_def_rename(d, "a/b", NULL, &error));
    g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_XML);
}

/* A query's cost: a summary without the tree, which comes back when it is asked for. */
static void test_memory(void)
{
    auto_domain_def *d = with_devices("<disk><source file='/a'/><target dev='vda'/></disk>", 0);
    domain_def_shrink(d);
    g_assert_null(d->doc);
    g_assert_cmpstr(got(d, "devices/disk/source@file"), ==, "/a");
    g_assert_nonnull(d->doc);
}

static const char typical[] =
    HEAD "<vcpu>4</vcpu><features><acpi/><apic/></features><cpu mode='host-passthrough'/><devices>"
         "<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none' "
         "io='native'/><source file='/a'/>"
         "<target dev='vda' bus='virtio'/></disk><disk device='cdrom'><target dev='sda' "
         "bus='sata'/></disk>"
         "<interface type='network'><source network='default'/><model "
         "type='virtio'/></interface><serial type='pty'/>"
         "<channel type='unix'><target type='virtio' "
         "name='org.qemu.guest_agent.0'/></channel><input type='tablet' bus='usb'/>"
         "<graphics type='vnc'/><rng model='virtio'><backend "
         "model='random'>/dev/urandom</backend></rng></devices></domain>";

static void test_speed(void)
{
    auto_domain_def *d = define(typical, 0);
    enum { ROUNDS = 200 };
    clock_t start = clock(); /* of the processor, whoever else has it */
    for (int i = 0; i < ROUNDS; i++) {
        auto_domain_def *again = define(d->text, DEF_STORED);
        g_assert_cmpuint(again->s.vcpus, ==, 4);
    }
    double each = (double)(clock() - start) * 1e6 / CLOCKS_PER_SEC / ROUNDS;
    g_test_message("%.0f us for each of %zu bytes", each, strlen(d->text));
    g_assert_cmpfloat(each, <, 20000); /* far off what it takes: only a slip of order shows */
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    manager.vmm = g_strdup("/usr/bin/ruche-vmm");
    g_test_add_func("/def/defaults", test_defaults);
    g_test_add_func("/def/refused", test_refused);
    g_test_add_func("/def/names", test_names);
    g_test_add_func("/def/unknown", test_unknown);
    g_test_add_func("/def/namespaces", test_namespaces);
    g_test_add_func("/def/devices", test_devices);
    g_test_add_func("/def/pci", test_pci);
    g_test_add_func("/def/live", test_live);
    g_test_add_func("/def/secrets", test_secrets);
    g_test_add_func("/def/attach", test_attach);
    g_test_add_func("/def/attach_live", test_attach_live);
    g_test_add_func("/def/update_keeps", test_update_keeps);
    g_test_add_func("/def/metadata", test_metadata);
    g_test_add_func("/def/rename", test_rename);
    g_test_add_func("/def/memory", test_memory);
    g_test_add_func("/def/speed", test_speed);
    return g_test_run();
}
