/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The `kvm` accelerator: what its files share.
 *
 * Spec      Linux Documentation/virt/kvm/api.rst.
 * Owner     kvm_accel: kvm_create() to kvm_destroy(). kvm_vcpu: kvm_vcpu_new() to kvm_vcpu_free().
 * Thread    As accel.h says for each operation; locks are named at the fields.
 * Trust     Exits carry what the guest chose: addresses, ports, sizes, counts.
 */
#pragma once

#include "accel/accel.h"
#include "base/util.h"

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#define KVM_FIRST_MSI_GSI 24
#define KVM_MAX_ROUTES 1024
#define KVM_MAX_SLOTS 128
#define KVM_MAX_EVENTFDS 1024
#define KVM_MAX_STATE_MSRS 24
#define KVM_MAX_VCPUS 256

/* The page that KVM keeps for its real-mode page tables, and its three TSS pages: between the APICs
 * and the firmware, where no board puts anything. */
#define KVM_IDENTITY_GPA 0xfeffc000u
#define KVM_TSS_GPA 0xfeffd000u

struct kvm_vcpu;

struct kvm_slot {
    struct accel_slot map; /* size 0: free */
};

struct kvm_eventfds {
    struct accel_eventfd fds[KVM_MAX_EVENTFDS];
    size_t count;
};

struct kvm_chips {
    struct kvm_irqchip chip[3]; /* as made: two PICs and the IOAPIC */
    struct kvm_pit_state2 pit;
};

struct kvm_accel {
    struct accel base;
    int sys_fd, vm_fd;
    size_t run_bytes; /* of a vCPU's shared page */
    bool pit, readonly_memory, any_length_eventfds;
    const struct cpu_model *model; /* borrowed: the machine's */
    struct cpu_topology topology;
    uint64_t ram_bytes;
    struct kvm_chips power_on;

    pthread_mutex_t lock; /* slots, eventfds, routes, shared */
    struct kvm_slot slots[KVM_MAX_SLOTS];
    struct kvm_eventfds memory_fds, port_fds;
    struct kvm_irq_routing_entry routes[KVM_MAX_ROUTES]; /* MSI routes, by number; gsi 0: free */
    _Atomic uint64_t *dirty_bits;  /* kvm_dirty_log(); NULL: writes are not logged */
    uint64_t dirty_pages;
    struct cpu_shared *shared; /* of the software CPUs; NULL until the first hand-over */

    struct kvm_vcpu *vcpus[KVM_MAX_VCPUS];
    struct kvm_clock_data stopped_clock;
    uint64_t stopped_tsc;                    /* host TSC when the clock stopped; 0: it runs */
    uint32_t state_msrs[KVM_MAX_STATE_MSRS]; /* those of cpu_arch_state that this KVM has */
    unsigned state_msr_count;
};

struct kvm_msr_block {
    struct kvm_msrs head;
    struct kvm_msr_entry entries[KVM_MAX_STATE_MSRS];
};

/* KVM's own form of a vCPU's state, in the parts that its calls transfer. */
struct kvm_state {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debug;
    struct kvm_vcpu_events events;
    struct kvm_mp_state mp;
    struct kvm_msr_block msrs;
    struct kvm_xsave xsave;
};

struct kvm_vcpu {
    struct vcpu base;
    int fd;
    struct kvm_run *run; /* shared with the kernel */
    _Atomic bool kicked;
    bool completing;            /* an MMIO or port access waits for the next KVM_RUN to finish it */
    struct kvm_state *power_on; /* as made */
    struct kvm_lapic_state power_on_apic;
    struct cpu *cpu;                /* software CPU; NULL until the first hand-over */
    struct kvm_state before, after; /* hand-over: as KVM gave it, and as it gets it back */
    struct cpu_arch_state arch;
    char error[200];
};

static inline struct kvm_accel *to_kvm(struct accel *a)
{
    return container_of(a, struct kvm_accel, base);
}

static inline struct kvm_vcpu *to_kvm_vcpu(struct vcpu *v)
{
    return container_of(v, struct kvm_vcpu, base);
}

static inline void kvm_count(uint64_t *counter)
{
    __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

/* slots.c */
void kvm_set_slots(struct accel *accel, const struct accel_slot *slots, size_t count);
void kvm_dirty_log(struct accel *accel, _Atomic uint64_t *bits, uint64_t pages);
void kvm_dirty_sync(struct accel *accel);
void kvm_set_eventfds(struct accel *accel, bool io, const struct accel_eventfd *fds, size_t count);

/* irq.c */
int kvm_irq_init(
    struct kvm_accel *a); /* chips made: the routing table, the power-on state; 0 or -errno */
void kvm_irq_reset(struct kvm_accel *a);
void kvm_gsi(struct accel *accel, unsigned gsi, int level);
void kvm_msi(struct accel *accel, uint64_t addr, uint32_t data);
int kvm_irqfd_add(struct accel *accel, uint64_t addr, uint32_t data, int fd);
int kvm_irqfd_update(struct accel *accel, int route, uint64_t addr, uint32_t data);
void kvm_irqfd_remove(struct accel *accel, int route, int fd);

/* cpuid.c */
bool kvm_set_cpuid(struct kvm_vcpu *v, GError **error);

/* state.c: 0 or -errno; the vCPU's thread, or any while it does not run. */
int kvm_state_read(struct kvm_vcpu *v, struct kvm_state *ret);
/* Writes the parts that differ from `old` (NULL: all). */
int kvm_state_write(struct kvm_vcpu *v, const struct kvm_state *s, const struct kvm_state *old);
void kvm_state_to_arch(const struct kvm_state *s, struct cpu_arch_state *ret);
void kvm_state_from_arch(struct kvm_state *s,
                         const struct cpu_arch_state *a); /* s: what to keep of the rest */
void kvm_find_state_msrs(struct kvm_accel *a, int vcpu_fd);
bool kvm_vcpu_get_state(struct vcpu *vcpu, struct cpu_arch_state *ret);
bool kvm_vcpu_set_state(struct vcpu *vcpu, const struct cpu_arch_state *s);

/* save.c */
bool kvm_vcpu_save(struct vcpu *vcpu, GByteArray *out, GError **error);
bool kvm_vcpu_load(struct vcpu *vcpu, struct cur *in, GError **error);
bool kvm_save(struct accel *accel, GByteArray *out, GError **error);
bool kvm_load(struct accel *accel, struct cur *in, GError **error);

/* handover.c: executes the instruction that KVM cannot. False: v->error is set, or *ret_exit tells.
 */
bool kvm_hand_over(struct kvm_vcpu *v, enum vcpu_exit *ret_exit);
void kvm_hand_over_done(struct kvm_vcpu *v);

/* vcpu.c */
struct vcpu *kvm_vcpu_new(struct accel *accel, unsigned index, GError **error);
void kvm_vcpu_free(struct vcpu *vcpu);
enum vcpu_exit kvm_vcpu_run(struct vcpu *vcpu);
void kvm_vcpu_kick(struct vcpu *vcpu);
void kvm_vcpu_signal(struct vcpu *vcpu, enum vcpu_signal_kind kind, uint8_t vector);
void kvm_vcpu_reset(struct vcpu *vcpu);
const char *kvm_vcpu_error(struct vcpu *vcpu);
void kvm_vcpu_finish_access(struct kvm_vcpu *v); /* lets KVM complete what `completing` says */
