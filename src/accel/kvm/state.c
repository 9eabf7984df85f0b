/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A vCPU's state: to and from KVM, and between KVM's form and cpu_arch_state.
 *
 * Spec      Linux Documentation/virt/kvm/api.rst; Intel SDM volume 1, 13.4 (XSAVE area).
 * Thread    The vCPU's own, or any while it does not run.
 * Errors    Negative errno of the first call that KVM refused.
 */
#include "accel/kvm/kvm.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#define MSR_TSC 0x10

#define XSAVE_BYTES 832u /* legacy region, header, YMM_Hi128 */
#define XSAVE_MXCSR 24u
#define XSAVE_XMM 160u
#define XSAVE_BV 512u
#define XSAVE_YMM 576u
#define MXCSR_INIT 0x1f80u
#define FCW_INIT 0x37fu

static const struct {
    uint32_t msr;
    size_t offset; /* in cpu_arch_state */
} state_msrs[] = {
    { 0x174, offsetof(struct cpu_arch_state, sysenter_cs) },
    { 0x175, offsetof(struct cpu_arch_state, sysenter_esp) },
    { 0x176, offsetof(struct cpu_arch_state, sysenter_eip) },
    { 0xc0000081, offsetof(struct cpu_arch_state, star) },
    { 0xc0000082, offsetof(struct cpu_arch_state, lstar) },
    { 0xc0000083, offsetof(struct cpu_arch_state, cstar) },
    { 0xc0000084, offsetof(struct cpu_arch_state, sfmask) },
    { 0xc0000102, offsetof(struct cpu_arch_state, kernel_gs_base) },
    { 0xc0000103, offsetof(struct cpu_arch_state, tsc_aux) },
    { 0x277, offsetof(struct cpu_arch_state, pat) },
    { 0xda0, offsetof(struct cpu_arch_state, xss) },
    { 0x1a0, offsetof(struct cpu_arch_state, misc_enable) },
    { 0x2ff, offsetof(struct cpu_arch_state, mtrr_def_type) },
    { MSR_TSC, offsetof(struct cpu_arch_state, tsc) },
};

void kvm_find_state_msrs(struct kvm_accel *a, int vcpu_fd)
{
    a->state_msr_count = 0;
    for (size_t i = 0; i < ARRAY_COUNT(state_msrs); i++) {
        struct kvm_msr_block one = { .head.nmsrs = 1, .entries[0].index = state_msrs[i].msr };
        if (ioctl(vcpu_fd, KVM_GET_MSRS, &one) == 1)
            a->state_msrs[a->state_msr_count++] = state_msrs[i].msr;
    }
}

static int read_msrs(struct kvm_vcpu *v, struct kvm_msr_block *ret)
{
    struct kvm_accel *a = to_kvm(v->base.accel);
    ret->head.nmsrs = a->state_msr_count;
    for (unsigned i = 0; i < a->state_msr_count; i++)
        ret->entries[i] = (struct kvm_msr_entry){ .index = a->state_msrs[i] };
    int got = ioctl(v->fd, KVM_GET_MSRS, ret);
    if (got < 0)
        return -errno;
    return (unsigned)got == a->state_msr_count ? 0 : -EIO;
}

#define PART(request_get, request_set, field)                                                      \
    {                                                                                              \
        request_get, request_set, offsetof(struct kvm_state, field),                               \
            sizeof(((struct kvm_state *)0)->field)                                                 \
    }

/* In the order in which they are written. */
static const struct {
    unsigned long get, set;
    size_t offset, size;
} parts[] = {
    PART(KVM_GET_REGS, KVM_SET_REGS, regs),
    PART(KVM_GET_SREGS, KVM_SET_SREGS, sregs),
    PART(KVM_GET_XCRS, KVM_SET_XCRS, xcrs),
    PART(KVM_GET_XSAVE, KVM_SET_XSAVE, xsave),
    PART(KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, debug),
    PART(KVM_GET_MP_STATE, KVM_SET_MP_STATE, mp),
    PART(KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, events),
};

int kvm_state_read(struct kvm_vcpu *v, struct kvm_state *ret)
{
    memset(ret, 0, sizeof(*ret));
    for (size_t i = 0; i < ARRAY_COUNT(parts); i++) {
        if (ioctl(v->fd, parts[i].get, (char *)ret + parts[i].offset) < 0)
            return -errno;
    }
    return read_msrs(v, &ret->msrs);
}

static int write_msrs(struct kvm_vcpu *v, const struct kvm_msr_block *s,
                      const struct kvm_msr_block *old)
{
    for (unsigned i = 0; i < s->head.nmsrs; i++) {
        if (old && old->entries[i].data == s->entries[i].data)
            continue;
        struct kvm_msr_block one = { .head.nmsrs = 1, .entries[0] = s->entries[i] };
        if (ioctl(v->fd, KVM_SET_MSRS, &one) != 1)
            return -EINVAL;
    }
    return 0;
}

int kvm_state_write(struct kvm_vcpu *v, const struct kvm_state *s, const struct kvm_state *old)
{
    for (size_t i = 0; i < ARRAY_COUNT(parts); i++) {
        size_t at = parts[i].offset;
        if (old && !memcmp((const char *)s + at, (const char *)old + at, parts[i].size))
            continue;
        if (ioctl(v->fd, parts[i].set, (const char *)s + at) < 0)
            return -errno;
    }
    return write_msrs(v, &s->msrs, old ? &old->msrs : NULL);
}

/* --- conversions --- */

static struct cpu_segment segment_of(const struct kvm_segment *k)
{
    return (struct cpu_segment){
        .base = k->base,
        .limit = k->limit,
        .selector = k->selector,
        .type = k->type,
        .dpl = k->dpl,
        .s = k->s,
        .present = k->present,
        .avl = k->avl,
        .l = k->l,
        .db = k->db,
        .g = k->g,
        .unusable = k->unusable,
    };
}

static struct kvm_segment segment_to(const struct cpu_segment *c)
{
    return (struct kvm_segment){
        .base = c->base,
        .limit = c->limit,
        .selector = c->selector,
        .type = c->type,
        .dpl = c->dpl,
        .s = c->s,
        .present = c->present,
        .avl = c->avl,
        .l = c->l,
        .db = c->db,
        .g = c->g,
        .unusable = c->unusable,
    };
}

/* kvm_regs in encoding order. */
#define FOR_EACH_GPR(X)                                                                            \
    X(0, rax)                                                                                      \
    X(1, rcx) X(2, rdx) X(3, rbx) X(4, rsp) X(5, rbp) X(6, rsi) X(7, rdi) X(8, r8) X(9, r9)        \
        X(10, r10) X(11, r11) X(12, r12) X(13, r13) X(14, r14) X(15, r15)

#define FOR_EACH_SEGMENT(X) X(0, es) X(1, cs) X(2, ss) X(3, ds) X(4, fs) X(5, gs)

/* Components that XSTATE_BV says are in their initial state need not be in memory: puts them there.
 */
static void xsave_to_arch(const struct kvm_xsave *k, uint8_t *ret)
{
    memcpy(ret, k->region, XSAVE_BYTES);
    memset(ret + XSAVE_BYTES, 0, sizeof(((struct cpu_arch_state *)0)->xsave) - XSAVE_BYTES);
    uint64_t bv;
    memcpy(&bv, ret + XSAVE_BV, sizeof(bv));
    if (!(bv & 1)) {
        memset(ret, 0, XSAVE_MXCSR);
        memset(ret + 32, 0, XSAVE_XMM - 32);
        memcpy(ret, &(uint16_t){ FCW_INIT }, 2);
    }
    if (!(bv & 2))
        memset(ret + XSAVE_XMM, 0, 256);
    if (!(bv & 4))
        memset(ret + XSAVE_YMM, 0, 256);
    uint32_t mxcsr;
    memcpy(&mxcsr, ret + XSAVE_MXCSR, sizeof(mxcsr));
    if (!(bv & 6) && !mxcsr)
        memcpy(ret + XSAVE_MXCSR, &(uint32_t){ MXCSR_INIT }, sizeof(mxcsr));
    bv = 7;
    memcpy(ret + XSAVE_BV, &bv, sizeof(bv));
    memset(ret + XSAVE_BV + 8, 0, 56);
}

static bool all_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i])
            return false;
    }
    return true;
}

/* The components that cpu_arch_state does not know stay as they are in `k`. */
static void xsave_from_arch(struct kvm_xsave *k, const uint8_t *arch)
{
    uint8_t was[1024] __attribute__((aligned(8)));
    xsave_to_arch(k, was);
    if (!memcmp(was, arch, XSAVE_BV) &&
        !memcmp(was + XSAVE_YMM, arch + XSAVE_YMM, XSAVE_BYTES - XSAVE_YMM))
        return;
    uint8_t *to = (uint8_t *)k->region;
    uint64_t bv;
    memcpy(&bv, to + XSAVE_BV, sizeof(bv));
    memcpy(to, arch, XSAVE_BV);
    memcpy(to + XSAVE_YMM, arch + XSAVE_YMM, XSAVE_BYTES - XSAVE_YMM);
    bv = (bv & ~4ull) | 3 | (all_zero(arch + XSAVE_YMM, XSAVE_BYTES - XSAVE_YMM) ? 0 : 4);
    memcpy(to + XSAVE_BV, &bv, sizeof(bv));
}

static void sregs_to_arch(const struct kvm_sregs *s, struct cpu_arch_state *a)
{
#define X(n, name) a->seg[n] = segment_of(&s->name);
    FOR_EACH_SEGMENT(X)
#undef X
    a->ldtr = segment_of(&s->ldt);
    a->tr = segment_of(&s->tr);
    a->gdtr = (struct cpu_dtable){ s->gdt.base, s->gdt.limit };
    a->idtr = (struct cpu_dtable){ s->idt.base, s->idt.limit };
    a->cr0 = s->cr0;
    a->cr2 = s->cr2;
    a->cr3 = s->cr3;
    a->cr4 = s->cr4;
    a->cr8 = s->cr8;
    a->efer = s->efer;
    a->apic_base = s->apic_base;
}

static void sregs_from_arch(struct kvm_sregs *s, const struct cpu_arch_state *a)
{
#define X(n, name) s->name = segment_to(&a->seg[n]);
    FOR_EACH_SEGMENT(X)
#undef X
    s->ldt = segment_to(&a->ldtr);
    s->tr = segment_to(&a->tr);
    s->gdt.base = a->gdtr.base;
    s->gdt.limit = a->gdtr.limit;
    s->idt.base = a->idtr.base;
    s->idt.limit = a->idtr.limit;
    s->cr0 = a->cr0;
    s->cr2 = a->cr2;
    s->cr3 = a->cr3;
    s->cr4 = a->cr4;
    s->cr8 = a->cr8;
    s->efer = a->efer;
    s->apic_base = a->apic_base;
}

static uint64_t *msr_field(struct cpu_arch_state *a, uint32_t msr)
{
    for (size_t i = 0; i < ARRAY_COUNT(state_msrs); i++) {
        if (state_msrs[i].msr == msr)
            return (uint64_t *)((char *)a + state_msrs[i].offset);
    }
    return NULL;
}

void kvm_state_to_arch(const struct kvm_state *s, struct cpu_arch_state *ret)
{
    memset(ret, 0, sizeof(*ret));
#define X(n, name) ret->gpr[n] = s->regs.name;
    FOR_EACH_GPR(X)
#undef X
    ret->rip = s->regs.rip;
    ret->rflags = s->regs.rflags;
    sregs_to_arch(&s->sregs, ret);
    ret->xcr0 = s->xcrs.nr_xcrs ? s->xcrs.xcrs[0].value : 1;
    memcpy(ret->dr, s->debug.db, sizeof(s->debug.db));
    ret->dr[6] = s->debug.dr6;
    ret->dr[7] = s->debug.dr7;
    for (unsigned i = 0; i < s->msrs.head.nmsrs; i++) {
        uint64_t *field = msr_field(ret, s->msrs.entries[i].index);
        if (field)
            *field = s->msrs.entries[i].data;
    }
    ret->nmi_blocked = s->events.nmi.masked;
    ret->sti_shadow = s->events.interrupt.shadow & KVM_X86_SHADOW_INT_STI;
    ret->movss_shadow = s->events.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS;
    ret->halted = s->mp.mp_state == KVM_MP_STATE_HALTED;
    xsave_to_arch(&s->xsave, ret->xsave);
}

void kvm_state_from_arch(struct kvm_state *s, const struct cpu_arch_state *a)
{
#define X(n, name) s->regs.name = a->gpr[n];
    FOR_EACH_GPR(X)
#undef X
    s->regs.rip = a->rip;
    s->regs.rflags = a->rflags;
    sregs_from_arch(&s->sregs, a);
    if (s->xcrs.nr_xcrs)
        s->xcrs.xcrs[0].value = a->xcr0;
    memcpy(s->debug.db, a->dr, sizeof(s->debug.db));
    s->debug.dr6 = a->dr[6];
    s->debug.dr7 = a->dr[7];
    for (unsigned i = 0; i < s->msrs.head.nmsrs; i++) {
        const uint64_t *field = msr_field((struct cpu_arch_state *)a, s->msrs.entries[i].index);
        if (field)
            s->msrs.entries[i].data = *field;
    }
    s->events.nmi.masked = a->nmi_blocked;
    s->events.interrupt.shadow = (a->sti_shadow ? KVM_X86_SHADOW_INT_STI : 0) |
                                 (a->movss_shadow ? KVM_X86_SHADOW_INT_MOV_SS : 0);
    if (a->halted)
        s->mp.mp_state = KVM_MP_STATE_HALTED;
    else if (s->mp.mp_state == KVM_MP_STATE_HALTED)
        s->mp.mp_state = KVM_MP_STATE_RUNNABLE;
    xsave_from_arch(&s->xsave, a->xsave);
}

bool kvm_vcpu_get_state(struct vcpu *vcpu, struct cpu_arch_state *ret)
{
    struct kvm_vcpu *v = to_kvm_vcpu(vcpu);
    kvm_vcpu_finish_access(v);
    if (kvm_state_read(v, &v->before) < 0)
        return false;
    kvm_state_to_arch(&v->before, ret);
    return true;
}

/* A TSC read from this vCPU less than a second ago is no order to turn its clock back by that
 * moment. */
bool kvm_vcpu_set_state(struct vcpu *vcpu, const struct cpu_arch_state *s)
{
    struct kvm_vcpu *v = to_kvm_vcpu(vcpu);
    kvm_vcpu_finish_access(v);
    if (kvm_state_read(v, &v->before) < 0)
        return false;
    v->after = v->before;
    kvm_state_to_arch(&v->before, &v->arch);
    uint64_t now = v->arch.tsc, khz = (uint64_t)ioctl(v->fd, KVM_GET_TSC_KHZ, 0);
    v->arch = *s;
    if (now - s->tsc < khz * 1000)
        v->arch.tsc = now;
    kvm_state_from_arch(&v->after, &v->arch);
    return kvm_state_write(v, &v->after, &v->before) == 0;
}
