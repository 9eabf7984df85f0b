/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The translator: x86-64 guest code made into x86-64 host code. docs/software-cpu.md has the design.
 *
 * It stands beside the interpreter on the same decoder, state and TLB. It never fails: what it cannot or may not
 * translate is interpreted, instruction by instruction or block by block.
 *
 * Owner     cpu_shared owns the code cache and all blocks; a vCPU owns only its jump cache.
 * Thread    translate_run(): the vCPU's own. translate_written(), translate_drop_all(): any. Look-ups take no
 *           lock; making, linking and dropping blocks take translate.lock, a leaf below cpu_shared.lock.
 * Trust     Guest code is hostile. Emitted code touches struct cpu and guest RAM through the TLB, nothing else, and
 *           raises no host signal: alignment, division and exceptions are checked before they can.
 */
#pragma once

#include "cpu/state.h"

struct translate; /* cpu_shared.translate: the code cache; NULL when translation is off */

/* `code_bytes`: host code kept at most. 0 or negative errno. */
int translate_shared_init(struct cpu_shared *s, enum cpu_translate how, uint64_t code_bytes);
void translate_shared_done(struct cpu_shared *s);
/* For tests: every block is translated when it is first met. Before vCPUs run. */
void translate_set_eager(struct cpu_shared *s);
enum cpu_translate translate_how(const struct cpu *c);
/* LOCK may be left out: the machine has one vCPU, no other process works on its memory, and devices' fences make up for
 * the order (base/fence.h). May end while vCPUs run. */
bool translate_plain_locks(const struct cpu *c);
int translate_init(struct cpu *c);
void translate_done(struct cpu *c);

/* Whether the current mode is one that is translated: 64-bit, or flat 32-bit protected; no TF, no alignment checks. */
bool translate_wanted(const struct cpu *c);
/* Runs from c->rip on as exec_blocks() does: until an event, a fault, an exit or a mode that is not translated.
 * X_AGAIN: look at events and at translate_wanted() again; X_FAULT: deliver c->fault; X_EXIT. */
int translate_run(struct cpu *c);
/* The same for one block (and those linked behind it): X_JUMP, too. */
int translate_one(struct cpu *c);

/* Guest memory of these granules (mmu.h) of the page was written: blocks made from it are dead, and the granules' bits
 * clear, when this returns. The answer: the page's bits before. No vCPU enters those blocks any more; one that is inside
 * leaves at its next back edge, indirect branch or call into C, so an event must be posted to the others. `self`
 * (may be NULL): sets self->code_changed if a block died. s->translate is not NULL. */
uint64_t translate_written(struct cpu_shared *s, struct cpu *self, uint64_t page, uint64_t granules);
/* The address map changed, and CPU_EV_FLUSH has been posted to all. */
void translate_drop_all(struct cpu_shared *s);
