/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Hardware task switching, 16 and 32 bits.
 *
 * Spec      Intel SDM volume 3, chapter 7 (7.3: the order of checks; table 7-1: their exceptions).
 * Thread    The vCPU's own.
 *
 * Everything up to the write of TR may fault in the old task. What fails afterwards (LDT, segments,
 * the error code's push) faults in the new one: registers are committed by then.
 */
#include "cpu/sys/internal.h"

#define TSS32_SIZE 104
#define TSS16_SIZE 44
#define TSS_LINK 0

/* Where things stand in a TSS; the two layouts list the same things. */
struct tss_layout {
    unsigned size, width;           /* bytes of the TSS, of a register in it */
    uint8_t first, last;            /* what a switch saves: [first, last) */
    uint8_t ip, flags, gpr, seg, ldt, n_segs;
};

static const struct tss_layout tss32 = { TSS32_SIZE, 4, 0x20, 0x60, 0x20, 0x24, 0x28, 0x48, 0x60, 6 };
static const struct tss_layout tss16 = { TSS16_SIZE, 2, 0x0e, 0x2a, 0x0e, 0x10, 0x12, 0x22, 0x2a, 4 };

static uint32_t tss_get(const uint8_t *tss, unsigned off, unsigned width)
{
    uint32_t v = 0;
    memcpy(&v, tss + off, width);
    return v;
}

static void tss_put(uint8_t *tss, unsigned off, unsigned width, uint32_t v)
{
    memcpy(tss + off, &v, width);
}

/* The descriptor of the task to go to. */
static int find_tss(struct cpu *c, uint16_t sel, enum task_why why, struct cpu_segment *ret)
{
    uint8_t vector = why == TASK_IRET ? EXC_TS : EXC_GP;
    uint64_t raw;
    if (sel & 4 || sel_is_null(sel))
        return fault_sel(c, vector, sel);
    int r = desc_read(c, sel, vector, &raw);
    if (r)
        return r;
    *ret = seg_from_desc(sel, raw);
    unsigned busy = why == TASK_IRET ? 2 : 0;
    if (ret->s || (ret->type & ~8u) != (SYS_TSS16 | busy))
        return fault_sel(c, vector, sel);
    if (!ret->present)
        return fault_sel(c, EXC_NP, sel);
    if (ret->limit < (ret->type & 8 ? TSS32_SIZE : TSS16_SIZE) - 1)
        return fault_sel(c, EXC_TS, sel);
    return 0;
}

/* Saves the running task's registers into its TSS. */
static int save_task(struct cpu *c, enum task_why why, uint64_t rip)
{
    const struct tss_layout *l = c->tr.type & 8 ? &tss32 : &tss16;
    uint8_t tss[TSS32_SIZE];
    uint32_t flags = cpu_flags(c);
    if (why == TASK_IRET)
        flags &= ~FLAG_NT;
    int r = mmu_read_sys(c, c->tr.base + l->first, l->last - l->first, tss + l->first);
    if (r)
        return r;
    tss_put(tss, l->ip, l->width, (uint32_t)rip);
    tss_put(tss, l->flags, l->width, flags);
    for (unsigned i = 0; i < 8; i++)
        tss_put(tss, l->gpr + i * l->width, l->width, (uint32_t)c->gpr[i]);
    for (unsigned i = 0; i < l->n_segs; i++)
        tss_put(tss, l->seg + i * l->width, 2, c->seg[i].selector);
    return mmu_write_sys(c, c->tr.base + l->first, l->last - l->first, tss + l->first);
}

/* --- the new task's registers --- */

static int load_ldt(struct cpu *c, uint16_t sel)
{
    uint64_t raw;
    c->ldtr = seg_null(sel);
    if (sel_is_null(sel))
        return 0;
    if (sel & 4)
        return fault_sel(c, EXC_TS, sel);
    int r = desc_read(c, sel, EXC_TS, &raw);
    if (r)
        return r;
    struct cpu_segment ldt = seg_from_desc(sel, raw);
    if (ldt.s || ldt.type != SYS_LDT || !ldt.present)
        return fault_sel(c, EXC_TS, sel);
    c->ldtr = ldt;
    return 0;
}

static int load_cs(struct cpu *c, uint16_t sel)
{
    uint64_t raw;
    unsigned rpl = sel & 3;
    if (sel_is_null(sel))
        return fault_sel(c, EXC_TS, 0);
    int r = desc_read(c, sel, EXC_TS, &raw);
    if (r)
        return r;
    struct cpu_segment cs = seg_from_desc(sel, raw);
    if (!seg_is_code(&cs) || (seg_is_conforming(&cs) ? cs.dpl > rpl : cs.dpl != rpl))
        return fault_sel(c, EXC_TS, sel);
    if (!cs.present)
        return fault_sel(c, EXC_NP, sel);
    if ((r = desc_set_accessed(c, &cs)))
        return r;
    c->seg[SEG_CS] = cs;
    return 0;
}

static int load_segments(struct cpu *c, const uint16_t *sel)
{
    static const uint8_t data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
    int r;
    if (c->flags_sys & FLAG_VM) {
        for (unsigned i = 0; i < N_SEGS; i++)
            c->seg[i] = seg_real(c, i, sel[i]);
        return 0;
    }
    if ((r = load_cs(c, sel[SEG_CS])) ||
        (r = ss_load(c, sel[SEG_SS], c->cpl, EXC_TS, &c->seg[SEG_SS])))
        return r;
    for (unsigned i = 0; !r && i < ARRAY_COUNT(data); i++)
        r = data_load(c, sel[data[i]], EXC_TS, &c->seg[data[i]]);
    return r;
}

/* Everything that cannot fault. */
static void load_registers(struct cpu *c, const uint8_t *tss, const struct tss_layout *l, enum task_why why)
{
    uint32_t flags = tss_get(tss, l->flags, l->width);
    if (why == TASK_CALL || why == TASK_GATE)
        flags |= FLAG_NT;
    if (!(c->dr[7] & DR7_ENABLES))
        flags &= ~FLAG_RF;
    c->rip = tss_get(tss, l->ip, l->width);
    cpu_set_flags(c, flags, l->width == 4 ? 0x003f7fd5u : 0x00037fd5u);
    for (unsigned i = 0; i < 8; i++) {
        uint32_t v = tss_get(tss, l->gpr + i * l->width, l->width);
        c->gpr[i] = l->width == 4 ? v : 0xffff0000u | v;
    }
    for (unsigned i = 0; i < N_SEGS; i++)
        c->seg[i] = seg_null(i < l->n_segs ? (uint16_t)tss_get(tss, l->seg + i * l->width, 2) : 0);
    c->cpl = flags & FLAG_VM ? 3 : c->seg[SEG_CS].selector & 3;
    c->cr0 |= CR0_TS;
    c->dr[7] &= ~0x155ull;
}

static int load_task(struct cpu *c, const uint8_t *tss, const struct tss_layout *l, enum task_why why)
{
    uint16_t sel[N_SEGS];
    load_registers(c, tss, l, why);
    for (unsigned i = 0; i < N_SEGS; i++)
        sel[i] = c->seg[i].selector;
    cpu_update_mode(c);
    if (l->width == 4 && c->cr0 & CR0_PG) {
        uint64_t cr3 = tss_get(tss, 0x1c, 4);
        if (c->cr4 & CR4_PAE && !mmu_load_pdptes(c, cr3, true))
            return fault_sel(c, EXC_TS, c->tr.selector);
        mmu_set_cr3(c, cr3, false);
    }
    int r = load_ldt(c, (uint16_t)tss_get(tss, l->ldt, 2));
    if (!r)
        r = load_segments(c, sel);
    cpu_update_mode(c);
    return r ? r : cs_check_rip(c, &c->seg[SEG_CS], c->rip);
}

static int push_error(struct cpu *c, unsigned width, uint32_t error)
{
    struct stack st = stack_current(c);
    int r = stack_push(c, &st, width, error);
    if (!r)
        stack_commit(c, &st);
    return r;
}

int task_switch(struct cpu *c, uint16_t sel, enum task_why why, uint64_t rip, bool has_error, uint32_t error)
{
    struct cpu_segment to;
    uint8_t tss[TSS32_SIZE];
    uint16_t old = c->tr.selector;
    int r = find_tss(c, sel, why, &to);
    if (r)
        return r;
    const struct tss_layout *l = to.type & 8 ? &tss32 : &tss16;
    if ((r = mmu_read_sys(c, to.base, l->size, tss)) || (r = save_task(c, why, rip)))
        return r;
    if ((why == TASK_JMP || why == TASK_IRET) && (r = desc_set_busy(c, old, false)))
        return r;
    if ((why == TASK_CALL || why == TASK_GATE) && (r = mmu_write_sys(c, to.base + TSS_LINK, 2, &old)))
        return r;
    if (why != TASK_IRET && (r = desc_set_busy(c, sel, true)))
        return r;
    to.type |= 2;
    c->tr = to;
    r = load_task(c, tss, l, why);
    if (!r && has_error)
        r = push_error(c, l->width, error);
    if (!r && l->width == 4 && tss[0x64] & 1) {
        r = cpu_raise(c, EXC_DB);
        c->fault.trap = true;
        c->fault.dr6 = DR6_BT;
    }
    return r;
}
