/* SPDX-License-Identifier: GPL-2.0-or-later */
/* x87 control instructions: control and status word, environment, FSAVE; FWAIT.
 *
 * Spec      Intel SDM volume 1, 8.1.10 (images by mode and operand size); volume 2.
 * Thread    The vCPU's own.
 */
#include "cpu/exec/handlers.h"
#include "cpu/fpu/fpu.h"

static int wait_check(struct cpu *c)
{
    return fpu_status(c) & FSW_ES ? cpu_raise(c, EXC_MF) : 0;
}

/* CR0.MP and TS together make it wait for the x87 owner; EM does not matter. */
int x_fwait(struct cpu *c, const struct insn *i)
{
    if ((c->cr0 & 0xa) == 0xa)
        return cpu_raise(c, EXC_NM);
    return wait_check(c);
}

int x_x87_nop(struct cpu *c, const struct insn *i)
{
    return X_NEXT;
}

int x_fninit(struct cpu *c, const struct insn *i)
{
    uint8_t regs[XS_XMM - XS_ST];
    unsigned top;

    /* Registers keep their values by physical number; the top moves to 0. */
    fpu_park(c);
    top = (*fpu_word(c, XS_FSW) & FSW_TOP) >> 11;
    memcpy(regs, c->xsave + XS_ST, sizeof(regs));
    for (unsigned n = 0; n < 8; n++)
        memcpy(c->xsave + XS_ST + 16 * n, regs + 16 * ((n - top) & 7), 16);
    fpu_reset(c, false);
    fpu_mode_changed(c);
    return X_NEXT;
}

int x_fnclex(struct cpu *c, const struct insn *i)
{
    if (c->fpu_live)
        __asm__ volatile("fnclex");
    else
        *fpu_word(c, XS_FSW) &= 0x7f00;
    return X_NEXT;
}

int x_fldcw(struct cpu *c, const struct insn *i)
{
    uint64_t lin;
    uint16_t cw;

    if (wait_check(c) || exec_linear(c, i, 2, false, &lin) || mmu_read_u16(c, lin, &cw))
        return X_FAULT;
    if (c->fpu_live) {
        __asm__ volatile("fldcw %0; fnstcw %0" : "+m"(cw));
        c->fpu_unmasked = (~cw & FPU_EXCEPTIONS) != 0;
        fpu_mode_changed(c);
        return X_NEXT;
    }
    *fpu_word(c, XS_FCW) = (cw & 0x1f7f) | 0x40;
    x87_update_summary(c);
    fpu_mode_changed(c);
    return X_NEXT;
}

int x_fnstcw(struct cpu *c, const struct insn *i)
{
    uint16_t cw = *fpu_word(c, XS_FCW);
    uint64_t lin;

    if (c->fpu_live)
        __asm__ volatile("fnstcw %0" : "=m"(cw));
    if (exec_linear(c, i, 2, true, &lin))
        return X_FAULT;
    return mmu_write_u16(c, lin, cw);
}

int x_fnstsw(struct cpu *c, const struct insn *i)
{
    uint64_t lin;

    if (exec_linear(c, i, 2, true, &lin))
        return X_FAULT;
    return mmu_write_u16(c, lin, fpu_status(c));
}

int x_fnstsw_ax(struct cpu *c, const struct insn *i)
{
    reg_set(c, 0, 2, fpu_status(c));
    return X_NEXT;
}

/* --- environment images: FCW, FSW, FTW, FIP, FCS/FOP, FDP, FDS in 14 or 28 bytes --- */

/* Two bits for physical register n: valid, zero, special, empty. */
static unsigned full_tag(struct cpu *c, unsigned n)
{
    unsigned top = (*fpu_word(c, XS_FSW) & FSW_TOP) >> 11;
    const uint8_t *r = c->xsave + XS_ST + 16 * ((n - top) & 7);
    uint64_t mantissa;
    uint16_t exponent;

    if (!(c->xsave[XS_FTW] >> n & 1))
        return 3;
    memcpy(&mantissa, r, 8);
    memcpy(&exponent, r + 8, 2);
    exponent &= 0x7fff;
    if (exponent == 0 && mantissa == 0)
        return 1;
    return exponent == 0 || exponent == 0x7fff || !(mantissa >> 63) ? 2 : 0;
}

static uint16_t full_tags(struct cpu *c)
{
    unsigned tags = 0;

    for (unsigned n = 0; n < 8; n++)
        tags |= full_tag(c, n) << (2 * n);
    return (uint16_t)tags;
}

static void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
}

static uint32_t get16(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8;
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, 4);
    return v;
}

static unsigned env_bytes(const struct insn *i)
{
    return i->opsize == 2 ? 14 : 28;
}

/* Real and virtual-8086 mode keep 20-bit linear pointers, split; FOP shares their upper word. */
static void put_pointers(struct cpu *c, const struct insn *i, uint8_t *env)
{
    uint64_t fip, fdp;
    uint32_t fop = *fpu_word(c, XS_FOP) & 0x7ff;
    bool real = c->mode & MODE_REAL;

    memcpy(&fip, c->xsave + XS_FIP, 8);
    memcpy(&fdp, c->xsave + XS_FDP, 8);
    if (i->opsize == 2) {
        put16(env + 6, (uint32_t)fip);
        put16(env + 8, real ? (uint32_t)(fip >> 4 & 0xf000) | fop : 0);
        put16(env + 10, (uint32_t)fdp);
        put16(env + 12, real ? (uint32_t)(fdp >> 4 & 0xf000) : 0);
        return;
    }
    put32(env + 12, real ? (uint32_t)(fip & 0xffff) : (uint32_t)fip);
    put32(env + 16, real ? (uint32_t)(fip >> 4 & 0xffff000) | fop : fop << 16);
    put32(env + 20, real ? (uint32_t)(fdp & 0xffff) | 0xffff0000u : (uint32_t)fdp);
    put32(env + 24, real ? (uint32_t)(fdp >> 4 & 0xffff000) : 0xffff0000u);
}

static void env_build(struct cpu *c, const struct insn *i, uint8_t *env)
{
    unsigned step = i->opsize == 2 ? 2 : 4;
    uint32_t ones = step == 4 ? 0xffff0000u : 0;

    memset(env, 0, env_bytes(i));
    const uint32_t words[3] = { *fpu_word(c, XS_FCW), *fpu_word(c, XS_FSW), full_tags(c) };
    for (unsigned k = 0; k < 3; k++) {
        if (step == 2)
            put16(env + 2 * k, words[k]);
        else
            put32(env + 4 * k, words[k] | ones);
    }
    put_pointers(c, i, env);
}

static void get_pointers(struct cpu *c, const struct insn *i, const uint8_t *env)
{
    bool real = c->mode & MODE_REAL;
    uint64_t fip, fdp;
    uint16_t fop;

    if (i->opsize == 2) {
        fip = get16(env + 6) | (real ? (get16(env + 8) & 0xf000) << 4 : 0);
        fdp = get16(env + 10) | (real ? (get16(env + 12) & 0xf000) << 4 : 0);
        fop = real ? get16(env + 8) & 0x7ff : 0;
    } else {
        fip = real ? get16(env + 12) | (get32(env + 16) & 0xffff000) << 4 : get32(env + 12);
        fdp = real ? get16(env + 20) | (get32(env + 24) & 0xffff000) << 4 : get32(env + 20);
        fop = (real ? get32(env + 16) : get32(env + 16) >> 16) & 0x7ff;
    }
    *fpu_word(c, XS_FOP) = fop;
    memcpy(c->xsave + XS_FIP, &fip, 8);
    memcpy(c->xsave + XS_FDP, &fdp, 8);
}

/* State is parked. The tags' kinds are computed anew when stored: only empty or not is kept. */
static void env_apply(struct cpu *c, const struct insn *i, const uint8_t *env)
{
    unsigned step = i->opsize == 2 ? 2 : 4;
    uint32_t tags = get16(env + 2 * step);
    uint8_t full = 0;

    *fpu_word(c, XS_FCW) = (uint16_t)((get16(env) & 0x1f7f) | 0x40);
    *fpu_word(c, XS_FSW) = (uint16_t)get16(env + step);
    for (unsigned n = 0; n < 8; n++)
        full |= (uint8_t)(((tags >> (2 * n) & 3) != 3) << n);
    c->xsave[XS_FTW] = full;
    x87_update_summary(c);
    get_pointers(c, i, env);
}

int x_fnstenv(struct cpu *c, const struct insn *i)
{
    uint8_t env[28];
    uint64_t lin;

    if (exec_linear(c, i, env_bytes(i), true, &lin))
        return X_FAULT;
    fpu_park(c);
    env_build(c, i, env);
    if (mmu_write_slow(c, lin, env_bytes(i), env))
        return X_FAULT;
    *fpu_word(c, XS_FCW) |= FPU_EXCEPTIONS;
    x87_update_summary(c);
    fpu_mode_changed(c);
    return X_NEXT;
}

int x_fldenv(struct cpu *c, const struct insn *i)
{
    uint8_t env[28];
    uint64_t lin;

    if (wait_check(c) || exec_linear(c, i, env_bytes(i), false, &lin) ||
        mmu_read_slow(c, lin, env_bytes(i), env))
        return X_FAULT;
    fpu_park(c);
    uint8_t phys[128]; /* by physical register: a new top must not move them */
    unsigned top = (*fpu_word(c, XS_FSW) & FSW_TOP) >> 11;
    for (unsigned n = 0; n < 8; n++)
        memcpy(phys + 16 * n, c->xsave + XS_ST + 16 * ((n - top) & 7), 16);
    env_apply(c, i, env);
    top = (*fpu_word(c, XS_FSW) & FSW_TOP) >> 11;
    for (unsigned n = 0; n < 8; n++)
        memcpy(c->xsave + XS_ST + 16 * ((n - top) & 7), phys + 16 * n, 16);
    fpu_mode_changed(c);
    return X_NEXT;
}

int x_fnsave(struct cpu *c, const struct insn *i)
{
    uint8_t image[108];
    unsigned env = env_bytes(i);
    uint64_t lin;

    if (exec_linear(c, i, env + 80, true, &lin))
        return X_FAULT;
    fpu_park(c);
    env_build(c, i, image);
    for (unsigned n = 0; n < 8; n++)
        memcpy(image + env + 10 * n, c->xsave + XS_ST + 16 * n, 10);
    if (mmu_write_slow(c, lin, env + 80, image))
        return X_FAULT;
    return x_fninit(c, i);
}

int x_frstor(struct cpu *c, const struct insn *i)
{
    uint8_t image[108];
    unsigned env = env_bytes(i);
    uint64_t lin;

    if (wait_check(c) || exec_linear(c, i, env + 80, false, &lin) ||
        mmu_read_slow(c, lin, env + 80, image))
        return X_FAULT;
    fpu_park(c);
    env_apply(c, i, image);
    memset(c->xsave + XS_ST, 0, XS_XMM - XS_ST);
    for (unsigned n = 0; n < 8; n++)
        memcpy(c->xsave + XS_ST + 16 * n, image + env + 10 * n, 10);
    fpu_mode_changed(c);
    return X_NEXT;
}
