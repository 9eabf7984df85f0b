/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ELF executables, 32 and 64 bits, loaded at their physical addresses.
 *
 * Spec      System V ABI, chapters 4 and 5.
 * Trust     The file is hostile; counts, offsets and sizes are capped and checked.
 */
#pragma once

#include "machine/boot/boot.h"

#define ELF_MAX_SEGMENTS 128
#define ELF_MACHINE_386 3
#define ELF_MACHINE_X86_64 62

struct elf_segment {
    uint32_t type;
    uint64_t off, vaddr, paddr, file_size, mem_size, align;
};

struct elf_image {
    bool is_64;
    uint16_t machine;
    uint64_t entry;
    unsigned count;
    struct elf_segment segment[ELF_MAX_SEGMENTS];
};

bool elf_parse(const struct boot_file *f, struct elf_image *ret, GError **error);
/* *ret_end: the first byte behind all segments below 4 GiB. */
bool elf_load(struct machine *m, const struct boot_file *f, const struct elf_image *e, uint64_t *ret_end,
              GError **error);
/* The entry point as a physical address. */
uint64_t elf_entry_physical(const struct elf_image *e);
/* The PVH entry of its Xen note, or 0. */
bool elf_pvh_entry(const struct boot_file *f, const struct elf_image *e, uint32_t *ret_entry, GError **error);
