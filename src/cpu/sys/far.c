/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Far JMP, CALL and RET: code segments, call gates, task gates and TSSs.
 *
 * Spec      Intel SDM volume 2 (CALL, JMP, RET); volume 3, 5.8 (transfers), 5.8.3.1 (64-bit call
 *           gates).
 * Thread    The vCPU's own.
 */
#include "cpu/exec/handlers.h"
#include "cpu/sys/internal.h"

struct far_target {
    uint16_t sel;
    uint64_t off;
    unsigned size; /* operand size: of the offset, of what CALL pushes */
    bool call;
    uint64_t next; /* return address */
};

static uint64_t low_bytes(uint64_t v, unsigned size)
{
    return size == 8 ? v : v & ((1ull << size * 8) - 1);
}

/* --- real and virtual-8086 mode --- */

static int far_real(struct cpu *c, const struct far_target *t)
{
    struct stack st = stack_current(c);
    struct cpu_segment cs = seg_real(c, SEG_CS, t->sel);
    int r;
    if (low_bytes(t->off, t->size) > c->seg[SEG_CS].limit)
        return cpu_raise_error(c, EXC_GP, 0);
    if (t->call) {
        if ((r = stack_push(c, &st, t->size, c->seg[SEG_CS].selector)) ||
            (r = stack_push(c, &st, t->size, t->next)))
            return r;
        stack_commit(c, &st);
    }
    cs_set(c, &cs, low_bytes(t->off, t->size), c->cpl);
    cpu_update_mode(c);
    return X_JUMP;
}

/* --- straight to a code segment --- */

static int far_code(struct cpu *c, const struct far_target *t, struct cpu_segment cs)
{
    uint64_t rip = low_bytes(t->off, t->size);
    bool ok = seg_is_conforming(&cs) ? cs.dpl <= c->cpl : (t->sel & 3) <= c->cpl && cs.dpl == c->cpl;
    int r;
    if (!ok || (c->mode & MODE_LONG && cs.l && cs.db))
        return fault_sel(c, EXC_GP, t->sel);
    if (!cs.present)
        return fault_sel(c, EXC_NP, t->sel);
    if (t->call) {
        struct stack st = stack_current(c);
        if ((r = stack_push(c, &st, t->size, c->seg[SEG_CS].selector)) ||
            (r = stack_push(c, &st, t->size, t->next)) || (r = cs_check_rip(c, &cs, rip)) ||
            (r = desc_set_accessed(c, &cs)))
            return r;
        stack_commit(c, &st);
    } else if ((r = cs_check_rip(c, &cs, rip)) || (r = desc_set_accessed(c, &cs))) {
        return r;
    }
    cs.selector = (uint16_t)((t->sel & ~3u) | c->cpl);
    cs_set(c, &cs, rip, c->cpl);
    cpu_update_mode(c);
    return X_JUMP;
}

/* --- call gates --- */

struct call_gate {
    uint16_t sel;
    uint64_t off;
    unsigned size, params; /* bytes of an item; items to copy */
};

static int read_call_gate(struct cpu *c, const struct far_target *t, uint64_t raw, struct call_gate *ret)
{
    bool wide = c->mode & MODE_LONG;
    uint64_t high = 0;
    ret->sel = (uint16_t)(raw >> 16);
    ret->off = (raw & 0xffff) | (raw >> 48) << 16;
    ret->size = wide ? 8 : raw >> 40 & 8 ? 4 : 2;
    ret->params = wide ? 0 : raw >> 32 & 31;
    if (ret->size == 2)
        ret->off &= 0xffff;
    if (wide) {
        int r = desc_read_high(c, t->sel, EXC_GP, &high);
        if (r)
            return r;
        if (high >> 40 & 31)
            return fault_sel(c, EXC_GP, t->sel);
        ret->off |= high << 32;
    }
    return 0;
}

/* The code segment that a call gate names. */
static int gate_target(struct cpu *c, const struct far_target *t, const struct call_gate *g,
                       struct cpu_segment *ret)
{
    uint64_t raw;
    if (sel_is_null(g->sel))
        return fault_sel(c, EXC_GP, 0);
    int r = desc_read(c, g->sel, EXC_GP, &raw);
    if (r)
        return r;
    *ret = seg_from_desc(g->sel, raw);
    if (!seg_is_code(ret) || ret->dpl > c->cpl ||
        (!t->call && !seg_is_conforming(ret) && ret->dpl != c->cpl) ||
        (c->mode & MODE_LONG && (!ret->l || ret->db)))
        return fault_sel(c, EXC_GP, g->sel);
    if (!ret->present)
        return fault_sel(c, EXC_NP, g->sel);
    return cs_check_rip(c, ret, g->off);
}

/* The inner stack with the caller's SS:SP and its parameters on it. */
static int inner_stack(struct cpu *c, const struct call_gate *g, unsigned cpl, struct stack *st)
{
    struct stack old = stack_current(c);
    uint64_t param[31];
    int r = c->mode & MODE_LONG ? tss_stack64(c, cpl, 0, st) : tss_stack(c, cpl, st);
    for (unsigned i = 0; !r && i < g->params; i++)
        r = stack_pop(c, &old, g->size, &param[i]);
    if (r || (r = stack_push(c, st, g->size, c->seg[SEG_SS].selector)) ||
        (r = stack_push(c, st, g->size, c->gpr[4])))
        return r;
    for (unsigned i = g->params; !r && i-- > 0;)
        r = stack_push(c, st, g->size, param[i]);
    return r;
}

static int far_call_gate(struct cpu *c, const struct far_target *t, uint64_t raw)
{
    struct call_gate g;
    struct cpu_segment cs;
    int r = read_call_gate(c, t, raw, &g);
    if (r || (r = gate_target(c, t, &g, &cs)))
        return r;
    unsigned cpl = t->call && !seg_is_conforming(&cs) ? cs.dpl : c->cpl;
    if (t->call) {
        struct stack st = stack_current(c);
        st.flat64 |= !!(c->mode & MODE_LONG);
        if (cpl != c->cpl)
            r = inner_stack(c, &g, cpl, &st);
        if (r || (r = stack_push(c, &st, g.size, c->seg[SEG_CS].selector)) ||
            (r = stack_push(c, &st, g.size, t->next)) || (r = desc_set_accessed(c, &cs)))
            return r;
        if (cpl != c->cpl)
            seg_set(c, SEG_SS, &st.ss);
        stack_commit(c, &st);
    } else if ((r = desc_set_accessed(c, &cs))) {
        return r;
    }
    cs.selector = (uint16_t)((g.sel & ~3u) | cpl);
    cs_set(c, &cs, g.off, cpl);
    cpu_update_mode(c);
    return X_JUMP;
}

/* --- dispatch on what the selector names --- */

static int far_system(struct cpu *c, const struct far_target *t, uint64_t raw)
{
    struct cpu_segment d = seg_from_desc(t->sel, raw);
    bool wide = c->mode & MODE_LONG;
    bool call_gate = d.type == SYS_CALL || (d.type == SYS_CALL16 && !wide);
    bool task_gate = d.type == SYS_TASK_GATE && !wide;
    bool tss = (d.type == SYS_TSS || d.type == SYS_TSS16) && !wide;
    if ((!call_gate && !task_gate && !tss) || d.dpl < c->cpl || d.dpl < (t->sel & 3))
        return fault_sel(c, EXC_GP, t->sel);
    if (!d.present)
        return fault_sel(c, EXC_NP, t->sel);
    if (call_gate)
        return far_call_gate(c, t, raw);
    uint16_t tss_sel = task_gate ? (uint16_t)(raw >> 16) : t->sel;
    int r = task_switch(c, tss_sel, t->call ? TASK_CALL : TASK_JMP, t->next, false, 0);
    return r ? r : X_JUMP;
}

static int far_transfer(struct cpu *c, const struct far_target *t)
{
    uint64_t raw;
    if (c->mode & MODE_REAL)
        return far_real(c, t);
    if (sel_is_null(t->sel))
        return cpu_raise_error(c, EXC_GP, 0);
    int r = desc_read(c, t->sel, EXC_GP, &raw);
    if (r)
        return r;
    struct cpu_segment cs = seg_from_desc(t->sel, raw);
    if (!cs.s)
        return far_system(c, t, raw);
    if (!seg_is_code(&cs))
        return fault_sel(c, EXC_GP, t->sel);
    return far_code(c, t, cs);
}

static int far_insn(struct cpu *c, const struct insn *i, bool call)
{
    struct far_target t = { .sel = i->sel, .off = i->imm, .size = i->opsize, .call = call,
                            .next = c->rip + i->len };
    if (i->mem) {
        struct { uint8_t b[10]; } p = { 0 };
        uint64_t lin;
        int r = exec_linear(c, i, i->opsize + 2u, false, &lin);
        if (r || (r = mmu_read_slow(c, lin, i->opsize + 2u, p.b)))
            return r;
        t.off = 0;
        memcpy(&t.off, p.b, i->opsize);
        memcpy(&t.sel, p.b + i->opsize, 2);
    }
    return far_transfer(c, &t);
}

int x_jmp_far(struct cpu *c, const struct insn *i)
{
    return far_insn(c, i, false);
}

int x_call_far(struct cpu *c, const struct insn *i)
{
    return far_insn(c, i, true);
}

/* --- RETF --- */

int return_cs(struct cpu *c, uint16_t sel, struct cpu_segment *ret)
{
    uint64_t raw;
    unsigned rpl = sel & 3;
    if (sel_is_null(sel))
        return cpu_raise_error(c, EXC_GP, 0);
    int r = desc_read(c, sel, EXC_GP, &raw);
    if (r)
        return r;
    *ret = seg_from_desc(sel, raw);
    if (!seg_is_code(ret) || rpl < c->cpl ||
        (seg_is_conforming(ret) ? ret->dpl > rpl : ret->dpl != rpl) ||
        (c->mode & MODE_LONG && ret->l && ret->db))
        return fault_sel(c, EXC_GP, sel);
    if (!ret->present)
        return fault_sel(c, EXC_NP, sel);
    return desc_set_accessed(c, ret);
}

int return_ss(struct cpu *c, uint16_t sel, const struct cpu_segment *cs, struct cpu_segment *ret)
{
    unsigned rpl = cs->selector & 3;
    bool code64 = c->mode & MODE_LONG && cs->l;
    if (sel_is_null(sel) && code64 && rpl != 3 && (sel & 3) == rpl) {
        *ret = seg_null(sel);
        return 0;
    }
    return ss_load(c, sel, rpl, EXC_GP, ret);
}

static int ret_real(struct cpu *c, const struct insn *i, struct stack *st, uint64_t rip, uint64_t sel)
{
    struct cpu_segment cs = seg_real(c, SEG_CS, (uint16_t)sel);
    if (rip > c->seg[SEG_CS].limit)
        return cpu_raise_error(c, EXC_GP, 0);
    st->sp += (uint16_t)i->imm;
    stack_commit(c, st);
    cs_set(c, &cs, rip, c->cpl);
    cpu_update_mode(c);
    return X_JUMP;
}

int x_retf(struct cpu *c, const struct insn *i)
{
    struct stack st = stack_current(c);
    struct cpu_segment cs, ss;
    uint64_t rip, sel, sp, ss_sel;
    uint16_t extra = (uint16_t)i->imm;
    int r;
    if ((r = stack_pop(c, &st, i->opsize, &rip)) || (r = stack_pop(c, &st, i->opsize, &sel)))
        return r;
    if (c->mode & MODE_REAL)
        return ret_real(c, i, &st, rip, sel);
    if ((r = return_cs(c, (uint16_t)sel, &cs)))
        return r;
    st.sp += extra;
    unsigned cpl = sel & 3;
    if (cpl == c->cpl) {
        if ((r = cs_check_rip(c, &cs, rip)))
            return r;
        stack_commit(c, &st);
    } else {
        if ((r = stack_pop(c, &st, i->opsize, &sp)) || (r = stack_pop(c, &st, i->opsize, &ss_sel)) ||
            (r = return_ss(c, (uint16_t)ss_sel, &cs, &ss)) || (r = cs_check_rip(c, &cs, rip)))
            return r;
        st = (struct stack){ .ss = ss, .sp = sp + extra, .flat64 = c->mode & MODE_LONG && cs.l };
        seg_set(c, SEG_SS, &ss);
        stack_commit(c, &st);
    }
    bool outer = cpl != c->cpl;
    cs_set(c, &cs, rip, cpl);
    if (outer)
        seg_drop_inner(c, cpl);
    cpu_update_mode(c);
    return X_JUMP;
}
