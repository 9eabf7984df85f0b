/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The interpreter: decoded-block cache, dispatch, and helpers for handlers.
 *
 * A row's `exec` column names its handler x_<exec>(); handlers.h declares all of them, bind.c checks what a
 * handler need not: the model's features, A_PRIV (#GP), and for A_X87, A_MMX, A_SSE, A_AVX the bits of CR0,
 * CR4 and XCR0 (#UD, #NM). LOCK without A_LOCK and a memory destination, A_NO64, A_ONLY64 and
 * A_NOREAL are the decoder's.
 *
 * Thread    The vCPU's own. Blocks are per vCPU; invalidation of others' goes through CPU_EV_FLUSH.
 */
#pragma once

#include "cpu/mmu/mmu.h"

int exec_init(struct cpu *c); /* 0 or -ENOMEM */
void exec_done(struct cpu *c);
/* Guest memory [gpa, gpa + len) on a page marked as code changed: blocks decoded from there die, in this vCPU
 * at once (a block that overwrites itself leaves after the writing instruction), in others at their next
 * block boundary. */
void exec_invalidate(struct cpu *c, uint64_t gpa, uint64_t len);
void exec_invalidate_all(struct cpu *c);
/* What a row names: x_<exec>. */
exec_fn *exec_row_handler(unsigned row);
/* Binding made the instruction raise, whatever its own handler would do. Emitters of A_PRIV rows check CPL themselves. */
bool exec_bind_refused(const struct insn *i);

/* Effective address (offset) of the ModRM operand, truncated to the address size. rip-relative included. */
uint64_t exec_offset(const struct cpu *c, const struct insn *i);
/* Linear address of the ModRM memory operand for an access; 0 or X_FAULT. */
static inline int exec_linear(struct cpu *c, const struct insn *i, unsigned size, bool write,
                              uint64_t *ret_linear);

static inline uint64_t exec_canonical(uint64_t a)
{
    return (uint64_t)((int64_t)(a << 16) >> 16);
}

/* The same for an offset that was computed already. */
static inline int exec_linear_at(struct cpu *c, unsigned seg, uint64_t off, unsigned size, bool write,
                                 uint64_t *ret_linear)
{
    if (likely(c->mode & MODE_CODE64)) {
        uint64_t lin = off + (seg >= SEG_FS ? c->seg_base[seg] : 0);
        if (likely(exec_canonical(lin) == lin && exec_canonical(lin + size - 1) == lin + size - 1)) {
            *ret_linear = lin;
            return 0;
        }
    } else if (likely((c->mode & MODE_FLAT) && seg < SEG_FS && !(write && seg == SEG_CS) &&
                      off <= 0x100000000ull - size)) {
        *ret_linear = off;
        return 0;
    }
    return seg_linear(c, seg, off, size, write, ret_linear);
}

static inline int exec_linear(struct cpu *c, const struct insn *i, unsigned size, bool write,
                              uint64_t *ret_linear)
{
    return exec_linear_at(c, i->seg, exec_offset(c, i), size, write, ret_linear);
}

/* General registers by encoding number; `rex` decides AH..BH against SPL..DIL. */
static inline uint8_t reg8_get(const struct cpu *c, unsigned n, bool rex)
{
    return (!rex && n >= 4 && n < 8) ? (uint8_t)(c->gpr[n - 4] >> 8) : (uint8_t)c->gpr[n];
}

static inline void reg8_set(struct cpu *c, unsigned n, bool rex, uint8_t v)
{
    if (!rex && n >= 4 && n < 8)
        c->gpr[n - 4] = (c->gpr[n - 4] & ~0xff00ull) | (uint64_t)v << 8;
    else
        c->gpr[n] = (c->gpr[n] & ~0xffull) | v;
}

/* Writes `size` bytes (2, 4, 8) of a register: 4 clears the upper half. */
static inline void reg_set(struct cpu *c, unsigned n, unsigned size, uint64_t v)
{
    if (size == 8)
        c->gpr[n] = v;
    else if (size == 4)
        c->gpr[n] = (uint32_t)v;
    else
        c->gpr[n] = (c->gpr[n] & ~0xffffull) | (uint16_t)v;
}

/* Stack in the current mode: `size` 2, 4 or 8. Nothing changes on X_FAULT. */
int exec_push(struct cpu *c, unsigned size, uint64_t val);
int exec_pop(struct cpu *c, unsigned size, uint64_t *ret_val);
/* The parts of it: the stack pointer's mask, and its write in the stack's address size. */
uint64_t exec_stack_mask(const struct cpu *c);
void exec_stack_set(struct cpu *c, uint64_t sp);
