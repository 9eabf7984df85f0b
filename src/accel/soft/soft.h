/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The `soft` accelerator's inside, shared by soft.c and state.c. Thread: see soft.c. */
#pragma once

#include "accel/accel.h"

#include <stdatomic.h>

/* soft_vcpu.pending: an INIT and a start-up IPI that wait for the vCPU's thread. */
#define PEND_VECTOR 0xffu
#define PEND_SIPI (1u << 8)
#define PEND_INIT (1u << 9)

#define SOFT_MAX_VCPUS 256

struct soft_accel {
    struct accel base;
    struct cpu_shared *shared;
    struct cpu_topology topology;
    int64_t tsc_offset;   /* of vCPUs at power-on */
    uint64_t stopped_tsc; /* tsc_base() when the clock stopped; 0: it runs */
    struct accel_slot *slots; /* the last that were set; under the address map's lock */
    size_t n_slots;
    struct soft_vcpu *vcpus[SOFT_MAX_VCPUS];
};

struct soft_vcpu {
    struct vcpu base;
    struct cpu *cpu;
    bool wait_sipi; /* vCPU thread, or main while it does not run */
    _Atomic bool kicked;
    _Atomic uint32_t asleep;  /* futex: 1 while the thread sleeps or is about to */
    _Atomic uint32_t pending; /* PEND_* */
};

static inline struct soft_vcpu *to_soft(struct vcpu *v)
{
    return container_of(v, struct soft_vcpu, base);
}

/* What all vCPUs count by, before each adds its offset. */
static inline uint64_t tsc_base(const struct soft_vcpu *v)
{
    return cpu_tsc(v->cpu) - (uint64_t)cpu_tsc_offset(v->cpu);
}

/* state.c */
bool soft_vcpu_save(struct vcpu *v, GByteArray *out, GError **error);
bool soft_vcpu_load(struct vcpu *v, struct cur *in, GError **error);
bool soft_save(struct accel *accel, GByteArray *out, GError **error);
bool soft_load(struct accel *accel, struct cur *in, GError **error);
