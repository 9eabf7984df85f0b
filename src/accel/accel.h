/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Accelerators: who executes the guest's instructions. `kvm` (accel/kvm) or `soft` (accel/soft, over src/cpu).
 *
 * Owner     accel: the machine. vcpu: made by accel_vcpu_new(), freed by accel_vcpu_free() after its thread ended.
 * Thread    accel_*(): main thread, unless noted. vcpu_run(): the vCPU's own thread. vcpu_kick(), accel_msi(),
 *           accel_gsi(), vcpu_signal(): any thread.
 */
#pragma once

#include "base/error.h"
#include "base/linkset.h"
#include "base/state_field.h"
#include "cpu/cpu.h"

struct accel;
struct vcpu;
struct mem_range; /* machine/memory.h: seen here only through the slots below */

/* How the accelerator is to work: -accel's properties. Zero is a default. */
struct accel_config {
    enum cpu_translate translate; /* soft */
    uint64_t tb_bytes;            /* soft: host code kept at most */
    bool perf_map;                /* soft: write /tmp/perf-PID.map */
};

/* What the machine gives the accelerator. Called on vCPU threads. */
struct accel_host {
    void *opaque;
    struct accel_config config;
    uint64_t (*mmio_read)(void *opaque, struct vcpu *v, uint64_t gpa, unsigned size);
    void (*mmio_write)(void *opaque, struct vcpu *v, uint64_t gpa, uint64_t val, unsigned size);
    uint64_t (*io_read)(void *opaque, struct vcpu *v, uint16_t port, unsigned size);
    void (*io_write)(void *opaque, struct vcpu *v, uint16_t port, uint64_t val, unsigned size);
    /* The RAM or ROM page at gpa, for the software CPU. */
    struct cpu_phys (*translate)(void *opaque, uint64_t gpa);
};

/* Userspace local APICs (devices/irqchip/lapic.c), given by the board when the accelerator has none in
 * kernel. Called on the vCPU's thread, but for `msi` (any).
 *
 * The APIC sends VCPU_SIGNAL_INTR whenever something becomes deliverable: a new request, a lowered TPR, an EOI that
 * uncovers one, and again from ack() when another could follow at once. So clear the pending event before calling
 * ack(), never after. On INIT it has reset the vCPU's APIC itself before it sends VCPU_SIGNAL_INIT. */
struct accel_apic {
    void *opaque;
    int (*ack)(void *opaque, unsigned vcpu);
    uint64_t (*tpr_read)(void *opaque, unsigned vcpu);
    void (*tpr_write)(void *opaque, unsigned vcpu, uint64_t cr8);
    int (*msr_read)(void *opaque, unsigned vcpu, uint32_t msr, uint64_t *ret_val);
    int (*msr_write)(void *opaque, unsigned vcpu, uint32_t msr, uint64_t val);
    void (*msi)(void *opaque, uint64_t addr, uint32_t data);
};

/* Signals from APICs and buttons to a vCPU. */
enum vcpu_signal_kind { VCPU_SIGNAL_INTR, VCPU_SIGNAL_NMI, VCPU_SIGNAL_INIT, VCPU_SIGNAL_SIPI,
                        VCPU_SIGNAL_SMI };

enum vcpu_exit {
    VCPU_EXIT_KICK,     /* vcpu_kick() was called: look at the run state */
    VCPU_EXIT_SHUTDOWN, /* triple fault */
    VCPU_EXIT_ERROR,    /* vcpu_error() has the sentence */
};

/* A RAM/ROM slot of the address map. */
struct accel_slot {
    uint64_t gpa, size;
    uint8_t *hva;
    bool readonly;
};

/* An ioeventfd: a write at addr in memory or ports signals fd. */
struct accel_eventfd {
    uint64_t addr, data;
    uint8_t size; /* 0: any */
    bool io, match_data;
    int fd;
};

struct accel_stats {
    uint64_t emulated;    /* instructions that KVM could not do and the software CPU did */
    uint64_t exits, mmio, pio, halts;
};

struct accel_ops {
    const char *name, *summary;
    /* Can it work here? False with a sentence. `by_name`: the user asked for it explicitly. `*ret_why`: a
     * g_malloc'd phrase on what it rests ("AMD SVM", "no /dev/kvm"). */
    bool (*probe)(bool by_name, char **ret_why);
    /* KVM: VM made, in-kernel irqchip and PIT as asked. */
    struct accel *(*create)(const struct accel_host *host, const struct cpu_model *model,
                            const struct cpu_topology *topology, uint64_t ram_bytes, bool pit,
                            GError **error);
    void (*destroy)(struct accel *a);
    bool kernel_irqchip; /* PIC, IOAPIC, LAPIC (and PIT) live in the accelerator */

    void (*set_slots)(struct accel *a, const struct accel_slot *slots, size_t count);
    void (*set_eventfds)(struct accel *a, bool io, const struct accel_eventfd *fds, size_t count); /* NULL */
    void (*written)(struct accel *a, uint64_t gpa, uint64_t len); /* DMA wrote; may be NULL */
    /* Pages that vCPUs write get their bit (by guest-physical number, below `pages`) from now on; NULL: no more. The
     * bits stay where they are for the accelerator's life. No vCPU runs. May be NULL: vCPUs write nothing. */
    void (*dirty_log)(struct accel *a, _Atomic uint64_t *bits, uint64_t pages);
    /* All that was written has its bit now, and writes from here on set theirs anew. No vCPU runs. */
    void (*dirty_sync)(struct accel *a);

    /* kernel_irqchip only. */
    void (*gsi)(struct accel *a, unsigned gsi, int level);
    void (*msi)(struct accel *a, uint64_t addr, uint32_t data);
    /* A route whose eventfd raises the MSI in the kernel; NULL ops where there is no irqfd. */
    int (*irqfd_add)(struct accel *a, uint64_t addr, uint32_t data, int fd); /* route id, or -errno */
    int (*irqfd_update)(struct accel *a, int route, uint64_t addr, uint32_t data);
    void (*irqfd_remove)(struct accel *a, int route, int fd);

    struct vcpu *(*vcpu_new)(struct accel *a, unsigned index, GError **error);
    void (*vcpu_free)(struct vcpu *v);
    enum vcpu_exit (*vcpu_run)(struct vcpu *v); /* handles HLT and waiting for SIPI inside */
    void (*vcpu_kick)(struct vcpu *v);
    void (*vcpu_signal)(struct vcpu *v, enum vcpu_signal_kind kind, uint8_t vector);
    /* The guest's TSC now and its rate, for the deadline timer of userspace APICs. On the vCPU's own thread; may be
     * NULL with kernel_irqchip. */
    uint64_t (*vcpu_tsc)(struct vcpu *v, uint64_t *ret_khz);
    void (*vcpu_reset)(struct vcpu *v); /* power-on; index > 0 waits for SIPI. vCPU not running. */
    bool (*vcpu_get_state)(struct vcpu *v, struct cpu_arch_state *ret); /* vCPU not running */
    bool (*vcpu_set_state)(struct vcpu *v, const struct cpu_arch_state *s);
    /* Saved state (machine/state.h), the machine stopped: of one vCPU, and of what all share: chips, clock. The clock
     * stands (clock_stopped()), and the vCPU is as reset when it is loaded. False with a sentence. NULL: none. */
    bool (*vcpu_save)(struct vcpu *v, GByteArray *out, GError **error);
    bool (*vcpu_load)(struct vcpu *v, struct cur *in, GError **error);
    bool (*save)(struct accel *a, GByteArray *out, GError **error);
    bool (*load)(struct accel *a, struct cur *in, GError **error);
    const char *(*vcpu_error)(struct vcpu *v);
    const struct cpu_stats *(*vcpu_stats)(struct vcpu *v); /* the software CPU's; NULL: it has done nothing */
    /* Of the software CPU's translator, by instruction form; may be NULL. False: no more. */
    bool (*vcpu_calls)(struct vcpu *v, unsigned index, struct cpu_calls *ret);
    /* Save/restore of the paused clock (kvmclock, TSC); may be NULL. */
    void (*clock_stopped)(struct accel *a, bool stopped);
};
LINKSET_DECLARE(accel_types);
#define ACCEL_TYPE(t) LINKSET_ENTRY(accel_types, t)

/* Every accelerator's struct begins with this; every vCPU's with the next. */
struct accel {
    const struct accel_ops *ops;
    const struct accel_host *host;
    const struct accel_apic *apic; /* NULL with kernel_irqchip; set by the board before vCPUs run */
    struct accel_stats stats;      /* atomic adds by vCPU threads */
};

struct vcpu {
    struct accel *accel;
    unsigned index;
    uint32_t apic_id;
    _Atomic bool halted;    /* in HLT or waiting for SIPI; query-cpus-fast and tests read it */
    int thread_id;          /* gettid() of its thread; 0: none */
    _Atomic bool present;   /* plugged in. Written by the main thread */
    uint64_t emulated;      /* see accel_stats */
};

/* The vCPU whose thread this is, or NULL. */
extern __thread struct vcpu *current_vcpu;

/* `names`: "kvm:soft", "soft", NULL for the default. *ret_note: which one and why, g_malloc'd. */
const struct accel_ops *accel_choose(const char *names, char **ret_note, GError **error);
const struct accel_ops *const *accel_list(void); /* sorted, NULL-ended */

/* The fields of struct cpu_arch_state, for tables of saved states. */
extern const struct state_field cpu_arch_fields[];

static inline void accel_msi(struct accel *a, uint64_t addr, uint32_t data)
{
    if (a->ops->msi)
        a->ops->msi(a, addr, data);
    else if (a->apic)
        a->apic->msi(a->apic->opaque, addr, data);
}
