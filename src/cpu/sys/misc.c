/* SPDX-License-Identifier: GPL-2.0-or-later */
/* HLT, MONITOR and MWAIT, time stamps, STAC and CLAC, cache control.
 *
 * Spec      Intel SDM volume 2.
 * Thread    The vCPU's own.
 */
#include "cpu/exec/handlers.h"
#include "cpu/sys/internal.h"
#include "cpu/sys/model.h"
#include "cpu/sys/operand.h"

#include <time.h>

#define KVM_EPERM 1ll
#define KVM_ENOSYS 1000ll
#define MWAIT_NS 50000 /* the longest sleep of an MWAIT: nobody watches the line for us */

int x_hlt(struct cpu *c, const struct insn *i)
{
    next_anew(c, i);
    c->int_shadow = 0;
    c->halted = true;
    c->exit_reason = CPU_EXIT_HALT;
    return X_EXIT;
}

int x_monitor(struct cpu *c, const struct insn *i)
{
    uint64_t off = i->adsize == 8 ? c->gpr[0] : c->gpr[0] & ((1ull << i->adsize * 8) - 1), lin;
    uint8_t b;
    if (c->cpl)
        return cpu_raise(c, EXC_UD);
    if ((uint32_t)c->gpr[1])
        return cpu_raise_error(c, EXC_GP, 0);
    int r = seg_linear(c, i->seg, off, 1, false, &lin);
    return r ? r : mmu_read_slow(c, lin, 1, &b);
}

int x_mwait(struct cpu *c, const struct insn *i)
{
    if (c->cpl)
        return cpu_raise(c, EXC_UD);
    if (!cpu_has_work(c))
        nanosleep(&(struct timespec){ .tv_nsec = MWAIT_NS }, NULL);
    return next_anew(c, i);
}

/* --- time --- */

static int check_tsc(struct cpu *c)
{
    return c->cr4 & CR4_TSD && c->cpl ? cpu_raise_error(c, EXC_GP, 0) : 0;
}

static void put_pair(struct cpu *c, uint64_t v)
{
    c->gpr[0] = (uint32_t)v;
    c->gpr[2] = v >> 32;
}

int x_rdtsc(struct cpu *c, const struct insn *i)
{
    int r = check_tsc(c);
    if (!r)
        put_pair(c, cpu_tsc(c));
    return r;
}

int x_rdtscp(struct cpu *c, const struct insn *i)
{
    int r = check_tsc(c);
    if (r)
        return r;
    put_pair(c, cpu_tsc(c));
    c->gpr[1] = (uint32_t)c->tsc_aux;
    return X_NEXT;
}

int x_rdpid(struct cpu *c, const struct insn *i)
{
    reg_set(c, i->rm, c->mode & MODE_CODE64 ? 8 : 4, (uint32_t)c->tsc_aux);
    return X_NEXT;
}

/* No counter counts. */
int x_rdpmc(struct cpu *c, const struct insn *i)
{
    if ((c->cpl && !(c->cr4 & CR4_PCE)) || (uint32_t)c->gpr[1] > 3)
        return cpu_raise_error(c, EXC_GP, 0);
    put_pair(c, 0);
    return X_NEXT;
}

/* --- SMAP --- */

static int set_ac(struct cpu *c, const struct insn *i, bool on)
{
    if (c->cpl)
        return cpu_raise(c, EXC_UD);
    c->flags_sys = on ? c->flags_sys | FLAG_AC : c->flags_sys & ~FLAG_AC;
    cpu_update_mode(c);
    return next_anew(c, i);
}

int x_stac(struct cpu *c, const struct insn *i)
{
    return set_ac(c, i, true);
}

int x_clac(struct cpu *c, const struct insn *i)
{
    return set_ac(c, i, false);
}

/* VMCALL and VMMCALL: KVM's interface, of which no call is implemented: the guest hears that in
 * RAX. */
int x_vmcall(struct cpu *c, const struct insn *i)
{
    if (!c->shared->model->hypervisor_leaves)
        return cpu_raise(c, EXC_UD);
    reg_set(c, 0, c->mode & MODE_CODE64 ? 8 : 4, (uint64_t)(c->cpl ? -KVM_EPERM : -KVM_ENOSYS));
    return X_NEXT;
}

/* INVD, WBINVD, WBNOINVD: memory is coherent. */
int x_wbinvd(struct cpu *c, const struct insn *i)
{
    return X_NEXT;
}

/* AMD: clears the cache line that rAX points into. */
int x_clzero(struct cpu *c, const struct insn *i)
{
    static const uint8_t zero[64];
    uint64_t off = (i->adsize == 8 ? c->gpr[0] : c->gpr[0] & ((1ull << i->adsize * 8) - 1)) & ~63ull, lin;
    int r = seg_linear(c, i->seg, off, 64, true, &lin);
    return r ? r : mmu_write_slow(c, lin, 64, zero);
}
