/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Command lines: processors, NUMA, SMBIOS, clocks; see vm_args.h. */
#include "manager/domain/vm_args.h"

#include "manager/error.h"

#include <string.h>
#include <time.h>

/* ---- processors ---- */

static const char *cpu_model(const struct vm_args *a, const struct xml_node *cpu)
{
    const char *mode = xml_get_or(cpu, "@mode", "custom"), *model = xml_get(cpu, "model");
    bool kvm = xml_is(a->domain, "@type", "kvm");
    if (!strcmp(mode, "custom"))
        return model && *model ? model : NULL;
    return !strcmp(mode, "maximum") || !kvm ? "max" : "host";
}

/* libvirt's policies: what the guest must see, may see, must not see. */
static void add_features(GString *s, const struct xml_node *cpu)
{
    for (struct xml_node *f = xml_find(cpu, "feature"); f; f = xml_next(f)) {
        const char *name = xml_get(f, "@name"), *policy = xml_get_or(f, "@policy", "require");
        bool on = strcmp(policy, "disable") && strcmp(policy, "forbid");
        if (name && strcmp(policy, "optional"))
            g_string_append_printf(s, ",%c%s", on ? '+' : '-', name);
    }
}

static const struct {
    const char *element, *flag;
} hyperv[] = {
    {"relaxed", "hv-relaxed"},
    {"vapic", "hv-vapic"},
    {"vpindex", "hv-vpindex"},
    {"runtime", "hv-runtime"},
    {"synic", "hv-synic"},
    {"stimer", "hv-stimer"},
    {"reset", "hv-reset"},
    {"frequencies", "hv-frequencies"},
    {"reenlightenment", "hv-reenlightenment"},
    {"tlbflush", "hv-tlbflush"},
    {"ipi", "hv-ipi"},
    {"evmcs", "hv-evmcs"},
};

static void add_hyperv(const struct vm_args *a, GString *s)
{
    const struct xml_node *h = xml_find(a->domain, "features/hyperv");
    if (!h || a->ours)
        return;
    if (xml_is(h, "@mode", "passthrough"))
        g_string_append(s, ",hv-passthrough=on");
    for (size_t i = 0; i < G_N_ELEMENTS(hyperv); i++) {
        const struct xml_node *n = xml_find(h, hyperv[i].element);
        if (n && xml_is(n, "@state", "on"))
            g_string_append_printf(s, ",%s=on", hyperv[i].flag);
    }
    const struct xml_node *spin = xml_find(h, "spinlocks");
    if (spin && xml_is(spin, "@state", "on"))
        g_string_append_printf(s, ",hv-spinlocks=0x%x",
                               (unsigned)xml_get_u64(spin, "@retries", 4096));
}

static bool add_cpu(struct vm_args *a)
{
    const struct xml_node *cpu = xml_find(a->domain, "cpu");
    const char *model = cpu ? cpu_model(a, cpu) : NULL;
    bool kvm_off = xml_is(a->domain, "features/kvm/hidden@state", "on") && !a->ours;
    bool more = xml_find(a->domain, "features/hyperv") || kvm_off;
    if (!model && (a->ours || !more))
        return true;
    g_autoptr(GString) s = g_string_new(model ? model : "qemu64");
    if (cpu)
        add_features(s, cpu);
    add_hyperv(a, s);
    if (kvm_off)
        g_string_append(s, ",kvm=off");
    args_add(a, "-cpu", s->str);
    return true;
}

bool args_cpu(struct vm_args *a, GError **error)
{
    uint64_t most = xml_get_u64(a->domain, "vcpu", 1),
             now = xml_get_u64(a->domain, "vcpu@current", most);
    const struct xml_node *t = xml_find(a->domain, "cpu/topology");
    g_autofree char *count = g_strdup_printf("%u", (unsigned)now);
    GString *s = opt_new(count);
    if (now != most)
        opt_addf(s, "maxcpus", "%u", (unsigned)most);
    if (t) {
        opt_add(s, "sockets", xml_get(t, "@sockets"));
        opt_add(s, "dies", xml_get(t, "@dies"));
        opt_add(s, "cores", xml_get(t, "@cores"));
        opt_add(s, "threads", xml_get(t, "@threads"));
    } else {
        opt_addf(s, "sockets", "%u", (unsigned)most);
        opt_add(s, "cores", "1");
        opt_add(s, "threads", "1");
    }
    add_cpu(a);
    args_take(a, "-smp", s);
    return true;
}

/* ---- NUMA ---- */

static void add_cell(struct vm_args *a, const struct xml_node *cell, unsigned id)
{
    uint64_t kib = xml_get_u64(cell, "@memory", 0);
    const char *cpus = xml_get(cell, "@cpus");
    const struct xml_node *huge = xml_find(a->domain, "memoryBacking/hugepages");
    const char *own = xml_get(cell, "@memAccess");
    bool shared =
        own ? !strcmp(own, "shared") : xml_is(a->domain, "memoryBacking/access@mode", "shared");
    /* who shares it needs a descriptor of it */
    GString *s = opt_new(huge || shared ? "memory-backend-memfd" : "memory-backend-ram");
    opt_addf(s, "id", "ram-node%u", id);
    opt_addf(s, "size", "%" G_GUINT64_FORMAT "k", kib);
    opt_add(s, "hugetlb", huge ? "on" : NULL);
    opt_add(s, "share", shared ? "on" : huge ? "off" : NULL);
    args_take(a, "-object", s);
    s = opt_new("node");
    opt_addf(s, "nodeid", "%u", id);
    g_auto(GStrv) ranges = g_strsplit(cpus ? cpus : "", ",", -1);
    for (char **r = ranges; *r; r++)
        if (**r)
            opt_add(s, "cpus", *r);
    opt_addf(s, "memdev", "ram-node%u", id);
    args_take(a, "-numa", s);
}

bool args_numa(struct vm_args *a, GError **error)
{
    unsigned id = 0;
    if (a->ours) /* one cell is what there is anyway; more were refused */
        return true;
    for (struct xml_node *c = xml_find(a->domain, "cpu/numa/cell"); c; c = xml_next(c), id++)
        add_cell(a, c, (unsigned)xml_get_u64(c, "@id", id));
    for (struct xml_node *c = xml_find(a->domain, "cpu/numa/cell"); c; c = xml_next(c))
        for (struct xml_node *d = xml_find(c, "distances/sibling"); d; d = xml_next(d)) {
            g_autofree char *text =
                g_strdup_printf("dist,src=%s,dst=%s,val=%s", xml_get_or(c, "@id", "0"),
                                xml_get_or(d, "@id", "0"), xml_get_or(d, "@value", "10"));
            args_add(a, "-numa", text);
        }
    return true;
}

/* ---- SMBIOS ---- */

static const struct {
    const char *element, *type;
    const char *names[10]; /* <entry name> and option are the same word, but for these pairs:
                              "name=option" */
} smbios[] = {
    {"bios", "0", {"vendor", "version", "date", "release", NULL}},
    {"system",
     "1",
     {"manufacturer", "product", "version", "serial", "uuid", "sku", "family", NULL}},
    {"baseBoard", "2", {"manufacturer", "product", "version", "serial", "asset", "location", NULL}},
    {"chassis", "3", {"manufacturer", "version", "serial", "asset", "sku", NULL}},
};

static void add_smbios_block(struct vm_args *a, const struct xml_node *block, size_t row)
{
    GString *s = opt_new("");
    opt_add(s, "type", smbios[row].type);
    for (struct xml_node *e = xml_find(block, "entry"); e; e = xml_next(e)) {
        const char *name = xml_get(e, "@name"), *value = xml_get(e, "");
        if (name && value && g_strv_contains(smbios[row].names, name))
            opt_add(s, name, value);
    }
    args_take(a, "-smbios", s);
}

static void add_oem_strings(struct vm_args *a, const struct xml_node *block)
{
    GString *s = opt_new("");
    opt_add(s, "type", "11");
    for (struct xml_node *e = xml_find(block, "entry"); e; e = xml_next(e))
        opt_add(s, "value", xml_get(e, ""));
    args_take(a, "-smbios", s);
}

/* <sysinfo type='fwcfg'>: items that the guest reads by name. */
static bool add_fw_cfg(struct vm_args *a, const struct xml_node *info, GError **error)
{
    for (struct xml_node *e = xml_find(info, "entry"); e; e = xml_next(e)) {
        GString *s = opt_new("");
        opt_add(s, "name", xml_get(e, "@name"));
        opt_add(s, xml_get(e, "@file") ? "file" : "string",
                xml_get(e, "@file") ? xml_get(e, "@file") : xml_get(e, ""));
        args_take(a, "-fw_cfg", s);
    }
    return true;
}

bool args_smbios(struct vm_args *a, GError **error)
{
    for (struct xml_node *info = xml_find(a->domain, "sysinfo"); info; info = xml_next(info)) {
        if (xml_is(info, "@type", "fwcfg") && !add_fw_cfg(a, info, error))
            return false;
        if (!xml_is(info, "@type", "smbios") || !xml_is(a->domain, "os/smbios@mode", "sysinfo"))
            continue;
        for (size_t i = 0; i < G_N_ELEMENTS(smbios); i++)
            for (struct xml_node *b = xml_find(info, smbios[i].element); b; b = xml_next(b))
                add_smbios_block(a, b, i);
        struct xml_node *oem = xml_find(info, "oemStrings");
        if (oem)
            add_oem_strings(a, oem);
    }
    return true;
}

/* ---- clocks ---- */

bool args_clock(struct vm_args *a, GError **error)
{
    const struct xml_node *clock = xml_find(a->domain, "clock");
    const char *offset = clock ? xml_get_or(clock, "@offset", "utc") : "utc";
    GString *s = opt_new("");
    bool variable =
        !strcmp(offset, "variable") && strcmp(xml_get_or(clock, "@adjustment", "0"), "0");
    if (variable || !strcmp(offset, "absolute")) {
        const char *key = variable ? "@adjustment" : "@start";
        time_t at = g_ascii_strtoll(xml_get_or(clock, key, "0"), NULL, 10) +
                    (variable ? a->ops->now(a->opaque) : 0);
        struct tm tm;
        char text[64] = "utc";
        if (gmtime_r(&at, &tm))
            strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
        opt_add(s, "base", text);
    } else {
        opt_add(s, "base",
                !strcmp(offset, "localtime") || !strcmp(offset, "timezone") ? "localtime" : "utc");
    }
    for (struct xml_node *t = clock ? xml_find(clock, "timer") : NULL; t; t = xml_next(t)) {
        if (!xml_is(t, "@name", "rtc"))
            continue;
        opt_add(s, "driftfix", xml_is(t, "@tickpolicy", "catchup") ? "slew" : NULL);
        const char *track = xml_get(t, "@track");
        opt_add(s, "clock",
                !g_strcmp0(track, "guest")      ? "vm"
                : !g_strcmp0(track, "realtime") ? "rt"
                                                : NULL);
    }
    args_take(a, "-rtc", s);
    return true;
}
