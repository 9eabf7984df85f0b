/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The mode word, segmentation of addresses, reset.
 *
 * Spec      Intel SDM volume 3, 2.2 (modes), 3.4 (segments), 9.1 (reset state, table 9-1).
 * Thread    The vCPU's own.
 */
#include "cpu/fpu/fpu.h"
#include "cpu/sys/internal.h"
#include "cpu/sys/model.h"

#include <errno.h>
#include <stdlib.h>

static bool is_flat(const struct cpu *c)
{
    for (unsigned i = SEG_ES; i <= SEG_DS; i++) {
        const struct cpu_segment *s = &c->seg[i];
        unsigned want = i == SEG_CS ? SEG_WRITE_READ | SEG_CODE : SEG_WRITE_READ;
        unsigned mask = i == SEG_CS ? want : want | SEG_CODE | SEG_DOWN_CONF;
        if (s->unusable || s->base || s->limit != UINT32_MAX || (s->type & mask) != want)
            return false;
    }
    return true;
}

static uint32_t mode_of_code(const struct cpu *c)
{
    uint32_t m = 0;
    if (!(c->cr0 & CR0_PE))
        m |= MODE_REAL;
    else if (c->flags_sys & FLAG_VM)
        m |= MODE_REAL | MODE_VM86;
    if (c->efer & EFER_LMA) {
        m |= MODE_LONG;
        if (c->seg[SEG_CS].l)
            return m | MODE_CODE64;
    }
    if (c->seg[SEG_CS].db)
        m |= MODE_CODE32;
    if (c->seg[SEG_SS].db)
        m |= MODE_SS32;
    return is_flat(c) ? m | MODE_FLAT : m;
}

void cpu_update_mode(struct cpu *c)
{
    uint32_t m = mode_of_code(c);
    bool ac = c->flags_sys & FLAG_AC;
    if (c->cr0 & CR0_PG)
        m |= MODE_PAGING;
    if (c->cpl == 3)
        m |= MODE_USER | (ac && c->cr0 & CR0_AM ? MODE_AC : 0);
    else if (c->cr4 & CR4_SMAP && !ac)
        m |= MODE_SMAP_ON;
    if (c->flags_sys & FLAG_TF || c->dr[7] & DR7_ENABLES)
        m |= MODE_TF;
    if (c->cr0 & (CR0_TS | CR0_EM))
        m |= MODE_FPU_NM;
    if (!(c->cr4 & CR4_OSFXSR) || c->cr0 & CR0_EM)
        m |= MODE_SSE_OFF;
    if (!(c->cr4 & CR4_OSXSAVE) || (c->xcr0 & 6) != 6)
        m |= MODE_AVX_OFF;
    c->mode = m | fpu_mode_bits(c);
    for (unsigned i = 0; i < N_SEGS; i++)
        c->seg_base[i] = m & MODE_CODE64 && i < SEG_FS ? 0 : c->seg[i].base;
    mmu_mode_changed(c);
}

/* May a data access of `size` bytes at `off` go through the segment? Protected mode's type rules. */
static bool seg_allows(const struct cpu *c, const struct cpu_segment *s, uint64_t off, unsigned size,
                       bool write)
{
    uint64_t last = off + size - 1;
    if (!(c->mode & MODE_REAL)) {
        if (s->unusable || !s->present)
            return false;
        bool code = s->type & SEG_CODE;
        if (write ? code || !(s->type & SEG_WRITE_READ) : code && !(s->type & SEG_WRITE_READ))
            return false;
    }
    if ((s->type & (SEG_CODE | SEG_DOWN_CONF)) == SEG_DOWN_CONF)
        return off > s->limit && last <= (s->db ? UINT32_MAX : 0xffffu);
    return last <= s->limit;
}

int seg_linear(struct cpu *c, unsigned seg, uint64_t off, unsigned size, bool write, uint64_t *ret_linear)
{
    uint8_t vector = seg == SEG_SS ? EXC_SS : EXC_GP;
    if (c->mode & MODE_CODE64) {
        uint64_t lin = off + (seg >= SEG_FS ? c->seg[seg].base : 0);
        uint64_t last = lin + size - 1;
        if (exec_canonical(lin) != lin || exec_canonical(last) != last)
            return cpu_raise_error(c, vector, 0);
        *ret_linear = lin;
        return 0;
    }
    const struct cpu_segment *s = &c->seg[seg];
    if (!seg_allows(c, s, off, size, write))
        return cpu_raise_error(c, vector, 0);
    *ret_linear = (uint32_t)(s->base + off);
    return 0;
}

/* --- reset --- */

int sys_init(struct cpu *c)
{
    c->sys = calloc(1, sizeof(*c->sys));
    return c->sys ? 0 : -ENOMEM;
}

void sys_done(struct cpu *c)
{
    free(c->sys);
    c->sys = NULL;
}

static void reset_segments(struct cpu *c)
{
    for (unsigned i = 0; i < N_SEGS; i++)
        c->seg[i] = (struct cpu_segment){ .limit = 0xffff, .type = 3, .s = true, .present = true };
    c->seg[SEG_CS].selector = 0xf000;
    c->seg[SEG_CS].base = 0xffff0000;
    c->seg[SEG_CS].type = 11;
    c->ldtr = (struct cpu_segment){ .limit = 0xffff, .type = SYS_LDT, .present = true };
    c->tr = (struct cpu_segment){ .limit = 0xffff, .type = SYS_TSS_BUSY, .present = true };
    c->gdtr = c->idtr = (struct cpu_dtable){ .limit = 0xffff };
}

/* What power-on clears and INIT keeps. */
static void reset_cold(struct cpu *c)
{
    memset(c->sys, 0, sizeof(*c->sys));
    c->star = c->lstar = c->cstar = c->sfmask = c->kernel_gs_base = 0;
    c->sysenter_cs = c->sysenter_esp = c->sysenter_eip = 0;
    c->tsc_aux = c->xss = c->mtrr_def_type = 0;
    c->pat = 0x0007040600070406;
    c->misc_enable = 1; /* fast strings */
    c->sys->mcg_ctl = UINT64_MAX;
    c->sys->syscfg = 0x40000;
    c->sys->hwcr = 1 << 24; /* the TSC counts at P0 */
    c->sys->microcode = c->shared->amd ? 0x01000065 : 1ull << 32;
    c->sys->feature_control = 1;
    c->xcr0 = 1;
    c->cr0 = CR0_CD | CR0_NW;
    cpu_tsc_set(c, 0);
    fpu_reset(c, true);
}

void cpu_reset(struct cpu *c, bool init)
{
    if (!init)
        reset_cold(c);
    memset(c->gpr, 0, sizeof(c->gpr));
    c->gpr[2] = model_signature(c->shared->model);
    c->rip = 0xfff0;
    c->flags_ax = 0;
    c->flags_sys = 2;
    c->cpl = 0;
    c->cr0 = (c->cr0 & (CR0_CD | CR0_NW)) | CR0_ET;
    c->cr2 = c->cr3 = c->cr4 = c->efer = 0;
    memset(c->dr, 0, sizeof(c->dr));
    c->dr[6] = DR6_FIXED;
    c->dr[7] = DR7_FIXED;
    c->int_shadow = 0;
    c->dr6_pending = 0;
    c->halted = c->nmi_blocked = c->tf_latched = false;
    c->nmi_pending = 0;
    atomic_store(&c->nmis, 0);
    reset_segments(c);
    atomic_fetch_and(&c->events, CPU_EV_FLUSH | CPU_EV_STOP);
    mmu_flush_all(c);
    cpu_update_mode(c);
}

void cpu_sipi(struct cpu *c, uint8_t vector)
{
    c->seg[SEG_CS].selector = (uint16_t)(vector << 8);
    c->seg[SEG_CS].base = (uint64_t)vector << 12;
    c->rip = 0;
    c->halted = false;
    cpu_update_mode(c);
}
