/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Vector and x87 state, and how instructions on it run.
 *
 * An instruction runs on the host's own unit, through a stub (stub.h) that loads its vector registers from
 * cpu->xsave, executes it with the memory operand redirected, and stores what it wrote.
 *
 * x87 and MMX registers stay in the host's unit from their first use until fpu_park(): while cpu->fpu_live,
 * FCW, FSW, FTW and the registers in cpu->xsave are stale; FOP, FIP and FDP there are always true, since the
 * host's would name our own addresses. Host code compiled for x86-64 leaves x87 alone but for long double,
 * so whoever leaves the interpreter parks first: cpu_run() when it returns, callbacks to devices.
 *
 * MXCSR is the guest's, with all exceptions masked, only inside stubs; its control bits are the host's
 * defaults whenever C runs.
 *
 * Spec      Intel SDM volume 1, chapters 8 to 15; volume 2.
 * Thread    The vCPU's own.
 */
#pragma once

#include "cpu/exec/exec.h"
#include "cpu/shared.h"

/* The legacy region and the header of cpu->xsave. */
enum {
    XS_FCW = 0, XS_FSW = 2, XS_FTW = 4, XS_FOP = 6, XS_FIP = 8, XS_FDP = 16, XS_MXCSR = 24,
    XS_MXCSR_MASK = 28, XS_ST = 32, XS_XMM = 160, XS_LEGACY_END = 512, XS_HEADER = 512, XS_YMM = 576,
};
#define XCR0_X87 1u
#define XCR0_SSE 2u
#define XCR0_AVX 4u

#define FSW_ES 0x0080u
#define FSW_BUSY 0x8000u
#define FSW_TOP 0x3800u
#define FPU_EXCEPTIONS 0x3fu /* of FSW, FCW and MXCSR's low bits */
#define MXCSR_DEFAULT 0x1f80u
#define MXCSR_MASKS 0x1f80u

/* FSW.ES and B follow from the flags and FCW's masks. State is parked. */
void x87_update_summary(struct cpu *c);
void fpu_load_slow(struct cpu *c);
void fpu_park_slow(struct cpu *c);
/* Reserved bits are clear in this mask: what the host's FXSAVE shows. */
uint32_t fpu_mxcsr_mask(void);
/* x87 as after FNINIT; SSE and AVX as after power-on too if `all`. */
void fpu_reset(struct cpu *c, bool all);

/* cpu->xsave becomes the truth and the host's x87 unit is empty. */
static inline void fpu_park(struct cpu *c)
{
    if (unlikely(c->fpu_live))
        fpu_park_slow(c);
}

static inline uint8_t *fpu_xmm(struct cpu *c, unsigned n)
{
    return c->xsave + XS_XMM + 16 * n;
}

static inline uint32_t *fpu_mxcsr(struct cpu *c)
{
    return (uint32_t *)(c->xsave + XS_MXCSR);
}

static inline uint16_t *fpu_word(struct cpu *c, unsigned at)
{
    return (uint16_t *)(c->xsave + at);
}

/* The MODE_*_TRAPS bits of the state as it is. */
uint32_t fpu_mode_bits(struct cpu *c);
/* MXCSR, FCW or a parked FSW was written: c->mode follows. cpu_update_mode() does so too. */
void fpu_mode_changed(struct cpu *c);

/* The status word, wherever it is. */
static inline uint16_t fpu_status(struct cpu *c)
{
    uint16_t sw = *fpu_word(c, XS_FSW);

    if (c->fpu_live)
        __asm__ volatile("fnstsw %0" : "=a"(sw));
    return sw;
}

/* Makes the guest's x87 state live; a pending unmasked exception is #MF. 0 or X_FAULT. */
static inline int fpu_enter(struct cpu *c)
{
    if (unlikely(!c->fpu_live))
        fpu_load_slow(c);
    if (unlikely(c->fpu_unmasked) && (fpu_status(c) & FSW_ES))
        return cpu_raise(c, EXC_MF);
    return 0;
}

/* An element of a masked move or gather: no alignment check. 0 or X_FAULT. */
static inline int fpu_read_element(struct cpu *c, uint64_t lin, unsigned size, void *buf)
{
    return unlikely(c->mode & MODE_AC) ? mmu_read_cpl(c, c->cpl, lin, size, buf)
                                       : mmu_read_slow(c, lin, size, buf);
}

void vec_bind(struct cpu *c, struct insn *i);
void x87_bind(struct cpu *c, struct insn *i, const uint8_t *bytes);
/* The answer of a handler that has no stub: X_EXIT with CPU_EXIT_ERROR. */
int fpu_no_stub(struct cpu *c);
