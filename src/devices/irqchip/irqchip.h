/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The userspace interrupt controllers, as a board puts them together. Not used with a kernel
 * irqchip.
 *
 * Wiring    The board makes "lapic", then "ioapic", then (optional) "i8259", then (optional) "hpet";
 *           each wires itself in realize. Who raises interrupts may come before or after.
 *   lapic   maps 0xfee00000 and sets accel->apic; it serves all vCPUs, which exist by then.
 *   ioapic  maps 0xfec00000 and connects m->gsi[0..23]: GSI n to pin n, but ISA IRQ 0 to pin 2, and
 *           GSI 2 to nothing, as on every PC (the MADT says so with an override).
 *   i8259   ports 20, 21, a0, a1, 4d0, 4d1; puts itself before m->gsi[0..15]; its output is every
 *           LINT0.
 *   hpet    puts itself before m->gsi[0] and m->gsi[8], which it takes over in legacy replacement.
 * Thread    Any. Lock order: device < pci bus < i8259, ioapic; the local APICs post without a lock.
 */
#pragma once

#include "machine/machine.h"

#define IOAPIC_PINS 24
#define IOAPIC_BASE 0xfec00000u
#define LAPIC_BASE 0xfee00000u

/* To the machine's `lapic`; without one they do nothing. */

/* LINT0 of all local APICs: the PIC's output; `ack` gives the vector of the PIC (and takes its
 * lock). */
void lapic_connect_pic(struct machine *m, int (*ack)(void *opaque), void *opaque);
void lapic_set_lint0(struct machine *m, int level);
/* The end of a level-triggered interrupt, broadcast by the APIC that finished it. */
void lapic_connect_eoi(struct machine *m, void (*eoi)(void *opaque, uint8_t vector), void *opaque);
/* LINT1 of all: the NMI button. */
void lapic_nmi(struct machine *m);
