/* SPDX-License-Identifier: GPL-2.0-or-later */
/* May a definition run here? What its emulator does not have is refused by name, with what to use
 * in its place.
 *
 * Tables    Words of elements are held against the emulator's (node/emulator_words.c); what has no
 * words there stands here.
 */
#include "manager/domain/vm_internal.h"

#include "manager/node/emulator.h"

#include <string.h>

struct check {
    const struct emulator *e;
    const char *emulator; /* for sentences: "ruche-vmm" */
    struct xml_node *domain, *devices;
};

/* An attribute's word must be the emulator's. */
static const struct rule {
    const char *element, *path, *set; /* below <devices> */
    const char *otherwise;            /* where nothing is written; NULL: nothing is checked */
} rules[] = {
    {"disk", "@device", "disk.device", "disk"},
    {"disk", "target@bus", "disk.bus", NULL},
    {"disk", "@type", "disk.type", "file"},
    {"controller", "@type", "controller.type", NULL},
    {"interface", "@type", "interface.type", NULL},
    {"interface", "model@type", "interface.model", NULL},
    {"serial", "@type", "chardev.type", NULL},
    {"console", "@type", "chardev.type", NULL},
    {"channel", "@type", "chardev.type", NULL},
    {"serial", "target@type", "serial.target", NULL},
    {"console", "target@type", "console.target", NULL},
    {"channel", "target@type", "channel.target", NULL},
    {"graphics", "@type", "graphics.type", NULL},
    {"video", "model@type", "video.model", NULL},
    {"sound", "@model", "sound.model", NULL},
    {"input", "@bus", "input.bus", NULL},
    {"rng", "backend@model", "rng.backend", NULL},
    {"memballoon", "@model", "memballoon.model", NULL},
    {"watchdog", "@model", "watchdog.model", NULL},
    {"panic", "@model", "panic.model", NULL},
    {"tpm", "@model", "tpm.model", "tpm-tis"},
    {"hostdev", "@type", "hostdev.type", NULL},
    {"filesystem", "driver@type", "filesystem.driver", "path"},
    {"redirdev", "@bus", "redirdev.bus", NULL},
    {"smartcard", "@mode", "smartcard.mode", NULL},
    {"hub", "@type", "hub.type", NULL},
    {"vsock", "@model", "vsock.model", "virtio"},
    {"shmem", "model@type", "shmem.model", NULL},
    {"iommu", "@model", "iommu.model", NULL},
    {"memory", "@model", "memory.model", NULL},
    {"parallel", "target@type", "parallel.target", "isa-parallel"},
};

/* Words that no builder of ours makes a command line of, whatever the emulator has: element, and
 * what to do. */
static const struct {
    const char *element, *advice;
} not_here[] = {
    {"hostdev", "devices of the host cannot be passed on yet"},
    {"filesystem",
     "folders of the host cannot be shared yet; use a disk, or a network file system"},
    {"tpm", "there is no TPM yet; leave it out"},
    {"redirdev", "USB redirection is not there yet; leave it out"},
    {"smartcard", "smart cards are not there yet; leave it out"},
    {"hub", "USB hubs are not there yet; leave it out"},
    {"vsock", "vsock is not there yet; use a channel"},
    {"shmem", "shared memory is not there yet; leave it out"},
    {"iommu", "there is no IOMMU yet; leave it out"},
    {"memory", "memory modules are not there yet; use <memory>"},
    {"parallel", "parallel ports are not there; use <serial>"},
    {"nvram", "there is no NVRAM device on this machine"},
    {"crypto", "there is no crypto device yet; leave it out"},
    {"lease", "leases are not there yet; leave it out"},
};

static const char *name_of(const struct xml_node *n)
{
    static const char *const paths[] = {"target@dev", "mac@address", "target@name", "@index"};
    for (size_t i = 0; i < G_N_ELEMENTS(paths); i++)
        if (xml_get(n, paths[i]))
            return xml_get(n, paths[i]);
    return "";
}

/* "disk 'sda': bus 'scsi' is not there in ruche-vmm; use 'virtio' or 'sata'". */
static bool refuse(const struct check *c, const struct xml_node *n, const char *path,
                   const char *set, const char *word, GError **error)
{
    g_autoptr(GString) known = g_string_new(NULL);
    g_autofree const char **words = emulator_set(c->e, set);
    for (const char **w = words; *w; w++)
        g_string_append_printf(known, "%s'%s'", !known->len ? "" : w[1] ? ", " : " or ", *w);
    const char *at = strrchr(path, '@'), *name = name_of(n);
    g_autofree char *what =
        g_strdup_printf("%s%s%s%s", n->name, *name ? " '" : "", name, *name ? "'" : "");
    return ruche_error(error, MANAGER_ERR_CONFIG, "%s: %s '%s' is not there in %s; %s%s", what,
                       at ? at + 1 : path, word, c->emulator,
                       known->len ? "use " : "leave the element out", known->str);
}

static bool check_words(const struct check *c, GError **error)
{
    for (size_t i = 0; i < G_N_ELEMENTS(rules); i++)
        for (struct xml_node *n = xml_find(c->devices, rules[i].element); n; n = xml_next(n)) {
            if (xml_is(n, "@model", "none"))
                continue; /* says that it is not there: a USB controller, a balloon */
            const char *word = xml_get(n, rules[i].path);
            word = word ? word : rules[i].otherwise;
            if (word && *word && strcmp(word, "none") && !emulator_has(c->e, rules[i].set, word))
                return refuse(c, n, rules[i].path, rules[i].set, word, error);
        }
    return true;
}

static bool check_elements(const struct check *c, GError **error)
{
    for (size_t i = 0; i < G_N_ELEMENTS(not_here); i++) {
        const struct xml_node *n = xml_find(c->devices, not_here[i].element);
        if (n)
            return ruche_error(error, MANAGER_ERR_CONFIG, "<%s> is not possible: %s",
                               not_here[i].element, not_here[i].advice);
    }
    return true;
}

/* ---- what has no words ---- */

static bool check_boot(const struct check *c, GError **error)
{
    const char *loader = xml_get(c->domain, "os/loader");
    if (c->e->ours && loader && *loader && !emulator_has(c->e, "feature", "firmware"))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "<loader> '%s': %s has no firmware yet; give <kernel>, or use "
                           "<emulator> qemu-system-%s",
                           loader, c->emulator, c->e->arch);
    return true;
}

static bool check_memory(const struct check *c, GError **error)
{
    if (c->e->ours && xml_get(c->domain, "maxMemory"))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "<maxMemory>: memory cannot be added while %s runs; use <memory>",
                           c->emulator);
    if (c->e->ours && xml_find(c->domain, "cpu/numa/cell") &&
        xml_next(xml_find(c->domain, "cpu/numa/cell")))
        return ruche_error(error, MANAGER_ERR_CONFIG, "<numa>: %s has one cell; leave <numa> out",
                           c->emulator);
    return true;
}

/* What an interface's type has nothing for; `types` has blanks around each. */
static const struct {
    const char *path, *value; /* value NULL: whatever it says */
    const char *types;        /* that have it */
    const char *why;
} interface_parts[] = {
    {"driver@queues", NULL, " network bridge ethernet direct vhostuser ",
     "several queues are for taps (network, bridge, ethernet, direct) and vhostuser"},
    {"@trustGuestRxFilters", "yes",
     " network bridge ethernet user vhostuser udp server client mcast ",
     "a macvtap does not follow the filters that its guest sets"},
    {"port@isolated", "yes", " network bridge ", "a port is isolated on a bridge only"},
    {"bandwidth", NULL, " network bridge ethernet direct ",
     "rates are for interfaces that the host has: network, bridge, ethernet, direct"},
    {"filterref", NULL, " network bridge ethernet ",
     "filters are for taps: network, bridge, ethernet"},
    {"mtu", NULL, " network bridge ethernet vhostuser user ",
     "its MTU is that of the interface below it"},
    {"vlan", NULL, " network bridge ", "VLANs are for ports of Open vSwitch"},
    {"virtualport", NULL, " network bridge ", "virtual ports are for bridges of Open vSwitch"},
    {"virtualport@type", "802.1Qbg", " ", "only 'openvswitch' is there"},
    {"virtualport@type", "802.1Qbh", " ", "only 'openvswitch' is there"},
    {"virtualport@type", "midonet", " ", "only 'openvswitch' is there"},
    {"script", NULL, " ",
     "scripts are not run; prepare the interface before, and give its name in <target>"},
    {"downscript", NULL, " ", "scripts are not run"},
    {"backend@tap", NULL, " ", "taps are opened at /dev/net/tun"},
    {"backend@vhost", NULL, " ", "vhost is not there"},
    {"teaming", NULL, " ", "teaming is not there yet; leave it out"},
    {"coalesce", NULL, " ", "coalescing is not there yet; leave it out"},
};

/* Of <driver>: ruche-vmm's card has not got them. */
static const char *const not_ours[] = {
    "driver@rss",         "driver@rss_hash_report", "driver@iommu",    "driver@ats",
    "driver@page_per_vq", "driver/host@ufo",        "driver/guest@ufo"};

static bool check_driver(const struct check *c, const struct xml_node *n, GError **error)
{
    if (c->e->ours && xml_is(n, "driver@name", "vhost"))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "interface '%s': driver 'vhost' is not there in %s; use 'qemu'",
                           name_of(n), c->emulator);
    for (size_t i = 0; c->e->ours && i < G_N_ELEMENTS(not_ours); i++)
        if (xml_is(n, not_ours[i], "on"))
            return ruche_error(error, MANAGER_ERR_CONFIG,
                               "interface '%s': %s 'on' is not there in %s; leave it out",
                               name_of(n), not_ours[i], c->emulator);
    uint64_t queues = xml_get_u64(n, "driver@queues", 1);
    return queues <= VM_MAX_QUEUES ||
           ruche_error(error, MANAGER_ERR_CONFIG, "interface '%s': %u queues; %d are possible",
                       name_of(n), (unsigned)queues, VM_MAX_QUEUES);
}

static bool check_parts(const struct xml_node *n, GError **error)
{
    g_autofree char *type = g_strdup_printf(" %s ", xml_get_or(n, "@type", ""));
    for (size_t i = 0; i < G_N_ELEMENTS(interface_parts); i++) {
        const char *path = interface_parts[i].path, *value = interface_parts[i].value;
        bool there = value               ? xml_is(n, path, value)
                     : strchr(path, '@') ? xml_get(n, path) != NULL
                                         : xml_find(n, path) != NULL;
        if (there && !strstr(interface_parts[i].types, type))
            return ruche_error(error, MANAGER_ERR_CONFIG,
                               "interface '%s' of type '%s': %s is not possible: %s", name_of(n),
                               xml_get_or(n, "@type", ""), path, interface_parts[i].why);
    }
    if (xml_is(n, "@type", "bridge") && xml_find(n, "vlan") && !xml_find(n, "virtualport"))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "interface '%s': bridge '%s' knows no <vlan>; that is for "
                           "<virtualport type='openvswitch'>",
                           name_of(n), xml_get_or(n, "source@bridge", ""));
    return true;
}

/* QEMU's, by the definition; a cell may say it for itself. */
static bool memory_is_shared(const struct xml_node *domain)
{
    const struct xml_node *cell = xml_find(domain, "cpu/numa/cell");
    const char *all = xml_get_or(domain, "memoryBacking/access@mode", "");
    if (!cell)
        return !strcmp(all, "shared");
    while (cell && !strcmp(xml_get_or(cell, "@memAccess", all), "shared"))
        cell = xml_next(cell);
    return !cell;
}

/* The switch maps the machine's memory. Ours is always shared. */
static bool check_vhostuser(const struct check *c, const struct xml_node *n, GError **error)
{
    if (!xml_is(n, "@type", "vhostuser"))
        return true;
    if (!g_str_has_prefix(xml_get_or(n, "model@type", "virtio"), "virtio"))
        return ruche_error(
            error, MANAGER_ERR_CONFIG,
            "interface '%s' of type 'vhostuser': model '%s' is not possible; only 'virtio' is",
            name_of(n), xml_get(n, "model@type"));
    return c->e->ours || memory_is_shared(c->domain) ||
           ruche_error(
               error, MANAGER_ERR_CONFIG,
               "interface '%s' of type 'vhostuser' needs memory that the switch can map: say "
               "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>",
               name_of(n));
}

static bool check_interfaces(const struct check *c, GError **error)
{
    for (struct xml_node *n = xml_find(c->devices, "interface"); n; n = xml_next(n)) {
        if (manager.session && (xml_is(n, "@type", "network") || xml_is(n, "@type", "bridge") ||
                                xml_is(n, "@type", "direct")))
            return ruche_error(error, MANAGER_ERR_CONFIG,
                               "interface '%s': type '%s' needs rights of the host that a session "
                               "does not have; use type 'user'",
                               name_of(n), xml_get(n, "@type"));
        if (!check_driver(c, n, error) || !check_parts(n, error) || !check_vhostuser(c, n, error))
            return false;
    }
    return true;
}

/* What drives of a kind have not got. */
static const struct {
    const char *device, *path, *value; /* value NULL: whatever it says */
    const char *why;
} drive_parts[] = {
    {"lun", "@rawio", "yes", "machines have no right to raw commands"},
    {"lun", "@sgio", "unfiltered", "this kernel filters commands"},
    {"lun", "serial", NULL, "the device behind it has one"},
    {"lun", "blockio", NULL, "the device behind it has its own sizes"},
    {"floppy", "serial", NULL, "floppy disks have none"},
    {"floppy", "driver@error_policy", NULL, "a floppy drive reports errors"},
    {"floppy", "driver@rerror_policy", NULL, "a floppy drive reports errors"},
};

static bool check_drive(const struct xml_node *n, GError **error)
{
    const char *device = xml_get_or(n, "@device", "disk");
    if (!strcmp(device, "lun") && !xml_is(n, "target@bus", "scsi"))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "disk '%s': device 'lun' is not possible on bus '%s'; use 'scsi'",
                           name_of(n), xml_get_or(n, "target@bus", ""));
    for (size_t i = 0; i < G_N_ELEMENTS(drive_parts); i++) {
        const char *path = drive_parts[i].path, *value = drive_parts[i].value;
        bool there = value               ? xml_is(n, path, value)
                     : strchr(path, '@') ? xml_get(n, path) != NULL
                                         : xml_find(n, path) != NULL;
        if (there && !strcmp(drive_parts[i].device, device))
            return ruche_error(error, MANAGER_ERR_CONFIG,
                               "disk '%s': %s is not possible with device '%s': %s", name_of(n),
                               path, device, drive_parts[i].why);
    }
    return true;
}

static bool check_drives(const struct check *c, GError **error)
{
    for (struct xml_node *n = xml_find(c->devices, "disk"); n; n = xml_next(n))
        if (!check_drive(n, error))
            return false;
    for (struct xml_node *n = xml_find(c->devices, "controller"); n; n = xml_next(n))
        if (xml_is(n, "@type", "fdc") && xml_get_u64(n, "@index", 0))
            return ruche_error(error, MANAGER_ERR_CONFIG,
                               "controller 'fdc' %s: a machine has one, of index 0",
                               xml_get(n, "@index"));
    return true;
}

static bool check_kvm(const struct check *c, GError **error)
{
    if (!xml_is(c->domain, "@type", "kvm") || c->e->kvm)
        return true;
    return ruche_error(error, MANAGER_ERR_CONFIG,
                       "domain type 'kvm' is not possible: this host has no /dev/kvm that can be "
                       "used and rests on VMX or SVM; use type 'qemu'");
}

static bool (*const checks[])(const struct check *c, GError **error) = {
    check_kvm,    check_elements,   check_words,  check_boot,
    check_memory, check_interfaces, check_drives,
};

bool vm_check_def(struct domain_def *d, GError **error)
{
    const struct emulator *e = node_emulator(d->s.emulator, d->s.arch, error);
    if (!e)
        return false;
    g_autofree char *name = g_path_get_basename(e->path);
    struct xml_node *domain = domain_def_tree(d);
    const struct check c = {
        .e = e, .emulator = name, .domain = domain, .devices = xml_find(domain, "devices")};
    for (size_t i = 0; i < G_N_ELEMENTS(checks); i++)
        if (!checks[i](&c, error))
            return false;
    return true;
}
