/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `acpi-cpu-hotplug`: the registers by which a guest learns of vCPUs that come and are to go, at
 * property iobase. The AML that reads them is machine/acpi/dsdt_cpu.c's.
 *
 * Spec      ACPI 6.4, sections 5.6.6 (device check, eject request), 6.3.3 (_EJ0), 6.3.5 (_OST);
 *           the registers are those of QEMU's docs/specs/acpi_cpu_hotplug.rst.
 * Wiring    machine.cpu_event is pulsed for each change: GPE 2 on q35, an event of the generic
 *           event device on microvm.
 * Thread    Registers: any vCPU. The functions: main.
 */
#pragma once

#include "machine/machine.h"

/* The vCPU is plugged in; the guest is told. */
void cpu_hotplug_inserted(struct machine *m, unsigned index);
/* The guest is asked to let go; machine_observer.cpu_ejected tells when it has. */
void cpu_hotplug_request(struct machine *m, unsigned index);
