/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Dispatch: how threaded handlers go on, and how they leave.
 *
 * A threaded handler runs with cpu->rip at its *block's* start and ends by running the next instruction's. Calls in
 * tail position are jumps, so a block takes no stack; where the compiler does not promise that (no
 * optimisation, sanitizers) a block is at most BLOCK_MAX_INSNS frames deep, and goes back to the
 * dispatcher at its end.
 */
#pragma once

#include "cpu/exec/block.h"

#if defined(__clang__)
#define EXEC_TAIL_CALL __attribute__((musttail)) return
#define EXEC_CHAINS 1
#elif defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define EXEC_TAIL_CALL return
#define EXEC_CHAINS 1
#else
#define EXEC_TAIL_CALL return
#define EXEC_CHAINS 0
#endif

#define EXEC_GO_ON(c, i) EXEC_TAIL_CALL ((i) + 1)->run(c, (i) + 1)

/* The instruction's complete handler, with rip its own: for whatever has no threaded form, and for threaded forms
 * whose memory is not at hand. */
exec_op_fn exec_generic, exec_complete;
/* The same for rows that may change the mode word, the mapping or what interrupts may be delivered (A_MODE,
 * A_SHADOW): leaves the block if they did. */
exec_op_fn exec_generic_mode;

/* The tail of the block whose last instruction is `i`. */
static inline struct exec_tail *exec_tail_of(const struct exec_op *i)
{
    return (struct exec_tail *)(i + 1);
}

/* Enters the link's block, if it may be done here; else the dispatcher finds it and mends the link. c->rip is
 * its address already. */
#define EXEC_CHAIN_NEAR(c, link)                                                                   \
    do {                                                                                           \
        struct exec_block *to_ = (link)->to;                                                       \
        unsigned count_ = to_->count;                                                              \
        if (!EXEC_CHAINS || unlikely(!count_ || exec_events(c))) {                                 \
            (c)->blocks->want = (link);                                                            \
            return X_JUMP;                                                                         \
        }                                                                                          \
        (c)->stats.instructions += count_;                                                         \
        EXEC_TAIL_CALL to_->ops[0].run(c, to_->ops);                                           \
    } while (0)

#define EXEC_CHAIN_FAR(c, link)                                                                    \
    do {                                                                                           \
        struct exec_block *to_ = (link)->to;                                                       \
        unsigned count_ = to_->count;                                                              \
        if (!EXEC_CHAINS || unlikely(!count_ || exec_events(c) || !exec_maps_to(c, to_))) {        \
            (c)->blocks->want = (link);                                                            \
            return X_JUMP;                                                                         \
        }                                                                                          \
        (c)->stats.instructions += count_;                                                         \
        EXEC_TAIL_CALL to_->ops[0].run(c, to_->ops);                                           \
    } while (0)

/* A private bit of cpu->events: an interrupt that had to wait can be delivered now. */
#define EXEC_EV_RECHECK (1u << 31)

static inline uint32_t exec_events(struct cpu *c)
{
    return atomic_load_explicit(&c->events, memory_order_relaxed);
}

/* An event that was put aside and can be delivered now. */
static inline bool exec_irq_deliverable(const struct cpu *c)
{
    return (c->intr_pending && (c->flags_sys & FLAG_IF)) || (c->nmi_pending && !c->nmi_blocked);
}

static inline void exec_advance_rip(struct cpu *c, unsigned len)
{
    c->rip += len;
    if (!(c->mode & MODE_CODE64))
        c->rip = (uint32_t)c->rip;
}

/* Whether c->rip is executable now, and is the block's address. Flat code segments only. */
static inline bool exec_maps_to(struct cpu *c, const struct exec_block *b)
{
    struct tlb_code *e = tlb_code_at(c, c->rip);
    return e->tag == (c->rip & PAGE_MASK) && e->gpa == (b->gpa & PAGE_MASK);
}

/* Runs blocks until something else is to be done. Never X_NEXT or X_JUMP. */
int exec_blocks(struct cpu *c);
/* Runs the one block at c->rip; events are the caller's. Never X_NEXT. Not in a mode that exec_blocks() runs in too: its
 * links would be followed. */
int exec_one_block(struct cpu *c);
/* Fetches, decodes and executes one instruction, with debug traps if MODE_TF. Never X_NEXT. */
int exec_single(struct cpu *c);
