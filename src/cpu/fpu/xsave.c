/* SPDX-License-Identifier: GPL-2.0-or-later */
/* FXSAVE, FXRSTOR and the XSAVE family, in software on cpu->xsave.
 *
 * All user components that we have are x87, SSE and AVX; there are no supervisor ones. "In use" is decided
 * by value: a component in its initial configuration is not. FCS and FDS are stored as zero (CPUID.7:EBX[13]).
 *
 * Spec      Intel SDM volume 1, 10.5 and chapter 13; volume 2.
 * Thread    The vCPU's own.
 * Trust     The image is the guest's: copied once, checked, then used; nothing changes before the last fault.
 */
#include "cpu/exec/handlers.h"
#include "cpu/fpu/fpu.h"

#define CR0_EM (1u << 2)
#define CR0_TS (1u << 3)
#define CR4_OSXSAVE (1u << 18)
#define COMPACTED (1ull << 63)

#define AREA_BYTES 832u
#define AVX_BYTES 256u
#define HEADER_BYTES 64u

struct xsave_image {
    uint8_t b[AREA_BYTES] __attribute__((aligned(8)));
};

static unsigned xmm_bytes(const struct cpu *c)
{
    return c->mode & MODE_CODE64 ? 256 : 128;
}

static void put_pointers(struct cpu *c, const struct insn *i, uint8_t *image)
{
    memcpy(image + XS_FIP, c->xsave + XS_FIP, 16);
    if (i->rex_w)
        return;
    memset(image + XS_FIP + 4, 0, 4);
    memset(image + XS_FDP + 4, 0, 4);
}

static void get_pointers(struct cpu *c, const struct insn *i, const uint8_t *image)
{
    memcpy(c->xsave + XS_FIP, image + XS_FIP, 16);
    if (i->rex_w)
        return;
    memset(c->xsave + XS_FIP + 4, 0, 4);
    memset(c->xsave + XS_FDP + 4, 0, 4);
}

/* FCW, FSW, FTW, FOP, pointers; then MXCSR and its mask; registers. */
static void put_legacy(struct cpu *c, const struct insn *i, uint8_t *image)
{
    uint32_t mask = fpu_mxcsr_mask();

    memcpy(image, c->xsave, XS_MXCSR_MASK);
    memcpy(image + XS_MXCSR_MASK, &mask, 4);
    memcpy(image + XS_ST, c->xsave + XS_ST, XS_XMM - XS_ST);
    memcpy(image + XS_XMM, c->xsave + XS_XMM, 256);
    put_pointers(c, i, image);
}

static void get_x87(struct cpu *c, const struct insn *i, const uint8_t *image)
{
    memcpy(c->xsave, image, XS_FIP);
    c->xsave[XS_FTW + 1] = 0;
    *fpu_word(c, XS_FCW) = (*fpu_word(c, XS_FCW) & 0x1f7f) | 0x40;
    *fpu_word(c, XS_FOP) &= 0x7ff;
    x87_update_summary(c);
    get_pointers(c, i, image);
    memset(c->xsave + XS_ST, 0, XS_XMM - XS_ST);
    for (unsigned n = 0; n < 8; n++)
        memcpy(c->xsave + XS_ST + 16 * n, image + XS_ST + 16 * n, 10);
}

static int mxcsr_of(struct cpu *c, const uint8_t *image, uint32_t *ret)
{
    memcpy(ret, image + XS_MXCSR, 4);
    return *ret & ~fpu_mxcsr_mask() ? cpu_raise_error(c, EXC_GP, 0) : 0;
}

/* --- FXSAVE, FXRSTOR --- */

static int fx_check(struct cpu *c, const struct insn *i, bool write, uint64_t *ret_lin)
{
    if (c->cr0 & CR0_EM)
        return cpu_raise(c, EXC_UD);
    if (c->cr0 & CR0_TS)
        return cpu_raise(c, EXC_NM);
    if (exec_linear(c, i, 512, write, ret_lin))
        return X_FAULT;
    if (*ret_lin & 15)
        return cpu_raise_error(c, EXC_GP, 0);
    return mmu_probe(c, *ret_lin, 512, write ? ACCESS_WRITE : ACCESS_READ);
}

int x_fxsave(struct cpu *c, const struct insn *i)
{
    struct xsave_image image;
    uint64_t lin;

    if (fx_check(c, i, true, &lin))
        return X_FAULT;
    fpu_park(c);
    put_legacy(c, i, image.b);
    return mmu_write_slow(c, lin, XS_XMM + xmm_bytes(c), image.b);
}

int x_fxrstor(struct cpu *c, const struct insn *i)
{
    struct xsave_image image;
    uint32_t mxcsr;
    uint64_t lin;

    if (fx_check(c, i, false, &lin) || mmu_read_slow(c, lin, XS_XMM + xmm_bytes(c), image.b) ||
        mxcsr_of(c, image.b, &mxcsr))
        return X_FAULT;
    fpu_park(c);
    get_x87(c, i, image.b);
    *fpu_mxcsr(c) = mxcsr;
    memcpy(c->xsave + XS_XMM, image.b + XS_XMM, xmm_bytes(c));
    fpu_mode_changed(c);
    return X_NEXT;
}

/* --- XSAVE family --- */

static bool all_zero(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && !memcmp(p, p + 1, n - 1));
}

/* Components that are not in their initial configuration. State is parked. */
static uint64_t in_use(struct cpu *c)
{
    const uint8_t *x = c->xsave;
    bool x87 = *fpu_word(c, XS_FCW) != 0x37f || !all_zero(x + XS_FSW, XS_MXCSR - XS_FSW) ||
               !all_zero(x + XS_ST, XS_XMM - XS_ST);
    bool sse = !all_zero(x + XS_XMM, xmm_bytes(c));
    bool avx = !all_zero(x + XS_YMM, xmm_bytes(c));

    return (x87 ? XCR0_X87 : 0) | (sse ? XCR0_SSE : 0) | (avx ? XCR0_AVX : 0);
}

static uint64_t requested(struct cpu *c)
{
    return c->xcr0 & ((uint64_t)(uint32_t)c->gpr[2] << 32 | (uint32_t)c->gpr[0]);
}

static int xs_check(struct cpu *c, const struct insn *i, unsigned size, bool write, uint64_t *ret_lin)
{
    if (!(c->cr4 & CR4_OSXSAVE))
        return cpu_raise(c, EXC_UD);
    if (c->cr0 & CR0_TS)
        return cpu_raise(c, EXC_NM);
    if (exec_linear(c, i, size, write, ret_lin))
        return X_FAULT;
    if (*ret_lin & 63)
        return cpu_raise_error(c, EXC_GP, 0);
    return mmu_probe(c, *ret_lin, size, write ? ACCESS_WRITE : ACCESS_READ);
}

/* Writes the data of the components in `parts`; the whole area was probed. */
static int put_parts(struct cpu *c, const struct insn *i, uint64_t lin, uint64_t parts, bool mxcsr)
{
    struct xsave_image image;

    put_legacy(c, i, image.b);
    if ((parts & XCR0_X87) && (mmu_write_slow(c, lin, XS_MXCSR, image.b) ||
                               mmu_write_slow(c, lin + XS_ST, XS_XMM - XS_ST, image.b + XS_ST)))
        return X_FAULT;
    if (mxcsr && mmu_write_slow(c, lin + XS_MXCSR, 8, image.b + XS_MXCSR))
        return X_FAULT;
    if ((parts & XCR0_SSE) && mmu_write_slow(c, lin + XS_XMM, xmm_bytes(c), image.b + XS_XMM))
        return X_FAULT;
    if ((parts & XCR0_AVX) && mmu_write_slow(c, lin + XS_YMM, xmm_bytes(c), c->xsave + XS_YMM))
        return X_FAULT;
    return X_NEXT;
}

static unsigned area_bytes(uint64_t parts)
{
    return XS_HEADER + HEADER_BYTES + (parts & XCR0_AVX ? AVX_BYTES : 0);
}

/* XSAVE, XSAVEOPT: the standard format; `opt` leaves out the data of components not in use. */
static int save_standard(struct cpu *c, const struct insn *i, bool opt)
{
    uint64_t rfbm = requested(c), lin, bv;

    if (xs_check(c, i, area_bytes(rfbm), true, &lin) || mmu_read_slow(c, lin + XS_HEADER, 8, &bv))
        return X_FAULT;
    fpu_park(c);
    uint64_t used = in_use(c) & rfbm;
    bv = (bv & ~rfbm) | used;
    if (put_parts(c, i, lin, opt ? used : rfbm, rfbm & (XCR0_SSE | XCR0_AVX)))
        return X_FAULT;
    return mmu_write_slow(c, lin + XS_HEADER, 8, &bv);
}

/* XSAVEC, XSAVES: the compacted format. MXCSR belongs to SSE here. */
static int save_compacted(struct cpu *c, const struct insn *i)
{
    uint64_t rfbm = requested(c), lin, header[2];

    if (xs_check(c, i, area_bytes(rfbm), true, &lin))
        return X_FAULT;
    fpu_park(c);
    uint64_t used = in_use(c);
    if (*fpu_mxcsr(c) != MXCSR_DEFAULT)
        used |= XCR0_SSE;
    header[0] = used & rfbm;
    header[1] = rfbm | COMPACTED;
    if (put_parts(c, i, lin, header[0], header[0] & XCR0_SSE))
        return X_FAULT;
    return mmu_write_slow(c, lin + XS_HEADER, sizeof(header), header);
}

int x_xsave(struct cpu *c, const struct insn *i)
{
    return save_standard(c, i, false);
}

int x_xsaveopt(struct cpu *c, const struct insn *i)
{
    return save_standard(c, i, true);
}

int x_xsavec(struct cpu *c, const struct insn *i)
{
    return save_compacted(c, i);
}

int x_xsaves(struct cpu *c, const struct insn *i)
{
    return save_compacted(c, i);
}

/* What an image's header says. */
struct xrstor_plan {
    uint64_t rfbm, load; /* components to change; those of them that come from memory */
    bool compacted;
};

static bool header_is_valid(struct cpu *c, const uint64_t *h, bool compacted)
{
    if (compacted)
        return !(h[1] & ~COMPACTED & ~c->xcr0) && !(h[0] & ~h[1]) && !(h[0] & COMPACTED) &&
               all_zero((const uint8_t *)&h[2], HEADER_BYTES - 16);
    return !(h[0] & ~c->xcr0) && !h[1] && !h[2];
}

static int read_plan(struct cpu *c, uint64_t lin, bool only_compacted, struct xrstor_plan *ret)
{
    uint64_t h[HEADER_BYTES / 8];

    if (mmu_read_slow(c, lin + XS_HEADER, HEADER_BYTES, h))
        return X_FAULT;
    bool compacted = h[1] & COMPACTED;
    if ((compacted && !cpu_has(c, F_XSAVEC)) || (only_compacted && !compacted) ||
        !header_is_valid(c, h, compacted))
        return cpu_raise_error(c, EXC_GP, 0);
    uint64_t rfbm = requested(c);
    *ret = (struct xrstor_plan){ .rfbm = rfbm, .load = rfbm & h[0], .compacted = compacted };
    return 0;
}

static void apply_vectors(struct cpu *c, const struct xrstor_plan *p, const uint8_t *image)
{
    if (p->rfbm & XCR0_SSE) {
        if (p->load & XCR0_SSE)
            memcpy(c->xsave + XS_XMM, image + XS_XMM, xmm_bytes(c));
        else
            memset(c->xsave + XS_XMM, 0, xmm_bytes(c));
    }
    if (p->rfbm & XCR0_AVX) {
        if (p->load & XCR0_AVX)
            memcpy(c->xsave + XS_YMM, image + XS_YMM, xmm_bytes(c));
        else
            memset(c->xsave + XS_YMM, 0, xmm_bytes(c));
    }
}

static int restore(struct cpu *c, const struct insn *i, bool only_compacted)
{
    struct xsave_image image;
    struct xrstor_plan plan;
    uint64_t lin;
    uint32_t mxcsr = *fpu_mxcsr(c);

    if (xs_check(c, i, XS_HEADER + HEADER_BYTES, false, &lin) ||
        read_plan(c, lin, only_compacted, &plan) || mmu_read_slow(c, lin, XS_HEADER, image.b))
        return X_FAULT;
    if ((plan.load & XCR0_AVX) && mmu_read_slow(c, lin + XS_YMM, AVX_BYTES, image.b + XS_YMM))
        return X_FAULT;
    bool has_mxcsr = plan.compacted ? plan.load & XCR0_SSE : plan.rfbm & (XCR0_SSE | XCR0_AVX);
    if (has_mxcsr && mxcsr_of(c, image.b, &mxcsr))
        return X_FAULT;
    if (!has_mxcsr && (plan.rfbm & XCR0_SSE))
        mxcsr = MXCSR_DEFAULT;
    if (plan.rfbm & XCR0_X87) {
        fpu_park(c);
        if (plan.load & XCR0_X87) {
            get_x87(c, i, image.b);
        } else {
            fpu_reset(c, false);
            memset(c->xsave + XS_ST, 0, XS_XMM - XS_ST);
        }
    }
    *fpu_mxcsr(c) = mxcsr;
    apply_vectors(c, &plan, image.b);
    fpu_mode_changed(c);
    return X_NEXT;
}

int x_xrstor(struct cpu *c, const struct insn *i)
{
    return restore(c, i, false);
}

int x_xrstors(struct cpu *c, const struct insn *i)
{
    return restore(c, i, true);
}
