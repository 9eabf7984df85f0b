/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sets of features, models, and the host's processor. See cpu.h. */
#include "manager/node/cpu.h"

#include "manager/node/sysfs.h"

#include <string.h>
#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

enum reg { EAX, EBX, ECX, EDX };
enum feature_kind { CPU_PLAIN, CPU_HOST_BOUND, CPU_MSR };

struct feature_row {
    const char *name;
    uint32_t leaf, subleaf;
    uint8_t reg, bit, kind;
};
static const struct feature_row features[] = {
#define FEATURE(name, leaf, subleaf, reg, bit, kind) {name, leaf, subleaf, reg, bit, kind},
#include "manager/node/cpu_features.def"
#undef FEATURE
};
_Static_assert(ARRAY_COUNT(features) <= CPU_FEATURES_MAX, "more room for features");

struct model_row {
    const char *name, *vendor, *on, *changes;
    unsigned signatures[4];
};
static const struct model_row model_rows[] = {
#define MODEL(name, vendor, on, changes, ...) {name, vendor, on, changes, {__VA_ARGS__}},
#include "manager/node/cpu_models.def"
#undef MODEL
};
static struct cpu_model models[ARRAY_COUNT(model_rows)];

unsigned cpu_feature_count(void)
{
    return ARRAY_COUNT(features);
}

const char *cpu_feature_name(unsigned i)
{
    return features[i].name;
}

bool cpu_feature_is_host_bound(unsigned i)
{
    return features[i].kind == CPU_HOST_BOUND;
}

int cpu_feature_find(const char *name)
{
    for (unsigned i = 0; i < ARRAY_COUNT(features); i++)
        if (!strcmp(features[i].name, name))
            return (int)i;
    return -1;
}

struct cpu_features cpu_minus(struct cpu_features a, struct cpu_features b)
{
    for (unsigned i = 0; i < ARRAY_COUNT(a.bits); i++)
        a.bits[i] &= ~b.bits[i];
    return a;
}

struct cpu_features cpu_and(struct cpu_features a, struct cpu_features b)
{
    for (unsigned i = 0; i < ARRAY_COUNT(a.bits); i++)
        a.bits[i] &= b.bits[i];
    return a;
}

unsigned cpu_feature_total(const struct cpu_features *f)
{
    unsigned n = 0;
    for (unsigned i = 0; i < ARRAY_COUNT(f->bits); i++)
        n += (unsigned)__builtin_popcountll(f->bits[i]);
    return n;
}

static const struct cpu_model *find_upto(const char *name, unsigned end)
{
    for (unsigned i = 0; i < end; i++)
        if (!strcmp(models[i].name, name))
            return &models[i];
    return NULL;
}

static void make_model(unsigned i)
{
    const struct model_row *r = &model_rows[i];
    struct cpu_model m = {.name = r->name, .vendor = r->vendor};
    memcpy(m.signatures, r->signatures, sizeof(m.signatures));
    if (r->on)
        m.features = find_upto(r->on, i)->features;
    g_auto(GStrv) words = g_strsplit(r->changes, " ", -1);
    for (char **w = words; *w; w++) {
        bool out = **w == '-';
        int f = cpu_feature_find(*w + out);
        if (f >= 0)
            cpu_put(&m.features, (unsigned)f, !out);
    }
    models[i] = m;
}

static void make_models(void)
{
    static gsize made;
    if (!g_once_init_enter(&made))
        return;
    for (unsigned i = 0; i < ARRAY_COUNT(model_rows); i++)
        make_model(i);
    g_once_init_leave(&made, 1);
}

unsigned cpu_model_count(void)
{
    return ARRAY_COUNT(model_rows);
}

const struct cpu_model *cpu_model_at(unsigned i)
{
    make_models();
    return &models[i];
}

const struct cpu_model *cpu_model_find(const char *name)
{
    make_models();
    return find_upto(name, ARRAY_COUNT(models));
}

static bool has_signature(const struct cpu_model *m, unsigned signature)
{
    for (unsigned i = 0; i < ARRAY_COUNT(m->signatures); i++)
        if (signature && m->signatures[i] == signature)
            return true;
    return false;
}

const struct cpu_model *cpu_model_best(const struct cpu_features *f, const char *vendor,
                                       unsigned signature)
{
    make_models();
    const struct cpu_model *best = NULL;
    unsigned most = 0;
    for (unsigned i = 0; i < ARRAY_COUNT(models); i++) {
        const struct cpu_model *m = &models[i];
        struct cpu_features lacking = cpu_minus(m->features, *f);
        if (g_str_has_prefix(m->name, "cpu64-rhel"))
            continue; /* rows that others build on: no processor is called so */
        if (cpu_feature_total(&lacking) ||
            (m->vendor && vendor && strcmp(m->vendor, vendor) != 0) || (m->vendor && !vendor))
            continue;
        unsigned score =
            cpu_feature_total(&m->features) + (has_signature(m, signature) ? CPU_FEATURES_MAX : 0);
        if (!best || score > most) {
            best = m;
            most = score;
        }
    }
    return best ? best : find_upto("486", ARRAY_COUNT(models));
}

static const char *vendor_word(const uint32_t regs[4])
{
    static const char *const words[][2] = {
        {"GenuineIntel", "Intel"},
        {"AuthenticAMD", "AMD"},
        {"HygonGenuine", "Hygon"},
    };
    char text[13] = "";
    memcpy(text, &regs[EBX], 4);
    memcpy(text + 4, &regs[EDX], 4);
    memcpy(text + 8, &regs[ECX], 4);
    for (unsigned i = 0; i < ARRAY_COUNT(words); i++)
        if (!strcmp(text, words[i][0]))
            return words[i][1];
    return NULL;
}

static void read_signature(struct cpu_host *h, uint32_t eax)
{
    h->stepping = eax & 15;
    h->family = eax >> 8 & 15;
    h->model = eax >> 4 & 15;
    if (h->family == 6 || h->family == 15)
        h->model |= (eax >> 16 & 15) << 4;
    if (h->family == 15)
        h->family += eax >> 20 & 255;
}

void cpu_host_read(struct cpu_host *h,
                   void (*cpuid)(uint32_t leaf, uint32_t subleaf, uint32_t regs[4]))
{
    uint32_t regs[4], last[2];
    *h = (struct cpu_host){0};
    cpuid(0x80000000, 0, regs);
    last[1] = regs[EAX];
    cpuid(0, 0, regs);
    last[0] = regs[EAX];
    h->vendor = vendor_word(regs);
    cpuid(1, 0, regs);
    read_signature(h, regs[EAX]);
    for (unsigned i = 0; i < ARRAY_COUNT(features); i++) {
        const struct feature_row *r = &features[i];
        if (r->kind == CPU_MSR || r->leaf > last[r->leaf >> 31])
            continue;
        cpuid(r->leaf, r->subleaf, regs);
        if (regs[r->reg] >> r->bit & 1)
            cpu_put(&h->features, i, true);
    }
    if (last[1] >= 0x80000008) {
        cpuid(0x80000008, 0, regs);
        h->address_bits = regs[EAX] & 255;
    }
}

#if defined(__x86_64__) || defined(__i386__)
static void host_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
    __cpuid_count(leaf, subleaf, regs[EAX], regs[EBX], regs[ECX], regs[EDX]);
}
#else
static void host_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
    memset(regs, 0, 4 * sizeof(regs[0]));
}
#endif

static uint32_t read_microcode(void)
{
    g_autofree char *text = sysfs_read("/proc/cpuinfo");
    const char *at = text ? strstr(text, "microcode") : NULL;
    at = at ? strchr(at, ':') : NULL;
    return at ? (uint32_t)g_ascii_strtoull(at + 1, NULL, 0) : 0;
}

const struct cpu_host *cpu_host(void)
{
    static struct cpu_host host;
    static gsize read;
    if (g_once_init_enter(&read)) {
        cpu_host_read(&host, host_cpuid);
        host.microcode = read_microcode();
        g_once_init_leave(&read, 1);
    }
    return &host;
}
