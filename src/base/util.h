/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Small helpers that every floor uses. No state, no I/O. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define KIB (1024ULL)
#define MIB (1024ULL * KIB)
#define GIB (1024ULL * MIB)

#define NS_PER_SEC 1000000000LL
#define NS_PER_MS 1000000LL
#define NS_PER_US 1000LL

/* `to` is a power of two. */
static inline uint64_t align_down(uint64_t v, uint64_t to)
{
    return v & ~(to - 1);
}

static inline uint64_t align_up(uint64_t v, uint64_t to)
{
    return align_down(v + to - 1, to);
}

static inline bool is_power_of_2(uint64_t v)
{
    return v && !(v & (v - 1));
}

/* True when [off, off + len) lies inside [0, size), without overflow. */
static inline bool range_fits(uint64_t off, uint64_t len, uint64_t size)
{
    return len <= size && off <= size - len;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}
