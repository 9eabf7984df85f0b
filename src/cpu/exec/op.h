/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Threaded instructions: what the dispatcher runs, half a cache line each.
 *
 * hot_bind() makes one from a decoded instruction. Those with a threaded handler keep just what it reads, which
 * is also enough to rebuild the struct insn when the complete handler must take over; the others have
 * theirs beside the block.
 */
#pragma once

#include "cpu/exec/exec.h"

struct exec_op;
/* Runs the instruction and goes on to the next; answers when the block is left (enum exec_status, no X_NEXT). */
typedef int exec_op_fn(struct cpu *c, const struct exec_op *i);

enum {
    OP_MEM = 1 << 0,      /* struct insn's mem */
    OP_REX = 1 << 1,      /* its rex */
    OP_REG_BYTE = 1 << 2, /* reg is a byte offset in cpu->gpr[]: 8-bit registers */
    OP_RM_BYTE = 1 << 3,
    OP_BRANCH = 1 << 4,   /* disp is a branch displacement from the block's start */
    OP_RIP = 1 << 5,      /* disp counts from the block's start; base is cpu->rip */
};

struct exec_op {
    exec_op_fn *run;
    int32_t imm;
    int32_t disp;
    union {
        uint32_t full;    /* generic: bytes from here to its struct insn */
        struct {          /* threaded: to rebuild one */
            uint16_t row;
            uint8_t sizes; /* log2 of opsize, of adsize << 4 */
            uint8_t flags; /* OP_* */
        };
    };
    uint16_t off;         /* bytes from the block's start */
    uint8_t len;          /* bytes */
    uint8_t left;         /* instructions of the block from this one on */
    uint8_t reg, rm;
    uint8_t base, index;  /* slots of cpu->slot[] */
    uint8_t scale;
    uint8_t shift;        /* 64 minus the address bits */
    uint8_t seg;
};
_Static_assert(sizeof(struct exec_op) == 32, "half a cache line");

#define OP_SLOT_NONE 17   /* cpu->zero */

/* The decoded instruction of a threaded one, bound. */
void op_rebuild(const struct cpu *c, const struct exec_op *op, struct insn *ret);
