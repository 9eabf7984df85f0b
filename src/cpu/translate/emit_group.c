/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One check for several accesses: vector code walks memory in runs such as [rsi], [rsi + 32], [rsi + 64], [rsi + 96]
 * with nothing between that touches S0.
 *
 * The group's range is checked at its first access, and S0 holds its host address until the last. Where that fails (a
 * page boundary within the range, which single accesses do not cross), cold code has all its instructions once
 * more, with a check each.
 *
 * Thread    The one that builds the block.
 */
#include "cpu/exec/handlers.h"
#include "cpu/fpu/emit.h"
#include "cpu/translate/vector.h"

#define GROUP_BYTES 256
#define GROUP_INSNS 16 /* looked ahead */

struct range {
    int64_t first, end; /* of displacements; RIP-relative: of page offsets */
    unsigned align, last;
    bool write;
};

bool vector_is_plain(const struct tr *t, const struct insn *i)
{
    if (!build_native(t, i) || exec_row_handler(i->row) != x_vec)
        return false;
    const struct insn_row *row = &insn_rows[i->row];
    if (row->flags_w || (row->attr & A_MMX) || !vector_runs_here(t, row->attr))
        return false;
    for (unsigned k = 0; k < ARRAY_COUNT(row->operand); k++)
        if (operand_info[row->operand[k]].class == OC_GPR)
            return false;
    return true;
}

static int64_t place_of(const struct tr *t, unsigned n)
{
    const struct insn *i = &t->tb->insn[n];

    return i->disp + (i->base == BASE_RIP ? t->tb->insn_at[n] + i->len : 0);
}

static bool same_registers(const struct insn *a, const struct insn *b)
{
    return a->base == b->base && a->index == b->index && a->scale == b->scale && a->seg == b->seg &&
           a->adsize == b->adsize;
}

/* Takes instruction n's operand into the range, if it fits. */
static bool range_add(const struct tr *t, unsigned n, struct range *r)
{
    const struct insn *i = &t->tb->insn[n];
    unsigned bytes = operand_mem_bytes(i), align = insn_rows[i->row].attr & A_ALIGN ? bytes : 1;
    struct range sum = *r;
    int64_t at = place_of(t, n);

    sum.first = at < r->first ? at : r->first;
    sum.end = at + bytes > r->end ? at + bytes : r->end;
    sum.align = align > r->align ? align : r->align;
    sum.write |= vector_writes_memory(i);
    sum.last = n;
    /* Each operand is aligned if the range is: so distances are multiples of the strictest. */
    if (sum.end - sum.first > GROUP_BYTES || (at - r->first) % sum.align)
        return false;
    *r = sum;
    return true;
}

/* The run of accesses that the instruction in hand begins. */
static bool find_range(const struct tr *t, struct range *ret)
{
    struct range r = { .first = place_of(t, t->n), .end = place_of(t, t->n), .align = 1 };
    unsigned accesses = 0;

    for (unsigned n = t->n; n < t->count && n < t->n + GROUP_INSNS; n++) {
        const struct insn *i = &t->tb->insn[n];
        if (!vector_is_plain(t, i))
            break;
        if (!i->mem)
            continue;
        if (!same_registers(t->i, i) || !range_add(t, n, &r))
            break;
        accesses++;
    }
    *ret = r;
    return accesses > 1;
}

static void cold_group(struct tr *t, struct cold *k)
{
    for (unsigned f = 0; f < k->n_from; f++)
        as_fix_here(&t->as, k->from[f]);
    t->f = k->before;
    t->vec = k->vec;
    t->x87 = k->x87;
    t->group.off = true;
    for (t->n = k->insn; t->n <= (unsigned)k->insn + k->more; t->n++) {
        t->i = &t->tb->insn[t->n];
        t->at = t->tb->insn_at[t->n];
        t->next = (uint16_t)(t->at + t->i->len);
        t->slow = NULL;
        vector_emit(t, t->i);
        if (t->slow) {
            t->slow->after = t->f;
            t->slow->back = emit_here(t);
        }
    }
    t->group.off = false;
    as_jmp_to(&t->as, k->back);
}

struct as_mem emit_group_mem(struct tr *t, const struct insn *i)
{
    unsigned bytes = operand_mem_bytes(i);
    struct range r;

    if (t->group.cold)
        return AS_AT(R_S0, place_of(t, t->n) - t->group.first);
    if (t->group.off || !find_range(t, &r)) {
        emit_mem(t, i, bytes, vector_writes_memory(i), insn_rows[i->row].attr & A_ALIGN ? bytes : 1);
        return AS_AT(R_S0, 0);
    }
    flags_clobber(t);
    emit_linear(t, i, R_S0, (int32_t)(r.first - place_of(t, t->n)));
    struct cold *k = emit_cold(t);
    if (!k)
        return AS_AT(R_S0, 0);
    k->emit = cold_group;
    k->more = (uint8_t)(r.last - t->n);
    t->slow = k;
    emit_mem_s0(t, (unsigned)(r.end - r.first), r.write, r.align);
    t->slow = NULL;
    t->group.cold = k;
    t->group.first = r.first;
    return AS_AT(R_S0, place_of(t, t->n) - r.first);
}

void emit_group_next(struct tr *t)
{
    struct cold *k = t->group.cold;

    if (!k || t->n < (unsigned)k->insn + k->more)
        return;
    k->back = emit_here(t);
    t->group.cold = NULL;
}
