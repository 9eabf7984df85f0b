/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptors, segment registers, stacks of privilege levels.
 *
 * Spec      Intel SDM volume 3, 3.4 and 3.5 (descriptors), 5.4 to 5.8 (checks), 7.7 (64-bit TSS).
 * Thread    The vCPU's own.
 * Trust     Tables are guest memory, read as implicit supervisor accesses.
 */
#include "cpu/sys/internal.h"

int fault_sel(struct cpu *c, uint8_t vector, uint16_t sel)
{
    return cpu_raise_error(c, vector, (sel & ~3u) | c->sys->ext);
}

/* Linear address of a selector's descriptor; `bytes` of it must be inside the table. */
static int desc_address(struct cpu *c, uint16_t sel, unsigned bytes, uint8_t vector, uint64_t *ret)
{
    bool local = sel & 4;
    uint32_t limit = local ? c->ldtr.limit : c->gdtr.limit;
    uint32_t off = sel & ~7u;
    if ((local && (c->ldtr.unusable || !c->ldtr.present)) || off + bytes - 1 > limit)
        return fault_sel(c, vector, sel);
    *ret = (local ? c->ldtr.base : c->gdtr.base) + off;
    if (!(c->mode & MODE_LONG))
        *ret = (uint32_t)*ret;
    return 0;
}

int desc_read(struct cpu *c, uint16_t sel, uint8_t vector, uint64_t *ret_raw)
{
    uint64_t lin = 0;
    int r = desc_address(c, sel, 8, vector, &lin);
    return r ? r : mmu_read_sys(c, lin, 8, ret_raw);
}

int desc_read_high(struct cpu *c, uint16_t sel, uint8_t vector, uint64_t *ret_raw)
{
    uint64_t lin = 0;
    int r = desc_address(c, sel, 16, vector, &lin);
    return r ? r : mmu_read_sys(c, lin + 8, 8, ret_raw);
}

struct cpu_segment seg_from_desc(uint16_t sel, uint64_t raw)
{
    struct cpu_segment s = {
        .selector = sel,
        .base = (raw >> 16 & 0xffffff) | (raw >> 56) << 24,
        .limit = (uint32_t)((raw & 0xffff) | (raw >> 48 & 15) << 16),
        .type = raw >> 40 & 15,
        .s = raw >> 44 & 1,
        .dpl = raw >> 45 & 3,
        .present = raw >> 47 & 1,
        .avl = raw >> 52 & 1,
        .l = raw >> 53 & 1,
        .db = raw >> 54 & 1,
        .g = raw >> 55 & 1,
    };
    if (s.g)
        s.limit = s.limit << 12 | 0xfff;
    return s;
}

struct cpu_segment seg_null(uint16_t sel)
{
    return (struct cpu_segment){ .selector = sel, .dpl = sel & 3, .unusable = true };
}

int desc_set_accessed(struct cpu *c, struct cpu_segment *s)
{
    if (s->type & SEG_ACCESSED)
        return 0;
    uint64_t lin = 0;
    int r = desc_address(c, s->selector, 8, EXC_GP, &lin);
    if (r)
        return r;
    s->type |= SEG_ACCESSED;
    uint8_t b = (uint8_t)(s->type | s->s << 4 | s->dpl << 5 | s->present << 7);
    return mmu_write_sys(c, lin + 5, 1, &b);
}

int desc_set_busy(struct cpu *c, uint16_t sel, bool busy)
{
    uint64_t lin = 0;
    uint8_t b;
    int r = desc_address(c, sel, 8, EXC_GP, &lin);
    if (r || (r = mmu_read_sys(c, lin + 5, 1, &b)))
        return r;
    b = busy ? b | 2 : b & ~2;
    return mmu_write_sys(c, lin + 5, 1, &b);
}

/* --- data and stack segments --- */

int ss_load(struct cpu *c, uint16_t sel, unsigned cpl, uint8_t vector, struct cpu_segment *ret)
{
    uint64_t raw;
    if (sel_is_null(sel))
        return fault_sel(c, vector, 0);
    int r = desc_read(c, sel, vector, &raw);
    if (r)
        return r;
    *ret = seg_from_desc(sel, raw);
    if ((sel & 3) != cpl || ret->dpl != cpl || !seg_is_writable_data(ret))
        return fault_sel(c, vector, sel);
    if (!ret->present)
        return fault_sel(c, EXC_SS, sel);
    return desc_set_accessed(c, ret);
}

int data_load(struct cpu *c, uint16_t sel, uint8_t vector, struct cpu_segment *ret)
{
    uint64_t raw;
    if (sel_is_null(sel)) {
        *ret = seg_null(sel);
        return 0;
    }
    int r = desc_read(c, sel, vector, &raw);
    if (r)
        return r;
    *ret = seg_from_desc(sel, raw);
    bool readable = ret->s && (!(ret->type & SEG_CODE) || ret->type & SEG_WRITE_READ);
    bool inner = !seg_is_conforming(ret) && (ret->dpl < c->cpl || ret->dpl < (sel & 3));
    if (!readable || inner)
        return fault_sel(c, vector, sel);
    if (!ret->present)
        return fault_sel(c, EXC_NP, sel);
    return desc_set_accessed(c, ret);
}

struct cpu_segment seg_real(const struct cpu *c, unsigned seg, uint16_t sel)
{
    struct cpu_segment s = c->seg[seg];
    s.selector = sel;
    s.base = (uint64_t)sel << 4;
    s.unusable = false;
    if (c->flags_sys & FLAG_VM)
        s = (struct cpu_segment){ .selector = sel, .base = s.base, .limit = 0xffff, .type = 3, .dpl = 3,
                                  .s = true, .present = true };
    return s;
}

int seg_load(struct cpu *c, unsigned seg, uint16_t sel)
{
    struct cpu_segment s;
    int r = 0;
    if (c->mode & MODE_REAL)
        s = seg_real(c, seg, sel);
    else if (seg != SEG_SS)
        r = data_load(c, sel, EXC_GP, &s);
    else if (sel_is_null(sel) && c->mode & MODE_CODE64 && c->cpl < 3 && (sel & 3) == c->cpl)
        s = seg_null(sel);
    else
        r = ss_load(c, sel, c->cpl, EXC_GP, &s);
    if (r)
        return r;
    seg_set(c, seg, &s);
    cpu_update_mode(c);
    return 0;
}

void seg_set(struct cpu *c, unsigned seg, const struct cpu_segment *s)
{
    c->seg[seg] = *s;
}

void seg_drop_inner(struct cpu *c, unsigned cpl)
{
    for (unsigned i = 0; i < N_SEGS; i++) {
        struct cpu_segment *s = &c->seg[i];
        if (i == SEG_CS || i == SEG_SS || s->unusable)
            continue;
        uint64_t base = c->mode & MODE_LONG ? s->base : 0; /* 64-bit code goes on using it */
        if (s->dpl < cpl && !seg_is_conforming(s)) {
            *s = seg_null(0);
            s->base = base;
        }
    }
}

/* --- stacks --- */

struct stack stack_current(const struct cpu *c)
{
    return (struct stack){ .ss = c->seg[SEG_SS], .sp = c->gpr[4], .cpl = c->cpl,
                           .flat64 = c->mode & MODE_CODE64 };
}

static uint64_t stack_mask(const struct stack *s)
{
    return s->flat64 ? UINT64_MAX : s->ss.db ? UINT32_MAX : 0xffff;
}

/* Linear address of the stack's [sp, sp + size), after the segment's checks. */
static int stack_linear(struct cpu *c, const struct stack *s, uint64_t sp, unsigned size, uint64_t *ret)
{
    if (s->flat64) {
        if (exec_canonical(sp) != sp || exec_canonical(sp + size - 1) != sp + size - 1)
            return fault_sel(c, EXC_SS, s->sel);
        *ret = sp;
        return 0;
    }
    uint64_t last = sp + size - 1;
    bool down = s->ss.type & SEG_DOWN_CONF;
    bool inside = down ? sp > s->ss.limit && last <= (s->ss.db ? UINT32_MAX : 0xffffu)
                       : last <= s->ss.limit;
    if (!inside || s->ss.unusable)
        return fault_sel(c, EXC_SS, s->sel);
    *ret = (uint32_t)(s->ss.base + sp);
    return 0;
}

int stack_push(struct cpu *c, struct stack *s, unsigned size, uint64_t val)
{
    uint64_t sp = (s->sp - size) & stack_mask(s), lin;
    int r = stack_linear(c, s, sp, size, &lin);
    if (r || (r = mmu_write_cpl(c, s->cpl, lin, size, &val)))
        return r;
    s->sp = sp;
    return 0;
}

int stack_pop(struct cpu *c, struct stack *s, unsigned size, uint64_t *ret)
{
    uint64_t sp = s->sp & stack_mask(s), lin, val = 0;
    int r = stack_linear(c, s, sp, size, &lin);
    if (r || (r = mmu_read_cpl(c, s->cpl, lin, size, &val)))
        return r;
    s->sp = (sp + size) & stack_mask(s);
    *ret = val;
    return 0;
}

void stack_commit(struct cpu *c, const struct stack *s)
{
    uint64_t mask = stack_mask(s);
    if (mask == 0xffff)
        c->gpr[4] = (c->gpr[4] & ~mask) | (s->sp & mask);
    else
        c->gpr[4] = s->sp & mask;
}

int tss_stack(struct cpu *c, unsigned cpl, struct stack *ret)
{
    bool wide = c->tr.type & 8;
    unsigned off = wide ? 4 + cpl * 8 : 2 + cpl * 4, half = wide ? 4 : 2;
    uint32_t sp = 0;
    uint16_t sel = 0;
    if (off + half + 1 > c->tr.limit)
        return fault_sel(c, EXC_TS, c->tr.selector);
    int r = mmu_read_sys(c, c->tr.base + off, half, &sp);
    if (r || (r = mmu_read_sys(c, c->tr.base + off + half, 2, &sel)))
        return r;
    *ret = (struct stack){ .sp = sp, .cpl = cpl, .sel = sel };
    return ss_load(c, sel, cpl, EXC_TS, &ret->ss);
}

int tss_stack64(struct cpu *c, unsigned cpl, unsigned ist, struct stack *ret)
{
    unsigned off = ist ? 36 + (ist - 1) * 8 : 4 + cpl * 8;
    uint64_t sp;
    if (off + 7 > c->tr.limit)
        return fault_sel(c, EXC_TS, c->tr.selector);
    int r = mmu_read_sys(c, c->tr.base + off, 8, &sp);
    if (r)
        return r;
    if (exec_canonical(sp) != sp)
        return fault_sel(c, EXC_SS, 0);
    *ret = (struct stack){ .ss = seg_null((uint16_t)cpl), .sp = sp, .cpl = cpl, .flat64 = true };
    return 0;
}

/* --- code segments --- */

int cs_check_rip(struct cpu *c, const struct cpu_segment *cs, uint64_t rip)
{
    bool code64 = c->efer & EFER_LMA && cs->l;
    if (code64 ? exec_canonical(rip) != rip : rip > cs->limit)
        return cpu_raise_error(c, EXC_GP, c->sys->ext);
    return 0;
}

void cs_set(struct cpu *c, const struct cpu_segment *cs, uint64_t rip, unsigned cpl)
{
    c->seg[SEG_CS] = *cs;
    c->cpl = (uint8_t)cpl;
    c->rip = rip;
}
