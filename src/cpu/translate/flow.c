/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ends of blocks: linked jumps within the page, the jump cache for everything else, tests for events.
 *
 * Thread    The vCPU that translates; the block is its own until it is published.
 * Trust     Targets are the guest's. They are compared in full with the jump cache's, which holds canonical
 *           addresses only; a branch that finds nothing there is executed by its interpreter's handler.
 */
#include "cpu/translate/emit.h"

#define CPU_GS(field) AS_GS(offsetof(struct cpu, field))

/* NULL: no room, t->give_up is set. */
static struct cold *cold_new(struct tr *t, void (*emit)(struct tr *t, struct cold *k))
{
    struct cold *k = emit_cold(t);

    if (k)
        k->emit = emit;
    return k;
}

static void cold_from(struct cold *k, struct as_fix f)
{
    if (k)
        k->from[k->n_from++] = f;
}

static void arrive(struct tr *t, struct cold *k)
{
    for (unsigned n = 0; n < k->n_from; n++)
        as_fix_here(&t->as, k->from[n]);
}

static uint32_t code_offset(const struct tr *t, const uint8_t *rw)
{
    return (uint32_t)(rw + t->as.to_rx - t->tb->code);
}

void emit_rip(struct tr *t, unsigned dst, int64_t off)
{
    unsigned size = t->mode64 ? 8 : 4;

    as_load(&t->as, 8, dst, CPU_GS(rip_page));
    if (off != (int32_t)off && t->mode64) {
        as_lea(&t->as, size, dst, AS_AT(dst, off / 2));
        off -= off / 2;
    }
    if (off)
        as_lea(&t->as, size, dst, AS_AT(dst, off));
}

/* Cold code that was reached with the host's flags intact. */
static void save_flags(struct tr *t, const struct flags *f)
{
    if (f->mem)
        return;
    as_lahf_seto(&t->as);
    as_store(&t->as, 2, CPU_GS(flags_ax), R_AX);
}

/* c->rip = rip_page + off, and out with `answer`. */
static void leave_at(struct tr *t, int64_t off, uint64_t answer)
{
    emit_set_rip(t, off);
    as_mov_imm(&t->as, R_AX, answer);
    as_jmp_to(&t->as, t->thunk->leave);
}

/* --- near: linked --- */

/* Where an exit goes until it is linked. */
static void cold_exit(struct tr *t, struct cold *k)
{
    k->exit->stub = code_offset(t, t->as.p);
    arrive(t, k);
    save_flags(t, &k->before);
    leave_at(t, k->exit->target, (uintptr_t)k->exit);
}

static struct tb_exit *exit_new(struct tr *t, uint32_t target)
{
    struct tb *tb = t->tb;
    struct tb_exit *e = &tb->exit[tb->exits++];
    *e = (struct tb_exit){ .from = tb, .target = (uint16_t)target, .flags_mem = t->f.mem };
    /* With flags in both places a loop to the block's own start takes what that start wants. */
    if (t->f.mem && t->f.host && target == (tb->gpa & (PAGE_SIZE - 1)))
        e->flags_mem = t->entry.mem;
    return e;
}

/* The jump itself, its displacement within 8 aligned bytes: it is patched while others run it. */
static void link_jump(struct tr *t, unsigned cc, struct tb_exit *e)
{
    unsigned opcode_bytes = cc == CC_NONE ? 1 : 2;
    unsigned at = ((uintptr_t)t->as.p + opcode_bytes) & 7;
    struct cold *k = cold_new(t, cold_exit);

    if (!k)
        return;
    if (at > 4)
        as_nop(&t->as, 8 - at);
    k->exit = e;
    cold_from(k, cc == CC_NONE ? as_jmp(&t->as, true) : as_jcc(&t->as, cc, true));
    e->rel32 = code_offset(t, k->from[0].at);
}

/* An event is due at a back edge. A conditional one that is not taken goes on. */
static void cold_event(struct tr *t, struct cold *k)
{
    arrive(t, k);
    if (k->cc != CC_NONE)
        as_jcc_to(&t->as, k->cc ^ 1, k->back);
    save_flags(t, &k->before);
    leave_at(t, k->target, TX_EVENT);
}

/* Flags are in memory only: they may be destroyed. */
static void back_edge_mem(struct tr *t, struct tb_exit *e)
{
    struct cold *k = cold_new(t, cold_event);

    if (!k)
        return;
    k->cc = CC_NONE;
    k->target = e->target;
    as_alu_mi(&t->as, AS_CMP, 4, CPU_GS(run_ok), 0);
    cold_from(k, as_jcc(&t->as, CC_E, true));
    link_jump(t, CC_NONE, e);
}

/* Flags are kept. The test comes before the condition, so that the loop takes one jump. */
static void back_edge_host(struct tr *t, unsigned cc, struct tb_exit *e)
{
    struct cold *k = cold_new(t, cold_event);
    struct as_fix event, skip = { 0 };

    if (!k)
        return;
    k->cc = (uint8_t)cc;
    k->target = e->target;
    as_load(&t->as, 4, R_S1, CPU_GS(run_ok));
    event = as_jrcxz(&t->as);
    link_jump(t, cc, e);
    if (cc != CC_NONE)
        skip = as_jmp(&t->as, false);
    as_fix_here(&t->as, event);
    cold_from(k, as_jmp(&t->as, true));
    if (cc != CC_NONE)
        as_fix_here(&t->as, skip);
    k->back = emit_here(t);
}

/* To the block's own start, whose flags can be replayed from what made them here. */
static void back_edge_loop(struct tr *t, unsigned cc)
{
    struct cold *k = cold_new(t, cold_event);
    struct as_fix event, skip = { 0 };

    if (!k)
        return;
    k->cc = (uint8_t)cc;
    k->target = t->tb->gpa & (PAGE_SIZE - 1);
    as_store_imm32(&t->as, 1, CPU_GS(tx_looped), 1);
    as_load(&t->as, 4, R_S1, CPU_GS(run_ok));
    event = as_jrcxz(&t->as);
    if (cc == CC_NONE) {
        as_jmp_to(&t->as, t->body);
    } else {
        as_jcc_to(&t->as, cc, t->body);
        skip = as_jmp(&t->as, false);
    }
    as_fix_here(&t->as, event);
    cold_from(k, as_jmp(&t->as, true));
    if (cc != CC_NONE)
        as_fix_here(&t->as, skip);
    k->back = emit_here(t);
}

void emit_exit(struct tr *t, unsigned cc, uint32_t target)
{
    if (!t->f.host && !t->f.mem)
        flags_need(t);
    if (target == (t->tb->gpa & (PAGE_SIZE - 1)) && target <= t->at && flags_loop(t)) {
        back_edge_loop(t, cc);
        return;
    }
    struct tb_exit *e = exit_new(t, target);
    if (target > t->at)
        link_jump(t, cc, e);
    else if (t->f.host)
        back_edge_host(t, cc, e);
    else
        back_edge_mem(t, e);
}

/* --- everywhere else: the jump cache --- */

/* S0 = linear target: S1 becomes the entry's offset. Jumps out with NE: not there; E of the second: an event. */
static void look_up(struct tr *t)
{
    as_lea(&t->as, 4, R_S1, (struct as_mem){ .base = R_NONE, .index = R_S0, .scale = JC_SHIFT });
    as_alu_ri(&t->as, AS_AND, 4, R_S1, JC_MASK);
    as_alu_rm(&t->as, AS_ADD, 8, R_S1, CPU_GS(jc_off));
    as_alu_rm(&t->as, AS_CMP, 8, R_S0, AS_GS_AT(R_S1, offsetof(struct cpu, jc[0][0].rip)));
}

static void test_event(struct tr *t)
{
    as_alu_mi(&t->as, AS_CMP, 4, CPU_GS(run_ok), 0);
}

/* To the block in S1, whose page rip_page is. */
static void enter_found(struct tr *t)
{
    as_jmp_mem(&t->as, AS_AT(R_S1, offsetof(struct tb, entry_mem)));
}

static void load_found(struct tr *t)
{
    as_load(&t->as, 8, R_S1, AS_GS_AT(R_S1, offsetof(struct cpu, jc[0][0].tb)));
}

/* S0 = linear target. */
static void set_page(struct tr *t)
{
    as_alu_ri(&t->as, AS_AND, 8, R_S0, -(int32_t)PAGE_SIZE);
    as_store(&t->as, 8, CPU_GS(rip_page), R_S0);
}

/* The target is `off` from the page's start. */
static void move_page(struct tr *t, int64_t off)
{
    int64_t pages = off & ~(int64_t)(PAGE_SIZE - 1);

    if (pages == (int32_t)pages)
        as_alu_mi(&t->as, AS_ADD, t->mode64 ? 8 : 4, CPU_GS(rip_page), (int32_t)pages);
    else {
        emit_rip(t, R_S0, pages);
        as_store(&t->as, 8, CPU_GS(rip_page), R_S0);
    }
}

void emit_branch_find(struct tr *t)
{
    look_up(t);
    emit_slow_if(t, CC_NE);
    test_event(t);
    emit_slow_if(t, CC_E);
}

void emit_branch_go(struct tr *t)
{
    load_found(t);
    set_page(t);
    enter_found(t);
}

void emit_branch_keep(struct tr *t)
{
    load_found(t);
    as_store(&t->as, 8, CPU_GS(tx_tb), R_S1);
}

void emit_branch_go_kept(struct tr *t, int64_t off)
{
    as_load(&t->as, 8, R_S1, CPU_GS(tx_tb));
    move_page(t, off);
    enter_found(t);
}

void emit_branch_go_kept_ind(struct tr *t)
{
    as_load(&t->as, 8, R_S0, CPU_GS(tx_tmp));
    as_load(&t->as, 8, R_S1, CPU_GS(tx_tb));
    set_page(t);
    enter_found(t);
}

/* Not found, or an event is due: S0 is the next instruction's address. */
static void cold_look_up(struct tr *t, struct cold *k)
{
    arrive(t, k);
    as_store(&t->as, 8, CPU_GS(rip), R_S0);
    as_mov_imm(&t->as, R_AX, TX_LOOKUP);
    as_jmp_to(&t->as, t->thunk->leave);
}

void emit_jump(struct tr *t)
{
    struct cold *k = cold_new(t, cold_look_up);

    look_up(t);
    cold_from(k, as_jcc(&t->as, CC_NE, true));
    test_event(t);
    cold_from(k, as_jcc(&t->as, CC_E, true));
    emit_branch_go(t);
}

void emit_exit_far(struct tr *t, int64_t target)
{
    flags_to_mem(t);
    emit_rip(t, R_S0, target);
    emit_jump(t);
}

/* A conditional branch out of the page, taken. */
static void cold_branch_far(struct tr *t, struct cold *k)
{
    struct as_fix absent, event;

    arrive(t, k);
    save_flags(t, &k->before);
    emit_rip(t, R_S0, k->target);
    look_up(t);
    absent = as_jcc(&t->as, CC_NE, true);
    test_event(t);
    event = as_jcc(&t->as, CC_E, true);
    load_found(t);
    move_page(t, k->target);
    enter_found(t);
    as_fix_here(&t->as, absent);
    as_fix_here(&t->as, event);
    emit_call_slow(t, k->insn); /* does not come back: the condition holds */
}

void emit_branch_far(struct tr *t, unsigned cc, int64_t target)
{
    if (cc != CC_NONE) {
        struct cold *k = cold_new(t, cold_branch_far);
        if (k)
            k->target = target;
        cold_from(k, as_jcc(&t->as, cc, true));
        return;
    }
    flags_to_mem(t);
    emit_rip(t, R_S0, target);
    emit_branch_find(t);
    load_found(t);
    move_page(t, target);
    enter_found(t);
}
