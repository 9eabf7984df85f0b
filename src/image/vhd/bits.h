/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bitmaps of sectors inside the pages of a file: which of a block are there. VHD and VHDX differ in
 * the order of the bits of a byte alone.
 *
 * Fiber     All of it.
 * Trust     Bitmaps are hostile, and may say what they like.
 */
#pragma once

#include "image/vhd/pages.h"

enum bits_order { BITS_HIGH_FIRST, BITS_LOW_FIRST };

/* How many of the `count` bits from `first` on, of the bitmap at `off`, are like the first; at most
 * what is looked at in one step. 0 or negative errno. */
int bits_run(struct pages *p, uint64_t off, uint32_t first, uint32_t count, enum bits_order order,
             bool *ret_set, uint32_t *ret_count);
/* Sets them; pages in which they all are stay clean. */
int bits_set(struct pages *p, uint64_t off, uint32_t first, uint32_t count, enum bits_order order);
