/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Makes the stub of an instruction from its row. Registers in stubs: reg xmm1, rm xmm2, vvvv xmm3, is4 xmm4,
 * the implicit one xmm0, general rax; MMX and x87 registers keep the guest's numbers.
 *
 * Spec      Intel SDM volume 2, chapter 2 (encoding).
 */
#pragma once

#include "cpu/insn.h"

/* What an operand kind means for a stub. */
enum operand_field { OF_NONE, OF_REG, OF_RM, OF_VVVV, OF_IS4, OF_XMM0, OF_IMM };
enum operand_class { OC_NONE, OC_XMM, OC_MM, OC_GPR, OC_MEM };
struct operand_info {
    uint8_t field, class;
    uint8_t bytes; /* of memory; 0: by vector length (16 for legacy); 1: none or a byte */
};
extern const struct operand_info operand_info[N_OPERANDS];

/* The operand that ModRM.rm names, or NULL. */
const struct operand_info *operand_rm(const struct insn_row *row);
/* Bytes of the memory operand. */
unsigned operand_mem_bytes(const struct insn *i);
/* True when the instruction's REX.W or VEX.W matters. */
bool emit_wants_w(const struct insn *i);
/* VEX.L of 256 bits, where it matters. */
bool emit_is_wide(const struct insn *i);

/* The slot of the instruction's stub, made if need be; 0: no room. */
uint32_t emit_stub(const struct insn *i);
