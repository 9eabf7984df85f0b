/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ACPI tables of both boards.
 *
 * Spec      ACPI 6.4; PCI Firmware 3.2 (MCFG); IA-PC HPET 1.0a.
 * Thread    Main: built anew for every boot, from the devices that exist.
 */
#pragma once

#include "machine/acpi/aml.h"
#include "machine/machine.h"

#define ACPI_LAPIC_BASE 0xfee00000u
#define ACPI_IOAPIC_BASE 0xfec00000u

/* What differs between boards. */
struct acpi_board {
    bool reduced;             /* hardware-reduced: no PM block, sleep registers and a generic event device */
    uint64_t ecam_base, ecam_bytes;
    uint32_t mem_base;        /* the host bridge's window below 4 GiB */
    uint64_t mem_end;
    unsigned (*pci_line)(unsigned slot, unsigned pin); /* GSI - PCI_GSI_BASE */
    const uint8_t *line_irq;  /* the ISA IRQ of each line without an IOAPIC; NULL: none has one */
    uint8_t sleep_type_s5;
};

/* All tables, to be placed at `base`, which is where the RSDP is. The caller unrefs. */
GByteArray *acpi_build(struct machine *m, const struct acpi_board *board, uint64_t base);

/* The definition block alone, without its header (dsdt.c). */
GByteArray *acpi_dsdt_body(struct machine *m, const struct acpi_board *board);

/* Processors (dsdt_cpu.c), their event on boards with a PM block, and a processor's entry of the MADT. */
void acpi_processors(struct aml *a, const struct machine *m);
bool acpi_has_cpu_hotplug(const struct machine *m);
void acpi_cpu_event(struct aml *a);
void acpi_madt_cpu(GByteArray *to, uint32_t apic_id, uint32_t uid, bool present);
/* The machine's n-th device of a type, or NULL. */
const struct device *acpi_find_device(const struct machine *m, const char *type, unsigned n);
