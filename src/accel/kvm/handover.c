/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The instruction that KVM cannot emulate is executed by the software CPU.
 *
 * The vCPU's whole state goes into a software CPU that shares the guest's RAM, one instruction is
 * executed there (or one exception delivered: INT3 ends in its handler), and what changed goes back
 * to KVM. Interrupts are not taken in between: KVM's APIC delivers them afterwards, under the
 * interrupt shadow that was handed back. cpu_step() decodes afresh, so that it does not matter what
 * the guest wrote under KVM meanwhile.
 *
 * Thread    The vCPU's own. `lock` guards the making of what all software CPUs share.
 * Trust     The state is the guest's; cpu_step() takes any.
 */
#include "accel/kvm/kvm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

static struct cpu_phys cb_translate(void *opaque, uint64_t gpa)
{
    const struct accel_host *host = ((struct kvm_vcpu *)opaque)->base.accel->host;
    return host->translate(host->opaque, gpa);
}

static uint64_t cb_mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
    struct vcpu *v = &((struct kvm_vcpu *)opaque)->base;
    return v->accel->host->mmio_read(v->accel->host->opaque, v, gpa, size);
}

static void cb_mmio_write(void *opaque, uint64_t gpa, uint64_t val, unsigned size)
{
    struct vcpu *v = &((struct kvm_vcpu *)opaque)->base;
    v->accel->host->mmio_write(v->accel->host->opaque, v, gpa, val, size);
}

static uint64_t cb_io_read(void *opaque, uint16_t port, unsigned size)
{
    struct vcpu *v = &((struct kvm_vcpu *)opaque)->base;
    return v->accel->host->io_read(v->accel->host->opaque, v, port, size);
}

static void cb_io_write(void *opaque, uint16_t port, uint64_t val, unsigned size)
{
    struct vcpu *v = &((struct kvm_vcpu *)opaque)->base;
    v->accel->host->io_write(v->accel->host->opaque, v, port, val, size);
}

/* The APIC is KVM's: it delivers, and it holds the registers. */
static int cb_irq_ack(void *opaque)
{
    return -1;
}

static uint64_t cb_tpr_read(void *opaque)
{
    return ((struct kvm_vcpu *)opaque)->arch.cr8;
}

static void cb_tpr_write(void *opaque, uint64_t cr8)
{
    ((struct kvm_vcpu *)opaque)->arch.cr8 = cr8;
}

static int cb_apic_msr_read(void *opaque, uint32_t msr, uint64_t *ret_val)
{
    struct kvm_vcpu *v = opaque;
    struct kvm_msr_block one = { .head.nmsrs = 1, .entries[0].index = msr };
    if (ioctl(v->fd, KVM_GET_MSRS, &one) != 1)
        return -1;
    *ret_val = one.entries[0].data;
    return 0;
}

static int cb_apic_msr_write(void *opaque, uint32_t msr, uint64_t val)
{
    struct kvm_vcpu *v = opaque;
    struct kvm_msr_block one = { .head.nmsrs = 1, .entries[0] = { .index = msr, .data = val } };
    return ioctl(v->fd, KVM_SET_MSRS, &one) == 1 ? 0 : -1;
}

static const struct cpu_callbacks callbacks = {
    .translate = cb_translate,
    .mmio_read = cb_mmio_read,
    .mmio_write = cb_mmio_write,
    .io_read = cb_io_read,
    .io_write = cb_io_write,
    .irq_ack = cb_irq_ack,
    .tpr_read = cb_tpr_read,
    .tpr_write = cb_tpr_write,
    .apic_msr_read = cb_apic_msr_read,
    .apic_msr_write = cb_apic_msr_write,
};

static bool make_cpu(struct kvm_vcpu *v)
{
    struct kvm_accel *a = to_kvm(v->base.accel);
    if (v->cpu)
        return true;
    pthread_mutex_lock(&a->lock);
    if (!a->shared)
        a->shared = cpu_shared_new(a->model, &a->topology, a->ram_bytes);
    if (a->shared && a->dirty_bits)
        cpu_shared_set_dirty(a->shared, a->dirty_bits, a->dirty_pages);
    pthread_mutex_unlock(&a->lock);
    if (a->shared)
        v->cpu = cpu_new(a->shared, v->base.index, &callbacks, v);
    return v->cpu != NULL;
}

void kvm_hand_over_done(struct kvm_vcpu *v)
{
    cpu_free(v->cpu);
    v->cpu = NULL;
}

static bool fail(struct kvm_vcpu *v, const char *what, const char *why)
{
    snprintf(v->error, sizeof(v->error),
             "vCPU %u: KVM cannot emulate the instruction at 0x%llx, and %s%s%s", v->base.index,
             (unsigned long long)v->before.regs.rip, what, why ? ": " : "", why ? why : "");
    return false;
}

static void load(struct kvm_vcpu *v)
{
    /* A kernel that cannot only report the failure has also made a #UD of it. */
    if (v->before.events.exception.nr == 6) {
        v->before.events.exception.injected = 0;
        v->before.events.exception.pending = 0;
    }
    kvm_state_to_arch(&v->before, &v->arch);
    cpu_set_state(v->cpu, &v->arch);
}

static int store(struct kvm_vcpu *v)
{
    uint64_t tsc = v->arch.tsc, cr8 = v->arch.cr8;
    cpu_get_state(v->cpu, &v->arch);
    v->arch.tsc = tsc; /* it goes on by itself, unless the instruction wrote it */
    v->arch.cr8 = cr8;
    v->arch.apic_base = v->before.sregs.apic_base;
    v->after = v->before;
    kvm_state_from_arch(&v->after, &v->arch);
    return kvm_state_write(v, &v->after, &v->before);
}

bool kvm_hand_over(struct kvm_vcpu *v, enum vcpu_exit *ret_exit)
{
    *ret_exit = VCPU_EXIT_ERROR;
    if (kvm_state_read(v, &v->before) < 0)
        return fail(v, "its state cannot be read", NULL);
    if (!make_cpu(v))
        return fail(v, "there is no memory for the software CPU", NULL);
    load(v);
    enum cpu_exit how = cpu_step(v->cpu);
    v->base.emulated++;
    kvm_count(&v->base.accel->stats.emulated);
    if (how == CPU_EXIT_SHUTDOWN) {
        *ret_exit = VCPU_EXIT_SHUTDOWN;
        return false;
    }
    if (how == CPU_EXIT_ERROR)
        return fail(v, "the software CPU failed", cpu_run_error(v->cpu));
    int err = store(v);
    if (err)
        return fail(v, "its new state is refused", strerror(-err));
    return true;
}
