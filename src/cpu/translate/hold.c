/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One check for several accesses through the same registers: fields of a structure, slots of the stack, a value that is
 * loaded, changed and stored, vectors one behind the other.
 *
 * The first access looks ahead, checks the range of those to come, and S0 *holds* the range's host address until
 * something writes S0 (struct as tells), a register of the address changes or the last of them is done. While it is held,
 * accesses destroy no flags. Where the check fails, cold code has the instructions once more, each with its own
 * check, and joins behind the last that relied on the hold.
 *
 * Thread    The one that builds the block.
 */
#include "cpu/decode/operand.h"
#include "cpu/exec/handlers.h"
#include "cpu/translate/vector.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { RSP = 4 };

#define HOLD_BYTES 256 /* checked at once */
#define HOLD_INSNS 24  /* looked ahead */

/* What is known of a handler whose emitter takes its operand from emit_near_mem(). */
enum {
    K_KNOWN = 1,
    K_WRITES = 2,     /* the memory operand */
    K_BYTE = 4,       /* it has this size, whatever the operand size */
    K_WORD = 8,
    K_DWORD = 16,
    K_VECTOR = 32,    /* the row says */
};

struct kind {
    exec_fn *exec;
    uint8_t kind;
};

#define ALU_KINDS(name)                                                                            \
    { x_##name##_EG, K_KNOWN | K_WRITES }, { x_##name##_GE, K_KNOWN },                             \
    {                                                                                              \
        x_##name##_EI, K_KNOWN | K_WRITES                                                          \
    }
#define SHIFT_KINDS(name)                                                                          \
    { x_##name##_EI, K_KNOWN | K_WRITES }, { x_##name##_E1, K_KNOWN | K_WRITES },                  \
    {                                                                                              \
        x_##name##_EC, K_KNOWN | K_WRITES                                                          \
    }
/* Their only register result is their first operand, RAX and RDX included. */
static const struct kind kinds[] = {
    ALU_KINDS(add), ALU_KINDS(or), ALU_KINDS(adc), ALU_KINDS(sbb), ALU_KINDS(and), ALU_KINDS(sub), ALU_KINDS(xor),
    { x_cmp_EG, K_KNOWN }, { x_cmp_GE, K_KNOWN }, { x_cmp_EI, K_KNOWN },
    { x_test_EG, K_KNOWN }, { x_test_EI, K_KNOWN },
    { x_inc_E, K_KNOWN | K_WRITES }, { x_dec_E, K_KNOWN | K_WRITES }, { x_neg_E, K_KNOWN | K_WRITES },
    { x_not_E, K_KNOWN | K_WRITES },
    SHIFT_KINDS(rol), SHIFT_KINDS(ror), SHIFT_KINDS(shl), SHIFT_KINDS(shr), SHIFT_KINDS(sar),
    { x_mov_EG, K_KNOWN | K_WRITES }, { x_mov_GE, K_KNOWN }, { x_mov_EI, K_KNOWN | K_WRITES },
    { x_movzx_8, K_KNOWN | K_BYTE }, { x_movzx_16, K_KNOWN | K_WORD }, { x_movsx_8, K_KNOWN | K_BYTE },
    { x_movsx_16, K_KNOWN | K_WORD }, { x_movsx_32, K_KNOWN | K_DWORD },
    { x_cmovcc, K_KNOWN }, { x_setcc, K_KNOWN | K_WRITES | K_BYTE },
    { x_imul_GE, K_KNOWN }, { x_imul_GEI, K_KNOWN },
    { x_lea, K_KNOWN }, { x_nop, K_KNOWN },
    { x_vec, K_KNOWN | K_VECTOR },
};

static uint8_t *kind_of_row;

static void index_kinds(void)
{
    kind_of_row = calloc(insn_row_count, 1);
    for (unsigned r = 0; kind_of_row && r < insn_row_count; r++)
        for (unsigned k = 0; k < ARRAY_COUNT(kinds); k++)
            if (exec_row_handler(r) == kinds[k].exec)
                kind_of_row[r] = kinds[k].kind;
}

static unsigned kind_of(const struct tr *t, const struct insn *i)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, index_kinds);
    return kind_of_row && build_native(t, i) ? kind_of_row[i->row] : 0;
}

static bool accesses(const struct insn *i)
{
    exec_fn *x = exec_row_handler(i->row);

    return i->mem && x != x_lea && x != x_nop;
}

static unsigned access_bytes(const struct insn *i, unsigned kind)
{
    if (kind & K_VECTOR)
        return vector_bytes(i);
    return kind & K_BYTE ? 1 : kind & K_WORD ? 2 : kind & K_DWORD ? 4 : i->opsize;
}

static bool plain_address(const struct tr *t, const struct insn *i)
{
    return i->seg < SEG_FS && i->adsize == (t->mode64 ? 8 : 4);
}

static bool same_registers(const struct hold *h, const struct insn *i)
{
    return i->base == h->base && i->index == h->index && (i->index == REG_NONE || i->scale == h->scale);
}

static int64_t place_of(const struct tr *t, unsigned n)
{
    const struct insn *i = &t->tb->insn[n];

    return i->disp + (i->base == BASE_RIP ? t->tb->insn_at[n] + (int64_t)i->len : 0);
}

/* The instruction may change register `base`. */
static bool changes(const struct insn *i, unsigned base)
{
    const struct operand_info *o = &operand_infos[insn_rows[i->row].operand[0]];
    unsigned n;

    switch (o->place) {
    case AT_RM:
        if (i->mem)
            return false;
        n = i->rm;
        break;
    case AT_REG:
    case AT_OPCODE:
        n = i->reg;
        break;
    case AT_FIXED:
        n = 0;
        break;
    default:
        return false;
    }
    return n == base || (i->opsize == 1 && n >= 4 && n - 4 == base) || (o->size == 1 && n >= 4 && n - 4 == base);
}

/* --- planning --- */

/* Takes instruction n's operand into the range, if it fits. */
static bool widen(const struct tr *t, unsigned n, unsigned kind, struct hold *h)
{
    const struct insn *i = &t->tb->insn[n];
    int64_t at = place_of(t, n), end = at + access_bytes(i, kind);
    int64_t lo = at < h->lo ? at : h->lo, hi = end > h->hi ? end : h->hi;
    unsigned align = kind & K_VECTOR ? vector_align(i) : 1;

    /* Each operand is aligned if the range is: so distances are multiples of the strictest. */
    if (align < h->align)
        align = h->align;
    if (hi - lo > HOLD_BYTES || (at - h->lo) % (int64_t)align)
        return false;
    h->align = align;
    h->lo = lo;
    h->hi = hi;
    h->write |= kind & K_VECTOR ? vector_writes_memory(i) : !!(kind & K_WRITES);
    h->last = n;
    return true;
}

/* The accesses that the one in hand begins. False: there is just this. */
static bool plan(const struct tr *t, struct hold *ret)
{
    struct hold h = { .base = t->i->base, .index = t->i->index, .scale = t->i->scale, .align = 1, .first = t->n,
                      .lo = place_of(t, t->n), .hi = place_of(t, t->n) };

    for (unsigned n = t->n; n < t->count && n < t->n + HOLD_INSNS; n++) {
        const struct insn *i = &t->tb->insn[n];
        unsigned kind = kind_of(t, i);
        if (!kind)
            break;
        if (accesses(i) && (!plain_address(t, i) || !same_registers(&h, i) || !widen(t, n, kind, &h)))
            break;
        if (changes(i, h.base) || changes(i, h.index))
            break;
    }
    *ret = h;
    return h.last > t->n;
}

/* --- the cold copy --- */

/* Flags where the hot code has them at the end. */
static void join_flags(struct tr *t, const struct flags *want)
{
    const struct flags *now = &t->f;
    bool slots = want->replay && (want->a >= 16 || (want->b >= 16 && want->b != R_NONE));

    if (slots && (now->replay != want->replay || now->size != want->size || now->a != want->a || now->b != want->b ||
                  now->imm != want->imm))
        t->no_hold = t->give_up = true; /* what was put aside differs */
    if (want->mem)
        flags_to_mem(t);
    if (want->host)
        flags_need(t);
}

static void cold_hold(struct tr *t, struct cold *k)
{
    struct flags want = k->after;
    const uint8_t *back = k->back;
    unsigned first = k->insn, last = first + k->more;

    k->start = emit_here(t);
    for (unsigned f = 0; f < k->n_from; f++)
        as_fix_here(&t->as, k->from[f]);
    t->f = k->before;
    if (t->f.from_entry) {
        flags_cold_save(t, &k->before);
        t->f = (struct flags){ .mem = true };
    }
    t->vec = k->vec;
    t->x87 = k->x87;
    t->in_copy = true;
    for (unsigned n = first; n <= last; n++) {
        t->n = n;
        build_emit(t);
    }
    t->in_copy = false;
    join_flags(t, &want);
    as_jmp_to(&t->as, back);
}

/* --- what emitters and the builder call --- */

static bool held(const struct tr *t, int64_t at, unsigned size, bool write, unsigned align)
{
    const struct hold *h = &t->hold;

    return h->cold && !t->in_copy && !t->as.ax_used && t->n <= h->last && same_registers(h, t->i) &&
           plain_address(t, t->i) && at >= h->lo && at + size <= h->hi && (h->write || !write) &&
           align <= h->align && (at - h->lo) % (int64_t)align == 0;
}

struct as_mem emit_near_mem(struct tr *t, const struct insn *i, unsigned size, bool write)
{
    return emit_near_aligned(t, i, size, write, 1);
}

struct as_mem emit_near_aligned(struct tr *t, const struct insn *i, unsigned size, bool write, unsigned align)
{
    int64_t at = place_of(t, t->n);
    struct hold h;

    if (held(t, at, size, write, align)) {
        t->hold.used = true;
        return AS_AT(R_S0, at - t->hold.lo);
    }
    if (t->in_copy || t->no_hold || !kind_of(t, i) || !plain_address(t, i) || !plan(t, &h)) {
        emit_mem(t, i, size, write, align);
        return AS_AT(R_S0, 0);
    }
    flags_clobber(t);
    emit_linear(t, i, R_S0, (int32_t)(h.lo - at));
    h.cold = t->slow = emit_cold(t);
    if (!h.cold)
        return AS_AT(R_S0, 0);
    h.cold->emit = cold_hold;
    h.cold->slow = true;
    if (h.base == RSP && i->index == REG_NONE && i->seg == SEG_SS && h.align == 1)
        emit_stack_s0(t, (unsigned)(h.hi - h.lo), h.write);
    else
        emit_mem_s0(t, (unsigned)(h.hi - h.lo), h.write, h.align);
    t->as.ax_used = false;
    t->hold = h;
    return AS_AT(R_S0, at - h.lo);
}

void hold_next(struct tr *t)
{
    struct cold *k = t->hold.cold;

    if (t->hold.used) {
        k->more = (uint8_t)(t->n - k->insn);
        k->back = emit_here(t);
        k->after = t->f;
        t->hold.used = false;
    }
}
