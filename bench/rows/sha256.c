/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench rows: SHA-256 in plain C: rotations and additions that fill the registers.
 *
 * Spec      FIPS 180-4, section 6.2; the constants are made from the primes' roots by integer arithmetic.
 */
#include "row.h"

static uint32_t round_constants[64], first_hash[8];

static unsigned __int128 power(unsigned __int128 base, unsigned exponent)
{
    unsigned __int128 product = 1;
    while (exponent--)
        product *= base;
    return product;
}

/* The first 32 bits after the point of the root of a small prime: bitwise, with 40-bit fixed point at most. */
static uint32_t root_fraction(unsigned prime, unsigned degree)
{
    uint64_t root = 0; /* the root times 2^32 */
    for (int bit = 37; bit >= 0; bit--) {
        uint64_t with = root | 1ull << bit;
        unsigned __int128 whole = (unsigned __int128)prime << (degree == 2 ? 64 : 96);
        if (power(with, degree) <= whole)
            root = with;
    }
    return (uint32_t)root;
}

static const char *sha_setup(void)
{
    unsigned found = 0;
    for (unsigned n = 2; found < 64; n++) {
        unsigned d = 2;
        while (d * d <= n && n % d)
            d++;
        if (d * d <= n)
            continue;
        round_constants[found] = root_fraction(n, 3);
        if (found < 8)
            first_hash[found] = root_fraction(n, 2);
        found++;
    }
    return NULL;
}

static uint32_t rotate(uint32_t v, unsigned n)
{
    return v >> n | v << (32 - n);
}

static NOINLINE void sha_block(uint32_t hash[8], const uint8_t *block)
{
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[i * 4] << 24 | block[i * 4 + 1] << 16 | block[i * 4 + 2] << 8 | block[i * 4 + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] +
               (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
    }
    for (int i = 0; i < 8; i++)
        s[i] = hash[i];
    for (int i = 0; i < 64; i++) {
        uint32_t e = s[4], a = s[0];
        uint32_t t = s[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & s[5]) ^ (~e & s[6])) +
                     round_constants[i] + w[i];
        uint32_t u = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
        s[7] = s[6];
        s[6] = s[5];
        s[5] = e;
        s[4] = s[3] + t;
        s[3] = s[2];
        s[2] = s[1];
        s[1] = a;
        s[0] = t + u;
    }
    for (int i = 0; i < 8; i++)
        hash[i] += s[i];
}

static uint64_t sha256(void)
{
    static uint8_t input[8192];
    uint32_t hash[8];
    for (unsigned i = 0; i < 8; i++)
        hash[i] = first_hash[i];
    for (unsigned i = 0; i < sizeof(input); i += 8)
        input[i] = (uint8_t)(i >> 3);
    for (unsigned i = 0; i < sizeof(input); i += 64)
        sha_block(hash, input + i);
    return (uint64_t)hash[0] << 32 | hash[7];
}
ROW(sha256, "sha256-c", "integer", sha256, .setup = sha_setup);
