/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The CPUID table of a vCPU: the model's leaves, less the features that this KVM cannot do, plus
 * KVM's own leaves.
 *
 * Spec      Intel SDM volume 2, CPUID; Linux Documentation/virt/kvm/x86/cpuid.rst.
 * Thread    Main.
 */
#include "accel/kvm/kvm.h"

#include <asm/kvm_para.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#define MAX_ENTRIES 256
#define HYPERVISOR_LEAF 0x40000000u
#define HYPERVISOR_TOP 0x40000010u /* TSC and bus frequency */

struct table {
    struct kvm_cpuid2 head;
    struct kvm_cpuid_entry2 e[MAX_ENTRIES];
};

enum { EAX, EBX, ECX, EDX };

/* The registers that are words of feature bits, and the bits that are not KVM's to refuse. */
static const struct {
    uint32_t leaf, subleaf, reg, keep;
} feature_regs[] = {
    { 0x1, 0, EDX, 0 },
    { 0x1, 0, ECX,
      1u << 31 | 1u << 27 | 1u << 24 | 1u << 21 }, /* hypervisor OSXSAVE TSC-deadline x2APIC */
    { 0x6, 0, EAX, 1u << 2 },                      /* the APIC timer never stops */
    { 0x7, 0, EBX, 0 },
    { 0x7, 0, ECX, 0 },
    { 0x7, 0, EDX, 0 },
    { 0x7, 1, EAX, 0 },
    { 0xd, 0, EAX, 0 },
    { 0xd, 0, EDX, 0 },
    { 0xd, 1, EAX, 0 },
    { 0xd, 1, ECX, 0 },
    { 0x80000001, 0, EDX, 0 },
    { 0x80000001, 0, ECX, 1u << 1 }, /* more than one core */
    { 0x80000008, 0, EBX, 0 },
    { 0x80000021, 0, EAX, 0 },
};

/* Leaves whose subleaves count up, and how many there can be. */
static const struct {
    uint32_t leaf, count;
} indexed_leaves[] = {
    { 0x4, 8 }, { 0x7, 2 }, { 0xb, 3 }, { 0xd, 64 }, { 0x1f, 4 }, { 0x8000001d, 8 },
};

/* KVM's paravirtual features that we stand for: its clock, and that ports need no delay. */
#define PV_FEATURES                                                                                \
    (1u << KVM_FEATURE_CLOCKSOURCE | 1u << KVM_FEATURE_NOP_IO_DELAY |                              \
     1u << KVM_FEATURE_CLOCKSOURCE2 | 1u << KVM_FEATURE_CLOCKSOURCE_STABLE_BIT)

static const struct kvm_cpuid_entry2 *find(const struct table *t, uint32_t leaf, uint32_t subleaf)
{
    for (uint32_t i = 0; i < t->head.nent; i++) {
        const struct kvm_cpuid_entry2 *e = &t->e[i];
        if (e->function == leaf &&
            (e->index == subleaf || !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX)))
            return e;
    }
    return NULL;
}

static void intersect(const struct table *supported, uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
    const struct kvm_cpuid_entry2 *s = find(supported, leaf, subleaf);
    const uint32_t have[4] = { s ? s->eax : 0, s ? s->ebx : 0, s ? s->ecx : 0, s ? s->edx : 0 };
    for (size_t i = 0; i < ARRAY_COUNT(feature_regs); i++) {
        if (feature_regs[i].leaf == leaf && feature_regs[i].subleaf == subleaf)
            r[feature_regs[i].reg] &= have[feature_regs[i].reg] | feature_regs[i].keep;
    }
}

static void add(struct table *t, uint32_t leaf, uint32_t subleaf, bool indexed, const uint32_t r[4])
{
    if (t->head.nent == MAX_ENTRIES)
        return;
    t->e[t->head.nent++] = (struct kvm_cpuid_entry2){
        .function = leaf,
        .index = subleaf,
        .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
        .eax = r[EAX],
        .ebx = r[EBX],
        .ecx = r[ECX],
        .edx = r[EDX],
    };
}

static unsigned subleaves(uint32_t leaf)
{
    for (size_t i = 0; i < ARRAY_COUNT(indexed_leaves); i++) {
        if (indexed_leaves[i].leaf == leaf)
            return indexed_leaves[i].count;
    }
    return 0;
}

static void add_range(struct table *t, const struct table *supported, const struct kvm_vcpu *v,
                      uint32_t first, uint32_t limit)
{
    struct kvm_accel *a = to_kvm(v->base.accel);
    uint32_t r[4];
    cpu_model_cpuid(a->model, &a->topology, v->base.index, first, 0, r);
    uint32_t last = r[EAX] < first ? first : r[EAX];
    if (last > limit)
        last = limit;
    for (uint32_t leaf = first; leaf <= last; leaf++) {
        unsigned count = subleaves(leaf);
        for (uint32_t sub = 0; sub < (count ? count : 1); sub++) {
            cpu_model_cpuid(a->model, &a->topology, v->base.index, leaf, sub, r);
            intersect(supported, leaf, sub, r);
            if (sub == 0 || (r[EAX] | r[EBX] | r[ECX] | r[EDX]))
                add(t, leaf, sub, count > 0, r);
        }
    }
}

/* Without XSAVE there is no leaf 0xd, and nothing that needs it. */
static void drop_what_needs_xsave(struct table *t)
{
    struct kvm_cpuid_entry2 *one = (struct kvm_cpuid_entry2 *)find(t, 1, 0);
    if (!one || (one->ecx & 1u << 26))
        return;
    one->ecx &= ~(1u << 27 | 1u << 28 | 1u << 12 | 1u << 29); /* OSXSAVE AVX FMA F16C */
    struct kvm_cpuid_entry2 *seven = (struct kvm_cpuid_entry2 *)find(t, 7, 0);
    if (seven) {
        seven->ebx &= ~(1u << 5);            /* AVX2 */
        seven->ecx &= ~(1u << 9 | 1u << 10); /* VAES VPCLMULQDQ */
    }
    for (uint32_t i = 0; i < t->head.nent; i++) {
        if (t->e[i].function == 0xd)
            t->e[i].eax = t->e[i].ebx = t->e[i].ecx = t->e[i].edx = 0;
    }
}

static void add_kvm_leaves(struct table *t, const struct table *supported, const struct kvm_vcpu *v)
{
    uint32_t top[4] = { HYPERVISOR_TOP };
    memcpy(&top[EBX], "KVMKVMKVM\0\0", 12);
    add(t, HYPERVISOR_LEAF, 0, false, top);
    const struct kvm_cpuid_entry2 *s = find(supported, HYPERVISOR_LEAF + 1, 0);
    uint32_t features[4] = { s ? s->eax & PV_FEATURES : 0 };
    add(t, HYPERVISOR_LEAF + 1, 0, false, features);
    int khz = ioctl(v->fd, KVM_GET_TSC_KHZ, 0);
    uint32_t frequency[4] = { khz > 0 ? (uint32_t)khz : 0, 1000000 };
    add(t, HYPERVISOR_TOP, 0, false, frequency);
}

static bool model_has_hypervisor_bit(const struct table *t)
{
    const struct kvm_cpuid_entry2 *one = find(t, 1, 0);
    return one && (one->ecx & 1u << 31);
}

bool kvm_set_cpuid(struct kvm_vcpu *v, GError **error)
{
    struct kvm_accel *a = to_kvm(v->base.accel);
    g_autofree struct table *supported = g_new0(struct table, 1), *t = g_new0(struct table, 1);
    supported->head.nent = MAX_ENTRIES;
    if (ioctl(a->sys_fd, KVM_GET_SUPPORTED_CPUID, supported) < 0)
        return ruche_error_errno(error, errno, "kvm: cannot read which CPU features it can do");
    add_range(t, supported, v, 0, 0x20);
    add_range(t, supported, v, 0x80000000, 0x80000021);
    drop_what_needs_xsave(t);
    if (model_has_hypervisor_bit(t))
        add_kvm_leaves(t, supported, v);
    if (ioctl(v->fd, KVM_SET_CPUID2, t) < 0)
        return ruche_error_errno(error, errno, "kvm: cannot set the CPU model of vCPU %u",
                                 v->base.index);
    return true;
}
