/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The `soft` accelerator: the software x86-64 processor of src/cpu, one host thread a vCPU.
 *
 * This file joins the processor to the machine: it sleeps for it in HLT, keeps the signals that its
 * APIC and its neighbours send, and gives it memory, ports and the local APIC through callbacks.
 *
 * Thread    vcpu_run() and the callbacks: the vCPU's own. vcpu_signal() and vcpu_kick(): any. The
 *           rest: the main thread, with the vCPU not running.
 * Wake-ups  The sleeper writes `asleep`, then looks for work; the waker publishes the work, then reads
 *           `asleep`. Both are sequentially consistent, so one of the two sees the other.
 */
#include "accel/soft/soft.h"
#include "base/log.h"
#include "base/util.h"

#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- what the processor asks for --- */

static struct cpu_phys cb_translate(void *opaque, uint64_t gpa)
{
    const struct accel_host *host = ((struct soft_vcpu *)opaque)->base.accel->host;
    return host->translate(host->opaque, gpa);
}

static void count(uint64_t *counter)
{
    __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

static uint64_t cb_mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
    struct vcpu *v = &((struct soft_vcpu *)opaque)->base;
    count(&v->accel->stats.mmio);
    return v->accel->host->mmio_read(v->accel->host->opaque, v, gpa, size);
}

static void cb_mmio_write(void *opaque, uint64_t gpa, uint64_t val, unsigned size)
{
    struct vcpu *v = &((struct soft_vcpu *)opaque)->base;
    count(&v->accel->stats.mmio);
    v->accel->host->mmio_write(v->accel->host->opaque, v, gpa, val, size);
}

static uint64_t cb_io_read(void *opaque, uint16_t port, unsigned size)
{
    struct vcpu *v = &((struct soft_vcpu *)opaque)->base;
    count(&v->accel->stats.pio);
    return v->accel->host->io_read(v->accel->host->opaque, v, port, size);
}

static void cb_io_write(void *opaque, uint16_t port, uint64_t val, unsigned size)
{
    struct vcpu *v = &((struct soft_vcpu *)opaque)->base;
    count(&v->accel->stats.pio);
    v->accel->host->io_write(v->accel->host->opaque, v, port, val, size);
}

static int cb_irq_ack(void *opaque)
{
    struct vcpu *v = &((struct soft_vcpu *)opaque)->base;
    const struct accel_apic *apic = v->accel->apic;
    return apic ? apic->ack(apic->opaque, v->index) : -1;
}

static uint64_t cb_tpr_read(void *opaque)
{
    struct vcpu *v = &((struct soft_vcpu *)opaque)->base;
    const struct accel_apic *apic = v->accel->apic;
    return apic ? apic->tpr_read(apic->opaque, v->index) : 0;
}

static void cb_tpr_write(void *opaque, uint64_t cr8)
{
    struct vcpu *v = &((struct soft_vcpu *)opaque)->base;
    const struct accel_apic *apic = v->accel->apic;
    if (apic)
        apic->tpr_write(apic->opaque, v->index, cr8);
}

static int cb_apic_msr_read(void *opaque, uint32_t msr, uint64_t *ret_val)
{
    struct vcpu *v = &((struct soft_vcpu *)opaque)->base;
    const struct accel_apic *apic = v->accel->apic;
    return apic ? apic->msr_read(apic->opaque, v->index, msr, ret_val) : -1;
}

static int cb_apic_msr_write(void *opaque, uint32_t msr, uint64_t val)
{
    struct vcpu *v = &((struct soft_vcpu *)opaque)->base;
    const struct accel_apic *apic = v->accel->apic;
    return apic ? apic->msr_write(apic->opaque, v->index, msr, val) : -1;
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

/* --- the accelerator --- */

static bool soft_probe(bool by_name, char **ret_why)
{
    *ret_why = g_strdup("Ruche's own software CPU");
    return true;
}

static void soft_destroy(struct accel *accel)
{
    if (!accel)
        return;
    struct soft_accel *a = container_of(accel, struct soft_accel, base);
    cpu_shared_free(a->shared);
    g_free(a->slots);
    free(a);
}

static struct accel *soft_create(const struct accel_host *host, const struct cpu_model *model,
                                 const struct cpu_topology *topology, uint64_t ram_bytes, bool pit,
                                 GError **error)
{
    enum cpu_translate how = host->config.translate;
    if (log_on(LOG_LOCKSTEP) && how != CPU_TRANSLATE_OFF)
        how = CPU_TRANSLATE_LOCKSTEP;
    unsigned vcpus = topology->sockets * topology->dies * topology->cores * topology->threads;
    if (how == CPU_TRANSLATE_LOCKSTEP && vcpus > 1) {
        ruche_error(error, RUCHE_ERR_UNSUPPORTED, "soft: lockstep compares the memory of one vCPU, and this machine has "
                                                  "%u: use -smp 1", vcpus);
        return NULL;
    }
    struct soft_accel *a = calloc(1, sizeof(*a));
    if (a)
        a->shared = cpu_shared_new(model, topology, ram_bytes);
    if (!a || !a->shared) {
        free(a);
        ruche_error(error, RUCHE_ERR_NO_SPACE, "soft: no memory for the software CPU");
        return NULL;
    }
    int err = cpu_shared_set_translate(a->shared, how, host->config.tb_bytes);
    if (err)
        log_warn("soft: no executable memory (%s): the guest is interpreted, not translated", strerror(-err));
    err = host->config.perf_map ? cpu_shared_set_perf_map(a->shared) : 0;
    if (err)
        log_warn("soft: /tmp/perf-%d.map cannot be written: %s", getpid(), strerror(-err));
    a->base.host = host;
    a->topology = *topology;
    return &a->base;
}

static bool same_slots(const struct soft_accel *a, const struct accel_slot *slots, size_t n)
{
    if (n != a->n_slots)
        return false;
    for (size_t i = 0; i < n; i++) {
        const struct accel_slot *x = &slots[i], *y = &a->slots[i];
        if (x->gpa != y->gpa || x->size != y->size || x->hva != y->hva || x->readonly != y->readonly)
            return false;
    }
    return true;
}

/* The processor caches where memory is, not what answers where there is none: registers that move cost nothing. */
static void soft_set_slots(struct accel *accel, const struct accel_slot *slots, size_t n)
{
    struct soft_accel *a = container_of(accel, struct soft_accel, base);
    if (same_slots(a, slots, n))
        return;
    g_free(a->slots);
    a->slots = g_memdup2(slots, n * sizeof(slots[0]));
    a->n_slots = n;
    cpu_shared_flush_all(a->shared);
}

static void soft_written(struct accel *accel, uint64_t gpa, uint64_t len)
{
    cpu_shared_written(container_of(accel, struct soft_accel, base)->shared, gpa, len);
}

static void soft_dirty_log(struct accel *accel, _Atomic uint64_t *bits, uint64_t pages)
{
    cpu_shared_set_dirty(container_of(accel, struct soft_accel, base)->shared, bits, pages);
}

static void soft_dirty_sync(struct accel *accel)
{
    cpu_shared_dirty_anew(container_of(accel, struct soft_accel, base)->shared);
}

/* The guest's TSC stands while the machine does: what the host's gained meanwhile is taken off, the
 * same for all vCPUs, so that they stay in step. */
static void soft_clock_stopped(struct accel *accel, bool stopped)
{
    struct soft_accel *a = container_of(accel, struct soft_accel, base);
    if (stopped == (a->stopped_tsc != 0) || !a->vcpus[0])
        return;
    if (stopped) {
        a->stopped_tsc = tsc_base(a->vcpus[0]);
        return;
    }
    int64_t gained = (int64_t)(tsc_base(a->vcpus[0]) - a->stopped_tsc);
    a->stopped_tsc = 0;
    a->tsc_offset -= gained;
    for (unsigned i = 0; i < SOFT_MAX_VCPUS; i++) {
        if (a->vcpus[i])
            cpu_set_tsc_offset(a->vcpus[i]->cpu, cpu_tsc_offset(a->vcpus[i]->cpu) - gained);
    }
}

/* --- vCPUs --- */

static void soft_vcpu_free(struct vcpu *vcpu)
{
    if (!vcpu)
        return;
    struct soft_vcpu *v = to_soft(vcpu);
    container_of(vcpu->accel, struct soft_accel, base)->vcpus[vcpu->index] = NULL;
    cpu_free(v->cpu);
    free(v);
}

static void soft_vcpu_reset(struct vcpu *vcpu)
{
    struct soft_vcpu *v = to_soft(vcpu);
    struct soft_accel *a = container_of(vcpu->accel, struct soft_accel, base);
    if (vcpu->index == 0)
        a->tsc_offset = -(int64_t)(a->stopped_tsc ? a->stopped_tsc : tsc_base(v));
    cpu_reset(v->cpu, false);
    cpu_set_tsc_offset(v->cpu, a->tsc_offset);
    v->pending = 0;
    v->wait_sipi = vcpu->index > 0;
    vcpu->halted = v->wait_sipi;
}

static struct vcpu *soft_vcpu_new(struct accel *accel, unsigned index, GError **error)
{
    struct soft_accel *a = container_of(accel, struct soft_accel, base);
    struct soft_vcpu *v = index < SOFT_MAX_VCPUS ? calloc(1, sizeof(*v)) : NULL;
    if (v)
        v->cpu = cpu_new(a->shared, index, &callbacks, v);
    if (!v || !v->cpu) {
        free(v);
        ruche_error(error, RUCHE_ERR_NO_SPACE, "soft: no memory for vCPU %u", index);
        return NULL;
    }
    v->base.accel = accel;
    v->base.index = index;
    v->base.apic_id = cpu_topology_apic_id(&a->topology, index);
    a->vcpus[index] = v;
    soft_vcpu_reset(&v->base);
    return &v->base;
}

static void wake(struct soft_vcpu *v)
{
    if (atomic_load(&v->asleep) && atomic_exchange(&v->asleep, 0))
        syscall(SYS_futex, &v->asleep, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static bool has_work(struct soft_vcpu *v)
{
    if (atomic_load(&v->kicked) || atomic_load(&v->pending))
        return true;
    return !v->wait_sipi && cpu_has_work(v->cpu);
}

static void sleep_until_work(struct soft_vcpu *v)
{
    count(&v->base.accel->stats.halts);
    v->base.halted = true;
    for (;;) {
        atomic_store(&v->asleep, 1);
        if (has_work(v))
            break;
        syscall(SYS_futex, &v->asleep, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0);
    }
    atomic_store(&v->asleep, 0);
    v->base.halted = false;
}

static void take_pending(struct soft_vcpu *v)
{
    uint32_t pending = atomic_exchange(&v->pending, 0);
    if (pending & PEND_INIT) {
        cpu_reset(v->cpu, true);
        v->wait_sipi = v->base.index > 0;
    }
    if ((pending & PEND_SIPI) && v->wait_sipi) {
        cpu_sipi(v->cpu, pending & PEND_VECTOR);
        v->wait_sipi = false;
    }
}

static enum vcpu_exit soft_vcpu_run(struct vcpu *vcpu)
{
    struct soft_vcpu *v = to_soft(vcpu);
    current_vcpu = vcpu;
    if (!vcpu->thread_id)
        vcpu->thread_id = gettid();
    for (;;) {
        if (atomic_exchange(&v->kicked, false))
            return VCPU_EXIT_KICK;
        if (atomic_load_explicit(&v->pending, memory_order_relaxed))
            take_pending(v);
        if (v->wait_sipi) {
            sleep_until_work(v);
            continue;
        }
        vcpu->halted = false;
        switch (cpu_run(v->cpu)) {
        case CPU_EXIT_HALT:
            sleep_until_work(v);
            break;
        case CPU_EXIT_SHUTDOWN:
            return VCPU_EXIT_SHUTDOWN;
        case CPU_EXIT_ERROR:
            return VCPU_EXIT_ERROR;
        case CPU_EXIT_STOP:
        case CPU_EXIT_DEBUG:
            break;
        }
    }
}

static void soft_vcpu_kick(struct vcpu *vcpu)
{
    struct soft_vcpu *v = to_soft(vcpu);
    atomic_store(&v->kicked, true);
    cpu_raise_event(v->cpu, CPU_EV_STOP);
    wake(v);
}

/* A later INIT cancels the start-up IPI that was not taken yet. */
static void post_init_or_sipi(struct soft_vcpu *v, enum vcpu_signal_kind kind, uint8_t vector)
{
    uint32_t old = atomic_load(&v->pending), new;
    do {
        new = kind == VCPU_SIGNAL_INIT ? PEND_INIT : (old & PEND_INIT) | PEND_SIPI | vector;
    } while (!atomic_compare_exchange_weak(&v->pending, &old, new));
    cpu_raise_event(v->cpu, CPU_EV_STOP);
}

static void soft_vcpu_signal(struct vcpu *vcpu, enum vcpu_signal_kind kind, uint8_t vector)
{
    static const uint32_t events[] = {
        [VCPU_SIGNAL_INTR] = CPU_EV_INTR,
        [VCPU_SIGNAL_NMI] = CPU_EV_NMI,
        [VCPU_SIGNAL_SMI] = CPU_EV_SMI,
    };
    struct soft_vcpu *v = to_soft(vcpu);
    if (kind == VCPU_SIGNAL_INIT || kind == VCPU_SIGNAL_SIPI)
        post_init_or_sipi(v, kind, vector);
    else
        cpu_raise_event(v->cpu, events[kind]);
    wake(v);
}

static uint64_t soft_vcpu_tsc(struct vcpu *vcpu, uint64_t *ret_khz)
{
    *ret_khz = cpu_tsc_khz(container_of(vcpu->accel, struct soft_accel, base)->shared);
    return cpu_tsc(to_soft(vcpu)->cpu);
}

static bool soft_vcpu_get_state(struct vcpu *vcpu, struct cpu_arch_state *ret)
{
    cpu_get_state(to_soft(vcpu)->cpu, ret);
    return true;
}

/* A TSC that was read from this vCPU a moment ago is no order to turn its clock back by that
 * moment, which would put it out of step with the others. */
static bool soft_vcpu_set_state(struct vcpu *vcpu, const struct cpu_arch_state *s)
{
    struct soft_vcpu *v = to_soft(vcpu);
    struct soft_accel *a = container_of(vcpu->accel, struct soft_accel, base);
    int64_t offset = cpu_tsc_offset(v->cpu);
    uint64_t age = cpu_tsc(v->cpu) - s->tsc;
    cpu_set_state(v->cpu, s);
    if (age < cpu_tsc_khz(a->shared) * 1000)
        cpu_set_tsc_offset(v->cpu, offset);
    return true;
}

static const char *soft_vcpu_error(struct vcpu *vcpu)
{
    return cpu_run_error(to_soft(vcpu)->cpu);
}

static const struct cpu_stats *soft_vcpu_stats(struct vcpu *vcpu)
{
    return cpu_get_stats(to_soft(vcpu)->cpu);
}

static bool soft_vcpu_calls(struct vcpu *vcpu, unsigned index, struct cpu_calls *ret)
{
    return cpu_get_calls(to_soft(vcpu)->cpu, index, ret);
}

static const struct accel_ops soft_accel = {
    .name = "soft",
    .summary = "Ruche's own x86-64 processor in software",
    .probe = soft_probe,
    .create = soft_create,
    .destroy = soft_destroy,
    .set_slots = soft_set_slots,
    .written = soft_written,
    .dirty_log = soft_dirty_log,
    .dirty_sync = soft_dirty_sync,
    .vcpu_new = soft_vcpu_new,
    .vcpu_free = soft_vcpu_free,
    .vcpu_run = soft_vcpu_run,
    .vcpu_kick = soft_vcpu_kick,
    .vcpu_signal = soft_vcpu_signal,
    .vcpu_tsc = soft_vcpu_tsc,
    .vcpu_reset = soft_vcpu_reset,
    .vcpu_get_state = soft_vcpu_get_state,
    .vcpu_set_state = soft_vcpu_set_state,
    .vcpu_save = soft_vcpu_save,
    .vcpu_load = soft_vcpu_load,
    .save = soft_save,
    .load = soft_load,
    .vcpu_error = soft_vcpu_error,
    .vcpu_stats = soft_vcpu_stats,
    .vcpu_calls = soft_vcpu_calls,
    .clock_stopped = soft_clock_stopped,
};
ACCEL_TYPE(soft_accel);
