/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The time stamp counter: the host's, scaled if the model says so, plus the vCPU's offset.
 *
 * Spec      Intel SDM volume 3, 17.17; volume 2, CPUID leaf 15H. Linux, virt/kvm/x86/cpuid
 *           (0x40000010).
 * Thread    Any.
 */
#include "cpu/sys/internal.h"
#include "cpu/sys/model.h"

#include <cpuid.h>
#include <pthread.h>
#include <time.h>
#include <x86intrin.h>

#define CALIBRATE_NS (4 * NS_PER_MS)

struct sample {
    uint64_t tsc;
    int64_t ns;
};

#define SAMPLE_TRIES 16

/* The tightest of several readings: on a busy host the thread may be put aside between the two clocks, for so long
 * that a calibration over milliseconds would be off by half. */
static struct sample sample_now(void)
{
    struct sample best = { 0 };
    uint64_t best_window = UINT64_MAX;
    for (int i = 0; i < SAMPLE_TRIES; i++) {
        struct timespec ts;
        uint64_t before = __rdtsc();
        clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
        uint64_t window = __rdtsc() - before;
        if (window >= best_window)
            continue;
        best_window = window;
        best = (struct sample){ before + window / 2, ts.tv_sec * NS_PER_SEC + ts.tv_nsec };
    }
    return best;
}

/* kHz that the host's hypervisor or its crystal ratio states, or 0. */
static uint64_t khz_from_cpuid(void)
{
    uint32_t a, b, c, d;
    __cpuid(1, a, b, c, d);
    if (c >> 31) {
        __cpuid(0x40000000, a, b, c, d);
        if (a >= 0x40000010 && a < 0x40010000) {
            __cpuid(0x40000010, a, b, c, d);
            if (a)
                return a;
        }
    }
    if (__get_cpuid(0x15, &a, &b, &c, &d) && a && b && c)
        return (uint64_t)c * b / a / 1000;
    return 0;
}

static uint64_t host_khz;
static struct sample start;

/* The program's start is one end of the calibration, so that it seldom has to wait. */
__attribute__((constructor)) static void take_start(void)
{
    start = sample_now();
}

static void measure(void)
{
    host_khz = khz_from_cpuid();
    if (host_khz)
        return;
    struct sample end;
    do {
        end = sample_now();
    } while (end.ns - start.ns < CALIBRATE_NS);
    unsigned __int128 ticks = end.tsc - start.tsc;
    host_khz = (uint64_t)(ticks * 1000000 / (uint64_t)(end.ns - start.ns));
}

uint64_t tsc_host_khz(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, measure);
    return host_khz;
}

static uint64_t scaled(const struct cpu *c)
{
    uint64_t t = __rdtsc();
    if (likely(c->shared->tsc_khz == c->shared->host_tsc_khz))
        return t;
    return (uint64_t)((unsigned __int128)t * c->shared->tsc_khz / c->shared->host_tsc_khz);
}

uint64_t cpu_tsc(const struct cpu *c)
{
    return scaled(c) + (uint64_t)c->tsc_offset;
}

void cpu_tsc_set(struct cpu *c, uint64_t tsc)
{
    c->tsc_offset = (int64_t)(tsc - scaled(c));
}

int64_t cpu_tsc_offset(const struct cpu *c)
{
    return c->tsc_offset;
}

void cpu_set_tsc_offset(struct cpu *c, int64_t offset)
{
    c->tsc_offset = offset;
}
