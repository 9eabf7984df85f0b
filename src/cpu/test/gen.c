/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random cases from the opcode rows: an encoding, then registers that make its operands interesting.
 *
 * Memory operands are aimed at a few places: inside a page, across two, at the end of what is mapped, at
 * read-only memory, at nothing. The registers of the address are set so that it comes out there.
 */
#include "cpu/insn.h"
#include "cpu/test/oracle.h"

#include <string.h>

struct gen {
    struct rng *r;
    const struct insn_row *row;
    struct test_case *t;
    uint8_t *code;
    unsigned len;
    bool mode32, ad16, ad32, opsize16, rex_w, has_rex, mem, mvs, gs;
    uint8_t rex;
    uint64_t target;    /* of the memory operand */
    int rip_disp_at;    /* offset of a RIP-relative displacement, or -1 */
};

/* --- encoding --- */

static void put(struct gen *g, uint64_t v, unsigned n)
{
    for (; n; n--, v >>= 8)
        g->code[g->len++] = (uint8_t)v;
}

static bool has(const struct insn_row *row, uint8_t kind)
{
    for (unsigned k = 0; k < ARRAY_COUNT(row->operand); k++)
        if (row->operand[k] == kind)
            return true;
    return false;
}

static uint64_t aim(struct gen *g)
{
    static const uint32_t high[] = { T_DATA + 0x800, T_DATA + 0x1000, T_DATA + 0x1000, T_DATA + 0x2000,
                                     T_RO + 0x1000, T_RO };
    static const uint32_t low[] = { T_LOW + 0x1000, T_LOW + 0x2000 };
    uint64_t at = g->ad16 ? low[rng_below(g->r, 2)] : T_DATA + 0x800;
    unsigned align = g->row->attr & A_ALIGN && !rng_one_in(g->r, 8) ? 31 : rng_one_in(g->r, 2) ? 7 : 0;

    if (!g->ad16 && !rng_one_in(g->r, 2))
        at = high[rng_below(g->r, ARRAY_COUNT(high))];
    at += rng_below(g->r, 128) - 80u;
    if (!g->mode32 && !g->ad32 && rng_one_in(g->r, 64))
        return at | 0x8000ull << 36; /* not canonical */
    return (at & ~(uint64_t)align);
}

static void put_prefixes(struct gen *g)
{
    static const uint8_t mandatory[] = { [PFX_66] = 0x66, [PFX_F3] = 0xf3, [PFX_F2] = 0xf2 };
    static const uint8_t plain_segs[] = { 0x2e, 0x36, 0x3e, 0x26 };
    const struct insn_row *row = g->row;
    bool branch = row->attr & A_END;

    if (row->vex == LEGACY) {
        if (row->pfx == PFX_ANY && !branch && rng_one_in(g->r, 4)) {
            put(g, 0x66, 1);
            g->opsize16 = true;
        }
        if ((row->attr & A_REP) && rng_one_in(g->r, 2))
            put(g, rng_one_in(g->r, 2) ? 0xf2 : 0xf3, 1);
        if ((row->attr & A_LOCK) && g->mem && rng_one_in(g->r, 4))
            put(g, 0xf0, 1);
    }
    if (rng_one_in(g->r, 16)) {
        put(g, 0x67, 1);
        g->ad16 = g->mode32;
        g->ad32 = !g->mode32;
    }
    if (rng_one_in(g->r, 12))
        put(g, plain_segs[rng_below(g->r, 4)], 1);
    else if (!g->mode32 && g->mem && rng_one_in(g->r, 12)) {
        put(g, 0x65, 1);
        g->gs = true;
    }
    if (row->vex == LEGACY && row->pfx >= PFX_66)
        put(g, mandatory[row->pfx], 1);
}

static void put_legacy_opcode(struct gen *g, uint8_t opcode)
{
    if (g->has_rex)
        put(g, 0x40 | g->rex, 1);
    if (g->row->map != M1)
        put(g, 0x0f, 1);
    if (g->row->map >= M0F38)
        put(g, g->row->map == M0F38 ? 0x38 : 0x3a, 1);
    put(g, opcode, 1);
}

static void put_vex_opcode(struct gen *g)
{
    static const uint8_t pp[] = { [PFX_66] = 1, [PFX_F3] = 2, [PFX_F2] = 3 };
    unsigned l_rule = (g->row->vex - VEX_LIG_WIG) / 3, w_rule = (g->row->vex - VEX_LIG_WIG) % 3;
    bool w = w_rule == 0 ? rng_one_in(g->r, 2) : w_rule == 2;
    bool l = l_rule == 1 ? false : l_rule == 2 ? true : rng_one_in(g->r, 2);
    bool uses_v = false;
    unsigned v;

    if (g->mode32 && w_rule == 0)
        w = w && g->row->map != M0F3A; /* vpextrd, vpinsrd: #UD on some processors */
    for (unsigned k = 0; k < ARRAY_COUNT(g->row->operand); k++)
        uses_v |= g->row->operand[k] == By || (g->row->operand[k] >= Hx && g->row->operand[k] <= Hpd);
    v = uses_v ? rng_below(g->r, g->mode32 ? 8 : 16) : 0;
    g->rex = (uint8_t)((g->rex & 7) | (w ? 8 : 0));
    g->rex_w = w;
    uint8_t last = (uint8_t)((~v & 15) << 3 | l << 2 | pp[g->row->pfx]);
    if (g->row->map == M0F && !(g->rex & 0xb) && rng_one_in(g->r, 2)) {
        put(g, 0xc5, 1);
        put(g, (g->rex & 4 ? 0 : 0x80) | last, 1);
    } else {
        put(g, 0xc4, 1);
        put(g, (~g->rex & 7) << 5 | g->row->map, 1);
        put(g, (w ? 0x80 : 0) | last, 1);
    }
    put(g, g->row->opcode, 1);
}

/* Displacement for an address whose registers are free: any. */
static void put_memory_16(struct gen *g, unsigned reg)
{
    unsigned mod = rng_below(g->r, 3), rm = rng_below(g->r, 8);

    put(g, mod << 6 | reg << 3 | rm, 1);
    if (mod == 0 && rm == 6)
        put(g, g->target, 2);
    else
        put(g, rng_next(g->r), mod);
}

static void put_sib(struct gen *g, unsigned mod, unsigned reg)
{
    unsigned index = rng_below(g->r, 8), base = rng_below(g->r, 8);

    put(g, mod << 6 | reg << 3 | 4, 1);
    put(g, rng_below(g->r, 4) << 6 | index << 3 | base, 1);
    if (mod == 1)
        put(g, rng_next(g->r), 1);
    else if (mod == 2 || base == 5)
        put(g, mod == 0 && index == 4 ? g->target : rng_below(g->r, 0x1000), 4);
}

static void put_memory(struct gen *g, unsigned reg)
{
    unsigned mod = rng_below(g->r, 3), rm = rng_below(g->r, 8);

    if (g->mvs || rm == 4) {
        put_sib(g, mod, reg);
        return;
    }
    put(g, mod << 6 | reg << 3 | rm, 1);
    if (mod == 0 && rm == 5) {
        if (!g->mode32)
            g->rip_disp_at = (int)g->len;
        put(g, g->target, 4);
    } else if (mod == 1) {
        put(g, rng_next(g->r), 1);
    } else if (mod == 2) {
        put(g, rng_below(g->r, 0x10000) - 0x8000u, 4);
    }
}

static void put_modrm(struct gen *g)
{
    unsigned reg = rng_below(g->r, 8), rm = rng_below(g->r, 8);

    if (g->row->reg != REG_ANY)
        reg = g->row->reg & 0x40 ? g->row->reg >> 3 & 7 : g->row->reg & 7;
    if (g->row->reg != REG_ANY && (g->row->reg & 0x40))
        rm = g->row->reg & 7;
    if (!g->mem)
        put(g, 0xc0 | reg << 3 | rm, 1);
    else if (g->ad16)
        put_memory_16(g, reg);
    else
        put_memory(g, reg);
}

/* Relative targets stay near: in the code pages or just outside. */
static void put_immediates(struct gen *g)
{
    unsigned v = g->rex_w ? 8 : g->opsize16 ? 2 : 4;
    unsigned z = g->opsize16 && !g->rex_w ? 2 : 4;

    for (unsigned k = 0; k < ARRAY_COUNT(g->row->operand); k++) {
        switch (g->row->operand[k]) {
        case Ib: case Ibs: case Lx:
            put(g, rng_value(g->r), 1);
            break;
        case Jb:
            put(g, rng_next(g->r), 1);
            break;
        case Iw:
            put(g, rng_one_in(g->r, 2) ? rng_below(g->r, 64) : rng_next(g->r), 2);
            break;
        case Id:
            put(g, rng_value(g->r), 4);
            break;
        case Iz:
            put(g, rng_value(g->r), z);
            break;
        case Jz:
            put(g, rng_below(g->r, 0x3000) - 0x1800u, 4);
            break;
        case Iv:
            put(g, rng_value(g->r), v);
            break;
        case Ob: case Ov:
            put(g, g->target, g->ad16 ? 2 : g->mode32 || g->ad32 ? 4 : 8);
            break;
        }
    }
}

static bool encode(struct gen *g)
{
    const struct insn_row *row = g->row;
    unsigned span = has(row, Zb) || has(row, Zv) ? 8 : 1;
    uint8_t opcode = row->opcode;

    if (span == 8)
        opcode |= rng_below(g->r, 8);
    else if (row->mod == MOD_NONE && row->reg != REG_ANY)
        opcode |= row->reg & 7;
    g->mem = row->mod == MOD_MEM || (row->mod == MOD_ANY && !rng_one_in(g->r, 3));
    g->mvs = has(row, Mvs);
    put_prefixes(g);
    if (g->mvs)
        g->ad16 = false;
    g->target = aim(g);
    if (g->gs)
        g->target -= T_GS_BASE;
    if (!g->mode32 && row->vex == LEGACY && rng_one_in(g->r, 2)) {
        g->has_rex = true;
        g->rex = (uint8_t)rng_below(g->r, 16);
        g->rex_w = g->rex & 8;
    } else if (!g->mode32 && row->vex != LEGACY) {
        g->rex = (uint8_t)rng_below(g->r, 8);
    }
    if (row->vex == LEGACY)
        put_legacy_opcode(g, opcode);
    else
        put_vex_opcode(g);
    if (row->mod != MOD_NONE)
        put_modrm(g);
    put_immediates(g);
    if (g->len > INSN_MAX_LEN)
        return false;
    return true;
}

/* --- registers --- */

static void random_x87(struct rng *r, uint8_t *x)
{
    static const uint16_t exponents[] = { 0, 1, 0x3ffe, 0x3fff, 0x4000, 0x403d, 0x403e, 0x403f, 0x7ffe, 0x7fff };
    uint16_t cw = 0x37f, sw = (uint16_t)(rng_below(r, 8) << 11 | rng_below(r, 2) << 14 | rng_below(r, 8) << 8);

    if (rng_one_in(r, 2))
        cw = (uint16_t)(0x40 | rng_below(r, 16) << 8 | (rng_one_in(r, 4) ? rng_below(r, 64) : 0x3f));
    if (rng_one_in(r, 4))
        sw |= (uint16_t)rng_below(r, 128);
    if (sw & ~cw & 0x3f)
        sw |= 0x8080;
    memcpy(x, &cw, 2);
    memcpy(x + 2, &sw, 2);
    x[4] = (uint8_t)(rng_one_in(r, 2) ? 0xff : rng_next(r));
    for (unsigned n = 0; n < 8; n++) {
        uint64_t mantissa = rng_one_in(r, 4) ? rng_value(r) : rng_next(r) | 1ull << 63;
        uint16_t top = rng_one_in(r, 2) ? exponents[rng_below(r, ARRAY_COUNT(exponents))]
                                        : (uint16_t)(0x3ff0 + rng_below(r, 32));
        if (rng_one_in(r, 16))
            mantissa = 1ull << 63;
        top |= (uint16_t)(rng_below(r, 2) << 15);
        memcpy(x + 32 + 16 * n, &mantissa, 8);
        memcpy(x + 40 + 16 * n, &top, 2);
    }
}

void gen_random_state(struct rng *r, struct test_case *t)
{
    struct regs *in = &t->in;
    uint32_t mxcsr = 0x1f80;

    memset(in->xsave, 0, sizeof(in->xsave));
    for (unsigned k = 0; k < 16; k++)
        in->gpr[k] = rng_value(r);
    in->rflags = 0x202 | (rng_next(r) & OSZAPC) | (rng_one_in(r, 4) ? FLAG_DF : 0);
    if (rng_one_in(r, 16))
        in->rflags |= FLAG_AC;
    random_x87(r, in->xsave);
    if (rng_one_in(r, 2))
        mxcsr = (uint32_t)(rng_next(r) & 0xe07f) | (rng_one_in(r, 4) ? (uint32_t)rng_next(r) & 0x1f80 : 0x1f80);
    memcpy(in->xsave + 24, &mxcsr, 4);
    for (unsigned n = 0; n < (t->mode32 ? 8 : 16); n++) {
        rng_vector(r, in->xsave + 160 + 16 * n, 16);
        if (!rng_one_in(r, 4))
            rng_vector(r, in->xsave + 576 + 16 * n, 16);
    }
}

/* Registers that instructions use without naming them: mostly pointers into the data pages. */
static void implicit_pointers(struct gen *g, const struct insn *i)
{
    uint64_t *gpr = g->t->in.gpr;
    bool string = i && (insn_rows[i->row].attr & A_STRING);
    static const uint8_t pointers[] = { 4, 5, 6, 7, 3 };

    for (unsigned k = 0; k < ARRAY_COUNT(pointers); k++) {
        if (pointers[k] > 4 && !string && !rng_one_in(g->r, 2))
            continue;
        gpr[pointers[k]] = aim(g);
        if (g->ad32 && rng_one_in(g->r, 2))
            gpr[pointers[k]] |= rng_next(g->r) << 32;
    }
    if (string) {
        gpr[1] = rng_below(g->r, 24);
        if (g->ad32 || g->ad16)
            gpr[1] |= rng_next(g->r) << 32;
    }
    if (has(g->row, rCL) || !strncmp(g->row->mnemonic, "loop", 4) || !strcmp(g->row->mnemonic, "jrcxz"))
        gpr[1] = rng_one_in(g->r, 2) ? rng_below(g->r, 80) : gpr[1];
    if (!strncmp(g->row->mnemonic, "xlat", 4))
        gpr[3] = aim(g);
}

static void small_index_vector(struct gen *g, const struct insn *i)
{
    bool wide = g->row->opcode & 1;

    for (unsigned half = 0; half < 2; half++) {
        uint8_t *v = g->t->in.xsave + (half ? 576 : 160) + 16 * i->index;
        for (unsigned k = 0; k < 16; k += wide ? 8 : 4) {
            int64_t n = (int64_t)rng_below(g->r, 96) - 48;
            if (rng_one_in(g->r, 24))
                n = (int64_t)rng_next(g->r);
            memcpy(v + k, &n, wide ? 8 : 4);
        }
    }
}

/* Sets base and index so that the address is the target. */
static void place_operand(struct gen *g, const struct insn *i)
{
    uint64_t *gpr = g->t->in.gpr;
    bool index = i->index != REG_NONE && !g->mvs;
    uint64_t rest = g->target - (uint64_t)(int64_t)i->disp;
    uint64_t scaled = 0;

    if (i->base == BASE_RIP)
        return;
    if (!strncmp(g->row->mnemonic, "bt", 2) && has(g->row, Gv)) /* a bit string: keep it near */
        gpr[i->reg] = (uint64_t)((int64_t)rng_below(g->r, 512) - 256);
    if (g->mvs)
        small_index_vector(g, i);
    if (index && i->index != i->base) {
        gpr[i->index] = i->base == REG_NONE ? rest >> i->scale
                        : rng_one_in(g->r, 4) ? rng_next(g->r) : rng_below(g->r, 256);
        scaled = gpr[i->index] << i->scale;
    }
    if (i->base != REG_NONE)
        gpr[i->base] = index && i->index == i->base ? rest / (1 + (1u << i->scale)) : rest - scaled;
    if (g->ad32 && i->base != REG_NONE && rng_one_in(g->r, 2))
        gpr[i->base] ^= rng_next(g->r) << 32;
    if (g->ad16 && i->base != REG_NONE)
        gpr[i->base] ^= rng_next(g->r) << 16 & 0xffff0000;
}

static void clip_32(struct test_case *t)
{
    if (!t->mode32)
        return;
    for (unsigned k = 0; k < 16; k++)
        t->in.gpr[k] = k < 8 ? (uint32_t)t->in.gpr[k] : 0;
}

static uint64_t choose_rip(struct rng *r, unsigned len)
{
    if (rng_one_in(r, 4)) /* across the page end, or right before it */
        return T_CODE + T_PAGE - rng_below(r, len + 1);
    return T_CODE + 0x400 + rng_below(r, 64);
}

/* Encodes a row at t->code + at. False: another row took the bytes. */
static bool gen_one(struct gen *g, unsigned row, struct insn *ret)
{
    g->row = &insn_rows[row];
    g->rip_disp_at = -1;
    if ((g->row->attr & (g->mode32 ? A_ONLY64 : A_NO64)) || !encode(g))
        return false;
    int e = insn_decode(g->code, g->len, g->mode32 ? INSN_32 : INSN_64, false, ret);
    if (e || ret->row != row)
        return false;
    return ret->len == g->len;
}

bool gen_case(struct rng *r, unsigned row, struct test_case *ret)
{
    struct gen g = { .r = r, .t = ret, .code = ret->code };
    struct insn i;
    uint32_t attr = insn_rows[row].attr;

    memset(ret, 0, sizeof(*ret));
    ret->row = row;
    ret->mode32 = g.mode32 = attr & A_NO64 ? true : attr & A_ONLY64 ? false : rng_one_in(r, 6);
    ret->mem_seed = rng_next(r);
    if (!gen_one(&g, row, &i))
        return false;
    ret->code_len = g.len;
    gen_random_state(r, ret);
    ret->in.rip = choose_rip(r, g.len);
    implicit_pointers(&g, &i);
    if (g.rip_disp_at >= 0) {
        uint32_t disp = (uint32_t)(g.target - (ret->in.rip + g.len));
        if ((int64_t)g.target != (int64_t)(int32_t)g.target)
            return false;
        memcpy(ret->code + g.rip_disp_at, &disp, 4);
    } else if (i.mem && g.row->mod != MOD_NONE) {
        place_operand(&g, &i);
    }
    clip_32(ret);
    return true;
}

/* Rows that leave the sequence, or whose undefined flags would spread. */
static bool fits_block(unsigned row)
{
    const struct insn_row *r = &insn_rows[row];

    return !gen_skip_reason(row) && !(r->attr & (A_END | A_STRING | A_NO64)) && !r->flags_u &&
           !has(r, Mvs) && r->mod != MOD_MEM && strcmp(r->mnemonic, "cmpxchg");
}

bool gen_block(struct rng *r, struct test_case *ret)
{
    unsigned count = 2 + rng_below(r, 8);
    struct insn i;

    memset(ret, 0, sizeof(*ret));
    ret->mem_seed = rng_next(r);
    gen_random_state(r, ret);
    ret->in.rflags &= ~(uint64_t)FLAG_AC;
    ret->in.rip = T_CODE + 0x400;
    for (unsigned tries = 0; count && tries < 400; tries++) {
        unsigned row = rng_below(r, insn_row_count);
        struct gen g = { .r = r, .t = ret, .code = ret->code + ret->code_len };
        if (!fits_block(row) || !gen_one(&g, row, &i) || g.mem)
            continue;
        if (ret->code_len == 0)
            ret->row = row;
        ret->code_len += g.len;
        count--;
    }
    struct gen g = { .r = r, .t = ret, .row = &insn_rows[ret->row] };
    implicit_pointers(&g, NULL);
    return count == 0;
}

/* An instruction that sets flags, memory operands included, and a conditional jump behind it. */
bool gen_branch(struct rng *r, struct test_case *ret)
{
    static const char *const setters[] = { "cmp", "test", "sub", "add", "and", "or", "xor", "inc", "dec", "neg" };
    const char *want = setters[rng_below(r, ARRAY_COUNT(setters))];
    unsigned row, tries = 0;

    do {
        row = rng_below(r, insn_row_count);
        if (tries++ > 100000)
            return false;
    } while (strcmp(insn_rows[row].mnemonic, want));
    if (!gen_case(r, row, ret))
        return false;
    unsigned cc = rng_below(r, 16), disp = rng_below(r, 0x40);
    uint8_t *at = ret->code + ret->code_len;
    if (rng_one_in(r, 2)) {
        memcpy(at, (const uint8_t[]){ 0x70 | cc, disp }, 2);
        ret->code_len += 2;
    } else {
        memcpy(at, (const uint8_t[]){ 0x0f, 0x80 | cc, disp, 0, 0, 0 }, 6);
        ret->code_len += 6;
    }
    return true;
}

uint32_t case_undefined_flags(const struct test_case *t)
{
    uint32_t undefined = 0;
    struct insn i;

    for (unsigned at = 0; at < t->code_len; at += i.len) {
        if (insn_decode(t->code + at, t->code_len - at, t->mode32 ? INSN_32 : INSN_64, false, &i))
            break;
        const struct insn_row *row = &insn_rows[i.row];
        undefined = (undefined & ~(uint32_t)row->flags_w) | row->flags_u;
    }
    return undefined;
}
