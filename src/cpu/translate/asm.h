/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Host instructions, one function each: appends bytes at as->p. Running out of room sets `full`, and then nothing
 * is written any more; the block is given up or cut shorter.
 *
 * Spec      Intel SDM volume 2, chapter 2.
 * Names     Host registers are R_*; 64-bit operations unless the name has a size. Memory operands are struct
 *           as_mem. What changes host flags says so: everything but mov, lea, movzx, movsx, not, xchg, push,
 *           pop, jumps, setcc, cmov, lahf, and the BMI2 shifts.
 */
#pragma once

#include "base/util.h"

enum {
    R_AX, R_CX, R_DX, R_BX, R_SP, R_BP, R_SI, R_DI, R_8, R_9, R_10, R_11, R_12, R_13, R_14, R_15, R_NONE = 0xff,
};

enum { CC_O, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A, CC_S, CC_NS, CC_P, CC_NP, CC_L, CC_GE, CC_LE, CC_G };

struct as {
    uint8_t *p, *end; /* writable addresses */
    ptrdiff_t to_rx;  /* executable address = writable + to_rx */
    bool full;
    bool ax_used;     /* set when RAX may have been written (memory operands apart); cleared by whoever wants to know */
};

/* [seg: base + index << scale + disp]; base R_NONE: absolute disp32. */
struct as_mem {
    uint8_t base, index, scale;
    bool gs;
    int32_t disp;
};
#define AS_GS(off) ((struct as_mem){ .base = R_NONE, .index = R_NONE, .gs = true, .disp = (int32_t)(off) })
#define AS_GS_AT(reg, off) ((struct as_mem){ .base = (reg), .index = R_NONE, .gs = true, .disp = (int32_t)(off) })
#define AS_AT(reg, off) ((struct as_mem){ .base = (reg), .index = R_NONE, .disp = (int32_t)(off) })

/* A jump whose target comes later. */
struct as_fix {
    uint8_t *at;   /* of the displacement */
    bool near;     /* rel32, else rel8 */
};

void as_bytes(struct as *a, const void *bytes, unsigned len); /* counts as a use of RAX, as those that follow */
void as_u8(struct as *a, uint8_t v);
void as_u32(struct as *a, uint32_t v);
void as_u64(struct as *a, uint64_t v);
/* The immediate of an operation of `size` bytes: at most 4. */
void as_imm(struct as *a, unsigned size, uint64_t imm);

/* Prefixes, opcode (map 0: one byte, 1: 0F, 2: 0F 38, 3: 0F 3A) and ModRM. `size` 1, 2, 4, 8 gives 66 and REX.W; a
 * byte register 4 to 7 gets a REX when `byte_reg` / `byte_rm` says that it is one. `pfx`: 0, F2, F3 or 66. */
struct as_op {
    uint8_t map, opcode, pfx, size;
    bool byte_reg, byte_rm, lock;
    bool no_modrm; /* the register `rm` is in the opcode */
    bool ext;      /* ModRM.reg is no register but part of the opcode */
};
void as_op_rr(struct as *a, struct as_op op, unsigned reg, unsigned rm);
/* `imm_bytes` that follow the instruction matter for nothing here but room. */
void as_op_rm(struct as *a, struct as_op op, unsigned reg, struct as_mem m);
/* VEX-encoded: map 1 to 3, pfx 0, 66, F3 or F2; vvvv 0 where there is none. */
struct as_vex {
    uint8_t map, opcode, pfx;
    bool w, l;
};
void as_vex_rr(struct as *a, struct as_vex op, unsigned reg, unsigned vvvv, unsigned rm);
void as_vex_rm(struct as *a, struct as_vex op, unsigned reg, unsigned vvvv, struct as_mem m);

/* The common ones. */
void as_mov(struct as *a, unsigned dst, unsigned src);          /* 64 */
void as_mov32(struct as *a, unsigned dst, unsigned src);
void as_mov_imm(struct as *a, unsigned dst, uint64_t imm);      /* shortest form; flags untouched */
void as_load(struct as *a, unsigned size, unsigned dst, struct as_mem m); /* 1, 2 zero-extend; 4 clears the high half */
void as_store(struct as *a, unsigned size, struct as_mem m, unsigned src);
void as_store_imm32(struct as *a, unsigned size, struct as_mem m, int32_t imm);
void as_lea(struct as *a, unsigned size, unsigned dst, struct as_mem m); /* m.gs is ignored */
/* Registers: movzx, movsx; from 4: movsxd. `from` 1, 2, 4 bytes, to `size` bytes. */
void as_extend(struct as *a, bool sign, unsigned from, unsigned size, unsigned dst, unsigned src);
enum { AS_ADD, AS_OR, AS_ADC, AS_SBB, AS_AND, AS_SUB, AS_XOR, AS_CMP };
void as_alu_rr(struct as *a, unsigned alu, unsigned size, unsigned dst, unsigned src);
void as_alu_ri(struct as *a, unsigned alu, unsigned size, unsigned dst, int32_t imm);
void as_alu_rm(struct as *a, unsigned alu, unsigned size, unsigned dst, struct as_mem m);
void as_alu_mr(struct as *a, unsigned alu, unsigned size, struct as_mem m, unsigned src);
void as_alu_mi(struct as *a, unsigned alu, unsigned size, struct as_mem m, int32_t imm);
void as_test_rr(struct as *a, unsigned size, unsigned r1, unsigned r2);
void as_test_ri(struct as *a, unsigned size, unsigned reg, int32_t imm);
void as_shift_ri(struct as *a, unsigned ext, unsigned size, unsigned dst, unsigned count); /* ext: 4 shl 5 shr 7 sar */
void as_push(struct as *a, unsigned reg);
void as_pop(struct as *a, unsigned reg);
void as_ret(struct as *a);
void as_lahf_seto(struct as *a);      /* AH, AL = the guest's form of flags */
void as_sahf_from_ax(struct as *a);   /* add al, 7f; sahf: the opposite. AX is lost */
void as_setcc(struct as *a, unsigned cc, unsigned dst);
void as_cmov(struct as *a, unsigned cc, unsigned size, unsigned dst, unsigned src);
struct as_fix as_jcc(struct as *a, unsigned cc, bool near);
struct as_fix as_jmp(struct as *a, bool near);
struct as_fix as_jrcxz(struct as *a); /* rel8 always */
void as_fix_here(struct as *a, struct as_fix f);             /* a rel8 that does not reach sets full */
void as_jcc_to(struct as *a, unsigned cc, const uint8_t *rx); /* to an executable address; rel8 where it reaches */
void as_jmp_to(struct as *a, const uint8_t *rx);
void as_call_to(struct as *a, const uint8_t *rx);
void as_jmp_mem(struct as *a, struct as_mem m);
void as_call_mem(struct as *a, struct as_mem m);
void as_nop(struct as *a, unsigned bytes);
