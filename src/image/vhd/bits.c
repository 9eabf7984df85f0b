/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bitmaps of sectors. See the header. */
#include "image/vhd/bits.h"

#include "base/util.h"

#define STEP_BYTES 512u /* looked at in one step */

static uint8_t mask_of(uint32_t i, enum bits_order order)
{
    return (uint8_t)(order == BITS_HIGH_FIRST ? 0x80 >> i % 8 : 1 << i % 8);
}

static bool bit_at(const uint8_t *bits, uint32_t i, enum bits_order order)
{
    return bits[i / 8] & mask_of(i, order);
}

/* How many of the `count` bits from `first` on are like the first. */
static uint32_t same_bits(const uint8_t *bits, uint32_t first, uint32_t count,
                          enum bits_order order)
{
    bool set = bit_at(bits, first, order);
    uint8_t whole = set ? 0xff : 0;
    uint32_t n = 1;
    while (n < count) {
        if ((first + n) % 8 == 0 && count - n >= 8 && bits[(first + n) / 8] == whole)
            n += 8;
        else if (bit_at(bits, first + n, order) == set)
            n++;
        else
            break;
    }
    return n;
}

int bits_run(struct pages *p, uint64_t off, uint32_t first, uint32_t count, enum bits_order order,
             bool *ret_set, uint32_t *ret_count)
{
    uint8_t bits[STEP_BYTES];
    uint32_t skip = first % 8, n = MIN(count, STEP_BYTES * 8 - skip);
    int r = pages_read(p, off + first / 8, bits, (skip + n + 7) / 8);
    if (r)
        return r;
    *ret_set = bit_at(bits, skip, order);
    *ret_count = same_bits(bits, skip, n, order);
    return 0;
}

int bits_set(struct pages *p, uint64_t off, uint32_t first, uint32_t count, enum bits_order order)
{
    uint8_t bits[STEP_BYTES];
    int r = 0;
    for (uint32_t n; count && !r; first += n, count -= n) {
        uint32_t skip = first % 8;
        n = MIN(count, STEP_BYTES * 8 - skip);
        size_t bytes = (skip + n + 7) / 8;
        r = pages_read(p, off + first / 8, bits, bytes);
        if (r || (bit_at(bits, skip, order) && same_bits(bits, skip, n, order) == n))
            continue;
        for (uint32_t i = skip; i < skip + n; i++)
            bits[i / 8] |= mask_of(i, order);
        r = pages_write(p, off + first / 8, bits, bytes);
    }
    return r;
}
