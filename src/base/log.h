/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages of a program to its user, and the debug log of -d / -D / -trace.
 *
 * Thread    Any. One write(2) a line, so that lines never mix.
 * Note      Never call these per guest request on the data plane: count instead, or guard with log_on().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* "ruche-vmm: warning: ..." on standard error. */
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* As log_warn, but at most once per call site's `once` flag: for what a guest can provoke at will. */
void log_warn_once(bool *once, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Shown before each message; timestamps by -msg timestamp=on. */
void log_set_program(const char *name);
void log_set_timestamps(bool on);

/* Debug items, QEMU's -d words. */
enum log_item {
    LOG_IN_ASM = 1u << 0, LOG_INT = 1u << 1, LOG_CPU = 1u << 2, LOG_EXEC = 1u << 3, LOG_MMU = 1u << 4,
    LOG_GUEST_ERRORS = 1u << 5, LOG_UNIMP = 1u << 6, LOG_CPU_RESET = 1u << 7, LOG_PCALL = 1u << 8,
    LOG_LOCKSTEP = 1u << 10,
    LOG_TRACE = 1u << 9, /* -trace: log_trace() events that match the patterns */
};
extern uint32_t log_items;
static inline bool log_on(uint32_t items)
{
    return __builtin_expect(log_items & items, 0);
}
/* To the -D file or standard error. Guard with log_on(). */
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "int,cpu" to bits; on an unknown word returns it (borrowed copy in a static buffer), else NULL. */
const char *log_parse_items(const char *text, uint32_t *ret_items);
/* NULL-ended {word, help} pairs for -d help. */
struct log_item_name { const char *name, *help; uint32_t bit; };
extern const struct log_item_name log_item_names[];
int log_set_file(const char *path); /* 0 or -errno */

/* Trace events: a name with glob patterns on the command line, e.g. "virtio_*". */
void log_trace_enable(const char *pattern);
void log_trace(const char *event, const char *format, ...) __attribute__((format(printf, 2, 3)));
