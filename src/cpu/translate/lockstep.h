/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lockstep: the interpreter runs a block's instructions first, is undone, and must have come to what the
 * translated block then comes to.
 *
 * Blocks are entered one by one (no links, no jump cache). Each is compared in its first LOCKSTEP_FIRST runs, then in
 * one of LOCKSTEP_THEN. Instructions with effects outside registers and memory (ports, MSRs, time, modes) are
 * blocks of their own and are not compared; nor are runs that meet MMIO or change code. One vCPU; a
 * difference in what a device wrote meanwhile is not one.
 *
 * Thread    The vCPU's own.
 */
#pragma once

#include "cpu/translate/tb.h"

#define LOCKSTEP_FIRST 40
#define LOCKSTEP_THEN 64

struct lockstep;
struct lockstep *lockstep_new(void); /* NULL: out of memory */
void lockstep_free(struct lockstep *l);

/* True when the instruction must be a block of its own under lockstep; `how` is the machine's. */
bool lockstep_alone(enum cpu_translate how, const struct insn *i);
/* The interpreter's run of the block at c->rip: state is as before. False: this run is not to be compared. */
bool lockstep_before(struct cpu *c, struct lockstep *l, struct tb *tb);
/* After the translated run, which answered `answer`. False: they differ, c->error says it and the log has the rest. */
bool lockstep_after(struct cpu *c, struct lockstep *l, const struct tb *tb, uint64_t answer);
