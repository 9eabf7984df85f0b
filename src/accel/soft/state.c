/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Saved state of the software processor: what the architecture has, and what waits for the vCPU's
 * thread.
 *
 * Thread    Main, the machine stopped.
 * Trust     cpu_set_state() takes any values; those of this file have limits in their rows.
 * TSC       Saved as it stood when the clock stopped. In the machine that loads it the clock stands
 * too, and the guest's TSC begins there when it runs: never behind.
 */
#include "accel/soft/soft.h"

#include <stdio.h>
#include <string.h>

#define RARE(field, ...)  STATE(struct cpu_rare_state, field, __VA_ARGS__)
#define RARE_ARRAY(field) STATE_ARRAY(struct cpu_rare_state, field)

static const struct state_field rare_fields[] = {
    RARE_ARRAY(mtrr_base),
    RARE_ARRAY(mtrr_mask),
    RARE_ARRAY(mtrr_fixed),
    RARE(mcg_status),
    RARE(mcg_ctl),
    RARE_ARRAY(mce),
    RARE(tsc_adjust),
    RARE(debugctl),
    RARE(spec_ctrl),
    RARE(syscfg),
    RARE(hwcr),
    RARE(kvm_system_time),
    RARE(kvm_wall_clock),
    RARE(nmis, .max = 2),
    RARE(dr6_pending, .max = 15),
    {0},
};

struct soft_waiting {
    bool wait_sipi;
    uint32_t pending;
};

static const struct state_field waiting_fields[] = {
    STATE(struct soft_waiting, wait_sipi),
    STATE(struct soft_waiting, pending, .max = PEND_INIT | PEND_SIPI | PEND_VECTOR),
    {0},
};

static uint64_t stopped_base(const struct soft_accel *a, const struct soft_vcpu *v)
{
    return a->stopped_tsc ? a->stopped_tsc : tsc_base(v);
}

bool soft_vcpu_save(struct vcpu *vcpu, GByteArray *out, GError **error)
{
    struct soft_vcpu *v = to_soft(vcpu);
    struct soft_accel *a = container_of(vcpu->accel, struct soft_accel, base);
    struct cpu_arch_state arch;
    struct cpu_rare_state rare;
    const struct soft_waiting waiting = {v->wait_sipi, v->pending};
    cpu_get_state(v->cpu, &arch);
    arch.tsc = stopped_base(a, v) + (uint64_t)cpu_tsc_offset(v->cpu);
    cpu_get_rare_state(v->cpu, &rare);
    state_fields_save(cpu_arch_fields, &arch, out);
    state_fields_save(rare_fields, &rare, out);
    state_fields_save(waiting_fields, &waiting, out);
    return true;
}

bool soft_vcpu_load(struct vcpu *vcpu, struct cur *in, GError **error)
{
    struct soft_vcpu *v = to_soft(vcpu);
    struct soft_accel *a = container_of(vcpu->accel, struct soft_accel, base);
    struct cpu_arch_state arch = {0};
    struct cpu_rare_state rare = {0};
    struct soft_waiting waiting = {0};
    char who[32];
    snprintf(who, sizeof(who), "vCPU %u", vcpu->index);
    if (!state_fields_load(cpu_arch_fields, &arch, who, in, error) ||
        !state_fields_load(rare_fields, &rare, who, in, error) ||
        !state_fields_load(waiting_fields, &waiting, who, in, error))
        return false;
    cpu_set_state(v->cpu, &arch);
    cpu_set_tsc_offset(v->cpu, (int64_t)(arch.tsc - stopped_base(a, v)));
    cpu_set_rare_state(v->cpu, &rare);
    if (!vcpu->index)
        a->tsc_offset = cpu_tsc_offset(v->cpu);
    v->pending = waiting.pending;
    v->wait_sipi = waiting.wait_sipi;
    vcpu->halted = v->wait_sipi || arch.halted;
    return true;
}

struct soft_common {
    uint64_t tsc_khz;
};

static const struct state_field common_fields[] = {STATE(struct soft_common, tsc_khz), {0}};

bool soft_save(struct accel *accel, GByteArray *out, GError **error)
{
    const struct soft_accel *a = container_of(accel, struct soft_accel, base);
    const struct soft_common common = {cpu_tsc_khz(a->shared)};
    state_fields_save(common_fields, &common, out);
    return true;
}

#define TSC_TOLERANCE 4000 /* one part in so many: 250 ppm, as with QEMU */

bool soft_load(struct accel *accel, struct cur *in, GError **error)
{
    const struct soft_accel *a = container_of(accel, struct soft_accel, base);
    struct soft_common common = {0};
    uint64_t here = cpu_tsc_khz(a->shared);
    if (!state_fields_load(common_fields, &common, "accelerator 'soft'", in, error))
        return false;
    /* Each program measures its host anew: guests bear that as they bear real clocks. */
    uint64_t apart = max_u64(common.tsc_khz, here) - min_u64(common.tsc_khz, here);
    return apart <= here / TSC_TOLERANCE ||
           ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                       "state of accelerator 'soft': its TSC runs at %" G_GUINT64_FORMAT
                       " kHz, and here at %" G_GUINT64_FORMAT
                       " kHz: give both machines -cpu ...,tsc-frequency=",
                       common.tsc_khz, here);
}
