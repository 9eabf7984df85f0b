/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A vCPU's life: made of its parts, asked by other threads, freed.
 *
 * Thread    cpu_new() and cpu_free() while nobody else uses it; cpu_raise_event() from any.
 */
#include "cpu/exec/exec.h"
#include "cpu/shared.h"
#include "cpu/translate/translate.h"

#include <stdlib.h>

_Static_assert(offsetof(struct cpu, tlb) <= 2 * PAGE_SIZE, "the big arrays come last");
_Static_assert(offsetof(struct cpu, run_ok) < PAGE_SIZE / 8, "hot fields come first");

int cpu_shared_set_translate(struct cpu_shared *s, enum cpu_translate how, uint64_t code_bytes)
{
    return translate_shared_init(s, how, code_bytes);
}

struct cpu *cpu_new(struct cpu_shared *s, unsigned index, const struct cpu_callbacks *cb, void *opaque)
{
    if (index >= CPU_MAX)
        return NULL;
    /* calloc() does not touch what it has fresh from the host; it knows no such alignment. */
    void *allocation = calloc(1, sizeof(struct cpu) + PAGE_SIZE);
    if (!allocation)
        return NULL;
    struct cpu *c = (struct cpu *)align_up((uintptr_t)allocation, PAGE_SIZE);
    c->allocation = allocation;
    c->self = c;
    c->run_ok = 1;
    c->vec_parked = c->ymm_parked = 1;
    c->shared = s;
    c->index = index;
    c->cb = cb;
    c->opaque = opaque;
    if (sys_init(c) || fpu_init(c) || exec_init(c) || mmu_init(c) || translate_init(c)) {
        cpu_free(c);
        return NULL;
    }
    cpu_reset(c, false);
    return c;
}

void cpu_free(struct cpu *c)
{
    if (!c)
        return;
    translate_done(c);
    mmu_done(c);
    exec_done(c);
    fpu_done(c);
    sys_done(c);
    free(c->allocation);
}

const char *cpu_run_error(const struct cpu *c)
{
    return c->error;
}

const struct cpu_stats *cpu_get_stats(const struct cpu *c)
{
    return &c->stats;
}

void cpu_raise_event(struct cpu *c, uint32_t events)
{
    uint8_t nmis = atomic_load(&c->nmis);

    while (events & CPU_EV_NMI && nmis < 2)
        if (atomic_compare_exchange_weak(&c->nmis, &nmis, nmis + 1))
            break;
    cpu_post_events(c, events);
}

uint32_t cpu_pending_events(const struct cpu *c)
{
    return atomic_load(&c->events) | (c->intr_pending ? CPU_EV_INTR : 0) |
           (c->nmi_pending ? CPU_EV_NMI : 0);
}

bool cpu_has_work(const struct cpu *c)
{
    uint32_t ev = cpu_pending_events(c);

    if (ev & (CPU_EV_STOP | CPU_EV_FLUSH))
        return true;
    if (!c->halted)
        return true;
    return ((ev & CPU_EV_INTR) && (c->flags_sys & FLAG_IF)) || ((ev & CPU_EV_NMI) && !c->nmi_blocked);
}
