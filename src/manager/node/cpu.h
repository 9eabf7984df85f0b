/* SPDX-License-Identifier: GPL-2.0-or-later */
/* x86 processors as sets of named features: the host's, those of named models, and those that XML
 * describes.
 *
 * Spec      CPUID; names are libvirt's (cpu_features.def, cpu_models.def).
 * Thread    Any; everything is constant after the first call of a function.
 */
#pragma once

#include "base/util.h"
#include "base/xml.h"

#define CPU_FEATURES_MAX 256

struct cpu_features {
    uint64_t bits[CPU_FEATURES_MAX / 64];
};
struct cpu_model {
    const char *name, *vendor; /* "Intel", "AMD"; NULL: any */
    struct cpu_features features;
    unsigned signatures[4]; /* family * 256 + model; 0: none */
};
struct cpu_host {
    const char *vendor; /* "Intel"; NULL: another */
    unsigned family, model, stepping, address_bits;
    uint32_t microcode;
    struct cpu_features features;
};
/* A processor that XML asks for or describes. */
struct cpu_wish {
    const struct cpu_model *model; /* NULL: named none */
    char *vendor;
    bool says_vendor; /* else it is the model's */
    struct cpu_features required, forbidden, optional;
    bool strict, minimum; /* match */
};

unsigned cpu_feature_count(void);
const char *cpu_feature_name(unsigned i);
bool cpu_feature_is_host_bound(unsigned i); /* does not survive a migration */
int cpu_feature_find(const char *name);     /* -1: unknown */
static inline bool cpu_has(const struct cpu_features *f, unsigned i)
{
    return f->bits[i / 64] >> (i % 64) & 1;
}
static inline void cpu_put(struct cpu_features *f, unsigned i, bool on)
{
    f->bits[i / 64] = (f->bits[i / 64] & ~(1ULL << (i % 64))) | (uint64_t)on << (i % 64);
}
struct cpu_features cpu_minus(struct cpu_features a, struct cpu_features b);
struct cpu_features cpu_and(struct cpu_features a, struct cpu_features b);
unsigned cpu_feature_total(const struct cpu_features *f);

unsigned cpu_model_count(void);
const struct cpu_model *cpu_model_at(unsigned i);
const struct cpu_model *cpu_model_find(const char *name); /* NULL: unknown */
/* The model that says most of the set and nothing that is not in it; of the vendor (NULL: of any).
 * With a signature the model of that processor comes before others. Never NULL. */
const struct cpu_model *cpu_model_best(const struct cpu_features *f, const char *vendor,
                                       unsigned signature);

/* The processor we run on; all zeroes where that is no x86. */
const struct cpu_host *cpu_host(void);
/* The same from any source of CPUID's answers: for tests. regs: EAX, EBX, ECX, EDX. */
void cpu_host_read(struct cpu_host *h,
                   void (*cpuid)(uint32_t leaf, uint32_t subleaf, uint32_t regs[4]));

/* A <cpu> element, of a domain or of the host's capabilities. */
bool cpu_wish_parse(struct cpu_wish *w, const struct xml_node *cpu, GError **error);
void cpu_wish_done(struct cpu_wish *w);
