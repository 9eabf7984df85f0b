/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tables: what the guest sees of its computer: how it boots, firmware tables, processor, features, clock.
 *
 * Spec      libvirt's formatdomain, "Operating system booting", "SMBIOS System Information", "CPU model and
 *           topology", "Hypervisor features", "Time keeping", at 9.0.0.
 */
#include "manager/domain/schema_table.h"

/* clang-format off */

/* ---- os ---- */

#define ARCHES "aarch64|alpha|armv6l|armv7b|armv7l|cris|i686|ia64|itanium|lm32|loongarch64|m68k|microblaze|" \
    "microblazeel|mips|mips64|mips64el|mipsel|openrisc|parisc|parisc64|ppc|ppc64|ppc64le|ppcemb|riscv32|riscv64|" \
    "s390|s390x|sh4|sh4eb|sparc|sparc64|unicore32|x86_64|xtensa|xtensaeb"

const struct schema_row schema_os[] = {
    { "type", WORD("hvm|exe|xen|linux|xenpvh"), .flags = F_NEED | F_TEXT, ATTRS(
        { "arch", WORD(ARCHES) }, { "machine", CHARS_MAX("a-zA-Z0-9_.-", 64) }) },
    { "init", PATH },
    { "initarg", TEXT, .flags = F_MANY },
    { "firmware", CHILDREN(
        { "feature", .flags = F_MANY, ATTRS(
            { "enabled", YES_NO, F_NEED }, { "name", WORD("enrolled-keys|secure-boot"), F_NEED }) }) },
    { "loader", PATH, ATTRS(
        { "readonly", YES_NO }, { "secure", YES_NO }, { "type", WORD("rom|pflash") }, { "stateless", YES_NO }) },
    { "nvram", PATH, ATTRS({ "template", PATH }, { "type", WORD("file|block|network") }), CHILDREN(
        ROWS_DISK_SOURCE) },
    { "kernel", PATH }, { "initrd", PATH }, { "cmdline", TEXT }, { "dtb", PATH }, { "root", PATH },
    { "acpi", .flags = F_PRUNE, CHILDREN(
        { "table", PATH, .flags = F_TEXT, ATTRS({ "type", WORD("slic"), F_NEED }) }) },
    { "boot", .flags = F_MANY, ATTRS({ "dev", WORD("hd|fd|cdrom|network"), F_NEED }) },
    { "bootmenu", ATTRS({ "enable", YES_NO, F_NEED }, { "timeout", UINT_OF(0, 65535) }) },
    { "bios", .flags = F_PRUNE, ATTRS({ "useserial", YES_NO }, { "rebootTimeout", INT_OF(-1, 65535) }) },
    { "smbios", ATTRS({ "mode", WORD("emulate|host|sysinfo"), F_NEED }) },
    { 0 },
};

/* ---- sysinfo ---- */

#define ENTRIES(words) .flags = F_PRUNE, CHILDREN( \
    { "entry", TEXT_MAX(1024), .flags = F_MANY, ATTRS({ "name", WORD(words), F_NEED }) })

const struct schema_attr schema_sysinfo_attrs[] = { { "type", WORD("smbios|fwcfg"), F_NEED }, { 0 } };
const struct schema_row schema_sysinfo[] = {
    { "bios", .when = "type=smbios", ENTRIES("vendor|version|date|release") },
    { "system", .when = "type=smbios", ENTRIES("manufacturer|product|version|serial|uuid|sku|family") },
    { "baseBoard", .when = "type=smbios", .flags = F_MANY | F_PRUNE, CHILDREN(
        { "entry", TEXT_MAX(1024), .flags = F_MANY, ATTRS(
            { "name", WORD("manufacturer|product|version|serial|asset|location"), F_NEED }) }) },
    { "chassis", .when = "type=smbios", ENTRIES("manufacturer|version|serial|asset|sku") },
    { "oemStrings", .when = "type=smbios", .flags = F_PRUNE, CHILDREN(
        { "entry", TEXT_MAX(1024), .flags = F_MANY }) },
    { "entry", TEXT, .when = "type=fwcfg", .flags = F_MANY, ATTRS(
        { "name", TEXT_MAX(55), F_NEED }, { "file", PATH }) },
    { 0 },
};

/* ---- features ---- */

#define STATE { "state", ON_OFF, F_NEED }
#define STATE_ROW(name) { name, ATTRS(STATE) }

static const struct schema_row hyperv_rows[] = {
    STATE_ROW("relaxed"), STATE_ROW("vapic"),
    { "spinlocks", ATTRS(STATE, { "retries", UINT_OF(4095, UINT32_MAX), .when = "state=on" }) },
    STATE_ROW("vpindex"), STATE_ROW("runtime"), STATE_ROW("synic"),
    { "stimer", ATTRS(STATE), CHILDREN(STATE_ROW("direct")) },
    STATE_ROW("reset"),
    { "vendor_id", ATTRS(STATE, { "value", CHARS_MAX(" -+--~", 12), .when = "state=on" }) },
    STATE_ROW("frequencies"), STATE_ROW("reenlightenment"), STATE_ROW("tlbflush"), STATE_ROW("ipi"),
    STATE_ROW("evmcs"), STATE_ROW("avic"),
    { 0 },
};

static const struct schema_attr size_attrs[] = { { "unit", TEXT }, { 0 } };

const struct schema_row schema_features[] = {
    { "acpi" },
    { "apic", ATTRS({ "eoi", ON_OFF }) },
    { "pae" },
    { "viridian" },
    { "privnet" },
    { "hap", ATTRS({ "state", ON_OFF }) },
    { "hyperv", ATTRS({ "mode", WORD("custom|passthrough"), .otherwise = "custom" }), .children = hyperv_rows },
    { "kvm", CHILDREN(
        STATE_ROW("hidden"), STATE_ROW("hint-dedicated"), STATE_ROW("poll-control"), STATE_ROW("pv-ipi"),
        { "dirty-ring", ATTRS(STATE, { "size", UINT_OF(1024, 65536), .when = "state=on" }) }) },
    { "xen", CHILDREN(
        STATE_ROW("e820_host"), { "passthrough", ATTRS(STATE, { "mode", WORD("sync_pt|share_pt") }) }) },
    { "pvspinlock", ATTRS({ "state", ON_OFF, .otherwise = "on" }) },
    { "pmu", ATTRS({ "state", ON_OFF }) },
    { "vmport", ATTRS({ "state", ON_OFF, .otherwise = "on" }) },
    { "gic", ATTRS({ "version", WORD("host|2|3") }) },
    { "smm", ATTRS({ "state", ON_OFF, .otherwise = "on" }), CHILDREN({ "tseg", SIZE, .attrs = size_attrs }) },
    { "ioapic", ATTRS({ "driver", WORD("qemu|kvm"), F_NEED }) },
    { "hpt", .flags = F_PRUNE, ATTRS({ "resizing", WORD("enabled|disabled|required") }), CHILDREN(
        { "maxpagesize", SIZE, .attrs = size_attrs }) },
    { "vmcoreinfo", ATTRS({ "state", ON_OFF, .otherwise = "on" }) },
    STATE_ROW("htm"), STATE_ROW("nested-hv"),
    { "msrs", ATTRS({ "unknown", WORD("ignore|fault"), F_NEED }) },
    STATE_ROW("ccf-assist"),
    { "cfpc", ATTRS({ "value", WORD("broken|workaround|fixed"), F_NEED }) },
    { "sbbc", ATTRS({ "value", WORD("broken|workaround|fixed"), F_NEED }) },
    { "ibs", ATTRS({ "value", WORD("broken|workaround|fixed-ibs|fixed-ccd|fixed-na"), F_NEED }) },
    { "tcg", .flags = F_PRUNE, CHILDREN({ "tb-cache", SIZE, .attrs = size_attrs }) },
    { 0 },
};

/* ---- cpu ---- */

#define SIZED_VALUE ATTRS({ "value", SIZE, F_NEED }, { "unit", TEXT, F_NEED })
#define HMAT_ATTRS \
    { "initiator", UINT, F_NEED }, { "target", UINT, F_NEED }, { "cache", UINT }, \
    { "type", WORD("access|read|write"), F_NEED }

const struct schema_attr schema_cpu_attrs[] = {
    { "mode", WORD("custom|host-model|host-passthrough|maximum") },
    { "match", WORD("minimum|exact|strict") }, { "check", WORD("none|partial|full") },
    { "migratable", ON_OFF, .when = "mode=host-passthrough|maximum" }, { 0 },
};
const struct schema_row schema_cpu[] = {
    { "model", CHARS_MAX(CLASS_ALIAS, 64), .flags = F_PRUNE, ATTRS(
        { "fallback", WORD("allow|forbid") }, { "vendor_id", CHARS_MAX(" -+--~", 12) }) },
    { "vendor", CHARS_MAX("a-zA-Z0-9", 16) },
    { "topology", ATTRS(
        { "sockets", UINT_OF(1, 16384), F_NEED }, { "dies", UINT_OF(1, 16384), .otherwise = "1" },
        { "cores", UINT_OF(1, 16384), F_NEED }, { "threads", UINT_OF(1, 16384), F_NEED }) },
    { "cache", ATTRS(
        { "level", UINT_OF(1, 3) }, { "mode", WORD("emulate|passthrough|disable"), F_NEED }) },
    { "maxphysaddr", ATTRS(
        { "mode", WORD("emulate|passthrough"), F_NEED }, { "bits", UINT_OF(32, 64), .when = "mode=emulate" }) },
    { "feature", .flags = F_MANY, ATTRS(
        { "policy", WORD("force|require|optional|disable|forbid"), .otherwise = "require" },
        { "name", CHARS_MAX(CLASS_ALIAS, 64), F_NEED }) },
    { "numa", .flags = F_PRUNE, CHILDREN(
        { "cell", .flags = F_MANY, ATTRS(
              { "id", UINT_OF(0, 1023) }, { "cpus", CPUSET }, { "memory", SIZE, F_NEED }, { "unit", TEXT },
              { "memAccess", WORD("shared|private") }, { "discard", YES_NO }), CHILDREN(
            { "distances", .flags = F_PRUNE, CHILDREN(
                { "sibling", .flags = F_MANY, ATTRS(
                    { "id", UINT_OF(0, 1023), F_NEED }, { "value", UINT_OF(10, 255), F_NEED }) }) },
            { "cache", .flags = F_MANY, ATTRS(
                  { "level", UINT_OF(1, 3), F_NEED }, { "associativity", WORD("none|direct|full"), F_NEED },
                  { "policy", WORD("none|writeback|writethrough"), F_NEED }), CHILDREN(
                { "size", .flags = F_NEED, SIZED_VALUE }, { "line", .flags = F_NEED, ATTRS(
                    { "value", SIZE_BYTES, F_NEED }, { "unit", TEXT, F_NEED }) }) }) },
        { "interconnects", .flags = F_PRUNE, CHILDREN(
            { "latency", .flags = F_MANY, ATTRS(HMAT_ATTRS, { "value", UINT_OF(1, UINT32_MAX), F_NEED }) },
            { "bandwidth", .flags = F_MANY, ATTRS(
                HMAT_ATTRS, { "value", SIZE, F_NEED }, { "unit", TEXT, F_NEED }) }) }) },
    { 0 },
};

/* ---- clock ---- */

const struct schema_attr schema_clock_attrs[] = {
    { "offset", WORD("utc|localtime|timezone|variable|absolute"), .otherwise = "utc" },
    { "timezone", CHARS_MAX("a-zA-Z0-9_.+/-", 128), F_NEED, .when = "offset=timezone" },
    { "adjustment", INT_OF(INT64_MIN + 1, INT64_MAX), .when = "offset=variable", .otherwise = "0" },
    { "adjustment", TEXT_MAX(20), .when = "offset=utc|localtime" },
    { "basis", WORD("utc|localtime"), .when = "offset=variable", .otherwise = "utc" },
    { "start", U64, F_NEED, .when = "offset=absolute" }, { 0 },
};
const struct schema_row schema_clock[] = {
    { "timer", .flags = F_MANY, ATTRS(
          { "name", WORD("platform|rtc|tsc|hpet|pit|armvtimer|kvmclock|hypervclock"), F_NEED },
          { "track", WORD("boot|guest|wall|realtime"), .when = "name=platform|rtc" },
          { "tickpolicy", WORD("delay|catchup|merge|discard"), .when = "name!=kvmclock|hypervclock" },
          { "frequency", U64, .when = "name=tsc" },
          { "mode", WORD("auto|native|emulate|paravirt|smpsafe"), .when = "name=tsc" },
          { "present", YES_NO }), CHILDREN(
        { "catchup", .when = "tickpolicy=catchup", .flags = F_PRUNE, ATTRS(
            { "threshold", UINT }, { "slew", UINT }, { "limit", UINT }) }) },
    { 0 },
};
