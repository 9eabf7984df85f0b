/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tables: <domain> itself and what stands directly in it.
 *
 * Spec      libvirt's formatdomain and domain.rng at 9.0.0; the order is that of its dumpxml.
 */
#include "manager/domain/schema_table.h"

/* clang-format off */
#define QEMU_NS "http://libvirt.org/schemas/domain/qemu/1.0"
#define LIFE_WORDS "destroy|restart|preserve|rename-restart"

static const struct schema_attr memory_attrs[] = {
    { "slots", UINT }, { "unit", TEXT }, { "dumpCore", ON_OFF }, { 0 },
};

static const struct schema_row qemu_rows[] = {
    { "arg", .ns = QEMU_NS, .flags = F_MANY, ATTRS({ "value", TEXT, F_NEED }) },
    { "env", .ns = QEMU_NS, .flags = F_MANY, ATTRS({ "name", CHARS("a-zA-Z0-9_"), F_NEED }, { "value", TEXT }) },
    { 0 },
};
static const struct schema_row qemu_capabilities[] = {
    { "add", .ns = QEMU_NS, .flags = F_MANY, ATTRS({ "capability", TEXT, F_NEED }) },
    { "del", .ns = QEMU_NS, .flags = F_MANY, ATTRS({ "capability", TEXT, F_NEED }) },
    { 0 },
};
static const struct schema_row qemu_override[] = {
    { "device", .ns = QEMU_NS, .flags = F_MANY, ATTRS({ "alias", CHARS(CLASS_ALIAS), F_NEED }), CHILDREN(
        { "frontend", .ns = QEMU_NS, CHILDREN(
            { "property", .ns = QEMU_NS, .flags = F_MANY, ATTRS(
                { "name", TEXT, F_NEED }, { "type", WORD("string|signed|unsigned|bool|remove"), F_NEED },
                { "value", TEXT }) }) }) },
    { 0 },
};

static const struct schema_attr seclabel_attrs[] = {
    { "type", WORD("dynamic|static|none"), .otherwise = "dynamic" }, { "model", TEXT_MAX(64) },
    { "relabel", YES_NO }, { 0 },
};

static const struct schema_row domain_rows[] = {
    { "name", TEXT, .flags = F_NEED | F_TEXT },
    { "uuid", UUID },
    { "genid", UUID },
    { "title", TEXT },
    { "description", TEXT },
    { "metadata", .flags = F_ANY | F_PRUNE },
    { "maxMemory", SIZE, .attrs = memory_attrs, .flags = F_TEXT },
    { "memory", SIZE, .attrs = memory_attrs, .flags = F_TEXT },
    { "currentMemory", SIZE, .attrs = memory_attrs, .flags = F_TEXT },
    { "blkiotune", .children = schema_blkiotune, .flags = F_PRUNE },
    { "memtune", .children = schema_memtune, .flags = F_PRUNE },
    { "memoryBacking", .children = schema_memory_backing, .flags = F_PRUNE },
    { "vcpu", UINT_OF(1, 16384), .flags = F_TEXT, ATTRS(
        { "placement", WORD("static|auto"), .otherwise = "static" }, { "cpuset", CPUSET },
        { "current", UINT_OF(1, 16384) }) },
    { "vcpus", .flags = F_PRUNE, CHILDREN(
        { "vcpu", .flags = F_MANY, ATTRS(
            { "id", UINT_OF(0, 16383), F_NEED }, { "enabled", YES_NO, F_NEED }, { "hotpluggable", YES_NO },
            { "order", UINT_OF(1, 16384) }) }) },
    { "iothreads", UINT_OF(0, 1024) },
    { "iothreadids", .flags = F_PRUNE, CHILDREN(
        { "iothread", .flags = F_MANY, ATTRS(
            { "id", UINT_OF(1, UINT32_MAX), F_NEED }, { "thread_pool_min", UINT_OF(0, INT32_MAX) },
            { "thread_pool_max", UINT_OF(0, INT32_MAX) }) }) },
    { "defaultiothread", .flags = F_PRUNE, ATTRS(
        { "thread_pool_min", UINT_OF(0, INT32_MAX) }, { "thread_pool_max", UINT_OF(0, INT32_MAX) }) },
    { "cputune", .children = schema_cputune, .flags = F_PRUNE },
    { "numatune", .children = schema_numatune, .flags = F_PRUNE },
    { "resource", .flags = F_PRUNE, CHILDREN(
        { "partition", PATH, .flags = F_TEXT },
        { "fibrechannel", ATTRS({ "appid", CHARS_MAX(" -~", 128), F_NEED }) }) },
    { "sysinfo", .flags = F_MANY, .attrs = schema_sysinfo_attrs, .children = schema_sysinfo },
    { "bootloader", TEXT },
    { "bootloader_args", TEXT },
    { "os", .flags = F_NEED, ATTRS({ "firmware", WORD("bios|efi") }), .children = schema_os },
    { "idmap", .flags = F_PRUNE, CHILDREN(
        { "uid", .flags = F_MANY, ATTRS(
            { "start", UINT, F_NEED }, { "target", UINT, F_NEED }, { "count", UINT, F_NEED }) },
        { "gid", .flags = F_MANY, ATTRS(
            { "start", UINT, F_NEED }, { "target", UINT, F_NEED }, { "count", UINT, F_NEED }) }) },
    { "features", .flags = F_PRUNE, .children = schema_features },
    { "cpu", .flags = F_PRUNE, .attrs = schema_cpu_attrs, .children = schema_cpu },
    { "clock", .attrs = schema_clock_attrs, .children = schema_clock },
    { "on_poweroff", WORD(LIFE_WORDS) },
    { "on_reboot", WORD(LIFE_WORDS) },
    { "on_crash", WORD(LIFE_WORDS "|coredump-destroy|coredump-restart") },
    { "on_lockfailure", WORD("poweroff|restart|pause|ignore") },
    { "pm", .flags = F_PRUNE, CHILDREN(
        { "suspend-to-mem", ATTRS({ "enabled", YES_NO }) },
        { "suspend-to-disk", ATTRS({ "enabled", YES_NO }) }) },
    { "perf", .flags = F_PRUNE, CHILDREN(
        { "event", .flags = F_MANY, ATTRS(
            { "name", WORD("cmt|mbmt|mbml|cpu_cycles|instructions|cache_references|cache_misses|"
                           "branch_instructions|branch_misses|bus_cycles|stalled_cycles_frontend|"
                           "stalled_cycles_backend|ref_cpu_cycles|cpu_clock|task_clock|page_faults|context_switches|"
                           "cpu_migrations|page_faults_min|page_faults_maj|alignment_faults|emulation_faults"),
              F_NEED },
            { "enabled", YES_NO, F_NEED }) }) },
    { "devices", .children = schema_devices },
    { "seclabel", .flags = F_MANY, .attrs = seclabel_attrs, CHILDREN(
        { "label", TEXT, .when = "type=static" }, { "label", TEXT, .when = "type=dynamic", .flags = F_LIVE },
        { "imagelabel", TEXT, .flags = F_LIVE }, { "baselabel", TEXT, .when = "type=dynamic" }) },
    { "keywrap", .flags = F_PRUNE, CHILDREN(
        { "cipher", .flags = F_MANY, ATTRS({ "name", WORD("aes|dea"), F_NEED }, { "state", ON_OFF, F_NEED }) }) },
    { "launchSecurity", ATTRS(
          { "type", WORD("sev|s390-pv"), F_NEED }, { "kernelHashes", YES_NO, .when = "type=sev" }), CHILDREN(
        { "cbitpos", UINT, .when = "type=sev" }, { "reducedPhysBits", UINT, .when = "type=sev" },
        { "policy", HEX(4, UINT32_MAX), .when = "type=sev", .flags = F_NEED },
        { "dhCert", TEXT, .when = "type=sev" }, { "session", TEXT, .when = "type=sev" }) },
    { "commandline", .ns = QEMU_NS, .children = qemu_rows, .flags = F_PRUNE },
    { "capabilities", .ns = QEMU_NS, .children = qemu_capabilities, .flags = F_PRUNE },
    { "deprecation", .ns = QEMU_NS, ATTRS({ "behavior", WORD("none|omit|reject|crash"), F_NEED }) },
    { "override", .ns = QEMU_NS, .children = qemu_override, .flags = F_PRUNE },
    { 0 },
};

const struct schema_row schema_domain = {
    "domain", .children = domain_rows, ATTRS(
        { "type", WORD("qemu|kvm|kqemu|xen|lxc|uml|openvz|test|vmware|hyperv|vbox|phyp|vz|bhyve|hvf"), F_NEED },
        { "id", UINT, F_LIVE })
};
