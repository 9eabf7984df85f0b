/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Options that shape the machine and what it boots. */
#include "base/log.h"
#include "base/units.h"
#include "machine/machine.h"
#include "vmm/options.h"

#include <string.h>
#include <time.h>

#define MAX_CPUS_SANE 4096
#define MIN_RAM (1 * MIB)
#define MAX_TB_BYTES (320 * MIB)

static bool take_machine(struct vm_options *o, const char *arg, GError **error)
{
    auto_kv *l = kv_parse(arg, "type", error);
    if (!l)
        return false;
    if (kv_wants_help(l)) {
        const char *type = kv_get(l, "type");
        o->exit_now = true;
        if (type && strcmp(type, "help") && strcmp(type, "?"))
            return help_machine_properties(type, error);
        help_machines();
        return true;
    }
    return option_merge_kv(&o->machine, arg, "type", error);
}

/* Accelerator properties that change nothing here, and the values we can say yes to (NULL: any). */
static const struct {
    const char *name;
    const char *values; /* separated by '|' */
} accel_props[] = {
    { "thread", "multi|single" },          { "kernel-irqchip", "on|off|split" },
    { "split-wx", "off|on" },              { "one-insn-per-tb", "off" },
    { "dirty-ring-size", NULL },           { "kvm-shadow-mem", NULL },
    { "notify-vmexit", NULL },             { "notify-window", NULL },
    { "eager-split-size", NULL },
};

static bool set_translate(struct accel_config *c, const char *value, GError **error)
{
    static const char *const names[] = { [CPU_TRANSLATE_OFF] = "off", [CPU_TRANSLATE_ON] = "on",
                                         [CPU_TRANSLATE_LOCKSTEP] = "lockstep" };
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        if (strcmp(value, names[i]))
            continue;
        c->translate = i;
        return true;
    }
    return ruche_error(error, RUCHE_ERR_INVALID, "'translate' can be on, off or lockstep, not '%s'", value);
}

static bool set_tb_size(struct accel_config *c, const char *value, GError **error)
{
    uint64_t bytes;
    if (!units_parse_size(value, MIB, &bytes) || bytes > MAX_TB_BYTES)
        return ruche_error(error, RUCHE_ERR_INVALID, "'tb-size' is a size of at most %s, not '%s'",
                           units_format_size(MAX_TB_BYTES), value);
    c->tb_bytes = bytes;
    return true;
}

static bool set_perf_map(struct accel_config *c, const char *value, GError **error)
{
    c->perf_map = !strcmp(value, "on");
    if (c->perf_map || !strcmp(value, "off"))
        return true;
    return ruche_error(error, RUCHE_ERR_INVALID, "'perf-map' can be on or off, not '%s'", value);
}

/* Properties that do change something. */
static const struct {
    const char *name;
    bool (*set)(struct accel_config *c, const char *value, GError **error);
} accel_settings[] = {
    { "translate", set_translate },
    { "tb-size", set_tb_size },
    { "perf-map", set_perf_map },
};

static bool take_accel_prop(struct vm_options *o, const char *key, const char *value, GError **error)
{
    const char *names[G_N_ELEMENTS(accel_props) + G_N_ELEMENTS(accel_settings) + 1] = { NULL };
    for (size_t i = 0; i < G_N_ELEMENTS(accel_settings); i++) {
        names[G_N_ELEMENTS(accel_props) + i] = accel_settings[i].name;
        if (!strcmp(key, accel_settings[i].name))
            return accel_settings[i].set(&o->accel_config, value, error);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(accel_props); i++) {
        names[i] = accel_props[i].name;
        if (strcmp(key, accel_props[i].name))
            continue;
        g_auto(GStrv) allowed =
            accel_props[i].values ? g_strsplit(accel_props[i].values, "|", 0) : NULL;
        if (!allowed || g_strv_contains((const char *const *)allowed, value))
            return true;
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "'%s' can be %s here, not '%s'", key,
                           accel_props[i].values, value);
    }
    return ruche_error(error, RUCHE_ERR_UNKNOWN, "unknown property '%s'%s", key,
                       suggest_phrase(key, names));
}

/* "tcg" is how QEMU's command lines ask for a software CPU. */
static char *translate_accel(const char *names)
{
    g_auto(GStrv) list = g_strsplit(names, ":", 0);
    for (char **n = list; *n; n++) {
        if (strcmp(*n, "tcg"))
            continue;
        log_info("-accel tcg: using 'soft', the software CPU of this program");
        g_free(*n);
        *n = g_strdup("soft");
    }
    return g_strjoinv(":", list);
}

static void add_accel(struct vm_options *o, const char *names)
{
    g_autofree char *mine = translate_accel(names);
    char *joined = o->accel ? g_strconcat(o->accel, ":", mine, NULL) : g_strdup(mine);
    g_free(o->accel);
    o->accel = joined;
}

static bool take_accel(struct vm_options *o, const char *arg, GError **error)
{
    auto_kv *l = kv_parse(arg, "accel", error);
    if (!l)
        return false;
    if (kv_wants_help(l)) {
        help_accelerators();
        o->exit_now = true;
        return true;
    }
    const char *names = kv_get(l, "accel");
    if (!names || !*names)
        return ruche_error(error, RUCHE_ERR_INVALID, "an accelerator's name is missing");
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->pairs[i].key, "accel") &&
            !take_accel_prop(o, l->pairs[i].key, l->pairs[i].value, error))
            return false;
    add_accel(o, names);
    return true;
}

static bool take_enable_kvm(struct vm_options *o, const char *arg, GError **error)
{
    add_accel(o, "kvm");
    return true;
}

static bool take_cpu(struct vm_options *o, const char *arg, GError **error)
{
    if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
        help_cpus();
        o->exit_now = true;
        return true;
    }
    return option_set_string(&o->cpu, arg);
}

/* What is left out follows from the rest: cores before sockets, one of each else. */
static bool complete_topology(struct vm_options *o, uint64_t cpus, uint64_t maxcpus, uint64_t t[4],
                              GError **error)
{
    uint64_t total = maxcpus ? maxcpus : cpus, known = 1;
    for (int i = 0; i < 4; i++)
        known *= t[i] ? t[i] : 1;
    if (!total)
        total = known;
    uint64_t *open = !t[2] ? &t[2] : !t[0] ? &t[0] : !t[3] ? &t[3] : NULL;
    if (open && total % known == 0)
        *open = total / known;
    uint64_t product = 1;
    for (int i = 0; i < 4; i++)
        product *= t[i] = t[i] ? t[i] : 1;
    if (product != total)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%u sockets * %u dies * %u cores * %u threads are not %u CPUs",
                           (unsigned)t[0], (unsigned)t[1], (unsigned)t[2], (unsigned)t[3],
                           (unsigned)total);
    if (!cpus)
        cpus = total;
    if (cpus > total)
        return ruche_error(error, RUCHE_ERR_INVALID, "'cpus' is %u, more than 'maxcpus', %u",
                           (unsigned)cpus, (unsigned)total);
    o->topology =
        (struct cpu_topology){ .sockets = t[0], .dies = t[1], .cores = t[2], .threads = t[3] };
    o->cpu_count = cpus;
    o->max_cpus = total;
    return true;
}

static bool take_smp(struct vm_options *o, const char *arg, GError **error)
{
    static const char *const known[] = { "cpus",     "maxcpus", "sockets", "dies",
                                         "clusters", "cores",   "threads", NULL };
    static const char *const parts[] = { "sockets", "dies", "cores", "threads" };
    auto_kv *l = kv_parse(arg, "cpus", error);
    uint64_t cpus = 0, maxcpus = 0, clusters = 1, t[4] = { 0 };
    if (!l || !kv_check_known(l, known, error) ||
        !kv_get_u64(l, "cpus", 1, MAX_CPUS_SANE, &cpus, error) ||
        !kv_get_u64(l, "maxcpus", 1, MAX_CPUS_SANE, &maxcpus, error) ||
        !kv_get_u64(l, "clusters", 1, 1, &clusters, error))
        return false;
    for (int i = 0; i < 4; i++)
        if (!kv_get_u64(l, parts[i], 1, MAX_CPUS_SANE, &t[i], error))
            return false;
    return complete_topology(o, cpus, maxcpus, t, error);
}

static bool take_memory(struct vm_options *o, const char *arg, GError **error)
{
    static const char *const known[] = { "size", "slots", "maxmem", NULL };
    auto_kv *l = kv_parse(arg, "size", error);
    uint64_t size = 128 * MIB, slots = 0, max = 0;
    if (!l || !kv_check_known(l, known, error) || !kv_get_size(l, "size", MIB, &size, error) ||
        !kv_get_u64(l, "slots", 0, 256, &slots, error) ||
        !kv_get_size(l, "maxmem", MIB, &max, error))
        return false;
    if (size < MIN_RAM)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s of RAM is too little; 1M is the least",
                           units_format_size(size));
    if (max && max < size)
        return ruche_error(error, RUCHE_ERR_INVALID, "'maxmem' is less than 'size'");
    if (slots || max > size)
        return ruche_error(
            error, RUCHE_ERR_UNSUPPORTED,
            "memory cannot be added while the machine runs; leave out 'slots' and 'maxmem'");
    o->ram_bytes = align_up(size, 8 * KIB); /* as QEMU rounds it */
    return true;
}

static bool take_kernel(struct vm_options *o, const char *arg, GError **error)
{
    return option_set_string(&o->kernel, arg);
}

static bool take_initrd(struct vm_options *o, const char *arg, GError **error)
{
    return option_set_string(&o->initrd, arg);
}

static bool take_append(struct vm_options *o, const char *arg, GError **error)
{
    return option_set_string(&o->append, arg);
}

static bool take_bios(struct vm_options *o, const char *arg, GError **error)
{
    return option_set_string(&o->bios, arg);
}

static bool take_dtb(struct vm_options *o, const char *arg, GError **error)
{
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "x86 machines have no device tree");
}

static bool take_boot(struct vm_options *o, const char *arg, GError **error)
{
    static const char *const known[] = { "order", "once", "menu", "strict", "splash", "splash-time",
                                         "reboot-timeout", NULL };
    auto_kv *l = kv_parse(arg, "order", error);
    return l && kv_check_known(l, known, error);
}

static int hex_digit(char c)
{
    return g_ascii_xdigit_value(c);
}

static bool take_uuid(struct vm_options *o, const char *arg, GError **error)
{
    if (!g_uuid_string_is_valid(arg))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s' is not a UUID like 550e8400-e29b-41d4-a716-446655440000", arg);
    int n = 0;
    for (const char *p = arg; *p && n < 16; p++)
        if (*p != '-') {
            o->uuid[n++] = hex_digit(p[0]) << 4 | hex_digit(p[1]);
            p++;
        }
    o->has_uuid = true;
    return true;
}

static bool take_name(struct vm_options *o, const char *arg, GError **error)
{
    static const char *const known[] = { "guest", "process", "debug-threads", NULL };
    bool names = false; /* threads have theirs anyway */
    auto_kv *l = kv_parse(arg, "guest", error);
    if (!l || !kv_check_known(l, known, error) ||
        !kv_get_bool(l, "debug-threads", &names, error))
        return false;
    if (kv_get(l, "guest"))
        option_set_string(&o->name, kv_get(l, "guest"));
    if (kv_get(l, "process"))
        option_set_string(&o->process_name, kv_get(l, "process"));
    return true;
}

/* utc, localtime, or a date as 2006-06-17T16:01:21 or 2006-06-17. */
static bool set_rtc_base(struct vm_options *o, const char *base, GError **error)
{
    if (!strcmp(base, "utc"))
        return true;
    if (!strcmp(base, "localtime")) {
        o->rtc_local = true;
        return true;
    }
    struct tm tm = { 0 };
    const char *end = strptime(base, strchr(base, 'T') ? "%Y-%m-%dT%H:%M:%S" : "%Y-%m-%d", &tm);
    if (!end || *end)
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "'base' must be utc, localtime or a date like 2006-06-17T16:01:21, not '%s'", base);
    o->rtc_offset_s = timegm(&tm) - time(NULL);
    return true;
}

static bool take_rtc(struct vm_options *o, const char *arg, GError **error)
{
    static const char *const known[] = { "base", "clock", "driftfix", NULL };
    static const char *const clocks[] = { "host", "rt", "vm", NULL };
    static const char *const fixes[] = { "none", "slew", NULL };
    int word;
    auto_kv *l = kv_parse(arg, "base", error);
    if (!l || !kv_check_known(l, known, error) || !kv_get_word(l, "clock", clocks, &word, error) ||
        !kv_get_word(l, "driftfix", fixes, &word, error))
        return false;
    const char *base = kv_get(l, "base");
    return !base || set_rtc_base(o, base, error);
}

static bool take_no_hpet(struct vm_options *o, const char *arg, GError **error)
{
    o->no_hpet = true;
    return true;
}

static bool take_no_acpi(struct vm_options *o, const char *arg, GError **error)
{
    o->no_acpi = true;
    return true;
}

/* The fields that our tables have; uuid= of type 1 is -uuid's. */
static const char *const smbios_keys[][9] = {
    [0] = { "type", "vendor", "version", "date", NULL },
    [1] = { "type", "manufacturer", "product", "version", "serial", "sku", "family", "uuid", NULL },
    [2] = { "type", "manufacturer", "product", "version", "serial", "asset", "location", NULL },
    [3] = { "type", "manufacturer", "version", "serial", "asset", "sku", NULL },
    [11] = { "type", "value", NULL },
};

static bool take_smbios(struct vm_options *o, const char *arg, GError **error)
{
    auto_kv *l = kv_parse(arg, NULL, error);
    uint64_t type = 0;
    if (!l || !kv_get_u64(l, "type", 0, 255, &type, error))
        return false;
    if (!kv_has(l, "type"))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "only type=N,field=value is understood, not '%s'", arg);
    if (type >= G_N_ELEMENTS(smbios_keys) || !smbios_keys[type][0])
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "structures of type %u cannot be given; 0, 1, 2, 3 and 11 can",
                           (unsigned)type);
    if (!kv_check_known(l, smbios_keys[type], error))
        return false;
    const char *uuid = kv_get(l, "uuid");
    if (uuid && !take_uuid(o, uuid, error))
        return false;
    g_ptr_array_add(o->smbios, g_steal_pointer(&l));
    return true;
}

static bool take_fw_cfg(struct vm_options *o, const char *arg, GError **error)
{
    static const char *const known[] = { "name", "string", "file", NULL };
    auto_kv *l = kv_parse(arg, "name", error);
    if (!l || !kv_check_known(l, known, error))
        return false;
    const char *name = kv_get(l, "name"), *text = kv_get(l, "string"), *file = kv_get(l, "file");
    if (!name || !*name || strlen(name) > 55)
        return ruche_error(error, RUCHE_ERR_INVALID, "'name' must have 1 to 55 characters");
    if (!text == !file)
        return ruche_error(error, RUCHE_ERR_INVALID, "item '%s' needs either 'string=' or 'file='",
                           name);
    struct fw_cfg_text *f = g_new(struct fw_cfg_text, 1);
    *f = (struct fw_cfg_text){ .name = g_strdup(name),
                               .text = g_strdup(text),
                               .file = g_strdup(file) };
    g_ptr_array_add(o->fw_cfg, f);
    return true;
}

const struct option_row machine_option_rows[] = {
    { "machine", "[type=]TYPE[,prop=value...]",
      "the board (q35) and its properties; accel=NAMES as -accel\n'-machine help' lists boards, "
      "'-machine TYPE,help' properties",
      GROUP_MACHINE, take_machine },
    { "M", "[type=]TYPE[,prop=value...]", "as -machine", GROUP_MACHINE, take_machine },
    { "accel", "NAME[:NAME...][,prop=value...]",
      "who executes the guest: kvm, soft, or the first of a list that can\n'-accel help' says what "
      "works here\nsoft: translate=on|off|lockstep (on), tb-size=MIB of translated code (48),\nperf-map=on|off: "
      "/tmp/perf-PID.map for perf(1)",
      GROUP_MACHINE, take_accel },
    { "enable-kvm", NULL, "as -accel kvm", GROUP_MACHINE, take_enable_kvm },
    { "cpu", "MODEL[,+feature,-feature...]", "the processor; '-cpu help' lists models",
      GROUP_MACHINE, take_cpu },
    { "smp", "[cpus=]N[,maxcpus=N][,sockets=N][,dies=N][,cores=N][,threads=N]",
      "number of CPUs and how they are arranged", GROUP_MACHINE, take_smp },
    { "m", "[size=]SIZE", "RAM, in mebibytes or with K, M, G, T (128M)", GROUP_MACHINE,
      take_memory },
    { "name", "NAME[,process=NAME][,debug-threads=on|off]",
      "what the machine and its process are called", GROUP_MACHINE, take_name },
    { "uuid", "UUID", "the machine's UUID, which SMBIOS shows", GROUP_MACHINE, take_uuid },
    { "rtc", "[base=utc|localtime|DATE]", "what the real-time clock shows", GROUP_MACHINE,
      take_rtc },
    { "smbios", "type=N,field=value...", "texts in the SMBIOS tables", GROUP_MACHINE, take_smbios },
    { "fw_cfg", "[name=]NAME,string=TEXT|file=FILE", "an item that the guest reads from fw_cfg",
      GROUP_MACHINE, take_fw_cfg },
    { "no-hpet", NULL, "as -machine hpet=off", GROUP_MACHINE, take_no_hpet },
    { "no-acpi", NULL, "as -machine acpi=off", GROUP_MACHINE, take_no_acpi },
    { "kernel", "FILE", "bzImage, ELF with PVH note or multiboot image to boot", GROUP_BOOT,
      take_kernel },
    { "initrd", "FILE", "initial RAM disk; for multiboot \"FILE args,FILE2 args\"", GROUP_BOOT,
      take_initrd },
    { "append", "TEXT", "the kernel's command line", GROUP_BOOT, take_append },
    { "bios", "FILE", "firmware, where the board takes one", GROUP_BOOT, take_bios },
    { "dtb", "FILE", NULL, GROUP_BOOT, take_dtb },
    { "boot", "[order=]DRIVES[,menu=on|off][,strict=on|off]", "accepted: there is no boot menu",
      GROUP_BOOT, take_boot },
    { 0 },
};
