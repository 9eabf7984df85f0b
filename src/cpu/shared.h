/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the vCPUs of one machine share: the model, who is there, which memory holds decoded code.
 *
 * Private to src/cpu/. Owner: cpu_shared_new()/free() in mmu/shared.c; mmu_init() attaches a vCPU.
 * Thread    Fields are constant after creation but for those that say otherwise.
 */
#pragma once

#include "cpu/state.h"

#include <pthread.h>

#define CPU_MAX 256
#define CODE_GRANULE_SHIFT 6 /* bytes of one bit of a page's code mask: 64 */

struct cpu_shared {
    const struct cpu_model *model; /* borrowed: outlives us */
    struct cpu_topology topology;
    uint64_t insn_features;        /* bit per enum insn_feature: what the model's CPUID shows */
    uint64_t tsc_khz;
    uint64_t phys_mask;            /* MAXPHYADDR ones */
    bool amd;                      /* vendor rules: SYSCALL, SYSENTER, SYSRET, MSRs */

    pthread_mutex_t lock;          /* cpus[]; queues of posted flushes */
    struct cpu *cpus[CPU_MAX];     /* by index; NULL: not made */

    pthread_mutex_t split;         /* mmu_lock_begin() */

    _Atomic uint64_t *code;        /* per page: bit per granule that holds decoded code */
    uint64_t code_pages;           /* entries of code[]; pages beyond are never cached */
};

static inline bool cpu_has(const struct cpu *c, enum insn_feature f)
{
    return c->shared->insn_features >> f & 1;
}
