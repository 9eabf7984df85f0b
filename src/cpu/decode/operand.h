/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What each operand kind means to the decoder and to the disassembler: one row a kind. */
#pragma once

#include "cpu/insn.h"

/* Where the operand is found. */
enum operand_place {
    AT_NOWHERE,
    AT_RM,      /* ModRM.rm: general register or memory */
    AT_REG,     /* ModRM.reg: general register */
    AT_OPCODE,  /* low opcode bits: general register */
    AT_VVVV,    /* VEX.vvvv: general register */
    AT_IMM, AT_IMM_REL, AT_IMM_FAR, AT_MOFFS,
    AT_STR_SRC, AT_STR_DST,
    AT_SREG, AT_CREG, AT_DREG, /* special register in ModRM.reg */
    AT_FIXED,   /* named by the kind */
    AT_MMX_RM, AT_MMX_REG,
    AT_VEC_RM, AT_VEC_REG, AT_VEC_VVVV, AT_VEC_IMM,
    AT_ST0, AT_STI,
};

/* Size: a number of bytes or one of these. */
enum { SIZE_V = 0x80, SIZE_Z, SIZE_Y, SIZE_X, SIZE_NONE };

struct operand_info {
    uint8_t place; /* enum operand_place */
    uint8_t size;  /* bytes, or SIZE_* */
};

extern const struct operand_info operand_infos[N_OPERANDS];
