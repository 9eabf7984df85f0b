/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench rows: x87, and the mathematical library, whose forms glibc picks by CPUID. */
#include <math.h>

#include "row.h"

static uint64_t x87(void)
{
    long double sum = 0, x = 1;
    for (int i = 1; i < 600; i++) {
        long double t = x / (i + 0.5L);
        x = sqrtl(x * x + t) - t * 0.25L;
        sum += x * (i & 1 ? 1.0L : -0.75L) + t;
        if (x > 100)
            x -= 99;
    }
    return row_bits((double)sum);
}
ROW(x87, "x87", "fp", x87);

/* FMA and other forms differ in the last bit: the value is rounded. */
static uint64_t libm(void)
{
    double sum = 0;
    for (int i = 1; i <= 100; i++) {
        double x = i * 0.37;
        row_clobber(&x);
        sum += sin(x) + cos(x * 0.5) + exp(-x * 0.1) + log(x) + pow(x, 0.3) + atan2(x, 2.0) + floor(x) + tan(x * 0.01);
    }
    return (uint64_t)llround(sum * 1e6);
}
ROW(libm, "libm", "fp", libm);
