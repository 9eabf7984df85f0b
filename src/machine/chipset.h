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
#define HPET_BLOCK_ID 0x8086a201u /* Intel, 64 bits, legacy replacement, 3 timers, revision 1 */
#define HPET_MIN_TICK 100
#define PCI_IO_WINDOW_BASE 0xc000u
#define PCI_IO_WINDOW_END 0x10000u
#define PCI_MEM64_WINDOW_BYTES (32 * GIB)
#define PCI_GSI_BASE 16 /* the root bus's lines A to H are GSI 16 to 23 */
#define SCI_GSI 9       /* level, active high */
#define FIRMWARE_BASE 0xfffc0000u
#define KVM_PAGES_BASE 0xfeffc000u /* identity map and task state of real mode on KVM */
#define KVM_PAGES_BYTES 0x4000u

/* q35 */
#define Q35_RAM_LOW_MAX 0xb0000000u   /* all RAM below 4 GiB when it fits under the ECAM */
#define Q35_RAM_LOW_SPLIT 0x80000000u /* else so much of it */
#define Q35_ECAM_BASE 0xb0000000u
#define Q35_ECAM_BYTES (256 * MIB)
#define Q35_MEM_WINDOW_BASE 0xc0000000u
#define Q35_MEM_WINDOW_END 0xfec00000u
#define CPU_HOTPLUG_TYPE "acpi-cpu-hotplug" /* devices/misc/cpu_hotplug.h; both boards */
#define CPU_HOTPLUG_BASE 0xcd8
#define CPU_HOTPLUG_PORTS 12
#define Q35_CPU_GPE 2
#define Q35_PMBASE 0x600
#define Q35_PM_BYTES 128
#define Q35_PM1_EVT 0x00 /* offsets from PMBASE */
#define Q35_PM1_CNT 0x04
#define Q35_PM_TMR 0x08
#define Q35_GPE0 0x20
#define Q35_GPE0_LEN 16
#define Q35_SMI_CMD 0xb2
#define Q35_ACPI_ENABLE 0x02 /* written to SMI_CMD */
#define Q35_ACPI_DISABLE 0x03
#define Q35_SLEEP_TYPE_S5 0
#define Q35_RESET_PORT 0xcf9
#define Q35_RESET_VALUE 0x0f
#define Q35_RCBA 0xfed1c000u
#define Q35_RCBA_BYTES 0x4000u

/* microvm */
#define MICROVM_RAM_LOW_MAX 0xc0000000u
#define MICROVM_MEM_WINDOW_BASE 0xc0000000u
#define MICROVM_MEM_WINDOW_END 0xe0000000u
#define MICROVM_ECAM_BASE 0xe0000000u
#define MICROVM_ECAM_BYTES (256 * MIB)
#define MICROVM_SLEEP_BASE 0x604
#define MICROVM_SLEEP_CONTROL 0 /* offsets from it */
#define MICROVM_SLEEP_STATUS 1
#define MICROVM_SLEEP_RESET 2
#define MICROVM_SLEEP_EVENTS 3
#define MICROVM_RESET_VALUE 0x42
#define MICROVM_EVENT_POWER_BUTTON 0x01
#define MICROVM_EVENT_CPU 0x02
#define MICROVM_SLEEP_TYPE_S5 5

/* Which PIRQ (A-H: 0-7) INTA# to INTD# (0-3) of a slot drive on q35's root bus: slots 25 to 31 are the chipset's own
 * functions, on A to D and not rotated. The DSDT's _PRT is made from this. */
static inline unsigned q35_pci_line(unsigned slot, unsigned pin)
{
    return slot < 25 ? 4 + (slot + pin) % 4 : pin % 4;
}

/* The ISA IRQs that PIRQ A-H are routed to when no firmware runs. */
#define Q35_PIRQ_IRQS { 10, 10, 11, 11, 10, 10, 11, 11 }

static inline unsigned microvm_pci_line(unsigned slot, unsigned pin)
{
    return (slot + pin) % 4;
}

/* Where prefetchable 64-bit BARs may go: behind the RAM. */
static inline uint64_t pci_mem64_window_base(uint64_t ram_above_4g)
{
    return align_up(4 * GIB + ram_above_4g, GIB);
}
