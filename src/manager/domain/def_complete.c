/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Completion of what is not a device: names, memory, processors, boot, clock, what to do at the
 * end. */
#include "manager/domain/def_internal.h"
#include "manager/manager.h"

#include <sys/utsname.h>

bool def_check_name(const char *name, GError **error)
{
    if (!*name || !name[strspn(name, " \t\r\n")])
        return ruche_error(error, RUCHE_ERR_XML, "the name of a domain is empty");
    if (strlen(name) > 200)
        return ruche_error(error, RUCHE_ERR_XML,
                           "name '%.60s...' has %zu bytes; at most 200 can be", name, strlen(name));
    if (strpbrk(name, "/\n") || !strcmp(name, ".") || !strcmp(name, ".."))
        return ruche_error(error, RUCHE_ERR_XML,
                           "name '%s' cannot be: no '/', no line feed, not '.' or '..'", name);
    return true;
}

/* ---- before the tables are applied ---- */

static bool made_by_host(const char *dev)
{
    static const char *const prefixes[] = {"vnet", "macvtap", "macvlan", "vif"};
    for (size_t i = 0; i < G_N_ELEMENTS(prefixes); i++) {
        size_t len = strlen(prefixes[i]);
        if (!strncmp(dev, prefixes[i], len) && dev[len] &&
            !dev[len + strspn(dev + len, "0123456789")])
            return true;
    }
    return false;
}

/* What a run gave a device goes, when a text of a running machine is defined: aliases that are not
 * the user's own ("ua-..."), names of taps. */
void def_strip(struct xml_node *domain, unsigned def_flags)
{
    const struct xml_node *devices = devices_of(domain);
    xml_remove(domain, "@id");
    if (!devices || def_flags & DEF_LIVE)
        return;
    FOREACH_ELEMENT (c, devices) {
        const char *alias = xml_get(c, "alias@name");
        if (xml_find(c, "alias") && (!alias || !g_str_has_prefix(alias, "ua-")))
            xml_remove(c, "alias");
        if (is_named(c, "interface") && made_by_host(xml_get_or(c, "target@dev", "")))
            xml_remove(c, "target");
    }
}

/* ---- machine ---- */

bool def_is_x86(const struct xml_node *domain)
{
    const char *arch = xml_get_or(domain, "os/type@arch", "");
    return !strcmp(arch, "x86_64") || !strcmp(arch, "i686");
}

static const struct {
    const char *arch, *machine, *qemu; /* qemu-system-... */
} arches[] = {
    {"x86_64", "q35", "x86_64"},
    {"i686", "q35", "i386"},
    {"aarch64", "virt", "aarch64"},
    {"armv7l", "virt", "arm"},
    {"armv6l", "versatilepb", "arm"},
    {"riscv64", "virt", "riscv64"},
    {"riscv32", "virt", "riscv32"},
    {"s390x", "s390-ccw-virtio", "s390x"},
    {"ppc64", "pseries", "ppc64"},
    {"ppc64le", "pseries", "ppc64"},
    {"loongarch64", "virt", "loongarch64"},
};

/* The boards of machines, by the beginning of their names. */
static const struct {
    const char *prefix;
    enum def_board board;
} machines[] = {
    {"pc-q35", BOARD_PCIE},         {"q35", BOARD_PCIE},    {"pc-i440fx", BOARD_PCI},
    {"microvm", BOARD_FLAT_PCIE},   {"pc", BOARD_PCI},      {"virt", BOARD_PCIE},
    {"s390-ccw-virtio", BOARD_CCW}, {"pseries", BOARD_PCI}, {"isapc", BOARD_NONE},
};

enum def_board def_board(const struct xml_node *domain)
{
    const char *machine = xml_get_or(domain, "os/type@machine", "");
    for (size_t i = 0; i < G_N_ELEMENTS(machines); i++) {
        size_t len = strlen(machines[i].prefix);
        if (!strncmp(machine, machines[i].prefix, len) &&
            (!machine[len] || machine[len] == '-' || machine[len] == '.'))
            return machines[i].board;
    }
    return BOARD_NONE;
}

static void complete_os(struct xml_node *domain)
{
    struct xml_node *os = xml_find(domain, "os");
    struct utsname host;
    set_missing(os, "type@arch", uname(&host) == 0 ? host.machine : "x86_64");
    for (size_t i = 0; i < G_N_ELEMENTS(arches); i++)
        if (xml_is(os, "type@arch", arches[i].arch))
            set_missing(os, "type@machine", arches[i].machine);
    bool per_device = false;
    FOREACH_ELEMENT (c, devices_of(domain))
        per_device |= xml_find(c, "boot") != NULL;
    if (!per_device && !xml_find(os, "boot") && xml_is(os, "type", "hvm"))
        xml_set(os, "boot@dev", "hd");
}

static void complete_emulator(struct xml_node *domain)
{
    if (xml_find(domain, "devices/emulator"))
        return;
    const char *arch = xml_get_or(domain, "os/type@arch", "x86_64");
    const char *qemu = arch;
    for (size_t i = 0; i < G_N_ELEMENTS(arches); i++)
        if (!strcmp(arch, arches[i].arch))
            qemu = arches[i].qemu;
    if (!strcmp(arch, "x86_64") && manager.vmm)
        xml_set(domain, "devices/emulator", manager.vmm);
    else
        xml_set_f(domain, "devices/emulator", "/usr/bin/qemu-system-%s", qemu);
}

/* ---- memory ---- */

/* The sum of NUMA cells and memory devices; 0: there are no cells. False: it overflows. */
static bool sum_memory(const struct xml_node *domain, uint64_t *ret)
{
    uint64_t sum = 0, devices = 0;
    const struct xml_node *numa = xml_find(domain, "cpu/numa");
    if (numa)
        FOREACH_NAMED (c, numa, "cell")
            if (__builtin_add_overflow(sum, xml_get_u64(c, "@memory", 0), &sum))
                return false;
    FOREACH_NAMED (m, devices_of(domain), "memory")
        if (__builtin_add_overflow(devices, xml_get_u64(m, "target/size", 0), &devices))
            return false;
    return !__builtin_add_overflow(sum, sum ? devices : 0, ret) && *ret <= INT64_MAX / 1024;
}

static bool complete_memory(struct xml_node *domain, GError **error)
{
    uint64_t cells = 0;
    if (!sum_memory(domain, &cells))
        return ruche_error(error, RUCHE_ERR_XML,
                           "memory of NUMA cells and devices is more than 2^63 bytes");
    if (cells)
        xml_set_f(domain, "memory", "%" PRIu64, cells);
    uint64_t memory = xml_get_u64(domain, "memory", 0);
    if (!memory)
        return ruche_error(error, RUCHE_ERR_XML, "the size of memory is missing or 0");
    uint64_t current = xml_get_u64(domain, "currentMemory", 0);
    if (!current || current > memory)
        xml_set_f(domain, "currentMemory", "%" PRIu64, memory);
    set_missing(domain, "memory@unit", "KiB");
    set_missing(domain, "currentMemory@unit", "KiB");
    uint64_t most = xml_get_u64(domain, "maxMemory", 0);
    if (xml_find(domain, "maxMemory") &&
        (most < memory || !xml_get_u64(domain, "maxMemory@slots", 0)))
        return ruche_error(error, RUCHE_ERR_XML,
                           "maxMemory %" PRIu64 " KiB needs 'slots' and at least the %" PRIu64
                           " KiB of memory",
                           most, memory);
    return true;
}

/* ---- processors ---- */

static bool complete_vcpus(struct xml_node *domain, GError **error)
{
    set_missing(domain, "vcpu", "1");
    set_missing(domain, "vcpu@placement", "static");
    uint64_t max = xml_get_u64(domain, "vcpu", 1),
             current = xml_get_u64(domain, "vcpu@current", max);
    if (current > max)
        return ruche_error(error, RUCHE_ERR_XML,
                           "vcpu: %" PRIu64 " current ones are more than the %" PRIu64 " there are",
                           current, max);
    if (current == max)
        xml_remove(domain, "vcpu@current");
    uint64_t threads = 0;
    const struct xml_node *ids = xml_find(domain, "iothreadids");
    if (ids)
        FOREACH_ELEMENT (t, ids)
            threads++;
    if (threads > xml_get_u64(domain, "iothreads", 0))
        xml_set_f(domain, "iothreads", "%" PRIu64, threads);
    return true;
}

static bool number_cells(struct xml_node *numa, GError **error)
{
    unsigned next = 0;
    bool seen[1024] = {false};
    FOREACH_NAMED (c, numa, "cell") {
        if (!xml_get(c, "@id"))
            xml_set_f(c, "@id", "%u", next);
        uint64_t id = xml_get_u64(c, "@id", 0);
        if (id >= G_N_ELEMENTS(seen) || seen[id])
            return ruche_error(error, RUCHE_ERR_XML, "NUMA cell '%s' is there twice or beyond 1023",
                               xml_get(c, "@id"));
        seen[id] = true;
        next++;
    }
    for (unsigned i = 0; i < next; i++)
        if (!seen[i])
            return ruche_error(error, RUCHE_ERR_XML,
                               "NUMA cells are numbered without gaps; %u is missing of %u", i,
                               next);
    return true;
}

static bool complete_cpu(struct xml_node *domain, GError **error)
{
    struct xml_node *cpu = xml_find(domain, "cpu");
    if (!cpu)
        return true;
    if (!xml_get(cpu, "@mode") && (xml_get(cpu, "@match") || xml_find(cpu, "model")))
        xml_set(cpu, "@mode", "custom");
    bool named = *xml_get_or(cpu, "model", "") != 0;
    if (xml_is(cpu, "@mode", "custom") && !named &&
        (xml_find(cpu, "feature") || xml_get(cpu, "@match")))
        return ruche_error(error, RUCHE_ERR_XML, "cpu of mode 'custom' needs a model");
    if (xml_is(cpu, "@mode", "custom") && !named) { /* the emulator's own */
        xml_remove(cpu, "@mode");
        xml_remove(cpu, "@check");
        xml_remove(cpu, "model");
    } else if (xml_is(cpu, "@mode", "custom")) {
        set_missing(cpu, "@match", "exact");
        set_missing(cpu, "@check", "partial");
        set_missing(cpu, "model@fallback", "allow");
    } else if (xml_get(cpu, "@mode")) {
        xml_remove(cpu, "@match");
        bool model = xml_is(cpu, "@mode", "host-model");
        if (model && *xml_get_or(cpu, "model", "") == 0 && !xml_get(cpu, "model@fallback") &&
            !xml_get(cpu, "model@vendor_id"))
            xml_remove(cpu, "model");
        set_missing(cpu, "@check", model ? "partial" : "none");
        if (!model)
            set_missing(cpu, "@migratable", "on");
    }
    struct xml_node *numa = xml_find(cpu, "numa");
    return !numa || number_cells(numa, error);
}

/* ---- the whole ---- */

static bool complete_names(struct xml_node *domain, GError **error)
{
    if (!def_check_name(xml_get_or(domain, "name", ""), error))
        return false;
    if (strchr(xml_get_or(domain, "title", ""), '\n'))
        return ruche_error(error, RUCHE_ERR_XML, "the title of a domain is one line");
    if (!*xml_get_or(domain, "uuid", "")) {
        g_autofree char *uuid = g_uuid_string_random();
        xml_set(domain, "uuid", uuid);
    }
    if (xml_find(domain, "genid") && !*xml_get(domain, "genid")) {
        g_autofree char *uuid = g_uuid_string_random();
        xml_set(domain, "genid", uuid);
    }
    return true;
}

bool def_complete(struct xml_node *domain, unsigned def_flags, GError **error)
{
    if (!complete_names(domain, error))
        return false;
    if (!devices_of(domain))
        add_element(domain, "devices");
    complete_os(domain);
    complete_emulator(domain);
    if (!complete_cpu(domain, error) || !complete_memory(domain, error) ||
        !complete_vcpus(domain, error))
        return false;
    set_missing(domain, "clock@offset", "utc");
    set_missing(domain, "on_poweroff", "destroy");
    set_missing(domain, "on_reboot", "restart");
    set_missing(domain, "on_crash", "destroy");
    return true;
}
