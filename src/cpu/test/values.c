/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random values with a taste: xorshift, mixed with the numbers at which instructions change their minds. */
#include "cpu/test/oracle.h"

#include <string.h>

uint64_t rng_next(struct rng *r)
{
    r->s ^= r->s << 13;
    r->s ^= r->s >> 7;
    r->s ^= r->s << 17;
    return r->s * 0x2545f4914f6cdd1dull;
}

uint64_t rng_value(struct rng *r)
{
    static const uint64_t corner[] = {
        0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 63, 64, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff,
        0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x7fffffffffffffff, 0x8000000000000000,
        ~0ull, ~1ull, 0xffffffff80000000, T_CODE + 0x40, T_CODE + 0x1000, T_DATA + 0x7f8,
    };

    switch (rng_below(r, 8)) {
    case 0: case 1:
        return corner[rng_below(r, ARRAY_COUNT(corner))];
    case 2:
        return rng_below(r, 256);
    case 3:
        return (uint64_t)-(int64_t)rng_below(r, 256);
    case 4:
        return (uint32_t)rng_next(r);
    case 5:
        return 1ull << rng_below(r, 64);
    default:
        return rng_next(r);
    }
}

static const uint32_t floats[] = {
    0, 0x80000000, 0x3f800000, 0xbf800000, 0x00000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0x7f800000,
    0xff800000, 0x7fc00000, 0x7f800001, 0x4f000000, 0xcf000000, 0x3f000000, 0x40490fdb, 0x5f000000,
};
static const uint64_t doubles[] = {
    0, 0x8000000000000000, 0x3ff0000000000000, 0xbff0000000000000, 1, 0x000fffffffffffff,
    0x0010000000000000, 0x7fefffffffffffff, 0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000,
    0x7ff0000000000001, 0x41e0000000000000, 0xc1e0000000000000, 0x43e0000000000000, 0x3fe0000000000000,
    0x36a0000000000000, 0x47efffffe0000000,
};

static uint64_t float_pair(struct rng *r)
{
    uint64_t v = 0;

    for (unsigned k = 0; k < 2; k++) {
        uint32_t f = floats[rng_below(r, ARRAY_COUNT(floats))];
        if (rng_one_in(r, 2)) /* an exponent near 1.0 and any mantissa */
            f = (uint32_t)(rng_next(r) & 0x807fffff) | (120 + rng_below(r, 16)) << 23;
        v |= (uint64_t)f << (32 * k);
    }
    return v;
}

static uint64_t one_double(struct rng *r)
{
    if (rng_one_in(r, 2))
        return doubles[rng_below(r, ARRAY_COUNT(doubles))];
    return (rng_next(r) & 0x800fffffffffffff) | (uint64_t)(1015 + rng_below(r, 16)) << 52;
}

/* One kind of content per call: bits, singles, doubles, small integers. */
void rng_vector(struct rng *r, uint8_t *bytes, unsigned size)
{
    unsigned kind = rng_below(r, 5);

    for (unsigned at = 0; at < size; at += 8) {
        uint64_t v = kind == 0 ? float_pair(r) : kind == 1 ? one_double(r) : kind == 2 ? rng_value(r)
                                                                                       : rng_next(r);
        memcpy(bytes + at, &v, size - at < 8 ? size - at : 8);
    }
}

/* Windows around the places where operands are aimed; the rest is zero. */
void memory_fill(uint64_t seed, uint8_t mem[MEM_BYTES])
{
    static const uint32_t windows[][2] = {
        { MEM_DATA + 0x780, 0x180 }, { MEM_DATA + 0xf00, 0x200 }, { MEM_DATA + 0x1f00, 0x100 },
        { MEM_LOW + 0xf00, 0x200 },  { MEM_LOW + 0x1f00, 0x100 }, { MEM_RO, 0x100 },
        { MEM_RO + 0xf00, 0x100 },
    };
    struct rng r = { seed | 1 };

    memset(mem, 0, MEM_BYTES);
    for (unsigned k = 0; k < ARRAY_COUNT(windows); k++)
        for (unsigned at = 0; at < windows[k][1]; at += 32)
            rng_vector(&r, mem + windows[k][0] + at, 32);
}
