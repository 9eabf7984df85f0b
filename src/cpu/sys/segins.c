/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Instructions on segment registers, selectors and descriptor-table registers.
 *
 * Spec      Intel SDM volume 2; volume 3, 5.10 (LAR, LSL, VERR, VERW, ARPL), 2.4 (table registers).
 * Thread    The vCPU's own.
 */
#include "cpu/exec/handlers.h"
#include "cpu/sys/internal.h"
#include "cpu/sys/operand.h"

static bool umip_forbids(const struct cpu *c)
{
    return c->cr4 & CR4_UMIP && c->cpl > 0;
}

/* --- MOV, PUSH, POP, LxS --- */

int x_mov_from_sreg(struct cpu *c, const struct insn *i)
{
    unsigned seg = i->reg & 7;
    if (seg >= N_SEGS)
        return cpu_raise(c, EXC_UD);
    return rm_write(c, i, 2, i->opsize, c->seg[seg].selector);
}

/* A load of SS holds interrupts and debug traps off for one instruction. */
static int load(struct cpu *c, const struct insn *i, unsigned seg, uint16_t sel)
{
    int r = seg_load(c, seg, sel);
    if (r)
        return r;
    if (seg == SEG_SS)
        c->int_shadow = 2;
    return next_anew(c, i);
}

int x_mov_to_sreg(struct cpu *c, const struct insn *i)
{
    unsigned seg = i->reg & 7;
    uint64_t sel;
    if (seg >= N_SEGS || seg == SEG_CS)
        return cpu_raise(c, EXC_UD);
    int r = rm_read(c, i, 2, &sel);
    return r ? r : load(c, i, seg, (uint16_t)sel);
}

/* 06 0E 16 1E, 0F A0, 0F A8: the register stands in bits 5:3. */
static unsigned opcode_seg(const struct insn *i)
{
    return insn_rows[i->row].opcode >> 3 & 7;
}

int x_push_sreg(struct cpu *c, const struct insn *i)
{
    uint16_t sel = c->seg[opcode_seg(i)].selector;
    if (i->opsize != 4)
        return exec_push(c, i->opsize, sel);
    /* 32-bit: the slot is 4 bytes, of which processors write 2. */
    struct stack st = stack_current(c);
    int r = stack_push(c, &st, 4, sel);
    if (!r)
        stack_commit(c, &st);
    return r;
}

int x_pop_sreg(struct cpu *c, const struct insn *i)
{
    struct stack st = stack_current(c);
    uint64_t sel;
    int r = stack_pop(c, &st, i->opsize, &sel);
    if (r)
        return r;
    unsigned seg = opcode_seg(i);
    /* The stack pointer moves by the old SS. */
    uint64_t rsp = c->gpr[4];
    stack_commit(c, &st);
    r = load(c, i, seg, (uint16_t)sel);
    if (r == X_FAULT)
        c->gpr[4] = rsp;
    return r;
}

static int load_far(struct cpu *c, const struct insn *i, unsigned seg)
{
    uint8_t p[10] = { 0 };
    uint64_t lin, off = 0;
    uint16_t sel;
    int r = exec_linear(c, i, i->opsize + 2u, false, &lin);
    if (r || (r = mmu_read_slow(c, lin, i->opsize + 2u, p)))
        return r;
    memcpy(&off, p, i->opsize);
    memcpy(&sel, p + i->opsize, 2);
    if ((r = seg_load(c, seg, sel)))
        return r;
    reg_set(c, i->reg, i->opsize, off);
    if (seg == SEG_SS)
        c->int_shadow = 2;
    return next_anew(c, i);
}

int x_les(struct cpu *c, const struct insn *i)
{
    return load_far(c, i, SEG_ES);
}

int x_lds(struct cpu *c, const struct insn *i)
{
    return load_far(c, i, SEG_DS);
}

int x_lss(struct cpu *c, const struct insn *i)
{
    return load_far(c, i, SEG_SS);
}

int x_lfs(struct cpu *c, const struct insn *i)
{
    return load_far(c, i, SEG_FS);
}

int x_lgs(struct cpu *c, const struct insn *i)
{
    return load_far(c, i, SEG_GS);
}

/* --- table registers --- */

static int table_store(struct cpu *c, const struct insn *i, const struct cpu_dtable *t)
{
    unsigned base_size = c->mode & MODE_CODE64 ? 8 : 4;
    uint8_t buf[10];
    uint64_t lin;
    if (umip_forbids(c))
        return cpu_raise_error(c, EXC_GP, 0);
    int r = exec_linear(c, i, 2 + base_size, true, &lin);
    if (r)
        return r;
    memcpy(buf, &t->limit, 2);
    memcpy(buf + 2, &t->base, base_size);
    return mmu_write_slow(c, lin, 2 + base_size, buf);
}

static int table_load(struct cpu *c, const struct insn *i, struct cpu_dtable *t)
{
    unsigned base_size = c->mode & MODE_CODE64 ? 8 : 4;
    uint8_t buf[10];
    uint64_t lin, base = 0;
    int r = exec_linear(c, i, 2 + base_size, false, &lin);
    if (r || (r = mmu_read_slow(c, lin, 2 + base_size, buf)))
        return r;
    memcpy(&base, buf + 2, base_size);
    if (base_size == 4 && i->opsize == 2)
        base &= 0xffffff;
    if (exec_canonical(base) != base)
        return cpu_raise_error(c, EXC_GP, 0);
    t->base = base;
    memcpy(&t->limit, buf, 2);
    return X_NEXT;
}

int x_sgdt(struct cpu *c, const struct insn *i)
{
    return table_store(c, i, &c->gdtr);
}

int x_sidt(struct cpu *c, const struct insn *i)
{
    return table_store(c, i, &c->idtr);
}

int x_lgdt(struct cpu *c, const struct insn *i)
{
    return table_load(c, i, &c->gdtr);
}

int x_lidt(struct cpu *c, const struct insn *i)
{
    return table_load(c, i, &c->idtr);
}

int x_sldt(struct cpu *c, const struct insn *i)
{
    if (umip_forbids(c))
        return cpu_raise_error(c, EXC_GP, 0);
    return rm_write(c, i, 2, i->opsize, c->ldtr.selector);
}

int x_str(struct cpu *c, const struct insn *i)
{
    if (umip_forbids(c))
        return cpu_raise_error(c, EXC_GP, 0);
    return rm_write(c, i, 2, i->opsize, c->tr.selector);
}

/* The system descriptor for LDTR or TR; in long mode with 64 bits of base. */
static int read_system(struct cpu *c, uint16_t sel, struct cpu_segment *ret)
{
    uint64_t raw, high;
    if (sel & 4)
        return fault_sel(c, EXC_GP, sel);
    int r = desc_read(c, sel, EXC_GP, &raw);
    if (r)
        return r;
    *ret = seg_from_desc(sel, raw);
    if (!(c->mode & MODE_LONG))
        return 0;
    if ((r = desc_read_high(c, sel, EXC_GP, &high)))
        return r;
    ret->base |= high << 32;
    return exec_canonical(ret->base) == ret->base && !(high >> 40 & 31) ? 0 : fault_sel(c, EXC_GP, sel);
}

int x_lldt(struct cpu *c, const struct insn *i)
{
    struct cpu_segment s;
    uint64_t sel;
    int r = rm_read(c, i, 2, &sel);
    if (r)
        return r;
    if (sel_is_null((uint16_t)sel)) {
        c->ldtr = seg_null((uint16_t)sel);
        return X_NEXT;
    }
    if ((r = read_system(c, (uint16_t)sel, &s)))
        return r;
    if (s.s || s.type != SYS_LDT)
        return fault_sel(c, EXC_GP, (uint16_t)sel);
    if (!s.present)
        return fault_sel(c, EXC_NP, (uint16_t)sel);
    c->ldtr = s;
    return X_NEXT;
}

int x_ltr(struct cpu *c, const struct insn *i)
{
    struct cpu_segment s;
    uint64_t sel;
    int r = rm_read(c, i, 2, &sel);
    if (r)
        return r;
    if (sel_is_null((uint16_t)sel))
        return cpu_raise_error(c, EXC_GP, 0);
    if ((r = read_system(c, (uint16_t)sel, &s)))
        return r;
    if (s.s || (s.type != SYS_TSS && (s.type != SYS_TSS16 || c->mode & MODE_LONG)))
        return fault_sel(c, EXC_GP, (uint16_t)sel);
    if (!s.present)
        return fault_sel(c, EXC_NP, (uint16_t)sel);
    if ((r = desc_set_busy(c, (uint16_t)sel, true)))
        return r;
    s.type |= 2;
    c->tr = s;
    return X_NEXT;
}

/* --- LAR, LSL, VERR, VERW, ARPL --- */

#define TYPE(t) (1u << (t))
#define LAR_TYPES                                                                                  \
    (TYPE(SYS_TSS16) | TYPE(SYS_LDT) | TYPE(SYS_TSS16_BUSY) | TYPE(SYS_CALL16) | TYPE(SYS_TASK_GATE) | \
     TYPE(SYS_TSS) | TYPE(SYS_TSS_BUSY) | TYPE(SYS_CALL))
#define LAR_TYPES64 (TYPE(SYS_LDT) | TYPE(SYS_TSS) | TYPE(SYS_TSS_BUSY) | TYPE(SYS_CALL))
#define LSL_TYPES                                                                                  \
    (TYPE(SYS_TSS16) | TYPE(SYS_LDT) | TYPE(SYS_TSS16_BUSY) | TYPE(SYS_TSS) | TYPE(SYS_TSS_BUSY))
#define LSL_TYPES64 (TYPE(SYS_LDT) | TYPE(SYS_TSS) | TYPE(SYS_TSS_BUSY))

/* Looks a selector up for an instruction that answers in ZF: 1 found, 0 no, X_FAULT a page fault. */
static int look_up(struct cpu *c, uint16_t sel, uint64_t *ret_raw, struct cpu_segment *ret)
{
    if (sel_is_null(sel))
        return 0;
    if (desc_read(c, sel, EXC_GP, ret_raw))
        return c->fault.vector == EXC_PF ? X_FAULT : 0;
    *ret = seg_from_desc(sel, *ret_raw);
    return 1;
}

static bool visible(const struct cpu *c, uint16_t sel, const struct cpu_segment *s)
{
    return seg_is_conforming(s) || (s->dpl >= c->cpl && s->dpl >= (sel & 3));
}

static void set_zf(struct cpu *c, bool on)
{
    cpu_set_flags(c, on ? FLAG_ZF : 0, FLAG_ZF);
}

static int describe(struct cpu *c, const struct insn *i, unsigned types, bool limit)
{
    struct cpu_segment s;
    uint64_t sel, raw;
    int r = rm_read(c, i, 2, &sel);
    if (r || (r = look_up(c, (uint16_t)sel, &raw, &s)) == X_FAULT)
        return X_FAULT;
    bool ok = r && (s.s || types >> s.type & 1) &&
              (s.s ? visible(c, (uint16_t)sel, &s) : s.dpl >= c->cpl && s.dpl >= (sel & 3));
    set_zf(c, ok);
    if (ok)
        reg_set(c, i->reg, i->opsize, limit ? s.limit : raw >> 32 & 0x00ffff00);
    return X_NEXT;
}

int x_lar(struct cpu *c, const struct insn *i)
{
    return describe(c, i, c->mode & MODE_LONG ? LAR_TYPES64 : LAR_TYPES, false);
}

int x_lsl(struct cpu *c, const struct insn *i)
{
    return describe(c, i, c->mode & MODE_LONG ? LSL_TYPES64 : LSL_TYPES, true);
}

static int verify(struct cpu *c, const struct insn *i, bool write)
{
    struct cpu_segment s;
    uint64_t sel, raw;
    int r = rm_read(c, i, 2, &sel);
    if (r || (r = look_up(c, (uint16_t)sel, &raw, &s)) == X_FAULT)
        return X_FAULT;
    bool ok = r && s.s && visible(c, (uint16_t)sel, &s);
    if (ok && write)
        ok = seg_is_writable_data(&s);
    else if (ok)
        ok = !(s.type & SEG_CODE) || s.type & SEG_WRITE_READ;
    set_zf(c, ok);
    return X_NEXT;
}

int x_verr(struct cpu *c, const struct insn *i)
{
    return verify(c, i, false);
}

int x_verw(struct cpu *c, const struct insn *i)
{
    return verify(c, i, true);
}

int x_arpl(struct cpu *c, const struct insn *i)
{
    uint64_t sel;
    unsigned rpl = c->gpr[i->reg] & 3;
    int r = rm_read(c, i, 2, &sel);
    if (r)
        return r;
    bool raise = (sel & 3) < rpl;
    if (raise && (r = rm_write(c, i, 2, 2, (sel & ~3ull) | rpl)))
        return r;
    set_zf(c, raise);
    return X_NEXT;
}
