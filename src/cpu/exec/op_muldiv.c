/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Multiplication, division and decimal adjustment.
 *
 * Spec      Intel SDM volume 2. #DE is found by arithmetic: the host never divides what would trap.
 */
#include "cpu/exec/alu.h"
#include "cpu/exec/handlers.h"
#include "cpu/exec/operand.h"

enum { RAX, RCX, RDX };

/* --- multiplication --- */

#define MUL_HOST(name, bits, suffix)                                                               \
    static uint16_t name##_##bits(uint##bits##_t a, uint##bits##_t b, uint##bits##_t *lo,           \
                                  uint##bits##_t *hi)                                              \
    {                                                                                              \
        uint##bits##_t h;                                                                          \
        uint64_t ax = a, l;                                                                        \
        __asm__(#name suffix " %[b]\n\tmov %%rax, %[l]" ALU_FLAGS_OUT                              \
                : "+a"(ax), "=&d"(h), [l] "=&r"(l) : [b] "r"(b) : "cc");                           \
        *lo = (uint##bits##_t)l;                                                                   \
        *hi = h;                                                                                   \
        return (uint16_t)ax;                                                                       \
    }
MUL_HOST(mul, 16, "w")
MUL_HOST(mul, 32, "l")
MUL_HOST(mul, 64, "q")
MUL_HOST(imul, 16, "w")
MUL_HOST(imul, 32, "l")
MUL_HOST(imul, 64, "q")

#define MUL_HOST_8(name)                                                                           \
    static uint16_t name##_8(uint8_t a, uint8_t b, uint16_t *ret)                                   \
    {                                                                                              \
        uint16_t ax = a, r;                                                                        \
        __asm__(#name "b %[b]\n\tmovw %%ax, %[r]" ALU_FLAGS_OUT                                    \
                : "+a"(ax), [r] "=&r"(r) : [b] "r"(b) : "cc");                                     \
        *ret = r;                                                                                  \
        return ax;                                                                                 \
    }
MUL_HOST_8(mul)
MUL_HOST_8(imul)

#define MUL_CASE(name, bits)                                                                       \
    {                                                                                              \
        uint##bits##_t lo, hi;                                                                     \
        c->flags_ax = name##_##bits((uint##bits##_t)c->gpr[RAX], (uint##bits##_t)b, &lo, &hi);      \
        reg_set(c, RAX, bits / 8, lo);                                                             \
        reg_set(c, RDX, bits / 8, hi);                                                             \
        return X_NEXT;                                                                             \
    }
#define MUL_HANDLER(name)                                                                          \
    int x_##name##_E(struct cpu *c, const struct insn *i)                                           \
    {                                                                                              \
        uint64_t b;                                                                                \
        uint16_t r;                                                                                \
        if (op_rm(c, i, i->opsize, &b))                                                            \
            return X_FAULT;                                                                        \
        switch (i->opsize) {                                                                       \
        case 1:                                                                                    \
            c->flags_ax = name##_8((uint8_t)c->gpr[RAX], (uint8_t)b, &r);                          \
            reg_set(c, RAX, 2, r);                                                                 \
            return X_NEXT;                                                                         \
        case 2:                                                                                    \
            MUL_CASE(name, 16)                                                                     \
        case 4:                                                                                    \
            MUL_CASE(name, 32)                                                                     \
        default:                                                                                   \
            MUL_CASE(name, 64)                                                                     \
        }                                                                                          \
    }
MUL_HANDLER(mul)
MUL_HANDLER(imul)

int x_imul_GE(struct cpu *c, const struct insn *i)
{
    uint64_t b;

    if (op_rm(c, i, i->opsize, &b))
        return X_FAULT;
    reg_set(c, i->reg, i->opsize, alu_imul(i->opsize, c->gpr[i->reg], b, &c->flags_ax));
    return X_NEXT;
}

int x_imul_GEI(struct cpu *c, const struct insn *i)
{
    uint64_t a;

    if (op_rm(c, i, i->opsize, &a))
        return X_FAULT;
    reg_set(c, i->reg, i->opsize, alu_imul(i->opsize, a, i->imm, &c->flags_ax));
    return X_NEXT;
}

/* --- division --- */

/* The dividend, twice the operand's size. */
static unsigned __int128 dividend(const struct cpu *c, unsigned size)
{
    if (size == 1)
        return (uint16_t)c->gpr[RAX];
    return (unsigned __int128)(c->gpr[RDX] & size_mask(size)) << (8 * size) |
           (c->gpr[RAX] & size_mask(size));
}

static void put_quotient(struct cpu *c, unsigned size, uint64_t quot, uint64_t rem)
{
    if (size == 1) {
        reg_set(c, RAX, 2, (quot & 0xff) | (rem & 0xff) << 8);
        return;
    }
    reg_set(c, RAX, size, quot);
    reg_set(c, RDX, size, rem);
}

/* False when the quotient does not fit 64 bits, or b is 0. */
static bool divide(unsigned __int128 a, uint64_t b, uint64_t *quot, uint64_t *rem)
{
    uint64_t lo = (uint64_t)a, hi = (uint64_t)(a >> 64);

    if (hi >= b)
        return false;
    __asm__("divq %[b]" : "+a"(lo), "+d"(hi) : [b] "r"(b) : "cc");
    *quot = lo;
    *rem = hi;
    return true;
}

int x_div_E(struct cpu *c, const struct insn *i)
{
    uint64_t b, quot, rem;

    if (op_rm(c, i, i->opsize, &b))
        return X_FAULT;
    if (!divide(dividend(c, i->opsize), b, &quot, &rem) || quot > size_mask(i->opsize))
        return cpu_raise(c, EXC_DE);
    put_quotient(c, i->opsize, quot, rem);
    return X_NEXT;
}

int x_idiv_E(struct cpu *c, const struct insn *i)
{
    unsigned size = i->opsize, shift = 128 - 16 * size;
    uint64_t b, quot, rem;

    if (op_rm(c, i, size, &b))
        return X_FAULT;
    __int128 a = (__int128)(dividend(c, size) << shift) >> shift;
    int64_t d = (int64_t)sign_extend(b, size);
    bool neg = (a < 0) != (d < 0);
    unsigned __int128 abs_a = a < 0 ? -(unsigned __int128)a : (unsigned __int128)a;

    if (!divide(abs_a, d < 0 ? -(uint64_t)d : (uint64_t)d, &quot, &rem) ||
        quot > (size_mask(size) >> 1) + neg)
        return cpu_raise(c, EXC_DE);
    put_quotient(c, size, neg ? -quot : quot, a < 0 ? -rem : rem);
    return X_NEXT;
}

/* --- decimal --- */

static bool flag_get(const struct cpu *c, uint32_t f)
{
    return c->flags_ax & (f << 8);
}

/* Flags of `al` as a result; OF clear, AF and CF as given. */
static void decimal_flags(struct cpu *c, uint8_t al, bool af, bool cf)
{
    uint16_t flags = 0;

    alu_or_8(al, al, &flags);
    c->flags_ax = (uint16_t)(flags | (af ? FLAG_AF << 8 : 0) | (cf ? FLAG_CF << 8 : 0));
}

static int decimal_adjust(struct cpu *c, bool subtract)
{
    uint8_t al = (uint8_t)c->gpr[RAX], fix = 0;
    bool af = flag_get(c, FLAG_AF) || (al & 15) > 9;
    bool cf = flag_get(c, FLAG_CF) || al > 0x99;
    bool borrow = af && (subtract ? al < 6 : false);

    if (af)
        fix |= 6;
    if (cf)
        fix |= 0x60;
    al = (uint8_t)(subtract ? al - fix : al + fix);
    reg8_set(c, RAX, true, al);
    decimal_flags(c, al, af, cf || borrow);
    return X_NEXT;
}

int x_daa(struct cpu *c, const struct insn *i)
{
    return decimal_adjust(c, false);
}

int x_das(struct cpu *c, const struct insn *i)
{
    return decimal_adjust(c, true);
}

static int ascii_adjust(struct cpu *c, int sign)
{
    uint16_t ax = (uint16_t)c->gpr[RAX];
    bool af = flag_get(c, FLAG_AF) || (ax & 15) > 9;

    if (af)
        ax = (uint16_t)(ax + sign * 0x106);
    ax &= 0xff0f;
    reg_set(c, RAX, 2, ax);
    decimal_flags(c, (uint8_t)ax, af, af);
    return X_NEXT;
}

int x_aaa(struct cpu *c, const struct insn *i)
{
    return ascii_adjust(c, 1);
}

int x_aas(struct cpu *c, const struct insn *i)
{
    return ascii_adjust(c, -1);
}

int x_aam(struct cpu *c, const struct insn *i)
{
    uint8_t al = (uint8_t)c->gpr[RAX], base = (uint8_t)i->imm;

    if (base == 0)
        return cpu_raise(c, EXC_DE);
    reg_set(c, RAX, 2, (uint64_t)(al / base) << 8 | al % base);
    decimal_flags(c, al % base, false, false);
    return X_NEXT;
}

int x_aad(struct cpu *c, const struct insn *i)
{
    uint16_t ax = (uint16_t)c->gpr[RAX];
    uint8_t al = (uint8_t)(ax + (ax >> 8) * (uint8_t)i->imm);

    reg_set(c, RAX, 2, al);
    decimal_flags(c, al, false, false);
    return X_NEXT;
}
