/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Vector, MMX and x87 registers while translated code runs.
 *
 * Guest register n is host register n. They are *live* from the first vector instruction on until C code runs, which
 * parks them in cpu->xsave: thunk interp and whatever leaves to the dispatcher. Nothing loads them again but the next
 * vector instruction. Two levels: XMM registers and MXCSR (legacy SSE), and the upper halves too (VEX). At the
 * lower level the upper halves in the host's registers are zero and cpu->xsave has the guest's.
 *
 * MXCSR is the guest's while live. MODE_SSE_TRAPS says that it lets an exception through: then A_FLOAT rows are
 * interpreted, so the host never traps. cpu->xsave has its control bits at any time, its flags when parked.
 *
 * x87 and MMX registers are in the host's unit while cpu->fpu_live, in C code as well; only the handlers that park
 * them clear it. MODE_X87_TRAPS leaves x87 and MMX to the interpreter. FOP, FIP and FDP are kept in cpu->xsave.
 *
 * Thread    Code generation: the thread that builds the block. Thunks: the vCPU's own.
 */
#pragma once

#include "cpu/translate/emit.h"

enum vec_live { VEC_NONE, VEC_XMM, VEC_YMM };

/* At least this level is live from here on: emits the test and its cold path once a block. Destroys S1; may
 * destroy host flags after making them recoverable. */
void emit_vec_live(struct tr *t, enum vec_live level);
void emit_x87_live(struct tr *t);
/* The block ends behind the instruction in hand, and goes on there: for one whose slow path may change the mode. */
void emit_block_end(struct tr *t);

/* --- emit_vector.c --- */

/* Of the memory operand of a row of handler `vec`. */
unsigned vector_bytes(const struct insn *i);
unsigned vector_align(const struct insn *i);
bool vector_writes_memory(const struct insn *i);

/* --- for thunk.c --- */

/* In code that is about to run C: parks what is live. Destroys S1 and flags. */
void emit_park(struct as *a, const struct thunks *th);
/* Makes thunks vec_park (call; destroys S1 and flags), vec_load, ymm_load (call; keep everything but S1; nothing to do
 * is fine) and x87_load (call; destroys S1 and flags, parks vector registers). */
void vector_make_thunks(struct as *a, struct thunks *th);
