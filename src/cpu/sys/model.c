/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CPU models and QEMU's -cpu syntax.
 *
 * Thread    Any; a model is constant once parsed.
 * Trust     The text is the user's.
 */
#include "base/error.h"
#include "base/units.h"

#include "cpu/sys/model.h"

#include <cpuid.h>
#include <stdio.h>
#include <string.h>

struct model_row {
    const char *name;
    unsigned bit;       /* IN_BASE, IN_QEMU64; 0: all that works */
    bool host_identity; /* family, model and name of the host */
    const char *model_id;
};

static const struct model_row models[] = {
    { "base", IN_BASE, false, "Ruche base CPU (x86-64-v1)" },
    { "qemu64", IN_QEMU64, false, "QEMU Virtual CPU version 2.5+" },
    { "max", 0, true, "Ruche CPU with all features" },
    { "host", 0, true, NULL },
};

/* Properties of QEMU's that change nothing here; a name that ends in '-' stands for all that begin
 * so. */
static const char *const ignored[] = {
    "check", "migratable", "host-cache-info", "l3-cache", "legacy-cache", "pmu", "lmce", "hv-",
    "host-phys-bits", "host-phys-bits-limit", "min-level", "min-xlevel", "min-xlevel2", "xlevel2",
    "cpuid-0xb", "full-cpuid-auto-level", "fill-mtrr-mask", "tcg-cpuid", "vmware-cpuid-freq", "kvm-",
    "kvmclock", "kvmclock-stable-bit", "kvm-no-smi-migration", "topoext", "cpu-pm", "ucode-rev",
    "x-", "realized", "start-powered-off", "xen-vapic", "arch-lbr", "lbr-fmt", "mwait",
};

static const char *const property_names[] = {
    "tsc-frequency", "vendor", "family", "model", "stepping", "model-id", "level", "xlevel", "phys-bits",
    "kvm", "enforce", "hypervisor",
};

const char *const *cpu_model_names(void)
{
    static const char *const names[] = { "base", "qemu64", "max", "host", NULL };
    return names;
}

static void host_identity(struct cpu_model *m)
{
    uint32_t a, b, c, d, brand[12];
    __cpuid(1, a, b, c, d);
    m->family = (a >> 8 & 15) + ((a >> 8 & 15) == 15 ? a >> 20 & 255 : 0);
    m->model = (a >> 4 & 15) | (a >> 12 & 0xf0);
    m->stepping = a & 15;
    __cpuid(0x80000000, a, b, c, d);
    if (a < 0x80000004)
        return;
    for (unsigned i = 0; i < 3; i++)
        __cpuid(0x80000002 + i, brand[i * 4], brand[i * 4 + 1], brand[i * 4 + 2], brand[i * 4 + 3]);
    memcpy(m->model_id, brand, 48);
}

static void set_vendor(struct cpu_model *m, const char *vendor)
{
    snprintf(m->vendor, sizeof(m->vendor), "%s", vendor);
    m->amd = !strcmp(vendor, "AuthenticAMD") || !strcmp(vendor, "HygonGenuine");
}

static struct cpu_model *model_new(const struct model_row *row)
{
    struct cpu_model *m = g_new0(struct cpu_model, 1);
    uint32_t a, b, c, d;
    m->name = row->name;
    __cpuid(0, a, b, c, d);
    set_vendor(m, b == signature_AMD_ebx ? "AuthenticAMD" : "GenuineIntel");
    m->family = 15;
    m->model = 107;
    m->stepping = 1;
    if (row->host_identity)
        host_identity(m);
    if (row->model_id)
        snprintf(m->model_id, sizeof(m->model_id), "%s", row->model_id);
    model_feature_words(m->words, row->bit);
    m->level = 0x1f;
    m->xlevel = 0x80000021;
    m->phys_bits = 40;
    m->hypervisor_leaves = true;
    return m;
}

void cpu_model_free(struct cpu_model *m)
{
    g_free(m);
}

/* --- parsing --- */

static bool fail(char **ret_error, char *sentence)
{
    if (ret_error)
        *ret_error = sentence;
    else
        g_free(sentence);
    return false;
}

static bool parse_onoff(const char *val, bool *ret)
{
    if (!strcmp(val, "on") || !strcmp(val, "true") || !strcmp(val, "yes"))
        *ret = true;
    else if (!strcmp(val, "off") || !strcmp(val, "false") || !strcmp(val, "no"))
        *ret = false;
    else
        return false;
    return true;
}

struct number_prop {
    const char *name;
    size_t offset;
    uint64_t min, max;
};

static const struct number_prop numbers[] = {
    { "family", offsetof(struct cpu_model, family), 0, 255 + 15 },
    { "model", offsetof(struct cpu_model, model), 0, 255 },
    { "stepping", offsetof(struct cpu_model, stepping), 0, 15 },
    { "level", offsetof(struct cpu_model, level), 1, 0x1f },
    { "xlevel", offsetof(struct cpu_model, xlevel), 0x80000000, 0x80000021 },
    { "phys-bits", offsetof(struct cpu_model, phys_bits), 36, 46 },
};

static bool set_number(struct cpu_model *m, const struct number_prop *p, const char *val, char **ret_error)
{
    uint64_t v;
    if (!units_parse_u64(val, &v) || v < p->min || v > p->max)
        return fail(ret_error, g_strdup_printf("-cpu: %s=%s is not a number from %" G_GUINT64_FORMAT
                                               " to %" G_GUINT64_FORMAT, p->name, val, p->min, p->max));
    *(uint32_t *)((char *)m + p->offset) = (uint32_t)v;
    return true;
}

static bool set_tsc(struct cpu_model *m, const char *val, char **ret_error)
{
    char *end;
    uint64_t hz = g_ascii_strtoull(val, &end, 0);
    uint64_t unit = *end == 'G' ? 1000000000 : *end == 'M' ? 1000000 : *end == 'k' || *end == 'K' ? 1000 : 1;
    if (unit != 1)
        end++;
    if (end == val || *end || hz > UINT64_MAX / unit || hz * unit < 1000000 || hz * unit > 100000000000)
        return fail(ret_error, g_strdup_printf("-cpu: tsc-frequency=%s is not a frequency in Hz from "
                                               "1000000 to 100000000000", val));
    m->tsc_khz = hz * unit / 1000;
    return true;
}

static bool set_named(struct cpu_model *m, const char *key, const char *val, bool *ret_done, char **ret_error)
{
    *ret_done = true;
    for (unsigned i = 0; i < ARRAY_COUNT(numbers); i++)
        if (!strcmp(key, numbers[i].name))
            return set_number(m, &numbers[i], val, ret_error);
    if (!strcmp(key, "tsc-frequency") || !strcmp(key, "tsc-freq"))
        return set_tsc(m, val, ret_error);
    if (!strcmp(key, "vendor")) {
        if (strlen(val) != 12)
            return fail(ret_error, g_strdup_printf("-cpu: vendor=%s must have 12 characters", val));
        set_vendor(m, val);
        return true;
    }
    if (!strcmp(key, "model-id")) {
        memset(m->model_id, 0, sizeof(m->model_id));
        snprintf(m->model_id, sizeof(m->model_id), "%s", val);
        return true;
    }
    if (!strcmp(key, "kvm")) {
        if (!parse_onoff(val, &m->hypervisor_leaves))
            return fail(ret_error, g_strdup_printf("-cpu: kvm=%s must be on or off", val));
        return true;
    }
    *ret_done = false;
    return true;
}

static bool is_ignored(const char *key)
{
    for (unsigned i = 0; i < ARRAY_COUNT(ignored); i++) {
        size_t n = strlen(ignored[i]);
        if (!strcmp(key, ignored[i]) || (ignored[i][n - 1] == '-' && !strncmp(key, ignored[i], n)))
            return true;
    }
    return false;
}

static bool unknown_property(const char *key, char **ret_error)
{
    g_autofree const char **words = g_new0(const char *, model_feature_count + ARRAY_COUNT(property_names) + 1);
    unsigned n = 0;
    for (unsigned i = 0; i < model_feature_count; i++)
        words[n++] = model_features[i].name;
    for (unsigned i = 0; i < ARRAY_COUNT(property_names); i++)
        words[n++] = property_names[i];
    return fail(ret_error, g_strdup_printf("-cpu: no property or feature '%s'%s", key,
                                           suggest_phrase(key, words)));
}

static bool set_feature(struct cpu_model *m, const char *key, bool on, const uint32_t *can, bool enforce,
                        char **ret_error)
{
    const struct feature_row *f = model_feature_find(key, strlen(key));
    if (!f)
        return is_ignored(key) || unknown_property(key, ret_error);
    if (!on)
        m->words[f->word] &= ~(1u << f->bit);
    else if (can[f->word] >> f->bit & 1)
        m->words[f->word] |= 1u << f->bit;
    else if (enforce)
        return fail(ret_error, g_strdup_printf("-cpu: feature '%s' is not available here: %s", key,
                                               f->insn == FEATURE_NEVER ? "it is not implemented"
                                                                        : "the host lacks it"));
    return true;
}

/* One item of the list: +f, -f, key=value, or key (on). */
static bool parse_item(struct cpu_model *m, char *item, const uint32_t *can, bool *enforce,
                       char **ret_error)
{
    bool on = true, done;
    if (*item == '+' || *item == '-')
        return set_feature(m, item + 1, *item == '+', can, *enforce, ret_error);
    char *val = strchr(item, '=');
    if (val)
        *val++ = '\0';
    for (char *p = item; *p; p++)
        if (*p == '_')
            *p = '-';
    if (!strcmp(item, "enforce"))
        return !val || parse_onoff(val, enforce) ||
               fail(ret_error, g_strdup_printf("-cpu: enforce=%s must be on or off", val));
    if (val) {
        bool ok = set_named(m, item, val, &done, ret_error);
        if (done)
            return ok;
    }
    if (is_ignored(item))
        return true;
    if (!model_feature_find(item, strlen(item)))
        return unknown_property(item, ret_error);
    if (val && !parse_onoff(val, &on))
        return fail(ret_error, g_strdup_printf("-cpu: %s=%s must be on or off", item, val));
    return set_feature(m, item, on, can, *enforce, ret_error);
}

/* Features that make no sense without another one go with it. */
static void drop_dependents(struct cpu_model *m)
{
    static const struct {
        uint8_t word, bit, need_word, need_bit;
    } deps[] = {
        { W_1_ECX, 28, W_1_ECX, 26 },  { W_1_ECX, 12, W_1_ECX, 28 },  { W_1_ECX, 29, W_1_ECX, 28 },
        { W_7_EBX, 5, W_1_ECX, 28 },   { W_7_ECX, 9, W_1_ECX, 28 },   { W_7_ECX, 10, W_1_ECX, 28 },
        { W_D1_EAX, 0, W_1_ECX, 26 },  { W_D1_EAX, 1, W_1_ECX, 26 },  { W_D1_EAX, 2, W_1_ECX, 26 },
        { W_D1_EAX, 3, W_1_ECX, 26 },  { W_1_EDX, 26, W_1_EDX, 25 },  { W_7_EBX, 10, W_1_ECX, 17 },
        { W_81_EDX, 29, W_1_EDX, 6 },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(deps); i++)
        if (!(m->words[deps[i].need_word] >> deps[i].need_bit & 1))
            m->words[deps[i].word] &= ~(1u << deps[i].bit);
}

struct cpu_model *cpu_model_parse(const char *text, char **ret_error)
{
    g_auto(GStrv) items = g_strsplit(text, ",", -1);
    const struct model_row *row = NULL;
    uint32_t can[N_FEATURE_WORDS];
    bool enforce = false;
    if (ret_error)
        *ret_error = NULL;
    for (unsigned i = 0; i < ARRAY_COUNT(models); i++)
        if (items[0] && !strcmp(items[0], models[i].name))
            row = &models[i];
    if (!row) {
        fail(ret_error, g_strdup_printf("-cpu: no model '%s'%s", items[0] ? items[0] : "",
                                        suggest_phrase(items[0] ? items[0] : "", cpu_model_names())));
        return NULL;
    }
    struct cpu_model *m = model_new(row);
    model_feature_words(can, ~0u);
    for (char **i = items + 1; *i; i++)
        if (!strcmp(*i, "enforce") || !strcmp(*i, "enforce=on"))
            enforce = true;
    for (char **i = items + 1; *i; i++) {
        if (**i && !parse_item(m, *i, can, &enforce, ret_error)) {
            cpu_model_free(m);
            return NULL;
        }
    }
    drop_dependents(m);
    return m;
}

/* --- what the processor takes from it --- */

uint32_t model_signature(const struct cpu_model *m)
{
    uint32_t family = m->family > 15 ? 15 : m->family, ext = m->family > 15 ? m->family - 15 : 0;
    return ext << 20 | (m->model >> 4) << 16 | family << 8 | (m->model & 15) << 4 | m->stepping;
}

bool model_has(const struct cpu_model *m, enum feature_word word, unsigned bit)
{
    return m->words[word] >> bit & 1;
}

void model_describe(const struct cpu_model *m, struct cpu_shared *s)
{
    s->amd = m->amd;
    s->phys_mask = (1ull << m->phys_bits) - 1;
    s->gib_pages = model_has(m, W_81_EDX, 26);
    s->host_tsc_khz = tsc_host_khz();
    s->tsc_khz = m->tsc_khz ? m->tsc_khz : s->host_tsc_khz;
    /* Gates without a CPUID bit of their own are open; the others open with their bit. */
    s->insn_features = ~0ull;
    for (unsigned i = 0; i < model_feature_count; i++) {
        const struct feature_row *f = &model_features[i];
        if (f->insn < N_INSN_FEATURES && !model_has(m, f->word, f->bit) && strcmp(f->name, "xgetbv1"))
            s->insn_features &= ~(1ull << f->insn);
    }
    if (!model_has(m, W_81_EDX, 11))
        s->insn_features &= ~(1ull << F_SYSCALL);
    if (!model_has(m, W_7_ECX, 2))
        s->insn_features &= ~(1ull << F_UMIP);
}
