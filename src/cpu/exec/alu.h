/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Arithmetic done by the host's own instructions, so that every flag, undefined ones included, is what the
 * processor gives.
 *
 * Flags are in LAHF/SETO form (cpu->flags_ax). Adding 127 to AL sets the host's OF from the saved one, SAHF
 * the rest; LAHF and SETO take them back. An instruction that leaves a flag alone thus keeps the guest's.
 */
#pragma once

#include "cpu/state.h"

#define ALU_FLAGS_IN  "addb $127, %%al\n\tsahf\n\t"
#define ALU_FLAGS_OUT "\n\tlahf\n\tseto %%al"

/* dst = dst OP src, for instructions that write all flags and read none. */
#define ALU_BINARY_FRESH(name, text, bits, suffix, in)                                             \
    static inline uint##bits##_t alu_##name##_##bits(uint##bits##_t dst, uint##bits##_t src,        \
                                                     uint16_t *flags)                              \
    {                                                                                              \
        uint16_t ax;                                                                               \
        __asm__(text suffix " %[src], %[dst]" ALU_FLAGS_OUT                                        \
                : [dst] "+r"(dst), "=a"(ax) : [src] "r"(src) : "cc");                              \
        *flags = ax;                                                                               \
        return dst;                                                                                \
    }
/* dst = dst OP src, for instructions that read or keep flags. */
#define ALU_BINARY(name, text, bits, suffix, in)                                                   \
    static inline uint##bits##_t alu_##name##_##bits(uint##bits##_t dst, uint##bits##_t src,        \
                                                     uint16_t *flags)                              \
    {                                                                                              \
        uint16_t ax = *flags;                                                                      \
        __asm__(in text suffix " %[src], %[dst]" ALU_FLAGS_OUT                                     \
                : [dst] "+r"(dst), "+&a"(ax) : [src] "r"(src) : "cc");                             \
        *flags = ax;                                                                               \
        return dst;                                                                                \
    }
/* dst = OP dst */
#define ALU_UNARY(name, text, bits, suffix, in)                                                    \
    static inline uint##bits##_t alu_##name##_##bits(uint##bits##_t dst, uint16_t *flags)           \
    {                                                                                              \
        uint16_t ax = *flags;                                                                      \
        __asm__(in text suffix " %[dst]" ALU_FLAGS_OUT : [dst] "+r"(dst), "+&a"(ax) : : "cc");      \
        *flags = ax;                                                                               \
        return dst;                                                                                \
    }
/* dst = dst OP count; a masked count of 0 keeps the flags. */
#define ALU_SHIFT(name, text, bits, suffix, in)                                                    \
    static inline uint##bits##_t alu_##name##_##bits(uint##bits##_t dst, uint8_t count,             \
                                                     uint16_t *flags)                              \
    {                                                                                              \
        uint16_t ax = *flags;                                                                      \
        __asm__(in text suffix " %%cl, %[dst]" ALU_FLAGS_OUT                                       \
                : [dst] "+r"(dst), "+&a"(ax) : "c"(count) : "cc");                                 \
        *flags = ax;                                                                               \
        return dst;                                                                                \
    }
/* shld, shrd */
#define ALU_DOUBLE(name, text, bits, suffix, in)                                                   \
    static inline uint##bits##_t alu_##name##_##bits(uint##bits##_t dst, uint##bits##_t src,        \
                                                     uint8_t count, uint16_t *flags)               \
    {                                                                                              \
        uint16_t ax = *flags;                                                                      \
        __asm__(in text suffix " %%cl, %[src], %[dst]" ALU_FLAGS_OUT                               \
                : [dst] "+r"(dst), "+&a"(ax) : [src] "r"(src), "c"(count) : "cc");                 \
        *flags = ax;                                                                               \
        return dst;                                                                                \
    }

#define ALU_3_SIZES(kind, name, text, in)                                                          \
    kind(name, text, 16, "w", in) kind(name, text, 32, "l", in) kind(name, text, 64, "q", in)
#define ALU_4_SIZES(kind, name, text, in)                                                          \
    kind(name, text, 8, "b", in) ALU_3_SIZES(kind, name, text, in)

ALU_4_SIZES(ALU_BINARY_FRESH, add, "add", "")
ALU_4_SIZES(ALU_BINARY_FRESH, or, "or", "")
ALU_4_SIZES(ALU_BINARY, adc, "adc", ALU_FLAGS_IN)
ALU_4_SIZES(ALU_BINARY, sbb, "sbb", ALU_FLAGS_IN)
ALU_4_SIZES(ALU_BINARY_FRESH, and, "and", "")
ALU_4_SIZES(ALU_BINARY_FRESH, sub, "sub", "")
ALU_4_SIZES(ALU_BINARY_FRESH, xor, "xor", "")
ALU_4_SIZES(ALU_BINARY_FRESH, cmp, "cmp", "")
ALU_4_SIZES(ALU_BINARY_FRESH, test, "test", "")
ALU_3_SIZES(ALU_BINARY_FRESH, imul, "imul", "")
ALU_3_SIZES(ALU_BINARY, bt, "bt", ALU_FLAGS_IN)
ALU_3_SIZES(ALU_BINARY, bts, "bts", ALU_FLAGS_IN)
ALU_3_SIZES(ALU_BINARY, btr, "btr", ALU_FLAGS_IN)
ALU_3_SIZES(ALU_BINARY, btc, "btc", ALU_FLAGS_IN)
ALU_4_SIZES(ALU_UNARY, inc, "inc", ALU_FLAGS_IN)
ALU_4_SIZES(ALU_UNARY, dec, "dec", ALU_FLAGS_IN)
ALU_4_SIZES(ALU_UNARY, neg, "neg", "")
ALU_4_SIZES(ALU_SHIFT, rol, "rol", ALU_FLAGS_IN)
ALU_4_SIZES(ALU_SHIFT, ror, "ror", ALU_FLAGS_IN)
ALU_4_SIZES(ALU_SHIFT, rcl, "rcl", ALU_FLAGS_IN)
ALU_4_SIZES(ALU_SHIFT, rcr, "rcr", ALU_FLAGS_IN)
ALU_4_SIZES(ALU_SHIFT, shl, "shl", ALU_FLAGS_IN)
ALU_4_SIZES(ALU_SHIFT, shr, "shr", ALU_FLAGS_IN)
ALU_4_SIZES(ALU_SHIFT, sar, "sar", ALU_FLAGS_IN)
ALU_3_SIZES(ALU_DOUBLE, shld, "shld", ALU_FLAGS_IN)
ALU_3_SIZES(ALU_DOUBLE, shrd, "shrd", ALU_FLAGS_IN)

/* The same with the size as an argument, for handlers that serve all sizes. */
#define ALU_PICK(name, f8, a, ...)                                                                 \
    switch (size) {                                                                                \
    case 1: return f8;                                                                             \
    case 2: return alu_##name##_16((uint16_t)a, __VA_ARGS__);                                      \
    case 4: return alu_##name##_32((uint32_t)a, __VA_ARGS__);                                      \
    default: return alu_##name##_64(a, __VA_ARGS__);                                               \
    }

typedef uint64_t alu_binary_fn(unsigned size, uint64_t a, uint64_t b, uint16_t *flags);

#define ALU_SIZED_BINARY(name)                                                                     \
    static inline uint64_t alu_##name(unsigned size, uint64_t a, uint64_t b, uint16_t *flags)       \
    {                                                                                              \
        ALU_PICK(name, alu_##name##_8((uint8_t)a, (uint8_t)b, flags), a, b, flags)                 \
    }
#define ALU_SIZED_BINARY_NO8(name)                                                                 \
    static inline uint64_t alu_##name(unsigned size, uint64_t a, uint64_t b, uint16_t *flags)       \
    {                                                                                              \
        ALU_PICK(name, a, a, b, flags)                                                             \
    }
#define ALU_SIZED_UNARY(name)                                                                      \
    static inline uint64_t alu_##name(unsigned size, uint64_t a, uint64_t b, uint16_t *flags)       \
    {                                                                                              \
        ALU_PICK(name, alu_##name##_8((uint8_t)a, flags), a, flags)                                \
    }

ALU_SIZED_BINARY(add)
ALU_SIZED_BINARY(or)
ALU_SIZED_BINARY(adc)
ALU_SIZED_BINARY(sbb)
ALU_SIZED_BINARY(and)
ALU_SIZED_BINARY(sub)
ALU_SIZED_BINARY(xor)
ALU_SIZED_BINARY(cmp)
ALU_SIZED_BINARY(test)
ALU_SIZED_BINARY_NO8(imul)

/* bsf and bsr on the whole 64-bit register, since what a zero source leaves in it is the processor's affair. */
#define ALU_BIT_SCAN(name)                                                                         \
    static inline uint64_t alu_##name(unsigned size, uint64_t dst, uint64_t src, uint16_t *flags)   \
    {                                                                                              \
        uint16_t ax = *flags;                                                                      \
        if (size == 2)                                                                             \
            __asm__(ALU_FLAGS_IN #name "w %w[src], %w[dst]" ALU_FLAGS_OUT                          \
                    : [dst] "+r"(dst), "+&a"(ax) : [src] "r"(src) : "cc");                         \
        else if (size == 4)                                                                        \
            __asm__(ALU_FLAGS_IN #name "l %k[src], %k[dst]" ALU_FLAGS_OUT                          \
                    : [dst] "+r"(dst), "+&a"(ax) : [src] "r"(src) : "cc");                         \
        else                                                                                       \
            __asm__(ALU_FLAGS_IN #name "q %q[src], %q[dst]" ALU_FLAGS_OUT                          \
                    : [dst] "+r"(dst), "+&a"(ax) : [src] "r"(src) : "cc");                         \
        *flags = ax;                                                                               \
        return dst;                                                                                \
    }
ALU_BIT_SCAN(bsf)
ALU_BIT_SCAN(bsr)
ALU_SIZED_BINARY_NO8(bt)
ALU_SIZED_BINARY_NO8(bts)
ALU_SIZED_BINARY_NO8(btr)
ALU_SIZED_BINARY_NO8(btc)
ALU_SIZED_UNARY(inc)
ALU_SIZED_UNARY(dec)
ALU_SIZED_UNARY(neg)
ALU_SIZED_BINARY(rol)
ALU_SIZED_BINARY(ror)
ALU_SIZED_BINARY(rcl)
ALU_SIZED_BINARY(rcr)
ALU_SIZED_BINARY(shl)
ALU_SIZED_BINARY(shr)
ALU_SIZED_BINARY(sar)

static inline uint64_t alu_shld(unsigned size, uint64_t a, uint64_t b, uint8_t count, uint16_t *flags)
{
    ALU_PICK(shld, a, a, b, count, flags)
}

static inline uint64_t alu_shrd(unsigned size, uint64_t a, uint64_t b, uint8_t count, uint16_t *flags)
{
    ALU_PICK(shrd, a, a, b, count, flags)
}

/* Condition code 0 to 15 of jcc, setcc, cmovcc. */
static inline bool alu_condition(uint16_t flags, unsigned cc)
{
    uint32_t f = flags >> 8;
    bool of = flags & 1, sf = f & FLAG_SF, zf = f & FLAG_ZF, cf = f & FLAG_CF, r;

    switch (cc >> 1) {
    case 0: r = of; break;
    case 1: r = cf; break;
    case 2: r = zf; break;
    case 3: r = cf || zf; break;
    case 4: r = sf; break;
    case 5: r = f & FLAG_PF; break;
    case 6: r = sf != of; break;
    default: r = zf || sf != of; break;
    }
    return r != (cc & 1);
}
