/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CPUID leaves of a model in a topology.
 *
 * Spec      Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E; Linux
 *           Documentation/virt/kvm/x86/cpuid.rst.
 * Thread    Any: the model is constant.
 *
 * The hypervisor leaves speak KVM's paravirtual interface, of which sys/msr.c implements the clock:
 * it is what a stock Linux, also on AMD, takes the TSC's frequency from, and what lets it use
 * x2APIC. Leaf 0x40000010 has the frequencies for FreeBSD and others; 0x15 for Linux on Intel
 * without a hypervisor interface.
 */
#include "cpu/exec/handlers.h"
#include "cpu/sys/internal.h"
#include "cpu/sys/model.h"

#define HV_BASE 0x40000000u
#define HV_TIMING 0x40000010u
#define APIC_BUS_KHZ 1000000u
#define KVM_FEATURE_NOP_IO_DELAY (1u << 1)
#define KVM_FEATURE_CLOCKSOURCE2 (1u << 3)
#define KVM_FEATURE_CLOCKSOURCE_STABLE (1u << 24)

struct ask {
    const struct cpu_model *m;
    const struct cpu_topology *t;
    unsigned index;
    uint32_t leaf, sub;
    uint32_t *r; /* eax ebx ecx edx, zero so far */
};

static unsigned at_least_1(unsigned v)
{
    return v ? v : 1;
}

static unsigned threads_of(const struct ask *a)
{
    return at_least_1(a->t->threads);
}

/* Logical processors of a package. */
static unsigned package_of(const struct ask *a)
{
    return threads_of(a) * at_least_1(a->t->cores) * at_least_1(a->t->dies);
}

static unsigned package_bits(const struct ask *a)
{
    return cpu_topology_bits(threads_of(a)) + cpu_topology_bits(at_least_1(a->t->cores)) +
           cpu_topology_bits(at_least_1(a->t->dies));
}

static uint32_t apic_id(const struct ask *a)
{
    return cpu_topology_apic_id(a->t, a->index);
}

static uint64_t tsc_khz(const struct ask *a)
{
    return a->m->tsc_khz ? a->m->tsc_khz : tsc_host_khz();
}

static void put_text(uint32_t *r, const char *text, const uint8_t order[3])
{
    for (unsigned i = 0; i < 3; i++)
        memcpy(&r[order[i]], text + i * 4, 4);
}

static void leaf_vendor(const struct ask *a)
{
    a->r[0] = a->leaf ? a->m->xlevel : a->m->level;
    put_text(a->r, a->m->vendor, (const uint8_t[]){ 1, 3, 2 });
}

static void leaf_1(const struct ask *a)
{
    unsigned n = package_of(a);
    a->r[0] = model_signature(a->m);
    a->r[1] = 8 << 8 | (n > 255 ? 255 : n) << 16 | (apic_id(a) & 255) << 24;
    a->r[2] = a->m->words[W_1_ECX];
    a->r[3] = a->m->words[W_1_EDX] | (n > 1 ? 1u << 28 : 0);
}

static void leaf_2(const struct ask *a)
{
    if (!a->m->amd)
        a->r[0] = 0x00ff0001; /* leaf 4 has the caches */
}

/* Caches are those of a plausible machine: guests size hash tables and stagger locks by them. */
struct cache {
    uint8_t type, level;
    uint16_t ways, sets_log2;
};

static void leaf_4(const struct ask *a)
{
    static const struct cache caches[] = { { 1, 1, 8, 6 }, { 2, 1, 8, 6 }, { 3, 2, 16, 10 }, { 3, 3, 16, 14 } };
    if (a->m->amd || a->sub >= ARRAY_COUNT(caches))
        return;
    const struct cache *k = &caches[a->sub];
    unsigned core_bits = cpu_topology_bits(threads_of(a)), all_bits = package_bits(a);
    unsigned sharing = (1u << (k->level == 3 ? all_bits : core_bits)) - 1;
    unsigned cores = (1u << (all_bits - core_bits)) - 1;
    a->r[0] = k->type | k->level << 5 | 1u << 8 | (sharing & 0xfff) << 14 | (cores & 63) << 26;
    a->r[1] = 63 | (k->ways - 1u) << 22;
    a->r[2] = (1u << k->sets_log2) - 1;
}

static void leaf_5(const struct ask *a)
{
    if (model_has(a->m, W_1_ECX, 3)) {
        a->r[0] = a->r[1] = 64;
        a->r[2] = 3;
    }
}

static void leaf_6(const struct ask *a)
{
    a->r[0] = a->m->words[W_6_EAX];
}

static void leaf_7(const struct ask *a)
{
    if (a->sub)
        return;
    a->r[1] = a->m->words[W_7_EBX];
    a->r[2] = a->m->words[W_7_ECX];
    a->r[3] = a->m->words[W_7_EDX];
}

/* Topology: 0xb knows threads and cores, 0x1f dies too. */
static void leaf_topology(const struct ask *a)
{
    unsigned thread_bits = cpu_topology_bits(threads_of(a));
    unsigned core_bits = thread_bits + cpu_topology_bits(at_least_1(a->t->cores));
    unsigned in_die = threads_of(a) * at_least_1(a->t->cores);
    bool dies = a->leaf == 0x1f && at_least_1(a->t->dies) > 1;
    const struct { unsigned type, shift, count; } levels[] = {
        { 1, thread_bits, threads_of(a) },
        { 2, dies ? core_bits : package_bits(a), dies ? in_die : package_of(a) },
        { 5, package_bits(a), package_of(a) },
    };
    a->r[2] = a->sub & 255;
    a->r[3] = apic_id(a);
    if (a->sub >= (dies ? 3 : 2))
        return;
    a->r[0] = levels[a->sub].shift;
    a->r[1] = levels[a->sub].count;
    a->r[2] |= levels[a->sub].type << 8;
}

uint32_t xsave_size(uint64_t xcr0)
{
    return xcr0 & 4 ? 832 : 576;
}

static void leaf_d(const struct ask *a)
{
    uint64_t all = xcr0_allowed(a->m);
    if (!model_has(a->m, W_1_ECX, 26))
        return;
    if (a->sub == 0) {
        a->r[0] = (uint32_t)all;
        a->r[1] = xsave_size(1);
        a->r[2] = xsave_size(all);
    } else if (a->sub == 1) {
        a->r[0] = a->m->words[W_D1_EAX];
        a->r[1] = a->r[0] & 10 ? xsave_size(1) : 0;
    } else if (a->sub == 2 && all & 4) {
        a->r[0] = 256;
        a->r[1] = 576;
    }
}

/* The crystal is said to run at the TSC's own rate: exact, and it fits 32 bits. */
static void leaf_15(const struct ask *a)
{
    uint64_t hz = tsc_khz(a) * 1000;
    if (hz > UINT32_MAX)
        return;
    a->r[0] = a->r[1] = 1;
    a->r[2] = (uint32_t)hz;
}

static void leaf_16(const struct ask *a)
{
    a->r[0] = a->r[1] = (uint32_t)(tsc_khz(a) / 1000) & 0xffff;
    a->r[2] = 100;
}

/* --- extended --- */

static void leaf_8_1(const struct ask *a)
{
    a->r[0] = a->m->amd ? model_signature(a->m) : 0;
    a->r[2] = a->m->words[W_81_ECX];
    a->r[3] = a->m->words[W_81_EDX];
    if (a->m->amd) /* AMD repeats leaf 1's features that both have */
        a->r[3] |= a->m->words[W_1_EDX] & 0x0183f3ff;
}

static void leaf_brand(const struct ask *a)
{
    char text[49] = { 0 };
    memcpy(text, a->m->model_id, 48);
    memcpy(a->r, text + (a->leaf - 0x80000002) * 16, 16);
}

static void leaf_8_5(const struct ask *a)
{
    if (!a->m->amd)
        return;
    a->r[0] = a->r[1] = 0xff40ff40;
    a->r[2] = a->r[3] = 32u << 24 | 8 << 16 | 1 << 8 | 64;
}

static void leaf_8_6(const struct ask *a)
{
    a->r[2] = 1024u << 16 | 8u << 12 | 1 << 8 | 64;
    if (a->m->amd)
        a->r[3] = 32u << 18 | 8u << 12 | 1 << 8 | 64;
}

static void leaf_8_7(const struct ask *a)
{
    a->r[3] = a->m->words[W_87_EDX];
}

static void leaf_8_8(const struct ask *a)
{
    a->r[0] = a->m->phys_bits | 48u << 8;
    a->r[1] = a->m->words[W_88_EBX];
    if (a->m->amd)
        a->r[2] = ((package_of(a) - 1) & 255) | package_bits(a) << 12;
}

static void leaf_8_21(const struct ask *a)
{
    a->r[0] = a->m->words[W_821_EAX];
}

/* --- hypervisor --- */

static void leaf_hv(const struct ask *a)
{
    bool kvm = a->m->hypervisor_leaves;
    if (a->leaf == HV_BASE) {
        a->r[0] = HV_TIMING;
        put_text(a->r, kvm ? "KVMKVMKVM\0\0\0" : "RucheSoftCPU", (const uint8_t[]){ 1, 2, 3 });
    } else if (a->leaf == HV_BASE + 1 && kvm) {
        a->r[0] = KVM_FEATURE_NOP_IO_DELAY | KVM_FEATURE_CLOCKSOURCE2 | KVM_FEATURE_CLOCKSOURCE_STABLE;
    } else if (a->leaf == HV_TIMING) {
        a->r[0] = (uint32_t)tsc_khz(a);
        a->r[1] = APIC_BUS_KHZ;
    }
}

static const struct {
    uint32_t first, last;
    void (*fill)(const struct ask *a);
} leaves[] = {
    { 0, 0, leaf_vendor },        { 1, 1, leaf_1 },
    { 2, 2, leaf_2 },             { 4, 4, leaf_4 },
    { 5, 5, leaf_5 },             { 6, 6, leaf_6 },
    { 7, 7, leaf_7 },             { 0xb, 0xb, leaf_topology },
    { 0xd, 0xd, leaf_d },         { 0x15, 0x15, leaf_15 },
    { 0x16, 0x16, leaf_16 },      { 0x1f, 0x1f, leaf_topology },
    { 0x80000000, 0x80000000, leaf_vendor }, { 0x80000001, 0x80000001, leaf_8_1 },
    { 0x80000002, 0x80000004, leaf_brand },  { 0x80000005, 0x80000005, leaf_8_5 },
    { 0x80000006, 0x80000006, leaf_8_6 },    { 0x80000007, 0x80000007, leaf_8_7 },
    { 0x80000008, 0x80000008, leaf_8_8 },    { 0x80000021, 0x80000021, leaf_8_21 },
    { HV_BASE, HV_TIMING, leaf_hv },
};

void cpu_model_cpuid(const struct cpu_model *m, const struct cpu_topology *t, unsigned index, uint32_t leaf,
                     uint32_t subleaf, uint32_t ret[4])
{
    struct ask a = { m, t, index, leaf, subleaf, ret };
    memset(ret, 0, 4 * sizeof(*ret));
    bool hv = leaf >= HV_BASE && leaf <= HV_TIMING;
    if (hv ? !model_has(m, W_1_ECX, 31) : leaf > (leaf >> 31 ? m->xlevel : m->level))
        return;
    for (unsigned i = 0; i < ARRAY_COUNT(leaves); i++) {
        if (leaf >= leaves[i].first && leaf <= leaves[i].last) {
            leaves[i].fill(&a);
            return;
        }
    }
}

static bool apic_enabled(struct cpu *c)
{
    uint64_t base;
    return cpu_msr_read(c, 0x1b, &base) || base & 0x800;
}

/* The instruction adds what depends on CR4, XCR0 and the APIC. */
int x_cpuid(struct cpu *c, const struct insn *i)
{
    uint32_t r[4], leaf = (uint32_t)c->gpr[0], sub = (uint32_t)c->gpr[1];
    cpu_model_cpuid(c->shared->model, &c->shared->topology, c->index, leaf, sub, r);
    if (leaf == 1 && c->cr4 & CR4_OSXSAVE)
        r[2] |= 1u << 27;
    if ((leaf == 1 || (leaf == 0x80000001 && c->shared->amd)) && !apic_enabled(c))
        r[3] &= ~(1u << 9);
    if (leaf == 0xd && sub < 2 && r[1])
        r[1] = xsave_size(c->xcr0);
    c->gpr[0] = r[0];
    c->gpr[3] = r[1];
    c->gpr[1] = r[2];
    c->gpr[2] = r[3];
    return X_NEXT;
}
