/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the board and the ACPI tables know of `ich9-lpc` (00:1f.0).
 *
 * Spec      Intel ICH9 datasheet 316972, chapters 10 (chipset configuration) and 13 (LPC bridge).
 * Wiring    The root bus's lines are PIRQ A-H (0-7): the host bridge passes them on with
 *           ich9_pci_set_irq(). PIRQ n is always m->gsi[16 + n], and also the ISA IRQ of its
 *           routing register (60-63, 68-6b) when bit 7 there is clear, which firmware then makes
 *           level-triggered (ELCR). m->power_button is the button of the PM block.
 * Firmware  Without firmware the board calls ich9_setup() at each reset: PMBASE, GPIOBASE, ACPI
 *           enable, RCBA, SCI on 9.
 */
#pragma once

#include "machine/device.h"

#define ICH9_PMBASE 0x600        /* where ich9_setup() puts it; 128 bytes */
#define ICH9_PM1_EVT 0x00        /* 4 bytes: PM1_STS, PM1_EN */
#define ICH9_PM1_CNT 0x04        /* 2 */
#define ICH9_PM_TMR 0x08         /* 4, 24 bits count */
#define ICH9_GPE0 0x20           /* 16 bytes: 8 status, 8 enable */
#define ICH9_CPU_GPE 2           /* machine.cpu_event */
#define ICH9_SMI_EN 0x30
#define ICH9_APM_CNT 0xb2        /* SMI_CMD */
#define ICH9_ACPI_ENABLE 0x02    /* values of SMI_CMD */
#define ICH9_ACPI_DISABLE 0x03
#define ICH9_SCI_GSI 9           /* level; active high, as the MADT's override must say */
#define ICH9_RST_CNT 0xcf9       /* FADT reset register; value 0x06 or 0x0e */
#define ICH9_GPIOBASE 0x480 /* 64 ports */
#define ICH9_RCBA 0xfed1c000u
#define ICH9_SLP_TYP_S5 0        /* \_S5: SLP_TYP 0; S3 is 1, S4 is 2; only S5 acts (S3 and S4 are ignored) */
#define ICH9_PIRQ_GSI 16         /* PIRQ A */

/* Level of PIRQ A-H (0-7). Any thread. */
void ich9_pci_set_irq(struct device *lpc, unsigned pirq, int level);
/* The ISA IRQ that PIRQ A-H (0-7) reaches by its routing register now, or 0: for
 * PCI_INTERRUPT_LINE. */
uint8_t ich9_pirq_irq(struct device *lpc, unsigned pirq);
/* What firmware does: see above; also routes PIRQ A..H to 10, 10, 11, 11, 10, 10, 11, 11 and sets
 * ELCR for these. */
void ich9_setup(struct device *lpc);
