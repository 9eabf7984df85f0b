/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Delivery of exceptions and interrupts through the IVT and the IDT; double and triple faults.
 *
 * Spec      Intel SDM volume 3, chapter 6 (table 6-5: double fault classes); 20.1.4 (real mode),
 *           20.2 (vm86); 6.14 (64-bit mode, IST).
 * Thread    The vCPU's own.
 *
 * Registers change only after the last push: a fault on the way leaves the state as it was, and
 * becomes a fault of its own or a double fault.
 */
#include "cpu/exec/handlers.h"
#include "cpu/sys/internal.h"

#define MAX_NESTED 8 /* faults in a row before the chain counts as a shutdown; 3 suffice for any real one */

/* Error code that points into the IDT. */
static int fault_idt(struct cpu *c, uint8_t vector, uint8_t entry)
{
    return cpu_raise_error(c, vector, entry * 8u + 2 + c->sys->ext);
}

static uint32_t pushed_flags(const struct cpu *c, const struct event *e)
{
    return cpu_flags(c) | (e->set_rf ? FLAG_RF : 0);
}

/* --- real mode --- */

static int deliver_real(struct cpu *c, const struct event *e)
{
    uint32_t entry;
    struct stack st = stack_current(c);
    if (e->vector * 4u + 3 > c->idtr.limit)
        return fault_idt(c, EXC_GP, e->vector);
    int r = mmu_read_sys(c, (uint32_t)(c->idtr.base + e->vector * 4u), 4, &entry);
    if (r || (r = stack_push(c, &st, 2, pushed_flags(c, e))) ||
        (r = stack_push(c, &st, 2, c->seg[SEG_CS].selector)) || (r = stack_push(c, &st, 2, e->rip)))
        return r;
    stack_commit(c, &st);
    cpu_set_flags(c, 0, FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
    struct cpu_segment cs = seg_real(c, SEG_CS, (uint16_t)(entry >> 16));
    cs_set(c, &cs, entry & 0xffff, 0);
    return 0;
}

/* --- gates --- */

struct gate {
    uint16_t sel;
    uint64_t off;
    uint8_t type, dpl, ist;
    bool present;
};

static int read_gate(struct cpu *c, const struct event *e, struct gate *ret)
{
    bool wide = c->mode & MODE_LONG;
    unsigned size = wide ? 16 : 8;
    uint64_t raw[2] = { 0, 0 };
    if (e->vector * size + size - 1 > c->idtr.limit)
        return fault_idt(c, EXC_GP, e->vector);
    uint64_t lin = c->idtr.base + e->vector * size;
    int r = mmu_read_sys(c, wide ? lin : (uint32_t)lin, size, raw);
    if (r)
        return r;
    *ret = (struct gate){
        .sel = (uint16_t)(raw[0] >> 16),
        .off = (raw[0] & 0xffff) | (raw[0] >> 48) << 16 | raw[1] << 32,
        .type = raw[0] >> 40 & 31, /* with the S bit: 1 makes it no gate */
        .dpl = raw[0] >> 45 & 3,
        .ist = wide ? raw[0] >> 32 & 7 : 0,
        .present = raw[0] >> 47 & 1,
    };
    bool narrow = ret->type == SYS_INT16 || ret->type == SYS_TRAP16 || ret->type == SYS_TASK_GATE;
    bool ok = ret->type == SYS_INT || ret->type == SYS_TRAP || (narrow && !wide);
    if (!ok || (e->kind == EVENT_SOFTWARE && ret->dpl < c->cpl))
        return fault_idt(c, EXC_GP, e->vector);
    if (!ret->present)
        return fault_idt(c, EXC_NP, e->vector);
    return 0;
}

/* The gate's code segment and the privilege it runs at. */
static int gate_code(struct cpu *c, const struct gate *g, struct cpu_segment *ret_cs, unsigned *ret_cpl)
{
    uint64_t raw;
    if (sel_is_null(g->sel))
        return fault_sel(c, EXC_GP, 0);
    int r = desc_read(c, g->sel, EXC_GP, &raw);
    if (r)
        return r;
    struct cpu_segment cs = seg_from_desc(g->sel, raw);
    if (!seg_is_code(&cs) || cs.dpl > c->cpl)
        return fault_sel(c, EXC_GP, g->sel);
    if (!cs.present)
        return fault_sel(c, EXC_NP, g->sel);
    if (c->mode & MODE_LONG && (!cs.l || cs.db))
        return fault_sel(c, EXC_GP, g->sel);
    *ret_cpl = seg_is_conforming(&cs) ? c->cpl : cs.dpl;
    if (c->mode & MODE_VM86 && *ret_cpl)
        return fault_sel(c, EXC_GP, g->sel);
    r = desc_set_accessed(c, &cs);
    cs.selector = (uint16_t)((g->sel & ~3u) | *ret_cpl);
    *ret_cs = cs;
    return r;
}

/* The frame, from SS downwards. */
static int push_frame(struct cpu *c, struct stack *st, const struct event *e, unsigned size, bool with_ss)
{
    int r;
    if (c->mode & MODE_VM86) {
        static const uint8_t order[] = { SEG_GS, SEG_FS, SEG_DS, SEG_ES };
        for (unsigned i = 0; i < ARRAY_COUNT(order); i++)
            if ((r = stack_push(c, st, size, c->seg[order[i]].selector)))
                return r;
    }
    if (with_ss && ((r = stack_push(c, st, size, c->seg[SEG_SS].selector)) ||
                    (r = stack_push(c, st, size, c->gpr[4]))))
        return r;
    if ((r = stack_push(c, st, size, pushed_flags(c, e))) ||
        (r = stack_push(c, st, size, c->seg[SEG_CS].selector)) ||
        (r = stack_push(c, st, size, e->rip)))
        return r;
    return e->has_error ? stack_push(c, st, size, e->error) : 0;
}

static int gate_stack(struct cpu *c, const struct gate *g, unsigned cpl, struct stack *ret)
{
    if (c->mode & MODE_LONG) {
        if (g->ist || cpl != c->cpl) {
            int r = tss_stack64(c, cpl, g->ist, ret);
            if (r)
                return r;
            if (cpl == c->cpl)
                ret->ss = c->seg[SEG_SS];
        } else {
            *ret = stack_current(c);
            ret->flat64 = true;
        }
        ret->sp &= ~15ull;
        return 0;
    }
    if (cpl != c->cpl)
        return tss_stack(c, cpl, ret);
    *ret = stack_current(c);
    return 0;
}

static int deliver_gate(struct cpu *c, const struct event *e)
{
    struct gate g;
    struct cpu_segment cs;
    struct stack st;
    unsigned cpl = 0;
    int r = read_gate(c, e, &g);
    if (r)
        return r;
    if (g.type == SYS_TASK_GATE)
        return task_switch(c, g.sel, TASK_GATE, e->rip, e->has_error, e->error);
    if ((r = gate_code(c, &g, &cs, &cpl)) || (r = gate_stack(c, &g, cpl, &st)))
        return r;
    bool wide = c->mode & MODE_LONG;
    unsigned size = wide ? 8 : g.type & 8 ? 4 : 2;
    uint64_t rip = size == 2 ? g.off & 0xffff : g.off;
    if ((r = push_frame(c, &st, e, size, wide || cpl != c->cpl)) || (r = cs_check_rip(c, &cs, rip)))
        return r;
    /* Committed from here on. */
    if (c->mode & MODE_VM86) {
        static const uint8_t data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
        for (unsigned i = 0; i < ARRAY_COUNT(data); i++)
            c->seg[data[i]] = seg_null(0);
    }
    if (cpl != c->cpl)
        seg_set(c, SEG_SS, &st.ss);
    stack_commit(c, &st);
    uint32_t clear = FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM | (g.type & 1 ? 0 : FLAG_IF);
    cpu_set_flags(c, 0, clear);
    cs_set(c, &cs, rip, cpl);
    return 0;
}

int event_deliver(struct cpu *c, const struct event *e)
{
    c->sys->ext = e->kind != EVENT_SOFTWARE;
    int r = c->mode & MODE_REAL && !(c->mode & MODE_VM86) ? deliver_real(c, e) : deliver_gate(c, e);
    c->sys->ext = false;
    if (r)
        return r;
    c->int_shadow = 0;
    c->halted = false;
    c->tf_latched = false;
    /* An instruction that has faulted comes again, and hits its breakpoints again. What MOV SS held
     * back comes after an INT n. */
    if (e->kind == EVENT_EXCEPTION || e->kind == EVENT_ICEBP)
        c->dr6_pending = 0;
    cpu_update_mode(c);
    return 0;
}

/* --- exceptions --- */

static bool is_contributory(uint8_t v)
{
    return v == EXC_DE || (v >= EXC_TS && v <= EXC_GP);
}

static bool makes_double_fault(uint8_t first, uint8_t second)
{
    if (first == EXC_PF)
        return second == EXC_PF || is_contributory(second);
    return is_contributory(first) && is_contributory(second);
}

/* Registers that an exception changes even if its delivery fails. */
static void note_fault(struct cpu *c, const struct cpu_fault *f)
{
    if (f->vector == EXC_PF)
        c->cr2 = f->cr2;
    if (f->vector == EXC_DB) {
        c->dr[6] = (c->dr[6] & ~(uint64_t)(f->dr6 & 15 ? 15 : 0)) | f->dr6;
        c->dr[7] &= ~(uint64_t)DR7_GD;
    }
}

static bool is_trap(const struct cpu_fault *f)
{
    return f->trap || f->vector == EXC_DF || f->vector == EXC_MC || f->vector == EXC_BP ||
           f->vector == EXC_OF;
}

static int shut_down(struct cpu *c)
{
    c->exit_reason = CPU_EXIT_SHUTDOWN;
    return X_EXIT;
}

int cpu_deliver_fault(struct cpu *c)
{
    struct cpu_fault f = c->fault;
    for (unsigned n = 0; n < MAX_NESTED; n++) {
        struct event e = { .vector = f.vector, .kind = EVENT_EXCEPTION, .has_error = f.has_error,
                           .error = f.error, .rip = c->rip, .set_rf = !is_trap(&f) };
        c->stats.exceptions++;
        note_fault(c, &f);
        if (event_deliver(c, &e) == 0)
            return X_JUMP;
        if (f.vector == EXC_DF)
            return shut_down(c);
        if (makes_double_fault(f.vector, c->fault.vector)) {
            note_fault(c, &c->fault);
            f = (struct cpu_fault){ .vector = EXC_DF, .has_error = true };
        } else {
            f = c->fault;
        }
    }
    return shut_down(c);
}

int cpu_deliver_interrupt(struct cpu *c, uint8_t vector, bool nmi)
{
    struct event e = { .vector = nmi ? EXC_NMI : vector, .kind = EVENT_EXTERNAL, .rip = c->rip };
    c->halted = false;
    if (nmi)
        c->nmi_blocked = true;
    if (event_deliver(c, &e) == 0)
        return X_JUMP;
    return cpu_deliver_fault(c);
}

/* --- INT n, INT3, INTO, ICEBP --- */

/* The handler's instruction is done when this succeeds; a fault is the instruction's own. */
static int software(struct cpu *c, const struct insn *i, uint8_t vector, enum event_kind kind)
{
    uint64_t next = c->rip + i->len;
    if (!(c->mode & MODE_CODE64))
        next = c->mode & MODE_CODE32 ? (uint32_t)next : (uint16_t)next;
    struct event e = { .vector = vector, .kind = kind, .rip = next };
    int r = event_deliver(c, &e);
    return r ? r : X_JUMP;
}

int x_int(struct cpu *c, const struct insn *i)
{
    if (c->mode & MODE_VM86 && (c->flags_sys & FLAG_IOPL) != FLAG_IOPL)
        return cpu_raise_error(c, EXC_GP, 0);
    return software(c, i, (uint8_t)i->imm, EVENT_SOFTWARE);
}

int x_int3(struct cpu *c, const struct insn *i)
{
    return software(c, i, EXC_BP, EVENT_SOFTWARE);
}

int x_into(struct cpu *c, const struct insn *i)
{
    if (!(cpu_flags(c) & FLAG_OF))
        return X_NEXT;
    return software(c, i, EXC_OF, EVENT_SOFTWARE);
}

int x_icebp(struct cpu *c, const struct insn *i)
{
    uint8_t held = c->dr6_pending; /* by MOV SS: comes with this #DB */
    int r = software(c, i, EXC_DB, EVENT_ICEBP);
    if (r == X_FAULT)
        return r;
    c->dr[7] &= ~(uint64_t)DR7_GD;
    c->dr[6] |= held;
    return r;
}
