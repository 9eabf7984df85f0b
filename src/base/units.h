/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Numbers with units, as people type them. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* "64M", "1.5G", "0x1000", "4096": binary multiples k K M G T P E, optional trailing B/iB; a bare number is
 * multiplied by `unit`. False: not a size, or over 2^63-1. */
bool units_parse_size(const char *text, uint64_t unit, uint64_t *ret_bytes);
/* "64 MiB", into a static per-thread buffer. */
const char *units_format_size(uint64_t bytes);
/* Decimal, 0x hexadecimal; the whole text must be used. */
bool units_parse_u64(const char *text, uint64_t *ret);
