/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench rows: memory moved and read in bulk. */
#include <string.h>

#include "row.h"

enum { SIZE = 256 * 1024 };
static uint8_t from[SIZE] __attribute__((aligned(4096))), to[SIZE] __attribute__((aligned(4096)));

static const char *fill(void)
{
    uint64_t state = 31;
    for (size_t i = 0; i < SIZE; i++)
        from[i] = (uint8_t)row_random(&state);
    memset(to, 1, SIZE);
    return NULL;
}

static uint64_t sample(void)
{
    return row_mix(to[12345] * 3u + 1, to[SIZE - 1]);
}

static uint64_t copy(void)
{
    memcpy(to, from, SIZE);
    row_clobber(to);
    return sample();
}
ROW(copy, "memcpy", "memory", copy, .setup = fill);

static uint64_t copy_small(void)
{
    uint64_t state = 37;
    for (unsigned i = 0; i < 500; i++) {
        uint32_t r = row_random(&state);
        memcpy(to + (r & 0xfff), from + (r >> 12 & 0xfff), r % 250);
        row_clobber(to);
    }
    return row_mix(to[100], to[3000]);
}
ROW(copy_small, "memcpy-small", "memory", copy_small, .setup = fill);

static uint64_t set(void)
{
    memset(to, 0x5a, SIZE);
    row_clobber(to);
    return sample();
}
ROW(set, "memset", "memory", set, .setup = fill);

static uint64_t rep_movsb(void)
{
    void *d = to;
    const void *s = from;
    size_t count = SIZE;
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(count) : : "memory");
    return sample();
}
ROW(rep_movsb, "rep-movsb", "memory", rep_movsb, .setup = fill);

static uint64_t rep_stosq(void)
{
    void *d = to;
    size_t count = SIZE / 8;
    __asm__ volatile("rep stosq" : "+D"(d), "+c"(count) : "a"(0x1122334455667788) : "memory");
    return sample();
}
ROW(rep_stosq, "rep-stosq", "memory", rep_stosq, .setup = fill);

static uint64_t read_sum(void)
{
    const uint64_t *words = (const uint64_t *)from;
    uint64_t sum = 0;
    for (size_t i = 0; i < SIZE / 8; i++)
        sum += words[i];
    return sum;
}
ROW(read_sum, "read-sum", "memory", read_sum, .setup = fill);
