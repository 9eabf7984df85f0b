/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random programs: up to some forty integer instructions that feed each other, through registers, flags, memory,
 * the stack, forward jumps, a counted loop and a call.
 *
 * Two registers point into the data pages, often near a page's end or behind it, so that any instruction may fault
 * in the middle of the program. What a jump or ADC reads is never a flag that the architecture leaves undefined.
 */
#include "cpu/insn.h"
#include "cpu/test/oracle.h"

#include <string.h>

#define SKIPS 4

struct program {
    struct rng *r;
    struct test_case *t;
    bool mode32;
    unsigned len;
    unsigned ptr[2];     /* registers that hold addresses; no destination */
    unsigned counter;    /* the loop's; no destination */
    uint32_t undefined;  /* flags that no instruction may read here */
    struct {
        unsigned at;     /* of a rel8 that waits for its target */
        unsigned after;  /* instructions to go */
    } skip[SKIPS];
    unsigned skips;
};

/* ModRM.rm: a register, or base + index * scale + disp. */
struct place {
    bool mem;
    unsigned reg, base, index, scale;
    int32_t disp;
};

static void put(struct program *g, unsigned byte)
{
    if (g->len < T_CODE_MAX)
        g->t->code[g->len] = (uint8_t)byte;
    g->len++;
}

static void put32(struct program *g, uint32_t v)
{
    for (unsigned k = 0; k < 4; k++)
        put(g, v >> (8 * k) & 255);
}

static unsigned any_reg(struct program *g)
{
    static const uint8_t in_memory[] = { 10, 11, 15 }; /* in the translator's state, not in a host register */

    if (!g->mode32 && rng_one_in(g->r, 4))
        return in_memory[rng_below(g->r, 3)];
    return rng_below(g->r, g->mode32 ? 8 : 16);
}

/* A register that may change: neither pointer nor counter nor, mostly, RSP. */
static unsigned dest_reg(struct program *g)
{
    for (;;) {
        unsigned n = any_reg(g);
        if (n != g->ptr[0] && n != g->ptr[1] && n != g->counter && n != 4)
            return n;
    }
}

/* Byte registers without REX: 4 to 7 are AH to BH, which live in 0 to 3. */
static unsigned dest_byte(struct program *g, bool rex)
{
    for (;;) {
        unsigned n = dest_reg(g);
        unsigned in = rex || n < 4 || n > 7 ? n : n - 4;
        if (in != g->ptr[0] && in != g->ptr[1] && in != g->counter && in != 4)
            return n;
    }
}

static struct place reg_place(unsigned reg)
{
    return (struct place){ .reg = reg };
}

static struct place mem_place(struct program *g)
{
    struct place m = { .mem = true, .base = g->ptr[rng_below(g->r, 2)], .index = REG_NONE };

    if (rng_one_in(g->r, 4)) { /* the counter is small */
        m.index = g->counter;
        m.scale = rng_below(g->r, 4);
    }
    if (rng_one_in(g->r, 6))
        m.base = 4;
    m.disp = (int32_t)rng_below(g->r, 64) - 24;
    if (rng_one_in(g->r, 12))
        m.disp = (int32_t)rng_below(g->r, 8192) - 4096;
    return m;
}

static void modrm(struct program *g, unsigned reg, struct place m)
{
    reg &= 7;
    if (!m.mem) {
        put(g, 0xc0 | reg << 3 | (m.reg & 7));
        return;
    }
    bool sib = m.index != REG_NONE || (m.base & 7) == 4;
    bool small = m.disp >= -128 && m.disp < 128;
    put(g, (small ? 0x40 : 0x80) | reg << 3 | (sib ? 4 : m.base & 7));
    if (sib)
        put(g, m.scale << 6 | (m.index == REG_NONE ? 4 : m.index & 7) << 3 | (m.base & 7));
    if (small)
        put(g, (unsigned)m.disp & 255);
    else
        put32(g, (uint32_t)m.disp);
}

/* Prefixes of an instruction of `size`; `force`: a REX even if empty. */
static void prefixes(struct program *g, unsigned size, bool force, unsigned reg, struct place m)
{
    unsigned rex = 0;

    if (size == 2)
        put(g, 0x66);
    if (g->mode32)
        return;
    rex |= size == 8 ? 8 : 0;
    rex |= reg >= 8 ? 4 : 0;
    if (m.mem) {
        rex |= m.index != REG_NONE && m.index >= 8 ? 2 : 0;
        rex |= m.base >= 8 ? 1 : 0;
    } else {
        rex |= m.reg >= 8 ? 1 : 0;
    }
    if (rex || force)
        put(g, 0x40 | rex);
}

static unsigned any_size(struct program *g)
{
    static const uint8_t sizes[] = { 1, 2, 4, 4, 8, 8 };

    return sizes[rng_below(g->r, g->mode32 ? 4 : 6)];
}

static void put_imm(struct program *g, unsigned size)
{
    uint64_t v = rng_value(g->r);

    for (unsigned k = 0; k < (size == 8 ? 4 : size); k++)
        put(g, v >> (8 * k) & 255);
}

static void wrote(struct program *g, uint32_t defined, uint32_t undefined)
{
    if (!g->skips) /* what a jump may pass over defines nothing */
        g->undefined &= ~defined;
    g->undefined |= undefined;
}

static void alu(struct program *g)
{
    unsigned size = any_size(g), op = rng_below(g->r, 8), shape = rng_below(g->r, 4);
    bool force = size == 1 && rng_one_in(g->r, 2);
    bool logic = op == 1 || op == 4 || op == 6;
    bool byte = size == 1;

    if ((op == 2 || op == 3) && g->undefined & FLAG_CF)
        op = 0;
    unsigned reg = byte ? dest_byte(g, force) : dest_reg(g);
    struct place m = rng_one_in(g->r, 2) ? mem_place(g) : reg_place(byte ? dest_byte(g, force) : dest_reg(g));
    if (byte && !force && (reg >= 8 || (m.mem ? m.base >= 8 || (m.index != REG_NONE && m.index >= 8) : m.reg >= 8)))
        force = true, reg = dest_byte(g, true), m = m.mem ? m : reg_place(dest_byte(g, true));
    if (shape == 0 && m.mem && op != 7 && rng_one_in(g->r, 3))
        put(g, 0xf0);
    if (shape < 2) {
        prefixes(g, size, force, reg, m);
        put(g, op << 3 | (shape == 1 ? 2 : 0) | !byte);
        modrm(g, reg, m);
    } else if (shape == 2) {
        prefixes(g, size, force, 0, m);
        put(g, byte ? 0x80 : 0x81);
        modrm(g, op, m);
        put_imm(g, size);
    } else { /* test */
        logic = true;
        prefixes(g, size, force, reg, m);
        put(g, 0x84 | !byte);
        modrm(g, reg, m);
    }
    wrote(g, OSZAPC, logic ? FLAG_AF : 0);
}

static void unary(struct program *g)
{
    unsigned size = any_size(g), op = rng_below(g->r, 4);
    struct place m = rng_one_in(g->r, 2) ? mem_place(g) : reg_place(size == 1 ? dest_byte(g, true) : dest_reg(g));

    if (m.mem && rng_one_in(g->r, 3))
        put(g, 0xf0);
    if (g->mode32 && size == 1 && !m.mem)
        m.reg = dest_byte(g, false);
    prefixes(g, size, size == 1, 0, m);
    put(g, (op < 2 ? 0xf6 : 0xfe) | (size != 1));
    modrm(g, op < 2 ? 2 + op : op - 2, m);
    if (op == 1)
        wrote(g, OSZAPC, 0);
    else if (op >= 2)
        wrote(g, OSZAPC & ~FLAG_CF, 0);
}

static void move(struct program *g)
{
    unsigned size = any_size(g), shape = rng_below(g->r, 6);
    unsigned reg = size == 1 ? dest_byte(g, true) : dest_reg(g);
    struct place m = mem_place(g);

    if (g->mode32 && size == 1)
        reg = dest_byte(g, false);
    switch (shape) {
    case 0:
    case 1:
    case 2: /* load, store, register */
        if (shape == 2)
            m = reg_place(size == 1 ? reg : dest_reg(g));
        prefixes(g, size, size == 1, reg, m);
        put(g, 0x88 | (shape != 1 ? 2 : 0) | (size != 1));
        modrm(g, reg, m);
        break;
    case 3: /* movzx, movsx */
        size = size == 1 ? 4 : size;
        prefixes(g, size, false, reg, m);
        put(g, 0x0f);
        put(g, (rng_one_in(g->r, 2) ? 0xb6 : 0xbe) | (size > 2 ? rng_below(g->r, 2) : 0));
        modrm(g, reg, m);
        break;
    case 4: /* lea */
        size = size == 1 ? 4 : size;
        prefixes(g, size, false, reg, m);
        put(g, 0x8d);
        modrm(g, reg, m);
        break;
    default: /* immediate to memory */
        prefixes(g, size, size == 1, 0, m);
        put(g, 0xc6 | (size != 1));
        modrm(g, 0, m);
        put_imm(g, size);
    }
}

static void shift(struct program *g)
{
    unsigned size = any_size(g), op = rng_below(g->r, 8);
    struct place m = rng_one_in(g->r, 3) ? mem_place(g) : reg_place(size == 1 ? dest_byte(g, true) : dest_reg(g));
    bool rotate = op < 4;

    if ((op == 2 || op == 3) && g->undefined & FLAG_CF)
        op = 5, rotate = false;
    if (g->mode32 && size == 1 && !m.mem)
        m.reg = dest_byte(g, false);
    prefixes(g, size, size == 1, 0, m);
    switch (rng_below(g->r, 3)) {
    case 0:
        put(g, 0xd0 | (size != 1));
        modrm(g, op, m);
        wrote(g, rotate ? FLAG_CF | FLAG_OF : OSZAPC, rotate ? 0 : FLAG_AF);
        break;
    case 1:
        put(g, 0xc0 | (size != 1));
        modrm(g, op, m);
        put(g, rng_below(g->r, 40));
        wrote(g, 0, rotate ? FLAG_CF | FLAG_OF : OSZAPC);
        break;
    default:
        put(g, 0xd2 | (size != 1));
        modrm(g, op, m);
        wrote(g, 0, rotate ? FLAG_CF | FLAG_OF : OSZAPC);
    }
}

static const uint16_t cc_reads[8] = {
    FLAG_OF, FLAG_CF, FLAG_ZF, FLAG_CF | FLAG_ZF, FLAG_SF, FLAG_PF, FLAG_SF | FLAG_OF, FLAG_ZF | FLAG_SF | FLAG_OF,
};

/* A condition whose flags are defined; false: there is none at hand. */
static bool pick_cc(struct program *g, unsigned *ret)
{
    for (unsigned tries = 0; tries < 8; tries++) {
        *ret = rng_below(g->r, 16);
        if (!(cc_reads[*ret >> 1] & g->undefined))
            return true;
    }
    return false;
}

static void conditional(struct program *g)
{
    struct place m = rng_one_in(g->r, 2) ? mem_place(g) : reg_place(any_reg(g));
    unsigned cc, reg = dest_reg(g), size = g->mode32 || rng_one_in(g->r, 2) ? 4 : 8;

    if (!pick_cc(g, &cc))
        return;
    switch (rng_below(g->r, 3)) {
    case 0:
        prefixes(g, size, false, reg, m);
        put(g, 0x0f);
        put(g, 0x40 | cc);
        modrm(g, reg, m);
        break;
    case 1:
        if (!m.mem)
            m.reg = g->mode32 ? dest_byte(g, false) : dest_reg(g);
        prefixes(g, 1, true, 0, m);
        put(g, 0x0f);
        put(g, 0x90 | cc);
        modrm(g, 0, m);
        break;
    default:
        if (g->skips == SKIPS)
            return;
        put(g, 0x70 | cc);
        g->skip[g->skips].at = g->len;
        g->skip[g->skips++].after = 1 + rng_below(g->r, 5);
        put(g, 0);
    }
}

static void stack(struct program *g)
{
    unsigned n = rng_one_in(g->r, 2) ? any_reg(g) : dest_reg(g), shape = rng_below(g->r, 5);

    if (shape >= 3 && g->undefined & OSZAPC)
        shape = 0;
    if (shape == 1)
        n = dest_reg(g);
    switch (shape) {
    case 0:
    case 1:
        prefixes(g, 4, false, 0, reg_place(n));
        put(g, (shape ? 0x58 : 0x50) | (n & 7));
        break;
    case 2:
        put(g, 0x68);
        put32(g, (uint32_t)rng_value(g->r));
        break;
    case 3:
        put(g, 0x9c);
        break;
    default: /* lahf */
        if (g->ptr[0] && g->ptr[1] && g->counter)
            put(g, 0x9f);
    }
}

static void atomic(struct program *g)
{
    unsigned size = any_size(g), shape = rng_below(g->r, 3), reg = dest_reg(g);
    struct place m = mem_place(g);

    size = size == 1 ? 4 : size;
    if (shape == 2 && (g->ptr[0] == 0 || g->ptr[1] == 0 || g->counter == 0))
        shape = 0;
    if (shape && rng_one_in(g->r, 2))
        put(g, 0xf0);
    prefixes(g, size, false, reg, m);
    if (shape == 0) {
        put(g, 0x87);
    } else {
        put(g, 0x0f);
        put(g, shape == 1 ? 0xc1 : 0xb1);
    }
    modrm(g, reg, m);
    if (shape)
        wrote(g, OSZAPC, 0);
}

static void bits(struct program *g)
{
    unsigned reg = dest_reg(g), size = g->mode32 || rng_one_in(g->r, 2) ? 4 : 8, shape = rng_below(g->r, 4);
    struct place m = rng_one_in(g->r, 2) ? mem_place(g) : reg_place(dest_reg(g));

    if (shape == 0) { /* imul */
        prefixes(g, size, false, reg, m);
        put(g, 0x0f);
        put(g, 0xaf);
        modrm(g, reg, m);
        wrote(g, FLAG_CF | FLAG_OF, OSZAPC & ~(FLAG_CF | FLAG_OF));
    } else if (shape == 1) { /* bt, bts, btr, btc by immediate */
        prefixes(g, size, false, 0, m);
        put(g, 0x0f);
        put(g, 0xba);
        modrm(g, 4 + rng_below(g->r, 4), m);
        put(g, rng_below(g->r, 64));
        wrote(g, FLAG_CF, OSZAPC & ~(FLAG_CF | FLAG_ZF));
    } else if (shape == 2) { /* popcnt */
        put(g, 0xf3);
        prefixes(g, size, false, reg, m);
        put(g, 0x0f);
        put(g, 0xb8);
        modrm(g, reg, m);
        wrote(g, OSZAPC, 0);
    } else { /* bswap */
        prefixes(g, size, false, 0, reg_place(reg));
        put(g, 0x0f);
        put(g, 0xc8 | (reg & 7));
    }
}

static void close_skips(struct program *g, bool all)
{
    for (unsigned k = 0; k < g->skips;) {
        if (!all && --g->skip[k].after) {
            k++;
            continue;
        }
        unsigned far = g->len - g->skip[k].at - 1;
        if (g->skip[k].at < T_CODE_MAX)
            g->t->code[g->skip[k].at] = (uint8_t)(far < 128 ? far : 0);
        g->skip[k] = g->skip[--g->skips];
    }
}

static void (*const makers[])(struct program *) = {
    alu, alu, alu, alu, alu, unary, move, move, move, shift, conditional, conditional, stack, atomic, bits,
};

static uint64_t pointer(struct rng *r)
{
    static const uint32_t near[] = { T_DATA + 0x100, T_DATA + T_PAGE, T_DATA + 2 * T_PAGE, T_RO + 0x40, T_LOW + 0x80 };
    unsigned pick = rng_below(r, 12);

    return pick < 5 ? near[pick] + rng_below(r, 64) - 32 : T_DATA + 64 + rng_below(r, 2 * T_PAGE - 256);
}

static void choose_registers(struct program *g)
{
    do {
        g->ptr[0] = any_reg(g);
        g->ptr[1] = any_reg(g);
        g->counter = any_reg(g);
    } while (g->ptr[0] == g->ptr[1] || g->ptr[0] == g->counter || g->ptr[1] == g->counter || g->ptr[0] == 4 ||
             g->ptr[1] == 4 || g->counter == 4);
    for (unsigned k = 0; k < 16; k++)
        g->t->in.gpr[k] = g->mode32 ? (uint32_t)rng_value(g->r) : rng_value(g->r);
    for (unsigned k = 8; k < 16 && g->mode32; k++)
        g->t->in.gpr[k] = 0;
    g->t->in.gpr[g->ptr[0]] = pointer(g->r);
    g->t->in.gpr[g->ptr[1]] = pointer(g->r);
    g->t->in.gpr[g->counter] = 1 + rng_below(g->r, 5);
    g->t->in.gpr[4] = (pointer(g->r) & ~7ull) + (rng_one_in(g->r, 8) ? rng_below(g->r, 8) : 0);
}

/* dec counter; jnz to the start. */
static void close_loop(struct program *g)
{
    prefixes(g, g->mode32 ? 4 : 8, false, 0, reg_place(g->counter));
    put(g, 0xff);
    modrm(g, 1, reg_place(g->counter));
    put(g, 0x0f);
    put(g, 0x85);
    put32(g, 0u - (g->len + 4));
    wrote(g, OSZAPC & ~FLAG_CF, 0);
}

/* All of it decodes; which flags are undefined in the end. */
static bool note_rows(struct test_case *t)
{
    struct insn i;

    for (unsigned at = 0; at < t->code_len; at += i.len) {
        if (insn_decode(t->code + at, t->code_len - at, t->mode32 ? INSN_32 : INSN_64, false, &i))
            return false;
        if (at == 0)
            t->row = i.row;
        t->undefined |= insn_rows[i.row].flags_u;
    }
    return true;
}

bool gen_program(struct rng *r, struct test_case *ret)
{
    struct program g = { .r = r, .t = ret };
    unsigned count = 2 + rng_below(r, 28);

    memset(ret, 0, sizeof(*ret));
    ret->mode32 = g.mode32 = rng_one_in(r, 5);
    ret->mem_seed = rng_next(r);
    ret->in.rip = T_CODE + (rng_one_in(r, 8) ? T_PAGE - 1 - rng_below(r, 60) : 0x400 + rng_below(r, 64));
    ret->in.rflags = 0x202 | (rng_next(r) & OSZAPC);
    memcpy(ret->in.xsave, (const uint8_t[]){ 0x7f, 3 }, 2);
    memcpy(ret->in.xsave + 24, (const uint8_t[]){ 0x80, 0x1f }, 2);
    choose_registers(&g);
    while (count-- && g.len < T_CODE_MAX - 60) {
        makers[rng_below(r, ARRAY_COUNT(makers))](&g);
        close_skips(&g, false);
    }
    close_skips(&g, true);
    if (rng_one_in(r, 2))
        close_loop(&g);
    ret->code_len = g.len;
    return g.len <= T_CODE_MAX && note_rows(ret);
}
