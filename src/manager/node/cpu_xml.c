/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Processors in XML: comparing one with the host's, and what several have in common.
 *
 * Spec      libvirt's virConnectCompareCPU, virConnectBaselineCPU; <cpu> of formatdomain and of
 *           the capabilities.
 * Trust     The XML is hostile; manager/xml.h bounds it.
 */
#include "manager/markup.h"
#include "manager/node/cpu.h"
#include "manager/node/node.h"

#include <string.h>

enum { COMPARE_FAIL = 1, COMPARE_VALIDATE = 2 };        /* virConnectCompareCPUFlags */
enum { BASELINE_EXPAND = 1, BASELINE_MIGRATABLE = 2 };  /* virConnectBaselineCPUFlags */
enum { CPU_INCOMPATIBLE, CPU_IDENTICAL, CPU_SUPERSET }; /* virCPUCompareResult */

static bool parse_feature(struct cpu_wish *w, const struct xml_node *f, GError **error)
{
    const char *name = xml_get(f, "@name"), *policy = xml_get_or(f, "@policy", "require");
    int i = name ? cpu_feature_find(name) : -1;
    if (!name)
        return ruche_error(error, RUCHE_ERR_XML, "cpu/feature: attribute 'name' is missing");
    if (i < 0)
        return ruche_error(error, MANAGER_ERR_CONFIG, "cpu: feature '%s' is not known", name);
    bool require = !strcmp(policy, "require") || !strcmp(policy, "force"),
         optional = !strcmp(policy, "optional");
    bool disable = !strcmp(policy, "disable"), forbid = !strcmp(policy, "forbid");
    if (!require && !optional && !disable && !forbid)
        return ruche_error(error, RUCHE_ERR_XML,
                           "cpu: policy '%s' of feature '%s' is not one of force, require, "
                           "optional, disable, forbid",
                           policy, name);
    cpu_put(&w->required, (unsigned)i, require);
    cpu_put(&w->optional, (unsigned)i, optional);
    cpu_put(&w->forbidden, (unsigned)i, forbid);
    return true;
}

bool cpu_wish_parse(struct cpu_wish *w, const struct xml_node *cpu, GError **error)
{
    *w = (struct cpu_wish){.strict = xml_is(cpu, "@match", "strict"),
                           .minimum = xml_is(cpu, "@match", "minimum")};
    const char *model = xml_get(cpu, "model"), *arch = xml_get(cpu, "arch");
    if (arch && strcmp(arch, "x86_64") != 0 && strcmp(arch, "i686") != 0)
        return ruche_error(error, MANAGER_ERR_CONFIG, "cpu: architecture '%s' is not this host's",
                           arch);
    if (model && !(w->model = cpu_model_find(model)))
        return ruche_error(error, MANAGER_ERR_CONFIG, "cpu: model '%s' is not known", model);
    if (w->model)
        w->required = w->model->features;
    for (const struct xml_node *f = xml_find(cpu, "feature"); f; f = xml_next(f))
        if (!parse_feature(w, f, error))
            return false;
    const char *vendor = xml_get(cpu, "vendor");
    w->says_vendor = vendor != NULL;
    if (!vendor && w->model && xml_find(cpu, "arch"))
        vendor = w->model->vendor;
    w->vendor = g_strdup(vendor);
    return true;
}

void cpu_wish_done(struct cpu_wish *w)
{
    g_clear_pointer(&w->vendor, g_free);
}

/* A <cpu>, or whole capabilities that have one in <host>. */
static bool parse_text(struct cpu_wish *w, const char *text, GError **error)
{
    auto_xml *doc = xml_parse(text, strlen(text), NULL, error);
    if (!doc)
        return false;
    const struct xml_node *root = doc;
    if (!strcmp(root->name, "capabilities"))
        root = xml_find(root, "host/cpu");
    if (!root || strcmp(root->name, "cpu") != 0)
        return ruche_error(error, RUCHE_ERR_XML, "the document has no <cpu> at its root");
    return cpu_wish_parse(w, root, error);
}

static int compare_wish(const struct cpu_wish *w, GError **why)
{
    const struct cpu_host *h = cpu_host();
    if (w->vendor && g_strcmp0(w->vendor, h->vendor) != 0) {
        ruche_error(why, MANAGER_ERR_CONFIG, "the host's processor is of vendor '%s', not '%s'",
                    h->vendor ? h->vendor : "unknown", w->vendor);
        return CPU_INCOMPATIBLE;
    }
    struct cpu_features lacking = cpu_minus(w->required, h->features),
                        clash = cpu_and(w->forbidden, h->features);
    struct cpu_features more = cpu_minus(cpu_minus(h->features, w->required), w->optional);
    g_autoptr(GString) names = g_string_new(NULL);
    for (unsigned i = 0; i < cpu_feature_count(); i++)
        if (cpu_has(&lacking, i) || cpu_has(&clash, i) || (w->strict && cpu_has(&more, i)))
            g_string_append_printf(names, "%s%s", names->len ? ", " : "", cpu_feature_name(i));
    if (names->len) {
        ruche_error(why, MANAGER_ERR_CONFIG, "the host's processor differs in: %s", names->str);
        return CPU_INCOMPATIBLE;
    }
    return cpu_feature_total(&more) ? CPU_SUPERSET : CPU_IDENTICAL;
}

int node_compare_cpu(const char *xml, unsigned flags, GError **error)
{
    struct cpu_wish w = {0};
    g_autoptr(GError) why = NULL;
    if (flags & ~(unsigned)(COMPARE_FAIL | COMPARE_VALIDATE)) {
        ruche_error(error, MANAGER_ERR_ARGUMENT, "compare CPU: flags 0x%x are not known", flags);
        return -1;
    }
    int result = parse_text(&w, xml, error) ? compare_wish(&w, &why) : -1;
    cpu_wish_done(&w);
    if (result == CPU_INCOMPATIBLE && (flags & COMPARE_FAIL)) {
        g_propagate_error(error, g_steal_pointer(&why));
        return -1;
    }
    return result;
}

/* The vendor is named if each of those that it is made of names it. */
static char *baseline_text(struct cpu_features f, const char *vendor, bool say_vendor,
                           unsigned flags)
{
    const struct cpu_model *m = cpu_model_best(&f, vendor, 0);
    struct cpu_features more = flags & BASELINE_EXPAND ? f : cpu_minus(f, m->features);
    GString *b = g_string_new("<cpu mode='custom' match='exact'>\n");
    markup_add(b, "  <model fallback='forbid'>%s</model>\n", m->name);
    if (vendor && say_vendor)
        markup_add(b, "  <vendor>%s</vendor>\n", vendor);
    for (unsigned i = 0; i < cpu_feature_count(); i++)
        if (cpu_has(&more, i) && !((flags & BASELINE_MIGRATABLE) && cpu_feature_is_host_bound(i)))
            markup_add(b, "  <feature policy='require' name='%s'/>\n", cpu_feature_name(i));
    g_string_append(b, "</cpu>\n");
    return g_string_free(b, FALSE);
}

char *node_baseline_cpu(char *const *cpus, unsigned count, unsigned flags, GError **error)
{
    struct cpu_features common;
    g_autofree char *vendor = NULL;
    bool say_vendor = true;
    memset(&common, 0xff, sizeof(common));
    if ((flags & ~(unsigned)(BASELINE_EXPAND | BASELINE_MIGRATABLE)) || !count) {
        ruche_error(error, MANAGER_ERR_ARGUMENT, "baseline CPU: %u processors, flags 0x%x", count,
                    flags);
        return NULL;
    }
    for (unsigned i = 0; i < count; i++) {
        struct cpu_wish w = {0};
        bool ok = parse_text(&w, cpus[i], error);
        const char *own = w.vendor ? w.vendor : w.model ? w.model->vendor : NULL;
        if (ok && own && vendor && strcmp(own, vendor) != 0)
            ok = ruche_error(error, MANAGER_ERR_CONFIG,
                             "baseline CPU: vendors '%s' and '%s' have nothing in common", vendor,
                             own);
        if (own && !vendor)
            vendor = g_strdup(own);
        say_vendor &= w.says_vendor;
        common = cpu_and(common, w.required);
        cpu_wish_done(&w);
        if (!ok)
            return NULL;
    }
    return baseline_text(common, vendor, say_vendor, flags);
}

char **node_cpu_models(const char *arch, GError **error)
{
    if (strcmp(arch, "x86_64") != 0 && strcmp(arch, "i686") != 0) {
        ruche_error(error, MANAGER_ERR_ARGUMENT,
                    "processor models of architecture '%s' are not known", arch);
        return NULL;
    }
    char **names = g_new0(char *, cpu_model_count() + 1);
    for (unsigned i = 0; i < cpu_model_count(); i++)
        names[i] = g_strdup(cpu_model_at(i)->name);
    return names;
}
