/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The domain capabilities document: what an emulator gives to a machine of one type. virt-install
 * and virt-manager choose devices by it.
 *
 * Spec      libvirt's formatdomaincaps at 9.0.0; it validates against domaincaps.rng.
 * Thread    The loop thread; waits while the emulator is asked for the first time.
 */
#include "manager/markup.h"
#include "manager/node/cpu.h"
#include "manager/node/emulator.h"

#include <string.h>

/* What a document is made for. */
struct subject {
    const struct emulator_full *f;
    const struct emulator_machine *machine;
    bool kvm;
};

/* An <enum> of <devices>: its words are a set of the emulator's. */
struct enum_row {
    const char *name, *set;
};
struct device_row {
    const char *element, *decides; /* the set that has to have more than "none" */
    struct enum_row enums[4];
};
static const struct device_row device_rows[] = {
    {"disk",
     "disk.bus",
     {{"diskDevice", "disk.device"}, {"bus", "disk.bus"}, {"model", "disk.model"}}},
    {"graphics", "graphics.type", {{"type", "graphics.type"}}},
    {"video", "video.model", {{"modelType", "video.model"}}},
    {"hostdev", "hostdev.type", {{"subsysType", "hostdev.type"}}},
    {"rng", "rng.model", {{"model", "rng.model"}, {"backendModel", "rng.backend"}}},
    {"filesystem", "filesystem.driver", {{"driverType", "filesystem.driver"}}},
    {"tpm", "tpm.model", {{"model", "tpm.model"}, {"backendModel", "tpm.backend"}}},
    {"redirdev", "redirdev.bus", {{"bus", "redirdev.bus"}}},
    {"channel", "channel.target", {{"type", "channel.type"}}},
};
static const char *const channel_types[] = {"pty", "unix", "spicevmc"};

static const char *yes_no(bool v)
{
    return v ? "yes" : "no";
}

static void add_enum(GString *b, const char *indent, const char *name, const char *const *words)
{
    g_string_append(b, indent);
    if (!words || !*words) {
        markup_add(b, "<enum name='%s'/>\n", name);
        return;
    }
    markup_add(b, "<enum name='%s'>\n", name);
    for (; *words; words++) {
        g_string_append(b, indent);
        markup_add(b, "  <value>%s</value>\n", *words);
    }
    g_string_append_printf(b, "%s</enum>\n", indent);
}

static bool set_is_there(const struct emulator *e, const char *set)
{
    g_autofree const char **words = emulator_set(e, set);
    for (unsigned i = 0; words[i]; i++)
        if (strcmp(words[i], "none") != 0)
            return true;
    return false;
}

static void add_channel_types(GString *b, const struct emulator *e)
{
    const char *words[ARRAY_COUNT(channel_types) + 1];
    unsigned n = 0;
    for (unsigned i = 0; i < ARRAY_COUNT(channel_types); i++)
        if (emulator_has(e, "chardev.type", channel_types[i]))
            words[n++] = channel_types[i];
    words[n] = NULL;
    add_enum(b, "      ", "type", words);
}

static void add_device(GString *b, const struct device_row *r, const struct emulator *e)
{
    bool there = set_is_there(e, r->decides);
    if (!there) {
        markup_add(b, "    <%s supported='no'/>\n", r->element);
        return;
    }
    markup_add(b, "    <%s supported='yes'>\n", r->element);
    for (const struct enum_row *n = r->enums; n < r->enums + ARRAY_COUNT(r->enums) && n->name;
         n++) {
        if (!strcmp(n->set, "channel.type")) {
            add_channel_types(b, e);
            continue;
        }
        g_autofree const char **words = emulator_set(e, n->set);
        add_enum(b, "      ", n->name, words);
    }
    markup_add(b, "    </%s>\n", r->element);
}

static void add_os(GString *b, const struct emulator *e)
{
    static const char *const types[] = {"rom", "pflash", NULL}, *const either[] = {"yes", "no",
                                                                                   NULL};
    static const char *const no[] = {"no", NULL};
    g_string_append(b, "  <os supported='yes'>\n    <enum name='firmware'/>\n");
    if (emulator_has(e, "feature", "firmware")) {
        g_string_append(b, "    <loader supported='yes'>\n");
        add_enum(b, "      ", "type", types);
        add_enum(b, "      ", "readonly", either);
        add_enum(b, "      ", "secure", no);
        g_string_append(b, "    </loader>\n");
    } else {
        g_string_append(b, "    <loader supported='no'/>\n");
    }
    g_string_append(b, "  </os>\n");
}

/* host-model names a model that the emulator knows: then, and only with KVM, does it say what the
 * guest will see. */
static void add_host_model(GString *b, const struct subject *s)
{
    const struct cpu_host *h = cpu_host();
    bool can = s->kvm && !s->f->e.ours && h->family;
    markup_add(b, "    <mode name='host-model' supported='%s'", yes_no(can));
    if (!can) {
        g_string_append(b, "/>\n");
        return;
    }
    const struct cpu_model *m = cpu_model_best(&h->features, h->vendor, h->family * 256 + h->model);
    struct cpu_features more = cpu_minus(h->features, m->features);
    markup_add(b, ">\n      <model fallback='forbid'>%s</model>\n", m->name);
    if (h->vendor)
        markup_add(b, "      <vendor>%s</vendor>\n", h->vendor);
    for (unsigned i = 0; i < cpu_feature_count(); i++)
        if (cpu_has(&more, i) && !cpu_feature_is_host_bound(i))
            markup_add(b, "      <feature policy='require' name='%s'/>\n", cpu_feature_name(i));
    g_string_append(b, "    </mode>\n");
}

static bool is_special_model(const char *name)
{
    return !strcmp(name, "host") || !strcmp(name, "max") || g_str_has_suffix(name, "-v1") ||
           (strlen(name) > 3 && name[strlen(name) - 3] == '-' && name[strlen(name) - 2] == 'v');
}

static void add_custom_models(GString *b, const struct subject *s)
{
    g_string_append(b, "    <mode name='custom' supported='yes'>\n");
    for (unsigned i = 0; i < s->f->cpu_count; i++) {
        const struct emulator_cpu *c = &s->f->cpus[i];
        const struct cpu_model *m = cpu_model_find(c->name);
        if (is_special_model(c->name))
            continue;
        markup_add(b, "      <model usable='%s'", yes_no(s->kvm ? c->usable_kvm : c->usable));
        if (c->deprecated)
            g_string_append(b, " deprecated='yes'");
        markup_add(b, " vendor='%s'>%s</model>\n", m && m->vendor ? m->vendor : "unknown", c->name);
    }
    g_string_append(b, "    </mode>\n");
}

static void add_cpu(GString *b, const struct subject *s)
{
    static const char *const on_off[] = {"on", "off", NULL};
    markup_add(b, "  <cpu>\n    <mode name='host-passthrough' supported='%s'", yes_no(s->kvm));
    if (s->kvm) {
        g_string_append(b, ">\n");
        add_enum(b, "      ", "hostPassthroughMigratable", on_off);
        g_string_append(b, "    </mode>\n");
    } else {
        g_string_append(b, "/>\n");
    }
    g_string_append(b, "    <mode name='maximum' supported='yes'>\n");
    add_enum(b, "      ", "maximumMigratable", on_off);
    g_string_append(b, "    </mode>\n");
    add_host_model(b, s);
    add_custom_models(b, s);
    g_string_append(b, "  </cpu>\n");
}

static void add_features(GString *b, const struct emulator *e)
{
    static const char *const hyperv[] = {"relaxed", "vapic",  "spinlocks", "vpindex",   "runtime",
                                         "synic",   "stimer", "reset",     "vendor_id", NULL};
    g_string_append(b, "  <features>\n    <gic supported='no'/>\n");
    markup_add(b, "    <vmcoreinfo supported='%s'/>\n",
               yes_no(emulator_has(e, "feature", "vmcoreinfo")));
    markup_add(b, "    <genid supported='%s'/>\n", yes_no(emulator_has(e, "feature", "genid")));
    markup_add(b, "    <backingStoreInput supported='yes'/>\n    <backup supported='%s'/>\n",
               yes_no(emulator_has(e, "feature", "backup")));
    g_string_append(b, "    <sev supported='no'/>\n    <sgx supported='no'/>\n");
    if (emulator_has(e, "feature", "hyperv")) {
        g_string_append(b, "    <hyperv supported='yes'>\n");
        add_enum(b, "      ", "features", hyperv);
        g_string_append(b, "    </hyperv>\n");
    } else {
        g_string_append(b, "    <hyperv supported='no'/>\n");
    }
    g_string_append(b, "  </features>\n");
}

static char *make_document(const struct subject *s)
{
    const struct emulator *e = &s->f->e;
    GString *b = g_string_new("<domainCapabilities>\n");
    markup_add(b, "  <path>%s</path>\n  <domain>%s</domain>\n", e->path, s->kvm ? "kvm" : "qemu");
    markup_add(b, "  <machine>%s</machine>\n  <arch>%s</arch>\n", s->machine->name, e->arch);
    unsigned kvm_max = s->kvm ? node_kvm_max_vcpus() : 0;
    markup_add(b, "  <vcpu max='%u'/>\n",
               kvm_max ? MIN(kvm_max, s->machine->cpu_max) : s->machine->cpu_max);
    markup_add(b, "  <iothreads supported='%s'/>\n",
               yes_no(emulator_has(e, "feature", "iothreads")));
    add_os(b, e);
    add_cpu(b, s);
    g_autofree const char **sources = emulator_set(e, "memoryBacking.source");
    g_string_append(b, "  <memoryBacking supported='yes'>\n");
    add_enum(b, "    ", "sourceType", sources);
    g_string_append(b, "  </memoryBacking>\n  <devices>\n");
    for (unsigned i = 0; i < ARRAY_COUNT(device_rows); i++)
        add_device(b, &device_rows[i], e);
    g_string_append(b, "  </devices>\n");
    add_features(b, e);
    g_string_append(b, "</domainCapabilities>\n");
    return g_string_free(b, FALSE);
}

static bool find_subject(struct subject *s, const char *emulator, const char *arch,
                         const char *machine, const char *virt_type, GError **error)
{
    if (virt_type && strcmp(virt_type, "qemu") != 0 && strcmp(virt_type, "kvm") != 0)
        return ruche_error(error, MANAGER_ERR_ARGUMENT, "domain type '%s' is not one of qemu, kvm",
                           virt_type);
    if (!(s->f = emulator_full(emulator, arch, error)))
        return false;
    const struct emulator *e = &s->f->e;
    if (arch && strcmp(arch, e->arch) != 0)
        return ruche_error(error, MANAGER_ERR_ARGUMENT,
                           "emulator '%s' is for architecture '%s', not '%s'", e->path, e->arch,
                           arch);
    if (!(s->machine = emulator_machine(s->f, machine)))
        return ruche_error(error, MANAGER_ERR_ARGUMENT,
                           "machine '%s' is not there in emulator '%s'", machine ? machine : "",
                           e->path);
    s->kvm = virt_type ? !strcmp(virt_type, "kvm") : e->kvm;
    return !s->kvm || e->kvm ||
           ruche_error(error, MANAGER_ERR_ARGUMENT,
                       "KVM cannot be used by emulator '%s' on this host", e->path);
}

char *node_domain_capabilities(const struct caller *who, const char *emulator, const char *arch,
                               const char *machine, const char *virt_type, GError **error)
{
    struct subject s = {0};
    if (!access_check(who, RIGHT_READ, "read domain capabilities", error) ||
        !find_subject(&s, emulator, arch, machine, virt_type, error))
        return NULL;
    return make_document(&s);
}
