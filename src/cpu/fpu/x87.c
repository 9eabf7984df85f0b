/* SPDX-License-Identifier: GPL-2.0-or-later */
/* x87 instructions on the host's live x87 unit, and moving the state in and out of it.
 *
 * An unmasked exception sets FSW.ES and is reported by the next waiting instruction; we look before each one
 * (only when the guest has unmasked any), so the host's own #MF never comes. CR0.NE = 0 would
 * report by IRQ 13 instead; no system since the 80486 wants that, and #MF is raised there too.
 *
 * Spec      Intel SDM volume 1, chapter 8.
 * Thread    The vCPU's own.
 */
#include "cpu/exec/handlers.h"
#include "cpu/fpu/emit.h"
#include "cpu/fpu/fpu.h"
#include "cpu/fpu/stub.h"

#include <errno.h>

#define CLOBBER_XMM                                                                                \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",       \
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

struct fxsave_area {
    uint8_t b[512] __attribute__((aligned(64)));
};

void x87_update_summary(struct cpu *c)
{
    uint16_t *sw = fpu_word(c, XS_FSW);

    *sw &= (uint16_t) ~(FSW_ES | FSW_BUSY);
    if (*sw & ~*fpu_word(c, XS_FCW) & FPU_EXCEPTIONS)
        *sw |= FSW_ES | FSW_BUSY;
}

void fpu_load_slow(struct cpu *c)
{
    struct fxsave_area area = { 0 };
    uint32_t host = MXCSR_DEFAULT;

    x87_update_summary(c); /* state from outside may claim an error that the host would then report */
    memcpy(area.b, c->xsave, XS_FOP);
    memcpy(area.b + XS_ST, c->xsave + XS_ST, XS_XMM - XS_ST);
    memcpy(area.b + XS_MXCSR, &host, sizeof(host));
    __asm__ volatile("fxrstor64 %0" : : "m"(area) : CLOBBER_XMM);
    c->fpu_live = true;
    c->fpu_unmasked = (~*fpu_word(c, XS_FCW) & FPU_EXCEPTIONS) != 0;
}

void fpu_park_slow(struct cpu *c)
{
    struct fxsave_area area;

    __asm__ volatile("fxsave64 %0; fninit" : "=m"(area));
    memcpy(c->xsave, area.b, XS_FOP);
    memcpy(c->xsave + XS_ST, area.b + XS_ST, XS_XMM - XS_ST);
    c->fpu_live = false;
}

uint32_t fpu_mxcsr_mask(void)
{
    static uint32_t mask;

    if (!mask) {
        struct fxsave_area area = { 0 };
        uint32_t m;
        __asm__ volatile("fxsave64 %0" : "+m"(area));
        memcpy(&m, area.b + XS_MXCSR_MASK, sizeof(m));
        mask = (m ? m : 0xffbf) & 0xffff;
    }
    return mask;
}

uint32_t fpu_mode_bits(struct cpu *c)
{
    uint32_t bits = ~*fpu_mxcsr(c) & MXCSR_MASKS ? MODE_SSE_TRAPS : 0;
    bool x87 = c->fpu_live ? c->fpu_unmasked
                           : (~*fpu_word(c, XS_FCW) & FPU_EXCEPTIONS) || (*fpu_word(c, XS_FSW) & FSW_ES);

    return bits | (x87 ? MODE_X87_TRAPS : 0);
}

void fpu_mode_changed(struct cpu *c)
{
    uint32_t mode = (c->mode & ~(MODE_SSE_TRAPS | MODE_X87_TRAPS)) | fpu_mode_bits(c);

    if (likely(mode == c->mode))
        return;
    c->mode = mode;
    mmu_mode_changed(c); /* the jump cache knows blocks of one mode */
}

void fpu_reset(struct cpu *c, bool all)
{
    fpu_park(c);
    memset(c->xsave, 0, XS_MXCSR);
    *fpu_word(c, XS_FCW) = 0x37f;
    if (!all)
        return;
    memset(c->xsave + XS_MXCSR, 0, sizeof(c->xsave) - XS_MXCSR);
    *fpu_mxcsr(c) = MXCSR_DEFAULT;
    *fpu_word(c, XS_FCW) = 0x40; /* power-on, unlike FNINIT */
    c->xsave[XS_FTW] = 0xff;
}

int fpu_init(struct cpu *c)
{
    fpu_reset(c, true);
    return stub_init();
}

void fpu_done(struct cpu *c)
{
    fpu_park(c);
}

int fpu_no_stub(struct cpu *c)
{
    static const char text[] = "no room for another vector instruction stub";

    memcpy(c->error, text, sizeof(text));
    c->exit_reason = CPU_EXIT_ERROR;
    return X_EXIT;
}

void fpu_bind(struct cpu *c, struct insn *i, const uint8_t *bytes)
{
    uint32_t attr = insn_rows[i->row].attr;

    if (attr & A_X87)
        x87_bind(c, i, bytes);
    else if (i->fn == x_vec || i->fn == x_pcmpstr || i->fn == x_vmaskload || i->fn == x_vmaskstore)
        vec_bind(c, i);
}

/* --- instructions with a stub: aux is its slot, imm the opcode for FOP, imm2 the memory operand's bytes --- */

static void note_pointers(struct cpu *c, const struct insn *i, uint64_t offset)
{
    uint64_t ip = c->rip;

    if (unlikely(c->mode & MODE_REAL)) { /* linear there: FNSTENV shows it so */
        ip += c->seg_base[SEG_CS];
        offset += c->seg_base[i->seg];
    }
    *fpu_word(c, XS_FOP) = (uint16_t)i->imm;
    memcpy(c->xsave + XS_FIP, &ip, 8);
    if (i->mem)
        memcpy(c->xsave + XS_FDP, &offset, 8);
}

static inline uint64_t call_stub(struct cpu *c, const struct insn *i, uint8_t *mem)
{
    return stub_at(i->aux)(NULL, mem, NULL, NULL, c->flags_ax, NULL);
}

static int x87_reg(struct cpu *c, const struct insn *i)
{
    if (fpu_enter(c))
        return X_FAULT;
    call_stub(c, i, NULL);
    note_pointers(c, i, 0);
    return X_NEXT;
}

static int x87_flags(struct cpu *c, const struct insn *i)
{
    if (fpu_enter(c))
        return X_FAULT;
    c->flags_ax = (uint16_t)call_stub(c, i, NULL);
    note_pointers(c, i, 0);
    return X_NEXT;
}

static int x87_load(struct cpu *c, const struct insn *i)
{
    uint8_t *mem;
    uint64_t lin;

    if (fpu_enter(c) || exec_linear(c, i, i->imm2, false, &lin) ||
        mmu_host(c, lin, i->imm2, ACCESS_READ, &mem))
        return X_FAULT;
    if (unlikely(!mem)) {
        mem = c->scratch;
        if (mmu_read_slow(c, lin, i->imm2, mem))
            return X_FAULT;
        if (fpu_enter(c)) /* a device may have parked us */
            return X_FAULT;
    }
    call_stub(c, i, mem);
    note_pointers(c, i, exec_offset(c, i));
    return X_NEXT;
}

/* A store that an unmasked exception suppresses leaves memory alone: the scratch area holds its bytes. */
static int x87_store_slow(struct cpu *c, const struct insn *i, uint64_t lin)
{
    if (mmu_probe(c, lin, i->imm2, ACCESS_WRITE))
        return X_FAULT;
    if (c->fpu_unmasked && mmu_read_slow(c, lin, i->imm2, c->scratch))
        return X_FAULT;
    if (fpu_enter(c))
        return X_FAULT;
    call_stub(c, i, c->scratch);
    note_pointers(c, i, exec_offset(c, i));
    return mmu_write_slow(c, lin, i->imm2, c->scratch);
}

static int x87_store(struct cpu *c, const struct insn *i)
{
    uint8_t *mem;
    uint64_t lin;

    if (fpu_enter(c) || exec_linear(c, i, i->imm2, true, &lin) ||
        mmu_host(c, lin, i->imm2, ACCESS_WRITE, &mem))
        return X_FAULT;
    if (unlikely(!mem))
        return x87_store_slow(c, i, lin);
    call_stub(c, i, mem);
    note_pointers(c, i, exec_offset(c, i));
    return X_NEXT;
}

int x_x87(struct cpu *c, const struct insn *i)
{
    return fpu_no_stub(c);
}

/* Eleven bits: the opcode's low three and ModRM. */
static uint16_t fop_of(const struct insn *i, const uint8_t *bytes)
{
    for (unsigned k = 0; k + 1 < i->len; k++)
        if ((bytes[k] & 0xf8) == 0xd8)
            return (uint16_t)((bytes[k] & 7) << 8 | bytes[k + 1]);
    return 0;
}

void x87_bind(struct cpu *c, struct insn *i, const uint8_t *bytes)
{
    const struct insn_row *row = &insn_rows[i->row];

    i->imm = fop_of(i, bytes);
    if (i->fn != x_x87)
        return;
    i->aux = emit_stub(i);
    if (!i->aux)
        return;
    i->imm2 = (uint8_t)operand_mem_bytes(i);
    i->fn = !i->mem ? row->flags_w ? x87_flags : x87_reg : row->operand[0] == ST0 ? x87_load : x87_store;
}
