/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The words that threaded handlers are written in. They touch memory only through a TLB entry that matches; anything
 * else goes to the instruction's complete handler by exec_complete(). c->rip is the block's start throughout.
 *
 * Private to hot*.c.
 */
#pragma once

#include "cpu/exec/alu.h"
#include "cpu/exec/hot.h"

/* Each handler keeps a jump of its own to the next, which the host's predictor learns apart from all others. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-partial-inlining,no-crossjumping,no-ipa-icf")
#endif

/* 8-bit registers by byte offset (AH..BH are odd ones), others by number. `f`: reg or rm. */
#define GET_8(f)  (((uint8_t *)c->gpr)[i->f])
#define GET_16(f) ((uint16_t)c->gpr[i->f])
#define GET_32(f) ((uint32_t)c->gpr[i->f])
#define GET_64(f) (c->gpr[i->f])
#define PUT_8(f, v)  (((uint8_t *)c->gpr)[i->f] = (v))
#define PUT_16(f, v) (*(uint16_t *)&c->gpr[i->f] = (v))
#define PUT_32(f, v) (c->gpr[i->f] = (uint32_t)(v))
#define PUT_64(f, v) (c->gpr[i->f] = (v))

/* Linear address: B is base and displacement, X everything. */
#define LINEAR_B() (c->slot[i->base] + (uint64_t)(int64_t)i->disp)
#define LINEAR_X() hot_linear(c, i)

static inline uint64_t hot_offset(const struct cpu *c, const struct exec_op *i)
{
    uint64_t off = c->slot[i->base] + (c->slot[i->index] << i->scale) + (uint64_t)(int64_t)i->disp;
    return off << i->shift >> i->shift;
}

static inline uint64_t hot_linear(const struct cpu *c, const struct exec_op *i)
{
    return hot_offset(c, i) + c->seg_base[i->seg];
}

/* Declares `host`, the operand's address here; without a matching TLB entry the complete handler takes over. */
#define HOST_AT(linear, bits, right)                                                               \
    uint64_t lin = (linear);                                                                       \
    struct tlb_entry *e = tlb_at(c, lin);                                                          \
    uint64_t in_page = lin - e->right;                                                             \
    if (unlikely(in_page > PAGE_SIZE - bits / 8))                                                  \
        EXEC_TAIL_CALL exec_complete(c, i);                                                         \
    void *host = e->host + in_page

#define LOAD(bits)     mmu_ram_get_u##bits(host)
#define STORE(bits, v) mmu_ram_put_u##bits(host, v)

#define HOT(name) static int hot_##name(struct cpu *c, const struct exec_op *i)
#define DONE EXEC_GO_ON(c, i)

/* Conditions on cpu->flags_ax: SF 15, ZF 14, PF 10, CF 8, OF 0. */
#define COND_0  (c->flags_ax & 1)
#define COND_2  (c->flags_ax & 0x100)
#define COND_4  (c->flags_ax & 0x4000)
#define COND_6  (c->flags_ax & 0x4100)
#define COND_8  (c->flags_ax & 0x8000)
#define COND_10 (c->flags_ax & 0x400)
#define COND_12 ((c->flags_ax >> 15 ^ c->flags_ax) & 1)
#define COND_14 (COND_12 | (c->flags_ax & 0x4000))
#define COND_1  (!COND_0)
#define COND_3  (!COND_2)
#define COND_5  (!COND_4)
#define COND_7  (!COND_6)
#define COND_9  (!COND_8)
#define COND_11 (!COND_10)
#define COND_13 (!COND_12)
#define COND_15 (!COND_14)

#define FOR_ALL_CONDITIONS(m)                                                                      \
    m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11) m(12) m(13) m(14) m(15)
