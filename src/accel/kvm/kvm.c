/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The `kvm` accelerator: is it there, what does it rest on, make the virtual machine.
 *
 * Spec      Linux Documentation/virt/kvm/api.rst.
 * Thread    Main.
 */
#include "accel/kvm/kvm.h"
#include "base/fd.h"

#include <cpuid.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <x86intrin.h>

#define KVM_DEVICE "/dev/kvm"

/* What we cannot do without. */
static const struct {
    int cap;
    const char *name;
} needed_caps[] = {
    { KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY" },
    { KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP" },
    { KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING" },
    { KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI" },
    { KVM_CAP_IRQFD, "KVM_CAP_IRQFD" },
    { KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD" },
    { KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT" },
    { KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR" },
    { KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID" },
    { KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE" },
    { KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS" },
    { KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS" },
    { KVM_CAP_XSAVE, "KVM_CAP_XSAVE" },
    { KVM_CAP_XCRS, "KVM_CAP_XCRS" },
};

static const char *hardware_name(void)
{
    unsigned a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d) && (c & 1u << 5))
        return "Intel VMX";
    if (__get_cpuid(0x80000001, &a, &b, &c, &d) && (c & 1u << 2))
        return "AMD SVM";
    return NULL;
}

static char *why_not_open(int err)
{
    if (err == ENOENT || err == ENXIO || err == ENODEV)
        return g_strdup("this host has no " KVM_DEVICE);
    if (err == EACCES || err == EPERM)
        return g_strdup("no permission to open " KVM_DEVICE " (is the user in the group 'kvm'?)");
    return g_strdup_printf("cannot open " KVM_DEVICE ": %s", g_strerror(err));
}

static bool kvm_probe(bool by_name, char **ret_why)
{
    autofd fd = open(KVM_DEVICE, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        *ret_why = why_not_open(errno);
        return false;
    }
    if (ioctl(fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
        *ret_why = g_strdup_printf(KVM_DEVICE " speaks API version %d, and %d is needed",
                                   ioctl(fd, KVM_GET_API_VERSION, 0), KVM_API_VERSION);
        return false;
    }
    const char *hardware = hardware_name();
    if (hardware) {
        *ret_why = g_strdup_printf(KVM_DEVICE " rests on %s", hardware);
        return true;
    }
    *ret_why =
        g_strdup(by_name ? KVM_DEVICE " was named, a KVM in software (no VMX, no SVM)"
                         : KVM_DEVICE " is a KVM in software (no VMX, no SVM), which is only taken "
                                      "for '-accel kvm'");
    return by_name;
}

static bool check_caps(int sys_fd, GError **error)
{
    for (size_t i = 0; i < ARRAY_COUNT(needed_caps); i++) {
        if (ioctl(sys_fd, KVM_CHECK_EXTENSION, needed_caps[i].cap) <= 0) {
            return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "kvm: the host's kernel lacks %s",
                               needed_caps[i].name);
        }
    }
    return true;
}

static bool open_vm(struct kvm_accel *a, GError **error)
{
    a->sys_fd = open(KVM_DEVICE, O_RDWR | O_CLOEXEC);
    if (a->sys_fd < 0) {
        g_autofree char *why = why_not_open(errno);
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "kvm: %s", why);
    }
    if (!check_caps(a->sys_fd, error))
        return false;
    int bytes = ioctl(a->sys_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (bytes < (int)sizeof(struct kvm_run))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "kvm: a vCPU's shared page has %d bytes",
                           bytes);
    a->run_bytes = (size_t)bytes;
    do
        a->vm_fd = ioctl(a->sys_fd, KVM_CREATE_VM, 0);
    while (a->vm_fd < 0 && errno == EINTR);
    if (a->vm_fd < 0)
        return ruche_error_errno(error, errno, "kvm: cannot make a virtual machine");
    return true;
}

/* Emulation failures come to us, in user mode and for every instruction, before KVM makes a #UD of
 * them. */
static void want_failures(struct kvm_accel *a)
{
    struct kvm_enable_cap cap = { .cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE, .args = { 1 } };
    ioctl(a->vm_fd, KVM_ENABLE_CAP, &cap);
}

static bool make_chips(struct kvm_accel *a, GError **error)
{
    uint64_t identity = KVM_IDENTITY_GPA;
    if (ioctl(a->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 ||
        ioctl(a->vm_fd, KVM_SET_TSS_ADDR, KVM_TSS_GPA) < 0)
        return ruche_error_errno(error, errno, "kvm: cannot place its own pages at 0x%x",
                                 KVM_IDENTITY_GPA);
    if (ioctl(a->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
        return ruche_error_errno(error, errno, "kvm: cannot make the interrupt controllers");
    struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
    if (a->pit && ioctl(a->vm_fd, KVM_CREATE_PIT2, &pit) < 0)
        return ruche_error_errno(error, errno, "kvm: cannot make the PIT");
    int err = kvm_irq_init(a);
    if (err)
        return ruche_error_errno(error, -err, "kvm: cannot set up the interrupt routes");
    return true;
}

static void kvm_destroy(struct accel *accel)
{
    if (!accel)
        return;
    struct kvm_accel *a = to_kvm(accel);
    cpu_shared_free(a->shared);
    fd_close_keep_errno(a->vm_fd);
    fd_close_keep_errno(a->sys_fd);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

static struct accel *kvm_create(const struct accel_host *host, const struct cpu_model *model,
                                const struct cpu_topology *topology, uint64_t ram_bytes, bool pit,
                                GError **error)
{
    struct kvm_accel *a = calloc(1, sizeof(*a));
    if (!a) {
        ruche_error(error, RUCHE_ERR_NO_SPACE, "kvm: no memory");
        return NULL;
    }
    a->sys_fd = a->vm_fd = -1;
    pthread_mutex_init(&a->lock, NULL);
    a->base.host = host;
    a->model = model;
    a->topology = *topology;
    a->ram_bytes = ram_bytes;
    a->pit = pit;
    if (!open_vm(a, error) || !make_chips(a, error)) {
        kvm_destroy(&a->base);
        return NULL;
    }
    want_failures(a);
    a->readonly_memory = ioctl(a->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_READONLY_MEM) > 0;
    a->any_length_eventfds = ioctl(a->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_IOEVENTFD_ANY_LENGTH) > 0;
    return &a->base;
}

/* KVM's TSC offset of one vCPU; on kernels without it the guest sees the host's time pass. */
static void move_tsc(struct kvm_vcpu *v, int64_t delta)
{
    int64_t offset;
    struct kvm_device_attr attr = { .group = KVM_VCPU_TSC_CTRL,
                                    .attr = KVM_VCPU_TSC_OFFSET,
                                    .addr = (uintptr_t)&offset };
    if (ioctl(v->fd, KVM_GET_DEVICE_ATTR, &attr) < 0)
        return;
    offset += delta;
    ioctl(v->fd, KVM_SET_DEVICE_ATTR, &attr);
}

static void kvm_clock_stopped(struct accel *accel, bool stopped)
{
    struct kvm_accel *a = to_kvm(accel);
    if (stopped == (a->stopped_tsc != 0))
        return;
    if (stopped) {
        if (ioctl(a->vm_fd, KVM_GET_CLOCK, &a->stopped_clock) < 0)
            a->stopped_clock.clock = 0;
        a->stopped_tsc = __rdtsc();
        return;
    }
    int64_t gained = (int64_t)(__rdtsc() - a->stopped_tsc);
    a->stopped_tsc = 0;
    for (unsigned i = 0; i < KVM_MAX_VCPUS; i++) {
        if (a->vcpus[i])
            move_tsc(a->vcpus[i], -gained);
    }
    struct kvm_clock_data clock = { .clock = a->stopped_clock.clock };
    if (clock.clock)
        ioctl(a->vm_fd, KVM_SET_CLOCK, &clock);
    for (unsigned i = 0; i < KVM_MAX_VCPUS; i++) {
        if (a->vcpus[i])
            ioctl(a->vcpus[i]->fd, KVM_KVMCLOCK_CTRL,
                  0); /* tells a guest's watchdog that we paused it */
    }
}

static const struct cpu_stats *kvm_vcpu_stats(struct vcpu *vcpu)
{
    struct kvm_vcpu *v = to_kvm_vcpu(vcpu);
    return v->cpu ? cpu_get_stats(v->cpu) : NULL;
}

static const struct accel_ops kvm_accel = {
    .name = "kvm",
    .summary = "the host kernel's KVM, on VMX or SVM",
    .kernel_irqchip = true,
    .probe = kvm_probe,
    .create = kvm_create,
    .destroy = kvm_destroy,
    .set_slots = kvm_set_slots,
    .set_eventfds = kvm_set_eventfds,
    .dirty_log = kvm_dirty_log,
    .dirty_sync = kvm_dirty_sync,
    .gsi = kvm_gsi,
    .msi = kvm_msi,
    .irqfd_add = kvm_irqfd_add,
    .irqfd_update = kvm_irqfd_update,
    .irqfd_remove = kvm_irqfd_remove,
    .vcpu_new = kvm_vcpu_new,
    .vcpu_free = kvm_vcpu_free,
    .vcpu_run = kvm_vcpu_run,
    .vcpu_kick = kvm_vcpu_kick,
    .vcpu_signal = kvm_vcpu_signal,
    .vcpu_reset = kvm_vcpu_reset,
    .vcpu_get_state = kvm_vcpu_get_state,
    .vcpu_set_state = kvm_vcpu_set_state,
    .vcpu_save = kvm_vcpu_save,
    .vcpu_load = kvm_vcpu_load,
    .save = kvm_save,
    .load = kvm_load,
    .vcpu_error = kvm_vcpu_error,
    .vcpu_stats = kvm_vcpu_stats,
    .clock_stopped = kvm_clock_stopped,
};
ACCEL_TYPE(kvm_accel);
