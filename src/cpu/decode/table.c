/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The opcode table: rows expanded from the .def files, and the index over them by map and opcode.
 *
 * Thread    The index is built once, before main(); const afterwards.
 */
#include "cpu/insn.h"

#define OPERANDS(a, b, c, d) { a, b, c, d }
#define ROW(mnem, exec, map, op, pfx, mod, reg, vex, ops, r, w, u, attr)                           \
    { #mnem, map, op, pfx, mod, reg, vex, OPERANDS ops, r, (w) | (u), u, attr },
const struct insn_row insn_rows[] = {
#include "cpu/decode/rows.h"
};
#undef ROW

#define N_ROWS ARRAY_COUNT(insn_rows)
const unsigned insn_row_count = N_ROWS;

/* [0] legacy, [1] VEX. A row with a Z operand stands in eight slots. */
static struct insn_slot slots[2][4][256];
static uint16_t order[N_ROWS * 8];

static unsigned row_span(const struct insn_row *r)
{
    return r->operand[0] == Zb || r->operand[0] == Zv || r->operand[1] == Zb || r->operand[1] == Zv ? 8
                                                                                                    : 1;
}

static unsigned row_specificity(unsigned row)
{
    const struct insn_row *r = &insn_rows[row];
    unsigned reg = r->reg == REG_ANY ? 0 : r->reg & 0x40 ? 2 : 1;

    return reg * 2 + (r->pfx != PFX_ANY);
}

static struct insn_slot *slot_at(const struct insn_row *r, unsigned k)
{
    return &slots[r->vex != LEGACY][r->map][(uint8_t)(r->opcode + k)];
}

/* Keeps each slot's rows sorted by falling specificity, file order among equals. */
static void slot_insert(struct insn_slot *s, uint16_t row)
{
    uint16_t *o = &order[s->first];
    unsigned at = s->count++;

    while (at > 0 && row_specificity(o[at - 1]) < row_specificity(row)) {
        o[at] = o[at - 1];
        at--;
    }
    o[at] = row;
    s->modrm |= insn_rows[row].mod != MOD_NONE;
}

__attribute__((constructor)) static void build_index(void)
{
    uint16_t next = 0;

    for (unsigned i = 0; i < N_ROWS; i++)
        for (unsigned k = 0; k < row_span(&insn_rows[i]); k++)
            slot_at(&insn_rows[i], k)->count++;
    struct insn_slot *s = &slots[0][0][0];
    for (unsigned i = 0; i < sizeof(slots) / sizeof(*s); i++) {
        s[i].first = next;
        next += s[i].count;
        s[i].count = 0;
    }
    for (unsigned i = 0; i < N_ROWS; i++)
        for (unsigned k = 0; k < row_span(&insn_rows[i]); k++)
            slot_insert(slot_at(&insn_rows[i], k), (uint16_t)i);
}

const struct insn_slot *insn_slot_of(bool vex, unsigned map, uint8_t opcode)
{
    return &slots[vex][map & 3][opcode];
}

const uint16_t *insn_slot_rows(const struct insn_slot *slot)
{
    return &order[slot->first];
}
