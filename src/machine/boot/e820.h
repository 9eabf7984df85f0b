/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The memory map as firmware reports it.
 *
 * Spec      ACPI 6.4, chapter 15 (INT 15h, E820h).
 * Thread    Any; plain data.
 */
#pragma once

#include "base/util.h"

enum e820_type { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3 };

struct e820_entry {
    uint64_t base, size;
    uint32_t type;
} __attribute__((packed));

#define E820_MAX 32
struct e820_map {
    struct e820_entry entry[E820_MAX];
    unsigned count;
};

/* Sorted insertion; a range that overlaps RAM entries is cut out of them first. Ranges beyond E820_MAX entries are
 * dropped: boards have far fewer. */
void e820_add(struct e820_map *map, uint64_t base, uint64_t size, enum e820_type type);
/* [base, base + size) is all RAM by the map. */
bool e820_is_ram(const struct e820_map *map, uint64_t base, uint64_t size);
