/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest that can tell whether it was taken away and put back: it fills memory with a pattern
 * ("fill=N": MiB, from 16 MiB on), then looks at a part of it and prints "tick N", for ever. A byte
 * that is not what it wrote ends it with "broken". */
#include "lib/guest.h"

enum { FIRST = 16, MIB = 1 << 20, STEP = 4096 + 8 };

static uint64_t pattern(uint64_t at)
{
    return (at ^ 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9;
}

void test_main(void)
{
    uint64_t mib = cmdline_number("fill", 4), first = (uint64_t)FIRST * MIB,
             end = first + mib * MIB;
    for (uint64_t at = first; at < end; at += 8)
        *(volatile uint64_t *)at = pattern(at);
    for (unsigned tick = 0, at = 0;; tick++) {
        print("tick %u\n", tick);
        for (unsigned i = 0; i < 2000; i++, at = (at + STEP) % (unsigned)(mib * MIB)) {
            uint64_t place = (first + at) & ~7ull;
            if (*(volatile uint64_t *)place != pattern(place))
                fatal("broken");
        }
        for (volatile unsigned i = 0; i < 3000000; i++)
            ;
    }
}
