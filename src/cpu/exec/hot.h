/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tables of threaded handlers (hot.c), from which hot_bind.c chooses. Private to exec/. */
#pragma once

#include "cpu/exec/run.h"

/* Indexes: [size], log2 of the operand's bytes; [ea], 0 for base + displacement, 1 for any address; [wide],
 * 0 for 32 bits, 1 for 64; [far], whether the target is on another page. */
typedef exec_op_fn *hot_sizes[4];

enum hot_binary_op { HOT_ADD, HOT_OR, HOT_ADC, HOT_SBB, HOT_AND, HOT_SUB, HOT_XOR, HOT_CMP, HOT_TEST, HOT_MOV,
                     N_HOT_BINARY };
/* Destination and source: r is ModRM.rm as a register, g ModRM.reg, m memory, i an immediate. */
struct hot_binary {
    hot_sizes rr, rg, ri, rm[2], mr[2], mi[2];
};
extern const struct hot_binary hot_binaries[N_HOT_BINARY];

enum hot_unary_op { HOT_INC, HOT_DEC, HOT_NEG, HOT_NOT, N_HOT_UNARY };
struct hot_unary {
    hot_sizes r, m[2];
};
extern const struct hot_unary hot_unaries[N_HOT_UNARY];

enum hot_shift_op { HOT_SHL, HOT_SHR, HOT_SAR, HOT_ROL, HOT_ROR, N_HOT_SHIFT };
struct hot_shift {
    hot_sizes ri, rc;
};
extern const struct hot_shift hot_shifts[N_HOT_SHIFT];

enum hot_widen_op { HOT_MOVZX_8, HOT_MOVZX_16, HOT_MOVSX_8, HOT_MOVSX_16, HOT_MOVSX_32, N_HOT_WIDEN };
struct hot_widen {
    exec_op_fn *form[2][3]; /* [wide]: register, memory by [ea] */
};
extern const struct hot_widen hot_widens[N_HOT_WIDEN];

extern exec_op_fn *const hot_jcc[16][2]; /* [condition][far] */
extern exec_op_fn *const hot_cmov[16][2]; /* [condition][wide] */
extern exec_op_fn *const hot_set[16];
extern exec_op_fn *const hot_lea[2][2]; /* [wide][ea] */
extern exec_op_fn *const hot_imul_rr[2], *const hot_imul_rri[2]; /* [wide] */
extern exec_op_fn *const hot_jmp[2], *const hot_call[2]; /* [far] */

struct hot_singles {
    exec_op_fn *nop, *cdqe, *movabs;
};
extern const struct hot_singles hot_singles;
struct hot_flow {
    exec_op_fn *push, *push_imm, *pop, *leave, *ret, *jmp_reg, *jmp_mem, *call_reg;
};
extern const struct hot_flow hot_flow;

/* Ends of blocks. */
exec_op_fn hot_tail_near, hot_tail_far, hot_tail_leave;

/* hot_fuse.c: when a near conditional jump follows a comparison, the comparison jumps itself. `i` is the comparison,
 * its threaded form made; the jump is the op behind it. */
void hot_fuse(struct exec_op *i);
/* Whether an op is a conditional jump to its own page; its condition. */
bool hot_is_near_jcc(const struct exec_op *i, unsigned *ret_condition);
