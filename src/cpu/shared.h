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

/* Bits of a page's code mask for [off, off + len) of the page; len at least 1. */
static inline uint64_t mmu_granules(uint64_t off, uint64_t len)
{
    unsigned first = (unsigned)(off >> CODE_GRANULE_SHIFT);
    unsigned last = (unsigned)((off + len - 1) >> CODE_GRANULE_SHIFT);
    return (~0ull << first) & (~0ull >> (63 - last));
}

struct cpu_shared {
    const struct cpu_model *model; /* borrowed: outlives us */
    struct cpu_topology topology;
    uint64_t insn_features;        /* bit per enum insn_feature: what the model's CPUID shows */
    uint64_t tsc_khz, host_tsc_khz; /* the guest's, and the host's that it is made from */
    uint64_t phys_mask;            /* MAXPHYADDR ones */
    bool gib_pages;                /* 1 GiB pages exist */
    bool amd;                      /* vendor rules: SYSCALL, SYSENTER, SYSRET, MSRs */

    pthread_mutex_t lock;          /* cpus[]; queues of posted flushes */
    struct cpu *cpus[CPU_MAX];     /* by index; NULL: not made */
    _Atomic unsigned cpu_count;    /* of those made */

    pthread_mutex_t split;         /* mmu_lock_begin() */

    _Atomic uint64_t *code;        /* per page: bit per granule that holds decoded code */
    uint64_t code_pages;           /* entries of code[]; pages beyond are never cached */

    _Atomic uint64_t *dirty;       /* cpu_shared_set_dirty(); changes while no vCPU runs */
    uint64_t dirty_pages;

    struct translate *translate;   /* the code cache; NULL: interpreted only */
};

static inline bool cpu_has(const struct cpu *c, enum insn_feature f)
{
    return c->shared->insn_features >> f & 1;
}

/* fpu/: called by exec_bind() for rows with A_X87, A_MMX, A_SSE or A_AVX, after i->fn was set to
 * x_<exec>(); may replace i->fn and set i->aux. `bytes` are the instruction's. */
void fpu_bind(struct cpu *c, struct insn *i, const uint8_t *bytes);
int fpu_init(struct cpu *c); /* 0 or -ENOMEM; xsave area as after reset */
void fpu_done(struct cpu *c);

/* sys/: the part of cpu_new() and cpu_free() that is theirs. */
int sys_init(struct cpu *c); /* 0 or -ENOMEM */
void sys_done(struct cpu *c);
