/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A vCPU of KVM: made, run, kicked, reset.
 *
 * Spec      Linux Documentation/virt/kvm/api.rst: KVM_RUN and struct kvm_run.
 * Thread    kvm_vcpu_run(): the vCPU's own. kvm_vcpu_kick(), kvm_vcpu_signal(): any. The rest:
 *           main, with the vCPU not running.
 * Kicks     The kicker sets `kicked`, then immediate_exit, then sends SIGUSR1; the vCPU clears
 *           immediate_exit, then looks at `kicked`. So a kick before, in or after KVM_RUN is seen.
 */
#include "accel/kvm/kvm.h"
#include "base/fd.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define KICK_SIGNAL SIGUSR1

#define ICR_NMI 0x400u
#define ICR_INIT 0x4500u /* INIT, assert */
#define ICR_SIPI 0x4600u
#define MSI_BASE 0xfee00000u

/* MSRs that make KVM write guest memory or fire timers: off at reset. */
static const uint32_t reset_to_zero[] = { 0x11,       0x12,       0x6e0,      0x4b564d00,
                                          0x4b564d01, 0x4b564d02, 0x4b564d03, 0x4b564d04 };

static void on_kick_signal(int number)
{
}

static void install_kick_signal(void)
{
    struct sigaction action = { .sa_handler = on_kick_signal };
    sigemptyset(&action.sa_mask);
    sigaction(KICK_SIGNAL, &action, NULL);
}

static bool remember_power_on(struct kvm_vcpu *v)
{
    v->power_on = calloc(1, sizeof(*v->power_on));
    if (!v->power_on || kvm_state_read(v, v->power_on) < 0)
        return false;
    v->power_on->mp.mp_state = v->base.index ? KVM_MP_STATE_UNINITIALIZED : KVM_MP_STATE_RUNNABLE;
    return ioctl(v->fd, KVM_GET_LAPIC, &v->power_on_apic) == 0;
}

static bool open_vcpu(struct kvm_vcpu *v, GError **error)
{
    struct kvm_accel *a = to_kvm(v->base.accel);
    v->fd = ioctl(a->vm_fd, KVM_CREATE_VCPU, (unsigned long)v->base.apic_id);
    if (v->fd < 0)
        return ruche_error_errno(error, errno, "kvm: cannot make vCPU %u", v->base.index);
    void *run = mmap(NULL, a->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    if (run == MAP_FAILED)
        return ruche_error_errno(error, errno, "kvm: cannot map vCPU %u", v->base.index);
    v->run = run;
    if (!a->state_msr_count)
        kvm_find_state_msrs(a, v->fd);
    if (!kvm_set_cpuid(v, error))
        return false;
    if (!remember_power_on(v))
        return ruche_error_errno(error, errno, "kvm: cannot read the state of vCPU %u",
                                 v->base.index);
    return true;
}

struct vcpu *kvm_vcpu_new(struct accel *accel, unsigned index, GError **error)
{
    struct kvm_accel *a = to_kvm(accel);
    struct kvm_vcpu *v = NULL;
    if (index >= KVM_MAX_VCPUS || posix_memalign((void **)&v, 64, sizeof(*v))) {
        ruche_error(error, RUCHE_ERR_NO_SPACE, "kvm: no memory for vCPU %u", index);
        return NULL;
    }
    memset(v, 0, sizeof(*v));
    v->base.accel = accel;
    v->base.index = index;
    v->base.apic_id = cpu_topology_apic_id(&a->topology, index);
    v->fd = -1;
    install_kick_signal();
    if (!open_vcpu(v, error)) {
        kvm_vcpu_free(&v->base);
        return NULL;
    }
    a->vcpus[index] = v;
    return &v->base;
}

void kvm_vcpu_free(struct vcpu *vcpu)
{
    if (!vcpu)
        return;
    struct kvm_vcpu *v = to_kvm_vcpu(vcpu);
    struct kvm_accel *a = to_kvm(vcpu->accel);
    a->vcpus[vcpu->index] = NULL;
    kvm_hand_over_done(v);
    if (v->run)
        munmap(v->run, a->run_bytes);
    fd_close_keep_errno(v->fd);
    free(v->power_on);
    free(v);
}

/* --- exits --- */

static void do_io(struct kvm_vcpu *v)
{
    const struct accel_host *host = v->base.accel->host;
    uint8_t *data = (uint8_t *)v->run + v->run->io.data_offset;
    unsigned size = v->run->io.size;
    kvm_count(&v->base.accel->stats.pio);
    for (uint32_t i = 0; i < v->run->io.count; i++, data += size) {
        uint64_t val = 0;
        if (v->run->io.direction == KVM_EXIT_IO_OUT) {
            memcpy(&val, data, size);
            host->io_write(host->opaque, &v->base, v->run->io.port, val, size);
        } else {
            val = host->io_read(host->opaque, &v->base, v->run->io.port, size);
            memcpy(data, &val, size);
        }
    }
    v->completing = true;
}

static void do_mmio(struct kvm_vcpu *v)
{
    const struct accel_host *host = v->base.accel->host;
    uint64_t val = 0;
    unsigned size = v->run->mmio.len;
    kvm_count(&v->base.accel->stats.mmio);
    if (v->run->mmio.is_write) {
        memcpy(&val, v->run->mmio.data, size);
        host->mmio_write(host->opaque, &v->base, v->run->mmio.phys_addr, val, size);
    } else {
        val = host->mmio_read(host->opaque, &v->base, v->run->mmio.phys_addr, size);
        memcpy(v->run->mmio.data, &val, size);
    }
    v->completing = true;
}

static bool failed_entry(struct kvm_vcpu *v)
{
    snprintf(v->error, sizeof(v->error),
             "vCPU %u: the processor refused to enter the guest, reason 0x%llx", v->base.index,
             (unsigned long long)v->run->fail_entry.hardware_entry_failure_reason);
    return false;
}

static bool unknown_exit(struct kvm_vcpu *v)
{
    uint32_t reason = v->run->exit_reason;
    struct kvm_regs regs = { 0 };
    ioctl(v->fd, KVM_GET_REGS, &regs);
    snprintf(v->error, sizeof(v->error), "vCPU %u: KVM stopped at 0x%llx with exit reason %u%s%u",
             v->base.index, (unsigned long long)regs.rip, reason,
             reason == KVM_EXIT_INTERNAL_ERROR ? ", suberror " : ", flags ",
             reason == KVM_EXIT_INTERNAL_ERROR ? v->run->internal.suberror : v->run->flags);
    return false;
}

/* True: run on. False: *ret_exit says why not. */
static bool handle_exit(struct kvm_vcpu *v, enum vcpu_exit *ret_exit)
{
    *ret_exit = VCPU_EXIT_ERROR;
    kvm_count(&v->base.accel->stats.exits);
    switch (v->run->exit_reason) {
    case KVM_EXIT_IO:
        do_io(v);
        return true;
    case KVM_EXIT_MMIO:
        do_mmio(v);
        return true;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_HLT:
        return true;
    case KVM_EXIT_SHUTDOWN:
        *ret_exit = VCPU_EXIT_SHUTDOWN;
        return false;
    case KVM_EXIT_INTERNAL_ERROR:
        if (v->run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION)
            return kvm_hand_over(v, ret_exit);
        return unknown_exit(v);
    case KVM_EXIT_FAIL_ENTRY:
        return failed_entry(v);
    default:
        return unknown_exit(v);
    }
}

static bool enter(struct kvm_vcpu *v, enum vcpu_exit *ret_exit)
{
    int err = ioctl(v->fd, KVM_RUN, 0) < 0 ? errno : 0;
    v->completing = false;
    if (!err)
        return handle_exit(v, ret_exit);
    if (err == EINTR || err == EAGAIN)
        return true;
    snprintf(v->error, sizeof(v->error), "vCPU %u: KVM_RUN failed: %s", v->base.index,
             strerror(err));
    *ret_exit = VCPU_EXIT_ERROR;
    return false;
}

/* KVM applies the result of an access at the next KVM_RUN, which may ask for the access's next
 * part. */
void kvm_vcpu_finish_access(struct kvm_vcpu *v)
{
    enum vcpu_exit ignored;
    for (int parts = 0; v->completing && parts < 8192; parts++) {
        v->run->immediate_exit = 1;
        if (!enter(v, &ignored))
            break;
    }
    v->run->immediate_exit = 0;
}

static void unblock_kick_signal(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

enum vcpu_exit kvm_vcpu_run(struct vcpu *vcpu)
{
    struct kvm_vcpu *v = to_kvm_vcpu(vcpu);
    enum vcpu_exit how;
    current_vcpu = vcpu;
    if (!vcpu->thread_id) {
        unblock_kick_signal();
        __atomic_store_n(&vcpu->thread_id, gettid(), __ATOMIC_SEQ_CST);
    }
    for (;;) {
        __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        if (atomic_exchange(&v->kicked, false)) {
            kvm_vcpu_finish_access(v);
            return VCPU_EXIT_KICK;
        }
        if (!enter(v, &how))
            return how;
    }
}

void kvm_vcpu_kick(struct vcpu *vcpu)
{
    struct kvm_vcpu *v = to_kvm_vcpu(vcpu);
    atomic_store(&v->kicked, true);
    __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    int thread = __atomic_load_n(&vcpu->thread_id, __ATOMIC_SEQ_CST);
    if (thread)
        syscall(SYS_tgkill, getpid(), thread, KICK_SIGNAL);
}

/* As a message to the vCPU's APIC, which takes it whatever the vCPU does. */
void kvm_vcpu_signal(struct vcpu *vcpu, enum vcpu_signal_kind kind, uint8_t vector)
{
    static const uint32_t messages[] = {
        [VCPU_SIGNAL_NMI] = ICR_NMI,
        [VCPU_SIGNAL_INIT] = ICR_INIT,
        [VCPU_SIGNAL_SIPI] = ICR_SIPI,
        [VCPU_SIGNAL_SMI] = 0,
    };
    if (kind < ARRAY_COUNT(messages) && messages[kind])
        kvm_msi(vcpu->accel, MSI_BASE | vcpu->apic_id << 12, messages[kind] | vector);
}

static void write_zero_msrs(struct kvm_vcpu *v)
{
    for (size_t i = 0; i < ARRAY_COUNT(reset_to_zero); i++) {
        struct kvm_msr_block one = { .head.nmsrs = 1, .entries[0].index = reset_to_zero[i] };
        ioctl(v->fd, KVM_SET_MSRS, &one);
    }
}

/* The chips are reset with the first vCPU. The TSC runs on. */
void kvm_vcpu_reset(struct vcpu *vcpu)
{
    struct kvm_vcpu *v = to_kvm_vcpu(vcpu);
    if (vcpu->index == 0)
        kvm_irq_reset(to_kvm(vcpu->accel));
    kvm_vcpu_finish_access(v);
    write_zero_msrs(v);
    if (kvm_state_read(v, &v->before) < 0)
        return;
    struct kvm_msr_block *msrs = &v->power_on->msrs;
    for (unsigned i = 0; i < msrs->head.nmsrs; i++) {
        if (msrs->entries[i].index == 0x10)
            msrs->entries[i].data = v->before.msrs.entries[i].data;
    }
    kvm_state_write(v, v->power_on, &v->before);
    ioctl(v->fd, KVM_SET_LAPIC, &v->power_on_apic);
    vcpu->halted = false;
}

const char *kvm_vcpu_error(struct vcpu *vcpu)
{
    return to_kvm_vcpu(vcpu)->error;
}
