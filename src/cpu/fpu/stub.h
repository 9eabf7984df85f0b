/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The store of generated stubs: short host code sequences, found by key, shared by all vCPUs.
 *
 * A stub depends on the instruction's encoding alone, never on guest addresses or registers, so it is made
 * once in the life of the process. The store is bounded (STUB_ARENA_BYTES), and large enough for every encoding that
 * there is (fpu_test.c makes them all), so no guest can fill it.
 *
 * Owner     The process.
 * Thread    Any; writing takes a lock, running none.
 * Trust     Which stubs are made is the guest's choice; what is in them is not: only emit.c writes code.
 * Security  Never writable and executable: two mappings of one memfd.
 */
#pragma once

#include "base/util.h"

#define STUB_ARENA_BYTES (8 * MIB)
#define STUB_GRAIN 16u /* stubs start at multiples; a slot is an offset in grains, never 0 */
#define STUB_MAX 160u

/* reg, rm, vvvv and is4 point at vector registers (low half; the high half of a YMM register lies
 * XS_YMM - XS_XMM bytes further), rm at the memory operand where there is one. `gpr` is the general
 * register read, or the flags; the answer is the general register written, or the flags in cpu->flags_ax
 * form in the low 16 bits. */
typedef uint64_t stub_fn(uint8_t *reg, uint8_t *rm, uint8_t *vvvv, uint8_t *is4, uint64_t gpr,
                         uint32_t *mxcsr);

extern const uint8_t *stub_base;

static inline stub_fn *stub_at(uint32_t slot)
{
    return (stub_fn *)(uintptr_t)(stub_base + (size_t)slot * STUB_GRAIN);
}

/* 0 or negative errno: the arena could not be made. Once is enough, again does nothing. */
int stub_init(void);
/* The slot stored for `key`, or 0. */
uint32_t stub_find(uint64_t key);
/* Stores code for `key`; 0: the arena is full. Another thread's for the same key may be answered. */
uint32_t stub_add(uint64_t key, const uint8_t *code, unsigned len);
