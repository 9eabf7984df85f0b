/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SMBIOS tables: what the machine is called, its processors and its memory.
 *
 * Spec      DMTF DSP0134, SMBIOS 3.3: structure types 0, 1, 3, 4, 16, 17, 19, 32, 127.
 */
#pragma once

#include "machine/machine.h"

/* Entry point, then the structures, to be placed at `base`. The caller unrefs. */
GByteArray *smbios_build(const struct machine *m, uint64_t base);
