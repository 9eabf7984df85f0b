/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Vector instructions whose memory accesses no single host instruction may do: byte masks, gathers; and
 * those that touch only the state: MXCSR, VZEROALL, EMMS.
 *
 * Spec      Intel SDM volume 2.
 * Thread    The vCPU's own.
 */
#include "cpu/exec/handlers.h"
#include "cpu/fpu/fpu.h"

static uint64_t truncate_offset(const struct insn *i, uint64_t off)
{
    return i->adsize == 8 ? off : i->adsize == 4 ? (uint32_t)off : (uint16_t)off;
}

/* Stores the bytes of `data` whose `mask` byte has its top bit set at segment:rDI. All of the memory must be writable,
 * as on the processors that we compare with; the architecture leaves it open for masked bytes. */
static int store_bytes(struct cpu *c, const struct insn *i, const uint8_t *data, const uint8_t *mask,
                       unsigned count)
{
    uint64_t lin;

    if (seg_linear(c, i->seg, truncate_offset(i, c->gpr[7]), count, true, &lin) ||
        mmu_probe(c, lin, count, ACCESS_WRITE))
        return X_FAULT;
    for (unsigned k = 0; k < count; k++)
        if ((mask[k] & 0x80) && mmu_write_u8(c, lin + k, data[k]))
            return X_FAULT;
    return X_NEXT;
}

int x_maskmovdqu(struct cpu *c, const struct insn *i)
{
    return store_bytes(c, i, fpu_xmm(c, i->reg), fpu_xmm(c, i->rm), 16);
}

/* MMX registers are by physical number, the save area by distance from the top of the stack. */
static const uint8_t *parked_mm(struct cpu *c, unsigned n)
{
    unsigned top = (*fpu_word(c, XS_FSW) & FSW_TOP) >> 11;

    return c->xsave + XS_ST + 16 * ((n - top) & 7);
}

int x_maskmovq(struct cpu *c, const struct insn *i)
{
    if (fpu_enter(c))
        return X_FAULT;
    fpu_park(c);
    uint8_t regs[128]; /* any MMX instruction: top is 0, all registers in use; so even when it faults */
    for (unsigned n = 0; n < 8; n++)
        memcpy(regs + 16 * n, parked_mm(c, n), 16);
    memcpy(c->xsave + XS_ST, regs, sizeof(regs));
    *fpu_word(c, XS_FSW) &= (uint16_t)~FSW_TOP;
    c->xsave[XS_FTW] = 0xff;
    return store_bytes(c, i, parked_mm(c, i->reg & 7), parked_mm(c, i->rm & 7), 8);
}

int x_emms(struct cpu *c, const struct insn *i)
{
    if (fpu_enter(c))
        return X_FAULT;
    __asm__ volatile("emms");
    return X_NEXT;
}

int x_ldmxcsr(struct cpu *c, const struct insn *i)
{
    uint64_t lin;
    uint32_t v;

    if (exec_linear(c, i, 4, false, &lin) || mmu_read_u32(c, lin, &v))
        return X_FAULT;
    if (v & ~fpu_mxcsr_mask())
        return cpu_raise_error(c, EXC_GP, 0);
    *fpu_mxcsr(c) = v;
    fpu_mode_changed(c);
    return X_NEXT;
}

int x_stmxcsr(struct cpu *c, const struct insn *i)
{
    uint64_t lin;

    if (exec_linear(c, i, 4, true, &lin))
        return X_FAULT;
    return mmu_write_u32(c, lin, *fpu_mxcsr(c));
}

/* VZEROUPPER, VZEROALL: outside 64-bit mode the upper eight registers stay. */
int x_vzero(struct cpu *c, const struct insn *i)
{
    size_t bytes = c->mode & MODE_CODE64 ? 256 : 128;

    memset(c->xsave + XS_YMM, 0, bytes);
    if (i->vl == 32)
        memset(c->xsave + XS_XMM, 0, bytes);
    return X_NEXT;
}

/* --- gathers --- */

struct gather {
    unsigned element, index_bytes, count; /* bytes of data and index elements, how many */
};

static uint8_t *element_at(struct cpu *c, unsigned n, unsigned byte)
{
    return fpu_xmm(c, n) + (byte & 15) + (byte >= 16 ? XS_YMM - XS_XMM : 0);
}

static int64_t gather_index(struct cpu *c, const struct insn *i, const struct gather *g, unsigned k)
{
    int64_t wide;
    int32_t narrow;

    if (g->index_bytes == 8) {
        memcpy(&wide, element_at(c, i->index, 8 * k), 8);
        return wide;
    }
    memcpy(&narrow, element_at(c, i->index, 4 * k), 4);
    return narrow;
}

static int gather_one(struct cpu *c, const struct insn *i, const struct gather *g, unsigned k)
{
    struct insn base = *i;
    uint64_t lin, v = 0;

    base.index = REG_NONE;
    uint64_t off = exec_offset(c, &base) + ((uint64_t)gather_index(c, i, g, k) << i->scale);
    if (seg_linear(c, i->seg, truncate_offset(i, off), g->element, false, &lin) ||
        fpu_read_element(c, lin, g->element, &v))
        return X_FAULT;
    memcpy(element_at(c, i->reg, k * g->element), &v, g->element);
    return 0;
}

static void clear_from(struct cpu *c, unsigned n, unsigned byte)
{
    for (; byte < 32; byte += 4)
        memset(element_at(c, n, byte), 0, 4);
}

/* Elements that were read stay read when a later one faults: their mask is clear by then. */
int x_vgather(struct cpu *c, const struct insn *i)
{
    struct gather g = { .element = i->rex_w ? 8 : 4, .index_bytes = insn_rows[i->row].opcode & 1 ? 8 : 4 };

    g.count = i->vl / (g.element > g.index_bytes ? g.element : g.index_bytes);
    if (i->reg == i->vvvv || i->reg == i->index || i->vvvv == i->index)
        return cpu_raise(c, EXC_UD);
    for (unsigned k = 0; k < g.count; k++) {
        uint8_t *m = element_at(c, i->vvvv, k * g.element);
        if ((m[g.element - 1] & 0x80) && gather_one(c, i, &g, k))
            return X_FAULT;
        memset(m, 0, g.element);
    }
    clear_from(c, i->vvvv, 0);
    clear_from(c, i->reg, g.count * g.element);
    return X_NEXT;
}
