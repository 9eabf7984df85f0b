/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The processor's part of -d: in_asm (code as it is decoded), int (exceptions and interrupts), exec and cpu (each
 * instruction, with the registers before it; runs one instruction at a time). */
#pragma once

#include "base/log.h"
#include "cpu/exec/block.h"

void trace_decoded(const struct cpu *c, const struct exec_block *b);
void trace_single(const struct cpu *c, const struct insn *i);
void trace_fault(const struct cpu *c);
void trace_interrupt(const struct cpu *c, unsigned vector);
