/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Control registers and the mode switches they make: MOV CRn, LMSW, SMSW, CLTS, XSETBV; INVLPG,
 * INVPCID.
 *
 * Spec      Intel SDM volume 2 (MOV CR); volume 3, 2.5, 4.1, 4.10.4, 9.8.5 (entering IA-32e mode).
 * Thread    The vCPU's own.
 */
#include "cpu/exec/handlers.h"
#include "cpu/fpu/fpu.h"
#include "cpu/sys/internal.h"
#include "cpu/sys/model.h"
#include "cpu/sys/operand.h"

#define CR0_DEFINED \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)

static int gp0(struct cpu *c)
{
    return cpu_raise_error(c, EXC_GP, 0);
}

/* --- CR0 --- */

static bool cr0_valid(const struct cpu *c, uint64_t v)
{
    if (v >> 32 || (v & CR0_PG && !(v & CR0_PE)) || (v & CR0_NW && !(v & CR0_CD)))
        return false;
    if (v & CR0_PG && !(c->cr0 & CR0_PG) && c->efer & EFER_LME &&
        (!(c->cr4 & CR4_PAE) || c->seg[SEG_CS].l))
        return false;
    return v & CR0_PG || !(c->mode & MODE_CODE64 || c->cr4 & CR4_PCIDE);
}

static int cr0_write(struct cpu *c, uint64_t v)
{
    if (!cr0_valid(c, v))
        return gp0(c);
    uint32_t new = ((uint32_t)v & CR0_DEFINED) | CR0_ET;
    uint32_t changed = new ^ (uint32_t)c->cr0;
    bool pae_on = changed & CR0_PG && new & CR0_PG && c->cr4 & CR4_PAE && !(c->efer & EFER_LME);
    if (pae_on && !mmu_load_pdptes(c, c->cr3, true))
        return gp0(c);
    c->cr0 = new;
    if (changed & CR0_PG) {
        bool lma = new & CR0_PG && c->efer & EFER_LME;
        c->efer = lma ? c->efer | EFER_LMA : c->efer & ~(uint64_t)EFER_LMA;
    }
    if (changed & (CR0_PG | CR0_WP | CR0_PE))
        mmu_flush_all(c);
    cpu_update_mode(c);
    return 0;
}

/* --- CR3, CR4 --- */

static int cr3_write(struct cpu *c, uint64_t v)
{
    bool pcide = c->cr4 & CR4_PCIDE, keep = pcide && v >> 63;
    if (pcide)
        v &= ~(1ull << 63);
    if (c->efer & EFER_LMA) {
        if (v & ~c->shared->phys_mask)
            return gp0(c);
    } else if (c->cr4 & CR4_PAE && c->cr0 & CR0_PG && !mmu_load_pdptes(c, v, true)) {
        return gp0(c);
    }
    mmu_set_cr3(c, v, keep);
    return 0;
}

uint64_t cr4_allowed(const struct cpu_model *m)
{
    static const struct {
        uint32_t bit;
        uint8_t word, at;
    } rows[] = {
        { CR4_DE, W_1_EDX, 2 },        { CR4_PSE, W_1_EDX, 3 },      { CR4_PAE, W_1_EDX, 6 },
        { CR4_PGE, W_1_EDX, 13 },      { CR4_OSFXSR, W_1_EDX, 24 },  { CR4_OSXMMEXCPT, W_1_EDX, 25 },
        { CR4_UMIP, W_7_ECX, 2 },      { CR4_FSGSBASE, W_7_EBX, 0 }, { CR4_PCIDE, W_1_ECX, 17 },
        { CR4_OSXSAVE, W_1_ECX, 26 },  { CR4_SMEP, W_7_EBX, 7 },     { CR4_SMAP, W_7_EBX, 20 },
        { CR4_MCE, W_1_EDX, 7 },       { CR4_TSD, W_1_EDX, 4 },
    };
    uint64_t ok = CR4_PCE;
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++)
        if (model_has(m, rows[i].word, rows[i].at))
            ok |= rows[i].bit;
    return ok;
}

static int cr4_write(struct cpu *c, uint64_t v)
{
    uint64_t changed = v ^ c->cr4;
    if (v & ~cr4_allowed(c->shared->model) || (c->efer & EFER_LMA && !(v & CR4_PAE)))
        return gp0(c);
    if (changed & v & CR4_PCIDE && (!(c->efer & EFER_LMA) || c->cr3 & 0xfff))
        return gp0(c);
    bool legacy_pae = v & CR4_PAE && c->cr0 & CR0_PG && !(c->efer & EFER_LMA);
    if (legacy_pae && changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP) &&
        !mmu_load_pdptes(c, c->cr3, true))
        return gp0(c);
    c->cr4 = v;
    if (changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_PCIDE | CR4_SMEP | CR4_SMAP))
        mmu_flush_all(c);
    cpu_update_mode(c);
    return 0;
}

/* --- MOV CRn --- */

int x_mov_from_cr(struct cpu *c, const struct insn *i)
{
    uint64_t v;
    switch (i->reg) {
    case 0: v = c->cr0; break;
    case 2: v = c->cr2; break;
    case 3: v = c->cr3; break;
    case 4: v = c->cr4; break;
    case 8:
        fpu_park(c);
        v = c->cb->tpr_read(c->opaque);
        break;
    default: return cpu_raise(c, EXC_UD);
    }
    reg_set(c, i->rm, c->mode & MODE_CODE64 ? 8 : 4, v);
    return X_NEXT;
}

int x_mov_to_cr(struct cpu *c, const struct insn *i)
{
    uint64_t v = c->mode & MODE_CODE64 ? c->gpr[i->rm] : (uint32_t)c->gpr[i->rm];
    int r = 0;
    switch (i->reg) {
    case 0: r = cr0_write(c, v); break;
    case 2: c->cr2 = v; break;
    case 3: r = cr3_write(c, v); break;
    case 4: r = cr4_write(c, v); break;
    case 8:
        if (v > 15)
            return gp0(c);
        fpu_park(c);
        c->cb->tpr_write(c->opaque, v);
        break;
    default: return cpu_raise(c, EXC_UD);
    }
    return r ? r : next_anew(c, i);
}

int x_lmsw(struct cpu *c, const struct insn *i)
{
    uint64_t v;
    int r = rm_read(c, i, 2, &v);
    if (r)
        return r;
    v = (c->cr0 & ~0xeull) | (v & 0xf); /* PE can be set, not cleared */
    r = cr0_write(c, v);
    return r ? r : next_anew(c, i);
}

static bool umip_forbids(const struct cpu *c)
{
    return c->cr4 & CR4_UMIP && c->cpl > 0;
}

int x_smsw(struct cpu *c, const struct insn *i)
{
    if (umip_forbids(c))
        return gp0(c);
    return rm_write(c, i, 2, i->opsize, c->cr0);
}

int x_clts(struct cpu *c, const struct insn *i)
{
    c->cr0 &= ~(uint64_t)CR0_TS;
    cpu_update_mode(c);
    return next_anew(c, i);
}

/* --- XCR0 --- */

int x_xgetbv(struct cpu *c, const struct insn *i)
{
    uint32_t n = (uint32_t)c->gpr[1];
    if (!(c->cr4 & CR4_OSXSAVE))
        return cpu_raise(c, EXC_UD);
    /* 1: XCR0 AND XINUSE; nothing here is ever known to be in its initial state. */
    if (n > 1 || (n == 1 && !model_has(c->shared->model, W_D1_EAX, 2)))
        return gp0(c);
    c->gpr[0] = (uint32_t)c->xcr0;
    c->gpr[2] = c->xcr0 >> 32;
    return X_NEXT;
}

uint64_t xcr0_allowed(const struct cpu_model *m)
{
    if (!model_has(m, W_1_ECX, 26))
        return 1;
    return model_has(m, W_1_ECX, 28) ? 7 : 3;
}

int x_xsetbv(struct cpu *c, const struct insn *i)
{
    uint64_t v = (uint32_t)c->gpr[0] | c->gpr[2] << 32;
    if (!(c->cr4 & CR4_OSXSAVE))
        return cpu_raise(c, EXC_UD);
    if (c->cpl || (uint32_t)c->gpr[1] || !(v & 1) || v & ~xcr0_allowed(c->shared->model) ||
        (v & 6) == 4)
        return gp0(c);
    c->xcr0 = v;
    cpu_update_mode(c);
    return next_anew(c, i);
}

/* --- TLB instructions --- */

int x_invlpg(struct cpu *c, const struct insn *i)
{
    uint64_t lin = exec_offset(c, i) + c->seg_base[i->seg];
    if (!(c->mode & MODE_CODE64))
        lin = (uint32_t)lin;
    if (exec_canonical(lin) == lin)
        mmu_flush_page(c, lin);
    return next_anew(c, i);
}

int x_invpcid(struct cpu *c, const struct insn *i)
{
    uint64_t type = c->mode & MODE_CODE64 ? c->gpr[i->reg] : (uint32_t)c->gpr[i->reg];
    uint64_t desc[2], lin;
    int r = exec_linear(c, i, 16, false, &lin);
    if (r || (r = mmu_read_slow(c, lin, 16, desc)))
        return r;
    bool bad_pcid = type < 2 && desc[0] && !(c->cr4 & CR4_PCIDE);
    if (type > 3 || desc[0] >> 12 || bad_pcid || (type == 0 && exec_canonical(desc[1]) != desc[1]))
        return gp0(c);
    switch (type) {
    case 0: mmu_flush_pcid_page(c, (unsigned)desc[0], desc[1]); break;
    case 1: mmu_flush_pcid(c, (unsigned)desc[0]); break;
    case 2: mmu_flush_all(c); break;
    default: mmu_flush_nonglobal(c); break;
    }
    return next_anew(c, i);
}
