/* SPDX-License-Identifier: GPL-2.0-or-later */
/* MP tables, for guests that know no ACPI.
 *
 * Spec      Intel MultiProcessor Specification 1.4, chapter 4.
 */
#pragma once

#include "machine/boot/boot.h"

/* Floating pointer, then the configuration table, to be placed at `base`. The caller unrefs. */
GByteArray *mptable_build(const struct machine *m, const struct boot_board *board, uint64_t base);
