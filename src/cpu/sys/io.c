/* SPDX-License-Identifier: GPL-2.0-or-later */
/* IN, OUT, INS, OUTS, and the interrupt flag.
 *
 * Spec      Intel SDM volume 1, chapter 19 (I/O); volume 2.
 * Thread    The vCPU's own; callbacks to devices run here.
 */
#include "cpu/exec/handlers.h"
#include "cpu/fpu/fpu.h"
#include "cpu/sys/internal.h"
#include "cpu/sys/operand.h"

#define REP_BATCH 64 /* items of a REP before events are looked at */

static bool iopl_allows(const struct cpu *c)
{
    return c->cpl <= (c->flags_sys & FLAG_IOPL) >> 12;
}

int io_check(struct cpu *c, uint16_t port, unsigned size)
{
    uint16_t base, bits;
    if (!(c->cr0 & CR0_PE) || (iopl_allows(c) && !(c->mode & MODE_VM86)))
        return 0;
    if (c->tr.unusable || !(c->tr.type & 8) || c->tr.limit < 103)
        return cpu_raise_error(c, EXC_GP, 0);
    int r = mmu_read_sys(c, c->tr.base + 102, 2, &base);
    if (r)
        return r;
    uint32_t at = base + port / 8u;
    if (at + 1 > c->tr.limit)
        return cpu_raise_error(c, EXC_GP, 0);
    if ((r = mmu_read_sys(c, c->tr.base + at, 2, &bits)))
        return r;
    if (bits >> (port % 8) & ((1u << size) - 1))
        return cpu_raise_error(c, EXC_GP, 0);
    return 0;
}

static uint32_t port_read(struct cpu *c, uint16_t port, unsigned size)
{
    c->stats.pio++;
    fpu_park(c);
    debug_io(c, port, size);
    uint64_t v = c->cb->io_read(c->opaque, port, size);
    return size == 4 ? (uint32_t)v : (uint32_t)v & ((1u << size * 8) - 1);
}

static void port_write(struct cpu *c, uint16_t port, uint32_t v, unsigned size)
{
    c->stats.pio++;
    fpu_park(c);
    debug_io(c, port, size);
    c->cb->io_write(c->opaque, port, size == 4 ? v : v & ((1u << size * 8) - 1), size);
}

/* Opcode bit 3: DX; else an immediate byte. */
static uint16_t port_of(const struct cpu *c, const struct insn *i)
{
    return insn_rows[i->row].opcode & 8 ? (uint16_t)c->gpr[2] : (uint8_t)i->imm;
}

static unsigned size_of(const struct insn *i)
{
    return insn_rows[i->row].opcode & 1 ? (i->opsize == 2 ? 2 : 4) : 1;
}

/* The device may have stopped or woken us: the next instruction starts a new block. */
int x_in(struct cpu *c, const struct insn *i)
{
    uint16_t port = port_of(c, i);
    unsigned size = size_of(i);
    int r = io_check(c, port, size);
    if (r)
        return r;
    uint32_t v = port_read(c, port, size);
    if (size == 1)
        reg8_set(c, 0, true, (uint8_t)v);
    else
        reg_set(c, 0, size, v);
    return next_anew(c, i);
}

int x_out(struct cpu *c, const struct insn *i)
{
    uint16_t port = port_of(c, i);
    unsigned size = size_of(i);
    int r = io_check(c, port, size);
    if (r)
        return r;
    port_write(c, port, (uint32_t)c->gpr[0], size);
    return next_anew(c, i);
}

/* --- INS, OUTS --- */

static uint64_t address_mask(const struct insn *i)
{
    return i->adsize == 8 ? UINT64_MAX : (1ull << i->adsize * 8) - 1;
}

static void index_step(struct cpu *c, const struct insn *i, unsigned reg, unsigned size)
{
    uint64_t step = c->flags_sys & FLAG_DF ? -(uint64_t)size : size;
    reg_set(c, reg, i->adsize, c->gpr[reg] + step);
}

static int ins_one(struct cpu *c, const struct insn *i, uint16_t port, unsigned size)
{
    uint64_t lin;
    int r = io_check(c, port, size);
    if (r || (r = seg_linear(c, SEG_ES, c->gpr[7] & address_mask(i), size, true, &lin)) ||
        (r = mmu_probe(c, lin, size, ACCESS_WRITE)))
        return r;
    uint32_t v = port_read(c, port, size);
    if ((r = mmu_write_slow(c, lin, size, &v)))
        return r;
    index_step(c, i, 7, size);
    return 0;
}

static int outs_one(struct cpu *c, const struct insn *i, uint16_t port, unsigned size)
{
    uint64_t lin;
    uint32_t v = 0;
    int r = io_check(c, port, size);
    if (r || (r = seg_linear(c, i->seg, c->gpr[6] & address_mask(i), size, false, &lin)) ||
        (r = mmu_read_slow(c, lin, size, &v)))
        return r;
    port_write(c, port, v, size);
    index_step(c, i, 6, size);
    return 0;
}

typedef int string_one(struct cpu *c, const struct insn *i, uint16_t port, unsigned size);

static int string_io(struct cpu *c, const struct insn *i, string_one *one)
{
    uint16_t port = (uint16_t)c->gpr[2];
    unsigned size = size_of(i);
    if (!i->rep && !i->repne) {
        int r = one(c, i, port, size);
        return r ? r : next_anew(c, i);
    }
    for (unsigned n = 0; n < REP_BATCH; n++) {
        if (!(c->gpr[1] & address_mask(i)))
            return next_anew(c, i);
        int r = one(c, i, port, size);
        if (r)
            return r;
        reg_set(c, 1, i->adsize, c->gpr[1] - 1);
        if (c->mode & MODE_TF)
            break;
    }
    return c->gpr[1] & address_mask(i) ? X_AGAIN : next_anew(c, i);
}

int x_ins(struct cpu *c, const struct insn *i)
{
    return string_io(c, i, ins_one);
}

int x_outs(struct cpu *c, const struct insn *i)
{
    return string_io(c, i, outs_one);
}

/* --- CLI, STI --- */

int x_cli(struct cpu *c, const struct insn *i)
{
    if (c->cr0 & CR0_PE && !iopl_allows(c))
        return cpu_raise_error(c, EXC_GP, 0);
    c->flags_sys &= ~FLAG_IF;
    return X_NEXT;
}

int x_sti(struct cpu *c, const struct insn *i)
{
    if (c->cr0 & CR0_PE && !iopl_allows(c))
        return cpu_raise_error(c, EXC_GP, 0);
    if (!(c->flags_sys & FLAG_IF)) {
        c->flags_sys |= FLAG_IF;
        c->int_shadow = 1;
    }
    return next_anew(c, i);
}
