/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses and numbers of the two boards, shared by the board, its devices, and the tables that tell guests.
 *
 * Spec      Intel Q35 MCH 316966 and ICH9 316972 datasheets; ACPI 6.4; what stock firmware and kernels expect.
 */
#pragma once

#include "base/util.h"

/* Both boards. */
#define VGA_HOLE_BASE 0xa0000u
#define VGA_HOLE_END 0xc0000u
#define HPET_BASE 0xfed00000u
#define PCI_IO_WINDOW_BASE 0xc000u
#define PCI_IO_WINDOW_END 0x10000u
#define PCI_MEM64_WINDOW_BYTES (32 * GIB)
#define PCI_GSI_BASE 16 /* the root bus's lines A to D are GSI 16 to 19 */
#define SCI_GSI 9       /* level, active high */
#define FIRMWARE_BASE 0xfffc0000u

/* q35 */
#define Q35_RAM_LOW_MAX 0xb0000000u   /* all RAM below 4 GiB when it fits under the ECAM */
#define Q35_RAM_LOW_SPLIT 0x80000000u /* else so much of it */
#define Q35_ECAM_BASE 0xb0000000u
#define Q35_ECAM_BYTES (256 * MIB)
#define Q35_MEM_WINDOW_BASE 0xc0000000u
#define Q35_MEM_WINDOW_END 0xfec00000u
#define Q35_PMBASE 0x600
#define Q35_RESET_PORT 0xcf9

/* microvm */
#define MICROVM_RAM_LOW_MAX 0xc0000000u
#define MICROVM_MEM_WINDOW_BASE 0xc0000000u
#define MICROVM_MEM_WINDOW_END 0xe0000000u
#define MICROVM_ECAM_BASE 0xe0000000u
#define MICROVM_ECAM_BYTES (256 * MIB)

/* Which line (0-3) of q35's root bus INTA# to INTD# (0-3) of a slot drive: slots 25 to 31 are the chipset's own
 * functions and not rotated. The DSDT's _PRT is made from this. */
static inline unsigned q35_pci_line(unsigned slot, unsigned pin)
{
    return slot < 25 ? (slot + pin) % 4 : pin % 4;
}

static inline unsigned microvm_pci_line(unsigned slot, unsigned pin)
{
    return (slot + pin) % 4;
}

/* Where prefetchable 64-bit BARs may go: behind the RAM. */
static inline uint64_t pci_mem64_window_base(uint64_t ram_above_4g)
{
    return align_up(4 * GIB + ram_above_4g, GIB);
}
