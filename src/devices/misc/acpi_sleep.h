/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `acpi-sleep`: the registers of a hardware-reduced ACPI machine (microvm), at property iobase.
 *
 * Spec      ACPI 6.4, sections 4.8.3.7 (sleep control and status) and 5.6.9 (generic event device).
 * Wiring    The power button sets bit 0 of the event register and raises GSI `irq` (level) until it
 *           is read. The DSDT's generic event device has that interrupt, and its _EVT reads the
 *           register and notifies the button.
 */
#pragma once

#define ACPI_SLEEP_IOBASE 0x604
#define ACPI_SLEEP_CTL 0   /* write SLP_EN (bit 5) and SLP_TYP (bits 2-4): 5 is S5 */
#define ACPI_SLEEP_STS 1   /* WAK_STS (bit 7), write 1 to clear */
#define ACPI_SLEEP_RESET 2 /* FADT reset register: write 0x42 */
#define ACPI_SLEEP_EVT 3   /* reading gives and clears the pending events */
#define ACPI_SLEEP_SIZE 4
#define ACPI_SLEEP_TYP_S5 5
#define ACPI_SLEEP_RESET_VALUE 0x42
#define ACPI_SLEEP_EVT_POWER_BUTTON 0x01
#define ACPI_SLEEP_EVT_CPU 0x02 /* machine.cpu_event was pulsed */
#define ACPI_SLEEP_GSI 9
