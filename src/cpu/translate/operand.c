/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Registers and memory of the guest in host code. */
#include "cpu/translate/emit.h"

#include <cpuid.h>

enum { RSP = 4 };

const uint8_t host_of[16] = {
    R_BX, R_11, R_DX, R_10, R_15, R_BP, R_SI, R_DI, R_8, R_9, R_14, R_NONE, R_12, R_13, R_NONE, R_NONE,
};

/* --- registers --- */

unsigned emit_reg(struct tr *t, unsigned n, unsigned scratch)
{
    if (host_of[n] != R_NONE)
        return host_of[n];
    as_load(&t->as, 8, scratch, gpr_mem(n));
    return scratch;
}

unsigned emit_reg_dst(struct tr *t, unsigned n, unsigned scratch)
{
    return host_of[n] != R_NONE ? host_of[n] : scratch;
}

void emit_reg_done(struct tr *t, unsigned n, unsigned host)
{
    if (host_of[n] == R_NONE)
        as_store(&t->as, 8, gpr_mem(n), host);
}

/* --- addresses --- */

/* The ModRM operand's offset as a host memory operand: registers that live in memory come to `s0` and `s1`. RIP-relative
 * ones have rip_page in s0. */
static struct as_mem operand_mem(struct tr *t, const struct insn *i, unsigned s0, unsigned s1)
{
    struct as_mem m = { .base = R_NONE, .index = R_NONE, .scale = i->scale, .disp = i->disp };

    if (i->base == BASE_RIP) {
        int64_t off = (int64_t)i->disp + t->next;
        emit_rip(t, s0, off == (int32_t)off ? 0 : t->next);
        m.base = (uint8_t)s0;
        if (off == (int32_t)off)
            m.disp = (int32_t)off;
    } else if (i->base != REG_NONE) {
        m.base = (uint8_t)emit_reg(t, i->base, s0);
    }
    if (i->index != REG_NONE)
        m.index = (uint8_t)emit_reg(t, i->index, s1);
    return m;
}

/* dst = m, in the shortest form. */
static void put_address(struct tr *t, unsigned size, unsigned dst, struct as_mem m)
{
    if (m.base == R_NONE && m.index == R_NONE)
        as_mov_imm(&t->as, dst, size == 8 ? (uint64_t)(int64_t)m.disp : (uint32_t)m.disp);
    else if (m.index != R_NONE || m.disp)
        as_lea(&t->as, size, dst, m);
    else if (size == 4)
        as_mov32(&t->as, dst, m.base);
    else if (m.base != dst)
        as_mov(&t->as, dst, m.base);
}

void emit_offset_sized(struct tr *t, const struct insn *i, unsigned dst, unsigned size)
{
    struct as_mem m = operand_mem(t, i, R_S0, R_S1);

    put_address(t, size < i->adsize ? size : i->adsize, dst, m);
}

void emit_offset(struct tr *t, const struct insn *i, unsigned dst)
{
    emit_offset_sized(t, i, dst, i->adsize);
}

/* dst += the base of FS or GS */
static void add_segment(struct tr *t, unsigned seg, unsigned dst)
{
    as_load(&t->as, 8, R_S1, AS_GS(offsetof(struct cpu, seg_base) + 8 * seg));
    as_lea(&t->as, 8, dst, (struct as_mem){ .base = (uint8_t)dst, .index = R_S1 });
}

void emit_linear(struct tr *t, const struct insn *i, unsigned dst, int32_t plus)
{
    struct as_mem m = operand_mem(t, i, dst, R_S1);
    int64_t disp = (int64_t)m.disp + plus;
    bool segment = i->seg >= SEG_FS;

    /* fs:[disp] and fs:[base + disp] need one lea. */
    if (segment && m.index == R_NONE && i->adsize == 8 && disp == (int32_t)disp) {
        as_load(&t->as, 8, R_S1, AS_GS(offsetof(struct cpu, seg_base) + 8 * i->seg));
        m.index = m.base;
        m.base = R_S1;
        m.scale = 0;
        m.disp = (int32_t)disp;
        put_address(t, 8, dst, m);
        return;
    }
    if (disp == (int32_t)disp)
        m.disp = (int32_t)disp;
    put_address(t, i->adsize, dst, m);
    if (disp != (int32_t)disp)
        as_lea(&t->as, i->adsize, dst, AS_AT(dst, plus));
    if (segment)
        add_segment(t, i->seg, dst);
}

/* --- the check --- */

/* Positions of entries in bytes: bits 23:12 of the address, times 32. */
#define POSITION_SHIFT (PAGE_SHIFT - 5)
#define POSITION_MASK ((TLB_SIZE - 1) << 5)
_Static_assert(sizeof(struct tlb_entry) == 32, "position of an entry");

static bool host_has_bmi2(void)
{
    static int8_t known;
    unsigned a, b = 0, c, d;

    if (!known)
        known = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 8) ? 1 : -1;
    return known > 0;
}

/* S1 = the position of S0's entry, in the bank of the mode. */
static void put_position(struct tr *t)
{
    struct as *a = &t->as;

    if (host_has_bmi2()) {
        as_vex_rr(a, (struct as_vex){ .map = 3, .opcode = 0xf0, .pfx = 0xf2 }, R_S1, 0, R_S0); /* rorx */
        as_u8(a, POSITION_SHIFT);
    } else {
        as_mov32(a, R_S1, R_S0);
        as_shift_ri(a, 5, 4, R_S1, POSITION_SHIFT);
    }
    as_alu_ri(a, AS_AND, 4, R_S1, POSITION_MASK);
    if (t->mode & MODE_USER)
        as_alu_rm(a, AS_ADD, 8, R_S1, AS_GS(offsetof(struct cpu, tlb_user_off)));
    else if ((t->c->cr4 & (1u << 21)) && !(t->mode & MODE_SMAP_ON)) /* CR4.SMAP, and AC set */
        as_alu_rm(a, AS_ADD, 8, R_S1, AS_GS(offsetof(struct cpu, tlb_ac_off)));
}

/* S0: linear address, to host address. Host flags are lost already. */
static void put_check(struct tr *t, unsigned size, bool write, unsigned align)
{
    const size_t entry = offsetof(struct cpu, tlb);
    struct as *a = &t->as;

    put_position(t);
    as_alu_rm(a, AS_SUB, 8, R_S0,
              AS_GS_AT(R_S1, entry + (write ? offsetof(struct tlb_entry, write) : offsetof(struct tlb_entry, read))));
    as_alu_ri(a, AS_CMP, 8, R_S0, (int32_t)(PAGE_SIZE - size));
    emit_slow_if(t, CC_A);
    if (align > 1) {
        as_test_ri(a, 1, R_S0, (int32_t)(align - 1));
        emit_slow_if(t, CC_NE);
    }
    as_alu_rm(a, AS_ADD, 8, R_S0, AS_GS_AT(R_S1, entry + offsetof(struct tlb_entry, host)));
}

/* --- the stack ---
 *
 * Most accesses by way of RSP are to the page of the one before: cpu.stack_* has it, so that the TLB is asked for another
 * page only. */

static struct cold *slow_path(struct tr *t);

/* S0 = linear address less cpu.stack_tag. */
static void cold_stack(struct tr *t, struct cold *k)
{
    as_fix_here(&t->as, k->from[0]);
    as_alu_rm(&t->as, AS_ADD, 8, R_S0, AS_GS(offsetof(struct cpu, stack_tag)));
    as_mov_imm(&t->as, R_S1, k->stack_bytes);
    as_call_to(&t->as, k->stack_write ? t->thunk->stack_write : t->thunk->stack_read);
    as_jcc_to(&t->as, CC_AE, k->back);
    if (k->otherwise->start)
        as_jmp_to(&t->as, k->otherwise->start);
    else if (k->otherwise->n_from < ARRAY_COUNT(k->otherwise->from))
        k->otherwise->from[k->otherwise->n_from++] = as_jmp(&t->as, true);
    else
        t->give_up = true;
}

static void put_stack_check(struct tr *t, unsigned size, bool write)
{
    if (size > STACK_RUN) {
        put_check(t, size, write, 1);
        return;
    }
    struct cold *k = emit_cold(t);
    struct cold *slow = slow_path(t);
    if (!k || !slow)
        return;
    k->emit = cold_stack;
    k->otherwise = slow;
    k->stack_bytes = (uint8_t)size;
    k->stack_write = write;
    as_alu_rm(&t->as, AS_SUB, 8, R_S0, AS_GS(offsetof(struct cpu, stack_tag)));
    as_alu_rm(&t->as, AS_CMP, 8, R_S0, AS_GS(offsetof(struct cpu, stack_room[size > 8])));
    k->from[k->n_from++] = as_jcc(&t->as, CC_AE, true);
    as_alu_rm(&t->as, AS_ADD, 8, R_S0, AS_GS(offsetof(struct cpu, stack_host)));
    k->back = emit_here(t);
}

void emit_mem(struct tr *t, const struct insn *i, unsigned size, bool write, unsigned align)
{
    flags_clobber(t);
    emit_linear(t, i, R_S0, 0);
    if (i->base == RSP && i->index == REG_NONE && i->seg == SEG_SS && align == 1)
        put_stack_check(t, size, write);
    else
        put_check(t, size, write, align);
}

void emit_mem_at(struct tr *t, unsigned n, int32_t disp, unsigned size, bool write)
{
    struct as_mem m = AS_AT(0, disp);

    flags_clobber(t);
    m.base = (uint8_t)emit_reg(t, n, R_S0);
    put_address(t, t->mode64 ? 8 : 4, R_S0, m);
    if (n == RSP)
        put_stack_check(t, size, write);
    else
        put_check(t, size, write, 1);
}

/* With S0 taken. */
static void clobber_keep(struct tr *t)
{
    if (!t->f.host && !t->f.unknown)
        return;
    as_mov(&t->as, R_S1, R_S0);
    flags_clobber(t);
    as_mov(&t->as, R_S0, R_S1);
}

void emit_mem_s0(struct tr *t, unsigned size, bool write, unsigned align)
{
    clobber_keep(t);
    put_check(t, size, write, align);
}

void emit_stack_s0(struct tr *t, unsigned size, bool write)
{
    clobber_keep(t);
    put_stack_check(t, size, write);
}

/* --- the slow path --- */

struct cold *emit_cold(struct tr *t)
{
    if (t->n_cold == TB_MAX_COLD) {
        t->give_up = true;
        return NULL;
    }
    struct cold *k = &t->cold[t->n_cold++];
    *k = (struct cold){ .insn = (uint8_t)t->n, .before = t->f, .vec = t->vec, .x87 = t->x87 };
    return k;
}

/* RAX = address of guest instruction `n`'s struct insn. */
static void put_insn_address(struct tr *t, unsigned n)
{
    as_bytes(&t->as, "\x48\x8d\x05", 3); /* lea rax, [rip + ...] */
    as_u32(&t->as, (uint32_t)((uintptr_t)&t->tb->insn[n] - (uintptr_t)(emit_here(t) + 4)));
}

void emit_set_rip(struct tr *t, int64_t off)
{
    emit_rip(t, R_S0, off);
    as_store(&t->as, 8, AS_GS(offsetof(struct cpu, rip)), R_S0);
}

static void call_interp(struct tr *t, unsigned n, const uint8_t *thunk)
{
    emit_set_rip(t, t->tb->insn_at[n]);
    put_insn_address(t, n);
    as_call_to(&t->as, thunk);
}

void emit_call_slow(struct tr *t, unsigned n)
{
    call_interp(t, n, t->thunk->slow);
}

/* c->rip = the instruction behind number `n`; the dispatcher looks for it. */
static void leave_behind(struct tr *t, unsigned n)
{
    emit_set_rip(t, t->tb->insn_at[n] + t->tb->insn[n].len);
    as_mov_imm(&t->as, R_AX, TX_LOOKUP);
    as_jmp_to(&t->as, t->thunk->leave);
}

static void cold_interp(struct tr *t, struct cold *k)
{
    k->start = emit_here(t);
    for (unsigned f = 0; f < k->n_from; f++)
        as_fix_here(&t->as, k->from[f]);
    flags_cold_save(t, &k->before);
    emit_x87_cold(t, k);
    for (unsigned n = k->insn; n <= (unsigned)k->insn + k->more; n++)
        emit_call_slow(t, n);
    if (!k->back) {
        leave_behind(t, k->insn + k->more);
        return;
    }
    emit_live_again(t, k);
    flags_cold_restore(t, &k->after);
    as_jmp_to(&t->as, k->back);
}

static struct cold *slow_path(struct tr *t)
{
    if (!t->slow) {
        t->slow = emit_cold(t);
        if (!t->slow)
            return NULL;
        t->slow->emit = cold_interp;
        t->slow->slow = true;
    }
    return t->slow;
}

void emit_slow_if(struct tr *t, unsigned cc)
{
    if (!slow_path(t))
        return;
    if (t->slow->n_from == ARRAY_COUNT(t->slow->from))
        t->give_up = true;
    else
        t->slow->from[t->slow->n_from++] = as_jcc(&t->as, cc, true);
}

static bool may_go_on(const struct insn *i)
{
    return i->row != UINT16_MAX && !(insn_rows[i->row].attr & (A_END | A_MODE | A_SHADOW));
}

void emit_interp(struct tr *t, const struct insn *i)
{
    flags_to_mem(t);
    call_interp(t, t->n, t->thunk->interp);
    t->f = (struct flags){ .mem = true };
    t->vec = 0;
    t->x87 = false;
    if (!may_go_on(i)) {
        leave_behind(t, t->n);
        t->ended = true;
    }
}
