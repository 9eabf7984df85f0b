/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench rows: floating point and integer SIMD. Compiled twice, for SSE2 and for AVX2 with FMA: VARIANT names which,
 * VECTOR is the vectors' size. No mathematical library here: results are exact, so that engines can be compared. */
#include <math.h>

#include "row.h"

#define FP_ROW(id, title, call, ...) ROW(id, title "-" VARIANT, "fp", call, .needs = VARIANT_NEEDS, __VA_ARGS__)

static uint64_t fold(const double *values, unsigned count)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < count; i++)
        sum = row_mix(sum, row_bits(values[i]));
    return sum;
}

/* ---- linpack: LU factors with partial pivoting, then the solution ---- */

enum { ORDER = 64 };

static NOINLINE void axpy(double *restrict y, const double *restrict x, double a, int count)
{
    for (int i = 0; i < count; i++)
        y[i] += a * x[i];
}

static void lu_factor(double a[ORDER][ORDER], double *b)
{
    for (int k = 0; k < ORDER; k++) {
        int pivot = k;
        for (int i = k + 1; i < ORDER; i++)
            if (fabs(a[i][k]) > fabs(a[pivot][k]))
                pivot = i;
        if (pivot != k) {
            for (int j = 0; j < ORDER; j++) {
                double t = a[k][j];
                a[k][j] = a[pivot][j];
                a[pivot][j] = t;
            }
            double t = b[k];
            b[k] = b[pivot];
            b[pivot] = t;
        }
        for (int i = k + 1; i < ORDER; i++) {
            double factor = -a[i][k] / a[k][k];
            axpy(&a[i][k], &a[k][k], factor, ORDER - k);
            b[i] += factor * b[k];
        }
    }
}

static uint64_t linpack(void)
{
    static double a[ORDER][ORDER], b[ORDER], x[ORDER];
    uint64_t state = 29;
    for (int i = 0; i < ORDER; i++) {
        b[i] = 0;
        for (int j = 0; j < ORDER; j++) {
            a[i][j] = (double)row_random(&state) / 0x40000000 - 1.0;
            b[i] += a[i][j];
        }
    }
    lu_factor(a, b);
    for (int i = ORDER - 1; i >= 0; i--) {
        double sum = b[i];
        for (int j = i + 1; j < ORDER; j++)
            sum -= a[i][j] * x[j];
        x[i] = sum / a[i][i];
    }
    return fold(x, ORDER);
}
FP_ROW(linpack, "linpack", linpack);

/* ---- matmul ---- */

static uint64_t matmul(void)
{
    enum { SIDE = 48 };
    static double a[SIDE][SIDE], b[SIDE][SIDE], c[SIDE][SIDE];
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            a[i][j] = i * 0.25 + j;
            b[i][j] = i - j * 0.125;
            c[i][j] = 0;
        }
    row_clobber(a);
    for (int i = 0; i < SIDE; i++)
        for (int k = 0; k < SIDE; k++)
            for (int j = 0; j < SIDE; j++)
                c[i][j] += a[i][k] * b[k][j];
    return fold(c[SIDE / 2], SIDE);
}
FP_ROW(matmul, "matmul", matmul);

/* ---- n-body: square roots and divisions, one at a time ---- */

struct body {
    double p[3], v[3], mass;
};

static void bodies_step(struct body *bodies, int count, double dt)
{
    for (int i = 0; i < count; i++)
        for (int j = i + 1; j < count; j++) {
            double d[3], square = 1e-6;
            for (int k = 0; k < 3; k++) {
                d[k] = bodies[i].p[k] - bodies[j].p[k];
                square += d[k] * d[k];
            }
            double magnitude = dt / (square * sqrt(square));
            for (int k = 0; k < 3; k++) {
                bodies[i].v[k] -= d[k] * bodies[j].mass * magnitude;
                bodies[j].v[k] += d[k] * bodies[i].mass * magnitude;
            }
        }
    for (int i = 0; i < count; i++)
        for (int k = 0; k < 3; k++)
            bodies[i].p[k] += dt * bodies[i].v[k];
}

static uint64_t nbody(void)
{
    struct body bodies[5];
    for (int i = 0; i < 5; i++)
        bodies[i] = (struct body){{i * 2.0, i * i * 0.5, 1.0 / (i + 1)}, {0.1 * i, 0.3, -0.05 * i}, i ? 0.01 : 10.0};
    for (int turn = 0; turn < 200; turn++)
        bodies_step(bodies, 5, 0.001);
    return fold(bodies[1].p, 3);
}
FP_ROW(nbody, "nbody", nbody);

/* ---- FFT: radix 2, in place ---- */

enum { POINTS = 512 };
static double twiddle_re[POINTS / 2], twiddle_im[POINTS / 2];

static const char *fft_setup(void)
{
    for (int i = 0; i < POINTS / 2; i++) { /* cosine and sine by their series */
        double x = -2 * 3.14159265358979323846 * i / POINTS, term = 1, sums[2] = {0, 0};
        for (int k = 0; k < 30; k++) {
            sums[k & 1] += k & 2 ? -term : term;
            term *= x / (k + 1);
        }
        twiddle_re[i] = sums[0];
        twiddle_im[i] = sums[1];
    }
    return NULL;
}

static NOINLINE void fft_pass(double *re, double *im, int half)
{
    int stride = POINTS / (2 * half);
    for (int start = 0; start < POINTS; start += 2 * half)
        for (int k = 0; k < half; k++) {
            int a = start + k, b = a + half;
            double wr = twiddle_re[k * stride], wi = twiddle_im[k * stride];
            double tr = re[b] * wr - im[b] * wi, ti = re[b] * wi + im[b] * wr;
            re[b] = re[a] - tr;
            im[b] = im[a] - ti;
            re[a] += tr;
            im[a] += ti;
        }
}

static uint64_t fft(void)
{
    static double re[POINTS], im[POINTS];
    for (int i = 0, r = 0; i < POINTS; i++) {
        re[r] = (i * 37 % 101) - 50;
        im[r] = 0;
        int bit = POINTS >> 1; /* the next number with its bits reversed */
        for (; r & bit; bit >>= 1)
            r ^= bit;
        r |= bit;
    }
    for (int half = 1; half < POINTS; half *= 2)
        fft_pass(re, im, half);
    return fold(re, POINTS / 2);
}
FP_ROW(fft, "fft", fft, .setup = fft_setup);

/* ---- mandelbrot: a vector of points at a time ---- */

typedef double vec __attribute__((vector_size(VECTOR)));
typedef int64_t mask __attribute__((vector_size(VECTOR)));
enum { LANES = VECTOR / sizeof(double) };

static uint64_t mandelbrot(void)
{
    enum { WIDTH = 32, HEIGHT = 24, LIMIT = 48 };
    uint64_t sum = 0;
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x += LANES) {
            vec cr, ci, zr, zi;
            mask steps = {0};
            for (unsigned i = 0; i < LANES; i++) {
                cr[i] = -2.0 + (x + (int)i) * (2.5 / WIDTH);
                ci[i] = -1.25 + y * (2.5 / HEIGHT);
            }
            zr = cr;
            zi = ci;
            for (int k = 0; k < LIMIT; k++) {
                vec r2 = zr * zr, i2 = zi * zi;
                mask inside = r2 + i2 <= 4.0;
                int64_t any = 0;
                for (unsigned i = 0; i < LANES; i++)
                    any |= inside[i];
                if (!any)
                    break;
                steps -= inside;
                zi = 2.0 * zr * zi + ci;
                zr = r2 - i2 + cr;
            }
            for (unsigned i = 0; i < LANES; i++)
                sum = sum * 3 + (uint64_t)steps[i];
        }
    return sum;
}
FP_ROW(mandelbrot, "mandelbrot", mandelbrot);

/* ---- integer SIMD: blends two pictures by a mask ---- */

static uint64_t blend(void)
{
    enum { SIZE = 4096 };
    static uint8_t a[SIZE], b[SIZE], alpha[SIZE], to[SIZE];
    uint64_t sum = 0;
    for (unsigned i = 0; i < SIZE; i += 16) {
        a[i] = (uint8_t)i;
        b[i] = (uint8_t)(i >> 4);
        alpha[i] = (uint8_t)(i >> 2);
    }
    for (unsigned turn = 0; turn < 16; turn++) {
        row_clobber(a);
        for (unsigned i = 0; i < SIZE; i++) {
            unsigned w = alpha[i];
            to[i] = (uint8_t)((a[i] * w + b[i] * (255 - w) + 128) >> 8);
        }
        row_clobber(to);
    }
    for (unsigned i = 0; i < SIZE; i += 16)
        sum = sum * 31 + to[i];
    return sum;
}
FP_ROW(blend, "blend", blend);
