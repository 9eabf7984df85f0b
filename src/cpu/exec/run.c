/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The dispatcher.
 *
 * Thread    The vCPU's own.
 */
#include "cpu/exec/run.h"
#include "cpu/exec/trace.h"
#include "cpu/fpu/fpu.h"
#include "cpu/translate/translate.h"

#include <errno.h>

/* Leaves the block after `i` answered `st`; c->rip is the handler's. */
static int leave_block(struct cpu *c, const struct exec_op *i, int st)
{
    if (st == X_NEXT) {
        exec_advance_rip(c, i->len);
        st = X_JUMP;
    }
    /* The whole block was counted at its entry. */
    c->stats.instructions -= st == X_FAULT || st == X_AGAIN ? i->left : i->left - 1u;
    return st;
}

static const struct insn *full_insn(const struct exec_op *i)
{
    return (const struct insn *)((const uint8_t *)i + i->full);
}

int exec_generic(struct cpu *c, const struct exec_op *i)
{
    const struct insn *full = full_insn(i);

    c->rip += i->off;
    int st = full->fn(c, full);
    if (likely(st == X_NEXT && !c->code_changed)) {
        c->rip -= i->off;
        EXEC_GO_ON(c, i);
    }
    return leave_block(c, i, st);
}

static int run_rebuilt(struct cpu *c, const struct exec_op *i)
{
    struct insn full;

    op_rebuild(c, i, &full);
    c->rip += i->off;
    return full.fn(c, &full);
}

int exec_complete(struct cpu *c, const struct exec_op *i)
{
    int st = run_rebuilt(c, i);

    if (likely(st == X_NEXT && !c->code_changed)) {
        c->rip -= i->off;
        EXEC_GO_ON(c, i);
    }
    return leave_block(c, i, st);
}

int exec_generic_mode(struct cpu *c, const struct exec_op *i)
{
    uint64_t epoch = c->map_epoch;
    uint32_t mode = c->mode;

    c->rip += i->off;
    int st = full_insn(i)->fn(c, full_insn(i));
    if (st != X_NEXT || c->code_changed || c->mode != mode || c->map_epoch != epoch)
        return leave_block(c, i, st);
    if (c->int_shadow) {
        /* The next instruction of the block is the one that the shadow covers; the block ends after it. */
        if (i->left == 1)
            return leave_block(c, i, st);
        c->int_shadow = 0;
    }
    if (exec_irq_deliverable(c))
        cpu_post_events(c, EXEC_EV_RECHECK);
    c->rip -= i->off;
    EXEC_GO_ON(c, i);
}

static void mend_link(struct exec_link *want, struct exec_block *b)
{
    if (b->gpa2 == BLOCK_NO_PAGE && (want->page == BLOCK_NO_PAGE || want->page == (b->gpa & PAGE_MASK)))
        want->to = b;
}

static int run_block(struct cpu *c, struct exec_block *b)
{
    c->code_changed = false;
    c->stats.instructions += b->count;
    return b->ops[0].run(c, b->ops);
}

int exec_blocks(struct cpu *c)
{
    struct exec_cache *x = c->blocks;
    struct exec_block *b;
    int st;

    x->want = NULL;
    do {
        struct exec_link *want = x->want;
        x->want = NULL;
        if (unlikely(exec_events(c) || exec_irq_deliverable(c) || (c->mode & MODE_TF) || c->int_shadow))
            return X_AGAIN;
        if (unlikely(x->flush)) {
            block_flush(x);
            want = NULL;
        }
        size_t used = x->used;
        st = block_find(c, &b);
        if (unlikely(st == X_FAULT))
            return st;
        if (unlikely(!b)) {
            st = exec_single(c);
            continue;
        }
        if (want && x->used >= used) /* else the arena was emptied: the link is gone */
            mend_link(want, b);
        st = run_block(c, b);
    } while (st == X_JUMP);
    return st;
}

/* Links are mended by exec_blocks() only, so that here no block goes on into another. */
int exec_one_block(struct cpu *c)
{
    struct exec_cache *x = c->blocks;
    struct exec_block *b;

    x->want = NULL;
    if (unlikely(x->flush))
        block_flush(x);
    int st = block_find(c, &b);
    if (unlikely(st == X_FAULT))
        return st;
    return likely(b) ? run_block(c, b) : exec_single(c);
}

/* --- one instruction --- */

/* Bytes that CS's limit allows from c->rip on. */
static unsigned limit_room(const struct cpu *c)
{
    if (c->mode & MODE_CODE64)
        return INSN_MAX_LEN;
    if (c->rip > c->seg[SEG_CS].limit)
        return 0;
    return (unsigned)min_u64((uint64_t)c->seg[SEG_CS].limit - c->rip + 1, INSN_MAX_LEN);
}

/* 0 with *ret bound, or X_FAULT. */
static int fetch_single(struct cpu *c, struct insn *ret)
{
    uint64_t lin = exec_code_linear(c), gpa;
    unsigned room = limit_room(c), got = 0;
    uint8_t bytes[INSN_MAX_LEN];
    const uint8_t *host;

    if (room == 0 || ((c->mode & MODE_CODE64) && exec_canonical(lin) != lin))
        return cpu_raise_error(c, EXC_GP, 0);
    if (mmu_fetch_bytes(c, lin, bytes, room, &got))
        return X_FAULT;
    if (exec_decode_one(c, bytes, got, ret) == 0)
        return 0;
    /* More bytes than could be had: the limit, or the next page. */
    if (got == room)
        return cpu_raise_error(c, EXC_GP, 0);
    if (mmu_fetch_page(c, (lin & PAGE_MASK) + PAGE_SIZE, &gpa, &host))
        return X_FAULT;
    return cpu_raise_error(c, EXC_GP, 0);
}

int exec_single(struct cpu *c)
{
    bool debug = c->mode & MODE_TF;
    struct insn i;
    int st;

    if (debug && cpu_debug_before(c))
        return X_FAULT;
    if (fetch_single(c, &i))
        return X_FAULT;
    if (log_on(LOG_CPU | LOG_EXEC))
        trace_single(c, &i);
    c->int_shadow = 0;
    st = i.fn(c, &i);
    if (st == X_FAULT)
        return st;
    if (st == X_NEXT) {
        exec_advance_rip(c, i.len);
        st = X_JUMP;
    }
    if (st != X_AGAIN)
        c->stats.instructions++;
    else if (debug)
        c->flags_sys |= FLAG_RF; /* its breakpoint has had its turn */
    if (debug && (st != X_EXIT || c->exit_reason == CPU_EXIT_HALT) && cpu_debug_after(c)) {
        c->halted = false;
        return X_FAULT;
    }
    return st;
}

/* --- events --- */

/* Takes what other threads asked for. False: cpu_run() must return. */
static bool take_events(struct cpu *c)
{
    uint32_t ev = cpu_take_events(c);

    if (ev & CPU_EV_FLUSH)
        mmu_handle_flush(c);
    if (ev & CPU_EV_INTR)
        c->intr_pending = true;
    if (ev & CPU_EV_NMI)
        c->nmi_pending += atomic_exchange(&c->nmis, 0);
    if (c->nmi_pending > 1)
        c->nmi_pending = c->nmi_blocked ? 1 : 2;
    return !(ev & CPU_EV_STOP);
}

/* Delivers an NMI or an interrupt if one is due. The status of delivery, or X_NEXT. */
static int deliver_pending(struct cpu *c)
{
    if (c->int_shadow || !exec_irq_deliverable(c))
        return X_NEXT;
    if (c->nmi_pending && !c->nmi_blocked) {
        c->nmi_pending--;
        c->stats.interrupts++;
        if (log_on(LOG_INT))
            trace_interrupt(c, EXC_NMI);
        return cpu_deliver_interrupt(c, EXC_NMI, true);
    }
    int vector = c->cb->irq_ack(c->opaque);
    if (vector < 0) {
        c->intr_pending = false;
        return X_NEXT;
    }
    c->stats.interrupts++;
    if (log_on(LOG_INT))
        trace_interrupt(c, (unsigned)vector);
    return cpu_deliver_interrupt(c, (uint8_t)vector, false);
}

static bool one_at_a_time(const struct cpu *c)
{
    return (c->mode & MODE_TF) || c->int_shadow || log_on(LOG_CPU | LOG_EXEC);
}

static int run_some(struct cpu *c)
{
    if (one_at_a_time(c))
        return exec_single(c);
    return c->tx && translate_wanted(c) ? translate_run(c) : exec_blocks(c);
}

static int deliver_fault(struct cpu *c)
{
    if (log_on(LOG_INT))
        trace_fault(c);
    return cpu_deliver_fault(c);
}

static enum cpu_exit run_loop(struct cpu *c)
{
    for (;;) {
        bool asked = exec_events(c) || !atomic_load_explicit(&c->run_ok, memory_order_relaxed);
        if (unlikely(asked) && !take_events(c))
            return CPU_EXIT_STOP;
        int st = deliver_pending(c);
        if (st == X_NEXT && c->halted)
            return CPU_EXIT_HALT;
        if (st == X_NEXT)
            st = run_some(c);
        if (st == X_FAULT)
            st = deliver_fault(c);
        if (st == X_EXIT)
            return c->exit_reason;
    }
}

enum cpu_exit cpu_run(struct cpu *c)
{
    enum cpu_exit why = run_loop(c);

    fpu_park(c);
    return why;
}

enum cpu_exit cpu_step(struct cpu *c)
{
    int st;

    c->in_step = true;
    if (exec_events(c) & CPU_EV_FLUSH) {
        atomic_fetch_and(&c->events, ~(uint32_t)CPU_EV_FLUSH);
        mmu_handle_flush(c);
    }
    st = exec_single(c);
    if (st == X_FAULT)
        st = cpu_deliver_fault(c);
    c->in_step = false;
    fpu_park(c);
    return st == X_EXIT ? c->exit_reason : CPU_EXIT_DEBUG;
}
