/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Small files of /sys and /proc, and sets of numbers as the kernel prints them.
 *
 * Thread    Any; reads do not block on devices.
 * Root      NODE_SYSFS of the environment stands in front of every path: for tests.
 */
#pragma once

#include "base/error.h"
#include "base/util.h"

#include <glib.h>
#include <inttypes.h>
#include <stdbool.h>

#define SYSFS_MAX_BYTES (1u << 20)
#define CPU_SET_MAX     8192 /* NR_CPUS of the largest kernels */

/* The text without the last line feed; NULL: not there, not readable, or larger than
 * SYSFS_MAX_BYTES. */
char *sysfs_read(const char *format, ...) G_GNUC_PRINTF(1, 2);
bool sysfs_read_u64(uint64_t *ret, const char *format, ...) G_GNUC_PRINTF(2, 3); /* decimal or 0x */
bool sysfs_exists(const char *path);
char *sysfs_path(const char *path);
/* One write of the text to a file that is there; waits for drivers: on a worker. */
bool sysfs_write(const char *path, const char *text, GError **error);
/* Numbers N of the entries "PREFIXN" of a folder, ascending. Never NULL. */
GArray *sysfs_numbers(const char *folder, const char *prefix);

/* Sets of CPUs or NUMA nodes. All zeroes is empty. */
struct cpu_set {
    uint64_t bits[CPU_SET_MAX / 64];
};
/* "0-3,8": false, and an empty set, when it is not that. */
bool cpu_set_parse(struct cpu_set *s, const char *text);
static inline bool cpu_set_has(const struct cpu_set *s, unsigned n)
{
    return n < CPU_SET_MAX && (s->bits[n / 64] >> (n % 64) & 1);
}
static inline void cpu_set_add(struct cpu_set *s, unsigned n)
{
    if (n < CPU_SET_MAX)
        s->bits[n / 64] |= 1ULL << (n % 64);
}
unsigned cpu_set_count(const struct cpu_set *s);
int cpu_set_last(const struct cpu_set *s);   /* -1: empty */
char *cpu_set_text(const struct cpu_set *s); /* "0-3,8" */
