/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One opcode table, one decoder, one decoded form: what the interpreter, the translator, the
 * disassembler, the test generator and flag liveness share.
 *
 * Spec      Intel SDM volume 2 (encoding, operand notation of appendix A); AMD APM volume 3.
 * Thread    Everything here is const or belongs to the caller.
 * Trust     The bytes are the guest's. The decoder never reads past `len`.
 *
 * The rows stand in decode/{int,system,x87,sse,vex}.def, one line an opcode form:
 *
 *   ROW(mnemonic, exec, MAP, opcode, PFX, MOD, REG, VEXSPEC, (OP1, OP2, OP3, OP4), flags_r, flags_w,
 *       flags_u, attributes)
 *
 * e.g. ROW(add, add, M1, 0x01, PFX_ANY, MOD_ANY, REG_ANY, LEGACY, (Ev, Gv, NONE, NONE), 0, OSZAPC, 0,
 *          A_LOCK)
 *
 * decode/table.c expands the rows into encodings, exec/bind.c into handlers x_<exec>().
 */
#pragma once

#include "base/util.h"

/* Opcode 0xNN of a row with a Zb or Zv operand stands for 0xNN to 0xNN+7. A row without ModRM whose REG is not
 * REG_ANY matches only when the opcode's low three bits with REX.B are that number (nop: 90). Of
 * several rows that match, the one most specific about prefix and REG wins. */

/* Opcode maps: legacy one-byte, 0F, 0F 38, 0F 3A. VEX maps 1 to 3 are the same numbers with a VEX row. */
enum insn_map { M1, M0F, M0F38, M0F3A };

/* Mandatory prefix of a row. PFX_ANY: 66 is the operand size, F2/F3 are repeat or ignored. */
enum insn_pfx { PFX_ANY, PFX_NP, PFX_66, PFX_F3, PFX_F2 };

/* ModRM.mod: none at all, anything, a memory form only, a register form only. */
enum insn_mod { MOD_NONE, MOD_ANY, MOD_MEM, MOD_REG };

/* REG column: ModRM.reg 0 to 7 picks the row; REG_RM(reg, rm) picks on both (0F 01 D0, x87 constants). */
#define REG_ANY 0xff
#define REG_RM(reg, rm) (0x40 | (reg) << 3 | (rm))

/* VEXSPEC column. */
enum insn_vex {
    LEGACY,
    VEX_LIG_WIG, VEX_LIG_W0, VEX_LIG_W1,
    VEX_L0_WIG, VEX_L0_W0, VEX_L0_W1,
    VEX_L1_WIG, VEX_L1_W0, VEX_L1_W1,
    VEX_ANY_WIG, VEX_ANY_W0, VEX_ANY_W1, /* 128 and 256 bits are both valid and differ */
};

/* Operand kinds, in the SDM's notation. Size letters: b w d q; v = 16/32/64, z = 16/32, y = 32/64
 * by operand size; p = far pointer; x = 16 or 32 bytes by VEX.L; dq = 16, qq = 32 bytes; s = 6/10-byte
 * pseudo-descriptor; ss sd ps pd as the SDM's. */
enum insn_operand {
    NONE,
    Eb, Ew, Ed, Eq, Ev, Ey, Ez,      /* ModRM.rm: general register or memory */
    Gb, Gw, Gd, Gq, Gv, Gy, Gz,      /* ModRM.reg: general register */
    Mb, Mw, Md, Mq, Mv, My, Mz, M_,  /* memory only; M_: no access or a size of its own (lea, fxsave) */
    Mp, Ms, Mdq, Mqq, Mx, Mt, Ma,    /* Mt: 80-bit, Ma: bound's pair */
    Mvs,                             /* memory indexed by a vector register (gathers) */
    Rd, Rq, Ry, Rv,                  /* ModRM.rm: general register only */
    Zb, Zv,                          /* low three opcode bits: general register */
    Ib, Iw, Id, Iz, Iv, Ibs,         /* immediates; Ibs: sign-extended byte */
    Jb, Jz,                          /* relative branch */
    Ap,                              /* far pointer in the instruction */
    Ob, Ov,                          /* moffs */
    Xb, Xv, Yb, Yv,                  /* string source and destination */
    Sw,                              /* segment register in ModRM.reg */
    Cy, Dy,                          /* control, debug register in ModRM.reg */
    rAL, rCL, rDX, rAXv, c1,         /* fixed */
    sES, sCS, sSS, sDS, sFS, sGS,    /* fixed segment registers */
    Pq, Qq, Qd, Nq,                  /* MMX: reg, reg/mem, reg/mem 32, rm register */
    Vx, Vdq, Vqq, Vq, Vd, Vss, Vsd, Vps, Vpd, /* vector register in ModRM.reg */
    Wx, Wdq, Wqq, Wq, Wd, Ww, Wb, Wss, Wsd, Wps, Wpd, /* vector register or memory in ModRM.rm */
    Ux, Udq, Uq, Ups, Upd,           /* vector register in ModRM.rm */
    Hx, Hdq, Hqq, Hq, Hd, Hss, Hsd, Hps, Hpd, /* VEX.vvvv vector register */
    Lx,                              /* vector register in imm8[7:4] */
    By,                              /* VEX.vvvv general register */
    XMM0r,                           /* implicit xmm0 (blendv, sha256rnds2) */
    ST0, STi,                        /* x87 */
    Fv,                              /* rFLAGS (pushf, popf) */
    N_OPERANDS
};

/* Flags by their place in RFLAGS. */
#define FLAG_CF 0x0001u
#define FLAG_PF 0x0004u
#define FLAG_AF 0x0010u
#define FLAG_ZF 0x0040u
#define FLAG_SF 0x0080u
#define FLAG_TF 0x0100u
#define FLAG_IF 0x0200u
#define FLAG_DF 0x0400u
#define FLAG_OF 0x0800u
#define FLAG_IOPL 0x3000u
#define FLAG_NT 0x4000u
#define FLAG_RF 0x10000u
#define FLAG_VM 0x20000u
#define FLAG_AC 0x40000u
#define FLAG_VIF 0x80000u
#define FLAG_VIP 0x100000u
#define FLAG_ID 0x200000u
#define OSZAPC (FLAG_OF | FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF | FLAG_CF)

/* Row attributes. */
#define A_LOCK (1u << 0)    /* LOCK is legal on a memory destination */
#define A_PRIV (1u << 1)    /* #GP unless CPL is 0 */
#define A_D64 (1u << 2)     /* 64-bit mode: operand size defaults to 64 (push, pop) */
#define A_F64 (1u << 3)     /* 64-bit mode: operand size is always 64 (near branches) */
#define A_NO64 (1u << 4)    /* #UD in 64-bit mode */
#define A_ONLY64 (1u << 5)  /* exists in 64-bit mode only (otherwise another row matches, or #UD) */
#define A_END (1u << 6)     /* ends a block: control flow or a change of mode */
#define A_REP (1u << 7)     /* F3 (and F2) repeat it */
#define A_NOREAL (1u << 8)  /* #UD in real and virtual-8086 mode */
#define A_ALIGN (1u << 9)   /* memory operand must be aligned to its size (#GP) */
#define A_MMX (1u << 10)    /* uses MMX state: #NM on CR0.TS, #UD on CR0.EM, clears the x87 tags */
#define A_X87 (1u << 11)    /* uses x87 state: #NM on TS or EM, waits for pending #MF unless A_NOWAIT */
#define A_SSE (1u << 12)    /* uses SSE state: #UD unless CR4.OSFXSR, #NM on TS */
#define A_AVX (1u << 13)    /* VEX: #UD unless OSXSAVE and XCR0[2:1] = 3, #NM on TS */
#define A_NOWAIT (1u << 14)
#define A_FLOAT (1u << 15)  /* may raise SIMD floating-point exceptions (#XM) */
#define A_IO (1u << 16)
#define A_STRING (1u << 17)
#define A_GPR (1u << 18)    /* VEX-encoded integer instruction (BMI): no vector state */
#define A_SHADOW (1u << 19) /* holds interrupts off for one instruction (sti, mov ss, pop ss) */
#define A_MODE (1u << 20)   /* may change the mode word, CPL or paging: next block is looked up anew */
#define A_FEATURE(bit) ((uint32_t)(bit) << 24) /* enum insn_feature: #UD when the CPU model lacks it */

/* CPUID features that gate whole rows. */
enum insn_feature {
    F_BASE, F_CMOV, F_CX8, F_CX16, F_MMX, F_SSE, F_SSE2, F_SSE3, F_SSSE3, F_SSE41, F_SSE42, F_SSE4A,
    F_POPCNT, F_LZCNT, F_BMI1, F_BMI2, F_ADX, F_MOVBE, F_AES, F_PCLMUL, F_SHA, F_AVX, F_AVX2, F_FMA,
    F_F16C, F_RDRAND, F_RDSEED, F_XSAVE, F_XSAVEOPT, F_XSAVEC, F_XSAVES, F_FSGSBASE, F_RDTSCP, F_RDPID,
    F_CLFLUSHOPT, F_CLWB, F_SYSCALL, F_INVPCID, F_SMAP, F_FXSR, F_GFNI, F_VAES, F_VPCLMUL, F_PREFETCHW,
    F_CLZERO, F_LAHF64, F_UMIP, F_WBNOINVD, F_SERIALIZE, F_MONITOR, N_INSN_FEATURES
};

struct insn_row {
    const char *mnemonic;
    uint8_t map, opcode, pfx, mod, reg, vex;
    uint8_t operand[4];
    uint16_t flags_r, flags_w, flags_u; /* read, written (incl. undefined), left undefined */
    uint32_t attr;
};

#define INSN_MAX_LEN 15
#define REG_NONE 0xff
/* Segment register numbers, in encoding order. */
enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, N_SEGS };
/* insn.base only: RIP-relative. insn.index of a Mvs operand: a vector register. The decoder leaves disp relative to the *next* instruction. */
#define BASE_RIP 16

struct cpu;
struct insn;

/* What a handler answers. Anything but X_NEXT leaves the block. */
enum exec_status {
    X_NEXT = 0,  /* done; the dispatcher goes on with the next instruction of the block */
    X_JUMP,      /* done; cpu->rip is the next instruction's address (taken branch, A_END) */
    X_FAULT,     /* nothing visible changed; cpu->fault describes the exception (cpu_raise()) */
    X_AGAIN,     /* interrupted half-way (rep): state is exact, cpu->rip still points at it */
    X_EXIT,      /* done or not started; cpu->exit_reason says why cpu_run() must return */
};

/* Handlers run with cpu->rip = address of this instruction. Those that answer X_NEXT do not touch
 * cpu->rip; the dispatcher adds insn->len. Nothing visible changes before the last possible fault. */
typedef int exec_fn(struct cpu *c, const struct insn *i);

/* A decoded instruction. `fn` is chosen once, by exec_bind(). */
struct insn {
    exec_fn *fn;
    uint64_t imm;   /* immediate, sign-extended to the operand size; relative target: displacement */
    int32_t disp;   /* memory displacement (moffs: low half, imm has the whole) */
    uint16_t row;   /* index into insn_rows[] */
    uint8_t len;    /* bytes, 1 to 15 */
    uint8_t opsize; /* operand size in bytes: 1, 2, 4, 8 */
    uint8_t adsize; /* address size in bytes: 2, 4, 8 */
    uint8_t mem;    /* 1: ModRM.rm is memory: base, index, scale, disp, seg hold the address */
    uint8_t reg;    /* ModRM.reg with REX.R, or the opcode's register with REX.B */
    uint8_t rm;     /* ModRM.rm with REX.B (register forms) */
    uint8_t base, index, scale; /* REG_NONE where absent; scale is a shift, 0 to 3 */
    uint8_t seg;    /* effective segment: default of the base register, or the override */
    uint8_t vvvv;   /* VEX.vvvv, 0 to 15 */
    uint8_t vl;     /* vector length in bytes: 16 or 32; 0 for legacy */
    uint8_t imm2;   /* enter's second immediate; imm8 beside is4 */
    uint8_t lock : 1, rep : 1, repne : 1, rex : 1, rex_w : 1, opsize_pfx : 1, mode64 : 1;
    uint16_t sel;   /* selector of Ap */
    uint32_t aux;   /* the binder's: a stub's offset, a size, ... */
};

extern const struct insn_row insn_rows[];
extern const unsigned insn_row_count;

/* Rows that share one (VEX or not, map, opcode), most specific first: see insn_slot_rows(). */
struct insn_slot {
    uint16_t first;
    uint8_t count;
    bool modrm; /* a ModRM byte follows the opcode */
};
const struct insn_slot *insn_slot_of(bool vex, unsigned map, uint8_t opcode);
const uint16_t *insn_slot_rows(const struct insn_slot *slot);

/* How bytes decode: part of a block's key. */
enum insn_mode { INSN_16, INSN_32, INSN_64 };

/* Decodes one instruction. Returns 0, -EAGAIN when `len` bytes are not enough (never for len >= 15), or
 * -EILSEQ: no such instruction (#UD), `ret->len` set when known. -E2BIG: longer than 15 bytes (#GP).
 * ret->fn is left NULL. `real`: real or virtual-8086 mode. */
int insn_decode(const uint8_t *bytes, size_t len, enum insn_mode mode, bool real, struct insn *ret);

/* Intel syntax into `buf`; for -d in_asm and for failure reports. Returns buf. */
const char *insn_disassemble(const struct insn *i, uint64_t rip, char *buf, size_t size);

/* Chooses i->fn. `bytes` are the instruction's own i->len bytes. exec/bind.c. */
void exec_bind(struct cpu *c, struct insn *i, const uint8_t *bytes);
