/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random vector programs: SSE, AVX, MMX and x87 instructions of any row that mostly work on a few addresses near
 * each other, with flags that must live across them, and often in a loop.
 *
 * Two registers point into the data pages, often near a page's end, so that any access may fault or cross it.
 */
#include "cpu/insn.h"
#include "cpu/test/oracle.h"

#include <string.h>

struct vgen {
    struct rng *r;
    struct test_case *t;
    bool mode32;
    unsigned len;
    unsigned ptr[2], counter; /* no destinations */
};

static void put(struct vgen *g, unsigned byte)
{
    if (g->len < T_CODE_MAX)
        g->t->code[g->len] = (uint8_t)byte;
    g->len++;
}

static void put32(struct vgen *g, uint32_t v)
{
    for (unsigned k = 0; k < 4; k++)
        put(g, v >> (8 * k) & 255);
}

static unsigned limit(const struct vgen *g)
{
    return g->mode32 ? 8 : 16;
}

static unsigned dest_reg(struct vgen *g)
{
    for (;;) {
        unsigned n = rng_below(g->r, limit(g));
        if (n != g->ptr[0] && n != g->ptr[1] && n != g->counter && n != 4)
            return n;
    }
}

static bool names(const struct insn_row *row, unsigned kind)
{
    for (unsigned k = 0; k < ARRAY_COUNT(row->operand); k++)
        if (row->operand[k] == kind)
            return true;
    return false;
}

/* Processors differ on which of two faults comes first, or on what they accept. */
static bool is_vague(const char *mnemonic)
{
    return strstr(mnemonic, "maskmov") || strstr(mnemonic, "ldmxcsr") || strstr(mnemonic, "cvtpi");
}

static bool is_vector_row(unsigned n)
{
    const struct insn_row *row = &insn_rows[n];

    return row->attr & (A_SSE | A_AVX | A_MMX | A_X87) && !(row->attr & (A_END | A_PRIV)) && !gen_skip_reason(n) &&
           !names(row, Mvs) && !names(row, M_) && !is_vague(row->mnemonic);
}

/* Half are moves: what makes runs of accesses. */
static unsigned choose_row(struct vgen *g)
{
    bool move = rng_one_in(g->r, 2);

    for (;;) {
        unsigned n = rng_below(g->r, insn_row_count);
        if (is_vector_row(n) && (!move || strstr(insn_rows[n].mnemonic, "mov")))
            return n;
    }
}

struct encoding {
    const struct insn_row *row;
    unsigned reg, rm, vvvv;
    bool w, l, mem;
    int32_t disp;
};

static void put_legacy(struct vgen *g, const struct encoding *e)
{
    static const uint8_t mandatory[] = { [PFX_66] = 0x66, [PFX_F3] = 0xf3, [PFX_F2] = 0xf2 };
    unsigned rex = (unsigned)e->w << 3 | (e->reg >> 3) << 2 | e->rm >> 3;

    if (e->row->pfx >= PFX_66)
        put(g, mandatory[e->row->pfx]);
    if (rex)
        put(g, 0x40 | rex);
    if (e->row->map != M1)
        put(g, 0x0f);
    if (e->row->map >= M0F38)
        put(g, e->row->map == M0F38 ? 0x38 : 0x3a);
}

static void put_vex(struct vgen *g, const struct encoding *e)
{
    static const uint8_t pp[] = { [PFX_66] = 1, [PFX_F3] = 2, [PFX_F2] = 3 };

    put(g, 0xc4);
    put(g, (~e->reg >> 3 & 1) << 7 | 0x40 | (~e->rm >> 3 & 1) << 5 | e->row->map);
    put(g, (unsigned)e->w << 7 | (~e->vvvv & 15) << 3 | (unsigned)e->l << 2 | pp[e->row->pfx]);
}

static void put_encoding(struct vgen *g, const struct encoding *e)
{
    if (e->row->vex == LEGACY)
        put_legacy(g, e);
    else
        put_vex(g, e);
    put(g, e->row->opcode);
    if (e->row->mod != MOD_NONE && !e->mem) {
        put(g, 0xc0 | (e->reg & 7) << 3 | (e->rm & 7));
    } else if (e->row->mod != MOD_NONE) {
        put(g, 0x80 | (e->reg & 7) << 3 | (e->rm & 7));
        if ((e->rm & 7) == 4)
            put(g, 0x24);
        put32(g, (uint32_t)e->disp);
    }
    for (unsigned k = 0; k < ARRAY_COUNT(e->row->operand); k++)
        if (e->row->operand[k] == Ib || e->row->operand[k] == Lx)
            put(g, (unsigned)rng_next(g->r) & (g->mode32 ? 0x7f : 0xff));
}

static bool uses_vvvv(const struct insn_row *row)
{
    for (unsigned k = 0; k < ARRAY_COUNT(row->operand); k++)
        if (row->operand[k] >= Hx && row->operand[k] <= Hpd)
            return true;
    return false;
}

static struct encoding choose_encoding(struct vgen *g, const struct insn_row *row)
{
    struct encoding e = { .row = row, .reg = dest_reg(g), .rm = dest_reg(g) };
    unsigned rule = row->vex ? row->vex - VEX_LIG_WIG : 0, w_rule = rule % 3, l_rule = rule / 3;

    /* SHA: some want no alignment. */
    e.mem = row->mod == MOD_MEM || (row->mod == MOD_ANY && row->attr >> 24 != F_SHA && !rng_one_in(g->r, 4));
    e.w = !g->mode32 && (row->vex && w_rule ? w_rule == 2 : rng_one_in(g->r, 4));
    if (row->attr & A_X87)
        e.w = false;
    if (row->vex && w_rule == 2)
        e.w = true;
    e.l = row->vex && (l_rule == 2 || (l_rule == 3 && rng_one_in(g->r, 2)));
    if (uses_vvvv(row))
        e.vvvv = rng_below(g->r, limit(g));
    if (row->reg != REG_ANY)
        e.reg = row->reg & 0x40 ? row->reg >> 3 & 7 : row->reg & 7;
    if (row->reg != REG_ANY && (row->reg & 0x40))
        e.rm = row->reg & 7;
    if (row->attr & A_X87)
        e.rm &= 7;
    if (e.mem) {
        e.rm = g->ptr[rng_one_in(g->r, 4)];
        e.disp = (int32_t)rng_below(g->r, 8) * (rng_one_in(g->r, 2) ? 32 : 16) - 64;
        if (rng_one_in(g->r, 6))
            e.disp = (int32_t)rng_below(g->r, 600) - 300;
    }
    return e;
}

static void vector(struct vgen *g)
{
    unsigned start = g->len, row = choose_row(g);
    struct encoding e = choose_encoding(g, &insn_rows[row]);
    struct insn i;

    put_encoding(g, &e);
    if (g->len > T_CODE_MAX ||
        insn_decode(g->t->code + start, g->len - start, g->mode32 ? INSN_32 : INSN_64, false, &i) || i.row != row || i.len != g->len - start || (!g->mode32 && (insn_rows[row].attr & A_NO64)))
        g->len = start;
}

/* A register that is destination of an integer instruction with the opcode, from any register. */
static void integer(struct vgen *g, unsigned map, unsigned opcode)
{
    unsigned reg = rng_below(g->r, limit(g)), rm = dest_reg(g);

    if (map == 1) { /* reg is the destination */
        unsigned swap = reg;
        reg = rm;
        rm = swap;
    }
    if (!g->mode32)
        put(g, 0x48 | (reg >> 3) << 2 | rm >> 3);
    if (map == 1)
        put(g, 0x0f);
    put(g, opcode);
    put(g, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static void flags_writer(struct vgen *g)
{
    static const uint8_t opcodes[] = { 0x39, 0x85, 0x01, 0x29, 0x31 }; /* cmp test add sub xor */

    integer(g, 0, opcodes[rng_below(g->r, ARRAY_COUNT(opcodes))]);
}

static void flags_reader(struct vgen *g)
{
    if (rng_one_in(g->r, 2))
        integer(g, 1, 0x40 | rng_below(g->r, 16)); /* cmov */
    else
        integer(g, 0, rng_one_in(g->r, 2) ? 0x11 : 0x19); /* adc, sbb */
}

static void move(struct vgen *g)
{
    integer(g, 0, 0x89);
}

static void (*const makers[])(struct vgen *) = {
    vector, vector, vector, vector, vector, vector, vector, vector, flags_writer, flags_reader, move,
};

static uint64_t pointer(struct rng *r)
{
    static const uint32_t near[] = { T_DATA + T_PAGE, T_DATA + 2 * T_PAGE, T_RO + 0x100, T_DATA + 0x100 };
    unsigned pick = rng_below(r, 8);
    uint64_t at = pick < 4 ? near[pick] + rng_below(r, 512) - 256 : T_DATA + 256 + rng_below(r, 2 * T_PAGE - 1024);

    return rng_one_in(r, 4) ? at : at & ~31ull;
}

static void choose_registers(struct vgen *g)
{
    do {
        g->ptr[0] = rng_below(g->r, limit(g));
        g->ptr[1] = rng_below(g->r, limit(g));
        g->counter = rng_below(g->r, limit(g));
    } while (g->ptr[0] == g->ptr[1] || g->ptr[0] == g->counter || g->ptr[1] == g->counter || g->ptr[0] == 4 ||
             g->ptr[1] == 4 || g->counter == 4);
    g->t->in.gpr[g->ptr[0]] = pointer(g->r);
    g->t->in.gpr[g->ptr[1]] = pointer(g->r);
    g->t->in.gpr[g->counter] = 1 + rng_below(g->r, 4);
    g->t->in.gpr[4] = T_DATA + 0x400;
    for (unsigned k = 0; k < 16 && g->mode32; k++)
        g->t->in.gpr[k] = k < 8 ? (uint32_t)g->t->in.gpr[k] : 0;
}

/* dec counter; jnz to the start. */
static void close_loop(struct vgen *g)
{
    if (!g->mode32)
        put(g, 0x48 | g->counter >> 3);
    put(g, 0xff);
    put(g, 0xc8 | (g->counter & 7));
    put(g, 0x0f);
    put(g, 0x85);
    put32(g, 0u - (g->len + 4));
}

bool gen_vector(struct rng *r, struct test_case *ret)
{
    struct vgen g = { .r = r, .t = ret };
    unsigned count = 2 + rng_below(r, 14);
    struct insn i;

    memset(ret, 0, sizeof(*ret));
    ret->mode32 = g.mode32 = rng_one_in(r, 6);
    ret->mem_seed = rng_next(r);
    gen_random_state(r, ret);
    ret->in.rflags &= ~(uint64_t)(FLAG_AC | FLAG_DF);
    ret->in.rip = T_CODE + (rng_one_in(r, 8) ? T_PAGE - 1 - rng_below(r, 60) : 0x400 + rng_below(r, 64));
    choose_registers(&g);
    while (count-- && g.len < T_CODE_MAX - 40)
        makers[rng_below(r, ARRAY_COUNT(makers))](&g);
    if (rng_one_in(r, 2))
        close_loop(&g);
    ret->code_len = g.len;
    ret->undefined = FLAG_AF; /* of test and xor */
    return g.len && !insn_decode(ret->code, g.len, ret->mode32 ? INSN_32 : INSN_64, false, &i) &&
           (ret->row = i.row, true);
}
