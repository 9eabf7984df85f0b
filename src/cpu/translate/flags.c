/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where the guest's flags are while a block is translated, and how they come back.
 *
 * Host flags are lost by every check of a memory access. What made them is then replayed, in the access's cold path or
 * before a reader; operands whose registers change first are put aside with one store, which is
 * cheaper than to save the flags themselves and disturbs nothing.
 */
#include "cpu/translate/emit.h"

#include <assert.h>

#define FLAGS_AX AS_GS(offsetof(struct cpu, flags_ax))
#define SLOT(k) AS_GS(offsetof(struct cpu, tx_slot) + 8 * (k))
#define SLOT_KEEP SLOT(2)

/* Nobody had asked: the entry is what suits the first who does. */
static void settle(struct tr *t, bool host)
{
    if (!t->f.unknown)
        return;
    t->f = (struct flags){ .host = host, .mem = !host };
    t->entry = t->f;
    t->f.from_entry = !host;
}

/* --- host flags from memory and back --- */

static void load_from_mem(struct as *a)
{
    as_load(a, 2, R_AX, FLAGS_AX);
    as_sahf_from_ax(a);
}

static void save_to_mem(struct as *a)
{
    as_lahf_seto(a);
    as_store(a, 2, FLAGS_AX, R_AX);
}

/* --- replay --- */

static bool in_memory(unsigned n)
{
    return n >= 16 || host_of[n] == R_NONE;
}

static struct as_mem operand_mem(unsigned n)
{
    return n >= 16 ? SLOT(n - 16) : gpr_mem(n);
}

/* host register OP operand b of the replay */
static void op_b(struct as *a, unsigned alu, const struct flags *f, unsigned reg)
{
    if (f->b == R_NONE)
        as_alu_ri(a, alu, f->size, reg, f->imm);
    else if (in_memory(f->b))
        as_alu_rm(a, alu, f->size, reg, operand_mem(f->b));
    else
        as_alu_rr(a, alu, f->size, reg, host_of[f->b]);
}

static void copy_a(struct as *a, const struct flags *f)
{
    if (in_memory(f->a))
        as_load(a, 8, R_S0, operand_mem(f->a));
    else
        as_mov(a, R_S0, host_of[f->a]);
}

static void replay_test(struct as *a, const struct flags *f, unsigned reg)
{
    if (f->b == R_NONE)
        as_test_ri(a, f->size, reg, f->imm);
    else if (f->b == f->a)
        as_test_rr(a, f->size, reg, reg);
    else if (in_memory(f->b))
        as_op_rm(a,
                 (struct as_op){ .opcode = f->size == 1 ? 0x84 : 0x85, .size = f->size, .byte_reg = f->size == 1 },
                 reg, operand_mem(f->b));
    else
        as_test_rr(a, f->size, reg, host_of[f->b]);
}

/* Host flags made again. May destroy S0. */
static void replay(struct as *a, const struct flags *f)
{
    static const uint8_t shift_ext[] = { [REPLAY_SHL] = 4, [REPLAY_SHR] = 5, [REPLAY_SAR] = 7 };
    bool compare = f->replay == REPLAY_CMP || f->replay == REPLAY_TEST;
    unsigned reg = compare && !in_memory(f->a) ? host_of[f->a] : R_S0;

    if (reg == R_S0)
        copy_a(a, f);
    switch (f->replay) {
    case REPLAY_CMP:
        op_b(a, AS_CMP, f, reg);
        break;
    case REPLAY_TEST:
        replay_test(a, f, reg);
        break;
    case REPLAY_ADD:
        op_b(a, AS_SUB, f, reg);
        op_b(a, AS_ADD, f, reg);
        break;
    case REPLAY_SUB:
        op_b(a, AS_ADD, f, reg);
        op_b(a, AS_CMP, f, reg);
        break;
    case REPLAY_NEG:
        for (unsigned k = 0; k < 2; k++)
            as_op_rr(a,
                     (struct as_op){ .opcode = f->size == 1 ? 0xf6 : 0xf7, .size = f->size,
                                     .byte_rm = f->size == 1 },
                     3, reg);
        break;
    default:
        as_shift_ri(a, shift_ext[f->replay], f->size, reg, (unsigned)f->imm);
    }
}

static void make_host(struct as *a, const struct flags *f)
{
    if (f->replay)
        replay(a, f);
    else
        load_from_mem(a);
}

/* --- what emitters call --- */

void flags_clobber(struct tr *t)
{
    settle(t, false);
    if (t->f.host && !t->f.mem && !t->f.replay) {
        save_to_mem(&t->as);
        t->f.mem = true;
    }
    t->f.host = false;
}

/* Somebody takes flags from memory. */
static void look(struct tr *t)
{
    t->no_loop |= t->f.from_entry;
    t->f.from_entry = false;
}

void flags_need(struct tr *t)
{
    settle(t, true);
    if (t->f.host)
        return;
    look(t);
    make_host(&t->as, &t->f);
    t->f.host = true;
}

void flags_need_keep(struct tr *t)
{
    settle(t, true);
    if (t->f.host)
        return;
    as_store(&t->as, 8, SLOT_KEEP, R_S0);
    flags_need(t);
    as_load(&t->as, 8, R_S0, SLOT_KEEP);
}

void flags_to_mem(struct tr *t)
{
    settle(t, false);
    look(t);
    if (t->f.mem)
        return;
    flags_need(t);
    save_to_mem(&t->as);
    t->f.mem = true;
}

void flags_produced(struct tr *t, struct flags how)
{
    how.host = true;
    how.mem = how.unknown = false;
    t->f = how;
}

/* Puts the value of guest register `n` aside and lets the replay take it from there. */
static void put_aside(struct tr *t, unsigned n)
{
    unsigned k = t->f.a == n ? 0 : 1;

    if (in_memory(n)) {
        as_load(&t->as, 8, R_S1, gpr_mem(n));
        as_store(&t->as, 8, SLOT(k), R_S1);
    } else {
        as_store(&t->as, 8, SLOT(k), host_of[n]);
    }
    if (t->f.a == n)
        t->f.a = FLAGS_SLOT(k);
    if (t->f.b == n)
        t->f.b = FLAGS_SLOT(k);
}

void flags_reg_changes(struct tr *t, unsigned n)
{
    struct flags *f = &t->f;

    if (f->from_entry)
        f->changed |= (uint16_t)(1u << n);
    if (f->unknown || !f->replay || (f->a != n && f->b != n))
        return;
    if (f->mem || (f->host && !t->clobber_ahead[t->n])) {
        f->replay = REPLAY_NONE;
        return;
    }
    /* The slow path would jump over the store. */
    if (t->slow) {
        as_store(&t->as, 8, SLOT_KEEP, R_S0);
        flags_to_mem(t);
        as_load(&t->as, 8, R_S0, SLOT_KEEP);
        f->replay = REPLAY_NONE;
        return;
    }
    put_aside(t, n);
}

/* Writes all arithmetic flags, looks at none, and touches neither memory nor control flow. What leaves all undefined is
 * a division, whose fault shows the flags from before it. */
static bool writes_all(const struct insn *i)
{
    const struct insn_row *r = &insn_rows[i->row];

    return !i->mem && r->flags_w == OSZAPC && r->flags_u != OSZAPC && r->flags_r == 0 &&
           !(r->attr & (A_END | A_MODE | A_STRING));
}

bool flags_dead_behind(const struct tr *t)
{
    for (unsigned k = 1; k <= 4 && t->n + k < t->count; k++) {
        const struct insn *i = t->i + k;
        if (!build_native(t, i))
            return false;
        if (writes_all(i))
            return true;
        const struct insn_row *r = &insn_rows[i->row];
        if (i->mem || r->flags_r || r->flags_w || (r->attr & (A_END | A_MODE | A_STRING | A_D64)))
            return false;
    }
    return false;
}

/* --- loops --- */

static bool same_replay(const struct flags *a, const struct flags *b)
{
    return a->replay == b->replay && a->size == b->size && a->a == b->a && a->b == b->b && a->imm == b->imm;
}

static bool unchanged(const struct flags *f, unsigned n)
{
    return n == R_NONE || (n < 16 && !(f->changed >> n & 1));
}

bool flags_loop(struct tr *t)
{
    const struct flags *f = &t->f;

    if (t->no_loop || !t->entry.mem || f->from_entry || !f->host || !f->replay)
        return false;
    if (t->loop.replay && !same_replay(&t->loop, f))
        return false;
    for (unsigned k = 0; k < t->n_cold; k++) {
        const struct cold *c = &t->cold[k];
        if (c->before.from_entry &&
            (!c->slow || !unchanged(&c->before, f->a) || !unchanged(&c->before, f->b)))
            return false;
    }
    if (!unchanged(&(struct flags){ 0 }, f->a) || !unchanged(&(struct flags){ 0 }, f->b))
        return false;
    t->loop = *f;
    return true;
}

/* --- cold code --- */

/* Flags of the start: in memory, unless the block looped. */
static void save_looped(struct tr *t)
{
    as_alu_mi(&t->as, AS_CMP, 1, AS_GS(offsetof(struct cpu, tx_looped)), 0);
    struct as_fix entered = as_jcc(&t->as, CC_E, false);
    replay(&t->as, &t->loop);
    save_to_mem(&t->as);
    as_fix_here(&t->as, entered);
}

void flags_cold_save(struct tr *t, const struct flags *before)
{
    if (before->from_entry && t->loop.replay)
        save_looped(t);
    if (before->mem)
        return;
    assert(before->replay);
    replay(&t->as, before);
    save_to_mem(&t->as);
}

void flags_cold_restore(struct tr *t, const struct flags *after)
{
    if (after->host)
        load_from_mem(&t->as);
}
