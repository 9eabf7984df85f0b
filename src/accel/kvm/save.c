/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Saved state under KVM: vCPUs, local APICs, the chips in the kernel, the clock.
 *
 * Spec      Linux Documentation/virt/kvm/api.rst.
 * Format    What the kernel's calls transfer is saved as the bytes of these calls, which are an
 *           interface that never changes; MSRs by number. It loads under KVM only.
 * Thread    Main, the machine stopped.
 * Trust     The kernel checks what it is given, and refuses.
 * TSC       By the offset that KVM adds to the host's, as in kvm.c; saved as it stood when the
 *           clock stopped.
 */
#include "accel/kvm/kvm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <x86intrin.h>

#define MAX_MSRS     512u
#define MSR_TSC      0x10u
#define MSR_DEADLINE 0x6e0u

struct saved_vcpu {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debug;
    struct kvm_vcpu_events events;
    struct kvm_mp_state mp;
    struct kvm_xsave xsave;
    struct kvm_lapic_state apic;
    uint64_t tsc;
    uint32_t msr_count;
    uint32_t msr[MAX_MSRS];
    uint64_t value[MAX_MSRS];
};

#define BLOCK(type, field)                                                                         \
    {                                                                                              \
        .name = #field, .offset = offsetof(type, field), .size = 1,                                \
        .count = sizeof(((type *)0)->field)                                                        \
    }

static const struct state_field vcpu_fields[] = {
    BLOCK(struct saved_vcpu, regs),
    BLOCK(struct saved_vcpu, sregs),
    BLOCK(struct saved_vcpu, xcrs),
    BLOCK(struct saved_vcpu, debug),
    BLOCK(struct saved_vcpu, events),
    BLOCK(struct saved_vcpu, mp),
    BLOCK(struct saved_vcpu, xsave),
    BLOCK(struct saved_vcpu, apic),
    STATE(struct saved_vcpu, tsc),
    STATE(struct saved_vcpu, msr_count, .max = MAX_MSRS),
    STATE_ARRAY(struct saved_vcpu, msr),
    STATE_ARRAY(struct saved_vcpu, value),
    {0},
};

struct saved_chips {
    struct kvm_chips chips;
    uint64_t clock_ns;
    bool has_pit;
};

static const struct state_field chips_fields[] = {
    BLOCK(struct saved_chips, chips.chip),
    BLOCK(struct saved_chips, chips.pit),
    STATE(struct saved_chips, clock_ns),
    STATE(struct saved_chips, has_pit),
    {0},
};

/* --- TSC --- */

static bool tsc_offset(const struct kvm_vcpu *v, bool set, int64_t *offset)
{
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)offset};
    return ioctl(v->fd, set ? KVM_SET_DEVICE_ATTR : KVM_GET_DEVICE_ATTR, &attr) == 0;
}

static uint64_t host_tsc(const struct kvm_accel *a)
{
    return a->stopped_tsc ? a->stopped_tsc : __rdtsc();
}

static bool get_msr(const struct kvm_vcpu *v, uint32_t msr, uint64_t *ret_value)
{
    struct kvm_msr_block one = {.head.nmsrs = 1, .entries[0].index = msr};
    if (ioctl(v->fd, KVM_GET_MSRS, &one) != 1)
        return false;
    *ret_value = one.entries[0].data;
    return true;
}

static bool set_msr(const struct kvm_vcpu *v, uint32_t msr, uint64_t value)
{
    struct kvm_msr_block one = {.head.nmsrs = 1, .entries[0] = {.index = msr, .data = value}};
    return ioctl(v->fd, KVM_SET_MSRS, &one) == 1;
}

static uint64_t saved_tsc(const struct kvm_vcpu *v)
{
    int64_t offset;
    uint64_t value = 0;
    if (tsc_offset(v, false, &offset))
        return host_tsc(to_kvm(v->base.accel)) + (uint64_t)offset;
    get_msr(v, MSR_TSC, &value);
    return value;
}

static void load_tsc(const struct kvm_vcpu *v, uint64_t tsc)
{
    int64_t offset = (int64_t)(tsc - host_tsc(to_kvm(v->base.accel)));
    if (!tsc_offset(v, true, &offset))
        set_msr(v, MSR_TSC, tsc);
}

/* --- vCPUs --- */

static void save_msrs(const struct kvm_vcpu *v, struct saved_vcpu *s)
{
    struct {
        struct kvm_msr_list head;
        uint32_t msr[MAX_MSRS];
    } list = {.head.nmsrs = MAX_MSRS};
    if (ioctl(to_kvm(v->base.accel)->sys_fd, KVM_GET_MSR_INDEX_LIST, &list) < 0)
        list.head.nmsrs = 0;
    for (uint32_t i = 0; i < list.head.nmsrs && i < MAX_MSRS; i++)
        if (list.msr[i] != MSR_TSC && get_msr(v, list.msr[i], &s->value[s->msr_count]))
            s->msr[s->msr_count++] = list.msr[i];
}

bool kvm_vcpu_save(struct vcpu *vcpu, GByteArray *out, GError **error)
{
    struct kvm_vcpu *v = to_kvm_vcpu(vcpu);
    g_autofree struct saved_vcpu *s = g_new0(struct saved_vcpu, 1);
    kvm_vcpu_finish_access(v);
    int err = kvm_state_read(v, &v->before);
    if (!err && ioctl(v->fd, KVM_GET_LAPIC, &s->apic) < 0)
        err = -errno;
    if (err)
        return ruche_error_errno(error, -err, "kvm: cannot read the state of vCPU %u", vcpu->index);
    s->regs = v->before.regs;
    s->sregs = v->before.sregs;
    s->xcrs = v->before.xcrs;
    s->debug = v->before.debug;
    s->events = v->before.events;
    s->mp = v->before.mp;
    s->xsave = v->before.xsave;
    s->tsc = saved_tsc(v);
    save_msrs(v, s);
    state_fields_save(vcpu_fields, s, out);
    return true;
}

/* What a KVM of another version refuses must be as it is here anyway. The deadline comes last,
 * behind the TSC and the timer's mode. */
static bool load_msrs(const struct kvm_vcpu *v, const struct saved_vcpu *s, bool deadline,
                      GError **error)
{
    for (uint32_t i = 0; i < s->msr_count; i++) {
        uint64_t here = 0;
        if ((s->msr[i] == MSR_DEADLINE) != deadline || s->msr[i] == MSR_TSC)
            continue;
        if ((get_msr(v, s->msr[i], &here) && here == s->value[i]) ||
            set_msr(v, s->msr[i], s->value[i]))
            continue;
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "state of vCPU %u: KVM refuses 0x%" G_GINT64_MODIFIER
                           "x for MSR 0x%x, which has 0x%" G_GINT64_MODIFIER "x here",
                           v->base.index, s->value[i], s->msr[i], here);
    }
    return true;
}

bool kvm_vcpu_load(struct vcpu *vcpu, struct cur *in, GError **error)
{
    struct kvm_vcpu *v = to_kvm_vcpu(vcpu);
    g_autofree struct saved_vcpu *s = g_new0(struct saved_vcpu, 1);
    char who[32];
    snprintf(who, sizeof(who), "vCPU %u", vcpu->index);
    if (!state_fields_load(vcpu_fields, s, who, in, error))
        return false;
    v->after = (struct kvm_state){.regs = s->regs,
                                  .sregs = s->sregs,
                                  .xcrs = s->xcrs,
                                  .debug = s->debug,
                                  .events = s->events,
                                  .mp = s->mp,
                                  .xsave = s->xsave};
    load_tsc(v, s->tsc);
    int err = kvm_state_write(v, &v->after, NULL);
    if (!err && ioctl(v->fd, KVM_SET_LAPIC, &s->apic) < 0)
        err = -errno;
    if (err)
        return ruche_error_errno(error, -err, "state of vCPU %u: KVM refuses it", vcpu->index);
    return load_msrs(v, s, false, error) && load_msrs(v, s, true, error);
}

/* --- chips --- */

bool kvm_save(struct accel *accel, GByteArray *out, GError **error)
{
    struct kvm_accel *a = to_kvm(accel);
    g_autofree struct saved_chips *s = g_new0(struct saved_chips, 1);
    struct kvm_clock_data clock = a->stopped_clock;
    s->has_pit = a->pit;
    for (unsigned i = 0; i < ARRAY_COUNT(s->chips.chip); i++) {
        s->chips.chip[i].chip_id = i;
        if (ioctl(a->vm_fd, KVM_GET_IRQCHIP, &s->chips.chip[i]) < 0)
            return ruche_error_errno(error, errno,
                                     "kvm: cannot read the state of interrupt controller %u", i);
    }
    if (a->pit && ioctl(a->vm_fd, KVM_GET_PIT2, &s->chips.pit) < 0)
        return ruche_error_errno(error, errno, "kvm: cannot read the state of the PIT");
    if (!a->stopped_tsc && ioctl(a->vm_fd, KVM_GET_CLOCK, &clock) < 0)
        clock.clock = 0;
    s->clock_ns = clock.clock;
    state_fields_save(chips_fields, s, out);
    return true;
}

bool kvm_load(struct accel *accel, struct cur *in, GError **error)
{
    struct kvm_accel *a = to_kvm(accel);
    g_autofree struct saved_chips *s = g_new0(struct saved_chips, 1);
    if (!state_fields_load(chips_fields, s, "accelerator 'kvm'", in, error))
        return false;
    if (s->has_pit != a->pit)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "state of accelerator 'kvm': it has %s PIT, and here is %s",
                           s->has_pit ? "a" : "no", a->pit ? "one" : "none");
    for (unsigned i = 0; i < ARRAY_COUNT(s->chips.chip); i++) {
        s->chips.chip[i].chip_id = i;
        if (ioctl(a->vm_fd, KVM_SET_IRQCHIP, &s->chips.chip[i]) < 0)
            return ruche_error_errno(
                error, errno, "state of accelerator 'kvm': interrupt controller %u is refused", i);
    }
    if (a->pit && ioctl(a->vm_fd, KVM_SET_PIT2, &s->chips.pit) < 0)
        return ruche_error_errno(error, errno, "state of accelerator 'kvm': the PIT is refused");
    a->stopped_clock = (struct kvm_clock_data){.clock = s->clock_ns};
    struct kvm_clock_data now = a->stopped_clock;
    ioctl(a->vm_fd, KVM_SET_CLOCK, &now); /* what clock pages hold counts from it */
    return true;
}
