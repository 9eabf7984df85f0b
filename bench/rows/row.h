/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench rows: what one measured row is, and how a file declares its own.
 *
 * A row's run() does one unit of work, always the same one from the same start, and returns a value made of the result:
 * the runner compares all of them, and the bench compares engines. A unit takes 20 us to 1 ms on hardware where that is
 * possible, so that a slow engine still ends one within a budget and the call costs nothing.
 *
 * Thread    A row runs in a process of its own; one with workers in so many processes at a time.
 * Errors    A row that cannot run here says so by `needs` or by setup() returning the reason.
 */
#ifndef BENCH_ROW_H
#define BENCH_ROW_H

#include <stddef.h>
#include <stdint.h>

enum row_need {
    ROW_NEEDS_NOTHING,
    ROW_NEEDS_AVX2, /* AVX2 and FMA */
};

struct row {
    const char *name;            /* unique */
    const char *group;           /* the table it stands in */
    uint64_t (*run)(void);       /* one unit of work */
    const char *(*setup)(void);  /* before the first unit; NULL or why the row cannot run */
    uint64_t (*check)(void);     /* a unit that tells the checksum, 0 if it failed; run() then just returns 1 */
    enum row_need needs;
    unsigned workers;            /* processes that do a unit each, at the same time; 0 is 1 */
};

/* A row of this file. Rows stand in the order of the link. */
#define ROW(id, ...)                                                                               \
    static const struct row row_##id = {__VA_ARGS__};                                              \
    static const struct row *const row_pointer_##id __attribute__((used, section("rows"))) =       \
        &row_##id

#define NOINLINE __attribute__((noinline, noclone))

/* Tells the compiler that memory may have changed and that `p` is used. */
static inline void row_clobber(const void *p)
{
    __asm__ volatile("" : : "r"(p) : "memory");
}

static inline uint64_t row_mix(uint64_t sum, uint64_t value)
{
    sum = (sum ^ value) * 0x9e3779b97f4a7c15u;
    return sum ^ sum >> 29;
}

/* The rows' random numbers: an LCG with a mixed output. */
static inline uint32_t row_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

static inline uint64_t row_bits(double value)
{
    union {
        double d;
        uint64_t u;
    } bits = {.d = value};
    return bits.u;
}

/* Folders: the bench's data, and one in memory for what rows write. */
extern const char *row_data_folder, *row_temp_folder;

#endif
